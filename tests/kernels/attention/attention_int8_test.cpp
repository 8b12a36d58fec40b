// Keys and values in 8 bits: what is stored against the rule, and attention over it against a softmax in double precision over the same
// codes and scales.
#include "support/reference.hpp"
#include "support/test_support.hpp"

#include <phi4flash/kernels/dispatch.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>

using namespace phi4flash_test;
using phi4flash::bf16;
using phi4flash::kernel_table;
using phi4flash::kv_int8;
using phi4flash::kv_segment;

namespace {

struct byte_heads {
    std::size_t groups, k_per_group, queries_per_key, d_head;
    [[nodiscard]] std::size_t width() const { return k_per_group * d_head; }
    [[nodiscard]] std::size_t per_group() const { return k_per_group * queries_per_key; }
    [[nodiscard]] std::size_t count() const { return groups * per_group(); }
};

/// Keys or values of `rows` slots a group, of which the first `count` are filled; the last group ends with its last filled row.
struct plane {
    buffer<kv_int8> codes;
    buffer<bf16> scales;
    std::vector<float> wide;  ///< [groups, count, width]: what the codes stand for

    plane(const kernel_table& kernels, generator& random, const byte_heads& shape, std::size_t count, std::size_t rows, float size)
        : codes(((shape.groups - 1) * rows + count) * shape.width(), 1),
          scales((shape.groups * shape.k_per_group - 1) * rows + count, 1, phi4flash::to_bf16(nan_f32)),
          wide(shape.groups * count * shape.width()) {
        for (std::size_t g = 0; g < shape.groups; ++g) {
            for (std::size_t j = 0; j < count; ++j) {
                for (std::size_t s = 0; s < shape.k_per_group; ++s) {
                    // Some tokens are louder than others, which is what scales of their own are for.
                    const auto x = random_buffer<float>(random, shape.d_head, 1, -size, random.below(7) == 0 ? 4.0f * size : size);
                    kv_int8* const to = codes.data() + (g * rows + j) * shape.width() + s * shape.d_head;
                    bf16& scale = scales[(g * shape.k_per_group + s) * rows + j];
                    kernels.quantize(x.data(), shape.d_head, to, &scale);
                    for (std::size_t i = 0; i < shape.d_head; ++i)
                        wide[(g * count + j) * shape.width() + s * shape.d_head + i] = phi4flash::to_f32(scale) * phi4flash::to_f32(to[i]);
                }
            }
        }
    }
};

struct int8_case {
    byte_heads shape;
    std::size_t past, tokens, window;
    std::size_t cut = 0;  ///< keys in a first segment of their own
    bool alibi = false;

