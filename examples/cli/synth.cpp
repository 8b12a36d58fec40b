/// synth: a random checkpoint in the released layout, of any size up to the real one, streamed to disk.
#include "existing.hpp"
#include "json_lines.hpp"
#include "progress.hpp"
#include "random_weights.hpp"
#include "stop_signals.hpp"

#include <CLI/CLI.hpp>

#include <numeric>

namespace cli {
namespace {

struct synth_options {
    std::string config;
    open_flags open;
    std::string output;
    std::string tokenizer;
    std::string dtype = "bf16";
    std::uint64_t seed = 0;
    std::uint64_t shard_bytes = 0;
    std::size_t threads = 0;
    bool force = false;
};

/// Writes tensors of one checkpoint; what it takes is one buffer.
class checkpoint_writer {
public:
    checkpoint_writer(std::uint64_t seed, std::vector<p4::safetensors_spec> specs, p4::executor_ref threads, double bytes, new_files& made)
        : seed_(seed), specs_(std::move(specs)), threads_(threads), made_(made), bar_("writing", "MB/s", bytes, 1e6) {}

    [[nodiscard]] std::span<const p4::safetensors_spec> specs() const { return specs_; }

    /// Tensors [begin, end) of the list as one file.
    p4::status write(const std::filesystem::path& path, std::size_t begin, std::size_t end) {
        made_.will_write(path);
        return p4::write_safetensors(path, specs().subspan(begin, end - begin), [&](std::size_t i, p4::safetensors_sink& out) {
            const std::string_view dtype = specs_[begin + i].dtype;
            if (dtype == p4::name_of(p4::dtype::f32)) return write_tensor<float>(begin + i, out);
            if (dtype == p4::name_of(p4::dtype::f16)) return write_tensor<p4::f16>(begin + i, out);
            return write_tensor<p4::bf16>(begin + i, out);
        });
    }

private:
    template <class T>
    p4::status write_tensor(std::size_t index, p4::safetensors_sink& out) {
        const p4::safetensors_spec& spec = specs_[index];
        std::size_t count = 1;
        for (const std::size_t extent : spec.shape) count *= extent;
        const weight_maker<T> make(seed_, index, rule_of(spec.name), spec.shape.back(),
                                   std::max(count / spec.shape.front(), std::size_t{1}));
        constexpr std::size_t piece = (std::size_t{8} << 20) / sizeof(T);
        std::vector<T> numbers(std::min(piece, count));
        for (std::size_t begin = 0; begin < count; begin += piece) {
            const std::span<T> now(numbers.data(), std::min(piece, count - begin));
            threads_.parallel_for((now.size() + 3) / 4, 16384, [&](std::size_t from, std::size_t to) {
                make.fill(begin + 4 * from, now.subspan(4 * from, std::min(4 * to, now.size()) - 4 * from));
            });
            if (const p4::status ok = out.write(std::span<const T>(now)); !ok) return ok;
            bar_.advance(static_cast<double>(now.size_bytes()));
            if (stop_asked()) return p4::error::format(p4::errc::cancelled, "stopped while weights were written");
        }
        return {};
    }

