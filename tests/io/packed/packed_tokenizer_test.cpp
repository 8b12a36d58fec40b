/// The tokenizer in a packed model file: it comes back from its tables and from its strings, and damaged tables are refused or do
/// no harm.
#include "io/gguf/gguf_testing.hpp"

#include <phi4flash/io/packed/model_writer.hpp>

#include <functional>
#include <list>
#if PHI4FLASH_HAS_JSON
#include "text/text_testing.hpp"
#endif

using namespace phi4flash;
using namespace io_testing;
using namespace gguf_testing;

namespace {
constexpr sambay_shape packed_shape = small_shape;
const sambay_config config{.shape = packed_shape, .norm_eps = 1e-6f, .max_positions = 100};

bytes write_model(const packed_tokenizer* t) {
    memory_file out;
    const packed_model_info info{.name = "small", .config = config, .generation = {}, .tokenizer = t};
    const auto nothing = [](std::size_t, gguf_sink&) -> status { return {}; };
    require_value(write_packed_model(out, info, std::vector<packed_tensor>{}, nothing));
    return std::move(out.content);
}

/// Reads a file that is gone afterwards.
result<tokenizer> read(const bytes& file) {
    const auto model = packed_model::from_memory(file);
    require_value(model);
    return read_tokenizer(*model);
}
result<tokenizer> through_file(const packed_tokenizer& t) { return read(write_model(&t)); }

/// A file as other programs write it: strings only.
result<tokenizer> from_strings(const std::function<void(gguf_metadata&)>& keys) {
    gguf_metadata metadata;
    metadata.add("general.architecture", packed_architecture);
    detail::add_config(metadata, config);
    keys(metadata);
    const auto plan = plan_gguf(metadata, {});
    require_value(plan);
    memory_file out;
    require_value(write_gguf(out, *plan, {}, [](std::size_t, gguf_sink&) -> status { return {}; }));
    return read(out.content);
}

struct string_keys {
    const char* model = "gpt2";
    const char* pre = "gpt-4o";
    std::vector<std::string> tokens, merges;
    std::vector<std::int32_t> types;
};
string_keys keys_of(const packed_tokenizer& t) { return {.tokens = t.tokens, .merges = t.merges, .types = t.types}; }
result<tokenizer> from_strings(const string_keys& k) {
    return from_strings([&](gguf_metadata& m) {
        m.add("tokenizer.ggml.model", k.model);
        m.add("tokenizer.ggml.pre", k.pre);
        m.add_strings("tokenizer.ggml.tokens", k.tokens.size(), [&](std::size_t i) { return std::string_view(k.tokens[i]); });
        m.add_strings("tokenizer.ggml.merges", k.merges.size(), [&](std::size_t i) { return std::string_view(k.merges[i]); });
        if (!k.types.empty()) m.add_list("tokenizer.ggml.token_type", std::span<const std::int32_t>(k.types));
    });
}

/// A description whose tables can be changed.
class damaged {
public:
    explicit damaged(const tokenizer& t) : description(*describe_tokenizer(t, packed_shape.vocab)) {
        for (packed_array& a : description.tables) {
            contents_.emplace_back(a.data.begin(), a.data.end());
            a.data = contents_.back();
        }
    }
    packed_array& table(std::string_view name) {
        for (packed_array& a : description.tables)
            if (a.name == name) return a;
        FAIL("no table");
        return description.tables[0];
    }
    /// 32-bit number i of a table.
    damaged& set(std::string_view name, std::size_t i, std::uint32_t value) {
        const packed_array& a = table(name);
        REQUIRE(4 * i + 4 <= a.data.size());
        std::memcpy(const_cast<std::byte*>(a.data.data()) + 4 * i, &value, 4);
        return *this;
    }
    damaged& fill(std::string_view name, std::uint32_t value) {
        for (std::size_t i = 0; i < table(name).data.size() / 4; ++i) set(name, i, value);
        return *this;
    }
    damaged& cut(std::string_view name, std::size_t count) {
        packed_array& a = table(name);
        a.data = a.data.first(count);
        return *this;
    }
    std::uint32_t get(std::string_view name, std::size_t i) {
        std::uint32_t value = 0;
        std::memcpy(&value, table(name).data.data() + 4 * i, 4);
        return value;
    }
    [[nodiscard]] result<tokenizer> read() const { return through_file(description); }

