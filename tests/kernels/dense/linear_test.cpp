// Products with stored weights, and their conversions, against double precision.
#include "support/reference.hpp"
#include "support/test_support.hpp"

#include <phi4flash/kernels/dispatch.hpp>

#include <doctest/doctest.h>

using namespace phi4flash_test;
using phi4flash::bf16;
using phi4flash::f16;
using phi4flash::kernel_table;

namespace {

template <class Element>
const phi4flash::linear_kernels& linear_of(const kernel_table& kernels) {
    return kernels.linear[static_cast<std::size_t>(phi4flash::dtype_of<Element>)];
}

/// Rounding errors in units of ulp(sum |W x|) * sqrt(cols).
double scaled_error(float got, const reference::sum& want, std::size_t cols) {
    return std::fabs(static_cast<double>(got) - want.value) / (ulp_at(want.magnitude) * std::sqrt(static_cast<double>(cols)));
}

template <class Element>
struct matvec_case {
    std::size_t rows, cols, offset;
    bool with_bias;

    void check(const kernel_table& kernels, generator& random, worst& error) const {
        CAPTURE(rows);
        CAPTURE(cols);
        CAPTURE(offset);
        CAPTURE(with_bias);
        const auto& linear = linear_of<Element>(kernels);
        const auto w = random_buffer<Element>(random, rows * cols, offset);
        const auto x = random_buffer<float>(random, cols, offset);
        const auto bias = random_buffer<float>(random, rows, offset);
        const float* const bias_data = with_bias ? bias.data() : nullptr;
        buffer<float> scratch(phi4flash::arranged_bytes(cols) / sizeof(float), offset, nan_f32);
        const std::byte* arranged = linear.arrange(x.data(), cols, cols, 0, 1, 1, scratch.bytes());
        CHECK((arranged == x.bytes() || arranged == scratch.bytes()));
        buffer<float> y(rows, offset, canary);
        linear.matvec(w.bytes(), rows, cols, arranged, bias_data, y.data());
        worst here;
        for (std::size_t r = 0; r < rows; ++r)
            here.see(
                scaled_error(y[r], reference::linear(w.data() + r * cols, x.data(), cols, with_bias ? &bias[r] : nullptr), cols));
        CHECK(here.value <= 1.0);
        error.see(here.value);

        buffer<float> by_row(rows, offset, canary);
        for (std::size_t r = 0; r < rows; ++r)
            linear.matvec(w.bytes() + r * cols * sizeof(Element), 1, cols, arranged, with_bias ? bias_data + r : nullptr,
                          &by_row[r]);
        CHECK(same_bits(y, by_row));
    }
};

template <class Element>
struct matmul_case {
    std::size_t rows, cols, tokens, offset;
    bool with_bias;

