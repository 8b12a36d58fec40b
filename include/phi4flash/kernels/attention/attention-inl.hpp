// Sparse flash attention: keys come in tiles, a running maximum and sum make softmax exact, and only tiles that some query of
// the block can see are touched. Memory is linear in the sequence: no score outlives its tile.

PHI4FLASH_TARGET_BEGIN

/// Queries (token, head) that go over a segment together, at most.
inline constexpr std::size_t row_block = 64;
/// Floats of a block's arranged queries.
inline constexpr std::size_t query_floats = 4096;

/// Scales of the slots, for each of `heads` heads. Asks for those of the next tile: they are too few for the hardware to see where they go.
template <class Products>
inline void gather_scales(const Products& products, const bf16* scales, std::size_t stride, std::size_t heads, key_run run, slot_scales* out) {
    for (std::size_t s = 0; s < heads; ++s, scales += stride, ++out) {
        const auto next = reinterpret_cast<std::uintptr_t>(scales + run.key) + tile_keys * sizeof(bf16);
        for (std::size_t b = 0; b < run.count * sizeof(bf16); b += 64) prefetch(reinterpret_cast<const void*>(next + b));
        products.in_slots(run, [scales](std::size_t key) { return scales[key]; }, *out);
        for (std::size_t i = run.count; i < run.count + max_lanes; ++i) (*out)[i] = {};
    }
}

/// Lets up to four queries of one token see some keys of a tile. Rows that are k_per_group apart share a key head.
template <class Element, class Products>
inline void attend_tile(const attention_args& args, Products& products, attention_row* rows, std::size_t n_rows, const attention_tile<Element>& tile,
                        key_range seen) {
    const key_run run{seen.begin, seen.end - seen.begin, 0};
    alignas(64) slot_row scores[batch_rows];
    products.scores(tile, rows, n_rows, run, scores);

    alignas(64) slot_scales scales[max_k_per_group];
    if (tile.k_scale != nullptr) gather_scales(products, tile.k_scale, tile.scale_stride, args.k_per_group, run, scales);
    alignas(64) slot_row distance;
    if (args.slopes != nullptr) {
        const auto from_here = static_cast<std::int64_t>(rows[0].position) - static_cast<std::int64_t>(tile.position);
        products.in_slots(run, [from_here](std::size_t key) { return static_cast<float>(from_here - static_cast<std::int64_t>(key)); }, distance);
        for (std::size_t i = run.count; i < run.count + max_lanes; ++i) distance[i] = distance[0];
    }
    float keep[batch_rows];
    bool rescale = false;
    for (std::size_t r = 0; r < n_rows; ++r) {
        keep[r] = tile_softmax(rows[r], args.scale, tile.k_scale == nullptr ? nullptr : scales[rows[r].key_head],
                               args.slopes == nullptr ? nullptr : distance, run.count, scores[r]);
        rescale = rescale || keep[r] != 1.0f;
    }
    if (tile.v_scale != nullptr) gather_scales(products, tile.v_scale, tile.scale_stride, args.k_per_group, run, scales);
    products.values(tile, rows, n_rows, run, rescale ? keep : nullptr, scores, tile.v_scale == nullptr ? nullptr : scales);
}

/// All rows of a block over one segment.
template <class Element, class Products>
inline void attend_segment(const attention_args& args, Products& products, std::size_t group, attention_row* rows, std::size_t n_rows,
                           const kv_segment& segment, std::size_t whole) {
    const std::size_t width = args.k_per_group * args.d_head;
    const auto* k = reinterpret_cast<const Element*>(segment.k) + group * segment.group_rows * width;
    const auto* v = reinterpret_cast<const Element*>(segment.v) + group * segment.group_rows * width;
    // Rows are in token order: the first sees the earliest key, the last the latest.
    const key_range seen = visible_keys(rows[n_rows - 1].position, rows[0].first_visible, segment.first_position, segment.count);
    if (seen.begin >= seen.end) return;
    const auto scales_at = [&](const bf16* scales, std::size_t key) {
        return scales == nullptr ? nullptr : scales + group * args.k_per_group * segment.group_rows + key;
    };
    // Tiles lie on a grid of the segment, whoever asks: a row must meet the same tiles however tokens are cut into blocks.
    for (std::size_t j = seen.begin / tile_keys * tile_keys; j < seen.end; j += tile_keys) {
        const std::size_t count = seen.end - j < tile_keys ? seen.end - j : tile_keys;
        const std::size_t position = segment.first_position + j;
        const attention_tile<Element> tile{k + j * width, v + j * width, scales_at(segment.k_scale, j), scales_at(segment.v_scale, j),
                                           segment.group_rows, position, args.d_head, width, whole};
        for (std::size_t r = 0; r < n_rows;) {
            std::size_t n = 1;
            while (n < batch_rows && r + n < n_rows && rows[r + n].position == rows[r].position) ++n;
            const key_range keys = visible_keys(rows[r].position, rows[r].first_visible, position, count);
            if (keys.begin < keys.end) attend_tile(args, products, rows + r, n, tile, keys);
            r += n;
        }
    }
}

