#pragma once
/// bench --sessions: many texts written in the same passes: tokens a second of all together, and how long each waits for the next.
#include "engine.hpp"

namespace cli {

struct sessions_bench {
    std::vector<std::size_t> counts;
    sessions_work work;  ///< of each; `sessions` is not looked at
    std::size_t repetitions;
    bool json;
};

/// Measures and prints. Errors: those of engine::time_sessions.
p4::status bench_sessions(engine& runs, const sessions_bench& what);

}  // namespace cli
