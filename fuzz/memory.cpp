/// Counts memory as the address sanitizer tells of it.
#include "fuzz.hpp"

#if defined(__SANITIZE_ADDRESS__)
#define PHI4FLASH_FUZZ_COUNTS
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PHI4FLASH_FUZZ_COUNTS
#endif
#endif

#if defined(PHI4FLASH_FUZZ_COUNTS)
// As sanitizer/allocator_interface.h has them, which not every compiler brings along.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void*, std::size_t),
                                                         void (*free_hook)(const volatile void*));
extern "C" std::size_t __sanitizer_get_allocated_size(const volatile void* memory);
#endif

namespace fuzz {
namespace {

// Of the calling thread alone: libFuzzer has one that watches.
thread_local std::int64_t now = 0;
thread_local std::int64_t highest = 0;

#if defined(PHI4FLASH_FUZZ_COUNTS)
void taken(const volatile void*, std::size_t bytes) {
    now += static_cast<std::int64_t>(bytes);
    highest = (std::max)(highest, now);
}
void given_back(const volatile void* memory) {
    if (memory != nullptr) now -= static_cast<std::int64_t>(__sanitizer_get_allocated_size(memory));
}
[[maybe_unused]] const int hooks = __sanitizer_install_malloc_and_free_hooks(&taken, &given_back);
#endif

}  // namespace

memory_limit::memory_limit(std::size_t size, std::size_t least, std::size_t each) : most_(least + each * size) { now = highest = 0; }

memory_limit::~memory_limit() {
    if (most_memory() <= most_) return;
    std::fprintf(stderr, "memory: want at most %zu bytes for this input, have %zu\n", most_, most_memory());
    std::abort();
}

std::size_t most_memory() { return static_cast<std::size_t>(highest); }

}  // namespace fuzz
