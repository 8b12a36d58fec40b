#pragma once
/// Quantization: rows of f32 to packed blocks, in plain code. It says what the bytes are; kernels/packed/quantize-inl.hpp makes the same ones faster.
#include <phi4flash/core/executor.hpp>
#include <phi4flash/core/matrix.hpp>
#include <phi4flash/core/packed.hpp>
#include <phi4flash/core/result.hpp>

#include <algorithm>
#include <array>
#include <cmath>

PHI4FLASH_BEGIN

namespace detail {

/// The code whose level is nearest to a value. Levels are whole numbers, so what lies between two halves has one nearest level.
struct level_index {
    std::array<std::uint8_t, 128> code{};
    int highest = 0;

    constexpr explicit level_index(const q4_codebook& book) : highest(book.level[15]) {
        for (int half = 0; half <= 2 * highest; ++half) {
            const int value = 2 * half + 1;  // in quarters: the middle between two halves
            int best = 0;
            for (int c = 1; c < 16; ++c) {
                const int distance = 4 * book.level[c] < value ? value - 4 * book.level[c] : 4 * book.level[c] - value;
                const int least = 4 * book.level[best] < value ? value - 4 * book.level[best] : 4 * book.level[best] - value;
                if (distance < least) best = c;
            }
            code[static_cast<std::size_t>(half)] = static_cast<std::uint8_t>(best);
        }
    }

