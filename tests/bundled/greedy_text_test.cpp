/// The bundled model writes the same greedy texts on every target and machine, in its own weights and in packed ones.
#include <phi4flash/phi4flash.hpp>

#if PHI4FLASH_HAS_JSON
#include <doctest/doctest.h>
#include <support/whole_file.hpp>

#include <string>
#include <vector>

namespace p4 = phi4flash;

namespace {

struct question_and_answer {
    const char* question;
    const char* answer;
};
constexpr question_and_answer known[] = {
    {"What is 347 + 285?", "7+5=12, carry 1\n4+8+1=13, carry 1\n3+2+1=6\n\\boxed{632}"},
    {"What is 204 - 619?", "204<619, so -(619-204)\n9-4=5\n1-0=1\n6-2=4\n\\boxed{-415}"},
    {"What is 47 * 6?", "7*6=42, carry 4\n4*6=24, 24+4=28\n\\boxed{282}"},
};

struct memory_output {
    std::vector<std::byte> bytes;
    p4::status write(std::span<const std::byte> piece) {
        bytes.insert(bytes.end(), piece.begin(), piece.end());
        return {};
    }
};

constexpr const char* folder = PHI4FLASH_TEST_MODELS "/tiny-arithmetic";

#if PHI4FLASH_FILES
auto open_bundled() { return p4::model_files::open(std::filesystem::path(folder)); }
#else
std::string bytes_of(const char* name) {
    std::string bytes = phi4flash_test::whole_file(std::string(folder) + "/" + name);
    REQUIRE_MESSAGE(!bytes.empty(), name);
    return bytes;
}
auto open_bundled() {
    static const std::string weights = bytes_of("model.safetensors"), config = bytes_of("config.json"),
                             generation = bytes_of("generation_config.json"), text = bytes_of("tokenizer.json");
    static const std::span<const std::byte> tensors = std::as_bytes(std::span(weights));
    return p4::model_files::from_memory({{&tensors, 1}, config, generation, text});
}
#endif

void check_texts(const p4::model_files& files, const p4::tokenizer& words, const p4::kernel_table& kernels) {
    const auto m = p4::model<>::bind(files);
    REQUIRE_MESSAGE(m, m.error().message());
    auto past = p4::session<>::create(*m, 256);
    auto work = p4::workspace<>::create(*m, {.kernels = &kernels, .threads = {}});
    REQUIRE(past);
    REQUIRE(work);
    p4::encoder encoder(words);
    auto options = p4::options_from(files.generation(), &words);
    REQUIRE(options);
    options->sampling.temperature = 0.0f;
    options->max_tokens = 100;
    for (const question_and_answer& pair : known) {
        const p4::chat_message message{"user", pair.question};
        std::vector<std::int32_t> prompt;
        REQUIRE(p4::encode_chat(encoder, {&message, 1}, {}, prompt));
        past->reset();
        std::string answer;
        const auto end = p4::generate(*m, *past, *work, &words, prompt, *options, [&](const p4::generation_event& event) {
            answer += event.text;
            return true;
        });
        REQUIRE_MESSAGE(end, end.error().message());
        CHECK(answer == pair.answer);
    }
}

}  // namespace

TEST_CASE("the bundled model writes the same greedy texts on every target, in bf16, q8, q4_dense and q4") {
    const auto files = open_bundled();
    REQUIRE_MESSAGE(files, files.error().message());
    const auto words = files->open_tokenizer();
    REQUIRE_MESSAGE(words, words.error().message());
    std::string names;
    for (const p4::kernel_target& target : p4::kernel_targets()) {
        if (!target.request()) continue;
        names += std::string(names.empty() ? "" : ", ") + target.kernels->name + " of " + std::to_string(target.kernels->lanes()) + " lanes";
    }
    MESSAGE(names);
    for (const p4::dtype type : {p4::dtype::bf16, p4::dtype::q8, p4::dtype::q4_dense, p4::dtype::q4}) {
        CAPTURE(p4::name_of(type));
        p4::packed_model_info info;
        info.config = files->config();
        info.generation = files->generation();
        p4::conversion how;
        how.matrices = how.embedding = type;
        memory_output packed;
        const auto ok = p4::convert_model(*files, info, how, packed, {}, [](std::uint64_t, std::uint64_t) {});
        REQUIRE_MESSAGE(ok, ok.error().message());
        const auto from = p4::model_files::from_memory(packed.bytes);
        REQUIRE_MESSAGE(from, from.error().message());
        for (const p4::kernel_target& target : p4::kernel_targets()) {
            if (!target.request()) continue;
            CAPTURE(target.kernels->name);
            check_texts(*from, *words, *target.kernels);
        }
    }
}
#endif
