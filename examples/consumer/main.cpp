/// Says which phi4flash this program was built with and what this machine lets it use; with arguments, lets a model answer:
///     consumer MODEL "What is 347 + 285?"
#include <phi4flash/phi4flash.hpp>

#include <cstdio>

namespace p4 = phi4flash;

static p4::status answer(const char* path, const char* question) {
    const auto files = p4::model_files::open(path);  // a checkpoint folder (where JSON is in) or a packed file
    if (!files) return files.error();
    const auto text = files->open_tokenizer();
    if (!text) return text.error();
    const auto model = p4::model<>::bind(*files);
    if (!model) return model.error();
    auto session = p4::session<>::create(*model, 2048);
    if (!session) return session.error();
    auto workspace = p4::workspace<>::create(*model);
    if (!workspace) return workspace.error();

    std::vector<std::int32_t> prompt;
    p4::encoder encoder(*text);
    const p4::chat_message message{"user", question};
    if (const auto ok = p4::encode_chat(encoder, {&message, 1}, {}, prompt); !ok) return ok;
    auto options = p4::options_from(files->generation(), &*text);
    if (!options) return options.error();
    options->sampling.temperature = 0;  // greedy: the same answer every time
    const auto summary = p4::generate(*model, *session, *workspace, &*text, prompt, *options, [](const p4::generation_event& event) {
        return std::fwrite(event.text.data(), 1, event.text.size(), stdout) == event.text.size();
    });
    if (!summary) return summary.error();
    std::printf("\n");
    return {};
}

int main(int argc, char** argv) {
    const char* back_end = PHI4FLASH_SIMD_HIGHWAY ? "highway" : PHI4FLASH_SIMD_XSIMD ? "xsimd" : "scalar";
    const char* target = p4::best_kernels().name;
    std::printf("phi4flash %s, back end %s, target %s, json %d\n", PHI4FLASH_VERSION_STRING, back_end, target, PHI4FLASH_HAS_JSON);
    if (argc < 3) return 0;
    const p4::status ok = answer(argv[1], argv[2]);
    if (!ok) std::fprintf(stderr, "%s\n", ok.error().message());
    return ok ? 0 : 1;
}
