#pragma once
/// config.json and generation_config.json of a Hugging Face folder. What decides the computation is required or has the
/// default of the model's class. A key of config.json that nobody knows is refused: it may ask for another computation.
#include <phi4flash/model/generation_config.hpp>
#include <phi4flash/io/json.hpp>
#include <phi4flash/model/shape.hpp>

#if PHI4FLASH_HAS_JSON
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string_view>

PHI4FLASH_BEGIN

/// Limits of both files; the released ones have 1 KiB.
inline constexpr json_limits hf_config_limits{.bytes = std::size_t{1} << 20, .depth = 32};

namespace detail {
/// The members of a configuration object. The first defect is kept and everything after it is a no-op, so that a reader
/// is a list of keys.
class config_reader {
public:
    explicit config_reader(const json_value& object) : object_(object) {}

    [[nodiscard]] const status& outcome() const { return outcome_; }
    [[nodiscard]] const json_value* find(const char* key) const { return outcome_ ? member(object_, key) : nullptr; }
    void fail(const error& why) {
        if (outcome_) outcome_ = why;
    }

    std::size_t extent(const char* key) {
        const json_value* const value = find(key);
        if (value != nullptr) return extent(key, *value);
        fail(error::format(errc::json_missing_key, "no key '%s': want a number", key));
        return 0;
    }
    std::size_t extent_or(const char* key, std::size_t class_default) {
        const json_value* const value = find(key);
        return value != nullptr ? extent(key, *value) : class_default;
    }
    std::size_t extent(const char* key, const json_value& value) {
        const auto number = whole_number(value, key, 1, max_extent, errc::bad_extent);
        if (number) return *number;
        fail(number.error());
        return 0;
    }

    void want_bool(const char* key, bool want) {
        const json_value* const value = find(key);
        if (value == nullptr) return;
        const auto* have = value->get_ptr<const bool*>();
        if (have == nullptr) return fail(wrong_type(key, "true or false", *value));
        if (*have != want) unsupported(key, want ? "true" : "false", *value);
    }
    void want_string(const char* key, const char* want) {
        const json_value* const value = find(key);
        if (value == nullptr) return;
        const auto* have = value->get_ptr<const std::string*>();
        if (have == nullptr) return fail(wrong_type(key, "a string", *value));
        if (*have != want) unsupported(key, want, *value);
    }
    void unsupported(const char* key, const char* want, const json_value& have) {
        fail(error::format(errc::unsupported_model, "'%s': want %s, have %s", key, want, describe(have).c_str()));
    }

