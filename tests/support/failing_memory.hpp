#pragma once
/// Memory that runs out when a test says so. Replaces the global operator new of a test program: include it in one file of each, and
/// only where there are exceptions.
#include <support/counting.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace failing_memory {

/// Allocations of this thread that still succeed; -1: all. At 0 every one fails, or the next one alone where `once` is true.
inline thread_local long left = -1;
inline thread_local bool once = false;
/// Allocations of this thread that failed.
inline thread_local long failed = 0;

inline bool one_more() {
    if (left > 0) --left;
    else if (left == 0) {
        ++failed;
        if (once) left = -1;
        return false;
    }
    return true;
}

/// Calls `work()` with memory for no allocation, for one, for two ... until it ends without std::bad_alloc. `work` returns whether it ended
/// for want of memory with a value. Returns how often memory ran out, or -1 where it never was enough.
template <class Work>
long run_out_everywhere(Work&& work, long most = 100000) {
    for (long n = 0; n < most; ++n) {
        bool short_of_memory = false;
        left = n;
        try {
            short_of_memory = work();
        } catch (const std::bad_alloc&) {
            short_of_memory = true;
        }
        left = -1;
        if (!short_of_memory) return n;
    }
    return -1;
}

inline const bool counts = counting::works = true;

inline void* take(std::size_t bytes) {
    if (!one_more()) return nullptr;
    counting::bytes_of_thread += bytes;
    return std::malloc(bytes == 0 ? 1 : bytes);
}

#if !defined(_WIN32)
inline void* take(std::size_t bytes, std::align_val_t alignment) {
    if (!one_more()) return nullptr;
    counting::bytes_of_thread += bytes;
    const auto a = static_cast<std::size_t>(alignment);
    return std::aligned_alloc(a, (bytes + a - 1) / a * a);
}
#endif

}  // namespace failing_memory

// Not inlined: GCC would see malloc and free where it knows new and delete, and warn of a mismatch.
#if defined(__GNUC__)
#define PHI4FLASH_TEST_NOINLINE __attribute__((noinline))
#else
#define PHI4FLASH_TEST_NOINLINE
#endif
PHI4FLASH_TEST_NOINLINE void* operator new(std::size_t bytes) {
    if (void* const p = failing_memory::take(bytes)) return p;
    throw std::bad_alloc();
}
PHI4FLASH_TEST_NOINLINE void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return failing_memory::take(bytes); }
PHI4FLASH_TEST_NOINLINE void* operator new[](std::size_t bytes) {
    if (void* const p = failing_memory::take(bytes)) return p;
    throw std::bad_alloc();
}
PHI4FLASH_TEST_NOINLINE void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept { return failing_memory::take(bytes); }
PHI4FLASH_TEST_NOINLINE void operator delete(void* p) noexcept { std::free(p); }
PHI4FLASH_TEST_NOINLINE void operator delete(void* p, std::size_t) noexcept { std::free(p); }
PHI4FLASH_TEST_NOINLINE void operator delete[](void* p) noexcept { std::free(p); }
PHI4FLASH_TEST_NOINLINE void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
#if !defined(_WIN32)  // whose aligned memory is not free()'s
PHI4FLASH_TEST_NOINLINE void* operator new(std::size_t bytes, std::align_val_t alignment) {
    if (void* const p = failing_memory::take(bytes, alignment)) return p;
    throw std::bad_alloc();
}
PHI4FLASH_TEST_NOINLINE void* operator new(std::size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
    return failing_memory::take(bytes, alignment);
}
PHI4FLASH_TEST_NOINLINE void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
PHI4FLASH_TEST_NOINLINE void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
#endif
