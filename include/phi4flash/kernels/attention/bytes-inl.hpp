// Attention of one token over 8-bit keys and values by products of bytes: nothing is widened. A query's numbers, and its weights, become
// integers of 16 bits, two bytes ("digits") each, which is 256 times as fine as the codes they meet. Sums of products are exact.
//
//   scores   four bytes of each of four keys lie together, and meet the same four bytes of a query
//   values   four keys' bytes of a dimension lie together, and meet these keys' weights
//
// Keys come in sixteens, four in a row from each of four places of the tile (see row_streams). While a line is
// used, one is asked for that is used a few steps later, be it of this tile's values or of the next one's keys; only softmax leaves memory waiting.

PHI4FLASH_TARGET_BEGIN

/// Keys that are next to each other, and how many are taken at a time.
inline constexpr std::size_t keys_in_row = 4;
inline constexpr std::size_t keys_at_once = 4 * keys_in_row;
/// Sixteens of keys from asking for a line to its use, and whose values are added up before the sums go back to the cache. 2, 4 and 8
/// were tried on Emerald Rapids: 4 is as good, 8 is slower by 5 %.
inline constexpr std::size_t steps_ahead = 2;

/// How a run of keys is walked: slot 16 * i + 4 * s + j is that of key 4 * i + s * apart + j, i < steps; the rest follow in order.
struct walk_in_sixteens {
    std::size_t steps;
    std::size_t apart;

    explicit walk_in_sixteens(key_run run) : steps(run.count / keys_at_once), apart(steps * keys_in_row) {}
    [[nodiscard]] key_run rest(key_run run) const {
        const std::size_t done = steps * keys_at_once;
        return {run.key + done, run.count - done, run.slot + done};
    }
};

/// Four rows next to each other, and a line of each that is asked for: those that lie `ahead` bytes on, which may be anywhere.
struct four_rows {
    const kv_int8* at;
    std::size_t width;
    std::size_t three_widths;
    std::uintptr_t ahead;

    PHI4FLASH_VECTOR_INLINE void load(signed_bytes& a, signed_bytes& b, signed_bytes& c, signed_bytes& d) const {
        a = load_bytes(at), b = load_bytes(at + width), c = load_bytes(at + 2 * width), d = load_bytes(at + three_widths);
    }
    PHI4FLASH_VECTOR_INLINE void prefetch_first_two() const { prefetch_at(at), prefetch_at(at + width); }
    PHI4FLASH_VECTOR_INLINE void prefetch_last_two() const { prefetch_at(at + 2 * width), prefetch_at(at + three_widths); }

private:
    PHI4FLASH_VECTOR_INLINE void prefetch_at(const kv_int8* p) const {
        prefetch_far(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(p) + ahead));
    }
};

/// Where the rows of a sixteen are, and the same sixteen of another column, or the next one.
struct four_places {
    const kv_int8* at0;
    const kv_int8* at1;
    const kv_int8* at2;
    const kv_int8* at3;
    std::size_t width;
    std::size_t three_widths;
    std::uintptr_t ahead;

    four_places(const kv_int8* p, std::size_t apart, std::size_t row_width)
        : at0(p), at1(p + apart * row_width), at2(p + 2 * apart * row_width), at3(p + 3 * apart * row_width), width(row_width),
          three_widths(3 * row_width), ahead(0) {}
    void advance() {
        const std::size_t numbers = keys_in_row * width;
        at0 += numbers, at1 += numbers, at2 += numbers, at3 += numbers;
    }
    [[nodiscard]] four_rows rows(const kv_int8* at) const { return {at, width, three_widths, ahead}; }
};

inline std::uintptr_t bytes_between(const kv_int8* from, const kv_int8* to) {
    return reinterpret_cast<std::uintptr_t>(to) - reinterpret_cast<std::uintptr_t>(from);
}

