#pragma once
/// Maps of files by the calls of POSIX, and what is read where a file system cannot map. For mapped_file; map_windows.hpp has the same functions
/// of Windows.
#include <phi4flash/core/progress_ref.hpp>
#include <phi4flash/io/file/file_pages.hpp>
#include <phi4flash/io/file/file_part.hpp>

#if PHI4FLASH_FILES && !defined(_WIN32)
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <system_error>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

PHI4FLASH_BEGIN

namespace detail {

[[nodiscard]] inline error last_system_error(const std::filesystem::path& path, const char* what) {
    const int code = errno;
    const bool missing = code == ENOENT || code == ENOTDIR;
    if (missing)
        if (const auto link = explain_link(path)) return *link;
    return file_error(missing ? errc::file_not_found : errc::file_unreadable, path, what,
                      std::generic_category().message(code).c_str());
}

/// Closes a descriptor when it leaves the scope.
struct scoped_descriptor {
    explicit scoped_descriptor(int fd) : value(fd) {}
    scoped_descriptor(const scoped_descriptor&) = delete;
    scoped_descriptor& operator=(const scoped_descriptor&) = delete;
    ~scoped_descriptor() { ::close(value); }
    int value;
};

[[nodiscard]] inline std::uint64_t memory_of_machine() {
    const long pages = ::sysconf(_SC_PHYS_PAGES);
    const long page = ::sysconf(_SC_PAGESIZE);
    return pages <= 0 || page <= 0 ? UINT64_MAX : static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page);
}

/// -1 and errno where it cannot be. O_NONBLOCK: opening a pipe without a writer would otherwise wait for one.
[[nodiscard]] inline int open_to_read(const std::filesystem::path& path) {
    int fd = -1;
    do fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    while (fd < 0 && errno == EINTR);
    return fd;
}

[[nodiscard]] inline result<std::uint64_t> size_of_file(const std::filesystem::path& path, int fd) {
    struct stat about {};
    if (::fstat(fd, &about) != 0) return last_system_error(path, "has no size");
    if (!S_ISREG(about.st_mode)) return not_a_file(path);
    return static_cast<std::uint64_t>(about.st_size);
}

/// Fills `place` with what the file has from `offset` on.
[[nodiscard]] inline status read_into(const std::filesystem::path& path, int fd, std::uint64_t offset, std::span<std::byte> place,
                                      progress_ref tell) {
    constexpr std::size_t most = std::size_t{32} << 20;
    for (std::size_t at = 0; at < place.size();) {
        const auto n = ::pread(fd, place.data() + at, (std::min)(place.size() - at, most), static_cast<off_t>(offset + at));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return last_system_error(path, "cannot be read");
        if (n == 0) return file_error(errc::file_unreadable, path, "cannot be read", "it became shorter meanwhile");
        at += static_cast<std::size_t>(n);
        if (!tell(at, place.size())) return opening_stopped(path, at, place.size());
    }
    return {};
}

/// The part in memory of its own; empty if there is none for it.
[[nodiscard]] inline result<file_bytes> copy_file(const std::filesystem::path& path, int fd, std::uint64_t offset, std::size_t size, page_size pages,
                                                  progress_ref tell) {
    std::byte* const place = take_pages(size, PROT_READ | PROT_WRITE);
    if (place == nullptr) return file_bytes{};
    if (pages == page_size::huge) ask_for_huge_pages({place, size});
    if (const status ok = read_into(path, fd, offset, {place, size}, tell); !ok) {
        ::munmap(place, size);
        return ok.error();
    }
    ::mprotect(place, size, PROT_READ);
    return file_bytes{.bytes = {place, size}, .copied = true, .pages = pages};
}

/// `map(MAP_SHARED)` and so on is mmap of the part, from `before` bytes ahead of it on. Some file systems refuse shared maps and allow
/// private ones, which are the same for a reader; some refuse all, but can be read.
template <class Map>
[[nodiscard]] result<file_bytes> map_or_copy(const std::filesystem::path& path, int fd, std::uint64_t offset, std::size_t size, std::size_t before,
                                             const mapping_options& options, progress_ref tell, Map&& map) {
    if (options.copy || offset % part_alignment != 0) {
        const auto copied = copy_file(path, fd, offset, size, options.pages, tell);
        return !copied || copied->copied ? copied : no_memory_to_read(path, size);
    }
    void* data = map(MAP_SHARED);
    if (data == MAP_FAILED) data = map(MAP_PRIVATE);
    if (data == MAP_FAILED) {
        const bool no_memory = errno == ENOMEM;
        const error why = last_system_error(path, "cannot be mapped");
        if (no_memory) return error::format(errc::out_of_memory, "%s", why.message());
        const auto copied = copy_file(path, fd, offset, size, options.pages, tell);
        if (!copied || copied->copied) return copied;
        return error::format(errc::out_of_memory, "%s, and there is no memory to read its %zu bytes into", why.message(), size);
    }
    // No other advice: MADV_WILLNEED reads in small pages, MADV_SEQUENTIAL drops pages that the next token reads again.
    return file_bytes{.bytes = {static_cast<const std::byte*>(data) + before, size}, .before = before, .may_know = may_know_cache(fd),
                      .pages = options.pages};
}

/// A part that does not begin where the file does is mapped in pages of the usual size.
[[nodiscard]] inline result<file_bytes> map_part(const std::filesystem::path& path, int fd, std::uint64_t offset, std::uint64_t wanted,
                                                 const mapping_options& options, progress_ref tell) {
    const auto whole = size_of_file(path, fd);
    if (!whole) return whole.error();
    const auto bytes = part_of_file(path, *whole, offset, wanted);
    if (!bytes) return bytes.error();
    const auto size = static_cast<std::size_t>(*bytes);
    if (offset != 0) {
        const auto before = static_cast<std::size_t>(offset % static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)));
        mapping_options usual = options;
        if (!options.copy) usual.pages = page_size::normal;
        return map_or_copy(path, fd, offset, size, before, usual, tell, [&](int sharing) {
            return ::mmap(nullptr, before + size, PROT_READ, sharing, fd, static_cast<off_t>(offset - before));
        });
    }
    if (options.pages == page_size::huge && !options.copy && wanted == UINT64_MAX) drop_small_pages(fd, size, options.reread ? size : size / 4);
    return map_or_copy(path, fd, 0, size, 0, options, tell, [&](int sharing) { return map_pages(fd, size, sharing, options.pages); });
}

[[nodiscard]] inline result<file_bytes> map_file(const std::filesystem::path& path, const mapping_options& options, progress_ref tell) {
    if (path.empty()) return no_path();
    const int fd = open_to_read(path);
    if (fd < 0) return last_system_error(path, "cannot be opened");
    const scoped_descriptor file(fd);
    return map_part(path, file.value, 0, UINT64_MAX, options, tell);
}

inline void unmap_file(std::span<const std::byte> bytes, bool /*copied*/) { ::munmap(const_cast<std::byte*>(bytes.data()), bytes.size()); }
}  // namespace detail

PHI4FLASH_END
#endif  // PHI4FLASH_FILES
