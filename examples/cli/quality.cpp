/// quality: what quantized models lose against a reference, in their weights and in what they predict.
#include "command.hpp"
#include "json_lines.hpp"
#include "numbers.hpp"
#include "progress.hpp"
#include "text_table.hpp"

#include <CLI/CLI.hpp>

#include <sstream>

namespace cli {
namespace {

struct quality_options {
    std::string reference;
    std::vector<std::string> models;
    std::string text;
    std::string tokens;
    std::size_t max_tokens = 0;  // 0: all
    std::size_t window = 512;
    std::string activations = "int8";
    engine_options engine;
    open_flags open;
    bool json = false;
    bool tensors = false;
};

constexpr std::size_t largest_text = std::size_t{1} << 30;

/// Texts as tokens: one list a text.
using token_lists = std::vector<std::vector<std::int32_t>>;

/// Calls `work(line)` for each line that is not empty. Errors name the line.
template <class Work>
p4::status for_lines_of(const std::string& content, Work&& work) {
    std::istringstream lines(content);
    std::string line;
    for (std::size_t number = 1; std::getline(lines, line); ++number) {
        if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
        if (const p4::status ok = work(line); !ok) return ok.error().in("line " + std::to_string(number));
    }
    return {};
}

p4::status encode_texts(const p4::tokenizer& text, const std::string& content, bool json_lines, token_lists& lists) {
    p4::encoder encoder(text);
    const auto add = [&](const std::string& one) -> p4::status { return encoder.encode(one, {}, lists.emplace_back()); };
    if (!json_lines) return add(content);
    return for_lines_of(content, [&](const std::string& line) -> p4::status {
        const auto value = p4::read_json(line, {.bytes = largest_text, .depth = 64});
        if (!value) return value.error();
        if (!value->is_object())
            return p4::error::format(p4::errc::json_wrong_type, "want an object, have %s", p4::detail::describe(*value).c_str());
        const auto one = string_of(*value, "text");
        if (!one) return one.error();
        return add(*one);
    });
}

p4::result<token_lists> read_texts(const quality_options& o, const opened& reference) {
    const std::filesystem::path path = o.text.empty() ? o.tokens : o.text;
    const std::string name(p4::printable(path).c_str());
    const auto content = p4::read_file(path, largest_text);
    if (!content && content.error().code() == p4::errc::file_empty)  // the library takes it for a part of a model
        return p4::error::format(p4::errc::file_empty, "%s: want a text of at least 2 tokens, the file is empty", name.c_str());
    if (!content) return content.error();
    token_lists lists;
    p4::status ok;
    if (o.text.empty()) {
        ok = for_lines_of(*content, [&](const std::string& line) -> p4::status {
            auto ids = ids_in(line);
            if (!ids) return ids.error();
            lists.push_back(std::move(*ids));
            return {};
        });
    } else if (!reference.text) {
        return p4::error::format(p4::errc::file_not_found, "%s has no tokenizer: give --tokens instead of --text",
                                 p4::printable(o.reference).c_str());
    } else {
        ok = encode_texts(*reference.text, *content, path.extension() == ".jsonl", lists);
    }
    if (!ok) return ok.error().in(name);
    return lists;
}

/// Pieces of at most `window` tokens, each a text of its own to the models; those without a token to predict are left out.
std::vector<std::span<const std::int32_t>> cut(const token_lists& lists, std::size_t window, std::size_t max_tokens) {
    std::vector<std::span<const std::int32_t>> windows;
    std::size_t left = max_tokens == 0 ? SIZE_MAX : max_tokens;
    for (const auto& list : lists) {
        for (std::size_t begin = 0; begin < list.size() && left > 1;) {
            const std::size_t count = std::min({window, list.size() - begin, left});
            if (count > 1) windows.push_back(std::span(list).subspan(begin, count));
            begin += count;
            left -= count;
        }
    }
    return windows;
}

/// A file to be judged.
struct judged_file {
    std::string path;
    opened model;
    std::uint64_t numbers;  // weights
    p4::weight_difference error{};
    std::vector<std::pair<p4::tensor_view, p4::weight_difference>> tensors{};

