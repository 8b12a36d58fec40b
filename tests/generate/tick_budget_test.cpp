/// How many rows of prompts a tick may have: as few as keep it within the host's time.
#include <phi4flash/generate/tick_budget.hpp>

#include <doctest/doctest.h>

namespace p4 = phi4flash;

TEST_CASE("scheduler: a time is kept by fewer rows of prompts") {
    p4::tick_budget unbounded({.prompt_rows = 24});
    CHECK(unbounded.prompt_rows() == 24);
    p4::tick_budget budget({.prompt_rows = 256, .longest_tick = 0.1});
    const auto tick = [&](std::size_t writers, std::size_t rows, double seconds) {
        budget.begin(writers, rows);
        budget.add(0.25 * seconds);
        budget.add(0.75 * seconds);
        budget.end();
    };
    CHECK(budget.prompt_rows() <= 8);  // nothing is known yet
    for (int i = 0; i < 40; ++i) tick(2, 0, 0.03);
    std::size_t before = 0;
    for (int i = 0; i < 40; ++i) {
        const std::size_t rows = budget.prompt_rows();
        CHECK((before == 0 || rows <= 2 * before));
        tick(2, rows, 0.03 + 0.001 * static_cast<double>(rows));
        before = rows;
    }
    CHECK(before >= 55);  // 30 ms, and 1 ms a row: 60 rows are 90 ms
    CHECK(before <= 60);
    for (int i = 0; i < 40; ++i) tick(8, 0, 0.2);
    CHECK(budget.prompt_rows() == 1);  // those who write take longer than that by themselves
    tick(0, 200, 5.0);                 // nobody waited
    CHECK(budget.prompt_rows() == 1);
}
