/// Finds the bundled model from where the program is, as nothing else is known of an installed tree that may have been moved.
#include "bundled_model.hpp"

#include <cstdlib>
#include <filesystem>
#include <vector>

#if !defined(PHI4FLASH_CLI_DATA_FOLDER)
#define PHI4FLASH_CLI_DATA_FOLDER "share"
#endif

namespace cli {
namespace {
namespace fs = std::filesystem;
fs::path program_path;  // set once, by main

/// The program that a shell finds under a name without a folder.
fs::path on_search_path(const fs::path& name) {
#if defined(_WIN32)
    constexpr char separator = ';';
#else
    constexpr char separator = ':';
#endif
    const char* variable = std::getenv("PATH");
    for (std::string_view rest = variable == nullptr ? "" : variable; !rest.empty();) {
        const std::string_view folder = rest.substr(0, rest.find(separator));
        rest.remove_prefix(std::min(rest.size(), folder.size() + 1));
        std::error_code ignored;
        if (fs::path found = fs::path(folder) / name; fs::is_regular_file(found, ignored)) return found;
    }
    return name;
}
}  // namespace

void remember_program(const char* argv0) {
    std::error_code failed;
    program_path = fs::read_symlink("/proc/self/exe", failed);
    if (!failed || argv0 == nullptr) return;
    const fs::path name(argv0);
    program_path = fs::weakly_canonical(name.has_parent_path() ? name : on_search_path(name), failed);
}

p4::result<std::string> bundled_model() {
    const fs::path inside = fs::path("models") / "tiny-arithmetic";
    const fs::path installed = fs::path(PHI4FLASH_CLI_DATA_FOLDER) / "phi4flash";
    std::vector<fs::path> places{inside};
    fs::path up = program_path.parent_path();
    for (int level = 0; level < 5 && !up.empty(); ++level, up = up.parent_path()) {
        places.push_back(up / inside);
        places.push_back(up / installed / inside);
        if (!up.has_relative_path()) break;  // the root
    }
    std::error_code ignored;
    for (const fs::path& place : places) {
        if (fs::exists(place / "config.json", ignored)) return place.string();
    }
    return p4::error::format(p4::errc::file_not_found,
                             "no model is named, and the bundled one is neither models/tiny-arithmetic of this folder nor in %s of a "
                             "folder above the program, %s: say --model PATH",
                             p4::printable(installed / inside).c_str(), p4::printable(program_path).c_str());
}

}  // namespace cli