    packed_tokenizer description;

private:
    std::list<std::vector<std::byte>> contents_;
};

void check_same(const tokenizer& want, const tokenizer& have, std::string_view text) {
    CAPTURE(text);
    std::vector<std::int32_t> a, b;
    require_value(want.encode(text, {}, a));
    require_value(have.encode(text, {}, b));
    REQUIRE(a == b);
    std::string s, t;
    REQUIRE(want.decode(a, {}, s));
    REQUIRE(have.decode(a, {}, t));
    REQUIRE(s == t);
}

const std::vector<std::string> texts{"hello world<|end|>  hell", "w w\xc3\xa9<|tool|>", "", "hhehellhelll wwheheheheh ll"};

/// Uses everything that reads tables.
void use(const tokenizer& t) {
    std::mt19937 random(5);
    for (int i = 0; i < 20; ++i) {
        std::string text;
        for (int k = 0; k < 40; ++k) text += "helo w<|end|>\xff\x80y"[random() % 16];
        std::vector<std::int32_t> ids;
        require_value(t.encode(text, {}, ids));
        bpe_scratch scratch;
        require_value(t.merges().encode_by_merging(text, scratch, [&](std::uint32_t id) { ids.push_back(static_cast<std::int32_t>(id)); }));
        for (std::int32_t id = -1; id < 300; ++id) ids.push_back(id);
        std::string out;
        REQUIRE(t.decode(ids, {}, out));
        (void)t.merges().strings().find(text);
    }
}
}  // namespace

TEST_CASE("io/packed_tokenizer: it comes back") {
    const tokenizer text = small_tokenizer();
    const packed_tokenizer described = *describe_tokenizer(text, packed_shape.vocab);
    const bytes file = write_model(&described);
    const auto model = packed_model::from_memory(file);
    require_value(model);
    const auto loaded = read_tokenizer(*model);
    require_value(loaded);
    CHECK(loaded->vocab_size() == text.vocab_size());
    CHECK(loaded->pattern() == text.pattern());
    CHECK(loaded->merges().ordered());
    CHECK(loaded->merges().strings().count() == 260);
    CHECK(loaded->added_tokens().size() == 2);
    CHECK(loaded->added(270)->rstrip);
    CHECK(loaded->is_special(270));
    CHECK_FALSE(loaded->is_special(272));
    for (const std::string& s : texts) check_same(text, *loaded, s);
    // The strings for other programs.
    const gguf_value* const tokens = model->file().value("tokenizer.ggml.tokens");
    REQUIRE(tokens != nullptr);
    REQUIRE(tokens->count == packed_shape.vocab);
    std::vector<std::string> words;
    gguf_strings strings(*tokens);
    for (std::string_view s; strings.next(s);) words.emplace_back(s);
    CHECK(words[0] == "\xc4\x80");     // U+0100
    CHECK(words[' '] == "\xc4\xa0");   // U+0120
    CHECK(words[0x7f] == "\xc4\xa1");  // U+0121
    CHECK(words[0xa0] == "\xc5\x82");  // U+0142
    CHECK(words[0xad] == "\xc5\x83");  // U+0143
    CHECK(words[0xff] == "\xc3\xbf");  // itself
    CHECK(words[258] == "hell");
    CHECK(words[259] == "\xc4\xa0w");
    CHECK(words[261] == "[PAD261]");
    CHECK(words[270] == "<|end|>");
    CHECK(model->file().value("tokenizer.ggml.pre")->text() == "gpt-4o");
    const gguf_value& types = *model->file().value("tokenizer.ggml.token_type");
    CHECK(types.whole(0) == 1u);
    CHECK(types.whole(261) == 5u);
    CHECK(types.whole(270) == 3u);
    CHECK(types.whole(272) == 4u);

    check_error(model->array<std::uint32_t>("no such table"), errc::missing_tensor, {"phi4flash.tokenizer.no such table"});
    check_error(model->array<std::uint64_t>("merges.rules"), errc::wrong_dtype, {"want I64", "have I32"});
    CHECK(model->has_array("merges.rules"));
    CHECK_FALSE(model->has_array(std::string(100, 'x')));
}

