// Packed weights, way "exact": any number of tokens with f32 activations, unrounded, what the integer kernels are measured against.
// Weights become f32, in registers for one token, else panel by panel. Runs when activations are to stay f32 (matmul_exact):
// ways-inl.hpp.

PHI4FLASH_TARGET_BEGIN

/// Codes of columns 4 s to 4 s + 3 of a block, for the rows of a vector, with the book's levels looked up.
template <dtype Format>
PHI4FLASH_VECTOR_INLINE auto exact_codes(const std::byte* w, std::size_t row, std::size_t s, [[maybe_unused]] code_vector levels) {
    if constexpr (Format == dtype::q8) {
        return load_codes(reinterpret_cast<const q8_block*>(w)->code[s] + 4 * row);
    } else {
        const code_vector both = load_codes(reinterpret_cast<const q4_block*>(w)->code[s % 4] + 4 * row);
        const code_vector codes = s < 4 ? low_codes(both) : high_codes(both);
        if constexpr (Format == dtype::q4_dense) {
            return levels_of(levels, codes);
        } else {
            return codes;
        }
    }
}

/// What weights are: scale * code - zero * scale. An f16 scale times a number of at most 8 bits fits an f32, so this is exact.
template <dtype Format>
PHI4FLASH_VECTOR_INLINE rows_f32 exact_offset(rows_f32 scales) {
    constexpr int zero = Format == dtype::q8 ? 0 : Format == dtype::q4 ? q4_uniform.zero : q4_dense.zero;
    return multiply_add(scales, repeat_rows(static_cast<float>(-zero)), zero_rows());
}

/// Scales come first in every block.
template <dtype Format>
PHI4FLASH_VECTOR_INLINE rows_f32 exact_scales(const std::byte* w, std::size_t row) {
    return load_scales(reinterpret_cast<const f16*>(w) + row);
}

/// Four columns of weights to out [4, packed_rows].
template <class Codes>
PHI4FLASH_VECTOR_INLINE void put_four(Codes codes, rows_f32 scales, rows_f32 offset, float* out) {
    store_rows(multiply_add(bytes_of<0>(codes), scales, offset), out);
    store_rows(multiply_add(bytes_of<1>(codes), scales, offset), out + packed_rows);
    store_rows(multiply_add(bytes_of<2>(codes), scales, offset), out + 2 * packed_rows);
    store_rows(multiply_add(bytes_of<3>(codes), scales, offset), out + 3 * packed_rows);
}

/// Even and odd columns have a sum each, and each sum takes its columns in order: so in every function here, for the same bits.
template <class Codes>
PHI4FLASH_VECTOR_INLINE void add_four(Codes codes, rows_f32 scales, rows_f32 offset, const float* x, rows_f32& even,
                                      rows_f32& odd) {
    even = multiply_add(multiply_add(bytes_of<0>(codes), scales, offset), repeat_rows(x[0]), even);
    odd = multiply_add(multiply_add(bytes_of<1>(codes), scales, offset), repeat_rows(x[1]), odd);
    even = multiply_add(multiply_add(bytes_of<2>(codes), scales, offset), repeat_rows(x[2]), even);
    odd = multiply_add(multiply_add(bytes_of<3>(codes), scales, offset), repeat_rows(x[3]), odd);
}

/// y[r] = even[r] + odd[r] + bias[r].
PHI4FLASH_VECTOR_INLINE void put_exact(rows_f32 even, rows_f32 odd, const float* bias, float* y) {
    store_rows(add_rows_f32(even, odd), y);
    for (std::size_t r = 0; bias != nullptr && r < rows_lanes(); ++r) y[r] += bias[r];
}

/// One token: weights go from registers into the sums.
template <dtype Format>
PHI4FLASH_VECTOR_INLINE void exact_row(const std::byte* w, std::size_t groups, std::size_t row, const float* PHI4FLASH_RESTRICT x,
                                       const float* bias, float* y) {
    const code_vector levels = load_levels(q4_dense.level);
    rows_f32 even = zero_rows();
    rows_f32 odd = zero_rows();
    for (std::size_t g = 0; g < groups; ++g, w += matrix_bytes(Format, packed_rows, packed_cols), x += packed_cols) {
        const rows_f32 scales = exact_scales<Format>(w, row);
        const rows_f32 offset = exact_offset<Format>(scales);
        // Of 4 bits the low halves, then the high ones. As loops: unrolled they are no faster, and several times what there is to compile.
        for (std::size_t s = 0; s < 4; ++s) add_four(exact_codes<Format>(w, row, s, levels), scales, offset, x + 4 * s, even, odd);
        for (std::size_t s = 4; s < 8; ++s) add_four(exact_codes<Format>(w, row, s, levels), scales, offset, x + 4 * s, even, odd);
    }
    put_exact(even, odd, bias, y);
}

/// Groups that are decoded at once: a panel of 8 KiB, which stays in the first-level cache.
inline constexpr std::size_t exact_groups = 8;
/// Tokens that use a panel before the next one is decoded; their sums take 8 KiB.
inline constexpr std::size_t exact_tokens = 128;

