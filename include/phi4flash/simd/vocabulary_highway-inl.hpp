// The vector vocabulary over Highway, compiled once per target. See simd/vocabulary-inl.hpp for what each word means.
#include <hwy/highway.h>

PHI4FLASH_TARGET_BEGIN

namespace hn = hwy::HWY_NAMESPACE;

/// At most 16 lanes, so that layouts blocked by 16 serve every target.
using f32_tag = hn::CappedTag<float, max_lanes>;
using i32_tag = hn::RebindToSigned<f32_tag>;
using u32_tag = hn::RebindToUnsigned<f32_tag>;
using u16_half_tag = hn::Rebind<std::uint16_t, f32_tag>;
using f32_vector = hn::Vec<f32_tag>;

PHI4FLASH_VECTOR_INLINE std::size_t lanes() { return hn::Lanes(f32_tag()); }
PHI4FLASH_VECTOR_INLINE f32_vector zero() { return hn::Zero(f32_tag()); }
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return hn::Set(f32_tag(), x); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const float* p) { return hn::LoadU(f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, float* p) { hn::StoreU(v, f32_tag(), p); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const bf16* p) {
    const auto narrow = hn::LoadU(u16_half_tag(), reinterpret_cast<const std::uint16_t*>(p));
    return hn::BitCast(f32_tag(), hn::ShiftLeft<16>(hn::PromoteTo(u32_tag(), narrow)));
}
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, bf16* p) {
    // The integer rule of to_bf16, so that every target and back end stores the same bits. Finite numbers only.
    const u32_tag du;
    const auto bits = hn::BitCast(du, v);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
    const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fffu))));
    hn::StoreU(hn::TruncateTo(u16_half_tag(), rounded), u16_half_tag(), reinterpret_cast<std::uint16_t*>(p));
}
/// As many f16 as D has floats, exactly.
template <class D>
PHI4FLASH_VECTOR_INLINE hn::Vec<D> promote_f16(D d, const f16* p) {
#if HWY_TARGET <= HWY_AVX2 || (HWY_ARCH_ARM_A64 && (HWY_TARGET & (HWY_ALL_NEON | HWY_ALL_SVE)))
    const hn::Rebind<hwy::float16_t, D> half;
    return hn::PromoteTo(d, hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(p)));
#else
    // Without an instruction for it, Highway's emulation turns infinity into a number; this is to_f32(f16) in vectors.
    const hn::RebindToUnsigned<D> du;
    const hn::Rebind<std::uint16_t, D> half;
    const auto bits = hn::PromoteTo(du, hn::LoadU(half, reinterpret_cast<const std::uint16_t*>(p)));
    const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(du, 0x8000u)));
    const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(du, 0x7fffu)));
    const auto normal = hn::Add(magnitude, hn::Set(du, 0x38000000u));
    const auto least = hn::Set(du, 0x38800000u);
    const auto subnormal = hn::BitCast(du, hn::Sub(hn::BitCast(d, hn::Or(magnitude, least)), hn::BitCast(d, least)));
    const auto value = hn::IfThenElse(hn::Lt(magnitude, hn::Set(du, 0x00800000u)), subnormal, normal);
    const auto not_finite = hn::IfThenElseZero(hn::Ge(magnitude, hn::Set(du, 0x0f800000u)), hn::Set(du, 0x7f800000u));
    return hn::BitCast(d, hn::Or(hn::Or(value, not_finite), sign));
