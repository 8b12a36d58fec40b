#pragma once
/// How to generate: what the caller says, and what a model's files say where the caller is silent.
#include <phi4flash/generate/draft_policy.hpp>
#include <phi4flash/generate/sampler.hpp>
#include <phi4flash/model/generation_config.hpp>
#include <phi4flash/text/chat.hpp>
#include <phi4flash/text/utf8.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

PHI4FLASH_BEGIN

/// Drafts of what comes next (docs/drafts.md). The text is that of none, up to rounding of logits. @since 0.2
struct draft_options {
    drafter_ref from{};              ///< who makes them; by default nobody. Is told the prompt too, and must outlive the text
    draft_policy* policy = nullptr;  ///< how many are read: as many as pay. Null: all that are made
    std::size_t most = 15;           ///< at once, at most max_drafts; the workspace must have room for them: with_drafts
};

/// How a text is chosen and what ends it. Copied by what it is given to, but for what it points to. See `options_from`.
struct generation_options {
    sampling_options sampling{};
    std::size_t max_tokens = 32768;                ///< new ones, at most
    std::vector<std::int32_t> stop_ids{};          ///< of the model's vocabulary; end the text; not passed to the sink
    /// End the text; neither they nor what follows is passed on. Special tokens match too, also where they are left out of the text. UTF-8, and
    /// none is empty.
    std::vector<std::string> stop_strings{};
    bool skip_special = true;                      ///< leave special tokens out of the text
    draft_options drafts{};
    /// May be set by any thread; looked at between two pieces of a pass, by a scheduler before and after each.
    const std::atomic<bool>* cancel = nullptr;
};

/// What is wrong with these options for a model of so many ids, before anything is taken or changed. Errors: those of check_sampling;
/// unknown_token (a stop id that neither the model has nor `text`, whose own ends a smaller model never writes); invalid_argument (a stop string
/// that is empty or not UTF-8, more drafts than max_drafts). @since 0.2
[[nodiscard]] PHI4FLASH_BODY status check_generation(const generation_options& options, std::size_t vocab, const tokenizer* text = nullptr);

/// Adds the end of a message to the stop ids, if it is not among them: an answer is one message, whatever a model's files call
/// the end of a text. Errors: out_of_memory; nothing has changed then. @since 0.2
PHI4FLASH_BODY status stop_at_end_of_message(generation_options& options, const tokenizer& text);

/// What a model's files say, and the model card where they are silent. With `text`, which may be null, the end of a message is
/// always among the stop ids, and without any in the files `<|endoftext|>` too. Stop strings of the files that are empty or not UTF-8 are
/// left out. Errors: out_of_memory.
[[nodiscard]] PHI4FLASH_BODY result<generation_options> options_from(const generation_config& said, const tokenizer* text = nullptr);

#if PHI4FLASH_BODIES
PHI4FLASH_COLD_BODY status check_generation(const generation_options& options, std::size_t vocab, const tokenizer* text) {
    if (const status ok = check_sampling(options.sampling); !ok) return ok;
    const std::size_t ids = text == nullptr || text->vocab_size() < vocab ? vocab : text->vocab_size();
    for (std::size_t i = 0; i < options.stop_ids.size(); ++i) {
        const std::int32_t id = options.stop_ids[i];
        if (id < 0 || static_cast<std::size_t>(id) >= ids)
            return error::format(errc::unknown_token, "stop_ids[%zu]: want an id of the model, less than %zu, have %ld", i, ids,
                                 static_cast<long>(id));
    }
    for (std::size_t i = 0; i < options.stop_strings.size(); ++i) {
        const std::string& stop = options.stop_strings[i];
        if (stop.empty())
            return error::format(errc::invalid_argument, "stop_strings[%zu]: want at least one byte, have an empty string; leave it out", i);
        if (const std::size_t good = valid_utf8_prefix(stop); good != stop.size())  // it would cut texts inside a character
            return error::format(errc::invalid_argument, "stop_strings[%zu]: want UTF-8, have the byte 0x%02X at offset %zu", i,
                                 static_cast<unsigned>(static_cast<unsigned char>(stop[good])), good);
    }
    // Without a drafter it is nobody's number.
    if (options.drafts.from && options.drafts.most > max_drafts)
        return error::format(errc::invalid_argument, "drafts.most: want at most %zu, have %zu", max_drafts, options.drafts.most);
    return {};
}

PHI4FLASH_COLD_BODY result<generation_options> options_from(const generation_config& said, const tokenizer* text) {
    return detail::or_out_of_memory("make the options of a text", [&]() -> result<generation_options> {
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
        for (const std::string& stop : said.stop_strings)
            if (!stop.empty() && valid_utf8_prefix(stop) == stop.size()) options.stop_strings.push_back(stop);
        if (text == nullptr) return options;
        if (const status ok = stop_at_end_of_message(options, *text); !ok) return ok.error();
        if (!said.stop_ids.empty()) return options;
        if (const added_token* const end = text->added(std::string_view("<|endoftext|>")))
            options.stop_ids.push_back(static_cast<std::int32_t>(end->id));
        return options;
    });
}

PHI4FLASH_COLD_BODY status stop_at_end_of_message(generation_options& options, const tokenizer& text) {
    const added_token* const end = end_of_message(text);
    if (end == nullptr) return {};
    const auto id = static_cast<std::int32_t>(end->id);
    if (std::find(options.stop_ids.begin(), options.stop_ids.end(), id) != options.stop_ids.end()) return {};
    return detail::or_out_of_memory("add a stop id", [&] { options.stop_ids.push_back(id); });
}
#endif

PHI4FLASH_END
