/// The pages of files: where maps begin, what writing leaves in the cache, reading again. Whether there are huge pages is the system's to say;
/// where it has them, they must be used.
#include "io/io_testing.hpp"

#include <phi4flash/core/memory.hpp>
#include <phi4flash/io/file/file_writer.hpp>
#include <phi4flash/io/file/mapped_file.hpp>
#include <phi4flash/io/file/read_ahead.hpp>

#if defined(__linux__)
#include <sys/syscall.h>
#endif

#include <initializer_list>

using namespace phi4flash;
using namespace io_testing;

#if defined(__linux__) && defined(SYS_madvise) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define PHI4FLASH_TEST_REFUSES_ADVICE 1
namespace {
int refused_with = 0;  // 0: nothing is refused
int refused = 0;       // how often
}  // namespace
/// As an old kernel, or a sandbox.
extern "C" int madvise(void* memory, std::size_t bytes, int advice) noexcept {
    if (refused_with == 0) return static_cast<int>(::syscall(SYS_madvise, memory, bytes, advice));
    ++refused;
    errno = refused_with;
    return -1;
}
#endif

#if !defined(_WIN32)
namespace {

constexpr std::size_t huge = huge_page_bytes;

std::string some_bytes(std::size_t size) {
    std::string content(size, '\0');
    for (std::size_t i = 0; i < size; ++i) content[i] = static_cast<char>(i * 37 >> 5);
    return content;
}

/// Written by pieces of `piece` bytes through file_writer.
std::filesystem::path write_by(const temporary_folder& folder, std::string_view content, std::size_t piece) {
    const auto path = folder.path() / "written.bin";
    auto file = file_writer::create(path);
    require_value(file);
    for (std::size_t at = 0; at < content.size(); at += piece) REQUIRE(file->write(content.substr(at, piece)));
    REQUIRE(file->commit());
    return path;
}

/// As programs do that know nothing of huge pages.
void write_in_small_pages(const std::filesystem::path& path, std::string_view content) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    REQUIRE(fd >= 0);
    const detail::scoped_descriptor file(fd);
    constexpr std::size_t piece = 10007;
    for (std::size_t at = 0; at < content.size(); at += piece) {
        const std::string_view part = content.substr(at, piece);
        REQUIRE(::write(fd, part.data(), part.size()) == static_cast<ssize_t>(part.size()));
    }
}

/// Whether this file system caches what is read in huge pages.
bool gives_huge_pages([[maybe_unused]] const std::filesystem::path& folder) {
#if defined(POSIX_FADV_DONTNEED)
    const auto path = folder / "probe.bin";
    write_in_small_pages(path, some_bytes(2 * huge));
    const int fd = ::open(path.c_str(), O_RDONLY);
    REQUIRE(fd >= 0);
    const detail::scoped_descriptor file(fd);
    return detail::reads_into_huge_pages(fd);
#else
    return false;
#endif
}

}  // namespace

TEST_CASE("io/file_pages: a map in huge pages begins where one may, and only what is asked for is mapped") {
    const temporary_folder folder;
    for (const std::size_t size : {std::size_t{1}, huge - 1, huge, huge + 1, 5 * huge + 4097}) {
        CAPTURE(size);
        const auto path = folder.write("a.bin", some_bytes(size));
        const int fd = ::open(path.c_str(), O_RDONLY);
        REQUIRE(fd >= 0);
        const detail::scoped_descriptor file(fd);
        for (const page_size pages : {page_size::normal, page_size::huge}) {
            void* const map = detail::map_pages(fd, size, MAP_SHARED, pages);
            REQUIRE(map != MAP_FAILED);
            if (pages == page_size::huge && size >= huge) CHECK(reinterpret_cast<std::uintptr_t>(map) % huge == 0);
            CHECK(std::memcmp(map, some_bytes(size).data(), size) == 0);
            CHECK(::munmap(map, size) == 0);
        }
    }
    CHECK(detail::take_pages(SIZE_MAX / 2, PROT_NONE) == nullptr);
    CHECK(detail::map_pages(-1, 3 * huge, MAP_SHARED, page_size::huge) == MAP_FAILED);
    CHECK(errno == EBADF);
}

