#pragma once
/// What the tests of text/ share: files, lines of JSON, the small tokenizer, random bytes.
#include <doctest/doctest.h>
#include <phi4flash/io/huggingface/tokenizer_json.hpp>

#include <nlohmann/json.hpp>
#include <support/whole_file.hpp>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace text_testing {

using nlohmann::json;
using ids_type = std::vector<std::int32_t>;

inline std::string read_file(const std::string& path) {
    std::string bytes = phi4flash_test::whole_file(path);
    REQUIRE_MESSAGE(!bytes.empty(), "cannot read " << path);
    return bytes;
}

/// Lines end with \n only: other line separators occur inside the texts.
inline std::vector<json> read_lines(const std::string& path) {
    const std::string all = read_file(path);
    std::vector<json> lines;
    for (std::size_t begin = 0; begin < all.size();) {
        const std::size_t end = std::min(all.find('\n', begin), all.size());
        if (end > begin)
            lines.push_back(
                json::parse(all.begin() + static_cast<std::ptrdiff_t>(begin), all.begin() + static_cast<std::ptrdiff_t>(end)));
        begin = end + 1;
    }
    return lines;
}

inline std::string data(const std::string& name) { return std::string(PHI4FLASH_TEST_DATA) + "/text/" + name; }

/// The folder of the large expected values, or "" with a message.
inline std::string shared() {
    const char* const folder = std::getenv("PHI4FLASH_SHARED");
    if (folder != nullptr) return std::string(folder) + "/tokenizer/";
    MESSAGE("skipped: PHI4FLASH_SHARED is not set");
    return {};
}

inline phi4flash::tokenizer load(const std::string& path) {
    phi4flash::result<phi4flash::tokenizer> t = phi4flash::tokenizer_from_json(read_file(path));
    REQUIRE_MESSAGE(t, path << ": " << t.error().message());
    return *std::move(t);
}

inline const phi4flash::tokenizer& tiny() {
    static const phi4flash::tokenizer t = load(data("tiny_tokenizer.json"));
    return t;
}

inline ids_type encode(const phi4flash::tokenizer& t, std::string_view text,
                       phi4flash::marker_policy markers = phi4flash::marker_policy::parse) {
    ids_type ids;
    REQUIRE(t.encode(text, {markers}, ids));
    return ids;
}

inline std::string decode(const phi4flash::tokenizer& t, const ids_type& ids, bool skip_special = false) {
    std::string text;
    REQUIRE(t.decode(ids, {skip_special}, text));
    return text;
}

/// A copy without slack on either side, so that a sanitizer sees every read beyond it.
class exact_buffer {
public:
    explicit exact_buffer(std::string_view text) : bytes_(new char[text.size()]), size_(text.size()) {
        text.copy(bytes_.get(), size_);
    }
    [[nodiscard]] std::string_view view() const { return {bytes_.get(), size_}; }

private:
    std::unique_ptr<char[]> bytes_;
    std::size_t size_;
};

/// Words, marks, white space, fragments of characters and markers, in random order.
inline std::string random_text(std::mt19937& random, std::size_t parts, bool valid) {
    static const std::vector<std::string> good{"a",
                                               "B",
                                               "the",
                                               " ",
                                               "  ",
                                               "\n",
                                               "\r\n",
                                               "\t",
                                               "'s",
                                               "'LL",
                                               "'\xC5\xBF",
                                               "1",
                                               "23",
                                               "\xD9\xA3",
                                               "/",
                                               "!",
                                               "...",
                                               "\xC3\xA9",
                                               "e\xCC\x81",
                                               "\xCC\x81",
                                               "\xE4\xBD\xA0\xE5\xA5\xBD",
                                               "\xCA\xB0",
                                               "\xC7\x85",
                                               "\xC2\xA0",
                                               "\xE3\x80\x80",
                                               "\xE2\x80\xA8",
                                               "\xF0\x9F\x98\x80",
                                               "\xEF\xBF\xBD",
                                               "<|end|>",
                                               "<|user|>",
                                               "<|tool|>",
                                               "<|",
                                               "|>",
                                               "Hello",
                                               " x =",
                                               "\xD0\x9F\xD1\x80"};
    static const std::vector<std::string> bad{
        "\x80", "\xC2", "\xE4\xBD", "\xF0\x9F\x98", "\xED\xA0\x80", "\xC0\xAF", "\xF4\x90\x80\x80", "\xFF", "\xE0\x80"};
    std::string text;
    for (std::size_t i = 0; i < parts; ++i) {
        const std::vector<std::string>& from = !valid && random() % 4 == 0 ? bad : good;
        text += from[random() % from.size()];
    }
    return text;
}

}  // namespace text_testing
