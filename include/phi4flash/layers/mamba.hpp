#pragma once
/// The Mamba-1 mixer.   Source: arXiv:2312.00752.
///
/// [u | z] = in_proj(x);  u = silu(conv(u));  [dt | B | C] = x_proj(u);  dt = softplus(dt_proj(dt) + dt_bias);
/// h = exp(dt A) h + (dt u) B;  m = C h + D u;  y = out_proj(m * silu(z)).
#include <phi4flash/layers/linear.hpp>
#include <phi4flash/layers/norm.hpp>

#include <span>

PHI4FLASH_BEGIN

/// Floats of one layer's A (and of its SSM state): [ceil(d_inner / 16)][d_state][16], the tail zero.
[[nodiscard]] constexpr std::size_t blocked_size(std::size_t d_inner, std::size_t d_state) { return round_up(d_inner, channel_block) * d_state; }

/// Where channel c, state n lies in such an array.
[[nodiscard]] constexpr std::size_t blocked_index(std::size_t c, std::size_t n, std::size_t d_state) {
    return (c / channel_block * d_state + n) * channel_block + c % channel_block;
}

/// Weights. Shapes: in_proj [2 d_inner, d_model], x_proj [dt_rank + 2 d_state, d_inner], dt_proj [d_inner, dt_rank] with bias
/// dt_bias, out_proj [d_model, d_inner].
struct mamba {
    linear in_proj;
    const float* conv_weight = nullptr;  ///< [d_conv, d_inner]: transposed, tap d_conv-1 is the current token
    const float* conv_bias = nullptr;    ///< [d_inner]
    linear x_proj;
    linear dt_proj;
    const float* a_log2e = nullptr;      ///< -exp(A_log) log2(e), blocked
    const float* d = nullptr;            ///< [d_inner]
    linear out_proj;
    std::size_t d_conv = 0;
    std::size_t d_state = 0;

    /// What a layer remembers of the tokens before: zero at the start of a text.
    struct state {
        float* convolution = nullptr;  ///< [d_conv - 1, d_inner]
        float* ssm = nullptr;          ///< blocked
        state() = default;
        constexpr state(arena& memory, std::size_t d_inner, std::size_t d_state, std::size_t d_conv)
            : convolution(memory.take<float>((d_conv - 1) * d_inner)), ssm(memory.take<float>(blocked_size(d_inner, d_state))) {}
    };

    /// Rows that one text reads, and its state: before the first of them, and where those after the last `kept` go. Two states that are
    /// kept lie `stride` floats apart, convolution and SSM alike. Where one is kept, it may be `before`.
    struct text {
        state before;
        state after;
        std::size_t stride = 0;
        std::size_t kept = 1;
        std::size_t row = 0;
        std::size_t count = 0;
    };

    /// What a call computes with.
    struct workspace {
        rows_view<float> uz;      ///< [tokens, 2 d_inner]
        rows_view<float> u;       ///< [tokens, d_inner]; after a call: m, the scan output
        rows_view<float> dt_b_c;  ///< [tokens, dt_rank + 2 d_state]
        rows_view<float> dt;      ///< [tokens, d_inner]
        workspace() = default;
        constexpr workspace(arena& memory, std::size_t tokens, std::size_t d_inner, std::size_t d_state, std::size_t dt_rank)
            : uz(take_rows(memory, tokens, 2 * d_inner)),
              u{memory.take<float>(std::uint64_t{tokens} * d_inner), tokens, d_inner},
              dt_b_c(take_rows(memory, tokens, dt_rank + 2 * d_state)),
              dt{memory.take<float>(std::uint64_t{tokens} * d_inner), tokens, d_inner} {}
    };

    /// Advances the state of one text by T tokens.   Shape: x, y [T, d_model]; y may be x.
    /// Returns m [T, d_inner], before the gate and with the D term: what a gated memory unit reads. Valid until the next call
    /// with this workspace.
    rows_view<const float> operator()(const compute& with, const workspace& scratch, const state& past, rows_view<const float> x,
                                      rows_view<float> y) const {
        const text one[] = {{past, past, 0, 1, 0, x.count}};
        return (*this)(with, scratch, std::span<const text>(one), x, y);
    }

