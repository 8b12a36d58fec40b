#pragma once
/// What the tests of the scheduler share: prompts, what was heard of a request, and a text as it is alone.
#include "generate_testing.hpp"

#include <phi4flash/generate/scheduler.hpp>

#include <doctest/doctest.h>

namespace generate_testing {

using p4::event_kind;

using session_type = p4::session<p4::any_sambay, float>;
using scheduler_type = p4::scheduler<p4::any_sambay, float>;
using request_type = p4::request<p4::any_sambay, float>;

inline ids_type some_prompt(std::size_t n, std::size_t seed) {
    ids_type prompt(n);
    for (std::size_t i = 0; i < n; ++i) prompt[i] = static_cast<std::int32_t>((i * i * 13 + i * 5 + seed * 29 + 3) % 200);
    return prompt;
}

/// What was heard of one request.
struct heard {
    ids_type tokens;
    std::string text;
    std::vector<std::size_t> read;
    std::vector<std::size_t> ticks;  ///< in which tokens came
    int ends = 0;
    stop_reason reason{};
    std::string failure;

    void note(const p4::generation_event& event, std::size_t tick = 0) {
        CHECK(ends == 0);
        text += event.text;
        if (event.kind == event_kind::prompt) read.push_back(event.read);
        if (event.kind == event_kind::token) tokens.push_back(event.token), ticks.push_back(tick);
        if (event.kind != event_kind::end) return;
        ++ends;
        reason = event.reason;
        if (event.failure != nullptr) failure = event.failure->message();
    }
};

/// A text as it is alone.
struct alone {
    ids_type tokens;
    std::string text;
    stop_reason reason;
    std::size_t position;
};
inline alone run_alone(fixture& f, const ids_type& prompt, const p4::generation_options& options, const p4::tokenizer* words, std::size_t context) {
    f.past = *session_type::create(f.m, context);
    const auto summary = f.generate(prompt, options, words);
    REQUIRE(summary);
    return {f.tokens, f.text, summary->reason, f.past.position()};
}

inline void tick_until_empty(scheduler_type& s) {
    for (std::size_t ticks = 0; s.size() != 0; ++ticks) {
        REQUIRE(ticks < 100000);
        REQUIRE(s.tick());
    }
}

}  // namespace generate_testing
