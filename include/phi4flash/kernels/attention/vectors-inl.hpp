// Scores of a tile's keys, and sums of its values, by vectors. Keys come in fours, one from each of four places of the tile.

PHI4FLASH_TARGET_BEGIN

/// Slots whose values are added up before outputs go back to the cache.
inline constexpr std::size_t value_slots = 32;
/// How far ahead of its use a line is asked for, in bytes, at each place.
inline constexpr std::size_t prefetch_distance = 512;

/// How a run of keys is walked: slot 4 * i + s is that of key i * next + s * apart, i < fours; the rest, at most three, follow in order.
struct walk_in_fours {
    std::size_t fours;
    std::size_t next;
    std::size_t apart;

    explicit walk_in_fours(std::size_t count) : fours(count / 4), next(row_streams == 4 ? 1 : 4), apart(row_streams == 4 ? fours : 1) {}
};

/// Asks for the bytes that lie prefetch_distance after these. They may lie behind the end: nothing is read.
PHI4FLASH_VECTOR_INLINE void prefetch_after(const void* from, std::size_t bytes) {
    const auto at = reinterpret_cast<std::uintptr_t>(from) + prefetch_distance;
    for (std::size_t b = 0; b < bytes; b += 64) prefetch(reinterpret_cast<const void*>(at + b));
}

/// Two queries of one key head, or one and itself.
struct query_pair {
    std::size_t column;  ///< of the key head in a row of keys
    const float* q0;
    const float* q1;
    float* scores0;
    float* scores1;
};

/// Scores of four keys for a pair, into four slots. Every score is added in the same order.
template <bool Ragged, class Element>
PHI4FLASH_VECTOR_INLINE void four_scores(const query_pair& pair, const Element* PHI4FLASH_RESTRICT k0, const Element* PHI4FLASH_RESTRICT k1,
                                         const Element* PHI4FLASH_RESTRICT k2, const Element* PHI4FLASH_RESTRICT k3, std::size_t whole,
                                         std::size_t d_head, std::size_t slot) {
    const std::size_t lane_count = lanes();
    k0 += pair.column, k1 += pair.column, k2 += pair.column, k3 += pair.column;
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
    store_sums(s00, s01, s02, s03, pair.scores0 + slot);
    store_sums(s10, s11, s12, s13, pair.scores1 + slot);
}

/// Scores of a run for all pairs. Up to three places behind its last slot are written too.
template <bool Ragged, class Element>
PHI4FLASH_VECTOR_INLINE void run_scores(const attention_tile<Element>& tile, const query_pair* pairs, std::size_t n_pairs, key_run run) {
    const std::size_t width = tile.width;
    const std::size_t whole = tile.whole;
    const std::size_t d_head = tile.d_head;
    const walk_in_fours walk(run.count);
    const std::size_t apart = walk.apart * width;
    const Element* k = tile.k + run.key * width;
    std::size_t slot = run.slot;
    for (std::size_t i = 0; i < walk.fours; ++i, slot += 4, k += walk.next * width) {
        for (std::size_t s = 0; s < 4; ++s) prefetch_after(k + s * apart, width * sizeof(Element));
        for (std::size_t p = 0; p < n_pairs; ++p) four_scores<Ragged>(pairs[p], k, k + apart, k + 2 * apart, k + 3 * apart, whole, d_head, slot);
    }
    const std::size_t rest = run.count % 4;
    if (rest == 0) return;
    k = tile.k + (run.key + run.count - rest) * width;  // behind the last key, the first stands in
    const Element* second = rest > 1 ? k + width : k;
    const Element* third = rest > 2 ? k + 2 * width : k;
    for (std::size_t p = 0; p < n_pairs; ++p) four_scores<Ragged>(pairs[p], k, second, third, k, whole, d_head, slot);
}

/// Slots [slot, slot + 4 * fours + rest) of a run: where their values lie.
template <class Element>
struct value_slots_view {
    const Element* v;     ///< of the first
    const Element* last;  ///< of the first behind the fours
    std::size_t slot;
    std::size_t fours;
    std::size_t rest;
    std::size_t next;   ///< numbers from a four to the next
    std::size_t apart;  ///< numbers between values of a four
    std::size_t width;
};

PHI4FLASH_VECTOR_INLINE void add_two(f32_vector w, f32_vector x0, f32_vector x1, f32_vector& s0, f32_vector& s1) {
    s0 = mul_add(w, x0, s0);
    s1 = mul_add(w, x1, s1);
}
PHI4FLASH_VECTOR_INLINE void add_four(f32_vector w, f32_vector x0, f32_vector x1, f32_vector x2, f32_vector x3, f32_vector& s0, f32_vector& s1,
                                      f32_vector& s2, f32_vector& s3) {
    add_two(w, x0, x1, s0, s1);
    add_two(w, x2, x3, s2, s3);
}

