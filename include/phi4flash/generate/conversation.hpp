#pragma once
/// What a session has still to read of a conversation: what was said stays in the session, and each turn reads only what is new. It knows all
/// of its tokens, so a turn can be taken back, and a session that lost some reads them again.
#include <phi4flash/core/out_of_memory.hpp>
#include <phi4flash/core/span_of.hpp>
#include <phi4flash/generate/events.hpp>
#include <phi4flash/text/chat.hpp>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

PHI4FLASH_BEGIN

/// A question that was answered. @since 0.2
struct conversation_turn {
    std::string question;
    std::size_t begin = 0;             ///< tokens of the conversation before it
    std::vector<std::int32_t> unread;  ///< what was left then, to be read before the question
};

/// All that a conversation remembers: plain data, for a host that keeps it in a file beside a snapshot of the session. @since 0.2
struct conversation_record {
    std::string system;
    std::vector<std::int32_t> tokens;  ///< read so far, by a session that has missed nothing
    std::vector<std::int32_t> unread;  ///< come next: what ends the last answer
    std::vector<conversation_turn> turns;
};

/// Turns of one conversation as ids, in the released chat format. Each turn is `ask`, a generation with those ids, and `answered`
/// with its summary and tokens. The generation must stop at the end of a message: options_from says so, and stop_at_end_of_message adds it to
/// any other options.
///
/// The session has always read the beginning of tokens(): all of it where nothing was taken back, less where `go_back` (prefix_cache.hpp)
/// found no nearer state; `ask` is told how much. The tokenizer must outlive it and stay in place. For one thread at a time.
class conversation {
public:
    /// `system` begins the conversation; empty for none.
    explicit conversation(const tokenizer& text, std::string system = {})
        : encoder_(text), end_(end_of_message(text)), user_(text.added(std::string_view("<|user|>"))) {
        said_.system = std::move(system);
    }

    /// Goes on from what was kept. Errors: bad_value (turns that do not follow each other, or ids below zero): nothing has changed then. @since 0.2
    [[nodiscard]] status restore(conversation_record kept);

    /// Forgets what was said. The session must be reset too.
    void reset();

    /// What was said so far. @since 0.2
    [[nodiscard]] const conversation_record& record() const { return said_; }
    /// What a session that has missed nothing has read. @since 0.2
    [[nodiscard]] std::span<const std::int32_t> tokens() const { return detail::span_of(said_.tokens); }
    /// Questions that were answered, the first one first. @since 0.2
    [[nodiscard]] std::span<const conversation_turn> turns() const { return detail::span_of(said_.turns); }

    /// The ids to read for this message by a session that has read the first `read` of tokens(): what it has missed, what the last answer left,
    /// and the message; valid until the next call. Nothing changes before `answered`: a message that did not fit can be dropped and another one
    /// asked. Errors: those of encode_chat; invalid_argument (more read than there is); out_of_memory.
    [[nodiscard]] result<std::span<const std::int32_t>> ask(std::string_view message, std::size_t read);
    /// The same for a session that has missed nothing.
    [[nodiscard]] result<std::span<const std::int32_t>> ask(std::string_view message) { return ask(message, said_.tokens.size()); }

    /// Remembers the turn, and what the session has not read of it: a last token unless it ended the answer as a marker, and the
    /// marker that ends an answer, which the model may not have got to. `written` are the tokens that were told, summary.new_tokens of them.
    /// A message whose reading was cancelled is dropped: no later turn reads the rest of it. The part that was read is closed by the same
    /// marker; a host that can take the session back (`go_back` to tokens()) does that and leaves this call out.
    /// Errors: invalid_argument (another number of tokens), out_of_memory: nothing has changed then.
    [[nodiscard]] status answered(const generation_summary& summary, std::span<const std::int32_t> written) {
        if (written.size() != summary.new_tokens)
            return error::format(errc::invalid_argument, "the tokens of an answer: want %zu, have %zu", summary.new_tokens, written.size());
        return detail::or_out_of_memory("remember an answer", [&] { remember(summary, written); });
    }

    /// Forgets the last question and its answer: to ask it again, or another one. tokens() is then what stood before; the session is
    /// brought there by `go_back`. Errors: invalid_argument (nothing was answered yet). @since 0.2
    [[nodiscard]] status take_back();

private:
    void remember(const generation_summary& summary, std::span<const std::int32_t> written);

    /// After `read` tokens of the prompt. What stands before the message is read with the next one.
    void dropped(std::size_t read, std::vector<std::int32_t>& unread) const {
        for (std::size_t i = read; i < message_begin_; ++i) unread.push_back(prompt_[i]);
        const bool open = read > message_begin_ && (end_ == nullptr || prompt_[read - 1] != static_cast<std::int32_t>(end_->id));
        if (open) end_message(unread);
    }

