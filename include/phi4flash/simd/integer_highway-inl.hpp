// The integer part of the vocabulary over Highway. See simd/integer-inl.hpp for what each word means.

PHI4FLASH_TARGET_BEGIN

using rows_tag = hn::CappedTag<std::int32_t, 8>;
using rows_f32_tag = hn::RebindToFloat<rows_tag>;
using rows_u8_tag = hn::Repartition<std::uint8_t, rows_tag>;
using rows_i8_tag = hn::Repartition<std::int8_t, rows_tag>;
using rows_i32 = hn::Vec<rows_tag>;
using rows_f32 = hn::Vec<rows_f32_tag>;
using code_vector = hn::Vec<rows_u8_tag>;
using signed_code_vector = hn::Vec<rows_i8_tag>;

PHI4FLASH_VECTOR_INLINE std::size_t rows_lanes() { return hn::Lanes(rows_tag()); }
PHI4FLASH_VECTOR_INLINE code_vector load_codes(const std::uint8_t* p) { return hn::LoadU(rows_u8_tag(), p); }
PHI4FLASH_VECTOR_INLINE signed_code_vector load_codes(const std::int8_t* p) { return hn::LoadU(rows_i8_tag(), p); }
PHI4FLASH_VECTOR_INLINE code_vector load_levels(const std::uint8_t* sixteen) { return hn::LoadDup128(rows_u8_tag(), sixteen); }
template <class Codes>
PHI4FLASH_VECTOR_INLINE Codes low_codes(Codes v) {
    return hn::And(v, hn::Set(hn::DFromV<Codes>(), std::uint8_t{15}));
}
template <class Codes>
PHI4FLASH_VECTOR_INLINE Codes high_codes(Codes v) {
#if HWY_ARCH_X86
    const hn::DFromV<Codes> d;
    return low_codes(hn::BitCast(d, hn::ShiftRight<4>(hn::BitCast(hn::Repartition<std::uint16_t, decltype(d)>(), v))));
#else  // others shift bytes
    return hn::ShiftRight<4>(v);
#endif
}
PHI4FLASH_VECTOR_INLINE code_vector levels_of(code_vector levels, code_vector codes) { return hn::TableLookupBytes(levels, codes); }

// A number for each of several tokens: whole vectors, where the rows of a block would fill a part.
using tokens_tag = hn::CappedTag<std::int32_t, 16>;
using tokens_f32_tag = hn::RebindToFloat<tokens_tag>;
using tokens_i8_tag = hn::Repartition<std::int8_t, tokens_tag>;
using tokens_u8_tag = hn::Repartition<std::uint8_t, tokens_tag>;
using tokens_f32 = hn::Vec<tokens_f32_tag>;
using token_codes = hn::Vec<tokens_u8_tag>;

PHI4FLASH_VECTOR_INLINE std::size_t tokens_lanes() { return hn::Lanes(tokens_tag()); }
PHI4FLASH_VECTOR_INLINE hn::Vec<tokens_i8_tag> load_tokens(const std::int8_t* p) { return hn::LoadU(tokens_i8_tag(), p); }
PHI4FLASH_VECTOR_INLINE token_codes repeat_codes(const std::uint8_t* p) {
    std::int32_t four;
    std::memcpy(&four, p, sizeof four);
    return hn::BitCast(tokens_u8_tag(), hn::Set(tokens_tag(), four));
}

/// The value as it is now, in a register: g++ turns a chain of integer sums into a tree, or carries copies of them through a loop, which needs
/// more registers than there are: a fifth of the speed of a matmul.
template <class Sums>
PHI4FLASH_VECTOR_INLINE Sums in_this_order(Sums sums) {
#if HWY_ARCH_X86 && defined(__GNUC__) && !defined(__clang__)
    asm("" : "+v"(sums.raw));
#endif
    return sums;
}

