#pragma once
/// bench --replay: how fast a text that is there already would have been written, with drafts and without.
#include "command.hpp"

namespace cli {

struct replay_bench {
    std::string text;                   ///< a file
    std::optional<std::string> prompt;  ///< a file: what the text answers
    std::size_t most = 0;               ///< tokens of the text; 0: all
    bool json = false;
};

/// Opens the model, measures and prints. Errors: those of opening, reading the files, and of passes.
p4::status bench_replay(const run_options& how, const replay_bench& what);

}  // namespace cli
