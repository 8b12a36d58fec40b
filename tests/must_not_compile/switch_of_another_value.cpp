// expect: want 0 or 1 for each of PHI4FLASH_STATIC_DISPATCH, COMPILE_ONCE, IMPLEMENTATION, KERNELS, AMX, HAS_JSON, FILES and THREADS
#if defined(PHI4FLASH_TEST_FIXED)
#define PHI4FLASH_FILES 0
#else
#define PHI4FLASH_FILES 2
#endif
#include <phi4flash/config/macros.hpp>

int main() {}
