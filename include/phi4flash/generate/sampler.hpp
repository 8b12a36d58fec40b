#pragma once
/// From logits to a token: greedy or random, with the usual filters, in the usual order (repetition penalty, temperature, top-k,
/// top-p, min-p; as Hugging Face's generate does it).
#include <phi4flash/core/number.hpp>
#include <phi4flash/core/result.hpp>

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

PHI4FLASH_BEGIN

/// How to choose. The defaults are the model card's.
struct sampling_options {
    float temperature = 0.6f;         ///< 0 means greedy: the highest logit, the lowest id among equals
    float top_p = 0.95f;              ///< keep the likeliest tokens until their probabilities sum to this; 1 keeps all
    float min_p = 0.0f;               ///< keep tokens at least this times as likely as the likeliest; 0 keeps all
    float repetition_penalty = 1.0f;  ///< divides positive, multiplies negative logits of tokens seen before; 1 changes nothing
    std::size_t top_k = 0;            ///< keep so many of the likeliest; 0 keeps all
    std::uint64_t seed = 0;           ///< the same seed gives the same tokens for the same logits, on any number of threads
};

/// Errors: invalid_argument, naming the option, want and have.
[[nodiscard]] inline status check_sampling(const sampling_options& o) {
    const auto outside = [](const char* name, float have, const char* want) {
        return status(error::format(errc::invalid_argument, "%s: want %s, have %g", name, want, static_cast<double>(have)));
    };
    if (!is_finite(o.temperature) || o.temperature < 0.0f || o.temperature > 100.0f)
        return outside("temperature", o.temperature, "0 to 100");
    if (!is_finite(o.top_p) || o.top_p <= 0.0f || o.top_p > 1.0f) return outside("top_p", o.top_p, "more than 0, at most 1");
    if (!is_finite(o.min_p) || o.min_p < 0.0f || o.min_p > 1.0f) return outside("min_p", o.min_p, "0 to 1");
    if (!is_finite(o.repetition_penalty) || o.repetition_penalty <= 0.0f || o.repetition_penalty > 100.0f)
        return outside("repetition_penalty", o.repetition_penalty, "more than 0, at most 100");
    return {};
}

/// Uniform numbers that are the same on every platform.   Source: splitmix64, public domain (S. Vigna).
class random_stream {
public:
    explicit random_stream(std::uint64_t seed) : state_(seed) {}
    [[nodiscard]] std::uint64_t next() {
        state_ += 0x9e3779b97f4a7c15u;
        std::uint64_t z = state_;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    /// In [0, 1), 53 random bits.
    [[nodiscard]] double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

private:
    std::uint64_t state_;
};

/// Chooses tokens for one text. Ids that are not `allowed` are never chosen. Owns buffers of the vocabulary's size; for one
/// thread at a time.
class sampler {
public:
    /// `allowed[id]` says whether an id may be chosen: false for ids without a string, and for rows that only pad the vocabulary.
    /// Errors: invalid_argument where an option is out of range or nothing is allowed.
    static result<sampler> create(const sampling_options& options, std::vector<bool> allowed) {
        if (const status ok = check_sampling(options); !ok) return ok.error();
        if (std::ranges::find(allowed, true) == allowed.end())
            return error::format(errc::invalid_argument, "no token may be chosen: want at least one of the %zu ids allowed", allowed.size());
        return sampler(options, std::move(allowed));
    }

    /// The next token. Shape: logits [at least as many as `allowed`]. Always an allowed id, whatever the logits are: -infinity and NaN
    /// are not chosen, +infinity is chosen before anything else, and where no allowed logit is left the lowest allowed id is returned.
    /// That is how a host masks and forces ids. `step` and `prefill` never hand out logits that are not finite.
    [[nodiscard]] std::int32_t choose(std::span<const float> logits) {
        candidates_.clear();
        const std::size_t n = (std::min)(logits.size(), allowed_.size());
        for (std::size_t id = 0; id < n; ++id) {
            if (!allowed_[id]) continue;
            if (is_finite(logits[id])) {
                candidates_.push_back({logits[id], static_cast<std::int32_t>(id)});
            } else if (std::bit_cast<std::uint32_t>(logits[id]) == 0x7f800000u) {  // +infinity
                return static_cast<std::int32_t>(id);
            }
        }
        if (candidates_.empty()) return first_allowed();
        penalize();
        const candidate best = *std::ranges::max_element(candidates_, comes_after);
        return options_.temperature == 0.0f ? best.id : draw(best);
    }

