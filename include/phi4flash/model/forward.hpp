#pragma once
/// The forward pass: `step` for one token, `prefill` for a prompt, `logits_all` for evaluation.
///
/// No layer after the full attention layer owns state, so while a prompt is read, layers 0 to half run for every token, the full
/// layer only stores keys and values, and everything after it runs for the last token alone. Nothing is approximated, and
/// reading a prompt is linear in its length.   Source: arXiv:2507.06607 section 2 (YOCO: arXiv:2405.05254).
#include <phi4flash/model/state.hpp>

PHI4FLASH_BEGIN

namespace detail {

/// One pass over `tokens` (at most a chunk): the lower layers for all of them, the upper ones for the last `upper`. Leaves the
/// residual stream of those last tokens in the workspace and returns it. `observe(layer, rows)` sees it after each layer.
template <sambay_shape Shape, class Kv, class Observe>
rows_view<float> run_layers(const model<Shape>& m, session<Shape, Kv>& past, workspace<Shape, Kv>& w, std::span<const std::int32_t> tokens,
                            std::size_t upper, Observe&& observe) {
    const sambay_weights& weights = m.weights();
    const std::size_t d_model = m.shape().d_model();
    const layer_plan plan = m.plan();
    const std::size_t first = past.position();
    const compute& with = w.with;
    past.begin_pass();

    rows_view<float> x = w.residual.first(tokens.size());
    const auto widen = with.kernels->linear[static_cast<std::size_t>(weights.embedding.type)].widen;
    for (std::size_t t = 0; t < tokens.size(); ++t) widen(weights.embedding.data, static_cast<std::size_t>(tokens[t]), d_model, x[t]);

    rows_view<const float> memory;
    for (std::size_t layer = 0; layer < plan.n_layers(); ++layer) {
        const layer_frame& frame = weights.layers[layer];
        const layer_place place = plan.at(layer);
        rows_view<float> h = w.normed.first(x.count);
        frame.input_norm(with, x, h);
        switch (place.kind) {
            case mixer_kind::mamba:
            case mixer_kind::memory_mamba:
                memory = weights.mambas[place.slot](with, w.mamba_scratch, past.mambas()[place.slot], h, h);
                break;
            case mixer_kind::window_attention:
                weights.windows[place.slot].window(with, w.attention_scratch, past.windows()[place.slot], first, h, h);
                break;
            case mixer_kind::full_attention:
                weights.full.store_keys(with, w.attention_scratch, past.full(), first, h);
                x = x.last(upper);  // from here on, only what somebody asked for
                h = h.last(upper);
                memory = memory.last(upper);
                if (upper == 0) return x;
                weights.full.over(with, w.attention_scratch, past.full(), first + tokens.size() - upper, h, h);
                break;
            case mixer_kind::gated_memory: weights.gated_memories[place.slot](with, w.memory_scratch, h, memory, h); break;
            case mixer_kind::cross_attention:
                weights.crosses[place.slot].over(with, w.attention_scratch, past.full(), first + tokens.size() - upper, h, h);
                break;
        }
        add_rows(with, h, x, d_model);
        frame.post_norm(with, x, h);
        frame.mlp(with, w.mlp_scratch, h, h);
        add_rows(with, h, x, d_model);
        observe(layer, x);
    }
    return x;
}

/// logits[t] = final_norm(x[t]) . embedding^T.   Shape: x [T, d_model], logits [T, vocab].
template <sambay_shape Shape, class Kv>
void project_logits(const model<Shape>& m, workspace<Shape, Kv>& w, rows_view<const float> x, rows_view<float> logits) {
    const rows_view<float> h = w.normed.first(x.count);
    m.weights().final_norm(w.with, x, h);
    linear{m.weights().embedding}(w.with, h, logits);
}

/// The same, and whether the numbers are finite: a damaged weight otherwise becomes text like any other. Not only the logits are
/// looked at: 8-bit activations are finite whatever they were made of (which is also how damage can stay hidden inside a layer;
/// check_weights finds all). `read`: tokens that the session has read when it has read all of x. Some 30 us for 200,000 logits.
template <sambay_shape Shape, class Kv>
[[nodiscard]] status finite_logits(const model<Shape>& m, workspace<Shape, Kv>& w, rows_view<const float> x, rows_view<float> logits,
                                   std::size_t read) {
    const auto damaged = [&](std::size_t t) {
        return error::format(errc::not_finite,
                             "the logits after %zu tokens are not finite: weights are damaged ('phi4flash info --check' names the "
                             "tensor), or their products leave the range of f32",
                             read - x.count + t + 1);
    };
    for (std::size_t t = 0; t < x.count; ++t)
        if (first_not_finite(std::span<const float>(x[t], m.shape().d_model())) < m.shape().d_model()) return damaged(t);
    project_logits(m, w, x, logits);
    for (std::size_t t = 0; t < x.count; ++t)
        if (first_not_finite(std::span<const float>(logits[t], m.shape().vocab())) < m.shape().vocab()) return damaged(t);
    return {};
}

struct observe_nothing {
    void operator()(std::size_t, rows_view<const float>) const {}
};

/// Marks a session and a workspace as used while it lives, whatever ends the call.
template <sambay_shape Shape, class Kv>
class use_of {
public:
    use_of(session<Shape, Kv>& past, workspace<Shape, Kv>& w) : past_(past), w_(w) {
        past_.set_busy(true);
        w_.set_busy(true);
    }
    ~use_of() {
        past_.set_busy(false);
        w_.set_busy(false);
    }
    use_of(const use_of&) = delete;
    use_of& operator=(const use_of&) = delete;

