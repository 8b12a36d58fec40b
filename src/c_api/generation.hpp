#pragma once
/// Generation: one text at a time, advanced within the host's budget.
#include "drafts.hpp"
#include "text.hpp"
#include "workspace.hpp"

#include <phi4flash/text/utf8.hpp>

#include <chrono>

PHI4FLASH_BEGIN
namespace c_api {

// ---- budgets -----------------------------------------------------------------------------------------------------------------------

[[nodiscard]] inline std::uint64_t steady_microseconds(void*) {
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now().time_since_epoch()).count());
}

/// Whether the thread is wanted back. Time counts from the moment when it is made.
class time_budget {
public:
    explicit time_budget(const phi4flash_budget& from) : budget_(from), now_(from.now == nullptr ? steady_microseconds : from.now) {
        if (budget_.microseconds != 0) begin_ = now_(budget_.user);
    }
    [[nodiscard]] bool operator()() const {
        if (budget_.stop != nullptr && budget_.stop(budget_.user) != 0) return true;
        if (budget_.microseconds == 0) return false;
        const std::uint64_t now = now_(budget_.user);
        return now >= begin_ && now - begin_ >= budget_.microseconds;
    }

private:
    phi4flash_budget budget_;
    std::uint64_t (*now_)(void*);
    std::uint64_t begin_ = 0;
};

/// A budget of the caller's, or none.
[[nodiscard]] inline outcome read_budget(const phi4flash_budget* from, phi4flash_budget& to) {
    if (outcome ok = read_optional(from, to, "budget"); !ok) return ok;
    return check_reserved(to.reserved, "budget.reserved");
}

// ---- options -----------------------------------------------------------------------------------------------------------------------

/// What the model's files say, and where an answer ends.
[[nodiscard]] inline result<generation_options> own_options(const model_handle& m, const tokenizer_handle* words) {
    return options_from(m.source.generation(), words == nullptr ? nullptr : &words->words);
}

[[nodiscard]] inline phi4flash_generation_options defaults_of(const generation_options& own) {
    phi4flash_generation_options o{};
    o.temperature = own.sampling.temperature;
    o.top_p = own.sampling.top_p;
    o.min_p = own.sampling.min_p;
    o.repetition_penalty = own.sampling.repetition_penalty;
    o.top_k = static_cast<std::uint32_t>((std::min)(own.sampling.top_k, std::size_t{UINT32_MAX}));
    o.seed = own.sampling.seed;
    o.max_tokens = own.max_tokens;
    return o;
}

[[nodiscard]] inline outcome read_stops(const phi4flash_generation_options& o, std::size_t vocabulary, bool has_words, generation_options& to) {
    constexpr std::size_t most = 100000;
    std::span<const std::int32_t> ids;
    if (outcome ok = read_array(o.stop_ids, o.n_stop_ids, ids, "options.stop_ids"); !ok) return ok;
    if (o.stop_strings == nullptr && o.n_stop_strings != 0) return missing("options.stop_strings");
    if (ids.size() > most || o.n_stop_strings > most)
        return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "options: want at most %zu stop ids and strings, have %zu and %zu", most, ids.size(),
                               o.n_stop_strings);
    if (o.n_stop_strings != 0 && !has_words)
        return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "options.stop_strings: without a tokenizer there is no text in which they could be");
    for (std::size_t i = 0; i < ids.size(); ++i) {
        if (ids[i] < 0 || static_cast<std::size_t>(ids[i]) >= vocabulary)
            return outcome::failed(PHI4FLASH_UNKNOWN_TOKEN, "options.stop_ids[%zu]: want 0 to %zu, have %ld", i, vocabulary - 1,
                                   static_cast<long>(ids[i]));
        to.stop_ids.push_back(ids[i]);
    }
    for (std::size_t i = 0; i < o.n_stop_strings; ++i) {
        std::string_view text;
        char name[64];
        std::snprintf(name, sizeof name, "options.stop_strings[%zu]", i);
        if (outcome ok = read_text(o.stop_strings[i].data, o.stop_strings[i].length, text, name); !ok) return ok;
        if (const std::size_t good = valid_utf8_prefix(text); good != text.size())
            return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "%s: want UTF-8, have the byte 0x%02X at offset %zu", name,
                                   static_cast<unsigned>(static_cast<unsigned char>(text[good])), good);
        if (!text.empty()) to.stop_strings.emplace_back(text);  // phi4flash.h: empty ones are none
    }
    return {};
}

struct generation_choices {
    generation_options options;
    std::size_t max_prompt = 0;
    draft_choices drafts;
};

