// The single header under another name, twice, and what it found on the include path.
#include "another_name.h"
#include "another_name.h"

#if defined(EXPECT_NOTHING)
static_assert(PHI4FLASH_SIMD_SCALAR == 1 && PHI4FLASH_HAS_JSON == 0);
#elif defined(EXPECT_HIGHWAY)
static_assert(PHI4FLASH_SIMD_HIGHWAY == 1 && PHI4FLASH_HAS_JSON == 0);
#elif defined(EXPECT_XSIMD)
static_assert(PHI4FLASH_SIMD_XSIMD == 1 && PHI4FLASH_HAS_JSON == 0);
#elif defined(EXPECT_JSON)
static_assert(PHI4FLASH_SIMD_SCALAR == 1 && PHI4FLASH_HAS_JSON == 1);
#endif

int main() { return phi4flash::best_kernels().lanes() == 0; }
