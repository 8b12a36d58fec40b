/// States saved without the K/V that grow: a session that has read on goes back by them to the very bits, one that has read anything else does not, and
/// whatever is wrong with the bytes leaves it as it was.
#include "session_testing.hpp"

#include <phi4flash/model/saved_states.hpp>

#include <algorithm>

using namespace session_testing;

namespace {

using bytes = std::vector<std::byte>;

template <class Kv>
struct fixture {
    using session = p4::session<p4::any_sambay, Kv>;
    using workspace = p4::workspace<p4::any_sambay, Kv>;

    p4::checkpoint files = *p4::checkpoint::open(golden::folder_of("f32-8l"));
    p4::model<> m = *p4::model<>::bind(files);
    p4::weights_fingerprint weights = p4::fingerprint_of(files, m);
    workspace work = *workspace::create(m, {.chunk = 16, .states = 16});

    [[nodiscard]] session make(std::size_t undo = 0, std::size_t context = 96) const { return *session::create(m, {.context = context, .undo = undo}); }
    [[nodiscard]] ids text(std::size_t n, std::size_t seed = 1) const { return some_tokens(n, m.shape().vocab(), seed); }
    void read(session& s, const ids& tokens) { REQUIRE(p4::prefill(m, s, work, tokens)); }
    [[nodiscard]] bytes states(const session& s) const {
        bytes saved;
        REQUIRE(p4::save_states(s, weights, [&](std::span<const std::byte> piece) {
            saved.insert(saved.end(), piece.begin(), piece.end());
            return piece.size() <= p4::snapshot_piece;
        }));
        CHECK(saved.size() == p4::saved_states_bytes(s, s.position()));
        return saved;
    }
    [[nodiscard]] bytes all(const session& s, std::size_t undo = p4::all_undo) const {
        bytes saved(p4::snapshot_bytes(s, undo));
        REQUIRE(p4::save_snapshot(s, weights, saved, undo));
        return saved;
    }
};

void check_refused(const p4::status& r, p4::errc code, const char* words) {
    REQUIRE_FALSE(r);
    CAPTURE(std::string(r.error().message()));
    CHECK(static_cast<int>(r.error().code()) == static_cast<int>(code));
    CHECK(std::string(r.error().message()).find(words) != std::string::npos);
}

/// At every place of a text longer than the windows, whose rings have come round by the time the session goes back.
template <class Kv>
void check_going_back() {
    fixture<Kv> f;
    const ids text = f.text(40);
    auto past = f.make(3);
    std::vector<bytes> states{f.states(past)};
    std::vector<bytes> whole{f.all(past, 0)};
    for (const std::int32_t token : text) {
        REQUIRE(p4::step(f.m, past, f.work, token));
        states.push_back(f.states(past));
        whole.push_back(f.all(past, 0));
    }
    const bytes end = f.all(past);
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
            CHECK(f.all(s) == whole[n]);
            if (n == text.size() || undo != past.undo()) continue;  // rings of another length wrap elsewhere: up to rounding
            REQUIRE(p4::step(f.m, s, f.work, text[n]));
            CHECK(f.all(s, 0) == whole[n + 1]);
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
    const bytes good = f.states(s);
    f.read(s, f.text(9, 4));
    const bytes before = f.all(s);
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
    check_refused(p4::restore_states(s, f.weights, before), p4::errc::bad_magic, "no saved session");
    check_refused(p4::restore_snapshot(s, f.weights, std::span<const std::byte>(good)), p4::errc::bad_magic, "no saved session");
    check_refused(p4::restore_states(s, {f.weights.value + 1}, good), p4::errc::wrong_weights, "other weights");
    CHECK(f.all(s) == before);

    auto shorter = f.make();
    f.read(shorter, f.text(12));
    check_refused(p4::restore_states(shorter, f.weights, good), p4::errc::invalid_argument, "after 13 tokens: want a session that has read them");
    auto other = f.make();
    ids text = f.text(20);
    text[12] ^= 1;
    f.read(other, text);
    const bytes others = f.all(other);
    check_refused(p4::restore_states(other, f.weights, good), p4::errc::invalid_argument, "has read others");
    CHECK(f.all(other) == others);
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
