#pragma once
/// y = W x + b, with W in its stored type. The one place where a weight's type meets a kernel.
#include <phi4flash/core/matrix.hpp>
#include <phi4flash/kernels/compute.hpp>

PHI4FLASH_BEGIN

/// A linear map. Shapes: weight [rows, cols], bias [rows] or null.
struct linear {
    matrix_view weight;
    const float* bias = nullptr;

    /// The map to outputs [first, first + count) only.
    [[nodiscard]] linear outputs(std::size_t first, std::size_t count) const {
        return {{weight.row(first), count, weight.cols, weight.type}, bias == nullptr ? nullptr : bias + first};
    }

    /// y[t] = W x[t] + b for every row t.   Shape: x [T, cols], y [T, rows]. x and y must not overlap.
    void operator()(const compute& with, rows_view<const float> x, rows_view<float> y) const {
        const linear_kernels& kernels = with.kernels->linear[static_cast<std::size_t>(weight.type)];
        if (x.count == 1) {
            const float* arranged = kernels.arrange(x.data, weight.cols, with.arranged);
            with.parallel(weight.rows, weight.cols, [&](std::size_t begin, std::size_t end) {
                kernels.matvec(weight.row(begin), end - begin, weight.cols, arranged, bias == nullptr ? nullptr : bias + begin, y.data + begin);
            });
        } else if (x.count > 1) {
            with.parallel(weight.rows, weight.cols * x.count, [&](std::size_t begin, std::size_t end) {
                kernels.matmul(weight.row(begin), end - begin, weight.cols, x.data, x.stride, x.count,
                               bias == nullptr ? nullptr : bias + begin, y.data + begin, y.stride);
            });
        }
    }
};

PHI4FLASH_END
