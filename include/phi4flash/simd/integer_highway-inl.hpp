// The integer part of the vocabulary over Highway. See simd/integer-inl.hpp for what each word means.

PHI4FLASH_TARGET_BEGIN

using rows_tag = hn::CappedTag<std::int32_t, 8>;
using rows_f32_tag = hn::RebindToFloat<rows_tag>;
using rows_u8_tag = hn::Repartition<std::uint8_t, rows_tag>;
using rows_i8_tag = hn::Repartition<std::int8_t, rows_tag>;
using rows_i16_tag = hn::Repartition<std::int16_t, rows_tag>;
using rows_u16_tag = hn::Repartition<std::uint16_t, rows_tag>;
using rows_i32 = hn::Vec<rows_tag>;
using rows_f32 = hn::Vec<rows_f32_tag>;
using code_vector = hn::Vec<rows_u8_tag>;
using signed_code_vector = hn::Vec<rows_i8_tag>;

PHI4FLASH_VECTOR_INLINE std::size_t rows_lanes() { return hn::Lanes(rows_tag()); }
PHI4FLASH_VECTOR_INLINE code_vector load_codes(const std::uint8_t* p) { return hn::LoadU(rows_u8_tag(), p); }
PHI4FLASH_VECTOR_INLINE signed_code_vector load_codes(const std::int8_t* p) { return hn::LoadU(rows_i8_tag(), p); }
PHI4FLASH_VECTOR_INLINE code_vector load_levels(const std::uint8_t* sixteen) { return hn::LoadDup128(rows_u8_tag(), sixteen); }
PHI4FLASH_VECTOR_INLINE code_vector low_codes(code_vector v) { return hn::And(v, hn::Set(rows_u8_tag(), std::uint8_t{15})); }
PHI4FLASH_VECTOR_INLINE code_vector high_codes(code_vector v) {
    const rows_u16_tag du16;
    return low_codes(hn::BitCast(rows_u8_tag(), hn::ShiftRight<4>(hn::BitCast(du16, v))));
}
PHI4FLASH_VECTOR_INLINE code_vector levels_of(code_vector levels, code_vector codes) { return hn::TableLookupBytes(levels, codes); }
PHI4FLASH_VECTOR_INLINE signed_code_vector broadcast_four(const std::int8_t* p) {
    std::int32_t four;
    std::memcpy(&four, p, sizeof four);
    return hn::BitCast(rows_i8_tag(), hn::Set(rows_tag(), four));
}

// x86 before VNNI multiplies bytes into saturating 16-bit pairs; everything else sums four products into 32 bits.
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL
using dot_sums = hn::Vec<rows_i16_tag>;
/// g++ turns a chain of integer sums into a tree, which needs more registers than there are: a fifth of the speed of a matmul.
PHI4FLASH_VECTOR_INLINE dot_sums in_this_order(dot_sums sums) {
#if defined(__GNUC__) && !defined(__clang__)
    asm("" : "+x"(sums.raw));
#endif
    return sums;
}
PHI4FLASH_VECTOR_INLINE dot_sums dot_first(code_vector w, signed_code_vector x) { return hn::SatWidenMulPairwiseAdd(rows_i16_tag(), w, x); }
PHI4FLASH_VECTOR_INLINE dot_sums dot_next(dot_sums sums, code_vector w, signed_code_vector x) {
    return in_this_order(hn::Add(sums, hn::SatWidenMulPairwiseAdd(rows_i16_tag(), w, x)));
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(dot_sums sums) {
    return hn::WidenMulPairwiseAdd(rows_tag(), sums, hn::Set(rows_i16_tag(), std::int16_t{1}));
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(rows_i32 total, dot_sums sums) { return hn::Add(total, dot_fold(sums)); }
/// A 16-bit sum has eight products of a level and an activation: it fits where these eight activations do not sum to more.
inline constexpr int dense_activation_sum = 32767 / q4_dense.level[15];
#else
using dot_sums = rows_i32;
#if HWY_ARCH_X86
PHI4FLASH_VECTOR_INLINE rows_i32 dot_four(code_vector w, signed_code_vector x, rows_i32 sum) {
    return hn::SumOfMulQuadAccumulate(rows_tag(), w, x, sum);
}
#else  // levels are below 128, so they are signed bytes too, for which other architectures have the instruction
PHI4FLASH_VECTOR_INLINE rows_i32 dot_four(code_vector w, signed_code_vector x, rows_i32 sum) {
    return hn::SumOfMulQuadAccumulate(rows_tag(), hn::BitCast(rows_i8_tag(), w), x, sum);
}
#endif
PHI4FLASH_VECTOR_INLINE dot_sums dot_first(code_vector w, signed_code_vector x) { return dot_four(w, x, hn::Zero(rows_tag())); }
PHI4FLASH_VECTOR_INLINE dot_sums dot_next(dot_sums sums, code_vector w, signed_code_vector x) { return dot_four(w, x, sums); }
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(dot_sums sums) { return sums; }
inline constexpr int dense_activation_sum = 0;
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(rows_i32 total, dot_sums sums) { return hn::Add(total, sums); }
#endif

#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL
// |w| * (x with the sign of w): two products of at most 128 * 127 fit 16 bits, where an offset would not.
PHI4FLASH_VECTOR_INLINE rows_i32 dot_signed(rows_i32 total, signed_code_vector w, signed_code_vector x) {
    const auto magnitude = hn::BitCast(rows_u8_tag(), hn::Abs(w));
    const auto signed_x = hn::IfNegativeThenNegOrUndefIfZero(w, x);
    return hn::Add(total, hn::WidenMulPairwiseAdd(rows_tag(), hn::SatWidenMulPairwiseAdd(rows_i16_tag(), magnitude, signed_x),
                                                  hn::Set(rows_i16_tag(), std::int16_t{1})));
}
#else
PHI4FLASH_VECTOR_INLINE rows_i32 dot_signed(rows_i32 total, signed_code_vector w, signed_code_vector x) {
    return hn::SumOfMulQuadAccumulate(rows_tag(), w, x, total);
}
#endif

PHI4FLASH_VECTOR_INLINE rows_i32 set_rows(std::int32_t x) { return hn::Set(rows_tag(), x); }
PHI4FLASH_VECTOR_INLINE rows_f32 zero_rows() { return hn::Zero(rows_f32_tag()); }
PHI4FLASH_VECTOR_INLINE rows_f32 load_scales(const f16* p) {
    const hn::Rebind<hwy::float16_t, rows_f32_tag> half;
    return hn::PromoteTo(rows_f32_tag(), hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(p)));
}
PHI4FLASH_VECTOR_INLINE rows_f32 scale_sums(rows_i32 sums, float scale, float offset) {
    const rows_f32_tag df;
    return hn::MulAdd(hn::ConvertTo(df, sums), hn::Set(df, scale), hn::Set(df, offset));
}
PHI4FLASH_VECTOR_INLINE rows_f32 mul_add_rows(rows_f32 a, rows_f32 b, rows_f32 c) { return hn::MulAdd(a, b, c); }
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

PHI4FLASH_TARGET_END
