#pragma once
/// UTF-8: decoding that never reads out of bounds and replaces each maximal invalid subpart by U+FFFD, as the Unicode
/// standard recommends (16.0, section 3.9, "U+FFFD Substitution of Maximal Subparts").
#include <phi4flash/config/abi.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

PHI4FLASH_BEGIN

inline constexpr char32_t replacement_character = 0xFFFD;  ///< stands for what is no UTF-8

/// How a sequence of bytes ended.
enum class utf8_state : std::uint8_t {
    complete,   ///< a well-formed code point
    invalid,    ///< bytes that cannot begin or continue one
    truncated,  ///< the text ended inside a sequence that was well-formed so far
};

/// One decoded step: a code point (U+FFFD if not complete) and the bytes it took, at least one.
struct utf8_step {
    char32_t code_point = replacement_character;
    std::uint32_t size = 1;
    utf8_state state = utf8_state::invalid;
};

namespace detail {

/// 2 or 3 for a well-formed code point of so many bytes, which is nearly all text outside ASCII; 0 for everything else. Needs
/// p < end.
[[nodiscard]] inline std::uint32_t common_utf8_size(const char* p, const char* end) {
    const auto byte = [p](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(p[i])); };
    const std::uint32_t lead = byte(0);
    if (lead < 0xE0) return lead >= 0xC2 && end - p >= 2 && (byte(1) & 0xC0) == 0x80 ? 2 : 0;
    if (lead >= 0xF0 || end - p < 3 || (byte(1) & 0xC0) != 0x80 || (byte(2) & 0xC0) != 0x80) return 0;
    const std::uint32_t block = (lead & 0x0F) << 6 | (byte(1) & 0x3F);
    return block >= 0x800 / 64 && (block < 0xD800 / 64 || block >= 0xE000 / 64) ? 3 : 0;  // no overlong forms, no surrogates
}

/// decode_utf8 for every case; kept out of line so that the common ones stay small.
[[nodiscard]] inline utf8_step decode_utf8_any(const char* p, const char* end) {
    const auto byte = [p](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(p[i])); };
    const auto left = static_cast<std::size_t>(end - p);
    const std::uint32_t lead = byte(0);
    if (lead < 0x80) return {lead, 1, utf8_state::complete};
    if (lead < 0xC2 || lead > 0xF4) return {};
    if (left < 2) return {replacement_character, 1, utf8_state::truncated};
    const std::uint32_t second = byte(1);
    if (lead < 0xE0) {
        if ((second & 0xC0) != 0x80) return {};
        return {(lead & 0x1F) << 6 | (second & 0x3F), 2, utf8_state::complete};
    }
    // Four leads narrow the second byte: no overlong forms, no surrogates, nothing beyond U+10FFFF.
    const std::uint32_t lowest = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const std::uint32_t highest = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (second < lowest || second > highest) return {};
    if (left < 3) return {replacement_character, 2, utf8_state::truncated};
    const std::uint32_t third = byte(2);
    if ((third & 0xC0) != 0x80) return {replacement_character, 2, utf8_state::invalid};
    if (lead < 0xF0) return {(lead & 0x0F) << 12 | (second & 0x3F) << 6 | (third & 0x3F), 3, utf8_state::complete};
    if (left < 4) return {replacement_character, 3, utf8_state::truncated};
    const std::uint32_t fourth = byte(3);
    if ((fourth & 0xC0) != 0x80) return {replacement_character, 3, utf8_state::invalid};
    return {(lead & 0x07) << 18 | (second & 0x3F) << 12 | (third & 0x3F) << 6 | (fourth & 0x3F), 4, utf8_state::complete};
}

}  // namespace detail

/// Decodes the code point, or the maximal invalid subpart, at `p`. Needs p < end; reads only [p, end).
[[nodiscard]] inline utf8_step decode_utf8(const char* p, const char* end) {
    const auto byte = [p](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(p[i])); };
    const std::uint32_t size = detail::common_utf8_size(p, end);
    if (size == 2) return {(byte(0) & 0x1F) << 6 | (byte(1) & 0x3F), 2, utf8_state::complete};
    if (size == 3) return {(byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3, utf8_state::complete};
    return detail::decode_utf8_any(p, end);
}

