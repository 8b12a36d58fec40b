#pragma once
/// How keys and values are kept between tokens: f32, bf16, or 8 bits with a scale for each head of each token.
#include <phi4flash/core/number.hpp>

#include <concepts>

PHI4FLASH_BEGIN

/// A key's or value's number in 8 bits: x = scale * code, code in [-127, 127]. The scale is a bf16, one for each head of each token, so
/// that a loud head or token costs no other one its precision. Half the memory of bf16 and a little (132 bytes for a head's key and
/// value of 64 numbers each, instead of 256); |x - scale * code| <= scale / 2, and scale is the largest |x| of the head by 127.
/// Storage only; arithmetic is f32.
struct kv_int8 {
    std::int8_t code = 0;
    friend constexpr bool operator==(kv_int8, kv_int8) = default;
};

/// The code, without its scale.
[[nodiscard]] constexpr float to_f32(kv_int8 x) { return static_cast<float>(x.code); }

/// Order is also the index into kernel tables.
enum class kv_format : std::uint8_t { f32, bf16, int8 };
inline constexpr std::size_t kv_format_count = 3;  ///< of kv_format

/// Whether this program has the kernels for keys and values of this format (PHI4FLASH_HAS_KV_F32 and so on). @since 0.2
[[nodiscard]] constexpr bool is_compiled(kv_format f) {
    constexpr bool there[kv_format_count] = {PHI4FLASH_HAS_KV_F32 != 0, PHI4FLASH_HAS_KV_BF16 != 0, PHI4FLASH_HAS_KV_INT8 != 0};
    return there[static_cast<std::size_t>(f)];
}
/// As macros have it: "BF16".
[[nodiscard]] constexpr const char* name_of(kv_format f) {
    constexpr const char* names[kv_format_count] = {"F32", "BF16", "INT8"};
    return names[static_cast<std::size_t>(f)];
}

/// The element types that keys and values may have.
template <class Kv>
concept kv_element = std::same_as<Kv, float> || std::same_as<Kv, bf16> || std::same_as<Kv, kv_int8>;

/// The format whose elements are of this type.
template <kv_element Kv>
inline constexpr kv_format kv_format_of = kv_format::f32;
template <>
inline constexpr kv_format kv_format_of<bf16> = kv_format::bf16;
template <>
inline constexpr kv_format kv_format_of<kv_int8> = kv_format::int8;

PHI4FLASH_END
