#pragma once
/// Memory that runs out when a test says so. Replaces the global operator new of a test program: include it in one file of each, and
/// only where there are exceptions.
#include <cstdlib>
#include <new>

namespace failing_memory {

/// Allocations of this thread that still succeed; -1: all. At 0 every one fails.
inline thread_local long left = -1;

inline bool one_more() {
    if (left > 0) --left;
    return left != 0;
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

}  // namespace failing_memory

// Not inlined: GCC would see malloc and free where it knows new and delete, and warn of a mismatch.
#if defined(__GNUC__)
#define PHI4FLASH_TEST_NOINLINE __attribute__((noinline))
#else
#define PHI4FLASH_TEST_NOINLINE
#endif
PHI4FLASH_TEST_NOINLINE void* operator new(std::size_t bytes) {
    if (failing_memory::one_more())
        if (void* const p = std::malloc(bytes == 0 ? 1 : bytes)) return p;
    throw std::bad_alloc();
}
PHI4FLASH_TEST_NOINLINE void operator delete(void* p) noexcept { std::free(p); }
PHI4FLASH_TEST_NOINLINE void operator delete(void* p, std::size_t) noexcept { std::free(p); }
