#pragma once
/// Byte-pair encoding of one piece: the exact result of merging, again and again, the pair of lowest rank (the leftmost of equals).
///
/// For vocabularies whose merges only use parts that earlier merges made (all published ones), the result is found without merging:
/// it is the one sequence of tokens whose neighbours would not have merged into each other earlier. Longest matches are tried
/// first, shorter ones if the neighbours do not fit; a place that was left once is never entered again, so the work is linear in
/// the piece. Source: the idea of G. Neubeck and H. van Antwerpen, "So many tokens, so little time", github.blog, 2024. Other
/// vocabularies take the ordinary way with a heap, O(n log n).
#include <phi4flash/core/span_of.hpp>
#include <phi4flash/text/byte_trie.hpp>
#include <phi4flash/text/pair_table.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

PHI4FLASH_BEGIN

/// Buffers of one thread for one bpe; taken and grown by the calls that need them, never shrunk.
struct bpe_scratch {
    /// Remembers so many pairs of tokens, at 8 bytes each. Worth it for more than one text.
    explicit bpe_scratch(std::size_t remembered_pairs = 1) : n_pairs(std::bit_ceil(remembered_pairs)) {}

    /// A part of a piece, in a list of its parts.
    struct symbol {
        std::uint32_t token, previous, next;
    };
    /// Two neighbours that could be merged.
    struct candidate {
        std::uint32_t rank, at, left, right;
    };
    /// A token, and the byte at which it begins.
    struct placed {
        std::uint32_t token, begin;
    };
    std::vector<placed> tokens;
    std::vector<std::uint64_t> dead;
    std::size_t n_pairs;
    std::vector<std::uint64_t> pairs;  // two tokens side by side and whether they stay apart; a power of two, or still none
    std::vector<symbol> symbols;
    std::vector<candidate> heap;
};

/// Merge rules over a vocabulary. Immutable after `create`; read from any thread, each with its own scratch.
class bpe {
public:
    /// `ignore_merges`: a piece that is a token is that token, whatever the merges say.
    /// Errors: bad_vocabulary (a byte has no token), bad_merge (unknown ids, a merge whose result is not its parts joined, a pair
    /// given twice, too many, pairs that were made to share a hash), out_of_memory.
    static result<bpe> create(vocabulary strings, std::vector<merge_rule> rules, bool ignore_merges);

    /// The same from tables that a finished one gave to for_each_table: `fill(name, vector)` returns a status and fills each. They
    /// are checked so far that no text makes anything read out of bounds or not end, whatever they hold; not that they are right.
    /// Errors: bad_vocabulary, bad_merge, those of `fill`, and out_of_memory, also where `fill` throws std::bad_alloc.
    template <class Fill>
    static result<bpe> from_tables(Fill&& fill, bool ignore_merges) {
        return detail::or_out_of_memory("read the tables of a tokenizer", [&]() -> result<bpe> {
            bpe b;
            b.ignore_merges_ = ignore_merges;
            status filled;
            for_each_table(b, [&](std::string_view name, auto& table) {
                if (filled) filled = fill(name, table);
            });
            if (!filled) return filled.error();
            b.ordered_ = !b.histories_.empty();
            if (status s = b.check_tables(); !s) return s.error();
            return b;
        });
    }

    /// See vocabulary::for_each_table.
    template <class Self, class Visit>
    static void for_each_table(Self& self, Visit&& visit) {
        vocabulary::for_each_table(self.strings_, visit);
        visit("merges.rules", self.rules_);
        detail::pair_table::for_each_table(self.pairs_, visit);
        visit("merges.histories", self.histories_);
        byte_trie::for_each_table(self.trie_, visit);
    }

    [[nodiscard]] const vocabulary& strings() const { return strings_; }
    [[nodiscard]] std::span<const merge_rule> rules() const { return detail::span_of(rules_); }
    [[nodiscard]] bool ignore_merges() const { return ignore_merges_; }
    /// True if the fast way applies.
    [[nodiscard]] bool ordered() const { return ordered_; }
    [[nodiscard]] std::size_t trie_bytes() const { return trie_.memory_bytes(); }

