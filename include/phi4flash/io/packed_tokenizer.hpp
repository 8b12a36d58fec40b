#pragma once
/// The tokenizer inside a packed model file, in two forms: as strings under the customary keys, for other programs, and as
/// aligned tables of bytes and ids, from which this library loads it. Works with any tokenizer that has the interface of
/// text/tokenizer.hpp.
#include <phi4flash/io/packed_model.hpp>
#include <phi4flash/text/byte_level.hpp>

#include <string>
#include <utility>
#include <vector>

PHI4FLASH_BEGIN

/// A table of whole numbers to be stored as the tensor phi4flash.tokenizer.<name>.
struct packed_array {
    std::string name;
    ggml_type type = ggml_type::i8;   ///< i8, i16, i32 or i64
    std::span<const std::byte> data;  ///< whole elements; must live until the file is written

    template <class T>
    static packed_array of(std::string name, std::span<const T> numbers) {
        static_assert(std::is_trivially_copyable_v<T>);
        constexpr ggml_type type = sizeof(T) % 4 != 0 || alignof(T) < 4 ? ggml_type::i8
                                   : alignof(T) == 4                    ? ggml_type::i32
                                                                        : ggml_type::i64;
        return {std::move(name), type, std::as_bytes(numbers)};
    }
};

/// What is written of a tokenizer.
struct packed_tokenizer {
    std::string pre = "gpt-4o";  ///< tokenizer.ggml.pre: what others call the split pattern
    std::string pattern;         ///< the split pattern itself
    bool ignore_merges = false;
    std::vector<std::string> tokens;  ///< as byte-level text, for tokenizer.ggml.tokens
    std::vector<std::int32_t> types;  ///< 1 normal, 3 special, 4 added, 5 unused
    std::vector<std::string> merges;  ///< "left right"
    // The tables: bytes of all tokens with where each begins; three ids a merge; added tokens.
    std::vector<char> token_bytes;
    std::vector<std::uint32_t> token_begins;  ///< [tokens + 1]
    std::vector<std::uint32_t> merge_ids;     ///< [merges, 3]: left, right, merged
    std::vector<std::uint32_t> added_ids;
    std::vector<std::uint8_t> added_flags;  ///< bits: special, lstrip, rstrip, normalized
    std::vector<char> added_bytes;
    std::vector<std::uint32_t> added_begins;  ///< [added + 1]
    std::vector<packed_array> images;         ///< more tables, which the tokenizer knows how to use

    /// All tables; points into this object.
    [[nodiscard]] std::vector<packed_array> arrays() const {
        std::vector<packed_array> all = images;
        const auto add = [&](const char* name, const auto& v) {
            all.push_back(packed_array::of(name, std::span(v.data(), v.size())));
        };
        add("tokens.bytes", token_bytes);
        add("tokens.begins", token_begins);
        add("merges.ids", merge_ids);
        add("added.ids", added_ids);
        add("added.flags", added_flags);
        add("added.bytes", added_bytes);
        add("added.begins", added_begins);
        return all;
    }
};

namespace detail {
inline constexpr std::uint8_t added_special = 1, added_lstrip = 2, added_rstrip = 4, added_normalized = 8;

/// String i of a table of bytes.
[[nodiscard]] inline std::string_view slice(std::span<const char> bytes, std::span<const std::uint32_t> begins, std::size_t i) {
    return {bytes.data() + begins[i], begins[i + 1] - begins[i]};
}

/// Errors: bad_vocabulary.
[[nodiscard]] inline status check_begins(const char* what, std::span<const char> bytes, std::span<const std::uint32_t> begins) {
    bool good = !begins.empty() && begins.front() == 0 && begins.back() == bytes.size();
    for (std::size_t i = 1; good && i < begins.size(); ++i) good = begins[i - 1] <= begins[i];
    if (good) return {};
    return error::format(errc::bad_vocabulary,
                         "tensor 'phi4flash.tokenizer.%s': want rising numbers from 0 to the %zu bytes of the strings", what,
                         bytes.size());
}
}  // namespace detail

