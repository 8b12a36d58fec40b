#pragma once
/// Where a file that is to be written really goes, and the system's calls that put it there. For file_writer.
/// @since 0.2
#include <phi4flash/core/out_of_memory.hpp>
#include <phi4flash/io/file/printable.hpp>

#if PHI4FLASH_FILES
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#if defined(_WIN32)
#include <io.h>
#else
#include <poll.h>
#include <unistd.h>
#endif

PHI4FLASH_BEGIN

namespace detail {

[[nodiscard]] inline error unwritable(const std::filesystem::path& path, const char* reason) {
    if (path.empty()) return error::format(errc::invalid_argument, "path: want the name of a file to write, have an empty one");
    return error::format(errc::file_unwritable, "%s: cannot be written: %s", printable(path).c_str(), reason);
}
[[nodiscard]] inline error unwritable(const std::filesystem::path& path, const std::error_code& why) {
    return unwritable(path, why.message().c_str());
}
/// With errno as the reason.
[[nodiscard]] inline error unwritable(const std::filesystem::path& path) {
    return unwritable(path, std::error_code(errno, std::generic_category()));
}

/// What an output path stands for.
struct output_target {
    std::filesystem::path path;  ///< links followed
    bool in_place = false;       ///< a device, a FIFO or an open descriptor (/dev/stdout): to be written as it stands
    int descriptor = -1;         ///< of this process, where the path names one
    bool exists = false;
    std::uint32_t mode = 0;  ///< of what exists, as are the next two; POSIX only
    std::uint32_t owner = 0;
    std::uint32_t group = 0;
};

/// A name beside the target that nobody has, most likely: `<name>.<12 digits>.part`.
[[nodiscard]] inline std::filesystem::path part_name(const std::filesystem::path& target, const void* writer, unsigned attempt) {
    constexpr std::size_t longest_name = 200;  // most systems allow 255
    std::uint64_t x = static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
    x += reinterpret_cast<std::uintptr_t>(writer) + attempt;
#if !defined(_WIN32)
    x += static_cast<std::uint64_t>(::getpid()) << 40;
#endif
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;  // splitmix64
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    char suffix[32];
    std::snprintf(suffix, sizeof suffix, ".%012llx.part", static_cast<unsigned long long>((x ^ (x >> 31)) & 0xffffffffffffu));
    std::filesystem::path name = target.filename().native().size() <= longest_name ? target : target.parent_path() / "phi4flash";
    name += suffix;
    return name;
}

/// Calls `take(name)` with new names until it succeeds or fails for another reason than that the name is taken.
template <class Take>
[[nodiscard]] bool with_new_name(const std::filesystem::path& target, const void* writer, Take&& take) {
    constexpr unsigned attempts = 100;
    for (unsigned attempt = 0; attempt < attempts; ++attempt) {
        if (take(part_name(target, writer, attempt))) return true;
        if (errno != EEXIST && errno != EINTR) return false;
    }
    return false;
}

#if defined(_WIN32)

/// Errors: file_unwritable.
[[nodiscard]] inline result<output_target> find_output_target(const std::filesystem::path& asked) {
    std::error_code why;
    output_target target;
    target.path = std::filesystem::weakly_canonical(asked, why);
    if (why) return unwritable(asked, why);
    const std::filesystem::file_status is = std::filesystem::status(target.path, why);
    target.exists = std::filesystem::exists(is);
    if (std::filesystem::is_directory(is)) return unwritable(asked, std::make_error_code(std::errc::is_a_directory));
    target.in_place = target.exists && !std::filesystem::is_regular_file(is);
    if (target.exists && _waccess(target.path.c_str(), 2) != 0) return unwritable(asked);
    return target;
}

[[nodiscard]] inline int open_in_place(const output_target& target) {
    return _wopen(target.path.c_str(), _O_WRONLY | _O_BINARY | _O_NOINHERIT);
}
[[nodiscard]] inline int create_new(const std::filesystem::path& path, const output_target&) {
    return _wopen(path.c_str(), _O_WRONLY | _O_BINARY | _O_CREAT | _O_EXCL | _O_NOINHERIT, _S_IREAD | _S_IWRITE);
}
[[nodiscard]] inline int create_nameless(const output_target&) { return -1; }
[[nodiscard]] inline bool give_name(int, const std::filesystem::path&) { return false; }
[[nodiscard]] inline bool write_through(int descriptor) { return _commit(descriptor) == 0; }
[[nodiscard]] inline bool close_file(int descriptor) { return _close(descriptor) == 0; }
[[nodiscard]] inline std::ptrdiff_t write_some(int descriptor, std::span<const std::byte> bytes) {
    constexpr std::size_t most = std::size_t{1} << 30;
    return _write(descriptor, bytes.data(), static_cast<unsigned>(bytes.size() < most ? bytes.size() : most));
}

#else

/// Whether a link is one of /proc/self/fd (where /dev/stdout and /dev/fd/1 lead): what it says is no path to follow.
[[nodiscard]] inline bool is_descriptor_link(const std::filesystem::path& link) {
    std::error_code ignored;
    const std::filesystem::path folder = std::filesystem::canonical(link.parent_path(), ignored);
    return folder.filename() == "fd" && folder.native().starts_with("/proc/");
}

/// The number of the descriptor of this process that a path names, links not followed: /proc/self/fd/1, and /dev/fd/1 where that is
/// no link (macOS, BSD). -1 for every other path.
[[nodiscard]] inline int descriptor_named(const std::filesystem::path& path) {
    int number = -1;
    const std::string name = path.filename().string();
    const auto [end, wrong] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (wrong != std::errc() || end != name.data() + name.size()) return -1;
    std::error_code ignored;
    const std::filesystem::path folder = std::filesystem::canonical(path.parent_path(), ignored);
    const bool ours = folder.filename() == "fd" && folder.native().starts_with("/proc/" + std::to_string(::getpid()) + "/");
    return ours || folder == "/dev/fd" ? number : -1;
}

/// Errors: file_unwritable.
[[nodiscard]] inline status check_descriptor(const std::filesystem::path& asked, int descriptor) {
    const int flags = ::fcntl(descriptor, F_GETFL);
    if (flags == -1) return unwritable(asked);
    if ((flags & O_ACCMODE) == O_RDONLY) return unwritable(asked, "want a descriptor that is open for writing, have one for reading");
    struct stat is = {};
    if (::fstat(descriptor, &is) == 0 && S_ISDIR(is.st_mode)) return unwritable(asked, std::make_error_code(std::errc::is_a_directory));
    return {};
}

/// Errors: file_unwritable.
[[nodiscard]] inline result<output_target> find_output_target(const std::filesystem::path& asked) {
    constexpr int most_links = 40;  // as Linux
    output_target target;
    target.path = asked;
    struct stat is = {};
    for (int links = 0;; ++links) {
        if (::lstat(target.path.c_str(), &is) != 0) {
            if (errno != ENOENT || asked.empty()) return unwritable(asked);
            if (!target.path.has_filename()) return unwritable(asked, std::make_error_code(std::errc::is_a_directory));
            return target;
        }
        target.descriptor = descriptor_named(target.path);
        if (target.descriptor >= 0) {
            target.in_place = target.exists = true;
            if (const status ok = check_descriptor(asked, target.descriptor); !ok) return ok.error();
            return target;
        }
        if (!S_ISLNK(is.st_mode)) break;
        if (is_descriptor_link(target.path)) {
            target.in_place = true;
            if (::stat(target.path.c_str(), &is) != 0) return unwritable(asked);
            break;
        }
        if (links == most_links) return unwritable(asked, std::make_error_code(std::errc::too_many_symbolic_link_levels));
        std::error_code why;
        const std::filesystem::path to = std::filesystem::read_symlink(target.path, why);
        if (why) return unwritable(asked, why);
        target.path = to.is_absolute() ? to : target.path.parent_path() / to;
    }
    if (S_ISDIR(is.st_mode)) return unwritable(asked, std::make_error_code(std::errc::is_a_directory));
    if (S_ISSOCK(is.st_mode) && !target.in_place) return unwritable(asked, "want a file, a pipe or a device, have a socket");
    target.in_place = target.in_place || !S_ISREG(is.st_mode);
    target.exists = true;
    target.mode = is.st_mode & 0777u;
    target.owner = is.st_uid;
    target.group = is.st_gid;
    // A file that is protected against writing is not replaced either.
    if (::access(target.path.c_str(), W_OK) != 0) return unwritable(asked);
    return target;
}

/// A descriptor is copied, never opened by its path: that would begin at the start of the file, without what stands there and
/// without O_APPEND, and cannot be done to a socket.
[[nodiscard]] inline int open_in_place(const output_target& target) {
    constexpr int behind_standard = 3;
    return target.descriptor >= 0 ? ::fcntl(target.descriptor, F_DUPFD_CLOEXEC, behind_standard)
                                  : ::open(target.path.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC);
}

/// Gives a new file the mode of the one that it will replace, and its owner where that is allowed.
inline void take_after(int descriptor, const output_target& target) {
    if (!target.exists) return;
    std::uint32_t mode = target.mode;
    if (::fchown(descriptor, target.owner, target.group) != 0 && ::fchown(descriptor, static_cast<uid_t>(-1), target.group) != 0)
        mode = (mode & 0707u) | ((mode & 07u) << 3);  // another group: it may do what everybody may
    (void)::fchmod(descriptor, static_cast<mode_t>(mode));
}

/// -1 and errno where it cannot be, EEXIST where the name is taken, by whatever.
[[nodiscard]] inline int create_new(const std::filesystem::path& path, const output_target& target) {
    const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, target.exists ? 0600 : 0666);
    if (descriptor >= 0) take_after(descriptor, target);
    return descriptor;
}

