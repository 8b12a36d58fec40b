/// Packed weights: what quantization loses, and the integer kernels against f64 sums of exactly the numbers they are given.
#include "support/test_support.hpp"

#include <phi4flash/core/packing.hpp>
#include <phi4flash/kernels/targets.hpp>

#include <cmath>

namespace p4 = phi4flash;

namespace {

using phi4flash_test::buffer;
using phi4flash_test::for_each_target;

constexpr p4::dtype formats[] = {p4::dtype::q8, p4::dtype::q4, p4::dtype::q4_dense};

/// Numbers like weights: a sum of uniform ones, so that the tails are rarer than the middle.
std::vector<float> weights(phi4flash_test::generator& random, std::size_t count) {
    std::vector<float> w(count);
    for (float& x : w) {
        for (int i = 0; i < 6; ++i) x += random.uniform(-0.02f, 0.02f);
    }
    return w;
}

buffer<std::byte> pack(const std::vector<float>& w, std::size_t rows, std::size_t cols, p4::dtype type, std::size_t offset) {
    buffer<std::byte> out(p4::matrix_bytes(type, rows, cols), offset);
    const p4::matrix_view plain{reinterpret_cast<const std::byte*>(w.data()), rows, cols, p4::dtype::f32};
    std::vector<float> scratch(p4::packed_rows * cols);
    for (std::size_t r = 0; r < rows; r += p4::packed_rows)
        p4::pack_eight_rows(plain, r, type, scratch.data(), out.data() + p4::matrix_bytes(type, r, cols));
    return out;
}

double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
    double difference = 0.0;
    double square = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2.0);
        square += std::pow(static_cast<double>(a[i]), 2.0);
    }
    return std::sqrt(difference / square);
}

}  // namespace

TEST_CASE("levels and codes are each other's inverse") {
    for (const p4::q4_codebook* book : {&p4::q4_uniform, &p4::q4_dense}) {
        for (int c = 0; c < 16; ++c) {
            if (c > 0) CHECK(book->level[c] > book->level[c - 1]);
            if (book == &p4::q4_uniform) CHECK(16 * 127 * book->level[c] <= 32767);  // what fits a 16-bit sum
        }
    }
    p4::q4_block block{};
    for (std::size_t r = 0; r < 8; ++r) {
        for (std::size_t c = 0; c < 32; ++c) p4::set_q4_code(block, r, c, static_cast<unsigned>((3 * r + 5 * c) % 16));
    }
    for (std::size_t r = 0; r < 8; ++r) {
        for (std::size_t c = 0; c < 32; ++c) CHECK(p4::q4_code(block, r, c) == (3 * r + 5 * c) % 16);
    }
}

TEST_CASE("quantization loses what its bits allow, and the dense codebook less than the uniform one") {
    phi4flash_test::generator random{5};
    const std::size_t rows = 64;
    const std::size_t cols = 256;
    const std::vector<float> w = weights(random, rows * cols);
    for_each_target([&](const p4::kernel_table& kernels) {
        double error[3];
        for (std::size_t f = 0; f < 3; ++f) {
            const buffer<std::byte> packed = pack(w, rows, cols, formats[f], 2 * f);  // blocks need the alignment of an f16
            std::vector<float> back(w.size());
            for (std::size_t r = 0; r < rows; ++r)
                kernels.linear[static_cast<std::size_t>(formats[f])].widen(packed.data(), r, cols, back.data() + r * cols);
            error[f] = relative_error(w, back);
        }
        CHECK(error[0] < 0.006);
        CHECK(error[1] < 0.085);
        CHECK(error[2] < 0.076);
        CHECK(error[2] < error[1]);
    });
}

TEST_CASE("numbers that are zero, tiny or not finite are packed without harm") {
    std::vector<float> w(8 * 32, 0.0f);
    for (std::size_t c = 0; c < 32; ++c) {
        w[32 + c] = 1e-42f;
        w[64 + c] = c == 3 ? std::numeric_limits<float>::infinity() : 1.0f;
        w[96 + c] = c == 4 ? phi4flash_test::nan_f32 : 1.0f;
    }
    for (const p4::dtype type : formats) {
        const buffer<std::byte> packed = pack(w, 8, 32, type, 0);
        CHECK(packed.size() == p4::matrix_bytes(type, 8, 32));
        float row[32];
        p4::best_kernels().linear[static_cast<std::size_t>(type)].widen(packed.data(), 0, 32, row);
        for (const float x : row) CHECK(x == 0.0f);
    }
}

TEST_CASE("activations too small for an inverse count as zeros") {
    for_each_target([&](const p4::kernel_table& kernels) {
        for (const p4::dtype type : formats) {
            std::vector<float> x(32, 1e-40f);
            x[3] = -2e-38f;
            p4::activation_group group{};
            kernels.linear[static_cast<std::size_t>(type)].arrange(x.data(), 32, 0, 1, reinterpret_cast<std::byte*>(&group));
            for (const std::int8_t q : group.q) CHECK(q == 0);
            CHECK(group.scale == 0.0f);
            CHECK(group.offset == 0.0f);
        }
    });
}

