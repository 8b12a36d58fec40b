// Packed weights, way "registers": one token, a few, or many in turns.
// A block of weights (two blocks side by side where a vector has room for 16 rows; two such pairs at once from four tokens on) is unpacked in
// registers, and meets all tokens of a turn before the next is read (meet-inl.hpp). Weights go by once, in row_streams places in turn; nothing is
// rounded but activations.

PHI4FLASH_TARGET_BEGIN

/// Tokens that a block meets at most while it is in registers.
inline constexpr std::size_t turn_tokens = 16;

// Long turns save unpacking: they are no faster where multiplying is far dearer (scalar, SSE2 to SSE4) or bytes are all there is to unpack (q8).
// Where a vector holds two blocks, four of them meet eight tokens (add_groups_of_pairs), and turns are for what is left. Other processors: not
// measured.
#if PHI4FLASH_SIMD_HIGHWAY && HWY_ARCH_X86
template <dtype Format>
inline constexpr std::size_t longest_turn = HWY_TARGET > HWY_AVX2 || wide_blocks == 2 || Format == dtype::q8 ? 4 : turn_tokens;
#else
template <dtype Format>
inline constexpr std::size_t longest_turn = PHI4FLASH_SIMD_SCALAR || Format == dtype::q8 ? 4 : turn_tokens;
#endif

/// Whether one token meets the row_streams places of its weights side by side: where multiplying takes less time than reading. (SSE2, without
/// shuffles of bytes, was slower so.)
#if PHI4FLASH_SIMD_HIGHWAY && HWY_ARCH_X86
inline constexpr bool places_side_by_side = HWY_TARGET <= HWY_SSSE3;
#else
inline constexpr bool places_side_by_side = !PHI4FLASH_SIMD_SCALAR && row_streams != 1;
#endif

/// Tokens whose sums are kept at once: several turns, so that all but the first find weights in the first-level cache.
inline constexpr std::size_t few_tokens = 2 * turn_tokens;

/// Whether a vector has room for half the rows of a block, as is known when compiling.
#if PHI4FLASH_SIMD_HIGHWAY
inline constexpr bool half_a_block = !HWY_HAVE_SCALABLE && HWY_MAX_BYTES == 4 * packed_rows / 2;
#else
inline constexpr bool half_a_block = false;
#endif

/// Blocks that are unpacked together: the first of them is for the first 8 rows of a vector, the second for the others, if there are any.
struct block_pair {
    const std::byte* first;
    const std::byte* second;
};

/// Room for the numbers of a vector's rows.
inline constexpr std::size_t few_rows = packed_rows * wide_blocks;

/// A group of a pair of blocks, asked for further on, against as many tokens as there are sums.
template <dtype Format, class Products, class... Sums>
PHI4FLASH_VECTOR_INLINE void meet_pair(const block_pair& from, std::size_t g, std::size_t row, wide_codes levels, const activation_group* x,
                                       Sums&... sum) {
    using block = packed_block<Format>;
    const auto* a = reinterpret_cast<const block*>(from.first) + g;
    const auto* b = reinterpret_cast<const block*>(from.second) + g;
    prefetch_ahead<packed_asks_far>(a, sizeof(block));
    if constexpr (wide_blocks == 2) prefetch_ahead<packed_asks_far>(b, sizeof(block));
    meet_blocks<Format, Products>(*a, *b, row, levels, x, sum...);
}