/// s_r += sum of p[r][slot] v[slot] for rows R, two vectors wide; to out[r].
template <std::size_t... R, class Element>
PHI4FLASH_VECTOR_INLINE void values_two(const value_slots_view<Element>& from, std::size_t column, const slot_row* p,
                                        float* const* out, f32_of<R>... s0, f32_of<R>... s1) {
    const std::size_t bytes = 2 * lanes() * sizeof(Element);
    const Element* PHI4FLASH_RESTRICT v = from.v + column;
    std::size_t slot = from.slot;
    f32_vector x0;
    f32_vector x1;
    for (std::size_t i = 0; i < from.fours; ++i, v += from.next) {
        const Element* PHI4FLASH_RESTRICT at = v;
        for (std::size_t k = 0; k < 4; ++k, ++slot, at += from.apart) {
            prefetch_after(at, bytes);
            load_pair(at, x0, x1);
            (add_two(set(p[R][slot]), x0, x1, s0, s1), ...);
        }
    }
    v = from.last + column;
    for (std::size_t k = 0; k < from.rest; ++k, ++slot, v += from.width) {
        load_pair(v, x0, x1);
        (add_two(set(p[R][slot]), x0, x1, s0, s1), ...);
    }
    ((store(s0, out[R] + column), store(s1, out[R] + column + lanes())), ...);
}

/// The same, four vectors wide: where registers are many.
template <std::size_t... R, class Element>
PHI4FLASH_VECTOR_INLINE void values_four(const value_slots_view<Element>& from, std::size_t column, const slot_row* p,
                                         float* const* out, f32_of<R>... s0, f32_of<R>... s1, f32_of<R>... s2, f32_of<R>... s3) {
    const std::size_t pair = 2 * lanes();
    const Element* PHI4FLASH_RESTRICT v = from.v + column;
    std::size_t slot = from.slot;
    f32_vector x0;
    f32_vector x1;
    f32_vector x2;
    f32_vector x3;
    for (std::size_t i = 0; i < from.fours; ++i, v += from.next) {
        const Element* PHI4FLASH_RESTRICT at = v;
        for (std::size_t k = 0; k < 4; ++k, ++slot, at += from.apart) {
            prefetch_after(at, 2 * pair * sizeof(Element));
            load_pair(at, x0, x1);
            load_pair(at + pair, x2, x3);
            (add_four(set(p[R][slot]), x0, x1, x2, x3, s0, s1, s2, s3), ...);
        }
    }
    v = from.last + column;
    for (std::size_t k = 0; k < from.rest; ++k, ++slot, v += from.width) {
        load_pair(v, x0, x1);
        load_pair(v + pair, x2, x3);
        (add_four(set(p[R][slot]), x0, x1, x2, x3, s0, s1, s2, s3), ...);
    }
    ((store(s0, out[R] + column), store(s1, out[R] + column + lanes())), ...);
    ((store(s2, out[R] + column + pair), store(s3, out[R] + column + pair + lanes())), ...);
}

/// out[r] at the columns of a head's whole pairs, times keep[r] first; no `keep`: 1.
template <class Element, std::size_t... R>
PHI4FLASH_VECTOR_INLINE void add_values(std::index_sequence<R...>, const value_slots_view<Element>& from, std::size_t begin, std::size_t end,
                                        const float* keep, const slot_row* p, float* const* out) {
    const std::size_t lane_count = lanes();
    if (keep != nullptr) {
        for (std::size_t i = begin; i < end; i += lane_count) (store(mul(set(keep[R]), load(out[R] + i)), out[R] + i), ...);
    }
    std::size_t i = begin;
    if constexpr (many_registers) {
        for (; i + 4 * lane_count <= end; i += 4 * lane_count)
            values_four<R...>(from, i, p, out, load(out[R] + i)..., load(out[R] + i + lane_count)..., load(out[R] + i + 2 * lane_count)...,
                        load(out[R] + i + 3 * lane_count)...);
    }
    for (; i < end; i += 2 * lane_count) values_two<R...>(from, i, p, out, load(out[R] + i)..., load(out[R] + i + lane_count)...);
}

/// The end of a head, which fills no pair, for one row.
template <class Element>
PHI4FLASH_VECTOR_INLINE void add_last_values(const value_slots_view<Element>& from, std::size_t begin, std::size_t end, float keep, const float* p,
                                             float* out) {
    for (std::size_t i = begin; i < end; i += lanes()) {
        const std::size_t n = end - i < lanes() ? end - i : lanes();
        f32_vector sum = mul(set(keep), load_first(out + i, n));
        std::size_t slot = from.slot;
        for (std::size_t f = 0; f < from.fours; ++f) {
            for (std::size_t k = 0; k < 4; ++k, ++slot)
                sum = mul_add(set(p[slot]), load_first(from.v + f * from.next + k * from.apart + i, n), sum);
        }
        for (std::size_t k = 0; k < from.rest; ++k, ++slot) sum = mul_add(set(p[slot]), load_first(from.last + k * from.width + i, n), sum);
        store_first(sum, out + i, n);
    }
}

