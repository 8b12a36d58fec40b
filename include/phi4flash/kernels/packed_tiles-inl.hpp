// Products of 4-bit weights and 8-bit activations of many tokens, on matrix tiles (AMX): 16 tokens by 16 rows by 64 columns at once.
//
// Tiles have no place for a scale in each group of columns. So weights become bytes that share one over scale_groups groups, as activations
// do: rounded to 1/127 of the largest of their row there, a tenth of what 4 bits have cost already.

PHI4FLASH_TARGET_BEGIN

/// Fewer tokens than this are cheaper without tiles; and their activations would not fit arranged_bytes once padded to whole tiles.
inline constexpr std::size_t tiled_tokens = 8;

/// Columns whose weights, and whose activations, share a scale.
inline constexpr std::size_t scale_cols = scale_groups * packed_cols;

/// Unpacked at once: 16 KiB, which stay in the first-level cache while activations go by.
inline constexpr std::size_t tile_strip_rows = 2 * tile_rows;
inline constexpr std::size_t tile_strip_cols = 2 * scale_cols;
/// Tokens that use a strip before the next one is unpacked, and columns that all rows meet before further ones: 640 KiB of activations, which
/// stay in the second-level cache. The tokens' sums take 32 KiB of stack. Half as many tokens cost 7 to 10 % more.
inline constexpr std::size_t tile_panel_tokens = 256;
inline constexpr std::size_t tile_panel_cols = 5 * tile_strip_cols;

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

