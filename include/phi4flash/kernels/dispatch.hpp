#pragma once
/// Compiles the kernels: once for the static target, or, with Highway and run-time dispatch, once for each target, by
/// including kernels/target-inl.hpp again with HWY_TARGET set anew. The only place that does so.
///
/// Highway's own foreach_target.h is not used: it finds the file to include again by name, which fails for a dropped-in header,
/// and its dispatch tables need libhwy and a global, mutable choice.
#include <phi4flash/core/packing.hpp>
#include <phi4flash/kernels/targets.hpp>
#include <phi4flash/simd/cpu.hpp>
#include <phi4flash/simd/target_region.hpp>

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if PHI4FLASH_KERNELS

// Nobody asked for slow kernels. A note and not a warning, which -Werror would turn into a failure.
#if PHI4FLASH_SIMD_SCALAR_IS_A_GUESS
#pragma message( \
    "phi4flash: KERNELS ARE SCALAR, some 40 times slower than need be: neither Highway 1.2 nor xsimd 13 is on the include path." \
    " This mends it: git clone --depth 1 --branch 1.2.0 https://github.com/google/highway, and -isystem highway for the compiler" \
    " (in a checkout of phi4flash: tools/setup.sh --headers, and -isystem build/deps/usr/include)." \
    " If it is meant: -DPHI4FLASH_SIMD_SCALAR=1")
#endif

#if PHI4FLASH_SIMD_HIGHWAY

// Operations of a target can be defined once in a file.
#if defined(HIGHWAY_HWY_FOREACH_TARGET_H_) && !PHI4FLASH_STATIC_DISPATCH
#error "phi4flash: this file includes <hwy/foreach_target.h>, so kernels for run-time dispatch cannot be here too; set PHI4FLASH_COMPILE_ONCE=1"
#endif

// A user may have included highway.h already; the static target's operations then exist and must not be defined again.
#ifdef HWY_HIGHWAY_INCLUDED
#define PHI4FLASH_HIGHWAY_WAS_INCLUDED 1
#else
#define PHI4FLASH_HIGHWAY_WAS_INCLUDED 0
#endif
#include <hwy/detect_targets.h>

// The target that static dispatch is for where Highway's static one is less: it wants AES with SSE4 and better, and flags such as -march=haswell,
// x86-64-v3 and -v4 have none. The CPUs that are meant have it.
#if PHI4FLASH_STATIC_DISPATCH && defined(__AVX512F__) && defined(__AVX512CD__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && \
    defined(__AVX512VL__)
#define PHI4FLASH_FLAGS_TARGET HWY_AVX3
#elif PHI4FLASH_STATIC_DISPATCH && defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && defined(__BMI__) && defined(__BMI2__)
#define PHI4FLASH_FLAGS_TARGET HWY_AVX2
#else
#define PHI4FLASH_FLAGS_TARGET 0
#endif

// HWY_BROKEN_TARGETS: what this compiler cannot compile.
#define PHI4FLASH_HIGHWAY_EXTRA(target)                                                                \
    ((!PHI4FLASH_STATIC_DISPATCH || (target) == PHI4FLASH_FLAGS_TARGET) && HWY_STATIC_TARGET > (target) && \
     !((HWY_BROKEN_TARGETS) & (target)) && !((HWY_DISABLED_TARGETS) & (target)))

#define PHI4FLASH_IN_PLACE_OF_STATIC \
    (PHI4FLASH_STATIC_DISPATCH && PHI4FLASH_ARCH_X86 && (PHI4FLASH_HIGHWAY_EXTRA(HWY_AVX2) || PHI4FLASH_HIGHWAY_EXTRA(HWY_AVX3)))

