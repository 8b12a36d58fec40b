/// Kernels by themselves, on one thread: products with weights too large for any cache as bytes a second beside a plain read of as many bytes,
/// for one token and for several (pass), products with weights that stay there as multiplications a second (matmul), and attention over a
/// long past. PHI4FLASH_BENCHMARK_TARGET names a target other than the best.
///
///     benchmark_kernels --benchmark_filter=pass/Q4_DENSE --benchmark_repetitions=5
#include <phi4flash/phi4flash.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace {

namespace p4 = phi4flash;

/// Weights too large for any cache, of the released model's width.
constexpr std::size_t cols = 2560;
constexpr std::size_t rows = 32768;

/// On a cache line's start, as weights and activations lie in a model: loads that straddle lines would be measured otherwise.
p4::memory_block room_for(std::size_t bytes) {
    auto block = p4::memory_block::allocate(bytes, "benchmark", p4::page_size::huge);
    if (!block) {
        std::fprintf(stderr, "%s\n", block.error().message());
        std::exit(1);
    }
    return std::move(*block);
}

const p4::kernel_table& kernels_here() {
    static const p4::kernel_table& kernels = [&]() -> const p4::kernel_table& {
        const char* const name = std::getenv("PHI4FLASH_BENCHMARK_TARGET");
        const auto found = p4::kernels_named(name == nullptr ? "" : name);
        if (found) return **found;
        std::fprintf(stderr, "%s\n", found.error().message());
        std::exit(1);
    }();
    return kernels;
}

p4::memory_block random_weights(p4::dtype type, std::size_t n_rows) {
    p4::memory_block block = room_for(p4::matrix_bytes(type, n_rows, cols));
    const std::span<std::byte> w = block.bytes();
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> eight(p4::packed_rows * cols);
    for (float& x : eight) x = normal(random);
    const std::size_t step = p4::matrix_bytes(type, p4::packed_rows, cols);
    // The numbers do not change the speed: eight rows, again and again.
    for (std::size_t at = 0; at < w.size(); at += step)
        p4::detail::narrow_rows(kernels_here(), eight.data(), p4::packed_rows, cols, type, w.data() + at);
    return block;
}

std::vector<float> random_floats(std::size_t n) {
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    std::vector<float> x(n);
    for (float& v : x) v = normal(random);
    return x;
}

void read(benchmark::State& state) {
    const p4::memory_block block = random_weights(p4::dtype::bf16, rows);
    const std::span<const std::byte> w = block.bytes();
    const p4::kernel_table& kernels = kernels_here();
    for (auto _ : state) benchmark::DoNotOptimize(kernels.read(w.data(), w.size()));
    state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * w.size()));
}

/// Weights go by once for so many tokens.
void pass(benchmark::State& state, p4::dtype type) {
    const auto tokens = static_cast<std::size_t>(state.range(0));
    const p4::memory_block block = random_weights(type, rows);
    const std::span<const std::byte> w = block.bytes();
    const auto x = random_floats(tokens * cols);
    const p4::linear_kernels& kernels = kernels_here().linear[static_cast<std::size_t>(type)];
    const p4::memory_block scratch = room_for(tokens * p4::arranged_bytes(cols));
    std::vector<float> y(tokens * rows);
    for (auto _ : state) {
        const std::byte* arranged = kernels.arrange(x.data(), cols, cols, 0, tokens, tokens, scratch.bytes().data());
        if (tokens == 1) {
            kernels.matvec(w.data(), rows, cols, arranged, nullptr, y.data());
        } else {
            kernels.matmul(w.data(), rows, cols, arranged, tokens, nullptr, y.data(), rows);
        }
        benchmark::DoNotOptimize(y.data());
    }
    state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * w.size()));
    const double products = static_cast<double>(rows * cols * tokens);
    state.counters["MAC/s"] = benchmark::Counter(products, benchmark::Counter::kIsIterationInvariantRate);
}

void matmul(benchmark::State& state, p4::dtype type) {
    const std::size_t n_rows = 512;
    const auto tokens = static_cast<std::size_t>(state.range(0));
    const p4::memory_block w = random_weights(type, n_rows);
    const auto x = random_floats(tokens * cols);
    const p4::linear_kernels& kernels = kernels_here().linear[static_cast<std::size_t>(type)];
    const p4::memory_block scratch = room_for(tokens * p4::arranged_bytes(cols));
    std::vector<float> y(tokens * n_rows);
    for (auto _ : state) {
        const std::byte* input = kernels.arrange(x.data(), cols, cols, 0, tokens, tokens, scratch.bytes().data());
        kernels.matmul(w.bytes().data(), n_rows, cols, input, tokens, nullptr, y.data(), n_rows);
        benchmark::DoNotOptimize(y.data());
    }
    const double products = static_cast<double>(n_rows * cols * tokens);
    state.counters["MAC/s"] = benchmark::Counter(products, benchmark::Counter::kIsIterationInvariantRate);
}

