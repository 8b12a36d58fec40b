/// A plugin with phi4flash in it; run.sh compiles it twice, in different ways. PLUGIN_LIBRARY is the library's header, whatever it is called there.
#include PLUGIN_LIBRARY

#include "plugin.h"

#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

// The library's names are apart from those of any other plugin by themselves; these here, which both plugins have, by having no linkage.
namespace {

namespace p4 = phi4flash;

/// A model and all that it takes to ask it, two threads among that: they end with it, before the plugin can be unloaded.
struct answerer {
    p4::thread_pool threads;
    p4::model_files files;
    p4::tokenizer words;
    p4::model<> model;
    std::optional<p4::session<>> session;
    std::optional<p4::workspace<>> workspace;
};

p4::result<std::unique_ptr<answerer>> open_model(const char* path) {
    auto threads = p4::thread_pool::create(2);
    if (!threads) return threads.error();
    auto files = p4::model_files::open(path);
    if (!files) return files.error();
    auto words = files->open_tokenizer();
    if (!words) return words.error();
    auto model = p4::model<>::bind(*files);
    if (!model) return model.error();
    std::unique_ptr<answerer> made(new answerer{*std::move(threads), *std::move(files), *std::move(words), *std::move(model), {}, {}});
    auto session = p4::session<>::create(made->model, 1024);
    if (!session) return session.error();
    made->session.emplace(*std::move(session));
    auto workspace = p4::workspace<>::create(made->model, {.threads = made->threads});
    if (!workspace) return workspace.error();
    made->workspace.emplace(*std::move(workspace));
    return made;
}

p4::result<std::string> answer(answerer& a, const char* question) {
    a.session->reset();
    std::vector<std::int32_t> prompt;
    p4::encoder encoder(a.words);
    const p4::chat_message message{"user", question};
    if (const auto ok = p4::encode_chat(encoder, {&message, 1}, {}, prompt); !ok) return ok.error();
    auto options = p4::options_from(a.files.generation(), &a.words);
    if (!options) return options.error();
    options->sampling.temperature = 0.0f;  // greedy: every plugin says the same
    std::string said;
    const auto summary = p4::generate(a.model, *a.session, *a.workspace, &a.words, prompt, *options, [&](const p4::generation_event& event) {
        said += event.text;
        return true;
    });
    if (!summary) return summary.error();
    return said;
}

void* open(const char* path, char* text, std::size_t room) {
    auto made = open_model(path);
    if (made) return made->release();
    std::snprintf(text, room, "%s", made.error().message());
    return nullptr;
}

int ask(void* self, const char* question, char* text, std::size_t room) {
    const auto said = answer(*static_cast<answerer*>(self), question);
    std::snprintf(text, room, "%s", said ? said->c_str() : said.error().message());
    return said ? 0 : 1;
}

void close(void* self) { delete static_cast<answerer*>(self); }

}  // namespace

extern "C" __attribute__((visibility("default"))) const plugin* get_plugin() {
    static const plugin self{PHI4FLASH_VERSION_STRING, p4::best_kernels().name, &open, &ask, &close};
    return &self;
}
