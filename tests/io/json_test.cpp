/// The JSON reader's limits, and that nlohmann's freedoms (NUL as end, duplicate keys) are not ours.
#include "io_testing.hpp"

#include <phi4flash/io/json.hpp>

#if PHI4FLASH_HAS_JSON
using namespace phi4flash;
using namespace io_testing;

TEST_CASE("io/json: a document as a value") {
    const auto document = read_json(R"({"a": [1, -2, 0.5, true, null, "x\u00e9"], "b": {"a": {}}})");
    require_value(document);
    CHECK(document->is_object());
    CHECK(detail::member(*document, "a")->size() == 6);
    CHECK(detail::member(*document, "c") == nullptr);
}

TEST_CASE("io/json: syntax errors say at which byte") {
    check_error(read_json(R"({"a": 1,})"), errc::json_syntax, {"byte 9", "object key"});
    for (const char* text : {"", " ", "{", "[1,2", "{\"a\" 1}", "nul", "NaN", "[1]x", "[01]", "[1.]", "\"\\x\"", "\"\xff\"",
                             "[1e999]", "// c\n1", "'a'", "[\"a\nb\"]"}) {
        CAPTURE(text);
        check_error(read_json(text), errc::json_syntax, {"byte ", "not JSON"});
    }
    check_error(read_json(std::string_view("{}\0[", 4)), errc::json_syntax, {"byte 2", "NUL"});
}

TEST_CASE("io/json: size, depth and duplicate keys") {
    const json_limits limits{.bytes = 20, .depth = 3};
    require_value(read_json("[[[1]], [{\"a\":1}]]", limits));
    check_error(read_json("[[[1]], [[[1]]]]", limits), errc::json_too_deep, {"byte 11", "at most 3"});
    check_error(read_json("[                   ]", limits), errc::json_too_large, {"at most 20", "have 21"});
    check_error(read_json(std::string(1000000, '[')), errc::json_too_deep);
    check_error(read_json(R"({"a": 1, "\u0061": 2})"), errc::json_duplicate_key, {"'a'", "byte 17"});
    check_error(read_json(R"([{"a": {"b": 1, "c": 2, "b": 3}}])"), errc::json_duplicate_key, {"'b'"});
    require_value(read_json(R"({"a": {"a": 1}, "b": {"a": 1}})"));
}
#endif
