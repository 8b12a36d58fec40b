#pragma once
/// How a function of the C API ends: a code and a sentence, into the caller's phi4flash_error. And the one place where nothing is thrown across.
#include <phi4flash/phi4flash.h>
#include <phi4flash/phi4flash.hpp>

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string_view>

PHI4FLASH_BEGIN
namespace c_api {

using namespace detail;

/// The code under which the C API tells an error of the library. Without a default: a new errc must be given one (-Wswitch).
[[nodiscard]] constexpr phi4flash_code code_of(errc code) {
    switch (code) {
        case errc::invalid_argument: return PHI4FLASH_INVALID_ARGUMENT;
        case errc::out_of_memory: return PHI4FLASH_OUT_OF_MEMORY;
        case errc::context_full: return PHI4FLASH_CONTEXT_FULL;
        case errc::cancelled: return PHI4FLASH_CANCELLED;
        case errc::unknown_target: return PHI4FLASH_UNKNOWN_TARGET;
        case errc::in_use: return PHI4FLASH_IN_USE;
        case errc::wrong_checksum: return PHI4FLASH_WRONG_CHECKSUM;
        case errc::wrong_weights: return PHI4FLASH_WRONG_WEIGHTS;
        case errc::file_not_found: return PHI4FLASH_FILE_NOT_FOUND;
        case errc::file_unreadable: return PHI4FLASH_FILE_UNREADABLE;
        case errc::file_empty: return PHI4FLASH_FILE_EMPTY;
        case errc::file_unwritable: return PHI4FLASH_FILE_UNWRITABLE;
        case errc::path_outside_folder: return PHI4FLASH_PATH_OUTSIDE_FOLDER;
        case errc::file_too_large: return PHI4FLASH_FILE_TOO_LARGE;
        case errc::file_incomplete: return PHI4FLASH_FILE_INCOMPLETE;
        case errc::wrong_file_kind: return PHI4FLASH_WRONG_FILE_KIND;
        case errc::json_syntax:
        case errc::json_too_deep:
        case errc::json_too_large:
        case errc::json_wrong_type:
        case errc::json_duplicate_key:
        case errc::json_unknown_key:
        case errc::json_missing_key:
        case errc::json_bad_number: return PHI4FLASH_BAD_JSON;
        case errc::header_too_large:
        case errc::unknown_dtype:
        case errc::size_overflow:
        case errc::size_mismatch:
        case errc::offset_out_of_range:
        case errc::offset_overlap:
        case errc::offset_hole:
        case errc::offset_misaligned:
        case errc::duplicate_name:
        case errc::rank_too_high: return PHI4FLASH_BAD_TENSORS;
        case errc::trailing_bytes: return PHI4FLASH_TRAILING_BYTES;
        case errc::bad_magic:
        case errc::count_too_large:
        case errc::string_too_long:
        case errc::nested_array:
        case errc::unknown_value_type:
        case errc::bad_alignment:
        case errc::partial_block:
        case errc::duplicate_key:
        case errc::missing_key:
        case errc::unknown_key:
        case errc::wrong_value_type:
        case errc::unsupported_layout: return PHI4FLASH_BAD_FORMAT;
        case errc::unsupported_version: return PHI4FLASH_UNSUPPORTED_VERSION;
        case errc::bad_value: return PHI4FLASH_BAD_VALUE;
        case errc::index_mismatch:
        case errc::missing_tensor:
        case errc::unexpected_tensor:
        case errc::untied_embedding:
        case errc::bad_extent: return PHI4FLASH_BAD_CHECKPOINT;
        case errc::wrong_shape: return PHI4FLASH_WRONG_SHAPE;
        case errc::wrong_dtype: return PHI4FLASH_WRONG_DTYPE;
        case errc::unsupported_model: return PHI4FLASH_UNSUPPORTED_MODEL;
        case errc::not_finite: return PHI4FLASH_NOT_FINITE;
        case errc::unsupported_tokenizer:
        case errc::bad_vocabulary:
        case errc::bad_merge: return PHI4FLASH_BAD_TOKENIZER;
        case errc::unknown_token: return PHI4FLASH_UNKNOWN_TOKEN;
        case errc::bad_chat_message: return PHI4FLASH_BAD_CHAT_MESSAGE;
    }
    return PHI4FLASH_BAD_VALUE;
}

/// Success, or a code and a sentence.
class [[nodiscard]] outcome {
public:
    outcome() = default;
    outcome(const error& why) : code_(code_of(why.code())), why_(why) {}  // NOLINT(google-explicit-constructor)
    outcome(const status& s) {                                            // NOLINT(google-explicit-constructor)
        if (!s) *this = outcome(s.error());
    }
    /// printf-style.
    PHI4FLASH_PRINTF_LIKE(2, 3)
    static outcome failed(phi4flash_code code, const char* pattern, ...) {
        char text[sizeof(phi4flash_error::message)];
        std::va_list arguments;
        va_start(arguments, pattern);
        std::vsnprintf(text, sizeof text, pattern, arguments);
        va_end(arguments);
        outcome o(error::format(errc::invalid_argument, "%s", text));
        o.code_ = code;
        return o;
    }

    explicit operator bool() const { return code_ == PHI4FLASH_OK; }
    [[nodiscard]] phi4flash_code code() const { return code_; }
    [[nodiscard]] const char* message() const { return code_ == PHI4FLASH_OK ? "" : why_.message(); }

private:
    phi4flash_code code_ = PHI4FLASH_OK;
    error why_;
};

/// To the caller: whole characters, as many as there is room for.
inline phi4flash_code tell(phi4flash_error* to, phi4flash_code code, std::string_view sentence) {
    if (to == nullptr) return code;
    sentence = sentence.substr(0, sizeof to->message - 1);
    sentence.remove_suffix(incomplete_utf8_tail(sentence));
    to->code = code;
    std::memcpy(to->message, sentence.data(), sentence.size());
    to->message[sentence.size()] = '\0';
    return code;
}

/// The body of every function that can fail.
template <class Work>
phi4flash_code entry(phi4flash_error* why, Work&& work) noexcept {
#if defined(__cpp_exceptions)
    try {
        const outcome done = work();
        return tell(why, done.code(), done.message());
    } catch (const std::bad_alloc&) {
        return tell(why, PHI4FLASH_OUT_OF_MEMORY, "not enough memory on the C++ heap");
    } catch (const std::length_error&) {
        return tell(why, PHI4FLASH_OUT_OF_MEMORY, "more is asked for than there can be memory");
    } catch (const std::exception& e) {
        return tell(why, PHI4FLASH_HOST_EXCEPTION, outcome::failed(PHI4FLASH_HOST_EXCEPTION, "a callback of the host threw: %s", e.what()).message());
    } catch (...) {
        return tell(why, PHI4FLASH_HOST_EXCEPTION, "a callback of the host threw");
    }
#else
    const outcome done = work();
    return tell(why, done.code(), done.message());
#endif
}

[[nodiscard]] inline outcome missing(const char* name) { return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "%s: want a pointer, have NULL", name); }

[[nodiscard]] inline outcome in_use_elsewhere(const char* name) {
    return outcome::failed(PHI4FLASH_IN_USE, "%s: another thread uses it, or the call whose callback this is", name);
}

}  // namespace c_api
PHI4FLASH_END
