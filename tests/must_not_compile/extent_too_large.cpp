// expect: phi4flash: an extent of the shape is larger than max_extent
#include <phi4flash/model/shape.hpp>

constexpr phi4flash::sambay_shape changed() {
    phi4flash::sambay_shape shape = phi4flash::phi4_mini_flash;
#if !defined(PHI4FLASH_TEST_FIXED)
    shape.vocab = phi4flash::max_extent + 1;
#endif
    return shape;
}

int main() { return phi4flash::extents<changed()>().n_layers() == 0; }
