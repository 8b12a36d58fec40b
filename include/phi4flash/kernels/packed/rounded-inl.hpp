// Packed weights, ways "vectors" and "tiles": what both share. Many tokens, and weights that become bytes first, as activations do.
//
// A strip of weights is unpacked once for many tokens. Its numbers share a scale over scale_groups groups, as activations do, so that sums stay
// integers for long. 4-bit weights are rounded to 1/127 of the largest of their row there, a tenth of what 4 bits have cost already; 8-bit
// weights, and the activations they meet, become two digits, 256 times as fine. `Products` multiply them: vectors-inl.hpp by vectors,
// tiles-inl.hpp on matrix tiles; their `digits` says how many bytes a number has.

PHI4FLASH_TARGET_BEGIN

/// Activations of fewer tokens than this would not fit arranged_bytes once padded to whole tiles.
template <std::size_t Digits>
inline constexpr std::size_t rounded_tokens = 8 * Digits;

/// Columns whose weights, and whose activations, share a scale.
inline constexpr std::size_t scale_cols = scale_groups * packed_cols;

/// Unpacked at once: 16 KiB a digit, which stay in the first-level cache while activations go by.
inline constexpr std::size_t rounded_strip_rows = 2 * tile_rows;
inline constexpr std::size_t rounded_strip_cols = 2 * scale_cols;
/// Tokens that use a strip before the next one is unpacked, and columns that all rows meet before further ones: 640 KiB of activations (768 of
/// two digits), which stay in the second-level cache. The tokens' sums take 32 KiB of stack. Half as many tokens cost 7 to 10 % more on
/// matrix tiles.
inline constexpr std::size_t rounded_panel_tokens = 256;
template <std::size_t Digits>
inline constexpr std::size_t rounded_panel_cols = (Digits == 1 ? 5 : 3) * rounded_strip_cols;
/// Tokens that are multiplied at once, and ask for a part of the next strip.
inline constexpr std::size_t batch_tokens = 2 * tile_rows;

/// 64 columns are a tile for each digit, the upper one first.
template <std::size_t Digits>
struct rounded_strip {
    /// A tile: [cols / 4][rows][4].
    alignas(64) std::int8_t weights[rounded_strip_rows / tile_rows][rounded_strip_cols / tile_cols][Digits][tile_bytes];
    alignas(64) float units[rounded_strip_cols / scale_cols][rounded_strip_rows];
};

/// Of tokens that share a tile, where their activations share a scale. `start` is what their sums of products begin with.
struct token_numbers {
    alignas(64) float scale[tile_rows];
    std::int32_t start[tile_rows];
};

/// Where the activations of `tokens` tokens lie: tiles of 16 tokens by 64 columns, one for each digit, a tile of tokens after the other; then
/// their numbers, [tokens / 16][cols / scale_cols]. Padded with zeros to whole tiles.
template <std::size_t Digits>
struct rounded_layout {
    static constexpr std::size_t col_bytes = Digits * tile_bytes;  ///< of 64 columns
    std::size_t col_tiles;
    std::size_t scale_blocks;
    std::size_t numbers_at;

    rounded_layout(std::size_t cols, std::size_t tokens)
        : col_tiles((cols + tile_cols - 1) / tile_cols), scale_blocks((cols + scale_cols - 1) / scale_cols),
          numbers_at((tokens + tile_rows - 1) / tile_rows * col_tiles * col_bytes) {}
    [[nodiscard]] std::size_t codes_of(std::size_t token) const { return token / tile_rows * col_tiles * col_bytes + token % tile_rows * tile_cols; }
    [[nodiscard]] std::size_t numbers_of(std::size_t token) const { return numbers_at + token / tile_rows * scale_blocks * sizeof(token_numbers); }
};

