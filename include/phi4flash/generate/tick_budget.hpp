#pragma once
/// How many rows of prompts a tick may have while others write: as few as its host says, or as keep a tick within the host's time.
/// @since 0.2
#include <phi4flash/core/result.hpp>

#include <algorithm>
#include <cstddef>

PHI4FLASH_BEGIN

/// What a scheduler is made for.
struct scheduler_options {
    std::size_t requests = 16;     ///< that there can be at a time
    std::size_t prompt_rows = 32;  ///< tokens of prompts in a tick in which others write, at most; who writes waits for these, too
    /// Seconds that such a tick should take at most, by what ticks have taken so far: fewer prompt rows then, but always one. 0: no such bound.
    double longest_tick = 0.0;
};

/// Measures ticks and predicts them: so many seconds for those who write, and so many for each row of a prompt. Both change slowly, with the
/// number of texts and their length, so that the last few ticks are a good guess; more than double what was tried before is never guessed.
class tick_budget {
public:
    explicit tick_budget(const scheduler_options& options) : most_(options.prompt_rows), longest_(options.longest_tick) {}

    /// For a tick in which others write.
    [[nodiscard]] std::size_t prompt_rows() const;

    void begin(std::size_t writers, std::size_t prompt_rows) {
        writers_ = writers;
        rows_ = prompt_rows;
        seconds_ = 0.0;
    }
    /// The time of a piece of the tick.
    void add(double seconds) { seconds_ += seconds; }
    void end();

private:
    static constexpr double aim = 0.9;  // ticks differ
    static constexpr std::size_t first_guess = 4;

    [[nodiscard]] static double mixed(double before, double now) { return before == 0.0 ? now : 0.75 * before + 0.25 * now; }

    std::size_t most_;
    double longest_;
    double writing_ = 0.0;  // seconds of a tick in which nobody reads a prompt
    double row_ = 0.0;      // and of each row of a prompt
    std::size_t last_ = 0;  // rows of prompts in the last tick that had any
    std::size_t writers_ = 0;
    std::size_t rows_ = 0;
    double seconds_ = 0.0;
};

#if PHI4FLASH_BODIES
PHI4FLASH_BODY std::size_t tick_budget::prompt_rows() const {
    if (longest_ <= 0.0) return most_;
    const double left = aim * longest_ - writing_;
    const double fitting = row_ > 0.0 ? left / row_ : static_cast<double>(first_guess);
    const auto most = (std::min)(most_, last_ == 0 ? first_guess : 2 * last_);
    return fitting < 1.0 ? 1 : fitting < static_cast<double>(most) ? static_cast<std::size_t>(fitting) : most;
}

PHI4FLASH_BODY void tick_budget::end() {
    if (writers_ == 0) return;
    if (rows_ == 0) {
        writing_ = mixed(writing_, seconds_);
    } else {
        row_ = mixed(row_, (std::max)(seconds_ - writing_, 0.0) / static_cast<double>(rows_));
        last_ = rows_;
    }
}
#endif

PHI4FLASH_END
