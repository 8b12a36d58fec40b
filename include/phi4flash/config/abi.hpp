#pragma once
/// The inline ABI namespace, part of every symbol's name: files that are compiled in different ways can be linked into one program,
/// or loaded into one process, and never share a function or a class by accident.
///
/// In it is what changes a layout or a function's body: the version, the back end with its version, the instruction set, and those of
/// the words at the end that are not as usual. "v0_2_0_highway1_2_x86_64_json" is the usual one with JSON. Not in it: RTTI and NDEBUG
/// (which change nothing here), optimization (which keeps what a function does), and compile-once mode (whose files must find each other).
#include <phi4flash/config/instruction_set.hpp>
#include <phi4flash/config/macros.hpp>
#include <phi4flash/config/version.hpp>

#include <version>  // names the standard library

#if PHI4FLASH_SIMD_HIGHWAY && PHI4FLASH_STATIC_DISPATCH
#define PHI4FLASH_ABI_BACK_END PHI4FLASH_JOIN(highway_static, HWY_MAJOR, _, HWY_MINOR, PHI4FLASH_ABI_TARGETS)
#elif PHI4FLASH_SIMD_HIGHWAY
#define PHI4FLASH_ABI_BACK_END PHI4FLASH_JOIN(highway, HWY_MAJOR, _, HWY_MINOR, PHI4FLASH_ABI_TARGETS)
#elif PHI4FLASH_SIMD_XSIMD
#define PHI4FLASH_ABI_BACK_END PHI4FLASH_JOIN(xsimd, XSIMD_VERSION_MAJOR, _, XSIMD_VERSION_MINOR, )
#else
#define PHI4FLASH_ABI_BACK_END scalar
#endif

// Targets that kernel_targets() does not have, because the project disables them or leaves AMX alone: a word each.
#if PHI4FLASH_SIMD_HIGHWAY && defined(HWY_DISABLED_TARGETS)
#include <hwy/detect_targets.h>
#define PHI4FLASH_ABI_LACKS(target) (((HWY_DISABLED_TARGETS) & (target)) != 0)
#if PHI4FLASH_ABI_LACKS(HWY_AVX2)
#define PHI4FLASH_ABI_NO_AVX2 1
#endif
#if PHI4FLASH_ABI_LACKS(HWY_AVX3)
#define PHI4FLASH_ABI_NO_AVX3 1
#endif
#if PHI4FLASH_ABI_LACKS(HWY_AVX3_DL)
#define PHI4FLASH_ABI_NO_AVX3_DL 1
#endif
#if PHI4FLASH_ABI_LACKS(HWY_AVX3_ZEN4)
#define PHI4FLASH_ABI_NO_AVX3_ZEN4 1
#endif
#endif
#if PHI4FLASH_AMX || !defined(__x86_64__) || !defined(__linux__)
#define PHI4FLASH_ABI_TILES
#else
#define PHI4FLASH_ABI_TILES _without_amx
#endif
#define PHI4FLASH_ABI_TARGETS                                                                                                      \
    PHI4FLASH_JOIN(PHI4FLASH_IF_ONE(PHI4FLASH_ABI_NO_AVX2, _without_avx2), PHI4FLASH_IF_ONE(PHI4FLASH_ABI_NO_AVX3, _without_avx3), \
                   PHI4FLASH_IF_ONE(PHI4FLASH_ABI_NO_AVX3_DL, _without_avx3_dl),                                                   \
                   PHI4FLASH_IF_ONE(PHI4FLASH_ABI_NO_AVX3_ZEN4, _without_avx3_zen4), PHI4FLASH_ABI_TILES)

// What throws is caught, and an executor's exceptions pass through, only where there are exceptions.
#if defined(__cpp_exceptions) || defined(_CPPUNWIND)
#define PHI4FLASH_ABI_EXCEPTIONS
#else
#define PHI4FLASH_ABI_EXCEPTIONS _noexcept
#endif

// Arithmetic that the flags relax. (GCC and clang tell most of these flags.)
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || defined(_M_FP_FAST)
#define PHI4FLASH_ABI_MATH _fastmath
#elif defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#define PHI4FLASH_ABI_MATH _finitemath
#else
#define PHI4FLASH_ABI_MATH
#endif

