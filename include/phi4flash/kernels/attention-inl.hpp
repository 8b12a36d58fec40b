// Sparse flash attention: keys come in tiles, a running maximum and sum make softmax exact, and only tiles that some query of
// the block can see are touched. Memory is linear in the sequence: no score outlives its tile.

PHI4FLASH_TARGET_BEGIN

/// Keys a tile; scores of one query fit a few vectors, and a tile of K and V fits the first-level cache.
inline constexpr std::size_t tile_keys = 32;
/// Floats of a widened tile of K, and of V.
inline constexpr std::size_t tile_floats = 4096;
/// Queries (token, head) that share a widened tile.
inline constexpr std::size_t row_block = 64;
/// Below any score; exp of it is 0 next to a real one.
inline constexpr float lowest_score = -3.0e38f;

/// scores[j] = scale * q . k[j] for j in [begin, end), keys `width` elements apart; four keys at once share the loads of q.
template <class Element>
PHI4FLASH_VECTOR_INLINE void tile_scores(const float* PHI4FLASH_RESTRICT q, const Element* PHI4FLASH_RESTRICT k, std::size_t width,
                                         std::size_t d_head, std::size_t begin, std::size_t end, float scale,
                                         float* PHI4FLASH_RESTRICT scores) {
    const std::size_t lane_count = lanes();
    const std::size_t whole = d_head / lane_count * lane_count;
    std::size_t j = begin;
    for (; j + 4 <= end && whole == d_head; j += 4) {
        const Element* k0 = k + j * width;
        const Element* k1 = k0 + width;
        const Element* k2 = k1 + width;
        const Element* k3 = k2 + width;
        f32_vector s0 = zero();
        f32_vector s1 = zero();
        f32_vector s2 = zero();
        f32_vector s3 = zero();
        for (std::size_t i = 0; i < whole; i += lane_count) {
            const f32_vector x = load(q + i);
            s0 = mul_add(x, load(k0 + i), s0);
            s1 = mul_add(x, load(k1 + i), s1);
            s2 = mul_add(x, load(k2 + i), s2);
            s3 = mul_add(x, load(k3 + i), s3);
        }
        scores[j] = scale * reduce_sum(s0);
        scores[j + 1] = scale * reduce_sum(s1);
        scores[j + 2] = scale * reduce_sum(s2);
        scores[j + 3] = scale * reduce_sum(s3);
    }
    for (; j < end; ++j) {
        f32_vector s = zero();
        for (std::size_t i = 0; i < whole; i += lane_count) s = mul_add(load(q + i), load(k + j * width + i), s);
        if (whole < d_head) s = mul_add(load_first(q + whole, d_head - whole), load_first(k + j * width + whole, d_head - whole), s);
        scores[j] = scale * reduce_sum(s);
    }
}

/// out[i] = correction * out[i] + sum_j p[j] v[j, i] for j in [begin, end), four vectors of out in registers at a time.
template <class Element>
PHI4FLASH_VECTOR_INLINE void tile_values(const float* PHI4FLASH_RESTRICT p, const Element* PHI4FLASH_RESTRICT v, std::size_t width,
                                         std::size_t begin, std::size_t end, float correction, float* PHI4FLASH_RESTRICT out) {
    const std::size_t lane_count = lanes();
    const f32_vector keep = set(correction);
    std::size_t i = 0;
    for (; i + 4 * lane_count <= width; i += 4 * lane_count) {
        f32_vector o0 = mul(keep, load(out + i));
        f32_vector o1 = mul(keep, load(out + i + lane_count));
        f32_vector o2 = mul(keep, load(out + i + 2 * lane_count));
        f32_vector o3 = mul(keep, load(out + i + 3 * lane_count));
        for (std::size_t j = begin; j < end; ++j) {
            const f32_vector weight = set(p[j]);
            const Element* row = v + j * width + i;
            o0 = mul_add(weight, load(row), o0);
            o1 = mul_add(weight, load(row + lane_count), o1);
            o2 = mul_add(weight, load(row + 2 * lane_count), o2);
            o3 = mul_add(weight, load(row + 3 * lane_count), o3);
        }
        store(o0, out + i);
        store(o1, out + i + lane_count);
        store(o2, out + i + 2 * lane_count);
        store(o3, out + i + 3 * lane_count);
    }
    for (; i + lane_count <= width; i += lane_count) {
        f32_vector o = mul(keep, load(out + i));
        for (std::size_t j = begin; j < end; ++j) o = mul_add(set(p[j]), load(v + j * width + i), o);
        store(o, out + i);
    }
    if (i < width) {
        f32_vector o = mul(keep, load_first(out + i, width - i));
        for (std::size_t j = begin; j < end; ++j) o = mul_add(set(p[j]), load_first(v + j * width + i, width - i), o);
        store_first(o, out + i, width - i);
    }
}

