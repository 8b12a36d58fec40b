#pragma once
/// Memory in pages of 2 MiB instead of 4 KiB: fewer misses in the tables by which a processor finds memory. Linux only, and only
/// what the system grants; elsewhere everything here does nothing. Nothing fails for want of them.
#include <phi4flash/config/abi.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

#if defined(__linux__)
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#endif

PHI4FLASH_BEGIN

/// What memory is asked for.
enum class page_size : std::uint8_t { normal, huge };

/// Memory that is to lie in huge pages begins at a multiple of this: the size on x86-64, and on aarch64 with pages of 4 KiB.
inline constexpr std::size_t huge_page_bytes = std::size_t{2} << 20;

/// Asks for huge pages for memory that begins at a multiple of `huge_page_bytes` and has not been written yet. False where the
/// system has none to give; true is a wish, not a promise.
inline bool ask_for_huge_pages([[maybe_unused]] std::span<const std::byte> memory) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    return !memory.empty() && ::madvise(const_cast<std::byte*>(memory.data()), memory.size(), MADV_HUGEPAGE) == 0;
#else
    return false;
#endif
}

/// How much of the memory lies in huge pages now, from /proc/self/smaps; 0 where there is no such file. The system counts by ranges
/// that it keeps together, so of a small part of a range it may be too much. Takes milliseconds: for reports, not for loops.
[[nodiscard]] inline std::size_t bytes_in_huge_pages([[maybe_unused]] std::span<const std::byte> memory) {
#if defined(__linux__)
    std::FILE* const file = std::fopen("/proc/self/smaps", "re");
    if (file == nullptr) return 0;
    const auto begin = reinterpret_cast<std::uintptr_t>(memory.data());
    std::size_t found = 0;
    std::size_t inside = 0;  // bytes of the range being read that are asked about
    char line[512];
    while (std::fgets(line, sizeof line, file) != nullptr) {
        unsigned long long first = 0;
        unsigned long long last = 0;
        unsigned long long kib = 0;
        if (std::sscanf(line, "%llx-%llx ", &first, &last) == 2) {
            const auto low = std::max<unsigned long long>(first, begin);
            const auto high = std::min<unsigned long long>(last, begin + memory.size());
            inside = low < high ? static_cast<std::size_t>(high - low) : 0;
            continue;
        }
        if (inside == 0) continue;
        for (const char* kind : {"AnonHugePages: %llu", "ShmemPmdMapped: %llu", "FilePmdMapped: %llu"})
            if (std::sscanf(line, kind, &kib) == 1) found += (std::min)(inside, static_cast<std::size_t>(kib) * 1024);
    }
    std::fclose(file);
    return (std::min)(found, memory.size());
#else
    return 0;
#endif
}

PHI4FLASH_END
