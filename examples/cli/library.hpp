#pragma once
/// The library in compile-once mode: its kernels are compiled in src/kernels.cpp, what else is no template in src/library.cpp.
#ifndef PHI4FLASH_COMPILE_ONCE
#define PHI4FLASH_COMPILE_ONCE 1
#endif
#include <phi4flash/phi4flash.hpp>

namespace cli {
namespace p4 = phi4flash;
}
