/// chat: a conversation at the terminal, or with lines from a pipe.
#include "bundled_model.hpp"
#include "chat_file.hpp"
#include "cut_note.hpp"
#include "history_file.hpp"
#include "input_text.hpp"
#include "line_reader.hpp"
#include "output.hpp"
#include "terminal.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <random>

namespace cli {
namespace {

struct chat_settings {
    run_options run;
    sampling_flags sampling;
    std::string system;
    std::string system_file;
    std::string session;
    std::optional<std::size_t> prefix_cache;  ///< MiB
    bool no_history = false;
};

/// Answers go to standard output; what the program itself has to say goes there only where a person looks at it.
struct voice {
    bool person = is_terminal(0) && is_terminal(1);
    style s = style::of(person ? 1 : 2);

    bool answer(std::string_view text) const { return standard_output.write(text) && standard_output.flush(); }
    void note(const std::string& text) const {
        const std::string line = s.dim + text + s.plain + '\n';
        if (person) {
            answer(line);
        } else {
            std::fputs(line.c_str(), stderr);
        }
    }
};

void greet(const opened& model, const engine& runs, const chat_settings& o, bool bundled, const line_reader& reader, const voice& v) {
    v.answer(v.s.strong + file_name(o.run.model) + v.s.plain);
    v.note(text_of(": %s parameters, room for %zu tokens, %s", human_count(p4::parameter_count(model.files.config().shape)).c_str(),
                   runs.context(), runs.kernels().name));
    if (bundled) v.note("A small model that adds, subtracts and multiplies. Try: What is 347 + 285?");
    v.note(reader.edits() ? "Enter sends, Alt-Enter begins a new line, Ctrl-C stops an answer, Ctrl-D ends,\n/help says more.\n"
                          : "Ctrl-C stops an answer, Ctrl-D ends, /help says more.\n");
}

enum class command : std::uint8_t { none, help, reset, undo, retry, save, quit, unknown };

/// A line such as "/word": letters after the slash, so that paths and fractions are questions.
command command_of(std::string_view line) {
    if (!line.starts_with('/')) return command::none;
    const std::string_view word = line.substr(1, line.find(' ') == line.npos ? line.npos : line.find(' ') - 1);
    const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_'; };
    if (!std::ranges::all_of(word, letter) || line.find('\n') != line.npos) return command::none;
    if (line == "/help" || line == "/") return command::help;
    if (line == "/reset" || line == "/clear" || line == "/new") return command::reset;
    if (line == "/undo") return command::undo;
    if (line == "/retry" || line == "/again") return command::retry;
    if (line == "/save" || line.starts_with("/save ")) return command::save;
    if (line == "/quit" || line == "/exit" || line == "/bye") return command::quit;
    return command::unknown;
}

/// To standard output wherever that leads: it was asked for.
void print_help(const line_reader& reader, const std::string& history, const voice& v) {
    std::string text =
        "/undo        take the last question and its answer back\n"
        "/retry       answer the last question once more\n"
        "/save        keep this chat in the file of --session; /save FILE in another\n"
        "/reset       forget what was said, begin anew\n"
        "/quit        end; so does Ctrl-D\n"
        "/help        this\n"
        "Ctrl-C       stop the answer, or empty the line\n";
    if (reader.edits()) {
        const p4::printable file{std::filesystem::path(history)};
        const std::string kept = history.empty() ? "of this chat" : std::string("kept in ") + file.c_str();
        text += "Alt-Enter    a new line of the same message; pasted lines stay together\n"
                "Up, Ctrl-R   earlier messages, " + kept + '\n';
    }
    text += "A message that begins with a word after a slash needs a space in front.\n\n";
    v.answer((v.person ? v.s.dim : "") + text + (v.person ? v.s.plain : ""));
}

/// What an answer took, and why it ended early.
void print_answer_line(const answer& a, std::size_t context, const voice& v) {
    std::string note = cut_note(a.summary, context);
    if (a.summary.reason == p4::stop_reason::context_full) note += ", /reset begins anew";
    const std::size_t n = a.summary.new_tokens;
    if (!v.person) {
        if (!note.empty()) v.note("phi4flash: note: an answer was " + note);
        return;
    }
    std::string line = text_of("[%zu token%s", n, n == 1 ? "" : "s");
    if (n > 1 && a.seconds > 0.0) line += text_of(", %.1f tokens/s", static_cast<double>(n - 1) / a.seconds);
    if (a.summary.drafted != 0) line += text_of(", %zu of %zu drafts", a.summary.accepted, a.summary.drafted);
    v.note(line + (note.empty() ? "" : ", " + note) + "]\n");
}

/// The chat itself: messages in, answers out, commands between.
class talk {
public:
    talk(conversation& with, engine& runs, line_reader& reader, std::optional<chat_place>& file, std::string history, const voice& v)
        : with_(with), runs_(runs), reader_(reader), file_(file), history_(std::move(history)), v_(v) {}

