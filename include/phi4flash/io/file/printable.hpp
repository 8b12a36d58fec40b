#pragma once
/// Names and paths made fit for an error sentence: short, UTF-8, and without control characters that a terminal would obey.
#include <phi4flash/config/abi.hpp>
#include <phi4flash/text/utf8.hpp>

#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>
#if PHI4FLASH_FILES
#include <concepts>
#include <filesystem>
#endif

PHI4FLASH_BEGIN

#if PHI4FLASH_FILES
namespace detail {

/// The path as UTF-8. On Windows, halves of surrogate pairs that stand alone are lost; nothing throws.
[[nodiscard]] PHI4FLASH_BODY std::string to_utf8(const std::filesystem::path& path);

/// The path that a name of UTF-8 says. On Windows, '?' stands for bytes that are none; elsewhere names may have any bytes.
[[nodiscard]] PHI4FLASH_BODY std::filesystem::path from_utf8(std::string_view text);

}  // namespace detail
#endif

/// A copy of at most `max_bytes` bytes to pass to "%s". Names keep their beginning, paths and names of files their end.
class printable {
public:
    static constexpr std::size_t max_bytes = 120;

    explicit printable(std::string_view text) { copy(text, false); }
    /// Which keeps its end, as a path does. @since 0.2
    [[nodiscard]] static printable name_of_file(std::string_view name) {
        printable made;
        made.copy(name, true);
        return made;
    }
#if PHI4FLASH_FILES
    template <std::same_as<std::filesystem::path> Path>  // and nothing that converts to one
    explicit printable(const Path& path) {
        if constexpr (sizeof(std::filesystem::path::value_type) == 1) {
            copy(path.native(), true);  // takes no memory
        } else {
            copy(detail::to_utf8(path), true);
        }
    }
#endif

    [[nodiscard]] const char* c_str() const { return text_; }

private:
    printable() = default;
    void copy(std::string_view text, bool keep_end);
    static char* append(char* out, std::string_view piece) {
        std::memcpy(out, piece.data(), piece.size());
        return out + piece.size();
    }

    char text_[max_bytes + 1] = {};
};

#if PHI4FLASH_BODIES
#if PHI4FLASH_FILES
namespace detail {

PHI4FLASH_COLD_BODY std::filesystem::path from_utf8(std::string_view text) {
    std::u8string name(text.begin(), text.end());
#if defined(_WIN32)
    for (std::size_t at = 0; (at += valid_utf8_prefix(text.substr(at))) < name.size(); ++at) name[at] = u8'?';
#endif
    return name;
}

PHI4FLASH_COLD_BODY std::string to_utf8(const std::filesystem::path& path) {
    std::string text;
    char32_t high = 0;
    for (const auto unit : path.native()) {
        if constexpr (sizeof unit == 1) {
            text.push_back(static_cast<char>(unit));
        } else {
            char32_t c = static_cast<char16_t>(unit);
            if (c >= 0xd800 && c < 0xdc00) {
                high = c;
                continue;
            }
            if (c >= 0xdc00 && c < 0xe000) c = high == 0 ? U'?' : 0x10000 + ((high - 0xd800) << 10) + (c - 0xdc00);
            high = 0;
            const std::size_t tail = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
            constexpr unsigned char lead[] = {0x00, 0xc0, 0xe0, 0xf0};
            text.push_back(static_cast<char>(lead[tail] | (c >> (6 * tail))));
            for (std::size_t i = tail; i > 0; --i) text.push_back(static_cast<char>(0x80 | ((c >> (6 * (i - 1))) & 0x3f)));
        }
    }
    return text;
}

}  // namespace detail
#endif

PHI4FLASH_COLD_BODY void printable::copy(std::string_view text, bool keep_end) {
    constexpr std::string_view dots = "...";
    const bool cut = text.size() > max_bytes;
    if (cut) text = keep_end ? text.substr(text.size() - (max_bytes - dots.size())) : text.substr(0, max_bytes - dots.size());
    if (cut && keep_end) {
        for (int i = 0; i < 3 && (static_cast<unsigned char>(text.front()) & 0xC0) == 0x80; ++i) text.remove_prefix(1);  // of a character
    } else if (cut) {
        text.remove_suffix(incomplete_utf8_tail(text));
    }
    char* out = text_;
    if (cut && keep_end) out = append(out, dots);
    while (!text.empty()) {
        const utf8_step step = decode_utf8(text.data(), text.data() + text.size());
        const bool control = step.code_point < 0x20 || (step.code_point >= 0x7f && step.code_point < 0xa0);
        out = append(out, step.state == utf8_state::complete && !control ? text.substr(0, step.size) : "?");
        text.remove_prefix(step.size);
    }
    if (cut && !keep_end) append(out, dots);
}
#endif

PHI4FLASH_END