/// See vector_products, which also takes the keys that fill no sixteen. Error: <= 3e-5 of the largest value.
template <class Element>
class byte_products {
    static_assert(std::is_same_v<Element, kv_int8>);

public:
    /// Whether the heads of a token do.
    static bool fits(const attention_args& args) {
        return args.d_head % line_numbers == 0 && args.k_per_group * args.d_head <= most_lines * line_numbers &&
               args.k_per_group * args.queries_per_key == batch_rows;
    }

    /// For the rows of a token.
    byte_products(const attention_args& args, const attention_row* rows, std::size_t n_rows)
        : rest_(args, rows, n_rows), k_per_group_(args.k_per_group), lines_(args.d_head / line_numbers) {
        for (std::size_t r = 0; r < batch_rows; ++r) put_query(rows[r].q, lines_, queries_[r]);
    }

    template <class ByKey, class T>
    void in_slots(key_run run, ByKey by_key, T* out) const {
        const walk_in_sixteens walk(run);
        T* to = out + run.slot;
        for (std::size_t i = 0; i < walk.steps; ++i) {
            for (std::size_t s = 0; s < 4; ++s) {
                const std::size_t key = run.key + i * keys_in_row + s * walk.apart;
                for (std::size_t j = 0; j < keys_in_row; ++j) *to++ = by_key(key + j);
            }
        }
        rest_.in_slots(walk.rest(run), by_key, out);
    }

    void scores(const attention_tile<Element>& tile, const attention_row* rows, std::size_t n_rows, key_run run, slot_row* scores) const {
        const walk_in_sixteens walk(run);
        const std::size_t step_numbers = keys_in_row * tile.width;
        four_places k(tile.k + run.key * tile.width, walk.apart, tile.width);
        std::size_t slot = run.slot;
        for (std::size_t i = 0; i < walk.steps; ++i, k.advance(), slot += keys_at_once) {
            k.ahead = i + steps_ahead < walk.steps ? steps_ahead * step_numbers
                                                   : bytes_between(tile.k, tile.v) - (walk.steps - steps_ahead) * step_numbers;
            for (std::size_t base = 0; base < batch_rows; base += 2 * k_per_group_) {
                for (std::size_t r = base; r < base + k_per_group_; ++r)
                    put_sixteen(k, rows[r].key_head * tile.d_head, queries_[r], queries_[r + k_per_group_], scores[r] + slot,
                                scores[r + k_per_group_] + slot);
            }
        }
        if (walk.rest(run).count != 0) rest_.scores(tile, rows, n_rows, walk.rest(run), scores);
    }

    void values(const attention_tile<Element>& tile, const attention_row* rows, std::size_t n_rows, key_run run, const float* keep,
                const slot_row* weights, const slot_scales* scales) {
        const walk_in_sixteens walk(run);
        const std::size_t step_numbers = keys_in_row * tile.width;
        if (walk.steps != 0) {
            float units[max_k_per_group][batch_rows];
            for (std::size_t s = 0; s < k_per_group_; ++s) put_weights(weights, scales[s], walk.steps, weights_[s], units[s]);
            const Element* v = tile.v + run.key * tile.width;
            for (std::size_t i = 0; i < walk.steps; i += steps_ahead, v += steps_ahead * step_numbers) {
                const std::size_t steps = walk.steps - i < steps_ahead ? walk.steps - i : steps_ahead;
                for (std::size_t line = 0; line < k_per_group_ * lines_; ++line) {
                    four_places at(v + line * line_numbers, walk.apart, tile.width);
                    at.ahead = i + steps_ahead < walk.steps ? steps_ahead * step_numbers : bytes_between(v, tile.k + tile_keys * tile.width);
                    const step_digits* w = weights_[line / lines_] + i;
                    add_half<false>(std::make_index_sequence<batch_rows>(), at, steps, w, i == 0, sums_[line][0]);
                    add_half<true>(std::make_index_sequence<batch_rows>(), at, steps, w, i == 0, sums_[line][1]);
                }
            }
            for (std::size_t line = 0; line < k_per_group_ * lines_; ++line) {
                for (std::size_t r = 0; r < batch_rows; ++r)
                    add_sums(sums_[line], r, units[line / lines_][r], keep == nullptr ? 1.0f : keep[r], rows[r].out + line * line_numbers);
            }
            keep = nullptr;
        }
        if (walk.rest(run).count != 0) rest_.values(tile, rows, n_rows, walk.rest(run), keep, weights, scales);
    }

private:
    static constexpr std::size_t line_numbers = 64;  ///< numbers in a vector
    static constexpr std::size_t most_lines = 2;     ///< in a row of keys

