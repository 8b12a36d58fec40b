// expect: phi4flash: d_model must be a multiple of n_heads
#include <phi4flash/model/shape.hpp>

constexpr phi4flash::sambay_shape changed() {
    phi4flash::sambay_shape shape = phi4flash::phi4_mini_flash;
#if !defined(PHI4FLASH_TEST_FIXED)
    shape.d_model = 2562;
#endif
    return shape;
}

int main() { return phi4flash::extents<changed()>().n_layers() == 0; }
