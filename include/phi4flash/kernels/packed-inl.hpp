// Products of packed weights and 8-bit activations of one token or a few: rows side by side in a vector.

PHI4FLASH_TARGET_BEGIN

/// total + scales * (x.scale * sums), for the rows of a vector: where a group's integers become floats.
PHI4FLASH_VECTOR_INLINE rows_f32 add_group(rows_i32 sums, rows_f32 scales, const activation_group& x, rows_f32 total) {
    return multiply_add(scales, scaled(sums, repeat_rows(x.scale)), total);
}

/// Columns 0 to 31 of a block of 4-bit weights, unpacked: vector s for columns 4 s to 4 s + 3.
#define PHI4FLASH_UNPACK_Q4(block, row)                                          \
    const code_vector codes0 = load_codes((block).code[0] + 4 * (row));          \
    const code_vector codes1 = load_codes((block).code[1] + 4 * (row));          \
    const code_vector codes2 = load_codes((block).code[2] + 4 * (row));          \
    const code_vector codes3 = load_codes((block).code[3] + 4 * (row));          \
    const code_vector w0 = q4_levels<Dense>(levels, low_codes(codes0));          \
    const code_vector w1 = q4_levels<Dense>(levels, low_codes(codes1));          \
    const code_vector w2 = q4_levels<Dense>(levels, low_codes(codes2));          \
    const code_vector w3 = q4_levels<Dense>(levels, low_codes(codes3));          \
    const code_vector w4 = q4_levels<Dense>(levels, high_codes(codes0));         \
    const code_vector w5 = q4_levels<Dense>(levels, high_codes(codes1));         \
    const code_vector w6 = q4_levels<Dense>(levels, high_codes(codes2));         \
    const code_vector w7 = q4_levels<Dense>(levels, high_codes(codes3));         \
    static_assert(true)

template <bool Dense>
PHI4FLASH_VECTOR_INLINE code_vector q4_levels(code_vector levels, code_vector codes) {
    if constexpr (Dense) {
        return levels_of(levels, codes);
    } else {
        return codes;
    }
}

/// The 32 products of each row with one token's activations.
PHI4FLASH_VECTOR_INLINE rows_i32 q4_dot(code_vector w0, code_vector w1, code_vector w2, code_vector w3, code_vector w4, code_vector w5,
                                        code_vector w6, code_vector w7, const activation_group& x) {
    auto sums = repeat_start(x.start);
    sums = dot_next(sums, w0, broadcast_four(x.q));
    sums = dot_next(sums, w1, broadcast_four(x.q + 4));
    sums = dot_next(sums, w2, broadcast_four(x.q + 8));
    sums = dot_next(sums, w3, broadcast_four(x.q + 12));
    sums = dot_next(sums, w4, broadcast_four(x.q + 16));
    sums = dot_next(sums, w5, broadcast_four(x.q + 20));
    sums = dot_next(sums, w6, broadcast_four(x.q + 24));
    return dot_fold(dot_next(sums, w7, broadcast_four(x.q + 28)));
}

/// One step of four tokens whose sums are in flight together: enough independent work to hide the latency of the products.
template <class Sums>
PHI4FLASH_VECTOR_INLINE void dot_next_four(code_vector w, const activation_group* x, std::size_t at, Sums& a, Sums& b, Sums& c, Sums& d) {
    a = dot_next(a, w, broadcast_four(x[0].q + at));
    b = dot_next(b, w, broadcast_four(x[1].q + at));
    c = dot_next(c, w, broadcast_four(x[2].q + at));
    d = dot_next(d, w, broadcast_four(x[3].q + at));
}

/// sum += scales * (a group's integers as floats), in memory.
PHI4FLASH_VECTOR_INLINE void add_group_to(float* sum, rows_i32 dots, rows_f32 scales, const activation_group& x) {
    store_rows(add_group(dots, scales, x, load_rows(sum)), sum);
}

