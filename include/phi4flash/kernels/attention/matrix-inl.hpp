// Attention of one token on matrix tiles (AMX). Keys and values are tiles as they lie in memory; what is put into another form are queries
// and weights, which are few:
//
//   scores   C[key][column] = sum_d K[key][d] Q[d][column], a column for each query and each of its parts
//   values   C[row][n] = sum_key W[row][key] V[key][n], where n counts 32-bit words of a row of values: a row of W for each query and each
//            place of a number within a word: the weight stands there, and 0 in the other places
//
// Parts: a number in f32 is a sum of bf16 of falling size, whose products are exact. The three of a query are all its bits; the two of a
// weight lose 2^-17 of it at most.
//
// The rows of a tile come from 16 places of a tile of keys, at which memory is read in turn (see row_streams).

PHI4FLASH_TARGET_BEGIN

/// How far ahead of its use a line is asked for, in bytes, at each place.
inline constexpr std::size_t matrix_prefetch_distance = 256;

/// A tile of keys or values: a row from each place, row_bytes apart.
template <int Tile>
PHI4FLASH_VECTOR_INLINE void load_places(const bf16* p, std::size_t row_bytes) {
    const auto* ahead = reinterpret_cast<const std::byte*>(p) + matrix_prefetch_distance;
    for (std::size_t i = 0; i < tile_rows; ++i, ahead += row_bytes) prefetch(ahead);
    tile_load<Tile>(p, row_bytes);
}

/// Keys between places: slot 16 * i + s of a run is that of key i + s * places_apart, as far as keys fill tiles. Odd where it is large, or
/// all places would fall into the same sets of the first-level cache.
inline std::size_t places_apart(key_run run) {
    const std::size_t most = run.count / tile_rows;
    return most > 8 && most % 2 == 0 ? most - 1 : most;
}
/// The keys that fill no tile.
inline key_run behind_tiles(key_run run) {
    const std::size_t done = places_apart(run) * tile_rows;
    return {run.key + done, run.count - done, run.slot + done};
}

PHI4FLASH_VECTOR_INLINE f32_vector high_to_low_half(f32_vector x) {
    const u32_tag du;
    return hn::BitCast(f32_tag(), hn::ShiftRight<16>(hn::BitCast(du, x)));
}
PHI4FLASH_VECTOR_INLINE f32_vector both_halves(f32_vector low, f32_vector high) { return hn::Or(high_to_low_half(low), high); }

/// See vector_products, which also takes what fills no tile. Error: <= 2e-6 of the largest value.
template <class Element>
class matrix_products {
    static_assert(std::is_same_v<Element, bf16>);

public:
    /// Whether the heads of a token do.
    static bool fits(const attention_args& args) {
        return args.d_head % tile_numbers == 0 && args.k_per_group * args.d_head <= most_columns * tile_numbers &&
               args.k_per_group * args.queries_per_key <= batch_rows;
    }

    matrix_products(const attention_args& args, const attention_row* rows, std::size_t n_rows)
        : rest_(args, rows, n_rows), columns_(args.k_per_group * args.d_head / tile_numbers) {
        const std::size_t per_head = args.d_head / tile_numbers;
        for (std::size_t r = 0; r < n_rows; ++r) {
            for (std::size_t i = 0; i < per_head; ++i) put_query(rows[r].q + i * tile_numbers, r, queries_[rows[r].key_head * per_head + i]);
        }
    }

    template <class ByKey, class T>
    void in_slots(key_run run, ByKey by_key, T* out) const {
        const std::size_t apart = places_apart(run);
        for (std::size_t i = 0; i < apart * tile_rows; ++i) out[run.slot + i] = by_key(run.key + i / tile_rows + i % tile_rows * apart);
        rest_.in_slots(behind_tiles(run), by_key, out);
    }

    void scores(const attention_tile<Element>& tile, const attention_row* rows, std::size_t n_rows, key_run run, slot_row* scores) const {
        const std::size_t apart = places_apart(run);
        const std::size_t stride = apart * tile.width * sizeof(Element);
        tile_load<4>(queries_[0]);
        if (columns_ > 1) tile_load<5>(queries_[1]);
        if (columns_ > 2) tile_load<6>(queries_[2]);
        if (columns_ > 3) tile_load<7>(queries_[3]);
        alignas(64) float products[2][tile_rows][tile_rows];  // two, so that one leaves its tile while the other is made
        const Element* k = tile.k + run.key * tile.width;
        std::size_t slot = run.slot;
        for (std::size_t i = 0; i < apart; i += 2, k += 2 * tile.width, slot += 2 * tile_rows) {
            const bool two = i + 1 < apart;
            multiply_keys<0, 2>(k, stride);
            if (two) multiply_keys<1, 3>(k + tile.width, stride);
            tile_store<0>(products[0]);
            if (two) tile_store<1>(products[1]);
            put_scores(products[0][0], slot, scores);
            if (two) put_scores(products[1][0], slot + tile_rows, scores);
        }
        if (behind_tiles(run).count != 0) rest_.scores(tile, rows, n_rows, behind_tiles(run), scores);
    }

