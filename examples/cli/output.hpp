#pragma once
/// Standard output, and whether it took what it was given. Nothing else in the program writes there
/// (tools/check_dependencies.py): a full disk or a reader that has gone must not end with success.
#include "library.hpp"

#include <cstdarg>
#include <string>
#include <string_view>

namespace cli {

/// Collects text until `flush`. The first failure is remembered, and what comes after it is dropped: one look at `good` or `state`
/// at the end of some work is enough. For one thread.
class checked_output {
public:
    /// False once something could not be written; work whose only end is output may stop then.
    bool write(std::string_view text);
    /// printf-style.
    PHI4FLASH_PRINTF_LIKE(2, 3) bool print(const char* pattern, ...);
    /// Everything so far reaches the file, pipe or terminal.
    bool flush();

    [[nodiscard]] bool good() const { return error_ == 0; }
    /// The same, and false as soon as the reader of a pipe has gone: for long work that writes only in the end.
    [[nodiscard]] bool awaited();
    /// Whether it is what a path such as /dev/stdout leads to.
    [[nodiscard]] bool is(const std::filesystem::path& path) const;
    /// Errors: file_unwritable, with the system's reason.
    [[nodiscard]] p4::status state() const;
    /// Flushes and closes: some file systems tell only then that they had no room. Errors: file_unwritable.
    p4::status finish();

private:
    std::string waiting_;
    int error_ = 0;  // errno of the first failure
};

inline checked_output standard_output;

/// Gives descriptors 0 to 2 to /dev/null where the caller has closed them, in the direction that makes their use fail: a file that is
/// opened later would get the number, and what is meant for the terminal would go into it.
void hold_standard_descriptors();

}  // namespace cli
