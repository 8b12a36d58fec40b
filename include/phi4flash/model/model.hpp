#pragma once
/// A SambaY model: extents and weights, immutable and shared. `model<phi4_mini_flash>` has every extent at compile time,
/// `model<any_sambay>` takes them from the checkpoint.
#include <phi4flash/model/bound_weights.hpp>
#include <phi4flash/model/layer_plan.hpp>

#include <concepts>
#include <utility>

PHI4FLASH_BEGIN

/// Weights bound to a shape. Big matrices are views into the source, which must outlive the model; the model itself owns a few
/// MiB of widened vectors. Movable, but while a pass computes with it. Const access from any number of threads.
template <sambay_shape Shape = any_sambay>
class model {
public:
    /// Binds a checkpoint. Everything is checked before memory is taken.
    /// Errors: bad_extent, missing_tensor, wrong_shape, wrong_dtype, size_mismatch, offset_misaligned, unexpected_tensor,
    /// duplicate_name, untied_embedding, out_of_memory; not_finite (a vector or a table of the model with an infinity or NaN in it; matrices are not
    /// read here); unknown_dtype, rank_too_high (a host's own table); invalid_argument (norm_eps; a table that finds a tensor of
    /// another name than was asked for, or lists other tensors than it finds). What the model owns is taken from `memory`.
    template <tensor_source Source>
    static result<model> bind(const Source& source, const sambay_config& config, const block_source& memory = {}) {
        const auto e = extents<Shape>::from(config.shape);
        if (!e) return e.error();
        auto bound = detail::bind_weights(source, config, memory);
        if (!bound) return bound.error();
        return model(*e, config, std::move(*bound));
    }

    /// The same for a source that carries its configuration.
    template <tensor_source Source>
        requires requires(const Source& s) {
            { s.config() } -> std::convertible_to<const sambay_config&>;
        }
    static result<model> bind(const Source& source) {
        return bind(source, source.config());
    }

    [[nodiscard]] const extents<Shape>& shape() const { return extents_; }
    [[nodiscard]] const sambay_config& config() const { return config_; }
    [[nodiscard]] const sambay_weights& weights() const { return bound_.weights; }
    [[nodiscard]] layer_plan plan() const { return layer_plan(extents_.n_layers()); }
    /// It has no weights, and passes refuse it: it was moved from. @since 0.2
    [[nodiscard]] bool moved_from() const { return bound_.weights.layers.empty(); }
    /// Bytes that the model itself owns, beside the source's.
    [[nodiscard]] std::size_t parameter_bytes() const { return bound_.parameters.bytes().size(); }

private:
    model(const extents<Shape>& e, const sambay_config& config, detail::bound_weights bound)
        : extents_(e), config_(config), bound_(std::move(bound)) {}

    [[no_unique_address]] extents<Shape> extents_;
    sambay_config config_;
    detail::bound_weights bound_;
};

PHI4FLASH_END
