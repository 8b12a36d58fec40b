/// logits: what the model says after every token of a text, as a safetensors file.
#include "existing.hpp"
#include "numbers.hpp"
#include "progress.hpp"
#include "stop_signals.hpp"

#include <CLI/CLI.hpp>

namespace cli {
namespace {

struct logits_options {
    run_options run;
    std::vector<std::int32_t> tokens;
    std::string output;
    bool force = false;
};

p4::status run(const logits_options& o) {
    if (const p4::status ok = check_output_file(o.output, o.force); !ok) return ok;
    if (const p4::status ok = check_not_of_model(o.output, o.run.model); !ok) return ok;
    const auto model = open_weights(o.run.model, o.run.open, weights_for::running);
    if (!model) return model.error();
    engine_options how = o.run.engine;
    if (how.context == 0) how.context = o.tokens.size();
    const auto engine = make_engine(model->files, how);
    if (!engine) return engine.error();

    const std::size_t vocab = model->files.config().shape.vocab;
    const p4::safetensors_spec spec{"logits", p4::name_of(p4::dtype::f32), {o.tokens.size(), vocab}};
    std::vector<float> rows(std::min(how.chunk, o.tokens.size()) * vocab);
    const stop_guard guard;
    progress bar("logits", "tok/s", static_cast<double>(o.tokens.size()), 1.0);
    return p4::write_safetensors(o.output, {&spec, 1}, [&](std::size_t, p4::safetensors_sink& out) -> p4::status {
        for (std::size_t begin = 0; begin < o.tokens.size(); begin += how.chunk) {
            const auto piece = std::span(o.tokens).subspan(begin, std::min(how.chunk, o.tokens.size() - begin));
            const p4::rows_view<float> place{rows.data(), piece.size(), vocab};
            if (const p4::status ok = (*engine)->logits_all(piece, place); !ok) return ok;
            if (const p4::status ok = out.write(std::span<const float>(rows.data(), piece.size() * vocab)); !ok) return ok;
            bar.advance(static_cast<double>(piece.size()));
            if (stop_asked()) return p4::error::format(p4::errc::cancelled, "stopped while logits were written");
        }
        return {};
    });
}

}  // namespace

void add_logits(CLI::App& app, action& chosen) {
    const auto o = std::make_shared<logits_options>();
    o->run.engine.chunk = 64;
    CLI::App* command = app.add_subcommand("logits", "Write the logits after every token: \"logits\", F32 [tokens, vocabulary]");
    add_run_options(*command, o->run);
    command->get_option("--model")->required();
    add_tokens_option(*command, o->tokens, "Ids, such as 1,2,3")->required();
    command->add_option("--output,-o", o->output, "File to write")->required()->type_name("FILE.safetensors");
    command->add_option("--chunk", o->run.engine.chunk, "Tokens computed at once")
        ->check(CLI::Range(1, 65536))
        ->capture_default_str();
    add_force_option(*command, o->force);
    command->callback([o, &chosen] { chosen = [o] { return run(*o); }; });
}

}  // namespace cli