    /// Calls `sink(id)` for each token of `piece` (not empty, below 2^31 bytes), in order. Errors: out_of_memory, also where `sink` throws
    /// std::bad_alloc.
    template <class Sink>
    status encode(std::string_view piece, bpe_scratch& scratch, Sink&& sink) const {
        return detail::or_out_of_memory("encode a piece of text", [&] { tokens_of(piece, scratch, sink); });
    }

    /// The ordinary way, for any vocabulary: a heap of candidate merges over a linked list. The same result, and the same errors.
    template <class Sink>
    status encode_by_merging(std::string_view piece, bpe_scratch& scratch, Sink&& sink) const {
        return detail::or_out_of_memory("encode a piece of text", [&] { merge(piece, scratch, sink); });
    }

private:
    friend class encoder;
    friend class tokenizer;
    bpe() = default;

    template <class Sink>
    void tokens_of(std::string_view piece, bpe_scratch& scratch, Sink&& sink) const {
        if (!ordered_) {
            if (const std::uint32_t id = ignore_merges_ ? strings_.find(piece) : no_token; id != no_token) return sink(id);
            return merge(piece, scratch, sink);
        }
        const byte_trie::match longest = trie_.longest(strings_, piece.data(), piece.size());
        if (longest.size == piece.size()) return sink(longest.token);
        if (ignore_merges_) {
            if (const std::uint32_t id = strings_.find(piece); id != no_token) return sink(id);
        }
        if (!search(piece, longest, scratch)) return merge(piece, scratch, sink);
        for (const bpe_scratch::placed& t : scratch.tokens) sink(t.token);
    }

    template <class Sink>
    void merge(std::string_view piece, bpe_scratch& scratch, Sink&& sink) const {
        auto& symbols = scratch.symbols;
        symbols.resize(piece.size());
        const auto count = static_cast<std::uint32_t>(piece.size());
        for (std::uint32_t i = 0; i < count; ++i) symbols[i] = {byte_token_[static_cast<unsigned char>(piece[i])], i - 1, i + 1};
        scratch.heap.clear();
        for (std::uint32_t i = 0; i + 1 < count; ++i) push_candidate(scratch, i, count);
        std::make_heap(scratch.heap.begin(), scratch.heap.end(), later);
        while (!scratch.heap.empty()) {
            std::pop_heap(scratch.heap.begin(), scratch.heap.end(), later);
            const bpe_scratch::candidate c = scratch.heap.back();
            scratch.heap.pop_back();
            bpe_scratch::symbol& left = symbols[c.at];
            // Stale candidates name a pair that is no longer there.
            if (left.token != c.left || left.next >= count || symbols[left.next].token != c.right) continue;
            symbols[left.next].token = no_token;
            left.token = rules_[c.rank].merged;
            left.next = symbols[left.next].next;
            if (left.next < count) {
                symbols[left.next].previous = c.at;
                if (push_candidate(scratch, c.at, count)) std::push_heap(scratch.heap.begin(), scratch.heap.end(), later);
            }
            if (left.previous < count && push_candidate(scratch, left.previous, count))
                std::push_heap(scratch.heap.begin(), scratch.heap.end(), later);
        }
        for (std::uint32_t i = 0; i < count; i = symbols[i].next) sink(symbols[i].token);
    }

    /// How a token comes to be when its own bytes are encoded: by the rule `rank`, from `left` and `right`.
    struct history {
        std::int32_t rank = unreachable;
        std::uint32_t left = no_token;
        std::uint32_t right = no_token;
        std::uint32_t shorter = no_token;  // the longest reachable token that is a proper prefix
    };
    PHI4FLASH_OWN_DATA static constexpr std::int32_t is_byte = -1;
    PHI4FLASH_OWN_DATA static constexpr std::int32_t unreachable = -2;

