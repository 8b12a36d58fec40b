#pragma once
/// Whether a worker of a pool is worth waiting for.
///
/// On a machine that others use too, the operating system takes the processor from a worker in the middle of a piece of work, and
/// everybody waits some milliseconds until it is that worker's turn again. Where that happens all the time, fewer threads get
/// more done. Times are nanoseconds of any steady clock.
#include <phi4flash/config/abi.hpp>

#include <algorithm>
#include <cstdint>

PHI4FLASH_BEGIN

/// One worker's account: nanoseconds of any clock that only goes forward. Of one thread at a time.
class attendance {
public:
    using nanoseconds = std::int64_t;

    /// Of the time that passes, one part in so many may be lost by waiting for the worker: that happens on any machine.
    static constexpr nanoseconds allowance = 8;
    /// How much more than that makes the worker leave.
    static constexpr nanoseconds limit = 20'000'000;
    /// How long it stays away at first, and at most: twice as long each time that it is no better when it comes back.
    static constexpr nanoseconds first_absence = 250'000'000;
    PHI4FLASH_OWN_DATA static constexpr nanoseconds longest_absence = 2'000'000'000;
    /// So long a stay makes the next absence a first one again.
    static constexpr nanoseconds good_stay = 2'000'000'000;

    /// Everybody waited until `now` for this worker, and `lost` so much by it. Returns whether it had better leave.
    bool waited(nanoseconds now, nanoseconds lost) {
        score_ = std::max<nanoseconds>(0, score_ - (now - last_) / allowance) + lost;
        last_ = now;
        if (score_ <= limit) return false;
        if (now - returned_ > good_stay) absence_ = first_absence;
        return_ = now + absence_;
        absence_ = (std::min)(2 * absence_, longest_absence);
        return true;
    }

    /// Whether a worker that left should be back.
    [[nodiscard]] bool is_back(nanoseconds now) {
        if (now < return_) return false;
        returned_ = last_ = now;
        score_ = limit / 2;  // on probation
        return true;
    }

private:
    nanoseconds score_ = 0;
    nanoseconds last_ = 0;
    nanoseconds return_ = 0;
    nanoseconds returned_ = 0;
    nanoseconds absence_ = first_absence;
};

PHI4FLASH_END
