// Products of 4-bit weights and 8-bit activations of many tokens, on matrix tiles (AMX): 16 tokens by 16 rows by 64 columns at once.
//
// Tiles have no place for a scale in each group of columns. So weights become bytes that share one over scale_groups groups, as activations
// do: rounded to 1/127 of the largest of their row there, a tenth of what 4 bits have cost already.

PHI4FLASH_TARGET_BEGIN

/// Fewer tokens than this are cheaper without tiles; and their activations would not fit arranged_bytes once padded to whole tiles.
inline constexpr std::size_t tiled_tokens = 8;

/// Columns whose weights, and whose activations, share a scale.
inline constexpr std::size_t scale_cols = scale_groups * packed_cols;

/// Unpacked at once: 16 KiB.
inline constexpr std::size_t tile_strip_rows = 2 * tile_rows;
inline constexpr std::size_t tile_strip_cols = 2 * scale_cols;
/// Tokens that use a strip before the next one is unpacked. Their sums take 32 KiB.
inline constexpr std::size_t tile_strip_tokens = 256;

struct tile_strip {
    alignas(64) std::int8_t weights[tile_strip_rows / tile_rows][tile_strip_cols / tile_cols][tile_bytes];  ///< a tile: [cols / 4][rows][4]
    alignas(64) float units[tile_strip_cols / scale_cols][tile_strip_rows];
};

/// Where the activations of `tokens` tokens lie: tiles of 16 tokens by 64 columns, a tile of tokens after the other; then their scales,
/// [tokens / 16][cols / scale_cols][16]. Padded with zeros to whole tiles.
struct tile_layout {
    std::size_t col_tiles;
    std::size_t scale_blocks;
    std::size_t scales_at;

    tile_layout(std::size_t cols, std::size_t tokens)
        : col_tiles((cols + tile_cols - 1) / tile_cols), scale_blocks((cols + scale_cols - 1) / scale_cols),
          scales_at((tokens + tile_rows - 1) / tile_rows * col_tiles * tile_bytes) {}
    [[nodiscard]] std::size_t codes_of(std::size_t token) const { return token / tile_rows * col_tiles * tile_bytes + token % tile_rows * tile_cols; }
    [[nodiscard]] std::size_t scales_of(std::size_t token) const {
        return scales_at + (token / tile_rows * scale_blocks * tile_rows + token % tile_rows) * sizeof(float);
    }
};

/// Columns [0, cols) of one token.
inline void arrange_tile_row(const float* x, std::size_t cols, std::byte* codes, std::byte* scales) {
    for (std::size_t c = 0; c < cols; c += scale_cols, scales += tile_rows * sizeof(float)) {
        const std::size_t some = cols - c < scale_cols ? cols - c : scale_cols;
        const float scale = scale_of<0>(x + c, some / packed_cols);
        const f32_vector inverse = set(scale > 0.0f ? 1.0f / scale : 0.0f);
        std::memcpy(scales, &scale, sizeof scale);
        for (std::size_t i = 0; i < some; i += lanes()) {
            const std::size_t at = c + i;
            tile_store_integers(round_nearest(mul(load(x + at), inverse)), reinterpret_cast<std::int8_t*>(codes + at / tile_cols * tile_bytes + at % tile_cols));
        }
    }
    if (cols % tile_cols != 0) std::memset(codes + cols / tile_cols * tile_bytes + cols % tile_cols, 0, tile_cols - cols % tile_cols);
}

template <int SumLimit, int Zero>
inline const std::byte* arrange_tiles(const float* PHI4FLASH_RESTRICT x, std::size_t x_stride, std::size_t cols, std::size_t begin, std::size_t end,
                                      std::size_t tokens, std::byte* PHI4FLASH_RESTRICT scratch) {
    if (tokens < tiled_tokens) return arrange_int8<SumLimit, Zero, scale_groups, true>(x, x_stride, cols, begin, end, tokens, scratch);
    const tile_layout at(cols, tokens);
    for (std::size_t t = begin; t < end; ++t) arrange_tile_row(x + t * x_stride, cols, scratch + at.codes_of(t), scratch + at.scales_of(t));
    if (end != tokens) return scratch;
    for (std::size_t t = tokens; t % tile_rows != 0; ++t) {
        for (std::size_t c = 0; c < at.col_tiles; ++c) std::memset(scratch + at.codes_of(t) + c * tile_bytes, 0, tile_cols);
        const float none = 0.0f;
        for (std::size_t b = 0; b < at.scale_blocks; ++b) std::memcpy(scratch + at.scales_of(t) + b * tile_rows * sizeof none, &none, sizeof none);
    }
    return scratch;
}

