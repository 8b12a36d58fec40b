// The convolution and the selective scan against double precision, whole and in chunks.
#include "support/reference.hpp"
#include "support/test_support.hpp"

#include <phi4flash/kernels/dispatch.hpp>

#include <doctest/doctest.h>

using namespace phi4flash_test;
using phi4flash::channel_block;
using phi4flash::kernel_table;

namespace {

struct convolution_case {
    std::size_t tokens, d_inner, d_conv, offset;

    /// Runs tokens [0, tokens) in chunks of `chunk` and channels in two ranges cut at `channel_cut`.
    buffer<float> run(const kernel_table& kernels, const buffer<float>& x, const buffer<float>& weight, const buffer<float>& bias,
                      buffer<float>& state, std::size_t chunk, std::size_t channel_cut) const {
        const std::size_t x_stride = d_inner + 3 * offset;
        const std::size_t y_stride = d_inner + 2 * offset;
        buffer<float> y((tokens - 1) * y_stride + d_inner, offset, canary);
        for (std::size_t t = 0; t < tokens; t += chunk) {
            const phi4flash::convolution_args args{
                .x = x.data() + t * x_stride,
                .x_stride = x_stride,
                .weight = weight.data(),
                .bias = bias.data(),
                .state = state.data(),
                .kept = {.first = state.data(), .stride = 0, .count = 1},
                .y = y.data() + t * y_stride,
                .y_stride = y_stride,
                .tokens = tokens - t < chunk ? tokens - t : chunk,
                .d_inner = d_inner,
                .d_conv = d_conv,
            };
            kernels.convolution(args, channel_cut, d_inner);
            kernels.convolution(args, 0, channel_cut);
        }
        CHECK(gaps_untouched(y, d_inner, y_stride));
        return y;
    }

    void check(const kernel_table& kernels, generator& random, worst& error) const {
        CAPTURE(tokens);
        CAPTURE(d_inner);
        CAPTURE(d_conv);
        const std::size_t x_stride = d_inner + 3 * offset;
        const std::size_t y_stride = d_inner + 2 * offset;
        const std::size_t history = d_conv - 1;
        const auto x = random_rows(random, tokens, d_inner, x_stride, offset, nan_f32);
        const auto weight = random_buffer<float>(random, d_conv * d_inner, offset);
        const auto bias = random_buffer<float>(random, d_inner, offset);
        buffer<float> state(history * d_inner, offset, 0.0f);
        const auto y = run(kernels, x, weight, bias, state, tokens, 0);
        worst here;
        for (std::size_t t = 0; t < tokens; ++t) {
            for (std::size_t c = 0; c < d_inner; ++c) {
                const auto s = reference::convolution(x.data(), x_stride, weight.data(), bias.data(), d_inner, d_conv, t, c);
                here.see(std::fabs(static_cast<double>(y[t * y_stride + c]) - reference::silu(s.value)) / ulp_at(s.magnitude));
            }
        }
        CHECK(here.value <= 4.0);
        error.see(here.value);
        bool state_right = true;
        for (std::size_t j = 0; j < history; ++j) {
            for (std::size_t c = 0; c < d_inner; ++c) {
                const float want = tokens + j < history ? 0.0f : x[(tokens + j - history) * x_stride + c];
                state_right = state_right && state[j * d_inner + c] == want;
            }
        }
        CHECK(state_right);

        for (const std::size_t chunk : {1u, 2u, 3u, 5u}) {
            CAPTURE(chunk);
            buffer<float> chunk_state(history * d_inner, offset, 0.0f);
            CHECK(same_bits(run(kernels, x, weight, bias, chunk_state, chunk, random.below(d_inner + 1)), y));
            CHECK(same_bits(chunk_state, state));
        }
    }
};

struct scan_case {
    std::size_t tokens, d_inner, d_state, offset;

    struct data {
        buffer<float> u, dt, b, c, a, d;
        std::vector<double> a_exact;  // [d_inner, d_state], what a_log2e stands for
    };
    [[nodiscard]] std::size_t blocks() const { return (d_inner + channel_block - 1) / channel_block; }
    [[nodiscard]] std::size_t bc_stride() const { return 2 * d_state + offset; }
    [[nodiscard]] std::size_t place(std::size_t channel, std::size_t n) const {
        return (channel / channel_block * d_state + n) * channel_block + channel % channel_block;
    }

    [[nodiscard]] data make(generator& random, float dt_high) const {
        data in{random_buffer<float>(random, tokens * d_inner, offset),
                random_buffer<float>(random, tokens * d_inner, offset, 0.001f, dt_high),
                random_rows(random, tokens, d_state, bc_stride(), offset, nan_f32),
                random_rows(random, tokens, d_state, bc_stride(), offset, nan_f32),
                buffer<float>(blocks() * channel_block * d_state, offset, 0.0f),
                random_buffer<float>(random, d_inner, offset),
                {}};
        for (std::size_t channel = 0; channel < d_inner; ++channel) {
            for (std::size_t n = 0; n < d_state; ++n) {
                const float a_log2e = -1.4427f * static_cast<float>(n + 1) * random.uniform(0.5f, 1.5f);
                in.a[place(channel, n)] = a_log2e;
                in.a_exact.push_back(static_cast<double>(a_log2e) * 0.693147180559945309);
            }
        }
        return in;
    }

