#pragma once
/// Ctrl-C and its like while files are written: the work ends early, so that what is half written is removed, and then the signal
/// does what it was sent for.
#include <atomic>
#include <csignal>
#include <cstddef>
#include <iterator>

namespace cli {

/// The signal that has arrived, or 0.
inline std::atomic<int> stop_signal{0};
static_assert(std::atomic<int>::is_always_lock_free);

/// Whether it is time to stop. Asked between the pieces of what a command writes.
[[nodiscard]] inline bool stop_asked() { return stop_signal.load(std::memory_order_relaxed) != 0; }

/// While it lives, the first signal is noted and interrupts what waits (a FIFO without a reader); the second, of whichever kind, ends
/// the program at once. What the caller ignores (nohup) stays ignored.
class stop_guard {
public:
    stop_guard() {
        for (std::size_t i = 0; i < count; ++i) {
#if defined(_WIN32)
            before_[i] = std::signal(signals[i], note);
#else
            sigaction(signals[i], nullptr, &before_[i]);
            if (before_[i].sa_handler == SIG_IGN) continue;
            struct sigaction noting = {};  // without SA_RESTART, so that waiting ends
            noting.sa_handler = note;
            sigemptyset(&noting.sa_mask);
            sigaction(signals[i], &noting, nullptr);
#endif
        }
    }
    ~stop_guard() {
        for (std::size_t i = 0; i < count; ++i) {
#if defined(_WIN32)
            std::signal(signals[i], before_[i]);
#else
            sigaction(signals[i], &before_[i], nullptr);
#endif
        }
    }
    stop_guard(const stop_guard&) = delete;
    stop_guard& operator=(const stop_guard&) = delete;

private:
    static void note(int signal) {
        int none = 0;
        if (stop_signal.compare_exchange_strong(none, signal, std::memory_order_relaxed)) return;
        std::signal(signal, SIG_DFL);
        std::raise(signal);
    }

#if defined(_WIN32)
    static constexpr int signals[] = {SIGINT, SIGTERM};
    static constexpr std::size_t count = std::size(signals);
    void (*before_[count])(int);
#else
    static constexpr int signals[] = {SIGINT, SIGTERM, SIGHUP};
    static constexpr std::size_t count = std::size(signals);
    struct sigaction before_[count] = {};
#endif
};

/// Ends the program as the noted signal would have, so that whoever started it knows. Nothing where none was.
inline void obey_stop_signal() {
    if (stop_asked()) std::raise(stop_signal.load(std::memory_order_relaxed));
}

}  // namespace cli