/// One query of a block: which head it is, what it sees, and its running maximum and sum.
struct attention_row {
    const float* q;
    float* out;
    std::size_t key_head;        ///< within the group
    std::size_t position;
    std::size_t first_visible;   ///< position
    float slope;
    float maximum;
    float sum;
};

/// Lets one query see keys [begin, end) of a tile whose key 0 is at `tile_position`.
template <class Element>
PHI4FLASH_VECTOR_INLINE void attend_tile(const attention_args& args, attention_row& row, const Element* k, const Element* v,
                                         std::size_t tile_position, std::size_t begin, std::size_t end) {
    const std::size_t width = args.k_per_group * args.d_head;
    const std::size_t lane_count = lanes();
    float scores[tile_keys + max_lanes];
    for (std::size_t j = 0; j < tile_keys; ++j) scores[j] = lowest_score;
    tile_scores(row.q, k + row.key_head * args.d_head, width, args.d_head, begin, end, args.scale, scores);
    if (row.slope != 0.0f) {
        for (std::size_t j = begin; j < end; ++j)
            scores[j] = mul_add_one(-row.slope, static_cast<float>(row.position - (tile_position + j)), scores[j]);
    }
    float highest = row.maximum;
    for (std::size_t j = begin; j < end; ++j) highest = scores[j] > highest ? scores[j] : highest;
    const f32_vector shift = set(highest);
    f32_vector sums = zero();
    const std::size_t first = begin / lane_count * lane_count;
    for (std::size_t j = first; j < end; j += lane_count) {
        const f32_vector e = exp_of(sub(load(scores + j), shift));
        store(e, scores + j);
    }
    // Keys outside [begin, end) got exp(-87): they are left out of the sum, not just small.
    float rest = 0.0f;
    std::size_t j = begin;
    for (; j < end && j % lane_count != 0; ++j) rest += scores[j];
    for (; j + lane_count <= end; j += lane_count) sums = add(sums, load(scores + j));
    for (; j < end; ++j) rest += scores[j];
    float shrink[max_lanes];
    store(exp_of(set(row.maximum - highest)), shrink);
    const float correction = row.maximum == lowest_score ? 0.0f : shrink[0];
    row.maximum = highest;
    row.sum = mul_add_one(row.sum, correction, reduce_sum(sums) + rest);
    tile_values(scores, v, width, begin, end, correction, row.out);
}

/// The keys of a tile at [position, position + count) that `row` sees, as indices into the tile; empty where begin >= end.
inline void visible_keys(const attention_row& row, std::size_t position, std::size_t count, std::size_t& begin, std::size_t& end) {
    begin = row.first_visible > position ? row.first_visible - position : 0;
    end = row.position < position ? 0 : row.position - position + 1;
    end = end < count ? end : count;
}

