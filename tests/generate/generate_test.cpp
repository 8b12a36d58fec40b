/// The generation loop on small golden models: equal to the golden continuations, every way to end, seeds, threads, and what it
/// leaves in the session.
#include <phi4flash/config/macros.hpp>
#if PHI4FLASH_HAS_JSON
#include "generate_testing.hpp"

#include <phi4flash/generate/ngram_drafter.hpp>

#include <cmath>

using namespace generate_testing;

TEST_CASE("generate: greedy continuations are the golden ones") {
    for (const golden::prompt& p : golden::read_prompts("f32-8l")) {
        fixture f;
        const auto summary = f.generate(p.tokens, {.sampling = greedy, .max_tokens = p.greedy.size()});
        REQUIRE(summary);
        CHECK(f.tokens == p.greedy);
        CHECK(f.text.empty());
        CHECK(summary->reason == stop_reason::max_tokens);
        CHECK(summary->prompt_tokens == p.tokens.size());
        CHECK(summary->new_tokens == p.greedy.size());
        CHECK(summary->unread == p.greedy.back());
        CHECK(f.past.position() == p.tokens.size() + p.greedy.size() - 1);
    }
}

TEST_CASE("generate: going on with the unread token first equals one run") {
    const golden::prompt& p = first_prompt();
    fixture f;
    const auto first = f.generate(p.tokens, {.sampling = greedy, .max_tokens = 5});
    REQUIRE(first);
    ids_type all = f.tokens;
    REQUIRE(f.generate({first->unread}, {.sampling = greedy, .max_tokens = p.greedy.size() - 5}));
    all.insert(all.end(), f.tokens.begin(), f.tokens.end());
    CHECK(all == p.greedy);
}

TEST_CASE("generate: a stop id ends the text and is not passed on") {
    const golden::prompt& p = first_prompt();
    const std::int32_t stop = p.greedy[4];
    const auto before = static_cast<std::size_t>(std::ranges::find(p.greedy, stop) - p.greedy.begin());
    fixture f;
    const auto summary = f.generate(p.tokens, {.sampling = greedy, .stop_ids = {0, stop}});
    REQUIRE(summary);
    CHECK(summary->reason == stop_reason::stop_token);
    CHECK(f.tokens == ids_type(p.greedy.begin(), p.greedy.begin() + static_cast<std::ptrdiff_t>(before)));
    CHECK(summary->new_tokens == before);
    CHECK(summary->unread == stop);
}

TEST_CASE("generate: no new tokens, and a prompt that cannot be read") {
    const golden::prompt& p = first_prompt();
    fixture f;
    const auto none = f.generate(p.tokens, {.sampling = greedy, .max_tokens = 0});
    REQUIRE(none);
    CHECK(none->reason == stop_reason::max_tokens);
    CHECK(f.tokens.empty());
    CHECK(none->unread == -1);
    CHECK(f.past.position() == p.tokens.size());

    fixture fresh;
    const auto refused = [&](const ids_type& prompt) {
        const auto r = fresh.generate(prompt, {.sampling = greedy});
        REQUIRE_FALSE(r);
        CHECK(fresh.past.position() == 0);
        CHECK(fresh.tokens.empty());
        return r.error().code();
    };
    CHECK(refused({}) == p4::errc::invalid_argument);
    CHECK(refused({1, -1}) == p4::errc::unknown_token);
    CHECK(refused({1, 1000000}) == p4::errc::unknown_token);
    CHECK(refused(ids_type(257, 1)) == p4::errc::context_full);
    const auto wrong = fresh.generate({1}, {.sampling = {.temperature = -1.0f}});
    REQUIRE_FALSE(wrong);
    CHECK(wrong.error().code() == p4::errc::invalid_argument);
}

