/// Attention layers against a naive f64 twin: every combination of heads (plain, differential), span (window, full, cross) and
/// positional encoding (none, rotary, ALiBi), token by token and in chunks.
#include "support/test_support.hpp"

#include <phi4flash/layers/attention.hpp>
#include <phi4flash/position/alibi.hpp>
#include <phi4flash/position/rotary.hpp>

#include <memory>

namespace p4 = phi4flash;

namespace {

constexpr std::size_t d_model = 24;
constexpr std::size_t n_tokens = 23;
constexpr std::size_t window = 5;
constexpr std::size_t no_window = static_cast<std::size_t>(-1);

using matrix = std::vector<std::vector<double>>;

/// Weights of one layer, as the layer sees them and as the twin does.
struct layer_weights {
    phi4flash_test::generator random{7};
    phi4flash_test::buffer<float> qkv, qkv_bias, out, out_bias, norm;

    layer_weights(const p4::head_layout& heads, std::size_t outputs)
        : qkv(phi4flash_test::random_buffer<float>(random, outputs * d_model, 0, -0.4f, 0.4f)),
          qkv_bias(phi4flash_test::random_buffer<float>(random, outputs, 0)),
          out(phi4flash_test::random_buffer<float>(random, d_model * heads.q_width(), 0, -0.4f, 0.4f)),
          out_bias(phi4flash_test::random_buffer<float>(random, d_model, 0)),
          norm(phi4flash_test::random_buffer<float>(random, 2 * heads.d_head, 0, 0.5f, 1.5f)) {}
};

matrix multiply(const phi4flash_test::buffer<float>& w, const phi4flash_test::buffer<float>& bias, const matrix& x, std::size_t outputs) {
    matrix y(x.size(), std::vector<double>(outputs));
    for (std::size_t t = 0; t < x.size(); ++t) {
        for (std::size_t r = 0; r < outputs; ++r) {
            double sum = static_cast<double>(bias[r]);
            for (std::size_t c = 0; c < x[t].size(); ++c) sum += static_cast<double>(w[r * x[t].size() + c]) * x[t][c];
            y[t][r] = sum;
        }
    }
    return y;
}

void rotate(std::vector<double>& row, std::size_t offset, std::size_t heads, std::size_t d_head, std::size_t n_rotated, std::size_t position) {
    for (std::size_t h = 0; h < heads; ++h) {
        for (std::size_t i = 0; i < n_rotated / 2; ++i) {
            const double angle = static_cast<double>(position) * std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(n_rotated));
            double& a = row[offset + h * d_head + i];
            double& b = row[offset + h * d_head + n_rotated / 2 + i];
            const double turned = a * std::cos(angle) - b * std::sin(angle);
            b = a * std::sin(angle) + b * std::cos(angle);
            a = turned;
        }
    }
}

/// softmax(q k) v of one query head over one key head and a run of values.
std::vector<double> attend(const std::vector<double>& q, std::size_t q_at, const matrix& kv, std::size_t k_at, std::size_t v_at, std::size_t d_head,
                           std::size_t v_width, std::size_t position, std::size_t span, double slope) {
    const std::size_t first = position + 1 > span ? position + 1 - span : 0;
    std::vector<double> weight;
    double total = 0.0;
    for (std::size_t j = first; j <= position; ++j) {
        double score = 0.0;
        for (std::size_t i = 0; i < d_head; ++i) score += q[q_at + i] * kv[j][k_at + i];
        weight.push_back(std::exp(score / std::sqrt(static_cast<double>(d_head)) - slope * static_cast<double>(position - j)));
        total += weight.back();
    }
    std::vector<double> out(v_width);
    for (std::size_t j = first; j <= position; ++j) {
        for (std::size_t i = 0; i < v_width; ++i) out[i] += weight[j - first] / total * kv[j][v_at + i];
    }
    return out;
}

enum class encoding { none, rotary, alibi };

