/// Arm's MPS2 board with the Cortex-M7 of AN500, as qemu has it: start, serial line, and the calls that newlib and libstdc++ make.
#include "board.hpp"

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <malloc.h>
#include <new>
#include <sys/stat.h>
#include <sys/time.h>

extern "C" {
// mps2-an500.ld
extern std::uint32_t data_begin[], data_end[], data_source[], bss_begin[], bss_end[], stack_begin[], stack_end[];
extern void (*init_begin[])();
extern void (*init_end[])();
int main();
}

namespace {

volatile std::uint32_t& at(std::uintptr_t address) { return *reinterpret_cast<volatile std::uint32_t*>(address); }

constexpr std::uintptr_t uart = 0x40004000;  // CMSDK: data, state, control, divider
constexpr std::uint32_t never_written = 0x5a5a5a5a;

alignas(64) char heap[std::size_t{256} << 10];
std::size_t heap_end = 0;
std::size_t heap_most = 0;

void start_clean() {
    at(0xe000ed88) = at(0xe000ed88) | 0xf00000;  // CPACR: the floating-point unit
    __asm__ volatile("dsb\n isb");
    std::memcpy(data_begin, data_source, static_cast<std::size_t>(reinterpret_cast<char*>(data_end) - reinterpret_cast<char*>(data_begin)));
    std::memset(bss_begin, 0, static_cast<std::size_t>(reinterpret_cast<char*>(bss_end) - reinterpret_cast<char*>(bss_begin)));
    at(uart + 16) = 16;
    at(uart + 8) = 1;
}

}  // namespace

namespace board {

void write(const char* text, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) {
        while ((at(uart + 4) & 1) != 0) {
        }
        at(uart) = static_cast<unsigned char>(text[i]);
    }
}
void write(const char* text) { write(text, std::strlen(text)); }

/// By semihosting: a debugger, or qemu, is told the exit code.
void stop(int code) {
    const std::uint32_t block[2] = {0x20026, static_cast<std::uint32_t>(code)};
    register std::uint32_t operation __asm__("r0") = 0x20;
    register const std::uint32_t* argument __asm__("r1") = block;
    __asm__ volatile("bkpt 0xab" : : "r"(operation), "r"(argument) : "memory");
    while (true) {
    }
}

std::size_t heap_size() { return sizeof heap; }
std::size_t heap_used() { return heap_most; }
std::size_t stack_size() { return static_cast<std::size_t>(stack_end - stack_begin) * 4; }
std::size_t stack_used() {
    const std::uint32_t* p = stack_begin;
    while (*p == never_written) ++p;
    return static_cast<std::size_t>(stack_end - p) * 4;
}

}  // namespace board

extern "C" {

[[noreturn]] void fault() {
    board::write("\nfault\n");
    board::stop(3);
}

[[noreturn]] void begin() {
    for (std::uint32_t* p = stack_begin; p < reinterpret_cast<std::uint32_t*>(__builtin_frame_address(0)) - 64; ++p) *p = never_written;
    start_clean();
    for (void (**f)() = init_begin; f != init_end; ++f) (*f)();
    board::stop(main());
}

__attribute__((section(".vectors"), used)) const void* const vectors[16] = {
    stack_end, reinterpret_cast<const void*>(&begin), reinterpret_cast<const void*>(&fault), reinterpret_cast<const void*>(&fault),
    reinterpret_cast<const void*>(&fault), reinterpret_cast<const void*>(&fault), reinterpret_cast<const void*>(&fault),
};

// newlib's
void* _sbrk(std::ptrdiff_t n) {
    if (n > 0 && static_cast<std::size_t>(n) > sizeof heap - heap_end) {
        errno = ENOMEM;
        return reinterpret_cast<void*>(-1);
    }
    char* const place = heap + heap_end;
    heap_end += static_cast<std::size_t>(n);
    if (heap_end > heap_most) heap_most = heap_end;
    return place;
}
int _write(int, const char* text, int size) {
    board::write(text, static_cast<std::size_t>(size));
    return size;
}
int _read(int, char*, int) { return 0; }
int _close(int) { return -1; }
int _lseek(int, int, int) { return 0; }
int _fstat(int, struct stat* about) {
    about->st_mode = S_IFCHR;
    return 0;
}
int _isatty(int) { return 1; }
int _getpid() { return 1; }
int _kill(int, int) { return -1; }
int _gettimeofday(struct timeval* now, void*) {
    *now = {};
    return 0;
}
[[noreturn]] void _exit(int code) { board::stop(code); }
void* __dso_handle = nullptr;
int __aeabi_atexit(void*, void (*)(void*), void*) { return 0; }  // nothing ends
}

// Without exceptions there is nothing to be done about want of memory here, and no need for the tables and words of those who throw.
namespace {
[[noreturn]] void out_of_memory() {
    board::write("\nthe heap is used up\n");
    board::stop(4);
}
void* take(std::size_t bytes, std::size_t alignment) {
    return alignment <= 8 ? std::malloc(bytes) : ::memalign(alignment, bytes);
}
void* take_or_stop(std::size_t bytes, std::size_t alignment) {
    void* const place = take(bytes == 0 ? 1 : bytes, alignment);
    if (place == nullptr) out_of_memory();
    return place;
}
}  // namespace
void* operator new(std::size_t n) { return take_or_stop(n, 8); }
void* operator new[](std::size_t n) { return take_or_stop(n, 8); }
void* operator new(std::size_t n, std::align_val_t a) { return take_or_stop(n, static_cast<std::size_t>(a)); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return take(n, 8); }
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept { return take(n, 8); }
void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept { return take(n, static_cast<std::size_t>(a)); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace std {
[[noreturn]] void __throw_length_error(const char*) { out_of_memory(); }
[[noreturn]] void __throw_bad_alloc() { out_of_memory(); }
[[noreturn]] void __throw_bad_array_new_length() { out_of_memory(); }
[[noreturn]] void __throw_logic_error(const char*) { board::stop(5); }
[[noreturn]] void __throw_out_of_range(const char*) { board::stop(5); }
[[noreturn]] void __throw_out_of_range_fmt(const char*, ...) { board::stop(5); }
[[noreturn]] void __throw_bad_variant_access(const char*) { board::stop(5); }
[[noreturn]] void __throw_bad_optional_access() { board::stop(5); }
[[noreturn]] void __throw_bad_function_call() { board::stop(5); }
}  // namespace std

/// No clock: the library asks only how long passes with drafts take.
std::chrono::steady_clock::time_point std::chrono::steady_clock::now() noexcept { return {}; }