/// Columns [0, cols) of one token, which is number `token` of its tile.
template <class Products>
inline void arrange_rounded_row(const float* x, std::size_t cols, std::byte* codes, token_numbers* numbers, std::size_t token) {
    constexpr std::size_t digits = Products::digits;
    for (std::size_t c = 0; c < cols; c += scale_cols, ++numbers) {
        const std::size_t some = cols - c < scale_cols ? cols - c : scale_cols;
        float scale = scale_of<0>(x + c, some / packed_cols);
        if (digits == 2 && scale < 1e-36f) scale = 0.0f;  // 256 times the inverse would overflow
        const f32_vector inverse = set(scale > 0.0f ? (digits == 1 ? 1.0f : 256.0f) / scale : 0.0f);
        f32_vector sum = zero();
        for (std::size_t at = c; at < c + some; at += lanes()) {
            const f32_vector code = round_nearest(mul(load(x + at), inverse));
            auto* const to = reinterpret_cast<std::int8_t*>(codes + at / tile_cols * digits * tile_bytes + at % tile_cols);
            if constexpr (digits == 1) {
                store_as_bytes(code, to);
            } else {
                store_signed_digits(code, to, to + tile_bytes);
            }
            if constexpr (Products::lift != 0) sum = add(sum, code);
        }
        numbers->scale[token] = scale;
        if constexpr (Products::lift != 0) numbers->start[token] = -Products::lift * whole_or_zero(reduce_sum(sum));
    }
    if (cols % tile_cols == 0) return;
    for (std::size_t digit = 0; digit < digits; ++digit)
        std::memset(codes + (cols / tile_cols * digits + digit) * tile_bytes + cols % tile_cols, 0, tile_cols - cols % tile_cols);
}

template <class Products>
inline const std::byte* arrange_rounded(const float* PHI4FLASH_RESTRICT x, std::size_t x_stride, std::size_t cols, std::size_t begin, std::size_t end,
                                        std::size_t tokens, std::byte* PHI4FLASH_RESTRICT scratch) {
    const rounded_layout<Products::digits> at(cols, tokens);
    const auto numbers = [&](std::size_t t) { return reinterpret_cast<token_numbers*>(scratch + at.numbers_of(t)); };
    for (std::size_t t = begin; t < end; ++t)
        arrange_rounded_row<Products>(x + t * x_stride, cols, scratch + at.codes_of(t), numbers(t), t % tile_rows);
    if (end != tokens) return scratch;
    for (std::size_t t = tokens; t % tile_rows != 0; ++t) {
        for (std::size_t c = 0; c < at.col_tiles * Products::digits; ++c) std::memset(scratch + at.codes_of(t) + c * tile_bytes, 0, tile_cols);
        for (std::size_t b = 0; b < at.scale_blocks; ++b) numbers(t)[b].scale[t % tile_rows] = 0.0f, numbers(t)[b].start[t % tile_rows] = 0;
    }
    return scratch;
}

/// The furthest that a code's level can be from zero, and what codes are multiplied by where a scale is the largest: then that level becomes
/// 127, or 127 * 256.
template <dtype Format>
inline constexpr int furthest_level = Format == dtype::q8 ? 127 : Format == dtype::q4_dense ? q4_dense.zero : q4_uniform.zero;
template <dtype Format, std::size_t Digits>
inline constexpr float most_multiplied = Digits == 1 ? 128.0f * 127.0f / static_cast<float>(furthest_level<Format>) : 32767.0f;

/// Four columns of a vector's rows.
template <class Products>
PHI4FLASH_VECTOR_INLINE void put_rounded(token_codes codes, word_vector first, word_vector second, std::int8_t* to) {
    if constexpr (Products::digits == 1) {
        store_bytes(Products::weights(multiplied(codes, first, second)), to);
    } else {
        store_multiplied_digits(codes, first, second, to, to + tile_bytes);
    }
}

/// The rows of a vector in a group, whose blocks are `a` and `b`: 32 columns, [8][rows][4].
template <dtype Format, class Products>
PHI4FLASH_VECTOR_INLINE void put_rounded_group(const packed_block<Format>& a, const packed_block<Format>& b, [[maybe_unused]] token_codes levels,
                                               word_vector first, word_vector second, std::int8_t* to) {
    if constexpr (Format == dtype::q8) {
        for (std::size_t s = 0; s < 8; ++s) put_rounded<Products>(codes_of_rows(a.code[s], b.code[s]), first, second, to + s * tile_cols);
    } else {
        for (std::size_t s = 0; s < 4; ++s) {
            const token_codes codes = codes_of_rows(a.code[s], b.code[s]);
            put_rounded<Products>(low_levels(levels, codes), first, second, to + s * tile_cols);
            put_rounded<Products>(high_levels(levels, codes), first, second, to + (s + 4) * tile_cols);
        }
    }
}

