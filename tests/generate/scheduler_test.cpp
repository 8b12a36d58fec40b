/// Many texts in one pass: each is what it is alone, waits no longer than it must, and fails, ends or is cancelled without the others noticing.
#include <phi4flash/config/macros.hpp>
#if PHI4FLASH_HAS_JSON
#include "generate_testing.hpp"

#include <phi4flash/generate/scheduler.hpp>

#include <support/refused.hpp>
#include <support/test_support.hpp>

#include <map>
#include <memory>

using namespace generate_testing;
using phi4flash_test::check_refused;
using p4::event_kind;
using p4::request_id;
using p4::tick_outcome;

namespace {

using session_type = p4::session<p4::any_sambay, float>;
using scheduler_type = p4::scheduler<p4::any_sambay, float>;
using request_type = p4::request<p4::any_sambay, float>;

ids_type some_prompt(std::size_t n, std::size_t seed) {
    ids_type prompt(n);
    for (std::size_t i = 0; i < n; ++i) prompt[i] = static_cast<std::int32_t>((i * i * 13 + i * 5 + seed * 29 + 3) % 200);
    return prompt;
}

/// What was heard of one request.
struct heard {
    ids_type tokens;
    std::string text;
    std::vector<std::size_t> read;
    std::vector<std::size_t> ticks;  ///< in which tokens came
    int ends = 0;
    stop_reason reason{};
    std::string failure;

    void note(const p4::generation_event& event, std::size_t tick = 0) {
        CHECK(ends == 0);
        text += event.text;
        if (event.kind == event_kind::prompt) read.push_back(event.read);
        if (event.kind == event_kind::token) tokens.push_back(event.token), ticks.push_back(tick);
        if (event.kind != event_kind::end) return;
        ++ends;
        reason = event.reason;
        if (event.failure != nullptr) failure = event.failure->message();
    }
};

/// A text as it is alone.
struct alone {
    ids_type tokens;
    std::string text;
    stop_reason reason;
    std::size_t position;
};
alone run_alone(fixture& f, const ids_type& prompt, const p4::generation_options& options, const p4::tokenizer* words, std::size_t context) {
    f.past = *session_type::create(f.m, context);
    const auto summary = f.generate(prompt, options, words);
    REQUIRE(summary);
    return {f.tokens, f.text, summary->reason, f.past.position()};
}

void tick_until_empty(scheduler_type& s) {
    for (std::size_t ticks = 0; s.size() != 0; ++ticks) {
        REQUIRE(ticks < 100000);
        REQUIRE(s.tick());
    }
}

}  // namespace

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

TEST_CASE("scheduler: texts together are what they are alone") {
    const p4::tokenizer words = small_tokenizer();
    for (const p4::kernel_target& target : p4::kernel_targets()) {
        if (!target.request()) continue;
        CAPTURE(std::string(target.kernels->name));
        fixture plain(256, {.chunk = 16, .kernels = target.kernels}, "bf16-12l-sharded");
        fixture f(16, {.chunk = 24, .kernels = target.kernels, .states = 6, .logits = 6}, "bf16-12l-sharded");
        auto s = *scheduler_type::create(f.m, f.w, &words, {.requests = 6});
        std::vector<session_type> sessions;
        std::vector<heard> have(6);
        std::vector<alone> want;
        std::vector<std::function<bool(const p4::generation_event&)>> sinks;
        for (std::size_t i = 0; i < 6; ++i) {
            const p4::generation_options options{.sampling = {.temperature = i % 2 == 0 ? 0.0f : 1.0f, .seed = i}, .max_tokens = 10 + 3 * i};
            sessions.push_back(*session_type::create(f.m, 128));
            sinks.emplace_back([&have, i](const p4::generation_event& event) { return have[i].note(event), true; });
            want.push_back(run_alone(plain, some_prompt(1 + 9 * i, i), options, &words, 128));
        }
        for (std::size_t i = 0; i < 6; ++i) {
            const p4::generation_options options{.sampling = {.temperature = i % 2 == 0 ? 0.0f : 1.0f, .seed = i}, .max_tokens = 10 + 3 * i};
            REQUIRE(s.add({.past = &sessions[i], .prompt = some_prompt(1 + 9 * i, i), .options = options, .sink = sinks[i]}));
        }
        tick_until_empty(s);
        for (std::size_t i = 0; i < 6; ++i) {
            CAPTURE(i);
            CHECK(have[i].tokens == want[i].tokens);
            CHECK(have[i].text == want[i].text);
            CHECK(have[i].ends == 1);
            CHECK(have[i].reason == want[i].reason);
            CHECK(have[i].read.back() == 1 + 9 * i);
            CHECK(sessions[i].position() == want[i].position);
        }
    }
}

