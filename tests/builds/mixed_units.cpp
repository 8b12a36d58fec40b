// Calls the same code as compiled in several ways: every answer is right, and files compiled differently have different symbols.
//
//     mixed_units FOLDER                       all of them, linked into this program
//     mixed_units FOLDER NAME=PLUGIN...        each pair, loaded in either order with RTLD_GLOBAL, in a process of its own
//     mixed_units FOLDER --unload NAME=PLUGIN  one, which is gone from memory after dlclose
#include "unit.hpp"

#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

// units.inc, made by CMake: UNIT(name, name of the unit whose ABI it shares or nothing, whether it needs AVX2)
#define UNIT(name, same_abi_as, needs_avx2) extern "C" void unit_##name(unit_report& report, const char* folder);
#include "units.inc"
#undef UNIT

namespace {

struct unit {
    std::string name;
    void (*run)(unit_report&, const char*);
    std::string same_abi_as;
    bool needs_avx2;
};

const std::vector<unit> units{
#define UNIT(name, same_abi_as, needs_avx2) {#name, &unit_##name, #same_abi_as, needs_avx2},
#include "units.inc"
#undef UNIT
};

bool runs_here(const unit& u) {
#if defined(__x86_64__)
    return !u.needs_avx2 || (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"));
#else
    return !u.needs_avx2;
#endif
}

/// Returns how much was wrong.
int check(const char* name, void (*run)(unit_report&, const char*), const char* folder, const char* beside) {
    unit_report report{};
    run(report, folder);
    if (report.wrong[0] == '\0') return 0;
    std::printf("%s%s: %s\n", name, beside, report.wrong);
    return 1;
}

int check_linked(const char* folder) {
    int failures = 0;
    std::vector<std::string> abi(units.size());
    for (std::size_t u = 0; u < units.size(); ++u) {
        unit_report report{};
        if (!runs_here(units[u])) continue;
        units[u].run(report, folder);
        abi[u] = report.abi;
        std::printf("%s: %s\n", units[u].name.c_str(), report.abi);
        failures += check(units[u].name.c_str(), units[u].run, folder, "");
        for (std::size_t v = 0; v < u; ++v) {
            const auto kind = [&](std::size_t i) { return units[i].same_abi_as.empty() ? units[i].name : units[i].same_abi_as; };
            if (abi[v].empty() || (abi[u] == abi[v]) == (kind(u) == kind(v))) continue;
            std::printf("  the ABI namespace %s the one of %s\n", abi[u] == abi[v] ? "must differ from" : "must equal", units[v].name.c_str());
            ++failures;
        }
    }
    return failures;
}

/// In a process of its own: loads two plugins, and asks both.
int check_pair(const std::string& first, const std::string& second, const char* folder) {
    int failures = 0;
    void (*run[2])(unit_report&, const char*) = {};
    const std::string* const plugins[2] = {&first, &second};
    for (int i = 0; i < 2; ++i) {
        const std::size_t equals = plugins[i]->find('=');
        const std::string name = "unit_" + plugins[i]->substr(0, equals);
        void* const handle = dlopen(plugins[i]->c_str() + equals + 1, RTLD_NOW | RTLD_GLOBAL);
        if (handle != nullptr) *reinterpret_cast<void**>(&run[i]) = dlsym(handle, name.c_str());
        if (run[i] == nullptr) {
            std::printf("%s: %s\n", name.c_str(), dlerror());
            return 1;
        }
    }
    for (int i = 0; i < 2; ++i) failures += check(plugins[i]->c_str(), run[i], folder, (" beside " + *plugins[1 - i]).c_str());
    return failures;
}

bool is_mapped(const char* path) {
    std::FILE* const maps = std::fopen("/proc/self/maps", "r");
    bool found = maps == nullptr;
    char line[4096];
    while (maps != nullptr && std::fgets(line, sizeof line, maps) != nullptr) found = found || std::strstr(line, path) != nullptr;
    if (maps != nullptr) std::fclose(maps);
    return found;
}

int check_unloading(const std::string& plugin, const char* folder) {
    const std::size_t equals = plugin.find('=');
    const char* const path = plugin.c_str() + equals + 1;
    for (int turn = 0; turn < 2; ++turn) {
        void* const handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
        void (*run)(unit_report&, const char*) = nullptr;
        if (handle != nullptr) *reinterpret_cast<void**>(&run) = dlsym(handle, ("unit_" + plugin.substr(0, equals)).c_str());
        if (run == nullptr) return std::printf("%s: %s\n", path, dlerror()), 1;
        if (!is_mapped(path)) return std::printf("%s is loaded, and not in /proc/self/maps\n", path), 1;
        if (check(plugin.c_str(), run, folder, "") != 0) return 1;
        if (dlclose(handle) != 0) return std::printf("%s: %s\n", path, dlerror()), 1;
        if (is_mapped(path)) return std::printf("%s is still there after dlclose\n", path), 1;
    }
    return 0;
}

int check_pairs(const std::vector<std::string>& plugins, const char* folder) {
    int failures = 0;
    int pairs = 0;
    for (const std::string& first : plugins) {
        for (const std::string& second : plugins) {
            if (first == second) continue;
            ++pairs;
            std::fflush(stdout);
            const pid_t child = fork();
            if (child == 0) {
                const int wrong = check_pair(first, second, folder);
                std::fflush(stdout);
                _exit(wrong != 0);
            }
            int how = 0;
            if (child < 0 || waitpid(child, &how, 0) != child || !WIFEXITED(how) || WEXITSTATUS(how) != 0) {
                std::printf("%s, then %s: failed (%d)\n", first.c_str(), second.c_str(), how);
                ++failures;
            }
        }
    }
    std::printf("%d pairs, %d failed\n", pairs, failures);
    return failures + (pairs == 0 ? 1 : 0);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) return std::fprintf(stderr, "want a model's folder\n"), 2;
    if (argc == 2) return check_linked(argv[1]) != 0;
    if (argc == 4 && std::strcmp(argv[2], "--unload") == 0) return check_unloading(argv[3], argv[1]);
    std::vector<std::string> plugins;
    for (int i = 2; i < argc; ++i) {
        const std::string name(argv[i], std::strcspn(argv[i], "="));
        for (const unit& u : units)
            if (u.name == name && runs_here(u)) plugins.emplace_back(argv[i]);
    }
    return check_pairs(plugins, argv[1]) != 0;
}
