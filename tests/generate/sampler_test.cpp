/// The sampler: greedy and its ties, each filter against probabilities worked out by hand, seeds, and ids that may not be chosen; and all of it
/// against a twin that sorts.
#include "support/test_support.hpp"

#include <phi4flash/generate/sampler.hpp>
#include <phi4flash/kernels/dispatch.hpp>

#include <doctest/doctest.h>

#include <array>
#include <bit>
#include <map>
#include <string>

namespace p4 = phi4flash;

namespace {

using floats = std::vector<float>;

p4::sampler make(const p4::sampling_options& options, std::vector<bool> allowed) {
    auto s = p4::sampler::create(options, std::move(allowed));
    REQUIRE(s);
    return *std::move(s);
}

/// Logits whose softmax is `probabilities`.
floats logits_of(const floats& probabilities) {
    floats logits;
    for (const float p : probabilities) logits.push_back(std::log(p));
    return logits;
}

/// How often each id is chosen, of `n`.
std::map<std::int32_t, double> frequencies(p4::sampler& s, const floats& logits, int n) {
    std::map<std::int32_t, double> share;
    for (int i = 0; i < n; ++i) share[s.choose(logits)] += 1.0 / n;
    return share;
}

constexpr p4::sampling_options plain{.temperature = 1.0f, .top_p = 1.0f};

/// The sampler once more, without a thought for speed: sorts everything and marks what each filter keeps. Draws as documented: among all that
/// min_p keeps, by id, and where top_p does not keep the token, among those likelier.
class slow_sampler {
public:
    slow_sampler(const p4::sampling_options& options, std::vector<bool> allowed)
        : o_(options), allowed_(std::move(allowed)), seen_(allowed_.size()), random_(options.seed) {}

    void accept(std::int32_t id) { seen_[static_cast<std::size_t>(id)] = o_.repetition_penalty != 1.0f; }

    std::int32_t choose(const floats& logits) {
        p4::random_stream draws(o_.temperature == 0.0f ? 0 : random_.next());
        std::vector<token> all;
        for (std::size_t id = 0; id < (std::min)(logits.size(), allowed_.size()); ++id) {
            if (!allowed_[id] || p4::rank_of(logits[id]) == p4::rank_of_none) continue;
            all.push_back({id, penalized(logits[id], seen_[id])});
        }
        if (all.empty()) return static_cast<std::int32_t>(std::ranges::find(allowed_, true) - allowed_.begin());
        std::ranges::stable_sort(all, [](const token& a, const token& b) { return p4::rank_of(a.logit) > p4::rank_of(b.logit); });
        const float highest = all[0].logit;
        if (o_.temperature == 0.0f || p4::rank_of(highest) == p4::rank_of_infinity) return static_cast<std::int32_t>(all[0].id);
        if (o_.top_k != 0 && o_.top_k < all.size()) all.resize(o_.top_k);
        const float scale = p4::weight_scale((std::max)(o_.temperature, FLT_MIN));
        for (token& t : all) t.weight = p4::weight_of(p4::rank_of(t.logit), highest, scale);
        std::ranges::sort(all, [](const token& a, const token& b) { return a.weight != b.weight ? a.weight > b.weight : a.id < b.id; });
        double sum = 0.0;
        for (const token& t : all) sum += t.weight;
        double before = 0.0;
        for (token& t : all) {
            t.kept = o_.top_p >= 1.0f || before < static_cast<double>(o_.top_p) * sum;
            before += t.weight;
        }
        std::erase_if(all, [&](const token& t) { return t.weight == 0 || t.weight < static_cast<double>(o_.min_p) * p4::highest_weight; });
        while (true) {
            const std::size_t at = drawn(all, draws.uniform());
            if (all[at].kept) return static_cast<std::int32_t>(all[at].id);
            all.resize(at);
        }
    }

private:
    struct token {
        std::size_t id;
        float logit;
        std::int32_t weight = 0;
        bool kept = false;
    };

