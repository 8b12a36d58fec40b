#pragma once
/// The shape of a SambaY model: eleven numbers, a rule for each, and their use as a template argument.
///
/// A shape is one constexpr value. `model<phi4_mini_flash>` knows every extent at compile time; `any_sambay` leaves all of
/// them `dynamic`, to be filled from a configuration at run time, through the same code (as std::span does it).
#include <phi4flash/core/result.hpp>

#include <cstddef>
#include <cstdint>

PHI4FLASH_BEGIN

/// An extent that is known only at run time.
inline constexpr std::size_t dynamic = static_cast<std::size_t>(-1);

/// Extents of a SambaY model, in the field's terms (SambaY: arXiv:2507.06607; Mamba-1: arXiv:2312.00752).
struct sambay_shape {
    std::size_t d_model = dynamic;     ///< width of the residual stream
    std::size_t n_layers = dynamic;    ///< divisible by 4: half of them after the memory layer
    std::size_t d_ff = dynamic;        ///< width of the MLP
    std::size_t n_heads = dynamic;     ///< query heads, paired by parity
    std::size_t n_kv_heads = dynamic;  ///< key/value heads, paired by parity
    std::size_t vocab = dynamic;       ///< rows of the embedding
    std::size_t window = dynamic;      ///< keys that a sliding-window layer sees, itself included
    std::size_t d_inner = dynamic;     ///< channels of the Mamba mixer
    std::size_t d_state = dynamic;     ///< SSM states a channel
    std::size_t d_conv = dynamic;      ///< taps of the causal convolution
    std::size_t dt_rank = dynamic;     ///< rank of the step-size projection

    friend constexpr bool operator==(const sambay_shape&, const sambay_shape&) = default;
};

/// Microsoft's Phi-4-mini-flash-reasoning, 3.85 billion parameters.
PHI4FLASH_OWN_DATA inline constexpr sambay_shape phi4_mini_flash{
    .d_model = 2560,
    .n_layers = 32,
    .d_ff = 10240,
    .n_heads = 40,
    .n_kv_heads = 20,
    .vocab = 200064,
    .window = 512,
    .d_inner = 5120,
    .d_state = 16,
    .d_conv = 4,
    .dt_rank = 160,
};

/// Every extent from config.json.
PHI4FLASH_OWN_DATA inline constexpr sambay_shape any_sambay{};

/// The first rule that a shape breaks. `dynamic` extents break no rule until they are filled.
enum class shape_fault : std::uint8_t {
    none,
    extent_zero,
    extent_too_large,
    layers_not_multiple_of_four,
    heads_odd,
    kv_heads_odd,
    heads_not_multiple_of_kv_heads,
    width_not_multiple_of_heads,
};

/// No extent above this is accepted: keeps every product of two extents and an element size inside 64 bits.
inline constexpr std::size_t max_extent = std::size_t{1} << 24;

namespace detail {
[[nodiscard]] constexpr bool divides(std::size_t divisor, std::size_t n) { return divisor == dynamic || n == dynamic || n % divisor == 0; }
struct named_extent {
    const char* name;
    std::size_t value;
};
inline constexpr std::size_t extent_count = 11;
[[nodiscard]] constexpr named_extent extent_at(const sambay_shape& s, std::size_t i) {
    const named_extent all[extent_count] = {
        {"d_model", s.d_model}, {"n_layers", s.n_layers}, {"d_ff", s.d_ff},       {"n_heads", s.n_heads},
        {"n_kv_heads", s.n_kv_heads}, {"vocab", s.vocab}, {"window", s.window},   {"d_inner", s.d_inner},
        {"d_state", s.d_state}, {"d_conv", s.d_conv},     {"dt_rank", s.dt_rank},
    };
    return all[i];
}
}  // namespace detail

