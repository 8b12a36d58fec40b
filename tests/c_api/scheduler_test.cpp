/// Schedulers and prefix caches of the C API.
#include "c_api_testing.hpp"

#include <map>

using namespace c_api_testing;

namespace {

constexpr const char* questions[] = {"What is 347 + 285?", "What is 12 + 30?", "What is 999 + 1?"};
constexpr const char* boxes[] = {"\\boxed{632}", "\\boxed{42}", "\\boxed{1000}"};

struct many {
    owned<phi4flash_workspace> w = make_workspace(PHI4FLASH_KV_F32, 3, 3);
    owned<phi4flash_session> s[3] = {make_session(), make_session(), make_session()};
    owned<phi4flash_scheduler> scheduler;
    uint64_t request[3] = {};
    std::map<uint64_t, answer> answers;

    explicit many(uint32_t requests = 0) {
        auto options = sized<phi4flash_scheduler_options>();
        options.requests = requests;
        C_API_OK(phi4flash_scheduler_create(w, bundled().words, &options, scheduler.out(), error));
    }
    void submit(int i) {
        const auto prompt = prompt_of(questions[i]);
        const auto options = greedy();
        C_API_OK(phi4flash_scheduler_submit(scheduler, s[i], prompt.data(), prompt.size(), &options, &request[i], error));
        CHECK(request[i] != 0);
    }
    /// Until nobody has anything to do.
    void run(const phi4flash_budget* budget = nullptr) {
        uint32_t outcome = PHI4FLASH_TICK_DONE;
        while (outcome != PHI4FLASH_TICK_IDLE) {
            C_API_OK(phi4flash_scheduler_tick(scheduler, budget, &outcome, error));
            outcome = fetch() ? PHI4FLASH_TICK_DONE + 0u : outcome;
        }
    }
    bool fetch() {
        bool any = false;
        auto event = sized<phi4flash_event>();
        for (;;) {
            C_API_OK(phi4flash_scheduler_next_event(scheduler, &event, error));
            if (event.kind == PHI4FLASH_EVENT_NONE) return any;
            any = true;
            answer& a = answers[event.request];
            a.text.append(event.text, event.text_length);
            CHECK(event.message[0] == '\0');
            CHECK(event.code == PHI4FLASH_OK);
            if (event.kind == PHI4FLASH_EVENT_TOKEN) a.tokens.push_back(event.token);
            if (event.kind == PHI4FLASH_EVENT_END) a.reason = event.reason;
        }
    }
};

}  // namespace

TEST_CASE("three texts at once are the texts of each alone, in whole passes and in pieces") {
    std::string alone[3];
    for (int i = 0; i < 3; ++i) {
        const auto s = make_session();
        const auto w = make_workspace();
        alone[i] = ask(make_generation(w), s, questions[i]).text;
        CHECK(contains(alone[i], boxes[i]));
    }
    const auto at_once = always_at_once();
    for (const phi4flash_budget* const budget : {static_cast<const phi4flash_budget*>(nullptr), &at_once}) {
        many m;
        for (int i = 0; i < 3; ++i) m.submit(i);
        m.run(budget);
        for (int i = 0; i < 3; ++i) {
            CHECK(m.answers[m.request[i]].text == alone[i]);
            CHECK(m.answers[m.request[i]].reason == PHI4FLASH_END_STOP_TOKEN);
        }
        auto info = sized<phi4flash_scheduler_info>();
        C_API_OK(phi4flash_scheduler_get_info(m.scheduler, &info, error));
        CHECK(info.requests == 0);
        CHECK(info.capacity == 16);
    }
}

TEST_CASE("requests are cancelled, one and all, and more than there is room for are refused") {
    many m(2);
    m.submit(0);
    m.submit(1);
    const auto prompt = prompt_of(questions[2]);
    uint64_t none = 7;
    C_API_FAILS(PHI4FLASH_INVALID_ARGUMENT, phi4flash_scheduler_submit(m.scheduler, m.s[2], prompt.data(), prompt.size(), nullptr, &none, error));
    CHECK(none == 0);
    uint32_t outcome = 0;
    C_API_OK(phi4flash_scheduler_tick(m.scheduler, nullptr, &outcome, error));
    CHECK(outcome == PHI4FLASH_TICK_DONE);
    C_API_OK(phi4flash_scheduler_cancel(m.scheduler, m.request[0], error));
    m.run();
    CHECK(m.answers[m.request[0]].reason == PHI4FLASH_END_CANCELLED);
    CHECK(contains(m.answers[m.request[1]].text, boxes[1]));
    C_API_FAILS(PHI4FLASH_INVALID_ARGUMENT, phi4flash_scheduler_cancel(m.scheduler, m.request[0], error));

    // Their places are free again.
    m.submit(2);
    C_API_OK(phi4flash_session_reset(m.s[0], error));
    m.submit(0);
    C_API_OK(phi4flash_scheduler_cancel_all(m.scheduler, error));
    m.run();
    CHECK(m.answers[m.request[2]].reason == PHI4FLASH_END_CANCELLED);
    CHECK(m.answers[m.request[0]].reason == PHI4FLASH_END_CANCELLED);
    C_API_OK(phi4flash_session_reset(m.s[0], error));
    m.submit(0);
    m.run();
    CHECK(contains(m.answers[m.request[0]].text, boxes[0]));
}

