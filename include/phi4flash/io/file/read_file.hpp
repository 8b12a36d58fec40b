#pragma once
/// A small file as text, or the beginning of one.
#include <phi4flash/core/out_of_memory.hpp>
#include <phi4flash/io/file/mapped_file.hpp>

#if PHI4FLASH_FILES
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

PHI4FLASH_BEGIN

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
PHI4FLASH_COLD_BODY result<std::string> read_file(const std::filesystem::path& path, std::size_t max_bytes) {
    return detail::or_out_of_memory("read a file", [&] { return detail::read_text(path, max_bytes, true); });
}
#endif

PHI4FLASH_END
#endif  // PHI4FLASH_FILES
