#pragma once
/// Asks the system for pages of a mapped file before they are looked at.
/// @since 0.2
#include <phi4flash/config/abi.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#if PHI4FLASH_FILES && !defined(_WIN32)
#include <sys/mman.h>
#include <unistd.h>
#endif

PHI4FLASH_BEGIN

/// A wish, for memory of any kind: reading goes on while the caller computes. On Windows, and where PHI4FLASH_FILES is 0, nothing happens.
inline void ask_for_pages([[maybe_unused]] std::span<const std::byte> bytes) {
#if PHI4FLASH_FILES && !defined(_WIN32)
    const long page = ::sysconf(_SC_PAGESIZE);
    if (bytes.empty() || page <= 0) return;
    const std::size_t before = reinterpret_cast<std::uintptr_t>(bytes.data()) % static_cast<std::size_t>(page);
    (void)::posix_madvise(const_cast<std::byte*>(bytes.data()) - before, bytes.size() + before, POSIX_MADV_WILLNEED);
#endif
}

PHI4FLASH_END