    void check(const kernel_table& kernels, generator& random, worst& error) const {
        CAPTURE(rows);
        CAPTURE(cols);
        CAPTURE(tokens);
        CAPTURE(offset);
        CAPTURE(with_bias);
        const auto& linear = linear_of<Element>(kernels);
        const std::size_t x_stride = cols + 3 * offset;
        const std::size_t y_stride = rows + 2 * offset;
        const auto w = random_buffer<Element>(random, rows * cols, offset);
        const auto x = random_rows(random, tokens, cols, x_stride, offset, nan_f32);
        const auto bias = random_buffer<float>(random, rows, offset);
        const float* const bias_data = with_bias ? bias.data() : nullptr;
        buffer<float> y((tokens - 1) * y_stride + rows, offset, canary);
        const auto arrange = [&](std::size_t first, std::size_t count) {
            buffer<std::byte> scratch(count * phi4flash::arranged_bytes(cols), 4 * offset);
            const std::size_t piece = random.below(count + 1);  // in two pieces, in any order
            linear.arrange(x.data() + first * x_stride, x_stride, cols, piece, count, count, scratch.data());
            linear.arrange(x.data() + first * x_stride, x_stride, cols, 0, piece, count, scratch.data());
            return scratch;
        };
        linear.matmul(w.bytes(), rows, cols, arrange(0, tokens).data(), tokens, bias_data, y.data(), y_stride);
        worst here;
        for (std::size_t t = 0; t < tokens; ++t) {
            for (std::size_t r = 0; r < rows; ++r) {
                const float* const b = with_bias ? &bias[r] : nullptr;
                here.see(scaled_error(y[t * y_stride + r], reference::linear(w.data() + r * cols, x.data() + t * x_stride, cols, b),
                                      cols));
            }
        }
        CHECK(here.value <= 1.0);
        error.see(here.value);
        CHECK(gaps_untouched(y, rows, y_stride));

        // Any cut of rows gives the same bits, and so does any cut of tokens into few, or into many. A single token is for matvec.
        buffer<float> cut(y.size(), offset, canary);
        const std::size_t row_cut = random.below(rows + 1);
        const std::size_t least = tokens <= linear.few_tokens ? 2 : linear.few_tokens + 1;
        const std::size_t token_cut = tokens < 2 * least ? 0 : least + random.below(tokens - 2 * least + 1);
        const std::size_t row_at[] = {0, row_cut, rows};
        const std::size_t token_at[] = {0, token_cut, tokens};
        for (std::size_t j = 0; j < 2; ++j) {
            const std::size_t t = token_at[j];
            const std::size_t count = token_at[j + 1] - t;
            if (count == 0) continue;
            const auto arranged = arrange(t, count);
            for (std::size_t i = 0; i < 2; ++i) {
                const std::size_t r = row_at[i];
                linear.matmul(w.bytes() + r * cols * sizeof(Element), row_at[i + 1] - r, cols, arranged.data(), count,
                              with_bias ? bias_data + r : nullptr, cut.data() + t * y_stride + r, y_stride);
            }
        }
        CHECK(same_bits(y, cut));

        buffer<float> alone(rows, offset, canary);
        for (std::size_t t = 0; t < tokens && tokens <= linear.few_tokens; ++t) {
            buffer<std::byte> scratch(phi4flash::arranged_bytes(cols), 4 * offset);
            const std::byte* const one = linear.arrange(x.data() + t * x_stride, x_stride, cols, 0, 1, 1, scratch.data());
            linear.matvec(w.bytes(), rows, cols, one, bias_data, alone.data());
            CHECK(same_bits(alone.data(), y.data() + t * y_stride, rows));
        }
    }
};

}  // namespace

TEST_CASE("targets") {
    for (const phi4flash::kernel_target& t : phi4flash::kernel_targets())
        MESSAGE("target " << t.kernels->name << (t.runs_here ? ": runs here" : ": compiled only"));
    const std::string name = phi4flash::best_kernels().name;
    CHECK(*phi4flash::kernels_named({}) == &phi4flash::best_kernels());
    CHECK(*phi4flash::kernels_named(name) == &phi4flash::best_kernels());
    const auto unknown = phi4flash::kernels_named("abacus");
    REQUIRE(!unknown);
    CHECK(unknown.error().code() == phi4flash::errc::unknown_target);
    CHECK(std::string(unknown.error().message()).find("want one of " + name) != std::string::npos);
    for_each_target([](const kernel_table& kernels) {
        const std::size_t lanes = kernels.lanes();
        CHECK((lanes >= 1 && lanes <= 16 && 16 % lanes == 0));
    });
}

TEST_CASE_TEMPLATE("matvec", Element, float, f16, bf16) {
    for_each_target([](const kernel_table& kernels) {
        generator random(1);
        worst error;
        for (std::size_t cols = 1; cols <= 70; ++cols) {
            for (const std::size_t rows : {1u, 2u, 5u})
                matvec_case<Element>{rows, cols, cols % 2, rows != 2}.check(kernels, random, error);
        }
        for (const std::size_t cols : {127u, 128u, 129u, 255u, 1000u, 1025u, 2560u, 10240u})
            for (const std::size_t offset : {0u, 1u})
                matvec_case<Element>{3, cols, offset, offset == 0}.check(kernels, random, error);
        report(with_type<Element>("matvec"), kernels, error, "ulp(sum |W x|) sqrt(cols)");
    });
}

