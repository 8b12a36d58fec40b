#pragma once
/// model.safetensors.index.json: which shard of a checkpoint holds which tensor.
#include <phi4flash/core/sort_once.hpp>
#include <phi4flash/io/json/json.hpp>

#if PHI4FLASH_HAS_JSON
#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

PHI4FLASH_BEGIN

/// Limits of the index; the released one has 35 KiB.
PHI4FLASH_OWN_DATA inline constexpr json_limits checkpoint_index_limits{.bytes = std::size_t{4} << 20, .depth = 16};

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

/// Errors: json_* (a tensor named twice is json_duplicate_key), file_incomplete (JSON that ends too early), path_outside_folder, index_mismatch (no
/// tensor at all), out_of_memory.
[[nodiscard]] PHI4FLASH_BODY result<checkpoint_index> read_checkpoint_index(std::string_view text);

#if PHI4FLASH_BODIES
namespace detail {
/// Keeps the map, and nothing of what else there is.
class checkpoint_index_events : public json_events {
public:
    checkpoint_index_events() : json_events(checkpoint_index_limits) {}

    struct placed {
        std::string tensor, shard;
    };
    std::vector<placed> map;
    bool has_map = false;

    bool null() { return value("null"); }
    bool boolean(bool) { return value("a boolean"); }
    bool number_integer(std::int64_t) { return value("a number"); }
    bool number_unsigned(std::uint64_t) { return value("a number"); }
    bool number_float(double, const std::string&) { return value("a number"); }
    bool string(std::string& text) {
        if (!inside_ || depth_ != 2) return value("a string");
        if (!is_plain_file_name(text))
            return fail(error::format(errc::path_outside_folder, "tensor '%s': want a file in the same folder, have '%s'", printable(key_).c_str(),
                                      printable::name_of_file(text).c_str()));
        map.push_back({std::move(key_), std::move(text)});
        return true;
    }
    bool start_object(std::size_t n) {
        inside_ = inside_ || (depth_ == 1 && key_ == "weight_map");
        has_map = has_map || inside_;
        if (depth_ != 0 && !(inside_ && depth_ == 1) && !value("an object")) return false;
        ++depth_;
        return json_events::start_object(n);
    }
    bool end_object() {
        --depth_;
        inside_ = inside_ && depth_ > 1;
        return json_events::end_object();
    }
    bool start_array(std::size_t n) {
        if (!value("a list")) return false;
        ++depth_;
        return json_events::start_array(n);
    }
    bool end_array() {
        --depth_;
        return json_events::end_array();
    }
    bool key(std::string& name) {
        if (!json_events::key(name)) return false;
        if (depth_ == 1 || inside_) key_ = name;
        return true;
    }

private:
    /// Where it may not be.
    bool value(const char* have) {
        if (depth_ == 0) return fail(error::format(errc::json_wrong_type, "the index: want an object, have %s", have));
        if (depth_ == 1 && key_ == "weight_map") return fail(error::format(errc::json_wrong_type, "'weight_map': want an object, have %s", have));
        if (inside_)
            return fail(error::format(errc::json_wrong_type, "'%s': want the name of a file, have %s", printable(key_).c_str(), have));
        return true;
    }

    std::string key_;
    std::size_t depth_ = 0;
    bool inside_ = false;  // of the map
};
}  // namespace detail

PHI4FLASH_COLD_BODY result<checkpoint_index> read_checkpoint_index(std::string_view text) {
    return detail::or_out_of_memory("read the index of a checkpoint", [&]() -> result<checkpoint_index> {
        detail::checkpoint_index_events read;
        if (const status ok = read_json_events(text, checkpoint_index_limits, read); !ok) return ok.error();
        if (!read.has_map) return error::format(errc::json_missing_key, "no key 'weight_map'");
        if (read.map.empty()) return error::format(errc::index_mismatch, "'weight_map' names no tensor");

        checkpoint_index index;
        for (const auto& entry : read.map) index.shards.push_back(entry.shard);
        detail::sort_once(index.shards);
        index.shards.erase(std::unique(index.shards.begin(), index.shards.end()), index.shards.end());
        for (auto& entry : read.map) {
            const auto place = std::lower_bound(index.shards.begin(), index.shards.end(), entry.shard);
            index.entries.push_back({std::move(entry.tensor), static_cast<std::size_t>(place - index.shards.begin())});
        }
        detail::sort_once(index.entries, [](const checkpoint_index::entry& a, const checkpoint_index::entry& b) { return a.tensor < b.tensor; });
        return index;
    });
}
#endif

PHI4FLASH_END
#endif  // PHI4FLASH_HAS_JSON
