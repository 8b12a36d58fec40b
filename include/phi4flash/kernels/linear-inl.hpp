// Weights in a plain type: products with one activation column, conversions, reading.

PHI4FLASH_TARGET_BEGIN

/// How far ahead weights are asked for, in bytes: between two loads there is too much to compute for the hardware to run ahead.
inline constexpr std::size_t read_ahead = 2048;

/// Asks for the `n` bytes that lie read_ahead further.
PHI4FLASH_VECTOR_INLINE void prefetch_ahead(const void* p, std::size_t n) {
    for (std::size_t line = 0; line < n; line += 64) prefetch(static_cast<const std::byte*>(p) + read_ahead + line);
}

/// sum_i a[i] b[i].   a: n elements, b: f32 [n].   Four independent sums hide the latency of the additions.
template <class Element>
PHI4FLASH_VECTOR_INLINE float dot(const Element* PHI4FLASH_RESTRICT a, const float* PHI4FLASH_RESTRICT b, std::size_t n) {
    const std::size_t lane_count = lanes();
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    f32_vector s2 = zero();
    f32_vector s3 = zero();
    std::size_t i = 0;
    for (; i + 4 * lane_count <= n; i += 4 * lane_count) {
        prefetch_ahead(a + i, 4 * lane_count * sizeof(Element));
        s0 = mul_add(load(a + i), load(b + i), s0);
        s1 = mul_add(load(a + i + lane_count), load(b + i + lane_count), s1);
        s2 = mul_add(load(a + i + 2 * lane_count), load(b + i + 2 * lane_count), s2);
        s3 = mul_add(load(a + i + 3 * lane_count), load(b + i + 3 * lane_count), s3);
    }
    for (; i + lane_count <= n; i += lane_count) s0 = mul_add(load(a + i), load(b + i), s0);
    if (i < n) s1 = mul_add(load_first(a + i, n - i), load_first(b + i, n - i), s1);
    return reduce_sum(add(add(s0, s1), add(s2, s3)));
}

/// The same for bf16 weights and an x arranged by `arrange_even_odd`: blocks of 2 * lanes() with the even elements first.
PHI4FLASH_VECTOR_INLINE float dot_arranged(const bf16* PHI4FLASH_RESTRICT a, const float* PHI4FLASH_RESTRICT x, std::size_t n) {
    const std::size_t lane_count = lanes();
    const std::size_t step = 2 * lane_count;
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    f32_vector s2 = zero();
    f32_vector s3 = zero();
    f32_vector even;
    f32_vector odd;
    std::size_t i = 0;
    for (; i + 2 * step <= n; i += 2 * step) {
        prefetch_ahead(a + i, 2 * step * sizeof(bf16));
        load_even_odd(a + i, even, odd);
        s0 = mul_add(even, load(x + i), s0);
        s1 = mul_add(odd, load(x + i + lane_count), s1);
        load_even_odd(a + i + step, even, odd);
        s2 = mul_add(even, load(x + i + step), s2);
        s3 = mul_add(odd, load(x + i + step + lane_count), s3);
    }
    for (; i < n; i += step) {
        bf16 last[2 * max_lanes] = {};
        const bf16* block = a + i;
        if (i + step > n) {  // a ragged end: what lies behind it belongs to somebody else
            for (std::size_t j = i; j < n; ++j) last[j - i] = a[j];
            block = last;
        }
        load_even_odd(block, even, odd);
        s0 = mul_add(even, load(x + i), s0);
        s1 = mul_add(odd, load(x + i + lane_count), s1);
    }
    return reduce_sum(add(add(s0, s1), add(s2, s3)));
}

/// One row after the other: a single sequential stream, which is what memory likes best.
template <class Element>
inline void matvec(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* arranged, const float* bias, float* y) {
    const auto* x = reinterpret_cast<const float*>(arranged);
    const auto* row = reinterpret_cast<const Element*>(w);
    for (std::size_t r = 0; r < rows; ++r, row += cols) {
        float sum = 0.0f;
        if constexpr (dtype_of<Element> == dtype::bf16) {
            sum = dot_arranged(row, x, cols);
        } else {
            sum = dot(row, x, cols);
        }
        y[r] = bias == nullptr ? sum : sum + bias[r];
    }
}

template <class Element>
inline void widen(const std::byte* w, std::size_t cols, float* PHI4FLASH_RESTRICT out) {
    const auto* in = reinterpret_cast<const Element*>(w);
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= cols; i += lane_count) store(load(in + i), out + i);
    for (; i < cols; ++i) out[i] = to_f32(in[i]);
}

template <class Element>
inline void widen_row(const std::byte* w, std::size_t r, std::size_t cols, float* out) {
    widen<Element>(w + r * cols * sizeof(Element), cols, out);
}

template <class Element>
inline void narrow(const float* PHI4FLASH_RESTRICT x, std::size_t n, std::byte* PHI4FLASH_RESTRICT out) {
    auto* to = reinterpret_cast<Element*>(out);
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(load(x + i), to + i);
    for (; i < n; ++i) to[i] = from_f32<Element>(x[i]);
}

/// code[i] = round(x[i] / scale), scale = max |x| / 127 as a bf16.
/// Error: |x - scale code| <= scale / 2 (tests/kernels/attention_int8_test.cpp).
inline void quantize(const float* PHI4FLASH_RESTRICT x, std::size_t n, kv_int8* PHI4FLASH_RESTRICT codes, bf16* scale) {
    const std::size_t lane_count = lanes();
    f32_vector highest = zero();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) highest = max_of(highest, abs_of(load(x + i)));
    if (i < n) highest = max_of(highest, abs_of(load_first(x + i, n - i)));
    // The codes are those of the scale that is stored. Where its inverse would overflow, everything is as good as zero.
    const bf16 stored = to_bf16(reduce_max(highest) / 127.0f);
    const float step = to_f32(stored) >= 1e-36f ? to_f32(stored) : 0.0f;
    *scale = to_bf16(step);
    const f32_vector inverse = set(step > 0.0f ? 1.0f / step : 0.0f);
    float rounded[max_lanes];
    for (i = 0; i < n; i += lane_count) {
        const std::size_t count = n - i < lane_count ? n - i : lane_count;
        const f32_vector scaled = mul(count < lane_count ? load_first(x + i, count) : load(x + i), inverse);
        store(round_nearest(max_of(min_of(scaled, set(127.0f)), set(-127.0f))), rounded);
        for (std::size_t k = 0; k < count; ++k) codes[i + k].code = static_cast<std::int8_t>(rounded[k]);
    }
}

inline float read_all(const std::byte* data, std::size_t bytes) {
    const auto* p = reinterpret_cast<const bf16*>(data);
    const std::size_t step = 4 * lanes();
    const std::size_t count = bytes / sizeof(bf16);
    f32_vector s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
    f32_vector even;
    f32_vector odd;
    std::size_t i = 0;
    for (; i + step <= count; i += step) {
        prefetch_ahead(p + i, step * sizeof(bf16));
        load_even_odd(p + i, even, odd);
        s0 = add(s0, even), s1 = add(s1, odd);
        load_even_odd(p + i + step / 2, even, odd);
        s2 = add(s2, even), s3 = add(s3, odd);
    }
    float rest = 0.0f;
    for (; i < count; ++i) rest += to_f32(p[i]);
    return reduce_sum(add(add(s0, s1), add(s2, s3))) + rest;
}

PHI4FLASH_TARGET_END
