#pragma once
/// LayerNorm over the width of each row.
#include <phi4flash/kernels/compute.hpp>

PHI4FLASH_BEGIN

/// y = (x - mean) / sqrt(variance + eps) * weight + bias.   Shapes: weight, bias [width].   Source: arXiv:1607.06450.
struct layer_norm {
    const float* weight = nullptr;
    const float* bias = nullptr;
    std::size_t width = 0;
    float eps = 1e-5f;

    /// Shape: x, y [T, width]; y may be x.
    void operator()(const compute& with, rows_view<const float> x, rows_view<float> y) const {
        with.parallel(x.count, width, [&](std::size_t begin, std::size_t end) {
            for (std::size_t t = begin; t < end; ++t) with.kernels->layer_norm(x[t], weight, bias, eps, width, y[t]);
        });
    }
};

/// y += x, row by row.   Shape: x, y [T, width].
inline void add_rows(const compute& with, rows_view<const float> x, rows_view<float> y, std::size_t width) {
    with.parallel(x.count, width, [&](std::size_t begin, std::size_t end) {
        for (std::size_t t = begin; t < end; ++t) with.kernels->accumulate(x[t], width, y[t]);
    });
}

/// y = silu(gate) * x, row by row.   Shape: all [T, width]; y may be gate or x.
inline void gate_rows(const compute& with, rows_view<const float> gate, rows_view<const float> x, rows_view<float> y, std::size_t width) {
    with.parallel(x.count, 4 * width, [&](std::size_t begin, std::size_t end) {
        for (std::size_t t = begin; t < end; ++t) with.kernels->silu_mul(gate[t], x[t], width, y[t]);
    });
}

PHI4FLASH_END