    /// Remembers a token of the text, for the repetition penalty.
    void accept(std::int32_t token) {
        if (token >= 0 && static_cast<std::size_t>(token) < seen_.size()) seen_[static_cast<std::size_t>(token)] = true;
    }

    /// Begins another text, with the same random numbers.
    void restart() {
        std::fill(seen_.begin(), seen_.end(), false);
        random_ = random_stream(options_.seed);
    }

private:
    struct candidate {
        float score;  // a logit, later a probability up to a common factor
        std::int32_t id;
    };
    /// A strict order: by score, then the lower id first, so that equal scores cannot make results depend on the algorithm.
    static bool comes_after(const candidate& a, const candidate& b) { return a.score < b.score || (a.score == b.score && a.id > b.id); }
    static bool comes_before(const candidate& a, const candidate& b) { return comes_after(b, a); }

    sampler(const sampling_options& options, std::vector<bool> allowed)
        : options_(options), allowed_(std::move(allowed)), random_(options.seed) {
        candidates_.reserve(allowed_.size());
        if (options.repetition_penalty != 1.0f) seen_.resize(allowed_.size());
    }

    [[nodiscard]] std::int32_t first_allowed() const {
        return static_cast<std::int32_t>(std::ranges::find(allowed_, true) - allowed_.begin());
    }

    void penalize() {
        if (seen_.empty()) return;
        for (candidate& c : candidates_) {
            if (!seen_[static_cast<std::size_t>(c.id)]) continue;
            const float score = c.score > 0.0f ? c.score / options_.repetition_penalty : c.score * options_.repetition_penalty;
            c.score = std::clamp(score, -1e38f, 1e38f);
        }
    }

    /// Every score is finite here. No step may make it NaN, even where -ffast-math divides by multiplying with an inverse: sorting reads
    /// out of bounds then.
    std::int32_t draw(const candidate& best) {
        const float temperature = (std::max)(options_.temperature, FLT_MIN);  // whose inverse is finite
        if (options_.top_k != 0 && options_.top_k < candidates_.size()) {
            std::ranges::nth_element(candidates_, candidates_.begin() + static_cast<std::ptrdiff_t>(options_.top_k), comes_before);
            candidates_.resize(options_.top_k);
        }
        double total = 0.0;
        for (candidate& c : candidates_) {
            c.score = std::exp((std::max)((c.score - best.score) / temperature, -1000.0f));
            total += static_cast<double>(c.score);
        }
        keep_top_p(total);
        // Relative to the likeliest, whose score is 1.
        if (options_.min_p > 0.0f) std::erase_if(candidates_, [this](const candidate& c) { return c.score < options_.min_p; });
        // Summed in order of id where nothing was sorted and by likelihood where it was: fixed either way.
        total = 0.0;
        for (const candidate& c : candidates_) total += static_cast<double>(c.score);
        double left = random_.uniform() * total;
        for (const candidate& c : candidates_) {
            left -= static_cast<double>(c.score);
            if (left < 0.0) return c.id;
        }
        return candidates_.empty() ? best.id : candidates_.back().id;
    }

    /// Keeps the likeliest tokens, the one that crosses the threshold included. A heap, because a few tokens usually suffice.
    void keep_top_p(double total) {
        if (options_.top_p >= 1.0f) {
            std::ranges::sort(candidates_, comes_before);
            return;
        }
        std::ranges::make_heap(candidates_, comes_after);
        double kept = 0.0;
        auto end = candidates_.end();
        while (end != candidates_.begin() && kept < static_cast<double>(options_.top_p) * total) {
            std::pop_heap(candidates_.begin(), end, comes_after);
            --end;
            kept += static_cast<double>(end->score);
        }
        candidates_.erase(candidates_.begin(), end);
        std::ranges::reverse(candidates_);
    }

    sampling_options options_;
    std::vector<bool> allowed_;
    std::vector<bool> seen_;
    std::vector<candidate> candidates_;
    random_stream random_;
};

PHI4FLASH_END
