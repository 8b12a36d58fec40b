#include "bench_replay.hpp"

#include "input_text.hpp"
#include "json_lines.hpp"
#include "output.hpp"
#include "series.hpp"
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

/// A text and what it answers, as tokens.
struct script {
    std::vector<std::int32_t> prompt;
    std::vector<std::int32_t> text;
};

p4::result<std::vector<script>> scripts_of(const replay_bench& what, const p4::tokenizer& words) {
    std::vector<script> scripts;
    for (std::size_t i = 0; i < what.texts.size(); ++i) {
        auto text = ids_of(what.texts[i], words, false);
        if (!text) return text.error();
        if (text->size() < 2)
            return p4::error::format(p4::errc::invalid_argument, "%s: want two tokens at least", p4::printable(what.texts[i]).c_str());
        if (what.most != 0 && text->size() > what.most) text->resize(what.most);
        std::vector<std::int32_t> prompt{0};
        if (!what.prompts.empty()) {
            auto ids = ids_of(what.prompts[i], words, true);
            if (!ids) return ids.error();
            prompt = *std::move(ids);
        }
        scripts.push_back({std::move(prompt), *std::move(text)});
    }
    return scripts;
}

double ratio_of(const replay_times& t) { return t.speed() * t.one; }

void print_table(const replay_bench& what, const std::vector<script>& scripts, engine& runs, const std::vector<replay_times>& found,
                 const series& ratios) {
    grid table({text_of("%s, %zu threads", runs.kernels().name, runs.threads().concurrency()), "prompt tokens", "tokens", "passes", "drafts read",
                "drafts accepted", "with drafts, tokens/s", "without", "ratio"});
    for (std::size_t i = 0; i < found.size(); ++i) {
        const replay_times& t = found[i];
        table.row({file_name(what.texts[i]), std::to_string(scripts[i].prompt.size()), std::to_string(t.tokens), std::to_string(t.passes),
                   std::to_string(t.drafted), std::to_string(t.accepted), text_of("%.2f", t.speed()), text_of("%.2f", 1.0 / t.one),
                   text_of("%.2f", ratio_of(t))});
    }
    table.print();
    if (found.size() > 1) standard_output.print("  ratio: median %.2f, least %.2f\n", ratios.median(), ratios.lowest());
}

void print_json(const replay_bench& what, const std::vector<script>& scripts, engine& runs, const std::vector<replay_times>& found,
                const series& ratios) {
    json texts = json::array();
    for (std::size_t i = 0; i < found.size(); ++i)
        texts.push_back({{"text", file_name(what.texts[i])},
                         {"prompt_tokens", scripts[i].prompt.size()},
                         {"tokens", found[i].tokens},
                         {"passes", found[i].passes},
                         {"drafted", found[i].drafted},
                         {"accepted", found[i].accepted},
                         {"tokens_per_second", found[i].speed()},
                         {"without_drafts", 1.0 / found[i].one},
                         {"ratio", ratio_of(found[i])}});
    print(json{{"target", runs.kernels().name},
               {"threads", runs.threads().concurrency()},
               {"texts", std::move(texts)},
               {"median_ratio", ratios.median()},
               {"least_ratio", ratios.lowest()}});
}

}  // namespace

p4::status bench_replay(const run_options& how, const replay_bench& what) {
    if (!what.prompts.empty() && what.prompts.size() != what.texts.size())
        return p4::error::format(p4::errc::invalid_argument, "--replay-prompt: want a file for each of %zu texts, have %zu", what.texts.size(),
                                 what.prompts.size());
    auto model = open_model(how.model, how.open, weights_for::running);
    if (!model) return model.error();
    if (!model->text)
        return p4::error::format(p4::errc::file_not_found, "%s has no tokenizer: a text cannot be replayed", p4::printable(how.model).c_str());
    const auto scripts = scripts_of(what, *model->text);
    if (!scripts) return scripts.error();
    engine_options options = how.engine;
    std::size_t all = 0;
    for (const script& s : *scripts) {
        options.context = std::max(options.context, s.prompt.size() + s.text.size() + p4::max_drafts);
        all += s.prompt.size() + s.text.size();
    }
    options.remembered = all;
    const auto engine = make_engine(model->files, options);
    if (!engine) return engine.error();
    std::vector<replay_times> found;
    series ratios;
    for (const script& s : *scripts) {
        const auto times = (*engine)->replay(s.prompt, s.text, {});
        if (!times) return times.error();
        found.push_back(*times);
        ratios.add(ratio_of(*times));
    }
    if (what.json) {
        print_json(what, *scripts, **engine, found, ratios);
    } else {
        print_table(what, *scripts, **engine, found, ratios);
    }
    return {};
}

}  // namespace cli