    std::uint64_t seed_;
    std::vector<p4::safetensors_spec> specs_;
    p4::executor_ref threads_;
    new_files& made_;
    progress bar_;
};

p4::result<std::vector<p4::safetensors_spec>> list_tensors(const p4::sambay_config& config, p4::dtype type) {
    const auto extents = p4::extents<p4::any_sambay>::from(config.shape);
    if (!extents) return extents.error();
    std::vector<p4::safetensors_spec> specs;
    p4::for_each_tensor(*extents, [&](std::string_view name, std::span<const std::size_t> shape, p4::tensor_role) {
        const p4::dtype own = always_f32(rule_of(name)) ? p4::dtype::f32 : type;
        specs.push_back({std::string(name), p4::name_of(own), {shape.begin(), shape.end()}});
    });
    return specs;
}

/// A file that stands beside the weights.
struct small_file {
    const char* name;
    std::string text;
};

/// config.json as it was given, with the element type that the weights have; what generation needs to know: the file beside the
/// given one, or what config.json says of it; and the tokenizer.
p4::result<std::vector<small_file>> read_small_files(const synth_options& o, std::string_view config_text, p4::dtype type) {
    auto config = nlohmann::ordered_json::parse(config_text);
    config[config.contains("dtype") ? "dtype" : "torch_dtype"] = type == p4::dtype::f32 ? "float32" : type == p4::dtype::f16 ? "float16" : "bfloat16";
    std::vector<small_file> files{{"config.json", config.dump(2) + "\n"}};
    const std::filesystem::path beside = std::filesystem::path(o.config).parent_path() / "generation_config.json";
    if (auto text = p4::read_file(beside, p4::hf_config_limits.bytes)) {
        files.push_back({"generation_config.json", *std::move(text)});
    } else {
        nlohmann::ordered_json generation = nlohmann::ordered_json::object();
        for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id", "stop_strings"}) {
            if (config.contains(key)) generation[key] = config[key];
        }
        files.push_back({"generation_config.json", generation.dump(2) + "\n"});
    }
    if (o.tokenizer.empty()) return files;
    std::error_code ignored;
    const std::filesystem::path from = o.tokenizer;
    auto json = p4::read_file(std::filesystem::is_directory(from, ignored) ? from / "tokenizer.json" : from, p4::max_tokenizer_json_bytes);
    if (!json) return json.error();
    files.push_back({"tokenizer.json", *std::move(json)});
    return files;
}

/// One file, or shards of about `shard_bytes` with an index.
p4::status write_weights(const std::filesystem::path& folder, checkpoint_writer& out, std::span<const std::uint64_t> bytes,
                         std::uint64_t shard_bytes, new_files& made) {
    const std::size_t count = out.specs().size();
    std::vector<std::size_t> begins{0};
    std::uint64_t sum = 0;
    std::uint64_t all = 0;
    for (std::size_t i = 0; i < count; ++i) {
        if (shard_bytes != 0 && sum != 0 && sum + bytes[i] > shard_bytes) {
            begins.push_back(i);
            sum = 0;
        }
        sum += bytes[i];
        all += bytes[i];
    }
    const std::size_t shards = begins.size();
    if (shard_bytes == 0) return out.write(folder / "model.safetensors", 0, count);
    begins.push_back(count);
    nlohmann::ordered_json index;
    index["metadata"]["total_size"] = all;
    for (std::size_t s = 0; s < shards; ++s) {
        char name[64];
        std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", s + 1, shards);
        if (const p4::status ok = out.write(folder / name, begins[s], begins[s + 1]); !ok) return ok;
        for (std::size_t i = begins[s]; i < begins[s + 1]; ++i) index["weight_map"][out.specs()[i].name] = name;
    }
    made.will_write(folder / "model.safetensors.index.json");
    return p4::write_file(folder / "model.safetensors.index.json", index.dump(2) + "\n");
}

p4::status check_room(const std::filesystem::path& folder, std::uint64_t bytes) {
    std::error_code why;
    const auto space = std::filesystem::space(folder, why);
    if (why)
        return p4::error::format(p4::errc::file_unwritable, "%s: cannot be written: %s", p4::printable(folder).c_str(),
                                 why.message().c_str());
    if (space.available >= bytes) return {};
    return p4::error::format(p4::errc::file_unwritable, "%s: want room for %llu bytes, the disk has %llu", p4::printable(folder).c_str(),
                             static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(space.available));
}

p4::status run(const synth_options& o) {
    const auto text = p4::read_file(o.config, p4::hf_config_limits.bytes);
    if (!text) return text.error();
    const auto config = p4::read_hf_config(*text, {.ignore_unknown_keys = o.open.ignore_unknown_keys});
    if (!config) return config.error().in(p4::printable(o.config).c_str());
    const p4::dtype type = o.dtype == "f32" ? p4::dtype::f32 : o.dtype == "f16" ? p4::dtype::f16 : p4::dtype::bf16;
    auto specs = list_tensors(*config, type);
    if (!specs) return specs.error();
    const auto plan = p4::plan_safetensors(*specs);
    if (!plan) return plan.error();

    const auto small = read_small_files(o, *text, type);
    if (!small) return small.error();

    const std::filesystem::path folder = o.output;
    std::vector<const char*> names;
    for (const small_file& file : *small) names.push_back(file.name);
    if (const p4::status ok = check_output_folder(folder, names, o.force); !ok) return ok;
    std::error_code ignored;
    if (o.shard_bytes != 0 && std::filesystem::exists(folder / "model.safetensors", ignored))
        return p4::error::format(p4::errc::file_unwritable, "%s: model.safetensors is there already and would hide the shards: remove it first",
                                 p4::printable(folder).c_str());
    const stop_guard guard;
    new_files made;
    if (const p4::status ok = made.make_folder(folder); !ok) return ok;
    const std::uint64_t all = std::accumulate(plan->bytes.begin(), plan->bytes.end(), std::uint64_t{0});
    if (const p4::status ok = check_room(folder, all); !ok) return ok;
    auto pool = p4::thread_pool::create(o.threads);
    if (!pool) return pool.error();
    checkpoint_writer out(o.seed, std::move(*specs), *pool, static_cast<double>(all), made);
    if (const p4::status ok = write_weights(folder, out, plan->bytes, o.shard_bytes, made); !ok) return ok;
    for (const small_file& file : *small) {
        made.will_write(folder / file.name);
        if (const p4::status ok = p4::write_file(folder / file.name, file.text); !ok) return ok;
    }
    made.keep();
    return {};
}

}  // namespace

void add_synth(CLI::App& app, action& chosen) {
    const auto o = std::make_shared<synth_options>();
    CLI::App* command = app.add_subcommand("synth", "Write a random checkpoint, to try sizes and speeds");
    command->add_option("--config", o->config, "config.json that gives the shape")->required()->type_name("FILE");
    add_ignore_unknown_keys(*command, o->open);
    command->add_option("--output,-o", o->output, "Folder to write")->required()->type_name("FOLDER");
    command->add_option("--seed", o->seed, "The same seed gives the same weights")->capture_default_str();
    command->add_option("--dtype", o->dtype, "Element type (A_log and lambda are always f32)")
        ->check(CLI::IsMember({"bf16", "f16", "f32"}))
        ->capture_default_str();
    command->add_option("--shard-size", o->shard_bytes, "Cut into files of about this size, such as 5GB")
        ->transform(CLI::AsSizeValue(true));
    command->add_option("--tokenizer", o->tokenizer, "tokenizer.json to copy along, or a folder that holds one")
        ->type_name("FILE_OR_MODEL");
    command->add_option("--threads,-t", o->threads, "Threads; 0: one for each core, as affinity and quota allow")->capture_default_str();
    add_force_option(*command, o->force);
    command->callback([o, &chosen] { chosen = [o] { return run(*o); }; });
}

}  // namespace cli
