#pragma once
/// Errors are values: a code to branch on and a sentence to show. No allocation, so an error can report that memory
/// ran out.
#include <phi4flash/core/errc.hpp>

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string_view>

PHI4FLASH_BEGIN

namespace detail {
/// A number for "%u", which std::uint32_t is not everywhere: newlib's is an unsigned long.
[[nodiscard]] constexpr unsigned for_print(std::uint32_t n) { return static_cast<unsigned>(n); }

/// std::vsnprintf. newlib, as distributions have it, does not know the z of "%zu", and prints it.
inline int vprint(char* out, std::size_t size, const char* pattern, std::va_list arguments) {
#if defined(_NEWLIB_VERSION) && !defined(_WANT_IO_C99_FORMATS)
    char known[512];
    std::size_t n = 0;
    bool inside = false;  // of a conversion, up to its letter
    for (; *pattern != '\0' && n + 1 < sizeof known; ++pattern) {
        if (*pattern == '%') {
            inside = !inside;
        } else if (inside && *pattern == 'z') {
            if constexpr (sizeof(std::size_t) > sizeof(unsigned)) known[n++] = 'l';
            continue;
        } else if (inside && ((*pattern >= 'a' && *pattern <= 'z') || (*pattern >= 'A' && *pattern <= 'Z'))) {
            inside = *pattern == 'l' || *pattern == 'h';
        }
        known[n++] = *pattern;
    }
    known[n] = '\0';
    return std::vsnprintf(out, size, known, arguments);
#else
    return std::vsnprintf(out, size, pattern, arguments);
#endif
}
/// std::snprintf, by it.
PHI4FLASH_PRINTF_LIKE(3, 4)
inline int print(char* out, std::size_t size, const char* pattern, ...) {
    std::va_list arguments;
    va_start(arguments, pattern);
    const int written = vprint(out, size, pattern, arguments);
    va_end(arguments);
    return written;
}
}  // namespace detail

/// A code and a sentence of at most 383 bytes, UTF-8. Trivially copyable; safe to return across threads.
class error {
public:
    error() = default;

    [[nodiscard]] errc code() const { return code_; }
    /// One sentence without a trailing newline: what, where, want, have.
    [[nodiscard]] const char* message() const { return text_; }

    /// printf-style. A sentence that does not fit is cut, between two characters.
    PHI4FLASH_PRINTF_LIKE(2, 3)
    PHI4FLASH_COLD static error format(errc code, const char* pattern, ...) {
        error e;
        e.code_ = code;
        std::va_list arguments;
        va_start(arguments, pattern);
        const int all = detail::vprint(e.text_, sizeof e.text_, pattern, arguments);
        va_end(arguments);
        if (all >= static_cast<int>(sizeof e.text_)) e.drop_part_of_character();
        return e;
    }

    /// The same error, said of something larger: "config.json: " before the sentence.
    [[nodiscard]] error in(std::string_view place) const {
        return format(code_, "%.*s: %s", static_cast<int>(place.size()), place.data(), text_);
    }

private:
    /// Of a sentence that was cut, the bytes of UTF-8 at the end that are no whole character.
    void drop_part_of_character() {
        const auto byte = [this](std::size_t i) { return static_cast<unsigned>(static_cast<unsigned char>(text_[i])); };
        const std::size_t end = sizeof text_ - 1;
        std::size_t lead = end - 1;
        while (lead > end - 4 && (byte(lead) & 0xC0) == 0x80) --lead;
        const std::size_t want = byte(lead) >= 0xF0 ? 4 : byte(lead) >= 0xE0 ? 3 : byte(lead) >= 0xC0 ? 2 : 1;
        if (end - lead < want) text_[lead] = '\0';
    }

    errc code_ = errc::invalid_argument;
    char text_[384] = {};
};

PHI4FLASH_END
