#pragma once
/// The one place where the library meets exceptions of memory. Inside, standard containers hold names, tables and texts, and tell by
/// throwing that there is no memory; every public function that uses them runs in `or_out_of_memory`, which makes that an error value.
///
/// What happens without exceptions (-fno-exceptions), and what can be done without these containers: docs/memory.md.
#include <phi4flash/core/result.hpp>

#include <cstddef>
#include <type_traits>

#if defined(__cpp_exceptions)
#include <new>
#include <stdexcept>
#endif

PHI4FLASH_BEGIN

namespace detail {

/// What work() returns, or `otherwise()` where it ends for want of memory (std::bad_alloc, and std::length_error of a container that is
/// asked for more than there can be). Any other exception, such as one of a host's callback, passes through.
template <class Work, class Otherwise>
auto unless_out_of_memory(Work&& work, [[maybe_unused]] Otherwise&& otherwise) -> decltype(work()) {
#if defined(__cpp_exceptions)
    try {
        return work();
    } catch (const std::bad_alloc&) {
        return otherwise();
    } catch (const std::length_error&) {
        return otherwise();
    }
#else
    return work();
#endif
}

/// The error of a public function that runs out of memory: "not enough memory to <what>".
struct no_memory_to {
    const char* what;
    [[nodiscard]] error operator()() const { return error::format(errc::out_of_memory, "not enough memory to %s", what); }
};

/// What work(), which returns nothing or what an error can become, returns, nothing as success; where memory runs out, that error.
template <class Work>
[[nodiscard]] auto or_out_of_memory(const char* what, Work&& work) {
    if constexpr (std::is_void_v<decltype(work())>) {
        return unless_out_of_memory([&] { return work(), status(); }, no_memory_to{what});
    } else {
        return unless_out_of_memory(work, no_memory_to{what});
    }
}

/// The same of work that appends to `out`, a string or a vector: where it fails, `out` is as it was.
template <class Out, class Work>
[[nodiscard]] status append_or_nothing(const char* what, Out& out, Work&& work) {
    const std::size_t before = out.size();
    const status done = or_out_of_memory(what, work);
    if (!done) out.resize(before);  // shorter: takes nothing
    return done;
}

}  // namespace detail

PHI4FLASH_END