TEST_CASE("packed products equal the f64 sums of the same codes, for any number of tokens and any cut") {
    phi4flash_test::generator random{6};
    for_each_target([&](const p4::kernel_table& kernels) {
        for (const p4::dtype type : formats) {
            CAPTURE(std::string(p4::name_of(type)));
            const p4::linear_kernels& linear = kernels.linear[static_cast<std::size_t>(type)];
            for (const std::size_t cols : {32u, 64u, 160u, 544u}) {
                const std::size_t rows = 24;
                const std::size_t tokens = cols == 64 ? 45 : 7;  // more than a tile, and fewer
                const std::size_t offset = cols % 64 == 0 ? 2 : 0;
                std::vector<float> numbers = weights(random, rows * cols);
                for (std::size_t c = 0; c < cols; ++c) numbers[c] = c % 32 == 5 ? -1.0f : 0.9f;  // the highest level nearly everywhere
                const buffer<std::byte> w = pack(numbers, rows, cols, type, offset);
                auto x = phi4flash_test::random_buffer<float>(random, tokens * cols, 1, -3.0f, 3.0f);
                for (std::size_t c = 0; c < 32; ++c) x[c] = 0.0f;  // a group without anything
                for (std::size_t c = 0; c < cols; ++c) {
                    x[cols + c] = 2.0f;                             // the largest sums there are
                    x[3 * cols + c] = c % 32 < 10 ? 1.0f : -0.01f;  // large in one half
                    x[4 * cols + c] = c % 32 == 7 ? 50.0f : 0.1f;   // one that stands out
                }
                const auto bias = phi4flash_test::random_buffer<float>(random, rows, 0);
                // All tokens together, group by group, and token 2 alone.
                buffer<std::byte> arranged(tokens * p4::arranged_bytes(cols), 0);
                buffer<std::byte> alone(p4::arranged_bytes(cols), 0);
                const auto* groups = reinterpret_cast<const p4::activation_group*>(arranged.data());
                for (std::size_t t = 0; t < tokens; ++t) {
                    REQUIRE(linear.arrange(x.data() + t * cols, cols, t, tokens, arranged.data()) == arranged.data());
                    double worst_rounding = 0.0;
                    for (std::size_t i = 0; i < cols; ++i) {
                        const p4::activation_group& g = groups[i / 32 * tokens + t];
                        const float rounding = std::fabs(x[t * cols + i] - g.scale * static_cast<float>(g.q[i % 32]));
                        worst_rounding = std::max(worst_rounding, static_cast<double>(rounding - 0.501f * g.scale));
                    }
                    CHECK(worst_rounding <= 0.0);
                }
                // One that stands out keeps all its bits, whatever the target.
                for (std::size_t g = 0; g < cols / 32; ++g) CHECK(groups[g * tokens + 4].q[7] == 127);
                std::vector<float> y(tokens * 30, phi4flash_test::canary);
                linear.matmul(w.data(), rows, cols, arranged.data(), 0, tokens, bias.data(), y.data(), 30);
                double worst = 0.0;
                std::vector<float> row(cols);
                for (std::size_t r = 0; r < rows; ++r) {
                    linear.widen(w.data(), r, cols, row.data());
                    for (std::size_t t = 0; t < tokens; ++t) {
                        double sum = static_cast<double>(bias[r]);
                        double magnitude = std::fabs(sum);
                        for (std::size_t i = 0; i < cols; ++i) {
                            const p4::activation_group& g = groups[i / 32 * tokens + t];
                            const double product = static_cast<double>(row[i]) * static_cast<double>(g.scale) * g.q[i % 32];
                            sum += product;
                            magnitude += std::fabs(product);
                        }
                        worst = std::max(worst, std::fabs(sum - static_cast<double>(y[t * 30 + r])) / magnitude);
                    }
                }
                CHECK(worst < 1e-6);  // a product that did not fit would be off by a thousandth
                for (std::size_t t = 0; t < tokens; ++t) {
                    for (std::size_t r = rows; r < 30; ++r) CHECK(y[t * 30 + r] == phi4flash_test::canary);
                }
                // One token, and part of the rows: the same bits.
                std::vector<float> one(rows);
                linear.arrange(x.data() + 2 * cols, cols, 0, 1, alone.data());
                linear.matvec(w.data(), rows, cols, alone.data(), bias.data(), one.data());
                CHECK(phi4flash_test::same_bits(one.data(), y.data() + 2 * 30, rows));
                linear.matvec(w.data() + p4::matrix_bytes(type, 8, cols), 8, cols, alone.data(), bias.data() + 8, one.data());
                CHECK(phi4flash_test::same_bits(one.data(), y.data() + 2 * 30 + 8, 8));
            }
        }
    });
}
