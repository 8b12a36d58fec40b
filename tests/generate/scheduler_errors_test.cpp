/// What goes wrong while many texts are written: what fails, is refused or throws harms one request at most, and leaves every session whole.
#include <phi4flash/config/macros.hpp>
#if PHI4FLASH_HAS_JSON
#include "scheduler_testing.hpp"

#include <support/refused.hpp>
#include <support/test_support.hpp>

#include <cstring>
#include <functional>
#include <map>
#include <stdexcept>

using namespace generate_testing;
using phi4flash_test::check_refused;
using p4::request_id;
using p4::tick_outcome;

TEST_CASE("scheduler: what fails for one request fails for it alone") {
    fixture f(16, {.chunk = 32, .states = 4, .logits = 4});
    fixture plain;
    auto s = *scheduler_type::create(f.m, f.w, nullptr, {.requests = 4});
    const p4::generation_options options{.sampling = greedy, .max_tokens = 12};
    const alone want = run_alone(plain, some_prompt(5, 1), options, nullptr, 64);
    auto good = *session_type::create(f.m, 64);
    auto small = *session_type::create(f.m, 9);
    auto moved = *session_type::create(f.m, 64);
    alignas(p4::block_alignment) static std::byte memory[1 << 20];
    auto damaged = *session_type::create_in(memory, f.m, 16);
    for (std::size_t i = 0; i < 64; ++i) reinterpret_cast<float*>(memory)[i] = phi4flash_test::nan_f32;  // of the first Mamba state
    std::map<request_id, heard> have;
    std::vector<request_id> ids;
    for (session_type* past : {&good, &small, &moved, &damaged}) {
        const auto id = s.add({.past = past, .prompt = some_prompt(5, 1), .options = options});
        REQUIRE(id);
        ids.push_back(*id);
    }
    bool moved_yet = false;
    for (std::size_t ticks = 0; s.size() != 0; ++ticks) {
        REQUIRE(ticks < 1000);
        REQUIRE(s.tick());
        while (const auto event = s.next_event()) have[event->id].note(event->event);
        if (have[ids[2]].tokens.size() == 3 && !std::exchange(moved_yet, true)) REQUIRE(p4::step(f.m, moved, f.w, 1));
    }
    CHECK(have[ids[0]].tokens == want.tokens);
    CHECK(have[ids[0]].reason == stop_reason::max_tokens);
    CHECK(have[ids[0]].failure.empty());
    CHECK(have[ids[1]].reason == stop_reason::context_full);
    CHECK(have[ids[1]].tokens == ids_type(want.tokens.begin(), want.tokens.begin() + 5));
    CHECK(have[ids[2]].reason == stop_reason::failed);
    CHECK(have[ids[2]].failure.find("was moved from token 7 to 8") != std::string::npos);
    CHECK(have[ids[3]].reason == stop_reason::failed);
    CHECK(have[ids[3]].failure.find("not finite") != std::string::npos);
    CHECK(have[ids[3]].tokens.empty());
    CHECK(damaged.position() == 0);
}

TEST_CASE("scheduler: what is refused, and a scheduler that is dropped in the middle of a pass") {
    fixture f(16, {.chunk = 8, .states = 4, .logits = 4});
    check_refused(scheduler_type::create(f.m, f.w, nullptr, {.requests = 0}), p4::errc::invalid_argument, "requests");
    check_refused(scheduler_type::create(f.m, f.w, nullptr, {.longest_tick = -1.0}), p4::errc::invalid_argument, "longest_tick");
    check_refused(scheduler_type::create(f.m, f.w, nullptr, {.longest_tick = static_cast<double>(phi4flash_test::nan_f32)}),
                  p4::errc::invalid_argument, "longest_tick");
    auto past = *session_type::create(f.m, 32);
    {
        auto made = *scheduler_type::create(f.m, f.w, nullptr, {.requests = 2});
        CHECK(*made.tick() == tick_outcome::idle);
        CHECK_FALSE(made.next_event());
        CHECK_FALSE(made.cancel(request_id{1}));
        check_refused(made.add({}), p4::errc::invalid_argument, "without a session");
        check_refused(made.add({.past = &past}), p4::errc::invalid_argument, "no tokens");
        check_refused(made.add({.past = &past, .prompt = some_prompt(33, 1)}), p4::errc::context_full, "room for 32");
        check_refused(made.add({.past = &past, .prompt = ids_type{-1}}), p4::errc::unknown_token, "token -1");
        check_refused(made.add({.past = &past, .prompt = ids_type{1}, .options = {.sampling = {.top_p = 2.0f}}}), p4::errc::invalid_argument,
                      "top_p");
        CHECK(made.size() == 0);
        CHECK(made.capacity() == 2);
        REQUIRE(made.add({.past = &past, .prompt = some_prompt(20, 1), .options = {.sampling = greedy}}));
        scheduler_type s = std::move(made);
        CHECK(*s.tick_until([] { return true; }) == tick_outcome::paused);
        CHECK(*s.tick() == tick_outcome::done);
        CHECK(*s.tick() == tick_outcome::idle);  // it has not been told that eight tokens are read
        const auto event = s.next_event();
        REQUIRE(event);
        CHECK(event->event.kind == event_kind::prompt);
        CHECK(event->event.read == 8);
        CHECK(event->event.total == 20);
        CHECK_FALSE(s.next_event());
        CHECK(*s.tick_until([] { return true; }) == tick_outcome::paused);
        check_refused(p4::step(f.m, past, f.w, 1), p4::errc::in_use, "in use");
    }
    CHECK(past.position() == 8);
    const auto prompt = some_prompt(20, 1);
    const auto logits = p4::prefill(f.m, past, f.w, std::span(prompt).subspan(8));
    REQUIRE(logits);
    fixture plain;
    const auto want = p4::prefill(plain.m, plain.past, plain.w, prompt);
    REQUIRE(want);
    CHECK(std::memcmp(logits->data(), want->data(), want->size_bytes()) == 0);
}

