#pragma once
/// What a folder holds that is not a model, or not yet: the sentences that say which file is missing, and what to give or do instead.
#include <phi4flash/core/sort_once.hpp>
#include <phi4flash/core/span_of.hpp>
#include <phi4flash/io/file/file_kind.hpp>
#include <phi4flash/io/file/read_file.hpp>

#if PHI4FLASH_FILES
#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#if !defined(_WIN32)
#include <dirent.h>
#endif

PHI4FLASH_BEGIN

namespace detail {

/// The sentence for a path at which there is nothing: a link whose target is gone, the name of a model at the hub, or a plain mistake.
[[nodiscard]] PHI4FLASH_BODY error nothing_there(const std::filesystem::path& path);

inline constexpr std::size_t most_entries = 10000;  // looked at in a folder

#if defined(_WIN32)
/// Calls `visit(name)` for what a folder holds, in UTF-8, until it returns false.
template <class Visit>
void each_name(const std::filesystem::path& folder, Visit&& visit) {
    std::error_code failed;
    std::filesystem::directory_iterator entry(folder, failed);
    for (; !failed && entry != std::filesystem::directory_iterator(); entry.increment(failed))
        if (!visit(std::string_view(to_utf8(entry->path().filename())))) return;
}
#else
struct close_folder {
    void operator()(DIR* d) const { (void)::closedir(d); }
};
/// Calls `visit(name)` for what a folder holds until it returns false. Not by std::filesystem::directory_iterator: libstdc++'s ends the
/// program where there is no memory for a name.
template <class Visit>
void each_name(const std::filesystem::path& folder, Visit&& visit) {
    const std::unique_ptr<DIR, close_folder> open(::opendir(folder.c_str()));
#if defined(__GLIBC__) && defined(__USE_LARGEFILE64)  // for 32 bits readdir gives up where a place in the folder has 64
    const auto next = [&] { return ::readdir64(open.get()); };
#else
    const auto next = [&] { return ::readdir(open.get()); };
#endif
    while (const auto* const entry = open ? next() : nullptr) {
        const std::string_view name(entry->d_name);
        if (name != "." && name != ".." && !visit(name)) return;
    }
}
#endif

/// Names in a folder that `wanted` accepts, sorted.
template <class Wanted>
[[nodiscard]] std::vector<std::string> names_in(const std::filesystem::path& folder, Wanted&& wanted) {
    std::vector<std::string> names;
    std::size_t looked_at = 0;
    each_name(folder, [&](std::string_view name) {
        if (wanted(name)) names.emplace_back(name);
        return ++looked_at < most_entries;
    });
    detail::sort_once(names);
    return names;
}

[[nodiscard]] inline std::vector<std::string> names_ending(const std::filesystem::path& folder, std::initializer_list<std::string_view> ends) {
    return names_in(folder, [&](std::string_view name) {
        return std::any_of(ends.begin(), ends.end(), [&](std::string_view end) { return name.ends_with(end); });
    });
}

[[nodiscard]] inline bool has_config(const std::filesystem::path& folder) {
    std::error_code failed;
    return std::filesystem::exists(folder / "config.json", failed);
}

/// A folder with config.json up to two below: in a cache of the hub, models--owner--name/snapshots/<hash>. Empty: there is none.
[[nodiscard]] PHI4FLASH_BODY std::filesystem::path folder_below(const std::filesystem::path& folder);

/// Whether a download into this folder was begun and not finished.
[[nodiscard]] inline bool is_unfinished(const std::filesystem::path& folder) {
    const std::initializer_list<std::string_view> ends{".incomplete"};
    return !names_ending(folder, ends).empty() || !names_ending(folder / ".cache" / "huggingface" / "download", ends).empty() ||
           !names_ending(folder / ".." / ".." / "blobs", ends).empty();
}

/// The text of a JSON file. Errors: those of read_file; wrong_file_kind, file_incomplete.
[[nodiscard]] PHI4FLASH_BODY result<std::string> read_json_text(const std::filesystem::path& path, std::size_t max_bytes);

/// The sentence for a folder without config.json.
[[nodiscard]] PHI4FLASH_BODY error explain_no_config(const std::filesystem::path& folder);

/// The sentence for a folder with config.json and no weights under the usual names.
[[nodiscard]] PHI4FLASH_BODY error explain_no_weights(const std::filesystem::path& folder);

/// The sentence for a shard that the index names and the folder does not have.
[[nodiscard]] PHI4FLASH_BODY error explain_no_shard(const std::filesystem::path& folder, const std::string& name);

/// The sentence for a file that was given as the folder of a model. `why`: what the system says against the path, or nothing.
[[nodiscard]] PHI4FLASH_BODY error explain_no_folder(const std::filesystem::path& path, const std::error_code& why);

#if PHI4FLASH_BODIES
PHI4FLASH_COLD_BODY error nothing_there(const std::filesystem::path& path) {
    if (path.empty()) return error::format(errc::invalid_argument, "path: want the folder or the file of a model, have nothing");
    std::error_code failed;
    const printable name(path);
    if (const auto link = explain_link(path)) return *link;
    const std::string text = to_utf8(path);
    if (text.starts_with("~/"))
        return error::format(errc::file_not_found, "%s: there is no such folder or file: '~' means the home folder to shells alone",
                             name.c_str());
    const std::size_t slash = text.find('/');
    const bool plain = slash != std::string::npos && slash != 0 && text.find('/', slash + 1) == std::string::npos && slash + 1 < text.size();
    if (plain && text.front() != '.' && !std::filesystem::exists(path.parent_path(), failed))
        return error::format(errc::file_not_found,
                             "%s: there is no such folder or file. A model of that name at the hub? 'hf download %s --local-dir FOLDER' "
                             "brings it, and FOLDER is what to give",
                             name.c_str(), name.c_str());
    return error::format(errc::file_not_found, "%s: there is no such folder or file", name.c_str());
}

PHI4FLASH_COLD_BODY std::filesystem::path folder_below(const std::filesystem::path& folder) {
    const auto any = [](std::string_view name) { return !name.starts_with("."); };
    std::vector<std::filesystem::path> places;
    for (const auto& below : {folder, folder / "snapshots"})
        for (const std::string& name : names_in(below, any)) places.push_back(below / from_utf8(name));
    for (const auto& place : places)
        if (has_config(place)) return place;
    for (const auto& place : places)
        for (const std::string& name : names_in(place / "snapshots", any))
            if (auto last = place / "snapshots" / from_utf8(name); has_config(last)) return last;
    return {};
}

PHI4FLASH_COLD_BODY result<std::string> read_json_text(const std::filesystem::path& path, std::size_t max_bytes) {
    auto text = read_file(path, max_bytes);
    if (!text) return text;
    if (const auto other = explain_file(path, detail::bytes_of_text(*text), file_kind::json)) return *other;
    return text;
}

PHI4FLASH_COLD_BODY error explain_no_config(const std::filesystem::path& folder) {
    const printable name(folder);
    if (const auto link = explain_link(folder / "config.json")) return *link;
    if (const auto below = folder_below(folder); !below.empty())
        return error::format(errc::file_not_found, "%s: no config.json here, but in a folder below, which is the one to give: %s", name.c_str(),
                             printable(below).c_str());
    if (const auto packed = names_ending(folder, {".gguf"}); !packed.empty())
        return error::format(errc::file_not_found, "%s: no config.json here; to use %s, give that file itself", name.c_str(),
                             printable::name_of_file(packed.front()).c_str());
    if (is_unfinished(folder))
        return error::format(errc::file_incomplete, "%s: no config.json here: a download that is not finished: run 'hf download' again",
                             name.c_str());
    return error::format(errc::file_not_found, "%s: no config.json here: want the folder of a model, with config.json and model.safetensors",
                         name.c_str());
}

PHI4FLASH_COLD_BODY error explain_no_weights(const std::filesystem::path& folder) {
    const printable name(folder);
    const auto say = [&](errc code, const char* pattern, const std::string& file) {
        return error::format(code, pattern, name.c_str(), printable::name_of_file(file).c_str());
    };
    if (is_unfinished(folder))
        return error::format(errc::file_incomplete, "%s: no weights yet: a download that is not finished: run 'hf download' again", name.c_str());
    const auto tables = names_ending(folder, {".safetensors"});
    for (const std::string& file : tables) {
        if (file.starts_with("adapter_"))
            return say(errc::file_not_found, "%s: %s is an adapter: merge it into its model first (merge_and_unload() of peft) and save that", file);
        if (file.find("-of-") != std::string::npos)
            return say(errc::file_not_found,
                       "%s: shards such as %s, but no model.safetensors.index.json, which says what is in which: download it too", file);
    }
    if (!tables.empty()) return say(errc::file_not_found, "%s: want model.safetensors, have %s: rename it if these are the weights", tables.front());
    if (const auto torch = names_ending(folder, {".bin", ".pt", ".pth", ".ckpt"}); !torch.empty())
        return say(errc::wrong_file_kind,
                   "%s: the weights are PyTorch files (%s): save the model as safetensors, with save_pretrained() of transformers", torch.front());
    if (const auto packed = names_ending(folder, {".gguf"}); !packed.empty())
        return say(errc::wrong_file_kind, "%s: no safetensors here; to use %s, give that file itself", packed.front());
    if (const auto other = names_ending(folder, {".h5", ".msgpack", ".onnx", ".npz", ".keras"}); !other.empty())
        return say(errc::wrong_file_kind, "%s: want model.safetensors, have weights in another format: %s", other.front());
    return error::format(errc::file_not_found, "%s: want model.safetensors or model.safetensors.index.json, have neither", name.c_str());
}

PHI4FLASH_COLD_BODY error explain_no_shard(const std::filesystem::path& folder, const std::string& name) {
    if (const auto link = explain_link(folder / from_utf8(name))) return *link;
    return error::format(errc::file_incomplete,
                         "%s: want %s, which the index names, and it is not there: a download that is not finished? Run 'hf download' again",
                         printable(folder).c_str(), printable::name_of_file(name).c_str());
}

PHI4FLASH_COLD_BODY error explain_no_folder(const std::filesystem::path& path, const std::error_code& why) {
    constexpr std::size_t enough = 512;  // for identify
    if (const auto start = read_text(path, enough, false))
        if (const auto other = explain_file(path, detail::bytes_of_text(*start), file_kind::unknown)) return *other;
    return error::format(errc::file_unreadable, "%s: want a folder with config.json and model.safetensors%s%s", printable(path).c_str(),
                         why ? ": " : "", why ? why.message().c_str() : "");
}
#endif

}  // namespace detail

PHI4FLASH_END
#endif  // PHI4FLASH_FILES
