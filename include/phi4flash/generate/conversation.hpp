#pragma once
/// What a session has still to read of a conversation. What was said stays in the session; each turn reads only what is new.
#include <phi4flash/generate/generate.hpp>
#include <phi4flash/text/chat.hpp>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

PHI4FLASH_BEGIN

/// Turns of one conversation as ids, in the released chat format. Each turn is `ask`, a generation with those ids, and `answered`
/// with its summary. The generation must stop at the end of a message: options_from says so, and stop_at_end_of_message adds it to
/// any other options. The tokenizer must outlive it and stay in place. For one thread at a time.
class conversation {
public:
    /// `system` begins the conversation; empty for none.
    explicit conversation(const tokenizer& text, std::string system = {})
        : encoder_(text), system_(std::move(system)), end_(end_of_message(text)), user_(text.added(std::string_view("<|user|>"))) {}

    /// Forgets what was said. The session must be reset too.
    void reset() {
        pending_.clear();
        started_ = false;
    }

    /// The ids to read for this message; valid until the next call. Nothing changes before `answered`: a message that did not
    /// fit can be dropped and another one asked. Errors: those of encode_chat.
    [[nodiscard]] result<std::span<const std::int32_t>> ask(std::string_view message) {
        prompt_ = pending_;
        std::vector<chat_message> messages;
        if (!started_ && !system_.empty()) messages.push_back({"system", system_});
        messages.push_back({"user", message});
        if (const status ok = encode_chat(encoder_, messages, {}, prompt_); !ok) return ok.error();
        // The message begins at its marker: what a message says never becomes one.
        const auto begin = std::find(prompt_.begin() + static_cast<std::ptrdiff_t>(pending_.size()), prompt_.end(),
                                     static_cast<std::int32_t>(user_->id));
        message_begin_ = static_cast<std::size_t>(begin - prompt_.begin());
        return std::span<const std::int32_t>(prompt_);
    }

    /// Remembers what the session has not read of the last turn: a last token unless it ended the answer as a marker, and the
    /// marker that ends an answer, which the model may not have got to. A message whose reading was cancelled is dropped: no later
    /// turn reads the rest of it. The part that was read is closed by the same marker; a host that can take the session back to
    /// where it was does that and leaves this call out.
    void answered(const generation_summary& summary) {
        started_ = true;
        if (summary.prompt_tokens < prompt_.size()) return dropped(summary.prompt_tokens);
        pending_.clear();
        const bool ended = summary.reason == stop_reason::stop_token ||
                           (summary.reason == stop_reason::stop_string && encoder_.of().is_special(summary.unread));
        if (summary.unread >= 0 && (!ended || end_ == nullptr)) pending_.push_back(summary.unread);
        end_message();
    }

private:
    /// After `read` tokens of the prompt. What stands before the message is read with the next one.
    void dropped(std::size_t read) {
        const auto at = [this](std::size_t i) { return prompt_.begin() + static_cast<std::ptrdiff_t>(i); };
        pending_.assign(at((std::min)(read, message_begin_)), at(message_begin_));
        const bool open = read > message_begin_ && (end_ == nullptr || prompt_[read - 1] != static_cast<std::int32_t>(end_->id));
        if (open) end_message();
    }

    void end_message() {
        if (end_ != nullptr) pending_.push_back(static_cast<std::int32_t>(end_->id));
    }

    encoder encoder_;
    std::string system_;
    const added_token* end_;
    const added_token* user_;
    std::vector<std::int32_t> pending_;  // not read yet
    std::vector<std::int32_t> prompt_;   // of the last `ask`
    std::size_t message_begin_ = 0;      // in it
    bool started_ = false;
};

PHI4FLASH_END
