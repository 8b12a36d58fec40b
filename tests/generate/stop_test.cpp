/// The stop matcher: whatever the pieces in which text arrives, what is released is the text before the first match.
#include <phi4flash/generate/stop.hpp>

#include <doctest/doctest.h>

namespace p4 = phi4flash;

namespace {

p4::stop_matcher watching(const std::vector<std::string>& stops) {
    auto made = p4::stop_matcher::create(stops);
    REQUIRE(made);
    return *std::move(made);
}

std::string_view shown(const p4::result<std::string_view>& text) {
    REQUIRE(text);
    return *text;
}

struct outcome {
    std::string released;
    bool matched;
    friend bool operator==(const outcome&, const outcome&) = default;
};

/// Sends `text` in pieces of `size` bytes.
outcome stream(const std::string& text, const std::vector<std::string>& stops, std::size_t size) {
    p4::stop_matcher matcher = watching(stops);
    outcome o{"", false};
    for (std::size_t i = 0; i < text.size() && !matcher.matched(); i += size)
        o.released += shown(matcher.push(std::string_view(text).substr(i, size)));
    o.matched = matcher.matched();
    if (!o.matched) o.released += matcher.flush();
    return o;
}

/// The first occurrence in the text of the string that is complete first.
outcome expected(const std::string& text, const std::vector<std::string>& stops) {
    for (std::size_t end = 1; end <= text.size(); ++end) {
        std::size_t match = std::string::npos;
        for (const std::string& s : stops) {
            if (!s.empty() && std::string_view(text).substr(0, end).ends_with(s)) match = std::min(match, end - s.size());
        }
        if (match != std::string::npos) return {text.substr(0, match), true};
    }
    return {text, false};
}

}  // namespace

TEST_CASE("stop: one byte at a time equals the definition") {
    const std::vector<std::vector<std::string>> sets{
        {}, {""}, {"ab"}, {"aab"}, {"abab", "ba"}, {"aaa", "b"}, {"abba", "bab", "aabb"}};
    for (const auto& stops : sets) {
        for (unsigned bits = 0; bits < 256; ++bits) {
            std::string text;
            for (unsigned i = 0; i < 8; ++i) text += (bits >> i & 1) != 0 ? 'b' : 'a';
            CHECK(stream(text, stops, 1) == expected(text, stops));
        }
    }
}

TEST_CASE("stop: pieces of any size, one stop string") {
    const std::string text = "one two \\boxed{632} three";
    for (std::size_t size = 1; size <= text.size(); ++size) {
        CAPTURE(size);
        CHECK(stream(text, {"boxed{"}, size) == outcome{"one two \\", true});
        CHECK(stream(text, {"boxed["}, size) == outcome{text, false});
    }
}

TEST_CASE("stop: only what may still become a stop string is held back") {
    p4::stop_matcher m = watching({"<end>"});
    CHECK(shown(m.push("abc")) == "abc");
    CHECK(shown(m.push("d<e")) == "d");
    CHECK(shown(m.push("x")) == "<ex");
    CHECK(shown(m.push("<<en")) == "<");
    CHECK(shown(m.push("d>tail")) == "");
    CHECK(m.matched());
    CHECK(shown(m.push("more")) == "");
    CHECK(m.flush() == "");
}

TEST_CASE("stop: hidden text is watched and never released") {
    p4::stop_matcher m = watching({"<|end|>", "x<|user|>y"});
    CHECK(shown(m.push("abc")) == "abc");
    CHECK(shown(m.push_hidden("<|assistant|>")) == "");
    CHECK(shown(m.push("d<")) == "d");          // may become a stop string
    CHECK(shown(m.push_hidden("<|")) == "<");   // what is shown of it comes out, in order
    CHECK(shown(m.push_hidden("tag|>")) == "");
    CHECK(shown(m.push("ex")) == "e");
    CHECK(shown(m.push_hidden("<|user|>")) == "");
    CHECK(shown(m.push("z")) == "xz");  // held back, with hidden text in between
    CHECK(shown(m.push("x")) == "");
    CHECK(shown(m.push_hidden("<|user|>")) == "");
    CHECK(shown(m.push("y")) == "");
    CHECK(m.matched());

    p4::stop_matcher whole = watching({"<|end|>"});
    CHECK(shown(whole.push("abc")) == "abc");
    CHECK(shown(whole.push_hidden("<|end|>")) == "");
    CHECK(whole.matched());

    p4::stop_matcher rest = watching({"a<|end|>b"});
    CHECK(shown(rest.push("a")) == "");
    CHECK(shown(rest.push_hidden("<|end|>")) == "");
    CHECK(rest.flush() == "a");

    p4::stop_matcher none;
    CHECK(shown(none.push_hidden("<|end|>")) == "");
    CHECK(shown(none.push("a")) == "a");
}

TEST_CASE("stop: text of any length, and the end of a text in one call") {
    const std::string letters(p4::stop_matcher::longest_text, 'x');
    p4::stop_matcher m = watching({"<end>"});
    CHECK(shown(m.push("a<en")) == "a");
    CHECK(shown(m.push(letters)) == "<en" + letters);
    CHECK(shown(m.push("<")) == "");
    CHECK(shown(m.push(letters + letters + "<e")) == "<" + letters + letters);
    CHECK(shown(m.finish("n")) == "<en");
    CHECK(shown(m.finish("")) == "");
    CHECK(shown(m.finish("b<end>c")) == "b");
    CHECK(m.matched());
    CHECK(shown(m.finish("d")) == "");

    p4::stop_matcher none;
    CHECK(shown(none.finish(letters)) == letters);
}