/// The one list of rules, used at compile time for static extents and at run time for the rest.
[[nodiscard]] constexpr shape_fault find_fault(const sambay_shape& s) {
    for (std::size_t i = 0; i < detail::extent_count; ++i) {
        const std::size_t value = detail::extent_at(s, i).value;
        if (value == 0) return shape_fault::extent_zero;
        if (value != dynamic && value > max_extent) return shape_fault::extent_too_large;
    }
    if (!detail::divides(4, s.n_layers)) return shape_fault::layers_not_multiple_of_four;
    if (!detail::divides(2, s.n_heads)) return shape_fault::heads_odd;
    if (!detail::divides(2, s.n_kv_heads)) return shape_fault::kv_heads_odd;
    if (!detail::divides(s.n_kv_heads, s.n_heads)) return shape_fault::heads_not_multiple_of_kv_heads;
    if (!detail::divides(s.n_heads, s.d_model)) return shape_fault::width_not_multiple_of_heads;
    return shape_fault::none;
}

/// Whether nothing of it is dynamic any more, and no rule broken: what check_shape accepts. @since 0.2
[[nodiscard]] constexpr bool is_complete(const sambay_shape& s) {
    for (std::size_t i = 0; i < detail::extent_count; ++i)
        if (detail::extent_at(s, i).value == dynamic) return false;
    return find_fault(s) == shape_fault::none;
}

/// Checks a shape of which nothing is dynamic any more. Errors: bad_extent, naming the extent, want and have.
[[nodiscard]] PHI4FLASH_BODY status check_shape(const sambay_shape& s);

#if PHI4FLASH_BODIES
PHI4FLASH_COLD_BODY status check_shape(const sambay_shape& s) {
    for (std::size_t i = 0; i < detail::extent_count; ++i) {
        const auto [name, value] = detail::extent_at(s, i);
        if (value == dynamic) return error::format(errc::bad_extent, "%s is not given: want a number from 1 to %zu", name, max_extent);
        if (value == 0 || value > max_extent) return error::format(errc::bad_extent, "%s: want 1 to %zu, have %zu", name, max_extent, value);
    }
    switch (find_fault(s)) {
        case shape_fault::layers_not_multiple_of_four:
            return error::format(errc::bad_extent, "n_layers: want a multiple of 4, have %zu", s.n_layers);
        case shape_fault::heads_odd:
            return error::format(errc::bad_extent, "n_heads: want an even number (heads pair by parity), have %zu", s.n_heads);
        case shape_fault::kv_heads_odd:
            return error::format(errc::bad_extent, "n_kv_heads: want an even number (heads pair by parity), have %zu", s.n_kv_heads);
        case shape_fault::heads_not_multiple_of_kv_heads:
            return error::format(errc::bad_extent, "n_heads: want a multiple of n_kv_heads (%zu), have %zu", s.n_kv_heads, s.n_heads);
        case shape_fault::width_not_multiple_of_heads:
            return error::format(errc::bad_extent, "d_model: want a multiple of n_heads (%zu), have %zu", s.n_heads, s.d_model);
        default:
            return {};
    }
}
#endif

namespace detail {
/// One extent: a constant where Static is a number, a member where it is `dynamic`.
template <std::size_t Static>
struct extent {
    constexpr extent() = default;
    constexpr explicit extent(std::size_t) {}
    [[nodiscard]] static constexpr std::size_t get() { return Static; }
};
template <>
struct extent<dynamic> {
    constexpr extent() = default;
    constexpr explicit extent(std::size_t n) : value(n) {}
    [[nodiscard]] constexpr std::size_t get() const { return value; }
    std::size_t value = 0;
};
}  // namespace detail

/// The extents of a model of shape Shape: static ones cost nothing, dynamic ones are stored. Everything that depends on
/// a shape asks one of these, so there is one code path.
template <sambay_shape Shape>
class extents {
    static_assert(find_fault(Shape) != shape_fault::extent_zero, "phi4flash: no extent of a shape may be zero");
    static_assert(find_fault(Shape) != shape_fault::extent_too_large, "phi4flash: an extent of the shape is larger than max_extent");
    static_assert(find_fault(Shape) != shape_fault::layers_not_multiple_of_four, "phi4flash: n_layers must be a multiple of 4");
    static_assert(find_fault(Shape) != shape_fault::heads_odd, "phi4flash: n_heads must be even, heads pair by parity");
    static_assert(find_fault(Shape) != shape_fault::kv_heads_odd, "phi4flash: n_kv_heads must be even, heads pair by parity");
    static_assert(find_fault(Shape) != shape_fault::heads_not_multiple_of_kv_heads, "phi4flash: n_heads must be a multiple of n_kv_heads");
    static_assert(find_fault(Shape) != shape_fault::width_not_multiple_of_heads, "phi4flash: d_model must be a multiple of n_heads");

public:
    PHI4FLASH_OWN_DATA static constexpr sambay_shape static_shape = Shape;