    /// A finite number; null counts as absent.
    std::optional<float> number(const char* key) {
        const json_value* const value = find(key);
        if (value == nullptr || value->is_null()) return std::nullopt;
        double x = 0;
        if (const auto* f = value->get_ptr<const json_value::number_float_t*>()) {
            x = *f;
        } else if (const auto* i = value->get_ptr<const json_value::number_integer_t*>()) {  // unsigned ones included
            x = static_cast<double>(*i);
        } else {
            fail(wrong_type(key, "a number", *value));
            return std::nullopt;
        }
        if (std::isfinite(x) && std::fabs(x) <= static_cast<double>(FLT_MAX)) return static_cast<float>(x);
        fail(error::format(errc::not_finite, "'%s': want a finite 32-bit float, have %s", key, describe(*value).c_str()));
        return std::nullopt;
    }
    std::optional<std::uint32_t> count(const char* key) {
        const json_value* const value = find(key);
        return value == nullptr || value->is_null() ? std::nullopt : count(key, *value);
    }
    std::optional<std::uint32_t> count(const char* key, const json_value& value) {
        const auto number = whole_number(value, key, 0, UINT32_MAX, errc::json_bad_number);
        if (number) return static_cast<std::uint32_t>(*number);
        fail(number.error());
        return std::nullopt;
    }
    std::optional<bool> boolean(const char* key) {
        const json_value* const value = find(key);
        if (value == nullptr || value->is_null()) return std::nullopt;
        if (const auto* b = value->get_ptr<const bool*>()) return *b;
        fail(wrong_type(key, "true or false", *value));
        return std::nullopt;
    }

private:
    const json_value& object_;
    status outcome_;
};

/// The window, as a number or as a list with one entry a layer: null, or the window on odd layers of the first half.
inline std::size_t read_window(config_reader& in, std::size_t n_layers) {
    constexpr const char* key = "sliding_window";
    const json_value* const value = in.find(key);
    if (value == nullptr || !value->is_array()) return in.extent(key);
    if (value->size() != n_layers) {
        in.fail(
            error::format(errc::bad_extent, "'%s': want one entry for each of %zu layers, have %zu", key, n_layers, value->size()));
        return 0;
    }
    std::size_t window = 0;
    std::size_t layer = 0;
    for (const json_value& entry : *value) {
        const bool windowed = layer % 2 == 1 && layer < n_layers / 2;
        if (entry.is_null() && windowed)
            in.fail(error::format(errc::bad_extent, "'%s'[%zu]: want a number on this layer, have null", key, layer));
        if (!entry.is_null()) {
            const std::size_t have = in.extent(key, entry);
            if (!windowed)
                in.fail(error::format(errc::bad_extent, "'%s'[%zu]: want null on this layer, have %zu", key, layer, have));
            if (window != 0 && have != window)
                in.fail(error::format(errc::bad_extent, "'%s'[%zu]: want %zu as on the layers before, have %zu", key, layer, window,
                                      have));
            window = have;
        }
        ++layer;
    }
    return window;
}

/// Keys of config.json that decide nothing here: training, bookkeeping, how other programs run the model, and every key of
/// generation_config.json. Keys that begin with an underscore are private to the program that wrote them.
inline constexpr std::string_view idle_config_keys[] = {
    "architectures", "attention_dropout", "auto_map", "bad_words_ids", "begin_suppress_tokens", "bos_token_id",
    "chunk_size_feed_forward", "cross_attention_hidden_size", "decoder_start_token_id", "diversity_penalty", "do_sample", "dtype",
    "early_stopping", "embd_pdrop", "encoder_no_repeat_ngram_size", "eos_token_id", "exponential_decay_length_penalty",
    "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "id2label", "initializer_range", "is_decoder",
    "is_encoder_decoder", "label2id", "length_penalty", "max_length", "max_new_tokens", "min_length", "min_p", "name_or_path",
    "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "output_attentions", "output_hidden_states",
    "output_scores", "pad_token_id", "prefix", "problem_type", "remove_invalid_values", "repetition_penalty", "resid_pdrop",
    "return_dict", "return_dict_in_generate", "sep_token_id", "suppress_tokens", "task_specific_params", "temperature",
    "tie_encoder_decoder", "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript", "transformers_version",
    "typical_p", "use_bfloat16", "use_cache",
};
/// Keys of config.json that are read.
inline constexpr std::string_view read_config_keys[] = {
    "head_dim", "hidden_act", "hidden_size", "intermediate_size", "layer_norm_eps", "lm_head_bias", "mamba_conv_bias",
    "mamba_d_conv", "mamba_d_state", "mamba_dt_rank", "mamba_expand", "mamba_proj_bias", "max_position_embeddings",
    "mb_per_layer", "mlp_bias", "model_type", "num_attention_heads", "num_hidden_layers", "num_key_value_heads",
    "sliding_window", "tie_word_embeddings", "vocab_size",
};

/// Errors: json_unknown_key.
[[nodiscard]] inline status refuse_unknown_keys(const json_value& config) {
    const auto among = [](const auto& keys, std::string_view key) { return std::find(std::begin(keys), std::end(keys), key) != std::end(keys); };
    for (const auto& item : config.items()) {
        const std::string_view key = item.key();
        // A key whose value is null asks for nothing.
        if (key.starts_with('_') || item.value().is_null() || among(read_config_keys, key) || among(idle_config_keys, key)) continue;
        return error::format(errc::json_unknown_key, "the key '%s' is not one of a phi4flash model: it may change what is computed",
                             printable(key).c_str());
    }
    return {};
}

inline void read_model_type(config_reader& in) {
    if (in.find("model_type") == nullptr) in.fail(error::format(errc::json_missing_key, "no key 'model_type': want 'phi4flash'"));
    in.want_string("model_type", "phi4flash");
    in.want_string("hidden_act", "silu");
    in.want_bool("tie_word_embeddings", true);
    in.want_bool("mamba_conv_bias", true);
    in.want_bool("mamba_proj_bias", false);
    in.want_bool("mlp_bias", false);
    in.want_bool("lm_head_bias", false);
    if (in.extent_or("mb_per_layer", 2) != 2 && in.outcome()) in.unsupported("mb_per_layer", "2", *in.find("mb_per_layer"));
}

inline sambay_shape read_shape(config_reader& in) {
    sambay_shape s;
    s.d_model = in.extent("hidden_size");
    s.d_ff = in.extent("intermediate_size");
    s.n_layers = in.extent("num_hidden_layers");
    s.n_heads = in.extent("num_attention_heads");
    s.n_kv_heads = in.extent("num_key_value_heads");
    s.vocab = in.extent("vocab_size");
    s.window = read_window(in, s.n_layers);
    // These are not in the released file: defaults of the model's class.
    s.d_state = in.extent_or("mamba_d_state", 16);
    s.d_conv = in.extent_or("mamba_d_conv", 4);
    s.d_inner = in.extent_or("mamba_expand", 2) * s.d_model;
    s.dt_rank = (s.d_model + 15) / 16;
    const json_value* const rank = in.find("mamba_dt_rank");
    if (rank == nullptr) return s;
    const auto* const name = rank->get_ptr<const std::string*>();
    if (name == nullptr) {
        s.dt_rank = in.extent("mamba_dt_rank", *rank);
    } else if (*name != "auto") {
        in.fail(wrong_type("mamba_dt_rank", "a number or 'auto'", *rank));
    }
    return s;
}

[[nodiscard]] inline result<json_value> read_config_object(std::string_view text) {
    auto document = read_json(text, hf_config_limits);
    if (document && !document->is_object())
        return error::format(errc::json_wrong_type, "want an object, have %s", describe(*document).c_str());
    return document;
}
}  // namespace detail

