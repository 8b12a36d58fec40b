#pragma once
/// The metadata of a packed model file: which keys it has, how they are written and read.
#include <phi4flash/core/span_of.hpp>
#include <phi4flash/model/generation_config.hpp>
#include <phi4flash/io/gguf/gguf_writer.hpp>
#include <phi4flash/model/shape.hpp>

#include <array>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

PHI4FLASH_BEGIN

/// The value of the key general.architecture.
PHI4FLASH_OWN_DATA inline constexpr std::string_view packed_architecture = "phi4flash";
/// Quantized tensors are blocks of eight rows (core/packed.hpp), not ggml's row-major ones of the same size.
PHI4FLASH_OWN_DATA inline constexpr std::string_view packed_layout = "rows8";
/// Tensors with this prefix are tables of the tokenizer, not weights.
PHI4FLASH_OWN_DATA inline constexpr std::string_view packed_array_prefix = "phi4flash.tokenizer.";

namespace detail {

/// An extent, and the name that GGUF files of other models give it.
struct packed_extent {
    const char* key;
    std::size_t sambay_shape::* extent;
};
PHI4FLASH_OWN_DATA inline constexpr packed_extent packed_extents[extent_count] = {
    {"phi4flash.embedding_length", &sambay_shape::d_model},
    {"phi4flash.block_count", &sambay_shape::n_layers},
    {"phi4flash.feed_forward_length", &sambay_shape::d_ff},
    {"phi4flash.attention.head_count", &sambay_shape::n_heads},
    {"phi4flash.attention.head_count_kv", &sambay_shape::n_kv_heads},
    {"phi4flash.vocab_size", &sambay_shape::vocab},
    {"phi4flash.attention.sliding_window", &sambay_shape::window},
    {"phi4flash.ssm.inner_size", &sambay_shape::d_inner},
    {"phi4flash.ssm.state_size", &sambay_shape::d_state},
    {"phi4flash.ssm.conv_kernel", &sambay_shape::d_conv},
    {"phi4flash.ssm.time_step_rank", &sambay_shape::dt_rank},
};
inline constexpr const char* packed_eps_key = "phi4flash.attention.layer_norm_epsilon";
inline constexpr const char* packed_positions_key = "phi4flash.context_length";
inline constexpr const char* packed_layout_key = "phi4flash.layout";
inline constexpr const char* packed_codebook_key = "phi4flash.codebook";
inline constexpr const char* packed_stop_ids_key = "phi4flash.generation.stop_ids";
// Lists of strings, left out where empty. Programs of before 0.2 do not know them and go on without.
inline constexpr const char* packed_stop_strings_key = "phi4flash.generation.stop_strings";
inline constexpr const char* packed_unsupported_key = "phi4flash.generation.unsupported";

/// The codebook of q4_dense as the file has it: 16 levels, then the level that stands for zero.
[[nodiscard]] PHI4FLASH_BODY std::array<std::int32_t, 17> packed_codebook();

inline void add_config(gguf_metadata& out, const sambay_config& config) {
    for (const auto& [key, extent] : packed_extents) out.add(key, static_cast<std::uint32_t>(config.shape.*extent));
    out.add(packed_eps_key, config.norm_eps);
    out.add(packed_positions_key, static_cast<std::uint32_t>(config.max_positions));
}

PHI4FLASH_BODY void add_generation(gguf_metadata& out, const generation_config& g);

/// Reads keys of a file. The first defect is kept and everything after it is a no-op, so that a reader is a list of keys.
class gguf_key_reader {
public:
    explicit gguf_key_reader(const gguf& file) : file_(file) {}

    [[nodiscard]] const status& outcome() const { return outcome_; }
    [[nodiscard]] const gguf_value* find(std::string_view key) const { return outcome_ ? file_.value(key) : nullptr; }
    void fail(const error& why) {
        if (outcome_) outcome_ = why;
    }
    void wrong_type(const char* key, const char* want, const gguf_value& have) {
        fail(error::format(errc::wrong_value_type, "key '%s': want %s, have %s", key, want, gguf_type_text(have).c_str()));
    }
    const gguf_value* wanted(const char* key, const char* want) {
        const gguf_value* const value = find(key);
        if (value == nullptr) fail(error::format(errc::missing_key, "no key '%s': want %s", key, want));
        return value;
    }

