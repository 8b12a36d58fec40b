/// phi4flash: runs SambaY models from the command line. Each subcommand is a file of its own.
#include "bundled_model.hpp"
#include "command.hpp"
#include "empty_values.hpp"
#include "help_format.hpp"
#include "numbers.hpp"
#include "output.hpp"
#include "stop_signals.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <sstream>

namespace {

int fail(std::string sentence) {
    std::ranges::replace(sentence, '\n', ' ');
    std::fprintf(stderr, "phi4flash: %s\n", sentence.c_str());
    return 1;
}

/// What the program says in the end: what went wrong first, else whether all of its output arrived.
int finish(const cli::p4::status& ok) {
    const cli::p4::status written = cli::standard_output.finish();
    if (!ok) return fail(ok.error().message());
    return written ? 0 : fail(written.error().message());
}

int run(int argc, char** argv) {
    CLI::App app("Runs Phi-4-mini-flash-reasoning and other SambaY models on the CPU.", "phi4flash");
    app.set_version_flag("--version", "phi4flash " PHI4FLASH_VERSION_STRING);
    app.formatter(std::make_shared<cli::help_format>());
    app.require_subcommand(1);
    cli::action chosen;
    cli::add_chat(app, chosen);
    cli::add_generate(app, chosen);
    cli::add_text_tools(app, chosen);
    cli::add_logits(app, chosen);
    cli::add_info(app, chosen);
    cli::add_synth(app, chosen);
    cli::add_bench(app, chosen);
    cli::add_convert(app, chosen);
    cli::add_quality(app, chosen);
    if (argc > 1 && argv[1][0] != '-' && app.get_subcommands([&](CLI::App* known) { return known->get_name() == argv[1]; }).empty())
        return fail("no subcommand '" + std::string(argv[1]) + "' (try phi4flash --help)");
    cli::read_numbers_in_decimal(app);
    cli::refuse_empty_values(app);
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& asked) {
        std::ostringstream text;
        app.exit(asked, text, text);  // --help, --version
        cli::standard_output.write(text.str());
        return finish({});
    } catch (const CLI::ParseError& wrong) {
        return fail(std::string(wrong.what()) + " (try phi4flash --help)");
    }
    cli::remember_program(argv[0]);
    const cli::p4::status ok = chosen();
    if (cli::stop_asked()) {
        (void)cli::standard_output.finish();
        cli::obey_stop_signal();
    }
    return finish(ok);
}

}  // namespace

int main(int argc, char** argv) {
    cli::hold_standard_descriptors();
    try {
        return run(argc, argv);
    } catch (const std::exception& unforeseen) {  // of the standard library: out of memory, mostly
        (void)cli::standard_output.finish();
        return fail(unforeseen.what());
    }
}
