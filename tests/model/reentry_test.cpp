/// Callbacks and executors of the host: those that use what a call is using are refused, those that throw leave the session as it was.
#include "golden.hpp"
#include "support/refused.hpp"

#include <phi4flash/generate/generate.hpp>

#include <stdexcept>

namespace p4 = phi4flash;
using phi4flash_test::check_refused;

namespace {

using span = std::span<const std::int32_t>;

struct busy_fixture {
    p4::checkpoint files = *golden::open("f32-8l");
    p4::model<> m = *p4::model<>::bind(files);
    p4::session<> past = *p4::session<>::create(m, 64);
    p4::session<> other = *p4::session<>::create(m, 64);
    p4::workspace<> w = *p4::workspace<>::create(m, {.chunk = 4});
    p4::workspace<> other_w = *p4::workspace<>::create(m, {.chunk = 4});
    std::vector<std::int32_t> prompt;

    busy_fixture() {
        for (std::int32_t i = 0; i < 10; ++i) prompt.push_back(i * 7 % 50);
    }
    /// What the logits after the prompt are.
    std::vector<float> want() {
        auto fresh = *p4::session<>::create(m, 64);
        const auto logits = p4::prefill(m, fresh, w, prompt);
        REQUIRE(logits);
        return {logits->begin(), logits->end()};
    }
};

}  // namespace

TEST_CASE("model/reentry: a callback between chunks may not use the workspace or the session, and does no harm") {
    busy_fixture f;
    const std::vector<float> want = f.want();
    int calls = 0;
    const auto logits = p4::prefill(f.m, f.past, f.w, f.prompt, [&](std::size_t read, std::size_t) {
        ++calls;
        check_refused(p4::step(f.m, f.other, f.w, 1), p4::errc::in_use, "the workspace is in use");
        check_refused(p4::prefill(f.m, f.other, f.w, f.prompt), p4::errc::in_use, "the workspace is in use");
        check_refused(p4::step(f.m, f.past, f.other_w, 1), p4::errc::in_use, "the session is in use");
        check_refused(f.past.copy_from(f.other), p4::errc::in_use, "the session is in use");
        CHECK(f.other.position() == 0);
        CHECK(f.past.position() == read);
        return true;
    });
    REQUIRE(logits);
    CHECK(calls == 3);
    CHECK(std::memcmp(want.data(), logits->data(), logits->size_bytes()) == 0);
    // Another session with another workspace, and a copy at a chunk's border, are fine.
    f.past.reset();
    REQUIRE(p4::prefill(f.m, f.past, f.w, f.prompt, [&](std::size_t read, std::size_t) {
        auto copy = *p4::session<>::create(f.m, 64);
        CHECK(copy.copy_from(f.past));
        CHECK(copy.position() == read);
        CHECK(p4::step(f.m, copy, f.other_w, 1));
        return true;
    }));
    // And both are free again afterwards.
    CHECK(p4::step(f.m, f.past, f.w, 1));
}

TEST_CASE("model/reentry: a session that a callback resets under a call ends that call") {
    busy_fixture f;
    check_refused(p4::prefill(f.m, f.past, f.w, f.prompt,
                              [&](std::size_t, std::size_t) {
                                  f.past.reset();
                                  return true;
                              }),
                  p4::errc::in_use, "was reset or moved by a callback");
    CHECK(f.past.position() == 0);
    CHECK(p4::prefill(f.m, f.past, f.w, f.prompt));
}

TEST_CASE("model/reentry: an observer sees a session that is in use") {
    busy_fixture f;
    std::vector<float> out(f.prompt.size() * f.m.shape().vocab());
    const p4::rows_view<float> rows{out.data(), f.prompt.size(), f.m.shape().vocab()};
    bool asked = false;
    REQUIRE(p4::logits_all(f.m, f.past, f.w, f.prompt, rows, [&](std::size_t, std::size_t, p4::rows_view<const float>) {
        if (std::exchange(asked, true)) return;
        check_refused(p4::step(f.m, f.past, f.other_w, 1), p4::errc::in_use, "the session is in use");
        CHECK(f.other.copy_from(f.past));  // as it was before the pass
        CHECK(f.other.position() == 0);
    }));
    CHECK(asked);
}

