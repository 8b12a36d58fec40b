/// Layers used alone, each against a naive f64 twin: LayerNorm, linear, MLP, gated memory unit, Mamba-1.
#include "support/test_support.hpp"

#include <phi4flash/core/thread_pool.hpp>
#include <phi4flash/layers/gated_memory.hpp>
#include <phi4flash/layers/mamba.hpp>
#include <phi4flash/layers/mlp.hpp>

#include <algorithm>

namespace p4 = phi4flash;

namespace {

using phi4flash_test::buffer;
using phi4flash_test::random_buffer;
using row = std::vector<double>;

double silu(double x) { return x / (1.0 + std::exp(-x)); }

p4::matrix_view view(const buffer<float>& b, std::size_t rows) { return {b.bytes(), rows, b.size() / rows, p4::dtype::f32}; }

row multiply(const buffer<float>& w, const row& x) {
    row y(w.size() / x.size());
    for (std::size_t r = 0; r < y.size(); ++r) {
        for (std::size_t c = 0; c < x.size(); ++c) y[r] += static_cast<double>(w[r * x.size() + c]) * x[c];
    }
    return y;
}

row wide(const float* x, std::size_t n) { return row(x, x + n); }

double worst(const float* have, const row& want) {
    double most = 0.0;
    for (std::size_t i = 0; i < want.size(); ++i) most = std::max(most, std::fabs(static_cast<double>(have[i]) - want[i]));
    return most;
}

/// Calls `body(compute)` for every target that runs here.
template <class Body>
void for_each_compute(Body&& body) {
    std::vector<std::byte> arranged(64 * p4::arranged_bytes(512));  // for up to 64 tokens
    for (const p4::kernel_target& target : p4::kernel_targets()) {
        if (!target.request()) continue;
        CAPTURE(std::string(target.kernels->name));
        body(p4::compute{target.kernels, {}, arranged.data()});
    }
}

/// A workspace of type W in memory of its own.
template <class W, class... Arguments>
struct owned {
    p4::memory_block block;
    W scratch;
    explicit owned(Arguments... arguments) {
        p4::arena counting;
        (void)W(counting, arguments...);
        block = *p4::memory_block::allocate(counting.bytes(), "test");
        std::ranges::fill(block.bytes(), std::byte{0});
        p4::arena memory(block.bytes().data());
        scratch = W(memory, arguments...);
    }
};

}  // namespace

TEST_CASE("a layer norm normalizes by mean and variance, not by the root of the mean square") {
    for_each_compute([](const p4::compute& with) {
        phi4flash_test::generator random{1};
        const std::size_t width = 37;
        auto x = random_buffer<float>(random, 3 * width, 0, 4.0f, 6.0f);  // far from mean 0
        auto weight = random_buffer<float>(random, width, 0);
        auto bias = random_buffer<float>(random, width, 0);
        const buffer<float> before = x;
        const p4::rows_view<float> rows{x.data(), 3, width};
        p4::layer_norm{weight.data(), bias.data(), width, 1e-5f}(with, rows, rows);
        for (std::size_t t = 0; t < 3; ++t) {
            const row r = wide(before.data() + t * width, width);
            double mean = 0.0;
            double variance = 0.0;
            for (const double v : r) mean += v / static_cast<double>(width);
            for (const double v : r) variance += (v - mean) * (v - mean) / static_cast<double>(width);
            row want(width);
            for (std::size_t i = 0; i < width; ++i)
                want[i] = (r[i] - mean) / std::sqrt(variance + 1e-5) * static_cast<double>(weight[i]) + static_cast<double>(bias[i]);
            CHECK(worst(rows[t], want) < 1e-5);
        }
    });
}