/// Up to scale_groups groups of blocks against tokens T, whose activations of a group are x[T], and of the next `stride` further. Adds to
/// totals [T][few_rows].
template <dtype Format, class Products, std::size_t... T>
PHI4FLASH_VECTOR_INLINE void add_groups(const block_pair& from, std::size_t row, std::size_t groups, const activation_group* x, std::size_t stride,
                                        float* totals, wide_of<T>... sum) {
    const wide_codes levels = repeat_levels(q4_dense.level);
    const activation_group* at = x;
    for (std::size_t g = 0; g < groups; ++g, at += stride) meet_pair<Format, Products>(from, g, row, levels, at, sum...);
    (add_sum<Format>(sum, x[T], totals + T * few_rows + row), ...);
}
/// The same for all rows of a block that fills two vectors: both meet what is loaded of the tokens.
template <dtype Format, class Products, std::size_t... T>
PHI4FLASH_VECTOR_INLINE void add_groups_of_both(const block_pair& from, std::size_t groups, const activation_group* x, std::size_t stride,
                                                float* totals, wide_of<T>... sum, wide_of<T>... second) {
    using block = packed_block<Format>;
    const wide_codes levels = repeat_levels(q4_dense.level);
    const auto* a = reinterpret_cast<const block*>(from.first);
    const activation_group* at = x;
    for (std::size_t g = 0; g < groups; ++g, ++a, at += stride) {
        prefetch_ahead<packed_asks_far>(a, sizeof(block));
        meet_blocks<Format, Products>(*a, *a, 0, levels, at, sum...);
        meet_blocks<Format, Products>(*a, *a, packed_rows / 2, levels, at, second...);
    }
    (add_sum<Format>(sum, x[T], totals + T * few_rows), ...);
    (add_sum<Format>(second, x[T], totals + T * few_rows + packed_rows / 2), ...);
}
template <dtype Format, class Products, std::size_t... T>
PHI4FLASH_VECTOR_INLINE void add_groups(std::index_sequence<T...>, const block_pair& from, std::size_t groups, const activation_group* x,
                                        std::size_t stride, float* totals) {
    if constexpr (Products::picks_columns && half_a_block && sizeof...(T) <= 4) {
        return add_groups_of_both<Format, Products, T...>(from, groups, x, stride, totals, wide_of<T>(repeat_wide(0.0f))...,
                                                          wide_of<T>(repeat_wide(0.0f))...);
    }
    for (std::size_t row = 0; row < packed_rows; row += wide_rows() / wide_blocks)
        add_groups<Format, Products, T...>(from, row, groups, x, stride, totals, wide_of<T>(repeat_wide(0.0f))...);
}

/// One token against pairs of blocks P, a group of each in turn: their sums are made side by side, and no place waits for the groups of the others.
/// Each sum is made in the order of add_groups, so it has the same bits. Adds to totals[P] [few_rows].
template <dtype Format, class Products, std::size_t... P>
PHI4FLASH_VECTOR_INLINE void add_side_by_side(const block_pair* from, std::size_t row, std::size_t groups, const activation_group* x,
                                              std::size_t stride, float* const* totals, wide_of<P>... sum) {
    const wide_codes levels = repeat_levels(q4_dense.level);
    const activation_group* at = x;
    for (std::size_t g = 0; g < groups; ++g, at += stride) (meet_pair<Format, Products>(from[P], g, row, levels, at, sum), ...);
    (add_sum<Format>(sum, *x, totals[P] + row), ...);
}
template <dtype Format, class Products, std::size_t... P>
PHI4FLASH_VECTOR_INLINE void add_side_by_side(std::index_sequence<P...>, const block_pair* from, std::size_t groups, const activation_group* x,
                                              std::size_t stride, float* const* totals) {
    for (std::size_t row = 0; row < packed_rows; row += wide_rows() / wide_blocks)
        add_side_by_side<Format, Products, P...>(from, row, groups, x, stride, totals, wide_of<P>(repeat_wide(0.0f))...);
}

/// How many of so many tokens the next turn meets. (Scalar kernels have no turn of three: a third of what there is to compile of them.)
template <dtype Format>
constexpr std::size_t tokens_of_turn(std::size_t tokens) {
    if (tokens < 4) return PHI4FLASH_SIMD_SCALAR && tokens == 3 ? 2 : tokens;
    return longest_turn<Format> == 4 || tokens < 8 ? 4 : tokens < turn_tokens ? 8 : turn_tokens;
}

/// Groups of a pair of blocks against `tokens` tokens, a turn after the other.
template <dtype Format, class Products>
inline void add_turns(const block_pair& from, std::size_t groups, const activation_group* x, std::size_t stride, std::size_t tokens, float* totals) {
    const auto turn = [&](auto count) {
        if constexpr (tokens_of_turn<Format>(count()) == count())
            add_groups<Format, Products>(std::make_index_sequence<count()>(), from, groups, x, stride, totals);
    };
    while (tokens != 0) {
        const std::size_t done = tokens_of_turn<Format>(tokens);
        switch (done) {
            case 1: turn(std::integral_constant<std::size_t, 1>()); break;
            case 2: turn(std::integral_constant<std::size_t, 2>()); break;
            case 3: turn(std::integral_constant<std::size_t, 3>()); break;
            case 4: turn(std::integral_constant<std::size_t, 4>()); break;
            case 8: turn(std::integral_constant<std::size_t, 8>()); break;
            default: turn(std::integral_constant<std::size_t, turn_tokens>());
        }
        tokens -= done, x += done, totals += done * few_rows;
    }
}

