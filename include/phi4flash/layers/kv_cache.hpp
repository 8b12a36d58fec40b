#pragma once
/// Keys and values of past tokens, for layers that see a window and for the one that sees everything.
#include <phi4flash/kernels/compute.hpp>

#include <concepts>
#include <cstring>

PHI4FLASH_BEGIN

/// How the heads of an attention layer lie.
struct head_layout {
    std::size_t n_heads = 0;
    std::size_t n_kv_heads = 0;
    std::size_t d_head = 0;
    std::size_t k_per_group = 1;  ///< key heads that share a block of values: 2 for differential attention, 1 for the plain kind

    [[nodiscard]] constexpr std::size_t groups() const { return n_kv_heads / k_per_group; }
    [[nodiscard]] constexpr std::size_t group_width() const { return k_per_group * d_head; }
    [[nodiscard]] constexpr std::size_t queries_per_key() const { return n_heads / n_kv_heads; }
    [[nodiscard]] constexpr std::size_t q_width() const { return n_heads * d_head; }
    [[nodiscard]] constexpr std::size_t kv_width() const { return n_kv_heads * d_head; }
    friend bool operator==(const head_layout&, const head_layout&) = default;
};

/// Keys and values [groups, rows, group_width] in element type Kv, and of kv_int8 their scales [groups, k_per_group, rows]. Rows are
/// slots; what position a slot holds is the owner's to know. A view of memory taken from an arena.
template <kv_element Kv>
struct kv_block {
    static constexpr bool has_scales = std::same_as<Kv, kv_int8>;

    Kv* k = nullptr;
    Kv* v = nullptr;
    std::size_t rows = 0;
    bf16* k_scale = nullptr;
    bf16* v_scale = nullptr;

    kv_block() = default;
    constexpr kv_block(arena& memory, const head_layout& heads, std::size_t row_count)
        : k(memory.take<Kv>(std::uint64_t{heads.kv_width()} * row_count)),
          v(memory.take<Kv>(std::uint64_t{heads.kv_width()} * row_count)),
          rows(row_count) {
        if constexpr (has_scales) {
            k_scale = memory.take<bf16>(std::uint64_t{heads.n_kv_heads} * row_count);
            v_scale = memory.take<bf16>(std::uint64_t{heads.n_kv_heads} * row_count);
        }
    }

    /// Calls `visit(std::span<std::byte>)` with the memory of the rows from `first` on, once for each group's keys and once for its values.
    template <class Visit>
    void each_tail(const head_layout& heads, std::size_t first, Visit&& visit) const {
        for (Kv* const plane : {k, v})
            for (std::size_t g = 0; g < heads.groups(); ++g)
                visit(std::as_writable_bytes(std::span(plane + (g * rows + first) * heads.group_width(), (rows - first) * heads.group_width())));
    }

    /// Stores T tokens from slot `first` on.   Shape: new_k, new_v [T, kv_width].
    void write(const compute& with, const head_layout& heads, rows_view<const float> new_k, rows_view<const float> new_v, std::size_t first) const {
        for (std::size_t t = 0; t < new_k.count; ++t) {
            for (std::size_t g = 0; g < heads.groups(); ++g) {
                write_row(with, heads, new_k[t], g, first + t, k, k_scale);
                write_row(with, heads, new_v[t], g, first + t, v, v_scale);
            }
        }
    }

