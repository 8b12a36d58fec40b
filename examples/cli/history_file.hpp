#pragma once
/// Messages of earlier chats, in a file of the user alone.
#include "library.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace cli {

/// One message a line, with \n and \\ for line ends and backslashes. Each is appended as it is sent, so that chats side by side keep
/// all of theirs.
class history_file {
public:
    static constexpr std::size_t most_messages = 1000;

    /// An empty path keeps nothing.
    explicit history_file(std::string path) : path_(std::move(path)) {}

    /// The last ones, oldest first; none where there is no file yet. Shortens a file that has grown to twice their number.
    /// Errors: file_unreadable.
    p4::result<std::vector<std::string>> load() const;
    /// Makes the file with mode 0600, and its folders with 0700. Errors: file_unwritable.
    p4::status append(std::string_view message) const;

private:
    std::string path_;
};

/// phi4flash/chat_history in $XDG_STATE_HOME or ~/.local/state; empty where there is no home.
std::string usual_history_file();

}  // namespace cli
