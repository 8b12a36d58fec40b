#pragma once
/// The instruction set that the compiler's flags allow in every function, as one word for the ABI namespace: a base and a letter for
/// each set beside it ("avx2fhbizpm" is -march=haswell). A function that may hold an instruction is not the same as one that may not.
#include <phi4flash/config/macros.hpp>

#if defined(__AVX512F__) && defined(__AVX512CD__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define PHI4FLASH_ISA_BASE avx512
#elif defined(__AVX512F__)
#define PHI4FLASH_ISA_BASE avx512f
#elif defined(__AVX2__)
#define PHI4FLASH_ISA_BASE avx2
#elif defined(__AVX__)
#define PHI4FLASH_ISA_BASE avx
#elif defined(__SSE4_2__)
#define PHI4FLASH_ISA_BASE sse42
#elif defined(__SSE4_1__)
#define PHI4FLASH_ISA_BASE sse41
#elif defined(__SSSE3__)
#define PHI4FLASH_ISA_BASE ssse3
#elif defined(__x86_64__) || defined(_M_X64)
#define PHI4FLASH_ISA_BASE x86_64
#elif defined(__SSE2_MATH__)
#define PHI4FLASH_ISA_BASE i386_sse2
#elif defined(__i386__) || defined(_M_IX86)
#define PHI4FLASH_ISA_BASE i386
#elif defined(__ARM_FEATURE_SVE2)
#define PHI4FLASH_ISA_BASE sve2
#elif defined(__ARM_FEATURE_SVE)
#define PHI4FLASH_ISA_BASE sve
#elif defined(__ARM_NEON) || defined(_M_ARM64)
#define PHI4FLASH_ISA_BASE neon
#elif defined(__riscv_vector)
#define PHI4FLASH_ISA_BASE rvv
#elif defined(__wasm_simd128__)
#define PHI4FLASH_ISA_BASE wasm128
#elif defined(__VSX__)
#define PHI4FLASH_ISA_BASE vsx
#else
#define PHI4FLASH_ISA_BASE generic
#endif

// The sets of Intel's Ice Lake that Highway's avx3_dl wants together; no CPU has one without the others.
#if defined(__AVX512VBMI__) && defined(__AVX512VBMI2__) && defined(__AVX512BITALG__) && defined(__AVX512VPOPCNTDQ__) && defined(__GFNI__) && \
    defined(__VAES__) && defined(__VPCLMULQDQ__)
#define PHI4FLASH_ISA_ICE_LAKE 1
#else
#define PHI4FLASH_ISA_ICE_LAKE 0
#endif

// Matrix tiles with products of bytes and of bf16: static dispatch has kernels for all three together.
#if defined(__AMX_TILE__) && defined(__AMX_INT8__) && defined(__AMX_BF16__)
#define PHI4FLASH_ISA_TILES 1
#else
#define PHI4FLASH_ISA_TILES 0
#endif

#define PHI4FLASH_JOIN_(a, b, c, d, e) a##b##c##d##e
#define PHI4FLASH_JOIN(a, b, c, d, e) PHI4FLASH_JOIN_(a, b, c, d, e)

// PHI4FLASH_IF_ONE(word, letters): the letters where the word is a macro that is 1, nothing where it is another one or none.
#define PHI4FLASH_IF_ONE_1 ,
#define PHI4FLASH_SECOND_(first, second, ...) second
#define PHI4FLASH_SECOND(arguments) PHI4FLASH_SECOND_ arguments
#define PHI4FLASH_IF_ONE_(value, letters) PHI4FLASH_SECOND((PHI4FLASH_IF_ONE_##value letters, , ))
#define PHI4FLASH_IF_ONE(word, letters) PHI4FLASH_IF_ONE_(word, letters)

#if defined(__x86_64__) || defined(__i386__)
#define PHI4FLASH_ISA_LETTERS                                                                                              \
    PHI4FLASH_JOIN(PHI4FLASH_IF_ONE(__FMA__, f), PHI4FLASH_IF_ONE(__F16C__, h), PHI4FLASH_IF_ONE(__BMI__, b),              \
                   PHI4FLASH_IF_ONE(__BMI2__, i), PHI4FLASH_ISA_MORE_LETTERS)
#define PHI4FLASH_ISA_MORE_LETTERS                                                                                         \
    PHI4FLASH_JOIN(PHI4FLASH_IF_ONE(__LZCNT__, z), PHI4FLASH_IF_ONE(__POPCNT__, p), PHI4FLASH_IF_ONE(__AES__, a),          \
                   PHI4FLASH_IF_ONE(__PCLMUL__, m), PHI4FLASH_ISA_VECTOR_LETTERS)
#define PHI4FLASH_ISA_VECTOR_LETTERS                                                                                       \
    PHI4FLASH_JOIN(PHI4FLASH_IF_ONE(__AVXVNNI__, v), PHI4FLASH_IF_ONE(__AVX512VNNI__, n),                                  \
                   PHI4FLASH_IF_ONE(PHI4FLASH_ISA_ICE_LAKE, l), PHI4FLASH_IF_ONE(__AVX512BF16__, y),                       \
                   PHI4FLASH_ISA_LATEST_LETTERS)
#define PHI4FLASH_ISA_LATEST_LETTERS                                                                                       \
    PHI4FLASH_JOIN(PHI4FLASH_IF_ONE(__AVX512FP16__, q), PHI4FLASH_IF_ONE(PHI4FLASH_ISA_TILES, t), , , )
#elif defined(__ARM_NEON)
#define PHI4FLASH_ISA_LETTERS                                                                                              \
    PHI4FLASH_JOIN(PHI4FLASH_IF_ONE(__ARM_FEATURE_FMA, f), PHI4FLASH_IF_ONE(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC, h),      \
                   PHI4FLASH_IF_ONE(__ARM_FEATURE_AES, a), PHI4FLASH_IF_ONE(__ARM_FEATURE_DOTPROD, d),                     \
                   PHI4FLASH_IF_ONE(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC, y))
#else
#define PHI4FLASH_ISA_LETTERS
#endif

#define PHI4FLASH_ABI_ISA PHI4FLASH_JOIN(PHI4FLASH_ISA_BASE, PHI4FLASH_ISA_LETTERS, , , )
