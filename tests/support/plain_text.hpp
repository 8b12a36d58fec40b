#pragma once
/// Tokenizing once more, from the definitions and without a thought for speed: the split patterns by a backtracking matcher, and merging by
/// looking at all pairs again and again.
#include <phi4flash/text/bpe.hpp>
#include <phi4flash/text/pre_tokenizer.hpp>
#include <phi4flash/text/unicode_tables.hpp>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plain_text {

/// A backtracking matcher, as simple as can be: one alternative is a list of steps, each a set with a least and a most number of
/// repeats.
struct step {
    std::function<bool(char32_t)> in;
    std::size_t least, most;
};
using pieces = std::vector<std::string>;
using text32 = std::u32string;
inline constexpr std::size_t many = 1000000;

inline std::size_t match(const text32& t, std::size_t at, const std::vector<step>& steps, std::size_t s,
                  const std::function<std::size_t(std::size_t)>& then) {
    if (s == steps.size()) return then(at);
    std::size_t n = 0;
    while (n < steps[s].most && at + n < t.size() && steps[s].in(t[at + n])) ++n;
    for (;; --n) {
        if (n < steps[s].least) return 0;
        if (const std::size_t end = match(t, at + n, steps, s + 1, then); end != 0) return end;
        if (n == 0) return 0;
    }
}

inline bool is_in(char32_t c, std::initializer_list<phi4flash::char_class> classes) {
    return std::find(classes.begin(), classes.end(), phi4flash::class_of(c)) != classes.end();
}

/// End of the piece at `at`, straight from the regular expression.
inline std::size_t naive_piece(phi4flash::split_pattern p, const text32& t, std::size_t at) {
    using cc = phi4flash::char_class;
    const auto L = [](char32_t c) { return is_in(c, {cc::upper, cc::lower, cc::letter}); };
    const auto N = [](char32_t c) { return is_in(c, {cc::number}); };
    const auto S = [](char32_t c) { return is_in(c, {cc::space, cc::newline}); };
    const auto other = [=](char32_t c) { return !L(c) && !N(c) && !S(c); };
    const auto crlf = [](char32_t c) { return c == '\r' || c == '\n'; };
    const auto prefix = [=](char32_t c) { return !crlf(c) && !L(c) && !N(c); };
    const auto head = [](char32_t c) { return is_in(c, {cc::upper, cc::letter, cc::mark}); };
    const auto tail = [](char32_t c) { return is_in(c, {cc::lower, cc::letter, cc::mark}); };
    const auto blank = [](char32_t c) { return c == ' '; };
    const auto done = [](std::size_t end) { return end; };
    const auto contraction = [&](std::size_t from, bool fold) -> std::size_t {
        for (const char* c : {"s", "t", "re", "ve", "m", "ll", "d"}) {
            std::size_t i = from;
            if (i >= t.size() || t[i] != '\'') return 0;
            ++i;
            bool good = true;
            for (const char* k = c; *k != 0; ++k, ++i) {
                const char32_t have = i < t.size() ? t[i] : 0;
                const char32_t want = static_cast<char32_t>(*k);
                good = good && (have == want || (fold && (have == want - 32 || (*k == 's' && have == 0x17F))));
            }
            if (good) return i;
        }
        return 0;
    };
    const auto optional_contraction = [&](std::size_t end) { return std::max(end, contraction(end, true)); };
    const auto not_before_text = [&](std::size_t end) { return end == t.size() || S(t[end]) ? end : 0; };
    const auto try_all =
        [&](const std::vector<std::pair<std::vector<step>, std::function<std::size_t(std::size_t)>>>& alternatives) -> std::size_t {
        for (const auto& [steps, then] : alternatives) {
            if (const std::size_t end = match(t, at, steps, 0, then); end != 0) return end;
        }
        return 0;
    };
    const auto slash = [=](char32_t c) { return crlf(c) || c == '/'; };
    if (p == phi4flash::split_pattern::o200k) {
        return try_all({{{{prefix, 0, 1}, {head, 0, many}, {tail, 1, many}}, optional_contraction},
                        {{{prefix, 0, 1}, {head, 1, many}, {tail, 0, many}}, optional_contraction},
                        {{{N, 1, 3}}, done},
                        {{{blank, 0, 1}, {other, 1, many}, {slash, 0, many}}, done},
                        {{{S, 0, many}, {crlf, 1, many}}, done},
                        {{{S, 1, many}}, not_before_text},
                        {{{S, 1, many}}, done}});
    }
    if (const std::size_t end = contraction(at, p != phi4flash::split_pattern::gpt2); end != 0) return end;
    if (p == phi4flash::split_pattern::gpt2) {
        return try_all({{{{blank, 0, 1}, {L, 1, many}}, done},
                        {{{blank, 0, 1}, {N, 1, many}}, done},
                        {{{blank, 0, 1}, {other, 1, many}}, done},
                        {{{S, 1, many}}, not_before_text},
                        {{{S, 1, many}}, done}});
    }
    return try_all({{{{prefix, 0, 1}, {L, 1, many}}, done},
                    {{{N, 1, p == phi4flash::split_pattern::qwen2 ? 1u : 3u}}, done},
                    {{{blank, 0, 1}, {other, 1, many}, {crlf, 0, many}}, done},
                    {{{S, 0, many}, {crlf, 1, many}}, done},
                    {{{S, 1, many}}, not_before_text},
                    {{{S, 1, many}}, done}});
}

inline pieces naive_split(phi4flash::split_pattern p, std::string_view text) {
    text32 t;
    std::vector<std::size_t> offsets;
    for (const char* c = text.data(); c < text.data() + text.size();) {
        const phi4flash::utf8_step s = phi4flash::decode_utf8(c, text.data() + text.size());
        offsets.push_back(static_cast<std::size_t>(c - text.data()));
        t.push_back(s.code_point);
        c += s.size;
    }
    offsets.push_back(text.size());
    pieces found;
    for (std::size_t at = 0; at < t.size();) {
        const std::size_t end = naive_piece(p, t, at);
        if (end <= at) return {};  // cannot be: every character is in some class
        found.emplace_back(text.substr(offsets[at], offsets[end] - offsets[at]));
        at = end;
    }
    return found;
}

using tokens = std::vector<std::uint32_t>;

/// Merges the pair of lowest rank, the leftmost of equals, until there is none. Quadratic.
inline tokens naive_encode(const phi4flash::bpe& b, std::string_view piece) {
    std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint32_t> ranks;
    for (std::uint32_t r = 0; r < b.rules().size(); ++r) ranks[{b.rules()[r].left, b.rules()[r].right}] = r;
    tokens t;
    for (const char& c : piece) t.push_back(b.strings().find({&c, 1}));
    for (;;) {
        std::size_t best = t.size();
        std::uint32_t best_rank = phi4flash::no_token;
        for (std::size_t i = 0; i + 1 < t.size(); ++i) {
            const auto r = ranks.find({t[i], t[i + 1]});
            if (r != ranks.end() && r->second < best_rank) best = i, best_rank = r->second;
        }
        if (best == t.size()) return t;
        t[best] = b.rules()[best_rank].merged;
        t.erase(t.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
}

}  // namespace plain_text
