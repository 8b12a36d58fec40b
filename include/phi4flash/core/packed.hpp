#pragma once
/// Packed weights: 8 rows by 32 columns a block, in the very order in which the kernels stream them.
///
/// A block begins with one f16 scale for each row. Codes come in groups of 32 bytes, "vectors": byte 4 r + i of a vector belongs to
/// row r, and four neighbouring columns of a row lie side by side, so that one 32-bit broadcast of the activations meets
/// all eight rows. A matrix [rows, cols] is its blocks in order, all columns of eight rows before the next eight rows;
/// rows is a multiple of 8 and cols a multiple of 32.
#include <phi4flash/core/number.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

PHI4FLASH_BEGIN

inline constexpr std::size_t packed_rows = 8;  ///< of a block
inline constexpr std::size_t packed_cols = 32;  ///< of a block

/// 8.5 bits a weight: w = scale * code. Codes are in [-127, 127]; the kernels take -128 too, from others' files.
/// Vector s holds columns 4 s to 4 s + 3.
struct q8_block {
    f16 scale[packed_rows];
    std::int8_t code[8][32];
};
static_assert(sizeof(q8_block) == 272);

/// 4.5 bits a weight: w = scale * (level[code] - zero). Scales that this library fits are multiples of scale_unit of their row's largest
/// in each scale_groups blocks; others' may be anything. The low nibbles of vector j hold columns 4 j to 4 j + 3, the high
/// nibbles columns 4 (j + 4) to 4 (j + 4) + 3.
struct q4_block {
    f16 scale[packed_rows];
    std::uint8_t code[4][32];
};
static_assert(sizeof(q4_block) == 144);

/// The block of a packed type.
template <dtype Format>
using packed_block = std::conditional_t<Format == dtype::q8, q8_block, q4_block>;

/// What the 16 codes of a 4-bit format stand for. No level is further than 32 from the zero, so that sixteen products of a weight and an
/// 8-bit activation, rarely rounded a little more, fit 16 bits, which is what lets a CPU without VNNI keep up with its memory.
struct q4_codebook {
    std::uint8_t level[16];
    std::uint8_t zero;
};

/// Evenly spaced: the values of ggml's Q4_0.
PHI4FLASH_OWN_DATA inline constexpr q4_codebook q4_uniform{{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, 8};
/// Denser around zero, where weights are: 9 to 18 % less error than the uniform one on Gaussian and heavier-tailed numbers, at the
/// same size. Found by coordinate descent on the summed error of both.
PHI4FLASH_OWN_DATA inline constexpr q4_codebook q4_dense{{0, 7, 12, 16, 20, 24, 27, 30, 32, 35, 38, 41, 44, 48, 53, 61}, 32};

/// Groups of a row whose activations share a scale where weights have 4 bits; with 8 bits, each group has its own.
inline constexpr std::size_t scale_groups = 8;

/// What the scales of these groups are counted in, where a kernel needs them as integers below 2^12: a power of two. `largest` is the
/// largest of their magnitudes; scales of at least half of it are whole multiples anyway.
[[nodiscard]] constexpr float scale_unit(float largest) {
    const std::uint32_t exponent = std::bit_cast<std::uint32_t>(largest) & 0x7f800000u;
    return std::bit_cast<float>((exponent == 0 ? 0x3f800000u : exponent) - (11u << 23));  // an f16 is never near the ends of an f32's exponents
}

/// 32 activations of a token, for the integer kernels: x = scale * q. Several tokens are arranged by the target (kernels/packed/arrange-inl.hpp).
struct activation_group {
    std::int8_t q[packed_cols];
    float scale;
    std::int32_t start;  ///< -zero * (sum of q), what the levels' offset adds too much, in the form in which the target's sums begin
};
static_assert(sizeof(activation_group) == 40);

/// Whether a matrix can be packed: whole blocks only.
[[nodiscard]] constexpr bool is_packable(std::size_t rows, std::size_t cols) { return rows % packed_rows == 0 && cols % packed_cols == 0; }

/// Bytes of a matrix [rows, cols], plain or packed.
[[nodiscard]] constexpr std::size_t matrix_bytes(dtype type, std::size_t rows, std::size_t cols) {
    if (!is_packed(type)) return rows * cols * size_of(type);
    return rows / packed_rows * (cols / packed_cols) * (type == dtype::q8 ? sizeof(q8_block) : sizeof(q4_block));
}

/// Code of column c, row r.
[[nodiscard]] inline unsigned q4_code(const q4_block& block, std::size_t r, std::size_t c) {
    const std::size_t step = c / 4;
    const unsigned byte = block.code[step % 4][4 * r + c % 4];
    return step < 4 ? byte & 15u : byte >> 4;
}
/// Writes the code, 0 to 15, of row r and column c.
inline void set_q4_code(q4_block& block, std::size_t r, std::size_t c, unsigned code) {
    const std::size_t step = c / 4;
    std::uint8_t& byte = block.code[step % 4][4 * r + c % 4];
    byte = static_cast<std::uint8_t>(step < 4 ? (byte & 0xf0u) | code : (byte & 0x0fu) | (code << 4));
}

/// Row r of a block as f32.
inline void decode_row(const q4_block& block, const q4_codebook& book, std::size_t r, float* out) {
    const float scale = to_f32(block.scale[r]);
    for (std::size_t c = 0; c < packed_cols; ++c) out[c] = scale * static_cast<float>(static_cast<int>(book.level[q4_code(block, r, c)]) - book.zero);
}
inline void decode_row(const q8_block& block, std::size_t r, float* out) {
    const float scale = to_f32(block.scale[r]);
    for (std::size_t c = 0; c < packed_cols; ++c) out[c] = scale * static_cast<float>(block.code[c / 4][4 * r + c % 4]);
}

PHI4FLASH_END
