#pragma once
/// y = W x + b, with W in its stored type. The one place where a weight's type meets a kernel.
#include <phi4flash/core/matrix.hpp>
#include <phi4flash/kernels/compute.hpp>

PHI4FLASH_BEGIN

/// A linear map. Shapes: weight [rows, cols], bias [rows] or null.
struct linear {
    matrix_view weight;
    const float* bias = nullptr;

    /// The map to outputs [first, first + count) only; of a packed weight, multiples of 8.
    [[nodiscard]] linear outputs(std::size_t first, std::size_t count) const {
        return {{weight.row(first), count, weight.cols, weight.type}, bias_at(first)};
    }

    /// y[t] = W x[t] + b for every row t.   Shape: x [T, cols], y [T, rows]. x and y must not overlap.
    void operator()(const compute& with, rows_view<const float> x, rows_view<float> y) const {
        const linear_kernels& kernels = with.kernels->linear[static_cast<std::size_t>(weight.type)];
        const std::size_t block = weight.row_block();
        if (with.activations == activation_type::f32 && kernels.matmul_exact != nullptr) {
            with.parallel(weight.rows / block, block * weight.cols * x.count, [&](std::size_t begin, std::size_t end) {
                const std::size_t first = begin * block;
                kernels.matmul_exact(weight.row(first), end * block - first, weight.cols, x.data, x.stride, x.count, bias_at(first),
                                     y.data + first, y.stride);
            });
            return;
        }
        if (x.count == 1) {
            const std::byte* arranged = kernels.arrange(x.data, x.stride, weight.cols, 0, 1, 1, with.arranged);
            with.parallel(weight.rows / block, block * weight.cols, [&](std::size_t begin, std::size_t end) {
                const std::size_t first = begin * block;
                kernels.matvec(weight.row(first), end * block - first, weight.cols, arranged, bias_at(first), y.data + first);
            });
            return;
        }
        with.parallel(x.count, 4 * weight.cols, [&](std::size_t begin, std::size_t end) {
            kernels.arrange(x.data, x.stride, weight.cols, begin, end, x.count, with.arranged);
        });
        with.parallel(weight.rows / block, block * weight.cols * x.count, [&](std::size_t begin, std::size_t end) {
            const std::size_t first = begin * block;
            kernels.matmul(weight.row(first), end * block - first, weight.cols, with.arranged, x.count, bias_at(first), y.data + first, y.stride);
        });
    }

private:
    [[nodiscard]] const float* bias_at(std::size_t row) const { return bias == nullptr ? nullptr : bias + row; }
};

PHI4FLASH_END
