#pragma once
/// The tokenizer inside a packed model file, in two forms: as strings under the customary keys, for other programs, and as the
/// finished tables of text/, which are read back in milliseconds. Files without the tables are read by their strings.
#include <phi4flash/core/span_of.hpp>
#include <phi4flash/io/packed/model.hpp>
#include <phi4flash/text/byte_level.hpp>
#include <phi4flash/text/tokenizer.hpp>

#include <string>
#include <utility>
#include <vector>

PHI4FLASH_BEGIN

/// A table of whole numbers to be stored as the tensor `phi4flash.tokenizer.NAME`.
struct packed_array {
    std::string name;
    ggml_type type = ggml_type::i8;   ///< i8, i16, i32 or i64
    std::span<const std::byte> data;  ///< whole elements; must live until the file is written

    template <class T>
    static packed_array of(std::string_view name, std::span<const T> numbers) {
        return {std::string(name), ggml_table_type<T>(), std::as_bytes(numbers)};
    }
};

/// What is written of a tokenizer.
struct packed_tokenizer {
    std::string pre;      ///< tokenizer.ggml.pre: what others call the split pattern
    std::string pattern;  ///< the split pattern itself, after what is done to the text before
    bool ignore_merges = false;
    std::vector<std::string> tokens;  ///< as byte-level text, for tokenizer.ggml.tokens
    std::vector<std::int32_t> types;  ///< 1 normal, 3 special, 4 added, 5 unused
    std::vector<std::string> merges;  ///< "left right"
    std::vector<std::uint32_t> added_ids;
    std::vector<std::uint8_t> added_flags;  ///< bits: special, lstrip, rstrip, normalized
    std::vector<char> added_bytes;
    std::vector<std::uint32_t> added_begins;  ///< [added + 1]
    std::vector<packed_array> tables;         ///< the tokenizer's own, in place

    /// All tables; points into this object and the tokenizer. Errors: out_of_memory.
    [[nodiscard]] result<std::vector<packed_array>> arrays() const;
};

namespace detail {
inline constexpr std::uint8_t added_special = 1, added_lstrip = 2, added_rstrip = 4, added_normalized = 8;

/// The tables hold hashes and places that belong to one version of text/; files with another are read by their strings. To be
/// raised whenever a table changes.
PHI4FLASH_OWN_DATA inline constexpr std::uint32_t packed_tables_version = 1;
inline constexpr const char* packed_tables_key = "phi4flash.tokenizer.version";
inline constexpr const char* packed_pattern_key = "phi4flash.tokenizer.pattern";
inline constexpr const char* packed_ignore_merges_key = "phi4flash.tokenizer.ignore_merges";

/// What other programs call the split patterns.
struct pattern_name {
    const char* pre;
    split_pattern pattern;
};
PHI4FLASH_OWN_DATA inline constexpr pattern_name pattern_names[] = {{"gpt-4o", split_pattern::o200k},
                                                 {"dbrx", split_pattern::cl100k},
                                                 {"qwen2", split_pattern::qwen2},
                                                 {"gpt-2", split_pattern::gpt2}};

/// What stands before the split pattern in packed_pattern_key where texts are normalized. In that key, because programs that know
/// nothing of normalization must not read such a file as if there were none: to them the pattern is an unknown one.
struct normal_form_prefix {
    std::string_view text;
    normal_form form;
};
PHI4FLASH_OWN_DATA inline constexpr normal_form_prefix normal_form_prefixes[] = {{"NFC, then ", normal_form::nfc}, {"NFD, then ", normal_form::nfd}};

PHI4FLASH_BODY void describe_added_tokens(const tokenizer& t, packed_tokenizer& p);

[[nodiscard]] PHI4FLASH_BODY status read_added_tokens(const packed_model& model, tokenizer_builder& builder);

/// The split pattern and the like. The regular expression, if the file has it, or else what others call it.
[[nodiscard]] PHI4FLASH_BODY status read_settings(const packed_model& model, tokenizer_builder& builder);

/// Tokens and merges of the customary keys; added tokens too, unless the file has a table of them.
[[nodiscard]] PHI4FLASH_BODY status read_token_strings(const packed_model& model, tokenizer_builder& builder);

}  // namespace detail

/// Describes a tokenizer for a model with `rows` rows of embedding; ids without a string are marked unused. Points into the
/// tokenizer, which must stay in place until the file is written. Errors: out_of_memory.
[[nodiscard]] PHI4FLASH_BODY result<packed_tokenizer> describe_tokenizer(const tokenizer& t, std::size_t rows);

/// The tokenizer of a file: from its tables in milliseconds, else from its strings; it does not point into the file. Errors:
/// missing_key, wrong_value_type, unsupported_tokenizer (another kind or split pattern), missing_tensor, wrong_dtype, wrong_shape,
/// bad_vocabulary, bad_merge, out_of_memory.
[[nodiscard]] PHI4FLASH_BODY result<tokenizer> read_tokenizer(const packed_model& model);

