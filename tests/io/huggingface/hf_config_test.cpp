/// config.json and generation_config.json: the released files, class defaults, and every defect with its key.
#include "io/io_testing.hpp"

#include <phi4flash/io/huggingface/config.hpp>
#include <phi4flash/io/huggingface/generation_config.hpp>
#include <phi4flash/io/file/read_file.hpp>

#include <array>

#if PHI4FLASH_HAS_JSON
using namespace phi4flash;
using namespace io_testing;

namespace {
/// A valid configuration with one member replaced, added, or (value "") removed.
std::string config_with(const std::string& key = {}, const std::string& value = {}) {
    std::vector<std::pair<std::string, std::string>> members = {
        {"model_type", "\"phi4flash\""}, {"vocab_size", "300"},       {"hidden_size", "160"},        {"intermediate_size", "224"},
        {"num_hidden_layers", "8"},      {"num_attention_heads", "10"}, {"num_key_value_heads", "2"}, {"sliding_window", "5"},
        {"hidden_act", "\"silu\""},      {"tie_word_embeddings", "true"}, {"layer_norm_eps", "1e-05"},
    };
    bool found = key.empty();
    std::string text = "{";
    for (auto& [name, old] : members) {
        if (name == key) {
            found = true;
            old = value;
        }
        if (!old.empty()) text += "\"" + name + "\": " + old + ", ";
    }
    if (!found) text += "\"" + key + "\": " + value + ", ";
    return text + "\"use_cache\": [null]}";
}

result<sambay_config> read_with(const std::string& key, const std::string& value) {
    return read_hf_config(config_with(key, value));
}

// Every line of the released config.json that decides something, and a few that must be ignored.
const char* const released = R"({"architectures": ["Phi4FlashForCausalLM"], "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_phi4flash.Phi4FlashConfig"}, "pad_token_id": 199999, "bos_token_id": 199999,
    "embd_pdrop": 0.0, "eos_token_id": 199999, "hidden_act": "silu", "hidden_size": 2560, "intermediate_size": 10240,
    "layer_norm_eps": 1e-5, "max_position_embeddings": 262144, "mb_per_layer": 2, "model_type": "phi4flash",
    "num_attention_heads": 40, "num_hidden_layers": 32, "num_key_value_heads": 20, "sliding_window": 512,
    "tie_word_embeddings": true, "mlp_bias": false, "lm_head_bias": false, "vocab_size": 200064})";
}  // namespace

TEST_CASE("io/hf_config: the released file, with the class's Mamba defaults") {
    const auto config = read_hf_config(released);
    require_value(config);
    CHECK(config->shape == phi4_mini_flash);
    CHECK(config->norm_eps == 1e-5f);
    CHECK(config->max_positions == 262144);
}

TEST_CASE("io/hf_config: Mamba keys in the file") {
    const auto defaults = read_hf_config(config_with());
    require_value(defaults);
    CHECK(defaults->shape.d_state == 16);
    CHECK(defaults->shape.d_conv == 4);
    CHECK(defaults->shape.d_inner == 320);
    CHECK(defaults->shape.dt_rank == 10);
    CHECK(defaults->max_positions == 0);
    CHECK(read_with("mamba_d_state", "4")->shape.d_state == 4);
    CHECK(read_with("mamba_d_conv", "3")->shape.d_conv == 3);
    CHECK(read_with("mamba_expand", "3")->shape.d_inner == 480);
    CHECK(read_with("mamba_dt_rank", "7")->shape.dt_rank == 7);
    CHECK(read_with("mamba_dt_rank", "\"auto\"")->shape.dt_rank == 10);
    CHECK(read_with("hidden_size", "170")->shape.dt_rank == 11);  // ceil(170 / 16)
    CHECK(read_with("layer_norm_eps", "")->norm_eps == 1e-5f);
    CHECK(read_with("layer_norm_eps", "1e-06")->norm_eps == 1e-6f);
    for (const char* key : {"hidden_act", "tie_word_embeddings"}) require_value(read_with(key, ""));
}