    /// Slots [first, first + count) as keys at positions from `position` on.
    [[nodiscard]] kv_segment segment(const head_layout& heads, std::size_t first, std::size_t position, std::size_t count) const {
        const std::size_t offset = first * heads.group_width();
        kv_segment s{reinterpret_cast<const std::byte*>(k + offset), reinterpret_cast<const std::byte*>(v + offset), rows, position, count};
        if constexpr (has_scales) s.k_scale = k_scale + first, s.v_scale = v_scale + first;
        return s;
    }

private:
    void write_row(const compute& with, const head_layout& heads, const float* token, std::size_t group, std::size_t slot, Kv* to,
                   [[maybe_unused]] bf16* scales) const {
        const std::size_t width = heads.group_width();
        const float* from = token + group * width;
        Kv* row = to + (group * rows + slot) * width;
        if constexpr (has_scales) {
            for (std::size_t s = 0; s < heads.k_per_group; ++s) {
                with.kernels->quantize(from + s * heads.d_head, heads.d_head, row + s * heads.d_head,
                                       scales + (group * heads.k_per_group + s) * rows + slot);
            }
        } else {
            with.kernels->narrow[static_cast<std::size_t>(dtype_of<Kv>)](from, width, reinterpret_cast<std::byte*>(row));
        }
    }
};

/// Copies `count` slots of every group.
template <class Kv>
void copy_slots(const head_layout& heads, const kv_block<Kv>& from, std::size_t from_slot, const kv_block<Kv>& to, std::size_t to_slot,
                std::size_t count) {
    const auto copy = [&](std::size_t planes, std::size_t width, const auto* source, auto* target) {
        for (std::size_t p = 0; p < planes; ++p)
            std::memcpy(target + (p * to.rows + to_slot) * width, source + (p * from.rows + from_slot) * width, count * width * sizeof *source);
    };
    copy(heads.groups(), heads.group_width(), from.k, to.k);
    copy(heads.groups(), heads.group_width(), from.v, to.v);
    if constexpr (kv_block<Kv>::has_scales) {
        copy(heads.n_kv_heads, 1, from.k_scale, to.k_scale);
        copy(heads.n_kv_heads, 1, from.v_scale, to.v_scale);
    }
}

/// The last tokens of a text: slot = position mod rows. A chunk's own keys stay in a staging block until every query has
/// seen the older ones; `commit` then moves the last of them here. Rows beyond the window let a text go back so many tokens.
template <class Kv>
struct kv_ring {
    kv_block<Kv> block;      ///< at least `window` rows
    std::size_t window = 0;

    /// The window of tokens before `position`, in order. Returns the number of segments written (0 to 2).
    std::size_t past(const head_layout& heads, std::size_t position, kv_segment* out) const {
        const std::size_t kept = position < window ? position : window;
        if (kept == 0) return 0;
        const std::size_t slot = (position - kept) % block.rows;
        const std::size_t before_wrap = block.rows - slot < kept ? block.rows - slot : kept;
        out[0] = block.segment(heads, slot, position - kept, before_wrap);
        if (before_wrap == kept) return 1;
        out[1] = block.segment(heads, 0, position - kept + before_wrap, kept - before_wrap);
        return 2;
    }

    /// Takes over the last of `count` tokens that start at `position`, from row `row` of the staging block on.
    void commit(const head_layout& heads, const kv_block<Kv>& staging, std::size_t row, std::size_t position, std::size_t count) const {
        std::size_t i = count > block.rows ? count - block.rows : 0;
        while (i < count) {
            const std::size_t slot = (position + i) % block.rows;
            const std::size_t run = count - i < block.rows - slot ? count - i : block.rows - slot;
            copy_slots(heads, staging, row + i, block, slot, run);
            i += run;
        }
    }

    /// Becomes a copy of what `other` has of the tokens before `position`, as far as there is room.
    void copy_from(const head_layout& heads, const kv_ring& other, std::size_t position) const {
        const std::size_t rows = block.rows < other.block.rows ? block.rows : other.block.rows;
        std::size_t at = position < rows ? 0 : position - rows;
        while (at < position) {
            const std::size_t from = at % other.block.rows;
            const std::size_t to = at % block.rows;
            std::size_t run = position - at;
            if (run > other.block.rows - from) run = other.block.rows - from;
            if (run > block.rows - to) run = block.rows - to;
            copy_slots(heads, other.block, from, block, to, run);
            at += run;
        }
    }
};

PHI4FLASH_END