    /// Whether the session is still where the call left it.
    [[nodiscard]] status refusal() const {
        if (!past_.disturbed()) return {};
        return error::format(errc::in_use, "the session was reset by a callback of the call that uses it: do that after the call");
    }

private:
    session<Shape, Kv>& past_;
    workspace<Shape, Kv>& w_;
};

template <sambay_shape Shape, class Kv>
[[nodiscard]] status check_call(const model<Shape>& m, const session<Shape, Kv>& past, const workspace<Shape, Kv>& w,
                                std::span<const std::int32_t> tokens) {
    if (w.busy()) return used_by_its_own_callback("workspace");
    if (past.busy()) return used_by_its_own_callback("session");
    if (!past.whole()) return left_in_the_middle(past.position());
    if (tokens.empty()) return error::format(errc::invalid_argument, "no tokens: want at least one");
    if (tokens.size() > past.context() - past.position())
        return error::format(errc::context_full, "the session has room for %zu tokens and has read %zu: %zu more do not fit", past.context(),
                             past.position(), tokens.size());
    for (const std::int32_t token : tokens) {
        if (token < 0 || static_cast<std::size_t>(token) >= m.shape().vocab())
            return error::format(errc::unknown_token, "token %d: want 0 to %zu", static_cast<int>(token), m.shape().vocab() - 1);
    }
    return {};
}

}  // namespace detail

/// Asked between chunks of a prompt; returns false to stop. `read` of `total` tokens are done.
struct always_continue {
    bool operator()(std::size_t /*read*/, std::size_t /*total*/) const { return true; }
};

/// Reads one token and returns the logits of the next [vocab], finite numbers; they stay valid until the workspace is used again.
/// Errors: context_full, unknown_token, in_use (called from a callback of a call with this session or workspace), interrupted (see
/// session::whole); the session is then as before. not_finite (damaged weights): the session has read the token, and is of no use before it
/// is reset. What the executor throws passes through, and leaves the session interrupted.
template <sambay_shape Shape, class Kv>
result<std::span<const float>> step(const model<Shape>& m, session<Shape, Kv>& past, workspace<Shape, Kv>& w, std::int32_t token) {
    const std::span<const std::int32_t> tokens(&token, 1);
    if (const status ok = detail::check_call(m, past, w, tokens); !ok) return ok.error();
    const detail::use_of in_use(past, w);
    const rows_view<float> x = detail::run_layers(m, past, w, tokens, 1, detail::observe_nothing{});
    const status finite = detail::finite_logits(m, w, x, w.logits, past.position() + 1);
    past.end_pass(1);
    if (const status ok = in_use.refusal(); !ok) return ok.error();
    if (!finite) return finite.error();
    return std::span<const float>(w.logits.data, m.shape().vocab());
}

