#pragma once
/// Tensors that a file has at odd places, for which kernels have no loads on every processor: copied to where they are aligned.
/// @since 0.2
#include <phi4flash/core/matrix.hpp>
#include <phi4flash/core/memory.hpp>

#include <cstring>

PHI4FLASH_BEGIN

/// Copies those of the tensors that are not aligned for their type, and points their views there; the others stay where they are. Takes
/// one block of just the size that these need, which the views need too: none where all are aligned. `copied(bytes)` is called after
/// every 64 MiB or so. Errors: out_of_memory; nothing has changed then.
template <class Copied>
[[nodiscard]] result<memory_block> align_tensors(std::span<tensor_view> tensors, Copied&& copied) {
    constexpr std::size_t often = std::size_t{64} << 20;
    arena room;
    for (const tensor_view& t : tensors)
        if (!t.is_aligned()) (void)room.take<std::byte>(t.bytes);
    if (room.bytes() == 0) return memory_block();
    auto block = memory_block::allocate(room.bytes(), "tensors that are not aligned in their file, which are copied");
    if (!block) return block.error();
    arena memory(block->bytes().data());
    for (tensor_view& t : tensors) {
        if (t.is_aligned()) continue;
        auto* const place = memory.take<std::byte>(t.bytes);
        for (std::size_t at = 0; at < t.bytes; at += often) {
            const std::size_t n = t.bytes - at < often ? t.bytes - at : often;
            std::memcpy(place + at, t.data + at, n);
            copied(n);
        }
        t.data = place;
    }
    return block;
}

PHI4FLASH_END