TEST_CASE("generate: options that cannot be meant are refused by name, before anything is read") {
    fixture f;
    const auto vocab = static_cast<std::int32_t>(f.m.shape().vocab());
    p4::ngram_drafter ngrams = *p4::ngram_drafter::create(64);
    const auto refused = [&](const p4::generation_options& options, p4::errc code, std::string_view words) {
        CAPTURE(words);
        const auto r = f.generate(first_prompt().tokens, options);
        REQUIRE_FALSE(r);
        CHECK(r.error().code() == code);
        CHECK(std::string_view(r.error().message()).starts_with(words));
        CHECK(f.past.position() == 0);
    };
    refused({.sampling = greedy, .stop_ids = {-5}}, p4::errc::unknown_token, "stop_ids[0]: want an id of the model");
    refused({.sampling = greedy, .stop_ids = {vocab - 1, vocab}}, p4::errc::unknown_token, "stop_ids[1]: want an id of the model");
    refused({.sampling = greedy, .stop_strings = {"a", ""}}, p4::errc::invalid_argument, "stop_strings[1]: want at least one byte");
    refused({.sampling = greedy, .stop_strings = {"ab\xC3"}}, p4::errc::invalid_argument,
            "stop_strings[0]: want UTF-8, have the byte 0xC3 at offset 2");
    refused({.sampling = greedy, .drafts = {.from = ngrams, .most = p4::max_drafts + 1}}, p4::errc::invalid_argument,
            "drafts.most: want at most 31, have 32");
    refused({.sampling = {.temperature = NAN}}, p4::errc::invalid_argument, "temperature");
    CHECK(f.generate(first_prompt().tokens, {.sampling = greedy, .max_tokens = 1, .stop_ids = {0, vocab - 1}}));
    CHECK(p4::check_generation({.drafts = {.most = 1000}}, 10));  // nobody drafts
    const p4::tokenizer words = small_tokenizer();  // of more ids than the model has: its own ends are among the options of a model's files
    const auto last = static_cast<std::int32_t>(words.vocab_size()) - 1;
    CHECK(p4::check_generation({.stop_ids = {last}}, 10, &words));
    CHECK_FALSE(p4::check_generation({.stop_ids = {last + 1}}, 10, &words));
    CHECK_FALSE(p4::check_generation({.stop_ids = {last}}, 10));
}

TEST_CASE("generate: a full context ends the text with its last token given out") {
    const golden::prompt& p = first_prompt();
    fixture f(p.tokens.size() + 3);
    const auto summary = f.generate(p.tokens, {.sampling = greedy});
    REQUIRE(summary);
    CHECK(summary->reason == stop_reason::context_full);
    CHECK(f.tokens == ids_type(p.greedy.begin(), p.greedy.begin() + 4));
    CHECK(f.past.position() == f.past.context());
    CHECK(summary->unread == p.greedy[3]);
}

TEST_CASE("generate: the sink stops the text") {
    const golden::prompt& p = first_prompt();
    fixture f;
    const auto summary = f.generate(p.tokens, {.sampling = greedy}, nullptr, 3);
    REQUIRE(summary);
    CHECK(summary->reason == stop_reason::sink);
    CHECK(f.tokens == ids_type(p.greedy.begin(), p.greedy.begin() + 3));
    CHECK(summary->unread == p.greedy[2]);
}

TEST_CASE("generate: a sink that said stop is not called again, even where text was held back") {
    const golden::prompt& p = first_prompt();
    fixture f = wide_fixture();
    const p4::tokenizer t = small_tokenizer();
    const auto run = [&](std::size_t max_tokens, std::size_t last_call, std::size_t& calls, bool& flushed) {
        f.past.reset();
        calls = 0;
        flushed = false;
        return p4::generate(f.m, f.past, f.w, &t, p.tokens, {.sampling = greedy, .max_tokens = max_tokens}, [&](const p4::generation_event& event) {
            flushed = event.token < 0;
            return ++calls != last_call;
        });
    };
    // After how many tokens something is held back: an incomplete character, which the end of the text would give out.
    std::size_t calls = 0;
    bool flushed = false;
    std::size_t held = 0;
    while (!flushed && held < 40) REQUIRE(run(++held, SIZE_MAX, calls, flushed));
    REQUIRE(flushed);
    const auto summary = run(40, held, calls, flushed);
    REQUIRE(summary);
    CHECK(summary->reason == stop_reason::sink);
    CHECK(calls == held);
    CHECK(!flushed);
}

TEST_CASE("generate: what is cancelled before it begins reads nothing") {
    const golden::prompt& p = first_prompt();
    fixture f;
    const std::atomic<bool> cancel{true};
    const p4::generation_options options{.sampling = greedy, .cancel = &cancel};
    const auto summary = f.generate(p.tokens, options);
    REQUIRE(summary);
    CHECK(summary->reason == stop_reason::cancelled);
    CHECK(summary->prompt_tokens == 0);
    CHECK(f.past.position() == 0);
    CHECK(f.tokens.empty());
}

TEST_CASE("generate: cancelling between two tokens") {
    const golden::prompt& p = first_prompt();
    fixture f;
    std::atomic<bool> cancel{false};
    std::size_t seen = 0;
    const p4::generation_options options{.sampling = greedy, .cancel = &cancel};
    const auto summary = p4::generate(f.m, f.past, f.w, nullptr, p.tokens, options, [&](const p4::generation_event&) {
        if (++seen == 4) cancel = true;
        return true;
    });
    REQUIRE(summary);
    CHECK(summary->reason == stop_reason::cancelled);
    CHECK(seen == 4);
    CHECK(summary->new_tokens == 4);
    CHECK(summary->unread == p.greedy[3]);  // nothing was read after the flag was set
    CHECK(f.past.position() == p.tokens.size() + 3);
}

