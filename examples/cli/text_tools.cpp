/// tokenize, detokenize, render: JSON Lines in, JSON Lines out.
#include "command.hpp"
#include "json_lines.hpp"

namespace cli {
namespace {

struct text_options {
    std::string tokenizer;
    bool no_special = false;
    bool skip_special = false;
    bool plain_content = false;
    std::string form = "flash";
};

p4::status tokenize(const text_options& o) {
    const auto text = open_tokenizer(o.tokenizer);
    if (!text) return text.error();
    p4::encoder encoder(*text);
    std::vector<std::int32_t> ids;
    const p4::encode_options how{o.no_special ? p4::marker_policy::plain_text : p4::marker_policy::parse};
    return for_each_line([&](const json& line) -> p4::result<json> {
        const auto said = string_of(line, "text");
        if (!said) return said.error();
        ids.clear();
        if (const p4::status ok = encoder.encode(*said, how, ids); !ok) return ok.error();
        return json{{"ids", ids}};
    });
}

p4::status detokenize(const text_options& o) {
    const auto text = open_tokenizer(o.tokenizer);
    if (!text) return text.error();
    return for_each_line([&](const json& line) -> p4::result<json> {
        const auto ids = ids_of(line);
        if (!ids) return ids.error();
        std::string said;
        text->decode(*ids, {.skip_special = o.skip_special}, said);
        return json{{"text", said}};
    });
}

/// Messages of a line; the views of the result look into `strings`, which must be empty and outlive it.
p4::result<std::vector<p4::chat_message>> messages_of(const json& line, std::vector<std::string>& strings) {
    const auto list = line.find("messages");
    if (list == line.end()) return p4::error::format(p4::errc::json_missing_key, "no key 'messages': want a list of messages");
    if (!list->is_array()) return p4::detail::wrong_type("messages", "a list of messages", *list);
    strings.reserve(3 * list->size());  // never moves: the views look into it
    std::vector<p4::chat_message> messages;
    const auto keep = [&](std::string&& s) { return std::string_view(strings.emplace_back(std::move(s))); };
    for (const json& one : *list) {
        if (!one.is_object()) return p4::detail::wrong_type("messages", "a list of objects", one);
        auto role = string_of(one, "role");
        if (!role) return role.error();
        auto content = string_of(one, "content");
        if (!content) return content.error();
        p4::chat_message& message = messages.emplace_back(p4::chat_message{keep(std::move(*role)), keep(std::move(*content))});
        const auto tools = one.find("tools");
        if (tools != one.end() && !tools->is_null())
            message.tools = keep(tools->is_string() ? tools->get<std::string>() : tools->dump());
    }
    return messages;
}

p4::status render(const text_options& o) {
    const auto text = open_tokenizer(o.tokenizer);
    if (!text) return text.error();
    p4::encoder encoder(*text);
    return for_each_line([&](const json& line) -> p4::result<json> {
        std::vector<std::string> strings;
        const auto messages = messages_of(line, strings);
        if (!messages) return messages.error();
        const auto asked = line.find("add_generation_prompt");
        if (asked != line.end() && !asked->is_boolean())
            return p4::detail::wrong_type("add_generation_prompt", "true or false", *asked);
        const std::string form =
            line.contains("template") && line["template"].is_string() ? line["template"].get<std::string>() : o.form;
        if (form != "flash" && form != "mini_reasoning")
            return p4::error::format(p4::errc::invalid_argument, "template: want flash or mini_reasoning, have %s",
                                     p4::printable(form).c_str());
        p4::chat_options how;
        how.form = form == "flash" ? p4::chat_template::flash : p4::chat_template::mini_reasoning;
        how.add_generation_prompt = asked == line.end() || asked->get<bool>();
        how.content_markers = o.plain_content ? p4::marker_policy::plain_text : p4::marker_policy::parse;
        std::string prompt;
        std::vector<std::int32_t> ids;
        if (const p4::status ok = p4::render_chat(*messages, how, prompt); !ok) return ok.error();
        if (const p4::status ok = p4::encode_chat(encoder, *messages, how, ids); !ok) return ok.error();
        return json{{"prompt", prompt}, {"ids", ids}};
    });
}

CLI::App* add(CLI::App& app, action& chosen, const std::shared_ptr<text_options>& o, const char* name, const char* what,
              p4::status (*run)(const text_options&)) {
    CLI::App* command = app.add_subcommand(name, what);
    command->add_option("--tokenizer,--model", o->tokenizer, "tokenizer.json, or a folder that holds one")
        ->required()
        ->type_name("FILE_OR_MODEL");
    command->callback([o, run, &chosen] { chosen = [o, run] { return run(*o); }; });
    return command;
}

}  // namespace

void add_text_tools(CLI::App& app, action& chosen) {
    const auto o = std::make_shared<text_options>();
    add(app, chosen, o, "tokenize", "Text to ids: JSON Lines {\"text\"} in, {\"ids\"} out", tokenize)
        ->add_flag("--no-special", o->no_special, "Markers such as <|end|> in the text are plain text");
    add(app, chosen, o, "detokenize", "Ids to text: JSON Lines {\"ids\"} in, {\"text\"} out", detokenize)
        ->add_flag("--skip-special", o->skip_special, "Leave special tokens out");
    CLI::App* command =
        add(app, chosen, o, "render",
            "Chat to prompt: JSON Lines {\"messages\", \"add_generation_prompt\"} in, {\"prompt\", \"ids\"} out", render);
    command->add_option("--template", o->form, "Where a line has no \"template\"")
        ->check(CLI::IsMember({"flash", "mini_reasoning"}))
        ->capture_default_str();
    command->add_flag("--plain-content", o->plain_content, "Markers in the messages are plain text, as in chat");
}

}  // namespace cli
