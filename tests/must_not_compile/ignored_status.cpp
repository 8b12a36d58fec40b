// expect: nodiscard
#include <phi4flash/model/shape.hpp>

int main() {
#if defined(PHI4FLASH_TEST_FIXED)
    return phi4flash::check_shape(phi4flash::phi4_mini_flash).has_value() ? 0 : 1;
#else
    phi4flash::check_shape(phi4flash::phi4_mini_flash);
#endif
}
