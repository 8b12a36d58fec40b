// Packed weights, way "tiles": many tokens on matrix tiles (AMX), on weights that rounded-inl.hpp has made bytes: one of each number of 4
// bits, two digits of one of 8. Runs when: ways-inl.hpp.

PHI4FLASH_TARGET_BEGIN

/// Sums over the columns of a strip as they leave the tiles, one for each block of columns that share scales. Of one digit: those of one or two
/// tiles of tokens by one or two of rows. Of two: those of one tile of tokens by one or two of rows, first of the upper digits' products,
/// then of each upper digit with a lower one.
template <std::size_t Digits>
struct tile_sums {
    alignas(64) std::int32_t integers[rounded_strip_cols / scale_cols][4][tile_rows * tile_rows];

    /// 16 of a tile's, as floats.
    PHI4FLASH_VECTOR_INLINE f32_vector of(std::size_t block, std::size_t tile, std::size_t at) const {
        const tokens_i32 sums = load_integers(integers[block][tile] + at);
        if constexpr (Digits == 2) return to_floats(join_digits(sums, load_integers(integers[block][tile + 2] + at)));
        return to_floats(sums);
    }
};

/// sum = or += integers * scale, of one block or two.
template <bool First, std::size_t Blocks, std::size_t Digits>
PHI4FLASH_VECTOR_INLINE void add_integers_to(const tile_sums<Digits>& from, std::size_t tile, std::size_t at, f32_vector scale, f32_vector next_scale,
                                             float* sum) {
    const f32_vector first = from.of(0, tile, at);
    f32_vector total = First ? mul(first, scale) : mul_add(first, scale, load(sum));
    if constexpr (Blocks == 2) total = mul_add(from.of(1, tile, at), next_scale, total);
    store(total, sum);
}

/// sums [tokens][rounded_strip_rows] = or += integers * the token's scale * the row's unit, for a tile of tokens by one or two of rows.
template <bool First, bool TwoRows, std::size_t Blocks, std::size_t Digits>
PHI4FLASH_VECTOR_INLINE void add_tokens_of_tile(const tile_sums<Digits>& from, std::size_t tile, const token_numbers* numbers, const float* units,
                                                float* sums) {
    const float* next_units = units + (Blocks - 1) * rounded_strip_rows;
    const f32_vector unit = load(units);
    const f32_vector next_unit = load(next_units);
    const f32_vector other_unit = load(units + tile_rows);
    const f32_vector other_next_unit = load(next_units + tile_rows);
    for (std::size_t t = 0; t < tile_rows; ++t, sums += rounded_strip_rows) {
        const f32_vector scale = set(numbers[0].scale[t]);
        const f32_vector next_scale = set(numbers[Blocks - 1].scale[t]);
        add_integers_to<First, Blocks>(from, tile, t * tile_rows, mul(scale, unit), mul(next_scale, next_unit), sums);
        if constexpr (TwoRows)
            add_integers_to<First, Blocks>(from, tile + 1, t * tile_rows, mul(scale, other_unit), mul(next_scale, other_next_unit), sums + tile_rows);
    }
}

template <bool First, bool TwoTokens, bool TwoRows, std::size_t Blocks>
PHI4FLASH_VECTOR_INLINE void add_tiles(const tile_sums<1>& from, const token_batch& tokens, const float* units, float* sums) {
    add_tokens_of_tile<First, TwoRows, Blocks>(from, 0, tokens.numbers, units, sums);
    if constexpr (TwoTokens)
        add_tokens_of_tile<First, TwoRows, Blocks>(from, 2, tokens.numbers + tokens.next_numbers, units, sums + tile_rows * rounded_strip_rows);
}