    /// A query: its digits, high and low, each four of them repeated for four keys in the order of fours_across; what a product of the digits
    /// is times; and what a sum of products with lifted codes must begin with.
    struct query {
        alignas(64) std::int8_t digits[most_lines][4][2][line_numbers];
        float unit;
        std::int32_t start;
    };
    /// Weights of a sixteen's slots, as store_digits puts them.
    using step_digits = std::uint8_t[batch_rows * 2 * keys_at_once];
    /// Sums over half of a line: two vectors of products with high digits, two with low.
    using half_sums = std::int32_t[4][batch_rows][line_numbers / 4];

    static void put_query(const float* q, std::size_t lines, query& to) {
        f32_vector largest = zero();
        for (std::size_t i = 0; i < lines * line_numbers; i += lanes()) largest = max_of(largest, abs_of(load(q + i)));
        const float most = reduce_max(largest);
        constexpr float most_digits = 127.0f * 256.0f;
        const f32_vector inverse = set(most > 0.0f ? most_digits / most : 0.0f);
        tokens_i32 sum = repeat_integer(0);
        for (std::size_t line = 0; line < lines; ++line) {
            alignas(64) std::int8_t high[line_numbers];
            alignas(64) std::int8_t low[line_numbers];
            for (std::size_t i = 0; i < line_numbers; i += lanes())
                sum = add_integers(sum, store_signed_digits(mul(load(q + line * line_numbers + i), inverse), high + i, low + i));
            repeat_digits(high, low, to.digits[line]);
        }
        to.unit = most / most_digits;
        to.start = -lifted_by * sum_of_integers(sum);
    }
    static void repeat_digits(const std::int8_t* high, const std::int8_t* low, std::int8_t (*to)[2][line_numbers]) {
        const signed_bytes h = load_bytes(high);
        const signed_bytes l = load_bytes(low);
        store_bytes(repeat_fours<0>(h), to[0][0]), store_bytes(repeat_fours<0>(l), to[0][1]);
        store_bytes(repeat_fours<1>(h), to[1][0]), store_bytes(repeat_fours<1>(l), to[1][1]);
        store_bytes(repeat_fours<2>(h), to[2][0]), store_bytes(repeat_fours<2>(l), to[2][1]);
        store_bytes(repeat_fours<3>(h), to[3][0]), store_bytes(repeat_fours<3>(l), to[3][1]);
    }

