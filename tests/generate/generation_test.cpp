/// A text as a value: advanced in pieces of any size it is the text of `generate`, cancelled anywhere it leaves a session that goes on, and
/// drafts, whatever they are, change nothing but the number of passes.
#include <phi4flash/config/macros.hpp>
#if PHI4FLASH_HAS_JSON
#include "generate_testing.hpp"

#include <phi4flash/generate/generation.hpp>
#include <phi4flash/model/snapshot.hpp>

using namespace generate_testing;
using p4::event_kind;

namespace {

using session_type = p4::session<p4::any_sambay, float>;
using generation_type = p4::generation<p4::any_sambay, float>;

/// What came of a text.
struct told {
    ids_type tokens;
    std::string text;
    std::vector<std::size_t> read;  ///< of the prompt, each time
    std::size_t pauses = 0;
    std::size_t ends = 0;
    p4::generation_summary summary;
};

void note(const p4::generation_event& event, told& so_far) {
    if (event.kind == event_kind::none) ++so_far.pauses;
    if (event.kind == event_kind::prompt) so_far.read.push_back(event.read);
    if (event.kind == event_kind::token) so_far.tokens.push_back(event.token);
    if (event.kind == event_kind::end) ++so_far.ends;
    so_far.text += event.text;
}

/// Advances to the end, `pieces` of passes a call.
told run_out(generation_type& g, std::size_t pieces) {
    told so_far;
    while (g.running()) {
        std::size_t left = pieces;
        const auto event = g.advance_until([&] { return --left == 0; });
        REQUIRE(event);
        note(*event, so_far);
    }
    so_far.summary = g.summary();
    return so_far;
}

/// The tokens of `prompt` and, behind them, of what followed.
ids_type joined(const ids_type& prompt, const ids_type& more) {
    ids_type all = prompt;
    all.insert(all.end(), more.begin(), more.end());
    return all;
}

/// A prompt of several chunks, and how the model goes on from it.
struct long_text {
    explicit long_text(std::size_t n) {
        while (prompt.size() < 21) prompt.insert(prompt.end(), first_prompt().tokens.begin(), first_prompt().tokens.end());
        fixture f;
        REQUIRE(f.generate(prompt, {.sampling = greedy, .max_tokens = n}));
        tokens = f.tokens;
    }
    ids_type prompt;
    ids_type tokens;
};

/// Knows how a text goes on, and says something else after every `wrong_after` tokens.
struct well_read {
    ids_type text;
    std::size_t wrong_after;
    std::size_t known = 0;
    std::size_t most = SIZE_MAX;
    void read(std::span<const std::int32_t> tokens) {
        for (const std::int32_t token : tokens) CHECK(text[known++] == token);
    }
    std::size_t propose(std::span<std::int32_t> out) const {
        std::size_t n = 0;
        for (; n < std::min(out.size(), most) && known + n < text.size(); ++n) {
            const bool wrong = (known + n) % wrong_after == wrong_after - 1;
            out[n] = wrong ? (text[known + n] + 1) % 50 : text[known + n];
        }
        return n;
    }
};
static_assert(p4::drafter<well_read>);

/// A fixture that can check eight drafts at once.
struct drafting : fixture {
    static constexpr std::size_t drafts = 8;
    explicit drafting(std::size_t context = 256) : fixture(context, p4::with_drafts({.chunk = 8}, drafts)) {}
};

p4::generation_options with(p4::generation_options options, well_read& knows) {
    options.drafts = {.from = knows, .most = drafting::drafts};
    return options;
}

/// What a session would give next, by which any two differ.
ids_type future(fixture& f, session_type& past, std::int32_t next) {
    ids_type tokens;
    REQUIRE(p4::generate(f.m, past, f.w, nullptr, ids_type{next}, {.sampling = greedy, .max_tokens = 12}, [&](const p4::generation_event& event) {
        tokens.push_back(event.token);
        return true;
    }));
    return tokens;
}

}  // namespace

