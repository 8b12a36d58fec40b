// Packed weights, way "bundles": many tokens, side by side in a vector (arrange-inl.hpp), where there is no VNNI.
// Weights are unpacked to levels, strip by strip (strip-inl.hpp); each level, repeated, meets the activations of many tokens. 4 bits
// only. Runs when: ways-inl.hpp.

PHI4FLASH_TARGET_BEGIN

/// Fewer tokens than this are cheaper in registers. With AVX2's sums of 16 bits a level meets a bundle with a load, two instructions and its share of
/// a repetition; in registers an activation does with a repetition and the same two. So several bundles, and strips that pay for themselves. SSE2
/// is slower so, and AVX-512 without VNNI was not measured.
#if PHI4FLASH_SIMD_HIGHWAY && HWY_ARCH_X86
inline constexpr std::size_t bundled_tokens = HWY_TARGET == HWY_AVX2 ? 32 : 8;
#else
inline constexpr std::size_t bundled_tokens = 8;
#endif

/// Bundles that a strip meets while it is unpacked. Their activations in its columns stay in the second-level cache; those of a tile
/// that share a scale, in the first-level one.
inline constexpr std::size_t bundles_at_once = 16;

PHI4FLASH_VECTOR_INLINE auto bundle_start(const std::byte* x) {
    return load_starts(reinterpret_cast<const std::int32_t*>(x + start_step * 4 * tokens_lanes()));
}

/// The scales of a bundle's tokens in a group.
PHI4FLASH_VECTOR_INLINE tokens_f32 bundle_scales(const std::byte* x) {
    return load_tokens(reinterpret_cast<const float*>(x + scale_step * 4 * tokens_lanes()));
}

/// One row of a block of groups: where its levels and scales lie, group by group.
struct strip_row {
    const std::uint8_t* levels;
    const std::uint32_t* scales;
    float unit;
    std::size_t groups;
    std::size_t rows;  ///< of the strip: from group to group
};

// Vectors cannot stand in arrays, so a tile's sums are packs of parameters: one for each bundle B.
//
// Activations share a scale in a block of groups: the block is added up by itself, and multiplied by that scale in the end.
template <std::size_t>
using block_of = decltype(block_zero());
template <std::size_t>
using sums_of = decltype(bundle_start(nullptr));

/// A block joins the sum; `x` is the bundle in any of its groups.
template <class Block>
PHI4FLASH_VECTOR_INLINE void block_ends(Block block, float unit, const std::byte* x, float* sum) {
    store_tokens(multiply_add(block_floats(block, unit), bundle_scales(x), load_tokens(sum)), sum);
}

/// One group of a row: its products with every bundle, times its scale, added to the blocks. `sums` are the starts.
template <std::size_t... B>
PHI4FLASH_VECTOR_INLINE void add_group(const std::uint8_t* levels, const std::uint32_t* scale, const std::byte* x,
                                       block_of<B>&... block, sums_of<B>... sums) {
    const auto* q = reinterpret_cast<const std::int8_t*>(x);
    for (std::size_t s = 0; s < 8; ++s, q += 4 * tokens_lanes()) {
        const token_codes w = repeat_codes(levels + s * 4 * packed_rows);
        ((sums = dot_next(sums, w, load_tokens(q + B * bundle_bytes()))), ...);
    }
    const auto scales = repeat_scale(scale);
    ((block = block_add(block, sums, scales)), ...);
}

template <class Sums, class Activations>
PHI4FLASH_VECTOR_INLINE void dot_both(token_codes w, token_codes next_w, Activations x, Sums& sums, Sums& next_sums) {
    sums = dot_next(sums, w, x);
    next_sums = dot_next(next_sums, next_w, x);
}

/// The same for two rows, which meet each load of activations.
template <std::size_t... B>
PHI4FLASH_VECTOR_INLINE void add_two_groups(const std::uint8_t* levels, const std::uint32_t* scale, const std::byte* x,
                                            block_of<B>&... block, block_of<B>&... next_block, sums_of<B>... sums,
                                            sums_of<B>... next_sums) {
    const auto* q = reinterpret_cast<const std::int8_t*>(x);
    for (std::size_t s = 0; s < 8; ++s, q += 4 * tokens_lanes()) {
        const token_codes w = repeat_codes(levels + s * 4 * packed_rows);
        const token_codes next_w = repeat_codes(levels + s * 4 * packed_rows + 4);
        (dot_both(w, next_w, load_tokens(q + B * bundle_bytes()), sums, next_sums), ...);
    }
    const auto scales = repeat_scale(scale);
    const auto next_scales = repeat_scale(scale + 1);
    ((block = block_add(block, sums, scales)), ...);
    ((next_block = block_add(next_block, next_sums, next_scales)), ...);
}