TEST_CASE("a session has one request at a time; what fails for one request is told as its end") {
    many m;
    m.submit(0);
    m.submit(1);
    const auto prompt = prompt_of(questions[0]);
    uint64_t none = 7;
    C_API_FAILS(PHI4FLASH_IN_USE, phi4flash_scheduler_submit(m.scheduler, m.s[0], prompt.data(), prompt.size(), nullptr, &none, error));
    // Somebody moves the session of the first one.
    C_API_OK(phi4flash_session_read(m.s[0], make_workspace(), prompt.data(), 3, nullptr, error));
    std::string why;
    std::string text;
    for (int i = 0; i < 1000; ++i) {
        uint32_t outcome = 0;
        C_API_OK(phi4flash_scheduler_tick(m.scheduler, nullptr, &outcome, error));
        auto event = sized<phi4flash_event>();
        C_API_OK(phi4flash_scheduler_next_event(m.scheduler, &event, error));
        if (event.request == m.request[0]) {
            CHECK(event.kind == PHI4FLASH_EVENT_END);
            CHECK(event.reason == PHI4FLASH_END_FAILED);
            CHECK(event.code == PHI4FLASH_IN_USE);
            why = event.message;
        } else {
            text.append(event.text, event.text_length);
        }
    }
    CHECK(why.size() > 10);
    CHECK(contains(text, boxes[1]));
}

TEST_CASE("a scheduler that is destroyed in the middle of a pass leaves its sessions whole") {
    many m;
    m.submit(0);
    uint32_t outcome = 0;
    const auto at_once = always_at_once();
    C_API_OK(phi4flash_scheduler_tick(m.scheduler, &at_once, &outcome, error));
    CHECK(outcome == PHI4FLASH_TICK_PAUSED);
    auto info = sized<phi4flash_session_info>();
    C_API_OK(phi4flash_session_get_info(m.s[0], &info, error));
    CHECK(info.busy == 1);
    m.scheduler = {};
    C_API_OK(phi4flash_session_get_info(m.s[0], &info, error));
    CHECK(info.busy == 0);
    CHECK(info.position == 0);
}

TEST_CASE("what a prefix cache holds need not be read again") {
    const auto prompt = prompt_of(questions[0]);
    for (const uint32_t kv : {PHI4FLASH_KV_BF16, PHI4FLASH_KV_F32, PHI4FLASH_KV_INT8}) {
        auto options = sized<phi4flash_prefix_cache_options>();
        options.kv_type = kv;
        C_API_OK(phi4flash_prefix_cache_get_bytes(bundled().model, kv, 3, 200, &options.bytes, error));
        owned<phi4flash_prefix_cache> cache;
        C_API_OK(phi4flash_prefix_cache_create(bundled().model, &options, cache.out(), error));
        const auto w = make_workspace(kv);
        const auto s = make_session(kv);
        C_API_OK(phi4flash_session_read(s, w, prompt.data(), prompt.size() - 1, nullptr, error));
        C_API_OK(phi4flash_prefix_cache_keep(cache, s, prompt.data(), prompt.size() - 1, error));
        const std::string expected = [&] {
            const auto g = make_generation(w);
            C_API_OK(phi4flash_generation_start(g, s, &prompt.back(), 1, error));
            return finish(g).text;
        }();
        size_t found = 0;
        C_API_OK(phi4flash_prefix_cache_find(cache, prompt.data(), prompt.size(), &found, error));
        CHECK(found == prompt.size() - 1);
        const auto other = make_session(kv);
        size_t read = 0;
        C_API_OK(phi4flash_prefix_cache_restore(cache, other, prompt.data(), prompt.size() - 1, &read, error));
        CHECK(read == prompt.size() - 1);
        const auto g = make_generation(w);
        C_API_OK(phi4flash_generation_start(g, other, &prompt.back(), 1, error));
        CHECK(finish(g).text == expected);
        auto info = sized<phi4flash_prefix_cache_info>();
        C_API_OK(phi4flash_prefix_cache_get_info(cache, &info, error));
        CHECK(info.entries == 1);
        CHECK(info.kv_type == kv);
        CHECK(info.used_bytes > 0);
        CHECK(info.bytes == options.bytes);
        C_API_OK(phi4flash_prefix_cache_clear(cache, error));
        C_API_OK(phi4flash_prefix_cache_find(cache, prompt.data(), prompt.size(), &found, error));
        CHECK(found == 0);
    }
}
