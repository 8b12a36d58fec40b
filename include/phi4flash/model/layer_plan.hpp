#pragma once
/// Which mixer each layer has, and which slot of that mixer's array it uses. Computed at compile time for static shapes.
#include <phi4flash/model/shape.hpp>

PHI4FLASH_BEGIN

/// The six mixers of SambaY.
enum class mixer_kind : std::uint8_t {
    mamba,             ///< Mamba-1: owns a convolution state and an SSM state
    window_attention,  ///< differential, sliding window: owns the K/V of the last `window` tokens
    memory_mamba,      ///< Mamba-1 that also hands its scan output on to the gated memory units
    full_attention,    ///< differential, causal: owns the only full-length K/V
    gated_memory,      ///< GMU over the memory layer's output of the same token: owns nothing
    cross_attention,   ///< differential, over the full layer's K/V: owns nothing
};

/// Its name here.
[[nodiscard]] constexpr const char* name_of(mixer_kind kind) {
    constexpr const char* names[] = {"mamba", "window_attention", "memory_mamba", "full_attention", "gated_memory", "cross_attention"};
    return names[static_cast<std::size_t>(kind)];
}

/// A layer's mixer: its kind, and its index among the layers that share that kind of weights and state. Both Mamba kinds
/// share one array (the memory layer is its last), all three kinds of attention keep arrays of their own.
struct layer_place {
    mixer_kind kind;
    std::size_t slot;
    friend constexpr bool operator==(const layer_place&, const layer_place&) = default;
};

/// The layer rule of SambaY for `n_layers` layers (a multiple of 4), layers counted from 0.
class layer_plan {
public:
    constexpr explicit layer_plan(std::size_t n_layers) : half_(n_layers / 2), n_layers_(n_layers) {}

    [[nodiscard]] constexpr std::size_t n_layers() const { return n_layers_; }
    /// The Mamba layer whose scan output the gated memory units read.
    [[nodiscard]] constexpr std::size_t memory_layer() const { return half_; }
    /// The layer that owns the full-length K/V. No layer after it owns state.
    [[nodiscard]] constexpr std::size_t full_layer() const { return half_ + 1; }

    [[nodiscard]] constexpr std::size_t n_mamba() const { return half_ / 2 + 1; }
    [[nodiscard]] constexpr std::size_t n_window() const { return half_ / 2; }
    [[nodiscard]] constexpr std::size_t n_gated_memory() const { return half_ / 2 - 1; }
    [[nodiscard]] constexpr std::size_t n_cross() const { return half_ / 2 - 1; }

    [[nodiscard]] constexpr layer_place at(std::size_t layer) const {
        const bool even = layer % 2 == 0;
        if (layer < half_) return {even ? mixer_kind::mamba : mixer_kind::window_attention, layer / 2};
        if (layer == half_) return {mixer_kind::memory_mamba, half_ / 2};
        if (layer == half_ + 1) return {mixer_kind::full_attention, 0};
        return {even ? mixer_kind::gated_memory : mixer_kind::cross_attention, (layer - half_) / 2 - 1};
    }

private:
    std::size_t half_;
    std::size_t n_layers_;
};

static_assert(layer_plan(32).at(16) == layer_place{mixer_kind::memory_mamba, 8});
static_assert(layer_plan(32).at(31) == layer_place{mixer_kind::cross_attention, 6});
static_assert(layer_plan(4).n_cross() == 0 && layer_plan(4).at(3) == layer_place{mixer_kind::full_attention, 0});

PHI4FLASH_END