    void check(const kernel_table& kernels, generator& random, worst& error) const {
        CAPTURE(shape.groups);
        CAPTURE(shape.k_per_group);
        CAPTURE(shape.queries_per_key);
        CAPTURE(shape.d_head);
        CAPTURE(past);
        CAPTURE(tokens);
        CAPTURE(window);
        CAPTURE(cut);
        const std::size_t n_keys = past + tokens;
        const std::size_t rows = n_keys + 3;
        const plane k(kernels, random, shape, n_keys, rows, 1.0f);
        const plane v(kernels, random, shape, n_keys, rows, 1.0f);
        const auto segment = [&](std::size_t first, std::size_t count) {
            return kv_segment{k.codes.bytes() + first * shape.width(), v.codes.bytes() + first * shape.width(), rows, first, count,
                              k.scales.data() + first, v.scales.data() + first};
        };
        const kv_segment segments[] = {segment(0, cut), segment(cut, n_keys - cut)};

        const std::size_t q_stride = shape.count() * shape.d_head + 5;
        const std::size_t out_stride = shape.count() * shape.width() + 3;
        const auto q = random_rows(random, tokens, shape.count() * shape.d_head, q_stride, 1, nan_f32);
        const auto slopes = random_buffer<float>(random, shape.count(), 1, 0.0f, 0.5f);
        phi4flash::attention_args args{.q = q.data(),
                                       .q_stride = q_stride,
                                       .out = nullptr,
                                       .out_stride = out_stride,
                                       .tokens = tokens,
                                       .first_position = past,
                                       .d_head = shape.d_head,
                                       .k_per_group = shape.k_per_group,
                                       .queries_per_key = shape.queries_per_key,
                                       .window = window,
                                       .scale = 1.0f / std::sqrt(static_cast<float>(shape.d_head)),
                                       .slopes = alibi ? slopes.data() : nullptr};
        const auto run = [&](const std::vector<std::size_t>& cuts) {
            buffer<float> out((tokens - 1) * out_stride + shape.count() * shape.width(), 1, canary);
            args.out = out.data();
            for (std::size_t g = 0; g < shape.groups; ++g) {
                for (std::size_t i = 0; i + 1 < cuts.size(); ++i)
                    kernels.attention[static_cast<std::size_t>(phi4flash::kv_format::int8)](args, g, cuts[i], cuts[i + 1], segments, 2);
            }
            return out;
        };
        const buffer<float> out = run({0, tokens});
        CHECK(gaps_untouched(out, shape.count() * shape.width(), out_stride));
        worst here;
        for (std::size_t t = 0; t < tokens; ++t) {
            for (std::size_t h = 0; h < shape.count(); ++h) {
                const std::vector<double> want = expected(k, v, q.data() + t * q_stride + h * shape.d_head, t, h, args);
                for (std::size_t i = 0; i < want.size(); ++i)
                    here.see(std::fabs(static_cast<double>(out[t * out_stride + h * shape.width() + i]) - want[i]));
            }
        }
        // Values are in [-1, 4). One token of such heads may be computed with queries and weights of 16 bits (kernels/attention/bytes-inl.hpp).
        const bool bytes = tokens == 1 && shape.d_head % 64 == 0 && shape.width() <= 128 && shape.per_group() == 4;
        CHECK(here.value <= (bytes ? 1.2e-4 : 4e-6));
        error.see(here.value);

        std::vector<std::size_t> single(tokens + 1);
        for (std::size_t t = 0; t <= tokens; ++t) single[t] = t;
        const bool singles_agree = same_bits(run(single), out);
        CHECK(singles_agree);
        const std::size_t cut_at = random.below(tokens + 1);
        const bool cut_agrees = same_bits(run({0, cut_at, tokens}), out);
        CHECK(cut_agrees);
    }

private:
    std::vector<double> expected(const plane& k, const plane& v, const float* q, std::size_t t, std::size_t head,
                                 const phi4flash::attention_args& args) const {
        const std::size_t group = head / shape.per_group();
        const std::size_t key_head = head % shape.per_group() % shape.k_per_group;
        const std::size_t first = group * (past + tokens) * shape.width();
        const std::size_t position = past + t;
        std::vector<float> keys((position + 1) * shape.width());
        for (std::size_t j = 0; j <= position; ++j)
            std::copy_n(k.wide.data() + first + j * shape.width() + key_head * shape.d_head, shape.d_head,
                        keys.begin() + static_cast<std::ptrdiff_t>(j * shape.width()));
        return reference::attention(q, shape.d_head, keys.data(), v.wide.data() + first, shape.width(), position + 1, 0,
                                    position >= window ? position - window + 1 : 0, static_cast<double>(args.scale),
                                    alibi ? static_cast<double>(args.slopes[head]) : 0.0);
    }
};

}  // namespace

TEST_CASE("quantize keeps every number to half a step of its head's scale, and writes nothing else") {
    for_each_target([](const kernel_table& kernels) {
        generator random(40);
        worst error;
        for (const std::size_t n : {1u, 2u, 3u, 7u, 8u, 15u, 16u, 17u, 31u, 64u, 100u}) {
            for (const float size : {1e-45f, 1e-37f, 1e-20f, 1.0f, 300.0f, 1e30f}) {
                CAPTURE(n);
                CAPTURE(size);
                const auto x = random_buffer<float>(random, n, 1, -size, size);
                buffer<kv_int8> codes(n + 2, 1, kv_int8{99});
                bf16 scale{};
                kernels.quantize(x.data(), n, codes.data() + 1, &scale);
                CHECK(codes[0].code == 99);
                CHECK(codes[n + 1].code == 99);
                const double step = static_cast<double>(phi4flash::to_f32(scale));
                double most = 0.0;
                for (std::size_t i = 0; i < n; ++i) {
                    const double code = codes[i + 1].code;
                    const double miss = std::fabs(static_cast<double>(x[i]) - step * code);
                    CHECK(std::fabs(code) <= 127.0);
                    most = std::max(most, std::fabs(static_cast<double>(x[i])));
                    if (step > 0.0) error.see(miss / step);
                    CHECK(miss <= 0.5001 * step + 2e-34);
                }
                CHECK(step <= most / 127.0 * 1.004);
            }
        }
        report("quantize", kernels, error, "steps");
        const float zeros[5] = {};
        kv_int8 codes[5];
        bf16 scale{0x3f80};
        kernels.quantize(zeros, 5, codes, &scale);
        CHECK(scale.bits == 0);
        for (const kv_int8 c : codes) CHECK(c.code == 0);
    });
}

