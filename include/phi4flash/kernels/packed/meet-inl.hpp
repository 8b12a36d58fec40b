// How a group of blocks of packed weights meets tokens: unpacked in registers, and multiplied with the rounded activations of one token or several at
// once. A block, or two side by side where a vector has room for 16 rows. few-inl.hpp walks over the weights.

PHI4FLASH_TARGET_BEGIN

// Vectors cannot stand in arrays, so the sums of a turn are packs of parameters: one for each token T.
template <std::size_t>
using wide_of = wide_f32;
template <std::size_t>
using wide_in = wide_f32&;

template <dtype Format, class Products>
PHI4FLASH_VECTOR_INLINE auto begin_dots(const activation_group& x) {
    if constexpr (Format == dtype::q8) {
        return Products::begin_bytes(x.start);
    } else {
        return Products::begin(x.start);
    }
}
template <dtype Format, class Products, std::size_t>
using dots_of = decltype(begin_dots<Format, Products>(activation_group{}));

template <dtype Format, class Products, class Dots, class Codes>
PHI4FLASH_VECTOR_INLINE Dots next_dots(Dots dots, Codes w, const std::int8_t* x) {
    if constexpr (Format == dtype::q8) {
        return Products::next_bytes(dots, w, repeat_activations(x));
    } else {
        return Products::next(dots, w, repeat_activations(x));
    }
}

/// sum + the products of a group times its scale. With 8-bit weights activations have a scale for each group; with 4 bits they share one for
/// scale_groups groups, and it comes later.
template <dtype Format, class Products, class Dots>
PHI4FLASH_VECTOR_INLINE wide_f32 add_dots(Dots dots, wide_f32 scales, [[maybe_unused]] const activation_group& x, wide_f32 sum) {
    if constexpr (Format == dtype::q8) {
        return multiply_add(scales, scaled(dots, repeat_wide(x.scale)), sum);
    } else {
        return multiply_add(wide_floats(Products::fold(dots)), scales, sum);
    }
}

// Where the instruction picks its four columns out of sixteen.
template <class Products, std::size_t>
using sixteen_of = decltype(Products::sixteen(nullptr));
template <class Products, class Codes, class Dots, class Sixteen>
PHI4FLASH_VECTOR_INLINE Dots next_sixteen(Dots dots, Codes w0, Codes w1, Codes w2, Codes w3, Sixteen x) {
    return Products::template next<3>(Products::template next<2>(Products::template next<1>(Products::template next<0>(dots, w0, x), w1, x), w2, x),
                                      w3, x);
}
template <dtype Format, class Products, std::size_t... T, class Codes>
PHI4FLASH_VECTOR_INLINE void meet_sixteen(Codes w0, Codes w1, Codes w2, Codes w3, dots_of<Format, Products, T>&... dots,
                                          sixteen_of<Products, T>... x) {
    ((dots = next_sixteen<Products>(dots, w0, w1, w2, w3, x)), ...);
}

/// A group, unpacked (w0 for columns 0 to 3, and so on), meets tokens T, whose products are in flight together: enough independent work to hide
/// their latency.
template <dtype Format, class Products, std::size_t... T, class Codes>
PHI4FLASH_VECTOR_INLINE void meet_together(Codes w0, Codes w1, Codes w2, Codes w3, Codes w4, Codes w5, Codes w6, Codes w7, wide_f32 scales,
                                           const activation_group* x, wide_in<T>... sum, dots_of<Format, Products, T>... dots) {
    if constexpr (Products::picks_columns) {
        meet_sixteen<Format, Products, T...>(w0, w1, w2, w3, dots..., Products::sixteen(x[T].q)...);
        meet_sixteen<Format, Products, T...>(w4, w5, w6, w7, dots..., Products::sixteen(x[T].q + 16)...);
    } else {
        ((dots = next_dots<Format, Products>(dots, w0, x[T].q)), ...);
        ((dots = next_dots<Format, Products>(dots, w1, x[T].q + 4)), ...);
        ((dots = next_dots<Format, Products>(dots, w2, x[T].q + 8)), ...);
        ((dots = next_dots<Format, Products>(dots, w3, x[T].q + 12)), ...);
        ((dots = next_dots<Format, Products>(dots, w4, x[T].q + 16)), ...);
        ((dots = next_dots<Format, Products>(dots, w5, x[T].q + 20)), ...);
        ((dots = next_dots<Format, Products>(dots, w6, x[T].q + 24)), ...);
        ((dots = next_dots<Format, Products>(dots, w7, x[T].q + 28)), ...);
    }
    ((sum = add_dots<Format, Products>(dots, scales, x[T], sum)), ...);
}

