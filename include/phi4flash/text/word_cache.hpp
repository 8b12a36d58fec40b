#pragma once
/// A small cache from short pieces to their ids: most pieces of a text have been seen before.
#include <phi4flash/text/vocabulary.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

PHI4FLASH_BEGIN

namespace detail {

/// From pieces of 1 to 8 * Words - 1 bytes to at most `Ids` ids. Direct-mapped: each key has one place, and the newest key has it.
/// An entry is a cache line or half of one.
template <std::size_t Words, std::size_t Ids>
class word_cache {
public:
    static constexpr std::size_t max_bytes = 8 * Words - 1;
    static constexpr std::size_t max_ids = Ids;

    /// The bytes of a piece, zeros, and in the last byte, which is never part of it, its size.
    struct key {
        std::uint64_t word[Words] = {};
        friend bool operator==(const key&, const key&) = default;
    };
    struct entry {
        word_cache::key key;  // no key has size 0, so an empty entry equals none
        std::int32_t ids[Ids] = {};
        std::uint32_t count = 0;
    };

    /// Has no place yet.
    word_cache() = default;
    explicit word_cache(std::size_t entries) : entries_(std::bit_ceil(entries)) {}
    [[nodiscard]] bool empty() const { return entries_.empty(); }

    /// The key of [p, p + size); `readable` bytes from p on may be read, at least `size`.
    [[nodiscard]] static key key_of(const char* p, std::size_t size, std::size_t readable) {
        char padded[8 * Words] = {};
        if (readable < sizeof padded) {
            std::memcpy(padded, p, size);
            p = padded;
        }
        key k;
        for (std::size_t i = 0; i < Words; ++i) {
            const std::size_t bytes = size < 8 * i ? 0 : size - 8 * i;  // of this word that are inside the piece
            const std::uint64_t inside = bytes >= 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << (8 * bytes)) - 1;
            k.word[i] = load_u64(p + 8 * i) & inside;
        }
        k.word[Words - 1] |= std::uint64_t{size} << 56;
        return k;
    }

    [[nodiscard]] entry& at(const key& k) {
        std::uint64_t h = k.word[0];
        for (std::size_t i = 1; i < Words; ++i) h = (h ^ (h >> 32) ^ k.word[i] * 0x9E3779B97F4A7C15u) * 0xD6E8FEB86659FD93u;
        return entries_[(h ^ (h >> 32)) & (entries_.size() - 1)];
    }

private:
    std::vector<entry> entries_;
};

}  // namespace detail

PHI4FLASH_END
