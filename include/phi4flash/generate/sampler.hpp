#pragma once
/// From logits to a token: greedy or random, with the usual filters, in the usual order (repetition penalty, temperature, top-k,
/// top-p, min-p; as Hugging Face's generate does it).
#include <phi4flash/core/memory.hpp>
#include <phi4flash/core/token_weight.hpp>

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <concepts>
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
[[nodiscard]] PHI4FLASH_BODY status check_sampling(const sampling_options& o);

/// Uniform numbers that are the same on every platform.   Source: splitmix64, public domain (S. Vigna).
class random_stream {
public:
    explicit random_stream(std::uint64_t seed, std::uint64_t skipped = 0) : state_(seed + skipped * step) {}
    [[nodiscard]] std::uint64_t next() {
        state_ += step;
        std::uint64_t z = state_;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    /// In [0, 1), 53 random bits.
    [[nodiscard]] double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

private:
    static constexpr std::uint64_t step = 0x9e3779b97f4a7c15u;
    std::uint64_t state_;
};

namespace detail {

/// How a sampler's memory is laid out: run without memory to count, and again to carve.
struct sampler_places {
    std::size_t ids_ = 0;
    std::span<std::int32_t> x_;          // [ids] ranks, then weights
    std::span<std::int32_t> highest_;    // rank of each block
    std::span<std::uint64_t> sums_;      // of the candidates' weights in each block
    std::span<std::uint64_t> barred_;    // a bit for each id that is not allowed
    std::span<std::uint64_t> seen_;      // and for each of the text; empty without a penalty

    constexpr void lay_out(arena& memory, const sampling_options& options, std::size_t ids) {
        const std::size_t blocks = (ids + choosing_block - 1) / choosing_block;
        const std::size_t words = blocks * (choosing_block / 64);
        ids_ = ids;
        const auto take = [&]<class T>(std::span<T>& out, std::size_t count) {
            T* const place = memory.take<T>(count);
            if (place != nullptr) out = {place, count};
        };
        take(x_, ids);
        take(highest_, blocks);
        take(sums_, blocks);
        take(barred_, words);
        if (options.repetition_penalty != 1.0f) take(seen_, words);
    }
};

}  // namespace detail

/// Chooses tokens for one text. Ids that are not `allowed` are never chosen. Takes one block of memory when it is made and none afterwards;
/// for one thread at a time.
///
/// How: a pass ranks all logits, one weighs them, and a token is drawn from all by its weight. Where it is not among the likeliest that top_p
/// keeps, which a pass over the weights says, neither is any token that is less likely: those are left out and another is drawn. A token that
/// is kept is then chosen as often as from the kept ones alone, and nothing is sorted. Source: Rejection sampling, as in FlashInfer
/// (arXiv:2501.01005).   Weights are integers (core/token_weight.hpp): two tokens whose probabilities differ by less than one in 16,000 may
/// count as equally likely, and one that is 2^-30 times as likely as the likeliest is never chosen.
class sampler : detail::moving_places<detail::sampler_places> {
public:
    /// Bytes that a sampler for so many ids takes. @since 0.2
    [[nodiscard]] static constexpr std::size_t bytes(const sampling_options& options, std::size_t ids) {
        detail::sampler_places places;
        arena counting;
        places.lay_out(counting, options, ids);
        return counting.bytes();
    }

    /// `allowed(id)` says whether an id of [0, ids) may be chosen: not those without a string, nor rows that only pad the vocabulary. With the
    /// kernels of any table the same tokens are chosen, only faster. Errors: invalid_argument where an option is out of range or nothing is
    /// allowed; out_of_memory.
    template <class Allowed>
        requires std::predicate<Allowed&, std::size_t>
    static result<sampler> create(const sampling_options& options, std::size_t ids, Allowed&& allowed,
                                  const choosing_kernels& kernels = plain_choosing) {
        if (const status ok = check_sampling(options); !ok) return ok.error();
        auto block = memory_block::allocate(bytes(options, ids), "sampler");
        if (!block) return block.error();
        sampler s;
        s.own_ = std::move(*block);
        s.kernels_ = &kernels;
        s.options_ = options;
        s.random_ = random_stream(options.seed);
        arena carving(s.own_.bytes().data());
        s.lay_out(carving, options, ids);
        std::fill(s.barred_.begin(), s.barred_.end(), 0u);
        std::fill(s.seen_.begin(), s.seen_.end(), 0u);
        s.first_allowed_ = ids;
        for (std::size_t id = 0; id < ids; ++id) {
            if (!allowed(id)) {
                s.barred_[id / 64] |= std::uint64_t{1} << id % 64;
            } else if (s.first_allowed_ == ids) {
                s.first_allowed_ = id;
            }
        }
        if (s.first_allowed_ == ids)
            return error::format(errc::invalid_argument, "no token may be chosen: want at least one of the %zu ids allowed", ids);
        return s;
    }

    /// The same, as a list.
    static result<sampler> create(const sampling_options& options, const std::vector<bool>& allowed,
                                  const choosing_kernels& kernels = plain_choosing) {
        return create(options, allowed.size(), [&](std::size_t id) { return static_cast<bool>(allowed[id]); }, kernels);
    }

