// The one file of a test program that compiles the kernels; all others set PHI4FLASH_COMPILE_ONCE and see declarations. Includes
// the kernels alone, so that a change elsewhere does not compile them again.
#define PHI4FLASH_IMPLEMENTATION 1
#include <phi4flash/kernels/dispatch.hpp>