/// What is loaded of a token meets a vector of weights of each of two pairs of blocks.
template <dtype Format, class Products, class Dots, class Codes>
PHI4FLASH_VECTOR_INLINE void next_two_dots(Dots& dots, Dots& next, Codes w, Codes next_w, const std::int8_t* x) {
    dots = next_dots<Format, Products>(dots, w, x);
    next = next_dots<Format, Products>(next, next_w, x);
}
/// The same for tokens T.
template <dtype Format, class Products, std::size_t... T, class Codes>
PHI4FLASH_VECTOR_INLINE void meet_both(Codes w, Codes next_w, const activation_group* x, std::size_t column, dots_of<Format, Products, T>&... dots,
                                       dots_of<Format, Products, T>&... next) {
    (next_two_dots<Format, Products>(dots, next, w, next_w, x[T].q + column), ...);
}

/// A group of two pairs of blocks against tokens T. Adds to sums [T] [2] [few_rows].
template <dtype Format, class Products, std::size_t... T>
PHI4FLASH_VECTOR_INLINE void add_group_of_pairs(const packed_block<Format>* const* from, const activation_group* x, float* sums,
                                                dots_of<Format, Products, T>... dots, dots_of<Format, Products, T>... next) {
    if constexpr (Format == dtype::q8) {
        for (std::size_t s = 0; s < 8; ++s)
            meet_both<Format, Products, T...>(with_sign(codes_at(*from[0], *from[1], s, 0)), with_sign(codes_at(*from[2], *from[3], s, 0)), x, 4 * s,
                                              dots..., next...);
    } else {
        const wide_codes levels = repeat_levels(q4_dense.level);
        for (std::size_t s = 0; s < 4; ++s) {
            const wide_codes codes = codes_at(*from[0], *from[1], s, 0);
            const wide_codes next_codes = codes_at(*from[2], *from[3], s, 0);
            meet_both<Format, Products, T...>(low_half<Format>(levels, codes), low_half<Format>(levels, next_codes), x, 4 * s, dots..., next...);
            meet_both<Format, Products, T...>(high_half<Format>(levels, codes), high_half<Format>(levels, next_codes), x, 16 + 4 * s, dots...,
                                              next...);
        }
    }
    const wide_f32 scales = scales_of_rows(from[0]->scale, from[1]->scale);
    const wide_f32 next_scales = scales_of_rows(from[2]->scale, from[3]->scale);
    (store_wide(add_dots<Format, Products>(dots, scales, x[T], load_wide(sums + 2 * T * few_rows)), sums + 2 * T * few_rows), ...);
    float* const next_sums = sums + few_rows;
    (store_wide(add_dots<Format, Products>(next, next_scales, x[T], load_wide(next_sums + 2 * T * few_rows)), next_sums + 2 * T * few_rows), ...);
}

/// Up to scale_groups groups of two pairs of blocks against tokens T. Adds to totals[pair] [T][few_rows].
template <dtype Format, class Products, std::size_t... T>
inline void add_groups_of_pairs(std::index_sequence<T...>, const block_pair* pair, std::size_t groups, const activation_group* x, std::size_t stride,
                                float* const* totals, std::size_t first) {
    using block = packed_block<Format>;
    alignas(64) float sums[sizeof...(T) * 2 * few_rows];
    std::memset(sums, 0, sizeof sums);
    const block* from[4] = {reinterpret_cast<const block*>(pair[0].first), reinterpret_cast<const block*>(pair[0].second),
                            reinterpret_cast<const block*>(pair[1].first), reinterpret_cast<const block*>(pair[1].second)};
    const activation_group* at = x;
    for (std::size_t g = 0; g < groups; ++g, at += stride) {
        for (const block* b : from) prefetch_ahead<packed_asks_far>(b, sizeof(block));
        add_group_of_pairs<Format, Products, T...>(from, at, sums, begin_dots<Format, Products>(at[T])..., begin_dots<Format, Products>(at[T])...);
        ++from[0], ++from[1], ++from[2], ++from[3];
    }
    (add_sum<Format>(load_wide(sums + 2 * T * few_rows), x[T], totals[0] + (first + T) * few_rows), ...);
    (add_sum<Format>(load_wide(sums + (2 * T + 1) * few_rows), x[T], totals[1] + (first + T) * few_rows), ...);
}

/// y[t, r] = total + bias of 8 rows.
PHI4FLASH_VECTOR_INLINE void put_totals(const float* total, const float* bias, float* y) {
    for (std::size_t r = 0; r < packed_rows; r += rows_lanes()) {
        const rows_f32 v = load_rows(total + r);
        store_rows(bias == nullptr ? v : add_rows_f32(v, load_rows(bias + r)), y + r);
    }
}

