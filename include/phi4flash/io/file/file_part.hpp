#pragma once
/// What is read and how: a part of a file that the host has opened, and the ways in which a file becomes memory; and what is wrong with files,
/// in the same sentences on every system. For mapped_file.
#include <phi4flash/core/huge_pages.hpp>
#include <phi4flash/core/result.hpp>
#include <phi4flash/io/file/printable.hpp>

#if PHI4FLASH_FILES
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>
#include <system_error>

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
}  // namespace detail

PHI4FLASH_END
#endif  // PHI4FLASH_FILES