    /// Until the input ends. Errors: those that no other message would mend; file_unwritable where the chat could not be kept in the end.
    p4::status run() {
        const p4::status ok = read_messages();
        if (is_terminal(0) && ok) v_.note("");
        const p4::status kept = unsaved_ ? save_chat(*file_, runs_, with_) : p4::status();
        return ok ? kept : ok;
    }

private:
    p4::status read_messages() {
        bool warned = false;  // of Ctrl-C at the prompt
        std::size_t number = 0;
        for (std::string message;;) {
            if (const std::string trouble = reader_.warning(); !trouble.empty()) v_.note("phi4flash: note: " + trouble);
            const input got = reader_.read(message);
            if (got == input::end || (got == input::interrupted && (warned || !is_terminal(0)))) return {};
            warned = got == input::interrupted;
            if (warned) v_.note("Ctrl-C again ends, or Ctrl-D.");
            if (got == input::cut)
                v_.note("Not sent: a terminal hands over lines of 4095 bytes at most.\nphi4flash generate --prompt-file FILE reads any length.\n");
            ++number;
            while (!message.empty() && std::string_view(" \t\r\n").find(message.back()) != std::string_view::npos) message.pop_back();
            if (got != input::message || message.empty()) continue;
            if (const p4::status ok = check_utf8(message, text_of("message %zu", number)); !ok) {
                if (!is_terminal(0)) return ok;
                v_.note("Not sent: " + std::string(ok.error().message()) + "\n");
                continue;
            }
            const command asked = command_of(message);
            if (asked == command::quit) return {};
            if (const p4::status ok = obey(asked, message); !ok) return ok;
            if (!standard_output.good()) return standard_output.state();
        }
    }

    p4::status obey(command asked, const std::string& message) {
        switch (asked) {
            case command::help: print_help(reader_, history_, v_); break;
            case command::reset:
                with_.reset();
                unsaved_ = file_.has_value();
                v_.note("[forgotten]\n");
                break;
            case command::undo: return undo();
            case command::retry: return retry();
            case command::save: save(message); break;
            case command::quit: break;
            case command::unknown:
                v_.note("Not sent: there is no command " + std::string(p4::printable(message).c_str()) +
                        ". There are /help, /undo, /retry, /save, /reset and /quit;\na message that begins so needs a space in front.\n");
                break;
            case command::none: reader_.remember(message); return ask(message);
        }
        return {};
    }

