#pragma once
/// The keys of config.json and generation_config.json that this library knows, and what each means to it. The one place to
/// change when another program writes another key.
///
/// A key that cannot change what this model computes is idle. One that could is compared with what the model does. Only a key
/// that is in no list is refused. null asks for nothing under any key, and so does an empty list or object, but for keys that are read
/// and those of quantization.
#include <phi4flash/io/huggingface/config_options.hpp>
#include <phi4flash/io/json/json.hpp>

#if PHI4FLASH_HAS_JSON
#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>

PHI4FLASH_BEGIN

namespace detail {

enum class key_rule : std::uint8_t {
    read,       ///< read into the shape or into the options of generation
    idle,       ///< changes nothing
    wants,      ///< must have one of the values that `want` lists, because that is what is done
    quantized,  ///< says that the weights are in a form that cannot be read
};

struct config_key {
    std::string_view name;
    key_rule rule;
    const char* want = "";  ///< values as a sentence has them: "1 or 0", "'silu'"; "" if only nothing will do
};

// clang-format off
/// Of config.json, beside those of generation.
PHI4FLASH_OWN_DATA inline constexpr config_key config_keys[] = {
    // The shape, and what the reader compares by itself.
    {"model_type", key_rule::read}, {"vocab_size", key_rule::read}, {"hidden_size", key_rule::read},
    {"intermediate_size", key_rule::read}, {"num_hidden_layers", key_rule::read}, {"num_attention_heads", key_rule::read},
    {"num_key_value_heads", key_rule::read}, {"sliding_window", key_rule::read}, {"mamba_d_state", key_rule::read},
    {"mamba_d_conv", key_rule::read}, {"mamba_expand", key_rule::read}, {"mamba_dt_rank", key_rule::read},
    {"layer_norm_eps", key_rule::read}, {"max_position_embeddings", key_rule::read}, {"head_dim", key_rule::read},
    {"layer_types", key_rule::read},

    // What the model does.
    {"hidden_act", key_rule::wants, "'silu' or 'swish'"}, {"hidden_activation", key_rule::wants, "'silu' or 'swish'"},
    {"tie_word_embeddings", key_rule::wants, "true"}, {"mb_per_layer", key_rule::wants, "2"},
    {"mamba_conv_bias", key_rule::wants, "true"}, {"mamba_proj_bias", key_rule::wants, "false"},
    {"mamba_inner_layernorms", key_rule::wants, "false"}, {"mlp_bias", key_rule::wants, "false"},
    {"lm_head_bias", key_rule::wants, "false"}, {"attention_bias", key_rule::wants, "true"}, {"qkv_bias", key_rule::wants, "true"},
    {"use_sliding_window", key_rule::wants, "true"}, {"rms_norm_eps", key_rule::wants, "1e-05"},
    {"is_encoder_decoder", key_rule::wants, "false"}, {"add_cross_attention", key_rule::wants, "false"},
    {"cross_attention_hidden_size", key_rule::wants}, {"pruned_heads", key_rule::wants}, {"per_layer_config", key_rule::wants},
    {"num_experts", key_rule::wants, "0 or 1"}, {"num_local_experts", key_rule::wants, "0 or 1"},
    {"logit_scale", key_rule::wants, "1"}, {"logits_scaling", key_rule::wants, "1"}, {"embedding_multiplier", key_rule::wants, "1"},
    {"residual_multiplier", key_rule::wants, "1"}, {"final_logit_softcapping", key_rule::wants, "0"},
    {"attn_logit_softcapping", key_rule::wants, "0"},

    // Weights that were quantized by another program.
    {"quantization_config", key_rule::quantized}, {"quantization", key_rule::quantized}, {"compression_config", key_rule::quantized},

    // Positions: the model has none, whatever its class keeps of them.
    {"rope_theta", key_rule::idle}, {"rope_scaling", key_rule::idle}, {"rope_parameters", key_rule::idle},
    {"rope_type", key_rule::idle}, {"rope_local_base_freq", key_rule::idle}, {"rope_interleave", key_rule::idle},
    {"rope_interleaved", key_rule::idle}, {"partial_rotary_factor", key_rule::idle}, {"rotary_dim", key_rule::idle},
    {"rotary_pct", key_rule::idle}, {"rotary_emb_base", key_rule::idle}, {"original_max_position_embeddings", key_rule::idle},
    {"position_embedding_type", key_rule::idle}, {"ignore_keys_at_rope_validation", key_rule::idle},
    {"max_sequence_length", key_rule::idle}, {"max_seq_length", key_rule::idle}, {"max_seq_len", key_rule::idle},
    {"seq_length", key_rule::idle}, {"model_max_length", key_rule::idle},

    // Training, and how weights begin.
    {"attention_dropout", key_rule::idle}, {"embd_pdrop", key_rule::idle}, {"resid_pdrop", key_rule::idle},
    {"hidden_dropout", key_rule::idle}, {"classifier_dropout", key_rule::idle}, {"initializer_range", key_rule::idle},
    {"initializer_factor", key_rule::idle}, {"rescale_prenorm_residual", key_rule::idle}, {"mamba_dt_min", key_rule::idle},
    {"mamba_dt_max", key_rule::idle}, {"mamba_dt_init", key_rule::idle}, {"mamba_dt_scale", key_rule::idle},
    {"mamba_dt_init_floor", key_rule::idle}, {"time_step_min", key_rule::idle}, {"time_step_max", key_rule::idle},
    {"time_step_floor", key_rule::idle}, {"time_step_scale", key_rule::idle}, {"time_step_init_scheme", key_rule::idle},
    {"gradient_checkpointing", key_rule::idle}, {"loss_type", key_rule::idle}, {"tf_legacy_loss", key_rule::idle},

    // How another program runs the model.
    {"dtype", key_rule::idle}, {"torch_dtype", key_rule::idle}, {"use_bfloat16", key_rule::idle}, {"torchscript", key_rule::idle},
    {"pretraining_tp", key_rule::idle}, {"chunk_size_feed_forward", key_rule::idle}, {"attn_implementation", key_rule::idle},
    {"experts_implementation", key_rule::idle}, {"use_flash_attn", key_rule::idle}, {"flash_attn", key_rule::idle},
    {"fused_mlp", key_rule::idle}, {"use_mamba_kernels", key_rule::idle}, {"use_mambapy", key_rule::idle},
    {"num_logits_to_keep", key_rule::idle}, {"base_model_tp_plan", key_rule::idle}, {"base_model_pp_plan", key_rule::idle},
    {"base_model_ep_plan", key_rule::idle}, {"base_model_fsdp_plan", key_rule::idle}, {"return_dict", key_rule::idle},
    {"use_return_dict", key_rule::idle}, {"tie_last_hidden_states", key_rule::idle}, {"transformers.js_config", key_rule::idle},

    // Bookkeeping.
    {"architectures", key_rule::idle}, {"auto_map", key_rule::idle}, {"name_or_path", key_rule::idle},
    {"model_name", key_rule::idle}, {"tokenizer_class", key_rule::idle}, {"is_decoder", key_rule::idle},
    {"tie_encoder_decoder", key_rule::idle}, {"finetuning_task", key_rule::idle}, {"problem_type", key_rule::idle},
    {"task_specific_params", key_rule::idle}, {"prefix", key_rule::idle}, {"id2label", key_rule::idle},
    {"label2id", key_rule::idle}, {"num_labels", key_rule::idle}, {"sep_token_id", key_rule::idle}, {"unk_token_id", key_rule::idle},
    {"license", key_rule::idle},
};

/// Of generation_config.json; older programs put them into config.json. Those that want something are not supported: with any
/// other value the file asks for what `generate` does not do.
PHI4FLASH_OWN_DATA inline constexpr config_key generation_keys[] = {
    {"eos_token_id", key_rule::read}, {"bos_token_id", key_rule::read}, {"pad_token_id", key_rule::read},
    {"stop_strings", key_rule::read}, {"do_sample", key_rule::read}, {"temperature", key_rule::read}, {"top_k", key_rule::read},
    {"top_p", key_rule::read}, {"min_p", key_rule::read}, {"repetition_penalty", key_rule::read},
    {"max_new_tokens", key_rule::read},

    {"max_length", key_rule::wants, "20"},  // what every such class begins with
    {"min_length", key_rule::wants, "0"}, {"min_new_tokens", key_rule::wants, "0"}, {"max_time", key_rule::wants},
    {"num_beams", key_rule::wants, "1"}, {"num_beam_groups", key_rule::wants, "1"}, {"num_return_sequences", key_rule::wants, "1"},
    {"penalty_alpha", key_rule::wants, "0"}, {"dola_layers", key_rule::wants}, {"typical_p", key_rule::wants, "1"},
    {"top_h", key_rule::wants}, {"epsilon_cutoff", key_rule::wants, "0"}, {"eta_cutoff", key_rule::wants, "0"},
    {"diversity_penalty", key_rule::wants, "0"}, {"encoder_repetition_penalty", key_rule::wants, "1"},
    {"presence_penalty", key_rule::wants, "0"}, {"frequency_penalty", key_rule::wants, "0"},
    {"no_repeat_ngram_size", key_rule::wants, "0"}, {"encoder_no_repeat_ngram_size", key_rule::wants, "0"},
    {"bad_words_ids", key_rule::wants}, {"force_words_ids", key_rule::wants}, {"constraints", key_rule::wants},
    {"forced_bos_token_id", key_rule::wants}, {"forced_eos_token_id", key_rule::wants}, {"forced_decoder_ids", key_rule::wants},
    {"exponential_decay_length_penalty", key_rule::wants}, {"suppress_tokens", key_rule::wants},
    {"begin_suppress_tokens", key_rule::wants}, {"sequence_bias", key_rule::wants}, {"logit_bias", key_rule::wants},
    {"guidance_scale", key_rule::wants, "1"}, {"watermarking_config", key_rule::wants}, {"token_healing", key_rule::wants, "false"},

    // Of beams, which are told above; of caches, drafts and threads; of what a call returns.
    {"early_stopping", key_rule::idle}, {"length_penalty", key_rule::idle}, {"renormalize_logits", key_rule::idle},
    {"remove_invalid_values", key_rule::idle}, {"use_cache", key_rule::idle}, {"cache_implementation", key_rule::idle},
    {"cache_config", key_rule::idle}, {"max_cache_len", key_rule::idle}, {"return_legacy_cache", key_rule::idle},
    {"prefill_chunk_size", key_rule::idle}, {"compile_config", key_rule::idle}, {"disable_compile", key_rule::idle},
    {"continuous_batching_config", key_rule::idle}, {"low_memory", key_rule::idle}, {"is_assistant", key_rule::idle},
    {"num_assistant_tokens", key_rule::idle}, {"num_assistant_tokens_schedule", key_rule::idle},
    {"assistant_confidence_threshold", key_rule::idle}, {"assistant_early_exit", key_rule::idle},
    {"assistant_lookbehind", key_rule::idle}, {"target_lookbehind", key_rule::idle}, {"assistant_ensemble_weight", key_rule::idle},
    {"speculation_type", key_rule::idle}, {"use_mtp", key_rule::idle}, {"prompt_lookup_num_tokens", key_rule::idle},
    {"max_matching_ngram_size", key_rule::idle}, {"output_attentions", key_rule::idle}, {"output_hidden_states", key_rule::idle},
    {"output_scores", key_rule::idle}, {"output_logits", key_rule::idle}, {"return_dict_in_generate", key_rule::idle},
    {"decoder_start_token_id", key_rule::idle}, {"transformers_version", key_rule::idle}, {"trust_remote_code", key_rule::idle},
};
// clang-format on

template <std::size_t N>
[[nodiscard]] const config_key* find_key(const config_key (&keys)[N], std::string_view name) {
    const auto place = std::find_if(std::begin(keys), std::end(keys), [&](const config_key& k) { return k.name == name; });
    return place == std::end(keys) ? nullptr : place;
}

/// Keys that belong to the program that wrote them: every class of Hugging Face keeps its own under an underscore.
[[nodiscard]] constexpr bool is_private_key(std::string_view name) { return name.starts_with('_') || name.starts_with("unsloth_"); }

[[nodiscard]] inline bool asks_for_nothing(const json_value& value) {
    return value.is_null() || ((value.is_array() || value.is_object()) && value.empty());
}

/// Whether the value is one of those that `want` lists.
[[nodiscard]] PHI4FLASH_BODY bool is_wanted(const json_value& value, std::string_view want);

[[nodiscard]] PHI4FLASH_BODY error quantized_by_others(const char* key, const json_value& value);

/// Compares every key of a config.json with the list. Errors: unsupported_model, json_unknown_key.
[[nodiscard]] PHI4FLASH_BODY status check_config_keys(const json_value& config, const config_options& options);
}  // namespace detail

