/// BPE against a naive twin on random vocabularies, ordered and not; and that long pieces take linear time.
#include "text_testing.hpp"

#include <support/plain_text.hpp>

#include <set>

using namespace phi4flash;
using namespace text_testing;
using plain_text::naive_encode;

namespace {

using tokens = std::vector<std::uint32_t>;

tokens fast_encode(const bpe& b, std::string_view piece) {
    const exact_buffer exact(piece);
    bpe_scratch scratch;
    tokens t;
    REQUIRE(b.encode(exact.view(), scratch, [&](std::uint32_t id) { t.push_back(id); }));
    return t;
}

tokens heap_encode(const bpe& b, std::string_view piece) {
    bpe_scratch scratch;
    tokens t;
    REQUIRE(b.encode_by_merging(piece, scratch, [&](std::uint32_t id) { t.push_back(id); }));
    return t;
}

vocabulary bytes_only() {
    vocabulary v;
    for (unsigned b = 0; b < 256; ++b) {
        const char c = static_cast<char>(b);
        REQUIRE(v.add(b, {&c, 1}));
    }
    return v;
}

/// Merges of random pairs over few letters. Without `shuffled` the parts of each merge were made before; some strings are made by
/// several merges, and some merges never happen.
result<bpe> random_bpe(std::mt19937& random, std::size_t merges, unsigned letters, bool shuffled) {
    vocabulary v = bytes_only();
    std::vector<merge_rule> rules;
    std::set<std::pair<std::uint32_t, std::uint32_t>> seen;
    std::set<std::uint32_t> used_as_part;
    tokens alphabet;
    for (unsigned i = 0; i < letters; ++i) alphabet.push_back('a' + i);
    for (std::size_t tries = 0; rules.size() < merges && tries < merges * 20; ++tries) {
        const std::uint32_t left = alphabet[random() % alphabet.size()], right = alphabet[random() % alphabet.size()];
        const std::string joined = std::string(v.bytes_of(left)) + std::string(v.bytes_of(right));
        if (joined.size() > 12 || seen.count({left, right}) != 0) continue;
        std::uint32_t merged = v.find(joined);
        // A second way to make a string that is already a part of others would break the order.
        if (merged != no_token && !shuffled && used_as_part.count(merged) != 0) continue;
        if (merged == no_token) {
            merged = static_cast<std::uint32_t>(v.size());
            REQUIRE(v.add(merged, joined));
            alphabet.push_back(merged);
        }
        used_as_part.insert({left, right});
        seen.insert({left, right});
        rules.push_back({left, right, merged});
    }
    if (shuffled) std::shuffle(rules.begin(), rules.end(), random);
    return bpe::create(std::move(v), std::move(rules), false);
}

}  // namespace

TEST_CASE("bpe equals its naive twin on random vocabularies") {
    std::mt19937 random(11);
    std::size_t unordered = 0;
    for (int round = 0; round < 150; ++round) {
        const bool shuffled = round % 3 == 0;
        const unsigned letters = 1 + random() % 4;
        const result<bpe> b = random_bpe(random, 1 + random() % 60, letters, shuffled);
        REQUIRE(b);
        if (!shuffled) REQUIRE(b->ordered());
        unordered += b->ordered() ? 0 : 1;
        for (int text = 0; text < 60; ++text) {
            std::string piece;
            const std::size_t size = 1 + random() % (text % 10 == 0 ? 200 : 24);
            for (std::size_t i = 0; i < size; ++i) piece += static_cast<char>('a' + random() % letters);
            CAPTURE(piece);
            const tokens want = naive_encode(*b, piece);
            REQUIRE(fast_encode(*b, piece) == want);
            REQUIRE(heap_encode(*b, piece) == want);
        }
    }
    CHECK(unordered > 10);
}

TEST_CASE("bpe: the leftmost of equal pairs is merged first") {
    vocabulary v = bytes_only();
    REQUIRE(v.add(256, "aa"));
    REQUIRE(v.add(257, "aaa"));
    const result<bpe> b = bpe::create(std::move(v), {{'a', 'a', 256}, {256, 'a', 257}}, false);
    REQUIRE(b);
    CHECK(fast_encode(*b, "aaa") == tokens{257});
    CHECK(fast_encode(*b, "aaaa") == tokens{256, 256});
    CHECK(fast_encode(*b, "aaaaa") == tokens{256, 257});
}