    /// Asks the model. Errors: those that no other question would mend.
    p4::status ask(const std::string& message) {
        interrupt_noted.store(false);
        const bool progress = v_.person && *v_.s.plain != '\0';
        bool shown = false;
        const auto erase_progress = [&] {
            if (std::exchange(shown, false)) v_.answer("\r\033[K");
        };
        const auto show = [&](const p4::generation_event& event) {
            erase_progress();
            reader_.keys().collect();
            return v_.answer(event.text);
        };
        const auto got = with_.ask(message, show, [&](std::size_t read, std::size_t total) {
            reader_.keys().collect();
            if (!progress || read >= total) return;
            v_.answer(text_of("\r%sreading %zu of %zu tokens, Ctrl-C stops%s", v_.s.dim, read, total, v_.s.plain));
            shown = true;
        });
        erase_progress();
        interrupt_noted.store(false);
        if (!got && got.error().code() == p4::errc::context_full) {
            v_.note(text_of("Not sent: it does not fit into the context of %zu tokens any more.\n/reset begins anew, --context makes more room.\n",
                            runs_.context()));
            return {};
        }
        if (!got) return got.error();
        if (got->summary.reason == p4::stop_reason::cancelled && got->summary.new_tokens == 0) {
            v_.note("[stopped before the answer: this message is dropped]\n");
            return {};
        }
        if (!v_.answer(v_.person ? "\n" : "\n\n")) return standard_output.state();
        print_answer_line(*got, runs_.context(), v_);
        keep();
        return {};
    }

    /// What can be taken back, in the few words that tell it from others.
    static std::string shortened(const std::string& question) {
        constexpr std::size_t most = 60;
        std::string text = p4::printable(question).c_str();
        if (text.size() <= most) return text;
        text.resize(p4::valid_utf8_prefix(std::string_view(text).substr(0, most)));
        return text + "...";
    }

    p4::status undo() {
        if (with_.said().turns.empty()) {
            v_.note("There is nothing to take back.\n");
            return {};
        }
        const std::string question = with_.said().turns.back().question;
        if (const p4::status ok = with_.take_back(); !ok) return ok;
        v_.note("[taken back: " + shortened(question) + "]\n");
        unsaved_ = file_.has_value();
        return {};
    }

    p4::status retry() {
        if (with_.said().turns.empty()) {
            v_.note("There is no question to answer once more.\n");
            return {};
        }
        const std::string question = with_.said().turns.back().question;
        if (const p4::status ok = with_.take_back(); !ok) return ok;
        unsaved_ = file_.has_value();
        return ask(question);
    }

    /// The chat after an answer, so that whatever ends the program ends no chat.
    void keep() {
        if (!file_) return;
        const p4::status ok = save_chat(*file_, runs_, with_);
        unsaved_ = !ok;
        if (!ok) v_.note("phi4flash: note: this chat could not be kept: " + std::string(ok.error().message()));
    }

    void save(std::string_view message) {
        message.remove_prefix((std::min)(message.size(), std::string_view("/save ").size()));
        const std::filesystem::path to(std::u8string(message.begin(), message.end()));
        if (to.empty() && !file_) {
            v_.note("Where? /save FILE, or begin with --session FILE.\n");
            return;
        }
        const bool here = file_ && (to.empty() || file_->is(to));
        const p4::status ok = here ? save_chat(*file_, runs_, with_) : save_elsewhere(to);
        if (ok && here) unsaved_ = false;
        const p4::printable name(here ? file_->path() : to);
        v_.note(ok ? "[kept in " + std::string(name.c_str()) + "]\n" : "Not kept: " + std::string(ok.error().message()) + "\n");
    }

    p4::status save_elsewhere(const std::filesystem::path& to) {
        if (const p4::status ok = check_chat_file(to); !ok) return ok;
        auto place = chat_place::take(to);
        return place ? save_chat(*place, runs_, with_) : p4::status(place.error());
    }

