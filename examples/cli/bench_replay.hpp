#pragma once
/// bench --replay: how fast texts that are there already would have been written, with drafts and without.
#include "command.hpp"

namespace cli {

struct replay_bench {
    std::vector<std::string> texts;    ///< files; each finds what the drafter knows of those before it
    std::vector<std::string> prompts;  ///< files: what each text answers; none, or as many
    std::size_t most = 0;              ///< tokens of a text; 0: all
    bool json = false;
};

/// Opens the model, measures and prints. Errors: those of opening, reading the files, and of passes.
p4::status bench_replay(const run_options& how, const replay_bench& what);

}  // namespace cli