TEST_CASE("io/packed_tokenizer: normalization comes back, and programs that do not know of it refuse the file") {
    for (const normal_form form : {normal_form::none, normal_form::nfc, normal_form::nfd}) {
        tokenizer_builder builder;
        for (unsigned b = 0; b < 256; ++b) {
            const char byte = static_cast<char>(b);
            require_value(builder.add_token(b, {&byte, 1}));
        }
        added_token before{.id = 256, .content = "e\xcc\x81!"};
        added_token after{.id = 257, .content = "e\xcc\x81?", .normalized = true};
        require_value(builder.add_added_token(before));
        require_value(builder.add_added_token(after));
        builder.normalization = form;
        const auto built = builder.build();
        require_value(built);
        packed_tokenizer described = *describe_tokenizer(*built, packed_shape.vocab);
        const auto loaded = through_file(described);
        require_value(loaded);
        CHECK(loaded->normalization() == form);
        for (const char* s : {"e\xcc\x81!", "e\xcc\x81?", "\xc3\xa9?", "\xc3\xa9", "a\xcc\xa3\xcc\x81"}) check_same(*built, *loaded, s);
        const auto from_keys = from_strings([&](gguf_metadata& m) {
            m.add("tokenizer.ggml.model", "gpt2");
            m.add(detail::packed_pattern_key, described.pattern);
            m.add_strings("tokenizer.ggml.tokens", described.tokens.size(), [&](std::size_t i) { return std::string_view(described.tokens[i]); });
            m.add_list("tokenizer.ggml.token_type", std::span<const std::int32_t>(described.types));
            m.add_strings("tokenizer.ggml.merges", 0, [](std::size_t) { return std::string_view(); });
        });
        require_value(from_keys);
        CHECK(from_keys->normalization() == form);
        for (const char* s : {"e\xcc\x81!", "\xc3\xa9", "a\xcc\xa3\xcc\x81"}) check_same(*built, *from_keys, s);
        // What a program looks for that does not know of normalization: the pattern and nothing before it.
        CHECK((described.pattern == regex_of(built->pattern())) == (form == normal_form::none));
        if (form == normal_form::none) continue;
        described.pattern = "NFKC, then " + std::string(regex_of(built->pattern()));
        check_error(through_file(described), errc::unsupported_tokenizer, {"NFKC, then"});
    }
}

TEST_CASE("io/packed_tokenizer: patterns, and merges in an order that needs the slow way") {
    for (const split_pattern pattern : {split_pattern::gpt2, split_pattern::cl100k, split_pattern::qwen2, split_pattern::o200k}) {
        tokenizer_builder builder;
        for (unsigned b = 0; b < 256; ++b) {
            const char byte = static_cast<char>(b);
            require_value(builder.add_token(b, {&byte, 1}));
        }
        for (const auto& [id, s] : {std::pair{256, "he"}, {257, "hell"}, {258, "ll"}, {259, "whole"}})
            require_value(builder.add_token(static_cast<std::size_t>(id), s));
        require_value(builder.add_merge("he", "ll"));
        require_value(builder.add_merge("h", "e"));
        require_value(builder.add_merge("l", "l"));
        builder.pattern = pattern;
        builder.ignore_merges = pattern != split_pattern::gpt2;
        const auto built = builder.build();
        require_value(built);
        REQUIRE_FALSE(built->merges().ordered());
        const auto loaded = through_file(*describe_tokenizer(*built, packed_shape.vocab));
        require_value(loaded);
        CHECK(loaded->pattern() == pattern);
        CHECK(loaded->merges().ignore_merges() == built->merges().ignore_merges());
        CHECK_FALSE(loaded->merges().ordered());
        for (const std::string& s : texts) check_same(*built, *loaded, s);
        check_same(*built, *loaded, "whole");
    }
}

