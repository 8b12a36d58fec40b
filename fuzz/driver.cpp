/// Runs an entry without libFuzzer, for any compiler.
///
///     fuzz ENTRY [--mutate N] [--seed S] FILE|FOLDER...    every file once, then N mutations of them; what fails is left in ./failed-ENTRY
///
/// An input may take 25 seconds of processor time, and as much memory as its entry says.
#include "fuzz.hpp"

#include <csignal>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#define PHI4FLASH_FUZZ_ENTRY(name) extern "C" int phi4flash_fuzz_entry_##name(const std::uint8_t* data, std::size_t size);
#include "entries.inc"
#undef PHI4FLASH_FUZZ_ENTRY

namespace {

using content = std::vector<std::uint8_t>;

struct entry {
    std::string name;
    int (*run)(const std::uint8_t*, std::size_t);
};
const entry entries[] = {
#define PHI4FLASH_FUZZ_ENTRY(name) {#name, &phi4flash_fuzz_entry_##name},
#include "entries.inc"
#undef PHI4FLASH_FUZZ_ENTRY
};

constexpr double most_seconds = 25.0;  // as tools/fuzz.sh allows: nothing comes near it but what does not end

/// What is being run, for the handler of a signal: a file to look at afterwards.
struct {
    const std::uint8_t* data = nullptr;
    std::size_t size = 0;
    std::string file;
} current;

void keep_input() {
    if (current.file.empty()) return;
    std::ofstream(current.file, std::ios::binary).write(reinterpret_cast<const char*>(current.data), static_cast<std::streamsize>(current.size));
    std::fprintf(stderr, "the input is in %s\n", current.file.c_str());
    current.file.clear();
}
extern "C" void on_abort(int) {
    keep_input();
    std::_Exit(1);
}

void run(const entry& e, const content& bytes) {
    // A block that ends where the input ends.
    const std::unique_ptr<std::uint8_t[]> exact(new std::uint8_t[bytes.size()]);
    std::copy(bytes.begin(), bytes.end(), exact.get());
    current.data = exact.get();
    current.size = bytes.size();
    const std::clock_t start = std::clock();
    (void)e.run(exact.get(), bytes.size());
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    if (seconds <= most_seconds) return;
    std::fprintf(stderr, "time: want at most %g seconds of processor time for an input of %zu bytes, have %g\n", most_seconds, bytes.size(), seconds);
    std::abort();
}

content read_file(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// A few changes: bytes, bits, numbers that are often wrong, pieces that go, come twice, or come from another input.
content mutated(content bytes, const std::vector<content>& corpus, std::mt19937_64& random) {
    const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
    for (std::size_t changes = 1 + below(4); changes > 0; --changes) {
        const std::size_t at = bytes.empty() ? 0 : below(bytes.size());
        const std::size_t length = bytes.empty() ? 0 : 1 + below((std::min)(bytes.size() - at, std::size_t{64}));
        const auto from = bytes.begin() + static_cast<std::ptrdiff_t>(at);
        switch (bytes.empty() ? 4 : below(7)) {
            case 0: *from = static_cast<std::uint8_t>(random()); break;
            case 1: *from ^= static_cast<std::uint8_t>(1u << below(8)); break;
            case 2: {
                constexpr std::uint64_t odd[] = {0,      1,          0x7f,       0x80,       0xff,              0x7fff,
                                                 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, ~std::uint64_t{0}, std::uint64_t{1} << 63};
                const std::uint64_t number = odd[below(std::size(odd))];
                std::memcpy(&*from, &number, (std::min)(bytes.size() - at, std::size_t{1} << below(4)));
                break;
            }
            case 3: bytes.erase(from, from + static_cast<std::ptrdiff_t>(length)); break;
            case 4: {
                const content& other = corpus[below(corpus.size())];
                if (other.empty()) break;
                const std::size_t begin = below(other.size());
                const std::size_t count = 1 + below((std::min)(other.size() - begin, std::size_t{256}));
                bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), other.begin() + static_cast<std::ptrdiff_t>(begin),
                             other.begin() + static_cast<std::ptrdiff_t>(begin + count));
                break;
            }
            case 5: {
                const content piece(from, from + static_cast<std::ptrdiff_t>(length));
                bytes.insert(from, piece.begin(), piece.end());
                break;
            }
            default: bytes.resize(at); break;
        }
    }
    return bytes;
}

int usage() {
    std::fprintf(stderr, "fuzz: want ENTRY [--mutate N] [--seed S] FILE|FOLDER...; entries:");
    for (const entry& e : entries) std::fprintf(stderr, " %s", e.name.c_str());
    std::fprintf(stderr, "\n");
    return 2;
}

}  // namespace

int main(int argc, char** argv) {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    if (arguments.size() < 2) return usage();
    const auto* const chosen = std::find_if(std::begin(entries), std::end(entries), [&](const entry& e) { return e.name == arguments[0]; });
    if (chosen == std::end(entries)) return usage();

    std::uint64_t mutations = 0, seed = 1;
    std::vector<std::filesystem::path> files;
    for (std::size_t i = 1; i < arguments.size(); ++i) {
        const bool is_number = arguments[i] == "--mutate" || arguments[i] == "--seed";
        if (is_number && i + 1 == arguments.size()) return usage();
        if (is_number) {
            (arguments[i] == "--mutate" ? mutations : seed) = std::strtoull(arguments[i + 1].c_str(), nullptr, 10);
            ++i;
        } else if (std::filesystem::is_directory(arguments[i])) {
            for (const auto& file : std::filesystem::directory_iterator(arguments[i])) files.push_back(file.path());
        } else if (std::filesystem::is_regular_file(arguments[i])) {
            files.emplace_back(arguments[i]);
        } else {
            return std::fprintf(stderr, "fuzz: no file or folder %s\n", arguments[i].c_str()), 2;
        }
    }
    std::sort(files.begin(), files.end());
    std::signal(SIGABRT, &on_abort);  // sanitizers end by it too: ASAN_OPTIONS=abort_on_error=1
    std::vector<content> corpus;
    for (const auto& file : files) {
        corpus.push_back(read_file(file));
        std::fprintf(stderr, "%s: %zu bytes", file.filename().string().c_str(), corpus.back().size());
        run(*chosen, corpus.back());
        std::fprintf(stderr, ", %zu bytes of memory at most\n", fuzz::most_memory());
    }
    if (corpus.empty()) return std::fprintf(stderr, "fuzz: no files\n"), 2;
    std::mt19937_64 random(seed);
    for (std::uint64_t i = 0; i < mutations; ++i) {
        const content bytes = mutated(corpus[static_cast<std::size_t>(random() % corpus.size())], corpus, random);
        current.file = "failed-" + chosen->name;
        run(*chosen, bytes);
        current.file.clear();
    }
    std::fprintf(stderr, "%s: %zu files, %llu mutations\n", chosen->name.c_str(), corpus.size(), static_cast<unsigned long long>(mutations));
    return 0;
}
