#pragma once
/// A file as read-only memory: mapped, not copied, so that a checkpoint costs memory only where it has been touched. Where the file
/// system cannot map (FUSE with direct_io, some network mounts) it is read instead.
#include <phi4flash/core/progress_ref.hpp>
#include <phi4flash/core/out_of_memory.hpp>
#include <phi4flash/io/file/file_pages.hpp>
#include <phi4flash/io/file/printable.hpp>

#if PHI4FLASH_FILES
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
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
__declspec(dllimport) void* __stdcall VirtualAlloc(void*, unsigned long long, unsigned long, unsigned long);
__declspec(dllimport) int __stdcall VirtualFree(void*, unsigned long long, unsigned long);
#else
__declspec(dllimport) void* __stdcall MapViewOfFile(void*, unsigned long, unsigned long, unsigned long, unsigned long);
__declspec(dllimport) void* __stdcall VirtualAlloc(void*, unsigned long, unsigned long, unsigned long);
__declspec(dllimport) int __stdcall VirtualFree(void*, unsigned long, unsigned long);
#endif
__declspec(dllimport) int __stdcall UnmapViewOfFile(const void*);
__declspec(dllimport) int __stdcall GetFileSizeEx(void*, _LARGE_INTEGER*);
__declspec(dllimport) unsigned long __stdcall GetFileType(void*);
__declspec(dllimport) int __stdcall CloseHandle(void*);
__declspec(dllimport) unsigned long __stdcall GetLastError(void);
}
#endif

PHI4FLASH_BEGIN

/// How a file becomes memory. `copy` is done or refused; the others are wishes: what a system cannot do is left out, and mapped_file says
/// what was got. (Windows: `pages` and `reread` do nothing.)
struct mapping_options {
    /// Huge pages are asked for before anything is read. Of a map they come from file systems that cache files in pages so large, where
    /// the file is not yet cached in small ones (docs/loading.md); of a copy from any.
    page_size pages = page_size::huge;
    /// Drop a file that the system has cached in small pages, to read it again in huge ones, where that is to be had. It takes as long as
    /// reading the file, and lasts as long as the file stays in the cache. Without this, only a cache of at most a quarter of the file is
    /// dropped.
    bool reread = false;
    /// Read the file into memory of this program's own instead. It costs as much memory as the file is long, which no other program
    /// shares and the system cannot drop, while a map costs nothing that the system could not take back; and opening takes as
    /// long as reading. Afterwards the file may change or go. out_of_memory where there is no memory for it.
    bool copy = false;
    /// Read all of the map when it is opened, and not when it is first looked at, and move it into huge pages where the kernel does
    /// that to a cache that has it in small ones. Left out where the file is larger than the machine's memory.
    bool populate = false;
};

#if defined(_WIN32)
/// How a system names an open file: a HANDLE, or a descriptor. @since 0.2
using native_file = void*;
/// None. @since 0.2
inline constexpr native_file no_native_file = nullptr;
#else
/// How a system names an open file: a HANDLE, or a descriptor. @since 0.2
using native_file = int;
/// None. @since 0.2
inline constexpr native_file no_native_file = -1;
#endif

/// A file that the host has opened for reading, or a part of it, as in a pak or an APK. It stays the host's, which may close it as soon as
/// it has been opened here. `name` is for sentences, in UTF-8. @since 0.2
struct file_part {
    native_file file = no_native_file;
    std::uint64_t offset = 0;
    std::uint64_t bytes = UINT64_MAX;  ///< UINT64_MAX: to the end of the file
    std::string_view name = "the file";
};

