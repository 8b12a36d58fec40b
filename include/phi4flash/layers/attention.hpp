#pragma once
/// Attention, composed of policies: how heads combine (plain or differential), what a token sees (a window, everything, or
/// another layer's keys) and how positions enter (none, rotary, ALiBi).
#include <phi4flash/layers/kv_cache.hpp>
#include <phi4flash/layers/linear.hpp>
#include <phi4flash/position/none.hpp>

#include <cmath>
#include <span>

PHI4FLASH_BEGIN

/// Heads act alone: o = softmax(q k^T / sqrt(d_head)) v.   Source: arXiv:1706.03762.
struct plain_heads {
    static constexpr std::size_t k_per_group = 1;

    /// Shapes: attended [T, n_heads, d_head], y [T, q_width]. The two may be the same rows.
    void combine(const compute&, const head_layout& heads, rows_view<const float> attended, rows_view<float> y) const {
        for (std::size_t t = 0; t < y.count; ++t) std::memmove(y[t], attended[t], heads.q_width() * sizeof(float));
    }
};

/// Heads pair by parity: o = norm(A_even v - lambda A_odd v) (1 - lambda0), both over the pair's values of width 2 d_head.
/// Source: arXiv:2410.05258.
struct differential_heads {
    static constexpr std::size_t k_per_group = 2;

    float lambda = 0.0f;
    const float* norm_weight = nullptr;  ///< [2 d_head]: the RMS norm's weight times (1 - lambda0)
    float eps = 1e-5f;

    /// lambda0 of a layer, counted from 0 over the whole model.
    [[nodiscard]] static double initial_lambda(std::size_t layer) { return 0.8 - 0.6 * std::exp(-0.3 * static_cast<double>(layer)); }

    /// Shapes: attended [T, n_heads, 2 d_head], y [T, q_width]; must not overlap.
    void combine(const compute& with, const head_layout& heads, rows_view<const float> attended, rows_view<float> y) const {
        const std::size_t width = 2 * heads.d_head;
        with.parallel(y.count, 4 * heads.q_width(), [&](std::size_t begin, std::size_t end) {
            for (std::size_t t = begin; t < end; ++t) {
                for (std::size_t pair = 0; pair < heads.n_heads / 2; ++pair) {
                    const float* even = attended[t] + 2 * pair * width;
                    with.kernels->difference_norm(even, even + width, lambda, norm_weight, eps, width, y[t] + pair * width);
                }
            }
        });
    }
};

/// Scratch of attention layers for up to `tokens` rows.
struct attention_workspace {
    rows_view<float> qkv;       ///< [tokens, q_width + 2 kv_width]
    rows_view<float> attended;  ///< [tokens, n_heads, group_width]

    attention_workspace() = default;
    constexpr attention_workspace(arena& memory, const head_layout& heads, std::size_t tokens)
        : qkv(take_rows(memory, tokens, heads.q_width() + 2 * heads.kv_width())),
          attended(take_rows(memory, tokens, heads.n_heads * heads.group_width())) {}
};

/// Rows that one text reads, and what it remembers: `count` rows from `row` on, the first of them at position `first`. @since 0.2
template <class Cache>
struct attention_text {
    const Cache* past = nullptr;
    std::size_t first = 0;
    std::size_t row = 0;
    std::size_t count = 0;
};

/// One attention layer. `qkv` maps to queries, then keys, then values; a cross layer's maps to queries only.
/// Shapes: qkv [q_width + 2 kv_width or q_width, d_model], out_proj [d_model, q_width].
template <class Heads, class Position = no_position>
struct attention {
    linear qkv;
    linear out_proj;
    head_layout layout;
    [[no_unique_address]] Heads heads;
    [[no_unique_address]] Position position;

