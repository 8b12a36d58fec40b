/// The history of chat, kept in the folder that the XDG base directory specification names for it.
#include "history_file.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#if !defined(_WIN32)
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace cli {

std::string usual_history_file() {
    const auto absolute = [](const char* name) -> std::filesystem::path {
        const char* const value = std::getenv(name);
        return value != nullptr && *value == '/' ? value : "";
    };
    std::filesystem::path folder = absolute("XDG_STATE_HOME");
    if (folder.empty() && !absolute("HOME").empty()) folder = absolute("HOME") / ".local" / "state";
    return folder.empty() ? std::string() : (folder / "phi4flash" / "chat_history").string();
}

#if defined(_WIN32)

p4::result<std::vector<std::string>> history_file::load() const { return std::vector<std::string>(); }
p4::status history_file::append(std::string_view) const { return {}; }

#else

namespace {

constexpr std::size_t longest_message = 65536;  // longer ones are files that somebody pasted

std::string escaped(std::string_view message) {
    std::string line;
    for (const char c : message) {
        if (c == '\\') line += "\\\\";
        else if (c == '\n') line += "\\n";
        else line += c;
    }
    return line += '\n';
}

std::string unescaped(std::string_view line) {
    std::string message;
    for (std::size_t i = 0; i < line.size(); ++i) {
        const bool pair = line[i] == '\\' && i + 1 < line.size();
        message += !pair ? line[i] : line[i + 1] == 'n' ? '\n' : line[i + 1];
        i += pair ? 1 : 0;
    }
    return message;
}

p4::error unwritable(const std::string& path) {
    return p4::error::format(p4::errc::file_unwritable, "%s cannot be written: %s", p4::printable(path).c_str(), std::strerror(errno));
}

p4::status write_line(int file, std::string_view line, const std::string& path) {
    while (!line.empty()) {
        const ssize_t n = ::write(file, line.data(), line.size());
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return unwritable(path);
        line.remove_prefix(static_cast<std::size_t>(n));
    }
    return {};
}

p4::status shorten(const std::string& path, const std::vector<std::string>& messages) {
    std::string all;
    for (const std::string& message : messages) all += escaped(message);
    return p4::write_file(path, all);
}

}  // namespace

p4::result<std::vector<std::string>> history_file::load() const {
    std::vector<std::string> messages;
    struct stat what = {};
    if (path_.empty() || ::stat(path_.c_str(), &what) != 0 || !S_ISREG(what.st_mode)) return messages;
    std::ifstream file(path_, std::ios::binary);
    if (!file) return p4::error::format(p4::errc::file_unreadable, "%s cannot be read: %s", p4::printable(path_).c_str(), std::strerror(errno));
    for (std::string line; std::getline(file, line);) {
        if (!line.empty() && p4::valid_utf8_prefix(line) == line.size()) messages.push_back(unescaped(line));
    }
    if (messages.size() > most_messages) {
        const bool grown = messages.size() > 2 * most_messages;
        messages.erase(messages.begin(), messages.end() - static_cast<std::ptrdiff_t>(most_messages));
        if (grown) (void)shorten(path_, messages);  // else the next message that is kept tells why
    }
    return messages;
}

p4::status history_file::append(std::string_view message) const {
    if (path_.empty() || message.size() > longest_message) return {};
    std::filesystem::path folder;
    for (const auto& part : std::filesystem::path(path_).parent_path()) {
        folder /= part;
        ::mkdir(folder.c_str(), 0700);  // those that are there stay as they are
    }
    const int file = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file < 0) return unwritable(path_);
    const p4::status ok = write_line(file, escaped(message), path_);
    ::close(file);
    return ok;
}

#endif

}  // namespace cli
