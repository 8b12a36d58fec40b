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
        if (const p4::status ok = return_to_text(); !ok) return ok.error();
        // Where the text stands now is where it goes on if this question is taken back.
        const bool kept = engine_.keep(turns_.tokens());
        const auto prompt = turns_.ask(question, engine_.position());
        if (!prompt) return prompt.error();
        const std::size_t length = prompt->size();
        using clock = std::chrono::steady_clock;
        clock::time_point first{};
        clock::time_point last{};
        written_.clear();
        const auto timed = [&](const p4::generation_event& event) {
            last = clock::now();
            if (event.token >= 0 && first == clock::time_point{}) first = last;
            if (event.token >= 0) written_.push_back(event.token);
            return take(event);
        };
        const auto summary = engine_.generate(&text_, *prompt, options_, timed, tell);
        if (!summary) return summary.error();
        if (summary->prompt_tokens < length && kept) {
            if (const p4::status ok = return_to_text(); !ok) return ok.error();  // nothing of it remains
        } else if (const p4::status ok = turns_.answered(*summary, written_); !ok) {
            return ok.error();
        }
        ++options_.sampling.seed;  // the same question again may have another answer
        return answer{*summary, std::chrono::duration<double>(last - first).count()};
    }

    /// The last question and its answer were never said. Errors: invalid_argument (there is none).
    p4::status take_back() {
        if (const p4::status ok = turns_.take_back(); !ok) return ok;
        return return_to_text();
    }

    /// Goes on from what was saved; `states`, if any, are those before the last question. Errors: those of conversation::restore, restore_snapshot
    /// and restore_states; nothing has been said then.
    p4::status restore(p4::conversation_record said, std::span<const std::byte> snapshot, std::span<const std::byte> states) {
        p4::conversation turns(text_);
        if (const p4::status ok = turns.restore(std::move(said)); !ok) return ok;
        p4::status ok = engine_.read_snapshot(snapshot);
        if (ok && !states.empty()) {
            ok = engine_.read_states(states);
            if (ok) (void)engine_.keep(turns.tokens().first(engine_.position()));
            if (ok) ok = engine_.read_snapshot(snapshot);
        }
        if (ok) ok = turns_.restore(turns.record());
        if (!ok) engine_.reset();
        return ok;
    }

    /// What stood before the last question that was answered.
    [[nodiscard]] std::span<const std::int32_t> before_last_question() const {
        return turns_.turns().empty() ? std::span<const std::int32_t>() : turns_.tokens().first(turns_.turns().back().begin);
    }

    [[nodiscard]] const p4::conversation_record& said() const { return turns_.record(); }

private:
    /// Takes the session back to where the text is, or before: what is missing is read with the next question.
    p4::status return_to_text() {
        const auto at = engine_.go_back(turns_.tokens());
        return at ? p4::status() : p4::status(at.error());
    }

    engine& engine_;
    const p4::tokenizer& text_;
    p4::generation_options options_;
    p4::conversation turns_;
    std::vector<std::int32_t> written_;
};

}  // namespace cli