TEST_CASE("bpe: a token that merges never reach is not used, unless merges are ignored") {
    for (const bool ignore : {false, true}) {
        vocabulary v = bytes_only();
        REQUIRE(v.add(256, "bc"));
        REQUIRE(v.add(257, "ab"));
        REQUIRE(v.add(258, "abc"));
        REQUIRE(v.add(300, "xyz"));
        const result<bpe> b = bpe::create(std::move(v), {{'b', 'c', 256}, {'a', 'b', 257}, {257, 'c', 258}}, ignore);
        REQUIRE(b);
        CHECK(fast_encode(*b, "abc") == (ignore ? tokens{258} : tokens{'a', 256}));
        CHECK(fast_encode(*b, "abcx") == tokens{'a', 256, 'x'});
        CHECK(fast_encode(*b, "xyz") == (ignore ? tokens{300} : tokens{'x', 'y', 'z'}));
    }
}

TEST_CASE("bpe: a piece of a megabyte") {
    std::mt19937 random(3);
    for (const bool shuffled : {false, true}) {
        const result<bpe> b = random_bpe(random, 60, 2, shuffled);
        REQUIRE(b);
        for (const bool constant : {true, false}) {
            std::string piece;
            for (std::size_t i = 0; i < 1000000; ++i) piece += constant ? 'a' : static_cast<char>('a' + random() % 2);
            const tokens t = fast_encode(*b, piece);
            std::size_t size = 0;
            for (const std::uint32_t id : t) size += b->strings().bytes_of(id).size();
            CHECK(size == piece.size());
            CHECK(t == heap_encode(*b, piece));
        }
    }
}

TEST_CASE("bpe: what is refused") {
    const auto code = [](const result<bpe>& r) { return r ? errc{} : r.error().code(); };
    CHECK(code(bpe::create(vocabulary{}, {}, false)) == errc::bad_vocabulary);
    const auto with = [&](std::vector<merge_rule> rules) {
        vocabulary v = bytes_only();
        REQUIRE(v.add(256, "ab"));
        return code(bpe::create(std::move(v), std::move(rules), false));
    };
    CHECK(with({{'a', 'b', 256}}) == errc{});
    CHECK(with({{'a', 'b', 256}, {'a', 'b', 256}}) == errc::bad_merge);
    CHECK(with({{'a', 'c', 256}}) == errc::bad_merge);
    CHECK(with({{'b', 'a', 256}}) == errc::bad_merge);
    CHECK(with({{'a', 999, 256}}) == errc::bad_merge);
    CHECK(with({{'a', 'b', 257}}) == errc::bad_merge);
    CHECK(with({{no_token, 'b', 256}}) == errc::bad_merge);
}

TEST_CASE("vocabulary: strings that were made to share a hash are refused, and soon") {
    // hash_bytes backwards: the strings of seven bytes whose hash has these 32 bits at its end.
    constexpr std::uint64_t factor = 0xD6E8FEB86659FD93u;
    std::uint64_t inverse = factor;
    for (int i = 0; i < 6; ++i) inverse *= 2 - factor * inverse;
    REQUIRE(factor * inverse == 1);
    vocabulary words;
    REQUIRE(words.reserve(1000, 7000));
    std::size_t id = 0;
    status last;
    for (std::uint64_t high = 1; last && id < 1000; ++high) {
        const std::uint64_t h = high << 32 | (high ^ 0x1234567);
        const std::uint64_t rest = (h * inverse) ^ (7 * 0x9E3779B97F4A7C15u);
        if (rest >> 56 != 0) continue;
        char text[7];
        std::memcpy(text, &rest, 7);
        last = words.add(id++, {text, 7});
    }
    CHECK(id == 258);
    REQUIRE_FALSE(last);
    CHECK(last.error().code() == errc::bad_vocabulary);
    CHECK(std::string(last.error().message()).find("token 257: more than 256 others are where its hash puts it") == 0);
    CHECK(words.count() == 257);
}

