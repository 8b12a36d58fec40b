#pragma once
/// How many threads are worth starting: one for each core that this process may run on, and no more than its control group pays for. On
/// Linux from /proc and /sys and the thread's affinity, on macOS the cores for performance, elsewhere what the standard library says.
/// Takes no memory. @since 0.2
#include <phi4flash/config/abi.hpp>

#if PHI4FLASH_THREADS
#include <algorithm>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <thread>

#if defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__linux__)
#include <sched.h>
#endif

PHI4FLASH_BEGIN

namespace detail {

/// Processors by number; more than any system has.
using processor_set = std::bitset<8192>;

/// "0-3,8,10-11", as the system writes it.
[[nodiscard]] inline processor_set read_processors(const char* list) {
    processor_set set;
    while (true) {
        char* end = nullptr;
        const unsigned long first = std::strtoul(list, &end, 10);
        if (end == list) return set;
        const unsigned long last = *end == '-' ? std::strtoul(end + 1, &end, 10) : first;
        for (unsigned long i = first; i <= last && i < set.size(); ++i) set.set(i);
        list = *end == ',' ? end + 1 : end;
    }
}

/// A text file of the system, line by line. `root` is put before the path, which makes a test.
class system_file {
public:
    system_file(const char* root, const char* path) {
        char name[5120];
        const int n = std::snprintf(name, sizeof name, "%s%s", root, path);
        if (n > 0 && static_cast<std::size_t>(n) < sizeof name) file_ = std::fopen(name, "r");
    }
    ~system_file() {
        if (file_ != nullptr) std::fclose(file_);
    }
    system_file(const system_file&) = delete;
    system_file& operator=(const system_file&) = delete;

