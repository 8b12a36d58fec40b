#pragma once
/// The inline ABI namespace: version, back end and static instruction set are part of every symbol's name, so two
/// translation units built with different flags can be linked together and never share a function by accident.
#include <phi4flash/config/macros.hpp>
#include <phi4flash/config/version.hpp>

#if PHI4FLASH_SIMD_HIGHWAY && PHI4FLASH_STATIC_DISPATCH
#define PHI4FLASH_ABI_BACK_END highway_static
#elif PHI4FLASH_SIMD_HIGHWAY
#define PHI4FLASH_ABI_BACK_END highway
#elif PHI4FLASH_SIMD_XSIMD
#define PHI4FLASH_ABI_BACK_END xsimd
#else
#define PHI4FLASH_ABI_BACK_END scalar
#endif

#if defined(__AVX512BF16__)
#define PHI4FLASH_ABI_ISA avx512bf16
#elif defined(__AVX512VNNI__)
#define PHI4FLASH_ABI_ISA avx512vnni
#elif defined(__AVX512BW__)
#define PHI4FLASH_ABI_ISA avx512bw
#elif defined(__AVX512F__)
#define PHI4FLASH_ABI_ISA avx512f
#elif defined(__AVX2__) && defined(__FMA__)
#define PHI4FLASH_ABI_ISA avx2fma
#elif defined(__AVX2__)
#define PHI4FLASH_ABI_ISA avx2
#elif defined(__AVX__)
#define PHI4FLASH_ABI_ISA avx
#elif defined(__SSE4_2__)
#define PHI4FLASH_ABI_ISA sse42
#elif defined(__SSE4_1__)
#define PHI4FLASH_ABI_ISA sse41
#elif defined(__SSSE3__)
#define PHI4FLASH_ABI_ISA ssse3
#elif defined(__x86_64__) || defined(_M_X64)
#define PHI4FLASH_ABI_ISA x86_64
#elif defined(__ARM_FEATURE_SVE)
#define PHI4FLASH_ABI_ISA sve
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define PHI4FLASH_ABI_ISA neon_bf16
#elif defined(__ARM_NEON) || defined(_M_ARM64)
#define PHI4FLASH_ABI_ISA neon
#elif defined(__riscv_vector)
#define PHI4FLASH_ABI_ISA rvv
#elif defined(__wasm_simd128__)
#define PHI4FLASH_ABI_ISA wasm128
#else
#define PHI4FLASH_ABI_ISA generic
#endif

#define PHI4FLASH_ABI_JOIN_(major, minor, back_end, isa) v##major##_##minor##_##back_end##_##isa
#define PHI4FLASH_ABI_JOIN(major, minor, back_end, isa) PHI4FLASH_ABI_JOIN_(major, minor, back_end, isa)
#define PHI4FLASH_ABI \
    PHI4FLASH_ABI_JOIN(PHI4FLASH_VERSION_MAJOR, PHI4FLASH_VERSION_MINOR, PHI4FLASH_ABI_BACK_END, PHI4FLASH_ABI_ISA)

#define PHI4FLASH_BEGIN      \
    namespace phi4flash {    \
    inline namespace PHI4FLASH_ABI {
#define PHI4FLASH_END \
    }                 \
    }
