/// Options that want something and are given an empty text.
#include "empty_values.hpp"

#include <CLI/CLI.hpp>

#include <array>
#include <string>
#include <string_view>

namespace cli {
namespace {

struct wanted {
    std::string_view type;  // begins with this
    std::string_view what;
};
constexpr std::array all_wanted{wanted{"FILE_OR_MODEL", "a file or a folder"},
                                wanted{"FILE", "a file"},
                                wanted{"FOLDER", "a folder"},
                                wanted{"PATH", "a file or a folder"},
                                wanted{"NAME", "a name"},
                                wanted{"STRING", "at least one character"}};

}  // namespace

void refuse_empty_values(CLI::App& app) {
    for (CLI::Option* const option : app.get_options()) {
        const std::string type = option->get_type_name();
        for (const wanted& w : all_wanted) {
            if (!type.starts_with(w.type)) continue;
            const auto check = [what = w.what](const std::string& text) {
                return text.empty() ? "want " + std::string(what) + ", have an empty text" : std::string();
            };
            option->check(CLI::Validator(check, ""));
            break;
        }
    }
    for (CLI::App* const inner : app.get_subcommands([](CLI::App*) { return true; })) refuse_empty_values(*inner);
}

}  // namespace cli
