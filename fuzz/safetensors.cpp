/// A safetensors file: what is accepted covers the file's data once, and lies in it.
#include "fuzz.hpp"

#include <phi4flash/io/safetensors/safetensors.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace phi4flash;
    const fuzz::memory_limit limit(size, 1 << 16, 64);
    const auto file = fuzz::bytes_of(data, size);
    const auto table = safetensors::parse(file);
    if (!table) return fuzz::check_refusal(table.error()), 0;
    std::size_t sum = 0;
    const safetensors_entry* before = nullptr;
    for (const safetensors_entry& e : table->entries()) {
        fuzz::read_all({e.data, e.bytes});
        sum += e.bytes;
        PHI4FLASH_FUZZ_CHECK(find_safetensors_dtype(e.dtype) != nullptr);
        PHI4FLASH_FUZZ_CHECK(before == nullptr || before->name < e.name);
        PHI4FLASH_FUZZ_CHECK(table->find(e.name) == &e);
        const auto view = to_tensor_view(e);
        if (!view) fuzz::check_refusal(view.error());
        else PHI4FLASH_FUZZ_CHECK(view->count() * size_of(view->type) == view->bytes);
        before = &e;
    }
    std::uint64_t header = 0;
    std::memcpy(&header, data, sizeof header);
    PHI4FLASH_FUZZ_CHECK(sum == size - sizeof header - header);
    return 0;
}
