#pragma once
/// Which instruction sets this CPU and its operating system offer: x86 and aarch64. Nothing is cached: asking costs microseconds and
/// happens once per model.
#include <phi4flash/config/abi.hpp>

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)
#define PHI4FLASH_ARCH_X86 1
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#else
#define PHI4FLASH_ARCH_X86 0
#endif

#if defined(__aarch64__) || defined(_M_ARM64)
#define PHI4FLASH_ARCH_ARM64 1
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#else
#define PHI4FLASH_ARCH_ARM64 0
#endif

#if PHI4FLASH_AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif

PHI4FLASH_BEGIN

/// Nested sets: each level has everything that the levels before it have, and everything that Highway's target of the
/// same name may emit; amx is avx3_zen4 with matrix tiles of bytes.
enum class x86_level : std::uint8_t { baseline, ssse3, sse4, avx2, avx3, avx3_dl, avx3_zen4, amx };

#if PHI4FLASH_ARCH_X86

namespace detail {

struct cpuid_registers {
    std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

[[nodiscard]] inline cpuid_registers cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
    cpuid_registers r;
#if defined(_MSC_VER)
    int words[4];
    __cpuidex(words, static_cast<int>(leaf), static_cast<int>(subleaf));
    r = {static_cast<std::uint32_t>(words[0]), static_cast<std::uint32_t>(words[1]), static_cast<std::uint32_t>(words[2]),
         static_cast<std::uint32_t>(words[3])};
#else
    __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
#endif
    return r;
}

/// Which register states the operating system saves (XCR0); only valid where OSXSAVE is set.
[[nodiscard]] inline std::uint64_t saved_states() {
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    std::uint32_t low = 0;
    std::uint32_t high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<std::uint64_t>(high) << 32) | low;
#endif
}

[[nodiscard]] constexpr bool has_bits(std::uint64_t word, std::uint64_t bits) { return (word & bits) == bits; }
[[nodiscard]] constexpr std::uint32_t one_bit(unsigned i) { return std::uint32_t{1} << i; }

/// Whether this system gives the registers of tiles to those who ask. Asks for nothing.
[[nodiscard]] inline bool system_has_tiles() {
#if PHI4FLASH_AMX
    constexpr long get_supported = 0x1021;  // ARCH_GET_XCOMP_SUPP
    constexpr std::uint64_t tiles = 0x60000;
    std::uint64_t supported = 0;
    return syscall(SYS_arch_prctl, get_supported, &supported) == 0 && has_bits(supported, tiles);
#else
    return false;
#endif
}

}  // namespace detail

/// Asks Linux for the registers of tiles on behalf of the whole process, 8 KiB a thread that the kernel saves only for those who ask;
/// false where it refuses, as where a thread has an alternative signal stack too small for them. From then on signal stacks too small
/// for them are refused (sigaltstack: ENOMEM). Asking again is free. Only for an x86_level of amx.
[[nodiscard]] inline bool request_tiles() {
#if PHI4FLASH_AMX
    constexpr long request_permission = 0x1023;  // ARCH_REQ_XCOMP_PERM
    constexpr long tile_data = 18;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}

/// The highest level of this machine. Every feature that a level implies is tested, not a representative one. Asks the system for nothing:
/// tiles are used after request_tiles().
[[nodiscard]] inline x86_level detect_x86_level() {
    using detail::has_bits;
    using detail::one_bit;
    const std::uint32_t highest = detail::cpuid(0, 0).eax;
    const detail::cpuid_registers one = detail::cpuid(1, 0);
    const detail::cpuid_registers seven = highest >= 7 ? detail::cpuid(7, 0) : detail::cpuid_registers{};
    const detail::cpuid_registers seven_one = highest >= 7 && seven.eax >= 1 ? detail::cpuid(7, 1) : detail::cpuid_registers{};

    // SSE3, SSSE3
    if (!has_bits(one.ecx, one_bit(0) | one_bit(9))) return x86_level::baseline;
    // PCLMUL, SSE4.1, SSE4.2, AES
    if (!has_bits(one.ecx, one_bit(1) | one_bit(19) | one_bit(20) | one_bit(25))) return x86_level::ssse3;
    const bool os_saves = has_bits(one.ecx, one_bit(27));  // OSXSAVE
    const std::uint64_t states = os_saves ? detail::saved_states() : 0;
    // AVX, FMA, F16C; AVX2, BMI1, BMI2
    const bool avx = has_bits(states, 0x6) && has_bits(one.ecx, one_bit(28) | one_bit(12) | one_bit(29));
    if (!avx || !has_bits(seven.ebx, one_bit(5) | one_bit(3) | one_bit(8))) return x86_level::sse4;
    // AVX-512 F, DQ, CD, BW, VL
    const std::uint32_t avx512 = one_bit(16) | one_bit(17) | one_bit(28) | one_bit(30) | one_bit(31);
    if (!has_bits(states, 0xe6) || !has_bits(seven.ebx, avx512)) return x86_level::avx2;
    // VBMI, VBMI2, GFNI, VAES, VPCLMULQDQ, VNNI, BITALG, VPOPCNTDQ
    const std::uint32_t icelake = one_bit(1) | one_bit(6) | one_bit(8) | one_bit(9) | one_bit(10) | one_bit(11) | one_bit(12) | one_bit(14);
    if (!has_bits(seven.ecx, icelake)) return x86_level::avx3;
    // AVX512_BF16
    if (!has_bits(seven_one.eax, one_bit(5))) return x86_level::avx3_dl;
    // AMX: BF16, TILE, INT8
    const bool tiles = has_bits(states, 0x60000) && has_bits(seven.edx, one_bit(22) | one_bit(24) | one_bit(25));
    return tiles && detail::system_has_tiles() ? x86_level::amx : x86_level::avx3_zen4;
}

/// Products of bytes that are summed into 32 bits (VNNI), in vectors of 64 bytes: of a CPU of at least avx3.
[[nodiscard]] inline bool has_avx512_vnni() {
    return detail::cpuid(0, 0).eax >= 7 && detail::has_bits(detail::cpuid(7, 0).ecx, detail::one_bit(11));
}
/// In vectors of 32 bytes: of a CPU of at least avx2.
[[nodiscard]] inline bool has_avx_vnni() {
    return detail::cpuid(0, 0).eax >= 7 && detail::cpuid(7, 0).eax >= 1 && detail::has_bits(detail::cpuid(7, 1).eax, detail::one_bit(4));
}

#endif

#if PHI4FLASH_ARCH_ARM64

/// Has this aarch64 CPU, beside NEON, four products of bytes, summed into 32 bits? The system knows, and alone may be asked: Linux and macOS.
/// Elsewhere nothing is known, and NEON serves.
[[nodiscard]] inline bool has_dot_products() {
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & (1ul << 20)) != 0;  // HWCAP_ASIMDDP, which older headers do not name
#elif defined(__APPLE__)
    int yes = 0;
    std::size_t size = sizeof yes;
    return sysctlbyname("hw.optional.arm.FEAT_DotProd", &yes, &size, nullptr, 0) == 0 && yes != 0;
#else
    return false;
#endif
}

#endif

PHI4FLASH_END