TEST_CASE("io/packed_tokenizer: files of other programs have strings only") {
    const tokenizer text = small_tokenizer();
    const string_keys good = keys_of(*describe_tokenizer(text, packed_shape.vocab));
    const auto loaded = from_strings(good);
    require_value(loaded);
    CHECK(loaded->vocab_size() == text.vocab_size());
    CHECK(loaded->is_special(270));
    CHECK_FALSE(loaded->is_special(272));
    check_same(text, *loaded, texts[1]);
    check_same(text, *loaded, texts[3]);

    const auto refuse = [&](errc code, std::initializer_list<const char*> words, const std::function<void(string_keys&)>& edit) {
        string_keys bad = good;
        edit(bad);
        check_error(from_strings(bad), code, words);
    };
    refuse(errc::unsupported_tokenizer, {"want 'gpt2'", "'llama'"}, [](string_keys& k) { k.model = "llama"; });
    refuse(errc::unsupported_tokenizer, {"'deepseek'"}, [](string_keys& k) { k.pre = "deepseek"; });
    refuse(errc::wrong_value_type, {"token_type", "a list of 279 i32"}, [](string_keys& k) { k.types.pop_back(); });
    refuse(errc::bad_vocabulary, {"token 258", "byte-level"}, [](string_keys& k) { k.tokens[258] = "a b"; });
    refuse(errc::bad_vocabulary, {"same string"}, [](string_keys& k) { k.tokens[258] = k.tokens[257]; });
    refuse(errc::bad_vocabulary, {"0x61"}, [](string_keys& k) { k.types['a'] = 5; });
    refuse(errc::bad_merge, {"'hell'"}, [](string_keys& k) { k.merges[0] = "hell"; });
    refuse(errc::bad_merge, {"merge 1"}, [](string_keys& k) { k.merges[1] = "l he"; });
    for (const char* missing : {"tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"}) {
        const std::string_view key = missing;
        check_error(from_strings([&](gguf_metadata& m) {
                        if (key != "tokenizer.ggml.model") m.add("tokenizer.ggml.model", "gpt2");
                        if (key != "tokenizer.ggml.pre") m.add("tokenizer.ggml.pre", "gpt-4o");
                        if (key != "tokenizer.ggml.tokens") m.add("tokenizer.ggml.tokens", "a");
                        if (key.starts_with("tokenizer.ggml.to")) m.add("tokenizer.ggml.merges", "a b");
                    }),
                    errc::missing_key, {missing});
    }
    check_error(from_strings([&](gguf_metadata& m) {
                    m.add("tokenizer.ggml.model", "gpt2");
                    m.add("tokenizer.ggml.pre", "gpt-4o");
                    m.add("tokenizer.ggml.tokens", "a");
                    m.add("tokenizer.ggml.merges", "a b");
                }),
                errc::wrong_value_type, {"tokenizer.ggml.tokens", "a list of strings"});
    check_error(read(write_model(nullptr)), errc::missing_key, {"tokenizer.ggml.model"});

    // Tables of another version are left alone.
    const packed_tokenizer described = *describe_tokenizer(text, packed_shape.vocab);
    bytes file = write_model(&described);
    const std::string_view key = detail::packed_tables_key;
    const auto at = static_cast<std::ptrdiff_t>(text_of(file).find(key) + key.size() + 4);
    REQUIRE(file[static_cast<std::size_t>(at)] == std::byte{1});
    file[static_cast<std::size_t>(at)] = std::byte{2};
    const std::size_t places = text_of(file).find("strings.places");
    file[places] = std::byte{'x'};
    const auto other = read(file);
    require_value(other);
    CHECK(other->added(270)->rstrip);
    for (const std::string& s : texts) check_same(text, *other, s);
}

