/// tokenizer.json: what is accepted encodes any text to ids that it has, and gives the same ids when it is built from its own tables.
#include "fuzz.hpp"

#include <phi4flash/io/huggingface/tokenizer_json.hpp>
#include <phi4flash/io/packed/tokenizer.hpp>

#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace phi4flash;
    // Beside the caches of two encoders: tables of all ids up to the highest, which a file may give in any order (max_id_gap).
    const fuzz::memory_limit limit(size, std::size_t{8} << 20, 256);
    const std::string_view json = fuzz::text_of(data, size);
    const auto words = tokenizer_from_json(json);
    if (!words) return fuzz::check_refusal(words.error()), 0;

    const std::string_view text = json.substr(json.size() - (std::min)(json.size(), std::size_t{300}));
    std::vector<std::int32_t> ids, same;
    PHI4FLASH_FUZZ_CHECK(words->encode(text, {}, ids));
    PHI4FLASH_FUZZ_CHECK(words->encode("the he\xCC\x81ll <|end|> \xFF 1212", {marker_policy::plain_text}, ids));
    for (const std::int32_t id : ids) PHI4FLASH_FUZZ_CHECK(words->has_string(id));
    std::string back;
    PHI4FLASH_FUZZ_CHECK(words->decode(ids, {.skip_special = true}, back));

    tokenizer_builder builder;
    builder.pattern = words->pattern();
    builder.normalization = words->normalization();
    builder.ignore_merges = words->merges().ignore_merges();
    for (const added_token& t : words->added_tokens()) PHI4FLASH_FUZZ_CHECK(builder.add_added_token(t));
    const auto copy = builder.build_from_tables([&](std::string_view name, auto& table) {
        words->for_each_table([&](std::string_view have, auto from) {
            if constexpr (std::is_same_v<typename decltype(from)::value_type, typename std::decay_t<decltype(table)>::value_type>)
                if (have == name) table.assign(from.begin(), from.end());
        });
        return status();
    });
    PHI4FLASH_FUZZ_CHECK(copy);
    PHI4FLASH_FUZZ_CHECK(copy->encode(text, {}, same));
    PHI4FLASH_FUZZ_CHECK(copy->encode("the he\xCC\x81ll <|end|> \xFF 1212", {marker_policy::plain_text}, same));
    PHI4FLASH_FUZZ_CHECK(ids == same);
    return 0;
}
