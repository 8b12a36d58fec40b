#pragma once
/// A double-array trie over a set of tokens: the longest token at a place in a text, one table read a byte. A branch with a single
/// token left is not spelled out; its bytes are compared with the vocabulary's.
#include <phi4flash/text/vocabulary.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

PHI4FLASH_BEGIN

/// To be built, or to be filled with the tables of a built one, before anything is looked for.
/// Source: Aoe, "An efficient digital search algorithm by using a double-array structure", 1989.
class byte_trie {
public:
    /// A token that was found.
    struct match {
        std::uint32_t token = no_token;
        std::uint32_t size = 0;  ///< bytes of the token
    };

    /// Longest token that is a prefix of [p, p + n), or no_token. `strings` are those of `build`.
    [[nodiscard]] match longest(const vocabulary& strings, const char* p, std::size_t n) const {
        match best;
        std::uint32_t at = 0;
        for (std::uint32_t i = 0; i < n;) {
            const std::uint32_t next = units_[at].base + static_cast<unsigned char>(p[i]);
            if (units_[next].parent != at) break;
            at = next;
            ++i;
            const unit& here = units_[at];
            if (here.base >= leaf) {
                if (here.base == leaf) return {here.token, i};
                const std::string_view whole = strings.bytes_of(here.token);
                if (whole.size() < i || whole.size() > n) return best;
                if (std::memcmp(whole.data() + i, p + i, whole.size() - i) != 0) return best;
                return {here.token, static_cast<std::uint32_t>(whole.size())};
            }
            if (here.token != no_token) best = {here.token, i};
        }
        return best;
    }

    /// Takes the tokens with these ids, sorted by their bytes. Linear in the bytes, but for the search of free places. Errors: out_of_memory.
    [[nodiscard]] status build(const vocabulary& strings, std::span<const std::uint32_t> sorted) {
        return detail::or_out_of_memory("build the tables of a vocabulary", [&] { build_tables(strings, sorted); });
    }

    /// See vocabulary::for_each_table.
    template <class Self, class Visit>
    static void for_each_table(Self& self, Visit&& visit) {
        visit("trie.units", self.units_);
    }

    /// To be called when the table came from a file: with any numbers in it, `longest` stays inside of it, gives only tokens that
    /// `is_valid(id)` likes, and always one for a text that is not empty. Their sizes may still not be those of the tokens.
    /// Errors: bad_vocabulary.
    template <class IsValid>
    [[nodiscard]] status check_tables(IsValid&& is_valid) const {
        if (units_.size() < 512 || units_.size() >= leaf)
            return error::format(errc::bad_vocabulary, "trie.units: want 512 units or more, have %zu", units_.size());
        const std::size_t most_base = units_.size() - 256;
        for (std::size_t i = 0; i < units_.size(); ++i) {
            const unit& u = units_[i];
            const bool is_leaf = u.base == leaf || u.base == leaf + 1;
            if ((!is_leaf && u.base > most_base) || (u.token == no_token ? is_leaf : !is_valid(u.token)))
                return error::format(errc::bad_vocabulary, "trie.units: unit %zu leads to unit %u or token %u, which is none", i,
                                     detail::for_print(u.base), detail::for_print(u.token));
        }
        for (unsigned byte = 0; byte < 256; ++byte) {
            const std::uint32_t base = units_[0].base;
            const unit child = base <= most_base ? units_[base + byte] : unit{};
            if (child.parent != 0 || child.token == no_token || child.base == leaf + 1)
                return error::format(errc::bad_vocabulary, "trie.units: no token begins with the byte 0x%02X", byte);
        }
        return {};
    }

    [[nodiscard]] std::size_t memory_bytes() const { return units_.size() * sizeof(unit); }

private:
    PHI4FLASH_OWN_DATA static constexpr std::uint32_t nowhere = 0xFFFFFFFF;
    struct unit {
        std::uint32_t base = 0;          // children of unit s are at base + byte; or `leaf`, `leaf + 1`
        std::uint32_t parent = nowhere;  // nowhere: unused
        std::uint32_t token = no_token;  // the token that ends here
    };
    struct branch {
        std::uint32_t node, lo, hi, depth;  // tokens sorted[lo, hi) share `depth` bytes
    };
    PHI4FLASH_OWN_DATA static constexpr std::uint32_t leaf = 0xFFFFFFF0;  // + 1: bytes of the token are left to compare

    void build_tables(const vocabulary& strings, std::span<const std::uint32_t> sorted);

    void grow(const vocabulary& strings, std::span<const std::uint32_t> sorted, branch from, std::vector<branch>& open);

