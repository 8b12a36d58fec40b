// Products of 4-bit weights and 8-bit activations of many tokens, which lie side by side in a vector (packed_arrange-inl.hpp).

PHI4FLASH_TARGET_BEGIN

/// Bundles that a strip meets while it is unpacked. Their activations in its columns stay in the second-level cache; those of a tile
/// that share a scale, in the first-level one.
inline constexpr std::size_t bundles_at_once = 16;

/// One step, four columns of a row, of two bundles.
template <class Sums>
PHI4FLASH_VECTOR_INLINE void bundle_next_two(token_codes w, const std::int8_t* x, Sums& a, Sums& b) {
    a = dot_next(a, w, load_tokens(x));
    b = dot_next(b, w, load_tokens(x + bundle_bytes()));
}

PHI4FLASH_VECTOR_INLINE auto bundle_start(const std::byte* x) { return load_starts(reinterpret_cast<const std::int32_t*>(x + start_step * 4 * tokens_lanes())); }

/// sum += the tokens' scales * block, for a bundle.
template <class Block>
PHI4FLASH_VECTOR_INLINE void add_block(Block block, float unit, const std::byte* x, float* sum) {
    const tokens_f32 scales = load_tokens(reinterpret_cast<const float*>(x + scale_step * 4 * tokens_lanes()));
    store_tokens(multiply_add(block_floats(block, unit), scales, load_tokens(sum)), sum);
}

/// One row of a block of groups: where its levels and scales lie, group by group.
struct strip_row {
    const std::uint8_t* levels;
    const std::uint32_t* scales;
    float unit;
    std::size_t groups;
    std::size_t rows;  ///< of the strip: from group to group
};

/// A row of a block of groups against one bundle; below, against 2, 4, 6 and 8, each written out, since there are no arrays of vectors.
/// Adds to sum [bundles][tokens_lanes()].
PHI4FLASH_VECTOR_INLINE void add_row_1(strip_row w, const std::byte* x, std::size_t group_bytes, float* sum) {
    auto block = block_zero();
    const std::byte* from = x;
    for (std::size_t g = 0; g < w.groups; ++g, from += group_bytes, w.levels += w.rows * packed_cols, w.scales += w.rows) {
        const auto* q = reinterpret_cast<const std::int8_t*>(from);
        auto sums = bundle_start(from);
        for (std::size_t s = 0; s < 8; ++s) sums = dot_next(sums, repeat_codes(w.levels + s * 4 * packed_rows), load_tokens(q + s * 4 * tokens_lanes()));
        block = block_add(block, sums, repeat_scale(w.scales));
    }
    add_block(block, w.unit, x, sum);
}

PHI4FLASH_VECTOR_INLINE void add_row_2(strip_row w, const std::byte* x, std::size_t group_bytes, float* sum) {
    const std::size_t bytes = bundle_bytes();
    auto block_a = block_zero(), block_b = block_zero();
    const std::byte* from = x;
    for (std::size_t g = 0; g < w.groups; ++g, from += group_bytes, w.levels += w.rows * packed_cols, w.scales += w.rows) {
        const auto* q = reinterpret_cast<const std::int8_t*>(from);
        auto a = bundle_start(from), b = bundle_start(from + bytes);
        for (std::size_t s = 0; s < 8; ++s) bundle_next_two(repeat_codes(w.levels + s * 4 * packed_rows), q + s * 4 * tokens_lanes(), a, b);
        const auto scale = repeat_scale(w.scales);
        block_a = block_add(block_a, a, scale), block_b = block_add(block_b, b, scale);
    }
    add_block(block_a, w.unit, x, sum), add_block(block_b, w.unit, x + bytes, sum + tokens_lanes());
}