TEST_CASE("generate: cancelling a prompt, and reading the rest later") {
    const golden::prompt& p = first_prompt();
    ids_type prompt;
    while (prompt.size() < 40) prompt.insert(prompt.end(), p.tokens.begin(), p.tokens.end());
    fixture whole;
    REQUIRE(whole.generate(prompt, {.sampling = greedy, .max_tokens = 8}));

    fixture f;
    std::atomic<bool> cancel{false};
    const p4::generation_options options{.sampling = greedy, .max_tokens = 8, .cancel = &cancel};
    const auto summary = p4::generate(
        f.m, f.past, f.w, nullptr, prompt, options, [](const p4::generation_event&) { return true; },
        [&](std::size_t read, std::size_t total) {
            CHECK(total == prompt.size());
            if (read >= 16) cancel = true;
        });
    REQUIRE(summary);
    CHECK(summary->reason == stop_reason::cancelled);
    CHECK(summary->prompt_tokens == 16);  // two chunks of 8
    CHECK(summary->new_tokens == 0);
    CHECK(f.past.position() == 16);
    cancel = false;
    REQUIRE(f.generate(ids_type(prompt.begin() + 16, prompt.end()), options));
    CHECK(f.tokens == whole.tokens);
}

TEST_CASE("generate: text, stop strings and ids without a string") {
    fixture f = wide_fixture();
    const p4::tokenizer t = small_tokenizer();
    const golden::prompt& p = first_prompt();

    p4::generation_options options{.sampling = {.temperature = 5.0f, .top_p = 1.0f, .seed = 3}, .max_tokens = 200};
    const auto summary = f.generate(p.tokens, options, &t);
    REQUIRE(summary);
    REQUIRE(f.tokens.size() == 200);
    for (const std::int32_t token : f.tokens) CHECK(t.has_string(token));
    std::string all;
    REQUIRE(t.decode(f.tokens, {}, all));
    CHECK(f.text == all);
    CHECK(p4::valid_utf8_prefix(f.text) == f.text.size());

    // The same again, with a stop string out of the middle of the text.
    std::size_t at = 40;
    while (at < f.text.size() && (static_cast<unsigned char>(f.text[at]) & 0xC0) == 0x80) ++at;
    std::size_t end = at + 6;
    while (end < f.text.size() && (static_cast<unsigned char>(f.text[end]) & 0xC0) == 0x80) ++end;
    const std::string stop = f.text.substr(at, end - at);
    const std::string before = f.text.substr(0, f.text.find(stop));
    fixture again = wide_fixture();
    options.stop_strings = {"not in the text at all", stop};
    const auto cut = again.generate(p.tokens, options, &t);
    REQUIRE(cut);
    CHECK(cut->reason == stop_reason::stop_string);
    CHECK(again.text == before);
    CHECK(cut->new_tokens == again.tokens.size());
    CHECK(std::ranges::equal(again.tokens, std::span(f.tokens).first(again.tokens.size())));
}

TEST_CASE("generate: held text comes out when the text ends") {
    const p4::tokenizer t = small_tokenizer();
    fixture f = wide_fixture();
    const golden::prompt& p = first_prompt();
    p4::generation_options options{.sampling = {.temperature = 5.0f, .top_p = 1.0f, .seed = 3}, .max_tokens = 30};
    REQUIRE(f.generate(p.tokens, options, &t));
    const std::string all = f.text;
    fixture again = wide_fixture();
    std::size_t end = all.size() - 2;
    while ((all[end] & 0xC0) == 0x80) --end;  // where a character begins
    options.stop_strings = {all.substr(end) + "never comes"};  // its beginning is held back
    const auto summary = again.generate(p.tokens, options, &t);
    REQUIRE(summary);
    CHECK(summary->reason == stop_reason::max_tokens);
    CHECK(again.text == all);
}

