/// convert: a checkpoint folder into one packed file.
#include "existing.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "stop_signals.hpp"
#include "text_table.hpp"

#include <CLI/CLI.hpp>

#include <array>
#include <chrono>

namespace cli {
namespace {

struct convert_options {
    std::string model;
    std::string output;
    std::string type = "q4_dense";
    open_flags open;
    std::string embedding;  // empty: like the others
    std::size_t threads = 0;
    bool force = false;
};

struct type_name {
    const char* name;
    p4::dtype type;
};
constexpr std::array type_names{type_name{"f32", p4::dtype::f32},   type_name{"f16", p4::dtype::f16},
                                type_name{"bf16", p4::dtype::bf16}, type_name{"q8", p4::dtype::q8},
                                type_name{"q8_0", p4::dtype::q8},   type_name{"q4", p4::dtype::q4},
                                type_name{"q4_0", p4::dtype::q4},   type_name{"q4_dense", p4::dtype::q4_dense}};

p4::dtype type_named(const std::string& name) {
    return std::ranges::find_if(type_names, [&](const type_name& t) { return name == t.name; })->type;
}

p4::status run(const convert_options& o) {
    if (const p4::status ok = check_output_file(o.output, o.force); !ok) return ok;
    if (const p4::status ok = check_not_of_model(o.output, o.model); !ok) return ok;
    const auto model = open_model(o.model, o.open);
    if (!model) return model.error();
    auto pool = p4::thread_pool::create(o.threads);
    if (!pool) return pool.error();
    const p4::model_files& files = model->files;
    p4::conversion how;
    how.matrices = type_named(o.type);
    how.embedding = type_named(o.embedding.empty() ? o.type : o.embedding);
    p4::packed_model_info info;
    info.name = file_name(o.model);
    info.config = files.config();
    info.generation = files.generation();
    std::optional<p4::packed_tokenizer> text;
    if (model->text) {
        auto described = p4::describe_tokenizer(*model->text, files.config().shape.vocab);
        if (!described) return described.error();
        info.tokenizer = &text.emplace(*std::move(described));
    }

    const auto begin = std::chrono::steady_clock::now();
    std::optional<progress> bar;
    std::uint64_t before = 0;
    std::uint64_t released = 0;
    const auto tell = [&](std::uint64_t done, std::uint64_t total) {
        if (!bar) bar.emplace("convert", "MB/s", static_cast<double>(total), 1e6);
        bar->advance(static_cast<double>(done - before));
        before = done;
        // What has been read is not needed again: a machine with less memory than the checkpoint stays usable.
        if (done - released >= (std::uint64_t{64} << 20)) {
            files.release_pages();
            released = done;
        }
        return !stop_asked();
    };
    const stop_guard guard;
    if (const p4::status ok = p4::convert_model(files, info, how, o.output, *pool, tell); !ok) {
        const p4::errc code = ok.error().code();
        const bool of_model = code != p4::errc::file_unwritable && code != p4::errc::cancelled;
        return of_model ? ok.error().in(p4::printable(files.path()).c_str()) : ok.error();
    }
    bar.reset();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    std::error_code ignored;
    const bool is_file = std::filesystem::is_regular_file(o.output, ignored);
    const double size = static_cast<double>(is_file ? std::filesystem::file_size(o.output, ignored) : before);
    const std::string summary =
        text_of("%s: %s, from %s, in %.1f s\n", p4::printable(std::filesystem::path(o.output)).c_str(), human_bytes(size).c_str(),
                human_bytes(static_cast<double>(files.bytes())).c_str(), took.count());
    // Not into the model itself.
    if (standard_output.is(o.output)) {
        std::fputs(summary.c_str(), stderr);
    } else {
        standard_output.write(summary);
    }
    return {};
}

}  // namespace

void add_convert(CLI::App& app, action& chosen) {
    const auto o = std::make_shared<convert_options>();
    CLI::App* command = app.add_subcommand("convert", "Make one packed file of a checkpoint folder");
    command->add_option("--model,-m", o->model, "Folder with config.json and model.safetensors")->required()->type_name("FOLDER");
    command->add_option("--output,-o", o->output, "File to write")->required()->type_name("FILE.gguf");
    std::vector<std::string> names;
    for (const type_name& t : type_names) names.emplace_back(t.name);
    command->add_option("--type", o->type, "Type of the matrices: q4_dense (4.5 bits a weight), q4, q8 (8.5), bf16, f16, f32")
        ->check(CLI::IsMember(names))
        ->capture_default_str();
    command->add_option("--embedding", o->embedding, "Type of the embedding, which is the output layer too; like --type by default")
        ->check(CLI::IsMember(names));
    add_ignore_unknown_keys(*command, o->open);
    command->add_option("--threads,-t", o->threads, "Threads; 0: one for each core, as affinity and quota allow")->capture_default_str();
    add_force_option(*command, o->force);
    command->callback([o, &chosen] { chosen = [o] { return run(*o); }; });
}

}  // namespace cli
