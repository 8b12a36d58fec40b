#pragma once
/// ALiBi: scores fall linearly with distance, at a slope for each head.   Source: arXiv:2108.12409.
#include <phi4flash/kernels/compute.hpp>

#include <cmath>

PHI4FLASH_BEGIN

/// Queries and keys stay as they are; `slopes()` reaches the attention kernel.
struct alibi {
    const float* slope = nullptr;  ///< [n_heads]

    void apply(const compute&, rows_view<float>, std::size_t, std::size_t, std::size_t) const {}
    [[nodiscard]] const float* slopes() const { return slope; }
};

/// The paper's slopes, 2^(-8 (h + 1) / n), for n a power of two; other counts interleave the next power's.   Shape: out [n_heads].
inline void alibi_slopes(std::size_t n_heads, float* out) {
    std::size_t power = 1;
    while (power * 2 <= n_heads) power *= 2;
    for (std::size_t h = 0; h < n_heads; ++h) {
        const double exponent = h < power ? -8.0 * static_cast<double>(h + 1) / static_cast<double>(power)
                                          : -4.0 * static_cast<double>(2 * (h - power) + 1) / static_cast<double>(power);
        out[h] = static_cast<float>(std::exp2(exponent));
    }
}

PHI4FLASH_END
