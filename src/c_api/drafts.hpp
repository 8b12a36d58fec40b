#pragma once
/// Drafts from the text so far, for generations and for requests of schedulers.
#include "structs.hpp"

#include <optional>
#include <span>

PHI4FLASH_BEGIN
namespace c_api {

/// Who drafts: nobody, until there is a place for a text. Stays where it is, as what is generated refers to it.
class text_drafter {
public:
    text_drafter() = default;
    text_drafter(const text_drafter&) = delete;
    text_drafter& operator=(const text_drafter&) = delete;

    /// A place for so many tokens; what was read is kept if there is one already.
    [[nodiscard]] outcome make_room(std::size_t tokens) {
        if (of_ && tokens <= room_) return {};
        auto made = ngram_drafter::create(tokens);
        if (!made) return made.error();
        of_.emplace(*std::move(made));
        room_ = tokens;
        return {};
    }
    void forget_text() {
        if (of_) of_->reset();
    }
    void read(std::span<const std::int32_t> tokens) {
        if (of_) of_->read(tokens);
    }
    [[nodiscard]] std::size_t propose(std::span<draft> out) { return of_ ? of_->propose(out) : 0; }

private:
    std::optional<ngram_drafter> of_;
    std::size_t room_ = 0;
};
static_assert(drafter<text_drafter>);

struct draft_choices {
    std::size_t most = 0;        ///< at once; 0: none
    bool whether_they_pay = false;
};

/// What the options say, where a workspace can check so many at once.
[[nodiscard]] inline outcome read_draft_options(const phi4flash_generation_options& o, const workspace_options& room, draft_choices& to) {
    if (outcome ok = check_choice(o.drafts_always, 2, "options.drafts_always"); !ok) return ok;
    if (o.max_drafts > max_drafts)
        return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "options.max_drafts: want at most %zu, have %lu", max_drafts,
                               static_cast<unsigned long>(o.max_drafts));
    const std::size_t rows = (std::min)({room.states, room.logits, room.chunk});
    if (o.max_drafts != 0 && rows < std::size_t{o.max_drafts} + 1)
        return outcome::failed(PHI4FLASH_INVALID_ARGUMENT,
                               "options.max_drafts: %lu need a workspace with states, logits and chunk of %lu, this one has %zu, %zu and %zu",
                               static_cast<unsigned long>(o.max_drafts), static_cast<unsigned long>(o.max_drafts) + 1, room.states, room.logits,
                               room.chunk);
    to.most = o.max_drafts;
    to.whether_they_pay = o.drafts_always == 0;
    return {};
}

/// The same for the library.
inline void use_drafts(const draft_choices& how, text_drafter& from, draft_policy& policy, draft_options& to) {
    if (how.most == 0) return;
    to.from = from;
    to.policy = how.whether_they_pay ? &policy : nullptr;
    to.most = how.most;
}

}  // namespace c_api
PHI4FLASH_END