/// Rows of blocks that lie apart, each read from its beginning to its end, in turn. Shape: w [count, cols], rows of blocks `stride` bytes apart,
/// whose outputs lie packed_rows * `apart` floats apart.
struct block_rows {
    const std::byte* w;
    std::size_t stride;
    std::size_t count;  ///< up to row_streams, or wide_blocks if that is more
    std::size_t apart;
    [[nodiscard]] const std::byte* at(std::size_t i) const { return w + (i < count ? i : count - 1) * stride; }
};

/// y[t] of `tokens` tokens, few_tokens at most.
template <dtype Format, class Products>
inline void few_block_rows(const block_rows& rows, std::size_t groups, const activation_group* x, std::size_t stride, std::size_t tokens,
                           const float* bias, float* y, std::size_t y_stride) {
    constexpr std::size_t most = (row_streams > wide_blocks ? row_streams : wide_blocks) / wide_blocks;
    alignas(64) float totals[most][few_tokens * few_rows];
    float* total_of[most];
    block_pair pair[most];
    const std::size_t pairs = (rows.count + wide_blocks - 1) / wide_blocks;
    for (std::size_t p = 0; p < pairs; ++p) {
        total_of[p] = totals[p];
        pair[p] = {rows.at(p * wide_blocks), rows.at(p * wide_blocks + wide_blocks - 1)};
        std::memset(totals[p], 0, tokens * few_rows * sizeof(float));
    }
    for (std::size_t g = 0; g < groups; g += scale_groups, x += scale_groups * stride) {
        const std::size_t some = groups - g < scale_groups ? groups - g : scale_groups;
        bool done = false;
        if constexpr (places_side_by_side) {
            done = tokens == 1 && pairs == most;
            if (done) add_side_by_side<Format, Products>(std::make_index_sequence<most>(), pair, some, x, stride, total_of);
        }
        std::size_t together = 0;  // tokens that are done
        if constexpr (wide_blocks == 2 && most == 2) {
            const auto next = [&](auto tokens_at_once) {
                for (; pairs == 2 && tokens - together >= tokens_at_once(); together += tokens_at_once())
                    add_groups_of_pairs<Format, Products>(std::make_index_sequence<tokens_at_once()>(), pair, some, x + together, stride, total_of,
                                                          together);
            };
            next(std::integral_constant<std::size_t, 8>());
            next(std::integral_constant<std::size_t, 4>());
        }
        for (std::size_t p = 0; !done && p < pairs; ++p)
            add_turns<Format, Products>(pair[p], some, x + together, stride, tokens - together, totals[p] + together * few_rows);
        for (std::size_t p = 0; p < pairs; ++p)
            pair[p].first += some * sizeof(packed_block<Format>), pair[p].second += some * sizeof(packed_block<Format>);
    }
    for (std::size_t t = 0; t < tokens; ++t, y += y_stride) {
        for (std::size_t i = 0; i < rows.count; ++i)
            put_totals(totals[i / wide_blocks] + t * few_rows + i % wide_blocks * packed_rows, bias == nullptr ? nullptr : bias + i * rows.apart,
                       y + i * rows.apart);
    }
}

/// y[t, r] = bias[r] + sum_c W[r, c] x[t, c].   Shape: x [groups][tokens].
template <dtype Format, class Products>
inline void packed_few(const std::byte* w, std::size_t rows, std::size_t cols, const activation_group* x, std::size_t tokens, const float* bias,
                       float* y, std::size_t y_stride) {
    const std::size_t groups = cols / packed_cols;
    const std::size_t row_bytes = matrix_bytes(Format, packed_rows, cols);
    const std::size_t blocks = rows / packed_rows;
    const std::size_t part = blocks / row_streams;
    for (std::size_t t = 0; t < tokens; t += few_tokens) {
        const std::size_t count = tokens - t < few_tokens ? tokens - t : few_tokens;
        const auto put = [&](const block_rows& from, std::size_t first) {
            few_block_rows<Format, Products>(from, groups, x + t, tokens, count, bias == nullptr ? nullptr : bias + first * packed_rows,
                                             y + t * y_stride + first * packed_rows, y_stride);
        };
        for (std::size_t b = 0; b < part; ++b) put({w + b * row_bytes, part * row_bytes, row_streams, part * packed_rows}, b);
        for (std::size_t b = part * row_streams; b < blocks; b += wide_blocks)
            put({w + b * row_bytes, row_bytes, blocks - b < wide_blocks ? blocks - b : wide_blocks, packed_rows}, b);
    }
}

PHI4FLASH_TARGET_END
