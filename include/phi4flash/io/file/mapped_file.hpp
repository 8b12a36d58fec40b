#pragma once
/// A file as read-only memory: mapped, not copied, so that a checkpoint costs memory only where it has been touched. Where the file
/// system cannot map (FUSE with direct_io, some network mounts) it is read instead.
#include <phi4flash/core/out_of_memory.hpp>
#include <phi4flash/core/progress_ref.hpp>
#include <phi4flash/io/file/file_part.hpp>
#include <phi4flash/io/file/map_posix.hpp>
#include <phi4flash/io/file/map_windows.hpp>

#if PHI4FLASH_FILES
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <utility>

PHI4FLASH_BEGIN

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
#endif

PHI4FLASH_END
#endif  // PHI4FLASH_FILES
