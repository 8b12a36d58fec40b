/// Signals reach a waiting read through a pipe of our own: the kernel may hand them to any thread, and a signal that comes just before the
/// wait must end it too.
#include "keyboard.hpp"

#if defined(_WIN32)
#include <csignal>
#include <cstdio>
#else
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <poll.h>
#include <iterator>
#include <termios.h>
#include <unistd.h>
#endif

namespace cli {

#if defined(_WIN32)

namespace {
void note(int signal) {
    interrupt_noted.store(true, std::memory_order_relaxed);
    std::signal(signal, note);
}
}  // namespace

keyboard::keyboard(source what) : what_(what) {}
keyboard::~keyboard() { std::signal(SIGINT, SIG_DFL); }
void keyboard::note_interrupts() { std::signal(SIGINT, note); }
void keyboard::hush() {}
void keyboard::collect() {}
void keyboard::show(bool) {}
bool keyboard::fill() { return false; }

keyboard::event keyboard::next(char& byte) {
    const int c = std::getc(stdin);
    if (c != EOF) {
        byte = static_cast<char>(c);
        return event::byte;
    }
    std::clearerr(stdin);
    return interrupt_noted.exchange(false) ? event::interrupted : event::end;
}

#else

namespace {

// What the handlers see. Lock-free, and set before they are installed.
termios before;                          // the terminal as it was
std::atomic<bool> changed{false};        // it is not so now
std::atomic<bool> pastes_marked{false};  // it marks where pasted text begins and ends
std::atomic<bool> notes{false};          // Ctrl-C is noted
std::atomic<bool> resized{false};
std::atomic<bool> continued{false};
int wake[2] = {-1, -1};

constexpr int ending[] = {SIGTERM, SIGHUP, SIGQUIT};
struct sigaction old_int, old_stop, old_resize, old_ending[3];

/// Straight to the terminal, as a signal may be what asks for it.
void mark_pastes(bool yes) {
    constexpr int screen = 1;
    if (!pastes_marked) return;
    [[maybe_unused]] const auto sent = ::write(screen, yes ? "\033[?2004h" : "\033[?2004l", 8);
}

void give_back() {
    if (!changed) return;
    mark_pastes(false);
    tcsetattr(STDIN_FILENO, TCSANOW, &before);
}

void wake_up() {
    const char byte = 0;
    [[maybe_unused]] const auto sent = ::write(wake[1], &byte, 1);
}

/// Does to the program what the signal does by default.
void obey(int signal) {
    struct sigaction by_default = {};
    by_default.sa_handler = SIG_DFL;
    sigaction(signal, &by_default, nullptr);
    sigset_t this_one;
    sigemptyset(&this_one);
    sigaddset(&this_one, signal);
    raise(signal);
    pthread_sigmask(SIG_UNBLOCK, &this_one, nullptr);
}

void on_ending(int signal) {
    give_back();
    obey(signal);
}

void on_interrupt(int signal) {
    if (!notes) return on_ending(signal);
    const int kept = errno;
    interrupt_noted.store(true, std::memory_order_relaxed);
    wake_up();
    errno = kept;
}

void on_resize(int) {
    const int kept = errno;
    resized = true;
    wake_up();
    errno = kept;
}

void install(int signal, void (*handler)(int), struct sigaction* old) {
    struct sigaction now = {};
    now.sa_handler = handler;
    sigemptyset(&now.sa_mask);
    now.sa_flags = SA_RESTART;
    sigaction(signal, nullptr, old);
    if (old->sa_handler != SIG_IGN) sigaction(signal, &now, nullptr);  // what the caller ignores (nohup) stays ignored
}

/// Ctrl-Z: the shell gets its terminal back, and we ours when it lets us go on.
void on_stop(int signal) {
    const int kept = errno;
    termios ours;
    const bool had = tcgetattr(STDIN_FILENO, &ours) == 0;
    give_back();
    obey(signal);
    struct sigaction ignored;
    install(signal, on_stop, &ignored);
    if (had) tcsetattr(STDIN_FILENO, TCSANOW, &ours);
    mark_pastes(true);
    continued = true;
    wake_up();
    errno = kept;
}

termios quiet(keyboard::source what) {
    termios mode = before;
    mode.c_lflag &= ~static_cast<tcflag_t>(ECHO | ECHONL);
    mode.c_lflag |= NOFLSH;  // Ctrl-C stops an answer and forgets nothing that was typed
    if (what == keyboard::source::editor) {
        mode.c_lflag &= ~static_cast<tcflag_t>(ICANON | IEXTEN);
        mode.c_iflag &= ~static_cast<tcflag_t>(ICRNL | INLCR | IGNCR);  // the editor sees a pasted line end as it is
        mode.c_cc[VMIN] = 1;
        mode.c_cc[VTIME] = 0;
    }
    return mode;
}

}  // namespace

keyboard::keyboard(source what) : what_(what) {
    if (::pipe(wake) == 0) {
        for (const int end : wake) {
            fcntl(end, F_SETFL, O_NONBLOCK);
            fcntl(end, F_SETFD, FD_CLOEXEC);
        }
    }
    terminal_ = what != source::pipe && tcgetattr(STDIN_FILENO, &before) == 0;
    install(SIGINT, on_interrupt, &old_int);
    install(SIGTSTP, on_stop, &old_stop);
    install(SIGWINCH, on_resize, &old_resize);
    for (std::size_t i = 0; i < std::size(ending); ++i) install(ending[i], on_ending, &old_ending[i]);
}

void keyboard::hush() {
    if (!terminal_) return;
    pastes_marked = what_ == source::editor;
    changed = true;
    const termios mode = quiet(what_);
    tcsetattr(STDIN_FILENO, TCSADRAIN, &mode);
    mark_pastes(true);
}

keyboard::~keyboard() {
    give_back();
    changed = pastes_marked = notes = false;
    sigaction(SIGINT, &old_int, nullptr);
    sigaction(SIGTSTP, &old_stop, nullptr);
    sigaction(SIGWINCH, &old_resize, nullptr);
    for (std::size_t i = 0; i < std::size(ending); ++i) sigaction(ending[i], &old_ending[i], nullptr);
    for (int& end : wake) {
        if (end >= 0) ::close(end);
        end = -1;
    }
}

void keyboard::note_interrupts() { notes = true; }

void keyboard::show(bool yes) {
    if (!changed || what_ != source::lines) return;
    const termios mode = yes ? before : quiet(what_);
    tcsetattr(STDIN_FILENO, TCSADRAIN, &mode);
}

/// Reads once. False at the end of the input.
bool keyboard::fill() {
    char piece[4096];
    const ssize_t n = ::read(STDIN_FILENO, piece, sizeof piece);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return true;
    if (n <= 0) return false;
    if (!waiting()) waiting_.clear(), taken_ = 0;
    waiting_.append(piece, static_cast<std::size_t>(n));
    return true;
}

void keyboard::collect() {
    if (what_ == source::pipe) return;
    for (pollfd keys{STDIN_FILENO, POLLIN, 0}; !ended_ && ::poll(&keys, 1, 0) == 1 && (keys.revents & POLLIN) != 0;) ended_ = !fill();
}

keyboard::event keyboard::next(char& byte) {
    while (true) {
        if (interrupt_noted.exchange(false)) return event::interrupted;
        if (resized.exchange(false)) return event::resized;
        if (continued.exchange(false)) return event::continued;
        if (waiting()) {
            byte = waiting_[taken_++];
            return event::byte;
        }
        if (ended_) {
            ended_ = false;  // a terminal may go on after Ctrl-D
            return event::end;
        }
        pollfd both[2] = {{STDIN_FILENO, POLLIN, 0}, {wake[0], POLLIN, 0}};
        if (::poll(both, 2, -1) < 0) continue;  // a signal: its flag is looked at above
        char drained[64];
        while (both[1].revents != 0 && ::read(wake[0], drained, sizeof drained) > 0) {}
        if (both[0].revents != 0) ended_ = !fill();
    }
}

#endif

}  // namespace cli
