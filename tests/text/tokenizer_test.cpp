/// The tokenizer as a whole: the small vocabulary line by line, added tokens, invalid text, the builder; and all shared expected
/// ids.
#include "text_testing.hpp"

#include <phi4flash/text/decoder.hpp>

#include <algorithm>

using namespace phi4flash;
using namespace text_testing;

namespace {

/// A vocabulary of bytes alone, ids equal to the byte, with these added tokens.
result<tokenizer> bytes_with(std::vector<added_token> added) {
    tokenizer_builder b;
    for (unsigned i = 0; i < 256; ++i) {
        const char c = static_cast<char>(i);
        REQUIRE(b.add_token(i, {&c, 1}));
    }
    for (added_token& t : added) {
        if (status s = b.add_added_token(std::move(t)); !s) return s.error();
    }
    return b.build();
}

added_token marker(std::uint32_t id, std::string content) {
    added_token t;
    t.id = id;
    t.content = std::move(content);
    t.special = true;
    return t;
}

void check_lines(const tokenizer& t, const std::vector<json>& lines) {
    encoder e(t);
    std::size_t wrong = 0;
    for (const json& line : lines) {
        const std::string text = line["text"];
        const ids_type want = line["ids"];
        const exact_buffer exact(text);
        ids_type with_cache;
        REQUIRE(e.encode(exact.view(), {}, with_cache));
        const bool good = with_cache == want && encode(t, exact.view()) == want &&
                          (!line.contains("decoded") || decode(t, want) == line["decoded"].get<std::string>());
        if (!good && ++wrong <= 5) MESSAGE("wrong: " << line.dump().substr(0, 200));
    }
    CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("tokenizer: every line of the small vocabulary") {
    CHECK(tiny().vocab_size() == 512);
    check_lines(tiny(), read_lines(data("tiny_dev.jsonl")));
}

TEST_CASE("tokenizer: ids of added tokens are what the file says") {
    CHECK(tiny().added("<|endoftext|>")->id == 500);
    CHECK(tiny().added("<|end|>")->id == 503);
    CHECK(tiny().added("<|tag|>")->id == 511);
    CHECK(tiny().added("<|nobody|>") == nullptr);
    CHECK(tiny().added(499) == nullptr);
    CHECK(tiny().is_special(503));
    CHECK_FALSE(tiny().is_special(506));
    CHECK(tiny().bytes_of(503) == "<|end|>");
    for (const std::int64_t id : {std::int64_t{-1}, std::int64_t{512}, std::int64_t{1} << 40}) {
        CHECK_FALSE(tiny().has_string(id));
        CHECK(tiny().bytes_of(id).empty());
    }
}

TEST_CASE("tokenizer: markers only where they are allowed") {
    const std::string text = "<|user|>a<|tool|>b<|end|>";
    const ids_type all = encode(tiny(), text);
    CHECK(all.front() == 504);
    CHECK(std::count(all.begin(), all.end(), 503) == 1);
    const ids_type none = encode(tiny(), text, marker_policy::plain_text);
    CHECK(std::all_of(none.begin(), none.end(), [](int id) { return id < 500; }));
    CHECK(decode(tiny(), none) == text);
    const ids_type some = encode(tiny(), text, marker_policy::parse_not_special);
    CHECK(std::count(some.begin(), some.end(), 506) == 1);
    CHECK(std::count_if(some.begin(), some.end(), [](int id) { return id >= 500; }) == 1);
}

TEST_CASE("tokenizer: rstrip swallows white space, all of it and nothing else") {
    for (const char* space :
         {" ", "\n", "\t\r\n ", "\xC2\x85", "\xC2\xA0", "\xE1\x9A\x80", "\xE2\x80\xA8", "\xE2\x80\xA9", "\xE3\x80\x80"}) {
        CHECK(encode(tiny(), "<|user|>" + std::string(space) + "a") == encode(tiny(), "<|user|>a"));
        CHECK(encode(tiny(), "<|user|>" + std::string(space) + "<|end|>") == ids_type{504, 503});
        CHECK(encode(tiny(), "<|endoftext|>" + std::string(space)).size() > 1);
    }
    for (const char* text : {"\xEF\xBB\xBF", "\xE2\x80\x8B", "\xE1\xA0\x8E"})
        CHECK(encode(tiny(), "<|user|>" + std::string(text)).size() > 1);
    CHECK(encode(tiny(), "<|user|>  ", marker_policy::parse) == ids_type{504});
}

TEST_CASE("tokenizer: lstrip, longest marker, markers side by side, normalized ones in a second pass") {
    std::vector<added_token> added{marker(256, "<a>"), marker(257, "<a>>"), marker(258, "[m]"), marker(300, "n<a")};
    added[2].lstrip = true;
    added[3].normalized = true;
    const result<tokenizer> t = bytes_with(added);
    REQUIRE(t);
    CHECK(t->vocab_size() == 301);
    CHECK_FALSE(t->has_string(299));
    CHECK(encode(*t, "<a>>") == ids_type{257});
    CHECK(encode(*t, "<a><a>x") == ids_type{256, 256, 'x'});
    CHECK(encode(*t, "x \xC2\xA0\n[m] y") == ids_type{'x', 258, ' ', 'y'});
    CHECK(encode(*t, "<a>  [m]") == ids_type{256, 258});
    CHECK(encode(*t, "  [m]") == ids_type{258});
    CHECK(encode(*t, "n<a>") == ids_type{'n', 256});
    CHECK(encode(*t, "n<a!") == ids_type{300, '!'});
    CHECK(encode(*t, "<a") == ids_type{'<', 'a'});
    // White space that one marker has swallowed may begin the next: Hugging Face finds it there.
    added[0].rstrip = true;
    added[1].content = " x";
    const result<tokenizer> u = bytes_with(added);
    REQUIRE(u);
    CHECK(encode(*u, "<a> xy") == ids_type{256, 257, 'y'});
    CHECK(encode(*u, "<a>  y") == ids_type{256, 'y'});
    CHECK(decode(*t, {'x', 256, 299, 301, -5, 258}, false) == "x<a>[m]");
    CHECK(decode(*t, {'x', 256, 299, 301, -5, 258}, true) == "x");
}

TEST_CASE("tokenizer: markers that are white space themselves take linear time, and swallow what others have swallowed") {
    std::vector<added_token> added{marker(' ', " "), marker('\t', "\t")};
    added[0].rstrip = true;
    const result<tokenizer> t = bytes_with(added);
    REQUIRE(t);
    CHECK(encode(*t, "a   b") == ids_type{'a', ' ', ' ', ' ', 'b'});
    CHECK(encode(*t, " \t\nb") == ids_type{' ', '\t', '\n', 'b'});
    // A scan to the end for each of them would take minutes.
    std::string spaces;
    while (spaces.size() < 1000000) spaces += " \t";
    CHECK(encode(*t, spaces).size() == spaces.size());
}

TEST_CASE("tokenizer: invalid text counts as U+FFFD, nothing is read out of bounds") {
    std::mt19937 random(5);
    encoder e(tiny());
    for (int round = 0; round < 3000; ++round) {
        const exact_buffer text(random_text(random, random() % 10, false));
        std::string clean;
        detail::append_lossy_utf8(text.view(), clean);
        ids_type ids;
        REQUIRE(e.encode(text.view(), {}, ids));
        CHECK(ids == encode(tiny(), clean));
        ids.clear();
        REQUIRE(e.encode(text.view(), {marker_policy::plain_text}, ids));
        CHECK(decode(tiny(), ids) == clean);
    }
}

TEST_CASE("tokenizer: an encoder gives the same ids the second time, and appends") {
    encoder e(tiny(), 4);  // so small that words push each other out
    std::mt19937 random(9);
    for (int round = 0; round < 300; ++round) {
        const std::string text = random_text(random, 20, true);
        ids_type ids{7};
        REQUIRE(e.encode(text, {}, ids));
        ids_type want{7};
        REQUIRE(tiny().encode(text, {}, want));
        CHECK(ids == want);
    }
}

TEST_CASE("tokenizer: what the builder refuses") {
    const auto code = [](const result<tokenizer>& r) { return r ? errc{} : r.error().code(); };
    CHECK(code(tokenizer_builder{}.build()) == errc::bad_vocabulary);
    CHECK(code(bytes_with({})) == errc{});
    CHECK(code(bytes_with({marker(256, "x"), marker(256, "yy")})) == errc::bad_vocabulary);
    CHECK(code(bytes_with({marker(256, "xx"), marker(257, "xx")})) == errc::bad_vocabulary);
    CHECK(code(bytes_with({marker('b', "a")})) == errc::bad_vocabulary);
    CHECK(code(bytes_with({marker(256, "a")})) == errc::bad_vocabulary);
    CHECK(code(bytes_with({marker('a', "a")})) == errc{});
    CHECK(code(bytes_with({marker(256, "")})) == errc::bad_vocabulary);
    CHECK(code(bytes_with({marker(256, "\xFF")})) == errc::bad_vocabulary);
    CHECK(code(bytes_with({marker(max_vocabulary_ids, "zz")})) == errc::bad_vocabulary);
    tokenizer_builder b;
    REQUIRE(b.add_token(0, "a"));
    REQUIRE(b.add_token(1, "b"));
    CHECK(b.add_merge("a", "x").error().code() == errc::bad_merge);
    CHECK(b.add_merge("a", "b").error().code() == errc::bad_merge);
}

TEST_CASE("tokenizer: added tokens that were made to share a hash are refused by that, and not as ones that are given twice") {
    std::vector<added_token> tokens;
    for (std::uint32_t i = 0; tokens.size() < 258; ++i) {
        const std::string name = "<" + std::to_string(i) + ">";
        if ((detail::hash_bytes(name) & 1023) == 7) tokens.push_back(marker(256 + static_cast<std::uint32_t>(tokens.size()), name));
    }
    const std::vector<added_token> fewer(tokens.begin(), tokens.end() - 1);
    CHECK(bytes_with(fewer));
    const auto refused = bytes_with(tokens);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code() == errc::bad_vocabulary);
    CHECK(std::string(refused.error().message()).find("added tokens: token 257: more than 256 others are where its hash puts it") == 0);
    const auto twice = bytes_with({marker(256, "xx"), marker(257, "xx")});
    REQUIRE_FALSE(twice);
    CHECK(std::string(twice.error().message()) == "added token 'xx' is given twice");
}

TEST_CASE("tokenizer: one that was moved from is refused") {
    auto t = bytes_with({marker(256, "xx")});
    REQUIRE(t);
    const tokenizer there = *std::move(t);
    ids_type ids{1};
    const status refused = t->encode("hello", {}, ids);  // NOLINT(bugprone-use-after-move)
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code() == errc::invalid_argument);
    CHECK(std::string(refused.error().message()) == "the tokenizer has no tokens: it was moved to another place");
    CHECK(ids == ids_type{1});
    CHECK(t->bytes_of(256).empty());
    REQUIRE(there.encode("hxx", {}, ids));
    CHECK(ids == ids_type{1, 'h', 256});
}