PHI4FLASH_VECTOR_INLINE void add_row_4(strip_row w, const std::byte* x, std::size_t group_bytes, float* sum) {
    const std::size_t bytes = bundle_bytes();
    const std::size_t lane_count = tokens_lanes();
    auto block_a = block_zero(), block_b = block_zero(), block_c = block_zero(), block_d = block_zero();
    const std::byte* from = x;
    for (std::size_t g = 0; g < w.groups; ++g, from += group_bytes, w.levels += w.rows * packed_cols, w.scales += w.rows) {
        const auto* q = reinterpret_cast<const std::int8_t*>(from);
        auto a = bundle_start(from), b = bundle_start(from + bytes), c = bundle_start(from + 2 * bytes), d = bundle_start(from + 3 * bytes);
        for (std::size_t s = 0; s < 8; ++s) {
            const token_codes codes = repeat_codes(w.levels + s * 4 * packed_rows);
            bundle_next_two(codes, q + s * 4 * lane_count, a, b);
            bundle_next_two(codes, q + s * 4 * lane_count + 2 * bytes, c, d);
        }
        const auto scale = repeat_scale(w.scales);
        block_a = block_add(block_a, a, scale), block_b = block_add(block_b, b, scale);
        block_c = block_add(block_c, c, scale), block_d = block_add(block_d, d, scale);
    }
    add_block(block_a, w.unit, x, sum), add_block(block_b, w.unit, x + bytes, sum + lane_count);
    add_block(block_c, w.unit, x + 2 * bytes, sum + 2 * lane_count), add_block(block_d, w.unit, x + 3 * bytes, sum + 3 * lane_count);
}

PHI4FLASH_VECTOR_INLINE void add_row_6(strip_row w, const std::byte* x, std::size_t group_bytes, float* sum) {
    const std::size_t bytes = bundle_bytes();
    const std::size_t lane_count = tokens_lanes();
    auto block_a = block_zero(), block_b = block_zero(), block_c = block_zero(), block_d = block_zero(), block_e = block_zero(), block_f = block_zero();
    const std::byte* from = x;
    for (std::size_t g = 0; g < w.groups; ++g, from += group_bytes, w.levels += w.rows * packed_cols, w.scales += w.rows) {
        const auto* q = reinterpret_cast<const std::int8_t*>(from);
        auto a = bundle_start(from), b = bundle_start(from + bytes), c = bundle_start(from + 2 * bytes), d = bundle_start(from + 3 * bytes);
        auto e = bundle_start(from + 4 * bytes), f = bundle_start(from + 5 * bytes);
        for (std::size_t s = 0; s < 8; ++s) {
            const token_codes codes = repeat_codes(w.levels + s * 4 * packed_rows);
            bundle_next_two(codes, q + s * 4 * lane_count, a, b);
            bundle_next_two(codes, q + s * 4 * lane_count + 2 * bytes, c, d);
            bundle_next_two(codes, q + s * 4 * lane_count + 4 * bytes, e, f);
        }
        const auto scale = repeat_scale(w.scales);
        block_a = block_add(block_a, a, scale), block_b = block_add(block_b, b, scale);
        block_c = block_add(block_c, c, scale), block_d = block_add(block_d, d, scale);
        block_e = block_add(block_e, e, scale), block_f = block_add(block_f, f, scale);
    }
    add_block(block_a, w.unit, x, sum), add_block(block_b, w.unit, x + bytes, sum + lane_count);
    add_block(block_c, w.unit, x + 2 * bytes, sum + 2 * lane_count), add_block(block_d, w.unit, x + 3 * bytes, sum + 3 * lane_count);
    add_block(block_e, w.unit, x + 4 * bytes, sum + 4 * lane_count), add_block(block_f, w.unit, x + 5 * bytes, sum + 5 * lane_count);
}

