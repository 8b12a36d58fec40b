/// After set-up nothing takes memory: a table of everything that runs token by token, each over hundreds of tokens, with malloc and its
/// siblings and mmap counted, of all threads. To add to it: a function that sets up, calls `count.begin()`, does the work and returns
/// whether all of it went well.
#include <phi4flash/phi4flash.hpp>

#include <doctest/doctest.h>

#if PHI4FLASH_HAS_JSON
#include <support/counted_memory.hpp>

namespace {

namespace p4 = phi4flash;
using ids_type = std::vector<std::int32_t>;

/// What was taken between `begin` and `end`.
class counter {
public:
    void begin() { before_ = counted_memory::calls; }
    void end() { taken_ = counted_memory::calls - before_; }
    [[nodiscard]] std::size_t taken() const { return taken_; }

private:
    std::size_t before_ = 0;
    std::size_t taken_ = SIZE_MAX;
};

constexpr std::size_t context = 700;
constexpr std::size_t chunk = 32;

struct fixture {
    fixture()
        : files(*p4::model_files::open(std::filesystem::path(PHI4FLASH_TEST_MODELS) / "tiny-arithmetic")), words(*files.open_tokenizer()),
          m(*p4::model<>::bind(files)), pool(*p4::thread_pool::create(3)) {
        for (std::int32_t i = 0; i < 300; ++i) prompt.push_back(i % 90);
    }
    [[nodiscard]] p4::session<> session(std::size_t undo = 0) const { return *p4::session<>::create(m, {.context = context, .undo = undo}); }
    [[nodiscard]] p4::workspace<> workspace(std::size_t states = 1) {
        return *p4::workspace<>::create(m, {.chunk = chunk, .threads = p4::executor_ref(pool), .states = states, .logits = states});
    }
    /// Everything that options can ask for, and no id that ends the text.
    [[nodiscard]] static p4::generation_options options() {
        p4::generation_options o;
        o.sampling = {.temperature = 1.5f, .top_p = 0.9f, .min_p = 0.001f, .repetition_penalty = 1.3f, .top_k = 200, .seed = 3};
        o.max_tokens = 300;
        o.stop_strings = {"a text that does not come", "boxed{a stop string that begins like much}"};
        return o;
    }

