// Attention of a prompt's tokens. Queries lie side by side, a vector of them meets one number of a key at a time, and so scores,
// maxima and sums of many queries are vectors; values are added to outputs as in a product of matrices. Nothing is summed across lanes.

PHI4FLASH_TARGET_BEGIN

/// Keys a tile, at most: with this many, K and V of two heads of 64 are 24 KiB as f32. A multiple of the rows of any tile of registers.
inline constexpr std::size_t prompt_keys = 24;
inline constexpr std::size_t prompt_tile_floats = 3072;
/// Queries of a key head that share a tile, at most.
inline constexpr std::size_t prompt_rows = 32;
inline constexpr std::size_t prompt_row_floats = 4096;

/// Queries of one group, those of each key head in rows of their own: (token, query of the key head), in this order.
struct prompt_block {
    std::size_t rows;                                               ///< of each key head
    std::size_t padded;                                             ///< the same, in whole vectors
    alignas(64) float queries[prompt_row_floats];                   ///< [k_per_group, d_head, padded], times the scale
    alignas(64) float values[max_k_per_group * prompt_row_floats];  ///< [k_per_group, padded, columns]: outputs times `sum`
    alignas(64) float scores[prompt_keys * prompt_rows];            ///< [keys, padded], of one key head
    alignas(64) float k[prompt_tile_floats];                        ///< [keys, columns]
    alignas(64) float v[prompt_tile_floats];                        ///< [keys, columns]
    alignas(64) float maximum[max_k_per_group][prompt_rows];
    alignas(64) float sum[max_k_per_group][prompt_rows];
    alignas(64) float slope[max_k_per_group][prompt_rows];
    alignas(64) float keep[prompt_rows];                            ///< by which what a row has so far is multiplied
    alignas(64) float added[prompt_rows];                           ///< sum of a tile's weights
    alignas(64) float distance[prompt_rows];                        ///< from the tile's first key
    std::size_t position[prompt_rows];
    std::size_t first_visible[prompt_rows];
};

/// Numbers of a row of a widened tile: those of a group in whole vectors.
PHI4FLASH_VECTOR_INLINE std::size_t prompt_columns(const attention_args& args) {
    return (args.k_per_group * args.d_head + lanes() - 1) / lanes() * lanes();
}
/// Rows for which there is room: whole vectors.
PHI4FLASH_VECTOR_INLINE std::size_t prompt_room(const attention_args& args) {
    const std::size_t fit = prompt_row_floats / prompt_columns(args);
    return (fit < prompt_rows ? fit : prompt_rows) / lanes() * lanes();
}

/// Whether the tokens of a call are many enough to fill a vector, and the heads not too wide for the buffers.
PHI4FLASH_VECTOR_INLINE bool takes_prompt(const attention_args& args) {
    return args.tokens > 1 && args.tokens * args.queries_per_key >= lanes() && prompt_room(args) != 0 &&
           4 * prompt_columns(args) <= prompt_tile_floats;
}

/// Where row `row` of the tokens from `token_begin` on is.
PHI4FLASH_VECTOR_INLINE void locate(const attention_args& args, std::size_t group, std::size_t token_begin, std::size_t row, std::size_t s,
                                    std::size_t& token, std::size_t& head) {
    token = token_begin + row / args.queries_per_key;
    head = (group * args.queries_per_key + row % args.queries_per_key) * args.k_per_group + s;
}

/// The rows from row `first` on. Those that only fill the last vector have the first one's place, and queries of 0.
PHI4FLASH_VECTOR_INLINE void begin_block(const attention_args& args, std::size_t group, std::size_t token_begin, std::size_t first,
                                         prompt_block& block) {
    for (std::size_t i = 0; i < block.padded; ++i) {
        const bool real = i < block.rows;
        std::size_t token = 0;
        std::size_t head = 0;
        locate(args, group, token_begin, first + (real ? i : 0), 0, token, head);
        block.position[i] = args.first_position + token;
        block.first_visible[i] = first_visible_of(args, block.position[i]);
        for (std::size_t s = 0; s < args.k_per_group; ++s, ++head) {
            const float* q = args.q + token * args.q_stride + head * args.d_head;
            float* to = block.queries + s * args.d_head * block.padded + i;
            for (std::size_t d = 0; d < args.d_head; ++d) to[d * block.padded] = real ? q[d] * args.scale : 0.0f;
            block.maximum[s][i] = lowest_score;
            block.sum[s][i] = 0.0f;
            block.slope[s][i] = real && args.slopes != nullptr ? args.slopes[head] : 0.0f;
        }
    }
    std::memset(block.values, 0, args.k_per_group * block.padded * prompt_columns(args) * sizeof(float));
}

