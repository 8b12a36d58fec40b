/// tokenizer.json: both spellings of merges, any order of keys, other patterns, and what is refused with which error.
#include "text_testing.hpp"

using namespace phi4flash;
using namespace text_testing;

namespace {

using nlohmann::ordered_json;

ordered_json tiny_json() {
    static const ordered_json j = ordered_json::parse(read_file(data("tiny_tokenizer.json")));
    return j;
}

errc load_code(const std::string& text) {
    const exact_buffer exact(text);
    const result<tokenizer> r = tokenizer_from_json(exact.view());
    if (!r) INFO(r.error().message());
    return r ? errc{} : r.error().code();
}
errc load_json(const ordered_json& j) { return load_code(j.dump()); }

/// The error after one change of the small file.
template <class Change>
errc changed(Change&& change) {
    ordered_json j = tiny_json();
    change(j);
    return load_json(j);
}

ordered_json byte_level(bool use_regex) {
    return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

}  // namespace

TEST_CASE("tokenizer.json: merges as strings, and before the vocabulary") {
    const std::string text = "the quick <|user|> brown fox  = 12 isn't";
    const ids_type want = encode(tiny(), text);
    ordered_json j = tiny_json();
    for (ordered_json& m : j["model"]["merges"]) m = m[0].get<std::string>() + " " + m[1].get<std::string>();
    const result<tokenizer> strings = tokenizer_from_json(j.dump());
    REQUIRE(strings);
    CHECK(encode(*strings, text) == want);
    const json sorted = json::parse(j.dump());  // sorts the keys: merges come first
    CHECK(sorted.dump().find("\"merges\"") < sorted.dump().find("\"vocab\""));
    const result<tokenizer> merges_first = tokenizer_from_json(sorted.dump(1));
    REQUIRE(merges_first);
    CHECK(encode(*merges_first, text) == want);
    CHECK(merges_first->merges().rules().size() == tiny().merges().rules().size());
}

TEST_CASE("tokenizer.json: patterns of the family") {
    const auto pattern = [](const ordered_json& pre) {
        ordered_json j = tiny_json();
        j["pre_tokenizer"] = pre;
        const result<tokenizer> t = tokenizer_from_json(j.dump());
        REQUIRE_MESSAGE(t, t.error().message());
        return t->pattern();
    };
    CHECK(tiny().pattern() == split_pattern::o200k);
    CHECK(pattern(byte_level(true)) == split_pattern::gpt2);
    CHECK(pattern({{"type", "ByteLevel"}, {"add_prefix_space", false}}) == split_pattern::gpt2);
    for (const split_pattern p : {split_pattern::gpt2, split_pattern::cl100k, split_pattern::qwen2, split_pattern::o200k}) {
        const ordered_json split{
            {"type", "Split"}, {"pattern", {{"Regex", regex_of(p)}}}, {"behavior", "Isolated"}, {"invert", false}};
        CHECK(pattern({{"type", "Sequence"}, {"pretokenizers", {split, byte_level(false)}}}) == p);
    }
}

TEST_CASE("tokenizer.json: what the file's writer left in and does not change ids") {
    const std::string text = "the quick <|user|> brown fox  = 12 isn't, and a text of more than nine tokens";
    const ids_type want = encode(tiny(), text);
    REQUIRE(want.size() > 9);
    const auto check = [&](const char* what, auto&& change) {
        CAPTURE(what);
        ordered_json j = tiny_json();
        change(j);
        const result<tokenizer> t = tokenizer_from_json(j.dump());
        REQUIRE_MESSAGE(t, t.error().message());
        CHECK(encode(*t, text) == want);
        CHECK(decode(*t, want) == decode(tiny(), want));
    };
    const ordered_json truncation{{"direction", "Right"}, {"max_length", 9}, {"strategy", "LongestFirst"}, {"stride", 0}};
    const ordered_json padding{{"strategy", {{"Fixed", 64}}}, {"direction", "Left"}, {"pad_to_multiple_of", nullptr},
                               {"pad_id", 500},               {"pad_type_id", 0},    {"pad_token", "<|endoftext|>"}};
    check("truncation", [&](ordered_json& j) { j["truncation"] = truncation; });
    check("padding", [&](ordered_json& j) { j["padding"] = padding; });
    check("no type", [](ordered_json& j) { j["model"].erase("type"); });
    check("no truncation and padding at all", [](ordered_json& j) { j.erase("truncation"), j.erase("padding"); });
    check("a sequence of one decoder", [](ordered_json& j) {
        j["decoder"] = {{"type", "Sequence"}, {"decoders", ordered_json::array({j["decoder"]})}};
    });
}

TEST_CASE("tokenizer.json: what is not supported is refused by name") {
    const errc unsupported = errc::unsupported_tokenizer;
    CHECK(changed([](ordered_json&) {}) == errc{});
    CHECK(changed([](ordered_json& j) { j["model"]["type"] = "Unigram"; }) == unsupported);
    CHECK(changed([](ordered_json& j) { j["model"]["dropout"] = 0.1; }) == unsupported);
    CHECK(changed([](ordered_json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }) == unsupported);
    CHECK(changed([](ordered_json& j) { j["model"]["continuing_subword_prefix"] = "##"; }) == unsupported);
    CHECK(changed([](ordered_json& j) { j["normalizer"] = {{"type", "NFKC"}}; }) == unsupported);
    CHECK(changed([](ordered_json& j) { j["decoder"] = {{"type", "Sequence"}, {"decoders", {{{"type", "Fuse"}}}}}; }) == unsupported);
    CHECK(changed([](ordered_json& j) { j["model"]["type"] = nullptr; }) == unsupported);
    CHECK(changed([](ordered_json& j) { j["decoder"] = {{"type", "Metaspace"}}; }) == unsupported);
    CHECK(changed([](ordered_json& j) { j["post_processor"] = {{"type", "BertProcessing"}}; }) == unsupported);
    CHECK(changed([](ordered_json& j) { j["post_processor"] = {{"type", "ByteLevel"}}; }) == errc{});
    CHECK(changed([](ordered_json& j) { j["pre_tokenizer"] = nullptr; }) == unsupported);
    CHECK(changed([](ordered_json& j) { j["pre_tokenizer"] = {{"type", "Whitespace"}}; }) == unsupported);
    CHECK(changed([](ordered_json& j) { j["pre_tokenizer"] = byte_level(false); }) == unsupported);
    CHECK(changed([](ordered_json& j) { j["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}}; }) ==
          unsupported);
    CHECK(changed([](ordered_json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "\\w+"; }) == unsupported);
    CHECK(changed([](ordered_json& j) { j["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "MergedWithNext"; }) == unsupported);
    CHECK(changed([](ordered_json& j) { j["pre_tokenizer"]["pretokenizers"][0]["invert"] = false; }) == unsupported);
    CHECK(changed([](ordered_json& j) { j["pre_tokenizer"]["pretokenizers"][1]["use_regex"] = true; }) == unsupported);
    CHECK(changed([](ordered_json& j) { j["pre_tokenizer"]["pretokenizers"].push_back(byte_level(false)); }) == unsupported);
    CHECK(changed([](ordered_json& j) { j["added_tokens"][0]["single_word"] = true; }) == unsupported);
    ordered_json j = tiny_json();
    j["normalizer"] = {{"type", "NFKC"}};
    CHECK(std::string(tokenizer_from_json(j.dump()).error().message()).find("NFKC") != std::string::npos);
}

TEST_CASE("tokenizer.json: an added token is whole, and told by its place") {
    const auto told = [](const ordered_json& j) { return std::string(tokenizer_from_json(j.dump()).error().message()); };
    ordered_json j = tiny_json();
    REQUIRE(j["added_tokens"].size() > 3);
    j["added_tokens"][3]["surprise"] = true;
    CHECK(told(j) == "added_tokens: entry 3: the key 'surprise' is not known");
    CHECK(load_json(j) == errc::json_unknown_key);
    for (const ordered_json& id : {ordered_json(1.5), ordered_json(-1), ordered_json("1"), ordered_json(nullptr)}) {
        CAPTURE(id.dump());
        CHECK(changed([&](ordered_json& k) { k["added_tokens"][2]["id"] = id; }) == errc::json_wrong_type);
    }
    j = tiny_json();
    j["added_tokens"][2]["special"] = 1;
    CHECK(told(j) == "added_tokens: entry 2: the key 'special' wants true or false");
    const std::string good = tiny_json().dump();
    const std::string key = "\"content\":";
    const std::size_t at = good.find(key, good.find("added_tokens"));
    REQUIRE(at != std::string::npos);
    CHECK(load_code(good.substr(0, at) + "\"content\":\"x\"," + good.substr(at)) == errc::json_duplicate_key);
}

TEST_CASE("tokenizer.json: sentences are UTF-8 and for any terminal, whatever the file says") {
    const auto check = [](const ordered_json& j) {
        const auto t = tokenizer_from_json(j.dump());
        REQUIRE_FALSE(t);
        const std::string_view text = t.error().message();
        CAPTURE(text);
        CHECK(valid_utf8_prefix(text) == text.size());
        CHECK(std::none_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }));
    };
    std::string wide = "x";
    for (int i = 0; i < 200; ++i) wide += "\xe6\xbc\xa2";
    for (const std::string& name : {wide, std::string("\x1b[31mred\x07"), wide.substr(1)}) {
        ordered_json j = tiny_json();
        j["model"]["vocab"][name] = "no number";
        check(j);
        j = tiny_json();
        j["model"]["vocab"][name] = 100;  // no byte-level text
        check(j);
        j = tiny_json();
        j[name] = 1;
        check(j);
        j = tiny_json();
        j["model"]["merges"].push_back(name);
        check(j);
        j = tiny_json();
        j["pre_tokenizer"] = {{"type", name}};
        check(j);
        j = tiny_json();
        j["added_tokens"][0][name] = 1;
        check(j);
        j = tiny_json();
        j["added_tokens"][1]["content"] = j["added_tokens"][0]["content"] = name;
        check(j);
    }
}

TEST_CASE("tokenizer.json: broken files") {
    const std::string good = tiny_json().dump();
    CHECK(load_code(std::string()) == errc::file_empty);
    for (std::size_t cut = 1; cut < good.size(); cut += 1 + cut / 7) CHECK(load_code(good.substr(0, cut)) == errc::file_incomplete);
    CHECK(load_code(good + "x") == errc::json_syntax);
    CHECK(load_code(good + std::string(1, '\0') + "behind it") == errc::json_syntax);
    CHECK(load_code(good + std::string(100, '\0')) == errc::json_syntax);
    CHECK(load_code(std::string("null")) == errc::json_wrong_type);
    CHECK(load_code(std::string("[]")) == errc::json_wrong_type);
    CHECK(load_code(std::string("{}")) == errc::json_missing_key);
    CHECK(load_code("{\"version\":" + std::string(100000, '[')) == errc::json_too_deep);
    CHECK(load_code("{\"padding\":{\"\xFF\":1}}") == errc::json_syntax);
    CHECK(load_code("{\"surprise\":1," + good.substr(1)) == errc::json_unknown_key);
    CHECK(load_code("{\"version\":\"1.0\"," + good.substr(1)) == errc::json_duplicate_key);
    CHECK(load_code("{\"model\":{\"vocab\":{},\"merges\":[]}," + good.substr(1)) == errc::json_duplicate_key);
    CHECK(changed([](ordered_json& j) { j["model"]["surprise"] = 1; }) == errc::json_unknown_key);
    CHECK(changed([](ordered_json& j) { j["model"].erase("vocab"); }) == errc::json_missing_key);
    CHECK(changed([](ordered_json& j) { j["model"].erase("merges"); }) == errc::json_missing_key);
    CHECK(changed([](ordered_json& j) { j["model"]["vocab"] = ordered_json::array(); }) == errc::json_wrong_type);
    CHECK(changed([](ordered_json& j) { j["model"]["vocab"]["a"] = "b"; }) == errc::json_wrong_type);
    CHECK(changed([](ordered_json& j) { j["model"]["vocab"]["a"] = -1; }) == errc::json_wrong_type);
    CHECK(changed([](ordered_json& j) { j["model"]["vocab"]["a"] = 1.5; }) == errc::json_wrong_type);
    CHECK(changed([](ordered_json& j) { j["model"]["vocab"]["a"] = {1}; }) == errc::json_wrong_type);
    CHECK(changed([](ordered_json& j) { j["model"]["merges"][0] = 5; }) == errc::json_wrong_type);
    CHECK(changed([](ordered_json& j) { j["model"]["merges"][0] = {"a", "b", "c"}; }) == errc::json_wrong_type);
    CHECK(changed([](ordered_json& j) { j["model"]["merges"][0] = {{"a", 1}}; }) == errc::json_wrong_type);
    CHECK(changed([](ordered_json& j) { j["added_tokens"][0] = 1; }) == errc::json_wrong_type);
    CHECK(changed([](ordered_json& j) { j["added_tokens"][0]["id"] = "1"; }) == errc::json_wrong_type);
    CHECK(changed([](ordered_json& j) { j["added_tokens"][0]["rstrip"] = 1; }) == errc::json_wrong_type);
    CHECK(changed([](ordered_json& j) { j["added_tokens"][0].erase("id"); }) == errc::json_missing_key);
    CHECK(changed([](ordered_json& j) { j["added_tokens"][0].erase("content"); }) == errc::json_missing_key);
    CHECK(changed([](ordered_json& j) { j["added_tokens"][0]["surprise"] = true; }) == errc::json_unknown_key);
}

TEST_CASE("tokenizer.json: what would take much more memory than the file has bytes is refused") {
    const std::size_t limit = 65536 + tiny_json().dump().size();
    // Tables have a row for every id up to the highest.
    CHECK(changed([&](ordered_json& j) { j["model"]["vocab"].back() = 4194303; }) == errc::bad_vocabulary);
    CHECK(changed([&](ordered_json& j) { j["model"]["vocab"].back() = limit + 100; }) == errc::bad_vocabulary);
    // Each setting keeps its whole path.
    CHECK(changed([](ordered_json& j) { j["post_processor"] = {{std::string(8000, 'k'), std::vector<int>(2000, 1)}}; }) == errc::json_too_large);
}

TEST_CASE("tokenizer.json: vocabularies that contradict themselves") {
    CHECK(changed([](ordered_json& j) { j["model"]["vocab"]["a"] = 70; }) == errc::bad_vocabulary);
    CHECK(changed([](ordered_json& j) { j["model"]["vocab"]["zzzz"] = 4000000000; }) == errc::bad_vocabulary);
    CHECK(changed([](ordered_json& j) { j["model"]["vocab"]["zzzz"] = 18446744073709551615u; }) == errc::bad_vocabulary);
    CHECK(changed([](ordered_json& j) { j["model"]["vocab"][""] = 600; }) == errc::bad_vocabulary);
    CHECK(changed([](ordered_json& j) { j["model"]["vocab"]["a b"] = 600; }) == errc::bad_vocabulary);
    CHECK(changed([](ordered_json& j) { j["model"]["vocab"]["\xE4\xBD\xA0"] = 600; }) == errc::bad_vocabulary);
    CHECK(changed([](ordered_json& j) { j["added_tokens"][0]["id"] = 501; }) == errc::bad_vocabulary);
    CHECK(changed([](ordered_json& j) { j["added_tokens"][0]["id"] = 5e9; }) == errc::bad_vocabulary);
    CHECK(changed([](ordered_json& j) { j["added_tokens"][0]["content"] = "<|end|>"; }) == errc::bad_vocabulary);
    CHECK(changed([](ordered_json& j) { j["model"]["merges"][0] = {"a", "zzzzz"}; }) == errc::bad_merge);
    CHECK(changed([](ordered_json& j) { j["model"]["merges"][0] = "ab"; }) == errc::bad_merge);
    CHECK(changed([](ordered_json& j) { j["model"]["merges"][0] = "a b c"; }) == errc::bad_merge);
    CHECK(changed([](ordered_json& j) { j["model"]["merges"].push_back(j["model"]["merges"][0]); }) == errc::bad_merge);
    // An added token may be spelled in characters that no byte has, in both lists.
    CHECK(changed([](ordered_json& j) {
              j["model"]["vocab"]["<\xEF\xBD\x9C>"] = 600;
              j["added_tokens"].push_back({{"id", 600}, {"content", "<\xEF\xBD\x9C>"}, {"special", true}});
          }) == errc{});
}