    /// Tokens in chunks, blocks in two ranges.
    buffer<float> run(const kernel_table& kernels, const data& in, buffer<float>& h, std::size_t chunk, std::size_t block_cut,
                      bool over_u) const {
        buffer<float> y = over_u ? in.u : buffer<float>(tokens * d_inner, offset, canary);
        for (std::size_t t = 0; t < tokens; t += chunk) {
            const phi4flash::scan_args args{
                .u = (over_u ? y : in.u).data() + t * d_inner,
                .dt = in.dt.data() + t * d_inner,
                .b = in.b.data() + t * bc_stride(),
                .c = in.c.data() + t * bc_stride(),
                .bc_stride = bc_stride(),
                .a_log2e = in.a.data(),
                .d = in.d.data(),
                .h = h.data(),
                .kept = {.first = h.data(), .stride = 0, .count = 1},
                .y = y.data() + t * d_inner,
                .tokens = tokens - t < chunk ? tokens - t : chunk,
                .d_inner = d_inner,
                .d_state = d_state,
            };
            kernels.scan(args, block_cut, blocks());
            kernels.scan(args, 0, block_cut);
        }
        return y;
    }

    void check(const kernel_table& kernels, generator& random, worst& error, float dt_high = 1.0f) const {
        CAPTURE(tokens);
        CAPTURE(d_inner);
        CAPTURE(d_state);
        const data in = make(random, dt_high);
        buffer<float> h(in.a.size(), offset, 0.0f);
        const auto y = run(kernels, in, h, tokens, 0, false);
        worst here;
        for (std::size_t channel = 0; channel < d_inner; ++channel) {
            const std::vector<double> a(in.a_exact.begin() + static_cast<std::ptrdiff_t>(channel * d_state),
                                        in.a_exact.begin() + static_cast<std::ptrdiff_t>((channel + 1) * d_state));
            std::vector<double> state(d_state, 0.0);
            std::vector<double> magnitude(d_state, 0.0);
            for (std::size_t t = 0; t < tokens; ++t) {
                const std::size_t at = t * d_inner + channel;
                const auto want = reference::scan_step(static_cast<double>(in.dt[at]), static_cast<double>(in.u[at]), a,
                                                       in.b.data() + t * bc_stride(), in.c.data() + t * bc_stride(),
                                                       static_cast<double>(in.d[channel]), state, magnitude);
                here.see(std::fabs(static_cast<double>(y[at]) - want.value) / want.magnitude);
            }
            for (std::size_t n = 0; n < d_state; ++n)
                here.see(std::fabs(static_cast<double>(h[place(channel, n)]) - state[n]) / magnitude[n]);
        }
        CHECK(here.value <= 2e-6);
        error.see(here.value);
        bool filler_is_zero = true;
        for (std::size_t channel = d_inner; channel < blocks() * channel_block; ++channel) {
            for (std::size_t n = 0; n < d_state; ++n) filler_is_zero = filler_is_zero && h[place(channel, n)] == 0.0f;
        }
        CHECK(filler_is_zero);

        for (const std::size_t chunk : {tokens, std::size_t{1}, std::size_t{7}}) {
            CAPTURE(chunk);
            buffer<float> chunk_h(in.a.size(), offset, 0.0f);
            CHECK(same_bits(run(kernels, in, chunk_h, chunk, random.below(blocks() + 1), chunk != 1), y));
            CHECK(same_bits(chunk_h, h));
        }
    }
};

}  // namespace

TEST_CASE("convolution") {
    for_each_target([](const kernel_table& kernels) {
        generator random(20);
        worst error;
        for (std::size_t d_conv = 1; d_conv <= 5; ++d_conv) {
            for (std::size_t d_inner = 1; d_inner <= 40; ++d_inner)
                convolution_case{1 + (d_inner * 3 + d_conv) % 9, d_inner, d_conv, d_inner % 2}.check(kernels, random, error);
            for (std::size_t tokens = 1; tokens <= 8; ++tokens)
                convolution_case{tokens, 35, d_conv, 1}.check(kernels, random, error);
            convolution_case{40, 272, d_conv, 0}.check(kernels, random, error);
        }
        report("convolution", kernels, error, "ulp of sum |w x|");
    });
}

TEST_CASE("selective scan") {
    for_each_target([](const kernel_table& kernels) {
        generator random(21);
        worst error;
        for (const std::size_t d_state : {1u, 2u, 3u, 4u, 8u, 16u}) {
            for (std::size_t d_inner = 1; d_inner <= 50; ++d_inner)
                scan_case{9, d_inner, d_state, d_inner % 2}.check(kernels, random, error);
            scan_case{20, 275, d_state, 1}.check(kernels, random, error);
        }
        report("scan", kernels, error, "of sum |C h| + |D u|");
        worst long_error;
        for (const float dt_high : {0.01f, 0.1f, 5.0f}) scan_case{1000, 24, 16, 0}.check(kernels, random, long_error, dt_high);
        report("scan of 1,000 tokens", kernels, long_error, "of sum |C h| + |D u|");
    });
}

TEST_CASE("scan of a step so long that the state is forgotten") {
    for_each_target([](const kernel_table& kernels) {
        float h[2 * channel_block];
        for (float& x : h) x = 1e30f;
        buffer<float> a(2 * channel_block, 0, -1000.0f);
        const buffer<float> one(channel_block, 0, 1.0f);
        buffer<float> y(channel_block, 0, canary);
        const float b[2] = {1.0f, 2.0f};
        const float c[2] = {1.0f, 1.0f};
        kernels.scan({.u = one.data(),
                      .dt = one.data(),
                      .b = b,
                      .c = c,
                      .bc_stride = 2,
                      .a_log2e = a.data(),
                      .d = one.data(),
                      .h = h,
                      .kept = {.first = h, .stride = 0, .count = 1},
                      .y = y.data(),
                      .tokens = 1,
                      .d_inner = channel_block,
                      .d_state = 2},
                     0, 1);
        for (const float v : y) CHECK(v == doctest::Approx(4.0f));
    });
}
