#pragma once
/// Every switch of the library. A user sets one before the include (or with -D); each is always defined
/// afterwards, as 0 or 1, so that a mistyped name is a preprocessor warning (-Wundef) and not a silent "no".

#if defined(_MSVC_LANG) ? _MSVC_LANG <= 201703L : __cplusplus <= 201703L
#error "phi4flash needs C++20: compile with -std=c++20 (MSVC: /std:c++20)"
#endif

/// Vector back end: set exactly one of these to 1, or none for the best that the include path offers
/// (Highway 1.2 or newer, then xsimd 13 or newer, then scalar).
#ifndef PHI4FLASH_SIMD_HIGHWAY
#define PHI4FLASH_SIMD_HIGHWAY 0
#endif
#ifndef PHI4FLASH_SIMD_XSIMD
#define PHI4FLASH_SIMD_XSIMD 0
#endif
#ifndef PHI4FLASH_SIMD_SCALAR
#define PHI4FLASH_SIMD_SCALAR 0
#endif

#if PHI4FLASH_SIMD_HIGHWAY + PHI4FLASH_SIMD_XSIMD + PHI4FLASH_SIMD_SCALAR > 1
#error "phi4flash: set only one of PHI4FLASH_SIMD_HIGHWAY, PHI4FLASH_SIMD_XSIMD and PHI4FLASH_SIMD_SCALAR to 1"
#endif

#if PHI4FLASH_SIMD_HIGHWAY + PHI4FLASH_SIMD_XSIMD + PHI4FLASH_SIMD_SCALAR == 0
#if defined(__has_include)
#if __has_include(<hwy/base.h>)
// Releases before 1.2.0 lack HWY_VERSION_GE; they also lack targets and operations that the kernels use.
#include <hwy/base.h>
#if defined(HWY_VERSION_GE)
#undef PHI4FLASH_SIMD_HIGHWAY
#define PHI4FLASH_SIMD_HIGHWAY 1
#endif
#endif
#if !PHI4FLASH_SIMD_HIGHWAY && __has_include(<xsimd/config/xsimd_config.hpp>)
#include <xsimd/config/xsimd_config.hpp>
#if XSIMD_VERSION_MAJOR >= 13
#undef PHI4FLASH_SIMD_XSIMD
#define PHI4FLASH_SIMD_XSIMD 1
#endif
#endif
#endif
#if !PHI4FLASH_SIMD_HIGHWAY && !PHI4FLASH_SIMD_XSIMD
#undef PHI4FLASH_SIMD_SCALAR
#define PHI4FLASH_SIMD_SCALAR 1
#define PHI4FLASH_SIMD_SCALAR_IS_A_GUESS 1
#endif
#elif defined(__has_include)
#if PHI4FLASH_SIMD_HIGHWAY
#if !__has_include(<hwy/base.h>)
#error "phi4flash: PHI4FLASH_SIMD_HIGHWAY=1, but no Highway is on the include path; add it, or set PHI4FLASH_SIMD_SCALAR=1 instead"
#else
#include <hwy/base.h>
#if !defined(HWY_VERSION_GE)
#error "phi4flash: PHI4FLASH_SIMD_HIGHWAY=1, but the first Highway on the include path is older than 1.2; put a newer one before it"
#endif
#endif
#elif PHI4FLASH_SIMD_XSIMD
#if !__has_include(<xsimd/config/xsimd_config.hpp>)
#error "phi4flash: PHI4FLASH_SIMD_XSIMD=1, but no xsimd is on the include path; add it, or set PHI4FLASH_SIMD_SCALAR=1 instead"
#else
#include <xsimd/config/xsimd_config.hpp>
#if XSIMD_VERSION_MAJOR < 13
#error "phi4flash: PHI4FLASH_SIMD_XSIMD=1, but the first xsimd on the include path is older than 13; put a newer one before it"
#endif
#endif
#endif
#endif
#ifndef PHI4FLASH_SIMD_SCALAR_IS_A_GUESS
#define PHI4FLASH_SIMD_SCALAR_IS_A_GUESS 0
#endif

/// Highway only: 1 compiles the kernels for the static target alone (fast builds, firmware), 0 for every target
/// that the compiler can attain, chosen at run time.
#ifndef PHI4FLASH_STATIC_DISPATCH
#define PHI4FLASH_STATIC_DISPATCH 0
#endif