#if defined(__cpp_exceptions)
TEST_CASE("scheduler: a drafter that throws when it hears of the end leaves a text that ends, and whose end is told") {
    struct forgetful {
        bool throws = false;
        void read(std::span<const std::int32_t>) {
            if (throws) throw std::runtime_error("no room");
        }
        std::size_t propose(std::span<std::int32_t>) { return 0; }
    };
    for (const bool with_sink : {false, true}) {
        CAPTURE(with_sink);
        fixture f(16, {.chunk = 32, .states = 4, .logits = 4});
        auto s = *scheduler_type::create(f.m, f.w, nullptr, {.requests = 1});
        auto past = *session_type::create(f.m, {.context = 64, .undo = 3});
        forgetful drafter;
        p4::generation_options options{.sampling = greedy, .max_tokens = 6};
        options.drafts.from = drafter;
        heard have;
        auto hear = [&](const p4::generation_event& event) {
            have.note(event);
            drafter.throws = have.tokens.size() == 6;
            return true;
        };
        REQUIRE(s.add({.past = &past, .prompt = some_prompt(5, 1), .options = options, .sink = with_sink ? p4::event_sink(hear) : p4::event_sink()}));
        std::size_t thrown = 0;
        const auto unless_thrown = [&](auto&& work) {
            try {
                return work();
            } catch (const std::runtime_error&) {
                ++thrown;
                return true;
            }
        };
        for (std::size_t ticks = 0; s.size() != 0; ++ticks) {
            REQUIRE(ticks < 100);
            const bool good = unless_thrown([&] { return s.tick().has_value(); });
            REQUIRE(good);
            const auto tell = [&] {
                const auto told = s.next_event();
                return told && hear(told->event);
            };
            while (unless_thrown(tell)) {}
        }
        CHECK(thrown == 1);
        CHECK(have.tokens.size() == 6);
        CHECK(have.ends == 1);
        CHECK(have.reason == stop_reason::max_tokens);
        CHECK(past.position() == 5 + 5);
    }
}

TEST_CASE("scheduler: what sinks and executors throw passes through and harms one request at most") {
    struct failing {
        int left = 1 << 30;
        [[nodiscard]] std::size_t concurrency() const { return 2; }
        void run(std::size_t count, std::size_t, void (*body)(void*, std::size_t, std::size_t), void* context) {
            if (left-- == 0) throw std::runtime_error("the job system is going down");
            body(context, 0, count / 2);
            if (left-- == 0) throw std::runtime_error("the job system is going down");
            body(context, count / 2, count);
        }
    };
    const p4::generation_options options{.sampling = greedy, .max_tokens = 8};
    fixture plain;
    const alone want = run_alone(plain, some_prompt(5, 1), options, nullptr, 64);
    const auto run = [&](int fail_at, bool sink_throws) {
        failing threads;
        threads.left = fail_at;
        fixture f(16, {.chunk = 32, .threads = threads, .states = 4, .logits = 4});
        auto s = *scheduler_type::create(f.m, f.w, nullptr, {.requests = 3});
        std::vector<session_type> sessions;
        std::vector<heard> have(3);
        std::vector<std::function<bool(const p4::generation_event&)>> sinks;
        for (std::size_t i = 0; i < 3; ++i) {
            sessions.push_back(*session_type::create(f.m, 64));
            sinks.emplace_back([&have, i, sink_throws](const p4::generation_event& event) {
                have[i].note(event);
                if (sink_throws && i == 1 && have[i].tokens.size() == 3) throw std::runtime_error("enough");
                return true;
            });
        }
        for (std::size_t i = 0; i < 3; ++i) REQUIRE(s.add({.past = &sessions[i], .prompt = some_prompt(5, 1), .options = options, .sink = sinks[i]}));
        int thrown = 0;
        for (std::size_t ticks = 0; s.size() != 0; ++ticks) {
            REQUIRE(ticks < 1000);
            bool good = true;
            try {
                good = s.tick().has_value();
            } catch (const std::runtime_error&) {
                ++thrown;
            }
            REQUIRE(good);
        }
        CHECK(thrown == (sink_throws || fail_at < (1 << 29) ? 1 : 0));
        for (std::size_t i = 0; i < 3; ++i) {
            CAPTURE(i);
            const bool cut = sink_throws && i == 1;
            CHECK(have[i].tokens == (cut ? ids_type(want.tokens.begin(), want.tokens.begin() + 3) : want.tokens));
            CHECK(have[i].ends == (cut ? 0 : 1));
            CHECK(sessions[i].position() == 5 + have[i].tokens.size() - 1);
        }
        return (1 << 30) - threads.left;
    };
    run(1 << 30, true);
    const int jobs = run(1 << 30, false);
    REQUIRE(jobs > 100);
    for (int at = 0; at < jobs; at += 1 + jobs / 60) {
        CAPTURE(at);
        run(at, false);
    }
    // And in the one job of each pass in which texts are chosen and committed, of which some are done and some are not.
    const int a_pass = jobs / 8;
    for (int at = jobs / 2; at < jobs / 2 + a_pass; ++at) run(at, false);
}
#endif
#endif
