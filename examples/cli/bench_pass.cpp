#include "bench_pass.hpp"

#include "json_lines.hpp"
#include "output.hpp"
#include "series.hpp"
#include "text_table.hpp"

namespace cli {
namespace {

/// Passes of one size: with logits after every token, as drafts and evaluation want them, and with none, as a part of a prompt.
struct pass_findings {
    std::size_t tokens = 0;
    std::size_t pieces = 0;
    series checked, checked_piece, part, part_piece;  ///< seconds
};

p4::status measure(engine& runs, std::span<const std::int32_t> text, std::size_t repetitions, pass_findings& found) {
    const auto tokens = text.first(found.tokens);
    for (std::size_t r = 0; r <= repetitions; ++r) {
        const auto checked = runs.time_pass(tokens, tokens.size());
        if (!checked) return checked.error();
        const auto part = runs.time_pass(tokens, 0);
        if (!part) return part.error();
        if (r == 0) continue;  // does not count
        found.pieces = checked->pieces;
        found.checked.add(checked->seconds);
        found.checked_piece.add(checked->longest_piece);
        found.part.add(part->seconds);
        found.part_piece.add(part->longest_piece);
    }
    return {};
}

}  // namespace

p4::status bench_passes(const p4::model_files& files, engine& runs, const pass_bench& what) {
    std::vector<std::int32_t> text(std::max(what.depth, std::ranges::max(what.sizes)));
    p4::random_stream random(1);
    for (std::int32_t& id : text) id = static_cast<std::int32_t>(random.next() % files.config().shape.vocab);
    if (what.depth != 0)
        if (const auto read = runs.prefill(std::span<const std::int32_t>(text).first(what.depth)); !read) return read.error();

    double one = 0.0;
    grid table({"tokens", "all logits, ms", "of the first", "longest of n pieces, ms", "part of a prompt, ms", "longest piece, ms"});
    json rows = json::array();
    for (const std::size_t size : what.sizes) {
        pass_findings found;
        found.tokens = size;
        if (const p4::status ok = measure(runs, text, what.repetitions, found); !ok) return ok;
        if (one == 0.0) one = found.checked.median();
        const auto ms = [](const series& s) { return text_of("%.2f", 1e3 * s.median()); };
        table.row({std::to_string(size), ms(found.checked), text_of("%.2f", found.checked.median() / one),
                   text_of("%.2f of %zu", 1e3 * found.checked_piece.median(), found.pieces), ms(found.part), ms(found.part_piece)});
        rows.push_back(json{{"tokens", size},
                            {"seconds", found.checked.median()},
                            {"pieces", found.pieces},
                            {"longest_piece_seconds", found.checked_piece.median()},
                            {"prompt_seconds", found.part.median()},
                            {"longest_prompt_piece_seconds", found.part_piece.median()}});
    }
    if (what.json) {
        print(json{{"target", runs.kernels().name}, {"threads", runs.threads().concurrency()}, {"depth", what.depth}, {"passes", rows}});
    } else {
        table.print();
    }
    return {};
}

}  // namespace cli
