#pragma once
/// Splits text into the pieces that BPE works on: hand-written matchers for the split patterns of GPT-2, cl100k, Qwen 2
/// and o200k. Each gives what a leftmost, backtracking regular-expression engine would, in one or two passes over a piece, without
/// recursion or allocation.
#include <phi4flash/config/abi.hpp>
#if PHI4FLASH_BODIES
#include <phi4flash/text/unicode_tables.hpp>
#endif
#include <phi4flash/text/utf8.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

PHI4FLASH_BEGIN

/// The patterns, named after the vocabulary that brought each. `qwen2` is cl100k with single digits.
enum class split_pattern : std::uint8_t { gpt2, cl100k, qwen2, o200k };

/// The regular expression of a pattern, as tokenizer.json spells it.
[[nodiscard]] constexpr std::string_view regex_of(split_pattern p) {
    constexpr const char* cl100k =
        R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
    constexpr const char* qwen2 =
        R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
    constexpr const char* o200k =
        R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
        R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
        R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
    switch (p) {
        case split_pattern::gpt2:
            return R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
        case split_pattern::cl100k:
            return cl100k;
        case split_pattern::qwen2:
            return qwen2;
        case split_pattern::o200k:
            break;
    }
    return o200k;
}

/// End of the piece that starts at p. Needs p < end; the result is > p. Any bytes are allowed: invalid ones count as U+FFFD.
template <split_pattern Pattern>
[[nodiscard]] const char* next_piece(const char* p, const char* end);

/// Calls `sink(piece)` for each piece of `text`, in order; together they are the text.
template <split_pattern Pattern, class Sink>
inline void for_each_piece(std::string_view text, Sink&& sink) {
    const char* p = text.data();
    const char* const end = p + text.size();
    while (p < end) {
        const char* const q = next_piece<Pattern>(p, end);
        sink(std::string_view(p, static_cast<std::size_t>(q - p)));
        p = q;
    }
}

/// The same with the pattern chosen at run time.
template <class Sink>
inline void for_each_piece(split_pattern pattern, std::string_view text, Sink&& sink) {
    switch (pattern) {
        case split_pattern::gpt2:
            return for_each_piece<split_pattern::gpt2>(text, sink);
        case split_pattern::cl100k:
            return for_each_piece<split_pattern::cl100k>(text, sink);
        case split_pattern::qwen2:
            return for_each_piece<split_pattern::qwen2>(text, sink);
        case split_pattern::o200k:
            return for_each_piece<split_pattern::o200k>(text, sink);
    }
}

#if PHI4FLASH_BODIES
namespace detail {

/// Sets of classes, one bit each. `multi` marks a byte that begins a longer sequence: it is in no set.
using class_set = std::uint32_t;
[[nodiscard]] constexpr class_set set_of(char_class c) { return class_set{1} << static_cast<unsigned>(c); }

inline constexpr class_set upper_bit = set_of(char_class::upper);
inline constexpr class_set lower_bit = set_of(char_class::lower);
inline constexpr class_set letter_bit = set_of(char_class::letter);
inline constexpr class_set mark_bit = set_of(char_class::mark);
inline constexpr class_set newline_bit = set_of(char_class::newline);
inline constexpr class_set other_bit = set_of(char_class::other);
inline constexpr class_set space_bit = set_of(char_class::space);

inline constexpr class_set letters_set = upper_bit | lower_bit | letter_bit;  // \p{L}
inline constexpr class_set numbers_set = set_of(char_class::number);          // \p{N}
inline constexpr class_set spaces_set = space_bit | newline_bit;              // \s
inline constexpr class_set symbols_set = other_bit | mark_bit;                // [^\s\p{L}\p{N}]
inline constexpr class_set prefix_set = symbols_set | space_bit;              // [^\r\n\p{L}\p{N}]
inline constexpr class_set head_set = upper_bit | letter_bit | mark_bit;      // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
inline constexpr class_set tail_set = lower_bit | letter_bit | mark_bit;      // [\p{Ll}\p{Lm}\p{Lo}\p{M}]

/// Class bit of each byte; 0 for bytes of longer sequences.
struct byte_sets {
    std::uint8_t of[256] = {};
    constexpr byte_sets() {
        for (unsigned b = 0; b < 0x80; ++b) of[b] = static_cast<std::uint8_t>(set_of(class_of(b)));
    }
};
PHI4FLASH_OWN_DATA inline constexpr byte_sets byte_set{};

/// Class bit of each code point of two bytes; and of each 64 code points that share their first two of three bytes, 0 where those
/// differ. Of CJK and Hangul nearly all are alike.
struct sequence_sets {
    std::uint8_t two[0x800] = {};
    std::uint8_t three[0x400] = {};
    constexpr sequence_sets() {
        for (char32_t c = 0x80; c < 0x800; ++c) two[c] = static_cast<std::uint8_t>(set_of(class_of(c)));
        for (char32_t block = 0x800 / 64; block < 0x400; ++block) {
            const std::uint64_t* const row = class_rows + class_blocks[block / 2] * 8 + block % 2 * 4;
            bool alike = true;
            for (int i = 0; i < 4; ++i) alike = alike && row[i] == (row[0] & 15) * 0x1111111111111111u;
            if (alike) three[block] = static_cast<std::uint8_t>(set_of(class_of(block * 64)));
        }
    }
};
PHI4FLASH_OWN_DATA inline constexpr sequence_sets sequence_set{};

/// A character of the text: the bit of its class and its size.
struct char_step {
    class_set bit = 0;
    std::uint32_t size = 1;
};

/// char_at beyond ASCII.
[[nodiscard]] inline char_step sequence_at(const char* p, const char* end) {
    const auto byte = [p](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(p[i])); };
    const std::uint32_t size = common_utf8_size(p, end);
    if (size == 2) return {sequence_set.two[(byte(0) & 0x1F) << 6 | (byte(1) & 0x3F)], 2};
    if (size == 0) {
        const utf8_step step = decode_utf8_any(p, end);
        return {set_of(class_of(step.code_point)), step.size};
    }
    const std::uint32_t block = (byte(0) & 0x0F) << 6 | (byte(1) & 0x3F);
    const class_set alike = sequence_set.three[block];
    return {alike != 0 ? alike : set_of(class_of(block << 6 | (byte(2) & 0x3F))), 3};
}

