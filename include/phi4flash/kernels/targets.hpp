#pragma once
/// Which targets this program carries, which of them this machine can run, and how to ask for one.
#include <phi4flash/core/result.hpp>
#include <phi4flash/kernels/kernel_table.hpp>

#include <string_view>

PHI4FLASH_BEGIN

/// A compiled target: its kernels, and whether this machine can run them.
struct kernel_target {
    const kernel_table* kernels;
    bool runs_here;
    /// Asks the system for what the kernels need, on behalf of the process; false: refused. Null for targets that need nothing.
    bool (*ask)() = nullptr;

    /// True if the kernels may be called now. Asks the system where they need it: for whoever takes kernels out of the list by hand.
    [[nodiscard]] bool request() const { return runs_here && (ask == nullptr || ask()); }
};

inline constexpr std::size_t max_kernel_targets = 8;  ///< of a list
/// The targets of this program, the best first. Not empty, and the last one always runs and needs nothing.
struct kernel_target_list {
    kernel_target target[max_kernel_targets];
    std::size_t count;
    [[nodiscard]] const kernel_target* begin() const { return target; }
    [[nodiscard]] const kernel_target* end() const { return target + count; }
};

/// All targets in this program. Any thread, any time: it computes everything anew, and asks the system for nothing.
/// Defined where the kernels are compiled: in every file, or in one (see PHI4FLASH_COMPILE_ONCE).
#if PHI4FLASH_COMPILE_ONCE
[[nodiscard]] kernel_target_list kernel_targets();
#else
[[nodiscard]] inline kernel_target_list kernel_targets();
#endif

/// What the choice of kernels may use. @since 0.2
struct kernel_choice {
    /// Matrix tiles (AMX), for whose registers Linux has to be asked on behalf of the whole process: from then on it refuses signal stacks
    /// that are too small for them (some 11 KiB). False leaves them out and asks for nothing.
    bool matrix_tiles = true;
};

namespace detail {
[[nodiscard]] inline const kernel_table& best_of(const kernel_target_list& all, kernel_choice choice) {
    for (const kernel_target& t : all) {
        if ((choice.matrix_tiles || t.ask == nullptr) && t.request()) return *t.kernels;
    }
    return *all.target[all.count - 1].kernels;
}

[[nodiscard]] inline result<const kernel_table*> named_of(const kernel_target_list& all, std::string_view name) {
    char available[160] = {};
    std::size_t used = 0;
    for (const kernel_target& t : all) {
        if (!t.runs_here) continue;
        if (name == t.kernels->name) {
            if (t.request()) return t.kernels;
            return error::format(errc::unknown_target,
                                 "the system refuses this process what SIMD target \"%s\" needs: the registers of matrix tiles (a thread may "
                                 "have a signal stack too small for them)",
                                 t.kernels->name);
        }
        const int n = std::snprintf(available + used, sizeof available - used, " %s", t.kernels->name);
        if (n > 0 && used + static_cast<std::size_t>(n) < sizeof available) used += static_cast<std::size_t>(n);
    }
    return error::format(errc::unknown_target, "no SIMD target \"%.*s\" here: want one of%s", static_cast<int>(name.size()), name.data(), available);
}
}  // namespace detail

/// The best kernels that this machine can run. Asks the system for matrix tiles where they are the best; where it refuses, the next best.
[[nodiscard]] inline const kernel_table& best_kernels(kernel_choice choice = {}) { return detail::best_of(kernel_targets(), choice); }

/// The kernels of the target called `name` ("avx2", "neon", "scalar" ...); an empty name means the best. Asks the system for nothing that
/// another target needs. Errors: unknown_target, naming the targets that this program has and this machine can run, or what the system refused.
[[nodiscard]] inline result<const kernel_table*> kernels_named(std::string_view name) {
    if (name.empty()) return &best_kernels();
    return detail::named_of(kernel_targets(), name);
}

PHI4FLASH_END
