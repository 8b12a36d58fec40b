#pragma once
/// config.json of a Hugging Face folder: the shape of a model. What decides the computation is required or has the default of
/// the model's class; io/huggingface/config_keys.hpp says what every other key means.
#include <phi4flash/io/huggingface/config_keys.hpp>
#include <phi4flash/io/huggingface/config_reader.hpp>

#if PHI4FLASH_HAS_JSON
#include <cfloat>
#include <string>
#include <string_view>

PHI4FLASH_BEGIN

namespace detail {
/// The window, as a number or as a list with one entry a layer: null, or the window on odd layers of the first half. The model's
/// class makes a list of whatever it reads, so a file that was saved twice has a list in the list.
class window_reader {
public:
    window_reader(config_reader& in, std::size_t n_layers) : in_(in), n_layers_(n_layers) {}

    std::size_t read();

private:
    static constexpr const char* key = "sliding_window";

    bool has_every_layer(const json_value& list) {
        if (list.size() == n_layers_) return true;
        in_.fail(error::format(errc::bad_extent, "'%s': want one entry for each of %zu layers, have %zu", key, n_layers_, list.size()));
        return false;
    }
    const json_value& entry_of(const json_value& list, std::size_t layer) {
        const json_value* entry = &list[layer];
        while (entry->is_array() && has_every_layer(*entry)) entry = &(*entry)[layer];
        return *entry;
    }
    void take(std::size_t layer, const json_value& entry);

    config_reader& in_;
    std::size_t n_layers_;
    std::size_t window_ = 0;
};

/// A list with a word for each layer. The model's own code does not read it, and transformers 5 writes full_attention for every
/// attention of an older list; so it is compared as far as such words can be trusted.
PHI4FLASH_BODY void check_layer_types(config_reader& in, std::size_t n_layers);

PHI4FLASH_BODY void read_model_type(config_reader& in);

PHI4FLASH_BODY sambay_shape read_shape(config_reader& in);

}  // namespace detail

/// The shape in `text`, a config.json. Errors, each naming the key, want and have: json_*, json_unknown_key (a key that nobody
/// knows, unless the options say to ignore it), file_incomplete (JSON that ends too early),
/// unsupported_model (another architecture or activation, untied embedding, weights quantized by others), bad_extent (zero, negative,
/// fractional or huge numbers, and every rule of check_shape), not_finite,
/// json_bad_number (layer_norm_eps), out_of_memory.
[[nodiscard]] PHI4FLASH_BODY result<sambay_config> read_hf_config(std::string_view text, const config_options& options = {});

