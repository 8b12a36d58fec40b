/// GGUF: what the format allows is read, and each defect has its own error that names the key, the tensor or the byte.
#include "io/gguf/gguf_testing.hpp"

using namespace phi4flash;
using namespace io_testing;
using namespace gguf_testing;

namespace {
/// A file of one tensor "w" with data behind it.
result<gguf> parse_tensor(std::initializer_list<std::uint64_t> extents, ggml_type type, std::uint64_t offset = 0,
                          std::size_t data_bytes = 64) {
    return parse(file_text().header(1, 0).tensor("w", extents, type, offset).pad().data(data_bytes));
}
result<gguf> parse_value(const file_text& value) { return parse(file_text().header(0, 1).raw(text_of(value.bytes()))); }
result<gguf> parse_alignment(std::uint32_t n) { return parse_value(file_text().key("general.alignment", gguf_type::u32).put(n)); }
}  // namespace

TEST_CASE("io/gguf: metadata of every type") {
    file_text text;
    text.header(0, 16);
    text.key("u8", gguf_type::u8).put(std::uint8_t{200}).key("i8", gguf_type::i8).put(std::int8_t{-3});
    text.key("u16", gguf_type::u16).put(std::uint16_t{60000}).key("i16", gguf_type::i16).put(std::int16_t{300});
    text.key("u32", gguf_type::u32).put(std::uint32_t{4000000000u}).key("i32", gguf_type::i32).put(std::int32_t{-1});
    text.key("u64", gguf_type::u64).put(~std::uint64_t{0}).key("i64", gguf_type::i64).put(std::int64_t{1} << 40);
    text.key("f32", gguf_type::f32).put(0.5f).key("f64", gguf_type::f64).put(-0.25);
    text.key("yes", gguf_type::boolean).put(std::uint8_t{1}).key("no", gguf_type::boolean).put(std::uint8_t{0});
    text.key("text", gguf_type::string).string("h\xc3\xa9llo").key("empty", gguf_type::string).string("");
    text.list("numbers", gguf_type::i16, 3).put(std::int16_t{1}).put(std::int16_t{2}).put(std::int16_t{-3});
    text.list("words", gguf_type::string, 3).string("one").string("").string("three");
    const bytes file = text.bytes();
    const auto parsed = gguf::parse(file);
    require_value(parsed);
    CHECK(parsed->values().size() == 16);
    CHECK(parsed->tensors().empty());
    CHECK(parsed->alignment() == gguf_default_alignment);
    CHECK(parsed->value("u8")->whole() == 200u);
    CHECK_FALSE(parsed->value("i8")->whole().has_value());
    CHECK(parsed->value("u16")->whole() == 60000u);
    CHECK(parsed->value("i16")->whole() == 300u);
    CHECK(parsed->value("u32")->whole() == 4000000000u);
    CHECK_FALSE(parsed->value("i32")->whole().has_value());
    CHECK(parsed->value("u64")->whole() == ~std::uint64_t{0});
    CHECK(parsed->value("i64")->whole() == std::uint64_t{1} << 40);
    CHECK(parsed->value("f32")->real() == 0.5);
    CHECK(parsed->value("f64")->real() == -0.25);
    CHECK_FALSE(parsed->value("f32")->whole().has_value());
    CHECK_FALSE(parsed->value("u8")->real().has_value());
    CHECK(parsed->value("yes")->boolean() == true);
    CHECK(parsed->value("no")->boolean() == false);
    CHECK(parsed->value("text")->text() == "h\xc3\xa9llo");
    CHECK(parsed->value("empty")->text() == "");
    CHECK_FALSE(parsed->value("words")->text().has_value());
    CHECK(parsed->value("nothing") == nullptr);
    // A view, not a copy.
    const auto* const place = reinterpret_cast<const std::byte*>(parsed->value("text")->text()->data());
    CHECK(place > file.data());
    CHECK(place < file.data() + file.size());

    const gguf_value& numbers = *parsed->value("numbers");
    REQUIRE(numbers.is_array);
    REQUIRE(numbers.count == 3);
    CHECK(numbers.whole(1) == 2u);
    CHECK(numbers.at<std::int16_t>(2) == -3);
    std::vector<std::string> words;
    gguf_strings strings(*parsed->value("words"));
    for (std::string_view s; strings.next(s);) words.emplace_back(s);
    CHECK(words == std::vector<std::string>{"one", "", "three"});
    std::string_view none;
    CHECK_FALSE(gguf_strings(numbers).next(none));
    CHECK_FALSE(gguf_strings(*parsed->value("text")).next(none));
}