/// Describes a tokenizer for a model with `rows` rows of embedding; ids without a string are marked unused.
template <class Tokenizer>
[[nodiscard]] packed_tokenizer describe_tokenizer(const Tokenizer& t, std::size_t rows, bool ignore_merges = false) {
    packed_tokenizer p;
    p.pattern = regex_of(t.pattern());
    p.ignore_merges = ignore_merges;
    p.token_begins.push_back(0);
    for (std::size_t id = 0; id < std::max(rows, t.vocab_size()); ++id) {
        const auto* const added = t.added(static_cast<std::int64_t>(id));
        // The table has the vocabulary's own strings; those of added tokens are in theirs.
        const std::string_view bytes = t.merges().strings().bytes_of(id);
        p.token_bytes.insert(p.token_bytes.end(), bytes.begin(), bytes.end());
        p.token_begins.push_back(static_cast<std::uint32_t>(p.token_bytes.size()));
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
    for (const auto& rule : t.merges().rules()) {
        p.merge_ids.insert(p.merge_ids.end(), {rule.left, rule.right, rule.merged});
        p.merges.push_back(p.tokens[rule.left] + " " + p.tokens[rule.right]);
    }
    p.added_begins.push_back(0);
    for (const auto& a : t.added_tokens()) {
        p.added_ids.push_back(a.id);
        p.added_flags.push_back(
            static_cast<std::uint8_t>((a.special ? detail::added_special : 0) | (a.lstrip ? detail::added_lstrip : 0) |
                                      (a.rstrip ? detail::added_rstrip : 0) | (a.normalized ? detail::added_normalized : 0)));
        p.added_bytes.insert(p.added_bytes.end(), a.content.begin(), a.content.end());
        p.added_begins.push_back(static_cast<std::uint32_t>(p.added_bytes.size()));
    }
    return p;
}

/// Hands the tables of a file to a builder with the interface of tokenizer_builder, which checks them. Errors: missing_tensor,
/// wrong_dtype, missing_key, wrong_value_type, unsupported_tokenizer (another split pattern), bad_vocabulary, bad_merge, and those
/// of the builder.
template <class Builder>
[[nodiscard]] status read_tokenizer(const packed_model& model, Builder& builder) {
    const auto bytes = model.array<char>("tokens.bytes");
    const auto begins = model.array<std::uint32_t>("tokens.begins");
    const auto merges = model.array<std::uint32_t>("merges.ids");
    const auto added_ids = model.array<std::uint32_t>("added.ids");
    const auto added_flags = model.array<std::uint8_t>("added.flags");
    const auto added_bytes = model.array<char>("added.bytes");
    const auto added_begins = model.array<std::uint32_t>("added.begins");
    if (!bytes) return bytes.error();
    for (const auto* table : {&begins, &merges, &added_ids, &added_begins})
        if (!*table) return table->error();
    if (!added_flags) return added_flags.error();
    if (!added_bytes) return added_bytes.error();
    if (const status ok = detail::check_begins("tokens.begins", *bytes, *begins); !ok) return ok;
    if (const status ok = detail::check_begins("added.begins", *added_bytes, *added_begins); !ok) return ok;
    const std::size_t n_tokens = begins->size() - 1;
    if (added_begins->size() != added_ids->size() + 1 || added_flags->size() != added_ids->size() || merges->size() % 3 != 0)
        return error::format(errc::bad_vocabulary, "the tables of the tokenizer differ in length");

    detail::gguf_key_reader in(model.file());
    (void)in.require("phi4flash.tokenizer.pattern", "a split pattern");
    const auto pattern = in.text("phi4flash.tokenizer.pattern");
    builder.ignore_merges = in.boolean("phi4flash.tokenizer.ignore_merges").value_or(false);
    if (!in.outcome()) return in.outcome();
    using split = decltype(builder.pattern);
    int found = -1;
    for (int i = 3; i >= 0; --i)
        if (regex_of(static_cast<split>(i)) == *pattern) found = i;
    if (found < 0)
        return error::format(errc::unsupported_tokenizer, "the split pattern '%s' is not known", printable(*pattern).c_str());
    builder.pattern = static_cast<split>(found);

    builder.reserve(n_tokens, bytes->size(), merges->size() / 3);
    const auto token = [&](std::size_t id) { return id < n_tokens ? detail::slice(*bytes, *begins, id) : std::string_view{}; };
    for (std::size_t id = 0; id < n_tokens; ++id)
        if (const std::string_view s = token(id); !s.empty())
            if (const status ok = builder.add_token(id, s); !ok) return ok;
    for (std::size_t i = 0; i < merges->size(); i += 3)
        if (const status ok = builder.add_merge(token((*merges)[i]), token((*merges)[i + 1])); !ok) return ok;
    for (std::size_t i = 0; i < added_ids->size(); ++i) {
        const std::uint8_t flags = (*added_flags)[i];
        const status ok = builder.add_added_token({.id = (*added_ids)[i],
                                                   .content = std::string(detail::slice(*added_bytes, *added_begins, i)),
                                                   .special = (flags & detail::added_special) != 0,
                                                   .lstrip = (flags & detail::added_lstrip) != 0,
                                                   .rstrip = (flags & detail::added_rstrip) != 0,
                                                   .normalized = (flags & detail::added_normalized) != 0});
        if (!ok) return ok;
    }
    return {};
}

PHI4FLASH_END