/// Compile-once mode. Every file of the project sets PHI4FLASH_COMPILE_ONCE to 1 (kernels are then only declared);
/// exactly one of them also sets PHI4FLASH_IMPLEMENTATION to 1 before the include and gets the definitions.
#ifndef PHI4FLASH_COMPILE_ONCE
#define PHI4FLASH_COMPILE_ONCE 0
#endif
#ifndef PHI4FLASH_IMPLEMENTATION
#define PHI4FLASH_IMPLEMENTATION 0
#elif 1 - PHI4FLASH_IMPLEMENTATION - 1 == 2  // defined as nothing, as other libraries have it
#undef PHI4FLASH_IMPLEMENTATION
#define PHI4FLASH_IMPLEMENTATION 1
#endif

/// What is no template and takes long to compile is declared PHI4FLASH_BODY and defined where PHI4FLASH_BODIES: in every file, inline; or in
/// compile-once mode in the one file that has the implementation.
#if PHI4FLASH_COMPILE_ONCE
#define PHI4FLASH_BODY
#else
#define PHI4FLASH_BODY inline
#endif
#define PHI4FLASH_BODIES (!PHI4FLASH_COMPILE_ONCE || PHI4FLASH_IMPLEMENTATION)

/// Of what runs once or when something went wrong: it shall be small, and a branch that leads to it is the unlikely one.
#if defined(__GNUC__) || defined(__clang__)
#define PHI4FLASH_COLD __attribute__((cold))
#else
#define PHI4FLASH_COLD
#endif
#define PHI4FLASH_COLD_BODY PHI4FLASH_COLD PHI4FLASH_BODY

/// 0 in that file leaves its kernels to another one, which includes kernels/dispatch.hpp alone and is compiled again only when they change.
#ifndef PHI4FLASH_KERNELS
#define PHI4FLASH_KERNELS PHI4FLASH_BODIES
#endif

/// Types of weights, and of keys and values, that the program can run: 0 leaves out the kernels of that type. What has it is refused then.
#ifndef PHI4FLASH_HAS_WEIGHTS_F32
#define PHI4FLASH_HAS_WEIGHTS_F32 1
#endif
#ifndef PHI4FLASH_HAS_WEIGHTS_F16
#define PHI4FLASH_HAS_WEIGHTS_F16 1
#endif
#ifndef PHI4FLASH_HAS_WEIGHTS_BF16
#define PHI4FLASH_HAS_WEIGHTS_BF16 1
#endif
#ifndef PHI4FLASH_HAS_WEIGHTS_Q8
#define PHI4FLASH_HAS_WEIGHTS_Q8 1
#endif
#ifndef PHI4FLASH_HAS_WEIGHTS_Q4
#define PHI4FLASH_HAS_WEIGHTS_Q4 1
#endif
#ifndef PHI4FLASH_HAS_WEIGHTS_Q4_DENSE
#define PHI4FLASH_HAS_WEIGHTS_Q4_DENSE 1
#endif
#ifndef PHI4FLASH_HAS_KV_F32
#define PHI4FLASH_HAS_KV_F32 1
#endif
#ifndef PHI4FLASH_HAS_KV_BF16
#define PHI4FLASH_HAS_KV_BF16 1
#endif
#ifndef PHI4FLASH_HAS_KV_INT8
#define PHI4FLASH_HAS_KV_INT8 1
#endif

/// Matrix tiles of AMX, which the operating system has to be asked for: 1 where we know how. 0 leaves them alone.
#ifndef PHI4FLASH_AMX
#if defined(__x86_64__) && defined(__linux__) && (defined(__GNUC__) || defined(__clang__))
#define PHI4FLASH_AMX 1
#else
#define PHI4FLASH_AMX 0
#endif
#endif

/// 1: the Hugging Face headers, which need nlohmann/json 3.11 or newer on the include path, are part of phi4flash.hpp. Never guessed:
/// JSON's macros and seconds of compile time come in only where somebody asked for them.
#ifndef PHI4FLASH_HAS_JSON
#define PHI4FLASH_HAS_JSON 0
#endif