    conversation& with_;
    engine& runs_;
    line_reader& reader_;
    std::optional<chat_place>& file_;  // of --session
    std::string history_;
    const voice& v_;
    bool unsaved_ = false;
};

/// Goes on from the file of --session, where there is one. Errors: those of load_chat; invalid_argument (another system message).
p4::status go_on(conversation& with, const chat_settings& o, const voice& v) {
    if (o.session.empty()) return {};
    const auto loaded = load_chat(o.session, with);
    if (!loaded) return loaded.error();
    if (!*loaded) return {};
    if (!o.system.empty() && o.system != with.said().system)
        return p4::error::format(p4::errc::invalid_argument,
                                 "%s goes on with a system message of its own: leave this one out, or want another --session",
                                 p4::printable(o.session).c_str());
    const std::size_t n = with.said().turns.size();
    if (n != 0) v.note(text_of("[goes on after %zu answer%s, %zu tokens]\n", n, n == 1 ? "" : "s", with.said().tokens.size()));
    return {};
}

p4::status run(chat_settings o) {
    const bool bundled = o.run.model.empty();
    if (bundled) {
        auto place = bundled_model();
        if (!place) return place.error();
        o.run.model = std::move(*place);
    }
    if (const p4::status ok = check_utf8(o.system, "--system"); !ok) return ok;
    if (!o.system_file.empty()) {
        auto text = read_text(o.system_file);
        if (!text) return text.error();
        o.system = std::move(*text);
    }
    std::optional<chat_place> file;
    if (!o.session.empty()) {
        if (const p4::status ok = check_chat_file(o.session); !ok) return ok;
        auto place = chat_place::take(o.session);
        if (!place) return place.error();
        file.emplace(std::move(*place));
    }
    const voice v;
    const std::string history = o.no_history ? "" : usual_history_file();
    const auto reader = make_line_reader({.colour = v.s.strong, .plain = v.s.plain, .history_file = history});
    const auto model = open_model(o.run.model, o.run.open, weights_for::running);
    if (!model) return model.error();
    if (!model->text)
        return p4::error::format(p4::errc::file_not_found, "%s has no tokenizer.json, and chat needs one",
                                 p4::printable(o.run.model).c_str());
    if (o.run.engine.context == 0) o.run.engine.context = usual_context(model->files.config());
    constexpr std::size_t usual_cache = 256;
    o.run.engine.prefix_cache = o.prefix_cache.value_or(usual_cache) << 20;
    o.run.engine.prefix_cache_may_miss = !o.prefix_cache;
    const auto engine = make_engine(model->files, o.run.engine);
    if (!engine) return engine.error();

    if (!o.sampling.seed) o.sampling.seed = std::random_device{}();
    auto options = generation_options_of(*model, o.sampling);
    if (!options) return options.error();
    options->cancel = &interrupt_noted;
    conversation with(**engine, *model->text, *options, o.system);
    reader->keys().note_interrupts();
    if (v.person) greet(*model, **engine, o, bundled, *reader, v);
    if (const p4::status ok = go_on(with, o, v); !ok) return ok;
    return talk(with, **engine, *reader, file, history, v).run();
}

}  // namespace

void add_chat(CLI::App& app, action& chosen) {
    const auto o = std::make_shared<chat_settings>();
    CLI::App* command = app.add_subcommand("chat", "Talk to a model; without --model to the small one that comes along");
    add_run_options(*command, o->run);
    auto* system = command->add_option("--system", o->system, "A system message")->type_name("TEXT");
    command->add_option("--system-file", o->system_file, "The same from a file")->type_name("FILE")->excludes(system);
    command->add_option("--session", o->session, "Go on with the chat in this file, and keep it there")->type_name("FILE");
    command->add_option("--prefix-cache", o->prefix_cache, "MiB for what has been read, so that /undo and /retry need not read it again (256)")
        ->type_name("MIB")
        ->check(CLI::Range(0, 1 << 20));
    command->add_flag("--no-history", o->no_history, "Keep no messages for the next chat");
    add_drafts_option(*command, o->run.engine);
    add_sampling_options(*command, o->sampling);
    command->callback([o, &chosen] { chosen = [o] { return run(*o); }; });
}

}  // namespace cli