TEST_CASE("shared: all expected ids") {
    const std::string folder = shared();
    if (folder.empty()) return;
    const tokenizer t = load(folder + "tokenizer.json");
    CHECK(t.vocab_size() == 200029);
    CHECK(t.merges().ordered());
    check_lines(t, read_lines(folder + "tok_dev.jsonl"));
    check_lines(t, read_lines(data("o200k_cases.jsonl")));
    for (const json& line : read_lines(folder + "decode_dev.jsonl")) {
        const ids_type ids = line["ids"];
        CHECK(decode(t, ids) == line["text"].get<std::string>());
        CHECK(decode(t, ids, true) == line["text_skip_special"].get<std::string>());
        std::string streamed;
        stream_decoder d(t);
        for (const int id : ids) streamed += d.push(id);
        streamed += d.flush();
        CHECK(streamed == line["text"].get<std::string>());
    }
    // Rows of the model without a string: never to be sampled.
    CHECK_FALSE(t.has_string(199998));
    CHECK(t.has_string(199999));
    for (int id = 200000; id < 200018; ++id) CHECK_FALSE(t.has_string(id));
    CHECK(t.has_string(200018));
    for (int id = 200029; id < 200064; ++id) CHECK_FALSE(t.has_string(id));
    std::size_t not_alone = 0, longest = 0;
    for (int id = 0; id < 200064; ++id) {
        not_alone += valid_utf8_prefix(t.bytes_of(id)) != t.bytes_of(id).size() ? 1 : 0;
        longest = std::max(longest, t.bytes_of(id).size());
    }
    CHECK(not_alone == 1562);
    CHECK(longest == 128);
}
