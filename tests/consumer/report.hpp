#pragma once
// What the consumers print, and the tests compare with what was promised: version, back end, target, JSON.
#include <cmath>
#include <cstdio>

#if PHI4FLASH_HAS_JSON && !__has_include(<nlohmann/json.hpp>)
#error "JSON was promised, and is not on the include path"
#endif

inline int report() {
    float x[3] = {1.0f, 1.0f, 1.0f};
    const phi4flash::kernel_table& kernels = phi4flash::best_kernels();
    kernels.softmax(x, 3, 1.0f);
    const char* back_end = PHI4FLASH_SIMD_HIGHWAY ? "highway" : PHI4FLASH_SIMD_XSIMD ? "xsimd" : "scalar";
    std::printf("phi4flash %s, back end %s, target %s, json %d\n", PHI4FLASH_VERSION_STRING, back_end, kernels.name, PHI4FLASH_HAS_JSON);
    return phi4flash::thread_pool::create(2) && std::fabs(x[0] - 1.0f / 3.0f) < 1e-6f ? 0 : 1;
}
