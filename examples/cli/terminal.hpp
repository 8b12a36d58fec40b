#pragma once
/// What the program knows about the person in front of it: is there a terminal, and may it be coloured.
#include <cstdlib>
#include <string_view>
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

/// Escape sequences, or nothing where the output is no terminal, TERM is dumb or NO_COLOR is set.
struct style {
    const char* dim = "";
    const char* strong = "";
    const char* plain = "";

    static style of(int descriptor) {
        const char* const no_colour = std::getenv("NO_COLOR");
        const char* const kind = std::getenv("TERM");
        const bool obeys = kind == nullptr || std::string_view(kind) != "dumb";
        const bool colour = is_terminal(descriptor) && obeys && (no_colour == nullptr || *no_colour == '\0');
        return colour ? style{"\033[2m", "\033[1;36m", "\033[0m"} : style{};
    }
};

}  // namespace cli
