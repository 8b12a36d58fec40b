/// Packed weights with f32 activations, against f64 sums of the decoded weights.
#include "support/reference.hpp"
#include "support/test_support.hpp"

#include <phi4flash/core/packing.hpp>
#include <phi4flash/kernels/targets.hpp>

namespace p4 = phi4flash;

namespace {

using phi4flash_test::buffer;
using phi4flash_test::for_each_target;

constexpr p4::dtype exact_formats[] = {p4::dtype::q8, p4::dtype::q4, p4::dtype::q4_dense};

/// Random blocks: every code that a file may hold, -128 too, and scales of either sign.
buffer<std::byte> random_blocks(phi4flash_test::generator& random, std::size_t rows, std::size_t cols, p4::dtype type) {
    buffer<std::byte> out(p4::matrix_bytes(type, rows, cols), 2);  // blocks need the alignment of an f16
    for (std::byte& b : out) b = static_cast<std::byte>(random.next() >> 56);
    const std::size_t block = p4::matrix_bytes(type, p4::packed_rows, p4::packed_cols);
    for (std::size_t at = 0; at < out.size(); at += block) {
        for (std::size_t r = 0; r < p4::packed_rows; ++r) {
            const p4::f16 scale = p4::to_f16(random.uniform(-0.1f, 0.1f));
            std::memcpy(out.data() + at + 2 * r, &scale, 2);
        }
    }
    return out;
}

/// Columns: one group, a panel and a bit, several panels. Tokens: one, fewer and more than a tile of 4, more than a pass of 128.
struct extent {
    std::size_t rows, cols, tokens;
};
constexpr extent extents[] = {{8, 32, 1}, {24, 64, 3}, {8, 288, 4}, {16, 544, 7}, {24, 1024, 10}, {8, 96, 261}};
constexpr std::size_t stride_beyond = 5;

}  // namespace

TEST_CASE("exact packed products equal the f64 sums of the decoded weights") {
    phi4flash_test::generator random{61};
    for_each_target([&](const p4::kernel_table& kernels) {
        phi4flash_test::worst worst;
        for (const p4::dtype type : exact_formats) {
            const p4::linear_kernels& linear = kernels.linear[static_cast<std::size_t>(type)];
            REQUIRE(linear.matmul_exact != nullptr);
            for (const auto& [rows, cols, tokens] : extents) {
                CAPTURE(std::string(p4::name_of(type)));
                CAPTURE(cols);
                const buffer<std::byte> w = random_blocks(random, rows, cols, type);
                const std::size_t x_stride = cols + 3;
                const std::size_t y_stride = rows + stride_beyond;
                const auto x = phi4flash_test::random_rows(random, tokens, cols, x_stride, 1, phi4flash_test::nan_f32);
                const auto bias = phi4flash_test::random_buffer<float>(random, rows, 1);
                buffer<float> y((tokens - 1) * y_stride + rows, 1, phi4flash_test::canary);
                const float* const b = cols == 64 ? nullptr : bias.data();
                linear.matmul_exact(w.data(), rows, cols, x.data(), x_stride, tokens, b, y.data(), y_stride);
                CHECK(phi4flash_test::gaps_untouched(y, rows, y_stride));
                std::vector<float> row(cols);
                for (std::size_t r = 0; r < rows; ++r) {
                    linear.widen(w.data(), r, cols, row.data());
                    for (std::size_t t = 0; t < tokens; ++t) {
                        const auto want =
                            phi4flash_test::reference::linear(row.data(), x.data() + t * x_stride, cols, b == nullptr ? b : b + r);
                        const double ulp = want.magnitude * 0x1p-24 * std::sqrt(static_cast<double>(cols));
                        worst.see(std::fabs(static_cast<double>(y[t * y_stride + r]) - want.value) / ulp);
                    }
                }
            }
        }
        phi4flash_test::report("matmul_exact", kernels, worst, "of ulp * sqrt(cols) of the sum of magnitudes");
        CHECK(worst.value < 0.5);
    });
}

TEST_CASE("exact packed products are the same bits for any cut of tokens and rows") {
    phi4flash_test::generator random{62};
    for_each_target([&](const p4::kernel_table& kernels) {
        for (const p4::dtype type : exact_formats) {
            CAPTURE(std::string(p4::name_of(type)));
            const p4::linear_kernels& linear = kernels.linear[static_cast<std::size_t>(type)];
            const std::size_t rows = 32;
            const std::size_t cols = 352;
            const std::size_t tokens = 135;
            const buffer<std::byte> w = random_blocks(random, rows, cols, type);
            const auto x = phi4flash_test::random_rows(random, tokens, cols, cols, 0, 0.0f);
            const auto bias = phi4flash_test::random_buffer<float>(random, rows, 0);
            std::vector<float> whole(tokens * rows);
            linear.matmul_exact(w.data(), rows, cols, x.data(), cols, tokens, bias.data(), whole.data(), rows);
            for (const std::size_t t_cut : {1u, 2u, 5u, 128u}) {
                for (const std::size_t r_cut : {8u, 24u}) {
                    std::vector<float> cut(tokens * rows);
                    for (std::size_t t = 0; t < tokens; t += t_cut) {
                        for (std::size_t r = 0; r < rows; r += r_cut)
                            linear.matmul_exact(w.data() + p4::matrix_bytes(type, r, cols), std::min(r_cut, rows - r), cols,
                                                x.data() + t * cols, cols, std::min(t_cut, tokens - t), bias.data() + r,
                                                cut.data() + t * rows + r, rows);
                    }
                    CHECK(phi4flash_test::same_bits(cut.data(), whole.data(), whole.size()));
                }
            }
        }
    });
}

TEST_CASE("plain weights have no exact product of their own: theirs is exact anyway") {
    for_each_target([&](const p4::kernel_table& kernels) {
        for (const p4::dtype type : {p4::dtype::f32, p4::dtype::f16, p4::dtype::bf16})
            CHECK(kernels.linear[static_cast<std::size_t>(type)].matmul_exact == nullptr);
    });
}