/// Sixteen rows, whose blocks begin at `a` and `b`, of up to scale_groups groups: bytes [groups * 8][rows][4], and their units.
template <dtype Format>
PHI4FLASH_VECTOR_INLINE void unpack_tile_rows(const q4_block* a, const q4_block* b, std::size_t groups, std::int8_t* to, float* units) {
    constexpr const q4_codebook& book = Format == dtype::q4_dense ? q4_dense : q4_uniform;
    constexpr int most = book.zero;  // the lowest level is the furthest from the zero
    std::int8_t centred[16];
    for (std::size_t i = 0; i < 16; ++i) centred[i] = static_cast<std::int8_t>(book.level[i] - book.zero);
    const wide_codes levels = load_wide_levels(centred);
    f32_vector largest = zero();
    for (std::size_t g = 0; g < groups; ++g) largest = max_of(largest, abs_of(tile_scales(a[g].scale, b[g].scale)));
    store(mul(largest, set(static_cast<float>(most) / 127.0f)), units);
    const f32_vector inverse = div(set(128.0f * 127.0f / static_cast<float>(most)), max_of(largest, set(0x1p-30f)));
    for (std::size_t g = 0; g < groups; ++g, ++a, ++b, to += packed_cols * tile_rows) {
        wide_words first;
        wide_words second;
        multipliers(mul(tile_scales(a->scale, b->scale), inverse), first, second);
        for (std::size_t s = 0; s < 4; ++s) {
            const wide_codes codes = load_wide(a->code[s], b->code[s]);
            store_wide(wide_levels(levels, low_wide(codes), first, second), to + s * tile_cols);
            store_wide(wide_levels(levels, high_wide(codes), first, second), to + (s + 4) * tile_cols);
        }
    }
    if (groups % 2 != 0) std::memset(to, 0, packed_cols * tile_rows);
}

/// Where the weights of a strip come from.
struct strip_source {
    const std::byte* at;
    std::size_t row_bytes;  ///< from eight rows to the next
    std::size_t rows;
    std::size_t groups;
};

template <dtype Format>
inline void unpack_tile_strip(const strip_source& from, tile_strip& out) {
    const std::byte* w = from.at;
    for (std::size_t r = 0; r < from.rows; r += tile_rows, w += 2 * from.row_bytes) {
        const auto* a = reinterpret_cast<const q4_block*>(w);
        const auto* b = from.rows - r > packed_rows ? reinterpret_cast<const q4_block*>(w + from.row_bytes) : a;
        for (std::size_t g = 0; g < from.groups; g += scale_groups)
            unpack_tile_rows<Format>(a + g, b + g, from.groups - g < scale_groups ? from.groups - g : scale_groups,
                                     out.weights[r / tile_rows][g * packed_cols / tile_cols], out.units[g / scale_groups] + r);
    }
}

/// Asks for part `part` of `parts` of a strip: all at once would stop the core until most lines are there.
inline void prefetch_strip(const strip_source& from, std::size_t part, std::size_t parts) {
    const std::size_t row_lines = from.groups * sizeof(q4_block) / 64 + 1;
    const std::size_t lines = from.rows / packed_rows * row_lines;
    const std::size_t end = (part + 1) * lines / parts;
    std::size_t line = part * lines / parts;
    const std::byte* row = from.at + line / row_lines * from.row_bytes;
    for (std::size_t i = line % row_lines; line < end; ++line) {
        prefetch(row + i * 64);
        if (++i == row_lines) i = 0, row += from.row_bytes;
    }
}