    PHI4FLASH_VECTOR_INLINE static void add_digits(token_codes k, const std::int8_t (*q)[line_numbers], tokens_i32& high, tokens_i32& low) {
        high = dot_next(high, k, load_bytes(q[0]));
        low = dot_next(low, k, load_bytes(q[1]));
    }
    /// Products of four keys and two queries: a quarter of the sum of each in every quarter.
    PHI4FLASH_VECTOR_INLINE void four_sums(four_rows k, const query& q0, const query& q1, tokens_i32& s0, tokens_i32& s1) const {
        tokens_i32 high0 = repeat_integer(0), low0 = high0, high1 = high0, low1 = high0;
        for (std::size_t line = 0; line < lines_; ++line, k.at += line_numbers) {
            k.prefetch_first_two(), k.prefetch_last_two();
            signed_bytes first, second, third, fourth;
            k.load(first, second, third, fourth);
            token_codes a = lifted(first), b = lifted(second), c = lifted(third), d = lifted(fourth);
            fours_across(a, b, c, d);
            add_digits(a, q0.digits[line][0], high0, low0), add_digits(a, q1.digits[line][0], high1, low1);
            add_digits(b, q0.digits[line][1], high0, low0), add_digits(b, q1.digits[line][1], high1, low1);
            add_digits(c, q0.digits[line][2], high0, low0), add_digits(c, q1.digits[line][2], high1, low1);
            add_digits(d, q0.digits[line][3], high0, low0), add_digits(d, q1.digits[line][3], high1, low1);
        }
        s0 = join_digits(high0, low0);
        s1 = join_digits(high1, low1);
    }
    PHI4FLASH_VECTOR_INLINE void put_sixteen(const four_places& k, std::size_t column, const query& q0, const query& q1, float* to0,
                                             float* to1) const {
        tokens_i32 a0, b0, c0, d0, a1, b1, c1, d1;
        four_sums(k.rows(k.at0 + column), q0, q1, a0, a1);
        four_sums(k.rows(k.at1 + column), q0, q1, b0, b1);
        four_sums(k.rows(k.at2 + column), q0, q1, c0, c1);
        four_sums(k.rows(k.at3 + column), q0, q1, d0, d1);
        put_scores(a0, b0, c0, d0, q0, to0);
        put_scores(a1, b1, c1, d1, q1, to1);
    }
    PHI4FLASH_VECTOR_INLINE static void put_scores(tokens_i32 a, tokens_i32 b, tokens_i32 c, tokens_i32 d, const query& q, float* to) {
        quarters_across(a, b, c, d);
        const tokens_i32 sum = add_integers(add_integers(add_integers(a, b), add_integers(c, d)), repeat_integer(q.start));
        store_tokens(scaled(sum, repeat_tokens(q.unit)), to);
    }

    /// weights * scales as digits; units[r] is what a product of row r's is times.
    static void put_weights(const slot_row* weights, const bf16* scales, std::size_t steps, step_digits* to, float* units) {
        constexpr float most_digits = 65535.0f;
        f32_vector largest[batch_rows] = {zero(), zero(), zero(), zero()};
        f32_vector largest_scale = zero();
        for (std::size_t i = 0; i < steps; ++i) {
            largest_scale = max_of(largest_scale, load(scales + i * keys_at_once));
            for (std::size_t r = 0; r < batch_rows; ++r) largest[r] = max_of(largest[r], load(weights[r] + i * keys_at_once));
        }
        f32_vector inverse[batch_rows];
        for (std::size_t r = 0; r < batch_rows; ++r) {
            const float most = reduce_max(largest[r]) * reduce_max(largest_scale);
            inverse[r] = set(most > 0.0f ? most_digits / most : 0.0f);
            units[r] = most / most_digits;
        }
        for (std::size_t i = 0; i < steps; ++i) {
            const f32_vector scale = load(scales + i * keys_at_once);
            store_digits(digits(weights[0], i, scale, inverse[0]), digits(weights[1], i, scale, inverse[1]), digits(weights[2], i, scale, inverse[2]),
                         digits(weights[3], i, scale, inverse[3]), to[i]);
        }
    }
    PHI4FLASH_VECTOR_INLINE static f32_vector digits(const float* weights, std::size_t step, f32_vector scale, f32_vector inverse) {
        return mul(mul(load(weights + step * keys_at_once), scale), inverse);
    }