#endif
}
PHI4FLASH_VECTOR_INLINE f32_vector load(const f16* p) { return promote_f16(f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE f32_vector load(const kv_int8* p) {
    const hn::Rebind<std::int8_t, f32_tag> codes;
    return hn::ConvertTo(f32_tag(), hn::PromoteTo(i32_tag(), hn::LoadU(codes, reinterpret_cast<const std::int8_t*>(p))));
}
PHI4FLASH_VECTOR_INLINE void load_even_odd(const bf16* p, f32_vector& even, f32_vector& odd) {
    const u32_tag du;
    const auto both = hn::LoadU(du, reinterpret_cast<const std::uint32_t*>(p));
    even = hn::BitCast(f32_tag(), hn::ShiftLeft<16>(both));
    odd = hn::BitCast(f32_tag(), hn::And(both, hn::Set(du, 0xffff0000u)));
}

PHI4FLASH_VECTOR_INLINE void store_even_odd(f32_vector even, f32_vector odd, float* p) {
    hn::StoreInterleaved2(even, odd, f32_tag(), p);
}

PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) { return hn::Add(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) { return hn::Sub(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) { return hn::Mul(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) { return hn::Div(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) { return hn::MulAdd(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) { return hn::NegMulAdd(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector min_of(f32_vector a, f32_vector b) { return hn::Min(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector max_of(f32_vector a, f32_vector b) { return hn::Max(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector abs_of(f32_vector a) { return hn::Abs(a); }
PHI4FLASH_VECTOR_INLINE f32_vector where_at_least(f32_vector v, f32_vector limit, f32_vector a, f32_vector b) {
    return hn::IfThenElse(hn::Ge(v, limit), a, b);
}

PHI4FLASH_VECTOR_INLINE float reduce_sum(f32_vector v) { return hn::ReduceSum(f32_tag(), v); }
PHI4FLASH_VECTOR_INLINE float reduce_max(f32_vector v) { return hn::ReduceMax(f32_tag(), v); }
PHI4FLASH_VECTOR_INLINE void store_sums(f32_vector a, f32_vector b, f32_vector c, f32_vector d, float* p) {
#if HWY_HAVE_SCALABLE || HWY_TARGET == HWY_SCALAR
    p[0] = reduce_sum(a), p[1] = reduce_sum(b), p[2] = reduce_sum(c), p[3] = reduce_sum(d);
#else
    // Transposed in blocks of four lanes, so that two additions serve all four sums.
    const f32_tag df;
    const hn::Repartition<std::uint64_t, f32_tag> pairs;
    const auto ab = hn::BitCast(pairs, hn::Add(hn::InterleaveLower(df, a, b), hn::InterleaveUpper(df, a, b)));
    const auto cd = hn::BitCast(pairs, hn::Add(hn::InterleaveLower(df, c, d), hn::InterleaveUpper(df, c, d)));
    const auto sums = hn::Add(hn::BitCast(df, hn::InterleaveLower(pairs, ab, cd)), hn::BitCast(df, hn::InterleaveUpper(pairs, ab, cd)));
#if HWY_MAX_BYTES == 64
    const hn::Half<f32_tag> half;
    const hn::Half<decltype(half)> four;
    const auto eight = hn::Add(hn::LowerHalf(half, sums), hn::UpperHalf(half, sums));
    hn::StoreU(hn::Add(hn::LowerHalf(four, eight), hn::UpperHalf(four, eight)), four, p);
#elif HWY_MAX_BYTES == 32
    const hn::Half<f32_tag> four;
    hn::StoreU(hn::Add(hn::LowerHalf(four, sums), hn::UpperHalf(four, sums)), four, p);
#else
    hn::StoreU(sums, df, p);
#endif
#endif
}

PHI4FLASH_VECTOR_INLINE f32_vector round_nearest(f32_vector v) {
#if HWY_ARCH_ARM_V7 || (HWY_ARCH_X86 && HWY_TARGET > HWY_SSE4)
    // Without an instruction for it, Highway adds and subtracts a large number, which -ffast-math makes nothing of.
    const f32_vector magic = hn::Set(f32_tag(), 0x1.8p23f);
    const auto integers = hn::Sub(hn::BitCast(i32_tag(), hn::Add(v, magic)), hn::BitCast(i32_tag(), magic));
    return hn::ConvertTo(f32_tag(), integers);
#else
    return hn::Round(v);
#endif
}
PHI4FLASH_VECTOR_INLINE void store_integers(f32_vector v, std::int8_t* p, std::size_t step) {
    const hn::Rebind<std::int8_t, f32_tag> bytes;
    const auto q = hn::DemoteTo(bytes, hn::NearestInt(v));
#if HWY_MAX_BYTES == 32 && !HWY_HAVE_SCALABLE
    // Two halves straight from the register: a load of what was stored in other pieces would wait for it.
    const std::uint64_t eight = hn::GetLane(hn::BitCast(hn::Repartition<std::uint64_t, decltype(bytes)>(), q));
    std::memcpy(p, &eight, 4);
    const auto high = static_cast<std::uint32_t>(eight >> 32);
    std::memcpy(p + step, &high, 4);
#else
    std::int8_t all[max_lanes];
    hn::StoreU(q, bytes, all);
    const std::size_t piece = lanes() < 4 ? lanes() : 4;
    for (std::size_t i = 0; i < lanes(); i += piece) std::memcpy(p + i / 4 * step, all + i, piece);
#endif
}
PHI4FLASH_VECTOR_INLINE f32_vector scale_by_power_of_two(f32_vector v, f32_vector n) {
    const auto exponent = hn::Add(hn::NearestInt(n), hn::Set(i32_tag(), 127));
    return hn::Mul(v, hn::BitCast(f32_tag(), hn::ShiftLeft<23>(exponent)));
}

PHI4FLASH_TARGET_END
