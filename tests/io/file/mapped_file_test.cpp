/// Maps and small files: contents, moves, and a sentence with the path for everything that is no readable file.
#include "io/io_testing.hpp"

#include <phi4flash/io/file/mapped_file.hpp>
#include <phi4flash/io/file/read_file.hpp>

#include <iterator>

#if !defined(_WIN32)
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#endif

using namespace phi4flash;
using namespace io_testing;

TEST_CASE("io/mapped_file: the bytes of the file, at the same place after a move") {
    const temporary_folder folder;
    auto file = mapped_file::open(folder.write("a.bin", "hello"));
    require_value(file);
    CHECK(file->text() == "hello");
    const std::byte* const place = file->bytes().data();
    CHECK(reinterpret_cast<std::uintptr_t>(place) % 4096 == 0);
    mapped_file moved(*std::move(file));
    CHECK(moved.bytes().data() == place);
    CHECK(file->bytes().empty());
    mapped_file assigned;
    assigned = std::move(moved);
    CHECK(assigned.text() == "hello");
    assigned.release_pages();
    CHECK(assigned.text() == "hello");
    mapped_file().release_pages();
}

TEST_CASE("io/mapped_file: options change where the bytes are, never which") {
    const temporary_folder folder;
    // Just below, at and above whole huge pages.
    constexpr std::size_t huge = huge_page_bytes;
    for (const std::size_t size : {std::size_t{1}, huge - 1, huge, 2 * huge, 9 * huge + 4097}) {
        CAPTURE(size);
        std::string content(size, '\0');
        for (std::size_t i = 0; i < size; ++i) content[i] = static_cast<char>(i * 31 >> 4);
        const auto path = folder.write("big.bin", content);
        for (int bits = 0; bits < 16; ++bits) {
            CAPTURE(bits);
            const mapping_options options{.pages = (bits & 1) != 0 ? page_size::huge : page_size::normal,
                                          .reread = (bits & 8) != 0,
                                          .copy = (bits & 2) != 0,
                                          .populate = (bits & 4) != 0};
            auto file = mapped_file::open(path, options);
            require_value(file);
            CHECK(file->text() == content);
            CHECK((file->is_copy() || !options.copy));  // done, or refused
            file->release_pages();
            CHECK(file->text() == content);
            CHECK(file->huge_bytes() <= size);
            CHECK(file->residency().huge <= file->residency().resident);
            CHECK(file->residency().resident <= size);
#if !defined(_WIN32)
            if (file->is_copy() || ((bits & 1) != 0 && size >= huge))
                CHECK(reinterpret_cast<std::uintptr_t>(file->bytes().data()) % huge == 0);
#endif
            if (!file->is_copy()) continue;
            CHECK((bits & 2) != 0);
            CHECK(file->residency().resident == size);
            if (bits == 3 && size > 2 * huge) MESSAGE(file->huge_bytes() << " of " << size << " bytes are in huge pages");
            const mapped_file moved(*std::move(file));
            CHECK(moved.is_copy());
            CHECK(moved.text() == content);
        }
    }
    CHECK(mapped_file().huge_bytes() == 0);
    CHECK_FALSE(mapped_file().is_copy());
    CHECK(mapped_file().residency().resident == 0);
    CHECK(mapped_file().populate());
    const mapping_options copy{.copy = true};
    check_error(mapped_file::open(folder.path() / "nothing.bin", copy), errc::file_not_found, {"nothing.bin", "opened"});
    check_error(mapped_file::open(folder.path(), copy), errc::file_unreadable, {"folder"});
    check_error(mapped_file::open(folder.write("empty.bin", ""), copy), errc::file_empty, {"empty.bin"});
}

TEST_CASE("io/mapped_file: a copy outlives what happens to the file") {
    const temporary_folder folder;
    const auto path = folder.write("a.bin", "hello");
    const auto file = mapped_file::open(path, {.copy = true});
    require_value(file);
    if (!file->is_copy()) {
        MESSAGE("skipped: this system only maps");
        return;
    }
    folder.write("a.bin", "HELL");
    CHECK(file->text() == "hello");
}