TEST_CASE("io/file_pages: what file_writer leaves in the cache is not in small pages, where the system can do better") {
    const temporary_folder folder;
    const std::string content = some_bytes(20 * huge + 12345);
    const bool can = gives_huge_pages(folder.path());
    // Small, odd, whole, and more than is kept waiting.
    for (const std::size_t piece : {std::size_t{70001}, huge - 1, huge, 3 * huge + 7, content.size()}) {
        CAPTURE(piece);
        const auto file = mapped_file::open(write_by(folder, content, piece));
        require_value(file);
        const page_share share = file->residency();
        CAPTURE(share.resident);
        CAPTURE(share.huge);
        if (can) CHECK(share.huge + 4 * huge >= share.resident);  // some of what was written may have found no place
        CHECK(file->text() == content);
    }
    if (!can) MESSAGE("this file system has no huge pages to give");
}

TEST_CASE("io/file_pages: a cache in small pages stays, unless it is little or is to be read again") {
    const temporary_folder folder;
    const bool can = gives_huge_pages(folder.path());
    const std::string content = some_bytes(16 * huge);
    const auto path = folder.path() / "small.bin";
    write_in_small_pages(path, content);
    const auto kept = mapped_file::open(path);
    require_value(kept);
    CHECK(kept->text() == content);
    const page_share before = kept->residency();
    if (can && before.resident == content.size()) CHECK(before.huge < content.size() / 2);
    kept->release_pages();
    {
        const auto again = mapped_file::open(path, {.reread = true, .populate = true});
        require_value(again);
        CHECK(again->text() == content);
        if (can) CHECK(again->huge_bytes() >= content.size() / 10 * 9);
    }
    // A quarter of a file, as somebody who looked at its beginning leaves it.
    write_in_small_pages(path, std::string_view(content).substr(0, content.size() / 5));
    REQUIRE(::truncate(path.c_str(), static_cast<off_t>(content.size())) == 0);
    const auto little = mapped_file::open(path, {.populate = true});
    require_value(little);
    if (can) CHECK(little->huge_bytes() >= content.size() / 10 * 9);
    CHECK(little->text().substr(0, content.size() / 5) == std::string_view(content).substr(0, content.size() / 5));
}

#if defined(POSIX_FADV_DONTNEED)
TEST_CASE("io/file_pages: what is asked for ahead, as convert does with its source, does not come in small pages where the system can do better") {
    const temporary_folder folder;
    const bool can = gives_huge_pages(folder.path());
    const std::string content = some_bytes(16 * huge + 4321);
    const auto path = folder.path() / "source.bin";
    write_in_small_pages(path, content);
    {
        const int fd = ::open(path.c_str(), O_RDONLY);
        REQUIRE(fd >= 0);
        const detail::scoped_descriptor file(fd);
        detail::drop_cached_pages(fd, content.size());
    }
    const auto file = mapped_file::open(path);
    require_value(file);
    constexpr std::size_t piece = 1234567;
    for (std::size_t at = 0; at < content.size(); at += piece) {
        const std::size_t n = std::min(piece, content.size() - at);
        ask_for_pages(file->bytes().subspan(at, std::min(2 * n, content.size() - at)));
        CHECK(file->text().substr(at, n) == std::string_view(content).substr(at, n));
    }
    if (can) CHECK(file->huge_bytes() >= 12 * huge);
    ask_for_pages({});
    ask_for_pages(file->bytes().subspan(content.size() - 1));
}
#endif

namespace {

/// Whatever the system cannot do is left out: the bytes are the same, and nothing fails.
void check_every_option(const std::filesystem::path& path, const std::string& content) {
    for (const mapping_options& how :
         {mapping_options{}, mapping_options{.pages = page_size::normal}, mapping_options{.reread = true}, mapping_options{.populate = true},
          mapping_options{.reread = true, .populate = true}, mapping_options{.copy = true}}) {
        const auto file = mapped_file::open(path, how);
        require_value(file);
        CHECK(file->text() == content);
        CHECK(file->is_copy() == how.copy);
        const page_share share = file->residency();
        CHECK(share.resident <= content.size());
        CHECK(share.huge <= share.resident);
        file->release_pages();
        CHECK(file->text() == content);
    }
}

}  // namespace