/// sums [tokens][tile_strip_rows] += integers * the token's scale * the row's unit, for a tile of sums.
PHI4FLASH_VECTOR_INLINE void add_tile(const std::int32_t* integers, const float* scales, f32_vector unit, float* sums) {
    for (std::size_t t = 0; t < tile_rows; ++t, integers += tile_rows, sums += tile_strip_rows)
        store(mul_add(tile_load_integers(integers), mul(set(scales[t]), unit), load(sums)), sums);
}

/// Sums of one or two tiles of tokens by one or two of rows, as they leave the tiles.
struct tile_sums {
    alignas(64) std::int32_t integers[4][tile_rows * tile_rows];
};

/// sums += integers * scales, for the tiles of a block of columns that shares them.
template <bool TwoTokens, bool TwoRows>
PHI4FLASH_VECTOR_INLINE void add_tiles(const tile_sums& from, const float* scales, const float* next_scales, const float* units, float* sums) {
    float* next_sums = sums + tile_rows * tile_strip_rows;
    add_tile(from.integers[0], scales, load(units), sums);
    if constexpr (TwoRows) add_tile(from.integers[1], scales, load(units + tile_rows), sums + tile_rows);
    if constexpr (TwoTokens) add_tile(from.integers[2], next_scales, load(units), next_sums);
    if constexpr (TwoTokens && TwoRows) add_tile(from.integers[3], next_scales, load(units + tile_rows), next_sums + tile_rows);
}

/// Tiles of columns [begin, end), which share scales, into the tiles 0 to 3.
template <bool TwoTokens, bool TwoRows>
PHI4FLASH_VECTOR_INLINE void multiply_tiles(const tile_strip& strip, std::size_t begin, std::size_t end, const std::byte* x, const std::byte* next_x) {
    tile_zero<0>();
    if constexpr (TwoRows) tile_zero<1>();
    if constexpr (TwoTokens) tile_zero<2>();
    if constexpr (TwoTokens && TwoRows) tile_zero<3>();
    for (std::size_t i = begin; i < end; ++i) {
        tile_load<4>(x + i * tile_bytes);
        tile_load<6>(strip.weights[0][i]);
        tile_dot<0, 4, 6>();
        if constexpr (TwoRows) {
            tile_load<7>(strip.weights[1][i]);
            tile_dot<1, 4, 7>();
        }
        if constexpr (TwoTokens) {
            tile_load<5>(next_x + i * tile_bytes);
            tile_dot<2, 5, 6>();
        }
        if constexpr (TwoTokens && TwoRows) tile_dot<3, 5, 7>();
    }
}

template <bool TwoTokens, bool TwoRows>
PHI4FLASH_VECTOR_INLINE void store_tiles(tile_sums& to) {
    tile_store<0>(to.integers[0]);
    if constexpr (TwoRows) tile_store<1>(to.integers[1]);
    if constexpr (TwoTokens) tile_store<2>(to.integers[2]);
    if constexpr (TwoTokens && TwoRows) tile_store<3>(to.integers[3]);
}

/// One or two tiles of tokens by one or two of rows, over `tiles` tiles of columns. `x` and `scales` are the first token's here. Sums become
/// floats while the next ones are in the making.
template <bool TwoTokens, bool TwoRows>
PHI4FLASH_VECTOR_INLINE void tile_products(const tile_strip& strip, std::size_t tiles, const std::byte* x, const std::byte* scales,
                                           const tile_layout& at, float* sums) {
    constexpr std::size_t together = scale_cols / tile_cols;
    tile_sums made[2];
    const std::byte* next_x = x + at.col_tiles * tile_bytes;
    const auto* scale = reinterpret_cast<const float*>(scales);
    const float* next_scale = scale + at.scale_blocks * tile_rows;
    const std::size_t blocks = (tiles + together - 1) / together;
    for (std::size_t b = 0; b < blocks; ++b) {
        multiply_tiles<TwoTokens, TwoRows>(strip, b * together, tiles < (b + 1) * together ? tiles : (b + 1) * together, x, next_x);
        if (b > 0)
            add_tiles<TwoTokens, TwoRows>(made[(b - 1) % 2], scale + (b - 1) * tile_rows, next_scale + (b - 1) * tile_rows, strip.units[b - 1], sums);
        store_tiles<TwoTokens, TwoRows>(made[b % 2]);
    }
    add_tiles<TwoTokens, TwoRows>(made[(blocks - 1) % 2], scale + (blocks - 1) * tile_rows, next_scale + (blocks - 1) * tile_rows,
                                  strip.units[blocks - 1], sums);
}