/// Outputs leave the block.
PHI4FLASH_VECTOR_INLINE void finish_block(const attention_args& args, std::size_t group, std::size_t token_begin, std::size_t first,
                                          const prompt_block& block) {
    const std::size_t lane_count = lanes();
    const std::size_t columns = prompt_columns(args);
    const std::size_t width = args.k_per_group * args.d_head;
    for (std::size_t i = 0; i < block.rows; ++i) {
        for (std::size_t s = 0; s < args.k_per_group; ++s) {
            std::size_t token = 0;
            std::size_t head = 0;
            locate(args, group, token_begin, first + i, s, token, head);
            const float* from = block.values + (s * block.padded + i) * columns;
            float* out = args.out + token * args.out_stride + head * width;
            const f32_vector inverse = set(1.0f / block.sum[s][i]);  // a token sees itself, so the sum is at least 1
            std::size_t c = 0;
            for (; c + lane_count <= width; c += lane_count) store(mul(load(from + c), inverse), out + c);
            if (c < width) store_first(mul(load(from + c), inverse), out + c, width - c);
        }
    }
}

/// Rows of keys or values as f32, `columns` apart; codes times their scales, which is exact.
template <class Element>
PHI4FLASH_VECTOR_INLINE void widen_rows(const attention_args& args, const Element* PHI4FLASH_RESTRICT from, const bf16* scales,
                                        std::size_t scale_stride, std::size_t count, std::size_t columns, float* PHI4FLASH_RESTRICT to) {
    const std::size_t lane_count = lanes();
    const std::size_t width = args.k_per_group * args.d_head;
    for (std::size_t j = 0; j < count; ++j, from += width, to += columns) {
        std::size_t c = 0;
        for (; c + lane_count <= width; c += lane_count) store(load(from + c), to + c);
        if (c < width) store(load_first(from + c, width - c), to + c);
        if (scales == nullptr) continue;
        for (std::size_t s = 0; s < args.k_per_group; ++s) {
            const float scale = to_f32(scales[s * scale_stride + j]);
            for (std::size_t d = 0; d < args.d_head; ++d) to[s * args.d_head + d] *= scale;
        }
    }
}

/// Scores go to [keys, padded].
struct put_scores {
    float* scores;
    std::size_t padded;
    PHI4FLASH_VECTOR_INLINE void operator()(std::size_t key, std::size_t vector, f32_vector sum) const {
        store(sum, scores + key * padded + vector * lanes());
    }
};

/// Values join what a row has.
struct put_values {
    float* values;
    std::size_t columns;
    const float* keep;
    PHI4FLASH_VECTOR_INLINE void operator()(std::size_t row, std::size_t vector, f32_vector sum) const {
        float* to = values + row * columns + vector * lanes();
        store(mul_add(set(keep[row]), load(to), sum), to);
    }
};

/// What a row does not see of the tile's `count` keys at `position` becomes `x`.
PHI4FLASH_VECTOR_INLINE void fill_unseen(prompt_block& block, std::size_t position, std::size_t count, float x) {
    for (std::size_t i = 0; i < block.padded; ++i) {
        const key_range seen = visible_keys(block.position[i], block.first_visible[i], position, count);
        for (std::size_t j = 0; j < count; ++j) {
            if (j < seen.begin || j >= seen.end) block.scores[j * block.padded + i] = x;
        }
    }
}

/// Scores of key head s become weights: exp(score - slope * distance - the row's new maximum), exactly 0 for keys that a row does not see.
/// A row that sees none of the keys stays as it was, to the bit: the other rows of its block do not matter to it.
PHI4FLASH_VECTOR_INLINE void prompt_softmax(const attention_args& args, prompt_block& block, std::size_t s, std::size_t position,
                                            std::size_t count, bool partly_seen) {
    const std::size_t padded = block.padded;
    if (args.slopes != nullptr) {
        for (std::size_t i = 0; i < padded; ++i)
            block.distance[i] = static_cast<float>(static_cast<std::int64_t>(block.position[i]) - static_cast<std::int64_t>(position));
        for (std::size_t j = 0; j < count; ++j) {
            for (std::size_t i = 0; i < padded; i += lanes()) {
                const f32_vector distance = sub(load(block.distance + i), set(static_cast<float>(j)));
                float* score = block.scores + j * padded + i;
                store(neg_mul_add(load(block.slope[s] + i), distance, load(score)), score);
            }
        }
    }
    if (partly_seen) fill_unseen(block, position, count, lowest_score);
    for (std::size_t i = 0; i < padded; i += lanes()) {
        float* scores = block.scores + i;
        const f32_vector before = load(block.maximum[s] + i);
        f32_vector even = before;
        f32_vector odd = before;
        std::size_t j = 0;
        for (; j + 2 <= count; j += 2) {
            even = max_of(even, load(scores + j * padded));
            odd = max_of(odd, load(scores + (j + 1) * padded));
        }
        if (j < count) even = max_of(even, load(scores + j * padded));
        const f32_vector maximum = max_of(even, odd);
        f32_vector sum = zero();
        for (j = 0; j < count; ++j) {
            const f32_vector e = exp_of(sub(load(scores + j * padded), maximum));
            store(e, scores + j * padded);
            sum = add(sum, e);
        }
        const f32_vector keep = exp_of(sub(before, maximum));
        store(maximum, block.maximum[s] + i);
        store(keep, block.keep + i);
        store(sum, block.added + i);
    }
    if (partly_seen) {
        fill_unseen(block, position, count, 0.0f);
        for (std::size_t i = 0; i < padded; i += lanes()) {
            f32_vector sum = zero();
            for (std::size_t j = 0; j < count; ++j) sum = add(sum, load(block.scores + j * padded + i));
            store(sum, block.added + i);
        }
    }
    for (std::size_t i = 0; i < padded; i += lanes())
        store(mul_add(load(block.sum[s] + i), load(block.keep + i), load(block.added + i)), block.sum[s] + i);
}

