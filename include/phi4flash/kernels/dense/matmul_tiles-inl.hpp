// Products of bf16 weights with the activations of several tokens, on matrix tiles (AMX).
//
// An activation becomes three bf16 that add up to it. A product of two bf16 is exact in f32, and sums are f32, so nothing is lost that products
// of f32 would keep, except below 1e-33: tiles take subnormal numbers for zero. Finite numbers only.   Source: arXiv:1904.06376.

PHI4FLASH_TARGET_BEGIN

inline constexpr std::size_t activation_parts = 3;

/// Columns of a tile of bf16.
inline constexpr std::size_t bf16_cols = tile_cols / sizeof(bf16);

/// Weights that are put into tiles at once: 32 KiB, which stay in the first-level cache, or near it, while activations go by.
inline constexpr std::size_t bf16_strip_rows = 2 * tile_rows;
inline constexpr std::size_t bf16_strip_cols = 512;
/// Tokens that use a strip before the next one is made: their activations, 768 KiB, stay in the second-level cache while all rows go by.
inline constexpr std::size_t bf16_panel_tokens = 256;

struct bf16_strip {
    alignas(64) std::byte weights[bf16_strip_rows / tile_rows][bf16_strip_cols / bf16_cols][tile_bytes];  ///< a tile: [cols / 2][rows][2]
};

/// Where activations lie: tokens 16 by 16, the last of them as many as are left; of these their columns 32 by 32; of these the parts,
/// [parts][tokens][32].
struct parts_layout {
    std::size_t col_tiles;
    std::size_t tokens;

    parts_layout(std::size_t cols, std::size_t count) : col_tiles((cols + bf16_cols - 1) / bf16_cols), tokens(count) {}

    /// Tokens from `first` on, which begins a tile, that share it.
    [[nodiscard]] std::size_t count_from(std::size_t first) const { return tokens - first < tile_rows ? tokens - first : tile_rows; }
    [[nodiscard]] std::size_t part_bytes(std::size_t first) const { return count_from(first) * tile_cols; }
    [[nodiscard]] std::size_t at(std::size_t first, std::size_t col_tile) const {
        return (first * col_tiles + count_from(first) * col_tile) * activation_parts * tile_cols;
    }
};

/// Fewer tokens than this are cheaper on vectors: putting weights into tiles costs what 8 tokens do there.
inline constexpr std::size_t bf16_tile_tokens = 8;

/// A few tokens as matmul_few reads them, more as parts.
inline const std::byte* arrange_parts(const float* PHI4FLASH_RESTRICT x, std::size_t x_stride, std::size_t cols, std::size_t begin, std::size_t end,
                                      std::size_t tokens, std::byte* PHI4FLASH_RESTRICT scratch) {
    if (tokens < bf16_tile_tokens) return arrange_plain<bf16>(x, x_stride, cols, begin, end, tokens, scratch);
    const parts_layout layout(cols, tokens);
    for (std::size_t t = begin; t < end; ++t) {
        const float* from = x + t * x_stride;
        const std::size_t first = t - t % tile_rows;
        const std::size_t part_bytes = layout.part_bytes(first);
        std::byte* to = scratch + layout.at(first, 0) + t % tile_rows * tile_cols;
        for (std::size_t c = 0; c < cols; c += bf16_cols, from += bf16_cols) {
            const bool whole = c + bf16_cols <= cols;
            const std::size_t left = cols - c;
            f32_vector a = whole || left >= lanes() ? load(from) : load_first(from, left);
            f32_vector b = whole ? load(from + lanes()) : left > lanes() ? load_first(from + lanes(), left - lanes()) : zero();
            for (std::size_t part = 0; part < activation_parts; ++part, to += part_bytes) {
                const f32_vector of_a = take_bf16(a);
                store_bf16(of_a, take_bf16(b), reinterpret_cast<bf16*>(to));
            }
        }
    }
    return scratch;
}

