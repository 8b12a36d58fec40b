/// How the rows of a pass are shared out: never more than there is room for, and nobody is left out for long.
#include <phi4flash/generate/row_shares.hpp>

#include <support/test_support.hpp>

#include <doctest/doctest.h>

#include <vector>

namespace p4 = phi4flash;

TEST_CASE("scheduler: rows are shared out, and nobody is left out for long") {
    using share = p4::row_share;
    const auto given = [](std::vector<share> texts, const p4::pass_room& room, std::size_t prompt_rows) {
        p4::share_rows(texts, room, prompt_rows);
        std::vector<std::size_t> rows;
        for (const share& t : texts) rows.push_back(t.rows);
        return rows;
    };
    using rows = std::vector<std::size_t>;
    const share writer{};
    const auto reader = [](std::size_t left, std::size_t undo = 0) { return share{.prompt = left, .undo = undo}; };
    CHECK(given({writer, writer, writer}, {16, 8, 8}, 32) == rows{1, 1, 1});
    CHECK(given({writer, writer, writer}, {16, 2, 8}, 32) == rows{1, 1, 0});
    CHECK(given({writer, writer, writer}, {16, 8, 1}, 32) == rows{1, 0, 0});
    CHECK(given({writer, writer, writer}, {2, 8, 8}, 32) == rows{1, 1, 0});
    CHECK(given({writer, reader(100)}, {64, 8, 8}, 32) == rows{1, 32});
    CHECK(given({reader(100), writer}, {16, 8, 8}, 32) == rows{15, 1});
    CHECK(given({reader(100), writer, writer}, {2, 8, 8}, 32) == rows{1, 1, 0});    // it waited longest
    CHECK(given({writer, writer, reader(100)}, {2, 8, 8}, 32) == rows{1, 1, 0});
    CHECK(given({reader(100), reader(100)}, {64, 8, 8}, 32) == rows{16, 16});
    CHECK(given({reader(100), reader(3)}, {64, 8, 8}, 32) == rows{29, 3});          // what the short one leaves
    CHECK(given({reader(3), reader(100)}, {64, 8, 8}, 32) == rows{3, 29});
    CHECK(given({reader(9), reader(9), reader(9)}, {64, 8, 8}, 2) == rows{1, 1, 0});
    CHECK(given({writer, reader(9)}, {64, 8, 8}, 0) == rows{1, 1});                 // a prompt is read, whatever the bound
    CHECK(given({writer, reader(9)}, {64, 1, 8}, 32) == rows{1, 8});                // no logits for its last token
    CHECK(given({reader(9), writer}, {64, 1, 8}, 32) == rows{9, 0});
    CHECK(given({writer, reader(1)}, {64, 1, 8}, 32) == rows{1, 0});
    CHECK(given({reader(9, 7)}, {64, 8, 4}, 32) == rows{4});                        // more states are not to be had
    CHECK(given({reader(9, 7), writer}, {64, 8, 8}, 32) == rows{9, 0});
    CHECK(given({reader(9, 3), writer}, {64, 8, 8}, 32) == rows{9, 1});
    const share drafting{.drafts = 7};
    CHECK(given({drafting}, {64, 16, 16}, 32) == rows{8});
    CHECK(given({drafting, writer}, {64, 16, 16}, 32) == rows{8, 1});
    CHECK(given({drafting, drafting, drafting}, {12, 16, 16}, 32) == rows{4, 4, 4});
    CHECK(given({drafting, drafting}, {64, 6, 16}, 32) == rows{5, 1});
    CHECK(given({drafting, reader(100)}, {64, 16, 16}, 32) == rows{8, 32});
    // Whatever there is: never more than there is room for.
    phi4flash_test::generator random(7);
    for (int i = 0; i < 2000; ++i) {
        std::vector<share> texts(1 + random.below(9));
        for (share& t : texts) {
            if (random.below(2) == 0) t.prompt = 1 + random.below(40);
            else t.drafts = random.below(5);
            t.undo = random.below(4);
        }
        const p4::pass_room room{1 + random.below(40), 1 + random.below(9), 1 + random.below(12)};
        const std::size_t prompt_rows = random.below(20);
        p4::share_rows(texts, room, prompt_rows);
        std::size_t used = 0, logits = 0, states = 0, prompts = 0;
        for (const share& t : texts) {
            CHECK(t.rows <= (t.prompt == 0 ? 1 + t.drafts : t.prompt));
            used += t.rows;
            prompts += t.prompt == 0 ? 0 : t.rows;
            logits += t.prompt == 0 ? t.rows : t.rows == t.prompt ? 1 : 0;
            states += t.prompt == 0 ? t.rows : std::min(t.rows, 1 + t.undo);
        }
        CHECK(used <= room.rows);
        CHECK(logits <= room.logits);
        CHECK(states <= room.states);
        CHECK(prompts <= std::max(prompt_rows, std::size_t{1}));
        const share& first = texts.front();
        CHECK((first.rows != 0 || (first.prompt == 1 && room.logits == 0)));  // who waited longest goes on
    }
}
