/// The kernels, for every target that the compiler knows: the file of a program in compile-once mode that defines them, where all
/// others only declare (PHI4FLASH_COMPILE_ONCE). The rest that is compiled once is in library.cpp. Includes nothing else of the library, so that
/// a change elsewhere does not compile them again.
#ifndef PHI4FLASH_COMPILE_ONCE
#define PHI4FLASH_COMPILE_ONCE 1
#endif
#define PHI4FLASH_IMPLEMENTATION 1
#include <phi4flash/kernels/dispatch.hpp>
