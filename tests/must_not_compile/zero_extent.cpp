// expect: phi4flash: no extent of a shape may be zero
#include <phi4flash/model/shape.hpp>

constexpr phi4flash::sambay_shape changed() {
    phi4flash::sambay_shape shape = phi4flash::phi4_mini_flash;
#if !defined(PHI4FLASH_TEST_FIXED)
    shape.d_ff = 0;
#endif
    return shape;
}

int main() { return phi4flash::extents<changed()>().n_layers() == 0; }