    float penalized(float logit, bool seen) const {
        if (!seen || p4::rank_of(logit) == p4::rank_of_infinity) return logit;
        return std::clamp(logit > 0.0f ? logit / o_.repetition_penalty : logit * o_.repetition_penalty, -1e38f, 1e38f);
    }

    static std::size_t drawn(const std::vector<token>& all, double share) {
        std::vector<std::size_t> by_id(all.size());
        std::uint64_t sum = 0;
        for (std::size_t i = 0; i < all.size(); ++i) {
            by_id[i] = i;
            sum += static_cast<std::uint64_t>(all[i].weight);
        }
        std::ranges::sort(by_id, {}, [&](std::size_t i) { return all[i].id; });
        auto left = (std::min)(static_cast<std::uint64_t>(share * static_cast<double>(sum)), sum - 1);
        for (const std::size_t i : by_id) {
            if (left < static_cast<std::uint64_t>(all[i].weight)) return i;
            left -= static_cast<std::uint64_t>(all[i].weight);
        }
        return by_id.back();
    }

    p4::sampling_options o_;
    std::vector<bool> allowed_;
    std::vector<bool> seen_;
    p4::random_stream random_;
};

/// Logits with many of the same, some of which are no numbers.
floats mixed_logits(p4::random_stream& random, std::size_t n, double width) {
    floats logits(n);
    for (float& x : logits) {
        const double sum = random.uniform() + random.uniform() + random.uniform() - 1.5;
        x = static_cast<float>(width * sum);
        if (random.uniform() < 0.1) x = std::round(x);
        if (random.uniform() < 0.003) x = std::bit_cast<float>(random.next() % 2 == 0 ? 0x7fc00000u : 0xff800000u);
    }
    return logits;
}

}  // namespace

TEST_CASE("sampler: as a twin that sorts, on every target and without one") {
    p4::random_stream random(11);
    for (int round = 0; round < 160; ++round) {
        const std::size_t n = round % 4 == 0 ? 1 + random.next() % 5000 : 1 + random.next() % 300;
        const floats logits = mixed_logits(random, n, std::array{0.5, 4.0, 30.0}[random.next() % 3]);
        p4::sampling_options o{.seed = random.next()};
        o.temperature = std::array{0.0f, 0.3f, 0.6f, 1.0f, 5.0f}[random.next() % 5];
        o.top_p = std::array{0.05f, 0.5f, 0.95f, 1.0f}[random.next() % 4];
        o.min_p = std::array{0.0f, 0.0f, 0.1f, 1.0f}[random.next() % 4];
        o.top_k = std::array<std::size_t, 5>{0, 0, 1, 20, 1000}[random.next() % 5];
        o.repetition_penalty = std::array{1.0f, 1.3f, 0.7f}[random.next() % 3];
        std::vector<bool> allowed(n + random.next() % 5);
        for (std::size_t id = 0; id < allowed.size(); ++id) allowed[id] = random.uniform() < 0.95;
        allowed[random.next() % n] = true;
        CAPTURE(round);
        slow_sampler slow(o, allowed);
        std::vector<std::int32_t> want;
        for (int i = 0; i < 12; ++i) {
            want.push_back(slow.choose(logits));
            slow.accept(want.back());
        }
        const auto as_wanted = [&](const p4::choosing_kernels& kernels) {
            auto fast = p4::sampler::create(o, allowed, kernels);
            REQUIRE(fast);
            for (const std::int32_t id : want) {
                REQUIRE(fast->choose(logits) == id);
                fast->accept(id);
            }
        };
        as_wanted(p4::plain_choosing);
        phi4flash_test::for_each_target([&](const p4::kernel_table& kernels) { as_wanted(kernels.choosing); });
    }
}

