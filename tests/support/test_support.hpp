#pragma once
/// What the tests share: numbers from a seed, buffers that end where their data ends, errors in ulp, a loop over targets.
#include <phi4flash/kernels/targets.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace phi4flash_test {

/// SplitMix64: the same numbers on every machine.
class generator {
public:
    explicit generator(std::uint64_t seed) : state_(seed) {}

    [[nodiscard]] std::uint64_t next() {
        std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    [[nodiscard]] std::size_t below(std::size_t n) { return static_cast<std::size_t>(next() % n); }
    [[nodiscard]] float uniform(float low, float high) { return low + (high - low) * static_cast<float>(next() >> 40) * 0x1p-24f; }

private:
    std::uint64_t state_;
};

/// `count` elements that start `offset` elements into a heap block and end exactly with it, so that the address sanitizer sees
/// the first byte that is read behind them.
template <class T>
class buffer {
public:
    explicit buffer(std::size_t count, std::size_t offset = 0) : storage_(offset + count), offset_(offset) {}
    buffer(std::size_t count, std::size_t offset, T value) : storage_(offset + count, value), offset_(offset) {}

    [[nodiscard]] T* data() { return storage_.data() + offset_; }
    [[nodiscard]] const T* data() const { return storage_.data() + offset_; }
    [[nodiscard]] std::byte* bytes() { return reinterpret_cast<std::byte*>(data()); }
    [[nodiscard]] const std::byte* bytes() const { return reinterpret_cast<const std::byte*>(data()); }
    [[nodiscard]] std::size_t size() const { return storage_.size() - offset_; }
    [[nodiscard]] T& operator[](std::size_t i) { return data()[i]; }
    [[nodiscard]] const T& operator[](std::size_t i) const { return data()[i]; }
    [[nodiscard]] T* begin() { return data(); }
    [[nodiscard]] T* end() { return data() + size(); }

private:
    std::vector<T> storage_;
    std::size_t offset_;
};

/// Uniform in [low, high), rounded to T.
template <class T>
[[nodiscard]] buffer<T> random_buffer(generator& random, std::size_t count, std::size_t offset, float low = -1.0f,
                                      float high = 1.0f) {
    buffer<T> b(count, offset);
    for (T& x : b) x = phi4flash::from_f32<T>(random.uniform(low, high));
    return b;
}

inline constexpr float nan_f32 = std::numeric_limits<float>::quiet_NaN();
/// Marks cells that a kernel has no business with.
inline constexpr float canary = -12345.678f;

/// `rows` rows of `cols` numbers, `stride` apart, the cells between them set to `gap`; nothing behind the last row.
[[nodiscard]] inline buffer<float> random_rows(generator& random, std::size_t rows, std::size_t cols, std::size_t stride,
                                               std::size_t offset, float gap) {
    buffer<float> b(rows == 0 ? 0 : (rows - 1) * stride + cols, offset, gap);
    for (std::size_t r = 0; r < rows; ++r) {
        for (std::size_t c = 0; c < cols; ++c) b[r * stride + c] = random.uniform(-1.0f, 1.0f);
    }
    return b;
}

/// Whether every cell between the rows still has the value of `canary`.
[[nodiscard]] inline bool gaps_untouched(const buffer<float>& b, std::size_t cols, std::size_t stride) {
    for (std::size_t i = 0; i < b.size(); ++i) {
        if (i % stride >= cols && b[i] != canary) return false;
    }
    return true;
}

[[nodiscard]] inline bool same_bits(const float* a, const float* b, std::size_t count) {
    return count == 0 || std::memcmp(a, b, count * sizeof(float)) == 0;
}
[[nodiscard]] inline bool same_bits(const buffer<float>& a, const buffer<float>& b) {
    return a.size() == b.size() && same_bits(a.data(), b.data(), a.size());
}

/// Spacing of floats at the magnitude of x; that of the smallest normal float below it.
[[nodiscard]] inline double ulp_at(double x) {
    int exponent = 0;
    std::frexp(x, &exponent);
    return std::ldexp(1.0, (exponent < -125 ? -125 : exponent) - 24);
}
[[nodiscard]] inline double ulp_error(float got, double want) {
    return std::isnan(got) ? std::numeric_limits<double>::infinity() : std::fabs(static_cast<double>(got) - want) / ulp_at(want);
}

/// What is lost at most where vectors take subnormal numbers for zero, as NEON of 32 bits always does.
#if defined(__arm__)
inline constexpr double flushed = 2.0 * std::numeric_limits<float>::min();
#else
inline constexpr double flushed = 0.0;
#endif

/// The largest number seen; NaN counts as infinite.
struct worst {
    double value = 0.0;
    void see(double error) { value = std::isnan(error) ? std::numeric_limits<double>::infinity() : error > value ? error : value; }
};

/// "matvec BF16": a kernel and the type it was tried with.
template <class Element>
[[nodiscard]] std::string with_type(const char* what) {
    return std::string(what) + " " + phi4flash::name_of(phi4flash::dtype_of<Element>);
}

/// Says how large the worst error was, so that a bound that has become too wide is seen.
inline void report(const std::string& what, const phi4flash::kernel_table& kernels, const worst& error, const char* unit) {
    MESSAGE(what << ", " << kernels.name << ": worst error " << error.value << " " << unit);
}

/// Calls `test(kernels)` for every target that this machine can run.
template <class Test>
void for_each_target(Test&& test) {
    std::size_t ran = 0;
    for (const phi4flash::kernel_target& target : phi4flash::kernel_targets()) {
        if (!target.request()) continue;
        const std::string name = target.kernels->name;
        CAPTURE(name);
        test(*target.kernels);
        ++ran;
    }
    CHECK(ran > 0);
}

}  // namespace phi4flash_test
