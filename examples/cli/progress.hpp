#pragma once
/// A progress bar on the terminal (barkeep), or a percentage now and then where the build has no such library or the bar would not
/// fit into the window: a line that is broken could not be drawn over. Nothing is shown where the error output is no terminal.
#include "terminal.hpp"

#include <cstdint>
#include <cstdio>
#include <string>
#if !defined(_WIN32)
#include <sys/ioctl.h>
#endif
#if PHI4FLASH_CLI_HAS_PROGRESS
#include <barkeep/barkeep.h>

#include <iostream>
#include <memory>
#endif

namespace cli {

/// Columns of the terminal that shows errors; 80 where it does not say.
[[nodiscard]] inline std::size_t terminal_columns() {
#if !defined(_WIN32)
    winsize size = {};
    if (ioctl(2, TIOCGWINSZ, &size) == 0 && size.ws_col != 0) return size.ws_col;
#endif
    return 80;
}

/// Counts from 0 to `total` units of `scale` each, such as megabytes. Not for several threads.
class progress {
public:
    progress(const char* what, const char* unit_a_second, double total, double scale) : total_(total / scale), scale_(scale) {
        (void)unit_a_second;
        if (!is_terminal(2) || total <= 0.0) return;
#if PHI4FLASH_CLI_HAS_PROGRESS
        if (bar_columns(what, unit_a_second) < terminal_columns()) {
            bar_ = barkeep::ProgressBar(&whole_, {.out = &std::cerr,
                                                  .total = static_cast<std::uint64_t>(total_ + 0.5),
                                                  .message = what,
                                                  .speed = 0.1,
                                                  .speed_unit = unit_a_second});
            return;
        }
#endif
        what_ = what;
    }
    progress(const progress&) = delete;
    progress& operator=(const progress&) = delete;
    ~progress() {
#if PHI4FLASH_CLI_HAS_PROGRESS
        if (bar_) bar_->done();
#endif
        if (what_ != nullptr) std::fprintf(stderr, "\n");
    }

    void advance(double amount) {
        done_ += amount / scale_;
#if PHI4FLASH_CLI_HAS_PROGRESS
        whole_ = static_cast<std::uint64_t>(done_ + 0.5);
#endif
        const int percent = static_cast<int>(100.0 * done_ / total_ + 1e-6);  // sums of fractions may end just below
        if (what_ != nullptr && percent != shown_) std::fprintf(stderr, "\r%s %d %%", what_, shown_ = percent);
    }

private:
#if PHI4FLASH_CLI_HAS_PROGRESS
    /// The longest line: "what 100.00% |30 cells| total/total (12345.67 unit) ".
    [[nodiscard]] std::size_t bar_columns(const std::string& what, const std::string& unit) const {
        const std::string count = std::to_string(static_cast<std::uint64_t>(total_ + 0.5));
        const std::string parts = what + " 100.00% || " + count + "/" + count + " (12345.67 " + unit + ") ";
        return parts.size() + 30;
    }
    std::atomic<std::uint64_t> whole_{0};
    std::shared_ptr<barkeep::ProgressBarDisplay<std::atomic<std::uint64_t>>> bar_;
#endif
    double total_;
    double scale_;
    double done_ = 0.0;
    const char* what_ = nullptr;  // of the percentages
    int shown_ = -1;
};

}  // namespace cli
