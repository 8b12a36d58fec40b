#pragma once
/// A model that runs, whatever its shape and K/V type are: the subcommands see this interface, and the templates behind it are
/// compiled once, in engine.cpp.
#include "library.hpp"

#include <functional>
#include <memory>

namespace cli {

/// --drafts: how many drafts of the text so far are read with each token.
struct draft_choice {
    enum class kind { off, as_many_as_pay, up_to } how = kind::off;
    std::size_t most = p4::draft_options{}.most;  ///< at once
    [[nodiscard]] std::size_t at_once() const { return how == kind::off ? 0 : most; }
};

/// How to run a model.
struct engine_options {
    std::string kv = "bf16";           ///< bf16, f32 or int8
    std::string activations = "int8";  ///< int8 or f32: what packed weights are multiplied with
    std::string target;                ///< SIMD target; empty: the best
    std::size_t threads = 0;           ///< 0: p4::default_concurrency()
    std::size_t context = 0;           ///< tokens
    std::size_t chunk = p4::workspace_options{}.chunk;  ///< prompt tokens read at once
    std::size_t logits = 1;            ///< rows of logits that a pass can have
    std::size_t states = 1;            ///< Mamba states that a pass can keep
    draft_choice drafts;               ///< none, unless a subcommand says so
    std::size_t remembered = 0;        ///< tokens that drafts are made from, of this text and those before it; at least the context
    std::size_t prefix_cache = 0;      ///< bytes for what has been read and is kept; 0: none
    bool prefix_cache_may_miss = false;  ///< none, too, where that is too little for this model
};

/// How long a pass and its pieces took.
struct pass_times {
    double seconds = 0.0;
    double longest_piece = 0.0;
    std::size_t pieces = 0;
};

/// Texts that are written in the same passes.
struct sessions_work {
    std::size_t sessions = 1;
    std::size_t prompt = 128;    ///< tokens that each has read before
    std::size_t tokens = 32;     ///< that each writes
    std::size_t arriving = 512;  ///< tokens of a prompt that comes while they write; 0: none
    p4::scheduler_options how;
};

/// What came of them.
struct sessions_times {
    double prompt_seconds = 0.0;   ///< for the prompts of all
    double seconds = 0.0;          ///< in which all wrote
    std::size_t tokens = 0;        ///< that they wrote together
    double longest_wait = 0.0;     ///< for a token
    double arriving_seconds = 0.0; ///< until the first token of the prompt that came
    double longest_wait_then = 0.0;
    double wait_then = 0.0;        ///< the median
};

/// A text that is forced on the model: tokens a second as if it had written it.
struct replay_times {
    std::size_t tokens = 0;
    std::size_t passes = 0;
    std::size_t drafted = 0;
    std::size_t accepted = 0;
    double seconds = 0.0;      ///< of all passes, with choosing and drafting, each as long as the median of those with as many drafts
    double one = 0.0;          ///< the median of a pass without drafts, some of them measured in turn at the same places
    [[nodiscard]] double speed() const { return static_cast<double>(tokens) / seconds; }
};

/// One model, one session, one workspace, one pool of threads. The files must outlive it.
class engine {
public:
    using sink = std::function<bool(const p4::generation_event&)>;
    using on_prompt = std::function<void(std::size_t read, std::size_t total)>;

    virtual ~engine() = default;

    virtual p4::result<p4::generation_summary> generate(const p4::tokenizer* text, std::span<const std::int32_t> prompt,
                                                        const p4::generation_options& options, const sink& take,
                                                        const on_prompt& tell) = 0;
    virtual p4::result<std::span<const float>> prefill(std::span<const std::int32_t> tokens) = 0;
    virtual p4::result<std::span<const float>> step(std::int32_t token) = 0;
    virtual p4::status logits_all(std::span<const std::int32_t> tokens, p4::rows_view<float> out) = 0;
    /// A pass over these tokens with logits after the last `wanted` of them; the session stays where it is.
    virtual p4::result<pass_times> time_pass(std::span<const std::int32_t> tokens, std::size_t wanted) = 0;
    /// Texts in sessions of their own, in the same workspace. Errors: those of session::create and scheduler::add.
    virtual p4::result<sessions_times> time_sessions(const sessions_work& work) = 0;
    /// Reads the prompt and goes on with `text` in place of what the model would choose; chooses all the same, for the time that it takes.
    virtual p4::result<replay_times> replay(std::span<const std::int32_t> prompt, std::span<const std::int32_t> text,
                                            const p4::sampling_options& sampling) = 0;
    virtual void reset() = 0;
    /// Keeps a copy of the session, and goes back to it. Errors: out_of_memory; invalid_argument (nothing was saved).
    virtual p4::status save() = 0;
    virtual p4::status restore() = 0;
    /// The session, to be saved outside, and back from there: save_snapshot and restore_snapshot.
    virtual p4::status write_snapshot(const std::function<p4::status(std::span<const std::byte>)>& put) = 0;
    virtual p4::status read_snapshot(std::span<const std::byte> bytes) = 0;
    /// Whether the session after these tokens, all that it has read, is in the prefix cache from now on, or is the beginning of a text.
    virtual bool keep(std::span<const std::int32_t> tokens) = 0;
    /// p4::go_back, with the prefix cache where there is one.
    virtual p4::result<std::size_t> go_back(std::span<const std::int32_t> tokens) = 0;
    /// A new session instead of this one, which has touched none of its memory yet. Errors: out_of_memory.
    virtual p4::status renew() = 0;

    [[nodiscard]] virtual std::size_t position() const = 0;
    [[nodiscard]] virtual std::size_t context() const = 0;
    [[nodiscard]] virtual const p4::memory_plan& memory() const = 0;
    [[nodiscard]] virtual const p4::kernel_table& kernels() const = 0;
    [[nodiscard]] virtual p4::executor_ref threads() = 0;

    /// The states after these tokens, which the session has read: whether the prefix cache has them; saved from there, and back into the session.
    virtual bool has_states(std::span<const std::int32_t> tokens) const = 0;
    virtual p4::status write_states(std::span<const std::int32_t> tokens, const std::function<p4::status(std::span<const std::byte>)>& put) = 0;
    virtual p4::status read_states(std::span<const std::byte> bytes) = 0;
};

/// Errors: those of model::bind, naming the path; of session, workspace, kernels_named and thread_pool.
p4::result<std::unique_ptr<engine>> make_engine(const p4::model_files& files, const engine_options& options);

/// What is planned for beside an engine's own options: see p4::memory_options.
struct plan_options {
    std::size_t undo = 0;
    std::size_t sessions = 1;
    std::size_t cached_texts = 0;
};

/// What make_engine would take for that. Errors: those of model::bind, and of session and workspace.
p4::result<p4::memory_plan> plan_memory(const p4::model_files& files, const engine_options& options, const plan_options& more = {});

}  // namespace cli
