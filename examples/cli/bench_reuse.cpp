#include "bench_reuse.hpp"

#include "json_lines.hpp"
#include "output.hpp"
#include "series.hpp"
#include "text_table.hpp"

#include <chrono>

#if !defined(_WIN32)
#include <unistd.h>
#endif

namespace cli {
namespace {

/// Seconds until the logits after the last token are there.
struct reuse_findings {
    double cold = 0.0;          ///< document and question
    series alone;               ///< the question, by a session that has just read the document
    series cached;              ///< the session comes from the prefix cache
    series restarted;           ///< a new session comes from a file
    std::size_t file_bytes = 0;
    [[nodiscard]] static double limit(const series& alone) { return 1.1 * alone.median() + 0.030; }
};

/// A file that is gone with it.
struct temporary_file {
    std::filesystem::path path;
    ~temporary_file() {
        std::error_code ignored;
        std::filesystem::remove(path, ignored);
    }
};

temporary_file new_name() {
    std::error_code ignored;
    std::filesystem::path folder = std::filesystem::temp_directory_path(ignored);
#if !defined(_WIN32)
    return {folder / ("phi4flash-reuse-" + std::to_string(::getpid()))};
#else
    return {folder / "phi4flash-reuse"};
#endif
}

/// Seconds that `work` takes; its first error sticks.
template <class Work>
double timed(p4::status& outcome, Work&& work) {
    using clock = std::chrono::steady_clock;
    const auto start = clock::now();
    if (outcome) outcome = work();
    return std::chrono::duration<double>(clock::now() - start).count();
}

template <class Result>
p4::status status_of(const Result& r) {
    return r ? p4::status() : p4::status(r.error());
}

p4::status save(engine& runs, const std::filesystem::path& path, std::size_t& bytes) {
    auto file = p4::file_writer::create(path);
    if (!file) return file.error();
    const p4::status ok = runs.write_snapshot([&](std::span<const std::byte> piece) {
        bytes += piece.size();
        return file->write(piece);
    });
    return ok ? file->commit() : ok;
}

p4::status restore(engine& runs, const std::filesystem::path& path) {
    if (const p4::status ok = runs.renew(); !ok) return ok;
    const auto file = p4::mapped_file::open(path, {.populate = true});
    return file ? runs.read_snapshot(file->bytes()) : p4::status(file.error());
}

p4::result<reuse_findings> measure(engine& runs, const reuse_bench& what, std::span<const std::int32_t> text) {
    const auto document = text.first(what.document);
    const auto question = [&](std::size_t r) { return text.subspan(what.document + r * what.question, what.question); };
    const auto read = [&](std::span<const std::int32_t> tokens) { return status_of(runs.prefill(tokens)); };
    const temporary_file saved = new_name();
    reuse_findings found;
    p4::status ok;
    found.cold = timed(ok, [&] { return read(document); });
    if (ok && !runs.keep(document)) ok = p4::error::format(p4::errc::invalid_argument, "the prefix cache has no room for %zu tokens", what.document);
    if (ok) ok = save(runs, saved.path, found.file_bytes);
    found.cold += timed(ok, [&] { return read(question(0)); });
    for (std::size_t r = 0; ok && r <= what.repetitions; ++r) {
        // The state is there before the clock starts: what the question takes by itself.
        if (ok) ok = status_of(runs.go_back(document));
        const double alone = timed(ok, [&] { return read(question(r)); });
        const double cached = timed(ok, [&] {
            const p4::status back = status_of(runs.go_back(document));
            return back ? read(question(r)) : back;
        });
        const double restarted = timed(ok, [&] {
            const p4::status back = restore(runs, saved.path);
            return back ? read(question(r)) : back;
        });
        if (r == 0) continue;  // does not count
        found.alone.add(alone);
        found.cached.add(cached);
        found.restarted.add(restarted);
    }
    if (!ok) return ok.error();
    return found;
}

}  // namespace

p4::status bench_reuse(const p4::model_files& files, engine& runs, const reuse_bench& what) {
    std::vector<std::int32_t> text(what.document + (what.repetitions + 1) * what.question);
    p4::random_stream random(1);
    for (std::int32_t& id : text) id = static_cast<std::int32_t>(random.next() % files.config().shape.vocab);
    const auto found = measure(runs, what, text);
    if (!found) return found.error();
    const double limit = 1e3 * reuse_findings::limit(found->alone);
    if (what.json) {
        print(json{{"document_tokens", what.document},
                   {"question_tokens", what.question},
                   {"cold_seconds", found->cold},
                   {"question_seconds", found->alone.median()},
                   {"cached_seconds", found->cached.median()},
                   {"restarted_seconds", found->restarted.median()},
                   {"file_bytes", found->file_bytes}});
        return {};
    }
    const auto ms = [](double seconds) { return text_of("%10.1f ms", 1e3 * seconds); };
    const auto spread = [&](const series& s) {
        return ms(s.median()) + text_of("   (%.1f to %.1f)", 1e3 * s.lowest(), 1e3 * s.highest());
    };
    text_table table;
    table.heading(text_of("until the first token, a question of %zu tokens about a document of %zu, median of %zu", what.question, what.document,
                          what.repetitions));
    table.row("all of it is read", ms(found->cold));
    table.row("the question alone", spread(found->alone));
    table.row("1.1 times that and 30 ms", text_of("%10.1f ms", limit));
    table.row("from the prefix cache", spread(found->cached));
    table.row(text_of("from a file of %s", human_bytes(static_cast<double>(found->file_bytes)).c_str()), spread(found->restarted));
    table.print();
    return {};
}

}  // namespace cli
