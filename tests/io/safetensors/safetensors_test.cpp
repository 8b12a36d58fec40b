/// safetensors: what the format allows is read, and each defect has its own error that names the tensor.
#include "io/io_testing.hpp"

#include <phi4flash/io/file/mapped_file.hpp>
#include <phi4flash/io/safetensors/safetensors.hpp>

#if PHI4FLASH_HAS_JSON
using namespace phi4flash;
using namespace io_testing;

namespace {
/// A file with the given header (padded) and data. The result may point into the block: only its error is looked at.
result<safetensors> parse(const std::string& header, std::size_t data_bytes) {
    static bytes file;
    file = safetensors_file(padded(header), data_bytes);
    return safetensors::parse(file);
}

/// One tensor 'w' with the given members.
result<safetensors> parse_tensor(const std::string& members, std::size_t data_bytes = 8) {
    return parse("{\"w\":{" + members + "}}", data_bytes);
}
}  // namespace

TEST_CASE("io/safetensors: names, types, shapes and bytes") {
    const bytes file = safetensors_file(padded(R"({"__metadata__":{"format":"pt"},
        "b":{"dtype":"BF16","shape":[2,3],"data_offsets":[24,36]},
        "a":{"data_offsets":[0,16],"shape":[1,2,1,2],"dtype":"F32"},
        "scalar":{"dtype":"I64","shape":[],"data_offsets":[16,24]},
        "nothing":{"dtype":"F16","shape":[0,7],"data_offsets":[24,24]}})"),
                                        36);
    auto parsed = safetensors::parse(file);
    require_value(parsed);
    const safetensors table = *std::move(parsed);
    REQUIRE(table.entries().size() == 4);
    CHECK(table.entries()[0].name == "a");
    CHECK(table.entries()[3].name == "scalar");
    CHECK(table.find("c") == nullptr);
    CHECK(table.find("") == nullptr);

    const safetensors_entry* const b = table.find("b");
    REQUIRE(b != nullptr);
    CHECK(b->rank == 2);
    CHECK(b->extent[1] == 3);
    CHECK(b->bytes == 12);
    CHECK(b->data[0] == std::byte{24});
    CHECK(table.find("nothing")->bytes == 0);
    CHECK(table.find("scalar")->rank == 0);

    const auto view = to_tensor_view(*b);
    require_value(view);
    CHECK(view->type == dtype::bf16);
    CHECK(view->count() == 6);
    CHECK(view->data == b->data);
    CHECK(view->shape().size() == 2);
    check_error(to_tensor_view(*table.find("scalar")), errc::wrong_dtype, {"'scalar'", "BF16", "I64"});
}

TEST_CASE("io/safetensors: an empty table is a file") { require_value(parse("{}", 0)); }

TEST_CASE("io/safetensors: a file that ends early is incomplete, wherever it ends") {
    const bytes file = safetensors_file(padded(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})"), 12);
    require_value(safetensors::parse(file));
    for (std::size_t n = 1; n < file.size(); ++n) {
        CAPTURE(n);
        check_error(safetensors::parse(std::span(file).first(n)), errc::file_incomplete);
    }
}

TEST_CASE("io/safetensors: the length of the header") {
    check_error(safetensors::parse({}), errc::file_empty, {"safetensors"});
    bytes file = safetensors_file(padded("{}"), 0);
    check_error(safetensors::parse(std::span(file).first(7)), errc::file_incomplete, {"8 bytes", "of 7"});
    check_error(safetensors::parse(std::span(file).first(12)), errc::file_incomplete, {"header of 8", "of 12"});
    for (std::size_t i = 0; i < 8; ++i) file[i] = std::byte{0xff};
    check_error(safetensors::parse(file), errc::header_too_large, {"100000000", "18446744073709551615"});
    check_error(safetensors::parse(safetensors_file("", 8)), errc::json_syntax);
}

TEST_CASE("io/safetensors: the header's JSON") {
    check_error(parse(" {}", 0), errc::json_syntax, {"'{'"});
    check_error(parse("[]", 0), errc::json_syntax, {"'{'"});
    check_error(parse("{\"w\":", 0), errc::json_syntax, {"byte "});
    check_error(parse("{} x", 0), errc::json_syntax, {"byte "});
    check_error(parse(std::string("{}\0", 3), 0), errc::json_syntax, {"NUL"});
    check_error(parse("{\"w\xff\":1}", 0), errc::json_syntax, {"byte "});
    check_error(parse_tensor(R"("shape":[[[[[[)"), errc::json_too_deep, {"at most 3"});
    check_error(parse(R"({"w":{"x":{"y":{)", 0), errc::json_unknown_key, {"'w'", "'x'"});
    check_error(parse(R"({"w":[1]})", 0), errc::json_wrong_type, {"'w'", "want an object", "a list"});
    check_error(parse(R"({"w":null})", 0), errc::json_wrong_type, {"'w'", "want an object", "null"});
    check_error(parse(R"({"w":"text"})", 0), errc::json_wrong_type, {"'w'", "want an object", "a string"});
    check_error(parse(R"({"w":3})", 0), errc::json_wrong_type, {"'w'", "want an object", "a number"});
}

