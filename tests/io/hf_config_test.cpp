/// config.json and generation_config.json: the released files, class defaults, and every defect with its key.
#include "io_testing.hpp"

#include <phi4flash/io/hf_config.hpp>
#include <phi4flash/io/mapped_file.hpp>

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
        check_error(read_with(key, "8.5"), errc::bad_extent, {key, "whole", "have 8.5"});
        check_error(read_with(key, "16777217"), errc::bad_extent, {key, "16777216", "have 16777217"});
        check_error(read_with(key, "1e30"), errc::bad_extent, {key, "have 1e+30"});
    }
    for (const char* key : {"mamba_d_state", "mamba_d_conv", "mamba_expand", "mamba_dt_rank", "head_dim", "mb_per_layer"}) {
        CAPTURE(key);
        check_error(read_with(key, "0"), errc::bad_extent, {key});
        check_error(read_with(key, "null"), errc::json_wrong_type, {key});
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
    check_error(read_with("tie_word_embeddings", "1"), errc::json_wrong_type, {"tie_word_embeddings", "have 1"});
    check_error(read_with("mb_per_layer", "3"), errc::unsupported_model, {"mb_per_layer", "want 2", "have 3"});
    check_error(read_with("mamba_conv_bias", "false"), errc::unsupported_model, {"mamba_conv_bias"});
    check_error(read_with("mamba_proj_bias", "true"), errc::unsupported_model, {"mamba_proj_bias"});
    check_error(read_with("mlp_bias", "true"), errc::unsupported_model, {"mlp_bias"});
    check_error(read_with("lm_head_bias", "true"), errc::unsupported_model, {"lm_head_bias"});
    check_error(read_with("head_dim", "32"), errc::unsupported_model, {"head_dim", "16", "32"});
    require_value(read_with("head_dim", "16"));
}

TEST_CASE("io/hf_config: keys that nobody knows are refused, those of training and generation are not") {
    check_error(read_with("rope_scaling", "{\"type\": \"longrope\"}"), errc::json_unknown_key, {"'rope_scaling'", "computed"});
    check_error(read_with("quantization_config", "{}"), errc::json_unknown_key, {"'quantization_config'"});
    check_error(read_with("hidden_sizes", "160"), errc::json_unknown_key, {"'hidden_sizes'"});
    check_error(read_with("Hidden_size", "160"), errc::json_unknown_key, {"'Hidden_size'"});
    check_error(read_with("mamba_d_states", "true"), errc::json_unknown_key, {"'mamba_d_states'"});
    for (const char* key : {"torch_dtype", "transformers_version", "_name_or_path", "eos_token_id", "top_p", "use_bfloat16"}) {
        CAPTURE(key);
        require_value(read_with(key, "1"));
    }
    require_value(read_with("rope_scaling", "null"));  // asks for nothing
}

TEST_CASE("io/hf_config: the epsilon") {
    for (const char* value : {"0", "-1e-5", "1e-60", "0.0"})
        check_error(read_with("layer_norm_eps", value), errc::json_bad_number, {"layer_norm_eps"});
    check_error(read_with("layer_norm_eps", "1e300"), errc::not_finite, {"layer_norm_eps", "1e+300"});
    check_error(read_with("layer_norm_eps", "\"1e-5\""), errc::json_wrong_type, {"layer_norm_eps"});
    check_error(read_with("layer_norm_eps", "1e999"), errc::json_syntax, {"byte "});
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
    check_error(read_generation_config(R"({"eos_token_id": -1})"), errc::json_bad_number, {"eos_token_id", "-1"});
    check_error(read_generation_config(R"({"eos_token_id": 4294967296})"), errc::json_bad_number, {"eos_token_id"});
    check_error(read_generation_config(R"({"top_k": 1.5})"), errc::json_bad_number, {"top_k", "1.5"});
    check_error(read_generation_config(R"({"temperature": "hot"})"), errc::json_wrong_type, {"temperature", "'hot'"});
    check_error(read_generation_config(R"({"temperature": 1e39})"), errc::not_finite, {"temperature"});
    check_error(read_generation_config(R"({"do_sample": 1})"), errc::json_wrong_type, {"do_sample"});
    check_error(read_generation_config("3"), errc::json_wrong_type, {"an object"});
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
