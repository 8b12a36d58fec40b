/// Packed weights: what quantization loses, and the integer kernels against f64 sums of exactly the numbers they are given.
#include "support/test_support.hpp"

#include <phi4flash/core/packing.hpp>
#include <phi4flash/kernels/targets.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>

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

namespace {

/// One token as the kernels read it: groups of 32 with their scale.
std::vector<p4::activation_group> arrange_one(const p4::linear_kernels& linear, const float* x, std::size_t cols) {
    std::vector<p4::activation_group> groups(p4::arranged_bytes(cols) / sizeof(p4::activation_group) + 1);
    auto* scratch = reinterpret_cast<std::byte*>(groups.data());
    REQUIRE(linear.arrange(x, cols, cols, 0, 1, 1, scratch) == scratch);
    groups.resize(cols / 32);
    return groups;
}

}  // namespace

TEST_CASE("an infinite scale of damaged weights shows in its row, and in no other") {
    const std::size_t cols = 64;
    const std::vector<float> w(8 * cols, 0.5f);
    const std::vector<float> x(cols, 1.0f);
    for (const p4::dtype type : formats) {
        buffer<std::byte> packed = pack(w, 8, cols, type, 0);
        const p4::f16 infinite{0x7c00};
        std::memcpy(packed.data() + 3 * sizeof infinite, &infinite, sizeof infinite);  // scales come first in a block
        for_each_target([&](const p4::kernel_table& kernels) {
            const p4::linear_kernels& linear = kernels.linear[static_cast<std::size_t>(type)];
            const auto groups = arrange_one(linear, x.data(), cols);
            float y[8];
            linear.matvec(packed.data(), 8, cols, reinterpret_cast<const std::byte*>(groups.data()), nullptr, y);
            for (std::size_t r = 0; r < 8; ++r) CHECK(p4::is_finite(y[r]) == (r != 3));
            linear.matmul_exact(packed.data(), 8, cols, x.data(), cols, 1, nullptr, y, 8);
            for (std::size_t r = 0; r < 8; ++r) CHECK(p4::is_finite(y[r]) == (r != 3));
        });
    }
}

namespace {

/// Activations as a product reads them.
struct read_activations {
    std::vector<double> values;
    std::vector<double> highest;  ///< of each, what a weight's rounding may be multiplied by
};
read_activations values_of(const std::vector<p4::activation_group>& groups) {
    read_activations x;
    for (const p4::activation_group& group : groups) {
        for (const std::int8_t q : group.q) x.values.push_back(static_cast<double>(group.scale) * q);
    }
    for (const double value : x.values) x.highest.push_back(std::fabs(value));
    return x;
}

/// Those of many tokens where weights become bytes: a scale for every scale_groups groups, whatever sums of 16 bits would ask for. With
/// 8-bit weights they have two digits and stay what they are, within rounding.
read_activations arrange_as_bytes(const float* x, std::size_t cols, p4::dtype type) {
    read_activations result;
    constexpr std::size_t together = 32 * p4::scale_groups;
    for (std::size_t c = 0; c < cols; c += together) {
        const std::size_t end = std::min(cols, c + together);
        float largest = 0.0f;
        for (std::size_t i = c; i < end; ++i) largest = std::max(largest, std::fabs(x[i]));
        const double scale = static_cast<double>(largest / 127.0f);
        for (std::size_t i = c; i < end; ++i) {
            const auto value = static_cast<double>(x[i]);
            const bool whole = type == p4::dtype::q8 || largest == 0.0f;
            result.values.push_back(whole ? value : std::nearbyint(value / scale) * scale);
            result.highest.push_back(whole ? static_cast<double>(largest) : std::fabs(result.values.back()));
        }
    }
    return result;
}

/// Whether many tokens meet weights as bytes, and what of a row's largest weight may then be lost. Scales as integers, 2^-12, change nothing where
/// this library fitted them.
double rounding_of(const p4::linear_kernels& linear, p4::dtype type) {
    return type == p4::dtype::q8 || linear.weight_rounding > 0x1p-12f ? static_cast<double>(linear.weight_rounding) : 0.0;
}

/// The f64 sum that a row of packed weights and one token's activations make.
struct exact_sum {
    double sum;
    double magnitude;  ///< the sum of the products' magnitudes
    double highest;    ///< that sum, had every weight the magnitude of the row's largest
};
exact_sum sum_of(const std::vector<float>& weights, const read_activations& x, float bias) {
    exact_sum exact{static_cast<double>(bias), std::fabs(static_cast<double>(bias)), 0.0};
    double largest = 0.0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        const double product = static_cast<double>(weights[i]) * x.values[i];
        exact.sum += product;
        exact.magnitude += std::fabs(product);
        largest = std::max(largest, std::fabs(static_cast<double>(weights[i])));
        exact.highest += x.highest[i];
    }
    exact.highest *= largest;
    return exact;
}