    [[nodiscard]] static bool later(const bpe_scratch::candidate& a, const bpe_scratch::candidate& b) {
        return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
    }

    bool push_candidate(bpe_scratch& scratch, std::uint32_t at, std::uint32_t count) const {
        const bpe_scratch::symbol& s = scratch.symbols[at];
        if (s.next >= count) return false;
        const std::uint32_t right = scratch.symbols[s.next].token;
        const std::uint32_t rank = pairs_.find(rules(), s.token, right);
        if (rank == detail::pair_table::none) return false;
        scratch.heap.push_back({rank, at, s.token, right});
        return true;
    }

    [[nodiscard]] status check_bytes();

    [[nodiscard]] status check_tables();

    [[nodiscard]] status check_rules();

    /// Finds each token's history, in order of rank, and whether the rules are ordered.
    void find_histories();

    [[nodiscard]] status build_trie();

    /// True if x and y, side by side, are never merged across their border by a rule below `limit`. Goes back in time: the
    /// younger of the two tokens at the border is replaced by its part there. Of equal ranks the left one is older, since merging
    /// goes from left to right.
    [[nodiscard]] bool stay_apart(std::uint32_t x, std::uint32_t y, std::uint32_t limit = detail::pair_table::none) const;

    /// stay_apart, remembered: neighbours in a text come again, and going back in time misses the cache at every step.
    [[nodiscard]] bool stay_apart(std::uint32_t x, std::uint32_t y, std::vector<std::uint64_t>& pairs) const;

    /// Fills scratch.tokens with the encoding of `piece`, whose longest first token is `next`. False if there is none, or a token
    /// is longer than the text where it was found: only in tables of a damaged file.
    [[nodiscard]] bool search(std::string_view piece, byte_trie::match next, bpe_scratch& scratch) const;

    vocabulary strings_;
    std::vector<merge_rule> rules_;
    detail::pair_table pairs_;
    std::vector<history> histories_;
    byte_trie trie_;
    std::uint32_t byte_token_[256] = {};
    bool ordered_ = true;
    bool ignore_merges_ = false;
};

#if PHI4FLASH_BODIES
PHI4FLASH_BODY result<bpe> bpe::create(vocabulary strings, std::vector<merge_rule> rules, bool ignore_merges) {
    return detail::or_out_of_memory("build the tables of a tokenizer", [&]() -> result<bpe> {
        bpe b;
        b.strings_ = std::move(strings);
        b.rules_ = std::move(rules);
        b.ignore_merges_ = ignore_merges;
        if (status s = b.check_rules(); !s) return s.error();
        b.find_histories();
        if (status s = b.build_trie(); !s) return s.error();
        return b;
    });
}

PHI4FLASH_BODY status bpe::check_bytes() {
    for (unsigned b = 0; b < 256; ++b) {
        const char byte = static_cast<char>(b);
        byte_token_[b] = strings_.find({&byte, 1});
        if (byte_token_[b] == no_token)
            return error::format(errc::bad_vocabulary, "the vocabulary has no token for the byte 0x%02X", b);
    }
    if (rules_.size() > detail::pair_table::max_merges)
        return error::format(errc::bad_merge, "%zu merges, at most %zu are allowed", rules_.size(),
                             detail::pair_table::max_merges);
    return {};
}