PHI4FLASH_VECTOR_INLINE void add_row_8(strip_row w, const std::byte* x, std::size_t group_bytes, float* sum) {
    const std::size_t bytes = bundle_bytes();
    const std::size_t lane_count = tokens_lanes();
    auto block_a = block_zero(), block_b = block_zero(), block_c = block_zero(), block_d = block_zero();
    auto block_e = block_zero(), block_f = block_zero(), block_g = block_zero(), block_h = block_zero();
    const std::byte* from = x;
    for (std::size_t i = 0; i < w.groups; ++i, from += group_bytes, w.levels += w.rows * packed_cols, w.scales += w.rows) {
        const auto* q = reinterpret_cast<const std::int8_t*>(from);
        auto a = bundle_start(from), b = bundle_start(from + bytes), c = bundle_start(from + 2 * bytes), d = bundle_start(from + 3 * bytes);
        auto e = bundle_start(from + 4 * bytes), f = bundle_start(from + 5 * bytes), g = bundle_start(from + 6 * bytes),
             h = bundle_start(from + 7 * bytes);
        for (std::size_t s = 0; s < 8; ++s) {
            const token_codes codes = repeat_codes(w.levels + s * 4 * packed_rows);
            bundle_next_two(codes, q + s * 4 * lane_count, a, b);
            bundle_next_two(codes, q + s * 4 * lane_count + 2 * bytes, c, d);
            bundle_next_two(codes, q + s * 4 * lane_count + 4 * bytes, e, f);
            bundle_next_two(codes, q + s * 4 * lane_count + 6 * bytes, g, h);
        }
        const auto scale = repeat_scale(w.scales);
        block_a = block_add(block_a, a, scale), block_b = block_add(block_b, b, scale);
        block_c = block_add(block_c, c, scale), block_d = block_add(block_d, d, scale);
        block_e = block_add(block_e, e, scale), block_f = block_add(block_f, f, scale);
        block_g = block_add(block_g, g, scale), block_h = block_add(block_h, h, scale);
    }
    add_block(block_a, w.unit, x, sum), add_block(block_b, w.unit, x + bytes, sum + lane_count);
    add_block(block_c, w.unit, x + 2 * bytes, sum + 2 * lane_count), add_block(block_d, w.unit, x + 3 * bytes, sum + 3 * lane_count);
    add_block(block_e, w.unit, x + 4 * bytes, sum + 4 * lane_count), add_block(block_f, w.unit, x + 5 * bytes, sum + 5 * lane_count);
    add_block(block_g, w.unit, x + 6 * bytes, sum + 6 * lane_count), add_block(block_h, w.unit, x + 7 * bytes, sum + 7 * lane_count);
}

template <std::size_t Bundles>
PHI4FLASH_VECTOR_INLINE void add_row(const strip_row& row, const std::byte* x, std::size_t group_bytes, float* sum) {
    if constexpr (Bundles == 8) {
        add_row_8(row, x, group_bytes, sum);
    } else if constexpr (Bundles == 6) {
        add_row_6(row, x, group_bytes, sum);
    } else if constexpr (Bundles == 4) {
        add_row_4(row, x, group_bytes, sum);
    } else if constexpr (Bundles == 2) {
        add_row_2(row, x, group_bytes, sum);
    } else {
        add_row_1(row, x, group_bytes, sum);
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
            for (std::size_t i = 0; i < packed_rows; ++i, row.levels += 4, ++row.scales, sum += Bundles * tokens_lanes()) {
                if constexpr (integer_scales) row.unit = *unit++;
                add_row<Bundles>(row, x, group_bytes, sum);
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
            case 8: bundle_strip<8>(w, rows, groups, from, sums); break;
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
            const std::byte* next = g + some < groups ? from + matrix_bytes(Format, packed_rows, some * packed_cols) : w + matrix_bytes(Format, r + count, cols);
            unpack_strip<Format>(from, next, count, matrix_bytes(Format, packed_rows, cols), some, strip);
            from = next;
            bundle_tiles(strip, count, g, some, groups, x, begin, end, bundles, sums);
        }
        put_bundles(sums, count, begin, end, bundles, bias == nullptr ? nullptr : bias + r, y + r, y_stride);
    }
    return end;
}

template <dtype Format>
inline void packed_matmul(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, std::size_t, std::size_t tokens,
                          const float* bias, float* y, std::size_t y_stride) {
    const std::size_t bundles = Format == dtype::q8 ? 0 : tokens / tokens_lanes();
    for (std::size_t b = 0; b < bundles;)
        b = packed_matmul_bundles<Format>(w, rows, cols, x, b, bundles, bias, y + b * tokens_lanes() * y_stride, y_stride);
    const std::size_t bundled = bundles * tokens_lanes();
    if (bundled < tokens)
        packed_matmul_singles<Format>(w, rows, cols, reinterpret_cast<const activation_group*>(x + arranged_offset(bundles, cols / packed_cols)),
                                      tokens - bundled, bias, y + bundled * y_stride, y_stride);
}

PHI4FLASH_TARGET_END
