#pragma once
/// The weights of a SambaY model: big matrices stay where they are, in their stored type; vectors and the tables that
/// kernels want in another order are widened to f32 in one block of a few MiB.
#include <phi4flash/layers/attention.hpp>
#include <phi4flash/layers/gated_memory.hpp>
#include <phi4flash/layers/mamba.hpp>
#include <phi4flash/layers/mlp.hpp>
#include <phi4flash/model/layer_plan.hpp>

#include <span>

PHI4FLASH_BEGIN

/// SambaY's attention: differential, no positional encoding.
using sambay_attention = attention<differential_heads, no_position>;

/// What every layer has besides its mixer: x += mixer(input_norm(x)); x += mlp(post_norm(x)).
struct layer_frame {
    layer_norm input_norm;
    layer_norm post_norm;
    phi4flash::mlp mlp;
};

/// Views into a checkpoint and into the parameter block. One array for each kind of mixer, addressed by the layer plan's slots;
/// immutable after binding, shared by any number of sessions and threads.
struct sambay_weights {
    matrix_view embedding;  ///< [vocab, d_model]; also the output projection
    layer_norm final_norm;
    std::span<layer_frame> layers;
    std::span<mamba> mambas;                     ///< the last one is the memory layer
    std::span<sambay_attention> windows;
    sambay_attention full;
    std::span<gated_memory> gated_memories;
    std::span<sambay_attention> crosses;
};

/// Heads of a SambaY attention layer.
template <sambay_shape Shape>
[[nodiscard]] constexpr head_layout head_layout_of(const extents<Shape>& e) {
    return {e.n_heads(), e.n_kv_heads(), e.d_head(), differential_heads::k_per_group};
}

PHI4FLASH_END
