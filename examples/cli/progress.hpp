#pragma once
/// A progress bar on the terminal (barkeep), or a percentage now and then where the build has no such library. Nothing is
/// shown where the error output is no terminal.
#include "terminal.hpp"

#include <cstdint>
#include <cstdio>
#if PHI4FLASH_CLI_HAS_PROGRESS
#include <barkeep/barkeep.h>

#include <iostream>
#include <memory>
#endif

namespace cli {

/// Counts from 0 to `total` units of `scale` each, such as megabytes. Not for several threads.
class progress {
public:
    progress(const char* what, const char* unit_a_second, double total, double scale) : total_(total / scale), scale_(scale) {
        (void)what, (void)unit_a_second;
        if (!is_terminal(2) || total <= 0.0) return;
#if PHI4FLASH_CLI_HAS_PROGRESS
        bar_ = barkeep::ProgressBar(
            &done_, {.out = &std::cerr, .total = total_, .message = what, .speed = 0.1, .speed_unit = unit_a_second});
#else
        what_ = what;
#endif
    }
    progress(const progress&) = delete;
    progress& operator=(const progress&) = delete;
    ~progress() {
#if PHI4FLASH_CLI_HAS_PROGRESS
        if (bar_) bar_->done();
#else
        if (what_ != nullptr) std::fprintf(stderr, "\n");
#endif
    }

    void advance(double amount) {
        done_ = done_ + amount / scale_;
#if !PHI4FLASH_CLI_HAS_PROGRESS
        const int percent = static_cast<int>(100.0 * done_ / total_);
        if (what_ != nullptr && percent != shown_) std::fprintf(stderr, "\r%s %d %%", what_, shown_ = percent);
#endif
    }

private:
    double total_;
    double scale_;
#if PHI4FLASH_CLI_HAS_PROGRESS
    std::atomic<double> done_{0.0};
    std::shared_ptr<barkeep::ProgressBarDisplay<std::atomic<double>>> bar_;
#else
    double done_ = 0.0;
    const char* what_ = nullptr;
    int shown_ = -1;
#endif
};

}  // namespace cli
