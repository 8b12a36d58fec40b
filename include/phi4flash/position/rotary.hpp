#pragma once
/// Rotary position embedding: a partial or whole head is rotated by angles that grow with the position; LongRoPE's per-frequency
/// factors and attention scale included.   Source: arXiv:2104.09864, arXiv:2402.13753.
#include <phi4flash/kernels/compute.hpp>

#include <cmath>

PHI4FLASH_BEGIN

/// Rotates pairs (i, i + n_rotated/2) of the first n_rotated numbers of each head by position * frequency[i].
struct rotary {
    const float* frequencies = nullptr;  ///< [n_rotated / 2], radians a position
    std::size_t n_rotated = 0;           ///< even, at most d_head and max_rotated
    float scale = 1.0f;                  ///< of cosine and sine (LongRoPE's attention factor)

    static constexpr std::size_t max_rotated = 512;

    void apply(const compute& with, rows_view<float> x, std::size_t heads, std::size_t d_head, std::size_t first) const {
        const std::size_t half = n_rotated / 2;
        with.parallel(x.count, 2 * heads * n_rotated, [&](std::size_t begin, std::size_t end) {
            float cosine[max_rotated / 2];
            float sine[max_rotated / 2];
            for (std::size_t t = begin; t < end; ++t) {
                for (std::size_t i = 0; i < half; ++i) {
                    // In double: an f32 angle of 100,000 radians would be off by 0.004.
                    const double angle = static_cast<double>(first + t) * static_cast<double>(frequencies[i]);
                    cosine[i] = scale * static_cast<float>(std::cos(angle));
                    sine[i] = scale * static_cast<float>(std::sin(angle));
                }
                for (std::size_t h = 0; h < heads; ++h) with.kernels->rotate(x[t] + h * d_head, cosine, sine, half);
            }
        });
    }
    [[nodiscard]] const float* slopes() const { return nullptr; }
};

/// frequency[i] = base^(-2i / n_rotated) / factor[i].   Shapes: out [n_rotated / 2]; factors the same, or null for 1.
inline void rotary_frequencies(double base, std::size_t n_rotated, const float* factors, float* out) {
    for (std::size_t i = 0; i < n_rotated / 2; ++i) {
        const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(n_rotated);
        out[i] = static_cast<float>(std::pow(base, exponent) / (factors == nullptr ? 1.0 : static_cast<double>(factors[i])));
    }
}

PHI4FLASH_END