TEST_CASE("generate: the same seed, the same tokens, on any number of threads") {
    const golden::prompt& p = first_prompt();
    const p4::generation_options options{.sampling = {.temperature = 1.0f, .seed = 11}, .max_tokens = 60};
    fixture one;
    REQUIRE(one.generate(p.tokens, options));
#if PHI4FLASH_THREADS
    for (const std::size_t threads : {2, 3}) {
        auto pool = p4::thread_pool::create(threads);
        REQUIRE(pool);
        fixture many(256, {.chunk = 8, .threads = *pool});
        REQUIRE(many.generate(p.tokens, options));
        CHECK(many.tokens == one.tokens);
    }
#endif
    fixture other;
    auto changed = options;
    changed.sampling.seed = 12;
    REQUIRE(other.generate(p.tokens, changed));
    CHECK(other.tokens != one.tokens);
}

namespace {
/// Every id below 300 has a string: bytes, then words, and one special token among them.
p4::tokenizer tokenizer_with_special(std::int32_t at) {
    p4::tokenizer_builder builder;
    std::size_t byte = 0;
    for (std::int32_t id = 0; id < 300; ++id) {
        const char c = static_cast<char>(byte);
        if (id == at) {
            REQUIRE(builder.add_added_token({.id = static_cast<std::uint32_t>(id), .content = "<|end|>", .special = true}));
        } else if (byte < 256) {
            REQUIRE(builder.add_token(static_cast<std::size_t>(id), std::string_view(&c, 1)));
            ++byte;
        } else {
            REQUIRE(builder.add_added_token({.id = static_cast<std::uint32_t>(id), .content = "<" + std::to_string(id) + ">"}));
        }
    }
    auto t = builder.build();
    REQUIRE_MESSAGE(t, t.error().message());
    return *std::move(t);
}
}  // namespace

TEST_CASE("generate: a stop string that is a special token ends the text, whether special tokens are shown or not") {
    const ids_type prompt = golden::read_prompts("bf16-12l-sharded").front().tokens;
    const p4::sampling_options lively{.temperature = 3.0f, .top_p = 1.0f, .seed = 5};  // greedy texts of this model repeat themselves
    fixture free = wide_fixture();
    REQUIRE(free.generate(prompt, {.sampling = lively, .max_tokens = 64}));
    const ids_type ids = free.tokens;
    // A token that is new, between two that are whole characters or words, so that the text has their very bytes.
    const auto fits = [&](std::size_t i) {
        const auto here = ids.begin() + static_cast<std::ptrdiff_t>(i);
        const auto whole = [](std::int32_t id) { return id < 128 || id > 256; };
        return std::find(ids.begin(), here, *here) == here && whole(ids[i - 1]) && whole(ids[i + 1]);
    };
    std::size_t place = 2;
    while (place + 1 < ids.size() && !fits(place)) ++place;
    REQUIRE(place + 1 < ids.size());
    const p4::tokenizer t = tokenizer_with_special(ids[place]);
    const auto text_of = [&](std::size_t n, bool skip_special) {
        std::string text;
        REQUIRE(t.decode(std::span(ids).first(n), {.skip_special = skip_special}, text));
        return text;
    };
    const std::string after(t.bytes_of(ids[place + 1]));
    for (const bool skip_special : {true, false}) {
        CAPTURE(skip_special);
        const auto run = [&](std::string stop) {
            fixture f = wide_fixture();
            const auto summary = f.generate(
                prompt, {.sampling = lively, .max_tokens = 64, .stop_strings = {std::move(stop)}, .skip_special = skip_special}, &t);
            REQUIRE(summary);
            return std::pair(f.text, *summary);
        };
        CHECK(run("<|end|>").second.reason == stop_reason::stop_string);
        CHECK(run("<|end|>").second.new_tokens == place + 1);
        CHECK(run("<|end|>").second.unread == ids[place]);
        CHECK(run("<|end|>").first == text_of(place, skip_special));
        CHECK(run("<|end|>" + after).second.new_tokens == place + 2);  // and what follows it
        CHECK(run("<|end|>" + after).first == text_of(place, skip_special));
        CHECK(run("<|end|>never").second.reason == stop_reason::max_tokens);
        CHECK(run("<|end|>never").first == text_of(64, skip_special));
    }
}

TEST_CASE("generate: ids that may be chosen") {
    const p4::tokenizer t = small_tokenizer();
    const ids_type stops{210, 255, -1, 100000};
    CHECK(p4::may_be_chosen(0, &t, stops));
    CHECK_FALSE(p4::may_be_chosen(200, &t, stops));  // a gap
    CHECK(p4::may_be_chosen(210, &t, stops));        // a stop id, though it has no string
    CHECK(p4::may_be_chosen(295, &t, stops));
    CHECK_FALSE(p4::may_be_chosen(296, &t, stops));  // beyond the tokenizer
    CHECK(p4::may_be_chosen(296, nullptr, {}));
}
#endif
