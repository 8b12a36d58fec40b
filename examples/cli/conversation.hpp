#pragma once
/// A conversation with a model that runs, and how long its answers took.
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
        : engine_(runs), text_(text), options_(options), turns_(text, std::move(system)) {}

    /// Forgets what was said.
    void reset() {
        engine_.reset();
        turns_.reset();
    }

    /// Says something to the model; `take` gets its answer, and `tell` how far the question has been read. Errors: those of
    /// conversation::ask and generate; context_full where the question does not fit any more: all is then as before.
    p4::result<answer> ask(std::string_view question, const engine::sink& take, const engine::on_prompt& tell) {
        const auto prompt = turns_.ask(question);
        if (!prompt) return prompt.error();
        using clock = std::chrono::steady_clock;
        clock::time_point first{};
        clock::time_point last{};
        const auto timed = [&](const p4::generation_event& event) {
            last = clock::now();
            if (event.token >= 0 && first == clock::time_point{}) first = last;
            return take(event);
        };
        const auto summary = engine_.generate(&text_, *prompt, options_, timed, tell);
        if (!summary) return summary.error();
        turns_.answered(*summary);
        ++options_.sampling.seed;  // the same question again may have another answer
        return answer{*summary, std::chrono::duration<double>(last - first).count()};
    }

private:
    engine& engine_;
    const p4::tokenizer& text_;
    p4::generation_options options_;
    p4::conversation turns_;
};

}  // namespace cli
