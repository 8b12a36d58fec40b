#pragma once
/// Numbers on the command line: decimal, and nothing else. CLI11 alone takes 010 for 8, 1'000 and 1_000 for 1000, and leaves out what
/// is missing in 1,,2.
#include "library.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace cli {

/// Makes every numeric option of every subcommand decimal: 010 is ten; 0x10, 1_000, +1, nan and an empty text are refused. To be called
/// when all options are there.
void read_numbers_in_decimal(CLI::App& app);

/// Ids with a comma, white space or both between them. Errors: invalid_argument (no id at all, a comma too many, no decimal number of
/// 32 bits).
p4::result<std::vector<std::int32_t>> ids_in(std::string_view text);

/// Ids as an option.
CLI::Option* add_tokens_option(CLI::App& command, std::vector<std::int32_t>& tokens, const std::string& what);

}  // namespace cli
