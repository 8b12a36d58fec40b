// The single header under another name, twice, and what it found on the include path: a back end, and JSON only where it is asked for.
#include "another_name.h"
#include "another_name.h"

#if defined(EXPECT_NOTHING)
static_assert(PHI4FLASH_SIMD_SCALAR == 1 && PHI4FLASH_HAS_JSON == 0);
#elif defined(EXPECT_HIGHWAY)
static_assert(PHI4FLASH_SIMD_HIGHWAY == 1 && PHI4FLASH_HAS_JSON == 0);
#elif defined(EXPECT_XSIMD)
static_assert(PHI4FLASH_SIMD_XSIMD == 1 && PHI4FLASH_HAS_JSON == 0);
#elif defined(EXPECT_JSON)
static_assert(PHI4FLASH_SIMD_SCALAR == 1 && PHI4FLASH_HAS_JSON == 0);
#ifdef NLOHMANN_JSON_VERSION_MAJOR
#error "nobody asked for JSON"
#endif
#elif defined(EXPECT_JSON_ASKED)
static_assert(PHI4FLASH_SIMD_SCALAR == 1 && PHI4FLASH_HAS_JSON == 1);
static_assert(sizeof(phi4flash::checkpoint) != 0);
#endif

int main() { return phi4flash::best_kernels().lanes() == 0; }
