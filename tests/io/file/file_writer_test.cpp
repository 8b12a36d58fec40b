/// A file appears whole under its name or not at all; what was there keeps its links, its mode and its kind; nothing else is touched.
#include "io/io_testing.hpp"

#include <phi4flash/io/file/file_writer.hpp>

#include <algorithm>
#include <array>
#include <thread>

using namespace phi4flash;
using namespace io_testing;

namespace {

std::string content(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> names_in(const std::filesystem::path& folder) {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
}
using name_list = std::vector<std::string>;

}  // namespace

TEST_CASE("io/file_writer: the name appears with the whole file, or not at all") {
    for (const bool nameless : {true, false}) {
        CAPTURE(nameless);
        const temporary_folder folder;
        const auto path = folder.path() / "out.txt";
        {
            auto file = file_writer::create(path, nameless);
            require_value(file);
            CHECK(file->write("half").has_value());
            const file_writer moved(*std::move(file));
            CHECK_FALSE(std::filesystem::exists(path));
        }
        CHECK(names_in(folder.path()) == name_list{});
        for (const char* const text : {"first", "second"}) {
            auto file = file_writer::create(path, nameless);
            require_value(file);
            require_value(file->write(text));
            require_value(file->commit());
            CHECK(content(path) == text);
            CHECK(names_in(folder.path()) == name_list{"out.txt"});
        }
    }
    const temporary_folder folder;
    check_error(write_file(folder.path() / "no folder" / "x", "text"), errc::file_unwritable, {"no folder", "written"});
    check_error(write_file(folder.path(), "text"), errc::file_unwritable, {"written"});
    check_error(write_file(folder.path() / "new" / "", "text"), errc::file_unwritable, {"new"});
    check_error(write_file("", "text"), errc::invalid_argument, {"path: want", "write"});
}

TEST_CASE("io/file_writer: pieces of all lengths arrive in order") {
    const temporary_folder folder;
    const auto path = folder.path() / "pieces";
    auto file = file_writer::create(path);
    require_value(file);
    std::string all;
    for (std::size_t length = 0, i = 0; length < 200000; length = length * 3 / 2 + 1, ++i) {
        const std::string piece(length, static_cast<char>('a' + i % 26));
        all += piece;
        require_value(file->write(piece));
    }
    require_value(file->commit());
    CHECK(content(path) == all);
}

TEST_CASE("io/file_writer: two writers to one path, and a file of somebody else with a name like ours") {
    for (const bool nameless : {true, false}) {
        CAPTURE(nameless);
        const temporary_folder folder;
        const auto path = folder.write("x", "old");
        const auto other = folder.write("x.part", "somebody else's");
        auto one = file_writer::create(path, nameless);
        auto two = file_writer::create(path, nameless);
        require_value(one);
        require_value(two);
        require_value(one->write(std::string(100000, '1')));
        require_value(two->write(std::string(70000, '2')));
        require_value(one->write(std::string(100000, '1')));
        CHECK(content(path) == "old");
        require_value(one->commit());
        CHECK(content(path) == std::string(200000, '1'));
        require_value(two->commit());
        CHECK(content(path) == std::string(70000, '2'));
        CHECK(content(other) == "somebody else's");
        CHECK(names_in(folder.path()) == name_list{"x", "x.part"});
    }
}

TEST_CASE("io/file_writer: a name that leaves no room for an ending") {
    for (const bool nameless : {true, false}) {
        const temporary_folder folder;
        const std::string name(250, 'n');
        auto file = file_writer::create(folder.path() / name, nameless);
        require_value(file);
        require_value(file->commit());
        CHECK(names_in(folder.path()) == name_list{name});
    }
}

#if !defined(_WIN32)
#include <csignal>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

namespace {
struct stat status_of(const std::filesystem::path& path) {
    struct stat is = {};
    REQUIRE(::lstat(path.c_str(), &is) == 0);
    return is;
}
mode_t mode_of(const std::filesystem::path& path) { return status_of(path).st_mode & 07777; }

/// A node that is no file: what the real device does without the risk. False where that is not allowed.
bool make_device(const std::filesystem::path& path, unsigned minor) {
    if (::mknod(path.c_str(), S_IFCHR | 0666, makedev(1, minor)) == 0) {
        if (const int opened = ::open(path.c_str(), O_WRONLY); opened >= 0) return ::close(opened) == 0;
    }
    MESSAGE("skipped: no device nodes can be made here");
    return false;
}
}  // namespace

TEST_CASE("io/file_writer: modes and owners are kept, new files follow the umask") {
    for (const bool nameless : {true, false}) {
        CAPTURE(nameless);
        const temporary_folder folder;
        const auto written = [&](const char* name) {
            auto file = file_writer::create(folder.path() / name, nameless);
            require_value(file);
            require_value(file->write("new"));
            require_value(file->commit());
            return folder.path() / name;
        };
        const mode_t before = ::umask(0027);
        CHECK(mode_of(written("fresh")) == 0640);
        ::umask(0022);
        for (const mode_t mode : {0600, 0644, 0666, 0750}) {
            const auto path = folder.write("old", "text");
            REQUIRE(::chmod(path.c_str(), mode) == 0);
            CHECK(mode_of(written("old")) == mode);
        }
        if (::geteuid() == 0) {
            const auto path = folder.write("theirs", "text");
            REQUIRE(::chown(path.c_str(), 1234, 2345) == 0);
            REQUIRE(::chmod(path.c_str(), 0604) == 0);
            const auto is = status_of(written("theirs"));
            CHECK(is.st_uid == 1234);
            CHECK(is.st_gid == 2345);
            CHECK((is.st_mode & 07777) == 0604);
        } else {
            const auto path = folder.write("protected", "text");
            REQUIRE(::chmod(path.c_str(), 0444) == 0);
            check_error(file_writer::create(path, nameless), errc::file_unwritable, {"protected"});
            CHECK(content(path) == "text");
        }
        ::umask(before);
    }
}

TEST_CASE("io/file_writer: links are followed and stay") {
    const temporary_folder folder;
    std::filesystem::create_directory(folder.path() / "far");
    const auto file = folder.write("far/file", "old");
    std::filesystem::create_symlink("far/second", folder.path() / "first");
    std::filesystem::create_symlink("../far/./file", folder.path() / "far" / "second");
    require_value(write_file(folder.path() / "first", "new"));
    CHECK(content(file) == "new");
    CHECK(S_ISLNK(status_of(folder.path() / "first").st_mode));
    CHECK(S_ISLNK(status_of(folder.path() / "far" / "second").st_mode));
    CHECK(S_ISREG(status_of(file).st_mode));
    CHECK(names_in(folder.path()) == name_list{"far", "first"});
    CHECK(names_in(folder.path() / "far") == name_list{"file", "second"});

    std::filesystem::create_symlink("far/absent", folder.path() / "dangling");
    require_value(write_file(folder.path() / "dangling", "there"));
    CHECK(content(folder.path() / "far" / "absent") == "there");
    std::filesystem::create_symlink("loop", folder.path() / "loop");
    check_error(write_file(folder.path() / "loop", "x"), errc::file_unwritable, {"loop", "cannot be written"});
    std::filesystem::create_symlink("far", folder.path() / "to folder");
    check_error(write_file(folder.path() / "to folder", "x"), errc::file_unwritable, {"to folder"});
}

TEST_CASE("io/file_writer: a FIFO is written in place") {
    const temporary_folder folder;
    const auto path = folder.path() / "fifo";
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
    std::string read;
    std::thread reader([&] { read = content(path); });
    const auto written = write_file(path, std::string(300000, 'f'));
    reader.join();
    require_value(written);
    CHECK(read == std::string(300000, 'f'));
    CHECK(S_ISFIFO(status_of(path).st_mode));
    CHECK(names_in(folder.path()) == name_list{"fifo"});
}

TEST_CASE("io/file_writer: devices are written in place, and a full one is an error") {
    constexpr unsigned null = 3, full = 7;
    const temporary_folder folder;
    if (!make_device(folder.path() / "null", null) || !make_device(folder.path() / "full", full)) return;
    std::filesystem::create_symlink("null", folder.path() / "link");
    require_value(write_file(folder.path() / "link", "text"));
    check_error(write_file(folder.path() / "full", "text"), errc::file_unwritable, {"full", "No space left"});
    CHECK(S_ISCHR(status_of(folder.path() / "null").st_mode));
    CHECK(S_ISCHR(status_of(folder.path() / "full").st_mode));
    CHECK(names_in(folder.path()) == name_list{"full", "link", "null"});
}

TEST_CASE("io/file_writer: after a failure nothing gets the name, whatever succeeds later") {
    rlimit before = {};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    for (const bool nameless : {true, false}) {
        CAPTURE(nameless);
        const temporary_folder folder;
        const auto path = folder.write("x", "old");
        auto file = file_writer::create(path, nameless);
        require_value(file);
        require_value(file->write(std::string(1000, 'a')));
        rlimit little = before;
        little.rlim_cur = 500;
        REQUIRE(::setrlimit(RLIMIT_FSIZE, &little) == 0);
        const std::size_t large = std::size_t{4} << 20;                // more than waits
        const status failed = file->write(std::string(large, 'b'));  // the 1000 that wait cannot be written
        REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
        check_error(failed, errc::file_unwritable, {"x", "File too large"});
        check_error(file->write("c"), errc::file_unwritable, {"x", "File too large"});
        check_error(file->write(std::string(large, 'd')), errc::file_unwritable, {"File too large"});
        check_error(file->commit(), errc::file_unwritable, {"File too large"});
        file_writer moved(*std::move(file));
        check_error(moved.commit(), errc::file_unwritable, {"File too large"});
        CHECK(content(path) == "old");
    }
    std::signal(SIGXFSZ, handler);
}

#if defined(__linux__)
TEST_CASE("io/file_writer: a descriptor goes on where it stands") {
    const temporary_folder folder;
    const auto path = folder.write("all", "0123456789");
    const auto name = [](int descriptor) { return "/proc/self/fd/" + std::to_string(descriptor); };
    for (const int appends : {O_APPEND, 0}) {
        CAPTURE(appends);
        const int open = ::open(path.c_str(), O_WRONLY | appends);
        REQUIRE(open >= 0);
        if (appends == 0) REQUIRE(::lseek(open, 4, SEEK_SET) == 4);
        require_value(write_file(name(open), "ab"));
        require_value(write_file("/dev/fd/" + std::to_string(open), "cd"));
        REQUIRE(::write(open, "!", 1) == 1);  // the host's own writes go on behind ours
        ::close(open);
    }
    CHECK(content(path) == "0123abcd!9abcd!");

    std::array<int, 2> ends{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()) == 0);
    require_value(write_file(name(ends[1]), "through the socket"));
    char text[64] = {};
    CHECK(::read(ends[0], text, sizeof text) == 18);
    CHECK(std::string_view(text) == "through the socket");
    for (const int end : ends) ::close(end);

