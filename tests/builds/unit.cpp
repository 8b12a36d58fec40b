// One of several files that are compiled differently and linked into one program (see mixed_units.cpp).
#include <phi4flash/phi4flash.hpp>

#define PHI4FLASH_UNIT_TEXT_(x) #x
#define PHI4FLASH_UNIT_TEXT(x) PHI4FLASH_UNIT_TEXT_(x)

/// Softmax of x[n] by this file's kernels; returns the name of its ABI namespace.
const char* PHI4FLASH_UNIT(float* x, std::size_t n);

const char* PHI4FLASH_UNIT(float* x, std::size_t n) {
    phi4flash::best_kernels().softmax(x, n, 1.0f);
    return PHI4FLASH_UNIT_TEXT(PHI4FLASH_ABI);
}