#if PHI4FLASH_BODIES
namespace detail {

PHI4FLASH_BODY void describe_added_tokens(const tokenizer& t, packed_tokenizer& p) {
    p.added_begins.push_back(0);
    for (const added_token& a : t.added_tokens()) {
        p.added_ids.push_back(a.id);
        p.added_flags.push_back(static_cast<std::uint8_t>((a.special ? added_special : 0) | (a.lstrip ? added_lstrip : 0) |
                                                          (a.rstrip ? added_rstrip : 0) | (a.normalized ? added_normalized : 0)));
        p.added_bytes.insert(p.added_bytes.end(), a.content.begin(), a.content.end());
        p.added_begins.push_back(static_cast<std::uint32_t>(p.added_bytes.size()));
    }
}

PHI4FLASH_BODY status read_added_tokens(const packed_model& model, tokenizer_builder& builder) {
    const auto ids = model.array<std::uint32_t>("added.ids");
    const auto flags = model.array<std::uint8_t>("added.flags");
    const auto bytes = model.array<char>("added.bytes");
    const auto begins = model.array<std::uint32_t>("added.begins");
    if (!ids) return ids.error();
    if (!flags) return flags.error();
    if (!bytes) return bytes.error();
    if (!begins) return begins.error();
    if (begins->size() != ids->size() + 1 || flags->size() != ids->size())
        return error::format(errc::bad_vocabulary, "the tables of added tokens differ in length: %zu ids, %zu flags, %zu begins",
                             ids->size(), flags->size(), begins->size());
    for (std::size_t i = 0; i < ids->size(); ++i) {
        const std::size_t from = (*begins)[i], to = (*begins)[i + 1];
        if (from > to || to > bytes->size())
            return error::format(errc::bad_vocabulary,
                                 "tensor '%sadded.begins': want rising numbers up to the %zu bytes of strings, have %zu and %zu",
                                 packed_array_prefix.data(), bytes->size(), from, to);
        const std::uint8_t flag = (*flags)[i];
        const status ok = builder.add_added_token({.id = (*ids)[i],
                                                   .content = std::string(bytes->data() + from, to - from),
                                                   .special = (flag & added_special) != 0,
                                                   .lstrip = (flag & added_lstrip) != 0,
                                                   .rstrip = (flag & added_rstrip) != 0,
                                                   .normalized = (flag & added_normalized) != 0});
        if (!ok) return ok;
    }
    return {};
}

PHI4FLASH_BODY status read_settings(const packed_model& model, tokenizer_builder& builder) {
    constexpr const char* model_key = "tokenizer.ggml.model";
    constexpr const char* pre_key = "tokenizer.ggml.pre";
    gguf_key_reader in(model.file());
    (void)in.wanted(model_key, "'gpt2'");
    const auto kind = in.text(model_key);
    const auto regex = in.text(packed_pattern_key);
    if (!regex) (void)in.wanted(pre_key, "the name of a split pattern");
    const auto pre = in.text(pre_key);
    builder.ignore_merges = in.boolean(packed_ignore_merges_key).value_or(false);
    std::string_view split = regex ? std::string_view(*regex) : std::string_view();
    for (const normal_form_prefix& prefix : normal_form_prefixes) {
        if (!split.starts_with(prefix.text)) continue;
        builder.normalization = prefix.form;
        split.remove_prefix(prefix.text.size());
        break;
    }
    if (!in.outcome()) return in.outcome();
    if (*kind != "gpt2")
        return error::format(errc::unsupported_tokenizer, "key '%s': want 'gpt2', have '%s'", model_key, printable(*kind).c_str());
    for (const pattern_name& known : pattern_names) {
        if (regex ? split != regex_of(known.pattern) : *pre != known.pre) continue;
        builder.pattern = known.pattern;
        return {};
    }
    return error::format(errc::unsupported_tokenizer, "the split pattern '%s' is not known",
                         printable(regex ? *regex : *pre).c_str());
}

PHI4FLASH_BODY status read_token_strings(const packed_model& model, tokenizer_builder& builder) {
    constexpr const char* tokens_key = "tokenizer.ggml.tokens";
    constexpr const char* types_key = "tokenizer.ggml.token_type";
    constexpr const char* merges_key = "tokenizer.ggml.merges";
    gguf_key_reader in(model.file());
    const gguf_value* const tokens = in.wanted(tokens_key, "a list of strings");
    const gguf_value* const merges = in.wanted(merges_key, "a list of strings");
    const gguf_value* const types = in.find(types_key);
    if (!in.outcome()) return in.outcome();
    for (const auto& [key, list] : {std::pair{tokens_key, tokens}, {merges_key, merges}})
        if (!list->is_array || list->type != gguf_type::string) in.wrong_type(key, "a list of strings", *list);
    if (types != nullptr && (!types->is_array || types->type != gguf_type::i32 || types->count != tokens->count))
        in.wrong_type(types_key, "a list with an i32 for each token", *types);
    if (!in.outcome()) return in.outcome();

    const bool has_added_table = model.has_array("added.ids");
    const status room =
        builder.reserve(static_cast<std::size_t>(tokens->count), tokens->data.size(), static_cast<std::size_t>(merges->count));
    if (!room) return room;
    std::string left, right;
    gguf_strings token_list(*tokens), merge_list(*merges);
    std::size_t id = 0;
    for (std::string_view text; token_list.next(text); ++id) {
        constexpr std::int32_t control = 3, user_defined = 4, unused = 5;
        const std::int32_t type = types == nullptr ? 1 : types->at<std::int32_t>(id);
        if (type == unused) continue;
        if (type == control || type == user_defined) {
            if (has_added_table) continue;
            added_token added{.id = static_cast<std::uint32_t>(id), .content = std::string(text), .special = type == control};
            if (const status ok = builder.add_added_token(std::move(added)); !ok) return ok;
            continue;
        }
        if (!from_byte_level(text, left))
            return error::format(errc::bad_vocabulary, "token %zu '%s' is not byte-level text", id, printable(text).c_str());
        if (const status ok = builder.add_token(id, left); !ok) return ok;
    }
    for (std::string_view text; merge_list.next(text);) {
        const std::size_t space = text.find(' ');
        if (space == std::string_view::npos || !from_byte_level(text.substr(0, space), left) ||
            !from_byte_level(text.substr(space + 1), right))
            return error::format(errc::bad_merge, "merge '%s': want two parts in byte-level text with a space between",
                                 printable(text).c_str());
        if (const status ok = builder.add_merge(left, right); !ok) return ok;
    }
    return {};
}

}  // namespace detail

