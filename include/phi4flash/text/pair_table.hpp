#pragma once
/// Merge rules, and the rank of a pair of tokens.
#include <phi4flash/text/vocabulary.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

PHI4FLASH_BEGIN

/// A rule: two neighbouring tokens become one. Its rank is its position in the list.
struct merge_rule {
    std::uint32_t left = no_token;
    std::uint32_t right = no_token;
    std::uint32_t merged = no_token;
};

namespace detail {

/// Rank of a pair: a hash table of ranks that also holds 8 bits of each pair's hash, so that misses seldom read further.
class pair_table {
public:
    PHI4FLASH_OWN_DATA static constexpr std::uint32_t none = 0xFFFFFFFF;
    static constexpr std::size_t max_merges = (std::size_t{1} << 24) - 1;

    void reserve(std::size_t merges);

    /// Needs room reserved. Errors: bad_merge (the pair is there already, or more pairs than by chance share its hash).
    [[nodiscard]] status insert(std::span<const merge_rule> rules, std::uint32_t rank);

    /// The rank of (left, right), or `none`.
    [[nodiscard]] std::uint32_t find(std::span<const merge_rule> rules, std::uint32_t left, std::uint32_t right) const {
        const std::uint64_t h = hash(left, right);
        for (std::size_t i = h >> shift_; slots_[i] != none; i = (i + 1) & (slots_.size() - 1)) {
            if ((slots_[i] & 0xFF000000u) != tag(h)) continue;
            const std::uint32_t rank = slots_[i] & 0xFFFFFF;
            if (rules[rank].left == left && rules[rank].right == right) return rank;
        }
        return none;
    }

    /// See vocabulary::for_each_table.
    template <class Self, class Visit>
    static void for_each_table(Self& self, Visit&& visit) {
        visit("merges.slots", self.slots_);
    }

    /// To be called when the table came from a file. Errors: bad_merge.
    [[nodiscard]] status check_tables(std::size_t merges);

private:
    [[nodiscard]] static int shift_of(std::size_t places) { return 64 - std::countr_zero(places); }
    [[nodiscard]] static std::uint64_t hash(std::uint32_t left, std::uint32_t right) {
        const std::uint64_t x = (std::uint64_t{left} << 32 | right) * 0x9E3779B97F4A7C15u;
        return (x ^ (x >> 32)) * 0xD6E8FEB86659FD93u;
    }
    [[nodiscard]] static std::uint32_t tag(std::uint64_t h) { return static_cast<std::uint32_t>(h << 24) & 0xFF000000u; }

    std::vector<std::uint32_t> slots_;  // empty until `reserve`
    int shift_ = 58;
};

#if PHI4FLASH_BODIES
PHI4FLASH_BODY status pair_table::insert(std::span<const merge_rule> rules, std::uint32_t rank) {
    const std::uint64_t h = hash(rules[rank].left, rules[rank].right);
    std::size_t i = h >> shift_;
    for (std::size_t probes = 0; slots_[i] != none; i = (i + 1) & (slots_.size() - 1)) {
        if (++probes > max_probes)
            return error::format(errc::bad_merge, "merge %u: more than %zu others are where its hash puts it: want merges that were not made for "
                                                  "that", for_print(rank), max_probes);
        const merge_rule& other = rules[slots_[i] & 0xFFFFFF];
        if (other.left == rules[rank].left && other.right == rules[rank].right)
            return error::format(errc::bad_merge, "merge %u is given twice", for_print(rank));
    }
    slots_[i] = rank | tag(h);
    return {};
}

PHI4FLASH_BODY void pair_table::reserve(std::size_t merges) {
    std::size_t places = 64;
    while (places < merges * 2) places *= 2;
    slots_.assign(places, none);
    shift_ = shift_of(places);
}

PHI4FLASH_BODY status pair_table::check_tables(std::size_t merges) {
    std::size_t used = 0, beyond = 0;
    for (const std::uint32_t slot : slots_) {
        used += slot != none ? 1 : 0;
        beyond += slot != none && (slot & 0xFFFFFF) >= merges ? 1 : 0;
    }
    if (!std::has_single_bit(slots_.size()) || slots_.size() < 64 || used * 2 > slots_.size() || beyond != 0)
        return error::format(errc::bad_merge,
                             "merges.slots: want a power of two of ranks, half free, have %zu, %zu used, %zu of them unknown",
                             slots_.size(), used, beyond);
    if (const std::size_t run = longest_run(slots_, [](std::uint32_t slot) { return slot != none; }); run > 4 * max_probes)
        return error::format(errc::bad_merge, "merges.slots: %zu places in a row are used: want at most %zu", run, 4 * max_probes);
    shift_ = shift_of(slots_.size());
    return {};
}
#endif

}  // namespace detail

PHI4FLASH_END