/// The shape in `text`, a config.json. Errors, each naming the key, want and have: json_*, json_unknown_key, unsupported_model (another
/// architecture or activation, untied embedding), bad_extent (zero, negative, fractional or huge numbers, and every rule
/// of check_shape), not_finite, json_bad_number (layer_norm_eps).
[[nodiscard]] inline result<sambay_config> read_hf_config(std::string_view text) {
    const auto document = detail::read_config_object(text);
    if (!document) return document.error();
    detail::config_reader in(*document);
    detail::read_model_type(in);
    sambay_config config;
    config.shape = detail::read_shape(in);
    config.max_positions = in.count("max_position_embeddings").value_or(0);
    config.norm_eps = in.number("layer_norm_eps").value_or(1e-5f);
    if (!(config.norm_eps >= FLT_MIN))
        in.fail(error::format(errc::json_bad_number, "'layer_norm_eps': want a positive number, have %.9g",
                              static_cast<double>(config.norm_eps)));
    if (!in.outcome()) return in.outcome().error();
    if (const status ok = check_shape(config.shape); !ok) return ok.error();
    if (const status ok = detail::refuse_unknown_keys(*document); !ok) return ok.error();
    const std::size_t d_head = config.shape.d_model / config.shape.n_heads;
    if (in.extent_or("head_dim", d_head) != d_head && in.outcome())
        in.fail(error::format(errc::unsupported_model, "'head_dim': want hidden_size / num_attention_heads = %zu, have %s", d_head,
                              detail::describe(*in.find("head_dim")).c_str()));
    if (!in.outcome()) return in.outcome().error();
    return config;
}

/// The generation settings in `text`: a generation_config.json, or a config.json where a folder has no such file.
/// Errors, each naming the key: json_*, not_finite.
[[nodiscard]] inline result<generation_config> read_generation_config(std::string_view text) {
    const auto document = detail::read_config_object(text);
    if (!document) return document.error();
    detail::config_reader in(*document);
    generation_config config;
    constexpr const char* eos = "eos_token_id";
    if (const json_value* const ids = in.find(eos); ids != nullptr && ids->is_array()) {
        for (const json_value& id : *ids)
            if (const auto n = in.count(eos, id)) config.stop_ids.push_back(*n);
    } else if (const auto n = in.count(eos)) {
        config.stop_ids.push_back(*n);
    }
    config.bos_id = in.count("bos_token_id");
    config.pad_id = in.count("pad_token_id");
    config.do_sample = in.boolean("do_sample");
    config.temperature = in.number("temperature");
    config.top_p = in.number("top_p");
    config.min_p = in.number("min_p");
    config.repetition_penalty = in.number("repetition_penalty");
    config.top_k = in.count("top_k");
    config.max_new_tokens = in.count("max_new_tokens");
    if (!in.outcome()) return in.outcome().error();
    return config;
}

PHI4FLASH_END
#endif  // PHI4FLASH_HAS_JSON
