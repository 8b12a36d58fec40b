#pragma once
/// Unicode normalization, as tokenizers of Qwen and others ask for before a text is split. Text that is normalized already is only
/// looked at; around what is not, a segment is decomposed, ordered and composed (Unicode Standard Annex #15).
/// @since 0.2
#include <phi4flash/core/out_of_memory.hpp>
#if PHI4FLASH_BODIES
#include <phi4flash/text/normalization_tables.hpp>
#endif
#include <phi4flash/text/utf8.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

PHI4FLASH_BEGIN

/// What is done to a text before anything else.
enum class normal_form : std::uint8_t {
    none,  ///< nothing
    nfc,   ///< composed: "e" and U+0301 become U+00E9
    nfd,   ///< decomposed: U+00E9 becomes "e" and U+0301
};

namespace detail {
PHI4FLASH_BODY void append_normal(std::string_view text, normal_form form, std::string& out);
}

/// Bytes at the start of `text` that are in this form as they stand, whatever follows them. May stop at what is in it all the same (a letter
/// with two marks, one of them composed): append_normalized knows. Needs well-formed UTF-8.
[[nodiscard]] PHI4FLASH_BODY std::size_t normalized_prefix(std::string_view text, normal_form form);

/// Appends `text` in a normalization form, in linear time. Needs well-formed UTF-8. Code points of Unicode 9.0, as in Hugging Face's
/// tokenizers: what was assigned later stays as it is. Errors: out_of_memory; `out` is then as it was.
PHI4FLASH_BODY status append_normalized(std::string_view text, normal_form form, std::string& out);

#if PHI4FLASH_BODIES
namespace detail {

/// Hangul syllables are composed of two or three jamo by arithmetic (Unicode 16.0, section 3.12).
namespace hangul {
inline constexpr char32_t syllables = 0xAC00, leads = 0x1100, vowels = 0x1161, trails = 0x11A7;
inline constexpr char32_t lead_count = 19, vowel_count = 21, trail_count = 28;
inline constexpr char32_t syllable_count = lead_count * vowel_count * trail_count;
[[nodiscard]] constexpr bool is_syllable(char32_t c) { return c >= syllables && c < syllables + syllable_count; }
}  // namespace hangul

/// What two code points are composed to, or 0.
[[nodiscard]] inline char32_t compose(char32_t first, char32_t second) {
    if (first >= hangul::leads && first < hangul::leads + hangul::lead_count) {
        if (second < hangul::vowels || second >= hangul::vowels + hangul::vowel_count) return 0;
        return hangul::syllables +
               ((first - hangul::leads) * hangul::vowel_count + (second - hangul::vowels)) * hangul::trail_count;
    }
    if (hangul::is_syllable(first)) {
        const bool has_trail = (first - hangul::syllables) % hangul::trail_count != 0;
        if (has_trail || second <= hangul::trails || second >= hangul::trails + hangul::trail_count) return 0;
        return first + (second - hangul::trails);
    }
    const auto place = std::lower_bound(std::begin(compositions), std::end(compositions), 0, [&](std::uint16_t at, int) {
        const decomposition& d = decompositions[at];
        return d.second != second ? d.second < second : d.first < first;
    });
    if (place == std::end(compositions)) return 0;
    const decomposition& d = decompositions[*place];
    return d.first == first && d.second == second ? d.code : 0;
}

/// Whether nothing before a code point changes with it, and nothing after it changes what is before.
[[nodiscard]] inline bool is_boundary(const normal_kind& kind, bool composes) {
    return kind.combining == 0 && (composes ? kind.quick == 0 : kind.decomposes == 0);
}

/// Finds what of well-formed UTF-8 is NFC (Compose) or NFD already. Every text that is encoded passes here.
template <bool Compose>
class normal_text {
public:
    /// Bytes at the start that stay as they are, whatever follows them.
    [[nodiscard]] static std::size_t prefix(std::string_view text) {
        const char* const begin = text.data();
        const char* const end = begin + text.size();
        const char* p = begin;
        const char* previous = begin;  // the character before p
        std::uint8_t last = 0;         // its combining class
        while (p < end) {
            if (static_cast<unsigned char>(*p) < 0x80) {
                std::uint64_t eight = 0;
                while (end - p >= 8 && (std::memcpy(&eight, p, 8), (eight & 0x8080808080808080u) == 0)) p += 8;
                while (p < end && static_cast<unsigned char>(*p) < 0x80) ++p;
                previous = p - 1;
                last = 0;
                continue;
            }
            if (const std::uint32_t size = plain_size(p, end); size != 0) {
                previous = p;
                last = 0;
                p += size;
                continue;
            }
            const utf8_step c = decode_utf8(p, end);
            const normal_kind kind = normal_kind_of(c.code_point);
            const bool out_of_order = kind.combining != 0 && last > kind.combining;
            if (out_of_order || !stays(c.code_point, kind, p == begin ? p : previous, p, last))
                return static_cast<std::size_t>(segment_start(begin, p, end) - begin);
            previous = p;
            last = kind.combining;
            p += c.size;
        }
        return text.size();
    }

private:
    /// 2 or 3 for a starter of so many bytes that stays whatever surrounds it, as far as its first bytes tell; else 0. The first of the
    /// rows is ASCII's, of code points to which nothing ever happens: scripts without marks and CJK have it too.
    [[nodiscard]] static std::uint32_t plain_size(const char* p, const char* end) {
        const auto byte = [p](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(p[i])); };
        const std::uint32_t lead = byte(0);
        if (lead < 0xE0) return Compose && lead < 0xCC && end - p >= 2 ? 2 : 0;  // up to U+02FF
        return lead < 0xF0 && end - p >= 3 && normal_blocks[(lead & 0x0F) << 6 | (byte(1) & 0x3F)] == 0 ? 3 : 0;
    }
    static_assert(normal_blocks[0] == 0);