    /// The same for several texts at once: `texts[i]`, i < texts.size(), share out the rows of x.
    template <class Texts>
    rows_view<const float> operator()(const compute& with, const workspace& scratch, const Texts& texts, rows_view<const float> x,
                                      rows_view<float> y) const {
        const std::size_t tokens = x.count;
        const std::size_t d_inner = out_proj.weight.cols;
        const std::size_t dt_rank = dt_proj.weight.cols;
        const rows_view<float> uz = scratch.uz.first(tokens);
        const rows_view<float> u = scratch.u.first(tokens);
        const rows_view<float> dt_b_c = scratch.dt_b_c.first(tokens);
        const rows_view<float> dt = scratch.dt.first(tokens);

        in_proj(with, x, uz);
        over_blocks(with, texts, tokens * d_conv * 4, [&](const text& t, std::size_t begin, std::size_t end) {
            const convolution_args conv{uz[t.row], uz.stride, conv_weight, conv_bias, t.before.convolution,
                                        {t.after.convolution, t.stride, t.kept}, u[t.row], u.stride, t.count, d_inner, d_conv};
            const std::size_t last = end * channel_block < d_inner ? end * channel_block : d_inner;
            with.kernels->convolution(conv, begin * channel_block, last);
        });

        x_proj(with, u, dt_b_c);
        dt_proj(with, dt_b_c, dt);
        with.parallel(tokens, 8 * d_inner, [&](std::size_t begin, std::size_t end) {
            for (std::size_t t = begin; t < end; ++t) with.kernels->softplus(dt[t], d_inner, dt[t]);
        });

        over_blocks(with, texts, tokens * d_state * 4, [&](const text& t, std::size_t begin, std::size_t end) {
            const float* b = dt_b_c[t.row] + dt_rank;
            const scan_args scan{u[t.row], dt[t.row], b, b + d_state, dt_b_c.stride, a_log2e, d, t.before.ssm,
                                 {t.after.ssm, t.stride, t.kept}, u[t.row], t.count, d_inner, d_state};
            with.kernels->scan(scan, begin, end);
        });

        const rows_view<float> z = uz.column(d_inner);
        gate_rows(with, z, u, z, d_inner);
        out_proj(with, z, y);
        return u;
    }

private:
    /// `body(text, first, last)` over all blocks of channels of all texts; `cost` of a channel in all texts together.
    template <class Texts, class Body>
    void over_blocks(const compute& with, const Texts& texts, std::size_t cost, Body&& body) const {
        const std::size_t n = texts.size();
        const std::size_t blocks = round_up(out_proj.weight.cols, channel_block) / channel_block;
        with.parallel(n * blocks, channel_block * cost / n, [&](std::size_t begin, std::size_t end) {
            while (begin < end) {
                const std::size_t first = begin % blocks;
                const std::size_t last = blocks - first < end - begin ? blocks : first + (end - begin);
                body(texts[begin / blocks], first, last);
                begin += last - first;
            }
        });
    }
};

/// How the states of all Mamba layers of a model lie beside each other, so that they can be kept and copied as one. @since 0.2
class mamba_states {
public:
    mamba_states() = default;
    constexpr mamba_states(std::size_t layers, std::size_t d_inner, std::size_t d_state, std::size_t d_conv)
        : layers_(layers), d_inner_(d_inner), d_state_(d_state), history_(d_conv - 1),
          convolution_(round_up(history_ * d_inner, channel_block)), ssm_(blocked_size(d_inner, d_state)) {}

    [[nodiscard]] constexpr std::size_t floats() const { return layers_ * (convolution_ + ssm_); }
    [[nodiscard]] mamba::state at(float* all, std::size_t layer) const {
        mamba::state s;
        s.convolution = all + layer * (convolution_ + ssm_);
        s.ssm = s.convolution + convolution_;
        return s;
    }

    /// Numbers that mean something: without what only fills up blocks of channels.
    [[nodiscard]] constexpr std::size_t numbers() const { return layers_ * d_inner_ * (history_ + d_state_); }
    /// Calls `visit(std::span<float>)` for all of those, in order, until it returns false. Returns whether it never did.
    template <class Visit>
    bool each_part(float* all, Visit&& visit) const {
        const std::size_t rest = d_inner_ % channel_block;
        const std::size_t whole = (d_inner_ - rest) * d_state_;
        for (std::size_t layer = 0; layer < layers_; ++layer) {
            const mamba::state s = at(all, layer);
            if (!visit(std::span(s.convolution, history_ * d_inner_)) || !visit(std::span(s.ssm, whole))) return false;
            for (std::size_t n = 0; rest != 0 && n < d_state_; ++n)
                if (!visit(std::span(s.ssm + whole + n * channel_block, rest))) return false;
        }
        return true;
    }

private:
    std::size_t layers_ = 0;
    std::size_t d_inner_ = 0;
    std::size_t d_state_ = 0;
    std::size_t history_ = 0;
    std::size_t convolution_ = 0;
    std::size_t ssm_ = 0;
};

PHI4FLASH_END
