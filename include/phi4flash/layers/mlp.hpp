#pragma once
/// The gated MLP: fc2(up * silu(gate)), gate the FIRST half of fc1's outputs, up the second.   Source: arXiv:2002.05202 (SwiGLU).
#include <phi4flash/layers/linear.hpp>
#include <phi4flash/layers/norm.hpp>

PHI4FLASH_BEGIN

/// Shapes: fc1 [2 d_ff, d_model], fc2 [d_model, d_ff].
struct mlp {
    linear fc1;
    linear fc2;

    /// Scratch for up to `tokens` rows: [tokens, 2 d_ff].
    struct workspace {
        rows_view<float> hidden;
        workspace() = default;
        constexpr workspace(arena& memory, std::size_t tokens, std::size_t d_ff) : hidden(take_rows(memory, tokens, 2 * d_ff)) {}
    };

    /// Shape: x [T, d_model], y [T, d_model]; y may be x.
    void operator()(const compute& with, const workspace& scratch, rows_view<const float> x, rows_view<float> y) const {
        widen(with, scratch, x);
        narrow(with, scratch, y);
    }

    /// The two halves, for callers that stop between them: up * silu(gate) into the workspace, and fc2 of that.
    void widen(const compute& with, const workspace& scratch, rows_view<const float> x) const {
        const std::size_t d_ff = fc2.weight.cols;
        const rows_view<float> gate = scratch.hidden.first(x.count);
        fc1(with, x, gate);
        gate_rows(with, gate, gate.column(d_ff), gate, d_ff);
    }
    void narrow(const compute& with, const workspace& scratch, rows_view<float> y) const { fc2(with, scratch.hidden.first(y.count), y); }
};

PHI4FLASH_END
