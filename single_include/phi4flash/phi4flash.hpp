// phi4flash 0.1.0: the whole library in one header.
// Made by tools/amalgamate.py from include/phi4flash; change that, not this.
//
// MIT License
//
// Copyright (c) 2026 phi4flash authors
//
// Permission is hereby granted, free of charge, to any person obtaining a copy
// of this software and associated documentation files (the "Software"), to deal
// in the Software without restriction, including without limitation the rights
// to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
// copies of the Software, and to permit persons to whom the Software is
// furnished to do so, subject to the following conditions:
//
// The above copyright notice and this permission notice shall be included in all
// copies or substantial portions of the Software.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
// IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
// FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
// AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
// LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
// OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
// SOFTWARE.
#ifndef PHI4FLASH_SINGLE_HEADER_INCLUDED
#define PHI4FLASH_SINGLE_HEADER_INCLUDED 1

// ---- phi4flash/phi4flash.hpp ---------------------------------------------------------------------------------------------
/// phi4flash: Microsoft's Phi-4-mini-flash-reasoning (SambaY) on ordinary CPUs. The spine: includes and nothing else.

// What everything stands on.

// ---- phi4flash/config/abi.hpp --------------------------------------------------------------------------------------------
/// The inline ABI namespace: version, back end and static instruction set are part of every symbol's name, so two
/// translation units built with different flags can be linked together and never share a function by accident.

// ---- phi4flash/config/macros.hpp -----------------------------------------------------------------------------------------
/// Every switch of the library. A user sets one before the include (or with -D); each is always defined
/// afterwards, as 0 or 1, so that a mistyped name is a preprocessor warning (-Wundef) and not a silent "no".

/// Vector back end: set exactly one of these to 1, or none for the best that the include path offers
/// (Highway 1.2 or newer, then xsimd 13 or newer, then scalar).
#ifndef PHI4FLASH_SIMD_HIGHWAY
#define PHI4FLASH_SIMD_HIGHWAY 0
#endif
#ifndef PHI4FLASH_SIMD_XSIMD
#define PHI4FLASH_SIMD_XSIMD 0
#endif
#ifndef PHI4FLASH_SIMD_SCALAR
#define PHI4FLASH_SIMD_SCALAR 0
#endif

#if PHI4FLASH_SIMD_HIGHWAY + PHI4FLASH_SIMD_XSIMD + PHI4FLASH_SIMD_SCALAR > 1
#error "phi4flash: set only one of PHI4FLASH_SIMD_HIGHWAY, PHI4FLASH_SIMD_XSIMD and PHI4FLASH_SIMD_SCALAR to 1"
#endif

#if PHI4FLASH_SIMD_HIGHWAY + PHI4FLASH_SIMD_XSIMD + PHI4FLASH_SIMD_SCALAR == 0
#if defined(__has_include)
#if __has_include(<hwy/base.h>)
// Releases before 1.2.0 lack HWY_VERSION_GE; they also lack targets and operations that the kernels use.
#include <hwy/base.h>
#if defined(HWY_VERSION_GE)
#undef PHI4FLASH_SIMD_HIGHWAY
#define PHI4FLASH_SIMD_HIGHWAY 1
#endif
#endif
#if !PHI4FLASH_SIMD_HIGHWAY && __has_include(<xsimd/config/xsimd_config.hpp>)
#include <xsimd/config/xsimd_config.hpp>
#if XSIMD_VERSION_MAJOR >= 13
#undef PHI4FLASH_SIMD_XSIMD
#define PHI4FLASH_SIMD_XSIMD 1
#endif
#endif
#endif
#if !PHI4FLASH_SIMD_HIGHWAY && !PHI4FLASH_SIMD_XSIMD
#undef PHI4FLASH_SIMD_SCALAR
#define PHI4FLASH_SIMD_SCALAR 1
#endif
#endif

/// Highway only: 1 compiles the kernels for the static target alone (fast builds, firmware), 0 for every target
/// that the compiler can attain, chosen at run time.
#ifndef PHI4FLASH_STATIC_DISPATCH
#define PHI4FLASH_STATIC_DISPATCH 0
#endif

/// Compile-once mode. Every file of the project sets PHI4FLASH_COMPILE_ONCE to 1 (kernels are then only declared);
/// exactly one of them also sets PHI4FLASH_IMPLEMENTATION to 1 before the include and gets the definitions.
#ifndef PHI4FLASH_COMPILE_ONCE
#define PHI4FLASH_COMPILE_ONCE 0
#endif
#ifndef PHI4FLASH_IMPLEMENTATION
#define PHI4FLASH_IMPLEMENTATION 0
#endif

/// 1 where nlohmann/json is on the include path: the optional Hugging Face headers are then part of phi4flash.hpp.
#ifndef PHI4FLASH_HAS_JSON
#if defined(__has_include)
#if __has_include(<nlohmann/json.hpp>)
#define PHI4FLASH_HAS_JSON 1
#endif
#endif
#endif
#ifndef PHI4FLASH_HAS_JSON
#define PHI4FLASH_HAS_JSON 0
#endif

/// printf-style checking of error sentences where the compiler knows how.
#if defined(__GNUC__) || defined(__clang__)
#define PHI4FLASH_PRINTF_LIKE(format_index, first_argument) __attribute__((format(printf, format_index, first_argument)))
#define PHI4FLASH_RESTRICT __restrict__
#elif defined(_MSC_VER)
#define PHI4FLASH_PRINTF_LIKE(format_index, first_argument)
#define PHI4FLASH_RESTRICT __restrict
#else
#define PHI4FLASH_PRINTF_LIKE(format_index, first_argument)
#define PHI4FLASH_RESTRICT
#endif

// ---- phi4flash/config/version.hpp ----------------------------------------------------------------------------------------
/// Version of the library, semantic versioning. The ABI namespace carries major and minor.

#define PHI4FLASH_VERSION_MAJOR 0
#define PHI4FLASH_VERSION_MINOR 1
#define PHI4FLASH_VERSION_PATCH 0
#define PHI4FLASH_VERSION_STRING "0.1.0"

#if PHI4FLASH_SIMD_HIGHWAY && PHI4FLASH_STATIC_DISPATCH
#define PHI4FLASH_ABI_BACK_END highway_static
#elif PHI4FLASH_SIMD_HIGHWAY
#define PHI4FLASH_ABI_BACK_END highway
#elif PHI4FLASH_SIMD_XSIMD
#define PHI4FLASH_ABI_BACK_END xsimd
#else
#define PHI4FLASH_ABI_BACK_END scalar
#endif

#if defined(__AVX512BF16__)
#define PHI4FLASH_ABI_ISA avx512bf16
#elif defined(__AVX512VNNI__)
#define PHI4FLASH_ABI_ISA avx512vnni
#elif defined(__AVX512BW__)
#define PHI4FLASH_ABI_ISA avx512bw
#elif defined(__AVX512F__)
#define PHI4FLASH_ABI_ISA avx512f
#elif defined(__AVX2__) && defined(__FMA__)
#define PHI4FLASH_ABI_ISA avx2fma
#elif defined(__AVX2__)
#define PHI4FLASH_ABI_ISA avx2
#elif defined(__AVX__)
#define PHI4FLASH_ABI_ISA avx
#elif defined(__SSE4_2__)
#define PHI4FLASH_ABI_ISA sse42
#elif defined(__SSE4_1__)
#define PHI4FLASH_ABI_ISA sse41
#elif defined(__SSSE3__)
#define PHI4FLASH_ABI_ISA ssse3
#elif defined(__x86_64__) || defined(_M_X64)
#define PHI4FLASH_ABI_ISA x86_64
#elif defined(__ARM_FEATURE_SVE)
#define PHI4FLASH_ABI_ISA sve
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define PHI4FLASH_ABI_ISA neon_bf16
#elif defined(__ARM_NEON) || defined(_M_ARM64)
#define PHI4FLASH_ABI_ISA neon
#elif defined(__riscv_vector)
#define PHI4FLASH_ABI_ISA rvv
#elif defined(__wasm_simd128__)
#define PHI4FLASH_ABI_ISA wasm128
#else
#define PHI4FLASH_ABI_ISA generic
#endif

#define PHI4FLASH_ABI_JOIN_(major, minor, back_end, isa) v##major##_##minor##_##back_end##_##isa
#define PHI4FLASH_ABI_JOIN(major, minor, back_end, isa) PHI4FLASH_ABI_JOIN_(major, minor, back_end, isa)
#define PHI4FLASH_ABI \
    PHI4FLASH_ABI_JOIN(PHI4FLASH_VERSION_MAJOR, PHI4FLASH_VERSION_MINOR, PHI4FLASH_ABI_BACK_END, PHI4FLASH_ABI_ISA)

#define PHI4FLASH_BEGIN      \
    namespace phi4flash {    \
    inline namespace PHI4FLASH_ABI {
#define PHI4FLASH_END \
    }                 \
    }

// ---- phi4flash/core/error.hpp --------------------------------------------------------------------------------------------
/// Errors are values: a code to branch on and a sentence to show. No allocation, so an error can report that memory
/// ran out.

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <string_view>
PHI4FLASH_BEGIN

/// What went wrong, to branch on. The sentence in `error::message()` says where, what was wanted and what was found.
enum class errc : std::uint16_t {
    // the caller
    invalid_argument = 1,
    out_of_memory,
    context_full,
    cancelled,
    unknown_target,
    // files
    file_not_found,
    file_unreadable,
    file_empty,
    file_unwritable,
    path_outside_folder,
    file_too_large,
    // JSON
    json_syntax,
    json_too_deep,
    json_too_large,
    json_wrong_type,
    json_duplicate_key,
    json_unknown_key,
    json_missing_key,
    json_bad_number,
    // safetensors
    header_truncated,
    header_too_large,
    unknown_dtype,
    size_overflow,
    size_mismatch,
    offset_out_of_range,
    offset_overlap,
    offset_hole,
    offset_misaligned,
    duplicate_name,
    trailing_bytes,
    rank_too_high,
    // GGUF
    bad_magic,
    unsupported_version,
    count_too_large,
    string_too_long,
    array_too_long,
    nested_array,
    unknown_value_type,
    bad_value,
    bad_alignment,
    partial_block,
    duplicate_key,
    missing_key,
    wrong_value_type,
    unsupported_layout,
    // checkpoints
    index_mismatch,
    missing_tensor,
    unexpected_tensor,
    wrong_shape,
    wrong_dtype,
    untied_embedding,
    unsupported_model,
    bad_extent,
    not_finite,
    // tokenizers and text
    unsupported_tokenizer,
    bad_vocabulary,
    bad_merge,
    unknown_token,
    bad_chat_message,
};

/// A code and a sentence of at most 383 bytes. Trivially copyable; safe to return across threads.
class error {
public:
    error() = default;

    [[nodiscard]] errc code() const { return code_; }
    /// One sentence without a trailing newline: what, where, want, have.
    [[nodiscard]] const char* message() const { return text_; }

    /// printf-style. A sentence that does not fit is cut, never overrun.
    PHI4FLASH_PRINTF_LIKE(2, 3)
    static error format(errc code, const char* pattern, ...) {
        error e;
        e.code_ = code;
        std::va_list arguments;
        va_start(arguments, pattern);
        std::vsnprintf(e.text_, sizeof e.text_, pattern, arguments);
        va_end(arguments);
        return e;
    }

    /// The same error, said of something larger: "config.json: " before the sentence.
    [[nodiscard]] error in(std::string_view place) const {
        return format(code_, "%.*s: %s", static_cast<int>(place.size()), place.data(), text_);
    }

private:
    errc code_ = errc::invalid_argument;
    char text_[384] = {};
};

PHI4FLASH_END

// ---- phi4flash/core/executor.hpp -----------------------------------------------------------------------------------------
/// How the library asks its host for parallelism. It never starts a thread by itself: a caller passes an executor, the
/// optional `thread_pool` or one of its own.

#include <concepts>
#include <cstddef>
#include <type_traits>
PHI4FLASH_BEGIN

/// Something that can run `body(begin, end)` over [0, count), cut into ranges of at least `grain` wherever it likes, in any
/// order and on any thread, and returns when all ranges are done. Results never depend on the cut: every kernel computes
/// each output in an order of its own. `concurrency()` is how many ranges may be in flight at once.
template <class E>
concept executor = requires(E& e, std::size_t n, void (*body)(void*, std::size_t, std::size_t), void* context) {
    { e.concurrency() } -> std::convertible_to<std::size_t>;
    e.run(n, n, body, context);
};

/// Runs everything on the calling thread.
struct inline_executor {
    [[nodiscard]] std::size_t concurrency() const { return 1; }
    void run(std::size_t count, std::size_t, void (*body)(void*, std::size_t, std::size_t), void* context) const {
        if (count != 0) body(context, 0, count);
    }
};

/// A non-owning reference to any executor; two pointers and a number, passed by value. Default: the calling thread.
class executor_ref {
public:
    executor_ref() = default;

    template <executor E>
        requires(!std::same_as<std::remove_cv_t<E>, executor_ref>)
    executor_ref(E& e)  // NOLINT(google-explicit-constructor)
        : self_(&e), concurrency_(e.concurrency()), run_([](void* self, std::size_t count, std::size_t grain, body_fn body, void* context) {
              static_cast<E*>(self)->run(count, grain, body, context);
          }) {}

    [[nodiscard]] std::size_t concurrency() const { return concurrency_; }

    /// Calls `body(begin, end)` until [0, count) is covered. `body` must be callable from several threads at once.
    template <class Body>
    void parallel_for(std::size_t count, std::size_t grain, Body&& body) const {
        if (count == 0) return;
        if (run_ == nullptr || count <= grain) {
            body(std::size_t{0}, count);
            return;
        }
        using body_type = std::remove_reference_t<Body>;
        run_(
            self_, count, grain == 0 ? 1 : grain,
            [](void* context, std::size_t begin, std::size_t end) { (*static_cast<body_type*>(context))(begin, end); },
            const_cast<void*>(static_cast<const void*>(&body)));
    }

private:
    using body_fn = void (*)(void*, std::size_t, std::size_t);
    void* self_ = nullptr;
    std::size_t concurrency_ = 1;
    void (*run_)(void*, std::size_t, std::size_t, body_fn, void*) = nullptr;
};

PHI4FLASH_END

// ---- phi4flash/core/huge_pages.hpp ---------------------------------------------------------------------------------------
/// Memory in pages of 2 MiB instead of 4 KiB: fewer misses in the tables by which a processor finds memory. Linux only, and only
/// what the system grants; elsewhere everything here does nothing. Nothing fails for want of them.

#include <span>
#if defined(__linux__)
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#endif

PHI4FLASH_BEGIN

/// What memory is asked for.
enum class page_size : std::uint8_t { normal, huge };

/// Memory that is to lie in huge pages begins at a multiple of this: the size on x86-64, and on aarch64 with pages of 4 KiB.
inline constexpr std::size_t huge_page_bytes = std::size_t{2} << 20;

/// Asks for huge pages for memory that begins at a multiple of `huge_page_bytes` and has not been written yet. False where the
/// system has none to give; true is a wish, not a promise.
inline bool ask_for_huge_pages([[maybe_unused]] std::span<const std::byte> memory) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    return !memory.empty() && ::madvise(const_cast<std::byte*>(memory.data()), memory.size(), MADV_HUGEPAGE) == 0;
#else
    return false;
#endif
}

/// How much of the memory lies in huge pages now, from /proc/self/smaps; 0 where there is no such file. The system counts by ranges
/// that it keeps together, so of a small part of a range it may be too much. Takes milliseconds: for reports, not for loops.
[[nodiscard]] inline std::size_t bytes_in_huge_pages([[maybe_unused]] std::span<const std::byte> memory) {
#if defined(__linux__)
    std::FILE* const file = std::fopen("/proc/self/smaps", "re");
    if (file == nullptr) return 0;
    const auto begin = reinterpret_cast<std::uintptr_t>(memory.data());
    std::size_t found = 0;
    std::size_t inside = 0;  // bytes of the range being read that are asked about
    char line[512];
    while (std::fgets(line, sizeof line, file) != nullptr) {
        unsigned long long first = 0;
        unsigned long long last = 0;
        unsigned long long kib = 0;
        if (std::sscanf(line, "%llx-%llx ", &first, &last) == 2) {
            const auto low = std::max<unsigned long long>(first, begin);
            const auto high = std::min<unsigned long long>(last, begin + memory.size());
            inside = low < high ? static_cast<std::size_t>(high - low) : 0;
            continue;
        }
        if (inside == 0) continue;
        for (const char* kind : {"AnonHugePages: %llu", "ShmemPmdMapped: %llu", "FilePmdMapped: %llu"})
            if (std::sscanf(line, kind, &kib) == 1) found += std::min(inside, static_cast<std::size_t>(kib) * 1024);
    }
    std::fclose(file);
    return std::min(found, memory.size());
#else
    return 0;
#endif
}

PHI4FLASH_END

// ---- phi4flash/core/matrix.hpp -------------------------------------------------------------------------------------------
/// Views of weights that somebody else owns: a matrix in its stored type, and a named tensor of a file.

// ---- phi4flash/core/packed.hpp -------------------------------------------------------------------------------------------
/// Packed weights: 8 rows by 32 columns a block, in the very order in which the kernels stream them.
///
/// A block begins with one f16 scale for each row. Codes come in groups of 32 bytes, "vectors": byte 4 r + i of a vector belongs to
/// row r, and four neighbouring columns of a row lie side by side, so that one 32-bit broadcast of the activations meets
/// all eight rows. A matrix [rows, cols] is its blocks in order, all columns of eight rows before the next eight rows;
/// rows is a multiple of 8 and cols a multiple of 32.

// ---- phi4flash/core/number.hpp -------------------------------------------------------------------------------------------
/// Stored number types: bfloat16 and IEEE half as plain 16-bit storage, and the run-time name of an element type.

#include <bit>
PHI4FLASH_BEGIN

/// bfloat16: the upper half of an IEEE binary32. Storage only; arithmetic is f32.
struct bf16 {
    std::uint16_t bits = 0;
    friend constexpr bool operator==(bf16, bf16) = default;
};

/// IEEE binary16. Storage only; arithmetic is f32.
struct f16 {
    std::uint16_t bits = 0;
    friend constexpr bool operator==(f16, f16) = default;
};

[[nodiscard]] constexpr float to_f32(float x) { return x; }

[[nodiscard]] constexpr float to_f32(bf16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16); }

/// Exact, subnormals, infinities and NaN included.
[[nodiscard]] constexpr float to_f32(f16 x) {
    const std::uint32_t sign = static_cast<std::uint32_t>(x.bits & 0x8000u) << 16;
    const std::uint32_t magnitude = static_cast<std::uint32_t>(x.bits & 0x7fffu) << 13;
    if ((x.bits & 0x7c00u) == 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | magnitude);
    // The exponent bias differs by 112; multiplying also normalizes subnormals.
    const float value = std::bit_cast<float>(magnitude) * 0x1p112f;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
}

/// Round to nearest, ties to even. NaN stays NaN.
[[nodiscard]] constexpr bf16 to_bf16(float x) {
    const auto bits = std::bit_cast<std::uint32_t>(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((bits >> 16) | 0x40u)};
    return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

/// Round to nearest, ties to even; overflow becomes infinity. NaN stays NaN.
[[nodiscard]] constexpr f16 to_f16(float x) {
    const auto bits = std::bit_cast<std::uint32_t>(x);
    const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
    const std::uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return {static_cast<std::uint16_t>(sign | 0x7e00u)};
    if (magnitude >= 0x477ff000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};  // >= 65520
    if (magnitude < 0x38800000u) {                                                       // subnormal half or zero
        // Adding 0.5 aligns the half's last bit (2^-24) with the float's, so the addition itself rounds.
        const float aligned = std::bit_cast<float>(magnitude) + 0.5f;
        return {static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(aligned) - 0x3f000000u))};
    }
    const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return {static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
}

/// Stores `x` as an element of type T, rounding where T is narrower.
template <class T>
[[nodiscard]] constexpr T from_f32(float x);
template <>
constexpr float from_f32<float>(float x) { return x; }
template <>
constexpr bf16 from_f32<bf16>(float x) { return to_bf16(x); }
template <>
constexpr f16 from_f32<f16>(float x) { return to_f16(x); }

/// How the numbers of a tensor in a file or a matrix in memory are stored. Order is also the index into kernel tables: first the
/// plain element types, then the packed formats of core/packed.hpp.
enum class dtype : std::uint8_t { f32, f16, bf16, q8, q4, q4_dense };
inline constexpr std::size_t plain_dtype_count = 3;
inline constexpr std::size_t dtype_count = 6;

[[nodiscard]] constexpr bool is_packed(dtype t) { return static_cast<std::size_t>(t) >= plain_dtype_count; }
/// Bytes of an element of a plain type.
[[nodiscard]] constexpr std::size_t size_of(dtype t) { return t == dtype::f32 ? 4 : 2; }
[[nodiscard]] constexpr const char* name_of(dtype t) {
    constexpr const char* names[dtype_count] = {"F32", "F16", "BF16", "Q8", "Q4", "Q4_DENSE"};
    return names[static_cast<std::size_t>(t)];
}

template <class T>
inline constexpr dtype dtype_of = dtype::f32;
template <>
inline constexpr dtype dtype_of<f16> = dtype::f16;
template <>
inline constexpr dtype dtype_of<bf16> = dtype::bf16;

PHI4FLASH_END

#include <cmath>
PHI4FLASH_BEGIN

inline constexpr std::size_t packed_rows = 8;
inline constexpr std::size_t packed_cols = 32;

/// 8.5 bits a weight: w = scale * code. Codes are in [-127, 127]; the kernels take -128 too, from others' files. Vector s holds columns 4 s to 4 s + 3.
struct q8_block {
    f16 scale[packed_rows];
    std::int8_t code[8][32];
};
static_assert(sizeof(q8_block) == 272);

/// 4.5 bits a weight: w = scale * (level[code] - zero). The low nibbles of vector j hold columns 4 j to 4 j + 3, the high
/// nibbles columns 4 (j + 4) to 4 (j + 4) + 3.
struct q4_block {
    f16 scale[packed_rows];
    std::uint8_t code[4][32];
};
static_assert(sizeof(q4_block) == 144);

/// What the 16 codes of a 4-bit format stand for. Levels are below 64, so that four products of a level and an 8-bit activation fit
/// 16 bits, which is what lets a CPU without VNNI keep up with its memory.
struct q4_codebook {
    std::uint8_t level[16];
    std::uint8_t zero;
};

/// Evenly spaced: the values of ggml's Q4_0.
inline constexpr q4_codebook q4_uniform{{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, 8};
/// Denser around zero, where weights are: 9 to 18 % less error than the uniform one on Gaussian and heavier-tailed numbers, at the
/// same size. Found by coordinate descent on the summed error of both.
inline constexpr q4_codebook q4_dense{{0, 7, 12, 16, 20, 24, 27, 30, 32, 35, 38, 41, 44, 48, 53, 61}, 32};

/// 32 activations of a token, for the integer kernels: x = scale * q. The groups of several tokens lie group by group, token by
/// token, as one token's do with a single token.
struct activation_group {
    std::int8_t q[packed_cols];
    float scale;
    float offset;  ///< -zero * scale * (sum of q): what the levels' offset adds too much
};
static_assert(sizeof(activation_group) == 40);

/// Whether a matrix can be packed: whole blocks only.
[[nodiscard]] constexpr bool is_packable(std::size_t rows, std::size_t cols) { return rows % packed_rows == 0 && cols % packed_cols == 0; }

/// Bytes of a matrix [rows, cols], plain or packed.
[[nodiscard]] constexpr std::size_t matrix_bytes(dtype type, std::size_t rows, std::size_t cols) {
    if (!is_packed(type)) return rows * cols * size_of(type);
    return rows / packed_rows * (cols / packed_cols) * (type == dtype::q8 ? sizeof(q8_block) : sizeof(q4_block));
}

/// Code of column c, row r.
[[nodiscard]] inline unsigned q4_code(const q4_block& block, std::size_t r, std::size_t c) {
    const std::size_t step = c / 4;
    const unsigned byte = block.code[step % 4][4 * r + c % 4];
    return step < 4 ? byte & 15u : byte >> 4;
}
inline void set_q4_code(q4_block& block, std::size_t r, std::size_t c, unsigned code) {
    const std::size_t step = c / 4;
    std::uint8_t& byte = block.code[step % 4][4 * r + c % 4];
    byte = static_cast<std::uint8_t>(step < 4 ? (byte & 0xf0u) | code : (byte & 0x0fu) | (code << 4));
}

/// Row r of a block as f32.
inline void decode_row(const q4_block& block, const q4_codebook& book, std::size_t r, float* out) {
    const float scale = to_f32(block.scale[r]);
    for (std::size_t c = 0; c < packed_cols; ++c) out[c] = scale * static_cast<float>(static_cast<int>(book.level[q4_code(block, r, c)]) - book.zero);
}
inline void decode_row(const q8_block& block, std::size_t r, float* out) {
    const float scale = to_f32(block.scale[r]);
    for (std::size_t c = 0; c < packed_cols; ++c) out[c] = scale * static_cast<float>(block.code[c / 4][4 * r + c % 4]);
}

PHI4FLASH_END

PHI4FLASH_BEGIN

/// A matrix [rows, cols] in its stored type: row-major elements, or packed blocks of 8 rows (core/packed.hpp). The data need
/// only be aligned to the element, or to 2 bytes.
struct matrix_view {
    const std::byte* data = nullptr;
    std::size_t rows = 0;
    std::size_t cols = 0;
    dtype type = dtype::f32;

    /// Rows that are stored together: a part of the matrix begins and ends at a multiple of this.
    [[nodiscard]] std::size_t row_block() const { return is_packed(type) ? packed_rows : 1; }
    [[nodiscard]] std::size_t bytes() const { return matrix_bytes(type, rows, cols); }
    /// Where row r begins; of a packed matrix, where the block of eight rows that r is in begins.
    [[nodiscard]] const std::byte* row(std::size_t r) const {
        const std::size_t block = row_block();
        return data + r / block * matrix_bytes(type, block, cols);
    }
};

/// A tensor as a container file describes it, before anyone has asked what it is for.
struct tensor_view {
    static constexpr std::size_t max_rank = 4;

    std::string_view name;
    const std::byte* data = nullptr;
    std::size_t bytes = 0;
    std::size_t extent[max_rank] = {};
    std::size_t rank = 0;
    dtype type = dtype::f32;

    [[nodiscard]] std::span<const std::size_t> shape() const { return {extent, rank}; }
    /// Elements of a plain tensor.
    [[nodiscard]] std::size_t count() const { return bytes / size_of(type); }
};

PHI4FLASH_END

// ---- phi4flash/core/memory.hpp -------------------------------------------------------------------------------------------
/// Memory whose size is known before it is taken: a layout is written once as a function over an `arena`, run first to
/// count and then to carve the caller's block.

// ---- phi4flash/core/result.hpp -------------------------------------------------------------------------------------------
/// `result<T>`: a value or an `error`, the part of C++23's std::expected that the library needs, without exceptions.

#include <utility>
#include <variant>
PHI4FLASH_BEGIN

/// Holds a T or an error. Test it before use: `*r` of a failed result is undefined, as with std::expected.
template <class T>
class [[nodiscard]] result {
public:
    using value_type = T;

    result(T value) : content_(std::in_place_index<0>, std::move(value)) {}          // NOLINT(google-explicit-constructor)
    result(const phi4flash::error& why) : content_(std::in_place_index<1>, why) {}  // NOLINT(google-explicit-constructor)

    [[nodiscard]] bool has_value() const { return content_.index() == 0; }
    explicit operator bool() const { return has_value(); }

    [[nodiscard]] T& operator*() & { return *std::get_if<0>(&content_); }
    [[nodiscard]] const T& operator*() const& { return *std::get_if<0>(&content_); }
    [[nodiscard]] T&& operator*() && { return std::move(*std::get_if<0>(&content_)); }
    [[nodiscard]] T* operator->() { return std::get_if<0>(&content_); }
    [[nodiscard]] const T* operator->() const { return std::get_if<0>(&content_); }
    [[nodiscard]] const phi4flash::error& error() const { return *std::get_if<1>(&content_); }

private:
    std::variant<T, phi4flash::error> content_;
};

/// A result without a value: success, or an error.
template <>
class [[nodiscard]] result<void> {
public:
    using value_type = void;

    result() = default;
    result(const phi4flash::error& why) : why_(why), ok_(false) {}  // NOLINT(google-explicit-constructor)

    [[nodiscard]] bool has_value() const { return ok_; }
    explicit operator bool() const { return ok_; }
    [[nodiscard]] const phi4flash::error& error() const { return why_; }

private:
    phi4flash::error why_;
    bool ok_ = true;
};

using status = result<void>;

PHI4FLASH_END

#include <memory>
#include <new>
PHI4FLASH_BEGIN

/// Alignment of every block that the library carves: a cache line, and the widest vector.
inline constexpr std::size_t block_alignment = 64;

[[nodiscard]] constexpr std::size_t round_up(std::size_t n, std::size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/// Hands out aligned pieces of a block. Without a block it only counts. All pieces are multiples of `block_alignment`.
class arena {
public:
    arena() = default;
    explicit arena(std::byte* base) : base_(base) {}

    /// Room for `count` objects of T, or an empty place while counting. Contents are untouched.
    template <class T>
    [[nodiscard]] T* take(std::size_t count) {
        T* place = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
        used_ += round_up(count * sizeof(T), block_alignment);
        return place;
    }

    [[nodiscard]] std::size_t bytes() const { return used_; }

private:
    std::byte* base_ = nullptr;
    std::size_t used_ = 0;
};

namespace detail {
struct aligned_delete {
    std::size_t alignment = block_alignment;
    void operator()(std::byte* p) const { ::operator delete(p, std::align_val_t{alignment}); }
};
}  // namespace detail

/// An aligned block of bytes, owned. Allocation failure is a value.
class memory_block {
public:
    memory_block() = default;

    /// Contents are indeterminate, so that pages which nobody writes cost nothing. Huge pages are a wish (core/huge_pages.hpp) and
    /// round what is taken up to a multiple of theirs. Errors: out_of_memory, naming `purpose` and the bytes.
    static result<memory_block> allocate(std::size_t bytes, const char* purpose, page_size pages = page_size::normal) {
        memory_block block;
        const std::size_t alignment = pages == page_size::huge && bytes >= huge_page_bytes ? huge_page_bytes : block_alignment;
        if (bytes <= static_cast<std::size_t>(PTRDIFF_MAX) - alignment) {
            block.size_ = round_up(bytes, block_alignment);
            const std::size_t taken = round_up(bytes, alignment);
            void* const place = ::operator new(taken, std::align_val_t{alignment}, std::nothrow);
            block.data_ = {static_cast<std::byte*>(place), detail::aligned_delete{alignment}};
            if (block.data_ && alignment == huge_page_bytes) ask_for_huge_pages({block.data_.get(), taken});
        }
        if (!block.data_) return error::format(errc::out_of_memory, "cannot take %zu bytes for the %s", bytes, purpose);
        return block;
    }

    [[nodiscard]] std::span<std::byte> bytes() const { return {data_.get(), size_}; }
    /// How much of it lies in huge pages by now; see bytes_in_huge_pages.
    [[nodiscard]] std::size_t huge_bytes() const { return size_ == 0 ? 0 : bytes_in_huge_pages(bytes()); }

private:
    std::unique_ptr<std::byte, detail::aligned_delete> data_;
    std::size_t size_ = 0;
};

PHI4FLASH_END

// ---- phi4flash/core/packing.hpp ------------------------------------------------------------------------------------------
/// Quantization: rows of f32 to packed blocks. Plain code that runs once, when a model is converted.

#include <algorithm>
#include <array>
PHI4FLASH_BEGIN

namespace detail {

/// The code whose level is nearest to a value, for values rounded to the levels' own grid.
struct level_index {
    std::array<std::uint8_t, 64> code{};
    int highest = 0;

    constexpr explicit level_index(const q4_codebook& book) : highest(book.level[15]) {
        for (int value = 0; value <= highest; ++value) {
            int best = 0;
            for (int c = 1; c < 16; ++c) {
                const int distance = book.level[c] < value ? value - book.level[c] : book.level[c] - value;
                const int least = book.level[best] < value ? value - book.level[best] : book.level[best] - value;
                if (distance < least) best = c;
            }
            code[static_cast<std::size_t>(value)] = static_cast<std::uint8_t>(best);
        }
    }

    [[nodiscard]] unsigned nearest(float value) const {
        // Clamped before the conversion: NaN and infinity become a code like any other.
        const float inside = value > 0.0f ? (value < static_cast<float>(highest) ? value : static_cast<float>(highest)) : 0.0f;
        return code[static_cast<std::size_t>(inside + 0.5f)];
    }
};

template <const q4_codebook& Book>
inline constexpr level_index index_of{Book};

/// The scale that fits 32 numbers best, by trying some, each refitted by least squares to the codes it gives.
template <const q4_codebook& Book>
[[nodiscard]] float fit_scale(const float* x) {
    float most = 0.0f;
    for (std::size_t i = 0; i < packed_cols; ++i) most = std::fabs(x[i]) > std::fabs(most) ? x[i] : most;
    if (!(std::fabs(most) > 0.0f)) return 0.0f;
    const float ends[2] = {static_cast<float>(Book.level[0]) - static_cast<float>(Book.zero),
                           static_cast<float>(Book.level[15]) - static_cast<float>(Book.zero)};
    float best_scale = 0.0f;
    float best_gain = -1.0f;
    for (const float end : ends) {
        for (const float shrink : {0.82f, 0.88f, 0.94f, 1.0f, 1.06f, 1.12f}) {
            const float inverse = end / (most * shrink);
            float xl = 0.0f;
            float ll = 0.0f;
            for (std::size_t i = 0; i < packed_cols; ++i) {
                const unsigned code = index_of<Book>.nearest(x[i] * inverse + static_cast<float>(Book.zero));
                const float level = static_cast<float>(Book.level[code]) - static_cast<float>(Book.zero);
                xl += x[i] * level;
                ll += level * level;
            }
            // Least squares: the scale xl / ll leaves sum x^2 - xl^2 / ll.
            const float gain = ll > 0.0f ? xl * xl / ll : 0.0f;
            if (gain > best_gain) best_gain = gain, best_scale = ll > 0.0f ? xl / ll : 0.0f;
        }
    }
    return best_scale;
}

}  // namespace detail

/// Columns [0, 32) of row r of a block from x [32].
template <const q4_codebook& Book>
void encode_row(q4_block& block, std::size_t r, const float* x) {
    block.scale[r] = to_f16(detail::fit_scale<Book>(x));
    const float scale = to_f32(block.scale[r]);
    const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
    for (std::size_t c = 0; c < packed_cols; ++c)
        set_q4_code(block, r, c, detail::index_of<Book>.nearest(x[c] * inverse + static_cast<float>(Book.zero)));
}

inline void encode_row(q8_block& block, std::size_t r, const float* x) {
    float most = 0.0f;
    for (std::size_t c = 0; c < packed_cols; ++c) most = std::max(most, std::fabs(x[c]));
    block.scale[r] = to_f16(most / 127.0f);
    const float scale = to_f32(block.scale[r]);
    const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
    for (std::size_t c = 0; c < packed_cols; ++c) {
        const float q = std::nearbyint(x[c] * inverse);
        block.code[c / 4][4 * r + c % 4] = static_cast<std::int8_t>(q > 127.0f ? 127.0f : q > -127.0f ? q : -127.0f);
    }
}

/// Row r of a plain matrix as f32.   Shape: out [cols].
inline void read_row(const matrix_view& m, std::size_t r, float* out) {
    const std::byte* row = m.row(r);
    for (std::size_t c = 0; c < m.cols; ++c) {
        switch (m.type) {
            case dtype::f32: out[c] = reinterpret_cast<const float*>(row)[c]; break;
            case dtype::f16: out[c] = to_f32(reinterpret_cast<const f16*>(row)[c]); break;
            default: out[c] = to_f32(reinterpret_cast<const bf16*>(row)[c]); break;
        }
    }
}

/// Packs rows [first, first + 8) of `m`, a plain matrix with a multiple of 32 columns. `rows` is scratch of 8 * cols floats; `out`
/// takes matrix_bytes(type, 8, cols) bytes.
inline void pack_eight_rows(const matrix_view& m, std::size_t first, dtype type, float* rows, std::byte* out) {
    for (std::size_t r = 0; r < packed_rows; ++r) read_row(m, first + r, rows + r * m.cols);
    for (std::size_t g = 0; g < m.cols / packed_cols; ++g) {
        for (std::size_t r = 0; r < packed_rows; ++r) {
            const float* x = rows + r * m.cols + g * packed_cols;
            switch (type) {
                case dtype::q8: encode_row(reinterpret_cast<q8_block*>(out)[g], r, x); break;
                case dtype::q4: encode_row<q4_uniform>(reinterpret_cast<q4_block*>(out)[g], r, x); break;
                default: encode_row<q4_dense>(reinterpret_cast<q4_block*>(out)[g], r, x); break;
            }
        }
    }
}

PHI4FLASH_END

// ---- phi4flash/core/thread_pool.hpp --------------------------------------------------------------------------------------
/// A small thread pool: an executor for hosts that have none. Optional; nothing else in the library starts threads.
///
/// Work is claimed in pieces from one atomic word, the caller's thread included, and the caller waits only for pieces
/// that somebody has claimed. So a worker that the operating system did not schedule costs nothing, and one that lost its
/// processor in the middle costs at most one piece.

#include <atomic>
#include <thread>
#include <vector>
#if defined(__cpp_exceptions)
#include <system_error>
#endif

PHI4FLASH_BEGIN

/// `threads` in all: the calling one and `threads` - 1 workers, which sleep when there is nothing to do. `run` is for one caller at a
/// time. Movable while nothing runs; the destructor joins the workers.
class thread_pool {
public:
    /// 0 means one thread for each processor. Errors: invalid_argument above 1024; out_of_memory, also when the system
    /// refuses a thread (which, built without exceptions, ends the program inside the standard library).
    static result<thread_pool> create(std::size_t threads) {
        if (threads == 0) threads = std::max(1u, std::thread::hardware_concurrency());
        if (threads > max_threads) return error::format(errc::invalid_argument, "threads: want 0 to %zu, have %zu", max_threads, threads);
        thread_pool pool;
        pool.shared_.reset(new (std::nothrow) shared);
        if (!pool.shared_) return error::format(errc::out_of_memory, "cannot take memory for a pool of %zu threads", threads);
        for (std::size_t i = 1; i < threads; ++i) {
#if defined(__cpp_exceptions)
            try {
                pool.workers_.emplace_back(&work, pool.shared_.get());
            } catch (const std::system_error&) {
                return error::format(errc::out_of_memory, "the system refused thread %zu of %zu", i + 1, threads);
            }
#else
            pool.workers_.emplace_back(&work, pool.shared_.get());
#endif
        }
        return pool;
    }

    thread_pool(thread_pool&&) = default;
    thread_pool& operator=(thread_pool&&) = delete;
    ~thread_pool() {
        if (!shared_) return;
        shared_->stopping.store(true, std::memory_order_relaxed);
        shared_->epoch.fetch_add(1, std::memory_order_release);
        shared_->epoch.notify_all();
        for (std::thread& worker : workers_) worker.join();
    }

    [[nodiscard]] std::size_t concurrency() const { return workers_.size() + 1; }

    /// See the executor concept.
    void run(std::size_t count, std::size_t grain, void (*body)(void*, std::size_t, std::size_t), void* context) {
        // A few pieces a thread: enough to even out, long enough to stream.
        const std::size_t wanted = std::min((count + grain - 1) / grain, concurrency() * pieces_a_thread);
        if (wanted <= 1 || workers_.empty()) {
            if (count != 0) body(context, 0, count);
            return;
        }
        shared& s = *shared_;
        const std::size_t piece = (count + wanted - 1) / wanted;
        const auto pieces = static_cast<std::uint32_t>((count + piece - 1) / piece);
        s.body = body;
        s.context = context;
        s.count = count;
        s.piece = piece;
        s.pieces = pieces;
        s.done.store(0, std::memory_order_relaxed);
        const std::uint64_t generation = (s.tickets.load(std::memory_order_relaxed) >> 32) + 1;
        s.tickets.store((generation << 32) | pieces, std::memory_order_release);
        s.epoch.fetch_add(1, std::memory_order_release);
        s.epoch.notify_all();
        while (run_one(s)) {
        }
        for (std::uint32_t done = s.done.load(std::memory_order_acquire), spins = 0; done != pieces; done = s.done.load(std::memory_order_acquire)) {
            if (++spins < spins_before_sleep) {
                pause();
            } else {
                s.done.wait(done, std::memory_order_acquire);
            }
        }
    }

private:
    static constexpr std::size_t max_threads = 1024;
    static constexpr std::size_t pieces_a_thread = 8;
    static constexpr std::uint32_t spins_before_sleep = 1000;  // some 10 to 40 microseconds: the gap between two layers

    struct shared {
        alignas(64) std::atomic<std::uint64_t> tickets{0};  ///< generation << 32 | pieces not yet claimed
        alignas(64) std::atomic<std::uint32_t> epoch{0};    ///< changes with every job
        alignas(64) std::atomic<std::uint32_t> done{0};     ///< pieces of this job that are finished
        std::atomic<bool> stopping{false};
        // The job; stable from the release of `tickets` until `done` reaches `pieces`.
        void (*body)(void*, std::size_t, std::size_t) = nullptr;
        void* context = nullptr;
        std::size_t count = 0;
        std::size_t piece = 0;
        std::uint32_t pieces = 0;
    };

    thread_pool() = default;

    static void pause() {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("isb");
#endif
    }

    /// Claims and runs one piece. The claim is a compare-exchange of the whole word, generation included, so a worker that comes late
    /// can never take a piece of a job whose description it has not seen.
    static bool run_one(shared& s) {
        std::uint64_t ticket = s.tickets.load(std::memory_order_acquire);
        do {
            if ((ticket & 0xffffffffu) == 0) return false;
        } while (!s.tickets.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel, std::memory_order_acquire));
        const std::size_t index = s.pieces - static_cast<std::size_t>(ticket & 0xffffffffu);
        const std::size_t begin = index * s.piece;
        const std::uint32_t pieces = s.pieces;
        s.body(s.context, begin, std::min(begin + s.piece, s.count));
        if (s.done.fetch_add(1, std::memory_order_acq_rel) + 1 == pieces) s.done.notify_one();
        return true;
    }

    static void work(shared* s) {
        std::uint32_t seen = s->epoch.load(std::memory_order_acquire);
        while (!s->stopping.load(std::memory_order_relaxed)) {
            while (run_one(*s)) {
            }
            std::uint32_t spins = 0;
            while (s->epoch.load(std::memory_order_acquire) == seen && ++spins < spins_before_sleep) pause();
            if (spins >= spins_before_sleep) s->epoch.wait(seen, std::memory_order_acquire);
            seen = s->epoch.load(std::memory_order_acquire);
        }
    }

    std::unique_ptr<shared> shared_;
    std::vector<std::thread> workers_;
};

PHI4FLASH_END

// Kernels, compiled once for each target.

// ---- phi4flash/kernels/dispatch.hpp --------------------------------------------------------------------------------------
/// Compiles the kernels: once for the static target, or, with Highway and run-time dispatch, once for each target, by
/// including kernels/target-inl.hpp again with HWY_TARGET set anew. The only place that does so.
///
/// Highway's own foreach_target.h is not used: it finds the file to include again by name, which fails for a dropped-in header,
/// and its dispatch tables need libhwy and a global, mutable choice.

// ---- phi4flash/kernels/targets.hpp ---------------------------------------------------------------------------------------
/// Which targets this program carries, which of them this machine can run, and how to ask for one.

// ---- phi4flash/kernels/kernel_table.hpp ----------------------------------------------------------------------------------
/// The border between code compiled once and code compiled once per instruction set: one const table of function
/// pointers for each target. Layers hold a reference to a table and never know which.
///
/// Conventions: activations are f32; `tokens` rows lie `*_stride` floats apart; no pointer needs more than element
/// alignment; outputs must not overlap inputs unless the comment says so. Each output is computed in an order that
/// does not depend on how a caller cuts the work, so results are the same bits for any number of threads. All functions are
/// pure and may run in any number of threads at once.

PHI4FLASH_BEGIN

/// Multiplication by weights of one stored type; W is [rows, cols], plain or packed. `w` points at the first row (of a packed
/// matrix, at a block), and packed matrices are cut into multiples of 8 rows.
struct linear_kernels {
    /// y[r] = bias[r] + sum_c W[r,c] x[c].   x: `arranged` by this table's `arrange`. bias may be null.
    /// Plain types: f32 accumulation; error <= 1 ulp * sqrt(cols) of sum |W x| (tests/kernels/linear_test.cpp). Packed types:
    /// x is rounded to 8 bits a group of 32, products are exact integers (tests/kernels/packed_test.cpp).
    void (*matvec)(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, const float* bias, float* y);

    /// Puts x[cols], token `token` of `tokens`, into the form in which the products read it. Returns `x` itself where that is as
    /// it lies, else `scratch`, which must hold tokens * arranged_bytes(cols).
    const std::byte* (*arrange)(const float* x, std::size_t cols, std::size_t token, std::size_t tokens, std::byte* scratch);

    /// y[t,r] = bias[r] + sum_c W[r,c] x[t,c] for `tokens` rows of x and y. bias may be null. x is arranged for so many tokens where
    /// `matmul_arranged`, else f32 rows x_stride floats apart. Cuts of the rows do not change a bit, nor do cuts of the tokens.
    void (*matmul)(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, std::size_t x_stride, std::size_t tokens,
                   const float* bias, float* y, std::size_t y_stride);
    bool matmul_arranged;

    /// out[c] = W[r,c] as f32, exactly; r counts from `w`.
    void (*widen)(const std::byte* w, std::size_t r, std::size_t cols, float* out);
};

/// Bytes that `linear_kernels::arrange` may write for `cols` inputs. A multiple of 64.
[[nodiscard]] constexpr std::size_t arranged_bytes(std::size_t cols) { return (cols + 63) / 64 * 64 * sizeof(float); }

/// Channels of the Mamba state lie in blocks of this many: A and h are [ceil(d_inner / 16)][d_state][16], zero-filled.
inline constexpr std::size_t channel_block = 16;

/// Depthwise causal convolution and SiLU over channels [channel_begin, channel_end) of `tokens` tokens.
struct convolution_args {
    const float* x;          ///< [tokens, d_inner], rows x_stride apart
    std::size_t x_stride;
    const float* weight;     ///< [d_conv, d_inner]: tap d_conv-1 is the current token
    const float* bias;       ///< [d_inner]
    float* state;            ///< [d_conv-1, d_inner]: the inputs before this chunk, oldest first; advanced
    float* y;                ///< [tokens, d_inner], rows y_stride apart
    std::size_t y_stride;
    std::size_t tokens;
    std::size_t d_inner;
    std::size_t d_conv;
};

/// Mamba-1 selective scan over channel blocks [block_begin, block_end).
/// h[c,n] = exp(dt[c] A[c,n]) h[c,n] + dt[c] u[c] B[n];   y[c] = sum_n C[n] h[c,n] + D[c] u[c].   Source: arXiv:2312.00752 eq. 2.
struct scan_args {
    const float* u;          ///< [tokens, d_inner]
    const float* dt;         ///< [tokens, d_inner], after softplus
    const float* b;          ///< [tokens, d_state], rows bc_stride apart
    const float* c;          ///< [tokens, d_state], rows bc_stride apart
    std::size_t bc_stride;
    const float* a_log2e;    ///< A times log2(e), blocked as above
    const float* d;          ///< [d_inner]
    float* h;                ///< blocked as above; advanced
    float* y;                ///< [tokens, d_inner]; may be u
    std::size_t tokens;
    std::size_t d_inner;     ///< also the stride of u, dt and y
    std::size_t d_state;
};

/// A run of keys and values at consecutive positions, in the cache's element type: [groups, group_rows, w], of which the first
/// `count` rows of each group are read.
struct kv_segment {
    const std::byte* k = nullptr;
    const std::byte* v = nullptr;
    std::size_t group_rows = 0;
    std::size_t first_position = 0;
    std::size_t count = 0;
};

/// Tiled attention with online softmax for one group of heads.
///
/// A group has one block of values, of width w = k_per_group * d_head, and k_per_group key heads that lie side by side in a
/// row of the same width (2 for differential attention, whose even and odd heads share the pair's values; 1 for the plain kind).
/// Query head `k_per_group * (group * queries_per_key + r) + s` uses key head s of group `group`.
/// out[t, head, :] = softmax_j(scale q[t,head].k[j] - slope[head] (position(t) - position(j))) v[j, :] over the keys j that
/// token t sees: position(t) - window < position(j) <= position(t).   Source: arXiv:2205.14135 alg. 1.
struct attention_args {
    const float* q;                ///< [tokens, n_heads * d_head], rows q_stride apart
    std::size_t q_stride;
    float* out;                    ///< [tokens, n_heads, w], rows out_stride apart
    std::size_t out_stride;
    std::size_t first_position;    ///< of query token 0
    std::size_t d_head;
    std::size_t k_per_group;       ///< 1 or 2
    std::size_t queries_per_key;
    std::size_t window;            ///< keys seen, the token itself included; SIZE_MAX for all
    float scale;
    const float* slopes;           ///< [n_heads] for ALiBi, or null
};

inline constexpr std::size_t max_kv_segments = 3;

/// One target's kernels. `name` is what a user sees and may ask for.
struct kernel_table {
    const char* name;
    std::size_t (*lanes)();              ///< floats a vector
    linear_kernels linear[dtype_count];  ///< indexed by dtype

    /// y = (x - mean) / sqrt(variance + eps) * weight + bias over n numbers. y may be x.
    void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, std::size_t n, float* y);
    /// y = x / sqrt(mean(x^2) + eps) * weight. y may be x.
    void (*rms_norm)(const float* x, const float* weight, float eps, std::size_t n, float* y);
    /// y += x.
    void (*accumulate)(const float* x, std::size_t n, float* y);
    /// y = silu(gate) * x. y may be either input. Error <= 4 ulp for gate >= -87.
    void (*silu_mul)(const float* gate, const float* x, std::size_t n, float* y);
    /// y = log(1 + exp(x)). y may be x. Error <= 4 ulp for x >= -87.
    void (*softplus)(const float* x, std::size_t n, float* y);
    /// x = exp((x - max) * inverse_temperature), normalized to sum 1.
    void (*softmax)(float* x, std::size_t n, float inverse_temperature);

    void (*convolution)(const convolution_args& args, std::size_t channel_begin, std::size_t channel_end);
    void (*scan)(const scan_args& args, std::size_t block_begin, std::size_t block_end);

    /// out = x in the cache's element type, indexed by dtype (f32 and bf16; f16 is null).
    void (*narrow[plain_dtype_count])(const float* x, std::size_t n, std::byte* out);
    /// Query tokens [token_begin, token_end) of one group over `segments`, in order; indexed by the cache's dtype (f16 is null).
    void (*attention[plain_dtype_count])(const attention_args& args, std::size_t group, std::size_t token_begin, std::size_t token_end,
                                   const kv_segment* segments, std::size_t n_segments);
    /// y = normalize(first - lambda * second) * weight, the difference of differential attention and its RMS norm over n = 2 d_head.
    /// y may be `first`.   Source: arXiv:2410.05258 eq. 3.
    void (*difference_norm)(const float* first, const float* second, float lambda, const float* weight, float eps, std::size_t n, float* y);
    /// Rotates pairs (x[i], x[i + half]) by the angle whose cosine and sine are given, i < half.   Source: arXiv:2104.09864.
    void (*rotate)(float* x, const float* cosine, const float* sine, std::size_t half);

    /// Reads every byte once (an even number of them) and returns a number that depends on all: the limit against which
    /// kernels are measured.
    float (*read)(const std::byte* data, std::size_t bytes);
};

PHI4FLASH_END

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

// ---- phi4flash/simd/cpu.hpp ----------------------------------------------------------------------------------------------
/// Which x86 instruction sets this CPU and its operating system offer. Nothing is cached: asking costs microseconds and
/// happens once per model.

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

PHI4FLASH_BEGIN

/// Nested sets: each level has everything that the levels before it have, and everything that Highway's target of the
/// same name may emit.
enum class x86_level : std::uint8_t { baseline, ssse3, sse4, avx2, avx3, avx3_dl, avx3_zen4 };

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
[[nodiscard]] constexpr std::uint32_t bit(unsigned i) { return std::uint32_t{1} << i; }

}  // namespace detail

/// The highest level of this machine. Every feature that a level implies is tested, not a representative one.
[[nodiscard]] inline x86_level detect_x86_level() {
    using detail::bit;
    using detail::has_bits;
    const std::uint32_t highest = detail::cpuid(0, 0).eax;
    const detail::cpuid_registers one = detail::cpuid(1, 0);
    const detail::cpuid_registers seven = highest >= 7 ? detail::cpuid(7, 0) : detail::cpuid_registers{};
    const detail::cpuid_registers seven_one = highest >= 7 && seven.eax >= 1 ? detail::cpuid(7, 1) : detail::cpuid_registers{};

    if (!has_bits(one.ecx, bit(0) | bit(9))) return x86_level::baseline;                           // SSE3, SSSE3
    if (!has_bits(one.ecx, bit(1) | bit(19) | bit(20) | bit(25))) return x86_level::ssse3;         // PCLMUL, SSE4.1, SSE4.2, AES
    const bool os_saves = has_bits(one.ecx, bit(27));                                              // OSXSAVE
    const std::uint64_t states = os_saves ? detail::saved_states() : 0;
    const bool avx = has_bits(states, 0x6) && has_bits(one.ecx, bit(28) | bit(12) | bit(29));      // AVX, FMA, F16C
    if (!avx || !has_bits(seven.ebx, bit(5) | bit(3) | bit(8))) return x86_level::sse4;            // AVX2, BMI1, BMI2
    const bool avx512 = has_bits(states, 0xe6);
    if (!avx512 || !has_bits(seven.ebx, bit(16) | bit(17) | bit(28) | bit(30) | bit(31))) return x86_level::avx2;  // F DQ CD BW VL
    // VBMI, VBMI2, GFNI, VAES, VPCLMULQDQ, VNNI, BITALG, VPOPCNTDQ
    if (!has_bits(seven.ecx, bit(1) | bit(6) | bit(8) | bit(9) | bit(10) | bit(11) | bit(12) | bit(14))) return x86_level::avx3;
    if (!has_bits(seven_one.eax, bit(5))) return x86_level::avx3_dl;                               // AVX512_BF16
    return x86_level::avx3_zen4;
}

#endif

PHI4FLASH_END

// ---- phi4flash/simd/target_region.hpp ------------------------------------------------------------------------------------
/// Marks of a per-target region: code between PHI4FLASH_TARGET_BEGIN and PHI4FLASH_TARGET_END is compiled once for each
/// instruction set, in a namespace of its own. Only plain data and function pointers leave it.
///
/// Everything hot must stand textually inside such a region: a template defined outside compiles for the baseline only.

#if PHI4FLASH_SIMD_HIGHWAY
#include <hwy/base.h>
#if !defined(HWY_VERSION_GE)
#error "phi4flash: the Highway on the include path is older than 1.2.0; use a newer one, or set PHI4FLASH_SIMD_SCALAR to 1"
#endif
#define PHI4FLASH_TARGET_NAMESPACE HWY_NAMESPACE
#define PHI4FLASH_TARGET_BEGIN \
    HWY_BEFORE_NAMESPACE();    \
    PHI4FLASH_BEGIN            \
    namespace HWY_NAMESPACE {
#define PHI4FLASH_TARGET_END \
    }                        \
    PHI4FLASH_END            \
    HWY_AFTER_NAMESPACE();
/// Functions of the vocabulary must inline, or vectors would travel through memory.
#define PHI4FLASH_VECTOR_INLINE HWY_INLINE
#else
#define PHI4FLASH_TARGET_NAMESPACE static_target
#define PHI4FLASH_TARGET_BEGIN \
    PHI4FLASH_BEGIN            \
    namespace static_target {
#define PHI4FLASH_TARGET_END \
    }                        \
    PHI4FLASH_END
#if defined(__GNUC__) || defined(__clang__)
#define PHI4FLASH_VECTOR_INLINE inline __attribute__((always_inline))
#elif defined(_MSC_VER)
#define PHI4FLASH_VECTOR_INLINE __forceinline
#else
#define PHI4FLASH_VECTOR_INLINE inline
#endif
#endif

PHI4FLASH_BEGIN
/// No vector of the vocabulary has more lanes; local buffers for ragged ends have this size.
inline constexpr std::size_t max_lanes = 16;
PHI4FLASH_END

#include <cstring>
#if !PHI4FLASH_COMPILE_ONCE || PHI4FLASH_IMPLEMENTATION

#if PHI4FLASH_SIMD_HIGHWAY

// A user may have included highway.h already; the static target's operations then exist and must not be defined again.
#ifdef HWY_HIGHWAY_INCLUDED
#define PHI4FLASH_HIGHWAY_WAS_INCLUDED 1
#else
#define PHI4FLASH_HIGHWAY_WAS_INCLUDED 0
#endif
#include <hwy/detect_targets.h>

// HWY_BROKEN_TARGETS: what this compiler cannot compile.
#define PHI4FLASH_HIGHWAY_EXTRA(target) \
    (!PHI4FLASH_STATIC_DISPATCH && HWY_STATIC_TARGET > (target) && !((HWY_BROKEN_TARGETS) & (target)) && !((HWY_DISABLED_TARGETS) & (target)))

#if PHI4FLASH_ARCH_X86

#if PHI4FLASH_HIGHWAY_EXTRA(HWY_AVX2)
#undef HWY_TARGET
#define HWY_TARGET HWY_AVX2

// ---- phi4flash/simd/next_target-inl.hpp ----------------------------------------------------------------------------------
// Puts Highway's toggles in step before a target is compiled: "the operations of this target are not there yet". Its headers compare
// them instead of having include guards.
#undef HWY_TARGET_TOGGLE
#undef HWY_SET_MACROS_PER_TARGET
#ifdef HWY_HIGHWAY_PER_TARGET
#define HWY_TARGET_TOGGLE
#define HWY_SET_MACROS_PER_TARGET
#endif
#undef PHI4FLASH_TARGET_LABEL
#define PHI4FLASH_TARGET_LABEL "avx2"

// ---- phi4flash/kernels/target-inl.hpp ------------------------------------------------------------------------------------
// Everything that is compiled once per target, in order. Included by kernels/dispatch.hpp only.

// ---- phi4flash/simd/vocabulary-inl.hpp -----------------------------------------------------------------------------------
// The vector vocabulary: the only words in which kernels are written. Each back end defines the same set.
//
//   f32_vector, lanes()             a vector of 1 to 16 floats (a power of two; may be a run-time number)
//   zero() set(x)                   all lanes 0, all lanes x
//   load(p) store(v, p)             from or to float, bf16 or f16 memory of element alignment; widening is exact, narrowing
//                                   rounds to nearest even (f16: load only)
//   load_even_odd(p, even, odd)     2 * lanes() bf16 elements: those at even places and those at odd ones, which costs a shift
//                                   and a mask where a load in order costs a shuffle
//   add sub mul div                 lane by lane
//   mul_add(a, b, c)                a * b + c, fused where the target has it
//   neg_mul_add(a, b, c)            c - a * b
//   min_of max_of abs_of            lane by lane; for numbers, not NaN
//   reduce_sum reduce_max           over the lanes, in an order fixed for the target
//   round_nearest(v)                to an integral float, ties to even, |v| < 2^22
//   scale_by_power_of_two(v, n)     v * 2^n for integral n in [-126, 127]
//
// Vectors are values: no arrays or members of them (scalable targets have no size), no lambdas that touch them (a lambda
// does not inherit the target's attributes on every compiler).
#if PHI4FLASH_SIMD_HIGHWAY

// ---- phi4flash/simd/vocabulary_highway-inl.hpp ---------------------------------------------------------------------------
// The vector vocabulary over Highway, compiled once per target. See simd/vocabulary-inl.hpp for what each word means.
#include <hwy/highway.h>

PHI4FLASH_TARGET_BEGIN

namespace hn = hwy::HWY_NAMESPACE;

/// At most 16 lanes, so that layouts blocked by 16 serve every target.
using f32_tag = hn::CappedTag<float, max_lanes>;
using i32_tag = hn::RebindToSigned<f32_tag>;
using u32_tag = hn::RebindToUnsigned<f32_tag>;
using u16_half_tag = hn::Rebind<std::uint16_t, f32_tag>;
using f32_vector = hn::Vec<f32_tag>;

PHI4FLASH_VECTOR_INLINE std::size_t lanes() { return hn::Lanes(f32_tag()); }
PHI4FLASH_VECTOR_INLINE f32_vector zero() { return hn::Zero(f32_tag()); }
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return hn::Set(f32_tag(), x); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const float* p) { return hn::LoadU(f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, float* p) { hn::StoreU(v, f32_tag(), p); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const bf16* p) {
    const auto narrow = hn::LoadU(u16_half_tag(), reinterpret_cast<const std::uint16_t*>(p));
    return hn::BitCast(f32_tag(), hn::ShiftLeft<16>(hn::PromoteTo(u32_tag(), narrow)));
}
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, bf16* p) {
    // The integer rule of to_bf16, so that every target and back end stores the same bits. Finite numbers only.
    const u32_tag du;
    const auto bits = hn::BitCast(du, v);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
    const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fffu))));
    hn::StoreU(hn::TruncateTo(u16_half_tag(), rounded), u16_half_tag(), reinterpret_cast<std::uint16_t*>(p));
}
PHI4FLASH_VECTOR_INLINE f32_vector load(const f16* p) {
#if HWY_TARGET <= HWY_AVX2 || (HWY_TARGET & (HWY_ALL_NEON | HWY_ALL_SVE))
    const hn::Rebind<hwy::float16_t, f32_tag> half;
    return hn::PromoteTo(f32_tag(), hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(p)));
#else
    // Without an instruction for it, Highway's emulation turns infinity into a number; this is to_f32(f16) in vectors.
    const u32_tag du;
    const auto bits = hn::PromoteTo(du, hn::LoadU(u16_half_tag(), reinterpret_cast<const std::uint16_t*>(p)));
    const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(du, 0x8000u)));
    const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(du, 0x7fffu)));
    const auto value = hn::BitCast(du, hn::Mul(hn::BitCast(f32_tag(), magnitude), hn::Set(f32_tag(), 0x1p112f)));
    const auto not_finite = hn::IfThenElseZero(hn::Ge(magnitude, hn::Set(du, 0x0f800000u)), hn::Set(du, 0x7f800000u));
    return hn::BitCast(f32_tag(), hn::Or(hn::Or(value, not_finite), sign));
#endif
}
PHI4FLASH_VECTOR_INLINE void load_even_odd(const bf16* p, f32_vector& even, f32_vector& odd) {
    const u32_tag du;
    const auto both = hn::LoadU(du, reinterpret_cast<const std::uint32_t*>(p));
    even = hn::BitCast(f32_tag(), hn::ShiftLeft<16>(both));
    odd = hn::BitCast(f32_tag(), hn::And(both, hn::Set(du, 0xffff0000u)));
}

PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) { return hn::Add(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) { return hn::Sub(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) { return hn::Mul(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) { return hn::Div(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) { return hn::MulAdd(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) { return hn::NegMulAdd(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector min_of(f32_vector a, f32_vector b) { return hn::Min(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector max_of(f32_vector a, f32_vector b) { return hn::Max(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector abs_of(f32_vector a) { return hn::Abs(a); }

PHI4FLASH_VECTOR_INLINE float reduce_sum(f32_vector v) { return hn::ReduceSum(f32_tag(), v); }
PHI4FLASH_VECTOR_INLINE float reduce_max(f32_vector v) { return hn::ReduceMax(f32_tag(), v); }

PHI4FLASH_VECTOR_INLINE f32_vector round_nearest(f32_vector v) { return hn::Round(v); }
PHI4FLASH_VECTOR_INLINE f32_vector scale_by_power_of_two(f32_vector v, f32_vector n) {
    const auto exponent = hn::Add(hn::NearestInt(n), hn::Set(i32_tag(), 127));
    return hn::Mul(v, hn::BitCast(f32_tag(), hn::ShiftLeft<23>(exponent)));
}

PHI4FLASH_TARGET_END
#elif PHI4FLASH_SIMD_XSIMD

// ---- phi4flash/simd/vocabulary_xsimd-inl.hpp -----------------------------------------------------------------------------
// The vector vocabulary over xsimd, for the instruction set of the compiler's flags. See simd/vocabulary-inl.hpp for
// what each word means.
#include <xsimd/xsimd.hpp>

PHI4FLASH_TARGET_BEGIN

using f32_vector = xsimd::batch<float>;
using i32_vector = xsimd::batch<std::int32_t>;
using u32_vector = xsimd::batch<std::uint32_t>;
static_assert(f32_vector::size <= max_lanes, "phi4flash: layouts are blocked by 16 lanes");

PHI4FLASH_VECTOR_INLINE constexpr std::size_t lanes() { return f32_vector::size; }
PHI4FLASH_VECTOR_INLINE f32_vector zero() { return f32_vector(0.0f); }
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return f32_vector(x); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const float* p) { return f32_vector::load_unaligned(p); }
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, float* p) { v.store_unaligned(p); }

// xsimd widens 16-bit lanes only through memory; a compiler turns these loops into the instruction where there is one.
PHI4FLASH_VECTOR_INLINE f32_vector load(const bf16* p) {
    alignas(64) std::uint32_t wide[f32_vector::size];
    for (std::size_t i = 0; i < f32_vector::size; ++i) wide[i] = static_cast<std::uint32_t>(p[i].bits) << 16;
    return xsimd::bitwise_cast<float>(u32_vector::load_aligned(wide));
}
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, bf16* p) {
    alignas(64) float wide[f32_vector::size];
    v.store_aligned(wide);
    for (std::size_t i = 0; i < f32_vector::size; ++i) p[i] = to_bf16(wide[i]);
}
PHI4FLASH_VECTOR_INLINE f32_vector load(const f16* p) {
    alignas(64) float wide[f32_vector::size];
    for (std::size_t i = 0; i < f32_vector::size; ++i) wide[i] = to_f32(p[i]);
    return f32_vector::load_aligned(wide);
}
PHI4FLASH_VECTOR_INLINE void load_even_odd(const bf16* p, f32_vector& even, f32_vector& odd) {
    const u32_vector both = xsimd::bitwise_cast<std::uint32_t>(f32_vector::load_unaligned(reinterpret_cast<const float*>(p)));
    even = xsimd::bitwise_cast<float>(both << 16);
    odd = xsimd::bitwise_cast<float>(both & u32_vector(0xffff0000u));
}

PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) { return a + b; }
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) { return a - b; }
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) { return a * b; }
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) { return a / b; }
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) { return xsimd::fma(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) { return xsimd::fnma(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector min_of(f32_vector a, f32_vector b) { return xsimd::min(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector max_of(f32_vector a, f32_vector b) { return xsimd::max(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector abs_of(f32_vector a) { return xsimd::abs(a); }

PHI4FLASH_VECTOR_INLINE float reduce_sum(f32_vector v) { return xsimd::reduce_add(v); }
PHI4FLASH_VECTOR_INLINE float reduce_max(f32_vector v) { return xsimd::reduce_max(v); }

PHI4FLASH_VECTOR_INLINE f32_vector round_nearest(f32_vector v) { return xsimd::nearbyint(v); }
PHI4FLASH_VECTOR_INLINE f32_vector scale_by_power_of_two(f32_vector v, f32_vector n) {
    const i32_vector exponent = xsimd::nearbyint_as_int(n) + i32_vector(127);
    return v * xsimd::bitwise_cast<float>(exponent << 23);
}

PHI4FLASH_TARGET_END
#else

// ---- phi4flash/simd/vocabulary_scalar-inl.hpp ----------------------------------------------------------------------------
// The vector vocabulary in plain C++, without any dependency. Four lanes, so that a compiler can use the baseline's vectors
// where it has some. See simd/vocabulary-inl.hpp for what each word means.

PHI4FLASH_TARGET_BEGIN

inline constexpr std::size_t scalar_lanes = 4;
struct f32_vector {
    float lane[scalar_lanes];
};

namespace detail {
template <class Operation>
PHI4FLASH_VECTOR_INLINE f32_vector each(Operation operation) {
    f32_vector r;
    for (std::size_t i = 0; i < scalar_lanes; ++i) r.lane[i] = operation(i);
    return r;
}
}  // namespace detail

PHI4FLASH_VECTOR_INLINE constexpr std::size_t lanes() { return scalar_lanes; }
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return detail::each([&](std::size_t) { return x; }); }
PHI4FLASH_VECTOR_INLINE f32_vector zero() { return set(0.0f); }

template <class T>
PHI4FLASH_VECTOR_INLINE f32_vector load(const T* p) {
    return detail::each([&](std::size_t i) { return to_f32(p[i]); });
}
template <class T>
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, T* p) {
    for (std::size_t i = 0; i < scalar_lanes; ++i) p[i] = from_f32<T>(v.lane[i]);
}
PHI4FLASH_VECTOR_INLINE void load_even_odd(const bf16* p, f32_vector& even, f32_vector& odd) {
    even = detail::each([&](std::size_t i) { return to_f32(p[2 * i]); });
    odd = detail::each([&](std::size_t i) { return to_f32(p[2 * i + 1]); });
}

PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] + b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] - b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] * b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] / b.lane[i]; });
}
// Where the target has the instruction it is asked for by name: left to itself, a compiler fuses some of the loops of a kernel
// and not others, and results would depend on how work is cut. Elsewhere std::fma would be a library call per element.
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__)
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
}
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return std::fma(-a.lane[i], b.lane[i], c.lane[i]); });
}
#else
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return c.lane[i] - a.lane[i] * b.lane[i]; });
}
#endif
PHI4FLASH_VECTOR_INLINE f32_vector min_of(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector max_of(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector abs_of(f32_vector a) {
    return detail::each([&](std::size_t i) { return std::fabs(a.lane[i]); });
}

PHI4FLASH_VECTOR_INLINE float reduce_sum(f32_vector v) { return (v.lane[0] + v.lane[2]) + (v.lane[1] + v.lane[3]); }
PHI4FLASH_VECTOR_INLINE float reduce_max(f32_vector v) {
    float m = v.lane[0];
    for (std::size_t i = 1; i < scalar_lanes; ++i) m = v.lane[i] > m ? v.lane[i] : m;
    return m;
}

PHI4FLASH_VECTOR_INLINE f32_vector round_nearest(f32_vector v) {
    // Adding and subtracting 1.5 * 2^23 rounds to nearest even for |v| < 2^22, which is all that exp asks for.
    constexpr float magic = 0x1.8p23f;
    return detail::each([&](std::size_t i) { return (v.lane[i] + magic) - magic; });
}
PHI4FLASH_VECTOR_INLINE f32_vector scale_by_power_of_two(f32_vector v, f32_vector n) {
    return detail::each([&](std::size_t i) {
        const auto exponent = static_cast<std::uint32_t>(static_cast<std::int32_t>(n.lane[i]) + 127);
        return v.lane[i] * std::bit_cast<float>(exponent << 23);
    });
}

PHI4FLASH_TARGET_END
#endif

// ---- phi4flash/simd/integer-inl.hpp --------------------------------------------------------------------------------------
// The integer part of the vocabulary: products of weight codes with 8-bit activations, for the packed formats (core/packed.hpp).
//
//   rows_lanes()                    rows a vector: 8 or 4 of the 8 rows of a block
//   rows_i32 rows_f32               a number for each of these rows
//   code_vector signed_code_vector  four bytes for each of these rows, lying together
//   load_codes(p) load_levels(p)    4 * rows_lanes() bytes; 16 bytes repeated
//   low_codes high_codes            the nibbles of each byte
//   levels_of(levels, codes)        levels[code] for each byte
//   broadcast_four(p)               four activations, repeated for each row
//   dot_first(w, x)                 sums of products, in whatever width the target has
//   dot_next(sums, w, x)            the same added: at most three times for levels below 64 and |x| <= dense_activation_limit,
//                                   at most seven times for levels below 16
//   dot_fold(sums) dot_fold(t, s)   the products of each row, summed; and added to a total
//   dot_signed(total, w, x)         total + four products, w in [-128, 127] and x in [-127, 127]
//   set_rows zero_rows load_rows load_scales(f16*) store_rows(v, p)
//   scale_sums(sums, scale, offset) sums * scale + offset
//   mul_add_rows(a, b, c)           a * b + c
#if PHI4FLASH_SIMD_HIGHWAY

// ---- phi4flash/simd/integer_highway-inl.hpp ------------------------------------------------------------------------------
// The integer part of the vocabulary over Highway. See simd/integer-inl.hpp for what each word means.

PHI4FLASH_TARGET_BEGIN

using rows_tag = hn::CappedTag<std::int32_t, 8>;
using rows_f32_tag = hn::RebindToFloat<rows_tag>;
using rows_u8_tag = hn::Repartition<std::uint8_t, rows_tag>;
using rows_i8_tag = hn::Repartition<std::int8_t, rows_tag>;
using rows_i16_tag = hn::Repartition<std::int16_t, rows_tag>;
using rows_u16_tag = hn::Repartition<std::uint16_t, rows_tag>;
using rows_i32 = hn::Vec<rows_tag>;
using rows_f32 = hn::Vec<rows_f32_tag>;
using code_vector = hn::Vec<rows_u8_tag>;
using signed_code_vector = hn::Vec<rows_i8_tag>;

PHI4FLASH_VECTOR_INLINE std::size_t rows_lanes() { return hn::Lanes(rows_tag()); }
PHI4FLASH_VECTOR_INLINE code_vector load_codes(const std::uint8_t* p) { return hn::LoadU(rows_u8_tag(), p); }
PHI4FLASH_VECTOR_INLINE signed_code_vector load_codes(const std::int8_t* p) { return hn::LoadU(rows_i8_tag(), p); }
PHI4FLASH_VECTOR_INLINE code_vector load_levels(const std::uint8_t* sixteen) { return hn::LoadDup128(rows_u8_tag(), sixteen); }
PHI4FLASH_VECTOR_INLINE code_vector low_codes(code_vector v) { return hn::And(v, hn::Set(rows_u8_tag(), std::uint8_t{15})); }
PHI4FLASH_VECTOR_INLINE code_vector high_codes(code_vector v) {
    const rows_u16_tag du16;
    return low_codes(hn::BitCast(rows_u8_tag(), hn::ShiftRight<4>(hn::BitCast(du16, v))));
}
PHI4FLASH_VECTOR_INLINE code_vector levels_of(code_vector levels, code_vector codes) { return hn::TableLookupBytes(levels, codes); }
PHI4FLASH_VECTOR_INLINE signed_code_vector broadcast_four(const std::int8_t* p) {
    std::int32_t four;
    std::memcpy(&four, p, sizeof four);
    return hn::BitCast(rows_i8_tag(), hn::Set(rows_tag(), four));
}

// x86 before VNNI multiplies bytes into saturating 16-bit pairs; everything else sums four products into 32 bits.
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL
using dot_sums = hn::Vec<rows_i16_tag>;
/// g++ turns a chain of integer sums into a tree, which needs more registers than there are: a fifth of the speed of a matmul.
PHI4FLASH_VECTOR_INLINE dot_sums in_this_order(dot_sums sums) {
#if defined(__GNUC__) && !defined(__clang__)
    asm("" : "+x"(sums.raw));
#endif
    return sums;
}
PHI4FLASH_VECTOR_INLINE dot_sums dot_first(code_vector w, signed_code_vector x) { return hn::SatWidenMulPairwiseAdd(rows_i16_tag(), w, x); }
PHI4FLASH_VECTOR_INLINE dot_sums dot_next(dot_sums sums, code_vector w, signed_code_vector x) {
    return in_this_order(hn::Add(sums, hn::SatWidenMulPairwiseAdd(rows_i16_tag(), w, x)));
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(dot_sums sums) {
    return hn::WidenMulPairwiseAdd(rows_tag(), sums, hn::Set(rows_i16_tag(), std::int16_t{1}));
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(rows_i32 total, dot_sums sums) { return hn::Add(total, dot_fold(sums)); }
/// Eight products of a level up to 61 and an activation fit 16 bits.
inline constexpr int dense_activation_limit = 67;
#else
using dot_sums = rows_i32;
#if HWY_ARCH_X86
PHI4FLASH_VECTOR_INLINE rows_i32 dot_four(code_vector w, signed_code_vector x, rows_i32 sum) {
    return hn::SumOfMulQuadAccumulate(rows_tag(), w, x, sum);
}
#else  // levels are below 128, so they are signed bytes too, for which other architectures have the instruction
PHI4FLASH_VECTOR_INLINE rows_i32 dot_four(code_vector w, signed_code_vector x, rows_i32 sum) {
    return hn::SumOfMulQuadAccumulate(rows_tag(), hn::BitCast(rows_i8_tag(), w), x, sum);
}
#endif
PHI4FLASH_VECTOR_INLINE dot_sums dot_first(code_vector w, signed_code_vector x) { return dot_four(w, x, hn::Zero(rows_tag())); }
PHI4FLASH_VECTOR_INLINE dot_sums dot_next(dot_sums sums, code_vector w, signed_code_vector x) { return dot_four(w, x, sums); }
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(dot_sums sums) { return sums; }
inline constexpr int dense_activation_limit = 127;
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(rows_i32 total, dot_sums sums) { return hn::Add(total, sums); }
#endif

#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL
// |w| * (x with the sign of w): two products of at most 128 * 127 fit 16 bits, where an offset would not.
PHI4FLASH_VECTOR_INLINE rows_i32 dot_signed(rows_i32 total, signed_code_vector w, signed_code_vector x) {
    const auto magnitude = hn::BitCast(rows_u8_tag(), hn::Abs(w));
    const auto signed_x = hn::IfNegativeThenNegOrUndefIfZero(w, x);
    return hn::Add(total, hn::WidenMulPairwiseAdd(rows_tag(), hn::SatWidenMulPairwiseAdd(rows_i16_tag(), magnitude, signed_x),
                                                  hn::Set(rows_i16_tag(), std::int16_t{1})));
}
#else
PHI4FLASH_VECTOR_INLINE rows_i32 dot_signed(rows_i32 total, signed_code_vector w, signed_code_vector x) {
    return hn::SumOfMulQuadAccumulate(rows_tag(), w, x, total);
}
#endif

PHI4FLASH_VECTOR_INLINE rows_i32 set_rows(std::int32_t x) { return hn::Set(rows_tag(), x); }
PHI4FLASH_VECTOR_INLINE rows_f32 zero_rows() { return hn::Zero(rows_f32_tag()); }
PHI4FLASH_VECTOR_INLINE rows_f32 load_scales(const f16* p) {
    const hn::Rebind<hwy::float16_t, rows_f32_tag> half;
    return hn::PromoteTo(rows_f32_tag(), hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(p)));
}
PHI4FLASH_VECTOR_INLINE rows_f32 scale_sums(rows_i32 sums, float scale, float offset) {
    const rows_f32_tag df;
    return hn::MulAdd(hn::ConvertTo(df, sums), hn::Set(df, scale), hn::Set(df, offset));
}
PHI4FLASH_VECTOR_INLINE rows_f32 mul_add_rows(rows_f32 a, rows_f32 b, rows_f32 c) { return hn::MulAdd(a, b, c); }
PHI4FLASH_VECTOR_INLINE rows_f32 load_rows(const float* p) { return hn::LoadU(rows_f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE void store_rows(rows_f32 v, float* p) { hn::StoreU(v, rows_f32_tag(), p); }

PHI4FLASH_TARGET_END
#else

// ---- phi4flash/simd/integer_plain-inl.hpp --------------------------------------------------------------------------------
// The integer part of the vocabulary in plain C++, for back ends without byte products. See simd/integer-inl.hpp.

PHI4FLASH_TARGET_BEGIN

inline constexpr std::size_t plain_rows = 8;
struct rows_i32 {
    std::int32_t lane[plain_rows];
};
struct rows_f32 {
    float lane[plain_rows];
};
struct code_vector {
    std::uint8_t byte[4 * plain_rows];
};
struct signed_code_vector {
    std::int8_t byte[4 * plain_rows];
};
using dot_sums = rows_i32;

PHI4FLASH_VECTOR_INLINE constexpr std::size_t rows_lanes() { return plain_rows; }
PHI4FLASH_VECTOR_INLINE code_vector load_codes(const std::uint8_t* p) {
    code_vector v;
    std::memcpy(v.byte, p, sizeof v.byte);
    return v;
}
PHI4FLASH_VECTOR_INLINE signed_code_vector load_codes(const std::int8_t* p) {
    signed_code_vector v;
    std::memcpy(v.byte, p, sizeof v.byte);
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector load_levels(const std::uint8_t* sixteen) {
    code_vector v;
    for (std::size_t i = 0; i < sizeof v.byte; ++i) v.byte[i] = sixteen[i % 16];
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector low_codes(code_vector v) {
    for (std::uint8_t& b : v.byte) b = b & 15u;
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector high_codes(code_vector v) {
    for (std::uint8_t& b : v.byte) b = static_cast<std::uint8_t>(b >> 4);
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector levels_of(const code_vector& levels, code_vector codes) {
    for (std::uint8_t& b : codes.byte) b = levels.byte[b];
    return codes;
}
PHI4FLASH_VECTOR_INLINE signed_code_vector broadcast_four(const std::int8_t* p) {
    signed_code_vector v;
    for (std::size_t i = 0; i < sizeof v.byte; ++i) v.byte[i] = p[i % 4];
    return v;
}

namespace detail {
/// a * b + c: always fused or never, whatever the compiler would like.
PHI4FLASH_VECTOR_INLINE float fused(float a, float b, float c) {
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__)
    return std::fma(a, b, c);
#else
    return a * b + c;
#endif
}

template <class Codes>
PHI4FLASH_VECTOR_INLINE rows_i32 plain_dot(rows_i32 total, const Codes& w, const signed_code_vector& x) {
    for (std::size_t r = 0; r < plain_rows; ++r) {
        for (std::size_t i = 0; i < 4; ++i) total.lane[r] += static_cast<std::int32_t>(w.byte[4 * r + i]) * x.byte[4 * r + i];
    }
    return total;
}
}  // namespace detail

PHI4FLASH_VECTOR_INLINE rows_i32 set_rows(std::int32_t x) {
    rows_i32 v;
    for (std::int32_t& lane : v.lane) lane = x;
    return v;
}
PHI4FLASH_VECTOR_INLINE dot_sums dot_first(const code_vector& w, const signed_code_vector& x) { return detail::plain_dot(set_rows(0), w, x); }
PHI4FLASH_VECTOR_INLINE dot_sums dot_next(const dot_sums& sums, const code_vector& w, const signed_code_vector& x) {
    return detail::plain_dot(sums, w, x);
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(const dot_sums& sums) { return sums; }
inline constexpr int dense_activation_limit = 127;
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(rows_i32 total, const dot_sums& sums) {
    for (std::size_t r = 0; r < plain_rows; ++r) total.lane[r] += sums.lane[r];
    return total;
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_signed(const rows_i32& total, const signed_code_vector& w, const signed_code_vector& x) {
    return detail::plain_dot(total, w, x);
}

PHI4FLASH_VECTOR_INLINE rows_f32 zero_rows() { return {}; }
PHI4FLASH_VECTOR_INLINE rows_f32 load_scales(const f16* p) {
    rows_f32 v;
    for (std::size_t r = 0; r < plain_rows; ++r) v.lane[r] = to_f32(p[r]);
    return v;
}
// Products are rounded before they are added, or fused, by the same rule in every function: results must not depend on the cut.
PHI4FLASH_VECTOR_INLINE rows_f32 scale_sums(const rows_i32& sums, float scale, float offset) {
    rows_f32 v;
    for (std::size_t r = 0; r < plain_rows; ++r) v.lane[r] = detail::fused(static_cast<float>(sums.lane[r]), scale, offset);
    return v;
}
PHI4FLASH_VECTOR_INLINE rows_f32 mul_add_rows(const rows_f32& a, const rows_f32& b, rows_f32 c) {
    for (std::size_t r = 0; r < plain_rows; ++r) c.lane[r] = detail::fused(a.lane[r], b.lane[r], c.lane[r]);
    return c;
}
PHI4FLASH_VECTOR_INLINE rows_f32 load_rows(const float* p) {
    rows_f32 v;
    for (std::size_t r = 0; r < plain_rows; ++r) v.lane[r] = p[r];
    return v;
}
PHI4FLASH_VECTOR_INLINE void store_rows(const rows_f32& v, float* p) {
    for (std::size_t r = 0; r < plain_rows; ++r) p[r] = v.lane[r];
}

PHI4FLASH_TARGET_END
#endif

// ---- phi4flash/kernels/math-inl.hpp --------------------------------------------------------------------------------------
// Elementary functions over the vocabulary.

PHI4FLASH_TARGET_BEGIN

/// 2^x.   f32, x clamped to [-126, 127]: never 0, never infinite.
/// Error: <= 2 ulp (tests/kernels/elementwise_test.cpp).   Source: Taylor in (x - round(x)) ln 2, |r| <= 0.347, degree 7.
PHI4FLASH_VECTOR_INLINE f32_vector exp2_of(f32_vector x) {
    const f32_vector clamped = max_of(min_of(x, set(127.0f)), set(-126.0f));
    const f32_vector n = round_nearest(clamped);
    const f32_vector r = sub(clamped, n);
    f32_vector p = set(1.525273380e-5f);
    p = mul_add(p, r, set(1.540353039e-4f));
    p = mul_add(p, r, set(1.333355814e-3f));
    p = mul_add(p, r, set(9.618129107e-3f));
    p = mul_add(p, r, set(5.550410866e-2f));
    p = mul_add(p, r, set(2.402265070e-1f));
    p = mul_add(p, r, set(6.931471806e-1f));
    p = mul_add(p, r, set(1.0f));
    return scale_by_power_of_two(p, n);
}

/// e^x.   f32, x clamped to [-87.3, 88.0].
/// Error: <= 2 ulp (tests/kernels/elementwise_test.cpp).   Source: Cody and Waite reduction, then as exp2_of.
PHI4FLASH_VECTOR_INLINE f32_vector exp_of(f32_vector x) {
    const f32_vector clamped = max_of(min_of(x, set(88.0f)), set(-87.3f));
    const f32_vector n = round_nearest(mul(clamped, set(1.442695041f)));
    f32_vector r = neg_mul_add(n, set(0.693359375f), clamped);
    r = neg_mul_add(n, set(-2.12194440e-4f), r);
    f32_vector p = set(1.984126984e-4f);
    p = mul_add(p, r, set(1.388888889e-3f));
    p = mul_add(p, r, set(8.333333333e-3f));
    p = mul_add(p, r, set(4.166666667e-2f));
    p = mul_add(p, r, set(1.666666667e-1f));
    p = mul_add(p, r, set(5.0e-1f));
    p = mul_add(p, r, set(1.0f));
    p = mul_add(p, r, set(1.0f));
    return scale_by_power_of_two(p, n);
}

/// x / (1 + e^-x).   Error: <= 4 ulp for x >= -87, <= 1e-36 below (tests/kernels/elementwise_test.cpp).
PHI4FLASH_VECTOR_INLINE f32_vector silu_of(f32_vector x) { return div(x, add(set(1.0f), exp_of(sub(zero(), x)))); }

/// log(1 + e^x) = max(x, 0) + log1p(e^-|x|).
/// Error: <= 4 ulp for x >= -87, <= 2e-38 below (tests/kernels/elementwise_test.cpp).   Source: log1p(t) = 2 atanh(t / (2 + t)), t in (0, 1].
PHI4FLASH_VECTOR_INLINE f32_vector softplus_of(f32_vector x) {
    const f32_vector t = exp_of(sub(zero(), abs_of(x)));
    const f32_vector s = div(t, add(t, set(2.0f)));
    const f32_vector z = mul(s, s);
    f32_vector p = set(6.666666667e-2f);
    p = mul_add(p, z, set(7.692307692e-2f));
    p = mul_add(p, z, set(9.090909091e-2f));
    p = mul_add(p, z, set(1.111111111e-1f));
    p = mul_add(p, z, set(1.428571429e-1f));
    p = mul_add(p, z, set(2.0e-1f));
    p = mul_add(p, z, set(3.333333333e-1f));
    p = mul_add(p, z, set(1.0f));
    return mul_add(add(s, s), p, max_of(x, zero()));
}

/// a * b + c as `mul_add` computes it. In scalar code a compiler fuses some products and not others, and results would depend on
/// which copy of a function they come from.
PHI4FLASH_VECTOR_INLINE float mul_add_one(float a, float b, float c) {
    float out[max_lanes];
    store(mul_add(set(a), set(b), set(c)), out);
    return out[0];
}

/// The first n < lanes() elements at p, the rest zero.
template <class Element>
PHI4FLASH_VECTOR_INLINE f32_vector load_first(const Element* p, std::size_t n) {
    float buffer[max_lanes] = {};
    for (std::size_t i = 0; i < n; ++i) buffer[i] = to_f32(p[i]);
    return load(buffer);
}

/// Stores the first n < lanes() lanes.
template <class Element>
PHI4FLASH_VECTOR_INLINE void store_first(f32_vector v, Element* p, std::size_t n) {
    float buffer[max_lanes];
    store(v, buffer);
    for (std::size_t i = 0; i < n; ++i) p[i] = from_f32<Element>(buffer[i]);
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/linear-inl.hpp ------------------------------------------------------------------------------------
// Products with weight matrices in their stored type: one activation column (matvec) and many (matmul).

PHI4FLASH_TARGET_BEGIN

/// sum_i a[i] b[i].   a: n elements, b: f32 [n].   Four independent sums hide the latency of the additions.
template <class Element>
PHI4FLASH_VECTOR_INLINE float dot(const Element* PHI4FLASH_RESTRICT a, const float* PHI4FLASH_RESTRICT b, std::size_t n) {
    const std::size_t lane_count = lanes();
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    f32_vector s2 = zero();
    f32_vector s3 = zero();
    std::size_t i = 0;
    for (; i + 4 * lane_count <= n; i += 4 * lane_count) {
        s0 = mul_add(load(a + i), load(b + i), s0);
        s1 = mul_add(load(a + i + lane_count), load(b + i + lane_count), s1);
        s2 = mul_add(load(a + i + 2 * lane_count), load(b + i + 2 * lane_count), s2);
        s3 = mul_add(load(a + i + 3 * lane_count), load(b + i + 3 * lane_count), s3);
    }
    for (; i + lane_count <= n; i += lane_count) s0 = mul_add(load(a + i), load(b + i), s0);
    if (i < n) s1 = mul_add(load_first(a + i, n - i), load_first(b + i, n - i), s1);
    return reduce_sum(add(add(s0, s1), add(s2, s3)));
}

/// The same for bf16 weights and an x arranged by `arrange_even_odd`: blocks of 2 * lanes() with the even elements first.
PHI4FLASH_VECTOR_INLINE float dot_arranged(const bf16* PHI4FLASH_RESTRICT a, const float* PHI4FLASH_RESTRICT x, std::size_t n) {
    const std::size_t lane_count = lanes();
    const std::size_t step = 2 * lane_count;
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    f32_vector s2 = zero();
    f32_vector s3 = zero();
    f32_vector even;
    f32_vector odd;
    std::size_t i = 0;
    for (; i + 2 * step <= n; i += 2 * step) {
        load_even_odd(a + i, even, odd);
        s0 = mul_add(even, load(x + i), s0);
        s1 = mul_add(odd, load(x + i + lane_count), s1);
        load_even_odd(a + i + step, even, odd);
        s2 = mul_add(even, load(x + i + step), s2);
        s3 = mul_add(odd, load(x + i + step + lane_count), s3);
    }
    for (; i < n; i += step) {
        bf16 last[2 * max_lanes] = {};
        const bf16* block = a + i;
        if (i + step > n) {  // a ragged end: what lies behind it belongs to somebody else
            for (std::size_t j = i; j < n; ++j) last[j - i] = a[j];
            block = last;
        }
        load_even_odd(block, even, odd);
        s0 = mul_add(even, load(x + i), s0);
        s1 = mul_add(odd, load(x + i + lane_count), s1);
    }
    return reduce_sum(add(add(s0, s1), add(s2, s3)));
}

inline const std::byte* arrange_none(const float* x, std::size_t, std::size_t, std::size_t, std::byte*) { return reinterpret_cast<const std::byte*>(x); }

inline const std::byte* arrange_even_odd(const float* PHI4FLASH_RESTRICT x, std::size_t cols, std::size_t token, std::size_t, std::byte* scratch) {
    auto* PHI4FLASH_RESTRICT out = reinterpret_cast<float*>(scratch + token * arranged_bytes(cols));
    const std::size_t half = lanes();
    for (std::size_t i = 0; i < cols; i += 2 * half) {
        for (std::size_t j = 0; j < half; ++j) {
            out[i + j] = i + 2 * j < cols ? x[i + 2 * j] : 0.0f;
            out[i + half + j] = i + 2 * j + 1 < cols ? x[i + 2 * j + 1] : 0.0f;
        }
    }
    return scratch;
}

/// One row after the other: a single sequential stream, which is what memory likes best.
template <class Element>
inline void matvec(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* arranged, const float* bias, float* y) {
    const auto* x = reinterpret_cast<const float*>(arranged);
    const auto* row = reinterpret_cast<const Element*>(w);
    for (std::size_t r = 0; r < rows; ++r, row += cols) {
        float sum = 0.0f;
        if constexpr (dtype_of<Element> == dtype::bf16) {
            sum = dot_arranged(row, x, cols);
        } else {
            sum = dot(row, x, cols);
        }
        y[r] = bias == nullptr ? sum : sum + bias[r];
    }
}

template <class Element>
inline void widen(const std::byte* w, std::size_t cols, float* PHI4FLASH_RESTRICT out) {
    const auto* in = reinterpret_cast<const Element*>(w);
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= cols; i += lane_count) store(load(in + i), out + i);
    for (; i < cols; ++i) out[i] = to_f32(in[i]);
}

/// Weights of a panel are widened once and used for all tokens. 24 KiB: stays in the first-level cache with a tile of x.
inline constexpr std::size_t panel_rows = 6;
inline constexpr std::size_t panel_cols = 1024;

/// y[t, r] (+)= x[t, :] . panel[r, :] for 4 tokens and 3 rows, one sum each, so that every output adds in the same order as in
/// the ragged tiles below.
PHI4FLASH_VECTOR_INLINE void tile_4x3(const float* PHI4FLASH_RESTRICT x, std::size_t x_stride, const float* PHI4FLASH_RESTRICT panel,
                                      std::size_t n, float* y, std::size_t y_stride) {
    const std::size_t lane_count = lanes();
    const float* x1 = x + x_stride;
    const float* x2 = x1 + x_stride;
    const float* x3 = x2 + x_stride;
    const float* w1 = panel + panel_cols;
    const float* w2 = w1 + panel_cols;
    f32_vector s00 = zero(), s01 = zero(), s02 = zero();
    f32_vector s10 = zero(), s11 = zero(), s12 = zero();
    f32_vector s20 = zero(), s21 = zero(), s22 = zero();
    f32_vector s30 = zero(), s31 = zero(), s32 = zero();
    for (std::size_t i = 0; i < n; i += lane_count) {  // n is a multiple of lane_count
        const f32_vector a = load(panel + i);
        const f32_vector b = load(w1 + i);
        const f32_vector c = load(w2 + i);
        f32_vector t = load(x + i);
        s00 = mul_add(t, a, s00), s01 = mul_add(t, b, s01), s02 = mul_add(t, c, s02);
        t = load(x1 + i);
        s10 = mul_add(t, a, s10), s11 = mul_add(t, b, s11), s12 = mul_add(t, c, s12);
        t = load(x2 + i);
        s20 = mul_add(t, a, s20), s21 = mul_add(t, b, s21), s22 = mul_add(t, c, s22);
        t = load(x3 + i);
        s30 = mul_add(t, a, s30), s31 = mul_add(t, b, s31), s32 = mul_add(t, c, s32);
    }
    y[0] += reduce_sum(s00), y[1] += reduce_sum(s01), y[2] += reduce_sum(s02);
    y += y_stride;
    y[0] += reduce_sum(s10), y[1] += reduce_sum(s11), y[2] += reduce_sum(s12);
    y += y_stride;
    y[0] += reduce_sum(s20), y[1] += reduce_sum(s21), y[2] += reduce_sum(s22);
    y += y_stride;
    y[0] += reduce_sum(s30), y[1] += reduce_sum(s31), y[2] += reduce_sum(s32);
}

PHI4FLASH_VECTOR_INLINE void tile_1x1(const float* PHI4FLASH_RESTRICT x, const float* PHI4FLASH_RESTRICT panel, std::size_t n, float* y) {
    f32_vector sum = zero();
    for (std::size_t i = 0; i < n; i += lanes()) sum = mul_add(load(x + i), load(panel + i), sum);
    *y += reduce_sum(sum);
}

/// All tokens against one panel of `rows` <= panel_rows rows and `n` columns.
PHI4FLASH_VECTOR_INLINE void multiply_panel(const float* x, std::size_t x_stride, std::size_t tokens, const float* panel, std::size_t rows,
                                            std::size_t n, float* y, std::size_t y_stride) {
    std::size_t t = 0;
    for (; t + 4 <= tokens; t += 4) {
        std::size_t r = 0;
        for (; r + 3 <= rows; r += 3) tile_4x3(x + t * x_stride, x_stride, panel + r * panel_cols, n, y + t * y_stride + r, y_stride);
        for (; r < rows; ++r) {
            for (std::size_t k = t; k < t + 4; ++k) tile_1x1(x + k * x_stride, panel + r * panel_cols, n, y + k * y_stride + r);
        }
    }
    for (; t < tokens; ++t) {
        for (std::size_t r = 0; r < rows; ++r) tile_1x1(x + t * x_stride, panel + r * panel_cols, n, y + t * y_stride + r);
    }
}

template <class Element>
inline void matmul(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x_bytes, std::size_t x_stride, std::size_t tokens,
                   const float* bias, float* y, std::size_t y_stride) {
    const auto* x = reinterpret_cast<const float*>(x_bytes);
    alignas(64) float panel[panel_rows * panel_cols];
    const std::size_t lane_count = lanes();
    const std::size_t whole_cols = cols / lane_count * lane_count;
    for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t r = 0; r < rows; ++r) y[t * y_stride + r] = bias == nullptr ? 0.0f : bias[r];
    }
    for (std::size_t r0 = 0; r0 < rows; r0 += panel_rows) {
        const std::size_t row_count = rows - r0 < panel_rows ? rows - r0 : panel_rows;
        for (std::size_t c0 = 0; c0 < whole_cols; c0 += panel_cols) {
            const std::size_t n = whole_cols - c0 < panel_cols ? whole_cols - c0 : panel_cols;
            for (std::size_t r = 0; r < row_count; ++r)
                widen<Element>(w + ((r0 + r) * cols + c0) * sizeof(Element), n, panel + r * panel_cols);
            multiply_panel(x + c0, x_stride, tokens, panel, row_count, n, y + r0, y_stride);
        }
        // The last columns that do not fill a vector: neither x nor W may be read behind them.
        for (std::size_t r = 0; r < row_count && whole_cols < cols; ++r) {
            const auto* row = reinterpret_cast<const Element*>(w) + (r0 + r) * cols;
            for (std::size_t t = 0; t < tokens; ++t) {
                float sum = 0.0f;
                for (std::size_t c = whole_cols; c < cols; ++c) sum += to_f32(row[c]) * x[t * x_stride + c];
                y[t * y_stride + r0 + r] += sum;
            }
        }
    }
}

template <class Element>
inline void widen_row(const std::byte* w, std::size_t r, std::size_t cols, float* out) {
    widen<Element>(w + r * cols * sizeof(Element), cols, out);
}

template <class Element>
inline void narrow(const float* PHI4FLASH_RESTRICT x, std::size_t n, std::byte* PHI4FLASH_RESTRICT out) {
    auto* to = reinterpret_cast<Element*>(out);
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(load(x + i), to + i);
    for (; i < n; ++i) to[i] = from_f32<Element>(x[i]);
}

inline float read_all(const std::byte* data, std::size_t bytes) {
    const auto* p = reinterpret_cast<const bf16*>(data);
    const std::size_t step = 4 * lanes();
    const std::size_t count = bytes / sizeof(bf16);
    f32_vector s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
    f32_vector even;
    f32_vector odd;
    std::size_t i = 0;
    for (; i + step <= count; i += step) {
        load_even_odd(p + i, even, odd);
        s0 = add(s0, even), s1 = add(s1, odd);
        load_even_odd(p + i + step / 2, even, odd);
        s2 = add(s2, even), s3 = add(s3, odd);
    }
    float rest = 0.0f;
    for (; i < count; ++i) rest += to_f32(p[i]);
    return reduce_sum(add(add(s0, s1), add(s2, s3))) + rest;
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/elementwise-inl.hpp -------------------------------------------------------------------------------
// Kernels that touch each number once: norms, activations, softmax, rotation.

PHI4FLASH_TARGET_BEGIN

inline void accumulate(const float* PHI4FLASH_RESTRICT x, std::size_t n, float* PHI4FLASH_RESTRICT y) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(add(load(y + i), load(x + i)), y + i);
    for (; i < n; ++i) y[i] += x[i];
}

inline void silu_mul(const float* gate, const float* x, std::size_t n, float* y) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(mul(silu_of(load(gate + i)), load(x + i)), y + i);
    if (i < n) store_first(mul(silu_of(load_first(gate + i, n - i)), load_first(x + i, n - i)), y + i, n - i);
}

inline void softplus(const float* x, std::size_t n, float* y) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(softplus_of(load(x + i)), y + i);
    if (i < n) store_first(softplus_of(load_first(x + i, n - i)), y + i, n - i);
}

/// sum_i (x[i] - shift)^2, in two sums.
PHI4FLASH_VECTOR_INLINE float sum_of_squares(const float* x, float shift, std::size_t n) {
    const std::size_t lane_count = lanes();
    const f32_vector c = set(shift);
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    std::size_t i = 0;
    for (; i + 2 * lane_count <= n; i += 2 * lane_count) {
        const f32_vector a = sub(load(x + i), c);
        const f32_vector b = sub(load(x + i + lane_count), c);
        s0 = mul_add(a, a, s0);
        s1 = mul_add(b, b, s1);
    }
    float rest = 0.0f;
    for (; i < n; ++i) rest += (x[i] - shift) * (x[i] - shift);
    return reduce_sum(add(s0, s1)) + rest;
}

PHI4FLASH_VECTOR_INLINE float sum_of(const float* x, std::size_t n) {
    const std::size_t lane_count = lanes();
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    std::size_t i = 0;
    for (; i + 2 * lane_count <= n; i += 2 * lane_count) {
        s0 = add(s0, load(x + i));
        s1 = add(s1, load(x + i + lane_count));
    }
    float rest = 0.0f;
    for (; i < n; ++i) rest += x[i];
    return reduce_sum(add(s0, s1)) + rest;
}

inline void layer_norm(const float* x, const float* weight, const float* bias, float eps, std::size_t n, float* y) {
    const auto count = static_cast<float>(n);
    const float mean = sum_of(x, n) / count;
    // Two passes: the variance of numbers with a large mean does not survive E[x^2] - E[x]^2 in f32.
    const float inverse = 1.0f / std::sqrt(sum_of_squares(x, mean, n) / count + eps);
    const std::size_t lane_count = lanes();
    const f32_vector m = set(mean);
    const f32_vector s = set(inverse);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count)
        store(mul_add(mul(sub(load(x + i), m), s), load(weight + i), load(bias + i)), y + i);
    for (; i < n; ++i) y[i] = (x[i] - mean) * inverse * weight[i] + bias[i];
}

inline void rms_norm(const float* x, const float* weight, float eps, std::size_t n, float* y) {
    const float inverse = 1.0f / std::sqrt(sum_of_squares(x, 0.0f, n) / static_cast<float>(n) + eps);
    const std::size_t lane_count = lanes();
    const f32_vector s = set(inverse);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(mul(mul(load(x + i), s), load(weight + i)), y + i);
    for (; i < n; ++i) y[i] = x[i] * inverse * weight[i];
}

inline void difference_norm(const float* first, const float* second, float lambda, const float* weight, float eps, std::size_t n,
                            float* y) {
    const std::size_t lane_count = lanes();
    const f32_vector l = set(lambda);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(neg_mul_add(l, load(second + i), load(first + i)), y + i);
    for (; i < n; ++i) y[i] = first[i] - lambda * second[i];
    rms_norm(y, weight, eps, n, y);
}

inline void softmax(float* x, std::size_t n, float inverse_temperature) {
    if (n == 0) return;
    const std::size_t lane_count = lanes();
    float highest = x[0];
    std::size_t i = 0;
    if (n >= lane_count) {
        f32_vector m = load(x);
        for (; i + lane_count <= n; i += lane_count) m = max_of(m, load(x + i));
        highest = reduce_max(m);
    }
    for (; i < n; ++i) highest = x[i] > highest ? x[i] : highest;

    const f32_vector shift = set(highest);
    const f32_vector scale = set(inverse_temperature);
    f32_vector sums = zero();
    for (i = 0; i + lane_count <= n;) {
        // Sums of sums: added one by one, the 200,000 terms of a vocabulary would cost 300 ulp.
        f32_vector part = zero();
        for (std::size_t k = 0; k < 256 && i + lane_count <= n; ++k, i += lane_count) {
            const f32_vector e = exp_of(mul(sub(load(x + i), shift), scale));
            store(e, x + i);
            part = add(part, e);
        }
        sums = add(sums, part);
    }
    float sum = reduce_sum(sums);
    if (i < n) {
        store_first(exp_of(mul(sub(load_first(x + i, n - i), shift), scale)), x + i, n - i);
        for (; i < n; ++i) sum += x[i];
    }
    const f32_vector inverse = set(1.0f / sum);
    for (i = 0; i + lane_count <= n; i += lane_count) store(mul(load(x + i), inverse), x + i);
    for (; i < n; ++i) x[i] /= sum;
}

inline void rotate(float* x, const float* cosine, const float* sine, std::size_t half) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= half; i += lane_count) {
        const f32_vector a = load(x + i);
        const f32_vector b = load(x + half + i);
        const f32_vector c = load(cosine + i);
        const f32_vector s = load(sine + i);
        store(neg_mul_add(b, s, mul(a, c)), x + i);
        store(mul_add(a, s, mul(b, c)), x + half + i);
    }
    for (; i < half; ++i) {
        const float a = x[i];
        const float b = x[half + i];
        x[i] = a * cosine[i] - b * sine[i];
        x[half + i] = a * sine[i] + b * cosine[i];
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/mamba-inl.hpp -------------------------------------------------------------------------------------
// Mamba-1: depthwise causal convolution and the selective scan.

PHI4FLASH_TARGET_BEGIN

/// y[t,c] = silu(bias[c] + sum_j weight[j,c] x[t - (d_conv - 1) + j, c]), inputs before the chunk from the state.
/// Error: <= 4 ulp of sum |w x| (tests/kernels/mamba_test.cpp).   Source: arXiv:2312.00752, figure 3.
inline void convolution(const convolution_args& args, std::size_t channel_begin, std::size_t channel_end) {
    const std::size_t lane_count = lanes();
    const std::size_t history = args.d_conv - 1;
    for (std::size_t t = 0; t < args.tokens; ++t) {
        float* y = args.y + t * args.y_stride;
        for (std::size_t c = channel_begin; c < channel_end; c += lane_count) {
            const std::size_t n = channel_end - c < lane_count ? channel_end - c : lane_count;
            const bool whole = n == lane_count;
            f32_vector sum = whole ? load(args.bias + c) : load_first(args.bias + c, n);
            for (std::size_t j = 0; j < args.d_conv; ++j) {
                // Input at time t - history + j: from the state while that is before the chunk.
                const std::size_t time = t + j;
                const float* x = time < history ? args.state + time * args.d_inner : args.x + (time - history) * args.x_stride;
                const float* w = args.weight + j * args.d_inner;
                sum = whole ? mul_add(load(x + c), load(w + c), sum) : mul_add(load_first(x + c, n), load_first(w + c, n), sum);
            }
            if (whole) {
                store(silu_of(sum), y + c);
            } else {
                store_first(silu_of(sum), y + c, n);
            }
        }
    }
    // The state becomes the last `history` inputs; rows move towards the front, so in order is safe.
    for (std::size_t j = 0; j < history; ++j) {
        const std::size_t time = args.tokens + j;
        const float* from = time < history ? args.state + time * args.d_inner : args.x + (time - history) * args.x_stride;
        float* to = args.state + j * args.d_inner;
        for (std::size_t c = channel_begin; c < channel_end; ++c) to[c] = from[c];
    }
}

/// One vector of channels, one token: advances h [d_state][channel_block] and returns sum_n C[n] h[n].
PHI4FLASH_VECTOR_INLINE f32_vector scan_vector(const float* a, float* h, const float* b, const float* c, std::size_t d_state, f32_vector dt,
                                               f32_vector dt_u) {
    f32_vector y0 = zero();
    f32_vector y1 = zero();
    std::size_t n = 0;
    for (; n + 2 <= d_state; n += 2) {
        float* h0 = h + n * channel_block;
        float* h1 = h0 + channel_block;
        const f32_vector next0 = mul_add(exp2_of(mul(dt, load(a + n * channel_block))), load(h0), mul(dt_u, set(b[n])));
        const f32_vector next1 = mul_add(exp2_of(mul(dt, load(a + (n + 1) * channel_block))), load(h1), mul(dt_u, set(b[n + 1])));
        store(next0, h0);
        store(next1, h1);
        y0 = mul_add(next0, set(c[n]), y0);
        y1 = mul_add(next1, set(c[n + 1]), y1);
    }
    for (; n < d_state; ++n) {
        float* h0 = h + n * channel_block;
        const f32_vector next = mul_add(exp2_of(mul(dt, load(a + n * channel_block))), load(h0), mul(dt_u, set(b[n])));
        store(next, h0);
        y0 = mul_add(next, set(c[n]), y0);
    }
    return add(y0, y1);
}

/// See scan_args. Tokens run inside a block of channels, so its A and h stay in the first-level cache.
/// Error: <= 2e-6 of sum |C h| + |D u|, also after 1,000 tokens (tests/kernels/mamba_test.cpp).
inline void scan(const scan_args& args, std::size_t block_begin, std::size_t block_end) {
    const std::size_t lane_count = lanes();
    for (std::size_t block = block_begin; block < block_end; ++block) {
        const std::size_t first = block * channel_block;
        const std::size_t width = args.d_inner - first < channel_block ? args.d_inner - first : channel_block;
        const float* a = args.a_log2e + first * args.d_state;
        float* h = args.h + first * args.d_state;
        for (std::size_t t = 0; t < args.tokens; ++t) {
            const float* b = args.b + t * args.bc_stride;
            const float* c = args.c + t * args.bc_stride;
            for (std::size_t i = 0; i < width; i += lane_count) {
                const std::size_t channel = first + i;
                const std::size_t at = t * args.d_inner + channel;
                const std::size_t n = width - i < lane_count ? width - i : lane_count;
                if (n == lane_count) {
                    const f32_vector dt = load(args.dt + at);
                    const f32_vector u = load(args.u + at);
                    const f32_vector sum = scan_vector(a + i, h + i, b, c, args.d_state, dt, mul(dt, u));
                    store(mul_add(load(args.d + channel), u, sum), args.y + at);
                } else {  // A and h are zero behind the last channel, so whole vectors of them are safe
                    const f32_vector dt = load_first(args.dt + at, n);
                    const f32_vector u = load_first(args.u + at, n);
                    const f32_vector sum = scan_vector(a + i, h + i, b, c, args.d_state, dt, mul(dt, u));
                    store_first(mul_add(load_first(args.d + channel, n), u, sum), args.y + at, n);
                }
            }
        }
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/attention-inl.hpp ---------------------------------------------------------------------------------
// Sparse flash attention: keys come in tiles, a running maximum and sum make softmax exact, and only tiles that some query of
// the block can see are touched. Memory is linear in the sequence: no score outlives its tile.

PHI4FLASH_TARGET_BEGIN

/// Keys a tile; scores of one query fit a few vectors, and a tile of K and V fits the first-level cache.
inline constexpr std::size_t tile_keys = 32;
/// Floats of a widened tile of K, and of V.
inline constexpr std::size_t tile_floats = 4096;
/// Queries (token, head) that share a widened tile.
inline constexpr std::size_t row_block = 64;
/// Below any score; exp of it is 0 next to a real one.
inline constexpr float lowest_score = -3.0e38f;

/// scores[j] = scale * q . k[j] for j in [begin, end), keys `width` elements apart; four keys at once share the loads of q.
template <class Element>
PHI4FLASH_VECTOR_INLINE void tile_scores(const float* PHI4FLASH_RESTRICT q, const Element* PHI4FLASH_RESTRICT k, std::size_t width,
                                         std::size_t d_head, std::size_t begin, std::size_t end, float scale,
                                         float* PHI4FLASH_RESTRICT scores) {
    const std::size_t lane_count = lanes();
    const std::size_t whole = d_head / lane_count * lane_count;
    std::size_t j = begin;
    for (; j + 4 <= end && whole == d_head; j += 4) {
        const Element* k0 = k + j * width;
        const Element* k1 = k0 + width;
        const Element* k2 = k1 + width;
        const Element* k3 = k2 + width;
        f32_vector s0 = zero();
        f32_vector s1 = zero();
        f32_vector s2 = zero();
        f32_vector s3 = zero();
        for (std::size_t i = 0; i < whole; i += lane_count) {
            const f32_vector x = load(q + i);
            s0 = mul_add(x, load(k0 + i), s0);
            s1 = mul_add(x, load(k1 + i), s1);
            s2 = mul_add(x, load(k2 + i), s2);
            s3 = mul_add(x, load(k3 + i), s3);
        }
        scores[j] = scale * reduce_sum(s0);
        scores[j + 1] = scale * reduce_sum(s1);
        scores[j + 2] = scale * reduce_sum(s2);
        scores[j + 3] = scale * reduce_sum(s3);
    }
    for (; j < end; ++j) {
        f32_vector s = zero();
        for (std::size_t i = 0; i < whole; i += lane_count) s = mul_add(load(q + i), load(k + j * width + i), s);
        if (whole < d_head) s = mul_add(load_first(q + whole, d_head - whole), load_first(k + j * width + whole, d_head - whole), s);
        scores[j] = scale * reduce_sum(s);
    }
}

/// out[i] = correction * out[i] + sum_j p[j] v[j, i] for j in [begin, end), four vectors of out in registers at a time.
template <class Element>
PHI4FLASH_VECTOR_INLINE void tile_values(const float* PHI4FLASH_RESTRICT p, const Element* PHI4FLASH_RESTRICT v, std::size_t width,
                                         std::size_t begin, std::size_t end, float correction, float* PHI4FLASH_RESTRICT out) {
    const std::size_t lane_count = lanes();
    const f32_vector keep = set(correction);
    std::size_t i = 0;
    for (; i + 4 * lane_count <= width; i += 4 * lane_count) {
        f32_vector o0 = mul(keep, load(out + i));
        f32_vector o1 = mul(keep, load(out + i + lane_count));
        f32_vector o2 = mul(keep, load(out + i + 2 * lane_count));
        f32_vector o3 = mul(keep, load(out + i + 3 * lane_count));
        for (std::size_t j = begin; j < end; ++j) {
            const f32_vector weight = set(p[j]);
            const Element* row = v + j * width + i;
            o0 = mul_add(weight, load(row), o0);
            o1 = mul_add(weight, load(row + lane_count), o1);
            o2 = mul_add(weight, load(row + 2 * lane_count), o2);
            o3 = mul_add(weight, load(row + 3 * lane_count), o3);
        }
        store(o0, out + i);
        store(o1, out + i + lane_count);
        store(o2, out + i + 2 * lane_count);
        store(o3, out + i + 3 * lane_count);
    }
    for (; i + lane_count <= width; i += lane_count) {
        f32_vector o = mul(keep, load(out + i));
        for (std::size_t j = begin; j < end; ++j) o = mul_add(set(p[j]), load(v + j * width + i), o);
        store(o, out + i);
    }
    if (i < width) {
        f32_vector o = mul(keep, load_first(out + i, width - i));
        for (std::size_t j = begin; j < end; ++j) o = mul_add(set(p[j]), load_first(v + j * width + i, width - i), o);
        store_first(o, out + i, width - i);
    }
}

/// One query of a block: which head it is, what it sees, and its running maximum and sum.
struct attention_row {
    const float* q;
    float* out;
    std::size_t key_head;        ///< within the group
    std::size_t position;
    std::size_t first_visible;   ///< position
    float slope;
    float maximum;
    float sum;
};

/// Lets one query see keys [begin, end) of a tile whose key 0 is at `tile_position`.
template <class Element>
PHI4FLASH_VECTOR_INLINE void attend_tile(const attention_args& args, attention_row& row, const Element* k, const Element* v,
                                         std::size_t tile_position, std::size_t begin, std::size_t end) {
    const std::size_t width = args.k_per_group * args.d_head;
    const std::size_t lane_count = lanes();
    float scores[tile_keys + max_lanes];
    for (std::size_t j = 0; j < tile_keys; ++j) scores[j] = lowest_score;
    tile_scores(row.q, k + row.key_head * args.d_head, width, args.d_head, begin, end, args.scale, scores);
    if (row.slope != 0.0f) {
        for (std::size_t j = begin; j < end; ++j)
            scores[j] = mul_add_one(-row.slope, static_cast<float>(row.position - (tile_position + j)), scores[j]);
    }
    float highest = row.maximum;
    for (std::size_t j = begin; j < end; ++j) highest = scores[j] > highest ? scores[j] : highest;
    const f32_vector shift = set(highest);
    f32_vector sums = zero();
    const std::size_t first = begin / lane_count * lane_count;
    for (std::size_t j = first; j < end; j += lane_count) {
        const f32_vector e = exp_of(sub(load(scores + j), shift));
        store(e, scores + j);
    }
    // Keys outside [begin, end) got exp(-87): they are left out of the sum, not just small.
    float rest = 0.0f;
    std::size_t j = begin;
    for (; j < end && j % lane_count != 0; ++j) rest += scores[j];
    for (; j + lane_count <= end; j += lane_count) sums = add(sums, load(scores + j));
    for (; j < end; ++j) rest += scores[j];
    float shrink[max_lanes];
    store(exp_of(set(row.maximum - highest)), shrink);
    const float correction = row.maximum == lowest_score ? 0.0f : shrink[0];
    row.maximum = highest;
    row.sum = mul_add_one(row.sum, correction, reduce_sum(sums) + rest);
    tile_values(scores, v, width, begin, end, correction, row.out);
}

/// The keys of a tile at [position, position + count) that `row` sees, as indices into the tile; empty where begin >= end.
inline void visible_keys(const attention_row& row, std::size_t position, std::size_t count, std::size_t& begin, std::size_t& end) {
    begin = row.first_visible > position ? row.first_visible - position : 0;
    end = row.position < position ? 0 : row.position - position + 1;
    end = end < count ? end : count;
}

/// All rows of a block over one segment. Tiles are widened to f32 first where enough rows share them.
template <class Element>
inline void attend_segment(const attention_args& args, std::size_t group, attention_row* rows, std::size_t n_rows,
                           const kv_segment& segment) {
    const std::size_t width = args.k_per_group * args.d_head;
    const auto* k = reinterpret_cast<const Element*>(segment.k) + group * segment.group_rows * width;
    const auto* v = reinterpret_cast<const Element*>(segment.v) + group * segment.group_rows * width;
    // Rows are in token order: the first sees the earliest key, the last the latest.
    const std::size_t earliest = rows[0].first_visible;
    const std::size_t latest = rows[n_rows - 1].position;
    if (latest < segment.first_position || earliest >= segment.first_position + segment.count) return;
    // Tiles lie on a grid of the segment, whoever asks: a row must meet the same tiles however tokens are cut into blocks.
    const std::size_t wide_step = width * tile_keys <= tile_floats ? tile_keys : tile_floats / width;
    const bool can_widen = dtype_of<Element> != dtype::f32 && wide_step >= 4;
    const std::size_t tile_step = can_widen ? wide_step : tile_keys;
    const std::size_t first_key = earliest > segment.first_position ? earliest - segment.first_position : 0;
    const std::size_t start = first_key / tile_step * tile_step;
    const std::size_t stop = latest - segment.first_position + 1 < segment.count ? latest - segment.first_position + 1 : segment.count;
    const bool widened = can_widen && n_rows > 2 * args.k_per_group * args.queries_per_key;
    alignas(64) float wide_k[dtype_of<Element> == dtype::f32 ? 1 : tile_floats];
    alignas(64) float wide_v[dtype_of<Element> == dtype::f32 ? 1 : tile_floats];
    for (std::size_t j = start; j < stop; j += tile_step) {
        const std::size_t count = stop - j < tile_step ? stop - j : tile_step;
        const std::size_t position = segment.first_position + j;
        if (widened) {
            widen<Element>(reinterpret_cast<const std::byte*>(k + j * width), count * width, wide_k);
            widen<Element>(reinterpret_cast<const std::byte*>(v + j * width), count * width, wide_v);
        }
        for (std::size_t r = 0; r < n_rows; ++r) {
            std::size_t begin = 0;
            std::size_t end = 0;
            visible_keys(rows[r], position, count, begin, end);
            if (begin >= end) continue;
            if (widened) {
                attend_tile<float>(args, rows[r], wide_k, wide_v, position, begin, end);
            } else {
                attend_tile<Element>(args, rows[r], k + j * width, v + j * width, position, begin, end);
            }
        }
    }
}

/// See attention_args. Error: <= 1e-6 of the largest value, <= 5e-5 where scores reach hundreds (tests/kernels/attention_test.cpp).
template <class Element>
inline void attention(const attention_args& args, std::size_t group, std::size_t token_begin, std::size_t token_end,
                      const kv_segment* segments, std::size_t n_segments) {
    const std::size_t width = args.k_per_group * args.d_head;
    const std::size_t heads = args.k_per_group * args.queries_per_key;  // query heads of this group
    attention_row rows[row_block];
    const std::size_t total = (token_end - token_begin) * heads;
    for (std::size_t first = 0; first < total; first += row_block) {
        const std::size_t n_rows = total - first < row_block ? total - first : row_block;
        for (std::size_t i = 0; i < n_rows; ++i) {
            const std::size_t token = token_begin + (first + i) / heads;
            const std::size_t head_in_group = (first + i) % heads;
            const std::size_t head = group * heads + head_in_group;
            attention_row& row = rows[i];
            row.q = args.q + token * args.q_stride + head * args.d_head;
            row.out = args.out + token * args.out_stride + head * width;
            row.key_head = head_in_group % args.k_per_group;
            row.position = args.first_position + token;
            row.first_visible = row.position >= args.window ? row.position - args.window + 1 : 0;
            row.slope = args.slopes == nullptr ? 0.0f : args.slopes[head];
            row.maximum = lowest_score;
            row.sum = 0.0f;
            for (std::size_t c = 0; c < width; ++c) row.out[c] = 0.0f;
        }
        for (std::size_t s = 0; s < n_segments; ++s) attend_segment<Element>(args, group, rows, n_rows, segments[s]);
        const std::size_t lane_count = lanes();
        for (std::size_t i = 0; i < n_rows; ++i) {
            const float inverse = 1.0f / rows[i].sum;  // a token sees itself, so the sum is at least 1
            std::size_t c = 0;
            for (; c + lane_count <= width; c += lane_count) store(mul(load(rows[i].out + c), set(inverse)), rows[i].out + c);
            for (; c < width; ++c) rows[i].out[c] *= inverse;
        }
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/packed-inl.hpp ------------------------------------------------------------------------------------
// Products with packed weights and 8-bit activations.

PHI4FLASH_TARGET_BEGIN

/// q[i] = round(x[i] / scale), scale = max |x| / limit over each 32 columns.
/// Error: |x - scale q| <= scale / 2 (tests/kernels/packed_test.cpp).
template <int Limit, int Zero>
inline const std::byte* arrange_int8(const float* PHI4FLASH_RESTRICT x, std::size_t cols, std::size_t token, std::size_t tokens,
                                     std::byte* scratch) {
    auto* groups = reinterpret_cast<activation_group*>(scratch) + token;
    const std::size_t lane_count = lanes();
    for (std::size_t g = 0; g < cols / packed_cols; ++g, groups += tokens) {
        const float* group = x + g * packed_cols;
        f32_vector highest = zero();
        for (std::size_t i = 0; i < packed_cols; i += lane_count) highest = max_of(highest, abs_of(load(group + i)));
        const float most = reduce_max(highest);
        const f32_vector inverse = set(most > 0.0f ? static_cast<float>(Limit) / most : 0.0f);
        float rounded[packed_cols];
        f32_vector sums = zero();
        for (std::size_t i = 0; i < packed_cols; i += lane_count) {
            const f32_vector q = round_nearest(mul(load(group + i), inverse));
            store(q, rounded + i);
            sums = add(sums, q);
        }
        for (std::size_t i = 0; i < packed_cols; ++i) groups->q[i] = static_cast<std::int8_t>(rounded[i]);
        groups->scale = most / static_cast<float>(Limit);
        groups->offset = static_cast<float>(-Zero) * groups->scale * reduce_sum(sums);
    }
    return scratch;
}

/// total + scales * (x.scale * sums + x.offset), for the rows of a vector: where a group's integers become floats.
PHI4FLASH_VECTOR_INLINE rows_f32 add_group(rows_i32 sums, rows_f32 scales, const activation_group& x, rows_f32 total) {
    return mul_add_rows(scales, scale_sums(sums, x.scale, x.offset), total);
}

/// Columns 0 to 31 of a block of 4-bit weights, unpacked: vector s for columns 4 s to 4 s + 3.
#define PHI4FLASH_UNPACK_Q4(block, row)                                          \
    const code_vector codes0 = load_codes((block).code[0] + 4 * (row));          \
    const code_vector codes1 = load_codes((block).code[1] + 4 * (row));          \
    const code_vector codes2 = load_codes((block).code[2] + 4 * (row));          \
    const code_vector codes3 = load_codes((block).code[3] + 4 * (row));          \
    const code_vector w0 = q4_levels<Dense>(levels, low_codes(codes0));          \
    const code_vector w1 = q4_levels<Dense>(levels, low_codes(codes1));          \
    const code_vector w2 = q4_levels<Dense>(levels, low_codes(codes2));          \
    const code_vector w3 = q4_levels<Dense>(levels, low_codes(codes3));          \
    const code_vector w4 = q4_levels<Dense>(levels, high_codes(codes0));         \
    const code_vector w5 = q4_levels<Dense>(levels, high_codes(codes1));         \
    const code_vector w6 = q4_levels<Dense>(levels, high_codes(codes2));         \
    const code_vector w7 = q4_levels<Dense>(levels, high_codes(codes3));         \
    static_assert(true)

template <bool Dense>
PHI4FLASH_VECTOR_INLINE code_vector q4_levels(code_vector levels, code_vector codes) {
    if constexpr (Dense) {
        return levels_of(levels, codes);
    } else {
        return codes;
    }
}

/// The 32 products of each row with one token's activations. Dense levels allow four steps before a fold, uniform ones eight.
template <bool Dense>
PHI4FLASH_VECTOR_INLINE rows_i32 q4_dot(code_vector w0, code_vector w1, code_vector w2, code_vector w3, code_vector w4, code_vector w5,
                                        code_vector w6, code_vector w7, const std::int8_t* x) {
    dot_sums a = dot_next(dot_next(dot_next(dot_first(w0, broadcast_four(x)), w1, broadcast_four(x + 4)), w2, broadcast_four(x + 8)), w3,
                          broadcast_four(x + 12));
    if constexpr (Dense) {
        const dot_sums b = dot_next(dot_next(dot_next(dot_first(w4, broadcast_four(x + 16)), w5, broadcast_four(x + 20)), w6, broadcast_four(x + 24)),
                                    w7, broadcast_four(x + 28));
        return dot_fold(dot_fold(a), b);
    } else {
        a = dot_next(dot_next(dot_next(dot_next(a, w4, broadcast_four(x + 16)), w5, broadcast_four(x + 20)), w6, broadcast_four(x + 24)), w7,
                     broadcast_four(x + 28));
        return dot_fold(a);
    }
}

/// One step of four tokens whose sums are in flight together: enough independent work to hide the latency of the products.
PHI4FLASH_VECTOR_INLINE void dot_first_four(code_vector w, const activation_group* x, std::size_t at, dot_sums& a, dot_sums& b, dot_sums& c,
                                            dot_sums& d) {
    a = dot_first(w, broadcast_four(x[0].q + at));
    b = dot_first(w, broadcast_four(x[1].q + at));
    c = dot_first(w, broadcast_four(x[2].q + at));
    d = dot_first(w, broadcast_four(x[3].q + at));
}
PHI4FLASH_VECTOR_INLINE void dot_next_four(code_vector w, const activation_group* x, std::size_t at, dot_sums& a, dot_sums& b, dot_sums& c,
                                           dot_sums& d) {
    a = dot_next(a, w, broadcast_four(x[0].q + at));
    b = dot_next(b, w, broadcast_four(x[1].q + at));
    c = dot_next(c, w, broadcast_four(x[2].q + at));
    d = dot_next(d, w, broadcast_four(x[3].q + at));
}

/// sum += scales * (a group's integers as floats), in memory.
PHI4FLASH_VECTOR_INLINE void add_group_to(float* sum, rows_i32 dots, rows_f32 scales, const activation_group& x) {
    store_rows(add_group(dots, scales, x, load_rows(sum)), sum);
}

/// q4_dot of tokens x[0] to x[3], added to their sums, which lie packed_rows apart.
template <bool Dense>
PHI4FLASH_VECTOR_INLINE void q4_dot_four(code_vector w0, code_vector w1, code_vector w2, code_vector w3, code_vector w4, code_vector w5,
                                         code_vector w6, code_vector w7, const activation_group* x, rows_f32 scales, float* sums) {
    dot_sums a, b, c, d;
    dot_first_four(w0, x, 0, a, b, c, d);
    dot_next_four(w1, x, 4, a, b, c, d);
    dot_next_four(w2, x, 8, a, b, c, d);
    dot_next_four(w3, x, 12, a, b, c, d);
    if constexpr (Dense) {
        dot_sums e, f, g, h;
        dot_first_four(w4, x, 16, e, f, g, h);
        dot_next_four(w5, x, 20, e, f, g, h);
        dot_next_four(w6, x, 24, e, f, g, h);
        dot_next_four(w7, x, 28, e, f, g, h);
        add_group_to(sums, dot_fold(dot_fold(a), e), scales, x[0]);
        add_group_to(sums + packed_rows, dot_fold(dot_fold(b), f), scales, x[1]);
        add_group_to(sums + 2 * packed_rows, dot_fold(dot_fold(c), g), scales, x[2]);
        add_group_to(sums + 3 * packed_rows, dot_fold(dot_fold(d), h), scales, x[3]);
    } else {
        dot_next_four(w4, x, 16, a, b, c, d);
        dot_next_four(w5, x, 20, a, b, c, d);
        dot_next_four(w6, x, 24, a, b, c, d);
        dot_next_four(w7, x, 28, a, b, c, d);
        add_group_to(sums, dot_fold(a), scales, x[0]);
        add_group_to(sums + packed_rows, dot_fold(b), scales, x[1]);
        add_group_to(sums + 2 * packed_rows, dot_fold(c), scales, x[2]);
        add_group_to(sums + 3 * packed_rows, dot_fold(d), scales, x[3]);
    }
}

PHI4FLASH_VECTOR_INLINE rows_i32 q8_dot(const q8_block& block, std::size_t row, const std::int8_t* x) {
    rows_i32 total = set_rows(0);
    for (std::size_t s = 0; s < 8; ++s) total = dot_signed(total, load_codes(block.code[s] + 4 * row), broadcast_four(x + 4 * s));
    return total;
}

PHI4FLASH_VECTOR_INLINE void q8_dot_four(const q8_block& block, std::size_t row, const activation_group* x, rows_f32 scales, float* sums) {
    rows_i32 a = set_rows(0);
    rows_i32 b = set_rows(0);
    rows_i32 c = set_rows(0);
    rows_i32 d = set_rows(0);
    for (std::size_t s = 0; s < 8; ++s) {
        const signed_code_vector w = load_codes(block.code[s] + 4 * row);
        a = dot_signed(a, w, broadcast_four(x[0].q + 4 * s));
        b = dot_signed(b, w, broadcast_four(x[1].q + 4 * s));
        c = dot_signed(c, w, broadcast_four(x[2].q + 4 * s));
        d = dot_signed(d, w, broadcast_four(x[3].q + 4 * s));
    }
    add_group_to(sums, a, scales, x[0]);
    add_group_to(sums + packed_rows, b, scales, x[1]);
    add_group_to(sums + 2 * packed_rows, c, scales, x[2]);
    add_group_to(sums + 3 * packed_rows, d, scales, x[3]);
}

/// y[r] = v[r] + bias[r] for the rows of a vector.
PHI4FLASH_VECTOR_INLINE void put_rows(rows_f32 v, const float* bias, float* y) {
    store_rows(v, y);
    for (std::size_t r = 0; bias != nullptr && r < rows_lanes(); ++r) y[r] += bias[r];
}

/// Tokens whose sums are kept in the first-level cache while a row of blocks is read once.
inline constexpr std::size_t packed_tokens = 32;

/// Groups of a row of blocks whose activations, for packed_tokens tokens, stay in the second-level cache while rows go by: 160 kB.
inline constexpr std::size_t packed_panel = 128;

/// Rows [row, row + lanes) of `groups` blocks against up to packed_tokens tokens: each block is unpacked once.
/// `x` is the first token's first group; the next group lies `group_stride` groups further. Sums go on from those in y, unless
/// these are the first groups; the bias is added after the last.
template <dtype Format>
PHI4FLASH_VECTOR_INLINE void packed_row_tile(const std::byte* w, std::size_t groups, std::size_t row, const activation_group* x,
                                             std::size_t group_stride, std::size_t tokens, bool first, const float* bias, float* y, std::size_t y_stride) {
    constexpr bool Dense = Format == dtype::q4_dense;
    [[maybe_unused]] const code_vector levels = load_levels(q4_dense.level);
    float sums[packed_tokens * packed_rows];
    for (std::size_t t = 0; t < tokens; ++t) store_rows(first ? zero_rows() : load_rows(y + t * y_stride), sums + t * packed_rows);
    for (std::size_t g = 0; g < groups; ++g, x += group_stride) {
        if constexpr (Format == dtype::q8) {
            const q8_block& block = reinterpret_cast<const q8_block*>(w)[g];
            const rows_f32 scales = load_scales(block.scale + row);
            std::size_t t = 0;
            for (; t + 4 <= tokens; t += 4) q8_dot_four(block, row, x + t, scales, sums + t * packed_rows);
            for (; t < tokens; ++t) add_group_to(sums + t * packed_rows, q8_dot(block, row, x[t].q), scales, x[t]);
        } else {
            const q4_block& block = reinterpret_cast<const q4_block*>(w)[g];
            PHI4FLASH_UNPACK_Q4(block, row);
            const rows_f32 scales = load_scales(block.scale + row);
            std::size_t t = 0;
            for (; t + 4 <= tokens; t += 4) q4_dot_four<Dense>(w0, w1, w2, w3, w4, w5, w6, w7, x + t, scales, sums + t * packed_rows);
            for (; t < tokens; ++t)
                add_group_to(sums + t * packed_rows, q4_dot<Dense>(w0, w1, w2, w3, w4, w5, w6, w7, x[t].q), scales, x[t]);
        }
    }
    for (std::size_t t = 0; t < tokens; ++t) put_rows(load_rows(sums + t * packed_rows), bias, y + t * y_stride);
}

/// The same for one token, whose sums stay in a register.
template <dtype Format>
PHI4FLASH_VECTOR_INLINE void packed_row(const std::byte* w, std::size_t groups, std::size_t row, const activation_group* x, const float* bias,
                                        float* y) {
    constexpr bool Dense = Format == dtype::q4_dense;
    [[maybe_unused]] const code_vector levels = load_levels(q4_dense.level);
    rows_f32 sum = zero_rows();
    for (std::size_t g = 0; g < groups; ++g) {
        if constexpr (Format == dtype::q8) {
            const q8_block& block = reinterpret_cast<const q8_block*>(w)[g];
            sum = add_group(q8_dot(block, row, x[g].q), load_scales(block.scale + row), x[g], sum);
        } else {
            const q4_block& block = reinterpret_cast<const q4_block*>(w)[g];
            PHI4FLASH_UNPACK_Q4(block, row);
            sum = add_group(q4_dot<Dense>(w0, w1, w2, w3, w4, w5, w6, w7, x[g].q), load_scales(block.scale + row), x[g], sum);
        }
    }
    put_rows(sum, bias, y);
}
#undef PHI4FLASH_UNPACK_Q4

template <dtype Format>
inline void packed_matvec(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, const float* bias, float* y) {
    const std::size_t groups = cols / packed_cols;
    for (std::size_t r = 0; r < rows; r += packed_rows) {
        for (std::size_t row = 0; row < packed_rows; row += rows_lanes())
            packed_row<Format>(w + matrix_bytes(Format, r, cols), groups, row, reinterpret_cast<const activation_group*>(x),
                               bias == nullptr ? nullptr : bias + r + row, y + r + row);
    }
}

/// Tokens outside, then panels of columns, rows inside: the activations of a panel stay in the second-level cache, and weights are
/// streamed.
template <dtype Format>
inline void packed_matmul(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, std::size_t, std::size_t tokens,
                          const float* bias, float* y, std::size_t y_stride) {
    const std::size_t groups = cols / packed_cols;
    const auto* activations = reinterpret_cast<const activation_group*>(x);
    for (std::size_t t = 0; t < tokens; t += packed_tokens) {
        const std::size_t count = tokens - t < packed_tokens ? tokens - t : packed_tokens;
        for (std::size_t g = 0; g < groups; g += packed_panel) {
            const std::size_t some = groups - g < packed_panel ? groups - g : packed_panel;
            const bool last = g + some == groups;
            for (std::size_t r = 0; r < rows; r += packed_rows) {
                const std::byte* blocks = w + matrix_bytes(Format, r, cols) + matrix_bytes(Format, packed_rows, g * packed_cols);
                for (std::size_t row = 0; row < packed_rows; row += rows_lanes())
                    packed_row_tile<Format>(blocks, some, row, activations + g * tokens + t, tokens, count, g == 0,
                                            bias == nullptr || !last ? nullptr : bias + r + row, y + t * y_stride + r + row, y_stride);
            }
        }
    }
}

template <dtype Format>
inline void packed_widen_row(const std::byte* w, std::size_t r, std::size_t cols, float* out) {
    const std::size_t groups = cols / packed_cols;
    for (std::size_t g = 0; g < groups; ++g) {
        const std::size_t at = r / packed_rows * groups + g;
        if constexpr (Format == dtype::q8) {
            decode_row(reinterpret_cast<const q8_block*>(w)[at], r % packed_rows, out + g * packed_cols);
        } else {
            constexpr const q4_codebook& book = Format == dtype::q4_dense ? q4_dense : q4_uniform;
            decode_row(reinterpret_cast<const q4_block*>(w)[at], book, r % packed_rows, out + g * packed_cols);
        }
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/table-inl.hpp -------------------------------------------------------------------------------------
// This target's table: the only thing that leaves the region.

PHI4FLASH_TARGET_BEGIN

inline std::size_t lanes_of_target() { return lanes(); }

template <class Element>
inline constexpr linear_kernels plain_kernels{
    .matvec = &matvec<Element>,
    .arrange = dtype_of<Element> == dtype::bf16 ? &arrange_even_odd : &arrange_none,
    .matmul = &matmul<Element>,
    .matmul_arranged = false,
    .widen = &widen_row<Element>,
};

template <dtype Format>
inline constexpr linear_kernels packed_kernels{
    .matvec = &packed_matvec<Format>,
    .arrange = Format == dtype::q8   ? &arrange_int8<127, 0>
               : Format == dtype::q4 ? &arrange_int8<127, q4_uniform.zero>
                                     : &arrange_int8<dense_activation_limit, q4_dense.zero>,
    .matmul = &packed_matmul<Format>,
    .matmul_arranged = true,
    .widen = &packed_widen_row<Format>,
};

inline constexpr kernel_table table{
    .name = PHI4FLASH_TARGET_LABEL,
    .lanes = &lanes_of_target,
    .linear = {plain_kernels<float>, plain_kernels<f16>, plain_kernels<bf16>, packed_kernels<dtype::q8>, packed_kernels<dtype::q4>,
               packed_kernels<dtype::q4_dense>},
    .layer_norm = &layer_norm,
    .rms_norm = &rms_norm,
    .accumulate = &accumulate,
    .silu_mul = &silu_mul,
    .softplus = &softplus,
    .softmax = &softmax,
    .convolution = &convolution,
    .scan = &scan,
    .narrow = {&narrow<float>, nullptr, &narrow<bf16>},
    .attention = {&attention<float>, nullptr, &attention<bf16>},
    .difference_norm = &difference_norm,
    .rotate = &rotate,
    .read = &read_all,
};

PHI4FLASH_TARGET_END
#endif

#if PHI4FLASH_HIGHWAY_EXTRA(HWY_AVX3)
#undef HWY_TARGET
#define HWY_TARGET HWY_AVX3

// ---- phi4flash/simd/next_target-inl.hpp ----------------------------------------------------------------------------------
#undef HWY_TARGET_TOGGLE
#undef HWY_SET_MACROS_PER_TARGET
#ifdef HWY_HIGHWAY_PER_TARGET
#define HWY_TARGET_TOGGLE
#define HWY_SET_MACROS_PER_TARGET
#endif
#undef PHI4FLASH_TARGET_LABEL
#define PHI4FLASH_TARGET_LABEL "avx3"

// ---- phi4flash/kernels/target-inl.hpp ------------------------------------------------------------------------------------

// ---- phi4flash/simd/vocabulary-inl.hpp -----------------------------------------------------------------------------------
#if PHI4FLASH_SIMD_HIGHWAY

// ---- phi4flash/simd/vocabulary_highway-inl.hpp ---------------------------------------------------------------------------
#include <hwy/highway.h>
PHI4FLASH_TARGET_BEGIN

namespace hn = hwy::HWY_NAMESPACE;

using f32_tag = hn::CappedTag<float, max_lanes>;
using i32_tag = hn::RebindToSigned<f32_tag>;
using u32_tag = hn::RebindToUnsigned<f32_tag>;
using u16_half_tag = hn::Rebind<std::uint16_t, f32_tag>;
using f32_vector = hn::Vec<f32_tag>;

PHI4FLASH_VECTOR_INLINE std::size_t lanes() { return hn::Lanes(f32_tag()); }
PHI4FLASH_VECTOR_INLINE f32_vector zero() { return hn::Zero(f32_tag()); }
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return hn::Set(f32_tag(), x); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const float* p) { return hn::LoadU(f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, float* p) { hn::StoreU(v, f32_tag(), p); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const bf16* p) {
    const auto narrow = hn::LoadU(u16_half_tag(), reinterpret_cast<const std::uint16_t*>(p));
    return hn::BitCast(f32_tag(), hn::ShiftLeft<16>(hn::PromoteTo(u32_tag(), narrow)));
}
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, bf16* p) {
    const u32_tag du;
    const auto bits = hn::BitCast(du, v);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
    const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fffu))));
    hn::StoreU(hn::TruncateTo(u16_half_tag(), rounded), u16_half_tag(), reinterpret_cast<std::uint16_t*>(p));
}
PHI4FLASH_VECTOR_INLINE f32_vector load(const f16* p) {
#if HWY_TARGET <= HWY_AVX2 || (HWY_TARGET & (HWY_ALL_NEON | HWY_ALL_SVE))
    const hn::Rebind<hwy::float16_t, f32_tag> half;
    return hn::PromoteTo(f32_tag(), hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(p)));
#else
    const u32_tag du;
    const auto bits = hn::PromoteTo(du, hn::LoadU(u16_half_tag(), reinterpret_cast<const std::uint16_t*>(p)));
    const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(du, 0x8000u)));
    const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(du, 0x7fffu)));
    const auto value = hn::BitCast(du, hn::Mul(hn::BitCast(f32_tag(), magnitude), hn::Set(f32_tag(), 0x1p112f)));
    const auto not_finite = hn::IfThenElseZero(hn::Ge(magnitude, hn::Set(du, 0x0f800000u)), hn::Set(du, 0x7f800000u));
    return hn::BitCast(f32_tag(), hn::Or(hn::Or(value, not_finite), sign));
#endif
}
PHI4FLASH_VECTOR_INLINE void load_even_odd(const bf16* p, f32_vector& even, f32_vector& odd) {
    const u32_tag du;
    const auto both = hn::LoadU(du, reinterpret_cast<const std::uint32_t*>(p));
    even = hn::BitCast(f32_tag(), hn::ShiftLeft<16>(both));
    odd = hn::BitCast(f32_tag(), hn::And(both, hn::Set(du, 0xffff0000u)));
}

PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) { return hn::Add(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) { return hn::Sub(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) { return hn::Mul(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) { return hn::Div(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) { return hn::MulAdd(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) { return hn::NegMulAdd(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector min_of(f32_vector a, f32_vector b) { return hn::Min(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector max_of(f32_vector a, f32_vector b) { return hn::Max(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector abs_of(f32_vector a) { return hn::Abs(a); }

PHI4FLASH_VECTOR_INLINE float reduce_sum(f32_vector v) { return hn::ReduceSum(f32_tag(), v); }
PHI4FLASH_VECTOR_INLINE float reduce_max(f32_vector v) { return hn::ReduceMax(f32_tag(), v); }

PHI4FLASH_VECTOR_INLINE f32_vector round_nearest(f32_vector v) { return hn::Round(v); }
PHI4FLASH_VECTOR_INLINE f32_vector scale_by_power_of_two(f32_vector v, f32_vector n) {
    const auto exponent = hn::Add(hn::NearestInt(n), hn::Set(i32_tag(), 127));
    return hn::Mul(v, hn::BitCast(f32_tag(), hn::ShiftLeft<23>(exponent)));
}

PHI4FLASH_TARGET_END
#elif PHI4FLASH_SIMD_XSIMD

// ---- phi4flash/simd/vocabulary_xsimd-inl.hpp -----------------------------------------------------------------------------
#include <xsimd/xsimd.hpp>
PHI4FLASH_TARGET_BEGIN

using f32_vector = xsimd::batch<float>;
using i32_vector = xsimd::batch<std::int32_t>;
using u32_vector = xsimd::batch<std::uint32_t>;
static_assert(f32_vector::size <= max_lanes, "phi4flash: layouts are blocked by 16 lanes");

PHI4FLASH_VECTOR_INLINE constexpr std::size_t lanes() { return f32_vector::size; }
PHI4FLASH_VECTOR_INLINE f32_vector zero() { return f32_vector(0.0f); }
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return f32_vector(x); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const float* p) { return f32_vector::load_unaligned(p); }
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, float* p) { v.store_unaligned(p); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const bf16* p) {
    alignas(64) std::uint32_t wide[f32_vector::size];
    for (std::size_t i = 0; i < f32_vector::size; ++i) wide[i] = static_cast<std::uint32_t>(p[i].bits) << 16;
    return xsimd::bitwise_cast<float>(u32_vector::load_aligned(wide));
}
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, bf16* p) {
    alignas(64) float wide[f32_vector::size];
    v.store_aligned(wide);
    for (std::size_t i = 0; i < f32_vector::size; ++i) p[i] = to_bf16(wide[i]);
}
PHI4FLASH_VECTOR_INLINE f32_vector load(const f16* p) {
    alignas(64) float wide[f32_vector::size];
    for (std::size_t i = 0; i < f32_vector::size; ++i) wide[i] = to_f32(p[i]);
    return f32_vector::load_aligned(wide);
}
PHI4FLASH_VECTOR_INLINE void load_even_odd(const bf16* p, f32_vector& even, f32_vector& odd) {
    const u32_vector both = xsimd::bitwise_cast<std::uint32_t>(f32_vector::load_unaligned(reinterpret_cast<const float*>(p)));
    even = xsimd::bitwise_cast<float>(both << 16);
    odd = xsimd::bitwise_cast<float>(both & u32_vector(0xffff0000u));
}

PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) { return a + b; }
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) { return a - b; }
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) { return a * b; }
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) { return a / b; }
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) { return xsimd::fma(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) { return xsimd::fnma(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector min_of(f32_vector a, f32_vector b) { return xsimd::min(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector max_of(f32_vector a, f32_vector b) { return xsimd::max(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector abs_of(f32_vector a) { return xsimd::abs(a); }

PHI4FLASH_VECTOR_INLINE float reduce_sum(f32_vector v) { return xsimd::reduce_add(v); }
PHI4FLASH_VECTOR_INLINE float reduce_max(f32_vector v) { return xsimd::reduce_max(v); }

PHI4FLASH_VECTOR_INLINE f32_vector round_nearest(f32_vector v) { return xsimd::nearbyint(v); }
PHI4FLASH_VECTOR_INLINE f32_vector scale_by_power_of_two(f32_vector v, f32_vector n) {
    const i32_vector exponent = xsimd::nearbyint_as_int(n) + i32_vector(127);
    return v * xsimd::bitwise_cast<float>(exponent << 23);
}

PHI4FLASH_TARGET_END
#else

// ---- phi4flash/simd/vocabulary_scalar-inl.hpp ----------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline constexpr std::size_t scalar_lanes = 4;
struct f32_vector {
    float lane[scalar_lanes];
};

namespace detail {
template <class Operation>
PHI4FLASH_VECTOR_INLINE f32_vector each(Operation operation) {
    f32_vector r;
    for (std::size_t i = 0; i < scalar_lanes; ++i) r.lane[i] = operation(i);
    return r;
}
}  // namespace detail

PHI4FLASH_VECTOR_INLINE constexpr std::size_t lanes() { return scalar_lanes; }
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return detail::each([&](std::size_t) { return x; }); }
PHI4FLASH_VECTOR_INLINE f32_vector zero() { return set(0.0f); }

template <class T>
PHI4FLASH_VECTOR_INLINE f32_vector load(const T* p) {
    return detail::each([&](std::size_t i) { return to_f32(p[i]); });
}
template <class T>
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, T* p) {
    for (std::size_t i = 0; i < scalar_lanes; ++i) p[i] = from_f32<T>(v.lane[i]);
}
PHI4FLASH_VECTOR_INLINE void load_even_odd(const bf16* p, f32_vector& even, f32_vector& odd) {
    even = detail::each([&](std::size_t i) { return to_f32(p[2 * i]); });
    odd = detail::each([&](std::size_t i) { return to_f32(p[2 * i + 1]); });
}

PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] + b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] - b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] * b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] / b.lane[i]; });
}
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__)
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
}
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return std::fma(-a.lane[i], b.lane[i], c.lane[i]); });
}
#else
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return c.lane[i] - a.lane[i] * b.lane[i]; });
}
#endif
PHI4FLASH_VECTOR_INLINE f32_vector min_of(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector max_of(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector abs_of(f32_vector a) {
    return detail::each([&](std::size_t i) { return std::fabs(a.lane[i]); });
}

PHI4FLASH_VECTOR_INLINE float reduce_sum(f32_vector v) { return (v.lane[0] + v.lane[2]) + (v.lane[1] + v.lane[3]); }
PHI4FLASH_VECTOR_INLINE float reduce_max(f32_vector v) {
    float m = v.lane[0];
    for (std::size_t i = 1; i < scalar_lanes; ++i) m = v.lane[i] > m ? v.lane[i] : m;
    return m;
}

PHI4FLASH_VECTOR_INLINE f32_vector round_nearest(f32_vector v) {
    constexpr float magic = 0x1.8p23f;
    return detail::each([&](std::size_t i) { return (v.lane[i] + magic) - magic; });
}
PHI4FLASH_VECTOR_INLINE f32_vector scale_by_power_of_two(f32_vector v, f32_vector n) {
    return detail::each([&](std::size_t i) {
        const auto exponent = static_cast<std::uint32_t>(static_cast<std::int32_t>(n.lane[i]) + 127);
        return v.lane[i] * std::bit_cast<float>(exponent << 23);
    });
}

PHI4FLASH_TARGET_END
#endif

// ---- phi4flash/simd/integer-inl.hpp --------------------------------------------------------------------------------------
#if PHI4FLASH_SIMD_HIGHWAY

// ---- phi4flash/simd/integer_highway-inl.hpp ------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

using rows_tag = hn::CappedTag<std::int32_t, 8>;
using rows_f32_tag = hn::RebindToFloat<rows_tag>;
using rows_u8_tag = hn::Repartition<std::uint8_t, rows_tag>;
using rows_i8_tag = hn::Repartition<std::int8_t, rows_tag>;
using rows_i16_tag = hn::Repartition<std::int16_t, rows_tag>;
using rows_u16_tag = hn::Repartition<std::uint16_t, rows_tag>;
using rows_i32 = hn::Vec<rows_tag>;
using rows_f32 = hn::Vec<rows_f32_tag>;
using code_vector = hn::Vec<rows_u8_tag>;
using signed_code_vector = hn::Vec<rows_i8_tag>;

PHI4FLASH_VECTOR_INLINE std::size_t rows_lanes() { return hn::Lanes(rows_tag()); }
PHI4FLASH_VECTOR_INLINE code_vector load_codes(const std::uint8_t* p) { return hn::LoadU(rows_u8_tag(), p); }
PHI4FLASH_VECTOR_INLINE signed_code_vector load_codes(const std::int8_t* p) { return hn::LoadU(rows_i8_tag(), p); }
PHI4FLASH_VECTOR_INLINE code_vector load_levels(const std::uint8_t* sixteen) { return hn::LoadDup128(rows_u8_tag(), sixteen); }
PHI4FLASH_VECTOR_INLINE code_vector low_codes(code_vector v) { return hn::And(v, hn::Set(rows_u8_tag(), std::uint8_t{15})); }
PHI4FLASH_VECTOR_INLINE code_vector high_codes(code_vector v) {
    const rows_u16_tag du16;
    return low_codes(hn::BitCast(rows_u8_tag(), hn::ShiftRight<4>(hn::BitCast(du16, v))));
}
PHI4FLASH_VECTOR_INLINE code_vector levels_of(code_vector levels, code_vector codes) { return hn::TableLookupBytes(levels, codes); }
PHI4FLASH_VECTOR_INLINE signed_code_vector broadcast_four(const std::int8_t* p) {
    std::int32_t four;
    std::memcpy(&four, p, sizeof four);
    return hn::BitCast(rows_i8_tag(), hn::Set(rows_tag(), four));
}

#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL
using dot_sums = hn::Vec<rows_i16_tag>;
PHI4FLASH_VECTOR_INLINE dot_sums in_this_order(dot_sums sums) {
#if defined(__GNUC__) && !defined(__clang__)
    asm("" : "+x"(sums.raw));
#endif
    return sums;
}
PHI4FLASH_VECTOR_INLINE dot_sums dot_first(code_vector w, signed_code_vector x) { return hn::SatWidenMulPairwiseAdd(rows_i16_tag(), w, x); }
PHI4FLASH_VECTOR_INLINE dot_sums dot_next(dot_sums sums, code_vector w, signed_code_vector x) {
    return in_this_order(hn::Add(sums, hn::SatWidenMulPairwiseAdd(rows_i16_tag(), w, x)));
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(dot_sums sums) {
    return hn::WidenMulPairwiseAdd(rows_tag(), sums, hn::Set(rows_i16_tag(), std::int16_t{1}));
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(rows_i32 total, dot_sums sums) { return hn::Add(total, dot_fold(sums)); }
inline constexpr int dense_activation_limit = 67;
#else
using dot_sums = rows_i32;
#if HWY_ARCH_X86
PHI4FLASH_VECTOR_INLINE rows_i32 dot_four(code_vector w, signed_code_vector x, rows_i32 sum) {
    return hn::SumOfMulQuadAccumulate(rows_tag(), w, x, sum);
}
#else  // levels are below 128, so they are signed bytes too, for which other architectures have the instruction
PHI4FLASH_VECTOR_INLINE rows_i32 dot_four(code_vector w, signed_code_vector x, rows_i32 sum) {
    return hn::SumOfMulQuadAccumulate(rows_tag(), hn::BitCast(rows_i8_tag(), w), x, sum);
}
#endif
PHI4FLASH_VECTOR_INLINE dot_sums dot_first(code_vector w, signed_code_vector x) { return dot_four(w, x, hn::Zero(rows_tag())); }
PHI4FLASH_VECTOR_INLINE dot_sums dot_next(dot_sums sums, code_vector w, signed_code_vector x) { return dot_four(w, x, sums); }
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(dot_sums sums) { return sums; }
inline constexpr int dense_activation_limit = 127;
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(rows_i32 total, dot_sums sums) { return hn::Add(total, sums); }
#endif

#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL
PHI4FLASH_VECTOR_INLINE rows_i32 dot_signed(rows_i32 total, signed_code_vector w, signed_code_vector x) {
    const auto magnitude = hn::BitCast(rows_u8_tag(), hn::Abs(w));
    const auto signed_x = hn::IfNegativeThenNegOrUndefIfZero(w, x);
    return hn::Add(total, hn::WidenMulPairwiseAdd(rows_tag(), hn::SatWidenMulPairwiseAdd(rows_i16_tag(), magnitude, signed_x),
                                                  hn::Set(rows_i16_tag(), std::int16_t{1})));
}
#else
PHI4FLASH_VECTOR_INLINE rows_i32 dot_signed(rows_i32 total, signed_code_vector w, signed_code_vector x) {
    return hn::SumOfMulQuadAccumulate(rows_tag(), w, x, total);
}
#endif

PHI4FLASH_VECTOR_INLINE rows_i32 set_rows(std::int32_t x) { return hn::Set(rows_tag(), x); }
PHI4FLASH_VECTOR_INLINE rows_f32 zero_rows() { return hn::Zero(rows_f32_tag()); }
PHI4FLASH_VECTOR_INLINE rows_f32 load_scales(const f16* p) {
    const hn::Rebind<hwy::float16_t, rows_f32_tag> half;
    return hn::PromoteTo(rows_f32_tag(), hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(p)));
}
PHI4FLASH_VECTOR_INLINE rows_f32 scale_sums(rows_i32 sums, float scale, float offset) {
    const rows_f32_tag df;
    return hn::MulAdd(hn::ConvertTo(df, sums), hn::Set(df, scale), hn::Set(df, offset));
}
PHI4FLASH_VECTOR_INLINE rows_f32 mul_add_rows(rows_f32 a, rows_f32 b, rows_f32 c) { return hn::MulAdd(a, b, c); }
PHI4FLASH_VECTOR_INLINE rows_f32 load_rows(const float* p) { return hn::LoadU(rows_f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE void store_rows(rows_f32 v, float* p) { hn::StoreU(v, rows_f32_tag(), p); }

PHI4FLASH_TARGET_END
#else

// ---- phi4flash/simd/integer_plain-inl.hpp --------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline constexpr std::size_t plain_rows = 8;
struct rows_i32 {
    std::int32_t lane[plain_rows];
};
struct rows_f32 {
    float lane[plain_rows];
};
struct code_vector {
    std::uint8_t byte[4 * plain_rows];
};
struct signed_code_vector {
    std::int8_t byte[4 * plain_rows];
};
using dot_sums = rows_i32;

PHI4FLASH_VECTOR_INLINE constexpr std::size_t rows_lanes() { return plain_rows; }
PHI4FLASH_VECTOR_INLINE code_vector load_codes(const std::uint8_t* p) {
    code_vector v;
    std::memcpy(v.byte, p, sizeof v.byte);
    return v;
}
PHI4FLASH_VECTOR_INLINE signed_code_vector load_codes(const std::int8_t* p) {
    signed_code_vector v;
    std::memcpy(v.byte, p, sizeof v.byte);
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector load_levels(const std::uint8_t* sixteen) {
    code_vector v;
    for (std::size_t i = 0; i < sizeof v.byte; ++i) v.byte[i] = sixteen[i % 16];
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector low_codes(code_vector v) {
    for (std::uint8_t& b : v.byte) b = b & 15u;
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector high_codes(code_vector v) {
    for (std::uint8_t& b : v.byte) b = static_cast<std::uint8_t>(b >> 4);
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector levels_of(const code_vector& levels, code_vector codes) {
    for (std::uint8_t& b : codes.byte) b = levels.byte[b];
    return codes;
}
PHI4FLASH_VECTOR_INLINE signed_code_vector broadcast_four(const std::int8_t* p) {
    signed_code_vector v;
    for (std::size_t i = 0; i < sizeof v.byte; ++i) v.byte[i] = p[i % 4];
    return v;
}

namespace detail {
PHI4FLASH_VECTOR_INLINE float fused(float a, float b, float c) {
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__)
    return std::fma(a, b, c);
#else
    return a * b + c;
#endif
}

template <class Codes>
PHI4FLASH_VECTOR_INLINE rows_i32 plain_dot(rows_i32 total, const Codes& w, const signed_code_vector& x) {
    for (std::size_t r = 0; r < plain_rows; ++r) {
        for (std::size_t i = 0; i < 4; ++i) total.lane[r] += static_cast<std::int32_t>(w.byte[4 * r + i]) * x.byte[4 * r + i];
    }
    return total;
}
}  // namespace detail

PHI4FLASH_VECTOR_INLINE rows_i32 set_rows(std::int32_t x) {
    rows_i32 v;
    for (std::int32_t& lane : v.lane) lane = x;
    return v;
}
PHI4FLASH_VECTOR_INLINE dot_sums dot_first(const code_vector& w, const signed_code_vector& x) { return detail::plain_dot(set_rows(0), w, x); }
PHI4FLASH_VECTOR_INLINE dot_sums dot_next(const dot_sums& sums, const code_vector& w, const signed_code_vector& x) {
    return detail::plain_dot(sums, w, x);
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(const dot_sums& sums) { return sums; }
inline constexpr int dense_activation_limit = 127;
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(rows_i32 total, const dot_sums& sums) {
    for (std::size_t r = 0; r < plain_rows; ++r) total.lane[r] += sums.lane[r];
    return total;
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_signed(const rows_i32& total, const signed_code_vector& w, const signed_code_vector& x) {
    return detail::plain_dot(total, w, x);
}

PHI4FLASH_VECTOR_INLINE rows_f32 zero_rows() { return {}; }
PHI4FLASH_VECTOR_INLINE rows_f32 load_scales(const f16* p) {
    rows_f32 v;
    for (std::size_t r = 0; r < plain_rows; ++r) v.lane[r] = to_f32(p[r]);
    return v;
}
PHI4FLASH_VECTOR_INLINE rows_f32 scale_sums(const rows_i32& sums, float scale, float offset) {
    rows_f32 v;
    for (std::size_t r = 0; r < plain_rows; ++r) v.lane[r] = detail::fused(static_cast<float>(sums.lane[r]), scale, offset);
    return v;
}
PHI4FLASH_VECTOR_INLINE rows_f32 mul_add_rows(const rows_f32& a, const rows_f32& b, rows_f32 c) {
    for (std::size_t r = 0; r < plain_rows; ++r) c.lane[r] = detail::fused(a.lane[r], b.lane[r], c.lane[r]);
    return c;
}
PHI4FLASH_VECTOR_INLINE rows_f32 load_rows(const float* p) {
    rows_f32 v;
    for (std::size_t r = 0; r < plain_rows; ++r) v.lane[r] = p[r];
    return v;
}
PHI4FLASH_VECTOR_INLINE void store_rows(const rows_f32& v, float* p) {
    for (std::size_t r = 0; r < plain_rows; ++r) p[r] = v.lane[r];
}

PHI4FLASH_TARGET_END
#endif

// ---- phi4flash/kernels/math-inl.hpp --------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

PHI4FLASH_VECTOR_INLINE f32_vector exp2_of(f32_vector x) {
    const f32_vector clamped = max_of(min_of(x, set(127.0f)), set(-126.0f));
    const f32_vector n = round_nearest(clamped);
    const f32_vector r = sub(clamped, n);
    f32_vector p = set(1.525273380e-5f);
    p = mul_add(p, r, set(1.540353039e-4f));
    p = mul_add(p, r, set(1.333355814e-3f));
    p = mul_add(p, r, set(9.618129107e-3f));
    p = mul_add(p, r, set(5.550410866e-2f));
    p = mul_add(p, r, set(2.402265070e-1f));
    p = mul_add(p, r, set(6.931471806e-1f));
    p = mul_add(p, r, set(1.0f));
    return scale_by_power_of_two(p, n);
}

PHI4FLASH_VECTOR_INLINE f32_vector exp_of(f32_vector x) {
    const f32_vector clamped = max_of(min_of(x, set(88.0f)), set(-87.3f));
    const f32_vector n = round_nearest(mul(clamped, set(1.442695041f)));
    f32_vector r = neg_mul_add(n, set(0.693359375f), clamped);
    r = neg_mul_add(n, set(-2.12194440e-4f), r);
    f32_vector p = set(1.984126984e-4f);
    p = mul_add(p, r, set(1.388888889e-3f));
    p = mul_add(p, r, set(8.333333333e-3f));
    p = mul_add(p, r, set(4.166666667e-2f));
    p = mul_add(p, r, set(1.666666667e-1f));
    p = mul_add(p, r, set(5.0e-1f));
    p = mul_add(p, r, set(1.0f));
    p = mul_add(p, r, set(1.0f));
    return scale_by_power_of_two(p, n);
}

PHI4FLASH_VECTOR_INLINE f32_vector silu_of(f32_vector x) { return div(x, add(set(1.0f), exp_of(sub(zero(), x)))); }

PHI4FLASH_VECTOR_INLINE f32_vector softplus_of(f32_vector x) {
    const f32_vector t = exp_of(sub(zero(), abs_of(x)));
    const f32_vector s = div(t, add(t, set(2.0f)));
    const f32_vector z = mul(s, s);
    f32_vector p = set(6.666666667e-2f);
    p = mul_add(p, z, set(7.692307692e-2f));
    p = mul_add(p, z, set(9.090909091e-2f));
    p = mul_add(p, z, set(1.111111111e-1f));
    p = mul_add(p, z, set(1.428571429e-1f));
    p = mul_add(p, z, set(2.0e-1f));
    p = mul_add(p, z, set(3.333333333e-1f));
    p = mul_add(p, z, set(1.0f));
    return mul_add(add(s, s), p, max_of(x, zero()));
}

PHI4FLASH_VECTOR_INLINE float mul_add_one(float a, float b, float c) {
    float out[max_lanes];
    store(mul_add(set(a), set(b), set(c)), out);
    return out[0];
}

template <class Element>
PHI4FLASH_VECTOR_INLINE f32_vector load_first(const Element* p, std::size_t n) {
    float buffer[max_lanes] = {};
    for (std::size_t i = 0; i < n; ++i) buffer[i] = to_f32(p[i]);
    return load(buffer);
}

template <class Element>
PHI4FLASH_VECTOR_INLINE void store_first(f32_vector v, Element* p, std::size_t n) {
    float buffer[max_lanes];
    store(v, buffer);
    for (std::size_t i = 0; i < n; ++i) p[i] = from_f32<Element>(buffer[i]);
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/linear-inl.hpp ------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

template <class Element>
PHI4FLASH_VECTOR_INLINE float dot(const Element* PHI4FLASH_RESTRICT a, const float* PHI4FLASH_RESTRICT b, std::size_t n) {
    const std::size_t lane_count = lanes();
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    f32_vector s2 = zero();
    f32_vector s3 = zero();
    std::size_t i = 0;
    for (; i + 4 * lane_count <= n; i += 4 * lane_count) {
        s0 = mul_add(load(a + i), load(b + i), s0);
        s1 = mul_add(load(a + i + lane_count), load(b + i + lane_count), s1);
        s2 = mul_add(load(a + i + 2 * lane_count), load(b + i + 2 * lane_count), s2);
        s3 = mul_add(load(a + i + 3 * lane_count), load(b + i + 3 * lane_count), s3);
    }
    for (; i + lane_count <= n; i += lane_count) s0 = mul_add(load(a + i), load(b + i), s0);
    if (i < n) s1 = mul_add(load_first(a + i, n - i), load_first(b + i, n - i), s1);
    return reduce_sum(add(add(s0, s1), add(s2, s3)));
}

PHI4FLASH_VECTOR_INLINE float dot_arranged(const bf16* PHI4FLASH_RESTRICT a, const float* PHI4FLASH_RESTRICT x, std::size_t n) {
    const std::size_t lane_count = lanes();
    const std::size_t step = 2 * lane_count;
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    f32_vector s2 = zero();
    f32_vector s3 = zero();
    f32_vector even;
    f32_vector odd;
    std::size_t i = 0;
    for (; i + 2 * step <= n; i += 2 * step) {
        load_even_odd(a + i, even, odd);
        s0 = mul_add(even, load(x + i), s0);
        s1 = mul_add(odd, load(x + i + lane_count), s1);
        load_even_odd(a + i + step, even, odd);
        s2 = mul_add(even, load(x + i + step), s2);
        s3 = mul_add(odd, load(x + i + step + lane_count), s3);
    }
    for (; i < n; i += step) {
        bf16 last[2 * max_lanes] = {};
        const bf16* block = a + i;
        if (i + step > n) {  // a ragged end: what lies behind it belongs to somebody else
            for (std::size_t j = i; j < n; ++j) last[j - i] = a[j];
            block = last;
        }
        load_even_odd(block, even, odd);
        s0 = mul_add(even, load(x + i), s0);
        s1 = mul_add(odd, load(x + i + lane_count), s1);
    }
    return reduce_sum(add(add(s0, s1), add(s2, s3)));
}

inline const std::byte* arrange_none(const float* x, std::size_t, std::size_t, std::size_t, std::byte*) { return reinterpret_cast<const std::byte*>(x); }

inline const std::byte* arrange_even_odd(const float* PHI4FLASH_RESTRICT x, std::size_t cols, std::size_t token, std::size_t, std::byte* scratch) {
    auto* PHI4FLASH_RESTRICT out = reinterpret_cast<float*>(scratch + token * arranged_bytes(cols));
    const std::size_t half = lanes();
    for (std::size_t i = 0; i < cols; i += 2 * half) {
        for (std::size_t j = 0; j < half; ++j) {
            out[i + j] = i + 2 * j < cols ? x[i + 2 * j] : 0.0f;
            out[i + half + j] = i + 2 * j + 1 < cols ? x[i + 2 * j + 1] : 0.0f;
        }
    }
    return scratch;
}

template <class Element>
inline void matvec(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* arranged, const float* bias, float* y) {
    const auto* x = reinterpret_cast<const float*>(arranged);
    const auto* row = reinterpret_cast<const Element*>(w);
    for (std::size_t r = 0; r < rows; ++r, row += cols) {
        float sum = 0.0f;
        if constexpr (dtype_of<Element> == dtype::bf16) {
            sum = dot_arranged(row, x, cols);
        } else {
            sum = dot(row, x, cols);
        }
        y[r] = bias == nullptr ? sum : sum + bias[r];
    }
}

template <class Element>
inline void widen(const std::byte* w, std::size_t cols, float* PHI4FLASH_RESTRICT out) {
    const auto* in = reinterpret_cast<const Element*>(w);
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= cols; i += lane_count) store(load(in + i), out + i);
    for (; i < cols; ++i) out[i] = to_f32(in[i]);
}

inline constexpr std::size_t panel_rows = 6;
inline constexpr std::size_t panel_cols = 1024;

PHI4FLASH_VECTOR_INLINE void tile_4x3(const float* PHI4FLASH_RESTRICT x, std::size_t x_stride, const float* PHI4FLASH_RESTRICT panel,
                                      std::size_t n, float* y, std::size_t y_stride) {
    const std::size_t lane_count = lanes();
    const float* x1 = x + x_stride;
    const float* x2 = x1 + x_stride;
    const float* x3 = x2 + x_stride;
    const float* w1 = panel + panel_cols;
    const float* w2 = w1 + panel_cols;
    f32_vector s00 = zero(), s01 = zero(), s02 = zero();
    f32_vector s10 = zero(), s11 = zero(), s12 = zero();
    f32_vector s20 = zero(), s21 = zero(), s22 = zero();
    f32_vector s30 = zero(), s31 = zero(), s32 = zero();
    for (std::size_t i = 0; i < n; i += lane_count) {  // n is a multiple of lane_count
        const f32_vector a = load(panel + i);
        const f32_vector b = load(w1 + i);
        const f32_vector c = load(w2 + i);
        f32_vector t = load(x + i);
        s00 = mul_add(t, a, s00), s01 = mul_add(t, b, s01), s02 = mul_add(t, c, s02);
        t = load(x1 + i);
        s10 = mul_add(t, a, s10), s11 = mul_add(t, b, s11), s12 = mul_add(t, c, s12);
        t = load(x2 + i);
        s20 = mul_add(t, a, s20), s21 = mul_add(t, b, s21), s22 = mul_add(t, c, s22);
        t = load(x3 + i);
        s30 = mul_add(t, a, s30), s31 = mul_add(t, b, s31), s32 = mul_add(t, c, s32);
    }
    y[0] += reduce_sum(s00), y[1] += reduce_sum(s01), y[2] += reduce_sum(s02);
    y += y_stride;
    y[0] += reduce_sum(s10), y[1] += reduce_sum(s11), y[2] += reduce_sum(s12);
    y += y_stride;
    y[0] += reduce_sum(s20), y[1] += reduce_sum(s21), y[2] += reduce_sum(s22);
    y += y_stride;
    y[0] += reduce_sum(s30), y[1] += reduce_sum(s31), y[2] += reduce_sum(s32);
}

PHI4FLASH_VECTOR_INLINE void tile_1x1(const float* PHI4FLASH_RESTRICT x, const float* PHI4FLASH_RESTRICT panel, std::size_t n, float* y) {
    f32_vector sum = zero();
    for (std::size_t i = 0; i < n; i += lanes()) sum = mul_add(load(x + i), load(panel + i), sum);
    *y += reduce_sum(sum);
}

PHI4FLASH_VECTOR_INLINE void multiply_panel(const float* x, std::size_t x_stride, std::size_t tokens, const float* panel, std::size_t rows,
                                            std::size_t n, float* y, std::size_t y_stride) {
    std::size_t t = 0;
    for (; t + 4 <= tokens; t += 4) {
        std::size_t r = 0;
        for (; r + 3 <= rows; r += 3) tile_4x3(x + t * x_stride, x_stride, panel + r * panel_cols, n, y + t * y_stride + r, y_stride);
        for (; r < rows; ++r) {
            for (std::size_t k = t; k < t + 4; ++k) tile_1x1(x + k * x_stride, panel + r * panel_cols, n, y + k * y_stride + r);
        }
    }
    for (; t < tokens; ++t) {
        for (std::size_t r = 0; r < rows; ++r) tile_1x1(x + t * x_stride, panel + r * panel_cols, n, y + t * y_stride + r);
    }
}

template <class Element>
inline void matmul(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x_bytes, std::size_t x_stride, std::size_t tokens,
                   const float* bias, float* y, std::size_t y_stride) {
    const auto* x = reinterpret_cast<const float*>(x_bytes);
    alignas(64) float panel[panel_rows * panel_cols];
    const std::size_t lane_count = lanes();
    const std::size_t whole_cols = cols / lane_count * lane_count;
    for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t r = 0; r < rows; ++r) y[t * y_stride + r] = bias == nullptr ? 0.0f : bias[r];
    }
    for (std::size_t r0 = 0; r0 < rows; r0 += panel_rows) {
        const std::size_t row_count = rows - r0 < panel_rows ? rows - r0 : panel_rows;
        for (std::size_t c0 = 0; c0 < whole_cols; c0 += panel_cols) {
            const std::size_t n = whole_cols - c0 < panel_cols ? whole_cols - c0 : panel_cols;
            for (std::size_t r = 0; r < row_count; ++r)
                widen<Element>(w + ((r0 + r) * cols + c0) * sizeof(Element), n, panel + r * panel_cols);
            multiply_panel(x + c0, x_stride, tokens, panel, row_count, n, y + r0, y_stride);
        }
        for (std::size_t r = 0; r < row_count && whole_cols < cols; ++r) {
            const auto* row = reinterpret_cast<const Element*>(w) + (r0 + r) * cols;
            for (std::size_t t = 0; t < tokens; ++t) {
                float sum = 0.0f;
                for (std::size_t c = whole_cols; c < cols; ++c) sum += to_f32(row[c]) * x[t * x_stride + c];
                y[t * y_stride + r0 + r] += sum;
            }
        }
    }
}

template <class Element>
inline void widen_row(const std::byte* w, std::size_t r, std::size_t cols, float* out) {
    widen<Element>(w + r * cols * sizeof(Element), cols, out);
}

template <class Element>
inline void narrow(const float* PHI4FLASH_RESTRICT x, std::size_t n, std::byte* PHI4FLASH_RESTRICT out) {
    auto* to = reinterpret_cast<Element*>(out);
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(load(x + i), to + i);
    for (; i < n; ++i) to[i] = from_f32<Element>(x[i]);
}

inline float read_all(const std::byte* data, std::size_t bytes) {
    const auto* p = reinterpret_cast<const bf16*>(data);
    const std::size_t step = 4 * lanes();
    const std::size_t count = bytes / sizeof(bf16);
    f32_vector s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
    f32_vector even;
    f32_vector odd;
    std::size_t i = 0;
    for (; i + step <= count; i += step) {
        load_even_odd(p + i, even, odd);
        s0 = add(s0, even), s1 = add(s1, odd);
        load_even_odd(p + i + step / 2, even, odd);
        s2 = add(s2, even), s3 = add(s3, odd);
    }
    float rest = 0.0f;
    for (; i < count; ++i) rest += to_f32(p[i]);
    return reduce_sum(add(add(s0, s1), add(s2, s3))) + rest;
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/elementwise-inl.hpp -------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline void accumulate(const float* PHI4FLASH_RESTRICT x, std::size_t n, float* PHI4FLASH_RESTRICT y) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(add(load(y + i), load(x + i)), y + i);
    for (; i < n; ++i) y[i] += x[i];
}

inline void silu_mul(const float* gate, const float* x, std::size_t n, float* y) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(mul(silu_of(load(gate + i)), load(x + i)), y + i);
    if (i < n) store_first(mul(silu_of(load_first(gate + i, n - i)), load_first(x + i, n - i)), y + i, n - i);
}

inline void softplus(const float* x, std::size_t n, float* y) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(softplus_of(load(x + i)), y + i);
    if (i < n) store_first(softplus_of(load_first(x + i, n - i)), y + i, n - i);
}

PHI4FLASH_VECTOR_INLINE float sum_of_squares(const float* x, float shift, std::size_t n) {
    const std::size_t lane_count = lanes();
    const f32_vector c = set(shift);
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    std::size_t i = 0;
    for (; i + 2 * lane_count <= n; i += 2 * lane_count) {
        const f32_vector a = sub(load(x + i), c);
        const f32_vector b = sub(load(x + i + lane_count), c);
        s0 = mul_add(a, a, s0);
        s1 = mul_add(b, b, s1);
    }
    float rest = 0.0f;
    for (; i < n; ++i) rest += (x[i] - shift) * (x[i] - shift);
    return reduce_sum(add(s0, s1)) + rest;
}

PHI4FLASH_VECTOR_INLINE float sum_of(const float* x, std::size_t n) {
    const std::size_t lane_count = lanes();
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    std::size_t i = 0;
    for (; i + 2 * lane_count <= n; i += 2 * lane_count) {
        s0 = add(s0, load(x + i));
        s1 = add(s1, load(x + i + lane_count));
    }
    float rest = 0.0f;
    for (; i < n; ++i) rest += x[i];
    return reduce_sum(add(s0, s1)) + rest;
}

inline void layer_norm(const float* x, const float* weight, const float* bias, float eps, std::size_t n, float* y) {
    const auto count = static_cast<float>(n);
    const float mean = sum_of(x, n) / count;
    const float inverse = 1.0f / std::sqrt(sum_of_squares(x, mean, n) / count + eps);
    const std::size_t lane_count = lanes();
    const f32_vector m = set(mean);
    const f32_vector s = set(inverse);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count)
        store(mul_add(mul(sub(load(x + i), m), s), load(weight + i), load(bias + i)), y + i);
    for (; i < n; ++i) y[i] = (x[i] - mean) * inverse * weight[i] + bias[i];
}

inline void rms_norm(const float* x, const float* weight, float eps, std::size_t n, float* y) {
    const float inverse = 1.0f / std::sqrt(sum_of_squares(x, 0.0f, n) / static_cast<float>(n) + eps);
    const std::size_t lane_count = lanes();
    const f32_vector s = set(inverse);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(mul(mul(load(x + i), s), load(weight + i)), y + i);
    for (; i < n; ++i) y[i] = x[i] * inverse * weight[i];
}

inline void difference_norm(const float* first, const float* second, float lambda, const float* weight, float eps, std::size_t n,
                            float* y) {
    const std::size_t lane_count = lanes();
    const f32_vector l = set(lambda);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(neg_mul_add(l, load(second + i), load(first + i)), y + i);
    for (; i < n; ++i) y[i] = first[i] - lambda * second[i];
    rms_norm(y, weight, eps, n, y);
}

inline void softmax(float* x, std::size_t n, float inverse_temperature) {
    if (n == 0) return;
    const std::size_t lane_count = lanes();
    float highest = x[0];
    std::size_t i = 0;
    if (n >= lane_count) {
        f32_vector m = load(x);
        for (; i + lane_count <= n; i += lane_count) m = max_of(m, load(x + i));
        highest = reduce_max(m);
    }
    for (; i < n; ++i) highest = x[i] > highest ? x[i] : highest;

    const f32_vector shift = set(highest);
    const f32_vector scale = set(inverse_temperature);
    f32_vector sums = zero();
    for (i = 0; i + lane_count <= n;) {
        f32_vector part = zero();
        for (std::size_t k = 0; k < 256 && i + lane_count <= n; ++k, i += lane_count) {
            const f32_vector e = exp_of(mul(sub(load(x + i), shift), scale));
            store(e, x + i);
            part = add(part, e);
        }
        sums = add(sums, part);
    }
    float sum = reduce_sum(sums);
    if (i < n) {
        store_first(exp_of(mul(sub(load_first(x + i, n - i), shift), scale)), x + i, n - i);
        for (; i < n; ++i) sum += x[i];
    }
    const f32_vector inverse = set(1.0f / sum);
    for (i = 0; i + lane_count <= n; i += lane_count) store(mul(load(x + i), inverse), x + i);
    for (; i < n; ++i) x[i] /= sum;
}

inline void rotate(float* x, const float* cosine, const float* sine, std::size_t half) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= half; i += lane_count) {
        const f32_vector a = load(x + i);
        const f32_vector b = load(x + half + i);
        const f32_vector c = load(cosine + i);
        const f32_vector s = load(sine + i);
        store(neg_mul_add(b, s, mul(a, c)), x + i);
        store(mul_add(a, s, mul(b, c)), x + half + i);
    }
    for (; i < half; ++i) {
        const float a = x[i];
        const float b = x[half + i];
        x[i] = a * cosine[i] - b * sine[i];
        x[half + i] = a * sine[i] + b * cosine[i];
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/mamba-inl.hpp -------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline void convolution(const convolution_args& args, std::size_t channel_begin, std::size_t channel_end) {
    const std::size_t lane_count = lanes();
    const std::size_t history = args.d_conv - 1;
    for (std::size_t t = 0; t < args.tokens; ++t) {
        float* y = args.y + t * args.y_stride;
        for (std::size_t c = channel_begin; c < channel_end; c += lane_count) {
            const std::size_t n = channel_end - c < lane_count ? channel_end - c : lane_count;
            const bool whole = n == lane_count;
            f32_vector sum = whole ? load(args.bias + c) : load_first(args.bias + c, n);
            for (std::size_t j = 0; j < args.d_conv; ++j) {
                const std::size_t time = t + j;
                const float* x = time < history ? args.state + time * args.d_inner : args.x + (time - history) * args.x_stride;
                const float* w = args.weight + j * args.d_inner;
                sum = whole ? mul_add(load(x + c), load(w + c), sum) : mul_add(load_first(x + c, n), load_first(w + c, n), sum);
            }
            if (whole) {
                store(silu_of(sum), y + c);
            } else {
                store_first(silu_of(sum), y + c, n);
            }
        }
    }
    for (std::size_t j = 0; j < history; ++j) {
        const std::size_t time = args.tokens + j;
        const float* from = time < history ? args.state + time * args.d_inner : args.x + (time - history) * args.x_stride;
        float* to = args.state + j * args.d_inner;
        for (std::size_t c = channel_begin; c < channel_end; ++c) to[c] = from[c];
    }
}

PHI4FLASH_VECTOR_INLINE f32_vector scan_vector(const float* a, float* h, const float* b, const float* c, std::size_t d_state, f32_vector dt,
                                               f32_vector dt_u) {
    f32_vector y0 = zero();
    f32_vector y1 = zero();
    std::size_t n = 0;
    for (; n + 2 <= d_state; n += 2) {
        float* h0 = h + n * channel_block;
        float* h1 = h0 + channel_block;
        const f32_vector next0 = mul_add(exp2_of(mul(dt, load(a + n * channel_block))), load(h0), mul(dt_u, set(b[n])));
        const f32_vector next1 = mul_add(exp2_of(mul(dt, load(a + (n + 1) * channel_block))), load(h1), mul(dt_u, set(b[n + 1])));
        store(next0, h0);
        store(next1, h1);
        y0 = mul_add(next0, set(c[n]), y0);
        y1 = mul_add(next1, set(c[n + 1]), y1);
    }
    for (; n < d_state; ++n) {
        float* h0 = h + n * channel_block;
        const f32_vector next = mul_add(exp2_of(mul(dt, load(a + n * channel_block))), load(h0), mul(dt_u, set(b[n])));
        store(next, h0);
        y0 = mul_add(next, set(c[n]), y0);
    }
    return add(y0, y1);
}

inline void scan(const scan_args& args, std::size_t block_begin, std::size_t block_end) {
    const std::size_t lane_count = lanes();
    for (std::size_t block = block_begin; block < block_end; ++block) {
        const std::size_t first = block * channel_block;
        const std::size_t width = args.d_inner - first < channel_block ? args.d_inner - first : channel_block;
        const float* a = args.a_log2e + first * args.d_state;
        float* h = args.h + first * args.d_state;
        for (std::size_t t = 0; t < args.tokens; ++t) {
            const float* b = args.b + t * args.bc_stride;
            const float* c = args.c + t * args.bc_stride;
            for (std::size_t i = 0; i < width; i += lane_count) {
                const std::size_t channel = first + i;
                const std::size_t at = t * args.d_inner + channel;
                const std::size_t n = width - i < lane_count ? width - i : lane_count;
                if (n == lane_count) {
                    const f32_vector dt = load(args.dt + at);
                    const f32_vector u = load(args.u + at);
                    const f32_vector sum = scan_vector(a + i, h + i, b, c, args.d_state, dt, mul(dt, u));
                    store(mul_add(load(args.d + channel), u, sum), args.y + at);
                } else {  // A and h are zero behind the last channel, so whole vectors of them are safe
                    const f32_vector dt = load_first(args.dt + at, n);
                    const f32_vector u = load_first(args.u + at, n);
                    const f32_vector sum = scan_vector(a + i, h + i, b, c, args.d_state, dt, mul(dt, u));
                    store_first(mul_add(load_first(args.d + channel, n), u, sum), args.y + at, n);
                }
            }
        }
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/attention-inl.hpp ---------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline constexpr std::size_t tile_keys = 32;
inline constexpr std::size_t tile_floats = 4096;
inline constexpr std::size_t row_block = 64;
inline constexpr float lowest_score = -3.0e38f;

template <class Element>
PHI4FLASH_VECTOR_INLINE void tile_scores(const float* PHI4FLASH_RESTRICT q, const Element* PHI4FLASH_RESTRICT k, std::size_t width,
                                         std::size_t d_head, std::size_t begin, std::size_t end, float scale,
                                         float* PHI4FLASH_RESTRICT scores) {
    const std::size_t lane_count = lanes();
    const std::size_t whole = d_head / lane_count * lane_count;
    std::size_t j = begin;
    for (; j + 4 <= end && whole == d_head; j += 4) {
        const Element* k0 = k + j * width;
        const Element* k1 = k0 + width;
        const Element* k2 = k1 + width;
        const Element* k3 = k2 + width;
        f32_vector s0 = zero();
        f32_vector s1 = zero();
        f32_vector s2 = zero();
        f32_vector s3 = zero();
        for (std::size_t i = 0; i < whole; i += lane_count) {
            const f32_vector x = load(q + i);
            s0 = mul_add(x, load(k0 + i), s0);
            s1 = mul_add(x, load(k1 + i), s1);
            s2 = mul_add(x, load(k2 + i), s2);
            s3 = mul_add(x, load(k3 + i), s3);
        }
        scores[j] = scale * reduce_sum(s0);
        scores[j + 1] = scale * reduce_sum(s1);
        scores[j + 2] = scale * reduce_sum(s2);
        scores[j + 3] = scale * reduce_sum(s3);
    }
    for (; j < end; ++j) {
        f32_vector s = zero();
        for (std::size_t i = 0; i < whole; i += lane_count) s = mul_add(load(q + i), load(k + j * width + i), s);
        if (whole < d_head) s = mul_add(load_first(q + whole, d_head - whole), load_first(k + j * width + whole, d_head - whole), s);
        scores[j] = scale * reduce_sum(s);
    }
}

template <class Element>
PHI4FLASH_VECTOR_INLINE void tile_values(const float* PHI4FLASH_RESTRICT p, const Element* PHI4FLASH_RESTRICT v, std::size_t width,
                                         std::size_t begin, std::size_t end, float correction, float* PHI4FLASH_RESTRICT out) {
    const std::size_t lane_count = lanes();
    const f32_vector keep = set(correction);
    std::size_t i = 0;
    for (; i + 4 * lane_count <= width; i += 4 * lane_count) {
        f32_vector o0 = mul(keep, load(out + i));
        f32_vector o1 = mul(keep, load(out + i + lane_count));
        f32_vector o2 = mul(keep, load(out + i + 2 * lane_count));
        f32_vector o3 = mul(keep, load(out + i + 3 * lane_count));
        for (std::size_t j = begin; j < end; ++j) {
            const f32_vector weight = set(p[j]);
            const Element* row = v + j * width + i;
            o0 = mul_add(weight, load(row), o0);
            o1 = mul_add(weight, load(row + lane_count), o1);
            o2 = mul_add(weight, load(row + 2 * lane_count), o2);
            o3 = mul_add(weight, load(row + 3 * lane_count), o3);
        }
        store(o0, out + i);
        store(o1, out + i + lane_count);
        store(o2, out + i + 2 * lane_count);
        store(o3, out + i + 3 * lane_count);
    }
    for (; i + lane_count <= width; i += lane_count) {
        f32_vector o = mul(keep, load(out + i));
        for (std::size_t j = begin; j < end; ++j) o = mul_add(set(p[j]), load(v + j * width + i), o);
        store(o, out + i);
    }
    if (i < width) {
        f32_vector o = mul(keep, load_first(out + i, width - i));
        for (std::size_t j = begin; j < end; ++j) o = mul_add(set(p[j]), load_first(v + j * width + i, width - i), o);
        store_first(o, out + i, width - i);
    }
}

struct attention_row {
    const float* q;
    float* out;
    std::size_t key_head;        ///< within the group
    std::size_t position;
    std::size_t first_visible;   ///< position
    float slope;
    float maximum;
    float sum;
};

template <class Element>
PHI4FLASH_VECTOR_INLINE void attend_tile(const attention_args& args, attention_row& row, const Element* k, const Element* v,
                                         std::size_t tile_position, std::size_t begin, std::size_t end) {
    const std::size_t width = args.k_per_group * args.d_head;
    const std::size_t lane_count = lanes();
    float scores[tile_keys + max_lanes];
    for (std::size_t j = 0; j < tile_keys; ++j) scores[j] = lowest_score;
    tile_scores(row.q, k + row.key_head * args.d_head, width, args.d_head, begin, end, args.scale, scores);
    if (row.slope != 0.0f) {
        for (std::size_t j = begin; j < end; ++j)
            scores[j] = mul_add_one(-row.slope, static_cast<float>(row.position - (tile_position + j)), scores[j]);
    }
    float highest = row.maximum;
    for (std::size_t j = begin; j < end; ++j) highest = scores[j] > highest ? scores[j] : highest;
    const f32_vector shift = set(highest);
    f32_vector sums = zero();
    const std::size_t first = begin / lane_count * lane_count;
    for (std::size_t j = first; j < end; j += lane_count) {
        const f32_vector e = exp_of(sub(load(scores + j), shift));
        store(e, scores + j);
    }
    float rest = 0.0f;
    std::size_t j = begin;
    for (; j < end && j % lane_count != 0; ++j) rest += scores[j];
    for (; j + lane_count <= end; j += lane_count) sums = add(sums, load(scores + j));
    for (; j < end; ++j) rest += scores[j];
    float shrink[max_lanes];
    store(exp_of(set(row.maximum - highest)), shrink);
    const float correction = row.maximum == lowest_score ? 0.0f : shrink[0];
    row.maximum = highest;
    row.sum = mul_add_one(row.sum, correction, reduce_sum(sums) + rest);
    tile_values(scores, v, width, begin, end, correction, row.out);
}

inline void visible_keys(const attention_row& row, std::size_t position, std::size_t count, std::size_t& begin, std::size_t& end) {
    begin = row.first_visible > position ? row.first_visible - position : 0;
    end = row.position < position ? 0 : row.position - position + 1;
    end = end < count ? end : count;
}

template <class Element>
inline void attend_segment(const attention_args& args, std::size_t group, attention_row* rows, std::size_t n_rows,
                           const kv_segment& segment) {
    const std::size_t width = args.k_per_group * args.d_head;
    const auto* k = reinterpret_cast<const Element*>(segment.k) + group * segment.group_rows * width;
    const auto* v = reinterpret_cast<const Element*>(segment.v) + group * segment.group_rows * width;
    const std::size_t earliest = rows[0].first_visible;
    const std::size_t latest = rows[n_rows - 1].position;
    if (latest < segment.first_position || earliest >= segment.first_position + segment.count) return;
    const std::size_t wide_step = width * tile_keys <= tile_floats ? tile_keys : tile_floats / width;
    const bool can_widen = dtype_of<Element> != dtype::f32 && wide_step >= 4;
    const std::size_t tile_step = can_widen ? wide_step : tile_keys;
    const std::size_t first_key = earliest > segment.first_position ? earliest - segment.first_position : 0;
    const std::size_t start = first_key / tile_step * tile_step;
    const std::size_t stop = latest - segment.first_position + 1 < segment.count ? latest - segment.first_position + 1 : segment.count;
    const bool widened = can_widen && n_rows > 2 * args.k_per_group * args.queries_per_key;
    alignas(64) float wide_k[dtype_of<Element> == dtype::f32 ? 1 : tile_floats];
    alignas(64) float wide_v[dtype_of<Element> == dtype::f32 ? 1 : tile_floats];
    for (std::size_t j = start; j < stop; j += tile_step) {
        const std::size_t count = stop - j < tile_step ? stop - j : tile_step;
        const std::size_t position = segment.first_position + j;
        if (widened) {
            widen<Element>(reinterpret_cast<const std::byte*>(k + j * width), count * width, wide_k);
            widen<Element>(reinterpret_cast<const std::byte*>(v + j * width), count * width, wide_v);
        }
        for (std::size_t r = 0; r < n_rows; ++r) {
            std::size_t begin = 0;
            std::size_t end = 0;
            visible_keys(rows[r], position, count, begin, end);
            if (begin >= end) continue;
            if (widened) {
                attend_tile<float>(args, rows[r], wide_k, wide_v, position, begin, end);
            } else {
                attend_tile<Element>(args, rows[r], k + j * width, v + j * width, position, begin, end);
            }
        }
    }
}

template <class Element>
inline void attention(const attention_args& args, std::size_t group, std::size_t token_begin, std::size_t token_end,
                      const kv_segment* segments, std::size_t n_segments) {
    const std::size_t width = args.k_per_group * args.d_head;
    const std::size_t heads = args.k_per_group * args.queries_per_key;  // query heads of this group
    attention_row rows[row_block];
    const std::size_t total = (token_end - token_begin) * heads;
    for (std::size_t first = 0; first < total; first += row_block) {
        const std::size_t n_rows = total - first < row_block ? total - first : row_block;
        for (std::size_t i = 0; i < n_rows; ++i) {
            const std::size_t token = token_begin + (first + i) / heads;
            const std::size_t head_in_group = (first + i) % heads;
            const std::size_t head = group * heads + head_in_group;
            attention_row& row = rows[i];
            row.q = args.q + token * args.q_stride + head * args.d_head;
            row.out = args.out + token * args.out_stride + head * width;
            row.key_head = head_in_group % args.k_per_group;
            row.position = args.first_position + token;
            row.first_visible = row.position >= args.window ? row.position - args.window + 1 : 0;
            row.slope = args.slopes == nullptr ? 0.0f : args.slopes[head];
            row.maximum = lowest_score;
            row.sum = 0.0f;
            for (std::size_t c = 0; c < width; ++c) row.out[c] = 0.0f;
        }
        for (std::size_t s = 0; s < n_segments; ++s) attend_segment<Element>(args, group, rows, n_rows, segments[s]);
        const std::size_t lane_count = lanes();
        for (std::size_t i = 0; i < n_rows; ++i) {
            const float inverse = 1.0f / rows[i].sum;  // a token sees itself, so the sum is at least 1
            std::size_t c = 0;
            for (; c + lane_count <= width; c += lane_count) store(mul(load(rows[i].out + c), set(inverse)), rows[i].out + c);
            for (; c < width; ++c) rows[i].out[c] *= inverse;
        }
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/packed-inl.hpp ------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

template <int Limit, int Zero>
inline const std::byte* arrange_int8(const float* PHI4FLASH_RESTRICT x, std::size_t cols, std::size_t token, std::size_t tokens,
                                     std::byte* scratch) {
    auto* groups = reinterpret_cast<activation_group*>(scratch) + token;
    const std::size_t lane_count = lanes();
    for (std::size_t g = 0; g < cols / packed_cols; ++g, groups += tokens) {
        const float* group = x + g * packed_cols;
        f32_vector highest = zero();
        for (std::size_t i = 0; i < packed_cols; i += lane_count) highest = max_of(highest, abs_of(load(group + i)));
        const float most = reduce_max(highest);
        const f32_vector inverse = set(most > 0.0f ? static_cast<float>(Limit) / most : 0.0f);
        float rounded[packed_cols];
        f32_vector sums = zero();
        for (std::size_t i = 0; i < packed_cols; i += lane_count) {
            const f32_vector q = round_nearest(mul(load(group + i), inverse));
            store(q, rounded + i);
            sums = add(sums, q);
        }
        for (std::size_t i = 0; i < packed_cols; ++i) groups->q[i] = static_cast<std::int8_t>(rounded[i]);
        groups->scale = most / static_cast<float>(Limit);
        groups->offset = static_cast<float>(-Zero) * groups->scale * reduce_sum(sums);
    }
    return scratch;
}

PHI4FLASH_VECTOR_INLINE rows_f32 add_group(rows_i32 sums, rows_f32 scales, const activation_group& x, rows_f32 total) {
    return mul_add_rows(scales, scale_sums(sums, x.scale, x.offset), total);
}

#define PHI4FLASH_UNPACK_Q4(block, row)                                          \
    const code_vector codes0 = load_codes((block).code[0] + 4 * (row));          \
    const code_vector codes1 = load_codes((block).code[1] + 4 * (row));          \
    const code_vector codes2 = load_codes((block).code[2] + 4 * (row));          \
    const code_vector codes3 = load_codes((block).code[3] + 4 * (row));          \
    const code_vector w0 = q4_levels<Dense>(levels, low_codes(codes0));          \
    const code_vector w1 = q4_levels<Dense>(levels, low_codes(codes1));          \
    const code_vector w2 = q4_levels<Dense>(levels, low_codes(codes2));          \
    const code_vector w3 = q4_levels<Dense>(levels, low_codes(codes3));          \
    const code_vector w4 = q4_levels<Dense>(levels, high_codes(codes0));         \
    const code_vector w5 = q4_levels<Dense>(levels, high_codes(codes1));         \
    const code_vector w6 = q4_levels<Dense>(levels, high_codes(codes2));         \
    const code_vector w7 = q4_levels<Dense>(levels, high_codes(codes3));         \
    static_assert(true)

template <bool Dense>
PHI4FLASH_VECTOR_INLINE code_vector q4_levels(code_vector levels, code_vector codes) {
    if constexpr (Dense) {
        return levels_of(levels, codes);
    } else {
        return codes;
    }
}

template <bool Dense>
PHI4FLASH_VECTOR_INLINE rows_i32 q4_dot(code_vector w0, code_vector w1, code_vector w2, code_vector w3, code_vector w4, code_vector w5,
                                        code_vector w6, code_vector w7, const std::int8_t* x) {
    dot_sums a = dot_next(dot_next(dot_next(dot_first(w0, broadcast_four(x)), w1, broadcast_four(x + 4)), w2, broadcast_four(x + 8)), w3,
                          broadcast_four(x + 12));
    if constexpr (Dense) {
        const dot_sums b = dot_next(dot_next(dot_next(dot_first(w4, broadcast_four(x + 16)), w5, broadcast_four(x + 20)), w6, broadcast_four(x + 24)),
                                    w7, broadcast_four(x + 28));
        return dot_fold(dot_fold(a), b);
    } else {
        a = dot_next(dot_next(dot_next(dot_next(a, w4, broadcast_four(x + 16)), w5, broadcast_four(x + 20)), w6, broadcast_four(x + 24)), w7,
                     broadcast_four(x + 28));
        return dot_fold(a);
    }
}

PHI4FLASH_VECTOR_INLINE void dot_first_four(code_vector w, const activation_group* x, std::size_t at, dot_sums& a, dot_sums& b, dot_sums& c,
                                            dot_sums& d) {
    a = dot_first(w, broadcast_four(x[0].q + at));
    b = dot_first(w, broadcast_four(x[1].q + at));
    c = dot_first(w, broadcast_four(x[2].q + at));
    d = dot_first(w, broadcast_four(x[3].q + at));
}
PHI4FLASH_VECTOR_INLINE void dot_next_four(code_vector w, const activation_group* x, std::size_t at, dot_sums& a, dot_sums& b, dot_sums& c,
                                           dot_sums& d) {
    a = dot_next(a, w, broadcast_four(x[0].q + at));
    b = dot_next(b, w, broadcast_four(x[1].q + at));
    c = dot_next(c, w, broadcast_four(x[2].q + at));
    d = dot_next(d, w, broadcast_four(x[3].q + at));
}

PHI4FLASH_VECTOR_INLINE void add_group_to(float* sum, rows_i32 dots, rows_f32 scales, const activation_group& x) {
    store_rows(add_group(dots, scales, x, load_rows(sum)), sum);
}

template <bool Dense>
PHI4FLASH_VECTOR_INLINE void q4_dot_four(code_vector w0, code_vector w1, code_vector w2, code_vector w3, code_vector w4, code_vector w5,
                                         code_vector w6, code_vector w7, const activation_group* x, rows_f32 scales, float* sums) {
    dot_sums a, b, c, d;
    dot_first_four(w0, x, 0, a, b, c, d);
    dot_next_four(w1, x, 4, a, b, c, d);
    dot_next_four(w2, x, 8, a, b, c, d);
    dot_next_four(w3, x, 12, a, b, c, d);
    if constexpr (Dense) {
        dot_sums e, f, g, h;
        dot_first_four(w4, x, 16, e, f, g, h);
        dot_next_four(w5, x, 20, e, f, g, h);
        dot_next_four(w6, x, 24, e, f, g, h);
        dot_next_four(w7, x, 28, e, f, g, h);
        add_group_to(sums, dot_fold(dot_fold(a), e), scales, x[0]);
        add_group_to(sums + packed_rows, dot_fold(dot_fold(b), f), scales, x[1]);
        add_group_to(sums + 2 * packed_rows, dot_fold(dot_fold(c), g), scales, x[2]);
        add_group_to(sums + 3 * packed_rows, dot_fold(dot_fold(d), h), scales, x[3]);
    } else {
        dot_next_four(w4, x, 16, a, b, c, d);
        dot_next_four(w5, x, 20, a, b, c, d);
        dot_next_four(w6, x, 24, a, b, c, d);
        dot_next_four(w7, x, 28, a, b, c, d);
        add_group_to(sums, dot_fold(a), scales, x[0]);
        add_group_to(sums + packed_rows, dot_fold(b), scales, x[1]);
        add_group_to(sums + 2 * packed_rows, dot_fold(c), scales, x[2]);
        add_group_to(sums + 3 * packed_rows, dot_fold(d), scales, x[3]);
    }
}

PHI4FLASH_VECTOR_INLINE rows_i32 q8_dot(const q8_block& block, std::size_t row, const std::int8_t* x) {
    rows_i32 total = set_rows(0);
    for (std::size_t s = 0; s < 8; ++s) total = dot_signed(total, load_codes(block.code[s] + 4 * row), broadcast_four(x + 4 * s));
    return total;
}

PHI4FLASH_VECTOR_INLINE void q8_dot_four(const q8_block& block, std::size_t row, const activation_group* x, rows_f32 scales, float* sums) {
    rows_i32 a = set_rows(0);
    rows_i32 b = set_rows(0);
    rows_i32 c = set_rows(0);
    rows_i32 d = set_rows(0);
    for (std::size_t s = 0; s < 8; ++s) {
        const signed_code_vector w = load_codes(block.code[s] + 4 * row);
        a = dot_signed(a, w, broadcast_four(x[0].q + 4 * s));
        b = dot_signed(b, w, broadcast_four(x[1].q + 4 * s));
        c = dot_signed(c, w, broadcast_four(x[2].q + 4 * s));
        d = dot_signed(d, w, broadcast_four(x[3].q + 4 * s));
    }
    add_group_to(sums, a, scales, x[0]);
    add_group_to(sums + packed_rows, b, scales, x[1]);
    add_group_to(sums + 2 * packed_rows, c, scales, x[2]);
    add_group_to(sums + 3 * packed_rows, d, scales, x[3]);
}

PHI4FLASH_VECTOR_INLINE void put_rows(rows_f32 v, const float* bias, float* y) {
    store_rows(v, y);
    for (std::size_t r = 0; bias != nullptr && r < rows_lanes(); ++r) y[r] += bias[r];
}

inline constexpr std::size_t packed_tokens = 32;

inline constexpr std::size_t packed_panel = 128;

template <dtype Format>
PHI4FLASH_VECTOR_INLINE void packed_row_tile(const std::byte* w, std::size_t groups, std::size_t row, const activation_group* x,
                                             std::size_t group_stride, std::size_t tokens, bool first, const float* bias, float* y, std::size_t y_stride) {
    constexpr bool Dense = Format == dtype::q4_dense;
    [[maybe_unused]] const code_vector levels = load_levels(q4_dense.level);
    float sums[packed_tokens * packed_rows];
    for (std::size_t t = 0; t < tokens; ++t) store_rows(first ? zero_rows() : load_rows(y + t * y_stride), sums + t * packed_rows);
    for (std::size_t g = 0; g < groups; ++g, x += group_stride) {
        if constexpr (Format == dtype::q8) {
            const q8_block& block = reinterpret_cast<const q8_block*>(w)[g];
            const rows_f32 scales = load_scales(block.scale + row);
            std::size_t t = 0;
            for (; t + 4 <= tokens; t += 4) q8_dot_four(block, row, x + t, scales, sums + t * packed_rows);
            for (; t < tokens; ++t) add_group_to(sums + t * packed_rows, q8_dot(block, row, x[t].q), scales, x[t]);
        } else {
            const q4_block& block = reinterpret_cast<const q4_block*>(w)[g];
            PHI4FLASH_UNPACK_Q4(block, row);
            const rows_f32 scales = load_scales(block.scale + row);
            std::size_t t = 0;
            for (; t + 4 <= tokens; t += 4) q4_dot_four<Dense>(w0, w1, w2, w3, w4, w5, w6, w7, x + t, scales, sums + t * packed_rows);
            for (; t < tokens; ++t)
                add_group_to(sums + t * packed_rows, q4_dot<Dense>(w0, w1, w2, w3, w4, w5, w6, w7, x[t].q), scales, x[t]);
        }
    }
    for (std::size_t t = 0; t < tokens; ++t) put_rows(load_rows(sums + t * packed_rows), bias, y + t * y_stride);
}

template <dtype Format>
PHI4FLASH_VECTOR_INLINE void packed_row(const std::byte* w, std::size_t groups, std::size_t row, const activation_group* x, const float* bias,
                                        float* y) {
    constexpr bool Dense = Format == dtype::q4_dense;
    [[maybe_unused]] const code_vector levels = load_levels(q4_dense.level);
    rows_f32 sum = zero_rows();
    for (std::size_t g = 0; g < groups; ++g) {
        if constexpr (Format == dtype::q8) {
            const q8_block& block = reinterpret_cast<const q8_block*>(w)[g];
            sum = add_group(q8_dot(block, row, x[g].q), load_scales(block.scale + row), x[g], sum);
        } else {
            const q4_block& block = reinterpret_cast<const q4_block*>(w)[g];
            PHI4FLASH_UNPACK_Q4(block, row);
            sum = add_group(q4_dot<Dense>(w0, w1, w2, w3, w4, w5, w6, w7, x[g].q), load_scales(block.scale + row), x[g], sum);
        }
    }
    put_rows(sum, bias, y);
}
#undef PHI4FLASH_UNPACK_Q4

template <dtype Format>
inline void packed_matvec(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, const float* bias, float* y) {
    const std::size_t groups = cols / packed_cols;
    for (std::size_t r = 0; r < rows; r += packed_rows) {
        for (std::size_t row = 0; row < packed_rows; row += rows_lanes())
            packed_row<Format>(w + matrix_bytes(Format, r, cols), groups, row, reinterpret_cast<const activation_group*>(x),
                               bias == nullptr ? nullptr : bias + r + row, y + r + row);
    }
}

template <dtype Format>
inline void packed_matmul(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, std::size_t, std::size_t tokens,
                          const float* bias, float* y, std::size_t y_stride) {
    const std::size_t groups = cols / packed_cols;
    const auto* activations = reinterpret_cast<const activation_group*>(x);
    for (std::size_t t = 0; t < tokens; t += packed_tokens) {
        const std::size_t count = tokens - t < packed_tokens ? tokens - t : packed_tokens;
        for (std::size_t g = 0; g < groups; g += packed_panel) {
            const std::size_t some = groups - g < packed_panel ? groups - g : packed_panel;
            const bool last = g + some == groups;
            for (std::size_t r = 0; r < rows; r += packed_rows) {
                const std::byte* blocks = w + matrix_bytes(Format, r, cols) + matrix_bytes(Format, packed_rows, g * packed_cols);
                for (std::size_t row = 0; row < packed_rows; row += rows_lanes())
                    packed_row_tile<Format>(blocks, some, row, activations + g * tokens + t, tokens, count, g == 0,
                                            bias == nullptr || !last ? nullptr : bias + r + row, y + t * y_stride + r + row, y_stride);
            }
        }
    }
}

template <dtype Format>
inline void packed_widen_row(const std::byte* w, std::size_t r, std::size_t cols, float* out) {
    const std::size_t groups = cols / packed_cols;
    for (std::size_t g = 0; g < groups; ++g) {
        const std::size_t at = r / packed_rows * groups + g;
        if constexpr (Format == dtype::q8) {
            decode_row(reinterpret_cast<const q8_block*>(w)[at], r % packed_rows, out + g * packed_cols);
        } else {
            constexpr const q4_codebook& book = Format == dtype::q4_dense ? q4_dense : q4_uniform;
            decode_row(reinterpret_cast<const q4_block*>(w)[at], book, r % packed_rows, out + g * packed_cols);
        }
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/table-inl.hpp -------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline std::size_t lanes_of_target() { return lanes(); }

template <class Element>
inline constexpr linear_kernels plain_kernels{
    .matvec = &matvec<Element>,
    .arrange = dtype_of<Element> == dtype::bf16 ? &arrange_even_odd : &arrange_none,
    .matmul = &matmul<Element>,
    .matmul_arranged = false,
    .widen = &widen_row<Element>,
};

template <dtype Format>
inline constexpr linear_kernels packed_kernels{
    .matvec = &packed_matvec<Format>,
    .arrange = Format == dtype::q8   ? &arrange_int8<127, 0>
               : Format == dtype::q4 ? &arrange_int8<127, q4_uniform.zero>
                                     : &arrange_int8<dense_activation_limit, q4_dense.zero>,
    .matmul = &packed_matmul<Format>,
    .matmul_arranged = true,
    .widen = &packed_widen_row<Format>,
};

inline constexpr kernel_table table{
    .name = PHI4FLASH_TARGET_LABEL,
    .lanes = &lanes_of_target,
    .linear = {plain_kernels<float>, plain_kernels<f16>, plain_kernels<bf16>, packed_kernels<dtype::q8>, packed_kernels<dtype::q4>,
               packed_kernels<dtype::q4_dense>},
    .layer_norm = &layer_norm,
    .rms_norm = &rms_norm,
    .accumulate = &accumulate,
    .silu_mul = &silu_mul,
    .softplus = &softplus,
    .softmax = &softmax,
    .convolution = &convolution,
    .scan = &scan,
    .narrow = {&narrow<float>, nullptr, &narrow<bf16>},
    .attention = {&attention<float>, nullptr, &attention<bf16>},
    .difference_norm = &difference_norm,
    .rotate = &rotate,
    .read = &read_all,
};

PHI4FLASH_TARGET_END
#endif

#if PHI4FLASH_HIGHWAY_EXTRA(HWY_AVX3_DL)
#undef HWY_TARGET
#define HWY_TARGET HWY_AVX3_DL

// ---- phi4flash/simd/next_target-inl.hpp ----------------------------------------------------------------------------------
#undef HWY_TARGET_TOGGLE
#undef HWY_SET_MACROS_PER_TARGET
#ifdef HWY_HIGHWAY_PER_TARGET
#define HWY_TARGET_TOGGLE
#define HWY_SET_MACROS_PER_TARGET
#endif
#undef PHI4FLASH_TARGET_LABEL
#define PHI4FLASH_TARGET_LABEL "avx3_dl"

// ---- phi4flash/kernels/target-inl.hpp ------------------------------------------------------------------------------------

// ---- phi4flash/simd/vocabulary-inl.hpp -----------------------------------------------------------------------------------
#if PHI4FLASH_SIMD_HIGHWAY

// ---- phi4flash/simd/vocabulary_highway-inl.hpp ---------------------------------------------------------------------------
#include <hwy/highway.h>
PHI4FLASH_TARGET_BEGIN

namespace hn = hwy::HWY_NAMESPACE;

using f32_tag = hn::CappedTag<float, max_lanes>;
using i32_tag = hn::RebindToSigned<f32_tag>;
using u32_tag = hn::RebindToUnsigned<f32_tag>;
using u16_half_tag = hn::Rebind<std::uint16_t, f32_tag>;
using f32_vector = hn::Vec<f32_tag>;

PHI4FLASH_VECTOR_INLINE std::size_t lanes() { return hn::Lanes(f32_tag()); }
PHI4FLASH_VECTOR_INLINE f32_vector zero() { return hn::Zero(f32_tag()); }
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return hn::Set(f32_tag(), x); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const float* p) { return hn::LoadU(f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, float* p) { hn::StoreU(v, f32_tag(), p); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const bf16* p) {
    const auto narrow = hn::LoadU(u16_half_tag(), reinterpret_cast<const std::uint16_t*>(p));
    return hn::BitCast(f32_tag(), hn::ShiftLeft<16>(hn::PromoteTo(u32_tag(), narrow)));
}
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, bf16* p) {
    const u32_tag du;
    const auto bits = hn::BitCast(du, v);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
    const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fffu))));
    hn::StoreU(hn::TruncateTo(u16_half_tag(), rounded), u16_half_tag(), reinterpret_cast<std::uint16_t*>(p));
}
PHI4FLASH_VECTOR_INLINE f32_vector load(const f16* p) {
#if HWY_TARGET <= HWY_AVX2 || (HWY_TARGET & (HWY_ALL_NEON | HWY_ALL_SVE))
    const hn::Rebind<hwy::float16_t, f32_tag> half;
    return hn::PromoteTo(f32_tag(), hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(p)));
#else
    const u32_tag du;
    const auto bits = hn::PromoteTo(du, hn::LoadU(u16_half_tag(), reinterpret_cast<const std::uint16_t*>(p)));
    const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(du, 0x8000u)));
    const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(du, 0x7fffu)));
    const auto value = hn::BitCast(du, hn::Mul(hn::BitCast(f32_tag(), magnitude), hn::Set(f32_tag(), 0x1p112f)));
    const auto not_finite = hn::IfThenElseZero(hn::Ge(magnitude, hn::Set(du, 0x0f800000u)), hn::Set(du, 0x7f800000u));
    return hn::BitCast(f32_tag(), hn::Or(hn::Or(value, not_finite), sign));
#endif
}
PHI4FLASH_VECTOR_INLINE void load_even_odd(const bf16* p, f32_vector& even, f32_vector& odd) {
    const u32_tag du;
    const auto both = hn::LoadU(du, reinterpret_cast<const std::uint32_t*>(p));
    even = hn::BitCast(f32_tag(), hn::ShiftLeft<16>(both));
    odd = hn::BitCast(f32_tag(), hn::And(both, hn::Set(du, 0xffff0000u)));
}

PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) { return hn::Add(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) { return hn::Sub(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) { return hn::Mul(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) { return hn::Div(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) { return hn::MulAdd(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) { return hn::NegMulAdd(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector min_of(f32_vector a, f32_vector b) { return hn::Min(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector max_of(f32_vector a, f32_vector b) { return hn::Max(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector abs_of(f32_vector a) { return hn::Abs(a); }

PHI4FLASH_VECTOR_INLINE float reduce_sum(f32_vector v) { return hn::ReduceSum(f32_tag(), v); }
PHI4FLASH_VECTOR_INLINE float reduce_max(f32_vector v) { return hn::ReduceMax(f32_tag(), v); }

PHI4FLASH_VECTOR_INLINE f32_vector round_nearest(f32_vector v) { return hn::Round(v); }
PHI4FLASH_VECTOR_INLINE f32_vector scale_by_power_of_two(f32_vector v, f32_vector n) {
    const auto exponent = hn::Add(hn::NearestInt(n), hn::Set(i32_tag(), 127));
    return hn::Mul(v, hn::BitCast(f32_tag(), hn::ShiftLeft<23>(exponent)));
}

PHI4FLASH_TARGET_END
#elif PHI4FLASH_SIMD_XSIMD

// ---- phi4flash/simd/vocabulary_xsimd-inl.hpp -----------------------------------------------------------------------------
#include <xsimd/xsimd.hpp>
PHI4FLASH_TARGET_BEGIN

using f32_vector = xsimd::batch<float>;
using i32_vector = xsimd::batch<std::int32_t>;
using u32_vector = xsimd::batch<std::uint32_t>;
static_assert(f32_vector::size <= max_lanes, "phi4flash: layouts are blocked by 16 lanes");

PHI4FLASH_VECTOR_INLINE constexpr std::size_t lanes() { return f32_vector::size; }
PHI4FLASH_VECTOR_INLINE f32_vector zero() { return f32_vector(0.0f); }
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return f32_vector(x); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const float* p) { return f32_vector::load_unaligned(p); }
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, float* p) { v.store_unaligned(p); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const bf16* p) {
    alignas(64) std::uint32_t wide[f32_vector::size];
    for (std::size_t i = 0; i < f32_vector::size; ++i) wide[i] = static_cast<std::uint32_t>(p[i].bits) << 16;
    return xsimd::bitwise_cast<float>(u32_vector::load_aligned(wide));
}
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, bf16* p) {
    alignas(64) float wide[f32_vector::size];
    v.store_aligned(wide);
    for (std::size_t i = 0; i < f32_vector::size; ++i) p[i] = to_bf16(wide[i]);
}
PHI4FLASH_VECTOR_INLINE f32_vector load(const f16* p) {
    alignas(64) float wide[f32_vector::size];
    for (std::size_t i = 0; i < f32_vector::size; ++i) wide[i] = to_f32(p[i]);
    return f32_vector::load_aligned(wide);
}
PHI4FLASH_VECTOR_INLINE void load_even_odd(const bf16* p, f32_vector& even, f32_vector& odd) {
    const u32_vector both = xsimd::bitwise_cast<std::uint32_t>(f32_vector::load_unaligned(reinterpret_cast<const float*>(p)));
    even = xsimd::bitwise_cast<float>(both << 16);
    odd = xsimd::bitwise_cast<float>(both & u32_vector(0xffff0000u));
}

PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) { return a + b; }
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) { return a - b; }
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) { return a * b; }
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) { return a / b; }
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) { return xsimd::fma(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) { return xsimd::fnma(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector min_of(f32_vector a, f32_vector b) { return xsimd::min(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector max_of(f32_vector a, f32_vector b) { return xsimd::max(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector abs_of(f32_vector a) { return xsimd::abs(a); }

PHI4FLASH_VECTOR_INLINE float reduce_sum(f32_vector v) { return xsimd::reduce_add(v); }
PHI4FLASH_VECTOR_INLINE float reduce_max(f32_vector v) { return xsimd::reduce_max(v); }

PHI4FLASH_VECTOR_INLINE f32_vector round_nearest(f32_vector v) { return xsimd::nearbyint(v); }
PHI4FLASH_VECTOR_INLINE f32_vector scale_by_power_of_two(f32_vector v, f32_vector n) {
    const i32_vector exponent = xsimd::nearbyint_as_int(n) + i32_vector(127);
    return v * xsimd::bitwise_cast<float>(exponent << 23);
}

PHI4FLASH_TARGET_END
#else

// ---- phi4flash/simd/vocabulary_scalar-inl.hpp ----------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline constexpr std::size_t scalar_lanes = 4;
struct f32_vector {
    float lane[scalar_lanes];
};

namespace detail {
template <class Operation>
PHI4FLASH_VECTOR_INLINE f32_vector each(Operation operation) {
    f32_vector r;
    for (std::size_t i = 0; i < scalar_lanes; ++i) r.lane[i] = operation(i);
    return r;
}
}  // namespace detail

PHI4FLASH_VECTOR_INLINE constexpr std::size_t lanes() { return scalar_lanes; }
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return detail::each([&](std::size_t) { return x; }); }
PHI4FLASH_VECTOR_INLINE f32_vector zero() { return set(0.0f); }

template <class T>
PHI4FLASH_VECTOR_INLINE f32_vector load(const T* p) {
    return detail::each([&](std::size_t i) { return to_f32(p[i]); });
}
template <class T>
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, T* p) {
    for (std::size_t i = 0; i < scalar_lanes; ++i) p[i] = from_f32<T>(v.lane[i]);
}
PHI4FLASH_VECTOR_INLINE void load_even_odd(const bf16* p, f32_vector& even, f32_vector& odd) {
    even = detail::each([&](std::size_t i) { return to_f32(p[2 * i]); });
    odd = detail::each([&](std::size_t i) { return to_f32(p[2 * i + 1]); });
}

PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] + b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] - b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] * b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] / b.lane[i]; });
}
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__)
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
}
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return std::fma(-a.lane[i], b.lane[i], c.lane[i]); });
}
#else
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return c.lane[i] - a.lane[i] * b.lane[i]; });
}
#endif
PHI4FLASH_VECTOR_INLINE f32_vector min_of(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector max_of(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector abs_of(f32_vector a) {
    return detail::each([&](std::size_t i) { return std::fabs(a.lane[i]); });
}

PHI4FLASH_VECTOR_INLINE float reduce_sum(f32_vector v) { return (v.lane[0] + v.lane[2]) + (v.lane[1] + v.lane[3]); }
PHI4FLASH_VECTOR_INLINE float reduce_max(f32_vector v) {
    float m = v.lane[0];
    for (std::size_t i = 1; i < scalar_lanes; ++i) m = v.lane[i] > m ? v.lane[i] : m;
    return m;
}

PHI4FLASH_VECTOR_INLINE f32_vector round_nearest(f32_vector v) {
    constexpr float magic = 0x1.8p23f;
    return detail::each([&](std::size_t i) { return (v.lane[i] + magic) - magic; });
}
PHI4FLASH_VECTOR_INLINE f32_vector scale_by_power_of_two(f32_vector v, f32_vector n) {
    return detail::each([&](std::size_t i) {
        const auto exponent = static_cast<std::uint32_t>(static_cast<std::int32_t>(n.lane[i]) + 127);
        return v.lane[i] * std::bit_cast<float>(exponent << 23);
    });
}

PHI4FLASH_TARGET_END
#endif

// ---- phi4flash/simd/integer-inl.hpp --------------------------------------------------------------------------------------
#if PHI4FLASH_SIMD_HIGHWAY

// ---- phi4flash/simd/integer_highway-inl.hpp ------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

using rows_tag = hn::CappedTag<std::int32_t, 8>;
using rows_f32_tag = hn::RebindToFloat<rows_tag>;
using rows_u8_tag = hn::Repartition<std::uint8_t, rows_tag>;
using rows_i8_tag = hn::Repartition<std::int8_t, rows_tag>;
using rows_i16_tag = hn::Repartition<std::int16_t, rows_tag>;
using rows_u16_tag = hn::Repartition<std::uint16_t, rows_tag>;
using rows_i32 = hn::Vec<rows_tag>;
using rows_f32 = hn::Vec<rows_f32_tag>;
using code_vector = hn::Vec<rows_u8_tag>;
using signed_code_vector = hn::Vec<rows_i8_tag>;

PHI4FLASH_VECTOR_INLINE std::size_t rows_lanes() { return hn::Lanes(rows_tag()); }
PHI4FLASH_VECTOR_INLINE code_vector load_codes(const std::uint8_t* p) { return hn::LoadU(rows_u8_tag(), p); }
PHI4FLASH_VECTOR_INLINE signed_code_vector load_codes(const std::int8_t* p) { return hn::LoadU(rows_i8_tag(), p); }
PHI4FLASH_VECTOR_INLINE code_vector load_levels(const std::uint8_t* sixteen) { return hn::LoadDup128(rows_u8_tag(), sixteen); }
PHI4FLASH_VECTOR_INLINE code_vector low_codes(code_vector v) { return hn::And(v, hn::Set(rows_u8_tag(), std::uint8_t{15})); }
PHI4FLASH_VECTOR_INLINE code_vector high_codes(code_vector v) {
    const rows_u16_tag du16;
    return low_codes(hn::BitCast(rows_u8_tag(), hn::ShiftRight<4>(hn::BitCast(du16, v))));
}
PHI4FLASH_VECTOR_INLINE code_vector levels_of(code_vector levels, code_vector codes) { return hn::TableLookupBytes(levels, codes); }
PHI4FLASH_VECTOR_INLINE signed_code_vector broadcast_four(const std::int8_t* p) {
    std::int32_t four;
    std::memcpy(&four, p, sizeof four);
    return hn::BitCast(rows_i8_tag(), hn::Set(rows_tag(), four));
}

#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL
using dot_sums = hn::Vec<rows_i16_tag>;
PHI4FLASH_VECTOR_INLINE dot_sums in_this_order(dot_sums sums) {
#if defined(__GNUC__) && !defined(__clang__)
    asm("" : "+x"(sums.raw));
#endif
    return sums;
}
PHI4FLASH_VECTOR_INLINE dot_sums dot_first(code_vector w, signed_code_vector x) { return hn::SatWidenMulPairwiseAdd(rows_i16_tag(), w, x); }
PHI4FLASH_VECTOR_INLINE dot_sums dot_next(dot_sums sums, code_vector w, signed_code_vector x) {
    return in_this_order(hn::Add(sums, hn::SatWidenMulPairwiseAdd(rows_i16_tag(), w, x)));
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(dot_sums sums) {
    return hn::WidenMulPairwiseAdd(rows_tag(), sums, hn::Set(rows_i16_tag(), std::int16_t{1}));
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(rows_i32 total, dot_sums sums) { return hn::Add(total, dot_fold(sums)); }
inline constexpr int dense_activation_limit = 67;
#else
using dot_sums = rows_i32;
#if HWY_ARCH_X86
PHI4FLASH_VECTOR_INLINE rows_i32 dot_four(code_vector w, signed_code_vector x, rows_i32 sum) {
    return hn::SumOfMulQuadAccumulate(rows_tag(), w, x, sum);
}
#else  // levels are below 128, so they are signed bytes too, for which other architectures have the instruction
PHI4FLASH_VECTOR_INLINE rows_i32 dot_four(code_vector w, signed_code_vector x, rows_i32 sum) {
    return hn::SumOfMulQuadAccumulate(rows_tag(), hn::BitCast(rows_i8_tag(), w), x, sum);
}
#endif
PHI4FLASH_VECTOR_INLINE dot_sums dot_first(code_vector w, signed_code_vector x) { return dot_four(w, x, hn::Zero(rows_tag())); }
PHI4FLASH_VECTOR_INLINE dot_sums dot_next(dot_sums sums, code_vector w, signed_code_vector x) { return dot_four(w, x, sums); }
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(dot_sums sums) { return sums; }
inline constexpr int dense_activation_limit = 127;
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(rows_i32 total, dot_sums sums) { return hn::Add(total, sums); }
#endif

#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL
PHI4FLASH_VECTOR_INLINE rows_i32 dot_signed(rows_i32 total, signed_code_vector w, signed_code_vector x) {
    const auto magnitude = hn::BitCast(rows_u8_tag(), hn::Abs(w));
    const auto signed_x = hn::IfNegativeThenNegOrUndefIfZero(w, x);
    return hn::Add(total, hn::WidenMulPairwiseAdd(rows_tag(), hn::SatWidenMulPairwiseAdd(rows_i16_tag(), magnitude, signed_x),
                                                  hn::Set(rows_i16_tag(), std::int16_t{1})));
}
#else
PHI4FLASH_VECTOR_INLINE rows_i32 dot_signed(rows_i32 total, signed_code_vector w, signed_code_vector x) {
    return hn::SumOfMulQuadAccumulate(rows_tag(), w, x, total);
}
#endif

PHI4FLASH_VECTOR_INLINE rows_i32 set_rows(std::int32_t x) { return hn::Set(rows_tag(), x); }
PHI4FLASH_VECTOR_INLINE rows_f32 zero_rows() { return hn::Zero(rows_f32_tag()); }
PHI4FLASH_VECTOR_INLINE rows_f32 load_scales(const f16* p) {
    const hn::Rebind<hwy::float16_t, rows_f32_tag> half;
    return hn::PromoteTo(rows_f32_tag(), hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(p)));
}
PHI4FLASH_VECTOR_INLINE rows_f32 scale_sums(rows_i32 sums, float scale, float offset) {
    const rows_f32_tag df;
    return hn::MulAdd(hn::ConvertTo(df, sums), hn::Set(df, scale), hn::Set(df, offset));
}
PHI4FLASH_VECTOR_INLINE rows_f32 mul_add_rows(rows_f32 a, rows_f32 b, rows_f32 c) { return hn::MulAdd(a, b, c); }
PHI4FLASH_VECTOR_INLINE rows_f32 load_rows(const float* p) { return hn::LoadU(rows_f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE void store_rows(rows_f32 v, float* p) { hn::StoreU(v, rows_f32_tag(), p); }

PHI4FLASH_TARGET_END
#else

// ---- phi4flash/simd/integer_plain-inl.hpp --------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline constexpr std::size_t plain_rows = 8;
struct rows_i32 {
    std::int32_t lane[plain_rows];
};
struct rows_f32 {
    float lane[plain_rows];
};
struct code_vector {
    std::uint8_t byte[4 * plain_rows];
};
struct signed_code_vector {
    std::int8_t byte[4 * plain_rows];
};
using dot_sums = rows_i32;

PHI4FLASH_VECTOR_INLINE constexpr std::size_t rows_lanes() { return plain_rows; }
PHI4FLASH_VECTOR_INLINE code_vector load_codes(const std::uint8_t* p) {
    code_vector v;
    std::memcpy(v.byte, p, sizeof v.byte);
    return v;
}
PHI4FLASH_VECTOR_INLINE signed_code_vector load_codes(const std::int8_t* p) {
    signed_code_vector v;
    std::memcpy(v.byte, p, sizeof v.byte);
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector load_levels(const std::uint8_t* sixteen) {
    code_vector v;
    for (std::size_t i = 0; i < sizeof v.byte; ++i) v.byte[i] = sixteen[i % 16];
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector low_codes(code_vector v) {
    for (std::uint8_t& b : v.byte) b = b & 15u;
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector high_codes(code_vector v) {
    for (std::uint8_t& b : v.byte) b = static_cast<std::uint8_t>(b >> 4);
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector levels_of(const code_vector& levels, code_vector codes) {
    for (std::uint8_t& b : codes.byte) b = levels.byte[b];
    return codes;
}
PHI4FLASH_VECTOR_INLINE signed_code_vector broadcast_four(const std::int8_t* p) {
    signed_code_vector v;
    for (std::size_t i = 0; i < sizeof v.byte; ++i) v.byte[i] = p[i % 4];
    return v;
}

namespace detail {
PHI4FLASH_VECTOR_INLINE float fused(float a, float b, float c) {
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__)
    return std::fma(a, b, c);
#else
    return a * b + c;
#endif
}

template <class Codes>
PHI4FLASH_VECTOR_INLINE rows_i32 plain_dot(rows_i32 total, const Codes& w, const signed_code_vector& x) {
    for (std::size_t r = 0; r < plain_rows; ++r) {
        for (std::size_t i = 0; i < 4; ++i) total.lane[r] += static_cast<std::int32_t>(w.byte[4 * r + i]) * x.byte[4 * r + i];
    }
    return total;
}
}  // namespace detail

PHI4FLASH_VECTOR_INLINE rows_i32 set_rows(std::int32_t x) {
    rows_i32 v;
    for (std::int32_t& lane : v.lane) lane = x;
    return v;
}
PHI4FLASH_VECTOR_INLINE dot_sums dot_first(const code_vector& w, const signed_code_vector& x) { return detail::plain_dot(set_rows(0), w, x); }
PHI4FLASH_VECTOR_INLINE dot_sums dot_next(const dot_sums& sums, const code_vector& w, const signed_code_vector& x) {
    return detail::plain_dot(sums, w, x);
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(const dot_sums& sums) { return sums; }
inline constexpr int dense_activation_limit = 127;
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(rows_i32 total, const dot_sums& sums) {
    for (std::size_t r = 0; r < plain_rows; ++r) total.lane[r] += sums.lane[r];
    return total;
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_signed(const rows_i32& total, const signed_code_vector& w, const signed_code_vector& x) {
    return detail::plain_dot(total, w, x);
}

PHI4FLASH_VECTOR_INLINE rows_f32 zero_rows() { return {}; }
PHI4FLASH_VECTOR_INLINE rows_f32 load_scales(const f16* p) {
    rows_f32 v;
    for (std::size_t r = 0; r < plain_rows; ++r) v.lane[r] = to_f32(p[r]);
    return v;
}
PHI4FLASH_VECTOR_INLINE rows_f32 scale_sums(const rows_i32& sums, float scale, float offset) {
    rows_f32 v;
    for (std::size_t r = 0; r < plain_rows; ++r) v.lane[r] = detail::fused(static_cast<float>(sums.lane[r]), scale, offset);
    return v;
}
PHI4FLASH_VECTOR_INLINE rows_f32 mul_add_rows(const rows_f32& a, const rows_f32& b, rows_f32 c) {
    for (std::size_t r = 0; r < plain_rows; ++r) c.lane[r] = detail::fused(a.lane[r], b.lane[r], c.lane[r]);
    return c;
}
PHI4FLASH_VECTOR_INLINE rows_f32 load_rows(const float* p) {
    rows_f32 v;
    for (std::size_t r = 0; r < plain_rows; ++r) v.lane[r] = p[r];
    return v;
}
PHI4FLASH_VECTOR_INLINE void store_rows(const rows_f32& v, float* p) {
    for (std::size_t r = 0; r < plain_rows; ++r) p[r] = v.lane[r];
}

PHI4FLASH_TARGET_END
#endif

// ---- phi4flash/kernels/math-inl.hpp --------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

PHI4FLASH_VECTOR_INLINE f32_vector exp2_of(f32_vector x) {
    const f32_vector clamped = max_of(min_of(x, set(127.0f)), set(-126.0f));
    const f32_vector n = round_nearest(clamped);
    const f32_vector r = sub(clamped, n);
    f32_vector p = set(1.525273380e-5f);
    p = mul_add(p, r, set(1.540353039e-4f));
    p = mul_add(p, r, set(1.333355814e-3f));
    p = mul_add(p, r, set(9.618129107e-3f));
    p = mul_add(p, r, set(5.550410866e-2f));
    p = mul_add(p, r, set(2.402265070e-1f));
    p = mul_add(p, r, set(6.931471806e-1f));
    p = mul_add(p, r, set(1.0f));
    return scale_by_power_of_two(p, n);
}

PHI4FLASH_VECTOR_INLINE f32_vector exp_of(f32_vector x) {
    const f32_vector clamped = max_of(min_of(x, set(88.0f)), set(-87.3f));
    const f32_vector n = round_nearest(mul(clamped, set(1.442695041f)));
    f32_vector r = neg_mul_add(n, set(0.693359375f), clamped);
    r = neg_mul_add(n, set(-2.12194440e-4f), r);
    f32_vector p = set(1.984126984e-4f);
    p = mul_add(p, r, set(1.388888889e-3f));
    p = mul_add(p, r, set(8.333333333e-3f));
    p = mul_add(p, r, set(4.166666667e-2f));
    p = mul_add(p, r, set(1.666666667e-1f));
    p = mul_add(p, r, set(5.0e-1f));
    p = mul_add(p, r, set(1.0f));
    p = mul_add(p, r, set(1.0f));
    return scale_by_power_of_two(p, n);
}

PHI4FLASH_VECTOR_INLINE f32_vector silu_of(f32_vector x) { return div(x, add(set(1.0f), exp_of(sub(zero(), x)))); }

PHI4FLASH_VECTOR_INLINE f32_vector softplus_of(f32_vector x) {
    const f32_vector t = exp_of(sub(zero(), abs_of(x)));
    const f32_vector s = div(t, add(t, set(2.0f)));
    const f32_vector z = mul(s, s);
    f32_vector p = set(6.666666667e-2f);
    p = mul_add(p, z, set(7.692307692e-2f));
    p = mul_add(p, z, set(9.090909091e-2f));
    p = mul_add(p, z, set(1.111111111e-1f));
    p = mul_add(p, z, set(1.428571429e-1f));
    p = mul_add(p, z, set(2.0e-1f));
    p = mul_add(p, z, set(3.333333333e-1f));
    p = mul_add(p, z, set(1.0f));
    return mul_add(add(s, s), p, max_of(x, zero()));
}

PHI4FLASH_VECTOR_INLINE float mul_add_one(float a, float b, float c) {
    float out[max_lanes];
    store(mul_add(set(a), set(b), set(c)), out);
    return out[0];
}

template <class Element>
PHI4FLASH_VECTOR_INLINE f32_vector load_first(const Element* p, std::size_t n) {
    float buffer[max_lanes] = {};
    for (std::size_t i = 0; i < n; ++i) buffer[i] = to_f32(p[i]);
    return load(buffer);
}

template <class Element>
PHI4FLASH_VECTOR_INLINE void store_first(f32_vector v, Element* p, std::size_t n) {
    float buffer[max_lanes];
    store(v, buffer);
    for (std::size_t i = 0; i < n; ++i) p[i] = from_f32<Element>(buffer[i]);
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/linear-inl.hpp ------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

template <class Element>
PHI4FLASH_VECTOR_INLINE float dot(const Element* PHI4FLASH_RESTRICT a, const float* PHI4FLASH_RESTRICT b, std::size_t n) {
    const std::size_t lane_count = lanes();
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    f32_vector s2 = zero();
    f32_vector s3 = zero();
    std::size_t i = 0;
    for (; i + 4 * lane_count <= n; i += 4 * lane_count) {
        s0 = mul_add(load(a + i), load(b + i), s0);
        s1 = mul_add(load(a + i + lane_count), load(b + i + lane_count), s1);
        s2 = mul_add(load(a + i + 2 * lane_count), load(b + i + 2 * lane_count), s2);
        s3 = mul_add(load(a + i + 3 * lane_count), load(b + i + 3 * lane_count), s3);
    }
    for (; i + lane_count <= n; i += lane_count) s0 = mul_add(load(a + i), load(b + i), s0);
    if (i < n) s1 = mul_add(load_first(a + i, n - i), load_first(b + i, n - i), s1);
    return reduce_sum(add(add(s0, s1), add(s2, s3)));
}

PHI4FLASH_VECTOR_INLINE float dot_arranged(const bf16* PHI4FLASH_RESTRICT a, const float* PHI4FLASH_RESTRICT x, std::size_t n) {
    const std::size_t lane_count = lanes();
    const std::size_t step = 2 * lane_count;
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    f32_vector s2 = zero();
    f32_vector s3 = zero();
    f32_vector even;
    f32_vector odd;
    std::size_t i = 0;
    for (; i + 2 * step <= n; i += 2 * step) {
        load_even_odd(a + i, even, odd);
        s0 = mul_add(even, load(x + i), s0);
        s1 = mul_add(odd, load(x + i + lane_count), s1);
        load_even_odd(a + i + step, even, odd);
        s2 = mul_add(even, load(x + i + step), s2);
        s3 = mul_add(odd, load(x + i + step + lane_count), s3);
    }
    for (; i < n; i += step) {
        bf16 last[2 * max_lanes] = {};
        const bf16* block = a + i;
        if (i + step > n) {  // a ragged end: what lies behind it belongs to somebody else
            for (std::size_t j = i; j < n; ++j) last[j - i] = a[j];
            block = last;
        }
        load_even_odd(block, even, odd);
        s0 = mul_add(even, load(x + i), s0);
        s1 = mul_add(odd, load(x + i + lane_count), s1);
    }
    return reduce_sum(add(add(s0, s1), add(s2, s3)));
}

inline const std::byte* arrange_none(const float* x, std::size_t, std::size_t, std::size_t, std::byte*) { return reinterpret_cast<const std::byte*>(x); }

inline const std::byte* arrange_even_odd(const float* PHI4FLASH_RESTRICT x, std::size_t cols, std::size_t token, std::size_t, std::byte* scratch) {
    auto* PHI4FLASH_RESTRICT out = reinterpret_cast<float*>(scratch + token * arranged_bytes(cols));
    const std::size_t half = lanes();
    for (std::size_t i = 0; i < cols; i += 2 * half) {
        for (std::size_t j = 0; j < half; ++j) {
            out[i + j] = i + 2 * j < cols ? x[i + 2 * j] : 0.0f;
            out[i + half + j] = i + 2 * j + 1 < cols ? x[i + 2 * j + 1] : 0.0f;
        }
    }
    return scratch;
}

template <class Element>
inline void matvec(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* arranged, const float* bias, float* y) {
    const auto* x = reinterpret_cast<const float*>(arranged);
    const auto* row = reinterpret_cast<const Element*>(w);
    for (std::size_t r = 0; r < rows; ++r, row += cols) {
        float sum = 0.0f;
        if constexpr (dtype_of<Element> == dtype::bf16) {
            sum = dot_arranged(row, x, cols);
        } else {
            sum = dot(row, x, cols);
        }
        y[r] = bias == nullptr ? sum : sum + bias[r];
    }
}

template <class Element>
inline void widen(const std::byte* w, std::size_t cols, float* PHI4FLASH_RESTRICT out) {
    const auto* in = reinterpret_cast<const Element*>(w);
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= cols; i += lane_count) store(load(in + i), out + i);
    for (; i < cols; ++i) out[i] = to_f32(in[i]);
}

inline constexpr std::size_t panel_rows = 6;
inline constexpr std::size_t panel_cols = 1024;

PHI4FLASH_VECTOR_INLINE void tile_4x3(const float* PHI4FLASH_RESTRICT x, std::size_t x_stride, const float* PHI4FLASH_RESTRICT panel,
                                      std::size_t n, float* y, std::size_t y_stride) {
    const std::size_t lane_count = lanes();
    const float* x1 = x + x_stride;
    const float* x2 = x1 + x_stride;
    const float* x3 = x2 + x_stride;
    const float* w1 = panel + panel_cols;
    const float* w2 = w1 + panel_cols;
    f32_vector s00 = zero(), s01 = zero(), s02 = zero();
    f32_vector s10 = zero(), s11 = zero(), s12 = zero();
    f32_vector s20 = zero(), s21 = zero(), s22 = zero();
    f32_vector s30 = zero(), s31 = zero(), s32 = zero();
    for (std::size_t i = 0; i < n; i += lane_count) {  // n is a multiple of lane_count
        const f32_vector a = load(panel + i);
        const f32_vector b = load(w1 + i);
        const f32_vector c = load(w2 + i);
        f32_vector t = load(x + i);
        s00 = mul_add(t, a, s00), s01 = mul_add(t, b, s01), s02 = mul_add(t, c, s02);
        t = load(x1 + i);
        s10 = mul_add(t, a, s10), s11 = mul_add(t, b, s11), s12 = mul_add(t, c, s12);
        t = load(x2 + i);
        s20 = mul_add(t, a, s20), s21 = mul_add(t, b, s21), s22 = mul_add(t, c, s22);
        t = load(x3 + i);
        s30 = mul_add(t, a, s30), s31 = mul_add(t, b, s31), s32 = mul_add(t, c, s32);
    }
    y[0] += reduce_sum(s00), y[1] += reduce_sum(s01), y[2] += reduce_sum(s02);
    y += y_stride;
    y[0] += reduce_sum(s10), y[1] += reduce_sum(s11), y[2] += reduce_sum(s12);
    y += y_stride;
    y[0] += reduce_sum(s20), y[1] += reduce_sum(s21), y[2] += reduce_sum(s22);
    y += y_stride;
    y[0] += reduce_sum(s30), y[1] += reduce_sum(s31), y[2] += reduce_sum(s32);
}

PHI4FLASH_VECTOR_INLINE void tile_1x1(const float* PHI4FLASH_RESTRICT x, const float* PHI4FLASH_RESTRICT panel, std::size_t n, float* y) {
    f32_vector sum = zero();
    for (std::size_t i = 0; i < n; i += lanes()) sum = mul_add(load(x + i), load(panel + i), sum);
    *y += reduce_sum(sum);
}

PHI4FLASH_VECTOR_INLINE void multiply_panel(const float* x, std::size_t x_stride, std::size_t tokens, const float* panel, std::size_t rows,
                                            std::size_t n, float* y, std::size_t y_stride) {
    std::size_t t = 0;
    for (; t + 4 <= tokens; t += 4) {
        std::size_t r = 0;
        for (; r + 3 <= rows; r += 3) tile_4x3(x + t * x_stride, x_stride, panel + r * panel_cols, n, y + t * y_stride + r, y_stride);
        for (; r < rows; ++r) {
            for (std::size_t k = t; k < t + 4; ++k) tile_1x1(x + k * x_stride, panel + r * panel_cols, n, y + k * y_stride + r);
        }
    }
    for (; t < tokens; ++t) {
        for (std::size_t r = 0; r < rows; ++r) tile_1x1(x + t * x_stride, panel + r * panel_cols, n, y + t * y_stride + r);
    }
}

template <class Element>
inline void matmul(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x_bytes, std::size_t x_stride, std::size_t tokens,
                   const float* bias, float* y, std::size_t y_stride) {
    const auto* x = reinterpret_cast<const float*>(x_bytes);
    alignas(64) float panel[panel_rows * panel_cols];
    const std::size_t lane_count = lanes();
    const std::size_t whole_cols = cols / lane_count * lane_count;
    for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t r = 0; r < rows; ++r) y[t * y_stride + r] = bias == nullptr ? 0.0f : bias[r];
    }
    for (std::size_t r0 = 0; r0 < rows; r0 += panel_rows) {
        const std::size_t row_count = rows - r0 < panel_rows ? rows - r0 : panel_rows;
        for (std::size_t c0 = 0; c0 < whole_cols; c0 += panel_cols) {
            const std::size_t n = whole_cols - c0 < panel_cols ? whole_cols - c0 : panel_cols;
            for (std::size_t r = 0; r < row_count; ++r)
                widen<Element>(w + ((r0 + r) * cols + c0) * sizeof(Element), n, panel + r * panel_cols);
            multiply_panel(x + c0, x_stride, tokens, panel, row_count, n, y + r0, y_stride);
        }
        for (std::size_t r = 0; r < row_count && whole_cols < cols; ++r) {
            const auto* row = reinterpret_cast<const Element*>(w) + (r0 + r) * cols;
            for (std::size_t t = 0; t < tokens; ++t) {
                float sum = 0.0f;
                for (std::size_t c = whole_cols; c < cols; ++c) sum += to_f32(row[c]) * x[t * x_stride + c];
                y[t * y_stride + r0 + r] += sum;
            }
        }
    }
}

template <class Element>
inline void widen_row(const std::byte* w, std::size_t r, std::size_t cols, float* out) {
    widen<Element>(w + r * cols * sizeof(Element), cols, out);
}

template <class Element>
inline void narrow(const float* PHI4FLASH_RESTRICT x, std::size_t n, std::byte* PHI4FLASH_RESTRICT out) {
    auto* to = reinterpret_cast<Element*>(out);
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(load(x + i), to + i);
    for (; i < n; ++i) to[i] = from_f32<Element>(x[i]);
}

inline float read_all(const std::byte* data, std::size_t bytes) {
    const auto* p = reinterpret_cast<const bf16*>(data);
    const std::size_t step = 4 * lanes();
    const std::size_t count = bytes / sizeof(bf16);
    f32_vector s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
    f32_vector even;
    f32_vector odd;
    std::size_t i = 0;
    for (; i + step <= count; i += step) {
        load_even_odd(p + i, even, odd);
        s0 = add(s0, even), s1 = add(s1, odd);
        load_even_odd(p + i + step / 2, even, odd);
        s2 = add(s2, even), s3 = add(s3, odd);
    }
    float rest = 0.0f;
    for (; i < count; ++i) rest += to_f32(p[i]);
    return reduce_sum(add(add(s0, s1), add(s2, s3))) + rest;
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/elementwise-inl.hpp -------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline void accumulate(const float* PHI4FLASH_RESTRICT x, std::size_t n, float* PHI4FLASH_RESTRICT y) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(add(load(y + i), load(x + i)), y + i);
    for (; i < n; ++i) y[i] += x[i];
}

inline void silu_mul(const float* gate, const float* x, std::size_t n, float* y) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(mul(silu_of(load(gate + i)), load(x + i)), y + i);
    if (i < n) store_first(mul(silu_of(load_first(gate + i, n - i)), load_first(x + i, n - i)), y + i, n - i);
}

inline void softplus(const float* x, std::size_t n, float* y) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(softplus_of(load(x + i)), y + i);
    if (i < n) store_first(softplus_of(load_first(x + i, n - i)), y + i, n - i);
}

PHI4FLASH_VECTOR_INLINE float sum_of_squares(const float* x, float shift, std::size_t n) {
    const std::size_t lane_count = lanes();
    const f32_vector c = set(shift);
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    std::size_t i = 0;
    for (; i + 2 * lane_count <= n; i += 2 * lane_count) {
        const f32_vector a = sub(load(x + i), c);
        const f32_vector b = sub(load(x + i + lane_count), c);
        s0 = mul_add(a, a, s0);
        s1 = mul_add(b, b, s1);
    }
    float rest = 0.0f;
    for (; i < n; ++i) rest += (x[i] - shift) * (x[i] - shift);
    return reduce_sum(add(s0, s1)) + rest;
}

PHI4FLASH_VECTOR_INLINE float sum_of(const float* x, std::size_t n) {
    const std::size_t lane_count = lanes();
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    std::size_t i = 0;
    for (; i + 2 * lane_count <= n; i += 2 * lane_count) {
        s0 = add(s0, load(x + i));
        s1 = add(s1, load(x + i + lane_count));
    }
    float rest = 0.0f;
    for (; i < n; ++i) rest += x[i];
    return reduce_sum(add(s0, s1)) + rest;
}

inline void layer_norm(const float* x, const float* weight, const float* bias, float eps, std::size_t n, float* y) {
    const auto count = static_cast<float>(n);
    const float mean = sum_of(x, n) / count;
    const float inverse = 1.0f / std::sqrt(sum_of_squares(x, mean, n) / count + eps);
    const std::size_t lane_count = lanes();
    const f32_vector m = set(mean);
    const f32_vector s = set(inverse);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count)
        store(mul_add(mul(sub(load(x + i), m), s), load(weight + i), load(bias + i)), y + i);
    for (; i < n; ++i) y[i] = (x[i] - mean) * inverse * weight[i] + bias[i];
}

inline void rms_norm(const float* x, const float* weight, float eps, std::size_t n, float* y) {
    const float inverse = 1.0f / std::sqrt(sum_of_squares(x, 0.0f, n) / static_cast<float>(n) + eps);
    const std::size_t lane_count = lanes();
    const f32_vector s = set(inverse);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(mul(mul(load(x + i), s), load(weight + i)), y + i);
    for (; i < n; ++i) y[i] = x[i] * inverse * weight[i];
}

inline void difference_norm(const float* first, const float* second, float lambda, const float* weight, float eps, std::size_t n,
                            float* y) {
    const std::size_t lane_count = lanes();
    const f32_vector l = set(lambda);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(neg_mul_add(l, load(second + i), load(first + i)), y + i);
    for (; i < n; ++i) y[i] = first[i] - lambda * second[i];
    rms_norm(y, weight, eps, n, y);
}

inline void softmax(float* x, std::size_t n, float inverse_temperature) {
    if (n == 0) return;
    const std::size_t lane_count = lanes();
    float highest = x[0];
    std::size_t i = 0;
    if (n >= lane_count) {
        f32_vector m = load(x);
        for (; i + lane_count <= n; i += lane_count) m = max_of(m, load(x + i));
        highest = reduce_max(m);
    }
    for (; i < n; ++i) highest = x[i] > highest ? x[i] : highest;

    const f32_vector shift = set(highest);
    const f32_vector scale = set(inverse_temperature);
    f32_vector sums = zero();
    for (i = 0; i + lane_count <= n;) {
        f32_vector part = zero();
        for (std::size_t k = 0; k < 256 && i + lane_count <= n; ++k, i += lane_count) {
            const f32_vector e = exp_of(mul(sub(load(x + i), shift), scale));
            store(e, x + i);
            part = add(part, e);
        }
        sums = add(sums, part);
    }
    float sum = reduce_sum(sums);
    if (i < n) {
        store_first(exp_of(mul(sub(load_first(x + i, n - i), shift), scale)), x + i, n - i);
        for (; i < n; ++i) sum += x[i];
    }
    const f32_vector inverse = set(1.0f / sum);
    for (i = 0; i + lane_count <= n; i += lane_count) store(mul(load(x + i), inverse), x + i);
    for (; i < n; ++i) x[i] /= sum;
}

inline void rotate(float* x, const float* cosine, const float* sine, std::size_t half) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= half; i += lane_count) {
        const f32_vector a = load(x + i);
        const f32_vector b = load(x + half + i);
        const f32_vector c = load(cosine + i);
        const f32_vector s = load(sine + i);
        store(neg_mul_add(b, s, mul(a, c)), x + i);
        store(mul_add(a, s, mul(b, c)), x + half + i);
    }
    for (; i < half; ++i) {
        const float a = x[i];
        const float b = x[half + i];
        x[i] = a * cosine[i] - b * sine[i];
        x[half + i] = a * sine[i] + b * cosine[i];
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/mamba-inl.hpp -------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline void convolution(const convolution_args& args, std::size_t channel_begin, std::size_t channel_end) {
    const std::size_t lane_count = lanes();
    const std::size_t history = args.d_conv - 1;
    for (std::size_t t = 0; t < args.tokens; ++t) {
        float* y = args.y + t * args.y_stride;
        for (std::size_t c = channel_begin; c < channel_end; c += lane_count) {
            const std::size_t n = channel_end - c < lane_count ? channel_end - c : lane_count;
            const bool whole = n == lane_count;
            f32_vector sum = whole ? load(args.bias + c) : load_first(args.bias + c, n);
            for (std::size_t j = 0; j < args.d_conv; ++j) {
                const std::size_t time = t + j;
                const float* x = time < history ? args.state + time * args.d_inner : args.x + (time - history) * args.x_stride;
                const float* w = args.weight + j * args.d_inner;
                sum = whole ? mul_add(load(x + c), load(w + c), sum) : mul_add(load_first(x + c, n), load_first(w + c, n), sum);
            }
            if (whole) {
                store(silu_of(sum), y + c);
            } else {
                store_first(silu_of(sum), y + c, n);
            }
        }
    }
    for (std::size_t j = 0; j < history; ++j) {
        const std::size_t time = args.tokens + j;
        const float* from = time < history ? args.state + time * args.d_inner : args.x + (time - history) * args.x_stride;
        float* to = args.state + j * args.d_inner;
        for (std::size_t c = channel_begin; c < channel_end; ++c) to[c] = from[c];
    }
}

PHI4FLASH_VECTOR_INLINE f32_vector scan_vector(const float* a, float* h, const float* b, const float* c, std::size_t d_state, f32_vector dt,
                                               f32_vector dt_u) {
    f32_vector y0 = zero();
    f32_vector y1 = zero();
    std::size_t n = 0;
    for (; n + 2 <= d_state; n += 2) {
        float* h0 = h + n * channel_block;
        float* h1 = h0 + channel_block;
        const f32_vector next0 = mul_add(exp2_of(mul(dt, load(a + n * channel_block))), load(h0), mul(dt_u, set(b[n])));
        const f32_vector next1 = mul_add(exp2_of(mul(dt, load(a + (n + 1) * channel_block))), load(h1), mul(dt_u, set(b[n + 1])));
        store(next0, h0);
        store(next1, h1);
        y0 = mul_add(next0, set(c[n]), y0);
        y1 = mul_add(next1, set(c[n + 1]), y1);
    }
    for (; n < d_state; ++n) {
        float* h0 = h + n * channel_block;
        const f32_vector next = mul_add(exp2_of(mul(dt, load(a + n * channel_block))), load(h0), mul(dt_u, set(b[n])));
        store(next, h0);
        y0 = mul_add(next, set(c[n]), y0);
    }
    return add(y0, y1);
}

inline void scan(const scan_args& args, std::size_t block_begin, std::size_t block_end) {
    const std::size_t lane_count = lanes();
    for (std::size_t block = block_begin; block < block_end; ++block) {
        const std::size_t first = block * channel_block;
        const std::size_t width = args.d_inner - first < channel_block ? args.d_inner - first : channel_block;
        const float* a = args.a_log2e + first * args.d_state;
        float* h = args.h + first * args.d_state;
        for (std::size_t t = 0; t < args.tokens; ++t) {
            const float* b = args.b + t * args.bc_stride;
            const float* c = args.c + t * args.bc_stride;
            for (std::size_t i = 0; i < width; i += lane_count) {
                const std::size_t channel = first + i;
                const std::size_t at = t * args.d_inner + channel;
                const std::size_t n = width - i < lane_count ? width - i : lane_count;
                if (n == lane_count) {
                    const f32_vector dt = load(args.dt + at);
                    const f32_vector u = load(args.u + at);
                    const f32_vector sum = scan_vector(a + i, h + i, b, c, args.d_state, dt, mul(dt, u));
                    store(mul_add(load(args.d + channel), u, sum), args.y + at);
                } else {  // A and h are zero behind the last channel, so whole vectors of them are safe
                    const f32_vector dt = load_first(args.dt + at, n);
                    const f32_vector u = load_first(args.u + at, n);
                    const f32_vector sum = scan_vector(a + i, h + i, b, c, args.d_state, dt, mul(dt, u));
                    store_first(mul_add(load_first(args.d + channel, n), u, sum), args.y + at, n);
                }
            }
        }
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/attention-inl.hpp ---------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline constexpr std::size_t tile_keys = 32;
inline constexpr std::size_t tile_floats = 4096;
inline constexpr std::size_t row_block = 64;
inline constexpr float lowest_score = -3.0e38f;

template <class Element>
PHI4FLASH_VECTOR_INLINE void tile_scores(const float* PHI4FLASH_RESTRICT q, const Element* PHI4FLASH_RESTRICT k, std::size_t width,
                                         std::size_t d_head, std::size_t begin, std::size_t end, float scale,
                                         float* PHI4FLASH_RESTRICT scores) {
    const std::size_t lane_count = lanes();
    const std::size_t whole = d_head / lane_count * lane_count;
    std::size_t j = begin;
    for (; j + 4 <= end && whole == d_head; j += 4) {
        const Element* k0 = k + j * width;
        const Element* k1 = k0 + width;
        const Element* k2 = k1 + width;
        const Element* k3 = k2 + width;
        f32_vector s0 = zero();
        f32_vector s1 = zero();
        f32_vector s2 = zero();
        f32_vector s3 = zero();
        for (std::size_t i = 0; i < whole; i += lane_count) {
            const f32_vector x = load(q + i);
            s0 = mul_add(x, load(k0 + i), s0);
            s1 = mul_add(x, load(k1 + i), s1);
            s2 = mul_add(x, load(k2 + i), s2);
            s3 = mul_add(x, load(k3 + i), s3);
        }
        scores[j] = scale * reduce_sum(s0);
        scores[j + 1] = scale * reduce_sum(s1);
        scores[j + 2] = scale * reduce_sum(s2);
        scores[j + 3] = scale * reduce_sum(s3);
    }
    for (; j < end; ++j) {
        f32_vector s = zero();
        for (std::size_t i = 0; i < whole; i += lane_count) s = mul_add(load(q + i), load(k + j * width + i), s);
        if (whole < d_head) s = mul_add(load_first(q + whole, d_head - whole), load_first(k + j * width + whole, d_head - whole), s);
        scores[j] = scale * reduce_sum(s);
    }
}

template <class Element>
PHI4FLASH_VECTOR_INLINE void tile_values(const float* PHI4FLASH_RESTRICT p, const Element* PHI4FLASH_RESTRICT v, std::size_t width,
                                         std::size_t begin, std::size_t end, float correction, float* PHI4FLASH_RESTRICT out) {
    const std::size_t lane_count = lanes();
    const f32_vector keep = set(correction);
    std::size_t i = 0;
    for (; i + 4 * lane_count <= width; i += 4 * lane_count) {
        f32_vector o0 = mul(keep, load(out + i));
        f32_vector o1 = mul(keep, load(out + i + lane_count));
        f32_vector o2 = mul(keep, load(out + i + 2 * lane_count));
        f32_vector o3 = mul(keep, load(out + i + 3 * lane_count));
        for (std::size_t j = begin; j < end; ++j) {
            const f32_vector weight = set(p[j]);
            const Element* row = v + j * width + i;
            o0 = mul_add(weight, load(row), o0);
            o1 = mul_add(weight, load(row + lane_count), o1);
            o2 = mul_add(weight, load(row + 2 * lane_count), o2);
            o3 = mul_add(weight, load(row + 3 * lane_count), o3);
        }
        store(o0, out + i);
        store(o1, out + i + lane_count);
        store(o2, out + i + 2 * lane_count);
        store(o3, out + i + 3 * lane_count);
    }
    for (; i + lane_count <= width; i += lane_count) {
        f32_vector o = mul(keep, load(out + i));
        for (std::size_t j = begin; j < end; ++j) o = mul_add(set(p[j]), load(v + j * width + i), o);
        store(o, out + i);
    }
    if (i < width) {
        f32_vector o = mul(keep, load_first(out + i, width - i));
        for (std::size_t j = begin; j < end; ++j) o = mul_add(set(p[j]), load_first(v + j * width + i, width - i), o);
        store_first(o, out + i, width - i);
    }
}

struct attention_row {
    const float* q;
    float* out;
    std::size_t key_head;        ///< within the group
    std::size_t position;
    std::size_t first_visible;   ///< position
    float slope;
    float maximum;
    float sum;
};

template <class Element>
PHI4FLASH_VECTOR_INLINE void attend_tile(const attention_args& args, attention_row& row, const Element* k, const Element* v,
                                         std::size_t tile_position, std::size_t begin, std::size_t end) {
    const std::size_t width = args.k_per_group * args.d_head;
    const std::size_t lane_count = lanes();
    float scores[tile_keys + max_lanes];
    for (std::size_t j = 0; j < tile_keys; ++j) scores[j] = lowest_score;
    tile_scores(row.q, k + row.key_head * args.d_head, width, args.d_head, begin, end, args.scale, scores);
    if (row.slope != 0.0f) {
        for (std::size_t j = begin; j < end; ++j)
            scores[j] = mul_add_one(-row.slope, static_cast<float>(row.position - (tile_position + j)), scores[j]);
    }
    float highest = row.maximum;
    for (std::size_t j = begin; j < end; ++j) highest = scores[j] > highest ? scores[j] : highest;
    const f32_vector shift = set(highest);
    f32_vector sums = zero();
    const std::size_t first = begin / lane_count * lane_count;
    for (std::size_t j = first; j < end; j += lane_count) {
        const f32_vector e = exp_of(sub(load(scores + j), shift));
        store(e, scores + j);
    }
    float rest = 0.0f;
    std::size_t j = begin;
    for (; j < end && j % lane_count != 0; ++j) rest += scores[j];
    for (; j + lane_count <= end; j += lane_count) sums = add(sums, load(scores + j));
    for (; j < end; ++j) rest += scores[j];
    float shrink[max_lanes];
    store(exp_of(set(row.maximum - highest)), shrink);
    const float correction = row.maximum == lowest_score ? 0.0f : shrink[0];
    row.maximum = highest;
    row.sum = mul_add_one(row.sum, correction, reduce_sum(sums) + rest);
    tile_values(scores, v, width, begin, end, correction, row.out);
}

inline void visible_keys(const attention_row& row, std::size_t position, std::size_t count, std::size_t& begin, std::size_t& end) {
    begin = row.first_visible > position ? row.first_visible - position : 0;
    end = row.position < position ? 0 : row.position - position + 1;
    end = end < count ? end : count;
}

template <class Element>
inline void attend_segment(const attention_args& args, std::size_t group, attention_row* rows, std::size_t n_rows,
                           const kv_segment& segment) {
    const std::size_t width = args.k_per_group * args.d_head;
    const auto* k = reinterpret_cast<const Element*>(segment.k) + group * segment.group_rows * width;
    const auto* v = reinterpret_cast<const Element*>(segment.v) + group * segment.group_rows * width;
    const std::size_t earliest = rows[0].first_visible;
    const std::size_t latest = rows[n_rows - 1].position;
    if (latest < segment.first_position || earliest >= segment.first_position + segment.count) return;
    const std::size_t wide_step = width * tile_keys <= tile_floats ? tile_keys : tile_floats / width;
    const bool can_widen = dtype_of<Element> != dtype::f32 && wide_step >= 4;
    const std::size_t tile_step = can_widen ? wide_step : tile_keys;
    const std::size_t first_key = earliest > segment.first_position ? earliest - segment.first_position : 0;
    const std::size_t start = first_key / tile_step * tile_step;
    const std::size_t stop = latest - segment.first_position + 1 < segment.count ? latest - segment.first_position + 1 : segment.count;
    const bool widened = can_widen && n_rows > 2 * args.k_per_group * args.queries_per_key;
    alignas(64) float wide_k[dtype_of<Element> == dtype::f32 ? 1 : tile_floats];
    alignas(64) float wide_v[dtype_of<Element> == dtype::f32 ? 1 : tile_floats];
    for (std::size_t j = start; j < stop; j += tile_step) {
        const std::size_t count = stop - j < tile_step ? stop - j : tile_step;
        const std::size_t position = segment.first_position + j;
        if (widened) {
            widen<Element>(reinterpret_cast<const std::byte*>(k + j * width), count * width, wide_k);
            widen<Element>(reinterpret_cast<const std::byte*>(v + j * width), count * width, wide_v);
        }
        for (std::size_t r = 0; r < n_rows; ++r) {
            std::size_t begin = 0;
            std::size_t end = 0;
            visible_keys(rows[r], position, count, begin, end);
            if (begin >= end) continue;
            if (widened) {
                attend_tile<float>(args, rows[r], wide_k, wide_v, position, begin, end);
            } else {
                attend_tile<Element>(args, rows[r], k + j * width, v + j * width, position, begin, end);
            }
        }
    }
}

template <class Element>
inline void attention(const attention_args& args, std::size_t group, std::size_t token_begin, std::size_t token_end,
                      const kv_segment* segments, std::size_t n_segments) {
    const std::size_t width = args.k_per_group * args.d_head;
    const std::size_t heads = args.k_per_group * args.queries_per_key;  // query heads of this group
    attention_row rows[row_block];
    const std::size_t total = (token_end - token_begin) * heads;
    for (std::size_t first = 0; first < total; first += row_block) {
        const std::size_t n_rows = total - first < row_block ? total - first : row_block;
        for (std::size_t i = 0; i < n_rows; ++i) {
            const std::size_t token = token_begin + (first + i) / heads;
            const std::size_t head_in_group = (first + i) % heads;
            const std::size_t head = group * heads + head_in_group;
            attention_row& row = rows[i];
            row.q = args.q + token * args.q_stride + head * args.d_head;
            row.out = args.out + token * args.out_stride + head * width;
            row.key_head = head_in_group % args.k_per_group;
            row.position = args.first_position + token;
            row.first_visible = row.position >= args.window ? row.position - args.window + 1 : 0;
            row.slope = args.slopes == nullptr ? 0.0f : args.slopes[head];
            row.maximum = lowest_score;
            row.sum = 0.0f;
            for (std::size_t c = 0; c < width; ++c) row.out[c] = 0.0f;
        }
        for (std::size_t s = 0; s < n_segments; ++s) attend_segment<Element>(args, group, rows, n_rows, segments[s]);
        const std::size_t lane_count = lanes();
        for (std::size_t i = 0; i < n_rows; ++i) {
            const float inverse = 1.0f / rows[i].sum;  // a token sees itself, so the sum is at least 1
            std::size_t c = 0;
            for (; c + lane_count <= width; c += lane_count) store(mul(load(rows[i].out + c), set(inverse)), rows[i].out + c);
            for (; c < width; ++c) rows[i].out[c] *= inverse;
        }
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/packed-inl.hpp ------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

template <int Limit, int Zero>
inline const std::byte* arrange_int8(const float* PHI4FLASH_RESTRICT x, std::size_t cols, std::size_t token, std::size_t tokens,
                                     std::byte* scratch) {
    auto* groups = reinterpret_cast<activation_group*>(scratch) + token;
    const std::size_t lane_count = lanes();
    for (std::size_t g = 0; g < cols / packed_cols; ++g, groups += tokens) {
        const float* group = x + g * packed_cols;
        f32_vector highest = zero();
        for (std::size_t i = 0; i < packed_cols; i += lane_count) highest = max_of(highest, abs_of(load(group + i)));
        const float most = reduce_max(highest);
        const f32_vector inverse = set(most > 0.0f ? static_cast<float>(Limit) / most : 0.0f);
        float rounded[packed_cols];
        f32_vector sums = zero();
        for (std::size_t i = 0; i < packed_cols; i += lane_count) {
            const f32_vector q = round_nearest(mul(load(group + i), inverse));
            store(q, rounded + i);
            sums = add(sums, q);
        }
        for (std::size_t i = 0; i < packed_cols; ++i) groups->q[i] = static_cast<std::int8_t>(rounded[i]);
        groups->scale = most / static_cast<float>(Limit);
        groups->offset = static_cast<float>(-Zero) * groups->scale * reduce_sum(sums);
    }
    return scratch;
}

PHI4FLASH_VECTOR_INLINE rows_f32 add_group(rows_i32 sums, rows_f32 scales, const activation_group& x, rows_f32 total) {
    return mul_add_rows(scales, scale_sums(sums, x.scale, x.offset), total);
}

#define PHI4FLASH_UNPACK_Q4(block, row)                                          \
    const code_vector codes0 = load_codes((block).code[0] + 4 * (row));          \
    const code_vector codes1 = load_codes((block).code[1] + 4 * (row));          \
    const code_vector codes2 = load_codes((block).code[2] + 4 * (row));          \
    const code_vector codes3 = load_codes((block).code[3] + 4 * (row));          \
    const code_vector w0 = q4_levels<Dense>(levels, low_codes(codes0));          \
    const code_vector w1 = q4_levels<Dense>(levels, low_codes(codes1));          \
    const code_vector w2 = q4_levels<Dense>(levels, low_codes(codes2));          \
    const code_vector w3 = q4_levels<Dense>(levels, low_codes(codes3));          \
    const code_vector w4 = q4_levels<Dense>(levels, high_codes(codes0));         \
    const code_vector w5 = q4_levels<Dense>(levels, high_codes(codes1));         \
    const code_vector w6 = q4_levels<Dense>(levels, high_codes(codes2));         \
    const code_vector w7 = q4_levels<Dense>(levels, high_codes(codes3));         \
    static_assert(true)

template <bool Dense>
PHI4FLASH_VECTOR_INLINE code_vector q4_levels(code_vector levels, code_vector codes) {
    if constexpr (Dense) {
        return levels_of(levels, codes);
    } else {
        return codes;
    }
}

template <bool Dense>
PHI4FLASH_VECTOR_INLINE rows_i32 q4_dot(code_vector w0, code_vector w1, code_vector w2, code_vector w3, code_vector w4, code_vector w5,
                                        code_vector w6, code_vector w7, const std::int8_t* x) {
    dot_sums a = dot_next(dot_next(dot_next(dot_first(w0, broadcast_four(x)), w1, broadcast_four(x + 4)), w2, broadcast_four(x + 8)), w3,
                          broadcast_four(x + 12));
    if constexpr (Dense) {
        const dot_sums b = dot_next(dot_next(dot_next(dot_first(w4, broadcast_four(x + 16)), w5, broadcast_four(x + 20)), w6, broadcast_four(x + 24)),
                                    w7, broadcast_four(x + 28));
        return dot_fold(dot_fold(a), b);
    } else {
        a = dot_next(dot_next(dot_next(dot_next(a, w4, broadcast_four(x + 16)), w5, broadcast_four(x + 20)), w6, broadcast_four(x + 24)), w7,
                     broadcast_four(x + 28));
        return dot_fold(a);
    }
}

PHI4FLASH_VECTOR_INLINE void dot_first_four(code_vector w, const activation_group* x, std::size_t at, dot_sums& a, dot_sums& b, dot_sums& c,
                                            dot_sums& d) {
    a = dot_first(w, broadcast_four(x[0].q + at));
    b = dot_first(w, broadcast_four(x[1].q + at));
    c = dot_first(w, broadcast_four(x[2].q + at));
    d = dot_first(w, broadcast_four(x[3].q + at));
}
PHI4FLASH_VECTOR_INLINE void dot_next_four(code_vector w, const activation_group* x, std::size_t at, dot_sums& a, dot_sums& b, dot_sums& c,
                                           dot_sums& d) {
    a = dot_next(a, w, broadcast_four(x[0].q + at));
    b = dot_next(b, w, broadcast_four(x[1].q + at));
    c = dot_next(c, w, broadcast_four(x[2].q + at));
    d = dot_next(d, w, broadcast_four(x[3].q + at));
}

PHI4FLASH_VECTOR_INLINE void add_group_to(float* sum, rows_i32 dots, rows_f32 scales, const activation_group& x) {
    store_rows(add_group(dots, scales, x, load_rows(sum)), sum);
}

template <bool Dense>
PHI4FLASH_VECTOR_INLINE void q4_dot_four(code_vector w0, code_vector w1, code_vector w2, code_vector w3, code_vector w4, code_vector w5,
                                         code_vector w6, code_vector w7, const activation_group* x, rows_f32 scales, float* sums) {
    dot_sums a, b, c, d;
    dot_first_four(w0, x, 0, a, b, c, d);
    dot_next_four(w1, x, 4, a, b, c, d);
    dot_next_four(w2, x, 8, a, b, c, d);
    dot_next_four(w3, x, 12, a, b, c, d);
    if constexpr (Dense) {
        dot_sums e, f, g, h;
        dot_first_four(w4, x, 16, e, f, g, h);
        dot_next_four(w5, x, 20, e, f, g, h);
        dot_next_four(w6, x, 24, e, f, g, h);
        dot_next_four(w7, x, 28, e, f, g, h);
        add_group_to(sums, dot_fold(dot_fold(a), e), scales, x[0]);
        add_group_to(sums + packed_rows, dot_fold(dot_fold(b), f), scales, x[1]);
        add_group_to(sums + 2 * packed_rows, dot_fold(dot_fold(c), g), scales, x[2]);
        add_group_to(sums + 3 * packed_rows, dot_fold(dot_fold(d), h), scales, x[3]);
    } else {
        dot_next_four(w4, x, 16, a, b, c, d);
        dot_next_four(w5, x, 20, a, b, c, d);
        dot_next_four(w6, x, 24, a, b, c, d);
        dot_next_four(w7, x, 28, a, b, c, d);
        add_group_to(sums, dot_fold(a), scales, x[0]);
        add_group_to(sums + packed_rows, dot_fold(b), scales, x[1]);
        add_group_to(sums + 2 * packed_rows, dot_fold(c), scales, x[2]);
        add_group_to(sums + 3 * packed_rows, dot_fold(d), scales, x[3]);
    }
}

PHI4FLASH_VECTOR_INLINE rows_i32 q8_dot(const q8_block& block, std::size_t row, const std::int8_t* x) {
    rows_i32 total = set_rows(0);
    for (std::size_t s = 0; s < 8; ++s) total = dot_signed(total, load_codes(block.code[s] + 4 * row), broadcast_four(x + 4 * s));
    return total;
}

PHI4FLASH_VECTOR_INLINE void q8_dot_four(const q8_block& block, std::size_t row, const activation_group* x, rows_f32 scales, float* sums) {
    rows_i32 a = set_rows(0);
    rows_i32 b = set_rows(0);
    rows_i32 c = set_rows(0);
    rows_i32 d = set_rows(0);
    for (std::size_t s = 0; s < 8; ++s) {
        const signed_code_vector w = load_codes(block.code[s] + 4 * row);
        a = dot_signed(a, w, broadcast_four(x[0].q + 4 * s));
        b = dot_signed(b, w, broadcast_four(x[1].q + 4 * s));
        c = dot_signed(c, w, broadcast_four(x[2].q + 4 * s));
        d = dot_signed(d, w, broadcast_four(x[3].q + 4 * s));
    }
    add_group_to(sums, a, scales, x[0]);
    add_group_to(sums + packed_rows, b, scales, x[1]);
    add_group_to(sums + 2 * packed_rows, c, scales, x[2]);
    add_group_to(sums + 3 * packed_rows, d, scales, x[3]);
}

PHI4FLASH_VECTOR_INLINE void put_rows(rows_f32 v, const float* bias, float* y) {
    store_rows(v, y);
    for (std::size_t r = 0; bias != nullptr && r < rows_lanes(); ++r) y[r] += bias[r];
}

inline constexpr std::size_t packed_tokens = 32;

inline constexpr std::size_t packed_panel = 128;

template <dtype Format>
PHI4FLASH_VECTOR_INLINE void packed_row_tile(const std::byte* w, std::size_t groups, std::size_t row, const activation_group* x,
                                             std::size_t group_stride, std::size_t tokens, bool first, const float* bias, float* y, std::size_t y_stride) {
    constexpr bool Dense = Format == dtype::q4_dense;
    [[maybe_unused]] const code_vector levels = load_levels(q4_dense.level);
    float sums[packed_tokens * packed_rows];
    for (std::size_t t = 0; t < tokens; ++t) store_rows(first ? zero_rows() : load_rows(y + t * y_stride), sums + t * packed_rows);
    for (std::size_t g = 0; g < groups; ++g, x += group_stride) {
        if constexpr (Format == dtype::q8) {
            const q8_block& block = reinterpret_cast<const q8_block*>(w)[g];
            const rows_f32 scales = load_scales(block.scale + row);
            std::size_t t = 0;
            for (; t + 4 <= tokens; t += 4) q8_dot_four(block, row, x + t, scales, sums + t * packed_rows);
            for (; t < tokens; ++t) add_group_to(sums + t * packed_rows, q8_dot(block, row, x[t].q), scales, x[t]);
        } else {
            const q4_block& block = reinterpret_cast<const q4_block*>(w)[g];
            PHI4FLASH_UNPACK_Q4(block, row);
            const rows_f32 scales = load_scales(block.scale + row);
            std::size_t t = 0;
            for (; t + 4 <= tokens; t += 4) q4_dot_four<Dense>(w0, w1, w2, w3, w4, w5, w6, w7, x + t, scales, sums + t * packed_rows);
            for (; t < tokens; ++t)
                add_group_to(sums + t * packed_rows, q4_dot<Dense>(w0, w1, w2, w3, w4, w5, w6, w7, x[t].q), scales, x[t]);
        }
    }
    for (std::size_t t = 0; t < tokens; ++t) put_rows(load_rows(sums + t * packed_rows), bias, y + t * y_stride);
}

template <dtype Format>
PHI4FLASH_VECTOR_INLINE void packed_row(const std::byte* w, std::size_t groups, std::size_t row, const activation_group* x, const float* bias,
                                        float* y) {
    constexpr bool Dense = Format == dtype::q4_dense;
    [[maybe_unused]] const code_vector levels = load_levels(q4_dense.level);
    rows_f32 sum = zero_rows();
    for (std::size_t g = 0; g < groups; ++g) {
        if constexpr (Format == dtype::q8) {
            const q8_block& block = reinterpret_cast<const q8_block*>(w)[g];
            sum = add_group(q8_dot(block, row, x[g].q), load_scales(block.scale + row), x[g], sum);
        } else {
            const q4_block& block = reinterpret_cast<const q4_block*>(w)[g];
            PHI4FLASH_UNPACK_Q4(block, row);
            sum = add_group(q4_dot<Dense>(w0, w1, w2, w3, w4, w5, w6, w7, x[g].q), load_scales(block.scale + row), x[g], sum);
        }
    }
    put_rows(sum, bias, y);
}
#undef PHI4FLASH_UNPACK_Q4

template <dtype Format>
inline void packed_matvec(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, const float* bias, float* y) {
    const std::size_t groups = cols / packed_cols;
    for (std::size_t r = 0; r < rows; r += packed_rows) {
        for (std::size_t row = 0; row < packed_rows; row += rows_lanes())
            packed_row<Format>(w + matrix_bytes(Format, r, cols), groups, row, reinterpret_cast<const activation_group*>(x),
                               bias == nullptr ? nullptr : bias + r + row, y + r + row);
    }
}

template <dtype Format>
inline void packed_matmul(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, std::size_t, std::size_t tokens,
                          const float* bias, float* y, std::size_t y_stride) {
    const std::size_t groups = cols / packed_cols;
    const auto* activations = reinterpret_cast<const activation_group*>(x);
    for (std::size_t t = 0; t < tokens; t += packed_tokens) {
        const std::size_t count = tokens - t < packed_tokens ? tokens - t : packed_tokens;
        for (std::size_t g = 0; g < groups; g += packed_panel) {
            const std::size_t some = groups - g < packed_panel ? groups - g : packed_panel;
            const bool last = g + some == groups;
            for (std::size_t r = 0; r < rows; r += packed_rows) {
                const std::byte* blocks = w + matrix_bytes(Format, r, cols) + matrix_bytes(Format, packed_rows, g * packed_cols);
                for (std::size_t row = 0; row < packed_rows; row += rows_lanes())
                    packed_row_tile<Format>(blocks, some, row, activations + g * tokens + t, tokens, count, g == 0,
                                            bias == nullptr || !last ? nullptr : bias + r + row, y + t * y_stride + r + row, y_stride);
            }
        }
    }
}

template <dtype Format>
inline void packed_widen_row(const std::byte* w, std::size_t r, std::size_t cols, float* out) {
    const std::size_t groups = cols / packed_cols;
    for (std::size_t g = 0; g < groups; ++g) {
        const std::size_t at = r / packed_rows * groups + g;
        if constexpr (Format == dtype::q8) {
            decode_row(reinterpret_cast<const q8_block*>(w)[at], r % packed_rows, out + g * packed_cols);
        } else {
            constexpr const q4_codebook& book = Format == dtype::q4_dense ? q4_dense : q4_uniform;
            decode_row(reinterpret_cast<const q4_block*>(w)[at], book, r % packed_rows, out + g * packed_cols);
        }
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/table-inl.hpp -------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline std::size_t lanes_of_target() { return lanes(); }

template <class Element>
inline constexpr linear_kernels plain_kernels{
    .matvec = &matvec<Element>,
    .arrange = dtype_of<Element> == dtype::bf16 ? &arrange_even_odd : &arrange_none,
    .matmul = &matmul<Element>,
    .matmul_arranged = false,
    .widen = &widen_row<Element>,
};

template <dtype Format>
inline constexpr linear_kernels packed_kernels{
    .matvec = &packed_matvec<Format>,
    .arrange = Format == dtype::q8   ? &arrange_int8<127, 0>
               : Format == dtype::q4 ? &arrange_int8<127, q4_uniform.zero>
                                     : &arrange_int8<dense_activation_limit, q4_dense.zero>,
    .matmul = &packed_matmul<Format>,
    .matmul_arranged = true,
    .widen = &packed_widen_row<Format>,
};

inline constexpr kernel_table table{
    .name = PHI4FLASH_TARGET_LABEL,
    .lanes = &lanes_of_target,
    .linear = {plain_kernels<float>, plain_kernels<f16>, plain_kernels<bf16>, packed_kernels<dtype::q8>, packed_kernels<dtype::q4>,
               packed_kernels<dtype::q4_dense>},
    .layer_norm = &layer_norm,
    .rms_norm = &rms_norm,
    .accumulate = &accumulate,
    .silu_mul = &silu_mul,
    .softplus = &softplus,
    .softmax = &softmax,
    .convolution = &convolution,
    .scan = &scan,
    .narrow = {&narrow<float>, nullptr, &narrow<bf16>},
    .attention = {&attention<float>, nullptr, &attention<bf16>},
    .difference_norm = &difference_norm,
    .rotate = &rotate,
    .read = &read_all,
};

PHI4FLASH_TARGET_END
#endif

#if PHI4FLASH_HIGHWAY_EXTRA(HWY_AVX3_ZEN4)
#undef HWY_TARGET
#define HWY_TARGET HWY_AVX3_ZEN4

// ---- phi4flash/simd/next_target-inl.hpp ----------------------------------------------------------------------------------
#undef HWY_TARGET_TOGGLE
#undef HWY_SET_MACROS_PER_TARGET
#ifdef HWY_HIGHWAY_PER_TARGET
#define HWY_TARGET_TOGGLE
#define HWY_SET_MACROS_PER_TARGET
#endif
#undef PHI4FLASH_TARGET_LABEL
#define PHI4FLASH_TARGET_LABEL "avx3_zen4"

// ---- phi4flash/kernels/target-inl.hpp ------------------------------------------------------------------------------------

// ---- phi4flash/simd/vocabulary-inl.hpp -----------------------------------------------------------------------------------
#if PHI4FLASH_SIMD_HIGHWAY

// ---- phi4flash/simd/vocabulary_highway-inl.hpp ---------------------------------------------------------------------------
#include <hwy/highway.h>
PHI4FLASH_TARGET_BEGIN

namespace hn = hwy::HWY_NAMESPACE;

using f32_tag = hn::CappedTag<float, max_lanes>;
using i32_tag = hn::RebindToSigned<f32_tag>;
using u32_tag = hn::RebindToUnsigned<f32_tag>;
using u16_half_tag = hn::Rebind<std::uint16_t, f32_tag>;
using f32_vector = hn::Vec<f32_tag>;

PHI4FLASH_VECTOR_INLINE std::size_t lanes() { return hn::Lanes(f32_tag()); }
PHI4FLASH_VECTOR_INLINE f32_vector zero() { return hn::Zero(f32_tag()); }
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return hn::Set(f32_tag(), x); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const float* p) { return hn::LoadU(f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, float* p) { hn::StoreU(v, f32_tag(), p); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const bf16* p) {
    const auto narrow = hn::LoadU(u16_half_tag(), reinterpret_cast<const std::uint16_t*>(p));
    return hn::BitCast(f32_tag(), hn::ShiftLeft<16>(hn::PromoteTo(u32_tag(), narrow)));
}
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, bf16* p) {
    const u32_tag du;
    const auto bits = hn::BitCast(du, v);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
    const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fffu))));
    hn::StoreU(hn::TruncateTo(u16_half_tag(), rounded), u16_half_tag(), reinterpret_cast<std::uint16_t*>(p));
}
PHI4FLASH_VECTOR_INLINE f32_vector load(const f16* p) {
#if HWY_TARGET <= HWY_AVX2 || (HWY_TARGET & (HWY_ALL_NEON | HWY_ALL_SVE))
    const hn::Rebind<hwy::float16_t, f32_tag> half;
    return hn::PromoteTo(f32_tag(), hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(p)));
#else
    const u32_tag du;
    const auto bits = hn::PromoteTo(du, hn::LoadU(u16_half_tag(), reinterpret_cast<const std::uint16_t*>(p)));
    const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(du, 0x8000u)));
    const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(du, 0x7fffu)));
    const auto value = hn::BitCast(du, hn::Mul(hn::BitCast(f32_tag(), magnitude), hn::Set(f32_tag(), 0x1p112f)));
    const auto not_finite = hn::IfThenElseZero(hn::Ge(magnitude, hn::Set(du, 0x0f800000u)), hn::Set(du, 0x7f800000u));
    return hn::BitCast(f32_tag(), hn::Or(hn::Or(value, not_finite), sign));
#endif
}
PHI4FLASH_VECTOR_INLINE void load_even_odd(const bf16* p, f32_vector& even, f32_vector& odd) {
    const u32_tag du;
    const auto both = hn::LoadU(du, reinterpret_cast<const std::uint32_t*>(p));
    even = hn::BitCast(f32_tag(), hn::ShiftLeft<16>(both));
    odd = hn::BitCast(f32_tag(), hn::And(both, hn::Set(du, 0xffff0000u)));
}

PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) { return hn::Add(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) { return hn::Sub(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) { return hn::Mul(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) { return hn::Div(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) { return hn::MulAdd(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) { return hn::NegMulAdd(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector min_of(f32_vector a, f32_vector b) { return hn::Min(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector max_of(f32_vector a, f32_vector b) { return hn::Max(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector abs_of(f32_vector a) { return hn::Abs(a); }

PHI4FLASH_VECTOR_INLINE float reduce_sum(f32_vector v) { return hn::ReduceSum(f32_tag(), v); }
PHI4FLASH_VECTOR_INLINE float reduce_max(f32_vector v) { return hn::ReduceMax(f32_tag(), v); }

PHI4FLASH_VECTOR_INLINE f32_vector round_nearest(f32_vector v) { return hn::Round(v); }
PHI4FLASH_VECTOR_INLINE f32_vector scale_by_power_of_two(f32_vector v, f32_vector n) {
    const auto exponent = hn::Add(hn::NearestInt(n), hn::Set(i32_tag(), 127));
    return hn::Mul(v, hn::BitCast(f32_tag(), hn::ShiftLeft<23>(exponent)));
}

PHI4FLASH_TARGET_END
#elif PHI4FLASH_SIMD_XSIMD

// ---- phi4flash/simd/vocabulary_xsimd-inl.hpp -----------------------------------------------------------------------------
#include <xsimd/xsimd.hpp>
PHI4FLASH_TARGET_BEGIN

using f32_vector = xsimd::batch<float>;
using i32_vector = xsimd::batch<std::int32_t>;
using u32_vector = xsimd::batch<std::uint32_t>;
static_assert(f32_vector::size <= max_lanes, "phi4flash: layouts are blocked by 16 lanes");

PHI4FLASH_VECTOR_INLINE constexpr std::size_t lanes() { return f32_vector::size; }
PHI4FLASH_VECTOR_INLINE f32_vector zero() { return f32_vector(0.0f); }
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return f32_vector(x); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const float* p) { return f32_vector::load_unaligned(p); }
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, float* p) { v.store_unaligned(p); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const bf16* p) {
    alignas(64) std::uint32_t wide[f32_vector::size];
    for (std::size_t i = 0; i < f32_vector::size; ++i) wide[i] = static_cast<std::uint32_t>(p[i].bits) << 16;
    return xsimd::bitwise_cast<float>(u32_vector::load_aligned(wide));
}
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, bf16* p) {
    alignas(64) float wide[f32_vector::size];
    v.store_aligned(wide);
    for (std::size_t i = 0; i < f32_vector::size; ++i) p[i] = to_bf16(wide[i]);
}
PHI4FLASH_VECTOR_INLINE f32_vector load(const f16* p) {
    alignas(64) float wide[f32_vector::size];
    for (std::size_t i = 0; i < f32_vector::size; ++i) wide[i] = to_f32(p[i]);
    return f32_vector::load_aligned(wide);
}
PHI4FLASH_VECTOR_INLINE void load_even_odd(const bf16* p, f32_vector& even, f32_vector& odd) {
    const u32_vector both = xsimd::bitwise_cast<std::uint32_t>(f32_vector::load_unaligned(reinterpret_cast<const float*>(p)));
    even = xsimd::bitwise_cast<float>(both << 16);
    odd = xsimd::bitwise_cast<float>(both & u32_vector(0xffff0000u));
}

PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) { return a + b; }
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) { return a - b; }
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) { return a * b; }
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) { return a / b; }
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) { return xsimd::fma(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) { return xsimd::fnma(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector min_of(f32_vector a, f32_vector b) { return xsimd::min(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector max_of(f32_vector a, f32_vector b) { return xsimd::max(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector abs_of(f32_vector a) { return xsimd::abs(a); }

PHI4FLASH_VECTOR_INLINE float reduce_sum(f32_vector v) { return xsimd::reduce_add(v); }
PHI4FLASH_VECTOR_INLINE float reduce_max(f32_vector v) { return xsimd::reduce_max(v); }

PHI4FLASH_VECTOR_INLINE f32_vector round_nearest(f32_vector v) { return xsimd::nearbyint(v); }
PHI4FLASH_VECTOR_INLINE f32_vector scale_by_power_of_two(f32_vector v, f32_vector n) {
    const i32_vector exponent = xsimd::nearbyint_as_int(n) + i32_vector(127);
    return v * xsimd::bitwise_cast<float>(exponent << 23);
}

PHI4FLASH_TARGET_END
#else

// ---- phi4flash/simd/vocabulary_scalar-inl.hpp ----------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline constexpr std::size_t scalar_lanes = 4;
struct f32_vector {
    float lane[scalar_lanes];
};

namespace detail {
template <class Operation>
PHI4FLASH_VECTOR_INLINE f32_vector each(Operation operation) {
    f32_vector r;
    for (std::size_t i = 0; i < scalar_lanes; ++i) r.lane[i] = operation(i);
    return r;
}
}  // namespace detail

PHI4FLASH_VECTOR_INLINE constexpr std::size_t lanes() { return scalar_lanes; }
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return detail::each([&](std::size_t) { return x; }); }
PHI4FLASH_VECTOR_INLINE f32_vector zero() { return set(0.0f); }

template <class T>
PHI4FLASH_VECTOR_INLINE f32_vector load(const T* p) {
    return detail::each([&](std::size_t i) { return to_f32(p[i]); });
}
template <class T>
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, T* p) {
    for (std::size_t i = 0; i < scalar_lanes; ++i) p[i] = from_f32<T>(v.lane[i]);
}
PHI4FLASH_VECTOR_INLINE void load_even_odd(const bf16* p, f32_vector& even, f32_vector& odd) {
    even = detail::each([&](std::size_t i) { return to_f32(p[2 * i]); });
    odd = detail::each([&](std::size_t i) { return to_f32(p[2 * i + 1]); });
}

PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] + b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] - b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] * b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] / b.lane[i]; });
}
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__)
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
}
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return std::fma(-a.lane[i], b.lane[i], c.lane[i]); });
}
#else
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return c.lane[i] - a.lane[i] * b.lane[i]; });
}
#endif
PHI4FLASH_VECTOR_INLINE f32_vector min_of(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector max_of(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector abs_of(f32_vector a) {
    return detail::each([&](std::size_t i) { return std::fabs(a.lane[i]); });
}

PHI4FLASH_VECTOR_INLINE float reduce_sum(f32_vector v) { return (v.lane[0] + v.lane[2]) + (v.lane[1] + v.lane[3]); }
PHI4FLASH_VECTOR_INLINE float reduce_max(f32_vector v) {
    float m = v.lane[0];
    for (std::size_t i = 1; i < scalar_lanes; ++i) m = v.lane[i] > m ? v.lane[i] : m;
    return m;
}

PHI4FLASH_VECTOR_INLINE f32_vector round_nearest(f32_vector v) {
    constexpr float magic = 0x1.8p23f;
    return detail::each([&](std::size_t i) { return (v.lane[i] + magic) - magic; });
}
PHI4FLASH_VECTOR_INLINE f32_vector scale_by_power_of_two(f32_vector v, f32_vector n) {
    return detail::each([&](std::size_t i) {
        const auto exponent = static_cast<std::uint32_t>(static_cast<std::int32_t>(n.lane[i]) + 127);
        return v.lane[i] * std::bit_cast<float>(exponent << 23);
    });
}

PHI4FLASH_TARGET_END
#endif

// ---- phi4flash/simd/integer-inl.hpp --------------------------------------------------------------------------------------
#if PHI4FLASH_SIMD_HIGHWAY

// ---- phi4flash/simd/integer_highway-inl.hpp ------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

using rows_tag = hn::CappedTag<std::int32_t, 8>;
using rows_f32_tag = hn::RebindToFloat<rows_tag>;
using rows_u8_tag = hn::Repartition<std::uint8_t, rows_tag>;
using rows_i8_tag = hn::Repartition<std::int8_t, rows_tag>;
using rows_i16_tag = hn::Repartition<std::int16_t, rows_tag>;
using rows_u16_tag = hn::Repartition<std::uint16_t, rows_tag>;
using rows_i32 = hn::Vec<rows_tag>;
using rows_f32 = hn::Vec<rows_f32_tag>;
using code_vector = hn::Vec<rows_u8_tag>;
using signed_code_vector = hn::Vec<rows_i8_tag>;

PHI4FLASH_VECTOR_INLINE std::size_t rows_lanes() { return hn::Lanes(rows_tag()); }
PHI4FLASH_VECTOR_INLINE code_vector load_codes(const std::uint8_t* p) { return hn::LoadU(rows_u8_tag(), p); }
PHI4FLASH_VECTOR_INLINE signed_code_vector load_codes(const std::int8_t* p) { return hn::LoadU(rows_i8_tag(), p); }
PHI4FLASH_VECTOR_INLINE code_vector load_levels(const std::uint8_t* sixteen) { return hn::LoadDup128(rows_u8_tag(), sixteen); }
PHI4FLASH_VECTOR_INLINE code_vector low_codes(code_vector v) { return hn::And(v, hn::Set(rows_u8_tag(), std::uint8_t{15})); }
PHI4FLASH_VECTOR_INLINE code_vector high_codes(code_vector v) {
    const rows_u16_tag du16;
    return low_codes(hn::BitCast(rows_u8_tag(), hn::ShiftRight<4>(hn::BitCast(du16, v))));
}
PHI4FLASH_VECTOR_INLINE code_vector levels_of(code_vector levels, code_vector codes) { return hn::TableLookupBytes(levels, codes); }
PHI4FLASH_VECTOR_INLINE signed_code_vector broadcast_four(const std::int8_t* p) {
    std::int32_t four;
    std::memcpy(&four, p, sizeof four);
    return hn::BitCast(rows_i8_tag(), hn::Set(rows_tag(), four));
}

#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL
using dot_sums = hn::Vec<rows_i16_tag>;
PHI4FLASH_VECTOR_INLINE dot_sums in_this_order(dot_sums sums) {
#if defined(__GNUC__) && !defined(__clang__)
    asm("" : "+x"(sums.raw));
#endif
    return sums;
}
PHI4FLASH_VECTOR_INLINE dot_sums dot_first(code_vector w, signed_code_vector x) { return hn::SatWidenMulPairwiseAdd(rows_i16_tag(), w, x); }
PHI4FLASH_VECTOR_INLINE dot_sums dot_next(dot_sums sums, code_vector w, signed_code_vector x) {
    return in_this_order(hn::Add(sums, hn::SatWidenMulPairwiseAdd(rows_i16_tag(), w, x)));
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(dot_sums sums) {
    return hn::WidenMulPairwiseAdd(rows_tag(), sums, hn::Set(rows_i16_tag(), std::int16_t{1}));
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(rows_i32 total, dot_sums sums) { return hn::Add(total, dot_fold(sums)); }
inline constexpr int dense_activation_limit = 67;
#else
using dot_sums = rows_i32;
#if HWY_ARCH_X86
PHI4FLASH_VECTOR_INLINE rows_i32 dot_four(code_vector w, signed_code_vector x, rows_i32 sum) {
    return hn::SumOfMulQuadAccumulate(rows_tag(), w, x, sum);
}
#else  // levels are below 128, so they are signed bytes too, for which other architectures have the instruction
PHI4FLASH_VECTOR_INLINE rows_i32 dot_four(code_vector w, signed_code_vector x, rows_i32 sum) {
    return hn::SumOfMulQuadAccumulate(rows_tag(), hn::BitCast(rows_i8_tag(), w), x, sum);
}
#endif
PHI4FLASH_VECTOR_INLINE dot_sums dot_first(code_vector w, signed_code_vector x) { return dot_four(w, x, hn::Zero(rows_tag())); }
PHI4FLASH_VECTOR_INLINE dot_sums dot_next(dot_sums sums, code_vector w, signed_code_vector x) { return dot_four(w, x, sums); }
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(dot_sums sums) { return sums; }
inline constexpr int dense_activation_limit = 127;
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(rows_i32 total, dot_sums sums) { return hn::Add(total, sums); }
#endif

#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL
PHI4FLASH_VECTOR_INLINE rows_i32 dot_signed(rows_i32 total, signed_code_vector w, signed_code_vector x) {
    const auto magnitude = hn::BitCast(rows_u8_tag(), hn::Abs(w));
    const auto signed_x = hn::IfNegativeThenNegOrUndefIfZero(w, x);
    return hn::Add(total, hn::WidenMulPairwiseAdd(rows_tag(), hn::SatWidenMulPairwiseAdd(rows_i16_tag(), magnitude, signed_x),
                                                  hn::Set(rows_i16_tag(), std::int16_t{1})));
}
#else
PHI4FLASH_VECTOR_INLINE rows_i32 dot_signed(rows_i32 total, signed_code_vector w, signed_code_vector x) {
    return hn::SumOfMulQuadAccumulate(rows_tag(), w, x, total);
}
#endif

PHI4FLASH_VECTOR_INLINE rows_i32 set_rows(std::int32_t x) { return hn::Set(rows_tag(), x); }
PHI4FLASH_VECTOR_INLINE rows_f32 zero_rows() { return hn::Zero(rows_f32_tag()); }
PHI4FLASH_VECTOR_INLINE rows_f32 load_scales(const f16* p) {
    const hn::Rebind<hwy::float16_t, rows_f32_tag> half;
    return hn::PromoteTo(rows_f32_tag(), hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(p)));
}
PHI4FLASH_VECTOR_INLINE rows_f32 scale_sums(rows_i32 sums, float scale, float offset) {
    const rows_f32_tag df;
    return hn::MulAdd(hn::ConvertTo(df, sums), hn::Set(df, scale), hn::Set(df, offset));
}
PHI4FLASH_VECTOR_INLINE rows_f32 mul_add_rows(rows_f32 a, rows_f32 b, rows_f32 c) { return hn::MulAdd(a, b, c); }
PHI4FLASH_VECTOR_INLINE rows_f32 load_rows(const float* p) { return hn::LoadU(rows_f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE void store_rows(rows_f32 v, float* p) { hn::StoreU(v, rows_f32_tag(), p); }

PHI4FLASH_TARGET_END
#else

// ---- phi4flash/simd/integer_plain-inl.hpp --------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline constexpr std::size_t plain_rows = 8;
struct rows_i32 {
    std::int32_t lane[plain_rows];
};
struct rows_f32 {
    float lane[plain_rows];
};
struct code_vector {
    std::uint8_t byte[4 * plain_rows];
};
struct signed_code_vector {
    std::int8_t byte[4 * plain_rows];
};
using dot_sums = rows_i32;

PHI4FLASH_VECTOR_INLINE constexpr std::size_t rows_lanes() { return plain_rows; }
PHI4FLASH_VECTOR_INLINE code_vector load_codes(const std::uint8_t* p) {
    code_vector v;
    std::memcpy(v.byte, p, sizeof v.byte);
    return v;
}
PHI4FLASH_VECTOR_INLINE signed_code_vector load_codes(const std::int8_t* p) {
    signed_code_vector v;
    std::memcpy(v.byte, p, sizeof v.byte);
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector load_levels(const std::uint8_t* sixteen) {
    code_vector v;
    for (std::size_t i = 0; i < sizeof v.byte; ++i) v.byte[i] = sixteen[i % 16];
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector low_codes(code_vector v) {
    for (std::uint8_t& b : v.byte) b = b & 15u;
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector high_codes(code_vector v) {
    for (std::uint8_t& b : v.byte) b = static_cast<std::uint8_t>(b >> 4);
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector levels_of(const code_vector& levels, code_vector codes) {
    for (std::uint8_t& b : codes.byte) b = levels.byte[b];
    return codes;
}
PHI4FLASH_VECTOR_INLINE signed_code_vector broadcast_four(const std::int8_t* p) {
    signed_code_vector v;
    for (std::size_t i = 0; i < sizeof v.byte; ++i) v.byte[i] = p[i % 4];
    return v;
}

namespace detail {
PHI4FLASH_VECTOR_INLINE float fused(float a, float b, float c) {
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__)
    return std::fma(a, b, c);
#else
    return a * b + c;
#endif
}

template <class Codes>
PHI4FLASH_VECTOR_INLINE rows_i32 plain_dot(rows_i32 total, const Codes& w, const signed_code_vector& x) {
    for (std::size_t r = 0; r < plain_rows; ++r) {
        for (std::size_t i = 0; i < 4; ++i) total.lane[r] += static_cast<std::int32_t>(w.byte[4 * r + i]) * x.byte[4 * r + i];
    }
    return total;
}
}  // namespace detail

PHI4FLASH_VECTOR_INLINE rows_i32 set_rows(std::int32_t x) {
    rows_i32 v;
    for (std::int32_t& lane : v.lane) lane = x;
    return v;
}
PHI4FLASH_VECTOR_INLINE dot_sums dot_first(const code_vector& w, const signed_code_vector& x) { return detail::plain_dot(set_rows(0), w, x); }
PHI4FLASH_VECTOR_INLINE dot_sums dot_next(const dot_sums& sums, const code_vector& w, const signed_code_vector& x) {
    return detail::plain_dot(sums, w, x);
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(const dot_sums& sums) { return sums; }
inline constexpr int dense_activation_limit = 127;
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(rows_i32 total, const dot_sums& sums) {
    for (std::size_t r = 0; r < plain_rows; ++r) total.lane[r] += sums.lane[r];
    return total;
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_signed(const rows_i32& total, const signed_code_vector& w, const signed_code_vector& x) {
    return detail::plain_dot(total, w, x);
}

PHI4FLASH_VECTOR_INLINE rows_f32 zero_rows() { return {}; }
PHI4FLASH_VECTOR_INLINE rows_f32 load_scales(const f16* p) {
    rows_f32 v;
    for (std::size_t r = 0; r < plain_rows; ++r) v.lane[r] = to_f32(p[r]);
    return v;
}
PHI4FLASH_VECTOR_INLINE rows_f32 scale_sums(const rows_i32& sums, float scale, float offset) {
    rows_f32 v;
    for (std::size_t r = 0; r < plain_rows; ++r) v.lane[r] = detail::fused(static_cast<float>(sums.lane[r]), scale, offset);
    return v;
}
PHI4FLASH_VECTOR_INLINE rows_f32 mul_add_rows(const rows_f32& a, const rows_f32& b, rows_f32 c) {
    for (std::size_t r = 0; r < plain_rows; ++r) c.lane[r] = detail::fused(a.lane[r], b.lane[r], c.lane[r]);
    return c;
}
PHI4FLASH_VECTOR_INLINE rows_f32 load_rows(const float* p) {
    rows_f32 v;
    for (std::size_t r = 0; r < plain_rows; ++r) v.lane[r] = p[r];
    return v;
}
PHI4FLASH_VECTOR_INLINE void store_rows(const rows_f32& v, float* p) {
    for (std::size_t r = 0; r < plain_rows; ++r) p[r] = v.lane[r];
}

PHI4FLASH_TARGET_END
#endif

// ---- phi4flash/kernels/math-inl.hpp --------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

PHI4FLASH_VECTOR_INLINE f32_vector exp2_of(f32_vector x) {
    const f32_vector clamped = max_of(min_of(x, set(127.0f)), set(-126.0f));
    const f32_vector n = round_nearest(clamped);
    const f32_vector r = sub(clamped, n);
    f32_vector p = set(1.525273380e-5f);
    p = mul_add(p, r, set(1.540353039e-4f));
    p = mul_add(p, r, set(1.333355814e-3f));
    p = mul_add(p, r, set(9.618129107e-3f));
    p = mul_add(p, r, set(5.550410866e-2f));
    p = mul_add(p, r, set(2.402265070e-1f));
    p = mul_add(p, r, set(6.931471806e-1f));
    p = mul_add(p, r, set(1.0f));
    return scale_by_power_of_two(p, n);
}

PHI4FLASH_VECTOR_INLINE f32_vector exp_of(f32_vector x) {
    const f32_vector clamped = max_of(min_of(x, set(88.0f)), set(-87.3f));
    const f32_vector n = round_nearest(mul(clamped, set(1.442695041f)));
    f32_vector r = neg_mul_add(n, set(0.693359375f), clamped);
    r = neg_mul_add(n, set(-2.12194440e-4f), r);
    f32_vector p = set(1.984126984e-4f);
    p = mul_add(p, r, set(1.388888889e-3f));
    p = mul_add(p, r, set(8.333333333e-3f));
    p = mul_add(p, r, set(4.166666667e-2f));
    p = mul_add(p, r, set(1.666666667e-1f));
    p = mul_add(p, r, set(5.0e-1f));
    p = mul_add(p, r, set(1.0f));
    p = mul_add(p, r, set(1.0f));
    return scale_by_power_of_two(p, n);
}

PHI4FLASH_VECTOR_INLINE f32_vector silu_of(f32_vector x) { return div(x, add(set(1.0f), exp_of(sub(zero(), x)))); }

PHI4FLASH_VECTOR_INLINE f32_vector softplus_of(f32_vector x) {
    const f32_vector t = exp_of(sub(zero(), abs_of(x)));
    const f32_vector s = div(t, add(t, set(2.0f)));
    const f32_vector z = mul(s, s);
    f32_vector p = set(6.666666667e-2f);
    p = mul_add(p, z, set(7.692307692e-2f));
    p = mul_add(p, z, set(9.090909091e-2f));
    p = mul_add(p, z, set(1.111111111e-1f));
    p = mul_add(p, z, set(1.428571429e-1f));
    p = mul_add(p, z, set(2.0e-1f));
    p = mul_add(p, z, set(3.333333333e-1f));
    p = mul_add(p, z, set(1.0f));
    return mul_add(add(s, s), p, max_of(x, zero()));
}

PHI4FLASH_VECTOR_INLINE float mul_add_one(float a, float b, float c) {
    float out[max_lanes];
    store(mul_add(set(a), set(b), set(c)), out);
    return out[0];
}

template <class Element>
PHI4FLASH_VECTOR_INLINE f32_vector load_first(const Element* p, std::size_t n) {
    float buffer[max_lanes] = {};
    for (std::size_t i = 0; i < n; ++i) buffer[i] = to_f32(p[i]);
    return load(buffer);
}

template <class Element>
PHI4FLASH_VECTOR_INLINE void store_first(f32_vector v, Element* p, std::size_t n) {
    float buffer[max_lanes];
    store(v, buffer);
    for (std::size_t i = 0; i < n; ++i) p[i] = from_f32<Element>(buffer[i]);
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/linear-inl.hpp ------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

template <class Element>
PHI4FLASH_VECTOR_INLINE float dot(const Element* PHI4FLASH_RESTRICT a, const float* PHI4FLASH_RESTRICT b, std::size_t n) {
    const std::size_t lane_count = lanes();
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    f32_vector s2 = zero();
    f32_vector s3 = zero();
    std::size_t i = 0;
    for (; i + 4 * lane_count <= n; i += 4 * lane_count) {
        s0 = mul_add(load(a + i), load(b + i), s0);
        s1 = mul_add(load(a + i + lane_count), load(b + i + lane_count), s1);
        s2 = mul_add(load(a + i + 2 * lane_count), load(b + i + 2 * lane_count), s2);
        s3 = mul_add(load(a + i + 3 * lane_count), load(b + i + 3 * lane_count), s3);
    }
    for (; i + lane_count <= n; i += lane_count) s0 = mul_add(load(a + i), load(b + i), s0);
    if (i < n) s1 = mul_add(load_first(a + i, n - i), load_first(b + i, n - i), s1);
    return reduce_sum(add(add(s0, s1), add(s2, s3)));
}

PHI4FLASH_VECTOR_INLINE float dot_arranged(const bf16* PHI4FLASH_RESTRICT a, const float* PHI4FLASH_RESTRICT x, std::size_t n) {
    const std::size_t lane_count = lanes();
    const std::size_t step = 2 * lane_count;
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    f32_vector s2 = zero();
    f32_vector s3 = zero();
    f32_vector even;
    f32_vector odd;
    std::size_t i = 0;
    for (; i + 2 * step <= n; i += 2 * step) {
        load_even_odd(a + i, even, odd);
        s0 = mul_add(even, load(x + i), s0);
        s1 = mul_add(odd, load(x + i + lane_count), s1);
        load_even_odd(a + i + step, even, odd);
        s2 = mul_add(even, load(x + i + step), s2);
        s3 = mul_add(odd, load(x + i + step + lane_count), s3);
    }
    for (; i < n; i += step) {
        bf16 last[2 * max_lanes] = {};
        const bf16* block = a + i;
        if (i + step > n) {  // a ragged end: what lies behind it belongs to somebody else
            for (std::size_t j = i; j < n; ++j) last[j - i] = a[j];
            block = last;
        }
        load_even_odd(block, even, odd);
        s0 = mul_add(even, load(x + i), s0);
        s1 = mul_add(odd, load(x + i + lane_count), s1);
    }
    return reduce_sum(add(add(s0, s1), add(s2, s3)));
}

inline const std::byte* arrange_none(const float* x, std::size_t, std::size_t, std::size_t, std::byte*) { return reinterpret_cast<const std::byte*>(x); }

inline const std::byte* arrange_even_odd(const float* PHI4FLASH_RESTRICT x, std::size_t cols, std::size_t token, std::size_t, std::byte* scratch) {
    auto* PHI4FLASH_RESTRICT out = reinterpret_cast<float*>(scratch + token * arranged_bytes(cols));
    const std::size_t half = lanes();
    for (std::size_t i = 0; i < cols; i += 2 * half) {
        for (std::size_t j = 0; j < half; ++j) {
            out[i + j] = i + 2 * j < cols ? x[i + 2 * j] : 0.0f;
            out[i + half + j] = i + 2 * j + 1 < cols ? x[i + 2 * j + 1] : 0.0f;
        }
    }
    return scratch;
}

template <class Element>
inline void matvec(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* arranged, const float* bias, float* y) {
    const auto* x = reinterpret_cast<const float*>(arranged);
    const auto* row = reinterpret_cast<const Element*>(w);
    for (std::size_t r = 0; r < rows; ++r, row += cols) {
        float sum = 0.0f;
        if constexpr (dtype_of<Element> == dtype::bf16) {
            sum = dot_arranged(row, x, cols);
        } else {
            sum = dot(row, x, cols);
        }
        y[r] = bias == nullptr ? sum : sum + bias[r];
    }
}

template <class Element>
inline void widen(const std::byte* w, std::size_t cols, float* PHI4FLASH_RESTRICT out) {
    const auto* in = reinterpret_cast<const Element*>(w);
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= cols; i += lane_count) store(load(in + i), out + i);
    for (; i < cols; ++i) out[i] = to_f32(in[i]);
}

inline constexpr std::size_t panel_rows = 6;
inline constexpr std::size_t panel_cols = 1024;

PHI4FLASH_VECTOR_INLINE void tile_4x3(const float* PHI4FLASH_RESTRICT x, std::size_t x_stride, const float* PHI4FLASH_RESTRICT panel,
                                      std::size_t n, float* y, std::size_t y_stride) {
    const std::size_t lane_count = lanes();
    const float* x1 = x + x_stride;
    const float* x2 = x1 + x_stride;
    const float* x3 = x2 + x_stride;
    const float* w1 = panel + panel_cols;
    const float* w2 = w1 + panel_cols;
    f32_vector s00 = zero(), s01 = zero(), s02 = zero();
    f32_vector s10 = zero(), s11 = zero(), s12 = zero();
    f32_vector s20 = zero(), s21 = zero(), s22 = zero();
    f32_vector s30 = zero(), s31 = zero(), s32 = zero();
    for (std::size_t i = 0; i < n; i += lane_count) {  // n is a multiple of lane_count
        const f32_vector a = load(panel + i);
        const f32_vector b = load(w1 + i);
        const f32_vector c = load(w2 + i);
        f32_vector t = load(x + i);
        s00 = mul_add(t, a, s00), s01 = mul_add(t, b, s01), s02 = mul_add(t, c, s02);
        t = load(x1 + i);
        s10 = mul_add(t, a, s10), s11 = mul_add(t, b, s11), s12 = mul_add(t, c, s12);
        t = load(x2 + i);
        s20 = mul_add(t, a, s20), s21 = mul_add(t, b, s21), s22 = mul_add(t, c, s22);
        t = load(x3 + i);
        s30 = mul_add(t, a, s30), s31 = mul_add(t, b, s31), s32 = mul_add(t, c, s32);
    }
    y[0] += reduce_sum(s00), y[1] += reduce_sum(s01), y[2] += reduce_sum(s02);
    y += y_stride;
    y[0] += reduce_sum(s10), y[1] += reduce_sum(s11), y[2] += reduce_sum(s12);
    y += y_stride;
    y[0] += reduce_sum(s20), y[1] += reduce_sum(s21), y[2] += reduce_sum(s22);
    y += y_stride;
    y[0] += reduce_sum(s30), y[1] += reduce_sum(s31), y[2] += reduce_sum(s32);
}

PHI4FLASH_VECTOR_INLINE void tile_1x1(const float* PHI4FLASH_RESTRICT x, const float* PHI4FLASH_RESTRICT panel, std::size_t n, float* y) {
    f32_vector sum = zero();
    for (std::size_t i = 0; i < n; i += lanes()) sum = mul_add(load(x + i), load(panel + i), sum);
    *y += reduce_sum(sum);
}

PHI4FLASH_VECTOR_INLINE void multiply_panel(const float* x, std::size_t x_stride, std::size_t tokens, const float* panel, std::size_t rows,
                                            std::size_t n, float* y, std::size_t y_stride) {
    std::size_t t = 0;
    for (; t + 4 <= tokens; t += 4) {
        std::size_t r = 0;
        for (; r + 3 <= rows; r += 3) tile_4x3(x + t * x_stride, x_stride, panel + r * panel_cols, n, y + t * y_stride + r, y_stride);
        for (; r < rows; ++r) {
            for (std::size_t k = t; k < t + 4; ++k) tile_1x1(x + k * x_stride, panel + r * panel_cols, n, y + k * y_stride + r);
        }
    }
    for (; t < tokens; ++t) {
        for (std::size_t r = 0; r < rows; ++r) tile_1x1(x + t * x_stride, panel + r * panel_cols, n, y + t * y_stride + r);
    }
}

template <class Element>
inline void matmul(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x_bytes, std::size_t x_stride, std::size_t tokens,
                   const float* bias, float* y, std::size_t y_stride) {
    const auto* x = reinterpret_cast<const float*>(x_bytes);
    alignas(64) float panel[panel_rows * panel_cols];
    const std::size_t lane_count = lanes();
    const std::size_t whole_cols = cols / lane_count * lane_count;
    for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t r = 0; r < rows; ++r) y[t * y_stride + r] = bias == nullptr ? 0.0f : bias[r];
    }
    for (std::size_t r0 = 0; r0 < rows; r0 += panel_rows) {
        const std::size_t row_count = rows - r0 < panel_rows ? rows - r0 : panel_rows;
        for (std::size_t c0 = 0; c0 < whole_cols; c0 += panel_cols) {
            const std::size_t n = whole_cols - c0 < panel_cols ? whole_cols - c0 : panel_cols;
            for (std::size_t r = 0; r < row_count; ++r)
                widen<Element>(w + ((r0 + r) * cols + c0) * sizeof(Element), n, panel + r * panel_cols);
            multiply_panel(x + c0, x_stride, tokens, panel, row_count, n, y + r0, y_stride);
        }
        for (std::size_t r = 0; r < row_count && whole_cols < cols; ++r) {
            const auto* row = reinterpret_cast<const Element*>(w) + (r0 + r) * cols;
            for (std::size_t t = 0; t < tokens; ++t) {
                float sum = 0.0f;
                for (std::size_t c = whole_cols; c < cols; ++c) sum += to_f32(row[c]) * x[t * x_stride + c];
                y[t * y_stride + r0 + r] += sum;
            }
        }
    }
}

template <class Element>
inline void widen_row(const std::byte* w, std::size_t r, std::size_t cols, float* out) {
    widen<Element>(w + r * cols * sizeof(Element), cols, out);
}

template <class Element>
inline void narrow(const float* PHI4FLASH_RESTRICT x, std::size_t n, std::byte* PHI4FLASH_RESTRICT out) {
    auto* to = reinterpret_cast<Element*>(out);
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(load(x + i), to + i);
    for (; i < n; ++i) to[i] = from_f32<Element>(x[i]);
}

inline float read_all(const std::byte* data, std::size_t bytes) {
    const auto* p = reinterpret_cast<const bf16*>(data);
    const std::size_t step = 4 * lanes();
    const std::size_t count = bytes / sizeof(bf16);
    f32_vector s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
    f32_vector even;
    f32_vector odd;
    std::size_t i = 0;
    for (; i + step <= count; i += step) {
        load_even_odd(p + i, even, odd);
        s0 = add(s0, even), s1 = add(s1, odd);
        load_even_odd(p + i + step / 2, even, odd);
        s2 = add(s2, even), s3 = add(s3, odd);
    }
    float rest = 0.0f;
    for (; i < count; ++i) rest += to_f32(p[i]);
    return reduce_sum(add(add(s0, s1), add(s2, s3))) + rest;
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/elementwise-inl.hpp -------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline void accumulate(const float* PHI4FLASH_RESTRICT x, std::size_t n, float* PHI4FLASH_RESTRICT y) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(add(load(y + i), load(x + i)), y + i);
    for (; i < n; ++i) y[i] += x[i];
}

inline void silu_mul(const float* gate, const float* x, std::size_t n, float* y) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(mul(silu_of(load(gate + i)), load(x + i)), y + i);
    if (i < n) store_first(mul(silu_of(load_first(gate + i, n - i)), load_first(x + i, n - i)), y + i, n - i);
}

inline void softplus(const float* x, std::size_t n, float* y) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(softplus_of(load(x + i)), y + i);
    if (i < n) store_first(softplus_of(load_first(x + i, n - i)), y + i, n - i);
}

PHI4FLASH_VECTOR_INLINE float sum_of_squares(const float* x, float shift, std::size_t n) {
    const std::size_t lane_count = lanes();
    const f32_vector c = set(shift);
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    std::size_t i = 0;
    for (; i + 2 * lane_count <= n; i += 2 * lane_count) {
        const f32_vector a = sub(load(x + i), c);
        const f32_vector b = sub(load(x + i + lane_count), c);
        s0 = mul_add(a, a, s0);
        s1 = mul_add(b, b, s1);
    }
    float rest = 0.0f;
    for (; i < n; ++i) rest += (x[i] - shift) * (x[i] - shift);
    return reduce_sum(add(s0, s1)) + rest;
}

PHI4FLASH_VECTOR_INLINE float sum_of(const float* x, std::size_t n) {
    const std::size_t lane_count = lanes();
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    std::size_t i = 0;
    for (; i + 2 * lane_count <= n; i += 2 * lane_count) {
        s0 = add(s0, load(x + i));
        s1 = add(s1, load(x + i + lane_count));
    }
    float rest = 0.0f;
    for (; i < n; ++i) rest += x[i];
    return reduce_sum(add(s0, s1)) + rest;
}

inline void layer_norm(const float* x, const float* weight, const float* bias, float eps, std::size_t n, float* y) {
    const auto count = static_cast<float>(n);
    const float mean = sum_of(x, n) / count;
    const float inverse = 1.0f / std::sqrt(sum_of_squares(x, mean, n) / count + eps);
    const std::size_t lane_count = lanes();
    const f32_vector m = set(mean);
    const f32_vector s = set(inverse);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count)
        store(mul_add(mul(sub(load(x + i), m), s), load(weight + i), load(bias + i)), y + i);
    for (; i < n; ++i) y[i] = (x[i] - mean) * inverse * weight[i] + bias[i];
}

inline void rms_norm(const float* x, const float* weight, float eps, std::size_t n, float* y) {
    const float inverse = 1.0f / std::sqrt(sum_of_squares(x, 0.0f, n) / static_cast<float>(n) + eps);
    const std::size_t lane_count = lanes();
    const f32_vector s = set(inverse);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(mul(mul(load(x + i), s), load(weight + i)), y + i);
    for (; i < n; ++i) y[i] = x[i] * inverse * weight[i];
}

inline void difference_norm(const float* first, const float* second, float lambda, const float* weight, float eps, std::size_t n,
                            float* y) {
    const std::size_t lane_count = lanes();
    const f32_vector l = set(lambda);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(neg_mul_add(l, load(second + i), load(first + i)), y + i);
    for (; i < n; ++i) y[i] = first[i] - lambda * second[i];
    rms_norm(y, weight, eps, n, y);
}

inline void softmax(float* x, std::size_t n, float inverse_temperature) {
    if (n == 0) return;
    const std::size_t lane_count = lanes();
    float highest = x[0];
    std::size_t i = 0;
    if (n >= lane_count) {
        f32_vector m = load(x);
        for (; i + lane_count <= n; i += lane_count) m = max_of(m, load(x + i));
        highest = reduce_max(m);
    }
    for (; i < n; ++i) highest = x[i] > highest ? x[i] : highest;

    const f32_vector shift = set(highest);
    const f32_vector scale = set(inverse_temperature);
    f32_vector sums = zero();
    for (i = 0; i + lane_count <= n;) {
        f32_vector part = zero();
        for (std::size_t k = 0; k < 256 && i + lane_count <= n; ++k, i += lane_count) {
            const f32_vector e = exp_of(mul(sub(load(x + i), shift), scale));
            store(e, x + i);
            part = add(part, e);
        }
        sums = add(sums, part);
    }
    float sum = reduce_sum(sums);
    if (i < n) {
        store_first(exp_of(mul(sub(load_first(x + i, n - i), shift), scale)), x + i, n - i);
        for (; i < n; ++i) sum += x[i];
    }
    const f32_vector inverse = set(1.0f / sum);
    for (i = 0; i + lane_count <= n; i += lane_count) store(mul(load(x + i), inverse), x + i);
    for (; i < n; ++i) x[i] /= sum;
}

inline void rotate(float* x, const float* cosine, const float* sine, std::size_t half) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= half; i += lane_count) {
        const f32_vector a = load(x + i);
        const f32_vector b = load(x + half + i);
        const f32_vector c = load(cosine + i);
        const f32_vector s = load(sine + i);
        store(neg_mul_add(b, s, mul(a, c)), x + i);
        store(mul_add(a, s, mul(b, c)), x + half + i);
    }
    for (; i < half; ++i) {
        const float a = x[i];
        const float b = x[half + i];
        x[i] = a * cosine[i] - b * sine[i];
        x[half + i] = a * sine[i] + b * cosine[i];
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/mamba-inl.hpp -------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline void convolution(const convolution_args& args, std::size_t channel_begin, std::size_t channel_end) {
    const std::size_t lane_count = lanes();
    const std::size_t history = args.d_conv - 1;
    for (std::size_t t = 0; t < args.tokens; ++t) {
        float* y = args.y + t * args.y_stride;
        for (std::size_t c = channel_begin; c < channel_end; c += lane_count) {
            const std::size_t n = channel_end - c < lane_count ? channel_end - c : lane_count;
            const bool whole = n == lane_count;
            f32_vector sum = whole ? load(args.bias + c) : load_first(args.bias + c, n);
            for (std::size_t j = 0; j < args.d_conv; ++j) {
                const std::size_t time = t + j;
                const float* x = time < history ? args.state + time * args.d_inner : args.x + (time - history) * args.x_stride;
                const float* w = args.weight + j * args.d_inner;
                sum = whole ? mul_add(load(x + c), load(w + c), sum) : mul_add(load_first(x + c, n), load_first(w + c, n), sum);
            }
            if (whole) {
                store(silu_of(sum), y + c);
            } else {
                store_first(silu_of(sum), y + c, n);
            }
        }
    }
    for (std::size_t j = 0; j < history; ++j) {
        const std::size_t time = args.tokens + j;
        const float* from = time < history ? args.state + time * args.d_inner : args.x + (time - history) * args.x_stride;
        float* to = args.state + j * args.d_inner;
        for (std::size_t c = channel_begin; c < channel_end; ++c) to[c] = from[c];
    }
}

PHI4FLASH_VECTOR_INLINE f32_vector scan_vector(const float* a, float* h, const float* b, const float* c, std::size_t d_state, f32_vector dt,
                                               f32_vector dt_u) {
    f32_vector y0 = zero();
    f32_vector y1 = zero();
    std::size_t n = 0;
    for (; n + 2 <= d_state; n += 2) {
        float* h0 = h + n * channel_block;
        float* h1 = h0 + channel_block;
        const f32_vector next0 = mul_add(exp2_of(mul(dt, load(a + n * channel_block))), load(h0), mul(dt_u, set(b[n])));
        const f32_vector next1 = mul_add(exp2_of(mul(dt, load(a + (n + 1) * channel_block))), load(h1), mul(dt_u, set(b[n + 1])));
        store(next0, h0);
        store(next1, h1);
        y0 = mul_add(next0, set(c[n]), y0);
        y1 = mul_add(next1, set(c[n + 1]), y1);
    }
    for (; n < d_state; ++n) {
        float* h0 = h + n * channel_block;
        const f32_vector next = mul_add(exp2_of(mul(dt, load(a + n * channel_block))), load(h0), mul(dt_u, set(b[n])));
        store(next, h0);
        y0 = mul_add(next, set(c[n]), y0);
    }
    return add(y0, y1);
}

inline void scan(const scan_args& args, std::size_t block_begin, std::size_t block_end) {
    const std::size_t lane_count = lanes();
    for (std::size_t block = block_begin; block < block_end; ++block) {
        const std::size_t first = block * channel_block;
        const std::size_t width = args.d_inner - first < channel_block ? args.d_inner - first : channel_block;
        const float* a = args.a_log2e + first * args.d_state;
        float* h = args.h + first * args.d_state;
        for (std::size_t t = 0; t < args.tokens; ++t) {
            const float* b = args.b + t * args.bc_stride;
            const float* c = args.c + t * args.bc_stride;
            for (std::size_t i = 0; i < width; i += lane_count) {
                const std::size_t channel = first + i;
                const std::size_t at = t * args.d_inner + channel;
                const std::size_t n = width - i < lane_count ? width - i : lane_count;
                if (n == lane_count) {
                    const f32_vector dt = load(args.dt + at);
                    const f32_vector u = load(args.u + at);
                    const f32_vector sum = scan_vector(a + i, h + i, b, c, args.d_state, dt, mul(dt, u));
                    store(mul_add(load(args.d + channel), u, sum), args.y + at);
                } else {  // A and h are zero behind the last channel, so whole vectors of them are safe
                    const f32_vector dt = load_first(args.dt + at, n);
                    const f32_vector u = load_first(args.u + at, n);
                    const f32_vector sum = scan_vector(a + i, h + i, b, c, args.d_state, dt, mul(dt, u));
                    store_first(mul_add(load_first(args.d + channel, n), u, sum), args.y + at, n);
                }
            }
        }
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/attention-inl.hpp ---------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline constexpr std::size_t tile_keys = 32;
inline constexpr std::size_t tile_floats = 4096;
inline constexpr std::size_t row_block = 64;
inline constexpr float lowest_score = -3.0e38f;

template <class Element>
PHI4FLASH_VECTOR_INLINE void tile_scores(const float* PHI4FLASH_RESTRICT q, const Element* PHI4FLASH_RESTRICT k, std::size_t width,
                                         std::size_t d_head, std::size_t begin, std::size_t end, float scale,
                                         float* PHI4FLASH_RESTRICT scores) {
    const std::size_t lane_count = lanes();
    const std::size_t whole = d_head / lane_count * lane_count;
    std::size_t j = begin;
    for (; j + 4 <= end && whole == d_head; j += 4) {
        const Element* k0 = k + j * width;
        const Element* k1 = k0 + width;
        const Element* k2 = k1 + width;
        const Element* k3 = k2 + width;
        f32_vector s0 = zero();
        f32_vector s1 = zero();
        f32_vector s2 = zero();
        f32_vector s3 = zero();
        for (std::size_t i = 0; i < whole; i += lane_count) {
            const f32_vector x = load(q + i);
            s0 = mul_add(x, load(k0 + i), s0);
            s1 = mul_add(x, load(k1 + i), s1);
            s2 = mul_add(x, load(k2 + i), s2);
            s3 = mul_add(x, load(k3 + i), s3);
        }
        scores[j] = scale * reduce_sum(s0);
        scores[j + 1] = scale * reduce_sum(s1);
        scores[j + 2] = scale * reduce_sum(s2);
        scores[j + 3] = scale * reduce_sum(s3);
    }
    for (; j < end; ++j) {
        f32_vector s = zero();
        for (std::size_t i = 0; i < whole; i += lane_count) s = mul_add(load(q + i), load(k + j * width + i), s);
        if (whole < d_head) s = mul_add(load_first(q + whole, d_head - whole), load_first(k + j * width + whole, d_head - whole), s);
        scores[j] = scale * reduce_sum(s);
    }
}

template <class Element>
PHI4FLASH_VECTOR_INLINE void tile_values(const float* PHI4FLASH_RESTRICT p, const Element* PHI4FLASH_RESTRICT v, std::size_t width,
                                         std::size_t begin, std::size_t end, float correction, float* PHI4FLASH_RESTRICT out) {
    const std::size_t lane_count = lanes();
    const f32_vector keep = set(correction);
    std::size_t i = 0;
    for (; i + 4 * lane_count <= width; i += 4 * lane_count) {
        f32_vector o0 = mul(keep, load(out + i));
        f32_vector o1 = mul(keep, load(out + i + lane_count));
        f32_vector o2 = mul(keep, load(out + i + 2 * lane_count));
        f32_vector o3 = mul(keep, load(out + i + 3 * lane_count));
        for (std::size_t j = begin; j < end; ++j) {
            const f32_vector weight = set(p[j]);
            const Element* row = v + j * width + i;
            o0 = mul_add(weight, load(row), o0);
            o1 = mul_add(weight, load(row + lane_count), o1);
            o2 = mul_add(weight, load(row + 2 * lane_count), o2);
            o3 = mul_add(weight, load(row + 3 * lane_count), o3);
        }
        store(o0, out + i);
        store(o1, out + i + lane_count);
        store(o2, out + i + 2 * lane_count);
        store(o3, out + i + 3 * lane_count);
    }
    for (; i + lane_count <= width; i += lane_count) {
        f32_vector o = mul(keep, load(out + i));
        for (std::size_t j = begin; j < end; ++j) o = mul_add(set(p[j]), load(v + j * width + i), o);
        store(o, out + i);
    }
    if (i < width) {
        f32_vector o = mul(keep, load_first(out + i, width - i));
        for (std::size_t j = begin; j < end; ++j) o = mul_add(set(p[j]), load_first(v + j * width + i, width - i), o);
        store_first(o, out + i, width - i);
    }
}

struct attention_row {
    const float* q;
    float* out;
    std::size_t key_head;        ///< within the group
    std::size_t position;
    std::size_t first_visible;   ///< position
    float slope;
    float maximum;
    float sum;
};

template <class Element>
PHI4FLASH_VECTOR_INLINE void attend_tile(const attention_args& args, attention_row& row, const Element* k, const Element* v,
                                         std::size_t tile_position, std::size_t begin, std::size_t end) {
    const std::size_t width = args.k_per_group * args.d_head;
    const std::size_t lane_count = lanes();
    float scores[tile_keys + max_lanes];
    for (std::size_t j = 0; j < tile_keys; ++j) scores[j] = lowest_score;
    tile_scores(row.q, k + row.key_head * args.d_head, width, args.d_head, begin, end, args.scale, scores);
    if (row.slope != 0.0f) {
        for (std::size_t j = begin; j < end; ++j)
            scores[j] = mul_add_one(-row.slope, static_cast<float>(row.position - (tile_position + j)), scores[j]);
    }
    float highest = row.maximum;
    for (std::size_t j = begin; j < end; ++j) highest = scores[j] > highest ? scores[j] : highest;
    const f32_vector shift = set(highest);
    f32_vector sums = zero();
    const std::size_t first = begin / lane_count * lane_count;
    for (std::size_t j = first; j < end; j += lane_count) {
        const f32_vector e = exp_of(sub(load(scores + j), shift));
        store(e, scores + j);
    }
    float rest = 0.0f;
    std::size_t j = begin;
    for (; j < end && j % lane_count != 0; ++j) rest += scores[j];
    for (; j + lane_count <= end; j += lane_count) sums = add(sums, load(scores + j));
    for (; j < end; ++j) rest += scores[j];
    float shrink[max_lanes];
    store(exp_of(set(row.maximum - highest)), shrink);
    const float correction = row.maximum == lowest_score ? 0.0f : shrink[0];
    row.maximum = highest;
    row.sum = mul_add_one(row.sum, correction, reduce_sum(sums) + rest);
    tile_values(scores, v, width, begin, end, correction, row.out);
}

inline void visible_keys(const attention_row& row, std::size_t position, std::size_t count, std::size_t& begin, std::size_t& end) {
    begin = row.first_visible > position ? row.first_visible - position : 0;
    end = row.position < position ? 0 : row.position - position + 1;
    end = end < count ? end : count;
}

template <class Element>
inline void attend_segment(const attention_args& args, std::size_t group, attention_row* rows, std::size_t n_rows,
                           const kv_segment& segment) {
    const std::size_t width = args.k_per_group * args.d_head;
    const auto* k = reinterpret_cast<const Element*>(segment.k) + group * segment.group_rows * width;
    const auto* v = reinterpret_cast<const Element*>(segment.v) + group * segment.group_rows * width;
    const std::size_t earliest = rows[0].first_visible;
    const std::size_t latest = rows[n_rows - 1].position;
    if (latest < segment.first_position || earliest >= segment.first_position + segment.count) return;
    const std::size_t wide_step = width * tile_keys <= tile_floats ? tile_keys : tile_floats / width;
    const bool can_widen = dtype_of<Element> != dtype::f32 && wide_step >= 4;
    const std::size_t tile_step = can_widen ? wide_step : tile_keys;
    const std::size_t first_key = earliest > segment.first_position ? earliest - segment.first_position : 0;
    const std::size_t start = first_key / tile_step * tile_step;
    const std::size_t stop = latest - segment.first_position + 1 < segment.count ? latest - segment.first_position + 1 : segment.count;
    const bool widened = can_widen && n_rows > 2 * args.k_per_group * args.queries_per_key;
    alignas(64) float wide_k[dtype_of<Element> == dtype::f32 ? 1 : tile_floats];
    alignas(64) float wide_v[dtype_of<Element> == dtype::f32 ? 1 : tile_floats];
    for (std::size_t j = start; j < stop; j += tile_step) {
        const std::size_t count = stop - j < tile_step ? stop - j : tile_step;
        const std::size_t position = segment.first_position + j;
        if (widened) {
            widen<Element>(reinterpret_cast<const std::byte*>(k + j * width), count * width, wide_k);
            widen<Element>(reinterpret_cast<const std::byte*>(v + j * width), count * width, wide_v);
        }
        for (std::size_t r = 0; r < n_rows; ++r) {
            std::size_t begin = 0;
            std::size_t end = 0;
            visible_keys(rows[r], position, count, begin, end);
            if (begin >= end) continue;
            if (widened) {
                attend_tile<float>(args, rows[r], wide_k, wide_v, position, begin, end);
            } else {
                attend_tile<Element>(args, rows[r], k + j * width, v + j * width, position, begin, end);
            }
        }
    }
}

template <class Element>
inline void attention(const attention_args& args, std::size_t group, std::size_t token_begin, std::size_t token_end,
                      const kv_segment* segments, std::size_t n_segments) {
    const std::size_t width = args.k_per_group * args.d_head;
    const std::size_t heads = args.k_per_group * args.queries_per_key;  // query heads of this group
    attention_row rows[row_block];
    const std::size_t total = (token_end - token_begin) * heads;
    for (std::size_t first = 0; first < total; first += row_block) {
        const std::size_t n_rows = total - first < row_block ? total - first : row_block;
        for (std::size_t i = 0; i < n_rows; ++i) {
            const std::size_t token = token_begin + (first + i) / heads;
            const std::size_t head_in_group = (first + i) % heads;
            const std::size_t head = group * heads + head_in_group;
            attention_row& row = rows[i];
            row.q = args.q + token * args.q_stride + head * args.d_head;
            row.out = args.out + token * args.out_stride + head * width;
            row.key_head = head_in_group % args.k_per_group;
            row.position = args.first_position + token;
            row.first_visible = row.position >= args.window ? row.position - args.window + 1 : 0;
            row.slope = args.slopes == nullptr ? 0.0f : args.slopes[head];
            row.maximum = lowest_score;
            row.sum = 0.0f;
            for (std::size_t c = 0; c < width; ++c) row.out[c] = 0.0f;
        }
        for (std::size_t s = 0; s < n_segments; ++s) attend_segment<Element>(args, group, rows, n_rows, segments[s]);
        const std::size_t lane_count = lanes();
        for (std::size_t i = 0; i < n_rows; ++i) {
            const float inverse = 1.0f / rows[i].sum;  // a token sees itself, so the sum is at least 1
            std::size_t c = 0;
            for (; c + lane_count <= width; c += lane_count) store(mul(load(rows[i].out + c), set(inverse)), rows[i].out + c);
            for (; c < width; ++c) rows[i].out[c] *= inverse;
        }
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/packed-inl.hpp ------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

template <int Limit, int Zero>
inline const std::byte* arrange_int8(const float* PHI4FLASH_RESTRICT x, std::size_t cols, std::size_t token, std::size_t tokens,
                                     std::byte* scratch) {
    auto* groups = reinterpret_cast<activation_group*>(scratch) + token;
    const std::size_t lane_count = lanes();
    for (std::size_t g = 0; g < cols / packed_cols; ++g, groups += tokens) {
        const float* group = x + g * packed_cols;
        f32_vector highest = zero();
        for (std::size_t i = 0; i < packed_cols; i += lane_count) highest = max_of(highest, abs_of(load(group + i)));
        const float most = reduce_max(highest);
        const f32_vector inverse = set(most > 0.0f ? static_cast<float>(Limit) / most : 0.0f);
        float rounded[packed_cols];
        f32_vector sums = zero();
        for (std::size_t i = 0; i < packed_cols; i += lane_count) {
            const f32_vector q = round_nearest(mul(load(group + i), inverse));
            store(q, rounded + i);
            sums = add(sums, q);
        }
        for (std::size_t i = 0; i < packed_cols; ++i) groups->q[i] = static_cast<std::int8_t>(rounded[i]);
        groups->scale = most / static_cast<float>(Limit);
        groups->offset = static_cast<float>(-Zero) * groups->scale * reduce_sum(sums);
    }
    return scratch;
}

PHI4FLASH_VECTOR_INLINE rows_f32 add_group(rows_i32 sums, rows_f32 scales, const activation_group& x, rows_f32 total) {
    return mul_add_rows(scales, scale_sums(sums, x.scale, x.offset), total);
}

#define PHI4FLASH_UNPACK_Q4(block, row)                                          \
    const code_vector codes0 = load_codes((block).code[0] + 4 * (row));          \
    const code_vector codes1 = load_codes((block).code[1] + 4 * (row));          \
    const code_vector codes2 = load_codes((block).code[2] + 4 * (row));          \
    const code_vector codes3 = load_codes((block).code[3] + 4 * (row));          \
    const code_vector w0 = q4_levels<Dense>(levels, low_codes(codes0));          \
    const code_vector w1 = q4_levels<Dense>(levels, low_codes(codes1));          \
    const code_vector w2 = q4_levels<Dense>(levels, low_codes(codes2));          \
    const code_vector w3 = q4_levels<Dense>(levels, low_codes(codes3));          \
    const code_vector w4 = q4_levels<Dense>(levels, high_codes(codes0));         \
    const code_vector w5 = q4_levels<Dense>(levels, high_codes(codes1));         \
    const code_vector w6 = q4_levels<Dense>(levels, high_codes(codes2));         \
    const code_vector w7 = q4_levels<Dense>(levels, high_codes(codes3));         \
    static_assert(true)

template <bool Dense>
PHI4FLASH_VECTOR_INLINE code_vector q4_levels(code_vector levels, code_vector codes) {
    if constexpr (Dense) {
        return levels_of(levels, codes);
    } else {
        return codes;
    }
}

template <bool Dense>
PHI4FLASH_VECTOR_INLINE rows_i32 q4_dot(code_vector w0, code_vector w1, code_vector w2, code_vector w3, code_vector w4, code_vector w5,
                                        code_vector w6, code_vector w7, const std::int8_t* x) {
    dot_sums a = dot_next(dot_next(dot_next(dot_first(w0, broadcast_four(x)), w1, broadcast_four(x + 4)), w2, broadcast_four(x + 8)), w3,
                          broadcast_four(x + 12));
    if constexpr (Dense) {
        const dot_sums b = dot_next(dot_next(dot_next(dot_first(w4, broadcast_four(x + 16)), w5, broadcast_four(x + 20)), w6, broadcast_four(x + 24)),
                                    w7, broadcast_four(x + 28));
        return dot_fold(dot_fold(a), b);
    } else {
        a = dot_next(dot_next(dot_next(dot_next(a, w4, broadcast_four(x + 16)), w5, broadcast_four(x + 20)), w6, broadcast_four(x + 24)), w7,
                     broadcast_four(x + 28));
        return dot_fold(a);
    }
}

PHI4FLASH_VECTOR_INLINE void dot_first_four(code_vector w, const activation_group* x, std::size_t at, dot_sums& a, dot_sums& b, dot_sums& c,
                                            dot_sums& d) {
    a = dot_first(w, broadcast_four(x[0].q + at));
    b = dot_first(w, broadcast_four(x[1].q + at));
    c = dot_first(w, broadcast_four(x[2].q + at));
    d = dot_first(w, broadcast_four(x[3].q + at));
}
PHI4FLASH_VECTOR_INLINE void dot_next_four(code_vector w, const activation_group* x, std::size_t at, dot_sums& a, dot_sums& b, dot_sums& c,
                                           dot_sums& d) {
    a = dot_next(a, w, broadcast_four(x[0].q + at));
    b = dot_next(b, w, broadcast_four(x[1].q + at));
    c = dot_next(c, w, broadcast_four(x[2].q + at));
    d = dot_next(d, w, broadcast_four(x[3].q + at));
}

PHI4FLASH_VECTOR_INLINE void add_group_to(float* sum, rows_i32 dots, rows_f32 scales, const activation_group& x) {
    store_rows(add_group(dots, scales, x, load_rows(sum)), sum);
}

template <bool Dense>
PHI4FLASH_VECTOR_INLINE void q4_dot_four(code_vector w0, code_vector w1, code_vector w2, code_vector w3, code_vector w4, code_vector w5,
                                         code_vector w6, code_vector w7, const activation_group* x, rows_f32 scales, float* sums) {
    dot_sums a, b, c, d;
    dot_first_four(w0, x, 0, a, b, c, d);
    dot_next_four(w1, x, 4, a, b, c, d);
    dot_next_four(w2, x, 8, a, b, c, d);
    dot_next_four(w3, x, 12, a, b, c, d);
    if constexpr (Dense) {
        dot_sums e, f, g, h;
        dot_first_four(w4, x, 16, e, f, g, h);
        dot_next_four(w5, x, 20, e, f, g, h);
        dot_next_four(w6, x, 24, e, f, g, h);
        dot_next_four(w7, x, 28, e, f, g, h);
        add_group_to(sums, dot_fold(dot_fold(a), e), scales, x[0]);
        add_group_to(sums + packed_rows, dot_fold(dot_fold(b), f), scales, x[1]);
        add_group_to(sums + 2 * packed_rows, dot_fold(dot_fold(c), g), scales, x[2]);
        add_group_to(sums + 3 * packed_rows, dot_fold(dot_fold(d), h), scales, x[3]);
    } else {
        dot_next_four(w4, x, 16, a, b, c, d);
        dot_next_four(w5, x, 20, a, b, c, d);
        dot_next_four(w6, x, 24, a, b, c, d);
        dot_next_four(w7, x, 28, a, b, c, d);
        add_group_to(sums, dot_fold(a), scales, x[0]);
        add_group_to(sums + packed_rows, dot_fold(b), scales, x[1]);
        add_group_to(sums + 2 * packed_rows, dot_fold(c), scales, x[2]);
        add_group_to(sums + 3 * packed_rows, dot_fold(d), scales, x[3]);
    }
}

PHI4FLASH_VECTOR_INLINE rows_i32 q8_dot(const q8_block& block, std::size_t row, const std::int8_t* x) {
    rows_i32 total = set_rows(0);
    for (std::size_t s = 0; s < 8; ++s) total = dot_signed(total, load_codes(block.code[s] + 4 * row), broadcast_four(x + 4 * s));
    return total;
}

PHI4FLASH_VECTOR_INLINE void q8_dot_four(const q8_block& block, std::size_t row, const activation_group* x, rows_f32 scales, float* sums) {
    rows_i32 a = set_rows(0);
    rows_i32 b = set_rows(0);
    rows_i32 c = set_rows(0);
    rows_i32 d = set_rows(0);
    for (std::size_t s = 0; s < 8; ++s) {
        const signed_code_vector w = load_codes(block.code[s] + 4 * row);
        a = dot_signed(a, w, broadcast_four(x[0].q + 4 * s));
        b = dot_signed(b, w, broadcast_four(x[1].q + 4 * s));
        c = dot_signed(c, w, broadcast_four(x[2].q + 4 * s));
        d = dot_signed(d, w, broadcast_four(x[3].q + 4 * s));
    }
    add_group_to(sums, a, scales, x[0]);
    add_group_to(sums + packed_rows, b, scales, x[1]);
    add_group_to(sums + 2 * packed_rows, c, scales, x[2]);
    add_group_to(sums + 3 * packed_rows, d, scales, x[3]);
}

PHI4FLASH_VECTOR_INLINE void put_rows(rows_f32 v, const float* bias, float* y) {
    store_rows(v, y);
    for (std::size_t r = 0; bias != nullptr && r < rows_lanes(); ++r) y[r] += bias[r];
}

inline constexpr std::size_t packed_tokens = 32;

inline constexpr std::size_t packed_panel = 128;

template <dtype Format>
PHI4FLASH_VECTOR_INLINE void packed_row_tile(const std::byte* w, std::size_t groups, std::size_t row, const activation_group* x,
                                             std::size_t group_stride, std::size_t tokens, bool first, const float* bias, float* y, std::size_t y_stride) {
    constexpr bool Dense = Format == dtype::q4_dense;
    [[maybe_unused]] const code_vector levels = load_levels(q4_dense.level);
    float sums[packed_tokens * packed_rows];
    for (std::size_t t = 0; t < tokens; ++t) store_rows(first ? zero_rows() : load_rows(y + t * y_stride), sums + t * packed_rows);
    for (std::size_t g = 0; g < groups; ++g, x += group_stride) {
        if constexpr (Format == dtype::q8) {
            const q8_block& block = reinterpret_cast<const q8_block*>(w)[g];
            const rows_f32 scales = load_scales(block.scale + row);
            std::size_t t = 0;
            for (; t + 4 <= tokens; t += 4) q8_dot_four(block, row, x + t, scales, sums + t * packed_rows);
            for (; t < tokens; ++t) add_group_to(sums + t * packed_rows, q8_dot(block, row, x[t].q), scales, x[t]);
        } else {
            const q4_block& block = reinterpret_cast<const q4_block*>(w)[g];
            PHI4FLASH_UNPACK_Q4(block, row);
            const rows_f32 scales = load_scales(block.scale + row);
            std::size_t t = 0;
            for (; t + 4 <= tokens; t += 4) q4_dot_four<Dense>(w0, w1, w2, w3, w4, w5, w6, w7, x + t, scales, sums + t * packed_rows);
            for (; t < tokens; ++t)
                add_group_to(sums + t * packed_rows, q4_dot<Dense>(w0, w1, w2, w3, w4, w5, w6, w7, x[t].q), scales, x[t]);
        }
    }
    for (std::size_t t = 0; t < tokens; ++t) put_rows(load_rows(sums + t * packed_rows), bias, y + t * y_stride);
}

template <dtype Format>
PHI4FLASH_VECTOR_INLINE void packed_row(const std::byte* w, std::size_t groups, std::size_t row, const activation_group* x, const float* bias,
                                        float* y) {
    constexpr bool Dense = Format == dtype::q4_dense;
    [[maybe_unused]] const code_vector levels = load_levels(q4_dense.level);
    rows_f32 sum = zero_rows();
    for (std::size_t g = 0; g < groups; ++g) {
        if constexpr (Format == dtype::q8) {
            const q8_block& block = reinterpret_cast<const q8_block*>(w)[g];
            sum = add_group(q8_dot(block, row, x[g].q), load_scales(block.scale + row), x[g], sum);
        } else {
            const q4_block& block = reinterpret_cast<const q4_block*>(w)[g];
            PHI4FLASH_UNPACK_Q4(block, row);
            sum = add_group(q4_dot<Dense>(w0, w1, w2, w3, w4, w5, w6, w7, x[g].q), load_scales(block.scale + row), x[g], sum);
        }
    }
    put_rows(sum, bias, y);
}
#undef PHI4FLASH_UNPACK_Q4

template <dtype Format>
inline void packed_matvec(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, const float* bias, float* y) {
    const std::size_t groups = cols / packed_cols;
    for (std::size_t r = 0; r < rows; r += packed_rows) {
        for (std::size_t row = 0; row < packed_rows; row += rows_lanes())
            packed_row<Format>(w + matrix_bytes(Format, r, cols), groups, row, reinterpret_cast<const activation_group*>(x),
                               bias == nullptr ? nullptr : bias + r + row, y + r + row);
    }
}

template <dtype Format>
inline void packed_matmul(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, std::size_t, std::size_t tokens,
                          const float* bias, float* y, std::size_t y_stride) {
    const std::size_t groups = cols / packed_cols;
    const auto* activations = reinterpret_cast<const activation_group*>(x);
    for (std::size_t t = 0; t < tokens; t += packed_tokens) {
        const std::size_t count = tokens - t < packed_tokens ? tokens - t : packed_tokens;
        for (std::size_t g = 0; g < groups; g += packed_panel) {
            const std::size_t some = groups - g < packed_panel ? groups - g : packed_panel;
            const bool last = g + some == groups;
            for (std::size_t r = 0; r < rows; r += packed_rows) {
                const std::byte* blocks = w + matrix_bytes(Format, r, cols) + matrix_bytes(Format, packed_rows, g * packed_cols);
                for (std::size_t row = 0; row < packed_rows; row += rows_lanes())
                    packed_row_tile<Format>(blocks, some, row, activations + g * tokens + t, tokens, count, g == 0,
                                            bias == nullptr || !last ? nullptr : bias + r + row, y + t * y_stride + r + row, y_stride);
            }
        }
    }
}

template <dtype Format>
inline void packed_widen_row(const std::byte* w, std::size_t r, std::size_t cols, float* out) {
    const std::size_t groups = cols / packed_cols;
    for (std::size_t g = 0; g < groups; ++g) {
        const std::size_t at = r / packed_rows * groups + g;
        if constexpr (Format == dtype::q8) {
            decode_row(reinterpret_cast<const q8_block*>(w)[at], r % packed_rows, out + g * packed_cols);
        } else {
            constexpr const q4_codebook& book = Format == dtype::q4_dense ? q4_dense : q4_uniform;
            decode_row(reinterpret_cast<const q4_block*>(w)[at], book, r % packed_rows, out + g * packed_cols);
        }
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/table-inl.hpp -------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline std::size_t lanes_of_target() { return lanes(); }

template <class Element>
inline constexpr linear_kernels plain_kernels{
    .matvec = &matvec<Element>,
    .arrange = dtype_of<Element> == dtype::bf16 ? &arrange_even_odd : &arrange_none,
    .matmul = &matmul<Element>,
    .matmul_arranged = false,
    .widen = &widen_row<Element>,
};

template <dtype Format>
inline constexpr linear_kernels packed_kernels{
    .matvec = &packed_matvec<Format>,
    .arrange = Format == dtype::q8   ? &arrange_int8<127, 0>
               : Format == dtype::q4 ? &arrange_int8<127, q4_uniform.zero>
                                     : &arrange_int8<dense_activation_limit, q4_dense.zero>,
    .matmul = &packed_matmul<Format>,
    .matmul_arranged = true,
    .widen = &packed_widen_row<Format>,
};

inline constexpr kernel_table table{
    .name = PHI4FLASH_TARGET_LABEL,
    .lanes = &lanes_of_target,
    .linear = {plain_kernels<float>, plain_kernels<f16>, plain_kernels<bf16>, packed_kernels<dtype::q8>, packed_kernels<dtype::q4>,
               packed_kernels<dtype::q4_dense>},
    .layer_norm = &layer_norm,
    .rms_norm = &rms_norm,
    .accumulate = &accumulate,
    .silu_mul = &silu_mul,
    .softplus = &softplus,
    .softmax = &softmax,
    .convolution = &convolution,
    .scan = &scan,
    .narrow = {&narrow<float>, nullptr, &narrow<bf16>},
    .attention = {&attention<float>, nullptr, &attention<bf16>},
    .difference_norm = &difference_norm,
    .rotate = &rotate,
    .read = &read_all,
};

PHI4FLASH_TARGET_END
#endif

#endif  // PHI4FLASH_ARCH_X86

// The static target comes last, so that code after this header sees Highway as if we had not been here.
#undef HWY_TARGET
#define HWY_TARGET HWY_STATIC_TARGET

// ---- phi4flash/simd/next_target-inl.hpp ----------------------------------------------------------------------------------
#undef HWY_TARGET_TOGGLE
#undef HWY_SET_MACROS_PER_TARGET
#ifdef HWY_HIGHWAY_PER_TARGET
#define HWY_TARGET_TOGGLE
#define HWY_SET_MACROS_PER_TARGET
#endif
#if PHI4FLASH_HIGHWAY_WAS_INCLUDED
// Only the macros of the static target are set again; its operations are there since the user's own include.
#include <hwy/ops/set_macros-inl.h>
#ifdef HWY_TARGET_TOGGLE
#undef HWY_TARGET_TOGGLE
#else
#define HWY_TARGET_TOGGLE
#endif
#endif
#undef PHI4FLASH_TARGET_LABEL
#if HWY_STATIC_TARGET == HWY_AVX3_ZEN4
#define PHI4FLASH_TARGET_LABEL "avx3_zen4"
#elif HWY_STATIC_TARGET == HWY_AVX3_DL
#define PHI4FLASH_TARGET_LABEL "avx3_dl"
#elif HWY_STATIC_TARGET == HWY_AVX3
#define PHI4FLASH_TARGET_LABEL "avx3"
#elif HWY_STATIC_TARGET == HWY_AVX2
#define PHI4FLASH_TARGET_LABEL "avx2"
#elif HWY_STATIC_TARGET == HWY_SSE4
#define PHI4FLASH_TARGET_LABEL "sse4"
#elif HWY_STATIC_TARGET == HWY_SSSE3
#define PHI4FLASH_TARGET_LABEL "ssse3"
#elif HWY_STATIC_TARGET == HWY_SSE2
#define PHI4FLASH_TARGET_LABEL "sse2"
#elif HWY_STATIC_TARGET & HWY_ALL_NEON
#define PHI4FLASH_TARGET_LABEL "neon"
#elif HWY_STATIC_TARGET & HWY_ALL_SVE
#define PHI4FLASH_TARGET_LABEL "sve"
#elif HWY_STATIC_TARGET == HWY_RVV
#define PHI4FLASH_TARGET_LABEL "rvv"
#elif HWY_STATIC_TARGET == HWY_WASM
#define PHI4FLASH_TARGET_LABEL "wasm"
#else
#define PHI4FLASH_TARGET_LABEL "static"
#endif

// ---- phi4flash/kernels/target-inl.hpp ------------------------------------------------------------------------------------

// ---- phi4flash/simd/vocabulary-inl.hpp -----------------------------------------------------------------------------------
#if PHI4FLASH_SIMD_HIGHWAY

// ---- phi4flash/simd/vocabulary_highway-inl.hpp ---------------------------------------------------------------------------
#include <hwy/highway.h>
PHI4FLASH_TARGET_BEGIN

namespace hn = hwy::HWY_NAMESPACE;

using f32_tag = hn::CappedTag<float, max_lanes>;
using i32_tag = hn::RebindToSigned<f32_tag>;
using u32_tag = hn::RebindToUnsigned<f32_tag>;
using u16_half_tag = hn::Rebind<std::uint16_t, f32_tag>;
using f32_vector = hn::Vec<f32_tag>;

PHI4FLASH_VECTOR_INLINE std::size_t lanes() { return hn::Lanes(f32_tag()); }
PHI4FLASH_VECTOR_INLINE f32_vector zero() { return hn::Zero(f32_tag()); }
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return hn::Set(f32_tag(), x); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const float* p) { return hn::LoadU(f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, float* p) { hn::StoreU(v, f32_tag(), p); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const bf16* p) {
    const auto narrow = hn::LoadU(u16_half_tag(), reinterpret_cast<const std::uint16_t*>(p));
    return hn::BitCast(f32_tag(), hn::ShiftLeft<16>(hn::PromoteTo(u32_tag(), narrow)));
}
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, bf16* p) {
    const u32_tag du;
    const auto bits = hn::BitCast(du, v);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
    const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fffu))));
    hn::StoreU(hn::TruncateTo(u16_half_tag(), rounded), u16_half_tag(), reinterpret_cast<std::uint16_t*>(p));
}
PHI4FLASH_VECTOR_INLINE f32_vector load(const f16* p) {
#if HWY_TARGET <= HWY_AVX2 || (HWY_TARGET & (HWY_ALL_NEON | HWY_ALL_SVE))
    const hn::Rebind<hwy::float16_t, f32_tag> half;
    return hn::PromoteTo(f32_tag(), hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(p)));
#else
    const u32_tag du;
    const auto bits = hn::PromoteTo(du, hn::LoadU(u16_half_tag(), reinterpret_cast<const std::uint16_t*>(p)));
    const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(du, 0x8000u)));
    const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(du, 0x7fffu)));
    const auto value = hn::BitCast(du, hn::Mul(hn::BitCast(f32_tag(), magnitude), hn::Set(f32_tag(), 0x1p112f)));
    const auto not_finite = hn::IfThenElseZero(hn::Ge(magnitude, hn::Set(du, 0x0f800000u)), hn::Set(du, 0x7f800000u));
    return hn::BitCast(f32_tag(), hn::Or(hn::Or(value, not_finite), sign));
#endif
}
PHI4FLASH_VECTOR_INLINE void load_even_odd(const bf16* p, f32_vector& even, f32_vector& odd) {
    const u32_tag du;
    const auto both = hn::LoadU(du, reinterpret_cast<const std::uint32_t*>(p));
    even = hn::BitCast(f32_tag(), hn::ShiftLeft<16>(both));
    odd = hn::BitCast(f32_tag(), hn::And(both, hn::Set(du, 0xffff0000u)));
}

PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) { return hn::Add(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) { return hn::Sub(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) { return hn::Mul(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) { return hn::Div(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) { return hn::MulAdd(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) { return hn::NegMulAdd(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector min_of(f32_vector a, f32_vector b) { return hn::Min(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector max_of(f32_vector a, f32_vector b) { return hn::Max(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector abs_of(f32_vector a) { return hn::Abs(a); }

PHI4FLASH_VECTOR_INLINE float reduce_sum(f32_vector v) { return hn::ReduceSum(f32_tag(), v); }
PHI4FLASH_VECTOR_INLINE float reduce_max(f32_vector v) { return hn::ReduceMax(f32_tag(), v); }

PHI4FLASH_VECTOR_INLINE f32_vector round_nearest(f32_vector v) { return hn::Round(v); }
PHI4FLASH_VECTOR_INLINE f32_vector scale_by_power_of_two(f32_vector v, f32_vector n) {
    const auto exponent = hn::Add(hn::NearestInt(n), hn::Set(i32_tag(), 127));
    return hn::Mul(v, hn::BitCast(f32_tag(), hn::ShiftLeft<23>(exponent)));
}

PHI4FLASH_TARGET_END
#elif PHI4FLASH_SIMD_XSIMD

// ---- phi4flash/simd/vocabulary_xsimd-inl.hpp -----------------------------------------------------------------------------
#include <xsimd/xsimd.hpp>
PHI4FLASH_TARGET_BEGIN

using f32_vector = xsimd::batch<float>;
using i32_vector = xsimd::batch<std::int32_t>;
using u32_vector = xsimd::batch<std::uint32_t>;
static_assert(f32_vector::size <= max_lanes, "phi4flash: layouts are blocked by 16 lanes");

PHI4FLASH_VECTOR_INLINE constexpr std::size_t lanes() { return f32_vector::size; }
PHI4FLASH_VECTOR_INLINE f32_vector zero() { return f32_vector(0.0f); }
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return f32_vector(x); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const float* p) { return f32_vector::load_unaligned(p); }
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, float* p) { v.store_unaligned(p); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const bf16* p) {
    alignas(64) std::uint32_t wide[f32_vector::size];
    for (std::size_t i = 0; i < f32_vector::size; ++i) wide[i] = static_cast<std::uint32_t>(p[i].bits) << 16;
    return xsimd::bitwise_cast<float>(u32_vector::load_aligned(wide));
}
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, bf16* p) {
    alignas(64) float wide[f32_vector::size];
    v.store_aligned(wide);
    for (std::size_t i = 0; i < f32_vector::size; ++i) p[i] = to_bf16(wide[i]);
}
PHI4FLASH_VECTOR_INLINE f32_vector load(const f16* p) {
    alignas(64) float wide[f32_vector::size];
    for (std::size_t i = 0; i < f32_vector::size; ++i) wide[i] = to_f32(p[i]);
    return f32_vector::load_aligned(wide);
}
PHI4FLASH_VECTOR_INLINE void load_even_odd(const bf16* p, f32_vector& even, f32_vector& odd) {
    const u32_vector both = xsimd::bitwise_cast<std::uint32_t>(f32_vector::load_unaligned(reinterpret_cast<const float*>(p)));
    even = xsimd::bitwise_cast<float>(both << 16);
    odd = xsimd::bitwise_cast<float>(both & u32_vector(0xffff0000u));
}

PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) { return a + b; }
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) { return a - b; }
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) { return a * b; }
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) { return a / b; }
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) { return xsimd::fma(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) { return xsimd::fnma(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector min_of(f32_vector a, f32_vector b) { return xsimd::min(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector max_of(f32_vector a, f32_vector b) { return xsimd::max(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector abs_of(f32_vector a) { return xsimd::abs(a); }

PHI4FLASH_VECTOR_INLINE float reduce_sum(f32_vector v) { return xsimd::reduce_add(v); }
PHI4FLASH_VECTOR_INLINE float reduce_max(f32_vector v) { return xsimd::reduce_max(v); }

PHI4FLASH_VECTOR_INLINE f32_vector round_nearest(f32_vector v) { return xsimd::nearbyint(v); }
PHI4FLASH_VECTOR_INLINE f32_vector scale_by_power_of_two(f32_vector v, f32_vector n) {
    const i32_vector exponent = xsimd::nearbyint_as_int(n) + i32_vector(127);
    return v * xsimd::bitwise_cast<float>(exponent << 23);
}

PHI4FLASH_TARGET_END
#else

// ---- phi4flash/simd/vocabulary_scalar-inl.hpp ----------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline constexpr std::size_t scalar_lanes = 4;
struct f32_vector {
    float lane[scalar_lanes];
};

namespace detail {
template <class Operation>
PHI4FLASH_VECTOR_INLINE f32_vector each(Operation operation) {
    f32_vector r;
    for (std::size_t i = 0; i < scalar_lanes; ++i) r.lane[i] = operation(i);
    return r;
}
}  // namespace detail

PHI4FLASH_VECTOR_INLINE constexpr std::size_t lanes() { return scalar_lanes; }
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return detail::each([&](std::size_t) { return x; }); }
PHI4FLASH_VECTOR_INLINE f32_vector zero() { return set(0.0f); }

template <class T>
PHI4FLASH_VECTOR_INLINE f32_vector load(const T* p) {
    return detail::each([&](std::size_t i) { return to_f32(p[i]); });
}
template <class T>
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, T* p) {
    for (std::size_t i = 0; i < scalar_lanes; ++i) p[i] = from_f32<T>(v.lane[i]);
}
PHI4FLASH_VECTOR_INLINE void load_even_odd(const bf16* p, f32_vector& even, f32_vector& odd) {
    even = detail::each([&](std::size_t i) { return to_f32(p[2 * i]); });
    odd = detail::each([&](std::size_t i) { return to_f32(p[2 * i + 1]); });
}

PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] + b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] - b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] * b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] / b.lane[i]; });
}
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__)
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
}
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return std::fma(-a.lane[i], b.lane[i], c.lane[i]); });
}
#else
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return c.lane[i] - a.lane[i] * b.lane[i]; });
}
#endif
PHI4FLASH_VECTOR_INLINE f32_vector min_of(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector max_of(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector abs_of(f32_vector a) {
    return detail::each([&](std::size_t i) { return std::fabs(a.lane[i]); });
}

PHI4FLASH_VECTOR_INLINE float reduce_sum(f32_vector v) { return (v.lane[0] + v.lane[2]) + (v.lane[1] + v.lane[3]); }
PHI4FLASH_VECTOR_INLINE float reduce_max(f32_vector v) {
    float m = v.lane[0];
    for (std::size_t i = 1; i < scalar_lanes; ++i) m = v.lane[i] > m ? v.lane[i] : m;
    return m;
}

PHI4FLASH_VECTOR_INLINE f32_vector round_nearest(f32_vector v) {
    constexpr float magic = 0x1.8p23f;
    return detail::each([&](std::size_t i) { return (v.lane[i] + magic) - magic; });
}
PHI4FLASH_VECTOR_INLINE f32_vector scale_by_power_of_two(f32_vector v, f32_vector n) {
    return detail::each([&](std::size_t i) {
        const auto exponent = static_cast<std::uint32_t>(static_cast<std::int32_t>(n.lane[i]) + 127);
        return v.lane[i] * std::bit_cast<float>(exponent << 23);
    });
}

PHI4FLASH_TARGET_END
#endif

// ---- phi4flash/simd/integer-inl.hpp --------------------------------------------------------------------------------------
#if PHI4FLASH_SIMD_HIGHWAY

// ---- phi4flash/simd/integer_highway-inl.hpp ------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

using rows_tag = hn::CappedTag<std::int32_t, 8>;
using rows_f32_tag = hn::RebindToFloat<rows_tag>;
using rows_u8_tag = hn::Repartition<std::uint8_t, rows_tag>;
using rows_i8_tag = hn::Repartition<std::int8_t, rows_tag>;
using rows_i16_tag = hn::Repartition<std::int16_t, rows_tag>;
using rows_u16_tag = hn::Repartition<std::uint16_t, rows_tag>;
using rows_i32 = hn::Vec<rows_tag>;
using rows_f32 = hn::Vec<rows_f32_tag>;
using code_vector = hn::Vec<rows_u8_tag>;
using signed_code_vector = hn::Vec<rows_i8_tag>;

PHI4FLASH_VECTOR_INLINE std::size_t rows_lanes() { return hn::Lanes(rows_tag()); }
PHI4FLASH_VECTOR_INLINE code_vector load_codes(const std::uint8_t* p) { return hn::LoadU(rows_u8_tag(), p); }
PHI4FLASH_VECTOR_INLINE signed_code_vector load_codes(const std::int8_t* p) { return hn::LoadU(rows_i8_tag(), p); }
PHI4FLASH_VECTOR_INLINE code_vector load_levels(const std::uint8_t* sixteen) { return hn::LoadDup128(rows_u8_tag(), sixteen); }
PHI4FLASH_VECTOR_INLINE code_vector low_codes(code_vector v) { return hn::And(v, hn::Set(rows_u8_tag(), std::uint8_t{15})); }
PHI4FLASH_VECTOR_INLINE code_vector high_codes(code_vector v) {
    const rows_u16_tag du16;
    return low_codes(hn::BitCast(rows_u8_tag(), hn::ShiftRight<4>(hn::BitCast(du16, v))));
}
PHI4FLASH_VECTOR_INLINE code_vector levels_of(code_vector levels, code_vector codes) { return hn::TableLookupBytes(levels, codes); }
PHI4FLASH_VECTOR_INLINE signed_code_vector broadcast_four(const std::int8_t* p) {
    std::int32_t four;
    std::memcpy(&four, p, sizeof four);
    return hn::BitCast(rows_i8_tag(), hn::Set(rows_tag(), four));
}

#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL
using dot_sums = hn::Vec<rows_i16_tag>;
PHI4FLASH_VECTOR_INLINE dot_sums in_this_order(dot_sums sums) {
#if defined(__GNUC__) && !defined(__clang__)
    asm("" : "+x"(sums.raw));
#endif
    return sums;
}
PHI4FLASH_VECTOR_INLINE dot_sums dot_first(code_vector w, signed_code_vector x) { return hn::SatWidenMulPairwiseAdd(rows_i16_tag(), w, x); }
PHI4FLASH_VECTOR_INLINE dot_sums dot_next(dot_sums sums, code_vector w, signed_code_vector x) {
    return in_this_order(hn::Add(sums, hn::SatWidenMulPairwiseAdd(rows_i16_tag(), w, x)));
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(dot_sums sums) {
    return hn::WidenMulPairwiseAdd(rows_tag(), sums, hn::Set(rows_i16_tag(), std::int16_t{1}));
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(rows_i32 total, dot_sums sums) { return hn::Add(total, dot_fold(sums)); }
inline constexpr int dense_activation_limit = 67;
#else
using dot_sums = rows_i32;
#if HWY_ARCH_X86
PHI4FLASH_VECTOR_INLINE rows_i32 dot_four(code_vector w, signed_code_vector x, rows_i32 sum) {
    return hn::SumOfMulQuadAccumulate(rows_tag(), w, x, sum);
}
#else  // levels are below 128, so they are signed bytes too, for which other architectures have the instruction
PHI4FLASH_VECTOR_INLINE rows_i32 dot_four(code_vector w, signed_code_vector x, rows_i32 sum) {
    return hn::SumOfMulQuadAccumulate(rows_tag(), hn::BitCast(rows_i8_tag(), w), x, sum);
}
#endif
PHI4FLASH_VECTOR_INLINE dot_sums dot_first(code_vector w, signed_code_vector x) { return dot_four(w, x, hn::Zero(rows_tag())); }
PHI4FLASH_VECTOR_INLINE dot_sums dot_next(dot_sums sums, code_vector w, signed_code_vector x) { return dot_four(w, x, sums); }
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(dot_sums sums) { return sums; }
inline constexpr int dense_activation_limit = 127;
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(rows_i32 total, dot_sums sums) { return hn::Add(total, sums); }
#endif

#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL
PHI4FLASH_VECTOR_INLINE rows_i32 dot_signed(rows_i32 total, signed_code_vector w, signed_code_vector x) {
    const auto magnitude = hn::BitCast(rows_u8_tag(), hn::Abs(w));
    const auto signed_x = hn::IfNegativeThenNegOrUndefIfZero(w, x);
    return hn::Add(total, hn::WidenMulPairwiseAdd(rows_tag(), hn::SatWidenMulPairwiseAdd(rows_i16_tag(), magnitude, signed_x),
                                                  hn::Set(rows_i16_tag(), std::int16_t{1})));
}
#else
PHI4FLASH_VECTOR_INLINE rows_i32 dot_signed(rows_i32 total, signed_code_vector w, signed_code_vector x) {
    return hn::SumOfMulQuadAccumulate(rows_tag(), w, x, total);
}
#endif

PHI4FLASH_VECTOR_INLINE rows_i32 set_rows(std::int32_t x) { return hn::Set(rows_tag(), x); }
PHI4FLASH_VECTOR_INLINE rows_f32 zero_rows() { return hn::Zero(rows_f32_tag()); }
PHI4FLASH_VECTOR_INLINE rows_f32 load_scales(const f16* p) {
    const hn::Rebind<hwy::float16_t, rows_f32_tag> half;
    return hn::PromoteTo(rows_f32_tag(), hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(p)));
}
PHI4FLASH_VECTOR_INLINE rows_f32 scale_sums(rows_i32 sums, float scale, float offset) {
    const rows_f32_tag df;
    return hn::MulAdd(hn::ConvertTo(df, sums), hn::Set(df, scale), hn::Set(df, offset));
}
PHI4FLASH_VECTOR_INLINE rows_f32 mul_add_rows(rows_f32 a, rows_f32 b, rows_f32 c) { return hn::MulAdd(a, b, c); }
PHI4FLASH_VECTOR_INLINE rows_f32 load_rows(const float* p) { return hn::LoadU(rows_f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE void store_rows(rows_f32 v, float* p) { hn::StoreU(v, rows_f32_tag(), p); }

PHI4FLASH_TARGET_END
#else

// ---- phi4flash/simd/integer_plain-inl.hpp --------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline constexpr std::size_t plain_rows = 8;
struct rows_i32 {
    std::int32_t lane[plain_rows];
};
struct rows_f32 {
    float lane[plain_rows];
};
struct code_vector {
    std::uint8_t byte[4 * plain_rows];
};
struct signed_code_vector {
    std::int8_t byte[4 * plain_rows];
};
using dot_sums = rows_i32;

PHI4FLASH_VECTOR_INLINE constexpr std::size_t rows_lanes() { return plain_rows; }
PHI4FLASH_VECTOR_INLINE code_vector load_codes(const std::uint8_t* p) {
    code_vector v;
    std::memcpy(v.byte, p, sizeof v.byte);
    return v;
}
PHI4FLASH_VECTOR_INLINE signed_code_vector load_codes(const std::int8_t* p) {
    signed_code_vector v;
    std::memcpy(v.byte, p, sizeof v.byte);
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector load_levels(const std::uint8_t* sixteen) {
    code_vector v;
    for (std::size_t i = 0; i < sizeof v.byte; ++i) v.byte[i] = sixteen[i % 16];
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector low_codes(code_vector v) {
    for (std::uint8_t& b : v.byte) b = b & 15u;
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector high_codes(code_vector v) {
    for (std::uint8_t& b : v.byte) b = static_cast<std::uint8_t>(b >> 4);
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector levels_of(const code_vector& levels, code_vector codes) {
    for (std::uint8_t& b : codes.byte) b = levels.byte[b];
    return codes;
}
PHI4FLASH_VECTOR_INLINE signed_code_vector broadcast_four(const std::int8_t* p) {
    signed_code_vector v;
    for (std::size_t i = 0; i < sizeof v.byte; ++i) v.byte[i] = p[i % 4];
    return v;
}

namespace detail {
PHI4FLASH_VECTOR_INLINE float fused(float a, float b, float c) {
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__)
    return std::fma(a, b, c);
#else
    return a * b + c;
#endif
}

template <class Codes>
PHI4FLASH_VECTOR_INLINE rows_i32 plain_dot(rows_i32 total, const Codes& w, const signed_code_vector& x) {
    for (std::size_t r = 0; r < plain_rows; ++r) {
        for (std::size_t i = 0; i < 4; ++i) total.lane[r] += static_cast<std::int32_t>(w.byte[4 * r + i]) * x.byte[4 * r + i];
    }
    return total;
}
}  // namespace detail

PHI4FLASH_VECTOR_INLINE rows_i32 set_rows(std::int32_t x) {
    rows_i32 v;
    for (std::int32_t& lane : v.lane) lane = x;
    return v;
}
PHI4FLASH_VECTOR_INLINE dot_sums dot_first(const code_vector& w, const signed_code_vector& x) { return detail::plain_dot(set_rows(0), w, x); }
PHI4FLASH_VECTOR_INLINE dot_sums dot_next(const dot_sums& sums, const code_vector& w, const signed_code_vector& x) {
    return detail::plain_dot(sums, w, x);
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(const dot_sums& sums) { return sums; }
inline constexpr int dense_activation_limit = 127;
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(rows_i32 total, const dot_sums& sums) {
    for (std::size_t r = 0; r < plain_rows; ++r) total.lane[r] += sums.lane[r];
    return total;
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_signed(const rows_i32& total, const signed_code_vector& w, const signed_code_vector& x) {
    return detail::plain_dot(total, w, x);
}

PHI4FLASH_VECTOR_INLINE rows_f32 zero_rows() { return {}; }
PHI4FLASH_VECTOR_INLINE rows_f32 load_scales(const f16* p) {
    rows_f32 v;
    for (std::size_t r = 0; r < plain_rows; ++r) v.lane[r] = to_f32(p[r]);
    return v;
}
PHI4FLASH_VECTOR_INLINE rows_f32 scale_sums(const rows_i32& sums, float scale, float offset) {
    rows_f32 v;
    for (std::size_t r = 0; r < plain_rows; ++r) v.lane[r] = detail::fused(static_cast<float>(sums.lane[r]), scale, offset);
    return v;
}
PHI4FLASH_VECTOR_INLINE rows_f32 mul_add_rows(const rows_f32& a, const rows_f32& b, rows_f32 c) {
    for (std::size_t r = 0; r < plain_rows; ++r) c.lane[r] = detail::fused(a.lane[r], b.lane[r], c.lane[r]);
    return c;
}
PHI4FLASH_VECTOR_INLINE rows_f32 load_rows(const float* p) {
    rows_f32 v;
    for (std::size_t r = 0; r < plain_rows; ++r) v.lane[r] = p[r];
    return v;
}
PHI4FLASH_VECTOR_INLINE void store_rows(const rows_f32& v, float* p) {
    for (std::size_t r = 0; r < plain_rows; ++r) p[r] = v.lane[r];
}

PHI4FLASH_TARGET_END
#endif

// ---- phi4flash/kernels/math-inl.hpp --------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

PHI4FLASH_VECTOR_INLINE f32_vector exp2_of(f32_vector x) {
    const f32_vector clamped = max_of(min_of(x, set(127.0f)), set(-126.0f));
    const f32_vector n = round_nearest(clamped);
    const f32_vector r = sub(clamped, n);
    f32_vector p = set(1.525273380e-5f);
    p = mul_add(p, r, set(1.540353039e-4f));
    p = mul_add(p, r, set(1.333355814e-3f));
    p = mul_add(p, r, set(9.618129107e-3f));
    p = mul_add(p, r, set(5.550410866e-2f));
    p = mul_add(p, r, set(2.402265070e-1f));
    p = mul_add(p, r, set(6.931471806e-1f));
    p = mul_add(p, r, set(1.0f));
    return scale_by_power_of_two(p, n);
}

PHI4FLASH_VECTOR_INLINE f32_vector exp_of(f32_vector x) {
    const f32_vector clamped = max_of(min_of(x, set(88.0f)), set(-87.3f));
    const f32_vector n = round_nearest(mul(clamped, set(1.442695041f)));
    f32_vector r = neg_mul_add(n, set(0.693359375f), clamped);
    r = neg_mul_add(n, set(-2.12194440e-4f), r);
    f32_vector p = set(1.984126984e-4f);
    p = mul_add(p, r, set(1.388888889e-3f));
    p = mul_add(p, r, set(8.333333333e-3f));
    p = mul_add(p, r, set(4.166666667e-2f));
    p = mul_add(p, r, set(1.666666667e-1f));
    p = mul_add(p, r, set(5.0e-1f));
    p = mul_add(p, r, set(1.0f));
    p = mul_add(p, r, set(1.0f));
    return scale_by_power_of_two(p, n);
}

PHI4FLASH_VECTOR_INLINE f32_vector silu_of(f32_vector x) { return div(x, add(set(1.0f), exp_of(sub(zero(), x)))); }

PHI4FLASH_VECTOR_INLINE f32_vector softplus_of(f32_vector x) {
    const f32_vector t = exp_of(sub(zero(), abs_of(x)));
    const f32_vector s = div(t, add(t, set(2.0f)));
    const f32_vector z = mul(s, s);
    f32_vector p = set(6.666666667e-2f);
    p = mul_add(p, z, set(7.692307692e-2f));
    p = mul_add(p, z, set(9.090909091e-2f));
    p = mul_add(p, z, set(1.111111111e-1f));
    p = mul_add(p, z, set(1.428571429e-1f));
    p = mul_add(p, z, set(2.0e-1f));
    p = mul_add(p, z, set(3.333333333e-1f));
    p = mul_add(p, z, set(1.0f));
    return mul_add(add(s, s), p, max_of(x, zero()));
}

PHI4FLASH_VECTOR_INLINE float mul_add_one(float a, float b, float c) {
    float out[max_lanes];
    store(mul_add(set(a), set(b), set(c)), out);
    return out[0];
}

template <class Element>
PHI4FLASH_VECTOR_INLINE f32_vector load_first(const Element* p, std::size_t n) {
    float buffer[max_lanes] = {};
    for (std::size_t i = 0; i < n; ++i) buffer[i] = to_f32(p[i]);
    return load(buffer);
}

template <class Element>
PHI4FLASH_VECTOR_INLINE void store_first(f32_vector v, Element* p, std::size_t n) {
    float buffer[max_lanes];
    store(v, buffer);
    for (std::size_t i = 0; i < n; ++i) p[i] = from_f32<Element>(buffer[i]);
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/linear-inl.hpp ------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

template <class Element>
PHI4FLASH_VECTOR_INLINE float dot(const Element* PHI4FLASH_RESTRICT a, const float* PHI4FLASH_RESTRICT b, std::size_t n) {
    const std::size_t lane_count = lanes();
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    f32_vector s2 = zero();
    f32_vector s3 = zero();
    std::size_t i = 0;
    for (; i + 4 * lane_count <= n; i += 4 * lane_count) {
        s0 = mul_add(load(a + i), load(b + i), s0);
        s1 = mul_add(load(a + i + lane_count), load(b + i + lane_count), s1);
        s2 = mul_add(load(a + i + 2 * lane_count), load(b + i + 2 * lane_count), s2);
        s3 = mul_add(load(a + i + 3 * lane_count), load(b + i + 3 * lane_count), s3);
    }
    for (; i + lane_count <= n; i += lane_count) s0 = mul_add(load(a + i), load(b + i), s0);
    if (i < n) s1 = mul_add(load_first(a + i, n - i), load_first(b + i, n - i), s1);
    return reduce_sum(add(add(s0, s1), add(s2, s3)));
}

PHI4FLASH_VECTOR_INLINE float dot_arranged(const bf16* PHI4FLASH_RESTRICT a, const float* PHI4FLASH_RESTRICT x, std::size_t n) {
    const std::size_t lane_count = lanes();
    const std::size_t step = 2 * lane_count;
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    f32_vector s2 = zero();
    f32_vector s3 = zero();
    f32_vector even;
    f32_vector odd;
    std::size_t i = 0;
    for (; i + 2 * step <= n; i += 2 * step) {
        load_even_odd(a + i, even, odd);
        s0 = mul_add(even, load(x + i), s0);
        s1 = mul_add(odd, load(x + i + lane_count), s1);
        load_even_odd(a + i + step, even, odd);
        s2 = mul_add(even, load(x + i + step), s2);
        s3 = mul_add(odd, load(x + i + step + lane_count), s3);
    }
    for (; i < n; i += step) {
        bf16 last[2 * max_lanes] = {};
        const bf16* block = a + i;
        if (i + step > n) {  // a ragged end: what lies behind it belongs to somebody else
            for (std::size_t j = i; j < n; ++j) last[j - i] = a[j];
            block = last;
        }
        load_even_odd(block, even, odd);
        s0 = mul_add(even, load(x + i), s0);
        s1 = mul_add(odd, load(x + i + lane_count), s1);
    }
    return reduce_sum(add(add(s0, s1), add(s2, s3)));
}

inline const std::byte* arrange_none(const float* x, std::size_t, std::size_t, std::size_t, std::byte*) { return reinterpret_cast<const std::byte*>(x); }

inline const std::byte* arrange_even_odd(const float* PHI4FLASH_RESTRICT x, std::size_t cols, std::size_t token, std::size_t, std::byte* scratch) {
    auto* PHI4FLASH_RESTRICT out = reinterpret_cast<float*>(scratch + token * arranged_bytes(cols));
    const std::size_t half = lanes();
    for (std::size_t i = 0; i < cols; i += 2 * half) {
        for (std::size_t j = 0; j < half; ++j) {
            out[i + j] = i + 2 * j < cols ? x[i + 2 * j] : 0.0f;
            out[i + half + j] = i + 2 * j + 1 < cols ? x[i + 2 * j + 1] : 0.0f;
        }
    }
    return scratch;
}

template <class Element>
inline void matvec(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* arranged, const float* bias, float* y) {
    const auto* x = reinterpret_cast<const float*>(arranged);
    const auto* row = reinterpret_cast<const Element*>(w);
    for (std::size_t r = 0; r < rows; ++r, row += cols) {
        float sum = 0.0f;
        if constexpr (dtype_of<Element> == dtype::bf16) {
            sum = dot_arranged(row, x, cols);
        } else {
            sum = dot(row, x, cols);
        }
        y[r] = bias == nullptr ? sum : sum + bias[r];
    }
}

template <class Element>
inline void widen(const std::byte* w, std::size_t cols, float* PHI4FLASH_RESTRICT out) {
    const auto* in = reinterpret_cast<const Element*>(w);
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= cols; i += lane_count) store(load(in + i), out + i);
    for (; i < cols; ++i) out[i] = to_f32(in[i]);
}

inline constexpr std::size_t panel_rows = 6;
inline constexpr std::size_t panel_cols = 1024;

PHI4FLASH_VECTOR_INLINE void tile_4x3(const float* PHI4FLASH_RESTRICT x, std::size_t x_stride, const float* PHI4FLASH_RESTRICT panel,
                                      std::size_t n, float* y, std::size_t y_stride) {
    const std::size_t lane_count = lanes();
    const float* x1 = x + x_stride;
    const float* x2 = x1 + x_stride;
    const float* x3 = x2 + x_stride;
    const float* w1 = panel + panel_cols;
    const float* w2 = w1 + panel_cols;
    f32_vector s00 = zero(), s01 = zero(), s02 = zero();
    f32_vector s10 = zero(), s11 = zero(), s12 = zero();
    f32_vector s20 = zero(), s21 = zero(), s22 = zero();
    f32_vector s30 = zero(), s31 = zero(), s32 = zero();
    for (std::size_t i = 0; i < n; i += lane_count) {  // n is a multiple of lane_count
        const f32_vector a = load(panel + i);
        const f32_vector b = load(w1 + i);
        const f32_vector c = load(w2 + i);
        f32_vector t = load(x + i);
        s00 = mul_add(t, a, s00), s01 = mul_add(t, b, s01), s02 = mul_add(t, c, s02);
        t = load(x1 + i);
        s10 = mul_add(t, a, s10), s11 = mul_add(t, b, s11), s12 = mul_add(t, c, s12);
        t = load(x2 + i);
        s20 = mul_add(t, a, s20), s21 = mul_add(t, b, s21), s22 = mul_add(t, c, s22);
        t = load(x3 + i);
        s30 = mul_add(t, a, s30), s31 = mul_add(t, b, s31), s32 = mul_add(t, c, s32);
    }
    y[0] += reduce_sum(s00), y[1] += reduce_sum(s01), y[2] += reduce_sum(s02);
    y += y_stride;
    y[0] += reduce_sum(s10), y[1] += reduce_sum(s11), y[2] += reduce_sum(s12);
    y += y_stride;
    y[0] += reduce_sum(s20), y[1] += reduce_sum(s21), y[2] += reduce_sum(s22);
    y += y_stride;
    y[0] += reduce_sum(s30), y[1] += reduce_sum(s31), y[2] += reduce_sum(s32);
}

PHI4FLASH_VECTOR_INLINE void tile_1x1(const float* PHI4FLASH_RESTRICT x, const float* PHI4FLASH_RESTRICT panel, std::size_t n, float* y) {
    f32_vector sum = zero();
    for (std::size_t i = 0; i < n; i += lanes()) sum = mul_add(load(x + i), load(panel + i), sum);
    *y += reduce_sum(sum);
}

PHI4FLASH_VECTOR_INLINE void multiply_panel(const float* x, std::size_t x_stride, std::size_t tokens, const float* panel, std::size_t rows,
                                            std::size_t n, float* y, std::size_t y_stride) {
    std::size_t t = 0;
    for (; t + 4 <= tokens; t += 4) {
        std::size_t r = 0;
        for (; r + 3 <= rows; r += 3) tile_4x3(x + t * x_stride, x_stride, panel + r * panel_cols, n, y + t * y_stride + r, y_stride);
        for (; r < rows; ++r) {
            for (std::size_t k = t; k < t + 4; ++k) tile_1x1(x + k * x_stride, panel + r * panel_cols, n, y + k * y_stride + r);
        }
    }
    for (; t < tokens; ++t) {
        for (std::size_t r = 0; r < rows; ++r) tile_1x1(x + t * x_stride, panel + r * panel_cols, n, y + t * y_stride + r);
    }
}

template <class Element>
inline void matmul(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x_bytes, std::size_t x_stride, std::size_t tokens,
                   const float* bias, float* y, std::size_t y_stride) {
    const auto* x = reinterpret_cast<const float*>(x_bytes);
    alignas(64) float panel[panel_rows * panel_cols];
    const std::size_t lane_count = lanes();
    const std::size_t whole_cols = cols / lane_count * lane_count;
    for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t r = 0; r < rows; ++r) y[t * y_stride + r] = bias == nullptr ? 0.0f : bias[r];
    }
    for (std::size_t r0 = 0; r0 < rows; r0 += panel_rows) {
        const std::size_t row_count = rows - r0 < panel_rows ? rows - r0 : panel_rows;
        for (std::size_t c0 = 0; c0 < whole_cols; c0 += panel_cols) {
            const std::size_t n = whole_cols - c0 < panel_cols ? whole_cols - c0 : panel_cols;
            for (std::size_t r = 0; r < row_count; ++r)
                widen<Element>(w + ((r0 + r) * cols + c0) * sizeof(Element), n, panel + r * panel_cols);
            multiply_panel(x + c0, x_stride, tokens, panel, row_count, n, y + r0, y_stride);
        }
        for (std::size_t r = 0; r < row_count && whole_cols < cols; ++r) {
            const auto* row = reinterpret_cast<const Element*>(w) + (r0 + r) * cols;
            for (std::size_t t = 0; t < tokens; ++t) {
                float sum = 0.0f;
                for (std::size_t c = whole_cols; c < cols; ++c) sum += to_f32(row[c]) * x[t * x_stride + c];
                y[t * y_stride + r0 + r] += sum;
            }
        }
    }
}

template <class Element>
inline void widen_row(const std::byte* w, std::size_t r, std::size_t cols, float* out) {
    widen<Element>(w + r * cols * sizeof(Element), cols, out);
}

template <class Element>
inline void narrow(const float* PHI4FLASH_RESTRICT x, std::size_t n, std::byte* PHI4FLASH_RESTRICT out) {
    auto* to = reinterpret_cast<Element*>(out);
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(load(x + i), to + i);
    for (; i < n; ++i) to[i] = from_f32<Element>(x[i]);
}

inline float read_all(const std::byte* data, std::size_t bytes) {
    const auto* p = reinterpret_cast<const bf16*>(data);
    const std::size_t step = 4 * lanes();
    const std::size_t count = bytes / sizeof(bf16);
    f32_vector s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
    f32_vector even;
    f32_vector odd;
    std::size_t i = 0;
    for (; i + step <= count; i += step) {
        load_even_odd(p + i, even, odd);
        s0 = add(s0, even), s1 = add(s1, odd);
        load_even_odd(p + i + step / 2, even, odd);
        s2 = add(s2, even), s3 = add(s3, odd);
    }
    float rest = 0.0f;
    for (; i < count; ++i) rest += to_f32(p[i]);
    return reduce_sum(add(add(s0, s1), add(s2, s3))) + rest;
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/elementwise-inl.hpp -------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline void accumulate(const float* PHI4FLASH_RESTRICT x, std::size_t n, float* PHI4FLASH_RESTRICT y) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(add(load(y + i), load(x + i)), y + i);
    for (; i < n; ++i) y[i] += x[i];
}

inline void silu_mul(const float* gate, const float* x, std::size_t n, float* y) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(mul(silu_of(load(gate + i)), load(x + i)), y + i);
    if (i < n) store_first(mul(silu_of(load_first(gate + i, n - i)), load_first(x + i, n - i)), y + i, n - i);
}

inline void softplus(const float* x, std::size_t n, float* y) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(softplus_of(load(x + i)), y + i);
    if (i < n) store_first(softplus_of(load_first(x + i, n - i)), y + i, n - i);
}

PHI4FLASH_VECTOR_INLINE float sum_of_squares(const float* x, float shift, std::size_t n) {
    const std::size_t lane_count = lanes();
    const f32_vector c = set(shift);
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    std::size_t i = 0;
    for (; i + 2 * lane_count <= n; i += 2 * lane_count) {
        const f32_vector a = sub(load(x + i), c);
        const f32_vector b = sub(load(x + i + lane_count), c);
        s0 = mul_add(a, a, s0);
        s1 = mul_add(b, b, s1);
    }
    float rest = 0.0f;
    for (; i < n; ++i) rest += (x[i] - shift) * (x[i] - shift);
    return reduce_sum(add(s0, s1)) + rest;
}

PHI4FLASH_VECTOR_INLINE float sum_of(const float* x, std::size_t n) {
    const std::size_t lane_count = lanes();
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    std::size_t i = 0;
    for (; i + 2 * lane_count <= n; i += 2 * lane_count) {
        s0 = add(s0, load(x + i));
        s1 = add(s1, load(x + i + lane_count));
    }
    float rest = 0.0f;
    for (; i < n; ++i) rest += x[i];
    return reduce_sum(add(s0, s1)) + rest;
}

inline void layer_norm(const float* x, const float* weight, const float* bias, float eps, std::size_t n, float* y) {
    const auto count = static_cast<float>(n);
    const float mean = sum_of(x, n) / count;
    const float inverse = 1.0f / std::sqrt(sum_of_squares(x, mean, n) / count + eps);
    const std::size_t lane_count = lanes();
    const f32_vector m = set(mean);
    const f32_vector s = set(inverse);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count)
        store(mul_add(mul(sub(load(x + i), m), s), load(weight + i), load(bias + i)), y + i);
    for (; i < n; ++i) y[i] = (x[i] - mean) * inverse * weight[i] + bias[i];
}

inline void rms_norm(const float* x, const float* weight, float eps, std::size_t n, float* y) {
    const float inverse = 1.0f / std::sqrt(sum_of_squares(x, 0.0f, n) / static_cast<float>(n) + eps);
    const std::size_t lane_count = lanes();
    const f32_vector s = set(inverse);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(mul(mul(load(x + i), s), load(weight + i)), y + i);
    for (; i < n; ++i) y[i] = x[i] * inverse * weight[i];
}

inline void difference_norm(const float* first, const float* second, float lambda, const float* weight, float eps, std::size_t n,
                            float* y) {
    const std::size_t lane_count = lanes();
    const f32_vector l = set(lambda);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(neg_mul_add(l, load(second + i), load(first + i)), y + i);
    for (; i < n; ++i) y[i] = first[i] - lambda * second[i];
    rms_norm(y, weight, eps, n, y);
}

inline void softmax(float* x, std::size_t n, float inverse_temperature) {
    if (n == 0) return;
    const std::size_t lane_count = lanes();
    float highest = x[0];
    std::size_t i = 0;
    if (n >= lane_count) {
        f32_vector m = load(x);
        for (; i + lane_count <= n; i += lane_count) m = max_of(m, load(x + i));
        highest = reduce_max(m);
    }
    for (; i < n; ++i) highest = x[i] > highest ? x[i] : highest;

    const f32_vector shift = set(highest);
    const f32_vector scale = set(inverse_temperature);
    f32_vector sums = zero();
    for (i = 0; i + lane_count <= n;) {
        f32_vector part = zero();
        for (std::size_t k = 0; k < 256 && i + lane_count <= n; ++k, i += lane_count) {
            const f32_vector e = exp_of(mul(sub(load(x + i), shift), scale));
            store(e, x + i);
            part = add(part, e);
        }
        sums = add(sums, part);
    }
    float sum = reduce_sum(sums);
    if (i < n) {
        store_first(exp_of(mul(sub(load_first(x + i, n - i), shift), scale)), x + i, n - i);
        for (; i < n; ++i) sum += x[i];
    }
    const f32_vector inverse = set(1.0f / sum);
    for (i = 0; i + lane_count <= n; i += lane_count) store(mul(load(x + i), inverse), x + i);
    for (; i < n; ++i) x[i] /= sum;
}

inline void rotate(float* x, const float* cosine, const float* sine, std::size_t half) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= half; i += lane_count) {
        const f32_vector a = load(x + i);
        const f32_vector b = load(x + half + i);
        const f32_vector c = load(cosine + i);
        const f32_vector s = load(sine + i);
        store(neg_mul_add(b, s, mul(a, c)), x + i);
        store(mul_add(a, s, mul(b, c)), x + half + i);
    }
    for (; i < half; ++i) {
        const float a = x[i];
        const float b = x[half + i];
        x[i] = a * cosine[i] - b * sine[i];
        x[half + i] = a * sine[i] + b * cosine[i];
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/mamba-inl.hpp -------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline void convolution(const convolution_args& args, std::size_t channel_begin, std::size_t channel_end) {
    const std::size_t lane_count = lanes();
    const std::size_t history = args.d_conv - 1;
    for (std::size_t t = 0; t < args.tokens; ++t) {
        float* y = args.y + t * args.y_stride;
        for (std::size_t c = channel_begin; c < channel_end; c += lane_count) {
            const std::size_t n = channel_end - c < lane_count ? channel_end - c : lane_count;
            const bool whole = n == lane_count;
            f32_vector sum = whole ? load(args.bias + c) : load_first(args.bias + c, n);
            for (std::size_t j = 0; j < args.d_conv; ++j) {
                const std::size_t time = t + j;
                const float* x = time < history ? args.state + time * args.d_inner : args.x + (time - history) * args.x_stride;
                const float* w = args.weight + j * args.d_inner;
                sum = whole ? mul_add(load(x + c), load(w + c), sum) : mul_add(load_first(x + c, n), load_first(w + c, n), sum);
            }
            if (whole) {
                store(silu_of(sum), y + c);
            } else {
                store_first(silu_of(sum), y + c, n);
            }
        }
    }
    for (std::size_t j = 0; j < history; ++j) {
        const std::size_t time = args.tokens + j;
        const float* from = time < history ? args.state + time * args.d_inner : args.x + (time - history) * args.x_stride;
        float* to = args.state + j * args.d_inner;
        for (std::size_t c = channel_begin; c < channel_end; ++c) to[c] = from[c];
    }
}

PHI4FLASH_VECTOR_INLINE f32_vector scan_vector(const float* a, float* h, const float* b, const float* c, std::size_t d_state, f32_vector dt,
                                               f32_vector dt_u) {
    f32_vector y0 = zero();
    f32_vector y1 = zero();
    std::size_t n = 0;
    for (; n + 2 <= d_state; n += 2) {
        float* h0 = h + n * channel_block;
        float* h1 = h0 + channel_block;
        const f32_vector next0 = mul_add(exp2_of(mul(dt, load(a + n * channel_block))), load(h0), mul(dt_u, set(b[n])));
        const f32_vector next1 = mul_add(exp2_of(mul(dt, load(a + (n + 1) * channel_block))), load(h1), mul(dt_u, set(b[n + 1])));
        store(next0, h0);
        store(next1, h1);
        y0 = mul_add(next0, set(c[n]), y0);
        y1 = mul_add(next1, set(c[n + 1]), y1);
    }
    for (; n < d_state; ++n) {
        float* h0 = h + n * channel_block;
        const f32_vector next = mul_add(exp2_of(mul(dt, load(a + n * channel_block))), load(h0), mul(dt_u, set(b[n])));
        store(next, h0);
        y0 = mul_add(next, set(c[n]), y0);
    }
    return add(y0, y1);
}

inline void scan(const scan_args& args, std::size_t block_begin, std::size_t block_end) {
    const std::size_t lane_count = lanes();
    for (std::size_t block = block_begin; block < block_end; ++block) {
        const std::size_t first = block * channel_block;
        const std::size_t width = args.d_inner - first < channel_block ? args.d_inner - first : channel_block;
        const float* a = args.a_log2e + first * args.d_state;
        float* h = args.h + first * args.d_state;
        for (std::size_t t = 0; t < args.tokens; ++t) {
            const float* b = args.b + t * args.bc_stride;
            const float* c = args.c + t * args.bc_stride;
            for (std::size_t i = 0; i < width; i += lane_count) {
                const std::size_t channel = first + i;
                const std::size_t at = t * args.d_inner + channel;
                const std::size_t n = width - i < lane_count ? width - i : lane_count;
                if (n == lane_count) {
                    const f32_vector dt = load(args.dt + at);
                    const f32_vector u = load(args.u + at);
                    const f32_vector sum = scan_vector(a + i, h + i, b, c, args.d_state, dt, mul(dt, u));
                    store(mul_add(load(args.d + channel), u, sum), args.y + at);
                } else {  // A and h are zero behind the last channel, so whole vectors of them are safe
                    const f32_vector dt = load_first(args.dt + at, n);
                    const f32_vector u = load_first(args.u + at, n);
                    const f32_vector sum = scan_vector(a + i, h + i, b, c, args.d_state, dt, mul(dt, u));
                    store_first(mul_add(load_first(args.d + channel, n), u, sum), args.y + at, n);
                }
            }
        }
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/attention-inl.hpp ---------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline constexpr std::size_t tile_keys = 32;
inline constexpr std::size_t tile_floats = 4096;
inline constexpr std::size_t row_block = 64;
inline constexpr float lowest_score = -3.0e38f;

template <class Element>
PHI4FLASH_VECTOR_INLINE void tile_scores(const float* PHI4FLASH_RESTRICT q, const Element* PHI4FLASH_RESTRICT k, std::size_t width,
                                         std::size_t d_head, std::size_t begin, std::size_t end, float scale,
                                         float* PHI4FLASH_RESTRICT scores) {
    const std::size_t lane_count = lanes();
    const std::size_t whole = d_head / lane_count * lane_count;
    std::size_t j = begin;
    for (; j + 4 <= end && whole == d_head; j += 4) {
        const Element* k0 = k + j * width;
        const Element* k1 = k0 + width;
        const Element* k2 = k1 + width;
        const Element* k3 = k2 + width;
        f32_vector s0 = zero();
        f32_vector s1 = zero();
        f32_vector s2 = zero();
        f32_vector s3 = zero();
        for (std::size_t i = 0; i < whole; i += lane_count) {
            const f32_vector x = load(q + i);
            s0 = mul_add(x, load(k0 + i), s0);
            s1 = mul_add(x, load(k1 + i), s1);
            s2 = mul_add(x, load(k2 + i), s2);
            s3 = mul_add(x, load(k3 + i), s3);
        }
        scores[j] = scale * reduce_sum(s0);
        scores[j + 1] = scale * reduce_sum(s1);
        scores[j + 2] = scale * reduce_sum(s2);
        scores[j + 3] = scale * reduce_sum(s3);
    }
    for (; j < end; ++j) {
        f32_vector s = zero();
        for (std::size_t i = 0; i < whole; i += lane_count) s = mul_add(load(q + i), load(k + j * width + i), s);
        if (whole < d_head) s = mul_add(load_first(q + whole, d_head - whole), load_first(k + j * width + whole, d_head - whole), s);
        scores[j] = scale * reduce_sum(s);
    }
}

template <class Element>
PHI4FLASH_VECTOR_INLINE void tile_values(const float* PHI4FLASH_RESTRICT p, const Element* PHI4FLASH_RESTRICT v, std::size_t width,
                                         std::size_t begin, std::size_t end, float correction, float* PHI4FLASH_RESTRICT out) {
    const std::size_t lane_count = lanes();
    const f32_vector keep = set(correction);
    std::size_t i = 0;
    for (; i + 4 * lane_count <= width; i += 4 * lane_count) {
        f32_vector o0 = mul(keep, load(out + i));
        f32_vector o1 = mul(keep, load(out + i + lane_count));
        f32_vector o2 = mul(keep, load(out + i + 2 * lane_count));
        f32_vector o3 = mul(keep, load(out + i + 3 * lane_count));
        for (std::size_t j = begin; j < end; ++j) {
            const f32_vector weight = set(p[j]);
            const Element* row = v + j * width + i;
            o0 = mul_add(weight, load(row), o0);
            o1 = mul_add(weight, load(row + lane_count), o1);
            o2 = mul_add(weight, load(row + 2 * lane_count), o2);
            o3 = mul_add(weight, load(row + 3 * lane_count), o3);
        }
        store(o0, out + i);
        store(o1, out + i + lane_count);
        store(o2, out + i + 2 * lane_count);
        store(o3, out + i + 3 * lane_count);
    }
    for (; i + lane_count <= width; i += lane_count) {
        f32_vector o = mul(keep, load(out + i));
        for (std::size_t j = begin; j < end; ++j) o = mul_add(set(p[j]), load(v + j * width + i), o);
        store(o, out + i);
    }
    if (i < width) {
        f32_vector o = mul(keep, load_first(out + i, width - i));
        for (std::size_t j = begin; j < end; ++j) o = mul_add(set(p[j]), load_first(v + j * width + i, width - i), o);
        store_first(o, out + i, width - i);
    }
}

struct attention_row {
    const float* q;
    float* out;
    std::size_t key_head;        ///< within the group
    std::size_t position;
    std::size_t first_visible;   ///< position
    float slope;
    float maximum;
    float sum;
};

template <class Element>
PHI4FLASH_VECTOR_INLINE void attend_tile(const attention_args& args, attention_row& row, const Element* k, const Element* v,
                                         std::size_t tile_position, std::size_t begin, std::size_t end) {
    const std::size_t width = args.k_per_group * args.d_head;
    const std::size_t lane_count = lanes();
    float scores[tile_keys + max_lanes];
    for (std::size_t j = 0; j < tile_keys; ++j) scores[j] = lowest_score;
    tile_scores(row.q, k + row.key_head * args.d_head, width, args.d_head, begin, end, args.scale, scores);
    if (row.slope != 0.0f) {
        for (std::size_t j = begin; j < end; ++j)
            scores[j] = mul_add_one(-row.slope, static_cast<float>(row.position - (tile_position + j)), scores[j]);
    }
    float highest = row.maximum;
    for (std::size_t j = begin; j < end; ++j) highest = scores[j] > highest ? scores[j] : highest;
    const f32_vector shift = set(highest);
    f32_vector sums = zero();
    const std::size_t first = begin / lane_count * lane_count;
    for (std::size_t j = first; j < end; j += lane_count) {
        const f32_vector e = exp_of(sub(load(scores + j), shift));
        store(e, scores + j);
    }
    float rest = 0.0f;
    std::size_t j = begin;
    for (; j < end && j % lane_count != 0; ++j) rest += scores[j];
    for (; j + lane_count <= end; j += lane_count) sums = add(sums, load(scores + j));
    for (; j < end; ++j) rest += scores[j];
    float shrink[max_lanes];
    store(exp_of(set(row.maximum - highest)), shrink);
    const float correction = row.maximum == lowest_score ? 0.0f : shrink[0];
    row.maximum = highest;
    row.sum = mul_add_one(row.sum, correction, reduce_sum(sums) + rest);
    tile_values(scores, v, width, begin, end, correction, row.out);
}

inline void visible_keys(const attention_row& row, std::size_t position, std::size_t count, std::size_t& begin, std::size_t& end) {
    begin = row.first_visible > position ? row.first_visible - position : 0;
    end = row.position < position ? 0 : row.position - position + 1;
    end = end < count ? end : count;
}

template <class Element>
inline void attend_segment(const attention_args& args, std::size_t group, attention_row* rows, std::size_t n_rows,
                           const kv_segment& segment) {
    const std::size_t width = args.k_per_group * args.d_head;
    const auto* k = reinterpret_cast<const Element*>(segment.k) + group * segment.group_rows * width;
    const auto* v = reinterpret_cast<const Element*>(segment.v) + group * segment.group_rows * width;
    const std::size_t earliest = rows[0].first_visible;
    const std::size_t latest = rows[n_rows - 1].position;
    if (latest < segment.first_position || earliest >= segment.first_position + segment.count) return;
    const std::size_t wide_step = width * tile_keys <= tile_floats ? tile_keys : tile_floats / width;
    const bool can_widen = dtype_of<Element> != dtype::f32 && wide_step >= 4;
    const std::size_t tile_step = can_widen ? wide_step : tile_keys;
    const std::size_t first_key = earliest > segment.first_position ? earliest - segment.first_position : 0;
    const std::size_t start = first_key / tile_step * tile_step;
    const std::size_t stop = latest - segment.first_position + 1 < segment.count ? latest - segment.first_position + 1 : segment.count;
    const bool widened = can_widen && n_rows > 2 * args.k_per_group * args.queries_per_key;
    alignas(64) float wide_k[dtype_of<Element> == dtype::f32 ? 1 : tile_floats];
    alignas(64) float wide_v[dtype_of<Element> == dtype::f32 ? 1 : tile_floats];
    for (std::size_t j = start; j < stop; j += tile_step) {
        const std::size_t count = stop - j < tile_step ? stop - j : tile_step;
        const std::size_t position = segment.first_position + j;
        if (widened) {
            widen<Element>(reinterpret_cast<const std::byte*>(k + j * width), count * width, wide_k);
            widen<Element>(reinterpret_cast<const std::byte*>(v + j * width), count * width, wide_v);
        }
        for (std::size_t r = 0; r < n_rows; ++r) {
            std::size_t begin = 0;
            std::size_t end = 0;
            visible_keys(rows[r], position, count, begin, end);
            if (begin >= end) continue;
            if (widened) {
                attend_tile<float>(args, rows[r], wide_k, wide_v, position, begin, end);
            } else {
                attend_tile<Element>(args, rows[r], k + j * width, v + j * width, position, begin, end);
            }
        }
    }
}

template <class Element>
inline void attention(const attention_args& args, std::size_t group, std::size_t token_begin, std::size_t token_end,
                      const kv_segment* segments, std::size_t n_segments) {
    const std::size_t width = args.k_per_group * args.d_head;
    const std::size_t heads = args.k_per_group * args.queries_per_key;  // query heads of this group
    attention_row rows[row_block];
    const std::size_t total = (token_end - token_begin) * heads;
    for (std::size_t first = 0; first < total; first += row_block) {
        const std::size_t n_rows = total - first < row_block ? total - first : row_block;
        for (std::size_t i = 0; i < n_rows; ++i) {
            const std::size_t token = token_begin + (first + i) / heads;
            const std::size_t head_in_group = (first + i) % heads;
            const std::size_t head = group * heads + head_in_group;
            attention_row& row = rows[i];
            row.q = args.q + token * args.q_stride + head * args.d_head;
            row.out = args.out + token * args.out_stride + head * width;
            row.key_head = head_in_group % args.k_per_group;
            row.position = args.first_position + token;
            row.first_visible = row.position >= args.window ? row.position - args.window + 1 : 0;
            row.slope = args.slopes == nullptr ? 0.0f : args.slopes[head];
            row.maximum = lowest_score;
            row.sum = 0.0f;
            for (std::size_t c = 0; c < width; ++c) row.out[c] = 0.0f;
        }
        for (std::size_t s = 0; s < n_segments; ++s) attend_segment<Element>(args, group, rows, n_rows, segments[s]);
        const std::size_t lane_count = lanes();
        for (std::size_t i = 0; i < n_rows; ++i) {
            const float inverse = 1.0f / rows[i].sum;  // a token sees itself, so the sum is at least 1
            std::size_t c = 0;
            for (; c + lane_count <= width; c += lane_count) store(mul(load(rows[i].out + c), set(inverse)), rows[i].out + c);
            for (; c < width; ++c) rows[i].out[c] *= inverse;
        }
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/packed-inl.hpp ------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

template <int Limit, int Zero>
inline const std::byte* arrange_int8(const float* PHI4FLASH_RESTRICT x, std::size_t cols, std::size_t token, std::size_t tokens,
                                     std::byte* scratch) {
    auto* groups = reinterpret_cast<activation_group*>(scratch) + token;
    const std::size_t lane_count = lanes();
    for (std::size_t g = 0; g < cols / packed_cols; ++g, groups += tokens) {
        const float* group = x + g * packed_cols;
        f32_vector highest = zero();
        for (std::size_t i = 0; i < packed_cols; i += lane_count) highest = max_of(highest, abs_of(load(group + i)));
        const float most = reduce_max(highest);
        const f32_vector inverse = set(most > 0.0f ? static_cast<float>(Limit) / most : 0.0f);
        float rounded[packed_cols];
        f32_vector sums = zero();
        for (std::size_t i = 0; i < packed_cols; i += lane_count) {
            const f32_vector q = round_nearest(mul(load(group + i), inverse));
            store(q, rounded + i);
            sums = add(sums, q);
        }
        for (std::size_t i = 0; i < packed_cols; ++i) groups->q[i] = static_cast<std::int8_t>(rounded[i]);
        groups->scale = most / static_cast<float>(Limit);
        groups->offset = static_cast<float>(-Zero) * groups->scale * reduce_sum(sums);
    }
    return scratch;
}

PHI4FLASH_VECTOR_INLINE rows_f32 add_group(rows_i32 sums, rows_f32 scales, const activation_group& x, rows_f32 total) {
    return mul_add_rows(scales, scale_sums(sums, x.scale, x.offset), total);
}

#define PHI4FLASH_UNPACK_Q4(block, row)                                          \
    const code_vector codes0 = load_codes((block).code[0] + 4 * (row));          \
    const code_vector codes1 = load_codes((block).code[1] + 4 * (row));          \
    const code_vector codes2 = load_codes((block).code[2] + 4 * (row));          \
    const code_vector codes3 = load_codes((block).code[3] + 4 * (row));          \
    const code_vector w0 = q4_levels<Dense>(levels, low_codes(codes0));          \
    const code_vector w1 = q4_levels<Dense>(levels, low_codes(codes1));          \
    const code_vector w2 = q4_levels<Dense>(levels, low_codes(codes2));          \
    const code_vector w3 = q4_levels<Dense>(levels, low_codes(codes3));          \
    const code_vector w4 = q4_levels<Dense>(levels, high_codes(codes0));         \
    const code_vector w5 = q4_levels<Dense>(levels, high_codes(codes1));         \
    const code_vector w6 = q4_levels<Dense>(levels, high_codes(codes2));         \
    const code_vector w7 = q4_levels<Dense>(levels, high_codes(codes3));         \
    static_assert(true)

template <bool Dense>
PHI4FLASH_VECTOR_INLINE code_vector q4_levels(code_vector levels, code_vector codes) {
    if constexpr (Dense) {
        return levels_of(levels, codes);
    } else {
        return codes;
    }
}

template <bool Dense>
PHI4FLASH_VECTOR_INLINE rows_i32 q4_dot(code_vector w0, code_vector w1, code_vector w2, code_vector w3, code_vector w4, code_vector w5,
                                        code_vector w6, code_vector w7, const std::int8_t* x) {
    dot_sums a = dot_next(dot_next(dot_next(dot_first(w0, broadcast_four(x)), w1, broadcast_four(x + 4)), w2, broadcast_four(x + 8)), w3,
                          broadcast_four(x + 12));
    if constexpr (Dense) {
        const dot_sums b = dot_next(dot_next(dot_next(dot_first(w4, broadcast_four(x + 16)), w5, broadcast_four(x + 20)), w6, broadcast_four(x + 24)),
                                    w7, broadcast_four(x + 28));
        return dot_fold(dot_fold(a), b);
    } else {
        a = dot_next(dot_next(dot_next(dot_next(a, w4, broadcast_four(x + 16)), w5, broadcast_four(x + 20)), w6, broadcast_four(x + 24)), w7,
                     broadcast_four(x + 28));
        return dot_fold(a);
    }
}

PHI4FLASH_VECTOR_INLINE void dot_first_four(code_vector w, const activation_group* x, std::size_t at, dot_sums& a, dot_sums& b, dot_sums& c,
                                            dot_sums& d) {
    a = dot_first(w, broadcast_four(x[0].q + at));
    b = dot_first(w, broadcast_four(x[1].q + at));
    c = dot_first(w, broadcast_four(x[2].q + at));
    d = dot_first(w, broadcast_four(x[3].q + at));
}
PHI4FLASH_VECTOR_INLINE void dot_next_four(code_vector w, const activation_group* x, std::size_t at, dot_sums& a, dot_sums& b, dot_sums& c,
                                           dot_sums& d) {
    a = dot_next(a, w, broadcast_four(x[0].q + at));
    b = dot_next(b, w, broadcast_four(x[1].q + at));
    c = dot_next(c, w, broadcast_four(x[2].q + at));
    d = dot_next(d, w, broadcast_four(x[3].q + at));
}

PHI4FLASH_VECTOR_INLINE void add_group_to(float* sum, rows_i32 dots, rows_f32 scales, const activation_group& x) {
    store_rows(add_group(dots, scales, x, load_rows(sum)), sum);
}

template <bool Dense>
PHI4FLASH_VECTOR_INLINE void q4_dot_four(code_vector w0, code_vector w1, code_vector w2, code_vector w3, code_vector w4, code_vector w5,
                                         code_vector w6, code_vector w7, const activation_group* x, rows_f32 scales, float* sums) {
    dot_sums a, b, c, d;
    dot_first_four(w0, x, 0, a, b, c, d);
    dot_next_four(w1, x, 4, a, b, c, d);
    dot_next_four(w2, x, 8, a, b, c, d);
    dot_next_four(w3, x, 12, a, b, c, d);
    if constexpr (Dense) {
        dot_sums e, f, g, h;
        dot_first_four(w4, x, 16, e, f, g, h);
        dot_next_four(w5, x, 20, e, f, g, h);
        dot_next_four(w6, x, 24, e, f, g, h);
        dot_next_four(w7, x, 28, e, f, g, h);
        add_group_to(sums, dot_fold(dot_fold(a), e), scales, x[0]);
        add_group_to(sums + packed_rows, dot_fold(dot_fold(b), f), scales, x[1]);
        add_group_to(sums + 2 * packed_rows, dot_fold(dot_fold(c), g), scales, x[2]);
        add_group_to(sums + 3 * packed_rows, dot_fold(dot_fold(d), h), scales, x[3]);
    } else {
        dot_next_four(w4, x, 16, a, b, c, d);
        dot_next_four(w5, x, 20, a, b, c, d);
        dot_next_four(w6, x, 24, a, b, c, d);
        dot_next_four(w7, x, 28, a, b, c, d);
        add_group_to(sums, dot_fold(a), scales, x[0]);
        add_group_to(sums + packed_rows, dot_fold(b), scales, x[1]);
        add_group_to(sums + 2 * packed_rows, dot_fold(c), scales, x[2]);
        add_group_to(sums + 3 * packed_rows, dot_fold(d), scales, x[3]);
    }
}

PHI4FLASH_VECTOR_INLINE rows_i32 q8_dot(const q8_block& block, std::size_t row, const std::int8_t* x) {
    rows_i32 total = set_rows(0);
    for (std::size_t s = 0; s < 8; ++s) total = dot_signed(total, load_codes(block.code[s] + 4 * row), broadcast_four(x + 4 * s));
    return total;
}

PHI4FLASH_VECTOR_INLINE void q8_dot_four(const q8_block& block, std::size_t row, const activation_group* x, rows_f32 scales, float* sums) {
    rows_i32 a = set_rows(0);
    rows_i32 b = set_rows(0);
    rows_i32 c = set_rows(0);
    rows_i32 d = set_rows(0);
    for (std::size_t s = 0; s < 8; ++s) {
        const signed_code_vector w = load_codes(block.code[s] + 4 * row);
        a = dot_signed(a, w, broadcast_four(x[0].q + 4 * s));
        b = dot_signed(b, w, broadcast_four(x[1].q + 4 * s));
        c = dot_signed(c, w, broadcast_four(x[2].q + 4 * s));
        d = dot_signed(d, w, broadcast_four(x[3].q + 4 * s));
    }
    add_group_to(sums, a, scales, x[0]);
    add_group_to(sums + packed_rows, b, scales, x[1]);
    add_group_to(sums + 2 * packed_rows, c, scales, x[2]);
    add_group_to(sums + 3 * packed_rows, d, scales, x[3]);
}

PHI4FLASH_VECTOR_INLINE void put_rows(rows_f32 v, const float* bias, float* y) {
    store_rows(v, y);
    for (std::size_t r = 0; bias != nullptr && r < rows_lanes(); ++r) y[r] += bias[r];
}

inline constexpr std::size_t packed_tokens = 32;

inline constexpr std::size_t packed_panel = 128;

template <dtype Format>
PHI4FLASH_VECTOR_INLINE void packed_row_tile(const std::byte* w, std::size_t groups, std::size_t row, const activation_group* x,
                                             std::size_t group_stride, std::size_t tokens, bool first, const float* bias, float* y, std::size_t y_stride) {
    constexpr bool Dense = Format == dtype::q4_dense;
    [[maybe_unused]] const code_vector levels = load_levels(q4_dense.level);
    float sums[packed_tokens * packed_rows];
    for (std::size_t t = 0; t < tokens; ++t) store_rows(first ? zero_rows() : load_rows(y + t * y_stride), sums + t * packed_rows);
    for (std::size_t g = 0; g < groups; ++g, x += group_stride) {
        if constexpr (Format == dtype::q8) {
            const q8_block& block = reinterpret_cast<const q8_block*>(w)[g];
            const rows_f32 scales = load_scales(block.scale + row);
            std::size_t t = 0;
            for (; t + 4 <= tokens; t += 4) q8_dot_four(block, row, x + t, scales, sums + t * packed_rows);
            for (; t < tokens; ++t) add_group_to(sums + t * packed_rows, q8_dot(block, row, x[t].q), scales, x[t]);
        } else {
            const q4_block& block = reinterpret_cast<const q4_block*>(w)[g];
            PHI4FLASH_UNPACK_Q4(block, row);
            const rows_f32 scales = load_scales(block.scale + row);
            std::size_t t = 0;
            for (; t + 4 <= tokens; t += 4) q4_dot_four<Dense>(w0, w1, w2, w3, w4, w5, w6, w7, x + t, scales, sums + t * packed_rows);
            for (; t < tokens; ++t)
                add_group_to(sums + t * packed_rows, q4_dot<Dense>(w0, w1, w2, w3, w4, w5, w6, w7, x[t].q), scales, x[t]);
        }
    }
    for (std::size_t t = 0; t < tokens; ++t) put_rows(load_rows(sums + t * packed_rows), bias, y + t * y_stride);
}

template <dtype Format>
PHI4FLASH_VECTOR_INLINE void packed_row(const std::byte* w, std::size_t groups, std::size_t row, const activation_group* x, const float* bias,
                                        float* y) {
    constexpr bool Dense = Format == dtype::q4_dense;
    [[maybe_unused]] const code_vector levels = load_levels(q4_dense.level);
    rows_f32 sum = zero_rows();
    for (std::size_t g = 0; g < groups; ++g) {
        if constexpr (Format == dtype::q8) {
            const q8_block& block = reinterpret_cast<const q8_block*>(w)[g];
            sum = add_group(q8_dot(block, row, x[g].q), load_scales(block.scale + row), x[g], sum);
        } else {
            const q4_block& block = reinterpret_cast<const q4_block*>(w)[g];
            PHI4FLASH_UNPACK_Q4(block, row);
            sum = add_group(q4_dot<Dense>(w0, w1, w2, w3, w4, w5, w6, w7, x[g].q), load_scales(block.scale + row), x[g], sum);
        }
    }
    put_rows(sum, bias, y);
}
#undef PHI4FLASH_UNPACK_Q4

template <dtype Format>
inline void packed_matvec(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, const float* bias, float* y) {
    const std::size_t groups = cols / packed_cols;
    for (std::size_t r = 0; r < rows; r += packed_rows) {
        for (std::size_t row = 0; row < packed_rows; row += rows_lanes())
            packed_row<Format>(w + matrix_bytes(Format, r, cols), groups, row, reinterpret_cast<const activation_group*>(x),
                               bias == nullptr ? nullptr : bias + r + row, y + r + row);
    }
}

template <dtype Format>
inline void packed_matmul(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, std::size_t, std::size_t tokens,
                          const float* bias, float* y, std::size_t y_stride) {
    const std::size_t groups = cols / packed_cols;
    const auto* activations = reinterpret_cast<const activation_group*>(x);
    for (std::size_t t = 0; t < tokens; t += packed_tokens) {
        const std::size_t count = tokens - t < packed_tokens ? tokens - t : packed_tokens;
        for (std::size_t g = 0; g < groups; g += packed_panel) {
            const std::size_t some = groups - g < packed_panel ? groups - g : packed_panel;
            const bool last = g + some == groups;
            for (std::size_t r = 0; r < rows; r += packed_rows) {
                const std::byte* blocks = w + matrix_bytes(Format, r, cols) + matrix_bytes(Format, packed_rows, g * packed_cols);
                for (std::size_t row = 0; row < packed_rows; row += rows_lanes())
                    packed_row_tile<Format>(blocks, some, row, activations + g * tokens + t, tokens, count, g == 0,
                                            bias == nullptr || !last ? nullptr : bias + r + row, y + t * y_stride + r + row, y_stride);
            }
        }
    }
}

template <dtype Format>
inline void packed_widen_row(const std::byte* w, std::size_t r, std::size_t cols, float* out) {
    const std::size_t groups = cols / packed_cols;
    for (std::size_t g = 0; g < groups; ++g) {
        const std::size_t at = r / packed_rows * groups + g;
        if constexpr (Format == dtype::q8) {
            decode_row(reinterpret_cast<const q8_block*>(w)[at], r % packed_rows, out + g * packed_cols);
        } else {
            constexpr const q4_codebook& book = Format == dtype::q4_dense ? q4_dense : q4_uniform;
            decode_row(reinterpret_cast<const q4_block*>(w)[at], book, r % packed_rows, out + g * packed_cols);
        }
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/table-inl.hpp -------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline std::size_t lanes_of_target() { return lanes(); }

template <class Element>
inline constexpr linear_kernels plain_kernels{
    .matvec = &matvec<Element>,
    .arrange = dtype_of<Element> == dtype::bf16 ? &arrange_even_odd : &arrange_none,
    .matmul = &matmul<Element>,
    .matmul_arranged = false,
    .widen = &widen_row<Element>,
};

template <dtype Format>
inline constexpr linear_kernels packed_kernels{
    .matvec = &packed_matvec<Format>,
    .arrange = Format == dtype::q8   ? &arrange_int8<127, 0>
               : Format == dtype::q4 ? &arrange_int8<127, q4_uniform.zero>
                                     : &arrange_int8<dense_activation_limit, q4_dense.zero>,
    .matmul = &packed_matmul<Format>,
    .matmul_arranged = true,
    .widen = &packed_widen_row<Format>,
};

inline constexpr kernel_table table{
    .name = PHI4FLASH_TARGET_LABEL,
    .lanes = &lanes_of_target,
    .linear = {plain_kernels<float>, plain_kernels<f16>, plain_kernels<bf16>, packed_kernels<dtype::q8>, packed_kernels<dtype::q4>,
               packed_kernels<dtype::q4_dense>},
    .layer_norm = &layer_norm,
    .rms_norm = &rms_norm,
    .accumulate = &accumulate,
    .silu_mul = &silu_mul,
    .softplus = &softplus,
    .softmax = &softmax,
    .convolution = &convolution,
    .scan = &scan,
    .narrow = {&narrow<float>, nullptr, &narrow<bf16>},
    .attention = {&attention<float>, nullptr, &attention<bf16>},
    .difference_norm = &difference_norm,
    .rotate = &rotate,
    .read = &read_all,
};

PHI4FLASH_TARGET_END

#else  // xsimd, scalar

#if PHI4FLASH_SIMD_XSIMD
#define PHI4FLASH_TARGET_LABEL "xsimd"
#else
#define PHI4FLASH_TARGET_LABEL "scalar"
#endif

// ---- phi4flash/kernels/target-inl.hpp ------------------------------------------------------------------------------------

// ---- phi4flash/simd/vocabulary-inl.hpp -----------------------------------------------------------------------------------
#if PHI4FLASH_SIMD_HIGHWAY

// ---- phi4flash/simd/vocabulary_highway-inl.hpp ---------------------------------------------------------------------------
#include <hwy/highway.h>
PHI4FLASH_TARGET_BEGIN

namespace hn = hwy::HWY_NAMESPACE;

using f32_tag = hn::CappedTag<float, max_lanes>;
using i32_tag = hn::RebindToSigned<f32_tag>;
using u32_tag = hn::RebindToUnsigned<f32_tag>;
using u16_half_tag = hn::Rebind<std::uint16_t, f32_tag>;
using f32_vector = hn::Vec<f32_tag>;

PHI4FLASH_VECTOR_INLINE std::size_t lanes() { return hn::Lanes(f32_tag()); }
PHI4FLASH_VECTOR_INLINE f32_vector zero() { return hn::Zero(f32_tag()); }
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return hn::Set(f32_tag(), x); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const float* p) { return hn::LoadU(f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, float* p) { hn::StoreU(v, f32_tag(), p); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const bf16* p) {
    const auto narrow = hn::LoadU(u16_half_tag(), reinterpret_cast<const std::uint16_t*>(p));
    return hn::BitCast(f32_tag(), hn::ShiftLeft<16>(hn::PromoteTo(u32_tag(), narrow)));
}
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, bf16* p) {
    const u32_tag du;
    const auto bits = hn::BitCast(du, v);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
    const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fffu))));
    hn::StoreU(hn::TruncateTo(u16_half_tag(), rounded), u16_half_tag(), reinterpret_cast<std::uint16_t*>(p));
}
PHI4FLASH_VECTOR_INLINE f32_vector load(const f16* p) {
#if HWY_TARGET <= HWY_AVX2 || (HWY_TARGET & (HWY_ALL_NEON | HWY_ALL_SVE))
    const hn::Rebind<hwy::float16_t, f32_tag> half;
    return hn::PromoteTo(f32_tag(), hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(p)));
#else
    const u32_tag du;
    const auto bits = hn::PromoteTo(du, hn::LoadU(u16_half_tag(), reinterpret_cast<const std::uint16_t*>(p)));
    const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(du, 0x8000u)));
    const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(du, 0x7fffu)));
    const auto value = hn::BitCast(du, hn::Mul(hn::BitCast(f32_tag(), magnitude), hn::Set(f32_tag(), 0x1p112f)));
    const auto not_finite = hn::IfThenElseZero(hn::Ge(magnitude, hn::Set(du, 0x0f800000u)), hn::Set(du, 0x7f800000u));
    return hn::BitCast(f32_tag(), hn::Or(hn::Or(value, not_finite), sign));
#endif
}
PHI4FLASH_VECTOR_INLINE void load_even_odd(const bf16* p, f32_vector& even, f32_vector& odd) {
    const u32_tag du;
    const auto both = hn::LoadU(du, reinterpret_cast<const std::uint32_t*>(p));
    even = hn::BitCast(f32_tag(), hn::ShiftLeft<16>(both));
    odd = hn::BitCast(f32_tag(), hn::And(both, hn::Set(du, 0xffff0000u)));
}

PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) { return hn::Add(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) { return hn::Sub(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) { return hn::Mul(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) { return hn::Div(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) { return hn::MulAdd(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) { return hn::NegMulAdd(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector min_of(f32_vector a, f32_vector b) { return hn::Min(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector max_of(f32_vector a, f32_vector b) { return hn::Max(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector abs_of(f32_vector a) { return hn::Abs(a); }

PHI4FLASH_VECTOR_INLINE float reduce_sum(f32_vector v) { return hn::ReduceSum(f32_tag(), v); }
PHI4FLASH_VECTOR_INLINE float reduce_max(f32_vector v) { return hn::ReduceMax(f32_tag(), v); }

PHI4FLASH_VECTOR_INLINE f32_vector round_nearest(f32_vector v) { return hn::Round(v); }
PHI4FLASH_VECTOR_INLINE f32_vector scale_by_power_of_two(f32_vector v, f32_vector n) {
    const auto exponent = hn::Add(hn::NearestInt(n), hn::Set(i32_tag(), 127));
    return hn::Mul(v, hn::BitCast(f32_tag(), hn::ShiftLeft<23>(exponent)));
}

PHI4FLASH_TARGET_END
#elif PHI4FLASH_SIMD_XSIMD

// ---- phi4flash/simd/vocabulary_xsimd-inl.hpp -----------------------------------------------------------------------------
#include <xsimd/xsimd.hpp>
PHI4FLASH_TARGET_BEGIN

using f32_vector = xsimd::batch<float>;
using i32_vector = xsimd::batch<std::int32_t>;
using u32_vector = xsimd::batch<std::uint32_t>;
static_assert(f32_vector::size <= max_lanes, "phi4flash: layouts are blocked by 16 lanes");

PHI4FLASH_VECTOR_INLINE constexpr std::size_t lanes() { return f32_vector::size; }
PHI4FLASH_VECTOR_INLINE f32_vector zero() { return f32_vector(0.0f); }
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return f32_vector(x); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const float* p) { return f32_vector::load_unaligned(p); }
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, float* p) { v.store_unaligned(p); }

PHI4FLASH_VECTOR_INLINE f32_vector load(const bf16* p) {
    alignas(64) std::uint32_t wide[f32_vector::size];
    for (std::size_t i = 0; i < f32_vector::size; ++i) wide[i] = static_cast<std::uint32_t>(p[i].bits) << 16;
    return xsimd::bitwise_cast<float>(u32_vector::load_aligned(wide));
}
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, bf16* p) {
    alignas(64) float wide[f32_vector::size];
    v.store_aligned(wide);
    for (std::size_t i = 0; i < f32_vector::size; ++i) p[i] = to_bf16(wide[i]);
}
PHI4FLASH_VECTOR_INLINE f32_vector load(const f16* p) {
    alignas(64) float wide[f32_vector::size];
    for (std::size_t i = 0; i < f32_vector::size; ++i) wide[i] = to_f32(p[i]);
    return f32_vector::load_aligned(wide);
}
PHI4FLASH_VECTOR_INLINE void load_even_odd(const bf16* p, f32_vector& even, f32_vector& odd) {
    const u32_vector both = xsimd::bitwise_cast<std::uint32_t>(f32_vector::load_unaligned(reinterpret_cast<const float*>(p)));
    even = xsimd::bitwise_cast<float>(both << 16);
    odd = xsimd::bitwise_cast<float>(both & u32_vector(0xffff0000u));
}

PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) { return a + b; }
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) { return a - b; }
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) { return a * b; }
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) { return a / b; }
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) { return xsimd::fma(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) { return xsimd::fnma(a, b, c); }
PHI4FLASH_VECTOR_INLINE f32_vector min_of(f32_vector a, f32_vector b) { return xsimd::min(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector max_of(f32_vector a, f32_vector b) { return xsimd::max(a, b); }
PHI4FLASH_VECTOR_INLINE f32_vector abs_of(f32_vector a) { return xsimd::abs(a); }

PHI4FLASH_VECTOR_INLINE float reduce_sum(f32_vector v) { return xsimd::reduce_add(v); }
PHI4FLASH_VECTOR_INLINE float reduce_max(f32_vector v) { return xsimd::reduce_max(v); }

PHI4FLASH_VECTOR_INLINE f32_vector round_nearest(f32_vector v) { return xsimd::nearbyint(v); }
PHI4FLASH_VECTOR_INLINE f32_vector scale_by_power_of_two(f32_vector v, f32_vector n) {
    const i32_vector exponent = xsimd::nearbyint_as_int(n) + i32_vector(127);
    return v * xsimd::bitwise_cast<float>(exponent << 23);
}

PHI4FLASH_TARGET_END
#else

// ---- phi4flash/simd/vocabulary_scalar-inl.hpp ----------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline constexpr std::size_t scalar_lanes = 4;
struct f32_vector {
    float lane[scalar_lanes];
};

namespace detail {
template <class Operation>
PHI4FLASH_VECTOR_INLINE f32_vector each(Operation operation) {
    f32_vector r;
    for (std::size_t i = 0; i < scalar_lanes; ++i) r.lane[i] = operation(i);
    return r;
}
}  // namespace detail

PHI4FLASH_VECTOR_INLINE constexpr std::size_t lanes() { return scalar_lanes; }
PHI4FLASH_VECTOR_INLINE f32_vector set(float x) { return detail::each([&](std::size_t) { return x; }); }
PHI4FLASH_VECTOR_INLINE f32_vector zero() { return set(0.0f); }

template <class T>
PHI4FLASH_VECTOR_INLINE f32_vector load(const T* p) {
    return detail::each([&](std::size_t i) { return to_f32(p[i]); });
}
template <class T>
PHI4FLASH_VECTOR_INLINE void store(f32_vector v, T* p) {
    for (std::size_t i = 0; i < scalar_lanes; ++i) p[i] = from_f32<T>(v.lane[i]);
}
PHI4FLASH_VECTOR_INLINE void load_even_odd(const bf16* p, f32_vector& even, f32_vector& odd) {
    even = detail::each([&](std::size_t i) { return to_f32(p[2 * i]); });
    odd = detail::each([&](std::size_t i) { return to_f32(p[2 * i + 1]); });
}

PHI4FLASH_VECTOR_INLINE f32_vector add(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] + b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector sub(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] - b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector mul(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] * b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector div(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] / b.lane[i]; });
}
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__)
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
}
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return std::fma(-a.lane[i], b.lane[i], c.lane[i]); });
}
#else
PHI4FLASH_VECTOR_INLINE f32_vector mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector neg_mul_add(f32_vector a, f32_vector b, f32_vector c) {
    return detail::each([&](std::size_t i) { return c.lane[i] - a.lane[i] * b.lane[i]; });
}
#endif
PHI4FLASH_VECTOR_INLINE f32_vector min_of(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector max_of(f32_vector a, f32_vector b) {
    return detail::each([&](std::size_t i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE f32_vector abs_of(f32_vector a) {
    return detail::each([&](std::size_t i) { return std::fabs(a.lane[i]); });
}

PHI4FLASH_VECTOR_INLINE float reduce_sum(f32_vector v) { return (v.lane[0] + v.lane[2]) + (v.lane[1] + v.lane[3]); }
PHI4FLASH_VECTOR_INLINE float reduce_max(f32_vector v) {
    float m = v.lane[0];
    for (std::size_t i = 1; i < scalar_lanes; ++i) m = v.lane[i] > m ? v.lane[i] : m;
    return m;
}

PHI4FLASH_VECTOR_INLINE f32_vector round_nearest(f32_vector v) {
    constexpr float magic = 0x1.8p23f;
    return detail::each([&](std::size_t i) { return (v.lane[i] + magic) - magic; });
}
PHI4FLASH_VECTOR_INLINE f32_vector scale_by_power_of_two(f32_vector v, f32_vector n) {
    return detail::each([&](std::size_t i) {
        const auto exponent = static_cast<std::uint32_t>(static_cast<std::int32_t>(n.lane[i]) + 127);
        return v.lane[i] * std::bit_cast<float>(exponent << 23);
    });
}

PHI4FLASH_TARGET_END
#endif

// ---- phi4flash/simd/integer-inl.hpp --------------------------------------------------------------------------------------
#if PHI4FLASH_SIMD_HIGHWAY

// ---- phi4flash/simd/integer_highway-inl.hpp ------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

using rows_tag = hn::CappedTag<std::int32_t, 8>;
using rows_f32_tag = hn::RebindToFloat<rows_tag>;
using rows_u8_tag = hn::Repartition<std::uint8_t, rows_tag>;
using rows_i8_tag = hn::Repartition<std::int8_t, rows_tag>;
using rows_i16_tag = hn::Repartition<std::int16_t, rows_tag>;
using rows_u16_tag = hn::Repartition<std::uint16_t, rows_tag>;
using rows_i32 = hn::Vec<rows_tag>;
using rows_f32 = hn::Vec<rows_f32_tag>;
using code_vector = hn::Vec<rows_u8_tag>;
using signed_code_vector = hn::Vec<rows_i8_tag>;

PHI4FLASH_VECTOR_INLINE std::size_t rows_lanes() { return hn::Lanes(rows_tag()); }
PHI4FLASH_VECTOR_INLINE code_vector load_codes(const std::uint8_t* p) { return hn::LoadU(rows_u8_tag(), p); }
PHI4FLASH_VECTOR_INLINE signed_code_vector load_codes(const std::int8_t* p) { return hn::LoadU(rows_i8_tag(), p); }
PHI4FLASH_VECTOR_INLINE code_vector load_levels(const std::uint8_t* sixteen) { return hn::LoadDup128(rows_u8_tag(), sixteen); }
PHI4FLASH_VECTOR_INLINE code_vector low_codes(code_vector v) { return hn::And(v, hn::Set(rows_u8_tag(), std::uint8_t{15})); }
PHI4FLASH_VECTOR_INLINE code_vector high_codes(code_vector v) {
    const rows_u16_tag du16;
    return low_codes(hn::BitCast(rows_u8_tag(), hn::ShiftRight<4>(hn::BitCast(du16, v))));
}
PHI4FLASH_VECTOR_INLINE code_vector levels_of(code_vector levels, code_vector codes) { return hn::TableLookupBytes(levels, codes); }
PHI4FLASH_VECTOR_INLINE signed_code_vector broadcast_four(const std::int8_t* p) {
    std::int32_t four;
    std::memcpy(&four, p, sizeof four);
    return hn::BitCast(rows_i8_tag(), hn::Set(rows_tag(), four));
}

#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL
using dot_sums = hn::Vec<rows_i16_tag>;
PHI4FLASH_VECTOR_INLINE dot_sums in_this_order(dot_sums sums) {
#if defined(__GNUC__) && !defined(__clang__)
    asm("" : "+x"(sums.raw));
#endif
    return sums;
}
PHI4FLASH_VECTOR_INLINE dot_sums dot_first(code_vector w, signed_code_vector x) { return hn::SatWidenMulPairwiseAdd(rows_i16_tag(), w, x); }
PHI4FLASH_VECTOR_INLINE dot_sums dot_next(dot_sums sums, code_vector w, signed_code_vector x) {
    return in_this_order(hn::Add(sums, hn::SatWidenMulPairwiseAdd(rows_i16_tag(), w, x)));
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(dot_sums sums) {
    return hn::WidenMulPairwiseAdd(rows_tag(), sums, hn::Set(rows_i16_tag(), std::int16_t{1}));
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(rows_i32 total, dot_sums sums) { return hn::Add(total, dot_fold(sums)); }
inline constexpr int dense_activation_limit = 67;
#else
using dot_sums = rows_i32;
#if HWY_ARCH_X86
PHI4FLASH_VECTOR_INLINE rows_i32 dot_four(code_vector w, signed_code_vector x, rows_i32 sum) {
    return hn::SumOfMulQuadAccumulate(rows_tag(), w, x, sum);
}
#else  // levels are below 128, so they are signed bytes too, for which other architectures have the instruction
PHI4FLASH_VECTOR_INLINE rows_i32 dot_four(code_vector w, signed_code_vector x, rows_i32 sum) {
    return hn::SumOfMulQuadAccumulate(rows_tag(), hn::BitCast(rows_i8_tag(), w), x, sum);
}
#endif
PHI4FLASH_VECTOR_INLINE dot_sums dot_first(code_vector w, signed_code_vector x) { return dot_four(w, x, hn::Zero(rows_tag())); }
PHI4FLASH_VECTOR_INLINE dot_sums dot_next(dot_sums sums, code_vector w, signed_code_vector x) { return dot_four(w, x, sums); }
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(dot_sums sums) { return sums; }
inline constexpr int dense_activation_limit = 127;
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(rows_i32 total, dot_sums sums) { return hn::Add(total, sums); }
#endif

#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3_DL
PHI4FLASH_VECTOR_INLINE rows_i32 dot_signed(rows_i32 total, signed_code_vector w, signed_code_vector x) {
    const auto magnitude = hn::BitCast(rows_u8_tag(), hn::Abs(w));
    const auto signed_x = hn::IfNegativeThenNegOrUndefIfZero(w, x);
    return hn::Add(total, hn::WidenMulPairwiseAdd(rows_tag(), hn::SatWidenMulPairwiseAdd(rows_i16_tag(), magnitude, signed_x),
                                                  hn::Set(rows_i16_tag(), std::int16_t{1})));
}
#else
PHI4FLASH_VECTOR_INLINE rows_i32 dot_signed(rows_i32 total, signed_code_vector w, signed_code_vector x) {
    return hn::SumOfMulQuadAccumulate(rows_tag(), w, x, total);
}
#endif

PHI4FLASH_VECTOR_INLINE rows_i32 set_rows(std::int32_t x) { return hn::Set(rows_tag(), x); }
PHI4FLASH_VECTOR_INLINE rows_f32 zero_rows() { return hn::Zero(rows_f32_tag()); }
PHI4FLASH_VECTOR_INLINE rows_f32 load_scales(const f16* p) {
    const hn::Rebind<hwy::float16_t, rows_f32_tag> half;
    return hn::PromoteTo(rows_f32_tag(), hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(p)));
}
PHI4FLASH_VECTOR_INLINE rows_f32 scale_sums(rows_i32 sums, float scale, float offset) {
    const rows_f32_tag df;
    return hn::MulAdd(hn::ConvertTo(df, sums), hn::Set(df, scale), hn::Set(df, offset));
}
PHI4FLASH_VECTOR_INLINE rows_f32 mul_add_rows(rows_f32 a, rows_f32 b, rows_f32 c) { return hn::MulAdd(a, b, c); }
PHI4FLASH_VECTOR_INLINE rows_f32 load_rows(const float* p) { return hn::LoadU(rows_f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE void store_rows(rows_f32 v, float* p) { hn::StoreU(v, rows_f32_tag(), p); }

PHI4FLASH_TARGET_END
#else

// ---- phi4flash/simd/integer_plain-inl.hpp --------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline constexpr std::size_t plain_rows = 8;
struct rows_i32 {
    std::int32_t lane[plain_rows];
};
struct rows_f32 {
    float lane[plain_rows];
};
struct code_vector {
    std::uint8_t byte[4 * plain_rows];
};
struct signed_code_vector {
    std::int8_t byte[4 * plain_rows];
};
using dot_sums = rows_i32;

PHI4FLASH_VECTOR_INLINE constexpr std::size_t rows_lanes() { return plain_rows; }
PHI4FLASH_VECTOR_INLINE code_vector load_codes(const std::uint8_t* p) {
    code_vector v;
    std::memcpy(v.byte, p, sizeof v.byte);
    return v;
}
PHI4FLASH_VECTOR_INLINE signed_code_vector load_codes(const std::int8_t* p) {
    signed_code_vector v;
    std::memcpy(v.byte, p, sizeof v.byte);
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector load_levels(const std::uint8_t* sixteen) {
    code_vector v;
    for (std::size_t i = 0; i < sizeof v.byte; ++i) v.byte[i] = sixteen[i % 16];
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector low_codes(code_vector v) {
    for (std::uint8_t& b : v.byte) b = b & 15u;
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector high_codes(code_vector v) {
    for (std::uint8_t& b : v.byte) b = static_cast<std::uint8_t>(b >> 4);
    return v;
}
PHI4FLASH_VECTOR_INLINE code_vector levels_of(const code_vector& levels, code_vector codes) {
    for (std::uint8_t& b : codes.byte) b = levels.byte[b];
    return codes;
}
PHI4FLASH_VECTOR_INLINE signed_code_vector broadcast_four(const std::int8_t* p) {
    signed_code_vector v;
    for (std::size_t i = 0; i < sizeof v.byte; ++i) v.byte[i] = p[i % 4];
    return v;
}

namespace detail {
PHI4FLASH_VECTOR_INLINE float fused(float a, float b, float c) {
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__)
    return std::fma(a, b, c);
#else
    return a * b + c;
#endif
}

template <class Codes>
PHI4FLASH_VECTOR_INLINE rows_i32 plain_dot(rows_i32 total, const Codes& w, const signed_code_vector& x) {
    for (std::size_t r = 0; r < plain_rows; ++r) {
        for (std::size_t i = 0; i < 4; ++i) total.lane[r] += static_cast<std::int32_t>(w.byte[4 * r + i]) * x.byte[4 * r + i];
    }
    return total;
}
}  // namespace detail

PHI4FLASH_VECTOR_INLINE rows_i32 set_rows(std::int32_t x) {
    rows_i32 v;
    for (std::int32_t& lane : v.lane) lane = x;
    return v;
}
PHI4FLASH_VECTOR_INLINE dot_sums dot_first(const code_vector& w, const signed_code_vector& x) { return detail::plain_dot(set_rows(0), w, x); }
PHI4FLASH_VECTOR_INLINE dot_sums dot_next(const dot_sums& sums, const code_vector& w, const signed_code_vector& x) {
    return detail::plain_dot(sums, w, x);
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(const dot_sums& sums) { return sums; }
inline constexpr int dense_activation_limit = 127;
PHI4FLASH_VECTOR_INLINE rows_i32 dot_fold(rows_i32 total, const dot_sums& sums) {
    for (std::size_t r = 0; r < plain_rows; ++r) total.lane[r] += sums.lane[r];
    return total;
}
PHI4FLASH_VECTOR_INLINE rows_i32 dot_signed(const rows_i32& total, const signed_code_vector& w, const signed_code_vector& x) {
    return detail::plain_dot(total, w, x);
}

PHI4FLASH_VECTOR_INLINE rows_f32 zero_rows() { return {}; }
PHI4FLASH_VECTOR_INLINE rows_f32 load_scales(const f16* p) {
    rows_f32 v;
    for (std::size_t r = 0; r < plain_rows; ++r) v.lane[r] = to_f32(p[r]);
    return v;
}
PHI4FLASH_VECTOR_INLINE rows_f32 scale_sums(const rows_i32& sums, float scale, float offset) {
    rows_f32 v;
    for (std::size_t r = 0; r < plain_rows; ++r) v.lane[r] = detail::fused(static_cast<float>(sums.lane[r]), scale, offset);
    return v;
}
PHI4FLASH_VECTOR_INLINE rows_f32 mul_add_rows(const rows_f32& a, const rows_f32& b, rows_f32 c) {
    for (std::size_t r = 0; r < plain_rows; ++r) c.lane[r] = detail::fused(a.lane[r], b.lane[r], c.lane[r]);
    return c;
}
PHI4FLASH_VECTOR_INLINE rows_f32 load_rows(const float* p) {
    rows_f32 v;
    for (std::size_t r = 0; r < plain_rows; ++r) v.lane[r] = p[r];
    return v;
}
PHI4FLASH_VECTOR_INLINE void store_rows(const rows_f32& v, float* p) {
    for (std::size_t r = 0; r < plain_rows; ++r) p[r] = v.lane[r];
}

PHI4FLASH_TARGET_END
#endif

// ---- phi4flash/kernels/math-inl.hpp --------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

PHI4FLASH_VECTOR_INLINE f32_vector exp2_of(f32_vector x) {
    const f32_vector clamped = max_of(min_of(x, set(127.0f)), set(-126.0f));
    const f32_vector n = round_nearest(clamped);
    const f32_vector r = sub(clamped, n);
    f32_vector p = set(1.525273380e-5f);
    p = mul_add(p, r, set(1.540353039e-4f));
    p = mul_add(p, r, set(1.333355814e-3f));
    p = mul_add(p, r, set(9.618129107e-3f));
    p = mul_add(p, r, set(5.550410866e-2f));
    p = mul_add(p, r, set(2.402265070e-1f));
    p = mul_add(p, r, set(6.931471806e-1f));
    p = mul_add(p, r, set(1.0f));
    return scale_by_power_of_two(p, n);
}

PHI4FLASH_VECTOR_INLINE f32_vector exp_of(f32_vector x) {
    const f32_vector clamped = max_of(min_of(x, set(88.0f)), set(-87.3f));
    const f32_vector n = round_nearest(mul(clamped, set(1.442695041f)));
    f32_vector r = neg_mul_add(n, set(0.693359375f), clamped);
    r = neg_mul_add(n, set(-2.12194440e-4f), r);
    f32_vector p = set(1.984126984e-4f);
    p = mul_add(p, r, set(1.388888889e-3f));
    p = mul_add(p, r, set(8.333333333e-3f));
    p = mul_add(p, r, set(4.166666667e-2f));
    p = mul_add(p, r, set(1.666666667e-1f));
    p = mul_add(p, r, set(5.0e-1f));
    p = mul_add(p, r, set(1.0f));
    p = mul_add(p, r, set(1.0f));
    return scale_by_power_of_two(p, n);
}

PHI4FLASH_VECTOR_INLINE f32_vector silu_of(f32_vector x) { return div(x, add(set(1.0f), exp_of(sub(zero(), x)))); }

PHI4FLASH_VECTOR_INLINE f32_vector softplus_of(f32_vector x) {
    const f32_vector t = exp_of(sub(zero(), abs_of(x)));
    const f32_vector s = div(t, add(t, set(2.0f)));
    const f32_vector z = mul(s, s);
    f32_vector p = set(6.666666667e-2f);
    p = mul_add(p, z, set(7.692307692e-2f));
    p = mul_add(p, z, set(9.090909091e-2f));
    p = mul_add(p, z, set(1.111111111e-1f));
    p = mul_add(p, z, set(1.428571429e-1f));
    p = mul_add(p, z, set(2.0e-1f));
    p = mul_add(p, z, set(3.333333333e-1f));
    p = mul_add(p, z, set(1.0f));
    return mul_add(add(s, s), p, max_of(x, zero()));
}

PHI4FLASH_VECTOR_INLINE float mul_add_one(float a, float b, float c) {
    float out[max_lanes];
    store(mul_add(set(a), set(b), set(c)), out);
    return out[0];
}

template <class Element>
PHI4FLASH_VECTOR_INLINE f32_vector load_first(const Element* p, std::size_t n) {
    float buffer[max_lanes] = {};
    for (std::size_t i = 0; i < n; ++i) buffer[i] = to_f32(p[i]);
    return load(buffer);
}

template <class Element>
PHI4FLASH_VECTOR_INLINE void store_first(f32_vector v, Element* p, std::size_t n) {
    float buffer[max_lanes];
    store(v, buffer);
    for (std::size_t i = 0; i < n; ++i) p[i] = from_f32<Element>(buffer[i]);
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/linear-inl.hpp ------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

template <class Element>
PHI4FLASH_VECTOR_INLINE float dot(const Element* PHI4FLASH_RESTRICT a, const float* PHI4FLASH_RESTRICT b, std::size_t n) {
    const std::size_t lane_count = lanes();
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    f32_vector s2 = zero();
    f32_vector s3 = zero();
    std::size_t i = 0;
    for (; i + 4 * lane_count <= n; i += 4 * lane_count) {
        s0 = mul_add(load(a + i), load(b + i), s0);
        s1 = mul_add(load(a + i + lane_count), load(b + i + lane_count), s1);
        s2 = mul_add(load(a + i + 2 * lane_count), load(b + i + 2 * lane_count), s2);
        s3 = mul_add(load(a + i + 3 * lane_count), load(b + i + 3 * lane_count), s3);
    }
    for (; i + lane_count <= n; i += lane_count) s0 = mul_add(load(a + i), load(b + i), s0);
    if (i < n) s1 = mul_add(load_first(a + i, n - i), load_first(b + i, n - i), s1);
    return reduce_sum(add(add(s0, s1), add(s2, s3)));
}

PHI4FLASH_VECTOR_INLINE float dot_arranged(const bf16* PHI4FLASH_RESTRICT a, const float* PHI4FLASH_RESTRICT x, std::size_t n) {
    const std::size_t lane_count = lanes();
    const std::size_t step = 2 * lane_count;
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    f32_vector s2 = zero();
    f32_vector s3 = zero();
    f32_vector even;
    f32_vector odd;
    std::size_t i = 0;
    for (; i + 2 * step <= n; i += 2 * step) {
        load_even_odd(a + i, even, odd);
        s0 = mul_add(even, load(x + i), s0);
        s1 = mul_add(odd, load(x + i + lane_count), s1);
        load_even_odd(a + i + step, even, odd);
        s2 = mul_add(even, load(x + i + step), s2);
        s3 = mul_add(odd, load(x + i + step + lane_count), s3);
    }
    for (; i < n; i += step) {
        bf16 last[2 * max_lanes] = {};
        const bf16* block = a + i;
        if (i + step > n) {  // a ragged end: what lies behind it belongs to somebody else
            for (std::size_t j = i; j < n; ++j) last[j - i] = a[j];
            block = last;
        }
        load_even_odd(block, even, odd);
        s0 = mul_add(even, load(x + i), s0);
        s1 = mul_add(odd, load(x + i + lane_count), s1);
    }
    return reduce_sum(add(add(s0, s1), add(s2, s3)));
}

inline const std::byte* arrange_none(const float* x, std::size_t, std::size_t, std::size_t, std::byte*) { return reinterpret_cast<const std::byte*>(x); }

inline const std::byte* arrange_even_odd(const float* PHI4FLASH_RESTRICT x, std::size_t cols, std::size_t token, std::size_t, std::byte* scratch) {
    auto* PHI4FLASH_RESTRICT out = reinterpret_cast<float*>(scratch + token * arranged_bytes(cols));
    const std::size_t half = lanes();
    for (std::size_t i = 0; i < cols; i += 2 * half) {
        for (std::size_t j = 0; j < half; ++j) {
            out[i + j] = i + 2 * j < cols ? x[i + 2 * j] : 0.0f;
            out[i + half + j] = i + 2 * j + 1 < cols ? x[i + 2 * j + 1] : 0.0f;
        }
    }
    return scratch;
}

template <class Element>
inline void matvec(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* arranged, const float* bias, float* y) {
    const auto* x = reinterpret_cast<const float*>(arranged);
    const auto* row = reinterpret_cast<const Element*>(w);
    for (std::size_t r = 0; r < rows; ++r, row += cols) {
        float sum = 0.0f;
        if constexpr (dtype_of<Element> == dtype::bf16) {
            sum = dot_arranged(row, x, cols);
        } else {
            sum = dot(row, x, cols);
        }
        y[r] = bias == nullptr ? sum : sum + bias[r];
    }
}

template <class Element>
inline void widen(const std::byte* w, std::size_t cols, float* PHI4FLASH_RESTRICT out) {
    const auto* in = reinterpret_cast<const Element*>(w);
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= cols; i += lane_count) store(load(in + i), out + i);
    for (; i < cols; ++i) out[i] = to_f32(in[i]);
}

inline constexpr std::size_t panel_rows = 6;
inline constexpr std::size_t panel_cols = 1024;

PHI4FLASH_VECTOR_INLINE void tile_4x3(const float* PHI4FLASH_RESTRICT x, std::size_t x_stride, const float* PHI4FLASH_RESTRICT panel,
                                      std::size_t n, float* y, std::size_t y_stride) {
    const std::size_t lane_count = lanes();
    const float* x1 = x + x_stride;
    const float* x2 = x1 + x_stride;
    const float* x3 = x2 + x_stride;
    const float* w1 = panel + panel_cols;
    const float* w2 = w1 + panel_cols;
    f32_vector s00 = zero(), s01 = zero(), s02 = zero();
    f32_vector s10 = zero(), s11 = zero(), s12 = zero();
    f32_vector s20 = zero(), s21 = zero(), s22 = zero();
    f32_vector s30 = zero(), s31 = zero(), s32 = zero();
    for (std::size_t i = 0; i < n; i += lane_count) {  // n is a multiple of lane_count
        const f32_vector a = load(panel + i);
        const f32_vector b = load(w1 + i);
        const f32_vector c = load(w2 + i);
        f32_vector t = load(x + i);
        s00 = mul_add(t, a, s00), s01 = mul_add(t, b, s01), s02 = mul_add(t, c, s02);
        t = load(x1 + i);
        s10 = mul_add(t, a, s10), s11 = mul_add(t, b, s11), s12 = mul_add(t, c, s12);
        t = load(x2 + i);
        s20 = mul_add(t, a, s20), s21 = mul_add(t, b, s21), s22 = mul_add(t, c, s22);
        t = load(x3 + i);
        s30 = mul_add(t, a, s30), s31 = mul_add(t, b, s31), s32 = mul_add(t, c, s32);
    }
    y[0] += reduce_sum(s00), y[1] += reduce_sum(s01), y[2] += reduce_sum(s02);
    y += y_stride;
    y[0] += reduce_sum(s10), y[1] += reduce_sum(s11), y[2] += reduce_sum(s12);
    y += y_stride;
    y[0] += reduce_sum(s20), y[1] += reduce_sum(s21), y[2] += reduce_sum(s22);
    y += y_stride;
    y[0] += reduce_sum(s30), y[1] += reduce_sum(s31), y[2] += reduce_sum(s32);
}

PHI4FLASH_VECTOR_INLINE void tile_1x1(const float* PHI4FLASH_RESTRICT x, const float* PHI4FLASH_RESTRICT panel, std::size_t n, float* y) {
    f32_vector sum = zero();
    for (std::size_t i = 0; i < n; i += lanes()) sum = mul_add(load(x + i), load(panel + i), sum);
    *y += reduce_sum(sum);
}

PHI4FLASH_VECTOR_INLINE void multiply_panel(const float* x, std::size_t x_stride, std::size_t tokens, const float* panel, std::size_t rows,
                                            std::size_t n, float* y, std::size_t y_stride) {
    std::size_t t = 0;
    for (; t + 4 <= tokens; t += 4) {
        std::size_t r = 0;
        for (; r + 3 <= rows; r += 3) tile_4x3(x + t * x_stride, x_stride, panel + r * panel_cols, n, y + t * y_stride + r, y_stride);
        for (; r < rows; ++r) {
            for (std::size_t k = t; k < t + 4; ++k) tile_1x1(x + k * x_stride, panel + r * panel_cols, n, y + k * y_stride + r);
        }
    }
    for (; t < tokens; ++t) {
        for (std::size_t r = 0; r < rows; ++r) tile_1x1(x + t * x_stride, panel + r * panel_cols, n, y + t * y_stride + r);
    }
}

template <class Element>
inline void matmul(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x_bytes, std::size_t x_stride, std::size_t tokens,
                   const float* bias, float* y, std::size_t y_stride) {
    const auto* x = reinterpret_cast<const float*>(x_bytes);
    alignas(64) float panel[panel_rows * panel_cols];
    const std::size_t lane_count = lanes();
    const std::size_t whole_cols = cols / lane_count * lane_count;
    for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t r = 0; r < rows; ++r) y[t * y_stride + r] = bias == nullptr ? 0.0f : bias[r];
    }
    for (std::size_t r0 = 0; r0 < rows; r0 += panel_rows) {
        const std::size_t row_count = rows - r0 < panel_rows ? rows - r0 : panel_rows;
        for (std::size_t c0 = 0; c0 < whole_cols; c0 += panel_cols) {
            const std::size_t n = whole_cols - c0 < panel_cols ? whole_cols - c0 : panel_cols;
            for (std::size_t r = 0; r < row_count; ++r)
                widen<Element>(w + ((r0 + r) * cols + c0) * sizeof(Element), n, panel + r * panel_cols);
            multiply_panel(x + c0, x_stride, tokens, panel, row_count, n, y + r0, y_stride);
        }
        for (std::size_t r = 0; r < row_count && whole_cols < cols; ++r) {
            const auto* row = reinterpret_cast<const Element*>(w) + (r0 + r) * cols;
            for (std::size_t t = 0; t < tokens; ++t) {
                float sum = 0.0f;
                for (std::size_t c = whole_cols; c < cols; ++c) sum += to_f32(row[c]) * x[t * x_stride + c];
                y[t * y_stride + r0 + r] += sum;
            }
        }
    }
}

template <class Element>
inline void widen_row(const std::byte* w, std::size_t r, std::size_t cols, float* out) {
    widen<Element>(w + r * cols * sizeof(Element), cols, out);
}

template <class Element>
inline void narrow(const float* PHI4FLASH_RESTRICT x, std::size_t n, std::byte* PHI4FLASH_RESTRICT out) {
    auto* to = reinterpret_cast<Element*>(out);
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(load(x + i), to + i);
    for (; i < n; ++i) to[i] = from_f32<Element>(x[i]);
}

inline float read_all(const std::byte* data, std::size_t bytes) {
    const auto* p = reinterpret_cast<const bf16*>(data);
    const std::size_t step = 4 * lanes();
    const std::size_t count = bytes / sizeof(bf16);
    f32_vector s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
    f32_vector even;
    f32_vector odd;
    std::size_t i = 0;
    for (; i + step <= count; i += step) {
        load_even_odd(p + i, even, odd);
        s0 = add(s0, even), s1 = add(s1, odd);
        load_even_odd(p + i + step / 2, even, odd);
        s2 = add(s2, even), s3 = add(s3, odd);
    }
    float rest = 0.0f;
    for (; i < count; ++i) rest += to_f32(p[i]);
    return reduce_sum(add(add(s0, s1), add(s2, s3))) + rest;
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/elementwise-inl.hpp -------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline void accumulate(const float* PHI4FLASH_RESTRICT x, std::size_t n, float* PHI4FLASH_RESTRICT y) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(add(load(y + i), load(x + i)), y + i);
    for (; i < n; ++i) y[i] += x[i];
}

inline void silu_mul(const float* gate, const float* x, std::size_t n, float* y) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(mul(silu_of(load(gate + i)), load(x + i)), y + i);
    if (i < n) store_first(mul(silu_of(load_first(gate + i, n - i)), load_first(x + i, n - i)), y + i, n - i);
}

inline void softplus(const float* x, std::size_t n, float* y) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(softplus_of(load(x + i)), y + i);
    if (i < n) store_first(softplus_of(load_first(x + i, n - i)), y + i, n - i);
}

PHI4FLASH_VECTOR_INLINE float sum_of_squares(const float* x, float shift, std::size_t n) {
    const std::size_t lane_count = lanes();
    const f32_vector c = set(shift);
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    std::size_t i = 0;
    for (; i + 2 * lane_count <= n; i += 2 * lane_count) {
        const f32_vector a = sub(load(x + i), c);
        const f32_vector b = sub(load(x + i + lane_count), c);
        s0 = mul_add(a, a, s0);
        s1 = mul_add(b, b, s1);
    }
    float rest = 0.0f;
    for (; i < n; ++i) rest += (x[i] - shift) * (x[i] - shift);
    return reduce_sum(add(s0, s1)) + rest;
}

PHI4FLASH_VECTOR_INLINE float sum_of(const float* x, std::size_t n) {
    const std::size_t lane_count = lanes();
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    std::size_t i = 0;
    for (; i + 2 * lane_count <= n; i += 2 * lane_count) {
        s0 = add(s0, load(x + i));
        s1 = add(s1, load(x + i + lane_count));
    }
    float rest = 0.0f;
    for (; i < n; ++i) rest += x[i];
    return reduce_sum(add(s0, s1)) + rest;
}

inline void layer_norm(const float* x, const float* weight, const float* bias, float eps, std::size_t n, float* y) {
    const auto count = static_cast<float>(n);
    const float mean = sum_of(x, n) / count;
    const float inverse = 1.0f / std::sqrt(sum_of_squares(x, mean, n) / count + eps);
    const std::size_t lane_count = lanes();
    const f32_vector m = set(mean);
    const f32_vector s = set(inverse);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count)
        store(mul_add(mul(sub(load(x + i), m), s), load(weight + i), load(bias + i)), y + i);
    for (; i < n; ++i) y[i] = (x[i] - mean) * inverse * weight[i] + bias[i];
}

inline void rms_norm(const float* x, const float* weight, float eps, std::size_t n, float* y) {
    const float inverse = 1.0f / std::sqrt(sum_of_squares(x, 0.0f, n) / static_cast<float>(n) + eps);
    const std::size_t lane_count = lanes();
    const f32_vector s = set(inverse);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(mul(mul(load(x + i), s), load(weight + i)), y + i);
    for (; i < n; ++i) y[i] = x[i] * inverse * weight[i];
}

inline void difference_norm(const float* first, const float* second, float lambda, const float* weight, float eps, std::size_t n,
                            float* y) {
    const std::size_t lane_count = lanes();
    const f32_vector l = set(lambda);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(neg_mul_add(l, load(second + i), load(first + i)), y + i);
    for (; i < n; ++i) y[i] = first[i] - lambda * second[i];
    rms_norm(y, weight, eps, n, y);
}

inline void softmax(float* x, std::size_t n, float inverse_temperature) {
    if (n == 0) return;
    const std::size_t lane_count = lanes();
    float highest = x[0];
    std::size_t i = 0;
    if (n >= lane_count) {
        f32_vector m = load(x);
        for (; i + lane_count <= n; i += lane_count) m = max_of(m, load(x + i));
        highest = reduce_max(m);
    }
    for (; i < n; ++i) highest = x[i] > highest ? x[i] : highest;

    const f32_vector shift = set(highest);
    const f32_vector scale = set(inverse_temperature);
    f32_vector sums = zero();
    for (i = 0; i + lane_count <= n;) {
        f32_vector part = zero();
        for (std::size_t k = 0; k < 256 && i + lane_count <= n; ++k, i += lane_count) {
            const f32_vector e = exp_of(mul(sub(load(x + i), shift), scale));
            store(e, x + i);
            part = add(part, e);
        }
        sums = add(sums, part);
    }
    float sum = reduce_sum(sums);
    if (i < n) {
        store_first(exp_of(mul(sub(load_first(x + i, n - i), shift), scale)), x + i, n - i);
        for (; i < n; ++i) sum += x[i];
    }
    const f32_vector inverse = set(1.0f / sum);
    for (i = 0; i + lane_count <= n; i += lane_count) store(mul(load(x + i), inverse), x + i);
    for (; i < n; ++i) x[i] /= sum;
}

inline void rotate(float* x, const float* cosine, const float* sine, std::size_t half) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= half; i += lane_count) {
        const f32_vector a = load(x + i);
        const f32_vector b = load(x + half + i);
        const f32_vector c = load(cosine + i);
        const f32_vector s = load(sine + i);
        store(neg_mul_add(b, s, mul(a, c)), x + i);
        store(mul_add(a, s, mul(b, c)), x + half + i);
    }
    for (; i < half; ++i) {
        const float a = x[i];
        const float b = x[half + i];
        x[i] = a * cosine[i] - b * sine[i];
        x[half + i] = a * sine[i] + b * cosine[i];
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/mamba-inl.hpp -------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline void convolution(const convolution_args& args, std::size_t channel_begin, std::size_t channel_end) {
    const std::size_t lane_count = lanes();
    const std::size_t history = args.d_conv - 1;
    for (std::size_t t = 0; t < args.tokens; ++t) {
        float* y = args.y + t * args.y_stride;
        for (std::size_t c = channel_begin; c < channel_end; c += lane_count) {
            const std::size_t n = channel_end - c < lane_count ? channel_end - c : lane_count;
            const bool whole = n == lane_count;
            f32_vector sum = whole ? load(args.bias + c) : load_first(args.bias + c, n);
            for (std::size_t j = 0; j < args.d_conv; ++j) {
                const std::size_t time = t + j;
                const float* x = time < history ? args.state + time * args.d_inner : args.x + (time - history) * args.x_stride;
                const float* w = args.weight + j * args.d_inner;
                sum = whole ? mul_add(load(x + c), load(w + c), sum) : mul_add(load_first(x + c, n), load_first(w + c, n), sum);
            }
            if (whole) {
                store(silu_of(sum), y + c);
            } else {
                store_first(silu_of(sum), y + c, n);
            }
        }
    }
    for (std::size_t j = 0; j < history; ++j) {
        const std::size_t time = args.tokens + j;
        const float* from = time < history ? args.state + time * args.d_inner : args.x + (time - history) * args.x_stride;
        float* to = args.state + j * args.d_inner;
        for (std::size_t c = channel_begin; c < channel_end; ++c) to[c] = from[c];
    }
}

PHI4FLASH_VECTOR_INLINE f32_vector scan_vector(const float* a, float* h, const float* b, const float* c, std::size_t d_state, f32_vector dt,
                                               f32_vector dt_u) {
    f32_vector y0 = zero();
    f32_vector y1 = zero();
    std::size_t n = 0;
    for (; n + 2 <= d_state; n += 2) {
        float* h0 = h + n * channel_block;
        float* h1 = h0 + channel_block;
        const f32_vector next0 = mul_add(exp2_of(mul(dt, load(a + n * channel_block))), load(h0), mul(dt_u, set(b[n])));
        const f32_vector next1 = mul_add(exp2_of(mul(dt, load(a + (n + 1) * channel_block))), load(h1), mul(dt_u, set(b[n + 1])));
        store(next0, h0);
        store(next1, h1);
        y0 = mul_add(next0, set(c[n]), y0);
        y1 = mul_add(next1, set(c[n + 1]), y1);
    }
    for (; n < d_state; ++n) {
        float* h0 = h + n * channel_block;
        const f32_vector next = mul_add(exp2_of(mul(dt, load(a + n * channel_block))), load(h0), mul(dt_u, set(b[n])));
        store(next, h0);
        y0 = mul_add(next, set(c[n]), y0);
    }
    return add(y0, y1);
}

inline void scan(const scan_args& args, std::size_t block_begin, std::size_t block_end) {
    const std::size_t lane_count = lanes();
    for (std::size_t block = block_begin; block < block_end; ++block) {
        const std::size_t first = block * channel_block;
        const std::size_t width = args.d_inner - first < channel_block ? args.d_inner - first : channel_block;
        const float* a = args.a_log2e + first * args.d_state;
        float* h = args.h + first * args.d_state;
        for (std::size_t t = 0; t < args.tokens; ++t) {
            const float* b = args.b + t * args.bc_stride;
            const float* c = args.c + t * args.bc_stride;
            for (std::size_t i = 0; i < width; i += lane_count) {
                const std::size_t channel = first + i;
                const std::size_t at = t * args.d_inner + channel;
                const std::size_t n = width - i < lane_count ? width - i : lane_count;
                if (n == lane_count) {
                    const f32_vector dt = load(args.dt + at);
                    const f32_vector u = load(args.u + at);
                    const f32_vector sum = scan_vector(a + i, h + i, b, c, args.d_state, dt, mul(dt, u));
                    store(mul_add(load(args.d + channel), u, sum), args.y + at);
                } else {  // A and h are zero behind the last channel, so whole vectors of them are safe
                    const f32_vector dt = load_first(args.dt + at, n);
                    const f32_vector u = load_first(args.u + at, n);
                    const f32_vector sum = scan_vector(a + i, h + i, b, c, args.d_state, dt, mul(dt, u));
                    store_first(mul_add(load_first(args.d + channel, n), u, sum), args.y + at, n);
                }
            }
        }
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/attention-inl.hpp ---------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline constexpr std::size_t tile_keys = 32;
inline constexpr std::size_t tile_floats = 4096;
inline constexpr std::size_t row_block = 64;
inline constexpr float lowest_score = -3.0e38f;

template <class Element>
PHI4FLASH_VECTOR_INLINE void tile_scores(const float* PHI4FLASH_RESTRICT q, const Element* PHI4FLASH_RESTRICT k, std::size_t width,
                                         std::size_t d_head, std::size_t begin, std::size_t end, float scale,
                                         float* PHI4FLASH_RESTRICT scores) {
    const std::size_t lane_count = lanes();
    const std::size_t whole = d_head / lane_count * lane_count;
    std::size_t j = begin;
    for (; j + 4 <= end && whole == d_head; j += 4) {
        const Element* k0 = k + j * width;
        const Element* k1 = k0 + width;
        const Element* k2 = k1 + width;
        const Element* k3 = k2 + width;
        f32_vector s0 = zero();
        f32_vector s1 = zero();
        f32_vector s2 = zero();
        f32_vector s3 = zero();
        for (std::size_t i = 0; i < whole; i += lane_count) {
            const f32_vector x = load(q + i);
            s0 = mul_add(x, load(k0 + i), s0);
            s1 = mul_add(x, load(k1 + i), s1);
            s2 = mul_add(x, load(k2 + i), s2);
            s3 = mul_add(x, load(k3 + i), s3);
        }
        scores[j] = scale * reduce_sum(s0);
        scores[j + 1] = scale * reduce_sum(s1);
        scores[j + 2] = scale * reduce_sum(s2);
        scores[j + 3] = scale * reduce_sum(s3);
    }
    for (; j < end; ++j) {
        f32_vector s = zero();
        for (std::size_t i = 0; i < whole; i += lane_count) s = mul_add(load(q + i), load(k + j * width + i), s);
        if (whole < d_head) s = mul_add(load_first(q + whole, d_head - whole), load_first(k + j * width + whole, d_head - whole), s);
        scores[j] = scale * reduce_sum(s);
    }
}

template <class Element>
PHI4FLASH_VECTOR_INLINE void tile_values(const float* PHI4FLASH_RESTRICT p, const Element* PHI4FLASH_RESTRICT v, std::size_t width,
                                         std::size_t begin, std::size_t end, float correction, float* PHI4FLASH_RESTRICT out) {
    const std::size_t lane_count = lanes();
    const f32_vector keep = set(correction);
    std::size_t i = 0;
    for (; i + 4 * lane_count <= width; i += 4 * lane_count) {
        f32_vector o0 = mul(keep, load(out + i));
        f32_vector o1 = mul(keep, load(out + i + lane_count));
        f32_vector o2 = mul(keep, load(out + i + 2 * lane_count));
        f32_vector o3 = mul(keep, load(out + i + 3 * lane_count));
        for (std::size_t j = begin; j < end; ++j) {
            const f32_vector weight = set(p[j]);
            const Element* row = v + j * width + i;
            o0 = mul_add(weight, load(row), o0);
            o1 = mul_add(weight, load(row + lane_count), o1);
            o2 = mul_add(weight, load(row + 2 * lane_count), o2);
            o3 = mul_add(weight, load(row + 3 * lane_count), o3);
        }
        store(o0, out + i);
        store(o1, out + i + lane_count);
        store(o2, out + i + 2 * lane_count);
        store(o3, out + i + 3 * lane_count);
    }
    for (; i + lane_count <= width; i += lane_count) {
        f32_vector o = mul(keep, load(out + i));
        for (std::size_t j = begin; j < end; ++j) o = mul_add(set(p[j]), load(v + j * width + i), o);
        store(o, out + i);
    }
    if (i < width) {
        f32_vector o = mul(keep, load_first(out + i, width - i));
        for (std::size_t j = begin; j < end; ++j) o = mul_add(set(p[j]), load_first(v + j * width + i, width - i), o);
        store_first(o, out + i, width - i);
    }
}

struct attention_row {
    const float* q;
    float* out;
    std::size_t key_head;        ///< within the group
    std::size_t position;
    std::size_t first_visible;   ///< position
    float slope;
    float maximum;
    float sum;
};

template <class Element>
PHI4FLASH_VECTOR_INLINE void attend_tile(const attention_args& args, attention_row& row, const Element* k, const Element* v,
                                         std::size_t tile_position, std::size_t begin, std::size_t end) {
    const std::size_t width = args.k_per_group * args.d_head;
    const std::size_t lane_count = lanes();
    float scores[tile_keys + max_lanes];
    for (std::size_t j = 0; j < tile_keys; ++j) scores[j] = lowest_score;
    tile_scores(row.q, k + row.key_head * args.d_head, width, args.d_head, begin, end, args.scale, scores);
    if (row.slope != 0.0f) {
        for (std::size_t j = begin; j < end; ++j)
            scores[j] = mul_add_one(-row.slope, static_cast<float>(row.position - (tile_position + j)), scores[j]);
    }
    float highest = row.maximum;
    for (std::size_t j = begin; j < end; ++j) highest = scores[j] > highest ? scores[j] : highest;
    const f32_vector shift = set(highest);
    f32_vector sums = zero();
    const std::size_t first = begin / lane_count * lane_count;
    for (std::size_t j = first; j < end; j += lane_count) {
        const f32_vector e = exp_of(sub(load(scores + j), shift));
        store(e, scores + j);
    }
    float rest = 0.0f;
    std::size_t j = begin;
    for (; j < end && j % lane_count != 0; ++j) rest += scores[j];
    for (; j + lane_count <= end; j += lane_count) sums = add(sums, load(scores + j));
    for (; j < end; ++j) rest += scores[j];
    float shrink[max_lanes];
    store(exp_of(set(row.maximum - highest)), shrink);
    const float correction = row.maximum == lowest_score ? 0.0f : shrink[0];
    row.maximum = highest;
    row.sum = mul_add_one(row.sum, correction, reduce_sum(sums) + rest);
    tile_values(scores, v, width, begin, end, correction, row.out);
}

inline void visible_keys(const attention_row& row, std::size_t position, std::size_t count, std::size_t& begin, std::size_t& end) {
    begin = row.first_visible > position ? row.first_visible - position : 0;
    end = row.position < position ? 0 : row.position - position + 1;
    end = end < count ? end : count;
}

template <class Element>
inline void attend_segment(const attention_args& args, std::size_t group, attention_row* rows, std::size_t n_rows,
                           const kv_segment& segment) {
    const std::size_t width = args.k_per_group * args.d_head;
    const auto* k = reinterpret_cast<const Element*>(segment.k) + group * segment.group_rows * width;
    const auto* v = reinterpret_cast<const Element*>(segment.v) + group * segment.group_rows * width;
    const std::size_t earliest = rows[0].first_visible;
    const std::size_t latest = rows[n_rows - 1].position;
    if (latest < segment.first_position || earliest >= segment.first_position + segment.count) return;
    const std::size_t wide_step = width * tile_keys <= tile_floats ? tile_keys : tile_floats / width;
    const bool can_widen = dtype_of<Element> != dtype::f32 && wide_step >= 4;
    const std::size_t tile_step = can_widen ? wide_step : tile_keys;
    const std::size_t first_key = earliest > segment.first_position ? earliest - segment.first_position : 0;
    const std::size_t start = first_key / tile_step * tile_step;
    const std::size_t stop = latest - segment.first_position + 1 < segment.count ? latest - segment.first_position + 1 : segment.count;
    const bool widened = can_widen && n_rows > 2 * args.k_per_group * args.queries_per_key;
    alignas(64) float wide_k[dtype_of<Element> == dtype::f32 ? 1 : tile_floats];
    alignas(64) float wide_v[dtype_of<Element> == dtype::f32 ? 1 : tile_floats];
    for (std::size_t j = start; j < stop; j += tile_step) {
        const std::size_t count = stop - j < tile_step ? stop - j : tile_step;
        const std::size_t position = segment.first_position + j;
        if (widened) {
            widen<Element>(reinterpret_cast<const std::byte*>(k + j * width), count * width, wide_k);
            widen<Element>(reinterpret_cast<const std::byte*>(v + j * width), count * width, wide_v);
        }
        for (std::size_t r = 0; r < n_rows; ++r) {
            std::size_t begin = 0;
            std::size_t end = 0;
            visible_keys(rows[r], position, count, begin, end);
            if (begin >= end) continue;
            if (widened) {
                attend_tile<float>(args, rows[r], wide_k, wide_v, position, begin, end);
            } else {
                attend_tile<Element>(args, rows[r], k + j * width, v + j * width, position, begin, end);
            }
        }
    }
}

template <class Element>
inline void attention(const attention_args& args, std::size_t group, std::size_t token_begin, std::size_t token_end,
                      const kv_segment* segments, std::size_t n_segments) {
    const std::size_t width = args.k_per_group * args.d_head;
    const std::size_t heads = args.k_per_group * args.queries_per_key;  // query heads of this group
    attention_row rows[row_block];
    const std::size_t total = (token_end - token_begin) * heads;
    for (std::size_t first = 0; first < total; first += row_block) {
        const std::size_t n_rows = total - first < row_block ? total - first : row_block;
        for (std::size_t i = 0; i < n_rows; ++i) {
            const std::size_t token = token_begin + (first + i) / heads;
            const std::size_t head_in_group = (first + i) % heads;
            const std::size_t head = group * heads + head_in_group;
            attention_row& row = rows[i];
            row.q = args.q + token * args.q_stride + head * args.d_head;
            row.out = args.out + token * args.out_stride + head * width;
            row.key_head = head_in_group % args.k_per_group;
            row.position = args.first_position + token;
            row.first_visible = row.position >= args.window ? row.position - args.window + 1 : 0;
            row.slope = args.slopes == nullptr ? 0.0f : args.slopes[head];
            row.maximum = lowest_score;
            row.sum = 0.0f;
            for (std::size_t c = 0; c < width; ++c) row.out[c] = 0.0f;
        }
        for (std::size_t s = 0; s < n_segments; ++s) attend_segment<Element>(args, group, rows, n_rows, segments[s]);
        const std::size_t lane_count = lanes();
        for (std::size_t i = 0; i < n_rows; ++i) {
            const float inverse = 1.0f / rows[i].sum;  // a token sees itself, so the sum is at least 1
            std::size_t c = 0;
            for (; c + lane_count <= width; c += lane_count) store(mul(load(rows[i].out + c), set(inverse)), rows[i].out + c);
            for (; c < width; ++c) rows[i].out[c] *= inverse;
        }
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/packed-inl.hpp ------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

template <int Limit, int Zero>
inline const std::byte* arrange_int8(const float* PHI4FLASH_RESTRICT x, std::size_t cols, std::size_t token, std::size_t tokens,
                                     std::byte* scratch) {
    auto* groups = reinterpret_cast<activation_group*>(scratch) + token;
    const std::size_t lane_count = lanes();
    for (std::size_t g = 0; g < cols / packed_cols; ++g, groups += tokens) {
        const float* group = x + g * packed_cols;
        f32_vector highest = zero();
        for (std::size_t i = 0; i < packed_cols; i += lane_count) highest = max_of(highest, abs_of(load(group + i)));
        const float most = reduce_max(highest);
        const f32_vector inverse = set(most > 0.0f ? static_cast<float>(Limit) / most : 0.0f);
        float rounded[packed_cols];
        f32_vector sums = zero();
        for (std::size_t i = 0; i < packed_cols; i += lane_count) {
            const f32_vector q = round_nearest(mul(load(group + i), inverse));
            store(q, rounded + i);
            sums = add(sums, q);
        }
        for (std::size_t i = 0; i < packed_cols; ++i) groups->q[i] = static_cast<std::int8_t>(rounded[i]);
        groups->scale = most / static_cast<float>(Limit);
        groups->offset = static_cast<float>(-Zero) * groups->scale * reduce_sum(sums);
    }
    return scratch;
}

PHI4FLASH_VECTOR_INLINE rows_f32 add_group(rows_i32 sums, rows_f32 scales, const activation_group& x, rows_f32 total) {
    return mul_add_rows(scales, scale_sums(sums, x.scale, x.offset), total);
}

#define PHI4FLASH_UNPACK_Q4(block, row)                                          \
    const code_vector codes0 = load_codes((block).code[0] + 4 * (row));          \
    const code_vector codes1 = load_codes((block).code[1] + 4 * (row));          \
    const code_vector codes2 = load_codes((block).code[2] + 4 * (row));          \
    const code_vector codes3 = load_codes((block).code[3] + 4 * (row));          \
    const code_vector w0 = q4_levels<Dense>(levels, low_codes(codes0));          \
    const code_vector w1 = q4_levels<Dense>(levels, low_codes(codes1));          \
    const code_vector w2 = q4_levels<Dense>(levels, low_codes(codes2));          \
    const code_vector w3 = q4_levels<Dense>(levels, low_codes(codes3));          \
    const code_vector w4 = q4_levels<Dense>(levels, high_codes(codes0));         \
    const code_vector w5 = q4_levels<Dense>(levels, high_codes(codes1));         \
    const code_vector w6 = q4_levels<Dense>(levels, high_codes(codes2));         \
    const code_vector w7 = q4_levels<Dense>(levels, high_codes(codes3));         \
    static_assert(true)

template <bool Dense>
PHI4FLASH_VECTOR_INLINE code_vector q4_levels(code_vector levels, code_vector codes) {
    if constexpr (Dense) {
        return levels_of(levels, codes);
    } else {
        return codes;
    }
}

template <bool Dense>
PHI4FLASH_VECTOR_INLINE rows_i32 q4_dot(code_vector w0, code_vector w1, code_vector w2, code_vector w3, code_vector w4, code_vector w5,
                                        code_vector w6, code_vector w7, const std::int8_t* x) {
    dot_sums a = dot_next(dot_next(dot_next(dot_first(w0, broadcast_four(x)), w1, broadcast_four(x + 4)), w2, broadcast_four(x + 8)), w3,
                          broadcast_four(x + 12));
    if constexpr (Dense) {
        const dot_sums b = dot_next(dot_next(dot_next(dot_first(w4, broadcast_four(x + 16)), w5, broadcast_four(x + 20)), w6, broadcast_four(x + 24)),
                                    w7, broadcast_four(x + 28));
        return dot_fold(dot_fold(a), b);
    } else {
        a = dot_next(dot_next(dot_next(dot_next(a, w4, broadcast_four(x + 16)), w5, broadcast_four(x + 20)), w6, broadcast_four(x + 24)), w7,
                     broadcast_four(x + 28));
        return dot_fold(a);
    }
}

PHI4FLASH_VECTOR_INLINE void dot_first_four(code_vector w, const activation_group* x, std::size_t at, dot_sums& a, dot_sums& b, dot_sums& c,
                                            dot_sums& d) {
    a = dot_first(w, broadcast_four(x[0].q + at));
    b = dot_first(w, broadcast_four(x[1].q + at));
    c = dot_first(w, broadcast_four(x[2].q + at));
    d = dot_first(w, broadcast_four(x[3].q + at));
}
PHI4FLASH_VECTOR_INLINE void dot_next_four(code_vector w, const activation_group* x, std::size_t at, dot_sums& a, dot_sums& b, dot_sums& c,
                                           dot_sums& d) {
    a = dot_next(a, w, broadcast_four(x[0].q + at));
    b = dot_next(b, w, broadcast_four(x[1].q + at));
    c = dot_next(c, w, broadcast_four(x[2].q + at));
    d = dot_next(d, w, broadcast_four(x[3].q + at));
}

PHI4FLASH_VECTOR_INLINE void add_group_to(float* sum, rows_i32 dots, rows_f32 scales, const activation_group& x) {
    store_rows(add_group(dots, scales, x, load_rows(sum)), sum);
}

template <bool Dense>
PHI4FLASH_VECTOR_INLINE void q4_dot_four(code_vector w0, code_vector w1, code_vector w2, code_vector w3, code_vector w4, code_vector w5,
                                         code_vector w6, code_vector w7, const activation_group* x, rows_f32 scales, float* sums) {
    dot_sums a, b, c, d;
    dot_first_four(w0, x, 0, a, b, c, d);
    dot_next_four(w1, x, 4, a, b, c, d);
    dot_next_four(w2, x, 8, a, b, c, d);
    dot_next_four(w3, x, 12, a, b, c, d);
    if constexpr (Dense) {
        dot_sums e, f, g, h;
        dot_first_four(w4, x, 16, e, f, g, h);
        dot_next_four(w5, x, 20, e, f, g, h);
        dot_next_four(w6, x, 24, e, f, g, h);
        dot_next_four(w7, x, 28, e, f, g, h);
        add_group_to(sums, dot_fold(dot_fold(a), e), scales, x[0]);
        add_group_to(sums + packed_rows, dot_fold(dot_fold(b), f), scales, x[1]);
        add_group_to(sums + 2 * packed_rows, dot_fold(dot_fold(c), g), scales, x[2]);
        add_group_to(sums + 3 * packed_rows, dot_fold(dot_fold(d), h), scales, x[3]);
    } else {
        dot_next_four(w4, x, 16, a, b, c, d);
        dot_next_four(w5, x, 20, a, b, c, d);
        dot_next_four(w6, x, 24, a, b, c, d);
        dot_next_four(w7, x, 28, a, b, c, d);
        add_group_to(sums, dot_fold(a), scales, x[0]);
        add_group_to(sums + packed_rows, dot_fold(b), scales, x[1]);
        add_group_to(sums + 2 * packed_rows, dot_fold(c), scales, x[2]);
        add_group_to(sums + 3 * packed_rows, dot_fold(d), scales, x[3]);
    }
}

PHI4FLASH_VECTOR_INLINE rows_i32 q8_dot(const q8_block& block, std::size_t row, const std::int8_t* x) {
    rows_i32 total = set_rows(0);
    for (std::size_t s = 0; s < 8; ++s) total = dot_signed(total, load_codes(block.code[s] + 4 * row), broadcast_four(x + 4 * s));
    return total;
}

PHI4FLASH_VECTOR_INLINE void q8_dot_four(const q8_block& block, std::size_t row, const activation_group* x, rows_f32 scales, float* sums) {
    rows_i32 a = set_rows(0);
    rows_i32 b = set_rows(0);
    rows_i32 c = set_rows(0);
    rows_i32 d = set_rows(0);
    for (std::size_t s = 0; s < 8; ++s) {
        const signed_code_vector w = load_codes(block.code[s] + 4 * row);
        a = dot_signed(a, w, broadcast_four(x[0].q + 4 * s));
        b = dot_signed(b, w, broadcast_four(x[1].q + 4 * s));
        c = dot_signed(c, w, broadcast_four(x[2].q + 4 * s));
        d = dot_signed(d, w, broadcast_four(x[3].q + 4 * s));
    }
    add_group_to(sums, a, scales, x[0]);
    add_group_to(sums + packed_rows, b, scales, x[1]);
    add_group_to(sums + 2 * packed_rows, c, scales, x[2]);
    add_group_to(sums + 3 * packed_rows, d, scales, x[3]);
}

PHI4FLASH_VECTOR_INLINE void put_rows(rows_f32 v, const float* bias, float* y) {
    store_rows(v, y);
    for (std::size_t r = 0; bias != nullptr && r < rows_lanes(); ++r) y[r] += bias[r];
}

inline constexpr std::size_t packed_tokens = 32;

inline constexpr std::size_t packed_panel = 128;

template <dtype Format>
PHI4FLASH_VECTOR_INLINE void packed_row_tile(const std::byte* w, std::size_t groups, std::size_t row, const activation_group* x,
                                             std::size_t group_stride, std::size_t tokens, bool first, const float* bias, float* y, std::size_t y_stride) {
    constexpr bool Dense = Format == dtype::q4_dense;
    [[maybe_unused]] const code_vector levels = load_levels(q4_dense.level);
    float sums[packed_tokens * packed_rows];
    for (std::size_t t = 0; t < tokens; ++t) store_rows(first ? zero_rows() : load_rows(y + t * y_stride), sums + t * packed_rows);
    for (std::size_t g = 0; g < groups; ++g, x += group_stride) {
        if constexpr (Format == dtype::q8) {
            const q8_block& block = reinterpret_cast<const q8_block*>(w)[g];
            const rows_f32 scales = load_scales(block.scale + row);
            std::size_t t = 0;
            for (; t + 4 <= tokens; t += 4) q8_dot_four(block, row, x + t, scales, sums + t * packed_rows);
            for (; t < tokens; ++t) add_group_to(sums + t * packed_rows, q8_dot(block, row, x[t].q), scales, x[t]);
        } else {
            const q4_block& block = reinterpret_cast<const q4_block*>(w)[g];
            PHI4FLASH_UNPACK_Q4(block, row);
            const rows_f32 scales = load_scales(block.scale + row);
            std::size_t t = 0;
            for (; t + 4 <= tokens; t += 4) q4_dot_four<Dense>(w0, w1, w2, w3, w4, w5, w6, w7, x + t, scales, sums + t * packed_rows);
            for (; t < tokens; ++t)
                add_group_to(sums + t * packed_rows, q4_dot<Dense>(w0, w1, w2, w3, w4, w5, w6, w7, x[t].q), scales, x[t]);
        }
    }
    for (std::size_t t = 0; t < tokens; ++t) put_rows(load_rows(sums + t * packed_rows), bias, y + t * y_stride);
}

template <dtype Format>
PHI4FLASH_VECTOR_INLINE void packed_row(const std::byte* w, std::size_t groups, std::size_t row, const activation_group* x, const float* bias,
                                        float* y) {
    constexpr bool Dense = Format == dtype::q4_dense;
    [[maybe_unused]] const code_vector levels = load_levels(q4_dense.level);
    rows_f32 sum = zero_rows();
    for (std::size_t g = 0; g < groups; ++g) {
        if constexpr (Format == dtype::q8) {
            const q8_block& block = reinterpret_cast<const q8_block*>(w)[g];
            sum = add_group(q8_dot(block, row, x[g].q), load_scales(block.scale + row), x[g], sum);
        } else {
            const q4_block& block = reinterpret_cast<const q4_block*>(w)[g];
            PHI4FLASH_UNPACK_Q4(block, row);
            sum = add_group(q4_dot<Dense>(w0, w1, w2, w3, w4, w5, w6, w7, x[g].q), load_scales(block.scale + row), x[g], sum);
        }
    }
    put_rows(sum, bias, y);
}
#undef PHI4FLASH_UNPACK_Q4

template <dtype Format>
inline void packed_matvec(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, const float* bias, float* y) {
    const std::size_t groups = cols / packed_cols;
    for (std::size_t r = 0; r < rows; r += packed_rows) {
        for (std::size_t row = 0; row < packed_rows; row += rows_lanes())
            packed_row<Format>(w + matrix_bytes(Format, r, cols), groups, row, reinterpret_cast<const activation_group*>(x),
                               bias == nullptr ? nullptr : bias + r + row, y + r + row);
    }
}

template <dtype Format>
inline void packed_matmul(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, std::size_t, std::size_t tokens,
                          const float* bias, float* y, std::size_t y_stride) {
    const std::size_t groups = cols / packed_cols;
    const auto* activations = reinterpret_cast<const activation_group*>(x);
    for (std::size_t t = 0; t < tokens; t += packed_tokens) {
        const std::size_t count = tokens - t < packed_tokens ? tokens - t : packed_tokens;
        for (std::size_t g = 0; g < groups; g += packed_panel) {
            const std::size_t some = groups - g < packed_panel ? groups - g : packed_panel;
            const bool last = g + some == groups;
            for (std::size_t r = 0; r < rows; r += packed_rows) {
                const std::byte* blocks = w + matrix_bytes(Format, r, cols) + matrix_bytes(Format, packed_rows, g * packed_cols);
                for (std::size_t row = 0; row < packed_rows; row += rows_lanes())
                    packed_row_tile<Format>(blocks, some, row, activations + g * tokens + t, tokens, count, g == 0,
                                            bias == nullptr || !last ? nullptr : bias + r + row, y + t * y_stride + r + row, y_stride);
            }
        }
    }
}

template <dtype Format>
inline void packed_widen_row(const std::byte* w, std::size_t r, std::size_t cols, float* out) {
    const std::size_t groups = cols / packed_cols;
    for (std::size_t g = 0; g < groups; ++g) {
        const std::size_t at = r / packed_rows * groups + g;
        if constexpr (Format == dtype::q8) {
            decode_row(reinterpret_cast<const q8_block*>(w)[at], r % packed_rows, out + g * packed_cols);
        } else {
            constexpr const q4_codebook& book = Format == dtype::q4_dense ? q4_dense : q4_uniform;
            decode_row(reinterpret_cast<const q4_block*>(w)[at], book, r % packed_rows, out + g * packed_cols);
        }
    }
}

PHI4FLASH_TARGET_END

// ---- phi4flash/kernels/table-inl.hpp -------------------------------------------------------------------------------------
PHI4FLASH_TARGET_BEGIN

inline std::size_t lanes_of_target() { return lanes(); }

template <class Element>
inline constexpr linear_kernels plain_kernels{
    .matvec = &matvec<Element>,
    .arrange = dtype_of<Element> == dtype::bf16 ? &arrange_even_odd : &arrange_none,
    .matmul = &matmul<Element>,
    .matmul_arranged = false,
    .widen = &widen_row<Element>,
};

template <dtype Format>
inline constexpr linear_kernels packed_kernels{
    .matvec = &packed_matvec<Format>,
    .arrange = Format == dtype::q8   ? &arrange_int8<127, 0>
               : Format == dtype::q4 ? &arrange_int8<127, q4_uniform.zero>
                                     : &arrange_int8<dense_activation_limit, q4_dense.zero>,
    .matmul = &packed_matmul<Format>,
    .matmul_arranged = true,
    .widen = &packed_widen_row<Format>,
};

inline constexpr kernel_table table{
    .name = PHI4FLASH_TARGET_LABEL,
    .lanes = &lanes_of_target,
    .linear = {plain_kernels<float>, plain_kernels<f16>, plain_kernels<bf16>, packed_kernels<dtype::q8>, packed_kernels<dtype::q4>,
               packed_kernels<dtype::q4_dense>},
    .layer_norm = &layer_norm,
    .rms_norm = &rms_norm,
    .accumulate = &accumulate,
    .silu_mul = &silu_mul,
    .softplus = &softplus,
    .softmax = &softmax,
    .convolution = &convolution,
    .scan = &scan,
    .narrow = {&narrow<float>, nullptr, &narrow<bf16>},
    .attention = {&attention<float>, nullptr, &attention<bf16>},
    .difference_norm = &difference_norm,
    .rotate = &rotate,
    .read = &read_all,
};

PHI4FLASH_TARGET_END

#endif

PHI4FLASH_BEGIN

#if !PHI4FLASH_COMPILE_ONCE
inline
#endif
    kernel_target_list
    kernel_targets() {
    kernel_target_list list{};
#if PHI4FLASH_SIMD_HIGHWAY && PHI4FLASH_ARCH_X86
    [[maybe_unused]] const x86_level here = detect_x86_level();
#if PHI4FLASH_HIGHWAY_EXTRA(HWY_AVX3_ZEN4)
    list.target[list.count++] = {&N_AVX3_ZEN4::table, here >= x86_level::avx3_zen4};
#endif
#if PHI4FLASH_HIGHWAY_EXTRA(HWY_AVX3_DL)
    list.target[list.count++] = {&N_AVX3_DL::table, here >= x86_level::avx3_dl};
#endif
#if PHI4FLASH_HIGHWAY_EXTRA(HWY_AVX3)
    list.target[list.count++] = {&N_AVX3::table, here >= x86_level::avx3};
#endif
#if PHI4FLASH_HIGHWAY_EXTRA(HWY_AVX2)
    list.target[list.count++] = {&N_AVX2::table, here >= x86_level::avx2};
#endif
#endif
    list.target[list.count++] = {&PHI4FLASH_TARGET_NAMESPACE::table, true};
    return list;
}

PHI4FLASH_END

#endif

// Layers and the positional encodings they take as policies.

// ---- phi4flash/position/alibi.hpp ----------------------------------------------------------------------------------------
/// ALiBi: scores fall linearly with distance, at a slope for each head.   Source: arXiv:2108.12409.

// ---- phi4flash/kernels/compute.hpp ---------------------------------------------------------------------------------------
/// What a layer is given besides its weights and state: kernels, threads, and rows of activations.

PHI4FLASH_BEGIN

/// `count` rows of activations, `stride` floats apart; the width is the reader's to know. A view: copies share the floats.
template <class T>
struct rows_view {
    T* data = nullptr;
    std::size_t count = 0;
    std::size_t stride = 0;

    [[nodiscard]] T* operator[](std::size_t row) const { return data + row * stride; }
    /// The last n rows.
    [[nodiscard]] rows_view last(std::size_t n) const { return {data + (count - n) * stride, n, stride}; }
    /// The first n rows.
    [[nodiscard]] rows_view first(std::size_t n) const { return {data, n, stride}; }
    /// The same rows, from column c.
    [[nodiscard]] rows_view column(std::size_t c) const { return {data + c, count, stride}; }

    operator rows_view<const T>() const  // NOLINT(google-explicit-constructor)
        requires(!std::is_const_v<T>)
    {
        return {data, count, stride};
    }
};

/// Room for `count` rows of `width` floats.
[[nodiscard]] inline rows_view<float> take_rows(arena& memory, std::size_t count, std::size_t width) {
    const std::size_t stride = round_up(width, block_alignment / sizeof(float));
    return {memory.take<float>(count * stride), count, stride};
}

/// How to compute. Belongs to one thread of control at a time; cheap to copy.
struct compute {
    const kernel_table* kernels = nullptr;
    executor_ref threads;
    /// arranged_bytes(widest input of any matrix) for each token of a chunk, see linear_kernels::arrange.
    std::byte* arranged = nullptr;

    /// `body(begin, end)` over `count` items, each of about `cost` elementary operations; small work stays on this thread.
    template <class Body>
    void parallel(std::size_t count, std::size_t cost, Body&& body) const {
        constexpr std::size_t worth_a_thread = 32768;  // a few microseconds: more than waking a thread costs
        threads.parallel_for(count, worth_a_thread / (cost + 1) + 1, body);
    }
};

PHI4FLASH_END

PHI4FLASH_BEGIN

/// Queries and keys stay as they are; `slopes()` reaches the attention kernel.
struct alibi {
    const float* slope = nullptr;  ///< [n_heads]

    void apply(const compute&, rows_view<float>, std::size_t, std::size_t, std::size_t) const {}
    [[nodiscard]] const float* slopes() const { return slope; }
};

/// The paper's slopes, 2^(-8 (h + 1) / n), for n a power of two; other counts interleave the next power's.   Shape: out [n_heads].
inline void alibi_slopes(std::size_t n_heads, float* out) {
    std::size_t power = 1;
    while (power * 2 <= n_heads) power *= 2;
    for (std::size_t h = 0; h < n_heads; ++h) {
        const double exponent = h < power ? -8.0 * static_cast<double>(h + 1) / static_cast<double>(power)
                                          : -4.0 * static_cast<double>(2 * (h - power) + 1) / static_cast<double>(power);
        out[h] = static_cast<float>(std::exp2(exponent));
    }
}

PHI4FLASH_END

// ---- phi4flash/position/none.hpp -----------------------------------------------------------------------------------------
/// No positional encoding (NoPE): what SambaY uses. Order comes from the Mamba layers.

PHI4FLASH_BEGIN

/// A policy of attention: may change queries and keys before they meet, and may lower scores with distance.
struct no_position {
    /// Changes row t of `heads` heads of width d_head, at position first + t.
    void apply(const compute&, rows_view<float>, std::size_t /*heads*/, std::size_t /*d_head*/, std::size_t /*first*/) const {}
    /// [n_heads] slopes by which a score falls a position, or null.
    [[nodiscard]] const float* slopes() const { return nullptr; }
};

PHI4FLASH_END

// ---- phi4flash/position/rotary.hpp ---------------------------------------------------------------------------------------
/// Rotary position embedding: a partial or whole head is rotated by angles that grow with the position; LongRoPE's per-frequency
/// factors and attention scale included.   Source: arXiv:2104.09864, arXiv:2402.13753.

PHI4FLASH_BEGIN

/// Rotates pairs (i, i + n_rotated/2) of the first n_rotated numbers of each head by position * frequency[i].
struct rotary {
    const float* frequencies = nullptr;  ///< [n_rotated / 2], radians a position
    std::size_t n_rotated = 0;           ///< even, at most d_head and max_rotated
    float scale = 1.0f;                  ///< of cosine and sine (LongRoPE's attention factor)

    static constexpr std::size_t max_rotated = 512;

    void apply(const compute& with, rows_view<float> x, std::size_t heads, std::size_t d_head, std::size_t first) const {
        const std::size_t half = n_rotated / 2;
        with.parallel(x.count, 2 * heads * n_rotated, [&](std::size_t begin, std::size_t end) {
            float cosine[max_rotated / 2];
            float sine[max_rotated / 2];
            for (std::size_t t = begin; t < end; ++t) {
                for (std::size_t i = 0; i < half; ++i) {
                    // In double: an f32 angle of 100,000 radians would be off by 0.004.
                    const double angle = static_cast<double>(first + t) * static_cast<double>(frequencies[i]);
                    cosine[i] = scale * static_cast<float>(std::cos(angle));
                    sine[i] = scale * static_cast<float>(std::sin(angle));
                }
                for (std::size_t h = 0; h < heads; ++h) with.kernels->rotate(x[t] + h * d_head, cosine, sine, half);
            }
        });
    }
    [[nodiscard]] const float* slopes() const { return nullptr; }
};

/// frequency[i] = base^(-2i / n_rotated) / factor[i].   Shapes: out [n_rotated / 2]; factors the same, or null for 1.
inline void rotary_frequencies(double base, std::size_t n_rotated, const float* factors, float* out) {
    for (std::size_t i = 0; i < n_rotated / 2; ++i) {
        const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(n_rotated);
        out[i] = static_cast<float>(std::pow(base, exponent) / (factors == nullptr ? 1.0 : static_cast<double>(factors[i])));
    }
}

PHI4FLASH_END

// ---- phi4flash/layers/attention.hpp --------------------------------------------------------------------------------------
/// Attention, composed of policies: how heads combine (plain or differential), what a token sees (a window, everything, or
/// another layer's keys) and how positions enter (none, rotary, ALiBi).

// ---- phi4flash/layers/kv_cache.hpp ---------------------------------------------------------------------------------------
/// Keys and values of past tokens, for layers that see a window and for the one that sees everything.

PHI4FLASH_BEGIN

/// How the heads of an attention layer lie.
struct head_layout {
    std::size_t n_heads = 0;
    std::size_t n_kv_heads = 0;
    std::size_t d_head = 0;
    std::size_t k_per_group = 1;  ///< key heads that share a block of values: 2 for differential attention, 1 for the plain kind

    [[nodiscard]] std::size_t groups() const { return n_kv_heads / k_per_group; }
    [[nodiscard]] std::size_t group_width() const { return k_per_group * d_head; }
    [[nodiscard]] std::size_t queries_per_key() const { return n_heads / n_kv_heads; }
    [[nodiscard]] std::size_t q_width() const { return n_heads * d_head; }
    [[nodiscard]] std::size_t kv_width() const { return n_kv_heads * d_head; }
};

/// Keys and values [groups, rows, group_width] in element type Kv. Rows are slots; what position a slot holds is the
/// owner's to know. A view of memory taken from an arena.
template <class Kv>
struct kv_block {
    Kv* k = nullptr;
    Kv* v = nullptr;
    std::size_t rows = 0;

    kv_block() = default;
    kv_block(arena& memory, const head_layout& heads, std::size_t row_count)
        : k(memory.take<Kv>(heads.kv_width() * row_count)), v(memory.take<Kv>(heads.kv_width() * row_count)), rows(row_count) {}

    /// Stores T tokens from slot `first` on.   Shape: new_k, new_v [T, kv_width].
    void write(const compute& with, const head_layout& heads, rows_view<const float> new_k, rows_view<const float> new_v, std::size_t first) const {
        const auto narrow = with.kernels->narrow[static_cast<std::size_t>(dtype_of<Kv>)];
        const std::size_t width = heads.group_width();
        for (std::size_t t = 0; t < new_k.count; ++t) {
            for (std::size_t g = 0; g < heads.groups(); ++g) {
                const std::size_t at = (g * rows + first + t) * width;
                narrow(new_k[t] + g * width, width, reinterpret_cast<std::byte*>(k + at));
                narrow(new_v[t] + g * width, width, reinterpret_cast<std::byte*>(v + at));
            }
        }
    }

    /// Slots [first, first + count) as keys at positions from `position` on.
    [[nodiscard]] kv_segment segment(const head_layout& heads, std::size_t first, std::size_t position, std::size_t count) const {
        const std::size_t offset = first * heads.group_width();
        return {reinterpret_cast<const std::byte*>(k + offset), reinterpret_cast<const std::byte*>(v + offset), rows, position, count};
    }
};

/// Copies `count` slots of every group.
template <class Kv>
void copy_slots(const head_layout& heads, const kv_block<Kv>& from, std::size_t from_slot, const kv_block<Kv>& to, std::size_t to_slot,
                std::size_t count) {
    const std::size_t width = heads.group_width();
    for (std::size_t g = 0; g < heads.groups(); ++g) {
        const std::size_t source = (g * from.rows + from_slot) * width;
        const std::size_t target = (g * to.rows + to_slot) * width;
        std::memcpy(to.k + target, from.k + source, count * width * sizeof(Kv));
        std::memcpy(to.v + target, from.v + source, count * width * sizeof(Kv));
    }
}

/// The last `window` tokens: slot = position mod window. A chunk's own keys stay in a staging block until every query has
/// seen the older ones; `commit` then moves the last of them here.
template <class Kv>
struct kv_ring {
    kv_block<Kv> block;  ///< block.rows is the window

    /// The tokens before `position` that are still here, in order. Returns the number of segments written (0 to 2).
    std::size_t past(const head_layout& heads, std::size_t position, kv_segment* out) const {
        const std::size_t kept = position < block.rows ? position : block.rows;
        if (kept == 0) return 0;
        const std::size_t slot = (position - kept) % block.rows;
        const std::size_t before_wrap = block.rows - slot < kept ? block.rows - slot : kept;
        out[0] = block.segment(heads, slot, position - kept, before_wrap);
        if (before_wrap == kept) return 1;
        out[1] = block.segment(heads, 0, position - kept + before_wrap, kept - before_wrap);
        return 2;
    }

    /// Takes over the last tokens of a chunk of `count` that started at `position`.
    void commit(const head_layout& heads, const kv_block<Kv>& staging, std::size_t position, std::size_t count) const {
        std::size_t i = count > block.rows ? count - block.rows : 0;
        while (i < count) {
            const std::size_t slot = (position + i) % block.rows;
            const std::size_t run = count - i < block.rows - slot ? count - i : block.rows - slot;
            copy_slots(heads, staging, i, block, slot, run);
            i += run;
        }
    }
};

PHI4FLASH_END

// ---- phi4flash/layers/linear.hpp -----------------------------------------------------------------------------------------
/// y = W x + b, with W in its stored type. The one place where a weight's type meets a kernel.

PHI4FLASH_BEGIN

/// A linear map. Shapes: weight [rows, cols], bias [rows] or null.
struct linear {
    matrix_view weight;
    const float* bias = nullptr;

    /// The map to outputs [first, first + count) only; of a packed weight, multiples of 8.
    [[nodiscard]] linear outputs(std::size_t first, std::size_t count) const {
        return {{weight.row(first), count, weight.cols, weight.type}, bias_at(first)};
    }

    /// y[t] = W x[t] + b for every row t.   Shape: x [T, cols], y [T, rows]. x and y must not overlap.
    void operator()(const compute& with, rows_view<const float> x, rows_view<float> y) const {
        const linear_kernels& kernels = with.kernels->linear[static_cast<std::size_t>(weight.type)];
        const std::size_t block = weight.row_block();
        if (x.count == 1) {
            const std::byte* arranged = kernels.arrange(x.data, weight.cols, 0, 1, with.arranged);
            with.parallel(weight.rows / block, block * weight.cols, [&](std::size_t begin, std::size_t end) {
                const std::size_t first = begin * block;
                kernels.matvec(weight.row(first), end * block - first, weight.cols, arranged, bias_at(first), y.data + first);
            });
            return;
        }
        const std::byte* rows = reinterpret_cast<const std::byte*>(x.data);
        if (kernels.matmul_arranged) {
            rows = with.arranged;
            with.parallel(x.count, 4 * weight.cols, [&](std::size_t begin, std::size_t end) {
                for (std::size_t t = begin; t < end; ++t) kernels.arrange(x[t], weight.cols, t, x.count, with.arranged);
            });
        }
        with.parallel(weight.rows / block, block * weight.cols * x.count, [&](std::size_t begin, std::size_t end) {
            const std::size_t first = begin * block;
            kernels.matmul(weight.row(first), end * block - first, weight.cols, rows, x.stride, x.count, bias_at(first), y.data + first, y.stride);
        });
    }

private:
    [[nodiscard]] const float* bias_at(std::size_t row) const { return bias == nullptr ? nullptr : bias + row; }
};

PHI4FLASH_END

PHI4FLASH_BEGIN

/// Heads act alone: o = softmax(q k^T / sqrt(d_head)) v.   Source: arXiv:1706.03762.
struct plain_heads {
    static constexpr std::size_t k_per_group = 1;

    /// Shapes: attended [T, n_heads, d_head], y [T, q_width]. The two may be the same rows.
    void combine(const compute&, const head_layout& heads, rows_view<const float> attended, rows_view<float> y) const {
        for (std::size_t t = 0; t < y.count; ++t) std::memmove(y[t], attended[t], heads.q_width() * sizeof(float));
    }
};

/// Heads pair by parity: o = norm(A_even v - lambda A_odd v) (1 - lambda0), both over the pair's values of width 2 d_head.
/// Source: arXiv:2410.05258.
struct differential_heads {
    static constexpr std::size_t k_per_group = 2;

    float lambda = 0.0f;
    const float* norm_weight = nullptr;  ///< [2 d_head]: the RMS norm's weight times (1 - lambda0)
    float eps = 1e-5f;

    /// lambda0 of a layer, counted from 0 over the whole model.
    [[nodiscard]] static double initial_lambda(std::size_t layer) { return 0.8 - 0.6 * std::exp(-0.3 * static_cast<double>(layer)); }

    /// Shapes: attended [T, n_heads, 2 d_head], y [T, q_width]; must not overlap.
    void combine(const compute& with, const head_layout& heads, rows_view<const float> attended, rows_view<float> y) const {
        const std::size_t width = 2 * heads.d_head;
        with.parallel(y.count, 4 * heads.q_width(), [&](std::size_t begin, std::size_t end) {
            for (std::size_t t = begin; t < end; ++t) {
                for (std::size_t pair = 0; pair < heads.n_heads / 2; ++pair) {
                    const float* even = attended[t] + 2 * pair * width;
                    with.kernels->difference_norm(even, even + width, lambda, norm_weight, eps, width, y[t] + pair * width);
                }
            }
        });
    }
};

/// Scratch of attention layers for up to `tokens` rows.
template <class Kv>
struct attention_workspace {
    rows_view<float> qkv;       ///< [tokens, q_width + 2 kv_width]
    rows_view<float> attended;  ///< [tokens, n_heads, group_width]
    kv_block<Kv> staging;       ///< a chunk's keys and values in the cache's element type

    attention_workspace() = default;
    attention_workspace(arena& memory, const head_layout& heads, std::size_t tokens)
        : qkv(take_rows(memory, tokens, heads.q_width() + 2 * heads.kv_width())),
          attended(take_rows(memory, tokens, heads.n_heads * heads.group_width())),
          staging(memory, heads, tokens) {}
};

/// One attention layer. `qkv` maps to queries, then keys, then values; a cross layer's maps to queries only.
/// Shapes: qkv [q_width + 2 kv_width or q_width, d_model], out_proj [d_model, q_width].
template <class Heads, class Position = no_position>
struct attention {
    linear qkv;
    linear out_proj;
    head_layout layout;
    [[no_unique_address]] Heads heads;
    [[no_unique_address]] Position position;

    /// A token sees itself and the window - 1 tokens before it. Advances `past` by T tokens.
    /// Shape: x, y [T, d_model]; y may be x. `first` is the position of row 0.
    template <class Kv>
    void window(const compute& with, const attention_workspace<Kv>& scratch, const kv_ring<Kv>& past, std::size_t first,
                rows_view<const float> x, rows_view<float> y) const {
        const rows_view<float> q = scratch.qkv.first(x.count);
        const rows_view<float> k = q.column(layout.q_width());
        qkv(with, x, q);
        position.apply(with, q, layout.n_heads, layout.d_head, first);
        position.apply(with, k, layout.n_kv_heads, layout.d_head, first);
        scratch.staging.write(with, layout, k, k.column(layout.kv_width()), 0);

        kv_segment segments[max_kv_segments];
        std::size_t n = past.past(layout, first, segments);
        segments[n++] = scratch.staging.segment(layout, 0, first, x.count);
        attend(with, scratch, q, first, past.block.rows, segments, n, y);
        past.commit(layout, scratch.staging, first, x.count);
    }

    /// Computes keys and values only and stores them at their positions in `cache`: all that a prompt's tokens need of the full
    /// layer but for the last of them.   Shape: x [T, d_model].
    template <class Kv>
    void store_keys(const compute& with, const attention_workspace<Kv>& scratch, const kv_block<Kv>& cache, std::size_t first,
                    rows_view<const float> x) const {
        const rows_view<float> k = scratch.qkv.first(x.count).column(layout.q_width());
        qkv.outputs(layout.q_width(), 2 * layout.kv_width())(with, x, k);
        position.apply(with, k, layout.n_kv_heads, layout.d_head, first);
        cache.write(with, layout, k, k.column(layout.kv_width()), first);
    }

    /// Queries over keys that are already in `cache`, its own layer's or another's: a token sees itself and all before it.
    /// Shape: x, y [T, d_model]; y may be x. `first` is the position of row 0.
    template <class Kv>
    void over(const compute& with, const attention_workspace<Kv>& scratch, const kv_block<Kv>& cache, std::size_t first,
              rows_view<const float> x, rows_view<float> y) const {
        const rows_view<float> q = scratch.qkv.first(x.count);
        qkv.outputs(0, layout.q_width())(with, x, q);
        position.apply(with, q, layout.n_heads, layout.d_head, first);
        const kv_segment all = cache.segment(layout, 0, 0, first + x.count);
        attend(with, scratch, q, first, static_cast<std::size_t>(-1), &all, 1, y);
    }

private:
    template <class Kv>
    void attend(const compute& with, const attention_workspace<Kv>& scratch, rows_view<float> q, std::size_t first, std::size_t window_size,
                const kv_segment* segments, std::size_t n_segments, rows_view<float> y) const {
        const rows_view<float> attended = scratch.attended.first(q.count);
        attention_args args{};
        args.q = q.data;
        args.q_stride = q.stride;
        args.out = attended.data;
        args.out_stride = attended.stride;
        args.first_position = first;
        args.d_head = layout.d_head;
        args.k_per_group = layout.k_per_group;
        args.queries_per_key = layout.queries_per_key();
        args.window = window_size;
        args.scale = 1.0f / std::sqrt(static_cast<float>(layout.d_head));
        args.slopes = position.slopes();

        const std::size_t block = 16;  // tokens that share a tile of keys
        const std::size_t blocks = (q.count + block - 1) / block;
        std::size_t keys = 0;
        for (std::size_t s = 0; s < n_segments; ++s) keys += segments[s].count;
        const std::size_t seen = keys < window_size ? keys : window_size;
        const std::size_t cost = (q.count < block ? q.count : block) * seen * layout.group_width() * layout.queries_per_key();
        const auto kernel = with.kernels->attention[static_cast<std::size_t>(dtype_of<Kv>)];
        with.parallel(blocks * layout.groups(), cost, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                const std::size_t token = i % blocks * block;
                const std::size_t token_end = token + block < q.count ? token + block : q.count;
                kernel(args, i / blocks, token, token_end, segments, n_segments);
            }
        });
        heads.combine(with, layout, attended, q);
        out_proj(with, q, y);
    }
};

PHI4FLASH_END

// ---- phi4flash/layers/gated_memory.hpp -----------------------------------------------------------------------------------
/// The gated memory unit (GMU): out_proj(silu(in_proj(x)) * m), where m is the memory layer's scan output for the same
/// token. Owns no state.   Source: arXiv:2507.06607 section 2.

// ---- phi4flash/layers/norm.hpp -------------------------------------------------------------------------------------------
/// LayerNorm over the width of each row.

PHI4FLASH_BEGIN

/// y = (x - mean) / sqrt(variance + eps) * weight + bias.   Shapes: weight, bias [width].   Source: arXiv:1607.06450.
struct layer_norm {
    const float* weight = nullptr;
    const float* bias = nullptr;
    std::size_t width = 0;
    float eps = 1e-5f;

    /// Shape: x, y [T, width]; y may be x.
    void operator()(const compute& with, rows_view<const float> x, rows_view<float> y) const {
        with.parallel(x.count, width, [&](std::size_t begin, std::size_t end) {
            for (std::size_t t = begin; t < end; ++t) with.kernels->layer_norm(x[t], weight, bias, eps, width, y[t]);
        });
    }
};

/// y += x, row by row.   Shape: x, y [T, width].
inline void add_rows(const compute& with, rows_view<const float> x, rows_view<float> y, std::size_t width) {
    with.parallel(x.count, width, [&](std::size_t begin, std::size_t end) {
        for (std::size_t t = begin; t < end; ++t) with.kernels->accumulate(x[t], width, y[t]);
    });
}

/// y = silu(gate) * x, row by row.   Shape: all [T, width]; y may be gate or x.
inline void gate_rows(const compute& with, rows_view<const float> gate, rows_view<const float> x, rows_view<float> y, std::size_t width) {
    with.parallel(x.count, 4 * width, [&](std::size_t begin, std::size_t end) {
        for (std::size_t t = begin; t < end; ++t) with.kernels->silu_mul(gate[t], x[t], width, y[t]);
    });
}

PHI4FLASH_END

PHI4FLASH_BEGIN

/// Shapes: in_proj [d_inner, d_model], out_proj [d_model, d_inner].
struct gated_memory {
    linear in_proj;
    linear out_proj;

    /// Scratch for up to `tokens` rows: [tokens, d_inner].
    struct workspace {
        rows_view<float> gate;
        workspace() = default;
        workspace(arena& memory, std::size_t tokens, std::size_t d_inner) : gate(take_rows(memory, tokens, d_inner)) {}
    };

    /// Shape: x [T, d_model], memory [T, d_inner], y [T, d_model]; y may be x.
    void operator()(const compute& with, const workspace& scratch, rows_view<const float> x, rows_view<const float> memory,
                    rows_view<float> y) const {
        const rows_view<float> gate = scratch.gate.first(x.count);
        in_proj(with, x, gate);
        gate_rows(with, gate, memory, gate, in_proj.weight.rows);
        out_proj(with, gate, y);
    }
};

PHI4FLASH_END

// ---- phi4flash/layers/mamba.hpp ------------------------------------------------------------------------------------------
/// The Mamba-1 mixer.   Source: arXiv:2312.00752.
///
/// [u | z] = in_proj(x);  u = silu(conv(u));  [dt | B | C] = x_proj(u);  dt = softplus(dt_proj(dt) + dt_bias);
/// h = exp(dt A) h + (dt u) B;  m = C h + D u;  y = out_proj(m * silu(z)).

PHI4FLASH_BEGIN

/// Floats of one layer's A (and of its SSM state): [ceil(d_inner / 16)][d_state][16], the tail zero.
[[nodiscard]] constexpr std::size_t blocked_size(std::size_t d_inner, std::size_t d_state) { return round_up(d_inner, channel_block) * d_state; }

/// Where channel c, state n lies in such an array.
[[nodiscard]] constexpr std::size_t blocked_index(std::size_t c, std::size_t n, std::size_t d_state) {
    return (c / channel_block * d_state + n) * channel_block + c % channel_block;
}

/// Weights. Shapes: in_proj [2 d_inner, d_model], x_proj [dt_rank + 2 d_state, d_inner], dt_proj [d_inner, dt_rank] with bias
/// dt_bias, out_proj [d_model, d_inner].
struct mamba {
    linear in_proj;
    const float* conv_weight = nullptr;  ///< [d_conv, d_inner]: transposed, tap d_conv-1 is the current token
    const float* conv_bias = nullptr;    ///< [d_inner]
    linear x_proj;
    linear dt_proj;
    const float* a_log2e = nullptr;      ///< -exp(A_log) log2(e), blocked
    const float* d = nullptr;            ///< [d_inner]
    linear out_proj;
    std::size_t d_conv = 0;
    std::size_t d_state = 0;

    /// What a layer remembers of the tokens before: zero at the start of a text.
    struct state {
        float* convolution = nullptr;  ///< [d_conv - 1, d_inner]
        float* ssm = nullptr;          ///< blocked
        state() = default;
        state(arena& memory, std::size_t d_inner, std::size_t d_state, std::size_t d_conv)
            : convolution(memory.take<float>((d_conv - 1) * d_inner)), ssm(memory.take<float>(blocked_size(d_inner, d_state))) {}
    };

    struct workspace {
        rows_view<float> uz;      ///< [tokens, 2 d_inner]
        rows_view<float> u;       ///< [tokens, d_inner]; after a call: m, the scan output
        rows_view<float> dt_b_c;  ///< [tokens, dt_rank + 2 d_state]
        rows_view<float> dt;      ///< [tokens, d_inner]
        workspace() = default;
        workspace(arena& memory, std::size_t tokens, std::size_t d_inner, std::size_t d_state, std::size_t dt_rank)
            : uz(take_rows(memory, tokens, 2 * d_inner)),
              u{memory.take<float>(tokens * d_inner), tokens, d_inner},
              dt_b_c(take_rows(memory, tokens, dt_rank + 2 * d_state)),
              dt{memory.take<float>(tokens * d_inner), tokens, d_inner} {}
    };

    /// Advances the state by T tokens.   Shape: x, y [T, d_model]; y may be x.
    /// Returns m [T, d_inner], before the gate and with the D term: what a gated memory unit reads. Valid until the next call
    /// with this workspace.
    rows_view<const float> operator()(const compute& with, const workspace& scratch, const state& past, rows_view<const float> x,
                                      rows_view<float> y) const {
        const std::size_t tokens = x.count;
        const std::size_t d_inner = out_proj.weight.cols;
        const std::size_t dt_rank = dt_proj.weight.cols;
        const rows_view<float> uz = scratch.uz.first(tokens);
        const rows_view<float> u = scratch.u.first(tokens);
        const rows_view<float> dt_b_c = scratch.dt_b_c.first(tokens);
        const rows_view<float> dt = scratch.dt.first(tokens);

        in_proj(with, x, uz);
        const convolution_args conv{uz.data, uz.stride, conv_weight, conv_bias, past.convolution, u.data, u.stride, tokens, d_inner, d_conv};
        const std::size_t blocks = round_up(d_inner, channel_block) / channel_block;
        with.parallel(blocks, channel_block * tokens * d_conv * 4, [&](std::size_t begin, std::size_t end) {
            const std::size_t last = end * channel_block < d_inner ? end * channel_block : d_inner;
            with.kernels->convolution(conv, begin * channel_block, last);
        });

        x_proj(with, u, dt_b_c);
        dt_proj(with, dt_b_c, dt);
        with.parallel(tokens, 8 * d_inner, [&](std::size_t begin, std::size_t end) {
            for (std::size_t t = begin; t < end; ++t) with.kernels->softplus(dt[t], d_inner, dt[t]);
        });

        const scan_args scan{u.data, dt.data, dt_b_c.data + dt_rank, dt_b_c.data + dt_rank + d_state, dt_b_c.stride, a_log2e, d,
                             past.ssm, u.data, tokens, d_inner, d_state};
        with.parallel(blocks, channel_block * tokens * d_state * 4,
                      [&](std::size_t begin, std::size_t end) { with.kernels->scan(scan, begin, end); });

        const rows_view<float> z = uz.column(d_inner);
        gate_rows(with, z, u, z, d_inner);
        out_proj(with, z, y);
        return u;
    }
};

PHI4FLASH_END

// ---- phi4flash/layers/mlp.hpp --------------------------------------------------------------------------------------------
/// The gated MLP: fc2(up * silu(gate)), gate the FIRST half of fc1's outputs, up the second.   Source: arXiv:2002.05202 (SwiGLU).

PHI4FLASH_BEGIN

/// Shapes: fc1 [2 d_ff, d_model], fc2 [d_model, d_ff].
struct mlp {
    linear fc1;
    linear fc2;

    /// Scratch for up to `tokens` rows: [tokens, 2 d_ff].
    struct workspace {
        rows_view<float> hidden;
        workspace() = default;
        workspace(arena& memory, std::size_t tokens, std::size_t d_ff) : hidden(take_rows(memory, tokens, 2 * d_ff)) {}
    };

    /// Shape: x [T, d_model], y [T, d_model]; y may be x.
    void operator()(const compute& with, const workspace& scratch, rows_view<const float> x, rows_view<float> y) const {
        const std::size_t d_ff = fc2.weight.cols;
        const rows_view<float> gate = scratch.hidden.first(x.count);
        const rows_view<float> up = gate.column(d_ff);
        fc1(with, x, gate);
        gate_rows(with, gate, up, gate, d_ff);
        fc2(with, gate, y);
    }
};

PHI4FLASH_END

// The model: shape, weights, state, forward pass.

// ---- phi4flash/model/forward.hpp -----------------------------------------------------------------------------------------
/// The forward pass: `step` for one token, `prefill` for a prompt, `logits_all` for evaluation.
///
/// No layer after the full attention layer owns state, so while a prompt is read, layers 0 to half run for every token, the full
/// layer only stores keys and values, and everything after it runs for the last token alone. Nothing is approximated, and
/// reading a prompt is linear in its length.   Source: arXiv:2507.06607 section 2 (YOCO: arXiv:2405.05254).

// ---- phi4flash/model/state.hpp -------------------------------------------------------------------------------------------
/// What one conversation remembers (session) and what one thread of control computes with (workspace). Both have a size
/// that is known before memory is taken.

// ---- phi4flash/model/model.hpp -------------------------------------------------------------------------------------------
/// A SambaY model: extents and weights, immutable and shared. `model<phi4_mini_flash>` has every extent at compile time,
/// `model<any_sambay>` takes them from the checkpoint.

// ---- phi4flash/model/bind.hpp --------------------------------------------------------------------------------------------
/// From named tensors to weights: every tensor of a SambaY checkpoint, by the names of the released files, with the shape it
/// must have. The first pass checks and measures, the second fills; nothing is allocated between them that is not needed.

// ---- phi4flash/model/weights.hpp -----------------------------------------------------------------------------------------
/// The weights of a SambaY model: big matrices stay where they are, in their stored type; vectors and the tables that
/// kernels want in another order are widened to f32 in one block of a few MiB.

// ---- phi4flash/model/layer_plan.hpp --------------------------------------------------------------------------------------
/// Which mixer each layer has, and which slot of that mixer's array it uses. Computed at compile time for static shapes.

// ---- phi4flash/model/shape.hpp -------------------------------------------------------------------------------------------
/// The shape of a SambaY model: eleven numbers, a rule for each, and their use as a template argument.
///
/// A shape is one constexpr value. `model<phi4_mini_flash>` knows every extent at compile time; `any_sambay` leaves all of
/// them `dynamic`, to be filled from a configuration at run time, through the same code (as std::span does it).

PHI4FLASH_BEGIN

/// An extent that is known only at run time.
inline constexpr std::size_t dynamic = static_cast<std::size_t>(-1);

/// Extents of a SambaY model, in the field's terms (SambaY: arXiv:2507.06607; Mamba-1: arXiv:2312.00752).
struct sambay_shape {
    std::size_t d_model = dynamic;     ///< width of the residual stream
    std::size_t n_layers = dynamic;    ///< divisible by 4: half of them after the memory layer
    std::size_t d_ff = dynamic;        ///< width of the MLP
    std::size_t n_heads = dynamic;     ///< query heads, paired by parity
    std::size_t n_kv_heads = dynamic;  ///< key/value heads, paired by parity
    std::size_t vocab = dynamic;       ///< rows of the embedding
    std::size_t window = dynamic;      ///< keys that a sliding-window layer sees, itself included
    std::size_t d_inner = dynamic;     ///< channels of the Mamba mixer
    std::size_t d_state = dynamic;     ///< SSM states a channel
    std::size_t d_conv = dynamic;      ///< taps of the causal convolution
    std::size_t dt_rank = dynamic;     ///< rank of the step-size projection

    friend constexpr bool operator==(const sambay_shape&, const sambay_shape&) = default;
};

/// Microsoft's Phi-4-mini-flash-reasoning, 3.85 billion parameters.
inline constexpr sambay_shape phi4_mini_flash{
    .d_model = 2560,
    .n_layers = 32,
    .d_ff = 10240,
    .n_heads = 40,
    .n_kv_heads = 20,
    .vocab = 200064,
    .window = 512,
    .d_inner = 5120,
    .d_state = 16,
    .d_conv = 4,
    .dt_rank = 160,
};

/// Every extent from config.json.
inline constexpr sambay_shape any_sambay{};

/// The first rule that a shape breaks. `dynamic` extents break no rule until they are filled.
enum class shape_fault : std::uint8_t {
    none,
    extent_zero,
    extent_too_large,
    layers_not_multiple_of_four,
    heads_odd,
    kv_heads_odd,
    heads_not_multiple_of_kv_heads,
    width_not_multiple_of_heads,
};

/// No extent above this is accepted: keeps every product of two extents and an element size inside 64 bits.
inline constexpr std::size_t max_extent = std::size_t{1} << 24;

namespace detail {
[[nodiscard]] constexpr bool divides(std::size_t divisor, std::size_t n) { return divisor == dynamic || n == dynamic || n % divisor == 0; }
struct named_extent {
    const char* name;
    std::size_t value;
};
inline constexpr std::size_t extent_count = 11;
[[nodiscard]] constexpr named_extent extent_at(const sambay_shape& s, std::size_t i) {
    const named_extent all[extent_count] = {
        {"d_model", s.d_model}, {"n_layers", s.n_layers}, {"d_ff", s.d_ff},       {"n_heads", s.n_heads},
        {"n_kv_heads", s.n_kv_heads}, {"vocab", s.vocab}, {"window", s.window},   {"d_inner", s.d_inner},
        {"d_state", s.d_state}, {"d_conv", s.d_conv},     {"dt_rank", s.dt_rank},
    };
    return all[i];
}
}  // namespace detail

/// The one list of rules, used at compile time for static extents and at run time for the rest.
[[nodiscard]] constexpr shape_fault find_fault(const sambay_shape& s) {
    for (std::size_t i = 0; i < detail::extent_count; ++i) {
        const std::size_t value = detail::extent_at(s, i).value;
        if (value == 0) return shape_fault::extent_zero;
        if (value != dynamic && value > max_extent) return shape_fault::extent_too_large;
    }
    if (!detail::divides(4, s.n_layers)) return shape_fault::layers_not_multiple_of_four;
    if (!detail::divides(2, s.n_heads)) return shape_fault::heads_odd;
    if (!detail::divides(2, s.n_kv_heads)) return shape_fault::kv_heads_odd;
    if (!detail::divides(s.n_kv_heads, s.n_heads)) return shape_fault::heads_not_multiple_of_kv_heads;
    if (!detail::divides(s.n_heads, s.d_model)) return shape_fault::width_not_multiple_of_heads;
    return shape_fault::none;
}

/// Checks a shape of which nothing is dynamic any more. Errors: bad_extent, naming the extent, want and have.
[[nodiscard]] inline status check_shape(const sambay_shape& s) {
    for (std::size_t i = 0; i < detail::extent_count; ++i) {
        const auto [name, value] = detail::extent_at(s, i);
        if (value == dynamic) return error::format(errc::bad_extent, "%s is not given: want a number from 1 to %zu", name, max_extent);
        if (value == 0 || value > max_extent) return error::format(errc::bad_extent, "%s: want 1 to %zu, have %zu", name, max_extent, value);
    }
    switch (find_fault(s)) {
        case shape_fault::layers_not_multiple_of_four:
            return error::format(errc::bad_extent, "n_layers: want a multiple of 4, have %zu", s.n_layers);
        case shape_fault::heads_odd:
            return error::format(errc::bad_extent, "n_heads: want an even number (heads pair by parity), have %zu", s.n_heads);
        case shape_fault::kv_heads_odd:
            return error::format(errc::bad_extent, "n_kv_heads: want an even number (heads pair by parity), have %zu", s.n_kv_heads);
        case shape_fault::heads_not_multiple_of_kv_heads:
            return error::format(errc::bad_extent, "n_heads: want a multiple of n_kv_heads (%zu), have %zu", s.n_kv_heads, s.n_heads);
        case shape_fault::width_not_multiple_of_heads:
            return error::format(errc::bad_extent, "d_model: want a multiple of n_heads (%zu), have %zu", s.n_heads, s.d_model);
        default:
            return {};
    }
}

namespace detail {
/// One extent: a constant where Static is a number, a member where it is `dynamic`.
template <std::size_t Static>
struct extent {
    constexpr extent() = default;
    constexpr explicit extent(std::size_t) {}
    [[nodiscard]] static constexpr std::size_t get() { return Static; }
};
template <>
struct extent<dynamic> {
    constexpr extent() = default;
    constexpr explicit extent(std::size_t n) : value(n) {}
    [[nodiscard]] constexpr std::size_t get() const { return value; }
    std::size_t value = 0;
};
}  // namespace detail

/// The extents of a model of shape Shape: static ones cost nothing, dynamic ones are stored. Everything that depends on
/// a shape asks one of these, so there is one code path.
template <sambay_shape Shape>
class extents {
    static_assert(find_fault(Shape) != shape_fault::extent_zero, "phi4flash: no extent of a shape may be zero");
    static_assert(find_fault(Shape) != shape_fault::extent_too_large, "phi4flash: an extent of the shape is larger than max_extent");
    static_assert(find_fault(Shape) != shape_fault::layers_not_multiple_of_four, "phi4flash: n_layers must be a multiple of 4");
    static_assert(find_fault(Shape) != shape_fault::heads_odd, "phi4flash: n_heads must be even, heads pair by parity");
    static_assert(find_fault(Shape) != shape_fault::kv_heads_odd, "phi4flash: n_kv_heads must be even, heads pair by parity");
    static_assert(find_fault(Shape) != shape_fault::heads_not_multiple_of_kv_heads, "phi4flash: n_heads must be a multiple of n_kv_heads");
    static_assert(find_fault(Shape) != shape_fault::width_not_multiple_of_heads, "phi4flash: d_model must be a multiple of n_heads");

public:
    static constexpr sambay_shape static_shape = Shape;

    constexpr extents() = default;

    /// Takes the dynamic extents from `s`. Errors: bad_extent where `s` breaks a rule or differs from a static extent.
    static result<extents> from(const sambay_shape& s) {
        if (const status ok = check_shape(s); !ok) return ok.error();
        for (std::size_t i = 0; i < detail::extent_count; ++i) {
            const auto [name, want] = detail::extent_at(Shape, i);
            const std::size_t have = detail::extent_at(s, i).value;
            if (want != dynamic && want != have)
                return error::format(errc::bad_extent, "%s: the model type wants %zu, the checkpoint has %zu", name, want, have);
        }
        return extents(s);
    }

    [[nodiscard]] constexpr std::size_t d_model() const { return d_model_.get(); }
    [[nodiscard]] constexpr std::size_t n_layers() const { return n_layers_.get(); }
    [[nodiscard]] constexpr std::size_t d_ff() const { return d_ff_.get(); }
    [[nodiscard]] constexpr std::size_t n_heads() const { return n_heads_.get(); }
    [[nodiscard]] constexpr std::size_t n_kv_heads() const { return n_kv_heads_.get(); }
    [[nodiscard]] constexpr std::size_t vocab() const { return vocab_.get(); }
    [[nodiscard]] constexpr std::size_t window() const { return window_.get(); }
    [[nodiscard]] constexpr std::size_t d_inner() const { return d_inner_.get(); }
    [[nodiscard]] constexpr std::size_t d_state() const { return d_state_.get(); }
    [[nodiscard]] constexpr std::size_t d_conv() const { return d_conv_.get(); }
    [[nodiscard]] constexpr std::size_t dt_rank() const { return dt_rank_.get(); }

    [[nodiscard]] constexpr std::size_t d_head() const { return d_model() / n_heads(); }
    /// Width of the keys (or values) of all heads.
    [[nodiscard]] constexpr std::size_t d_kv() const { return n_kv_heads() * d_head(); }

    [[nodiscard]] constexpr sambay_shape shape() const {
        return {d_model(), n_layers(), d_ff(), n_heads(), n_kv_heads(), vocab(), window(), d_inner(), d_state(), d_conv(), dt_rank()};
    }

private:
    constexpr explicit extents(const sambay_shape& s)
        : d_model_(s.d_model), n_layers_(s.n_layers), d_ff_(s.d_ff), n_heads_(s.n_heads), n_kv_heads_(s.n_kv_heads),
          vocab_(s.vocab), window_(s.window), d_inner_(s.d_inner), d_state_(s.d_state), d_conv_(s.d_conv), dt_rank_(s.dt_rank) {}

    [[no_unique_address]] detail::extent<Shape.d_model> d_model_;
    [[no_unique_address]] detail::extent<Shape.n_layers> n_layers_;
    [[no_unique_address]] detail::extent<Shape.d_ff> d_ff_;
    [[no_unique_address]] detail::extent<Shape.n_heads> n_heads_;
    [[no_unique_address]] detail::extent<Shape.n_kv_heads> n_kv_heads_;
    [[no_unique_address]] detail::extent<Shape.vocab> vocab_;
    [[no_unique_address]] detail::extent<Shape.window> window_;
    [[no_unique_address]] detail::extent<Shape.d_inner> d_inner_;
    [[no_unique_address]] detail::extent<Shape.d_state> d_state_;
    [[no_unique_address]] detail::extent<Shape.d_conv> d_conv_;
    [[no_unique_address]] detail::extent<Shape.dt_rank> dt_rank_;
};

/// What a configuration file says of a model: its shape and the numbers that are not extents.
struct sambay_config {
    sambay_shape shape;
    float norm_eps = 1e-5f;            ///< of every LayerNorm
    std::size_t max_positions = 0;     ///< longest context the model was made for, tokens
};

PHI4FLASH_END

PHI4FLASH_BEGIN

/// The six mixers of SambaY.
enum class mixer_kind : std::uint8_t {
    mamba,             ///< Mamba-1: owns a convolution state and an SSM state
    window_attention,  ///< differential, sliding window: owns the K/V of the last `window` tokens
    memory_mamba,      ///< Mamba-1 that also hands its scan output on to the gated memory units
    full_attention,    ///< differential, causal: owns the only full-length K/V
    gated_memory,      ///< GMU over the memory layer's output of the same token: owns nothing
    cross_attention,   ///< differential, over the full layer's K/V: owns nothing
};

[[nodiscard]] constexpr const char* name_of(mixer_kind kind) {
    constexpr const char* names[] = {"mamba", "window_attention", "memory_mamba", "full_attention", "gated_memory", "cross_attention"};
    return names[static_cast<std::size_t>(kind)];
}

/// A layer's mixer: its kind, and its index among the layers that share that kind of weights and state. Both Mamba kinds
/// share one array (the memory layer is its last), all three kinds of attention keep arrays of their own.
struct layer_place {
    mixer_kind kind;
    std::size_t slot;
    friend constexpr bool operator==(const layer_place&, const layer_place&) = default;
};

/// The layer rule of SambaY for `n_layers` layers (a multiple of 4), layers counted from 0.
class layer_plan {
public:
    constexpr explicit layer_plan(std::size_t n_layers) : half_(n_layers / 2), n_layers_(n_layers) {}

    [[nodiscard]] constexpr std::size_t n_layers() const { return n_layers_; }
    /// The Mamba layer whose scan output the gated memory units read.
    [[nodiscard]] constexpr std::size_t memory_layer() const { return half_; }
    /// The layer that owns the full-length K/V. No layer after it owns state.
    [[nodiscard]] constexpr std::size_t full_layer() const { return half_ + 1; }

    [[nodiscard]] constexpr std::size_t n_mamba() const { return half_ / 2 + 1; }
    [[nodiscard]] constexpr std::size_t n_window() const { return half_ / 2; }
    [[nodiscard]] constexpr std::size_t n_gated_memory() const { return half_ / 2 - 1; }
    [[nodiscard]] constexpr std::size_t n_cross() const { return half_ / 2 - 1; }

    [[nodiscard]] constexpr layer_place at(std::size_t layer) const {
        const bool even = layer % 2 == 0;
        if (layer < half_) return {even ? mixer_kind::mamba : mixer_kind::window_attention, layer / 2};
        if (layer == half_) return {mixer_kind::memory_mamba, half_ / 2};
        if (layer == half_ + 1) return {mixer_kind::full_attention, 0};
        return {even ? mixer_kind::gated_memory : mixer_kind::cross_attention, (layer - half_) / 2 - 1};
    }

private:
    std::size_t half_;
    std::size_t n_layers_;
};

static_assert(layer_plan(32).at(16) == layer_place{mixer_kind::memory_mamba, 8});
static_assert(layer_plan(32).at(31) == layer_place{mixer_kind::cross_attention, 6});
static_assert(layer_plan(4).n_cross() == 0 && layer_plan(4).at(3) == layer_place{mixer_kind::full_attention, 0});

PHI4FLASH_END

PHI4FLASH_BEGIN

/// SambaY's attention: differential, no positional encoding.
using sambay_attention = attention<differential_heads, no_position>;

/// What every layer has besides its mixer: x += mixer(input_norm(x)); x += mlp(post_norm(x)).
struct layer_frame {
    layer_norm input_norm;
    layer_norm post_norm;
    phi4flash::mlp mlp;
};

/// Views into a checkpoint and into the parameter block. One array for each kind of mixer, addressed by the layer plan's slots;
/// immutable after binding, shared by any number of sessions and threads.
struct sambay_weights {
    matrix_view embedding;  ///< [vocab, d_model]; also the output projection
    layer_norm final_norm;
    std::span<layer_frame> layers;
    std::span<mamba> mambas;                     ///< the last one is the memory layer
    std::span<sambay_attention> windows;
    sambay_attention full;
    std::span<gated_memory> gated_memories;
    std::span<sambay_attention> crosses;
};

/// Heads of a SambaY attention layer.
template <sambay_shape Shape>
[[nodiscard]] head_layout head_layout_of(const extents<Shape>& e) {
    return {e.n_heads(), e.n_kv_heads(), e.d_head(), differential_heads::k_per_group};
}

PHI4FLASH_END

#include <initializer_list>
#include <numbers>
PHI4FLASH_BEGIN

/// Anything that finds tensors by name: a checkpoint folder, a packed file, or a host's own table.
template <class S>
concept tensor_source = requires(const S& source, std::string_view name) {
    { source.find(name) } -> std::convertible_to<const tensor_view*>;
    { source.tensors() } -> std::convertible_to<std::span<const tensor_view>>;
};

namespace detail {

/// Looks tensors up, compares shapes, and widens vectors. The first error sticks, and later calls do nothing.
template <tensor_source Source>
class tensor_binder {
public:
    tensor_binder(const Source& source, arena memory, bool filling) : source_(source), memory_(memory), filling_(filling) {}

    [[nodiscard]] bool failed() const { return !failure_; }
    [[nodiscard]] const status& failure() const { return failure_; }
    [[nodiscard]] std::size_t bytes() const { return memory_.bytes(); }
    [[nodiscard]] std::size_t found() const { return found_; }

    /// The prefix of all names to come, such as "model.layers.3.".
    void enter_layer(std::size_t layer) { std::snprintf(prefix_, sizeof prefix_, "model.layers.%zu.", layer); }
    void leave_layers() { std::snprintf(prefix_, sizeof prefix_, "model."); }

    matrix_view matrix(const char* name, std::size_t rows, std::size_t cols) {
        const tensor_view* t = require(name, {rows, cols}, is_packable(rows, cols));
        return t == nullptr ? matrix_view{} : matrix_view{t->data, rows, cols, t->type};
    }

    /// A vector, widened, each number passed through `change`.
    template <class Change>
    const float* vector(const char* name, std::size_t n, Change&& change) {
        const tensor_view* t = require(name, {n});
        float* out = memory_.take<float>(n);
        if (filling_ && t != nullptr) {
            for (std::size_t i = 0; i < n; ++i) out[i] = change(element(*t, i));
        }
        return out;
    }
    const float* vector(const char* name, std::size_t n) {
        return vector(name, n, [](float x) { return x; });
    }

    /// A table of n numbers in the kernels' own order: in the second pass, `fill(out, source)` where source(i) reads element i.
    template <class Fill>
    const float* table(const char* name, std::initializer_list<std::size_t> shape, std::size_t n, Fill&& fill) {
        const tensor_view* t = require(name, shape);
        float* out = memory_.take<float>(n);
        if (filling_ && t != nullptr) {
            std::memset(out, 0, n * sizeof(float));
            fill(out, [t](std::size_t i) { return element(*t, i); });
        }
        return out;
    }

    /// sum_i a[i] b[i] in double, of two vectors; 0 while only checking.
    double dot(const char* a, const char* b, std::size_t n) {
        const tensor_view* x = require(a, {n});
        const tensor_view* y = require(b, {n});
        double sum = 0.0;
        if (filling_ && x != nullptr && y != nullptr) {
            for (std::size_t i = 0; i < n; ++i) sum += static_cast<double>(element(*x, i)) * static_cast<double>(element(*y, i));
        }
        return sum;
    }

    template <class T>
    std::span<T> objects(std::size_t n) {
        T* out = memory_.template take<T>(n);
        if (!filling_) return {};
        for (std::size_t i = 0; i < n; ++i) std::construct_at(out + i);
        return {out, n};
    }

private:
    static float element(const tensor_view& t, std::size_t i) {
        if (t.type == dtype::f32) {
            float x;
            std::memcpy(&x, t.data + 4 * i, 4);
            return x;
        }
        std::uint16_t bits;
        std::memcpy(&bits, t.data + 2 * i, 2);
        return t.type == dtype::bf16 ? to_f32(bf16{bits}) : to_f32(f16{bits});
    }

    /// The tensor of that name, with that shape, of a plain type (or a packed one, where that may be), and as many bytes as it needs: a
    /// source may be a host's own table, of which nothing is known yet.
    const tensor_view* require(const char* name, std::initializer_list<std::size_t> shape, bool may_be_packed = false) {
        if (failed()) return nullptr;
        char full[160];
        std::snprintf(full, sizeof full, "%s%s", prefix_, name);
        const tensor_view* t = source_.find(full);
        if (t == nullptr) {
            char want[96];
            failure_ = error::format(errc::missing_tensor, "tensor %s is missing: want %s", full, print_shape(shape, want, sizeof want));
            return nullptr;
        }
        if (!std::ranges::equal(t->shape(), shape)) {
            char want[96];
            char have[96];
            failure_ = error::format(errc::wrong_shape, "tensor %s: want shape %s, have %s", full, print_shape(shape, want, sizeof want),
                                     print_shape(t->shape(), have, sizeof have));
            return nullptr;
        }
        if (is_packed(t->type) && !may_be_packed) {
            failure_ = error::format(errc::wrong_dtype, "tensor %s: want F32, F16 or BF16, have %s", full, name_of(t->type));
            return nullptr;
        }
        std::size_t count = 1;
        for (const std::size_t n : shape) count *= n;
        const std::size_t bytes = is_packed(t->type) ? matrix_bytes(t->type, t->extent[0], t->extent[1]) : count * size_of(t->type);
        if (t->data == nullptr || t->bytes != bytes) {
            failure_ = error::format(errc::size_mismatch, "tensor %s: want %zu bytes of %s, have %zu", full, bytes, name_of(t->type),
                                     t->data == nullptr ? std::size_t{0} : t->bytes);
            return nullptr;
        }
        ++found_;
        return t;
    }

    template <class Extents>
    static const char* print_shape(const Extents& shape, char* out, std::size_t size) {
        std::size_t used = 0;
        const char* separator = "[";
        out[0] = '\0';
        for (const std::size_t n : shape) {
            const int written = std::snprintf(out + used, size - used, "%s%zu", separator, n);
            if (written < 0 || used + static_cast<std::size_t>(written) + 2 > size) break;
            used += static_cast<std::size_t>(written);
            separator = ", ";
        }
        std::snprintf(out + used, size - used, used == 0 ? "[]" : "]");
        return out;
    }

    const Source& source_;
    arena memory_;
    status failure_;
    std::size_t found_ = 0;
    bool filling_;
    char prefix_[48] = "model.";
};

template <class Binder>
[[nodiscard]] layer_norm bind_norm(Binder& from, const char* weight, const char* bias, std::size_t width, float eps) {
    return {from.vector(weight, width), from.vector(bias, width), width, eps};
}

template <sambay_shape Shape, class Binder>
[[nodiscard]] layer_frame bind_frame(Binder& from, const extents<Shape>& e, float eps) {
    layer_frame frame;
    frame.input_norm = bind_norm(from, "input_layernorm.weight", "input_layernorm.bias", e.d_model(), eps);
    frame.post_norm = bind_norm(from, "post_attention_layernorm.weight", "post_attention_layernorm.bias", e.d_model(), eps);
    frame.mlp.fc1.weight = from.matrix("mlp.fc1.weight", 2 * e.d_ff(), e.d_model());
    frame.mlp.fc2.weight = from.matrix("mlp.fc2.weight", e.d_model(), e.d_ff());
    return frame;
}

template <sambay_shape Shape, class Binder>
[[nodiscard]] mamba bind_mamba(Binder& from, const extents<Shape>& e) {
    const std::size_t d_inner = e.d_inner();
    const std::size_t d_state = e.d_state();
    const std::size_t d_conv = e.d_conv();
    mamba m;
    m.d_conv = d_conv;
    m.d_state = d_state;
    m.in_proj.weight = from.matrix("attn.in_proj.weight", 2 * d_inner, e.d_model());
    m.conv_weight = from.table("attn.conv1d.weight", {d_inner, 1, d_conv}, d_conv * d_inner, [&](float* out, auto source) {
        for (std::size_t c = 0; c < d_inner; ++c) {
            for (std::size_t j = 0; j < d_conv; ++j) out[j * d_inner + c] = source(c * d_conv + j);
        }
    });
    m.conv_bias = from.vector("attn.conv1d.bias", d_inner);
    m.x_proj.weight = from.matrix("attn.x_proj.weight", e.dt_rank() + 2 * d_state, d_inner);
    m.dt_proj.weight = from.matrix("attn.dt_proj.weight", d_inner, e.dt_rank());
    m.dt_proj.bias = from.vector("attn.dt_proj.bias", d_inner);
    m.a_log2e = from.table("attn.A_log", {d_inner, d_state}, blocked_size(d_inner, d_state), [&](float* out, auto source) {
        for (std::size_t c = 0; c < d_inner; ++c) {
            for (std::size_t n = 0; n < d_state; ++n) {
                const double a = -std::exp(static_cast<double>(source(c * d_state + n)));
                out[blocked_index(c, n, d_state)] = static_cast<float>(a * std::numbers::log2e);
            }
        }
    });
    m.d = from.vector("attn.D", d_inner);
    m.out_proj.weight = from.matrix("attn.out_proj.weight", e.d_model(), d_inner);
    return m;
}

/// `layer` is counted over the whole model: lambda0 depends on it.
template <sambay_shape Shape, class Binder>
[[nodiscard]] sambay_attention bind_attention(Binder& from, const extents<Shape>& e, std::size_t layer, bool has_keys) {
    sambay_attention a;
    a.layout = head_layout_of(e);
    const std::size_t outputs = e.d_model() + (has_keys ? 2 * e.d_kv() : 0);
    a.qkv.weight = from.matrix("attn.Wqkv.weight", outputs, e.d_model());
    a.qkv.bias = from.vector("attn.Wqkv.bias", outputs);
    a.out_proj.weight = from.matrix("attn.out_proj.weight", e.d_model(), e.d_model());
    a.out_proj.bias = from.vector("attn.out_proj.bias", e.d_model());
    const double first = from.dot("attn.inner_cross_attn.lambda_q1", "attn.inner_cross_attn.lambda_k1", e.d_head());
    const double second = from.dot("attn.inner_cross_attn.lambda_q2", "attn.inner_cross_attn.lambda_k2", e.d_head());
    const double initial = differential_heads::initial_lambda(layer);
    a.heads.lambda = static_cast<float>(std::exp(first) - std::exp(second) + initial);
    a.heads.norm_weight = from.vector("attn.inner_cross_attn.subln.weight", 2 * e.d_head(),
                                      [&](float x) { return static_cast<float>(static_cast<double>(x) * (1.0 - initial)); });
    a.heads.eps = 1e-5f;
    return a;
}

template <sambay_shape Shape, class Binder>
[[nodiscard]] sambay_weights bind_all(Binder& from, const extents<Shape>& e, float eps) {
    const layer_plan plan(e.n_layers());
    sambay_weights w;
    from.leave_layers();
    w.embedding = from.matrix("embed_tokens.weight", e.vocab(), e.d_model());
    w.final_norm = bind_norm(from, "final_layernorm.weight", "final_layernorm.bias", e.d_model(), eps);
    w.layers = from.template objects<layer_frame>(plan.n_layers());
    w.mambas = from.template objects<mamba>(plan.n_mamba());
    w.windows = from.template objects<sambay_attention>(plan.n_window());
    w.gated_memories = from.template objects<gated_memory>(plan.n_gated_memory());
    w.crosses = from.template objects<sambay_attention>(plan.n_cross());
    const auto put = [](auto list, std::size_t i, const auto& value) {
        if (!list.empty()) list[i] = value;  // empty while only checking
    };
    for (std::size_t layer = 0; layer < plan.n_layers() && !from.failed(); ++layer) {
        from.enter_layer(layer);
        put(w.layers, layer, bind_frame(from, e, eps));
        const layer_place place = plan.at(layer);
        switch (place.kind) {
            case mixer_kind::mamba:
            case mixer_kind::memory_mamba: put(w.mambas, place.slot, bind_mamba(from, e)); break;
            case mixer_kind::window_attention: put(w.windows, place.slot, bind_attention(from, e, layer, true)); break;
            case mixer_kind::full_attention: w.full = bind_attention(from, e, layer, true); break;
            case mixer_kind::cross_attention: put(w.crosses, place.slot, bind_attention(from, e, layer, false)); break;
            case mixer_kind::gated_memory:
                put(w.gated_memories, place.slot,
                    gated_memory{{from.matrix("attn.in_proj.weight", e.d_inner(), e.d_model())},
                                 {from.matrix("attn.out_proj.weight", e.d_model(), e.d_inner())}});
                break;
        }
    }
    return w;
}

}  // namespace detail

PHI4FLASH_END

// ---- phi4flash/model/tensor_list.hpp -------------------------------------------------------------------------------------
/// The tensors of a SambaY checkpoint: names and shapes, for programs that write one and for saying which one is too many. The list
/// is the binder's own, so the two cannot disagree.

PHI4FLASH_BEGIN

/// What a tensor is for.
enum class tensor_role : std::uint8_t {
    matrix,     ///< multiplied with activations: any type, packed ones too
    parameter,  ///< widened to f32 when a model is bound: F32, F16 or BF16
};

namespace detail {

/// Stands where bind_all expects a binder, and tells what it is asked for.
template <class Visit>
class tensor_lister {
public:
    explicit tensor_lister(Visit& visit) : visit_(visit) {}

    [[nodiscard]] bool failed() const { return false; }
    void enter_layer(std::size_t layer) { std::snprintf(prefix_, sizeof prefix_, "model.layers.%zu.", layer); }
    void leave_layers() { std::snprintf(prefix_, sizeof prefix_, "model."); }

    matrix_view matrix(const char* name, std::size_t rows, std::size_t cols) { return tell(name, {rows, cols}, tensor_role::matrix), matrix_view{}; }
    template <class... Change>
    const float* vector(const char* name, std::size_t n, Change&&...) {
        return tell(name, {n}), nullptr;
    }
    template <class Fill>
    const float* table(const char* name, std::initializer_list<std::size_t> shape, std::size_t, Fill&&) {
        return tell(name, shape), nullptr;
    }
    double dot(const char* a, const char* b, std::size_t n) { return tell(a, {n}), tell(b, {n}), 0.0; }
    template <class T>
    std::span<T> objects(std::size_t) {
        return {};
    }

private:
    void tell(const char* name, std::initializer_list<std::size_t> shape, tensor_role role = tensor_role::parameter) {
        char full[160];
        std::snprintf(full, sizeof full, "%s%s", prefix_, name);
        visit_(std::string_view(full), std::span<const std::size_t>(shape.begin(), shape.size()), role);
    }

    Visit& visit_;
    char prefix_[48] = "model.";
};

}  // namespace detail

/// Calls `visit(name, shape, role)` for every tensor that `model::bind` asks for, once each: a std::string_view and a span of
/// extents that are valid during the call, and a tensor_role.
template <sambay_shape Shape, class Visit>
void for_each_tensor(const extents<Shape>& e, Visit&& visit) {
    detail::tensor_lister<std::remove_reference_t<Visit>> lister(visit);
    (void)detail::bind_all(lister, e, 1e-5f);
}

namespace detail {

/// Tensors beside the expected ones: only an lm_head that equals the embedding, since the model ties them.
template <tensor_source Source, sambay_shape Shape>
[[nodiscard]] status check_rest(const Source& source, const extents<Shape>& e, const matrix_view& embedding, std::size_t found) {
    if (const tensor_view* head = source.find("lm_head.weight"); head != nullptr) {
        const bool same = head->type == embedding.type && head->bytes == embedding.bytes() &&
                          (head->data == embedding.data || std::memcmp(head->data, embedding.data, head->bytes) == 0);
        if (!same)
            return error::format(errc::untied_embedding,
                                 "tensor lm_head.weight differs from model.embed_tokens.weight: want the same %s numbers, the model ties them",
                                 name_of(embedding.type));
        ++found;
    }
    if (source.tensors().size() == found) return {};
    for (const tensor_view& t : source.tensors()) {
        bool known = t.name == "lm_head.weight";
        for_each_tensor(e, [&](std::string_view name, std::span<const std::size_t>, tensor_role) { known = known || name == t.name; });
        if (!known)
            return error::format(errc::unexpected_tensor, "tensor %.*s is not part of the model (%zu layers)", static_cast<int>(t.name.size()),
                                 t.name.data(), e.n_layers());
    }
    return error::format(errc::duplicate_name, "the checkpoint lists %zu tensors for %zu names", source.tensors().size(), found);
}

}  // namespace detail

PHI4FLASH_END

PHI4FLASH_BEGIN

/// Weights bound to a shape. Big matrices are views into the source, which must outlive the model; the model itself owns a few
/// MiB of widened vectors. Movable. Const access from any number of threads.
template <sambay_shape Shape = any_sambay>
class model {
public:
    /// Binds a checkpoint. Everything is checked before memory is taken.
    /// Errors: bad_extent, missing_tensor, wrong_shape, wrong_dtype, size_mismatch, unexpected_tensor, untied_embedding, out_of_memory.
    template <tensor_source Source>
    static result<model> bind(const Source& source, const sambay_config& config) {
        const auto e = extents<Shape>::from(config.shape);
        if (!e) return e.error();
        model m(*e, config);
        detail::tensor_binder<Source> check(source, arena(), false);
        const sambay_weights checked = detail::bind_all(check, *e, config.norm_eps);
        if (check.failed()) return check.failure().error();
        if (const status rest = detail::check_rest(source, *e, checked.embedding, check.found()); !rest) return rest.error();
        auto block = memory_block::allocate(check.bytes(), "model's parameters");
        if (!block) return block.error();
        m.parameters_ = std::move(*block);
        detail::tensor_binder<Source> fill(source, arena(m.parameters_.bytes().data()), true);
        m.weights_ = detail::bind_all(fill, *e, config.norm_eps);
        return m;
    }

    /// The same for a source that carries its configuration.
    template <tensor_source Source>
        requires requires(const Source& s) {
            { s.config() } -> std::convertible_to<const sambay_config&>;
        }
    static result<model> bind(const Source& source) {
        return bind(source, source.config());
    }

    [[nodiscard]] const extents<Shape>& shape() const { return extents_; }
    [[nodiscard]] const sambay_config& config() const { return config_; }
    [[nodiscard]] const sambay_weights& weights() const { return weights_; }
    [[nodiscard]] layer_plan plan() const { return layer_plan(extents_.n_layers()); }
    /// Bytes that the model itself owns, beside the source's.
    [[nodiscard]] std::size_t parameter_bytes() const { return parameters_.bytes().size(); }

private:
    model(const extents<Shape>& e, const sambay_config& config) : extents_(e), config_(config) {}

    [[no_unique_address]] extents<Shape> extents_;
    sambay_config config_;
    sambay_weights weights_;
    memory_block parameters_;
};

PHI4FLASH_END

PHI4FLASH_BEGIN

/// The state of one text: Mamba states, the windows' K/V, and the full layer's K/V for up to `context` tokens. Kv is the
/// element type of K/V: bf16 (half the memory) or float. Movable; used by one thread at a time.
template <sambay_shape Shape = any_sambay, class Kv = bf16>
class session {
    static_assert(std::same_as<Kv, bf16> || std::same_as<Kv, float>, "phi4flash: K/V are kept in bf16 or float");

public:
    /// Bytes for a context of so many tokens.
    [[nodiscard]] static std::size_t bytes(const model<Shape>& m, std::size_t context) {
        session s;
        arena counting;
        s.lay_out(counting, m, context);
        return counting.bytes();
    }

    /// Takes its own memory. Errors: invalid_argument, out_of_memory.
    static result<session> create(const model<Shape>& m, std::size_t context) {
        if (const status ok = check_context(context); !ok) return ok.error();
        auto block = memory_block::allocate(bytes(m, context), "session");
        if (!block) return block.error();
        session s;
        s.own_ = std::move(*block);
        s.attach(s.own_.bytes(), m, context);
        return s;
    }

    /// In the caller's memory: `bytes(m, context)` bytes, aligned to block_alignment, alive as long as the session.
    /// Errors: invalid_argument.
    static result<session> create_in(std::span<std::byte> memory, const model<Shape>& m, std::size_t context) {
        if (const status ok = check_context(context); !ok) return ok.error();
        const std::size_t want = bytes(m, context);
        if (memory.size() < want || reinterpret_cast<std::uintptr_t>(memory.data()) % block_alignment != 0)
            return error::format(errc::invalid_argument, "session memory: want %zu bytes aligned to %zu, have %zu", want, block_alignment,
                                 memory.size());
        session s;
        s.attach(memory.first(want), m, context);
        return s;
    }

    /// Forgets everything: the next token is the first of a new text.
    void reset() {
        // K/V need no clearing: nothing is read that was not written before.
        std::ranges::fill(memory_.subspan(recurrent_begin_, recurrent_end_ - recurrent_begin_), std::byte{0});
        position_ = 0;
    }

    /// Tokens read so far.
    [[nodiscard]] std::size_t position() const { return position_; }
    /// Tokens it has room for.
    [[nodiscard]] std::size_t context() const { return context_; }

    // For forward.hpp.
    [[nodiscard]] std::span<const mamba::state> mambas() const { return mambas_; }
    [[nodiscard]] std::span<const kv_ring<Kv>> windows() const { return windows_; }
    [[nodiscard]] const kv_block<Kv>& full() const { return full_; }
    void advance(std::size_t tokens) { position_ += tokens; }

private:
    static status check_context(std::size_t context) {
        if (context == 0 || context > max_extent) return error::format(errc::invalid_argument, "context: want 1 to %zu tokens, have %zu", max_extent, context);
        return {};
    }

    void attach(std::span<std::byte> memory, const model<Shape>& m, std::size_t context) {
        memory_ = memory;
        context_ = context;
        arena carving(memory.data());
        lay_out(carving, m, context);
        reset();
    }

    void lay_out(arena& memory, const model<Shape>& m, std::size_t context) {
        const extents<Shape>& e = m.shape();
        const layer_plan plan = m.plan();
        const head_layout heads = head_layout_of(e);
        auto* const mambas = memory.take<mamba::state>(plan.n_mamba());
        auto* const windows = memory.take<kv_ring<Kv>>(plan.n_window());
        recurrent_begin_ = memory.bytes();
        for (std::size_t i = 0; i < plan.n_mamba(); ++i) {
            const mamba::state one(memory, e.d_inner(), e.d_state(), e.d_conv());
            if (mambas != nullptr) std::construct_at(mambas + i, one);
        }
        recurrent_end_ = memory.bytes();
        for (std::size_t i = 0; i < plan.n_window(); ++i) {
            const kv_ring<Kv> one{kv_block<Kv>(memory, heads, e.window())};
            if (windows != nullptr) std::construct_at(windows + i, one);
        }
        full_ = kv_block<Kv>(memory, heads, context);
        if (mambas != nullptr) mambas_ = {mambas, plan.n_mamba()};
        if (windows != nullptr) windows_ = {windows, plan.n_window()};
    }

    memory_block own_;
    std::span<std::byte> memory_;
    std::span<mamba::state> mambas_;
    std::span<kv_ring<Kv>> windows_;
    kv_block<Kv> full_;
    std::size_t recurrent_begin_ = 0;  // the Mamba states
    std::size_t recurrent_end_ = 0;
    std::size_t position_ = 0;
    std::size_t context_ = 0;
};

/// How a workspace computes.
struct workspace_options {
    std::size_t chunk = 128;               ///< prompt tokens read at once; memory grows with it, results do not change
    const kernel_table* kernels = nullptr; ///< null: the best that this machine can run
    executor_ref threads{};                ///< default: the calling thread alone
};

/// Activations of up to `chunk` tokens, and the logits of one. Shared by sessions, used by one thread of control at a time.
template <sambay_shape Shape = any_sambay, class Kv = bf16>
class workspace {
public:
    [[nodiscard]] static std::size_t bytes(const model<Shape>& m, std::size_t chunk) {
        workspace w;
        arena counting;
        w.lay_out(counting, m, chunk);
        return counting.bytes();
    }

    /// Takes its own memory. Errors: invalid_argument, out_of_memory.
    static result<workspace> create(const model<Shape>& m, const workspace_options& options = {}) {
        if (const status ok = check_chunk(options.chunk); !ok) return ok.error();
        auto block = memory_block::allocate(bytes(m, options.chunk), "workspace");
        if (!block) return block.error();
        workspace w;
        w.own_ = std::move(*block);
        w.attach(w.own_.bytes(), m, options);
        return w;
    }

    /// In the caller's memory: `bytes(m, options.chunk)` bytes, aligned to block_alignment. Errors: invalid_argument.
    static result<workspace> create_in(std::span<std::byte> memory, const model<Shape>& m, const workspace_options& options = {}) {
        if (const status ok = check_chunk(options.chunk); !ok) return ok.error();
        const std::size_t want = bytes(m, options.chunk);
        if (memory.size() < want || reinterpret_cast<std::uintptr_t>(memory.data()) % block_alignment != 0)
            return error::format(errc::invalid_argument, "workspace memory: want %zu bytes aligned to %zu, have %zu", want, block_alignment,
                                 memory.size());
        workspace w;
        w.attach(memory.first(want), m, options);
        return w;
    }

    [[nodiscard]] std::size_t chunk() const { return chunk_; }
    [[nodiscard]] const kernel_table& kernels() const { return *with.kernels; }

    // For forward.hpp.
    compute with;
    rows_view<float> residual;  ///< [chunk, d_model]
    rows_view<float> normed;    ///< [chunk, d_model]
    mlp::workspace mlp_scratch;
    mamba::workspace mamba_scratch;
    gated_memory::workspace memory_scratch;
    attention_workspace<Kv> attention_scratch;
    rows_view<float> logits;    ///< [1, vocab]

private:
    static status check_chunk(std::size_t chunk) {
        if (chunk == 0 || chunk > 65536) return error::format(errc::invalid_argument, "chunk: want 1 to 65536 tokens, have %zu", chunk);
        return {};
    }

    void attach(std::span<std::byte> memory, const model<Shape>& m, const workspace_options& options) {
        arena carving(memory.data());
        lay_out(carving, m, options.chunk);
        with.kernels = options.kernels == nullptr ? &best_kernels() : options.kernels;
        with.threads = options.threads;
        chunk_ = options.chunk;
    }

    void lay_out(arena& memory, const model<Shape>& m, std::size_t chunk) {
        const extents<Shape>& e = m.shape();
        const std::size_t widest = std::max({e.d_model(), e.d_ff(), e.d_inner(), e.dt_rank()});
        with.arranged = memory.take<std::byte>(chunk * arranged_bytes(widest));
        residual = take_rows(memory, chunk, e.d_model());
        normed = take_rows(memory, chunk, e.d_model());
        mlp_scratch = mlp::workspace(memory, chunk, e.d_ff());
        mamba_scratch = mamba::workspace(memory, chunk, e.d_inner(), e.d_state(), e.dt_rank());
        memory_scratch = gated_memory::workspace(memory, chunk, e.d_inner());
        attention_scratch = attention_workspace<Kv>(memory, head_layout_of(e), chunk);
        logits = take_rows(memory, 1, e.vocab());
    }

    memory_block own_;
    std::size_t chunk_ = 0;
};

PHI4FLASH_END

PHI4FLASH_BEGIN

namespace detail {

/// One pass over `tokens` (at most a chunk): the lower layers for all of them, the upper ones for the last `upper`. Leaves the
/// residual stream of those last tokens in the workspace and returns it. `observe(layer, rows)` sees it after each layer.
template <sambay_shape Shape, class Kv, class Observe>
rows_view<float> run_layers(const model<Shape>& m, session<Shape, Kv>& past, workspace<Shape, Kv>& w, std::span<const std::int32_t> tokens,
                            std::size_t upper, Observe&& observe) {
    const sambay_weights& weights = m.weights();
    const std::size_t d_model = m.shape().d_model();
    const layer_plan plan = m.plan();
    const std::size_t first = past.position();
    const compute& with = w.with;

    rows_view<float> x = w.residual.first(tokens.size());
    const auto widen = with.kernels->linear[static_cast<std::size_t>(weights.embedding.type)].widen;
    for (std::size_t t = 0; t < tokens.size(); ++t) widen(weights.embedding.data, static_cast<std::size_t>(tokens[t]), d_model, x[t]);

    rows_view<const float> memory;
    for (std::size_t layer = 0; layer < plan.n_layers(); ++layer) {
        const layer_frame& frame = weights.layers[layer];
        const layer_place place = plan.at(layer);
        rows_view<float> h = w.normed.first(x.count);
        frame.input_norm(with, x, h);
        switch (place.kind) {
            case mixer_kind::mamba:
            case mixer_kind::memory_mamba:
                memory = weights.mambas[place.slot](with, w.mamba_scratch, past.mambas()[place.slot], h, h);
                break;
            case mixer_kind::window_attention:
                weights.windows[place.slot].window(with, w.attention_scratch, past.windows()[place.slot], first, h, h);
                break;
            case mixer_kind::full_attention:
                weights.full.store_keys(with, w.attention_scratch, past.full(), first, h);
                x = x.last(upper);  // from here on, only what somebody asked for
                h = h.last(upper);
                memory = memory.last(upper);
                if (upper == 0) return x;
                weights.full.over(with, w.attention_scratch, past.full(), first + tokens.size() - upper, h, h);
                break;
            case mixer_kind::gated_memory: weights.gated_memories[place.slot](with, w.memory_scratch, h, memory, h); break;
            case mixer_kind::cross_attention:
                weights.crosses[place.slot].over(with, w.attention_scratch, past.full(), first + tokens.size() - upper, h, h);
                break;
        }
        add_rows(with, h, x, d_model);
        frame.post_norm(with, x, h);
        frame.mlp(with, w.mlp_scratch, h, h);
        add_rows(with, h, x, d_model);
        observe(layer, x);
    }
    return x;
}

/// logits[t] = final_norm(x[t]) . embedding^T.   Shape: x [T, d_model], logits [T, vocab].
template <sambay_shape Shape, class Kv>
void project_logits(const model<Shape>& m, workspace<Shape, Kv>& w, rows_view<const float> x, rows_view<float> logits) {
    const rows_view<float> h = w.normed.first(x.count);
    m.weights().final_norm(w.with, x, h);
    linear{m.weights().embedding}(w.with, h, logits);
}

struct observe_nothing {
    void operator()(std::size_t, rows_view<const float>) const {}
};

template <sambay_shape Shape, class Kv>
[[nodiscard]] status check_tokens(const model<Shape>& m, const session<Shape, Kv>& past, std::span<const std::int32_t> tokens) {
    if (tokens.empty()) return error::format(errc::invalid_argument, "no tokens: want at least one");
    if (tokens.size() > past.context() - past.position())
        return error::format(errc::context_full, "the session has room for %zu tokens and has read %zu: %zu more do not fit", past.context(),
                             past.position(), tokens.size());
    for (const std::int32_t token : tokens) {
        if (token < 0 || static_cast<std::size_t>(token) >= m.shape().vocab())
            return error::format(errc::unknown_token, "token %d: want 0 to %zu", static_cast<int>(token), m.shape().vocab() - 1);
    }
    return {};
}

}  // namespace detail

/// Asked between chunks of a prompt; returns false to stop. `read` of `total` tokens are done.
struct always_continue {
    bool operator()(std::size_t /*read*/, std::size_t /*total*/) const { return true; }
};

/// Reads one token and returns the logits of the next [vocab]; they stay valid until the workspace is used again.
/// Errors: context_full, unknown_token; the session is then as before.
template <sambay_shape Shape, class Kv>
result<std::span<const float>> step(const model<Shape>& m, session<Shape, Kv>& past, workspace<Shape, Kv>& w, std::int32_t token) {
    const std::span<const std::int32_t> tokens(&token, 1);
    if (const status ok = detail::check_tokens(m, past, tokens); !ok) return ok.error();
    const rows_view<float> x = detail::run_layers(m, past, w, tokens, 1, detail::observe_nothing{});
    past.advance(1);
    detail::project_logits(m, w, x, w.logits);
    return std::span<const float>(w.logits.data, m.shape().vocab());
}

/// Reads a prompt in chunks of the workspace's size and returns the logits after its last token [vocab]. Equal, but for rounding,
/// to calling `step` for each token, at any chunk size.
/// Errors: invalid_argument (no tokens), context_full, unknown_token: the session is then as before; cancelled (`go_on` returned
/// false): the session has read what its position() says.
template <sambay_shape Shape, class Kv, class Continue = always_continue>
result<std::span<const float>> prefill(const model<Shape>& m, session<Shape, Kv>& past, workspace<Shape, Kv>& w,
                                       std::span<const std::int32_t> tokens, Continue&& go_on = {}) {
    if (const status ok = detail::check_tokens(m, past, tokens); !ok) return ok.error();
    for (std::size_t begin = 0; begin < tokens.size();) {
        const std::size_t count = std::min(w.chunk(), tokens.size() - begin);
        const bool last = begin + count == tokens.size();
        const rows_view<float> x = detail::run_layers(m, past, w, tokens.subspan(begin, count), last ? 1 : 0, detail::observe_nothing{});
        past.advance(count);
        begin += count;
        if (last) detail::project_logits(m, w, x, w.logits);
        if (!go_on(begin, tokens.size()) && !last)
            return error::format(errc::cancelled, "stopped by the caller after %zu of %zu prompt tokens", begin, tokens.size());
    }
    return std::span<const float>(w.logits.data, m.shape().vocab());
}

/// Reads tokens and computes the logits after every one of them, for evaluation: all layers run for all tokens.
/// Shape: out [tokens.size(), vocab]. `observe(first_token, layer, rows)` may look at the residual stream after each layer.
/// Errors: as `prefill`, and invalid_argument where `out` has too few rows.
template <sambay_shape Shape, class Kv, class Observe>
status logits_all(const model<Shape>& m, session<Shape, Kv>& past, workspace<Shape, Kv>& w, std::span<const std::int32_t> tokens,
                  rows_view<float> out, Observe&& observe) {
    if (const status ok = detail::check_tokens(m, past, tokens); !ok) return ok;
    if (out.count < tokens.size() || out.stride < m.shape().vocab())
        return error::format(errc::invalid_argument, "room for logits: want %zu rows of %zu, have %zu of %zu", tokens.size(), m.shape().vocab(),
                             out.count, out.stride);
    for (std::size_t begin = 0; begin < tokens.size();) {
        const std::size_t count = std::min(w.chunk(), tokens.size() - begin);
        const rows_view<float> x =
            detail::run_layers(m, past, w, tokens.subspan(begin, count), count,
                               [&](std::size_t layer, rows_view<const float> rows) { observe(begin, layer, rows); });
        past.advance(count);
        detail::project_logits(m, w, x, rows_view<float>{out[begin], count, out.stride});
        begin += count;
    }
    return {};
}

template <sambay_shape Shape, class Kv>
status logits_all(const model<Shape>& m, session<Shape, Kv>& past, workspace<Shape, Kv>& w, std::span<const std::int32_t> tokens,
                  rows_view<float> out) {
    return logits_all(m, past, w, tokens, out, [](std::size_t, std::size_t, rows_view<const float>) {});
}

PHI4FLASH_END

// Text: tokenizer, streaming decoder, chat template.

// ---- phi4flash/text/chat.hpp ---------------------------------------------------------------------------------------------
/// Chat templates: messages to a prompt, as text or as ids.

// ---- phi4flash/text/tokenizer.hpp ----------------------------------------------------------------------------------------
/// The tokenizer: text to ids and back. Byte-level BPE with a split pattern and added tokens.

// ---- phi4flash/text/added_tokens.hpp -------------------------------------------------------------------------------------
/// Added tokens: markers that are found in the text before it is split, with the rules of Hugging Face's `AddedToken`.

// ---- phi4flash/text/byte_trie.hpp ----------------------------------------------------------------------------------------
/// A double-array trie over a set of tokens: the longest token at a place in a text, one table read a byte. A branch with a single
/// token left is not spelled out; its bytes are compared with the vocabulary's.

// ---- phi4flash/text/vocabulary.hpp ---------------------------------------------------------------------------------------
/// The strings of a vocabulary: one blob of bytes, offsets by id, and an index from bytes to id.

PHI4FLASH_BEGIN

/// Ids are small non-negative numbers; this one names nothing.
inline constexpr std::uint32_t no_token = 0xFFFFFFFF;

/// Limits that keep a hostile file from asking for much memory.
inline constexpr std::size_t max_vocabulary_ids = std::size_t{1} << 22;
inline constexpr std::size_t max_token_bytes = 4096;
inline constexpr std::size_t max_vocabulary_bytes = std::size_t{1} << 28;

namespace detail {

/// Unaligned loads of text, as numbers.
[[nodiscard]] inline std::uint64_t load_u64(const char* p) {
    std::uint64_t x = 0;
    std::memcpy(&x, p, 8);
    return x;
}

/// A hash of bytes for tables that live in memory only.
[[nodiscard]] inline std::uint64_t hash_bytes(std::string_view s) {
    std::uint64_t h = s.size() * 0x9E3779B97F4A7C15u;
    const char* p = s.data();
    std::size_t n = s.size();
    for (; n >= 8; n -= 8, p += 8) h = ((h ^ load_u64(p)) * 0xD6E8FEB86659FD93u) ^ (h >> 29);
    std::uint64_t rest = 0;
    if (n != 0) std::memcpy(&rest, p, n);
    h = (h ^ rest) * 0xD6E8FEB86659FD93u;
    return (h ^ (h >> 32)) * 0x9E3779B97F4A7C15u;
}

}  // namespace detail

/// Strings by id and ids by string. Filled once, then read from any thread. Ids may have gaps; a gap has no string.
class vocabulary {
public:
    /// One past the highest id with a string.
    [[nodiscard]] std::size_t size() const { return places_.size(); }
    /// Strings held.
    [[nodiscard]] std::size_t count() const { return count_; }
    [[nodiscard]] std::size_t blob_bytes() const { return blob_.size(); }

    [[nodiscard]] bool has_string(std::size_t id) const { return id < places_.size() && places_[id].size != 0; }

    /// The bytes of a token; empty for an id without a string. Valid as long as the vocabulary is not changed.
    [[nodiscard]] std::string_view bytes_of(std::size_t id) const {
        if (id >= places_.size()) return {};
        return {blob_.data() + places_[id].offset, places_[id].size};
    }

    /// The number of bytes of a token that is known to have a string.
    [[nodiscard]] std::size_t size_of_known(std::uint32_t id) const { return places_[id].size; }

    /// The id of exactly these bytes, or no_token.
    [[nodiscard]] std::uint32_t find(std::string_view bytes) const {
        if (index_.empty()) return no_token;
        const std::size_t mask = index_.size() - 1;
        for (std::size_t i = slot_of(bytes); index_[i] != no_token; i = (i + 1) & mask) {
            if (bytes_of(index_[i]) == bytes) return index_[i];
        }
        return no_token;
    }

    /// Makes room for `ids` strings of `bytes` in all.
    void reserve(std::size_t ids, std::size_t bytes) {
        places_.reserve(ids);
        blob_.reserve(bytes);
        if (ids * 2 > index_.size()) rebuild_index(ids);
    }

    /// Gives an id its string. Errors, bad_vocabulary: empty or oversized string, id out of range or taken, string taken.
    [[nodiscard]] status add(std::size_t id, std::string_view bytes) {
        if (id >= max_vocabulary_ids)
            return error::format(errc::bad_vocabulary, "token id %zu is not below the limit of %zu", id, max_vocabulary_ids);
        if (bytes.empty()) return error::format(errc::bad_vocabulary, "token %zu is an empty string", id);
        if (bytes.size() > max_token_bytes)
            return error::format(errc::bad_vocabulary, "token %zu has %zu bytes, at most %zu are allowed", id, bytes.size(),
                                 max_token_bytes);
        if (blob_.size() + bytes.size() > max_vocabulary_bytes)
            return error::format(errc::bad_vocabulary, "the strings of the vocabulary have more than %zu bytes",
                                 max_vocabulary_bytes);
        if (has_string(id)) return error::format(errc::bad_vocabulary, "id %zu is given to two tokens", id);
        if ((count_ + 1) * 2 > index_.size()) rebuild_index(count_ + 1);
        const std::size_t mask = index_.size() - 1;
        std::size_t i = slot_of(bytes);
        for (; index_[i] != no_token; i = (i + 1) & mask) {
            if (bytes_of(index_[i]) == bytes)
                return error::format(errc::bad_vocabulary, "tokens %u and %zu are the same string of %zu bytes", index_[i], id,
                                     bytes.size());
        }
        if (id >= places_.size()) places_.resize(id + 1);
        places_[id] = {static_cast<std::uint32_t>(blob_.size()), static_cast<std::uint32_t>(bytes.size())};
        blob_.insert(blob_.end(), bytes.begin(), bytes.end());
        index_[i] = static_cast<std::uint32_t>(id);
        ++count_;
        return {};
    }

private:
    struct place {
        std::uint32_t offset = 0;
        std::uint32_t size = 0;
    };

    [[nodiscard]] std::size_t slot_of(std::string_view bytes) const { return detail::hash_bytes(bytes) & (index_.size() - 1); }

    void rebuild_index(std::size_t wanted) {
        std::size_t slots = 512;
        while (slots < wanted * 2) slots *= 2;
        index_.assign(slots, no_token);
        for (std::size_t id = 0; id < places_.size(); ++id) {
            if (places_[id].size == 0) continue;
            std::size_t i = slot_of(bytes_of(id));
            while (index_[i] != no_token) i = (i + 1) & (slots - 1);
            index_[i] = static_cast<std::uint32_t>(id);
        }
    }

    std::vector<char> blob_;
    std::vector<place> places_;
    std::vector<std::uint32_t> index_;  // open addressing, a power of two, at most half full
    std::size_t count_ = 0;
};

PHI4FLASH_END

PHI4FLASH_BEGIN

/// Source: Aoe, "An efficient digital search algorithm by using a double-array structure", 1989.
class byte_trie {
public:
    /// Longest token that is a prefix of [p, p + n), or no_token. `strings` are those of `build`.
    [[nodiscard]] std::uint32_t longest(const vocabulary& strings, const char* p, std::size_t n) const {
        std::uint32_t best = no_token;
        std::uint32_t at = 0;
        for (std::size_t i = 0; i < n;) {
            const std::uint32_t next = units_[at].base + static_cast<unsigned char>(p[i]);
            if (units_[next].parent != at) break;
            at = next;
            ++i;
            const unit& here = units_[at];
            if (here.base >= leaf) {
                if (here.base == leaf) return here.token;
                const std::string_view whole = strings.bytes_of(here.token);
                return whole.size() <= n && std::memcmp(whole.data() + i, p + i, whole.size() - i) == 0 ? here.token : best;
            }
            if (here.token != no_token) best = here.token;
        }
        return best;
    }

    /// Takes the tokens with these ids, sorted by their bytes. Linear in the bytes, but for the search of free places.
    void build(const vocabulary& strings, std::span<const std::uint32_t> sorted) {
        units_.reserve(sorted.size() * 2 + 1024);
        units_.assign(1024, unit{});
        free_.assign(units_.size() / 64, ~std::uint64_t{0});
        first_free_ = 0;
        take(0);
        if (sorted.empty()) return;
        std::vector<branch> open{{0, 0, static_cast<std::uint32_t>(sorted.size()), 0}};
        for (std::size_t next = 0; next < open.size(); ++next) grow(strings, sorted, open[next], open);
        free_ = {};
    }

    [[nodiscard]] std::size_t memory_bytes() const { return units_.size() * sizeof(unit); }

private:
    static constexpr std::uint32_t nowhere = 0xFFFFFFFF;
    struct unit {
        std::uint32_t base = 0;          // children of unit s are at base + byte; or `leaf`, `leaf + 1`
        std::uint32_t parent = nowhere;  // nowhere: unused
        std::uint32_t token = no_token;  // the token that ends here
    };
    struct branch {
        std::uint32_t node, lo, hi, depth;  // tokens sorted[lo, hi) share `depth` bytes
    };
    static constexpr std::uint32_t leaf = 0xFFFFFFF0;  // + 1: bytes of the token are left to compare

    void grow(const vocabulary& strings, std::span<const std::uint32_t> sorted, branch from, std::vector<branch>& open) {
        unsigned char labels[256];
        std::uint32_t starts[257];
        std::size_t children = 0;
        for (std::uint32_t i = from.lo; i < from.hi; ++i) {
            const std::string_view s = strings.bytes_of(sorted[i]);
            if (s.size() == from.depth) continue;  // the token that ends at this node
            const auto label = static_cast<unsigned char>(s[from.depth]);
            if (children == 0 || labels[children - 1] != label) {
                labels[children] = label;
                starts[children++] = i;
            }
        }
        starts[children] = from.hi;
        const std::uint32_t base = find_base({labels, children});
        units_[from.node].base = base;
        for (std::size_t c = 0; c < children; ++c) {
            const std::uint32_t first = sorted[starts[c]];
            const std::size_t size = strings.bytes_of(first).size();
            const bool ends_here = size == from.depth + 1;
            unit& child = units_[base + labels[c]];
            child.parent = from.node;
            take(base + labels[c]);
            if (starts[c + 1] - starts[c] == 1) {
                child.token = first;
                child.base = ends_here ? leaf : leaf + 1;
            } else {
                if (ends_here) child.token = first;
                open.push_back({base + labels[c], starts[c], starts[c + 1], from.depth + 1});
            }
        }
    }

    /// A base under which all labels are free, 64 candidates at a time. After a bounded search it is a fresh place at the end.
    /// Every base leaves room for all 256 bytes, so that a lookup needs no bounds.
    [[nodiscard]] std::uint32_t find_base(std::span<const unsigned char> labels) {
        constexpr std::uint32_t most_tries = 512;
        const auto fitting = [&](std::uint32_t base) {
            std::uint64_t mask = ~std::uint64_t{0};
            for (const unsigned char l : labels) mask &= free_bits(base + l);
            return mask;
        };
        std::uint32_t base = first_free_ - std::min<std::uint32_t>(first_free_, labels[0]);
        for (std::uint32_t tries = 0; tries < most_tries && base + 384 < units_.size(); ++tries, base += 64) {
            if (const std::uint64_t mask = fitting(base); mask != 0)
                return base + static_cast<std::uint32_t>(std::countr_zero(mask));
        }
        base = static_cast<std::uint32_t>(units_.size());
        units_.resize(units_.size() + 1024);
        free_.resize(units_.size() / 64, ~std::uint64_t{0});
        return base;
    }

    /// Which of the units from `at` on are free, lowest bit first.
    [[nodiscard]] std::uint64_t free_bits(std::uint32_t at) const {
        const std::uint64_t low = free_[at / 64] >> (at % 64);
        return at % 64 == 0 ? low : low | free_[at / 64 + 1] << (64 - at % 64);
    }

    void take(std::uint32_t at) {
        free_[at / 64] &= ~(std::uint64_t{1} << (at % 64));
        while (first_free_ < units_.size() && free_bits(first_free_) == 0) first_free_ += 64;
    }

    std::vector<unit> units_ = std::vector<unit>(512);
    std::vector<std::uint64_t> free_;  // while building: one bit a unit
    std::uint32_t first_free_ = 0;     // no unit before it is free
};

PHI4FLASH_END

// ---- phi4flash/text/pre_tokenizer.hpp ------------------------------------------------------------------------------------
/// Splits text into the pieces that BPE works on: hand-written matchers for the split patterns of GPT-2, cl100k, Qwen 2
/// and o200k. Each gives what a leftmost, backtracking regular-expression engine would, in one or two passes over a piece, without
/// recursion or allocation.

// ---- phi4flash/text/unicode_tables.hpp -----------------------------------------------------------------------------------
/// Classes of Unicode 16.0 code points that the split patterns tell apart, as a two-stage table.
/// Generated by tools/generate_unicode_tables.py; do not edit.

PHI4FLASH_BEGIN

/// What a split pattern can see of a code point. General categories, except white space: the property White_Space.
enum class char_class : std::uint8_t {
    other,    ///< everything else, unassigned code points included
    upper,    ///< Lu, Lt
    lower,    ///< Ll
    letter,   ///< Lm, Lo: a letter without case
    mark,     ///< M
    number,   ///< N
    space,    ///< White_Space, except the two below
    newline,  ///< U+000A, U+000D
};

namespace detail {

/// First code point past the table.
inline constexpr char32_t class_limit = 0x32400;

/// Block of 128 code points -> its row in class_rows.
inline constexpr std::uint8_t class_blocks[1608] = {
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23,
    24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 34, 35, 36, 37, 38, 39, 34, 34, 34, 40, 41, 42, 43,
    44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 64, 64, 64,
    65, 66, 64, 64, 64, 64, 67, 68, 64, 64, 64, 64, 64, 64, 64, 64, 69, 70, 71, 72, 73, 64, 64, 64,
    74, 75, 76, 77, 78, 79, 64, 64, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 80, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 81, 34, 34, 82, 83, 84, 85,
    86, 87, 88, 89, 90, 91, 92, 93, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 94,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 34, 34, 95, 96, 97, 98,
    34, 34, 99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 64, 109, 110, 111, 112, 113, 114, 115, 34, 34, 116, 117,
    118, 119, 120, 121, 122, 123, 124, 125, 126, 127, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 139, 140, 141,
    142, 143, 64, 144, 145, 146, 147, 64, 148, 149, 150, 151, 152, 153, 64, 154, 155, 156, 157, 158, 64, 159, 160, 161,
    34, 34, 34, 34, 34, 34, 34, 162, 163, 34, 164, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 165, 34, 34, 34, 34, 34, 34, 34, 34, 166, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 106,
    34, 34, 34, 34, 167, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 168, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    34, 34, 34, 34, 169, 170, 171, 172, 64, 64, 173, 64, 174, 175, 176, 177, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 178, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 179, 180, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 181,
    34, 34, 182, 34, 34, 183, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    184, 185, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 186, 64, 64, 64, 64, 187, 64, 64, 64, 188, 189, 190, 191, 192, 64,
    193, 194, 195, 196, 197, 198, 199, 200, 64, 64, 64, 64, 201, 202, 64, 64, 64, 64, 64, 64, 64, 64, 203, 64,
    204, 205, 206, 64, 64, 207, 64, 64, 64, 208, 64, 209, 64, 64, 64, 210, 34, 211, 212, 64, 64, 64, 64, 64,
    213, 214, 215, 64, 216, 217, 64, 64, 64, 64, 218, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 186, 64, 64, 64, 64, 64, 64, 64, 64, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 219, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 220, 34,
    221, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 222, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 223, 34, 34, 34, 34, 224, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 34, 34, 34, 34, 225, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 226, 34, 34, 34, 34, 34, 34, 34, 34, 34,
    34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 34, 227,
};

/// Rows of 8 words; 16 classes of 4 bits in each word, lowest first.
inline constexpr std::uint64_t class_rows[1824] = {
    0x76676000000000, 0x0, 0x6, 0x5555555555, 0x1111111111111110, 0x11111111111,
    0x2222222222222220, 0x22222222222, 0x600000, 0x0, 0x30000000006, 0x555035000205500,
    0x1111111111111111, 0x2111111101111111, 0x2222222222222222, 0x2222222202222222, 0x2121212121212121, 0x2121212121212121,
    0x2121212121212121, 0x1212121221212121, 0x2121212212121212, 0x2121212121212121, 0x2121212121212121, 0x2212121121212121,
    0x1122111211212112, 0x1211222111211211, 0x1121221211212121, 0x2221322112121112, 0x1212112112113333, 0x2122121212121212,
    0x2121212121212121, 0x2121212111212112, 0x2121212121212121, 0x2121212121212121, 0x2121212121212121, 0x2112112222222121,
    0x2121212121111212, 0x2222222222222222, 0x2222222222222222, 0x2222222222222222, 0x2222222222222222, 0x2222222222232222,
    0x2222222222222222, 0x3333333333333333, 0x3333333333000033, 0x33, 0x303000000033333, 0x0,
    0x4444444444444444, 0x4444444444444444, 0x4444444444444444, 0x4444444444444444, 0x4444444444444444, 0x4444444444444444,
    0x4444444444444444, 0x1022230021032121, 0x1101011101000000, 0x1111111111111112, 0x2222111111111011, 0x2222222222222222,
    0x1222222222222222, 0x2121212122211122, 0x2121212121212121, 0x1112211210212222, 0x1111111111111111, 0x1111111111111111,
    0x1111111111111111, 0x2222222222222222, 0x2222222222222222, 0x2222222222222222, 0x2121212121212121, 0x2121212121212121,
    0x2121214444444021, 0x2121212121212121, 0x2121212121212121, 0x2121212121212121, 0x2212121212121211, 0x2121212121212121,
    0x2121212121212121, 0x2121212121212121, 0x2121212121212121, 0x2121212121212121, 0x2121212121212121, 0x1111111111111110,
    0x1111111111111111, 0x3001111111, 0x2222222222222222, 0x2222222222222222, 0x222222222, 0x4444444444444440,
    0x4444444444444444, 0x4044444444444444, 0x40440440, 0x3333333333333333, 0x3000033333333333, 0x333,
    0x0, 0x44444444444, 0x3333333333333333, 0x3333333333333333, 0x4444433333333333, 0x4444444444444444,
    0x3300005555555555, 0x3333333333333334, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x4004444444303333, 0x3344440443344444, 0x3003335555555555, 0x0, 0x3333333333333343,
    0x3333333333333333, 0x4444444444444444, 0x3330044444444444, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x4444444444333333, 0x34, 0x3333335555555555, 0x3333333333333333,
    0x4444433333333333, 0x40030000334444, 0x3333333333333333, 0x4444434444333333, 0x44444344434444, 0x0,
    0x3333333333333333, 0x444333333333, 0x33333333333, 0x3333333333333333, 0x333333033333333, 0x4444444440000000,
    0x3333333333333333, 0x3333333333333333, 0x4444443333333333, 0x4444444444444444, 0x4444444444444044, 0x4444444444444444,
    0x3333333333334444, 0x3333333333333333, 0x3333333333333333, 0x4434443333333333, 0x4444444444444444, 0x3333333344444443,
    0x5555555555004433, 0x3333333333333330, 0x3003333333304443, 0x3333333333333003, 0x3333330333333333, 0x4434003333000303,
    0x344400440044444, 0x3033000040000000, 0x5555555555004433, 0x403005555550033, 0x3000033333304440, 0x3333333333333003,
    0x3333330333333333, 0x4404003303303303, 0x44400440000444, 0x303333000000040, 0x5555555555000000, 0x433344,
    0x3033333333304440, 0x3333333333333033, 0x3333330333333333, 0x4434003333303303, 0x44404440444444, 0x3,
    0x5555555555004433, 0x4444443000000000, 0x3003333333304440, 0x3333333333333003, 0x3333330333333333, 0x4434003333303303,
    0x44400440044444, 0x3033000044400000, 0x5555555555004433, 0x55555530, 0x3300033333303400, 0x3303033000333303,
    0x3300033300033000, 0x4400003333333333, 0x44440444000444, 0x40000003, 0x5555555555000000, 0x555,
    0x3303333333344444, 0x3333333333333303, 0x3333330333333333, 0x4434003333333333, 0x44440444044444, 0x30033304400000,
    0x5555555555004433, 0x555555500000000, 0x3303333333304443, 0x3333333333333303, 0x3333330333333333, 0x4434003333303333,
    0x44440444044444, 0x330000004400000, 0x5555555555004433, 0x4330, 0x3303333333334444, 0x3333333333333303,
    0x3333333333333333, 0x4434433333333333, 0x344440444044444, 0x3555555543330000, 0x5555555555004433, 0x3333330555555555,
    0x3333333333304440, 0x3333330003333333, 0x3333333333333333, 0x30333333333033, 0x4000040003333333, 0x4444444404044444,
    0x5555555555000000, 0x4400, 0x3333333333333330, 0x3333333333333333, 0x3333333333333333, 0x44444443343,
    0x444444443333333, 0x5555555555, 0x0, 0x0, 0x3333033333030330, 0x3333333333333333,
    0x3333333330303333, 0x34444444443343, 0x444444403033333, 0x3333005555555555, 0x0, 0x0,
    0x3, 0x4400000000, 0x5555555555555555, 0x4400004040405555, 0x3333333033333333, 0x3333333333333333,
    0x3333333333333, 0x4444444444444440, 0x4443333344044444, 0x4444444044444444, 0x4444444444444444, 0x4444444444444,
    0x4000000, 0x0, 0x0, 0x0, 0x3333333333333333, 0x3333333333333333,
    0x4444433333333333, 0x3444444444444444, 0x5555555555, 0x4433334444333333, 0x3344444443344434, 0x3333333333344443,
    0x4344444444444433, 0x44445555555555, 0x1111111111111111, 0x1111111111111111, 0x10000010111111, 0x2222222222222222,
    0x2222222222222222, 0x2223022222222222, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x33330333333333, 0x33330303333333, 0x3333333333333333, 0x3333333333333333,
    0x33330333333333, 0x3333333333333333, 0x3333333333333333, 0x333333300333303, 0x3333333300333303, 0x3333333303333333,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333300333303, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x4440033333333333, 0x5555555000000000, 0x5555555555555, 0x3333333333333333, 0x0,
    0x1111111111111111, 0x1111111111111111, 0x1111111111111111, 0x1111111111111111, 0x1111111111111111, 0x22222200111111,
    0x3333333333333330, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x3003333333333333, 0x3333333333333333, 0x3333333333333336, 0x33333333333,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x5500033333333333, 0x333333335,
    0x3333333333333333, 0x3000000000444433, 0x3333333333333333, 0x44433, 0x3333333333333333, 0x4433,
    0x3303333333333333, 0x4403, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x4444444444443333,
    0x4444444444444444, 0x43000030004444, 0x5555555555, 0x5555555555, 0x4044400000000000, 0x5555555555,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x333333333,
    0x3333333334433333, 0x3333333333333333, 0x34333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x333333, 0x3333333333333333, 0x333333333333333, 0x444444444444, 0x444444444444,
    0x5555555555000000, 0x3333333333333333, 0x33333333333333, 0x33333, 0x3333333333333333, 0x3333333333333333,
    0x333333333333, 0x3333333333333333, 0x3333333333, 0x55555555555, 0x0, 0x0,
    0x3333333333333333, 0x444443333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x444444444433333,
    0x4444444444444444, 0x4004444444444444, 0x5555555555, 0x5555555555, 0x30000000, 0x4444444444444444,
    0x444444444444444, 0x0, 0x0, 0x0, 0x3333333333344444, 0x3333333333333333,
    0x3333333333333333, 0x4444444444443333, 0x3333333344444, 0x5555555555, 0x4444400000000000, 0x4444,
    0x3333333333333444, 0x3333333333333333, 0x3344444444444443, 0x3333335555555555, 0x3333333333333333, 0x3333333333333333,
    0x4444444444333333, 0x4444, 0x3333333333333333, 0x3333333333333333, 0x4444444444443333, 0x44444444,
    0x3330005555555555, 0x3333335555555555, 0x3333333333333333, 0x33333333333333, 0x21222222222, 0x1111111111111111,
    0x1111111111111111, 0x1110011111111111, 0x0, 0x4444444444440444, 0x3343333444444444, 0x34443343333,
    0x2222222222222222, 0x2222222222222222, 0x3333222222222222, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x2222233333333333, 0x2222222322222222, 0x2222222222222222, 0x3333322222222222, 0x3333333333333333, 0x3333333333333333,
    0x4444444444444444, 0x4444444444444444, 0x4444444444444444, 0x4444444444444444, 0x2121212121212121, 0x2121212121212121,
    0x2121212121212121, 0x2121212121212121, 0x2121212121212121, 0x2121212121212121, 0x2121212121212121, 0x2121212121212121,
    0x2121212121212121, 0x2122222222212121, 0x2121212121212121, 0x2121212121212121, 0x2121212121212121, 0x2121212121212121,
    0x2121212121212121, 0x2121212121212121, 0x1111111122222222, 0x11111100222222, 0x1111111122222222, 0x1111111122222222,
    0x11111100222222, 0x1010101022222222, 0x1111111122222222, 0x22222222222222, 0x1111111122222222, 0x1111111122222222,
    0x1111111122222222, 0x201111122022222, 0x1111122022200, 0x111122002222, 0x1111122222222, 0x1111122022200,
    0x66666666666, 0x0, 0x6000006600000000, 0x0, 0x0, 0x6000000000000000,
    0x0, 0x3000005555550035, 0x5555555555, 0x3333333333333, 0x0, 0x0,
    0x0, 0x4444444444444444, 0x4444444444444444, 0x4, 0x2211120010000100, 0x11111000102111,
    0x2011110101010000, 0x1122002333321111, 0x200002222100000, 0x5555555555555555, 0x5555555555555555, 0x5555555555555555,
    0x5555521555, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x0, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x0, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x0, 0x0, 0x0, 0x0, 0x5555555555555555, 0x5555555555555555,
    0x5555555555555555, 0x555555555555, 0x0, 0x0, 0x0, 0x0,
    0x5555550000000000, 0x5555555555555555, 0x0, 0x0, 0x0, 0x0,
    0x0, 0x0, 0x0, 0x5555555555000000, 0x5555555555555555, 0x5555,
    0x0, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x1111111111111111, 0x1111111111111111, 0x1111111111111111, 0x2222222222222222, 0x2222222222222222, 0x2222222222222222,
    0x1112121212211121, 0x1133222222122121, 0x2121212121212121, 0x2121212121212121, 0x2121212121212121, 0x2121212121212121,
    0x2121212121212121, 0x2121212121212121, 0x4212100000022121, 0x50000000002144, 0x2222222222222222, 0x2222222222222222,
    0x20000020222222, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3000000033333333, 0x4000000000000000,
    0x3333333333333333, 0x3333333, 0x333333303333333, 0x333333303333333, 0x333333303333333, 0x333333303333333,
    0x4444444444444444, 0x4444444444444444, 0x0, 0x0, 0x3000000000000000, 0x0,
    0x0, 0x0, 0x0, 0x0, 0x53300006, 0x0,
    0x4444445555555550, 0x3355500333330, 0x3333333333333330, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3330044003333333, 0x3333333333333330, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333033333333333, 0x3333333333300000, 0x3333333333333333, 0x3333333333333333, 0x3333333333333330,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x333333333333333, 0x555500,
    0x3333333333333333, 0x3333333333333333, 0x0, 0x0, 0x0, 0x3333333333333333,
    0x0, 0x0, 0x5555555555, 0x0, 0x5555555500000000, 0x5555555555555550,
    0x0, 0x0, 0x5555555555, 0x0, 0x0, 0x5555555555555550,
    0x0, 0x0, 0x0, 0x0, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x0, 0x0, 0x0, 0x0,
    0x3333333333333, 0x0, 0x0, 0x0, 0x0, 0x3333333333333333,
    0x3333333333333333, 0x33333333333333, 0x3333333333333, 0x3333333333333333, 0x335555555555, 0x0,
    0x2121212121212121, 0x2121212121212121, 0x4321212121212121, 0x3044444444440444, 0x2121212121212121, 0x4433212121212121,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x5555555555333333, 0x44,
    0x0, 0x3333333330000000, 0x2121212121212100, 0x2121212121212122, 0x2121212121212121, 0x2121212121212121,
    0x2121212121212121, 0x2112121222222223, 0x3212100321212121, 0x2121212121222121, 0x2111112121212121, 0x2121212121211111,
    0x21121211112121, 0x1212121202021, 0x0, 0x3333323332133300, 0x3333433334333433, 0x3333333333333333,
    0x4000044444333, 0x555555, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333,
    0x3333333333333344, 0x3333333333333333, 0x3333333333333333, 0x4444444444443333, 0x444444, 0x5555555555,
    0x4444444444444444, 0x4330300033333344, 0x3333335555555555, 0x3333333333333333, 0x44444444333333, 0x3333333333333333,
    0x4444444443333333, 0x4444, 0x3333333333333333, 0x3333333333333, 0x3333333333334444, 0x3333333333333333,
    0x3333333333333333, 0x4444444444444333, 0x3000000000000004, 0x5555555555, 0x3333333333433333, 0x333335555555555,
    0x3333333333333333, 0x3333333333333333, 0x4444444333333333, 0x4444444, 0x44333333334333, 0x5555555555,
    0x3333333333333333, 0x3344430003333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x4433333443344434,
    0x343, 0x33300000000000, 0x4444433333333333, 0x4433300, 0x333333003333330, 0x3333330,
    0x333333303333333, 0x2222222222222222, 0x2222222222222222, 0x3333022222222222, 0x3222222222, 0x2222222222222222,
    0x2222222222222222, 0x2222222222222222, 0x2222222222222222, 0x2222222222222222, 0x3333333333333333, 0x3333333333333333,
    0x44044444444333, 0x5555555555, 0x3333333333333333, 0x3333333333333333, 0x3333, 0x3333333333333333,
    0x3333300003333333, 0x3333333333333333, 0x3333333333333333, 0x333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x33333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333,
    0x0, 0x0, 0x2222222, 0x3430000022222000, 0x3333330333333333, 0x303333303333333,
    0x3333333333033033, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x33, 0x0, 0x3333333333333000, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x33333333333333, 0x0, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333300, 0x3333333333333333, 0x3333333333333333,
    0x33333333, 0x0, 0x0, 0x333333333333, 0x4444444444444444, 0x0,
    0x4444444444444444, 0x0, 0x0, 0x0, 0x0, 0x3333333333033333,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333, 0x0, 0x5555555555, 0x1111111111111110, 0x11111111111,
    0x2222222222222220, 0x22222222222, 0x3333333333000000, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x333333333333333, 0x3333330033333300, 0x3330033333300, 0x0, 0x0,
    0x3330333333333333, 0x3333333333333333, 0x3333333303333333, 0x3033033333333333, 0x33333333333333, 0x33333333333333,
    0x0, 0x0, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x33333333333, 0x5555555550000000, 0x5555555555555555,
    0x5555555555555555, 0x5555, 0x5555555555555555, 0x5555555555555555, 0x5555555555555555, 0x555555555,
    0x550000000000, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x0, 0x40000000000000, 0x3333333333333333, 0x3333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3, 0x5555555555555554, 0x555555555555, 0x3333333333333333, 0x3333333333333333,
    0x3330000000005555, 0x3333333333333333, 0x53333333353, 0x3333333333333333, 0x3333333333333333, 0x44444333333,
    0x3333333333333333, 0x33333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333300003333, 0x555550,
    0x0, 0x0, 0x1111111111111111, 0x1111111111111111, 0x2222222211111111, 0x2222222222222222,
    0x2222222222222222, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x33333333333333,
    0x5555555555, 0x1111111111111111, 0x1111111111111111, 0x2222222200001111, 0x2222222222222222, 0x222222222222,
    0x3333333333333333, 0x3333333333333333, 0x33333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333, 0x1111011111111111, 0x1111011111111111, 0x2222222220110111, 0x2222222222222022, 0x2202222222022,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333, 0x3333333333333333, 0x333333, 0x33333333, 0x0,
    0x3333333330333333, 0x3333333333333333, 0x3333333333333333, 0x33333333303, 0x0, 0x0,
    0x0, 0x0, 0x3333330300333333, 0x3333333333333333, 0x3333333333333333, 0x3003000330333333,
    0x3333333333333333, 0x5555555500333333, 0x3333333333333333, 0x5555555003333333, 0x3333333333333333, 0x333333333333333,
    0x5555555550000000, 0x0, 0x0, 0x0, 0x3333333333333333, 0x5555500000330333,
    0x3333333333333333, 0x555555333333, 0x3333333333333333, 0x3333333333, 0x0, 0x0,
    0x0, 0x0, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3355000033333333,
    0x5555555555555555, 0x5555555555555500, 0x5555555555555555, 0x5555555555555555, 0x4444000004404443, 0x3333333033303333,
    0x3333333333333333, 0x4000044400333333, 0x555555555, 0x0, 0x3333333333333333, 0x553333333333333,
    0x3333333333333333, 0x5553333333333333, 0x0, 0x0, 0x3333333033333333, 0x3333333333333333,
    0x5555500004433333, 0x0, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x333333,
    0x3333333333333333, 0x5555555500333333, 0x3333333333333333, 0x5555555500000333, 0x3333333333333333, 0x33,
    0x5555555000000000, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x333333333, 0x0,
    0x0, 0x0, 0x1111111111111111, 0x1111111111111111, 0x1111111111111111, 0x111,
    0x2222222222222222, 0x2222222222222222, 0x2222222222222222, 0x5555550000000222, 0x3333333333333333, 0x3333333333333333,
    0x44443333, 0x5555555555, 0x3333335555555555, 0x1111111111111111, 0x3044444000111111, 0x2222222222222222,
    0x222222, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x0, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x0, 0x0, 0x5555555555555555, 0x555555555555555, 0x3333333333333333, 0x3333333333333333,
    0x4403333333333, 0x33, 0x33300, 0x0, 0x0, 0x4444000000000000,
    0x3333333333333333, 0x5553333333333333, 0x35555555, 0x3333333333333333, 0x4444444444333333, 0x55554,
    0x0, 0x3333333333333333, 0x444433, 0x0, 0x0, 0x3333333333333333,
    0x555555533333, 0x0, 0x3333333333333333, 0x3333333, 0x3333333333333444, 0x3333333333333333,
    0x3333333333333333, 0x4444444433333333, 0x4444444, 0x5555555555555500, 0x5555555555555555, 0x4000000000344334,
    0x3333333333333444, 0x3333333333333333, 0x3333333333333333, 0x44444444444, 0x400, 0x3333333333333333,
    0x333333333, 0x5555555555, 0x3333333333333444, 0x3333333333333333, 0x4444444443333333, 0x5555555555044444,
    0x34430000, 0x3333333333333333, 0x3333333333333333, 0x3004333, 0x3333333333333444, 0x3333333333333333,
    0x3333333333333333, 0x4444444444444333, 0x4404444000033334, 0x3035555555555, 0x5555555555555550, 0x55555,
    0x3333333333333333, 0x3333333333333033, 0x4444333333333333, 0x3400000044444444, 0x43, 0x0,
    0x0, 0x0, 0x3033330303333333, 0x3033333333333333, 0x333333333, 0x3333333333333333,
    0x3333333333333333, 0x4333333333333333, 0x44444444444, 0x5555555555, 0x3003333333304444, 0x3333333333333003,
    0x3333330333333333, 0x4434403333303303, 0x44400440044444, 0x3330000040000003, 0x4444444004433, 0x44444,
    0x300303333333333, 0x3333333333333333, 0x3333333333333333, 0x4444444430333333, 0x4444044440400404, 0x3434,
    0x440, 0x0, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x4444444444433333,
    0x33334444444, 0x3400005555555555, 0x33, 0x0, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x4444444444444444, 0x30334444, 0x5555555555, 0x0, 0x0,
    0x3333333333333333, 0x3333333333333333, 0x4333333333333333, 0x4444444400444444, 0x4, 0x44333300000000,
    0x0, 0x0, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x4444444444444444,
    0x30004, 0x5555555555, 0x0, 0x0, 0x3333333333333333, 0x3333333333333333,
    0x4444433333333333, 0x344444444, 0x5555555555, 0x5555555555555555, 0x5555, 0x0,
    0x3333333333333333, 0x4440033333333333, 0x444444444444, 0x555555555555, 0x3333333, 0x0,
    0x0, 0x0, 0x3333333333333333, 0x3333333333333333, 0x4444333333333333, 0x44444444444,
    0x0, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x1111111111111111, 0x1111111111111111, 0x2222222222222222, 0x2222222222222222, 0x5555555555555555, 0x3000000000000555,
    0x3333003003333333, 0x3333333303303333, 0x3333333333333333, 0x3444400440444444, 0x4434, 0x5555555555,
    0x0, 0x0, 0x0, 0x0, 0x3333330033333333, 0x3333333333333333,
    0x3333333333333333, 0x4444440044444443, 0x43034, 0x0, 0x3333344444444443, 0x3333333333333333,
    0x3333333333333333, 0x444434444444333, 0x40000000, 0x3333444444444443, 0x3333333333333333, 0x3333333333333333,
    0x4444443333333333, 0x30004444444444, 0x0, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x333333333, 0x0, 0x0, 0x0, 0x0,
    0x3333333333333333, 0x3333333333333333, 0x3, 0x5555555555, 0x3333330333333333, 0x3333333333333333,
    0x4333333333333333, 0x4444444404444444, 0x3, 0x5555555555555555, 0x5555555555555, 0x3333333333333300,
    0x3333333333333333, 0x4444444444444400, 0x4444444044444444, 0x4444444, 0x0, 0x0,
    0x0, 0x0, 0x3333303303333333, 0x3333333333333333, 0x3333333333333333, 0x4044040004444443,
    0x43444444, 0x5555555555, 0x3333330330333333, 0x3333333333333333, 0x444443333333333, 0x344444044,
    0x5555555555, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x0, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x3333333333333333, 0x4444333, 0x3333333333334344, 0x3333333333333303, 0x3333333333333333, 0x4400044444443333,
    0x444, 0x45555555555, 0x0, 0x0, 0x0, 0x0,
    0x0, 0x3, 0x5555555555555555, 0x55555, 0x0, 0x0,
    0x3333333333333333, 0x3333333333, 0x0, 0x0, 0x0, 0x0,
    0x0, 0x0, 0x5555555555555555, 0x5555555555555555, 0x5555555555555555, 0x5555555555555555,
    0x5555555555555555, 0x5555555555555555, 0x555555555555555, 0x0, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x3333, 0x0, 0x0, 0x0,
    0x0, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x0,
    0x4444444443333334, 0x444444, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x3333333, 0x0, 0x0, 0x0,
    0x3333333333333333, 0x4433333333333333, 0x4444444444444444, 0x5555555555, 0x0, 0x0,
    0x0, 0x0, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x333333333,
    0x3333333333333333, 0x333333333333333, 0x5555555555, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x333333333333333, 0x5555555555, 0x3333333333333333, 0x33333333333333, 0x44444,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x4444444, 0x3333, 0x5555505555555555,
    0x3333333333333055, 0x3330000033333333, 0x3333333333333333, 0x0, 0x0, 0x0,
    0x0, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x0, 0x0, 0x3333333333333333, 0x3333333333333333, 0x3333333333333, 0x5555555555,
    0x0, 0x0, 0x0, 0x0, 0x1111111111111111, 0x1111111111111111,
    0x2222222222222222, 0x2222222222222222, 0x5555555555555555, 0x5555555, 0x0, 0x0,
    0x0, 0x0, 0x0, 0x0, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x4000033333333333, 0x4444444444444443, 0x4444444444444444, 0x4444444444444444,
    0x4000000044444444, 0x3333333333333444, 0x0, 0x0, 0x0, 0x0,
    0x43033, 0x44, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x33333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x333333, 0x0, 0x3000000000000000,
    0x333333333, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x0, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x0, 0x0, 0x0, 0x330333333303333, 0x3333333333333333, 0x3333333333333333,
    0x333, 0x300, 0x0, 0x300333, 0x33330000, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x33333333333, 0x3333333333333, 0x333333333, 0x440003333333333,
    0x0, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x0, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x0, 0x5555555555, 0x4444444444444444, 0x4444444444444444, 0x44444444444444, 0x4444444444444444,
    0x4444444, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x0, 0x0, 0x0, 0x0, 0x4440004444400000, 0x4444400000000444,
    0x444444400444, 0x0, 0x44440000000000, 0x0, 0x0, 0x0,
    0x0, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x44400, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x0, 0x0, 0x5555555555555555, 0x5555, 0x5555555555555555, 0x5555,
    0x0, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x5555555555555555, 0x555555555, 0x1111111111111111, 0x2222221111111111, 0x2222222222222222, 0x1111111111112222,
    0x2211111111111111, 0x2222222222022222, 0x1111111122222222, 0x1111111111111111, 0x2222222222222211, 0x1101222222222222,
    0x1101111001100100, 0x2220202222111111, 0x2222222222202222, 0x1111111111111111, 0x2222221111111111, 0x2222222222222222,
    0x1110011110112222, 0x2201111111011111, 0x2222222222222222, 0x111101122222222, 0x1111110001011111, 0x2222222222222201,
    0x1111222222222222, 0x1111111111111111, 0x2222222222111111, 0x2222222222222222, 0x1111111111111111, 0x2222221111111111,
    0x2222222222222222, 0x1111111111112222, 0x2211111111111111, 0x2222222222222222, 0x1111111122222222, 0x1111111111111111,
    0x2222222222222211, 0x1111222222222222, 0x1111111111111111, 0x2222222222111111, 0x2222222222222222, 0x1111111111111111,
    0x2222221111111111, 0x2222222222222222, 0x1111111100222222, 0x1111111111111111, 0x2222222222222201, 0x2222022222222222,
    0x1111111111111122, 0x2222011111111111, 0x2222222222222222, 0x1111222222022222, 0x1111111111111111, 0x2222222222011111,
    0x222222222222222, 0x1111111111222222, 0x111111111111111, 0x2222222222222222, 0x2222220222222222, 0x1111111111111111,
    0x2222220111111111, 0x2222222222222222, 0x5500212222220222, 0x5555555555555555, 0x5555555555555555, 0x5555555555555555,
    0x4444444444444444, 0x4444444444444444, 0x4444444444444444, 0x4444400004444444, 0x4444444444444444, 0x4444444444444444,
    0x4444444444444, 0x400000, 0x40000, 0x4444400000000000, 0x4444444444444440, 0x0,
    0x0, 0x0, 0x0, 0x0, 0x2222232222222222, 0x222222222222222,
    0x22222200000, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x4444444404444444, 0x4444400444444444, 0x44444044044, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x33333333333333, 0x0, 0x4000000000000000, 0x0, 0x0, 0x0,
    0x0, 0x0, 0x0, 0x0, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333, 0x33333334444444, 0x300005555555555, 0x0, 0x0, 0x0,
    0x0, 0x3333333333333333, 0x433333333333333, 0x0, 0x3333333333333333, 0x3333333333333333,
    0x4444333333333333, 0x5555555555, 0x0, 0x0, 0x0, 0x0,
    0x0, 0x3333333333333333, 0x4444333333333333, 0x5555555555, 0x0, 0x0,
    0x0, 0x0, 0x0, 0x3333333333333333, 0x4433333333333333, 0x55555555553,
    0x0, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x330333303333333, 0x333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x5555555550033333, 0x4444444, 0x0, 0x0, 0x1111111111111111, 0x1111111111111111,
    0x2222222222222211, 0x2222222222222222, 0x344444442222, 0x5555555555, 0x0, 0x0,
    0x0, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x0, 0x5555555555555550, 0x5555555555555555, 0x5555555555555555, 0x5550555555555555, 0x55550,
    0x0, 0x0, 0x0, 0x0, 0x5555555555555550, 0x5555555555555555,
    0x5055555555555555, 0x55555555555555, 0x0, 0x0, 0x0, 0x0,
    0x3333333333303333, 0x3333333333333333, 0x3333333030030330, 0x303033330333, 0x3330303030000300, 0x3030303030030330,
    0x3333033330030330, 0x303333033330333, 0x3333303333333333, 0x333333333333, 0x3333303333303330, 0x333333333333,
    0x0, 0x0, 0x0, 0x0, 0x5555555555555, 0x0,
    0x0, 0x0, 0x0, 0x0, 0x0, 0x0,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x0, 0x0, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x33333333333333,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x33, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x3, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x33333333333333, 0x0, 0x0,
    0x3333333333333333, 0x33333333333333, 0x0, 0x0, 0x0, 0x0,
    0x0, 0x0, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x33333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333, 0x3333333333333333,
    0x3333333333333333, 0x0, 0x0, 0x0, 0x0, 0x0,
};

}  // namespace detail

/// The class of a code point. Any value is allowed; beyond U+10FFFF it is `other`.
[[nodiscard]] constexpr char_class class_of(char32_t c) {
    if (c >= detail::class_limit) return c >= 0xE0100 && c < 0xE01F0 ? char_class::mark : char_class::other;
    const std::size_t word = detail::class_blocks[c / 128] * std::size_t{8} + c % 128 / 16;
    return static_cast<char_class>(detail::class_rows[word] >> (c % 16 * 4) & 15);
}

PHI4FLASH_END

// ---- phi4flash/text/utf8.hpp ---------------------------------------------------------------------------------------------
/// UTF-8: decoding that never reads out of bounds and replaces each maximal invalid subpart by U+FFFD, as the Unicode
/// standard recommends (16.0, section 3.9, "U+FFFD Substitution of Maximal Subparts").

#include <string>
PHI4FLASH_BEGIN

inline constexpr char32_t replacement_character = 0xFFFD;

/// How a sequence of bytes ended.
enum class utf8_state : std::uint8_t {
    complete,   ///< a well-formed code point
    invalid,    ///< bytes that cannot begin or continue one
    truncated,  ///< the text ended inside a sequence that was well-formed so far
};

/// One decoded step: a code point (U+FFFD if not complete) and the bytes it took, at least one.
struct utf8_step {
    char32_t code_point = replacement_character;
    std::uint32_t size = 1;
    utf8_state state = utf8_state::invalid;
};

namespace detail {

/// decode_utf8 for every case; kept out of line so that the common ones stay small.
[[nodiscard]] inline utf8_step decode_utf8_any(const char* p, const char* end) {
    const auto byte = [p](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(p[i])); };
    const auto left = static_cast<std::size_t>(end - p);
    const std::uint32_t lead = byte(0);
    if (lead < 0x80) return {lead, 1, utf8_state::complete};
    if (lead < 0xC2 || lead > 0xF4) return {};
    if (left < 2) return {replacement_character, 1, utf8_state::truncated};
    const std::uint32_t second = byte(1);
    if (lead < 0xE0) {
        if ((second & 0xC0) != 0x80) return {};
        return {(lead & 0x1F) << 6 | (second & 0x3F), 2, utf8_state::complete};
    }
    // Four leads narrow the second byte: no overlong forms, no surrogates, nothing beyond U+10FFFF.
    const std::uint32_t lowest = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const std::uint32_t highest = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (second < lowest || second > highest) return {};
    if (left < 3) return {replacement_character, 2, utf8_state::truncated};
    const std::uint32_t third = byte(2);
    if ((third & 0xC0) != 0x80) return {replacement_character, 2, utf8_state::invalid};
    if (lead < 0xF0) return {(lead & 0x0F) << 12 | (second & 0x3F) << 6 | (third & 0x3F), 3, utf8_state::complete};
    if (left < 4) return {replacement_character, 3, utf8_state::truncated};
    const std::uint32_t fourth = byte(3);
    if ((fourth & 0xC0) != 0x80) return {replacement_character, 3, utf8_state::invalid};
    return {(lead & 0x07) << 18 | (second & 0x3F) << 12 | (third & 0x3F) << 6 | (fourth & 0x3F), 4, utf8_state::complete};
}

}  // namespace detail

/// Decodes the code point, or the maximal invalid subpart, at `p`. Needs p < end; reads only [p, end).
[[nodiscard]] inline utf8_step decode_utf8(const char* p, const char* end) {
    const auto byte = [p](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(p[i])); };
    const std::uint32_t lead = byte(0);
    // Nearly all text outside ASCII: two bytes, and three with a lead that does not narrow the second byte.
    if (lead >= 0xC2 && lead < 0xE0 && end - p >= 2 && (byte(1) & 0xC0) == 0x80)
        return {(lead & 0x1F) << 6 | (byte(1) & 0x3F), 2, utf8_state::complete};
    if (lead > 0xE0 && lead < 0xF0 && lead != 0xED && end - p >= 3 && (byte(1) & 0xC0) == 0x80 && (byte(2) & 0xC0) == 0x80)
        return {(lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3, utf8_state::complete};
    return detail::decode_utf8_any(p, end);
}

/// Appends the UTF-8 form of a code point; surrogates and values beyond U+10FFFF become U+FFFD.
inline void append_utf8(char32_t c, std::string& out) {
    if (c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) c = replacement_character;
    const auto put = [&out](char32_t byte) { out.push_back(static_cast<char>(byte)); };
    if (c < 0x80) return put(c);
    if (c < 0x800) return put(0xC0 | c >> 6), put(0x80 | (c & 0x3F));
    if (c < 0x10000) return put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
    put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F)), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
}

/// Bytes of the longest well-formed prefix; `text.size()` if all of it is.
[[nodiscard]] inline std::size_t valid_utf8_prefix(std::string_view text) {
    const char* p = text.data();
    const char* const end = p + text.size();
    while (p < end) {
        std::uint64_t eight = 0;
        if (end - p >= 8 && (std::memcpy(&eight, p, 8), (eight & 0x8080808080808080u) == 0)) {
            p += 8;
            continue;
        }
        const utf8_step step = decode_utf8(p, end);
        if (step.state != utf8_state::complete) break;
        p += step.size;
    }
    return static_cast<std::size_t>(p - text.data());
}

/// Appends `bytes` as well-formed UTF-8: one U+FFFD for each maximal invalid subpart, everything else as it is.
inline void append_lossy_utf8(std::string_view bytes, std::string& out) {
    while (!bytes.empty()) {
        const std::size_t good = valid_utf8_prefix(bytes);
        out.append(bytes.substr(0, good));
        bytes.remove_prefix(good);
        if (bytes.empty()) return;
        out.append("\xEF\xBF\xBD");
        bytes.remove_prefix(decode_utf8(bytes.data(), bytes.data() + bytes.size()).size);
    }
}

/// Bytes at the end (0 to 3) that later bytes could still complete to a code point.
[[nodiscard]] inline std::size_t incomplete_utf8_tail(std::string_view bytes) {
    const char* const end = bytes.data() + bytes.size();
    for (std::size_t back = 1; back <= 3 && back <= bytes.size(); ++back) {
        if ((static_cast<unsigned char>(end[-static_cast<std::ptrdiff_t>(back)]) & 0xC0) == 0x80) continue;
        const utf8_step step = decode_utf8(end - back, end);
        return step.state == utf8_state::truncated && step.size == back ? back : 0;
    }
    return 0;
}

PHI4FLASH_END

PHI4FLASH_BEGIN

/// The patterns, named after the vocabulary that brought each. `qwen2` is cl100k with single digits.
enum class split_pattern : std::uint8_t { gpt2, cl100k, qwen2, o200k };

/// The regular expression of a pattern, as tokenizer.json spells it.
[[nodiscard]] constexpr std::string_view regex_of(split_pattern p) {
    constexpr const char* cl100k =
        R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
    constexpr const char* qwen2 =
        R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
    constexpr const char* o200k =
        R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
        R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
        R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
    switch (p) {
        case split_pattern::gpt2:
            return R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
        case split_pattern::cl100k:
            return cl100k;
        case split_pattern::qwen2:
            return qwen2;
        case split_pattern::o200k:
            break;
    }
    return o200k;
}

namespace detail {

/// Sets of classes, one bit each. `multi` marks a byte that begins a longer sequence: it is in no set.
using class_set = std::uint32_t;
[[nodiscard]] constexpr class_set set_of(char_class c) { return class_set{1} << static_cast<unsigned>(c); }

inline constexpr class_set upper_bit = set_of(char_class::upper);
inline constexpr class_set lower_bit = set_of(char_class::lower);
inline constexpr class_set letter_bit = set_of(char_class::letter);
inline constexpr class_set mark_bit = set_of(char_class::mark);
inline constexpr class_set newline_bit = set_of(char_class::newline);
inline constexpr class_set other_bit = set_of(char_class::other);
inline constexpr class_set space_bit = set_of(char_class::space);

inline constexpr class_set letters_set = upper_bit | lower_bit | letter_bit;  // \p{L}
inline constexpr class_set numbers_set = set_of(char_class::number);          // \p{N}
inline constexpr class_set spaces_set = space_bit | newline_bit;              // \s
inline constexpr class_set symbols_set = other_bit | mark_bit;                // [^\s\p{L}\p{N}]
inline constexpr class_set prefix_set = symbols_set | space_bit;              // [^\r\n\p{L}\p{N}]
inline constexpr class_set head_set = upper_bit | letter_bit | mark_bit;      // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
inline constexpr class_set tail_set = lower_bit | letter_bit | mark_bit;      // [\p{Ll}\p{Lm}\p{Lo}\p{M}]

/// Class bit of each byte; 0 for bytes of longer sequences.
struct byte_sets {
    std::uint8_t of[256] = {};
    constexpr byte_sets() {
        for (unsigned b = 0; b < 0x80; ++b) of[b] = static_cast<std::uint8_t>(set_of(class_of(b)));
    }
};
inline constexpr byte_sets byte_set{};

/// A character of the text: the bit of its class and its size.
struct char_step {
    class_set bit = 0;
    std::uint32_t size = 1;
};

/// Needs p < end. Invalid bytes are U+FFFD, whose class is `other`.
[[nodiscard]] inline char_step char_at(const char* p, const char* end) {
    const std::uint8_t bit = byte_set.of[static_cast<unsigned char>(*p)];
    if (bit != 0) return {bit, 1};
    const utf8_step step = decode_utf8(p, end);
    return {set_of(class_of(step.code_point)), step.size};
}

/// Past the longest run of characters of a set.
template <class_set Set>
[[nodiscard]] inline const char* skip(const char* p, const char* end) {
    while (p < end) {
        const std::uint8_t bit = byte_set.of[static_cast<unsigned char>(*p)];
        if ((bit & Set) != 0) {
            ++p;
        } else if (bit != 0) {
            return p;
        } else {
            const utf8_step step = decode_utf8(p, end);
            if ((set_of(class_of(step.code_point)) & Set) == 0) return p;
            p += step.size;
        }
    }
    return p;
}

/// Past `'s|'t|'re|'ve|'m|'ll|'d` at p, or p. Case-insensitive, s is also U+017F, the long s.
template <bool FoldCase>
[[nodiscard]] inline const char* skip_contraction(const char* p, const char* end) {
    if (end - p < 2 || *p != '\'') return p;
    const auto letter = [p](std::ptrdiff_t i) { return FoldCase && p[i] >= 'A' && p[i] <= 'Z' ? p[i] + ('a' - 'A') : +p[i]; };
    switch (letter(1)) {
        case 's':
        case 't':
        case 'm':
        case 'd':
            return p + 2;
        case 'r':
        case 'v':
            return end - p > 2 && letter(2) == 'e' ? p + 3 : p;
        case 'l':
            return end - p > 2 && letter(2) == 'l' ? p + 3 : p;
        default:
            break;
    }
    return FoldCase && end - p > 2 && p[1] == '\xC5' && p[2] == '\xBF' ? p + 3 : p;
}

/// Up to `Most` numbers at p.
template <int Most>
[[nodiscard]] inline const char* skip_numbers(const char* p, const char* end) {
    for (int i = 0; i < Most && p < end; ++i) {
        const char_step c = char_at(p, end);
        if (c.bit != numbers_set) break;
        p += c.size;
    }
    return p;
}

/// White space at p (one character at least): `\s*[\r\n]+` if Newlines, else `\s+(?!\S)`, else `\s+`.
template <bool Newlines>
[[nodiscard]] inline const char* skip_space(const char* p, const char* end) {
    const char* const begin = p;
    const char* last = p;  // start of the run's last character
    const char* after_newline = nullptr;
    while (p < end) {
        const char_step c = char_at(p, end);
        if ((c.bit & spaces_set) == 0) break;
        last = p;
        p += c.size;
        if (c.bit == newline_bit) after_newline = p;
    }
    if (Newlines && after_newline != nullptr) return after_newline;
    // The lookahead gives the last space back to what follows, unless it is all there is.
    return p == end || last == begin ? p : last;
}

/// A word of o200k: `head* tail+`, else (only if `head_alone`) `head+`; then a contraction. nullptr if neither matches.
[[nodiscard]] inline const char* skip_cased_word(const char* p, const char* end, bool head_alone) {
    const char* const begin = p;
    const char* after_both = nullptr;  // past the last character of the head that could be a tail as well
    while (p < end) {
        const unsigned char byte = static_cast<unsigned char>(*p);
        if (byte < 0x80) {
            if (byte_set.of[byte] != upper_bit) break;
            ++p;
            continue;
        }
        const utf8_step step = decode_utf8(p, end);
        const class_set bit = set_of(class_of(step.code_point));
        if ((bit & head_set) == 0) break;
        p += step.size;
        if ((bit & tail_set) != 0) after_both = p;
    }
    const char* const tail_end = skip<tail_set>(p, end);
    if (tail_end != p) return skip_contraction<true>(tail_end, end);
    if (after_both != nullptr) return skip_contraction<true>(after_both, end);
    return head_alone && p != begin ? skip_contraction<true>(p, end) : nullptr;
}

[[nodiscard]] inline const char* next_o200k(const char* p, const char* end) {
    const char_step first = char_at(p, end);
    const char* const rest = p + first.size;
    if ((first.bit & letters_set) != 0) return skip_cased_word(p, end, true);
    if (first.bit == numbers_set) return skip_numbers<2>(rest, end);
    if ((first.bit & prefix_set) != 0 && rest < end) {
        // A mark may be the prefix or part of the word, so its one-character word comes before heads without a tail.
        if (const char* const word = skip_cased_word(rest, end, first.bit != mark_bit)) return word;
    }
    if (first.bit == mark_bit) return skip_cased_word(p, end, true);
    if (first.bit == other_bit || *p == ' ') {
        const char* const symbols = skip<symbols_set>(rest, end);
        if (symbols != rest || *p != ' ') {
            p = symbols;
            while (p < end && (*p == '\r' || *p == '\n' || *p == '/')) ++p;
            return p;
        }
    }
    return skip_space<true>(p, end);
}

template <int Digits>
[[nodiscard]] inline const char* next_cl100k(const char* p, const char* end) {
    if (const char* const q = skip_contraction<true>(p, end); q != p) return q;
    const char_step first = char_at(p, end);
    const char* const rest = p + first.size;
    if ((first.bit & letters_set) != 0) return skip<letters_set>(rest, end);
    if (first.bit == numbers_set) return skip_numbers<Digits - 1>(rest, end);
    if ((first.bit & prefix_set) != 0) {
        if (const char* const word = skip<letters_set>(rest, end); word != rest) return word;
    }
    if ((first.bit & symbols_set) != 0 || *p == ' ') {
        const char* const symbols = skip<symbols_set>(rest, end);
        if (symbols != rest || *p != ' ') {
            p = symbols;
            while (p < end && (*p == '\r' || *p == '\n')) ++p;
            return p;
        }
    }
    return skip_space<true>(p, end);
}

[[nodiscard]] inline const char* next_gpt2(const char* p, const char* end) {
    if (const char* const q = skip_contraction<false>(p, end); q != p) return q;
    const char* const start = *p == ' ' && end - p > 1 ? p + 1 : p;
    const char_step first = char_at(start, end);
    if ((first.bit & letters_set) != 0) return skip<letters_set>(start + first.size, end);
    if (first.bit == numbers_set) return skip<numbers_set>(start + first.size, end);
    if ((first.bit & symbols_set) != 0) return skip<symbols_set>(start + first.size, end);
    return skip_space<false>(p, end);
}

}  // namespace detail

/// End of the piece that starts at p. Needs p < end; the result is > p. Any bytes are allowed: invalid ones count as U+FFFD.
template <split_pattern Pattern>
[[nodiscard]] inline const char* next_piece(const char* p, const char* end) {
    if constexpr (Pattern == split_pattern::gpt2) return detail::next_gpt2(p, end);
    if constexpr (Pattern == split_pattern::cl100k) return detail::next_cl100k<3>(p, end);
    if constexpr (Pattern == split_pattern::qwen2) return detail::next_cl100k<1>(p, end);
    if constexpr (Pattern == split_pattern::o200k) return detail::next_o200k(p, end);
}

/// Calls `sink(piece)` for each piece of `text`, in order; together they are the text.
template <split_pattern Pattern, class Sink>
inline void for_each_piece(std::string_view text, Sink&& sink) {
    const char* p = text.data();
    const char* const end = p + text.size();
    while (p < end) {
        const char* const q = next_piece<Pattern>(p, end);
        sink(std::string_view(p, static_cast<std::size_t>(q - p)));
        p = q;
    }
}

/// The same with the pattern chosen at run time.
template <class Sink>
inline void for_each_piece(split_pattern pattern, std::string_view text, Sink&& sink) {
    switch (pattern) {
        case split_pattern::gpt2:
            return for_each_piece<split_pattern::gpt2>(text, sink);
        case split_pattern::cl100k:
            return for_each_piece<split_pattern::cl100k>(text, sink);
        case split_pattern::qwen2:
            return for_each_piece<split_pattern::qwen2>(text, sink);
        case split_pattern::o200k:
            return for_each_piece<split_pattern::o200k>(text, sink);
    }
}

PHI4FLASH_END

PHI4FLASH_BEGIN

/// One added token, as in tokenizer.json.
struct added_token {
    std::uint32_t id = no_token;
    std::string content;
    bool special = false;     ///< left out when special tokens are skipped on decoding
    bool lstrip = false;      ///< swallows white space before it
    bool rstrip = false;      ///< swallows white space after it
    bool normalized = false;  ///< found in a second pass, after the tokens that are not
};

/// Which added tokens a text may spell.
enum class marker_policy : std::uint8_t {
    parse,              ///< all of them: for a prompt that the program wrote
    plain_text,         ///< none: for text of a user or a document
    parse_not_special,  ///< those that are not `special`; the others are plain text
};

namespace detail {

/// White space (the property) at the start of the text, in bytes.
[[nodiscard]] inline std::size_t leading_space(std::string_view text) {
    const char* const end = text.data() + text.size();
    return static_cast<std::size_t>(skip<spaces_set>(text.data(), end) - text.data());
}

/// White space at the end of the text, in bytes.
[[nodiscard]] inline std::size_t trailing_space(std::string_view text) {
    std::size_t size = text.size();
    while (size != 0) {
        std::size_t start = size - 1;
        while (start != 0 && size - start < 4 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
        const char_step c = char_at(text.data() + start, text.data() + size);
        if ((c.bit & spaces_set) == 0 || start + c.size != size) break;
        size = start;
    }
    return text.size() - size;
}

/// A set of markers to look for in one pass: leftmost first, longest of those.
class marker_set {
public:
    void build(const std::vector<added_token>& tokens, bool normalized) {
        std::vector<std::uint32_t> sorted;
        for (std::uint32_t i = 0; i < tokens.size(); ++i) {
            // add() cannot fail: the tokenizer's builder has checked the contents.
            if (tokens[i].normalized == normalized && contents_.add(i, tokens[i].content)) sorted.push_back(i);
        }
        std::sort(sorted.begin(), sorted.end(),
                  [&](std::uint32_t a, std::uint32_t b) { return tokens[a].content < tokens[b].content; });
        trie_.build(contents_, sorted);
        for (const std::uint32_t i : sorted) {
            const auto byte = static_cast<unsigned char>(tokens[i].content.front());
            if (!starts_[byte]) ++firsts_;
            starts_[byte] = true;
            first_ = byte;
        }
    }

    [[nodiscard]] bool empty() const { return firsts_ == 0; }

    /// Position in the list given to `build` of the first marker in [p, end), or no_token; `p` moves to its start, or to `end`.
    [[nodiscard]] std::uint32_t find(const char*& p, const char* end) const {
        for (; p < end; ++p) {
            if (firsts_ == 1) {
                p = static_cast<const char*>(std::memchr(p, first_, static_cast<std::size_t>(end - p)));
                if (p == nullptr) break;
            } else if (!starts_[static_cast<unsigned char>(*p)]) {
                continue;
            }
            const std::uint32_t found = trie_.longest(contents_, p, static_cast<std::size_t>(end - p));
            if (found != no_token) return found;
        }
        p = end;
        return no_token;
    }

private:
    vocabulary contents_;
    byte_trie trie_;
    bool starts_[256] = {};
    int firsts_ = 0;  // different first bytes
    unsigned char first_ = 0;
};

}  // namespace detail

PHI4FLASH_END

// ---- phi4flash/text/bpe.hpp ----------------------------------------------------------------------------------------------
/// Byte-pair encoding of one piece: the exact result of merging, again and again, the pair of lowest rank (the leftmost of equals).
///
/// For vocabularies whose merges only use parts that earlier merges made (all published ones), the result is found without merging:
/// it is the one sequence of tokens whose neighbours would not have merged into each other earlier. Longest matches are tried
/// first, shorter ones if the neighbours do not fit; a place that was left once is never entered again, so the work is linear in
/// the piece. Source: the idea of G. Neubeck and H. van Antwerpen, "So many tokens, so little time", github.blog, 2024. Other
/// vocabularies take the ordinary way with a heap, O(n log n).

#include <numeric>
PHI4FLASH_BEGIN

/// A rule: two neighbouring tokens become one. Its rank is its position in the list.
struct merge_rule {
    std::uint32_t left = no_token;
    std::uint32_t right = no_token;
    std::uint32_t merged = no_token;
};

namespace detail {

/// Rank of a pair: a hash table of ranks that also holds 8 bits of each pair's hash, so that misses seldom read further.
class pair_table {
public:
    static constexpr std::uint32_t none = 0xFFFFFFFF;
    static constexpr std::size_t max_merges = (std::size_t{1} << 24) - 1;

    void reserve(std::size_t merges) {
        std::size_t slots = 64;
        while (slots < merges * 2) slots *= 2;
        slots_.assign(slots, none);
        shift_ = 64;
        for (std::size_t s = slots; s > 1; s /= 2) --shift_;
    }

    /// False if the pair is there already. Needs room reserved.
    bool insert(std::span<const merge_rule> rules, std::uint32_t rank) {
        const std::uint64_t h = hash(rules[rank].left, rules[rank].right);
        std::size_t i = h >> shift_;
        for (; slots_[i] != none; i = (i + 1) & (slots_.size() - 1)) {
            const merge_rule& other = rules[slots_[i] & 0xFFFFFF];
            if (other.left == rules[rank].left && other.right == rules[rank].right) return false;
        }
        slots_[i] = rank | tag(h);
        return true;
    }

    /// The rank of (left, right), or `none`.
    [[nodiscard]] std::uint32_t find(std::span<const merge_rule> rules, std::uint32_t left, std::uint32_t right) const {
        const std::uint64_t h = hash(left, right);
        for (std::size_t i = h >> shift_; slots_[i] != none; i = (i + 1) & (slots_.size() - 1)) {
            if ((slots_[i] & 0xFF000000u) != tag(h)) continue;
            const std::uint32_t rank = slots_[i] & 0xFFFFFF;
            if (rules[rank].left == left && rules[rank].right == right) return rank;
        }
        return none;
    }

private:
    [[nodiscard]] static std::uint64_t hash(std::uint32_t left, std::uint32_t right) {
        const std::uint64_t x = (std::uint64_t{left} << 32 | right) * 0x9E3779B97F4A7C15u;
        return (x ^ (x >> 32)) * 0xD6E8FEB86659FD93u;
    }
    [[nodiscard]] static std::uint32_t tag(std::uint64_t h) { return static_cast<std::uint32_t>(h << 24) & 0xFF000000u; }

    std::vector<std::uint32_t> slots_ = std::vector<std::uint32_t>(64, none);
    int shift_ = 58;
};

}  // namespace detail

/// Buffers of one thread; grown as needed, never shrunk.
struct bpe_scratch {
    struct symbol {
        std::uint32_t token, previous, next;
    };
    struct candidate {
        std::uint32_t rank, at, left, right;
    };
    std::vector<std::uint32_t> tokens;
    std::vector<std::uint64_t> dead;
    std::vector<symbol> symbols;
    std::vector<candidate> heap;
};

/// Merge rules over a vocabulary. Immutable after `create`; read from any thread, each with its own scratch.
class bpe {
public:
    /// `ignore_merges`: a piece that is a token is that token, whatever the merges say.
    /// Errors: bad_vocabulary (a byte has no token), bad_merge (unknown ids, a merge whose result is not its parts joined, a pair
    /// given twice, too many).
    static result<bpe> create(vocabulary strings, std::vector<merge_rule> rules, bool ignore_merges) {
        bpe b;
        b.strings_ = std::move(strings);
        b.rules_ = std::move(rules);
        b.ignore_merges_ = ignore_merges;
        if (status s = b.check(); !s) return s.error();
        b.find_histories();
        b.build_trie();
        return b;
    }

    [[nodiscard]] const vocabulary& strings() const { return strings_; }
    [[nodiscard]] std::span<const merge_rule> rules() const { return rules_; }
    /// True if the fast way applies.
    [[nodiscard]] bool ordered() const { return ordered_; }
    [[nodiscard]] std::size_t trie_bytes() const { return trie_.memory_bytes(); }

    /// Calls `sink(id)` for each token of `piece` (not empty, below 2^31 bytes), in order.
    template <class Sink>
    void encode(std::string_view piece, bpe_scratch& scratch, Sink&& sink) const {
        if (!ordered_) {
            if (const std::uint32_t id = ignore_merges_ ? strings_.find(piece) : no_token; id != no_token) return sink(id);
            return encode_by_merging(piece, scratch, sink);
        }
        const std::uint32_t longest = trie_.longest(strings_, piece.data(), piece.size());
        if (strings_.size_of_known(longest) == piece.size()) return sink(longest);
        if (ignore_merges_) {
            if (const std::uint32_t id = strings_.find(piece); id != no_token) return sink(id);
        }
        search(piece, longest, scratch);
        for (const std::uint32_t id : scratch.tokens) sink(id);
    }

    /// The ordinary way, for any vocabulary: a heap of candidate merges over a linked list.
    template <class Sink>
    void encode_by_merging(std::string_view piece, bpe_scratch& scratch, Sink&& sink) const {
        auto& symbols = scratch.symbols;
        symbols.resize(piece.size());
        const auto count = static_cast<std::uint32_t>(piece.size());
        for (std::uint32_t i = 0; i < count; ++i) symbols[i] = {byte_token_[static_cast<unsigned char>(piece[i])], i - 1, i + 1};
        scratch.heap.clear();
        for (std::uint32_t i = 0; i + 1 < count; ++i) push_candidate(scratch, i, count);
        std::make_heap(scratch.heap.begin(), scratch.heap.end(), later);
        while (!scratch.heap.empty()) {
            std::pop_heap(scratch.heap.begin(), scratch.heap.end(), later);
            const bpe_scratch::candidate c = scratch.heap.back();
            scratch.heap.pop_back();
            bpe_scratch::symbol& left = symbols[c.at];
            // Stale candidates name a pair that is no longer there.
            if (left.token != c.left || left.next >= count || symbols[left.next].token != c.right) continue;
            symbols[left.next].token = no_token;
            left.token = rules_[c.rank].merged;
            left.next = symbols[left.next].next;
            if (left.next < count) {
                symbols[left.next].previous = c.at;
                if (push_candidate(scratch, c.at, count)) std::push_heap(scratch.heap.begin(), scratch.heap.end(), later);
            }
            if (left.previous < count && push_candidate(scratch, left.previous, count))
                std::push_heap(scratch.heap.begin(), scratch.heap.end(), later);
        }
        for (std::uint32_t i = 0; i < count; i = symbols[i].next) sink(symbols[i].token);
    }

private:
    /// How a token comes to be when its own bytes are encoded: by the rule `rank`, from `left` and `right`.
    struct history {
        std::int32_t rank = unreachable;
        std::uint32_t left = no_token;
        std::uint32_t right = no_token;
        std::uint32_t shorter = no_token;  // the longest reachable token that is a proper prefix
    };
    static constexpr std::int32_t is_byte = -1;
    static constexpr std::int32_t unreachable = -2;

    [[nodiscard]] static bool later(const bpe_scratch::candidate& a, const bpe_scratch::candidate& b) {
        return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
    }

    bool push_candidate(bpe_scratch& scratch, std::uint32_t at, std::uint32_t count) const {
        const bpe_scratch::symbol& s = scratch.symbols[at];
        if (s.next >= count) return false;
        const std::uint32_t right = scratch.symbols[s.next].token;
        const std::uint32_t rank = pairs_.find(rules_, s.token, right);
        if (rank == detail::pair_table::none) return false;
        scratch.heap.push_back({rank, at, s.token, right});
        return true;
    }

    [[nodiscard]] status check() {
        for (unsigned b = 0; b < 256; ++b) {
            const char byte = static_cast<char>(b);
            byte_token_[b] = strings_.find({&byte, 1});
            if (byte_token_[b] == no_token)
                return error::format(errc::bad_vocabulary, "the vocabulary has no token for the byte 0x%02X", b);
        }
        if (rules_.size() > detail::pair_table::max_merges)
            return error::format(errc::bad_merge, "%zu merges, at most %zu are allowed", rules_.size(),
                                 detail::pair_table::max_merges);
        pairs_.reserve(rules_.size());
        for (std::uint32_t rank = 0; rank < rules_.size(); ++rank) {
            const merge_rule& r = rules_[rank];
            const std::string_view left = strings_.bytes_of(r.left), right = strings_.bytes_of(r.right),
                                   merged = strings_.bytes_of(r.merged);
            if (left.empty() || right.empty() || merged.empty())
                return error::format(errc::bad_merge, "merge %u names an id without a string", rank);
            if (merged.size() != left.size() + right.size() || !merged.starts_with(left) || !merged.ends_with(right))
                return error::format(errc::bad_merge, "merge %u: token %u is not token %u followed by token %u", rank, r.merged,
                                     r.left, r.right);
            if (!pairs_.insert(rules_, rank)) return error::format(errc::bad_merge, "merge %u is given twice", rank);
        }
        return {};
    }

    /// Finds each token's history, in order of rank, and whether the rules are ordered.
    void find_histories() {
        histories_.assign(strings_.size(), history{});
        std::vector<std::int32_t> newest(strings_.size(), unreachable);  // last rule that makes the token
        for (const std::uint32_t id : byte_token_) histories_[id].rank = is_byte;
        for (std::uint32_t rank = 0; rank < rules_.size(); ++rank) newest[rules_[rank].merged] = static_cast<std::int32_t>(rank);
        ordered_ = true;
        for (std::uint32_t rank = 0; rank < rules_.size() && ordered_; ++rank) {
            const merge_rule& r = rules_[rank];
            const auto limit = static_cast<std::int32_t>(rank);
            if (newest[r.left] >= limit || newest[r.right] >= limit) ordered_ = false;
            history& h = histories_[r.merged];
            if (h.rank != unreachable || histories_[r.left].rank == unreachable || histories_[r.right].rank == unreachable)
                continue;
            if (stay_apart(r.left, r.right, rank)) h = {limit, r.left, r.right, no_token};
        }
    }

    void build_trie() {
        std::vector<std::pair<std::uint64_t, std::uint32_t>> keyed;  // the first eight bytes, big endian, and the id
        keyed.reserve(strings_.count());
        for (std::uint32_t id = 0; ordered_ && id < strings_.size(); ++id) {
            if (histories_[id].rank == unreachable) continue;
            const std::string_view s = strings_.bytes_of(id);
            std::uint64_t key = 0;
            for (std::size_t i = 0; i < 8; ++i) key = key << 8 | (i < s.size() ? static_cast<unsigned char>(s[i]) : 0u);
            keyed.emplace_back(key, id);
        }
        std::sort(keyed.begin(), keyed.end(), [this](const auto& a, const auto& b) {
            return a.first != b.first ? a.first < b.first : strings_.bytes_of(a.second) < strings_.bytes_of(b.second);
        });
        std::vector<std::uint32_t> sorted;
        sorted.reserve(keyed.size());
        std::vector<std::uint32_t> prefixes;  // of the token at hand, shortest first
        for (const auto& [key, id] : keyed) {
            sorted.push_back(id);
            while (!prefixes.empty() && !strings_.bytes_of(id).starts_with(strings_.bytes_of(prefixes.back()))) prefixes.pop_back();
            if (!prefixes.empty()) histories_[id].shorter = prefixes.back();
            prefixes.push_back(id);
        }
        trie_.build(strings_, sorted);
    }

    /// True if x and y, side by side, are never merged across their border by a rule below `limit`. Goes back in time: the
    /// younger of the two tokens at the border is replaced by its part there. Of equal ranks the left one is older, since merging
    /// goes from left to right.
    [[nodiscard]] bool stay_apart(std::uint32_t x, std::uint32_t y, std::uint32_t limit = detail::pair_table::none) const {
        std::uint32_t x_until = limit, y_until = limit;
        for (;;) {
            const std::uint32_t rank = pairs_.find(rules_, x, y);
            if (rank < x_until && rank <= y_until) return false;
            const history& hx = histories_[x];
            const history& hy = histories_[y];
            if (hx.rank > hy.rank) {
                x_until = static_cast<std::uint32_t>(hx.rank);
                x = hx.right;
            } else if (hy.rank >= 0) {
                y_until = static_cast<std::uint32_t>(hy.rank);
                y = hy.left;
            } else {
                return true;
            }
        }
    }

    /// Fills scratch.tokens with the encoding of `piece`, whose longest first token is `next`.
    void search(std::string_view piece, std::uint32_t next, bpe_scratch& scratch) const {
        const std::size_t size = piece.size();
        std::vector<std::uint32_t>& tokens = scratch.tokens;
        std::vector<std::uint64_t>& dead = scratch.dead;  // ends of a prefix that cannot be continued
        tokens.clear();
        dead.clear();  // filled at the first dead end: most pieces have none
        std::size_t at = 0;
        while (at < size) {
            const std::size_t end = at + strings_.size_of_known(next);
            const bool is_dead = !dead.empty() && (dead[end / 64] >> (end % 64) & 1) != 0;
            if (!is_dead && (tokens.empty() || stay_apart(tokens.back(), next))) {
                tokens.push_back(next);
                at = end;
                if (at < size) next = trie_.longest(strings_, piece.data() + at, size - at);
                continue;
            }
            next = histories_[next].shorter;
            // Every byte is a token, so the first place always has a way on, and `tokens` is not empty here.
            while (next == no_token) {
                if (dead.empty()) dead.resize(size / 64 + 1);
                dead[at / 64] |= std::uint64_t{1} << (at % 64);
                at -= strings_.size_of_known(tokens.back());
                next = histories_[tokens.back()].shorter;
                tokens.pop_back();
            }
        }
    }

    vocabulary strings_;
    std::vector<merge_rule> rules_;
    detail::pair_table pairs_;
    std::vector<history> histories_;
    byte_trie trie_;
    std::uint32_t byte_token_[256] = {};
    bool ordered_ = true;
    bool ignore_merges_ = false;
};

PHI4FLASH_END

// ---- phi4flash/text/word_cache.hpp ---------------------------------------------------------------------------------------
/// A small cache from short pieces to their ids: most pieces of a text have been seen before.

PHI4FLASH_BEGIN

namespace detail {

/// The bytes of a piece of 1 to 15 bytes and its size, as two numbers.
struct word_key {
    std::uint64_t low = 0;
    std::uint64_t high = 0;
    friend bool operator==(const word_key&, const word_key&) = default;
};

/// Direct-mapped: each key has one place, and the newest key has it. One cache line or less a look-up.
class word_cache {
public:
    static constexpr std::size_t max_bytes = 15;
    static constexpr std::size_t max_ids = 3;

    struct entry {
        word_key key;  // no key has size 0, so an empty entry equals none
        std::int32_t ids[max_ids] = {};
        std::uint32_t count = 0;
    };

    explicit word_cache(std::size_t entries) {
        std::size_t slots = 1;
        while (slots < entries) slots *= 2;
        entries_.resize(slots);
    }

    /// The key of [p, p + size); `readable` bytes from p on may be read, at least `size`.
    [[nodiscard]] static word_key key_of(const char* p, std::size_t size, std::size_t readable) {
        char padded[16] = {};
        if (readable < 16) {
            std::memcpy(padded, p, size);
            p = padded;
        }
        word_key k{load_u64(p), load_u64(p + 8)};
        // Bytes beyond the piece are cleared; the top byte, never part of it, holds the size.
        if (size < 8) {
            k.low &= (std::uint64_t{1} << (8 * size)) - 1;
            k.high = 0;
        } else {
            k.high &= (std::uint64_t{1} << (8 * (size - 8))) - 1;
        }
        k.high |= std::uint64_t{size} << 56;
        return k;
    }

    [[nodiscard]] entry& at(const word_key& k) {
        const std::uint64_t h = (k.low ^ (k.high * 0x9E3779B97F4A7C15u)) * 0xD6E8FEB86659FD93u;
        return entries_[(h ^ (h >> 32)) & (entries_.size() - 1)];
    }

private:
    std::vector<entry> entries_;
};

}  // namespace detail

PHI4FLASH_END

PHI4FLASH_BEGIN

/// How text becomes ids.
struct encode_options {
    marker_policy markers = marker_policy::parse;
};

/// How ids become text.
struct decode_options {
    bool skip_special = false;  ///< leave out added tokens that are `special`
};

/// Immutable once built: any number of threads may use one tokenizer. Move it only while nobody does.
class tokenizer {
public:
    tokenizer(tokenizer&&) = default;
    tokenizer& operator=(tokenizer&&) = default;

    /// One past the highest id with a string. A model may have more rows than that.
    [[nodiscard]] std::size_t vocab_size() const { return vocab_size_; }
    [[nodiscard]] split_pattern pattern() const { return pattern_; }
    [[nodiscard]] const bpe& merges() const { return bpe_; }
    /// Sorted by id.
    [[nodiscard]] std::span<const added_token> added_tokens() const { return added_; }

    /// The bytes of a token, which need not be valid UTF-8; empty for an id without a string, negative ids included.
    [[nodiscard]] std::string_view bytes_of(std::int64_t id) const {
        const std::string_view s = bpe_.strings().bytes_of(static_cast<std::size_t>(id));
        if (!s.empty()) return s;
        const added_token* const t = added(id);
        return t == nullptr ? std::string_view{} : std::string_view{t->content};
    }

    /// False for ids that decode to nothing. Never sample those.
    [[nodiscard]] bool has_string(std::int64_t id) const { return !bytes_of(id).empty(); }

    /// The added token with this id, or nullptr.
    [[nodiscard]] const added_token* added(std::int64_t id) const {
        if (added_.empty() || id < added_.front().id || id > added_.back().id) return nullptr;
        const auto place =
            std::lower_bound(added_.begin(), added_.end(), id, [](const added_token& t, std::int64_t x) { return t.id < x; });
        return place != added_.end() && place->id == id ? &*place : nullptr;
    }

    /// The added token with exactly this content, or nullptr.
    [[nodiscard]] const added_token* added(std::string_view content) const {
        for (const added_token& t : added_) {
            if (t.content == content) return &t;
        }
        return nullptr;
    }

    [[nodiscard]] bool is_special(std::int64_t id) const {
        const added_token* const t = added(id);
        return t != nullptr && t->special;
    }

    /// Appends the ids of `text` to `ids`. Invalid UTF-8 counts as U+FFFD. For many texts use an `encoder`, which remembers words.
    /// Errors: invalid_argument for texts of 2 GiB and more.
    status encode(std::string_view text, const encode_options& options, std::vector<std::int32_t>& ids) const;

    /// Appends the text of `ids` to `text`: their bytes joined, then one U+FFFD for each maximal invalid subpart. Ids without
    /// a string are nothing.
    void decode(std::span<const std::int32_t> ids, const decode_options& options, std::string& text) const {
        std::string bytes;
        for (const std::int32_t id : ids) {
            if (!options.skip_special || !is_special(id)) bytes.append(bytes_of(id));
        }
        append_lossy_utf8(bytes, text);
    }

private:
    friend class tokenizer_builder;
    friend class encoder;
    tokenizer() = default;

    bpe bpe_;
    std::vector<added_token> added_;
    detail::marker_set markers_;             // normalized: false
    detail::marker_set normalized_markers_;  // normalized: true
    std::size_t vocab_size_ = 0;
    split_pattern pattern_ = split_pattern::o200k;
};

/// Puts a tokenizer together from its parts, checking each: first all tokens, then merges in order of rank, and added tokens.
class tokenizer_builder {
public:
    split_pattern pattern = split_pattern::o200k;
    bool ignore_merges = false;  ///< a piece that is a token is that token, whatever the merges say

    void reserve(std::size_t tokens, std::size_t bytes, std::size_t merges) {
        strings_.reserve(tokens, bytes);
        rules_.reserve(merges);
    }

    /// A token of the vocabulary, as bytes. Errors: bad_vocabulary.
    [[nodiscard]] status add_token(std::size_t id, std::string_view bytes) { return strings_.add(id, bytes); }

    /// The next merge. Errors: bad_merge if a part or the result is no token.
    [[nodiscard]] status add_merge(std::string_view left, std::string_view right) {
        merge_rule r{strings_.find(left), strings_.find(right), no_token};
        if (r.left == no_token || r.right == no_token)
            return error::format(errc::bad_merge, "merge %zu: its %s part is not in the vocabulary", rules_.size(),
                                 r.left == no_token ? "left" : "right");
        // Vocabularies are numbered in the order of their merges, nearly always.
        const std::uint32_t guess = rules_.empty() ? no_token : rules_.back().merged + 1;
        const std::string_view guessed = strings_.bytes_of(guess);
        if (guessed.size() == left.size() + right.size() && guessed.starts_with(left) && guessed.ends_with(right)) {
            r.merged = guess;
        } else {
            joined_.assign(left).append(right);
            r.merged = strings_.find(joined_);
        }
        if (r.merged == no_token)
            return error::format(errc::bad_merge, "merge %zu: its result, %zu bytes, is not in the vocabulary", rules_.size(),
                                 joined_.size());
        rules_.push_back(r);
        return {};
    }

    /// Errors: bad_vocabulary (id out of range, content empty, too long or not UTF-8).
    [[nodiscard]] status add_added_token(added_token token) {
        if (token.id >= max_vocabulary_ids)
            return error::format(errc::bad_vocabulary, "added token id %u is not below the limit of %zu", token.id,
                                 max_vocabulary_ids);
        if (token.content.empty() || token.content.size() > max_token_bytes ||
            valid_utf8_prefix(token.content) != token.content.size())
            return error::format(errc::bad_vocabulary, "added token %u: want 1 to %zu bytes of UTF-8, have %zu bytes", token.id,
                                 max_token_bytes, token.content.size());
        added_.push_back(std::move(token));
        return {};
    }

    /// The tokenizer; the builder is empty afterwards. Errors: bad_vocabulary (bytes without a token, added tokens that
    /// contradict each other or the vocabulary), bad_merge.
    [[nodiscard]] result<tokenizer> build() {
        if (status s = check_added(); !s) return s.error();
        result<bpe> b = bpe::create(std::move(strings_), std::move(rules_), ignore_merges);
        if (!b) return b.error();
        tokenizer t;
        t.bpe_ = *std::move(b);
        t.added_ = std::move(added_);
        t.markers_.build(t.added_, false);
        t.normalized_markers_.build(t.added_, true);
        t.vocab_size_ = t.bpe_.strings().size();
        if (!t.added_.empty() && t.vocab_size_ <= t.added_.back().id) t.vocab_size_ = t.added_.back().id + std::size_t{1};
        t.pattern_ = pattern;
        *this = tokenizer_builder{};
        return t;
    }

    [[nodiscard]] const vocabulary& strings() const { return strings_; }

private:
    [[nodiscard]] status check_added() {
        std::sort(added_.begin(), added_.end(), [](const added_token& a, const added_token& b) { return a.id < b.id; });
        vocabulary contents;
        for (std::size_t i = 0; i < added_.size(); ++i) {
            const added_token& t = added_[i];
            if (i != 0 && added_[i - 1].id == t.id)
                return error::format(errc::bad_vocabulary, "id %u is given to two added tokens", t.id);
            if (!contents.add(i, t.content))
                return error::format(errc::bad_vocabulary, "added token '%s' is given twice", t.content.c_str());
            const std::string_view in_vocabulary = strings_.bytes_of(t.id);
            const std::uint32_t id_there = strings_.find(t.content);
            if ((!in_vocabulary.empty() && in_vocabulary != t.content) || (id_there != no_token && id_there != t.id))
                return error::format(errc::bad_vocabulary, "added token '%s' has id %u, which contradicts the vocabulary",
                                     t.content.c_str(), t.id);
        }
        return {};
    }

    vocabulary strings_;
    std::vector<merge_rule> rules_;
    std::vector<added_token> added_;
    std::string joined_;
};

/// Encodes with one tokenizer, which must outlive it and stay in place. Owns the buffers and a cache of words, so it is for one
/// thread at a time.
class encoder {
public:
    static constexpr std::size_t default_cache_entries = 8192;  ///< of 32 bytes each

    explicit encoder(const tokenizer& t, std::size_t cache_entries = default_cache_entries)
        : tokenizer_(&t), words_(cache_entries) {}

    /// Appends the ids of `text` to `ids`. Invalid UTF-8 counts as U+FFFD. Errors: invalid_argument for texts of 2 GiB and more.
    status encode(std::string_view text, const encode_options& options, std::vector<std::int32_t>& ids) {
        if (text.size() >= (std::size_t{1} << 31))
            return error::format(errc::invalid_argument, "the text has %zu bytes, one call takes less than 2 GiB: cut it",
                                 text.size());
        if (valid_utf8_prefix(text) != text.size()) {
            clean_.clear();
            append_lossy_utf8(text, clean_);
            text = clean_;
        }
        if (options.markers == marker_policy::plain_text) {
            encode_plain(text, ids);
            return {};
        }
        encode_marked(text, tokenizer_->markers_, options.markers, ids, [&](std::string_view between) {
            encode_marked(between, tokenizer_->normalized_markers_, options.markers, ids,
                          [&](std::string_view plain) { encode_plain(plain, ids); });
        });
        return {};
    }

    [[nodiscard]] const tokenizer& of() const { return *tokenizer_; }

private:
    /// Markers become ids; `sink` gets the text between them.
    template <class Sink>
    void encode_marked(std::string_view text, const detail::marker_set& markers, marker_policy policy,
                       std::vector<std::int32_t>& ids, Sink&& sink) {
        const char* const begin = text.data();
        const char* const end = begin + text.size();
        const char* done = begin;  // start of the text that is not encoded yet
        for (const char* p = begin; !markers.empty();) {
            const std::uint32_t found = markers.find(p, end);
            if (found == no_token) break;
            const added_token& marker = tokenizer_->added_[found];
            const char* start = p;
            p += marker.content.size();
            if (policy == marker_policy::parse_not_special && marker.special) continue;
            const auto view = [](const char* from, const char* to) {
                return std::string_view(from, static_cast<std::size_t>(to - from));
            };
            if (marker.lstrip) start -= detail::trailing_space(view(done, start));
            if (marker.rstrip) p += detail::leading_space(view(p, end));
            if (done < start) sink(view(done, start));
            ids.push_back(static_cast<std::int32_t>(marker.id));
            done = p;
        }
        if (done < end) sink(std::string_view(done, static_cast<std::size_t>(end - done)));
    }

    void encode_plain(std::string_view text, std::vector<std::int32_t>& ids) {
        switch (tokenizer_->pattern_) {
            case split_pattern::gpt2:
                return encode_pieces<split_pattern::gpt2>(text, ids);
            case split_pattern::cl100k:
                return encode_pieces<split_pattern::cl100k>(text, ids);
            case split_pattern::qwen2:
                return encode_pieces<split_pattern::qwen2>(text, ids);
            case split_pattern::o200k:
                return encode_pieces<split_pattern::o200k>(text, ids);
        }
    }

    template <split_pattern Pattern>
    void encode_pieces(std::string_view text, std::vector<std::int32_t>& ids) {
        const auto put = [&ids](std::uint32_t id) { ids.push_back(static_cast<std::int32_t>(id)); };
        const char* const end = text.data() + text.size();
        for_each_piece<Pattern>(text, [&](std::string_view piece) {
            if (piece.size() > detail::word_cache::max_bytes) return tokenizer_->bpe_.encode(piece, scratch_, put);
            const detail::word_key key =
                detail::word_cache::key_of(piece.data(), piece.size(), static_cast<std::size_t>(end - piece.data()));
            detail::word_cache::entry& known = words_.at(key);
            if (known.key == key) {
                for (std::uint32_t i = 0; i < known.count; ++i) ids.push_back(known.ids[i]);
                return;
            }
            const std::size_t before = ids.size();
            tokenizer_->bpe_.encode(piece, scratch_, put);
            const std::size_t count = ids.size() - before;
            if (count > detail::word_cache::max_ids) return;
            known.key = key;
            known.count = static_cast<std::uint32_t>(count);
            for (std::size_t i = 0; i < count; ++i) known.ids[i] = ids[before + i];
        });
    }

    const tokenizer* tokenizer_;
    detail::word_cache words_;
    bpe_scratch scratch_;
    std::string clean_;
};

inline status tokenizer::encode(std::string_view text, const encode_options& options, std::vector<std::int32_t>& ids) const {
    encoder e(*this, 1);
    return e.encode(text, options, ids);
}

PHI4FLASH_END

#include <optional>
PHI4FLASH_BEGIN

/// One message. Roles of the released models: system, user, assistant, tool, tool_response.
struct chat_message {
    std::string_view role;
    std::string_view content;
    std::optional<std::string_view> tools{};  ///< of a system message, not looked at in others; empty is not absent
};

/// The templates of Phi-4-mini-flash-reasoning and Phi-4-mini-reasoning (which always begins with a system message of its own).
enum class chat_template : std::uint8_t { flash, mini_reasoning };

/// How a prompt is rendered.
struct chat_options {
    chat_template form = chat_template::flash;
    bool add_generation_prompt = true;  ///< ask for an answer; otherwise end with <|endoftext|>
    /// What messages may spell. `plain_text` keeps markers out of them; `parse` is what encoding the rendered prompt would give.
    marker_policy content_markers = marker_policy::plain_text;
};

namespace detail {

/// Roles become markers, so they are words and nothing else.
[[nodiscard]] inline status check_roles(std::span<const chat_message> messages) {
    for (std::size_t i = 0; i < messages.size(); ++i) {
        const std::string_view role = messages[i].role;
        const bool good = std::all_of(role.begin(), role.end(), [](char c) {
            return c == '_' || c == '-' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        });
        if (!good || role.empty() || role.size() > 64)
            return error::format(errc::bad_chat_message, "message %zu: a role is 1 to 64 letters, digits, '_' or '-'", i);
    }
    return {};
}

/// Calls `marker(name)` for "<|name|>" and `text(content)` for what stands between markers, in order.
template <class Marker, class Text>
void walk_chat(std::span<const chat_message> messages, const chat_options& options, Marker&& marker, Text&& text) {
    const auto tools_of = [&](const chat_message& m) {
        if (!m.tools) return;
        marker("tool");
        text(*m.tools);
        marker("/tool");
    };
    const bool own_system = options.form == chat_template::mini_reasoning;
    if (own_system) {
        marker("system");
        text("Your name is Phi, an AI math expert developed by Microsoft.");
        for (const chat_message& m : messages) {
            if (m.role != "system") continue;
            text(" ");
            text(m.content);
            tools_of(m);
        }
        marker("end");
    }
    for (const chat_message& m : messages) {
        if (own_system && m.role == "system") continue;
        marker(m.role);
        text(m.content);
        if (m.role == "system") tools_of(m);
        marker("end");
    }
    marker(options.add_generation_prompt ? "assistant" : "endoftext");
}

}  // namespace detail

/// Appends the prompt to `prompt`. Errors: bad_chat_message (a role that is no word).
inline status render_chat(std::span<const chat_message> messages, const chat_options& options, std::string& prompt) {
    if (status s = detail::check_roles(messages); !s) return s;
    detail::walk_chat(
        messages, options, [&](std::string_view name) { prompt.append("<|").append(name).append("|>"); },
        [&](std::string_view content) { prompt.append(content); });
    return {};
}

/// Appends the ids of the prompt to `ids`. Markers of the template are ids of added tokens; those with `rstrip` swallow the white
/// space after them, as when a whole prompt is encoded. Errors: as render_chat; also bad_chat_message for a role without a marker
/// in this tokenizer.
inline status encode_chat(encoder& e, std::span<const chat_message> messages, const chat_options& options,
                          std::vector<std::int32_t>& ids) {
    if (options.content_markers == marker_policy::parse) {
        std::string prompt;
        if (status s = render_chat(messages, options, prompt); !s) return s;
        return e.encode(prompt, {marker_policy::parse}, ids);
    }
    if (status s = detail::check_roles(messages); !s) return s;
    status outcome;
    std::string content, name;          // text since the last marker
    const added_token* last = nullptr;  // the last marker
    const auto flush = [&] {
        std::string_view rest = content;
        if (last != nullptr && last->rstrip) rest.remove_prefix(detail::leading_space(rest));
        if (outcome && !rest.empty()) outcome = e.encode(rest, {options.content_markers}, ids);
        content.clear();
    };
    detail::walk_chat(
        messages, options,
        [&](std::string_view word) {
            flush();
            name.assign("<|").append(word).append("|>");
            last = e.of().added(name);
            if (last != nullptr) {
                ids.push_back(static_cast<std::int32_t>(last->id));
            } else if (outcome) {
                outcome = error::format(errc::bad_chat_message, "the tokenizer has no added token '%s' for the chat template",
                                        name.c_str());
            }
        },
        [&](std::string_view text) { content.append(text); });
    return outcome;
}

PHI4FLASH_END

// ---- phi4flash/text/decoder.hpp ------------------------------------------------------------------------------------------
/// Streaming decoder: ids in, text out as soon as it is certain. What it gives is always whole, well-formed UTF-8, and all of it
/// joined equals `tokenizer::decode` of all ids.

PHI4FLASH_BEGIN

/// One stream of ids. The tokenizer must outlive it. For one thread at a time.
class stream_decoder {
public:
    explicit stream_decoder(const tokenizer& t, const decode_options& options = {}) : tokenizer_(&t), options_(options) {}

    /// The text that became certain with this id: often empty while a character is incomplete. Valid until the next call.
    std::string_view push(std::int32_t id) {
        text_.clear();
        if (options_.skip_special && tokenizer_->is_special(id)) return text_;
        held_.append(tokenizer_->bytes_of(id));
        const std::size_t tail = incomplete_utf8_tail(held_);
        append_lossy_utf8(std::string_view(held_).substr(0, held_.size() - tail), text_);
        held_.erase(0, held_.size() - tail);
        return text_;
    }

    /// The end of the stream: what was held back, as U+FFFD. The decoder can then be used for another stream.
    std::string_view flush() {
        text_.clear();
        append_lossy_utf8(held_, text_);
        held_.clear();
        return text_;
    }

    /// Bytes that wait for the rest of their character, at most 3.
    [[nodiscard]] std::string_view held() const { return held_; }

private:
    const tokenizer* tokenizer_;
    decode_options options_;
    std::string held_;
    std::string text_;
};

PHI4FLASH_END

// Generation.

// ---- phi4flash/generate/conversation.hpp ---------------------------------------------------------------------------------
/// What a session has still to read of a conversation. What was said stays in the session; each turn reads only what is new.

// ---- phi4flash/generate/generate.hpp -------------------------------------------------------------------------------------
/// The generation loop: a prompt's ids in, tokens and text out as they come, until something ends it.

// ---- phi4flash/generate/options.hpp --------------------------------------------------------------------------------------
/// How to generate: what the caller says, and what a model's files say where the caller is silent.

// ---- phi4flash/generate/sampler.hpp --------------------------------------------------------------------------------------
/// From logits to a token: greedy or random, with the usual filters, in the usual order (repetition penalty, temperature, top-k,
/// top-p, min-p; as Hugging Face's generate does it).

PHI4FLASH_BEGIN

/// How to choose. The defaults are the model card's.
struct sampling_options {
    float temperature = 0.6f;         ///< 0 means greedy: the highest logit, the lowest id among equals
    float top_p = 0.95f;              ///< keep the likeliest tokens until their probabilities sum to this; 1 keeps all
    float min_p = 0.0f;               ///< keep tokens at least this times as likely as the likeliest; 0 keeps all
    float repetition_penalty = 1.0f;  ///< divides positive, multiplies negative logits of tokens seen before; 1 changes nothing
    std::size_t top_k = 0;            ///< keep so many of the likeliest; 0 keeps all
    std::uint64_t seed = 0;           ///< the same seed gives the same tokens for the same logits, on any number of threads
};

/// Errors: invalid_argument, naming the option, want and have.
[[nodiscard]] inline status check_sampling(const sampling_options& o) {
    const auto outside = [](const char* name, double have, const char* want) {
        return status(error::format(errc::invalid_argument, "%s: want %s, have %g", name, want, have));
    };
    if (!(o.temperature >= 0.0f && o.temperature <= 100.0f)) return outside("temperature", static_cast<double>(o.temperature), "0 to 100");
    if (!(o.top_p > 0.0f && o.top_p <= 1.0f)) return outside("top_p", static_cast<double>(o.top_p), "more than 0, at most 1");
    if (!(o.min_p >= 0.0f && o.min_p <= 1.0f)) return outside("min_p", static_cast<double>(o.min_p), "0 to 1");
    if (!(o.repetition_penalty > 0.0f && o.repetition_penalty <= 100.0f))
        return outside("repetition_penalty", static_cast<double>(o.repetition_penalty), "more than 0, at most 100");
    return {};
}

/// Uniform numbers that are the same on every platform.   Source: splitmix64, public domain (S. Vigna).
class random_stream {
public:
    explicit random_stream(std::uint64_t seed) : state_(seed) {}
    [[nodiscard]] std::uint64_t next() {
        state_ += 0x9e3779b97f4a7c15u;
        std::uint64_t z = state_;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    /// In [0, 1), 53 random bits.
    [[nodiscard]] double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

private:
    std::uint64_t state_;
};

/// Chooses tokens for one text. Ids that are not `allowed` are never chosen. Owns buffers of the vocabulary's size; for one
/// thread at a time.
class sampler {
public:
    /// `allowed[id]` says whether an id may be chosen: false for ids without a string, and for rows that only pad the vocabulary.
    /// Errors: invalid_argument where an option is out of range or nothing is allowed.
    static result<sampler> create(const sampling_options& options, std::vector<bool> allowed) {
        if (const status ok = check_sampling(options); !ok) return ok.error();
        if (std::ranges::find(allowed, true) == allowed.end())
            return error::format(errc::invalid_argument, "no token may be chosen: want at least one of the %zu ids allowed", allowed.size());
        return sampler(options, std::move(allowed));
    }

    /// The next token. Shape: logits [at least as many as `allowed`].
    [[nodiscard]] std::int32_t choose(std::span<const float> logits) {
        candidates_.clear();
        const std::size_t n = std::min(logits.size(), allowed_.size());
        for (std::size_t id = 0; id < n; ++id) {
            if (allowed_[id] && !std::isnan(logits[id])) candidates_.push_back({logits[id], static_cast<std::int32_t>(id)});
        }
        if (candidates_.empty()) return first_allowed();
        penalize();
        if (options_.temperature == 0.0f) return std::ranges::max_element(candidates_, comes_after)->id;
        return draw();
    }

    /// Remembers a token of the text, for the repetition penalty.
    void accept(std::int32_t token) {
        if (options_.repetition_penalty == 1.0f || token < 0 || static_cast<std::size_t>(token) >= allowed_.size()) return;
        if (seen_.empty()) seen_.resize(allowed_.size());
        seen_[static_cast<std::size_t>(token)] = true;
    }

private:
    struct candidate {
        float score;  // a logit, later a probability up to a common factor
        std::int32_t id;
    };
    /// A strict order: by score, then the lower id first, so that equal scores cannot make results depend on the algorithm.
    static bool comes_after(const candidate& a, const candidate& b) { return a.score < b.score || (a.score == b.score && a.id > b.id); }
    static bool comes_before(const candidate& a, const candidate& b) { return comes_after(b, a); }

    sampler(const sampling_options& options, std::vector<bool> allowed)
        : options_(options), allowed_(std::move(allowed)), random_(options.seed) {
        candidates_.reserve(allowed_.size());
    }

    [[nodiscard]] std::int32_t first_allowed() const {
        return static_cast<std::int32_t>(std::ranges::find(allowed_, true) - allowed_.begin());
    }

    void penalize() {
        if (seen_.empty()) return;
        for (candidate& c : candidates_) {
            if (seen_[static_cast<std::size_t>(c.id)])
                c.score = c.score > 0.0f ? c.score / options_.repetition_penalty : c.score * options_.repetition_penalty;
        }
    }

    std::int32_t draw() {
        const float highest = std::ranges::max_element(candidates_, comes_after)->score;
        if (std::isinf(highest)) return std::ranges::max_element(candidates_, comes_after)->id;
        if (options_.top_k != 0 && options_.top_k < candidates_.size()) {
            std::ranges::nth_element(candidates_, candidates_.begin() + static_cast<std::ptrdiff_t>(options_.top_k), comes_before);
            candidates_.resize(options_.top_k);
        }
        double total = 0.0;
        for (candidate& c : candidates_) {
            c.score = std::exp((c.score - highest) / options_.temperature);
            total += static_cast<double>(c.score);
        }
        keep_top_p(total);
        // Relative to the likeliest, whose score is 1.
        if (options_.min_p > 0.0f) std::erase_if(candidates_, [this](const candidate& c) { return c.score < options_.min_p; });
        // Summed in order of id where nothing was sorted and by likelihood where it was: fixed either way.
        total = 0.0;
        for (const candidate& c : candidates_) total += static_cast<double>(c.score);
        double left = random_.uniform() * total;
        for (const candidate& c : candidates_) {
            left -= static_cast<double>(c.score);
            if (left < 0.0) return c.id;
        }
        return candidates_.back().id;
    }

    /// Keeps the likeliest tokens, the one that crosses the threshold included. A heap, because a few tokens usually suffice.
    void keep_top_p(double total) {
        if (options_.top_p >= 1.0f) {
            std::ranges::sort(candidates_, comes_before);
            return;
        }
        std::ranges::make_heap(candidates_, comes_after);
        double kept = 0.0;
        auto end = candidates_.end();
        while (end != candidates_.begin() && kept < static_cast<double>(options_.top_p) * total) {
            std::pop_heap(candidates_.begin(), end, comes_after);
            --end;
            kept += static_cast<double>(end->score);
        }
        candidates_.erase(candidates_.begin(), end);
        std::ranges::reverse(candidates_);
    }

    sampling_options options_;
    std::vector<bool> allowed_;
    std::vector<bool> seen_;
    std::vector<candidate> candidates_;
    random_stream random_;
};

PHI4FLASH_END

// ---- phi4flash/model/generation_config.hpp -------------------------------------------------------------------------------
/// What a model's files say about generation.

PHI4FLASH_BEGIN

/// Absent where the files are silent.
struct generation_config {
    std::vector<std::uint32_t> stop_ids;  ///< eos_token_id, one or several
    std::optional<std::uint32_t> bos_id;
    std::optional<std::uint32_t> pad_id;
    std::optional<bool> do_sample;
    std::optional<float> temperature;
    std::optional<float> top_p;
    std::optional<float> min_p;
    std::optional<float> repetition_penalty;
    std::optional<std::uint32_t> top_k;
    std::optional<std::uint32_t> max_new_tokens;
};

PHI4FLASH_END

PHI4FLASH_BEGIN

struct generation_options {
    sampling_options sampling{};
    std::size_t max_tokens = 32768;                ///< new ones, at most
    std::vector<std::int32_t> stop_ids{};          ///< end the text; not passed to the sink
    std::vector<std::string> stop_strings{};       ///< end the text; neither they nor what follows is passed on
    bool skip_special = true;                      ///< leave special tokens out of the text
    const std::atomic<bool>* cancel = nullptr;     ///< looked at before every chunk and token; may be set from anywhere
};

/// What a model's files say, and the model card where they are silent. Without stop ids in the files, those of `<|end|>` and
/// `<|endoftext|>` in `text`, which may be null.
[[nodiscard]] inline generation_options options_from(const generation_config& said, const tokenizer* text = nullptr) {
    generation_options options;
    sampling_options& s = options.sampling;
    const bool greedy = said.do_sample.has_value() && !*said.do_sample;
    s.temperature = greedy ? 0.0f : said.temperature.value_or(s.temperature);
    s.top_p = said.top_p.value_or(s.top_p);
    s.min_p = said.min_p.value_or(s.min_p);
    s.repetition_penalty = said.repetition_penalty.value_or(s.repetition_penalty);
    if (said.top_k) s.top_k = *said.top_k;
    if (said.max_new_tokens) options.max_tokens = *said.max_new_tokens;
    options.stop_ids.assign(said.stop_ids.begin(), said.stop_ids.end());
    if (!options.stop_ids.empty() || text == nullptr) return options;
    for (const std::string_view marker : {"<|end|>", "<|endoftext|>"})
        if (const added_token* const token = text->added(marker)) options.stop_ids.push_back(static_cast<std::int32_t>(token->id));
    return options;
}

PHI4FLASH_END

// ---- phi4flash/generate/stop.hpp -----------------------------------------------------------------------------------------
/// When a text ends: at a token, or at a string that may arrive in pieces.

PHI4FLASH_BEGIN

/// Watches streamed text for any of several strings. Text is released as soon as it cannot be the beginning of one of them;
/// what comes from the match on is never released.
class stop_matcher {
public:
    explicit stop_matcher(std::vector<std::string> strings = {}) : strings_(std::move(strings)) {
        std::erase_if(strings_, [](const std::string& s) { return s.empty(); });
    }

    /// Takes more text and returns what is certain. Valid until the next call.
    std::string_view push(std::string_view text) {
        released_.clear();
        if (matched_) return released_;
        held_.append(text);
        std::size_t match = std::string::npos;
        for (const std::string& s : strings_) match = std::min(match, held_.find(s));
        if (match != std::string::npos) {
            matched_ = true;
            released_.assign(held_, 0, match);
            held_.clear();
            return released_;
        }
        const std::size_t keep = longest_open_prefix();
        released_.assign(held_, 0, held_.size() - keep);
        held_.erase(0, held_.size() - keep);
        return released_;
    }

    /// The text ends here: what was held back.
    std::string_view flush() {
        released_ = held_;
        held_.clear();
        return released_;
    }

    [[nodiscard]] bool matched() const { return matched_; }

private:
    /// How many bytes at the end may still become a stop string.
    [[nodiscard]] std::size_t longest_open_prefix() const {
        std::size_t longest = 0;
        for (const std::string& s : strings_) {
            for (std::size_t n = std::min(s.size() - 1, held_.size()); n > longest; --n) {
                if (std::string_view(held_).substr(held_.size() - n) == std::string_view(s).substr(0, n)) longest = n;
            }
        }
        return longest;
    }

    std::vector<std::string> strings_;
    std::string held_;
    std::string released_;
    bool matched_ = false;
};

PHI4FLASH_END

PHI4FLASH_BEGIN

/// Why a text ended.
enum class stop_reason : std::uint8_t {
    stop_token,    ///< the model chose one of the stop ids
    stop_string,   ///< the text contained one of the stop strings
    max_tokens,    ///< as many tokens as were asked for
    context_full,  ///< the session has no room for another token
    cancelled,     ///< `cancel` became true
    sink,          ///< the sink returned false
};

[[nodiscard]] constexpr const char* name_of(stop_reason reason) {
    constexpr const char* names[] = {"stop_token", "stop_string", "max_tokens", "context_full", "cancelled", "sink"};
    return names[static_cast<std::size_t>(reason)];
}

/// What a sink is told. A token may bring no text (an incomplete character, the start of a stop string) or the text of several;
/// the last call may bring text without a token (-1).
struct generation_event {
    std::int32_t token = -1;
    std::string_view text;
};

struct generation_summary {
    stop_reason reason = stop_reason::max_tokens;
    std::size_t prompt_tokens = 0;  ///< that were read
    std::size_t new_tokens = 0;     ///< that were chosen, a stop token not counted
    std::int32_t unread = -1;       ///< the last chosen token: the session has not read it. A next prompt should begin with it.
};

/// Which ids may be chosen: those that have a string, and the stop ids. Without a tokenizer, all.
[[nodiscard]] inline std::vector<bool> allowed_ids(std::size_t vocab, const tokenizer* text, std::span<const std::int32_t> stop_ids) {
    std::vector<bool> allowed(vocab, text == nullptr);
    for (std::size_t id = 0; text != nullptr && id < vocab; ++id) allowed[id] = text->has_string(static_cast<std::int64_t>(id));
    for (const std::int32_t id : stop_ids) {
        if (id >= 0 && static_cast<std::size_t>(id) < vocab) allowed[static_cast<std::size_t>(id)] = true;
    }
    return allowed;
}

/// Reads `prompt` into the session and generates. `sink(const generation_event&)` returns false to stop, and is not called again. `text` may be null: then
/// events carry tokens only. `on_prompt(read, total)` is told how far the prompt is, for progress bars.
/// Errors: those of `prefill` and of `sampler::create`; nothing was generated then. A cancelled prompt is not an error.
template <sambay_shape Shape, class Kv, class Sink, class OnPrompt>
result<generation_summary> generate(const model<Shape>& m, session<Shape, Kv>& past, workspace<Shape, Kv>& w, const tokenizer* text,
                                    std::span<const std::int32_t> prompt, const generation_options& options, Sink&& sink, OnPrompt&& on_prompt) {
    auto chooser = sampler::create(options.sampling, allowed_ids(m.shape().vocab(), text, options.stop_ids));
    if (!chooser) return chooser.error();
    const auto cancelled = [&] { return options.cancel != nullptr && options.cancel->load(std::memory_order_relaxed); };
    for (const std::int32_t token : prompt) chooser->accept(token);

    generation_summary summary;
    if (cancelled()) {
        summary.reason = stop_reason::cancelled;
        return summary;
    }
    const std::size_t start = past.position();
    auto logits = prefill(m, past, w, prompt, [&](std::size_t read, std::size_t total) {
        on_prompt(read, total);
        return !cancelled();
    });
    summary.prompt_tokens = past.position() - start;
    if (!logits) {
        if (logits.error().code() != errc::cancelled) return logits.error();
        summary.reason = stop_reason::cancelled;
        return summary;
    }

    // Without a tokenizer there is no text, so nothing to decode and no string to find.
    std::optional<stream_decoder> decoder;
    if (text != nullptr) decoder.emplace(*text, decode_options{.skip_special = options.skip_special});
    stop_matcher stops(options.stop_strings);
    const auto finish = [&](stop_reason reason) {
        summary.reason = reason;
        std::string rest;
        if (decoder && reason != stop_reason::stop_string && reason != stop_reason::sink) {
            rest = stops.push(decoder->flush());
            rest += stops.flush();
        }
        if (!rest.empty()) sink(generation_event{-1, rest});
        return summary;
    };
    while (true) {
        if (cancelled()) return finish(stop_reason::cancelled);
        if (summary.new_tokens == options.max_tokens) return finish(stop_reason::max_tokens);
        const std::int32_t token = chooser->choose(*logits);
        chooser->accept(token);
        summary.unread = token;
        if (std::ranges::find(options.stop_ids, token) != options.stop_ids.end()) return finish(stop_reason::stop_token);
        ++summary.new_tokens;
        const std::string_view piece = decoder ? stops.push(decoder->push(token)) : std::string_view{};
        if (!sink(generation_event{token, piece})) return finish(stop_reason::sink);
        if (stops.matched()) return finish(stop_reason::stop_string);
        if (summary.new_tokens == options.max_tokens) return finish(stop_reason::max_tokens);
        if (past.position() == past.context()) return finish(stop_reason::context_full);
        logits = step(m, past, w, token);
        if (!logits) return logits.error();
        summary.unread = -1;
    }
}

template <sambay_shape Shape, class Kv, class Sink>
result<generation_summary> generate(const model<Shape>& m, session<Shape, Kv>& past, workspace<Shape, Kv>& w, const tokenizer* text,
                                    std::span<const std::int32_t> prompt, const generation_options& options, Sink&& sink) {
    return generate(m, past, w, text, prompt, options, sink, [](std::size_t, std::size_t) {});
}

PHI4FLASH_END

PHI4FLASH_BEGIN

/// Turns of one conversation as ids, in the released chat format. Each turn is `ask`, a generation with those ids, and `answered`
/// with its summary. The tokenizer must outlive it and stay in place. For one thread at a time.
class conversation {
public:
    /// `system` begins the conversation; empty for none.
    explicit conversation(const tokenizer& text, std::string system = {})
        : encoder_(text), system_(std::move(system)), end_(text.added(std::string_view("<|end|>"))) {}

    /// Forgets what was said. The session must be reset too.
    void reset() {
        pending_.clear();
        started_ = false;
    }

    /// The ids to read for this message; valid until the next call. Nothing changes before `answered`: a message that did not
    /// fit can be dropped and another one asked. Errors: those of encode_chat.
    [[nodiscard]] result<std::span<const std::int32_t>> ask(std::string_view message) {
        prompt_ = pending_;
        std::vector<chat_message> messages;
        if (!started_ && !system_.empty()) messages.push_back({"system", system_});
        messages.push_back({"user", message});
        if (const status ok = encode_chat(encoder_, messages, {}, prompt_); !ok) return ok.error();
        return std::span<const std::int32_t>(prompt_);
    }

    /// Remembers what the session has not read of the last turn: the rest of a prompt that was cut short, a last token, and the
    /// marker that ends an answer, which the model may not have got to.
    void answered(const generation_summary& summary) {
        started_ = true;
        pending_.assign(prompt_.begin() + static_cast<std::ptrdiff_t>(summary.prompt_tokens), prompt_.end());
        const bool ended = summary.reason == stop_reason::stop_token;
        if (summary.unread >= 0 && (!ended || end_ == nullptr)) pending_.push_back(summary.unread);
        if (end_ != nullptr) pending_.push_back(static_cast<std::int32_t>(end_->id));
    }

private:
    encoder encoder_;
    std::string system_;
    const added_token* end_;
    std::vector<std::int32_t> pending_;  // not read yet
    std::vector<std::int32_t> prompt_;   // of the last `ask`
    bool started_ = false;
};

PHI4FLASH_END

// Files; the Hugging Face formats where a JSON library is on the include path.

// ---- phi4flash/io/convert.hpp --------------------------------------------------------------------------------------------
/// Converts a model into one packed file: matrices to the chosen types, everything else as it is.

// ---- phi4flash/io/packed_model_writer.hpp --------------------------------------------------------------------------------
/// Writes a model into one file: metadata, tables of the tokenizer, then weights that the caller packs piece by piece.

// ---- phi4flash/io/packed_tokenizer.hpp -----------------------------------------------------------------------------------
/// The tokenizer inside a packed model file, in two forms: as strings under the customary keys, for other programs, and as
/// aligned tables of bytes and ids, from which this library loads it. Works with any tokenizer that has the interface of
/// text/tokenizer.hpp.

// ---- phi4flash/io/packed_model.hpp ---------------------------------------------------------------------------------------
/// A model in one GGUF file: shapes, tokenizer, chat template and generation defaults as metadata, and weights in the very order
/// in which the kernels stream them, mapped and used in place.
///
/// Packed matrices are stored under ggml's types of the same size: q8 as Q8_0, q4 as Q4_0, q4_dense as IQ4_NL. The key
/// phi4flash.layout says so, and programs that do not know it must not compute with the file. Files without the key are ordinary
/// row-major ones.

// ---- phi4flash/io/ggml_blocks.hpp ----------------------------------------------------------------------------------------
/// Weights of ggml's row-major types, decoded to f32. Plain code that runs once, when a model is converted.
/// Source: github.com/ggml-org/ggml, src/ggml-common.h (blocks) and src/ggml-quants.c (dequantize_row_*).

// ---- phi4flash/io/ggml_types.hpp -----------------------------------------------------------------------------------------
/// The tensor types of ggml, as data: number, name, elements and bytes a block, and where a block keeps its scales.
/// Source: github.com/ggml-org/ggml, docs/gguf.md and src/ggml-common.h.

PHI4FLASH_BEGIN

/// The types that the library reads weights from, and those of the integer tables it stores, by their number in a file.
enum class ggml_type : std::uint32_t {
    f32 = 0,
    f16 = 1,
    q4_0 = 2,
    q8_0 = 8,
    q4_k = 12,
    q6_k = 14,
    iq4_nl = 20,
    i8 = 24,
    i16 = 25,
    i32 = 26,
    i64 = 27,
    bf16 = 30,
};

/// How a type is stored. A row is whole blocks.
struct ggml_format {
    ggml_type type;
    const char* name;
    std::uint16_t block_length;  ///< elements
    std::uint16_t block_bytes;
    bool is_weight = false;     ///< can be read as f32
    std::uint8_t n_scales = 0;  ///< f16 numbers, side by side; 0 also where nobody looks
    std::uint8_t scale_offset = 0;
};

namespace detail {
[[nodiscard]] constexpr ggml_format other_ggml_format(std::uint32_t number, const char* name, std::uint16_t length,
                                                      std::uint16_t bytes) {
    return {.type = static_cast<ggml_type>(number), .name = name, .block_length = length, .block_bytes = bytes};
}
}  // namespace detail

/// Every type of the format, so that one that is of no use can be refused by its name. Numbers that are not here belonged to types
/// that were given up.
inline constexpr ggml_format ggml_formats[] = {
    {ggml_type::f32, "F32", 1, 4, true},
    {ggml_type::f16, "F16", 1, 2, true},
    {ggml_type::q4_0, "Q4_0", 32, 18, true, 1, 0},
    detail::other_ggml_format(3, "Q4_1", 32, 20),
    detail::other_ggml_format(6, "Q5_0", 32, 22),
    detail::other_ggml_format(7, "Q5_1", 32, 24),
    {ggml_type::q8_0, "Q8_0", 32, 34, true, 1, 0},
    detail::other_ggml_format(9, "Q8_1", 32, 36),
    detail::other_ggml_format(10, "Q2_K", 256, 84),
    detail::other_ggml_format(11, "Q3_K", 256, 110),
    {ggml_type::q4_k, "Q4_K", 256, 144, true, 2, 0},
    detail::other_ggml_format(13, "Q5_K", 256, 176),
    {ggml_type::q6_k, "Q6_K", 256, 210, true, 1, 208},
    detail::other_ggml_format(15, "Q8_K", 256, 292),
    detail::other_ggml_format(16, "IQ2_XXS", 256, 66),
    detail::other_ggml_format(17, "IQ2_XS", 256, 74),
    detail::other_ggml_format(18, "IQ3_XXS", 256, 98),
    detail::other_ggml_format(19, "IQ1_S", 256, 50),
    {ggml_type::iq4_nl, "IQ4_NL", 32, 18, true, 1, 0},
    detail::other_ggml_format(21, "IQ3_S", 256, 110),
    detail::other_ggml_format(22, "IQ2_S", 256, 82),
    detail::other_ggml_format(23, "IQ4_XS", 256, 136),
    {ggml_type::i8, "I8", 1, 1},
    {ggml_type::i16, "I16", 1, 2},
    {ggml_type::i32, "I32", 1, 4},
    {ggml_type::i64, "I64", 1, 8},
    detail::other_ggml_format(28, "F64", 1, 8),
    detail::other_ggml_format(29, "IQ1_M", 256, 56),
    {ggml_type::bf16, "BF16", 1, 2, true},
    detail::other_ggml_format(34, "TQ1_0", 256, 54),
    detail::other_ggml_format(35, "TQ2_0", 256, 66),
    detail::other_ggml_format(39, "MXFP4", 32, 17),
    detail::other_ggml_format(40, "NVFP4", 64, 36),
    detail::other_ggml_format(41, "Q1_0", 128, 18),
};

/// The format of a type's number, or nullptr.
[[nodiscard]] constexpr const ggml_format* find_ggml_format(std::uint32_t number) {
    for (const ggml_format& known : ggml_formats)
        if (static_cast<std::uint32_t>(known.type) == number) return &known;
    return nullptr;
}
[[nodiscard]] constexpr const ggml_format& format_of(ggml_type type) { return *find_ggml_format(static_cast<std::uint32_t>(type)); }

PHI4FLASH_END

PHI4FLASH_BEGIN

namespace detail {

[[nodiscard]] inline unsigned byte_at(const std::byte* p, std::size_t i) { return static_cast<unsigned>(p[i]); }
[[nodiscard]] inline int signed_at(const std::byte* p, std::size_t i) { return static_cast<std::int8_t>(p[i]); }
template <class T>
[[nodiscard]] T number_at(const std::byte* p) {
    T x;
    std::memcpy(&x, p, sizeof x);
    return x;
}
[[nodiscard]] inline float half_at(const std::byte* p) { return to_f32(number_at<f16>(p)); }

/// w = d (q - 8): f16 d; 16 bytes, low nibbles first.
inline void decode_q4_0(const std::byte* p, float* out) {
    const float d = half_at(p);
    for (std::size_t i = 0; i < 16; ++i) {
        const unsigned q = byte_at(p, 2 + i);
        out[i] = d * static_cast<float>(static_cast<int>(q & 15) - 8);
        out[i + 16] = d * static_cast<float>(static_cast<int>(q >> 4) - 8);
    }
}

/// w = d q: f16 d; 32 signed bytes.
inline void decode_q8_0(const std::byte* p, float* out) {
    const float d = half_at(p);
    for (std::size_t i = 0; i < 32; ++i) out[i] = d * static_cast<float>(signed_at(p, 2 + i));
}

inline constexpr std::int8_t iq4_nl_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/// w = d level[q]: as Q4_0, with uneven levels.
inline void decode_iq4_nl(const std::byte* p, float* out) {
    const float d = half_at(p);
    for (std::size_t i = 0; i < 16; ++i) {
        const unsigned q = byte_at(p, 2 + i);
        out[i] = d * static_cast<float>(iq4_nl_levels[q & 15]);
        out[i + 16] = d * static_cast<float>(iq4_nl_levels[q >> 4]);
    }
}

/// w = d scale[j] q - dmin min[j] for 8 groups of 32: f16 d, f16 dmin; 12 bytes with 6-bit scales and mins; 128 bytes, each 32 of
/// them with the low nibbles of one group and the high ones of the next.
inline void decode_q4_k(const std::byte* p, float* out) {
    const float d = half_at(p);
    const float dmin = half_at(p + 2);
    const std::byte* const s = p + 4;
    for (std::size_t j = 0; j < 8; ++j) {
        const bool first = j < 4;
        const unsigned scale = first ? byte_at(s, j) & 63 : (byte_at(s, j + 4) & 15) | (byte_at(s, j - 4) >> 6 << 4);
        const unsigned min = first ? byte_at(s, j + 4) & 63 : byte_at(s, j + 4) >> 4 | (byte_at(s, j) >> 6 << 4);
        const float step = d * static_cast<float>(scale);
        const float floor = dmin * static_cast<float>(min);
        for (std::size_t i = 0; i < 32; ++i) {
            const unsigned q = byte_at(p, 16 + j / 2 * 32 + i);
            out[j * 32 + i] = step * static_cast<float>(j % 2 == 0 ? q & 15 : q >> 4) - floor;
        }
    }
}

/// w = d scale[j] (q - 32) for 16 groups of 16: 128 bytes of low nibbles, 64 bytes of upper two bits, 16 signed scales, f16 d. Each
/// half of 128 numbers has 64 bytes of the first and 32 of the second.
inline void decode_q6_k(const std::byte* p, float* out) {
    const float d = half_at(p + 208);
    for (std::size_t group = 0; group < 16; ++group) {
        const std::size_t half = group / 8;
        const std::size_t part = group / 2 % 4;  // which two bits, and which nibble of which 32 bytes
        const std::size_t first = group % 2 * 16;
        const std::byte* const low = p + half * 64 + part % 2 * 32 + first;
        const std::byte* const high = p + 128 + half * 32 + first;
        const float step = d * static_cast<float>(signed_at(p, 192 + group));
        for (std::size_t i = 0; i < 16; ++i) {
            const unsigned bits = (byte_at(low, i) >> part / 2 * 4 & 15) | (byte_at(high, i) >> 2 * part & 3) << 4;
            out[group * 16 + i] = step * static_cast<float>(static_cast<int>(bits) - 32);
        }
    }
}

}  // namespace detail

/// Decodes `n` elements of a weight type, a multiple of its block length, to out [n]. The blocks need no alignment. False for types that are not weights.
[[nodiscard]] inline bool decode_ggml(ggml_type type, const std::byte* blocks, std::size_t n, float* out) {
    const ggml_format& format = format_of(type);
    if (!format.is_weight) return false;
    for (std::size_t i = 0; i < n; i += format.block_length, blocks += format.block_bytes, out += format.block_length) {
        switch (type) {
            case ggml_type::f32: *out = detail::number_at<float>(blocks); break;
            case ggml_type::f16: *out = detail::half_at(blocks); break;
            case ggml_type::bf16: *out = to_f32(detail::number_at<bf16>(blocks)); break;
            case ggml_type::q4_0: detail::decode_q4_0(blocks, out); break;
            case ggml_type::q8_0: detail::decode_q8_0(blocks, out); break;
            case ggml_type::q4_k: detail::decode_q4_k(blocks, out); break;
            case ggml_type::q6_k: detail::decode_q6_k(blocks, out); break;
            case ggml_type::iq4_nl: detail::decode_iq4_nl(blocks, out); break;
            default: return false;
        }
    }
    return true;
}

PHI4FLASH_END

// ---- phi4flash/io/mapped_file.hpp ----------------------------------------------------------------------------------------
/// A file as read-only memory: mapped, not copied, so that a checkpoint costs memory only where it has been touched.

// ---- phi4flash/io/printable.hpp ------------------------------------------------------------------------------------------
/// Names and paths made fit for an error sentence: short, and without control characters that a terminal would obey.

#include <filesystem>
PHI4FLASH_BEGIN

/// The path as UTF-8. On Windows, halves of surrogate pairs that stand alone are lost; nothing throws.
[[nodiscard]] inline std::string to_utf8(const std::filesystem::path& path) {
    std::string text;
    char32_t high = 0;
    for (const auto unit : path.native()) {
        if constexpr (sizeof unit == 1) {
            text.push_back(static_cast<char>(unit));
        } else {
            char32_t c = static_cast<char16_t>(unit);
            if (c >= 0xd800 && c < 0xdc00) {
                high = c;
                continue;
            }
            if (c >= 0xdc00 && c < 0xe000) c = high == 0 ? U'?' : 0x10000 + ((high - 0xd800) << 10) + (c - 0xdc00);
            high = 0;
            const std::size_t tail = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
            constexpr unsigned char lead[] = {0x00, 0xc0, 0xe0, 0xf0};
            text.push_back(static_cast<char>(lead[tail] | (c >> (6 * tail))));
            for (std::size_t i = tail; i > 0; --i) text.push_back(static_cast<char>(0x80 | ((c >> (6 * (i - 1))) & 0x3f)));
        }
    }
    return text;
}

/// A copy of at most `max_bytes` bytes to pass to "%s". Names keep their beginning, paths their end.
class printable {
public:
    static constexpr std::size_t max_bytes = 120;

    explicit printable(std::string_view text) { copy(text, false); }
    template <std::same_as<std::filesystem::path> Path>  // and nothing that converts to one
    explicit printable(const Path& path) {
        copy(to_utf8(path), true);
    }

    [[nodiscard]] const char* c_str() const { return text_; }

private:
    void copy(std::string_view text, bool keep_end) {
        constexpr std::string_view dots = "...";
        const bool cut = text.size() > max_bytes;
        if (cut) text = keep_end ? text.substr(text.size() - (max_bytes - dots.size())) : text.substr(0, max_bytes - dots.size());
        char* out = text_;
        if (cut && keep_end) out = append(out, dots);
        for (const char c : text) *out++ = static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
        if (cut && !keep_end) append(out, dots);
    }
    static char* append(char* out, std::string_view piece) {
        std::memcpy(out, piece.data(), piece.size());
        return out + piece.size();
    }

    char text_[max_bytes + 1] = {};
};

PHI4FLASH_END

#include <cerrno>
#include <system_error>
#if defined(_WIN32)
// The few declarations that a map needs, the same as in <windows.h>, which would bring thousands of macros along.
union _LARGE_INTEGER;
struct _SECURITY_ATTRIBUTES;
extern "C" {
__declspec(dllimport) void* __stdcall CreateFileW(const wchar_t*, unsigned long, unsigned long, _SECURITY_ATTRIBUTES*,
                                                  unsigned long, unsigned long, void*);
__declspec(dllimport) void* __stdcall CreateFileMappingW(void*, _SECURITY_ATTRIBUTES*, unsigned long, unsigned long, unsigned long,
                                                         const wchar_t*);
#if defined(_WIN64)
__declspec(dllimport) void* __stdcall MapViewOfFile(void*, unsigned long, unsigned long, unsigned long, unsigned long long);
#else
__declspec(dllimport) void* __stdcall MapViewOfFile(void*, unsigned long, unsigned long, unsigned long, unsigned long);
#endif
__declspec(dllimport) int __stdcall UnmapViewOfFile(const void*);
__declspec(dllimport) int __stdcall GetFileSizeEx(void*, _LARGE_INTEGER*);
__declspec(dllimport) unsigned long __stdcall GetFileType(void*);
__declspec(dllimport) int __stdcall CloseHandle(void*);
__declspec(dllimport) unsigned long __stdcall GetLastError(void);
}
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

PHI4FLASH_BEGIN

/// How a file becomes memory. All wishes: what a system cannot do is left out, and mapped_file says what was got. On Windows nothing
/// of this is done.
struct mapping_options {
    /// Ask for huge pages. Of a map they come only from some file systems (tmpfs, and those whose cache has pages so large; seldom
    /// ext4); of a copy from any.
    bool huge_pages = false;
    /// Read the file into memory of this program's own instead. It costs as much memory as the file is long, which no other program
    /// shares and the system cannot drop, while a map costs nothing that the system could not take back; and opening takes as
    /// long as reading. Afterwards the file may change or go.
    bool copy = false;
    /// Read all of the map when it is opened, and not page by page when it is first looked at.
    bool populate = false;
};

namespace detail {
struct file_bytes {
    std::span<const std::byte> bytes;
    bool copied = false;
};

[[nodiscard]] inline error file_error(errc code, const std::filesystem::path& path, const char* what, const char* reason) {
    return error::format(code, "%s: %s: %s", printable(path).c_str(), what, reason);
}

[[nodiscard]] inline error not_a_file(const std::filesystem::path& path) {
    return file_error(errc::file_unreadable, path, "cannot be read", "want a regular file, have a folder or a device");
}

[[nodiscard]] inline status check_file_size(const std::filesystem::path& path, std::uint64_t bytes) {
    if (bytes == 0) return file_error(errc::file_empty, path, "cannot be read", "the file is empty");
    if (bytes > static_cast<std::uint64_t>(PTRDIFF_MAX))
        return file_error(errc::size_overflow, path, "cannot be mapped", "the file is larger than the address space");
    return {};
}

#if defined(_WIN32)
[[nodiscard]] inline error last_system_error(const std::filesystem::path& path, const char* what) {
    const auto code = static_cast<int>(GetLastError());
    const bool missing = code == 2 || code == 3;  // ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND
    return file_error(missing ? errc::file_not_found : errc::file_unreadable, path, what,
                      std::system_category().message(code).c_str());
}

/// Closes a handle when it leaves the scope.
struct scoped_handle {
    explicit scoped_handle(void* h) : value(h) {}
    scoped_handle(const scoped_handle&) = delete;
    scoped_handle& operator=(const scoped_handle&) = delete;
    ~scoped_handle() { CloseHandle(value); }
    void* value;
};

[[nodiscard]] inline result<file_bytes> map_file(const std::filesystem::path& path, const mapping_options&) {
    constexpr unsigned long generic_read = 0x80000000ul, share_all = 7, open_existing = 3, normal = 0x80, disk_file = 1;
    constexpr unsigned long backup_semantics = 0x02000000ul;  // without it a folder is "access denied", not a folder
    constexpr unsigned long page_readonly = 2, map_read = 4;
    void* const raw =
        CreateFileW(path.c_str(), generic_read, share_all, nullptr, open_existing, normal | backup_semantics, nullptr);
    if (reinterpret_cast<std::intptr_t>(raw) == -1) return last_system_error(path, "cannot be opened");
    const scoped_handle file(raw);
    std::error_code ignored;
    if (GetFileType(file.value) != disk_file || std::filesystem::is_directory(path, ignored)) return not_a_file(path);
    std::int64_t size = 0;
    if (GetFileSizeEx(file.value, reinterpret_cast<_LARGE_INTEGER*>(&size)) == 0) return last_system_error(path, "has no size");
    if (const status ok = check_file_size(path, static_cast<std::uint64_t>(size)); !ok) return ok.error();

    void* const section = CreateFileMappingW(file.value, nullptr, page_readonly, 0, 0, nullptr);
    if (section == nullptr) return last_system_error(path, "cannot be mapped");
    const scoped_handle mapping(section);
    const void* const data = MapViewOfFile(mapping.value, map_read, 0, 0, 0);
    if (data == nullptr) return last_system_error(path, "cannot be mapped");
    return file_bytes{{static_cast<const std::byte*>(data), static_cast<std::size_t>(size)}};
}

inline void unmap_file(std::span<const std::byte> bytes) { UnmapViewOfFile(bytes.data()); }
inline void release_file_pages(std::span<const std::byte>) {}  // the system trims working sets by itself
#else
[[nodiscard]] inline error last_system_error(const std::filesystem::path& path, const char* what) {
    const int code = errno;
    const bool missing = code == ENOENT || code == ENOTDIR;
    return file_error(missing ? errc::file_not_found : errc::file_unreadable, path, what,
                      std::generic_category().message(code).c_str());
}

/// Closes a descriptor when it leaves the scope.
struct scoped_descriptor {
    explicit scoped_descriptor(int fd) : value(fd) {}
    scoped_descriptor(const scoped_descriptor&) = delete;
    scoped_descriptor& operator=(const scoped_descriptor&) = delete;
    ~scoped_descriptor() { ::close(value); }
    int value;
};

/// Memory of exactly `size` bytes, in whole pages, that begins where a huge page may; nullptr if the system has none.
[[nodiscard]] inline std::byte* take_pages(std::size_t size) {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    if (size > static_cast<std::size_t>(PTRDIFF_MAX) - 2 * huge_page_bytes) return nullptr;
    const std::size_t kept = (size + page - 1) / page * page;
    const std::size_t taken = kept + huge_page_bytes;
    void* const place = ::mmap(nullptr, taken, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) return nullptr;
    auto* const base = static_cast<std::byte*>(place);
    const std::size_t before = (huge_page_bytes - reinterpret_cast<std::uintptr_t>(base) % huge_page_bytes) % huge_page_bytes;
    if (before != 0) ::munmap(base, before);
    if (before != huge_page_bytes) ::munmap(base + before + kept, huge_page_bytes - before);
    return base + before;
}

/// The file in memory of its own; empty if there is none for it.
[[nodiscard]] inline result<file_bytes> copy_file(const std::filesystem::path& path, int fd, std::size_t size, bool huge_pages) {
    std::byte* const place = take_pages(size);
    if (place == nullptr) return file_bytes{};
    if (huge_pages) ask_for_huge_pages({place, size});
    constexpr std::size_t most = std::size_t{1} << 30;  // systems read less than 2 GiB at a time
    for (std::size_t at = 0; at < size;) {
        const auto n = ::pread(fd, place + at, size - at < most ? size - at : most, static_cast<off_t>(at));
        if (n > 0) at += static_cast<std::size_t>(n);
        if (n > 0 || (n < 0 && errno == EINTR)) continue;
        const error why = n < 0 ? last_system_error(path, "cannot be read")
                                : file_error(errc::file_unreadable, path, "cannot be read", "it became shorter meanwhile");
        ::munmap(place, size);
        return why;
    }
    ::mprotect(place, size, PROT_READ);
    return file_bytes{{place, size}, true};
}

inline void advise_map([[maybe_unused]] void* data, [[maybe_unused]] std::size_t size, const mapping_options& options) {
    if (options.huge_pages) ask_for_huge_pages({static_cast<const std::byte*>(data), size});
    if (!options.populate) return;
#if defined(MADV_POPULATE_READ)
    if (::madvise(data, size, MADV_POPULATE_READ) != 0) ::madvise(data, size, MADV_WILLNEED);
#elif defined(MADV_WILLNEED)
    ::madvise(data, size, MADV_WILLNEED);
#endif
}

[[nodiscard]] inline result<file_bytes> map_file(const std::filesystem::path& path, const mapping_options& options) {
    // O_NONBLOCK: opening a pipe without a writer would otherwise wait for one.
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return last_system_error(path, "cannot be opened");
    const scoped_descriptor file(fd);
    struct stat about {};
    if (::fstat(file.value, &about) != 0) return last_system_error(path, "has no size");
    if (!S_ISREG(about.st_mode)) return not_a_file(path);
    if (const status ok = check_file_size(path, static_cast<std::uint64_t>(about.st_size)); !ok) return ok.error();

    const auto size = static_cast<std::size_t>(about.st_size);
    if (options.copy) {
        const auto copied = copy_file(path, file.value, size, options.huge_pages);
        if (!copied || copied->copied) return copied;
    }
    void* const data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.value, 0);
    if (data == MAP_FAILED) return last_system_error(path, "cannot be mapped");
    // Unless somebody asks, no advice is the best: MADV_WILLNEED reads the whole file before the first token, MADV_SEQUENTIAL drops
    // pages that the next token reads again, and MADV_HUGEPAGE makes 2 MiB resident for each small tensor that is looked at.
    advise_map(data, size, options);
    return file_bytes{{static_cast<const std::byte*>(data), size}};
}

inline void unmap_file(std::span<const std::byte> bytes) { ::munmap(const_cast<std::byte*>(bytes.data()), bytes.size()); }
inline void release_file_pages(std::span<const std::byte> bytes) {
    ::madvise(const_cast<std::byte*>(bytes.data()), bytes.size(), MADV_DONTNEED);  // of a shared map: unmaps, loses nothing
}
#endif
}  // namespace detail

/// A read-only map of a whole file. Moving keeps the address. Reading from several threads is safe. A file that another
/// program shortens meanwhile takes the pages away under the reader: replace a file by renaming, never in place.
class mapped_file {
public:
    mapped_file() = default;
    mapped_file(mapped_file&& other) noexcept : file_(std::exchange(other.file_, {})) {}
    mapped_file& operator=(mapped_file&& other) noexcept {
        std::swap(file_, other.file_);
        return *this;
    }
    ~mapped_file() {
        if (!file_.bytes.empty()) detail::unmap_file(file_.bytes);
    }

    /// Errors, each naming the path and the system's reason: file_not_found, file_unreadable (no permission, a folder, a
    /// device), file_empty, size_overflow.
    static result<mapped_file> open(const std::filesystem::path& path, const mapping_options& options = {}) {
        const auto bytes = detail::map_file(path, options);
        if (!bytes) return bytes.error();
        mapped_file file;
        file.file_ = *bytes;
        return file;
    }

    /// The whole file, aligned to a page.
    [[nodiscard]] std::span<const std::byte> bytes() const { return file_.bytes; }
    /// Pages looked at so far stop counting as this program's memory; they come back when they are read again. Worth a call
    /// after many small tensors of a large file were read: the system may map up to 2 MiB around each. A copy stays.
    void release_pages() const {
        if (!file_.bytes.empty() && !file_.copied) detail::release_file_pages(file_.bytes);
    }
    [[nodiscard]] std::string_view text() const { return {reinterpret_cast<const char*>(bytes().data()), bytes().size()}; }

    /// Whether it is a copy, and not a map.
    [[nodiscard]] bool is_copy() const { return file_.copied; }
    /// How much of it lies in huge pages now; see bytes_in_huge_pages.
    [[nodiscard]] std::size_t huge_bytes() const { return bytes().empty() ? 0 : bytes_in_huge_pages(bytes()); }

private:
    detail::file_bytes file_;
};

/// A small file as text. Errors: those of mapped_file::open, and file_too_large above `max_bytes`, before memory is taken.
[[nodiscard]] inline result<std::string> read_file(const std::filesystem::path& path, std::size_t max_bytes) {
    const auto file = mapped_file::open(path);
    if (!file) return file.error();
    if (file->bytes().size() > max_bytes)
        return error::format(errc::file_too_large, "%s: want at most %zu bytes, have %zu", printable(path).c_str(), max_bytes,
                             file->bytes().size());
    return std::string(file->text());
}

PHI4FLASH_END

// ---- phi4flash/io/packed_keys.hpp ----------------------------------------------------------------------------------------
/// The metadata of a packed model file: which keys it has, how they are written and read.

// ---- phi4flash/io/gguf_writer.hpp ----------------------------------------------------------------------------------------
/// Writes GGUF files of any size: metadata and the table of tensors first, then the data in pieces as they are made.

// ---- phi4flash/io/file_writer.hpp ----------------------------------------------------------------------------------------
/// A file that appears under its name only when it is complete.

PHI4FLASH_BEGIN

/// Writes to `<path>.part`; `commit` renames it, and without that the destructor removes it. A program that is stopped
/// leaves no half-written file of the real name. One writer a path; not for several threads.
class file_writer {
public:
    file_writer(file_writer&& other) noexcept
        : path_(std::exchange(other.path_, {})), part_(std::exchange(other.part_, {})), file_(std::move(other.file_)) {}
    file_writer& operator=(file_writer&&) = delete;
    ~file_writer() {
        file_.reset();
        std::error_code ignored;
        if (!part_.empty()) std::filesystem::remove(part_, ignored);
    }

    /// Errors: file_unwritable, naming the path and the system's reason.
    static result<file_writer> create(const std::filesystem::path& path) {
        std::filesystem::path part = path;
        part += ".part";
        std::error_code ignored;
        if (std::filesystem::is_directory(path, ignored)) return unwritable(path, std::make_error_code(std::errc::is_a_directory));
#if defined(_WIN32)
        std::FILE* raw = nullptr;
        errno = _wfopen_s(&raw, part.c_str(), L"wb");
#else
        std::FILE* const raw = std::fopen(part.c_str(), "wb");
#endif
        if (raw == nullptr) return unwritable(path, {errno, std::generic_category()});
        return file_writer(path, std::move(part), raw);
    }

    /// Appends. Errors: file_unwritable.
    status write(std::span<const std::byte> bytes) {
        if (bytes.empty()) return {};
        if (std::fwrite(bytes.data(), 1, bytes.size(), file_.get()) == bytes.size()) return {};
        return unwritable(path_, {errno, std::generic_category()});
    }
    status write(std::string_view text) { return write(std::as_bytes(std::span(text))); }

    /// Gives the file its name, replacing one that has it. Errors: file_unwritable.
    status commit() {
        if (std::fclose(file_.release()) != 0) return unwritable(path_, {errno, std::generic_category()});
        std::error_code why;
        std::filesystem::rename(part_, path_, why);
        if (why) return unwritable(path_, why);
        part_.clear();
        return {};
    }

private:
    struct closer {
        void operator()(std::FILE* f) const { std::fclose(f); }
    };

    file_writer(const std::filesystem::path& path, std::filesystem::path&& part, std::FILE* raw)
        : path_(path), part_(std::move(part)), file_(raw) {}

    static error unwritable(const std::filesystem::path& path, const std::error_code& why) {
        return error::format(errc::file_unwritable, "%s: cannot be written: %s", printable(path).c_str(), why.message().c_str());
    }

    std::filesystem::path path_;
    std::filesystem::path part_;  // empty once there is nothing to remove
    std::unique_ptr<std::FILE, closer> file_;
};

/// A whole small file. Errors: file_unwritable.
[[nodiscard]] inline status write_file(const std::filesystem::path& path, std::string_view text) {
    auto file = file_writer::create(path);
    if (!file) return file.error();
    if (const status ok = file->write(text); !ok) return ok;
    return file->commit();
}

PHI4FLASH_END

// ---- phi4flash/io/gguf.hpp -----------------------------------------------------------------------------------------------
/// The GGUF container, version 3: a header, metadata, a table of tensors, then their data, each aligned. Every rule is checked
/// before anything is handed out; names, strings and data are views of the file.
/// Source: github.com/ggml-org/ggml, docs/gguf.md.

// ---- phi4flash/io/gguf_value.hpp -----------------------------------------------------------------------------------------
/// A metadata value of a GGUF file: a view of its bytes, which are not aligned, and the ways to read it.

#include <limits>
PHI4FLASH_BEGIN

/// The value types, by their numbers in the format.
enum class gguf_type : std::uint8_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };
inline constexpr std::size_t gguf_type_count = 13;

/// Bytes of a value; 0 for strings and arrays, which say their own.
[[nodiscard]] constexpr std::size_t size_of(gguf_type t) {
    constexpr std::uint8_t sizes[gguf_type_count] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return sizes[static_cast<std::size_t>(t)];
}
[[nodiscard]] constexpr const char* name_of(gguf_type t) {
    constexpr const char* names[gguf_type_count] = {"u8",      "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                    "boolean", "string", "array", "u64", "i64", "f64"};
    return names[static_cast<std::size_t>(t)];
}

/// The value type of a C++ number.
template <class T>
[[nodiscard]] constexpr gguf_type gguf_type_of() {
    static_assert(std::is_arithmetic_v<T> && sizeof(T) <= 8 && !std::is_same_v<T, long double>);
    if constexpr (std::is_same_v<T, bool>) return gguf_type::boolean;
    if constexpr (std::is_floating_point_v<T>) return sizeof(T) == 4 ? gguf_type::f32 : gguf_type::f64;
    constexpr gguf_type unsigned_types[] = {gguf_type::u8, gguf_type::u16, gguf_type::u32, gguf_type::u64};
    constexpr gguf_type signed_types[] = {gguf_type::i8, gguf_type::i16, gguf_type::i32, gguf_type::i64};
    constexpr std::size_t width = sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3;
    return std::is_signed_v<T> ? signed_types[width] : unsigned_types[width];
}

/// A key and its value, or its list of values. Points into the file.
struct gguf_value {
    std::string_view key;
    gguf_type type = gguf_type::u8;  ///< of the value, or of each element of a list
    bool is_array = false;
    std::uint64_t count = 1;
    std::span<const std::byte> data;  ///< as in the file: unaligned; each string after its length, 8 bytes

    /// Element i, which must have this very type.
    template <class T>
    [[nodiscard]] T at(std::size_t i = 0) const {
        T x;
        std::memcpy(&x, data.data() + i * sizeof(T), sizeof(T));
        return x;
    }

    /// Element i of whole numbers of any width; nothing for other types and negative numbers.
    [[nodiscard]] std::optional<std::uint64_t> whole(std::size_t i = 0) const {
        const auto from = [](std::int64_t x) { return x < 0 ? std::nullopt : std::optional(static_cast<std::uint64_t>(x)); };
        switch (type) {
            case gguf_type::u8: return at<std::uint8_t>(i);
            case gguf_type::u16: return at<std::uint16_t>(i);
            case gguf_type::u32: return at<std::uint32_t>(i);
            case gguf_type::u64: return at<std::uint64_t>(i);
            case gguf_type::i8: return from(at<std::int8_t>(i));
            case gguf_type::i16: return from(at<std::int16_t>(i));
            case gguf_type::i32: return from(at<std::int32_t>(i));
            case gguf_type::i64: return from(at<std::int64_t>(i));
            default: return std::nullopt;
        }
    }
    /// A single floating-point number.
    [[nodiscard]] std::optional<double> real() const {
        if (is_array || (type != gguf_type::f32 && type != gguf_type::f64)) return std::nullopt;
        return type == gguf_type::f32 ? static_cast<double>(at<float>()) : at<double>();
    }
    /// A single truth value.
    [[nodiscard]] std::optional<bool> boolean() const {
        return is_array || type != gguf_type::boolean ? std::nullopt : std::optional(data[0] != std::byte{0});
    }
    /// A single string.
    [[nodiscard]] std::optional<std::string_view> text() const {
        if (is_array || type != gguf_type::string) return std::nullopt;
        return std::string_view(reinterpret_cast<const char*>(data.data()) + 8, data.size() - 8);
    }
};

/// The strings of a list, one after the other:   for (std::string_view s; strings.next(s);) ...
class gguf_strings {
public:
    /// No strings at all for a value of another kind.
    explicit gguf_strings(const gguf_value& list)
        : rest_(list.data), left_(list.is_array && list.type == gguf_type::string ? list.count : 0) {}

    [[nodiscard]] bool next(std::string_view& out) {
        if (left_ == 0) return false;
        --left_;
        std::uint64_t length = 0;
        std::memcpy(&length, rest_.data(), sizeof length);
        out = {reinterpret_cast<const char*>(rest_.data()) + sizeof length, static_cast<std::size_t>(length)};
        rest_ = rest_.subspan(sizeof length + out.size());
        return true;
    }

private:
    std::span<const std::byte> rest_;
    std::uint64_t left_;
};

/// "u32" or "list of 7 u32", to pass to "%s".
class gguf_type_text {
public:
    explicit gguf_type_text(const gguf_value& v) {
        if (v.is_array) {
            std::snprintf(text_, sizeof text_, "a list of %llu %s", static_cast<unsigned long long>(v.count), name_of(v.type));
        } else {
            std::snprintf(text_, sizeof text_, "%s", name_of(v.type));
        }
    }
    [[nodiscard]] const char* c_str() const { return text_; }

private:
    char text_[48] = {};
};

PHI4FLASH_END

PHI4FLASH_BEGIN

static_assert(std::endian::native == std::endian::little, "phi4flash: GGUF files are little-endian and used in place");

inline constexpr std::uint32_t gguf_version = 3;
inline constexpr std::size_t gguf_default_alignment = 32;
/// What a file may ask for. Released models have some 50 keys and 500 tensors.
struct gguf_limits {
    std::size_t keys = std::size_t{1} << 16;
    std::size_t tensors = std::size_t{1} << 16;
    std::size_t key_bytes = 65535;  ///< the format's own
    std::size_t name_bytes = 64;    ///< the format's own
    std::size_t alignment = std::size_t{1} << 16;
};
/// Blocks of bytes that a host hands over start at a multiple of this.
inline constexpr std::size_t gguf_host_alignment = 8;

/// One tensor of a file. Extents are in row-major order, the reverse of the file's: a matrix is [rows, cols].
struct gguf_tensor {
    std::string_view name;
    const ggml_format* format = nullptr;
    std::size_t extent[tensor_view::max_rank] = {};
    std::size_t rank = 0;
    const std::byte* data = nullptr;
    std::size_t bytes = 0;

    [[nodiscard]] std::span<const std::size_t> shape() const { return {extent, rank}; }
    [[nodiscard]] std::size_t cols() const { return rank == 0 ? 1 : extent[rank - 1]; }
    [[nodiscard]] std::size_t count() const { return bytes / format->block_bytes * format->block_length; }
    [[nodiscard]] std::size_t rows() const { return cols() == 0 ? 0 : count() / cols(); }
};

namespace detail {
/// Reads a file from front to back; `data` of a tensor is its place in the file until place_tensors().
class gguf_parser {
public:
    gguf_parser(std::span<const std::byte> file, const gguf_limits& limits) : file_(file), limits_(limits) {}

    status read();

    std::vector<gguf_value> values;
    std::vector<gguf_tensor> tensors;
    std::size_t alignment = gguf_default_alignment;
    std::size_t data_begin = 0;

private:
    [[nodiscard]] std::size_t left() const { return file_.size() - at_; }
    template <class T>
    status number(T& x, const char* what) {
        if (left() < sizeof x)
            return error::format(errc::header_truncated, "byte %zu: want %zu bytes of %s, the file has %zu more", at_, sizeof x,
                                 what, left());
        std::memcpy(&x, file_.data() + at_, sizeof x);
        at_ += sizeof x;
        return {};
    }
    status string(std::string_view& text, const char* what, std::size_t most);
    status read_header(std::uint64_t& n_tensors, std::uint64_t& n_values);
    status read_value(gguf_value& v);
    status read_strings(const gguf_value& v);
    status read_alignment();
    status read_tensor(gguf_tensor& t);
    status measure(gguf_tensor& t, std::uint64_t rank);
    status check_names();
    status place_tensors();

    std::span<const std::byte> file_;
    gguf_limits limits_;
    std::size_t at_ = 0;
    std::vector<std::uint64_t> offsets_;
};

inline status gguf_parser::string(std::string_view& text, const char* what, std::size_t most) {
    std::uint64_t length = 0;
    if (const status ok = number(length, what); !ok) return ok;
    if (length > most || length > left())
        return error::format(errc::string_too_long, "byte %zu: %s has %llu bytes, want at most %zu", at_ - 8, what,
                             static_cast<unsigned long long>(length), std::min(most, left()));
    text = {reinterpret_cast<const char*>(file_.data()) + at_, static_cast<std::size_t>(length)};
    at_ += text.size();
    return {};
}

inline status gguf_parser::read_header(std::uint64_t& n_tensors, std::uint64_t& n_values) {
    // The least that an entry takes: a key of one byte with a value of one, a name of one byte without extents.
    constexpr std::size_t value_bytes = 8 + 1 + 4 + 1;
    constexpr std::size_t tensor_bytes = 8 + 1 + 4 + 4 + 8;
    if (file_.empty()) return error::format(errc::file_empty, "no bytes: want a GGUF file");
    if (reinterpret_cast<std::uintptr_t>(file_.data()) % gguf_host_alignment != 0)
        return error::format(errc::invalid_argument, "the bytes of a GGUF file must start at a multiple of %zu in memory",
                             gguf_host_alignment);
    if (file_.size() < 4 || std::memcmp(file_.data(), "GGUF", 4) != 0)
        return error::format(
            errc::bad_magic, "byte 0: want the letters GGUF, have '%s'",
            printable(std::string_view(reinterpret_cast<const char*>(file_.data()), std::min<std::size_t>(4, file_.size())))
                .c_str());
    at_ = 4;
    std::uint32_t version = 0;
    if (const status ok = number(version, "version"); !ok) return ok;
    if (version != gguf_version)
        return error::format(errc::unsupported_version, "byte 4: want GGUF version %u, have %u%s", gguf_version, version,
                             version == gguf_version << 24 ? ": a big-endian file" : "");
    if (const status ok = number(n_tensors, "tensor count"); !ok) return ok;
    if (const status ok = number(n_values, "key count"); !ok) return ok;
    const auto check = [&](std::uint64_t have, std::size_t most, std::size_t least_bytes, const char* what) -> status {
        most = std::min(most, left() / least_bytes);
        if (have <= most) return {};
        return error::format(errc::count_too_large, "want at most %zu %s in a file of %zu bytes, have %llu", most, what,
                             file_.size(), static_cast<unsigned long long>(have));
    };
    if (const status ok = check(n_tensors, limits_.tensors, tensor_bytes, "tensors"); !ok) return ok;
    return check(n_values, limits_.keys, value_bytes, "keys");
}

inline status gguf_parser::read_value(gguf_value& v) {
    const std::size_t key_at = at_;
    if (const status ok = string(v.key, "the key", limits_.key_bytes); !ok) return ok;
    if (v.key.empty()) return error::format(errc::bad_value, "byte %zu: the key is empty", key_at);
    const auto type = [&](const char* what) -> status {
        std::uint32_t have = 0;
        if (const status ok = number(have, what); !ok) return ok;
        if (have >= gguf_type_count)
            return error::format(errc::unknown_value_type, "key '%s': want a value type from 0 to %zu, have %u",
                                 printable(v.key).c_str(), gguf_type_count - 1, have);
        v.type = static_cast<gguf_type>(have);
        return {};
    };
    if (const status ok = type("value type"); !ok) return ok;
    v.is_array = v.type == gguf_type::array;
    if (v.is_array) {
        if (const status ok = type("element type"); !ok) return ok;
        if (v.type == gguf_type::array)
            return error::format(errc::nested_array, "key '%s': want a list of values, have a list of lists",
                                 printable(v.key).c_str());
        if (const status ok = number(v.count, "list length"); !ok) return ok;
    }
    if (v.type == gguf_type::string) {
        const std::size_t begin = at_;
        if (const status ok = read_strings(v); !ok) return ok;
        v.data = file_.subspan(begin, at_ - begin);
        return {};
    }
    const std::size_t each = size_of(v.type);
    if (v.count > left() / each) {
        if (!v.is_array)
            return error::format(errc::header_truncated, "key '%s': want %zu bytes, the file has %zu more",
                                 printable(v.key).c_str(), each, left());
        return error::format(errc::array_too_long, "key '%s': a list of %llu %s, the file has %zu more bytes",
                             printable(v.key).c_str(), static_cast<unsigned long long>(v.count), name_of(v.type), left());
    }
    v.data = file_.subspan(at_, static_cast<std::size_t>(v.count) * each);
    at_ += v.data.size();
    if (v.type != gguf_type::boolean) return {};
    for (const std::byte b : v.data)
        if (b > std::byte{1})
            return error::format(errc::bad_value, "key '%s': want a boolean of 0 or 1, have %u", printable(v.key).c_str(),
                                 static_cast<unsigned>(b));
    return {};
}

inline status gguf_parser::read_strings(const gguf_value& v) {
    if (v.count > left() / 8) {
        if (!v.is_array)
            return error::format(errc::header_truncated, "key '%s': want a string, the file has %zu more bytes",
                                 printable(v.key).c_str(), left());
        return error::format(errc::array_too_long, "key '%s': a list of %llu strings, the file has %zu more bytes",
                             printable(v.key).c_str(), static_cast<unsigned long long>(v.count), left());
    }
    std::string_view text;
    for (std::uint64_t i = 0; i < v.count; ++i)
        if (const status ok = string(text, "a string", file_.size()); !ok) return ok.error().in(printable(v.key).c_str());
    return {};
}

inline status gguf_parser::read_alignment() {
    const auto by_key = [](const gguf_value& v) { return v.key == "general.alignment"; };
    const auto found = std::find_if(values.begin(), values.end(), by_key);
    if (found == values.end()) return {};
    if (found->is_array || found->type != gguf_type::u32)
        return error::format(errc::wrong_value_type, "key 'general.alignment': want u32, have %s", gguf_type_text(*found).c_str());
    alignment = found->at<std::uint32_t>();
    if (!std::has_single_bit(alignment) || alignment < 8 || alignment > limits_.alignment)
        return error::format(errc::bad_alignment, "key 'general.alignment': want a power of two from 8 to %zu, have %zu",
                             limits_.alignment, alignment);
    return {};
}

inline status gguf_parser::read_tensor(gguf_tensor& t) {
    const std::size_t name_at = at_;
    if (const status ok = string(t.name, "the name of a tensor", limits_.name_bytes); !ok) return ok;
    if (t.name.empty()) return error::format(errc::bad_value, "byte %zu: the name of a tensor is empty", name_at);
    const printable name(t.name);
    std::uint32_t rank = 0;
    if (const status ok = number(rank, "rank"); !ok) return ok;
    if (rank > tensor_view::max_rank)
        return error::format(errc::rank_too_high, "tensor '%s': want at most %zu extents, have %u", name.c_str(),
                             tensor_view::max_rank, rank);
    t.rank = rank;
    for (std::size_t i = rank; i > 0; --i) {
        std::uint64_t extent = 0;
        if (const status ok = number(extent, "an extent"); !ok) return ok.error().in(name.c_str());
        if (extent > static_cast<std::uint64_t>(PTRDIFF_MAX))
            return error::format(errc::size_overflow, "tensor '%s': the extent %llu is beyond the address space", name.c_str(),
                                 static_cast<unsigned long long>(extent));
        t.extent[i - 1] = static_cast<std::size_t>(extent);
    }
    std::uint32_t type = 0;
    if (const status ok = number(type, "a tensor's type"); !ok) return ok.error().in(name.c_str());
    t.format = find_ggml_format(type);
    if (t.format == nullptr)
        return error::format(errc::unknown_dtype, "tensor '%s': the type number %u is not known", name.c_str(), type);
    offsets_.push_back(0);
    if (const status ok = number(offsets_.back(), "an offset"); !ok) return ok.error().in(name.c_str());
    return measure(t, rank);
}

/// Bytes of a tensor.
inline status gguf_parser::measure(gguf_tensor& t, std::uint64_t rank) {
    const ggml_format& format = *t.format;
    if (t.cols() % format.block_length != 0)
        return error::format(errc::partial_block,
                             "tensor '%s': its rows have %zu elements, want a multiple of the %u of a %s block",
                             printable(t.name).c_str(), t.cols(), static_cast<unsigned>(format.block_length), format.name);
    std::uint64_t elements = 1;
    bool fits = true;
    for (std::size_t i = 0; i < rank; ++i) {
        const std::size_t extent = t.extent[i];
        fits = fits && (extent == 0 || elements <= static_cast<std::uint64_t>(PTRDIFF_MAX) / extent);
        elements = fits ? elements * extent : 0;
    }
    const std::uint64_t blocks = elements / format.block_length;
    if (!fits || blocks > static_cast<std::uint64_t>(PTRDIFF_MAX) / format.block_bytes)
        return error::format(errc::size_overflow, "tensor '%s': the product of its extents does not fit the address space",
                             printable(t.name).c_str());
    t.bytes = static_cast<std::size_t>(blocks * format.block_bytes);
    return {};
}

/// Checks the places of the tensors; leaves `data` set.
inline status gguf_parser::place_tensors() {
    data_begin = std::min(round_up(at_, alignment), file_.size());
    const std::size_t size = file_.size() - data_begin;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        gguf_tensor& t = tensors[i];
        const auto offset = static_cast<unsigned long long>(offsets_[i]);
        if (offset % alignment != 0)
            return error::format(errc::offset_misaligned, "tensor '%s': its offset is %llu, want a multiple of %zu",
                                 printable(t.name).c_str(), offset, alignment);
        if (offset > size || t.bytes > size - offset)
            return error::format(errc::offset_out_of_range,
                                 "tensor '%s': %zu bytes at offset %llu leave the %zu bytes of data in the file",
                                 printable(t.name).c_str(), t.bytes, offset, size);
        t.data = file_.data() + data_begin + static_cast<std::size_t>(offset);
    }
    std::sort(tensors.begin(), tensors.end(),
              [](const gguf_tensor& a, const gguf_tensor& b) { return a.data != b.data ? a.data < b.data : a.bytes < b.bytes; });
    for (std::size_t i = 1; i < tensors.size(); ++i) {
        const gguf_tensor& before = tensors[i - 1];
        if (before.data + before.bytes > tensors[i].data)
            return error::format(errc::offset_overlap, "tensor '%s': it overlaps tensor '%s'", printable(tensors[i].name).c_str(),
                                 printable(before.name).c_str());
    }
    return {};
}

/// Sorts both lists by name.
inline status gguf_parser::check_names() {
    std::sort(tensors.begin(), tensors.end(), [](const gguf_tensor& a, const gguf_tensor& b) { return a.name < b.name; });
    const auto twice = std::adjacent_find(tensors.begin(), tensors.end(),
                                          [](const gguf_tensor& a, const gguf_tensor& b) { return a.name == b.name; });
    if (twice != tensors.end())
        return error::format(errc::duplicate_name, "tensor '%s' occurs twice", printable(twice->name).c_str());
    std::sort(values.begin(), values.end(), [](const gguf_value& a, const gguf_value& b) { return a.key < b.key; });
    const auto key =
        std::adjacent_find(values.begin(), values.end(), [](const gguf_value& a, const gguf_value& b) { return a.key == b.key; });
    if (key != values.end()) return error::format(errc::duplicate_key, "key '%s' occurs twice", printable(key->key).c_str());
    return {};
}

inline status gguf_parser::read() {
    std::uint64_t n_tensors = 0;
    std::uint64_t n_values = 0;
    if (const status ok = read_header(n_tensors, n_values); !ok) return ok;
    // The counts fit the size of the file, so this much memory is a small multiple of it.
    values.resize(static_cast<std::size_t>(n_values));
    for (gguf_value& v : values)
        if (const status ok = read_value(v); !ok) return ok;
    if (const status ok = read_alignment(); !ok) return ok;
    tensors.resize(static_cast<std::size_t>(n_tensors));
    offsets_.reserve(tensors.size());
    for (gguf_tensor& t : tensors)
        if (const status ok = read_tensor(t); !ok) return ok;
    if (const status ok = place_tensors(); !ok) return ok;
    return check_names();
}
}  // namespace detail

/// Metadata and tensors of one file, each sorted by name. Points into the bytes it was read from, which must outlive it; moving it
/// leaves its views valid. Reading from several threads is safe.
class gguf {
public:
    gguf() = default;
    gguf(gguf&&) = default;
    gguf& operator=(gguf&&) = default;

    /// Reads a file mapped or owned by the host; `file` starts at a multiple of `gguf_host_alignment`. The data of the tensors is
    /// not touched. Errors, each naming the key, the tensor or the byte: invalid_argument, file_empty, bad_magic, unsupported_version,
    /// header_truncated, count_too_large, string_too_long, array_too_long, nested_array, unknown_value_type, bad_value,
    /// wrong_value_type, bad_alignment, duplicate_key, rank_too_high, unknown_dtype, partial_block, size_overflow,
    /// offset_misaligned, offset_out_of_range, offset_overlap, duplicate_name.
    static result<gguf> parse(std::span<const std::byte> file, const gguf_limits& limits = {}) {
        detail::gguf_parser parser(file, limits);
        if (const status ok = parser.read(); !ok) return ok.error();
        gguf table;
        table.values_ = std::move(parser.values);
        table.tensors_ = std::move(parser.tensors);
        table.alignment_ = parser.alignment;
        return table;
    }

    [[nodiscard]] std::span<const gguf_value> values() const { return values_; }
    [[nodiscard]] std::span<const gguf_tensor> tensors() const { return tensors_; }
    /// Of the tensors in the file.
    [[nodiscard]] std::size_t alignment() const { return alignment_; }

    [[nodiscard]] const gguf_value* value(std::string_view key) const {
        const auto place = std::lower_bound(values_.begin(), values_.end(), key,
                                            [](const gguf_value& v, std::string_view wanted) { return v.key < wanted; });
        return place != values_.end() && place->key == key ? &*place : nullptr;
    }
    [[nodiscard]] const gguf_tensor* tensor(std::string_view name) const {
        const auto place = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                            [](const gguf_tensor& t, std::string_view wanted) { return t.name < wanted; });
        return place != tensors_.end() && place->name == name ? &*place : nullptr;
    }

private:
    std::vector<gguf_value> values_;
    std::vector<gguf_tensor> tensors_;
    std::size_t alignment_ = gguf_default_alignment;
};

namespace detail {
/// Looks at the f16 numbers `offset` bytes into each of the blocks.
[[nodiscard]] inline status check_scales(std::string_view name, const std::byte* data, std::size_t bytes, std::size_t block,
                                         std::size_t offset, std::size_t n) {
    for (std::size_t at = 0; at + block <= bytes; at += block) {
        for (std::size_t i = 0; i < n; ++i) {
            std::uint16_t bits = 0;
            std::memcpy(&bits, data + at + offset + 2 * i, 2);
            if ((bits & 0x7c00u) == 0x7c00u)
                return error::format(errc::not_finite, "tensor '%s': scale %zu of block %zu is not a finite number",
                                     printable(name).c_str(), i, at / block);
        }
    }
    return {};
}
}  // namespace detail

/// Whether the scales of a quantized tensor, row-major as ggml stores it, are finite. Reads all of it, which is why `parse` leaves
/// it alone. Errors: not_finite, naming the tensor and the block.
[[nodiscard]] inline status check_scales(const gguf_tensor& t) {
    return detail::check_scales(t.name, t.data, t.bytes, t.format->block_bytes, t.format->scale_offset, t.format->n_scales);
}
/// The same of a packed tensor, blocks of eight rows.
[[nodiscard]] inline status check_scales(const tensor_view& t) {
    if (!is_packed(t.type)) return {};
    return detail::check_scales(t.name, t.data, t.bytes, matrix_bytes(t.type, packed_rows, packed_cols), 0, packed_rows);
}
/// The same of every tensor of a file without a layout of its own.
[[nodiscard]] inline status check_scales(const gguf& file) {
    for (const gguf_tensor& t : file.tensors())
        if (const status ok = check_scales(t); !ok) return ok;
    return {};
}

PHI4FLASH_END

PHI4FLASH_BEGIN

/// Metadata to be written, in the order of the calls. Keys are checked by plan_gguf.
class gguf_metadata {
public:
    template <class T>
        requires std::is_arithmetic_v<T>
    void add(std::string_view key, T number) {
        begin(key, gguf_type_of<T>());
        put(number);
    }
    void add(std::string_view key, std::string_view text) {
        begin(key, gguf_type::string);
        put_text(text);
    }
    template <class T>
        requires std::is_arithmetic_v<T>
    void add_list(std::string_view key, std::span<const T> numbers) {
        begin_list(key, gguf_type_of<T>(), numbers.size());
        if (!numbers.empty()) bytes_.append(reinterpret_cast<const char*>(numbers.data()), numbers.size_bytes());
    }
    /// `text_of(i)` gives string i as something that a std::string_view can be made of.
    template <class TextOf>
    void add_strings(std::string_view key, std::size_t count, TextOf&& text_of) {
        begin_list(key, gguf_type::string, count);
        for (std::size_t i = 0; i < count; ++i) put_text(text_of(i));
    }

    [[nodiscard]] const std::vector<std::string>& keys() const { return keys_; }
    [[nodiscard]] std::string_view bytes() const { return bytes_; }

private:
    template <class T>
    void put(T x) {
        bytes_.append(reinterpret_cast<const char*>(&x), sizeof x);
    }
    void put_text(std::string_view text) {
        put(static_cast<std::uint64_t>(text.size()));
        bytes_.append(text);
    }
    void begin(std::string_view key, gguf_type type) {
        keys_.emplace_back(key);
        put_text(key);
        put(static_cast<std::uint32_t>(type));
    }
    void begin_list(std::string_view key, gguf_type type, std::size_t count) {
        begin(key, gguf_type::array);
        put(static_cast<std::uint32_t>(type));
        put(static_cast<std::uint64_t>(count));
    }

    std::vector<std::string> keys_;
    std::string bytes_;
};

/// A tensor to be written. The shape is in row-major order, as [rows, cols].
struct gguf_spec {
    std::string name;  ///< printable ASCII, at most 63 bytes
    ggml_type type = ggml_type::f32;
    std::vector<std::size_t> shape;
};

/// Where a file goes: a file_writer, or a host's own.
template <class Out>
concept byte_output = requires(Out& out, std::span<const std::byte> piece) {
    { out.write(piece) } -> std::same_as<status>;
};

/// Takes the next bytes of the tensor being written.
class gguf_sink {
public:
    template <byte_output Out>
    explicit gguf_sink(Out& out)
        : out_(&out), write_([](void* o, std::span<const std::byte> piece) { return static_cast<Out*>(o)->write(piece); }) {}

    /// Errors: those of the file, as file_unwritable.
    status write(std::span<const std::byte> piece) {
        written_ += piece.size();
        return write_(out_, piece);
    }
    template <class T>
    status write(std::span<const T> values) {
        return write(std::as_bytes(values));
    }
    [[nodiscard]] std::uint64_t written() const { return written_; }

private:
    void* out_;
    status (*write_)(void*, std::span<const std::byte>);
    std::uint64_t written_ = 0;
};

/// Where everything in a file goes.
struct gguf_plan {
    std::string header;                ///< all before the data, padded
    std::vector<std::uint64_t> bytes;  ///< of the data of each spec, which follow each other in their order
    std::size_t alignment = 0;         ///< of each
};

namespace detail {
[[nodiscard]] inline result<std::uint64_t> bytes_of(const gguf_spec& spec) {
    constexpr std::size_t most_name = 63;  // readers in C keep 64 with the NUL
    const printable name(spec.name);
    const bool ascii = std::all_of(spec.name.begin(), spec.name.end(), [](char c) { return c >= 0x20 && c <= 0x7e; });
    if (spec.name.empty() || spec.name.size() > most_name || !ascii)
        return error::format(errc::invalid_argument, "tensor '%s': want a name of 1 to %zu bytes of printable ASCII", name.c_str(),
                             most_name);
    const ggml_format* const format = find_ggml_format(static_cast<std::uint32_t>(spec.type));
    if (format == nullptr)
        return error::format(errc::unknown_dtype, "tensor '%s': the type number %u is not known", name.c_str(),
                             static_cast<unsigned>(spec.type));
    if (spec.shape.size() > tensor_view::max_rank)
        return error::format(errc::rank_too_high, "tensor '%s': want at most %zu extents, have %zu", name.c_str(),
                             tensor_view::max_rank, spec.shape.size());
    const std::size_t cols = spec.shape.empty() ? 1 : spec.shape.back();
    if (cols % format->block_length != 0)
        return error::format(errc::partial_block,
                             "tensor '%s': its rows have %zu elements, want a multiple of the %u of a %s block", name.c_str(), cols,
                             static_cast<unsigned>(format->block_length), format->name);
    std::uint64_t bytes = cols / format->block_length;
    bool fits = bytes <= static_cast<std::uint64_t>(PTRDIFF_MAX) / format->block_bytes;
    bytes = fits ? bytes * format->block_bytes : 0;
    for (std::size_t i = 0; i + 1 < spec.shape.size(); ++i) {
        fits = fits && (spec.shape[i] == 0 || bytes <= static_cast<std::uint64_t>(PTRDIFF_MAX) / spec.shape[i]);
        bytes = fits ? bytes * spec.shape[i] : 0;
    }
    if (fits) return bytes;
    return error::format(errc::size_overflow, "tensor '%s': the product of its extents does not fit the address space",
                         name.c_str());
}

[[nodiscard]] inline status check_unique(std::vector<std::string_view> names, errc code, const char* what) {
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice == names.end()) return {};
    return error::format(code, "%s '%s' occurs twice", what, printable(*twice).c_str());
}

template <class T>
void append_number(std::string& to, T x) {
    to.append(reinterpret_cast<const char*>(&x), sizeof x);
}
}  // namespace detail

/// Adds general.alignment by itself. Errors, each naming the key or the tensor: invalid_argument, bad_alignment, duplicate_key,
/// unknown_dtype, rank_too_high, partial_block, size_overflow, duplicate_name.
[[nodiscard]] inline result<gguf_plan> plan_gguf(const gguf_metadata& metadata, std::span<const gguf_spec> specs,
                                                 std::size_t alignment = block_alignment) {
    if (!std::has_single_bit(alignment) || alignment < 8 || alignment > gguf_limits{}.alignment)
        return error::format(errc::bad_alignment, "want an alignment that is a power of two from 8 to %zu, have %zu",
                             gguf_limits{}.alignment, alignment);
    gguf_metadata own;
    own.add("general.alignment", static_cast<std::uint32_t>(alignment));
    std::vector<std::string_view> names(metadata.keys().begin(), metadata.keys().end());
    for (const std::string_view key : names)
        if (key.empty() || key.size() > gguf_limits{}.key_bytes)
            return error::format(errc::invalid_argument, "key '%s': want 1 to %zu bytes", printable(key).c_str(),
                                 gguf_limits{}.key_bytes);
    names.push_back(own.keys().front());
    if (const status ok = detail::check_unique(std::move(names), errc::duplicate_key, "key"); !ok) return ok.error();

    gguf_plan plan{.header = "GGUF", .bytes = {}, .alignment = alignment};
    detail::append_number(plan.header, gguf_version);
    detail::append_number(plan.header, static_cast<std::uint64_t>(specs.size()));
    detail::append_number(plan.header, static_cast<std::uint64_t>(metadata.keys().size() + 1));
    plan.header.append(metadata.bytes()).append(own.bytes());
    std::uint64_t offset = 0;
    names = {};
    for (const gguf_spec& spec : specs) {
        const auto bytes = detail::bytes_of(spec);
        if (!bytes) return bytes.error();
        if (*bytes > static_cast<std::uint64_t>(PTRDIFF_MAX) - offset - 2 * alignment)
            return error::format(errc::size_overflow, "tensor '%s': the file would be too large", printable(spec.name).c_str());
        names.push_back(spec.name);
        detail::append_number(plan.header, static_cast<std::uint64_t>(spec.name.size()));
        plan.header += spec.name;
        detail::append_number(plan.header, static_cast<std::uint32_t>(spec.shape.size()));
        for (std::size_t i = spec.shape.size(); i > 0; --i)
            detail::append_number(plan.header, static_cast<std::uint64_t>(spec.shape[i - 1]));
        detail::append_number(plan.header, static_cast<std::uint32_t>(spec.type));
        detail::append_number(plan.header, offset);
        plan.bytes.push_back(*bytes);
        offset += (*bytes + alignment - 1) / alignment * alignment;
    }
    if (const status ok = detail::check_unique(std::move(names), errc::duplicate_name, "tensor"); !ok) return ok.error();
    plan.header.resize(round_up(plan.header.size(), alignment), '\0');
    return plan;
}

/// Writes a planned file to `out`. `produce(i, sink)` returns a status and
/// writes the data of `specs[i]` to the gguf_sink in as many pieces as it likes; it is called once a tensor, in order. Errors:
/// size_mismatch (naming the tensor that got too many or too few bytes), and those of `out` and `produce`.
template <byte_output Out, class Produce>
[[nodiscard]] status write_gguf(Out& out, const gguf_plan& plan, std::span<const gguf_spec> specs, Produce&& produce) {
    if (const status ok = out.write(std::as_bytes(std::span(plan.header))); !ok) return ok;
    const std::vector<std::byte> zeros(plan.alignment);
    for (std::size_t i = 0; i < specs.size(); ++i) {
        gguf_sink sink(out);
        if (const status ok = produce(i, sink); !ok) return ok;
        if (sink.written() != plan.bytes[i])
            return error::format(errc::size_mismatch, "tensor '%s': its shape wants %llu bytes, %llu were written",
                                 printable(specs[i].name).c_str(), static_cast<unsigned long long>(plan.bytes[i]),
                                 static_cast<unsigned long long>(sink.written()));
        const std::size_t padding = (plan.alignment - plan.bytes[i] % plan.alignment) % plan.alignment;
        if (const status ok = out.write(std::span(zeros).first(padding)); !ok) return ok;
    }
    return {};
}

/// Writes a file, whole or not at all. Errors: those of plan_gguf, write_gguf and file_writer.
template <class Produce>
[[nodiscard]] status write_gguf(const std::filesystem::path& path, const gguf_metadata& metadata, std::span<const gguf_spec> specs,
                                Produce&& produce, std::size_t alignment = block_alignment) {
    const auto plan = plan_gguf(metadata, specs, alignment);
    if (!plan) return plan.error();
    auto file = file_writer::create(path);
    if (!file) return file.error();
    if (const status ok = write_gguf(*file, *plan, specs, produce); !ok) return ok;
    return file->commit();
}

PHI4FLASH_END

#include <cfloat>
PHI4FLASH_BEGIN

inline constexpr std::string_view packed_architecture = "phi4flash";
/// Quantized tensors are blocks of eight rows (core/packed.hpp), not ggml's row-major ones of the same size.
inline constexpr std::string_view packed_layout = "rows8";
/// Tensors with this prefix are tables of the tokenizer, not weights.
inline constexpr std::string_view packed_array_prefix = "phi4flash.tokenizer.";

namespace detail {

/// An extent, and the name that GGUF files of other models give it.
struct packed_extent {
    const char* key;
    std::size_t sambay_shape::* extent;
};
inline constexpr packed_extent packed_extents[extent_count] = {
    {"phi4flash.embedding_length", &sambay_shape::d_model},
    {"phi4flash.block_count", &sambay_shape::n_layers},
    {"phi4flash.feed_forward_length", &sambay_shape::d_ff},
    {"phi4flash.attention.head_count", &sambay_shape::n_heads},
    {"phi4flash.attention.head_count_kv", &sambay_shape::n_kv_heads},
    {"phi4flash.vocab_size", &sambay_shape::vocab},
    {"phi4flash.attention.sliding_window", &sambay_shape::window},
    {"phi4flash.ssm.inner_size", &sambay_shape::d_inner},
    {"phi4flash.ssm.state_size", &sambay_shape::d_state},
    {"phi4flash.ssm.conv_kernel", &sambay_shape::d_conv},
    {"phi4flash.ssm.time_step_rank", &sambay_shape::dt_rank},
};
inline constexpr const char* packed_eps_key = "phi4flash.attention.layer_norm_epsilon";
inline constexpr const char* packed_positions_key = "phi4flash.context_length";
inline constexpr const char* packed_layout_key = "phi4flash.layout";
inline constexpr const char* packed_codebook_key = "phi4flash.codebook";
inline constexpr const char* packed_stop_ids_key = "phi4flash.generation.stop_ids";

/// The codebook of q4_dense as the file has it: 16 levels, then the level that stands for zero.
[[nodiscard]] inline std::array<std::int32_t, 17> packed_codebook() {
    std::array<std::int32_t, 17> book{};
    for (std::size_t i = 0; i < 16; ++i) book[i] = q4_dense.level[i];
    book[16] = q4_dense.zero;
    return book;
}

inline void add_config(gguf_metadata& out, const sambay_config& config) {
    for (const auto& [key, extent] : packed_extents) out.add(key, static_cast<std::uint32_t>(config.shape.*extent));
    out.add(packed_eps_key, config.norm_eps);
    out.add(packed_positions_key, static_cast<std::uint32_t>(config.max_positions));
}

inline void add_generation(gguf_metadata& out, const generation_config& g) {
    const auto add = [&](const char* key, const auto& value) {
        if (value) out.add(key, *value);
    };
    out.add_list(packed_stop_ids_key, std::span<const std::uint32_t>(g.stop_ids));
    if (!g.stop_ids.empty()) out.add("tokenizer.ggml.eos_token_id", g.stop_ids.front());
    add("tokenizer.ggml.bos_token_id", g.bos_id);
    add("tokenizer.ggml.padding_token_id", g.pad_id);
    add("phi4flash.generation.do_sample", g.do_sample);
    add("phi4flash.generation.temperature", g.temperature);
    add("phi4flash.generation.top_p", g.top_p);
    add("phi4flash.generation.min_p", g.min_p);
    add("phi4flash.generation.repetition_penalty", g.repetition_penalty);
    add("phi4flash.generation.top_k", g.top_k);
    add("phi4flash.generation.max_new_tokens", g.max_new_tokens);
}

/// Reads keys of a file. The first defect is kept and everything after it is a no-op, so that a reader is a list of keys.
class gguf_key_reader {
public:
    explicit gguf_key_reader(const gguf& file) : file_(file) {}

    [[nodiscard]] const status& outcome() const { return outcome_; }
    [[nodiscard]] const gguf_value* find(std::string_view key) const { return outcome_ ? file_.value(key) : nullptr; }
    void fail(const error& why) {
        if (outcome_) outcome_ = why;
    }
    void wrong_type(const char* key, const char* want, const gguf_value& have) {
        fail(error::format(errc::wrong_value_type, "key '%s': want %s, have %s", key, want, gguf_type_text(have).c_str()));
    }
    const gguf_value* require(const char* key, const char* want) {
        const gguf_value* const value = find(key);
        if (value == nullptr) fail(error::format(errc::missing_key, "no key '%s': want %s", key, want));
        return value;
    }

    std::size_t extent(const char* key) {
        const gguf_value* const value = require(key, "a number");
        if (value == nullptr) return 0;
        const auto n = value->is_array ? std::nullopt : value->whole();
        if (!n) {
            wrong_type(key, "a whole number from 0", *value);
            return 0;
        }
        if (*n == 0 || *n > max_extent)
            fail(error::format(errc::bad_extent, "key '%s': want 1 to %zu, have %llu", key, max_extent,
                               static_cast<unsigned long long>(*n)));
        return static_cast<std::size_t>(*n);
    }
    std::optional<std::uint32_t> count(const char* key) {
        const gguf_value* const value = find(key);
        if (value == nullptr) return std::nullopt;
        const auto n = value->is_array ? std::nullopt : value->whole();
        if (n && *n <= UINT32_MAX) return static_cast<std::uint32_t>(*n);
        wrong_type(key, "a whole number below 2^32", *value);
        return std::nullopt;
    }
    std::optional<float> number(const char* key) {
        const gguf_value* const value = find(key);
        if (value == nullptr) return std::nullopt;
        const auto x = value->real();
        if (!x) {
            wrong_type(key, "f32", *value);
            return std::nullopt;
        }
        if (std::isfinite(*x) && std::fabs(*x) <= static_cast<double>(FLT_MAX)) return static_cast<float>(*x);
        fail(error::format(errc::not_finite, "key '%s': want a finite 32-bit float, have %g", key, *x));
        return std::nullopt;
    }
    std::optional<bool> boolean(const char* key) {
        const gguf_value* const value = find(key);
        const auto b = value == nullptr ? std::nullopt : value->boolean();
        if (value != nullptr && !b) wrong_type(key, "boolean", *value);
        return b;
    }
    std::optional<std::string_view> text(const char* key) {
        const gguf_value* const value = find(key);
        const auto s = value == nullptr ? std::nullopt : value->text();
        if (value != nullptr && !s) wrong_type(key, "string", *value);
        return s;
    }

private:
    const gguf& file_;
    status outcome_;
};

/// Errors: missing_key, wrong_value_type, bad_extent (every rule of check_shape too), not_finite, unsupported_model.
[[nodiscard]] inline result<sambay_config> read_config(const gguf& file) {
    constexpr const char* architecture = "general.architecture";
    gguf_key_reader in(file);
    (void)in.require(architecture, "'phi4flash'");
    if (const auto have = in.text(architecture); have && *have != packed_architecture)
        in.fail(error::format(errc::unsupported_model, "key '%s': want 'phi4flash', have '%s'", architecture,
                              printable(*have).c_str()));
    sambay_config config;
    for (const auto& [key, extent] : packed_extents) config.shape.*extent = in.extent(key);
    (void)in.require(packed_eps_key, "a number");
    config.norm_eps = in.number(packed_eps_key).value_or(0.0f);
    config.max_positions = in.count(packed_positions_key).value_or(0);
    if (!(config.norm_eps >= FLT_MIN))
        in.fail(error::format(errc::bad_value, "key '%s': want a positive number, have %.9g", packed_eps_key,
                              static_cast<double>(config.norm_eps)));
    if (!in.outcome()) return in.outcome().error();
    if (const status ok = check_shape(config.shape); !ok) return ok.error();
    return config;
}

/// Errors: wrong_value_type, not_finite, unknown_token (a stop id that is no row of the embedding).
[[nodiscard]] inline result<generation_config> read_generation(const gguf& file, std::size_t vocab) {
    gguf_key_reader in(file);
    generation_config g;
    if (const gguf_value* const ids = in.find(packed_stop_ids_key); ids != nullptr) {
        if (!ids->is_array || ids->type != gguf_type::u32) {
            in.wrong_type(packed_stop_ids_key, "a list of u32", *ids);
        } else {
            for (std::size_t i = 0; i < ids->count; ++i) g.stop_ids.push_back(ids->at<std::uint32_t>(i));
        }
    } else if (const auto eos = in.count("tokenizer.ggml.eos_token_id")) {
        g.stop_ids.push_back(*eos);
    }
    for (const std::uint32_t id : g.stop_ids)
        if (id >= vocab)
            in.fail(error::format(errc::unknown_token, "key '%s': want ids below the vocabulary's %zu, have %lu",
                                  packed_stop_ids_key, vocab, static_cast<unsigned long>(id)));
    g.bos_id = in.count("tokenizer.ggml.bos_token_id");
    g.pad_id = in.count("tokenizer.ggml.padding_token_id");
    g.do_sample = in.boolean("phi4flash.generation.do_sample");
    g.temperature = in.number("phi4flash.generation.temperature");
    g.top_p = in.number("phi4flash.generation.top_p");
    g.min_p = in.number("phi4flash.generation.min_p");
    g.repetition_penalty = in.number("phi4flash.generation.repetition_penalty");
    g.top_k = in.count("phi4flash.generation.top_k");
    g.max_new_tokens = in.count("phi4flash.generation.max_new_tokens");
    if (!in.outcome()) return in.outcome().error();
    return g;
}

/// Whether quantized tensors of the file are packed. Errors: wrong_value_type; unsupported_layout (a layout or a codebook that this
/// version does not know); missing_key (a layout without a codebook).
[[nodiscard]] inline result<bool> read_layout(const gguf& file) {
    gguf_key_reader in(file);
    const auto layout = in.text(packed_layout_key);
    if (!in.outcome()) return in.outcome().error();
    if (!layout) return false;
    if (*layout != packed_layout)
        return error::format(errc::unsupported_layout, "key '%s': want 'rows8', have '%s'", packed_layout_key,
                             printable(*layout).c_str());
    const gguf_value* const book = in.require(packed_codebook_key, "the 16 levels and the zero of 4-bit weights");
    if (book == nullptr) return in.outcome().error();
    const auto want = packed_codebook();
    bool same = book->is_array && book->count == want.size();
    for (std::size_t i = 0; same && i < want.size(); ++i) same = book->whole(i) == static_cast<std::uint64_t>(want[i]);
    if (!same)
        return error::format(errc::unsupported_layout, "key '%s': want the 17 numbers of this version's 4-bit format, have %s",
                             packed_codebook_key, gguf_type_text(*book).c_str());
    return true;
}
}  // namespace detail

PHI4FLASH_END

PHI4FLASH_BEGIN

/// ggml's type of the same size as a stored type.
[[nodiscard]] constexpr ggml_type ggml_type_of(dtype type) {
    constexpr ggml_type types[dtype_count] = {ggml_type::f32,  ggml_type::f16,  ggml_type::bf16,
                                              ggml_type::q8_0, ggml_type::q4_0, ggml_type::iq4_nl};
    return types[static_cast<std::size_t>(type)];
}

/// A tensor of a file as weights; `packed` if the file has the packed layout. Errors: wrong_dtype, naming the type; wrong_shape for
/// packed tensors that are not matrices of whole blocks.
[[nodiscard]] inline result<tensor_view> to_tensor_view(const gguf_tensor& t, bool packed) {
    tensor_view view{.name = t.name, .data = t.data, .bytes = t.bytes, .rank = t.rank};
    for (std::size_t i = 0; i < t.rank; ++i) view.extent[i] = t.extent[i];
    const printable name(t.name);
    for (std::size_t i = 0; i < (packed ? dtype_count : plain_dtype_count); ++i) {
        view.type = static_cast<dtype>(i);
        if (ggml_type_of(view.type) != t.format->type) continue;
        if (!is_packed(view.type) || (t.rank == 2 && is_packable(t.extent[0], t.extent[1]))) return view;
        return error::format(errc::wrong_shape,
                             "tensor '%s': want a matrix of 8 n rows and 32 m columns in the packed layout, have %zu rows of %zu",
                             name.c_str(), t.rows(), t.cols());
    }
    return error::format(errc::wrong_dtype, "tensor '%s': want F32, F16%s BF16%s, have %s", name.c_str(), packed ? "," : " or",
                         packed ? ", Q8_0, Q4_0 or IQ4_NL" : "", t.format->name);
}

/// A file and what it says. Reading from several threads is safe. Its views stay valid as long as it lives, and after it has been
/// moved; in memory the host's bytes must outlive it too.
class packed_model {
public:
    packed_model() = default;
    packed_model(packed_model&&) = default;
    packed_model& operator=(packed_model&&) = default;

    /// Maps a file; no weight is touched, unless the options want it. Errors, naming the file: those of mapped_file::open and
    /// from_memory.
    static result<packed_model> open(const std::filesystem::path& path, const mapping_options& options = {}) {
        auto file = mapped_file::open(path, options);
        if (!file) return file.error();
        auto model = from_memory(file->bytes());
        if (!model) return model.error().in(printable(path).c_str());
        model->mapping_ = *std::move(file);
        return model;
    }

    /// The same from bytes that start at a multiple of `gguf_host_alignment`. Errors: those of gguf::parse; missing_key,
    /// wrong_value_type, bad_extent, not_finite, bad_value, unsupported_model, unknown_token; unsupported_layout; wrong_dtype and
    /// wrong_shape of tensors.
    static result<packed_model> from_memory(std::span<const std::byte> bytes);

    [[nodiscard]] const sambay_config& config() const { return config_; }
    [[nodiscard]] const generation_config& generation() const { return generation_; }
    /// general.name; empty where the file has none.
    [[nodiscard]] std::string_view name() const { return text("general.name"); }
    /// tokenizer.chat_template, Jinja; empty where the file has none.
    [[nodiscard]] std::string_view chat_template() const { return text("tokenizer.chat_template"); }

    /// False for a row-major file, whose quantized tensors must be repacked before a model can be bound: they are in file() and not
    /// in tensors().
    [[nodiscard]] bool is_packed_layout() const { return packed_; }
    [[nodiscard]] bool needs_repacking() const { return needs_repacking_; }

    /// Weights that can be used in place, sorted by name.
    [[nodiscard]] std::span<const tensor_view> tensors() const { return tensors_; }
    [[nodiscard]] const tensor_view* find(std::string_view name) const {
        const auto place = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                            [](const tensor_view& t, std::string_view n) { return t.name < n; });
        return place != tensors_.end() && place->name == name ? &*place : nullptr;
    }
    /// Bytes of those weights.
    [[nodiscard]] std::uint64_t bytes() const {
        std::uint64_t sum = 0;
        for (const tensor_view& t : tensors_) sum += t.bytes;
        return sum;
    }

    /// All metadata and tensors as the file has them.
    [[nodiscard]] const gguf& file() const { return file_; }

    /// A table of the tokenizer, aligned, in place: phi4flash.tokenizer.<name>. T is a whole number. Errors: missing_tensor;
    /// wrong_dtype if its elements are not as wide as T.
    template <class T>
    [[nodiscard]] result<std::span<const T>> array(std::string_view name) const;
    [[nodiscard]] bool has_array(std::string_view name) const { return find_array(name) != nullptr; }

    /// Errors: not_finite, naming the first tensor whose scales are damaged. Reads all weights.
    [[nodiscard]] status check_scales() const;

    /// The file as memory; empty after from_memory.
    [[nodiscard]] const mapped_file& mapping() const { return mapping_; }
    /// See mapped_file::release_pages; in memory it does nothing.
    void release_pages() const { mapping_.release_pages(); }

private:
    [[nodiscard]] std::string_view text(std::string_view key) const {
        const gguf_value* const value = file_.value(key);
        return value == nullptr ? std::string_view{} : value->text().value_or(std::string_view{});
    }
    [[nodiscard]] const gguf_tensor* find_array(std::string_view name) const;
    status collect();

    mapped_file mapping_;
    gguf file_;
    sambay_config config_;
    generation_config generation_;
    std::vector<tensor_view> tensors_;
    bool packed_ = false;
    bool needs_repacking_ = false;
};

static_assert(sizeof(q8_block) == packed_rows * format_of(ggml_type::q8_0).block_bytes);
static_assert(sizeof(q4_block) == packed_rows * format_of(ggml_type::q4_0).block_bytes);
static_assert(sizeof(q4_block) == packed_rows * format_of(ggml_type::iq4_nl).block_bytes);

inline status packed_model::collect() {
    for (const gguf_tensor& t : file_.tensors()) {
        if (t.name.starts_with(packed_array_prefix)) continue;
        const auto view = to_tensor_view(t, packed_);
        if (view) {
            tensors_.push_back(*view);
        } else if (!packed_ && t.format->is_weight) {
            needs_repacking_ = true;
        } else {
            return view.error();
        }
    }
    return {};
}

inline result<packed_model> packed_model::from_memory(std::span<const std::byte> bytes) {
    auto file = gguf::parse(bytes);
    if (!file) return file.error();
    packed_model model;
    model.file_ = *std::move(file);
    const auto config = detail::read_config(model.file_);
    if (!config) return config.error();
    model.config_ = *config;
    auto generation = detail::read_generation(model.file_, config->shape.vocab);
    if (!generation) return generation.error();
    model.generation_ = *std::move(generation);
    const auto layout = detail::read_layout(model.file_);
    if (!layout) return layout.error();
    model.packed_ = *layout;
    if (const status ok = model.collect(); !ok) return ok.error();
    return model;
}

inline const gguf_tensor* packed_model::find_array(std::string_view name) const {
    char full[gguf_limits{}.name_bytes + 1];
    if (name.size() > sizeof full - packed_array_prefix.size()) return nullptr;
    std::memcpy(full, packed_array_prefix.data(), packed_array_prefix.size());
    std::memcpy(full + packed_array_prefix.size(), name.data(), name.size());
    return file_.tensor({full, packed_array_prefix.size() + name.size()});
}

template <class T>
result<std::span<const T>> packed_model::array(std::string_view name) const {
    static_assert(std::is_integral_v<T> && sizeof(T) <= 8);
    constexpr ggml_type want = sizeof(T) == 1   ? ggml_type::i8
                               : sizeof(T) == 2 ? ggml_type::i16
                               : sizeof(T) == 4 ? ggml_type::i32
                                                : ggml_type::i64;
    const gguf_tensor* const t = find_array(name);
    if (t == nullptr)
        return error::format(errc::missing_tensor, "tensor '%s%s' is missing", packed_array_prefix.data(), printable(name).c_str());
    if (t->format->type != want)
        return error::format(errc::wrong_dtype, "tensor '%s': want %s, have %s", printable(t->name).c_str(), format_of(want).name,
                             t->format->name);
    return std::span<const T>(reinterpret_cast<const T*>(t->data), t->bytes / sizeof(T));
}

inline status packed_model::check_scales() const {
    if (!packed_) return phi4flash::check_scales(file_);
    for (const tensor_view& t : tensors_)
        if (const status ok = phi4flash::check_scales(t); !ok) return ok;
    return {};
}

PHI4FLASH_END

// ---- phi4flash/text/byte_level.hpp ---------------------------------------------------------------------------------------
/// Byte-level vocabularies spell each byte as a printable character (Radford et al., GPT-2, bytes_to_unicode): there and back.

#include <iterator>
PHI4FLASH_BEGIN

namespace detail {

/// Appends the characters that spell `bytes`.
inline void append_byte_level(std::string_view bytes, std::string& out) {
    for (const char c : bytes) {
        unsigned code = static_cast<unsigned char>(c);
        if (code < 0x21)
            code += 0x100;
        else if (code >= 0x7f && code <= 0xa0)
            code += 0x121 - 0x7f;
        else if (code == 0xad)
            code = 0x143;
        if (code < 0x80) {
            out.push_back(static_cast<char>(code));
        } else {
            out.push_back(static_cast<char>(0xc0 | code >> 6));
            out.push_back(static_cast<char>(0x80 | (code & 0x3f)));
        }
    }
}

/// Which byte a character spells; -1 for none.
struct byte_level_map {
    std::int16_t byte_of[0x144] = {};
    constexpr byte_level_map() {
        for (auto& b : byte_of) b = -1;
        int next = 0x100;
        for (int b = 0; b < 256; ++b) {
            const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
            byte_of[printable ? b : next++] = static_cast<std::int16_t>(b);
        }
    }
};
inline constexpr byte_level_map byte_level{};

/// Replaces `bytes` by what the byte-level characters of `text` stand for. False if a character stands for none.
[[nodiscard]] inline bool from_byte_level(std::string_view text, std::string& bytes) {
    bytes.clear();
    for (std::size_t i = 0; i < text.size(); ++i) {
        std::uint32_t c = static_cast<unsigned char>(text[i]);
        if (c >= 0x80) {
            if (c < 0xC2 || c > 0xC5 || i + 1 == text.size()) return false;
            c = (c & 0x1F) << 6 | (static_cast<unsigned char>(text[++i]) & 0x3F);
        }
        if (c >= std::size(byte_level.byte_of) || byte_level.byte_of[c] < 0) return false;
        bytes.push_back(static_cast<char>(byte_level.byte_of[c]));
    }
    return true;
}

}  // namespace detail

PHI4FLASH_END

PHI4FLASH_BEGIN

/// A table of whole numbers to be stored as the tensor phi4flash.tokenizer.<name>.
struct packed_array {
    std::string name;
    ggml_type type = ggml_type::i8;   ///< i8, i16, i32 or i64
    std::span<const std::byte> data;  ///< whole elements; must live until the file is written

    template <class T>
    static packed_array of(std::string name, std::span<const T> numbers) {
        static_assert(std::is_trivially_copyable_v<T>);
        constexpr ggml_type type = sizeof(T) % 4 != 0 || alignof(T) < 4 ? ggml_type::i8
                                   : alignof(T) == 4                    ? ggml_type::i32
                                                                        : ggml_type::i64;
        return {std::move(name), type, std::as_bytes(numbers)};
    }
};

/// What is written of a tokenizer.
struct packed_tokenizer {
    std::string pre = "gpt-4o";  ///< tokenizer.ggml.pre: what others call the split pattern
    std::string pattern;         ///< the split pattern itself
    bool ignore_merges = false;
    std::vector<std::string> tokens;  ///< as byte-level text, for tokenizer.ggml.tokens
    std::vector<std::int32_t> types;  ///< 1 normal, 3 special, 4 added, 5 unused
    std::vector<std::string> merges;  ///< "left right"
    // The tables: bytes of all tokens with where each begins; three ids a merge; added tokens.
    std::vector<char> token_bytes;
    std::vector<std::uint32_t> token_begins;  ///< [tokens + 1]
    std::vector<std::uint32_t> merge_ids;     ///< [merges, 3]: left, right, merged
    std::vector<std::uint32_t> added_ids;
    std::vector<std::uint8_t> added_flags;  ///< bits: special, lstrip, rstrip, normalized
    std::vector<char> added_bytes;
    std::vector<std::uint32_t> added_begins;  ///< [added + 1]
    std::vector<packed_array> images;         ///< more tables, which the tokenizer knows how to use

    /// All tables; points into this object.
    [[nodiscard]] std::vector<packed_array> arrays() const {
        std::vector<packed_array> all = images;
        const auto add = [&](const char* name, const auto& v) {
            all.push_back(packed_array::of(name, std::span(v.data(), v.size())));
        };
        add("tokens.bytes", token_bytes);
        add("tokens.begins", token_begins);
        add("merges.ids", merge_ids);
        add("added.ids", added_ids);
        add("added.flags", added_flags);
        add("added.bytes", added_bytes);
        add("added.begins", added_begins);
        return all;
    }
};

namespace detail {
inline constexpr std::uint8_t added_special = 1, added_lstrip = 2, added_rstrip = 4, added_normalized = 8;

/// String i of a table of bytes.
[[nodiscard]] inline std::string_view slice(std::span<const char> bytes, std::span<const std::uint32_t> begins, std::size_t i) {
    return {bytes.data() + begins[i], begins[i + 1] - begins[i]};
}

/// Errors: bad_vocabulary.
[[nodiscard]] inline status check_begins(const char* what, std::span<const char> bytes, std::span<const std::uint32_t> begins) {
    bool good = !begins.empty() && begins.front() == 0 && begins.back() == bytes.size();
    for (std::size_t i = 1; good && i < begins.size(); ++i) good = begins[i - 1] <= begins[i];
    if (good) return {};
    return error::format(errc::bad_vocabulary,
                         "tensor 'phi4flash.tokenizer.%s': want rising numbers from 0 to the %zu bytes of the strings", what,
                         bytes.size());
}
}  // namespace detail

/// Describes a tokenizer for a model with `rows` rows of embedding; ids without a string are marked unused.
template <class Tokenizer>
[[nodiscard]] packed_tokenizer describe_tokenizer(const Tokenizer& t, std::size_t rows, bool ignore_merges = false) {
    packed_tokenizer p;
    p.pattern = regex_of(t.pattern());
    p.ignore_merges = ignore_merges;
    p.token_begins.push_back(0);
    for (std::size_t id = 0; id < std::max(rows, t.vocab_size()); ++id) {
        const auto* const added = t.added(static_cast<std::int64_t>(id));
        // The table has the vocabulary's own strings; those of added tokens are in theirs.
        const std::string_view bytes = t.merges().strings().bytes_of(id);
        p.token_bytes.insert(p.token_bytes.end(), bytes.begin(), bytes.end());
        p.token_begins.push_back(static_cast<std::uint32_t>(p.token_bytes.size()));
        std::string text;
        if (added != nullptr) {
            text = added->content;
        } else if (!bytes.empty()) {
            detail::append_byte_level(bytes, text);
        } else {
            text = "[PAD" + std::to_string(id) + "]";
        }
        p.tokens.push_back(std::move(text));
        p.types.push_back(added != nullptr ? (added->special ? 3 : 4) : bytes.empty() ? 5 : 1);
    }
    for (const auto& rule : t.merges().rules()) {
        p.merge_ids.insert(p.merge_ids.end(), {rule.left, rule.right, rule.merged});
        p.merges.push_back(p.tokens[rule.left] + " " + p.tokens[rule.right]);
    }
    p.added_begins.push_back(0);
    for (const auto& a : t.added_tokens()) {
        p.added_ids.push_back(a.id);
        p.added_flags.push_back(
            static_cast<std::uint8_t>((a.special ? detail::added_special : 0) | (a.lstrip ? detail::added_lstrip : 0) |
                                      (a.rstrip ? detail::added_rstrip : 0) | (a.normalized ? detail::added_normalized : 0)));
        p.added_bytes.insert(p.added_bytes.end(), a.content.begin(), a.content.end());
        p.added_begins.push_back(static_cast<std::uint32_t>(p.added_bytes.size()));
    }
    return p;
}

/// Hands the tables of a file to a builder with the interface of tokenizer_builder, which checks them. Errors: missing_tensor,
/// wrong_dtype, missing_key, wrong_value_type, unsupported_tokenizer (another split pattern), bad_vocabulary, bad_merge, and those
/// of the builder.
template <class Builder>
[[nodiscard]] status read_tokenizer(const packed_model& model, Builder& builder) {
    const auto bytes = model.array<char>("tokens.bytes");
    const auto begins = model.array<std::uint32_t>("tokens.begins");
    const auto merges = model.array<std::uint32_t>("merges.ids");
    const auto added_ids = model.array<std::uint32_t>("added.ids");
    const auto added_flags = model.array<std::uint8_t>("added.flags");
    const auto added_bytes = model.array<char>("added.bytes");
    const auto added_begins = model.array<std::uint32_t>("added.begins");
    if (!bytes) return bytes.error();
    for (const auto* table : {&begins, &merges, &added_ids, &added_begins})
        if (!*table) return table->error();
    if (!added_flags) return added_flags.error();
    if (!added_bytes) return added_bytes.error();
    if (const status ok = detail::check_begins("tokens.begins", *bytes, *begins); !ok) return ok;
    if (const status ok = detail::check_begins("added.begins", *added_bytes, *added_begins); !ok) return ok;
    const std::size_t n_tokens = begins->size() - 1;
    if (added_begins->size() != added_ids->size() + 1 || added_flags->size() != added_ids->size() || merges->size() % 3 != 0)
        return error::format(errc::bad_vocabulary, "the tables of the tokenizer differ in length");

    detail::gguf_key_reader in(model.file());
    (void)in.require("phi4flash.tokenizer.pattern", "a split pattern");
    const auto pattern = in.text("phi4flash.tokenizer.pattern");
    builder.ignore_merges = in.boolean("phi4flash.tokenizer.ignore_merges").value_or(false);
    if (!in.outcome()) return in.outcome();
    using split = decltype(builder.pattern);
    int found = -1;
    for (int i = 3; i >= 0; --i)
        if (regex_of(static_cast<split>(i)) == *pattern) found = i;
    if (found < 0)
        return error::format(errc::unsupported_tokenizer, "the split pattern '%s' is not known", printable(*pattern).c_str());
    builder.pattern = static_cast<split>(found);

    builder.reserve(n_tokens, bytes->size(), merges->size() / 3);
    const auto token = [&](std::size_t id) { return id < n_tokens ? detail::slice(*bytes, *begins, id) : std::string_view{}; };
    for (std::size_t id = 0; id < n_tokens; ++id)
        if (const std::string_view s = token(id); !s.empty())
            if (const status ok = builder.add_token(id, s); !ok) return ok;
    for (std::size_t i = 0; i < merges->size(); i += 3)
        if (const status ok = builder.add_merge(token((*merges)[i]), token((*merges)[i + 1])); !ok) return ok;
    for (std::size_t i = 0; i < added_ids->size(); ++i) {
        const std::uint8_t flags = (*added_flags)[i];
        const status ok = builder.add_added_token({.id = (*added_ids)[i],
                                                   .content = std::string(detail::slice(*added_bytes, *added_begins, i)),
                                                   .special = (flags & detail::added_special) != 0,
                                                   .lstrip = (flags & detail::added_lstrip) != 0,
                                                   .rstrip = (flags & detail::added_rstrip) != 0,
                                                   .normalized = (flags & detail::added_normalized) != 0});
        if (!ok) return ok;
    }
    return {};
}

PHI4FLASH_END

PHI4FLASH_BEGIN

/// The released chat template in fewer words, as Jinja.
inline constexpr std::string_view default_chat_template =
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% if m['role'] == 'system' and m['tools'] is defined and m['tools'] is not none %}<|tool|>{{ m['tools'] }}<|/tool|>{% endif "
    "%}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% else %}<|endoftext|>{% endif %}";

/// Everything about a model but its weights.
struct packed_model_info {
    std::string name;  ///< general.name
    sambay_config config;
    generation_config generation;
    std::string chat_template{default_chat_template};  ///< Jinja
    const packed_tokenizer* tokenizer = nullptr;       ///< a file without one holds weights only
};

/// A weight to be written. Packed types take matrices of 8 n rows and 32 m columns.
struct packed_tensor {
    std::string name;
    dtype type = dtype::f32;
    std::vector<std::size_t> shape;  ///< row-major, as [rows, cols]
};

namespace detail {
/// general.file_type: what most of the bytes are, by llama.cpp's numbers.
[[nodiscard]] inline std::uint32_t file_type_of(std::span<const packed_tensor> tensors) {
    constexpr std::uint32_t numbers[dtype_count] = {0, 1, 32, 7, 2, 25};
    double elements[dtype_count] = {};
    for (const packed_tensor& t : tensors) {
        double n = 1;
        for (const std::size_t extent : t.shape) n *= static_cast<double>(extent);
        elements[static_cast<std::size_t>(t.type)] += n;
    }
    return numbers[std::max_element(std::begin(elements), std::end(elements)) - std::begin(elements)];
}

inline void add_tokenizer(gguf_metadata& out, const packed_tokenizer& t) {
    out.add("tokenizer.ggml.model", "gpt2");
    out.add("tokenizer.ggml.pre", t.pre);
    out.add_strings("tokenizer.ggml.tokens", t.tokens.size(), [&](std::size_t i) { return std::string_view(t.tokens[i]); });
    out.add_list("tokenizer.ggml.token_type", std::span<const std::int32_t>(t.types));
    out.add_strings("tokenizer.ggml.merges", t.merges.size(), [&](std::size_t i) { return std::string_view(t.merges[i]); });
    out.add("tokenizer.ggml.add_bos_token", false);
    out.add("tokenizer.ggml.add_eos_token", false);
    out.add("phi4flash.tokenizer.pattern", t.pattern);
    out.add("phi4flash.tokenizer.ignore_merges", t.ignore_merges);
}

[[nodiscard]] inline gguf_metadata describe_model(const packed_model_info& info, std::span<const packed_tensor> tensors) {
    gguf_metadata out;
    out.add("general.architecture", packed_architecture);
    out.add("general.type", "model");
    out.add("general.name", info.name);
    out.add("general.file_type", file_type_of(tensors));
    out.add("general.quantization_version", std::uint32_t{2});
    add_config(out, info.config);
    out.add(packed_layout_key, packed_layout);
    const auto book = packed_codebook();
    out.add_list(packed_codebook_key, std::span<const std::int32_t>(book));
    add_generation(out, info.generation);
    out.add("tokenizer.chat_template", info.chat_template);
    if (info.tokenizer != nullptr) add_tokenizer(out, *info.tokenizer);
    return out;
}

/// The weights first, in their order, then the tables.
[[nodiscard]] inline result<std::vector<gguf_spec>> plan_tensors(std::span<const packed_tensor> tensors,
                                                                 std::span<const packed_array> arrays) {
    std::vector<gguf_spec> specs;
    for (const packed_tensor& t : tensors) {
        if (std::string_view(t.name).starts_with(packed_array_prefix))
            return error::format(errc::invalid_argument, "tensor '%s': want a name without the tokenizer's prefix",
                                 printable(t.name).c_str());
        if (is_packed(t.type) && (t.shape.size() != 2 || !is_packable(t.shape[0], t.shape[1])))
            return error::format(errc::wrong_shape, "tensor '%s': want a matrix of 8 n rows and 32 m columns for %s",
                                 printable(t.name).c_str(), name_of(t.type));
        specs.push_back({t.name, ggml_type_of(t.type), t.shape});
    }
    for (const packed_array& a : arrays)
        specs.push_back({std::string(packed_array_prefix) + a.name, a.type, {a.data.size() / format_of(a.type).block_bytes}});
    return specs;
}
}  // namespace detail

/// Writes a model to `out`. `produce(i, sink)` returns a status and writes the bytes of `tensors[i]` (matrix_bytes of it) to the
/// gguf_sink, a few rows at a time as it likes; it is called once a tensor, in order. Errors: those of check_shape, plan_gguf and
/// write_gguf; wrong_shape, invalid_argument.
template <byte_output Out, class Produce>
[[nodiscard]] status write_packed_model(Out& out, const packed_model_info& info, std::span<const packed_tensor> tensors,
                                        Produce&& produce) {
    if (const status ok = check_shape(info.config.shape); !ok) return ok;
    const auto arrays = info.tokenizer == nullptr ? std::vector<packed_array>{} : info.tokenizer->arrays();
    const auto specs = detail::plan_tensors(tensors, arrays);
    if (!specs) return specs.error();
    const auto plan = plan_gguf(detail::describe_model(info, tensors), *specs);
    if (!plan) return plan.error();
    return write_gguf(out, *plan, *specs, [&](std::size_t i, gguf_sink& sink) -> status {
        return i < tensors.size() ? produce(i, sink) : sink.write(arrays[i - tensors.size()].data);
    });
}

/// Writes a file, whole or not at all. Errors: the same, and file_unwritable.
template <class Produce>
[[nodiscard]] status write_packed_model(const std::filesystem::path& path, const packed_model_info& info,
                                        std::span<const packed_tensor> tensors, Produce&& produce) {
    auto file = file_writer::create(path);
    if (!file) return file.error();
    if (const status ok = write_packed_model(*file, info, tensors, produce); !ok) return ok;
    return file->commit();
}

PHI4FLASH_END

PHI4FLASH_BEGIN

/// Which type a matrix gets. One whose extents are no multiples of 8 rows and 32 columns stays bf16 where a packed type is wanted.
struct conversion {
    dtype matrices = dtype::q4_dense;
    /// The embedding, which is the output layer too: 13 % of the released model's weights, and the last matrix of every step.
    dtype embedding = dtype::q4_dense;
    /// x_proj and dt_proj of Mamba: under a hundredth of the weights, and what they give goes through an exponential.
    dtype selection = dtype::q8;
};

/// The type of a tensor of the model in the converted file. What is packed already stays as it is.
[[nodiscard]] inline dtype converted_type(const conversion& how, std::string_view name, std::span<const std::size_t> shape,
                                          tensor_role role, dtype stored) {
    if (role != tensor_role::matrix || is_packed(stored)) return stored;
    const bool selects = name.ends_with(".x_proj.weight") || name.ends_with(".dt_proj.weight");
    // Where everything else is plain, so are they.
    const dtype want = name == "model.embed_tokens.weight"        ? how.embedding
                       : selects && is_packed(how.matrices) ? how.selection
                                                            : how.matrices;
    return is_packed(want) && !is_packable(shape[0], shape[1]) ? dtype::bf16 : want;
}

namespace detail {

/// Rows [first, first + count) of a plain matrix as `type`.   Shape: rows is scratch of 8 * cols floats.
inline void convert_rows(const matrix_view& m, std::size_t first, std::size_t count, dtype type, float* rows, std::byte* out) {
    if (is_packed(type)) return pack_eight_rows(m, first, type, rows, out);
    for (std::size_t r = first; r < first + count; ++r, out += matrix_bytes(type, 1, m.cols)) {
        read_row(m, r, rows);
        for (std::size_t c = 0; c < m.cols; ++c) {
            switch (type) {
                case dtype::f32: reinterpret_cast<float*>(out)[c] = rows[c]; break;
                case dtype::f16: reinterpret_cast<f16*>(out)[c] = to_f16(rows[c]); break;
                default: reinterpret_cast<bf16*>(out)[c] = to_bf16(rows[c]); break;
            }
        }
    }
}

/// Writes one matrix, a few megabytes at a time; the rows of each piece are shared between threads.
template <class Tell>
[[nodiscard]] status convert_matrix(const matrix_view& m, dtype type, executor_ref threads, gguf_sink& out, Tell&& tell) {
    const std::size_t stride = matrix_bytes(type, packed_rows, m.cols);
    const std::size_t blocks = (m.rows + packed_rows - 1) / packed_rows;
    const std::size_t at_once = std::clamp<std::size_t>((std::size_t{4} << 20) / stride, 1, blocks);
    std::vector<std::byte> bytes(at_once * stride);
    std::vector<float> scratch(at_once * packed_rows * m.cols);
    for (std::size_t b = 0; b < blocks; b += at_once) {
        const std::size_t n = std::min(at_once, blocks - b);
        threads.parallel_for(n, 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                const std::size_t first = (b + i) * packed_rows;
                convert_rows(m, first, std::min(packed_rows, m.rows - first), type, scratch.data() + i * packed_rows * m.cols,
                             bytes.data() + i * stride);
            }
        });
        const std::size_t rows = std::min(n * packed_rows, m.rows - b * packed_rows);
        const auto piece = std::span<const std::byte>(bytes).first(matrix_bytes(type, rows, m.cols));
        if (const status ok = out.write(piece); !ok) return ok;
        tell(piece.size());
    }
    return {};
}

}  // namespace detail

/// Writes the model in `from` to `path`, whole or not at all. `info.config` and the rest of `info` say
/// what the file says beside its weights. `tell(done, total)` gets bytes of weights after every few megabytes. Takes about 20 MB of
/// memory. Errors: those of model::bind and write_packed_model.
template <tensor_source Source, class Tell>
[[nodiscard]] status convert_model(const Source& from, const packed_model_info& info, const conversion& how,
                                   const std::filesystem::path& path, executor_ref threads, Tell&& tell) {
    const auto bound = model<any_sambay>::bind(from);  // every tensor is there, with its shape, and no other
    if (!bound) return bound.error();
    std::vector<packed_tensor> tensors;
    std::vector<const tensor_view*> sources;
    std::uint64_t total = 0;
    for_each_tensor(bound->shape(), [&](std::string_view name, std::span<const std::size_t> shape, tensor_role role) {
        const tensor_view* const source = from.find(name);
        tensors.push_back({std::string(name), converted_type(how, name, shape, role, source->type), {shape.begin(), shape.end()}});
        sources.push_back(source);
        std::size_t count = 1;
        for (const std::size_t n : shape) count *= n;
        total += is_packed(tensors.back().type) ? matrix_bytes(tensors.back().type, shape[0], shape[1])
                                                : count * size_of(tensors.back().type);
    });
    std::uint64_t done = 0;
    const auto advance = [&](std::size_t bytes) { tell(done += bytes, total); };
    return write_packed_model(path, info, tensors, [&](std::size_t i, gguf_sink& out) -> status {
        const tensor_view& source = *sources[i];
        if (source.type != tensors[i].type) {
            const matrix_view m{source.data, source.extent[0], source.extent[1], source.type};
            return detail::convert_matrix(m, tensors[i].type, threads, out, advance);
        }
        advance(source.bytes);
        return out.write(std::span(source.data, source.bytes));
    });
}

PHI4FLASH_END

// ---- phi4flash/io/model_files.hpp ----------------------------------------------------------------------------------------
/// What a user names as a model: a checkpoint folder of Hugging Face, or one packed file.

// ---- phi4flash/io/checkpoint.hpp -----------------------------------------------------------------------------------------
/// A checkpoint in the Hugging Face layout: a folder whose weights are mapped, or bytes that the host owns. Names, types
/// and places are checked here; what a model needs of them, and in which shape, is the model's business.

// ---- phi4flash/io/checkpoint_index.hpp -----------------------------------------------------------------------------------
/// model.safetensors.index.json: which shard of a checkpoint holds which tensor.

// ---- phi4flash/io/json.hpp -----------------------------------------------------------------------------------------------
/// JSON from people whom nobody knows: nlohmann's parser behind limits of size and depth, with duplicate keys refused and
/// every error a value that says at which byte. Nothing here throws, or aborts where exceptions are off.

#if PHI4FLASH_HAS_JSON
#include <nlohmann/json.hpp>

#include <functional>
#include <set>
PHI4FLASH_BEGIN

/// What is refused before it is read.
struct json_limits {
    std::size_t bytes = std::size_t{1} << 20;
    std::size_t depth = 16;  ///< objects and arrays inside one another
};

using json_value = nlohmann::json;

/// The events of a document, checked. Derive from it, hide the events that matter and call the base's where one hides
/// `start_*`, `end_*`; an event that returns `fail(...)` ends the reading with that error.
class json_events {
public:
    explicit json_events(const json_limits& limits) : limits_(limits) {}

    bool null() { return true; }
    bool boolean(bool) { return true; }
    bool number_integer(std::int64_t) { return true; }  ///< negative ones only
    bool number_unsigned(std::uint64_t) { return true; }
    bool number_float(double, const std::string&) { return true; }  ///< also whole numbers that do not fit 64 bits
    bool string(std::string&) { return true; }
    bool binary(json_value::binary_t&) { return true; }  ///< never in JSON; the parser's interface wants it
    bool start_object(std::size_t) {
        keys_.emplace_back();
        return enter();
    }
    bool end_object() {
        keys_.pop_back();
        --depth_;
        return true;
    }
    bool start_array(std::size_t) { return enter(); }
    bool end_array() {
        --depth_;
        return true;
    }
    bool key(std::string& name) {
        if (first_use(name)) return true;
        return fail(error::format(errc::json_duplicate_key, "byte %zu: key '%s' occurs twice in one object", position(),
                                  printable(name).c_str()));
    }
    bool parse_error(std::size_t at, const std::string&, const json_value::exception& why) {
        std::string_view text = why.what();  // "[json.exception.parse_error.101] parse error at ...: syntax error ..."
        if (const auto tag = text.find("] "); tag != std::string_view::npos) text.remove_prefix(tag + 2);
        if (const auto place = text.find("syntax error "); place != std::string_view::npos) text.remove_prefix(place);
        return fail(error::format(errc::json_syntax, "byte %zu: not JSON: %s", at, printable(text).c_str()));
    }

    [[nodiscard]] const status& outcome() const { return outcome_; }
    /// Bytes read so far: just after the text of the current event.
    [[nodiscard]] std::size_t position() const { return position_; }
    [[nodiscard]] std::size_t* position_counter() { return &position_; }

protected:
    bool fail(const error& why) {
        outcome_ = why;
        return false;
    }
    /// False if the current object has this key already.
    [[nodiscard]] bool first_use(const std::string& name) { return keys_.back().insert(name).second; }

private:
    bool enter() {
        if (++depth_ <= limits_.depth) return true;
        return fail(error::format(errc::json_too_deep, "byte %zu: want at most %zu objects and arrays inside one another",
                                  position(), limits_.depth));
    }

    json_limits limits_;
    status outcome_;
    std::size_t depth_ = 0;
    std::size_t position_ = 0;
    std::vector<std::set<std::string, std::less<>>> keys_;
};

namespace detail {
/// Walks over the text and tells how far it has come, which the parser's events do not.
struct counting_iterator {
    using iterator_category = std::input_iterator_tag;
    using value_type = char;
    using difference_type = std::ptrdiff_t;
    using pointer = const char*;
    using reference = const char&;

    const char* place = nullptr;
    std::size_t* count = nullptr;

    reference operator*() const { return *place; }
    counting_iterator& operator++() {
        ++place;
        ++*count;
        return *this;
    }
    counting_iterator operator++(int) {
        const counting_iterator before = *this;
        ++*this;
        return before;
    }
    friend bool operator==(const counting_iterator& a, const counting_iterator& b) { return a.place == b.place; }
    friend bool operator!=(const counting_iterator& a, const counting_iterator& b) { return a.place != b.place; }
};
}  // namespace detail

/// Sends the events of `text` to `events`, of a class derived from json_events. Errors: json_too_large, json_syntax,
/// json_too_deep, json_duplicate_key, and those of the derived class.
template <class Events>
[[nodiscard]] status read_json_events(std::string_view text, const json_limits& limits, Events& events) {
    if (text.size() > limits.bytes)
        return error::format(errc::json_too_large, "want at most %zu bytes of JSON, have %zu", limits.bytes, text.size());
    // The parser takes a NUL for the end of the text and would accept whatever hides behind it.
    if (const auto nul = text.find('\0'); nul != std::string_view::npos)
        return error::format(errc::json_syntax, "byte %zu: not JSON: a NUL byte", nul);
    std::size_t* const count = events.position_counter();
    const detail::counting_iterator first{text.data(), count};
    const detail::counting_iterator last{text.data() + text.size(), count};
    const bool complete = json_value::sax_parse(first, last, &events);
    if (complete || !events.outcome()) return events.outcome();
    return error::format(errc::json_syntax, "byte %zu: not JSON", events.position());
}

/// A small document as a value. Errors: json_too_large, json_syntax, json_too_deep, json_duplicate_key.
[[nodiscard]] inline result<json_value> read_json(std::string_view text, const json_limits& limits = {}) {
    json_events checked(limits);
    if (const status ok = read_json_events(text, limits, checked); !ok) return ok.error();
    return json_value::parse(text.begin(), text.end(), nullptr, false);
}

namespace detail {
/// What a value is, for a sentence: "a string", or the number itself.
[[nodiscard]] inline std::string describe(const json_value& value) {
    char text[32] = {};
    if (const auto* u = value.get_ptr<const json_value::number_unsigned_t*>()) {
        std::snprintf(text, sizeof text, "%llu", static_cast<unsigned long long>(*u));
    } else if (const auto* i = value.get_ptr<const json_value::number_integer_t*>()) {
        std::snprintf(text, sizeof text, "%lld", static_cast<long long>(*i));
    } else if (const auto* d = value.get_ptr<const json_value::number_float_t*>()) {
        std::snprintf(text, sizeof text, "%.9g", *d);
    } else if (const auto* s = value.get_ptr<const std::string*>()) {
        return "'" + std::string(printable(*s).c_str()) + "'";
    } else if (const auto* b = value.get_ptr<const bool*>()) {
        return *b ? "true" : "false";
    } else {
        return value.is_null() ? "null" : value.is_array() ? "a list" : "an object";
    }
    return text;
}

[[nodiscard]] inline error wrong_type(const char* key, const char* want, const json_value& have) {
    return error::format(errc::json_wrong_type, "'%s': want %s, have %s", key, want, describe(have).c_str());
}

/// The value of a key, or nullptr where the object has no such key.
[[nodiscard]] inline const json_value* member(const json_value& object, const char* key) {
    const auto place = object.find(key);
    return place == object.end() ? nullptr : &*place;
}

/// A whole number from low to high. Errors: json_wrong_type, and `out_of_range` for any other number.
[[nodiscard]] inline result<std::size_t> whole_number(const json_value& value, const char* key, std::size_t low, std::size_t high,
                                                      errc out_of_range) {
    if (!value.is_number()) return wrong_type(key, "a number", value);
    const auto* number = value.get_ptr<const json_value::number_unsigned_t*>();
    if (number != nullptr && *number >= low && *number <= high) return static_cast<std::size_t>(*number);
    return error::format(out_of_range, "'%s': want a whole number from %zu to %zu, have %s", key, low, high,
                         describe(value).c_str());
}
}  // namespace detail

PHI4FLASH_END
#endif  // PHI4FLASH_HAS_JSON

#if PHI4FLASH_HAS_JSON

PHI4FLASH_BEGIN

/// Limits of the index; the released one has 35 KiB.
inline constexpr json_limits checkpoint_index_limits{.bytes = std::size_t{64} << 20, .depth = 16};

/// The index, checked: every shard is the name of a file in the folder itself.
struct checkpoint_index {
    struct entry {
        std::string tensor;
        std::size_t shard;  ///< index into `shards`
    };
    std::vector<std::string> shards;  ///< file names, sorted, each once
    std::vector<entry> entries;       ///< sorted by tensor
};

/// Whether `name` can only mean a file in the folder it is joined to, on POSIX and on Windows.
[[nodiscard]] constexpr bool is_plain_file_name(std::string_view name) {
    if (name.empty() || name == "." || name == "..") return false;
    for (const char c : name)
        if (c == '/' || c == '\\' || c == ':' || static_cast<unsigned char>(c) < 0x20) return false;
    return true;
}

/// Errors: json_* (a tensor named twice is json_duplicate_key), path_outside_folder, index_mismatch (no tensor at all).
[[nodiscard]] inline result<checkpoint_index> read_checkpoint_index(std::string_view text) {
    const auto document = read_json(text, checkpoint_index_limits);
    if (!document) return document.error();
    if (!document->is_object()) return detail::wrong_type("the index", "an object", *document);
    const json_value* const map = detail::member(*document, "weight_map");
    if (map == nullptr) return error::format(errc::json_missing_key, "no key 'weight_map'");
    if (!map->is_object()) return detail::wrong_type("weight_map", "an object", *map);
    if (map->empty()) return error::format(errc::index_mismatch, "'weight_map' names no tensor");

    checkpoint_index index;
    for (auto it = map->begin(); it != map->end(); ++it) {  // nlohmann's objects are sorted by key
        const auto* const file = it.value().get_ptr<const std::string*>();
        if (file == nullptr) return detail::wrong_type(printable(it.key()).c_str(), "the name of a file", it.value());
        if (!is_plain_file_name(*file))
            return error::format(errc::path_outside_folder, "tensor '%s': want a file in the same folder, have '%s'",
                                 printable(it.key()).c_str(), printable(*file).c_str());
        index.shards.push_back(*file);
    }
    std::sort(index.shards.begin(), index.shards.end());
    index.shards.erase(std::unique(index.shards.begin(), index.shards.end()), index.shards.end());
    for (auto it = map->begin(); it != map->end(); ++it) {
        const auto place = std::lower_bound(index.shards.begin(), index.shards.end(), *it.value().get_ptr<const std::string*>());
        index.entries.push_back({it.key(), static_cast<std::size_t>(place - index.shards.begin())});
    }
    return index;
}

PHI4FLASH_END
#endif  // PHI4FLASH_HAS_JSON

// ---- phi4flash/io/hf_config.hpp ------------------------------------------------------------------------------------------
/// config.json and generation_config.json of a Hugging Face folder. What decides the computation is required or has the
/// default of the model's class. A key of config.json that nobody knows is refused: it may ask for another computation.

#if PHI4FLASH_HAS_JSON

PHI4FLASH_BEGIN

/// Limits of both files; the released ones have 1 KiB.
inline constexpr json_limits hf_config_limits{.bytes = std::size_t{1} << 20, .depth = 32};

namespace detail {
/// The members of a configuration object. The first defect is kept and everything after it is a no-op, so that a reader
/// is a list of keys.
class config_reader {
public:
    explicit config_reader(const json_value& object) : object_(object) {}

    [[nodiscard]] const status& outcome() const { return outcome_; }
    [[nodiscard]] const json_value* find(const char* key) const { return outcome_ ? member(object_, key) : nullptr; }
    void fail(const error& why) {
        if (outcome_) outcome_ = why;
    }

    std::size_t extent(const char* key) {
        const json_value* const value = find(key);
        if (value != nullptr) return extent(key, *value);
        fail(error::format(errc::json_missing_key, "no key '%s': want a number", key));
        return 0;
    }
    std::size_t extent_or(const char* key, std::size_t class_default) {
        const json_value* const value = find(key);
        return value != nullptr ? extent(key, *value) : class_default;
    }
    std::size_t extent(const char* key, const json_value& value) {
        const auto number = whole_number(value, key, 1, max_extent, errc::bad_extent);
        if (number) return *number;
        fail(number.error());
        return 0;
    }

    void want_bool(const char* key, bool want) {
        const json_value* const value = find(key);
        if (value == nullptr) return;
        const auto* have = value->get_ptr<const bool*>();
        if (have == nullptr) return fail(wrong_type(key, "true or false", *value));
        if (*have != want) unsupported(key, want ? "true" : "false", *value);
    }
    void want_string(const char* key, const char* want) {
        const json_value* const value = find(key);
        if (value == nullptr) return;
        const auto* have = value->get_ptr<const std::string*>();
        if (have == nullptr) return fail(wrong_type(key, "a string", *value));
        if (*have != want) unsupported(key, want, *value);
    }
    void unsupported(const char* key, const char* want, const json_value& have) {
        fail(error::format(errc::unsupported_model, "'%s': want %s, have %s", key, want, describe(have).c_str()));
    }

    /// A finite number; null counts as absent.
    std::optional<float> number(const char* key) {
        const json_value* const value = find(key);
        if (value == nullptr || value->is_null()) return std::nullopt;
        double x = 0;
        if (const auto* f = value->get_ptr<const json_value::number_float_t*>()) {
            x = *f;
        } else if (const auto* i = value->get_ptr<const json_value::number_integer_t*>()) {  // unsigned ones included
            x = static_cast<double>(*i);
        } else {
            fail(wrong_type(key, "a number", *value));
            return std::nullopt;
        }
        if (std::isfinite(x) && std::fabs(x) <= static_cast<double>(FLT_MAX)) return static_cast<float>(x);
        fail(error::format(errc::not_finite, "'%s': want a finite 32-bit float, have %s", key, describe(*value).c_str()));
        return std::nullopt;
    }
    std::optional<std::uint32_t> count(const char* key) {
        const json_value* const value = find(key);
        return value == nullptr || value->is_null() ? std::nullopt : count(key, *value);
    }
    std::optional<std::uint32_t> count(const char* key, const json_value& value) {
        const auto number = whole_number(value, key, 0, UINT32_MAX, errc::json_bad_number);
        if (number) return static_cast<std::uint32_t>(*number);
        fail(number.error());
        return std::nullopt;
    }
    std::optional<bool> boolean(const char* key) {
        const json_value* const value = find(key);
        if (value == nullptr || value->is_null()) return std::nullopt;
        if (const auto* b = value->get_ptr<const bool*>()) return *b;
        fail(wrong_type(key, "true or false", *value));
        return std::nullopt;
    }

private:
    const json_value& object_;
    status outcome_;
};

/// The window, as a number or as a list with one entry a layer: null, or the window on odd layers of the first half.
inline std::size_t read_window(config_reader& in, std::size_t n_layers) {
    constexpr const char* key = "sliding_window";
    const json_value* const value = in.find(key);
    if (value == nullptr || !value->is_array()) return in.extent(key);
    if (value->size() != n_layers) {
        in.fail(
            error::format(errc::bad_extent, "'%s': want one entry for each of %zu layers, have %zu", key, n_layers, value->size()));
        return 0;
    }
    std::size_t window = 0;
    std::size_t layer = 0;
    for (const json_value& entry : *value) {
        const bool windowed = layer % 2 == 1 && layer < n_layers / 2;
        if (entry.is_null() && windowed)
            in.fail(error::format(errc::bad_extent, "'%s'[%zu]: want a number on this layer, have null", key, layer));
        if (!entry.is_null()) {
            const std::size_t have = in.extent(key, entry);
            if (!windowed)
                in.fail(error::format(errc::bad_extent, "'%s'[%zu]: want null on this layer, have %zu", key, layer, have));
            if (window != 0 && have != window)
                in.fail(error::format(errc::bad_extent, "'%s'[%zu]: want %zu as on the layers before, have %zu", key, layer, window,
                                      have));
            window = have;
        }
        ++layer;
    }
    return window;
}

/// Keys of config.json that decide nothing here: training, bookkeeping, how other programs run the model, and every key of
/// generation_config.json. Keys that begin with an underscore are private to the program that wrote them.
inline constexpr std::string_view idle_config_keys[] = {
    "architectures", "attention_dropout", "auto_map", "bad_words_ids", "begin_suppress_tokens", "bos_token_id",
    "chunk_size_feed_forward", "cross_attention_hidden_size", "decoder_start_token_id", "diversity_penalty", "do_sample", "dtype",
    "early_stopping", "embd_pdrop", "encoder_no_repeat_ngram_size", "eos_token_id", "exponential_decay_length_penalty",
    "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "id2label", "initializer_range", "is_decoder",
    "is_encoder_decoder", "label2id", "length_penalty", "max_length", "max_new_tokens", "min_length", "min_p", "name_or_path",
    "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "output_attentions", "output_hidden_states",
    "output_scores", "pad_token_id", "prefix", "problem_type", "remove_invalid_values", "repetition_penalty", "resid_pdrop",
    "return_dict", "return_dict_in_generate", "sep_token_id", "suppress_tokens", "task_specific_params", "temperature",
    "tie_encoder_decoder", "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript", "transformers_version",
    "typical_p", "use_bfloat16", "use_cache",
};
/// Keys of config.json that are read.
inline constexpr std::string_view read_config_keys[] = {
    "head_dim", "hidden_act", "hidden_size", "intermediate_size", "layer_norm_eps", "lm_head_bias", "mamba_conv_bias",
    "mamba_d_conv", "mamba_d_state", "mamba_dt_rank", "mamba_expand", "mamba_proj_bias", "max_position_embeddings",
    "mb_per_layer", "mlp_bias", "model_type", "num_attention_heads", "num_hidden_layers", "num_key_value_heads",
    "sliding_window", "tie_word_embeddings", "vocab_size",
};

/// Errors: json_unknown_key.
[[nodiscard]] inline status refuse_unknown_keys(const json_value& config) {
    const auto among = [](const auto& keys, std::string_view key) { return std::find(std::begin(keys), std::end(keys), key) != std::end(keys); };
    for (const auto& item : config.items()) {
        const std::string_view key = item.key();
        // A key whose value is null asks for nothing.
        if (key.starts_with('_') || item.value().is_null() || among(read_config_keys, key) || among(idle_config_keys, key)) continue;
        return error::format(errc::json_unknown_key, "the key '%s' is not one of a phi4flash model: it may change what is computed",
                             printable(key).c_str());
    }
    return {};
}

inline void read_model_type(config_reader& in) {
    if (in.find("model_type") == nullptr) in.fail(error::format(errc::json_missing_key, "no key 'model_type': want 'phi4flash'"));
    in.want_string("model_type", "phi4flash");
    in.want_string("hidden_act", "silu");
    in.want_bool("tie_word_embeddings", true);
    in.want_bool("mamba_conv_bias", true);
    in.want_bool("mamba_proj_bias", false);
    in.want_bool("mlp_bias", false);
    in.want_bool("lm_head_bias", false);
    if (in.extent_or("mb_per_layer", 2) != 2 && in.outcome()) in.unsupported("mb_per_layer", "2", *in.find("mb_per_layer"));
}

inline sambay_shape read_shape(config_reader& in) {
    sambay_shape s;
    s.d_model = in.extent("hidden_size");
    s.d_ff = in.extent("intermediate_size");
    s.n_layers = in.extent("num_hidden_layers");
    s.n_heads = in.extent("num_attention_heads");
    s.n_kv_heads = in.extent("num_key_value_heads");
    s.vocab = in.extent("vocab_size");
    s.window = read_window(in, s.n_layers);
    // These are not in the released file: defaults of the model's class.
    s.d_state = in.extent_or("mamba_d_state", 16);
    s.d_conv = in.extent_or("mamba_d_conv", 4);
    s.d_inner = in.extent_or("mamba_expand", 2) * s.d_model;
    s.dt_rank = (s.d_model + 15) / 16;
    const json_value* const rank = in.find("mamba_dt_rank");
    if (rank == nullptr) return s;
    const auto* const name = rank->get_ptr<const std::string*>();
    if (name == nullptr) {
        s.dt_rank = in.extent("mamba_dt_rank", *rank);
    } else if (*name != "auto") {
        in.fail(wrong_type("mamba_dt_rank", "a number or 'auto'", *rank));
    }
    return s;
}

[[nodiscard]] inline result<json_value> read_config_object(std::string_view text) {
    auto document = read_json(text, hf_config_limits);
    if (document && !document->is_object())
        return error::format(errc::json_wrong_type, "want an object, have %s", describe(*document).c_str());
    return document;
}
}  // namespace detail

/// The shape in `text`, a config.json. Errors, each naming the key, want and have: json_*, json_unknown_key, unsupported_model (another
/// architecture or activation, untied embedding), bad_extent (zero, negative, fractional or huge numbers, and every rule
/// of check_shape), not_finite, json_bad_number (layer_norm_eps).
[[nodiscard]] inline result<sambay_config> read_hf_config(std::string_view text) {
    const auto document = detail::read_config_object(text);
    if (!document) return document.error();
    detail::config_reader in(*document);
    detail::read_model_type(in);
    sambay_config config;
    config.shape = detail::read_shape(in);
    config.max_positions = in.count("max_position_embeddings").value_or(0);
    config.norm_eps = in.number("layer_norm_eps").value_or(1e-5f);
    if (!(config.norm_eps >= FLT_MIN))
        in.fail(error::format(errc::json_bad_number, "'layer_norm_eps': want a positive number, have %.9g",
                              static_cast<double>(config.norm_eps)));
    if (!in.outcome()) return in.outcome().error();
    if (const status ok = check_shape(config.shape); !ok) return ok.error();
    if (const status ok = detail::refuse_unknown_keys(*document); !ok) return ok.error();
    const std::size_t d_head = config.shape.d_model / config.shape.n_heads;
    if (in.extent_or("head_dim", d_head) != d_head && in.outcome())
        in.fail(error::format(errc::unsupported_model, "'head_dim': want hidden_size / num_attention_heads = %zu, have %s", d_head,
                              detail::describe(*in.find("head_dim")).c_str()));
    if (!in.outcome()) return in.outcome().error();
    return config;
}

/// The generation settings in `text`: a generation_config.json, or a config.json where a folder has no such file.
/// Errors, each naming the key: json_*, not_finite.
[[nodiscard]] inline result<generation_config> read_generation_config(std::string_view text) {
    const auto document = detail::read_config_object(text);
    if (!document) return document.error();
    detail::config_reader in(*document);
    generation_config config;
    constexpr const char* eos = "eos_token_id";
    if (const json_value* const ids = in.find(eos); ids != nullptr && ids->is_array()) {
        for (const json_value& id : *ids)
            if (const auto n = in.count(eos, id)) config.stop_ids.push_back(*n);
    } else if (const auto n = in.count(eos)) {
        config.stop_ids.push_back(*n);
    }
    config.bos_id = in.count("bos_token_id");
    config.pad_id = in.count("pad_token_id");
    config.do_sample = in.boolean("do_sample");
    config.temperature = in.number("temperature");
    config.top_p = in.number("top_p");
    config.min_p = in.number("min_p");
    config.repetition_penalty = in.number("repetition_penalty");
    config.top_k = in.count("top_k");
    config.max_new_tokens = in.count("max_new_tokens");
    if (!in.outcome()) return in.outcome().error();
    return config;
}

PHI4FLASH_END
#endif  // PHI4FLASH_HAS_JSON

// ---- phi4flash/io/safetensors.hpp ----------------------------------------------------------------------------------------
/// The safetensors container: 8 bytes of header length, a JSON header, then the data of the tensors without gaps.
/// Every rule is checked before a tensor is handed out. Source: github.com/huggingface/safetensors, README "Format".

PHI4FLASH_BEGIN

static_assert(std::endian::native == std::endian::little, "phi4flash: safetensors files are little-endian and used in place");

/// Element types that the format knows, by the name it gives them.
struct safetensors_dtype {
    std::string_view name;
    std::size_t bytes;
};
inline constexpr safetensors_dtype safetensors_dtypes[] = {
    {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F64", 8}, {"I64", 8}, {"I32", 4},     {"I16", 2},     {"I8", 1},
    {"U64", 8}, {"U32", 4}, {"U16", 2},  {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1},
};

[[nodiscard]] constexpr const safetensors_dtype* find_safetensors_dtype(std::string_view name) {
    for (const auto& known : safetensors_dtypes)
        if (known.name == name) return &known;
    return nullptr;
}

/// The format's own limit on its header.
inline constexpr std::size_t max_safetensors_header = 100'000'000;

/// Blocks of bytes that a host hands over start at a multiple of this, so that elements are aligned in memory as in the file.
inline constexpr std::size_t safetensors_alignment = 8;

/// One tensor of a file, of any element type.
struct safetensors_entry {
    std::string_view name;
    std::string_view dtype;  ///< one of safetensors_dtypes
    std::size_t extent[tensor_view::max_rank] = {};
    std::size_t rank = 0;
    const std::byte* data = nullptr;
    std::size_t bytes = 0;

    [[nodiscard]] std::span<const std::size_t> shape() const { return {extent, rank}; }
};

/// The entry as weights. Errors: wrong_dtype for element types that the library does not compute with.
[[nodiscard]] inline result<tensor_view> to_tensor_view(const safetensors_entry& entry) {
    tensor_view view{.name = entry.name, .data = entry.data, .bytes = entry.bytes, .rank = entry.rank};
    for (std::size_t i = 0; i < entry.rank; ++i) view.extent[i] = entry.extent[i];
    for (std::size_t i = 0; i < plain_dtype_count; ++i) {
        view.type = static_cast<dtype>(i);
        if (entry.dtype == name_of(view.type)) return view;
    }
    return error::format(errc::wrong_dtype, "tensor '%s': want F32, F16 or BF16, have %s", printable(entry.name).c_str(),
                         entry.dtype.data());
}

#if PHI4FLASH_HAS_JSON
namespace detail {
/// Reads the header: checks keys, types and numbers of each tensor, and that its bytes fit the shape and the file.
class safetensors_events : public json_events {
public:
    safetensors_events(const json_limits& limits, std::span<const std::byte> data, std::size_t data_begin)
        : json_events(limits), data_(data), data_begin_(data_begin) {
        names.reserve(limits.bytes);  // never moves: the entries' names point into it
    }

    std::vector<char> names;
    std::vector<safetensors_entry> entries;

    bool null() { return number_or_text("null"); }
    bool boolean(bool) { return number_or_text("a boolean"); }
    bool number_integer(std::int64_t) { return bad_number("a negative number"); }
    bool number_float(double, const std::string& text) { return bad_number(printable(text).c_str()); }
    bool number_unsigned(std::uint64_t n);
    bool string(std::string& text);
    bool start_object(std::size_t n);
    bool end_object();
    bool start_array(std::size_t n);
    bool end_array();
    bool key(std::string& name);

private:
    enum class place : std::uint8_t { outside, header, metadata, tensor, shape, offsets };
    enum field : unsigned { none = 0, dtype_field = 1, shape_field = 2, offsets_field = 4 };

    bool is_metadata() const { return key_ == "__metadata__"; }
    const char* wanted() const {
        if (place_ == place::outside) return "an object of tensors";
        if (place_ == place::header) return "an object";
        if (place_ == place::metadata) return "a string";
        if (place_ != place::tensor) return "a whole number";
        return field_ == dtype_field ? "a string" : "a list of numbers";
    }
    const char* field_name() const {
        return field_ == dtype_field ? ".dtype" : field_ == shape_field ? ".shape" : field_ == offsets_field ? ".data_offsets" : "";
    }
    bool number_or_text(const char* have) {
        return fail(error::format(errc::json_wrong_type, "header byte %zu, '%s'%s: want %s, have %s", position(),
                                  printable(key_).c_str(), field_name(), wanted(), have));
    }
    bool bad_number(const char* have) {
        if (place_ != place::shape && place_ != place::offsets) return number_or_text("a number");
        return fail(error::format(errc::json_bad_number, "tensor '%s'%s: want whole numbers from 0, have %s",
                                  printable(key_).c_str(), field_name(), have));
    }
    bool finish_tensor();
    bool place_tensor(std::uint64_t bytes);

    std::span<const std::byte> data_;
    std::size_t data_begin_;
    place place_ = place::outside;
    std::string key_;  // of the tensor or of __metadata__
    unsigned seen_ = none;
    unsigned field_ = none;
    safetensors_entry entry_;
    std::size_t element_bytes_ = 0;
    std::uint64_t offset_[2] = {};
    std::size_t offsets_ = 0;
};

inline bool safetensors_events::number_unsigned(std::uint64_t n) {
    if (place_ == place::shape) {
        if (entry_.rank == tensor_view::max_rank)
            return fail(error::format(errc::rank_too_high, "tensor '%s': want at most %zu extents", printable(key_).c_str(),
                                      tensor_view::max_rank));
        if (n > std::numeric_limits<std::size_t>::max()) return bad_number("one beyond the address space");
        entry_.extent[entry_.rank++] = static_cast<std::size_t>(n);
        return true;
    }
    if (place_ != place::offsets) return number_or_text("a number");
    if (offsets_ < 2) offset_[offsets_] = n;
    ++offsets_;
    return true;
}

inline bool safetensors_events::string(std::string& text) {
    if (place_ == place::metadata) return true;
    if (place_ != place::tensor || field_ != dtype_field) return number_or_text("a string");
    const safetensors_dtype* const known = find_safetensors_dtype(text);
    if (known == nullptr)
        return fail(error::format(errc::unknown_dtype, "tensor '%s': unknown dtype '%s'", printable(key_).c_str(),
                                  printable(text).c_str()));
    entry_.dtype = known->name;
    element_bytes_ = known->bytes;
    return true;
}

inline bool safetensors_events::start_object(std::size_t n) {
    if (place_ != place::outside && place_ != place::header) {
        return json_events::start_object(n) && number_or_text("an object");
    }
    const bool tensor = place_ == place::header && !is_metadata();
    place_ = place_ == place::outside ? place::header : tensor ? place::tensor : place::metadata;
    seen_ = none;
    entry_ = {};
    offsets_ = 0;
    return json_events::start_object(n);
}

inline bool safetensors_events::end_object() {
    if (place_ == place::tensor && !finish_tensor()) return false;
    place_ = place_ == place::header ? place::outside : place::header;
    field_ = none;
    return json_events::end_object();
}

inline bool safetensors_events::start_array(std::size_t n) {
    if (!json_events::start_array(n)) return false;
    if (place_ != place::tensor || (field_ != shape_field && field_ != offsets_field)) return number_or_text("a list");
    place_ = field_ == shape_field ? place::shape : place::offsets;
    return true;
}

inline bool safetensors_events::end_array() {
    if (place_ == place::offsets && offsets_ != 2)
        return fail(error::format(errc::json_wrong_type, "tensor '%s'.data_offsets: want 2 numbers, have %zu",
                                  printable(key_).c_str(), offsets_));
    place_ = place::tensor;
    return json_events::end_array();
}

inline bool safetensors_events::key(std::string& name) {
    if (place_ == place::header) {
        key_ = name;
        if (first_use(name)) return true;
        if (is_metadata()) return fail(error::format(errc::json_duplicate_key, "header: '__metadata__' occurs twice"));
        return fail(error::format(errc::duplicate_name, "header: tensor '%s' occurs twice", printable(name).c_str()));
    }
    if (!json_events::key(name) || place_ == place::metadata) return outcome().has_value();
    field_ = name == "dtype" ? dtype_field : name == "shape" ? shape_field : name == "data_offsets" ? offsets_field : none;
    if (field_ == none)
        return fail(error::format(errc::json_unknown_key, "tensor '%s': unknown key '%s'", printable(key_).c_str(),
                                  printable(name).c_str()));
    seen_ |= field_;
    return true;
}

inline bool safetensors_events::finish_tensor() {
    for (const unsigned wanted_field : {dtype_field, shape_field, offsets_field}) {
        field_ = wanted_field;
        if ((seen_ & wanted_field) == 0)
            return fail(
                error::format(errc::json_missing_key, "tensor '%s': no key '%s'", printable(key_).c_str(), field_name() + 1));
    }
    std::uint64_t bytes = element_bytes_;
    for (const std::size_t extent : entry_.shape()) {
        if (extent != 0 && bytes > std::numeric_limits<std::uint64_t>::max() / extent)
            return fail(error::format(errc::size_overflow, "tensor '%s': the product of its shape does not fit 64 bits",
                                      printable(key_).c_str()));
        bytes *= extent;
    }
    return place_tensor(bytes);
}

inline bool safetensors_events::place_tensor(std::uint64_t bytes) {
    const auto begin = static_cast<unsigned long long>(offset_[0]);
    const auto end = static_cast<unsigned long long>(offset_[1]);
    const printable name(key_);
    if (begin > end || end > data_.size())
        return fail(error::format(errc::offset_out_of_range,
                                  "tensor '%s': data_offsets [%llu, %llu] leave the %zu bytes of data in the file", name.c_str(),
                                  begin, end, data_.size()));
    if (end - begin != bytes)
        return fail(error::format(errc::size_mismatch, "tensor '%s': its shape wants %llu bytes, data_offsets have %llu",
                                  name.c_str(), static_cast<unsigned long long>(bytes), end - begin));
    if ((data_begin_ + begin) % element_bytes_ != 0)
        return fail(error::format(errc::offset_misaligned, "tensor '%s': starts at byte %llu of the file, want a multiple of %zu",
                                  name.c_str(), data_begin_ + begin, element_bytes_));
    entry_.data = data_.data() + begin;
    entry_.bytes = static_cast<std::size_t>(bytes);
    entry_.name = {names.data() + names.size(), key_.size()};
    names.insert(names.end(), key_.begin(), key_.end());
    entries.push_back(entry_);
    return true;
}
}  // namespace detail

/// The tensors of one file, sorted by name. Points into the bytes it was read from, which must outlive it; moving it
/// leaves its views valid.
class safetensors {
public:
    safetensors() = default;
    safetensors(safetensors&&) = default;
    safetensors& operator=(safetensors&&) = default;

    /// Reads a file mapped or owned by the host; `file` starts at a multiple of `safetensors_alignment`. Errors, each
    /// naming the tensor: invalid_argument, file_empty, header_truncated, header_too_large, json_*, unknown_dtype,
    /// rank_too_high, size_overflow, size_mismatch, offset_*, trailing_bytes, duplicate_name.
    static result<safetensors> parse(std::span<const std::byte> file);

    [[nodiscard]] std::span<const safetensors_entry> entries() const { return entries_; }

    [[nodiscard]] const safetensors_entry* find(std::string_view name) const {
        const auto place = std::lower_bound(entries_.begin(), entries_.end(), name,
                                            [](const safetensors_entry& e, std::string_view wanted) { return e.name < wanted; });
        return place != entries_.end() && place->name == name ? &*place : nullptr;
    }

private:
    static result<std::string_view> header_of(std::span<const std::byte> file);
    status check_cover(std::span<const std::byte> data);

    std::vector<char> names_;
    std::vector<safetensors_entry> entries_;
};

inline result<std::string_view> safetensors::header_of(std::span<const std::byte> file) {
    constexpr std::size_t length_bytes = 8;
    if (file.empty()) return error::format(errc::file_empty, "no bytes: want a safetensors file");
    if (reinterpret_cast<std::uintptr_t>(file.data()) % safetensors_alignment != 0)
        return error::format(errc::invalid_argument, "the bytes of a safetensors file must start at a multiple of %zu in memory",
                             safetensors_alignment);
    if (file.size() < length_bytes)
        return error::format(errc::header_truncated, "want %zu bytes of header length, have a file of %zu", length_bytes,
                             file.size());
    std::uint64_t length = 0;
    std::memcpy(&length, file.data(), length_bytes);
    if (length > max_safetensors_header)
        return error::format(errc::header_too_large, "want a header of at most %zu bytes, have %llu", max_safetensors_header,
                             static_cast<unsigned long long>(length));
    if (length > file.size() - length_bytes)
        return error::format(errc::header_truncated, "want a header of %llu bytes, have a file of %zu",
                             static_cast<unsigned long long>(length), file.size());
    const std::string_view header(reinterpret_cast<const char*>(file.data()) + length_bytes, static_cast<std::size_t>(length));
    if (header.empty() || header.front() != '{') return error::format(errc::json_syntax, "header byte 0: want '{'");
    return header;
}

/// The tensors must cover the data once and completely. Leaves the entries in order of their place.
inline status safetensors::check_cover(std::span<const std::byte> data) {
    std::sort(entries_.begin(), entries_.end(), [](const safetensors_entry& a, const safetensors_entry& b) {
        return a.data != b.data ? a.data < b.data : a.bytes < b.bytes;
    });
    std::size_t covered = 0;
    for (const safetensors_entry& entry : entries_) {
        const auto begin = static_cast<std::size_t>(entry.data - data.data());
        if (begin != covered) {
            const bool overlap = begin < covered;
            return error::format(overlap ? errc::offset_overlap : errc::offset_hole,
                                 "tensor '%s': data_offsets start at %zu, want %zu where the tensor before it ends: %s",
                                 printable(entry.name).c_str(), begin, covered, overlap ? "they overlap" : "there is a hole");
        }
        covered += entry.bytes;
    }
    if (covered != data.size())
        return error::format(errc::trailing_bytes, "want %zu bytes of data as the header says, have %zu in the file", covered,
                             data.size());
    return {};
}

inline result<safetensors> safetensors::parse(std::span<const std::byte> file) {
    const auto header = header_of(file);
    if (!header) return header.error();
    const std::size_t data_begin = 8 + header->size();
    const auto data = file.subspan(data_begin);
    const json_limits limits{.bytes = header->size(), .depth = 3};
    detail::safetensors_events events(limits, data, data_begin);
    if (const status ok = read_json_events(*header, limits, events); !ok) return ok.error();

    safetensors table;
    table.names_ = std::move(events.names);
    table.entries_ = std::move(events.entries);
    if (const status ok = table.check_cover(data); !ok) return ok.error();
    std::sort(table.entries_.begin(), table.entries_.end(),
              [](const safetensors_entry& a, const safetensors_entry& b) { return a.name < b.name; });
    return table;
}
#endif  // PHI4FLASH_HAS_JSON

PHI4FLASH_END

#if PHI4FLASH_HAS_JSON
PHI4FLASH_BEGIN

/// Configuration and tensors of a model. Reading from several threads is safe. Its tensor views stay valid as long as it
/// lives, and after it has been moved; in memory the host's bytes must outlive it too.
class checkpoint {
public:
    checkpoint() = default;
    checkpoint(checkpoint&&) = default;
    checkpoint& operator=(checkpoint&&) = default;

    /// Reads config.json, generation_config.json (may be absent) and maps model.safetensors or, without that file, the
    /// shards that model.safetensors.index.json names. Errors, each naming the file: those of mapped_file::open,
    /// read_hf_config, read_generation_config, read_checkpoint_index and safetensors::parse; wrong_dtype; duplicate_name
    /// (across shards); index_mismatch (index and shards disagree).
    static result<checkpoint> open(const std::filesystem::path& folder);

    /// The same from memory: the texts of the two configurations (the second may be empty) and the bytes of one or more
    /// safetensors files, each aligned to `safetensors_alignment`. No index is needed.
    static result<checkpoint> from_memory(std::string_view config_json, std::span<const std::span<const std::byte>> files,
                                          std::string_view generation_config_json = {});

    [[nodiscard]] const sambay_config& config() const { return config_; }
    /// Of generation_config.json, or else what config.json says of it.
    [[nodiscard]] const generation_config& generation() const { return generation_; }
    /// All tensors of all files, sorted by name.
    [[nodiscard]] std::span<const tensor_view> tensors() const { return tensors_; }
    [[nodiscard]] const tensor_view* find(std::string_view name) const {
        const auto place = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                            [](const tensor_view& t, std::string_view n) { return t.name < n; });
        return place != tensors_.end() && place->name == name ? &*place : nullptr;
    }
    /// Bytes of all tensors.
    [[nodiscard]] std::uint64_t bytes() const {
        std::uint64_t sum = 0;
        for (const tensor_view& t : tensors_) sum += t.bytes;
        return sum;
    }
    /// See mapped_file::release_pages; in memory it does nothing.
    void release_pages() const {
        for (const mapped_file& file : files_) file.release_pages();
    }
    /// The folder; empty in memory.
    [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }
    /// tokenizer.json of the folder; empty where it has none.
    [[nodiscard]] const std::filesystem::path& tokenizer_path() const { return tokenizer_path_; }

private:
    status read_configs(std::string_view config_json, std::string_view generation_json);
    status read_config_files();
    status map_shard(const std::string& name);
    status add_file(std::span<const std::byte> bytes);
    status collect();
    status check_index(const checkpoint_index& index) const;
    status open_weights();

    sambay_config config_;
    generation_config generation_;
    std::filesystem::path folder_;
    std::filesystem::path tokenizer_path_;
    std::vector<mapped_file> files_;
    std::vector<safetensors> tables_;
    std::vector<tensor_view> tensors_;
};

inline status checkpoint::read_configs(std::string_view config_json, std::string_view generation_json) {
    const auto config = read_hf_config(config_json);
    if (!config) return config.error().in("config.json");
    config_ = *config;
    const bool own = !generation_json.empty();
    auto generation = read_generation_config(own ? generation_json : config_json);
    if (!generation) return generation.error().in(own ? "generation_config.json" : "config.json");
    generation_ = *std::move(generation);
    for (const std::uint32_t id : generation_.stop_ids)
        if (id >= config_.shape.vocab)
            return error::format(errc::unknown_token, "'eos_token_id': want an id below vocab_size %zu, have %lu",
                                 config_.shape.vocab, static_cast<unsigned long>(id))
                .in(own ? "generation_config.json" : "config.json");
    return {};
}

inline status checkpoint::read_config_files() {
    const auto config = read_file(folder_ / "config.json", hf_config_limits.bytes);
    if (!config) return config.error();
    const auto generation = read_file(folder_ / "generation_config.json", hf_config_limits.bytes);
    if (!generation && generation.error().code() != errc::file_not_found) return generation.error();
    return read_configs(*config, generation ? std::string_view(*generation) : std::string_view());
}

inline status checkpoint::add_file(std::span<const std::byte> bytes) {
    auto table = safetensors::parse(bytes);
    if (!table) return table.error();
    for (const safetensors_entry& entry : table->entries()) {
        const auto view = to_tensor_view(entry);
        if (!view) return view.error();
        tensors_.push_back(*view);
    }
    tables_.push_back(*std::move(table));
    return {};
}

inline status checkpoint::map_shard(const std::string& name) {
    auto file = mapped_file::open(folder_ / std::filesystem::path(std::u8string(name.begin(), name.end())));
    if (!file) return file.error();
    if (const status ok = add_file(file->bytes()); !ok) return ok.error().in(printable(name).c_str());
    files_.push_back(*std::move(file));
    return {};
}

/// Sorts the tensors of all files for `find`.
inline status checkpoint::collect() {
    std::sort(tensors_.begin(), tensors_.end(), [](const tensor_view& a, const tensor_view& b) { return a.name < b.name; });
    const auto twice = std::adjacent_find(tensors_.begin(), tensors_.end(),
                                          [](const tensor_view& a, const tensor_view& b) { return a.name == b.name; });
    if (twice == tensors_.end()) return {};
    return error::format(errc::duplicate_name, "tensor '%s' is in more than one safetensors file", printable(twice->name).c_str());
}

/// Every tensor is in the shard that the index names, and no shard holds one that the index does not know.
inline status checkpoint::check_index(const checkpoint_index& index) const {
    for (const checkpoint_index::entry& entry : index.entries)
        if (tables_[entry.shard].find(entry.tensor) == nullptr)
            return error::format(errc::index_mismatch, "tensor '%s': the index wants it in %s, which does not have it",
                                 printable(entry.tensor).c_str(), printable(index.shards[entry.shard]).c_str());
    if (index.entries.size() == tensors_.size()) return {};
    for (const tensor_view& tensor : tensors_) {
        const auto place = std::lower_bound(index.entries.begin(), index.entries.end(), tensor.name,
                                            [](const checkpoint_index::entry& e, std::string_view n) { return e.tensor < n; });
        if (place == index.entries.end() || place->tensor != tensor.name)
            return error::format(errc::index_mismatch, "tensor '%s' is in a shard but not in the index",
                                 printable(tensor.name).c_str());
    }
    return {};
}

inline status checkpoint::open_weights() {
    constexpr const char* single = "model.safetensors";
    constexpr const char* index_name = "model.safetensors.index.json";
    std::error_code ignored;
    if (std::filesystem::exists(folder_ / single, ignored)) {
        if (const status ok = map_shard(single); !ok) return ok;
        return collect();
    }
    const auto text = read_file(folder_ / index_name, checkpoint_index_limits.bytes);
    if (!text && text.error().code() == errc::file_not_found)
        return error::format(errc::file_not_found, "%s: want %s or %s, have neither", printable(folder_).c_str(), single,
                             index_name);
    if (!text) return text.error();
    const auto index = read_checkpoint_index(*text);
    if (!index) return index.error().in(index_name);
    for (const std::string& shard : index->shards)
        if (const status ok = map_shard(shard); !ok) return ok;
    if (const status ok = collect(); !ok) return ok;
    const status ok = check_index(*index);
    return ok ? ok : ok.error().in(index_name);
}

inline result<checkpoint> checkpoint::open(const std::filesystem::path& folder) {
    std::error_code why;
    const auto kind = std::filesystem::status(folder, why).type();
    if (kind == std::filesystem::file_type::not_found)
        return error::format(errc::file_not_found, "%s: there is no such folder", printable(folder).c_str());
    if (kind != std::filesystem::file_type::directory)
        return error::format(errc::file_unreadable, "%s: want a folder with config.json and model.safetensors%s%s",
                             printable(folder).c_str(), why ? ": " : "", why ? why.message().c_str() : "");
    checkpoint loaded;
    loaded.folder_ = folder;
    if (const status ok = loaded.read_config_files(); !ok) return ok.error();
    if (const status ok = loaded.open_weights(); !ok) return ok.error();
    if (auto path = folder / "tokenizer.json"; std::filesystem::is_regular_file(path, why))
        loaded.tokenizer_path_ = std::move(path);
    return loaded;
}

inline result<checkpoint> checkpoint::from_memory(std::string_view config_json, std::span<const std::span<const std::byte>> files,
                                                  std::string_view generation_config_json) {
    checkpoint loaded;
    if (const status ok = loaded.read_configs(config_json, generation_config_json); !ok) return ok.error();
    for (std::size_t i = 0; i < files.size(); ++i) {
        if (const status ok = loaded.add_file(files[i]); !ok) {
            char place[32] = {};
            std::snprintf(place, sizeof place, "file %zu", i);
            return ok.error().in(place);
        }
    }
    if (const status ok = loaded.collect(); !ok) return ok.error();
    return loaded;
}

PHI4FLASH_END
#endif  // PHI4FLASH_HAS_JSON

// ---- phi4flash/io/repack.hpp ---------------------------------------------------------------------------------------------
/// Quantized tensors of an ordinary row-major GGUF file, as packed rows in memory of their own. A file in the packed layout needs
/// none of this.
///
/// | in the file         | in memory | error against the file's own numbers (tests/io/repack_test.cpp)                        |
/// |---------------------|-----------|----------------------------------------------------------------------------------------|
/// | Q8_0                | q8        | none: the same integers and scales in another order                                    |
/// | Q4_0                | q4        | none: likewise                                                                         |
/// | IQ4_NL              | q8        | none: its levels are whole numbers of 8 bits                                           |
/// | Q4_K, Q6_K          | q8        | at most max |w| / 254 over 32 columns, and 2^-18 where scales are subnormal            |
/// | any, not packable   | f32       | none                                                                                   |
///
/// Widened to f32, row-major, are tensors that packed rows cannot hold (vectors, higher ranks, rows that are no multiple of 8; the
/// columns are whole blocks of 32 in any file) and those that the model reads number by number, such as A_log. They are small, so
/// f32, which holds all of these types' numbers, costs less than the question what bf16 would lose.
///
/// F32, F16 and BF16 stay in the file.

PHI4FLASH_BEGIN

struct repack_options {
    executor_ref executor = {};           ///< shares the work of each tensor; the memory has the same bits for any
    page_size pages = page_size::normal;  ///< of the memory that is taken
};

namespace detail {

[[nodiscard]] inline bool finite_halves(const std::byte* p, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i)
        if ((number_at<std::uint16_t>(p + 2 * i) & 0x7c00u) == 0x7c00u) return false;
    return true;
}

/// Q8_0 (eight words of four codes a block) and Q4_0 (four words, whose low nibbles are columns 0 to 15 and whose high nibbles are
/// 16 to 31): the packed blocks have the very same words, those of eight rows side by side. False if a scale is not finite.
template <std::size_t Words>
[[nodiscard]] bool reorder_eight_rows(const std::byte* rows, std::size_t row_bytes, std::size_t groups, std::byte* out) {
    constexpr std::size_t bytes = 2 + 4 * Words;
    bool finite = true;
    for (std::size_t g = 0; g < groups; ++g, rows += bytes, out += packed_rows * bytes) {
        for (std::size_t r = 0; r < packed_rows; ++r) {
            const std::byte* const from = rows + r * row_bytes;
            finite = finite && finite_halves(from, 1);
            std::memcpy(out + 2 * r, from, 2);
            for (std::size_t i = 0; i < Words; ++i) std::memcpy(out + 2 * packed_rows + 32 * i + 4 * r, from + 2 + 4 * i, 4);
        }
    }
    return finite;
}

/// IQ4_NL: its levels as codes of 8 bits.
[[nodiscard]] inline bool level_eight_rows(const std::byte* rows, std::size_t row_bytes, std::size_t groups, std::byte* out) {
    constexpr std::size_t bytes = format_of(ggml_type::iq4_nl).block_bytes;
    bool finite = true;
    for (std::size_t g = 0; g < groups; ++g, rows += bytes, out += sizeof(q8_block)) {
        auto& block = *reinterpret_cast<q8_block*>(out);
        for (std::size_t r = 0; r < packed_rows; ++r) {
            const std::byte* const from = rows + r * row_bytes;
            finite = finite && finite_halves(from, 1);
            block.scale[r] = number_at<f16>(from);
            for (std::size_t i = 0; i < 16; ++i) {
                const unsigned q = byte_at(from, 2 + i);
                block.code[i / 4][4 * r + i % 4] = iq4_nl_levels[q & 15];
                block.code[4 + i / 4][4 * r + i % 4] = iq4_nl_levels[q >> 4];
            }
        }
    }
    return finite;
}

/// Q4_K and Q6_K: decoded, and rounded to 8 bits again. False also if a packed scale would leave the range of f16.
[[nodiscard]] inline bool round_eight_rows(const ggml_format& format, const std::byte* rows, std::size_t row_bytes,
                                           std::size_t groups, std::byte* out) {
    constexpr std::size_t length = 256;
    constexpr std::size_t parts = length / packed_cols;
    auto* const blocks = reinterpret_cast<q8_block*>(out);
    bool finite = true;
    for (std::size_t r = 0; r < packed_rows; ++r) {
        const std::byte* from = rows + r * row_bytes;
        for (std::size_t g = 0; g < groups; g += parts, from += format.block_bytes) {
            float x[length];
            finite = finite && finite_halves(from + format.scale_offset, format.n_scales);
            (void)decode_ggml(format.type, from, length, x);
            for (std::size_t i = 0; i < parts; ++i) {
                encode_row(blocks[g + i], r, x + i * packed_cols);
                finite = finite && (blocks[g + i].scale[r].bits & 0x7c00u) != 0x7c00u;
            }
        }
    }
    return finite;
}

[[nodiscard]] inline bool repack_eight_rows(const ggml_format& format, const std::byte* rows, std::size_t row_bytes,
                                            std::size_t groups, std::byte* out) {
    switch (format.type) {
        case ggml_type::q8_0: return reorder_eight_rows<8>(rows, row_bytes, groups, out);
        case ggml_type::q4_0: return reorder_eight_rows<4>(rows, row_bytes, groups, out);
        case ggml_type::iq4_nl: return level_eight_rows(rows, row_bytes, groups, out);
        default: return round_eight_rows(format, rows, row_bytes, groups, out);
    }
}

[[nodiscard]] inline bool widen_row(const ggml_format& format, const std::byte* row, std::size_t cols, std::byte* out) {
    for (std::size_t i = 0; i < cols; i += format.block_length, row += format.block_bytes) {
        float x[256];
        if (!finite_halves(row + format.scale_offset, format.n_scales)) return false;
        (void)decode_ggml(format.type, row, format.block_length, x);
        std::memcpy(out + 4 * i, x, std::size_t{4} * format.block_length);
    }
    return true;
}

/// One tensor into view.bytes bytes at `out`. Errors: not_finite, naming the tensor, and the first block of those in the file.
[[nodiscard]] inline status repack_tensor(const gguf_tensor& t, const tensor_view& view, std::byte* out, executor_ref executor) {
    constexpr std::size_t grain_bytes = std::size_t{1} << 16;
    const ggml_format& format = *t.format;
    const std::size_t rows = is_packed(view.type) ? packed_rows : 1;
    const std::size_t row_bytes = t.cols() / format.block_length * format.block_bytes;
    const std::size_t out_bytes = matrix_bytes(view.type, rows, t.cols());
    std::atomic<bool> damaged{false};
    executor.parallel_for(t.rows() / rows, grain_bytes / (out_bytes + 1) + 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            const std::byte* const from = t.data + i * rows * row_bytes;
            std::byte* const to = out + i * out_bytes;
            const bool finite = rows == 1 ? widen_row(format, from, t.cols(), to)
                                          : repack_eight_rows(format, from, row_bytes, t.cols() / packed_cols, to);
            if (!finite) damaged.store(true, std::memory_order_relaxed);
        }
    });
    if (!damaged.load(std::memory_order_relaxed)) return {};
    if (const status ok = check_scales(t); !ok) return ok;  // says where, and the same for any number of threads
    return error::format(errc::not_finite, "tensor '%s': numbers of this %s are too large for the scales of packed rows",
                         printable(t.name).c_str(), format.name);
}

/// What a tensor that cannot be used in place becomes; without `data`. Errors: size_overflow.
[[nodiscard]] inline result<tensor_view> plan_repacked(const gguf_tensor& t, bool widen) {
    tensor_view view{.name = t.name, .rank = t.rank};
    for (std::size_t i = 0; i < t.rank; ++i) view.extent[i] = t.extent[i];
    const bool packs = !widen && t.rank == 2 && is_packable(t.extent[0], t.extent[1]);
    if (packs) view.type = t.format->type == ggml_type::q4_0 ? dtype::q4 : dtype::q8;
    const std::size_t unit = packs ? packed_rows * packed_cols : 1;
    const std::size_t unit_bytes = packs ? matrix_bytes(view.type, packed_rows, packed_cols) : sizeof(float);
    if (t.count() / unit > static_cast<std::size_t>(PTRDIFF_MAX) / unit_bytes)
        return error::format(errc::size_overflow, "tensor '%s': repacked, it would not fit the address space",
                             printable(t.name).c_str());
    view.bytes = t.count() / unit * unit_bytes;
    return view;
}

/// Every weight of a file, by name, and what it takes to have them all.
struct repack_plan {
    std::vector<tensor_view> tensors;
    std::vector<const gguf_tensor*> sources;  ///< of each, or nullptr where it is used in place
    std::size_t bytes = 0;                    ///< of memory, each tensor at a multiple of block_alignment
    std::uint64_t source_bytes = 0;           ///< of the tensors to be repacked

    /// Errors: size_overflow; those of extents::from.
    static result<repack_plan> of(const packed_model& from) {
        repack_plan plan;
        std::vector<std::string> tables;
        if (from.needs_repacking()) {
            const auto e = extents<any_sambay>::from(from.config().shape);
            if (!e) return e.error();
            for_each_tensor(*e, [&](std::string_view name, std::span<const std::size_t>, tensor_role role) {
                if (role != tensor_role::matrix) tables.emplace_back(name);
            });
            std::sort(tables.begin(), tables.end());
        }
        for (const gguf_tensor& t : from.file().tensors()) {
            if (t.name.starts_with(packed_array_prefix)) continue;
            const tensor_view* const in_place = from.find(t.name);
            const auto view = in_place != nullptr ? result<tensor_view>(*in_place)
                                                  : plan_repacked(t, std::binary_search(tables.begin(), tables.end(), t.name));
            if (!view) return view.error();
            plan.tensors.push_back(*view);
            plan.sources.push_back(in_place != nullptr ? nullptr : &t);
            if (in_place != nullptr) continue;
            constexpr auto most = static_cast<std::size_t>(PTRDIFF_MAX) - 2 * block_alignment;
            if (view->bytes > most || round_up(view->bytes, block_alignment) > most - plan.bytes)
                return error::format(errc::size_overflow, "tensor '%s': the repacked tensors would not fit the address space",
                                     printable(t.name).c_str());
            plan.bytes += round_up(view->bytes, block_alignment);
            plan.source_bytes += t.bytes;
        }
        return plan;
    }
};
}  // namespace detail

/// All weights of a file, ready to be bound: a tensor_source. The file must outlive it: names and plain tensors point there.
/// Movable; its views stay valid. Reading from several threads is safe.
class repacked_model {
public:
    repacked_model() = default;
    repacked_model(repacked_model&&) = default;
    repacked_model& operator=(repacked_model&&) = default;

    /// Bytes that `create` will take. Looks at no weight. Errors: size_overflow, naming the tensor.
    static result<std::size_t> bytes_needed(const packed_model& from) {
        const auto plan = detail::repack_plan::of(from);
        if (!plan) return plan.error();
        return plan->bytes;
    }

    /// Repacks tensor by tensor, after everything has been measured and all memory taken at once. After each tensor
    /// `progress(done, total)`, bytes of the file as std::uint64_t, on the calling thread; false stops. Errors, naming the tensor:
    /// size_overflow, before memory is taken; out_of_memory; not_finite (scales); cancelled.
    template <class Progress>
    static result<repacked_model> create(const packed_model& from, const repack_options& options, Progress&& progress);
    static result<repacked_model> create(const packed_model& from, const repack_options& options = {}) {
        return create(from, options, [](std::uint64_t, std::uint64_t) { return true; });
    }

    /// All weights, sorted by name.
    [[nodiscard]] std::span<const tensor_view> tensors() const { return tensors_; }
    [[nodiscard]] const tensor_view* find(std::string_view name) const {
        const auto place = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                            [](const tensor_view& t, std::string_view n) { return t.name < n; });
        return place != tensors_.end() && place->name == name ? &*place : nullptr;
    }
    [[nodiscard]] const sambay_config& config() const { return config_; }
    /// Memory that it owns; 0 if everything could be used in place.
    [[nodiscard]] std::size_t owned_bytes() const { return memory_.bytes().size(); }
    /// How much of that lies in huge pages now; see bytes_in_huge_pages.
    [[nodiscard]] std::size_t huge_bytes() const { return memory_.huge_bytes(); }

private:
    memory_block memory_;
    std::vector<tensor_view> tensors_;
    sambay_config config_;
};

template <class Progress>
result<repacked_model> repacked_model::create(const packed_model& from, const repack_options& options, Progress&& progress) {
    constexpr std::uint64_t release_every = std::uint64_t{256} << 20;
    auto plan = detail::repack_plan::of(from);
    if (!plan) return plan.error();
    repacked_model model;
    model.config_ = from.config();
    model.tensors_ = std::move(plan->tensors);
    if (plan->source_bytes == 0) return model;
    auto block = memory_block::allocate(plan->bytes, "repacked weights", options.pages);
    if (!block) return block.error();
    model.memory_ = *std::move(block);
    arena memory(model.memory_.bytes().data());
    std::uint64_t done = 0;
    std::uint64_t held = 0;
    for (std::size_t i = 0; i < model.tensors_.size(); ++i) {
        const gguf_tensor* const source = plan->sources[i];
        if (source == nullptr) continue;
        tensor_view& view = model.tensors_[i];
        auto* const place = memory.take<std::byte>(view.bytes);
        view.data = place;
        if (const status ok = detail::repack_tensor(*source, view, place, options.executor); !ok) return ok.error();
        done += source->bytes;
        held += source->bytes;
        if (held >= release_every || done == plan->source_bytes) {  // read once: the file need not count as memory any longer
            from.release_pages();
            held = 0;
        }
        if (!progress(done, plan->source_bytes))
            return error::format(errc::cancelled, "stopped by the caller after %llu of %llu bytes of weights",
                                 static_cast<unsigned long long>(done), static_cast<unsigned long long>(plan->source_bytes));
    }
    return model;
}

PHI4FLASH_END

// ---- phi4flash/io/tokenizer_json.hpp -------------------------------------------------------------------------------------
/// Reads tokenizer.json of the Hugging Face tokenizers library: byte-level BPE with one of the known split patterns. Whatever would
/// change ids and is not supported is refused by name. One pass over the bytes, no document in memory.

// ---- phi4flash/io/tokenizer_settings.hpp ---------------------------------------------------------------------------------
/// The small part of tokenizer.json, all but its three long lists: decides whether the file is one that the library can follow
/// exactly. Whatever would change ids and is not supported is refused by name.

PHI4FLASH_BEGIN

namespace detail {

enum class json_kind : std::uint8_t { null, boolean, number, string, object, array };

/// A value of the file outside the three long lists, with its path: "pre_tokenizer.pretokenizers.0.pattern.Regex".
struct json_fact {
    std::string path;
    json_kind kind = json_kind::null;
    std::string text;     // string
    double number = 0.0;  // number; boolean as 0 or 1
};

/// The small part of tokenizer.json: decides whether the file is one that the library can follow exactly.
class tokenizer_settings {
public:
    static constexpr std::size_t max_facts = 2048;

    [[nodiscard]] status add(json_fact fact) {
        if (find(fact.path) != nullptr) return error::format(errc::json_duplicate_key, "'%s' is given twice", fact.path.c_str());
        if (facts_.size() == max_facts) return error::format(errc::json_too_large, "more than %zu settings", max_facts);
        facts_.push_back(std::move(fact));
        return {};
    }

    /// Sets pattern and flags of the builder. Errors: unsupported_tokenizer, json_unknown_key, json_missing_key.
    [[nodiscard]] status apply(tokenizer_builder& builder) const {
        for (const json_fact& f : facts_) {
            if (status s = check_key(f); !s) return s;
        }
        if (find("model") == nullptr) return error::format(errc::json_missing_key, "there is no 'model'");
        if (type_of("model") != "BPE") return refuse("model type", type_of("model"), "BPE");
        if (status s = check_model(); !s) return s;
        for (const char* key : {"truncation", "padding"}) {
            if (given(key)) return error::format(errc::unsupported_tokenizer, "'%s' is set, want null", key);
        }
        if (given("normalizer")) return refuse("normalizer", type_of("normalizer"), "null");
        if (given("decoder") && type_of("decoder") != "ByteLevel") return refuse("decoder", type_of("decoder"), "ByteLevel");
        if (status s = check_post_processor("post_processor"); !s) return s;
        const json_fact* const ignore = find("model.ignore_merges");
        builder.ignore_merges = ignore != nullptr && ignore->number != 0.0;
        return apply_pre_tokenizer(builder);
    }

private:
    [[nodiscard]] const json_fact* find(std::string_view path) const {
        const auto place = std::find_if(facts_.begin(), facts_.end(), [path](const json_fact& f) { return f.path == path; });
        return place == facts_.end() ? nullptr : &*place;
    }
    [[nodiscard]] bool given(std::string_view path) const {
        const json_fact* const f = find(path);
        return f != nullptr && f->kind != json_kind::null;
    }
    [[nodiscard]] std::string_view text_of(const std::string& path) const {
        const json_fact* const f = find(path);
        return f == nullptr ? std::string_view{} : std::string_view{f->text};
    }
    [[nodiscard]] std::string_view type_of(const std::string& path) const { return text_of(path + ".type"); }
    [[nodiscard]] bool flag(const std::string& path, bool otherwise) const {
        const json_fact* const f = find(path);
        return f == nullptr || f->kind != json_kind::boolean ? otherwise : f->number != 0.0;
    }

    [[nodiscard]] static status refuse(const char* what, std::string_view have, const char* want) {
        return error::format(errc::unsupported_tokenizer, "%s '%.*s' is not supported, want %s", what,
                             static_cast<int>(std::min<std::size_t>(have.size(), 200)), have.data(), want);
    }

    /// Only keys whose meaning is known may be there.
    [[nodiscard]] static status check_key(const json_fact& f) {
        static constexpr std::array top{"version",       "truncation",     "padding", "normalizer",
                                        "pre_tokenizer", "post_processor", "decoder", "model"};
        static constexpr std::array model{
            "type",     "dropout",       "unk_token",    "continuing_subword_prefix", "end_of_word_suffix",
            "fuse_unk", "byte_fallback", "ignore_merges"};
        std::string_view path = f.path;
        const std::string_view head = path.substr(0, path.find('.'));
        const auto is = [](std::string_view name) { return [name](const char* key) { return name == key; }; };
        bool known = std::any_of(top.begin(), top.end(), is(head));
        if (known && path.starts_with("model.")) known = std::any_of(model.begin(), model.end(), is(path.substr(6)));
        if (!known) return error::format(errc::json_unknown_key, "the key '%s' is not known", f.path.c_str());
        return {};
    }

    [[nodiscard]] status check_model() const {
        const json_fact* const dropout = find("model.dropout");
        if (dropout != nullptr && dropout->kind != json_kind::null &&
            (dropout->kind != json_kind::number || dropout->number != 0.0))
            return error::format(errc::unsupported_tokenizer, "'model.dropout' is set, want null");
        for (const char* key : {"model.continuing_subword_prefix", "model.end_of_word_suffix"}) {
            if (given(key) && (find(key)->kind != json_kind::string || !find(key)->text.empty()))
                return error::format(errc::unsupported_tokenizer, "'%s' is set, want null or an empty string", key);
        }
        return {};
    }

    /// A post-processor adds markers around whole texts, which this library leaves to the chat template.
    [[nodiscard]] status check_post_processor(const std::string& path) const {
        if (!given(path)) return {};
        const std::string_view type = type_of(path);
        if (type == "ByteLevel" || type == "TemplateProcessing") return {};
        if (type != "Sequence") return refuse("post-processor", type, "ByteLevel, TemplateProcessing or null");
        for (std::size_t i = 0; given(path + ".processors." + std::to_string(i)); ++i) {
            const std::string_view inner = type_of(path + ".processors." + std::to_string(i));
            if (inner != "ByteLevel" && inner != "TemplateProcessing")
                return refuse("post-processor", inner, "ByteLevel or TemplateProcessing");
        }
        return {};
    }

    [[nodiscard]] status apply_pre_tokenizer(tokenizer_builder& builder) const {
        std::string byte_level_at = "pre_tokenizer", split_at;
        if (type_of("pre_tokenizer") == "Sequence") {
            const std::string list = "pre_tokenizer.pretokenizers.";
            std::size_t count = 0;
            while (given(list + std::to_string(count))) ++count;
            if (count == 0 || count > 2)
                return error::format(errc::unsupported_tokenizer,
                                     "a pre-tokenizer of %zu steps is not supported, want Split and ByteLevel", count);
            byte_level_at = list + std::to_string(count - 1);
            if (count == 2) split_at = list + "0";
        }
        if (type_of(byte_level_at) != "ByteLevel")
            return refuse("pre-tokenizer", type_of(byte_level_at), "ByteLevel, or Split and ByteLevel");
        if (flag(byte_level_at + ".add_prefix_space", true)) return refuse("pre-tokenizer option", "add_prefix_space", "false");
        const bool own_regex = flag(byte_level_at + ".use_regex", true);
        if (split_at.empty()) {
            if (!own_regex) return refuse("pre-tokenizer", "ByteLevel without use_regex", "a Split before it");
            builder.pattern = split_pattern::gpt2;
            return {};
        }
        if (type_of(split_at) != "Split") return refuse("pre-tokenizer", type_of(split_at), "Split");
        if (own_regex) return refuse("pre-tokenizer option", "use_regex after a Split", "false");
        // The patterns match every character, so isolating the matches and removing what lies between them are the same.
        const std::string_view behavior = text_of(split_at + ".behavior");
        if (behavior != "Isolated" && (behavior != "Removed" || !flag(split_at + ".invert", false)))
            return refuse("split behavior", behavior, "Isolated, or Removed with invert");
        const std::string_view regex = text_of(split_at + ".pattern.Regex");
        for (const split_pattern p : {split_pattern::gpt2, split_pattern::cl100k, split_pattern::qwen2, split_pattern::o200k}) {
            if (regex != regex_of(p)) continue;
            builder.pattern = p;
            return {};
        }
        return refuse("split pattern", regex, "that of GPT-2, cl100k, Qwen2 or o200k");
    }

    std::vector<json_fact> facts_;
};
}  // namespace detail

PHI4FLASH_END

#if PHI4FLASH_HAS_JSON

#include <nlohmann/json.hpp>
PHI4FLASH_BEGIN

namespace detail {

/// Listens to the parser. The first error stops it.
class tokenizer_json_reader {
public:
    using json = nlohmann::json;
    static constexpr std::size_t max_depth = 16;

    tokenizer_json_reader(tokenizer_builder& builder, bool merges_only) : builder_(builder), merges_only_(merges_only) {}

    bool null() { return value({.path = {}, .kind = json_kind::null, .text = {}, .number = 0.0}); }
    bool boolean(bool b) { return value({.path = {}, .kind = json_kind::boolean, .text = {}, .number = b ? 1.0 : 0.0}); }
    bool number_integer(json::number_integer_t n) { return number(static_cast<double>(n)); }
    bool number_unsigned(json::number_unsigned_t n) {
        if (list_ == list::vocabulary) return token(n);
        return number(static_cast<double>(n));
    }
    bool number_float(json::number_float_t n, const std::string&) { return number(n); }
    bool string(std::string& s) {
        if (list_ == list::merges) return merge_string(s);
        return value({.path = {}, .kind = json_kind::string, .text = std::move(s), .number = 0.0});
    }
    bool binary(json::binary_t&) { return fail(error::format(errc::json_syntax, "binary values are not JSON")); }
    bool key(std::string& k) {
        if (list_ == list::vocabulary) {
            key_.swap(k);
            return true;
        }
        set_path(k);
        return true;
    }
    bool start_object(std::size_t) { return open(json_kind::object); }
    bool end_object() { return close(); }
    bool start_array(std::size_t) { return open(json_kind::array); }
    bool end_array() { return close(); }
    bool parse_error(std::size_t position, const std::string& token, const nlohmann::detail::exception&) {
        return fail(error::format(errc::json_syntax, "not valid JSON at byte %zu, near '%.60s'", position, token.c_str()));
    }

    [[nodiscard]] const status& outcome() const { return outcome_; }
    [[nodiscard]] bool merges_came_first() const { return merges_came_first_ && seen_vocabulary_; }

    /// After the parse: what can only be checked with everything known.
    [[nodiscard]] status finish() {
        if (!seen_vocabulary_) return error::format(errc::json_missing_key, "there is no 'model.vocab'");
        if (!seen_merges_) return error::format(errc::json_missing_key, "there is no 'model.merges'");
        for (const auto& [id, text] : not_byte_level_) {
            const bool is_added =
                std::any_of(added_.begin(), added_.end(), [&](const added_token& t) { return t.id == id && t.content == text; });
            if (!is_added)
                return error::format(errc::bad_vocabulary, "token %llu '%.100s' is not byte-level text",
                                     static_cast<unsigned long long>(id), text.c_str());
        }
        for (added_token& t : added_) {
            if (status s = builder_.add_added_token(std::move(t)); !s) return s;
        }
        return settings_.apply(builder_);
    }

private:
    enum class list : std::uint8_t { none, vocabulary, merges, added };
    struct frame {
        std::size_t path_size;
        std::size_t index;
        bool is_array;
    };

    bool fail(const error& why) {
        if (outcome_) outcome_ = why;
        return false;
    }
    bool keep(status s) { return s ? true : fail(s.error()); }

    void set_path(std::string_view name) {
        path_.resize(frames_.back().path_size);
        if (!path_.empty()) path_ += '.';
        path_ += name;
    }
    void step_into_array() {
        if (!frames_.empty() && frames_.back().is_array) set_path(std::to_string(frames_.back().index++));
    }

    bool number(double n) { return value({.path = {}, .kind = json_kind::number, .text = {}, .number = n}); }

    bool value(json_fact fact) {
        if (list_ == list::vocabulary)
            return fail(error::format(errc::json_wrong_type, "model.vocab: the id of '%.100s' is no number", key_.c_str()));
        if (list_ == list::merges)
            return fail(error::format(errc::json_wrong_type, "model.merges: a merge is neither a string nor two strings"));
        if (list_ == list::added) return added_field(fact);
        if (frames_.empty()) return fail(error::format(errc::json_wrong_type, "the file holds no object"));
        step_into_array();
        if (merges_only_) return true;
        fact.path = path_;
        return keep(settings_.add(std::move(fact)));
    }

    bool open(json_kind kind) {
        const bool is_array = kind == json_kind::array;
        if (frames_.size() == max_depth) return fail(error::format(errc::json_too_deep, "deeper than %zu levels", max_depth));
        if (list_ == list::vocabulary) return value({.path = {}, .kind = kind, .text = {}, .number = 0.0});
        if (list_ == list::merges || list_ == list::added) return open_item(is_array);
        if (frames_.empty() && is_array) return fail(error::format(errc::json_wrong_type, "the file holds no object"));
        step_into_array();
        if (!frames_.empty() && !open_list(is_array, kind)) return false;
        frames_.push_back({path_.size(), 0, is_array});
        return true;
    }

    /// One of the three long lists, or an ordinary container.
    bool open_list(bool is_array, json_kind kind) {
        const auto begin = [&](list which, bool& seen, bool right_type) {
            if (seen) return fail(error::format(errc::json_duplicate_key, "'%s' is given twice", path_.c_str()));
            if (!right_type) return fail(error::format(errc::json_wrong_type, "'%s' is the wrong kind of list", path_.c_str()));
            seen = true;
            list_ = which;
            list_depth_ = frames_.size() + 1;
            return true;
        };
        if (path_ == "model.vocab") return begin(list::vocabulary, seen_vocabulary_, !is_array);
        if (path_ == "model.merges") {
            merges_came_first_ = !seen_vocabulary_;
            return begin(list::merges, seen_merges_, is_array);
        }
        if (path_ == "added_tokens") return begin(list::added, seen_added_, is_array);
        return merges_only_ || keep(settings_.add({.path = path_, .kind = kind, .text = {}, .number = 0.0}));
    }

    /// A merge as a pair, or an added token.
    bool open_item(bool is_array) {
        if (frames_.size() != list_depth_ || is_array != (list_ == list::merges))
            return fail(error::format(errc::json_wrong_type, "'%s': an entry has the wrong type",
                                      list_ == list::merges ? "model.merges" : "added_tokens"));
        frames_.push_back({path_.size(), 0, is_array});
        parts_ = 0;
        if (list_ == list::added) {
            token_ = added_token{};
            has_content_ = false;
        }
        return true;
    }

    bool close() {
        frames_.pop_back();
        if (list_ != list::none && frames_.size() == list_depth_) return close_item();
        if (list_ != list::none && frames_.size() < list_depth_) list_ = list::none;
        return true;
    }

    bool close_item() {
        if (list_ == list::merges) {
            if (parts_ != 2) return fail(error::format(errc::json_wrong_type, "model.merges: a pair has %zu strings", parts_));
            return merge(left_, right_);
        }
        if (merges_only_) return true;
        if (token_.id == no_token || !has_content_)
            return fail(error::format(errc::json_missing_key, "added_tokens: entry %zu lacks %s", added_.size(),
                                      has_content_ ? "'id'" : "'content'"));
        added_.push_back(std::move(token_));
        return true;
    }

    bool token(std::uint64_t id) {
        if (merges_only_) return true;
        if (from_byte_level(key_, left_bytes_)) return keep(builder_.add_token(static_cast<std::size_t>(id), left_bytes_));
        if (not_byte_level_.size() == tokenizer_settings::max_facts)
            return fail(error::format(errc::bad_vocabulary, "token %llu '%.100s' is not byte-level text",
                                      static_cast<unsigned long long>(id), key_.c_str()));
        not_byte_level_.emplace_back(id, key_);
        return true;
    }

    bool merge_string(std::string& s) {
        if (frames_.size() > list_depth_) {  // inside a pair
            if (parts_ < 2) (parts_ == 0 ? left_ : right_).swap(s);
            ++parts_;
            return true;
        }
        const std::size_t space = s.find(' ');
        if (space == std::string::npos || s.find(' ', space + 1) != std::string::npos)
            return fail(error::format(errc::bad_merge, "merge '%.100s' is not two parts with a space between", s.c_str()));
        return merge(std::string_view(s).substr(0, space), std::string_view(s).substr(space + 1));
    }

    bool merge(std::string_view left, std::string_view right) {
        if (merges_came_first_ && !merges_only_) return true;
        if (!from_byte_level(left, left_bytes_) || !from_byte_level(right, right_bytes_))
            return fail(error::format(errc::bad_merge, "merge '%.*s' '%.*s' is not byte-level text",
                                      static_cast<int>(std::min<std::size_t>(left.size(), 100)), left.data(),
                                      static_cast<int>(std::min<std::size_t>(right.size(), 100)), right.data()));
        return keep(builder_.add_merge(left_bytes_, right_bytes_));
    }

    bool added_field(json_fact& fact) {
        if (frames_.size() == list_depth_) return fail(error::format(errc::json_wrong_type, "added_tokens: an entry is no object"));
        if (merges_only_) return true;
        const std::string_view name = std::string_view(path_).substr(frames_.back().path_size + 1);
        const auto wrong = [&] {
            return fail(error::format(errc::json_wrong_type, "added_tokens: '%s' has the wrong type", path_.c_str()));
        };
        if (name == "id") {
            if (fact.kind != json_kind::number || fact.number < 0) return wrong();
            if (fact.number >= static_cast<double>(max_vocabulary_ids))
                return fail(error::format(errc::bad_vocabulary, "added token id %.0f is not below the limit of %zu", fact.number,
                                          max_vocabulary_ids));
            token_.id = static_cast<std::uint32_t>(fact.number);
            return true;
        }
        if (name == "content") {
            if (fact.kind != json_kind::string) return wrong();
            token_.content = std::move(fact.text);
            has_content_ = true;
            return true;
        }
        const bool on = fact.number != 0.0;
        if (fact.kind != json_kind::boolean) return wrong();
        if (name == "special")
            token_.special = on;
        else if (name == "lstrip")
            token_.lstrip = on;
        else if (name == "rstrip")
            token_.rstrip = on;
        else if (name == "normalized")
            token_.normalized = on;
        else if (name != "single_word")
            return fail(error::format(errc::json_unknown_key, "added_tokens: the key '%s' is not known", path_.c_str()));
        else if (on)
            return fail(error::format(errc::unsupported_tokenizer, "added tokens with single_word are not supported"));
        return true;
    }

    tokenizer_builder& builder_;
    tokenizer_settings settings_;
    status outcome_;
    std::vector<frame> frames_;
    std::string path_, key_, left_, right_, left_bytes_, right_bytes_;
    std::vector<std::pair<std::uint64_t, std::string>> not_byte_level_;
    std::vector<added_token> added_;
    added_token token_;
    std::size_t parts_ = 0;
    std::size_t list_depth_ = 0;
    list list_ = list::none;
    bool merges_only_ = false, merges_came_first_ = false, has_content_ = false;
    bool seen_vocabulary_ = false, seen_merges_ = false, seen_added_ = false;
};

}  // namespace detail

/// The largest tokenizer.json that is read.
inline constexpr std::size_t max_tokenizer_json_bytes = std::size_t{1} << 28;

/// Builds a tokenizer from the bytes of a tokenizer.json, which need not be kept. Post-processors are not run: texts get no
/// markers that they do not spell. Errors: json_* with the place; unsupported_tokenizer with the name of what is not supported;
/// bad_vocabulary; bad_merge.
inline result<tokenizer> tokenizer_from_json(std::string_view json) {
    if (json.size() > max_tokenizer_json_bytes)
        return error::format(errc::json_too_large, "%zu bytes, at most %zu are read", json.size(), max_tokenizer_json_bytes);
    if (json.empty()) return error::format(errc::file_empty, "the tokenizer.json is empty");
    tokenizer_builder builder;
    // The released files spend about 78 bytes on a token and its merge.
    builder.reserve(json.size() / 72, json.size() / 10, json.size() / 72);
    detail::tokenizer_json_reader reader(builder, false);
    nlohmann::json::sax_parse(json.data(), json.data() + json.size(), &reader);
    if (!reader.outcome()) return reader.outcome().error();
    if (reader.merges_came_first()) {
        detail::tokenizer_json_reader again(builder, true);
        nlohmann::json::sax_parse(json.data(), json.data() + json.size(), &again);
        if (!again.outcome()) return again.outcome().error();
    }
    if (status s = reader.finish(); !s) return s.error();
    return builder.build();
}

PHI4FLASH_END

#endif

PHI4FLASH_BEGIN

#if PHI4FLASH_HAS_JSON
/// Builds a tokenizer from a tokenizer.json, or from the one in a folder. Errors, naming the file: those of mapped_file::open and
/// tokenizer_from_json.
[[nodiscard]] inline result<tokenizer> open_tokenizer_json(const std::filesystem::path& path) {
    std::error_code ignored;
    const std::filesystem::path file = std::filesystem::is_directory(path, ignored) ? path / "tokenizer.json" : path;
    const auto mapped = mapped_file::open(file);
    if (!mapped) return mapped.error();
    auto text = tokenizer_from_json(mapped->text());
    if (!text) return text.error().in(printable(file).c_str());
    return text;
}
#endif

/// How to open packed files; checkpoints are mapped as they are.
struct opening_options {
    mapping_options mapping{};  ///< of the file
    repack_options repack{};    ///< of row-major files, whose quantized tensors are packed in memory of their own
};

/// Configuration, weights and tokenizer of a model, whichever form they have. A tensor_source: bind a model to it. Reading from
/// several threads is safe. Its views stay valid as long as it lives, and after it has been moved.
class model_files {
public:
    model_files() = default;
    model_files(model_files&&) = default;
    model_files& operator=(model_files&&) = default;

    /// A folder is opened as a checkpoint, anything else as a packed file. Errors: those of checkpoint::open, packed_model::open
    /// and repacked_model::create; file_not_found; file_unreadable for a folder where the library was built without a JSON library.
    static result<model_files> open(const std::filesystem::path& path, const opening_options& options = {}) {
        model_files made;
        made.path_ = path;
        std::error_code ignored;
        const auto kind = std::filesystem::status(path, ignored).type();
        if (kind == std::filesystem::file_type::not_found)
            return error::format(errc::file_not_found, "%s: there is no such folder or file", printable(path).c_str());
        if (kind != std::filesystem::file_type::directory) {
            auto file = packed_model::open(path, options.mapping);
            if (!file) return file.error();
            if (file->needs_repacking()) {
                auto repacked = repacked_model::create(*file, options.repack);
                if (!repacked) return repacked.error().in(printable(path).c_str());
                made.repacked_.emplace(*std::move(repacked));
            }
            made.form_ = *std::move(file);
            return made;
        }
#if PHI4FLASH_HAS_JSON
        auto folder = checkpoint::open(path);
        if (!folder) return folder.error();
        made.form_ = *std::move(folder);
        return made;
#else
        return error::format(errc::file_unreadable, "%s: want a packed file: folders need a JSON library in the build",
                             printable(path).c_str());
#endif
    }

    [[nodiscard]] const sambay_config& config() const {
        return std::visit([](const auto& f) -> const sambay_config& { return f.config(); }, form_);
    }
    [[nodiscard]] const generation_config& generation() const {
        return std::visit([](const auto& f) -> const generation_config& { return f.generation(); }, form_);
    }
    /// Sorted by name.
    [[nodiscard]] std::span<const tensor_view> tensors() const {
        return repacked_ ? repacked_->tensors() : std::visit([](const auto& f) { return f.tensors(); }, form_);
    }
    [[nodiscard]] const tensor_view* find(std::string_view name) const {
        return repacked_ ? repacked_->find(name) : std::visit([&](const auto& f) { return f.find(name); }, form_);
    }
    /// Bytes of all weights.
    [[nodiscard]] std::uint64_t bytes() const {
        std::uint64_t sum = 0;
        for (const tensor_view& t : tensors()) sum += t.bytes;
        return sum;
    }
    /// See mapped_file::release_pages.
    void release_pages() const {
        std::visit([](const auto& f) { f.release_pages(); }, form_);
    }

    /// What was opened.
    [[nodiscard]] const std::filesystem::path& path() const { return path_; }
    /// The packed file, or nullptr.
    [[nodiscard]] const packed_model* packed() const { return std::get_if<packed_model>(&form_); }

    [[nodiscard]] bool has_tokenizer() const {
        if (const packed_model* const file = packed()) return file->has_array("tokens.bytes");
#if PHI4FLASH_HAS_JSON
        if (const checkpoint* const folder = std::get_if<checkpoint>(&form_)) return !folder->tokenizer_path().empty();
#endif
        return false;
    }
    /// Errors: those of read_tokenizer and open_tokenizer_json; file_not_found where there is none.
    [[nodiscard]] result<tokenizer> open_tokenizer() const {
        if (!has_tokenizer()) return error::format(errc::file_not_found, "%s has no tokenizer", printable(path_).c_str());
        if (const packed_model* const file = packed()) {
            tokenizer_builder builder;
            if (const status ok = read_tokenizer(*file, builder); !ok) return ok.error().in(printable(path_).c_str());
            return builder.build();
        }
#if PHI4FLASH_HAS_JSON
        return open_tokenizer_json(std::get<checkpoint>(form_).tokenizer_path());
#endif
    }

private:
#if PHI4FLASH_HAS_JSON
    std::variant<packed_model, checkpoint> form_;
#else
    std::variant<packed_model> form_;
#endif
    std::optional<repacked_model> repacked_;
    std::filesystem::path path_;
};

PHI4FLASH_END

// ---- phi4flash/io/safetensors_writer.hpp ---------------------------------------------------------------------------------
/// Writes safetensors files of any size: the header from a list of shapes, then the data in pieces as they are made.

PHI4FLASH_BEGIN

/// A tensor to be written.
struct safetensors_spec {
    std::string name;          ///< printable ASCII
    std::string_view dtype;    ///< one of safetensors_dtypes, as in name_of(dtype::bf16)
    std::vector<std::size_t> shape;
};

/// Takes the next bytes of the tensor being written.
class safetensors_sink {
public:
    explicit safetensors_sink(file_writer& file) : file_(&file) {}

    /// Errors: file_unwritable.
    status write(std::span<const std::byte> piece) {
        written_ += piece.size();
        return file_->write(piece);
    }
    template <class T>
    status write(std::span<const T> values) {
        return write(std::as_bytes(values));
    }
    [[nodiscard]] std::uint64_t written() const { return written_; }

private:
    file_writer* file_;
    std::uint64_t written_ = 0;
};

/// Where the tensors of a file go: wide elements first, so that without gaps every tensor is aligned to its elements.
struct safetensors_plan {
    std::string header;               ///< JSON, padded to a multiple of 8 bytes
    std::vector<std::size_t> order;   ///< indices of the specs, in the order of their data
    std::vector<std::uint64_t> bytes; ///< of each spec
};

namespace detail {
[[nodiscard]] inline status check_spec(const safetensors_spec& spec) {
    for (const char c : spec.name)
        if (c < 0x20 || c > 0x7e)
            return error::format(errc::invalid_argument, "tensor '%s': want a name in printable ASCII",
                                 printable(spec.name).c_str());
    if (find_safetensors_dtype(spec.dtype) == nullptr)
        return error::format(errc::unknown_dtype, "tensor '%s': unknown dtype '%s'", printable(spec.name).c_str(),
                             printable(spec.dtype).c_str());
    if (spec.shape.size() > tensor_view::max_rank)
        return error::format(errc::rank_too_high, "tensor '%s': want at most %zu extents, have %zu", printable(spec.name).c_str(),
                             tensor_view::max_rank, spec.shape.size());
    return {};
}

[[nodiscard]] inline result<std::uint64_t> bytes_of(const safetensors_spec& spec) {
    std::uint64_t bytes = find_safetensors_dtype(spec.dtype)->bytes;
    for (const std::size_t extent : spec.shape) {
        if (extent != 0 && bytes > std::numeric_limits<std::uint64_t>::max() / extent)
            return error::format(errc::size_overflow, "tensor '%s': the product of its shape does not fit 64 bits",
                                 printable(spec.name).c_str());
        bytes *= extent;
    }
    return bytes;
}

[[nodiscard]] inline std::string header_entry(const safetensors_spec& spec, std::uint64_t begin, std::uint64_t end) {
    std::string text = ",\"";
    for (const char c : spec.name) {
        if (c == '"' || c == '\\') text += '\\';
        text += c;
    }
    text += "\":{\"dtype\":\"" + std::string(spec.dtype) + "\",\"shape\":[";
    for (std::size_t i = 0; i < spec.shape.size(); ++i) text += (i == 0 ? "" : ",") + std::to_string(spec.shape[i]);
    return text + "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(end) + "]}";
}
}  // namespace detail

/// Errors, each naming the tensor: invalid_argument, unknown_dtype, rank_too_high, size_overflow, duplicate_name,
/// header_too_large.
[[nodiscard]] inline result<safetensors_plan> plan_safetensors(std::span<const safetensors_spec> specs) {
    safetensors_plan plan;
    std::vector<std::string_view> names;
    for (std::size_t i = 0; i < specs.size(); ++i) {
        if (const status ok = detail::check_spec(specs[i]); !ok) return ok.error();
        const auto bytes = detail::bytes_of(specs[i]);
        if (!bytes) return bytes.error();
        plan.bytes.push_back(*bytes);
        plan.order.push_back(i);
        names.push_back(specs[i].name);
    }
    names.push_back("__metadata__");
    std::sort(names.begin(), names.end());
    if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
        return error::format(errc::duplicate_name, "tensor '%s' occurs twice", printable(*twice).c_str());
    std::sort(plan.order.begin(), plan.order.end(), [specs](std::size_t a, std::size_t b) {
        const std::size_t wide_a = find_safetensors_dtype(specs[a].dtype)->bytes;
        const std::size_t wide_b = find_safetensors_dtype(specs[b].dtype)->bytes;
        return wide_a != wide_b ? wide_a > wide_b : a < b;
    });

    // Other readers want to be told that the layout is PyTorch's.
    plan.header = R"({"__metadata__":{"format":"pt"})";
    std::uint64_t begin = 0;
    for (const std::size_t i : plan.order) {
        if (plan.bytes[i] > static_cast<std::uint64_t>(PTRDIFF_MAX) - begin)
            return error::format(errc::size_overflow, "tensor '%s': the file would be too large", printable(specs[i].name).c_str());
        plan.header += detail::header_entry(specs[i], begin, begin + plan.bytes[i]);
        begin += plan.bytes[i];
    }
    plan.header += '}';
    while (plan.header.size() % 8 != 0) plan.header += ' ';
    if (plan.header.size() > max_safetensors_header)
        return error::format(errc::header_too_large, "want a header of at most %zu bytes, have %zu", max_safetensors_header,
                             plan.header.size());
    return plan;
}

/// Writes a file, whole or not at all. `produce(i, sink)` returns a status and writes the data of `specs[i]` to the
/// safetensors_sink in as many pieces as it likes; it is called once a tensor, wide element types first. Errors: those of
/// plan_safetensors, size_mismatch (naming the tensor that got too many or too few bytes), file_unwritable, and those of
/// `produce`.
template <class Produce>
[[nodiscard]] status write_safetensors(const std::filesystem::path& path, std::span<const safetensors_spec> specs,
                                       Produce&& produce) {
    const auto plan = plan_safetensors(specs);
    if (!plan) return plan.error();
    auto file = file_writer::create(path);
    if (!file) return file.error();
    const std::uint64_t length = plan->header.size();
    if (const status ok = file->write(std::as_bytes(std::span(&length, 1))); !ok) return ok;
    if (const status ok = file->write(plan->header); !ok) return ok;
    for (const std::size_t i : plan->order) {
        safetensors_sink sink(*file);
        if (const status ok = produce(i, sink); !ok) return ok;
        if (sink.written() != plan->bytes[i])
            return error::format(errc::size_mismatch, "tensor '%s': its shape wants %llu bytes, %llu were written",
                                 printable(specs[i].name).c_str(), static_cast<unsigned long long>(plan->bytes[i]),
                                 static_cast<unsigned long long>(sink.written()));
    }
    return file->commit();
}

PHI4FLASH_END
#if PHI4FLASH_HAS_JSON
#endif

#endif  // PHI4FLASH_SINGLE_HEADER_INCLUDED