/// The whole layer in f64. `differential`: heads pair by parity, lambda 0.3.
matrix twin(const layer_weights& w, const p4::head_layout& heads, bool differential, encoding position, std::size_t span, const matrix& x) {
    matrix qkv = multiply(w.qkv, w.qkv_bias, x, heads.q_width() + 2 * heads.kv_width());
    if (position == encoding::rotary) {
        for (std::size_t t = 0; t < qkv.size(); ++t) {
            rotate(qkv[t], 0, heads.n_heads, heads.d_head, 2, t);
            rotate(qkv[t], heads.q_width(), heads.n_kv_heads, heads.d_head, 2, t);
        }
    }
    std::vector<float> slopes(heads.n_heads);
    p4::alibi_slopes(heads.n_heads, slopes.data());
    const std::size_t k_at = heads.q_width();
    const std::size_t v_at = k_at + heads.kv_width();
    const std::size_t d = heads.d_head;
    matrix mixed(x.size());
    for (std::size_t t = 0; t < x.size(); ++t) {
        for (std::size_t h = 0; h < heads.n_heads; h += differential ? 2 : 1) {
            const auto slope = [&](std::size_t head) { return position == encoding::alibi ? static_cast<double>(slopes[head]) : 0.0; };
            if (!differential) {
                const std::size_t kv = h / heads.queries_per_key();
                const std::vector<double> o = attend(qkv[t], h * d, qkv, k_at + kv * d, v_at + kv * d, d, d, t, span, slope(h));
                mixed[t].insert(mixed[t].end(), o.begin(), o.end());
                continue;
            }
            const std::size_t pair = h / 2 / heads.queries_per_key();  // of keys and values
            const std::vector<double> even = attend(qkv[t], h * d, qkv, k_at + 2 * pair * d, v_at + 2 * pair * d, d, 2 * d, t, span, slope(h));
            const std::vector<double> odd =
                attend(qkv[t], (h + 1) * d, qkv, k_at + (2 * pair + 1) * d, v_at + 2 * pair * d, d, 2 * d, t, span, slope(h + 1));
            double square = 0.0;
            for (std::size_t i = 0; i < 2 * d; ++i) square += std::pow(even[i] - 0.3 * odd[i], 2.0);
            const double inverse = 1.0 / std::sqrt(square / static_cast<double>(2 * d) + 1e-5);
            for (std::size_t i = 0; i < 2 * d; ++i) mixed[t].push_back((even[i] - 0.3 * odd[i]) * inverse * static_cast<double>(w.norm[i]));
        }
    }
    return multiply(w.out, w.out_bias, mixed, d_model);
}

template <class Heads, class Position>
p4::attention<Heads, Position> layer_of(const layer_weights& w, const p4::head_layout& heads, const Heads& combine, const Position& position,
                                        std::size_t outputs) {
    const auto view = [](const phi4flash_test::buffer<float>& b, std::size_t rows) {
        return p4::matrix_view{b.bytes(), rows, b.size() / rows, p4::dtype::f32};
    };
    return {{view(w.qkv, outputs), w.qkv_bias.data()}, {view(w.out, d_model), w.out_bias.data()}, heads, combine, position};
}

