#pragma once
/// Chat templates: messages to a prompt, as text or as ids.
#include <phi4flash/text/tokenizer.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

PHI4FLASH_BEGIN

/// One message. Roles of the released models: system, user, assistant, tool, tool_response.
struct chat_message {
    std::string_view role;
    std::string_view content;
    std::optional<std::string_view> tools{};  ///< of a system message, not looked at in others; empty is not absent
};

/// The templates of Phi-4-mini-flash-reasoning and Phi-4-mini-reasoning (which always begins with a system message of its own).
enum class chat_template : std::uint8_t { flash, mini_reasoning };

/// How a prompt is rendered.
struct chat_options {
    chat_template form = chat_template::flash;
    bool add_generation_prompt = true;  ///< ask for an answer; otherwise end with <|endoftext|>
    /// What messages may spell. `plain_text` keeps markers out of them; `parse` is what encoding the rendered prompt would give.
    marker_policy content_markers = marker_policy::plain_text;
};

/// What both templates put after every message: where an answer ends. nullptr if the tokenizer has no such token. @since 0.2
[[nodiscard]] inline const added_token* end_of_message(const tokenizer& text) { return text.added(std::string_view("<|end|>")); }

namespace detail {

/// Roles become markers, so they are words and nothing else.
[[nodiscard]] PHI4FLASH_BODY status check_roles(std::span<const chat_message> messages);

/// Calls `marker(name)` for "<|name|>" and `text(content)` for what stands between markers, in order.
template <class Marker, class Text>
void walk_chat(std::span<const chat_message> messages, const chat_options& options, Marker&& marker, Text&& text) {
    const auto tools_of = [&](const chat_message& m) {
        if (!m.tools) return;
        marker("tool");
        text(*m.tools);
        marker("/tool");
    };
    const bool own_system = options.form == chat_template::mini_reasoning;
    if (own_system) {
        marker("system");
        text("Your name is Phi, an AI math expert developed by Microsoft.");
        for (const chat_message& m : messages) {
            if (m.role != "system") continue;
            text(" ");
            text(m.content);
            tools_of(m);
        }
        marker("end");
    }
    for (const chat_message& m : messages) {
        if (own_system && m.role == "system") continue;
        marker(m.role);
        text(m.content);
        if (m.role == "system") tools_of(m);
        marker("end");
    }
    marker(options.add_generation_prompt ? "assistant" : "endoftext");
}

/// encode_chat, for content that is not parsed.
[[nodiscard]] PHI4FLASH_BODY status encode_messages(encoder& e, std::span<const chat_message> messages, const chat_options& options,
                                                    std::vector<std::int32_t>& ids);

}  // namespace detail

/// Appends the prompt to `prompt`. Errors: bad_chat_message (a role that is no word); out_of_memory. `prompt` is then as it was.
PHI4FLASH_BODY status render_chat(std::span<const chat_message> messages, const chat_options& options, std::string& prompt);

/// Appends the ids of the prompt to `ids`. Markers of the template are ids of added tokens; those with `rstrip` swallow the white
/// space after them, as when a whole prompt is encoded. Errors: as render_chat; also bad_chat_message for a role without a marker
/// in this tokenizer. `ids` is then as it was.
PHI4FLASH_BODY status encode_chat(encoder& e, std::span<const chat_message> messages, const chat_options& options,
                          std::vector<std::int32_t>& ids);

#if PHI4FLASH_BODIES
namespace detail {

PHI4FLASH_BODY status check_roles(std::span<const chat_message> messages) {
    for (std::size_t i = 0; i < messages.size(); ++i) {
        const std::string_view role = messages[i].role;
        const bool good = std::all_of(role.begin(), role.end(), [](char c) {
            return c == '_' || c == '-' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        });
        if (!good || role.empty() || role.size() > 64)
            return error::format(errc::bad_chat_message, "message %zu: a role is 1 to 64 letters, digits, '_' or '-'", i);
    }
    return {};
}

PHI4FLASH_BODY status encode_messages(encoder& e, std::span<const chat_message> messages, const chat_options& options,
                                      std::vector<std::int32_t>& ids) {
    status outcome;
    std::string content, name;          // text since the last marker
    const added_token* last = nullptr;  // the last marker
    const auto flush = [&] {
        std::string_view rest = content;
        if (last != nullptr && last->rstrip) rest.remove_prefix(leading_space(rest));
        if (outcome && !rest.empty()) outcome = e.encode(rest, {options.content_markers}, ids);
        content.clear();
    };
    walk_chat(
        messages, options,
        [&](std::string_view word) {
            flush();
            name.assign("<|").append(word).append("|>");
            last = e.of().added(name);
            if (last != nullptr) {
                ids.push_back(static_cast<std::int32_t>(last->id));
            } else if (outcome) {
                outcome = error::format(errc::bad_chat_message, "the tokenizer has no added token '%s' for the chat template",
                                        name.c_str());
            }
        },
        [&](std::string_view text) { content.append(text); });
    return outcome;
}

}  // namespace detail

PHI4FLASH_BODY status render_chat(std::span<const chat_message> messages, const chat_options& options, std::string& prompt) {
    if (status s = detail::check_roles(messages); !s) return s;
    return detail::append_or_nothing("render a chat", prompt, [&] {
        detail::walk_chat(
            messages, options, [&](std::string_view name) { prompt.append("<|").append(name).append("|>"); },
            [&](std::string_view content) { prompt.append(content); });
    });
}

PHI4FLASH_BODY status encode_chat(encoder& e, std::span<const chat_message> messages, const chat_options& options, std::vector<std::int32_t>& ids) {
    if (status s = detail::check_roles(messages); !s) return s;
    return detail::append_or_nothing("encode a chat", ids, [&]() -> status {
        if (options.content_markers != marker_policy::parse) return detail::encode_messages(e, messages, options, ids);
        std::string prompt;
        if (status s = render_chat(messages, options, prompt); !s) return s;
        return e.encode(prompt, {marker_policy::parse}, ids);
    });
}
#endif

PHI4FLASH_END