    constexpr extents() = default;

    /// Takes the dynamic extents from `s`. Errors: bad_extent where `s` breaks a rule or differs from a static extent.
    static result<extents> from(const sambay_shape& s) {
        if (const status ok = check_shape(s); !ok) return ok.error();
        for (std::size_t i = 0; i < detail::extent_count; ++i) {
            const auto [name, want] = detail::extent_at(Shape, i);
            const std::size_t have = detail::extent_at(s, i).value;
            if (want != dynamic && want != have)
                return error::format(errc::bad_extent, "%s: the model type wants %zu, the checkpoint has %zu", name, want, have);
        }
        return extents(s);
    }

    /// Takes them from a shape that breaks no rule (is_complete) and has the static extents.
    [[nodiscard]] static constexpr extents of(const sambay_shape& s) { return extents(s); }

    [[nodiscard]] constexpr std::size_t d_model() const { return d_model_.get(); }
    [[nodiscard]] constexpr std::size_t n_layers() const { return n_layers_.get(); }
    [[nodiscard]] constexpr std::size_t d_ff() const { return d_ff_.get(); }
    [[nodiscard]] constexpr std::size_t n_heads() const { return n_heads_.get(); }
    [[nodiscard]] constexpr std::size_t n_kv_heads() const { return n_kv_heads_.get(); }
    [[nodiscard]] constexpr std::size_t vocab() const { return vocab_.get(); }
    [[nodiscard]] constexpr std::size_t window() const { return window_.get(); }
    [[nodiscard]] constexpr std::size_t d_inner() const { return d_inner_.get(); }
    [[nodiscard]] constexpr std::size_t d_state() const { return d_state_.get(); }
    [[nodiscard]] constexpr std::size_t d_conv() const { return d_conv_.get(); }
    [[nodiscard]] constexpr std::size_t dt_rank() const { return dt_rank_.get(); }

    [[nodiscard]] constexpr std::size_t d_head() const { return d_model() / n_heads(); }
    /// Width of the keys (or values) of all heads.
    [[nodiscard]] constexpr std::size_t d_kv() const { return n_kv_heads() * d_head(); }

    [[nodiscard]] constexpr sambay_shape shape() const {
        return {d_model(), n_layers(), d_ff(), n_heads(), n_kv_heads(), vocab(), window(), d_inner(), d_state(), d_conv(), dt_rank()};
    }

private:
    constexpr explicit extents(const sambay_shape& s)
        : d_model_(s.d_model), n_layers_(s.n_layers), d_ff_(s.d_ff), n_heads_(s.n_heads), n_kv_heads_(s.n_kv_heads),
          vocab_(s.vocab), window_(s.window), d_inner_(s.d_inner), d_state_(s.d_state), d_conv_(s.d_conv), dt_rank_(s.dt_rank) {}

    [[no_unique_address]] detail::extent<Shape.d_model> d_model_;
    [[no_unique_address]] detail::extent<Shape.n_layers> n_layers_;
    [[no_unique_address]] detail::extent<Shape.d_ff> d_ff_;
    [[no_unique_address]] detail::extent<Shape.n_heads> n_heads_;
    [[no_unique_address]] detail::extent<Shape.n_kv_heads> n_kv_heads_;
    [[no_unique_address]] detail::extent<Shape.vocab> vocab_;
    [[no_unique_address]] detail::extent<Shape.window> window_;
    [[no_unique_address]] detail::extent<Shape.d_inner> d_inner_;
    [[no_unique_address]] detail::extent<Shape.d_state> d_state_;
    [[no_unique_address]] detail::extent<Shape.d_conv> d_conv_;
    [[no_unique_address]] detail::extent<Shape.dt_rank> dt_rank_;
};

/// What a configuration file says of a model: its shape and the numbers that are not extents.
struct sambay_config {
    sambay_shape shape;
    float norm_eps = 1e-5f;            ///< of every LayerNorm
    std::size_t max_positions = 0;     ///< longest context the model was made for, tokens
};

PHI4FLASH_END