/// A matrix, activations of several tokens, and what multiplying them should give.
struct packed_case {
    p4::dtype type;
    std::size_t rows, cols, tokens;
    buffer<std::byte> w{0, 0};
    std::vector<float> x;
    buffer<float> bias{0, 0};
    std::vector<exact_sum> expected;  ///< [tokens, rows]

    packed_case(const p4::linear_kernels& linear, phi4flash_test::generator& random, p4::dtype format, std::size_t n_rows, std::size_t n_cols,
                std::size_t n_tokens, float spread)
        : type(format), rows(n_rows), cols(n_cols), tokens(n_tokens) {
        std::vector<float> numbers = weights(random, rows * cols);
        for (std::size_t c = 0; c < cols; ++c) {
            numbers[c] = c % 32 == 5 ? -1.0f : 0.9f;         // the highest level nearly everywhere
            numbers[cols + c] = c % 32 == 5 ? 0.9f : -1.0f;  // the lowest
        }
        for (std::size_t i = 2 * cols; i < numbers.size(); ++i) {
            if (i / 32 % 3 == 0) numbers[i] *= spread;  // groups whose scales differ from their neighbours'
        }
        w = pack(numbers, rows, cols, type, cols % 64 == 0 ? 2 : 0);
        const auto floats = phi4flash_test::random_buffer<float>(random, tokens * cols, 0, -3.0f, 3.0f);
        x.assign(floats.data(), floats.data() + floats.size());
        for (std::size_t c = 0; c < 32; ++c) x[c] = 0.0f;  // a group without anything
        for (std::size_t c = 0; c < cols; ++c) {
            if (tokens > 1) x[cols + c] = 2.0f;                             // the largest sums there are
            if (tokens > 2) x[2 * cols + c] = c % 4 < 2 ? -2.0f : 2.0f;     // and both ends together
            if (tokens > 3) x[3 * cols + c] = c % 32 < 10 ? 1.0f : -0.01f;  // large in one half
            if (tokens > 4) x[4 * cols + c] = c % 32 == 7 ? 50.0f : 0.1f;   // one that stands out
        }
        bias = phi4flash_test::random_buffer<float>(random, rows, 0);
        expect(linear);
    }

    /// Of all tokens together, or of each alone.
    void expect(const p4::linear_kernels& linear, bool alone = false) {
        std::vector<float> row(cols);
        expected.resize(tokens * rows);
        const bool as_bytes = !alone && rounding_of(linear, type) > 0.0 && tokens > linear.few_tokens;
        for (std::size_t t = 0; t < tokens; ++t) {
            const float* const token = x.data() + t * cols;
            const read_activations read = as_bytes ? arrange_as_bytes(token, cols, type) : values_of(arrange_one(linear, token, cols));
            for (std::size_t r = 0; r < rows; ++r) {
                linear.widen(w.data(), r, cols, row.data());
                expected[t * rows + r] = sum_of(row, read, bias[r]);
            }
        }
    }

    /// What the kernels make of it.   Shape: [tokens, rows].
    [[nodiscard]] std::vector<float> product(const p4::linear_kernels& linear) const {
        buffer<std::byte> arranged(tokens * p4::arranged_bytes(cols), 0);
        linear.arrange(x.data(), cols, cols, 0, tokens, tokens, arranged.data());
        std::vector<float> y(tokens * rows);
        linear.matmul(w.data(), rows, cols, arranged.data(), tokens, bias.data(), y.data(), rows);
        return y;
    }

