// expect: want 0 or 1 for each of PHI4FLASH_HAS_WEIGHTS_F32 and its kin, and of PHI4FLASH_HAS_KV_F32 and its kin
#if defined(PHI4FLASH_TEST_FIXED)
#define PHI4FLASH_HAS_KV_INT8 0
#else
#define PHI4FLASH_HAS_KV_INT8 2
#endif
#include <phi4flash/config/macros.hpp>

int main() {}
