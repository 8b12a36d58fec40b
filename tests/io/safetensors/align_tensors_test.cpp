/// Tensors at odd places: copied where they must be, all or nothing, in no more memory than they need.
#include "io/io_testing.hpp"

#include <phi4flash/io/safetensors/align_tensors.hpp>

using namespace phi4flash;
using namespace io_testing;

TEST_CASE("io/align_tensors: only what is not aligned for its type moves") {
    alignas(64) std::byte data[256];
    for (std::size_t i = 0; i < sizeof data; ++i) data[i] = static_cast<std::byte>(i);
    const std::size_t two[] = {2};
    const std::size_t block[] = {8, 32};
    const std::size_t none[] = {0};
    tensor_view tensors[] = {view_of(data, two, dtype::f32),      view_of(data + 2, two, dtype::f32), view_of(data + 2, two, dtype::bf16),
                             view_of(data + 5, two, dtype::f16),  view_of(data + 6, block, dtype::q4), view_of(data + 7, none, dtype::f32)};
    std::size_t copied = 0;
    const auto made = align_tensors(tensors, [&](std::size_t bytes) { copied += bytes; });
    require_value(made);
    CHECK(copied == 8 + 4);
    CHECK(made->bytes().size() == 2 * block_alignment);
    for (const tensor_view& t : tensors) CHECK((t.bytes == 0 || t.is_aligned()));
    CHECK(tensors[0].data == data);
    CHECK(tensors[1].data == made->bytes().data());
    CHECK(std::memcmp(tensors[1].data, data + 2, 8) == 0);
    CHECK(tensors[2].data == data + 2);
    CHECK(std::memcmp(tensors[3].data, data + 5, 4) == 0);
    CHECK(tensors[4].data == data + 6);

    const auto again = align_tensors(tensors, [](std::size_t) { FAIL("nothing to copy"); });
    require_value(again);
    CHECK(again->bytes().empty());
}

TEST_CASE("io/align_tensors: without memory for all of them nothing changes") {
    alignas(64) std::byte data[64] = {};
    const std::size_t two[] = {2};
    tensor_view tensors[] = {view_of(data + 1, two, dtype::f32), view_of(data + 1, two, dtype::f32)};
    // Of 32 bits so many may be free; then more than there can be.
    tensors[1].bytes = static_cast<std::size_t>(PTRDIFF_MAX) - (sizeof(std::size_t) > 4 ? 256 : 0);
    check_error(align_tensors(tensors, [](std::size_t) { FAIL("nothing can be copied"); }), errc::out_of_memory, {"not aligned", "bytes"});
    CHECK(tensors[0].data == data + 1);
}
