// Packed weights, ways "registers" and "bundles": activations as they read them, rounded to 8 bits: token by token, or side by side for vectors.

PHI4FLASH_TARGET_BEGIN

/// Tokens lie in bundles of tokens_lanes(), bundles in tiles of up to 6, whose sums a kernel keeps in registers. A tile is group by group
/// (32 columns), a group bundle by bundle, and a bundle is, for each of its tokens side by side: columns 4 s to 4 s + 3 for s = 0 to 7, the
/// scale, the start: the members of activation_group, in steps of 4 bytes a token. Tokens that fill no bundle follow as activation_groups, group by
/// group and of each group token by token.
inline constexpr std::size_t scale_step = offsetof(activation_group, scale) / 4;
inline constexpr std::size_t start_step = offsetof(activation_group, start) / 4;

struct bundle_tile {
    std::size_t first;  ///< its first bundle
    std::size_t count;  ///< 6, 4, 2 or 1
};

/// The tile of a bundle among `bundles`. Two registers a bundle are needed, or four, where two rows go together.
PHI4FLASH_VECTOR_INLINE bundle_tile tile_of(std::size_t bundle, std::size_t bundles) {
    constexpr std::size_t most = integer_scales ? 6 : 4;
    // Two tiles of 4 rather than one of 6 and one of 2.
    const std::size_t whole = most == 6 && bundles >= 8 && bundles % 6 == 2 ? bundles / 6 - 1 : bundles / most;
    if (bundle < whole * most) return {bundle / most * most, most};
    std::size_t first = whole * most;
    for (;;) {
        const std::size_t left = bundles - first;
        const std::size_t count = left >= 4 ? 4 : left >= 2 ? 2 : 1;
        if (bundle < first + count) return {first, count};
        first += count;
    }
}

PHI4FLASH_VECTOR_INLINE std::size_t bundle_bytes() { return tokens_lanes() * sizeof(activation_group); }

/// Where a tile, or what follows the last one, begins.
PHI4FLASH_VECTOR_INLINE std::size_t arranged_offset(std::size_t first_bundle, std::size_t groups) {
    return first_bundle * groups * bundle_bytes();
}

/// Sums of the first two and of the last two of every four columns.
struct two_sums {
    float first;
    float second;
};
/// `sums` has column i in lane i % lanes(), `columns` all of them: what is used where a vector does not hold four.
PHI4FLASH_VECTOR_INLINE two_sums sum_pairs(f32_vector sums, const float* columns) {
    float part[max_lanes];
    store(sums, part);
    const std::size_t count = lanes() < 4 ? packed_cols : lanes();
    const float* from = lanes() < 4 ? columns : part;
    two_sums result{0.0f, 0.0f};
    for (std::size_t i = 0; i < count; i += 4) {
        result.first += from[i] + from[i + 1];
        result.second += from[i + 2] + from[i + 3];
    }
    return result;
}

/// The scale of `groups` groups: max |x| / 127, or what keeps every sum of sixteen |q| within SumLimit if that is more (0: no such
/// limit). 0 where the inverse would overflow: such groups count as zeros.
template <int SumLimit>
PHI4FLASH_VECTOR_INLINE float scale_of(const float* x, std::size_t groups) {
    const std::size_t lane_count = lanes();
    float columns[packed_cols];
    f32_vector highest = zero();
    float scale = 0.0f;
    for (std::size_t g = 0; g < groups; ++g, x += packed_cols) {
        f32_vector sums = zero();
        for (std::size_t i = 0; i < packed_cols; i += lane_count) {
            const f32_vector magnitude = abs_of(load(x + i));
            highest = max_of(highest, magnitude);
            sums = add(sums, magnitude);
            if (SumLimit != 0 && lane_count < 4) store(magnitude, columns + i);
        }
        if constexpr (SumLimit != 0) {
            // Rounding adds at most a half to each of the sixteen, and the sums of floats are a little off.
            const two_sums both = sum_pairs(sums, columns);
            const float least = (both.first > both.second ? both.first : both.second) * (1.0f / (static_cast<float>(SumLimit) - 8.5f));
            scale = least > scale ? least : scale;
        }
    }
    const float usual = reduce_max(highest) * (1.0f / 127.0f);
    scale = usual > scale ? usual : scale;
    return scale < FLT_MIN ? 0.0f : scale;
}

