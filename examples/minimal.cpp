/// The library in one page: opens a model, asks one question, prints the answer as it comes.
#include <phi4flash/phi4flash.hpp>

#include <cstdio>

namespace p4 = phi4flash;

static p4::status run(const char* path, const char* question) {
    const auto files = p4::model_files::open(path);  // a checkpoint folder or a packed file
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
    const auto options = p4::options_from(files->generation(), &*text);
    if (!options) return options.error();
    const auto summary = p4::generate(*model, *session, *workspace, &*text, prompt, *options, [](const p4::generation_event& event) {
        return std::fwrite(event.text.data(), 1, event.text.size(), stdout) == event.text.size();  // false stops
    });
    if (!summary) return summary.error();
    std::printf("\n");
    return {};
}

int main(int argc, char** argv) {
    const auto ok = run(argc > 1 ? argv[1] : "models/tiny-arithmetic", argc > 2 ? argv[2] : "What is 347 + 285?");
    if (!ok) std::fprintf(stderr, "%s\n", ok.error().message());
    return ok && std::fflush(stdout) == 0 ? 0 : 1;
}
