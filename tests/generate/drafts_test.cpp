/// Texts with drafts are those without: greedy and sampled, with a repetition penalty, with stop strings, whatever the drafts are; and what a
/// summary counts.
#include <phi4flash/config/macros.hpp>
#if PHI4FLASH_HAS_JSON
#include "generate_testing.hpp"

#include <phi4flash/generate/ngram_drafter.hpp>

using namespace generate_testing;

namespace {

/// Text of a model that repeats itself, from a prompt that does too.
ids_type repeating_prompt() {
    ids_type prompt;
    while (prompt.size() < 48) prompt.insert(prompt.end(), first_prompt().tokens.begin(), first_prompt().tokens.end());
    return prompt;
}

/// Says `period` tokens again and again, right or wrong.
struct parrot {
    ids_type text;
    std::size_t period;
    void read(std::span<const std::int32_t> tokens) { text.insert(text.end(), tokens.begin(), tokens.end()); }
    std::size_t propose(std::span<std::int32_t> out) const {
        for (std::size_t i = 0; i < out.size(); ++i) out[i] = text.size() < period ? 0 : text[text.size() - period + i % period];
        return out.size();
    }
};

fixture drafting_fixture(const char* name = "f32-8l") { return fixture(512, p4::with_drafts({.chunk = 8}), name); }

p4::ngram_drafter fresh_drafter() { return *p4::ngram_drafter::create(512); }

}  // namespace

TEST_CASE("drafts: sampled and greedy texts are those without, whoever drafts") {
    const ids_type prompt = repeating_prompt();
    std::size_t accepted = 0;
    for (const char* const name : {"f32-8l", "bf16-12l-sharded"}) {
        CAPTURE(name);
        for (const p4::sampling_options& sampling :
             {greedy, p4::sampling_options{.seed = 1}, p4::sampling_options{.temperature = 1.5f, .top_p = 0.9f, .seed = 2},
              p4::sampling_options{.temperature = 1.0f, .min_p = 0.05f, .top_k = 20, .seed = 3},
              p4::sampling_options{.temperature = 0.8f, .repetition_penalty = 1.2f, .seed = 4}}) {
            CAPTURE(sampling.seed);
            p4::generation_options options{.sampling = sampling, .max_tokens = 80};
            fixture plain(512, {.chunk = 8}, name);
            const auto want = plain.generate(prompt, options);
            REQUIRE(want);
            CHECK(want->drafted == 0);
            const auto as_without = [&](p4::drafter_ref from, p4::draft_policy* policy, std::size_t most) {
                fixture f = drafting_fixture(name);
                options.drafts = {.from = from, .policy = policy, .most = most};
                const auto have = f.generate(prompt, options);
                REQUIRE(have);
                CHECK(f.tokens == plain.tokens);
                CHECK(f.past.position() == plain.past.position());
                CHECK(have->unread == want->unread);
                CHECK(have->accepted <= have->drafted);
                return *have;
            };
            p4::draft_policy policy;
            for (const std::size_t most : {1, 3, 15}) {
                auto ngrams = fresh_drafter();
                accepted += as_without(ngrams, nullptr, most).accepted;
                auto again = fresh_drafter();
                (void)as_without(again, &policy, most);
                parrot says{{}, most};
                (void)as_without(says, nullptr, most);
            }
            p4::drafter_ref nobody;
            CHECK(as_without(nobody, &policy, 15).drafted == 0);
        }
    }
    CHECK(accepted > 200);
}

TEST_CASE("drafts: a stop string inside a run of accepted drafts ends the text where it does without") {
    const p4::tokenizer words = small_tokenizer();
    const ids_type prompt{1, 2, 3, 4};
    p4::generation_options options{.sampling = {.temperature = 0.0f}, .max_tokens = 60};
    fixture free = wide_fixture();
    REQUIRE(free.generate(prompt, options, &words));
    const ids_type whole = free.tokens;
    const std::string text = free.text;
    std::size_t stopped = 0;
    for (std::size_t at = 1; at + 3 < text.size(); ++at) {
        options.stop_strings = {text.substr(at, 3)};
        options.drafts = {};
        fixture plain = wide_fixture();
        const auto want = plain.generate(prompt, options, &words);
        if (!want) continue;  // no whole characters
        fixture f = drafting_fixture("bf16-12l-sharded");
        auto ngrams = fresh_drafter();
        ngrams.read(prompt);
        ngrams.read(whole);
        options.drafts.from = ngrams;
        const auto have = f.generate(prompt, options, &words);
        REQUIRE(have);
        CHECK(have->reason == want->reason);
        CHECK(have->new_tokens == want->new_tokens);
        CHECK(have->unread == want->unread);
        CHECK(f.text == plain.text);
        CHECK(f.tokens == plain.tokens);
        REQUIRE(f.past.position() == plain.past.position());
        stopped += have->accepted != 0 && have->reason == stop_reason::stop_string ? 1 : 0;
        // The sessions are the same: they go on to the same text.
        options.stop_strings.clear();
        options.drafts = {};
        REQUIRE(plain.generate({want->unread}, options, &words));
        REQUIRE(f.generate({have->unread}, options, &words));
        CHECK(f.tokens == plain.tokens);
    }
    CHECK(stopped > 5);
}

#if PHI4FLASH_SIMD_SCALAR
TEST_CASE("drafts: with scalar kernels and weights that are not quantized, logits are the very same in passes of any size") {
    for (const char* const name : {"f32-8l", "bf16-12l-sharded"}) {
        CAPTURE(name);
        fixture plain(512, {.chunk = 8}, name);
        fixture f = drafting_fixture(name);
        const ids_type prompt = repeating_prompt();
        REQUIRE(p4::prefill(plain.m, plain.past, plain.w, std::span(prompt).first(16)));
        REQUIRE(p4::prefill(f.m, f.past, f.w, std::span(prompt).first(16)));
        for (const std::size_t n : {1, 2, 3, 5, 16}) {
            const auto tokens = std::span(prompt).subspan(f.past.position(), std::min(n, prompt.size() - f.past.position()));
            p4::pass<p4::any_sambay, float> p;
            const p4::reading<p4::any_sambay, float> r{&f.past, tokens, tokens.size(), tokens.size()};
            REQUIRE(p.begin(f.m, f.w, {&r, 1}));
            while (p.advance()) {}
            for (std::size_t i = 0; i < tokens.size(); ++i) {
                const auto logits = p4::step(plain.m, plain.past, plain.w, tokens[i]);
                REQUIRE(logits);
                CHECK(std::memcmp(logits->data(), p.logits(0)[i], logits->size_bytes()) == 0);
            }
            REQUIRE(p.commit(0, tokens.size()));
            p.end();
        }
    }
}
#endif

TEST_CASE("drafts: a workspace without room for them drafts fewer") {
    const ids_type prompt = repeating_prompt();
    for (const std::size_t room : {1, 2, 4}) {
        fixture f(512, {.chunk = 8, .states = room, .logits = room});
        auto ngrams = fresh_drafter();
        const auto have = f.generate(prompt, {.sampling = greedy, .max_tokens = 40, .drafts = {.from = ngrams}});
        REQUIRE(have);
        CHECK((have->drafted == 0) == (room == 1));
        CHECK(have->drafted <= 40 * (room - 1));
        fixture plain;
        REQUIRE(plain.generate(prompt, {.sampling = greedy, .max_tokens = 40}));
        CHECK(f.tokens == plain.tokens);
    }
}
#endif
