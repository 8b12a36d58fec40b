// Packed weights, way "bundles": strips of them, unpacked to levels once for many tokens. Next: bundles-inl.hpp.

PHI4FLASH_TARGET_BEGIN

/// What is unpacked at once, groups and rows: 18 KiB.
inline constexpr std::size_t strip_rows = 32;
inline constexpr std::size_t strip_groups = 2 * scale_groups;

/// Unpacked weights: levels [groups][rows / 8][8][8 rows][4 columns], so that four columns of a row lie together; scales [groups][rows], see
/// repeat_scale; units [groups / scale_groups][rows], what the scales count.
struct unpacked_strip {
    alignas(64) std::uint8_t levels[strip_groups * strip_rows * packed_cols];
    std::uint32_t scales[strip_groups * strip_rows];
    float units[strip_groups / scale_groups * strip_rows];
};

/// Rows [row, row + rows_lanes()) of a block: [8][8 rows][4 columns].
template <bool Dense>
PHI4FLASH_VECTOR_INLINE void unpack_block(const q4_block& block, std::size_t row, std::uint8_t* to) {
    const code_vector book = load_levels(q4_dense.level);
    for (std::size_t s = 0; s < 4; ++s, to += 4 * packed_rows) {
        const code_vector codes = load_codes(block.code[s] + 4 * row);
        store_codes(Dense ? levels_of(book, low_codes(codes)) : low_codes(codes), to);
        store_codes(Dense ? levels_of(book, high_codes(codes)) : high_codes(codes), to + 16 * packed_rows);
    }
}
/// Levels and scales (as floats, [groups][packed_rows]) of eight rows. Asks for the blocks at `next` on the way.
template <dtype Format>
PHI4FLASH_VECTOR_INLINE void unpack_rows(const std::byte* w, const std::byte* next, std::size_t groups, std::size_t rows, std::uint8_t* levels,
                                         float* scales) {
    using block = packed_block<Format>;
    for (std::size_t g = 0; g < groups; ++g, w += sizeof(block), next += sizeof(block), levels += rows * packed_cols) {
        for (std::size_t b = 0; b < sizeof(block); b += 64) prefetch_weights<packed_asks_far>(next + b);
        const block& from = *reinterpret_cast<const block*>(w);
        for (std::size_t row = 0; row < packed_rows; row += rows_lanes()) {
            unpack_block<Format == dtype::q4_dense>(from, row, levels + 4 * row);
            store_rows(load_scales(from.scale + row), scales + g * packed_rows + row);
        }
    }
}

/// The scales [groups][packed_rows] of a block of groups as integers, in units of scale_unit: off by at most half a unit.
inline void integer_scales_of(const float* scales, std::size_t groups, std::size_t rows, std::uint32_t* out, float* units) {
    float largest[packed_rows] = {};
    for (std::size_t g = 0; g < groups; ++g) {
        for (std::size_t r = 0; r < packed_rows; ++r) {
            const float magnitude = std::fabs(scales[g * packed_rows + r]);
            largest[r] = magnitude > largest[r] ? magnitude : largest[r];
        }
    }
    float inverse[packed_rows];
    for (std::size_t r = 0; r < packed_rows; ++r) {
        units[r] = scale_unit(largest[r]);
        inverse[r] = 1.0f / units[r];
    }
    for (std::size_t g = 0; g < groups; ++g) {
        for (std::size_t r = 0; r < packed_rows; ++r) {
            // The low bits of this sum are the nearest integer.
            const auto bits = std::bit_cast<std::uint32_t>(scales[g * packed_rows + r] * inverse[r] + 0x1.8p23f);
            out[g * rows + r] = (bits & 0xffffu) | bits << 16;
        }
    }
}

/// `groups` groups of `rows` rows, of which the next eight lie `row_bytes` further. Asks for what begins at `next` on the way.
template <dtype Format>
PHI4FLASH_VECTOR_INLINE void unpack_strip(const std::byte* w, const std::byte* next, std::size_t rows, std::size_t row_bytes, std::size_t groups,
                                          unpacked_strip& out) {
    float scales[strip_groups * packed_rows];
    for (std::size_t r = 0; r < rows; r += packed_rows, w += row_bytes, next += row_bytes) {
        unpack_rows<Format>(w, next, groups, rows, out.levels + r * packed_cols, scales);
        if constexpr (integer_scales) {
            for (std::size_t g = 0; g < groups; g += scale_groups)
                integer_scales_of(scales + g * packed_rows, groups - g < scale_groups ? groups - g : scale_groups, rows, out.scales + g * rows + r,
                                  out.units + g / scale_groups * rows + r);
        } else {
            for (std::size_t g = 0; g < groups; ++g) std::memcpy(out.scales + g * rows + r, scales + g * packed_rows, packed_rows * sizeof(float));
        }
    }
}

PHI4FLASH_TARGET_END