#if HWY_TARGET_IS_NEON && HWY_ARCH_ARM_A64
/// total + four products, in four instructions: two products of [-128, 127] and [-127, 127] fit 16 bits. Highway widens both sides first.
template <class Integers, class Bytes>
PHI4FLASH_VECTOR_INLINE Integers neon_dot(Integers total, Bytes w, Bytes x) {
    const int16x8_t low = vmull_s8(vget_low_s8(w.raw), vget_low_s8(x.raw));
    return Integers(vpadalq_s16(total.raw, vpaddq_s16(low, vmull_high_s8(w.raw, x.raw))));
}
#endif

// x86 before VNNI multiplies bytes into saturating 16-bit pairs, whose sums may wrap on the way; everything else sums four products into
// 32 bits.
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL
using dot_lane = std::int16_t;
template <class Sums, class Codes, class Activations>
PHI4FLASH_VECTOR_INLINE Sums dot_next(Sums sums, Codes w, Activations x) {
    return in_this_order(hn::Add(sums, hn::SatWidenMulPairwiseAdd(hn::DFromV<Sums>(), w, x)));
}
template <class Sums>
PHI4FLASH_VECTOR_INLINE auto dot_fold(Sums sums) {
    const hn::DFromV<Sums> d;
    return hn::WidenMulPairwiseAdd(hn::Repartition<std::int32_t, decltype(d)>(), sums, hn::Set(d, std::int16_t{1}));
}
/// Sums of several groups, each times its row's scale as an integer below 2^12: scale_groups of them fit 32 bits.
inline constexpr bool integer_scales = true;
PHI4FLASH_VECTOR_INLINE auto block_zero() { return hn::Zero(tokens_tag()); }
PHI4FLASH_VECTOR_INLINE auto repeat_scale(const std::uint32_t* p) {
    return hn::BitCast(hn::Repartition<std::int16_t, tokens_tag>(), hn::Set(tokens_tag(), static_cast<std::int32_t>(*p)));
}
template <class Block, class Sums, class Scale>
PHI4FLASH_VECTOR_INLINE Block block_add(Block block, Sums sums, Scale scale) {
    return in_this_order(hn::Add(block, hn::WidenMulPairwiseAdd(hn::DFromV<Block>(), sums, scale)));
}
template <class Block>
PHI4FLASH_VECTOR_INLINE tokens_f32 block_floats(Block block, float unit) {
    const tokens_f32_tag df;
    return hn::Mul(hn::ConvertTo(df, block), hn::Set(df, unit));
}
/// A 16-bit sum has sixteen products of a weight and an activation: it fits where these sixteen activations do not sum to more.
inline constexpr int dense_activation_sum = 32767 / q4_dense.zero;
/// -zero times the sums of the activations that each of a token's two sums meets.
PHI4FLASH_VECTOR_INLINE std::int32_t dot_start(int first, int second) {
    return static_cast<std::int32_t>((static_cast<std::uint32_t>(second) << 16) | (static_cast<std::uint32_t>(first) & 0xffffu));
}
#else
using dot_lane = std::int32_t;
template <class Sums, class Codes, class Activations>
PHI4FLASH_VECTOR_INLINE Sums dot_next(Sums sums, Codes w, Activations x) {
#if HWY_ARCH_X86
    return hn::SumOfMulQuadAccumulate(hn::DFromV<Sums>(), w, x, sums);
#elif HWY_TARGET_IS_NEON && HWY_ARCH_ARM_A64
    return neon_dot(sums, hn::BitCast(hn::DFromV<Activations>(), w), x);
#else  // levels are below 128, so they are signed bytes too, for which other architectures have the instruction
    return hn::SumOfMulQuadAccumulate(hn::DFromV<Sums>(), hn::BitCast(hn::DFromV<Activations>(), w), x, sums);
#endif
}
template <class Sums>
PHI4FLASH_VECTOR_INLINE Sums dot_fold(Sums sums) {
    return sums;
}
inline constexpr int dense_activation_sum = 0;
PHI4FLASH_VECTOR_INLINE std::int32_t dot_start(int first, int second) { return first + second; }

