#pragma once
/// Numbers for people, and rows of them.
#include "output.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cli {

/// printf into a string.
template <class... Arguments>
std::string text_of(const char* pattern, const Arguments&... arguments) {
    char text[256] = {};
    std::snprintf(text, sizeof text, pattern, arguments...);
    return text;
}

namespace detail {
inline std::string scaled(double n, const char* const (&units)[4]) {
    std::size_t unit = 0;
    for (; n >= 999.5 && unit + 1 < std::size(units); ++unit) n /= 1000.0;
    return text_of("%.*f %s", unit == 0 || n >= 99.95 ? 0 : n >= 9.995 ? 1 : 2, n, units[unit]);
}
}  // namespace detail

/// 7706608640 -> "7.71 GB".
inline std::string human_bytes(double bytes) { return detail::scaled(bytes, {"B", "kB", "MB", "GB"}); }

/// 3852562944 -> "3.85 billion".
inline std::string human_count(std::uint64_t n) {
    std::string text = detail::scaled(static_cast<double>(n), {"", "thousand", "million", "billion"});
    if (text.back() == ' ') text.pop_back();
    return text;
}

/// Rows "name  value", names aligned to the left, under headings.
class text_table {
public:
    void heading(std::string_view name) { rows_.push_back({std::string(name), {}, true}); }
    void row(std::string name, std::string value) { rows_.push_back({std::move(name), std::move(value), false}); }

    void print() const {
        std::size_t width = 0;
        for (const line& r : rows_) width = std::max(width, r.heading ? 0 : r.name.size());
        for (const line& r : rows_) {
            if (r.heading) {
                standard_output.print("%s%s\n", &r == rows_.data() ? "" : "\n", r.name.c_str());
            } else {
                standard_output.print("  %-*s  %s\n", static_cast<int>(width), r.name.c_str(), r.value.c_str());
            }
        }
    }

private:
    struct line {
        std::string name;
        std::string value;
        bool heading;
    };
    std::vector<line> rows_;
};

/// Columns with a heading; the first is aligned to the left, all others to the right. Short rows end early.
class grid {
public:
    explicit grid(std::vector<std::string> heading) : rows_{std::move(heading)} {}
    void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }

    void print() const {
        std::vector<std::size_t> widths;
        for (const auto& row : rows_) {
            widths.resize(std::max(widths.size(), row.size()));
            for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
        }
        for (const auto& row : rows_) {
            std::string line = "  ";
            for (std::size_t c = 0; c < row.size(); ++c) {
                const std::string gap(widths[c] - row[c].size(), ' ');
                line += c == 0 ? row[c] + gap : "  " + gap + row[c];
            }
            standard_output.print("%s\n", line.c_str());
        }
    }

private:
    std::vector<std::vector<std::string>> rows_;
};

}  // namespace cli