    /// Whether c, at p, is what normalizing leaves behind the character at `previous` (p itself at the start of the text), whose
    /// combining class is `last`. May say no where the answer is yes.
    [[nodiscard]] static bool stays(char32_t c, const normal_kind& kind, const char* previous, const char* p, std::uint8_t last) {
        if (!Compose) return kind.decomposes == 0;
        if (kind.quick != 1) return kind.quick == 0;
        if (previous == p) return true;
        if (last != 0) return kind.combining == 0;  // marks stand between: only a mark could pass them
        const char32_t before = decode_utf8(previous, p).code_point;
        return normal_kind_of(before).decomposes == 0 && compose(before, c) == 0;
    }

    /// The last boundary before p, or the text's start.
    [[nodiscard]] static const char* segment_start(const char* begin, const char* p, const char* end) {
        while (p > begin) {
            do --p;
            while (p > begin && (static_cast<unsigned char>(*p) & 0xC0) == 0x80);
            if (is_boundary(normal_kind_of(decode_utf8(p, end).code_point), Compose)) break;
        }
        return p;
    }
};

/// Normalizes well-formed UTF-8 to NFC or NFD. Memory: the longest run of characters that hang together.
class normalizer {
public:
    explicit normalizer(bool composes) : composes_(composes) {}

    /// Appends the text, normalized.
    void append(std::string_view text, std::string& out) {
        while (!text.empty()) {
            const std::size_t good = composes_ ? normal_text<true>::prefix(text) : normal_text<false>::prefix(text);
            out.append(text.substr(0, good));
            text.remove_prefix(good);
            if (!text.empty()) text.remove_prefix(append_segment(text, out));
        }
    }

private:
    struct unit {
        char32_t code_point;
        std::uint8_t combining;
        std::size_t place = 0;  // of `order` alone
    };

    /// One character and what follows it up to the next boundary. Returns how many bytes of the text that was.
    std::size_t append_segment(std::string_view text, std::string& out) {
        units_.clear();
        const char* p = text.data();
        const char* const end = p + text.size();
        do {
            const utf8_step c = decode_utf8(p, end);
            decompose(c.code_point);
            p += c.size;
        } while (p < end && !is_boundary(normal_kind_of(decode_utf8(p, end).code_point), composes_));
        order();
        if (composes_) join();
        for (const unit& u : units_) out.append(encode_utf8(u.code_point).view());
        return static_cast<std::size_t>(p - text.data());
    }

    void decompose(char32_t c) {
        const normal_kind kind = normal_kind_of(c);
        if (kind.decomposes == 0) return units_.push_back({c, kind.combining});
        if (hangul::is_syllable(c)) {
            const char32_t at = c - hangul::syllables, trail = at % hangul::trail_count;
            units_.push_back({hangul::leads + at / (hangul::vowel_count * hangul::trail_count), 0});
            units_.push_back({hangul::vowels + at / hangul::trail_count % hangul::vowel_count, 0});
            if (trail != 0) units_.push_back({hangul::trails + trail, 0});
            return;
        }
        const decomposition& d = *std::lower_bound(std::begin(decompositions), std::end(decompositions), c,
                                                   [](const decomposition& a, char32_t code) { return a.code < code; });
        decompose(d.first);  // at most 4 levels
        if (d.second != 0) decompose(d.second);
    }

    /// Marks between two starters, by combining class, those of one class as they stand.
    void order() {
        const auto is_starter = [](const unit& u) { return u.combining == 0; };
        for (auto from = units_.begin(); from != units_.end();) {
            from = std::find_if_not(from, units_.end(), is_starter);
            const auto to = std::find_if(from, units_.end(), is_starter);
            const auto before = [](const unit& a, const unit& b) {
                return a.combining != b.combining ? a.combining < b.combining : a.place < b.place;
            };
            for (auto u = from; u != to; ++u) u->place = static_cast<std::size_t>(u - from);
            if (!std::is_sorted(from, to, before)) std::make_heap(from, to, before), std::sort_heap(from, to, before);
            from = to;
        }
    }

    /// Joins each starter with what follows it and is not blocked.
    void join() {
        std::size_t kept = 0, starter = SIZE_MAX;  // of the units kept so far
        for (std::size_t i = 0; i < units_.size(); ++i) {
            const unit u = units_[i];
            if (starter != SIZE_MAX) {
                const bool adjacent = kept - 1 == starter;
                if (adjacent || (u.combining != 0 && units_[kept - 1].combining < u.combining)) {
                    const char32_t joined = compose(units_[starter].code_point, u.code_point);
                    if (joined != 0) {
                        units_[starter].code_point = joined;
                        continue;
                    }
                }
            }
            if (u.combining == 0) starter = kept;
            units_[kept++] = u;
        }
        units_.resize(kept);
    }

    std::vector<unit> units_;
    bool composes_;
};

PHI4FLASH_BODY void append_normal(std::string_view text, normal_form form, std::string& out) {
    if (form == normal_form::none) {
        out.append(text);
    } else {
        normalizer(form == normal_form::nfc).append(text, out);
    }
}
}  // namespace detail

PHI4FLASH_BODY std::size_t normalized_prefix(std::string_view text, normal_form form) {
    if (form == normal_form::nfc) return detail::normal_text<true>::prefix(text);
    if (form == normal_form::nfd) return detail::normal_text<false>::prefix(text);
    return text.size();
}

PHI4FLASH_BODY status append_normalized(std::string_view text, normal_form form, std::string& out) {
    return detail::append_or_nothing("normalize a text", out, [&] { detail::append_normal(text, form, out); });
}
#endif

PHI4FLASH_END
