/// The one place where the model code is compiled: for the released shape, known at compile time, and for any other; with
/// K/V in bf16, f32 and int8.
#include "engine.hpp"
#include "timed_sessions.hpp"

#include <chrono>

namespace cli {
namespace {

/// For the plan and for the workspace itself; kernels and threads, which take no memory, are added to the latter.
p4::workspace_options workspace_of(const engine_options& options) {
    const auto activations = options.activations == "f32" ? p4::activation_type::f32 : p4::activation_type::int8;
    return {.chunk = options.chunk, .activations = activations, .states = options.states, .logits = options.logits};
}

/// With the weights as these files have them.
template <class Kv>
p4::memory_plan plan_of(const p4::model_files& files, const engine_options& options, std::size_t undo, std::size_t sessions) {
    auto plan = p4::memory_plan::of<Kv>(
        files.config().shape,
        {.context = options.context, .undo = undo, .chunk = options.chunk, .states = options.states, .logits = options.logits, .sessions = sessions});
    plan.weights = files.bytes();
    return plan;
}

template <p4::sambay_shape Shape, class Kv>
class engine_of final : public engine {
public:
    static p4::result<std::unique_ptr<engine>> make(const p4::model_files& files, const engine_options& options) {
        const auto kernels = p4::kernels_named(options.target);
        if (!kernels) return kernels.error();
        auto model = p4::model<Shape>::bind(files);
        if (!model) return model.error().in(p4::printable(files.path()).c_str());
        auto pool = p4::thread_pool::create(options.threads);
        if (!pool) return pool.error();
        auto past = p4::session<Shape, Kv>::create(*model, options.context);
        if (!past) return past.error();
        const p4::memory_plan memory = plan_of<Kv>(files, options, 0, 1);
        std::unique_ptr<engine_of> made(new engine_of(std::move(*model), std::move(*pool), std::move(*past), memory, files));
        p4::workspace_options how = workspace_of(options);
        how.kernels = *kernels;
        how.threads = made->pool_;
        auto workspace = p4::workspace<Shape, Kv>::create(made->model_, how);
        if (!workspace) return workspace.error();
        made->workspace_.emplace(std::move(*workspace));
        if (options.prefix_cache != 0) {
            auto cache = p4::prefix_cache<Shape, Kv>::create(made->model_, options.prefix_cache);
            if (!cache && !options.prefix_cache_may_miss) return cache.error();
            if (cache) made->cache_.emplace(std::move(*cache));
        }
        return std::unique_ptr<engine>(std::move(made));
    }

    p4::result<p4::generation_summary> generate(const p4::tokenizer* text, std::span<const std::int32_t> prompt,
                                                const p4::generation_options& options, const sink& take,
                                                const on_prompt& tell) override {
        return p4::generate(model_, past_, *workspace_, text, prompt, options, take, tell);
    }
    p4::result<std::span<const float>> prefill(std::span<const std::int32_t> tokens) override {
        return p4::prefill(model_, past_, *workspace_, tokens);
    }
    p4::result<std::span<const float>> step(std::int32_t token) override { return p4::step(model_, past_, *workspace_, token); }
    p4::status logits_all(std::span<const std::int32_t> tokens, p4::rows_view<float> out) override {
        return p4::logits_all(model_, past_, *workspace_, tokens, out);
    }
    p4::result<pass_times> time_pass(std::span<const std::int32_t> tokens, std::size_t wanted) override {
        using clock = std::chrono::steady_clock;
        const p4::reading<Shape, Kv> r{&past_, tokens, wanted};
        p4::pass<Shape, Kv> p;
        if (const p4::status ok = p.begin(model_, *workspace_, {&r, 1}); !ok) return ok.error();
        pass_times times;
        for (bool more = true; more; ++times.pieces) {
            const auto start = clock::now();
            more = p.advance();
            const double piece = std::chrono::duration<double>(clock::now() - start).count();
            times.seconds += piece;
            times.longest_piece = std::max(times.longest_piece, piece);
        }
        if (const p4::status ok = p.check_logits(0); !ok) return ok.error();
        return times;
    }
    p4::result<sessions_times> time_sessions(const sessions_work& work) override { return cli::time_sessions(model_, *workspace_, work); }
    void reset() override { past_.reset(); }
    p4::status save() override {
        auto copy = p4::session<Shape, Kv>::create(model_, past_.context());
        if (!copy) return copy.error();
        if (const p4::status ok = copy->copy_from(past_); !ok) return ok;
        saved_.emplace(std::move(*copy));
        return {};
    }
    p4::status restore() override {
        return saved_ ? past_.copy_from(*saved_) : p4::error::format(p4::errc::invalid_argument, "no session was saved");
    }