/// q4_dot of tokens x[0] to x[3], added to their sums, which lie packed_rows apart.
PHI4FLASH_VECTOR_INLINE void q4_dot_four(code_vector w0, code_vector w1, code_vector w2, code_vector w3, code_vector w4, code_vector w5,
                                         code_vector w6, code_vector w7, const activation_group* x, rows_f32 scales, float* sums) {
    auto a = repeat_start(x[0].start);
    auto b = repeat_start(x[1].start);
    auto c = repeat_start(x[2].start);
    auto d = repeat_start(x[3].start);
    dot_next_four(w0, x, 0, a, b, c, d);
    dot_next_four(w1, x, 4, a, b, c, d);
    dot_next_four(w2, x, 8, a, b, c, d);
    dot_next_four(w3, x, 12, a, b, c, d);
    dot_next_four(w4, x, 16, a, b, c, d);
    dot_next_four(w5, x, 20, a, b, c, d);
    dot_next_four(w6, x, 24, a, b, c, d);
    dot_next_four(w7, x, 28, a, b, c, d);
    add_group_to(sums, dot_fold(a), scales, x[0]);
    add_group_to(sums + packed_rows, dot_fold(b), scales, x[1]);
    add_group_to(sums + 2 * packed_rows, dot_fold(c), scales, x[2]);
    add_group_to(sums + 3 * packed_rows, dot_fold(d), scales, x[3]);
}

PHI4FLASH_VECTOR_INLINE rows_i32 q8_dot(const q8_block& block, std::size_t row, const activation_group& x) {
    rows_i32 total = set_rows(x.start);
    for (std::size_t s = 0; s < 8; ++s) total = dot_signed(total, load_codes(block.code[s] + 4 * row), broadcast_four(x.q + 4 * s));
    return total;
}

PHI4FLASH_VECTOR_INLINE void q8_dot_four(const q8_block& block, std::size_t row, const activation_group* x, rows_f32 scales, float* sums) {
    rows_i32 a = set_rows(x[0].start);
    rows_i32 b = set_rows(x[1].start);
    rows_i32 c = set_rows(x[2].start);
    rows_i32 d = set_rows(x[3].start);
    for (std::size_t s = 0; s < 8; ++s) {
        const signed_code_vector w = load_codes(block.code[s] + 4 * row);
        a = dot_signed(a, w, broadcast_four(x[0].q + 4 * s));
        b = dot_signed(b, w, broadcast_four(x[1].q + 4 * s));
        c = dot_signed(c, w, broadcast_four(x[2].q + 4 * s));
        d = dot_signed(d, w, broadcast_four(x[3].q + 4 * s));
    }
    add_group_to(sums, a, scales, x[0]);
    add_group_to(sums + packed_rows, b, scales, x[1]);
    add_group_to(sums + 2 * packed_rows, c, scales, x[2]);
    add_group_to(sums + 3 * packed_rows, d, scales, x[3]);
}

/// y[r] = v[r] + bias[r] for the rows of a vector.
PHI4FLASH_VECTOR_INLINE void put_rows(rows_f32 v, const float* bias, float* y) {
    store_rows(v, y);
    for (std::size_t r = 0; bias != nullptr && r < rows_lanes(); ++r) y[r] += bias[r];
}

/// Tokens whose sums are kept in the first-level cache while a row of blocks is read once.
inline constexpr std::size_t packed_tokens = 32;

/// Groups of a row of blocks whose activations, for packed_tokens tokens, stay in the second-level cache while rows go by: 160 kB.
inline constexpr std::size_t packed_panel = 128;

