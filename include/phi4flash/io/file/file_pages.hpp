#pragma once
/// The pages in which a system keeps a file, seen through a map of it: where the map begins, what is cached and how, reading ahead, dropping.
/// For mapped_file and file_writer.
///
/// Linux gives huge pages to a map of an ordinary file if the file system caches it in pages so large (ext4 since 6.16, XFS since 5.18, and
/// overlayfs over them; btrfs does not). It decides when a part of the file comes into the cache, for everybody who will ever map it:
/// when it is read through a map that asked for huge pages, or written in whole ones. Later advice changes nothing.
#include <phi4flash/core/huge_pages.hpp>

#if PHI4FLASH_FILES
#include <algorithm>
#include <cerrno>
#include <cstdio>
#if !defined(_WIN32)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

PHI4FLASH_BEGIN

namespace detail {

/// Looks at a byte of each page.
inline void look_at_pages(std::span<const std::byte> bytes) {
    constexpr std::size_t smallest_page = 4096;
    const volatile std::byte* const p = bytes.data();
    for (std::size_t at = 0; at < bytes.size(); at += smallest_page) (void)p[at];
}

#if defined(_WIN32)

inline void read_pages(std::span<const std::byte> map) { look_at_pages(map); }
inline void leave_no_small_pages(int, std::size_t) {}

#else

/// Address space of `size` bytes, in whole pages, that begins where a huge page may; nullptr if the system has none.
[[nodiscard]] inline std::byte* take_pages(std::size_t size, int protection) {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    if (size > static_cast<std::size_t>(PTRDIFF_MAX) - 2 * huge_page_bytes) return nullptr;
    const std::size_t kept = (size + page - 1) / page * page;
    const std::size_t taken = kept + huge_page_bytes;
    void* const place = ::mmap(nullptr, taken, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) return nullptr;
    auto* const base = static_cast<std::byte*>(place);
    const std::size_t before = (huge_page_bytes - reinterpret_cast<std::uintptr_t>(base) % huge_page_bytes) % huge_page_bytes;
    if (before != 0) ::munmap(base, before);
    if (before != huge_page_bytes) ::munmap(base + before + kept, huge_page_bytes - before);
    return base + before;
}

/// mmap of a file for reading. In huge pages it begins at a multiple of them, if it is as long as one.
[[nodiscard]] inline void* map_pages(int fd, std::size_t size, int sharing, page_size pages) {
    std::byte* const place = pages == page_size::huge && size >= huge_page_bytes ? take_pages(size, PROT_NONE) : nullptr;
    if (place == nullptr) return ::mmap(nullptr, size, PROT_READ, sharing, fd, 0);
    void* const map = ::mmap(place, size, PROT_READ, sharing | MAP_FIXED, fd, 0);
    if (map != MAP_FAILED) {
        ask_for_huge_pages({place, size});
        return map;
    }
    const int why = errno;
    ::munmap(place, size);
    errno = why;
    return MAP_FAILED;
}

/// Brings a part of a map into memory. What cannot be read is left for whoever looks there.
inline void read_pages(std::span<const std::byte> map) {
#if defined(__linux__)
#if defined(MADV_POPULATE_READ)
    constexpr int populate = MADV_POPULATE_READ;
#else
    constexpr int populate = 22;
#endif
    const bool done = ::madvise(const_cast<std::byte*>(map.data()), map.size(), populate) == 0;
    if (done || errno != EINVAL) return;  // before Linux 5.14: no such advice
#endif
    look_at_pages(map);
}

/// The pages of a map stop counting as this program's memory, and lose nothing.
inline void release_pages(std::span<const std::byte> map) { ::madvise(const_cast<std::byte*>(map.data()), map.size(), MADV_DONTNEED); }

/// Whether the system tells us what it has cached of a file: to its owner, and to those who may write it.
[[nodiscard]] inline bool may_know_cache(int fd) {
    struct stat about {};
    if (::fstat(fd, &about) != 0) return false;
    const uid_t user = ::geteuid();
    return user == 0 || about.st_uid == user;
}

/// Whether a page of a map is cached, as far as may_know_cache. Reads nothing from disk.
[[nodiscard]] inline bool is_cached([[maybe_unused]] const std::byte* page) {
#if defined(__linux__)
    unsigned char state = 0;
    return ::mincore(const_cast<std::byte*>(page), 1, &state) == 0 && (state & 1) != 0;
#else
    return false;
#endif
}

/// How much of a map is cached, about: one page in each place of a huge page is asked for. Takes less than a millisecond for each GB.
[[nodiscard]] inline std::size_t cached_bytes(std::span<const std::byte> map) {
    std::size_t cached = 0;
    for (std::size_t at = 0; at < map.size(); at += huge_page_bytes)
        if (is_cached(map.data() + at)) cached += (std::min)(huge_page_bytes, map.size() - at);
    return cached;
}

/// And how much of that in huge pages: those pages are looked at, so that touched_pages sees what there is.
[[nodiscard]] inline page_share cached_pages(std::span<const std::byte> map) {
    for (std::size_t at = 0; at < map.size(); at += huge_page_bytes)
        if (is_cached(map.data() + at)) look_at_pages(map.subspan(at, 1));
    return {cached_bytes(map), bytes_in_huge_pages(map)};
}

/// The same of a map that this program uses. Where the system does not tell, what this program has touched.
[[nodiscard]] inline page_share share_of_map(std::span<const std::byte> map, bool may_know) {
    const page_share cached = may_know ? cached_pages(map) : page_share{};
    const page_share touched = touched_pages(map);
    return {(std::max)(cached.resident, touched.resident), touched.huge};
}

#if defined(POSIX_FADV_DONTNEED)
/// Lets the system forget what it has cached of the first `size` bytes and nobody has mapped, after it has reached the disk.
inline void drop_cached_pages(int fd, std::size_t size) {
    (void)::fdatasync(fd);
    (void)::posix_fadvise(fd, 0, static_cast<off_t>(size), POSIX_FADV_DONTNEED);
}

/// Whether what is read of this file now comes in huge pages: its first 2 MiB are dropped, and read again.
[[nodiscard]] inline bool reads_into_huge_pages(int fd) {
    drop_cached_pages(fd, huge_page_bytes);
    void* const map = map_pages(fd, huge_page_bytes, MAP_SHARED, page_size::huge);
    if (map == MAP_FAILED) return false;
    const std::span bytes(static_cast<const std::byte*>(map), huge_page_bytes);
    read_pages(bytes);
    const bool huge = bytes_in_huge_pages(bytes) == huge_page_bytes;
    ::munmap(map, huge_page_bytes);
    return huge;
}
#endif

/// Drops what is cached of a file, if at least a tenth of that is in small pages, if it is no more than `most` bytes, and if what is read
/// again then comes in huge ones. Not of a file that is mapped. False where all stays as it is.
inline bool drop_small_pages([[maybe_unused]] int fd, [[maybe_unused]] std::size_t size, [[maybe_unused]] std::size_t most) {
#if defined(__linux__) && defined(POSIX_FADV_DONTNEED)
    if (size < huge_page_bytes || !may_know_cache(fd)) return false;
    const std::size_t whole = size / huge_page_bytes * huge_page_bytes;  // the rest cannot be in huge pages
    void* const map = map_pages(fd, whole, MAP_SHARED, page_size::huge);
    if (map == MAP_FAILED) return false;
    const std::span bytes(static_cast<const std::byte*>(map), whole);
    const std::size_t cached = cached_bytes(bytes);
    bool in_small_pages = cached != 0 && cached <= most;  // or there is nothing to be done, and no need to know more
    if (in_small_pages) {
        const page_share share = cached_pages(bytes);
        in_small_pages = share.huge < share.resident / 10 * 9;
    }
    ::munmap(map, whole);
    if (!in_small_pages || !reads_into_huge_pages(fd)) return false;
    drop_cached_pages(fd, size);
    return true;
#else
    return false;
#endif
}

/// The same of a file that has just been written through this descriptor.
inline void leave_no_small_pages([[maybe_unused]] int written, [[maybe_unused]] std::size_t size) {
#if defined(__linux__)
    char self[64];
    std::snprintf(self, sizeof self, "/proc/self/fd/%d", written);
    const int fd = ::open(self, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    drop_small_pages(fd, size, size);
    ::close(fd);
#endif
}

#endif

}  // namespace detail

PHI4FLASH_END
#endif  // PHI4FLASH_FILES
