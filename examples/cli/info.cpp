/// info: what a checkpoint holds, what it takes to run it, and with which instructions.
#include "bundled_model.hpp"
#include "command.hpp"
#include "progress.hpp"
#include "text_table.hpp"

#include <CLI/CLI.hpp>

#include <thread>

namespace cli {
namespace {

struct info_options {
    run_options run;
    plan_options plan;
    bool check = false;
};

void describe_shape(text_table& table, const p4::model_files& files) {
    const p4::sambay_config& config = files.config();
    const p4::sambay_shape& s = config.shape;
    const p4::layer_plan plan(s.n_layers);
    table.heading("Shape");
    table.row("type", s == p4::phi4_mini_flash ? "phi4_mini_flash, known at compile time" : "any_sambay, known at run time");
    table.row("d_model", text_of("%zu", s.d_model));
    table.row("layers", text_of("%zu: %zu Mamba, %zu window, 1 full and %zu cross attention, %zu gated memory", s.n_layers,
                                plan.n_mamba(), plan.n_window(), plan.n_cross(), plan.n_gated_memory()));
    table.row("d_ff", text_of("%zu", s.d_ff));
    table.row("heads", text_of("%zu of %zu over %zu for keys and values", s.n_heads, s.d_model / s.n_heads, s.n_kv_heads));
    table.row("window", text_of("%zu tokens", s.window));
    table.row("Mamba", text_of("d_inner %zu, d_state %zu, d_conv %zu, dt_rank %zu", s.d_inner, s.d_state, s.d_conv, s.dt_rank));
    table.row("vocabulary", text_of("%zu", s.vocab));
    if (config.max_positions != 0) table.row("longest context", text_of("%zu tokens", config.max_positions));
}

void describe_weights(text_table& table, const p4::model_files& files) {
    struct sum {
        std::size_t tensors = 0;
        std::uint64_t bytes = 0;
    };
    sum all;
    sum of[p4::dtype_count];
    for (const p4::tensor_view& tensor : files.tensors()) {
        for (sum* s : {&all, &of[static_cast<std::size_t>(tensor.type)]}) {
            ++s->tensors;
            s->bytes += tensor.bytes;
        }
    }
    table.heading("Weights");
    const std::uint64_t parameters = p4::parameter_count(files.config().shape);
    table.row("parameters", text_of("%s (%llu)", human_count(parameters).c_str(), static_cast<unsigned long long>(parameters)));
    const auto line = [](const sum& s) {
        return text_of("%5zu tensors %15llu bytes  %s", s.tensors, static_cast<unsigned long long>(s.bytes),
                       human_bytes(static_cast<double>(s.bytes)).c_str());
    };
    for (std::size_t i = 0; i < p4::dtype_count; ++i) {
        if (of[i].tensors != 0) table.row(p4::name_of(static_cast<p4::dtype>(i)), line(of[i]));
    }
    table.row("all", line(all));
}

void describe_memory(text_table& table, const p4::memory_plan& memory, const info_options& o, const p4::model_files& files) {
    const engine_options& how = o.run.engine;
    table.heading(
        text_of("Memory for %zu session%s of %zu tokens, K/V in %s", o.plan.sessions, o.plan.sessions == 1 ? "" : "s", how.context, how.kv.c_str()));
    const auto line = [](std::uint64_t bytes, const char* note) {
        return text_of("%15llu bytes  %-8s  %s", static_cast<unsigned long long>(bytes),
                       human_bytes(static_cast<double>(bytes)).c_str(), note);
    };
    const std::uint64_t owned = files.owned_bytes();
    table.row("mapped weights", line(files.bytes() - std::min(owned, files.bytes()), "shared, read-only, in the page cache"));
    const p4::page_share share = files.residency();
    if (share.resident != 0)
        table.row(
            "in memory now",
            line(share.resident,
                 text_of("%.0f %% of it in huge pages", 100.0 * static_cast<double>(share.huge) / static_cast<double>(share.resident)).c_str()));
    if (owned != 0) table.row("copied weights", line(owned, "of this program's own: they cannot be used where they lie in the file"));
    table.row("parameters", line(memory.parameters, "shared: vectors in f32"));
    table.row("workspace", line(memory.workspace, text_of("one a thread of control, chunks of %zu tokens", how.chunk).c_str()));
    const std::string each = o.plan.sessions == 1 ? "" : text_of(", %zu of them", o.plan.sessions);
    const std::string back = o.plan.undo == 0 ? "" : text_of(", %zu tokens can be taken back", o.plan.undo);
    table.row("session", line(memory.session, ("one a conversation, touched as it grows" + back + each).c_str()));
    table.row("generation", line(memory.generation, ("one a text that is written: choosing a token, the prompt" + each).c_str()));
    if (memory.drafter != 0) table.row("drafter", line(memory.drafter, ("one a text that is written: what drafts are made from" + each).c_str()));
    if (memory.prefix_cache != 0)
        table.row("prefix cache", line(memory.prefix_cache, text_of("shared: %zu texts of %zu tokens", o.plan.cached_texts, how.context).c_str()));
    table.row("all", line(memory.total(), "of it, weights, parameters, workspace and prefix cache are there once"));
    table.row("saved session", line(memory.snapshot, "of a full one, in a file"));
}

void describe_machine(text_table& table, const p4::kernel_table& used) {
    table.heading("Machine");
    std::string targets;
    for (const p4::kernel_target& target : p4::kernel_targets()) {
        if (!targets.empty()) targets += ", ";
        targets += target.kernels->name;
        if (!target.runs_here) targets += " (not here)";
    }
    table.row("SIMD targets", targets);
    table.row("in use", text_of("%s, %zu floats a vector", used.name, used.lanes()));
    table.row("processors", text_of("%u; %zu threads where nobody says how many", std::thread::hardware_concurrency(), p4::default_concurrency()));
}

/// Reads all weights. Errors: not_finite, naming the model and the tensor.
p4::status check(const opened& model, std::size_t threads) {
    auto pool = p4::thread_pool::create(threads);
    if (!pool) return pool.error();
    const p4::model_files& files = model.files;
    progress bar("checking", "MB/s", static_cast<double>(files.bytes()), 1e6);
    std::uint64_t before = 0;
    const p4::status ok = p4::check_weights(files.tensors(), *pool, [&](std::uint64_t done, std::uint64_t) {
        bar.advance(static_cast<double>(done - before));
        before = done;
        files.release_pages();
    });
    return ok ? ok : ok.error().in(p4::printable(files.path()).c_str());
}

p4::status run(info_options options) {
    run_options& o = options.run;
    if (o.model.empty()) {
        auto place = bundled_model();
        if (!place) return place.error();
        o.model = std::move(*place);
    }
    const auto model = open_model(o.model, o.open);
    if (!model) return model.error();
    const auto kernels = p4::kernels_named(o.engine.target);
    if (!kernels) return kernels.error();
    if (o.engine.context == 0) o.engine.context = usual_context(model->files.config());
    const auto memory = plan_memory(model->files, o.engine, options.plan);
    if (!memory) return memory.error();
    if (options.check)
        if (const p4::status ok = check(*model, o.engine.threads); !ok) return ok;

    text_table table;
    table.heading("Model");
    table.row(std::filesystem::is_directory(o.model) ? "folder" : "file", p4::printable(o.model).c_str());
    table.row("tokenizer", model->text
                               ? text_of("%zu ids, %zu added tokens", model->text->vocab_size(), model->text->added_tokens().size())
                               : "none");
    describe_shape(table, model->files);
    describe_weights(table, model->files);
    if (options.check) table.row("checked", "all are finite numbers");
    describe_memory(table, *memory, options, model->files);
    describe_machine(table, **kernels);
    table.print();
    return {};
}

}  // namespace

void add_info(CLI::App& app, action& chosen) {
    const auto o = std::make_shared<info_options>();
    CLI::App* command = app.add_subcommand("info", "Shapes, types, bytes, memory for so many sessions, SIMD target");
    add_run_options(*command, o->run);
    command->add_option("--undo", o->plan.undo, "Tokens that each session can take back")->capture_default_str();
    command->add_option("--chunk", o->run.engine.chunk, "Prompt tokens read at once")->check(CLI::Range(1, 65536))->capture_default_str();
    command->add_option("--sessions", o->plan.sessions, "Sessions to plan memory for")->check(CLI::Range(1, 1000000))->capture_default_str();
    command->add_option("--cached-texts", o->plan.cached_texts, "Texts that a prefix cache has room for, as long as the context")
        ->check(CLI::Range(0, 65536))->capture_default_str();
    add_drafts_option(*command, o->run.engine);
    command->add_flag("--check", o->check, "Read all weights: is any of them infinite or NaN?");
    command->callback([o, &chosen] { chosen = [o] { return run(*o); }; });
}

}  // namespace cli