// Targets that have a table beside their own, of instructions that some of their CPUs have and Highway's names do not tell: matrix tiles, VNNI,
// dot products of bytes (SDOT). With static dispatch only where the compiler's flags promise them; VNNI is then all there is, while tiles are the
// system's to grant. (Better targets have smaller numbers. MSVC has no flags for these.)
#if PHI4FLASH_STATIC_DISPATCH && (!defined(_MSC_VER) || defined(__clang__))
#define PHI4FLASH_ONLY_PROMISED 1
#else
#define PHI4FLASH_ONLY_PROMISED 0
#endif
#if defined(__AVX512VNNI__)
#define PHI4FLASH_PROMISES_AVX512_VNNI PHI4FLASH_ONLY_PROMISED
#else
#define PHI4FLASH_PROMISES_AVX512_VNNI 0
#endif
#if defined(__AVXVNNI__)
#define PHI4FLASH_PROMISES_AVX_VNNI PHI4FLASH_ONLY_PROMISED
#else
#define PHI4FLASH_PROMISES_AVX_VNNI 0
#endif
#define PHI4FLASH_VNNI_ALONE(target) \
    (((target) == HWY_AVX3 && PHI4FLASH_PROMISES_AVX512_VNNI) || ((target) == HWY_AVX2 && PHI4FLASH_PROMISES_AVX_VNNI))
#define PHI4FLASH_VNNI_TARGET(target) \
    (PHI4FLASH_VNNI_ALONE(target) || (!PHI4FLASH_ONLY_PROMISED && ((target) == HWY_AVX2 || (target) == HWY_AVX3)))
#if !PHI4FLASH_ONLY_PROMISED || PHI4FLASH_ISA_TILES
#define PHI4FLASH_AMX_TARGET(target) (PHI4FLASH_AMX && (target) <= HWY_AVX3_ZEN4)
#else
#define PHI4FLASH_AMX_TARGET(target) 0
#endif
// And where they are part of the target's own table.
#if HWY_ARCH_ARM_A64 && defined(__ARM_FEATURE_DOTPROD)
#define PHI4FLASH_DOT_TARGET(target) 0
#define PHI4FLASH_DOT_IS_OWN(target) (((target) & (HWY_ALL_NEON | HWY_ALL_SVE)) != 0)
#elif HWY_ARCH_ARM_A64 && defined(__GNUC__)
#define PHI4FLASH_DOT_TARGET(target) (!PHI4FLASH_ONLY_PROMISED && ((target) & HWY_ALL_NEON) != 0)
#define PHI4FLASH_DOT_IS_OWN(target) (((target) & HWY_ALL_SVE) != 0)
#else
#define PHI4FLASH_DOT_TARGET(target) 0
#define PHI4FLASH_DOT_IS_OWN(target) 0
#endif

#if PHI4FLASH_ARCH_X86

#if PHI4FLASH_HIGHWAY_EXTRA(HWY_AVX2)
#undef HWY_TARGET
#define HWY_TARGET HWY_AVX2
#include <phi4flash/simd/next_target-inl.hpp>
#undef PHI4FLASH_TARGET_LABEL
#define PHI4FLASH_TARGET_LABEL "avx2"
#include <phi4flash/kernels/target-inl.hpp>
#endif

#if PHI4FLASH_HIGHWAY_EXTRA(HWY_AVX3)
#undef HWY_TARGET
#define HWY_TARGET HWY_AVX3
#include <phi4flash/simd/next_target-inl.hpp>
#undef PHI4FLASH_TARGET_LABEL
#define PHI4FLASH_TARGET_LABEL "avx3"
#include <phi4flash/kernels/target-inl.hpp>
#endif

#if PHI4FLASH_HIGHWAY_EXTRA(HWY_AVX3_DL)
#undef HWY_TARGET
#define HWY_TARGET HWY_AVX3_DL
#include <phi4flash/simd/next_target-inl.hpp>
#undef PHI4FLASH_TARGET_LABEL
#define PHI4FLASH_TARGET_LABEL "avx3_dl"
#if PHI4FLASH_HIGHWAY_EXTRA(HWY_AVX3)
#define PHI4FLASH_LOWER_TABLE N_AVX3::vnni_table
#endif
#include <phi4flash/kernels/target-inl.hpp>
#undef PHI4FLASH_LOWER_TABLE
#endif

#if PHI4FLASH_HIGHWAY_EXTRA(HWY_AVX3_ZEN4)
#undef HWY_TARGET
#define HWY_TARGET HWY_AVX3_ZEN4
#include <phi4flash/simd/next_target-inl.hpp>
#undef PHI4FLASH_TARGET_LABEL
#define PHI4FLASH_TARGET_LABEL "avx3_zen4"
#if PHI4FLASH_HIGHWAY_EXTRA(HWY_AVX3_DL)
#define PHI4FLASH_LOWER_TABLE N_AVX3_DL::table
#endif
#include <phi4flash/kernels/target-inl.hpp>
#undef PHI4FLASH_LOWER_TABLE
#endif

