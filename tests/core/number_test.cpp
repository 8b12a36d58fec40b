// Stored number types against naive conversions, every pattern of them.
#include <phi4flash/core/number.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string_view>
#include <vector>

using phi4flash::bf16;
using phi4flash::f16;

namespace {

/// The value of a binary number of `exponent_bits` and `fraction_bits`, from the definition of IEEE 754.
double value_of(std::uint32_t bits, int exponent_bits, int fraction_bits) {
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const double sign = (bits >> (exponent_bits + fraction_bits)) & 1u ? -1.0 : 1.0;
    const int exponent = static_cast<int>((bits >> fraction_bits) & ((1u << exponent_bits) - 1u));
    const double fraction = std::ldexp(static_cast<double>(bits & ((1u << fraction_bits) - 1u)), -fraction_bits);
    if (exponent == (1 << exponent_bits) - 1)
        return fraction == 0.0 ? sign * std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
    if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias);
    return sign * std::ldexp(1.0 + fraction, exponent - bias);
}

bool same(double a, double b) { return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b)); }

std::uint16_t to_narrow(float x, bool half) { return half ? phi4flash::to_f16(x).bits : phi4flash::to_bf16(x).bits; }

/// Rounding must pick the nearer neighbour, and the even one of a tie. Neighbours of positive numbers are consecutive patterns.
std::size_t count_misrounded(bool half) {
    const int exponent_bits = half ? 5 : 8;
    const int fraction_bits = half ? 10 : 7;
    const std::uint32_t infinity = ((1u << exponent_bits) - 1u) << fraction_bits;
    std::size_t wrong = 0;
    for (std::uint32_t bits = 0; bits < infinity; ++bits) {
        const double low = value_of(bits, exponent_bits, fraction_bits);
        // Above the largest number, infinity stands where the next would.
        const double high = bits + 1 == infinity ? 2.0 * low - value_of(bits - 1, exponent_bits, fraction_bits)
                                                 : value_of(bits + 1, exponent_bits, fraction_bits);
        const double middle = low + (high - low) / 2.0;
        const auto tie = static_cast<float>(middle);
        const std::uint32_t even = bits % 2 == 0 ? bits : bits + 1;
        if (static_cast<double>(tie) == middle) {  // bf16 subnormals have ties that a float cannot hold only below 2^-149
            wrong += to_narrow(tie, half) == even ? 0u : 1u;
            wrong += to_narrow(-tie, half) == (even | 0x8000u) ? 0u : 1u;
            wrong += to_narrow(std::nextafter(tie, 0.0f), half) == bits ? 0u : 1u;
            wrong += to_narrow(std::nextafter(tie, std::numeric_limits<float>::infinity()), half) == bits + 1 ? 0u : 1u;
        } else {
            ++wrong;
        }
    }
    return wrong;
}

}  // namespace

TEST_CASE("to_f32 is the value of each of the 65,536 patterns") {
    std::size_t wrong_half = 0;
    std::size_t wrong_bf16 = 0;
    for (std::uint32_t bits = 0; bits < 65536; ++bits) {
        const auto pattern = static_cast<std::uint16_t>(bits);
        wrong_half += same(static_cast<double>(phi4flash::to_f32(f16{pattern})), value_of(bits, 5, 10)) ? 0u : 1u;
        wrong_bf16 += same(static_cast<double>(phi4flash::to_f32(bf16{pattern})), value_of(bits, 8, 7)) ? 0u : 1u;
    }
    CHECK(wrong_half == 0);
    CHECK(wrong_bf16 == 0);
}

TEST_CASE("a number that fits comes back as the same pattern, NaN as NaN") {
    std::size_t wrong = 0;
    for (std::uint32_t bits = 0; bits < 65536; ++bits) {
        const f16 h{static_cast<std::uint16_t>(bits)};
        const bf16 b{static_cast<std::uint16_t>(bits)};
        const float h_value = phi4flash::to_f32(h);
        const float b_value = phi4flash::to_f32(b);
        wrong += std::isnan(h_value) ? !std::isnan(phi4flash::to_f32(phi4flash::to_f16(h_value))) : phi4flash::to_f16(h_value) != h;
        wrong +=
            std::isnan(b_value) ? !std::isnan(phi4flash::to_f32(phi4flash::to_bf16(b_value))) : phi4flash::to_bf16(b_value) != b;
    }
    CHECK(wrong == 0);
    // A NaN whose payload lies in the bits that are cut off must not become infinity.
    CHECK(std::isnan(phi4flash::to_f32(phi4flash::to_bf16(std::bit_cast<float>(0x7f800001u)))));
    CHECK(std::isnan(phi4flash::to_f32(phi4flash::to_f16(std::bit_cast<float>(0xff800001u)))));
}

TEST_CASE("rounding is to nearest, ties to even, at every midpoint and its neighbours") {
    CHECK(count_misrounded(true) == 0);
    CHECK(count_misrounded(false) == 0);
}