/// Rows of weights into the tiles of a strip; zeros to whole tiles.
inline void put_strip(const byte_rows& from, bf16_strip& out) {
    alignas(64) std::byte padded[tile_rows][tile_cols];
    for (std::size_t r = 0; r < from.count; r += tile_rows) {
        for (std::size_t at = 0; at < from.bytes; at += tile_cols) {
            const std::byte* w = from.at + r * from.row_bytes + at;
            std::byte* const to = out.weights[r / tile_rows][at / tile_cols];
            if (r + tile_rows <= from.count && at + tile_cols <= from.bytes) {
                store_transposed(w, from.row_bytes, to);
                continue;
            }
            std::memset(padded, 0, sizeof padded);
            for (std::size_t i = 0; i < tile_rows && r + i < from.count; ++i)
                std::memcpy(padded[i], w + i * from.row_bytes, from.bytes - at < tile_cols ? from.bytes - at : tile_cols);
            store_transposed(padded[0], tile_cols, to);
        }
    }
}

/// Activations of tokens that share a tile, from a strip's first column on.
struct parts_of_tokens {
    const std::byte* at;
    std::size_t part_bytes;
};

/// One part of one or two tiles of tokens, times 32 columns of the weights in tiles 6 and 7.
template <bool TwoTokens, bool TwoRows>
PHI4FLASH_VECTOR_INLINE void multiply_part(const std::byte* x, const std::byte* next_x) {
    tile_load<4>(x);
    tile_dot_bf16<0, 4, 6>();
    if constexpr (TwoRows) tile_dot_bf16<1, 4, 7>();
    if constexpr (TwoTokens) {
        tile_load<5>(next_x);
        tile_dot_bf16<2, 5, 6>();
    }
    if constexpr (TwoTokens && TwoRows) tile_dot_bf16<3, 5, 7>();
}

/// y = or += the products of a strip with one or two tiles of tokens.
template <bool TwoTokens, bool TwoRows>
inline void multiply_parts(const bf16_strip& strip, std::size_t tiles, parts_of_tokens x, parts_of_tokens next_x, bool first, float* y,
                           std::size_t y_stride) {
    const std::size_t row_bytes = y_stride * sizeof(float);
    float* const next_y = y + tile_rows * y_stride;
    if (first) {
        tile_zero<0>();
        if constexpr (TwoRows) tile_zero<1>();
        if constexpr (TwoTokens) tile_zero<2>();
        if constexpr (TwoTokens && TwoRows) tile_zero<3>();
    } else {
        tile_load<0>(y, row_bytes);
        if constexpr (TwoRows) tile_load<1>(y + tile_rows, row_bytes);
        if constexpr (TwoTokens) tile_load<2>(next_y, row_bytes);
        if constexpr (TwoTokens && TwoRows) tile_load<3>(next_y + tile_rows, row_bytes);
    }
    for (std::size_t i = 0; i < tiles; ++i, x.at += activation_parts * x.part_bytes, next_x.at += activation_parts * next_x.part_bytes) {
        tile_load<6>(strip.weights[0][i]);
        if constexpr (TwoRows) tile_load<7>(strip.weights[1][i]);
        multiply_part<TwoTokens, TwoRows>(x.at, next_x.at);
        multiply_part<TwoTokens, TwoRows>(x.at + x.part_bytes, next_x.at + next_x.part_bytes);
        multiply_part<TwoTokens, TwoRows>(x.at + 2 * x.part_bytes, next_x.at + 2 * next_x.part_bytes);
    }
    tile_store<0>(y, row_bytes);
    if constexpr (TwoRows) tile_store<1>(y + tile_rows, row_bytes);
    if constexpr (TwoTokens) tile_store<2>(next_y, row_bytes);
    if constexpr (TwoTokens && TwoRows) tile_store<3>(next_y + tile_rows, row_bytes);
}
static_assert(activation_parts == 3);

/// A strip's place among the weights.
struct strip_place {
    std::size_t rows;
    std::size_t first_tile;  ///< of columns
    std::size_t tiles;
};

