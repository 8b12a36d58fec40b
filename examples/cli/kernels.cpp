/// The kernels, for every target that the compiler knows.
#define PHI4FLASH_IMPLEMENTATION 1
#include "library.hpp"
