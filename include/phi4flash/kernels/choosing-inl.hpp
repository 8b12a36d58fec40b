// Choosing among many tokens: ranks, weights and their sums, over whole vectors what core/token_weight.hpp has for one token, to the bit.

PHI4FLASH_TARGET_BEGIN

inline void rank_logits(const float* logits, std::size_t n, std::int32_t* ranks) {
    const std::size_t lane_count = lanes();
    const i32_vector infinity = set_i32(rank_of_infinity);
    const i32_vector none = set_i32(rank_of_none);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) {
        const i32_vector bits = bits_of(load(logits + i));
        const i32_vector magnitude = and_i32(bits, set_i32(0x7fffffff));
        store_i32(where_greater(magnitude, infinity, none, sign_applied(magnitude, bits)), ranks + i);
    }
    phi4flash::detail::rank_plainly(logits + i, n - i, ranks + i);
}

inline std::int32_t highest_rank(const std::int32_t* ranks, std::size_t n) {
    const std::size_t lane_count = lanes();
    i32_vector highest = set_i32(rank_of_none);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) highest = max_i32(highest, load_i32(ranks + i));
    const std::int32_t whole = reduce_max_i32(highest);
    const std::int32_t rest = phi4flash::detail::highest_plainly(ranks + i, n - i);
    return whole > rest ? whole : rest;
}

inline std::size_t count_at_least(const std::int32_t* x, std::size_t n, std::int32_t least) {
    const std::size_t lane_count = lanes();
    const i32_vector limit = set_i32(least);
    const i32_vector one = set_i32(1);
    i32_vector below = set_i32(0);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) below = add_i32(below, where_greater(limit, load_i32(x + i), one, set_i32(0)));
    return i - static_cast<std::size_t>(reduce_sum_i32(below)) + phi4flash::detail::count_plainly(x + i, n - i, least);
}

/// Halves of weights, summed apart: a block of them fits 32 bits in each lane.
PHI4FLASH_VECTOR_INLINE std::uint64_t sum_of_halves(i32_vector low, i32_vector high) {
    return static_cast<std::uint64_t>(reduce_sum_i32(low)) + (static_cast<std::uint64_t>(reduce_sum_i32(high)) << 16);
}

inline std::uint64_t weigh_ranks(std::int32_t* ranks, std::size_t n, std::int32_t least, float highest, float scale) {
    using p = weight_polynomial;
    const std::size_t lane_count = lanes();
    const f32_vector top = set(highest);
    const f32_vector steep = set(scale);
    const f32_vector nothing = set(static_cast<float>(p::nothing));
    const i32_vector limit = set_i32(least > rank_of_none ? least - 1 : rank_of_none);
    const i32_vector half = set_i32(0xffff);
    i32_vector low = set_i32(0);
    i32_vector high = set_i32(0);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) {
        const i32_vector rank = load_i32(ranks + i);
        // The sign goes into its bit, the magnitude is below it.
        const f32_vector magnitude = float_of_bits(sign_applied(rank, rank));
        const f32_vector logit = float_of_bits(where_greater(set_i32(0), rank, bits_of(sub(zero(), magnitude)), rank));
        const i32_vector x = truncated(min_of(mul(sub(top, logit), steep), nothing));
        const i32_vector f = and_i32(x, set_i32(p::fraction_mask));
        i32_vector t = sub_i32(set_i32(p::c3), shift_right<p::fraction_bits>(mul_i32(set_i32(p::c4), f)));
        t = sub_i32(set_i32(p::c2), shift_right<p::fraction_bits>(mul_i32(t, f)));
        t = sub_i32(set_i32(p::c1), shift_right<p::fraction_bits>(mul_i32(t, f)));
        t = sub_i32(set_i32(p::c0), shift_right<p::fraction_bits>(mul_i32(t, f)));
        const i32_vector value = sub_i32(set_i32(1 << p::value_bits), shift_right<p::fraction_bits>(mul_i32(t, f)));
        const i32_vector shifted = shift_right_by(shift_left<30 - p::value_bits>(value), shift_right<p::fraction_bits>(x));
        const i32_vector weight = where_greater(rank, limit, shifted, set_i32(0));
        store_i32(weight, ranks + i);
        low = add_i32(low, and_i32(weight, half));
        high = add_i32(high, shift_right<16>(weight));
    }
    return sum_of_halves(low, high) + phi4flash::detail::weigh_plainly(ranks + i, n - i, least, highest, scale);
}

inline std::uint64_t sum_at_least(const std::int32_t* weights, std::size_t n, std::int32_t least) {
    const std::size_t lane_count = lanes();
    const i32_vector limit = set_i32(least);
    const i32_vector half = set_i32(0xffff);
    i32_vector low = set_i32(0);
    i32_vector high = set_i32(0);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) {
        const i32_vector weight = load_i32(weights + i);
        const i32_vector kept = where_greater(limit, weight, set_i32(0), weight);
        low = add_i32(low, and_i32(kept, half));
        high = add_i32(high, shift_right<16>(kept));
    }
    return sum_of_halves(low, high) + phi4flash::detail::sum_plainly(weights + i, n - i, least);
}

PHI4FLASH_TARGET_END
