// A program as a user of the library would write it; built in each way the library can be had.
#include <phi4flash/phi4flash.hpp>

#include <cmath>
#include <cstdio>

int main() {
    float x[3] = {1.0f, 1.0f, 1.0f};
    const phi4flash::kernel_table& kernels = phi4flash::best_kernels();
    kernels.softmax(x, 3, 1.0f);
    std::printf("phi4flash %s, %s kernels, softmax %.6f\n", PHI4FLASH_VERSION_STRING, kernels.name, static_cast<double>(x[0]));
    constexpr phi4flash::extents<phi4flash::phi4_mini_flash> shape;
    return std::fabs(x[0] - 1.0f / 3.0f) < 1e-6f && shape.n_layers() == 32 ? 0 : 1;
}