    [[nodiscard]] constexpr unsigned nearest(float value) const {
        // Clamped before the conversion: NaN and infinity become a code like any other.
        const float inside = value > 0.0f ? (value < static_cast<float>(highest) ? value : static_cast<float>(highest)) : 0.0f;
        return code[static_cast<std::size_t>(2.0f * inside)];
    }
};

template <const q4_codebook& Book>
PHI4FLASH_OWN_DATA inline constexpr level_index index_of{Book};

/// What a scale is tried at: the number of largest magnitude becomes this times either end of the levels.
PHI4FLASH_OWN_DATA inline constexpr float scale_trials[] = {0.76f, 0.82f, 0.88f, 0.94f, 1.0f, 1.06f, 1.12f};

/// Codes as floats.
PHI4FLASH_OWN_DATA inline constexpr std::array<float, 16> code_numbers{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/// Levels as the numbers that they stand for.
template <const q4_codebook& Book>
PHI4FLASH_OWN_DATA inline constexpr std::array<float, 16> levels_of = [] {
    std::array<float, 16> level{};
    for (std::size_t c = 0; c < level.size(); ++c) level[c] = static_cast<float>(Book.level[c]) - static_cast<float>(Book.zero);
    return level;
}();

/// The least v whose code is c, for c = 1 to 15; element 0 is unused. That is, nearest(v + zero) counts the elements that are at most v.
template <const q4_codebook& Book>
PHI4FLASH_OWN_DATA inline constexpr std::array<float, 16> code_begins = [] {
    // Floats are in the order of their bits, negative ones in reverse: bisection over all of them.
    const auto value = [](std::int64_t key) {
        return std::bit_cast<float>(key >= 0 ? static_cast<std::uint32_t>(key) : 0x80000000u | static_cast<std::uint32_t>(-key));
    };
    constexpr std::int64_t largest = std::bit_cast<std::int32_t>(128.0f);
    std::array<float, 16> begins{};
    for (unsigned c = 1; c < begins.size(); ++c) {
        std::int64_t below = -largest;
        std::int64_t at = largest;
        while (at - below > 1) {
            const std::int64_t middle = below + (at - below) / 2;
            const bool reached = index_of<Book>.nearest(value(middle) + static_cast<float>(Book.zero)) >= c;
            (reached ? at : below) = middle;
        }
        begins[c] = value(at);
    }
    return begins;
}();

/// a b, rounded before anything is added to it: a compiler with fused instructions may not make one of the two. (A float in memory is the one
/// way to say so to every compiler; what must be fast is in kernels/packed/quantize-inl.hpp.)
[[nodiscard]] inline float rounded_product(float a, float b) {
    const volatile float product = a * b;
    return product;
}

/// The scale that fits 32 numbers best, by trying some, each refitted by least squares to the codes it gives.
template <const q4_codebook& Book>
[[nodiscard]] float fit_scale(const float* x) {
    float most = 0.0f;
    for (std::size_t i = 0; i < packed_cols; ++i) most = std::fabs(x[i]) > std::fabs(most) ? x[i] : most;
    if (!(std::fabs(most) > 0.0f)) return 0.0f;
    float best_scale = 0.0f;
    float best_gain = -1.0f;
    for (const float end : {levels_of<Book>.front(), levels_of<Book>.back()}) {
        for (const float shrink : scale_trials) {
            const float inverse = end / (most * shrink);
            float xl = 0.0f;
            float ll = 0.0f;
            for (std::size_t i = 0; i < packed_cols; ++i) {
                const unsigned code = index_of<Book>.nearest(rounded_product(x[i], inverse) + static_cast<float>(Book.zero));
                const float level = levels_of<Book>[code];
                xl += rounded_product(x[i], level);
                ll += level * level;  // whole numbers: exact however it is made
            }
            // Least squares: the scale xl / ll leaves sum x^2 - xl^2 / ll.
            const float gain = ll > 0.0f ? xl * xl / ll : 0.0f;
            if (gain > best_gain) best_gain = gain, best_scale = ll > 0.0f ? xl / ll : 0.0f;
        }
    }
    return best_scale;
}

/// Stores the scales of row r of `count` (at most scale_groups) neighbouring blocks, in units that they share.
/// Shape: scales [count], stride apart.
inline void set_scales(q4_block* blocks, std::size_t count, std::size_t r, const float* scales, std::size_t stride) {
    float largest = 0.0f;
    for (std::size_t g = 0; g < count; ++g) {
        const float stored = to_f32(to_f16(scales[g * stride]));
        if (is_finite(stored)) largest = (std::max)(largest, std::fabs(stored));
    }
    const float unit = scale_unit(largest);
    for (std::size_t g = 0; g < count; ++g) blocks[g].scale[r] = to_f16(std::nearbyint(scales[g * stride] / unit) * unit);
}

}  // namespace detail

/// Row r of `count` (at most scale_groups) neighbouring blocks from x [count * 32].
template <const q4_codebook& Book>
void encode_row(q4_block* blocks, std::size_t count, std::size_t r, const float* x) {
    float scales[scale_groups];
    for (std::size_t g = 0; g < count; ++g) scales[g] = detail::fit_scale<Book>(x + g * packed_cols);
    detail::set_scales(blocks, count, r, scales, 1);
    for (std::size_t g = 0; g < count; ++g, x += packed_cols) {
        const float scale = to_f32(blocks[g].scale[r]);
        const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
        for (std::size_t c = 0; c < packed_cols; ++c)
            set_q4_code(blocks[g], r, c, detail::index_of<Book>.nearest(detail::rounded_product(x[c], inverse) + static_cast<float>(Book.zero)));
    }
}

/// Columns [0, 32) of row r of a block from x [32].
inline void encode_row(q8_block& block, std::size_t r, const float* x) {
    float most = 0.0f;
    for (std::size_t c = 0; c < packed_cols; ++c) most = (std::max)(most, std::fabs(x[c]));
    block.scale[r] = to_f16(most / 127.0f);
    const float scale = to_f32(block.scale[r]);
    const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
    for (std::size_t c = 0; c < packed_cols; ++c) {
        const float q = std::nearbyint(x[c] * inverse);
        block.code[c / 4][4 * r + c % 4] = static_cast<std::int8_t>(q > 127.0f ? 127.0f : q > -127.0f ? q : -127.0f);
    }
}

/// Row r of a plain matrix as f32.   Shape: out [cols].
inline void read_row(const matrix_view& m, std::size_t r, float* out) {
    const std::byte* row = m.row(r);
    for (std::size_t c = 0; c < m.cols; ++c) {
        switch (m.type) {
            case dtype::f32: out[c] = reinterpret_cast<const float*>(row)[c]; break;
            case dtype::f16: out[c] = to_f32(reinterpret_cast<const f16*>(row)[c]); break;
            default: out[c] = to_f32(reinterpret_cast<const bf16*>(row)[c]); break;
        }
    }
}

/// Packs rows [first, first + 8) of `m`, a plain matrix with a multiple of 32 columns. `rows` is scratch of 8 * cols floats; `out`
/// takes matrix_bytes(type, 8, cols) bytes.
inline void pack_eight_rows(const matrix_view& m, std::size_t first, dtype type, float* rows, std::byte* out) {
    for (std::size_t r = 0; r < packed_rows; ++r) read_row(m, first + r, rows + r * m.cols);
    const std::size_t groups = m.cols / packed_cols;
    for (std::size_t g = 0; g < groups; g += scale_groups) {
        const std::size_t count = (std::min)(scale_groups, groups - g);
        for (std::size_t r = 0; r < packed_rows; ++r) {
            const float* x = rows + r * m.cols + g * packed_cols;
            switch (type) {
                case dtype::q8:
                    for (std::size_t i = 0; i < count; ++i) encode_row(reinterpret_cast<q8_block*>(out)[g + i], r, x + i * packed_cols);
                    break;
                case dtype::q4: encode_row<q4_uniform>(reinterpret_cast<q4_block*>(out) + g, count, r, x); break;
                default: encode_row<q4_dense>(reinterpret_cast<q4_block*>(out) + g, count, r, x); break;
            }
        }
    }
}

PHI4FLASH_END