template <dtype Format>
inline const std::byte* arrange_tiles(const float* PHI4FLASH_RESTRICT x, std::size_t x_stride, std::size_t cols, std::size_t begin, std::size_t end,
                                      std::size_t tokens, std::byte* PHI4FLASH_RESTRICT scratch) {
    if (tokens < tiled_tokens) return arrange_packed<Format>(x, x_stride, cols, begin, end, tokens, scratch);
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

/// Sums of one or two tiles of tokens by one or two of rows over the columns of a strip, as they leave the tiles: one for each block of columns
/// that share scales.
struct tile_sums {
    alignas(64) std::int32_t integers[tile_strip_cols / scale_cols][4][tile_rows * tile_rows];
};

/// sum = or += integers * scale, of one block or two.
template <bool First, std::size_t Blocks>
PHI4FLASH_VECTOR_INLINE void add_integers_to(const tile_sums& from, std::size_t tile, std::size_t at, f32_vector scale, f32_vector next_scale, float* sum) {
    const f32_vector first = tile_load_integers(from.integers[0][tile] + at);
    f32_vector total = First ? mul(first, scale) : mul_add(first, scale, load(sum));
    if constexpr (Blocks == 2) total = mul_add(tile_load_integers(from.integers[1][tile] + at), next_scale, total);
    store(total, sum);
}

/// sums [tokens][tile_strip_rows] = or += integers * the token's scale * the row's unit, for a tile of tokens by one or two of rows. `scales` are
/// the first token's of each block.
template <bool First, bool TwoRows, std::size_t Blocks>
PHI4FLASH_VECTOR_INLINE void add_tokens_of_tile(const tile_sums& from, std::size_t tile, const float* scales, const float* units, float* sums) {
    const float* next_units = units + (Blocks - 1) * tile_strip_rows;
    const f32_vector unit = load(units);
    const f32_vector next_unit = load(next_units);
    const f32_vector other_unit = load(units + tile_rows);
    const f32_vector other_next_unit = load(next_units + tile_rows);
    for (std::size_t t = 0; t < tile_rows; ++t, ++scales, sums += tile_strip_rows) {
        const f32_vector scale = set(*scales);
        const f32_vector next_scale = set(scales[Blocks == 2 ? tile_rows : 0]);
        add_integers_to<First, Blocks>(from, tile, t * tile_rows, mul(scale, unit), mul(next_scale, next_unit), sums);
        if constexpr (TwoRows)
            add_integers_to<First, Blocks>(from, tile + 1, t * tile_rows, mul(scale, other_unit), mul(next_scale, other_next_unit), sums + tile_rows);
    }
}

template <bool First, bool TwoTokens, bool TwoRows, std::size_t Blocks>
PHI4FLASH_VECTOR_INLINE void add_tiles(const tile_sums& from, const float* scales, const float* next_scales, const float* units, float* sums) {
    add_tokens_of_tile<First, TwoRows, Blocks>(from, 0, scales, units, sums);
    if constexpr (TwoTokens) add_tokens_of_tile<First, TwoRows, Blocks>(from, 2, next_scales, units, sums + tile_rows * tile_strip_rows);
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
PHI4FLASH_VECTOR_INLINE void store_tiles(tile_sums& to, std::size_t block) {
    tile_store<0>(to.integers[block][0]);
    if constexpr (TwoRows) tile_store<1>(to.integers[block][1]);
    if constexpr (TwoTokens) tile_store<2>(to.integers[block][2]);
    if constexpr (TwoTokens && TwoRows) tile_store<3>(to.integers[block][3]);
}

/// One or two tiles of tokens by one or two of rows, over `tiles` tiles of columns. `x` and `scale` are the first token's here; the next tile
/// of tokens lies next_x bytes and next_scale floats further.
template <bool First, bool TwoTokens, bool TwoRows>
PHI4FLASH_VECTOR_INLINE void tile_products(const tile_strip& strip, std::size_t tiles, const std::byte* x, std::size_t next_x, const float* scale,
                                           std::size_t next_scale, float* sums) {
    constexpr std::size_t together = scale_cols / tile_cols;
    tile_sums made;
    multiply_tiles<TwoTokens, TwoRows>(strip, 0, tiles < together ? tiles : together, x, x + next_x);
    store_tiles<TwoTokens, TwoRows>(made, 0);
    if (tiles <= together) return add_tiles<First, TwoTokens, TwoRows, 1>(made, scale, scale + next_scale, strip.units[0], sums);
    multiply_tiles<TwoTokens, TwoRows>(strip, together, tiles, x, x + next_x);
    store_tiles<TwoTokens, TwoRows>(made, 1);
    add_tiles<First, TwoTokens, TwoRows, 2>(made, scale, scale + next_scale, strip.units[0], sums);
}
static_assert(tile_strip_cols == 2 * scale_cols);

/// One or two tiles of tokens by the rows of a strip.
template <bool First, bool TwoTokens>
inline void strip_products(const tile_strip& strip, std::size_t rows, std::size_t tiles, const std::byte* x, std::size_t next_x, const float* scale,
                           std::size_t next_scale, float* sums) {
    if (rows > tile_rows) {
        tile_products<First, TwoTokens, true>(strip, tiles, x, next_x, scale, next_scale, sums);
    } else {
        tile_products<First, TwoTokens, false>(strip, tiles, x, next_x, scale, next_scale, sums);
    }
}
static_assert(tile_strip_rows == 2 * tile_rows);

/// The columns of a strip, `tiles` tiles from first_tile, against tokens [begin, end); the sums are those of token `begin` first. Asks for
/// the weights `next` on the way.
template <bool First>
inline void strip_panel(const tile_strip& strip, std::size_t rows, std::size_t first_tile, std::size_t tiles, const std::byte* x, const tile_layout& at,
                        std::size_t begin, std::size_t end, const strip_source& next, float* sums) {
    const std::size_t next_x = at.col_tiles * tile_bytes;
    const std::size_t next_scale = at.scale_blocks * tile_rows;
    const std::size_t parts = (end - begin + 2 * tile_rows - 1) / (2 * tile_rows);
    for (std::size_t part = 0; part < parts; ++part, begin += 2 * tile_rows, sums += 2 * tile_rows * tile_strip_rows) {
        prefetch_strip(next, part, parts);
        const std::byte* codes = x + at.codes_of(begin) + first_tile * tile_bytes;
        const float* scale = reinterpret_cast<const float*>(x + at.scales_of(begin)) + first_tile * tile_cols / scale_cols * tile_rows;
        if (end - begin > tile_rows) {
            strip_products<First, true>(strip, rows, tiles, codes, next_x, scale, next_scale, sums);
        } else {
            strip_products<First, false>(strip, rows, tiles, codes, next_x, scale, next_scale, sums);
        }
    }
}

/// y[t, r] = sums, or y[t, r] + sums, + bias.
PHI4FLASH_VECTOR_INLINE void put_sums(const float* sums, std::size_t rows, bool first, const float* bias, float* y) {
    for (std::size_t r = 0; r < rows; r += packed_rows) {
        rows_f32 v = load_rows(sums + r);
        if (!first) v = add_rows_f32(v, load_rows(y + r));
        put_rows(v, bias == nullptr ? nullptr : bias + r, y + r);
    }
}

/// Outputs of a whole strip, past the caches: rows of y are far apart, and to read lines only to write all of them takes a fifth of a product's
/// time. 1.07 times the speed of a prompt on Emerald Rapids.
PHI4FLASH_VECTOR_INLINE void stream_sums(const float* sums, float* y) {
    tile_stream(load(sums), y);
    tile_stream(load(sums + tile_rows), y + tile_rows);
}

/// Panels of tokens, then of columns, outside; then rows, whose weights are streamed, and unpacked strip by strip.
template <dtype Format>
inline void packed_matmul_tiles(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, std::size_t tokens, const float* bias,
                                float* y, std::size_t y_stride) {
    if (tokens < tiled_tokens) return packed_matmul<Format>(w, rows, cols, x, tokens, bias, y, y_stride);
    const tile_configuration tiles;
    const tile_layout at(cols, tokens);
    tile_strip strip;
    alignas(64) float sums[tile_panel_tokens * tile_strip_rows];
    const bool whole_lines = reinterpret_cast<std::uintptr_t>(y) % 64 == 0 && y_stride % tile_rows == 0;
    for (std::size_t begin = 0; begin < tokens; begin += tile_panel_tokens) {
        const std::size_t end = tokens - begin < tile_panel_tokens ? tokens : begin + tile_panel_tokens;
        for (std::size_t panel = 0; panel < cols; panel += tile_panel_cols) {
            const std::size_t panel_end = cols - panel < tile_panel_cols ? cols : panel + tile_panel_cols;
            for (std::size_t r = 0; r < rows; r += tile_strip_rows) {
                strip_source from{w + matrix_bytes(Format, r, cols) + matrix_bytes(Format, packed_rows, panel), matrix_bytes(Format, packed_rows, cols),
                                  rows - r < tile_strip_rows ? rows - r : tile_strip_rows, 0};
                for (std::size_t c = panel; c < panel_end; c += tile_strip_cols) {
                    const std::size_t some = panel_end - c < tile_strip_cols ? panel_end - c : tile_strip_cols;
                    const std::size_t col_tiles = (some + tile_cols - 1) / tile_cols;
                    from.groups = some / packed_cols;
                    unpack_tile_strip<Format>(from, strip);
                    from.at = c + some < panel_end ? from.at + matrix_bytes(Format, packed_rows, some)
                                                   : w + matrix_bytes(Format, r + from.rows, cols) + matrix_bytes(Format, packed_rows, panel);
                    if (c == panel) {
                        strip_panel<true>(strip, from.rows, c / tile_cols, col_tiles, x, at, begin, end, from, sums);
                    } else {
                        strip_panel<false>(strip, from.rows, c / tile_cols, col_tiles, x, at, begin, end, from, sums);
                    }
                }
                // Once only: what is there and joins further sums had better be near.
                if (cols <= tile_panel_cols && from.rows == tile_strip_rows && bias == nullptr && whole_lines) {
                    for (std::size_t t = begin; t < end; ++t) stream_sums(sums + (t - begin) * tile_strip_rows, y + t * y_stride + r);
                    continue;
                }
                for (std::size_t t = begin; t < end; ++t)
                    put_sums(sums + (t - begin) * tile_strip_rows, from.rows, panel == 0, bias == nullptr || panel_end < cols ? nullptr : bias + r,
                             y + t * y_stride + r);
            }
        }
    }
    tile_streamed();
}

PHI4FLASH_TARGET_END
