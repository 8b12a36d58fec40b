/// Measures of quality against the formulas, computed naively in long double.
#include "support/test_support.hpp"

#include <phi4flash/core/packing.hpp>
#include <phi4flash/kernels/dispatch.hpp>
#include <phi4flash/model/quality.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace p4 = phi4flash;

namespace {

std::vector<long double> probabilities(const std::vector<float>& logits) {
    long double total = 0.0L;
    std::vector<long double> p;
    for (const float x : logits) total += p.emplace_back(std::exp(static_cast<long double>(x)));
    for (long double& x : p) x /= total;
    return p;
}

std::vector<float> random_logits(phi4flash_test::generator& random, std::size_t n, float size) {
    std::vector<float> x(n);
    for (float& v : x) v = random.uniform(-size, size);
    return x;
}

}  // namespace

TEST_CASE("predictions are compared by their formulas") {
    phi4flash_test::generator random{81};
    for (const std::size_t vocab : {1u, 2u, 7u, 1000u}) {
        for (const float size : {0.1f, 3.0f, 30.0f}) {
            const std::vector<float> a = random_logits(random, vocab, size);
            std::vector<float> b = random_logits(random, vocab, size);
            const std::size_t next = random.below(vocab);
            const auto p = probabilities(a);
            const auto q = probabilities(b);
            long double divergence = 0.0L;
            for (std::size_t i = 0; i < vocab; ++i) divergence += p[i] * std::log(p[i] / q[i]);
            for (float& x : b) x += 500.0f;  // logits are known but for a constant; some of the numbers round
            const p4::prediction_difference d = p4::compare_predictions(a, b, next);
            CHECK(d.divergence == doctest::Approx(static_cast<double>(divergence)).epsilon(1e-4));
            CHECK(d.reference_loss == doctest::Approx(static_cast<double>(-std::log(p[next]))).epsilon(1e-12));
            CHECK(d.loss == doctest::Approx(static_cast<double>(-std::log(q[next]))).epsilon(1e-4));
            CHECK(d.same_top == (std::ranges::max_element(a) - a.begin() == std::ranges::max_element(b) - b.begin()));
            const p4::prediction_difference same = p4::compare_predictions(a, a, next);
            CHECK(same.divergence == 0.0);
            CHECK(same.loss == same.reference_loss);
            CHECK(same.same_top);
        }
    }
}

TEST_CASE("divergence is not symmetric, and small ones are not lost in rounding") {
    const std::vector<float> even{0.0f, 0.0f};
    const std::vector<float> sure{0.0f, 4.0f};
    const double p = 1.0 / (1.0 + std::exp(4.0));
    CHECK(p4::compare_predictions(even, sure, 0).divergence ==
          doctest::Approx(0.5 * std::log(0.5 / p) + 0.5 * std::log(0.5 / (1.0 - p))));
    CHECK(p4::compare_predictions(sure, even, 0).divergence ==
          doctest::Approx(p * std::log(p / 0.5) + (1.0 - p) * std::log((1.0 - p) / 0.5)));
    // Between x and x + d: d^2 p (1 - p) / 2 to the first order.
    const std::vector<float> near{0.0f, 0x1p-16f};
    CHECK(p4::compare_predictions(even, near, 0).divergence == doctest::Approx(0x1p-32 / 8.0).epsilon(1e-3));
}

TEST_CASE("impossible tokens: what the reference rules out costs nothing, what only the candidate rules out costs everything") {
    const float never = -std::numeric_limits<float>::infinity();
    const std::vector<float> without{1.0f, 2.0f, never};
    const std::vector<float> with{1.0f, 2.0f, 1.5f};
    const double lost = p4::compare_predictions(without, with, 0).divergence;
    CHECK(std::isfinite(lost));
    CHECK(lost > 0.1);
    CHECK(std::isinf(p4::compare_predictions(with, without, 0).divergence));
    CHECK(p4::compare_predictions(without, without, 0).divergence == 0.0);
    CHECK(std::isnan(p4::compare_predictions(with, {std::vector<float>(3, phi4flash_test::nan_f32)}, 0).divergence));
}