TEST_CASE("io/packed_tokenizer: each kind of damage is refused by name") {
    const tokenizer text = small_tokenizer();
    require_value(damaged(text).read());
    const auto refuse = [&](errc code, const char* table, const std::function<void(damaged&)>& edit) {
        damaged d(text);
        edit(d);
        CAPTURE(table);
        check_error(d.read(), code, {table});
    };
    const char* const places = "strings.places";
    refuse(errc::bad_vocabulary, places, [&](damaged& d) { d.set(places, 2 * 5, 0x7fffffff); });
    refuse(errc::bad_vocabulary, places, [&](damaged& d) { d.set(places, 2 * 5 + 1, 300); });
    refuse(errc::bad_vocabulary, places, [&](damaged& d) { d.set(places, 2 * 5 + 1, 0xffffffff); });
    refuse(errc::bad_vocabulary, places, [&](damaged& d) { d.cut("strings.bytes", 9); });
    refuse(errc::wrong_shape, places, [&](damaged& d) { d.cut(places, 12); });
    refuse(errc::wrong_dtype, places, [&](damaged& d) { d.table(places).type = ggml_type::i8; });
    refuse(errc::missing_tensor, places, [&](damaged& d) { d.table(places).name = "other"; });
    const char* const index = "strings.index";
    refuse(errc::bad_vocabulary, index, [&](damaged& d) { d.set(index, 7, 260); });
    refuse(errc::bad_vocabulary, index, [&](damaged& d) { d.fill(index, 3); });
    refuse(errc::bad_vocabulary, index, [&](damaged& d) { d.cut(index, 12); });
    refuse(errc::bad_vocabulary, index, [&](damaged& d) { d.cut(index, 0); });
    refuse(errc::bad_vocabulary, "no token for the byte 0x00", [&](damaged& d) { d.fill(index, no_token); });
    const char* const rules = "merges.rules";
    refuse(errc::bad_merge, rules, [&](damaged& d) { d.set(rules, 0, 260); });
    refuse(errc::bad_merge, rules, [&](damaged& d) { d.set(rules, 1, no_token); });
    refuse(errc::bad_merge, rules, [&](damaged& d) { d.set(rules, 2, 'h'); });
    const char* const slots = "merges.slots";
    refuse(errc::bad_merge, slots, [&](damaged& d) { d.set(slots, 7, 4); });
    refuse(errc::bad_merge, slots, [&](damaged& d) { d.fill(slots, 1); });
    refuse(errc::bad_merge, slots, [&](damaged& d) { d.cut(slots, 32 * 4); });
    refuse(errc::bad_merge, slots, [&](damaged& d) { d.cut(slots, 65 * 4 - 8); });
    const char* const histories = "merges.histories";
    refuse(errc::bad_merge, histories, [&](damaged& d) { d.set(histories, 4 * 258, 4); });
    refuse(errc::bad_merge, histories, [&](damaged& d) { d.set(histories, 4 * 258, 1); });
    refuse(errc::bad_merge, histories, [&](damaged& d) { d.set(histories, 4 * 258, static_cast<std::uint32_t>(-1)); });
    refuse(errc::bad_merge, histories, [&](damaged& d) { d.set(histories, 4 * 258, static_cast<std::uint32_t>(-3)); });
    refuse(errc::bad_merge, histories, [&](damaged& d) { d.set(histories, 4 * 256, static_cast<std::uint32_t>(-2)); });
    refuse(errc::bad_merge, histories, [&](damaged& d) { d.set(histories, 4 * 258 + 1, 259); });
    refuse(errc::bad_merge, histories, [&](damaged& d) { d.set(histories, 4 * 258 + 3, 258); });
    refuse(errc::bad_merge, histories, [&](damaged& d) { d.set(histories, 4 * 258 + 3, 260); });
    refuse(errc::bad_merge, histories, [&](damaged& d) { d.cut(histories, 16); });
    const char* const trie = "trie.units";
    const auto child = [&](damaged& d, unsigned byte) { return 3 * (d.get(trie, 0) + byte); };
    refuse(errc::bad_vocabulary, trie, [&](damaged& d) { d.set(trie, child(d, 'h'), 0x7fffffff); });
    refuse(errc::bad_vocabulary, trie, [&](damaged& d) { d.set(trie, child(d, 'h') + 2, 261); });
    refuse(errc::bad_vocabulary, "byte 0x68", [&](damaged& d) { d.set(trie, child(d, 'h') + 1, 1); });
    refuse(errc::bad_vocabulary, "byte 0x68", [&](damaged& d) { d.set(trie, child(d, 'h') + 2, no_token); });
    refuse(errc::bad_vocabulary, "byte 0x61", [&](damaged& d) { d.set(trie, child(d, 'a'), 0xfffffff1); });
    refuse(errc::bad_vocabulary, trie, [&](damaged& d) { d.set(trie, 0, 0xfffffff0); });
    refuse(errc::bad_vocabulary, trie, [&](damaged& d) { d.cut(trie, 1200); });

    refuse(errc::bad_vocabulary, "added.begins", [](damaged& d) { d.description.added_begins[1] = 1000; });
    refuse(errc::bad_vocabulary, "differ in length", [](damaged& d) { d.description.added_flags.pop_back(); });
    refuse(errc::bad_vocabulary, "contradicts", [](damaged& d) { d.description.added_ids[0] = 3; });
    refuse(errc::unsupported_tokenizer, "'a+'", [](damaged& d) { d.description.pattern = "a+"; });
}

