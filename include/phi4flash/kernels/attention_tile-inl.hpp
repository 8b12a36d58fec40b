// One tile of keys and values against a few queries of a token: scores, softmax, values. The queries of a token see the same keys,
// so what is read and widened is used by all of them.
//
// Numbers of a head lie "arranged": pairs of vectors as load_pair gives them, which for bf16 are the even and the odd places; the end
// of a head that fills no pair lies as it was. Queries are put so once, outputs are put back once, and in between nothing is shuffled.

PHI4FLASH_TARGET_BEGIN

/// Keys a tile: scores of one query fit a few vectors, and a tile of K and V fits the first-level cache.
inline constexpr std::size_t tile_keys = 32;
/// Keys whose values are added up before outputs go back to the cache, where values come from memory: few, so that memory is read
/// nearly in order. On Zen 3 four cost a sixth more instructions and gain a fifth of the time; of codes there is less to wait for. With
/// AVX-512 (Emerald Rapids) more than eight gain 1 to 3 %.
template <class Element>
inline constexpr std::size_t value_keys = sizeof(Element) == 1 ? 16 : many_registers ? 8 : 4;
/// How far ahead of its use a line is asked for; 0: a tile's values while its keys are used, and the next keys while the values are, a
/// tenth faster on Emerald Rapids. The distance was chosen on Zen 3, where the other way has not been measured.
inline constexpr std::size_t prefetch_distance = many_registers ? 0 : 4096;
/// Queries of a token that share what is read.
inline constexpr std::size_t batch_rows = 4;
/// Below any score; exp of it is 0 next to a real one.
inline constexpr float lowest_score = -3.0e38f;
inline constexpr float count_up[max_lanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/// The first position that a token at `position` sees.
inline std::size_t first_visible_of(const attention_args& args, std::size_t position) {
    return position >= args.window ? position - args.window + 1 : 0;
}

/// Keys by their index; none where begin >= end.
struct key_range {
    std::size_t begin;
    std::size_t end;
};

/// Those of `count` keys from `position` on that tokens up to `latest` see, of which the earliest sees from `first_visible` on.
inline key_range visible_keys(std::size_t latest, std::size_t first_visible, std::size_t position, std::size_t count) {
    const std::size_t begin = first_visible > position ? first_visible - position : 0;
    const std::size_t end = latest < position ? 0 : latest - position + 1;
    return {begin, end < count ? end : count};
}

/// One query of a block: what it sees, and its running maximum and sum.
struct attention_row {
    const float* q;              ///< arranged
    float* out;                  ///< arranged
    std::size_t key_head;        ///< within the group
    std::size_t position;
    std::size_t first_visible;   ///< position
    float slope;
    float maximum;
    float sum;
};

/// Keys and values [keys, k_per_group * d_head] of one group, key 0 at `position`; `whole` numbers of each head are arranged in pairs.
/// Codes come with scales [k_per_group, keys], rows scale_stride apart.
template <class Element>
struct attention_tile {
    const Element* k;
    const Element* v;
    const bf16* k_scale;  ///< null: none
    const bf16* v_scale;
    std::size_t scale_stride;
    std::size_t position;
    std::size_t d_head;
    std::size_t width;
    std::size_t whole;
    bool streamed;  ///< comes from memory and is used once
};

/// Asks for the bytes that lie prefetch_distance after these. They may lie behind the end: nothing is read.
PHI4FLASH_VECTOR_INLINE void prefetch_after(const void* from, std::size_t bytes) {
    const auto at = reinterpret_cast<std::uintptr_t>(from) + prefetch_distance;
    for (std::size_t b = 0; b < bytes; b += 64) prefetch(reinterpret_cast<const void*>(at + b));
}

/// 2 * lanes() numbers, arranged.
PHI4FLASH_VECTOR_INLINE void load_pair(const float* p, f32_vector& a, f32_vector& b) {
    a = load(p);
    b = load(p + lanes());
}
PHI4FLASH_VECTOR_INLINE void load_pair(const kv_int8* p, f32_vector& a, f32_vector& b) {
    a = load(p);
    b = load(p + lanes());
}
PHI4FLASH_VECTOR_INLINE void load_pair(const bf16* p, f32_vector& a, f32_vector& b) { load_even_odd(p, a, b); }

/// out[j] = x[j] * scale[j] in the vectors of [begin, end); no scale after `end` is read.
PHI4FLASH_VECTOR_INLINE void scale_keys(const float* x, const bf16* scale, std::size_t begin, std::size_t end, float* out) {
    const std::size_t lane_count = lanes();
    for (std::size_t j = begin / lane_count * lane_count; j < end; j += lane_count) {
        const f32_vector s = j + lane_count <= end ? load(scale + j) : load_first(scale + j, end - j);
        store(mul(load(x + j), s), out + j);
    }
}

/// Two queries of one key head, or one and itself.
template <class Element>
struct query_pair {
    const Element* k;  ///< the head's part of key 0
    const float* q0;
    const float* q1;
    float* scores0;
    float* scores1;
};

/// scores[j] = q . k[j] for the queries of a pair and the four keys from j on, of which those before `end` count: up to three places
/// after it are written too. Every score is added in the same order, wherever its key lies.
template <bool Ragged, class Element>
PHI4FLASH_VECTOR_INLINE void four_scores(const query_pair<Element>& pair, std::size_t width, std::size_t whole, std::size_t d_head, std::size_t j,
                                         std::size_t end) {
    const std::size_t lane_count = lanes();
    const Element* PHI4FLASH_RESTRICT k0 = pair.k + j * width;
    const Element* PHI4FLASH_RESTRICT k1 = k0 + width;
    const Element* PHI4FLASH_RESTRICT k2 = k1 + width;
    const Element* PHI4FLASH_RESTRICT k3 = k2 + width;
    if (end - j < 4) {  // past the end, the first key stands in
        k1 = end - j > 1 ? k1 : k0;
        k2 = end - j > 2 ? k2 : k0;
        k3 = k0;
    }
    f32_vector s00 = zero(), s01 = zero(), s02 = zero(), s03 = zero();
    f32_vector s10 = zero(), s11 = zero(), s12 = zero(), s13 = zero();
    f32_vector a;
    f32_vector b;
    for (std::size_t i = 0; i < whole; i += 2 * lane_count) {
        const f32_vector x0 = load(pair.q0 + i);
        const f32_vector y0 = load(pair.q0 + i + lane_count);
        const f32_vector x1 = load(pair.q1 + i);
        const f32_vector y1 = load(pair.q1 + i + lane_count);
        load_pair(k0 + i, a, b);
        s00 = mul_add(y0, b, mul_add(x0, a, s00));
        s10 = mul_add(y1, b, mul_add(x1, a, s10));
        load_pair(k1 + i, a, b);
        s01 = mul_add(y0, b, mul_add(x0, a, s01));
        s11 = mul_add(y1, b, mul_add(x1, a, s11));
        load_pair(k2 + i, a, b);
        s02 = mul_add(y0, b, mul_add(x0, a, s02));
        s12 = mul_add(y1, b, mul_add(x1, a, s12));
        load_pair(k3 + i, a, b);
        s03 = mul_add(y0, b, mul_add(x0, a, s03));
        s13 = mul_add(y1, b, mul_add(x1, a, s13));
    }
    for (std::size_t i = whole; Ragged && i < d_head; i += lane_count) {
        const std::size_t n = d_head - i < lane_count ? d_head - i : lane_count;
        const f32_vector x0 = load_first(pair.q0 + i, n);
        const f32_vector x1 = load_first(pair.q1 + i, n);
        a = load_first(k0 + i, n);
        s00 = mul_add(x0, a, s00), s10 = mul_add(x1, a, s10);
        a = load_first(k1 + i, n);
        s01 = mul_add(x0, a, s01), s11 = mul_add(x1, a, s11);
        a = load_first(k2 + i, n);
        s02 = mul_add(x0, a, s02), s12 = mul_add(x1, a, s12);
        a = load_first(k3 + i, n);
        s03 = mul_add(x0, a, s03), s13 = mul_add(x1, a, s13);
    }
    store_sums(s00, s01, s02, s03, pair.scores0 + j);
    store_sums(s10, s11, s12, s13, pair.scores1 + j);
}

/// Scores of all pairs, four keys at a time, so that keys are read in order.
template <bool Ragged, class Element>
PHI4FLASH_VECTOR_INLINE void all_scores(const attention_tile<Element>& tile, const query_pair<Element>* pairs, std::size_t n_pairs, std::size_t begin,
                                        std::size_t end) {
    const std::size_t width = tile.width;
    const std::size_t whole = tile.whole;
    const std::size_t d_head = tile.d_head;
    const Element* const ahead = prefetch_distance == 0 ? tile.v : tile.k;
    for (std::size_t j = begin; j < end; j += 4) {
        if (tile.streamed) prefetch_after(ahead + j * width, 4 * width * sizeof(Element));
        for (std::size_t p = 0; p < n_pairs; ++p) four_scores<Ragged>(pairs[p], width, whole, d_head, j, end);
    }
}

/// Turns products into weights: scores[j] = exp(scale * scores[j] - slope * distance - new maximum) for j in [begin, end), 0 in the rest
/// of the vectors they lie in. Returns by what everything before must be multiplied.
PHI4FLASH_VECTOR_INLINE float tile_softmax(attention_row& row, float scale, std::size_t tile_position, std::size_t begin, std::size_t end,
                                           float* PHI4FLASH_RESTRICT scores) {
    const std::size_t lane_count = lanes();
    const std::size_t first = begin / lane_count * lane_count;
    const std::size_t last = (end + lane_count - 1) / lane_count * lane_count;
    // Keys of these vectors that the query does not see: left out of the sum, not just small.
    const bool masked = first != begin || last != end;
    for (std::size_t j = first; j < last; j += lane_count) {
        f32_vector s = mul(set(scale), load(scores + j));
        if (row.slope != 0.0f) {
            const float ahead = static_cast<float>(row.position) - static_cast<float>(tile_position + j);
            s = neg_mul_add(set(row.slope), sub(set(ahead), load(count_up)), s);
        }
        store(s, scores + j);
    }
    if (masked) {
        for (std::size_t j = first; j < begin; ++j) scores[j] = lowest_score;
        for (std::size_t j = end; j < last; ++j) scores[j] = lowest_score;
    }
    f32_vector most = set(row.maximum);
    for (std::size_t j = first; j < last; j += lane_count) most = max_of(most, load(scores + j));
    const float highest = reduce_max(most);
    const f32_vector shift = set(highest);
    f32_vector sums = zero();
    for (std::size_t j = first; j < last; j += lane_count) {
        const f32_vector e = exp_of(sub(load(scores + j), shift));
        store(e, scores + j);
        sums = add(sums, e);
    }
    if (masked) {
        for (std::size_t j = first; j < begin; ++j) scores[j] = 0.0f;
        for (std::size_t j = end; j < last; ++j) scores[j] = 0.0f;
        sums = zero();
        for (std::size_t j = first; j < last; j += lane_count) sums = add(sums, load(scores + j));
    }
    float correction = 1.0f;
    if (highest != row.maximum) {
        float shrink[max_lanes];
        store(exp_of(set(row.maximum - highest)), shrink);
        correction = row.maximum == lowest_score ? 0.0f : shrink[0];
        row.maximum = highest;
    }
    row.sum = mul_add_one(row.sum, correction, reduce_sum(sums));
    return correction;
}

/// out_r[i] = keep_r * out_r[i] + sum_j p_r[j] v[j, i] for four rows, j in [begin, end) and the d_head columns at v. No `keep`: all 1.
/// Keys: end - begin where that is known when this is compiled, or 0.
template <std::size_t Keys, class Element>
PHI4FLASH_VECTOR_INLINE void four_values(const attention_tile<Element>& tile, const Element* PHI4FLASH_RESTRICT v, const Element* ahead, std::size_t begin,
                                         std::size_t end, const float* keep, const float (*p)[tile_keys + max_lanes], float* const* out) {
    const std::size_t lane_count = lanes();
    const std::size_t count = Keys != 0 ? Keys : end - begin;
    for (std::size_t i = 0; i < tile.whole; i += 2 * lane_count) {
        const std::size_t next = i + lane_count;
        if (tile.streamed) prefetch_after(ahead + i * count, 2 * lane_count * count * sizeof(Element));
        f32_vector a0 = load(out[0] + i), b0 = load(out[0] + next);
        f32_vector a1 = load(out[1] + i), b1 = load(out[1] + next);
        f32_vector a2 = load(out[2] + i), b2 = load(out[2] + next);
        f32_vector a3 = load(out[3] + i), b3 = load(out[3] + next);
        if (keep != nullptr) {
            a0 = mul(set(keep[0]), a0), b0 = mul(set(keep[0]), b0);
            a1 = mul(set(keep[1]), a1), b1 = mul(set(keep[1]), b1);
            a2 = mul(set(keep[2]), a2), b2 = mul(set(keep[2]), b2);
            a3 = mul(set(keep[3]), a3), b3 = mul(set(keep[3]), b3);
        }
        f32_vector a;
        f32_vector b;
        for (std::size_t j = begin; j < begin + count; ++j) {
            load_pair(v + j * tile.width + i, a, b);
            const f32_vector w0 = set(p[0][j]);
            a0 = mul_add(w0, a, a0), b0 = mul_add(w0, b, b0);
            const f32_vector w1 = set(p[1][j]);
            a1 = mul_add(w1, a, a1), b1 = mul_add(w1, b, b1);
            const f32_vector w2 = set(p[2][j]);
            a2 = mul_add(w2, a, a2), b2 = mul_add(w2, b, b2);
            const f32_vector w3 = set(p[3][j]);
            a3 = mul_add(w3, a, a3), b3 = mul_add(w3, b, b3);
        }
        store(a0, out[0] + i), store(b0, out[0] + next);
        store(a1, out[1] + i), store(b1, out[1] + next);
        store(a2, out[2] + i), store(b2, out[2] + next);
        store(a3, out[3] + i), store(b3, out[3] + next);
    }
}

/// The same for one row, from column `from` on: ends of heads, and rows too few for four.
template <class Element>
PHI4FLASH_VECTOR_INLINE void one_values(const attention_tile<Element>& tile, const Element* PHI4FLASH_RESTRICT v, std::size_t from,
                                        std::size_t begin, std::size_t end, float keep, const float* p, float* out) {
    const std::size_t lane_count = lanes();
    const f32_vector correction = set(keep);
    std::size_t i = from;
    for (; i < tile.whole; i += 2 * lane_count) {
        f32_vector out_a = mul(correction, load(out + i));
        f32_vector out_b = mul(correction, load(out + i + lane_count));
        f32_vector a;
        f32_vector b;
        for (std::size_t j = begin; j < end; ++j) {
            const f32_vector weight = set(p[j]);
            load_pair(v + j * tile.width + i, a, b);
            out_a = mul_add(weight, a, out_a), out_b = mul_add(weight, b, out_b);
        }
        store(out_a, out + i), store(out_b, out + i + lane_count);
    }
    for (; i < tile.d_head; i += lane_count) {
        const std::size_t n = tile.d_head - i < lane_count ? tile.d_head - i : lane_count;
        f32_vector sum = mul(correction, load_first(out + i, n));
        for (std::size_t j = begin; j < end; ++j) sum = mul_add(set(p[j]), load_first(v + j * tile.width + i, n), sum);
        store_first(sum, out + i, n);
    }
}

/// Lets up to four queries of one token see keys [begin, end) of a tile. Rows that are k_per_group apart share a key head.
template <class Element>
inline void attend_tile(const attention_args& args, attention_row* rows, std::size_t n_rows, const attention_tile<Element>& tile,
                        std::size_t begin, std::size_t end) {
    alignas(64) float scores[batch_rows][tile_keys + max_lanes];
    // Lanes around the keys that are seen: masked later, but numbers.
    for (std::size_t r = 0; r < n_rows; ++r) {
        for (std::size_t j = begin / max_lanes * max_lanes; j < begin; ++j) scores[r][j] = 0.0f;
        for (std::size_t j = end; j % max_lanes != 0; ++j) scores[r][j] = 0.0f;
    }
    const std::size_t shared = args.k_per_group;
    query_pair<Element> pairs[batch_rows];
    std::size_t n_pairs = 0;
    for (std::size_t base = 0; base < n_rows; base += 2 * shared) {
        for (std::size_t r = base; r < n_rows && r < base + shared; ++r) {
            const std::size_t partner = r + shared < n_rows ? r + shared : r;
            pairs[n_pairs++] = {tile.k + rows[r].key_head * tile.d_head, rows[r].q, rows[partner].q, scores[r], scores[partner]};
        }
    }
    if (tile.whole == tile.d_head) {
        all_scores<false>(tile, pairs, n_pairs, begin, end);
    } else {
        all_scores<true>(tile, pairs, n_pairs, begin, end);
    }
    if (tile.k_scale != nullptr) {
        for (std::size_t r = 0; r < n_rows; ++r)
            scale_keys(scores[r], tile.k_scale + rows[r].key_head * tile.scale_stride, begin, end, scores[r]);
    }
    float keep[batch_rows];
    bool rescale = false;
    for (std::size_t r = 0; r < n_rows; ++r) {
        keep[r] = tile_softmax(rows[r], args.scale, tile.position, begin, end, scores[r]);
        rescale = rescale || keep[r] != 1.0f;
    }
    // The scales of values go into the weights.
    alignas(64) float scaled[max_k_per_group][batch_rows][tile_keys + max_lanes];
    if (tile.v_scale != nullptr) {
        for (std::size_t s = 0; s < args.k_per_group; ++s) {
            for (std::size_t r = 0; r < n_rows; ++r) scale_keys(scores[r], tile.v_scale + s * tile.scale_stride, begin, end, scaled[s][r]);
        }
    }
    // A few keys at a time, so that values are read nearly in order.
    const std::size_t step = tile.streamed ? value_keys<Element> : tile_keys;
    for (std::size_t j = begin; j < end; j += step) {
        const std::size_t stop = end - j < step ? end : j + step;
        for (std::size_t s = 0; s < args.k_per_group; ++s) {
            const Element* v = tile.v + s * tile.d_head;
            const auto* const weights = tile.v_scale != nullptr ? scaled[s] : scores;
            const std::size_t column = s * tile.d_head;
            std::size_t from = 0;
            if (n_rows == batch_rows) {
                float* const out[batch_rows] = {rows[0].out + column, rows[1].out + column, rows[2].out + column, rows[3].out + column};
                const float* const scale = rescale && j == begin ? keep : nullptr;
                const Element* const ahead = (prefetch_distance == 0 ? tile.k + tile_keys * tile.width : tile.v) + j * tile.width + s * (stop - j) * tile.d_head;
                if (stop - j == value_keys<Element>) {
                    four_values<value_keys<Element>>(tile, v, ahead, j, stop, scale, weights, out);
                } else {
                    four_values<0>(tile, v, ahead, j, stop, scale, weights, out);
                }
                from = tile.whole;
            }
            for (std::size_t r = 0; r < n_rows && from < tile.d_head; ++r)
                one_values(tile, v, from, j, stop, j == begin ? keep[r] : 1.0f, weights[r], rows[r].out + column);
        }
    }
}

PHI4FLASH_TARGET_END