TEST_CASE("io/hf_config: the window as a list") {
    const auto config = read_with("sliding_window", "[null, 5, null, 5, null, null, null, null]");
    require_value(config);
    CHECK(config->shape.window == 5);
    check_error(read_with("sliding_window", "[null, 5]"), errc::bad_extent, {"sliding_window", "8 layers", "have 2"});
    check_error(read_with("sliding_window", "[null, 5, null, 6, null, null, null, null]"), errc::bad_extent,
                {"sliding_window", "[3]", "want 5", "have 6"});
    check_error(read_with("sliding_window", "[null, 5, null, null, null, null, null, null]"), errc::bad_extent,
                {"sliding_window", "[3]", "have null"});
    check_error(read_with("sliding_window", "[5, 5, null, 5, null, null, null, null]"), errc::bad_extent,
                {"sliding_window", "[0]", "want null"});
    check_error(read_with("sliding_window", "[null, 5, null, 5, null, 5, null, null]"), errc::bad_extent,
                {"sliding_window", "[5]", "want null"});
    check_error(read_with("sliding_window", "[null, \"5\", null, 5, null, null, null, null]"), errc::json_wrong_type,
                {"sliding_window", "'5'"});
    check_error(read_with("sliding_window", "[null, 0, null, 0, null, null, null, null]"), errc::bad_extent,
                {"sliding_window", "have 0"});
    check_error(read_with("sliding_window", "null"), errc::json_wrong_type, {"sliding_window", "null"});
    // A file that was saved twice: the class makes a list of the list.
    CHECK(read_with("sliding_window", "[null, [null, 5, null, 5, null, null, null, null], null, "
                                      "[null, 5, null, 5, null, null, null, null], null, null, null, null]")->shape.window == 5);
    check_error(read_with("sliding_window", "[null, [null, 5], null, [null, 5], null, null, null, null]"), errc::bad_extent,
                {"sliding_window", "have 2"});
    CHECK(read_with("num_key_value_heads", "null")->shape.n_kv_heads == 10);  // the class: as many as query heads
}

TEST_CASE("io/hf_config: required keys, their types and their numbers") {
    for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                            "num_key_value_heads", "sliding_window"}) {
        CAPTURE(key);
        check_error(read_with(key, ""), errc::json_missing_key, {key});
        check_error(read_with(key, "\"8\""), errc::json_wrong_type, {key, "a number", "'8'"});
        check_error(read_with(key, "{}"), errc::json_wrong_type, {key, "a number", "an object"});
        check_error(read_with(key, "true"), errc::json_wrong_type, {key, "a number", "true"});
        check_error(read_with(key, "0"), errc::bad_extent, {key, "from 1", "have 0"});
        check_error(read_with(key, "-8"), errc::bad_extent, {key, "from 1", "have -8"});
        check_error(read_with(key, "96.0"), errc::bad_extent, {key, "a whole number", "have 96.0"});
        check_error(read_with(key, "8.5"), errc::bad_extent, {key, "whole", "have 8.5"});
        check_error(read_with(key, "16777217"), errc::bad_extent, {key, "16777216", "have 16777217"});
        check_error(read_with(key, "1e30"), errc::bad_extent, {key, "have 1e+30"});
    }
    for (const char* key : {"mamba_d_state", "mamba_d_conv", "mamba_expand", "mamba_dt_rank", "head_dim", "mb_per_layer"}) {
        CAPTURE(key);
        check_error(read_with(key, key == std::string("mb_per_layer") ? "\"a\"" : "0"),
                    key == std::string("mb_per_layer") ? errc::unsupported_model : errc::bad_extent, {key});
        CHECK(read_with(key, "null")->shape == read_hf_config(config_with())->shape);  // null is absent
    }
    check_error(read_with("mamba_dt_rank", "\"full\""), errc::json_wrong_type, {"mamba_dt_rank", "auto", "'full'"});
    check_error(read_with("mamba_expand", "16777216"), errc::bad_extent, {"d_inner"});
}

TEST_CASE("io/hf_config: rules of the shape") {
    check_error(read_with("num_hidden_layers", "6"), errc::bad_extent, {"multiple of 4", "have 6"});
    check_error(read_with("num_attention_heads", "5"), errc::bad_extent, {"even", "have 5"});
    check_error(read_with("num_key_value_heads", "5"), errc::bad_extent, {"even", "have 5"});
    check_error(read_with("num_key_value_heads", "4"), errc::bad_extent, {"n_kv_heads"});
    check_error(read_with("hidden_size", "161"), errc::bad_extent, {"d_model"});
}

