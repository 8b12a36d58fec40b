#pragma once
/// Many texts at once, timed: what `bench --sessions` measures, for engine.cpp to compile.
#include "engine.hpp"
#include "series.hpp"

#include <chrono>
#include <memory>
#include <vector>

namespace cli {

namespace detail {

using bench_clock = std::chrono::steady_clock;
inline double seconds_since(bench_clock::time_point start) { return std::chrono::duration<double>(bench_clock::now() - start).count(); }

/// Notes when tokens come.
struct token_watch {
    std::size_t tokens = 0;
    bool measuring = false;
    bench_clock::time_point last{};
    series* waits = nullptr;
    bool operator()(const p4::generation_event& event) {
        if (event.kind != p4::event_kind::token) return true;
        ++tokens;
        if (measuring) waits->add(seconds_since(last));
        last = bench_clock::now();
        return true;
    }
};

}  // namespace detail

/// Errors: those of session::create, workspace::create and of the scheduler.
template <p4::sambay_shape Shape, class Kv>
p4::result<sessions_times> time_sessions(const p4::model<Shape>& m, p4::workspace<Shape, Kv>& w, const sessions_work& work) {
    const std::size_t all = work.sessions + (work.arriving != 0 ? 1 : 0);
    p4::scheduler_options how = work.how;
    how.requests = all;
    auto made = p4::scheduler<Shape, Kv>::create(m, w, nullptr, how);
    if (!made) return made.error();
    auto& scheduler = *made;

    // Who has read its prompt writes on while others read theirs.
    const std::size_t context = work.sessions * work.prompt + work.tokens + 2 * work.arriving + 64;
    std::vector<std::int32_t> text(std::max(work.prompt, work.arriving) + all);
    p4::random_stream random(1);
    for (std::int32_t& id : text) id = static_cast<std::int32_t>(random.next() % m.shape().vocab());
    std::vector<p4::session<Shape, Kv>> sessions;
    series waits;
    std::vector<detail::token_watch> watches(all);
    for (std::size_t i = 0; i < all; ++i) {
        auto past = p4::session<Shape, Kv>::create(m, context);
        if (!past) return past.error();
        sessions.push_back(std::move(*past));
        watches[i].waits = &waits;
    }
    p4::generation_options options;
    const auto add = [&](std::size_t i, std::size_t prompt) {
        options.sampling.seed = i;
        return scheduler.add({&sessions[i], std::span<const std::int32_t>(text).subspan(i, prompt), options, watches[i]});
    };
    const auto tick_until = [&](auto&& enough) -> p4::status {
        while (!enough())
            if (const auto ticked = scheduler.tick(); !ticked) return ticked.error();
        return {};
    };
    const auto each_has = [&](std::size_t tokens) {
        return [&watches, &work, tokens] {
            return std::ranges::all_of(std::span(watches).first(work.sessions), [&](const auto& watch) { return watch.tokens >= tokens; });
        };
    };
    const auto measure = [&](bool on) {
        waits = {};
        for (auto& watch : watches) watch.measuring = on, watch.last = detail::bench_clock::now();
    };

    sessions_times times;
    auto start = detail::bench_clock::now();
    for (std::size_t i = 0; i < work.sessions; ++i)
        if (const auto added = add(i, work.prompt); !added) return added.error();
    if (const p4::status ok = tick_until(each_has(2)); !ok) return ok.error();
    times.prompt_seconds = detail::seconds_since(start);

    const auto written = [&] {
        std::size_t sum = 0;
        for (const auto& watch : watches) sum += watch.tokens;
        return sum;
    };
    const std::size_t before = written();
    measure(true);
    start = detail::bench_clock::now();
    if (const p4::status ok = tick_until(each_has(2 + work.tokens)); !ok) return ok.error();
    times.seconds = detail::seconds_since(start);
    times.tokens = written() - before;
    times.longest_wait = waits.highest();
    if (work.arriving == 0) return times;

    measure(true);
    watches.back().measuring = false;
    start = detail::bench_clock::now();
    if (const auto added = add(work.sessions, work.arriving); !added) return added.error();
    if (const p4::status ok = tick_until([&] { return watches.back().tokens != 0; }); !ok) return ok.error();
    times.arriving_seconds = detail::seconds_since(start);
    times.longest_wait_then = waits.highest();
    times.wait_then = waits.median();
    return times;
}

}  // namespace cli