/// Needs p < end. Invalid bytes are U+FFFD, whose class is `other`.
[[nodiscard]] inline char_step char_at(const char* p, const char* end) {
    const std::uint8_t bit = byte_set.of[static_cast<unsigned char>(*p)];
    return bit != 0 ? char_step{bit, 1} : sequence_at(p, end);
}

/// Past the longest run of characters of a set.
template <class_set Set>
[[nodiscard]] inline const char* skip(const char* p, const char* end) {
    while (p < end) {
        const std::uint8_t bit = byte_set.of[static_cast<unsigned char>(*p)];
        if ((bit & Set) != 0) {
            ++p;
        } else if (bit != 0) {
            return p;
        } else {
            const char_step c = sequence_at(p, end);
            if ((c.bit & Set) == 0) return p;
            p += c.size;
        }
    }
    return p;
}

/// Past `'s|'t|'re|'ve|'m|'ll|'d` at p, or p. Case-insensitive, s is also U+017F, the long s.
template <bool FoldCase>
[[nodiscard]] inline const char* skip_contraction(const char* p, const char* end) {
    if (end - p < 2 || *p != '\'') return p;
    const auto letter = [p](std::ptrdiff_t i) { return FoldCase && p[i] >= 'A' && p[i] <= 'Z' ? p[i] + ('a' - 'A') : +p[i]; };
    switch (letter(1)) {
        case 's':
        case 't':
        case 'm':
        case 'd':
            return p + 2;
        case 'r':
        case 'v':
            return end - p > 2 && letter(2) == 'e' ? p + 3 : p;
        case 'l':
            return end - p > 2 && letter(2) == 'l' ? p + 3 : p;
        default:
            break;
    }
    return FoldCase && end - p > 2 && p[1] == '\xC5' && p[2] == '\xBF' ? p + 3 : p;
}

/// Up to `Most` numbers at p.
template <int Most>
[[nodiscard]] inline const char* skip_numbers(const char* p, const char* end) {
    for (int i = 0; i < Most && p < end; ++i) {
        const char_step c = char_at(p, end);
        if (c.bit != numbers_set) break;
        p += c.size;
    }
    return p;
}

/// White space at p (one character at least): `\s*[\r\n]+` if Newlines, else `\s+(?!\S)`, else `\s+`.
template <bool Newlines>
[[nodiscard]] inline const char* skip_space(const char* p, const char* end) {
    const char* const begin = p;
    const char* last = p;  // start of the run's last character
    const char* after_newline = nullptr;
    while (p < end) {
        const char_step c = char_at(p, end);
        if ((c.bit & spaces_set) == 0) break;
        last = p;
        p += c.size;
        if (c.bit == newline_bit) after_newline = p;
    }
    if (Newlines && after_newline != nullptr) return after_newline;
    // The lookahead gives the last space back to what follows, unless it is all there is.
    return p == end || last == begin ? p : last;
}

