// The vector vocabulary over xsimd, for the instruction set of the compiler's flags. See simd/vocabulary-inl.hpp for
// what each word means.
#include <xsimd/xsimd.hpp>

PHI4FLASH_TARGET_BEGIN

using f32_vector = xsimd::batch<float>;
using i32_vector = xsimd::batch<std::int32_t>;
using u32_vector = xsimd::batch<std::uint32_t>;
static_assert(f32_vector::size <= max_lanes, "phi4flash: layouts are blocked by 16 lanes");

PHI4FLASH_VECTOR_INLINE constexpr std::size_t lanes() { return f32_vector::size; }
PHI4FLASH_VECTOR_INLINE f32_vector zero() { return f32_vector(0.0f); }
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return f32_vector(x); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const float* p) { return f32_vector::load_unaligned(p); }
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, float* p) { v.store_unaligned(p); }

// xsimd widens 16-bit lanes only through memory; a compiler turns these loops into the instruction where there is one.
PHI4FLASH_VECTOR_INLINE f32_vector load(const bf16* p) {
    alignas(64) std::uint32_t wide[f32_vector::size];
    for (std::size_t i = 0; i < f32_vector::size; ++i) wide[i] = static_cast<std::uint32_t>(p[i].bits) << 16;
    return xsimd::bitwise_cast<float>(u32_vector::load_aligned(wide));
}
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, bf16* p) {
    alignas(64) float wide[f32_vector::size];
    v.store_aligned(wide);
    for (std::size_t i = 0; i < f32_vector::size; ++i) p[i] = to_bf16(wide[i]);
}
PHI4FLASH_VECTOR_INLINE f32_vector load(const f16* p) {
    alignas(64) float wide[f32_vector::size];
    for (std::size_t i = 0; i < f32_vector::size; ++i) wide[i] = to_f32(p[i]);
    return f32_vector::load_aligned(wide);
}
PHI4FLASH_VECTOR_INLINE f32_vector load(const kv_int8* p) {
    alignas(64) float wide[f32_vector::size];
    for (std::size_t i = 0; i < f32_vector::size; ++i) wide[i] = to_f32(p[i]);
    return f32_vector::load_aligned(wide);
}
PHI4FLASH_VECTOR_INLINE void load_even_odd(const bf16* p, f32_vector& even, f32_vector& odd) {
    const u32_vector both = xsimd::bitwise_cast<std::uint32_t>(f32_vector::load_unaligned(reinterpret_cast<const float*>(p)));
    even = xsimd::bitwise_cast<float>(both << 16);
    odd = xsimd::bitwise_cast<float>(both & u32_vector(0xffff0000u));
}

PHI4FLASH_VECTOR_INLINE void store_even_odd(f32_vector even, f32_vector odd, float* p) {
    xsimd::zip_lo(even, odd).store_unaligned(p);
    xsimd::zip_hi(even, odd).store_unaligned(p + f32_vector::size);
}

PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) { return a + b; }
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) { return a - b; }
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) { return a * b; }
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) { return a / b; }
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) { return xsimd::fma(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) { return xsimd::fnma(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector min_of(f32_vector a, f32_vector b) { return (xsimd::min)(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector max_of(f32_vector a, f32_vector b) { return (xsimd::max)(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector abs_of(f32_vector a) { return (xsimd::abs)(a); }
PHI4FLASH_VECTOR_INLINE f32_vector where_at_least(f32_vector v, f32_vector limit, f32_vector a, f32_vector b) {
    return xsimd::select(v >= limit, a, b);
}

PHI4FLASH_VECTOR_INLINE float reduce_sum(f32_vector v) { return xsimd::reduce_add(v); }
PHI4FLASH_VECTOR_INLINE float reduce_max(f32_vector v) { return xsimd::reduce_max(v); }

PHI4FLASH_VECTOR_INLINE void store_sums(f32_vector a, f32_vector b, f32_vector c, f32_vector d, float* p) {
    p[0] = reduce_sum(a), p[1] = reduce_sum(b), p[2] = reduce_sum(c), p[3] = reduce_sum(d);
}

PHI4FLASH_VECTOR_INLINE f32_vector round_nearest(f32_vector v) { return xsimd::nearbyint(v); }
PHI4FLASH_VECTOR_INLINE void store_integers(f32_vector v, std::int8_t* p, std::size_t step) {
    float x[max_lanes];
    store(v, x);
    for (std::size_t i = 0; i < lanes(); ++i) p[i / 4 * step + i % 4] = static_cast<std::int8_t>(x[i]);
}
PHI4FLASH_VECTOR_INLINE f32_vector scale_by_power_of_two(f32_vector v, f32_vector n) {
    const i32_vector exponent = xsimd::nearbyint_as_int(n) + i32_vector(127);
    return v * xsimd::bitwise_cast<float>(exponent << 23);
}

PHI4FLASH_TARGET_END