namespace detail {
/// What sentences call it.
[[nodiscard]] inline std::filesystem::path name_of_part(const file_part& part) { return from_utf8(part.name.empty() ? file_part().name : part.name); }

/// Tensors in a file are aligned from where it begins, so a part that begins elsewhere is copied.
inline constexpr std::uint64_t part_alignment = 64;

struct file_bytes {
    std::span<const std::byte> bytes;
    std::size_t before = 0;  ///< bytes of the map that are not of the part
    bool copied = false;
    bool may_know = false;  ///< what is cached of it; see may_know_cache
    page_size pages = page_size::normal;
};

[[nodiscard]] inline error opening_stopped(const std::filesystem::path& path, std::uint64_t done, std::uint64_t total) {
    return error::format(errc::cancelled, "%s: stopped by the caller after %llu of %llu bytes", printable(path).c_str(),
                         static_cast<unsigned long long>(done), static_cast<unsigned long long>(total));
}

[[nodiscard]] inline error file_error(errc code, const std::filesystem::path& path, const char* what, const char* reason) {
    return error::format(code, "%s: %s: %s", printable(path).c_str(), what, reason);
}

/// The sentence for a link whose target is not there, as in a cache of the hub that was cleaned or moved; nothing for other paths.
[[nodiscard]] inline std::optional<error> explain_link(const std::filesystem::path& path) {
    std::error_code failed;
    if (!std::filesystem::is_symlink(path, failed) || std::filesystem::exists(path, failed)) return std::nullopt;
    const auto target = std::filesystem::read_symlink(path, failed);
    return error::format(errc::file_not_found, "%s: a link to %s, which is not there: download the model again",
                         printable(path).c_str(), printable(target).c_str());
}

[[nodiscard]] inline error no_memory_to_read(const std::filesystem::path& path, std::size_t bytes) {
    return error::format(errc::out_of_memory, "%s: no memory to read its %zu bytes into", printable(path).c_str(), bytes);
}

[[nodiscard]] inline error no_path() { return error::format(errc::invalid_argument, "path: want the name of a file, have an empty one"); }

[[nodiscard]] inline error not_a_file(const std::filesystem::path& path) {
    return file_error(errc::file_unreadable, path, "cannot be read", "want a regular file, have a folder or a device");
}

[[nodiscard]] inline status check_file_size(const std::filesystem::path& path, std::uint64_t bytes) {
    if (bytes == 0) return file_error(errc::file_empty, path, "cannot be read", "the file is empty: download it again");
    if (bytes > static_cast<std::uint64_t>(PTRDIFF_MAX))
        return file_error(errc::size_overflow, path, "cannot be mapped", "the file is larger than the address space");
    return {};
}

/// The bytes from `offset` on, all that there are or `wanted`, of a file of `size`.
[[nodiscard]] inline result<std::uint64_t> part_of_file(const std::filesystem::path& path, std::uint64_t size, std::uint64_t offset,
                                                        std::uint64_t wanted) {
    const std::uint64_t left = offset <= size ? size - offset : 0;
    if (offset > size || (wanted != UINT64_MAX && wanted > left))
        return error::format(errc::file_incomplete, "%s: want %llu bytes from byte %llu on, have a file of %llu", printable(path).c_str(),
                             static_cast<unsigned long long>(wanted == UINT64_MAX ? 1 : wanted), static_cast<unsigned long long>(offset),
                             static_cast<unsigned long long>(size));
    const std::uint64_t bytes = wanted == UINT64_MAX ? left : wanted;
    if (const status ok = check_file_size(path, bytes); !ok) return ok.error();
    return bytes;
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

inline void unmap_file(std::span<const std::byte> bytes, bool copied) {
    if (copied) {
        constexpr unsigned long release = 0x8000;
        VirtualFree(const_cast<std::byte*>(bytes.data()), 0, release);
    } else {
        UnmapViewOfFile(bytes.data());
    }
}

/// What a map shows, in memory of its own.
[[nodiscard]] inline result<file_bytes> copy_map(const std::filesystem::path& path, std::span<const std::byte> from, progress_ref tell) {
    constexpr unsigned long commit_and_reserve = 0x3000, read_write = 4;
    constexpr std::size_t most = std::size_t{32} << 20;
    auto* const place = static_cast<std::byte*>(VirtualAlloc(nullptr, from.size(), commit_and_reserve, read_write));
    if (place == nullptr) return no_memory_to_read(path, from.size());
    for (std::size_t at = 0; at < from.size();) {
        const std::size_t n = (std::min)(most, from.size() - at);
        std::memcpy(place + at, from.data() + at, n);
        at += n;
        if (tell(at, from.size())) continue;
        unmap_file({place, from.size()}, true);
        return opening_stopped(path, at, from.size());
    }
    return file_bytes{.bytes = {place, from.size()}, .copied = true};
}

[[nodiscard]] inline result<file_bytes> map_part(const std::filesystem::path& path, void* file, std::uint64_t offset, std::uint64_t wanted,
                                                 const mapping_options& options, progress_ref tell) {
    constexpr unsigned long page_readonly = 2, map_read = 4, disk_file = 1;
    constexpr std::uint64_t granularity = 65536;  // of places in files at which a map may begin
    if (GetFileType(file) != disk_file) return not_a_file(path);
    std::int64_t size = 0;
    if (GetFileSizeEx(file, reinterpret_cast<_LARGE_INTEGER*>(&size)) == 0) return last_system_error(path, "has no size");
    const auto bytes = part_of_file(path, static_cast<std::uint64_t>(size), offset, wanted);
    if (!bytes) return bytes.error();
    const auto before = static_cast<std::size_t>(offset % granularity);
    const auto place = offset - before;
    const auto count = static_cast<std::size_t>(*bytes);
    void* const section = CreateFileMappingW(file, nullptr, page_readonly, 0, 0, nullptr);
    if (section == nullptr) return last_system_error(path, "cannot be mapped");
    const scoped_handle mapping(section);
    const void* const data = MapViewOfFile(mapping.value, map_read, static_cast<unsigned long>(place >> 32),
                                           static_cast<unsigned long>(place & 0xffffffffu), before + count);
    if (data == nullptr) return last_system_error(path, "cannot be mapped");
    const std::span<const std::byte> part(static_cast<const std::byte*>(data) + before, count);
    if (!options.copy && offset % part_alignment == 0) return file_bytes{.bytes = part, .before = before};
    const auto copied = copy_map(path, part, tell);
    UnmapViewOfFile(data);
    return copied;
}

[[nodiscard]] inline result<file_bytes> map_file(const std::filesystem::path& path, const mapping_options& options, progress_ref tell) {
    if (path.empty()) return no_path();
    constexpr unsigned long generic_read = 0x80000000ul, share_all = 7, open_existing = 3, normal = 0x80;
    constexpr unsigned long backup_semantics = 0x02000000ul;  // without it a folder is "access denied", not a folder
    void* const raw =
        CreateFileW(path.c_str(), generic_read, share_all, nullptr, open_existing, normal | backup_semantics, nullptr);
    if (reinterpret_cast<std::intptr_t>(raw) == -1) return last_system_error(path, "cannot be opened");
    const scoped_handle file(raw);
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored)) return not_a_file(path);
    return map_part(path, file.value, 0, UINT64_MAX, options, tell);
}

