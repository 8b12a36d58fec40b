#pragma once
/// The keys of a GGUF file that begin with "phi4flash.", and what each means: the rule of io/huggingface/config_keys.hpp for files of this kind.
/// Keys of other families (general., tokenizer., quantize. and the like) do not say how the model computes.
#include <phi4flash/io/huggingface/config_options.hpp>
#include <phi4flash/io/packed/keys.hpp>

#include <algorithm>
#include <iterator>
#include <string_view>

PHI4FLASH_BEGIN

namespace detail {

/// Families that cannot change what the model computes: how texts are made, the tokenizer's tables, and positions, of which the
/// model has none.
PHI4FLASH_OWN_DATA inline constexpr std::string_view idle_packed_families[] = {"phi4flash.generation.", "phi4flash.tokenizer.", "phi4flash.rope."};
PHI4FLASH_OWN_DATA inline constexpr std::string_view idle_packed_keys[] = {"phi4flash.tensor_data_layout", "phi4flash.ssm.group_count"};

/// A whole number or a truth value that must be as here, because that is what the model does.
struct packed_want {
    std::string_view key;
    std::uint64_t number;
    bool truth;  ///< whether it is a truth value
};

[[nodiscard]] inline bool is_read_packed_key(std::string_view key) {
    for (const packed_extent& e : packed_extents)
        if (key == e.key) return true;
    return key == packed_eps_key || key == packed_positions_key || key == packed_layout_key || key == packed_codebook_key;
}

/// Errors: unsupported_model (a key asks for what the model does not do), unknown_key.
[[nodiscard]] PHI4FLASH_BODY status check_packed_keys(const gguf& file, const sambay_shape& shape, const config_options& options);

#if PHI4FLASH_BODIES
PHI4FLASH_COLD_BODY status check_packed_keys(const gguf& file, const sambay_shape& shape, const config_options& options) {
    const std::uint64_t d_head = shape.d_model / shape.n_heads;
    const packed_want wants[] = {
        {"phi4flash.attention.key_length", d_head, false}, {"phi4flash.attention.value_length", d_head, false},
        {"phi4flash.attention.causal", 1, true},           {"phi4flash.use_parallel_residual", 0, true},
        {"phi4flash.ssm.dt_b_c_rms", 0, true},             {"phi4flash.expert_count", 0, false},
        {"phi4flash.expert_used_count", 0, false},
    };
    for (const gguf_value& value : file.values()) {
        const std::string_view key = value.key;
        if (!key.starts_with("phi4flash.") || is_read_packed_key(key)) continue;
        const auto begins = [&](std::string_view family) { return key.starts_with(family); };
        if (std::any_of(std::begin(idle_packed_families), std::end(idle_packed_families), begins)) continue;
        if (std::find(std::begin(idle_packed_keys), std::end(idle_packed_keys), key) != std::end(idle_packed_keys)) continue;
        const auto* const want = std::find_if(std::begin(wants), std::end(wants), [&](const packed_want& w) { return w.key == key; });
        if (want != std::end(wants)) {
            const auto truth = value.boolean();
            const auto number = value.is_array ? std::nullopt : value.whole();
            if (want->truth ? truth == (want->number != 0) : number == want->number) continue;
            char number_text[24] = {};
            std::snprintf(number_text, sizeof number_text, "%llu", static_cast<unsigned long long>(want->number));
            return error::format(errc::unsupported_model, "key '%s': want %s, have another value", printable(key).c_str(),
                                 !want->truth ? number_text : want->number != 0 ? "true" : "false");
        }
        if (options.ignore_unknown_keys) continue;
        return error::format(errc::unknown_key,
                             "the key '%s' is not known here, and it may change what is computed: go on without it with "
                             "--ignore-unknown-keys (ignore_unknown_keys of the options)",
                             printable(key).c_str());
    }
    return {};
}
#endif

}  // namespace detail

PHI4FLASH_END
