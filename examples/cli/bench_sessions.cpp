#include "bench_sessions.hpp"

#include "json_lines.hpp"
#include "output.hpp"
#include "series.hpp"
#include "text_table.hpp"

namespace cli {
namespace {

/// So many texts at once.
struct sessions_findings {
    series prompts, written;                  ///< tokens a second, of all together
    series longest_wait;                      ///< seconds
    series arriving, wait_then, longest_then; ///< the same, while a long prompt is read
};

p4::result<sessions_findings> measure(engine& runs, const sessions_bench& what, std::size_t sessions) {
    sessions_work work = what.work;
    work.sessions = sessions;
    sessions_findings found;
    for (std::size_t r = 0; r < what.repetitions; ++r) {
        const auto times = runs.time_sessions(work);
        if (!times) return times.error();
        found.prompts.add(static_cast<double>(sessions * work.prompt) / times->prompt_seconds);
        found.written.add(static_cast<double>(times->tokens) / times->seconds);
        found.longest_wait.add(times->longest_wait);
        found.arriving.add(times->arriving_seconds);
        found.wait_then.add(times->wait_then);
        found.longest_then.add(times->longest_wait_then);
    }
    return found;
}

}  // namespace

p4::status bench_sessions(engine& runs, const sessions_bench& what) {
    const bool arriving = what.work.arriving != 0;
    std::vector<std::string> names{"sessions", text_of("%zu prompt tokens each, tokens/s", what.work.prompt), "written together, tokens/s",
                                   "each, tokens/s", "longest wait, ms"};
    if (arriving) {
        names.push_back(text_of("a prompt of %zu comes: first token, s", what.work.arriving));
        names.insert(names.end(), {"the others wait, ms", "at most, ms"});
    }
    grid table(names);
    json rows = json::array();
    for (const std::size_t sessions : what.counts) {
        const auto found = measure(runs, what, sessions);
        if (!found) return found.error();
        const auto ms = [](const series& s) { return text_of("%.1f", 1e3 * s.median()); };
        std::vector<std::string> row{std::to_string(sessions), text_of("%.1f", found->prompts.median()), text_of("%.2f", found->written.median()),
                                     text_of("%.2f", found->written.median() / static_cast<double>(sessions)), ms(found->longest_wait)};
        json object{{"sessions", sessions},
                    {"prompt_tokens_per_second", found->prompts.median()},
                    {"tokens_per_second", found->written.median()},
                    {"longest_wait_seconds", found->longest_wait.median()}};
        if (arriving) {
            row.insert(row.end(), {text_of("%.2f", found->arriving.median()), ms(found->wait_then), ms(found->longest_then)});
            object["arriving_seconds"] = found->arriving.median();
            object["wait_then_seconds"] = found->wait_then.median();
            object["longest_wait_then_seconds"] = found->longest_then.median();
        }
        table.row(row);
        rows.push_back(std::move(object));
    }
    if (what.json) {
        print(json{{"target", runs.kernels().name},
                   {"threads", runs.threads().concurrency()},
                   {"prompt_tokens", what.work.prompt},
                   {"arriving_tokens", what.work.arriving},
                   {"prompt_rows", what.work.how.prompt_rows},
                   {"longest_tick_seconds", what.work.how.longest_tick},
                   {"sessions", std::move(rows)}});
    } else {
        table.print();
    }
    return {};
}

}  // namespace cli