/// Tiles of columns [begin, end), which share scales, into the tiles 0 to 3.
template <bool TwoTokens, bool TwoRows>
PHI4FLASH_VECTOR_INLINE void multiply_tiles(const rounded_strip<1>& strip, std::size_t begin, std::size_t end, const std::byte* x,
                                            const std::byte* next_x) {
    tile_zero<0>();
    if constexpr (TwoRows) tile_zero<1>();
    if constexpr (TwoTokens) tile_zero<2>();
    if constexpr (TwoTokens && TwoRows) tile_zero<3>();
    for (std::size_t i = begin; i < end; ++i) {
        tile_load<4>(x + i * tile_bytes);
        tile_load<6>(strip.weights[0][i][0]);
        tile_dot<0, 4, 6>();
        if constexpr (TwoRows) {
            tile_load<7>(strip.weights[1][i][0]);
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
PHI4FLASH_VECTOR_INLINE void store_tiles(tile_sums<1>& to, std::size_t block) {
    tile_store<0>(to.integers[block][0]);
    if constexpr (TwoRows) tile_store<1>(to.integers[block][1]);
    if constexpr (TwoTokens) tile_store<2>(to.integers[block][2]);
    if constexpr (TwoTokens && TwoRows) tile_store<3>(to.integers[block][3]);
}

/// One or two tiles of tokens by one or two of rows, over `tiles` tiles of columns.
template <bool First, bool TwoTokens, bool TwoRows>
PHI4FLASH_VECTOR_INLINE void multiply_batch(const rounded_strip<1>& strip, std::size_t tiles, const token_batch& tokens, float* sums) {
    constexpr std::size_t together = scale_cols / tile_cols;
    const std::byte* next = tokens.codes + tokens.next_codes;
    tile_sums<1> made;
    multiply_tiles<TwoTokens, TwoRows>(strip, 0, tiles < together ? tiles : together, tokens.codes, next);
    store_tiles<TwoTokens, TwoRows>(made, 0);
    if (tiles <= together) return add_tiles<First, TwoTokens, TwoRows, 1>(made, tokens, strip.units[0], sums);
    multiply_tiles<TwoTokens, TwoRows>(strip, together, tiles, tokens.codes, next);
    store_tiles<TwoTokens, TwoRows>(made, 1);
    add_tiles<First, TwoTokens, TwoRows, 2>(made, tokens, strip.units[0], sums);
}

/// 16 tokens by 16 rows by 64 columns at once.
struct packed_tile_products {
    using session = tile_configuration;
    static constexpr std::size_t digits = 1;
    static constexpr std::size_t least_tokens = 32;  ///< fewer are cheaper in registers: unpacking to bytes costs what 20 tokens do there
    static constexpr std::int32_t lift = 0;
    static PHI4FLASH_VECTOR_INLINE signed_bytes weights(signed_bytes w) { return w; }

    template <bool First, bool TwoRows>
    static void multiply(const rounded_strip<1>& strip, std::size_t tiles, const token_batch& tokens, float* sums) {
        if (tokens.count > tile_rows) {
            multiply_batch<First, true, TwoRows>(strip, tiles, tokens, sums);
        } else {
            multiply_batch<First, false, TwoRows>(strip, tiles, tokens, sums);
        }
    }
};

/// Products of two digits by two, but for those of the lower ones, which are 2^-16 of the upper ones: columns [begin, end) of a tile of tokens.
/// Tiles 0 and 1: upper digits; 2 and 3: an upper and a lower one.
template <bool TwoRows>
PHI4FLASH_VECTOR_INLINE void multiply_digits(const rounded_strip<2>& strip, std::size_t begin, std::size_t end, const std::byte* x,
                                             tile_sums<2>& made, std::size_t block) {
    tile_zero<0>();
    tile_zero<2>();
    if constexpr (TwoRows) tile_zero<1>(), tile_zero<3>();
    for (std::size_t i = begin; i < end; ++i) {
        tile_load<4>(x + 2 * i * tile_bytes);
        tile_load<5>(x + (2 * i + 1) * tile_bytes);
        tile_load<6>(strip.weights[0][i][0]);
        tile_dot<0, 4, 6>();
        tile_dot<2, 5, 6>();
        if constexpr (TwoRows) {
            tile_load<7>(strip.weights[1][i][0]);
            tile_dot<1, 4, 7>();
            tile_dot<3, 5, 7>();
        }
        tile_load<6>(strip.weights[0][i][1]);
        tile_dot<2, 4, 6>();
        if constexpr (TwoRows) {
            tile_load<7>(strip.weights[1][i][1]);
            tile_dot<3, 4, 7>();
        }
    }
    tile_store<0>(made.integers[block][0]);
    tile_store<2>(made.integers[block][2]);
    if constexpr (TwoRows) tile_store<1>(made.integers[block][1]), tile_store<3>(made.integers[block][3]);
}

struct packed_digit_products {
    using session = tile_configuration;
    static constexpr std::size_t digits = 2;
    static constexpr std::size_t least_tokens = 32;  ///< fewer are cheaper in registers
    static constexpr std::int32_t lift = 0;

    template <bool First, bool TwoRows>
    static void multiply(const rounded_strip<2>& strip, std::size_t tiles, const token_batch& tokens, float* sums) {
        constexpr std::size_t together = scale_cols / tile_cols;
        const std::byte* x = tokens.codes;
        const token_numbers* numbers = tokens.numbers;
        tile_sums<2> made;
        for (std::size_t t = 0; t < tokens.count; t += tile_rows, sums += tile_rows * rounded_strip_rows) {
            multiply_digits<TwoRows>(strip, 0, tiles < together ? tiles : together, x, made, 0);
            if (tiles <= together) {
                add_tokens_of_tile<First, TwoRows, 1>(made, 0, numbers, strip.units[0], sums);
            } else {
                multiply_digits<TwoRows>(strip, together, tiles, x, made, 1);
                add_tokens_of_tile<First, TwoRows, 2>(made, 0, numbers, strip.units[0], sums);
            }
            x += tokens.next_codes;
            numbers += tokens.next_numbers;
        }
    }
};
static_assert(rounded_strip_cols == 2 * scale_cols);

PHI4FLASH_TARGET_END
