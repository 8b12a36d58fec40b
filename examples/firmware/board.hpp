#pragma once
/// What this board has: a serial line, a heap and a stack of fixed size.
#include <cstddef>

namespace board {

void write(const char* text, std::size_t size);
void write(const char* text);
[[noreturn]] void stop(int code);

std::size_t heap_size();
std::size_t heap_used();   ///< the most so far
std::size_t stack_size();
std::size_t stack_used();  ///< the most so far

}  // namespace board
