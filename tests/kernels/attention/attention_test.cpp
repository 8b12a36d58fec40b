// Tiled attention against a softmax over all scores in double precision: every head layout, window, segment layout and cut.
#include "support/reference.hpp"
#include "support/test_support.hpp"

#include <phi4flash/kernels/dispatch.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>

using namespace phi4flash_test;
using phi4flash::bf16;
using phi4flash::kernel_table;
using phi4flash::kv_segment;

namespace {

constexpr std::size_t all_keys = SIZE_MAX;

struct heads {
    std::size_t groups, k_per_group, queries_per_key, d_head;
    [[nodiscard]] std::size_t width() const { return k_per_group * d_head; }
    [[nodiscard]] std::size_t per_group() const { return k_per_group * queries_per_key; }
    [[nodiscard]] std::size_t count() const { return groups * per_group(); }
};

/// Keys or values of all groups at positions [first, first + count): f32 twins of what is stored, and the stored segments.
template <class Element>
class cache {
public:
    cache(generator& random, const heads& shape, std::size_t count, float size) : shape_(shape), count_(count) {
        for (auto* plane : {&k_, &v_}) {
            *plane = random_buffer<float>(random, shape.groups * count * shape.width(), 0, -size, size);
            for (float& x : *plane) x = phi4flash::to_f32(phi4flash::from_f32<Element>(x));
            size = 1.0f;  // that is for the keys only
        }
    }

    /// A block of its own for `count` positions from the `first`-th on, `spare` unused rows behind each group but the last.
    void add(std::size_t first, std::size_t count, std::size_t first_position, std::size_t spare) {
        const std::size_t rows = count + spare;
        const std::size_t k = store(k_, first, count, rows);
        const std::size_t v = store(v_, first, count, rows);
        segments_.push_back({blocks_[k].bytes(), blocks_[v].bytes(), rows, first_position, count});
    }

    /// A ring of `rows` rows that holds `count` positions starting at slot `slot`: one segment, or two where it wraps.
    void add_ring(std::size_t first, std::size_t count, std::size_t first_position, std::size_t rows, std::size_t slot) {
        const std::size_t before_wrap = std::min(count, rows - slot);
        const std::size_t w = shape_.width();
        const std::size_t k = ring(k_, first, count, rows, slot);
        const std::size_t v = ring(v_, first, count, rows, slot);
        segments_.push_back({blocks_[k].bytes() + slot * w * sizeof(Element), blocks_[v].bytes() + slot * w * sizeof(Element), rows,
                             first_position, before_wrap});
        if (before_wrap < count)
            segments_.push_back({blocks_[k].bytes(), blocks_[v].bytes(), rows, first_position + before_wrap, count - before_wrap});
    }
    void add_empty(std::size_t first_position) { segments_.push_back({nullptr, nullptr, 0, first_position, 0}); }

    [[nodiscard]] const std::vector<kv_segment>& segments() const { return segments_; }
    [[nodiscard]] const float* k(std::size_t group) const { return k_.data() + group * count_ * shape_.width(); }
    [[nodiscard]] const float* v(std::size_t group) const { return v_.data() + group * count_ * shape_.width(); }

private:
    [[nodiscard]] Element stored(const buffer<float>& plane, std::size_t group, std::size_t row, std::size_t i) const {
        return phi4flash::from_f32<Element>(plane[(group * count_ + row) * shape_.width() + i]);
    }
    std::size_t store(const buffer<float>& plane, std::size_t first, std::size_t count, std::size_t rows) {
        const std::size_t w = shape_.width();
        blocks_.emplace_back(((shape_.groups - 1) * rows + count) * w, 1, phi4flash::from_f32<Element>(nan_f32));
        for (std::size_t g = 0; g < shape_.groups; ++g) {
            for (std::size_t i = 0; i < count * w; ++i) blocks_.back()[g * rows * w + i] = stored(plane, g, first + i / w, i % w);
        }
        return blocks_.size() - 1;
    }
    std::size_t ring(const buffer<float>& plane, std::size_t first, std::size_t count, std::size_t rows, std::size_t slot) {
        const std::size_t w = shape_.width();
        blocks_.emplace_back(shape_.groups * rows * w, 1, phi4flash::from_f32<Element>(nan_f32));
        for (std::size_t g = 0; g < shape_.groups; ++g) {
            for (std::size_t i = 0; i < count * w; ++i)
                blocks_.back()[(g * rows + (slot + i / w) % rows) * w + i % w] = stored(plane, g, first + i / w, i % w);
        }
        return blocks_.size() - 1;
    }

