/// The JSON reader's limits, that nlohmann's freedoms (NUL as end, duplicate keys) are not ours.
#include "io/io_testing.hpp"

#include <phi4flash/io/json/json.hpp>

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
    for (const char* text : {"{\"a\" 1}", "NaN", "[1]x", "[1]1", "[1]]", "[01]", "[1.]", "\"\\x\"", "\"\xff\"", "// c\n1", "'a'", "[\"a\nb\"]"}) {
        CAPTURE(text);
        check_error(read_json(text), errc::json_syntax, {"byte ", "not JSON"});
    }
    check_error(read_json(std::string_view("{}\0[", 4)), errc::json_syntax, {"byte 3", "NUL"});
    check_error(read_json("[1e400]"), errc::json_bad_number, {"byte 6: want a number that a double can hold", "1e400"});
    check_error(read_json("[-1e400]"), errc::json_bad_number, {"byte 7: want a number that a double can hold", "-1e400"});
}

TEST_CASE("io/json: a text that ends too early is told from one that is wrong") {
    const std::string whole = R"({"text": "\u00e9 \" \\ \xc3\xa9", "list": [1, -2.5e3, true, null, {}], "last": {"a": []}})";
    const std::string text = whole.substr(0, whole.find("\\xc3")) + "\xc3\xa9" + whole.substr(whole.find("\\xc3") + 8);
    require_value(read_json(text));
    for (std::size_t cut = 0; cut < text.size(); ++cut) {
        CAPTURE(cut);
        check_error(read_json(text.substr(0, cut)), errc::file_incomplete, {"byte ", "ends too early", "download"});
    }
}

TEST_CASE("io/json: size, depth and duplicate keys") {
    const json_limits limits{.bytes = 20, .depth = 3};
    require_value(read_json("[[[1]], [{\"a\":1}]]", limits));
    check_error(read_json("[[[1]], [[[1]]]]", limits), errc::json_too_deep, {"byte 11", "at most 3"});
    check_error(read_json("[                   ]", limits), errc::json_too_large, {"at most 20", "have 21"});
    check_error(read_json(std::string(1000000, '[')), errc::json_too_deep);
    const auto nested = [](std::size_t n) { return std::string(n, '[') + std::string(n, ']'); };
    require_value(read_json(nested(1000), {.depth = SIZE_MAX}));  // values are freed by recursion: never deeper
    check_error(read_json(nested(1001), {.depth = SIZE_MAX}), errc::json_too_deep, {"at most 1000"});
    check_error(read_json(R"({"a": 1, "\u0061": 2})"), errc::json_duplicate_key, {"'a'", "byte 17"});
    check_error(read_json(R"([{"a": {"b": 1, "c": 2, "b": 3}}])"), errc::json_duplicate_key, {"'b'"});
    require_value(read_json(R"({"a": {"a": 1}, "b": {"a": 1}})"));
}

namespace {
/// As docs of json_events say: hides what matters, and calls the base's.
class sum_of_numbers : public json_events {
public:
    using json_events::json_events;
    double sum = 0.0;
    std::size_t lists = 0;

    bool number_unsigned(std::uint64_t n) { return sum += static_cast<double>(n), true; }
    bool number_integer(std::int64_t n) { return sum += static_cast<double>(n), true; }
    bool number_float(double x, const std::string&) {
        return x < 100.0 ? (sum += x, true) : fail(error::format(errc::json_bad_number, "byte %zu", position()));
    }
    bool start_array(std::size_t n) { return ++lists, json_events::start_array(n); }
};
}  // namespace

TEST_CASE("io/json: events of one's own") {
    const json_limits limits{.depth = 3};
    sum_of_numbers events(limits);
    REQUIRE(read_json_events(R"({"a": [1, -2, 0.5], "b": [[7]]})", limits, events).has_value());
    CHECK(events.sum == 6.5);
    CHECK(events.lists == 3);
    sum_of_numbers stopped(limits);
    check_error(read_json_events("[1, 1e3, 5]", limits, stopped), errc::json_bad_number, {"byte 8"});
    CHECK(stopped.sum == 1.0);
    sum_of_numbers deep(limits);
    check_error(read_json_events("[[[[1]]]]", limits, deep), errc::json_too_deep);
    sum_of_numbers twice(limits);
    check_error(read_json_events(R"({"a": 1, "a": 2})", limits, twice), errc::json_duplicate_key);

    struct : json_events {  // forgets the base's
        using json_events::json_events;
        bool start_object(std::size_t) { return true; }
        bool start_array(std::size_t) { return true; }
    } forgetful(limits);
    CHECK(read_json_events(R"([{"a": [1, {"b": 2}]}])", limits, forgetful).has_value());
    struct : json_events {
        using json_events::json_events;
        bool null() { return false; }
    } stops(limits);
    check_error(read_json_events("[1, null, 2]", limits, stops), errc::cancelled, {"byte 8"});

    json_events nothing(limits);  // only checks
    CHECK(read_json_events("[1, {}]", limits, nothing).has_value());
    check_error(read_json_events("[1, {]", limits, nothing), errc::json_syntax, {"byte 6"});
}

TEST_CASE("io/json: values have the members that readers use") {
    const auto document = read_json(R"({"b": [1, -2, 2.5, "x", false, null], "a": {}, "c": 18446744073709551615})");
    require_value(document);
    std::string keys;
    for (const auto& item : document->items()) keys += item.key() + (item.value().is_structured() ? "+" : "-");
    CHECK(keys == "a+b+c-");
    const json_value& list = *document->find("b");
    CHECK(document->find("d") == document->end());
    CHECK(list.find("b") == list.end());
    CHECK(list.is_array());
    CHECK(list.size() == 6);
    CHECK(*list.front().get_ptr<const std::uint64_t*>() == 1);
    CHECK(*list.front().get_ptr<const std::int64_t*>() == 1);
    auto at = list.begin();
    CHECK(*(++at)->get_ptr<const std::int64_t*>() == -2);
    CHECK(at->get_ptr<const std::uint64_t*>() == nullptr);
    CHECK(*(++at)->get_ptr<const double*>() == 2.5);
    CHECK(*(++at)->get_ptr<const std::string*>() == "x");
    CHECK(*(++at)->get_ptr<const bool*>() == false);
    CHECK((++at)->is_null());
    CHECK(++at == list.end());
    CHECK(document->find("a")->empty());
    const json_value& largest = *document->find("c");  // more than a signed number holds, and never a negative one
    CHECK(*largest.get_ptr<const std::uint64_t*>() == 18446744073709551615u);
    CHECK(largest.get_ptr<const std::int64_t*>() == nullptr);
    CHECK(*document->find("c")->get_ptr<const std::uint64_t*>() == UINT64_MAX);
}
#endif