    void values(const attention_tile<Element>& tile, const attention_row* rows, std::size_t n_rows, key_run run, const float* keep,
                const slot_row* weights, const slot_scales* scales) {
        const std::size_t apart = places_apart(run);
        if (apart != 0) {
            const std::size_t stride = apart * tile.width * sizeof(Element);
            const Element* v = tile.v + run.key * tile.width;
            tile_zero<0>();
            tile_zero<1>();
            tile_zero<2>();
            tile_zero<3>();
            for (std::size_t i = 0; i < apart; ++i, v += tile.width) {
                auto* const to = weights_[i % 4];  // in turn: what was stored just now is slow to load as a tile
                for (std::size_t r = 0; r < n_rows; ++r) put_weights(weights[r] + run.slot + i * tile_rows, r, to);
                multiply_values(v, stride, to);
            }
            add_products(rows, n_rows, keep);
            keep = nullptr;
        }
        if (behind_tiles(run).count != 0) rest_.values(tile, rows, n_rows, behind_tiles(run), keep, weights, scales);
    }

private:
    static constexpr std::size_t tile_numbers = tile_cols / sizeof(Element);  ///< in a row of a tile
    static constexpr std::size_t most_columns = 4;                            ///< with Q, two tiles of K and two of sums: all there are

    /// 32 numbers of query r, arranged: a pair of them for each row of the tile.
    static void put_query(const float* q, std::size_t r, float (*to)[tile_rows]) {
        f32_vector even = load(q);
        f32_vector odd = load(q + tile_numbers / 2);
        for (std::size_t part = 0; part < 3; ++part) {
            float pairs[max_lanes];
            const f32_vector low = take_bf16(even);
            store(both_halves(low, take_bf16(odd)), pairs);
            for (std::size_t d = 0; d < tile_rows; ++d) to[d][part * batch_rows + r] = pairs[d];
        }
    }

    /// Products [16 keys][part][row]: the parts added up, to the slots of four rows.
    PHI4FLASH_VECTOR_INLINE static void put_scores(const float* products, std::size_t slot, slot_row* to) {
        const hn::Half<hn::Half<f32_tag>> four;
        alignas(64) float sums[tile_rows * batch_rows];
        for (std::size_t key = 0; key < tile_rows; ++key, products += tile_rows) {
            const auto low = hn::Add(hn::Load(four, products + 2 * batch_rows), hn::Load(four, products + batch_rows));
            hn::Store(hn::Add(low, hn::Load(four, products)), four, sums + key * batch_rows);
        }
        f32_vector a, b, c, d;
        hn::LoadInterleaved4(f32_tag(), sums, a, b, c, d);
        store(a, to[0] + slot), store(b, to[1] + slot), store(c, to[2] + slot), store(d, to[3] + slot);
    }

    template <int C, int K>
    PHI4FLASH_VECTOR_INLINE void multiply_keys(const Element* k, std::size_t stride) const {
        tile_zero<C>();
        load_places<K>(k, stride);
        tile_dot_bf16<C, K, 4>();
        if (columns_ < 2) return;
        load_places<K>(k + tile_numbers, stride);
        tile_dot_bf16<C, K, 5>();
        if (columns_ < 3) return;
        load_places<K>(k + 2 * tile_numbers, stride);
        tile_dot_bf16<C, K, 6>();
        if (columns_ < 4) return;
        load_places<K>(k + 3 * tile_numbers, stride);
        tile_dot_bf16<C, K, 7>();
    }

    PHI4FLASH_VECTOR_INLINE void multiply_values(const Element* v, std::size_t stride, const float (*weights)[tile_rows]) const {
        tile_load<4>(weights);
        load_places<5>(v, stride);
        tile_dot_bf16<0, 4, 5>();
        if (columns_ < 2) return;
        load_places<6>(v + tile_numbers, stride);
        tile_dot_bf16<1, 4, 6>();
        if (columns_ < 3) return;
        load_places<7>(v + 2 * tile_numbers, stride);
        tile_dot_bf16<2, 4, 7>();
        if (columns_ < 4) return;
        load_places<5>(v + 3 * tile_numbers, stride);
        tile_dot_bf16<3, 4, 5>();
    }

    /// The row of W for a part of query r's weights and a place within a word.
    static constexpr std::size_t weight_row(std::size_t part, std::size_t r, std::size_t place) { return (part * batch_rows + r) * 2 + place; }

    PHI4FLASH_VECTOR_INLINE static void put_weights(const float* p, std::size_t r, float (*to)[tile_rows]) {
        f32_vector w = load(p);
        const f32_vector first = take_bf16(w);
        const f32_vector second = take_bf16(w);
        store(high_to_low_half(first), to[weight_row(0, r, 0)]);
        store(first, to[weight_row(0, r, 1)]);
        store(high_to_low_half(second), to[weight_row(1, r, 0)]);
        store(second, to[weight_row(1, r, 1)]);
    }

    /// The values of tiles 0 to 3 join the outputs.
    void add_products(const attention_row* rows, std::size_t n_rows, const float* keep) const {
        alignas(64) float products[most_columns][tile_rows][tile_rows];
        tile_store<0>(products[0]);
        tile_store<1>(products[1]);
        tile_store<2>(products[2]);
        tile_store<3>(products[3]);
        for (std::size_t r = 0; r < n_rows; ++r) {
            for (std::size_t i = 0; i < columns_; ++i) {
                for (std::size_t place = 0; place < 2; ++place) {
                    float* out = rows[r].out + i * tile_numbers + place * tile_rows;
                    const f32_vector sum = add(load(products[i][weight_row(1, r, place)]), load(products[i][weight_row(0, r, place)]));
                    store(keep == nullptr ? add(load(out), sum) : mul_add(set(keep[r]), load(out), sum), out);
                }
            }
        }
    }

    tile_configuration configuration_;
    vector_products<Element> rest_;
    std::size_t columns_;                                                  ///< tiles that a row of keys spans
    alignas(64) float queries_[most_columns][tile_rows][tile_rows] = {};  ///< Q: pairs of bf16
    alignas(64) float weights_[4][tile_rows][tile_rows] = {};             ///< W: the same
};

PHI4FLASH_TARGET_END