TEST_CASE("io/safetensors: metadata holds strings only") {
    require_value(parse(R"({"__metadata__":{}})", 0));
    check_error(parse(R"({"__metadata__":{"a":1}})", 0), errc::json_wrong_type, {"__metadata__", "want a string", "a number"});
    check_error(parse(R"({"__metadata__":{"a":-1}})", 0), errc::json_wrong_type, {"__metadata__", "want a string"});
    check_error(parse(R"({"__metadata__":{"a":null}})", 0), errc::json_wrong_type, {"__metadata__", "null"});
    check_error(parse(R"({"__metadata__":{"a":{}}})", 0), errc::json_wrong_type, {"__metadata__", "an object"});
    check_error(parse(R"({"__metadata__":{"a":[]}})", 0), errc::json_wrong_type, {"__metadata__", "a list"});
    check_error(parse(R"({"__metadata__":"a"})", 0), errc::json_wrong_type, {"__metadata__", "want an object"});
    check_error(parse(R"({"__metadata__":{"a":"1","a":"2"}})", 0), errc::json_duplicate_key, {"'a'"});
    check_error(parse(R"({"__metadata__":{},"__metadata__":{}})", 0), errc::json_duplicate_key, {"__metadata__"});
}

TEST_CASE("io/safetensors: keys of a tensor") {
    check_error(parse_tensor(R"("shape":[2],"data_offsets":[0,8])"), errc::json_missing_key, {"'w'", "'dtype'"});
    check_error(parse_tensor(R"("dtype":"F32","data_offsets":[0,8])"), errc::json_missing_key, {"'w'", "'shape'"});
    check_error(parse_tensor(R"("dtype":"F32","shape":[2])"), errc::json_missing_key, {"'w'", "'data_offsets'"});
    check_error(parse_tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"order":1)"), errc::json_unknown_key,
                {"'w'", "'order'"});
    check_error(parse_tensor(R"("dtype":"F32","dtype":"F32")"), errc::json_duplicate_key, {"'dtype'"});
}

TEST_CASE("io/safetensors: types and numbers in a tensor") {
    check_error(parse_tensor(R"("dtype":1)"), errc::json_wrong_type, {"'w'.dtype", "want a string", "a number"});
    check_error(parse_tensor(R"("dtype":["F32"])"), errc::json_wrong_type, {"'w'.dtype", "want a string", "a list"});
    check_error(parse_tensor(R"("dtype":{})"), errc::json_wrong_type, {"'w'.dtype", "want a string", "an object"});
    check_error(parse_tensor(R"("shape":8)"), errc::json_wrong_type, {"'w'.shape", "want a list", "a number"});
    check_error(parse_tensor(R"("shape":"8")"), errc::json_wrong_type, {"'w'.shape", "want a list", "a string"});
    check_error(parse_tensor(R"("shape":null)"), errc::json_wrong_type, {"'w'.shape", "null"});
    check_error(parse_tensor(R"("shape":["8"])"), errc::json_wrong_type, {"'w'.shape", "want a whole number", "a string"});
    check_error(parse_tensor(R"("shape":[true])"), errc::json_wrong_type, {"'w'.shape", "want a whole number", "a boolean"});
    check_error(parse_tensor(R"("shape":[-1])"), errc::json_bad_number, {"'w'.shape", "negative"});
    check_error(parse_tensor(R"("shape":[2.0])"), errc::json_bad_number, {"'w'.shape", "2.0"});
    check_error(parse_tensor(R"("shape":[1e3])"), errc::json_bad_number, {"'w'.shape", "1e3"});
    check_error(parse_tensor(R"("shape":[18446744073709551616])"), errc::json_bad_number, {"'w'.shape", "18446744073709551616"});
    check_error(parse_tensor(R"("data_offsets":[0,-8])"), errc::json_bad_number, {"'w'.data_offsets", "negative"});
    check_error(parse_tensor(R"("data_offsets":[0,0.5])"), errc::json_bad_number, {"'w'.data_offsets", "0.5"});
    check_error(parse_tensor(R"("data_offsets":[0])"), errc::json_wrong_type, {"'w'.data_offsets", "2 numbers", "have 1"});
    check_error(parse_tensor(R"("data_offsets":[0,4,8])"), errc::json_wrong_type, {"'w'.data_offsets", "2 numbers", "have 3"});
    check_error(parse_tensor(R"("shape":[1,1,1,1,1])"), errc::rank_too_high, {"'w'", "at most 4"});
    check_error(parse_tensor(R"("dtype":"F31","shape":[2],"data_offsets":[0,8])"), errc::unknown_dtype, {"'w'", "'F31'"});
}

