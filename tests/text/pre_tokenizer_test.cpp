/// Classes of characters, and the split patterns against hand-worked pieces and against a naive backtracking matcher.
#include "text_testing.hpp"

#include <support/plain_text.hpp>

using namespace phi4flash;
using namespace text_testing;
using plain_text::is_in;
using plain_text::naive_split;

namespace {

using pieces = std::vector<std::string>;

pieces split(split_pattern p, std::string_view text) {
    const exact_buffer exact(text);
    pieces found;
    for_each_piece(p, exact.view(), [&](std::string_view piece) { found.emplace_back(piece); });
    return found;
}

}  // namespace

TEST_CASE("classes: white space is the property, and no more") {
    std::size_t count = 0;
    for (char32_t c = 0; c < 0x110000; ++c) count += is_in(c, {char_class::space, char_class::newline}) ? 1 : 0;
    CHECK(count == 25);
    for (const char32_t c : {0x09, 0x0B, 0x0C, 0x20, 0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000})
        CHECK(class_of(c) == char_class::space);
    for (const char32_t c : {0xFEFF, 0x200B, 0x180E, 0x1C}) CHECK(class_of(c) == char_class::other);
    CHECK(class_of('\n') == char_class::newline);
    CHECK(class_of('\r') == char_class::newline);
}

TEST_CASE("classes: one of each kind, also beyond the table") {
    CHECK(class_of('A') == char_class::upper);
    CHECK(class_of(0x1C5) == char_class::upper);  // title case
    CHECK(class_of('z') == char_class::lower);
    CHECK(class_of(0x295) == char_class::lower);  // Lo from Unicode 17 on
    CHECK(class_of(0x2B0) == char_class::letter);
    CHECK(class_of(0x4F60) == char_class::letter);
    CHECK(class_of(0x301) == char_class::mark);
    CHECK(class_of(0xE0100) == char_class::mark);
    CHECK(class_of(0x663) == char_class::number);
    CHECK(class_of(0x2460) == char_class::number);
    CHECK(class_of(0x1F600) == char_class::other);
    CHECK(class_of(0x105C0) == char_class::letter);  // new in Unicode 16
    CHECK(class_of(0xE0200) == char_class::other);
    CHECK(class_of(0x10FFFF) == char_class::other);
    CHECK(class_of(0xFFFFFFFF) == char_class::other);
}

TEST_CASE("o200k: pieces by hand") {
    const auto o200k = [](std::string_view s) { return split(split_pattern::o200k, s); };
    CHECK(o200k("").empty());
    CHECK(o200k("Hello, world!") == pieces{"Hello", ",", " world", "!"});
    CHECK(o200k("McDonald HTMLParser") == pieces{"Mc", "Donald", " HTMLParser"});
    CHECK(o200k("don't DON'T we'LL x'rex") == pieces{"don't", " DON'T", " we'LL", " x're", "x"});
    CHECK(o200k("who'\xC5\xBFx") == pieces{"who'\xC5\xBF", "x"});
    CHECK(o200k("1234567") == pieces{"123", "456", "7"});
    CHECK(o200k("a   b") == pieces{"a", "  ", " b"});
    CHECK(o200k("a  \n \n  b") == pieces{"a", "  \n \n", " ", " b"});
    CHECK(o200k("x = y;\r\n//\n/z") == pieces{"x", " =", " y", ";\r\n//\n/", "z"});
    CHECK(o200k("  ") == pieces{"  "});
    CHECK(o200k(" \t1") == pieces{" ", "\t", "1"});
    CHECK(o200k("\xC2\xA0y\xE3\x80\x80z") == pieces{"\xC2\xA0y", "\xE3\x80\x80z"});
    // A mark is a prefix, part of a head, part of a tail and a symbol.
    CHECK(o200k("\xCC\x81") == pieces{"\xCC\x81"});
    CHECK(o200k("\xCC\x81"
                "AB") == pieces{"\xCC\x81", "AB"});
    CHECK(o200k("\xCC\x81"
                "ab") == pieces{"\xCC\x81"
                                "ab"});
    CHECK(o200k("!\xCC\x81") == pieces{"!\xCC\x81"});
    // The head gives letters back until a tail fits.
    CHECK(o200k("\xE4\xBD\xA0"
                "AB") == pieces{"\xE4\xBD\xA0", "AB"});
    CHECK(o200k("A\xE4\xBD\xA0"
                "B1") == pieces{"A\xE4\xBD\xA0", "B", "1"});
}

TEST_CASE("gpt2, cl100k, qwen2: pieces by hand") {
    CHECK(split(split_pattern::gpt2, "He's 'S 1234  x\n\ny") == pieces{"He", "'s", " '", "S", " 1234", " ", " x", "\n", "\n", "y"});
    CHECK(split(split_pattern::cl100k, "He'S 1234  x!\n\ny") == pieces{"He", "'S", " ", "123", "4", " ", " x", "!\n\n", "y"});
    CHECK(split(split_pattern::qwen2, "v12 'tis") == pieces{"v", "1", "2", " '", "tis"});
    CHECK(split(split_pattern::cl100k, "e\xCC\x81x") == pieces{"e", "\xCC\x81x"});
}

TEST_CASE("patterns equal a naive backtracking matcher, on valid and invalid text") {
    std::mt19937 random(7);
    for (int round = 0; round < 4000; ++round) {
        const std::string text = random_text(random, 1 + random() % 12, round % 2 == 0);
        for (const split_pattern p : {split_pattern::gpt2, split_pattern::cl100k, split_pattern::qwen2, split_pattern::o200k}) {
            CAPTURE(text);
            CAPTURE(static_cast<int>(p));
            REQUIRE(split(p, text) == naive_split(p, text));
        }
    }
}

TEST_CASE("shared: classes and pieces") {
    const std::string folder = shared();
    if (folder.empty()) return;
    const json classes = json::parse(read_file(folder + "onig_classes.json"));
    const std::vector<std::pair<const char*, std::vector<char_class>>> kinds{
        {"L", {char_class::upper, char_class::lower, char_class::letter}},
        {"N", {char_class::number}},
        {"M", {char_class::mark}},
        {"Ll", {char_class::lower}},
        {"space", {char_class::space, char_class::newline}}};
    for (const auto& [name, kind] : kinds) {
        std::vector<bool> want(0x110000);
        for (const json& range : classes[name])
            std::fill(want.begin() + range[0].get<int>(), want.begin() + range[1].get<int>() + 1, true);
        std::size_t wrong = 0;
        for (char32_t c = 0; c < 0x110000; ++c)
            wrong += (std::find(kind.begin(), kind.end(), class_of(c)) != kind.end()) != want[c] ? 1 : 0;
        CAPTURE(name);
        CHECK(wrong == 0);
    }
    for (const json& line : read_lines(folder + "pretok_dev.jsonl")) {
        const std::string text = line["text"];
        pieces want;
        for (const json& span : line["byte_spans"])
            want.push_back(text.substr(span[0], span[1].get<std::size_t>() - span[0].get<std::size_t>()));
        CAPTURE(text);
        CHECK(split(split_pattern::o200k, text) == want);
    }
}