TEST_CASE("io/hf_config: another model is refused by name") {
    check_error(read_with("model_type", "\"phi3\""), errc::unsupported_model, {"model_type", "phi4flash", "'phi3'"});
    check_error(read_with("model_type", ""), errc::json_missing_key, {"model_type"});
    check_error(read_with("model_type", "3"), errc::json_wrong_type, {"model_type"});
    check_error(read_with("hidden_act", "\"gelu\""), errc::unsupported_model, {"hidden_act", "silu", "'gelu'"});
    check_error(read_with("tie_word_embeddings", "false"), errc::unsupported_model, {"tie_word_embeddings", "true", "false"});
    check_error(read_with("tie_word_embeddings", "1"), errc::unsupported_model, {"tie_word_embeddings", "want true", "have 1"});
    check_error(read_with("mb_per_layer", "3"), errc::unsupported_model, {"mb_per_layer", "want 2", "have 3"});
    check_error(read_with("mamba_conv_bias", "false"), errc::unsupported_model, {"mamba_conv_bias"});
    check_error(read_with("mamba_proj_bias", "true"), errc::unsupported_model, {"mamba_proj_bias"});
    check_error(read_with("mlp_bias", "true"), errc::unsupported_model, {"mlp_bias"});
    check_error(read_with("lm_head_bias", "true"), errc::unsupported_model, {"lm_head_bias"});
    check_error(read_with("head_dim", "32"), errc::unsupported_model, {"head_dim", "16", "32"});
    require_value(read_with("head_dim", "16"));
}

TEST_CASE("io/hf_config: keys that nobody knows are refused, those of training and generation are not") {
    check_error(read_with("hidden_sizes", "160"), errc::json_unknown_key, {"'hidden_sizes'"});
    check_error(read_with("Hidden_size", "160"), errc::json_unknown_key, {"'Hidden_size'"});
    check_error(read_with("mamba_d_states", "true"), errc::json_unknown_key, {"'mamba_d_states'"});
    check_error(read_with("hidden_sizes", "160, \"a\": 1, \"b\": 2"), errc::json_unknown_key,
                {"'a' (and 2 more)", "--ignore-unknown-keys", "ignore_unknown_keys"});
    require_value(read_hf_config(config_with("hidden_sizes", "160"), {.ignore_unknown_keys = true}));
    for (const char* key : {"torch_dtype", "transformers_version", "_name_or_path", "eos_token_id", "top_p", "use_bfloat16"}) {
        CAPTURE(key);
        require_value(read_with(key, "1"));
    }
    require_value(read_with("something_new", "null"));  // asks for nothing
    require_value(read_with("something_new", "{}"));
    require_value(read_with("something_new", "[]"));
}

TEST_CASE("io/hf_config: what cannot change the model is ignored: positions, training, other programs") {
    for (const char* key : {"rope_theta", "rope_scaling", "rope_parameters", "original_max_position_embeddings", "pretraining_tp",
                            "unsloth_fixed", "unsloth_version", "unsloth_of_tomorrow", "dtype", "attn_implementation", "use_mamba_kernels",
                            "attention_dropout", "mamba_dt_min", "id2label", "num_beams", "stop_strings", "transformers.js_config"}) {
        CAPTURE(key);
        for (const char* value : {"1", "null", "{\"factor\": 4}", "[1, 2]", "\"text\""}) require_value(read_with(key, value));
    }
}

TEST_CASE("io/hf_config: what could change it is compared, also where unknown keys are ignored") {
    for (const auto& [key, good, bad] : {std::array{"attention_bias", "true", "false"}, {"use_sliding_window", "true", "false"},
                                         {"rms_norm_eps", "1e-5", "1e-6"}, {"is_encoder_decoder", "false", "true"},
                                         {"add_cross_attention", "false", "true"}, {"pruned_heads", "{}", "{\"1\": [0]}"},
                                         {"per_layer_config", "null", "{\"0\": {\"hidden_size\": 8}}"}, {"num_experts", "1", "8"},
                                         {"hidden_activation", "\"swish\"", "\"gelu\""}, {"final_logit_softcapping", "0.0", "30.0"},
                                         {"mamba_inner_layernorms", "false", "true"}}) {
        CAPTURE(key);
        require_value(read_with(key, good));
        require_value(read_with(key, "null"));
        check_error(read_with(key, bad), errc::unsupported_model, {key, "want", "have"});
        check_error(read_hf_config(config_with(key, bad), {.ignore_unknown_keys = true}), errc::unsupported_model, {key});
    }
}

TEST_CASE("io/hf_config: weights that others have quantized") {
    for (const char* key : {"quantization_config", "quantization", "compression_config"}) {
        CAPTURE(key);
        check_error(read_with(key, "{\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true}"), errc::unsupported_model,
                    {key, "quantized as 'bitsandbytes'", "bf16", "convert"});
        check_error(read_with(key, "{\"group_size\": 64, \"bits\": 4}"), errc::unsupported_model, {key, "weights are quantized,"});
        check_error(read_hf_config(config_with(key, "{}"), {.ignore_unknown_keys = true}), errc::unsupported_model, {key});
        require_value(read_with(key, "null"));
    }
}

