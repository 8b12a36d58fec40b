#pragma once
/// Many texts over one model and one workspace: each tick is a pass over all that can go on, so that they share one read of the weights.
///
///     who goes first        those who waited longest, writing or reading, whatever they are
///     those who write       one row each (and drafts, where there is room), at most as many as the workspace has rows of logits and states
///     those who read        the other rows, in equal shares: all that are left while nobody writes, else as few as the host's bounds say, so that
///                           nobody who writes waits long for a long prompt   (stall-free batching: arXiv:2403.02310)
/// @since 0.2
#include <phi4flash/core/span_of.hpp>
#include <phi4flash/generate/row_shares.hpp>
#include <phi4flash/generate/text_writer.hpp>
#include <phi4flash/generate/tick_budget.hpp>
#include <phi4flash/model/pass.hpp>

#include <atomic>
#include <chrono>
#include <optional>
#include <span>
#include <utility>
#include <vector>

PHI4FLASH_BEGIN

/// A request of this scheduler; never given twice.
enum class request_id : std::uint64_t {};

/// A text that somebody wants.
template <sambay_shape Shape = any_sambay, class Kv = bf16>
struct request {
    session<Shape, Kv>* past = nullptr;          ///< that it goes on from; its own until its end has been told
    std::span<const std::int32_t> prompt{};      ///< copied
    /// Copied. `cancel` is looked at before and after each pass. As many drafts are read at once as the session can take back, at most; their policy
    /// is this request's alone, is told by any thread of the executor how drafts fared, and what passes took in which nobody else had a part:
    /// until it has been told of two it wants none.
    generation_options options{};
    event_sink sink{};                           ///< told of everything that happens; without one, next_event is
};

/// Something that happened to a request without a sink.
struct request_event {
    request_id id;
    generation_event event;
};

/// What a tick did.
enum class tick_outcome : std::uint8_t {
    idle,    ///< nobody could go on: no requests, or all wait for next_event or for their sessions
    paused,  ///< stop() was true; the next tick goes on there
    done,    ///< a pass is done, or nobody wanted it or could begin it
};

/// Made once. `add` takes the memory of a request; ticks take none. Model, workspace, tokenizer and sessions must stay where they are. For one
/// thread at a time; sinks and drafts are called by the thread that ticks, or adds, and by no other.
template <sambay_shape Shape = any_sambay, class Kv = bf16>
class scheduler {
public:
    /// `text` may be null: then events carry tokens only. The workspace's rows of logits, its states and its chunk say how many texts can go on in
    /// one pass: where there are more requests they take turns. Errors: invalid_argument (no requests, not a time, another model's workspace),
    /// out_of_memory.
    static result<scheduler> create(const model<Shape>& m, workspace<Shape, Kv>& w, const tokenizer* text, const scheduler_options& options = {}) {
        if (options.requests == 0 || options.requests > max_extent)
            return error::format(errc::invalid_argument, "requests: want 1 to %zu, have %zu", max_extent, options.requests);
        if (!(options.longest_tick >= 0.0 && options.longest_tick < 1e9))
            return error::format(errc::invalid_argument, "longest_tick: want 0 to 1e9 seconds, have %g", options.longest_tick);
        if (!w.fits(m)) return error::format(errc::invalid_argument, "the workspace is of a model of another shape");
        return detail::or_out_of_memory("schedule requests", [&]() -> result<scheduler> { return scheduler(m, w, text, options); });
    }

    scheduler(scheduler&&) noexcept = default;
    scheduler& operator=(scheduler&&) = delete;
    /// Drops what is under way and tells nobody; every session is whole.
    ~scheduler() {
        pass_.end();
        for (slot& s : slots_)
            if (s.taken()) settle(s);
    }

