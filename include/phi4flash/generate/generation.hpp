#pragma once
/// A text that is being generated, as a value: advanced until something happens, or until the host wants its thread back. It owns no thread
/// and calls nobody back. `generate` is a loop over it, `scheduler` drives many texts in the same passes.
/// @since 0.2
#include <phi4flash/generate/text_writer.hpp>
#include <phi4flash/model/pass.hpp>

#include <atomic>
#include <chrono>
#include <utility>

PHI4FLASH_BEGIN

/// A workspace that can check so many drafts at once: with rows of logits and states for them.
[[nodiscard]] PHI4FLASH_BODY workspace_options with_drafts(workspace_options o, std::size_t most = draft_options{}.most);

/// Made once, started for one text after the other. Movable at any time; model, workspace, session and tokenizer must stay where they are.
/// After `create` it allocates nothing. While a pass is under way (`advance_until` returned `none`), session and workspace are in use; they
/// are free when an event has been returned, but for a run of accepted drafts: then when its last token has been told. For one thread at a time.
template <sambay_shape Shape = any_sambay, class Kv = bf16>
class generation {
public:
    /// `text` may be null: then events carry tokens only. Errors: invalid_argument (another model's workspace), those of text_writer::create.
    static result<generation> create(const model<Shape>& m, workspace<Shape, Kv>& w, const tokenizer* text, const generation_options& options,
                                     text_limits limits) {
        if (!w.fits(m)) return error::format(errc::invalid_argument, "the workspace is of a model of another shape");
        limits.drafts = options.drafts.from ? options.drafts.most : 0;
        auto writer = text_writer::create(m.shape().vocab(), text, options, limits, w.kernels().choosing);
        if (!writer) return writer.error();
        return generation(m, w, *std::move(writer), options);
    }

    generation(generation&& other) noexcept
        : model_(other.model_), work_(other.work_), past_(std::exchange(other.past_, nullptr)), cancel_(other.cancel_), drafts_(other.drafts_),
          here_(other.here_), chosen_(std::exchange(other.chosen_, 0)), seconds_(other.seconds_), writer_(std::move(other.writer_)),
          pass_(std::move(other.pass_)) {}
    generation& operator=(generation&& other) noexcept {
        if (this == &other) return *this;
        release();
        model_ = other.model_, work_ = other.work_, cancel_ = other.cancel_, drafts_ = other.drafts_, here_ = other.here_;
        chosen_ = std::exchange(other.chosen_, 0), seconds_ = other.seconds_;
        past_ = std::exchange(other.past_, nullptr);
        writer_ = std::move(other.writer_);
        pass_ = std::move(other.pass_);
        return *this;
    }
    /// Leaves the session whole: as `cancel` does.
    ~generation() { release(); }

    /// What any generation of this model and workspace would refuse, if it was made for prompts of that length and has no text. Errors: see
    /// `start`.
    [[nodiscard]] static status refusal(const model<Shape>& m, const workspace<Shape, Kv>& w, session<Shape, Kv>& past,
                                        std::span<const std::int32_t> prompt) {
        if (const status ok = pass<Shape, Kv>::refusal(m, {&past, prompt}); !ok) return ok;
        return pass<Shape, Kv>::room_for_states(w, past, prompt);
    }
    /// What `start` would refuse now, but for prompts that are longer than limits.prompt.
    [[nodiscard]] status refusal(session<Shape, Kv>& past, std::span<const std::int32_t> prompt) const {
        if (past_ != &past || !pass_.begun()) return refusal(*model_, *work_, past, prompt);
        if (past.replaced()) return detail::in_use_error("session");
        // Free once its text is dropped, which has read what was told of it.
        const std::size_t told = chosen_ != 0 && !past.disturbed() ? chosen_ - writer_.surplus() : 0;
        if (const status ok = text_writer::refusal(model_->shape().vocab(), prompt, past.context() - past.position() - told); !ok) return ok;
        return pass<Shape, Kv>::room_for_states(*work_, past, prompt);
    }

    /// Begins a text in a session that may have read something before. A text that was under way is dropped, its session left whole.
    /// Errors: invalid_argument (no tokens, more than limits.prompt, another model's session, one that can take back more than the workspace has
    /// states for), in_use, context_full, unknown_token: nothing has changed then, and a text that was under way goes on.
    [[nodiscard]] status start(session<Shape, Kv>& past, std::span<const std::int32_t> prompt) {
        if (const status ok = refusal(past, prompt); !ok) return ok;
        if (const status ok = writer_.refusal(prompt, prompt.size()); !ok) return ok;
        release();
        if (const status ok = writer_.start(prompt, past.context() - past.position(), drafts_.from, drafts_.policy, past.position());
            !ok) return ok;
        past_ = &past;
        here_ = past.position();
        return {};
    }

