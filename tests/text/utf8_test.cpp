/// UTF-8 decoding against the table of the Unicode standard, and that nothing is read out of bounds.
#include "text_testing.hpp"

using namespace phi4flash;
using namespace text_testing;

namespace {

std::string lossy(std::string_view bytes) {
    const exact_buffer exact(bytes);
    std::string out;
    detail::append_lossy_utf8(exact.view(), out);
    return out;
}

constexpr const char* R = "\xEF\xBF\xBD";

}  // namespace

TEST_CASE("utf8: every code point survives, surrogates do not") {
    for (char32_t c = 0; c <= 0x10FFFF; c += c < 0x3000 ? 1 : 37) {
        std::string s;
        s += encode_utf8(c).view();
        const utf8_step step = decode_utf8(s.data(), s.data() + s.size());
        const bool surrogate = c >= 0xD800 && c < 0xE000;
        REQUIRE(step.state == utf8_state::complete);
        REQUIRE(step.code_point == (surrogate ? replacement_character : c));
        REQUIRE(step.size == s.size());
        for (std::size_t cut = 1; cut < s.size(); ++cut) {
            const exact_buffer part(std::string_view(s).substr(0, cut));
            REQUIRE(decode_utf8(part.view().data(), part.view().data() + cut).state == utf8_state::truncated);
            REQUIRE(incomplete_utf8_tail(part.view()) == cut);
        }
        REQUIRE(incomplete_utf8_tail(s) == 0);
    }
}

TEST_CASE("utf8: one U+FFFD for each maximal invalid subpart") {
    const std::string r = R;
    CHECK(lossy("") == "");
    CHECK(lossy("plain \xC3\xA9") == "plain \xC3\xA9");
    // The two examples of The Unicode Standard 16.0, tables 3-8 and 3-11.
    CHECK(lossy("\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64") == "a" + r + r + r + "b" + r + "c" + r + r + "d");
    CHECK(lossy("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41") == r + r + r + r + "A");
    CHECK(lossy("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41") == r + r + r + r + r + r + r + r + "A");
    CHECK(lossy("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41") == r + r + r + r + r + r + r + r + "A");
    CHECK(lossy("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42") == r + r + r + r + r + "A" + r + r + "B");
    CHECK(lossy("\xF0\x9F\x98") == r);
    CHECK(lossy("12345678\xFF"
                "12345678") == "12345678" + r + "12345678");
}

TEST_CASE("utf8: the tail that waits for more") {
    CHECK(incomplete_utf8_tail("abc") == 0);
    CHECK(incomplete_utf8_tail("abc\xE4\xBD") == 2);
    CHECK(incomplete_utf8_tail("abc\xED\xA0") == 0);  // would be a surrogate
    CHECK(incomplete_utf8_tail("\x80\x80\x80\x80") == 0);
    CHECK(incomplete_utf8_tail("\xF0\x9F\x98\x80\xF0") == 1);
}
