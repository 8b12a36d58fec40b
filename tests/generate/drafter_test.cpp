/// Who drafts: n-grams of a text against a twin that looks through all of it, what is remembered of a long text, chances; and how many drafts
/// are read where passes cost this and that.
#include "support/test_support.hpp"

#include <phi4flash/generate/draft_policy.hpp>
#include <phi4flash/generate/ngram_drafter.hpp>

#include <doctest/doctest.h>

#include <map>
#include <numeric>

namespace p4 = phi4flash;

namespace {

using ids_type = std::vector<std::int32_t>;
using phi4flash_test::generator;

p4::ngram_drafter drafter_for(std::size_t tokens) {
    auto d = p4::ngram_drafter::create(tokens);
    REQUIRE(d);
    return *std::move(d);
}

ids_type proposed(p4::ngram_drafter& d, std::size_t most) {
    std::vector<p4::draft> out(most);
    out.resize(d.propose(out));
    ids_type ids;
    for (const p4::draft& one : out) {
        CHECK(one.chance > 0.0f);
        CHECK(one.chance < 1.0f);
        ids.push_back(one.token);
    }
    return ids;
}

/// The guess after a text, by looking at all places of its last `kept` tokens that end in its last `least` tokens, latest first.
std::int32_t slow_guess(const ids_type& text, std::size_t kept, std::size_t least) {
    const std::size_t oldest = text.size() > kept ? text.size() - kept : 0;
    std::vector<std::pair<std::int32_t, std::uint64_t>> votes;
    std::size_t looked_at = 0;
    for (std::size_t place = text.size() - 1; place-- > oldest + 1;) {
        std::size_t length = 0;
        while (length < 40 && place >= oldest + length && text[place - length] == text[text.size() - 1 - length]) ++length;
        if (length < least) continue;
        if (length >= 10) return text[place + 1];
        auto mine = std::ranges::find(votes, text[place + 1], [](const auto& v) { return v.first; });
        if (mine == votes.end()) mine = votes.insert(votes.end(), {text[place + 1], 0});
        mine->second += std::uint64_t{1} << 2 * std::min<std::size_t>(length, 8);
        if (++looked_at == 64) break;
    }
    // By the last token alone where the last two were not seen.
    if (votes.empty()) return least == 1 ? -1 : slow_guess(text, kept, least - 1);
    // The one that had most first: a tie is won by whoever was ahead.
    return std::ranges::max_element(votes, {}, [](const auto& v) { return v.second; })->first;
}

/// A text of a few words, whose pairs come often.
ids_type some_text(generator& random, std::size_t n, std::size_t words) {
    ids_type text;
    while (text.size() < n) {
        if (text.size() > 40 && random.below(4) == 0) {  // something said before
            const std::size_t from = random.below(text.size() - 20);
            for (std::size_t i = 0; i < 3 + random.below(16); ++i) text.push_back(text[from + i]);
        } else {
            text.push_back(static_cast<std::int32_t>(random.below(words)));
        }
    }
    text.resize(n);
    return text;
}

}  // namespace

TEST_CASE("ngram_drafter: what followed the last tokens before") {
    auto d = drafter_for(100);
    CHECK(proposed(d, 15).empty());
    d.read(ids_type{1, 2, 3, 4, 5, 6, 7});
    CHECK(proposed(d, 15).empty());
    d.read(ids_type{1, 2});
    CHECK(proposed(d, 4) == ids_type{3, 4, 5, 6});
    CHECK(proposed(d, 2) == ids_type{3, 4});
    CHECK(proposed(d, 0).empty());
    d.read(ids_type{3, 9});  // something else
    CHECK(proposed(d, 4).empty());
    d.read(ids_type{3, 9});
    CHECK(proposed(d, 3) == ids_type{3, 9, 3});
    // The longer agreement wins over the later one.
    d.read(ids_type{20, 21, 22, 23, 30, 22, 23, 31, 20, 21, 22, 23});
    CHECK(proposed(d, 1) == ids_type{30});
    // A pair that is new is guessed by its last token.
    d.read(ids_type{40, 50, 41});
    CHECK(proposed(d, 1).empty());
    d.read(ids_type{50});
    CHECK(proposed(d, 2) == ids_type{41, 50});
    d.reset();
    CHECK(proposed(d, 15).empty());
    d.read(ids_type{1, 2, 1, 2});
    CHECK(proposed(d, 3) == ids_type{1, 2, 1});
}

TEST_CASE("ngram_drafter: what was moved from guesses nothing, and does not touch the memory that went along") {
    auto d = drafter_for(100);
    d.read(ids_type{1, 2, 3, 4, 1, 2});
    auto moved = std::move(d);
    d.reset();  // NOLINT(bugprone-use-after-move)
    d.read(ids_type{7, 8, 7, 8, 7, 8});
    CHECK(proposed(d, 4).empty());
    CHECK(proposed(moved, 2) == ids_type{3, 4});
}

TEST_CASE("ngram_drafter: as a twin that looks at everything") {
    generator random(4);
    for (const std::size_t words : {3u, 12u, 200u}) {
        for (const std::size_t kept : {50u, 300u, 5000u}) {
            CAPTURE(words);
            CAPTURE(kept);
            const ids_type text = some_text(random, 1500, words);
            auto d = drafter_for(kept);
            std::size_t same = 0;
            std::size_t guesses = 0;
            for (std::size_t n = 0; n + 1 < text.size(); ++n) {
                d.read(std::span(text).subspan(n, 1));
                const ids_type have = proposed(d, 1);
                const std::int32_t want = slow_guess({text.begin(), text.begin() + static_cast<std::ptrdiff_t>(n + 1)}, kept, 2);
                guesses += want >= 0 || !have.empty() ? 1 : 0;
                same += !have.empty() && have[0] == want ? 1 : 0;
            }
            REQUIRE(guesses > 100);
            // Votes may be even, and two pairs may share a chain.
            CHECK(static_cast<double>(same) >= 0.97 * static_cast<double>(guesses));
        }
    }
}

