/// Whole models with keys and values in 8 bits: near the golden logits, the same bits on any number of threads, and half the memory.
#include "golden.hpp"

#include <phi4flash/core/thread_pool.hpp>
#include <phi4flash/model/forward.hpp>

#include <algorithm>
#include <cmath>

namespace p4 = phi4flash;

namespace {

template <class Kv>
std::vector<float> logits_of(const p4::model<>& m, const golden::prompt& prompt, std::size_t chunk, p4::executor_ref threads = {}) {
    const std::size_t vocab = m.shape().vocab();
    auto past = p4::session<p4::any_sambay, Kv>::create(m, prompt.tokens.size());
    auto work = p4::workspace<p4::any_sambay, Kv>::create(m, {.chunk = chunk, .kernels = nullptr, .threads = threads});
    REQUIRE(past);
    REQUIRE(work);
    std::vector<float> out(prompt.tokens.size() * vocab);
    REQUIRE(p4::logits_all(m, *past, *work, prompt.tokens, p4::rows_view<float>{out.data(), prompt.tokens.size(), vocab}));
    return out;
}

double worst_difference(const std::vector<float>& a, const std::vector<float>& b) {
    double worst = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::isnan(a[i]) ? INFINITY : std::fabs(static_cast<double>(a[i] - b[i])));
    return worst;
}

double root_mean_square(const std::vector<float>& a, const std::vector<float>& b) {
    double sum = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i] - b[i]), 2.0);
    return std::sqrt(sum / static_cast<double>(a.size()));
}

/// A number of a head is off by at most 1/254 of the head's largest in 8 bits, by at most 1/512 of itself in bf16: logits may differ
/// about five times as much as with bf16, and at the worst place by a fiftieth of the largest logit.
void check_closeness(const std::string& name) {
    if (golden::place_of(name).empty()) {
        MESSAGE("skipped: set PHI4FLASH_SHARED to check " << name);
        return;
    }
    const auto files = golden::open(name);
    REQUIRE(files);
    const auto m = p4::model<>::bind(*files);
    REQUIRE(m);
    double worst_int8 = 0.0;
    double worst_bf16 = 0.0;
    double typical_int8 = 0.0;
    double typical_bf16 = 0.0;
    double size = 0.0;
    for (const golden::prompt& prompt : golden::read_prompts(name)) {
        for (const std::size_t chunk : {1u, 5u, 128u}) {
            const std::vector<float> int8 = logits_of<p4::kv_int8>(*m, prompt, chunk);
            const std::vector<float> bf16 = logits_of<p4::bf16>(*m, prompt, chunk);
            worst_int8 = std::max(worst_int8, worst_difference(int8, prompt.logits));
            worst_bf16 = std::max(worst_bf16, worst_difference(bf16, prompt.logits));
            typical_int8 = std::max(typical_int8, root_mean_square(int8, prompt.logits));
            typical_bf16 = std::max(typical_bf16, root_mean_square(bf16, prompt.logits));
        }
        for (const float x : prompt.logits) size = std::max(size, std::fabs(static_cast<double>(x)));
    }
    MESSAGE(name << ": worst logit difference with int8 K/V " << worst_int8 << " (root mean square " << typical_int8 << "), with bf16 "
                 << worst_bf16 << " (" << typical_bf16 << ")" << ", largest logit " << size);
    CHECK(worst_int8 <= 0.02 * size);
    CHECK(typical_int8 <= 8.0 * typical_bf16);
    CHECK(worst_int8 > 0.0);
}

}  // namespace

TEST_CASE("logits with 8-bit keys and values are near the golden ones: f32 checkpoint") { check_closeness("f32-8l"); }
TEST_CASE("logits with 8-bit keys and values are near the golden ones: bf16 checkpoint") { check_closeness("bf16-12l-sharded"); }
TEST_CASE("logits with 8-bit keys and values are near the golden ones: f16 checkpoint") { check_closeness("f16-8l-wide"); }

TEST_CASE("with 8-bit keys and values logits are the same bits on any number of threads, and alike at any chunk size") {
    const auto files = golden::open("bf16-12l-sharded");
    REQUIRE(files);
    const auto m = p4::model<>::bind(*files);
    REQUIRE(m);
    const golden::prompt prompt = golden::read_prompts("bf16-12l-sharded").back();
    const std::vector<float> steps = logits_of<p4::kv_int8>(*m, prompt, 1);
    for (const std::size_t chunk : {1u, 2u, 7u, 64u}) {
        const std::vector<float> alone = logits_of<p4::kv_int8>(*m, prompt, chunk);
        const double difference = worst_difference(alone, steps);
        MESSAGE("chunks of " << chunk << " against steps: " << difference);
        // Rounding of the products may take a number over the edge between two codes: a step of a single number, a fraction of what
        // all roundings together do to the logits (0.3, see above).
        CHECK(difference <= 0.1);
#if PHI4FLASH_THREADS
        for (const std::size_t threads : {2u, 3u}) {
            auto pool = p4::thread_pool::create(threads);
            REQUIRE(pool);
            const std::vector<float> together = logits_of<p4::kv_int8>(*m, prompt, chunk, *pool);
            CHECK(std::memcmp(alone.data(), together.data(), alone.size() * sizeof(float)) == 0);
        }
#endif
    }
}

TEST_CASE("a session with 8-bit keys and values says its size and takes half the memory of bf16") {
    const auto files = golden::open("bf16-12l-sharded");
    REQUIRE(files);
    const auto m = p4::model<>::bind(*files);
    REQUIRE(m);
    const auto grows = [&]<class Kv>(Kv) {
        return static_cast<double>(p4::session<p4::any_sambay, Kv>::bytes(*m, 5000) - p4::session<p4::any_sambay, Kv>::bytes(*m, 1000));
    };
    const double share = grows(p4::kv_int8{}) / grows(p4::bf16{});
    CHECK(share > 0.5);
    CHECK(share < 0.6);  // heads of 16 numbers; 0.516 for heads of 64
    const std::size_t bytes = p4::session<p4::any_sambay, p4::kv_int8>::bytes(*m, 40);
    auto memory = p4::memory_block::allocate(bytes, "test");
    REQUIRE(memory);
    CHECK((p4::session<p4::any_sambay, p4::kv_int8>::create_in(memory->bytes(), *m, 40)));
    CHECK((!p4::session<p4::any_sambay, p4::kv_int8>::create_in(memory->bytes().first(bytes - 1), *m, 40)));
}
