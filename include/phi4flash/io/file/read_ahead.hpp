#pragma once
/// Asks the system for pages of a mapped file before they are looked at.
/// @since 0.2
#include <phi4flash/core/huge_pages.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#if PHI4FLASH_FILES && !defined(_WIN32)
#include <sys/mman.h>
#include <unistd.h>
#endif

PHI4FLASH_BEGIN

/// A wish, for memory of any kind: reading goes on while the caller computes. On Windows, and where PHI4FLASH_FILES is 0, nothing happens.
///
/// The system reads in small pages what it is asked for, and in huge ones, with those that come next, what is looked at in a map that asked for
/// them (file_pages.hpp). So a byte in each place of a huge page is looked at first: elsewhere that costs a short read.
inline void ask_for_pages([[maybe_unused]] std::span<const std::byte> bytes) {
#if PHI4FLASH_FILES && !defined(_WIN32)
    const long page = ::sysconf(_SC_PAGESIZE);
    if (bytes.empty() || page <= 0) return;
#if defined(__linux__)
    const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data());
    const volatile std::byte* const p = bytes.data();
    for (std::size_t at = 0; at < bytes.size(); at = (begin + at) / huge_page_bytes * huge_page_bytes + huge_page_bytes - begin) (void)p[at];
#endif
    const std::size_t before = reinterpret_cast<std::uintptr_t>(bytes.data()) % static_cast<std::size_t>(page);
    (void)::posix_madvise(const_cast<std::byte*>(bytes.data()) - before, bytes.size() + before, POSIX_MADV_WILLNEED);
#endif
}

PHI4FLASH_END
