#pragma once
/// Texts that people bring: from a file, from a pipe, or as an argument. All of them are UTF-8, and what is not is refused.
#include "library.hpp"

#include <string>
#include <string_view>

namespace cli {

/// The text of a file; "-" is standard input. One line end at the end is left out, as editors and `echo` put it there, and so is a
/// byte order mark at the beginning. Errors: file_not_found, file_unreadable, file_too_large (more than 256 MiB), invalid_argument
/// (no text, or no UTF-8).
p4::result<std::string> read_text(const std::string& path);

/// Errors: invalid_argument, with `place` and the line.
p4::status check_utf8(std::string_view text, std::string_view place);

/// Whether somebody has put a pipe or a file behind standard input: then it may hold a text that no option names.
[[nodiscard]] bool input_is_given();

}  // namespace cli