TEST_CASE("an mlp takes its gate from the first half of fc1") {
    for_each_compute([](const p4::compute& with) {
        phi4flash_test::generator random{2};
        const std::size_t d_model = 19;
        const std::size_t d_ff = 45;
        const auto fc1 = random_buffer<float>(random, 2 * d_ff * d_model, 0);
        const auto fc2 = random_buffer<float>(random, d_model * d_ff, 0);
        const owned<p4::mlp::workspace, std::size_t, std::size_t> w(5, d_ff);
        for (const std::size_t tokens : {1u, 5u}) {
            const auto x = random_buffer<float>(random, tokens * d_model, 0);
            std::vector<float> y(tokens * d_model);
            p4::mlp{{view(fc1, 2 * d_ff)}, {view(fc2, d_model)}}(with, w.scratch, {x.data(), tokens, d_model}, {y.data(), tokens, d_model});
            for (std::size_t t = 0; t < tokens; ++t) {
                const row hidden = multiply(fc1, wide(x.data() + t * d_model, d_model));
                row gated(d_ff);
                for (std::size_t i = 0; i < d_ff; ++i) gated[i] = hidden[d_ff + i] * silu(hidden[i]);
                CHECK(worst(y.data() + t * d_model, multiply(fc2, gated)) < 1e-4);
            }
        }
    });
}

TEST_CASE("a gated memory unit gates the memory of the same token") {
    for_each_compute([](const p4::compute& with) {
        phi4flash_test::generator random{3};
        const std::size_t d_model = 12;
        const std::size_t d_inner = 29;
        const std::size_t tokens = 4;
        const auto in = random_buffer<float>(random, d_inner * d_model, 0);
        const auto out = random_buffer<float>(random, d_model * d_inner, 0);
        const auto x = random_buffer<float>(random, tokens * d_model, 0);
        const auto memory = random_buffer<float>(random, tokens * d_inner, 0);
        const owned<p4::gated_memory::workspace, std::size_t, std::size_t> w(tokens, d_inner);
        std::vector<float> y(tokens * d_model);
        p4::gated_memory{{view(in, d_inner)}, {view(out, d_model)}}(with, w.scratch, {x.data(), tokens, d_model},
                                                                  {memory.data(), tokens, d_inner}, {y.data(), tokens, d_model});
        for (std::size_t t = 0; t < tokens; ++t) {
            row gate = multiply(in, wide(x.data() + t * d_model, d_model));
            for (std::size_t i = 0; i < d_inner; ++i) gate[i] = silu(gate[i]) * static_cast<double>(memory[t * d_inner + i]);
            CHECK(worst(y.data() + t * d_model, multiply(out, gate)) < 2e-5);
        }
    });
}

