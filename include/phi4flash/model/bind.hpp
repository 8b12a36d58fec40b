#pragma once
/// From named tensors to weights: every tensor of a SambaY checkpoint, by the names of the released files, with the shape it must have, and
/// where it goes. Who is asked for them is a "binder": one that checks and fills (tensor_binder.hpp), that lists (tensor_list.hpp), or counts.
#include <phi4flash/core/matrix.hpp>
#include <phi4flash/model/layer_plan.hpp>
#include <phi4flash/model/shape.hpp>
#include <phi4flash/model/weights.hpp>

#include <cmath>
#include <cstddef>
#include <numbers>
#include <type_traits>

PHI4FLASH_BEGIN

namespace detail {

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