    /// The next token. Shape: logits [at least as many as there are ids]. Always an allowed id, whatever the logits are: -infinity and NaN
    /// are not chosen, +infinity is chosen before anything else, and where no allowed logit is left the lowest allowed id is returned.
    /// That is how a host masks and forces ids. `step` and `prefill` never hand out logits that are not finite. The n-th call has random
    /// numbers of its own, so that logits which differ by rounding change one choice at most as often as they differ.
    [[nodiscard]] std::int32_t choose(std::span<const float> logits);

    /// Remembers a token of the text, for the repetition penalty.
    void accept(std::int32_t token) {
        if (seen_.empty() || token < 0 || static_cast<std::size_t>(token) >= ids_) return;
        seen_[static_cast<std::size_t>(token) / 64] |= std::uint64_t{1} << token % 64;
    }

    /// Begins another text. The next choice has the random numbers that the `place`-th call has, counted from 0. @since 0.2
    void restart(std::uint64_t place = 0) {
        std::fill(seen_.begin(), seen_.end(), 0u);
        random_ = random_stream(options_.seed, place);
    }

private:
    static constexpr std::size_t words_a_block = choosing_block / 64;

    /// Tokens [begin, end) and their ranks, which become weights.
    struct block {
        std::size_t begin;
        std::size_t count;
        std::int32_t* data;
    };
    /// Tokens that a draw may give: those before `split` that weigh at least `least`, and those from there on that weigh more.
    struct candidates {
        std::int32_t least;
        std::size_t split;
        std::uint64_t sum = 0;  ///< of their weights; block by block in sums_
        [[nodiscard]] std::int32_t least_at(std::size_t id) const { return id < split ? least : least + 1; }
    };

    sampler() = default;

    [[nodiscard]] std::size_t blocks() const { return (n_ + choosing_block - 1) / choosing_block; }
    [[nodiscard]] block at(std::size_t b) const {
        const std::size_t begin = b * choosing_block;
        return {begin, (std::min)(choosing_block, n_ - begin), x_.data() + begin};
    }

    /// Ranks all logits, and returns the highest rank.
    std::int32_t read(std::span<const float> logits);

    static void bar(std::uint64_t ids, const block& b, std::size_t first);

    void penalize(std::uint64_t ids, const block& b, std::size_t first) const;

    /// The lowest id of that rank, which some id has.
    [[nodiscard]] std::int32_t first_of(std::int32_t rank) const {
        const block b = at(static_cast<std::size_t>(std::find(highest_.data(), highest_.data() + blocks(), rank) - highest_.data()));
        return static_cast<std::int32_t>(std::find(b.data, b.data + b.count, rank) - x_.data());
    }

    std::int32_t draw(std::int32_t highest, random_stream& draws);

    /// Weights in place of the ranks, and their sum.
    std::uint64_t weigh(std::int32_t least, std::int32_t highest);

    /// Sums of the weights of candidates. A block that had none has none of fewer.
    void add_up(candidates& of);

    /// The candidate in which `share` of all their weight, in order of id, ends.
    [[nodiscard]] std::size_t drawn(const candidates& from, double share) const;

    /// The lowest rank among the top_k highest, after dropping, of those that have it, the highest ids that are too many.
    std::int32_t keep_top_k(std::int32_t highest);

    [[nodiscard]] std::size_t count_ranks(std::int32_t least) const;

