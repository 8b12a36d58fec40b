/// Numbers on the command line: decimal, and nothing else.
#include "numbers.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cctype>
#include <charconv>

namespace cli {
namespace {

constexpr std::string_view blanks = " \t\r";

/// What is wrong with a whole number; empty if nothing is. White space around it and zeros before it go.
template <class Number>
std::string read_whole(std::string& text) {
    const std::string said = text;
    text.erase(0, std::min(text.find_first_not_of(blanks), text.size()));
    text.erase(text.find_last_not_of(blanks) + 1);
    Number number{};
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (failed == std::errc::result_out_of_range && end == text.data() + text.size()) return "the number " + text + " is too large";
    if (failed != std::errc() || end != text.data() + text.size())
        return std::string("want a whole number") + (std::is_signed_v<Number> ? "" : " that is not negative") + ", have '" + said + "'";
    text = std::to_string(number);
    return {};
}

/// The same for a number with a fraction. std::from_chars for floating point is not everywhere yet.
std::string check_fraction(std::string& text) {
    const auto digits = [](std::string_view& s) {
        const std::size_t count = std::min(s.find_first_not_of("0123456789"), s.size());
        s.remove_prefix(count);
        return count;
    };
    std::string_view rest = text;
    if (rest.starts_with('-')) rest.remove_prefix(1);
    std::size_t count = digits(rest);
    if (rest.starts_with('.')) {
        rest.remove_prefix(1);
        count += digits(rest);
    }
    if (count != 0 && (rest.starts_with('e') || rest.starts_with('E'))) {
        rest.remove_prefix(1);
        if (rest.starts_with('-') || rest.starts_with('+')) rest.remove_prefix(1);
        count = digits(rest);
    }
    return count != 0 && rest.empty() ? std::string() : "want a decimal number such as 0.5, have '" + text + "'";
}

/// The number before a unit, as in 5GB.
std::string check_size(std::string& text) {
    const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
    std::string number = text.substr(0, digits);
    const bool is_unit = std::all_of(text.begin() + static_cast<std::ptrdiff_t>(digits), text.end(),
                                     [](unsigned char c) { return c == ' ' || std::isalpha(c) != 0; });
    const bool is_hex = text.size() > digits && (text[digits] == 'x' || text[digits] == 'X');
    if (number.empty() || !is_unit || is_hex) return "want a size such as 5GB, have '" + text + "'";
    std::string wrong = read_whole<std::uint64_t>(number);
    if (wrong.empty()) text.replace(0, digits, number);
    return wrong;
}

}  // namespace

void read_numbers_in_decimal(CLI::App& app) {
    for (CLI::Option* const option : app.get_options()) {
        const std::string type = option->get_type_name();
        const auto first = [&](auto* check) { option->transform(CLI::Validator(check, "")); };
        if (type.find("SIZE") != std::string::npos) {
            first(check_size);
        } else if (type.starts_with("UINT")) {
            first(read_whole<std::uint64_t>);
        } else if (type.starts_with("INT")) {
            first(read_whole<std::int64_t>);
        } else if (type.starts_with("FLOAT")) {
            first(check_fraction);
        }
    }
    for (CLI::App* const inner : app.get_subcommands([](CLI::App*) { return true; })) read_numbers_in_decimal(*inner);
}

p4::result<std::vector<std::int32_t>> ids_in(std::string_view text) {
    constexpr std::string_view example = "want ids such as 1,2,3, have ";
    const auto wrong = [&](std::string_view from) {
        return p4::error::format(p4::errc::invalid_argument, "%s%s", example.data(),
                                 from.empty() ? "nothing" : p4::printable(from.substr(0, 40)).c_str());
    };
    const auto skip_blanks = [&] { text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size())); };
    std::vector<std::int32_t> ids;
    skip_blanks();
    std::string_view before = text;  // where what is being read began, for the sentence
    while (!text.empty() || ids.empty() || before.starts_with(',')) {
        std::int32_t id = 0;
        const auto [rest, failed] = std::from_chars(text.data(), text.data() + text.size(), id);
        const auto size = static_cast<std::size_t>(rest - text.data());
        if (failed != std::errc() || (size < text.size() && std::string_view(" ,\t\r\n").find(text[size]) == std::string_view::npos))
            return wrong(text.empty() || text.starts_with(',') ? before : text);
        ids.push_back(id);
        text.remove_prefix(size);
        skip_blanks();
        before = text;
        if (text.starts_with(',')) {
            text.remove_prefix(1);
            skip_blanks();
        }
    }
    return ids;
}

CLI::Option* add_tokens_option(CLI::App& command, std::vector<std::int32_t>& tokens, const std::string& what) {
    const auto read = [&tokens](const std::string& list) {
        auto ids = ids_in(list);
        if (!ids) throw CLI::ValidationError("--tokens", ids.error().message());
        tokens = std::move(*ids);
    };
    return command.add_option_function<std::string>("--tokens", read, what)->type_name("IDS");
}

}  // namespace cli