TEST_CASE("mamba equals its f64 twin, and its memory is taken before the gate and with the D term") {
    const std::size_t d_model = 10;
    const std::size_t d_inner = 37;  // not a multiple of a block of channels
    const std::size_t d_state = 3;
    const std::size_t d_conv = 4;
    const std::size_t dt_rank = 5;
    const std::size_t tokens = 17;
    phi4flash_test::generator random{4};
    const auto in = random_buffer<float>(random, 2 * d_inner * d_model, 0);
    const auto conv = random_buffer<float>(random, d_conv * d_inner, 0);  // [d_conv, d_inner]
    const auto conv_bias = random_buffer<float>(random, d_inner, 0);
    const auto x_proj = random_buffer<float>(random, (dt_rank + 2 * d_state) * d_inner, 0, -0.3f, 0.3f);
    const auto dt_proj = random_buffer<float>(random, d_inner * dt_rank, 0);
    const auto dt_bias = random_buffer<float>(random, d_inner, 0, -3.0f, 1.0f);
    const auto a = random_buffer<float>(random, d_inner * d_state, 0, -4.0f, -0.1f);
    const auto d = random_buffer<float>(random, d_inner, 0);
    const auto out = random_buffer<float>(random, d_model * d_inner, 0);
    const auto x = random_buffer<float>(random, tokens * d_model, 0);
    std::vector<float> a_log2e(p4::blocked_size(d_inner, d_state));
    for (std::size_t c = 0; c < d_inner; ++c) {
        for (std::size_t n = 0; n < d_state; ++n)
            a_log2e[p4::blocked_index(c, n, d_state)] = static_cast<float>(static_cast<double>(a[c * d_state + n]) * 1.4426950408889634);
    }

    std::vector<row> want_memory;
    std::vector<row> want;
    {
        std::vector<row> inputs(d_conv - 1, row(d_inner));
        std::vector<row> h(d_inner, row(d_state));
        for (std::size_t t = 0; t < tokens; ++t) {
            const row uz = multiply(in, wide(x.data() + t * d_model, d_model));
            inputs.emplace_back(uz.begin(), uz.begin() + static_cast<std::ptrdiff_t>(d_inner));
            row u(d_inner);
            for (std::size_t c = 0; c < d_inner; ++c) {
                double sum = static_cast<double>(conv_bias[c]);
                for (std::size_t j = 0; j < d_conv; ++j) sum += static_cast<double>(conv[j * d_inner + c]) * inputs[t + j][c];
                u[c] = silu(sum);
            }
            const row dbc = multiply(x_proj, u);
            const row low = multiply(dt_proj, row(dbc.begin(), dbc.begin() + static_cast<std::ptrdiff_t>(dt_rank)));
            row memory(d_inner);
            row gated(d_inner);
            for (std::size_t c = 0; c < d_inner; ++c) {
                const double dt = std::log1p(std::exp(low[c] + static_cast<double>(dt_bias[c])));
                memory[c] = static_cast<double>(d[c]) * u[c];
                for (std::size_t n = 0; n < d_state; ++n) {
                    h[c][n] = std::exp(dt * static_cast<double>(a[c * d_state + n])) * h[c][n] + dt * u[c] * dbc[dt_rank + n];
                    memory[c] += dbc[dt_rank + d_state + n] * h[c][n];
                }
                gated[c] = memory[c] * silu(uz[d_inner + c]);
            }
            want_memory.push_back(memory);
            want.push_back(multiply(out, gated));
        }
    }

#if PHI4FLASH_THREADS
    auto pool = p4::thread_pool::create(3);
    REQUIRE(pool);
    const p4::executor_ref executors[] = {{}, *pool};
#else
    const p4::executor_ref executors[] = {{}};
#endif
    for_each_compute([&](p4::compute with) {
        for (const p4::executor_ref& threads : executors) {
            with.threads = threads;
            for (const std::size_t chunk : {1u, 2u, 3u, 5u, 17u}) {
                CAPTURE(chunk);
                p4::mamba layer;
                layer.in_proj = {view(in, 2 * d_inner)};
                layer.conv_weight = conv.data();
                layer.conv_bias = conv_bias.data();
                layer.x_proj = {view(x_proj, dt_rank + 2 * d_state)};
                layer.dt_proj = {view(dt_proj, d_inner), dt_bias.data()};
                layer.a_log2e = a_log2e.data();
                layer.d = d.data();
                layer.out_proj = {view(out, d_model)};
                layer.d_conv = d_conv;
                layer.d_state = d_state;
                const owned<p4::mamba::workspace, std::size_t, std::size_t, std::size_t, std::size_t> w(chunk, d_inner, d_state, dt_rank);
                const owned<p4::mamba::state, std::size_t, std::size_t, std::size_t> past(d_inner, d_state, d_conv);
                double worst_output = 0.0;
                double worst_memory = 0.0;
                for (std::size_t first = 0; first < tokens; first += chunk) {
                    const std::size_t count = std::min(chunk, tokens - first);
                    std::vector<float> y(count * d_model);
                    const p4::rows_view<const float> memory =
                        layer(with, w.scratch, past.scratch, {x.data() + first * d_model, count, d_model}, {y.data(), count, d_model});
                    for (std::size_t t = 0; t < count; ++t) {
                        worst_output = std::max(worst_output, worst(y.data() + t * d_model, want[first + t]));
                        worst_memory = std::max(worst_memory, worst(memory[t], want_memory[first + t]));
                    }
                }
                CHECK(worst_output < 5e-5);
                CHECK(worst_memory < 2e-5);
            }
        }
    });
}
