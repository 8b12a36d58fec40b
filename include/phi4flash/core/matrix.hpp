#pragma once
/// Views of weights that somebody else owns: a matrix in its stored type, and a named tensor of a file.
#include <phi4flash/core/packed.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

PHI4FLASH_BEGIN

/// Data of this type begin at a multiple of so many bytes: of their elements, or of the scales of packed blocks. @since 0.2
[[nodiscard]] constexpr std::size_t alignment_of(dtype type) { return type == dtype::f32 ? 4 : 2; }

/// A matrix [rows, cols] in its stored type: row-major elements, or packed blocks of 8 rows (core/packed.hpp). The data are
/// aligned to alignment_of(type), and need not be more.
struct matrix_view {
    const std::byte* data = nullptr;
    std::size_t rows = 0;
    std::size_t cols = 0;
    dtype type = dtype::f32;

    /// Rows that are stored together: a part of the matrix begins and ends at a multiple of this.
    [[nodiscard]] std::size_t row_block() const { return is_packed(type) ? packed_rows : 1; }
    [[nodiscard]] std::size_t bytes() const { return matrix_bytes(type, rows, cols); }
    /// Where row r begins; of a packed matrix, where the block of eight rows that r is in begins.
    [[nodiscard]] const std::byte* row(std::size_t r) const {
        const std::size_t block = row_block();
        return data + r / block * matrix_bytes(type, block, cols);
    }
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
    /// Elements, whatever they are stored as.
    [[nodiscard]] std::size_t count() const {
        if (!is_packed(type)) return bytes / size_of(type);
        std::size_t n = 1;
        for (const std::size_t e : shape()) n *= e;
        return n;
    }
    [[nodiscard]] bool is_aligned() const { return reinterpret_cast<std::uintptr_t>(data) % alignment_of(type) == 0; }
};

/// A tensor without a name, of at most max_rank extents; packed types have two. @since 0.2
[[nodiscard]] inline tensor_view view_of(const std::byte* data, std::span<const std::size_t> shape, dtype type) {
    tensor_view view;
    view.data = data;
    view.type = type;
    std::size_t count = 1;
    for (const std::size_t n : shape) count *= view.extent[view.rank++] = n;
    view.bytes = is_packed(type) ? matrix_bytes(type, shape[0], shape[1]) : count * size_of(type);
    return view;
}

/// The tensor of that name among tensors that are sorted by name, or nullptr.
[[nodiscard]] inline const tensor_view* find_tensor(std::span<const tensor_view> sorted, std::string_view name) {
    const auto place = std::lower_bound(sorted.begin(), sorted.end(), name,
                                        [](const tensor_view& t, std::string_view n) { return t.name < n; });
    return place != sorted.end() && place->name == name ? &*place : nullptr;
}

/// Bytes of all of them.
[[nodiscard]] inline std::uint64_t bytes_of_tensors(std::span<const tensor_view> tensors) {
    std::uint64_t sum = 0;
    for (const tensor_view& t : tensors) sum += t.bytes;
    return sum;
}

PHI4FLASH_END