    /// The largest difference between y [tokens, stride] and what it should be, relative to the sum of magnitudes; beyond what rounding of
    /// weights to so much of their row's largest explains.
    [[nodiscard]] double worst(const std::vector<float>& y, std::size_t stride, double rounding = 0.0) const {
        double result = 0.0;
        for (std::size_t t = 0; t < tokens; ++t) {
            for (std::size_t r = 0; r < rows; ++r) {
                const exact_sum& e = expected[t * rows + r];
                result = std::max(result, (std::fabs(e.sum - static_cast<double>(y[t * stride + r])) - rounding * e.highest) / e.magnitude);
            }
        }
        return result;
    }
};

}  // namespace

TEST_CASE("activations are rounded to the nearest of 255 steps, and those too small for an inverse count as zeros") {
    phi4flash_test::generator random{8};
    for_each_target([&](const p4::kernel_table& kernels) {
        for (const p4::dtype type : formats) {
            const p4::linear_kernels& linear = kernels.linear[static_cast<std::size_t>(type)];
            std::vector<float> x(32 * (p4::scale_groups + 1), 1e-40f);
            x[3] = -2e-38f;
            for (const p4::activation_group& g : arrange_one(linear, x.data(), x.size())) {
                for (const std::int8_t q : g.q) CHECK(q == 0);
                CHECK(g.scale == 0.0f);
                CHECK(g.start == 0);
            }
            for (float& number : x) number = random.uniform(-3.0f, 3.0f);
            x[39] = 50.0f;
            const std::vector<p4::activation_group> groups = arrange_one(linear, x.data(), x.size());
            float worst = 0.0f;
            for (std::size_t i = 0; i < x.size(); ++i) {
                const p4::activation_group& g = groups[i / 32];
                worst = std::max(worst, std::fabs(x[i] - g.scale * static_cast<float>(g.q[i % 32])) - 0.501f * g.scale);
            }
            CHECK(worst <= 0.0f);
            CHECK(groups[1].q[7] == 127);  // one that stands out keeps all its bits, whatever the target
            // Several groups share a scale where weights have 4 bits.
            for (std::size_t g = 0; g < p4::scale_groups; ++g) CHECK((g == 1 || type != p4::dtype::q8) == (groups[g].scale == groups[1].scale));
            CHECK(groups[p4::scale_groups].scale < groups[1].scale);
        }
    });
}