    heads shape_;
    std::size_t count_;
    buffer<float> k_{0};
    buffer<float> v_{0};
    std::vector<buffer<Element>> blocks_;
    std::vector<kv_segment> segments_;
};

enum class layout { one, two, three_with_empty, ring };

struct attention_case {
    heads shape;
    std::size_t past, tokens, window;  ///< keys before the first token, query tokens, keys seen
    std::size_t forgotten = 0;         ///< positions before the first key
    layout segments = layout::one;
    bool alibi = false;
    float key_size = 1.0f;

    template <class Element>
    void check(const kernel_table& kernels, generator& random, worst& error, double bound = 1e-6) const {
        CAPTURE(shape.groups);
        CAPTURE(shape.k_per_group);
        CAPTURE(shape.queries_per_key);
        CAPTURE(shape.d_head);
        CAPTURE(past);
        CAPTURE(tokens);
        CAPTURE(window);
        CAPTURE(static_cast<int>(segments));
        CAPTURE(alibi);
        const std::size_t n_keys = past + tokens;
        cache<Element> keys(random, shape, n_keys, key_size);
        fill(keys, random);
        const std::size_t heads_count = shape.count();
        const std::size_t q_stride = heads_count * shape.d_head + 5;
        const std::size_t out_stride = heads_count * shape.width() + 3;
        const auto q = random_rows(random, tokens, heads_count * shape.d_head, q_stride, 1, nan_f32);
        const auto slopes = random_buffer<float>(random, heads_count, 1, 0.0f, 0.5f);
        const phi4flash::attention_args args{
            .q = q.data(),
            .q_stride = q_stride,
            .out = nullptr,
            .out_stride = out_stride,
            .tokens = tokens,
            .first_position = forgotten + past,
            .d_head = shape.d_head,
            .k_per_group = shape.k_per_group,
            .queries_per_key = shape.queries_per_key,
            .window = window,
            .scale = 1.0f / std::sqrt(static_cast<float>(shape.d_head)),
            .slopes = alibi ? slopes.data() : nullptr,
        };
        const auto run = [&](const std::vector<std::size_t>& cuts) {
            buffer<float> out((tokens - 1) * out_stride + heads_count * shape.width(), 1, canary);
            phi4flash::attention_args a = args;
            a.out = out.data();
            for (std::size_t g = 0; g < shape.groups; ++g) {
                for (std::size_t i = 0; i + 1 < cuts.size(); ++i)
                    kernels.attention[static_cast<std::size_t>(phi4flash::kv_format_of<Element>)](
                        a, g, cuts[i], cuts[i + 1], keys.segments().data(), keys.segments().size());
            }
            return out;
        };
        const buffer<float> out = run({0, tokens});
        CHECK(gaps_untouched(out, heads_count * shape.width(), out_stride));
        worst here;
        for (std::size_t t = 0; t < tokens; ++t) {
            for (std::size_t h = 0; h < heads_count; ++h) {
                const std::vector<double> want = expected(keys, q.data() + t * q_stride + h * shape.d_head, t, h, args);
                for (std::size_t i = 0; i < want.size(); ++i)
                    here.see(std::fabs(static_cast<double>(out[t * out_stride + h * shape.width() + i]) - want[i]));
            }
        }
        CHECK(here.value <= bound);  // values are in [-1, 1)
        error.see(here.value);

        std::vector<std::size_t> single(tokens + 1);
        for (std::size_t t = 0; t <= tokens; ++t) single[t] = t;
        const std::size_t cut = random.below(tokens + 1);
        const std::size_t later = cut + random.below(tokens + 1 - cut);
        const bool singles_agree = same_bits(run(single), out);
        CHECK(singles_agree);
        const bool cut_agrees = same_bits(run({0, cut, later, tokens}), out);
        CHECK(cut_agrees);
    }

private:
    template <class Element>
    void fill(cache<Element>& keys, generator& random) const {
        const std::size_t n_keys = past + tokens;
        switch (segments) {
            case layout::one:
                keys.add(0, n_keys, forgotten, 0);
                break;
            case layout::two:
                keys.add(0, past, forgotten, 3);
                keys.add(past, tokens, forgotten + past, 1);
                break;
            case layout::three_with_empty: {
                const std::size_t cut = random.below(n_keys + 1);
                keys.add(0, cut, forgotten, 2);
                keys.add_empty(forgotten + cut);
                keys.add(cut, n_keys - cut, forgotten + cut, 0);
                break;
            }
            case layout::ring:
                keys.add_ring(0, past, forgotten, past + 2, random.below(past + 2));
                keys.add(past, tokens, forgotten + past, 0);
                break;
        }
    }

