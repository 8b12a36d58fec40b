#pragma once
/// Standard input for a conversation: bytes as they come, Ctrl-C as an event, and a terminal that neither shows nor loses what is typed
/// while nobody reads it.
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

namespace cli {

/// Set by Ctrl-C once `keyboard::note_interrupts` was called.
inline std::atomic<bool> interrupt_noted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

/// One at a time. It remembers the terminal as it finds it; its end, SIGTERM, SIGHUP, SIGQUIT and Ctrl-Z give it back so.
class keyboard {
public:
    /// What standard input is.
    enum class source : std::uint8_t {
        pipe,    ///< no terminal: nothing is changed
        lines,   ///< a terminal that hands over whole lines and lets people correct them itself
        editor,  ///< a terminal whose every key goes to a line editor
    };
    enum class event : std::uint8_t { byte, end, interrupted, resized, continued };

    explicit keyboard(source what);
    ~keyboard();
    keyboard(const keyboard&) = delete;
    keyboard& operator=(const keyboard&) = delete;

    /// From now on the terminal shows no keys while nobody reads.
    void hush();
    /// From now on Ctrl-C sets `interrupt_noted` and ends a wait; before, it ends the program.
    void note_interrupts();
    /// Waits for the next byte, or for what happens meanwhile. Ctrl-C that came before the call counts.
    event next(char& byte);
    /// Takes what has been typed and does not wait: called between tokens, as a terminal holds back no more than 4 KiB.
    void collect();
    /// For source::lines: shows keys, which were not while nobody read.
    void show(bool yes);
    /// Whether something was collected.
    [[nodiscard]] bool waiting() const { return taken_ < waiting_.size(); }

private:
    bool fill();

    source what_;
    std::string waiting_;
    std::size_t taken_ = 0;
    bool ended_ = false;
    bool terminal_ = false;
};

}  // namespace cli