[[nodiscard]] inline outcome read_generation_options(const phi4flash_generation_options* from, const workspace_handle& w,
                                                     const tokenizer_handle* words, generation_choices& to) {
    const model_handle& m = *w.of;
    auto own = own_options(m, words);
    if (!own) return own.error();
    to.options = *std::move(own);
    if (from == nullptr) return {};
    phi4flash_generation_options o;
    if (outcome ok = read_struct(from, o, "options"); !ok) return ok;
    for (const auto& [flag, name] : {std::pair(o.no_own_stops, "options.no_own_stops"), {o.keep_special, "options.keep_special"},
                                     {o.prompt_only, "options.prompt_only"}})
        if (outcome ok = check_choice(flag, 2, name); !ok) return ok;
    sampling_options& s = to.options.sampling;
    s.temperature = o.temperature;
    s.top_p = o.top_p == 0.0f ? 1.0f : o.top_p;
    s.min_p = o.min_p;
    s.repetition_penalty = o.repetition_penalty == 0.0f ? 1.0f : o.repetition_penalty;
    s.top_k = o.top_k;
    s.seed = o.seed;
    if (const status ok = check_sampling(s); !ok) {
        const std::string_view why = ok.error().message();
        const bool zero_is_one = why.starts_with("top_p") || why.starts_with("repetition_penalty");
        return error::format(ok.error().code(), "options.%s%s", ok.error().message(), zero_is_one ? " (0 stands for 1)" : "");
    }
    to.options.max_tokens = o.prompt_only != 0 ? 0 : o.max_tokens == 0 ? generation_options{}.max_tokens : clamped(o.max_tokens);
    to.options.skip_special = o.keep_special == 0;
    if (o.max_prompt > max_extent)
        return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "options.max_prompt: want at most %zu, have %lu", max_extent,
                               static_cast<unsigned long>(o.max_prompt));
    to.max_prompt = o.max_prompt;
    if (outcome ok = read_draft_options(o, w.room, to.drafts); !ok) return ok;
    if (o.no_own_stops != 0) {
        to.options.stop_ids.clear();
        to.options.stop_strings.clear();
    }
    return read_stops(o, m.weights.shape().vocab(), words != nullptr, to.options);
}

// ---- events ------------------------------------------------------------------------------------------------------------------------

/// Text that callers may use as a C string, until the next event.
class event_text {
public:
    event_text() { text_.reserve(stop_matcher::longest_text); }
    /// For any event of a text with such stop strings, so that no event is lost for want of memory.
    void make_room(const std::vector<std::string>& stop_strings) {
        std::size_t longest = 0;
        for (const std::string& s : stop_strings) longest = (std::max)(longest, s.size());
        text_.reserve(longest + stop_matcher::longest_text);
    }
    phi4flash_event of(const generation_event& event, const generation_summary& summary) {
        phi4flash_event e{};
        switch (event.kind) {
            case event_kind::none: e.kind = PHI4FLASH_EVENT_NONE; break;
            case event_kind::prompt: e.kind = PHI4FLASH_EVENT_PROMPT; break;
            case event_kind::token: e.kind = PHI4FLASH_EVENT_TOKEN; break;
            case event_kind::end: e.kind = PHI4FLASH_EVENT_END; break;
        }
        text_.assign(event.text);
        e.token = event.kind == event_kind::token ? event.token : -1;
        e.reason = event.kind == event_kind::end ? reason_of(event.reason) : 0;
        e.text = text_.c_str();
        e.text_length = text_.size();
        e.prompt_read = summary.prompt_tokens;
        e.prompt_total = event.kind == event_kind::prompt ? event.total : 0;
        e.new_tokens = summary.new_tokens;
        e.unread = summary.unread;
        e.message = "";
        return e;
    }

    [[nodiscard]] static std::uint32_t reason_of(stop_reason reason) { return static_cast<std::uint32_t>(reason); }

private:
    std::string text_;
};
static_assert(static_cast<std::uint32_t>(stop_reason::stop_token) == PHI4FLASH_END_STOP_TOKEN &&
              static_cast<std::uint32_t>(stop_reason::stop_string) == PHI4FLASH_END_STOP_STRING &&
              static_cast<std::uint32_t>(stop_reason::max_tokens) == PHI4FLASH_END_MAX_TOKENS &&
              static_cast<std::uint32_t>(stop_reason::context_full) == PHI4FLASH_END_CONTEXT_FULL &&
              static_cast<std::uint32_t>(stop_reason::cancelled) == PHI4FLASH_END_CANCELLED);

// ---- the handle ---------------------------------------------------------------------------------------------------------------------

template <class Kv>
using generation_type = generation<any_sambay, Kv>;
using any_generation = one_of_each_kv<generation_type>;

