// A program as a user of the library would write it. Arguments: the back end and JSON (0 or 1) that the recipe's options promise.
#include <phi4flash/phi4flash.hpp>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    float x[3] = {1.0f, 1.0f, 1.0f};
    const phi4flash::kernel_table& kernels = phi4flash::best_kernels();
    kernels.softmax(x, 3, 1.0f);
    const char* back_end = PHI4FLASH_SIMD_HIGHWAY ? "highway" : PHI4FLASH_SIMD_XSIMD ? "xsimd" : "scalar";
    std::printf("phi4flash %s, back end %s, target %s, json %d\n", PHI4FLASH_VERSION_STRING, back_end, kernels.name, PHI4FLASH_HAS_JSON);
    const bool as_promised = std::strcmp(argv[1], back_end) == 0 && std::atoi(argv[2]) == PHI4FLASH_HAS_JSON;
    return as_promised && std::fabs(x[0] - 1.0f / 3.0f) < 1e-6f ? 0 : 1;
}
