#pragma once
/// What a model loses by quantization: distances between two models' predictions, and between two models' matrices. Plain code in
/// f64; nothing else in the library needs it.
#include <phi4flash/core/matrix.hpp>
#include <phi4flash/core/out_of_memory.hpp>
#include <phi4flash/kernels/kernel_table.hpp>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

PHI4FLASH_BEGIN

/// Two predictions of the same next token. Nats.
struct prediction_difference {
    double divergence = 0.0;      ///< KL(reference || candidate) = sum_i p_i (log p_i - log q_i)
    double reference_loss = 0.0;  ///< -log p of the token that came
    double loss = 0.0;            ///< -log q of the token that came
    bool same_top = false;        ///< the likeliest token is the same one
};

namespace detail {

/// Where a softmax stands: log p_i = x_i - log_sum. The likeliest of equals is the first.
struct softmax_summary {
    double log_sum = 0.0;
    std::size_t top = 0;

    explicit softmax_summary(std::span<const float> x) {
        for (std::size_t i = 1; i < x.size(); ++i) top = x[i] > x[top] ? i : top;
        const auto highest = static_cast<double>(x[top]);
        double sum = 0.0;
        for (const float logit : x) sum += std::exp(static_cast<double>(logit) - highest);
        log_sum = highest + std::log(sum);
    }
    [[nodiscard]] double log_probability(float logit) const { return static_cast<double>(logit) - log_sum; }
};

}  // namespace detail

/// Compares two rows of logits.   Shape: both [vocab], at least one; `next` < vocab is the token that came. Logits that are not finite
/// give numbers that are not finite.
[[nodiscard]] PHI4FLASH_BODY prediction_difference compare_predictions(std::span<const float> reference, std::span<const float> candidate,
                                                                       std::size_t next);

/// Means over many predictions. Add in a fixed order for the same bits.
class prediction_tally {
public:
    /// Errors: out_of_memory; it was not added then.
    [[nodiscard]] status add(const prediction_difference& d);

    [[nodiscard]] std::size_t count() const { return divergences_.size(); }
    [[nodiscard]] double reference_perplexity() const { return std::exp(reference_loss_ / number()); }
    [[nodiscard]] double perplexity() const { return std::exp(loss_ / number()); }
    /// perplexity() / reference_perplexity().
    [[nodiscard]] double perplexity_ratio() const { return std::exp((loss_ - reference_loss_) / number()); }
    /// Share of the predictions whose likeliest token is the reference's.
    [[nodiscard]] double agreement() const { return static_cast<double>(same_top_) / number(); }
    [[nodiscard]] double mean_divergence() const {
        double sum = 0.0;
        for (const double d : divergences_) sum += d;
        return sum / number();
    }
    /// Standard error of the mean, were the predictions independent.
    [[nodiscard]] double divergence_error() const;
    /// The smallest divergence that at least a share `q` of all do not exceed, 0 < q <= 1. Sorts a copy. Errors: out_of_memory.
    [[nodiscard]] result<double> divergence_quantile(double q) const;

private:
    [[nodiscard]] double number() const { return static_cast<double>(count()); }

    std::vector<double> divergences_;
    double reference_loss_ = 0.0;
    double loss_ = 0.0;
    std::size_t same_top_ = 0;
};

/// Sums of squares over weights, and their ratio.
struct weight_difference {
    double difference = 0.0;  ///< sum of (w - w')^2
    double reference = 0.0;   ///< sum of w^2

    /// Root of the mean square error, relative to the weights' own.
    [[nodiscard]] double relative() const { return reference > 0.0 ? std::sqrt(difference / reference) : std::sqrt(difference); }
    weight_difference& operator+=(const weight_difference& other) {
        difference += other.difference;
        reference += other.reference;
        return *this;
    }
};

/// Compares rows [first, first + count) of two matrices of the same shape and any type, plain or packed. `scratch` is 2 * cols floats.
[[nodiscard]] PHI4FLASH_BODY weight_difference compare_weights(const kernel_table& kernels, const matrix_view& reference,
                                                               const matrix_view& candidate, std::size_t first, std::size_t count, float* scratch);

#if PHI4FLASH_BODIES
PHI4FLASH_BODY prediction_difference compare_predictions(std::span<const float> reference, std::span<const float> candidate, std::size_t next) {
    const detail::softmax_summary p(reference);
    const detail::softmax_summary q(candidate);
    double divergence = 0.0;
    for (std::size_t i = 0; i < reference.size(); ++i) {
        const double log_p = p.log_probability(reference[i]);
        const double weight = std::exp(log_p);
        if (weight != 0.0) divergence += weight * (log_p - q.log_probability(candidate[i]));  // 0 * infinity is no distance
    }
    // Never negative but for rounding.
    return {divergence < 0.0 ? 0.0 : divergence, -p.log_probability(reference[next]), -q.log_probability(candidate[next]),
            p.top == q.top};
}

PHI4FLASH_BODY status prediction_tally::add(const prediction_difference& d) {
    const status room = detail::or_out_of_memory("add to a tally", [&] { divergences_.push_back(d.divergence); });
    if (!room) return room;
    reference_loss_ += d.reference_loss;
    loss_ += d.loss;
    same_top_ += d.same_top ? 1 : 0;
    return {};
}

PHI4FLASH_BODY double prediction_tally::divergence_error() const {
    const double mean = mean_divergence();
    double squares = 0.0;
    for (const double d : divergences_) squares += (d - mean) * (d - mean);
    return count() < 2 ? 0.0 : std::sqrt(squares / (number() - 1.0) / number());
}

PHI4FLASH_BODY result<double> prediction_tally::divergence_quantile(double q) const {
    if (divergences_.empty()) return 0.0;
    return detail::or_out_of_memory("sort a tally", [&]() -> result<double> {
        std::vector<double> sorted(divergences_);
        std::sort(sorted.begin(), sorted.end());
        const double rank = std::ceil(q * number());
        return sorted[static_cast<std::size_t>(std::clamp(rank, 1.0, number())) - 1];
    });
}

PHI4FLASH_BODY weight_difference compare_weights(const kernel_table& kernels, const matrix_view& reference, const matrix_view& candidate,
                                                 std::size_t first, std::size_t count, float* scratch) {
    const std::size_t cols = reference.cols;
    weight_difference sum;
    for (std::size_t r = first; r < first + count; ++r) {
        kernels.linear[static_cast<std::size_t>(reference.type)].widen(reference.data, r, cols, scratch);
        kernels.linear[static_cast<std::size_t>(candidate.type)].widen(candidate.data, r, cols, scratch + cols);
        for (std::size_t c = 0; c < cols; ++c) {
            const auto w = static_cast<double>(scratch[c]);
            const double d = w - static_cast<double>(scratch[cols + c]);
            sum.difference += d * d;
            sum.reference += w * w;
        }
    }
    return sum;
}
#endif

PHI4FLASH_END