TEST_CASE_TEMPLATE("matmul", Element, float, f16, bf16) {
    for_each_target([](const kernel_table& kernels) {
        generator random(2);
        worst error;
        for (std::size_t cols = 1; cols <= 70; ++cols)
            matmul_case<Element>{1 + cols * 5 % 13, cols, 2 + cols * 7 % 9, cols % 2, cols % 3 != 0}.check(kernels, random, error);
        for (std::size_t rows = 1; rows <= 30; ++rows) {
            for (std::size_t tokens = 2; tokens <= 35; tokens += 1 + tokens / 8)
                matmul_case<Element>{rows, 37, tokens, tokens % 2, rows % 2 == 0}.check(kernels, random, error);
        }
        for (std::size_t tokens = 2; tokens <= 33; ++tokens)
            matmul_case<Element>{5 + tokens % 4, 67 + tokens, tokens, tokens % 2, tokens % 3 == 0}.check(kernels, random, error);
        for (const std::size_t cols : {127u, 128u, 129u, 1025u, 2560u})
            matmul_case<Element>{8, cols, 7, cols % 2, true}.check(kernels, random, error);
        matmul_case<Element>{31, 160, 33, 1, false}.check(kernels, random, error);
        for (const std::size_t tokens : {127u, 128u, 131u, 257u})
            matmul_case<Element>{50, 140, tokens, tokens % 2, true}.check(kernels, random, error);
        // More columns than a panel has, rows that fill tiles and rows that do not, tokens of every remainder.
        for (const std::size_t rows : {16u, 32u, 67u})
            matmul_case<Element>{rows, 1070, 47 + rows / 16, rows % 2, rows != 16}.check(kernels, random, error);
        for (std::size_t tokens = 33; tokens <= 48; ++tokens) matmul_case<Element>{35, 520, tokens, tokens % 2, true}.check(kernels, random, error);
        report(with_type<Element>("matmul"), kernels, error, "ulp(sum |W x|) sqrt(cols)");
    });
}

TEST_CASE_TEMPLATE("products without rows, columns or tokens", Element, float, f16, bf16) {
    for_each_target([](const kernel_table& kernels) {
        const auto& linear = linear_of<Element>(kernels);
        const float bias[2] = {3.0f, -4.0f};
        float y[4] = {canary, canary, canary, canary};
        alignas(64) float scratch[2 * phi4flash::arranged_bytes(0) / sizeof(float)] = {canary};
        const Element w[14] = {};
        const auto* bytes = reinterpret_cast<const std::byte*>(w);
        const std::byte* x = linear.arrange(scratch, 0, 0, 0, 1, 1, reinterpret_cast<std::byte*>(scratch));
        linear.matvec(bytes, 0, 7, x, bias, y);
        linear.matmul(bytes, 0, 7, x, 3, bias, y, 2);
        linear.matmul(bytes, 2, 7, x, 0, bias, y, 2);
        CHECK(y[0] == canary);
        linear.matvec(bytes, 2, 0, x, bias, y);
        CHECK((y[0] == 3.0f && y[1] == -4.0f));
        linear.arrange(scratch, 0, 0, 0, 2, 2, reinterpret_cast<std::byte*>(scratch));
        linear.matmul(bytes, 2, 0, reinterpret_cast<const std::byte*>(scratch), 2, nullptr, y, 2);
        CHECK((y[0] == 0.0f && y[1] == 0.0f && y[2] == 0.0f && y[3] == 0.0f));
    });
}