TEST_CASE("scheduler: requests that come and go at random, against a plain twin that runs them one by one") {
    const p4::tokenizer words = small_tokenizer();
    phi4flash_test::generator random(16);
    for (const p4::workspace_options how : {p4::workspace_options{.chunk = 10, .states = 3, .logits = 2},
                                            p4::workspace_options{.chunk = 64, .states = 9, .logits = 9}, p4::workspace_options{.chunk = 1}}) {
        fixture plain = wide_fixture();
        fixture f(16, how, "bf16-12l-sharded");
        auto s = *scheduler_type::create(f.m, f.w, &words, {.requests = 5, .prompt_rows = 6});
        struct client {
            client(const p4::model<>& m, std::size_t context) : past(*session_type::create(m, context)) {}
            session_type past;
            ids_type prompt;
            p4::generation_options options;
            heard have;
            std::atomic<bool> cancel{false};
            bool cancelled = false;
            std::function<bool(const p4::generation_event&)> sink;
        };
        std::map<std::uint64_t, std::unique_ptr<client>> there;
        std::size_t finished = 0, cut = 0, added = 0;
        const auto check_one = [&](client& c) {
            const alone want = run_alone(plain, c.prompt, c.options, &words, c.past.context());
            CHECK(c.have.ends == 1);
            if (!c.cancelled) {
                CHECK(c.have.tokens == want.tokens);
                CHECK(c.have.text == want.text);
                CHECK(c.have.reason == want.reason);
                CHECK(c.past.position() == want.position);
            } else {
                CHECK(c.have.reason == stop_reason::cancelled);
                REQUIRE(c.have.tokens.size() <= want.tokens.size());
                CHECK(std::ranges::equal(c.have.tokens, std::span(want.tokens).first(c.have.tokens.size())));
                // A whole session: what it has not read, and on, is the same text.
                ids_type rest = c.prompt;
                rest.insert(rest.end(), c.have.tokens.begin(), c.have.tokens.end());
                rest.erase(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(c.past.position()));
                if (!rest.empty() && c.options.sampling.temperature == 0.0f && want.tokens.size() > c.have.tokens.size()) {
                    plain.past = std::move(c.past);
                    REQUIRE(plain.generate(rest, {.sampling = greedy, .max_tokens = want.tokens.size() - c.have.tokens.size()}, &words));
                    CHECK(std::ranges::equal(plain.tokens, std::span(want.tokens).subspan(c.have.tokens.size())));
                }
            }
            ++(c.cancelled ? cut : finished);
        };
        while (added < 40 || s.size() != 0) {
            const std::size_t what = random.below(8);
            if (what < 2 && added < 40) {
                const std::size_t prompt = 1 + random.below(30);
                auto c = std::make_unique<client>(f.m, prompt + 1 + random.below(30));
                c->prompt = some_prompt(prompt, random.below(1000));
                c->options = {.sampling = {.temperature = random.below(3) == 0 ? 1.0f : 0.0f, .seed = random.next()}, .max_tokens = random.below(20)};
                auto running = c->options;
                running.cancel = &c->cancel;
                request_type r{.past = &c->past, .prompt = c->prompt, .options = running};
                c->sink = [&mine = c->have](const p4::generation_event& event) { return mine.note(event), true; };
                if (random.below(2) == 0) r.sink = c->sink;
                const auto id = s.add(r);
                CHECK(id.has_value() == (there.size() < 5));
                if (!id) check_refused(id, p4::errc::invalid_argument, "5 requests");
                if (id) there.emplace(static_cast<std::uint64_t>(*id), std::move(c)), ++added;
            } else if (what == 2 && !there.empty() && random.below(9) == 0) {
                const auto at = std::next(there.begin(), static_cast<std::ptrdiff_t>(random.below(there.size())));
                at->second->cancelled = true;
                if (random.below(2) == 0) at->second->cancel = true;
                else CHECK(s.cancel(request_id{at->first}));
            } else {
                std::size_t left = 1 + random.below(60);
                REQUIRE(s.tick_until([&] { return --left == 0; }));
            }
            while (random.below(4) != 0) {
                const auto event = s.next_event();
                if (!event) break;
                there.at(static_cast<std::uint64_t>(event->id))->have.note(event->event);
            }
            for (auto at = there.begin(); at != there.end();) {
                if (at->second->have.ends == 0) {
                    ++at;
                    continue;
                }
                CHECK_FALSE(s.cancel(request_id{at->first}));
                if (at->second->cancelled && at->second->have.reason != stop_reason::cancelled) at->second->cancelled = false;  // too late
                check_one(*at->second);
                at = there.erase(at);
            }
            CHECK(s.size() == there.size());
        }
        CHECK(finished + cut == 40);
        CHECK(finished > 10);
        CHECK(cut > 0);
    }
}

