#pragma once
/// Stored number types: bfloat16 and IEEE half as plain 16-bit storage, the run-time name of an element type, and whether numbers are
/// finite.
#include <phi4flash/config/abi.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

PHI4FLASH_BEGIN

/// bfloat16: the upper half of an IEEE binary32. Storage only; arithmetic is f32.
struct bf16 {
    std::uint16_t bits = 0;
    friend constexpr bool operator==(bf16, bf16) = default;
};

/// IEEE binary16. Storage only; arithmetic is f32.
struct f16 {
    std::uint16_t bits = 0;
    friend constexpr bool operator==(f16, f16) = default;
};

/// Whether x is neither infinite nor NaN. Comparisons and std::isnan may be compiled away where the host builds with -ffast-math, so
/// this looks at the bits, and at those in memory: compilers take it that a float passed or computed by such code is finite. @since 0.2
[[nodiscard]] constexpr bool is_finite(const float& x) { return (std::bit_cast<std::uint32_t>(x) & 0x7f800000u) != 0x7f800000u; }
[[nodiscard]] constexpr bool is_finite(const double& x) {
    return (std::bit_cast<std::uint64_t>(x) & 0x7ff0000000000000u) != 0x7ff0000000000000u;
}
[[nodiscard]] constexpr bool is_finite(bf16 x) { return (x.bits & 0x7f80u) != 0x7f80u; }
[[nodiscard]] constexpr bool is_finite(f16 x) { return (x.bits & 0x7c00u) != 0x7c00u; }
/// A float that holds a whole number of at most 2^23, as an integer; 0 for what is larger, for infinity and for NaN: damaged weights make all of
/// them, of which such a conversion, or a product with what comes of it, is undefined. @since 0.2
[[nodiscard]] constexpr std::int32_t whole_or_zero(const float& x) {
    constexpr auto largest = std::bit_cast<std::uint32_t>(0x1p23f);
    return (std::bit_cast<std::uint32_t>(x) & 0x7fffffffu) <= largest ? static_cast<std::int32_t>(x) : 0;
}
/// By its bits, as is_finite. @since 0.2
[[nodiscard]] constexpr bool is_nan(const float& x) { return (std::bit_cast<std::uint32_t>(x) & 0x7fffffffu) > 0x7f800000u; }

/// The place of the first number that is not finite; the count where all are. A fraction of what it takes to read them from memory. @since 0.2
template <class T>
[[nodiscard]] constexpr std::size_t first_not_finite(std::span<const T> numbers) {
    constexpr std::size_t block = 256;  // of a length known to the compiler, without an early end: vectors
    std::size_t i = 0;
    for (; i + block <= numbers.size(); i += block) {
        unsigned found = 0;
        for (std::size_t k = 0; k < block; ++k) found |= is_finite(numbers[i + k]) ? 0u : 1u;
        if (found != 0) break;
    }
    while (i < numbers.size() && is_finite(numbers[i])) ++i;
    return i;
}

[[nodiscard]] constexpr float to_f32(float x) { return x; }

[[nodiscard]] constexpr float to_f32(bf16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16); }

/// Exact, subnormals, infinities and NaN included.
[[nodiscard]] constexpr float to_f32(f16 x) {
    const std::uint32_t sign = static_cast<std::uint32_t>(x.bits & 0x8000u) << 16;
    const std::uint32_t magnitude = static_cast<std::uint32_t>(x.bits & 0x7fffu) << 13;
    if ((x.bits & 0x7c00u) == 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | magnitude);
    // The exponent bias differs by 112. A subnormal gets the exponent of the least normal half, which is then taken off again: no
    // subnormal float may take part, as hosts with -ffast-math, and audio programs, have the processor treat those as zero.
    const std::uint32_t normal = magnitude + 0x38000000u;
    const float subnormal = std::bit_cast<float>(magnitude | 0x38800000u) - 0x1p-14f;
    return std::bit_cast<float>(sign | ((x.bits & 0x7c00u) != 0 ? normal : std::bit_cast<std::uint32_t>(subnormal)));
}

/// Round to nearest, ties to even. NaN stays NaN.
[[nodiscard]] constexpr bf16 to_bf16(float x) {
    const auto bits = std::bit_cast<std::uint32_t>(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((bits >> 16) | 0x40u)};
    return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

/// Round to nearest, ties to even; overflow becomes infinity. NaN stays NaN.
[[nodiscard]] constexpr f16 to_f16(float x) {
    const auto bits = std::bit_cast<std::uint32_t>(x);
    const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
    const std::uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return {static_cast<std::uint16_t>(sign | 0x7e00u)};
    if (magnitude >= 0x477ff000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};  // >= 65520
    if (magnitude < 0x38800000u) {                                                       // subnormal half or zero
        // Adding 0.5 aligns the half's last bit (2^-24) with the float's, so the addition itself rounds.
        const float aligned = std::bit_cast<float>(magnitude) + 0.5f;
        return {static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(aligned) - 0x3f000000u))};
    }
    const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return {static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
}

/// Stores `x` as an element of type T, rounding where T is narrower.
template <class T>
[[nodiscard]] constexpr T from_f32(float x);
template <>
constexpr float from_f32<float>(float x) { return x; }
template <>
constexpr bf16 from_f32<bf16>(float x) { return to_bf16(x); }
template <>
constexpr f16 from_f32<f16>(float x) { return to_f16(x); }

/// How the numbers of a tensor in a file or a matrix in memory are stored. Order is also the index into kernel tables: first the
/// plain element types, then the packed formats of core/packed.hpp.
enum class dtype : std::uint8_t { f32, f16, bf16, q8, q4, q4_dense };
inline constexpr std::size_t plain_dtype_count = 3;  ///< the first ones of dtype: an element at a time
inline constexpr std::size_t dtype_count = 6;  ///< of dtype

/// Whether weights of this type are blocks (core/packed.hpp).
[[nodiscard]] constexpr bool is_packed(dtype t) { return static_cast<std::size_t>(t) >= plain_dtype_count; }
/// Whether this program has the kernels for weights of this type (PHI4FLASH_HAS_WEIGHTS_F32 and so on). @since 0.2
[[nodiscard]] constexpr bool is_compiled(dtype t) {
    constexpr bool there[dtype_count] = {PHI4FLASH_HAS_WEIGHTS_F32 != 0, PHI4FLASH_HAS_WEIGHTS_F16 != 0, PHI4FLASH_HAS_WEIGHTS_BF16 != 0,
                                         PHI4FLASH_HAS_WEIGHTS_Q8 != 0,  PHI4FLASH_HAS_WEIGHTS_Q4 != 0,  PHI4FLASH_HAS_WEIGHTS_Q4_DENSE != 0};
    return there[static_cast<std::size_t>(t)];
}
/// Bytes of an element of a plain type.
[[nodiscard]] constexpr std::size_t size_of(dtype t) { return t == dtype::f32 ? 4 : 2; }
/// As files and sentences have it: "BF16", "Q4_DENSE".
[[nodiscard]] constexpr const char* name_of(dtype t) {
    constexpr const char* names[dtype_count] = {"F32", "F16", "BF16", "Q8", "Q4", "Q4_DENSE"};
    return names[static_cast<std::size_t>(t)];
}

/// The type whose elements are T: float, f16 or bf16.
template <class T>
inline constexpr dtype dtype_of = dtype::f32;
template <>
inline constexpr dtype dtype_of<f16> = dtype::f16;
template <>
inline constexpr dtype dtype_of<bf16> = dtype::bf16;

PHI4FLASH_END
