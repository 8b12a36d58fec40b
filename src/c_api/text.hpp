#pragma once
/// Text to ids and back, and chats to prompts.
#include "model.hpp"

PHI4FLASH_BEGIN
namespace c_api {

[[nodiscard]] inline marker_policy markers_of(std::uint32_t choice) {
    return choice == PHI4FLASH_MARKERS_ARE_TOKENS ? marker_policy::parse : marker_policy::plain_text;
}

[[nodiscard]] inline outcome finish_tokenizer(const host_memory& memory, result<tokenizer> words, phi4flash_tokenizer** out) {
    if (!words) return words.error();
    auto made = make_handle<tokenizer_handle>(memory, *std::move(words));
    if (!made) return made.error();
    give_handle(out, *std::move(made));
    return {};
}

[[nodiscard]] inline outcome open_tokenizer_text(std::string_view json, const phi4flash_allocator* allocator, phi4flash_tokenizer** out) {
    host_memory memory;
    if (outcome ok = read_allocator(allocator, host_memory(), memory); !ok) return ok;
#if PHI4FLASH_HAS_JSON
    return finish_tokenizer(memory, tokenizer_from_json(json), out);
#else
    (void)json;
    (void)out;
    return outcome::failed(PHI4FLASH_NOT_SUPPORTED, "%s", no_json);
#endif
}

/// What is rendered: views of the caller's texts.
struct chat {
    std::vector<chat_message> messages;
    chat_options options{};
};

[[nodiscard]] inline outcome read_message(const phi4flash_chat_message& from, std::size_t i, chat_message& to) {
    if (outcome ok = check_choice(from.has_tools, 2, "message.has_tools"); !ok) return ok;
    if (from.role == nullptr) return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "message %zu: it has no role", i);
    if (outcome ok = read_text(from.role, from.role_length, to.role, "message.role"); !ok) return ok;
    if (outcome ok = read_text(from.content, from.content_length, to.content, "message.content"); !ok) return ok;
    std::string_view tools;
    if (outcome ok = read_text(from.tools, from.tools_length, tools, "message.tools"); !ok) return ok;
    if (from.has_tools == 0 && !tools.empty())
        return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "message %zu: it has tools, and has_tools is 0", i);
    if (from.has_tools != 0) to.tools = tools;
    return {};
}

[[nodiscard]] inline outcome read_chat(const phi4flash_chat_message* messages, std::size_t count, const phi4flash_chat_options* options, chat& to) {
    phi4flash_chat_options o;
    if (outcome ok = read_optional(options, o, "options"); !ok) return ok;
    if (outcome ok = check_choice(o.chat_template, 2, "options.chat_template"); !ok) return ok;
    if (outcome ok = check_choice(o.closed, 2, "options.closed"); !ok) return ok;
    if (outcome ok = check_choice(o.markers, 2, "options.markers"); !ok) return ok;
    to.options.form = o.chat_template == PHI4FLASH_CHAT_FLASH ? chat_template::flash : chat_template::mini_reasoning;
    to.options.add_generation_prompt = o.closed == 0;
    to.options.content_markers = markers_of(o.markers);
    if (messages == nullptr) return missing("messages");
    constexpr std::size_t most = 1000000;
    if (count == 0 || count > most) return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "messages: want 1 to %zu, have %zu", most, count);
    to.messages.resize(count);
    for (std::size_t i = 0; i < count; ++i) {
        phi4flash_chat_message m;
        if (outcome ok = read_element(messages, i, m, "message"); !ok) return ok;
        if (outcome ok = read_message(m, i, to.messages[i]); !ok) return ok;
    }
    return {};
}

}  // namespace c_api
PHI4FLASH_END