    /// A base under which all labels are free. After a bounded search where the first free places are, and another one at the end, it is a fresh
    /// place behind that: units without number cannot be left free by tokens that were made for it. Every base leaves room for all 256
    /// bytes, so that a lookup needs no bounds.
    [[nodiscard]] std::uint32_t find_base(std::span<const unsigned char> labels);

    /// The same from `base` on, 64 candidates at a time, until `base` is where the search ended. `nowhere` if there is none.
    [[nodiscard]] std::uint32_t search_base(std::span<const unsigned char> labels, std::uint32_t& base) const;

    /// Which of the units from `at` on are free, lowest bit first.
    [[nodiscard]] std::uint64_t free_bits(std::uint32_t at) const {
        const std::uint64_t low = free_[at / 64] >> (at % 64);
        return at % 64 == 0 ? low : low | free_[at / 64 + 1] << (64 - at % 64);
    }

    void take(std::uint32_t at) {
        free_[at / 64] &= ~(std::uint64_t{1} << (at % 64));
        while (first_free_ < units_.size() && free_bits(first_free_) == 0) first_free_ += 64;
    }

    static constexpr std::uint32_t most_tries = 512;

    std::vector<unit> units_;  // empty until `build`
    std::vector<std::uint64_t> free_;  // while building: one bit a unit
    std::uint32_t first_free_ = 0;     // no unit before it is free
};

#if PHI4FLASH_BODIES
PHI4FLASH_BODY void byte_trie::build_tables(const vocabulary& strings, std::span<const std::uint32_t> sorted) {
    units_.reserve(sorted.size() * 2 + 1024);
    units_.assign(1024, unit{});
    free_.assign(units_.size() / 64, ~std::uint64_t{0});
    first_free_ = 0;
    take(0);
    if (sorted.empty()) return;
    std::vector<branch> open{{0, 0, static_cast<std::uint32_t>(sorted.size()), 0}};
    for (std::size_t next = 0; next < open.size(); ++next) grow(strings, sorted, open[next], open);
    free_ = {};
}

PHI4FLASH_BODY void byte_trie::grow(const vocabulary& strings, std::span<const std::uint32_t> sorted, branch from, std::vector<branch>& open) {
    unsigned char labels[256];
    std::uint32_t starts[257];
    std::size_t children = 0;
    for (std::uint32_t i = from.lo; i < from.hi; ++i) {
        const std::string_view s = strings.bytes_of(sorted[i]);
        if (s.size() == from.depth) continue;  // the token that ends at this node
        const auto label = static_cast<unsigned char>(s[from.depth]);
        if (children == 0 || labels[children - 1] != label) {
            labels[children] = label;
            starts[children++] = i;
        }
    }
    starts[children] = from.hi;
    const std::uint32_t base = find_base({labels, children});
    units_[from.node].base = base;
    for (std::size_t c = 0; c < children; ++c) {
        const std::uint32_t first = sorted[starts[c]];
        const std::size_t size = strings.bytes_of(first).size();
        const bool ends_here = size == from.depth + 1;
        unit& child = units_[base + labels[c]];
        child.parent = from.node;
        take(base + labels[c]);
        if (starts[c + 1] - starts[c] == 1) {
            child.token = first;
            child.base = ends_here ? leaf : leaf + 1;
        } else {
            if (ends_here) child.token = first;
            open.push_back({base + labels[c], starts[c], starts[c + 1], from.depth + 1});
        }
    }
}

PHI4FLASH_BODY std::uint32_t byte_trie::search_base(std::span<const unsigned char> labels, std::uint32_t& base) const {
    const auto fitting = [&] {
        std::uint64_t mask = ~std::uint64_t{0};
        for (const unsigned char l : labels) mask &= free_bits(base + l);
        return mask;
    };
    for (std::uint32_t tries = 0; tries < most_tries && base + 384 < units_.size(); ++tries, base += 64) {
        if (const std::uint64_t mask = fitting(); mask != 0) return base + static_cast<std::uint32_t>(std::countr_zero(mask));
    }
    return nowhere;
}

PHI4FLASH_BODY std::uint32_t byte_trie::find_base(std::span<const unsigned char> labels) {
    std::uint32_t base = first_free_ - std::min<std::uint32_t>(first_free_, labels[0]);
    if (const std::uint32_t found = search_base(labels, base); found != nowhere) return found;
    const auto size = static_cast<std::uint32_t>(units_.size());
    base = (std::max)(base, size - std::min<std::uint32_t>(size, 64 * most_tries));
    if (const std::uint32_t found = search_base(labels, base); found != nowhere) return found;
    base = size;
    units_.resize(units_.size() + 1024);
    free_.resize(units_.size() / 64, ~std::uint64_t{0});
    return base;
}
#endif

PHI4FLASH_END
