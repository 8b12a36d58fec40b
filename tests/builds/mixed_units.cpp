// Calls the same code as compiled in several ways: results agree, and files compiled differently have different symbols.
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstring>

#define DECLARE(name) const char* unit_##name(float* x, std::size_t n);
DECLARE(scalar)
DECLARE(scalar_again)
#if defined(HAVE_UNIT_highway)
DECLARE(highway)
DECLARE(highway_again)
#endif
#if defined(HAVE_UNIT_scalar_avx2)
DECLARE(scalar_avx2)
#endif
#if defined(HAVE_UNIT_highway_avx2)
DECLARE(highway_avx2)
#endif
#if defined(HAVE_UNIT_xsimd)
DECLARE(xsimd)
DECLARE(xsimd_avx2)
#endif

namespace {

struct unit {
    const char* name;
    const char* (*run)(float*, std::size_t);
    bool needs_avx2;
    const char* same_abi_as;  // another unit, or null if this one must differ from all before it
};

constexpr unit units[] = {
    {"scalar", unit_scalar, false, nullptr},
    {"scalar_again", unit_scalar_again, false, "scalar"},
#if defined(HAVE_UNIT_highway)
    {"highway", unit_highway, false, nullptr},
    {"highway_again", unit_highway_again, false, "highway"},
#endif
#if defined(HAVE_UNIT_scalar_avx2)
    {"scalar_avx2", unit_scalar_avx2, true, nullptr},
#endif
#if defined(HAVE_UNIT_highway_avx2)
    {"highway_avx2", unit_highway_avx2, true, nullptr},
#endif
#if defined(HAVE_UNIT_xsimd)
    {"xsimd", unit_xsimd, false, nullptr},
    {"xsimd_avx2", unit_xsimd_avx2, true, nullptr},
#endif
};
constexpr std::size_t n_units = sizeof units / sizeof units[0];

bool cpu_has_avx2() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
#else
    return false;
#endif
}

constexpr std::size_t n = 37;
void fill(float (&x)[n]) {
    for (std::size_t i = 0; i < n; ++i) x[i] = static_cast<float>(i % 11) * 0.5f - static_cast<float>(i) * 0.1f;
}

}  // namespace

int main() {
    float want[n];
    fill(want);
    double sum = 0;
    for (float& x : want) sum += std::exp(static_cast<double>(x));
    for (float& x : want) x = static_cast<float>(std::exp(static_cast<double>(x)) / sum);

    int failures = 0;
    const char* abi[n_units] = {};
    for (std::size_t u = 0; u < n_units; ++u) {
        if (units[u].needs_avx2 && !cpu_has_avx2()) continue;
        float x[n];
        fill(x);
        abi[u] = units[u].run(x, n);
        std::printf("%s: %s\n", units[u].name, abi[u]);
        for (std::size_t i = 0; i < n; ++i) {
            if (!(std::fabs(x[i] - want[i]) <= 1e-6f)) {
                std::printf("  softmax[%zu]: want %g, have %g\n", i, static_cast<double>(want[i]), static_cast<double>(x[i]));
                ++failures;
            }
        }
        for (std::size_t v = 0; v < u; ++v) {
            if (abi[v] == nullptr) continue;
            const bool same = std::strcmp(abi[u], abi[v]) == 0;
            const bool want_same = units[u].same_abi_as != nullptr && std::strcmp(units[u].same_abi_as, units[v].name) == 0;
            if (same != want_same) {
                std::printf("  ABI namespace %s the one of %s\n", same ? "must differ from" : "must equal", units[v].name);
                ++failures;
            }
        }
    }
    return failures != 0;
}