/// Runs a layer in chunks and compares every token with the twin.
template <class Heads, class Position>
void check(const p4::kernel_table& kernels, const p4::head_layout& heads, const Heads& combine, const Position& position, encoding name) {
    const bool differential = Heads::k_per_group == 2;
    const std::size_t outputs = heads.q_width() + 2 * heads.kv_width();
    layer_weights w(heads, outputs);
    Heads with_norm = combine;
    if constexpr (Heads::k_per_group == 2) with_norm.norm_weight = w.norm.data();
    const auto layer = layer_of(w, heads, with_norm, position, outputs);

    phi4flash_test::generator random{11};
    phi4flash_test::buffer<float> x = phi4flash_test::random_buffer<float>(random, n_tokens * d_model, 0, -2.0f, 2.0f);
    matrix wide(n_tokens, std::vector<double>(d_model));
    for (std::size_t i = 0; i < n_tokens * d_model; ++i) wide[i / d_model][i % d_model] = static_cast<double>(x[i]);
    const matrix windowed = twin(w, heads, differential, name, window, wide);
    const matrix full = twin(w, heads, differential, name, no_window, wide);

    for (const std::size_t chunk : {1u, 2u, 4u, 7u, 23u}) {
        CAPTURE(chunk);
        p4::arena counting;
        (void)p4::attention_workspace(counting, heads, chunk);
        (void)p4::kv_block<float>(counting, heads, chunk);
        (void)p4::kv_block<float>(counting, heads, window);
        (void)p4::kv_block<float>(counting, heads, n_tokens);
        (void)counting.take<std::byte>(chunk * p4::arranged_bytes(64));
        auto block = p4::memory_block::allocate(counting.bytes(), "test");
        REQUIRE(block);
        p4::arena memory(block->bytes().data());
        const p4::attention_workspace scratch(memory, heads, chunk);
        const p4::kv_block<float> staging(memory, heads, chunk);
        const p4::kv_ring<float> ring{p4::kv_block<float>(memory, heads, window), window};
        const p4::kv_block<float> cache(memory, heads, n_tokens);
        const p4::compute with{&kernels, {}, memory.take<std::byte>(chunk * p4::arranged_bytes(64))};
        double worst_window = 0.0;
        double worst_full = 0.0;
        for (std::size_t first = 0; first < n_tokens; first += chunk) {
            const std::size_t count = std::min(chunk, n_tokens - first);
            const p4::rows_view<const float> in{x.data() + first * d_model, count, d_model};
            std::vector<float> y(count * d_model);
            const p4::rows_view<float> out{y.data(), count, d_model};
            const auto worst = [&](const matrix& want) {
                double most = 0.0;
                for (std::size_t i = 0; i < y.size(); ++i)
                    most = std::max(most, std::fabs(static_cast<double>(y[i]) - want[first + i / d_model][i % d_model]));
                return most;
            };
            layer.window(with, scratch, staging, ring, first, in, out);
            worst_window = std::max(worst_window, worst(windowed));
            layer.store_keys(with, scratch, cache, first, in);
            layer.over(with, scratch, cache, first, in, out);
            worst_full = std::max(worst_full, worst(full));
        }
        CHECK(worst_window < 2e-5);
        CHECK(worst_full < 2e-5);
    }
}

template <class Heads>
void check_positions(const p4::head_layout& heads, const Heads& combine) {
    for (const p4::kernel_target& target : p4::kernel_targets()) {
        if (!target.request()) continue;
        CAPTURE(std::string(target.kernels->name));
        check(*target.kernels, heads, combine, p4::no_position{}, encoding::none);
        float frequency[1];
        p4::rotary_frequencies(10000.0, 2, nullptr, frequency);
        check(*target.kernels, heads, combine, p4::rotary{frequency, 2, 1.0f}, encoding::rotary);
        std::vector<float> slopes(heads.n_heads);
        p4::alibi_slopes(heads.n_heads, slopes.data());
        check(*target.kernels, heads, combine, p4::alibi{slopes.data()}, encoding::alibi);
    }
}

}  // namespace

TEST_CASE("plain attention equals its f64 twin for every span and positional encoding") {
    check_positions(p4::head_layout{6, 2, 4, 1}, p4::plain_heads{});
    check_positions(p4::head_layout{3, 3, 5, 1}, p4::plain_heads{});
}

TEST_CASE("differential attention equals its f64 twin for every span and positional encoding") {
    check_positions(p4::head_layout{4, 2, 6, 2}, p4::differential_heads{0.3f, nullptr, 1e-5f});
    check_positions(p4::head_layout{12, 4, 3, 2}, p4::differential_heads{0.3f, nullptr, 1e-5f});
}

TEST_CASE("lambda0 depends on the layer's place in the whole model") {
    CHECK(p4::differential_heads::initial_lambda(0) == doctest::Approx(0.2));
    CHECK(p4::differential_heads::initial_lambda(17) == doctest::Approx(0.8 - 0.6 * std::exp(-5.1)));
}

TEST_CASE("alibi slopes are the paper's") {
    float eight[8];
    p4::alibi_slopes(8, eight);
    CHECK(eight[0] == 0.5f);
    CHECK(eight[7] == 0.00390625f);
    float twelve[12];
    p4::alibi_slopes(12, twelve);
    CHECK(twelve[7] == 0.00390625f);
    CHECK(twelve[8] == doctest::Approx(std::exp2(-0.5)));
    CHECK(twelve[11] == doctest::Approx(std::exp2(-3.5)));
}
