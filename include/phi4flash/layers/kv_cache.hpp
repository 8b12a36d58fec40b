#pragma once
/// Keys and values of past tokens, for layers that see a window and for the one that sees everything.
#include <phi4flash/kernels/compute.hpp>

#include <cstring>

PHI4FLASH_BEGIN

/// How the heads of an attention layer lie.
struct head_layout {
    std::size_t n_heads = 0;
    std::size_t n_kv_heads = 0;
    std::size_t d_head = 0;
    std::size_t k_per_group = 1;  ///< key heads that share a block of values: 2 for differential attention, 1 for the plain kind

    [[nodiscard]] std::size_t groups() const { return n_kv_heads / k_per_group; }
    [[nodiscard]] std::size_t group_width() const { return k_per_group * d_head; }
    [[nodiscard]] std::size_t queries_per_key() const { return n_heads / n_kv_heads; }
    [[nodiscard]] std::size_t q_width() const { return n_heads * d_head; }
    [[nodiscard]] std::size_t kv_width() const { return n_kv_heads * d_head; }
};

/// Keys and values [groups, rows, group_width] in element type Kv. Rows are slots; what position a slot holds is the
/// owner's to know. A view of memory taken from an arena.
template <class Kv>
struct kv_block {
    Kv* k = nullptr;
    Kv* v = nullptr;
    std::size_t rows = 0;

    kv_block() = default;
    kv_block(arena& memory, const head_layout& heads, std::size_t row_count)
        : k(memory.take<Kv>(heads.kv_width() * row_count)), v(memory.take<Kv>(heads.kv_width() * row_count)), rows(row_count) {}

    /// Stores T tokens from slot `first` on.   Shape: new_k, new_v [T, kv_width].
    void write(const compute& with, const head_layout& heads, rows_view<const float> new_k, rows_view<const float> new_v, std::size_t first) const {
        const auto narrow = with.kernels->narrow[static_cast<std::size_t>(dtype_of<Kv>)];
        const std::size_t width = heads.group_width();
        for (std::size_t t = 0; t < new_k.count; ++t) {
            for (std::size_t g = 0; g < heads.groups(); ++g) {
                const std::size_t at = (g * rows + first + t) * width;
                narrow(new_k[t] + g * width, width, reinterpret_cast<std::byte*>(k + at));
                narrow(new_v[t] + g * width, width, reinterpret_cast<std::byte*>(v + at));
            }
        }
    }

    /// Slots [first, first + count) as keys at positions from `position` on.
    [[nodiscard]] kv_segment segment(const head_layout& heads, std::size_t first, std::size_t position, std::size_t count) const {
        const std::size_t offset = first * heads.group_width();
        return {reinterpret_cast<const std::byte*>(k + offset), reinterpret_cast<const std::byte*>(v + offset), rows, position, count};
    }
};

/// Copies `count` slots of every group.
template <class Kv>
void copy_slots(const head_layout& heads, const kv_block<Kv>& from, std::size_t from_slot, const kv_block<Kv>& to, std::size_t to_slot,
                std::size_t count) {
    const std::size_t width = heads.group_width();
    for (std::size_t g = 0; g < heads.groups(); ++g) {
        const std::size_t source = (g * from.rows + from_slot) * width;
        const std::size_t target = (g * to.rows + to_slot) * width;
        std::memcpy(to.k + target, from.k + source, count * width * sizeof(Kv));
        std::memcpy(to.v + target, from.v + source, count * width * sizeof(Kv));
    }
}

/// The last `window` tokens: slot = position mod window. A chunk's own keys stay in a staging block until every query has
/// seen the older ones; `commit` then moves the last of them here.
template <class Kv>
struct kv_ring {
    kv_block<Kv> block;  ///< block.rows is the window

    /// The tokens before `position` that are still here, in order. Returns the number of segments written (0 to 2).
    std::size_t past(const head_layout& heads, std::size_t position, kv_segment* out) const {
        const std::size_t kept = position < block.rows ? position : block.rows;
        if (kept == 0) return 0;
        const std::size_t slot = (position - kept) % block.rows;
        const std::size_t before_wrap = block.rows - slot < kept ? block.rows - slot : kept;
        out[0] = block.segment(heads, slot, position - kept, before_wrap);
        if (before_wrap == kept) return 1;
        out[1] = block.segment(heads, 0, position - kept + before_wrap, kept - before_wrap);
        return 2;
    }

    /// Takes over the last tokens of a chunk of `count` that started at `position`.
    void commit(const head_layout& heads, const kv_block<Kv>& staging, std::size_t position, std::size_t count) const {
        std::size_t i = count > block.rows ? count - block.rows : 0;
        while (i < count) {
            const std::size_t slot = (position + i) % block.rows;
            const std::size_t run = count - i < block.rows - slot ? count - i : block.rows - slot;
            copy_slots(heads, staging, i, block, slot, run);
            i += run;
        }
    }
};

PHI4FLASH_END
