// A program as a user of the library would write it.
#include <phi4flash/phi4flash.hpp>

#include "report.hpp"

int main() {
    constexpr phi4flash::extents<phi4flash::phi4_mini_flash> shape;
#if PHI4FLASH_HAS_JSON
    static_assert(sizeof(phi4flash::checkpoint) != 0);
#endif
    return shape.n_layers() == 32 ? report() : 1;
}