/// A strip against tokens [begin, end), from its first tile of columns in `x`. Adds to sums [end - begin, up to whole tiles][tile_strip_rows].
/// Asks for the next strip on the way.
template <bool TwoRows>
inline void tile_strip_products(const tile_strip& strip, std::size_t first_tile, std::size_t tiles, const std::byte* x, const tile_layout& at,
                                std::size_t begin, std::size_t end, const strip_source& next, float* sums) {
    const std::size_t scales = first_tile * tile_cols / scale_cols * tile_rows * sizeof(float);
    const std::size_t parts = (end - begin + 2 * tile_rows - 1) / (2 * tile_rows);
    for (std::size_t t = begin, part = 0; t < end; t += 2 * tile_rows, ++part, sums += 2 * tile_rows * tile_strip_rows) {
        prefetch_strip(next, part, parts);
        const std::byte* codes = x + at.codes_of(t) + first_tile * tile_bytes;
        if (end - t > tile_rows) {
            tile_products<true, TwoRows>(strip, tiles, codes, x + at.scales_of(t) + scales, at, sums);
        } else {
            tile_products<false, TwoRows>(strip, tiles, codes, x + at.scales_of(t) + scales, at, sums);
        }
    }
}

/// Tokens outside, then rows, then columns: weights are streamed and unpacked once for tile_strip_tokens tokens.
template <dtype Format>
inline void packed_matmul_tiles(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, std::size_t tokens, const float* bias,
                                float* y, std::size_t y_stride) {
    if (tokens < tiled_tokens) return packed_matmul<Format>(w, rows, cols, x, tokens, bias, y, y_stride);
    const tile_configuration tiles;
    const tile_layout at(cols, tokens);
    const std::size_t row_bytes = matrix_bytes(Format, packed_rows, cols);
    tile_strip strip;
    alignas(64) float sums[tile_strip_tokens * tile_strip_rows];
    for (std::size_t t = 0; t < tokens; t += tile_strip_tokens) {
        const std::size_t end = tokens - t < tile_strip_tokens ? tokens : t + tile_strip_tokens;
        for (std::size_t r = 0; r < rows; r += tile_strip_rows) {
            const std::size_t some_rows = rows - r < tile_strip_rows ? rows - r : tile_strip_rows;
            std::memset(sums, 0, (end - t + tile_rows - 1) / tile_rows * tile_rows * tile_strip_rows * sizeof(float));
            for (std::size_t c = 0; c < cols; c += tile_strip_cols) {
                const std::size_t some = cols - c < tile_strip_cols ? cols - c : tile_strip_cols;
                const strip_source here{w + matrix_bytes(Format, r, cols) + matrix_bytes(Format, packed_rows, c), row_bytes, some_rows, some / packed_cols};
                strip_source next = here;
                next.at = c + some < cols ? here.at + matrix_bytes(Format, packed_rows, some) : w + matrix_bytes(Format, r + some_rows, cols);
                unpack_tile_strip<Format>(here, strip);
                const std::size_t col_tiles = (some + tile_cols - 1) / tile_cols;
                if (some_rows > tile_rows) {
                    tile_strip_products<true>(strip, c / tile_cols, col_tiles, x, at, t, end, next, sums);
                } else {
                    tile_strip_products<false>(strip, c / tile_cols, col_tiles, x, at, t, end, next, sums);
                }
            }
            for (std::size_t i = t; i < end; ++i) {
                const float* sum = sums + (i - t) * tile_strip_rows;
                float* to = y + i * y_stride + r;
                for (std::size_t j = 0; j < some_rows; j += packed_rows) put_rows(load_rows(sum + j), bias == nullptr ? nullptr : bias + r + j, to + j);
            }
        }
    }
}

PHI4FLASH_TARGET_END