    REQUIRE(::pipe2(ends.data(), O_NONBLOCK) == 0);
    std::string read;
    std::thread reader([&] {
        ::fcntl(ends[0], F_SETFL, 0);
        char piece[4096];
        for (ssize_t n = 0; (n = ::read(ends[0], piece, sizeof piece)) > 0;) read.append(piece, static_cast<std::size_t>(n));
    });
    const auto written = write_file(name(ends[1]), std::string(1000000, 'n'));
    ::close(ends[1]);
    reader.join();
    ::close(ends[0]);
    require_value(written);
    CHECK(read == std::string(1000000, 'n'));

    const int reads = ::open(path.c_str(), O_RDONLY);
    const int holds = ::open(folder.path().c_str(), O_RDONLY);
    check_error(write_file(name(reads), "x"), errc::file_unwritable, {name(reads).c_str(), "for writing"});
    check_error(write_file(name(holds), "x"), errc::file_unwritable, {name(holds).c_str()});
    ::close(reads);
    ::close(holds);
    check_error(write_file(name(holds), "x"), errc::file_unwritable, {name(holds).c_str()});
    CHECK(content(path) == "0123abcd!9abcd!");
    CHECK(names_in(folder.path()) == name_list{"all"});
}

TEST_CASE("io/file_writer: an open descriptor is written as it is, whatever its link says") {
    std::array<int, 2> pipe_ends{};
    REQUIRE(::pipe(pipe_ends.data()) == 0);
    require_value(write_file("/proc/self/fd/" + std::to_string(pipe_ends[1]), "through the pipe"));
    ::close(pipe_ends[1]);
    char text[64] = {};
    CHECK(::read(pipe_ends[0], text, sizeof text) == 16);
    CHECK(std::string_view(text) == "through the pipe");
    ::close(pipe_ends[0]);

    const temporary_folder folder;
    const auto path = folder.write("gone", "");
    const int open = ::open(path.c_str(), O_RDWR);
    REQUIRE(open >= 0);
    REQUIRE(::unlink(path.c_str()) == 0);  // its link says "gone (deleted)"
    std::filesystem::create_symlink("/proc/self/fd/" + std::to_string(open), folder.path() / "link");
    require_value(write_file(folder.path() / "link", "kept"));
    CHECK(::pread(open, text, sizeof text, 0) == 4);
    CHECK(std::string_view(text, 4) == "kept");
    ::close(open);
    CHECK(names_in(folder.path()) == name_list{"link"});
}
#endif
#endif