    template <class Element>
    std::vector<double> expected(const cache<Element>& keys, const float* q, std::size_t t, std::size_t head,
                                 const phi4flash::attention_args& args) const {
        const std::size_t group = head / shape.per_group();
        const std::size_t key_head = head % shape.per_group() % shape.k_per_group;
        const std::size_t position = forgotten + past + t;
        const std::size_t first_visible = position >= window ? position - window + 1 : 0;
        // The reference takes keys and values of one width; key heads lie side by side.
        std::vector<float> key_rows((past + t + 1) * shape.width());
        for (std::size_t j = 0; j <= past + t; ++j)
            std::copy_n(keys.k(group) + j * shape.width() + key_head * shape.d_head, shape.d_head,
                        key_rows.begin() + static_cast<std::ptrdiff_t>(j * shape.width()));
        return reference::attention(q, shape.d_head, key_rows.data(), keys.v(group), shape.width(), past + t + 1, forgotten,
                                    first_visible, static_cast<double>(args.scale),
                                    alibi ? static_cast<double>(args.slopes[head]) : 0.0);
    }
};

}  // namespace

TEST_CASE_TEMPLATE("attention of every head layout", Element, float, bf16) {
    for_each_target([](const kernel_table& kernels) {
        generator random(30);
        worst error;
        const std::size_t windows[] = {1, 2, 5, 8, 31, 32, 33, 512, all_keys};
        std::size_t i = 0;
        for (const std::size_t d_head : {1u, 2u, 3u, 4u, 7u, 8u, 16u, 24u, 33u, 64u, 80u, 128u}) {
            for (const std::size_t k_per_group : {1u, 2u}) {
                for (const std::size_t queries_per_key : {1u, 2u, 3u, 5u}) {
                    ++i;
                    attention_case{.shape = {1 + i % 2, k_per_group, queries_per_key, d_head},
                                   .past = i * 7 % 61,
                                   .tokens = 1 + i * 5 % 19,
                                   .window = windows[i % 9],
                                   .segments = static_cast<layout>(i % 4),
                                   .alibi = i % 5 == 0}
                        .check<Element>(kernels, random, error);
                }
            }
        }
        report(with_type<Element>("attention"), kernels, error, "of the largest value");
    });
}

TEST_CASE_TEMPLATE("attention of every window and segment layout", Element, float, bf16) {
    for_each_target([](const kernel_table& kernels) {
        generator random(31);
        worst error;
        for (const std::size_t window :
             {std::size_t{1}, std::size_t{2}, std::size_t{5}, std::size_t{8}, std::size_t{33}, std::size_t{64}, all_keys}) {
            for (const std::size_t past : {0u, 1u, 4u, 31u, 32u, 90u}) {
                for (const std::size_t tokens : {1u, 2u, 40u}) {
                    for (const layout l : {layout::one, layout::two, layout::three_with_empty, layout::ring}) {
                        attention_case{.shape = {1, 2, 2, 8},
                                       .past = past,
                                       .tokens = tokens,
                                       .window = window,
                                       .segments = l,
                                       .alibi = past == 31}
                            .check<Element>(kernels, random, error);
                    }
                }
            }
        }
        report(with_type<Element>("attention"), kernels, error, "of the largest value");
    });
}

TEST_CASE_TEMPLATE("attention of wide groups, whose tiles are shorter", Element, float, bf16) {
    for_each_target([](const kernel_table& kernels) {
        generator random(32);
        worst error;
        for (const std::size_t d_head : {96u, 100u, 512u, 513u, 640u}) {
            attention_case{.shape = {1, 2, 1, d_head}, .past = 45, .tokens = 20, .window = 37, .segments = layout::ring}
                .check<Element>(kernels, random, error);
            attention_case{.shape = {2, 1, 2, d_head}, .past = 10, .tokens = 50, .window = all_keys, .alibi = true}.check<Element>(
                kernels, random, error);
        }
        report(with_type<Element>("attention"), kernels, error, "of the largest value");
    });
}

