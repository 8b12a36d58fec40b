/// States saved without the K/V that grow: a session that has read on goes back by them to the very bits, one that has read anything else does not,
/// and whatever is wrong with the bytes leaves it as it was.
#include "session_testing.hpp"

#include <phi4flash/model/saved_states.hpp>

#include <algorithm>

using namespace session_testing;

namespace {

/// The states of the session as it is now, piece by piece.
template <class Kv>
bytes states_of(const fixture<Kv>& f, const typename fixture<Kv>::session& s) {
    bytes saved;
    REQUIRE(p4::save_states(s, f.weights, [&](std::span<const std::byte> piece) {
        saved.insert(saved.end(), piece.begin(), piece.end());
        return piece.size() <= p4::snapshot_piece;
    }));
    CHECK(saved.size() == p4::saved_states_bytes(s, s.position()));
    return saved;
}

/// At every place of a text longer than the windows, whose rings have come round by the time the session goes back.
template <class Kv>
void check_going_back() {
    fixture<Kv> f;
    const ids text = f.text(40);
    auto past = f.make(3);
    std::vector<bytes> states{states_of(f, past)};
    std::vector<bytes> whole{f.save(past, 0)};
    for (const std::int32_t token : text) {
        REQUIRE(p4::step(f.m, past, f.work, token));
        states.push_back(states_of(f, past));
        whole.push_back(f.save(past, 0));
    }
    const bytes end = f.save(past);
    CHECK(states.back().size() == states[30].size());  // however long the text is
    for (std::size_t n = 0; n <= text.size(); ++n) {
        CAPTURE(n);
        for (const std::size_t undo : {std::size_t{0}, std::size_t{3}, std::size_t{5}}) {
            auto s = f.make(undo, 64);
            f.read(s, f.text(11, 2));
            REQUIRE(p4::restore_snapshot(s, f.weights, end));
            REQUIRE(p4::restore_states(s, f.weights, states[n]));
            CHECK(s.position() == n);
            CHECK(s.oldest_position() == n);
            CHECK(f.save(s) == whole[n]);
            if (n == text.size() || undo != past.undo()) continue;  // rings of another length wrap elsewhere: up to rounding
            REQUIRE(p4::step(f.m, s, f.work, text[n]));
            CHECK(f.save(s, 0) == whole[n + 1]);
        }
    }
}

}  // namespace

TEST_CASE("model/saved_states: going back to any place gives the bits that were there") {
    check_going_back<p4::bf16>();
    check_going_back<float>();
    check_going_back<p4::kv_int8>();
}

TEST_CASE("model/saved_states: each byte altered, each length, and each session that is another") {
    fixture<p4::bf16> f;
    auto s = f.make(2);
    f.read(s, f.text(13));
    const bytes good = states_of(f, s);
    f.read(s, f.text(9, 4));
    const bytes before = f.save(s);
    for (std::size_t at = 0; at < good.size(); ++at) {
        bytes bad = good;
        bad[at] ^= std::byte{4};
        CAPTURE(at);
        CHECK_FALSE(p4::restore_states(s, f.weights, bad));
    }
    for (std::size_t n = 0; n < good.size(); n += n < 200 ? 1 : 101)
        CHECK_FALSE(p4::restore_states(s, f.weights, std::span(good).first(n)));
    bytes longer = good;
    longer.push_back(std::byte{0});
    check_refused(p4::restore_states(s, f.weights, longer), p4::errc::trailing_bytes, "others behind them");
    check_refused(p4::restore_states(s, f.weights, before), p4::errc::bad_magic, "this is a whole saved session: restore_snapshot takes it");
    check_refused(p4::restore_snapshot(s, f.weights, std::span<const std::byte>(good)), p4::errc::bad_magic,
                  "these are the saved states of a session alone");
    check_refused(p4::restore_states(s, {f.weights.value + 1}, good), p4::errc::wrong_weights, "other weights");
    CHECK(f.save(s) == before);

    auto shorter = f.make();
    f.read(shorter, f.text(12));
    check_refused(p4::restore_states(shorter, f.weights, good), p4::errc::invalid_argument, "after 13 tokens: want a session that has read them");
    auto other = f.make();
    ids text = f.text(20);
    text[12] ^= 1;
    f.read(other, text);
    const bytes others = f.save(other);
    check_refused(p4::restore_states(other, f.weights, good), p4::errc::invalid_argument, "has read others");
    CHECK(f.save(other) == others);
    fixture<float> wide;
    auto floats = wide.make();
    wide.read(floats, wide.text(20));
    check_refused(p4::restore_states(floats, wide.weights, good), p4::errc::wrong_dtype, "K/V are of bf16");

    const p4::reading<p4::any_sambay, p4::bf16> r{&s, std::span<const std::int32_t>(text).first(1)};
    p4::pass<p4::any_sambay, p4::bf16> p;
    REQUIRE(p.begin(f.m, f.work, {&r, 1}));
    check_refused(p4::restore_states(s, f.weights, good), p4::errc::in_use, "session is in use");
    p.end();
    check_refused(p4::save_states(s, f.weights, [](std::span<const std::byte>) { return false; }), p4::errc::cancelled, "took no more");
    REQUIRE(p4::restore_states(s, f.weights, good));
    CHECK(s.position() == 13);
}