#if PHI4FLASH_BODIES
namespace detail {

PHI4FLASH_COLD_BODY std::size_t window_reader::read() {
    const json_value* const value = in_.find(key);
    if (value == nullptr || !value->is_array()) return in_.extent(key);
    if (!has_every_layer(*value)) return 0;
    for (std::size_t layer = 0; layer < n_layers_ && in_.outcome(); ++layer) take(layer, entry_of(*value, layer));
    return window_;
}

PHI4FLASH_COLD_BODY void window_reader::take(std::size_t layer, const json_value& entry) {
    const bool windowed = layer % 2 == 1 && layer < n_layers_ / 2;
    if (entry.is_null()) {
        if (windowed)
            in_.fail(error::format(errc::bad_extent, "'%s'[%zu]: want a number on this layer, have null", key, layer));
        return;
    }
    const std::size_t have = in_.extent(key, entry);
    if (!windowed)
        in_.fail(error::format(errc::bad_extent, "'%s'[%zu]: want null on this layer, have %zu", key, layer, have));
    if (window_ != 0 && have != window_)
        in_.fail(
            error::format(errc::bad_extent, "'%s'[%zu]: want %zu as on the layers before, have %zu", key, layer, window_, have));
    window_ = have;
}

PHI4FLASH_COLD_BODY void check_layer_types(config_reader& in, std::size_t n_layers) {
    constexpr const char* key = "layer_types";
    const json_value* const types = in.find(key);
    if (types == nullptr) return;
    if (!types->is_array()) return in.fail(wrong_type(key, "a list", *types));
    if (types->size() != n_layers)
        return in.fail(
            error::format(errc::bad_extent, "'%s': want one entry for each of %zu layers, have %zu", key, n_layers, types->size()));
    std::size_t layer = 0;
    for (const json_value& type : *types) {
        const auto* const word = type.get_ptr<const std::string*>();
        if (word == nullptr) return in.fail(wrong_type(key, "a list of strings", type));
        const auto ends = [&](std::string_view end) { return word->ends_with(end); };
        const bool recurrent = ends("mamba") || ends("mamba1") || *word == "linear_attention" || ends("gmu") || ends("gated_memory");
        const bool attends = !recurrent && ends("attention");
        const bool windowed = word->starts_with("sliding");
        const bool good = layer % 2 == 0 ? recurrent : attends && (!windowed || layer < n_layers / 2);
        if (!good) {
            const char* const want = layer % 2 == 0 ? "mamba" : layer < n_layers / 2 ? "sliding_attention" : "full_attention";
            return in.fail(error::format(errc::unsupported_model, "'%s'[%zu]: want '%s' on this layer, have %s", key, layer, want,
                                         describe(type).c_str()));
        }
        ++layer;
    }
}

PHI4FLASH_COLD_BODY void read_model_type(config_reader& in) {
    const json_value* const type = in.find("model_type");
    if (type == nullptr) return in.fail(error::format(errc::json_missing_key, "no key 'model_type': want 'phi4flash'"));
    if (!type->is_string()) return in.fail(wrong_type("model_type", "'phi4flash'", *type));
    if (!is_wanted(*type, "'phi4flash'"))
        in.fail(error::format(errc::unsupported_model, "'model_type': want 'phi4flash', have %s", describe(*type).c_str()));
}

PHI4FLASH_COLD_BODY sambay_shape read_shape(config_reader& in) {
    sambay_shape s;
    s.d_model = in.extent("hidden_size");
    s.d_ff = in.extent("intermediate_size");
    s.n_layers = in.extent("num_hidden_layers");
    s.n_heads = in.extent("num_attention_heads");
    s.n_kv_heads = in.is_null("num_key_value_heads") ? s.n_heads : in.extent("num_key_value_heads");  // as the class does
    s.vocab = in.extent("vocab_size");
    s.window = window_reader(in, s.n_layers).read();
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

}  // namespace detail

PHI4FLASH_COLD_BODY result<sambay_config> read_hf_config(std::string_view text, const config_options& options) {
    return detail::or_out_of_memory("read a config.json", [&]() -> result<sambay_config> {
        const auto document = detail::read_config_object(text);
        if (!document) return document.error();
        detail::config_reader in(*document);
        detail::read_model_type(in);
        sambay_config config;
        config.shape = detail::read_shape(in);
        detail::check_layer_types(in, config.shape.n_layers);
        config.max_positions = in.count("max_position_embeddings").value_or(0);
        config.norm_eps = in.number("layer_norm_eps").value_or(1e-5f);
        if (!(config.norm_eps >= FLT_MIN))
            in.fail(error::format(errc::json_bad_number, "'layer_norm_eps': want a positive number, have %.9g",
                                  static_cast<double>(config.norm_eps)));
        if (!in.outcome()) return in.outcome().error();
        if (const status ok = check_shape(config.shape); !ok) return ok.error();
        if (const status ok = detail::check_config_keys(*document, options); !ok) return ok.error();
        const std::size_t d_head = config.shape.d_model / config.shape.n_heads;
        if (in.extent_or("head_dim", d_head) != d_head && in.outcome())
            in.fail(error::format(errc::unsupported_model, "'head_dim': want hidden_size / num_attention_heads = %zu, have %s", d_head,
                                  detail::describe(*in.find("head_dim")).c_str()));
        if (!in.outcome()) return in.outcome().error();
        return config;
    });
}
#endif

PHI4FLASH_END
#endif  // PHI4FLASH_HAS_JSON