TEST_CASE("a tally's means, error and quantiles") {
    p4::prediction_tally tally;
    CHECK(*tally.divergence_quantile(0.99) == 0.0);
    for (int i = 200; i >= 1; --i)
        REQUIRE(tally.add({.divergence = i * 0.01,
                           .reference_loss = i % 2 == 0 ? 1.0 : 2.0,
                           .loss = i % 2 == 0 ? 1.0 : 3.0,
                           .same_top = i % 4 != 0}));
    CHECK(tally.count() == 200);
    CHECK(tally.mean_divergence() == doctest::Approx(1.005));
    CHECK(tally.reference_perplexity() == doctest::Approx(std::exp(1.5)));
    CHECK(tally.perplexity() == doctest::Approx(std::exp(2.0)));
    CHECK(tally.perplexity_ratio() == doctest::Approx(std::exp(0.5)));
    CHECK(tally.agreement() == doctest::Approx(0.75));
    CHECK(*tally.divergence_quantile(0.99) == 1.98);
    CHECK(*tally.divergence_quantile(0.5) == 1.0);
    CHECK(*tally.divergence_quantile(1.0) == 2.0);
    CHECK(*tally.divergence_quantile(1e-9) == 0.01);
    // The variance of 1 to n is (n^2 + n) / 12 with n - 1 below.
    CHECK(tally.divergence_error() == doctest::Approx(0.01 * std::sqrt((200.0 * 200.0 + 200.0) / 12.0 / 200.0)));
}

TEST_CASE("matrices of any types are compared row by row") {
    phi4flash_test::generator random{82};
    const std::size_t rows = 16;
    const std::size_t cols = 96;
    std::vector<float> w(rows * cols);
    for (float& x : w) x = random.uniform(-1.0f, 1.0f);
    const p4::matrix_view plain{reinterpret_cast<const std::byte*>(w.data()), rows, cols, p4::dtype::f32};
    std::vector<float> scratch(p4::packed_rows * cols);
    phi4flash_test::for_each_target([&](const p4::kernel_table& kernels) {
        CHECK(p4::compare_weights(kernels, plain, plain, 0, rows, scratch.data()).difference == 0.0);
        for (const p4::dtype type : {p4::dtype::q8, p4::dtype::q4, p4::dtype::q4_dense}) {
            std::vector<std::byte> packed(p4::matrix_bytes(type, rows, cols));
            for (std::size_t r = 0; r < rows; r += p4::packed_rows)
                p4::pack_eight_rows(plain, r, type, scratch.data(), packed.data() + p4::matrix_bytes(type, r, cols));
            const p4::matrix_view view{packed.data(), rows, cols, type};
            double difference = 0.0;
            double square = 0.0;
            for (std::size_t r = 3; r < 13; ++r) {
                std::vector<float> row(cols);
                for (std::size_t g = 0; g < cols / 32; ++g) {
                    const std::size_t at = r / 8 * (cols / 32) + g;
                    if (type == p4::dtype::q8) {
                        p4::decode_row(reinterpret_cast<const p4::q8_block*>(packed.data())[at], r % 8, row.data() + 32 * g);
                    } else {
                        const p4::q4_codebook& book = type == p4::dtype::q4 ? p4::q4_uniform : p4::q4_dense;
                        p4::decode_row(reinterpret_cast<const p4::q4_block*>(packed.data())[at], book, r % 8, row.data() + 32 * g);
                    }
                }
                for (std::size_t c = 0; c < cols; ++c) {
                    difference += std::pow(static_cast<double>(w[r * cols + c]) - static_cast<double>(row[c]), 2.0);
                    square += std::pow(static_cast<double>(w[r * cols + c]), 2.0);
                }
            }
            p4::weight_difference sum = p4::compare_weights(kernels, plain, view, 3, 4, scratch.data());
            sum += p4::compare_weights(kernels, plain, view, 7, 6, scratch.data());
            CHECK(sum.difference == doctest::Approx(difference).epsilon(1e-12));
            CHECK(sum.reference == doctest::Approx(square).epsilon(1e-12));
            CHECK(sum.relative() == doctest::Approx(std::sqrt(difference / square)));
            CHECK(sum.relative() > 0.001);
        }
    });
}
