// A program that uses the kernels alone: compiles in a quarter of the time.
#include <phi4flash/core/thread_pool.hpp>
#include <phi4flash/kernels/dispatch.hpp>

#include "report.hpp"

int main() { return report(); }