/// A row of a block of groups against a tile, whose groups lie group_bytes apart. Adds to sum [bundles][tokens_lanes()].
template <std::size_t... B>
PHI4FLASH_VECTOR_INLINE void add_row(const strip_row& row, const std::byte* x, std::size_t group_bytes, float* sum,
                                     block_of<B>... block) {
    const std::byte* from = x;
    const std::uint8_t* levels = row.levels;
    const std::uint32_t* scale = row.scales;
    for (std::size_t g = 0; g < row.groups; ++g, from += group_bytes, levels += row.rows * packed_cols, scale += row.rows)
        add_group<B...>(levels, scale, from, block..., bundle_start(from + B * bundle_bytes())...);
    (block_ends(block, row.unit, x + B * bundle_bytes(), sum + B * tokens_lanes()), ...);
}

/// Two rows, where scales are floats.
template <std::size_t... B>
PHI4FLASH_VECTOR_INLINE void add_two_rows(const strip_row& row, const std::byte* x, std::size_t group_bytes, float* sum,
                                          block_of<B>... block, block_of<B>... next_block) {
    const std::byte* from = x;
    const std::uint8_t* levels = row.levels;
    const std::uint32_t* scale = row.scales;
    for (std::size_t g = 0; g < row.groups; ++g, from += group_bytes, levels += row.rows * packed_cols, scale += row.rows)
        add_two_groups<B...>(levels, scale, from, block..., next_block..., bundle_start(from + B * bundle_bytes())...,
                               bundle_start(from + B * bundle_bytes())...);
    (block_ends(block, 1.0f, x + B * bundle_bytes(), sum + B * tokens_lanes()), ...);
    sum += sizeof...(B) * tokens_lanes();
    (block_ends(next_block, 1.0f, x + B * bundle_bytes(), sum + B * tokens_lanes()), ...);
}

/// Rows that meet a load of activations.
inline constexpr std::size_t rows_at_once = integer_scales ? 1 : 2;

template <std::size_t... B>
PHI4FLASH_VECTOR_INLINE void add_rows(std::index_sequence<B...>, const strip_row& row, const std::byte* x, std::size_t group_bytes, float* sum) {
    if constexpr (rows_at_once == 2) {
        add_two_rows<B...>(row, x, group_bytes, sum, block_of<B>(block_zero())...,
                             block_of<B>(block_zero())...);
    } else {
        add_row<B...>(row, x, group_bytes, sum, block_of<B>(block_zero())...);
    }
}

/// A strip against a tile; `x` is the tile's first group here. Adds to sums [rows][tokens of the tile].
template <std::size_t Bundles>
PHI4FLASH_VECTOR_INLINE void bundle_strip(const unpacked_strip& w, std::size_t rows, std::size_t groups, const std::byte* x, float* sums) {
    const std::size_t group_bytes = Bundles * bundle_bytes();
    const float* unit = w.units;
    for (std::size_t g = 0; g < groups; g += scale_groups, x += scale_groups * group_bytes) {
        strip_row row{w.levels + g * rows * packed_cols, w.scales + g * rows, 1.0f, groups - g < scale_groups ? groups - g : scale_groups, rows};
        float* sum = sums;
        for (std::size_t r = 0; r < rows; r += packed_rows, row.levels += packed_rows * (packed_cols - 4)) {
            for (std::size_t i = 0; i < packed_rows; i += rows_at_once) {
                if constexpr (integer_scales) row.unit = *unit++;
                add_rows(std::make_index_sequence<Bundles>(), row, x, group_bytes, sum);
                row.levels += rows_at_once * 4, row.scales += rows_at_once, sum += rows_at_once * Bundles * tokens_lanes();
            }
        }
    }
}

/// A strip, columns from group `first_group` of `all_groups`, against bundles [begin, end) of `bundles`. Sums: tile by tile, [rows][tokens].
inline void bundle_tiles(const unpacked_strip& w, std::size_t rows, std::size_t first_group, std::size_t groups, std::size_t all_groups,
                         const std::byte* x, std::size_t begin, std::size_t end, std::size_t bundles, float* sums) {
    while (begin < end) {
        const std::size_t count = tile_of(begin, bundles).count;
        const std::byte* from = x + arranged_offset(begin, all_groups) + first_group * count * bundle_bytes();
        switch (count) {
            case 6: bundle_strip<6>(w, rows, groups, from, sums); break;
            case 4: bundle_strip<4>(w, rows, groups, from, sums); break;
            case 2: bundle_strip<2>(w, rows, groups, from, sums); break;
            default: bundle_strip<1>(w, rows, groups, from, sums); break;
        }
        begin += count;
        sums += count * tokens_lanes() * rows;
    }
}

