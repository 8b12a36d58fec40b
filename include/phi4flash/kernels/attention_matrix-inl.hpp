// Attention of one token on matrix tiles (AMX). Keys and values are tiles as they lie in memory; what is put into another form are queries
// and weights, which are few:
//
//   scores   C[key][column] = sum_d K[key][d] Q[d][column], a column for each query and each of its parts
//   values   C[row][n] = sum_key W[row][key] V[key][n], where n counts 32-bit words of a row of values: a row of W for each query and each
//            place of a number within a word: the weight stands there, and 0 in the other places
//
// A number in f32 comes in parts whose products are exact: bf16 of falling size, or, times a power of the unit, digits of 8 bits.
//
// The rows of a tile come from 16 places of a tile of keys that are far apart, which the hardware reads ahead by itself.

PHI4FLASH_TARGET_BEGIN

/// How far ahead of its use a line is asked for, in bytes, at each of 16 places.
inline constexpr std::size_t matrix_prefetch_distance = 256;

/// A tile of keys or values: a row is that of 16 places, row_bytes apart.
template <int Tile>
PHI4FLASH_VECTOR_INLINE void load_places(const void* p, std::size_t row_bytes) {
    const auto* ahead = static_cast<const std::byte*>(p) + matrix_prefetch_distance;
    for (std::size_t i = 0; i < tile_rows; ++i, ahead += row_bytes) prefetch(ahead);
    tile_load<Tile>(p, row_bytes);
}

/// Slot 16 * i + s of a run is that of key i + s * places_apart, as far as keys fill tiles.
inline std::size_t places_apart(key_run run) { return run.count / tile_rows; }
/// The keys that fill no tile, for vectors.
inline key_run behind_tiles(key_run run) {
    const std::size_t done = places_apart(run) * tile_rows;
    return {run.key + done, run.count - done, run.slot + done};
}
inline void put_slot_keys(key_run run, std::uint16_t* keys) {
    const std::size_t apart = places_apart(run);
    for (std::size_t i = 0; i < apart * tile_rows; ++i)
        keys[run.slot + i] = static_cast<std::uint16_t>(run.key + i / tile_rows + i % tile_rows * apart);
}

using four_tag = hn::Half<hn::Half<f32_tag>>;

/// Scores of 16 keys [key][row] to their slots of four rows.
PHI4FLASH_VECTOR_INLINE void put_key_scores(const float* scores, std::size_t slot, slot_row* to) {
    f32_vector a, b, c, d;
    hn::LoadInterleaved4(f32_tag(), scores, a, b, c, d);
    store(a, to[0] + slot), store(b, to[1] + slot), store(c, to[2] + slot), store(d, to[3] + slot);
}

/// x to the nearest bf16, as the high half of its bits.
PHI4FLASH_VECTOR_INLINE f32_vector take_bf16(f32_vector& x) {
    const u32_tag du;
    const auto bits = hn::Add(hn::BitCast(du, x), hn::Set(du, 0x8000u));
    const f32_vector part = hn::BitCast(f32_tag(), hn::And(bits, hn::Set(du, 0xffff0000u)));
    x = sub(x, part);
    return part;
}
PHI4FLASH_VECTOR_INLINE f32_vector high_to_low_half(f32_vector x) {
    const u32_tag du;
    return hn::BitCast(f32_tag(), hn::ShiftRight<16>(hn::BitCast(du, x)));
}
PHI4FLASH_VECTOR_INLINE f32_vector both_halves(f32_vector low, f32_vector high) { return hn::Or(high_to_low_half(low), high); }

template <class Element>
class matrix_products;

/// Queries in three parts are all their bits; weights in two lose 2^-17 of themselves at most.
template <>
class matrix_products<bf16> {
public:
    static bool fits(const attention_args& args) {
        return args.d_head % tile_numbers == 0 && args.k_per_group * args.d_head <= most_columns * tile_numbers;
    }

