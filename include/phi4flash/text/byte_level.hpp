#pragma once
/// Byte-level vocabularies spell each byte as a printable character (Radford et al., GPT-2, bytes_to_unicode): there and back.
#include <phi4flash/config/abi.hpp>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>

PHI4FLASH_BEGIN

namespace detail {

/// Appends the characters that spell `bytes`.
PHI4FLASH_BODY void append_byte_level(std::string_view bytes, std::string& out);

/// Which byte a character spells; -1 for none.
struct byte_level_map {
    std::int16_t byte_of[0x144] = {};
    constexpr byte_level_map() {
        for (auto& b : byte_of) b = -1;
        int next = 0x100;
        for (int b = 0; b < 256; ++b) {
            const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
            byte_of[printable ? b : next++] = static_cast<std::int16_t>(b);
        }
    }
};
PHI4FLASH_OWN_DATA inline constexpr byte_level_map byte_level{};

/// Replaces `bytes` by what the byte-level characters of `text` stand for. False if a character stands for none.
[[nodiscard]] PHI4FLASH_BODY bool from_byte_level(std::string_view text, std::string& bytes);

#if PHI4FLASH_BODIES
PHI4FLASH_BODY void append_byte_level(std::string_view bytes, std::string& out) {
    for (const char c : bytes) {
        unsigned code = static_cast<unsigned char>(c);
        if (code < 0x21)
            code += 0x100;
        else if (code >= 0x7f && code <= 0xa0)
            code += 0x121 - 0x7f;
        else if (code == 0xad)
            code = 0x143;
        if (code < 0x80) {
            out.push_back(static_cast<char>(code));
        } else {
            out.push_back(static_cast<char>(0xc0 | code >> 6));
            out.push_back(static_cast<char>(0x80 | (code & 0x3f)));
        }
    }
}

PHI4FLASH_BODY bool from_byte_level(std::string_view text, std::string& bytes) {
    bytes.clear();
    for (std::size_t i = 0; i < text.size(); ++i) {
        std::uint32_t c = static_cast<unsigned char>(text[i]);
        if (c >= 0x80) {
            if (c < 0xC2 || c > 0xC5 || i + 1 == text.size() || (static_cast<unsigned char>(text[i + 1]) & 0xC0) != 0x80) return false;
            c = (c & 0x1F) << 6 | (static_cast<unsigned char>(text[++i]) & 0x3F);
        }
        if (c >= std::size(byte_level.byte_of) || byte_level.byte_of[c] < 0) return false;
        bytes.push_back(static_cast<char>(byte_level.byte_of[c]));
    }
    return true;
}
#endif

}  // namespace detail

PHI4FLASH_END
