#pragma once
/// A file that appears under its name only when it is complete.
#include <phi4flash/core/result.hpp>
#include <phi4flash/io/printable.hpp>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>

PHI4FLASH_BEGIN

/// Writes to `<path>.part`; `commit` renames it, and without that the destructor removes it. A program that is stopped
/// leaves no half-written file of the real name. One writer a path; not for several threads.
class file_writer {
public:
    file_writer(file_writer&& other) noexcept
        : path_(std::exchange(other.path_, {})), part_(std::exchange(other.part_, {})), file_(std::move(other.file_)) {}
    file_writer& operator=(file_writer&&) = delete;
    ~file_writer() {
        file_.reset();
        std::error_code ignored;
        if (!part_.empty()) std::filesystem::remove(part_, ignored);
    }

    /// Errors: file_unwritable, naming the path and the system's reason.
    static result<file_writer> create(const std::filesystem::path& path) {
        std::filesystem::path part = path;
        part += ".part";
        std::error_code ignored;
        if (std::filesystem::is_directory(path, ignored)) return unwritable(path, std::make_error_code(std::errc::is_a_directory));
#if defined(_WIN32)
        std::FILE* raw = nullptr;
        errno = _wfopen_s(&raw, part.c_str(), L"wb");
#else
        std::FILE* const raw = std::fopen(part.c_str(), "wb");
#endif
        if (raw == nullptr) return unwritable(path, {errno, std::generic_category()});
        return file_writer(path, std::move(part), raw);
    }

    /// Appends. Errors: file_unwritable.
    status write(std::span<const std::byte> bytes) {
        if (bytes.empty()) return {};
        if (std::fwrite(bytes.data(), 1, bytes.size(), file_.get()) == bytes.size()) return {};
        return unwritable(path_, {errno, std::generic_category()});
    }
    status write(std::string_view text) { return write(std::as_bytes(std::span(text))); }

    /// Gives the file its name, replacing one that has it. Errors: file_unwritable.
    status commit() {
        if (std::fclose(file_.release()) != 0) return unwritable(path_, {errno, std::generic_category()});
        std::error_code why;
        std::filesystem::rename(part_, path_, why);
        if (why) return unwritable(path_, why);
        part_.clear();
        return {};
    }

private:
    struct closer {
        void operator()(std::FILE* f) const { std::fclose(f); }
    };

    file_writer(const std::filesystem::path& path, std::filesystem::path&& part, std::FILE* raw)
        : path_(path), part_(std::move(part)), file_(raw) {}

    static error unwritable(const std::filesystem::path& path, const std::error_code& why) {
        return error::format(errc::file_unwritable, "%s: cannot be written: %s", printable(path).c_str(), why.message().c_str());
    }

    std::filesystem::path path_;
    std::filesystem::path part_;  // empty once there is nothing to remove
    std::unique_ptr<std::FILE, closer> file_;
};

/// A whole small file. Errors: file_unwritable.
[[nodiscard]] inline status write_file(const std::filesystem::path& path, std::string_view text) {
    auto file = file_writer::create(path);
    if (!file) return file.error();
    if (const status ok = file->write(text); !ok) return ok;
    return file->commit();
}

PHI4FLASH_END
