#pragma once
/// What a session has still to read of a conversation. What was said stays in the session; each turn reads only what is new.
#include <phi4flash/generate/generate.hpp>
#include <phi4flash/text/chat.hpp>

#include <string>
#include <utility>
#include <vector>

PHI4FLASH_BEGIN

/// Turns of one conversation as ids, in the released chat format. Each turn is `ask`, a generation with those ids, and `answered`
/// with its summary. The tokenizer must outlive it and stay in place. For one thread at a time.
class conversation {
public:
    /// `system` begins the conversation; empty for none.
    explicit conversation(const tokenizer& text, std::string system = {})
        : encoder_(text), system_(std::move(system)), end_(text.added(std::string_view("<|end|>"))) {}

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
        return std::span<const std::int32_t>(prompt_);
    }

    /// Remembers what the session has not read of the last turn: the rest of a prompt that was cut short, a last token, and the
    /// marker that ends an answer, which the model may not have got to.
    void answered(const generation_summary& summary) {
        started_ = true;
        pending_.assign(prompt_.begin() + static_cast<std::ptrdiff_t>(summary.prompt_tokens), prompt_.end());
        const bool ended = summary.reason == stop_reason::stop_token;
        if (summary.unread >= 0 && (!ended || end_ == nullptr)) pending_.push_back(summary.unread);
        if (end_ != nullptr) pending_.push_back(static_cast<std::int32_t>(end_->id));
    }

private:
    encoder encoder_;
    std::string system_;
    const added_token* end_;
    std::vector<std::int32_t> pending_;  // not read yet
    std::vector<std::int32_t> prompt_;   // of the last `ask`
    bool started_ = false;
};

PHI4FLASH_END