#if defined(O_TMPFILE)
[[nodiscard]] inline int open_nameless(const output_target& target) {
    const std::filesystem::path folder = target.path.has_parent_path() ? target.path.parent_path() : std::filesystem::path(".");
    return ::open(folder.c_str(), O_WRONLY | O_TMPFILE | O_CLOEXEC, target.exists ? 0600 : 0666);
}
#endif

/// Names what create_nameless has made. False and errno, EEXIST where the name is taken.
[[nodiscard]] inline bool give_name(int descriptor, const std::filesystem::path& path) {
    char self[64];
    std::snprintf(self, sizeof self, "/proc/self/fd/%d", descriptor);
    return ::linkat(AT_FDCWD, self, AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) == 0;
}

/// A file without a name in the target's folder: whatever ends the program, the system takes it away. -1 where there is no such thing.
[[nodiscard]] inline int create_nameless([[maybe_unused]] const output_target& target) {
#if defined(O_TMPFILE)
    // First an empty one, which is named and removed: without /proc, or where links are forbidden (Android), the name would
    // be refused in the end, when all the work has been done.
    const int trial = open_nameless(target);
    if (trial < 0) return -1;
    const bool can_be_named = with_new_name(target.path, &trial, [trial](const std::filesystem::path& name) {
        return give_name(trial, name) && ::unlink(name.c_str()) == 0;
    });
    ::close(trial);
    const int descriptor = can_be_named ? open_nameless(target) : -1;
    if (descriptor >= 0) take_after(descriptor, target);
    return descriptor;
#else
    return -1;
#endif
}

