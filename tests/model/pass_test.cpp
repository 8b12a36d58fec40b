/// The pass as a value: dropped at any piece it has not happened, several sessions read in one, drafts are checked in one, and a session goes
/// back to the bits it had. On every target that this CPU can run.
#include "session_testing.hpp"

#include <cmath>

using namespace session_testing;

namespace {

float worst_difference(std::span<const float> a, std::span<const float> b) {
    float worst = 0.0f;
    for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
    return worst;
}

template <class Kv>
void check_dropped() {
    fixture<Kv> f({.chunk = 16, .states = 8, .logits = 8});
    auto one = f.after(f.text(21), 3);
    auto two = f.after(f.text(5, 2));
    const auto first = f.future(one);
    const auto saved_one = f.save(one);
    const auto saved_two = f.save(two);
    const ids more = f.text(7, 3);
    const ids less = f.text(2, 4);
    const typename fixture<Kv>::reading readings[] = {{&one, more, 2, 4}, {&two, less, 1, 1}};
    std::size_t pieces = 0;
    for (bool more_to_do = true; more_to_do; ++pieces) {
        CAPTURE(pieces);
        {
            typename fixture<Kv>::pass p;
            REQUIRE(p.begin(f.m, f.work, readings));
            std::size_t left = pieces;
            while (left != 0 && p.advance()) --left;
            more_to_do = !p.done();
        }
        CHECK(one.position() == 21);
        CHECK(one.oldest_position() == 18);
        CHECK(f.save(one) == saved_one);
        CHECK(f.save(two) == saved_two);
    }
    CHECK(same_bits(f.future(one), first));
    CHECK(pieces > 3 * f.m.plan().n_layers());
    // What went before can still be taken back.
    REQUIRE(one.rewind(18));
    const ids whole = f.text(21);
    REQUIRE(p4::prefill(f.m, one, f.work, std::span(whole).last(3)));
    CHECK(worst_difference(f.future(one), first) < (std::is_same_v<Kv, float> ? 1e-4f : 1.0f));
}

}  // namespace

TEST_CASE("model/pass: dropped at any piece, it leaves every session as it was, bit for bit") {
    check_dropped<float>();
    check_dropped<p4::bf16>();
    check_dropped<p4::kv_int8>();
}

TEST_CASE("model/pass: what cannot be is refused, each with its sentence, before anything changes") {
    fixture<p4::bf16> f({.chunk = 8, .states = 2, .logits = 3});
    using reading = fixture<p4::bf16>::reading;
    auto one = f.after({1, 2, 3});
    auto two = f.make();
    auto undoing = f.make(4);
    fixture<p4::bf16>::pass p;
    const auto begin = [&](std::vector<reading> readings) { return p.begin(f.m, f.work, readings); };
    const ids two_tokens{1, 2};
    const ids nine(9, 1);
    const auto before = f.save(one);
    check_refused(begin({}), p4::errc::invalid_argument, "no readings");
    check_refused(begin({{nullptr, two_tokens}}), p4::errc::invalid_argument, "without a session");
    check_refused(begin({{&one, {}}}), p4::errc::invalid_argument, "no tokens");
    check_refused(begin({{&one, two_tokens}, {&two, two_tokens}, {&one, two_tokens}}), p4::errc::invalid_argument, "readings 0 and 2");
    check_refused(begin({{&one, nine}}), p4::errc::invalid_argument, "9 tokens");
    check_refused(begin({{&one, two_tokens, 3}}), p4::errc::invalid_argument, "a reading of 2 tokens");
    check_refused(begin({{&one, two_tokens, 1, 3}}), p4::errc::invalid_argument, "a reading of 2 tokens");
    check_refused(begin({{&one, two_tokens, 2}, {&two, two_tokens, 2}}), p4::errc::invalid_argument, "4 rows of logits of 256: there is room for 3");
    check_refused(begin({{&undoing, ids{1, 2, 3}}}), p4::errc::invalid_argument, "an undo of 4: want a workspace of 5 states, have 2");
    check_refused(begin({{&undoing, two_tokens}, {&one, two_tokens, 1, 2}}), p4::errc::invalid_argument, "4 states");
    std::vector<float> narrow(2 * f.vocab());
    const reading wide{&one, two_tokens, 2};
    check_refused(p.begin(f.m, f.work, {&wide, 1}, {narrow.data(), 2, f.vocab() - 1}), p4::errc::invalid_argument, "room for 2 of 255");
    check_refused(begin({{&one, ids{1, -1}}}), p4::errc::unknown_token, "token -1");
    check_refused(begin({{&one, ids{1, 1 << 20}}}), p4::errc::unknown_token, "want 0 to");
    auto small = *fixture<p4::bf16>::session::create(f.m, 1);
    check_refused(begin({{&small, two_tokens}}), p4::errc::context_full, "room for 1");

    const auto other_files = golden::open("bf16-12l-sharded");
    REQUIRE(other_files);
    const auto other = p4::model<>::bind(*other_files);
    REQUIRE(other);
    auto foreign = *fixture<p4::bf16>::session::create(*other, 8);
    check_refused(begin({{&foreign, two_tokens}}), p4::errc::invalid_argument, "the session is of a model of another shape");
    const reading fine{&one, two_tokens};
    check_refused(p.begin(*other, f.work, {&fine, 1}), p4::errc::invalid_argument, "the workspace is of a model of another shape");

    REQUIRE(p.begin(f.m, f.work, {&fine, 1}));
    fixture<p4::bf16>::pass second;
    check_refused(second.begin(f.m, f.work, {&fine, 1}), p4::errc::in_use, "the workspace is in use");
    check_refused(p4::step(f.m, two, f.work, 1), p4::errc::in_use, "the workspace is in use");
    check_refused(one.rewind(1), p4::errc::in_use, "the session is in use");
    check_refused(p.commit(0, 2), p4::errc::invalid_argument, "a pass that is done");
    while (p.advance()) {}
    check_refused(p.commit(0, 1), p4::errc::invalid_argument, "want 2 to 2");
    CHECK_FALSE(p.advance_until([] { return false; }));
    check_refused(p.commit(1, 1), p4::errc::invalid_argument, "one of 1 readings");
    p.end();
    CHECK(f.save(one) == before);
    CHECK(undoing.position() + two.position() + small.position() + foreign.position() == 0);
}

