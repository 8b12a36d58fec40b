// Weights in a plain type: how they are read, conversions.

PHI4FLASH_TARGET_BEGIN

/// Places at which weights are read in turn: a core can have more lines on their way than the hardware asks for along one sequential stream.
/// On x86, 1.3 to 1.5 times the bandwidth of one stream; elsewhere nobody has measured.
inline constexpr std::size_t row_streams = PHI4FLASH_ARCH_X86 ? 4 : 1;

/// How far ahead weights are asked for, in bytes: between two loads there is too much to compute for the hardware to run ahead.
inline constexpr std::size_t read_ahead = 2048;

/// Whether weights are asked into the second-level cache only: plain ones, and packed ones. What is asked into the first holds one of its few buffers
/// until memory answers, and loads wait for them: on a Zen 4 passes of 2 to 8 tokens took up to 1.4 times as long with AVX-512, and those of plain
/// weights up to 1.3 times with AVX2. Packed ones lost 4 % there, for they have more to compute. Other x86 processors are assumed to be alike.
inline constexpr bool plain_asks_far = PHI4FLASH_ARCH_X86;
inline constexpr bool packed_asks_far = PHI4FLASH_ARCH_X86 && many_registers;

template <bool Far>
PHI4FLASH_VECTOR_INLINE void prefetch_weights(const void* p) {
    if constexpr (Far) {
        prefetch_far(p);
    } else {
        prefetch(p);
    }
}

/// Asks for the `n` bytes that lie read_ahead further.
template <bool Far>
PHI4FLASH_VECTOR_INLINE void prefetch_ahead(const void* p, std::size_t n) {
    // A number, not a pointer: it may be of nothing that can be pointed at.
    const auto ahead = reinterpret_cast<std::uintptr_t>(p) + read_ahead;
    for (std::size_t line = 0; line < n; line += 64) prefetch_weights<Far>(reinterpret_cast<const void*>(ahead + line));
}

/// Pieces of memory, `row_bytes` apart.
struct byte_rows {
    const std::byte* at;
    std::size_t row_bytes;
    std::size_t count;
    std::size_t bytes;  ///< of each
};

/// Asks for part `part` of `parts` of them, weights or outputs: all at once would stop the core until most lines are there. `Far`: see above.
template <bool Far>
inline void prefetch_rows(const byte_rows& rows, std::size_t part, std::size_t parts) {
    const std::size_t row_lines = rows.bytes / 64 + 1;
    const std::size_t lines = rows.count * row_lines;
    const std::size_t end = (part + 1) * lines / parts;
    std::size_t line = part * lines / parts;
    const std::byte* row = rows.at + line / row_lines * rows.row_bytes;
    for (std::size_t i = line % row_lines; line < end; ++line) {
        prefetch_weights<Far>(row + i * 64);
        if (++i == row_lines) i = 0, row += rows.row_bytes;
    }
}

/// The `n` elements at `from` as f32. Asks for those that lie `ahead` further on the way.
template <class Element>
PHI4FLASH_VECTOR_INLINE void widen(const Element* PHI4FLASH_RESTRICT from, std::size_t n, std::size_t ahead, float* PHI4FLASH_RESTRICT out) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) {
        prefetch_weights<plain_asks_far>(from + ahead + i);
        store(load(from + i), out + i);
    }
    for (; i < n; ++i) out[i] = to_f32(from[i]);
}

template <class Element>
inline void widen_row(const std::byte* w, std::size_t r, std::size_t cols, float* out) {
    widen(reinterpret_cast<const Element*>(w) + r * cols, cols, 0, out);
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
/// Error: |x - scale code| <= scale / 2 (tests/kernels/attention/attention_int8_test.cpp).
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
    const std::size_t part = count / row_streams / step * step;
    f32_vector s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
    f32_vector even;
    f32_vector odd;
    for (std::size_t i = 0; i < part; i += step) {
        for (std::size_t s = 0; s < row_streams; ++s) {
            const bf16* from = p + s * part + i;
            prefetch_ahead<plain_asks_far>(from, step * sizeof(bf16));
            load_even_odd(from, even, odd);
            s0 = add(s0, even), s1 = add(s1, odd);
            load_even_odd(from + step / 2, even, odd);
            s2 = add(s2, even), s3 = add(s3, odd);
        }
    }
    float rest = 0.0f;
    for (std::size_t i = part * row_streams; i < count; ++i) rest += to_f32(p[i]);
    return reduce_sum(add(add(s0, s1), add(s2, s3))) + rest;
}

PHI4FLASH_TARGET_END
