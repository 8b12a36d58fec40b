#include "chat_place.hpp"

#include <cerrno>
#include <system_error>
#include <utility>

#if !defined(_WIN32)
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace cli {
namespace {

p4::error taken(const std::filesystem::path& path) {
    return p4::error::format(p4::errc::in_use, "%s: another chat has this file: end that one first, or want another --session",
                             p4::printable(path).c_str());
}

#if !defined(_WIN32)

void give_up(int& descriptor) {
    if (descriptor >= 0) ::close(descriptor);
    descriptor = -1;
}

/// False where somebody else has it. Where there are no locks to be had, nobody has.
bool lock(int descriptor) {
    while (::flock(descriptor, LOCK_EX | LOCK_NB) != 0)
        if (errno != EINTR) return errno != EWOULDBLOCK;
    return true;
}

#endif

}  // namespace

#if defined(_WIN32)

chat_place::identity chat_place::look_at(const std::filesystem::path& path) {
    std::error_code none;
    identity found;
    found.there = std::filesystem::exists(path, none);
    if (!found.there) return found;
    found.bytes = std::filesystem::file_size(path, none);
    found.nanoseconds = static_cast<std::int64_t>(std::filesystem::last_write_time(path, none).time_since_epoch().count());
    return found;
}

p4::result<chat_place> chat_place::take(const std::filesystem::path& path) {
    chat_place place(path);
    place.seen_ = look_at(path);
    return place;
}

chat_place::~chat_place() = default;

bool chat_place::is(const std::filesystem::path& path) const {
    std::error_code none;
    return path == path_ || std::filesystem::equivalent(path, path_, none);
}

#else

chat_place::identity chat_place::look_at(const std::filesystem::path& path) {
    struct stat about {};
    if (::stat(path.c_str(), &about) != 0) return {};
#if defined(__APPLE__)
    const timespec& written = about.st_mtimespec;
#else
    const timespec& written = about.st_mtim;
#endif
    return {static_cast<std::uint64_t>(about.st_dev), static_cast<std::uint64_t>(about.st_ino), static_cast<std::uint64_t>(about.st_size),
            static_cast<std::int64_t>(written.tv_sec), static_cast<std::int64_t>(written.tv_nsec), true};
}

p4::result<chat_place> chat_place::take(const std::filesystem::path& path) {
    constexpr int most_tries = 100;
    chat_place place(path);
    for (int tries = 0; tries < most_tries; ++tries) {
        place.lock_ = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
        place.made_ = place.lock_ < 0 && errno == ENOENT;
        if (place.made_) place.lock_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (place.lock_ < 0)
            return p4::error::format(p4::errc::file_unwritable, "%s: cannot be written: %s", p4::printable(path).c_str(),
                                     std::generic_category().message(errno).c_str());
        if (!lock(place.lock_)) {
            place.made_ = false;
            return taken(path);
        }
        // Whoever had it may have replaced or removed it between the two calls.
        struct stat locked {};
        place.seen_ = look_at(path);
        if (::fstat(place.lock_, &locked) == 0 && place.seen_.there && static_cast<std::uint64_t>(locked.st_ino) == place.seen_.inode &&
            static_cast<std::uint64_t>(locked.st_dev) == place.seen_.device)
            return place;
        give_up(place.lock_);
    }
    place.made_ = false;
    return taken(path);
}

chat_place::~chat_place() {
    if (made_ && look_at(path_) == seen_) {
        std::error_code none;
        const std::filesystem::path file = std::filesystem::canonical(path_, none);  // not a link that leads to it
        if (!none) std::filesystem::remove(file, none);
    }
    give_up(next_);
    give_up(lock_);
}

bool chat_place::is(const std::filesystem::path& path) const {
    const identity there = look_at(path);
    return path == path_ || (there.there && there.device == seen_.device && there.inode == seen_.inode);
}

#endif

chat_place::chat_place(chat_place&& other) noexcept
    : path_(std::move(other.path_)), seen_(other.seen_), lock_(std::exchange(other.lock_, -1)), next_(std::exchange(other.next_, -1)),
      made_(std::exchange(other.made_, false)) {}

p4::status chat_place::prepare([[maybe_unused]] const p4::file_writer& next) {
    if (const identity now = look_at(path_); now.there && now != seen_)
        return p4::error::format(p4::errc::in_use, "%s: somebody else has changed this file since this chat has it; it stays as it is",
                                 p4::printable(path_).c_str());
#if !defined(_WIN32)
    give_up(next_);
    next_ = ::fcntl(next.descriptor(), F_DUPFD_CLOEXEC, 3);
    if (next_ >= 0) (void)lock(next_);
#endif
    return {};
}

void chat_place::replaced() {
    made_ = false;
    seen_ = look_at(path_);
#if !defined(_WIN32)
    give_up(lock_);
#endif
    lock_ = std::exchange(next_, -1);
}

}  // namespace cli
