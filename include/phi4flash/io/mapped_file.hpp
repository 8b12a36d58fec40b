#pragma once
/// A file as read-only memory: mapped, not copied, so that a checkpoint costs memory only where it has been touched.
#include <phi4flash/core/result.hpp>
#include <phi4flash/io/printable.hpp>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <system_error>
#include <utility>

#if defined(_WIN32)
// The few declarations that a map needs, the same as in <windows.h>, which would bring thousands of macros along.
union _LARGE_INTEGER;
struct _SECURITY_ATTRIBUTES;
extern "C" {
__declspec(dllimport) void* __stdcall CreateFileW(const wchar_t*, unsigned long, unsigned long, _SECURITY_ATTRIBUTES*,
                                                  unsigned long, unsigned long, void*);
__declspec(dllimport) void* __stdcall CreateFileMappingW(void*, _SECURITY_ATTRIBUTES*, unsigned long, unsigned long, unsigned long,
                                                         const wchar_t*);
#if defined(_WIN64)
__declspec(dllimport) void* __stdcall MapViewOfFile(void*, unsigned long, unsigned long, unsigned long, unsigned long long);
#else
__declspec(dllimport) void* __stdcall MapViewOfFile(void*, unsigned long, unsigned long, unsigned long, unsigned long);
#endif
__declspec(dllimport) int __stdcall UnmapViewOfFile(const void*);
__declspec(dllimport) int __stdcall GetFileSizeEx(void*, _LARGE_INTEGER*);
__declspec(dllimport) unsigned long __stdcall GetFileType(void*);
__declspec(dllimport) int __stdcall CloseHandle(void*);
__declspec(dllimport) unsigned long __stdcall GetLastError(void);
}
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

PHI4FLASH_BEGIN

namespace detail {
[[nodiscard]] inline error file_error(errc code, const std::filesystem::path& path, const char* what, const char* reason) {
    return error::format(code, "%s: %s: %s", printable(path).c_str(), what, reason);
}

[[nodiscard]] inline error not_a_file(const std::filesystem::path& path) {
    return file_error(errc::file_unreadable, path, "cannot be read", "want a regular file, have a folder or a device");
}

[[nodiscard]] inline status check_file_size(const std::filesystem::path& path, std::uint64_t bytes) {
    if (bytes == 0) return file_error(errc::file_empty, path, "cannot be read", "the file is empty");
    if (bytes > static_cast<std::uint64_t>(PTRDIFF_MAX))
        return file_error(errc::size_overflow, path, "cannot be mapped", "the file is larger than the address space");
    return {};
}

#if defined(_WIN32)
[[nodiscard]] inline error last_system_error(const std::filesystem::path& path, const char* what) {
    const auto code = static_cast<int>(GetLastError());
    const bool missing = code == 2 || code == 3;  // ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND
    return file_error(missing ? errc::file_not_found : errc::file_unreadable, path, what,
                      std::system_category().message(code).c_str());
}

/// Closes a handle when it leaves the scope.
struct scoped_handle {
    explicit scoped_handle(void* h) : value(h) {}
    scoped_handle(const scoped_handle&) = delete;
    scoped_handle& operator=(const scoped_handle&) = delete;
    ~scoped_handle() { CloseHandle(value); }
    void* value;
};

[[nodiscard]] inline result<std::span<const std::byte>> map_file(const std::filesystem::path& path) {
    constexpr unsigned long generic_read = 0x80000000ul, share_all = 7, open_existing = 3, normal = 0x80, disk_file = 1;
    constexpr unsigned long backup_semantics = 0x02000000ul;  // without it a folder is "access denied", not a folder
    constexpr unsigned long page_readonly = 2, map_read = 4;
    void* const raw =
        CreateFileW(path.c_str(), generic_read, share_all, nullptr, open_existing, normal | backup_semantics, nullptr);
    if (reinterpret_cast<std::intptr_t>(raw) == -1) return last_system_error(path, "cannot be opened");
    const scoped_handle file(raw);
    std::error_code ignored;
    if (GetFileType(file.value) != disk_file || std::filesystem::is_directory(path, ignored)) return not_a_file(path);
    std::int64_t size = 0;
    if (GetFileSizeEx(file.value, reinterpret_cast<_LARGE_INTEGER*>(&size)) == 0) return last_system_error(path, "has no size");
    if (const status ok = check_file_size(path, static_cast<std::uint64_t>(size)); !ok) return ok.error();

    void* const section = CreateFileMappingW(file.value, nullptr, page_readonly, 0, 0, nullptr);
    if (section == nullptr) return last_system_error(path, "cannot be mapped");
    const scoped_handle mapping(section);
    const void* const data = MapViewOfFile(mapping.value, map_read, 0, 0, 0);
    if (data == nullptr) return last_system_error(path, "cannot be mapped");
    return std::span(static_cast<const std::byte*>(data), static_cast<std::size_t>(size));
}

inline void unmap_file(std::span<const std::byte> bytes) { UnmapViewOfFile(bytes.data()); }
inline void release_file_pages(std::span<const std::byte>) {}  // the system trims working sets by itself
#else
[[nodiscard]] inline error last_system_error(const std::filesystem::path& path, const char* what) {
    const int code = errno;
    const bool missing = code == ENOENT || code == ENOTDIR;
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

[[nodiscard]] inline result<std::span<const std::byte>> map_file(const std::filesystem::path& path) {
    // O_NONBLOCK: opening a pipe without a writer would otherwise wait for one.
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return last_system_error(path, "cannot be opened");
    const scoped_descriptor file(fd);
    struct stat about {};
    if (::fstat(file.value, &about) != 0) return last_system_error(path, "has no size");
    if (!S_ISREG(about.st_mode)) return not_a_file(path);
    if (const status ok = check_file_size(path, static_cast<std::uint64_t>(about.st_size)); !ok) return ok.error();

    const auto size = static_cast<std::size_t>(about.st_size);
    void* const data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.value, 0);
    if (data == MAP_FAILED) return last_system_error(path, "cannot be mapped");
    // No advice is the best: MADV_WILLNEED reads the whole file before the first token, MADV_SEQUENTIAL drops pages that the
    // next token reads again, and MADV_HUGEPAGE makes 2 MiB resident for each small tensor that is looked at.
    return std::span(static_cast<const std::byte*>(data), size);
}

inline void unmap_file(std::span<const std::byte> bytes) { ::munmap(const_cast<std::byte*>(bytes.data()), bytes.size()); }
inline void release_file_pages(std::span<const std::byte> bytes) {
    ::madvise(const_cast<std::byte*>(bytes.data()), bytes.size(), MADV_DONTNEED);  // of a shared map: unmaps, loses nothing
}
#endif
}  // namespace detail