TEST_CASE("packed products equal the f64 sums of the same codes, for any number of tokens and any cut") {
    phi4flash_test::generator random{6};
    struct shape {
        std::size_t rows, cols, tokens;
    };
    // Columns with and without whole blocks of groups; tokens from one to more than are taken at once (128 or 256), with every kind of
    // tile; and more columns and rows than a panel has.
    const shape shapes[] = {{24, 32, 7},  {24, 64, 45},  {40, 160, 9},  {16, 544, 16}, {24, 672, 5},   {8, 96, 1},    {72, 128, 24}, {32, 32, 40},
                            {16, 96, 48}, {16, 160, 64}, {16, 128, 100}, {8, 64, 130}, {16, 544, 141}, {24, 96, 300}, {8, 128, 2},   {8, 32, 15},
                            {88, 2848, 20}, {24, 64, 93},  {24, 672, 69}, {88, 2848, 84}};
    for_each_target([&](const p4::kernel_table& kernels) {
        for (const p4::dtype type : formats) {
            CAPTURE(std::string(p4::name_of(type)));
            const p4::linear_kernels& linear = kernels.linear[static_cast<std::size_t>(type)];
            for (const shape& s : shapes) {
                CAPTURE(s.cols);
                CAPTURE(s.tokens);
                packed_case c(linear, random, type, s.rows, s.cols, s.tokens, 0.5f);
                // A float sum of groups, of which each may cost half a unit in the last place.
                const double tolerance = std::max(1e-6, static_cast<double>(s.cols / p4::packed_cols) * 0x1p-25);
                const std::size_t stride = s.rows + 6;
                buffer<std::byte> arranged(s.tokens * p4::arranged_bytes(s.cols), s.tokens % 2 * 4);
                // In two cuts, as two threads would.
                const std::size_t cut = random.below(s.tokens + 1);
                linear.arrange(c.x.data(), s.cols, s.cols, cut, s.tokens, s.tokens, arranged.data());
                linear.arrange(c.x.data(), s.cols, s.cols, 0, cut, s.tokens, arranged.data());
                std::vector<float> y(s.tokens * stride, phi4flash_test::canary);
                linear.matmul(c.w.data(), s.rows, s.cols, arranged.data(), s.tokens, c.bias.data(), y.data(), stride);
                // A product that did not fit would be off by a thousandth. Scales that this library fits are whole multiples of 2^-12.
                const double rounding = rounding_of(linear, type);
                CHECK(linear.weight_rounding <= (type == p4::dtype::q8 ? 0x1p-14f : 1.0f / 127.0f));  // what its documentation allows
                CHECK(c.worst(y, stride, rounding) < tolerance);
                // Such rounding is noise: over all outputs it nearly cancels, which the wrong weight in a place would not.
                std::vector<float> got;
                std::vector<float> want;
                for (std::size_t i = 0; i < c.expected.size(); ++i) {
                    want.push_back(static_cast<float>(c.expected[i].sum));
                    got.push_back(y[i / s.rows * stride + i % s.rows]);
                }
                CHECK(relative_error(want, got) < (rounding == 0.0 ? tolerance : type == p4::dtype::q8 ? 0.00005 : 0.002));
                for (std::size_t t = 0; t < s.tokens; ++t) {
                    for (std::size_t r = s.rows; r < stride; ++r) CHECK(y[t * stride + r] == phi4flash_test::canary);
                }
                // Without a bias, into rows that begin on cache lines.
                const std::size_t lines = (s.rows + 31) / 16 * 16;
                buffer<float> space(s.tokens * lines + 16, 0, phi4flash_test::canary);
                float* const plain = space.data() + (64 - reinterpret_cast<std::uintptr_t>(space.data()) % 64) / sizeof(float) % 16;
                linear.matmul(c.w.data(), s.rows, s.cols, arranged.data(), s.tokens, nullptr, plain, lines);
                for (std::size_t i = 0; i < s.tokens * lines; ++i) {
                    if (i % lines >= s.rows) CHECK(plain[i] == phi4flash_test::canary);
                }
                std::vector<float> biased(s.tokens * s.rows);
                for (std::size_t i = 0; i < biased.size(); ++i) biased[i] = plain[i / s.rows * lines + i % s.rows] + c.bias[i % s.rows];
                CHECK(c.worst(biased, s.rows, rounding) < tolerance);
                // Part of the rows: the same bits.
                const std::size_t first = s.rows >= 24 ? 8 : 0;
                std::vector<float> part(s.tokens * 8);
                linear.matmul(c.w.data() + p4::matrix_bytes(type, first, s.cols), 8, s.cols, arranged.data(), s.tokens, c.bias.data() + first,
                              part.data(), 8);
                for (std::size_t t = 0; t < s.tokens; ++t) CHECK(phi4flash_test::same_bits(part.data() + t * 8, y.data() + t * stride + first, 8));
                // Without a bias, and each token alone.
                std::vector<float> one(s.tokens * s.rows);
                for (std::size_t t = 0; t < s.tokens; ++t) {
                    const auto alone = arrange_one(linear, c.x.data() + t * s.cols, s.cols);
                    linear.matvec(c.w.data(), s.rows, s.cols, reinterpret_cast<const std::byte*>(alone.data()), nullptr, one.data() + t * s.rows);
                    for (std::size_t r = 0; r < s.rows; ++r) one[t * s.rows + r] += c.bias[r];
                }
                c.expect(linear, true);
                CHECK(c.worst(one, s.rows) < tolerance);
                for (std::size_t t = 0; t < s.tokens && s.tokens <= linear.few_tokens; ++t)  // the same bits together and alone
                    CHECK(phi4flash_test::same_bits(one.data() + t * s.rows, y.data() + t * stride, s.rows));
            }
        }
    });
}

