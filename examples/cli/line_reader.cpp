/// The plain way: lines as a pipe or a terminal hands them over.
#include "line_reader.hpp"

#include "output.hpp"
#include "terminal.hpp"

#include <cstdio>

namespace cli {
namespace {

constexpr std::size_t longest_terminal_line = 4095;  // Linux drops what goes beyond; other systems have 1024

class plain_reader final : public line_reader {
public:
    explicit plain_reader(const reader_options& options)
        : terminal_(is_terminal(0)), prompt_(options.colour + "> " + options.plain),
          keys_(terminal_ ? keyboard::source::lines : keyboard::source::pipe) {
        keys_.hush();
    }

    input read(std::string& message) override {
        if (!terminal_) return read_line(message);
        keys_.collect();
        const bool typed_before = keys_.waiting();
        keys_.show(true);
        say(prompt_);
        const input got = read_line(message);
        keys_.show(false);
        if (got == input::message && typed_before) say(message + "\n");  // nobody has seen it yet
        if (got == input::message && message.size() >= longest_terminal_line) return input::cut;
        return got;
    }
    keyboard& keys() override { return keys_; }

private:
    input read_line(std::string& line) {
        line.clear();
        for (char byte = 0;;) {
            switch (keys_.next(byte)) {
                case keyboard::event::byte:
                    if (byte == '\n') return input::message;
                    line.push_back(byte);
                    break;
                case keyboard::event::end:
                    return line.empty() ? input::end : input::message;
                case keyboard::event::interrupted:
                    return input::interrupted;
                case keyboard::event::continued:
                    say(prompt_);
                    break;
                case keyboard::event::resized:
                    break;
            }
        }
    }
    /// To whichever terminal there is: the answers may go into a file.
    static void say(const std::string& text) {
        if (is_terminal(1)) {
            standard_output.write(text);
            standard_output.flush();
        } else {
            std::fputs(text.c_str(), stderr);
        }
    }

    bool terminal_;
    std::string prompt_;
    keyboard keys_;
};

}  // namespace

std::unique_ptr<line_reader> make_line_reader(const reader_options& options) {
    if (is_terminal(0) && is_terminal(1)) {
        if (auto editor = make_line_editor(options)) return editor;
    }
    return std::make_unique<plain_reader>(options);
}

}  // namespace cli