TEST_CASE("sampler: top-p among many equally likely tokens") {
    // 10,000 of them, half of which are kept: the lower ids.
    auto options = plain;
    options.top_p = 0.5f;
    p4::sampler s = make(options, std::vector<bool>(10000, true));
    const floats logits(10000, 3.0f);
    double sum = 0.0;
    for (int i = 0; i < 4000; ++i) {
        const std::int32_t id = s.choose(logits);
        REQUIRE(id < 5000);
        sum += id;
    }
    CHECK(sum / 4000 == doctest::Approx(2500).epsilon(0.05));
}

TEST_CASE("sampler: a choice's random numbers are its own") {
    // Logits that make one sampler draw again change that choice alone.
    floats logits(400);
    p4::random_stream noise(9);
    for (float& x : logits) x = static_cast<float>(noise.uniform());
    const p4::sampling_options o{.temperature = 1.0f, .top_p = 0.3f, .seed = 5};
    p4::sampler a = make(o, std::vector<bool>(400, true));
    p4::sampler b = make(o, std::vector<bool>(400, true));
    (void)a.choose(logits);
    (void)b.choose(floats(400, 1.0f));
    for (int i = 0; i < 50; ++i) CHECK(a.choose(logits) == b.choose(logits));
}

TEST_CASE("sampler: greedy takes the highest logit, and the lowest id among equals") {
    p4::sampler s = make({.temperature = 0.0f}, std::vector<bool>(5, true));
    CHECK(s.choose(floats{1, 3, 2, 3, -1}) == 1);
    CHECK(s.choose(floats{7, 7, 7, 7, 7}) == 0);
    CHECK(s.choose(floats{-4, -3, -2, -1, -0.5f}) == 4);
}

TEST_CASE("sampler: what was moved from does not touch the memory that went along") {
    const floats rising{0, 1, 2, 3};
    const floats falling{3, 2, 1, 0};
    p4::sampler s = make({.temperature = 1.0f, .repetition_penalty = 2.0f, .seed = 3}, std::vector<bool>(4, true));
    p4::sampler same = make({.temperature = 1.0f, .repetition_penalty = 2.0f, .seed = 3}, std::vector<bool>(4, true));
    p4::sampler moved = std::move(s);
    for (int i = 0; i < 100; ++i) {
        s.accept(i % 4);  // NOLINT(bugprone-use-after-move)
        CHECK(s.choose(falling) == 0);
        CHECK(moved.choose(rising) == same.choose(rising));
    }
    s = std::move(moved);
    CHECK(s.choose(rising) == same.choose(rising));
}

TEST_CASE("sampler: an id that is not allowed is never chosen") {
    const std::vector<bool> allowed{false, true, false, true};
    p4::sampler greedy = make({.temperature = 0.0f}, allowed);
    CHECK(greedy.choose(floats{9, 1, 9, 2, 9}) == 3);  // the model may have more rows than there are ids
    p4::sampler random = make({.temperature = 100.0f, .top_p = 1.0f}, allowed);
    for (int i = 0; i < 2000; ++i) CHECK(allowed[static_cast<std::size_t>(random.choose(floats{50, 1, 50, 2, 50}))]);
}

TEST_CASE("sampler: logits that are no numbers") {
    const float nan = std::bit_cast<float>(0x7fc00000u);
    const float negative_nan = std::bit_cast<float>(0xff800001u);
    const float infinity = std::bit_cast<float>(0x7f800000u);
    const float minus_infinity = std::bit_cast<float>(0xff800000u);
    for (const float temperature : {0.0f, 0.7f}) {
        for (const float top_p : {0.5f, 1.0f}) {
            p4::sampler s = make({.temperature = temperature, .top_p = top_p}, {false, true, true});
            CHECK(s.choose(floats{nan, nan, nan}) == 1);
            CHECK(s.choose(floats{nan, negative_nan, -3}) == 2);
            CHECK(s.choose(floats{0, infinity, 5}) == 1);
            CHECK(s.choose(floats{infinity, 3, infinity}) == 2);
            CHECK(s.choose(floats{0, infinity, nan}) == 1);
            CHECK(s.choose(floats{0, minus_infinity, 5}) == 2);
            CHECK(s.choose(floats{0, minus_infinity, minus_infinity}) == 1);
        }
    }
}

