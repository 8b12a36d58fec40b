#pragma once
/// Who gets how many rows of a pass: the arithmetic of a scheduler, apart from sessions and texts.
/// @since 0.2
#include <phi4flash/config/abi.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

PHI4FLASH_BEGIN

/// What a pass has room for.
struct pass_room {
    std::size_t rows = 0;    ///< tokens
    std::size_t logits = 0;  ///< tokens after which logits are wanted
    std::size_t states = 0;  ///< Mamba states that are kept
};

/// What a text could use of a pass, and what it gets.
struct row_share {
    std::size_t prompt = 0;  ///< tokens of its prompt that are left; 0: it writes
    std::size_t drafts = 0;  ///< it could use beside its last token, where it writes
    std::size_t undo = 0;    ///< tokens that its session can take back
    std::size_t rows = 0;    ///< what it gets; 0: it waits
};

namespace detail {

/// Rows that are left, and how they are given.
class row_giver {
public:
    explicit row_giver(const pass_room& room) : left_(room) {}

    [[nodiscard]] std::size_t rows() const { return left_.rows; }

    /// Up to n more rows to a text that writes, each with its logits and state.
    std::size_t give_writer(row_share& to, std::size_t n);

    /// Up to n more rows of a prompt. Its last token wants logits, and waits where there is no room for them.
    std::size_t give_reader(row_share& to, std::size_t n);

private:
    pass_room left_;
};

}  // namespace detail

/// Shares out the rows of a pass. `texts` come in the order in which they are to be served: where there is not room for all, the last ones
/// wait. Each text that writes gets one row, prompts share `prompt_rows` of the others equally (at least one in all), and drafts get what is
/// left.
PHI4FLASH_BODY void share_rows(std::span<row_share> texts, const pass_room& room, std::size_t prompt_rows);

#if PHI4FLASH_BODIES
namespace detail {

PHI4FLASH_BODY std::size_t row_giver::give_writer(row_share& to, std::size_t n) {
    n = (std::min)({n, left_.rows, left_.logits, left_.states});
    to.rows += n;
    left_.rows -= n, left_.logits -= n, left_.states -= n;
    return n;
}

PHI4FLASH_BODY std::size_t row_giver::give_reader(row_share& to, std::size_t n) {
    n = (std::min)({n, left_.rows, to.prompt - to.rows});
    const auto kept = [&](std::size_t rows) { return (std::min)(rows, 1 + to.undo); };
    if (to.rows + n == to.prompt && n != 0 && left_.logits == 0) --n;
    while (n != 0 && kept(to.rows + n) - kept(to.rows) > left_.states) --n;
    if (n == 0) return 0;
    left_.states -= kept(to.rows + n) - kept(to.rows);
    to.rows += n;
    left_.rows -= n;
    if (to.rows == to.prompt) --left_.logits;
    return n;
}

}  // namespace detail

PHI4FLASH_BODY void share_rows(std::span<row_share> texts, const pass_room& room, std::size_t prompt_rows) {
    detail::row_giver giver(room);
    std::size_t writers = 0;
    std::size_t drafting = 0;
    for (row_share& t : texts) {
        t.rows = 0;
        writers += t.prompt == 0 ? 1 : 0;
        drafting += t.drafts != 0 ? 1 : 0;
    }
    std::size_t readers = texts.size() - writers;
    std::size_t budget = (std::max)(prompt_rows, std::size_t{1});
    std::size_t reserved = (std::min)({writers, room.logits, room.states});  // rows, for those who write and come later
    for (row_share& t : texts) {
        if (t.prompt == 0) {
            (void)giver.give_writer(t, 1);
            if (reserved != 0) --reserved;
            continue;
        }
        const std::size_t here = giver.rows() > reserved ? giver.rows() - reserved : 1;  // it waited longer than they
        const std::size_t share = (std::max)(budget / readers--, std::size_t{1});
        budget -= giver.give_reader(t, (std::min)({budget, here, share}));
    }
    for (row_share& t : texts)
        if (t.prompt != 0 && t.rows != 0) budget -= giver.give_reader(t, budget);  // what short prompts left
    for (row_share& t : texts) {
        if (t.prompt != 0 || t.drafts == 0) continue;
        if (t.rows != 0) (void)giver.give_writer(t, (std::min)(t.drafts, giver.rows() / drafting));
        --drafting;
    }
}
#endif

PHI4FLASH_END
