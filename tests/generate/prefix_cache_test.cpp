/// What was read before is not read again: the deepest entry that begins a prompt, to the bits that were kept, within the budget.
#include "model/session_testing.hpp"

#include <phi4flash/generate/prefix_cache.hpp>

namespace p4 = phi4flash;

namespace {

using session_testing::bytes;
using session_testing::check_refused;
using session_testing::ids;

template <class Kv>
struct cached_fixture : session_testing::fixture<Kv> {
    using base = session_testing::fixture<Kv>;
    using typename base::session;
    using cache = p4::prefix_cache<p4::any_sambay, Kv>;

    cached_fixture() : base({.chunk = 64, .states = 8}) {}

    [[nodiscard]] session make(std::size_t context = 1024) const { return base::make(2, context); }
    [[nodiscard]] session after(const ids& tokens) {
        session s = make();
        this->read(s, tokens);
        return s;
    }
    /// Everything that the session holds, without what can be taken back.
    [[nodiscard]] bytes saved(const session& s) const { return this->save(s, 0); }
    /// Reads a text, and keeps what the session holds after the first `n` tokens, which it returns.
    [[nodiscard]] bytes read_and_keep(session& s, cache& in, std::span<const std::int32_t> text, std::size_t n) {
        REQUIRE(p4::prefill(this->m, s, this->work, text.first(n)));
        REQUIRE(in.keep(s, text.first(n)));
        bytes there = saved(s);
        REQUIRE(p4::prefill(this->m, s, this->work, text.subspan(n)));
        return there;
    }
};

ids both(ids a, const ids& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

template <class Kv>
void check_deepest() {
    cached_fixture<Kv> f;
    auto cache = cached_fixture<Kv>::cache::create(f.m, cached_fixture<Kv>::cache::bytes_for(f.m, 12, 400));
    REQUIRE(cache);
    // A document; the same and two questions; another that differs in its 300th token; a short one, and one that ends a page.
    const ids document = f.text(333);
    ids other = document;
    other[299] ^= 1;
    std::vector<ids> texts{document, both(document, f.text(20, 2)), both(document, f.text(71, 3)), other, f.text(5), f.text(64), f.text(128, 9)};
    std::vector<bytes> saved;
    for (const ids& t : texts) {
        const auto s = f.after(t);
        saved.push_back(f.saved(s));
        REQUIRE(cache->keep(s, t));
        REQUIRE(cache->keep(s, t));  // once is enough
    }
    CHECK(cache->size() == texts.size());
    auto s = f.make();
    for (std::size_t i = 0; i < texts.size(); ++i) {
        CAPTURE(i);
        const ids prompt = both(texts[i], f.text(9, 50));
        CHECK(cache->find(prompt) == texts[i].size());
        CHECK(cache->find(texts[i]) == texts[i].size());
        const auto read = cache->restore(s, prompt);
        REQUIRE(read);
        CHECK(*read == texts[i].size());
        CHECK(s.position() == texts[i].size());
        CHECK(s.oldest_position() == s.position());
        CHECK(f.saved(s) == saved[i]);
    }
    // Not a token more than what is the same.
    ids prompt = both(texts[1], f.text(9, 50));
    prompt[352] ^= 1;
    CHECK(cache->find(prompt) == 333);
    prompt[300] ^= 1;
    CHECK(cache->find(prompt) == 64);
    prompt[63] ^= 1;
    CHECK(cache->find(prompt) == 5);
    prompt[0] ^= 1;
    CHECK(cache->find(prompt) == 0);
    REQUIRE(*cache->restore(s, prompt) == 0);
    CHECK(s.position() == 0);
    CHECK(f.saved(s) == f.saved(f.make()));
    // A session takes what it has room for.
    auto small = f.make(100);
    REQUIRE(cache->restore(small, document));
    CHECK(small.position() == 64);
    cache->clear();
    CHECK(cache->find(document) == 0);
    CHECK(cache->bytes_used() < 1024);
}

}  // namespace

TEST_CASE("generate/prefix_cache: the deepest entry that begins a prompt, to the very bits") {
    check_deepest<p4::bf16>();
    check_deepest<float>();
    check_deepest<p4::kv_int8>();
}

TEST_CASE("generate/prefix_cache: texts that begin alike share what grows, where it is the same bits") {
    using cache_type = cached_fixture<p4::bf16>::cache;
    cached_fixture<p4::bf16> f;
    auto cache = cache_type::create(f.m, cache_type::bytes_for(f.m, 8, 640));
    REQUIRE(cache);
    const ids document = f.text(640);
    auto s = f.after(document);
    REQUIRE(cache->keep(s, document));
    const std::size_t one = cache->bytes_used();
    CHECK(one == cache_type::bytes_for(f.m, 1, 640));
    const ids longer = both(document, f.text(64, 2));
    REQUIRE(p4::prefill(f.m, s, f.work, f.text(64, 2)));
    const bytes saved = f.saved(s);
    REQUIRE(cache->keep(s, longer));
    const std::size_t states = cache_type::bytes_for(f.m, 1, 640) - cache_type::bytes_for(f.m, 1, 576);  // a page
    CHECK(cache->bytes_used() < 2 * one - 9 * states);

    // The same tokens, read one by one, are other bits: these are kept, too.
    auto stepped = f.make();
    for (const std::int32_t token : document) REQUIRE(p4::step(f.m, stepped, f.work, token));
    REQUIRE(p4::step(f.m, stepped, f.work, 7));
    const bytes theirs = f.saved(stepped);
    REQUIRE(cache->keep(stepped, both(document, {7})));
    auto back = f.make();
    REQUIRE(cache->restore(back, both(document, {7, 8})));
    CHECK(f.saved(back) == theirs);
    REQUIRE(cache->restore(back, longer));
    CHECK(f.saved(back) == saved);
}

TEST_CASE("generate/prefix_cache: what was not used for longest makes room, and the budget is kept") {
    using cache_type = cached_fixture<p4::bf16>::cache;
    cached_fixture<p4::bf16> f;
    const std::size_t budget = cache_type::bytes_for(f.m, 3, 200);
    auto cache = cache_type::create(f.m, budget);
    REQUIRE(cache);
    std::vector<ids> texts;
    std::vector<bytes> saved;
    for (std::size_t i = 0; i < 6; ++i) {
        texts.push_back(f.text(190 + i, 10 + i));
        const auto s = f.after(texts[i]);
        saved.push_back(f.saved(s));
        REQUIRE(cache->keep(s, texts[i]));
        CHECK(cache->bytes_used() <= budget);
        if (i == 3) CHECK(cache->find(texts[0]) == 0);
        if (i >= 1 && i != 5) REQUIRE(cache->restore(*std::make_unique<cached_fixture<p4::bf16>::session>(f.make()), texts[1]));  // stays in use
    }
    CHECK(cache->size() == 3);
    auto s = f.make();
    for (const std::size_t i : {1, 4, 5}) {
        REQUIRE(cache->restore(s, texts[i]));
        CHECK(f.saved(s) == saved[i]);
    }
    // One that can never fit takes nothing away.
    const ids huge = f.text(900, 3);
    auto tight = cache_type::create(f.m, cache_type::bytes_for(f.m, 1, 200));
    REQUIRE(tight);
    REQUIRE(tight->keep(f.after(texts[0]), texts[0]));
    check_refused(tight->keep(f.after(huge), huge), p4::errc::invalid_argument, "a text of 900 tokens wants");
    CHECK(tight->find(texts[0]) == texts[0].size());
    cache->clear();
    const ids most = f.text(600, 3);
    auto grown = f.after(most);
    for (std::size_t n = 0; n < 30; ++n) {  // many entries, dropped and kept, all pages come back
        const ids text = both(most, f.text(n, 4));
        auto t = f.make();
        REQUIRE(t.copy_from(grown));
        if (n != 0) REQUIRE(p4::prefill(f.m, t, f.work, f.text(n, 4)));
        (void)cache->keep(t, text);
    }
    cache->clear();
    CHECK(cache->bytes_used() < 1024);
    for (std::size_t i = 0; i < 3; ++i) REQUIRE(cache->keep(f.after(texts[i]), texts[i]));
    CHECK(cache->size() == 3);
}

TEST_CASE("generate/prefix_cache: many texts of few beginnings, against a list of snapshots") {
    using cache_type = cached_fixture<p4::bf16>::cache;
    cached_fixture<p4::bf16> f;
    auto cache = cache_type::create(f.m, cache_type::bytes_for(f.m, 5, 150));
    REQUIRE(cache);
    std::vector<std::pair<ids, bytes>> all;
    std::uint32_t random = 12345;
    const auto below = [&](std::uint32_t n) { return (random = random * 1664525u + 1013904223u) / 65536u % n; };
    for (std::size_t turn = 0; turn < 120; ++turn) {
        ids text = f.text(1 + below(180), below(2));
        if (below(2) == 0) text = both(text, f.text(1 + below(90), 5 + below(2)));
        auto s = f.make();
        const auto read = cache->restore(s, text);
        REQUIRE(read);
        if (*read != 0) {  // it is one of those that were kept, bit for bit
            const bytes have = f.saved(s);
            CHECK(std::ranges::any_of(all, [&](const auto& kept) {
                return kept.first.size() == *read && std::ranges::equal(kept.first, std::span(text).first(*read)) && kept.second == have;
            }));
        }
        if (*read < text.size()) REQUIRE(p4::prefill(f.m, s, f.work, std::span(text).subspan(*read)));
        REQUIRE(cache->keep(s, text));
        all.emplace_back(text, f.saved(s));
        CHECK(cache->find(text) == text.size());
        CHECK(cache->bytes_used() <= cache->budget());
    }
}

TEST_CASE("generate/prefix_cache: prefill_cached reads what is new, and gives the logits of reading all") {
    cached_fixture<float> f;
    auto cache = cached_fixture<float>::cache::create(f.m, cached_fixture<float>::cache::bytes_for(f.m, 4, 500));
    REQUIRE(cache);
    const ids document = f.text(300);
    const std::size_t marks[] = {100, 300};
    auto s = f.make();
    for (std::size_t question = 0; question < 3; ++question) {
        CAPTURE(question);
        const ids prompt = both(document, f.text(10, 5 + question));
        std::size_t first_told = 0;
        const auto logits = p4::prefill_cached(f.m, s, f.work, *cache, prompt, marks, [&](std::size_t read, std::size_t total) {
            if (first_told == 0) first_told = read;
            CHECK(total == 310);
            return true;
        });
        REQUIRE(logits);
        const std::vector<float> have(logits->begin(), logits->end());
        CHECK(first_told == (question == 0 ? 64 : 310));
        CHECK(s.position() == 310);
        auto whole = f.make();
        const auto want = p4::prefill(f.m, whole, f.work, prompt);
        REQUIRE(want);
        float worst = 0.0f;
        for (std::size_t i = 0; i < have.size(); ++i) worst = std::max(worst, std::abs(have[i] - (*want)[i]));
        CHECK(worst < 1e-4f);
    }
    CHECK(cache->find(document) == 300);
    CHECK(cache->find(std::span(document).first(299)) == 100);
    // The same prompt once more: one token is read, for its logits.
    REQUIRE(cache->keep(s, both(document, f.text(10, 7))));
    REQUIRE(p4::prefill_cached(f.m, s, f.work, *cache, both(document, f.text(10, 7)), marks));
    CHECK(s.position() == 310);

    const bytes before = f.saved(s);
    check_refused(p4::prefill_cached(f.m, s, f.work, *cache, ids{}, marks), p4::errc::invalid_argument, "no tokens");
    check_refused(p4::prefill_cached(f.m, s, f.work, *cache, f.text(1025), marks), p4::errc::context_full, "room for 1024");
    // Ids that are no rows of the embedding: among what an entry holds there are none, so they stand behind it.
    ids foreign = both(document, f.text(200, 5));
    for (const std::int32_t id : {-1, static_cast<std::int32_t>(f.m.shape().vocab())}) {
        for (const std::size_t at : {std::size_t{300}, std::size_t{450}, foreign.size() - 1}) {
            ids prompt = foreign;
            prompt[at] = id;
            check_refused(p4::prefill_cached(f.m, s, f.work, *cache, prompt, marks), p4::errc::unknown_token, "want 0 to");
        }
    }
    // A mark where the prompt ends: a document, read before there is a question.
    const ids another = f.text(200, 77);
    const std::size_t all_of_it[] = {200};
    REQUIRE(p4::prefill_cached(f.m, s, f.work, *cache, another, all_of_it));
    CHECK(cache->find(both(another, f.text(10, 5))) == 200);
    REQUIRE(p4::prefill_cached(f.m, s, f.work, *cache, both(document, f.text(10, 7)), marks));
    const bytes unchanged = f.saved(s);
    CHECK(unchanged == before);

    auto few_states = cached_fixture<float>::workspace::create(f.m, {.chunk = 64});
    REQUIRE(few_states);
    check_refused(p4::prefill_cached(f.m, s, *few_states, *cache, foreign, marks), p4::errc::invalid_argument,
                  "an undo of 2: want a workspace of 3 states, have 1");
    CHECK(f.saved(s) == before);
    check_refused(p4::prefill_cached(f.m, s, f.work, *cache, f.text(200, 8), marks, [](std::size_t read, std::size_t) { return read < 100; }),
                  p4::errc::cancelled, "after 100 of 200");
    CHECK(s.position() == 100);
}

TEST_CASE("generate/prefix_cache: going back by undo where that is enough, else from the cache, else to nothing") {
    cached_fixture<p4::bf16> f;
    auto cache = cached_fixture<p4::bf16>::cache::create(f.m, cached_fixture<p4::bf16>::cache::bytes_for(f.m, 2, 200));
    REQUIRE(cache);
    const ids text = f.text(120);
    auto s = f.make();
    const bytes saved = f.read_and_keep(s, *cache, text, 70);
    CHECK(*p4::go_back(s, text, &*cache) == 120);
    CHECK(*p4::go_back(s, std::span(text).first(118), &*cache) == 118);
    CHECK(*p4::go_back(s, std::span(text).first(100), &*cache) == 70);
    CHECK(f.saved(s) == saved);
    CHECK(*p4::go_back(s, std::span(text).first(60), &*cache) == 0);
    CHECK(*p4::go_back(s, std::span(text).first(65), &*cache) == 0);
    CHECK(*p4::go_back(s, text, &*cache) == 70);  // nearer than where it was
    CHECK(f.saved(s) == saved);
    // An entry that the session has no room for takes nothing from it.
    const ids longer = both(text, f.text(60, 7));
    REQUIRE(cache->keep(f.after(longer), longer));
    auto small = f.make(150);
    REQUIRE(p4::prefill(f.m, small, f.work, text));
    CHECK(*p4::go_back(small, both(longer, {1}), &*cache) == 120);
    auto t = f.after(text);
    cached_fixture<p4::bf16>::cache* const no_cache = nullptr;
    CHECK(*p4::go_back(t, std::span(text).first(100), no_cache) == 0);
    CHECK(t.position() == 0);
}

TEST_CASE("generate/prefix_cache: the states of an entry, saved, lead a session back after a restart") {
    using cache_type = cached_fixture<p4::bf16>::cache;
    cached_fixture<p4::bf16> f;
    auto cache = cache_type::create(f.m, cache_type::bytes_for(f.m, 3, 400));
    REQUIRE(cache);
    const ids text = f.text(200);
    auto s = f.make();
    const bytes there = f.read_and_keep(s, *cache, text, 150);
    bytes states;
    const auto sink = [&](std::span<const std::byte> piece) {
        states.insert(states.end(), piece.begin(), piece.end());
        return true;
    };
    REQUIRE(cache->save_states(s, std::span(text).first(150), f.weights, sink));
    CHECK(states.size() == cache->saved_states_bytes(s, std::span(text).first(150)));
    bytes whole(p4::snapshot_bytes(s));
    REQUIRE(p4::save_snapshot(s, f.weights, whole));

    auto restarted = f.make();
    REQUIRE(p4::restore_snapshot(restarted, f.weights, std::span<const std::byte>(whole)));
    REQUIRE(p4::restore_states(restarted, f.weights, states));
    CHECK(f.saved(restarted) == there);

    // No entry, one of other tokens, one that the session has read to other bits, and one that is longer than what it has read.
    CHECK(cache->saved_states_bytes(s, std::span(text).first(149)) == 0);
    ids other = text;
    other[7] ^= 1;
    CHECK(cache->saved_states_bytes(s, std::span(other).first(150)) == 0);
    auto stepped = f.make();
    for (const std::int32_t token : std::span(text).first(160)) REQUIRE(p4::step(f.m, stepped, f.work, token));
    CHECK(cache->saved_states_bytes(stepped, std::span(text).first(150)) == 0);
    CHECK(cache->saved_states_bytes(f.after(ids(text.begin(), text.begin() + 140)), std::span(text).first(150)) == 0);
    check_refused(cache->save_states(stepped, std::span(text).first(150), f.weights, sink), p4::errc::invalid_argument,
                  "no entry holds these 150 tokens");
    check_refused(cache->save_states(s, std::span(text).first(150), f.weights, [](std::span<const std::byte>) { return false; }), p4::errc::cancelled,
                  "no more");
}

TEST_CASE("generate/prefix_cache: memory of the host's own, and what is refused") {
    using cache_type = cached_fixture<p4::bf16>::cache;
    cached_fixture<p4::bf16> f;
    const std::size_t budget = cache_type::bytes_for(f.m, 2, 100);
    auto block = p4::memory_block::allocate(budget, "test");
    REQUIRE(block);
    auto cache = cache_type::create_in(block->bytes().first(budget), f.m);
    REQUIRE(cache);
    const ids text = f.text(100);
    auto s = f.after(text);
    const bytes saved = f.saved(s);
    REQUIRE(cache->keep(s, text));
    cache_type moved = *std::move(cache);
    auto back = f.make();
    cache->clear();  // NOLINT(bugprone-use-after-move): it holds nothing, and what went along is left alone
    check_refused(cache->keep(s, text), p4::errc::invalid_argument, "the prefix cache has no memory: it was moved");
    check_refused(cache->restore(back, text), p4::errc::invalid_argument, "the prefix cache has no memory: it was moved");
    auto gone = f.make();
    auto there = std::move(gone);
    check_refused(cache->restore(gone, text), p4::errc::invalid_argument, "the prefix cache has no memory: it was moved");  // NOLINT(bugprone-use-after-move)
    CHECK(cache->find(text) == 0);
    CHECK(cache->size() == 0);
    CHECK(cache->budget() == 0);
    CHECK(cache->saved_states_bytes(s, text) == 0);
    check_refused(moved.restore(gone, text), p4::errc::invalid_argument, "the session has no memory: it was moved");
    REQUIRE(moved.restore(back, text));
    CHECK(f.saved(back) == saved);
    check_refused(cache_type::create(f.m, 100), p4::errc::invalid_argument, "want a budget of at least");
    check_refused(cache_type::create_in(block->bytes().subspan(4), f.m), p4::errc::invalid_argument, "aligned");
    check_refused(moved.keep(s, std::span(text).first(99)), p4::errc::invalid_argument, "want the 100 tokens");
    check_refused(moved.keep(f.make(), {}), p4::errc::invalid_argument, "want the 0 tokens");
    const p4::reading<p4::any_sambay, p4::bf16> r{&s, std::span<const std::int32_t>(text).first(1)};
    p4::pass<p4::any_sambay, p4::bf16> p;
    REQUIRE(p.begin(f.m, f.work, {&r, 1}));
    check_refused(moved.restore(s, text), p4::errc::in_use, "session is in use");
    check_refused(p4::go_back(s, std::span(text).first(5), &moved), p4::errc::in_use, "session is in use");
    check_refused(p4::prefill_cached(f.m, back, f.work, moved, text), p4::errc::in_use, "workspace is in use");
    p.end();
    CHECK(f.saved(back) == saved);
    const auto other_files = golden::open("bf16-12l-sharded");
    REQUIRE(other_files);
    const auto other = p4::model<>::bind(*other_files);
    REQUIRE(other);
    auto foreign = cached_fixture<p4::bf16>::session::create(*other, 8);
    REQUIRE(foreign);
    check_refused(moved.restore(*foreign, text), p4::errc::invalid_argument, "another shape");
    check_refused(moved.keep(*foreign, text), p4::errc::invalid_argument, "another shape");
}
