// The products of packed_rounded-inl.hpp by vectors: four bytes of 16 rows in each, times four of one token.

PHI4FLASH_TARGET_BEGIN

/// Tokens whose sums, with one or two vectors of rows each, stay in registers.
inline constexpr std::size_t vector_tokens = 8;

template <bool TwoRows>
PHI4FLASH_VECTOR_INLINE void dot_rows(token_codes w, token_codes other_w, signed_bytes x, tokens_i32& sums, tokens_i32& other_sums) {
    sums = in_this_order(dot_next(sums, w, x));
    if constexpr (TwoRows) other_sums = in_this_order(dot_next(other_sums, other_w, x));
}

/// sum = or += integers * scale.
template <bool First>
PHI4FLASH_VECTOR_INLINE void add_scaled(tokens_i32 integers, tokens_f32 scale, float* sum) {
    store_tokens(First ? scaled(integers, scale) : multiply_add(to_floats(integers), scale, load_tokens(sum)), sum);
}

/// Tiles of columns [begin, end), which share scales, against tokens T of a tile. `sums` are their starts.
template <bool First, bool TwoRows, std::size_t... T>
PHI4FLASH_VECTOR_INLINE void multiply_vectors(std::index_sequence<T...>, const rounded_strip& strip, std::size_t begin, std::size_t end, const std::byte* x,
                                              const float* scales, const float* units, float* to, i32_of<T>... sums, i32_of<T>... other_sums) {
    for (std::size_t i = begin; i < end; ++i) {
        const auto* w = reinterpret_cast<const std::uint8_t*>(strip.weights[0][i]);
        const auto* other_w = reinterpret_cast<const std::uint8_t*>(strip.weights[1][i]);
        const auto* q = reinterpret_cast<const std::int8_t*>(x + i * tile_bytes);
        for (std::size_t s = 0; s < tile_cols / 4; ++s, w += 64, other_w += 64, q += 4)
            (dot_rows<TwoRows>(load_lifted(w), load_lifted(other_w), repeat_activations(q + T * tile_cols), sums, other_sums), ...);
    }
    const tokens_f32 unit = load_tokens(units);
    (add_scaled<First>(sums, multiply(repeat_tokens(scales[T]), unit), to + T * rounded_strip_rows), ...);
    if constexpr (TwoRows) {
        const tokens_f32 other_unit = load_tokens(units + tile_rows);
        (add_scaled<First>(other_sums, multiply(repeat_tokens(scales[T]), other_unit), to + T * rounded_strip_rows + tile_rows), ...);
    }
}

/// vector_tokens tokens of a tile, of which `numbers` are the block's.
template <bool First, bool TwoRows, std::size_t... T>
PHI4FLASH_VECTOR_INLINE void multiply_block(std::index_sequence<T...> tokens, const rounded_strip& strip, std::size_t begin, std::size_t end,
                                            const std::byte* x, const token_numbers& numbers, std::size_t first, const float* units, float* sums) {
    const std::int32_t* start = numbers.start + first;
    multiply_vectors<First, TwoRows>(tokens, strip, begin, end, x + first * tile_cols, numbers.scale + first, units, sums + first * rounded_strip_rows,
                                     repeat_integer(start[T])..., repeat_integer(start[T])...);
}

struct packed_vector_products {
    struct session {};
    static constexpr std::int32_t lift = lifted_by;
    static PHI4FLASH_VECTOR_INLINE token_codes weights(signed_bytes w) { return lifted(w); }

    template <bool First, bool TwoRows>
    static void multiply(const rounded_strip& strip, std::size_t tiles, const token_batch& batch, float* sums) {
        constexpr std::size_t together = scale_cols / tile_cols;
        constexpr auto tokens = std::make_index_sequence<vector_tokens>();
        for (std::size_t t = 0; t < batch.count; t += vector_tokens) {
            const std::size_t tile = t / tile_rows;
            const std::byte* x = batch.codes + tile * batch.next_codes;
            const token_numbers* numbers = batch.numbers + tile * batch.next_numbers;
            float* to = sums + tile * tile_rows * rounded_strip_rows;
            multiply_block<First, TwoRows>(tokens, strip, 0, tiles < together ? tiles : together, x, numbers[0], t % tile_rows, strip.units[0], to);
            if (tiles > together) multiply_block<false, TwoRows>(tokens, strip, together, tiles, x, numbers[1], t % tile_rows, strip.units[1], to);
        }
    }
};

PHI4FLASH_TARGET_END