#if !defined(_WIN32)
namespace {
/// In a process of its own: opens a file of three pages, shortens it to one, and reads all that it was. Returns how the process ended.
int read_after_shortening(const std::filesystem::path& path, const mapping_options& how) {
    const pid_t child = ::fork();
    if (child == 0) {
        std::signal(SIGBUS, SIG_DFL);  // doctest and the sanitizers have handlers of their own
        const auto file = mapped_file::open(path, how);
        if (!file || ::truncate(path.c_str(), 4096) != 0) ::_exit(2);
        unsigned sum = 0;
        for (const std::byte b : file->bytes()) sum += static_cast<unsigned>(b);
        ::_exit(sum == static_cast<unsigned>('x') * static_cast<unsigned>(file->bytes().size()) ? 0 : 1);
    }
    int how_it_ended = -1;
    return child > 0 && ::waitpid(child, &how_it_ended, 0) == child ? how_it_ended : -1;
}
}  // namespace

TEST_CASE("io/mapped_file: a file that is shortened takes its pages from a map, and nothing from a copy") {
    const temporary_folder folder;
    const std::string content(3 * 65536, 'x');
    for (const page_size pages : {page_size::normal, page_size::huge}) {
        const int copied = read_after_shortening(folder.write("a.bin", content), {.pages = pages, .copy = true});
        CHECK(WIFEXITED(copied));
        CHECK(WEXITSTATUS(copied) == 0);
        // What docs/loading.md says of maps: the system's signal, and no other harm.
        const int mapped = read_after_shortening(folder.write("a.bin", content), {.pages = pages});
        CHECK(WIFSIGNALED(mapped));
        CHECK(WTERMSIG(mapped) == SIGBUS);
    }
}
#endif

TEST_CASE("io/mapped_file: reading all of a file is told, and can be stopped") {
    const temporary_folder folder;
    const std::size_t size = 3 * (std::size_t{16} << 20) + 5;
    const auto path = folder.write("big.bin", std::string(size, 'x'));
    for (const bool copy : {false, true}) {
        CAPTURE(copy);
        std::vector<std::uint64_t> told;
        const auto tell = [&](std::uint64_t done, std::uint64_t total) {
            CHECK(total == size);
            told.push_back(done);
        };
        require_value(mapped_file::open(path, {.copy = copy, .populate = true}, tell));
#if !defined(_WIN32)
        REQUIRE(told.size() > 1);
#endif
        if (!told.empty()) CHECK(told.back() == size);
        CHECK(std::is_sorted(told.begin(), told.end()));
        const auto stop = [&](std::uint64_t, std::uint64_t) { return false; };
        check_error(mapped_file::open(path, {.copy = copy, .populate = true}, stop), errc::cancelled,
                    {"big.bin", "stopped", std::to_string(size).c_str()});
    }
    const auto file = mapped_file::open(path);
    require_value(file);
    CHECK_FALSE(file->populate([](std::uint64_t, std::uint64_t) { return false; }));
    CHECK(file->populate());
    CHECK(file->bytes().back() == std::byte{'x'});
}

#if !defined(_WIN32)
TEST_CASE("io/mapped_file: a file system that refuses shared maps, or all of them") {
    const temporary_folder folder;
    const std::string content(10000, 'x');
    const auto path = folder.write("a.bin", content);
    const int fd = ::open(path.c_str(), O_RDONLY);
    REQUIRE(fd >= 0);
    const detail::scoped_descriptor file(fd);
    std::vector<int> asked;
    const auto open_where = [&](int reason, bool private_maps) {
        asked.clear();
        return detail::map_or_copy(path, fd, 0, content.size(), 0, {}, {}, [&](int sharing) -> void* {
            asked.push_back(sharing);
            if (sharing == MAP_PRIVATE && private_maps) return ::mmap(nullptr, content.size(), PROT_READ, sharing, fd, 0);
            errno = reason;
            return MAP_FAILED;
        });
    };
    for (const bool private_maps : {true, false}) {
        const auto got = open_where(ENODEV, private_maps);
        require_value(got);
        CHECK(got->copied != private_maps);
        CHECK(asked == std::vector<int>{MAP_SHARED, MAP_PRIVATE});
        CHECK(std::string_view(reinterpret_cast<const char*>(got->bytes.data()), got->bytes.size()) == content);
        if (private_maps) detail::release_pages(got->bytes);
        CHECK(got->bytes[9999] == std::byte{'x'});
        detail::unmap_file(got->bytes, false);
    }
    check_error(open_where(ENOMEM, false), errc::out_of_memory, {"a.bin", "cannot be mapped"});
}