PHI4FLASH_BODY status bpe::check_tables() {
    if (status s = strings_.check_tables(); !s) return s;
    if (status s = check_bytes(); !s) return s;
    for (std::size_t rank = 0; rank < rules_.size(); ++rank) {
        const auto [left, right, merged] = rules_[rank];
        if (!strings_.has_string(left) || !strings_.has_string(right) || !strings_.has_string(merged) ||
            strings_.size_of_known(merged) != strings_.size_of_known(left) + strings_.size_of_known(right))
            return error::format(errc::bad_merge, "merges.rules: merge %zu, of tokens %u and %u, cannot make token %u", rank,
                                 detail::for_print(left), detail::for_print(right), detail::for_print(merged));
    }
    if (status s = pairs_.check_tables(rules_.size()); !s || !ordered_) return s;
    if (histories_.size() != strings_.size())
        return error::format(errc::bad_merge, "merges.histories: want one for each of %zu tokens, have %zu", strings_.size(),
                             histories_.size());
    const auto reachable = [&](std::uint32_t id) { return id < histories_.size() && histories_[id].rank != unreachable; };
    for (std::uint32_t id = 0; id < histories_.size(); ++id) {
        // Parts and prefixes are shorter than the whole, so going back to them ends.
        const history& h = histories_[id];
        bool good = h.rank == unreachable || (h.rank == is_byte && strings_.size_of_known(id) == 1);
        if (h.rank >= 0 && static_cast<std::size_t>(h.rank) < rules_.size()) {
            const merge_rule& r = rules_[static_cast<std::size_t>(h.rank)];
            good = r.merged == id && r.left == h.left && r.right == h.right && reachable(h.left) && reachable(h.right);
        }
        if (h.shorter != no_token)
            good = good && reachable(h.shorter) && strings_.size_of_known(h.shorter) < strings_.size_of_known(id);
        if (!good)
            return error::format(errc::bad_merge, "merges.histories: token %u cannot come from merge %d of tokens %u and %u",
                                 detail::for_print(id), static_cast<int>(h.rank), detail::for_print(h.left), detail::for_print(h.right));
    }
    return trie_.check_tables(reachable);
}

PHI4FLASH_BODY status bpe::check_rules() {
    if (status s = check_bytes(); !s) return s;
    pairs_.reserve(rules_.size());
    for (std::uint32_t rank = 0; rank < rules_.size(); ++rank) {
        const merge_rule& r = rules_[rank];
        const std::string_view left = strings_.bytes_of(r.left), right = strings_.bytes_of(r.right),
                               merged = strings_.bytes_of(r.merged);
        if (left.empty() || right.empty() || merged.empty())
            return error::format(errc::bad_merge, "merge %u names an id without a string", detail::for_print(rank));
        if (merged.size() != left.size() + right.size() || !merged.starts_with(left) || !merged.ends_with(right))
            return error::format(errc::bad_merge, "merge %u: token %u is not token %u followed by token %u", detail::for_print(rank),
                                 detail::for_print(r.merged), detail::for_print(r.left), detail::for_print(r.right));
        if (const status s = pairs_.insert(rules(), rank); !s) return s;
    }
    return {};
}

PHI4FLASH_BODY void bpe::find_histories() {
    histories_.assign(strings_.size(), history{});
    std::vector<std::int32_t> newest(strings_.size(), unreachable);  // last rule that makes the token
    for (const std::uint32_t id : byte_token_) histories_[id].rank = is_byte;
    for (std::uint32_t rank = 0; rank < rules_.size(); ++rank) newest[rules_[rank].merged] = static_cast<std::int32_t>(rank);
    ordered_ = true;
    for (std::uint32_t rank = 0; rank < rules_.size() && ordered_; ++rank) {
        const merge_rule& r = rules_[rank];
        const auto limit = static_cast<std::int32_t>(rank);
        if (newest[r.left] >= limit || newest[r.right] >= limit) ordered_ = false;
        history& h = histories_[r.merged];
        if (h.rank != unreachable || histories_[r.left].rank == unreachable || histories_[r.right].rank == unreachable)
            continue;
        if (stay_apart(r.left, r.right, rank)) h = {limit, r.left, r.right, no_token};
    }
    if (!ordered_) histories_.clear();
}

