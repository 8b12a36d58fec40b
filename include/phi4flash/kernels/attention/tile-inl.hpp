// A tile of keys and values, and the softmax of a query over it. The queries of a token see the same keys, so what is read is used by all
// of them.
//
// Numbers of a head lie "arranged": pairs of vectors as load_pair gives them, which for bf16 are the even and the odd places; the end
// of a head that fills no pair lies as it was. Queries are put so once, outputs are put back once, and in between nothing is shuffled.
//
// A tile is read at several places in turn (see row_streams), so scores and weights do not stand in the order of keys: they stand in slots.

PHI4FLASH_TARGET_BEGIN

/// Keys a tile: many, so that the places where it is read lie far apart and a softmax costs little; few enough for the scores of four
/// queries to stay in the first-level cache.
inline constexpr std::size_t tile_keys = 528;
/// Queries of a token that share what is read.
inline constexpr std::size_t batch_rows = 4;
/// Below any score; exp of it is 0 next to a real one.
inline constexpr float lowest_score = -3.0e38f;

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
};

/// Keys of a tile one after the other, whose scores stand from `slot` on.
struct key_run {
    std::size_t key;
    std::size_t count;
    std::size_t slot;
};

/// Numbers of a query by slot. Vectors may end behind the last slot.
using slot_row = float[tile_keys + max_lanes];
using slot_scales = bf16[tile_keys + max_lanes];

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

/// out[i] = x[i] * y[i] in `count` slots. Vectors may end behind the last.
PHI4FLASH_VECTOR_INLINE void multiply_slots(const float* x, const bf16* y, std::size_t count, float* out) {
    for (std::size_t i = 0; i < count; i += lanes()) store(mul(load(x + i), load(y + i)), out + i);
}

/// Turns the products in slots [0, count) into weights: scores[i] = exp(scale * key_scale[i] * scores[i] - slope * distance[i] - new maximum);
/// no `key_scale`: 1, no `distance`: no slope. The slots up to the end of the last vector become 0. Returns by what everything before must
/// be multiplied. (No vectors go in or out, so it is a function of its own, for all types of keys.)
inline float tile_softmax(attention_row& row, float scale, const bf16* key_scale, const float* distance, std::size_t count,
                          float* PHI4FLASH_RESTRICT scores) {
    const std::size_t lane_count = lanes();
    const std::size_t last = (count - 1) / lane_count * lane_count;  // where the last vector begins
    for (std::size_t i = count; i < last + lane_count; ++i) scores[i] = scores[0];
    f32_vector most = set(row.maximum);
    for (std::size_t i = 0; i <= last; i += lane_count) {
        f32_vector s = mul(set(scale), load(scores + i));
        if (key_scale != nullptr) s = mul(s, load(key_scale + i));
        if (distance != nullptr) s = neg_mul_add(set(row.slope), load(distance + i), s);
        store(s, scores + i);
        most = max_of(most, s);
    }
    const float highest = reduce_max(most);
    const f32_vector shift = set(highest);
    f32_vector sums = zero();
    for (std::size_t i = 0; i <= last; i += lane_count) {
        const f32_vector e = exp_of(sub(load(scores + i), shift));
        store(e, scores + i);
        if (i < last) sums = add(sums, e);
    }
    for (std::size_t i = count; i < last + lane_count; ++i) scores[i] = 0.0f;
    sums = add(sums, load(scores + last));
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

PHI4FLASH_TARGET_END