TEST_CASE("io/gguf: tensors, their places, and an alignment of the file's own") {
    const bytes file = file_text()
                           .header(4, 1)
                           .key("general.alignment", gguf_type::u32)
                           .put(std::uint32_t{64})
                           .tensor("b", {64, 3}, ggml_type::q8_0, 64)
                           .tensor("a", {5, 2, 1, 1}, ggml_type::f32, 0)
                           .tensor("scalar", {}, ggml_type::i64, 320)
                           .tensor("nothing", {0, 7}, ggml_type::bf16, 320)
                           .pad(64)
                           .data(64 + 256 + 8)
                           .bytes();
    auto parsed = gguf::parse(file);
    require_value(parsed);
    const gguf table = *std::move(parsed);
    REQUIRE(table.tensors().size() == 4);
    CHECK(table.alignment() == 64);
    CHECK(table.tensors()[0].name == "a");
    CHECK(table.tensor("c") == nullptr);
    const gguf_tensor& b = *table.tensor("b");
    CHECK(b.rank == 2);
    CHECK(b.extent[0] == 3);
    CHECK(b.extent[1] == 64);
    CHECK(b.bytes == 3 * 2 * 34);
    CHECK(b.rows() == 3);
    CHECK(b.cols() == 64);
    CHECK(std::string(b.format->name) == "Q8_0");
    CHECK(b.data[0] == std::byte{64});
    CHECK(table.tensor("a")->data[1] == std::byte{1});
    CHECK(table.tensor("a")->rank == 4);
    CHECK(table.tensor("a")->extent[2] == 2);
    CHECK(table.tensor("scalar")->count() == 1);
    CHECK(table.tensor("nothing")->bytes == 0);
    CHECK(table.tensor("nothing")->rows() == 0);
}

TEST_CASE("io/gguf: an empty table is a file") { require_value(parse(file_text().header(0, 0))); }

TEST_CASE("io/gguf: magic, version and place in memory") {
    check_error(gguf::parse({}), errc::file_empty, {"GGUF"});
    check_error(parse(file_text().raw("GM")), errc::bad_magic, {"letters GGUF", "'GM'"});
    check_error(parse(file_text().raw("GG")), errc::file_incomplete, {"after 2 bytes"});
    check_error(parse(file_text().raw("GGML").put(gguf_version)), errc::bad_magic, {"'GGML'"});
    check_error(parse(file_text().raw("GGUF").put(std::uint32_t{2})), errc::unsupported_version, {"want GGUF version 3", "have 2"});
    check_error(parse(file_text().raw("GGUF").put(std::uint32_t{0x03000000})), errc::unsupported_version, {"big-endian"});
    check_error(parse(file_text().raw("GGUF")), errc::file_incomplete, {"byte 4", "version"});
    check_error(parse(file_text().raw("GGUF").put(gguf_version).put(std::uint32_t{1})), errc::file_incomplete,
                {"byte 8", "tensor count"});
    const bytes file = file_text().header(0, 0).put(std::uint64_t{0}).bytes();
    check_error(gguf::parse(std::span(file).subspan(1)), errc::invalid_argument, {"multiple of 8"});
}

TEST_CASE("io/gguf: a file that ends early is incomplete, wherever it ends") {
    file_text text;
    text.header(1, 6).key("n", gguf_type::u32).put(std::uint32_t{7}).key("yes", gguf_type::boolean).put(std::uint8_t{1});
    text.key("text", gguf_type::string).string("some words").list("words", gguf_type::string, 3).string("one").string("").string("three");
    text.list("numbers", gguf_type::i16, 3).put(std::int16_t{1}).put(std::int16_t{2}).put(std::int16_t{3});
    text.key("general.alignment", gguf_type::u32).put(std::uint32_t{64});
    const bytes file = text.tensor("w", {4, 2}, ggml_type::f32, 0).pad(64).data(32).bytes();
    require_value(gguf::parse(file));
    for (std::size_t n = 1; n < file.size(); ++n) {
        CAPTURE(n);
        check_error(gguf::parse(std::span(file).first(n)), errc::file_incomplete);
    }
}

TEST_CASE("io/gguf: counts are checked before memory is taken") {
    const auto huge = ~std::uint64_t{0};
    check_error(parse(file_text().header(huge, 0)), errc::count_too_large, {"tensors", "18446744073709551615"});
    check_error(parse(file_text().header(0, huge)), errc::count_too_large, {"keys", "18446744073709551615"});
    check_error(parse(file_text().header(0, 2).data(14)), errc::file_incomplete, {"2 keys", "file of 38 bytes", "download"});
    check_error(parse(file_text().header(2, 0).data(25)), errc::file_incomplete, {"2 tensors", "file of 49 bytes", "download"});
    check_error(parse(file_text().header(0, 3).data(100), {.keys = 2}), errc::count_too_large, {"at most 2 keys", "have 3"});
}

