/// Options and files that several subcommands share.
#include "command.hpp"

#include "input_text.hpp"
#include "progress.hpp"

#include <CLI/CLI.hpp>

#include <chrono>

namespace cli {

void add_ignore_unknown_keys(CLI::App& command, open_flags& flags) {
    command.add_flag("--ignore-unknown-keys", flags.ignore_unknown_keys, "Go on where the configuration has keys that nobody knows");
}

void add_run_options(CLI::App& command, run_options& options) {
    engine_options& engine = options.engine;
    command.add_option("--model,-m", options.model, "Folder with config.json and model.safetensors, or a packed file")->type_name("PATH");
    command
        .add_option("--pages", options.open.pages,
                    "Where the weights lie: huge pages where the system has them; reread: also if it must read the file again; copy: in memory of "
                    "the program's own; small: as the system likes")
        ->check(CLI::IsMember({"huge", "reread", "copy", "small"}))
        ->capture_default_str();
    add_ignore_unknown_keys(command, options.open);
    command.add_option("--threads,-t", engine.threads, "Threads; 0: one for each core, as affinity and quota allow")->capture_default_str();
    command.add_option("--target", engine.target, "SIMD target (see info); the best by default")->type_name("TARGET");
    command.add_option("--kv", engine.kv, "Element type of keys and values")
        ->check(CLI::IsMember({"bf16", "f32", "int8"}))
        ->capture_default_str();
    command.add_option("--activations", engine.activations, "What packed weights meet: int8, or f32, which is exact and slow")
        ->check(CLI::IsMember({"int8", "f32"}))
        ->capture_default_str();
    command.add_option("--context", engine.context, "Tokens to make room for; 0: what is needed")->capture_default_str();
}

namespace {
p4::opening_options opening_of(const open_flags& flags, weights_for use) {
    p4::opening_options how;
    how.config.ignore_unknown_keys = flags.ignore_unknown_keys;
    how.mapping.pages = how.repack.pages = flags.pages == "small" ? p4::page_size::normal : p4::page_size::huge;
    how.mapping.reread = flags.pages == "reread";
    how.mapping.copy = flags.pages == "copy";
    how.mapping.populate = use == weights_for::running;
    return how;
}

/// A bar, once loading has taken a while.
class loading_bar {
public:
    void operator()(std::uint64_t done, std::uint64_t total) {
        constexpr double soon = 0.5;
        const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin_;
        if (done < shown_) bar_.reset(), shown_ = 0;  // the next part of the work
        if (!bar_ && taken.count() > soon && done < total) bar_.emplace("loading", "MB/s", static_cast<double>(total), 1e6);
        if (!bar_) return;
        bar_->advance(static_cast<double>(done - shown_));
        shown_ = done;
    }

private:
    std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
    std::optional<progress> bar_;
    std::uint64_t shown_ = 0;
};
}  // namespace

p4::result<opened> open_weights(const std::string& path, const open_flags& flags, weights_for use) {
    loading_bar bar;
    auto files = p4::model_files::open(path, opening_of(flags, use), bar);
    if (!files) return files.error();
    return opened{std::move(*files), std::nullopt};
}

p4::status add_tokenizer(opened& model) {
    if (!model.files.has_tokenizer()) return {};
    auto text = model.files.open_tokenizer();
    if (!text) return text.error();
    model.text.emplace(std::move(*text));
    return {};
}

p4::result<opened> open_model(const std::string& path, const open_flags& flags, weights_for use) {
    auto model = open_weights(path, flags, use);
    if (!model) return model.error();
    if (const p4::status ok = add_tokenizer(*model); !ok) return ok.error();
    return model;
}

p4::result<p4::tokenizer> open_tokenizer(const std::filesystem::path& path) {
    if (path.extension() != ".gguf") return p4::open_tokenizer_json(path);
    const auto files = p4::model_files::open(path, {.config = {.ignore_unknown_keys = true}});  // the tokenizer is all that is used
    if (!files) return files.error();
    return files->open_tokenizer();
}

std::string file_name(const std::filesystem::path& path) {
    std::error_code failed;
    std::filesystem::path whole = std::filesystem::weakly_canonical(path, failed);
    if (failed) whole = path.lexically_normal();
    if (!whole.has_filename()) whole = whole.parent_path();
    return p4::printable(whole.filename()).c_str();
}

std::size_t usual_context(const p4::sambay_config& config) {
    constexpr std::size_t usual = 32768;
    return config.max_positions == 0 ? usual : std::min(usual, config.max_positions);
}

void add_drafts_option(CLI::App& command, engine_options& options) {
    options.drafts.how = draft_choice::kind::as_many_as_pay;
    const auto take = [&options](const std::string& said) {
        draft_choice choice;
        std::size_t n = 0;
        if (said == "off") {
            choice.how = draft_choice::kind::off;
        } else if (said == "auto") {
            choice.how = draft_choice::kind::as_many_as_pay;
        } else if (CLI::detail::lexical_cast(said, n) && n >= 1 && n <= p4::max_drafts) {
            choice = {draft_choice::kind::up_to, n};
        } else {
            throw CLI::ValidationError("--drafts", "want off, auto or 1 to " + std::to_string(p4::max_drafts) + ", have " + said);
        }
        options.drafts = choice;
    };
    command.add_option_function<std::string>("--drafts", take, "Guesses from the text so far, read with each token: as many as pay, or up to N")
        ->type_name("off|auto|N")
        ->default_str("auto");
}

void add_sampling_options(CLI::App& command, sampling_flags& flags) {
    command.add_option("--max-tokens,-n", flags.max_tokens, "New tokens, at most");
    command.add_option("--temperature", flags.temperature, "0 is greedy; by default as the model says, else 0.6");
    command.add_option("--top-p", flags.top_p, "Keep the likeliest tokens up to this probability (0.95)");
    command.add_option("--top-k", flags.top_k, "Keep so many of the likeliest tokens; 0: all");
    command.add_option("--min-p", flags.min_p, "Keep tokens at least this times as likely as the likeliest (0)");
    command.add_option("--repetition-penalty", flags.repetition_penalty, "More than 1 makes tokens of the text less likely (1)");
    command.add_option("--seed", flags.seed, "The same seed gives the same text (with --drafts auto up to rounding)");
    command.add_option("--stop", flags.stop, "End the text at this string; may be given several times")
        ->type_name("STRING")
        ->allow_extra_args(false);
}

namespace {
void tell_unsupported(const p4::generation_config& said) {
    if (said.unsupported.empty()) return;
    std::string keys;
    for (const std::string& key : said.unsupported) keys += (keys.empty() ? "" : ", ") + std::string(p4::printable(key).c_str());
    std::fprintf(stderr, "phi4flash: note: the model's generation settings %s are not supported and change nothing here\n", keys.c_str());
}
}  // namespace

p4::result<p4::generation_options> generation_options_of(const opened& model, const sampling_flags& flags) {
    for (const std::string& stop : flags.stop)
        if (const p4::status ok = check_utf8(stop, "--stop"); !ok) return ok.error();
    tell_unsupported(model.files.generation());
    auto made = p4::options_from(model.files.generation(), model.tokenizer());
    if (!made) return made;
    p4::generation_options& options = *made;
    const auto prefer = [](const auto& flag, auto& option) {
        if (flag) option = *flag;
    };
    p4::sampling_options& s = options.sampling;
    prefer(flags.temperature, s.temperature);
    prefer(flags.top_p, s.top_p);
    prefer(flags.min_p, s.min_p);
    prefer(flags.top_k, s.top_k);
    prefer(flags.repetition_penalty, s.repetition_penalty);
    prefer(flags.seed, s.seed);
    prefer(flags.max_tokens, options.max_tokens);
    options.stop_strings.insert(options.stop_strings.end(), flags.stop.begin(), flags.stop.end());
    return made;
}

}  // namespace cli
