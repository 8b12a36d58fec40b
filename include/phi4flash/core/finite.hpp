#pragma once
/// Weights that are no numbers: where they are, and the sentence that says so. One NaN spoils every token of a text.
/// @since 0.2
#include <phi4flash/core/executor.hpp>
#include <phi4flash/core/matrix.hpp>
#include <phi4flash/core/result.hpp>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <optional>

PHI4FLASH_BEGIN

namespace detail {

/// Reads a piece at a time into aligned memory: a tensor of a file may lie anywhere.
template <class T>
[[nodiscard]] std::size_t first_not_finite_at(const std::byte* data, std::size_t count) {
    constexpr std::size_t piece = 1024;
    T numbers[piece];
    for (std::size_t at = 0; at < count; at += piece) {
        const std::size_t n = count - at < piece ? count - at : piece;
        std::memcpy(numbers, data + at * sizeof(T), n * sizeof(T));
        const std::size_t found = first_not_finite(std::span<const T>(numbers, n));
        if (found < n) return at + found;
    }
    return count;
}

/// Remembers the least of what several threads found.
inline void keep_least(std::atomic<std::size_t>& least, std::size_t x) {
    for (std::size_t seen = least.load(); x < seen && !least.compare_exchange_weak(seen, x);) {}
}

/// "[3, 17]" of element `index`.
inline void print_place(std::span<const std::size_t> shape, std::size_t index, char* out, std::size_t size) {
    std::size_t used = 0;
    std::size_t below = 1;  // elements of one step of this extent
    for (const std::size_t n : shape) below *= n;
    for (std::size_t i = 0; i < shape.size() && used + 1 < size; ++i) {
        below /= shape[i];
        const int written = detail::print(out + used, size - used, "%s%zu", i == 0 ? "[" : ", ", index / below % shape[i]);
        used += written < 0 ? 0 : static_cast<std::size_t>(written);
    }
    if (used + 1 < size) std::snprintf(out + used, size - used, shape.empty() ? "[]" : "]");
}

}  // namespace detail

/// "tensor NAME: element [3, 17] is not finite". `index` counts in row-major order.
[[nodiscard]] inline error not_finite_error(const char* name, std::span<const std::size_t> shape, std::size_t index) {
    char place[96] = {};
    detail::print_place(shape, index, place, sizeof place);
    return error::format(errc::not_finite, "tensor %s: element %s is not finite: the weights are damaged", name, place);
}

/// The place of the first element that is not finite, in row-major order; of a packed tensor, of the first element of the first row
/// of 32 columns whose scale is not. Reads all of the tensor, or up to there.
[[nodiscard]] inline std::optional<std::size_t> find_not_finite(const tensor_view& t) {
    if (is_packed(t.type)) {
        const std::size_t groups = t.extent[1] / packed_cols;
        const std::size_t block_bytes = matrix_bytes(t.type, packed_rows, packed_cols);
        for (std::size_t block = 0; block < t.bytes / block_bytes; ++block) {
            const std::size_t r = detail::first_not_finite_at<f16>(t.data + block * block_bytes, packed_rows);
            if (r < packed_rows) return (block / groups * packed_rows + r) * t.extent[1] + block % groups * packed_cols;
        }
        return std::nullopt;
    }
    const std::size_t count = t.count();
    const std::size_t found = t.type == dtype::f32   ? detail::first_not_finite_at<float>(t.data, count)
                              : t.type == dtype::f16 ? detail::first_not_finite_at<f16>(t.data, count)
                                                     : detail::first_not_finite_at<bf16>(t.data, count);
    return found < count ? std::optional(found) : std::nullopt;
}

/// The same, shared between threads.
[[nodiscard]] inline std::optional<std::size_t> find_not_finite(const tensor_view& t, executor_ref threads) {
    constexpr std::size_t piece_bytes = std::size_t{1} << 20;
    if (t.bytes == 0) return std::nullopt;
    const std::size_t cols = is_packed(t.type) ? t.extent[1] : 1;
    const std::size_t rows = is_packed(t.type) ? t.extent[0] : t.count();
    const std::size_t unit = is_packed(t.type) ? packed_rows : 1;
    const std::size_t unit_bytes = matrix_bytes(t.type, unit, cols);
    std::atomic<std::size_t> first{SIZE_MAX};
    threads.parallel_for(rows / unit, piece_bytes / unit_bytes + 1, [&](std::size_t begin, std::size_t end) {
        const std::size_t shape[] = {(end - begin) * unit, cols};
        const tensor_view part = view_of(t.data + begin * unit_bytes, shape, t.type);
        if (const auto found = find_not_finite(part)) detail::keep_least(first, begin * unit * cols + *found);
    });
    return first.load() != SIZE_MAX ? std::optional(first.load()) : std::nullopt;
}

PHI4FLASH_END