TEST_CASE("sampler: any bits and any options give an allowed id") {
    // Out of bounds before, where comparisons with NaN were compiled away: sorting, and the last of no candidates.
    p4::random_stream random(3);
    const std::vector<bool> allowed = [&] {
        std::vector<bool> ids(500);
        for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = random.uniform() < 0.8;
        ids[0] = true;
        return ids;
    }();
    constexpr std::uint32_t special[] = {0x7fc00000u, 0xffc00000u, 0x7f800000u, 0xff800000u, 0x7f7fffffu, 0xff7fffffu, 1u, 0u};
    for (int round = 0; round < 600; ++round) {
        floats logits(600);
        for (float& x : logits) {
            const bool strange = random.uniform() < (round % 3 == 0 ? 1.0 : 0.2);
            x = std::bit_cast<float>(strange ? special[random.next() % 8] : static_cast<std::uint32_t>(random.next()));
        }
        p4::sampling_options o{.seed = random.next()};
        o.temperature = std::array{0.0f, 1e-45f, 1e-38f, 0.6f, 100.0f}[random.next() % 5];
        o.top_p = std::array{2e-38f, 0.5f, 1.0f}[random.next() % 3];
        o.min_p = std::array{0.0f, 2e-38f, 1.0f}[random.next() % 3];
        o.repetition_penalty = std::array{2e-38f, 1.0f, 100.0f}[random.next() % 3];
        o.top_k = std::array<std::size_t, 4>{0, 1, 7, 1000}[random.next() % 4];
        p4::sampler s = make(o, allowed);
        for (std::int32_t id = 0; id < 250; ++id) s.accept(id);
        for (int i = 0; i < 3; ++i) {
            const std::int32_t id = s.choose(logits);
            REQUIRE(id >= 0);
            REQUIRE(static_cast<std::size_t>(id) < allowed.size());
            REQUIRE(allowed[static_cast<std::size_t>(id)]);
        }
    }
}

TEST_CASE("sampler: plain sampling follows the softmax") {
    p4::sampler s = make(plain, std::vector<bool>(4, true));
    const floats p{0.5f, 0.3f, 0.15f, 0.05f};
    auto share = frequencies(s, logits_of(p), 40000);
    for (std::int32_t i = 0; i < 4; ++i) CHECK(share[i] == doctest::Approx(p[static_cast<std::size_t>(i)]).epsilon(0.06));
}

TEST_CASE("sampler: temperature sharpens and flattens") {
    auto options = plain;
    options.temperature = 0.5f;  // probabilities squared: 0.64 : 0.04
    p4::sampler sharp = make(options, std::vector<bool>(2, true));
    CHECK(frequencies(sharp, logits_of({0.8f, 0.2f}), 20000)[0] == doctest::Approx(0.64 / 0.68).epsilon(0.02));
    options.temperature = 2.0f;
    p4::sampler flat = make(options, std::vector<bool>(2, true));
    CHECK(frequencies(flat, logits_of({0.8f, 0.2f}), 20000)[0] == doctest::Approx(2.0 / 3.0).epsilon(0.02));
}