/// All rows of a block over one segment. Tiles are widened to f32 first where enough rows share them.
template <class Element>
inline void attend_segment(const attention_args& args, std::size_t group, attention_row* rows, std::size_t n_rows,
                           const kv_segment& segment) {
    const std::size_t width = args.k_per_group * args.d_head;
    const auto* k = reinterpret_cast<const Element*>(segment.k) + group * segment.group_rows * width;
    const auto* v = reinterpret_cast<const Element*>(segment.v) + group * segment.group_rows * width;
    // Rows are in token order: the first sees the earliest key, the last the latest.
    const std::size_t earliest = rows[0].first_visible;
    const std::size_t latest = rows[n_rows - 1].position;
    if (latest < segment.first_position || earliest >= segment.first_position + segment.count) return;
    // Tiles lie on a grid of the segment, whoever asks: a row must meet the same tiles however tokens are cut into blocks.
    const std::size_t wide_step = width * tile_keys <= tile_floats ? tile_keys : tile_floats / width;
    const bool can_widen = dtype_of<Element> != dtype::f32 && wide_step >= 4;
    const std::size_t tile_step = can_widen ? wide_step : tile_keys;
    const std::size_t first_key = earliest > segment.first_position ? earliest - segment.first_position : 0;
    const std::size_t start = first_key / tile_step * tile_step;
    const std::size_t stop = latest - segment.first_position + 1 < segment.count ? latest - segment.first_position + 1 : segment.count;
    const bool widened = can_widen && n_rows > 2 * args.k_per_group * args.queries_per_key;
    alignas(64) float wide_k[dtype_of<Element> == dtype::f32 ? 1 : tile_floats];
    alignas(64) float wide_v[dtype_of<Element> == dtype::f32 ? 1 : tile_floats];
    for (std::size_t j = start; j < stop; j += tile_step) {
        const std::size_t count = stop - j < tile_step ? stop - j : tile_step;
        const std::size_t position = segment.first_position + j;
        if (widened) {
            widen<Element>(reinterpret_cast<const std::byte*>(k + j * width), count * width, wide_k);
            widen<Element>(reinterpret_cast<const std::byte*>(v + j * width), count * width, wide_v);
        }
        for (std::size_t r = 0; r < n_rows; ++r) {
            std::size_t begin = 0;
            std::size_t end = 0;
            visible_keys(rows[r], position, count, begin, end);
            if (begin >= end) continue;
            if (widened) {
                attend_tile<float>(args, rows[r], wide_k, wide_v, position, begin, end);
            } else {
                attend_tile<Element>(args, rows[r], k + j * width, v + j * width, position, begin, end);
            }
        }
    }
}

/// See attention_args. Error: <= 1e-6 of the largest value, <= 5e-5 where scores reach hundreds (tests/kernels/attention_test.cpp).
template <class Element>
inline void attention(const attention_args& args, std::size_t group, std::size_t token_begin, std::size_t token_end,
                      const kv_segment* segments, std::size_t n_segments) {
    const std::size_t width = args.k_per_group * args.d_head;
    const std::size_t heads = args.k_per_group * args.queries_per_key;  // query heads of this group
    attention_row rows[row_block];
    const std::size_t total = (token_end - token_begin) * heads;
    for (std::size_t first = 0; first < total; first += row_block) {
        const std::size_t n_rows = total - first < row_block ? total - first : row_block;
        for (std::size_t i = 0; i < n_rows; ++i) {
            const std::size_t token = token_begin + (first + i) / heads;
            const std::size_t head_in_group = (first + i) % heads;
            const std::size_t head = group * heads + head_in_group;
            attention_row& row = rows[i];
            row.q = args.q + token * args.q_stride + head * args.d_head;
            row.out = args.out + token * args.out_stride + head * width;
            row.key_head = head_in_group % args.k_per_group;
            row.position = args.first_position + token;
            row.first_visible = row.position >= args.window ? row.position - args.window + 1 : 0;
            row.slope = args.slopes == nullptr ? 0.0f : args.slopes[head];
            row.maximum = lowest_score;
            row.sum = 0.0f;
            for (std::size_t c = 0; c < width; ++c) row.out[c] = 0.0f;
        }
        for (std::size_t s = 0; s < n_segments; ++s) attend_segment<Element>(args, group, rows, n_rows, segments[s]);
        const std::size_t lane_count = lanes();
        for (std::size_t i = 0; i < n_rows; ++i) {
            const float inverse = 1.0f / rows[i].sum;  // a token sees itself, so the sum is at least 1
            std::size_t c = 0;
            for (; c + lane_count <= width; c += lane_count) store(mul(load(rows[i].out + c), set(inverse)), rows[i].out + c);
            for (; c < width; ++c) rows[i].out[c] *= inverse;
        }
    }
}

PHI4FLASH_TARGET_END
