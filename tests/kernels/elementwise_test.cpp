// Norms, activations, softmax and rotation against double precision, and the elementary functions over their whole range.
#include "support/reference.hpp"
#include "support/test_support.hpp"

#include <phi4flash/core/memory.hpp>
#include <phi4flash/kernels/dispatch.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>

using namespace phi4flash_test;
using phi4flash::kernel_table;

namespace {

/// Every length that has a ragged end somewhere, and the model's own.
std::vector<std::size_t> lengths() {
    std::vector<std::size_t> n;
    for (std::size_t i = 1; i <= 70; ++i) n.push_back(i);
    for (const std::size_t i : {128u, 1000u, 2560u, 5120u}) n.push_back(i);
    return n;
}

std::vector<double> widened(const buffer<float>& x) { return {x.data(), x.data() + x.size()}; }

/// Floats in [low, high]: every 2,039th pattern, and evenly spaced ones.
std::vector<float> sweep(float low, float high) {
    std::vector<float> x;
    for (std::uint64_t bits = 0; bits < (std::uint64_t{1} << 32); bits += 2039) {
        const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
        if (value >= low && value <= high) x.push_back(value);
    }
    constexpr std::size_t steps = 1000000;
    for (std::size_t i = 0; i <= steps; ++i) x.push_back(low + (high - low) * (static_cast<float>(i) / static_cast<float>(steps)));
    return x;
}

}  // namespace

TEST_CASE("silu over its range") {
    for_each_target([](const kernel_table& kernels) {
        const std::vector<float> x = sweep(-100.0f, 100.0f);
        const std::vector<float> one(x.size(), 1.0f);
        std::vector<float> y(x.size());
        kernels.silu_mul(x.data(), one.data(), x.size(), y.data());
        worst error;
        worst beyond;
        for (std::size_t i = 0; i < x.size(); ++i) {
            const double want = reference::silu(static_cast<double>(x[i]));
            if (x[i] >= -87.0f) {
                if (!(std::fabs(static_cast<double>(y[i]) - want) <= flushed)) error.see(ulp_error(y[i], want));
            } else {
                beyond.see(std::fabs(static_cast<double>(y[i]) - want));
            }
        }
        report("silu, x >= -87", kernels, error, "ulp");
        report("silu, x < -87", kernels, beyond, "");
        CHECK(error.value <= 4.0);
        CHECK(beyond.value <= 1e-36 + 50.0 * flushed);  // of the exponential, times x
    });
}

TEST_CASE("softplus over its range") {
    for_each_target([](const kernel_table& kernels) {
        const std::vector<float> x = sweep(-100.0f, 100.0f);
        std::vector<float> y(x.size());
        kernels.softplus(x.data(), x.size(), y.data());
        worst error;
        worst beyond;
        for (std::size_t i = 0; i < x.size(); ++i) {
            const double want = reference::softplus(static_cast<double>(x[i]));
            if (x[i] >= -87.0f) {
                if (!(std::fabs(static_cast<double>(y[i]) - want) <= flushed)) error.see(ulp_error(y[i], want));
            } else {
                beyond.see(std::fabs(static_cast<double>(y[i]) - want));
            }
        }
        report("softplus, x >= -87", kernels, error, "ulp");
        report("softplus, x < -87", kernels, beyond, "");
        CHECK(error.value <= 4.0);
        CHECK(beyond.value <= 2e-38);
        float far[2] = {-1e30f, 1e30f};
        kernels.softplus(far, 2, far);
        CHECK((far[0] >= 0.0f && far[0] <= 2e-38f && far[1] == 1e30f));
        std::vector<float> broken(37, std::numeric_limits<float>::quiet_NaN());
        kernels.softplus(broken.data(), broken.size(), broken.data());
        CHECK(std::all_of(broken.begin(), broken.end(), [](float v) { return std::isnan(v); }));
    });
}

