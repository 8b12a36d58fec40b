/// Threads: the pool runs every item once, and a model computes the same bits on any number of threads.
#include "golden.hpp"

#include <phi4flash/core/thread_pool.hpp>
#include <phi4flash/model/forward.hpp>

#include <atomic>

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

TEST_CASE("a pool of too many threads is refused") {
    const auto pool = p4::thread_pool::create(100000);
    REQUIRE(!pool);
    CHECK(pool.error().code() == p4::errc::invalid_argument);
}

TEST_CASE("logits are the same bits on any number of threads, token by token and in chunks") {
    const std::filesystem::path folder = golden::folder_of("bf16-12l-sharded");
    const auto checkpoint = p4::checkpoint::open(folder);
    REQUIRE_MESSAGE(checkpoint, checkpoint.error().message());
    const auto m = p4::model<>::bind(*checkpoint);
    REQUIRE(m);
    const std::size_t vocab = m->shape().vocab();
    const golden::prompt prompt = golden::read_prompts(folder).back();
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
    const std::filesystem::path folder = golden::folder_of("f32-8l");
    const auto checkpoint = p4::checkpoint::open(folder);
    REQUIRE(checkpoint);
    const auto m = p4::model<>::bind(*checkpoint);
    REQUIRE(m);
    const std::vector<golden::prompt> prompts = golden::read_prompts(folder);
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