TEST_CASE("io/gguf: keys and values") {
    check_error(parse_value(file_text().put(std::uint64_t{1000}).data(20)), errc::file_incomplete,
                {"byte 24", "the key has 1000 bytes", "20 more"});
    check_error(parse(file_text().header(0, 1).string("long key").data(20), {.key_bytes = 7}), errc::string_too_long,
                {"at most 7"});
    check_error(parse_value(file_text().string("").data(20)), errc::bad_value, {"byte 24", "key is empty"});
    check_error(parse_value(file_text().string("k").put(std::uint32_t{13}).data(20)), errc::unknown_value_type,
                {"'k'", "0 to 12", "have 13"});
    check_error(parse_value(file_text().string("k").put(std::uint32_t{9}).put(std::uint32_t{99}).data(20)),
                errc::unknown_value_type, {"'k'", "99"});
    check_error(parse_value(file_text().list("k", gguf_type::array, 1).data(20)), errc::nested_array, {"'k'", "list of lists"});
    check_error(parse_value(file_text().key("long enough", gguf_type::u64).put(std::uint32_t{1})), errc::file_incomplete,
                {"want 8 bytes", "4 more"});
    check_error(parse_value(file_text().key("long enough", gguf_type::string).put(std::uint32_t{1})), errc::file_incomplete,
                {"want a string", "4 more"});
    check_error(parse_value(file_text().key("k", gguf_type::string).put(std::uint64_t{5}).raw("four")), errc::file_incomplete,
                {"k:", "5 bytes", "4 more"});
    check_error(parse_value(file_text().list("k", gguf_type::u32, 3).data(11)), errc::file_incomplete, {"'k'", "3 u32", "11 more"});
    check_error(parse_value(file_text().list("k", gguf_type::u64, ~std::uint64_t{0} / 8 + 1).data(16)), errc::file_incomplete,
                {"'k'", "u64"});
    check_error(parse_value(file_text().list("k", gguf_type::string, std::uint64_t{1} << 61).data(16)), errc::file_incomplete,
                {"'k'", "strings"});
    check_error(parse_value(file_text().list("k", gguf_type::string, 2).string("").data(7)), errc::file_incomplete, {"'k'"});
    check_error(parse_value(file_text().list("k", gguf_type::string, 2).string("four more").data(7)), errc::file_incomplete,
                {"k:", "7 more"});
    check_error(parse_value(file_text().key("k", gguf_type::boolean).put(std::uint8_t{2})), errc::bad_value,
                {"'k'", "0 or 1", "have 2"});
    check_error(parse_value(file_text().list("k", gguf_type::boolean, 2).put(std::uint8_t{1}).put(std::uint8_t{7})),
                errc::bad_value, {"have 7"});
    file_text twice;
    twice.header(0, 3).key("k", gguf_type::u8).put(std::uint8_t{1}).key("j", gguf_type::u8).put(std::uint8_t{1});
    check_error(parse(twice.key("k", gguf_type::f32).put(1.0f)), errc::duplicate_key, {"'k'", "twice"});
}

TEST_CASE("io/gguf: the alignment") {
    for (const std::uint32_t good : {8u, 32u, 64u, 4096u, 65536u}) require_value(parse_alignment(good));
    for (const std::uint32_t bad : {0u, 1u, 4u, 12u, 48u, 131072u, 0x80000000u, 0xffffffffu})
        check_error(parse_alignment(bad), errc::bad_alignment,
                    {"general.alignment", "power of two from 8 to 65536", std::to_string(bad).c_str()});
    check_error(parse_value(file_text().key("general.alignment", gguf_type::u64).put(std::uint64_t{32})), errc::wrong_value_type,
                {"want u32", "have u64"});
}

