/// The whole model against ground truth, on every target that this CPU can run, with static and run-time extents: step by
/// step, one-shot, and in chunks of 1 to 40, 80, 160 and 320 tokens.
#include "golden.hpp"

#include <phi4flash/model/forward.hpp>

#include <algorithm>
#include <cmath>

namespace p4 = phi4flash;

namespace {

constexpr float logit_tolerance = 1e-4f;

constexpr p4::sambay_shape f32_8l{64, 8, 128, 4, 2, 256, 8, 128, 4, 4, 4};
constexpr p4::sambay_shape bf16_12l{160, 12, 224, 10, 2, 300, 5, 320, 16, 4, 10};
constexpr p4::sambay_shape f16_8l{256, 8, 352, 8, 4, 512, 16, 512, 16, 4, 16};

float worst_difference(const float* have, const float* want, std::size_t n) {
    float worst = 0.0f;
    for (std::size_t i = 0; i < n; ++i) worst = std::max(worst, std::isnan(have[i]) ? INFINITY : std::fabs(have[i] - want[i]));
    return worst;
}

template <p4::sambay_shape Shape>
struct run {
    const p4::model<Shape>& m;
    const golden::prompt& prompt;
    p4::session<Shape, float> past;
    p4::workspace<Shape, float> work;
    std::size_t vocab;

    run(const p4::model<Shape>& model, const golden::prompt& p, const p4::kernel_table& kernels, std::size_t chunk)
        : m(model), prompt(p), past(*p4::session<Shape, float>::create(model, p.tokens.size() + p.greedy.size())),
          work(*p4::workspace<Shape, float>::create(model, {.chunk = chunk, .kernels = &kernels, .threads = {}})), vocab(model.shape().vocab()) {}

    float step_by_step() {
        float worst = 0.0f;
        for (std::size_t t = 0; t < prompt.tokens.size(); ++t) {
            const auto logits = p4::step(m, past, work, prompt.tokens[t]);
            REQUIRE(logits);
            worst = std::max(worst, worst_difference(logits->data(), prompt.logits.data() + t * vocab, vocab));
        }
        return worst;
    }

    float every_position() {
        std::vector<float> out(prompt.tokens.size() * vocab);
        const auto ok = p4::logits_all(m, past, work, prompt.tokens, p4::rows_view<float>{out.data(), prompt.tokens.size(), vocab});
        REQUIRE(ok);
        return worst_difference(out.data(), prompt.logits.data(), out.size());
    }

    float last_position() {
        const auto logits = p4::prefill(m, past, work, prompt.tokens);
        REQUIRE(logits);
        return worst_difference(logits->data(), prompt.logits.data() + (prompt.tokens.size() - 1) * vocab, vocab);
    }

    std::vector<std::int32_t> greedy(std::size_t n) {
        std::vector<std::int32_t> out;
        auto logits = p4::prefill(m, past, work, prompt.tokens);
        while (true) {
            REQUIRE(logits);
            out.push_back(static_cast<std::int32_t>(std::max_element(logits->begin(), logits->end()) - logits->begin()));
            if (out.size() == n) return out;
            logits = p4::step(m, past, work, out.back());
        }
    }
};

template <p4::sambay_shape Shape>
void check_against_golden(const std::string& name) {
    if (golden::place_of(name).empty()) {
        MESSAGE("skipped: set PHI4FLASH_SHARED to check " << name);
        return;
    }
    const auto checkpoint = golden::open(name);
    REQUIRE_MESSAGE(checkpoint, checkpoint.error().message());
    const auto bound = p4::model<Shape>::bind(*checkpoint);
    REQUIRE_MESSAGE(bound, bound.error().message());
    const std::vector<golden::prompt> prompts = golden::read_prompts(name);
    for (const p4::kernel_target& target : p4::kernel_targets()) {
        if (!target.request()) continue;
        const p4::kernel_table& kernels = *target.kernels;
        float worst = 0.0f;
        for (std::size_t j = 0; j < prompts.size(); ++j) {
            CAPTURE(std::string(kernels.name));
            CAPTURE(j);
            const golden::prompt& p = prompts[j];
            const float steps = run<Shape>(*bound, p, kernels, 1).step_by_step();
            CHECK(steps <= logit_tolerance);
            worst = std::max(worst, steps);
            for (std::size_t chunk = 1; chunk <= 512; chunk += chunk < 40 ? 1 : chunk) {
                CAPTURE(chunk);
                const float all = run<Shape>(*bound, p, kernels, chunk).every_position();
                CHECK(all <= logit_tolerance);
                const float last = run<Shape>(*bound, p, kernels, chunk).last_position();
                CHECK(last <= logit_tolerance);
                worst = std::max({worst, all, last});
            }
            CHECK(run<Shape>(*bound, p, kernels, 64).greedy(p.greedy.size()) == p.greedy);
        }
        MESSAGE(name << " on " << std::string(kernels.name) << ": worst logit difference " << worst);
    }
}

}  // namespace

TEST_CASE("logits and greedy text equal the golden ones: f32, run-time extents") { check_against_golden<p4::any_sambay>("f32-8l"); }
TEST_CASE("logits and greedy text equal the golden ones: f32, static extents") { check_against_golden<f32_8l>("f32-8l"); }
TEST_CASE("logits and greedy text equal the golden ones: bf16 in shards, run-time extents") {
    check_against_golden<p4::any_sambay>("bf16-12l-sharded");
}
TEST_CASE("logits and greedy text equal the golden ones: bf16 in shards, static extents") { check_against_golden<bf16_12l>("bf16-12l-sharded"); }
TEST_CASE("logits and greedy text equal the golden ones: f16, run-time extents") { check_against_golden<p4::any_sambay>("f16-8l-wide"); }
TEST_CASE("logits and greedy text equal the golden ones: f16, static extents") { check_against_golden<f16_8l>("f16-8l-wide"); }

TEST_CASE("the residual stream equals the golden one after every layer") {
    const auto checkpoint = golden::open("f32-8l");
    REQUIRE_MESSAGE(checkpoint, checkpoint.error().message());
    const auto bound = p4::model<>::bind(*checkpoint);
    REQUIRE(bound);
    const std::size_t d_model = bound->shape().d_model();
    const std::size_t vocab = bound->shape().vocab();
    for (const golden::prompt& p : golden::read_prompts("f32-8l")) {
        auto past = *p4::session<p4::any_sambay, float>::create(*bound, p.tokens.size());
        auto work = *p4::workspace<p4::any_sambay, float>::create(*bound);
        std::vector<float> out(p.tokens.size() * vocab);
        std::size_t layers_seen = 0;
        const auto ok = p4::logits_all(*bound, past, work, p.tokens, p4::rows_view<float>{out.data(), p.tokens.size(), vocab},
                                       [&](std::size_t first, std::size_t layer, p4::rows_view<const float> rows) {
                                           CAPTURE(layer);
                                           for (std::size_t t = 0; t < rows.count; ++t)
                                               CHECK(worst_difference(rows[t], p.layers[layer].data() + (first + t) * d_model, d_model) <= 1e-4f);
                                           ++layers_seen;
                                       });
        CHECK(ok);
        CHECK(layers_seen == bound->plan().n_layers());
    }
}
