// The vector vocabulary: the only words in which kernels are written. Each back end defines the same set.
//
//   f32_vector, lanes()             a vector of 1 to 16 floats (a power of two; may be a run-time number)
//   zero() set(x)                   all lanes 0, all lanes x
//   load(p) store(v, p)             from or to float, bf16 or f16 memory of element alignment; widening is exact, narrowing
//                                   rounds to nearest even (f16: load only); of kv_int8, the codes as floats (load only)
//   load_even_odd(p, even, odd)     2 * lanes() bf16 elements: those at even places and those at odd ones, which costs a shift
//                                   and a mask where a load in order costs a shuffle
//   store_even_odd(even, odd, p)    2 * lanes() floats: even to the even places, odd to the odd ones
//   prefetch(p) prefetch_far(p)     asks for the cache line at p, which need not be readable memory; into the second-level cache
//   add sub mul div                 lane by lane
//   mul_add(a, b, c)                a * b + c, fused where the target has it
//   neg_mul_add(a, b, c)            c - a * b
//   min_of max_of abs_of            lane by lane; for numbers, not NaN
//   where_at_least(v, limit, a, b)  a where v >= limit, else b (for NaN too)
//   reduce_sum reduce_max           over the lanes, in an order fixed for the target
//   store_sums(a, b, c, d, p)       p[0] to p[3]: the sums over the lanes of four vectors, all added in the same order
//   round_nearest(v)                to an integral float, ties to even, |v| < 2^22
//   store_integers(v, p, step)      integral floats within [-128, 127] as bytes, every four of them `step` bytes after the four before
//   scale_by_power_of_two(v, n)     v * 2^n for integral n in [-126, 127]
//
// Vectors are values: no arrays or members of them (scalable targets have no size), no lambdas that touch them (a lambda
// does not inherit the target's attributes on every compiler).
#if PHI4FLASH_SIMD_HIGHWAY
#include <phi4flash/simd/vocabulary_highway-inl.hpp>
#elif PHI4FLASH_SIMD_XSIMD
#include <phi4flash/simd/vocabulary_xsimd-inl.hpp>
#else
#include <phi4flash/simd/vocabulary_scalar-inl.hpp>
#endif