    [[nodiscard]] double bits() const { return 8.0 * static_cast<double>(model.files.bytes()) / static_cast<double>(numbers); }
    [[nodiscard]] bool packed() const {
        return std::ranges::any_of(model.files.tensors(), [](const p4::tensor_view& t) { return p4::is_packed(t.type); });
    }
};

/// A file with a way to run it.
struct candidate {
    const judged_file* file;
    std::string activations;
    std::unique_ptr<engine> runs;
    p4::prediction_tally tally{};
};

p4::result<judged_file> open_file(const std::string& path, const open_flags& flags) {
    auto model = open_weights(path, flags);
    if (!model) return model.error();
    const std::uint64_t numbers = p4::parameter_count(model->files.config().shape);
    return judged_file{path, std::move(*model), numbers};
}

/// Both have been bound: every matrix is there, in the same shape.
void compare_matrices(const p4::model_files& reference, judged_file& file, engine& runs) {
    const auto e = p4::extents<p4::any_sambay>::from(reference.config().shape);
    if (!e) return;
    p4::for_each_tensor(*e, [&](std::string_view name, std::span<const std::size_t> shape, p4::tensor_role role) {
        const p4::tensor_view* const a = reference.find(name);
        const p4::tensor_view* const b = file.model.files.find(name);
        if (role != p4::tensor_role::matrix || a == nullptr || b == nullptr) return;
        const p4::matrix_view from{a->data, shape[0], shape[1], a->type};
        const p4::matrix_view to{b->data, shape[0], shape[1], b->type};
        constexpr std::size_t rows = 64;  // summed in this order on any number of threads
        std::vector<p4::weight_difference> pieces((shape[0] + rows - 1) / rows);
        runs.threads().parallel_for(pieces.size(), 1, [&](std::size_t begin, std::size_t end) {
            std::vector<float> scratch(2 * shape[1]);
            for (std::size_t i = begin; i < end; ++i)
                pieces[i] =
                    p4::compare_weights(runs.kernels(), from, to, i * rows, std::min(rows, shape[0] - i * rows), scratch.data());
        });
        p4::weight_difference sum;
        for (const p4::weight_difference& piece : pieces) sum += piece;
        file.error += sum;
        file.tensors.emplace_back(*b, sum);
    });
}

p4::result<std::vector<candidate>> make_candidates(const quality_options& o, const std::vector<judged_file>& files) {
    std::vector<candidate> made;
    for (const judged_file& file : files) {
        for (const char* const activations : {"int8", "f32"}) {
            const bool plain = !file.packed();  // meets f32 either way: once is enough
            if (plain ? activations != std::string_view("f32") : o.activations != "both" && o.activations != activations) continue;
            engine_options how = o.engine;
            how.activations = activations;
            auto runs = make_engine(file.model.files, how);
            if (!runs) return runs.error();
            made.push_back({&file, activations, std::move(*runs)});
        }
    }
    return made;
}

/// All models side by side, a chunk at a time: the logits of a whole text would fill the memory.
p4::status judge(engine& reference, std::vector<candidate>& candidates, std::span<const std::span<const std::int32_t>> windows,
                 std::size_t vocab, std::size_t chunk) {
    std::size_t tokens = 0;
    for (const auto& window : windows) tokens += window.size();
    progress bar("quality", "tok/s", static_cast<double>(tokens), 1.0);
    std::vector<float> want(chunk * vocab);
    std::vector<float> have(chunk * vocab);
    std::vector<p4::prediction_difference> found(chunk);
    const auto row = [vocab](const std::vector<float>& rows, std::size_t t) { return std::span(rows).subspan(t * vocab, vocab); };
    for (const auto& window : windows) {
        if (!standard_output.awaited()) return standard_output.state();
        reference.reset();
        for (candidate& c : candidates) c.runs->reset();
        for (std::size_t begin = 0; begin < window.size(); begin += chunk) {
            const auto piece = window.subspan(begin, std::min(chunk, window.size() - begin));
            const std::size_t predictions = std::min(piece.size(), window.size() - 1 - begin);
            if (const p4::status ok = reference.logits_all(piece, {want.data(), piece.size(), vocab}); !ok)
                return ok.error().in("the reference");
            for (candidate& c : candidates) {
                if (const p4::status ok = c.runs->logits_all(piece, {have.data(), piece.size(), vocab}); !ok)
                    return ok.error().in(p4::printable(c.file->path).c_str());
                reference.threads().parallel_for(predictions, 1 + 16384 / vocab, [&](std::size_t first, std::size_t last) {
                    for (std::size_t t = first; t < last; ++t)
                        found[t] =
                            p4::compare_predictions(row(want, t), row(have, t), static_cast<std::size_t>(window[begin + t + 1]));
                });
                for (std::size_t t = 0; t < predictions; ++t)
                    if (const p4::status ok = c.tally.add(found[t]); !ok) return ok;
            }
            bar.advance(static_cast<double>(piece.size()));
        }
    }
    return {};
}

struct quality_findings {
    const judged_file& reference;
    const std::vector<judged_file>& files;
    const std::vector<candidate>& candidates;
    std::size_t windows;
};

/// NaN where there is no memory to sort.
double quantile_of(const p4::prediction_tally& t) {
    const auto found = t.divergence_quantile(0.99);
    return found ? *found : std::nan("");
}

void print_table(const quality_findings& found, bool tensors) {
    const p4::prediction_tally& any = found.candidates.front().tally;
    standard_output.print("%zu predictions in %zu texts; KL in nats, against %s with f32 activations\n\n", any.count(), found.windows,
                file_name(found.reference.path).c_str());
    grid table(
        {"model", "activations", "bytes", "bits", "weight error", "perplexity", "ratio", "mean KL", "", "99 % KL", "same top"});
    const auto bytes = [](const judged_file& f) { return human_bytes(static_cast<double>(f.model.files.bytes())); };
    table.row({file_name(found.reference.path), "f32", bytes(found.reference), text_of("%.2f", found.reference.bits()), "",
               text_of("%.4f", any.reference_perplexity())});
    for (const candidate& c : found.candidates) {
        const p4::prediction_tally& t = c.tally;
        table.row({file_name(c.file->path), c.activations, bytes(*c.file), text_of("%.2f", c.file->bits()),
                   text_of("%.3f %%", 100.0 * c.file->error.relative()), text_of("%.4f", t.perplexity()),
                   text_of("%.4f", t.perplexity_ratio()), text_of("%.6f", t.mean_divergence()),
                   text_of("+- %.6f", t.divergence_error()), text_of("%.5f", quantile_of(t)),
                   text_of("%.2f %%", 100.0 * t.agreement())});
    }
    table.print();
    if (!tensors) return;
    for (const judged_file& file : found.files) {
        standard_output.print("\n%s\n\n", file_name(file.path).c_str());
        grid errors({"matrix", "type", "shape", "error"});
        for (const auto& [tensor, error] : file.tensors)
            errors.row({std::string(tensor.name), p4::name_of(tensor.type),
                        text_of("%zu x %zu", tensor.extent[0], tensor.extent[1]), text_of("%.3f %%", 100.0 * error.relative())});
        errors.print();
    }
}

void print_json(const quality_findings& found, bool tensors) {
    const p4::prediction_tally& any = found.candidates.front().tally;
    json models = json::array();
    for (const candidate& c : found.candidates) {
        const p4::prediction_tally& t = c.tally;
        json one{{"model", c.file->path},
                 {"activations", c.activations},
                 {"bytes", c.file->model.files.bytes()},
                 {"bits_per_weight", c.file->bits()},
                 {"weight_error", c.file->error.relative()},
                 {"perplexity", t.perplexity()},
                 {"perplexity_ratio", t.perplexity_ratio()},
                 {"mean_kl", t.mean_divergence()},
                 {"mean_kl_error", t.divergence_error()},
                 {"kl_99", quantile_of(t)},
                 {"same_top", t.agreement()}};
        if (tensors) {
            json list = json::array();
            for (const auto& [tensor, error] : c.file->tensors)
                list.push_back({{"name", tensor.name}, {"type", p4::name_of(tensor.type)}, {"error", error.relative()}});
            one["tensors"] = std::move(list);
        }
        models.push_back(std::move(one));
    }
    print({{"reference",
            {{"model", found.reference.path},
             {"bytes", found.reference.model.files.bytes()},
             {"bits_per_weight", found.reference.bits()},
             {"perplexity", any.reference_perplexity()}}},
           {"predictions", any.count()},
           {"texts", found.windows},
           {"models", std::move(models)}});
}

p4::status run(const quality_options& o) {
    auto reference = open_file(o.reference, o.open);
    if (!reference) return reference.error();
    if (!o.text.empty())
        if (const p4::status ok = add_tokenizer(reference->model); !ok) return ok;
    const p4::sambay_shape& shape = reference->model.files.config().shape;
    std::vector<judged_file> files;
    for (const std::string& path : o.models) {
        auto file = open_file(path, o.open);
        if (!file) return file.error();
        if (!(file->model.files.config().shape == shape))
            return p4::error::format(p4::errc::invalid_argument, "%s: want a model of the reference's shape",
                                     p4::printable(path).c_str());
        files.push_back(std::move(*file));
    }
    const auto lists = read_texts(o, reference->model);
    if (!lists) return lists.error();
    const auto windows = cut(*lists, o.window, o.max_tokens);
    if (windows.empty())
        return p4::error::format(p4::errc::invalid_argument, "nothing to predict: want a text of at least 2 tokens");

    quality_options how = o;
    how.engine.context = o.window;
    how.engine.chunk = std::min(o.engine.chunk, o.window);
    how.engine.activations = "f32";
    const auto runs = make_engine(reference->model.files, how.engine);
    if (!runs) return runs.error();
    auto candidates = make_candidates(how, files);
    if (!candidates) return candidates.error();
    for (judged_file& file : files) compare_matrices(reference->model.files, file, **runs);
    if (const p4::status ok = judge(**runs, *candidates, windows, shape.vocab, how.engine.chunk); !ok) return ok;
    const quality_findings found{*reference, files, *candidates, windows.size()};
    if (o.json) {
        print_json(found, o.tensors);
    } else {
        print_table(found, o.tensors);
    }
    return {};
}

}  // namespace

void add_quality(CLI::App& app, action& chosen) {
    const auto o = std::make_shared<quality_options>();
    o->engine.kv = "f32";
    o->engine.chunk = 64;
    CLI::App* command = app.add_subcommand("quality", "Measure what quantized models lose against a reference");
    command->add_option("--reference,-r", o->reference, "Folder or file: the model to be equalled")->required()->type_name("PATH");
    command->add_option("--model,-m", o->models, "Folder or file to judge; may be given several times")
        ->required()
        ->type_name("PATH")
        ->allow_extra_args(false);
    auto* input = command->add_option_group("text");
    input->add_option("--text", o->text, "A text, markers parsed; in a .jsonl file, the \"text\" of each line is a text of its own")
        ->type_name("FILE");
    input->add_option("--tokens", o->tokens, "Ids such as 1,2,3; each line is a text of its own")->type_name("FILE");
    input->require_option(1);
    command->add_option("--max-tokens,-n", o->max_tokens, "Use the first so many tokens; 0: all")->capture_default_str();
    command->add_option("--context", o->window, "Longer texts are cut into texts of so many tokens")
        ->check(CLI::Range(2, 1 << 20))
        ->capture_default_str();
    command->add_option("--activations", o->activations, "What packed weights are multiplied with; both: a line for each")
        ->check(CLI::IsMember({"int8", "f32", "both"}))
        ->capture_default_str();
    command->add_option("--kv", o->engine.kv, "Element type of keys and values")
        ->check(CLI::IsMember({"bf16", "f32"}))
        ->capture_default_str();
    command->add_option("--chunk", o->engine.chunk, "Tokens computed at once")->check(CLI::Range(1, 65536))->capture_default_str();
    command->add_option("--threads,-t", o->engine.threads, "Threads; 0: one for each core, as affinity and quota allow")->capture_default_str();
    command->add_option("--target", o->engine.target, "SIMD target (see info); the best by default")->type_name("TARGET");
    add_ignore_unknown_keys(*command, o->open);
    command->add_flag("--tensors", o->tensors, "List the error of every matrix");
    command->add_flag("--json", o->json, "Print one object");
    command->callback([o, &chosen] { chosen = [o] { return run(*o); }; });
}

}  // namespace cli