TEST_CASE("scheduler: who writes gets a token in every tick, however long the prompts of others are") {
    fixture f(16, {.chunk = 64, .states = 8, .logits = 8});
    auto s = *scheduler_type::create(f.m, f.w, nullptr, {.requests = 8, .prompt_rows = 10});
    std::vector<session_type> sessions;
    std::vector<heard> have(5);
    std::size_t tick = 0;
    std::vector<std::function<bool(const p4::generation_event&)>> sinks;
    for (std::size_t i = 0; i < 5; ++i) {
        sessions.push_back(*session_type::create(f.m, 256));
        sinks.emplace_back([&have, &tick, i](const p4::generation_event& event) { return have[i].note(event, tick), true; });
    }
    const auto add = [&](std::size_t i, std::size_t prompt) {
        REQUIRE(s.add({.past = &sessions[i], .prompt = some_prompt(prompt, i), .options = {.sampling = greedy, .max_tokens = 60}, .sink = sinks[i]}));
    };
    add(0, 100);  // alone: whole chunks
    for (; tick < 2; ++tick) REQUIRE(s.tick());
    CHECK(have[0].read == std::vector<std::size_t>{64, 100});
    CHECK(have[0].tokens.size() == 1);
    add(1, 5);
    add(2, 93);
    add(3, 40);
    add(4, 12);
    for (; have[2].tokens.empty(); ++tick) REQUIRE(s.tick());
    CHECK(tick == 2 + 15);  // 5 + 93 + 40 + 12 tokens, ten a tick
    for (std::size_t i = 0; i < 5; ++i) {
        CAPTURE(i);
        REQUIRE(!have[i].ticks.empty());
        for (std::size_t n = 1; n < have[i].ticks.size(); ++n) CHECK(have[i].ticks[n] == have[i].ticks[n - 1] + 1);
    }
    CHECK(have[1].ticks[0] < have[4].ticks[0]);  // equal shares: short prompts are read first
    CHECK(have[4].ticks[0] < have[3].ticks[0]);
    CHECK(have[3].ticks[0] < have[2].ticks[0]);
    tick_until_empty(s);
}

