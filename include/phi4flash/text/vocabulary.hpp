#pragma once
/// The strings of a vocabulary: one blob of bytes, offsets by id, and an index from bytes to id.
#include <phi4flash/core/out_of_memory.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

PHI4FLASH_BEGIN

/// Ids are small non-negative numbers; this one names nothing.
PHI4FLASH_OWN_DATA inline constexpr std::uint32_t no_token = 0xFFFFFFFF;

/// Limits that keep a hostile file from asking for much memory.
inline constexpr std::size_t max_vocabulary_ids = std::size_t{1} << 22;
inline constexpr std::size_t max_token_bytes = 4096;  ///< of one token
inline constexpr std::size_t max_vocabulary_bytes = std::size_t{1} << 28;  ///< of all together

namespace detail {

/// Unaligned loads of text, as numbers.
[[nodiscard]] inline std::uint64_t load_u64(const char* p) {
    std::uint64_t x = 0;
    std::memcpy(&x, p, 8);
    return x;
}

/// Places of a hash table that are looked at for one key, at most. In a table that is half full nobody is that far from its own place by
/// chance, and four times as many places in a row are not used: more of them were made to share a hash.
inline constexpr std::size_t max_probes = 256;

/// The longest row of places that are used, of which the first is next to the last.
template <class Used>
[[nodiscard]] std::size_t longest_run(const std::vector<std::uint32_t>& places, Used&& used) {
    std::size_t run = 0, longest = 0, first = 0;
    for (std::size_t i = 0; i < places.size(); ++i) {
        run = used(places[i]) ? run + 1 : 0;
        if (run == i + 1) first = run;
        longest = (std::max)(longest, run);
    }
    return (std::max)(longest, (std::min)(run + first, places.size()));
}

/// A hash of bytes for tables that live in memory only.
[[nodiscard]] inline std::uint64_t hash_bytes(std::string_view s) {
    std::uint64_t h = s.size() * 0x9E3779B97F4A7C15u;
    const char* p = s.data();
    std::size_t n = s.size();
    for (; n >= 8; n -= 8, p += 8) h = ((h ^ load_u64(p)) * 0xD6E8FEB86659FD93u) ^ (h >> 29);
    std::uint64_t rest = 0;
    if (n != 0) std::memcpy(&rest, p, n);
    h = (h ^ rest) * 0xD6E8FEB86659FD93u;
    return (h ^ (h >> 32)) * 0x9E3779B97F4A7C15u;
}

}  // namespace detail

/// Strings by id and ids by string. Filled once, then read from any thread. Ids may have gaps; a gap has no string.
class vocabulary {
public:
    /// One past the highest id with a string.
    [[nodiscard]] std::size_t size() const { return places_.size(); }
    /// Strings held.
    [[nodiscard]] std::size_t count() const { return count_; }
    [[nodiscard]] std::size_t blob_bytes() const { return blob_.size(); }

    [[nodiscard]] bool has_string(std::size_t id) const { return id < places_.size() && places_[id].size != 0; }

    /// The bytes of a token; empty for an id without a string. Valid as long as the vocabulary is not changed.
    [[nodiscard]] std::string_view bytes_of(std::size_t id) const {
        if (id >= places_.size()) return {};
        return {blob_.data() + places_[id].offset, places_[id].size};
    }

    /// The number of bytes of a token that is known to have a string.
    [[nodiscard]] std::size_t size_of_known(std::uint32_t id) const { return places_[id].size; }

    /// The id of exactly these bytes, or no_token.
    [[nodiscard]] std::uint32_t find(std::string_view bytes) const {
        if (index_.empty()) return no_token;
        const std::size_t mask = index_.size() - 1;
        for (std::size_t i = slot_of(bytes); index_[i] != no_token; i = (i + 1) & mask) {
            if (bytes_of(index_[i]) == bytes) return index_[i];
        }
        return no_token;
    }

    /// Makes room for `ids` strings of `bytes` in all. Errors: out_of_memory.
    [[nodiscard]] status reserve(std::size_t ids, std::size_t bytes);

    /// Gives an id its string. Errors: bad_vocabulary (empty or oversized string, id out of range or taken, string taken, strings that were made to
    /// share a hash); out_of_memory. Nothing has changed then.
    [[nodiscard]] status add(std::size_t id, std::string_view bytes) {
        return detail::or_out_of_memory("add a token to the vocabulary", [&] { return insert(id, bytes); });
    }

    /// Calls visit(name, table) with each table of `self`, a vocabulary or a const one: how a finished one goes to a file and back.
    template <class Self, class Visit>
    static void for_each_table(Self& self, Visit&& visit) {
        visit("strings.bytes", self.blob_);
        visit("strings.places", self.places_);
        visit("strings.index", self.index_);
    }

    /// To be called when the tables came from a file: with any numbers in them, no look-up leaves them or fails to end.
    /// Errors: bad_vocabulary, naming the table.
    [[nodiscard]] status check_tables();

private:
    struct place {
        std::uint32_t offset = 0;
        std::uint32_t size = 0;
    };

    [[nodiscard]] status insert(std::size_t id, std::string_view bytes);