// The state of the scan is 2^(dt a) h: with a = h = 1 and no input that is exp2 itself.
TEST_CASE("exp2 over its range") {
    for_each_target([](const kernel_table& kernels) {
        const std::vector<float> x = sweep(-126.0f, 127.0f);
        const std::size_t n = x.size();
        const std::size_t blocked = phi4flash::round_up(n, phi4flash::channel_block);
        const std::vector<float> zeros(n, 0.0f);
        const std::vector<float> a(blocked, 1.0f);
        std::vector<float> h(blocked, 1.0f);
        std::vector<float> y(n);
        const float bc[1] = {0.0f};
        kernels.scan({.u = zeros.data(),
                      .dt = x.data(),
                      .b = bc,
                      .c = bc,
                      .bc_stride = 1,
                      .a_log2e = a.data(),
                      .d = zeros.data(),
                      .h = h.data(),
                      .kept = {.first = h.data(), .stride = 0, .count = 1},
                      .y = y.data(),
                      .tokens = 1,
                      .d_inner = n,
                      .d_state = 1},
                     0, blocked / phi4flash::channel_block);
        worst error;
        for (std::size_t i = 0; i < n; ++i) error.see(ulp_error(h[i], std::exp2(static_cast<double>(x[i]))));
        report("exp2", kernels, error, "ulp");
        CHECK(error.value <= 2.0);
    });
}

// softmax of {0, x} is {1, e^x} / (1 + e^x). Below -17 the sum is 1 and e^x itself comes out; above, the ratio of the two
// carries the rounding of two products besides.
TEST_CASE("exp of negative numbers") {
    for_each_target([](const kernel_table& kernels) {
        const std::vector<float> x = sweep(-87.3f, 0.0f);
        worst direct;
        worst ratio;
        for (const float value : x) {
            float p[2] = {0.0f, value};
            kernels.softmax(p, 2, 1.0f);
            const double want = std::exp(static_cast<double>(value));
            if (value < -17.5f) {
                direct.see(ulp_error(p[1], want));
            } else {
                ratio.see(std::fabs(static_cast<double>(p[1]) / static_cast<double>(p[0]) - want) / ulp_at(want));
            }
        }
        report("exp", kernels, direct, "ulp");
        report("exp as a ratio", kernels, ratio, "ulp");
        CHECK(direct.value <= 2.0);
        CHECK(ratio.value <= 3.5);
    });
}

TEST_CASE("silu_mul, softplus and accumulate at every length, misaligned and in place") {
    for_each_target([](const kernel_table& kernels) {
        generator random(10);
        for (std::size_t n = 0; n <= 70; ++n) {
            CAPTURE(n);
            const auto gate = random_buffer<float>(random, n, n % 2, -20.0f, 20.0f);
            const auto x = random_buffer<float>(random, n, n % 3);
            buffer<float> y(n, n % 2, canary);
            kernels.silu_mul(gate.data(), x.data(), n, y.data());
            worst error;
            for (std::size_t i = 0; i < n; ++i)
                error.see(ulp_error(y[i], reference::silu(static_cast<double>(gate[i])) * static_cast<double>(x[i])));
            CHECK(error.value <= 4.0);
            buffer<float> over_gate = gate;
            kernels.silu_mul(over_gate.data(), x.data(), n, over_gate.data());
            CHECK(same_bits(over_gate, y));
            buffer<float> over_x = x;
            kernels.silu_mul(gate.data(), over_x.data(), n, over_x.data());
            CHECK(same_bits(over_x.data(), y.data(), n));

            buffer<float> z(n, n % 2, canary);
            kernels.softplus(gate.data(), n, z.data());
            worst softplus_error;
            for (std::size_t i = 0; i < n; ++i)
                softplus_error.see(ulp_error(z[i], reference::softplus(static_cast<double>(gate[i]))));
            CHECK(softplus_error.value <= 4.0);
            buffer<float> in_place = gate;
            kernels.softplus(in_place.data(), n, in_place.data());
            CHECK(same_bits(in_place, z));
            // Where an element lies in the array does not matter.
            for (std::size_t i = 0; i < n; ++i) {
                float alone[2] = {canary, canary};
                kernels.silu_mul(&gate[i], &x[i], 1, &alone[0]);
                kernels.softplus(&gate[i], 1, &alone[1]);
                if (!same_bits(&alone[0], &y[i], 1) || !same_bits(&alone[1], &z[i], 1))
                    FAIL_CHECK("element ", i, " depends on its place");
            }

            buffer<float> sum = z;
            kernels.accumulate(x.data(), n, sum.data());
            bool exact = true;
            for (std::size_t i = 0; i < n; ++i) exact = exact && sum[i] == z[i] + x[i];
            CHECK(exact);
        }
    });
}

