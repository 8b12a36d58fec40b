/// Threads: the pool runs every item once, and a model computes the same bits on any number of threads.
#include "golden.hpp"

#include <phi4flash/core/thread_pool.hpp>
#include <phi4flash/model/forward.hpp>

#if PHI4FLASH_THREADS
#include <atomic>
#include <chrono>
#include <thread>

namespace p4 = phi4flash;

TEST_CASE("a pool runs every item exactly once, whatever the count and grain") {
    for (const std::size_t threads : {1u, 2u, 5u}) {
        auto pool = p4::thread_pool::create(threads);
        REQUIRE(pool);
        CHECK(pool->concurrency() == threads);
        const p4::executor_ref on(*pool);
        for (std::size_t round = 0; round < 2000; ++round) {
            const std::size_t count = round % 97;
            std::atomic<std::uint32_t> seen[97] = {};
            on.parallel_for(count, round % 11, [&](std::size_t begin, std::size_t end) {
                for (std::size_t i = begin; i < end; ++i) seen[i].fetch_add(1);
            });
            bool once = true;
            for (std::size_t i = 0; i < 97; ++i) once = once && seen[i].load() == (i < count ? 1u : 0u);
            REQUIRE(once);
        }
    }
}

namespace {

constexpr p4::attendance::nanoseconds ms = 1'000'000;

/// Waits of `lost` every `period` from `now` on, until the worker is sent away or `most` have passed. Returns when.
p4::attendance::nanoseconds sent_away(p4::attendance& worker, p4::attendance::nanoseconds now, p4::attendance::nanoseconds period,
                                      p4::attendance::nanoseconds lost, p4::attendance::nanoseconds most) {
    for (const auto end = now + most; now < end;) {
        now += period;
        if (worker.waited(now, lost)) return now;
    }
    return -1;
}

}  // namespace

TEST_CASE("a worker for which everybody waits too long too often is sent away, and comes back later each time") {
    p4::attendance worker;
    auto now = sent_away(worker, 0, 8 * ms, 4 * ms, 100 * ms);  // half of the time
    REQUIRE(now > 0);
    for (auto absence = p4::attendance::first_absence; absence < p4::attendance::longest_absence; absence *= 2) {
        CHECK(!worker.is_back(now + absence - 1));
        now += absence;
        CHECK(worker.is_back(now));
        now = sent_away(worker, now, 8 * ms, 4 * ms, 50 * ms);
        REQUIRE(now > 0);
    }
    for (int i = 0; i < 3; ++i) {  // no longer than the longest
        CHECK(!worker.is_back(now + p4::attendance::longest_absence - 1));
        now += p4::attendance::longest_absence;
        CHECK(worker.is_back(now));
        now = sent_away(worker, now, 8 * ms, 4 * ms, 50 * ms);
        REQUIRE(now > 0);
    }
    CHECK(worker.is_back(now + p4::attendance::longest_absence));
    now += p4::attendance::longest_absence + 2 * p4::attendance::good_stay;  // it did well
    now = sent_away(worker, now, 8 * ms, 4 * ms, 100 * ms);
    REQUIRE(now > 0);
    CHECK(worker.is_back(now + p4::attendance::first_absence));
}