/// How a tile is multiplied: this way, or on matrix tiles (matrix-inl.hpp).
template <class Element>
class vector_products {
public:
    vector_products(const attention_args& args, const attention_row*, std::size_t) : k_per_group_(args.k_per_group) {}

    /// out[slot] = by_key(key) for the keys of a run.
    template <class ByKey, class T>
    void in_slots(key_run run, ByKey by_key, T* out) const {
        const walk_in_fours walk(run.count);
        T* to = out + run.slot;
        for (std::size_t i = 0; i < walk.fours; ++i) {
            for (std::size_t s = 0; s < 4; ++s) *to++ = by_key(run.key + i * walk.next + s * walk.apart);
        }
        for (std::size_t i = 4 * walk.fours; i < run.count; ++i) *to++ = by_key(run.key + i);
    }

    /// scores[r][slot] = q_r . k for the keys of a run. Up to three places behind its last slot are written too.
    void scores(const attention_tile<Element>& tile, const attention_row* rows, std::size_t n_rows, key_run run, slot_row* scores) const {
        const std::size_t shared = k_per_group_;
        query_pair pairs[batch_rows];
        std::size_t n_pairs = 0;
        for (std::size_t base = 0; base < n_rows; base += 2 * shared) {
            for (std::size_t r = base; r < n_rows && r < base + shared; ++r) {
                const std::size_t partner = r + shared < n_rows ? r + shared : r;
                pairs[n_pairs++] = {rows[r].key_head * tile.d_head, rows[r].q, rows[partner].q, scores[r], scores[partner]};
            }
        }
        if (tile.whole == tile.d_head) {
            run_scores<false>(tile, pairs, n_pairs, run);
        } else {
            run_scores<true>(tile, pairs, n_pairs, run);
        }
    }

    /// out_r = keep_r * out_r + the sum of weights[r][slot] * scales[s][slot] * v over a run, for each head s of a row of values. No `keep`:
    /// all 1; no `scales`: likewise.
    void values(const attention_tile<Element>& tile, const attention_row* rows, std::size_t n_rows, key_run run, const float* keep,
                const slot_row* weights, const slot_scales* scales) const {
        if constexpr (kv_format_of<Element> == kv_format::int8) {
            alignas(64) slot_row scaled[max_k_per_group][batch_rows];
            const slot_row* of_head[max_k_per_group] = {};
            for (std::size_t s = 0; s < k_per_group_; ++s) {
                for (std::size_t r = 0; r < n_rows; ++r)
                    multiply_slots(weights[r] + run.slot, scales[s] + run.slot, run.count, scaled[s][r] + run.slot);
                of_head[s] = scaled[s];
            }
            add_weighted(tile, rows, n_rows, run, keep, of_head);
        } else {
            const slot_row* const of_head[max_k_per_group] = {weights, weights};
            add_weighted(tile, rows, n_rows, run, keep, of_head);
        }
    }

private:
    void add_weighted(const attention_tile<Element>& tile, const attention_row* rows, std::size_t n_rows, key_run run, const float* keep,
                       const slot_row* const* weights) const {
        const walk_in_fours walk(run.count);
        const Element* v = tile.v + run.key * tile.width;
        const Element* last = v + 4 * walk.fours * tile.width;
        std::size_t four = 0;
        do {  // a few at a time, so that values are read nearly in order
            const std::size_t some = walk.fours - four < value_slots / 4 ? walk.fours - four : value_slots / 4;
            const bool end = four + some == walk.fours;
            const value_slots_view<Element> from{v + four * walk.next * tile.width, last, run.slot + 4 * four, some, end ? run.count % 4 : 0,
                                                 walk.next * tile.width, walk.apart * tile.width, tile.width};
            for (std::size_t s = 0; s < k_per_group_; ++s) add_head(tile, rows, n_rows, from, s, keep, weights[s]);
            keep = nullptr;
            four += some;
        } while (four < walk.fours);
    }

    static void add_head(const attention_tile<Element>& tile, const attention_row* rows, std::size_t n_rows, const value_slots_view<Element>& from,
                         std::size_t s, const float* keep, const slot_row* weights) {
        const std::size_t begin = s * tile.d_head;
        const std::size_t whole_end = begin + tile.whole;
        if (n_rows == batch_rows) {
            float* const out[batch_rows] = {rows[0].out, rows[1].out, rows[2].out, rows[3].out};
            add_values(std::make_index_sequence<batch_rows>(), from, begin, whole_end, keep, weights, out);
        } else {
            for (std::size_t r = 0; r < n_rows; ++r)
                add_values(std::index_sequence<0>(), from, begin, whole_end, keep == nullptr ? nullptr : keep + r, weights + r, &rows[r].out);
        }
        for (std::size_t r = 0; r < n_rows && tile.whole < tile.d_head; ++r)
            add_last_values(from, whole_end, begin + tile.d_head, keep == nullptr ? 1.0f : keep[r], weights[r], rows[r].out);
    }

    std::size_t k_per_group_;
};

PHI4FLASH_TARGET_END