TEST_CASE("io/mapped_file: a real file that cannot be mapped is read") {
    const std::filesystem::path notes = "/sys/kernel/notes";  // Linux: a file with a size and without maps
    std::error_code failed;
    std::ifstream in(notes, std::ios::binary);
    const std::string content{std::istreambuf_iterator<char>(in), {}};
    if (content.empty() || std::filesystem::file_size(notes, failed) != content.size()) {
        MESSAGE("skipped: no such file here");
        return;
    }
    const auto file = mapped_file::open(notes);
    require_value(file);
    CHECK(file->is_copy());
    CHECK(file->text() == content);
}
#endif

TEST_CASE("io/mapped_file: a link whose target is gone says so") {
    const temporary_folder folder;
    std::error_code failed;
    std::filesystem::create_symlink("../blobs/0123abcd", folder.path() / "model.safetensors", failed);
    if (failed) return;  // no links on this file system
    check_error(mapped_file::open(folder.path() / "model.safetensors"), errc::file_not_found,
                {"model.safetensors", "a link to ../blobs/0123abcd", "not there"});
}

TEST_CASE("io/mapped_file: what is refused is named") {
    const temporary_folder folder;
    check_error(mapped_file::open(folder.path() / "nothing.bin"), errc::file_not_found, {"nothing.bin", "opened"});
    check_error(mapped_file::open(folder.path()), errc::file_unreadable, {folder.path().filename().string().c_str(), "folder"});
    check_error(mapped_file::open(folder.write("empty.bin", "")), errc::file_empty, {"empty.bin", "empty"});
    check_error(mapped_file::open(folder.write("file", "x") / "below"), errc::file_not_found, {"below"});
}

TEST_CASE("io/read_file: refuses more than the caller allows") {
    const temporary_folder folder;
    const auto path = folder.write("a.json", "12345");
    const auto text = read_file(path, 5);
    require_value(text);
    CHECK(*text == "12345");
    check_error(read_file(path, 4), errc::file_too_large, {"a.json", "at most 4", "have 5"});
    check_error(read_file(folder.path() / "b.json", 4), errc::file_not_found, {"b.json"});
}

TEST_CASE("io/printable: short, and nothing that a terminal obeys") {
    CHECK(std::string(printable("model.norm").c_str()) == "model.norm");
    CHECK(std::string(printable(std::string_view("a\x1b[2J\nb\0c", 9)).c_str()) == "a?[2J?b?c");
    const std::string name(1000, 'n');
    const std::string cut = printable(name).c_str();
    CHECK(cut.size() == printable::max_bytes);
    CHECK(cut.ends_with("nnn..."));
    const std::string tail = printable(std::filesystem::path(name + "/model.safetensors")).c_str();
    CHECK(tail.size() == printable::max_bytes);
    CHECK(tail.starts_with("...nnn"));
    CHECK(tail.ends_with("/model.safetensors"));
}

