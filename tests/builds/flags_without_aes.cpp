/// Flags that allow AVX2 but not AES, as -march=x86-64-v3 does, have kernels for AVX2 (and with AVX-512, for that).
#include <phi4flash/kernels/dispatch.hpp>

#if defined(__AES__) || !defined(__AVX2__)
#error "this test wants flags for AVX2 without AES"
#endif
#if defined(__AVX512VL__)
static_assert(HWY_STATIC_TARGET == HWY_AVX3);
#else
static_assert(HWY_STATIC_TARGET == HWY_AVX2);
#endif