    [[nodiscard]] std::size_t slot_of(std::string_view bytes) const { return detail::hash_bytes(bytes) & (index_.size() - 1); }

    void rebuild_index(std::size_t wanted);

    std::vector<char> blob_;
    std::vector<place> places_;
    std::vector<std::uint32_t> index_;  // open addressing, a power of two, at most half full
    std::size_t count_ = 0;
};

#if PHI4FLASH_BODIES
PHI4FLASH_BODY status vocabulary::reserve(std::size_t ids, std::size_t bytes) {
    return detail::or_out_of_memory("take a vocabulary", [&] {
        places_.reserve(ids);
        blob_.reserve(bytes);
        if (ids * 2 > index_.size()) rebuild_index(ids);
    });
}

PHI4FLASH_BODY status vocabulary::check_tables() {
    if (places_.size() > max_vocabulary_ids || blob_.size() > max_vocabulary_bytes)
        return error::format(errc::bad_vocabulary, "strings.places: %zu strings of %zu bytes, at most %zu of %zu are allowed",
                             places_.size(), blob_.size(), max_vocabulary_ids, max_vocabulary_bytes);
    count_ = 0;
    for (std::size_t id = 0; id < places_.size(); ++id) {
        const auto [offset, size] = places_[id];
        if (size > max_token_bytes || offset > blob_.size() || size > blob_.size() - offset)
            return error::format(errc::bad_vocabulary, "strings.places: token %zu, %u bytes at %u, leaves the %zu bytes", id,
                                 detail::for_print(size), detail::for_print(offset), blob_.size());
        count_ += size != 0 ? 1 : 0;
    }
    std::size_t used = 0, beyond = 0;
    for (const std::uint32_t id : index_) {
        used += id != no_token ? 1u : 0u;
        beyond += id != no_token && id >= places_.size() ? 1u : 0u;
    }
    if (const std::size_t run = detail::longest_run(index_, [](std::uint32_t id) { return id != no_token; }); run > 4 * detail::max_probes)
        return error::format(errc::bad_vocabulary, "strings.index: %zu places in a row are used: want at most %zu", run, 4 * detail::max_probes);
    if (!std::has_single_bit(index_.size()) || used * 2 > index_.size() || beyond != 0)
        return error::format(errc::bad_vocabulary,
                             "strings.index: want a power of two of ids, half free, have %zu, %zu used, %zu of them unknown",
                             index_.size(), used, beyond);
    return {};
}

PHI4FLASH_BODY status vocabulary::insert(std::size_t id, std::string_view bytes) {
    if (id >= max_vocabulary_ids)
        return error::format(errc::bad_vocabulary, "token id %zu is not below the limit of %zu", id, max_vocabulary_ids);
    if (bytes.empty()) return error::format(errc::bad_vocabulary, "token %zu is an empty string", id);
    if (bytes.size() > max_token_bytes)
        return error::format(errc::bad_vocabulary, "token %zu has %zu bytes, at most %zu are allowed", id, bytes.size(),
                             max_token_bytes);
    if (blob_.size() + bytes.size() > max_vocabulary_bytes)
        return error::format(errc::bad_vocabulary, "the strings of the vocabulary have more than %zu bytes",
                             max_vocabulary_bytes);
    if (has_string(id)) return error::format(errc::bad_vocabulary, "id %zu is given to two tokens", id);
    if ((count_ + 1) * 2 > index_.size()) rebuild_index(count_ + 1);
    const std::size_t mask = index_.size() - 1;
    std::size_t i = slot_of(bytes);
    for (std::size_t probes = 0; index_[i] != no_token; i = (i + 1) & mask) {
        if (++probes > detail::max_probes)
            return error::format(errc::bad_vocabulary,
                                 "token %zu: more than %zu others are where its hash puts it: want strings that were not made for that", id,
                                 detail::max_probes);
        if (bytes_of(index_[i]) == bytes)
            return error::format(errc::bad_vocabulary, "tokens %u and %zu are the same string of %zu bytes", detail::for_print(index_[i]), id,
                                 bytes.size());
    }
    const auto place_of_bytes = static_cast<std::uint32_t>(blob_.size());
    blob_.insert(blob_.end(), bytes.begin(), bytes.end());  // bytes that nothing points to do no harm
    if (id >= places_.size()) places_.resize(id + 1);
    places_[id] = {place_of_bytes, static_cast<std::uint32_t>(bytes.size())};
    index_[i] = static_cast<std::uint32_t>(id);
    ++count_;
    return {};
}

PHI4FLASH_BODY void vocabulary::rebuild_index(std::size_t wanted) {
    std::size_t size = 512;
    while (size < wanted * 2) size *= 2;
    std::vector<std::uint32_t>(size, no_token).swap(index_);
    for (std::size_t id = 0; id < places_.size(); ++id) {
        if (places_[id].size == 0) continue;
        std::size_t i = slot_of(bytes_of(id));
        while (index_[i] != no_token) i = (i + 1) & (size - 1);
        index_[i] = static_cast<std::uint32_t>(id);
    }
}
#endif

PHI4FLASH_END
