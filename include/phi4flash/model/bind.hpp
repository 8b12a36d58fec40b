#pragma once
/// From named tensors to weights: every tensor of a SambaY checkpoint, by the names of the released files, with the shape it
/// must have. The first pass checks and measures, the second fills; nothing is allocated between them that is not needed.
#include <phi4flash/core/finite.hpp>
#include <phi4flash/model/tensor_source.hpp>
#include <phi4flash/model/weights.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <numbers>
#include <string_view>
#include <type_traits>

PHI4FLASH_BEGIN

namespace detail {

/// Looks tensors up, compares shapes, and widens vectors, whose numbers must be finite: they are few, and read here anyway. The first
/// error sticks, and later calls do nothing.
class tensor_binder {
public:
    tensor_binder(const tensor_source_ref& source, arena memory, bool filling) : source_(source), memory_(memory), filling_(filling) {}

    [[nodiscard]] bool failed() const { return !failure_; }
    [[nodiscard]] const status& failure() const { return failure_; }
    [[nodiscard]] std::size_t bytes() const { return memory_.bytes(); }
    [[nodiscard]] std::size_t found() const { return found_; }

    /// The prefix of all names to come, such as "model.layers.3.".
    void enter_layer(std::size_t layer) { detail::print(prefix_, sizeof prefix_, "model.layers.%zu.", layer); }
    void leave_layers() { std::snprintf(prefix_, sizeof prefix_, "model."); }

    matrix_view matrix(const char* name, std::size_t rows, std::size_t cols) {
        const tensor_view* t = wanted(name, {rows, cols}, is_packable(rows, cols));
        if (t != nullptr && !is_compiled(t->type)) {
            failure_ =
                error::format(errc::wrong_dtype, "tensor %s: weights in %s: this program was compiled without them (PHI4FLASH_HAS_WEIGHTS_%s=0)",
                              full_name(name).text, name_of(t->type), name_of(t->type));
            t = nullptr;
        }
        return t == nullptr ? matrix_view{} : matrix_view{t->data, rows, cols, t->type};
    }

    /// A vector, widened, each number passed through `change`.
    template <class Change>
    const float* vector(const char* name, std::size_t n, Change&& change) {
        const tensor_view* t = wanted(name, {n});
        float* out = memory_.take<float>(n);
        if (filling_ && is_finite(t, name)) {
            for (std::size_t i = 0; i < n; ++i) out[i] = change(element(*t, i));
        }
        return out;
    }
    const float* vector(const char* name, std::size_t n) {
        return vector(name, n, [](float x) { return x; });
    }

    /// A table of n numbers in the kernels' own order: in the second pass, `fill(out, source)` where source(i) reads element i.
    template <class Fill>
    const float* table(const char* name, std::initializer_list<std::size_t> shape, std::size_t n, Fill&& fill) {
        const tensor_view* t = wanted(name, shape);
        float* out = memory_.take<float>(n);
        if (filling_ && is_finite(t, name)) {
            std::memset(out, 0, n * sizeof(float));
            fill(out, [t](std::size_t i) { return element(*t, i); });
        }
        return out;
    }

    /// sum_i a[i] b[i] in double, of two vectors; 0 while only checking.
    double dot(const char* a, const char* b, std::size_t n) {
        const tensor_view* x = wanted(a, {n});
        const tensor_view* y = wanted(b, {n});
        double sum = 0.0;
        if (filling_ && is_finite(x, a) && is_finite(y, b)) {
            for (std::size_t i = 0; i < n; ++i) sum += static_cast<double>(element(*x, i)) * static_cast<double>(element(*y, i));
        }
        return sum;
    }

    template <class T>
    std::span<T> objects(std::size_t n) {
        T* out = memory_.take<T>(n);
        if (!filling_) return {};
        for (std::size_t i = 0; i < n; ++i) std::construct_at(out + i);
        return {out, n};
    }

private:
    static float element(const tensor_view& t, std::size_t i) {
        if (t.type == dtype::f32) {
            float x;
            std::memcpy(&x, t.data + 4 * i, 4);
            return x;
        }
        std::uint16_t bits;
        std::memcpy(&bits, t.data + 2 * i, 2);
        return t.type == dtype::bf16 ? to_f32(bf16{bits}) : to_f32(f16{bits});
    }

    /// Whether the tensor was found and holds finite numbers only.
    bool is_finite(const tensor_view* t, const char* name) {
        if (t == nullptr || failed()) return false;
        const auto damaged = find_not_finite(*t);
        if (damaged) failure_ = not_finite_error(full_name(name).text, t->shape(), *damaged);
        return !damaged;
    }

    struct tensor_name {
        char text[160];
    };
    tensor_name full_name(const char* name) const {
        tensor_name full;
        std::snprintf(full.text, sizeof full.text, "%s%s", prefix_, name);
        return full;
    }