TEST_CASE("overflow becomes infinity, underflow zero, with the sign") {
    CHECK(phi4flash::to_f16(65504.0f).bits == 0x7bff);
    CHECK(phi4flash::to_f16(65519.0f).bits == 0x7bff);
    CHECK(phi4flash::to_f16(65520.0f).bits == 0x7c00);
    CHECK(phi4flash::to_f16(-1e10f).bits == 0xfc00);
    CHECK(phi4flash::to_f16(-std::numeric_limits<float>::infinity()).bits == 0xfc00);
    CHECK(phi4flash::to_f16(-1e-10f).bits == 0x8000);
    CHECK(phi4flash::to_bf16(std::numeric_limits<float>::max()).bits == 0x7f80);
    CHECK(phi4flash::to_bf16(-std::numeric_limits<float>::infinity()).bits == 0xff80);
    CHECK(phi4flash::to_bf16(-0.0f).bits == 0x8000);
}

TEST_CASE("finite or not: every half and bfloat16 against the float of the same value, and the ends of f32 and f64") {
    int wrong = 0;
    for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
        const f16 h{static_cast<std::uint16_t>(bits)};
        const bf16 b{static_cast<std::uint16_t>(bits)};
        const float h_value = phi4flash::to_f32(h);
        const float b_value = phi4flash::to_f32(b);
        wrong += phi4flash::is_finite(h) != phi4flash::is_finite(h_value) || phi4flash::is_finite(b) != phi4flash::is_finite(b_value);
        wrong += phi4flash::is_finite(h) != ((bits & 0x7fffu) < 0x7c00u) || phi4flash::is_finite(b) != ((bits & 0x7fffu) < 0x7f80u);
    }
    CHECK(wrong == 0);
    for (const std::uint32_t bits : {0x7f800000u, 0xff800000u, 0x7f800001u, 0xffc00000u, 0x7fffffffu}) {
        const auto x = std::bit_cast<float>(bits);
        CHECK_FALSE(phi4flash::is_finite(x));
        CHECK(phi4flash::is_nan(x) == ((bits & 0x7fffffffu) != 0x7f800000u));
    }
    for (const std::uint32_t bits : {0u, 1u, 0x7f7fffffu, 0xff7fffffu, 0x80000000u}) {
        const auto x = std::bit_cast<float>(bits);
        CHECK(phi4flash::is_finite(x));
        CHECK_FALSE(phi4flash::is_nan(x));
    }
    CHECK(phi4flash::is_finite(std::bit_cast<double>(std::uint64_t{0x7fefffffffffffffu})));
    CHECK_FALSE(phi4flash::is_finite(std::bit_cast<double>(std::uint64_t{0x7ff0000000000000u})));
    CHECK_FALSE(phi4flash::is_finite(std::bit_cast<double>(std::uint64_t{0xfff8000000000000u})));
}

TEST_CASE("whole numbers become integers, and what is no number 0") {
    for (const float x : {0.0f, -0.0f, 1.0f, -4064.0f, 8388608.0f, -8388608.0f}) CHECK(phi4flash::whole_or_zero(x) == static_cast<std::int32_t>(x));
    for (const std::uint32_t bits : {0x7f800000u, 0xff800000u, 0x7fc00000u, 0xffffffffu, 0x4b000001u, 0xcb000001u, 0x4e800000u, 0xcf000000u})
        CHECK(phi4flash::whole_or_zero(std::bit_cast<float>(bits)) == 0);
}

TEST_CASE("the first number that is not finite is found wherever it is") {
    for (const std::size_t n : {0u, 1u, 255u, 256u, 257u, 1000u}) {
        std::vector<float> x(n, 1.0f);
        CHECK(phi4flash::first_not_finite(std::span<const float>(x)) == n);
        for (std::size_t at = 0; at < n; at += at % 256 < 4 ? 1 : 61) {
            x[at] = std::bit_cast<float>(at % 2 == 0 ? 0x7fc00000u : 0xff800000u);
            if (at + 1 < n) x[n - 1] = x[at];
            CHECK(phi4flash::first_not_finite(std::span<const float>(x)) == at);
            x[at] = x[n - 1] = 1.0f;
        }
    }
}

TEST_CASE("conversions work at compile time, and types have names and sizes") {
    static_assert(phi4flash::to_f32(phi4flash::to_f16(0.333251953125f)) == 0.333251953125f);
    static_assert(phi4flash::to_bf16(1.0f).bits == 0x3f80);
    static_assert(phi4flash::from_f32<float>(1.5f) == 1.5f);
    static_assert(phi4flash::from_f32<f16>(1.0f).bits == 0x3c00);
    static_assert(phi4flash::size_of(phi4flash::dtype::f32) == 4 && phi4flash::size_of(phi4flash::dtype::bf16) == 2);
    static_assert(phi4flash::dtype_of<f16> == phi4flash::dtype::f16 && phi4flash::dtype_of<float> == phi4flash::dtype::f32);
    CHECK(std::string_view(phi4flash::name_of(phi4flash::dtype::bf16)) == "BF16");
}
