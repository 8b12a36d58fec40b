#pragma once
/// The generation loop: a prompt's ids in, tokens and text out as they come, until something ends it.
#include <phi4flash/generate/generation.hpp>
#include <phi4flash/model/forward.hpp>

PHI4FLASH_BEGIN

/// Reads `prompt` into the session and generates. `sink(const generation_event&)` is told of tokens, and at the end of text that was held
/// back (token -1); it returns false to stop, and is not called again. `text` may be null: then events carry tokens only.
/// `on_prompt(read, total)` is told how far the prompt is, for progress bars. Allocates before it reads anything, and not again.
/// A cancelled text is not an error; it ends within a piece of a pass, and what was under way has not happened.
/// Errors: those of `generation::start` and of `text_writer::create`; nothing was read then. not_finite after any token: damaged weights; the
/// session has read all tokens before it. in_use also where the sink moves this session; with another session it may use the workspace (but
/// not between the tokens of one pass, where there are drafts), `on_prompt` may not. What a callback throws passes through: the session is
/// then whole, and has read all tokens before the one that the sink was told of.
template <sambay_shape Shape, class Kv, class Sink, class OnPrompt>
result<generation_summary> generate(const model<Shape>& m, session<Shape, Kv>& past, workspace<Shape, Kv>& w, const tokenizer* text,
                                    std::span<const std::int32_t> prompt, const generation_options& options, Sink&& sink, OnPrompt&& on_prompt) {
    if (const status ok = generation<Shape, Kv>::refusal(m, w, past, prompt); !ok) return ok.error();  // before memory is taken
    auto made = generation<Shape, Kv>::create(m, w, text, options, {.prompt = prompt.size()});
    if (!made) return made.error();
    generation<Shape, Kv>& g = *made;
    if (const status ok = g.start(past, prompt); !ok) return ok.error();
    while (g.running()) {
        const auto event = g.advance();
        if (!event) return event.error();
        switch (event->kind) {
            case event_kind::none: break;
            case event_kind::prompt: {
                const detail::use_of in_use(past, w);
                on_prompt(event->read, event->total);
                if (const status ok = in_use.refusal(); !ok) return ok.error();
                break;
            }
            case event_kind::token: {
                const std::size_t here = past.position();
                if (!sink(*event)) g.stop(stop_reason::sink);
                if (past.position() != here)
                    return error::format(errc::in_use,
                                         "the sink has moved the session of its own text from token %zu to %zu: give it a session of its own", here,
                                         past.position());
                break;
            }
            case event_kind::end:
                if (!event->text.empty()) sink(*event);
                break;
        }
    }
    return g.summary();
}

template <sambay_shape Shape, class Kv, class Sink>
result<generation_summary> generate(const model<Shape>& m, session<Shape, Kv>& past, workspace<Shape, Kv>& w, const tokenizer* text,
                                    std::span<const std::int32_t> prompt, const generation_options& options, Sink&& sink) {
    return generate(m, past, w, text, prompt, options, sink, [](std::size_t, std::size_t) {});
}

PHI4FLASH_END