[[nodiscard]] inline bool write_through(int descriptor) {
    while (::fsync(descriptor) != 0)
        if (errno != EINTR) return false;
    return true;
}
/// Interrupted or not, it is closed; a second time could be a descriptor of somebody else.
[[nodiscard]] inline bool close_file(int descriptor) { return ::close(descriptor) == 0 || errno == EINTR; }
[[nodiscard]] inline std::ptrdiff_t write_some(int descriptor, std::span<const std::byte> bytes) {
    constexpr std::size_t most = std::size_t{1} << 30;  // some systems refuse more than 2 GiB at once
    while (true) {
        const ssize_t n = ::write(descriptor, bytes.data(), bytes.size() < most ? bytes.size() : most);
        if (n >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) return n;
        pollfd room{descriptor, POLLOUT, 0};  // somebody has made a descriptor that we were given non-blocking
        if (::poll(&room, 1, -1) < 0) return -1;
    }
}

#endif

}  // namespace detail

/// Whether file_writer would write there in place, so that nothing is replaced: a device, a FIFO or an open descriptor (/dev/stdout);
/// false for a path that cannot be written. Errors: out_of_memory.
[[nodiscard]] inline result<bool> is_written_in_place(const std::filesystem::path& path) {
    return detail::or_out_of_memory("look at a path", [&]() -> result<bool> {
        const auto target = detail::find_output_target(path);
        return target && target->in_place;
    });
}

PHI4FLASH_END
#endif  // PHI4FLASH_FILES