TEST_CASE("io/gguf: names, ranks and types of tensors") {
    const auto one = [](const char* name) {
        return parse(file_text().header(1, 0).tensor(name, {1}, ggml_type::i8, 0).pad().data(8));
    };
    check_error(one(""), errc::bad_value, {"name of a tensor is empty"});
    require_value(one(std::string(64, 'n').c_str()));
    check_error(one(std::string(65, 'n').c_str()), errc::string_too_long, {"65 bytes", "at most 64"});
    check_error(parse_tensor({1, 1, 1, 1, 1}, ggml_type::f32), errc::rank_too_high, {"'w'", "at most 4", "have 5"});
    for (const unsigned unknown : {4u, 5u, 31u, 33u, 36u, 38u, 42u, 0x7fffffffu, 0xffffffffu})
        check_error(parse_tensor({32}, static_cast<ggml_type>(unknown)), errc::unknown_dtype,
                    {"'w'", std::to_string(unknown).c_str()});
    for (const ggml_format& known : ggml_formats) require_value(parse_tensor({256, 0}, known.type));
    for (const std::uint64_t cut : {1u, 8u, 12u, 20u})
        check_error(parse(file_text().header(1, 0).raw(
                        text_of(file_text().tensor("a longer name", {1}, ggml_type::f32, 0).bytes()).substr(0, 45 - cut))),
                    errc::file_incomplete, {"byte "});
    file_text twice;
    twice.header(2, 0).tensor("same", {8}, ggml_type::f32, 0).tensor("same", {8}, ggml_type::f32, 32).pad().data(64);
    check_error(parse(twice), errc::duplicate_name, {"'same'", "twice"});
}

TEST_CASE("io/gguf: sizes") {
    constexpr bool wide = sizeof(std::size_t) > 4;
    const std::uint64_t big = std::uint64_t{1} << (wide ? 40 : 30), bits = wide ? 62 : 30;
    const std::string beyond = wide ? "9223372036854775808" : "2147483648";
    check_error(parse_tensor({31}, ggml_type::q8_0), errc::partial_block, {"'w'", "31 elements", "multiple of the 32", "Q8_0"});
    check_error(parse_tensor({32, 8}, ggml_type::q4_k), errc::partial_block, {"'w'", "32 elements", "multiple of the 256", "Q4_K"});
    check_error(parse_tensor({}, ggml_type::q4_0), errc::partial_block, {"1 elements"});
    check_error(parse_tensor({big, big}, ggml_type::f32), errc::size_overflow, {"'w'", "product"});
    check_error(parse_tensor({big, big, big, big}, ggml_type::i8), errc::size_overflow, {"'w'", "product"});
    check_error(parse_tensor({std::uint64_t{1} << bits}, ggml_type::f32), errc::size_overflow, {"'w'", "product"});
    check_error(parse_tensor({std::uint64_t{2} << bits}, ggml_type::i8), errc::size_overflow, {"'w'", beyond.c_str()});
    if (wide) check_error(parse_tensor({std::uint64_t{1} << bits}, ggml_type::i8), errc::offset_out_of_range, {"'w'", "64 bytes of data"});
    else check_error(parse_tensor({std::uint64_t{1} << bits}, ggml_type::i8), errc::file_incomplete, {"1073741760"});  // a gigabyte may be missing
}

TEST_CASE("io/gguf: offsets") {
    check_error(parse_tensor({8}, ggml_type::f32, 8), errc::offset_misaligned, {"'w'", "is 8", "multiple of 32"});
    check_error(parse_tensor({8}, ggml_type::f32, 64), errc::file_incomplete, {"last 32 of ", "download"});
    check_error(parse_tensor({9}, ggml_type::f32, 32), errc::file_incomplete, {"last 4 of "});
    check_error(parse_tensor({8}, ggml_type::f32, ~std::uint64_t{31}), errc::offset_out_of_range, {"'w'", "18446744073709551584"});
    require_value(parse_tensor({8}, ggml_type::f32, 32));
    // Without even the padding before the data.
    check_error(parse(file_text().header(1, 0).tensor("w", {8}, ggml_type::f32, 0)), errc::file_incomplete, {"last 32 of "});
    const auto pair = [](std::uint64_t a, std::uint64_t b) {
        return parse(
            file_text().header(2, 0).tensor("a", {9}, ggml_type::f32, a).tensor("b", {8}, ggml_type::f32, b).pad().data(128));
    };
    require_value(pair(0, 64));
    require_value(pair(64, 32));
    check_error(pair(0, 32), errc::offset_overlap, {"'b'", "overlaps tensor 'a'"});
    check_error(pair(32, 32), errc::offset_overlap, {"overlaps"});
}

TEST_CASE("io/gguf: every truncation is refused") {
    const bytes whole = file_text()
                            .header(2, 2)
                            .key("k", gguf_type::string)
                            .string("text")
                            .list("list", gguf_type::string, 2)
                            .string("a")
                            .string("b")
                            .tensor("w", {32, 2}, ggml_type::q4_0, 0)
                            .tensor("v", {3}, ggml_type::f32, 64)
                            .pad()
                            .data(76)
                            .bytes();
    require_value(gguf::parse(whole));
    for (std::size_t n = 0; n < whole.size(); ++n) {
        CAPTURE(n);
        const bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n));
        CHECK_FALSE(gguf::parse(cut).has_value());
    }
}

