/// What is no template and no kernel: the other file that a program in compile-once mode needs, beside kernels.cpp. A project that does not mind
/// compiling its kernels again when the library changes has one file for both (docs/embedding.md).
#ifndef PHI4FLASH_COMPILE_ONCE
#define PHI4FLASH_COMPILE_ONCE 1
#endif
#define PHI4FLASH_IMPLEMENTATION 1
#define PHI4FLASH_KERNELS 0
#include <phi4flash/phi4flash.hpp>