TEST_CASE("a worker for which everybody waits now and then stays") {
    p4::attendance ends_of_jobs;  // a tenth of the time
    CHECK(sent_away(ends_of_jobs, 0, 1 * ms, ms / 10, 60'000 * ms) == -1);
    p4::attendance hiccups;  // 5 ms, ten times a second
    CHECK(sent_away(hiccups, 0, 100 * ms, 5 * ms, 60'000 * ms) == -1);
    p4::attendance rare;  // one long pause after a long time of nothing
    CHECK(!rare.waited(100'000 * ms, 9 * ms));
}

TEST_CASE("a pool leaves out workers that keep everybody waiting, and takes them back") {
    auto pool = p4::thread_pool::create(3);
    REQUIRE(pool);
    const p4::executor_ref on(*pool);
    const std::thread::id caller = std::this_thread::get_id();
    std::atomic<std::uint32_t> elsewhere{0};
    std::atomic<std::uint32_t> items{0};
    const auto job = [&](bool slow_workers) {
        on.parallel_for(24, 1, [&](std::size_t begin, std::size_t end) {
            items += static_cast<std::uint32_t>(end - begin);
            if (std::this_thread::get_id() == caller) return;
            ++elsewhere;
            if (slow_workers) std::this_thread::sleep_for(std::chrono::milliseconds(50));  // more than the limit, however seldom one comes
        });
    };
    // Workers need not come at all for a job so short; those that do are sent away, until the caller is alone and gets jobs in one piece.
    const auto runs_alone = [&] {
        bool whole = false;
        on.parallel_for(24, 1, [&](std::size_t begin, std::size_t end) {
            if (std::this_thread::get_id() == caller) whole = end - begin == 24;
        });
        return whole;
    };
    std::uint32_t jobs = 0;
    bool alone = false;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!alone && std::chrono::steady_clock::now() < deadline) {
        job(true);
        ++jobs;
        alone = runs_alone();
    }
    CHECK(alone);
    CHECK(items == 24 * jobs);
    // They come back by themselves: sooner or later another thread takes part.
    elsewhere = 0;
    std::uint32_t more = 0;
    while (elsewhere == 0 && more < 10000) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        job(false);
        ++more;
    }
    CHECK(elsewhere > 0);
    CHECK(items == 24 * (jobs + more));
}

TEST_CASE("a pool of too many threads is refused") {
    const auto pool = p4::thread_pool::create(100000);
    REQUIRE(!pool);
    CHECK(pool.error().code() == p4::errc::invalid_argument);
}

TEST_CASE("logits are the same bits on any number of threads, token by token and in chunks") {
    const auto checkpoint = golden::open("bf16-12l-sharded");
    REQUIRE_MESSAGE(checkpoint, checkpoint.error().message());
    const auto m = p4::model<>::bind(*checkpoint);
    REQUIRE(m);
    const std::size_t vocab = m->shape().vocab();
    const golden::prompt prompt = golden::read_prompts("bf16-12l-sharded").back();
    for (const std::size_t chunk : {1u, 7u, 64u}) {
        std::vector<float> reference;
        for (const std::size_t threads : {1u, 2u, 3u, 8u}) {
            auto pool = p4::thread_pool::create(threads);
            REQUIRE(pool);
            auto past = *p4::session<>::create(*m, prompt.tokens.size());
            auto work = *p4::workspace<>::create(*m, {.chunk = chunk, .kernels = nullptr, .threads = *pool});
            std::vector<float> logits(prompt.tokens.size() * vocab);
            REQUIRE(p4::logits_all(*m, past, work, prompt.tokens, p4::rows_view<float>{logits.data(), prompt.tokens.size(), vocab}));
            if (reference.empty()) reference = logits;
            CHECK(std::memcmp(reference.data(), logits.data(), logits.size() * sizeof(float)) == 0);
        }
    }
}

TEST_CASE("sessions on one model run in threads of their own") {
    const auto checkpoint = golden::open("f32-8l");
    REQUIRE(checkpoint);
    const auto m = p4::model<>::bind(*checkpoint);
    REQUIRE(m);
    const std::vector<golden::prompt> prompts = golden::read_prompts("f32-8l");
    std::vector<std::thread> threads;
    std::atomic<int> equal{0};
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&, i] {
            const golden::prompt& prompt = prompts[static_cast<std::size_t>(i) % prompts.size()];
            auto past = p4::session<p4::any_sambay, float>::create(*m, prompt.tokens.size());
            auto work = p4::workspace<p4::any_sambay, float>::create(*m);
            const auto logits = p4::prefill(*m, *past, *work, prompt.tokens);
            const float* want = prompt.logits.data() + (prompt.tokens.size() - 1) * logits->size();
            bool close = true;
            for (std::size_t j = 0; j < logits->size(); ++j) close = close && std::abs((*logits)[j] - want[j]) < 5e-4f;
            equal += close;
        });
    }
    for (std::thread& t : threads) t.join();
    CHECK(equal == 4);
}
#endif