    /// The tensor of that name, with that shape, of a plain type (or a packed one, where that may be), and as many bytes as it needs: a
    /// source may be a host's own table, of which nothing is known yet.
    const tensor_view* wanted(const char* name, std::initializer_list<std::size_t> shape, bool may_be_packed = false) {
        if (failed()) return nullptr;
        const tensor_name named = full_name(name);
        const char* const full = named.text;
        const tensor_view* t = source_.find(full);
        if (t == nullptr) {
            char want[96];
            failure_ = error::format(errc::missing_tensor, "tensor %s is missing: want %s", full, print_shape(shape, want, sizeof want));
            return nullptr;
        }
        const auto have_shape = t->shape();
        if (!std::equal(have_shape.data(), have_shape.data() + have_shape.size(), shape.begin(), shape.end())) {
            char want[96];
            char have[96];
            failure_ = error::format(errc::wrong_shape, "tensor %s: want shape %s, have %s", full, print_shape(shape, want, sizeof want),
                                     print_shape(t->shape(), have, sizeof have));
            return nullptr;
        }
        if (is_packed(t->type) && !may_be_packed) {
            failure_ = error::format(errc::wrong_dtype, "tensor %s: want F32, F16 or BF16, have %s", full, name_of(t->type));
            return nullptr;
        }
        std::size_t count = 1;
        for (const std::size_t n : shape) count *= n;
        const std::size_t bytes = is_packed(t->type) ? matrix_bytes(t->type, t->extent[0], t->extent[1]) : count * size_of(t->type);
        if (t->data == nullptr || t->bytes != bytes) {
            failure_ = error::format(errc::size_mismatch, "tensor %s: want %zu bytes of %s, have %zu", full, bytes, name_of(t->type),
                                     t->data == nullptr ? std::size_t{0} : t->bytes);
            return nullptr;
        }
        if (!t->is_aligned()) {
            failure_ = error::format(errc::offset_misaligned, "tensor %s: its data must begin at a multiple of %zu bytes for %s", full,
                                     alignment_of(t->type), name_of(t->type));
            return nullptr;
        }
        ++found_;
        return t;
    }

    template <class Extents>
    static const char* print_shape(const Extents& shape, char* out, std::size_t size) {
        std::size_t used = 0;
        const char* separator = "[";
        out[0] = '\0';
        for (const std::size_t n : shape) {
            const int written = detail::print(out + used, size - used, "%s%zu", separator, n);
            if (written < 0 || used + static_cast<std::size_t>(written) + 2 > size) break;
            used += static_cast<std::size_t>(written);
            separator = ", ";
        }
        std::snprintf(out + used, size - used, used == 0 ? "[]" : "]");
        return out;
    }

