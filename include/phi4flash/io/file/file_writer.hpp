#pragma once
/// A file that appears under its name only when it is complete.
#include <phi4flash/core/span_of.hpp>
#include <phi4flash/io/file/file_pages.hpp>
#include <phi4flash/io/file/output_file.hpp>

#if PHI4FLASH_FILES
#include <cstring>
#include <memory>
#include <new>
#include <string_view>

PHI4FLASH_BEGIN

/// Writes a new file and gives it the name in the end; without `commit` the destructor removes it. Until then whatever had the name
/// keeps it, and afterwards one that is whole has it, whoever else writes to the same path meanwhile.
///
/// - Links are followed: the link stays, what it points to is replaced, in its own folder. (Other hard links keep the old file.)
/// - The new file has the mode of the one it replaces, and the owner where the system allows it; else what the umask leaves. One that
///   may not be written is not replaced.
/// - Devices, FIFOs and open descriptors (/dev/stdout) are written in place, so what was written stays there without `commit`.
///   A descriptor goes on where it stands, behind what is there: the file is neither cut nor opened a second time.
/// - The first failure is the answer to every later call: a file with a hole never gets the name.
/// - On Linux the file has no name until `commit`, so that nothing remains of a program that is killed. Where the file system has no
///   such files, and on other systems, it is called `<name>.<12 hexadecimal digits>.part`, which a signal that ends the program leaves
///   behind: a host that wants to be tidy turns the signal into an error of its own and lets the destructor run.
/// - A file that is replaced is replaced by one that has reached the disk (fsync), so that a power cut leaves one of them. A new
///   name is not waited for.
/// - A large file stays cached in huge pages, in which reading it is fastest: it is written in whole ones. Where the file system caches what
///   is written in small pages and what is read in huge ones, it is not left in the cache (and then has reached the disk).
///
/// The library handles no signals. A handler without SA_RESTART ends a write in place, which may wait for a reader, with an error; a file goes on.
/// Not for several threads.
class file_writer {
public:
    file_writer(file_writer&& other) noexcept
        : asked_(std::move(other.asked_)), target_(std::move(other.target_)), part_(std::exchange(other.part_, {})),
          descriptor_(std::exchange(other.descriptor_, -1)), waiting_(std::move(other.waiting_)), room_(other.room_),
          used_(std::exchange(other.used_, 0)), written_(other.written_), so_far_(other.so_far_) {}
    file_writer& operator=(file_writer&&) = delete;
    ~file_writer() {
        if (descriptor_ >= 0) (void)detail::close_file(descriptor_);
        remove_part();
    }

    /// What is there stays untouched. `nameless` false: the file has its temporary name from the beginning, as where there is no
    /// other way. Errors: file_unwritable, naming the path and the system's reason; out_of_memory.
    static result<file_writer> create(const std::filesystem::path& path, bool nameless = true);

    /// Appends. Errors: file_unwritable, out_of_memory; invalid_argument after `commit`.
    status write(std::span<const std::byte> bytes);
    status write(std::string_view text) { return write(detail::bytes_of_text(text)); }

    /// Gives the file its name, replacing one that has it. Errors: file_unwritable, out_of_memory; invalid_argument the second time.
    status commit();

    /// Whether the bytes go to a device, a FIFO or a descriptor, and not into a file that replaces another. @since 0.2
    [[nodiscard]] bool in_place() const { return target_.in_place; }
    /// What is written to, for a host's own calls: a lock that the file has before it has the name, for instance. -1 after `commit`.
    [[nodiscard]] int descriptor() const { return descriptor_; }

private:
    static constexpr std::size_t large = std::size_t{32} << 20;  // enough to ask how it is cached

    file_writer(const std::filesystem::path& asked, detail::output_target&& target)
        : asked_(asked), target_(std::move(target)), room_(target_.in_place ? std::size_t{1} << 16 : huge_page_bytes) {}

    status give_name();

    status open(bool nameless);

    [[nodiscard]] status check_open() const;
    void write_all(std::span<const std::byte> bytes);

    std::size_t keep(std::span<const std::byte> bytes) {
        if (!bytes.empty()) std::memcpy(waiting_.get() + used_, bytes.data(), bytes.size());
        used_ += bytes.size();
        return bytes.size();
    }

    void flush() { write_all({waiting_.get(), std::exchange(used_, 0)}); }

    void remove_part() {
        std::error_code ignored;
        if (!part_.empty()) std::filesystem::remove(part_, ignored);
        part_.clear();
    }

