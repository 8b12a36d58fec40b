#pragma once
/// How to generate: what the caller says, and what a model's files say where the caller is silent.
#include <phi4flash/generate/sampler.hpp>
#include <phi4flash/model/generation_config.hpp>
#include <phi4flash/text/tokenizer.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

PHI4FLASH_BEGIN

struct generation_options {
    sampling_options sampling{};
    std::size_t max_tokens = 32768;                ///< new ones, at most
    std::vector<std::int32_t> stop_ids{};          ///< end the text; not passed to the sink
    std::vector<std::string> stop_strings{};       ///< end the text; neither they nor what follows is passed on
    bool skip_special = true;                      ///< leave special tokens out of the text
    const std::atomic<bool>* cancel = nullptr;     ///< looked at before every chunk and token; may be set from anywhere
};

/// What a model's files say, and the model card where they are silent. Without stop ids in the files, those of `<|end|>` and
/// `<|endoftext|>` in `text`, which may be null.
[[nodiscard]] inline generation_options options_from(const generation_config& said, const tokenizer* text = nullptr) {
    generation_options options;
    sampling_options& s = options.sampling;
    const bool greedy = said.do_sample.has_value() && !*said.do_sample;
    s.temperature = greedy ? 0.0f : said.temperature.value_or(s.temperature);
    s.top_p = said.top_p.value_or(s.top_p);
    s.min_p = said.min_p.value_or(s.min_p);
    s.repetition_penalty = said.repetition_penalty.value_or(s.repetition_penalty);
    if (said.top_k) s.top_k = *said.top_k;
    if (said.max_new_tokens) options.max_tokens = *said.max_new_tokens;
    options.stop_ids.assign(said.stop_ids.begin(), said.stop_ids.end());
    if (!options.stop_ids.empty() || text == nullptr) return options;
    for (const std::string_view marker : {"<|end|>", "<|endoftext|>"})
        if (const added_token* const token = text->added(marker)) options.stop_ids.push_back(static_cast<std::int32_t>(token->id));
    return options;
}

PHI4FLASH_END