    std::size_t extent(const char* key);
    std::optional<std::uint32_t> count(const char* key);
    /// An id that nothing depends on: nothing where it is none, such as -1.
    [[nodiscard]] std::optional<std::uint32_t> idle_id(const char* key) const {
        const gguf_value* const value = find(key);
        const auto n = value == nullptr || value->is_array ? std::nullopt : value->whole();
        return n && *n <= UINT32_MAX ? std::optional(static_cast<std::uint32_t>(*n)) : std::nullopt;
    }
    void strings(const char* key, std::vector<std::string>& out);
    std::optional<float> number(const char* key);
    std::optional<bool> boolean(const char* key);
    std::optional<std::string_view> text(const char* key);

private:
    const gguf& file_;
    status outcome_;
};

/// Errors: missing_key, wrong_value_type, bad_extent (every rule of check_shape too), not_finite, unsupported_model.
[[nodiscard]] PHI4FLASH_BODY result<sambay_config> read_config(const gguf& file);

/// Errors: wrong_value_type, not_finite, unknown_token (a stop id that is no row of the embedding).
[[nodiscard]] PHI4FLASH_BODY result<generation_config> read_generation(const gguf& file, std::size_t vocab);

/// Whether quantized tensors of the file are packed. Errors: wrong_value_type; unsupported_layout (a layout or a codebook that this
/// version does not know); missing_key (a layout without a codebook).
[[nodiscard]] PHI4FLASH_BODY result<bool> read_layout(const gguf& file);

#if PHI4FLASH_BODIES
PHI4FLASH_COLD_BODY std::array<std::int32_t, 17> packed_codebook() {
    std::array<std::int32_t, 17> book{};
    for (std::size_t i = 0; i < 16; ++i) book[i] = q4_dense.level[i];
    book[16] = q4_dense.zero;
    return book;
}

PHI4FLASH_COLD_BODY void add_generation(gguf_metadata& out, const generation_config& g) {
    const auto add = [&](const char* key, const auto& value) {
        if (value) out.add(key, *value);
    };
    out.add_list(packed_stop_ids_key, detail::span_of(g.stop_ids));
    if (!g.stop_ids.empty()) out.add("tokenizer.ggml.eos_token_id", g.stop_ids.front());
    const auto add_strings = [&](const char* key, const std::vector<std::string>& list) {
        if (!list.empty()) out.add_strings(key, list.size(), [&](std::size_t i) { return std::string_view(list[i]); });
    };
    add_strings(packed_stop_strings_key, g.stop_strings);
    add_strings(packed_unsupported_key, g.unsupported);
    add("tokenizer.ggml.bos_token_id", g.bos_id);
    add("tokenizer.ggml.padding_token_id", g.pad_id);
    add("phi4flash.generation.do_sample", g.do_sample);
    add("phi4flash.generation.temperature", g.temperature);
    add("phi4flash.generation.top_p", g.top_p);
    add("phi4flash.generation.min_p", g.min_p);
    add("phi4flash.generation.repetition_penalty", g.repetition_penalty);
    add("phi4flash.generation.top_k", g.top_k);
    add("phi4flash.generation.max_new_tokens", g.max_new_tokens);
}

PHI4FLASH_COLD_BODY std::size_t gguf_key_reader::extent(const char* key) {
    const gguf_value* const value = wanted(key, "a number");
    if (value == nullptr) return 0;
    const auto n = value->is_array ? std::nullopt : value->whole();
    if (!n) {
        wrong_type(key, "a whole number from 0", *value);
        return 0;
    }
    if (*n == 0 || *n > max_extent)
        fail(error::format(errc::bad_extent, "key '%s': want 1 to %zu, have %llu", key, max_extent,
                           static_cast<unsigned long long>(*n)));
    return static_cast<std::size_t>(*n);
}

PHI4FLASH_COLD_BODY std::optional<std::uint32_t> gguf_key_reader::count(const char* key) {
    const gguf_value* const value = find(key);
    if (value == nullptr) return std::nullopt;
    const auto n = value->is_array ? std::nullopt : value->whole();
    if (n && *n <= UINT32_MAX) return static_cast<std::uint32_t>(*n);
    wrong_type(key, "a whole number below 2^32", *value);
    return std::nullopt;
}

PHI4FLASH_COLD_BODY void gguf_key_reader::strings(const char* key, std::vector<std::string>& out) {
    const gguf_value* const value = find(key);
    if (value == nullptr) return;
    if (!value->is_array || value->type != gguf_type::string) return wrong_type(key, "a list of strings", *value);
    gguf_strings list(*value);
    for (std::string_view s; list.next(s);) out.emplace_back(s);
}

PHI4FLASH_COLD_BODY std::optional<float> gguf_key_reader::number(const char* key) {
    const gguf_value* const value = find(key);
    if (value == nullptr) return std::nullopt;
    const auto x = value->real();
    if (!x) {
        wrong_type(key, "f32", *value);
        return std::nullopt;
    }
    if (is_finite(*x) && std::fabs(*x) <= static_cast<double>(FLT_MAX)) return static_cast<float>(*x);
    fail(error::format(errc::not_finite, "key '%s': want a finite 32-bit float, have %g", key, *x));
    return std::nullopt;
}

PHI4FLASH_COLD_BODY std::optional<bool> gguf_key_reader::boolean(const char* key) {
    const gguf_value* const value = find(key);
    const auto b = value == nullptr ? std::nullopt : value->boolean();
    if (value != nullptr && !b) wrong_type(key, "boolean", *value);
    return b;
}

PHI4FLASH_COLD_BODY std::optional<std::string_view> gguf_key_reader::text(const char* key) {
    const gguf_value* const value = find(key);
    const auto s = value == nullptr ? std::nullopt : value->text();
    if (value != nullptr && !s) wrong_type(key, "string", *value);
    return s;
}

PHI4FLASH_COLD_BODY result<sambay_config> read_config(const gguf& file) {
    constexpr const char* architecture = "general.architecture";
    gguf_key_reader in(file);
    (void)in.wanted(architecture, "'phi4flash'");
    if (const auto have = in.text(architecture); have && *have != packed_architecture)
        in.fail(error::format(errc::unsupported_model, "key '%s': want 'phi4flash', have '%s'", architecture,
                              printable(*have).c_str()));
    sambay_config config;
    for (const auto& [key, extent] : packed_extents) config.shape.*extent = in.extent(key);
    (void)in.wanted(packed_eps_key, "a number");
    config.norm_eps = in.number(packed_eps_key).value_or(0.0f);
    config.max_positions = in.count(packed_positions_key).value_or(0);
    if (!(config.norm_eps >= FLT_MIN))
        in.fail(error::format(errc::bad_value, "key '%s': want a positive number, have %.9g", packed_eps_key,
                              static_cast<double>(config.norm_eps)));
    if (!in.outcome()) return in.outcome().error();
    if (const status ok = check_shape(config.shape); !ok) return ok.error();
    return config;
}

PHI4FLASH_COLD_BODY result<generation_config> read_generation(const gguf& file, std::size_t vocab) {
    gguf_key_reader in(file);
    generation_config g;
    const auto stop_at = [&](const char* key, std::uint32_t id) {
        if (id >= vocab)
            in.fail(error::format(errc::unknown_token, "key '%s': want ids below the vocabulary's %zu, have %lu", key, vocab,
                                  static_cast<unsigned long>(id)));
        g.stop_ids.push_back(id);
    };
    if (const gguf_value* const ids = in.find(packed_stop_ids_key); ids != nullptr) {
        if (!ids->is_array || ids->type != gguf_type::u32) {
            in.wrong_type(packed_stop_ids_key, "a list of u32", *ids);
        } else {
            for (std::size_t i = 0; i < ids->count; ++i) stop_at(packed_stop_ids_key, ids->at<std::uint32_t>(i));
        }
    } else {  // a file of another program: the end of a text, and of a message
        for (const char* const key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"})
            if (const auto id = in.idle_id(key)) stop_at(key, *id);
    }
    in.strings(packed_stop_strings_key, g.stop_strings);
    in.strings(packed_unsupported_key, g.unsupported);
    g.bos_id = in.idle_id("tokenizer.ggml.bos_token_id");
    g.pad_id = in.idle_id("tokenizer.ggml.padding_token_id");
    g.do_sample = in.boolean("phi4flash.generation.do_sample");
    g.temperature = in.number("phi4flash.generation.temperature");
    g.top_p = in.number("phi4flash.generation.top_p");
    g.min_p = in.number("phi4flash.generation.min_p");
    g.repetition_penalty = in.number("phi4flash.generation.repetition_penalty");
    g.top_k = in.count("phi4flash.generation.top_k");
    g.max_new_tokens = in.count("phi4flash.generation.max_new_tokens");
    if (!in.outcome()) return in.outcome().error();
    return g;
}

PHI4FLASH_COLD_BODY result<bool> read_layout(const gguf& file) {
    gguf_key_reader in(file);
    const auto layout = in.text(packed_layout_key);
    if (!in.outcome()) return in.outcome().error();
    if (!layout) return false;
    if (*layout != packed_layout)
        return error::format(errc::unsupported_layout, "key '%s': want 'rows8', have '%s'", packed_layout_key,
                             printable(*layout).c_str());
    const gguf_value* const book = in.wanted(packed_codebook_key, "the 16 levels and the zero of 4-bit weights");
    if (book == nullptr) return in.outcome().error();
    const auto want = packed_codebook();
    bool same = book->is_array && book->count == want.size();
    for (std::size_t i = 0; same && i < want.size(); ++i) same = book->whole(i) == static_cast<std::uint64_t>(want[i]);
    if (!same)
        return error::format(errc::unsupported_layout, "key '%s': want the 17 numbers of this version's 4-bit format, have %s",
                             packed_codebook_key, gguf_type_text(*book).c_str());
    return true;
}
#endif
}  // namespace detail

PHI4FLASH_END
