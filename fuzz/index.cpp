/// model.safetensors.index.json: every shard is a file of the folder itself, and every tensor is in one of them.
#include "fuzz.hpp"

#include <phi4flash/io/huggingface/checkpoint_index.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace phi4flash;
    const fuzz::memory_limit limit(size, 1 << 16, 128);
    const auto index = read_checkpoint_index(fuzz::text_of(data, size));
    if (!index) return fuzz::check_refusal(index.error()), 0;
    PHI4FLASH_FUZZ_CHECK(!index->entries.empty());
    for (const std::string& shard : index->shards) PHI4FLASH_FUZZ_CHECK(is_plain_file_name(shard));
    const checkpoint_index::entry* before = nullptr;
    for (const auto& e : index->entries) {
        PHI4FLASH_FUZZ_CHECK(e.shard < index->shards.size());
        PHI4FLASH_FUZZ_CHECK(before == nullptr || before->tensor < e.tensor);
        before = &e;
    }
    return 0;
}
