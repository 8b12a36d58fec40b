// expect: set only one of PHI4FLASH_SIMD_HIGHWAY, PHI4FLASH_SIMD_XSIMD and PHI4FLASH_SIMD_SCALAR to 1
#if !defined(PHI4FLASH_TEST_FIXED)
#define PHI4FLASH_SIMD_XSIMD 1
#endif
#include <phi4flash/config/macros.hpp>

int main() {}