/// The UTF-8 form of a code point. @since 0.2
struct utf8_form {
    char bytes[4] = {};
    std::uint32_t size = 0;
    [[nodiscard]] std::string_view view() const { return {bytes, size}; }
};

/// Surrogates and values beyond U+10FFFF become U+FFFD. @since 0.2
[[nodiscard]] constexpr utf8_form encode_utf8(char32_t c) {
    if (c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) c = replacement_character;
    const auto tail = [c](unsigned shift) { return static_cast<char>(0x80 | (c >> shift & 0x3F)); };
    if (c < 0x80) return {{static_cast<char>(c)}, 1};
    if (c < 0x800) return {{static_cast<char>(0xC0 | c >> 6), tail(0)}, 2};
    if (c < 0x10000) return {{static_cast<char>(0xE0 | c >> 12), tail(6), tail(0)}, 3};
    return {{static_cast<char>(0xF0 | c >> 18), tail(12), tail(6), tail(0)}, 4};
}

/// Bytes of the longest well-formed prefix; `text.size()` if all of it is.
[[nodiscard]] inline std::size_t valid_utf8_prefix(std::string_view text) {
    const char* p = text.data();
    const char* const end = p + text.size();
    while (p < end) {
        if (static_cast<unsigned char>(*p) < 0x80) {
            std::uint64_t eight = 0;
            while (end - p >= 8 && (std::memcpy(&eight, p, 8), (eight & 0x8080808080808080u) == 0)) p += 8;
            while (p < end && static_cast<unsigned char>(*p) < 0x80) ++p;
        } else if (const std::uint32_t size = detail::common_utf8_size(p, end); size != 0) {
            p += size;
        } else {
            const utf8_step step = detail::decode_utf8_any(p, end);
            if (step.state != utf8_state::complete) break;
            p += step.size;
        }
    }
    return static_cast<std::size_t>(p - text.data());
}

namespace detail {

/// Text in an array: what a std::string does, for text whose most is known, without taking memory. The caller keeps to Most.
template <std::size_t Most>
class fixed_text {
public:
    fixed_text& append(std::string_view more) {
        if (!more.empty()) std::memcpy(bytes_ + size_, more.data(), more.size());
        size_ += more.size();
        return *this;
    }
    /// Leaves the text from `first` on.
    void keep_from(std::size_t first) {
        size_ -= first;
        std::memmove(bytes_, bytes_ + first, size_);
    }
    void clear() { size_ = 0; }
    [[nodiscard]] std::string_view view() const { return {bytes_, size_}; }

private:
    std::size_t size_ = 0;
    char bytes_[Most] = {};
};

/// Appends `bytes` as well-formed UTF-8: one U+FFFD for each maximal invalid subpart, everything else as it is. `out` has a member
/// append(std::string_view), as a std::string.
template <class Out>
void append_lossy_utf8(std::string_view bytes, Out& out) {
    while (!bytes.empty()) {
        const std::size_t good = valid_utf8_prefix(bytes);
        out.append(bytes.substr(0, good));
        bytes.remove_prefix(good);
        if (bytes.empty()) return;
        out.append(std::string_view("\xEF\xBF\xBD"));
        bytes.remove_prefix(decode_utf8(bytes.data(), bytes.data() + bytes.size()).size);
    }
}

}  // namespace detail

/// Bytes at the end (0 to 3) that later bytes could still complete to a code point.
[[nodiscard]] inline std::size_t incomplete_utf8_tail(std::string_view bytes) {
    const char* const end = bytes.data() + bytes.size();
    for (std::size_t back = 1; back <= 3 && back <= bytes.size(); ++back) {
        if ((static_cast<unsigned char>(end[-static_cast<std::ptrdiff_t>(back)]) & 0xC0) == 0x80) continue;
        const utf8_step step = decode_utf8(end - back, end);
        return step.state == utf8_state::truncated && step.size == back ? back : 0;
    }
    return 0;
}

PHI4FLASH_END