    memory_block own_;
    const choosing_kernels* kernels_ = &plain_choosing;
    sampling_options options_;
    random_stream random_{0};
    std::size_t n_ = 0;                  // of them that have a logit now
    std::size_t first_allowed_ = 0;
};

#if PHI4FLASH_BODIES
PHI4FLASH_BODY status check_sampling(const sampling_options& o) {
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

PHI4FLASH_BODY std::int32_t sampler::choose(std::span<const float> logits) {
    random_stream draws(options_.temperature == 0.0f ? 0 : random_.next());
    const std::int32_t highest = read(logits.first((std::min)(logits.size(), ids_)));
    if (highest == rank_of_none) return static_cast<std::int32_t>(first_allowed_);
    if (options_.temperature == 0.0f || highest == rank_of_infinity) return first_of(highest);
    return draw(highest, draws);
}

PHI4FLASH_BODY std::int32_t sampler::read(std::span<const float> logits) {
    n_ = logits.size();
    std::int32_t highest = rank_of_none;
    for (std::size_t i = 0; i < blocks(); ++i) {
        const block b = at(i);
        kernels_->rank(logits.data() + b.begin, b.count, b.data);
        const std::size_t words = (b.count + 63) / 64;
        for (std::size_t w = 0; !seen_.empty() && w < words; ++w) penalize(seen_[i * words_a_block + w], b, 64 * w);
        for (std::size_t w = 0; w < words; ++w) bar(barred_[i * words_a_block + w], b, 64 * w);
        highest_[i] = kernels_->highest(b.data, b.count);
        highest = (std::max)(highest, highest_[i]);
    }
    return highest;
}

PHI4FLASH_BODY void sampler::bar(std::uint64_t ids, const block& b, std::size_t first) {
    for (; ids != 0; ids &= ids - 1) {
        const std::size_t i = first + static_cast<std::size_t>(std::countr_zero(ids));
        if (i < b.count) b.data[i] = rank_of_none;
    }
}

PHI4FLASH_BODY void sampler::penalize(std::uint64_t ids, const block& b, std::size_t first) const {
    for (; ids != 0; ids &= ids - 1) {
        const std::size_t i = first + static_cast<std::size_t>(std::countr_zero(ids));
        if (i >= b.count || b.data[i] == rank_of_none || b.data[i] == rank_of_infinity) continue;
        const float logit = logit_of(b.data[i]);
        const float score = logit > 0.0f ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
        b.data[i] = rank_of(std::clamp(score, -1e38f, 1e38f));
    }
}

PHI4FLASH_BODY std::int32_t sampler::draw(std::int32_t highest, random_stream& draws) {
    const std::uint64_t all = weigh(options_.top_k == 0 ? rank_of_none : keep_top_k(highest), highest);
    candidates from{1, n_, all};
    // Relative to the likeliest; what top_p keeps is counted among all.
    if (options_.min_p > 0.0f) {
        from.least = std::max<std::int32_t>(1, static_cast<std::int32_t>(std::ceil(static_cast<double>(options_.min_p) * highest_weight)));
        add_up(from);
    }
    while (true) {
        const std::size_t id = drawn(from, draws.uniform());
        const std::int32_t token = static_cast<std::int32_t>(id);
        if (options_.top_p >= 1.0f) return token;
        // Those that come before it: likelier ones, and lower ids that are as likely.
        from.least = x_[id];
        from.split = id;
        add_up(from);
        if (static_cast<double>(from.sum) < static_cast<double>(options_.top_p) * static_cast<double>(all)) return token;
    }
}

PHI4FLASH_BODY std::uint64_t sampler::weigh(std::int32_t least, std::int32_t highest) {
    const float top = logit_of(highest);
    const float scale = weight_scale((std::max)(options_.temperature, FLT_MIN));
    std::uint64_t all = 0;
    for (std::size_t i = 0; i < blocks(); ++i) {
        // A block without weight is never looked at again.
        const bool any = highest_[i] >= least && weight_of(highest_[i], top, scale) != 0;
        const block b = at(i);
        sums_[i] = any ? kernels_->weigh(b.data, b.count, least, top, scale) : 0;
        all += sums_[i];
    }
    return all;
}

PHI4FLASH_BODY void sampler::add_up(candidates& of) {
    of.sum = 0;
    for (std::size_t i = 0; i < blocks(); ++i) {
        if (sums_[i] == 0) continue;
        const block b = at(i);
        const std::size_t below = std::clamp(of.split, b.begin, b.begin + b.count) - b.begin;
        sums_[i] = below == 0 ? 0 : kernels_->sum(b.data, below, of.least);
        if (below != b.count) sums_[i] += kernels_->sum(b.data + below, b.count - below, of.least + 1);
        of.sum += sums_[i];
    }
}

PHI4FLASH_BODY std::size_t sampler::drawn(const candidates& from, double share) const {
    auto left = (std::min)(static_cast<std::uint64_t>(share * static_cast<double>(from.sum)), from.sum - 1);
    std::size_t i = 0;
    for (; left >= sums_[i]; ++i) left -= sums_[i];
    for (std::size_t id = i * choosing_block;; ++id) {
        const auto weight = x_[id] >= from.least_at(id) ? static_cast<std::uint64_t>(x_[id]) : 0u;
        if (left < weight) return id;
        left -= weight;
    }
}

PHI4FLASH_BODY std::int32_t sampler::keep_top_k(std::int32_t highest) {
    const std::size_t k = options_.top_k;
    std::int32_t least = rank_of_none + 1;
    std::size_t count = count_ranks(least);
    std::int32_t above = highest;  // too few are higher
    while (count > k && least < above) {
        const auto middle = static_cast<std::int32_t>(least + (static_cast<std::int64_t>(above) - least + 1) / 2);
        const std::size_t here = count_ranks(middle);
        if (here >= k) {
            least = middle;
            count = here;
        } else {
            above = middle - 1;
        }
    }
    for (std::size_t i = blocks(); count > k && i-- != 0;) {
        const block b = at(i);
        for (std::size_t j = highest_[i] < least ? 0 : b.count; count > k && j-- != 0;) {
            if (b.data[j] != least) continue;
            b.data[j] = rank_of_none;
            --count;
        }
    }
    return least;
}

PHI4FLASH_BODY std::size_t sampler::count_ranks(std::int32_t least) const {
    std::size_t count = 0;
    for (std::size_t i = 0; i < blocks(); ++i)
        if (highest_[i] >= least) count += kernels_->count(at(i).data, at(i).count, least);
    return count;
}
#endif

PHI4FLASH_END