TEST_CASE("attention over 8-bit keys and values, every head layout") {
    for_each_target([](const kernel_table& kernels) {
        generator random(41);
        worst error;
        const std::size_t windows[] = {1, 2, 5, 8, 31, 32, 33, 512, SIZE_MAX};
        std::size_t i = 0;
        for (const std::size_t d_head : {1u, 3u, 8u, 16u, 24u, 33u, 64u, 80u, 128u, 513u}) {
            for (const std::size_t k_per_group : {1u, 2u}) {
                for (const std::size_t queries_per_key : {1u, 2u, 3u}) {
                    ++i;
                    const std::size_t past = i * 7 % 61;
                    const std::size_t tokens = 1 + i * 5 % 19;
                    int8_case{{1 + i % 2, k_per_group, queries_per_key, d_head}, past, tokens, windows[i % 9], random.below(past + tokens + 1),
                              i % 5 == 0}
                        .check(kernels, random, error);
                }
            }
        }
        report("attention INT8", kernels, error, "of values up to 4");
    });
}

TEST_CASE("attention over 8-bit keys and values, every window and cut into segments") {
    for_each_target([](const kernel_table& kernels) {
        generator random(42);
        worst error;
        for (const std::size_t window : std::initializer_list<std::size_t>{1, 5, 33, 64, SIZE_MAX}) {
            for (const std::size_t past : {0u, 1u, 31u, 32u, 90u}) {
                for (const std::size_t tokens : {1u, 2u, 40u}) {
                    for (const std::size_t cut : {std::size_t{0}, past / 2, past + tokens})
                        int8_case{{1, 2, 2, 16}, past, tokens, window, cut, past == 31}.check(kernels, random, error);
                }
            }
        }
        int8_case{{1, 2, 2, 64}, 3000, 3, SIZE_MAX, 1111}.check(kernels, random, error);
        for (const std::size_t past : {14u, 500u, 527u, 529u, 1100u}) {
            int8_case{{1, 2, 2, 64}, past, 1, SIZE_MAX, past / 3}.check(kernels, random, error);
            int8_case{{2, 1, 3, 33}, past, 1, 512, 0, true}.check(kernels, random, error);
        }
        report("attention INT8", kernels, error, "of values up to 4");
    });
}

TEST_CASE("attention of one token over 8-bit keys and values, where heads fit vectors of bytes and where they do not") {
    for_each_target([](const kernel_table& kernels) {
        generator random(43);
        worst error;
        const byte_heads shapes[] = {{1, 2, 2, 64}, {2, 1, 4, 64}, {1, 2, 2, 128}, {1, 1, 4, 128}, {1, 1, 4, 192}, {1, 1, 4, 256},
                                     {1, 2, 2, 192}, {1, 1, 4, 320}, {1, 2, 2, 72}, {2, 1, 3, 64}, {1, 2, 1, 64}, {1, 2, 4, 64}, {1, 1, 1, 128}};
        std::size_t i = 0;
        for (const byte_heads& shape : shapes) {
            for (const std::size_t past : {0u, 3u, 14u, 15u, 16u, 47u, 100u, 526u, 527u, 528u, 560u, 1072u}) {
                ++i;
                const std::size_t windows[] = {SIZE_MAX, SIZE_MAX, 512, 33};
                int8_case{shape, past, 1, windows[i % 4], i % 3 == 0 ? past / 2 : 0, i % 5 == 0}.check(kernels, random, error);
            }
        }
        report("attention of one token INT8", kernels, error, "of values up to 4");
    });
}