TEST_CASE_TEMPLATE("attention of long sequences", Element, float, bf16) {
    for_each_target([](const kernel_table& kernels) {
        generator random(33);
        worst error;
        // Tokens of one block whose windows do not touch: keys that the first sees lie far before what the last sees.
        attention_case{.shape = {1, 1, 1, 16}, .past = 0, .tokens = 300, .window = 3}.check<Element>(kernels, random, error);
        attention_case{.shape = {1, 2, 2, 16}, .past = 3000, .tokens = 4, .window = all_keys, .segments = layout::two}
            .check<Element>(kernels, random, error);
        attention_case{
            .shape = {1, 2, 2, 16}, .past = 511, .tokens = 70, .window = 512, .forgotten = 100000, .segments = layout::ring}
            .check<Element>(kernels, random, error);
        attention_case{
            .shape = {1, 2, 1, 16}, .past = 1500, .tokens = 3, .window = 512, .segments = layout::three_with_empty, .alibi = true}
            .check<Element>(kernels, random, error);
        report(with_type<Element>("attention"), kernels, error, "of the largest value");
    });
}

// Few keys and many, whole tiles and not, in one segment and in several: what fills no tile, or no place of it, goes other ways.
TEST_CASE_TEMPLATE("attention of one token", Element, float, bf16) {
    constexpr double bound = std::is_same_v<Element, bf16> ? 2e-6 : 1e-6;  // weights of bf16 values lose bits on matrix tiles
    for_each_target([](const kernel_table& kernels) {
        generator random(35);
        worst error;
        std::size_t i = 0;
        for (const heads& shape : {heads{1, 2, 2, 64}, heads{2, 2, 1, 64}, heads{1, 1, 4, 128}, heads{2, 1, 3, 96}, heads{1, 2, 2, 32},
                                   heads{1, 1, 1, 32}, heads{1, 2, 2, 80}, heads{1, 1, 2, 160}, heads{1, 1, 5, 64}}) {
            for (const std::size_t past : {0u, 2u, 14u, 15u, 16u, 33u, 127u, 143u, 144u, 160u, 500u, 526u, 527u, 528u, 529u, 1100u, 1583u}) {
                ++i;
                attention_case{.shape = shape,
                               .past = past,
                               .tokens = 1,
                               .window = i % 3 == 0 ? std::size_t{512} : all_keys,
                               .forgotten = i % 5 == 0 ? std::size_t{77} : 0,
                               .segments = static_cast<layout>(i % 4),
                               .alibi = i % 7 == 0}
                    .check<Element>(kernels, random, error, bound);
            }
        }
        report(with_type<Element>("attention of one token"), kernels, error, "of the largest value");
    });
}

// Scores in the hundreds: exp of them would overflow without the running maximum. A score of 300 is known to 300 ulp(1), and so
// is the logarithm of its weight.
TEST_CASE_TEMPLATE("attention with large scores", Element, float, bf16) {
    for_each_target([](const kernel_table& kernels) {
        generator random(34);
        worst error;
        attention_case{.shape = {1, 2, 2, 64}, .past = 100, .tokens = 33, .window = all_keys, .key_size = 200.0f}.check<Element>(
            kernels, random, error, 5e-5);
        attention_case{.shape = {1, 1, 2, 16},
                       .past = 70,
                       .tokens = 9,
                       .window = 40,
                       .segments = layout::ring,
                       .alibi = true,
                       .key_size = 500.0f}
            .check<Element>(kernels, random, error, 5e-5);
        report(with_type<Element>("attention with large scores"), kernels, error, "of the largest value");
    });
}

// Every score far below zero: the running maximum must start below all of them.
TEST_CASE("attention with scores far below zero") {
    for_each_target([](const kernel_table& kernels) {
        const float q[4] = {1.0f, 1.0f, 1.0f, 1.0f};
        float k[40 * 4];
        float v[40 * 4];
        for (std::size_t i = 0; i < 160; ++i) k[i] = -1e6f, v[i] = static_cast<float>(i / 4);
        float out[4] = {canary, canary, canary, canary};
        const kv_segment segment{reinterpret_cast<const std::byte*>(k), reinterpret_cast<const std::byte*>(v), 40, 0, 40};
        const phi4flash::attention_args args{.q = q,
                                             .q_stride = 4,
                                             .out = out,
                                             .out_stride = 4,
                                             .tokens = 1,
                                             .first_position = 39,
                                             .d_head = 4,
                                             .k_per_group = 1,
                                             .queries_per_key = 1,
                                             .window = 40,
                                             .scale = 1.0f,
                                             .slopes = nullptr};
        kernels.attention[0](args, 0, 0, 1, &segment, 1);
        for (const float x : out) CHECK(x == doctest::Approx(19.5f));
    });
}