    /// Computes pieces of passes (`pass`) until something happens, or `stop()` is true, which is asked between two of them: then the event
    /// is of kind `none`, and the next call goes on there. At least one piece is computed in each call that has nothing to tell yet, so a text
    /// ends under any budget. After the end: `none`.
    /// Errors: not_finite (damaged weights); in_use where somebody else moved the session or resets it: the text is over, and the session is
    /// as it was before the pass. in_use where another pass has the workspace or the session: nothing has changed, ask again later. What
    /// `stop` or the executor throws passes through; the next call goes on.
    template <class Stop>
    [[nodiscard]] result<generation_event> advance_until(Stop&& stop) {
        while (running()) {
            if (cancelled()) cancel();
            if (const generation_event event = writer_.event(); event.kind != event_kind::none) {
                if (event.kind == event_kind::end) release();
                if (chosen_ != 0 && writer_.surplus() == 0)
                    if (const status ok = commit(chosen_); !ok) return fail(ok);
                return event;
            }
            if (!pass_.begun())
                if (const status ok = begin(); !ok) return ok.error();
            bool stopped = false;
            advance_pass([&] { return cancelled() || (stopped = stop()); });
            if (cancelled()) continue;
            if (stopped) break;
            if (!pass_.done()) {
                pass_.end();  // broken by an exception: once more
                seconds_ = 0.0;
            } else if (const status ok = finish_pass(); !ok) {
                return fail(ok);
            }
        }
        return generation_event{.kind = event_kind::none};
    }

    /// Until something happens. Errors: as advance_until.
    [[nodiscard]] result<generation_event> advance() {
        return advance_until([] { return false; });
    }

    /// Ends the text: what is under way is dropped, and the next event is the end. The session has read the tokens that were told, but for
    /// summary().unread.
    void cancel() { stop(stop_reason::cancelled); }
    void stop(stop_reason reason) {
        if (chosen_ == 0) pass_.end();
        writer_.stop(reason);
    }

    /// Whether there is more to come: a text was started, and its end has not been told.
    [[nodiscard]] bool running() const { return past_ != nullptr; }
    /// How the text stands; `reason` after its end.
    [[nodiscard]] const generation_summary& summary() const { return writer_.summary(); }

private:
    generation(const model<Shape>& m, workspace<Shape, Kv>& w, text_writer&& writer, const generation_options& options)
        : model_(&m), work_(&w), cancel_(options.cancel), drafts_(options.drafts), writer_(std::move(writer)) {}

    [[nodiscard]] bool cancelled() const { return cancel_ != nullptr && cancel_->load(std::memory_order_relaxed); }

    [[nodiscard]] status begin() {
        if (past_->position() != here_)
            return fail(error::format(errc::in_use,
                                      "the session of this text was moved from token %zu to %zu by somebody else: give that a session of its own",
                                      here_, past_->position()));
        const text_slice slice = writer_.next(most());
        const reading<Shape, Kv> r{past_, slice.tokens, slice.wanted, slice.choices};
        const status ok = pass_.begin(*model_, *work_, {&r, 1});
        if (ok || ok.error().code() == errc::in_use) return ok;
        return fail(ok);
    }

    /// Tokens of a pass. Drafts are read only where all of them can be chosen from.
    [[nodiscard]] std::size_t most() const {
        if (!writer_.writing()) return work_->chunk();
        return (std::min)({work_->chunk(), work_->states.count, work_->logits.count});
    }

    /// Pieces of the pass, and the time that they take: the host's, between them, is not the pass's.
    template <class Stop>
    void advance_pass(Stop&& stop) {
        if (drafts_.policy == nullptr) return void(pass_.advance_until(stop));
        const auto start = std::chrono::steady_clock::now();
        pass_.advance_until(stop);
        seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }

    /// Chooses. What was accepted of drafts is committed when it has been told: the text may end inside of it.
    [[nodiscard]] status finish_pass() {
        if (const status ok = pass_.check_logits(0); !ok) return ok;
        writer_.took(std::exchange(seconds_, 0.0));
        chosen_ = writer_.take(pass_.logits(0));
        return writer_.surplus() == 0 ? commit(chosen_) : status();
    }

    /// The session has read the first n tokens of the pass, which is over.
    [[nodiscard]] status commit(std::size_t n) {
        chosen_ = 0;
        const status ok = pass_.commit(0, n);
        if (ok) here_ += n;
        pass_.end();
        return ok;
    }

    [[nodiscard]] error fail(const status& why) {
        pass_.end();
        chosen_ = 0;
        seconds_ = 0.0;
        past_ = nullptr;
        writer_.end(stop_reason::failed);
        return why.error();
    }

    /// The text is over: the session has read what was told of it but the last token.
    void release() {
        if (chosen_ != 0) (void)commit(chosen_ - writer_.surplus());
        pass_.end();
        seconds_ = 0.0;
        past_ = nullptr;
    }

    const model<Shape>* model_;
    workspace<Shape, Kv>* work_;
    session<Shape, Kv>* past_ = nullptr;
    const std::atomic<bool>* cancel_;
    draft_options drafts_;
    std::size_t here_ = 0;    // where the session is, if nobody else moved it
    std::size_t chosen_ = 0;  // tokens of a pass that is done and to be committed; 0 for none
    double seconds_ = 0.0;    // that the pass took so far
    text_writer writer_;
    pass<Shape, Kv> pass_;
};

#if PHI4FLASH_BODIES
PHI4FLASH_BODY workspace_options with_drafts(workspace_options o, std::size_t most) {
    o.states = (std::max)(o.states, most + 1);
    o.logits = (std::max)(o.logits, most + 1);
    o.chunk = (std::max)(o.chunk, most + 1);
    return o;
}
#endif

PHI4FLASH_END
