/// The streaming decoder: whole characters only, and all of it equals the one-shot decoding.
#include "text_testing.hpp"

#include <phi4flash/text/decoder.hpp>

using namespace phi4flash;
using namespace text_testing;

TEST_CASE("decoder: holds a character back until it is whole") {
    stream_decoder d(tiny());
    const ids_type euro = encode(tiny(), "\xE2\x82\xAC");
    REQUIRE(euro.size() == 3);
    CHECK(d.push(euro[0]).empty());
    CHECK(d.push(euro[1]).empty());
    CHECK(d.held() == "\xE2\x82");
    CHECK(d.push(euro[2]) == "\xE2\x82\xAC");
    CHECK(d.held().empty());
    CHECK(d.flush().empty());
}

TEST_CASE("decoder: what can never be completed is U+FFFD at once, what waits at the end with flush") {
    stream_decoder d(tiny());
    const ids_type euro = encode(tiny(), "\xE2\x82\xAC"), a = encode(tiny(), "a");
    CHECK(d.push(euro[0]).empty());
    CHECK(d.push(a[0]) ==
          "\xEF\xBF\xBD"
          "a");
    CHECK(d.push(euro[1]) == "\xEF\xBF\xBD");
    CHECK(d.push(euro[0]).empty());
    CHECK(d.push(euro[1]).empty());
    CHECK(d.push(-1).empty());
    CHECK(d.push(499).empty() == tiny().bytes_of(499).empty());
    CHECK_FALSE(d.push(euro[0]).size() > 6);
    CHECK(d.flush() == "\xEF\xBF\xBD");
    CHECK(d.flush().empty());
}

TEST_CASE("decoder: any ids, any order: streamed equals one-shot, each part is well-formed") {
    std::mt19937 random(21);
    for (int round = 0; round < 2000; ++round) {
        ids_type ids;
        // Bytes above 0x7F often, so that characters begin, break off and come to be by accident.
        for (std::size_t i = 0; i < random() % 30; ++i)
            ids.push_back(static_cast<std::int32_t>(random() % 3 == 0 ? random() % 520 : 94 + random() % 162));
        for (const bool skip : {false, true}) {
            stream_decoder d(tiny(), {skip});
            std::string joined;
            for (const int id : ids) {
                const std::string part(d.push(id));
                CHECK(valid_utf8_prefix(part) == part.size());
                CHECK(d.held().size() <= 3);
                joined += part;
            }
            joined += d.flush();
            CHECK(joined == decode(tiny(), ids, skip));
        }
    }
}

TEST_CASE("decoder: skipping special tokens keeps markers that are not special") {
    const ids_type ids = encode(tiny(), "<|assistant|>a<|tool_call|>b<|/tool_call|><|end|><|endoftext|>");
    CHECK(decode(tiny(), ids, true) == "a<|tool_call|>b<|/tool_call|>");
    stream_decoder d(tiny(), {true});
    std::string joined;
    for (const int id : ids) joined += d.push(id);
    CHECK(joined == "a<|tool_call|>b<|/tool_call|>");
}
