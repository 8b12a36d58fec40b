#pragma once
/// The gated memory unit (GMU): out_proj(silu(in_proj(x)) * m), where m is the memory layer's scan output for the same
/// token. Owns no state.   Source: arXiv:2507.06607 section 2.
#include <phi4flash/layers/linear.hpp>
#include <phi4flash/layers/norm.hpp>

PHI4FLASH_BEGIN

/// Shapes: in_proj [d_inner, d_model], out_proj [d_model, d_inner].
struct gated_memory {
    linear in_proj;
    linear out_proj;

    /// Scratch for up to `tokens` rows: [tokens, d_inner].
    struct workspace {
        rows_view<float> gate;
        workspace() = default;
        constexpr workspace(arena& memory, std::size_t tokens, std::size_t d_inner) : gate(take_rows(memory, tokens, d_inner)) {}
    };

    /// Shape: x [T, d_model], memory [T, d_inner], y [T, d_model]; y may be x.
    void operator()(const compute& with, const workspace& scratch, rows_view<const float> x, rows_view<const float> memory,
                    rows_view<float> y) const {
        const rows_view<float> gate = scratch.gate.first(x.count);
        in_proj(with, x, gate);
        gate_rows(with, gate, memory, gate, in_proj.weight.rows);
        out_proj(with, gate, y);
    }
};

PHI4FLASH_END
