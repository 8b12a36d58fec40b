/// NFC and NFD against Hugging Face's tokenizers: chosen and random strings, every code point, long runs of marks; and tokenizers that
/// normalize, with added tokens before and after it.
#include "text_testing.hpp"

#include <phi4flash/text/normalization.hpp>

#include <algorithm>

using namespace phi4flash;
using namespace text_testing;

namespace {

std::string normalized(std::string_view text, normal_form form) {
    const exact_buffer exact(text);
    std::string out = "before";
    REQUIRE(append_normalized(exact.view(), form, out));
    REQUIRE(out.starts_with("before"));
    return out.substr(6);
}

/// FNV-1a over a form of every code point. The expected values were made with the Python package tokenizers 0.23.3.
std::uint64_t hash_of_all(normal_form form) {
    std::uint64_t hash = 0xcbf29ce484222325u;
    std::string one, out;
    for (char32_t c = 1; c < 0x110000; ++c) {
        if (c >= 0xD800 && c < 0xE000) continue;
        one.clear(), out.clear();
        one += encode_utf8(c).view();
        REQUIRE(append_normalized(one, form, out));
        for (const char byte : out) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3u;
    }
    return hash;
}

/// The small tokenizer with NFC before it and with the added tokens of nfc_dev.jsonl.
json nfc_json(const json& added, const json& normalizer) {
    json j = json::parse(read_file(data("tiny_tokenizer.json")));
    j["normalizer"] = normalizer;
    for (const json& one : added) j["added_tokens"].push_back(one);
    return j;
}

}  // namespace

TEST_CASE("normalization: expected strings, and the prefix that stays") {
    for (const json& line : read_lines(data("normalization.jsonl"))) {
        const std::string text = line["text"];
        CAPTURE(line["text"].dump(-1, ' ', true));
        const std::pair<normal_form, std::string> forms[] = {{normal_form::nfc, line["nfc"]}, {normal_form::nfd, line["nfd"]},
                                                             {normal_form::none, line["text"]}};
        for (const auto& [form, want] : forms) {
            CHECK(normalized(text, form) == want);
            CHECK(normalized(want, form) == want);
            const std::size_t prefix = normalized_prefix(text, form);
            CHECK(text.substr(0, prefix) == want.substr(0, prefix));
            if (prefix == text.size()) CHECK(text == want);
            // What was found to stay does so whatever follows.
            for (const char* more : {"\xCC\x81", "\xE1\x86\xA8", "\xCC\xA3", "x"}) {
                const std::string longer = text + more;
                const std::size_t again = normalized_prefix(longer, form);
                CHECK(normalized(longer, form).substr(0, again) == longer.substr(0, again));
            }
        }
    }
}

TEST_CASE("normalization: every code point") {
    CHECK(hash_of_all(normal_form::nfc) == 0xb7a71eef6835bd17u);
    CHECK(hash_of_all(normal_form::nfd) == 0x24b52ec007630babu);
}

TEST_CASE("normalization: text that is composed is only looked at") {
    for (const char* text : {"", "plain text, more than eight bytes of it", "na\xC3\xAFve caf\xC3\xA9", "\xE4\xBD\xA0\xE5\xA5\xBD", "\xEA\xB0\x81",
                             "\xE0\xA4\xA1\xE0\xA4\xBC",  // nukta after a letter it does not join
                             "\xE0\xA6\x95\xE0\xA6\xBE",  // a vowel sign that would join another one
                             "\xF0\x9F\x98\x80"})
        CHECK(normalized_prefix(text, normal_form::nfc) == std::string_view(text).size());
    CHECK(normalized_prefix("plain text, ae\xCC\x81", normal_form::nfc) == 13);
    CHECK(normalized_prefix("caf\xC3\xA9", normal_form::nfd) == 2);
}

TEST_CASE("normalization: long runs of marks are ordered and joined") {
    std::string text = "e", want;
    for (int i = 0; i < 50000; ++i) text += "\xCC\x81\xCC\xA3";
    want += encode_utf8(0x1EB9).view();
    for (int i = 1; i < 50000; ++i) want += "\xCC\xA3";
    for (int i = 0; i < 50000; ++i) want += "\xCC\x81";
    CHECK(normalized(text, normal_form::nfc) == want);
}

TEST_CASE("normalization: tokenizers with NFC, added tokens before and after it") {
    const std::vector<json> lines = read_lines(data("nfc_dev.jsonl"));
    const json nfc{{"type", "NFC"}}, nfd{{"type", "NFD"}};
    const auto sequence = [](const json& list) { return json{{"type", "Sequence"}, {"normalizers", list}}; };
    for (const json& normalizer :
         {nfc, sequence(json::array({nfc})), sequence(json::array({nfd, nfc})), sequence(json::array({sequence(json::array({nfc}))}))}) {
        const result<tokenizer> t = tokenizer_from_json(nfc_json(lines[0]["added_tokens"], normalizer).dump());
        REQUIRE_MESSAGE(t, t.error().message());
        CHECK(t->normalization() == normal_form::nfc);
        encoder e(*t);
        for (std::size_t i = 1; i < lines.size(); ++i) {
            CAPTURE(lines[i].dump(-1, ' ', true));
            const std::string text = lines[i]["text"];
            const exact_buffer exact(text);
            const ids_type want = lines[i]["ids"];
            ids_type have;
            REQUIRE(e.encode(exact.view(), {}, have));
            CHECK(have == want);
            ids_type plain;
            REQUIRE(e.encode(exact.view(), {marker_policy::plain_text}, plain));
            CHECK(decode(*t, plain) == normalized(text, normal_form::nfc));
        }
    }
    const result<tokenizer> empty = tokenizer_from_json(nfc_json(json::array(), sequence(json::array())).dump());
    REQUIRE_MESSAGE(empty, empty.error().message());
    CHECK(empty->normalization() == normal_form::none);
    const std::string decomposed = "e\xCC\x81";
    CHECK(decode(*empty, encode(*empty, decomposed)) == decomposed);
}

TEST_CASE("normalization: what is refused") {
    const auto code = [](const json& added, const json& normalizer) {
        const result<tokenizer> t = tokenizer_from_json(nfc_json(added, normalizer).dump());
        return t ? errc{} : t.error().code();
    };
    const json none = json::array();
    for (const json& wrong : {json{{"type", "NFKC"}}, json{{"type", "Lowercase"}}, json{{"type", "Sequence"}}, json::object(), json("NFC"),
                              json{{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}, {{"type", "Lowercase"}}}}}})
        CHECK(code(none, wrong) == errc::unsupported_tokenizer);
    const auto token = [](int id, const char* content) {
        return json{{"id", id}, {"content", content}, {"normalized", true}, {"special", false}};
    };
    // The same marker after normalizing: which one would it be?
    const json twice = json::array({token(512, "e\xCC\x81!"), token(513, "\xC3\xA9!")});
    CHECK(code(twice, {{"type", "NFC"}}) == errc::bad_vocabulary);
    CHECK(code(twice, nullptr) == errc{});
}
