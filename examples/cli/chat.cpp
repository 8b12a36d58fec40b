/// chat: a conversation at the terminal, or with lines from a pipe.
#include "conversation.hpp"
#include "output.hpp"
#include "terminal.hpp"
#include "text_table.hpp"

#include <cerrno>
#include <cstdio>
#include <random>

namespace cli {
namespace {

struct chat_settings {
    run_options run;
    sampling_flags sampling;
    std::string system;
};

enum class input : std::uint8_t { line, interrupted, end };

/// One line from standard input. Not std::getline, which would not notice Ctrl-C.
input read_line(std::string& line) {
    line.clear();
    for (int c = 0; (c = std::getc(stdin)) != EOF;) {
        if (c == '\n') return input::line;
        line.push_back(static_cast<char>(c));
    }
    const bool stopped = interrupted.exchange(false);
    std::clearerr(stdin);
    if (stopped) return input::interrupted;
    return line.empty() ? input::end : input::line;
}

void greet(const opened& model, const engine& runs, const chat_settings& o, bool bundled, const style& s) {
    const auto name = std::filesystem::weakly_canonical(o.run.model).filename().string();
    standard_output.print("%s%s%s%s, %s parameters, room for %zu tokens, %s%s\n", s.strong, name.c_str(), s.plain, s.dim,
                human_count(p4::parameter_count(model.files.config().shape)).c_str(), runs.context(), runs.kernels().name, s.plain);
    standard_output.print("%sCtrl-C stops an answer, Ctrl-D ends, /help says more.%s\n", s.dim, s.plain);
    if (bundled) standard_output.print("%sThis small model adds, subtracts and multiplies. Ask it: What is 347 + 285?%s\n", s.dim, s.plain);
    standard_output.print("\n");
}

void print_help(const style& s) {
    standard_output.print("%s/reset   forget what was said\n/quit    end (also Ctrl-D)\n/help    this\nCtrl-C   stop the answer%s\n\n", s.dim,
                s.plain);
}

void print_answer_line(const answer& a, const style& s) {
    const std::size_t n = a.summary.new_tokens;
    const char* note = "";
    switch (a.summary.reason) {
        case p4::stop_reason::cancelled:
            note = ", stopped";
            break;
        case p4::stop_reason::max_tokens:
            note = ", cut at --max-tokens";
            break;
        case p4::stop_reason::context_full:
            note = ", cut because the context is full: /reset begins anew, --context makes more room";
            break;
        default:
            break;
    }
    if (n > 1 && a.seconds > 0.0) {
        standard_output.print("%s[%zu tokens, %.1f tokens/s%s]%s\n\n", s.dim, n, static_cast<double>(n - 1) / a.seconds, note, s.plain);
    } else {
        standard_output.print("%s[%zu token%s%s]%s\n\n", s.dim, n, n == 1 ? "" : "s", note, s.plain);
    }
}

p4::status talk(conversation& with, const style& s, bool person) {
    bool warned = false;  // of Ctrl-C at the prompt
    for (std::string line;;) {
        if (person) standard_output.print("%s> %s", s.strong, s.plain);
        if (!standard_output.flush()) return standard_output.state();
        const input got = read_line(line);
        if (got == input::end || (got == input::interrupted && (warned || !person))) break;
        if (got == input::interrupted) {
            standard_output.print("\n%sCtrl-C again ends, or Ctrl-D.%s\n", s.dim, s.plain);
            warned = true;
            continue;
        }
        warned = false;
        while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
        if (line.empty()) continue;
        if (line == "/quit" || line == "/exit") return {};
        if (line == "/help") {
            print_help(s);
            continue;
        }
        if (line == "/reset") {
            with.reset();
            standard_output.print("%s[forgotten]%s\n\n", s.dim, s.plain);
            continue;
        }
        interrupted.store(false);
        const auto show = [](const p4::generation_event& event) {
            return standard_output.write(event.text) && standard_output.flush();
        };
        const auto got_answer = with.ask(line, show, [&](std::size_t read, std::size_t total) {
            if (!person || *s.plain == '\0') return;
            if (read < total) standard_output.print("\r%sreading %zu of %zu tokens%s", s.dim, read, total, s.plain);
            if (read == total && total > 128) standard_output.print("\r\033[K");
            standard_output.flush();
        });
        interrupted.store(false);
        if (!got_answer && got_answer.error().code() == p4::errc::context_full) {
            standard_output.print("%s[this does not fit into the context any more: /reset begins anew, --context makes more room]%s\n\n",
                        s.dim, s.plain);
            continue;
        }
        if (!got_answer) return got_answer.error();
        standard_output.print("\n");
        print_answer_line(*got_answer, s);
    }
    if (person) standard_output.print("\n");
    return {};
}

p4::status run(chat_settings o) {
    const bool bundled = o.run.model.empty();
    if (bundled) {
        auto place = default_model();
        if (!place) return place.error();
        o.run.model = std::move(*place);
    }
    const auto model = open_model(o.run.model, o.run.open);
    if (!model) return model.error();
    if (!model->text)
        return p4::error::format(p4::errc::file_not_found, "%s has no tokenizer.json, and chat needs one",
                                 p4::printable(o.run.model).c_str());
    if (o.run.engine.context == 0) o.run.engine.context = usual_context(model->files.config());
    const auto engine = make_engine(model->files, o.run.engine);
    if (!engine) return engine.error();

    if (!o.sampling.seed) o.sampling.seed = std::random_device{}();
    p4::generation_options options = generation_options_of(*model, o.sampling);
    options.cancel = &interrupted;
    conversation with(**engine, *model->text, options, o.system);
    const ctrl_c_guard guard;
    const bool person = is_terminal(0) && is_terminal(1);
    const style s = style::of(1);
    if (person) greet(*model, **engine, o, bundled, s);
    return talk(with, s, person);
}

}  // namespace

void add_chat(CLI::App& app, action& chosen) {
    const auto o = std::make_shared<chat_settings>();
    CLI::App* command = app.add_subcommand("chat", "Talk to a model; without --model to the small one that comes along");
    add_run_options(*command, o->run);
    command->add_option("--system", o->system, "A system message")->type_name("TEXT");
    add_sampling_options(*command, o->sampling);
    command->callback([o, &chosen] { chosen = [o] { return run(*o); }; });
}

}  // namespace cli
