/// bench: how fast a model reads a prompt and writes a text here, and how close the writing comes to what the memory can give.
#include "bench_pass.hpp"
#include "bench_replay.hpp"
#include "bench_reuse.hpp"
#include "bench_sessions.hpp"
#include "command.hpp"
#include "json_lines.hpp"
#include "series.hpp"
#include "text_table.hpp"

#include <CLI/CLI.hpp>

#include <chrono>

namespace cli {
namespace {

struct bench_options {
    run_options run;
    std::size_t prompt_tokens = 512;
    std::size_t generate_tokens = 32;
    std::size_t depth = 0;
    std::size_t repetitions = 5;
    std::vector<std::size_t> passes;
    std::vector<std::size_t> sessions;
    p4::scheduler_options scheduling;
    std::size_t reuse = 0;
    replay_bench replay;
    bool json = false;
};

double seconds_of(const std::function<p4::status()>& work, p4::status& outcome) {
    const auto start = std::chrono::steady_clock::now();
    outcome = work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Bytes that one decode step reads: every matrix once (the embedding as output projection), the widened vectors, the K/V that each
/// attention layer looks at, and the Mamba states, which are also written.
struct step_bytes {
    double weights = 0.0;
    double past = 0.0;
    [[nodiscard]] double all() const { return weights + past; }
};

/// What the big matrices are: read in place by every step.
bool is_streamed(const p4::tensor_view& tensor) {
    return tensor.rank == 2 && !tensor.name.ends_with("A_log") && tensor.name != "lm_head.weight";
}

step_bytes bytes_of_step(const p4::model_files& files, const p4::memory_plan& memory, const std::string& kv, std::size_t depth) {
    const p4::sambay_shape& s = files.config().shape;
    const p4::layer_plan plan(s.n_layers);
    step_bytes bytes;
    for (const p4::tensor_view& tensor : files.tensors())
        bytes.weights += is_streamed(tensor) ? static_cast<double>(tensor.bytes) : 0.0;
    bytes.weights += static_cast<double>(memory.parameters);
    const std::size_t d_head = s.d_model / s.n_heads;
    const std::size_t head_bytes = kv == "f32" ? 4 * d_head : kv == "bf16" ? 2 * d_head : d_head + sizeof(p4::bf16);
    const double kv_bytes = 2.0 * static_cast<double>(s.n_kv_heads * head_bytes);
    const auto rows = static_cast<double>(plan.n_window() * std::min(depth, s.window) + (1 + plan.n_cross()) * depth);
    const double states = 2.0 * 4.0 * static_cast<double>(plan.n_mamba() * s.d_inner * s.d_state);
    bytes.past = rows * kv_bytes + states;
    return bytes;
}

/// Reads memory as fast as the machine can, with the threads that the model uses.
class reader {
public:
    explicit reader(engine& runs) : runs_(runs) {}

    void add(std::span<const std::byte> memory) {
        constexpr std::size_t piece = std::size_t{1} << 20;
        for (std::size_t begin = 0; begin + 1 < memory.size(); begin += piece) {
            pieces_.push_back(memory.subspan(begin, std::min(piece, memory.size() - begin) / 2 * 2));
            bytes_ += static_cast<double>(pieces_.back().size());
        }
    }

    /// Bytes a second, over half a second at least: a shared machine is not as fast in each tenth of one.
    double measure() {
        double bytes = 0.0;
        double seconds = 0.0;
        p4::status ignored;
        while (seconds < 0.5 && bytes_ > 0.0) {
            seconds += seconds_of(
                [&]() -> p4::status {
                    runs_.threads().parallel_for(pieces_.size(), 1, [&](std::size_t begin, std::size_t end) {
                        for (; begin < end; ++begin) {
                            const float sum = runs_.kernels().read(pieces_[begin].data(), pieces_[begin].size());
                            seen_.store(sum, std::memory_order_relaxed);
                        }
                    });
                    return {};
                },
                ignored);
            bytes += bytes_;
        }
        return seconds > 0.0 ? bytes / seconds : 0.0;
    }

private:
    engine& runs_;
    std::vector<std::span<const std::byte>> pieces_;
    double bytes_ = 0.0;
    std::atomic<float> seen_{0.0f};  // so that the reading cannot be left out
};

/// What writing is held against: memory of this program's own in huge pages, as large as the weights or larger than any cache; and the
/// weights where they lie.
struct limits {
    explicit limits(const p4::model_files& files, engine& runs) : machine(runs), weights(runs) {
        std::size_t streamed = 0;
        for (const p4::tensor_view& tensor : files.tensors()) {
            if (!is_streamed(tensor)) continue;
            weights.add({tensor.data, tensor.bytes});
            streamed += tensor.bytes;
        }
        constexpr std::size_t enough = std::size_t{1} << 30;
        auto block = p4::memory_block::allocate(std::min(streamed, enough), "memory to measure with", p4::page_size::huge);
        if (!block) return;  // the weights have taken what there was
        memory = std::move(*block);
        std::ranges::fill(memory.bytes(), std::byte{1});
        machine.add(memory.bytes());
    }
    p4::memory_block memory;
    reader machine;
    reader weights;
};

double part_of(std::size_t some, std::size_t all) { return all == 0 ? 0.0 : static_cast<double>(some) / static_cast<double>(all); }

struct findings {
    series prefill;    ///< tokens a second
    series decode;     ///< tokens a second
    series machine;    ///< bytes a second, of memory in huge pages
    series weights;    ///< bytes a second, of the weights as they lie
    double machine_huge = 0.0;  ///< how much of that memory is in huge pages
    double weights_huge = 0.0;  ///< and of the weights
    step_bytes step;
    [[nodiscard]] double decode_bandwidth() const { return decode.median() * step.all(); }
    [[nodiscard]] double limit() const { return machine.median() > 0.0 ? machine.median() : weights.median(); }
    [[nodiscard]] double ratio() const { return limit() > 0.0 ? decode_bandwidth() / limit() : 0.0; }
};

/// Measures one phase `repetitions` times, after one time that does not count, each at the same depth.
template <class Between>
p4::status measure_phase(engine& runs, const bench_options& o, std::span<const std::int32_t> text, std::size_t tokens,
                         const std::function<p4::status()>& work, series& speed, Between&& between) {
    runs.reset();
    if (o.depth != 0) {
        if (const auto read = runs.prefill(text.first(o.depth)); !read) return read.error();
        if (const p4::status ok = runs.save(); !ok) return ok;
    }
    for (std::size_t r = 0; r <= o.repetitions; ++r) {
        if (o.depth == 0) runs.reset();
        if (o.depth != 0) {
            if (const p4::status ok = runs.restore(); !ok) return ok;
        }
        p4::status outcome;
        const double seconds = seconds_of(work, outcome);
        if (!outcome) return outcome;
        if (r != 0) speed.add(static_cast<double>(tokens) / seconds);
        between(r);
    }
    return {};
}

p4::result<findings> measure(const opened& model, engine& runs, const bench_options& o) {
    findings found;
    // Ordinary ids: what they are does not change the speed, but a mixture keeps the embedding's rows out of the cache.
    std::vector<std::int32_t> text(std::max(o.depth, o.prompt_tokens));
    p4::random_stream random(1);
    for (std::int32_t& id : text) id = static_cast<std::int32_t>(random.next() % model.files.config().shape.vocab);
    if (o.prompt_tokens != 0) {
        const auto work = [&]() -> p4::status {
            const auto read = runs.prefill(std::span<const std::int32_t>(text).first(o.prompt_tokens));
            return read ? p4::status() : p4::status(read.error());
        };
        const p4::status ok = measure_phase(runs, o, text, o.prompt_tokens, work, found.prefill, [](std::size_t) {});
        if (!ok) return ok.error();
    }
    if (o.generate_tokens != 0) {
        limits memory(model.files, runs);
        const auto work = [&]() -> p4::status {
            for (std::size_t i = 0; i < o.generate_tokens; ++i) {
                const auto read = runs.step(text[i % text.size()]);
                if (!read) return read.error();
            }
            return {};
        };
        if (text.empty()) text.push_back(0);
        // Speeds of a shared machine drift, so the limit is measured in turn with what is held against it.
        const p4::status ok = measure_phase(runs, o, text, o.generate_tokens, work, found.decode, [&](std::size_t r) {
            const double machine = memory.machine.measure();
            const double weights = memory.weights.measure();
            if (r == 0) return;
            found.machine.add(machine);
            found.weights.add(weights);
        });
        if (!ok) return ok.error();
        found.machine_huge = part_of(memory.memory.huge_bytes(), memory.memory.bytes().size());
        const p4::page_share share = model.files.residency();
        found.weights_huge = part_of(share.huge, share.resident);
        found.step = bytes_of_step(model.files, runs.memory(), o.run.engine.kv, o.depth + o.generate_tokens / 2);
    }
    return found;
}

void print_table(const opened& model, engine& runs, const bench_options& o, const findings& found) {
    const auto speed = [](const series& s) {
        return text_of("%10.2f tokens/s   (%.2f to %.2f)", s.median(), s.lowest(), s.highest());
    };
    const auto rate = [](double bytes) { return text_of("%10.2f GB/s", bytes * 1e-9); };
    text_table table;
    table.heading(text_of("%s, %s of weights, K/V in %s, %s, %zu threads, median of %zu", p4::printable(o.run.model).c_str(),
                          human_bytes(static_cast<double>(model.files.bytes())).c_str(), o.run.engine.kv.c_str(),
                          runs.kernels().name, runs.threads().concurrency(), o.repetitions));
    if (!found.prefill.empty())
        table.row(text_of("prefill, %zu tokens at depth %zu", o.prompt_tokens, o.depth), speed(found.prefill));
    if (!found.decode.empty()) {
        table.row(text_of("decode, %zu tokens at depth %zu", o.generate_tokens, o.depth), speed(found.decode));
        table.row("read a token: weights", text_of("%10.3f MB", found.step.weights * 1e-6));
        table.row("read a token: K/V and states", text_of("%10.3f MB", found.step.past * 1e-6));
        table.row("decode reads", rate(found.decode_bandwidth()));
        const auto reading = [&](const series& s, double huge) {
            return rate(s.median()) + text_of("   (%.2f to %.2f), %.0f %% in huge pages", s.lowest() * 1e-9, s.highest() * 1e-9, 100.0 * huge);
        };
        if (found.machine.median() > 0.0) table.row("this machine can read", reading(found.machine, found.machine_huge));
        table.row("the weights as they lie", reading(found.weights, found.weights_huge));
        table.row("ratio", text_of("%10.1f %%", 100.0 * found.ratio()));
    }
    table.print();
}

void print_json(engine& runs, const bench_options& o, const findings& found) {
    const auto of = [](const series& s) { return json{{"median", s.median()}, {"min", s.lowest()}, {"max", s.highest()}}; };
    json object{{"model", o.run.model},
                {"target", runs.kernels().name},
                {"kv", o.run.engine.kv},
                {"threads", runs.threads().concurrency()},
                {"repetitions", o.repetitions},
                {"prompt_tokens", o.prompt_tokens},
                {"generate_tokens", o.generate_tokens},
                {"depth", o.depth}};
    if (!found.prefill.empty()) object["prefill_tokens_per_second"] = of(found.prefill);
    if (!found.decode.empty()) {
        object["decode_tokens_per_second"] = of(found.decode);
        object["bytes_per_token"] = found.step.all();
        object["weight_bytes_per_token"] = found.step.weights;
        object["decode_bytes_per_second"] = found.decode_bandwidth();
        object["read_bytes_per_second"] = of(found.machine);
        object["read_in_huge_pages"] = found.machine_huge;
        object["weights_read_bytes_per_second"] = of(found.weights);
        object["weights_in_huge_pages"] = found.weights_huge;
        object["ratio"] = found.ratio();
    }
    print(object);
}

p4::status run(bench_options o, bool says_tokens) {
    if (!o.replay.texts.empty()) {
        o.replay.most = says_tokens ? o.generate_tokens : 0;
        o.replay.json = o.json;
        return bench_replay(o.run, o.replay);
    }
    o.run.engine.drafts = {};
    const auto model = open_weights(o.run.model, o.run.open, weights_for::running);
    if (!model) return model.error();
    engine_options how = o.run.engine;
    const std::size_t needed = o.depth + std::max(o.prompt_tokens, o.generate_tokens);
    how.context = std::max({how.context, needed, std::size_t{1}});
    if (!o.passes.empty()) {
        const std::size_t most = std::ranges::max(o.passes);
        how.context = std::max(how.context, o.depth + most);
        how.chunk = std::max(how.chunk, most);
        how.logits = most;
    }
    if (!o.sessions.empty()) {
        const std::size_t most = std::ranges::max(o.sessions);
        how.context = 1;  // of the session that is not used
        how.chunk = std::max(how.chunk, most + 1);
        how.logits = how.states = most + 1;
    }
    const reuse_bench reuse{.document = o.reuse, .repetitions = o.repetitions, .json = o.json};
    if (o.reuse != 0) {
        how.context = std::max(how.context, reuse.document + reuse.question);
        how.prefix_cache = (std::size_t{64} << 20) + (reuse.document << 14);
    }
    const auto engine = make_engine(model->files, how);
    if (!engine) return engine.error();
    if (o.reuse != 0) return bench_reuse(model->files, **engine, reuse);
    if (!o.passes.empty()) return bench_passes(model->files, **engine, {o.passes, o.depth, o.repetitions, o.json});
    if (!o.sessions.empty()) {
        const sessions_work work{.prompt = o.depth == 0 ? 128 : o.depth,
                                 .tokens = std::max(o.generate_tokens, std::size_t{1}),
                                 .arriving = o.prompt_tokens,
                                 .how = o.scheduling};
        return bench_sessions(**engine, {o.sessions, work, o.repetitions, o.json});
    }
    const auto found = measure(*model, **engine, o);
    if (!found) return found.error();
    if (o.json) {
        print_json(**engine, o, *found);
    } else {
        print_table(*model, **engine, o, *found);
    }
    return {};
}

}  // namespace

void add_bench(CLI::App& app, action& chosen) {
    const auto o = std::make_shared<bench_options>();
    CLI::App* command = app.add_subcommand("bench", "Measure tokens a second, and the memory's speed");
    add_run_options(*command, o->run);
    command->get_option("--model")->required();
    command->add_option("--prompt-tokens,-p", o->prompt_tokens, "Tokens of the prompt; 0 leaves this out")->capture_default_str();
    command->add_option("--generate-tokens,-n", o->generate_tokens, "Tokens written; 0 leaves this out")->capture_default_str();
    command->add_option("--depth,-d", o->depth, "Tokens read before")->capture_default_str();
    command->add_option("--repetitions,-r", o->repetitions, "Measurements")->check(CLI::Range(1, 1000))->capture_default_str();
    command->add_option("--chunk", o->run.engine.chunk, "Prompt tokens read at once")
        ->check(CLI::Range(1, 65536))
        ->capture_default_str();
    command->add_option("--pass", o->passes, "Measure passes of so many tokens instead, such as 1,2,4,8, and their longest piece")
        ->delimiter(',')
        ->check(CLI::Range(1, 4096));
    command
        ->add_option("--sessions", o->sessions,
                     "Measure so many texts in the same passes instead, such as 1,4,8,16; each has read --depth tokens or 128")
        ->delimiter(',')
        ->check(CLI::Range(1, 1024));
    command->add_option("--prompt-rows", o->scheduling.prompt_rows, "With --sessions: prompt tokens in a pass in which others write")
        ->check(CLI::Range(1, 65536))
        ->capture_default_str();
    command->add_option("--longest-tick", o->scheduling.longest_tick, "With --sessions: seconds that such a pass should take at most; 0: any")
        ->check(CLI::Range(0.0, 1e6))
        ->capture_default_str();
    command->add_option("--reuse", o->reuse, "Measure a second question about a document of so many tokens instead, such as 8192")
        ->check(CLI::Range(1, 1 << 20));
    command
        ->add_option("--replay", o->replay.texts,
                     "Go on with these files' texts in place of what the model chooses (or their first -n tokens), with "
                     "drafts and without")
        ->type_name("FILE");
    command->add_option("--replay-prompt", o->replay.prompts, "The message that each text answers")->type_name("FILE")->needs("--replay");
    add_drafts_option(*command, o->run.engine);
    command->get_option("--drafts")->needs("--replay");
    constexpr const char* instead[] = {"--pass", "--sessions", "--reuse", "--replay"};
    for (const char* const one : instead)
        for (const char* const other : instead)
            if (one != other) command->get_option(one)->excludes(other);
    command->add_flag("--json", o->json, "Print one object");
    const CLI::Option* const said = command->get_option("--generate-tokens");
    command->callback([o, said, &chosen] { chosen = [o, said] { return run(std::move(*o), said->count() != 0); }; });
}

}  // namespace cli