TEST_CASE("io/gguf: scales that are not finite") {
    struct trial {
        ggml_type type;
        std::size_t block, scale;
    };
    for (const trial t : {trial{ggml_type::q4_0, 18, 0},
                          {ggml_type::q8_0, 34, 0},
                          {ggml_type::iq4_nl, 18, 0},
                          {ggml_type::q4_k, 144, 0},
                          {ggml_type::q4_k, 144, 2},
                          {ggml_type::q6_k, 210, 208}}) {
        CAPTURE(format_of(t.type).name);
        bytes data(3 * t.block, std::byte{0x3b});
        const gguf_tensor w{.name = "w", .format = &format_of(t.type), .extent = {}, .data = data.data(), .bytes = data.size()};
        CHECK(check_scales(w).has_value());
        for (const unsigned upper : {0x7cu, 0xfcu, 0x7eu}) {
            data[2 * t.block + t.scale + 1] = static_cast<std::byte>(upper);
            check_error(check_scales(w), errc::not_finite, {"'w'", "block 2"});
        }
        data[2 * t.block + t.scale + 1] = std::byte{0x7b};
        CHECK(check_scales(w).has_value());
    }
    std::vector<q4_block> blocks(2);
    tensor_view packed{
        .name = "p", .data = reinterpret_cast<const std::byte*>(blocks.data()), .bytes = 2 * sizeof(q4_block), .type = dtype::q4};
    for (q4_block& b : blocks) {
        std::fill_n(&b.code[0][0], sizeof b.code, std::uint8_t{0xff});
        for (f16& scale : b.scale) scale = to_f16(-1.0f);
    }
    CHECK(check_scales(packed).has_value());
    blocks[1].scale[7] = to_f16(1e6f);
    check_error(check_scales(packed), errc::not_finite, {"'p'", "scale 7 of block 1"});
}

TEST_CASE("io/gguf: damaged files are refused or lie inside themselves") {
    const bytes valid = file_text()
                            .header(3, 5)
                            .key("general.alignment", gguf_type::u32)
                            .put(std::uint32_t{32})
                            .key("f", gguf_type::f64)
                            .put(1.5)
                            .key("b", gguf_type::boolean)
                            .put(std::uint8_t{1})
                            .list("n", gguf_type::i16, 3)
                            .data(6)
                            .list("s", gguf_type::string, 2)
                            .string("a")
                            .string("bc")
                            .tensor("w", {32, 2}, ggml_type::q4_0, 0)
                            .tensor("v", {3}, ggml_type::f32, 64)
                            .tensor("u", {256}, ggml_type::q6_k, 96)
                            .pad()
                            .data(96 + 210)
                            .bytes();
    unsigned long long sum = 0;
    const auto use = [&](const bytes& file) {
        const auto table = gguf::parse(file);
        if (!table) {
            CHECK(table.error().message()[0] != '\0');
            return false;
        }
        for (const gguf_value& v : table->values()) {
            sum += v.key.size();
            for (const std::byte b : v.data) sum += static_cast<unsigned>(b);
            gguf_strings strings(v);
            for (std::string_view s; strings.next(s);)
                for (const char c : s) sum += static_cast<unsigned char>(c);
            if (v.count != 0)
                sum += v.whole().value_or(0) + (v.real() ? 1u : 0u) + (v.boolean() ? 1u : 0u) + v.text().value_or("").size();
        }
        for (const gguf_tensor& t : table->tensors()) {
            for (std::size_t i = 0; i < t.bytes; ++i) sum += static_cast<unsigned>(t.data[i]);
            sum += check_scales(t) ? t.rows() : t.cols();
        }
        return true;
    };
    REQUIRE(use(valid));
    std::size_t accepted = 0;
    for (std::size_t i = 0; i < valid.size(); ++i) {
        bytes changed = valid;
        for (const unsigned value : {0x00u, 0x01u, 0x08u, 0x09u, 0x20u, 0x7fu, 0x80u, 0xffu}) {
            changed[i] = static_cast<std::byte>(value);
            accepted += use(changed) ? 1 : 0;
        }
    }
    std::mt19937 random(20250611);
    for (int i = 0; i < 5000; ++i) {
        bytes changed = valid;
        for (int k = 0; k < 3; ++k) changed[random() % 400] = static_cast<std::byte>(random() % 4 == 0 ? random() : random() % 14);
        accepted += use(changed) ? 1 : 0;
    }
    CHECK(accepted > 306 * 8);  // damage to the data alone is no defect of the container
    CHECK(accepted < valid.size() * 8 + 4000);
    CHECK(sum != 0);
}