/// One or two tiles of tokens from `t` on. Where rows fill no tile, sums are made elsewhere, so that nothing behind them is touched.
template <bool TwoTokens>
inline void multiply_token_tiles(const bf16_strip& strip, const strip_place& place, const std::byte* arranged, const parts_layout& layout,
                                 std::size_t t, float* y, std::size_t y_stride) {
    const auto parts = [&](std::size_t at) { return parts_of_tokens{arranged + layout.at(at, place.first_tile), layout.part_bytes(at)}; };
    const parts_of_tokens x = parts(t);
    const parts_of_tokens next_x = TwoTokens ? parts(t + tile_rows) : x;
    const bool first = place.first_tile == 0;
    if (place.rows == bf16_strip_rows) return multiply_parts<TwoTokens, true>(strip, place.tiles, x, next_x, first, y, y_stride);
    const std::size_t count = TwoTokens ? 2 * tile_rows : layout.count_from(t);
    alignas(64) float sums[2 * tile_rows * bf16_strip_rows];
    for (std::size_t i = 0; i < count && !first; ++i) std::memcpy(sums + i * bf16_strip_rows, y + i * y_stride, place.rows * sizeof(float));
    if (place.rows > tile_rows) {
        multiply_parts<TwoTokens, true>(strip, place.tiles, x, next_x, first, sums, bf16_strip_rows);
    } else {
        multiply_parts<TwoTokens, false>(strip, place.tiles, x, next_x, first, sums, bf16_strip_rows);
    }
    for (std::size_t i = 0; i < count; ++i) std::memcpy(y + i * y_stride, sums + i * bf16_strip_rows, place.rows * sizeof(float));
}

/// Tokens [begin, end); y is that of token 0. Asks for the weights `next` on the way, and for the outputs of the tokens after these.
inline void multiply_strip(tile_configuration& tiles, const bf16_strip& strip, const strip_place& place, const std::byte* arranged,
                           const parts_layout& layout, std::size_t begin, std::size_t end, const byte_rows& next, float* y, std::size_t y_stride) {
    constexpr std::size_t most = 2 * tile_rows;
    const std::size_t batches = (end - begin + most - 1) / most;
    for (std::size_t batch = 0, t = begin; batch < batches; ++batch, t += most) {
        prefetch_rows<plain_asks_far>(next, batch, batches);
        std::size_t left = end - t;
        if (left > most) {
            const auto* outputs = reinterpret_cast<const std::byte*>(y + (t + most) * y_stride);
            const std::size_t count = left < 2 * most ? left - most : most;
            prefetch_rows<false>({outputs, y_stride * sizeof(float), count, bf16_strip_rows * sizeof(float) - 1}, 0, 1);
        }
        tiles.use(left < tile_rows ? left : tile_rows);
        if (left >= most) {
            multiply_token_tiles<true>(strip, place, arranged, layout, t, y + t * y_stride, y_stride);
            continue;
        }
        multiply_token_tiles<false>(strip, place, arranged, layout, t, y + t * y_stride, y_stride);
        if (left <= tile_rows) continue;
        left -= tile_rows;
        tiles.use(left);
        multiply_token_tiles<false>(strip, place, arranged, layout, t + tile_rows, y + (t + tile_rows) * y_stride, y_stride);
    }
}

/// Panels of tokens, then of columns, outside; then rows, whose weights are streamed, and put into tiles strip by strip.
inline void matmul_on_tiles(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* arranged, std::size_t tokens, const float* bias,
                            float* y, std::size_t y_stride) {
    if (tokens < bf16_tile_tokens) return matmul_few<bf16>(w, rows, cols, arranged, tokens, bias, y, y_stride);
    tile_configuration tiles;
    bf16_strip strip;
    const parts_layout layout(cols, tokens);
    for (std::size_t begin = 0; begin < tokens; begin += bf16_panel_tokens) {
        const std::size_t end = tokens - begin < bf16_panel_tokens ? tokens : begin + bf16_panel_tokens;
        for (std::size_t c = 0; c == 0 || c < cols; c += bf16_strip_cols) {
            const std::size_t some = cols - c < bf16_strip_cols ? cols - c : bf16_strip_cols;
            const bool last = c + some == cols;
            byte_rows from{w + c * sizeof(bf16), cols * sizeof(bf16), 0, some * sizeof(bf16)};
            for (std::size_t r = 0; r < rows; r += bf16_strip_rows) {
                from.count = rows - r < bf16_strip_rows ? rows - r : bf16_strip_rows;
                put_strip(from, strip);
                from.at = r + from.count < rows ? from.at + from.count * from.row_bytes : w + (c + some) * sizeof(bf16);
                multiply_strip(tiles, strip, {from.count, c / bf16_cols, (some + bf16_cols - 1) / bf16_cols}, arranged, layout, begin, end, from,
                               y + r, y_stride);
                for (std::size_t t = begin; t < end && last && bias != nullptr; ++t) accumulate(bias + r, from.count, y + t * y_stride + r);
            }
        }
    }
}

PHI4FLASH_TARGET_END