/// Sums of 4 tokens, in `sums` [4, 2, packed_rows], go on over the columns of a panel [cols, packed_rows].
PHI4FLASH_VECTOR_INLINE void exact_tile_4(const float* PHI4FLASH_RESTRICT panel, std::size_t cols,
                                          const float* PHI4FLASH_RESTRICT x, std::size_t x_stride, float* sums) {
    constexpr std::size_t next = packed_rows;
    const float* x1 = x + x_stride;
    const float* x2 = x1 + x_stride;
    const float* x3 = x2 + x_stride;
    rows_f32 e0 = load_rows(sums), o0 = load_rows(sums + next);
    rows_f32 e1 = load_rows(sums + 2 * next), o1 = load_rows(sums + 3 * next);
    rows_f32 e2 = load_rows(sums + 4 * next), o2 = load_rows(sums + 5 * next);
    rows_f32 e3 = load_rows(sums + 6 * next), o3 = load_rows(sums + 7 * next);
    for (std::size_t c = 0; c < cols; c += 2, panel += 2 * next) {
        const rows_f32 a = load_rows(panel);
        const rows_f32 b = load_rows(panel + next);
        e0 = multiply_add(a, repeat_rows(x[c]), e0), o0 = multiply_add(b, repeat_rows(x[c + 1]), o0);
        e1 = multiply_add(a, repeat_rows(x1[c]), e1), o1 = multiply_add(b, repeat_rows(x1[c + 1]), o1);
        e2 = multiply_add(a, repeat_rows(x2[c]), e2), o2 = multiply_add(b, repeat_rows(x2[c + 1]), o2);
        e3 = multiply_add(a, repeat_rows(x3[c]), e3), o3 = multiply_add(b, repeat_rows(x3[c + 1]), o3);
    }
    store_rows(e0, sums), store_rows(o0, sums + next);
    store_rows(e1, sums + 2 * next), store_rows(o1, sums + 3 * next);
    store_rows(e2, sums + 4 * next), store_rows(o2, sums + 5 * next);
    store_rows(e3, sums + 6 * next), store_rows(o3, sums + 7 * next);
}

PHI4FLASH_VECTOR_INLINE void exact_tile_1(const float* PHI4FLASH_RESTRICT panel, std::size_t cols,
                                          const float* PHI4FLASH_RESTRICT x, float* sums) {
    rows_f32 even = load_rows(sums);
    rows_f32 odd = load_rows(sums + packed_rows);
    for (std::size_t c = 0; c < cols; c += 2, panel += 2 * packed_rows) {
        even = multiply_add(load_rows(panel), repeat_rows(x[c]), even);
        odd = multiply_add(load_rows(panel + packed_rows), repeat_rows(x[c + 1]), odd);
    }
    store_rows(even, sums);
    store_rows(odd, sums + packed_rows);
}

/// `count` blocks of one row of blocks as a panel [count * packed_cols, packed_rows]; `row` is the first row of a vector.
template <dtype Format>
PHI4FLASH_VECTOR_INLINE void exact_panel(const std::byte* w, std::size_t count, std::size_t row, float* panel) {
    const code_vector levels = load_levels(q4_dense.level);
    for (std::size_t g = 0; g < count; ++g, w += matrix_bytes(Format, packed_rows, packed_cols)) {
        const rows_f32 scales = exact_scales<Format>(w, row);
        const rows_f32 offset = exact_offset<Format>(scales);
        for (std::size_t s = 0; s < 8; ++s, panel += 4 * packed_rows)
            put_four(exact_codes<Format>(w, row, s, levels), scales, offset, panel);
    }
}

/// Rows [row, row + lanes) of one row of blocks against up to exact_tokens tokens.
template <dtype Format>
PHI4FLASH_VECTOR_INLINE void exact_row_tile(const std::byte* w, std::size_t groups, std::size_t row, const float* x,
                                            std::size_t x_stride, std::size_t tokens, const float* bias, float* y,
                                            std::size_t y_stride) {
    alignas(64) float panel[exact_groups * packed_cols * packed_rows];
    alignas(64) float sums[exact_tokens * 2 * packed_rows];
    for (std::size_t i = 0; i < 2 * tokens; ++i) store_rows(zero_rows(), sums + i * packed_rows);
    for (std::size_t g = 0; g < groups; g += exact_groups) {
        const std::size_t count = groups - g < exact_groups ? groups - g : exact_groups;
        const std::size_t cols = count * packed_cols;
        const float* from = x + g * packed_cols;
        exact_panel<Format>(w + matrix_bytes(Format, packed_rows, g * packed_cols), count, row, panel);
        std::size_t t = 0;
        for (; t + 4 <= tokens; t += 4) exact_tile_4(panel, cols, from + t * x_stride, x_stride, sums + t * 2 * packed_rows);
        for (; t < tokens; ++t) exact_tile_1(panel, cols, from + t * x_stride, sums + t * 2 * packed_rows);
    }
    for (std::size_t t = 0; t < tokens; ++t) {
        const float* sum = sums + t * 2 * packed_rows;
        put_exact(load_rows(sum), load_rows(sum + packed_rows), bias, y + t * y_stride);
    }
}

template <dtype Format>
inline void packed_matmul_exact(const std::byte* w, std::size_t rows, std::size_t cols, const float* x, std::size_t x_stride,
                                std::size_t tokens, const float* bias, float* y, std::size_t y_stride) {
    const std::size_t groups = cols / packed_cols;
    for (std::size_t t = 0; t < tokens; t += exact_tokens) {
        const std::size_t count = tokens - t < exact_tokens ? tokens - t : exact_tokens;
        const float* from = x + t * x_stride;
        for (std::size_t r = 0; r < rows; r += packed_rows) {
            for (std::size_t row = 0; row < packed_rows; row += rows_lanes()) {
                const std::byte* block = w + matrix_bytes(Format, r, cols);
                const float* b = bias == nullptr ? nullptr : bias + r + row;
                float* out = y + t * y_stride + r + row;
                if (count == 1) {
                    exact_row<Format>(block, groups, row, from, b, out);
                } else {
                    exact_row_tile<Format>(block, groups, row, from, x_stride, count, b, out, y_stride);
                }
            }
        }
    }
}

PHI4FLASH_TARGET_END