#endif  // PHI4FLASH_ARCH_X86

// The static target comes last, so that code after this header sees Highway as if we had not been here.
#undef HWY_TARGET
#define HWY_TARGET HWY_STATIC_TARGET
#include <phi4flash/simd/next_target-inl.hpp>
#if PHI4FLASH_HIGHWAY_WAS_INCLUDED
// Only the macros of the static target are set again; its operations are there since the user's own include.
#include <hwy/ops/set_macros-inl.h>
#ifdef HWY_TARGET_TOGGLE
#undef HWY_TARGET_TOGGLE
#else
#define HWY_TARGET_TOGGLE
#endif
#endif
#undef PHI4FLASH_TARGET_LABEL
#if HWY_STATIC_TARGET == HWY_AVX3_SPR
#define PHI4FLASH_TARGET_LABEL "avx3_spr"
#elif HWY_STATIC_TARGET == HWY_AVX3_ZEN4
#define PHI4FLASH_TARGET_LABEL "avx3_zen4"
#elif HWY_STATIC_TARGET == HWY_AVX3_DL
#define PHI4FLASH_TARGET_LABEL "avx3_dl"
#elif HWY_STATIC_TARGET == HWY_AVX3
#define PHI4FLASH_TARGET_LABEL "avx3"
#elif HWY_STATIC_TARGET == HWY_AVX2
#define PHI4FLASH_TARGET_LABEL "avx2"
#elif HWY_STATIC_TARGET == HWY_SSE4
#define PHI4FLASH_TARGET_LABEL "sse4"
#elif HWY_STATIC_TARGET == HWY_SSSE3
#define PHI4FLASH_TARGET_LABEL "ssse3"
#elif HWY_STATIC_TARGET == HWY_SSE2
#define PHI4FLASH_TARGET_LABEL "sse2"
#elif (HWY_STATIC_TARGET & HWY_ALL_NEON) && PHI4FLASH_DOT_IS_OWN(HWY_STATIC_TARGET)
#define PHI4FLASH_TARGET_LABEL "neon_dot"
#elif HWY_STATIC_TARGET & HWY_ALL_NEON
#define PHI4FLASH_TARGET_LABEL "neon"
#elif HWY_STATIC_TARGET & HWY_ALL_SVE
#define PHI4FLASH_TARGET_LABEL "sve"
#elif HWY_STATIC_TARGET == HWY_RVV
#define PHI4FLASH_TARGET_LABEL "rvv"
#elif HWY_STATIC_TARGET == HWY_WASM
#define PHI4FLASH_TARGET_LABEL "wasm"
#elif HWY_STATIC_TARGET & HWY_ALL_PPC
#define PHI4FLASH_TARGET_LABEL "ppc"
#elif HWY_STATIC_TARGET == HWY_SCALAR
#define PHI4FLASH_TARGET_LABEL "scalar"
#else
#define PHI4FLASH_TARGET_LABEL "static"
#endif
#if !PHI4FLASH_IN_PLACE_OF_STATIC
#include <phi4flash/kernels/target-inl.hpp>
#elif !PHI4FLASH_HIGHWAY_WAS_INCLUDED
// The macros alone: operations of this target come when the user includes highway.h.
#include <hwy/ops/set_macros-inl.h>
#endif

#else  // xsimd, scalar

#define PHI4FLASH_IN_PLACE_OF_STATIC 0
#define PHI4FLASH_AMX_TARGET(target) 0
#define PHI4FLASH_VNNI_ALONE(target) 0
#define PHI4FLASH_VNNI_TARGET(target) 0
#define PHI4FLASH_DOT_TARGET(target) 0
#define PHI4FLASH_DOT_IS_OWN(target) 0

#if PHI4FLASH_SIMD_XSIMD
#define PHI4FLASH_TARGET_LABEL "xsimd"
#else
#define PHI4FLASH_TARGET_LABEL "scalar"
#endif
#include <phi4flash/kernels/target-inl.hpp>

