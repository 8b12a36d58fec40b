#pragma once
/// Maps of files by the calls of Windows. For mapped_file; map_posix.hpp has the same functions of other systems.
#include <phi4flash/core/progress_ref.hpp>
#include <phi4flash/io/file/file_pages.hpp>
#include <phi4flash/io/file/file_part.hpp>

#if PHI4FLASH_FILES && defined(_WIN32)
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <system_error>

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

PHI4FLASH_BEGIN

namespace detail {

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
}  // namespace detail

PHI4FLASH_END
#endif  // PHI4FLASH_FILES