TEST_CASE("scheduler: where there is not room for all in a pass, they take turns") {
    fixture f(16, {.chunk = 16, .states = 16, .logits = 2});
    auto s = *scheduler_type::create(f.m, f.w, nullptr, {.requests = 5});
    std::vector<session_type> sessions;
    std::vector<heard> have(5);
    std::size_t tick = 0;
    std::vector<std::function<bool(const p4::generation_event&)>> sinks;
    for (std::size_t i = 0; i < 5; ++i) {
        sessions.push_back(*session_type::create(f.m, 64));
        sinks.emplace_back([&have, &tick, i](const p4::generation_event& event) { return have[i].note(event, tick), true; });
    }
    for (std::size_t i = 0; i < 5; ++i)
        REQUIRE(s.add({.past = &sessions[i], .prompt = some_prompt(3, i), .options = {.sampling = greedy, .max_tokens = 20}, .sink = sinks[i]}));
    for (; s.size() != 0; ++tick) REQUIRE(s.tick());
    CHECK(tick <= 52);  // 100 tokens, two a tick
    for (const heard& t : have) {
        CHECK(t.tokens.size() == 20);
        for (std::size_t n = 1; n < t.ticks.size(); ++n) CHECK(t.ticks[n] - t.ticks[n - 1] <= 3);
    }
}

TEST_CASE("scheduler: what fails for one request fails for it alone") {
    fixture f(16, {.chunk = 32, .states = 4, .logits = 4});
    fixture plain;
    auto s = *scheduler_type::create(f.m, f.w, nullptr, {.requests = 4});
    const p4::generation_options options{.sampling = greedy, .max_tokens = 12};
    const alone want = run_alone(plain, some_prompt(5, 1), options, nullptr, 64);
    auto good = *session_type::create(f.m, 64);
    auto small = *session_type::create(f.m, 9);
    auto moved = *session_type::create(f.m, 64);
    alignas(p4::block_alignment) static std::byte memory[1 << 20];
    auto damaged = *session_type::create_in(memory, f.m, 16);
    for (std::size_t i = 0; i < 64; ++i) reinterpret_cast<float*>(memory)[i] = phi4flash_test::nan_f32;  // of the first Mamba state
    std::map<request_id, heard> have;
    std::vector<request_id> ids;
    for (session_type* past : {&good, &small, &moved, &damaged}) {
        const auto id = s.add({.past = past, .prompt = some_prompt(5, 1), .options = options});
        REQUIRE(id);
        ids.push_back(*id);
    }
    bool moved_yet = false;
    for (std::size_t ticks = 0; s.size() != 0; ++ticks) {
        REQUIRE(ticks < 1000);
        REQUIRE(s.tick());
        while (const auto event = s.next_event()) have[event->id].note(event->event);
        if (have[ids[2]].tokens.size() == 3 && !std::exchange(moved_yet, true)) REQUIRE(p4::step(f.m, moved, f.w, 1));
    }
    CHECK(have[ids[0]].tokens == want.tokens);
    CHECK(have[ids[0]].reason == stop_reason::max_tokens);
    CHECK(have[ids[0]].failure.empty());
    CHECK(have[ids[1]].reason == stop_reason::context_full);
    CHECK(have[ids[1]].tokens == ids_type(want.tokens.begin(), want.tokens.begin() + 5));
    CHECK(have[ids[2]].reason == stop_reason::failed);
    CHECK(have[ids[2]].failure.find("was moved from token 7 to 8") != std::string::npos);
    CHECK(have[ids[3]].reason == stop_reason::failed);
    CHECK(have[ids[3]].failure.find("not finite") != std::string::npos);
    CHECK(have[ids[3]].tokens.empty());
    CHECK(damaged.position() == 0);
}

