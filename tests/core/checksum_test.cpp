/// XXH64: the published values, and any cut.
#include <phi4flash/core/checksum.hpp>

#include <doctest/doctest.h>

#include <string>
#include <string_view>

namespace {

std::uint64_t sum_of(std::string_view text, std::size_t piece) {
    phi4flash::xxh64 sum;
    for (std::size_t at = 0; at < text.size(); at += piece) sum.update(std::as_bytes(std::span(text.substr(at, piece))));
    return sum.value();
}

}  // namespace

TEST_CASE("core/checksum: what other implementations of XXH64 give, in any cut") {
    const struct {
        std::string text;
        std::uint64_t value;
    } known[] = {
        {"", 0xef46db3751d8e999u},
        {"a", 0xd24ec4f1a98c6e5bu},
        {"as", 0x1c330fb2d66be179u},
        {"asd", 0x631c37ce72a97393u},
        {"asdf", 0x415872f599cea71eu},
        {"Call me Ishmael. Some years ago--never mind how long precisely-", 0x02a2e85470d6fd96u},
    };
    for (const auto& k : known)
        for (std::size_t piece = 1; piece <= 70; ++piece) {
            CAPTURE(k.text);
            CAPTURE(piece);
            CHECK(sum_of(k.text, piece) == k.value);
        }
    phi4flash::xxh64 number;
    number.update(0x0807060504030201u);
    CHECK(number.value() == sum_of("\x01\x02\x03\x04\x05\x06\x07\x08", 8));
}

TEST_CASE("core/checksum: each altered bit shows") {
    std::string text(100, 'x');
    const std::uint64_t whole = sum_of(text, 100);
    for (std::size_t bit = 0; bit < 8 * text.size(); ++bit) {
        text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << bit % 8));
        CHECK(sum_of(text, 100) != whole);
        text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << bit % 8));
    }
}
