/// Many texts in one pass: each is what it is alone, waits no longer than it must, and ends or is cancelled without the others noticing.
#include <phi4flash/config/macros.hpp>
#if PHI4FLASH_HAS_JSON
#include "scheduler_testing.hpp"

#include <support/refused.hpp>
#include <support/test_support.hpp>

#include <functional>
#include <map>
#include <memory>

using namespace generate_testing;
using phi4flash_test::check_refused;
using p4::request_id;

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
                if (!rest.empty() && want.tokens.size() > c.have.tokens.size()) {
                    plain.past = std::move(c.past);
                    REQUIRE(plain.generate(rest, {.sampling = c.options.sampling, .max_tokens = want.tokens.size() - c.have.tokens.size()}, &words));
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

TEST_CASE("scheduler: how a request ended can be asked until the next tick begins") {
    fixture f(16, {.chunk = 32, .states = 4, .logits = 4});
    auto s = *scheduler_type::create(f.m, f.w, nullptr, {.requests = 2});
    std::vector<session_type> sessions;
    for (int i = 0; i < 3; ++i) sessions.push_back(*session_type::create(f.m, 64));
    const p4::generation_options options{.sampling = greedy, .max_tokens = 4};
    std::vector<heard> have(3);
    auto first = [&](const p4::generation_event& event) { return have[0].note(event), true; };
    auto second = [&](const p4::generation_event& event) { return have[1].note(event), have[1].tokens.size() < 2; };
    const auto one = *s.add({.past = &sessions[0], .prompt = some_prompt(5, 1), .options = options, .sink = first});
    const auto two = *s.add({.past = &sessions[1], .prompt = some_prompt(5, 2), .options = options, .sink = second});
    REQUIRE(s.tick());
    REQUIRE(s.cancel(one));
    REQUIRE(s.tick());  // in which its end is told before the other goes on
    CHECK(have[0].ends == 1);
    REQUIRE(s.summary(one) != nullptr);
    CHECK(s.summary(one)->reason == stop_reason::cancelled);
    while (s.size() != 0) REQUIRE(s.tick());
    REQUIRE(s.summary(two) != nullptr);
    CHECK(s.summary(two)->reason == stop_reason::sink);
    const auto three = s.add({.past = &sessions[2], .prompt = some_prompt(5, 3), .options = options});
    REQUIRE(three);  // there is another place
    CHECK(s.summary(two) != nullptr);
    while (s.size() != 0) {
        REQUIRE(s.tick());
        while (const auto told = s.next_event()) have[2].note(told->event);
    }
    REQUIRE(s.summary(*three) != nullptr);
    CHECK(s.summary(*three)->reason == stop_reason::max_tokens);
    REQUIRE(s.tick());
    CHECK(s.summary(*three) == nullptr);

    auto there = std::move(s);
    CHECK(s.capacity() == 0);  // NOLINT(bugprone-use-after-move): it is empty, and says so
    CHECK(s.size() == 0);
    check_refused(s.add({.past = &sessions[0], .prompt = some_prompt(5, 1)}), p4::errc::invalid_argument, "0 requests");
    CHECK(*s.tick() == p4::tick_outcome::idle);
    CHECK(there.capacity() == 2);
}

TEST_CASE("scheduler: a sampled text goes on in another request") {
    fixture f(16, {.chunk = 32, .states = 4, .logits = 4}, "bf16-12l-sharded");
    fixture plain = wide_fixture();
    const p4::generation_options options{.sampling = {.temperature = 3.0f, .top_p = 1.0f, .seed = 5}, .max_tokens = 12};
    const alone want = run_alone(plain, some_prompt(5, 1), options, nullptr, 64);
    auto s = *scheduler_type::create(f.m, f.w, nullptr, {.requests = 1});
    auto past = *session_type::create(f.m, 64);
    ids_type prompt = some_prompt(5, 1);
    ids_type have;
    for (const std::size_t part : {std::size_t{5}, std::size_t{7}}) {
        auto some = options;
        some.max_tokens = part;
        const auto id = s.add({.past = &past, .prompt = prompt, .options = some});
        REQUIRE(id);
        heard part_of;
        while (s.size() != 0) {
            REQUIRE(s.tick());
            while (const auto told = s.next_event()) part_of.note(told->event);
        }
        have.insert(have.end(), part_of.tokens.begin(), part_of.tokens.end());
        prompt = {s.summary(*id)->unread};
    }
    CHECK(have == want.tokens);
}

TEST_CASE("scheduler: a session that is replaced by one that cannot go on ends its request, and no other") {
    fixture f(16, {.chunk = 32, .states = 4, .logits = 4});
    auto s = *scheduler_type::create(f.m, f.w, nullptr, {.requests = 2});
    auto one = *session_type::create(f.m, 64);
    auto two = *session_type::create(f.m, 64);
    const p4::generation_options options{.sampling = greedy, .max_tokens = 6};
    std::vector<heard> have(2);
    auto first = [&](const p4::generation_event& event) { return have[0].note(event), true; };
    auto second = [&](const p4::generation_event& event) { return have[1].note(event), true; };
    REQUIRE(s.add({.past = &one, .prompt = some_prompt(5, 1), .options = options, .sink = first}));
    REQUIRE(s.add({.past = &two, .prompt = some_prompt(5, 1), .options = options, .sink = second}));
    const session_type kept = std::move(one);
    tick_until_empty(s);
    CHECK(have[0].reason == stop_reason::failed);
    CHECK(have[0].failure.find("it was moved to another place") != std::string::npos);
    CHECK(have[1].reason == stop_reason::max_tokens);
    CHECK(have[1].tokens.size() == 6);
}

TEST_CASE("scheduler: whose session was moved is told so, also where nobody else goes on") {
    fixture f(16, {.chunk = 32, .states = 4, .logits = 4});
    auto s = *scheduler_type::create(f.m, f.w, nullptr, {.requests = 2});
    auto past = *session_type::create(f.m, 64);
    heard have;
    auto sink = [&](const p4::generation_event& event) { return have.note(event), true; };
    REQUIRE(s.add({.past = &past, .prompt = some_prompt(5, 1), .options = {.sampling = greedy, .max_tokens = 12}, .sink = sink}));
    REQUIRE(s.tick());
    REQUIRE(p4::step(f.m, past, f.w, 1));
    CHECK(*s.tick() == p4::tick_outcome::idle);
    CHECK(have.ends == 1);
    CHECK(have.reason == stop_reason::failed);
    CHECK(have.failure.find("was moved") != std::string::npos);
    CHECK(s.size() == 0);
}

TEST_CASE("scheduler: a policy learns from the passes of its text alone, and drafts then") {
    struct sure {  // of what it proposes, which nobody chooses
        void read(std::span<const std::int32_t>) {}
        std::size_t propose(std::span<p4::draft> out) {
            for (p4::draft& d : out) d = {1, 0.99f};
            return out.size();
        }
    };
    fixture f(16, {.chunk = 32, .states = 8, .logits = 8});
    fixture plain;
    auto s = *scheduler_type::create(f.m, f.w, nullptr, {.requests = 2});
    auto past = *session_type::create(f.m, {.context = 128, .undo = 7});
    sure drafter;
    p4::draft_policy policy;
    p4::generation_options options{.sampling = greedy, .max_tokens = 40};
    const alone want = run_alone(plain, some_prompt(5, 1), options, nullptr, 128);
    options.drafts = {.from = drafter, .policy = &policy, .most = 7};
    const auto id = *s.add({.past = &past, .prompt = some_prompt(5, 1), .options = options});
    heard have;
    std::size_t drafted = 0;
    while (s.size() != 0) {
        REQUIRE(s.tick());
        while (const auto told = s.next_event()) have.note(told->event);
        drafted = s.summary(id)->drafted;
    }
    CHECK(have.tokens == want.tokens);
    CHECK(drafted != 0);
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
    while (s.size() != 0) REQUIRE(s.tick());
    for (std::size_t i = 0; i < 3; ++i) {
        const alone want = run_alone(plain, some_prompt(7, i), options, nullptr, 128);
        CHECK(have[i].tokens == ids_type(want.tokens.begin(), want.tokens.begin() + 31));
        CHECK(sessions[i].position() == 7 + 30);
        CHECK((drafters[i].proposed > 0) == (i != 2));  // what cannot be taken back is not drafted
    }
}
#endif