/// Rows [row, row + lanes) of `groups` blocks against up to packed_tokens tokens: each block is unpacked once.
/// `x` is the first token's first group; the next group lies `group_stride` groups further. Sums go on from those in y, unless
/// these are the first groups; the bias is added after the last.
template <dtype Format>
PHI4FLASH_VECTOR_INLINE void packed_row_tile(const std::byte* w, std::size_t groups, std::size_t row, const activation_group* x,
                                             std::size_t group_stride, std::size_t tokens, bool first, const float* bias, float* y, std::size_t y_stride) {
    constexpr bool Dense = Format == dtype::q4_dense;
    [[maybe_unused]] const code_vector levels = load_levels(q4_dense.level);
    float sums[packed_tokens * packed_rows];
    for (std::size_t t = 0; t < tokens; ++t) store_rows(first ? zero_rows() : load_rows(y + t * y_stride), sums + t * packed_rows);
    for (std::size_t g = 0; g < groups; ++g, x += group_stride) {
        if constexpr (Format == dtype::q8) {
            const q8_block& block = reinterpret_cast<const q8_block*>(w)[g];
            const rows_f32 scales = load_scales(block.scale + row);
            std::size_t t = 0;
            for (; t + 4 <= tokens; t += 4) q8_dot_four(block, row, x + t, scales, sums + t * packed_rows);
            for (; t < tokens; ++t) add_group_to(sums + t * packed_rows, q8_dot(block, row, x[t]), scales, x[t]);
        } else {
            const q4_block& block = reinterpret_cast<const q4_block*>(w)[g];
            PHI4FLASH_UNPACK_Q4(block, row);
            const rows_f32 scales = load_scales(block.scale + row);
            std::size_t t = 0;
            for (; t + 4 <= tokens; t += 4) q4_dot_four(w0, w1, w2, w3, w4, w5, w6, w7, x + t, scales, sums + t * packed_rows);
            for (; t < tokens; ++t) add_group_to(sums + t * packed_rows, q4_dot(w0, w1, w2, w3, w4, w5, w6, w7, x[t]), scales, x[t]);
        }
    }
    for (std::size_t t = 0; t < tokens; ++t) put_rows(load_rows(sums + t * packed_rows), bias, y + t * y_stride);
}

/// sum + a block of eight rows times one token's activations.
template <dtype Format>
PHI4FLASH_VECTOR_INLINE rows_f32 add_packed_group(const std::byte* w, std::size_t row, [[maybe_unused]] code_vector levels, const activation_group& x,
                                                  rows_f32 sum) {
    constexpr bool Dense = Format == dtype::q4_dense;
    prefetch_ahead(w, matrix_bytes(Format, packed_rows, packed_cols));
    if constexpr (Format == dtype::q8) {
        const q8_block& block = *reinterpret_cast<const q8_block*>(w);
        return add_group(q8_dot(block, row, x), load_scales(block.scale + row), x, sum);
    } else {
        const q4_block& block = *reinterpret_cast<const q4_block*>(w);
        PHI4FLASH_UNPACK_Q4(block, row);
        return add_group(q4_dot(w0, w1, w2, w3, w4, w5, w6, w7, x), load_scales(block.scale + row), x, sum);
    }
}
#undef PHI4FLASH_UNPACK_Q4

/// Tokens that are arranged one by one. Tokens outside, then panels of columns, rows inside: the activations of a panel stay in the
/// second-level cache, and weights are streamed.
template <dtype Format>
inline void packed_matmul_singles(const std::byte* w, std::size_t rows, std::size_t cols, const activation_group* activations, std::size_t tokens,
                                  const float* bias, float* y, std::size_t y_stride) {
    const std::size_t groups = cols / packed_cols;
    for (std::size_t t = 0; t < tokens; t += packed_tokens) {
        const std::size_t count = tokens - t < packed_tokens ? tokens - t : packed_tokens;
        for (std::size_t g = 0; g < groups; g += packed_panel) {
            const std::size_t some = groups - g < packed_panel ? groups - g : packed_panel;
            const bool last = g + some == groups;
            for (std::size_t r = 0; r < rows; r += packed_rows) {
                const std::byte* blocks = w + matrix_bytes(Format, r, cols) + matrix_bytes(Format, packed_rows, g * packed_cols);
                for (std::size_t row = 0; row < packed_rows; row += rows_lanes())
                    packed_row_tile<Format>(blocks, some, row, activations + g * tokens + t, tokens, count, g == 0,
                                            bias == nullptr || !last ? nullptr : bias + r + row, y + t * y_stride + r + row, y_stride);
            }
        }
    }
}

template <dtype Format>
inline void packed_widen_row(const std::byte* w, std::size_t r, std::size_t cols, float* out) {
    const std::size_t groups = cols / packed_cols;
    for (std::size_t g = 0; g < groups; ++g) {
        const std::size_t at = r / packed_rows * groups + g;
        if constexpr (Format == dtype::q8) {
            decode_row(reinterpret_cast<const q8_block*>(w)[at], r % packed_rows, out + g * packed_cols);
        } else {
            constexpr const q4_codebook& book = Format == dtype::q4_dense ? q4_dense : q4_uniform;
            decode_row(reinterpret_cast<const q4_block*>(w)[at], book, r % packed_rows, out + g * packed_cols);
        }
    }
}

PHI4FLASH_TARGET_END