    p4::status write_snapshot(const std::function<p4::status(std::span<const std::byte>)>& put) override {
        return p4::save_snapshot(past_, weights(), put, 0);
    }
    p4::status read_snapshot(std::span<const std::byte> bytes) override { return p4::restore_snapshot(past_, weights(), bytes); }
    bool keep(std::span<const std::int32_t> tokens) override {
        if (tokens.empty() || past_.position() != tokens.size()) return tokens.empty() && past_.position() == 0;
        return cache_ && cache_->keep(past_, tokens);
    }
    p4::result<std::size_t> go_back(std::span<const std::int32_t> tokens) override { return p4::go_back(past_, tokens, cache_ ? &*cache_ : nullptr); }
    p4::status renew() override {
        auto fresh = p4::session<Shape, Kv>::create(model_, {.context = past_.context(), .undo = past_.undo()});
        if (!fresh) return fresh.error();
        past_ = std::move(*fresh);
        return {};
    }

    std::size_t position() const override { return past_.position(); }
    std::size_t context() const override { return past_.context(); }
    const p4::memory_plan& memory() const override { return memory_; }
    const p4::kernel_table& kernels() const override { return workspace_->kernels(); }
    p4::executor_ref threads() override { return pool_; }

private:
    engine_of(p4::model<Shape>&& m, p4::thread_pool&& pool, p4::session<Shape, Kv>&& past, const p4::memory_plan& memory, const p4::model_files& files)
        : model_(std::move(m)), pool_(std::move(pool)), past_(std::move(past)), memory_(memory), files_(files) {}

    p4::weights_fingerprint weights() {
        if (!weights_) weights_ = p4::fingerprint_of(files_, model_);
        return *weights_;
    }

    p4::model<Shape> model_;
    p4::thread_pool pool_;
    p4::session<Shape, Kv> past_;
    std::optional<p4::session<Shape, Kv>> saved_;
    std::optional<p4::workspace<Shape, Kv>> workspace_;
    std::optional<p4::prefix_cache<Shape, Kv>> cache_;
    p4::memory_plan memory_;
    const p4::model_files& files_;
    std::optional<p4::weights_fingerprint> weights_;
};

/// Calls `visit.operator()<Shape, Kv>()` with types that fit. The released shape is compiled with the usual K/V type alone: each pair
/// is a copy of the whole model, and extents known at compile time make little difference to kernels.
template <class Visit>
auto with_types(const p4::sambay_shape& shape, const std::string& kv, Visit&& visit) {
    if (kv == "f32") return visit.template operator()<p4::any_sambay, float>();
    if (kv == "int8") return visit.template operator()<p4::any_sambay, p4::kv_int8>();
    return shape == p4::phi4_mini_flash ? visit.template operator()<p4::phi4_mini_flash, p4::bf16>()
                                        : visit.template operator()<p4::any_sambay, p4::bf16>();
}

}  // namespace

p4::result<std::unique_ptr<engine>> make_engine(const p4::model_files& files, const engine_options& options) {
    return with_types(files.config().shape, options.kv,
                      [&]<p4::sambay_shape Shape, class Kv>() { return engine_of<Shape, Kv>::make(files, options); });
}

p4::result<p4::memory_plan> plan_memory(const p4::model_files& files, const engine_options& options, std::size_t undo, std::size_t sessions) {
    return with_types(files.config().shape, options.kv, [&]<p4::sambay_shape Shape, class Kv>() -> p4::result<p4::memory_plan> {
        const auto m = p4::model<Shape>::bind(files);  // whether it can be run at all
        if (!m) return m.error().in(p4::printable(files.path()).c_str());
        if (const p4::status ok = p4::session<Shape, Kv>::refusal({.context = options.context, .undo = undo}); !ok) return ok.error();
        if (const p4::status ok = p4::workspace<Shape, Kv>::refusal(workspace_of(options)); !ok) return ok.error();
        return plan_of<Kv>(files, options, undo, sessions);
    });
}

}  // namespace cli
