/// The bundled model: on 500 problems that it has not seen in training, its greedy answers must be right at least 95 % of the
/// time, from the chat template to the boxed number.
#include <phi4flash/phi4flash.hpp>

#if PHI4FLASH_HAS_JSON
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <fstream>
#include <string>

namespace p4 = phi4flash;

namespace {

/// What stands in the last \boxed{...}, or nothing.
std::string boxed(const std::string& text) {
    const std::size_t at = text.rfind("\\boxed{");
    if (at == std::string::npos) return {};
    const std::size_t begin = at + 7;
    return text.substr(begin, text.find('}', begin) - begin);
}

}  // namespace

TEST_CASE("the bundled model solves at least 95 % of 500 held-out problems") {
    const std::filesystem::path folder = std::filesystem::path(PHI4FLASH_TEST_MODELS) / "tiny-arithmetic";
    const auto files = p4::checkpoint::open(folder);
    REQUIRE_MESSAGE(files, files.error().message());
    const auto m = p4::model<>::bind(*files);
    REQUIRE_MESSAGE(m, m.error().message());
    const auto json = p4::read_file(files->tokenizer_path(), std::size_t{1} << 26);
    REQUIRE(json);
    const auto words = p4::tokenizer_from_json(*json);
    REQUIRE_MESSAGE(words, words.error().message());
    p4::encoder encoder(*words);
    auto past = *p4::session<p4::any_sambay, float>::create(*m, 512);
    auto work = *p4::workspace<p4::any_sambay, float>::create(*m);

    p4::generation_options options;
    options.sampling.temperature = 0.0f;
    options.max_tokens = 200;
    for (const std::uint32_t id : files->generation().stop_ids) options.stop_ids.push_back(static_cast<std::int32_t>(id));
    REQUIRE(options.stop_ids.size() == 2);

    std::ifstream problems(std::filesystem::path(PHI4FLASH_TEST_DATA) / "arithmetic_held_out.jsonl");
    REQUIRE(problems);
    std::size_t asked = 0;
    std::size_t right = 0;
    std::size_t ended = 0;
    for (std::string line; std::getline(problems, line);) {
        const nlohmann::json problem = nlohmann::json::parse(line, nullptr, false);
        REQUIRE(problem.is_object());
        const std::string question = problem["prompt"].get<std::string>();
        const p4::chat_message message{"user", question};
        std::vector<std::int32_t> prompt;
        REQUIRE(p4::encode_chat(encoder, std::span(&message, 1), {}, prompt));
        std::string answer;
        past.reset();
        const auto end = p4::generate(*m, past, work, &*words, prompt, options, [&](const p4::generation_event& event) {
            answer += event.text;
            return true;
        });
        REQUIRE_MESSAGE(end, end.error().message());
        ++asked;
        ended += end->reason == p4::stop_reason::stop_token;
        right += boxed(answer) == problem["answer"].get<std::string>();
    }
    MESSAGE(right << " of " << asked << " right, " << ended << " ended by themselves");
    CHECK(asked == 500);
    CHECK(right >= 475);
    CHECK(ended >= 490);
}
#endif