PHI4FLASH_BODY status bpe::build_trie() {
    std::vector<std::pair<std::uint64_t, std::uint32_t>> keyed;  // the first eight bytes, big endian, and the id
    keyed.reserve(strings_.count());
    for (std::uint32_t id = 0; id < histories_.size(); ++id) {
        if (histories_[id].rank == unreachable) continue;
        const std::string_view s = strings_.bytes_of(id);
        std::uint64_t key = 0;
        for (std::size_t i = 0; i < 8; ++i) key = key << 8 | (i < s.size() ? static_cast<unsigned char>(s[i]) : 0u);
        keyed.emplace_back(key, id);
    }
    std::sort(keyed.begin(), keyed.end(), [this](const auto& a, const auto& b) {
        return a.first != b.first ? a.first < b.first : strings_.bytes_of(a.second) < strings_.bytes_of(b.second);
    });
    std::vector<std::uint32_t> sorted;
    sorted.reserve(keyed.size());
    std::vector<std::uint32_t> prefixes;  // of the token at hand, shortest first
    for (const auto& [key, id] : keyed) {
        sorted.push_back(id);
        while (!prefixes.empty() && !strings_.bytes_of(id).starts_with(strings_.bytes_of(prefixes.back()))) prefixes.pop_back();
        if (!prefixes.empty()) histories_[id].shorter = prefixes.back();
        prefixes.push_back(id);
    }
    return trie_.build(strings_, detail::span_of(sorted));
}

PHI4FLASH_BODY bool bpe::stay_apart(std::uint32_t x, std::uint32_t y, std::uint32_t limit) const {
    std::uint32_t x_until = limit, y_until = limit;
    for (;;) {
        const std::uint32_t rank = pairs_.find(rules(), x, y);
        if (rank < x_until && rank <= y_until) return false;
        const history& hx = histories_[x];
        const history& hy = histories_[y];
        if (hx.rank > hy.rank) {
            x_until = static_cast<std::uint32_t>(hx.rank);
            x = hx.right;
        } else if (hy.rank >= 0) {
            y_until = static_cast<std::uint32_t>(hy.rank);
            y = hy.left;
        } else {
            return true;
        }
    }
}

PHI4FLASH_BODY bool bpe::stay_apart(std::uint32_t x, std::uint32_t y, std::vector<std::uint64_t>& pairs) const {
    const std::uint64_t key = std::uint64_t{x} << 32 | y << 1;
    std::uint64_t& known = pairs[(key * 0x9E3779B97F4A7C15u >> 32) & (pairs.size() - 1)];
    if ((known ^ key) > 1) known = key | (stay_apart(x, y) ? 1u : 0u);
    return (known & 1) != 0;
}

PHI4FLASH_BODY bool bpe::search(std::string_view piece, byte_trie::match next, bpe_scratch& scratch) const {
    const auto size = static_cast<std::uint32_t>(piece.size());
    if (scratch.pairs.empty()) scratch.pairs.assign(scratch.n_pairs, ~std::uint64_t{0});
    std::vector<bpe_scratch::placed>& tokens = scratch.tokens;
    std::vector<std::uint64_t>& dead = scratch.dead;  // ends of a prefix that cannot be continued
    tokens.clear();
    dead.clear();  // filled at the first dead end: most pieces have none
    std::uint32_t at = 0;
    while (at < size) {
        const std::uint32_t end = at + next.size;
        if (end > size) return false;
        const bool is_dead = !dead.empty() && (dead[end / 64] >> (end % 64) & 1) != 0;
        if (!is_dead && (tokens.empty() || stay_apart(tokens.back().token, next.token, scratch.pairs))) {
            tokens.push_back({next.token, at});
            at = end;
            if (at < size) next = trie_.longest(strings_, piece.data() + at, size - at);
            continue;
        }
        next.token = histories_[next.token].shorter;
        // Every byte is a token, so the first place always has a way on, and `tokens` is not empty here.
        while (next.token == no_token) {
            if (tokens.empty()) return false;
            if (dead.empty()) dead.resize(size / 64 + 1);
            dead[at / 64] |= std::uint64_t{1} << (at % 64);
            at = tokens.back().begin;
            next.token = histories_[tokens.back().token].shorter;
            tokens.pop_back();
        }
        next.size = static_cast<std::uint32_t>(strings_.size_of_known(next.token));
    }
    return true;
}
#endif

PHI4FLASH_END
