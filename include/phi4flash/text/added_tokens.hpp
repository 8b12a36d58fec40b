#pragma once
/// Added tokens: markers that are found in the text before it is split, with the rules of Hugging Face's `AddedToken`.
#include <phi4flash/core/plain_name.hpp>
#include <phi4flash/core/sort_once.hpp>
#include <phi4flash/core/span_of.hpp>
#include <phi4flash/text/byte_trie.hpp>
#include <phi4flash/text/normalization.hpp>
#include <phi4flash/text/pre_tokenizer.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

PHI4FLASH_BEGIN

/// One added token, as in tokenizer.json.
struct added_token {
    std::uint32_t id = no_token;
    std::string content;
    bool special = false;     ///< left out when special tokens are skipped on decoding
    bool lstrip = false;      ///< swallows white space before it
    bool rstrip = false;      ///< swallows white space after it
    bool normalized = false;  ///< found in a second pass, in the normalized text between the tokens that are not
};

/// Which added tokens a text may spell.
enum class marker_policy : std::uint8_t {
    parse,              ///< all of them: for a prompt that the program wrote
    plain_text,         ///< none: for text of a user or a document
    parse_not_special,  ///< those that are not `special`; the others are plain text
};

namespace detail {

/// White space (the property) at the start of the text, in bytes.
[[nodiscard]] PHI4FLASH_BODY std::size_t leading_space(std::string_view text);

/// White space at the end of the text, in bytes.
[[nodiscard]] PHI4FLASH_BODY std::size_t trailing_space(std::string_view text);

/// A set of markers to look for in one pass: leftmost first, longest of those.
class marker_set {
public:
    /// Takes those tokens that are `normalized` or not, in that form of their contents. Errors: bad_vocabulary (two are the same in
    /// that form, or one is too long in it).
    [[nodiscard]] status build(const std::vector<added_token>& tokens, bool normalized, normal_form form);

    [[nodiscard]] bool empty() const { return firsts_ == 0; }

    /// The first marker in [p, end): its position in the list given to `build`, or no_token, and its bytes in the text. `p` moves to
    /// its start, or to `end`.
    [[nodiscard]] byte_trie::match find(const char*& p, const char* end) const;

private:
    vocabulary contents_;
    byte_trie trie_;
    bool starts_[256] = {};
    int firsts_ = 0;  // different first bytes
    unsigned char first_ = 0;
};

#if PHI4FLASH_BODIES
PHI4FLASH_BODY std::size_t leading_space(std::string_view text) {
    const char* const end = text.data() + text.size();
    return static_cast<std::size_t>(skip<spaces_set>(text.data(), end) - text.data());
}

PHI4FLASH_BODY std::size_t trailing_space(std::string_view text) {
    std::size_t size = text.size();
    while (size != 0) {
        std::size_t start = size - 1;
        while (start != 0 && size - start < 4 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
        const char_step c = char_at(text.data() + start, text.data() + size);
        if ((c.bit & spaces_set) == 0 || start + c.size != size) break;
        size = start;
    }
    return text.size() - size;
}

PHI4FLASH_BODY status marker_set::build(const std::vector<added_token>& tokens, bool normalized, normal_form form) {
    std::vector<std::uint32_t> sorted;
    std::vector<std::string> contents(tokens.size());
    for (std::uint32_t i = 0; i < tokens.size(); ++i) {
        if (tokens[i].normalized != normalized) continue;
        append_normal(tokens[i].content, form, contents[i]);
        const status ok = contents_.add(i, contents[i]);
        if (!ok && contents_.find(contents[i]) == no_token) return ok.error().in("added tokens, normalized");
        if (!ok)
            return error::format(errc::bad_vocabulary, "added token '%s': its normalized form is that of another one",
                                 plain_name(tokens[i].content).c_str());
        sorted.push_back(i);
    }
    detail::sort_once(sorted, [&](std::uint32_t a, std::uint32_t b) { return contents[a] < contents[b]; });
    if (const status ok = trie_.build(contents_, detail::span_of(sorted)); !ok) return ok;
    for (const std::uint32_t i : sorted) {
        const auto byte = static_cast<unsigned char>(contents[i].front());
        if (!starts_[byte]) ++firsts_;
        starts_[byte] = true;
        first_ = byte;
    }
    return {};
}

PHI4FLASH_BODY byte_trie::match marker_set::find(const char*& p, const char* end) const {
    for (; p < end; ++p) {
        if (firsts_ == 1) {
            p = static_cast<const char*>(std::memchr(p, first_, static_cast<std::size_t>(end - p)));
            if (p == nullptr) break;
        } else if (!starts_[static_cast<unsigned char>(*p)]) {
            continue;
        }
        const byte_trie::match found = trie_.longest(contents_, p, static_cast<std::size_t>(end - p));
        if (found.token != no_token) return found;
    }
    p = end;
    return {};
}
#endif

}  // namespace detail

PHI4FLASH_END