TEST_CASE("generation: in pieces of any size it is the text of generate") {
    const p4::tokenizer words = small_tokenizer();
    const long_text whole(1);
    const p4::generation_options options{.sampling = {.temperature = 5.0f, .top_p = 1.0f, .seed = 3}, .max_tokens = 40};
    fixture once = wide_fixture();
    const auto want = once.generate(whole.prompt, options, &words);
    REQUIRE(want);
    for (const std::size_t pieces : {1, 2, 7, 20, 1000000}) {
        CAPTURE(pieces);
        fixture f = wide_fixture();
        auto g = generation_type::create(f.m, f.w, &words, options, {.prompt = whole.prompt.size()});
        REQUIRE(g);
        CHECK_FALSE(g->running());
        for (const bool again : {false, true}) {  // the same value for a second text
            CAPTURE(again);
            f.past.reset();
            REQUIRE(g->start(f.past, whole.prompt));
            CHECK(g->running());
            const told have = run_out(*g, pieces);
            CHECK(have.tokens == once.tokens);
            CHECK(have.text == once.text);
            CHECK(have.read == std::vector<std::size_t>{8, 16, whole.prompt.size()});
            CHECK(have.ends == 1);
            CHECK((have.pauses > 0) == (pieces < 1000));
            CHECK(have.summary.reason == want->reason);
            CHECK(have.summary.new_tokens == want->new_tokens);
            CHECK(have.summary.unread == want->unread);
            CHECK(f.past.position() == once.past.position());
            const auto after = g->advance();
            REQUIRE(after);
            CHECK(after->kind == event_kind::none);
        }
    }
}

TEST_CASE("generation: session and workspace are in use in the middle of a pass, and free when there is an event") {
    const long_text whole(3);
    fixture f;
    auto other = *session_type::create(f.m, 64);
    auto g = *generation_type::create(f.m, f.w, nullptr, {.sampling = greedy, .max_tokens = 3}, {.prompt = 64});
    REQUIRE(g.start(f.past, whole.prompt));
    told have;
    std::size_t refused = 0;
    while (g.running()) {
        const auto event = g.advance_until([] { return true; });
        REQUIRE(event);
        note(*event, have);
        const auto step = p4::step(f.m, other, f.w, 1);
        CHECK(step.has_value() == (event->kind != event_kind::none));
        if (step) continue;
        CHECK(step.error().code() == p4::errc::in_use);
        CHECK(f.past.copy_from(other).error().code() == p4::errc::in_use);
        ++refused;
        // A second text over the same workspace has to wait, and is none the worse for it.
        auto second = *generation_type::create(f.m, f.w, nullptr, {.sampling = greedy, .max_tokens = 2}, {.prompt = 8});
        auto apart = *session_type::create(f.m, 64);
        REQUIRE(second.start(apart, first_prompt().tokens));
        const auto waits = second.advance();
        REQUIRE_FALSE(waits);
        CHECK(waits.error().code() == p4::errc::in_use);
        CHECK(second.running());
    }
    CHECK(refused > 20);
    CHECK(have.tokens == whole.tokens);
}

