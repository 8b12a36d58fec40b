/// tokenize, detokenize, render: JSON Lines in, JSON Lines out.
#include "command.hpp"
#include "input_text.hpp"
#include "json_lines.hpp"

#include <CLI/CLI.hpp>

namespace cli {
namespace {

struct text_options {
    std::string tokenizer;
    std::optional<std::string> text_file;
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
    const auto encoded = [&](const std::string& said) -> p4::result<json> {
        ids.clear();
        if (const p4::status ok = encoder.encode(said, how, ids); !ok) return ok.error();
        return json{{"ids", ids}};
    };
    if (o.text_file) {
        const auto said = read_text(*o.text_file);
        if (!said) return said.error();
        const auto line = encoded(*said);
        if (!line) return line.error();
        print(*line);
        return {};
    }
    return for_each_line([&](const p4::json_value& line) -> p4::result<json> {
        const auto said = string_of(line, "text");
        if (!said) return said.error();
        return encoded(*said);
    });
}

p4::status detokenize(const text_options& o) {
    const auto text = open_tokenizer(o.tokenizer);
    if (!text) return text.error();
    return for_each_line([&](const p4::json_value& line) -> p4::result<json> {
        const auto ids = ids_of(line);
        if (!ids) return ids.error();
        std::string said;
        if (const p4::status ok = text->decode(*ids, {.skip_special = o.skip_special}, said); !ok) return ok.error();
        return json{{"text", said}};
    });
}

/// What the templates take of a message: Hugging Face's, which these follow, join strings and fail on anything else.
p4::result<std::string> text_of_message(const p4::json_value& message, const char* key) {
    const auto place = message.find(key);
    if (place != message.end() && place->is_string()) return *place->get_ptr<const std::string*>();
    if (place == message.end()) return p4::error::format(p4::errc::json_missing_key, "no key '%s': want a string", key);
    const char* const advice = std::string_view(key) == "tools" ? ": give the text that the model shall read, such as JSON made by json.dumps"
                               : place->is_array() ? ": this model's template has no parts, join their texts"
                               : place->is_null() ? ": give \"\" for a message without text"
                                                  : "";
    return p4::error::format(p4::errc::json_wrong_type, "'%s': want a string, have %s%s", key, p4::detail::describe(*place).c_str(), advice);
}

/// Messages of a line; the views of the result look into `strings`, which must be empty and outlive it.
p4::result<std::vector<p4::chat_message>> messages_of(const p4::json_value& line, std::vector<std::string>& strings) {
    const auto list = line.find("messages");
    if (list == line.end()) return p4::error::format(p4::errc::json_missing_key, "no key 'messages': want a list of messages");
    if (!list->is_array()) return p4::detail::wrong_type("messages", "a list of messages", *list);
    strings.reserve(3 * list->size());  // never moves: the views look into it
    std::vector<p4::chat_message> messages;
    const auto keep = [&](std::string&& s) { return std::string_view(strings.emplace_back(std::move(s))); };
    for (const p4::json_value& one : *list) {
        const std::string place = "message " + std::to_string(messages.size());
        if (!one.is_object()) return p4::detail::wrong_type("messages", "a list of objects", one);
        auto role = text_of_message(one, "role");
        if (!role) return role.error().in(place);
        auto content = text_of_message(one, "content");
        if (!content) return content.error().in(place);
        p4::chat_message& message = messages.emplace_back(p4::chat_message{keep(std::move(*role)), keep(std::move(*content))});
        const auto tools = one.find("tools");
        if (message.role != "system" || tools == one.end() || tools->is_null()) continue;
        auto said = text_of_message(one, "tools");
        if (!said) return said.error().in(place);
        message.tools = keep(std::move(*said));
    }
    return messages;
}

/// true or false under `key`; `otherwise` where it is absent or null.
p4::result<bool> flag_of(const p4::json_value& line, const char* key, bool otherwise) {
    const auto place = line.find(key);
    if (place == line.end() || place->is_null()) return otherwise;
    if (!place->is_boolean()) return p4::detail::wrong_type(key, "true or false", *place);
    return *place->get_ptr<const bool*>();
}

p4::result<p4::chat_template> template_of(const p4::json_value& line, const std::string& otherwise) {
    const auto place = line.find("template");
    const bool absent = place == line.end() || place->is_null();
    if (!absent && !place->is_string()) return p4::detail::wrong_type("template", "flash or mini_reasoning", *place);
    const std::string& name = absent ? otherwise : *place->get_ptr<const std::string*>();
    if (name == "flash") return p4::chat_template::flash;
    if (name == "mini_reasoning") return p4::chat_template::mini_reasoning;
    return p4::error::format(p4::errc::invalid_argument, "'template': want flash or mini_reasoning, have %s",
                             p4::printable(std::string_view(name).substr(0, 60)).c_str());
}

/// The templates read tools in the system message alone. Whoever gives them beside the messages would not see that they are lost.
p4::status check_tools(const p4::json_value& line) {
    const auto tools = line.find("tools");
    if (tools == line.end() || tools->is_null() || (tools->is_array() && tools->empty())) return {};
    return p4::error::format(p4::errc::invalid_argument,
                             "'tools' beside 'messages': this model's template reads them as a string under 'tools' of a system message");
}

p4::status render(const text_options& o) {
    const auto text = open_tokenizer(o.tokenizer);
    if (!text) return text.error();
    p4::encoder encoder(*text);
    return for_each_line([&](const p4::json_value& line) -> p4::result<json> {
        std::vector<std::string> strings;
        const auto messages = messages_of(line, strings);
        if (!messages) return messages.error();
        if (const p4::status ok = check_tools(line); !ok) return ok.error();
        const auto ask = flag_of(line, "add_generation_prompt", true);
        if (!ask) return ask.error();
        const auto form = template_of(line, o.form);
        if (!form) return form.error();
        p4::chat_options how;
        how.form = *form;
        how.add_generation_prompt = *ask;
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
    CLI::App* tokens = add(app, chosen, o, "tokenize", "Text to ids: JSON Lines {\"text\"} in, {\"ids\"} out", tokenize);
    tokens->add_flag("--no-special", o->no_special, "Markers such as <|end|> in the text are plain text");
    tokens->add_option("--text-file,-f", o->text_file, "One text instead: this file as it is; - for standard input")->type_name("FILE");
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