/// q[i] = round(x[i] / scale) for a group; every four q lie `step` bytes after the four before. Returns the group's start.
/// Error: |x - scale q| <= scale / 2 (tests/kernels/packed/packed_test.cpp).
template <class Products, int Zero>
PHI4FLASH_VECTOR_INLINE std::int32_t round_group(const float* x, float inverse, std::byte* q, std::size_t step) {
    const std::size_t lane_count = lanes();
    float columns[packed_cols];
    const f32_vector inverses = set(inverse);
    f32_vector sums = zero();
    for (std::size_t i = 0; i < packed_cols; i += lane_count) {
        const f32_vector rounded = round_nearest(mul(load(x + i), inverses));
        store_integers(rounded, reinterpret_cast<std::int8_t*>(q) + i / 4 * step + i % 4, step);
        sums = add(sums, rounded);
        if (lane_count < 4) store(rounded, columns + i);
    }
    const two_sums both = sum_pairs(sums, columns);  // small integers, so exact; no numbers where damaged weights made x so
    return Products::start(-Zero * whole_or_zero(both.first), -Zero * whole_or_zero(both.second));
}

/// One token: group g goes to `to` + g * group_bytes, its scale and start scale_step and start_step steps of `step` bytes behind its first q.
template <class Products, int SumLimit, int Zero, std::size_t ScaleGroups>
PHI4FLASH_VECTOR_INLINE void arrange_token(const float* x, std::size_t groups, std::byte* to, std::size_t step, std::size_t group_bytes) {
    for (std::size_t g = 0; g < groups; g += ScaleGroups) {
        const std::size_t some = groups - g < ScaleGroups ? groups - g : ScaleGroups;
        const float scale = scale_of<SumLimit>(x + g * packed_cols, some);
        const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
        for (std::size_t i = 0; i < some; ++i, to += group_bytes) {
            const std::int32_t start = round_group<Products, Zero>(x + (g + i) * packed_cols, inverse, to, step);
            std::memcpy(to + scale_step * step, &scale, sizeof scale);
            std::memcpy(to + start_step * step, &start, sizeof start);
        }
    }
}

/// Tokens side by side where `bundled` and enough of them come together; else every token by itself.
template <class Products, int SumLimit, int Zero, std::size_t ScaleGroups>
inline const std::byte* arrange_int8(const float* PHI4FLASH_RESTRICT x, std::size_t x_stride, std::size_t cols, std::size_t begin, std::size_t end,
                                     std::size_t tokens, bool bundled, std::byte* PHI4FLASH_RESTRICT scratch) {
    const std::size_t groups = cols / packed_cols;
    const std::size_t lane_count = tokens_lanes();
    const std::size_t bundles = bundled ? tokens / lane_count : 0;
    const std::size_t singles = tokens - bundles * lane_count;
    for (std::size_t t = begin; t < end; ++t) {
        const std::size_t bundle = t / lane_count;
        if (bundle < bundles) {
            const bundle_tile tile = tile_of(bundle, bundles);
            std::byte* to = scratch + arranged_offset(tile.first, groups) + (bundle - tile.first) * bundle_bytes() + 4 * (t % lane_count);
            arrange_token<Products, SumLimit, Zero, ScaleGroups>(x + t * x_stride, groups, to, 4 * lane_count, tile.count * bundle_bytes());
        } else {
            std::byte* to = scratch + arranged_offset(bundles, groups) + (t - bundles * lane_count) * sizeof(activation_group);
            arrange_token<Products, SumLimit, Zero, ScaleGroups>(x + t * x_stride, groups, to, 4, singles * sizeof(activation_group));
        }
    }
    return scratch;
}

/// As products with weights of this format read them.
template <dtype Format, class Products>
inline const std::byte* arrange_codes(const float* x, std::size_t x_stride, std::size_t cols, std::size_t begin, std::size_t end, std::size_t tokens,
                                      bool bundled, std::byte* scratch) {
    if constexpr (Format == dtype::q8) {
        return arrange_int8<Products, 0, Products::byte_offset, 1>(x, x_stride, cols, begin, end, tokens, bundled, scratch);
    } else if constexpr (Format == dtype::q4) {
        return arrange_int8<Products, 0, q4_uniform.zero, scale_groups>(x, x_stride, cols, begin, end, tokens, bundled, scratch);
    } else {
        return arrange_int8<Products, Products::activation_sum, q4_dense.zero, scale_groups>(x, x_stride, cols, begin, end, tokens, bundled, scratch);
    }
}

PHI4FLASH_TARGET_END
