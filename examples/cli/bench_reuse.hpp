#pragma once
/// bench --reuse: what a second question about a document that was read costs, in the same program and after a restart.
#include "command.hpp"

namespace cli {

struct reuse_bench {
    std::size_t document = 8192;   ///< tokens
    std::size_t question = 64;     ///< tokens
    std::size_t repetitions = 5;
    bool json = false;
};

/// Reads a document and a question, then the document and others. The engine has a prefix cache and a context for all of it.
/// Errors: those of reading; file_unwritable where there is no room for the saved session in the folder for temporary files.
p4::status bench_reuse(const p4::model_files& files, engine& runs, const reuse_bench& what);

}  // namespace cli