    matrix_products(const attention_args& args, const attention_row* rows, std::size_t n_rows)
        : rest_(args, rows, n_rows), columns_(args.k_per_group * args.d_head / tile_numbers) {
        const std::size_t per_head = args.d_head / tile_numbers;
        for (std::size_t r = 0; r < n_rows; ++r) {
            for (std::size_t i = 0; i < per_head; ++i) put_query(rows[r].q + i * tile_numbers, r, queries_[rows[r].key_head * per_head + i]);
        }
    }

    void slot_keys(key_run run, std::uint16_t* keys) const {
        put_slot_keys(run, keys);
        rest_.slot_keys(behind_tiles(run), keys);
    }

    void scores(const attention_tile<bf16>& tile, const attention_row* rows, std::size_t n_rows, key_run run, slot_row* scores) const {
        const std::size_t apart = places_apart(run);
        const std::size_t stride = apart * tile.width * sizeof(bf16);
        tile_load<4>(queries_[0]);
        if (columns_ > 1) tile_load<5>(queries_[1]);
        if (columns_ > 2) tile_load<6>(queries_[2]);
        if (columns_ > 3) tile_load<7>(queries_[3]);
        alignas(64) float products[2][tile_rows][tile_rows];
        const bf16* k = tile.k + run.key * tile.width;
        std::size_t slot = run.slot;
        for (std::size_t i = 0; i < apart; i += 2, k += 2 * tile.width, slot += 2 * tile_rows) {
            // Two at once, so that one's products are made while the other's leave their tile.
            const bool two = i + 1 < apart;
            multiply_keys<0, 2>(k, stride);
            if (two) multiply_keys<1, 3>(k + tile.width, stride);
            tile_store<0>(products[0]);
            if (two) tile_store<1>(products[1]);
            put_scores(products[0][0], slot, scores);
            if (two) put_scores(products[1][0], slot + tile_rows, scores);
        }
        if (run.count % tile_rows != 0) rest_.scores(tile, rows, n_rows, behind_tiles(run), scores);
    }

    void values(const attention_tile<bf16>& tile, const attention_row* rows, std::size_t n_rows, key_run run, const float* keep,
                const slot_row* const* weights) {
        const std::size_t apart = places_apart(run);
        if (apart != 0) {
            const std::size_t stride = apart * tile.width * sizeof(bf16);
            const bf16* v = tile.v + run.key * tile.width;
            tile_zero<0>();
            tile_zero<1>();
            tile_zero<2>();
            tile_zero<3>();
            for (std::size_t i = 0; i < apart; ++i, v += tile.width) {
                auto* const to = weights_[i % 4];
                for (std::size_t r = 0; r < n_rows; ++r) put_weights(weights[0][r] + run.slot + i * tile_rows, r, to);
                multiply_values(v, stride, to);
            }
            add_products(rows, n_rows, keep);
            keep = nullptr;
        }
        if (run.count % tile_rows != 0) rest_.values(tile, rows, n_rows, behind_tiles(run), keep, weights);
    }

private:
    static constexpr std::size_t tile_numbers = tile_cols / sizeof(bf16);  ///< of a row of a tile
    static constexpr std::size_t most_columns = 4;                         ///< with the queries of each and two of keys, all tiles there are

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

    /// The parts of 16 scores, [key][part][row], added up.
    PHI4FLASH_VECTOR_INLINE static void put_scores(const float* products, std::size_t slot, slot_row* to) {
        alignas(64) float sums[tile_rows * batch_rows];
        for (std::size_t key = 0; key < tile_rows; ++key, products += tile_rows) {
            const auto small = hn::Add(hn::Load(four_tag(), products + 2 * batch_rows), hn::Load(four_tag(), products + batch_rows));
            hn::Store(hn::Add(small, hn::Load(four_tag(), products)), four_tag(), sums + key * batch_rows);
        }
        put_key_scores(sums, slot, to);
    }

