#pragma once
/// Counts what a program takes from the system and from the C library: malloc and its siblings, and mmap, of all threads. (operator new
/// of failing_memory.hpp takes its memory from malloc.) Replaces these functions in a test program: include it in one file of each. Only
/// on Linux with glibc and without sanitizers, which replace them too; elsewhere `counts` is false and nothing is counted.
#include <atomic>
#include <cstddef>

#if defined(__linux__) && defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define PHI4FLASH_TEST_COUNTS_MEMORY 1
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#undef PHI4FLASH_TEST_COUNTS_MEMORY
#define PHI4FLASH_TEST_COUNTS_MEMORY 0
#endif
#endif
#else
#define PHI4FLASH_TEST_COUNTS_MEMORY 0
#endif

namespace counted_memory {

inline constexpr bool counts = PHI4FLASH_TEST_COUNTS_MEMORY == 1;
/// Calls since the program began, and what they asked for.
inline std::atomic<std::size_t> calls{0};
inline std::atomic<std::size_t> bytes{0};

inline void note(std::size_t n) {
    calls.fetch_add(1, std::memory_order_relaxed);
    bytes.fetch_add(n, std::memory_order_relaxed);
}

}  // namespace counted_memory

#if PHI4FLASH_TEST_COUNTS_MEMORY
#include <cerrno>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

extern "C" {
void* __libc_malloc(std::size_t) noexcept;
void* __libc_calloc(std::size_t, std::size_t) noexcept;
void* __libc_realloc(void*, std::size_t) noexcept;
void* __libc_memalign(std::size_t, std::size_t) noexcept;

void* malloc(std::size_t n) noexcept { return counted_memory::note(n), __libc_malloc(n); }
void* calloc(std::size_t n, std::size_t size) noexcept { return counted_memory::note(n * size), __libc_calloc(n, size); }
void* realloc(void* p, std::size_t n) noexcept { return counted_memory::note(n), __libc_realloc(p, n); }
void* memalign(std::size_t alignment, std::size_t n) noexcept { return counted_memory::note(n), __libc_memalign(alignment, n); }
void* aligned_alloc(std::size_t alignment, std::size_t n) noexcept { return counted_memory::note(n), __libc_memalign(alignment, n); }
int posix_memalign(void** out, std::size_t alignment, std::size_t n) noexcept {
    counted_memory::note(n);
    *out = __libc_memalign(alignment, n);
    return *out == nullptr ? ENOMEM : 0;
}
void* mmap(void* where, std::size_t n, int protection, int flags, int file, off_t offset) noexcept {
    counted_memory::note(n);
    // The kernel's own result: -1 and errno, as mmap's.
    return reinterpret_cast<void*>(syscall(SYS_mmap, where, n, protection, flags, file, offset));
}
}
#endif
