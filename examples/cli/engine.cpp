/// The one place where the model code is compiled: for the released shape, known at compile time, and for any other; with
/// K/V in bf16, f32 and int8.
#include "engine.hpp"
#include "timed_sessions.hpp"

#include <algorithm>
#include <array>
#include <chrono>

namespace cli {
namespace {

/// For the plan and for the workspace itself; kernels and threads, which take no memory, are added to the latter.
p4::workspace_options workspace_of(const engine_options& options) {
    const auto activations = options.activations == "f32" ? p4::activation_type::f32 : p4::activation_type::int8;
    const p4::workspace_options how{.chunk = options.chunk, .activations = activations, .states = options.states, .logits = options.logits};
    return options.drafts.at_once() == 0 ? how : p4::with_drafts(how, options.drafts.at_once());
}

/// Tokens that drafts are made from; 0: no drafts.
std::size_t remembered(const engine_options& options) {
    return options.drafts.at_once() == 0 ? 0 : std::max(options.context, options.remembered);
}

/// With the weights as these files have them.
template <class Kv>
p4::memory_plan plan_of(const p4::model_files& files, const engine_options& options, const plan_options& more) {
    const p4::workspace_options how = workspace_of(options);
    auto plan = p4::memory_plan::of<Kv>(files.config().shape, {.context = options.context,
                                                               .undo = more.undo,
                                                               .chunk = how.chunk,
                                                               .states = how.states,
                                                               .logits = how.logits,
                                                               .sessions = more.sessions,
                                                               .drafts = options.drafts.at_once(),
                                                               .remembered = remembered(options),
                                                               .cached_texts = more.cached_texts});
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
        const p4::memory_plan memory = plan_of<Kv>(files, options, {});
        std::unique_ptr<engine_of> made(new engine_of(std::move(*model), std::move(*pool), std::move(*past), memory, files));
        p4::workspace_options how = workspace_of(options);
        how.kernels = *kernels;
        how.threads = made->pool_;
        auto workspace = p4::workspace<Shape, Kv>::create(made->model_, how);
        if (!workspace) return workspace.error();
        made->workspace_.emplace(std::move(*workspace));
        if (const std::size_t tokens = remembered(options); tokens != 0) {
            auto drafter = p4::ngram_drafter::create(tokens);
            if (!drafter) return drafter.error();
            made->drafter_.emplace(std::move(*drafter));
            made->drafts_ = {.from = *made->drafter_,
                             .policy = options.drafts.how == draft_choice::kind::as_many_as_pay ? &made->policy_ : nullptr,
                             .most = options.drafts.most};
        }
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
        p4::generation_options with = options;
        with.drafts = drafts_;
        return p4::generate(model_, past_, *workspace_, text, prompt, with, take, tell);
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
    p4::result<replay_times> replay(std::span<const std::int32_t> prompt, std::span<const std::int32_t> text,
                                    const p4::sampling_options& sampling) override {
        auto chooser = p4::sampler::create(sampling, model_.shape().vocab(), [](std::size_t) { return true; }, workspace_->kernels().choosing);
        if (!chooser) return chooser.error();
        past_.reset();
        if (const auto read = p4::prefill(model_, past_, *workspace_, prompt); !read) return read.error();
        drafts_.from.read(prompt);
        drafts_.from.read(text.first(1));  // chosen from the prompt's logits
        replay_times times;
        std::size_t lone = 0;
        std::array<std::vector<double>, p4::max_drafts + 1> seconds;  // of passes, by how many drafts they read
        for (std::size_t at = 0; at + 1 < text.size();) {
            // In turn, so that a machine whose speed drifts does not favour one: read, and dropped.
            if (times.passes % 16 == 0) {
                const auto one = replay_pass(text.subspan(at), 0, *chooser, times, false);
                if (!one) return one.error();
                seconds[0].push_back(one->seconds);
                ++lone;
            }
            const auto pass = replay_pass(text.subspan(at), drafts_.most, *chooser, times, true);
            if (!pass) return pass.error();
            at += pass->tokens;
            times.tokens += pass->tokens;
            seconds[pass->drafts].push_back(pass->seconds);
            ++times.passes;
        }
        for (std::size_t n = 0; n < seconds.size(); ++n) {
            if (seconds[n].empty()) continue;
            std::ranges::sort(seconds[n]);
            const double median = seconds[n][seconds[n].size() / 2];
            if (n == 0) times.one = median;
            times.seconds += median * static_cast<double>(seconds[n].size() - (n == 0 ? lone : 0));
        }
        return times;
    }
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
    bool has_states(std::span<const std::int32_t> tokens) const override { return cache_ && cache_->saved_states_bytes(past_, tokens) != 0; }
    p4::status write_states(std::span<const std::int32_t> tokens, const std::function<p4::status(std::span<const std::byte>)>& put) override {
        if (!cache_) return p4::error::format(p4::errc::invalid_argument, "there is no prefix cache");
        return cache_->save_states(past_, tokens, weights(), put);
    }
    p4::status read_states(std::span<const std::byte> bytes) override { return p4::restore_states(past_, weights(), bytes); }
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
    struct replayed {
        std::size_t tokens;  ///< of the text that the pass wrote
        std::size_t drafts;  ///< that it read
        double seconds;
    };

    /// One pass over text[0] and drafts of what comes, what of them is right chosen and, if wanted, kept.
    p4::result<replayed> replay_pass(std::span<const std::int32_t> text, std::size_t most, p4::sampler& chooser,
                                     replay_times& times, bool keep) {
        const auto start = std::chrono::steady_clock::now();
        std::vector<p4::draft> drafts(text.size() > 2 ? std::min(most, text.size() - 2) : 0);
        if (drafts_.policy != nullptr) drafts.resize(drafts_.policy->ask(drafts.size()));
        drafts.resize(drafts_.from.propose(drafts));
        if (drafts_.policy != nullptr) drafts.resize(drafts_.policy->choose(drafts));
        std::vector<std::int32_t> tokens{text[0]};
        for (const p4::draft& d : drafts) tokens.push_back(d.token);
        const p4::reading<Shape, Kv> r{&past_, tokens, tokens.size(), tokens.size()};
        p4::pass<Shape, Kv> p;
        if (const p4::status ok = p.begin(model_, *workspace_, {&r, 1}); !ok) return ok.error();
        const auto walk = std::chrono::steady_clock::now();
        while (p.advance()) {}
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - walk).count();
        std::size_t n = 0;
        do {
            (void)chooser.choose({p.logits(0)[n], model_.shape().vocab()});
            ++n;
        } while (n < tokens.size() && tokens[n] == text[n]);
        if (keep) {
            if (drafts_.policy != nullptr) {
                drafts_.policy->took(drafts.size(), seconds);
                drafts_.policy->fared(drafts, n - 1);
            }
            times.drafted += drafts.size();
            times.accepted += n - 1;
            drafts_.from.read(text.subspan(1, n));
            if (const p4::status ok = p.commit(0, n); !ok) return ok.error();
        }
        return replayed{n, drafts.size(), std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()};
    }

    engine_of(p4::model<Shape>&& m, p4::thread_pool&& pool, p4::session<Shape, Kv>&& past, const p4::memory_plan& memory,
              const p4::model_files& files)
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
    std::optional<p4::ngram_drafter> drafter_;
    p4::draft_policy policy_;
    p4::draft_options drafts_;
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

p4::result<p4::memory_plan> plan_memory(const p4::model_files& files, const engine_options& options, const plan_options& more) {
    return with_types(files.config().shape, options.kv, [&]<p4::sambay_shape Shape, class Kv>() -> p4::result<p4::memory_plan> {
        const auto m = p4::model<Shape>::bind(files);  // whether it can be run at all
        if (!m) return m.error().in(p4::printable(files.path()).c_str());
        if (const p4::status ok = p4::session<Shape, Kv>::refusal({.context = options.context, .undo = more.undo}); !ok) return ok.error();
        if (const p4::status ok = p4::workspace<Shape, Kv>::refusal(workspace_of(options)); !ok) return ok.error();
        return plan_of<Kv>(files, options, more);
    });
}

}  // namespace cli