inline void release_pages(std::span<const std::byte>) {}  // the system trims working sets by itself
[[nodiscard]] inline page_share share_of_map(std::span<const std::byte>, bool) { return {}; }
[[nodiscard]] inline std::uint64_t memory_of_machine() { return UINT64_MAX; }  // not asked
#else
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
#endif
}  // namespace detail

/// A read-only map of a whole file, or of a part of one. Moving keeps the address. Reading from several threads is safe. A file that another
/// program shortens meanwhile takes the pages away under the reader: replace a file by renaming, never in place.
class mapped_file {
public:
    mapped_file() = default;
    mapped_file(mapped_file&& other) noexcept : file_(std::exchange(other.file_, {})) {}
    mapped_file& operator=(mapped_file&& other) noexcept {
        std::swap(file_, other.file_);
        return *this;
    }
    ~mapped_file() {
        if (!file_.bytes.empty()) detail::unmap_file(map(), file_.copied);
    }

    /// `tell` hears how far copying and populating are. Errors, each naming the path and the system's reason: file_not_found (a link whose
    /// target is gone, too), file_unreadable (no permission, a folder, a device), file_empty, size_overflow, out_of_memory, cancelled;
    /// invalid_argument (no path).
    static result<mapped_file> open(const std::filesystem::path& path, const mapping_options& options = {}, progress_ref tell = {});
    /// The same of a file that the host has opened. A part that begins at no multiple of 64 is read into memory. Errors also:
    /// file_incomplete where the file ends before the part does; invalid_argument for no file. @since 0.2
    static result<mapped_file> open(const file_part& part, const mapping_options& options = {}, progress_ref tell = {});

