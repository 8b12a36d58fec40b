/// generate: one prompt in, one text out, as it comes or as JSON.
#include "command.hpp"
#include "cut_note.hpp"
#include "input_text.hpp"
#include "json_lines.hpp"
#include "numbers.hpp"
#include "progress.hpp"

#include <CLI/CLI.hpp>

namespace cli {
namespace {

struct generate_options {
    run_options run;
    sampling_flags sampling;
    std::optional<std::string> prompt;
    std::optional<std::string> prompt_file;
    std::vector<std::int32_t> tokens;
    bool raw = false;
    bool ignore_eos = false;
    bool json = false;
};

/// The prompt as text, wherever it is; nothing where there are ids.
p4::result<std::optional<std::string>> prompt_text(const generate_options& o) {
    if (!o.tokens.empty()) return std::optional<std::string>();
    if (o.prompt) {
        if (const p4::status ok = check_utf8(*o.prompt, "--prompt"); !ok) return ok.error();
        return o.prompt;
    }
    if (!o.prompt_file && !input_is_given())
        return p4::error::format(p4::errc::invalid_argument,
                                 "which prompt? Say --prompt TEXT, --prompt-file FILE or --tokens 1,2,3, or send a text through a pipe");
    auto text = read_text(o.prompt_file.value_or("-"));
    if (!text) return text.error();
    return std::optional<std::string>(std::move(*text));
}

p4::result<std::vector<std::int32_t>> prompt_of(const std::optional<std::string>& said, const generate_options& o, const opened& model) {
    if (!said) return o.tokens;
    if (!model.text)
        return p4::error::format(p4::errc::file_not_found, "%s has no tokenizer.json: give --tokens instead of a text",
                                 p4::printable(o.run.model).c_str());
    std::vector<std::int32_t> ids;
    p4::encoder encoder(*model.text);
    const p4::chat_message message{"user", *said};
    const p4::status ok = o.raw ? encoder.encode(*said, {}, ids) : p4::encode_chat(encoder, {&message, 1}, {}, ids);
    if (!ok) return ok.error();
    return ids;
}

/// Tokens to make room for where nobody says so. New ones that are asked for have room up to the model's longest context, others up to
/// the usual one. Errors: context_full where the prompt alone is longer than the model was made for.
p4::result<std::size_t> context_for(const p4::sambay_config& config, std::size_t prompt, std::size_t max_tokens, bool asked) {
    const std::size_t longest = config.max_positions == 0 ? p4::max_extent : config.max_positions;
    if (prompt >= longest)
        return p4::error::format(p4::errc::context_full,
                                 "the prompt has %zu tokens, and the model was made for %zu with its answer: --context %zu reads it all the same",
                                 prompt, longest, prompt + std::min(max_tokens, longest));
    const std::size_t limit = asked ? longest : std::max(usual_context(config), prompt + 1);
    return std::min(limit, prompt + std::min(max_tokens, limit));
}

p4::status run(const generate_options& o) {
    const auto text = prompt_text(o);
    if (!text) return text.error();
    auto model = open_weights(o.run.model, o.run.open, weights_for::running);
    if (!model) return model.error();
    if (const p4::status ok = add_tokenizer(*model); !ok) {
        // Ids need no tokenizer: without one they are printed as they are.
        if (*text || !o.sampling.stop.empty()) return ok;
        std::fprintf(stderr, "phi4flash: note: ids are printed, as the tokenizer cannot be used: %s\n", ok.error().message());
    }
    const auto prompt = prompt_of(*text, o, *model);
    if (!prompt) return prompt.error();
    auto made = generation_options_of(*model, o.sampling);
    if (!made) return made.error();
    p4::generation_options& options = *made;
    if (o.ignore_eos) {  // whatever the model's files call an end; --stop stays
        options.stop_ids.clear();
        options.stop_strings = o.sampling.stop;
    }

    engine_options how = o.run.engine;
    if (how.context == 0) {
        const auto room = context_for(model->files.config(), prompt->size(), options.max_tokens, o.sampling.max_tokens.has_value());
        if (!room) return room.error();
        how.context = *room;
    }
    auto engine = make_engine(model->files, how);
    if (!engine) return engine.error();

    std::vector<std::int32_t> chosen;
    std::string said;
    const auto take = [&](const p4::generation_event& event) {
        if (event.token >= 0) chosen.push_back(event.token);
        if (o.json) {
            said += event.text;
            return standard_output.awaited();
        }
        if (model->text) return standard_output.write(event.text) && standard_output.flush();
        if (event.token < 0) return true;
        return standard_output.print("%s%d", chosen.size() > 1 ? "," : "", static_cast<int>(event.token)) && standard_output.flush();
    };
    constexpr std::size_t long_prompt = 1024;
    std::optional<progress> bar;
    if (prompt->size() >= long_prompt) bar.emplace("prompt", "tok/s", static_cast<double>(prompt->size()), 1.0);
    std::size_t before = 0;
    const auto summary = (*engine)->generate(model->tokenizer(), *prompt, options, take, [&](std::size_t read, std::size_t total) {
        if (!bar) return;
        bar->advance(static_cast<double>(read - before));
        before = read;
        if (read == total) bar.reset();
    });
    if (!summary) return summary.error();
    if (!standard_output.good()) return standard_output.state();
    if (o.json) {
        print({{"tokens", chosen},
               {"text", said},
               {"stop_reason", p4::name_of(summary->reason)},
               {"prompt_tokens", summary->prompt_tokens},
               {"drafted", summary->drafted},
               {"accepted", summary->accepted}});
    } else {
        standard_output.print("\n");
        const std::string note = cut_note(*summary, (*engine)->context());
        if (standard_output.flush() && !note.empty()) std::fprintf(stderr, "phi4flash: note: %s\n", note.c_str());
    }
    return {};
}

}  // namespace

void add_generate(CLI::App& app, action& chosen) {
    const auto o = std::make_shared<generate_options>();
    CLI::App* command = app.add_subcommand("generate", "Continue a prompt");
    auto* prompt = command->add_option("--prompt,-p", o->prompt, "A user's message, put into the chat template")->type_name("TEXT");
    auto* file = command->add_option("--prompt-file,-f", o->prompt_file, "The same from a file; - or none of the three: standard input");
    auto* tokens = add_tokens_option(*command, o->tokens, "Ids instead of text, such as 1,2,3");
    prompt->excludes(file)->excludes(tokens);
    file->type_name("FILE")->excludes(tokens);
    add_run_options(*command, o->run);
    command->get_option("--model")->required();
    command->add_flag("--raw", o->raw, "The prompt as it is, without the chat template");
    add_drafts_option(*command, o->run.engine);
    add_sampling_options(*command, o->sampling);
    command->add_flag("--ignore-eos", o->ignore_eos, "Go on after the end of the text");
    command->add_flag("--json", o->json, "Print one object: tokens, text, stop_reason, prompt_tokens, drafted, accepted");
    command->callback([o, &chosen] { chosen = [o] { return run(*o); }; });
}

}  // namespace cli
