/// Reads whole texts: a prompt or a system message of any length.
#include "input_text.hpp"

#include "terminal.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#if defined(_WIN32)
#include <fcntl.h>
#else
#include <sys/stat.h>
#endif

namespace cli {
namespace {

constexpr std::size_t most_bytes = std::size_t{1} << 28;

p4::result<std::string> read_all(std::FILE* file, const std::string& place) {
    std::string text;
    char piece[65536];
    for (std::size_t n = 0; (n = std::fread(piece, 1, sizeof piece, file)) != 0;) {
        if (text.size() + n > most_bytes)
            return p4::error::format(p4::errc::file_too_large, "%s: want at most 256 MiB of text", place.c_str());
        text.append(piece, n);
    }
    if (std::ferror(file) != 0)
        return p4::error::format(p4::errc::file_unreadable, "%s: cannot be read: %s", place.c_str(), std::strerror(errno));
    return text;
}

p4::result<std::string> read_standard_input(const std::string& place) {
#if defined(_WIN32)
    _setmode(_fileno(stdin), _O_BINARY);
#endif
    if (is_terminal(0)) std::fprintf(stderr, "phi4flash: reading a text from the keyboard, Ctrl-D on a line of its own ends it\n");
    return read_all(stdin, place);
}

p4::result<std::string> read_file(const std::string& path, const std::string& place) {
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored))
        return p4::error::format(p4::errc::file_unreadable, "%s: want a text file, have a folder", place.c_str());
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
    if (!file) {
        const int reason = errno;
        return p4::error::format(reason == ENOENT ? p4::errc::file_not_found : p4::errc::file_unreadable, "%s: cannot be opened: %s",
                                 place.c_str(), std::strerror(reason));
    }
    return read_all(file.get(), place);
}

}  // namespace

p4::status check_utf8(std::string_view text, std::string_view place) {
    const std::size_t good = p4::valid_utf8_prefix(text);
    if (good == text.size()) return {};
    const bool wide = text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff");
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(good), '\n');
    return p4::error::format(p4::errc::invalid_argument, "%.*s, line %td: want UTF-8, have the byte 0x%02X%s", static_cast<int>(place.size()),
                             place.data(), line, static_cast<unsigned>(static_cast<unsigned char>(text[good])),
                             wide ? ": this looks like UTF-16" : "");
}

p4::result<std::string> read_text(const std::string& path) {
    const std::string place = path == "-" ? "standard input" : p4::printable(path).c_str();
    auto text = path == "-" ? read_standard_input(place) : read_file(path, place);
    if (!text) return text;
    if (const p4::status ok = check_utf8(*text, place); !ok) return ok.error();
    if (text->starts_with("\xef\xbb\xbf")) text->erase(0, 3);
    if (text->ends_with('\n')) text->pop_back();
    if (text->ends_with('\r')) text->pop_back();
    if (text->empty()) return p4::error::format(p4::errc::invalid_argument, "%s: want a text, have nothing", place.c_str());
    return text;
}

bool input_is_given() {
#if defined(_WIN32)
    return !is_terminal(0);
#else
    struct stat what = {};
    return fstat(0, &what) == 0 && (S_ISFIFO(what.st_mode) || S_ISREG(what.st_mode) || S_ISSOCK(what.st_mode));
#endif
}

}  // namespace cli