TEST_CASE("generation: cancelled at any piece it leaves a session that goes on to the same text") {
    const long_text whole(6);
    for (const bool by_flag : {false, true}) {
        CAPTURE(by_flag);
        bool finished = false;
        for (std::size_t pieces = 1; !finished; ++pieces) {
            CAPTURE(pieces);
            fixture f;
            std::atomic<bool> cancel{false};
            auto g = *generation_type::create(f.m, f.w, nullptr, {.sampling = greedy, .max_tokens = 6, .cancel = &cancel}, {.prompt = 64});
            REQUIRE(g.start(f.past, whole.prompt));
            told have;
            std::size_t left = pieces;
            while (g.running() && left != 0) {
                const auto event = g.advance_until([&] {
                    if (--left == 0 && by_flag) cancel = true;
                    return left == 0 && !by_flag;
                });
                REQUIRE(event);
                note(*event, have);
            }
            finished = have.ends == 1 && g.summary().reason == stop_reason::max_tokens;
            if (!finished && g.running()) {
                if (!by_flag) g.cancel();
                while (g.running()) note(*g.advance(), have);
            }
            CHECK(have.ends == 1);
            if (finished) break;
            const p4::generation_summary& summary = g.summary();
            CHECK(summary.reason == stop_reason::cancelled);
            CHECK(summary.new_tokens == have.tokens.size());
            CHECK(summary.prompt_tokens == std::min(f.past.position(), whole.prompt.size()));
            // The rest of the prompt, or the token that was not read, and on.
            const ids_type all = joined(whole.prompt, have.tokens);
            const ids_type rest(all.begin() + static_cast<std::ptrdiff_t>(f.past.position()), all.end());
            if (summary.prompt_tokens == whole.prompt.size() && !have.tokens.empty()) CHECK(rest == ids_type{summary.unread});
            if (rest.empty()) continue;  // cancelled between the prompt's end and the first token
            REQUIRE(f.generate(rest, {.sampling = greedy, .max_tokens = 6 - have.tokens.size()}));
            CHECK(joined(have.tokens, f.tokens) == whole.tokens);
        }
    }
}

TEST_CASE("generation: dropped or started again in the middle, it leaves a whole session") {
    const long_text whole(6);
    fixture f;
    auto other = *session_type::create(f.m, 64);
    {
        auto g = *generation_type::create(f.m, f.w, nullptr, {.sampling = greedy, .max_tokens = 6}, {.prompt = 64});
        REQUIRE(g.start(f.past, whole.prompt));
        REQUIRE(g.advance());
        REQUIRE(g.advance_until([] { return true; })->kind == event_kind::none);
        REQUIRE(g.start(other, whole.prompt));
        CHECK(f.past.position() == 8);
        generation_type moved = std::move(g);
        CHECK_FALSE(g.running());
        CHECK(run_out(moved, 5).tokens == whole.tokens);
        REQUIRE(moved.start(f.past, ids_type(whole.prompt.begin() + 8, whole.prompt.end())));
        while (moved.advance()->kind != event_kind::token) {}
        REQUIRE(moved.advance_until([] { return true; })->kind == event_kind::none);
    }
    CHECK(f.past.position() == whole.prompt.size());
    REQUIRE(f.generate({whole.tokens[0]}, {.sampling = greedy, .max_tokens = 5}));
    CHECK(f.tokens == ids_type(whole.tokens.begin() + 1, whole.tokens.end()));
}

TEST_CASE("generation: what cannot be started is refused, and a session that somebody moves ends the text") {
    fixture f;
    auto g = *generation_type::create(f.m, f.w, nullptr, {.sampling = greedy}, {.prompt = 10});
    const auto refused = [&](const ids_type& prompt, p4::errc code) {
        const p4::status ok = g.start(f.past, prompt);
        REQUIRE_FALSE(ok);
        CHECK(ok.error().code() == code);
        CHECK_FALSE(g.running());
        CHECK(f.past.position() == 0);
    };
    const auto too_long = generation_type::create(f.m, f.w, nullptr, {.sampling = greedy}, {.prompt = SIZE_MAX / 2});
    REQUIRE_FALSE(too_long);
    CHECK(std::string_view(too_long.error().message()).starts_with("text_limits.prompt: want at most 16777216"));
    refused({}, p4::errc::invalid_argument);
    refused(ids_type(11, 1), p4::errc::invalid_argument);
    refused({1, -1}, p4::errc::unknown_token);
    refused({1, 1000000}, p4::errc::unknown_token);
    auto small = *session_type::create(f.m, 4);
    CHECK(g.start(small, ids_type(5, 1)).error().code() == p4::errc::context_full);
    REQUIRE(g.start(f.past, first_prompt().tokens));
    while (g.advance()->kind != event_kind::token) {}
    REQUIRE(p4::step(f.m, f.past, f.w, 1));
    const auto moved = g.advance();
    REQUIRE_FALSE(moved);
    CHECK(moved.error().code() == p4::errc::in_use);
    CHECK_FALSE(g.running());
    CHECK(g.summary().reason == p4::stop_reason::failed);
    f.past.reset();
    REQUIRE(g.start(f.past, first_prompt().tokens));
    REQUIRE(g.advance_until([] { return true; }));
    f.past.reset();
    const auto reset = g.advance();
    REQUIRE_FALSE(reset);
    CHECK(reset.error().code() == p4::errc::in_use);
    CHECK(g.summary().reason == p4::stop_reason::failed);
    CHECK(f.past.position() == 0);
    REQUIRE(p4::step(f.m, f.past, f.w, 1));
}