    /// A token sees itself and the window - 1 tokens before it. Several texts share out the rows: `texts[i]`, i < texts.size(), is an
    /// attention_text of a kv_ring. Keys and values go to `staging`, row by row, for kv_ring::commit; no text changes.
    /// Shape: x, y [T, d_model], staging at least T rows; y may be x.
    template <class Kv, class Texts>
    void window(const compute& with, const attention_workspace& scratch, const kv_block<Kv>& staging, const Texts& texts,
                rows_view<const float> x, rows_view<float> y) const {
        const rows_view<float> q = scratch.qkv.first(x.count);
        const rows_view<float> k = q.column(layout.q_width());
        qkv(with, x, q);
        for (std::size_t i = 0; i < texts.size(); ++i) {
            const auto t = texts[i];
            position.apply(with, q.rows(t.row, t.count), layout.n_heads, layout.d_head, t.first);
            position.apply(with, k.rows(t.row, t.count), layout.n_kv_heads, layout.d_head, t.first);
        }
        staging.write(with, layout, k, k.column(layout.kv_width()), 0);
        const std::size_t sees = texts.size() == 0 ? 0 : texts[0].past->window;
        attend<Kv>(with, scratch, texts, sees, [&](const auto& t, kv_segment* segments) {
            const std::size_t n = t.past->past(layout, t.first, segments);
            segments[n] = staging.segment(layout, t.row, t.first, t.count);
            return n + 1;
        });
        combine(with, scratch, q, y);
    }

    /// The same for one text, which advances by T tokens. `first` is the position of row 0.
    template <class Kv>
    void window(const compute& with, const attention_workspace& scratch, const kv_block<Kv>& staging, const kv_ring<Kv>& past, std::size_t first,
                rows_view<const float> x, rows_view<float> y) const {
        const attention_text<kv_ring<Kv>> one[] = {{&past, first, 0, x.count}};
        window(with, scratch, staging, std::span<const attention_text<kv_ring<Kv>>>(one), x, y);
        past.commit(layout, staging, 0, first, x.count);
    }

    /// Computes keys and values only and stores them at their positions in the caches: all that a prompt's tokens need of the full
    /// layer but for the last of them. `texts[i]` is an attention_text of a kv_block.   Shape: x [T, d_model].
    template <class Texts>
    void store_keys(const compute& with, const attention_workspace& scratch, const Texts& texts, rows_view<const float> x) const {
        const rows_view<float> k = scratch.qkv.first(x.count).column(layout.q_width());
        qkv.outputs(layout.q_width(), 2 * layout.kv_width())(with, x, k);
        for (std::size_t i = 0; i < texts.size(); ++i) {
            const auto t = texts[i];
            const rows_view<float> own = k.rows(t.row, t.count);
            position.apply(with, own, layout.n_kv_heads, layout.d_head, t.first);
            t.past->write(with, layout, own, own.column(layout.kv_width()), t.first);
        }
    }

    /// The same for one text.
    template <class Kv>
    void store_keys(const compute& with, const attention_workspace& scratch, const kv_block<Kv>& cache, std::size_t first,
                    rows_view<const float> x) const {
        const attention_text<kv_block<Kv>> one[] = {{&cache, first, 0, x.count}};
        store_keys(with, scratch, std::span<const attention_text<kv_block<Kv>>>(one), x);
    }

    /// Queries over keys that are already in the caches, this layer's or another's: a token sees itself and all before it. `texts[i]` is
    /// an attention_text of a kv_block<Kv>.   Shape: x, y [T, d_model]; y may be x.
    template <class Kv, class Texts>
    void over(const compute& with, const attention_workspace& scratch, const Texts& texts, rows_view<const float> x, rows_view<float> y) const {
        const rows_view<float> q = scratch.qkv.first(x.count);
        qkv.outputs(0, layout.q_width())(with, x, q);
        for (std::size_t i = 0; i < texts.size(); ++i) {
            const auto t = texts[i];
            position.apply(with, q.rows(t.row, t.count), layout.n_heads, layout.d_head, t.first);
        }
        attend<Kv>(with, scratch, texts, static_cast<std::size_t>(-1), [&](const auto& t, kv_segment* segments) {
            segments[0] = t.past->segment(layout, 0, 0, t.first + t.count);
            return std::size_t{1};
        });
        combine(with, scratch, q, y);
    }