TEST_CASE("io/packed_tokenizer: whatever the tables hold, nothing is read out of bounds and everything ends") {
    const tokenizer text = small_tokenizer();
    std::mt19937 random(20250612);
    std::size_t accepted = 0;
    for (int i = 0; i < 4000; ++i) {
        damaged d(text);
        packed_array& a = d.description.tables[random() % d.description.tables.size()];
        for (unsigned k = 0; k < 1 + random() % 3; ++k) {
            // Small numbers and numbers that are there already, so that many get past the checks.
            const std::size_t at = random() % (a.data.size() / 4);
            constexpr std::uint32_t some[] = {0, 1, 255, 256, 258, 259, 0xfffffff0, 0xfffffff1, no_token};
            const std::size_t other = random() % (a.data.size() / 4);
            d.set(a.name, at, random() % 2 == 0 ? some[random() % std::size(some)] : d.get(a.name, other));
        }
        const auto t = d.read();
        if (!t) continue;
        ++accepted;
        use(*t);
    }
    CHECK(accepted > 500);
    CHECK(accepted < 3500);
}

#if PHI4FLASH_HAS_JSON
TEST_CASE("io/packed_tokenizer: the small tokenizer's texts") {
    const tokenizer& want = text_testing::tiny();
    const packed_tokenizer described = *describe_tokenizer(want, 512);
    const auto have = through_file(described);
    require_value(have);
    const auto slow = from_strings(keys_of(described));
    require_value(slow);
    for (const auto& line : text_testing::read_lines(text_testing::data("tiny_dev.jsonl"))) {
        const std::string text = line["text"];
        check_same(want, *have, text);
        CHECK(text_testing::encode(*have, text) == line["ids"].get<text_testing::ids_type>());
    }
    check_same(want, *slow, "the strings alone give the same, but for white space after markers.");
}

TEST_CASE("io/packed_tokenizer: the released tokenizer's texts") {
    const std::string folder = text_testing::shared();
    if (folder.empty()) return;
    const tokenizer want = text_testing::load(folder + "tokenizer.json");
    const auto have = through_file(*describe_tokenizer(want, 200064));
    require_value(have);
    for (const auto& line : text_testing::read_lines(folder + "tok_dev.jsonl")) {
        const std::string text = line["text"];
        REQUIRE(text_testing::encode(*have, text) == line["ids"].get<text_testing::ids_type>());
    }
    for (const auto& line : text_testing::read_lines(folder + "decode_dev.jsonl")) {
        const auto ids = line["ids"].get<text_testing::ids_type>();
        REQUIRE(text_testing::decode(*have, ids) == line["text"].get<std::string>());
    }
}
#endif
