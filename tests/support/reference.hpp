#pragma once
/// The kernels once more, written from their formulas in double precision without a thought for speed.
#include <phi4flash/kernels/kernel_table.hpp>

#include <cmath>
#include <vector>

namespace phi4flash_test::reference {

/// A value, and the sum of the magnitudes that were added to get it: the scale of its rounding error.
struct sum {
    double value = 0.0;
    double magnitude = 0.0;
    void add(double term) {
        value += term;
        magnitude += std::fabs(term);
    }
};

template <class Element>
[[nodiscard]] sum linear(const Element* row, const float* x, std::size_t cols, const float* bias) {
    sum s;
    for (std::size_t c = 0; c < cols; ++c) s.add(static_cast<double>(phi4flash::to_f32(row[c])) * static_cast<double>(x[c]));
    if (bias != nullptr) s.add(static_cast<double>(*bias));
    return s;
}

[[nodiscard]] inline double silu(double x) { return x / (1.0 + std::exp(-x)); }
[[nodiscard]] inline double softplus(double x) { return (x > 0.0 ? x : 0.0) + std::log1p(std::exp(-std::fabs(x))); }

struct moments {
    double mean = 0.0;
    double variance = 0.0;
    double mean_square = 0.0;
};
[[nodiscard]] inline moments moments_of(const std::vector<double>& x) {
    moments m;
    const auto n = static_cast<double>(x.size());
    for (const double v : x) m.mean += v / n;
    for (const double v : x) m.variance += (v - m.mean) * (v - m.mean) / n;
    for (const double v : x) m.mean_square += v * v / n;
    return m;
}

[[nodiscard]] inline std::vector<double> softmax(const std::vector<double>& x, double inverse_temperature) {
    double highest = x.empty() ? 0.0 : x[0];
    for (const double v : x) highest = v > highest ? v : highest;
    std::vector<double> p;
    double total = 0.0;
    for (const double v : x) {
        p.push_back(std::exp((v - highest) * inverse_temperature));
        total += p.back();
    }
    for (double& v : p) v /= total;
    return p;
}

/// Causal convolution over a whole sequence, from a history of zeros, before SiLU.
[[nodiscard]] inline sum convolution(const float* x, std::size_t x_stride, const float* weight, const float* bias,
                                     std::size_t d_inner, std::size_t d_conv, std::size_t t, std::size_t channel) {
    sum s;
    s.add(static_cast<double>(bias[channel]));
    for (std::size_t j = 0; j < d_conv; ++j) {
        if (t + j + 1 < d_conv) continue;
        const std::size_t time = t + j + 1 - d_conv;
        s.add(static_cast<double>(weight[j * d_inner + channel]) * static_cast<double>(x[time * x_stride + channel]));
    }
    return s;
}

/// One token of one channel of the selective scan; `h` [d_state] is advanced. `magnitude` is that of the sum over the state.
[[nodiscard]] inline sum scan_step(double dt, double u, const std::vector<double>& a, const float* b, const float* c, double d,
                                   std::vector<double>& h, std::vector<double>& h_magnitude) {
    sum y;
    for (std::size_t n = 0; n < a.size(); ++n) {
        const double decay = std::exp(dt * a[n]);
        const double input = dt * u * static_cast<double>(b[n]);
        h[n] = decay * h[n] + input;
        h_magnitude[n] = decay * h_magnitude[n] + std::fabs(input);
        y.value += static_cast<double>(c[n]) * h[n];
        y.magnitude += std::fabs(static_cast<double>(c[n])) * h_magnitude[n];
    }
    y.add(d * u);
    return y;
}

/// One query of one head over keys [0, n): k, v are rows `width` apart, key 0 at `first_position`; positions below `first_visible`
/// are not seen. Returns [width].
[[nodiscard]] inline std::vector<double> attention(const float* q, std::size_t d_head, const float* k, const float* v,
                                                   std::size_t width, std::size_t n, std::size_t first_position,
                                                   std::size_t first_visible, double scale, double slope) {
    std::vector<double> scores;
    const std::size_t begin = first_visible > first_position ? first_visible - first_position : 0;
    for (std::size_t j = begin; j < n; ++j) {
        double s = 0.0;
        for (std::size_t i = 0; i < d_head; ++i) s += static_cast<double>(q[i]) * static_cast<double>(k[j * width + i]);
        scores.push_back(s * scale - slope * static_cast<double>(n - 1 - j));
    }
    const std::vector<double> p = softmax(scores, 1.0);
    std::vector<double> out(width, 0.0);
    for (std::size_t j = begin; j < n; ++j) {
        for (std::size_t i = 0; i < width; ++i) out[i] += p[j - begin] * static_cast<double>(v[j * width + i]);
    }
    return out;
}

}  // namespace phi4flash_test::reference
