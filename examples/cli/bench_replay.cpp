#include "bench_replay.hpp"

#include "input_text.hpp"
#include "json_lines.hpp"
#include "output.hpp"
#include "text_table.hpp"

namespace cli {
namespace {

p4::result<std::vector<std::int32_t>> ids_of(const std::string& file, const p4::tokenizer& words, bool as_message) {
    const auto text = read_text(file);
    if (!text) return text.error();
    std::vector<std::int32_t> ids;
    p4::encoder encoder(words);
    const p4::chat_message message{"user", *text};
    const p4::status ok = as_message ? p4::encode_chat(encoder, {&message, 1}, {}, ids) : encoder.encode(*text, {}, ids);
    if (!ok) return ok.error();
    return ids;
}

void print_table(const std::string& name, engine& runs, std::size_t prompt, const replay_times& t) {
    const auto count = [](std::size_t n) { return text_of("%10zu", n); };
    text_table table;
    table.heading(text_of("%s, %s, %zu threads", name.c_str(), runs.kernels().name, runs.threads().concurrency()));
    table.row("tokens of the prompt", count(prompt));
    table.row("tokens of the text", count(t.tokens));
    table.row("passes", count(t.passes));
    table.row("drafts read", count(t.drafted));
    table.row("drafts accepted", count(t.accepted));
    table.row("with drafts", text_of("%10.2f tokens/s", t.speed()));
    table.row("without", text_of("%10.2f tokens/s", 1.0 / t.one));
    table.row("ratio", text_of("%10.2f", t.speed() * t.one));
    table.print();
}

}  // namespace

p4::status bench_replay(const run_options& how, const replay_bench& what) {
    auto model = open_model(how.model, how.open, weights_for::running);
    if (!model) return model.error();
    if (!model->text) return p4::error::format(p4::errc::file_not_found, "%s has no tokenizer: a text cannot be replayed", p4::printable(how.model).c_str());
    auto text = ids_of(what.text, *model->text, false);
    if (!text) return text.error();
    if (text->size() < 2) return p4::error::format(p4::errc::invalid_argument, "%s: want two tokens at least", p4::printable(what.text).c_str());
    if (what.most != 0 && text->size() > what.most) text->resize(what.most);
    std::vector<std::int32_t> prompt{0};
    if (what.prompt) {
        auto ids = ids_of(*what.prompt, *model->text, true);
        if (!ids) return ids.error();
        prompt = *std::move(ids);
    }
    engine_options options = how.engine;
    options.context = std::max(options.context, prompt.size() + text->size() + p4::max_drafts);
    const auto engine = make_engine(model->files, options);
    if (!engine) return engine.error();
    const auto times = (*engine)->replay(prompt, *text, {});
    if (!times) return times.error();
    if (what.json) {
        print(json{{"text", file_name(what.text)},
                   {"target", (*engine)->kernels().name},
                   {"threads", (*engine)->threads().concurrency()},
                   {"prompt_tokens", prompt.size()},
                   {"tokens", times->tokens},
                   {"passes", times->passes},
                   {"drafted", times->drafted},
                   {"accepted", times->accepted},
                   {"tokens_per_second", times->speed()},
                   {"without_drafts", 1.0 / times->one},
                   {"ratio", times->speed() * times->one}});
    } else {
        print_table(file_name(what.text), **engine, prompt.size(), *times);
    }
    return {};
}

}  // namespace cli
