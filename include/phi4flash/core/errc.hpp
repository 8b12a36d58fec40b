#pragma once
/// The codes of errors.
#include <phi4flash/config/abi.hpp>

#include <cstdint>

PHI4FLASH_BEGIN

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

PHI4FLASH_END