#if defined(PHI4FLASH_TEST_REFUSES_ADVICE)
TEST_CASE("io/file_pages: where every advice is refused, pages are small and nothing else happens") {
    const temporary_folder folder;
    const std::string content = some_bytes(3 * huge + 77);
    for (const int why : {EPERM, EINVAL, ENOSYS, EACCES, ENOMEM}) {
        CAPTURE(why);
        refused_with = why;
        refused = 0;
        const auto path = write_by(folder, content, huge);
        check_every_option(path, content);
        const auto block = memory_block::allocate(3 * huge, "test", page_size::huge);
        REQUIRE(block);
        std::memset(block->bytes().data(), 1, block->bytes().size());
        CHECK_FALSE(collapse_into_huge_pages(block->bytes()));
        refused_with = 0;
        CHECK(refused > 10);
    }
}
#endif

TEST_CASE("io/file_pages: on a file system without huge pages everything is as it was") {
    std::error_code failed;
    const std::filesystem::path memory = "/dev/shm";  // tmpfs, as a rule with huge=never
    if (!std::filesystem::is_directory(memory, failed)) return;
    const auto path = memory / ("phi4flash_test_small_" + std::to_string(::getpid()));
    struct removed {
        const std::filesystem::path& path;
        ~removed() {
            std::error_code none;
            std::filesystem::remove(path, none);
        }
    } const at_the_end{path};
    const std::string content = some_bytes(3 * huge + 77);
    {
        auto file = file_writer::create(path);
        require_value(file);
        REQUIRE(file->write(content));
        REQUIRE(file->commit());
    }
    check_every_option(path, content);
}

TEST_CASE("io/file_pages: pages that are there already are moved, where the kernel does that") {
    std::error_code failed;
    const std::filesystem::path memory = "/dev/shm";  // Linux: a file system in memory
    if (!std::filesystem::is_directory(memory, failed)) return;
    const auto path = memory / ("phi4flash_test_" + std::to_string(::getpid()));
    write_in_small_pages(path, some_bytes(4 * huge + 5));
    const auto file = mapped_file::open(path, {.populate = true});
    std::filesystem::remove(path, failed);
    require_value(file);
    CHECK(file->text() == some_bytes(4 * huge + 5));
    if (collapse_into_huge_pages(file->bytes())) CHECK(file->huge_bytes() == 4 * huge);
    CHECK_FALSE(collapse_into_huge_pages(file->bytes().first(huge - 1)));
}
#endif

#if defined(__linux__)
TEST_CASE("core/huge_pages: what the system says of ranges of memory") {
    std::string text =
        "10000000-10400000 rw-p 00000000 00:00 0                          [heap]\n"
        "Size:               4096 kB\nRss:                3072 kB\nAnonHugePages:      2048 kB\nShmemPmdMapped:        0 kB\n"
        "FilePmdMapped:         0 kB\nTHPeligible:           1\nVmFlags: rd wr mr mw me ac\n"
        "20000000-20200000 r--s 00000000 fd:00 1234                       /a-b c/10000000-10400000 x\n"
        "Rss:                2048 kB\nAnonHugePages:         0 kB\nFilePmdMapped:      2048 kB\n";
    const auto shares = [&](std::uintptr_t first, std::size_t bytes) {
        std::FILE* const file = ::fmemopen(text.data(), text.size(), "r");
        REQUIRE(file != nullptr);
        const page_share found = detail::read_smaps(file, {reinterpret_cast<const std::byte*>(first), bytes});
        std::fclose(file);
        return found;
    };
    CHECK(shares(0x10000000, 0x400000).resident == 3072 * 1024);
    CHECK(shares(0x10000000, 0x400000).huge == 2048 * 1024);
    CHECK(shares(0x20000000, 0x200000).huge == 2048 * 1024);
    CHECK(shares(0x10000000, 0x10200000).resident == 5120 * 1024);
    CHECK(shares(0x103ff000, 0x1000).resident == 0x1000);  // never more than was asked about
    CHECK(shares(0x103ff000, 0x1000).huge == 0x1000);
    CHECK(shares(0x10400000, 0x1000).resident == 0);
    text.resize(text.find("kB"));  // cut
    CHECK(shares(0x10000000, 0x400000).resident == 0);
}
#endif

TEST_CASE("core/huge_pages: what is not there is not counted") {
    CHECK(touched_pages({}).resident == 0);
    CHECK(touched_pages({}).huge == 0);
    CHECK_FALSE(collapse_into_huge_pages({}));
    CHECK_FALSE(ask_for_huge_pages({}));
}
