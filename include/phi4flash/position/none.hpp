#pragma once
/// No positional encoding (NoPE): what SambaY uses. Order comes from the Mamba layers.
#include <phi4flash/kernels/compute.hpp>

PHI4FLASH_BEGIN

/// A policy of attention: may change queries and keys before they meet, and may lower scores with distance.
struct no_position {
    /// Changes row t of `heads` heads of width d_head, at position first + t.
    void apply(const compute&, rows_view<float>, std::size_t /*heads*/, std::size_t /*d_head*/, std::size_t /*first*/) const {}
    /// [n_heads] slopes by which a score falls a position, or null.
    [[nodiscard]] const float* slopes() const { return nullptr; }
};

PHI4FLASH_END