    /// The same for one text. `first` is the position of row 0.
    template <class Kv>
    void over(const compute& with, const attention_workspace& scratch, const kv_block<Kv>& cache, std::size_t first, rows_view<const float> x,
              rows_view<float> y) const {
        const attention_text<kv_block<Kv>> one[] = {{&cache, first, 0, x.count}};
        over<Kv>(with, scratch, std::span<const attention_text<kv_block<Kv>>>(one), x, y);
    }

private:
    static constexpr std::size_t block = 16;  // tokens that share a tile of keys
    [[nodiscard]] static std::size_t blocks_of(std::size_t tokens) { return (tokens + block - 1) / block; }

    /// The rows of all texts, their queries in the scratch, in one piece of parallel work: many texts of one token each would be too little
    /// to share out one by one. `segments_of(text, segments)` says which keys a text sees, and returns how many segments they are.
    template <class Kv, class Texts, class SegmentsOf>
    void attend(const compute& with, const attention_workspace& scratch, const Texts& texts, std::size_t window_size,
                SegmentsOf&& segments_of) const {
        std::size_t items = 0;
        std::size_t cost = 0;  // of all
        for (std::size_t i = 0; i < texts.size(); ++i) {
            const auto t = texts[i];
            const std::size_t seen = t.first + t.count < window_size ? t.first + t.count : window_size;
            items += blocks_of(t.count) * layout.groups();
            cost += t.count * seen * layout.groups() * layout.group_width() * layout.queries_per_key();
        }
        if (items == 0) return;
        const auto kernel = with.kernels->attention[static_cast<std::size_t>(kv_format_of<Kv>)];
        with.parallel(items, cost / items, [&](std::size_t begin, std::size_t end) {
            std::size_t before = 0;  // items of the texts before
            for (std::size_t i = 0; begin < end; ++i) {
                const auto t = texts[i];
                const std::size_t blocks = blocks_of(t.count);
                const std::size_t behind = before + blocks * layout.groups();
                if (begin < behind) {
                    kv_segment segments[max_kv_segments];
                    const std::size_t n = segments_of(t, segments);
                    const attention_args args = args_of(scratch, t.row, t.count, t.first, window_size);
                    for (; begin < end && begin < behind; ++begin) {
                        const std::size_t token = (begin - before) % blocks * block;
                        const std::size_t token_end = token + block < t.count ? token + block : t.count;
                        kernel(args, (begin - before) / blocks, token, token_end, segments, n);
                    }
                }
                before = behind;
            }
        });
    }

    /// Rows [row, row + count) of the scratch, queries of one text.
    [[nodiscard]] attention_args args_of(const attention_workspace& scratch, std::size_t row, std::size_t count, std::size_t first,
                                         std::size_t window_size) const {
        const rows_view<float> q = scratch.qkv.rows(row, count);
        const rows_view<float> attended = scratch.attended.rows(row, count);
        attention_args args{};
        args.q = q.data;
        args.q_stride = q.stride;
        args.out = attended.data;
        args.out_stride = attended.stride;
        args.tokens = q.count;
        args.first_position = first;
        args.d_head = layout.d_head;
        args.k_per_group = layout.k_per_group;
        args.queries_per_key = layout.queries_per_key();
        args.window = window_size;
        args.scale = 1.0f / std::sqrt(static_cast<float>(layout.d_head));
        args.slopes = position.slopes();
        return args;
    }

    void combine(const compute& with, const attention_workspace& scratch, rows_view<float> q, rows_view<float> y) const {
        heads.combine(with, layout, scratch.attended.first(q.count), q);
        out_proj(with, q, y);
    }
};

PHI4FLASH_END