    /// Adds a request; it goes on from the next pass on. May be called between ticks, and by sinks. This is the request's set-up: it takes
    /// text_writer::bytes of memory, for this prompt and so many drafts, and what its stop ids and stop strings take; all of it is given back in the
    /// first tick that begins after its end has been told. Nothing else here takes any after `create`.
    /// Errors: invalid_argument (all places taken, no tokens, another model's session, one that can take back more than the workspace has states
    /// for), in_use (the session is, or has a request), context_full,
    /// unknown_token, those of text_writer::create, out_of_memory: nothing has changed then.
    result<request_id> add(const request<Shape, Kv>& r) {
        if (size() == capacity())
            return error::format(errc::invalid_argument, "%zu requests, all that there is room for (scheduler_options)", size());
        if (const status ok = pass_type::refusal(*model_, {r.past, r.prompt}); !ok) return ok.error();
        if (const status ok = pass_type::room_for_states(*work_, *r.past, r.prompt); !ok) return ok.error();
        if (find([&](const slot& s) { return s.taken() && s.past == r.past; }) != nullptr)
            return error::format(errc::in_use, "the session has a request already: give this one a session of its own");
        const draft_options& guesses = r.options.drafts;
        const std::size_t drafts = guesses.from ? (std::min)({work_->states.count - 1, work_->logits.count - 1, r.past->undo(), guesses.most}) : 0;
        auto writer = text_writer::create(model_->shape().vocab(), text_, r.options, {r.prompt.size(), drafts}, work_->kernels().choosing);
        if (!writer) return writer.error();
        const std::size_t here = r.past->position();
        if (const status ok = writer->start(r.prompt, r.past->context() - here, guesses.from, guesses.policy, here); !ok) return ok.error();
        const auto is_free = [this](const slot& s) { return !s.taken() && &s != telling_; };
        slot* place = find([&](const slot& s) { return is_free(s) && !s.writer; });  // one of whom nobody asks how it ended
        if (place == nullptr) place = find(is_free);
        *place = {++last_id_, r.past, *std::move(writer), r.sink, r.options.cancel, here, n_passes_, drafts};
        return request_id{last_id_};
    }

    /// Ends a request: the next thing that it is told is its end, after the pass that is under way. Its session has then read the tokens that were
    /// told, but for summary's `unread`. False where there is no such request (any more).
    bool cancel(request_id id) {
        slot* const s = find(is(id));
        if (s != nullptr) s->cancelled = true;
        return s != nullptr;
    }

    /// Requests whose end has not been told.
    [[nodiscard]] std::size_t size() const {
        return static_cast<std::size_t>(std::count_if(slots_.begin(), slots_.end(), [](const slot& s) { return s.taken(); }));
    }
    /// Of a scheduler that was moved from: none.
    [[nodiscard]] std::size_t capacity() const { return slots_.empty() ? 0 : slots_.size() - 1; }
    /// How a request stands; null where there is no such request (any more). One whose end has been told can be asked until the next tick begins, or
    /// `add` needs its place.
    [[nodiscard]] const generation_summary* summary(request_id id) const {
        for (const slot& s : slots_)
            if (s.writer && s.id == static_cast<std::uint64_t>(id)) return &s.writer->summary();
        return nullptr;
    }