inline constexpr bool integer_scales = false;
PHI4FLASH_VECTOR_INLINE tokens_f32 block_zero() { return hn::Zero(tokens_f32_tag()); }
PHI4FLASH_VECTOR_INLINE tokens_f32 repeat_scale(const std::uint32_t* p) {
    return hn::BitCast(tokens_f32_tag(), hn::Set(tokens_tag(), static_cast<std::int32_t>(*p)));
}
template <class Sums>
PHI4FLASH_VECTOR_INLINE tokens_f32 block_add(tokens_f32 block, Sums sums, tokens_f32 scale) {
    return hn::MulAdd(hn::ConvertTo(tokens_f32_tag(), sums), scale, block);
}
PHI4FLASH_VECTOR_INLINE tokens_f32 block_floats(tokens_f32 block, float) { return block; }
#endif
PHI4FLASH_VECTOR_INLINE auto load_starts(const std::int32_t* p) {
    return hn::BitCast(hn::Repartition<dot_lane, tokens_tag>(), hn::LoadU(tokens_tag(), p));
}

#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL
// |w| * (x with the sign of w): two products of at most 128 * 127 fit 16 bits, where an offset would not.
template <class Integers, class Bytes>
PHI4FLASH_VECTOR_INLINE Integers dot_signed(Integers total, Bytes w, Bytes x) {
    const hn::DFromV<Integers> d;
    const hn::Repartition<std::int16_t, decltype(d)> d16;
    const auto magnitude = hn::BitCast(hn::Repartition<std::uint8_t, decltype(d)>(), hn::Abs(w));
    const auto signed_x = hn::IfNegativeThenNegOrUndefIfZero(w, x);
    return hn::Add(total, hn::WidenMulPairwiseAdd(d, hn::SatWidenMulPairwiseAdd(d16, magnitude, signed_x), hn::Set(d16, std::int16_t{1})));
}
inline constexpr int signed_offset = 0;
#elif HWY_ARCH_X86
// VNNI wants one side without a sign.
template <class Integers, class Bytes>
PHI4FLASH_VECTOR_INLINE Integers dot_signed(Integers total, Bytes w, Bytes x) {
    const hn::DFromV<Integers> d;
    const auto lifted = hn::Xor(w, hn::Set(hn::DFromV<Bytes>(), std::int8_t{-128}));
    return hn::SumOfMulQuadAccumulate(d, hn::BitCast(hn::Repartition<std::uint8_t, decltype(d)>(), lifted), x, total);
}
inline constexpr int signed_offset = 128;
#else
template <class Integers, class Bytes>
PHI4FLASH_VECTOR_INLINE Integers dot_signed(Integers total, Bytes w, Bytes x) {
#if HWY_TARGET_IS_NEON && HWY_ARCH_ARM_A64
    return neon_dot(total, w, x);
#else
    return hn::SumOfMulQuadAccumulate(hn::DFromV<Integers>(), w, x, total);
#endif
}
inline constexpr int signed_offset = 0;
#endif


