#pragma once
/// Marks of a per-target region: code between PHI4FLASH_TARGET_BEGIN and PHI4FLASH_TARGET_END is compiled once for each
/// instruction set, in a namespace of its own. Only plain data and function pointers leave it.
///
/// Everything hot must stand textually inside such a region: a template defined outside compiles for the baseline only.
#include <phi4flash/config/abi.hpp>

#include <cstddef>

#if PHI4FLASH_SIMD_HIGHWAY
#include <hwy/base.h>
#define PHI4FLASH_TARGET_NAMESPACE HWY_NAMESPACE
// The pragmas come last in both: g++ 14 and newer drop what follows a `_Pragma("GCC target ...")` in the same expansion.
#define PHI4FLASH_TARGET_BEGIN \
    PHI4FLASH_BEGIN            \
    namespace HWY_NAMESPACE {  \
    HWY_BEFORE_NAMESPACE();
#define PHI4FLASH_TARGET_END \
    }                        \
    PHI4FLASH_END            \
    HWY_AFTER_NAMESPACE();
/// Functions of the vocabulary must inline, or vectors would travel through memory.
#define PHI4FLASH_VECTOR_INLINE HWY_INLINE
#else
#define PHI4FLASH_TARGET_NAMESPACE static_target
#define PHI4FLASH_TARGET_BEGIN \
    PHI4FLASH_BEGIN            \
    namespace static_target {
#define PHI4FLASH_TARGET_END \
    }                        \
    PHI4FLASH_END
#if PHI4FLASH_SIMD_SCALAR && defined(__OPTIMIZE_SIZE__)  // -Os: there are no registers for vectors to travel in, and a program is a third as large
#define PHI4FLASH_VECTOR_INLINE inline
#elif defined(__GNUC__) || defined(__clang__)
#define PHI4FLASH_VECTOR_INLINE inline __attribute__((always_inline))
#elif defined(_MSC_VER)
#define PHI4FLASH_VECTOR_INLINE __forceinline
#else
#define PHI4FLASH_VECTOR_INLINE inline
#endif
#endif

PHI4FLASH_BEGIN
/// No vector of the vocabulary has more lanes; local buffers for ragged ends have this size.
inline constexpr std::size_t max_lanes = 16;

/// Asks for the cache line at p, which need not be readable memory. Two words of the vocabulary that no target changes.
/// Inlined by force: a compiler that sees a function with nothing but this in it takes its calls for dead.
PHI4FLASH_VECTOR_INLINE void prefetch([[maybe_unused]] const void* p) {
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(p);
#endif
}
/// The same, into the second-level cache. @since 0.2
PHI4FLASH_VECTOR_INLINE void prefetch_far([[maybe_unused]] const void* p) {
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(p, 0, 2);
#endif
}
PHI4FLASH_END