// Standard libraries whose strings and vectors have another layout. libstdc++ as it comes has no name.
#if defined(_LIBCPP_VERSION)
#define PHI4FLASH_ABI_LIBRARY _libcxx
#elif defined(_GLIBCXX_DEBUG)
#define PHI4FLASH_ABI_LIBRARY _debug
#elif defined(_GLIBCXX_USE_CXX11_ABI) && !_GLIBCXX_USE_CXX11_ABI
#define PHI4FLASH_ABI_LIBRARY _oldstring
#else
#define PHI4FLASH_ABI_LIBRARY
#endif

// What a project leaves out.
#if PHI4FLASH_FILES
#define PHI4FLASH_ABI_FILES
#else
#define PHI4FLASH_ABI_FILES _without_files
#endif
#if PHI4FLASH_THREADS
#define PHI4FLASH_ABI_THREADS
#else
#define PHI4FLASH_ABI_THREADS _without_threads
#endif

#if PHI4FLASH_HAS_WEIGHTS_F32 && PHI4FLASH_HAS_WEIGHTS_F16 && PHI4FLASH_HAS_WEIGHTS_BF16 && PHI4FLASH_HAS_WEIGHTS_Q8 && PHI4FLASH_HAS_WEIGHTS_Q4 && \
    PHI4FLASH_HAS_WEIGHTS_Q4_DENSE && PHI4FLASH_HAS_KV_F32 && PHI4FLASH_HAS_KV_BF16 && PHI4FLASH_HAS_KV_INT8
#define PHI4FLASH_ABI_TYPES
#else
#define PHI4FLASH_ABI_PLAIN                                                                                                    \
    PHI4FLASH_JOIN(PHI4FLASH_IF_ONE(PHI4FLASH_HAS_WEIGHTS_F32, f32), PHI4FLASH_IF_ONE(PHI4FLASH_HAS_WEIGHTS_F16, f16),          \
                   PHI4FLASH_IF_ONE(PHI4FLASH_HAS_WEIGHTS_BF16, bf16), , )
#define PHI4FLASH_ABI_PACKED                                                                                                   \
    PHI4FLASH_JOIN(PHI4FLASH_IF_ONE(PHI4FLASH_HAS_WEIGHTS_Q8, q8), PHI4FLASH_IF_ONE(PHI4FLASH_HAS_WEIGHTS_Q4, q4),              \
                   PHI4FLASH_IF_ONE(PHI4FLASH_HAS_WEIGHTS_Q4_DENSE, q4d), , )
#define PHI4FLASH_ABI_KV \
    PHI4FLASH_JOIN(PHI4FLASH_IF_ONE(PHI4FLASH_HAS_KV_F32, f32), PHI4FLASH_IF_ONE(PHI4FLASH_HAS_KV_BF16, bf16), \
                   PHI4FLASH_IF_ONE(PHI4FLASH_HAS_KV_INT8, int8), , )
#define PHI4FLASH_ABI_TYPES PHI4FLASH_JOIN(_only_, PHI4FLASH_ABI_PLAIN, PHI4FLASH_ABI_PACKED, _kv_, PHI4FLASH_ABI_KV)
#endif

#define PHI4FLASH_ABI_VERSION PHI4FLASH_JOIN(PHI4FLASH_VERSION_MAJOR, _, PHI4FLASH_VERSION_MINOR, _, PHI4FLASH_VERSION_PATCH)
#define PHI4FLASH_ABI_WORDS                                                                                                \
    PHI4FLASH_JOIN(PHI4FLASH_IF_ONE(PHI4FLASH_HAS_JSON, _json), PHI4FLASH_ABI_EXCEPTIONS, PHI4FLASH_ABI_MATH, PHI4FLASH_ABI_LIBRARY, \
                   PHI4FLASH_JOIN(PHI4FLASH_ABI_FILES, PHI4FLASH_ABI_THREADS, PHI4FLASH_ABI_TYPES, , ))
#define PHI4FLASH_ABI_MACHINE PHI4FLASH_JOIN(PHI4FLASH_ABI_BACK_END, _, PHI4FLASH_ABI_ISA, , )
#define PHI4FLASH_ABI PHI4FLASH_JOIN(v, PHI4FLASH_ABI_VERSION, _, PHI4FLASH_ABI_MACHINE, PHI4FLASH_ABI_WORDS)

#define PHI4FLASH_BEGIN      \
    namespace phi4flash {    \
    inline namespace PHI4FLASH_ABI {
#define PHI4FLASH_END \
    }                 \
    }
