/// What a system does rarely and may do always: calls that a signal interrupts or that do a part, files that become shorter between two of
/// them, maps that are refused. The calls of this program are answered here.
#include "io/io_testing.hpp"

#include <model/golden.hpp>

#include <phi4flash/io/file/file_writer.hpp>
#include <phi4flash/io/file/mapped_file.hpp>
#include <phi4flash/io/file/read_file.hpp>
#include <phi4flash/io/model_files.hpp>

// Sanitizers and fortified headers have calls of their own in these places.
#if defined(__linux__) && defined(__LP64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(_FILE_OFFSET_BITS) && \
    !defined(_FORTIFY_SOURCE)
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cstdarg>

using namespace phi4flash;
using namespace io_testing;

namespace {

/// How the calls are answered while one of these lives.
struct answers {
    answers() { now = this; }
    ~answers() { now = nullptr; }
    answers(const answers&) = delete;
    answers& operator=(const answers&) = delete;

    bool interrupts = false;                // every other call, and the others do a half
    std::filesystem::path shortened;        // at its first reading, to one byte
    int memory = 0, shared = 0, whole = 0;  // errno for maps of memory, shared ones of files, and all of files; 0: allowed
    int calls = 0, interrupted = 0;

    static answers* now;
};
answers* answers::now = nullptr;

bool is_interrupted() {
    answers* const how = answers::now;
    if (how == nullptr || !how->interrupts || ++how->calls % 2 == 0) return false;
    ++how->interrupted;
    errno = EINTR;
    return true;
}
bool is_same_file(int fd, const std::filesystem::path& path) {
    struct stat a {}, b {};
    return ::fstat(fd, &a) == 0 && ::stat(path.c_str(), &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}
std::size_t some_of(std::size_t n) { return answers::now != nullptr && answers::now->interrupts ? (n + 1) / 2 : n; }

}  // namespace

extern "C" {
ssize_t pread(int fd, void* place, std::size_t n, off_t offset) {
    if (is_interrupted()) return -1;
    if (answers::now != nullptr && !answers::now->shortened.empty() && is_same_file(fd, answers::now->shortened)) {
        (void)!::truncate(answers::now->shortened.c_str(), 1);
        answers::now->shortened.clear();
    }
    return ::syscall(SYS_pread64, fd, place, some_of(n), offset);
}
ssize_t write(int fd, const void* bytes, std::size_t n) { return is_interrupted() ? -1 : ::syscall(SYS_write, fd, bytes, some_of(n)); }
int fsync(int fd) { return is_interrupted() ? -1 : static_cast<int>(::syscall(SYS_fsync, fd)); }
int close(int fd) {
    const auto closed = static_cast<int>(::syscall(SYS_close, fd));  // Linux: interrupted, but closed
    return is_interrupted() ? -1 : closed;
}
int open(const char* path, int flags, ...) {
    if (is_interrupted()) return -1;
    std::va_list more;
    va_start(more, flags);
    const unsigned mode = (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(more, unsigned) : 0;
    va_end(more);
    return static_cast<int>(::syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}
void* mmap(void* place, std::size_t n, int protection, int flags, int fd, off_t offset) noexcept {
    int why = 0;
    if (const answers* const how = answers::now; how != nullptr) {
        why = fd < 0 ? how->memory : how->whole;
        if (fd >= 0 && (flags & MAP_SHARED) != 0 && how->shared != 0) why = how->shared;
    }
    if (why == 0) return reinterpret_cast<void*>(::syscall(SYS_mmap, place, n, protection, flags, fd, offset));
    errno = why;
    return MAP_FAILED;
}
}

namespace {

std::string some_text(std::size_t size) {
    std::string text(size, '\0');
    for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>('a' + i * 31 / 7 % 26);
    return text;
}

}  // namespace

TEST_CASE("io/interrupted: a file is written whole, whatever signals come and however little is written at once") {
    const std::string content = some_text(2 * huge_page_bytes + 12345);
    for (const bool nameless : {true, false}) {
        for (const bool replaces : {true, false}) {
            CAPTURE(nameless);
            CAPTURE(replaces);
            const temporary_folder folder;
            const auto path = replaces ? folder.write("a.bin", "before") : folder.path() / "a.bin";
            int interrupted = 0;
            {
                answers how;
                how.interrupts = true;
                auto file = file_writer::create(path, nameless);
                require_value(file);
                for (std::size_t at = 0; at < content.size(); at += 1000000) REQUIRE(file->write(std::string_view(content).substr(at, 1000000)));
                const status ok = file->commit();
                interrupted = how.interrupted;
                require_value(ok);
            }
            CHECK(interrupted > 20);
            const auto text = read_file(path, content.size());
            require_value(text);
            CHECK((*text == content));
            CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1);
        }
    }
}

TEST_CASE("io/interrupted: a file is read whole, whatever signals come and however little is read at once") {
    const temporary_folder folder;
    const std::string content = some_text(huge_page_bytes + 4321);
    const auto path = folder.write("a.bin", content);
    answers how;
    how.interrupts = true;
    const auto text = read_file(path, content.size());
    require_value(text);
    CHECK((*text == content));
    CHECK(how.interrupted > 10);
    const auto file = mapped_file::open(path, {.copy = true});
    require_value(file);
    CHECK(file->is_copy());
    CHECK((file->text() == content));
    CHECK(how.interrupted > 20);
}

TEST_CASE("io/interrupted: what is written in place may wait for a reader, and a signal ends that") {
    int pipe[2] = {-1, -1};
    REQUIRE(::pipe(pipe) == 0);
    {
        auto file = file_writer::create("/proc/self/fd/" + std::to_string(pipe[1]));
        require_value(file);
        REQUIRE(file->write("hello"));
        answers how;
        how.interrupts = true;
        check_error(file->commit(), errc::file_unwritable, {std::strerror(EINTR)});
        check_error(file->write("more"), errc::file_unwritable, {std::strerror(EINTR)});
    }
    ::close(pipe[1]);
    char left = 0;
    CHECK(::read(pipe[0], &left, 1) == 0);
    ::close(pipe[0]);
}

#if PHI4FLASH_HAS_JSON
TEST_CASE("io/interrupted: a small file that becomes shorter while it is read is refused, and raises no signal") {
    for (const char* const name : {"config.json", "generation_config.json", "model.safetensors.index.json", "tokenizer.json"}) {
        CAPTURE(name);
        const temporary_folder folder;
        for (const auto& file : std::filesystem::directory_iterator(golden::folder_of("bf16-12l-sharded")))
            std::filesystem::copy_file(file.path(), folder.path() / file.path().filename());
        folder.write("generation_config.json", R"({"temperature": 0.5})");
        const auto words = std::filesystem::path(PHI4FLASH_TEST_MODELS) / "tiny-arithmetic" / "tokenizer.json";
        std::filesystem::copy_file(words, folder.path() / "tokenizer.json");
        require_value(model_files::open(folder.path()));
        require_value(open_tokenizer_json(folder.path()));
        answers how;
        how.shortened = folder.path() / name;
        const auto refused = std::string_view(name) == "tokenizer.json" ? status(open_tokenizer_json(folder.path()).error())
                                                                        : status(model_files::open(folder.path()).error());
        check_error(refused, errc::file_unreadable, {name, "it became shorter meanwhile"});
        CHECK(how.shortened.empty());
    }
}
#endif

TEST_CASE("io/interrupted: a copy that becomes shorter is refused") {
    const temporary_folder folder;
    const auto path = folder.write("a.bin", some_text(100000));
    answers how;
    how.shortened = path;
    check_error(mapped_file::open(path, {.copy = true}), errc::file_unreadable, {"a.bin", "shorter"});
}

TEST_CASE("io/interrupted: maps and memory that are refused") {
    const temporary_folder folder;
    const std::string content = some_text(huge_page_bytes + 5);
    const auto path = folder.write("a.bin", content);
    const auto open_with = [&](int memory, int shared, int whole, bool copy) {
        answers how;
        how.memory = memory;
        how.shared = shared;
        how.whole = whole;
        return mapped_file::open(path, {.copy = copy});
    };
    const auto read = open_with(0, 0, ENODEV, false);  // there is another way
    require_value(read);
    CHECK(read->is_copy());
    CHECK((read->text() == content));
    check_error(open_with(ENOMEM, 0, 0, true), errc::out_of_memory, {"a.bin", "no memory to read"});  // a map is not what was asked for
    const auto privately = open_with(0, ENODEV, 0, false);
    require_value(privately);
    CHECK_FALSE(privately->is_copy());
    CHECK((privately->text() == content));
    check_error(open_with(0, 0, ENOMEM, false), errc::out_of_memory, {"a.bin", "cannot be mapped"});
    check_error(open_with(ENOMEM, 0, ENODEV, false), errc::out_of_memory, {"a.bin", "no memory to read"});
    check_error(open_with(ENOMEM, 0, ENODEV, true), errc::out_of_memory, {"a.bin", "no memory to read"});
    check_error(open_with(ENOMEM, 0, ENOMEM, true), errc::out_of_memory, {"a.bin"});
    const int fd = ::open(path.c_str(), O_RDONLY);
    REQUIRE(fd >= 0);
    const detail::scoped_descriptor closed(fd);
    answers how;
    how.memory = ENOMEM;
    check_error(mapped_file::open(file_part{fd, 1, 100, "a.pak"}), errc::out_of_memory, {"a.pak", "100 bytes"});
}
#else
TEST_CASE("io/interrupted: only where the calls can be answered") { MESSAGE("skipped: sanitizers, fortified headers, or not Linux in 64 bits"); }
#endif
