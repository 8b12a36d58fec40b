#pragma once
/// What this thread took by operator new, where failing_memory.hpp replaces it.
#include <cstddef>

namespace counting {

/// Whether anything is counted: false where no file of the program includes failing_memory.hpp.
inline bool works = false;
inline thread_local std::size_t bytes_of_thread = 0;

/// Bytes asked for since it was made, or since `begin`.
class of_thread {
public:
    void begin() { before_ = bytes_of_thread; }
    [[nodiscard]] std::size_t bytes() const { return bytes_of_thread - before_; }

private:
    std::size_t before_ = bytes_of_thread;
};

}  // namespace counting