/// y[t, r] = sums + bias for bundles [begin, end) of `bundles`.
inline void put_bundles(const float* sums, std::size_t rows, std::size_t begin, std::size_t end, std::size_t bundles, const float* bias, float* y,
                        std::size_t y_stride) {
    const std::size_t lane_count = tokens_lanes();
    while (begin < end) {
        const std::size_t count = tile_of(begin, bundles).count;
        const std::size_t tokens = count * lane_count;
        for (std::size_t t = 0; t < tokens; t += lane_count, y += lane_count * y_stride) {
            for (std::size_t r = 0; r < rows; r += 4) {
                const float* sum = sums + r * tokens + t;
                tokens_f32 a = load_tokens(sum);
                tokens_f32 b = load_tokens(sum + tokens);
                tokens_f32 c = load_tokens(sum + 2 * tokens);
                tokens_f32 d = load_tokens(sum + 3 * tokens);
                if (bias != nullptr) {
                    a = add_tokens(a, repeat_tokens(bias[r])), b = add_tokens(b, repeat_tokens(bias[r + 1]));
                    c = add_tokens(c, repeat_tokens(bias[r + 2])), d = add_tokens(d, repeat_tokens(bias[r + 3]));
                }
                store_across(a, b, c, d, y + r, y_stride);
            }
        }
        begin += count;
        sums += tokens * rows;
    }
}

/// Whole tiles from bundle `begin` of `bundles`, at most bundles_at_once. Weights are streamed, strip by strip. Returns where they end.
template <dtype Format>
inline std::size_t packed_matmul_bundles(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, std::size_t begin,
                                         std::size_t bundles, const float* bias, float* y, std::size_t y_stride) {
    const std::size_t groups = cols / packed_cols;
    std::size_t end = begin;
    while (end < bundles && end + tile_of(end, bundles).count <= begin + bundles_at_once) end += tile_of(end, bundles).count;
    unpacked_strip strip;
    alignas(64) float sums[strip_rows * bundles_at_once * 16];
    for (std::size_t r = 0; r < rows; r += strip_rows) {
        const std::size_t count = rows - r < strip_rows ? rows - r : strip_rows;
        std::memset(sums, 0, count * (end - begin) * tokens_lanes() * sizeof(float));
        const std::byte* from = w + matrix_bytes(Format, r, cols);
        for (std::size_t g = 0; g < groups; g += strip_groups) {
            const std::size_t some = groups - g < strip_groups ? groups - g : strip_groups;
            const std::byte* next =
                g + some < groups ? from + matrix_bytes(Format, packed_rows, some * packed_cols) : w + matrix_bytes(Format, r + count, cols);
            unpack_strip<Format>(from, next, count, matrix_bytes(Format, packed_rows, cols), some, strip);
            from = next;
            bundle_tiles(strip, count, g, some, groups, x, begin, end, bundles, sums);
        }
        put_bundles(sums, count, begin, end, bundles, bias == nullptr ? nullptr : bias + r, y + r, y_stride);
    }
    return end;
}

/// Many tokens side by side, those that fill no vector by themselves.
template <dtype Format>
struct bundle_way {
    static constexpr float weight_rounding = integer_scales ? 0x1p-12f : 0.0f;
    static constexpr std::size_t from = bundled_tokens;

    static const std::byte* arrange(const float* x, std::size_t x_stride, std::size_t cols, std::size_t begin, std::size_t end, std::size_t tokens,
                                    std::byte* scratch) {
        return arrange_codes<Format, own_products>(x, x_stride, cols, begin, end, tokens, true, scratch);
    }
    static void matmul(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, std::size_t tokens, const float* bias, float* y,
                       std::size_t y_stride) {
        const std::size_t bundles = tokens / tokens_lanes();
        for (std::size_t b = 0; b < bundles;)
            b = packed_matmul_bundles<Format>(w, rows, cols, x, b, bundles, bias, y + b * tokens_lanes() * y_stride, y_stride);
        const std::size_t bundled = bundles * tokens_lanes();
        if (bundled == tokens) return;
        const auto* singles = reinterpret_cast<const activation_group*>(x + arranged_offset(bundles, cols / packed_cols));
        packed_few<Format, own_products>(w, rows, cols, singles, tokens - bundled, bias, y + bundled * y_stride, y_stride);
    }
};

PHI4FLASH_TARGET_END
