#pragma once
/// How --help looks: it fits 80 columns.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <string>
#include <utility>

namespace cli {

/// CLI11's formatter with what it prints broken between words.
class help_format : public CLI::Formatter {
public:
    static constexpr std::size_t columns = 80;

    help_format() { column_width(28); }

    std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override {
        return broken(CLI::Formatter::make_help(app, std::move(name), mode));
    }

    /// Without what it excludes: the error says that.
    std::string make_option_opts(const CLI::Option* option) const override {
        const std::string text = CLI::Formatter::make_option_opts(option);
        return text.substr(0, text.find(" Excludes:"));
    }

private:
    /// Lines that are too long go on under the column of the descriptions, the usage and the like under its second word.
    [[nodiscard]] std::string broken(const std::string& text) const {
        std::string all;
        for (std::size_t begin = 0; begin < text.size();) {
            const std::size_t end = std::min(text.find('\n', begin), text.size());
            std::string line = text.substr(begin, end - begin);
            const std::size_t indent = line.starts_with(' ') ? get_column_width() : 0;
            while (line.size() > columns) {
                const std::size_t space = line.rfind(' ', columns);
                if (space == std::string::npos || space <= indent) break;
                all.append(line, 0, line.find_last_not_of(' ', space) + 1) += '\n';
                line = std::string(indent, ' ') + line.substr(space + 1);
            }
            all.append(line, 0, line.find_last_not_of(' ') + 1) += '\n';
            begin = end + 1;
        }
        return all;
    }
};

}  // namespace cli