/// Tokens of the released model with `depth` keys, each other's included: one token sees all, as in the full layer; several see a window.
template <class Kv>
void attend(benchmark::State& state) {
    const auto depth = static_cast<std::size_t>(state.range(0));
    const auto tokens = static_cast<std::size_t>(state.range(1));
    const p4::head_layout heads{.n_heads = 40, .n_kv_heads = 20, .d_head = 64, .k_per_group = 2};
    const auto lay_out = [&](p4::arena& arena, p4::rows_view<float>& q, p4::rows_view<float>& out) {
        q = p4::take_rows(arena, tokens, heads.q_width());
        out = p4::take_rows(arena, tokens, heads.n_heads * heads.group_width());
        return p4::kv_block<Kv>(arena, heads, depth);
    };
    p4::rows_view<float> q;
    p4::rows_view<float> out;
    p4::arena counting;
    (void)lay_out(counting, q, out);
    const p4::memory_block memory = room_for(counting.bytes());
    p4::arena arena(memory.bytes().data());
    const p4::kv_block<Kv> block = lay_out(arena, q, out);
    p4::compute with;
    with.kernels = &kernels_here();
    const auto k = random_floats(heads.kv_width());
    for (std::size_t t = 0; t < depth; ++t) block.write(with, heads, {k.data(), 1, k.size()}, {k.data(), 1, k.size()}, t);

    for (std::size_t t = 0; t < tokens; ++t) std::ranges::copy(random_floats(heads.q_width()), q[t]);
    p4::attention_args args{};
    args.q = q.data;
    args.q_stride = q.stride;
    args.out = out.data;
    args.out_stride = out.stride;
    args.tokens = tokens;
    args.first_position = depth - tokens;
    args.d_head = heads.d_head;
    args.k_per_group = heads.k_per_group;
    args.queries_per_key = heads.queries_per_key();
    args.window = tokens == 1 ? static_cast<std::size_t>(-1) : p4::phi4_mini_flash.window;
    args.scale = 0.125f;
    const p4::kv_segment all = block.segment(heads, 0, 0, depth);
    p4::arena of_block;
    (void)p4::kv_block<Kv>(of_block, heads, depth);
    const auto kernel = with.kernels->attention[static_cast<std::size_t>(p4::kv_format_of<Kv>)];
    for (auto _ : state) {
        for (std::size_t g = 0; g < heads.groups(); ++g) kernel(args, g, 0, tokens, &all, 1);
        benchmark::DoNotOptimize(out.data);
    }
    if (tokens == 1) {
        state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * of_block.bytes()));
    } else {
        const double products = static_cast<double>(tokens * args.window * heads.n_heads * (heads.d_head + heads.group_width()));
        state.counters["MAC/s"] = benchmark::Counter(products, benchmark::Counter::kIsIterationInvariantRate);
    }
}

const bool registered = [] {
    for (std::size_t i = 0; i < p4::dtype_count; ++i) {
        const auto type = static_cast<p4::dtype>(i);
        const std::string name = p4::name_of(type);
        auto* const passes = benchmark::RegisterBenchmark(("pass/" + name).c_str(), [type](benchmark::State& s) { pass(s, type); })->UseRealTime();
        for (const int tokens : {1, 2, 4, 8, 16, 32}) passes->Arg(tokens);
        benchmark::RegisterBenchmark(("matmul/" + name).c_str(), [type](benchmark::State& s) { matmul(s, type); })
            ->Arg(4)
            ->Arg(16)
            ->Arg(32)
            ->Arg(64)
            ->Arg(256)
            ->UseRealTime();
    }
    return true;
}();

BENCHMARK(read)->UseRealTime();
BENCHMARK(attend<p4::bf16>)->Args({4096, 1})->Args({16384, 1})->Args({1024, 128})->UseRealTime();
BENCHMARK(attend<p4::kv_int8>)->Args({4096, 1})->Args({16384, 1})->Args({1024, 128})->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