/// The same for any number of tokens, four together.
template <dtype Format, class Products, class Codes>
PHI4FLASH_VECTOR_INLINE void meet(Codes w0, Codes w1, Codes w2, Codes w3, Codes w4, Codes w5, Codes w6, Codes w7, wide_f32 scales,
                                  const activation_group* x, wide_f32& a) {
    meet_together<Format, Products, 0>(w0, w1, w2, w3, w4, w5, w6, w7, scales, x, a, begin_dots<Format, Products>(x[0]));
}
template <dtype Format, class Products, class Codes>
PHI4FLASH_VECTOR_INLINE void meet(Codes w0, Codes w1, Codes w2, Codes w3, Codes w4, Codes w5, Codes w6, Codes w7, wide_f32 scales,
                                  const activation_group* x, wide_f32& a, wide_f32& b) {
    meet_together<Format, Products, 0, 1>(w0, w1, w2, w3, w4, w5, w6, w7, scales, x, a, b, begin_dots<Format, Products>(x[0]),
                                          begin_dots<Format, Products>(x[1]));
}
template <dtype Format, class Products, class Codes>
PHI4FLASH_VECTOR_INLINE void meet(Codes w0, Codes w1, Codes w2, Codes w3, Codes w4, Codes w5, Codes w6, Codes w7, wide_f32 scales,
                                  const activation_group* x, wide_f32& a, wide_f32& b, wide_f32& c) {
    meet_together<Format, Products, 0, 1, 2>(w0, w1, w2, w3, w4, w5, w6, w7, scales, x, a, b, c, begin_dots<Format, Products>(x[0]),
                                             begin_dots<Format, Products>(x[1]), begin_dots<Format, Products>(x[2]));
}
template <dtype Format, class Products, class Codes, class... Rest>
PHI4FLASH_VECTOR_INLINE void meet(Codes w0, Codes w1, Codes w2, Codes w3, Codes w4, Codes w5, Codes w6, Codes w7, wide_f32 scales,
                                  const activation_group* x, wide_f32& a, wide_f32& b, wide_f32& c, wide_f32& d, Rest&... rest) {
    meet_together<Format, Products, 0, 1, 2, 3>(w0, w1, w2, w3, w4, w5, w6, w7, scales, x, a, b, c, d, begin_dots<Format, Products>(x[0]),
                                                begin_dots<Format, Products>(x[1]), begin_dots<Format, Products>(x[2]),
                                                begin_dots<Format, Products>(x[3]));
    if constexpr (sizeof...(rest) != 0) meet<Format, Products>(w0, w1, w2, w3, w4, w5, w6, w7, scales, x + 4, rest...);
}

/// Columns 4 s to 4 s + 3 (of 4 bits: and 16 further) of the rows of a vector, as they lie in the blocks.
template <class Block>
PHI4FLASH_VECTOR_INLINE wide_codes codes_at(const Block& a, const Block& b, std::size_t s, std::size_t row) {
    return codes_of_rows(a.code[s] + 4 * row, b.code[s] + 4 * row);
}
template <dtype Format>
PHI4FLASH_VECTOR_INLINE wide_codes low_half([[maybe_unused]] wide_codes levels, wide_codes codes) {
    if constexpr (Format == dtype::q4) {
        return low_codes(codes);
    } else {
        return low_levels(levels, codes);
    }
}
template <dtype Format>
PHI4FLASH_VECTOR_INLINE wide_codes high_half([[maybe_unused]] wide_codes levels, wide_codes codes) {
    if constexpr (Format == dtype::q4) {
        return high_codes(codes);
    } else {
        return high_levels(levels, codes);
    }
}

