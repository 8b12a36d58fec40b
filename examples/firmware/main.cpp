/// A microcontroller that answers a question: no operating system, the model in flash, all memory static, the answer over a serial line.
#include "board.hpp"

#include <phi4flash/phi4flash.hpp>

#include <cstdio>

namespace p4 = phi4flash;

// model.gguf, by .incbin below: what phi4flash convert writes, used where it lies.
__asm__(".section .model, \"a\"\n"
        ".balign 64\n"
        ".global model_begin\n"
        "model_begin: .incbin \"model.gguf\"\n"
        ".global model_end\n"
        "model_end:\n"
        ".previous\n");
extern "C" const std::byte model_begin[], model_end[];

namespace {

alignas(p4::block_alignment) std::byte session_memory[std::size_t{768} << 10];
alignas(p4::block_alignment) std::byte workspace_memory[std::size_t{768} << 10];

p4::status run(const char* question) {
    const auto file = p4::packed_model::from_memory({model_begin, static_cast<std::size_t>(model_end - model_begin)});
    if (!file) return file.error();
    const auto text = p4::read_tokenizer(*file);
    if (!text) return text.error();
    const auto model = p4::model<>::bind(*file);
    if (!model) return model.error();
    auto session = p4::session<>::create_in(session_memory, *model, 256);
    if (!session) return session.error();
    auto workspace = p4::workspace<>::create_in(workspace_memory, *model, {.chunk = 8});
    if (!workspace) return workspace.error();

    std::vector<std::int32_t> prompt;
    p4::encoder encoder(*text, 16);  // words that it remembers: some 1 KiB, by default 500
    const p4::chat_message message{"user", question};
    if (const auto ok = p4::encode_chat(encoder, {&message, 1}, {}, prompt); !ok) return ok;
    auto options = p4::options_from(file->generation(), &*text);
    if (!options) return options.error();
    options->sampling.temperature = 0.0f;
    const auto summary = p4::generate(*model, *session, *workspace, &*text, prompt, *options, [](const p4::generation_event& event) {
        board::write(event.text.data(), event.text.size());
        return true;
    });
    if (!summary) return summary.error();
    board::write("\n", 1);
    return {};
}

}  // namespace

int main() {
    const p4::status ok = run("What is 347 + 285?");
    if (!ok) board::write(ok.error().message());
    char line[160];
    std::snprintf(line, sizeof line, "\nRAM: session %u KiB, workspace %u KiB, heap %u of %u KiB used, stack %u of %u KiB used\n",
                  static_cast<unsigned>(sizeof session_memory >> 10), static_cast<unsigned>(sizeof workspace_memory >> 10),
                  static_cast<unsigned>((board::heap_used() + 1023) >> 10), static_cast<unsigned>(board::heap_size() >> 10),
                  static_cast<unsigned>((board::stack_used() + 1023) >> 10), static_cast<unsigned>(board::stack_size() >> 10));
    board::write(line);
    return ok ? 0 : 1;
}
