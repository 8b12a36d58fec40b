// One of several files that are compiled differently and linked into one program, or loaded into one process (see mixed_units.cpp).
// Every answer depends on a switch; each is compared with what this file's own switches make of it.
#include <phi4flash/core/thread_pool.hpp>
#include <phi4flash/io/model_files.hpp>
#include <phi4flash/kernels/dispatch.hpp>

#include "unit.hpp"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#define PHI4FLASH_UNIT_TEXT_(x) #x
#define PHI4FLASH_UNIT_TEXT(x) PHI4FLASH_UNIT_TEXT_(x)

namespace {

namespace p4 = phi4flash;

void complain(unit_report& report, const char* what, const char* have) {
    const std::size_t used = std::strlen(report.wrong);
    std::snprintf(report.wrong + used, sizeof report.wrong - used, "%s: %s; ", what, have);
}

/// Kernels: the back end, the instruction set, and arithmetic.
void check_softmax(unit_report& report) {
    constexpr std::size_t n = 37;
    float x[n];
    double want[n];
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) {
        x[i] = static_cast<float>(i % 11) * 0.5f - static_cast<float>(i) * 0.1f;
        sum += want[i] = std::exp(static_cast<double>(x[i]));
    }
    p4::best_kernels({.matrix_tiles = false}).softmax(x, n, 1.0f);
    for (std::size_t i = 0; i < n; ++i)
        if (!(std::fabs(static_cast<double>(x[i]) - want[i] / sum) <= 1e-6)) return complain(report, "softmax", "another number");
}

/// A layout that another version has otherwise (tests/builds/CMakeLists.txt makes it).
void check_error(unit_report& report) {
    const std::vector<char> text(2000, 'x');
    const p4::error long_one = p4::error::format(p4::errc::in_use, "%.*s", static_cast<int>(text.size()), text.data());
    const std::size_t want = sizeof(p4::error) - sizeof(p4::errc) - 1;
    if (std::strlen(long_one.message()) != want) complain(report, "error", "a sentence of another length");
}

/// JSON, the standard library's layouts, exceptions.
void check_files(unit_report& report, const char* folder) {
    const auto files = p4::model_files::open(folder);
#if PHI4FLASH_HAS_JSON
    if (!files) return complain(report, "model_files", files.error().message());
    if (files->tensors().empty() || !files->has_tokenizer() || files->config().shape.vocab == 0) complain(report, "model_files", "nothing in them");
    if (files->path() != folder) complain(report, "model_files", "another path");
    const auto text = files->open_tokenizer();
    if (!text) return complain(report, "tokenizer", text.error().message());
    if (text->vocab_size() > files->config().shape.vocab) complain(report, "tokenizer", "another size");
#else
    if (files) return complain(report, "model_files", "a folder was opened without JSON");
    if (std::strstr(files.error().message(), "PHI4FLASH_HAS_JSON=1") == nullptr) complain(report, "model_files", files.error().message());
#endif
}

void check_threads(unit_report& report) {
    auto pool = p4::thread_pool::create(2);
    if (!pool) return complain(report, "thread_pool", pool.error().message());
    std::atomic<std::size_t> covered = 0;
    p4::executor_ref(*pool).parallel_for(100, 1, [&](std::size_t begin, std::size_t end) { covered += end - begin; });
    if (covered != 100) complain(report, "thread_pool", "not every item");
}

}  // namespace

/// Fills the report; `folder` holds a model.
extern "C" void PHI4FLASH_UNIT(unit_report& report, const char* folder);
extern "C" void PHI4FLASH_UNIT(unit_report& report, const char* folder) {
    report.abi = PHI4FLASH_UNIT_TEXT(PHI4FLASH_ABI);
    report.wrong[0] = '\0';
    check_softmax(report);
    check_error(report);
    check_files(report, folder);
    check_threads(report);
}
