#pragma once
/// What a file is, by its first bytes, where it is not what was wanted: people have pointers of Git LFS, web pages that say "not found",
/// archives and PyTorch files under the names of models. One sentence for each, which says what to do.
/// @since 0.2
#include <phi4flash/core/result.hpp>
#include <phi4flash/io/file/printable.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#if PHI4FLASH_FILES
#include <filesystem>
#endif

PHI4FLASH_BEGIN

/// What a file is by its first bytes; `unknown` where nothing is recognized.
enum class file_kind : std::uint8_t { unknown, safetensors, gguf, json, lfs_pointer, web_page, pytorch, archive, text };

/// The kind of a file that begins with these bytes; a few hundred suffice.
[[nodiscard]] PHI4FLASH_BODY file_kind identify(std::span<const std::byte> bytes);

namespace detail {
/// What is wrong with a file of a kind that is never a model's, and what to do; nullptr for the others.
[[nodiscard]] PHI4FLASH_BODY const char* explain_kind(file_kind kind);

/// What sentences call a file of the host's in memory: its name, or its number where it has none.
[[nodiscard]] PHI4FLASH_BODY printable name_in_memory(std::string_view name, std::size_t number);
[[nodiscard]] inline printable name_in_memory(std::span<const std::string_view> names, std::size_t i) {
    return name_in_memory(i < names.size() ? names[i] : std::string_view(), i);
}

/// The sentence for bytes that are not `wanted` but something else that is known; nothing where they are what was wanted, or cannot be told.
/// Codes: wrong_file_kind; file_incomplete for zeros, which a download takes room with.
[[nodiscard]] PHI4FLASH_BODY std::optional<error> explain_bytes(const printable& name, std::span<const std::byte> bytes, file_kind wanted);
}  // namespace detail

#if PHI4FLASH_FILES
namespace detail {

[[nodiscard]] PHI4FLASH_BODY bool is_unfinished_name(const std::filesystem::path& path);

/// The folder that a file is in, to be named.
[[nodiscard]] inline printable folder_of(const std::filesystem::path& file) {
    return printable(file.has_parent_path() ? file.parent_path() : std::filesystem::path("."));
}

/// As explain_bytes, of a file, which lies in a folder and may have a name that tells more. Codes: wrong_file_kind, file_incomplete.
[[nodiscard]] PHI4FLASH_BODY std::optional<error> explain_file(const std::filesystem::path& path, std::span<const std::byte> bytes, file_kind wanted);

}  // namespace detail
#endif

#if PHI4FLASH_BODIES
namespace detail {

PHI4FLASH_COLD_BODY const char* explain_kind(file_kind kind) {
    switch (kind) {
        case file_kind::lfs_pointer:
            return "a Git LFS pointer, not the file that it stands for: run 'git lfs pull' where it came from, or download with 'hf download'";
        case file_kind::web_page: return "a web page, not the file that it should be: download it again, with 'hf download'";
        case file_kind::pytorch:
            return "a PyTorch file: save the model as safetensors, with save_pretrained() of transformers, and use that";
        case file_kind::archive: return "an archive: unpack it, and use the folder or the .gguf file in it";
        default: return nullptr;
    }
}

/// Safetensors begin with a number of eight bytes, the first of which may look like anything.
[[nodiscard]] inline bool is_too_short_to_tell(std::span<const std::byte> bytes, file_kind wanted) {
    return wanted == file_kind::safetensors && bytes.size() < 8;
}

[[nodiscard]] inline bool begins_with_zeros(std::span<const std::byte> bytes) {
    constexpr std::size_t enough = 8;  // no file of a model begins with so many
    return bytes.size() >= enough && std::all_of(bytes.begin(), bytes.begin() + enough, [](std::byte b) { return b == std::byte{0}; });
}

PHI4FLASH_COLD_BODY printable name_in_memory(std::string_view name, std::size_t number) {
    if (!name.empty()) return printable::name_of_file(name);
    char text[32] = {};
    print(text, sizeof text, "file %zu", number);
    return printable(std::string_view(text));
}

PHI4FLASH_COLD_BODY std::optional<error> explain_bytes(const printable& name, std::span<const std::byte> bytes, file_kind wanted) {
    const file_kind have = identify(bytes);
    if (have == wanted || is_too_short_to_tell(bytes, wanted)) return std::nullopt;
    const auto is = [&](const char* what) { return error::format(errc::wrong_file_kind, "%s: %s", name.c_str(), what); };
    if (have == file_kind::unknown && begins_with_zeros(bytes))
        return error::format(errc::file_incomplete, "%s: it begins with zeros: a download that is not finished?", name.c_str());
    if (have == file_kind::unknown) return std::nullopt;
    if (const char* const known = explain_kind(have); known != nullptr) return is(known);
    const bool weights = wanted == file_kind::safetensors;
    if (have == file_kind::gguf) return is("a GGUF file: give it itself as the model, alone");
    if (have == file_kind::safetensors) return is("a safetensors file, not JSON");
    if (have == file_kind::json && weights) return is("a JSON file, not weights");
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), std::min<std::size_t>(bytes.size(), 40));
    return error::format(errc::wrong_file_kind, "%s: a text that begins '%s': not %s", name.c_str(), printable(text).c_str(),
                         wanted == file_kind::gguf ? "a GGUF file"
                         : weights                 ? "weights"
                                                   : "a JSON object");
}