TEST_CASE("model/pass: sessions that are read together get what they get alone, up to rounding") {
    for (const p4::kernel_target& target : p4::kernel_targets()) {
        if (!target.runs_here) continue;
        CAPTURE(std::string(target.kernels->name));
        fixture<float> f({.chunk = 40, .kernels = target.kernels, .states = 5, .logits = 6});
        std::vector<fixture<float>::session> sessions;
        std::vector<ids> texts;
        std::vector<fixture<float>::reading> readings;
        const std::size_t lengths[] = {1, 13, 1, 4, 20};
        for (std::size_t i = 0; i < 5; ++i) {
            sessions.push_back(f.after(f.text(3 + 5 * i, i)));
            texts.push_back(f.text(lengths[i], 10 + i));
        }
        std::vector<std::vector<float>> want;
        for (std::size_t i = 0; i < 5; ++i) {
            auto alone = f.make();
            REQUIRE(alone.copy_from(sessions[i]));
            const auto logits = p4::prefill(f.m, alone, f.work, texts[i]);
            REQUIRE(logits);
            want.emplace_back(logits->begin(), logits->end());
            readings.push_back({&sessions[i], texts[i], i == 3 ? std::size_t{2} : std::size_t{1}});
        }
        readings[1].wanted = 0;
        fixture<float>::pass p;
        REQUIRE(p.begin(f.m, f.work, readings));
        while (p.advance()) {}
        for (std::size_t i = 0; i < 5; ++i) {
            CAPTURE(i);
            CHECK(p.check_logits(i));
            CHECK(p.logits(i).count == readings[i].wanted);
            if (readings[i].wanted != 0) CHECK(worst_difference(want[i], {p.logits(i)[readings[i].wanted - 1], f.vocab()}) < 1e-4f);
            REQUIRE(p.commit(i, texts[i].size()));
            CHECK(sessions[i].position() == 3 + 5 * i + lengths[i]);
        }
        p.end();
        // And they go on from there.
        for (std::size_t i = 0; i < 5; ++i) {
            auto alone = f.after(f.text(3 + 5 * i, i));
            REQUIRE(p4::prefill(f.m, alone, f.work, texts[i]));
            CHECK(worst_difference(f.future(sessions[i]), f.future(alone)) < 1e-4f);
        }
    }
}