    std::filesystem::path asked_;
    detail::output_target target_;
    std::filesystem::path part_;  // empty while there is nothing to remove
    int descriptor_ = -1;
    std::unique_ptr<std::byte[]> waiting_;
    std::size_t room_ = 0;     // bytes of waiting_: a multiple of it is written at a multiple of it
    std::size_t used_ = 0;     // of them
    std::size_t written_ = 0;  // to the file
    status so_far_;         // the first failure
};

/// A whole small file. Errors: file_unwritable, out_of_memory.
[[nodiscard]] PHI4FLASH_BODY status write_file(const std::filesystem::path& path, std::string_view text);

#if PHI4FLASH_BODIES
PHI4FLASH_BODY result<file_writer> file_writer::create(const std::filesystem::path& path, bool nameless) {
    return detail::or_out_of_memory("begin a file", [&]() -> result<file_writer> {
        auto target = detail::find_output_target(path);
        if (!target) return target.error();
        file_writer file(path, std::move(*target));
        file.waiting_.reset(new (std::nothrow) std::byte[file.room_]);
        if (!file.waiting_) return error::format(errc::out_of_memory, "cannot take memory to write %s", printable(path).c_str());
        if (const status ok = file.open(nameless); !ok) return ok.error();
        return file;
    });
}

PHI4FLASH_BODY status file_writer::write(std::span<const std::byte> bytes) {
    if (const status ok = check_open(); !ok) return ok;
    while (so_far_ && bytes.size() >= room_ - used_) {
        if (used_ == 0) {
            const std::size_t whole = bytes.size() / room_ * room_;
            write_all(bytes.first(whole));
            bytes = bytes.subspan(whole);
        } else {
            bytes = bytes.subspan(keep(bytes.first(room_ - used_)));
            flush();
        }
    }
    if (so_far_) keep(bytes);
    return so_far_;
}

PHI4FLASH_BODY status file_writer::check_open() const {
    if (descriptor_ >= 0 || !so_far_) return {};
    return error::format(errc::invalid_argument, "%s: it is complete: after commit nothing can be written", printable(asked_).c_str());
}

PHI4FLASH_BODY status file_writer::commit() {
    if (const status ok = check_open(); !ok) return ok;
    flush();
    if (so_far_) so_far_ = detail::or_out_of_memory("name a file", [&] { return give_name(); });
    return so_far_;
}

PHI4FLASH_BODY status file_writer::give_name() {
    if (!target_.in_place) {
        if (target_.exists && !detail::write_through(descriptor_)) return detail::unwritable(asked_);
        if (part_.empty() && !detail::with_new_name(target_.path, this, [this](std::filesystem::path&& name) {
                if (!detail::give_name(descriptor_, name)) return false;
                part_ = std::move(name);
                return true;
            }))
            return detail::unwritable(asked_);
    }
    if (!target_.in_place && written_ >= large) detail::leave_no_small_pages(descriptor_, written_);
    if (!detail::close_file(std::exchange(descriptor_, -1))) return detail::unwritable(asked_);
    if (target_.in_place) return {};
    std::error_code why;
    std::filesystem::rename(part_, target_.path, why);
    if (why) return detail::unwritable(asked_, why);
    part_.clear();
    return {};
}

PHI4FLASH_BODY status file_writer::open(bool nameless) {
    if (target_.in_place) {
        descriptor_ = detail::open_in_place(target_);
    } else {
        if (nameless) descriptor_ = detail::create_nameless(target_);
        if (descriptor_ >= 0) return {};
        (void)detail::with_new_name(target_.path, this, [this](std::filesystem::path&& name) {
            descriptor_ = detail::create_new(name, target_);
            if (descriptor_ >= 0) part_ = std::move(name);
            return descriptor_ >= 0;
        });
    }
    return descriptor_ >= 0 ? status() : status(detail::unwritable(asked_));
}

PHI4FLASH_BODY void file_writer::write_all(std::span<const std::byte> bytes) {
    while (so_far_ && !bytes.empty()) {
        const std::ptrdiff_t n = detail::write_some(descriptor_, bytes);
        if (n < 0 && errno == EINTR && !target_.in_place) continue;
        if (n < 0) so_far_ = detail::or_out_of_memory("say why a file cannot be written", [&] { return status(detail::unwritable(asked_)); });
        else bytes = bytes.subspan(static_cast<std::size_t>(n)), written_ += static_cast<std::size_t>(n);
    }
}

PHI4FLASH_BODY status write_file(const std::filesystem::path& path, std::string_view text) {
    auto file = file_writer::create(path);
    if (!file) return file.error();
    if (const status ok = file->write(text); !ok) return ok;
    return file->commit();
}
#endif

PHI4FLASH_END
#endif  // PHI4FLASH_FILES