TEST_CASE("scheduler: sinks stop their text, cancel others, and add where one has ended") {
    fixture f(16, {.chunk = 32, .states = 4, .logits = 4});
    fixture plain;
    auto s = *scheduler_type::create(f.m, f.w, nullptr, {.requests = 2});
    const p4::generation_options options{.sampling = greedy, .max_tokens = 8};
    const alone want = run_alone(plain, some_prompt(5, 1), options, nullptr, 64);
    const auto first_of = [&](std::size_t n) { return ids_type(want.tokens.begin(), want.tokens.begin() + static_cast<std::ptrdiff_t>(n)); };
    std::vector<session_type> sessions;
    for (int i = 0; i < 4; ++i) sessions.push_back(*session_type::create(f.m, 64));
    std::vector<heard> have(4);
    const auto add = [&](std::size_t i, p4::event_sink sink, std::size_t max_tokens = 8) {
        return s.add({.past = &sessions[i], .prompt = some_prompt(5, 1), .options = {.sampling = greedy, .max_tokens = max_tokens}, .sink = sink});
    };
    request_id cancels{};
    auto stopping = [&](const p4::generation_event& event) {
        have[0].note(event);
        if (have[0].tokens.size() == 3) s.cancel(cancels);
        check_refused(s.tick(), p4::errc::in_use, "a sink that is told of a tick ticks");
        return have[0].tokens.size() < 5;
    };
    bool all_read = false;
    auto other = [&](const p4::generation_event& event) {
        if (event.kind == event_kind::end) all_read = s.summary(cancels)->unread < 0;
        return have[1].note(event), true;
    };
    REQUIRE(add(0, stopping));
    check_refused(add(0, other), p4::errc::in_use, "the session has a request already");
    cancels = *add(1, other);
    tick_until_empty(s);
    CHECK(have[0].tokens == first_of(5));
    CHECK(have[0].ends == 0);  // it said that it wanted no more
    CHECK(sessions[0].position() == 5 + 4);
    CHECK(have[1].reason == stop_reason::cancelled);
    CHECK(have[1].tokens == first_of(have[1].tokens.size()));
    CHECK((have[1].tokens.size() == 2 || have[1].tokens.size() == 3));
    CHECK(sessions[1].position() == 5 + have[1].tokens.size() - (all_read ? 0 : 1));

    // Both places are taken; that of the one whose end is being told is free, and what is told stays whole.
    auto last = [&](const p4::generation_event& event) { return have[3].note(event), true; };
    auto adding = [&](const p4::generation_event& event) {
        if (event.kind == event_kind::end) {
            REQUIRE(add(3, last));
            check_refused(add(2, last), p4::errc::invalid_argument, "2 requests");
        }
        return have[2].note(event), event.kind != event_kind::end;
    };
    sessions[1].reset();
    have[1] = {};
    REQUIRE(add(2, adding));
    cancels = *add(1, other, 40);
    check_refused(add(3, last), p4::errc::invalid_argument, "2 requests");
    tick_until_empty(s);
    CHECK(have[1].tokens.size() == 40);
    CHECK(have[2].tokens == want.tokens);
    CHECK(have[2].ends == 1);
    CHECK(have[3].tokens == want.tokens);
    CHECK(have[3].ends == 1);
}

