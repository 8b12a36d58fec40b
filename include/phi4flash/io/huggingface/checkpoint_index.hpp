#pragma once
/// model.safetensors.index.json: which shard of a checkpoint holds which tensor.
#include <phi4flash/core/sort_once.hpp>
#include <phi4flash/io/json/json.hpp>

#if PHI4FLASH_HAS_JSON
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

PHI4FLASH_BEGIN

/// Limits of the index; the released one has 35 KiB.
PHI4FLASH_OWN_DATA inline constexpr json_limits checkpoint_index_limits{.bytes = std::size_t{64} << 20, .depth = 16};

/// The index, checked: every shard is the name of a file in the folder itself.
struct checkpoint_index {
    /// A tensor, and the file in the folder that holds it.
    struct entry {
        std::string tensor;
        std::size_t shard;  ///< index into `shards`
    };
    std::vector<std::string> shards;  ///< file names, sorted, each once
    std::vector<entry> entries;       ///< sorted by tensor
};

/// Whether `name` can only mean a file in the folder it is joined to, on POSIX and on Windows.
[[nodiscard]] constexpr bool is_plain_file_name(std::string_view name) {
    if (name.empty() || name == "." || name == "..") return false;
    for (const char c : name)
        if (c == '/' || c == '\\' || c == ':' || static_cast<unsigned char>(c) < 0x20) return false;
    return true;
}

/// Errors: json_* (a tensor named twice is json_duplicate_key), path_outside_folder, index_mismatch (no tensor at all), out_of_memory.
[[nodiscard]] PHI4FLASH_BODY result<checkpoint_index> read_checkpoint_index(std::string_view text);

#if PHI4FLASH_BODIES
PHI4FLASH_COLD_BODY result<checkpoint_index> read_checkpoint_index(std::string_view text) {
    return detail::or_out_of_memory("read the index of a checkpoint", [&]() -> result<checkpoint_index> {
        const auto document = read_json(text, checkpoint_index_limits);
        if (!document) return document.error();
        if (!document->is_object()) return detail::wrong_type("the index", "an object", *document);
        const json_value* const map = detail::member(*document, "weight_map");
        if (map == nullptr) return error::format(errc::json_missing_key, "no key 'weight_map'");
        if (!map->is_object()) return detail::wrong_type("weight_map", "an object", *map);
        if (map->empty()) return error::format(errc::index_mismatch, "'weight_map' names no tensor");

        checkpoint_index index;
        for (auto it = map->begin(); it != map->end(); ++it) {  // nlohmann's objects are sorted by key
            const auto* const file = it.value().get_ptr<const std::string*>();
            if (file == nullptr) return detail::wrong_type(printable(it.key()).c_str(), "the name of a file", it.value());
            if (!is_plain_file_name(*file))
                return error::format(errc::path_outside_folder, "tensor '%s': want a file in the same folder, have '%s'",
                                     printable(it.key()).c_str(), printable::name_of_file(*file).c_str());
            index.shards.push_back(*file);
        }
        detail::sort_once(index.shards);
        index.shards.erase(std::unique(index.shards.begin(), index.shards.end()), index.shards.end());
        for (auto it = map->begin(); it != map->end(); ++it) {
            const auto place = std::lower_bound(index.shards.begin(), index.shards.end(), *it.value().get_ptr<const std::string*>());
            index.entries.push_back({it.key(), static_cast<std::size_t>(place - index.shards.begin())});
        }
        return index;
    });
}
#endif

PHI4FLASH_END
#endif  // PHI4FLASH_HAS_JSON
