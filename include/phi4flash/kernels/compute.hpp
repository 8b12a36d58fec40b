#pragma once
/// What a layer is given besides its weights and state: kernels, threads, and rows of activations.
#include <phi4flash/core/executor.hpp>
#include <phi4flash/core/memory.hpp>
#include <phi4flash/kernels/kernel_table.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

PHI4FLASH_BEGIN

/// `count` rows of activations, `stride` floats apart; the width is the reader's to know. A view: copies share the floats.
template <class T>
struct rows_view {
    T* data = nullptr;
    std::size_t count = 0;
    std::size_t stride = 0;

    [[nodiscard]] T* operator[](std::size_t row) const { return data + row * stride; }
    /// The last n rows.
    [[nodiscard]] rows_view last(std::size_t n) const { return {data + (count - n) * stride, n, stride}; }
    /// The first n rows.
    [[nodiscard]] rows_view first(std::size_t n) const { return {data, n, stride}; }
    /// Rows [row, row + n).
    [[nodiscard]] rows_view rows(std::size_t row, std::size_t n) const { return {data + row * stride, n, stride}; }
    /// The same rows, from column c.
    [[nodiscard]] rows_view column(std::size_t c) const { return {data + c, count, stride}; }

    operator rows_view<const T>() const  // NOLINT(google-explicit-constructor)
        requires(!std::is_const_v<T>)
    {
        return {data, count, stride};
    }
};

/// Room for `count` rows of `width` floats.
[[nodiscard]] constexpr rows_view<float> take_rows(arena& memory, std::size_t count, std::size_t width) {
    const std::size_t stride = round_up(width, block_alignment / sizeof(float));
    return {memory.take<float>(std::uint64_t{count} * stride), count, stride};
}

/// What packed weights are multiplied with. Plain weights always meet f32.
enum class activation_type : std::uint8_t {
    int8,  ///< activations rounded to 8 bits, with a scale for every 32 or 256: fast
    f32,   ///< activations as they are: up to several times slower, to measure what the rounding costs
};

/// How to compute. Belongs to one thread of control at a time; cheap to copy.
struct compute {
    const kernel_table* kernels = nullptr;
    executor_ref threads;
    /// arranged_bytes(widest input of any matrix) for each token of a chunk, see linear_kernels::arrange.
    std::byte* arranged = nullptr;
    activation_type activations = activation_type::int8;

    /// `body(begin, end)` over `count` items, each of about `cost` elementary operations; small work stays on this thread.
    template <class Body>
    void parallel(std::size_t count, std::size_t cost, Body&& body) const {
        constexpr std::size_t worth_a_thread = 32768;  // a few microseconds: more than waking a thread costs
        threads.parallel_for(count, worth_a_thread / (cost + 1) + 1, body);
    }
};

PHI4FLASH_END
