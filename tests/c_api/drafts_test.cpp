/// Drafts through the C API: the same texts in fewer passes, refused where there is no room for them.
#include "c_api_testing.hpp"

using namespace c_api_testing;

namespace {

constexpr std::string_view drafted_question = "What is 347 + 285?";
constexpr uint32_t most = 7;

phi4flash_generation_options drafting(uint32_t n = most) {
    auto options = greedy();
    options.max_drafts = n;
    options.drafts_always = 1;  // or texts would depend on time
    return options;
}

owned<phi4flash_workspace> wide_workspace() { return make_workspace(PHI4FLASH_KV_F32, most + 1, most + 1); }

/// The same question twice in one session: what was written once is drafted when it comes again.
struct twice {
    owned<phi4flash_session> s = make_session(PHI4FLASH_KV_F32, 512);
    owned<phi4flash_workspace> w = wide_workspace();
    owned<phi4flash_generation> g;
    answer answers[2];
    phi4flash_generation_info infos[2];
    explicit twice(const phi4flash_generation_options& options, const phi4flash_budget* budget = nullptr) : g(make_generation(w, options)) {
        for (int i = 0; i < 2; ++i) {
            answers[i] = ask(g, s, drafted_question, budget);
            infos[i] = sized<phi4flash_generation_info>();
            C_API_OK(phi4flash_generation_get_info(g, &infos[i], error));
        }
    }
};

}  // namespace

TEST_CASE("drafts: the same texts as without, in fewer passes; in pieces too") {
    const twice plain(greedy());
    CHECK(contains(plain.answers[0].text, "\\boxed{632}"));
    CHECK(plain.infos[1].drafted == 0);
    CHECK(plain.infos[1].accepted == 0);
    const auto at_once = always_at_once();
    for (const phi4flash_budget* const budget : {static_cast<const phi4flash_budget*>(nullptr), &at_once}) {
        const twice drafted(drafting(), budget);
        for (int i = 0; i < 2; ++i) {
            CHECK(drafted.answers[i].text == plain.answers[i].text);
            CHECK(drafted.answers[i].tokens == plain.answers[i].tokens);
            CHECK(drafted.infos[i].new_tokens == plain.infos[i].new_tokens);
            CHECK(drafted.infos[i].accepted <= drafted.infos[i].drafted);
        }
        CHECK(drafted.infos[1].accepted > drafted.infos[1].new_tokens / 2);
        auto info = sized<phi4flash_session_info>();
        auto want = info;
        C_API_OK(phi4flash_session_get_info(drafted.s, &info, error));
        C_API_OK(phi4flash_session_get_info(plain.s, &want, error));
        CHECK(info.position == want.position);
        CHECK(info.busy == 0);
    }
    // As many as pay: the text need not be the same bits, but it is right.
    auto options = drafting();
    options.drafts_always = 0;
    CHECK(contains(twice(options).answers[1].text, "\\boxed{632}"));
}

TEST_CASE("drafts: another session's text is forgotten, a cancelled text leaves the session whole") {
    const auto w = wide_workspace();
    const auto g = make_generation(w, drafting());
    const auto first = make_session();
    const auto second = make_session();
    const std::string expected = ask(make_generation(w), first, drafted_question).text;
    C_API_OK(phi4flash_session_reset(first, error));
    CHECK(ask(g, first, drafted_question).text == expected);
    CHECK(ask(g, second, drafted_question).text == expected);
    auto info = sized<phi4flash_generation_info>();
    C_API_OK(phi4flash_generation_get_info(g, &info, error));
    CHECK(info.accepted < info.new_tokens / 2);  // nothing of the first one's text
    for (int tokens = 0; tokens < 30; tokens += 3) {
        C_API_OK(phi4flash_session_reset(first, error));
        const auto prompt = prompt_of(drafted_question);
        C_API_OK(phi4flash_generation_start(g, first, prompt.data(), prompt.size(), error));
        auto event = sized<phi4flash_event>();
        std::vector<int32_t> told;
        while (told.size() < static_cast<size_t>(tokens)) {
            C_API_OK(phi4flash_generation_advance(g, nullptr, &event, error));
            if (event.kind == PHI4FLASH_EVENT_TOKEN) told.push_back(event.token);
        }
        C_API_OK(phi4flash_generation_cancel(g, error));
        const answer rest = finish(g);
        CHECK(rest.reason == PHI4FLASH_END_CANCELLED);
        auto where = sized<phi4flash_session_info>();
        C_API_OK(phi4flash_session_get_info(first, &where, error));
        CHECK(where.busy == 0);
        if (!told.empty()) CHECK(where.position == prompt.size() + told.size() - 1);
    }
}

TEST_CASE("drafts: what there is no room for is refused, and says what is needed") {
    const auto w = make_workspace();
    const auto refused = [&](phi4flash_workspace* work, const phi4flash_generation_options& o, std::string_view part) {
        phi4flash_generation* none = nullptr;
        phi4flash_error error;
        CHECK(phi4flash_generation_create(work, bundled().words, &o, &none, &error) == PHI4FLASH_INVALID_ARGUMENT);
        CHECK(none == nullptr);
        CHECK_MESSAGE(contains(error.message, part), error.message);
    };
    refused(w, drafting(1), "states, logits and chunk of 2");
    const auto wide = wide_workspace();
    refused(wide, drafting(most + 1), "states, logits and chunk of 9");
    refused(wide, drafting(32), "at most 31");
    refused(wide, drafting(UINT32_MAX), "at most 31");
    auto options = drafting();
    options.drafts_always = 2;
    refused(wide, options, "drafts_always");
    // An older program's struct has no such members.
    options = drafting(31);
    options.size = offsetof(phi4flash_generation_options, max_drafts);
    owned<phi4flash_generation> g;
    C_API_OK(phi4flash_generation_create(w, bundled().words, &options, g.out(), error));
}

TEST_CASE("drafts: a scheduler's requests end right, whether their sessions can take drafts back or not") {
    for (const uint64_t undo : {uint64_t{0}, uint64_t{most}}) {
        const auto w = wide_workspace();
        owned<phi4flash_scheduler> scheduler;
        C_API_OK(phi4flash_scheduler_create(w, bundled().words, nullptr, scheduler.out(), error));
        const owned<phi4flash_session> sessions[] = {make_session(PHI4FLASH_KV_F32, 512, undo), make_session(PHI4FLASH_KV_F32, 512, undo)};
        for (int turn = 0; turn < 2; ++turn) {
            const auto prompt = prompt_of(drafted_question);
            const auto options = drafting();
            uint64_t ids[2] = {};
            std::string texts[2];
            for (int i = 0; i < 2; ++i)
                C_API_OK(phi4flash_scheduler_submit(scheduler, sessions[i], prompt.data(), prompt.size(), &options, &ids[i], error));
            auto about = sized<phi4flash_scheduler_info>();
            about.requests = 2;
            while (about.requests != 0) {
                uint32_t outcome = 0;
                C_API_OK(phi4flash_scheduler_tick(scheduler, nullptr, &outcome, error));
                auto event = sized<phi4flash_event>();
                do {
                    C_API_OK(phi4flash_scheduler_next_event(scheduler, &event, error));
                    for (int i = 0; i < 2; ++i)
                        if (event.request == ids[i]) texts[i].append(event.text, event.text_length);
                } while (event.kind != PHI4FLASH_EVENT_NONE);
                C_API_OK(phi4flash_scheduler_get_info(scheduler, &about, error));
            }
            for (const std::string& text : texts) CHECK_MESSAGE(contains(text, "\\boxed{632}"), text);
        }
    }
}
