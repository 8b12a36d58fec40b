/// Encoding and decoding of a file's text, on one thread.
///
///     PHI4FLASH_TOKENIZER=tokenizer.json PHI4FLASH_TEXT=text.txt benchmark_tokenizer
///
/// Without the variables: the bundled model's tokenizer and this library's README.
#include <phi4flash/phi4flash.hpp>

#include <benchmark/benchmark.h>

#include <cstdlib>

namespace {

namespace p4 = phi4flash;

std::string from_environment(const char* name, const char* otherwise) {
    const char* const value = std::getenv(name);
    return value == nullptr ? otherwise : value;
}

void encode(benchmark::State& state) {
    const auto words = p4::open_tokenizer_json(from_environment("PHI4FLASH_TOKENIZER", "models/tiny-arithmetic"));
    if (!words) return state.SkipWithError(words.error().message());
    const auto text = p4::read_file(from_environment("PHI4FLASH_TEXT", "README.md"), std::size_t{1} << 30);
    if (!text) return state.SkipWithError(text.error().message());
    p4::encoder encoder(*words);
    std::vector<std::int32_t> ids;
    for (auto _ : state) {
        ids.clear();
        if (const auto ok = encoder.encode(*text, {p4::marker_policy::plain_text}, ids); !ok) return state.SkipWithError(ok.error().message());
        benchmark::DoNotOptimize(ids.data());
    }
    state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * text->size()));
    state.counters["tokens"] = static_cast<double>(ids.size());
}

void decode(benchmark::State& state) {
    const auto words = p4::open_tokenizer_json(from_environment("PHI4FLASH_TOKENIZER", "models/tiny-arithmetic"));
    if (!words) return state.SkipWithError(words.error().message());
    const auto text = p4::read_file(from_environment("PHI4FLASH_TEXT", "README.md"), std::size_t{1} << 30);
    if (!text) return state.SkipWithError(text.error().message());
    std::vector<std::int32_t> ids;
    if (const auto ok = words->encode(*text, {p4::marker_policy::plain_text}, ids); !ok) return state.SkipWithError(ok.error().message());
    std::string back;
    for (auto _ : state) {
        back.clear();
        if (const auto ok = words->decode(ids, {}, back); !ok) return state.SkipWithError(ok.error().message());
        benchmark::DoNotOptimize(back.data());
    }
    state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * back.size()));
}

BENCHMARK(encode)->UseRealTime();
BENCHMARK(decode)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