TEST_CASE("layer_norm and rms_norm") {
    for_each_target([](const kernel_table& kernels) {
        generator random(11);
        worst layer_error;
        worst rms_error;
        for (const std::size_t n : lengths()) {
            for (const float mean : {0.0f, 100.0f}) {
                CAPTURE(n);
                CAPTURE(mean);
                const std::size_t offset = n % 2;
                const auto x = random_buffer<float>(random, n, offset, mean - 2.0f, mean + 2.0f);
                const auto weight = random_buffer<float>(random, n, offset, 0.5f, 1.5f);
                const auto bias = random_buffer<float>(random, n, offset);
                const float eps = 1e-5f;
                const auto m = reference::moments_of(widened(x));
                const double inverse = 1.0 / std::sqrt(m.variance + static_cast<double>(eps));
                buffer<float> y(n, offset, canary);
                kernels.layer_norm(x.data(), weight.data(), bias.data(), eps, n, y.data());
                worst here;
                for (std::size_t i = 0; i < n; ++i) {
                    const double scaled = (static_cast<double>(x[i]) - m.mean) * inverse * static_cast<double>(weight[i]);
                    // The mean is known to an ulp of the numbers themselves: that much of the result is lost to any f32 method.
                    const double unit = ulp_at(static_cast<double>(mean) + 2.0) * inverse +
                                        ulp_at(std::fabs(scaled) + std::fabs(static_cast<double>(bias[i])));
                    here.see(std::fabs(static_cast<double>(y[i]) - scaled - static_cast<double>(bias[i])) / unit);
                }
                CHECK(here.value <= 4.0);
                layer_error.see(here.value);
                buffer<float> in_place = x;
                kernels.layer_norm(in_place.data(), weight.data(), bias.data(), eps, n, in_place.data());
                CHECK(same_bits(in_place, y));

                kernels.rms_norm(x.data(), weight.data(), eps, n, y.data());
                const double rms_inverse = 1.0 / std::sqrt(m.mean_square + static_cast<double>(eps));
                worst rms_here;
                for (std::size_t i = 0; i < n; ++i)
                    rms_here.see(ulp_error(y[i], static_cast<double>(x[i]) * rms_inverse * static_cast<double>(weight[i])));
                CHECK(rms_here.value <= 8.0);
                rms_error.see(rms_here.value);
                in_place = x;
                kernels.rms_norm(in_place.data(), weight.data(), eps, n, in_place.data());
                CHECK(same_bits(in_place, y));
            }
        }
        report("layer_norm", kernels, layer_error, "ulp");
        report("rms_norm", kernels, rms_error, "ulp");
        // All equal: no variance, eps alone under the root.
        buffer<float> flat(37, 1, 3.0f);
        const buffer<float> weight(37, 1, 2.0f);
        const buffer<float> bias(37, 1, 0.25f);
        kernels.layer_norm(flat.data(), weight.data(), bias.data(), 1e-5f, 37, flat.data());
        for (const float v : flat) CHECK(v == doctest::Approx(0.25f));
    });
}