    /// The next line, or nullptr. Valid until the next call.
    [[nodiscard]] char* next() { return file_ == nullptr ? nullptr : std::fgets(line_, sizeof line_, file_); }

private:
    std::FILE* file_ = nullptr;
    char line_[4608];
};

/// Processors that the calling thread may run on, from the system call; empty where it is refused. It does not need /proc.
[[nodiscard]] inline processor_set affinity_of_thread() {
    processor_set set;
#if defined(__linux__)
    constexpr std::size_t word_bits = 8 * sizeof(unsigned long);
    unsigned long words[set.size() / word_bits] = {};  // cpu_set_t is too small for the largest machines
    if (sched_getaffinity(0, sizeof words, reinterpret_cast<cpu_set_t*>(words)) == 0)
        for (std::size_t i = 0; i < set.size(); ++i) set.set(i, (words[i / word_bits] >> (i % word_bits) & 1u) != 0);
#endif
    return set;
}

/// Processors that the calling thread may run on and that are switched on; empty where the system does not tell.
[[nodiscard]] inline processor_set allowed_processors(const char* root) {
    constexpr char key[] = "Cpus_allowed_list:";
    processor_set allowed;
    system_file status(root, "/proc/thread-self/status");
    while (const char* const line = status.next())
        if (std::strncmp(line, key, sizeof key - 1) == 0) allowed = read_processors(line + sizeof key - 1);
    if (allowed.none()) allowed = affinity_of_thread();  // a chroot without /proc, or one that hides it
    system_file online(root, "/sys/devices/system/cpu/online");
    if (const char* const line = online.next()) allowed &= read_processors(line);
    return allowed;
}

/// Cores with at least one processor of the set. A core whose siblings are not told is one processor.
[[nodiscard]] inline std::size_t count_cores(const char* root, const processor_set& processors) {
    std::size_t cores = 0;
    processor_set seen;
    for (std::size_t i = 0; i < processors.size(); ++i) {
        if (!processors.test(i)) continue;
        cores += seen.test(i) ? 0u : 1u;
        char path[96];
        std::snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/topology/thread_siblings_list", i);
        system_file siblings(root, path);
        if (const char* const line = siblings.next()) seen |= read_processors(line);
    }
    return cores;
}

/// Whole processors that one control group pays for, or SIZE_MAX. `file`: cpu.max ("150000 100000", "max 100000") of version 2, or
/// cpu.cfs_quota_us (-1: all) of version 1, whose period stands in a file of its own.
[[nodiscard]] inline std::size_t quota_of_group(const char* root, const char* folder, bool version_2) {
    char path[4800];
    long long quota = -1;
    long long period = 100000;
    std::snprintf(path, sizeof path, "%s/%s", folder, version_2 ? "cpu.max" : "cpu.cfs_quota_us");
    system_file file(root, path);
    const auto take_number = [](const char*& text, long long& number) {  // not by std::sscanf, which is 80 KB of a static program
        char* end = nullptr;
        const long long taken = std::strtoll(text, &end, 10);
        if (end == text) return false;
        number = taken;
        text = end;
        return true;
    };
    if (const char* line = file.next(); line != nullptr && take_number(line, quota)) (void)take_number(line, period);
    if (!version_2) {
        std::snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
        system_file other(root, path);
        if (const char* line = other.next()) (void)take_number(line, period);
    }
    return quota <= 0 || period <= 0 ? SIZE_MAX : static_cast<std::size_t>((std::max)(1LL, quota / period));
}

/// The least of a control group and the groups that it is part of. `group` is changed: it is cut step by step.
[[nodiscard]] inline std::size_t quota_of_groups(const char* root, const char* mount, char* group, bool version_2) {
    std::size_t least = SIZE_MAX;
    while (true) {
        char folder[4700];
        std::snprintf(folder, sizeof folder, "%s%s", mount, group);
        least = (std::min)(least, quota_of_group(root, folder, version_2));
        char* const last = std::strrchr(group, '/');
        if (last == nullptr) return least;
        *last = '\0';
    }
}

/// Whether "cpu" is one of "cpu,cpuacct".
[[nodiscard]] inline bool has_cpu(std::string_view controllers) {
    while (true) {
        const std::size_t comma = controllers.find(',');
        if (controllers.substr(0, comma) == "cpu") return true;
        if (comma == std::string_view::npos) return false;
        controllers.remove_prefix(comma + 1);
    }
}

/// Whole processors that the control groups of this process pay for, or SIZE_MAX. The usual places of both versions.
[[nodiscard]] inline std::size_t processor_quota(const char* root) {
    constexpr const char* places[2][2] = {{"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"}, {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}};
    std::size_t least = SIZE_MAX;
    system_file groups(root, "/proc/self/cgroup");
    while (char* const line = groups.next()) {  // "0::/group" of version 2, "4:cpu,cpuacct:/group" of version 1
        line[std::strcspn(line, "\n")] = '\0';
        char* const controllers = std::strchr(line, ':');
        char* const path = controllers == nullptr ? nullptr : std::strchr(controllers + 1, ':');
        if (path == nullptr) continue;
        const std::string_view names(controllers + 1, static_cast<std::size_t>(path - controllers - 1));
        const bool version_2 = names.empty();
        if (!version_2 && !has_cpu(names)) continue;
        for (const char* const mount : places[version_2 ? 1 : 0]) {
            char group[4608];
            std::snprintf(group, sizeof group, "%s", path + 1);
            least = (std::min)(least, quota_of_groups(root, mount, group, version_2));
        }
    }
    return least;
}

/// From the files of Linux below `root`, and from system calls where they are not there; at least one.
[[nodiscard]] inline std::size_t concurrency_of_linux(const char* root) {
    const processor_set allowed = allowed_processors(root);
    const std::size_t cores = allowed.any() ? count_cores(root, allowed) : std::thread::hardware_concurrency();
    return (std::max)(std::size_t{1}, (std::min)(cores, processor_quota(root)));
}

}  // namespace detail

/// Threads for a pool where nobody says how many; at least one. A second thread on a core adds nothing to what is bound by memory or by the
/// core's vectors; one beyond the quota stands still for the rest of every period, and everybody waits for it. Reads some files: for starts.
[[nodiscard]] inline std::size_t default_concurrency() {
#if defined(__linux__)
    return detail::concurrency_of_linux("");
#elif defined(__APPLE__)
    for (const char* const name : {"hw.perflevel0.physicalcpu", "hw.physicalcpu"}) {
        int cores = 0;
        std::size_t size = sizeof cores;
        if (sysctlbyname(name, &cores, &size, nullptr, 0) == 0 && cores > 0) return static_cast<std::size_t>(cores);
    }
    return 1;
#else
    return std::max<std::size_t>(1, std::thread::hardware_concurrency());
#endif
}

PHI4FLASH_END
#endif  // PHI4FLASH_THREADS