#endif

PHI4FLASH_BEGIN

#if PHI4FLASH_SIMD_HIGHWAY && PHI4FLASH_ARCH_X86
namespace detail {
/// Whether this machine has what a target wants: nobody is asked where the compiler's flags have promised it.
[[nodiscard]] constexpr bool has_level(x86_level here, x86_level wanted) { return PHI4FLASH_IN_PLACE_OF_STATIC || here >= wanted; }
}  // namespace detail
#endif

#if !PHI4FLASH_COMPILE_ONCE
inline
#endif
    kernel_target_list
    kernel_targets() {
    kernel_target_list list{};
#if PHI4FLASH_SIMD_HIGHWAY && PHI4FLASH_ARCH_X86
    [[maybe_unused]] const x86_level here = detect_x86_level();
#if PHI4FLASH_AMX_TARGET(HWY_STATIC_TARGET)
    list.target[list.count++] = {&PHI4FLASH_TARGET_NAMESPACE::tile_table, here >= x86_level::amx, &request_tiles};
#elif PHI4FLASH_AMX_TARGET(HWY_AVX3_ZEN4) && PHI4FLASH_HIGHWAY_EXTRA(HWY_AVX3_ZEN4)
    list.target[list.count++] = {&N_AVX3_ZEN4::tile_table, here >= x86_level::amx, &request_tiles};
#endif
#if PHI4FLASH_HIGHWAY_EXTRA(HWY_AVX3_ZEN4)
    list.target[list.count++] = {&N_AVX3_ZEN4::table, here >= x86_level::avx3_zen4};
#endif
#if PHI4FLASH_HIGHWAY_EXTRA(HWY_AVX3_DL)
    list.target[list.count++] = {&N_AVX3_DL::table, here >= x86_level::avx3_dl};
#endif
#if PHI4FLASH_HIGHWAY_EXTRA(HWY_AVX3)
#if PHI4FLASH_VNNI_TARGET(HWY_AVX3)
    list.target[list.count++] = {&N_AVX3::vnni_table,
                                 PHI4FLASH_VNNI_ALONE(HWY_AVX3) || (detail::has_level(here, x86_level::avx3) && has_avx512_vnni())};
#endif
#if !PHI4FLASH_VNNI_ALONE(HWY_AVX3)
    list.target[list.count++] = {&N_AVX3::table, detail::has_level(here, x86_level::avx3)};
#endif
#endif
#if PHI4FLASH_HIGHWAY_EXTRA(HWY_AVX2)
#if PHI4FLASH_VNNI_TARGET(HWY_AVX2)
    list.target[list.count++] = {&N_AVX2::vnni_table,
                                 PHI4FLASH_VNNI_ALONE(HWY_AVX2) || (detail::has_level(here, x86_level::avx2) && has_avx_vnni())};
#endif
#if !PHI4FLASH_VNNI_ALONE(HWY_AVX2)
    list.target[list.count++] = {&N_AVX2::table, detail::has_level(here, x86_level::avx2)};
#endif
#endif
#if PHI4FLASH_VNNI_TARGET(HWY_STATIC_TARGET) && !PHI4FLASH_IN_PLACE_OF_STATIC
    list.target[list.count++] = {&PHI4FLASH_TARGET_NAMESPACE::vnni_table,
                                 PHI4FLASH_VNNI_ALONE(HWY_STATIC_TARGET) ||
                                     (HWY_STATIC_TARGET == HWY_AVX2 ? has_avx_vnni() : has_avx512_vnni())};
#endif
#endif
#if PHI4FLASH_DOT_TARGET(HWY_STATIC_TARGET)
    list.target[list.count++] = {&PHI4FLASH_TARGET_NAMESPACE::dot_table, has_dot_products()};
#endif
#if !PHI4FLASH_IN_PLACE_OF_STATIC && !PHI4FLASH_VNNI_ALONE(HWY_STATIC_TARGET)
    list.target[list.count++] = {&PHI4FLASH_TARGET_NAMESPACE::table, true};
#endif
    return list;
}

PHI4FLASH_END

#endif