TEST_CASE("difference_norm") {
    for_each_target([](const kernel_table& kernels) {
        generator random(12);
        worst error;
        for (const std::size_t n : lengths()) {
            CAPTURE(n);
            const std::size_t offset = n % 2;
            const auto first = random_buffer<float>(random, n, offset);
            const auto second = random_buffer<float>(random, n, offset);
            const auto weight = random_buffer<float>(random, n, offset, 0.5f, 1.5f);
            const float lambda = random.uniform(0.1f, 0.9f);
            std::vector<double> difference;
            for (std::size_t i = 0; i < n; ++i)
                difference.push_back(static_cast<double>(first[i]) - static_cast<double>(lambda) * static_cast<double>(second[i]));
            const double inverse = 1.0 / std::sqrt(reference::moments_of(difference).mean_square + 1e-5);
            buffer<float> y(n, offset, canary);
            kernels.difference_norm(first.data(), second.data(), lambda, weight.data(), 1e-5f, n, y.data());
            worst here;
            for (std::size_t i = 0; i < n; ++i) {
                const double want = difference[i] * inverse * static_cast<double>(weight[i]);
                // The subtraction rounds at the size of what is subtracted.
                const double scale =
                    (std::fabs(static_cast<double>(first[i])) + std::fabs(static_cast<double>(lambda * second[i]))) * inverse;
                here.see(std::fabs(static_cast<double>(y[i]) - want) / (ulp_at(want) + ulp_at(scale)));
            }
            CHECK(here.value <= 4.0);
            error.see(here.value);
            buffer<float> in_place = first;
            kernels.difference_norm(in_place.data(), second.data(), lambda, weight.data(), 1e-5f, n, in_place.data());
            CHECK(same_bits(in_place, y));
        }
        report("difference_norm", kernels, error, "ulp");
    });
}

TEST_CASE("softmax") {
    for_each_target([](const kernel_table& kernels) {
        generator random(13);
        kernels.softmax(nullptr, 0, 1.0f);
        worst error;
        std::vector<std::size_t> sizes = lengths();
        sizes.push_back(200064);
        for (const std::size_t n : sizes) {
            for (const float inverse_temperature : {1.0f, 0.25f, 3.0f}) {
                CAPTURE(n);
                CAPTURE(inverse_temperature);
                auto x = random_buffer<float>(random, n, n % 2, -12.0f, 12.0f);
                if (n % 3 == 1) x[n / 2] = 500.0f;  // everything else vanishes, exactly or nearly
                const std::vector<double> want = reference::softmax(widened(x), static_cast<double>(inverse_temperature));
                kernels.softmax(x.data(), n, inverse_temperature);
                // The exponent e = (x - max) / temperature is rounded twice: 2 |e| ulp of the result, besides those of exp and
                // of the sum.
                const double highest = *std::max_element(want.begin(), want.end());
                worst here;
                double total = 0.0;
                for (std::size_t i = 0; i < n; ++i) {
                    total += static_cast<double>(x[i]);
                    const double exponent = std::log(highest / want[i]);
                    here.see(exponent > 80.0 ? static_cast<double>(x[i]) / 1e-34
                                             : ulp_error(x[i], want[i]) / (12.0 + 2.0 * exponent));
                }
                CHECK(here.value <= 1.0);
                CHECK(total == doctest::Approx(1.0).epsilon(2e-6));
                error.see(here.value);
            }
        }
        report("softmax", kernels, error, "(12 + 2 |exponent|) ulp");
    });
}

TEST_CASE("rotate") {
    for_each_target([](const kernel_table& kernels) {
        generator random(14);
        worst error;
        for (std::size_t half = 0; half <= 70; ++half) {
            CAPTURE(half);
            auto x = random_buffer<float>(random, 2 * half, half % 2);
            const auto before = x;
            buffer<float> cosine(half, half % 2);
            buffer<float> sine(half, half % 2);
            for (std::size_t i = 0; i < half; ++i) {
                const double angle = static_cast<double>(random.uniform(0.0f, 6.28f));
                cosine[i] = static_cast<float>(std::cos(angle));
                sine[i] = static_cast<float>(std::sin(angle));
            }
            kernels.rotate(x.data(), cosine.data(), sine.data(), half);
            worst here;
            for (std::size_t i = 0; i < half; ++i) {
                const double a = static_cast<double>(before[i]);
                const double b = static_cast<double>(before[half + i]);
                const double c = static_cast<double>(cosine[i]);
                const double s = static_cast<double>(sine[i]);
                here.see(std::fabs(static_cast<double>(x[i]) - (a * c - b * s)) / ulp_at(std::fabs(a * c) + std::fabs(b * s)));
                here.see(std::fabs(static_cast<double>(x[half + i]) - (a * s + b * c)) /
                         ulp_at(std::fabs(a * s) + std::fabs(b * c)));
            }
            CHECK(here.value <= 2.0);
            error.see(here.value);
        }
        report("rotate", kernels, error, "ulp of |a c| + |b s|");
    });
}
