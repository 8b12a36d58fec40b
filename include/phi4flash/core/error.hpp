#pragma once
/// Errors are values: a code to branch on and a sentence to show. No allocation, so an error can report that memory
/// ran out.
#include <phi4flash/config/abi.hpp>

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

/// What went wrong, to branch on. The sentence in `error::message()` says where, what was wanted and what was found.
enum class errc : std::uint16_t {
    // the caller
    invalid_argument = 1,
    out_of_memory,
    context_full,
    cancelled,
    unknown_target,
    in_use,
    // saved sessions
    wrong_checksum,
    wrong_weights,
    // files
    file_not_found,
    file_unreadable,
    file_empty,
    file_unwritable,
    path_outside_folder,
    file_too_large,
    file_incomplete,
    wrong_file_kind,
    // JSON
    json_syntax,
    json_too_deep,
    json_too_large,
    json_wrong_type,
    json_duplicate_key,
    json_unknown_key,
    json_missing_key,
    json_bad_number,
    // safetensors
    header_truncated,
    header_too_large,
    unknown_dtype,
    size_overflow,
    size_mismatch,
    offset_out_of_range,
    offset_overlap,
    offset_hole,
    offset_misaligned,
    duplicate_name,
    trailing_bytes,
    rank_too_high,
    // GGUF
    bad_magic,
    unsupported_version,
    count_too_large,
    string_too_long,
    array_too_long,
    nested_array,
    unknown_value_type,
    bad_value,
    bad_alignment,
    partial_block,
    duplicate_key,
    missing_key,
    unknown_key,
    wrong_value_type,
    unsupported_layout,
    // checkpoints
    index_mismatch,
    missing_tensor,
    unexpected_tensor,
    wrong_shape,
    wrong_dtype,
    untied_embedding,
    unsupported_model,
    bad_extent,
    not_finite,
    // tokenizers and text
    unsupported_tokenizer,
    bad_vocabulary,
    bad_merge,
    unknown_token,
    bad_chat_message,
};

/// A code and a sentence of at most 383 bytes. Trivially copyable; safe to return across threads.
class error {
public:
    error() = default;

    [[nodiscard]] errc code() const { return code_; }
    /// One sentence without a trailing newline: what, where, want, have.
    [[nodiscard]] const char* message() const { return text_; }

    /// printf-style. A sentence that does not fit is cut, never overrun.
    PHI4FLASH_PRINTF_LIKE(2, 3)
    PHI4FLASH_COLD static error format(errc code, const char* pattern, ...) {
        error e;
        e.code_ = code;
        std::va_list arguments;
        va_start(arguments, pattern);
        detail::vprint(e.text_, sizeof e.text_, pattern, arguments);
        va_end(arguments);
        return e;
    }

    /// The same error, said of something larger: "config.json: " before the sentence.
    [[nodiscard]] error in(std::string_view place) const {
        return format(code_, "%.*s: %s", static_cast<int>(place.size()), place.data(), text_);
    }

private:
    errc code_ = errc::invalid_argument;
    char text_[384] = {};
};

PHI4FLASH_END
