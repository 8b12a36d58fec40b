/// Options and files that several subcommands share.
#include "command.hpp"

namespace cli {
namespace {
std::filesystem::path program_path;  // set once, by main
}

void add_run_options(CLI::App& command, run_options& options) {
    engine_options& engine = options.engine;
    command.add_option("--model,-m", options.model, "Folder with config.json and model.safetensors")->type_name("FOLDER");
    command.add_option("--threads,-t", engine.threads, "Threads; 0: one for each processor")->capture_default_str();
    command.add_option("--target", engine.target, "SIMD target (see info); the best by default")->type_name("NAME");
    command.add_option("--kv", engine.kv, "Element type of keys and values")
        ->check(CLI::IsMember({"bf16", "f32", "int8"}))
        ->capture_default_str();
    command.add_option("--context", engine.context, "Tokens to make room for; 0: what is needed")->capture_default_str();
}

p4::result<opened> open_model(const std::string& folder) {
    if (folder.empty()) return p4::error::format(p4::errc::invalid_argument, "which model? Say --model FOLDER");
    auto files = p4::checkpoint::open(folder);
    if (!files) return files.error();
    opened model{std::move(*files), std::nullopt};
    if (model.files.tokenizer_path().empty()) return model;
    auto text = open_tokenizer(model.files.tokenizer_path());
    if (!text) return text.error();
    model.text.emplace(std::move(*text));
    return model;
}

p4::result<p4::tokenizer> open_tokenizer(const std::filesystem::path& path) {
    std::error_code ignored;
    const std::filesystem::path file = std::filesystem::is_directory(path, ignored) ? path / "tokenizer.json" : path;
    const auto mapped = p4::mapped_file::open(file);
    if (!mapped) return mapped.error();
    auto text = p4::tokenizer_from_json(mapped->text());
    if (!text) return text.error().in(p4::printable(file).c_str());
    return text;
}

void remember_program(const char* argv0) {
    std::error_code failed;
    program_path = std::filesystem::read_symlink("/proc/self/exe", failed);
    if (failed) program_path = std::filesystem::weakly_canonical(argv0 == nullptr ? "" : argv0, failed);
}

p4::result<std::string> default_model() {
    const std::filesystem::path inside = std::filesystem::path("models") / "tiny-arithmetic";
    std::vector<std::filesystem::path> places{inside};
    for (std::filesystem::path up = program_path.parent_path(); up.has_relative_path() && places.size() < 5;
         up = up.parent_path()) {
        places.push_back(up / inside);
    }
#if defined(PHI4FLASH_DEFAULT_MODEL)
    places.emplace_back(PHI4FLASH_DEFAULT_MODEL);
#endif
    std::error_code ignored;
    for (const auto& place : places) {
        if (std::filesystem::exists(place / "config.json", ignored)) return place.string();
    }
    return p4::error::format(p4::errc::file_not_found, "the bundled model models/tiny-arithmetic is not here: say --model FOLDER");
}

std::size_t usual_context(const p4::sambay_config& config) {
    constexpr std::size_t usual = 32768;
    return config.max_positions == 0 ? usual : std::min(usual, config.max_positions);
}

void add_sampling_options(CLI::App& command, sampling_flags& flags) {
    command.add_option("--max-tokens,-n", flags.max_tokens, "New tokens, at most");
    command.add_option("--temperature", flags.temperature, "0 is greedy; by default as the model says, else 0.6");
    command.add_option("--top-p", flags.top_p, "Keep the likeliest tokens up to this probability (0.95)");
    command.add_option("--top-k", flags.top_k, "Keep so many of the likeliest tokens; 0: all");
    command.add_option("--min-p", flags.min_p, "Keep tokens at least this times as likely as the likeliest (0)");
    command.add_option("--repetition-penalty", flags.repetition_penalty, "More than 1 makes tokens of the text less likely (1)");
    command.add_option("--seed", flags.seed, "The same seed gives the same text");
    command.add_option("--stop", flags.stop, "End the text at this string; may be given several times")
        ->type_name("STRING")
        ->allow_extra_args(false);
}

p4::generation_options generation_options_of(const opened& model, const sampling_flags& flags) {
    const p4::generation_config& said = model.files.generation();
    p4::generation_options options;
    p4::sampling_options& s = options.sampling;
    const bool greedy = said.do_sample.has_value() && !*said.do_sample;
    s.temperature = flags.temperature.value_or(greedy ? 0.0f : said.temperature.value_or(s.temperature));
    s.top_p = flags.top_p.value_or(said.top_p.value_or(s.top_p));
    s.min_p = flags.min_p.value_or(said.min_p.value_or(s.min_p));
    s.top_k = flags.top_k.value_or(said.top_k.value_or(static_cast<std::uint32_t>(s.top_k)));
    s.repetition_penalty = flags.repetition_penalty.value_or(said.repetition_penalty.value_or(s.repetition_penalty));
    s.seed = flags.seed.value_or(s.seed);
    options.max_tokens = flags.max_tokens.value_or(said.max_new_tokens.value_or(static_cast<std::uint32_t>(options.max_tokens)));
    options.stop_strings = flags.stop;
    options.stop_ids.assign(said.stop_ids.begin(), said.stop_ids.end());
    if (options.stop_ids.empty() && model.text) {
        for (const char* marker : {"<|end|>", "<|endoftext|>"}) {
            if (const auto* token = model.text->added(std::string_view(marker)))
                options.stop_ids.push_back(static_cast<std::int32_t>(token->id));
        }
    }
    return options;
}

}  // namespace cli
