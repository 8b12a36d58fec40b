#pragma once
/// Where the messages of a chat come from: a pipe, a plain terminal, or a line editor.
#include "keyboard.hpp"

#include <memory>
#include <string>
#include <string_view>

namespace cli {

/// How a wait for a message ended.
enum class input : std::uint8_t {
    message,
    emptied,      ///< Ctrl-C while there was a text: it is gone
    interrupted,  ///< Ctrl-C with nothing typed
    cut,          ///< the terminal lost a part of the line
    end,
};

/// Reads one message at a time. Made before the model is opened: what is typed meanwhile is kept, and shown when it is read.
class line_reader {
public:
    virtual ~line_reader() = default;

    virtual input read(std::string& message) = 0;
    /// A message that was sent: it can be had again.
    virtual void remember(std::string_view) {}
    /// What to tell people about it; empty for nothing. May be asked once.
    virtual std::string warning() { return {}; }
    /// Whether keys such as Alt-Enter and the arrows do what /help says.
    [[nodiscard]] virtual bool edits() const { return false; }
    virtual keyboard& keys() = 0;
};

struct reader_options {
    std::string colour;        ///< escape sequences around the prompt, or nothing
    std::string plain;
    std::string history_file;  ///< empty: none is kept
};

/// The best that fits: an editor where input and output are a terminal that can move its cursor, and the build has one.
std::unique_ptr<line_reader> make_line_reader(const reader_options& options);

/// The line editor; null where this build, terminal or locale has none.
std::unique_ptr<line_reader> make_line_editor(const reader_options& options);

}  // namespace cli