class generation_handle : public handle<generation_handle, handle_kind::generation> {
public:
    generation_handle(const host_memory& memory, const ref<workspace_handle>& w, const ref<tokenizer_handle>& words, generation_choices&& choices)
        : handle(memory), work(w), words_(words), options_(std::move(choices.options)), max_prompt_(choices.max_prompt) {
        options_.cancel = &cancelled;
        text.make_room(options_.stop_strings);
        use_drafts(choices.drafts, drafter_, policy_, options_.drafts);
    }

    const ref<workspace_handle> work;
    ref<session_handle> past;  // of the text that is under way
    std::atomic<bool> cancelled{false};

    /// Makes the writer of texts, with a place for prompts of so many tokens.
    [[nodiscard]] outcome prepare(std::size_t prompt) {
        if (writer_ && prompt <= max_prompt_) return {};
        const text_limits limits{.prompt = (std::max)(prompt, max_prompt_)};
        return with_kv(work->kv_type(), [&]<class Kv>(std::type_identity<Kv>) -> outcome {
            auto made = generation_type<Kv>::create(work->of->weights, *std::get_if<workspace_type<Kv>>(&*work->place),
                                                    words_ ? &words_->words : nullptr, options_, limits);
            if (!made) return made.error();
            writer_.emplace(*std::move(made));
            max_prompt_ = limits.prompt;
            return {};
        });
    }

    [[nodiscard]] outcome start(const ref<session_handle>& session, std::span<const std::int32_t> prompt) {
        if (outcome ok = belong_together(*work, *session); !ok) return ok;
        // What cannot be started takes no memory and ends no text; nor does one for which there is no memory.
        outcome fits = std::visit([&]<class Kv>(session_type<Kv>& s) -> outcome { return refusal(s, prompt); }, session->state);
        if (!fits) return fits;
        if (outcome ok = make_room_for_drafts(*session); !ok) return ok;
        if (outcome ok = prepare(prompt.size()); !ok) return ok;
        begin_drafts(*session);
        const bool was_cancelled = cancelled.exchange(false, std::memory_order_relaxed);
        const outcome started = with_kv(work->kv_type(), [&]<class Kv>(std::type_identity<Kv>) -> outcome {
            return std::get_if<generation_type<Kv>>(&*writer_)->start(*std::get_if<session_type<Kv>>(&session->state), prompt);
        });
        if (started) {
            past = session;
            return started;
        }
        drafted_ = nullptr;
        if (!running()) past = nullptr;  // else the text before goes on, in its session
        if (was_cancelled) cancelled.store(true, std::memory_order_relaxed);
        return started;
    }

    [[nodiscard]] result<generation_event> advance(const time_budget& budget) {
        auto event = std::visit([&](auto& g) { return g.advance_until(budget); }, *writer_);
        if (!running()) past = nullptr;
        return event;
    }

    [[nodiscard]] bool running() const {
        return writer_ && std::visit([](const auto& g) { return g.running(); }, *writer_);
    }
    [[nodiscard]] generation_summary summary() const {
        return writer_ ? std::visit([](const auto& g) { return g.summary(); }, *writer_) : generation_summary();
    }
    event_text text;

private:
    template <class Kv>
    [[nodiscard]] status refusal(session_type<Kv>& s, std::span<const std::int32_t> prompt) const {
        return std::get_if<generation_type<Kv>>(&*writer_)->refusal(s, prompt);
    }

    /// A place for the session's text.
    [[nodiscard]] outcome make_room_for_drafts(const session_handle& session) {
        if (!options_.drafts.from) return {};
        return std::visit([&](const auto& s) -> outcome { return drafter_.make_room(s.context()); }, session.state);
    }
    /// What was read of another text is no help; what goes on is.
    void begin_drafts(const session_handle& session) {
        const bool fresh = std::visit([](const auto& s) { return s.position() == 0; }, session.state);
        if (fresh || &session != drafted_) drafter_.forget_text();
        drafted_ = &session;
    }

    const ref<tokenizer_handle> words_;
    generation_options options_;
    std::size_t max_prompt_;
    text_drafter drafter_;
    draft_policy policy_;
    const session_handle* drafted_ = nullptr;  // compared alone: whose text the drafter has read
    std::optional<any_generation> writer_;     // the last member: it refers to the others
};

/// The locks of a call with a generation: what it computes with, too.
struct generation_in_use {
    held<generation_handle> of;
    held<workspace_handle> work;
    held<session_handle> past;

    [[nodiscard]] outcome take(phi4flash_generation* given) {
        if (outcome ok = of.take(given, "generation"); !ok) return ok;
        if (outcome ok = work.take(of->work, "workspace of the generation"); !ok) return ok;
        return of->past ? past.take(of->past, "session of the generation") : outcome();
    }
};

}  // namespace c_api
PHI4FLASH_END