TEST_CASE("generation: a text that is stopped and goes on is the one that was not stopped, sampled too") {
    fixture whole = wide_fixture();
    const p4::generation_options options{.sampling = {.temperature = 5.0f, .top_p = 1.0f, .seed = 3}, .max_tokens = 30};
    const ids_type& prompt = first_prompt().tokens;
    REQUIRE(whole.generate(prompt, options));
    const auto another_seed = [&] {
        auto changed = options;
        changed.sampling.seed = 4;
        fixture f = wide_fixture();
        REQUIRE(f.generate(prompt, changed));
        return f.tokens;
    };
    CHECK(another_seed() != whole.tokens);
    for (const std::size_t stop : {std::size_t{1}, std::size_t{2}, std::size_t{11}, std::size_t{29}}) {
        CAPTURE(stop);
        fixture f = wide_fixture();
        const auto cut = f.generate(prompt, options, nullptr, stop);
        REQUIRE(cut);
        ids_type tokens = f.tokens;
        auto rest = options;
        rest.max_tokens -= stop;
        REQUIRE(f.generate({cut->unread}, rest));
        tokens.insert(tokens.end(), f.tokens.begin(), f.tokens.end());
        CHECK(tokens == whole.tokens);
    }
}

TEST_CASE("generation: a session that is replaced in the middle of a pass") {
    const long_text whole(12);
    for (const std::size_t read : {std::size_t{0}, std::size_t{3}}) {  // the new one goes on where the old one stood, or it does not
        fixture f;
        auto g = *generation_type::create(f.m, f.w, nullptr, {.sampling = greedy, .max_tokens = 12}, {.prompt = 64});
        auto past = std::make_unique<session_type>(*session_type::create(f.m, 256));
        REQUIRE(g.start(*past, whole.prompt));
        REQUIRE(g.advance_until([] { return true; })->kind == event_kind::none);
        auto other = *session_type::create(f.m, 128);
        for (std::size_t i = 0; i < read; ++i) {
            fixture elsewhere;
            REQUIRE(p4::step(f.m, other, elsewhere.w, 1));
        }
        *past = std::move(other);
        CHECK(other.moved_from());  // NOLINT(bugprone-use-after-move): it has no memory, and says so
        fixture unused;
        const auto refused = p4::step(f.m, other, unused.w, 1);
        REQUIRE_FALSE(refused);
        CHECK(refused.error().code() == p4::errc::invalid_argument);
        if (read == 0) {
            CHECK(run_out(g, 1000).tokens == whole.tokens);
            CHECK(past->position() == whole.prompt.size() + 11);
        } else {
            const auto event = g.advance();
            REQUIRE_FALSE(event);
            CHECK(event.error().code() == p4::errc::in_use);
            CHECK_FALSE(g.running());
            CHECK(past->position() == 3);
        }
    }
    fixture f;
    auto g = *generation_type::create(f.m, f.w, nullptr, {.sampling = greedy, .max_tokens = 12}, {.prompt = 64});
    REQUIRE(g.start(f.past, whole.prompt));
    REQUIRE(g.advance_until([] { return true; })->kind == event_kind::none);
    session_type kept = std::move(f.past);
    const auto event = g.advance();
    REQUIRE_FALSE(event);
    CHECK(std::string_view(event.error().message()) == "the session has no memory: it was moved to another place");
    CHECK(kept.position() == 0);
    CHECK(p4::snapshot_bytes(f.past) == 0);
    const auto unsaved = p4::save_snapshot(f.past, {}, [](std::span<const std::byte>) { return true; });
    REQUIRE_FALSE(unsaved);
    CHECK(unsaved.error().code() == p4::errc::invalid_argument);
    CHECK_FALSE(kept.busy());
    CHECK(p4::step(f.m, kept, f.w, 1));
    p4::workspace<p4::any_sambay, float> w = std::move(f.w);
    CHECK(p4::step(f.m, kept, w, 1));
    const auto moved = p4::step(f.m, kept, f.w, 1);
    REQUIRE_FALSE(moved);
    CHECK(moved.error().code() == p4::errc::invalid_argument);
}