TEST_CASE("io/hf_config: layer_types") {
    const auto types = [](std::initializer_list<const char*> words) {
        std::string list = "[";
        for (const char* word : words) list += std::string(list.size() > 1 ? ", " : "") + "\"" + word + "\"";
        return read_with("layer_types", list + "]");
    };
    require_value(types({"mamba", "sliding_attention", "mamba", "sliding_attention", "mamba", "full_attention", "mamba", "full_attention"}));
    require_value(types({"mamba", "attention", "mamba", "attention", "mamba", "attention", "mamba", "shared_attention"}));
    require_value(types({"linear_attention", "full_attention", "linear_attention", "full_attention", "linear_attention",
                         "full_attention", "gmu", "cross_attention"}));
    check_error(types({"full_attention", "full_attention", "mamba", "attention", "mamba", "attention", "mamba", "attention"}),
                errc::unsupported_model, {"'layer_types'[0]", "want 'mamba'", "'full_attention'"});
    check_error(types({"mamba", "attention", "mamba", "attention", "mamba", "sliding_attention", "mamba", "attention"}),
                errc::unsupported_model, {"'layer_types'[5]", "want 'full_attention'"});
    check_error(types({"mamba", "mamba", "mamba", "attention", "mamba", "attention", "mamba", "attention"}), errc::unsupported_model,
                {"'layer_types'[1]", "want 'sliding_attention'"});
    check_error(types({"mamba", "moe"}), errc::bad_extent, {"layer_types", "8 layers", "have 2"});
    check_error(read_with("layer_types", "\"mamba\""), errc::json_wrong_type, {"layer_types", "a list"});
    check_error(read_with("layer_types", "[1, 2, 3, 4, 5, 6, 7, 8]"), errc::json_wrong_type, {"layer_types", "strings"});
}

TEST_CASE("io/hf_config: the epsilon") {
    for (const char* value : {"0", "-1e-5", "1e-60", "0.0"})
        check_error(read_with("layer_norm_eps", value), errc::json_bad_number, {"layer_norm_eps"});
    CHECK(read_with("layer_norm_eps", "18446744073709551615")->norm_eps == 18446744073709551615.0f);
    check_error(read_with("layer_norm_eps", "1e300"), errc::not_finite, {"layer_norm_eps", "1e+300"});
    check_error(read_with("layer_norm_eps", "\"1e-5\""), errc::json_wrong_type, {"layer_norm_eps"});
    check_error(read_with("layer_norm_eps", "1e999"), errc::json_bad_number, {"byte ", "1e999"});
}

TEST_CASE("io/hf_config: the document") {
    check_error(read_hf_config("[]"), errc::json_wrong_type, {"an object", "a list"});
    check_error(read_hf_config("\xff"), errc::json_syntax);
    check_error(read_hf_config(std::string(2000000, ' ')), errc::json_too_large);
    check_error(read_hf_config(std::string(100, '[')), errc::json_too_deep);
    check_error(read_with("vocab_size", "8, \"vocab_size\": 9"), errc::json_duplicate_key, {"vocab_size"});
}

TEST_CASE("io/generation_config: one stop id, several, none") {
    const auto several = read_generation_config(R"({"eos_token_id": [200020, 199999], "bos_token_id": 7, "pad_token_id": null})");
    require_value(several);
    CHECK(several->stop_ids == std::vector<std::uint32_t>{200020, 199999});
    CHECK(several->bos_id == 7u);
    CHECK_FALSE(several->pad_id.has_value());
    CHECK_FALSE(several->temperature.has_value());
    CHECK(read_generation_config(R"({"eos_token_id": 3})")->stop_ids == std::vector<std::uint32_t>{3});
    CHECK(read_generation_config("{}")->stop_ids.empty());
    CHECK(read_generation_config(R"({"eos_token_id": null})")->stop_ids.empty());
}

TEST_CASE("io/generation_config: sampling, and what is refused") {
    const auto config = read_generation_config(
        R"({"temperature": 0.6, "top_p": 0.95, "top_k": 50, "min_p": 0, "repetition_penalty": 1, "max_new_tokens": 32768,)"
        R"("do_sample": true})");
    require_value(config);
    CHECK(config->temperature == 0.6f);
    CHECK(config->top_p == 0.95f);
    CHECK(config->top_k == 50u);
    CHECK(config->min_p == 0.0f);
    CHECK(config->repetition_penalty == 1.0f);
    CHECK(config->max_new_tokens == 32768u);
    CHECK(config->do_sample == true);
    check_error(read_generation_config(R"({"eos_token_id": [1, "2"]})"), errc::json_wrong_type, {"eos_token_id", "'2'"});
    check_error(read_generation_config(R"({"eos_token_id": 4294967296})"), errc::json_bad_number, {"eos_token_id"});
    check_error(read_generation_config(R"({"top_k": 1.5})"), errc::json_bad_number, {"top_k", "1.5"});
    check_error(read_generation_config(R"({"temperature": "hot"})"), errc::json_wrong_type, {"temperature", "'hot'"});
    check_error(read_generation_config(R"({"temperature": 1e39})"), errc::not_finite, {"temperature"});
    check_error(read_generation_config(R"({"do_sample": 1})"), errc::json_wrong_type, {"do_sample"});
    check_error(read_generation_config("3"), errc::json_wrong_type, {"an object"});
}