TEST_CASE("model/pass: a draft is checked in one pass, and any part of it is kept") {
    for (const p4::kernel_target& target : p4::kernel_targets()) {
        if (!target.runs_here) continue;
        CAPTURE(std::string(target.kernels->name));
        fixture<float> f({.chunk = 16, .kernels = target.kernels, .states = 8, .logits = 8});
        const ids text = f.text(19);
        const ids draft = f.text(8, 2);
        for (std::size_t kept = 1; kept <= draft.size(); ++kept) {
            CAPTURE(kept);
            auto past = f.after(text);
            const fixture<float>::reading r{&past, draft, draft.size(), draft.size()};
            fixture<float>::pass p;
            REQUIRE(p.begin(f.m, f.work, {&r, 1}));
            while (p.advance()) {}
            const auto rows = p.logits(0);
            std::vector<float> have;
            for (std::size_t i = 0; i < draft.size(); ++i) have.insert(have.end(), rows[i], rows[i] + f.vocab());
            REQUIRE(p.commit(0, kept));
            p.end();
            CHECK(past.position() == text.size() + kept);

            auto stepped = f.after(text);
            for (std::size_t i = 0; i < kept; ++i) {
                const auto logits = p4::step(f.m, stepped, f.work, draft[i]);
                REQUIRE(logits);
                CHECK(worst_difference(*logits, std::span(have).subspan(i * f.vocab(), f.vocab())) < 1e-4f);
            }
            CHECK(worst_difference(f.future(past), f.future(stepped)) < 1e-4f);
        }
    }
}

TEST_CASE("model/pass: a session goes back as far as it was made for, to the bits that it had") {
    fixture<p4::bf16> f({.chunk = 8, .states = 6});
    constexpr std::size_t undo = 5;
    auto past = f.make(undo);
    const ids text = f.text(40);
    std::vector<std::vector<float>> futures;
    for (std::size_t i = 0; i <= text.size(); ++i) {
        futures.push_back(f.future(past));
        for (std::size_t back = 0; back <= std::min(i, undo); ++back) {
            CAPTURE(i);
            CAPTURE(back);
            REQUIRE(past.rewind(i - back));
            CHECK(past.position() == i - back);
            CHECK(same_bits(f.future(past), futures[i - back]));
            for (std::size_t again = i - back; again < i; ++again) REQUIRE(p4::step(f.m, past, f.work, text[again]));
            CHECK(same_bits(f.future(past), futures[i]));
        }
        if (i > undo) check_refused(past.rewind(i - undo - 1), p4::errc::invalid_argument, "session_options::undo");
        check_refused(past.rewind(i + 1), p4::errc::invalid_argument, "rewind");
        if (i < text.size()) REQUIRE(p4::step(f.m, past, f.work, text[i]));
    }
    // After a prompt in chunks, too; and a copy takes along what it has room for.
    auto read = f.make(undo);
    REQUIRE(p4::prefill(f.m, read, f.work, text));
    CHECK(read.oldest_position() == text.size() - undo);
    auto copy = f.make(2);
    REQUIRE(copy.copy_from(read));
    CHECK(copy.oldest_position() == text.size() - 2);
    REQUIRE(read.rewind(text.size() - 2));
    REQUIRE(copy.rewind(text.size() - 2));
    CHECK(same_bits(f.future(read), f.future(copy)));
    CHECK(worst_difference(f.future(read), futures[text.size() - 2]) < 1.0f);
    read.reset();
    CHECK(read.oldest_position() == 0);
    CHECK(same_bits(f.future(read), futures[0]));
}

TEST_CASE("model/pass: what is chosen from and what can be taken back add up") {
    fixture<p4::bf16> f({.chunk = 12, .states = 8, .logits = 1});
    const ids text = f.text(10);
    for (std::size_t kept = 7; kept <= 10; ++kept) {
        CAPTURE(kept);
        auto past = f.after(f.text(6, 2), 3);
        const fixture<p4::bf16>::reading r{&past, text, 1, 4};
        fixture<p4::bf16>::pass p;
        REQUIRE(p.begin(f.m, f.work, {&r, 1}));
        while (p.advance()) {}
        check_refused(p.commit(0, 6), p4::errc::invalid_argument, "want 7 to 10");
        REQUIRE(p.commit(0, kept));
        check_refused(p.commit(0, kept), p4::errc::invalid_argument, "reading 0 is committed already");
        p.end();
        CHECK(past.oldest_position() == 6 + kept - 3);
        for (std::size_t back = 1; back <= 3; ++back) {
            REQUIRE(past.rewind(6 + kept - back));
            auto read = f.after(f.text(6, 2));
            REQUIRE(p4::prefill(f.m, read, f.work, std::span(text).first(kept - back)));
            CHECK(worst_difference(f.future(past), f.future(read)) < 1.0f);
        }
    }
}

