// The one file of a test program that compiles the kernels; all others set PHI4FLASH_COMPILE_ONCE and see declarations.
#define PHI4FLASH_IMPLEMENTATION 1
#include <phi4flash/phi4flash.hpp>
