#pragma once
/// The small part of tokenizer.json, all but its three long lists: decides whether the file is one that the library can follow
/// exactly. Whatever would change ids and is not supported is refused by name. `truncation` and `padding` are what somebody asked
/// of a call before the file was written: they are not looked at, as transformers sets its own for each call.
#include <phi4flash/io/file/printable.hpp>
#include <phi4flash/text/tokenizer.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

PHI4FLASH_BEGIN

namespace detail {

enum class json_kind : std::uint8_t { null, boolean, number, string, object, array };

/// A value of the file outside the three long lists, with its path: "pre_tokenizer.pretokenizers.0.pattern.Regex".
struct json_fact {
    std::string path;
    json_kind kind = json_kind::null;
    std::string text;     // string
    double number = 0.0;  // number; boolean as 0 or 1
};

/// The small part of tokenizer.json: decides whether the file is one that the library can follow exactly.
class tokenizer_settings {
public:
    static constexpr std::size_t max_facts = 2048;
    static constexpr std::size_t max_path_bytes = 1024;  // each fact keeps its own

    [[nodiscard]] status add(json_fact fact);

    /// Sets pattern and flags of the builder. Errors: unsupported_tokenizer, json_unknown_key, json_missing_key.
    [[nodiscard]] status apply(tokenizer_builder& builder) const;

private:
    [[nodiscard]] const json_fact* find(std::string_view path) const {
        const auto place = std::find_if(facts_.begin(), facts_.end(), [path](const json_fact& f) { return f.path == path; });
        return place == facts_.end() ? nullptr : &*place;
    }
    [[nodiscard]] bool given(std::string_view path) const {
        const json_fact* const f = find(path);
        return f != nullptr && f->kind != json_kind::null;
    }
    [[nodiscard]] std::string_view text_of(const std::string& path) const {
        const json_fact* const f = find(path);
        return f == nullptr ? std::string_view{} : std::string_view{f->text};
    }
    [[nodiscard]] std::string_view type_of(const std::string& path) const { return text_of(path + ".type"); }
    [[nodiscard]] bool flag(const std::string& path, bool otherwise) const {
        const json_fact* const f = find(path);
        return f == nullptr || f->kind != json_kind::boolean ? otherwise : f->number != 0.0;
    }

    [[nodiscard]] static status refuse(const char* what, std::string_view have, const char* want) {
        return error::format(errc::unsupported_tokenizer, "%s '%s' is not supported, want %s", what, printable(have).c_str(), want);
    }

    /// Only keys whose meaning is known may be there.
    [[nodiscard]] static status check_key(const json_fact& f);

    [[nodiscard]] status check_model() const;

    /// Of several forms the last one stands: the earlier ones change nothing that it sees. DeepSeek's list is empty.
    [[nodiscard]] status apply_normalizer(const std::string& path, tokenizer_builder& builder) const;

    /// The decoder joins bytes, alone or as the only step of a sequence.
    [[nodiscard]] status check_decoder(const std::string& path) const;

    /// A post-processor adds markers around whole texts, which this library leaves to the chat template.
    [[nodiscard]] status check_post_processor(const std::string& path) const;

    [[nodiscard]] status apply_pre_tokenizer(tokenizer_builder& builder) const;