TEST_CASE("model/pass: a session that is reset under a pass is not read into") {
    fixture<float> f({.chunk = 8});
    auto past = f.after({1, 2, 3});
    const auto fresh = f.future(f.make());
    const ids text{4, 5, 6};
    const fixture<float>::reading r{&past, text};
    fixture<float>::pass p;
    REQUIRE(p.begin(f.m, f.work, {&r, 1}));
    REQUIRE(p.advance());
    past.reset();
    while (p.advance()) {}
    check_refused(p.commit(0, 3), p4::errc::in_use, "was reset");
    p.end();
    CHECK(past.position() == 0);
    CHECK(same_bits(f.future(past), fresh));
    // By an observer, too.
    std::vector<float> out(3 * f.vocab());
    check_refused(p4::logits_all(f.m, past, f.work, text, p4::rows_view<float>{out.data(), 3, f.vocab()},
                                 [&](std::size_t, std::size_t, p4::rows_view<const float>) { past.reset(); }),
                  p4::errc::in_use, "was reset");
    CHECK(same_bits(f.future(past), fresh));
}

TEST_CASE("model/pass: a session that is reset, or dropped from, at any piece has the states of its position, wherever they lie") {
    fixture<float> f({.chunk = 8, .states = 4});
    const auto fresh = f.future(f.make());
    for (const std::size_t undo : {0, 1, 2}) {
        for (const std::size_t before : {0, 1, 2, 3, 4}) {
            for (const std::size_t count : {1, 2, 3, 4}) {
                CAPTURE(undo);
                CAPTURE(before);
                CAPTURE(count);
                auto past = f.make(undo);
                for (std::size_t i = 0; i < before; ++i) REQUIRE(p4::step(f.m, past, f.work, static_cast<std::int32_t>(i)));
                const auto future = f.future(past);
                const ids text = f.text(count, 7);
                const fixture<float>::reading r{&past, text};
                fixture<float>::pass p;
                for (const bool reset : {false, true}) {  // in the middle of the layers, and at the end
                    for (const std::size_t pieces : {7, 1000}) {
                        REQUIRE(p.begin(f.m, f.work, {&r, 1}));
                        std::size_t left = pieces;
                        (void)p.advance_until([&] { return --left == 0; });
                        if (reset) past.reset();
                        while (p.advance()) {}
                        p.end();
                        CHECK(same_bits(f.future(past), reset ? fresh : future));
                    }
                }
            }
        }
    }
}

TEST_CASE("model/pass: what was moved from has nothing left of what went along, and is refused") {
    fixture<float> f({.chunk = 8});
    auto past = f.after({1, 2, 3});
    const auto before = f.future(past);
    const ids text{4, 5, 6};
    const fixture<float>::reading r{&past, text};
    {
        fixture<float>::pass p;
        REQUIRE(p.begin(f.m, f.work, {&r, 1}));
        REQUIRE(p.advance());
        p4::model<> elsewhere = std::move(f.m);
        CHECK_FALSE(p.advance());  // with the weights of a model that is not there
        CHECK_FALSE(p.done());
        p.end();
        CHECK(f.m.moved_from());  // NOLINT(bugprone-use-after-move)
        CHECK(f.m.parameter_bytes() == 0);
        check_refused(p.begin(f.m, f.work, {&r, 1}), p4::errc::invalid_argument, "the model has no memory: it was moved");
        check_refused(p4::step(f.m, past, f.work, 1), p4::errc::invalid_argument, "the model has no memory");
        f.m = std::move(elsewhere);
        CHECK_FALSE(f.m.moved_from());
    }
    CHECK(same_bits(f.future(past), before));
    {
        auto elsewhere = std::move(f.work);
        CHECK(f.work.logits.data == nullptr);  // NOLINT(bugprone-use-after-move)
        CHECK(f.work.texts.empty());
        CHECK(f.work.with.arranged == nullptr);
        check_refused(p4::step(f.m, past, f.work, 1), p4::errc::invalid_argument, "the workspace is of a model of another shape");
        f.work = std::move(elsewhere);
    }
    CHECK(same_bits(f.future(past), before));
}

TEST_CASE("model/pass: a moved pass is the same pass") {
    fixture<float> f({.chunk = 8});
    auto past = f.after({1, 2, 3});
    const ids text{4, 5, 6};
    const fixture<float>::reading r{&past, text};
    fixture<float>::pass p;
    REQUIRE(p.begin(f.m, f.work, {&r, 1}));
    REQUIRE(p.advance());
    fixture<float>::pass moved = std::move(p);
    CHECK_FALSE(p.advance());
    CHECK_FALSE(p.done());
    while (moved.advance()) {}
    REQUIRE(moved.commit(0, 3));
    moved.end();
    auto want = f.after({1, 2, 3});
    REQUIRE(p4::prefill(f.m, want, f.work, text));
    CHECK(same_bits(f.future(past), f.future(want)));
}
