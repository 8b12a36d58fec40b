#pragma once
/// generation_config.json of a Hugging Face folder: how its texts begin, are chosen and end. io/huggingface/config_keys.hpp lists the keys.
#include <phi4flash/io/huggingface/config_keys.hpp>
#include <phi4flash/io/huggingface/config_reader.hpp>
#include <phi4flash/model/generation_config.hpp>

#if PHI4FLASH_HAS_JSON
#include <string_view>

PHI4FLASH_BEGIN

namespace detail {
PHI4FLASH_BODY void read_stop_ids(config_reader& in, generation_config& config);

[[nodiscard]] PHI4FLASH_BODY result<generation_config> read_generation(const json_value& document);

/// Whether a key asks for something that is not done.
[[nodiscard]] inline bool is_unsupported(const config_key& key, const json_value& value) {
    return key.rule == key_rule::wants && !asks_for_nothing(value) && !is_wanted(value, key.want);
}

}  // namespace detail

/// What `text`, a generation_config.json, says. What it asks for beyond that is named in `unsupported`. Errors, each naming the
/// key: json_*, file_incomplete (JSON that ends too early), not_finite; out_of_memory.
[[nodiscard]] PHI4FLASH_BODY result<generation_config> read_generation_config(std::string_view text);

/// The same of a config.json, for folders without the other file. Older programs wrote every setting there, with the values that
/// their classes begin with: those say nothing. Errors: the same. @since 0.2
[[nodiscard]] PHI4FLASH_BODY result<generation_config> read_generation_of_hf_config(std::string_view text);

#if PHI4FLASH_BODIES
namespace detail {

PHI4FLASH_COLD_BODY void read_stop_ids(config_reader& in, generation_config& config) {
    constexpr const char* key = "eos_token_id";
    const json_value* const ids = in.find(key);
    if (ids == nullptr) return;
    const auto take = [&](const json_value& id) {
        if (const auto n = in.count_of(key, id)) config.stop_ids.push_back(*n);
    };
    if (!ids->is_array()) return take(*ids);
    for (const json_value& id : *ids) take(id);
}

PHI4FLASH_COLD_BODY result<generation_config> read_generation(const json_value& document) {
    config_reader in(document);
    generation_config config;
    read_stop_ids(in, config);
    in.strings("stop_strings", [&](const std::string& text) { config.stop_strings.push_back(text); });
    config.bos_id = in.idle_id("bos_token_id");
    config.pad_id = in.idle_id("pad_token_id");
    config.do_sample = in.boolean("do_sample");
    config.temperature = in.number("temperature");
    config.top_p = in.number("top_p");
    config.min_p = in.number("min_p");
    config.repetition_penalty = in.number("repetition_penalty");
    config.top_k = in.count("top_k", 0);  // -1 keeps all of them, as 0 does
    config.max_new_tokens = in.count("max_new_tokens");
    if (!in.outcome()) return in.outcome().error();
    return config;
}

}  // namespace detail

PHI4FLASH_COLD_BODY result<generation_config> read_generation_config(std::string_view text) {
    return detail::or_out_of_memory("read a generation_config.json", [&]() -> result<generation_config> {
        const auto document = detail::read_config_object(text);
        if (!document) return document.error();
        auto config = detail::read_generation(*document);
        if (!config) return config;
        for (auto item = document->begin(); item != document->end(); ++item) {
            if (detail::is_private_key(item.key()) || detail::asks_for_nothing(item.value())) continue;
            const detail::config_key* const key = detail::find_key(detail::generation_keys, item.key());
            if (key == nullptr || detail::is_unsupported(*key, item.value())) config->unsupported.push_back(item.key());
        }
        return config;
    });
}

PHI4FLASH_COLD_BODY result<generation_config> read_generation_of_hf_config(std::string_view text) {
    return detail::or_out_of_memory("read a config.json", [&]() -> result<generation_config> {
        const auto document = detail::read_config_object(text);
        if (!document) return document.error();
        auto config = detail::read_generation(*document);
        if (!config) return config;
        if (config->do_sample == false) config->do_sample.reset();
        if (config->temperature == 1.0f) config->temperature.reset();
        if (config->top_p == 1.0f) config->top_p.reset();
        if (config->top_k == 50u) config->top_k.reset();
        for (const detail::config_key& key : detail::generation_keys) {
            const auto value = document->find(key.name);
            if (value != document->end() && detail::is_unsupported(key, *value)) config->unsupported.emplace_back(key.name);
        }
        return config;
    });
}
#endif

PHI4FLASH_END
#endif  // PHI4FLASH_HAS_JSON