/// The order that load_pair<Element> gives, and back.
template <class Element>
PHI4FLASH_VECTOR_INLINE void arrange_query(const float* q, std::size_t d_head, std::size_t whole, float* out) {
    constexpr bool even_odd = kv_format_of<Element> == kv_format::bf16;
    const std::size_t lane_count = lanes();
    for (std::size_t i = 0; i < d_head; ++i) {
        const std::size_t within = i % (2 * lane_count);
        out[even_odd && i < whole ? i - within + within / 2 + within % 2 * lane_count : i] = q[i];
    }
}
template <class Element>
PHI4FLASH_VECTOR_INLINE void finish_row(const attention_row& row, std::size_t heads, std::size_t d_head, std::size_t whole) {
    const std::size_t lane_count = lanes();
    const f32_vector inverse = set(1.0f / row.sum);  // a token sees itself, so the sum is at least 1
    for (std::size_t h = 0; h < heads; ++h) {
        float* out = row.out + h * d_head;
        for (std::size_t i = 0; i < whole; i += 2 * lane_count) {
            const f32_vector a = mul(load(out + i), inverse);
            const f32_vector b = mul(load(out + i + lane_count), inverse);
            if constexpr (kv_format_of<Element> == kv_format::bf16) {
                store_even_odd(a, b, out + i);
            } else {
                store(a, out + i), store(b, out + i + lane_count);
            }
        }
        for (std::size_t i = whole; i < d_head; ++i) out[i] *= 1.0f / row.sum;
    }
}

/// A few tokens: what they share of K and V is little, and what counts is to read it only once.
template <class Element, template <class> class Products>
inline void attend_few(const attention_args& args, std::size_t group, std::size_t token_begin, std::size_t token_end,
                      const kv_segment* segments, std::size_t n_segments) {
    const std::size_t width = args.k_per_group * args.d_head;
    const std::size_t heads = args.k_per_group * args.queries_per_key;  // query heads of this group
    // Queries too wide for the buffer stay where they are, and nothing is arranged.
    const bool arranged = args.d_head <= query_floats;
    const std::size_t whole = arranged ? args.d_head / (2 * lanes()) * (2 * lanes()) : 0;
    const std::size_t fit = arranged ? query_floats / args.d_head : 1;
    const std::size_t block = fit < row_block ? fit : row_block;
    alignas(64) float queries[query_floats];
    attention_row rows[row_block];
    const std::size_t total = (token_end - token_begin) * heads;
    for (std::size_t first = 0; first < total; first += block) {
        const std::size_t n_rows = total - first < block ? total - first : block;
        for (std::size_t i = 0; i < n_rows; ++i) {
            const std::size_t token = token_begin + (first + i) / heads;
            const std::size_t head_in_group = (first + i) % heads;
            const std::size_t head = group * heads + head_in_group;
            attention_row& row = rows[i];
            row.q = args.q + token * args.q_stride + head * args.d_head;
            if (arranged) {
                arrange_query<Element>(row.q, args.d_head, whole, queries + i * args.d_head);
                row.q = queries + i * args.d_head;
            }
            row.out = args.out + token * args.out_stride + head * width;
            row.key_head = head_in_group % args.k_per_group;
            row.position = args.first_position + token;
            row.first_visible = first_visible_of(args, row.position);
            row.slope = args.slopes == nullptr ? 0.0f : args.slopes[head];
            row.maximum = lowest_score;
            row.sum = 0.0f;
            for (std::size_t c = 0; c < width; ++c) row.out[c] = 0.0f;
        }
        Products<Element> products(args, rows, n_rows);
        for (std::size_t s = 0; s < n_segments; ++s) attend_segment<Element>(args, products, group, rows, n_rows, segments[s], whole);
        for (std::size_t i = 0; i < n_rows; ++i) finish_row<Element>(rows[i], args.k_per_group, args.d_head, whole);
    }
}

/// See attention_args. Error: <= 1e-6 of the largest value, <= 5e-5 where scores reach hundreds (tests/kernels/attention/attention_test.cpp).
template <class Element>
inline void attention(const attention_args& args, std::size_t group, std::size_t token_begin, std::size_t token_end,
                      const kv_segment* segments, std::size_t n_segments) {
    if (takes_prompt(args)) {
        attend_prompt<Element>(args, group, token_begin, token_end, segments, n_segments);
    } else {
        attend_few<Element, vector_products>(args, group, token_begin, token_end, segments, n_segments);
    }
}

/// One token by these products, if its heads fit them; else `Otherwise`, an `attention`.
template <class Element, template <class> class Products, auto Otherwise>
inline void attention_of_one(const attention_args& args, std::size_t group, std::size_t token_begin, std::size_t token_end,
                             const kv_segment* segments, std::size_t n_segments) {
    if (args.tokens == 1 && Products<Element>::fits(args)) {
        attend_few<Element, Products>(args, group, token_begin, token_end, segments, n_segments);
    } else {
        Otherwise(args, group, token_begin, token_end, segments, n_segments);
    }
}

PHI4FLASH_TARGET_END
