#pragma once
/// What the subcommands share: how one announces itself, opens its model and says how to sample.
#include "engine.hpp"

#include <filesystem>
#include <optional>
#include <string>

namespace CLI {
class App;
}  // namespace CLI

namespace cli {

/// What the chosen subcommand does, once the command line has been read.
using action = std::function<p4::status()>;

// One a file. Each adds its options to `app` and sets `chosen` when it is the one.
void add_chat(CLI::App& app, action& chosen);
void add_generate(CLI::App& app, action& chosen);
void add_text_tools(CLI::App& app, action& chosen);  // tokenize, detokenize, render
void add_logits(CLI::App& app, action& chosen);
void add_info(CLI::App& app, action& chosen);
void add_synth(CLI::App& app, action& chosen);
void add_bench(CLI::App& app, action& chosen);
void add_convert(CLI::App& app, action& chosen);
void add_quality(CLI::App& app, action& chosen);

/// How the files of a model are opened.
struct open_flags {
    std::string pages = "huge";  ///< huge, reread, copy or small
    bool ignore_unknown_keys = false;
};
void add_ignore_unknown_keys(CLI::App& command, open_flags& flags);

/// --model and whatever says how it runs.
struct run_options {
    std::string model;
    open_flags open;
    engine_options engine;  ///< a context of 0: as many tokens as the subcommand needs
};
void add_run_options(CLI::App& command, run_options& options);
/// --drafts off|auto|N, by default auto.
void add_drafts_option(CLI::App& command, engine_options& options);

/// What a subcommand wants of weights.
enum class weights_for : std::uint8_t {
    looking,  ///< their names and sizes: nothing is read before it is needed
    running   ///< all of them, read at once, with a bar where that takes long
};

/// The files of a model.
struct opened {
    p4::model_files files;
    std::optional<p4::tokenizer> text;  ///< absent where the model has none

    [[nodiscard]] const p4::tokenizer* tokenizer() const { return text ? &*text : nullptr; }
};
p4::result<opened> open_model(const std::string& path, const open_flags& flags = {}, weights_for use = weights_for::looking);
/// The same without looking at its tokenizer: for what needs ids alone.
p4::result<opened> open_weights(const std::string& path, const open_flags& flags = {}, weights_for use = weights_for::looking);
/// Adds the tokenizer, where there is one. Errors: those of model_files::open_tokenizer.
p4::status add_tokenizer(opened& model);

/// `path` is a tokenizer.json, a folder that holds one, or a packed model.
p4::result<p4::tokenizer> open_tokenizer(const std::filesystem::path& path);

/// What a folder or file is called, links followed ("." has a name too), as UTF-8 without control characters.
std::string file_name(const std::filesystem::path& path);

/// Longest context worth offering by default: the model's own limit, or 32768.
[[nodiscard]] std::size_t usual_context(const p4::sambay_config& config);

/// How to choose tokens: what the user said, else what the model's generation_config.json says, else what the model card says.
struct sampling_flags {
    std::optional<float> temperature;
    std::optional<float> top_p;
    std::optional<float> min_p;
    std::optional<float> repetition_penalty;
    std::optional<std::size_t> top_k;
    std::optional<std::size_t> max_tokens;
    std::optional<std::uint64_t> seed;
    std::vector<std::string> stop;
};
void add_sampling_options(CLI::App& command, sampling_flags& flags);
/// Tells, on standard error, what the model's files ask for that is not done.
p4::result<p4::generation_options> generation_options_of(const opened& model, const sampling_flags& flags);

}  // namespace cli