    template <int C, int K>
    PHI4FLASH_VECTOR_INLINE void multiply_keys(const bf16* k, std::size_t stride) const {
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

    PHI4FLASH_VECTOR_INLINE void multiply_values(const bf16* v, std::size_t stride, const float (*weights)[tile_rows]) const {
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
    vector_products<bf16> rest_;
    std::size_t columns_;  ///< tiles that a row of keys spans
    alignas(64) float queries_[most_columns][tile_rows][tile_rows] = {};  ///< Q: pairs of bf16
    alignas(64) float weights_[4][tile_rows][tile_rows] = {};               ///< W: the same, for keys in turn
};

/// x as digits of 8 bits, [-128, 127]: x = (d2 * 256 + d1) * 256 + d0.
PHI4FLASH_VECTOR_INLINE hn::Vec<i32_tag> take_digit(hn::Vec<i32_tag>& x) {
    const i32_tag di;
    const auto half = hn::Set(di, 128);
    const auto digit = hn::Sub(hn::And(hn::Add(x, half), hn::Set(di, 255)), half);
    x = hn::ShiftRight<8>(hn::Sub(x, digit));
    return digit;
}
/// The largest number of three digits, and a little less: what is rounded stays below.
inline constexpr float most_of_digits = 127.0f * 65536.0f;

template <class V>
PHI4FLASH_VECTOR_INLINE auto join_digits(V high, V mid, V low) {
    const hn::DFromV<V> di;
    const hn::RebindToFloat<decltype(di)> df;
    const auto base = hn::Set(df, 256.0f);
    return hn::MulAdd(hn::MulAdd(hn::ConvertTo(df, high), base, hn::ConvertTo(df, mid)), base, hn::ConvertTo(df, low));
}

/// Queries are rounded to 2^-24 of their largest number, weights to 2^-24 of the largest in a tile.
template <>
class matrix_products<kv_int8> {
public:
    static bool fits(const attention_args& args) {
        return args.d_head % tile_cols == 0 && args.k_per_group * args.d_head <= most_columns * tile_cols;
    }

    matrix_products(const attention_args& args, const attention_row* rows, std::size_t n_rows)
        : rest_(args, rows, n_rows), columns_(args.k_per_group * args.d_head / tile_cols), columns_per_head_(args.d_head / tile_cols) {
        for (std::size_t r = 0; r < n_rows; ++r) {
            query_unit_[r] = unit_of(rows[r].q, args.d_head);
            for (std::size_t i = 0; i < columns_per_head_; ++i)
                put_query(rows[r].q + i * tile_cols, r, queries_[rows[r].key_head * columns_per_head_ + i]);
        }
    }

    void slot_keys(key_run run, std::uint16_t* keys) const {
        put_slot_keys(run, keys);
        rest_.slot_keys(behind_tiles(run), keys);
    }

    void scores(const attention_tile<kv_int8>& tile, const attention_row* rows, std::size_t n_rows, key_run run, slot_row* scores) const {
        const std::size_t apart = places_apart(run);
        const std::size_t stride = apart * tile.width;
        tile_load<4>(queries_[0]);
        if (columns_ > 1) tile_load<5>(queries_[1]);
        alignas(64) std::int32_t products[2][tile_rows][tile_rows];
        const kv_int8* k = tile.k + run.key * tile.width;
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
        if (run.count % tile_rows != 0) rest_.scores(tile, rows, n_rows, behind_tiles(run), scores);
    }

    void values(const attention_tile<kv_int8>& tile, const attention_row* rows, std::size_t n_rows, key_run run, const float* keep,
                const slot_row* const* weights) {
        const std::size_t apart = places_apart(run);
        if (apart != 0) {
            float unit[max_k_per_group][batch_rows];
            float inverse[max_k_per_group][batch_rows];
            const std::size_t heads = columns_ / columns_per_head_;
            for (std::size_t s = 0; s < heads; ++s) {
                for (std::size_t r = 0; r < n_rows; ++r) {
                    unit[s][r] = unit_of(weights[s][r] + run.slot, apart * tile_rows);
                    inverse[s][r] = 1.0f / unit[s][r];
                }
            }
            const std::size_t stride = apart * tile.width;
            const kv_int8* v = tile.v + run.key * tile.width;
            tile_zero<0>();
            tile_zero<1>();
            tile_zero<2>();
            tile_zero<3>();
            tile_zero<4>();
            tile_zero<5>();
            for (std::size_t i = 0; i < apart; ++i, v += tile.width) {
                auto* const to = weights_[i % 2];
                for (std::size_t s = 0; s < heads; ++s) {
                    for (std::size_t r = 0; r < n_rows; ++r) put_weights(weights[s][r] + run.slot + i * tile_rows, inverse[s][r], r, to[s]);
                }
                multiply_values(v, stride, to);
            }
            add_products(rows, n_rows, keep, unit);
            keep = nullptr;
        }
        if (run.count % tile_rows != 0) rest_.values(tile, rows, n_rows, behind_tiles(run), keep, weights);
    }

private:
    static constexpr std::size_t parts = 3;         ///< of a number, the largest first
    static constexpr std::size_t most_columns = 2;  ///< with a sum for each part, one of weights and one of values, all tiles there are

    /// What 1 stands for, if numbers up to the largest of these are to have three digits.
    static float unit_of(const float* x, std::size_t n) {
        f32_vector most = set(0x1p-100f);
        for (std::size_t i = 0; i < n; i += lanes()) most = max_of(most, abs_of(load(x + i)));
        return reduce_max(most) / most_of_digits;
    }

    /// 64 numbers of query r: four of them for each row of the tile.
    void put_query(const float* q, std::size_t r, std::int8_t (*to)[tile_cols]) const {
        const f32_vector inverse = set(1.0f / query_unit_[r]);
        for (std::size_t d = 0; d < tile_cols; d += lanes()) {
            auto x = hn::NearestInt(mul(load(q + d), inverse));
            for (std::size_t part = parts; part-- > 0;) {
                std::int32_t digits[max_lanes];
                hn::StoreU(take_digit(x), i32_tag(), digits);
                for (std::size_t i = 0; i < lanes(); ++i) to[(d + i) / 4][(part * batch_rows + r) * 4 + (d + i) % 4] = static_cast<std::int8_t>(digits[i]);
            }
        }
    }

    /// The parts of 16 scores, [key][part][row], added up.
    PHI4FLASH_VECTOR_INLINE void put_scores(const std::int32_t* products, std::size_t slot, slot_row* to) const {
        const hn::RebindToSigned<four_tag> di;
        const auto unit = hn::Load(four_tag(), query_unit_);
        alignas(64) float sums[tile_rows * batch_rows];
        for (std::size_t key = 0; key < tile_rows; ++key, products += tile_rows) {
            const auto sum = join_digits(hn::Load(di, products), hn::Load(di, products + batch_rows), hn::Load(di, products + 2 * batch_rows));
            hn::Store(hn::Mul(sum, unit), four_tag(), sums + key * batch_rows);
        }
        put_key_scores(sums, slot, to);
    }

    template <int C, int K>
    PHI4FLASH_VECTOR_INLINE void multiply_keys(const kv_int8* k, std::size_t stride) const {
        tile_zero<C>();
        load_places<K>(k, stride);
        tile_dot<C, K, 4>();
        if (columns_ < 2) return;
        load_places<K>(k + tile_cols, stride);
        tile_dot<C, K, 5>();
    }

    PHI4FLASH_VECTOR_INLINE void multiply_values(const kv_int8* v, std::size_t stride, const std::int32_t (*weights)[parts][tile_rows][tile_rows]) const {
        load_places<7>(v, stride);
        tile_load<6>(weights[0][0]), tile_dot<0, 6, 7>();
        tile_load<6>(weights[0][1]), tile_dot<1, 6, 7>();
        tile_load<6>(weights[0][2]), tile_dot<2, 6, 7>();
        if (columns_ < 2) return;
        const std::size_t s = 1 / columns_per_head_;
        load_places<7>(v + tile_cols, stride);
        tile_load<6>(weights[s][0]), tile_dot<3, 6, 7>();
        tile_load<6>(weights[s][1]), tile_dot<4, 6, 7>();
        tile_load<6>(weights[s][2]), tile_dot<5, 6, 7>();
    }

    /// Rows 4 * r to 4 * r + 3 of each part: a digit of 16 weights in each of the four places of a word.
    PHI4FLASH_VECTOR_INLINE static void put_weights(const float* p, float inverse, std::size_t r, std::int32_t (*to)[tile_rows][tile_rows]) {
        const i32_tag di;
        auto x = hn::NearestInt(mul(load(p), set(inverse)));
        for (std::size_t part = parts; part-- > 0;) {
            const auto digit = hn::And(take_digit(x), hn::Set(di, 255));
            hn::Store(digit, di, to[part][4 * r]);
            hn::Store(hn::ShiftLeft<8>(digit), di, to[part][4 * r + 1]);
            hn::Store(hn::ShiftLeft<16>(digit), di, to[part][4 * r + 2]);
            hn::Store(hn::ShiftLeft<24>(digit), di, to[part][4 * r + 3]);
        }
    }

    /// The values of tiles 0 to 5 join the outputs.
    void add_products(const attention_row* rows, std::size_t n_rows, const float* keep, const float (*unit)[batch_rows]) const {
        alignas(64) std::int32_t products[most_columns * parts][tile_rows][tile_rows];
        tile_store<0>(products[0]);
        tile_store<1>(products[1]);
        tile_store<2>(products[2]);
        tile_store<3>(products[3]);
        tile_store<4>(products[4]);
        tile_store<5>(products[5]);
        for (std::size_t r = 0; r < n_rows; ++r) {
            for (std::size_t i = 0; i < columns_; ++i) {
                alignas(64) float sums[tile_cols];
                const auto* const of = products + parts * i;
                hn::StoreInterleaved4(sum_of(of, 4 * r), sum_of(of, 4 * r + 1), sum_of(of, 4 * r + 2), sum_of(of, 4 * r + 3), f32_tag(), sums);
                const f32_vector times = set(unit[i / columns_per_head_][r]);
                float* out = rows[r].out + i * tile_cols;
                for (std::size_t n = 0; n < tile_cols; n += lanes()) {
                    const f32_vector before = keep == nullptr ? load(out + n) : mul(set(keep[r]), load(out + n));
                    store(mul_add(times, load(sums + n), before), out + n);
                }
            }
        }
    }
    PHI4FLASH_VECTOR_INLINE static f32_vector sum_of(const std::int32_t (*parts_of)[tile_rows][tile_rows], std::size_t row) {
        const i32_tag di;
        return join_digits(hn::Load(di, parts_of[0][row]), hn::Load(di, parts_of[1][row]), hn::Load(di, parts_of[2][row]));
    }

    tile_configuration configuration_;
    vector_products<kv_int8> rest_;
    std::size_t columns_;  ///< tiles that a row of keys spans
    std::size_t columns_per_head_;
    alignas(64) float query_unit_[batch_rows] = {};
    alignas(64) std::int8_t queries_[most_columns][tile_rows][tile_cols] = {};                        ///< Q
    alignas(64) std::int32_t weights_[2][max_k_per_group][parts][tile_rows][tile_rows] = {};  ///< W, for keys in turn
};

/// As attention; one token on matrix tiles, if its heads fit. Error there: <= 2e-6 of the largest value.
template <class Element>
inline void attention_on_tiles(const attention_args& args, std::size_t group, std::size_t token_begin, std::size_t token_end,
                               const kv_segment* segments, std::size_t n_segments) {
    if (args.tokens == 1 && args.k_per_group * args.queries_per_key <= batch_rows && matrix_products<Element>::fits(args)) {
        attend_few<Element, matrix_products>(args, group, token_begin, token_end, segments, n_segments);
    } else {
        attention<Element>(args, group, token_begin, token_end, segments, n_segments);
    }
}

PHI4FLASH_TARGET_END