    /// See mapping_options::populate. Nothing to do for a copy. False where `tell` stopped it. @since 0.2
    bool populate(progress_ref tell = {}) const {
        constexpr std::size_t piece = std::size_t{16} << 20;
        if (file_.copied) return true;
        const std::span<const std::byte> all = map();
        bool collapse = file_.pages == page_size::huge;
        for (std::size_t at = 0; at < all.size(); at += piece) {
            const auto part = all.subspan(at, (std::min)(piece, all.size() - at));
            detail::read_pages(part);
            collapse = collapse && collapse_into_huge_pages(part);
            if (!tell(at + part.size(), all.size())) return false;
        }
        return true;
    }
    /// The whole file, aligned to a page; of a part at least to 64 bytes.
    [[nodiscard]] std::span<const std::byte> bytes() const { return file_.bytes; }
    /// Pages looked at so far stop counting as this program's memory; they come back when they are read again. Worth a call
    /// after many small tensors of a large file were read: the system may map up to 2 MiB around each. A copy stays.
    void release_pages() const {
        if (!file_.bytes.empty() && !file_.copied) detail::release_pages(map());
    }
    [[nodiscard]] std::string_view text() const { return {reinterpret_cast<const char*>(bytes().data()), bytes().size()}; }

    /// Whether it is a copy, and not a map: because the options wanted one, or the file system cannot map.
    [[nodiscard]] bool is_copy() const { return file_.copied; }
    /// How much of it lies in huge pages now; see bytes_in_huge_pages.
    [[nodiscard]] std::size_t huge_bytes() const { return bytes().empty() ? 0 : bytes_in_huge_pages(map()); }
    /// How much of it is in memory now, whoever has read it, and how much of that in huge pages; of a file that belongs to another user
    /// only what this program has touched. Reads nothing from disk. Takes some milliseconds. @since 0.2
    [[nodiscard]] page_share residency() const {
        if (bytes().empty()) return {};
        if (file_.copied) return {bytes().size(), huge_bytes()};
        return detail::share_of_map(map(), file_.may_know);
    }

private:
    /// From the page in which the bytes begin.
    [[nodiscard]] std::span<const std::byte> map() const { return {file_.bytes.data() - file_.before, file_.bytes.size() + file_.before}; }
    static result<mapped_file> from(const result<detail::file_bytes>& bytes, const std::filesystem::path& path, const mapping_options& options,
                                    progress_ref tell);

    detail::file_bytes file_;
};

namespace detail {
/// Populates the files of a model, unless they are larger together than the machine's memory. Errors: cancelled, naming the path.
[[nodiscard]] inline status populate(std::span<const mapped_file> files, const std::filesystem::path& path, progress_ref tell) {
    std::uint64_t total = 0;
    for (const mapped_file& file : files) total += file.bytes().size();
    if (total > memory_of_machine()) return {};
    std::uint64_t before = 0;
    for (const mapped_file& file : files) {
        std::uint64_t seen = 0;
        if (!file.populate([&](std::uint64_t done, std::uint64_t) { return tell(before + (seen = done), total); }))
            return opening_stopped(path, before + seen, total);
        before += file.bytes().size();
    }
    return {};
}
}  // namespace detail

