// The vector vocabulary in plain C++, without any dependency. Four lanes, so that a compiler can use the baseline's vectors
// where it has some. See simd/vocabulary-inl.hpp for what each word means.
#include <bit>
#include <cmath>

PHI4FLASH_TARGET_BEGIN

inline constexpr std::size_t scalar_lanes = 4;
// Compilers that know vectors as a type make one statement of an operation, of which lanes one by one would be a dozen to compile.
#if (defined(__GNUC__) || defined(__clang__)) && (defined(__SSE2__) || defined(__aarch64__) || defined(__ARM_EABI__) || defined(__wasm__))
#define PHI4FLASH_SCALAR_VECTORS 1
using scalar_vector __attribute__((vector_size(sizeof(float) * scalar_lanes))) = float;
struct f32_vector {
    scalar_vector lane;
};
#else
#define PHI4FLASH_SCALAR_VECTORS 0
struct f32_vector {
    float lane[scalar_lanes];
};
#endif

namespace detail {
template <class Operation>
PHI4FLASH_VECTOR_INLINE f32_vector each(Operation operation) {
    f32_vector r;
    for (std::size_t i = 0; i < scalar_lanes; ++i) r.lane[i] = operation(i);
    return r;
}
}  // namespace detail

PHI4FLASH_VECTOR_INLINE constexpr std::size_t lanes() { return scalar_lanes; }
#if PHI4FLASH_SCALAR_VECTORS
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return {scalar_vector{x, x, x, x}}; }
#else
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return detail::each([&](std::size_t) { return x; }); }
#endif
PHI4FLASH_VECTOR_INLINE f32_vector zero() { return set(0.0f); }

template <class T>
PHI4FLASH_VECTOR_INLINE f32_vector load(const T* p) {
    if constexpr (std::is_same_v<T, float>) {
        f32_vector v;
        std::memcpy(&v.lane, p, sizeof v.lane);
        return v;
    }
    return detail::each([&](std::size_t i) { return to_f32(p[i]); });
}
template <class T>
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, T* p) {
    if constexpr (std::is_same_v<T, float>) return void(std::memcpy(p, &v.lane, sizeof v.lane));
    for (std::size_t i = 0; i < scalar_lanes; ++i) p[i] = from_f32<T>(v.lane[i]);
}
PHI4FLASH_VECTOR_INLINE void load_even_odd(const bf16* p, f32_vector& even, f32_vector& odd) {
    even = detail::each([&](std::size_t i) { return to_f32(p[2 * i]); });
    odd = detail::each([&](std::size_t i) { return to_f32(p[2 * i + 1]); });
}

PHI4FLASH_VECTOR_INLINE void store_even_odd(f32_vector even, f32_vector odd, float* p) {
    for (std::size_t i = 0; i < scalar_lanes; ++i) p[2 * i] = even.lane[i], p[2 * i + 1] = odd.lane[i];
}

#if PHI4FLASH_SCALAR_VECTORS
PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) { return {a.lane + b.lane}; }
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) { return {a.lane - b.lane}; }
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) { return {a.lane * b.lane}; }
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) { return {a.lane / b.lane}; }
#else
PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] + b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] - b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] * b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] / b.lane[i]; });
}
#endif
// Where the target has the instruction it is asked for by name: left to itself, a compiler fuses some of the loops of a kernel
// and not others, and results would depend on how work is cut. Elsewhere std::fma would be a library call per element.
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__)
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
}
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return std::fma(-a.lane[i], b.lane[i], c.lane[i]); });
}
#elif PHI4FLASH_SCALAR_VECTORS
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) { return {a.lane * b.lane + c.lane}; }
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) { return {c.lane - a.lane * b.lane}; }
#else
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return c.lane[i] - a.lane[i] * b.lane[i]; });
}
#endif
PHI4FLASH_VECTOR_INLINE f32_vector min_of(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector max_of(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector abs_of(f32_vector a) {
    return detail::each([&](std::size_t i) { return std::fabs(a.lane[i]); });
}
PHI4FLASH_VECTOR_INLINE f32_vector where_at_least(f32_vector v, f32_vector limit, f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return v.lane[i] >= limit.lane[i] ? a.lane[i] : b.lane[i]; });
}

PHI4FLASH_VECTOR_INLINE float reduce_sum(f32_vector v) { return (v.lane[0] + v.lane[2]) + (v.lane[1] + v.lane[3]); }
PHI4FLASH_VECTOR_INLINE float reduce_max(f32_vector v) {
    float m = v.lane[0];
    for (std::size_t i = 1; i < scalar_lanes; ++i) m = v.lane[i] > m ? v.lane[i] : m;
    return m;
}

PHI4FLASH_VECTOR_INLINE void store_sums(f32_vector a, f32_vector b, f32_vector c, f32_vector d, float* p) {
    p[0] = reduce_sum(a), p[1] = reduce_sum(b), p[2] = reduce_sum(c), p[3] = reduce_sum(d);
}

PHI4FLASH_VECTOR_INLINE f32_vector round_nearest(f32_vector v) {
#if defined(__FMA__) || defined(__aarch64__)
    // A product v would be fused with the sum below, and what is rounded would be another number. These CPUs have an instruction.
    return detail::each([&](std::size_t i) { return std::nearbyint(v.lane[i]); });
#else
    // Adding 1.5 * 2^23 rounds to nearest even for |v| < 2^22, which is all that exp asks for. It is taken off again as an integer: with
    // -ffast-math a compiler makes (v + c) - c into v, and in registers of 80 bits it is.
    constexpr float magic = 0x1.8p23f;
    return detail::each([&](std::size_t i) {
        return static_cast<float>(static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(v.lane[i] + magic) - std::bit_cast<std::uint32_t>(magic)));
    });
#endif
}
PHI4FLASH_VECTOR_INLINE void store_integers(f32_vector v, std::int8_t* p, std::size_t step) {
    for (std::size_t i = 0; i < scalar_lanes; ++i) p[i / 4 * step + i % 4] = static_cast<std::int8_t>(whole_or_zero(v.lane[i]));
}
PHI4FLASH_VECTOR_INLINE f32_vector scale_by_power_of_two(f32_vector v, f32_vector n) {
    return detail::each([&](std::size_t i) {
        const auto exponent = static_cast<std::uint32_t>(static_cast<std::int32_t>(n.lane[i]) + 127);
        return v.lane[i] * std::bit_cast<float>(exponent << 23);
    });
}

PHI4FLASH_TARGET_END
#undef PHI4FLASH_SCALAR_VECTORS