TEST_CASE("scheduler: what is refused, and a scheduler that is dropped in the middle of a pass") {
    fixture f(16, {.chunk = 8, .states = 4, .logits = 4});
    check_refused(scheduler_type::create(f.m, f.w, nullptr, {.requests = 0}), p4::errc::invalid_argument, "requests");
    check_refused(scheduler_type::create(f.m, f.w, nullptr, {.longest_tick = -1.0}), p4::errc::invalid_argument, "longest_tick");
    check_refused(scheduler_type::create(f.m, f.w, nullptr, {.longest_tick = static_cast<double>(phi4flash_test::nan_f32)}),
                  p4::errc::invalid_argument, "longest_tick");
    auto past = *session_type::create(f.m, 32);
    {
        auto made = *scheduler_type::create(f.m, f.w, nullptr, {.requests = 2});
        CHECK(*made.tick() == tick_outcome::idle);
        CHECK_FALSE(made.next_event());
        CHECK_FALSE(made.cancel(request_id{1}));
        check_refused(made.add({}), p4::errc::invalid_argument, "without a session");
        check_refused(made.add({.past = &past}), p4::errc::invalid_argument, "no tokens");
        check_refused(made.add({.past = &past, .prompt = some_prompt(33, 1)}), p4::errc::context_full, "room for 32");
        check_refused(made.add({.past = &past, .prompt = ids_type{-1}}), p4::errc::unknown_token, "token -1");
        check_refused(made.add({.past = &past, .prompt = ids_type{1}, .options = {.sampling = {.top_p = 2.0f}}}), p4::errc::invalid_argument,
                      "top_p");
        CHECK(made.size() == 0);
        CHECK(made.capacity() == 2);
        REQUIRE(made.add({.past = &past, .prompt = some_prompt(20, 1), .options = {.sampling = greedy}}));
        scheduler_type s = std::move(made);
        CHECK(*s.tick_until([] { return true; }) == tick_outcome::paused);
        CHECK(*s.tick() == tick_outcome::done);
        CHECK(*s.tick() == tick_outcome::idle);  // it has not been told that eight tokens are read
        const auto event = s.next_event();
        REQUIRE(event);
        CHECK(event->event.kind == event_kind::prompt);
        CHECK(event->event.read == 8);
        CHECK(event->event.total == 20);
        CHECK_FALSE(s.next_event());
        CHECK(*s.tick_until([] { return true; }) == tick_outcome::paused);
        check_refused(p4::step(f.m, past, f.w, 1), p4::errc::in_use, "in use");
    }
    CHECK(past.position() == 8);
    const auto prompt = some_prompt(20, 1);
    const auto logits = p4::prefill(f.m, past, f.w, std::span(prompt).subspan(8));
    REQUIRE(logits);
    fixture plain;
    const auto want = p4::prefill(plain.m, plain.past, plain.w, prompt);
    REQUIRE(want);
    CHECK(std::memcmp(logits->data(), want->data(), want->size_bytes()) == 0);
}

TEST_CASE("scheduler: drafts of several texts in one pass") {
    struct copyist {  // proposes what it has read, again
        ids_type text;
        std::size_t proposed = 0;
        void read(std::span<const std::int32_t> tokens) { text.insert(text.end(), tokens.begin(), tokens.end()); }
        std::size_t propose(std::span<std::int32_t> out) {
            const std::size_t n = std::min({out.size(), text.size(), std::size_t{3}});
            const std::size_t period = 1 + text.size() % 3;
            for (std::size_t i = 0; i < n; ++i) out[i] = text[text.size() - std::min(text.size(), period) + i % std::min(text.size(), period)];
            proposed += n;
            return n;
        }
    };
    fixture f(16, {.chunk = 32, .states = 12, .logits = 12});
    fixture plain;
    auto s = *scheduler_type::create(f.m, f.w, nullptr, {.requests = 3});
    std::vector<session_type> sessions;
    std::vector<copyist> drafters(3);
    std::vector<heard> have(3);
    std::vector<std::function<bool(const p4::generation_event&)>> sinks;
    const p4::generation_options options{.sampling = greedy, .max_tokens = 40};
    for (std::size_t i = 0; i < 3; ++i) {
        sessions.push_back(*session_type::create(f.m, {.context = 128, .undo = i == 2 ? std::size_t{0} : std::size_t{3}}));
        sinks.emplace_back([&have, i](const p4::generation_event& event) { return have[i].note(event), have[i].tokens.size() < 31; });
    }
    for (std::size_t i = 0; i < 3; ++i) {
        auto drafting = options;
        drafting.drafts.from = drafters[i];
        REQUIRE(s.add({.past = &sessions[i], .prompt = some_prompt(7, i), .options = drafting, .sink = sinks[i]}));
    }
    std::size_t ticks = 0;
    for (; s.size() != 0; ++ticks) REQUIRE(s.tick());
    for (std::size_t i = 0; i < 3; ++i) {
        const alone want = run_alone(plain, some_prompt(7, i), options, nullptr, 128);
        CHECK(have[i].tokens == ids_type(want.tokens.begin(), want.tokens.begin() + 31));
        CHECK(sessions[i].position() == 7 + 30);
        CHECK((drafters[i].proposed > 0) == (i != 2));  // what cannot be taken back is not drafted
    }
}