    /// sums += weights * values over half of a line: the columns of bytes_across<Upper>. `first`: =.
    template <bool Upper, std::size_t... R>
    PHI4FLASH_VECTOR_INLINE static void add_half(std::index_sequence<R...>, const four_places& v, std::size_t steps, const step_digits* w, bool first,
                                                 half_sums& sums) {
        if (first) {
            add_half<Upper, R...>(v, steps, w, sums, i32_of<R>(repeat_integer(0))..., i32_of<R>(repeat_integer(0))...,
                                  i32_of<R>(repeat_integer(0))..., i32_of<R>(repeat_integer(0))...);
        } else {
            add_half<Upper, R...>(v, steps, w, sums, load_integers(sums[0][R])..., load_integers(sums[1][R])..., load_integers(sums[2][R])...,
                                  load_integers(sums[3][R])...);
        }
    }
    template <bool Upper, std::size_t... R>
    PHI4FLASH_VECTOR_INLINE static void add_half(four_places v, std::size_t steps, const step_digits* w, half_sums& sums, i32_of<R>... high0,
                                                 i32_of<R>... high1, i32_of<R>... low0, i32_of<R>... low1) {
        for (std::size_t i = 0; i < steps; ++i, v.advance(), ++w) {
            add_four<Upper, R...>(v.rows(v.at0), *w, high0..., high1..., low0..., low1...);
            add_four<Upper, R...>(v.rows(v.at1), *w + 16, high0..., high1..., low0..., low1...);
            add_four<Upper, R...>(v.rows(v.at2), *w + 32, high0..., high1..., low0..., low1...);
            add_four<Upper, R...>(v.rows(v.at3), *w + 48, high0..., high1..., low0..., low1...);
        }
        ((store_integers(high0, sums[0][R]), store_integers(high1, sums[1][R]), store_integers(low0, sums[2][R]), store_integers(low1, sums[3][R])),
         ...);
    }
    /// Four keys' bytes. (A function and not a lambda, which compilers may leave where it is, and the sums go through memory.)
    template <bool Upper, std::size_t... R>
    PHI4FLASH_VECTOR_INLINE static void add_four(const four_rows& rows, const std::uint8_t* digits, i32_in<R>... high0, i32_in<R>... high1,
                                                 i32_in<R>... low0, i32_in<R>... low1) {
        Upper ? rows.prefetch_last_two() : rows.prefetch_first_two();
        signed_bytes a, b, c, d, x0, x1;
        rows.load(a, b, c, d);
        bytes_across<Upper>(a, b, c, d, x0, x1);
        (add_two_bytes(repeat_codes(digits + high_digits_at(R)), x0, x1, high0, high1), ...);
        (add_two_bytes(repeat_codes(digits + high_digits_at(R) + keys_in_row), x0, x1, low0, low1), ...);
    }
    PHI4FLASH_VECTOR_INLINE static void add_two_bytes(token_codes w, signed_bytes x0, signed_bytes x1, tokens_i32& s0, tokens_i32& s1) {
        s0 = dot_next(s0, w, x0);
        s1 = dot_next(s1, w, x1);
    }

    /// The sums of a line join an output.
    PHI4FLASH_VECTOR_INLINE static void add_sums(const half_sums* sums, std::size_t r, float unit, float keep, float* out) {
        tokens_f32 a = joined(sums[0], 0, r, unit), b = joined(sums[0], 1, r, unit), c = joined(sums[1], 0, r, unit), d = joined(sums[1], 1, r, unit);
        quarters_across(a, b, c, d);
        add_to(out, a, keep), add_to(out + 16, b, keep), add_to(out + 32, c, keep), add_to(out + 48, d, keep);
    }
    PHI4FLASH_VECTOR_INLINE static tokens_f32 joined(const half_sums& sums, std::size_t vector, std::size_t r, float unit) {
        const tokens_f32 low = scaled(load_integers(sums[2 + vector][r]), repeat_tokens(unit));
        return add_tokens(scaled(load_integers(sums[vector][r]), repeat_tokens(256.0f * unit)), low);
    }
    PHI4FLASH_VECTOR_INLINE static void add_to(float* out, tokens_f32 sum, float keep) {
        store_tokens(multiply_add(repeat_tokens(keep), load_tokens(out), sum), out);
    }

    vector_products<Element> rest_;
    std::size_t k_per_group_;
    std::size_t lines_;  ///< vectors in a head
    query queries_[batch_rows];
    alignas(64) step_digits weights_[max_k_per_group][tile_keys / keys_at_once];
    alignas(64) half_sums sums_[most_lines][2];
};

PHI4FLASH_TARGET_END