TEST_CASE("io/generation_config: what others write for none") {
    const auto config = read_generation_config(
        R"({"eos_token_id": [-1, 5], "pad_token_id": -1, "bos_token_id": [7, 8], "top_k": -1, "max_new_tokens": -1})");
    require_value(config);
    CHECK(config->stop_ids == std::vector<std::uint32_t>{5});
    CHECK_FALSE(config->pad_id.has_value());
    CHECK(config->bos_id == 7u);
    CHECK(config->top_k == 0u);
    CHECK_FALSE(config->max_new_tokens.has_value());
    CHECK(read_generation_config(R"({"eos_token_id": -1})")->stop_ids.empty());
    for (const char* odd : {"[]", "[-1]", "\"<|endoftext|>\"", "{}", "1e40", "18446744073709551615"}) {
        CAPTURE(odd);  // nothing depends on these two
        const auto read = read_generation_config(std::string("{\"pad_token_id\": ") + odd + ", \"bos_token_id\": " + odd + "}");
        require_value(read);
        CHECK_FALSE(read->pad_id.has_value());
        CHECK_FALSE(read->bos_id.has_value());
    }
}

TEST_CASE("io/generation_config: stop strings") {
    using strings = std::vector<std::string>;
    CHECK(read_generation_config(R"({"stop_strings": "END"})")->stop_strings == strings{"END"});
    CHECK(read_generation_config(R"({"stop_strings": ["a", "b"]})")->stop_strings == strings{"a", "b"});
    CHECK(read_generation_config(R"({"stop_strings": null})")->stop_strings.empty());
    CHECK(read_generation_of_hf_config(R"({"stop_strings": ["a"]})")->stop_strings == strings{"a"});
    check_error(read_generation_config(R"({"stop_strings": [1]})"), errc::json_wrong_type, {"stop_strings", "have 1"});
    check_error(read_generation_config(R"({"stop_strings": {"a": 1}})"), errc::json_wrong_type, {"stop_strings", "an object"});
}

TEST_CASE("io/generation_config: what is asked for and not done is named") {
    using strings = std::vector<std::string>;
    const char* const asks =
        R"({"num_beams": 4, "penalty_alpha": 0.6, "no_repeat_ngram_size": 3, "typical_p": 0.9, "bad_words_ids": [[1]],)"
        R"("of_tomorrow": 1, "_of_mine": 1, "length_penalty": 2.0})";
    const auto config = read_generation_config(asks);
    require_value(config);
    CHECK(config->unsupported ==
          strings{"bad_words_ids", "no_repeat_ngram_size", "num_beams", "of_tomorrow", "penalty_alpha", "typical_p"});
    auto of_config = read_generation_of_hf_config(asks);  // there, an unknown key is none of generation
    require_value(of_config);
    std::sort(of_config->unsupported.begin(), of_config->unsupported.end());
    CHECK(of_config->unsupported == strings{"bad_words_ids", "no_repeat_ngram_size", "num_beams", "penalty_alpha", "typical_p"});
    const auto nothing = read_generation_config(
        R"({"num_beams": 1, "penalty_alpha": null, "no_repeat_ngram_size": 0, "typical_p": 1.0, "bad_words_ids": [], "max_length": 20,)"
        R"("guidance_scale": 1, "token_healing": false, "use_cache": true, "transformers_version": "4.45.0"})");
    require_value(nothing);
    CHECK(nothing->unsupported.empty());
}

TEST_CASE("io/hf_config: released files") {
    const auto shared = shared_folder();
    if (shared.empty()) return;
    const auto config = read_hf_config(*read_file(shared / "model" / "released" / "config.json", 1 << 20));
    require_value(config);
    CHECK(config->shape == phi4_mini_flash);
    const auto generation = read_generation_config(*read_file(shared / "model" / "released" / "generation_config.json", 1 << 20));
    require_value(generation);
    CHECK(generation->stop_ids == std::vector<std::uint32_t>{200020, 199999});
}
#endif
