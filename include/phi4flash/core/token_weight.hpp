#pragma once
/// What a logit weighs when a token is chosen: an integer in proportion to its probability. Integers add up to the same in any order, so
/// every vector width and back end chooses the same token.
///
///     logit --rank_of--> rank, ordered as logits are --weight_of--> 2^30 * 2^((logit - highest) / temperature * log2(e))
///
/// The kernels in kernels/choosing-inl.hpp are the same over whole vectors; what is here does their ragged ends, and all of the work for a
/// sampler without a kernel table.
/// @since 0.2
#include <phi4flash/core/number.hpp>

PHI4FLASH_BEGIN

/// The rank of -infinity and NaN, which are never chosen. No other logit has as low a one.
inline constexpr std::int32_t rank_of_none = -0x7f800000;
/// The rank of +infinity.
inline constexpr std::int32_t rank_of_infinity = 0x7f800000;

/// Orders logits as numbers do, 0 and -0 alike. Bits and not comparisons: hosts build with -ffast-math.
[[nodiscard]] constexpr std::int32_t rank_of(const float& logit) {
    const auto bits = std::bit_cast<std::int32_t>(logit);
    const std::int32_t magnitude = bits & 0x7fffffff;
    if (magnitude > rank_of_infinity) return rank_of_none;
    return bits < 0 ? -magnitude : magnitude;
}

/// The logit of a rank.
[[nodiscard]] constexpr float logit_of(std::int32_t rank) {
    const std::uint32_t magnitude = static_cast<std::uint32_t>(rank < 0 ? -rank : rank);
    return std::bit_cast<float>(rank < 0 ? magnitude | 0x80000000u : magnitude);
}

/// 2^-x: of x, an integer of 1/16384, the fraction meets a polynomial of degree 5 in whole numbers of 2^-17, and the rest shifts.
/// Source: Chebyshev interpolation of (1 - 2^-f) / f on [0, 1].
struct weight_polynomial {
    static constexpr int fraction_bits = 14;
    static constexpr int value_bits = 17;
    static constexpr std::int32_t fraction_mask = (1 << fraction_bits) - 1;
    static constexpr std::int32_t c0 = 90852, c1 = 31485, c2 = 7263, c3 = 1225, c4 = 132;
    /// From here on 2^-x weighs nothing.
    static constexpr std::int32_t nothing = (32 << fraction_bits) - 1;
};

/// What the highest logit weighs.
inline constexpr std::int32_t highest_weight = std::int32_t{1} << 30;

/// How steeply weights fall: `weight_of`'s scale at a temperature above 0. Finite, whatever the temperature.
[[nodiscard]] constexpr float weight_scale(float temperature) {
    const double scale = 1.4426950408889634 * (1 << weight_polynomial::fraction_bits) / static_cast<double>(temperature);
    return scale < 1e37 ? static_cast<float>(scale) : 1e37f;
}

/// Never more for a lower logit. Error: <= 9e-5 of itself, and less than 1, so that what is 2^-30 times as likely as the likeliest is never
/// chosen (tests/core/token_weight_test.cpp).
[[nodiscard]] constexpr std::int32_t weight_of(std::int32_t rank, float highest, float scale) {
    using p = weight_polynomial;
    if (rank == rank_of_none) return 0;
    const float distance = (highest - logit_of(rank)) * scale;
    const std::int32_t x = distance < static_cast<float>(p::nothing) ? static_cast<std::int32_t>(distance) : p::nothing;
    const std::int32_t f = x & p::fraction_mask;
    std::int32_t t = p::c3 - ((p::c4 * f) >> p::fraction_bits);
    t = p::c2 - ((t * f) >> p::fraction_bits);
    t = p::c1 - ((t * f) >> p::fraction_bits);
    t = p::c0 - ((t * f) >> p::fraction_bits);
    const std::int32_t value = (1 << p::value_bits) - ((t * f) >> p::fraction_bits);
    return (value << (30 - p::value_bits)) >> (x >> p::fraction_bits);
}

/// What choosing does with many tokens at once. Up to `choosing_block` of them a call.
inline constexpr std::size_t choosing_block = 1024;
/// One target's functions for it; the same numbers from each.
struct choosing_kernels {
    /// ranks[i] = rank_of(logits[i]).
    void (*rank)(const float* logits, std::size_t n, std::int32_t* ranks);
    /// The highest of n ranks; rank_of_none of no ranks.
    std::int32_t (*highest)(const std::int32_t* ranks, std::size_t n);
    /// How many of n numbers are at least `least`.
    std::size_t (*count)(const std::int32_t* x, std::size_t n, std::int32_t least);
    /// Puts weights where the ranks were, 0 where a rank is below `least`, and returns their sum.
    std::uint64_t (*weigh)(std::int32_t* ranks, std::size_t n, std::int32_t least, float highest, float scale);
    /// The sum of those of n weights that are at least `least`.
    std::uint64_t (*sum)(const std::int32_t* weights, std::size_t n, std::int32_t least);
};

namespace detail {

inline void rank_plainly(const float* logits, std::size_t n, std::int32_t* ranks) {
    for (std::size_t i = 0; i < n; ++i) ranks[i] = rank_of(logits[i]);
}
inline std::int32_t highest_plainly(const std::int32_t* ranks, std::size_t n) {
    std::int32_t highest = rank_of_none;
    for (std::size_t i = 0; i < n; ++i) highest = ranks[i] > highest ? ranks[i] : highest;
    return highest;
}
inline std::size_t count_plainly(const std::int32_t* x, std::size_t n, std::int32_t least) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < n; ++i) count += x[i] >= least ? 1 : 0;
    return count;
}
inline std::uint64_t weigh_plainly(std::int32_t* ranks, std::size_t n, std::int32_t least, float highest, float scale) {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < n; ++i) {
        ranks[i] = ranks[i] >= least ? weight_of(ranks[i], highest, scale) : 0;
        sum += static_cast<std::uint64_t>(ranks[i]);
    }
    return sum;
}
inline std::uint64_t sum_plainly(const std::int32_t* weights, std::size_t n, std::int32_t least) {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += weights[i] >= least ? static_cast<std::uint64_t>(weights[i]) : 0u;
    return sum;
}

}  // namespace detail

/// Without vectors, for a sampler that has no kernel table.
PHI4FLASH_OWN_DATA inline constexpr choosing_kernels plain_choosing{&detail::rank_plainly, &detail::highest_plainly, &detail::count_plainly,
                                                                    &detail::weigh_plainly, &detail::sum_plainly};

PHI4FLASH_END