TEST_CASE("generation: a workspace that can never do it is refused before anything is read") {
    fixture f;
    fixture wide = wide_fixture();
    const auto foreign = generation_type::create(f.m, wide.w, nullptr, {.sampling = greedy}, {.prompt = 10});
    REQUIRE_FALSE(foreign);
    CHECK(foreign.error().code() == p4::errc::invalid_argument);
    CHECK(std::string_view(foreign.error().message()) == "the workspace is of a model of another shape");

    auto g = *generation_type::create(f.m, f.w, nullptr, {.sampling = greedy, .max_tokens = 3}, {.prompt = 10});
    auto undoing = *session_type::create(f.m, {.context = 64, .undo = 8});  // the workspace keeps one state
    const p4::status ok = g.start(undoing, ids_type(5, 1));
    REQUIRE_FALSE(ok);
    CHECK(ok.error().code() == p4::errc::invalid_argument);
    CHECK(std::string_view(ok.error().message()).starts_with(
        "a prompt of 5 tokens into a session with an undo of 8: want a workspace of 9 states, have 1"));
    CHECK_FALSE(g.running());
    REQUIRE(g.start(undoing, ids_type(1, 1)));  // one state is in place
    CHECK(run_out(g, 1000).tokens.size() == 3);
}

TEST_CASE("generation: a start that is refused ends no text, wherever that is") {
    const long_text whole(20);
    for (std::size_t stop_at = 0; stop_at < 400; stop_at += 7) {
        CAPTURE(stop_at);
        drafting f;
        well_read knows{joined(whole.prompt, whole.tokens), 5};
        auto g = *generation_type::create(f.m, f.w, nullptr, with({.sampling = greedy, .max_tokens = 20}, knows), {.prompt = 64});
        auto other = *session_type::create(f.m, 4);
        REQUIRE(g.start(f.past, whole.prompt));
        told have;
        for (std::size_t pieces = 0; g.running();) {
            const auto event = g.advance_until([&] { return pieces++ == stop_at; });
            REQUIRE(event);
            note(*event, have);
            const std::size_t here = f.past.position();
            for (session_type* past : {&f.past, &other}) {
                CHECK(g.start(*past, {}).error().code() == p4::errc::invalid_argument);
                CHECK(g.start(*past, ids_type{1, -1}).error().code() == p4::errc::unknown_token);
            }
            CHECK(g.start(f.past, ids_type(65, 1)).error().code() == p4::errc::invalid_argument);
            CHECK(g.start(other, ids_type(5, 1)).error().code() == p4::errc::context_full);
            CHECK(f.past.position() == here);
        }
        CHECK(have.tokens == whole.tokens);
        CHECK(f.past.position() == whole.prompt.size() + 19);
    }
}

