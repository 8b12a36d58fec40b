#pragma once
/// Which weights a saved session belongs to: cheap to compute, and different for two checkpoints of one shape.
/// @since 0.2
#include <phi4flash/core/checksum.hpp>
#include <phi4flash/core/span_of.hpp>
#include <phi4flash/model/model.hpp>
#include <phi4flash/model/tensor_list.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

PHI4FLASH_BEGIN

/// Tells weights apart. The same on every machine; of the same weights in another form (row-major and packed, bf16 and f32) another, as
/// their results differ too.
struct weights_fingerprint {
    std::uint64_t value = 0;
    friend constexpr bool operator==(const weights_fingerprint&, const weights_fingerprint&) = default;
};

namespace detail {
[[nodiscard]] PHI4FLASH_BODY weights_fingerprint fingerprint_of_tensors(const tensor_source_ref& source, const sambay_config& config);
}

/// Looks at every tensor that the model is bound to: its name, extents and type, all of its bytes where it is a vector or a table, and
/// of a matrix 16 pieces of 64 bytes. `source` is what the model was bound to. At the released shape a few milliseconds, and some 4,000 pages
/// of a file that is not in memory yet: to be called once, and kept.
template <tensor_source Source, sambay_shape Shape>
[[nodiscard]] weights_fingerprint fingerprint_of(const Source& source, const model<Shape>& m) {
    return detail::fingerprint_of_tensors(source, m.config());
}

#if PHI4FLASH_BODIES
PHI4FLASH_BODY weights_fingerprint detail::fingerprint_of_tensors(const tensor_source_ref& source, const sambay_config& config) {
    constexpr std::size_t pieces = 16;
    constexpr std::size_t piece = 64;
    xxh64 sum;
    sum.update(std::bit_cast<std::uint32_t>(config.norm_eps));
    list_tensors(config.shape, [&](std::string_view name, std::span<const std::size_t> shape, tensor_role role) {
        const tensor_view* const t = source.find(name);
        sum.update(bytes_of_text(name));
        for (const std::size_t extent : shape) sum.update(extent);
        if (t == nullptr) return;
        sum.update(static_cast<std::uint64_t>(t->type));
        const std::span<const std::byte> bytes(t->data, t->bytes);
        if (role == tensor_role::parameter || bytes.size() <= pieces * piece) return sum.update(bytes);
        for (std::size_t i = 0; i < pieces; ++i)
            sum.update(bytes.subspan(static_cast<std::size_t>(std::uint64_t{bytes.size() - piece} * i / (pieces - 1)), piece));
    });
    return {sum.value()};
}
#endif

PHI4FLASH_END