/// A word of o200k: `head* tail+`, else (only if `head_alone`) `head+`; then a contraction. nullptr if neither matches.
[[nodiscard]] inline const char* skip_cased_word(const char* p, const char* end, bool head_alone) {
    const char* const begin = p;
    const char* after_both = nullptr;  // past the last character of the head that could be a tail as well
    while (p < end) {
        const unsigned char byte = static_cast<unsigned char>(*p);
        if (byte < 0x80) {
            if (byte_set.of[byte] != upper_bit) break;
            ++p;
            continue;
        }
        const char_step c = sequence_at(p, end);
        if ((c.bit & head_set) == 0) break;
        p += c.size;
        if ((c.bit & tail_set) != 0) after_both = p;
    }
    const char* const tail_end = skip<tail_set>(p, end);
    if (tail_end != p) return skip_contraction<true>(tail_end, end);
    if (after_both != nullptr) return skip_contraction<true>(after_both, end);
    return head_alone && p != begin ? skip_contraction<true>(p, end) : nullptr;
}

[[nodiscard]] inline const char* next_o200k(const char* p, const char* end) {
    const char_step first = char_at(p, end);
    const char* const rest = p + first.size;
    if ((first.bit & letters_set) != 0) return skip_cased_word(p, end, true);
    if (first.bit == numbers_set) return skip_numbers<2>(rest, end);
    if ((first.bit & prefix_set) != 0 && rest < end) {
        // A mark may be the prefix or part of the word, so its one-character word comes before heads without a tail.
        if (const char* const word = skip_cased_word(rest, end, first.bit != mark_bit)) return word;
    }
    if (first.bit == mark_bit) return skip_cased_word(p, end, true);
    if (first.bit == other_bit || *p == ' ') {
        const char* const symbols = skip<symbols_set>(rest, end);
        if (symbols != rest || *p != ' ') {
            p = symbols;
            while (p < end && (*p == '\r' || *p == '\n' || *p == '/')) ++p;
            return p;
        }
    }
    return skip_space<true>(p, end);
}

template <int Digits>
[[nodiscard]] inline const char* next_cl100k(const char* p, const char* end) {
    if (const char* const q = skip_contraction<true>(p, end); q != p) return q;
    const char_step first = char_at(p, end);
    const char* const rest = p + first.size;
    if ((first.bit & letters_set) != 0) return skip<letters_set>(rest, end);
    if (first.bit == numbers_set) return skip_numbers<Digits - 1>(rest, end);
    if ((first.bit & prefix_set) != 0) {
        if (const char* const word = skip<letters_set>(rest, end); word != rest) return word;
    }
    if ((first.bit & symbols_set) != 0 || *p == ' ') {
        const char* const symbols = skip<symbols_set>(rest, end);
        if (symbols != rest || *p != ' ') {
            p = symbols;
            while (p < end && (*p == '\r' || *p == '\n')) ++p;
            return p;
        }
    }
    return skip_space<true>(p, end);
}

[[nodiscard]] inline const char* next_gpt2(const char* p, const char* end) {
    if (const char* const q = skip_contraction<false>(p, end); q != p) return q;
    const char* const start = *p == ' ' && end - p > 1 ? p + 1 : p;
    const char_step first = char_at(start, end);
    if ((first.bit & letters_set) != 0) return skip<letters_set>(start + first.size, end);
    if (first.bit == numbers_set) return skip<numbers_set>(start + first.size, end);
    if ((first.bit & symbols_set) != 0) return skip<symbols_set>(start + first.size, end);
    return skip_space<false>(p, end);
}

}  // namespace detail

template <split_pattern Pattern>
inline const char* next_piece(const char* p, const char* end) {
    if constexpr (Pattern == split_pattern::gpt2) return detail::next_gpt2(p, end);
    if constexpr (Pattern == split_pattern::cl100k) return detail::next_cl100k<3>(p, end);
    if constexpr (Pattern == split_pattern::qwen2) return detail::next_cl100k<1>(p, end);
    if constexpr (Pattern == split_pattern::o200k) return detail::next_o200k(p, end);
}
#if PHI4FLASH_COMPILE_ONCE
template const char* next_piece<split_pattern::gpt2>(const char*, const char*);
template const char* next_piece<split_pattern::cl100k>(const char*, const char*);
template const char* next_piece<split_pattern::qwen2>(const char*, const char*);
template const char* next_piece<split_pattern::o200k>(const char*, const char*);
#endif
#endif

PHI4FLASH_END