    void end_message(std::vector<std::int32_t>& unread) const {
        if (end_ != nullptr) unread.push_back(static_cast<std::int32_t>(end_->id));
    }

    encoder encoder_;
    const added_token* end_;
    const added_token* user_;
    conversation_record said_;
    std::vector<std::int32_t> prompt_;  // of the last `ask`
    std::string question_;              // of it
    std::size_t missed_ = 0;            // tokens at its beginning that were said before
    std::size_t message_begin_ = 0;     // in it
};

#if PHI4FLASH_BODIES
PHI4FLASH_BODY status conversation::restore(conversation_record kept) {
    const auto negative = [](const std::vector<std::int32_t>& ids) {
        return std::any_of(ids.begin(), ids.end(), [](std::int32_t id) { return id < 0; });
    };
    std::size_t least = 0;
    bool good = !negative(kept.tokens) && !negative(kept.unread);
    for (const conversation_turn& t : kept.turns) {
        good = good && t.begin >= least && t.begin < kept.tokens.size() && !negative(t.unread);
        least = t.begin + 1;
    }
    if (!good) return error::format(errc::bad_value, "a kept conversation: its turns or ids cannot be");
    said_ = std::move(kept);
    prompt_.clear();
    return {};
}

PHI4FLASH_BODY result<std::span<const std::int32_t>> conversation::ask(std::string_view message, std::size_t read) {
    if (read > said_.tokens.size())
        return error::format(errc::invalid_argument, "a conversation of %zu tokens: the session has read %zu of it", said_.tokens.size(), read);
    return detail::or_out_of_memory("ask a question", [&]() -> result<std::span<const std::int32_t>> {
        missed_ = said_.tokens.size() - read;
        prompt_.assign(said_.tokens.end() - static_cast<std::ptrdiff_t>(missed_), said_.tokens.end());
        prompt_.insert(prompt_.end(), said_.unread.begin(), said_.unread.end());
        const std::size_t before = prompt_.size();
        std::vector<chat_message> messages;
        const bool started = !said_.tokens.empty() || !said_.unread.empty();
        if (!started && !said_.system.empty()) messages.push_back({"system", said_.system});
        messages.push_back({"user", message});
        if (const status ok = encode_chat(encoder_, detail::span_of(messages), {}, prompt_); !ok) {
            prompt_.clear();
            return ok.error();
        }
        question_ = message;
        // The message begins at its marker: what a message says never becomes one.
        const auto begin = std::find(prompt_.begin() + static_cast<std::ptrdiff_t>(before), prompt_.end(), static_cast<std::int32_t>(user_->id));
        message_begin_ = static_cast<std::size_t>(begin - prompt_.begin());
        return std::span<const std::int32_t>(detail::span_of(prompt_));
    });
}

PHI4FLASH_BODY status conversation::take_back() {
    if (said_.turns.empty()) return error::format(errc::invalid_argument, "nothing to take back: no question was answered yet");
    said_.tokens.resize(said_.turns.back().begin);
    said_.unread.swap(said_.turns.back().unread);
    said_.turns.pop_back();
    prompt_.clear();
    return {};
}

PHI4FLASH_BODY void conversation::remember(const generation_summary& summary, std::span<const std::int32_t> written) {
    const std::size_t read = (std::min)(summary.prompt_tokens, prompt_.size());
    if (read < missed_ || prompt_.empty()) return;  // not even what had been read before
    // Memory first: what follows cannot fail.
    std::vector<std::int32_t> unread;
    unread.reserve(prompt_.size() - missed_ + 2);
    said_.tokens.reserve(said_.tokens.size() + (read - missed_) + written.size());
    const bool answered = read == prompt_.size();
    if (answered) said_.turns.push_back({question_, said_.tokens.size(), {}});

    said_.tokens.insert(said_.tokens.end(), prompt_.begin() + static_cast<std::ptrdiff_t>(missed_),
                        prompt_.begin() + static_cast<std::ptrdiff_t>(read));
    if (answered) {
        const bool chose_end = summary.reason == stop_reason::stop_token;
        const bool last_unread = summary.unread >= 0 && !chose_end && !written.empty();
        said_.tokens.insert(said_.tokens.end(), written.begin(), written.end() - (last_unread ? 1 : 0));
        const bool ended = chose_end || (summary.reason == stop_reason::stop_string && encoder_.of().is_special(summary.unread));
        if (summary.unread >= 0 && (!ended || end_ == nullptr)) unread.push_back(summary.unread);
        end_message(unread);
        said_.unread.swap(said_.turns.back().unread);
    } else {
        dropped(read, unread);
    }
    said_.unread.swap(unread);
    prompt_.clear();
}

PHI4FLASH_BODY void conversation::reset() {
    said_.tokens.clear();
    said_.unread.clear();
    said_.turns.clear();
    prompt_.clear();
}
#endif

PHI4FLASH_END
