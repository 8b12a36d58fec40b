#pragma once
/// What a person is told of a text that is not whole.
#include "library.hpp"
#include "text_table.hpp"

namespace cli {

/// Why the text ended before the model ended it; empty where it did, or where a stop string or the reader did.
inline std::string cut_note(const p4::generation_summary& summary, std::size_t context) {
    switch (summary.reason) {
        case p4::stop_reason::max_tokens:
            return text_of("cut after %zu token%s: --max-tokens (-n) allows more", summary.new_tokens,
                           summary.new_tokens == 1 ? "" : "s");
        case p4::stop_reason::context_full:
            return text_of("cut because the context of %zu tokens is full: --context makes more room", context);
        case p4::stop_reason::cancelled:
            return "stopped";
        case p4::stop_reason::stop_token:
        case p4::stop_reason::stop_string:
        case p4::stop_reason::sink:
        case p4::stop_reason::failed:  // of schedulers
            break;
    }
    return {};
}

}  // namespace cli
