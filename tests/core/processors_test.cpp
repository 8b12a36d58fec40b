/// How many threads are the default: affinity, cores with two processors, and the quotas of both versions of control groups, from files
/// that a test can write.
#include <phi4flash/core/processors.hpp>
#include <phi4flash/core/thread_pool.hpp>

#if PHI4FLASH_THREADS
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

namespace {

namespace fs = std::filesystem;
namespace p4 = phi4flash;

/// A folder that stands for "/", with as many processors as are named.
struct fake_system {
    fs::path root;

    explicit fake_system(const char* name, const char* allowed, const char* online) : root(fs::temp_directory_path() / name) {
        fs::remove_all(root);
        write("/proc/thread-self/status", std::string("Name:\ttest\nCpus_allowed:\tff\nCpus_allowed_list:\t") + allowed + "\nMems_allowed:\t1\n");
        write("/sys/devices/system/cpu/online", std::string(online) + "\n");
    }
    ~fake_system() {
        std::error_code ignored;
        fs::remove_all(root, ignored);
    }
    fake_system(const fake_system&) = delete;
    fake_system& operator=(const fake_system&) = delete;

    void write(const std::string& path, const std::string& text) const {
        const fs::path file(root.string() + path);
        fs::create_directories(file.parent_path());
        std::ofstream(file) << text;
    }
    void siblings(int processor, const char* list) const {
        write("/sys/devices/system/cpu/cpu" + std::to_string(processor) + "/topology/thread_siblings_list", std::string(list) + "\n");
    }
    [[nodiscard]] std::size_t threads() const { return p4::detail::concurrency_of_linux(root.string().c_str()); }
};

}  // namespace

TEST_CASE("processors: lists as the system writes them") {
    using p4::detail::read_processors;
    CHECK(read_processors("").none());
    CHECK(read_processors("\n").none());
    CHECK(read_processors("0").count() == 1);
    CHECK(read_processors("0-3,8,10-11\n").count() == 7);
    CHECK(read_processors(" 2-3\n").test(3));
    CHECK(read_processors("8190-9000000").count() == 2);
    CHECK(read_processors("99999999999999999999").none());
    CHECK(read_processors("5-2").none());
}

TEST_CASE("processors: one thread for each core of those that are allowed and switched on") {
    fake_system all("p4_processors_all", "0-7", "0-7");
    CHECK(all.threads() == 8);  // nobody tells of siblings
    for (int i = 0; i < 8; ++i) all.siblings(i, i % 4 == 0 ? "0,4" : i % 4 == 1 ? "1,5" : i % 4 == 2 ? "2,6" : "3,7");
    CHECK(all.threads() == 4);

    fake_system few("p4_processors_few", "1,4-6", "0-7");
    for (int i = 0; i < 8; ++i) few.siblings(i, i % 4 == 0 ? "0,4" : i % 4 == 1 ? "1,5" : i % 4 == 2 ? "2,6" : "3,7");
    CHECK(few.threads() == 3);  // 1 and 5 are one core

    fake_system off("p4_processors_off", "0-255", "0-1");
    CHECK(off.threads() == 2);
}

TEST_CASE("processors: the quota of control groups") {
    fake_system s("p4_processors_quota", "0-15", "0-15");
    CHECK(s.threads() == 16);
    s.write("/proc/self/cgroup", "0::/kubepods/pod1/box\n");
    CHECK(s.threads() == 16);  // no such group below the mount
    s.write("/sys/fs/cgroup/kubepods/pod1/box/cpu.max", "max 100000\n");
    CHECK(s.threads() == 16);
    s.write("/sys/fs/cgroup/kubepods/pod1/cpu.max", "650000 100000\n");  // of a group around it
    CHECK(s.threads() == 6);
    s.write("/sys/fs/cgroup/kubepods/pod1/box/cpu.max", "50000 100000\n");
    CHECK(s.threads() == 1);  // never none
    for (const char* const said : {"nonsense\n", "", "\n", "max\n", "99999999999999999999999 100000\n", "50000 0\n"}) {
        s.write("/sys/fs/cgroup/kubepods/pod1/box/cpu.max", said);
        CAPTURE(said);
        CHECK(s.threads() == 6);
    }
    s.write("/sys/fs/cgroup/kubepods/pod1/box/cpu.max", "400000\n");  // of the usual period
    CHECK(s.threads() == 4);
    s.write("/sys/fs/cgroup/kubepods/pod1/box/cpu.max", "40000 10000\n");
    CHECK(s.threads() == 4);

    fake_system inside("p4_processors_inside", "0-15", "0-15");  // of a container: its own group is the root
    inside.write("/proc/self/cgroup", "0::/\n");
    inside.write("/sys/fs/cgroup/cpu.max", "300000 100000\n");
    CHECK(inside.threads() == 3);

    fake_system old("p4_processors_old", "0-15", "0-15");
    old.write("/proc/self/cgroup", "12:cpuset:/a\n4:cpuacct,cpu:/docker/x\n0::/docker/x\n");
    old.write("/sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us", "-1\n");
    old.write("/sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us", "100000\n");
    CHECK(old.threads() == 16);
    old.write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "250000\n");  // the path is the host's, the mount the container's
    old.write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "50000\n");
    CHECK(old.threads() == 5);
    old.write("/proc/self/cgroup", "12:cpuset:/a\n4:cpuacct:/docker/x\n");
    CHECK(old.threads() == 16);  // not a group of the processor's
}

TEST_CASE("processors: this system") {
    CHECK(p4::default_concurrency() >= 1);
    const auto pool = p4::thread_pool::create(0);
    REQUIRE(pool);
    CHECK(pool->concurrency() == p4::default_concurrency());
#if defined(__linux__)
    CHECK(p4::default_concurrency() <= p4::detail::allowed_processors("").count());
#endif
}

#if defined(__linux__)
TEST_CASE("processors: a system without /proc is asked by a call") {
    const p4::detail::processor_set mine = p4::detail::affinity_of_thread();
    REQUIRE(mine.any());
    CHECK(mine == p4::detail::allowed_processors(""));
    CHECK(p4::detail::concurrency_of_linux("/no/such/place") == mine.count());  // nobody tells of siblings

    // Of what is there, the rest counts: processors that are off, and quotas.
    fake_system some("p4_processors_some", "0", "0-8191");
    fs::remove_all(some.root / "proc");
    CHECK(some.threads() == mine.count());
    some.write("/proc/self/cgroup", "0::/\n");
    some.write("/sys/fs/cgroup/cpu.max", "100000 100000\n");
    CHECK(some.threads() == 1);
    some.write("/sys/fs/cgroup/cpu.max", "max 100000\n");
    some.write("/sys/devices/system/cpu/online", "\n");  // nothing that this process may run on: the standard library's number
    CHECK(some.threads() == std::max(1u, std::thread::hardware_concurrency()));

    std::size_t first = 0;
    while (!mine.test(first)) ++first;
    std::thread([&] {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(first, &one);
        if (sched_setaffinity(0, sizeof one, &one) != 0) return;  // a sandbox may refuse it
        CHECK(p4::detail::affinity_of_thread().count() == 1);
        CHECK(p4::detail::concurrency_of_linux("/no/such/place") == 1);
    }).join();
}
#endif
#endif
