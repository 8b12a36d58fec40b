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

/// The name of a code as it is written here, such as "out_of_memory": for logs. @since 0.2
[[nodiscard]] constexpr const char* name_of(errc code) {
    switch (code) {
        case errc::invalid_argument: return "invalid_argument";
        case errc::out_of_memory: return "out_of_memory";
        case errc::context_full: return "context_full";
        case errc::cancelled: return "cancelled";
        case errc::unknown_target: return "unknown_target";
        case errc::in_use: return "in_use";
        case errc::wrong_checksum: return "wrong_checksum";
        case errc::wrong_weights: return "wrong_weights";
        case errc::file_not_found: return "file_not_found";
        case errc::file_unreadable: return "file_unreadable";
        case errc::file_empty: return "file_empty";
        case errc::file_unwritable: return "file_unwritable";
        case errc::path_outside_folder: return "path_outside_folder";
        case errc::file_too_large: return "file_too_large";
        case errc::file_incomplete: return "file_incomplete";
        case errc::wrong_file_kind: return "wrong_file_kind";
        case errc::json_syntax: return "json_syntax";
        case errc::json_too_deep: return "json_too_deep";
        case errc::json_too_large: return "json_too_large";
        case errc::json_wrong_type: return "json_wrong_type";
        case errc::json_duplicate_key: return "json_duplicate_key";
        case errc::json_unknown_key: return "json_unknown_key";
        case errc::json_missing_key: return "json_missing_key";
        case errc::json_bad_number: return "json_bad_number";
        case errc::header_too_large: return "header_too_large";
        case errc::unknown_dtype: return "unknown_dtype";
        case errc::size_overflow: return "size_overflow";
        case errc::size_mismatch: return "size_mismatch";
        case errc::offset_out_of_range: return "offset_out_of_range";
        case errc::offset_overlap: return "offset_overlap";
        case errc::offset_hole: return "offset_hole";
        case errc::offset_misaligned: return "offset_misaligned";
        case errc::duplicate_name: return "duplicate_name";
        case errc::trailing_bytes: return "trailing_bytes";
        case errc::rank_too_high: return "rank_too_high";
        case errc::bad_magic: return "bad_magic";
        case errc::unsupported_version: return "unsupported_version";
        case errc::count_too_large: return "count_too_large";
        case errc::string_too_long: return "string_too_long";
        case errc::nested_array: return "nested_array";
        case errc::unknown_value_type: return "unknown_value_type";
        case errc::bad_value: return "bad_value";
        case errc::bad_alignment: return "bad_alignment";
        case errc::partial_block: return "partial_block";
        case errc::duplicate_key: return "duplicate_key";
        case errc::missing_key: return "missing_key";
        case errc::unknown_key: return "unknown_key";
        case errc::wrong_value_type: return "wrong_value_type";
        case errc::unsupported_layout: return "unsupported_layout";
        case errc::index_mismatch: return "index_mismatch";
        case errc::missing_tensor: return "missing_tensor";
        case errc::unexpected_tensor: return "unexpected_tensor";
        case errc::wrong_shape: return "wrong_shape";
        case errc::wrong_dtype: return "wrong_dtype";
        case errc::untied_embedding: return "untied_embedding";
        case errc::unsupported_model: return "unsupported_model";
        case errc::bad_extent: return "bad_extent";
        case errc::not_finite: return "not_finite";
        case errc::unsupported_tokenizer: return "unsupported_tokenizer";
        case errc::bad_vocabulary: return "bad_vocabulary";
        case errc::bad_merge: return "bad_merge";
        case errc::unknown_token: return "unknown_token";
        case errc::bad_chat_message: return "bad_chat_message";
    }
    return "unknown";
}

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