    /// Goes on with the pass that is under way, or begins one, until it is done or `stop()` is true, which is asked between two pieces; then tells
    /// sinks what happened. At least one piece is computed in each call that finds something to do. A sink that returns false ends its request
    /// and is not called again.
    /// Errors: in_use (somebody else has the workspace, or a sink ticks): nothing has changed, ask again later. What fails for one request
    /// (not_finite, in_use where somebody moved its session) is told as its end, and the others do not notice. What `stop`, a drafter or the
    /// executor throws passes through; the next tick goes on. What a sink throws passes through; its request is over, and not told again.
    template <class Stop>
    [[nodiscard]] result<tick_outcome> tick_until(Stop&& stop) {
        if (telling_ != nullptr) return error::format(errc::in_use, "a sink that is told of a tick ticks: do that after the tick");
        if (!pass_.begun()) {
            forget_ended();
            tell_all();
            choose_readings();
            if (n_readings_ == 0) {
                tell_all();  // whose session somebody else moved
                return tick_outcome::idle;
            }
            if (const status ok = begin_pass(); !ok) {
                if (ok.error().code() == errc::in_use || !fail_unreadable()) return ok.error();
                tell_all();
                return tick_outcome::done;
            }
        }
        bool stopped = false;
        const auto begin = std::chrono::steady_clock::now();
        pass_.advance_until([&] { return !wanted() || (stopped = stop()); });
        pass_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        const bool whole = !stopped && finish_pass();
        budget_.add(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
        if (stopped) return tick_outcome::paused;
        if (whole) budget_.end();
        tell_all();
        return tick_outcome::done;
    }

    /// A whole pass. Errors: as tick_until.
    [[nodiscard]] result<tick_outcome> tick() {
        return tick_until([] { return false; });
    }

    /// What happened to requests without a sink, one after the other; nothing when there is no more to tell. A request with something to tell
    /// does not go on before it is told. Texts are valid until the next call of anything here.
    [[nodiscard]] std::optional<request_event> next_event() {
        for (std::size_t tried = 0; tried < slots_.size(); ++tried, asked_ = (asked_ + 1) % slots_.size()) {
            slot& s = slots_[asked_];
            if (!s.sink && has_event(s)) return request_event{request_id{s.id}, event_of(s)};
        }
        return std::nullopt;
    }

private:
    using pass_type = pass<Shape, Kv>;
    static constexpr std::size_t none = SIZE_MAX;

    struct slot {
        std::uint64_t id = 0;
        session<Shape, Kv>* past = nullptr;
        std::optional<text_writer> writer{};
        event_sink sink{};
        const std::atomic<bool>* cancel = nullptr;
        std::size_t here = 0;        // where the session is, if nobody else moved it
        std::uint64_t served = 0;    // the last pass that read for it
        std::size_t drafts = 0;      // at once, at most
        std::size_t reading = none;  // its place in the pass that is under way
        bool cancelled = false;
        std::optional<error> failure{};

        /// By a request whose end has not been told.
        [[nodiscard]] bool taken() const { return past != nullptr; }
        [[nodiscard]] bool ends() const { return cancelled || (cancel != nullptr && cancel->load(std::memory_order_relaxed)); }
    };

    scheduler(const model<Shape>& m, workspace<Shape, Kv>& w, const tokenizer* text, const scheduler_options& options)
        : model_(&m), work_(&w), text_(text), budget_(options), slots_(options.requests + 1), readings_(options.requests), shares_(options.requests) {
        order_.reserve(options.requests);
    }

    template <class Is>
    [[nodiscard]] slot* find(Is&& wanted) {
        const auto at = std::find_if(slots_.begin(), slots_.end(), wanted);
        return at == slots_.end() ? nullptr : &*at;
    }
    [[nodiscard]] static auto is(request_id id) {
        return [id](const slot& s) { return s.taken() && s.id == static_cast<std::uint64_t>(id); };
    }

    // ---- a pass --------------------------------------------------------------------------------------------------------------

    /// Who can go on, those first that were served longest ago, and what each of them reads.
    void choose_readings() {
        order_.clear();
        for (slot& s : slots_) {
            s.reading = none;
            if (can_go_on(s)) order_.push_back(&s);
        }
        std::sort(order_.begin(), order_.end(),
                  [](const slot* a, const slot* b) { return a->served != b->served ? a->served < b->served : a->id < b->id; });
        bool anybody_writes = false;
        for (std::size_t i = 0; i < order_.size(); ++i) {
            const slot& s = *order_[i];
            shares_[i] = {s.writer->prompt_left(), s.writer->writing() ? s.drafts : 0, s.past->undo()};
            anybody_writes = anybody_writes || s.writer->writing();
        }
        const pass_room room{work_->chunk(), work_->logits.count, work_->states.count};
        share_rows(detail::span_of(shares_).first(order_.size()), room, anybody_writes ? budget_.prompt_rows() : room.rows);
        n_readings_ = n_writing_ = n_prompt_rows_ = 0;
        for (std::size_t i = 0; i < order_.size(); ++i) {
            if (shares_[i].rows == 0) continue;
            slot& s = *order_[i];
            const bool writes = s.writer->writing();
            const text_slice slice = s.writer->next(shares_[i].rows);
            n_writing_ += writes ? 1 : 0;
            n_prompt_rows_ += writes ? 0 : slice.tokens.size();
            s.reading = n_readings_;
            order_[n_readings_] = &s;
            readings_[n_readings_++] = {s.past, slice.tokens, slice.wanted, slice.choices};
        }
    }

    /// Whether a request has something to read and may read it. One whose session somebody else moved ends here.
    [[nodiscard]] bool can_go_on(slot& s) {
        if (!s.taken() || has_event(s) || s.past->busy()) return false;
        if (s.past->position() == s.here) return true;
        fail(s,
             error::format(errc::in_use, "the session of this text was moved from token %zu to %zu by somebody else: give that a session of its own",
                           s.here, s.past->position()));
        return false;
    }

    [[nodiscard]] status begin_pass() {
        if (const status ok = pass_.begin(*model_, *work_, {readings_.data(), n_readings_}); !ok) {
            for (std::size_t i = 0; i < n_readings_; ++i) order_[i]->reading = none;
            return ok;
        }
        ++n_passes_;
        for (std::size_t i = 0; i < n_readings_; ++i) order_[i]->served = n_passes_;
        budget_.begin(n_writing_, n_prompt_rows_);
        pass_seconds_ = 0.0;
        return {};
    }

    /// Ends those whose session was replaced by one that cannot go on; whether there were any.
    bool fail_unreadable() {
        bool any = false;
        for (std::size_t i = 0; i < n_readings_; ++i) {
            const status ok = pass_type::refusal(*model_, readings_[i]);
            if (!ok) fail(*order_[i], ok.error());
            any = any || !ok;
        }
        return any;
    }

    /// Whether anybody still wants the pass that is under way.
    [[nodiscard]] bool wanted() const {
        for (std::size_t i = 0; i < n_readings_; ++i)
            if (!order_[i]->ends()) return true;
        return false;
    }

    /// Chooses and commits, text by text, wherever the executor likes. Nobody touches what is another's, so a text whose turn did not come, as the
    /// executor threw, has not read anything. False where the pass is not done: nobody has read anything then.
    bool finish_pass() {
        struct at_the_end {
            scheduler& self;
            ~at_the_end() {
                self.pass_.end();
                for (std::size_t i = 0; i < self.n_readings_; ++i) self.order_[i]->reading = none;
            }
        } const end{*this};
        if (!pass_.done()) return false;  // nobody wanted it, or an exception came in between
        work_->with.threads.parallel_for(n_readings_, 1, [this](std::size_t begin, std::size_t last) {
            for (; begin < last; ++begin) take(*order_[begin]);
        });
        return true;
    }

    void take(slot& s) {
        if (s.ends()) return;
        if (const status ok = pass_.check_logits(s.reading); !ok) return fail(s, ok.error());
        if (n_readings_ == 1) s.writer->took(pass_seconds_);  // of other passes nobody knows what is this text's
        const std::size_t n = s.writer->take(pass_.logits(s.reading));
        if (const status ok = pass_.commit(s.reading, n); !ok) return fail(s, ok.error());
        s.here += n;
    }

    static void fail(slot& s, const error& why) {
        s.failure = why;
        s.writer->stop(stop_reason::failed);
    }

    // ---- what happened -------------------------------------------------------------------------------------------------------

    [[nodiscard]] bool has_event(slot& s) const {
        if (!s.taken() || s.reading != none) return false;
        if (s.ends()) s.writer->stop(stop_reason::cancelled);
        return s.writer->has_event();
    }

    [[nodiscard]] generation_event event_of(slot& s) {
        generation_event event = s.writer->event();
        if (s.failure) event.failure = &*s.failure;
        if (event.kind == event_kind::end) settle(s);
        return event;
    }

    /// The request is over: its session goes back to where its text ended. What it was told is kept until the next tick.
    void settle(slot& s) {
        session<Shape, Kv>& past = *std::exchange(s.past, nullptr);
        const std::size_t back = s.failure ? 0 : s.writer->surplus();
        if (back != 0 && past.position() == s.here) (void)past.rewind(s.here - back);
    }

    void forget_ended() {
        for (slot& s : slots_)
            if (!s.taken()) s.writer.reset();
    }

    void tell_all() {
        for (slot& s : slots_)
            while (s.sink && has_event(s)) tell(s);
    }

    void tell(slot& s) {
        const generation_event event = event_of(s);  // a drafter may throw, and the text goes on then
        struct unless_wanted {
            scheduler& self;
            slot& of;
            bool wants_more = false;
            ~unless_wanted() {
                self.telling_ = nullptr;
                if (wants_more || !of.taken()) return;
                of.writer->end(stop_reason::sink);
                self.settle(of);
            }
        } end{*this, s};
        telling_ = &s;
        end.wants_more = s.sink(event);
        if (end.wants_more || !s.taken()) return;
        s.writer->stop(stop_reason::sink);
        (void)s.writer->event();  // the end, of which the drafter hears and the sink does not
    }

    const model<Shape>* model_;
    workspace<Shape, Kv>* work_;
    const tokenizer* text_;
    tick_budget budget_;
    pass_type pass_;
    std::vector<slot> slots_;
    std::vector<slot*> order_;                       // who can go on; while a pass is under way, whose readings are in it
    std::vector<reading<Shape, Kv>> readings_;
    std::vector<row_share> shares_;
    std::size_t n_readings_ = 0;
    std::size_t n_writing_ = 0;                      // of them
    std::size_t n_prompt_rows_ = 0;                  // of the others
    std::size_t asked_ = 0;                          // slot of which next_event asks next
    std::uint64_t n_passes_ = 0;
    double pass_seconds_ = 0.0;                      // that the pass under way took so far
    std::uint64_t last_id_ = 0;
    const slot* telling_ = nullptr;                  // whose sink is being told; its place is not free before that
};

PHI4FLASH_END