/// Reads a prompt in chunks of the workspace's size and returns the logits after its last token [vocab]. Equal, but for rounding,
/// to calling `step` for each token, at any chunk size.
/// Errors: invalid_argument (no tokens), context_full, unknown_token, in_use, interrupted: the session is then as before; cancelled (`go_on`
/// returned false): the session has read what its position() says, as where `go_on` throws; not_finite, as `step`, after the whole prompt.
/// `go_on` may read the session and copy it into another one; it must not use the workspace, nor change the session.
template <sambay_shape Shape, class Kv, class Continue = always_continue>
result<std::span<const float>> prefill(const model<Shape>& m, session<Shape, Kv>& past, workspace<Shape, Kv>& w,
                                       std::span<const std::int32_t> tokens, Continue&& go_on = {}) {
    if (const status ok = detail::check_call(m, past, w, tokens); !ok) return ok.error();
    const detail::use_of in_use(past, w);
    for (std::size_t begin = 0; begin < tokens.size();) {
        const std::size_t count = (std::min)(w.chunk(), tokens.size() - begin);
        const bool last = begin + count == tokens.size();
        const rows_view<float> x = detail::run_layers(m, past, w, tokens.subspan(begin, count), last ? 1 : 0, detail::observe_nothing{});
        const status finite = last ? detail::finite_logits(m, w, x, w.logits, past.position() + count) : status{};
        past.end_pass(count);
        begin += count;
        if (!finite) return finite.error();
        const bool more = go_on(begin, tokens.size());
        if (const status ok = in_use.refusal(); !ok) return ok.error();
        if (!more && !last)
            return error::format(errc::cancelled, "stopped by the caller after %zu of %zu prompt tokens", begin, tokens.size());
    }
    return std::span<const float>(w.logits.data, m.shape().vocab());
}

/// Reads tokens and computes the logits after every one of them, for evaluation: all layers run for all tokens.
/// Shape: out [tokens.size(), vocab]. `observe(first_token, layer, rows)` may look at the residual stream after each layer.
/// Errors: as `prefill` (not_finite after a chunk), and invalid_argument where `out` has too few rows.
template <sambay_shape Shape, class Kv, class Observe>
status logits_all(const model<Shape>& m, session<Shape, Kv>& past, workspace<Shape, Kv>& w, std::span<const std::int32_t> tokens,
                  rows_view<float> out, Observe&& observe) {
    if (const status ok = detail::check_call(m, past, w, tokens); !ok) return ok;
    if (out.count < tokens.size() || out.stride < m.shape().vocab())
        return error::format(errc::invalid_argument, "room for logits: want %zu rows of %zu, have %zu of %zu", tokens.size(), m.shape().vocab(),
                             out.count, out.stride);
    const detail::use_of in_use(past, w);
    for (std::size_t begin = 0; begin < tokens.size();) {
        const std::size_t count = (std::min)(w.chunk(), tokens.size() - begin);
        const rows_view<float> x =
            detail::run_layers(m, past, w, tokens.subspan(begin, count), count,
                               [&](std::size_t layer, rows_view<const float> rows) { observe(begin, layer, rows); });
        const status finite = detail::finite_logits(m, w, x, rows_view<float>{out[begin], count, out.stride}, past.position() + count);
        past.end_pass(count);
        if (const status ok = in_use.refusal(); !ok) return ok;
        if (!finite) return finite;
        begin += count;
    }
    return {};
}

template <sambay_shape Shape, class Kv>
status logits_all(const model<Shape>& m, session<Shape, Kv>& past, workspace<Shape, Kv>& w, std::span<const std::int32_t> tokens,
                  rows_view<float> out) {
    return logits_all(m, past, w, tokens, out, [](std::size_t, std::size_t, rows_view<const float>) {});
}

PHI4FLASH_END
