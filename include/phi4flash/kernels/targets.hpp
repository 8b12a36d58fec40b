#pragma once
/// Which targets this program carries, which of them this machine can run, and how to ask for one.
#include <phi4flash/core/result.hpp>
#include <phi4flash/kernels/kernel_table.hpp>

#include <span>
#include <string_view>

PHI4FLASH_BEGIN

/// A compiled target: its kernels, and whether this CPU can run them.
struct kernel_target {
    const kernel_table* kernels;
    bool runs_here;
};

/// All targets in this program, best first. Not empty, and the last one always runs. Thread-safe: it computes everything anew.
inline constexpr std::size_t max_kernel_targets = 8;
struct kernel_target_list {
    kernel_target target[max_kernel_targets];
    std::size_t count;
    [[nodiscard]] const kernel_target* begin() const { return target; }
    [[nodiscard]] const kernel_target* end() const { return target + count; }
};

/// Defined where the kernels are compiled: in every file, or in one (see PHI4FLASH_COMPILE_ONCE).
#if PHI4FLASH_COMPILE_ONCE
[[nodiscard]] kernel_target_list kernel_targets();
#else
[[nodiscard]] inline kernel_target_list kernel_targets();
#endif

/// The best kernels that this machine can run.
[[nodiscard]] inline const kernel_table& best_kernels() {
    const kernel_target_list all = kernel_targets();
    for (const kernel_target& t : all) {
        if (t.runs_here) return *t.kernels;
    }
    return *all.target[all.count - 1].kernels;
}

/// The kernels of the target called `name` ("avx2", "neon", "scalar" ...); an empty name means the best.
/// Errors: unknown_target, naming the targets that this program has and this machine can run.
[[nodiscard]] inline result<const kernel_table*> kernels_named(std::string_view name) {
    if (name.empty()) return &best_kernels();
    char available[160] = {};
    std::size_t used = 0;
    for (const kernel_target& t : kernel_targets()) {
        if (!t.runs_here) continue;
        if (name == t.kernels->name) return t.kernels;
        const int n = std::snprintf(available + used, sizeof available - used, " %s", t.kernels->name);
        if (n > 0 && used + static_cast<std::size_t>(n) < sizeof available) used += static_cast<std::size_t>(n);
    }
    return error::format(errc::unknown_target, "no SIMD target \"%.*s\" here: want one of%s", static_cast<int>(name.size()), name.data(), available);
}

PHI4FLASH_END