TEST_CASE("ngram_drafter: of a text longer than it remembers the last part counts") {
    generator random(5);
    auto d = drafter_for(64);
    ids_type text(1000);
    std::iota(text.begin(), text.end(), 0);
    d.read(text);
    d.read(ids_type{10, 11});  // long forgotten
    CHECK(proposed(d, 5).empty());
    d.read(ids_type{990, 991});
    CHECK(proposed(d, 5) == ids_type{992, 993, 994, 995, 996});
    CHECK(p4::ngram_drafter::bytes(32768) < 16 * 32768);
    CHECK_FALSE(p4::ngram_drafter::create(0));
    CHECK_FALSE(p4::ngram_drafter::create(SIZE_MAX));
}

TEST_CASE("ngram_drafter: chances are those that guesses had") {
    // Pairs are followed by one token nine times of ten.
    generator random(6);
    auto d = drafter_for(20000);
    double expected = 0.0;
    double hits = 0.0;
    std::int32_t last = 0;
    for (int i = 0; i < 6000; ++i) {
        const auto next = static_cast<std::int32_t>(random.below(10) != 0 ? (last + 1) % 40 : random.below(40));
        p4::draft out[1];
        if (i > 1000 && d.propose(out) == 1) {
            expected += static_cast<double>(out[0].chance);
            hits += out[0].token == next ? 1.0 : 0.0;
        }
        d.read(ids_type{next});
        last = next;
    }
    CHECK(hits > 3900);
    CHECK(expected == doctest::Approx(hits).epsilon(0.04));
}

namespace {

/// A machine whose passes of 1 + n tokens cost what `cost(1 + n)` says, and drafts of which each is right with `chance`.
template <class Cost>
std::pair<double, std::size_t> gain_with(Cost&& cost, double chance, bool known, std::size_t passes = 4000, double noise = 0.0) {
    p4::draft_policy policy;
    generator random(7);
    double tokens = 0.0;
    double seconds = 0.0;
    std::size_t most = 0;
    for (std::size_t pass = 0; pass < passes; ++pass) {
        std::vector<p4::draft> drafts(policy.ask(15), p4::draft{1, known ? static_cast<float>(chance) : p4::draft::unknown});
        drafts.resize(policy.choose(drafts));
        std::size_t accepted = 0;
        while (accepted < drafts.size() && static_cast<double>(random.uniform(0.0f, 1.0f)) < chance) ++accepted;
        const double held_up = random.below(20) == 0 ? 10.0 * noise : static_cast<double>(random.uniform(0.0f, 1.0f)) * noise;
        policy.took(drafts.size(), 0.045 * cost(1 + drafts.size()) * (1.0 + held_up));
        policy.fared(drafts, accepted);
        tokens += 1.0 + static_cast<double>(accepted);
        seconds += 0.045 * cost(1 + drafts.size());
        if (pass > passes / 2) most = std::max(most, drafts.size());
    }
    return {tokens / (seconds / 0.045), most};
}

}  // namespace

TEST_CASE("draft_policy: drafts are read where they pay, and cost nothing where they do not") {
    const auto cheap = [](std::size_t n) { return 1.0 + 0.06 * static_cast<double>(n - 1); };
    const auto dear = [](std::size_t n) { return static_cast<double>(n); };
    const auto steps = [](std::size_t n) { return n == 1 ? 1.0 : n <= 4 ? 1.6 : 2.4; };
    const auto steep = [](std::size_t n) { return n == 1 ? 1.0 : n <= 4 ? 1.15 : 0.35 * static_cast<double>(n); };
    for (const bool known : {true, false}) {
        for (const double noise : {0.0, 0.1}) {
            CAPTURE(known);
            CAPTURE(noise);
            CHECK(gain_with(cheap, 0.95, known, 4000, noise).first > 4.0);
            CHECK(gain_with(cheap, 0.95, known, 4000, noise).second >= 7);
            CHECK(gain_with(cheap, 0.5, known, 4000, noise).first > 1.4);
            for (const double chance : {0.0, 0.02, 0.5, 0.9}) {
                CAPTURE(chance);
                CHECK(gain_with(dear, chance, known, 4000, noise).first > 0.98);
                CHECK(gain_with(steps, chance, known, 4000, noise).first > 0.98);
                CHECK(gain_with(cheap, chance, known, 4000, noise).first > 0.98);
            }
            CHECK(gain_with(steps, 0.9, known, 4000, noise).first > 1.9);
            // A short text: what four tokens cost must be known although sixteen pay, too.
            if (known) CHECK(gain_with(steep, 0.97, known, 100, noise).first > 2.9);
        }
    }
    CHECK(gain_with(dear, 0.9, true, 500).second <= 1);
}

TEST_CASE("draft_policy: chances that promise too much are found out") {
    p4::draft_policy policy;
    const auto drafts = [&] {
        std::vector<p4::draft> out(policy.ask(15), p4::draft{1, 0.9f});
        out.resize(policy.choose(out));
        return out;
    };
    for (int i = 0; i < 50; ++i) policy.took(0, 0.045);
    for (const std::size_t few : {1u, 3u, 7u}) {
        CHECK(drafts().size() == few);
        policy.took(few, 0.05);
    }
    CHECK(drafts().size() > 7);
    for (int i = 0; i < 200; ++i) {
        const auto now = drafts();
        policy.took(now.size(), 0.045 * (1.0 + 0.4 * static_cast<double>(now.size())));
        policy.fared(now, 0);
    }
    CHECK(drafts().empty());
}
