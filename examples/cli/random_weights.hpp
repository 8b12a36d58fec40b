#pragma once
/// Random weights with which a model of any size stays numerically sane. Number j of a tensor depends on the seed, the tensor's
/// index and j alone, so any piece can be made at any time on any thread.
#include "library.hpp"

#include <numbers>

namespace cli {

/// What the numbers of a tensor are.
enum class weight_rule : std::uint8_t {
    matrix,   ///< normal, standard deviation 1 / sqrt(fan in)
    ones,     ///< scales of norms, D
    zeros,    ///< shifts of norms
    bias,     ///< normal, standard deviation 0.02
    a_log,    ///< log(1), log(2) ... log(d_state) in each row: Mamba's own start
    dt_bias,  ///< softplus^-1 of step sizes spread evenly over the logarithms of 0.001 to 0.1
    lambda,   ///< normal, standard deviation 0.1
};

[[nodiscard]] inline weight_rule rule_of(std::string_view name) {
    const auto is = [name](std::string_view end) { return name.ends_with(end); };
    if (is("A_log")) return weight_rule::a_log;
    if (is(".D") || is("norm.weight") || is("subln.weight")) return weight_rule::ones;
    if (is("norm.bias")) return weight_rule::zeros;
    if (is("dt_proj.bias")) return weight_rule::dt_bias;
    if (is(".bias")) return weight_rule::bias;
    if (name.find(".lambda_") != std::string_view::npos) return weight_rule::lambda;
    return weight_rule::matrix;
}

/// As released: these are F32 whatever the rest is.
[[nodiscard]] inline bool always_f32(weight_rule rule) { return rule == weight_rule::a_log || rule == weight_rule::lambda; }

/// Makes the numbers of one tensor. Const use from any number of threads.
template <class T>
class weight_maker {
public:
    /// `columns` is the last extent of the tensor's shape, `fan_in` the product of all but the first.
    weight_maker(std::uint64_t seed, std::size_t index, weight_rule rule, std::size_t columns, std::size_t fan_in)
        : key_(p4::random_stream(seed ^ (std::uint64_t{index} << 40)).next()), rule_(rule), columns_(columns) {
        if (rule != weight_rule::matrix && rule != weight_rule::bias && rule != weight_rule::lambda) return;
        const double deviation = rule == weight_rule::matrix ? 1.0 / std::sqrt(static_cast<double>(fan_in))
                                 : rule == weight_rule::bias ? 0.02
                                                             : 0.1;
        // A table of normal numbers, already scaled and rounded, makes 16 random bits a number.
        table_.resize(table_size);
        p4::random_stream random(0x7068693466u);
        for (std::size_t i = 0; i < table_size; i += 2) {
            const double radius = deviation * std::sqrt(-2.0 * std::log(1.0 - random.uniform()));
            const double angle = 2.0 * std::numbers::pi * random.uniform();
            table_[i] = p4::from_f32<T>(static_cast<float>(radius * std::cos(angle)));
            table_[i + 1] = p4::from_f32<T>(static_cast<float>(radius * std::sin(angle)));
        }
    }

    /// out[i] = number first + i. `first` is a multiple of 4.
    void fill(std::size_t first, std::span<T> out) const {
        switch (rule_) {
            case weight_rule::ones:
                std::ranges::fill(out, p4::from_f32<T>(1.0f));
                return;
            case weight_rule::zeros:
                std::ranges::fill(out, p4::from_f32<T>(0.0f));
                return;
            case weight_rule::a_log:
                for (std::size_t i = 0; i < out.size(); ++i)
                    out[i] = p4::from_f32<T>(static_cast<float>(std::log(static_cast<double>((first + i) % columns_ + 1))));
                return;
            case weight_rule::dt_bias:
                for (std::size_t i = 0; i < out.size(); ++i) {
                    const double step = 0.001 * std::pow(100.0, p4::random_stream(key_ + first + i).uniform());
                    out[i] = p4::from_f32<T>(static_cast<float>(std::log(std::expm1(step))));
                }
                return;
            case weight_rule::matrix:
            case weight_rule::bias:
            case weight_rule::lambda:
                for (std::size_t i = 0; i < out.size(); i += 4) {
                    std::uint64_t bits = p4::random_stream(key_ + (first + i) / 4).next();
                    for (std::size_t j = i; j < std::min(i + 4, out.size()); ++j, bits >>= 16)
                        out[j] = table_[bits & (table_size - 1)];
                }
        }
    }

private:
    static constexpr std::size_t table_size = 65536;
    std::uint64_t key_;
    weight_rule rule_;
    std::size_t columns_;
    std::vector<T> table_;
};

}  // namespace cli
