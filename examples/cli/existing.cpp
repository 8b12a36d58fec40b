/// Looks at what is there before it is overwritten.
#include "existing.hpp"

#include <CLI/CLI.hpp>

#include <array>
#include <ranges>

namespace cli {
namespace {

bool starts_with(std::span<const std::byte> bytes, std::string_view text) {
    return bytes.size() >= text.size() && std::memcmp(bytes.data(), text.data(), text.size()) == 0;
}

/// Nothing that anybody would miss: no file, an empty one, what is written in place, or logits of ours.
bool may_be_replaced(const std::filesystem::path& path) {
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(path, ignored) ) return true;
    if (const auto in_place = p4::is_written_in_place(path); !in_place || *in_place) return true;  // the writer says what is wrong
    if (std::filesystem::file_size(path, ignored) == 0) return true;
    const auto file = p4::mapped_file::open(path);
    if (!file || file->bytes().size() < 9 || !starts_with(file->bytes().subspan(8), "{")) return false;
    const auto table = p4::safetensors::parse(file->bytes());
    return table && table->entries().size() == 1 && table->find("logits") != nullptr;
}

bool is_named_like_weights(const std::filesystem::path& path) {
    constexpr std::array endings{".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".index.json"};
    return std::ranges::any_of(endings, [name = path.filename().string()](const char* end) { return name.ends_with(end); });
}

p4::status is_there(const std::filesystem::path& path) {
    return p4::error::format(p4::errc::file_unwritable, "%s is there already: want another --output, or --force to replace it",
                             p4::printable(path).c_str());
}

}  // namespace

p4::status check_output_file(const std::filesystem::path& path, bool force) {
    if (force || may_be_replaced(path)) return {};
    return is_there(path);
}

p4::status check_not_of_model(const std::filesystem::path& path, const std::filesystem::path& model) {
    std::error_code why;
    if (!std::filesystem::is_directory(model, why) || !std::filesystem::is_regular_file(path, why)) return {};
    const auto folder = std::filesystem::canonical(path, why).parent_path();
    if (why || !std::filesystem::equivalent(folder, model, why) || path.extension() == ".gguf") return {};
    return p4::error::format(p4::errc::file_unwritable, "%s is a file of the model that is read: want another --output", p4::printable(path).c_str());
}

p4::status check_output_folder(const std::filesystem::path& folder, std::span<const char* const> names, bool force) {
    if (force) return {};
    std::error_code why;
    for (std::filesystem::directory_iterator i(folder, why), end; !why && i != end; i.increment(why))
        if (is_named_like_weights(i->path())) return is_there(i->path());
    for (const char* const name : names)
        if (std::filesystem::exists(std::filesystem::symlink_status(folder / name, why))) return is_there(folder / name);
    return {};
}

void add_force_option(CLI::App& command, bool& force) { command.add_flag("--force", force, "Replace what is there already"); }

new_files::~new_files() {
    std::error_code ignored;
    for (const auto& path : std::views::reverse(made_)) std::filesystem::remove(path, ignored);  // of folders, empty ones only
}

p4::status new_files::make_folder(const std::filesystem::path& folder) {
    std::error_code why;
    std::vector<std::filesystem::path> missing;
    for (std::filesystem::path up = folder; !up.empty() && !std::filesystem::exists(up, why); up = up.parent_path()) missing.push_back(up);
    for (const auto& path : std::views::reverse(missing)) {
        if (std::filesystem::create_directory(path, why)) made_.push_back(path);
        if (why) break;
    }
    if (!why && !std::filesystem::is_directory(folder, why) && !why) why = std::make_error_code(std::errc::not_a_directory);
    if (!why) return {};
    return p4::error::format(p4::errc::file_unwritable, "%s: cannot be written: %s", p4::printable(folder).c_str(), why.message().c_str());
}

void new_files::will_write(const std::filesystem::path& path) {
    std::error_code ignored;
    if (!std::filesystem::exists(std::filesystem::symlink_status(path, ignored))) made_.push_back(path);
}

}  // namespace cli
