/// The sampler: greedy and its ties, each filter against probabilities worked out by hand, seeds, and ids that may not be chosen.
#include <phi4flash/generate/sampler.hpp>

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

}  // namespace

TEST_CASE("sampler: greedy takes the highest logit, and the lowest id among equals") {
    p4::sampler s = make({.temperature = 0.0f}, std::vector<bool>(5, true));
    CHECK(s.choose(floats{1, 3, 2, 3, -1}) == 1);
    CHECK(s.choose(floats{7, 7, 7, 7, 7}) == 0);
    CHECK(s.choose(floats{-4, -3, -2, -1, -0.5f}) == 4);
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