TEST_CASE_TEMPLATE("widen is exact for every pattern and length", Element, f16, bf16) {
    for_each_target([](const kernel_table& kernels) {
        const auto& linear = linear_of<Element>(kernels);
        buffer<Element> all(65536, 1);
        for (std::size_t i = 0; i < all.size(); ++i) all[i].bits = static_cast<std::uint16_t>(i);
        buffer<float> out(all.size(), 1, canary);
        linear.widen(all.bytes(), 0, all.size(), out.data());
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < all.size(); ++i) {
            const float want = phi4flash::to_f32(all[i]);
            const bool right = std::isnan(want) ? std::isnan(out[i]) : same_bits(&want, &out[i], 1);
            wrong += right ? 0u : 1u;
        }
        CHECK(wrong == 0);
        for (std::size_t n = 0; n <= 70; ++n) {
            CAPTURE(n);
            buffer<Element> some(n, n % 2);
            for (std::size_t i = 0; i < n; ++i) some[i] = all[0x3c00 + 31 * i];
            buffer<float> wide(n, n % 2, canary);
            linear.widen(some.bytes(), 0, n, wide.data());
            bool right = true;
            for (std::size_t i = 0; i < n; ++i) right = right && wide[i] == phi4flash::to_f32(some[i]);
            CHECK(right);
        }
    });
}

TEST_CASE_TEMPLATE("widen and narrow of f32 and bf16 keep or round every number as the scalar rule does", Element, float, bf16) {
    for_each_target([](const kernel_table& kernels) {
        const auto narrow = kernels.narrow[static_cast<std::size_t>(phi4flash::dtype_of<Element>)];
        REQUIRE(narrow != nullptr);
        CHECK(kernels.narrow[static_cast<std::size_t>(phi4flash::dtype::f16)] == nullptr);
        // Every upper half with the lower halves around a tie; NaN is not a number that a cache holds.
        buffer<float> x(65536 * 6, 1);
        std::size_t count = 0;
        for (std::uint32_t upper = 0; upper < 65536; ++upper) {
            for (const std::uint32_t lower : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
                const float value = std::bit_cast<float>((upper << 16) | lower);
                if (!std::isnan(value)) x[count++] = value;
            }
        }
        buffer<Element> out(count, 1);
        narrow(x.data(), count, out.bytes());
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < count; ++i) {
            const Element want = phi4flash::from_f32<Element>(x[i]);
            wrong += std::memcmp(&want, &out[i], sizeof want) == 0 ? 0u : 1u;
        }
        CHECK(wrong == 0);

        generator random(3);
        for (std::size_t n = 0; n <= 70; ++n) {
            CAPTURE(n);
            const auto some = random_buffer<float>(random, n, n % 2);
            buffer<Element> stored(n, n % 2);
            narrow(some.data(), n, stored.bytes());
            buffer<float> back(n, n % 2, canary);
            linear_of<Element>(kernels).widen(stored.bytes(), 0, n, back.data());
            bool right = true;
            for (std::size_t i = 0; i < n; ++i)
                right = right && back[i] == phi4flash::to_f32(phi4flash::from_f32<Element>(some[i]));
            CHECK(right);
        }
    });
}

TEST_CASE("read depends on every element") {
    for_each_target([](const kernel_table& kernels) {
        for (const std::size_t n : {1u, 2u, 15u, 64u, 65u, 130u, 131u}) {
            CAPTURE(n);
            buffer<bf16> data(n, n % 2);
            CHECK(kernels.read(data.bytes(), n * sizeof(bf16)) == 0.0f);
            std::size_t missed = 0;
            for (std::size_t i = 0; i < n; ++i) {
                data[i] = phi4flash::to_bf16(1.0f);
                missed += kernels.read(data.bytes(), n * sizeof(bf16)) == 1.0f ? 0u : 1u;
                data[i] = bf16{};
            }
            CHECK(missed == 0);
        }
    });
}
