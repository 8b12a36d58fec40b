#pragma once
/// The generation loop: a prompt's ids in, tokens and text out as they come, until something ends it.
#include <phi4flash/generate/options.hpp>
#include <phi4flash/generate/stop.hpp>
#include <phi4flash/model/forward.hpp>
#include <phi4flash/text/decoder.hpp>

#include <optional>

PHI4FLASH_BEGIN

/// Why a text ended.
enum class stop_reason : std::uint8_t {
    stop_token,    ///< the model chose one of the stop ids
    stop_string,   ///< the text contained one of the stop strings
    max_tokens,    ///< as many tokens as were asked for
    context_full,  ///< the session has no room for another token
    cancelled,     ///< `cancel` became true
    sink,          ///< the sink returned false
};

[[nodiscard]] constexpr const char* name_of(stop_reason reason) {
    constexpr const char* names[] = {"stop_token", "stop_string", "max_tokens", "context_full", "cancelled", "sink"};
    return names[static_cast<std::size_t>(reason)];
}

/// What a sink is told. A token may bring no text (an incomplete character, the start of a stop string) or the text of several;
/// the last call may bring text without a token (-1).
struct generation_event {
    std::int32_t token = -1;
    std::string_view text;
};

struct generation_summary {
    stop_reason reason = stop_reason::max_tokens;
    std::size_t prompt_tokens = 0;  ///< that were read
    std::size_t new_tokens = 0;     ///< that were chosen, a stop token not counted
    std::int32_t unread = -1;       ///< the last chosen token: the session has not read it. A next prompt should begin with it.
};

/// Which ids may be chosen: those that have a string, and the stop ids. Without a tokenizer, all.
[[nodiscard]] inline std::vector<bool> allowed_ids(std::size_t vocab, const tokenizer* text, std::span<const std::int32_t> stop_ids) {
    std::vector<bool> allowed(vocab, text == nullptr);
    for (std::size_t id = 0; text != nullptr && id < vocab; ++id) allowed[id] = text->has_string(static_cast<std::int64_t>(id));
    for (const std::int32_t id : stop_ids) {
        if (id >= 0 && static_cast<std::size_t>(id) < vocab) allowed[static_cast<std::size_t>(id)] = true;
    }
    return allowed;
}

/// Reads `prompt` into the session and generates. `sink(const generation_event&)` returns false to stop, and is not called again. `text` may be null: then
/// events carry tokens only. `on_prompt(read, total)` is told how far the prompt is, for progress bars.
/// Errors: those of `prefill` and of `sampler::create`; nothing was generated then. A cancelled prompt is not an error. not_finite after
/// any token: damaged weights; the session has read all tokens before it. in_use also where the sink moves this session; with another
/// session it may use the workspace, `on_prompt` may not. What a callback throws passes through: the session is then whole, and has read all
/// tokens before the one that the sink was told of.
template <sambay_shape Shape, class Kv, class Sink, class OnPrompt>
result<generation_summary> generate(const model<Shape>& m, session<Shape, Kv>& past, workspace<Shape, Kv>& w, const tokenizer* text,
                                    std::span<const std::int32_t> prompt, const generation_options& options, Sink&& sink, OnPrompt&& on_prompt) {
    auto chooser = sampler::create(options.sampling, allowed_ids(m.shape().vocab(), text, options.stop_ids));
    if (!chooser) return chooser.error();
    auto stops = stop_matcher::create(options.stop_strings);
    if (!stops) return stops.error();
    const auto cancelled = [&] { return options.cancel != nullptr && options.cancel->load(std::memory_order_relaxed); };
    for (const std::int32_t token : prompt) chooser->accept(token);

    generation_summary summary;
    if (cancelled()) {
        summary.reason = stop_reason::cancelled;
        return summary;
    }
    const std::size_t start = past.position();
    auto logits = prefill(m, past, w, prompt, [&](std::size_t read, std::size_t total) {
        on_prompt(read, total);
        return !cancelled();
    });
    summary.prompt_tokens = past.position() - start;
    if (!logits) {
        if (logits.error().code() != errc::cancelled) return logits.error();
        summary.reason = stop_reason::cancelled;
        return summary;
    }

    // Without a tokenizer there is no text, so nothing to decode and no string to find.
    std::optional<stream_decoder> decoder;
    if (text != nullptr) decoder.emplace(*text, decode_options{.skip_special = options.skip_special});
    const auto finish = [&](stop_reason reason) -> result<generation_summary> {
        summary.reason = reason;
        if (!decoder || reason == stop_reason::stop_string || reason == stop_reason::sink) return summary;
        const auto rest = stops->finish(decoder->flush());
        if (!rest) return rest.error();
        if (!rest->empty()) sink(generation_event{-1, *rest});
        return summary;
    };
    while (true) {
        if (cancelled()) return finish(stop_reason::cancelled);
        if (summary.new_tokens == options.max_tokens) return finish(stop_reason::max_tokens);
        const std::int32_t token = chooser->choose(*logits);
        chooser->accept(token);
        summary.unread = token;
        if (std::ranges::find(options.stop_ids, token) != options.stop_ids.end()) return finish(stop_reason::stop_token);
        ++summary.new_tokens;
        std::string_view piece;
        if (text != nullptr) {
            const bool hidden = options.skip_special && text->is_special(token);
            const auto certain = hidden ? stops->push_hidden(text->bytes_of(token)) : stops->push(decoder->push(token));
            if (!certain) return certain.error();
            piece = *certain;
        }
        const std::size_t here = past.position();
        if (!sink(generation_event{token, piece})) return finish(stop_reason::sink);
        if (past.position() != here)
            return error::format(errc::in_use, "the sink has moved the session of its own text from token %zu to %zu: give it a session of its own",
                                 here, past.position());
        if (stops->matched()) return finish(stop_reason::stop_string);
        if (summary.new_tokens == options.max_tokens) return finish(stop_reason::max_tokens);
        if (past.position() == past.context()) return finish(stop_reason::context_full);
        logits = step(m, past, w, token);
        if (!logits) return logits.error();
        summary.unread = -1;
    }
}

template <sambay_shape Shape, class Kv, class Sink>
result<generation_summary> generate(const model<Shape>& m, session<Shape, Kv>& past, workspace<Shape, Kv>& w, const tokenizer* text,
                                    std::span<const std::int32_t> prompt, const generation_options& options, Sink&& sink) {
    return generate(m, past, w, text, prompt, options, sink, [](std::size_t, std::size_t) {});
}

PHI4FLASH_END