TEST_CASE("sampler: top-k, top-p and min-p keep what they should") {
    const floats p{0.1f, 0.4f, 0.05f, 0.25f, 0.2f};
    const auto kept = [&](const p4::sampling_options& options) {
        p4::sampler s = make(options, std::vector<bool>(5, true));
        std::vector<std::int32_t> ids;
        for (const auto& [id, share] : frequencies(s, logits_of(p), 4000)) ids.push_back(id);
        return ids;
    };
    const auto with = [](auto change) {
        auto options = plain;
        change(options);
        return options;
    };
    using list = std::vector<std::int32_t>;
    CHECK(kept(plain) == list{0, 1, 2, 3, 4});
    CHECK(kept(with([](auto& o) { o.top_k = 1; })) == list{1});
    CHECK(kept(with([](auto& o) { o.top_k = 3; })) == list{1, 3, 4});
    CHECK(kept(with([](auto& o) { o.top_k = 99; })) == list{0, 1, 2, 3, 4});
    CHECK(kept(with([](auto& o) { o.top_p = 0.39f; })) == list{1});
    CHECK(kept(with([](auto& o) { o.top_p = 0.41f; })) == list{1, 3});  // the one that crosses the threshold is kept
    CHECK(kept(with([](auto& o) { o.top_p = 0.86f; })) == list{0, 1, 3, 4});
    CHECK(kept(with([](auto& o) { o.min_p = 0.45f; })) == list{1, 3, 4});  // at least 0.45 * 0.4 = 0.18
    CHECK(kept(with([](auto& o) { o.min_p = 1.0f; })) == list{1});
    // Top-p counts within what top-k left: 0.4 of 0.65 is 0.615.
    CHECK(kept(with([](auto& o) { o.top_k = 2, o.top_p = 0.6f; })) == list{1});
}

TEST_CASE("sampler: the repetition penalty divides positive and multiplies negative logits") {
    p4::sampler s = make({.temperature = 0.0f, .repetition_penalty = 2.0f}, std::vector<bool>(3, true));
    CHECK(s.choose(floats{4, 3, -1}) == 0);
    s.accept(0);
    CHECK(s.choose(floats{4, 3, -1}) == 1);
    s.accept(1);
    CHECK(s.choose(floats{4, 3, -1}) == 0);    // 2 : 1.5 : -1
    CHECK(s.choose(floats{-4, -3, -5}) == 2);  // -8 : -6 : -5
    s.accept(-1);
    s.accept(1000);  // neither is an id
    CHECK(s.choose(floats{4, 3, 2.5f}) == 2);
}

TEST_CASE("sampler: the same seed gives the same tokens, another seed others") {
    floats logits(300);
    p4::random_stream noise(7);
    for (float& x : logits) x = static_cast<float>(noise.uniform());
    const auto text = [&](std::uint64_t seed) {
        p4::sampler s = make({.temperature = 1.0f, .seed = seed}, std::vector<bool>(300, true));
        std::vector<std::int32_t> ids;
        for (int i = 0; i < 40; ++i) ids.push_back(s.choose(logits));
        return ids;
    };
    CHECK(text(1) == text(1));
    CHECK(text(1) != text(2));
}

TEST_CASE("sampler: options out of range are refused by name") {
    const auto refused = [](const p4::sampling_options& options) {
        const auto s = p4::sampler::create(options, {true});
        REQUIRE_FALSE(s);
        CHECK(s.error().code() == p4::errc::invalid_argument);
        return std::string(s.error().message());
    };
    const float nan = std::bit_cast<float>(0x7fc00000u);
    CHECK(refused({.temperature = -1.0f}) == "temperature: want 0 to 100, have -1");
    CHECK(refused({.temperature = nan}).starts_with("temperature"));
    CHECK(refused({.top_p = 0.0f}).starts_with("top_p"));
    CHECK(refused({.top_p = 1.5f}).starts_with("top_p"));
    CHECK(refused({.min_p = -0.1f}).starts_with("min_p"));
    CHECK(refused({.min_p = nan}).starts_with("min_p"));
    CHECK(refused({.repetition_penalty = 0.0f}).starts_with("repetition_penalty"));
    const auto nothing = p4::sampler::create({}, {false, false});
    REQUIRE_FALSE(nothing);
    CHECK(nothing.error().code() == p4::errc::invalid_argument);
}