TEST_CASE("bpe: merges that were made to share a hash are refused, and soon, and so is a table of a file with such a row") {
    // The hash of a pair backwards: pairs whose hash has these 32 bits at its beginning.
    const auto inverse_of = [](std::uint64_t factor) {
        std::uint64_t inverse = factor;
        for (int i = 0; i < 6; ++i) inverse *= 2 - factor * inverse;
        REQUIRE(factor * inverse == 1);
        return inverse;
    };
    const std::uint64_t first = inverse_of(0x9E3779B97F4A7C15u), second = inverse_of(0xD6E8FEB86659FD93u);
    std::vector<merge_rule> rules;
    for (std::uint64_t low = 0; low < 1000; ++low) {
        std::uint64_t x = (std::uint64_t{0x12345678} << 32 | low) * second;
        x = (x ^ x >> 32) * first;
        rules.push_back({static_cast<std::uint32_t>(x >> 32), static_cast<std::uint32_t>(x), 0});
    }
    detail::pair_table pairs;
    pairs.reserve(rules.size());
    std::uint32_t rank = 0;
    status last;
    while (last && rank < rules.size()) last = pairs.insert(rules, rank++);
    CHECK(rank == 258);
    REQUIRE_FALSE(last);
    CHECK(last.error().code() == errc::bad_merge);
    CHECK(std::string(last.error().message()).find("merge 257: more than 256 others are where its hash puts it") == 0);

    detail::pair_table read;
    const auto fill = [&](std::uint32_t row, std::uint32_t begin = 100) {
        detail::pair_table::for_each_table(read, [&](std::string_view, std::vector<std::uint32_t>& slots) {
            slots.assign(4096, detail::pair_table::none);
            for (std::uint32_t i = 0; i < row; ++i) slots[(begin + i) % 4096] = i;
        });
        return read.check_tables(2000);
    };
    CHECK(fill(1024));
    CHECK(fill(1024, 3500));
    CHECK_FALSE(fill(1025, 3500));
    CHECK_FALSE(fill(1025, 0));
    const status row = fill(1025);
    REQUIRE_FALSE(row);
    CHECK(row.error().code() == errc::bad_merge);
    CHECK(std::string(row.error().message()) == "merges.slots: 1025 places in a row are used: want at most 1024");
}

TEST_CASE("byte_trie: tokens that were made to leave holes do not take memory without number") {
    vocabulary strings;
    std::vector<std::string> tokens;
    for (int lead = 0xE1; lead <= 0xE3; ++lead)
        for (int second = 0x80; second < 0xC0; ++second)
            for (int third = 0x80; third < 0xC0; ++third)
                if (third != 0x9F) tokens.push_back({static_cast<char>(lead), static_cast<char>(second), static_cast<char>(third)});
    for (char x = 'a'; x <= 'b'; ++x)
        for (char y = '!'; y <= '~'; ++y)
            for (char z = '!'; z <= '~'; ++z)
                for (const char last : {'A', 'B'}) tokens.push_back({x, y, z, last});
    std::sort(tokens.begin(), tokens.end(), [](const std::string& a, const std::string& b) {
        return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end(),
                                            [](char p, char q) { return static_cast<unsigned char>(p) < static_cast<unsigned char>(q); });
    });
    std::vector<std::uint32_t> sorted;
    for (std::uint32_t id = 0; id < tokens.size(); ++id) {
        REQUIRE(strings.add(id, tokens[id]));
        sorted.push_back(id);
    }
    byte_trie trie;
    REQUIRE(trie.build(strings, sorted));
    CHECK(trie.memory_bytes() < 60 * tokens.size());  // 12 a unit, of which each token has one or two; 5 KB where each pair takes a fresh place
    bool all = true;
    for (const std::uint32_t id : sorted) {
        const byte_trie::match found = trie.longest(strings, tokens[id].data(), tokens[id].size());
        all = all && found.token == id && found.size == tokens[id].size();
    }
    CHECK(all);
}

TEST_CASE("vocabulary: what is refused") {
    vocabulary v;
    CHECK(v.find("a") == no_token);
    REQUIRE(v.add(5, "a"));
    CHECK(v.find("a") == 5);
    CHECK(v.size() == 6);
    CHECK_FALSE(v.has_string(4));
    CHECK_FALSE(v.has_string(6));
    CHECK_FALSE(v.add(5, "b"));
    CHECK_FALSE(v.add(6, "a"));
    CHECK_FALSE(v.add(7, ""));
    CHECK_FALSE(v.add(max_vocabulary_ids, "c"));
    CHECK_FALSE(v.add(static_cast<std::size_t>(-1), "c"));
    CHECK_FALSE(v.add(8, std::string(max_token_bytes + 1, 'x')));
    CHECK(v.count() == 1);
}