/// 0 leaves out what needs files of a system: paths, maps, writers, huge pages. Models come from memory.
#ifndef PHI4FLASH_FILES
#define PHI4FLASH_FILES 1
#endif
/// 0 leaves out thread_pool. Work is done by the calling thread, or by an executor of the host's.
#ifndef PHI4FLASH_THREADS
#define PHI4FLASH_THREADS 1
#endif

// Anything but 0 and 1 would be 1 here and something else in the name of the ABI.
#define PHI4FLASH_IS_SWITCH(x) ((x) == 0 || (x) == 1)
#if !PHI4FLASH_IS_SWITCH(PHI4FLASH_HAS_WEIGHTS_F32) || !PHI4FLASH_IS_SWITCH(PHI4FLASH_HAS_WEIGHTS_F16) ||     \
    !PHI4FLASH_IS_SWITCH(PHI4FLASH_HAS_WEIGHTS_BF16) || !PHI4FLASH_IS_SWITCH(PHI4FLASH_HAS_WEIGHTS_Q8) ||     \
    !PHI4FLASH_IS_SWITCH(PHI4FLASH_HAS_WEIGHTS_Q4) || !PHI4FLASH_IS_SWITCH(PHI4FLASH_HAS_WEIGHTS_Q4_DENSE) || \
    !PHI4FLASH_IS_SWITCH(PHI4FLASH_HAS_KV_F32) || !PHI4FLASH_IS_SWITCH(PHI4FLASH_HAS_KV_BF16) || !PHI4FLASH_IS_SWITCH(PHI4FLASH_HAS_KV_INT8)
#error "phi4flash: want 0 or 1 for each of PHI4FLASH_HAS_WEIGHTS_F32 and its kin, and of PHI4FLASH_HAS_KV_F32 and its kin"
#endif
#if !PHI4FLASH_IS_SWITCH(PHI4FLASH_STATIC_DISPATCH) || !PHI4FLASH_IS_SWITCH(PHI4FLASH_COMPILE_ONCE) ||                                          \
    !PHI4FLASH_IS_SWITCH(PHI4FLASH_IMPLEMENTATION) || !PHI4FLASH_IS_SWITCH(PHI4FLASH_KERNELS) || !PHI4FLASH_IS_SWITCH(PHI4FLASH_AMX) ||         \
    !PHI4FLASH_IS_SWITCH(PHI4FLASH_HAS_JSON) || !PHI4FLASH_IS_SWITCH(PHI4FLASH_FILES) || !PHI4FLASH_IS_SWITCH(PHI4FLASH_THREADS)
#error "phi4flash: want 0 or 1 for each of PHI4FLASH_STATIC_DISPATCH, COMPILE_ONCE, IMPLEMENTATION, KERNELS, AMX, HAS_JSON, FILES and THREADS"
#endif
#undef PHI4FLASH_IS_SWITCH

/// Of a variable that many files define: each program or shared library has one of its own. Without it GCC makes such a variable one for the
/// whole process (STB_GNU_UNIQUE), and a plugin that has one can never be unloaded.
#if (defined(__GNUC__) || defined(__clang__)) && !defined(_WIN32)
#define PHI4FLASH_OWN_DATA __attribute__((visibility("hidden")))
#else
#define PHI4FLASH_OWN_DATA
#endif

/// printf-style checking of error sentences where the compiler knows how. (g++ for Windows takes printf for that of Microsoft, without %zu; its
/// library's is not.)
#if defined(__MINGW32__) && !defined(__clang__)
#define PHI4FLASH_PRINTF_LIKE(format_index, first_argument) __attribute__((format(gnu_printf, format_index, first_argument)))
#define PHI4FLASH_RESTRICT __restrict__
#elif defined(__GNUC__) || defined(__clang__)
#define PHI4FLASH_PRINTF_LIKE(format_index, first_argument) __attribute__((format(printf, format_index, first_argument)))
#define PHI4FLASH_RESTRICT __restrict__
#elif defined(_MSC_VER)
#define PHI4FLASH_PRINTF_LIKE(format_index, first_argument)
#define PHI4FLASH_RESTRICT __restrict
#else
#define PHI4FLASH_PRINTF_LIKE(format_index, first_argument)
#define PHI4FLASH_RESTRICT
#endif