TEST_CASE("model/reentry: the callbacks of generate") {
    busy_fixture f;
    p4::generation_options options;
    options.sampling.temperature = 0.0f;
    options.max_tokens = 6;
    const auto run = [&](auto&& sink, auto&& on_prompt) {
        f.past.reset();
        return p4::generate(f.m, f.past, f.w, nullptr, f.prompt, options, sink, on_prompt);
    };
    std::vector<std::int32_t> want;
    const auto nothing = [](std::size_t, std::size_t) {};
    REQUIRE(run([&](const p4::generation_event& e) { return want.push_back(e.token), true; }, nothing));
    REQUIRE(want.size() == 6);

    std::vector<std::int32_t> have;
    const auto keep = [&](const p4::generation_event& e) { return have.push_back(e.token), true; };
    REQUIRE(run(keep, [&](std::size_t, std::size_t) { check_refused(p4::step(f.m, f.other, f.w, 1), p4::errc::in_use, "workspace"); }));
    CHECK(have == want);

    // A sink is called between two tokens: the workspace is free, for other sessions.
    have.clear();
    REQUIRE(run([&](const p4::generation_event& e) { return have.push_back(e.token), p4::step(f.m, f.other, f.w, 1).has_value(); }, nothing));
    CHECK(have == want);
    check_refused(run([&](const p4::generation_event&) { return p4::step(f.m, f.past, f.other_w, 1).has_value(); }, nothing), p4::errc::in_use,
                  "the sink has moved the session");
}

TEST_CASE("model/reentry: an executor that calls again is refused") {
    struct reentrant {
        busy_fixture* f = nullptr;
        int refused = 0;
        [[nodiscard]] std::size_t concurrency() const { return 2; }
        void run(std::size_t count, std::size_t, void (*body)(void*, std::size_t, std::size_t), void* context) {
            const auto again = p4::step(f->m, f->past, f->other_w, 1);
            if (!again && again.error().code() == p4::errc::in_use) ++refused;
            body(context, 0, count);
        }
    } threads;
    busy_fixture f;
    threads.f = &f;
    auto w = *p4::workspace<>::create(f.m, {.chunk = 4, .threads = threads});
    const std::vector<float> want = f.want();
    const auto logits = p4::prefill(f.m, f.past, w, f.prompt);
    REQUIRE(logits);
    CHECK(threads.refused > 0);
    CHECK(std::memcmp(want.data(), logits->data(), logits->size_bytes()) == 0);
}

#if defined(__cpp_exceptions)
TEST_CASE("model/reentry: an executor that throws leaves the session as it was before the chunk, whatever piece of work it was") {
    struct failing {
        int left = 1 << 30;
        [[nodiscard]] std::size_t concurrency() const { return 2; }
        void run(std::size_t count, std::size_t, void (*body)(void*, std::size_t, std::size_t), void* context) {
            if (left-- == 0) throw std::runtime_error("the job system is going down");
            body(context, 0, count);
        }
    } threads;
    busy_fixture f;
    auto w = *p4::workspace<>::create(f.m, {.chunk = 4, .threads = threads});
    const std::vector<float> want = f.want();
    REQUIRE(p4::prefill(f.m, f.past, w, f.prompt));
    const int jobs = (1 << 30) - threads.left;
    REQUIRE(jobs > 10);
    for (int at = 0; at < jobs; at += 1 + jobs / 40) {
        CAPTURE(at);
        f.past.reset();
        threads.left = at;
        CHECK_THROWS_AS((void)p4::prefill(f.m, f.past, w, f.prompt), std::runtime_error);
        threads.left = 1 << 30;
        CHECK(f.past.position() % 4 == 0);
        const auto logits = p4::prefill(f.m, f.past, w, span(f.prompt).subspan(f.past.position()));
        REQUIRE(logits);
        CHECK(std::memcmp(want.data(), logits->data(), logits->size_bytes()) == 0);
    }
}

TEST_CASE("model/reentry: callbacks that throw leave a whole session, where position() says") {
    busy_fixture f;
    const std::vector<float> want = f.want();
    CHECK_THROWS_AS((void)p4::prefill(f.m, f.past, f.w, f.prompt,
                                      [](std::size_t read, std::size_t) { return read < 8 ? true : throw std::runtime_error("enough"); }),
                    std::runtime_error);
    CHECK(f.past.position() == 8);
    const auto logits = p4::prefill(f.m, f.past, f.w, span(f.prompt).subspan(8));
    REQUIRE(logits);
    CHECK(std::memcmp(want.data(), logits->data(), logits->size_bytes()) == 0);

    p4::generation_options options;
    options.max_tokens = 6;
    f.past.reset();
    auto thrower = [n = 0](const p4::generation_event&) mutable { return ++n < 3 ? true : throw std::runtime_error("enough"); };
    CHECK_THROWS_AS((void)p4::generate(f.m, f.past, f.w, nullptr, f.prompt, options, thrower), std::runtime_error);
    CHECK(f.past.position() == f.prompt.size() + 2);
    CHECK(p4::step(f.m, f.past, f.w, 1));
}
#endif