#if defined(__cpp_exceptions)
TEST_CASE("scheduler: what sinks and executors throw passes through and harms one request at most") {
    struct failing {
        int left = 1 << 30;
        [[nodiscard]] std::size_t concurrency() const { return 2; }
        void run(std::size_t count, std::size_t, void (*body)(void*, std::size_t, std::size_t), void* context) {
            if (left-- == 0) throw std::runtime_error("the job system is going down");
            body(context, 0, count / 2);
            if (left-- == 0) throw std::runtime_error("the job system is going down");
            body(context, count / 2, count);
        }
    };
    const p4::generation_options options{.sampling = greedy, .max_tokens = 8};
    fixture plain;
    const alone want = run_alone(plain, some_prompt(5, 1), options, nullptr, 64);
    const auto run = [&](int fail_at, bool sink_throws) {
        failing threads;
        threads.left = fail_at;
        fixture f(16, {.chunk = 32, .threads = threads, .states = 4, .logits = 4});
        auto s = *scheduler_type::create(f.m, f.w, nullptr, {.requests = 3});
        std::vector<session_type> sessions;
        std::vector<heard> have(3);
        std::vector<std::function<bool(const p4::generation_event&)>> sinks;
        for (std::size_t i = 0; i < 3; ++i) {
            sessions.push_back(*session_type::create(f.m, 64));
            sinks.emplace_back([&have, i, sink_throws](const p4::generation_event& event) {
                have[i].note(event);
                if (sink_throws && i == 1 && have[i].tokens.size() == 3) throw std::runtime_error("enough");
                return true;
            });
        }
        for (std::size_t i = 0; i < 3; ++i) REQUIRE(s.add({.past = &sessions[i], .prompt = some_prompt(5, 1), .options = options, .sink = sinks[i]}));
        int thrown = 0;
        for (std::size_t ticks = 0; s.size() != 0; ++ticks) {
            REQUIRE(ticks < 1000);
            bool good = true;
            try {
                good = s.tick().has_value();
            } catch (const std::runtime_error&) {
                ++thrown;
            }
            REQUIRE(good);
        }
        CHECK(thrown == (sink_throws || fail_at < (1 << 29) ? 1 : 0));
        for (std::size_t i = 0; i < 3; ++i) {
            CAPTURE(i);
            const bool cut = sink_throws && i == 1;
            CHECK(have[i].tokens == (cut ? ids_type(want.tokens.begin(), want.tokens.begin() + 3) : want.tokens));
            CHECK(have[i].ends == (cut ? 0 : 1));
            CHECK(sessions[i].position() == 5 + have[i].tokens.size() - 1);
        }
        return (1 << 30) - threads.left;
    };
    run(1 << 30, true);
    const int jobs = run(1 << 30, false);
    REQUIRE(jobs > 100);
    for (int at = 0; at < jobs; at += 1 + jobs / 60) {
        CAPTURE(at);
        run(at, false);
    }
    // And in the one job of each pass in which texts are chosen and committed, of which some are done and some are not.
    const int a_pass = jobs / 8;
    for (int at = jobs / 2; at < jobs / 2 + a_pass; ++at) run(at, false);
}
#endif
#endif
