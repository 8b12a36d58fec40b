#pragma once
/// A session's memory in an order of its own, whatever place a ring has got to: what a copy of it outside consists of. For snapshot.hpp and
/// prefix_cache.hpp.
#include <phi4flash/model/state.hpp>

PHI4FLASH_BEGIN

namespace detail {

/// What of a session is written down: all that leads from `oldest` to `position`, and what `oldest` needs of the tokens before it.
struct session_extent {
    std::size_t position = 0;
    std::size_t oldest = 0;  ///< how far the text can go back
    std::size_t window = 0;  ///< keys that a window's layer sees

    [[nodiscard]] constexpr std::size_t states() const { return position - oldest + 1; }
    [[nodiscard]] constexpr std::size_t window_rows() const { return (std::min)(position, window + (position - oldest)); }
};

/// Of a session, with at most `undo` tokens to take back.
template <sambay_shape Shape, class Kv>
[[nodiscard]] session_extent extent_of(const session<Shape, Kv>& s, std::size_t undo) {
    return {s.position(), (std::max)(s.oldest_position(), s.position() - (std::min)(s.position(), undo)), s.shape().window};
}

[[nodiscard]] constexpr mamba_states states_of(const sambay_shape& s) {
    return {layer_plan(s.n_layers).n_mamba(), s.d_inner, s.d_state, s.d_conv};
}

/// Bytes of one token's keys and values in one layer.
template <class Kv>
[[nodiscard]] constexpr std::size_t kv_bytes(const head_layout& heads) {
    return 2 * (heads.kv_width() * sizeof(Kv) + (kv_block<Kv>::has_scales ? heads.n_kv_heads * sizeof(bf16) : 0));
}

/// Calls `visit(std::byte* memory, std::size_t bytes)` for the rows of `block` that hold positions [from, to), of each plane in turn: keys,
/// values, scales of keys, scales of values. A position's slot is position mod rows. The first `missing` of them are not here: `skip(bytes)` is
/// called for them. Until either returns false; returns whether none did.
template <class Kv, class Visit, class Skip>
bool each_row_piece(const head_layout& heads, const kv_block<Kv>& block, std::size_t from, std::size_t to, std::size_t missing, Visit&& visit,
                    Skip&& skip) {
    const auto planes = [&](auto* memory, std::size_t count, std::size_t width) {
        const std::size_t row_bytes = width * sizeof *memory;
        for (std::size_t p = 0; p < count; ++p) {
            auto* const plane = reinterpret_cast<std::byte*>(memory) + p * block.rows * row_bytes;
            if (missing != 0 && !skip(missing * row_bytes)) return false;
            for (std::size_t at = from + missing; at < to;) {
                const std::size_t slot = at % block.rows;
                const std::size_t run = (std::min)(to - at, block.rows - slot);
                if (!visit(plane + slot * row_bytes, run * row_bytes)) return false;
                at += run;
            }
        }
        return true;
    };
    if (!planes(block.k, heads.groups(), heads.group_width()) || !planes(block.v, heads.groups(), heads.group_width())) return false;
    if constexpr (kv_block<Kv>::has_scales) return planes(block.k_scale, heads.n_kv_heads, 1) && planes(block.v_scale, heads.n_kv_heads, 1);
    return true;
}

/// Where nothing is missing.
struct never_skips {
    bool operator()(std::size_t) const { return true; }
};

/// Mamba states from the oldest on, then each window's K/V. `visit` and `skip` as above; what this session has no room to take back is not here.
template <sambay_shape Shape, class Kv, class Visit, class Skip = never_skips>
bool each_state_piece(const session<Shape, Kv>& s, const session_extent& of, Visit&& visit, Skip&& skip = {}) {
    const mamba_states states = states_of(s.shape());
    const std::size_t back = (std::min)(of.position - of.oldest, s.undo());  // that there is room for
    if (const std::size_t missing = of.states() - 1 - back; missing != 0 && !skip(missing * states.numbers() * sizeof(float))) return false;
    for (std::size_t at = of.position - back; at <= of.position; ++at)
        if (!states.each_part(s.states_after(at).data(),
                              [&](std::span<float> part) { return visit(reinterpret_cast<std::byte*>(part.data()), part.size_bytes()); }))
            return false;
    const std::size_t rows = of.window_rows();
    for (const kv_ring<Kv>& ring : s.windows())
        if (!each_row_piece(s.heads(), ring.block, of.position - rows, of.position, rows - (std::min)(rows, of.window + back), visit, skip))
            return false;
    return true;
}
/// Bytes of that; of an extent that a file claims it may be more than there is memory for, on 32 bits.
template <class Kv>
[[nodiscard]] constexpr std::uint64_t state_bytes(const sambay_shape& s, const session_extent& of) {
    return std::uint64_t{of.states()} * states_of(s).numbers() * sizeof(float) +
           std::uint64_t{layer_plan(s.n_layers).n_window()} * of.window_rows() * kv_bytes<Kv>(head_layout_of(extents<any_sambay>::of(s)));
}

/// The full layer's K/V of the tokens [from, to).
template <sambay_shape Shape, class Kv, class Visit>
bool each_full_piece(const session<Shape, Kv>& s, std::size_t from, std::size_t to, Visit&& visit) {
    return each_row_piece(s.heads(), s.full(), from, to, 0, visit, never_skips{});
}

}  // namespace detail

PHI4FLASH_END
