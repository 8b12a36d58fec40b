#pragma once
/// JSON on the way in and out.
#include "output.hpp"
#include "terminal.hpp"

#include <nlohmann/json.hpp>

#include <iostream>
#include <string>

namespace cli {

using json = nlohmann::json;  // what is written; what is read is a p4::json_value

/// One line of pure ASCII. Bytes that are no UTF-8, which only a caller's own strings can bring, become U+FFFD.
inline std::string to_line(const json& value) { return value.dump(-1, ' ', true, json::error_handler_t::replace) + '\n'; }

inline bool print(const json& value) { return standard_output.write(to_line(value)); }

/// Reads standard input line by line; `work` makes one value of each, which is written at once unless the input is a file. Errors name
/// the line.
template <class Work>
p4::status for_each_line(Work&& work) {
    constexpr p4::json_limits limits{.bytes = std::size_t{1} << 30, .depth = 64};
    std::ios::sync_with_stdio(false);
    const bool live = input_is_live();
    std::string line;
    for (std::size_t number = 1; std::getline(std::cin, line); ++number) {
        const std::string place = "line " + std::to_string(number);
        if (line.find_first_not_of(" \t\r") == std::string::npos)
            return p4::error::format(p4::errc::json_syntax, "an empty line: want one JSON object a line").in(place);
        const auto value = p4::read_json(line, limits);
        if (!value) return value.error().in(place);
        if (!value->is_object())
            return p4::error::format(p4::errc::json_wrong_type, "want an object, have %s", p4::detail::describe(*value).c_str())
                .in(place);
        const p4::result<json> made = work(*value);
        if (!made) return made.error().in(place);
        if (!print(*made) || (live && !standard_output.flush())) return standard_output.state();
    }
    standard_output.flush();
    return standard_output.state();
}

/// A list of ids. Errors: json_missing_key, json_wrong_type, json_bad_number.
inline p4::result<std::vector<std::int32_t>> ids_of(const p4::json_value& object) {
    const auto place = object.find("ids");
    if (place == object.end()) return p4::error::format(p4::errc::json_missing_key, "no key 'ids': want a list of numbers");
    if (!place->is_array()) return p4::detail::wrong_type("ids", "a list of numbers", *place);
    std::vector<std::int32_t> ids;
    for (const p4::json_value& id : *place) {
        const auto number = p4::detail::whole_number(id, "ids", 0, INT32_MAX, p4::errc::json_bad_number);
        if (!number) return number.error();
        ids.push_back(static_cast<std::int32_t>(*number));
    }
    return ids;
}

/// A string. Errors: json_missing_key, json_wrong_type.
inline p4::result<std::string> string_of(const p4::json_value& object, const char* key) {
    const auto place = object.find(key);
    if (place == object.end()) return p4::error::format(p4::errc::json_missing_key, "no key '%s': want a string", key);
    if (!place->is_string()) return p4::detail::wrong_type(key, "a string", *place);
    return *place->get_ptr<const std::string*>();
}

}  // namespace cli
