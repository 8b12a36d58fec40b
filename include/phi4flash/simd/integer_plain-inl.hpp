// The integer part of the vocabulary in plain C++, for back ends without byte products. See simd/integer-inl.hpp.

PHI4FLASH_TARGET_BEGIN

inline constexpr std::size_t plain_rows = 8;
struct rows_i32 {
    std::int32_t lane[plain_rows];
};
struct rows_f32 {
    float lane[plain_rows];
};
struct code_vector {
    std::uint8_t byte[4 * plain_rows];
};
struct signed_code_vector {
    std::int8_t byte[4 * plain_rows];
};
// Tokens are counted as rows are.
using tokens_f32 = rows_f32;
using token_codes = code_vector;

PHI4FLASH_VECTOR_INLINE constexpr std::size_t rows_lanes() { return plain_rows; }
PHI4FLASH_VECTOR_INLINE code_vector load_codes(const std::uint8_t* p) {
    code_vector v;
    std::memcpy(v.byte, p, sizeof v.byte);
    return v;
}
PHI4FLASH_VECTOR_INLINE signed_code_vector load_codes(const std::int8_t* p) {
    signed_code_vector v;
    std::memcpy(v.byte, p, sizeof v.byte);
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector load_levels(const std::uint8_t* sixteen) {
    code_vector v;
    for (std::size_t i = 0; i < sizeof v.byte; ++i) v.byte[i] = sixteen[i % 16];
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector low_codes(code_vector v) {
    for (std::uint8_t& b : v.byte) b = b & 15u;
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector high_codes(code_vector v) {
    for (std::uint8_t& b : v.byte) b = static_cast<std::uint8_t>(b >> 4);
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector levels_of(const code_vector& levels, code_vector codes) {
    for (std::uint8_t& b : codes.byte) b = levels.byte[b];
    return codes;
}
PHI4FLASH_VECTOR_INLINE signed_code_vector broadcast_four(const std::int8_t* p) {
    signed_code_vector v;
    for (std::size_t i = 0; i < sizeof v.byte; ++i) v.byte[i] = p[i % 4];
    return v;
}

namespace detail {
/// a * b + c: always fused or never, whatever the compiler would like.
PHI4FLASH_VECTOR_INLINE float fused(float a, float b, float c) {
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__)
    return std::fma(a, b, c);
#else
    return a * b + c;
#endif
}

template <class Codes>
PHI4FLASH_VECTOR_INLINE rows_i32 plain_dot(rows_i32 total, const Codes& w, const signed_code_vector& x) {
    for (std::size_t r = 0; r < plain_rows; ++r) {
        for (std::size_t i = 0; i < 4; ++i) total.lane[r] += static_cast<std::int32_t>(w.byte[4 * r + i]) * x.byte[4 * r + i];
    }
    return total;
}
}  // namespace detail

PHI4FLASH_VECTOR_INLINE rows_i32 set_rows(std::int32_t x) {
    rows_i32 v;
    for (std::int32_t& lane : v.lane) lane = x;
    return v;
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_next(const rows_i32& sums, const code_vector& w, const signed_code_vector& x) {
    return detail::plain_dot(sums, w, x);
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(const rows_i32& sums) { return sums; }
inline constexpr int dense_activation_sum = 0;
PHI4FLASH_VECTOR_INLINE std::int32_t dot_start(int first, int second) { return first + second; }
PHI4FLASH_VECTOR_INLINE rows_i32 load_starts(const std::int32_t* p) {
    rows_i32 v;
    std::memcpy(v.lane, p, sizeof v.lane);
    return v;
}
inline constexpr int signed_offset = 0;
PHI4FLASH_VECTOR_INLINE rows_i32 dot_signed(const rows_i32& total, const signed_code_vector& w, const signed_code_vector& x) {
    return detail::plain_dot(total, w, x);
}

PHI4FLASH_VECTOR_INLINE rows_f32 zero_rows() { return {}; }
PHI4FLASH_VECTOR_INLINE rows_f32 load_scales(const f16* p) {
    rows_f32 v;
    for (std::size_t r = 0; r < plain_rows; ++r) v.lane[r] = to_f32(p[r]);
    return v;
}
// Products are rounded before they are added, or fused, by the same rule in every function: results must not depend on the cut.
PHI4FLASH_VECTOR_INLINE rows_f32 scaled(const rows_i32& sums, rows_f32 scale) {
    for (std::size_t r = 0; r < plain_rows; ++r) scale.lane[r] *= static_cast<float>(sums.lane[r]);
    return scale;
}
PHI4FLASH_VECTOR_INLINE rows_f32 multiply_add(const rows_f32& a, const rows_f32& b, rows_f32 c) {
    for (std::size_t r = 0; r < plain_rows; ++r) c.lane[r] = detail::fused(a.lane[r], b.lane[r], c.lane[r]);
    return c;
}
PHI4FLASH_VECTOR_INLINE rows_f32 add_rows_f32(const rows_f32& a, rows_f32 b) {
    for (std::size_t r = 0; r < plain_rows; ++r) b.lane[r] = a.lane[r] + b.lane[r];
    return b;
}
PHI4FLASH_VECTOR_INLINE rows_f32 repeat_rows(float x) {
    rows_f32 v;
    for (float& lane : v.lane) lane = x;
    return v;
}
template <int Byte, class Codes>
PHI4FLASH_VECTOR_INLINE rows_f32 bytes_of(const Codes& codes) {
    rows_f32 v;
    for (std::size_t r = 0; r < plain_rows; ++r) v.lane[r] = static_cast<float>(codes.byte[4 * r + Byte]);
    return v;
}
PHI4FLASH_VECTOR_INLINE rows_f32 load_rows(const float* p) {
    rows_f32 v;
    for (std::size_t r = 0; r < plain_rows; ++r) v.lane[r] = p[r];
    return v;
}
PHI4FLASH_VECTOR_INLINE void store_rows(const rows_f32& v, float* p) {
    for (std::size_t r = 0; r < plain_rows; ++r) p[r] = v.lane[r];
}

PHI4FLASH_VECTOR_INLINE void store_codes(const code_vector& v, std::uint8_t* p) { std::memcpy(p, v.byte, sizeof v.byte); }

PHI4FLASH_VECTOR_INLINE constexpr std::size_t tokens_lanes() { return plain_rows; }
PHI4FLASH_VECTOR_INLINE signed_code_vector load_tokens(const std::int8_t* p) { return load_codes(p); }
PHI4FLASH_VECTOR_INLINE tokens_f32 load_tokens(const float* p) { return load_rows(p); }
PHI4FLASH_VECTOR_INLINE void store_tokens(const tokens_f32& v, float* p) { store_rows(v, p); }
PHI4FLASH_VECTOR_INLINE tokens_f32 repeat_tokens(float x) { return repeat_rows(x); }
PHI4FLASH_VECTOR_INLINE tokens_f32 add_tokens(const tokens_f32& a, const tokens_f32& b) { return add_rows_f32(a, b); }
PHI4FLASH_VECTOR_INLINE void store_across(const tokens_f32& a, const tokens_f32& b, const tokens_f32& c, const tokens_f32& d, float* p,
                                          std::size_t stride) {
    for (std::size_t t = 0; t < plain_rows; ++t, p += stride) p[0] = a.lane[t], p[1] = b.lane[t], p[2] = c.lane[t], p[3] = d.lane[t];
}
PHI4FLASH_VECTOR_INLINE token_codes repeat_codes(const std::uint8_t* p) {
    token_codes v;
    for (std::size_t i = 0; i < sizeof v.byte; ++i) v.byte[i] = p[i % 4];
    return v;
}

// Rows are as many as a vector has.
inline constexpr std::size_t wide_blocks = 1;
using wide_i32 = rows_i32;
using wide_f32 = rows_f32;
using wide_codes = code_vector;
using wide_bytes = signed_code_vector;
PHI4FLASH_VECTOR_INLINE constexpr std::size_t wide_rows() { return plain_rows; }
PHI4FLASH_VECTOR_INLINE code_vector codes_of_rows(const std::uint8_t* p, const std::uint8_t*) { return load_codes(p); }
PHI4FLASH_VECTOR_INLINE code_vector codes_of_rows(const std::int8_t* p, const std::int8_t*) { return std::bit_cast<code_vector>(load_codes(p)); }
PHI4FLASH_VECTOR_INLINE signed_code_vector with_sign(const code_vector& v) { return std::bit_cast<signed_code_vector>(v); }
PHI4FLASH_VECTOR_INLINE rows_f32 scales_of_rows(const f16* p, const f16*) { return load_scales(p); }
PHI4FLASH_VECTOR_INLINE signed_code_vector repeat_activations(const std::int8_t* p) { return broadcast_four(p); }
PHI4FLASH_VECTOR_INLINE rows_f32 load_wide(const float* p) { return load_rows(p); }
PHI4FLASH_VECTOR_INLINE void store_wide(const rows_f32& v, float* p) { store_rows(v, p); }
PHI4FLASH_VECTOR_INLINE rows_f32 repeat_wide(float x) { return repeat_rows(x); }
PHI4FLASH_VECTOR_INLINE rows_f32 add_wide(const rows_f32& a, const rows_f32& b) { return add_rows_f32(a, b); }
PHI4FLASH_VECTOR_INLINE rows_f32 wide_floats(const rows_i32& v) {
    rows_f32 floats;
    for (std::size_t r = 0; r < plain_rows; ++r) floats.lane[r] = static_cast<float>(v.lane[r]);
    return floats;
}
PHI4FLASH_VECTOR_INLINE code_vector repeat_levels(const std::uint8_t* sixteen) { return load_levels(sixteen); }
PHI4FLASH_VECTOR_INLINE code_vector low_levels(const code_vector& levels, const code_vector& codes) { return levels_of(levels, low_codes(codes)); }
PHI4FLASH_VECTOR_INLINE code_vector high_levels(const code_vector& levels, const code_vector& codes) { return levels_of(levels, high_codes(codes)); }

struct own_products {
    static constexpr int activation_sum = dense_activation_sum;
    static constexpr int byte_offset = signed_offset;
    static constexpr bool picks_columns = false;
    static PHI4FLASH_VECTOR_INLINE std::int32_t start(int first, int second) { return dot_start(first, second); }
    static PHI4FLASH_VECTOR_INLINE rows_i32 begin(std::int32_t start) { return set_rows(start); }
    static PHI4FLASH_VECTOR_INLINE rows_i32 next(const rows_i32& sums, const code_vector& w, const signed_code_vector& x) {
        return dot_next(sums, w, x);
    }
    static PHI4FLASH_VECTOR_INLINE rows_i32 fold(const rows_i32& sums) { return sums; }
    static PHI4FLASH_VECTOR_INLINE rows_i32 begin_bytes(std::int32_t start) { return set_rows(start); }
    static PHI4FLASH_VECTOR_INLINE rows_i32 next_bytes(const rows_i32& sums, const signed_code_vector& w, const signed_code_vector& x) {
        return dot_signed(sums, w, x);
    }
};

inline constexpr bool integer_scales = false;
PHI4FLASH_VECTOR_INLINE tokens_f32 block_zero() { return {}; }
PHI4FLASH_VECTOR_INLINE tokens_f32 repeat_scale(const std::uint32_t* p) {
    float scale;
    std::memcpy(&scale, p, sizeof scale);
    return repeat_tokens(scale);
}
PHI4FLASH_VECTOR_INLINE tokens_f32 block_add(tokens_f32 block, const rows_i32& sums, const tokens_f32& scale) {
    for (std::size_t t = 0; t < plain_rows; ++t) block.lane[t] = detail::fused(static_cast<float>(sums.lane[t]), scale.lane[t], block.lane[t]);
    return block;
}
PHI4FLASH_VECTOR_INLINE tokens_f32 block_floats(const tokens_f32& block, float) { return block; }

PHI4FLASH_TARGET_END