/// A group of blocks, unpacked once, against more tokens than have their products in registers.
template <dtype Format, class Products, class... Sums>
PHI4FLASH_VECTOR_INLINE void meet_unpacked(const q8_block& a, const q8_block& b, std::size_t row, wide_codes, const activation_group* x,
                                           Sums&... sum) {
    meet<Format, Products>(with_sign(codes_at(a, b, 0, row)), with_sign(codes_at(a, b, 1, row)), with_sign(codes_at(a, b, 2, row)),
                           with_sign(codes_at(a, b, 3, row)), with_sign(codes_at(a, b, 4, row)), with_sign(codes_at(a, b, 5, row)),
                           with_sign(codes_at(a, b, 6, row)), with_sign(codes_at(a, b, 7, row)), scales_of_rows(a.scale + row, b.scale + row), x,
                           sum...);
}
template <dtype Format, class Products, class... Sums>
PHI4FLASH_VECTOR_INLINE void meet_unpacked(const q4_block& a, const q4_block& b, std::size_t row, wide_codes levels, const activation_group* x,
                                           Sums&... sum) {
    const wide_codes codes0 = codes_at(a, b, 0, row);
    const wide_codes codes1 = codes_at(a, b, 1, row);
    const wide_codes codes2 = codes_at(a, b, 2, row);
    const wide_codes codes3 = codes_at(a, b, 3, row);
    meet<Format, Products>(low_half<Format>(levels, codes0), low_half<Format>(levels, codes1), low_half<Format>(levels, codes2),
                           low_half<Format>(levels, codes3), high_half<Format>(levels, codes0), high_half<Format>(levels, codes1),
                           high_half<Format>(levels, codes2), high_half<Format>(levels, codes3), scales_of_rows(a.scale + row, b.scale + row), x,
                           sum...);
}

/// A group of blocks against tokens T, whose products stay in registers: unpacked step by step, in a loop, which is as fast and less code.
template <dtype Format, class Products, std::size_t... T>
PHI4FLASH_VECTOR_INLINE void meet_steps(const packed_block<Format>& a, const packed_block<Format>& b, std::size_t row,
                                        [[maybe_unused]] wide_codes levels, const activation_group* x, wide_in<T>... sum,
                                        dots_of<Format, Products, T>... dots) {
    if constexpr (Format == dtype::q8) {
        for (std::size_t s = 0; s < 8; ++s) {
            const auto w = with_sign(codes_at(a, b, s, row));
            ((dots = next_dots<Format, Products>(dots, w, x[T].q + 4 * s)), ...);
        }
    } else {
        for (std::size_t s = 0; s < 4; ++s) {
            const wide_codes codes = codes_at(a, b, s, row);
            const wide_codes low = low_half<Format>(levels, codes);
            const wide_codes high = high_half<Format>(levels, codes);
            ((dots = next_dots<Format, Products>(dots, low, x[T].q + 4 * s)), ...);
            ((dots = next_dots<Format, Products>(dots, high, x[T].q + 16 + 4 * s)), ...);
        }
    }
    const wide_f32 scales = scales_of_rows(a.scale + row, b.scale + row);
    ((sum = add_dots<Format, Products>(dots, scales, x[T], sum)), ...);
}
template <dtype Format, class Products, std::size_t... T, class... Sums>
PHI4FLASH_VECTOR_INLINE void meet_steps(std::index_sequence<T...>, const packed_block<Format>& a, const packed_block<Format>& b, std::size_t row,
                                        wide_codes levels, const activation_group* x, Sums&... sum) {
    meet_steps<Format, Products, T...>(a, b, row, levels, x, sum..., begin_dots<Format, Products>(x[T])...);
}

/// A group of blocks against as many tokens as there are sums.
template <dtype Format, class Products, class... Sums>
PHI4FLASH_VECTOR_INLINE void meet_blocks(const packed_block<Format>& a, const packed_block<Format>& b, std::size_t row, wide_codes levels,
                                         const activation_group* x, Sums&... sum) {
    if constexpr (sizeof...(sum) <= 4 && !Products::picks_columns) {
        meet_steps<Format, Products>(std::index_sequence_for<Sums...>(), a, b, row, levels, x, sum...);
    } else {
        meet_unpacked<Format, Products>(a, b, row, levels, x, sum...);
    }
}

/// A token's sum of up to scale_groups groups joins its total.
template <dtype Format>
PHI4FLASH_VECTOR_INLINE void add_sum(wide_f32 sum, [[maybe_unused]] const activation_group& x, float* total) {
    if constexpr (Format == dtype::q8) {
        store_wide(add_wide(sum, load_wide(total)), total);
    } else {
        store_wide(multiply_add(sum, repeat_wide(x.scale), load_wide(total)), total);
    }
}

PHI4FLASH_TARGET_END
