// Packed weights, way "vectors": many tokens with VNNI, on weights that rounded-inl.hpp has made bytes.
// A vector has four bytes of each of 8 or 16 rows, and meets four of one token, repeated. 4 bits only. Runs when: ways-inl.hpp.

PHI4FLASH_TARGET_BEGIN

template <bool Two>
PHI4FLASH_VECTOR_INLINE void dot_rows(token_codes w, token_codes other_w, signed_bytes x, tokens_i32& sums, tokens_i32& other_sums) {
    sums = dot_bytes(sums, w, x);
    if constexpr (Two) other_sums = dot_bytes(other_sums, other_w, x);
}

/// sum = or += integers * scale.
template <bool First>
PHI4FLASH_VECTOR_INLINE void add_scaled(tokens_i32 integers, tokens_f32 scale, float* sum) {
    store_tokens(First ? scaled(integers, scale) : multiply_add(to_floats(integers), scale, load_tokens(sum)), sum);
}

/// Columns that share scales, for one vector of rows or two.
struct vector_block {
    const std::int8_t* w;        ///< of the first tile; further tiles follow
    const std::int8_t* other_w;
    const float* units;
    std::size_t tiles;
};

/// A block against tokens T of a tile, from x and scales on. `sums` are their starts.
template <bool First, bool Two, std::size_t... T>
PHI4FLASH_VECTOR_INLINE void multiply_vectors(const vector_block& block, const std::byte* x, const float* scales, float* to,
                                              i32_of<T>... sums, i32_of<T>... other_sums) {
    const std::int8_t* w = block.w;
    const std::int8_t* other_w = block.other_w;
    for (std::size_t i = 0; i < block.tiles; ++i) {
        const auto* q = reinterpret_cast<const std::int8_t*>(x + i * tile_bytes);
        for (std::size_t s = 0; s < tile_cols / 4; ++s, w += tile_cols, other_w += tile_cols, q += 4)
            (dot_rows<Two>(load_lifted(w), load_lifted(other_w), repeat_activations(q + T * tile_cols), sums, other_sums), ...);
    }
    const tokens_f32 unit = load_tokens(block.units);
    (add_scaled<First>(sums, mul(repeat_tokens(scales[T]), unit), to + T * rounded_strip_rows), ...);
    if constexpr (Two) {
        const tokens_f32 other_unit = load_tokens(block.units + vector_rows);
        (add_scaled<First>(other_sums, mul(repeat_tokens(scales[T]), other_unit), to + T * rounded_strip_rows + vector_rows), ...);
    }
}

/// A block against tokens [first, first + sizeof...(T)) of a tile.
template <bool First, bool Two, std::size_t... T>
PHI4FLASH_VECTOR_INLINE void multiply_block(std::index_sequence<T...>, const vector_block& block, const std::byte* x, const token_numbers& numbers,
                                            std::size_t first, float* sums) {
    const std::int32_t* start = numbers.start + first;
    multiply_vectors<First, Two, T...>(block, x + first * tile_cols, numbers.scale + first, sums + first * rounded_strip_rows,
                                 repeat_integer(start[T])..., repeat_integer(start[T])...);
}

/// A block against `count` tokens of a tile, as many at a time as have their sums in registers with the vectors they meet.
template <bool First, bool Two>
inline void multiply_tokens(const vector_block& block, const std::byte* x, const token_numbers& numbers, std::size_t count, float* sums) {
    if constexpr (many_registers) {
        multiply_block<First, Two>(std::make_index_sequence<8>(), block, x, numbers, 0, sums);
        if (count > 8) multiply_block<First, Two>(std::make_index_sequence<8>(), block, x, numbers, 8, sums);
    } else {
        multiply_block<First, Two>(std::make_index_sequence<6>(), block, x, numbers, 0, sums);
        if (count > 6) multiply_block<First, Two>(std::make_index_sequence<5>(), block, x, numbers, 6, sums);
        if (count > 11) multiply_block<First, Two>(std::make_index_sequence<5>(), block, x, numbers, 11, sums);
    }
}

struct packed_vector_products {
    struct session {};
    static constexpr std::size_t digits = 1;
    static constexpr std::size_t least_tokens = 64;  ///< fewer are cheaper in registers
    static constexpr std::int32_t lift = lifted_by;
    static PHI4FLASH_VECTOR_INLINE token_codes weights(signed_bytes w) { return lifted(w); }

    template <bool First, bool TwoTiles>
    static void multiply(const rounded_strip<1>& strip, std::size_t tiles, const token_batch& batch, float* sums) {
        constexpr std::size_t together = scale_cols / tile_cols;
        constexpr std::size_t rows = TwoTiles ? rounded_strip_rows : tile_rows;
        for (std::size_t t = 0; t < batch.count; t += tile_rows, sums += tile_rows * rounded_strip_rows) {
            const std::byte* x = batch.codes + t / tile_rows * batch.next_codes;
            const token_numbers* numbers = batch.numbers + t / tile_rows * batch.next_numbers;
            for (std::size_t r = 0; r < rows; r += 2 * vector_rows) {
                vector_block block{weights_of(strip, r), weights_of(strip, r + vector_rows), strip.units[0] + r, tiles < together ? tiles : together};
                multiply_tokens<First, 2 * vector_rows <= rows>(block, x, numbers[0], batch.count - t, sums + r);
                if (tiles <= together) continue;
                block.w += together * tile_bytes, block.other_w += together * tile_bytes;
                block.units += rounded_strip_rows, block.tiles = tiles - together;
                multiply_tokens<false, 2 * vector_rows <= rows>(block, x + together * tile_bytes, numbers[1], batch.count - t, sums + r);
            }
        }
    }

private:
    static const std::int8_t* weights_of(const rounded_strip<1>& strip, std::size_t row) {
        return strip.weights[row / tile_rows][0][0] + row % tile_rows * 4;
    }
};

PHI4FLASH_TARGET_END