/// The same of up to scale_groups groups, in tiles, and the units of the rows.
template <dtype Format, class Products>
PHI4FLASH_VECTOR_INLINE void unpack_rounded_rows(const packed_block<Format>* a, const packed_block<Format>* b, std::size_t groups, std::int8_t* to,
                                                 float* units) {
    constexpr const q4_codebook& book = Format == dtype::q4_dense ? q4_dense : q4_uniform;
    constexpr float most = most_multiplied<Format, Products::digits>;
    std::uint8_t centred[16];
    for (std::size_t i = 0; i < 16; ++i) centred[i] = static_cast<std::uint8_t>(book.level[i] - book.zero);
    const token_codes levels = repeat_levels(centred);
    f32_vector largest = zero();
    for (std::size_t g = 0; g < groups; ++g) largest = max_of(largest, abs_of(scales_of_rows(a[g].scale, b[g].scale)));
    store(mul(largest, set(128.0f / most)), units);
    const f32_vector inverse = div(set(most), max_of(largest, set(0x1p-30f)));
    for (std::size_t g = 0; g < groups; ++g) {
        word_vector first;
        word_vector second;
        multipliers(mul(scales_of_rows(a[g].scale, b[g].scale), inverse), first, second);
        put_rounded_group<Format, Products>(a[g], b[g], levels, first, second,
                                            to + g / 2 * Products::digits * tile_bytes + g % 2 * packed_cols * tile_rows);
    }
}
static_assert(tile_cols == 2 * packed_cols);

/// Where the weights of a strip come from.
struct strip_source {
    const std::byte* at;
    std::size_t row_bytes;  ///< from eight rows to the next
    std::size_t rows;
    std::size_t groups;
};

/// Rows to a multiple of tile_rows, the last again where there are fewer; columns to a multiple of tile_cols, zeros.
template <dtype Format, class Products>
inline void unpack_rounded_strip(const strip_source& from, rounded_strip<Products::digits>& out) {
    const std::size_t last = from.rows / packed_rows - 1;
    const auto block = [&](std::size_t row) {
        const std::size_t at = row / packed_rows < last ? row / packed_rows : last;
        return reinterpret_cast<const packed_block<Format>*>(from.at + at * from.row_bytes);
    };
    for (std::size_t r = 0; r < from.rows || r % tile_rows != 0; r += vector_rows) {
        for (std::size_t g = 0; g < from.groups; g += scale_groups)
            unpack_rounded_rows<Format, Products>(
                block(r) + g, block(r + packed_rows) + g, from.groups - g < scale_groups ? from.groups - g : scale_groups,
                out.weights[r / tile_rows][g * packed_cols / tile_cols][0] + r % tile_rows * 4, out.units[g / scale_groups] + r);
    }
    if (from.groups % 2 == 0) return;
    for (std::size_t r = 0; r < from.rows; r += tile_rows) {
        for (std::int8_t(&tile)[tile_bytes] : out.weights[r / tile_rows][from.groups * packed_cols / tile_cols])
            std::memset(tile + packed_cols * tile_rows, 0, packed_cols * tile_rows);
    }
}

/// Tokens that are multiplied at once, from a strip's first column on: one tile of them or two.
struct token_batch {
    const std::byte* codes;
    std::size_t next_codes;    ///< bytes to those of the next tile of tokens
    const token_numbers* numbers;
    std::size_t next_numbers;  ///< to those of the next tile of tokens
    std::size_t count;         ///< up to batch_tokens
};

/// The columns of a strip, `tiles` tiles from first_tile, against tokens [begin, end); the sums are those of token `begin` first. Asks for
/// the weights `next` on the way.
template <dtype Format, class Products, bool First>
inline void rounded_panel(const rounded_strip<Products::digits>& strip, std::size_t rows, std::size_t first_tile, std::size_t tiles,
                          const std::byte* x, const rounded_layout<Products::digits>& at, std::size_t begin, std::size_t end,
                          const strip_source& next, float* sums) {
    const std::size_t parts = (end - begin + batch_tokens - 1) / batch_tokens;
    for (std::size_t part = 0; part < parts; ++part, begin += batch_tokens, sums += batch_tokens * rounded_strip_rows) {
        prefetch_rows<packed_asks_far>({next.at, next.row_bytes, next.rows / packed_rows, next.groups * sizeof(packed_block<Format>)}, part, parts);
        const token_batch batch{x + at.codes_of(begin) + first_tile * at.col_bytes, at.col_tiles * at.col_bytes,
                                reinterpret_cast<const token_numbers*>(x + at.numbers_of(begin)) + first_tile * tile_cols / scale_cols,
                                at.scale_blocks, end - begin < batch_tokens ? end - begin : batch_tokens};
        if (rows > tile_rows) {
            Products::template multiply<First, true>(strip, tiles, batch, sums);
        } else {
            Products::template multiply<First, false>(strip, tiles, batch, sums);
        }
    }
}
static_assert(rounded_strip_rows == 2 * tile_rows);

