#pragma once
/// A small cache from short pieces to their ids: most pieces of a text have been seen before.
#include <phi4flash/text/vocabulary.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

PHI4FLASH_BEGIN

namespace detail {

/// The bytes of a piece of 1 to 15 bytes and its size, as two numbers.
struct word_key {
    std::uint64_t low = 0;
    std::uint64_t high = 0;
    friend bool operator==(const word_key&, const word_key&) = default;
};

/// Direct-mapped: each key has one place, and the newest key has it. One cache line or less a look-up.
class word_cache {
public:
    static constexpr std::size_t max_bytes = 15;
    static constexpr std::size_t max_ids = 3;

    struct entry {
        word_key key;  // no key has size 0, so an empty entry equals none
        std::int32_t ids[max_ids] = {};
        std::uint32_t count = 0;
    };

    explicit word_cache(std::size_t entries) {
        std::size_t slots = 1;
        while (slots < entries) slots *= 2;
        entries_.resize(slots);
    }

    /// The key of [p, p + size); `readable` bytes from p on may be read, at least `size`.
    [[nodiscard]] static word_key key_of(const char* p, std::size_t size, std::size_t readable) {
        char padded[16] = {};
        if (readable < 16) {
            std::memcpy(padded, p, size);
            p = padded;
        }
        word_key k{load_u64(p), load_u64(p + 8)};
        // Bytes beyond the piece are cleared; the top byte, never part of it, holds the size.
        if (size < 8) {
            k.low &= (std::uint64_t{1} << (8 * size)) - 1;
            k.high = 0;
        } else {
            k.high &= (std::uint64_t{1} << (8 * (size - 8))) - 1;
        }
        k.high |= std::uint64_t{size} << 56;
        return k;
    }

    [[nodiscard]] entry& at(const word_key& k) {
        const std::uint64_t h = (k.low ^ (k.high * 0x9E3779B97F4A7C15u)) * 0xD6E8FEB86659FD93u;
        return entries_[(h ^ (h >> 32)) & (entries_.size() - 1)];
    }

private:
    std::vector<entry> entries_;
};

}  // namespace detail

PHI4FLASH_END
