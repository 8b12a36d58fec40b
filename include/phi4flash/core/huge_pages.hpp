#pragma once
/// Memory in pages of 2 MiB instead of 4 KiB: fewer misses in the tables by which a processor finds memory. Linux only, and only
/// what the system grants; elsewhere, and where PHI4FLASH_FILES is 0, everything here does nothing. Nothing fails for want of them.
#include <phi4flash/config/abi.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

#if PHI4FLASH_FILES && defined(__linux__)
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#endif

PHI4FLASH_BEGIN

/// What memory is asked for.
enum class page_size : std::uint8_t { normal, huge };

/// Memory that is to lie in huge pages begins at a multiple of this: the size on x86-64, and on aarch64 with pages of 4 KiB.
PHI4FLASH_OWN_DATA inline constexpr std::size_t huge_page_bytes = std::size_t{2} << 20;

/// Asks for huge pages for memory that begins at a multiple of `huge_page_bytes` and has not been touched yet. False where the
/// system has none to give; true is a wish, not a promise.
inline bool ask_for_huge_pages([[maybe_unused]] std::span<const std::byte> memory) {
#if PHI4FLASH_FILES && defined(__linux__) && defined(MADV_HUGEPAGE)
    return !memory.empty() && ::madvise(const_cast<std::byte*>(memory.data()), memory.size(), MADV_HUGEPAGE) == 0;
#else
    return false;
#endif
}

/// The same for as much of the memory as fills whole ones, wherever it begins: what lies beside it stays as it is. @since 0.2
inline bool ask_for_huge_pages_inside(std::span<const std::byte> memory) {
    const std::size_t before = (huge_page_bytes - reinterpret_cast<std::uintptr_t>(memory.data()) % huge_page_bytes) % huge_page_bytes;
    if (memory.size() < before + huge_page_bytes) return false;
    return ask_for_huge_pages(memory.subspan(before, (memory.size() - before) / huge_page_bytes * huge_page_bytes));
}

/// Moves memory that has been touched, and begins at a multiple of `huge_page_bytes`, into huge pages, as far as it fills whole ones: now
/// and on the calling thread, by copying. Linux 6.1 and later do it for memory of a program's own and for tmpfs; for files of other
/// file systems where the kernel was built with CONFIG_READ_ONLY_THP_FOR_FS. False where it does not, or has no memory for it. @since 0.2
inline bool collapse_into_huge_pages([[maybe_unused]] std::span<const std::byte> memory) {
#if PHI4FLASH_FILES && defined(__linux__)
#if defined(MADV_COLLAPSE)
    constexpr int collapse = MADV_COLLAPSE;
#else
    constexpr int collapse = 25;  // libraries are older than kernels
#endif
    const std::size_t whole = memory.size() / huge_page_bytes * huge_page_bytes;
    return whole != 0 && ::madvise(const_cast<std::byte*>(memory.data()), whole, collapse) == 0;
#else
    return false;
#endif
}

/// How much of some memory is there, and not on disk or never written, and how much of that in huge pages. @since 0.2
struct page_share {
    std::size_t resident = 0;
    std::size_t huge = 0;
};

#if PHI4FLASH_FILES && defined(__linux__)
namespace detail {
/// From the text of a /proc/PID/smaps.
[[nodiscard]] inline page_share read_smaps(std::FILE* file, std::span<const std::byte> memory) {
    page_share found;
    const auto begin = reinterpret_cast<std::uintptr_t>(memory.data());
    std::size_t inside = 0;  // bytes of the range being read that are asked about
    char line[512];
    const auto is_range = [&line](std::uintptr_t& first, std::uintptr_t& last) {  // "7f12a000-7f12b000 rw-p ..."
        char* end = nullptr;
        first = static_cast<std::uintptr_t>(std::strtoull(line, &end, 16));
        if (end == line || *end != '-') return false;
        last = static_cast<std::uintptr_t>(std::strtoull(end + 1, &end, 16));
        return *end == ' ';
    };
    while (std::fgets(line, sizeof line, file) != nullptr) {
        std::uintptr_t first = 0;
        std::uintptr_t last = 0;
        if (is_range(first, last)) {
            const std::uintptr_t low = (std::max)(first, begin);
            const std::uintptr_t high = (std::min)(last, begin + memory.size());
            inside = low < high ? high - low : 0;
            continue;
        }
        if (inside == 0) continue;
        const auto bytes_of = [&](std::string_view key) {  // "Rss:            1024 kB"
            if (!std::string_view(line).starts_with(key)) return std::size_t{0};
            return (std::min)(inside, static_cast<std::size_t>(std::strtoull(line + key.size(), nullptr, 10)) * 1024);
        };
        found.resident += bytes_of("Rss:");
        for (const char* kind : {"AnonHugePages:", "ShmemPmdMapped:", "FilePmdMapped:"}) found.huge += bytes_of(kind);
    }
    found.resident = (std::min)(found.resident, memory.size());
    found.huge = (std::min)(found.huge, memory.size());
    return found;
}
}  // namespace detail
#endif

/// Of what this program has touched of the memory, from /proc/self/smaps; nothing where there is no such file. The system counts by ranges
/// that it keeps together, so of a small part of a range it may be too much. Takes milliseconds: for reports, not for loops. @since 0.2
[[nodiscard]] inline page_share touched_pages([[maybe_unused]] std::span<const std::byte> memory) {
    page_share found;
#if PHI4FLASH_FILES && defined(__linux__)
    std::FILE* const file = std::fopen("/proc/self/smaps", "re");
    if (file == nullptr) return found;
    found = detail::read_smaps(file, memory);
    std::fclose(file);
#endif
    return found;
}

/// How much of the memory lies in huge pages now; see touched_pages.
[[nodiscard]] inline std::size_t bytes_in_huge_pages(std::span<const std::byte> memory) { return touched_pages(memory).huge; }

PHI4FLASH_END