TEST_CASE("io/safetensors: sizes") {
    constexpr bool wide = sizeof(std::size_t) > 4;
    check_error(parse_tensor(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8])"), errc::size_overflow,
                {"'w'", wide ? "64 bits" : "4294967296 is beyond"});
    check_error(parse_tensor(R"("dtype":"F32","shape":[4294967295,4294967295,4294967295],"data_offsets":[0,8])"), errc::size_overflow, {"'w'"});
    check_error(parse_tensor(R"("dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0])", 0), errc::size_overflow,
                {"'w'"});
    check_error(parse_tensor(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])"), errc::size_mismatch,
                {"'w'", "12 bytes", "have 8"});
    check_error(parse_tensor(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), errc::offset_out_of_range, {"'w'", "[8, 0]"});
    check_error(parse_tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])", 7), errc::file_incomplete, {"last 1 of ", "download"});
    check_error(parse(R"({"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]},"b":{"dtype":"U8","shape":[9],"data_offsets":[9,18]}})", 4),
                errc::file_incomplete, {"last 14 of "});
    check_error(parse_tensor(R"("dtype":"U8","shape":[0],"data_offsets":[18446744073709551615,18446744073709551615])"),
                errc::offset_out_of_range, {"'w'"});
    check_error(parse_tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])", 9), errc::trailing_bytes, {"want 8", "have 9"});
}

TEST_CASE("io/safetensors: places") {
    const std::string a = R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":)";
    require_value(parse(a + "[4,8]}}", 8));
    check_error(parse(a + "[3,7]}}", 8), errc::offset_overlap, {"'b'", "at 3", "want 4"});
    check_error(parse(a + "[0,4]}}", 8), errc::offset_overlap);
    check_error(parse(a + "[5,9]}}", 9), errc::offset_hole, {"'b'", "at 5", "want 4"});
    check_error(parse_tensor(R"("dtype":"U8","shape":[4],"data_offsets":[4,8])"), errc::offset_hole, {"'w'", "at 4", "want 0"});
    check_error(
        parse(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2),
        errc::duplicate_name, {"'a'", "twice"});
}

TEST_CASE("io/safetensors: data may begin anywhere, in the file and in memory") {
    const std::string header = R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"w":{"dtype":"F32","shape":[2],"data_offsets":[3,11]}})";
    for (std::size_t spaces = 0; spaces < 8; ++spaces) {
        const bytes file = safetensors_file(header + std::string(spaces, ' '), 11);
        for (std::size_t shift = 0; shift < 8; ++shift) {
            bytes moved(shift);
            moved.insert(moved.end(), file.begin(), file.end());
            const auto table = safetensors::parse(std::span(moved).subspan(shift));
            require_value(table);
            const auto view = to_tensor_view(*table->find("w"));
            require_value(view);
            CHECK(view->data[0] == std::byte{3});
            CHECK(view->is_aligned() == ((shift + 8 + header.size() + spaces + 3) % 4 == 0));
        }
    }
}

TEST_CASE("io/safetensors: names of any bytes are found again, and are harmless in a sentence") {
    const bytes file = safetensors_file(
        padded(
            R"({"\u00e9\n\"":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"":{"dtype":"U8","shape":[],"data_offsets":[1,2]}})"),
        2);
    const auto table = safetensors::parse(file);
    require_value(table);
    CHECK(table->find("\xc3\xa9\n\"") != nullptr);
    CHECK(table->find("") != nullptr);
    const std::string name(5000, 'x');
    const auto failed = parse("{\"\\u001b" + name + "\":{\"dtype\":\"F31\"}}", 0);
    check_error(failed, errc::unknown_dtype, {"'?xxx", "...'", "'F31'"});
}

TEST_CASE("io/safetensors: golden data") {
    const auto shared = shared_folder();
    if (shared.empty()) return;
    const auto file = mapped_file::open(shared / "golden" / "f32-8l" / "golden.safetensors");
    require_value(file);
    const auto table = safetensors::parse(file->bytes());
    require_value(table);
    REQUIRE(table->find("0.greedy") != nullptr);
    CHECK(table->find("0.greedy")->dtype == "I64");
    CHECK(table->find("0.greedy")->bytes == 16 * 8);
    CHECK(table->find("0.logits")->extent[1] == 256);
}
#endif
