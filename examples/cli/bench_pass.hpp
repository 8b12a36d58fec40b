#pragma once
/// bench --pass: what a pass of n tokens costs against one of one token, and the longest piece of each.
#include "engine.hpp"

namespace cli {

struct pass_bench {
    std::vector<std::size_t> sizes;
    std::size_t depth;
    std::size_t repetitions;
    bool json;
};

/// Measures and prints. Errors: those of prefill and of passes.
p4::status bench_passes(const p4::model_files& files, engine& runs, const pass_bench& what);

}  // namespace cli