namespace detail {
[[nodiscard]] inline error larger_than(const std::filesystem::path& path, std::size_t max_bytes, std::uint64_t have) {
    return error::format(errc::file_too_large, "%s: want at most %zu bytes, have %llu", printable(path).c_str(), max_bytes,
                         static_cast<unsigned long long>(have));
}

/// A file as text, `all` of it or no more than its first `max_bytes`.
#if defined(_WIN32)
[[nodiscard]] inline result<std::string> read_text(const std::filesystem::path& path, std::size_t max_bytes, bool all) {
    const auto file = mapped_file::open(path);  // nobody can shorten it
    if (!file) return file.error();
    if (all && file->text().size() > max_bytes) return larger_than(path, max_bytes, file->text().size());
    return std::string(file->text().substr(0, max_bytes));
}
#else
[[nodiscard]] inline result<std::string> read_text(const std::filesystem::path& path, std::size_t max_bytes, bool all) {
    if (path.empty()) return no_path();
    const int fd = open_to_read(path);
    if (fd < 0) return last_system_error(path, "cannot be opened");
    const scoped_descriptor file(fd);
    const auto size = size_of_file(path, fd);
    if (!size) return size.error();
    if (const status ok = check_file_size(path, *size); !ok) return ok.error();
    if (all && *size > max_bytes) return larger_than(path, max_bytes, *size);
    std::string text(static_cast<std::size_t>((std::min)(*size, static_cast<std::uint64_t>(max_bytes))), '\0');
    if (const status ok = read_into(path, fd, 0, {reinterpret_cast<std::byte*>(text.data()), text.size()}, {}); !ok) return ok.error();
    return text;
}
#endif
}  // namespace detail

/// A small file as text, read and not mapped: one that becomes shorter meanwhile is refused. Errors: those of mapped_file::open, and
/// file_too_large above `max_bytes`, before memory is taken.
[[nodiscard]] PHI4FLASH_BODY result<std::string> read_file(const std::filesystem::path& path, std::size_t max_bytes);

#if PHI4FLASH_BODIES
PHI4FLASH_COLD_BODY result<mapped_file> mapped_file::open(const std::filesystem::path& path, const mapping_options& options, progress_ref tell) {
    return detail::or_out_of_memory("open a file", [&] { return from(detail::map_file(path, options, tell), path, options, tell); });
}

PHI4FLASH_COLD_BODY result<mapped_file> mapped_file::open(const file_part& part, const mapping_options& options, progress_ref tell) {
    return detail::or_out_of_memory("open a file", [&] {
        const auto path = detail::name_of_part(part);
        if (part.file == no_native_file)
            return result<mapped_file>(
                error::format(errc::invalid_argument, "%s: want a file that is open for reading, have none", printable(path).c_str()));
        return from(detail::map_part(path, part.file, part.offset, part.bytes, options, tell), path, options, tell);
    });
}

PHI4FLASH_COLD_BODY result<mapped_file> mapped_file::from(const result<detail::file_bytes>& bytes, const std::filesystem::path& path,
                                                          const mapping_options& options, progress_ref tell) {
    if (!bytes) return bytes.error();
    mapped_file file;
    file.file_ = *bytes;
    if (options.populate)
        if (const status ok = detail::populate({&file, 1}, path, tell); !ok) return ok.error();
    return file;
}

PHI4FLASH_COLD_BODY result<std::string> read_file(const std::filesystem::path& path, std::size_t max_bytes) {
    return detail::or_out_of_memory("read a file", [&] { return detail::read_text(path, max_bytes, true); });
}
#endif

PHI4FLASH_END
#endif  // PHI4FLASH_FILES
