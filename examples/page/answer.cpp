/// A model as a WebAssembly module, without a system below it: its files come as bytes, questions as text, and each call of `next` computes one
/// token. worker.js calls it from a page, node.mjs from node.
#include <phi4flash/phi4flash.hpp>

#include <cstring>
#include <new>
#include <optional>
#include <string>

namespace p4 = phi4flash;

#define EXPORT(name) __attribute__((export_name(#name))) name

namespace {

/// In the order of file().
enum file_index { config_json, generation_config_json, tokenizer_json, weights, n_files };

struct loaded_model {
    p4::model_files files;
    p4::tokenizer text;
    p4::model<> model;
    p4::session<> session;
    p4::workspace<> workspace;
};

p4::memory_block bytes_of[n_files];
std::size_t size_of_file[n_files];
std::optional<loaded_model> loaded;
std::optional<p4::generation<>> answer;
std::string said;  // of the last call: an answer's text or an error's sentence

int fail(const p4::error& why) {
    said = why.message();
    return -1;
}

std::string_view text_of(file_index i) { return {reinterpret_cast<const char*>(bytes_of[i].bytes().data()), size_of_file[i]}; }

p4::status load() {
    const std::span<const std::byte> tensors(bytes_of[weights].bytes().data(), size_of_file[weights]);
    auto files = p4::model_files::from_memory({{&tensors, 1}, text_of(config_json), text_of(generation_config_json), text_of(tokenizer_json)});
    if (!files) return files.error();
    auto text = files->open_tokenizer();
    if (!text) return text.error();
    auto model = p4::model<>::bind(*files);
    if (!model) return model.error();
    auto session = p4::session<>::create(*model, 1024);
    if (!session) return session.error();
    auto workspace = p4::workspace<>::create(*model, {.chunk = 16});
    if (!workspace) return workspace.error();
    loaded.emplace(*std::move(files), *std::move(text), *std::move(model), *std::move(session), *std::move(workspace));
    return {};
}

p4::status start(std::string_view question) {
    answer.reset();
    loaded->session.reset();
    std::vector<std::int32_t> prompt;
    p4::encoder encoder(loaded->text);
    const p4::chat_message message{"user", question};
    if (const auto ok = p4::encode_chat(encoder, {&message, 1}, {}, prompt); !ok) return ok;
    auto options = p4::options_from(loaded->files.generation(), &loaded->text);
    if (!options) return options.error();
    options->sampling.temperature = 0.0f;
    auto made = p4::generation<>::create(loaded->model, loaded->workspace, &loaded->text, *options, {.prompt = prompt.size()});
    if (!made) return made.error();
    answer.emplace(*std::move(made));
    return answer->start(loaded->session, prompt);
}

}  // namespace

extern "C" {

/// Room for a file of `bytes` bytes; 0 where there is none. `index`: config.json, generation_config.json, tokenizer.json, model.safetensors.
std::byte* EXPORT(file)(std::size_t index, std::size_t bytes) {
    if (index >= n_files || loaded) return nullptr;
    auto block = p4::memory_block::allocate(bytes, "file");
    if (!block) return nullptr;
    bytes_of[index] = *std::move(block);
    size_of_file[index] = bytes;
    return bytes_of[index].bytes().data();
}
/// 0, or -1 and a sentence in text().
int EXPORT(open)() {
    const p4::status ok = load();
    return ok ? 0 : fail(ok.error());
}
/// Room for a question of `bytes` bytes of UTF-8, for ask().
char* EXPORT(question)(std::size_t bytes) {
    said.assign(bytes, ' ');
    return said.data();
}
/// 0, or -1 and a sentence in text().
int EXPORT(ask)() {
    if (!loaded) return fail(p4::error::format(p4::errc::invalid_argument, "there is no model yet"));
    const p4::status ok = start(std::string(said));
    return ok ? 0 : fail(ok.error());
}
/// Reads a part of the question or writes a token: 1 while there is more to come, its text in text(); 0 after the end; -1 and a sentence.
int EXPORT(next)() {
    said.clear();
    if (!answer || !answer->running()) return 0;
    const auto event = answer->advance();
    if (!event) return fail(event.error());
    said.assign(event->text);
    return answer->running() ? 1 : 0;
}
const char* EXPORT(text)() { return said.data(); }
std::size_t EXPORT(text_size)() { return said.size(); }
/// The kernels in use.
const char* EXPORT(target)() { return p4::best_kernels().name; }
}