#if PHI4FLASH_FILES
PHI4FLASH_COLD_BODY bool is_unfinished_name(const std::filesystem::path& path) {
    const std::string extension = to_utf8(path.extension());
    for (const char* const known : {".incomplete", ".part", ".partial", ".crdownload", ".download", ".aria2"})
        if (extension == known) return true;
    return false;
}

PHI4FLASH_COLD_BODY std::optional<error> explain_file(const std::filesystem::path& path, std::span<const std::byte> bytes, file_kind wanted) {
    const printable name(path);
    const file_kind have = identify(bytes);
    if (have != wanted && is_unfinished_name(path))
        return error::format(errc::file_incomplete, "%s: a download that is not finished: go on with it, then use what it makes", name.c_str());
    if (have == wanted || is_too_short_to_tell(bytes, wanted)) return std::nullopt;
    if (have == file_kind::safetensors)
        return error::format(errc::wrong_file_kind, "%s: a safetensors file; give the folder it is in, with config.json beside it: %s", name.c_str(),
                             folder_of(path).c_str());
    if (have == file_kind::json && wanted != file_kind::safetensors)
        return error::format(errc::wrong_file_kind, "%s: a JSON file; to use the model it belongs to, give the folder it is in: %s", name.c_str(),
                             folder_of(path).c_str());
    return explain_bytes(name, bytes, wanted);
}
#endif

}  // namespace detail

PHI4FLASH_COLD_BODY file_kind identify(std::span<const std::byte> bytes) {
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), std::min<std::size_t>(bytes.size(), 512));
    const auto has = [&](std::string_view what, std::size_t at = 0) { return text.size() > at && text.substr(at).starts_with(what); };
    using namespace std::string_view_literals;
    // A header is shorter than 100 MB, so its length has zeros above the lowest 27 bits; nothing may be left of the rest.
    const bool begins_header = has("\0\0\0\0{"sv, 4) || text.substr((std::min)(text.size(), std::size_t{4})) == "\0\0\0\0"sv;
    if (begins_header && static_cast<unsigned char>(text[3]) < 8 && !text.starts_with("\0\0\0\0"sv)) return file_kind::safetensors;
    if (has("GGUF") || (!text.empty() && "GGUF"sv.starts_with(text))) return file_kind::gguf;  // the second: as far as it was downloaded
    if (has("version https://git-lfs.github.com/") || has("version https://hawser.github.com/")) return file_kind::lfs_pointer;
    if (has("PK\x03\x04"sv)) return text.find("data.pkl") != std::string_view::npos ? file_kind::pytorch : file_kind::archive;
    if (has("\x80\x02\x8a\x0al\xfc\x9c"sv)) return file_kind::pytorch;
    for (const std::string_view magic : {"\x1f\x8b"sv, "\x28\xb5\x2f\xfd"sv, "\xfd\x37zXZ"sv, "BZh"sv, "7z\xbc\xaf"sv, "Rar!"sv})
        if (has(magic)) return file_kind::archive;
    if (has("ustar", 257)) return file_kind::archive;

    const std::string_view words = text.substr((std::min)(text.find_first_not_of(" \t\r\n"), text.size()));
    if (words.empty()) return file_kind::unknown;
    if (words.front() == '{' || words.front() == '[') return file_kind::json;
    constexpr std::string_view pages[] = {"<!doctype", "<html", "<?xml"};
    for (const std::string_view page : pages) {
        const auto same = [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; };
        if (words.size() >= page.size() && std::equal(page.begin(), page.end(), words.begin(), [&](char b, char a) { return same(a, b); }))
            return file_kind::web_page;
    }
    const auto printed = [](char c) { return (c >= ' ' && c <= '~') || c == '\n' || c == '\r' || c == '\t'; };
    const std::string_view start = text.substr(0, 64);
    return std::all_of(start.begin(), start.end(), printed) ? file_kind::text : file_kind::unknown;
}
#endif

PHI4FLASH_END