PHI4FLASH_VECTOR_INLINE rows_f32 zero_rows() { return hn::Zero(rows_f32_tag()); }
PHI4FLASH_VECTOR_INLINE rows_f32 load_scales(const f16* p) { return promote_f16(rows_f32_tag(), p); }
template <class Integers, class Floats>
PHI4FLASH_VECTOR_INLINE Floats scaled(Integers sums, Floats scale) {
    return hn::Mul(hn::ConvertTo(hn::DFromV<Floats>(), sums), scale);
}
template <class Floats>
PHI4FLASH_VECTOR_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
    return hn::MulAdd(a, b, c);
}
PHI4FLASH_VECTOR_INLINE rows_f32 add_rows_f32(rows_f32 a, rows_f32 b) { return hn::Add(a, b); }
PHI4FLASH_VECTOR_INLINE rows_f32 repeat_rows(float x) { return hn::Set(rows_f32_tag(), x); }
template <int Byte>
PHI4FLASH_VECTOR_INLINE rows_f32 bytes_of(code_vector v) {
    return hn::ConvertTo(rows_f32_tag(), hn::And(hn::ShiftRight<8 * Byte>(hn::BitCast(rows_tag(), v)), hn::Set(rows_tag(), 255)));
}
template <int Byte>
PHI4FLASH_VECTOR_INLINE rows_f32 bytes_of(signed_code_vector v) {
    return hn::ConvertTo(rows_f32_tag(), hn::ShiftRight<24>(hn::ShiftLeft<24 - 8 * Byte>(hn::BitCast(rows_tag(), v))));
}
PHI4FLASH_VECTOR_INLINE rows_f32 load_rows(const float* p) { return hn::LoadU(rows_f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE void store_rows(rows_f32 v, float* p) { hn::StoreU(v, rows_f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE void store_codes(code_vector v, std::uint8_t* p) { hn::StoreU(v, rows_u8_tag(), p); }

PHI4FLASH_VECTOR_INLINE tokens_f32 load_tokens(const float* p) { return hn::LoadU(tokens_f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE void store_tokens(tokens_f32 v, float* p) { hn::StoreU(v, tokens_f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE tokens_f32 repeat_tokens(float x) { return hn::Set(tokens_f32_tag(), x); }
PHI4FLASH_VECTOR_INLINE tokens_f32 add_tokens(tokens_f32 a, tokens_f32 b) { return hn::Add(a, b); }
PHI4FLASH_VECTOR_INLINE void store_across(tokens_f32 a, tokens_f32 b, tokens_f32 c, tokens_f32 d, float* p, std::size_t stride) {
    const tokens_f32_tag df;
    float across[4 * 16];
    const std::size_t lane_count = tokens_lanes();
#if HWY_TARGET == HWY_SCALAR || HWY_HAVE_SCALABLE
    hn::StoreInterleaved4(a, b, c, d, df, across);
    for (std::size_t t = 0; t < lane_count; ++t) std::memcpy(p + t * stride, across + 4 * t, 4 * sizeof(float));
#else
    // Transposed in blocks of four lanes; a block k of vector i then belongs to token 4 k + i.
    const hn::Repartition<std::uint64_t, tokens_f32_tag> pairs;
    const auto low_ab = hn::BitCast(pairs, hn::InterleaveLower(df, a, b));
    const auto low_cd = hn::BitCast(pairs, hn::InterleaveLower(df, c, d));
    const auto high_ab = hn::BitCast(pairs, hn::InterleaveUpper(df, a, b));
    const auto high_cd = hn::BitCast(pairs, hn::InterleaveUpper(df, c, d));
    hn::StoreU(hn::BitCast(df, hn::InterleaveLower(pairs, low_ab, low_cd)), df, across);
    hn::StoreU(hn::BitCast(df, hn::InterleaveUpper(pairs, low_ab, low_cd)), df, across + lane_count);
    hn::StoreU(hn::BitCast(df, hn::InterleaveLower(pairs, high_ab, high_cd)), df, across + 2 * lane_count);
    hn::StoreU(hn::BitCast(df, hn::InterleaveUpper(pairs, high_ab, high_cd)), df, across + 3 * lane_count);
    for (std::size_t i = 0; i < 4; ++i) {
        for (std::size_t t = i; t < lane_count; t += 4) std::memcpy(p + t * stride, across + i * lane_count + (t - i), 4 * sizeof(float));
    }
#endif
}

// As many rows as a vector has: of two blocks side by side where it has 16.
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
using wide_tag = tokens_tag;
inline constexpr std::size_t wide_blocks = 2;
PHI4FLASH_VECTOR_INLINE hn::Vec<tokens_u8_tag> codes_of_rows(const std::uint8_t* p, const std::uint8_t* q) {
    return hn::Combine(tokens_u8_tag(), load_codes(q), load_codes(p));
}
PHI4FLASH_VECTOR_INLINE tokens_f32 scales_of_rows(const f16* p, const f16* q) {
    const hn::Rebind<hwy::float16_t, tokens_f32_tag> both;
    const hn::Half<decltype(both)> half;
    return hn::PromoteTo(tokens_f32_tag(), hn::Combine(both, hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(q)),
                                                       hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(p))));
}
#else
using wide_tag = rows_tag;
inline constexpr std::size_t wide_blocks = 1;
PHI4FLASH_VECTOR_INLINE code_vector codes_of_rows(const std::uint8_t* p, const std::uint8_t*) { return load_codes(p); }
PHI4FLASH_VECTOR_INLINE rows_f32 scales_of_rows(const f16* p, const f16*) { return load_scales(p); }
#endif
using wide_f32_tag = hn::RebindToFloat<wide_tag>;
using wide_u8_tag = hn::Repartition<std::uint8_t, wide_tag>;
using wide_i8_tag = hn::Repartition<std::int8_t, wide_tag>;
using wide_i32 = hn::Vec<wide_tag>;
using wide_f32 = hn::Vec<wide_f32_tag>;
using wide_codes = hn::Vec<wide_u8_tag>;
using wide_bytes = hn::Vec<wide_i8_tag>;

PHI4FLASH_VECTOR_INLINE std::size_t wide_rows() { return hn::Lanes(wide_tag()); }
PHI4FLASH_VECTOR_INLINE wide_codes codes_of_rows(const std::int8_t* p, const std::int8_t* q) {
    return codes_of_rows(reinterpret_cast<const std::uint8_t*>(p), reinterpret_cast<const std::uint8_t*>(q));
}
PHI4FLASH_VECTOR_INLINE wide_bytes with_sign(wide_codes v) { return hn::BitCast(wide_i8_tag(), v); }
PHI4FLASH_VECTOR_INLINE wide_bytes repeat_activations(const std::int8_t* p) {
    std::int32_t four;
    std::memcpy(&four, p, sizeof four);
    return hn::BitCast(wide_i8_tag(), hn::Set(wide_tag(), four));
}
PHI4FLASH_VECTOR_INLINE wide_f32 load_wide(const float* p) { return hn::LoadU(wide_f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE void store_wide(wide_f32 v, float* p) { hn::StoreU(v, wide_f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE wide_f32 repeat_wide(float x) { return hn::Set(wide_f32_tag(), x); }
PHI4FLASH_VECTOR_INLINE wide_f32 wide_floats(wide_i32 v) { return hn::ConvertTo(wide_f32_tag(), v); }
PHI4FLASH_VECTOR_INLINE wide_f32 add_wide(wide_f32 a, wide_f32 b) { return hn::Add(a, b); }

PHI4FLASH_VECTOR_INLINE wide_codes repeat_levels(const std::uint8_t* sixteen) { return hn::LoadDup128(wide_u8_tag(), sixteen); }
PHI4FLASH_VECTOR_INLINE wide_codes low_levels(wide_codes levels, wide_codes codes) {
#if PHI4FLASH_BLOCKS_SIDE_BY_SIDE
    // The instruction takes six bits of each byte, of which the upper two choose among four copies of the levels: nothing need be masked.
    return wide_codes{_mm512_permutexvar_epi8(codes.raw, levels.raw)};
#else
    return hn::TableLookupBytes(levels, hn::And(codes, hn::Set(wide_u8_tag(), std::uint8_t{15})));
#endif
}
PHI4FLASH_VECTOR_INLINE wide_codes high_levels(wide_codes levels, wide_codes codes) {
#if HWY_ARCH_X86
    return low_levels(levels, hn::BitCast(wide_u8_tag(), hn::ShiftRight<4>(hn::BitCast(hn::Repartition<std::uint16_t, wide_tag>(), codes))));
#else
    return hn::TableLookupBytes(levels, high_codes(codes));
#endif
}

/// How this target multiplies codes with activations.
struct own_products {
    static constexpr int activation_sum = dense_activation_sum;
    static constexpr int byte_offset = signed_offset;
    static constexpr bool picks_columns = false;
    static PHI4FLASH_VECTOR_INLINE std::int32_t start(int first, int second) { return dot_start(first, second); }
    static PHI4FLASH_VECTOR_INLINE auto begin(std::int32_t start) {
        return hn::BitCast(hn::Repartition<dot_lane, wide_tag>(), hn::Set(wide_tag(), start));
    }
    template <class Sums>
    static PHI4FLASH_VECTOR_INLINE Sums next(Sums sums, wide_codes w, wide_bytes x) {
        return in_this_order(dot_next(sums, w, x));
    }
    template <class Sums>
    static PHI4FLASH_VECTOR_INLINE wide_i32 fold(Sums sums) {
        return dot_fold(sums);
    }
    static PHI4FLASH_VECTOR_INLINE wide_i32 begin_bytes(std::int32_t start) { return hn::Set(wide_tag(), start); }
    static PHI4FLASH_VECTOR_INLINE wide_i32 next_bytes(wide_i32 sums, wide_bytes w, wide_bytes x) { return in_this_order(dot_signed(sums, w, x)); }
};

#if PHI4FLASH_VNNI_TARGET(HWY_TARGET)
/// sums + four products of bytes each. Highway's target does not imply the instruction, and compilers want a flag for its intrinsic that a
/// header cannot set.
PHI4FLASH_VECTOR_INLINE wide_i32 vnni_dot(wide_i32 sums, wide_codes w, wide_bytes x) {
#if defined(_MSC_VER) && !defined(__clang__) && HWY_TARGET == HWY_AVX2
    return wide_i32{_mm256_dpbusd_avx_epi32(sums.raw, w.raw, x.raw)};
#elif defined(_MSC_VER) && !defined(__clang__)
    return wide_i32{_mm512_dpbusd_epi32(sums.raw, w.raw, x.raw)};
#elif HWY_TARGET == HWY_AVX2
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums.raw) : "x"(w.raw), "x"(x.raw));
    return sums;
#else
    asm("vpdpbusd %2, %1, %0" : "+v"(sums.raw) : "v"(w.raw), "v"(x.raw));
    return sums;
#endif
}

/// The same with VNNI, where the CPU has it although the target's name does not say so.
struct vnni_products {
    static constexpr int activation_sum = 0;
    static constexpr int byte_offset = 128;
    static constexpr bool picks_columns = false;
    static PHI4FLASH_VECTOR_INLINE std::int32_t start(int first, int second) { return first + second; }
    static PHI4FLASH_VECTOR_INLINE wide_i32 begin(std::int32_t start) { return hn::Set(wide_tag(), start); }
    static PHI4FLASH_VECTOR_INLINE wide_i32 next(wide_i32 sums, wide_codes w, wide_bytes x) { return vnni_dot(sums, w, x); }
    static PHI4FLASH_VECTOR_INLINE wide_i32 fold(wide_i32 sums) { return sums; }
    static PHI4FLASH_VECTOR_INLINE wide_i32 begin_bytes(std::int32_t start) { return begin(start); }
    static PHI4FLASH_VECTOR_INLINE wide_i32 next_bytes(wide_i32 sums, wide_bytes w, wide_bytes x) {
        return vnni_dot(sums, hn::BitCast(wide_u8_tag(), hn::Xor(w, hn::Set(wide_i8_tag(), std::int8_t{-128}))), x);
    }
};
#endif

PHI4FLASH_TARGET_END
