#pragma once
/// A conversation with a model: what has been said stays in the session, and each turn reads only what is new.
#include "command.hpp"

#include <chrono>

namespace cli {

/// What one answer took.
struct answer {
    p4::generation_summary summary;
    double seconds = 0.0;  ///< from the first new token to the last
};

/// The engine and the tokenizer must outlive it.
class conversation {
public:
    conversation(engine& runs, const p4::tokenizer& text, const p4::generation_options& options, std::string system)
        : engine_(runs), text_(text), encoder_(text), options_(options), system_(std::move(system)),
          end_(text.added(std::string_view("<|end|>"))) {}

    /// Forgets what was said.
    void reset() {
        engine_.reset();
        pending_.clear();
        started_ = false;
    }

    /// Says something to the model; `take` gets its answer, and `tell` how far the question has been read. Errors: those of
    /// encode_chat and generate; context_full where the question does not fit any more: the conversation is then as before.
    p4::result<answer> ask(std::string_view question, const engine::sink& take, const engine::on_prompt& tell) {
        std::vector<std::int32_t> prompt = pending_;
        std::vector<p4::chat_message> messages;
        if (!started_ && !system_.empty()) messages.push_back({"system", system_});
        messages.push_back({"user", question});
        if (const p4::status ok = p4::encode_chat(encoder_, messages, {}, prompt); !ok) return ok.error();

        using clock = std::chrono::steady_clock;
        clock::time_point first{};
        clock::time_point last{};
        const auto timed = [&](const p4::generation_event& event) {
            last = clock::now();
            if (event.token >= 0 && first == clock::time_point{}) first = last;
            return take(event);
        };
        const auto summary = engine_.generate(&text_, prompt, options_, timed, tell);
        if (!summary) return summary.error();
        started_ = true;
        ++options_.sampling.seed;  // the same question again may have another answer
        remember(*summary, prompt);
        return answer{*summary, std::chrono::duration<double>(last - first).count()};
    }

private:
    /// What the session still has to read before the next message: the rest of a prompt that was cut short, a last token, and the
    /// marker that ends the answer, which the model may not have got to.
    void remember(const p4::generation_summary& summary, const std::vector<std::int32_t>& prompt) {
        pending_.assign(prompt.begin() + static_cast<std::ptrdiff_t>(summary.prompt_tokens), prompt.end());
        const bool ended = summary.reason == p4::stop_reason::stop_token;
        if (summary.unread >= 0 && (!ended || end_ == nullptr)) pending_.push_back(summary.unread);
        if (end_ != nullptr) pending_.push_back(static_cast<std::int32_t>(end_->id));
    }

    engine& engine_;
    const p4::tokenizer& text_;
    p4::encoder encoder_;
    p4::generation_options options_;
    std::string system_;
    const p4::added_token* end_;
    std::vector<std::int32_t> pending_;
    bool started_ = false;
};

}  // namespace cli
