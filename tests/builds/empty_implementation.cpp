/// PHI4FLASH_IMPLEMENTATION defined as nothing, as single headers in C have it, is 1.
#define PHI4FLASH_COMPILE_ONCE 1
#define PHI4FLASH_IMPLEMENTATION
#include <phi4flash/config/macros.hpp>

static_assert(PHI4FLASH_IMPLEMENTATION == 1 && PHI4FLASH_BODIES);
