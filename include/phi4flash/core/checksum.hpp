#pragma once
/// XXH64, the checksum of what is kept outside: finds what was altered by accident, and is faster than memory. Not against forgery.
/// @since 0.2
#include <phi4flash/config/abi.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

PHI4FLASH_BEGIN

/// Bytes in any cut give the same value, that of `xxhsum -H1`, on every machine.   Source: xxHash's specification, XXH64, seed 0.
class xxh64 {
public:
    void update(std::span<const std::byte> bytes) {
        total_ += bytes.size();
        if (held_ + bytes.size() < stripe) return hold(bytes);
        if (held_ != 0) {
            const std::size_t missing = stripe - held_;
            hold(bytes.first(missing));
            mix_stripe(waiting_);
            held_ = 0;
            bytes = bytes.subspan(missing);
        }
        for (; bytes.size() >= stripe; bytes = bytes.subspan(stripe)) mix_stripe(bytes.data());
        hold(bytes);
    }
    /// A number, as its eight bytes in little-endian order.
    void update(std::uint64_t number) {
        std::byte bytes[8];
        for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<std::byte>(number >> (8 * i));
        update(std::span<const std::byte>(bytes));
    }

    /// Of everything so far.
    [[nodiscard]] std::uint64_t value() const {
        std::uint64_t h = seedless;
        if (total_ >= stripe) {
            h = std::rotl(lane_[0], 1) + std::rotl(lane_[1], 7) + std::rotl(lane_[2], 12) + std::rotl(lane_[3], 18);
            for (const std::uint64_t lane : lane_) h = (h ^ mixed(0, lane)) * prime1 + prime4;
        }
        h += total_;
        std::size_t at = 0;
        for (; at + 8 <= held_; at += 8) h = std::rotl(h ^ mixed(0, read(waiting_ + at, 8)), 27) * prime1 + prime4;
        for (; at + 4 <= held_; at += 4) h = std::rotl(h ^ (read(waiting_ + at, 4) * prime1), 23) * prime2 + prime3;
        for (; at < held_; ++at) h = std::rotl(h ^ (read(waiting_ + at, 1) * prime5), 11) * prime1;
        h = (h ^ (h >> 33)) * prime2;
        h = (h ^ (h >> 29)) * prime3;
        return h ^ (h >> 32);
    }

private:
    static constexpr std::uint64_t prime1 = 0x9e3779b185ebca87u;
    static constexpr std::uint64_t prime2 = 0xc2b2ae3d27d4eb4fu;
    static constexpr std::uint64_t prime3 = 0x165667b19e3779f9u;
    static constexpr std::uint64_t prime4 = 0x85ebca77c2b2ae63u;
    static constexpr std::uint64_t prime5 = 0x27d4eb2f165667c5u;
    static constexpr std::uint64_t seedless = prime5;
    static constexpr std::size_t stripe = 32;

    [[nodiscard]] static std::uint64_t mixed(std::uint64_t lane, std::uint64_t word) { return std::rotl(lane + word * prime2, 31) * prime1; }
    [[nodiscard]] static std::uint64_t read(const std::byte* from, std::size_t bytes) {
        std::uint64_t word = 0;
        if constexpr (std::endian::native == std::endian::little) {
            std::memcpy(&word, from, bytes);
        } else {
            for (std::size_t i = 0; i < bytes; ++i) word |= static_cast<std::uint64_t>(from[i]) << (8 * i);
        }
        return word;
    }

    void mix_stripe(const std::byte* from) {
        for (std::size_t i = 0; i < 4; ++i) lane_[i] = mixed(lane_[i], read(from + 8 * i, 8));
    }
    void hold(std::span<const std::byte> bytes) {
        if (!bytes.empty()) std::memcpy(waiting_ + held_, bytes.data(), bytes.size());
        held_ += bytes.size();
    }

    std::uint64_t lane_[4] = {prime1 + prime2, prime2, 0, 0 - prime1};
    std::uint64_t total_ = 0;
    std::byte waiting_[stripe] = {};
    std::size_t held_ = 0;
};

PHI4FLASH_END