TEST_CASE("generation: drafts, right and wrong, change nothing but how many passes there are") {
    const long_text whole(40);
    for (const std::size_t wrong_after : {1, 2, 3, 5, 11, 1000}) {
        CAPTURE(wrong_after);
        drafting f;
        well_read knows{joined(whole.prompt, whole.tokens), wrong_after};
        auto g = *generation_type::create(f.m, f.w, nullptr, with({.sampling = greedy, .max_tokens = 40}, knows), {.prompt = 64});
        REQUIRE(g.start(f.past, whole.prompt));
        std::size_t passes = 0;
        bool pass_begun = false;
        told have;
        while (g.running()) {
            const auto event = g.advance_until([&] { return pass_begun = true; });
            REQUIRE(event);
            if (event->kind != event_kind::none) passes += std::exchange(pass_begun, false) ? 1 : 0;
            note(*event, have);
        }
        CHECK(have.tokens == whole.tokens);
        CHECK(have.summary.unread == -1);
        CHECK(g.summary().unread == whole.tokens.back());
        CHECK(f.past.position() == whole.prompt.size() + 39);
        if (wrong_after == 1) CHECK(passes == 3 + 39);
        if (wrong_after == 1000) CHECK(passes == 3 + 5);  // 1 token with the prompt, then 9 a pass
    }
}

TEST_CASE("generation: whatever ends a text inside a run of accepted drafts, the session is where it is without drafts") {
    const long_text whole(40);
    const auto check = [&](std::size_t context, const p4::generation_options& options, std::size_t stop_after, bool cancel) {
        fixture plain(context);
        const auto want = plain.generate(whole.prompt, options, nullptr, cancel ? SIZE_MAX : stop_after);
        REQUIRE(want);
        drafting f(context);
        well_read knows{joined(whole.prompt, whole.tokens), 1000};
        auto g = *generation_type::create(f.m, f.w, nullptr, with(options, knows), {.prompt = 64});
        REQUIRE(g.start(f.past, whole.prompt));
        told have;
        while (g.running()) {
            const auto event = g.advance();
            REQUIRE(event);
            note(*event, have);
            if (event->kind == event_kind::token && have.tokens.size() == stop_after) g.stop(cancel ? stop_reason::cancelled : stop_reason::sink);
        }
        if (cancel) {
            CHECK(have.tokens.size() == stop_after);
            CHECK(g.summary().reason == stop_reason::cancelled);
        } else {
            CHECK(have.tokens == plain.tokens);
            CHECK(g.summary().reason == want->reason);
            CHECK(g.summary().unread == want->unread);
            CHECK(f.past.position() == plain.past.position());
        }
        REQUIRE(f.past.position() == whole.prompt.size() + have.tokens.size() - 1 + (g.summary().reason == stop_reason::stop_token ? 1 : 0));
        const std::size_t at = f.past.position() - whole.prompt.size();
        if (f.past.position() + 12 < f.past.context() && at + 13 < whole.tokens.size())
            CHECK(future(f, f.past, whole.tokens[at]) ==
                  ids_type(whole.tokens.begin() + static_cast<std::ptrdiff_t>(at + 1), whole.tokens.begin() + static_cast<std::ptrdiff_t>(at + 13)));
    };
    for (std::size_t n = 1; n <= 24; ++n) {
        CAPTURE(n);
        const auto first = static_cast<std::size_t>(std::ranges::find(whole.tokens, whole.tokens[n]) - whole.tokens.begin());
        check(256, {.sampling = greedy, .max_tokens = 30}, n, false);                                     // the sink
        check(256, {.sampling = greedy, .max_tokens = 30}, n, true);                                      // the host
        check(256, {.sampling = greedy, .max_tokens = n}, SIZE_MAX, false);                               // enough
        check(whole.prompt.size() + n, {.sampling = greedy, .max_tokens = 40}, SIZE_MAX, false);          // no more room
        if (first != 0) check(256, {.sampling = greedy, .max_tokens = 30, .stop_ids = {whole.tokens[n]}}, SIZE_MAX, false);
    }
}
#endif
