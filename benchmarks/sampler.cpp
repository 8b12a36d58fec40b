/// Choosing a token among the released model's 200,064, on one thread: microseconds, and the share of what a token takes without choosing.
///
///     benchmark_sampler --benchmark_repetitions=5
///     PHI4FLASH_TOKEN_MS=45 benchmark_sampler                # a token's time with the machine's best target: "% of 45 ms" in its rows
///     PHI4FLASH_TOKEN_MS=45,scalar=4000 benchmark_sampler    # and with another one, in its own
///
/// `flat`: logits from a normal distribution of width 1, where nearly half of the vocabulary is among the likeliest; `peaked`: of width 3, a few
/// far above the rest, as a model writes them.
#include <phi4flash/phi4flash.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace {

namespace p4 = phi4flash;

constexpr std::size_t vocab = p4::phi4_mini_flash.vocab;

std::vector<float> logits_of(bool flat) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0.0f, flat ? 1.0f : 3.0f);
    std::vector<float> x(vocab);
    for (float& v : x) v = normal(random);
    for (std::size_t i = 0; !flat && i < 20; ++i) x[random() % vocab] = 14.0f + normal(random);
    return x;
}

/// A token's time in milliseconds with that target, of PHI4FLASH_TOKEN_MS; 0: nobody has said it.
double token_milliseconds(std::string_view target) {
    const char* const said = std::getenv("PHI4FLASH_TOKEN_MS");
    std::string_view rest = said == nullptr ? "" : said;
    while (!rest.empty()) {
        const std::string_view part = rest.substr(0, rest.find(','));
        rest.remove_prefix((std::min)(rest.size(), part.size() + 1));
        const std::size_t equals = part.find('=');
        const bool named = equals != std::string_view::npos;
        if (target != (named ? part.substr(0, equals) : p4::best_kernels().name)) continue;
        return std::strtod(std::string(part.substr(named ? equals + 1 : 0)).c_str(), nullptr);
    }
    return 0.0;
}

void choose(benchmark::State& state, const p4::sampling_options& options, bool flat, const char* target, const p4::choosing_kernels& kernels) {
    auto sampler = p4::sampler::create(options, vocab, [](std::size_t id) { return id < vocab - 45; }, kernels);
    if (!sampler) return state.SkipWithError(sampler.error().message());
    const std::vector<float> logits = logits_of(flat);
    const auto start = std::chrono::steady_clock::now();
    for (auto _ : state) {
        const std::int32_t token = sampler->choose(logits);
        benchmark::DoNotOptimize(token);
        sampler->accept(token);
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const double token = token_milliseconds(target);
    if (token <= 0.0) return;
    char share[40];
    std::snprintf(share, sizeof share, "%% of %g ms", token);
    state.counters[share] = 100.0 * seconds * 1e3 / static_cast<double>(state.iterations()) / token;
}

const bool registered = [] {
    const auto with = [](auto change) {
        p4::sampling_options o;
        change(o);
        return o;
    };
    const std::pair<const char*, p4::sampling_options> ways[] = {
        {"defaults", {}},
        {"greedy", with([](auto& o) { o.temperature = 0.0f; })},
        {"top_p_0.1", with([](auto& o) { o.top_p = 0.1f; })},
        {"top_k_50", with([](auto& o) { o.top_k = 50; })},
        {"min_p_0.05", with([](auto& o) { o.min_p = 0.05f; })},
        {"penalty", with([](auto& o) { o.repetition_penalty = 1.1f; })},
    };
    for (const auto& [name, options] : ways) {
        for (const bool flat : {true, false}) {
            const std::string full = std::string(name) + (flat ? "/flat" : "/peaked");
            benchmark::RegisterBenchmark(full.c_str(), [options = options, flat](benchmark::State& s) {
                choose(s, options, flat, p4::best_kernels().name, p4::best_kernels().choosing);
            })->Unit(benchmark::kMicrosecond);
        }
    }
    for (const p4::kernel_target& target : p4::kernel_targets()) {
        if (!target.request()) continue;
        const std::string name = std::string("defaults/flat/") + target.kernels->name;
        benchmark::RegisterBenchmark(name.c_str(), [kernels = target.kernels](benchmark::State& s) {
            choose(s, {}, true, kernels->name, kernels->choosing);
        })->Unit(benchmark::kMicrosecond);
    }
    benchmark::RegisterBenchmark("defaults/flat/plain", [](benchmark::State& s) { choose(s, {}, true, "plain", p4::plain_choosing); })
        ->Unit(benchmark::kMicrosecond);
    return true;
}();

}  // namespace

BENCHMARK_MAIN();