/// A read-only map of a whole file. Moving keeps the address. Reading from several threads is safe. A file that another
/// program shortens meanwhile takes the pages away under the reader: replace a file by renaming, never in place.
class mapped_file {
public:
    mapped_file() = default;
    mapped_file(mapped_file&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
    mapped_file& operator=(mapped_file&& other) noexcept {
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~mapped_file() {
        if (!bytes_.empty()) detail::unmap_file(bytes_);
    }

    /// Errors, each naming the path and the system's reason: file_not_found, file_unreadable (no permission, a folder, a
    /// device), file_empty, size_overflow.
    static result<mapped_file> open(const std::filesystem::path& path) {
        const auto bytes = detail::map_file(path);
        if (!bytes) return bytes.error();
        mapped_file file;
        file.bytes_ = *bytes;
        return file;
    }

    /// The whole file, aligned to a page.
    [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }
    /// Pages looked at so far stop counting as this program's memory; they come back when they are read again. Worth a call
    /// after many small tensors of a large file were read: the system may map up to 2 MiB around each.
    void release_pages() const {
        if (!bytes_.empty()) detail::release_file_pages(bytes_);
    }
    [[nodiscard]] std::string_view text() const { return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()}; }

private:
    std::span<const std::byte> bytes_;
};

/// A small file as text. Errors: those of mapped_file::open, and file_too_large above `max_bytes`, before memory is taken.
[[nodiscard]] inline result<std::string> read_file(const std::filesystem::path& path, std::size_t max_bytes) {
    const auto file = mapped_file::open(path);
    if (!file) return file.error();
    if (file->bytes().size() > max_bytes)
        return error::format(errc::file_too_large, "%s: want at most %zu bytes, have %zu", printable(path).c_str(), max_bytes,
                             file->bytes().size());
    return std::string(file->text());
}

PHI4FLASH_END
