#pragma once
/// The tensor types of ggml, as data: number, name, elements and bytes a block, and where a block keeps its scales.
/// Source: github.com/ggml-org/ggml, docs/gguf.md and src/ggml-common.h.
#include <phi4flash/config/abi.hpp>

#include <cstddef>
#include <cstdint>

PHI4FLASH_BEGIN

/// The types that the library reads weights from, and those of the integer tables it stores, by their number in a file.
enum class ggml_type : std::uint32_t {
    f32 = 0,
    f16 = 1,
    q4_0 = 2,
    q8_0 = 8,
    q4_k = 12,
    q6_k = 14,
    iq4_nl = 20,
    i8 = 24,
    i16 = 25,
    i32 = 26,
    i64 = 27,
    bf16 = 30,
};

/// How a type is stored. A row is whole blocks.
struct ggml_format {
    ggml_type type;
    const char* name;
    std::uint16_t block_length;  ///< elements
    std::uint16_t block_bytes;
    bool is_weight = false;     ///< can be read as f32
    std::uint8_t n_scales = 0;  ///< f16 numbers, side by side; 0 also where nobody looks
    std::uint8_t scale_offset = 0;
};

namespace detail {
[[nodiscard]] constexpr ggml_format other_ggml_format(std::uint32_t number, const char* name, std::uint16_t length,
                                                      std::uint16_t bytes) {
    return {.type = static_cast<ggml_type>(number), .name = name, .block_length = length, .block_bytes = bytes};
}
}  // namespace detail

/// Every type of the format, so that one that is of no use can be refused by its name. Numbers that are not here belonged to types
/// that were given up.
PHI4FLASH_OWN_DATA inline constexpr ggml_format ggml_formats[] = {
    {ggml_type::f32, "F32", 1, 4, true},
    {ggml_type::f16, "F16", 1, 2, true},
    {ggml_type::q4_0, "Q4_0", 32, 18, true, 1, 0},
    detail::other_ggml_format(3, "Q4_1", 32, 20),
    detail::other_ggml_format(6, "Q5_0", 32, 22),
    detail::other_ggml_format(7, "Q5_1", 32, 24),
    {ggml_type::q8_0, "Q8_0", 32, 34, true, 1, 0},
    detail::other_ggml_format(9, "Q8_1", 32, 36),
    detail::other_ggml_format(10, "Q2_K", 256, 84),
    detail::other_ggml_format(11, "Q3_K", 256, 110),
    {ggml_type::q4_k, "Q4_K", 256, 144, true, 2, 0},
    detail::other_ggml_format(13, "Q5_K", 256, 176),
    {ggml_type::q6_k, "Q6_K", 256, 210, true, 1, 208},
    detail::other_ggml_format(15, "Q8_K", 256, 292),
    detail::other_ggml_format(16, "IQ2_XXS", 256, 66),
    detail::other_ggml_format(17, "IQ2_XS", 256, 74),
    detail::other_ggml_format(18, "IQ3_XXS", 256, 98),
    detail::other_ggml_format(19, "IQ1_S", 256, 50),
    {ggml_type::iq4_nl, "IQ4_NL", 32, 18, true, 1, 0},
    detail::other_ggml_format(21, "IQ3_S", 256, 110),
    detail::other_ggml_format(22, "IQ2_S", 256, 82),
    detail::other_ggml_format(23, "IQ4_XS", 256, 136),
    {ggml_type::i8, "I8", 1, 1},
    {ggml_type::i16, "I16", 1, 2},
    {ggml_type::i32, "I32", 1, 4},
    {ggml_type::i64, "I64", 1, 8},
    detail::other_ggml_format(28, "F64", 1, 8),
    detail::other_ggml_format(29, "IQ1_M", 256, 56),
    {ggml_type::bf16, "BF16", 1, 2, true},
    detail::other_ggml_format(34, "TQ1_0", 256, 54),
    detail::other_ggml_format(35, "TQ2_0", 256, 66),
    detail::other_ggml_format(39, "MXFP4", 32, 17),
    detail::other_ggml_format(40, "NVFP4", 64, 36),
    detail::other_ggml_format(41, "Q1_0", 128, 18),
};

/// The format of a type's number, or nullptr.
[[nodiscard]] constexpr const ggml_format* find_ggml_format(std::uint32_t number) {
    for (const ggml_format& known : ggml_formats)
        if (static_cast<std::uint32_t>(known.type) == number) return &known;
    return nullptr;
}
/// The same of a type that is known.
[[nodiscard]] constexpr const ggml_format& format_of(ggml_type type) { return *find_ggml_format(static_cast<std::uint32_t>(type)); }

PHI4FLASH_END
