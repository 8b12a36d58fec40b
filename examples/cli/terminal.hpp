#pragma once
/// What the program knows about the person in front of it: is there a terminal, and was Ctrl-C pressed.
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <string>
#if defined(_WIN32)
#include <io.h>
#else
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace cli {

/// Whether a file descriptor (0 input, 1 output, 2 errors) is a terminal.
[[nodiscard]] inline bool is_terminal(int descriptor) {
#if defined(_WIN32)
    return _isatty(descriptor) != 0;
#else
    return isatty(descriptor) != 0;
#endif
}

/// Whether somebody may wait at the other end of standard input for the answer to a line before sending the next: not if it is a file.
[[nodiscard]] inline bool input_is_live() {
#if defined(_WIN32)
    return true;
#else
    struct stat about = {};
    return fstat(0, &about) != 0 || !S_ISREG(about.st_mode);
#endif
}

/// Escape sequences, or nothing where the output is no terminal or NO_COLOR is set.
struct style {
    const char* dim = "";
    const char* strong = "";
    const char* plain = "";

    static style of(int descriptor) {
        const char* const no_colour = std::getenv("NO_COLOR");
        const bool colour = is_terminal(descriptor) && (no_colour == nullptr || *no_colour == '\0');
        return colour ? style{"\033[2m", "\033[1;36m", "\033[0m"} : style{};
    }
};

/// Set by Ctrl-C while a ctrl_c_guard lives.
inline std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

/// Turns Ctrl-C into a flag, and interrupts a read from the keyboard.
class ctrl_c_guard {
public:
#if defined(_WIN32)
    ctrl_c_guard() : before_(std::signal(SIGINT, note)) {}
    ~ctrl_c_guard() { std::signal(SIGINT, before_); }
#else
    ctrl_c_guard() {
        struct sigaction noting = {};
        noting.sa_handler = note;  // without SA_RESTART, so that reading ends
        sigemptyset(&noting.sa_mask);
        sigaction(SIGINT, &noting, &before_);
    }
    ~ctrl_c_guard() { sigaction(SIGINT, &before_, nullptr); }
#endif
    ctrl_c_guard(const ctrl_c_guard&) = delete;
    ctrl_c_guard& operator=(const ctrl_c_guard&) = delete;

private:
    static void note(int signal) {
        interrupted.store(true, std::memory_order_relaxed);
#if defined(_WIN32)
        std::signal(signal, note);
#else
        (void)signal;
#endif
    }
#if defined(_WIN32)
    void (*before_)(int);
#else
    struct sigaction before_ = {};
#endif
};

}  // namespace cli