/// y[t, r] = sums, or y[t, r] + sums, + bias.
PHI4FLASH_VECTOR_INLINE void put_sums(const float* sums, std::size_t rows, bool first, const float* bias, float* y) {
    for (std::size_t r = 0; r < rows; r += rows_lanes()) {
        rows_f32 v = load_rows(sums + r);
        if (!first) v = add_rows_f32(v, load_rows(y + r));
        store_rows(bias == nullptr ? v : add_rows_f32(v, load_rows(bias + r)), y + r);
    }
}

/// Outputs of a whole strip, past the caches: rows of y are far apart, and to read lines only to write all of them takes a fifth of a product's
/// time. 1.07 times the speed of a prompt on matrix tiles (Emerald Rapids).
PHI4FLASH_VECTOR_INLINE void stream_sums(const float* sums, float* y) {
    for (std::size_t r = 0; r < rounded_strip_rows; r += vector_rows) stream(load_tokens(sums + r), y + r);
}

/// Panels of tokens, then of columns, outside; then rows, whose weights are streamed, and unpacked strip by strip.
template <dtype Format, class Products>
inline void rounded_matmul(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, std::size_t tokens, const float* bias,
                           float* y, std::size_t y_stride) {
    [[maybe_unused]] const typename Products::session session;
    constexpr std::size_t panel_cols_at_once = rounded_panel_cols<Products::digits>;
    const rounded_layout<Products::digits> at(cols, tokens);
    rounded_strip<Products::digits> strip;
    alignas(64) float sums[rounded_panel_tokens * rounded_strip_rows];
    const bool whole_lines = reinterpret_cast<std::uintptr_t>(y) % 64 == 0 && y_stride % tile_rows == 0;
    for (std::size_t begin = 0; begin < tokens; begin += rounded_panel_tokens) {
        const std::size_t end = tokens - begin < rounded_panel_tokens ? tokens : begin + rounded_panel_tokens;
        for (std::size_t panel = 0; panel < cols; panel += panel_cols_at_once) {
            const std::size_t panel_end = cols - panel < panel_cols_at_once ? cols : panel + panel_cols_at_once;
            for (std::size_t r = 0; r < rows; r += rounded_strip_rows) {
                strip_source from{w + matrix_bytes(Format, r, cols) + matrix_bytes(Format, packed_rows, panel),
                                  matrix_bytes(Format, packed_rows, cols), rows - r < rounded_strip_rows ? rows - r : rounded_strip_rows, 0};
                for (std::size_t c = panel; c < panel_end; c += rounded_strip_cols) {
                    const std::size_t some = panel_end - c < rounded_strip_cols ? panel_end - c : rounded_strip_cols;
                    const std::size_t col_tiles = (some + tile_cols - 1) / tile_cols;
                    from.groups = some / packed_cols;
                    unpack_rounded_strip<Format, Products>(from, strip);
                    from.at = c + some < panel_end ? from.at + matrix_bytes(Format, packed_rows, some)
                                                   : w + matrix_bytes(Format, r + from.rows, cols) + matrix_bytes(Format, packed_rows, panel);
                    if (c == panel) {
                        rounded_panel<Format, Products, true>(strip, from.rows, c / tile_cols, col_tiles, x, at, begin, end, from, sums);
                    } else {
                        rounded_panel<Format, Products, false>(strip, from.rows, c / tile_cols, col_tiles, x, at, begin, end, from, sums);
                    }
                }
                // Once only: what is there and joins further sums had better be near.
                if (cols <= panel_cols_at_once && from.rows == rounded_strip_rows && bias == nullptr && whole_lines) {
                    for (std::size_t t = begin; t < end; ++t) stream_sums(sums + (t - begin) * rounded_strip_rows, y + t * y_stride + r);
                    continue;
                }
                for (std::size_t t = begin; t < end; ++t)
                    put_sums(sums + (t - begin) * rounded_strip_rows, from.rows, panel == 0, bias == nullptr || panel_end < cols ? nullptr : bias + r,
                             y + t * y_stride + r);
            }
        }
    }
    streamed();
}

template <dtype Format, class Products>
struct rounded_way {
    static constexpr float weight_rounding = Products::digits == 1 ? 1.0f / 127.0f : 0x1p-14f;
    static_assert(Products::least_tokens >= rounded_tokens<Products::digits>);
    static constexpr std::size_t from = Products::least_tokens;
    static constexpr auto arrange = &arrange_rounded<Products>;
    static constexpr auto matmul = &rounded_matmul<Format, Products>;
};

PHI4FLASH_TARGET_END
