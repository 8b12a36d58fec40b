/// generate: one prompt in, one text out, as it comes or as JSON.
#include "command.hpp"
#include "json_lines.hpp"
#include "numbers.hpp"
#include "progress.hpp"

namespace cli {
namespace {

struct generate_options {
    run_options run;
    sampling_flags sampling;
    std::optional<std::string> prompt;
    std::vector<std::int32_t> tokens;
    bool raw = false;
    bool ignore_eos = false;
    bool json = false;
};

p4::result<std::vector<std::int32_t>> prompt_of(const generate_options& o, const opened& model) {
    if (!o.prompt) return o.tokens;
    if (!model.text)
        return p4::error::format(p4::errc::file_not_found, "%s has no tokenizer.json: give --tokens instead of --prompt",
                                 p4::printable(o.run.model).c_str());
    std::vector<std::int32_t> ids;
    p4::encoder encoder(*model.text);
    const p4::chat_message message{"user", *o.prompt};
    const p4::status ok = o.raw ? encoder.encode(*o.prompt, {}, ids) : p4::encode_chat(encoder, {&message, 1}, {}, ids);
    if (!ok) return ok.error();
    return ids;
}

p4::status run(const generate_options& o) {
    auto model = open_model(o.run.model, o.run.open);
    if (!model) return model.error();
    const auto prompt = prompt_of(o, *model);
    if (!prompt) return prompt.error();
    p4::generation_options options = generation_options_of(*model, o.sampling);
    if (o.ignore_eos) {  // whatever the model's files call an end; --stop stays
        options.stop_ids.clear();
        options.stop_strings = o.sampling.stop;
    }

    engine_options how = o.run.engine;
    if (how.context == 0) {
        const std::size_t limit = std::max(usual_context(model->files.config()), prompt->size() + 1);
        how.context = std::min(limit, prompt->size() + std::min(options.max_tokens, limit));
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
               {"prompt_tokens", summary->prompt_tokens}});
    } else {
        standard_output.print("\n");
    }
    return {};
}

}  // namespace

void add_generate(CLI::App& app, action& chosen) {
    const auto o = std::make_shared<generate_options>();
    CLI::App* command = app.add_subcommand("generate", "Continue a prompt");
    add_run_options(*command, o->run);
    command->get_option("--model")->required();
    auto* input = command->add_option_group("prompt");
    input->add_option("--prompt,-p", o->prompt, "A user's message, put into the chat template");
    add_tokens_option(*input, o->tokens, "Ids instead of text, such as 1,2,3");
    input->require_option(1);
    command->add_flag("--raw", o->raw, "The prompt as it is, without the chat template");
    add_sampling_options(*command, o->sampling);
    command->add_flag("--ignore-eos", o->ignore_eos, "Go on after the end of the text");
    command->add_flag("--json", o->json, "Print one object: tokens, text, stop_reason, prompt_tokens");
    command->callback([o, &chosen] { chosen = [o] { return run(*o); }; });
}

}  // namespace cli