PHI4FLASH_BODY result<packed_tokenizer> describe_tokenizer(const tokenizer& t, std::size_t rows) {
    return detail::or_out_of_memory("describe a tokenizer", [&]() -> result<packed_tokenizer> {
        packed_tokenizer p;
        for (const detail::pattern_name& known : detail::pattern_names)
            if (known.pattern == t.pattern()) p.pre = known.pre;
        for (const detail::normal_form_prefix& prefix : detail::normal_form_prefixes)
            if (prefix.form == t.normalization()) p.pattern = prefix.text;
        p.pattern += regex_of(t.pattern());
        p.ignore_merges = t.merges().ignore_merges();
        for (std::size_t id = 0; id < (std::max)(rows, t.vocab_size()); ++id) {
            const added_token* const added = t.added(static_cast<std::int64_t>(id));
            const std::string_view bytes = t.merges().strings().bytes_of(id);
            std::string text;
            if (added != nullptr) {
                text = added->content;
            } else if (!bytes.empty()) {
                detail::append_byte_level(bytes, text);
            } else {
                text = "[PAD" + std::to_string(id) + "]";
            }
            p.tokens.push_back(std::move(text));
            p.types.push_back(added != nullptr ? (added->special ? 3 : 4) : bytes.empty() ? 5 : 1);
        }
        for (const merge_rule& rule : t.merges().rules()) p.merges.push_back(p.tokens[rule.left] + " " + p.tokens[rule.right]);
        detail::describe_added_tokens(t, p);
        t.for_each_table([&](std::string_view name, auto table) { p.tables.push_back(packed_array::of(name, table)); });
        return p;
    });
}

PHI4FLASH_BODY result<tokenizer> read_tokenizer(const packed_model& model) {
    return detail::or_out_of_memory("read a tokenizer", [&]() -> result<tokenizer> {
        tokenizer_builder builder;
        if (const status ok = detail::read_settings(model, builder); !ok) return ok.error();
        if (model.has_array("added.ids"))
            if (const status ok = detail::read_added_tokens(model, builder); !ok) return ok.error();
        const gguf_value* const version = model.file().value(detail::packed_tables_key);
        if (version == nullptr || version->is_array || version->whole() != detail::packed_tables_version) {
            if (const status ok = detail::read_token_strings(model, builder); !ok) return ok.error();
            return builder.build();
        }
        return builder.build_from_tables([&](std::string_view name, auto& table) -> status {
            const auto stored = model.array<typename std::decay_t<decltype(table)>::value_type>(name);
            if (!stored) return stored.error();
            table.assign(stored->data(), stored->data() + stored->size());
            return {};
        });
    });
}

PHI4FLASH_BODY result<std::vector<packed_array>> packed_tokenizer::arrays() const {
    return detail::or_out_of_memory("list the tables of a tokenizer", [&]() -> result<std::vector<packed_array>> {
        std::vector<packed_array> all = tables;
        const auto add = [&](const char* name, const auto& v) { all.push_back(packed_array::of(name, detail::span_of(v))); };
        add("added.ids", added_ids);
        add("added.flags", added_flags);
        add("added.bytes", added_bytes);
        add("added.begins", added_begins);
        return all;
    });
}
#endif

PHI4FLASH_END