TEST_CASE("every number of tokens from 1 to 33: a token has the same bits alone and among few") {
    phi4flash_test::generator random{9};
    struct shape {
        std::size_t rows, cols;
    };
    // One row of blocks, rows that fill no vector of two blocks, rows in four places with one, two and three left over; columns that fill no
    // block of groups, and one that do by one.
    const shape shapes[] = {{8, 32}, {24, 96}, {32, 256}, {40, 288}, {48, 64}, {56, 544}};
    for_each_target([&](const p4::kernel_table& kernels) {
        for (const p4::dtype type : formats) {
            CAPTURE(std::string(p4::name_of(type)));
            const p4::linear_kernels& linear = kernels.linear[static_cast<std::size_t>(type)];
            for (std::size_t tokens = 1; tokens <= 33; ++tokens) {
                const shape& s = shapes[tokens % std::size(shapes)];
                CAPTURE(tokens);
                CAPTURE(s.rows);
                packed_case c(linear, random, type, s.rows, s.cols, tokens, 0.5f);
                buffer<std::byte> arranged(tokens * p4::arranged_bytes(s.cols), tokens % 3 * 4);
                const std::size_t stride = s.rows + tokens % 4;
                buffer<float> y((tokens - 1) * stride + s.rows, tokens % 2, phi4flash_test::canary);
                std::vector<float> alone(s.rows);
                std::size_t differ = 0;
                if (tokens > 1) {
                    linear.arrange(c.x.data(), s.cols, s.cols, 0, tokens, tokens, arranged.data());
                    linear.matmul(c.w.data(), s.rows, s.cols, arranged.data(), tokens, c.bias.data(), y.data(), stride);
                    CHECK(phi4flash_test::gaps_untouched(y, s.rows, stride));
                }
                for (std::size_t t = 0; t < tokens; ++t) {
                    const auto x = arrange_one(linear, c.x.data() + t * s.cols, s.cols);
                    linear.matvec(c.w.data(), s.rows, s.cols, reinterpret_cast<const std::byte*>(x.data()), c.bias.data(), alone.data());
                    if (tokens == 1) std::copy(alone.begin(), alone.end(), y.data());
                    differ += phi4flash_test::same_bits(alone.data(), y.data() + t * stride, s.rows) ? 0u : 1u;
                }
                const std::vector<float> all(y.data(), y.data() + y.size());
                CHECK(c.worst(all, stride, rounding_of(linear, type)) < 1e-6);
                if (tokens <= linear.few_tokens) CHECK(differ == 0);
            }
        }
    });
}

TEST_CASE("scales of one row may differ as much as they like, and others' need not be multiples of anything") {
    phi4flash_test::generator random{7};
    for_each_target([&](const p4::kernel_table& kernels) {
        for (const p4::dtype type : formats) {
            const p4::linear_kernels& linear = kernels.linear[static_cast<std::size_t>(type)];
            for (const float spread : {0.0f, 1e-4f, 300.0f}) {
                packed_case c(linear, random, type, 16, 288, 48, spread);
                CHECK(c.worst(c.product(linear), 16, rounding_of(linear, type)) < 1e-6);
                if (type == p4::dtype::q8) continue;
                for (std::size_t b = 0; b < 2 * 9; ++b) {
                    for (p4::f16& scale : reinterpret_cast<p4::q4_block*>(c.w.data())[b].scale)
                        scale = p4::to_f16(p4::to_f32(scale) * random.uniform(0.7f, 1.3f));
                }
                c.expect(linear);
                CHECK(c.worst(c.product(linear), 16, 1.2 * static_cast<double>(linear.weight_rounding)) < 1e-6);
            }
        }
    });
}

TEST_CASE("weights that become bytes give the same bits on every target that has such") {
    phi4flash_test::generator random{11};
    for (const p4::dtype type : {p4::dtype::q4, p4::dtype::q4_dense}) {
        for (const std::size_t tokens : {64u, 73u, 96u, 280u}) {
            packed_case c(p4::best_kernels().linear[static_cast<std::size_t>(type)], random, type, 88, 2912, tokens, 0.0f);
            std::vector<float> first;
            for_each_target([&](const p4::kernel_table& kernels) {
                const p4::linear_kernels& linear = kernels.linear[static_cast<std::size_t>(type)];
                if (rounding_of(linear, type) == 0.0 || tokens <= linear.few_tokens) return;
                const std::vector<float> y = c.product(linear);
                if (first.empty()) first = y;
                CHECK(phi4flash_test::same_bits(first.data(), y.data(), y.size()));
            });
        }
    }
}