/// Lets all rows of a block see `count` keys at `position`, which are in block.k and block.v.
inline void attend_keys(const attention_args& args, prompt_block& block, std::size_t position, std::size_t count, std::size_t columns) {
    const std::size_t lane_count = lanes();
    // Rows are in token order: the first sees the earliest keys, the last the latest.
    const bool partly_seen = block.position[0] < position + count - 1 || block.first_visible[block.rows - 1] > position;
    for (std::size_t s = 0; s < args.k_per_group; ++s) {
        const outer_factor keys{block.k + s * args.d_head, columns, 1};
        const float* queries = block.queries + s * args.d_head * block.padded;
        std::size_t i = 0;
        for (; i + 2 * lane_count <= block.padded; i += 2 * lane_count)
            outer_rows_times<true>(keys, count, queries + i, block.padded, args.d_head, put_scores{block.scores + i, block.padded});
        if (i < block.padded)
            outer_rows_times<false>(keys, count, queries + i, block.padded, args.d_head, put_scores{block.scores + i, block.padded});

        prompt_softmax(args, block, s, position, count, partly_seen);

        const outer_factor weights{block.scores, 1, block.padded};
        float* values = block.values + s * block.padded * columns;
        std::size_t c = 0;
        for (; c + 2 * lane_count <= columns; c += 2 * lane_count)
            outer_rows_times<true>(weights, block.rows, block.v + c, columns, count, put_values{values + c, columns, block.keep});
        if (c < columns) outer_rows_times<false>(weights, block.rows, block.v + c, columns, count, put_values{values + c, columns, block.keep});
    }
}

/// All rows of a block over one segment.
template <class Element>
inline void attend_keys_of(const attention_args& args, std::size_t group, prompt_block& block, const kv_segment& segment) {
    const key_range seen = visible_keys(block.position[block.rows - 1], block.first_visible[0], segment.first_position, segment.count);
    if (seen.begin >= seen.end) return;
    const std::size_t columns = prompt_columns(args);
    const std::size_t width = args.k_per_group * args.d_head;
    const auto* k = reinterpret_cast<const Element*>(segment.k) + group * segment.group_rows * width;
    const auto* v = reinterpret_cast<const Element*>(segment.v) + group * segment.group_rows * width;
    const std::size_t scale_row = group * args.k_per_group * segment.group_rows;
    // Tiles lie on a grid of the segment, whoever asks: a row must meet the same tiles however tokens are cut into blocks.
    const std::size_t fit = prompt_tile_floats / columns;
    const std::size_t step = fit < prompt_keys ? fit : prompt_keys;
    for (std::size_t j = seen.begin / step * step; j < seen.end; j += step) {
        const std::size_t count = seen.end - j < step ? seen.end - j : step;
        const std::size_t scale = scale_row + j;
        widen_rows(args, k + j * width, segment.k_scale == nullptr ? nullptr : segment.k_scale + scale, segment.group_rows, count, columns, block.k);
        widen_rows(args, v + j * width, segment.v_scale == nullptr ? nullptr : segment.v_scale + scale, segment.group_rows, count, columns, block.v);
        attend_keys(args, block, segment.first_position + j, count, columns);
    }
}

/// Tokens [token_begin, token_end) of one group, where takes_prompt(args).
template <class Element>
inline void attend_prompt(const attention_args& args, std::size_t group, std::size_t token_begin, std::size_t token_end,
                          const kv_segment* segments, std::size_t n_segments) {
    prompt_block block;
    const std::size_t room = prompt_room(args);
    const std::size_t total = (token_end - token_begin) * args.queries_per_key;
    for (std::size_t first = 0; first < total; first += room) {
        block.rows = total - first < room ? total - first : room;
        block.padded = (block.rows + lanes() - 1) / lanes() * lanes();
        begin_block(args, group, token_begin, first, block);
        for (std::size_t s = 0; s < n_segments; ++s) attend_keys_of<Element>(args, group, block, segments[s]);
        finish_block(args, group, token_begin, first, block);
    }
}

PHI4FLASH_TARGET_END
