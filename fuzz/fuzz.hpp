#pragma once
/// What the entries share: values drawn from the input, checks that end the program, and what an input may cost.
///
/// An entry is a file with libFuzzer's function, LLVMFuzzerTestOneInput. It keeps nothing from one input to the next but what no input
/// changes (a file, a model that is open), and gives the library the input's own memory, which ends where the input ends.
#include <phi4flash/core/result.hpp>
#include <phi4flash/text/utf8.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string_view>

namespace fuzz {

/// Ends the program, as a sanitizer does, with a line that says what is wrong.
[[noreturn]] inline void fail(const char* what, const char* file, int line) {
    std::fprintf(stderr, "%s:%d: %s\n", file, line, what);
    std::abort();
}
#define PHI4FLASH_FUZZ_CHECK(...) ((__VA_ARGS__) ? static_cast<void>(0) : ::fuzz::fail(#__VA_ARGS__, __FILE__, __LINE__))

/// A refusal has a sentence, which is terminated, whole, and fit for a terminal.
inline void check_refusal(const phi4flash::error& why) {
    const std::size_t length = std::strlen(why.message());
    PHI4FLASH_FUZZ_CHECK(length > 0 && length < sizeof(phi4flash::error));
    PHI4FLASH_FUZZ_CHECK(phi4flash::valid_utf8_prefix(why.message()) == length);
    for (const char c : std::string_view(why.message())) PHI4FLASH_FUZZ_CHECK(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
}

inline std::span<const std::byte> bytes_of(const std::uint8_t* data, std::size_t size) { return {reinterpret_cast<const std::byte*>(data), size}; }
inline std::string_view text_of(const std::uint8_t* data, std::size_t size) { return {reinterpret_cast<const char*>(data), size}; }

/// Reads all bytes of something, so that a sanitizer sees those that are not there.
inline void read_all(std::span<const std::byte> bytes) {
    std::byte sum{};
    for (const std::byte b : bytes) sum ^= b;
    volatile std::byte sink = sum;
    (void)sink;
}

/// The input as a list of small numbers and of strings. At its end everything is zero and empty.
class input {
public:
    input(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}

    [[nodiscard]] bool empty() const { return rest_.empty(); }
    std::uint8_t byte() {
        if (rest_.empty()) return 0;
        const std::uint8_t b = rest_.front();
        rest_ = rest_.subspan(1);
        return b;
    }
    /// 0 to n - 1.
    std::size_t below(std::size_t n) { return n <= 256 ? byte() % n : (byte() | std::size_t{byte()} << 8) % n; }
    std::uint32_t word() {
        std::uint32_t w = 0;
        for (int i = 0; i < 4; ++i) w |= std::uint32_t{byte()} << 8 * i;
        return w;
    }
    /// The next n bytes, or as many as there are.
    std::string_view text(std::size_t n) {
        n = (std::min)(n, rest_.size());
        const std::string_view taken = text_of(rest_.data(), n);
        rest_ = rest_.subspan(n);
        return taken;
    }
    std::span<const std::byte> rest() {
        const auto all = std::as_bytes(rest_);
        rest_ = {};
        return all;
    }

private:
    std::span<const std::uint8_t> rest_;
};

/// What an input of `size` bytes may take of memory at any one moment, beside what was there before: `least` for the smallest, and `each` for
/// every byte of it. Exceeding it ends the program. Counts malloc and operator new where the address sanitizer tells of them (memory.cpp), else
/// nothing.
class memory_limit {
public:
    memory_limit(std::size_t size, std::size_t least, std::size_t each);
    ~memory_limit();
    memory_limit(const memory_limit&) = delete;
    memory_limit& operator=(const memory_limit&) = delete;

private:
    std::size_t most_;
};

/// Of this thread, since the last memory_limit was made.
std::size_t most_memory();

}  // namespace fuzz