#if PHI4FLASH_BODIES
namespace detail {
PHI4FLASH_COLD_BODY bool is_wanted(const json_value& value, std::string_view want) {
    if (value.is_structured()) return false;
    constexpr std::string_view between = " or ";
    const std::string have = describe(value);
    while (true) {
        const std::size_t end = (std::min)(want.find(between), want.size());
        if (want.substr(0, end) == have) return true;
        if (end == want.size()) return false;
        want.remove_prefix(end + between.size());
    }
}

PHI4FLASH_COLD_BODY error quantized_by_others(const char* key, const json_value& value) {
    const json_value* const method = value.is_object() ? member(value, "quant_method") : nullptr;
    return error::format(errc::unsupported_model,
                         "'%s': the weights are quantized%s%s, a form that is not read here: want the model in bf16, f16 or f32 "
                         "(phi4flash convert makes small files of it)",
                         key, method != nullptr ? " as " : "", method != nullptr ? describe(*method).c_str() : "");
}

PHI4FLASH_COLD_BODY status check_config_keys(const json_value& config, const config_options& options) {
    const std::string* unknown = nullptr;
    std::size_t more = 0;
    for (auto item = config.begin(); item != config.end(); ++item) {
        const std::string& name = item.key();
        const json_value& value = item.value();
        const config_key* const key = find_key(config_keys, name);
        if (key != nullptr && key->rule == key_rule::quantized && !value.is_null()) return quantized_by_others(name.c_str(), value);
        if (asks_for_nothing(value) || is_private_key(name)) continue;
        if (key != nullptr && key->rule == key_rule::wants && !is_wanted(value, key->want))
            return error::format(errc::unsupported_model, "'%s': want %s, have %s", name.c_str(),
                                 *key->want == '\0' ? "nothing" : key->want, describe(value).c_str());
        if (key != nullptr || find_key(generation_keys, name) != nullptr) continue;
        if (unknown == nullptr) {
            unknown = &name;
        } else {
            ++more;
        }
    }
    if (unknown == nullptr || options.ignore_unknown_keys) return {};
    char others[48] = {};
    if (more != 0) detail::print(others, sizeof others, " (and %zu more)", more);
    return error::format(errc::json_unknown_key,
                         "the key '%s'%s is not known here, and it may change what is computed: remove it, or go on without it with "
                         "--ignore-unknown-keys (ignore_unknown_keys of the options)",
                         printable(*unknown).c_str(), others);
}
}  // namespace detail
#endif

PHI4FLASH_END
#endif  // PHI4FLASH_HAS_JSON