    p4::model_files files;
    p4::tokenizer words;
    p4::model<> m;
    p4::thread_pool pool;
    ids_type prompt;
};

bool steps(fixture& f, counter& count) {
    auto past = f.session(4);
    auto work = f.workspace();
    count.begin();
    bool good = true;
    for (const std::int32_t id : f.prompt) good = good && p4::step(f.m, past, work, id).has_value();
    return good && past.rewind(past.position() - 4).has_value();
}

bool prompts(fixture& f, counter& count) {
    auto past = f.session();
    auto work = f.workspace();
    count.begin();
    for (int i = 0; i < 3; ++i) {
        past.reset();
        if (!p4::prefill(f.m, past, work, f.prompt, [](std::size_t, std::size_t) { return true; })) return false;
    }
    return true;
}

/// All logits: for evaluation, and for drafts.
bool evaluation(fixture& f, counter& count) {
    auto past = f.session();
    auto work = f.workspace();
    const std::size_t vocab = f.m.shape().vocab();
    std::vector<float> logits(f.prompt.size() * vocab);
    count.begin();
    return p4::logits_all(f.m, past, work, f.prompt, {logits.data(), f.prompt.size(), vocab}).has_value();
}

/// Passes over three sessions, one of them with choices, half of them dropped in the middle.
bool passes(fixture& f, counter& count) {
    auto a = f.session(7), b = f.session(), c = f.session();
    auto work = f.workspace(12);
    count.begin();
    p4::pass<> walk;
    bool good = true;
    for (std::size_t i = 0; i + 8 < f.prompt.size() && good; i += 2) {
        const std::span<const std::int32_t> ids(f.prompt);
        const p4::reading<> readings[] = {{&a, ids.subspan(i, 4), 4, 4}, {&b, ids.subspan(i, 2)}, {&c, ids.subspan(i, 1)}};
        good = walk.begin(f.m, work, readings).has_value();
        std::size_t pieces = 0;
        walk.advance_until([&] { return i % 4 == 0 && ++pieces == 9; });
        if (walk.done()) good = good && walk.check_logits(0) && walk.commit(0, 2) && walk.commit(1, 2) && walk.commit(2, 1);
        walk.end();
    }
    return good && a.position() != 0;
}

bool generated(fixture& f, counter& count, const p4::generation_options& options, const p4::tokenizer* words) {
    auto past = f.session();
    auto work = f.workspace();
    std::size_t tokens = 0;
    // `generate` sets up by itself: what it takes before the prompt's first chunk is not counted.
    const auto end = p4::generate(
        f.m, past, work, words, std::span(f.prompt).first(64), options,
        [&](const p4::generation_event&) { return ++tokens, true; },
        [&](std::size_t read, std::size_t) {
            if (read <= chunk) count.begin();
        });
    count.end();
    return end && end->new_tokens == options.max_tokens && tokens >= 300;
}

bool generate_with_all_options(fixture& f, counter& count) { return generated(f, count, fixture::options(), &f.words); }
bool generate_with_all_text(fixture& f, counter& count) {
    auto options = fixture::options();
    options.skip_special = false;
    return generated(f, count, options, &f.words);
}
bool generate_greedy_without_text(fixture& f, counter& count) {
    return generated(f, count, {.sampling = {.temperature = 0.0f}, .max_tokens = 300}, nullptr);
}

/// One value for two texts, one after the other, in pieces of a pass.
bool generation_values(fixture& f, counter& count) {
    auto past = f.session();
    auto work = f.workspace();
    auto made = p4::generation<>::create(f.m, work, &f.words, fixture::options(), {.prompt = 64});
    if (!made) return false;
    count.begin();
    std::size_t tokens = 0;
    for (int text = 0; text < 2; ++text) {
        past.reset();
        if (!made->start(past, std::span(f.prompt).first(64))) return false;
        for (std::size_t pieces = 0; made->running();) {
            const auto event = made->advance_until([&] { return ++pieces % 5 == 0; });
            if (!event) return false;
            tokens += event->token >= 0 ? 1 : 0;
        }
    }
    return tokens == 600;
}

/// Five texts, more than there is room for in a pass, with drafts, sinks and without, one of them cancelled.
bool scheduled_texts(fixture& f, counter& count) {
    struct repeats {  // what came last
        std::int32_t last = 0;
        void read(std::span<const std::int32_t> tokens) { last = tokens.empty() ? last : tokens.back(); }
        std::size_t propose(std::span<std::int32_t> out) const { return std::ranges::fill(out, last), out.size(); }
    };
    auto work = f.workspace(6);
    auto made = p4::scheduler<>::create(f.m, work, &f.words, {.requests = 5, .longest_tick = 0.001});
    if (!made) return false;
    repeats drafts[5];
    std::vector<p4::session<>> sessions;
    std::size_t tokens = 0;
    auto sink = [&](const p4::generation_event& event) { return tokens += event.token >= 0 ? 1 : 0, true; };
    std::vector<p4::request_id> ids;
    for (std::size_t i = 0; i < 5; ++i) sessions.push_back(f.session(2));
    for (std::size_t i = 0; i < 5; ++i) {
        p4::request<> r{.past = &sessions[i],
                        .prompt = std::span(f.prompt).first(40 * i + 1),
                        .options = fixture::options(),
                        .sink = i % 2 == 0 ? p4::event_sink() : p4::event_sink(sink)};
        r.options.drafts.from = drafts[i];
        const auto id = made->add(r);
        if (!id) return false;
        ids.push_back(*id);
    }
    count.begin();
    while (made->size() != 0) {
        std::size_t pieces = 0;
        if (!made->tick_until([&] { return ++pieces % 50 == 0; })) return false;
        while (const auto told = made->next_event()) {
            sink(told->event);
            if (told->id == ids[4] && told->event.kind == p4::event_kind::token) made->cancel(ids[4]);
        }
    }
    return tokens > 1200;  // of four, and some of the one that is cancelled
}

bool decoding(fixture& f, counter& count) {
    const std::vector<std::string> strings{"does not come"};
    auto stops = p4::stop_matcher::create(strings);
    p4::stream_decoder decoder(f.words);
    if (!stops) return false;
    count.begin();
    bool good = true;
    for (std::int32_t id = 0; id < static_cast<std::int32_t>(f.words.vocab_size()); ++id) {
        good = good && stops->push(decoder.push(id)) && stops->push_hidden(f.words.bytes_of(id));
    }
    return good && stops->finish(decoder.flush());
}

/// What a host does between texts.
bool sessions(fixture& f, counter& count) {
    auto past = f.session(3), other = f.session();
    auto work = f.workspace(4);
    if (!p4::prefill(f.m, past, work, f.prompt)) return false;
    count.begin();
    bool good = true;
    for (int i = 0; i < 20; ++i) good = good && other.copy_from(past) && p4::step(f.m, other, work, 1);
    return good && past.rewind(f.prompt.size() - 3).has_value();
}

/// Drafts that are right about every second time, chosen from and taken back.
bool drafted(fixture& f, counter& count) {
    struct repeats {
        std::int32_t last = 0;
        void read(std::span<const std::int32_t> tokens) { last = tokens.empty() ? last : tokens.back(); }
        std::size_t propose(std::span<std::int32_t> out) const { return std::ranges::fill(out, last), out.size(); }
    } guesses;
    auto past = f.session(5);
    auto work = f.workspace(6);
    auto options = fixture::options();
    options.drafts = {.from = guesses, .most = 5};
    auto made = p4::generation<>::create(f.m, work, &f.words, options, {.prompt = 64});
    if (!made) return false;
    count.begin();
    if (!made->start(past, std::span(f.prompt).first(64))) return false;
    while (made->running())
        if (!made->advance()) return false;
    return made->summary().new_tokens == 300;
}

/// Saved, restored, kept and found again.
bool snapshots(fixture& f, counter& count) {
    auto past = f.session(2);
    auto work = f.workspace(4);
    auto cache = p4::prefix_cache<>::create(f.m, std::size_t{32} << 20);
    const p4::weights_fingerprint weights = p4::fingerprint_of(f.files, f.m);
    const std::span<const std::int32_t> ids(f.prompt);
    if (!cache || !p4::prefill(f.m, past, work, ids)) return false;
    std::vector<std::byte> saved(p4::snapshot_bytes(past));
    count.begin();
    bool good = true;
    for (int i = 0; i < 5; ++i) {
        const std::span<std::byte> now = std::span(saved).first(p4::snapshot_bytes(past));  // fewer once the cache has been asked
        good = good && p4::save_snapshot(past, weights, now) && p4::restore_snapshot(past, weights, std::span<const std::byte>(now));
        good = good && cache->keep(past, ids) && cache->restore(past, ids) && past.position() == ids.size();
    }
    return good;
}

struct hot_path {
    const char* name;
    bool (*run)(fixture&, counter&);
};
constexpr hot_path hot_paths[] = {
    {"step", steps},
    {"prefill", prompts},
    {"logits_all", evaluation},
    {"pass", passes},
    {"generate, every option", generate_with_all_options},
    {"generate, special tokens shown", generate_with_all_text},
    {"generate, greedy without a tokenizer", generate_greedy_without_text},
    {"generation", generation_values},
    {"scheduler", scheduled_texts},
    {"decoder and stop strings", decoding},
    {"sessions: copied and rewound", sessions},
    {"generation with drafts", drafted},
    {"snapshots and prefix cache", snapshots},
};

}  // namespace

TEST_CASE("hot path: nothing takes memory after set-up") {
    if (!counted_memory::counts) {
        MESSAGE("not counted here: needs glibc, and no sanitizer");
        return;
    }
    counter seen;
    seen.begin();
    void* volatile canary = std::malloc(1000);
    seen.end();
    CHECK(seen.taken() == 1);  // the counting itself works
    std::free(canary);

    fixture f;
    for (const hot_path& path : hot_paths) {
        const std::string name = path.name;
        CAPTURE(name);
        counter count;
        const bool good = path.run(f, count);
        if (count.taken() == SIZE_MAX) count.end();
        CHECK(good);
        CHECK(count.taken() == 0);
    }
}
#endif