    tensor_source_ref source_;
    arena memory_;
    status failure_;
    std::size_t found_ = 0;
    bool filling_;
    char prefix_[48] = "model.";
};

template <class Binder>
[[nodiscard]] constexpr layer_norm bind_norm(Binder& from, const char* weight, const char* bias, std::size_t width, float eps) {
    return {from.vector(weight, width), from.vector(bias, width), width, eps};
}

template <class Binder>
[[nodiscard]] PHI4FLASH_COLD constexpr layer_frame bind_frame(Binder& from, const extents<any_sambay>& e, float eps) {
    layer_frame frame;
    frame.input_norm = bind_norm(from, "input_layernorm.weight", "input_layernorm.bias", e.d_model(), eps);
    frame.post_norm = bind_norm(from, "post_attention_layernorm.weight", "post_attention_layernorm.bias", e.d_model(), eps);
    frame.mlp.fc1.weight = from.matrix("mlp.fc1.weight", 2 * e.d_ff(), e.d_model());
    frame.mlp.fc2.weight = from.matrix("mlp.fc2.weight", e.d_model(), e.d_ff());
    return frame;
}

template <class Binder>
[[nodiscard]] PHI4FLASH_COLD constexpr mamba bind_mamba(Binder& from, const extents<any_sambay>& e) {
    const std::size_t d_inner = e.d_inner();
    const std::size_t d_state = e.d_state();
    const std::size_t d_conv = e.d_conv();
    mamba m;
    m.d_conv = d_conv;
    m.d_state = d_state;
    m.in_proj.weight = from.matrix("attn.in_proj.weight", 2 * d_inner, e.d_model());
    m.conv_weight = from.table("attn.conv1d.weight", {d_inner, 1, d_conv}, d_conv * d_inner, [&](float* out, auto source) {
        for (std::size_t c = 0; c < d_inner; ++c) {
            for (std::size_t j = 0; j < d_conv; ++j) out[j * d_inner + c] = source(c * d_conv + j);
        }
    });
    m.conv_bias = from.vector("attn.conv1d.bias", d_inner);
    m.x_proj.weight = from.matrix("attn.x_proj.weight", e.dt_rank() + 2 * d_state, d_inner);
    m.dt_proj.weight = from.matrix("attn.dt_proj.weight", d_inner, e.dt_rank());
    m.dt_proj.bias = from.vector("attn.dt_proj.bias", d_inner);
    m.a_log2e = from.table("attn.A_log", {d_inner, d_state}, blocked_size(d_inner, d_state), [&](float* out, auto source) {
        for (std::size_t c = 0; c < d_inner; ++c) {
            for (std::size_t n = 0; n < d_state; ++n) {
                const double a = -std::exp(static_cast<double>(source(c * d_state + n)));
                out[blocked_index(c, n, d_state)] = static_cast<float>(a * std::numbers::log2e);
            }
        }
    });
    m.d = from.vector("attn.D", d_inner);
    m.out_proj.weight = from.matrix("attn.out_proj.weight", e.d_model(), d_inner);
    return m;
}

/// `layer` is counted over the whole model: lambda0 depends on it.
template <class Binder>
[[nodiscard]] PHI4FLASH_COLD constexpr sambay_attention bind_attention(Binder& from, const extents<any_sambay>& e, std::size_t layer, bool has_keys) {
    sambay_attention a;
    a.layout = head_layout_of(e);
    const std::size_t outputs = e.d_model() + (has_keys ? 2 * e.d_kv() : 0);
    a.qkv.weight = from.matrix("attn.Wqkv.weight", outputs, e.d_model());
    a.qkv.bias = from.vector("attn.Wqkv.bias", outputs);
    a.out_proj.weight = from.matrix("attn.out_proj.weight", e.d_model(), e.d_model());
    a.out_proj.bias = from.vector("attn.out_proj.bias", e.d_model());
    const double first = from.dot("attn.inner_cross_attn.lambda_q1", "attn.inner_cross_attn.lambda_k1", e.d_head());
    const double second = from.dot("attn.inner_cross_attn.lambda_q2", "attn.inner_cross_attn.lambda_k2", e.d_head());
    double initial = 0.0;
    if (!std::is_constant_evaluated()) {  // else it is weights_meter, who asks for no numbers: std::exp is no constant yet
        initial = differential_heads::initial_lambda(layer);
        a.heads.lambda = static_cast<float>(std::exp(first) - std::exp(second) + initial);
    }
    a.heads.norm_weight = from.vector("attn.inner_cross_attn.subln.weight", 2 * e.d_head(),
                                      [&](float x) { return static_cast<float>(static_cast<double>(x) * (1.0 - initial)); });
    a.heads.eps = 1e-5f;
    return a;
}

template <class Binder>
[[nodiscard]] PHI4FLASH_COLD constexpr sambay_weights bind_all(Binder& from, const extents<any_sambay>& e, float eps) {
    const layer_plan plan(e.n_layers());
    sambay_weights w;
    from.leave_layers();
    w.embedding = from.matrix("embed_tokens.weight", e.vocab(), e.d_model());
    w.final_norm = bind_norm(from, "final_layernorm.weight", "final_layernorm.bias", e.d_model(), eps);
    w.layers = from.template objects<layer_frame>(plan.n_layers());
    w.mambas = from.template objects<mamba>(plan.n_mamba());
    w.windows = from.template objects<sambay_attention>(plan.n_window());
    w.gated_memories = from.template objects<gated_memory>(plan.n_gated_memory());
    w.crosses = from.template objects<sambay_attention>(plan.n_cross());
    const auto put = [](auto list, std::size_t i, const auto& value) {
        if (!list.empty()) list[i] = value;  // empty while only checking
    };
    for (std::size_t layer = 0; layer < plan.n_layers() && !from.failed(); ++layer) {
        from.enter_layer(layer);
        put(w.layers, layer, bind_frame(from, e, eps));
        const layer_place place = plan.at(layer);
        switch (place.kind) {
            case mixer_kind::mamba:
            case mixer_kind::memory_mamba: put(w.mambas, place.slot, bind_mamba(from, e)); break;
            case mixer_kind::window_attention: put(w.windows, place.slot, bind_attention(from, e, layer, true)); break;
            case mixer_kind::full_attention: w.full = bind_attention(from, e, layer, true); break;
            case mixer_kind::cross_attention: put(w.crosses, place.slot, bind_attention(from, e, layer, false)); break;
            case mixer_kind::gated_memory:
                put(w.gated_memories, place.slot,
                    gated_memory{{from.matrix("attn.in_proj.weight", e.d_inner(), e.d_model())},
                                 {from.matrix("attn.out_proj.weight", e.d_model(), e.d_inner())}});
                break;
        }
    }
    return w;
}

}  // namespace detail

PHI4FLASH_END
