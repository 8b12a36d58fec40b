#pragma once
/// Views of weights that somebody else owns: a matrix in its stored type, and a named tensor of a file.
#include <phi4flash/core/number.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

PHI4FLASH_BEGIN

/// A row-major matrix [rows, cols] in its stored type; row r starts at `data + r * cols * size_of(type)`. The data need
/// only be aligned to the element.
struct matrix_view {
    const std::byte* data = nullptr;
    std::size_t rows = 0;
    std::size_t cols = 0;
    dtype type = dtype::f32;

    [[nodiscard]] std::size_t row_bytes() const { return cols * size_of(type); }
    [[nodiscard]] std::size_t bytes() const { return rows * row_bytes(); }
    [[nodiscard]] const std::byte* row(std::size_t r) const { return data + r * row_bytes(); }
};

/// A tensor as a container file describes it, before anyone has asked what it is for.
struct tensor_view {
    static constexpr std::size_t max_rank = 4;

    std::string_view name;
    const std::byte* data = nullptr;
    std::size_t bytes = 0;
    std::size_t extent[max_rank] = {};
    std::size_t rank = 0;
    dtype type = dtype::f32;

    [[nodiscard]] std::span<const std::size_t> shape() const { return {extent, rank}; }
    [[nodiscard]] std::size_t count() const { return bytes / size_of(type); }
};

PHI4FLASH_END
