// Products of packed weights and the 8-bit activations of one token: weights are read once, in row_streams places in turn.

PHI4FLASH_TARGET_BEGIN

// Vectors cannot stand in arrays, so sums of several rows are packs of parameters: one for each row of blocks R.
template <std::size_t>
using rows_of = rows_f32;

/// One token against rows [row, row + lanes) of rows of blocks that lie `stride` bytes apart, read side by side. Sums go to y, y_stride apart.
template <dtype Format, std::size_t... R>
PHI4FLASH_VECTOR_INLINE void packed_dots(std::index_sequence<R...>, const std::byte* w, std::size_t stride, std::size_t groups, std::size_t row,
                                         const activation_group* x, float* y, std::size_t y_stride, rows_of<R>... sum) {
    const code_vector levels = load_levels(q4_dense.level);
    for (std::size_t g = 0; g < groups; ++g, ++x, w += matrix_bytes(Format, packed_rows, packed_cols))
        ((sum = add_packed_group<Format>(w + R * stride, row, levels, *x, sum)), ...);
    (store_rows(sum, y + R * y_stride + row), ...);
}

template <dtype Format, std::size_t... R>
PHI4FLASH_VECTOR_INLINE void packed_dots(std::index_sequence<R...> blocks, const std::byte* w, std::size_t stride, std::size_t groups,
                                         const std::byte* x, float* y, std::size_t y_stride) {
    for (std::size_t row = 0; row < packed_rows; row += rows_lanes())
        packed_dots<Format>(blocks, w, stride, groups, row, reinterpret_cast<const activation_group*>(x), y, y_stride, rows_of<R>(zero_rows())...);
}

#if PHI4FLASH_BLOCKS_SIDE_BY_SIDE
/// sums + a block of eight rows at w, and one at v, times one token's activations.
template <dtype Format>
PHI4FLASH_VECTOR_INLINE tokens_f32 add_pair(const std::byte* w, const std::byte* v, token_codes levels, const activation_group& x, tokens_f32 sums) {
    prefetch_ahead(w, sizeof(q4_block));
    prefetch_ahead(v, sizeof(q4_block));
    const q4_block& one = *reinterpret_cast<const q4_block*>(w);
    const q4_block& two = *reinterpret_cast<const q4_block*>(v);
    const token_codes codes0 = codes_of_rows(one.code[0], two.code[0]);
    const token_codes codes1 = codes_of_rows(one.code[1], two.code[1]);
    const token_codes codes2 = codes_of_rows(one.code[2], two.code[2]);
    const token_codes codes3 = codes_of_rows(one.code[3], two.code[3]);
    auto dots = repeat_integer(x.start);
    dots = dot_next(dots, low_levels(levels, codes0), repeat_activations(x.q));
    dots = dot_next(dots, low_levels(levels, codes1), repeat_activations(x.q + 4));
    dots = dot_next(dots, low_levels(levels, codes2), repeat_activations(x.q + 8));
    dots = dot_next(dots, low_levels(levels, codes3), repeat_activations(x.q + 12));
    dots = dot_next(dots, high_levels(levels, codes0), repeat_activations(x.q + 16));
    dots = dot_next(dots, high_levels(levels, codes1), repeat_activations(x.q + 20));
    dots = dot_next(dots, high_levels(levels, codes2), repeat_activations(x.q + 24));
    dots = dot_next(dots, high_levels(levels, codes3), repeat_activations(x.q + 28));
    return multiply_add(scales_of_rows(one.scale, two.scale), scaled(dots, repeat_tokens(x.scale)), sums);
}

template <std::size_t>
using pairs_of = tokens_f32;

/// As packed_dots of 4-bit weights, two rows of blocks in each vector, with the same results.
template <dtype Format, std::size_t... P>
PHI4FLASH_VECTOR_INLINE void pair_dots(std::index_sequence<P...>, const std::byte* w, std::size_t stride, std::size_t groups, const activation_group* x,
                                       float* y, std::size_t y_stride, pairs_of<P>... sums) {
    const token_codes levels = repeat_levels(Format == dtype::q4_dense ? q4_dense.level : q4_uniform.level);
    for (std::size_t g = 0; g < groups; ++g, ++x, w += sizeof(q4_block))
        ((sums = add_pair<Format>(w + 2 * P * stride, w + (2 * P + 1) * stride, levels, *x, sums)), ...);
    (store_two(sums, y + 2 * P * y_stride, y + (2 * P + 1) * y_stride), ...);
}
template <dtype Format, std::size_t... P>
PHI4FLASH_VECTOR_INLINE void pair_dots(std::index_sequence<P...> pairs, const std::byte* w, std::size_t stride, std::size_t groups, const std::byte* x,
                                       float* y, std::size_t y_stride) {
    pair_dots<Format>(pairs, w, stride, groups, reinterpret_cast<const activation_group*>(x), y, y_stride, pairs_of<P>(repeat_tokens(0.0f))...);
}
#endif

/// In row_streams parts, as matvec.
template <dtype Format>
inline void packed_matvec(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, const float* bias, float* y) {
    const std::size_t groups = cols / packed_cols;
    const std::size_t part = rows / packed_rows / row_streams * packed_rows;
    for (std::size_t r = 0; r < part; r += packed_rows) {
        const std::byte* first = w + matrix_bytes(Format, r, cols);
        const std::size_t stride = matrix_bytes(Format, part, cols);
#if PHI4FLASH_BLOCKS_SIDE_BY_SIDE
        if constexpr (Format != dtype::q8) {
            static_assert(row_streams % 2 == 0);
            pair_dots<Format>(std::make_index_sequence<row_streams / 2>(), first, stride, groups, x, y + r, part);
            continue;
        }
#endif
        packed_dots<Format>(std::make_index_sequence<row_streams>(), first, stride, groups, x, y + r, part);
    }
    for (std::size_t r = part * row_streams; r < rows; r += packed_rows)
        packed_dots<Format>(std::index_sequence<0>(), w + matrix_bytes(Format, r, cols), 0, groups, x, y + r, 0);
    for (std::size_t r = 0; bias != nullptr && r < rows; ++r) y[r] += bias[r];
}

PHI4FLASH_TARGET_END