TEST_CASE("io/printable: UTF-8, whatever was given") {
    const auto shown = [](std::string_view text) { return std::string(printable(text).c_str()); };
    const auto end = [](std::string_view text) { return std::string(printable::name_of_file(text).c_str()); };
    CHECK(shown("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80") == "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80");
    CHECK(shown("a\xff\xc3z\xed\xa0\x80") == "a??z???");
    CHECK(shown("\xc2\x9b" "2J\x7f") == "?2J?");  // C1: a terminal takes it for escape and bracket
    CHECK(shown("\xe2\x82") == "?");
    for (const std::string_view character : {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"}) {
        for (std::size_t shift = 0; shift < 4; ++shift) {
            std::string name(shift, 'x');
            for (int i = 0; i < 200; ++i) name += character;
            for (const std::string& cut : {shown(name), end(name)}) {
                CAPTURE(cut);
                CHECK(cut.size() <= printable::max_bytes);
                CHECK(cut.size() > printable::max_bytes - 4);
                CHECK(valid_utf8_prefix(cut) == cut.size());
                CHECK(cut.find('?') == std::string::npos);
            }
        }
    }
    const std::string run(1000, '\x80');
    CHECK(end(run).size() > 100);
    CHECK(end("folder/" + std::string(200, 'x') + "-00002-of-00004.safetensors").ends_with("xx-00002-of-00004.safetensors"));
}

#if !defined(_WIN32)
namespace {
/// Opened as a host opens a pak.
struct opened {
    explicit opened(const std::filesystem::path& path, int flags = O_RDONLY) : fd(::open(path.c_str(), flags)) { REQUIRE(fd >= 0); }
    opened(const opened&) = delete;
    opened& operator=(const opened&) = delete;
    ~opened() { ::close(fd); }
    int fd;
};
}  // namespace

TEST_CASE("io/mapped_file: a part of a file that the host has opened, at any place and of any length") {
    const temporary_folder folder;
    std::string content(3 * huge_page_bytes + 123, '\0');
    for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 31 >> 4);
    const auto path = folder.write("all.pak", content);
    for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{64}, std::uint64_t{4095}, std::uint64_t{4096},
                                       std::uint64_t{4160}, std::uint64_t{huge_page_bytes}, std::uint64_t{huge_page_bytes} + 4097}) {
        for (const std::uint64_t length : {std::uint64_t{1}, std::uint64_t{4096}, std::uint64_t{100000}, UINT64_MAX}) {
            for (int bits = 0; bits < 8; ++bits) {
                CAPTURE(offset);
                CAPTURE(length);
                CAPTURE(bits);
                mapped_file moved;
                {
                    const opened file(path);  // closed before anything is read
                    auto part = mapped_file::open(
                        file_part{file.fd, offset, length, "all.pak"},
                        {.pages = (bits & 1) != 0 ? page_size::huge : page_size::normal, .copy = (bits & 2) != 0, .populate = (bits & 4) != 0});
                    require_value(part);
                    CHECK(part->is_copy() == ((bits & 2) != 0 || offset % 64 != 0));
                    moved = *std::move(part);
                }
                const auto count = static_cast<std::size_t>(length == UINT64_MAX ? content.size() - offset : length);
                CHECK((moved.text() == std::string_view(content).substr(static_cast<std::size_t>(offset), count)));
                CHECK(reinterpret_cast<std::uintptr_t>(moved.bytes().data()) % 64 == 0);
                moved.release_pages();
                CHECK((moved.text() == std::string_view(content).substr(static_cast<std::size_t>(offset), count)));
                CHECK(moved.residency().huge <= moved.residency().resident);
            }
        }
    }
}

TEST_CASE("io/mapped_file: parts that are not there") {
    const temporary_folder folder;
    const auto path = folder.write("all.pak", "hello");
    const opened file(path);
    check_error(mapped_file::open(file_part{file.fd, 6, UINT64_MAX, "a.pak"}), errc::file_incomplete, {"a.pak", "from byte 6", "file of 5"});
    check_error(mapped_file::open(file_part{file.fd, 0, 6, "a.pak"}), errc::file_incomplete, {"want 6 bytes", "file of 5"});
    check_error(mapped_file::open(file_part{file.fd, 4, 2, "a.pak"}), errc::file_incomplete, {"want 2 bytes from byte 4"});
    check_error(mapped_file::open(file_part{file.fd, UINT64_MAX, 1, "a.pak"}), errc::file_incomplete, {"a.pak"});
    check_error(mapped_file::open(file_part{file.fd, 1, UINT64_MAX - 1, "a.pak"}), errc::file_incomplete, {"a.pak"});
    check_error(mapped_file::open(file_part{file.fd, 5, UINT64_MAX, "a.pak"}), errc::file_empty, {"a.pak"});
    check_error(mapped_file::open(file_part{file.fd, 0, 0, "a.pak"}), errc::file_empty, {"a.pak"});
    check_error(mapped_file::open(file_part{-1, 0, UINT64_MAX, "gone"}), errc::invalid_argument, {"gone", "open for reading"});
    check_error(mapped_file::open(file_part{}), errc::invalid_argument, {"the file", "open for reading"});
    int pipe[2] = {-1, -1};
    REQUIRE(::pipe(pipe) == 0);
    check_error(mapped_file::open(file_part{pipe[0], 0, UINT64_MAX, "a pipe"}), errc::file_unreadable, {"a pipe", "regular file"});
    ::close(pipe[0]);
    ::close(pipe[1]);
    const opened write_only(path, O_WRONLY);
    check_error(mapped_file::open(file_part{write_only.fd, 0, UINT64_MAX, "to write"}), errc::file_unreadable, {"to write"});
}
#endif
