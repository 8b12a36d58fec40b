/// Standard output by the system's own calls: stdio forgets what it could not write, and loses some of it after a signal.
#include "output.hpp"

#include <cerrno>
#include <cstdio>
#include <system_error>
#if defined(_WIN32)
#include <io.h>
#else
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace cli {
namespace {

constexpr int descriptor = 1;
constexpr std::size_t most_waiting = std::size_t{1} << 16;

/// Writes some of the text: how much, or -1 and errno.
std::ptrdiff_t write_some(std::string_view text) {
#if defined(_WIN32)
    return _write(descriptor, text.data(), static_cast<unsigned>(text.size()));
#else
    return ::write(descriptor, text.data(), text.size());
#endif
}

/// Whether it is worth trying again: after a signal, and, where somebody has made the pipe non-blocking, when there is room.
bool try_again() {
    if (errno == EINTR) return true;
#if !defined(_WIN32)
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        pollfd room{descriptor, POLLOUT, 0};
        return ::poll(&room, 1, -1) >= 0 || errno == EINTR;
    }
#endif
    return false;
}

}  // namespace

bool checked_output::write(std::string_view text) {
    if (!good()) return false;
    waiting_ += text;
    return waiting_.size() < most_waiting || flush();
}

bool checked_output::print(const char* pattern, ...) {
    if (!good()) return false;
    char line[1024];
    std::va_list arguments;
    va_start(arguments, pattern);
    std::va_list again;
    va_copy(again, arguments);
    const int length = std::vsnprintf(line, sizeof line, pattern, arguments);
    va_end(arguments);
    if (length > 0 && static_cast<std::size_t>(length) < sizeof line) {
        waiting_.append(line, static_cast<std::size_t>(length));
    } else if (length > 0) {
        const std::size_t end = waiting_.size();
        waiting_.resize(end + static_cast<std::size_t>(length) + 1);
        std::vsnprintf(waiting_.data() + end, static_cast<std::size_t>(length) + 1, pattern, again);
        waiting_.pop_back();
    }
    va_end(again);
    return write({});
}

bool checked_output::flush() {
    std::string_view left = waiting_;
    while (good() && !left.empty()) {
        const std::ptrdiff_t n = write_some(left);
        if (n >= 0) {
            left.remove_prefix(static_cast<std::size_t>(n));
        } else if (!try_again()) {
            error_ = errno;
        }
    }
    waiting_.clear();
    return good();
}

bool checked_output::awaited() {
#if !defined(_WIN32)
    pollfd reader{descriptor, 0, 0};
    if (good() && ::poll(&reader, 1, 0) == 1 && (reader.revents & POLLERR) != 0) error_ = EPIPE;
#endif
    return good();
}

bool checked_output::is([[maybe_unused]] const std::filesystem::path& path) const {
#if defined(_WIN32)
    return false;
#else
    struct stat mine = {};
    struct stat theirs = {};
    return ::fstat(descriptor, &mine) == 0 && ::stat(path.c_str(), &theirs) == 0 && mine.st_dev == theirs.st_dev && mine.st_ino == theirs.st_ino;
#endif
}

p4::status checked_output::state() const {
    if (good()) return {};
    return p4::error::format(p4::errc::file_unwritable, "standard output cannot be written: %s",
                             std::generic_category().message(error_).c_str());
}

p4::status checked_output::finish() {
    flush();
#if !defined(_WIN32)
    if (::close(descriptor) != 0 && good() && errno != EBADF) error_ = errno;
    hold_standard_descriptors();
#endif
    return state();
}

void hold_standard_descriptors() {
#if !defined(_WIN32)
    for (int standard = 0; standard <= 2; ++standard)
        if (::fcntl(standard, F_GETFD) == -1 && errno == EBADF) (void)::open("/dev/null", standard == 0 ? O_WRONLY : O_RDONLY);
#endif
}

}  // namespace cli