    std::vector<json_fact> facts_;
};

#if PHI4FLASH_BODIES
PHI4FLASH_COLD_BODY status tokenizer_settings::add(json_fact fact) {
    if (fact.path.size() > max_path_bytes)
        return error::format(errc::json_too_large, "'%s': want a name of at most %zu bytes, have %zu", printable(fact.path).c_str(), max_path_bytes,
                             fact.path.size());
    if (find(fact.path) != nullptr) return error::format(errc::json_duplicate_key, "'%s' is given twice", printable(fact.path).c_str());
    if (facts_.size() == max_facts) return error::format(errc::json_too_large, "more than %zu settings", max_facts);
    facts_.push_back(std::move(fact));
    return {};
}

PHI4FLASH_COLD_BODY status tokenizer_settings::apply(tokenizer_builder& builder) const {
    for (const json_fact& f : facts_) {
        if (status s = check_key(f); !s) return s;
    }
    if (find("model") == nullptr) return error::format(errc::json_missing_key, "there is no 'model'");
    // Files of before 2020 have no type. Only BPE has both a vocabulary and merges, which the reader asks for.
    if (find("model.type") != nullptr && type_of("model") != "BPE") return refuse("model type", type_of("model"), "BPE");
    if (status s = check_model(); !s) return s;
    builder.normalization = normal_form::none;
    if (status s = apply_normalizer("normalizer", builder); !s) return s;
    if (status s = check_decoder("decoder"); !s) return s;
    if (status s = check_post_processor("post_processor"); !s) return s;
    const json_fact* const ignore = find("model.ignore_merges");
    builder.ignore_merges = ignore != nullptr && ignore->number != 0.0;
    return apply_pre_tokenizer(builder);
}

PHI4FLASH_COLD_BODY status tokenizer_settings::check_key(const json_fact& f) {
    constexpr std::array top{"version",       "truncation",     "padding", "normalizer",
                                    "pre_tokenizer", "post_processor", "decoder", "model"};
    constexpr std::array model{
        "type",     "dropout",       "unk_token",    "continuing_subword_prefix", "end_of_word_suffix",
        "fuse_unk", "byte_fallback", "ignore_merges"};
    std::string_view path = f.path;
    const std::string_view head = path.substr(0, path.find('.'));
    const auto is = [](std::string_view name) { return [name](const char* key) { return name == key; }; };
    bool known = std::any_of(top.begin(), top.end(), is(head));
    if (known && path.starts_with("model.")) known = std::any_of(model.begin(), model.end(), is(path.substr(6)));
    if (!known) return error::format(errc::json_unknown_key, "the key '%s' is not known", printable(f.path).c_str());
    return {};
}

PHI4FLASH_COLD_BODY status tokenizer_settings::check_model() const {
    const json_fact* const dropout = find("model.dropout");
    if (dropout != nullptr && dropout->kind != json_kind::null &&
        (dropout->kind != json_kind::number || dropout->number != 0.0))
        return error::format(errc::unsupported_tokenizer, "'model.dropout' is set, want null");
    for (const char* key : {"model.continuing_subword_prefix", "model.end_of_word_suffix"}) {
        if (given(key) && (find(key)->kind != json_kind::string || !find(key)->text.empty()))
            return error::format(errc::unsupported_tokenizer, "'%s' is set, want null or an empty string", key);
    }
    return {};
}

PHI4FLASH_COLD_BODY status tokenizer_settings::apply_normalizer(const std::string& path, tokenizer_builder& builder) const {
    if (!given(path)) return {};
    const std::string_view type = type_of(path);
    const std::string list = path + ".normalizers";
    if (type == "NFC") {
        builder.normalization = normal_form::nfc;
    } else if (type == "NFD") {
        builder.normalization = normal_form::nfd;
    } else if (type == "Sequence" && given(list)) {
        for (std::size_t i = 0; given(list + "." + std::to_string(i)); ++i) {
            if (status s = apply_normalizer(list + "." + std::to_string(i), builder); !s) return s;
        }
    } else {
        return refuse("normalizer", type, "NFC, NFD or a Sequence of these");
    }
    return {};
}

PHI4FLASH_COLD_BODY status tokenizer_settings::check_decoder(const std::string& path) const {
    if (!given(path) || type_of(path) == "ByteLevel") return {};
    const std::string list = path + ".decoders.";
    if (type_of(path) == "Sequence" && type_of(list + "0") == "ByteLevel" && !given(list + "1")) return {};
    return refuse("decoder", type_of(path), "ByteLevel");
}

PHI4FLASH_COLD_BODY status tokenizer_settings::check_post_processor(const std::string& path) const {
    if (!given(path)) return {};
    const std::string_view type = type_of(path);
    if (type == "ByteLevel" || type == "TemplateProcessing") return {};
    if (type != "Sequence") return refuse("post-processor", type, "ByteLevel, TemplateProcessing or null");
    for (std::size_t i = 0; given(path + ".processors." + std::to_string(i)); ++i) {
        const std::string_view inner = type_of(path + ".processors." + std::to_string(i));
        if (inner != "ByteLevel" && inner != "TemplateProcessing")
            return refuse("post-processor", inner, "ByteLevel or TemplateProcessing");
    }
    return {};
}

PHI4FLASH_COLD_BODY status tokenizer_settings::apply_pre_tokenizer(tokenizer_builder& builder) const {
    std::string byte_level_at = "pre_tokenizer", split_at;
    if (type_of("pre_tokenizer") == "Sequence") {
        const std::string list = "pre_tokenizer.pretokenizers.";
        std::size_t count = 0;
        while (given(list + std::to_string(count))) ++count;
        if (count == 0 || count > 2)
            return error::format(errc::unsupported_tokenizer,
                                 "a pre-tokenizer of %zu steps is not supported, want Split and ByteLevel", count);
        byte_level_at = list + std::to_string(count - 1);
        if (count == 2) split_at = list + "0";
    }
    if (type_of(byte_level_at) != "ByteLevel")
        return refuse("pre-tokenizer", type_of(byte_level_at), "ByteLevel, or Split and ByteLevel");
    if (flag(byte_level_at + ".add_prefix_space", true)) return refuse("pre-tokenizer option", "add_prefix_space", "false");
    const bool own_regex = flag(byte_level_at + ".use_regex", true);
    if (split_at.empty()) {
        if (!own_regex) return refuse("pre-tokenizer", "ByteLevel without use_regex", "a Split before it");
        builder.pattern = split_pattern::gpt2;
        return {};
    }
    if (type_of(split_at) != "Split") return refuse("pre-tokenizer", type_of(split_at), "Split");
    if (own_regex) return refuse("pre-tokenizer option", "use_regex after a Split", "false");
    // The patterns match every character, so isolating the matches and removing what lies between them are the same.
    const std::string_view behavior = text_of(split_at + ".behavior");
    if (behavior != "Isolated" && (behavior != "Removed" || !flag(split_at + ".invert", false)))
        return refuse("split behavior", behavior, "Isolated, or Removed with invert");
    const std::string_view regex = text_of(split_at + ".pattern.Regex");
    for (const split_pattern p : {split_pattern::gpt2, split_pattern::cl100k, split_pattern::qwen2, split_pattern::o200k}) {
        if (regex != regex_of(p)) continue;
        builder.pattern = p;
        return {};
    }
    return refuse("split pattern", regex, "that of GPT-2, cl100k, Qwen2 or o200k");
}
#endif

}  // namespace detail

PHI4FLASH_END
