/// Sessions as bytes: going on after a restore gives the bits of never having stopped, the bytes are the same wherever the rings stand, and
/// whatever is wrong with them leaves the session as it was.
#include "session_testing.hpp"

#include <phi4flash/core/thread_pool.hpp>
#include <phi4flash/model/saved_states.hpp>

#include <algorithm>

using namespace session_testing;

namespace {

/// A source that ends where the bytes end.
auto source_of(std::span<const std::byte> from) {
    return [from](std::span<std::byte> piece) mutable {
        if (piece.size() > from.size()) return false;
        std::ranges::copy(from.first(piece.size()), piece.begin());
        from = from.subspan(piece.size());
        return true;
    };
}

/// Saves after every number of tokens up to 40, with windows of 8 and rings that wrap, restores both ways into sessions that had read other
/// things, of other extents, and goes on.
template <class Kv>
void check_going_on() {
    fixture<Kv> f;
    const std::size_t undo = 3;
    auto past = f.make(undo);
    const ids text = f.text(40);
    for (std::size_t n = 0; n <= text.size(); ++n) {
        CAPTURE(n);
        const bytes saved = f.save(past);
        const auto future = f.future(past);
        const auto info = p4::inspect_snapshot(saved);
        REQUIRE(info);
        CHECK(info->position == n);
        CHECK(info->oldest_position == n - std::min(n, undo));
        CHECK(info->bytes == saved.size());
        CHECK(info->kv == p4::kv_format_of<Kv>);
        CHECK(info->weights == f.weights);
        CHECK(info->shape == f.m.shape().shape());
        for (const std::size_t room : {std::size_t{0}, std::size_t{1}, undo, std::size_t{7}}) {
            CAPTURE(room);
            auto other = f.make(room, 64);
            f.read(other, f.text(11, 2));
            REQUIRE(p4::restore_snapshot(other, f.weights, saved));
            auto fresh = f.make(room, 64);
            REQUIRE(p4::restore_snapshot(fresh, f.weights, source_of(saved)));
            for (const auto* s : {&other, &fresh}) {
                CHECK(s->position() == n);
                CHECK(s->oldest_position() == n - std::min({n, undo, room}));
                CHECK(same_bits(f.future(*s), future));
            }
            CHECK(f.save(other) == f.save(fresh));
            fresh.reset();
            REQUIRE(p4::restore_snapshot(fresh, f.weights, saved));
            CHECK(f.save(other) == f.save(fresh));
            if (room >= undo) CHECK(f.save(other) == saved);
            CHECK(f.save(other) == f.save(past, room));
            // And back, as far as both go.
            if (other.oldest_position() < n) {
                REQUIRE(other.rewind(other.oldest_position()));
                auto stepped = f.make(undo);
                REQUIRE(stepped.copy_from(past));
                REQUIRE(stepped.rewind(other.position()));
                CHECK(same_bits(f.future(other), f.future(stepped)));
                CHECK(f.save(other, 0) == f.save(stepped, 0));
            }
        }
        if (n < text.size()) REQUIRE(p4::step(f.m, past, f.work, text[n]));
    }
}

}  // namespace

TEST_CASE("model/snapshot: going on after a restore gives the bits of never having stopped") {
    check_going_on<p4::bf16>();
    check_going_on<float>();
    check_going_on<p4::kv_int8>();
}

TEST_CASE("model/snapshot: going on after a fork gives the bits of never having stopped, and both go their own way") {
    fixture<p4::bf16> f;
    auto trunk = f.make(2);
    f.read(trunk, f.text(29));
    auto branch = f.make(2);
    REQUIRE(branch.copy_from(trunk));
    CHECK(f.save(branch) == f.save(trunk));
    const bytes saved = f.save(trunk);
    f.read(branch, f.text(9, 5));
    CHECK(f.save(trunk) == saved);
    auto whole = f.make(2);
    f.read(whole, f.text(29));
    f.read(whole, f.text(9, 5));
    CHECK(f.save(branch) == f.save(whole));
    REQUIRE(branch.rewind(37));
    REQUIRE(whole.rewind(37));
    CHECK(f.save(branch) == f.save(whole));
}

TEST_CASE("model/snapshot: the same bytes on every number of threads, in any memory, and from any target up to rounding") {
    fixture<float> f;
    auto past = f.make();
    f.read(past, f.text(40));
    const bytes saved = f.save(past);
#if PHI4FLASH_THREADS
    auto pool = p4::thread_pool::create(3);
    REQUIRE(pool);
    fixture<float> threaded({.chunk = 16, .threads = *pool});
#else
    fixture<float> threaded;
#endif
    std::vector<std::byte> memory(p4::session<p4::any_sambay, float>::bytes(f.m, 40) + p4::block_alignment);
    void* place = memory.data();
    std::size_t room = memory.size();
    REQUIRE(std::align(p4::block_alignment, room - p4::block_alignment, place, room) != nullptr);
    auto hosts = p4::session<p4::any_sambay, float>::create_in({static_cast<std::byte*>(place), room}, threaded.m, 40);
    REQUIRE(hosts);
    threaded.read(*hosts, f.text(40));
    CHECK(threaded.save(*hosts) == saved);
    CHECK(threaded.weights == f.weights);

    for (const p4::kernel_target& target : p4::kernel_targets()) {
        if (!target.runs_here) continue;
        CAPTURE(std::string(target.kernels->name));
        fixture<float> other({.chunk = 16, .kernels = target.kernels});
        auto there = other.make();
        other.read(there, f.text(40));
        const bytes theirs = other.save(there);
        REQUIRE(theirs.size() == saved.size());
        REQUIRE(p4::restore_snapshot(past, f.weights, theirs));  // a session goes on where another machine left it
        const auto mine = f.future(past);
        REQUIRE(p4::restore_snapshot(past, f.weights, saved));
        const auto want = f.future(past);
        float worst = 0.0f;
        for (std::size_t i = 0; i < want.size(); ++i) worst = std::max(worst, std::abs(want[i] - mine[i]));
        CHECK(worst < 1e-4f);
    }
}

TEST_CASE("model/snapshot: every byte that is altered, and every length that is wrong, is an error, and the session is as before") {
    fixture<p4::kv_int8> f;
    auto small = f.make(1);
    f.read(small, {1, 2, 3});
    bytes saved = f.save(small);
    auto s = f.make(1);
    f.read(s, f.text(20, 3));
    const bytes before = f.save(s);
    auto fresh = f.make(1);
    const bytes nothing = f.save(fresh);
    MESSAGE("a snapshot of " << saved.size() << " bytes");
    std::size_t accepted = 0;
    for (std::size_t i = 0; i < saved.size(); ++i) {
        const std::byte was = saved[i];
        saved[i] ^= std::byte{static_cast<unsigned char>(1u << i % 8)};
        accepted += p4::restore_snapshot(s, f.weights, saved).has_value();
        if (i % 61 == 0 || i < 200) {
            accepted += p4::restore_snapshot(fresh, f.weights, source_of(saved)).has_value();
            accepted += p4::restore_snapshot(fresh, f.weights, saved).has_value();
            if (f.save(fresh) != nothing || f.save(s) != before) FAIL("changed at byte " << i);
        }
        saved[i] = was;
    }
    CHECK(accepted == 0);
    for (std::size_t n = 0; n < saved.size(); n += n < 300 ? 1 : 97) {
        accepted += p4::restore_snapshot(s, f.weights, std::span<const std::byte>(saved).first(n)).has_value();
        accepted += p4::restore_snapshot(fresh, f.weights, source_of(std::span<const std::byte>(saved).first(n))).has_value();
    }
    CHECK(accepted == 0);
    CHECK(f.save(s) == before);
    CHECK(f.save(fresh) == nothing);
    CHECK(fresh.position() == 0);
    // A session that could not be filled reads like a new one.
    f.read(fresh, f.text(20, 3));
    CHECK(f.save(fresh) == before);
    REQUIRE(p4::restore_snapshot(s, f.weights, saved));
    CHECK(f.save(s) == saved);
}

TEST_CASE("model/snapshot: each thing that can be wrong has its code and its sentence") {
    fixture<p4::bf16> f;
    auto past = f.make();
    f.read(past, f.text(20));
    const bytes saved = f.save(past);
    auto s = f.make();
    f.read(s, f.text(5, 9));
    const bytes before = f.save(s);
    const auto restore = [&](const bytes& from) { return p4::restore_snapshot(s, f.weights, from); };

    check_refused(restore({}), p4::errc::file_incomplete, "cut off");
    check_refused(restore(bytes(500, std::byte{'x'})), p4::errc::bad_magic, "no saved session");
    check_refused(restore(bytes(saved.begin(), saved.end() - 1)), p4::errc::file_incomplete, "cut off");
    check_refused(restore(bytes(saved.begin(), saved.begin() + 100)), p4::errc::file_incomplete, "want 192 bytes, have 100");
    bytes longer = saved;
    longer.push_back(std::byte{0});
    check_refused(restore(longer), p4::errc::trailing_bytes, "others behind them");
    bytes altered = saved;
    altered[saved.size() / 2] ^= std::byte{1};
    check_refused(restore(altered), p4::errc::wrong_checksum, "altered");
    altered = saved;
    altered[40] ^= std::byte{1};
    check_refused(restore(altered), p4::errc::wrong_checksum, "altered");
    altered = saved;
    altered[8] = std::byte{2};
    check_refused(restore(altered), p4::errc::unsupported_version, "a newer phi4flash");
    check_refused(p4::restore_snapshot(s, {f.weights.value + 1}, saved), p4::errc::wrong_weights, "other weights");

    fixture<float> wide;
    auto f32 = wide.make();
    check_refused(p4::restore_snapshot(f32, f.weights, saved), p4::errc::wrong_dtype, "are of bf16: want f32");
    fixture<p4::bf16> other({.chunk = 16}, "bf16-12l-sharded");
    auto foreign = other.make();
    check_refused(p4::restore_snapshot(foreign, other.weights, saved), p4::errc::wrong_shape, "another shape: d_model: want 160, have 64");
    auto small = f.make(0, 19);
    check_refused(p4::restore_snapshot(small, f.weights, saved), p4::errc::context_full, "20 tokens");
    check_refused(p4::restore_snapshot(small, f.weights, source_of(saved)), p4::errc::context_full, "a context of 19");
    check_refused(p4::restore_snapshot(s, f.weights, source_of(saved)), p4::errc::invalid_argument, "has read 5 tokens");
    check_refused(
        p4::restore_snapshot(small, f.weights, [](std::span<std::byte>) { return p4::status(p4::error::format(p4::errc::file_unreadable, "torn")); }),
        p4::errc::file_unreadable, "torn");
    bytes room(saved.size() - 1);
    check_refused(p4::save_snapshot(past, f.weights, room), p4::errc::invalid_argument, "memory for a snapshot");
    check_refused(p4::save_snapshot(past, f.weights, [n = 0](std::span<const std::byte>) mutable { return ++n < 3; }), p4::errc::cancelled,
                  "took no more");

    // In use.
    const ids one{1};
    const p4::reading<p4::any_sambay, p4::bf16> r{&s, one};
    {
        p4::pass<p4::any_sambay, p4::bf16> p;
        REQUIRE(p.begin(f.m, f.work, {&r, 1}));
        REQUIRE(p.advance());
        check_refused(restore(saved), p4::errc::in_use, "session is in use");
        CHECK(f.save(s) == before);  // what is not committed is not saved
    }
    auto resets = f.make();
    check_refused(p4::restore_snapshot(resets, f.weights,
                                       [&, from = source_of(saved)](std::span<std::byte> piece) mutable { return resets.reset(), from(piece); }),
                  p4::errc::in_use, "was reset");
    CHECK(f.save(resets) == f.save(f.make()));

    // Moved by the source, before any of its pieces; or replaced by another, which stays as it is.
    for (int call = 1; call <= 4; ++call) {
        CAPTURE(call);
        auto moves = f.make();
        auto to = f.make();
        const auto refused = p4::restore_snapshot(moves, f.weights, [&, n = 0, from = source_of(saved)](std::span<std::byte> piece) mutable {
            if (++n == call) to = std::move(moves);
            return from(piece);
        });
        REQUIRE_FALSE(refused);
        CHECK(refused.error().code() == (call == 1 ? p4::errc::invalid_argument : p4::errc::in_use));
        CHECK(moves.moved_from());
        if (call != 1) {  // filled in part: nobody takes it for one that has read nothing
            const p4::reading<p4::any_sambay, p4::bf16> one_more{&to, one};
            p4::pass<p4::any_sambay, p4::bf16> p;
            check_refused(p.begin(f.m, f.work, {&one_more, 1}), p4::errc::in_use, "the session is being restored, or was moved");
            check_refused(p4::save_snapshot(to, f.weights, room), p4::errc::in_use, "is being restored");
            check_refused(f.make().copy_from(to), p4::errc::in_use, "is being restored");
            auto again = f.make();
            REQUIRE(p4::restore_snapshot(to, f.weights, saved));
            REQUIRE(p4::restore_snapshot(again, f.weights, saved));
            CHECK(f.save(to) == f.save(again));
        }
        to.reset();
        CHECK(f.save(to) == f.save(f.make()));

        auto and_back = f.make();
        CHECK_FALSE(p4::restore_snapshot(and_back, f.weights, [&, n = 0, from = source_of(saved)](std::span<std::byte> piece) mutable {
            if (++n == call) {
                auto elsewhere = std::move(and_back);
                and_back = std::move(elsewhere);
            }
            return from(piece) && n != call;
        }));
        CHECK(f.save(and_back) == f.save(f.make()));

        auto replaced = f.make();
        auto donor = f.make(2);
        REQUIRE(donor.copy_from(s));
        const bytes others = f.save(donor);
        CHECK_FALSE(p4::restore_snapshot(replaced, f.weights, [&, n = 0, from = source_of(saved)](std::span<std::byte> piece) mutable {
            const bool ok = from(piece);
            if (++n == call) replaced = std::move(donor);  // frees what the piece is of
            return ok;
        }));
        CHECK(f.save(replaced) == others);
    }

    // Without memory: nothing can be restored into it, whatever the file says.
    auto gone = f.make();
    auto there = std::move(gone);
    const auto without_memory = [&](const p4::status& refused) {
        check_refused(refused, p4::errc::invalid_argument, "the session has no memory");
    };
    without_memory(p4::restore_snapshot(gone, f.weights, saved));  // NOLINT(bugprone-use-after-move)
    without_memory(p4::restore_snapshot(gone, f.weights, source_of(saved)));
    without_memory(p4::restore_states(gone, f.weights, saved));
    CHECK(f.save(s) == before);
    CHECK(f.save(past) == saved);
}

TEST_CASE("model/snapshot: pieces are small, and together the bytes") {
    fixture<float> f;
    auto past = f.make(2);
    f.read(past, f.text(33));
    bytes pieces;
    REQUIRE(p4::save_snapshot(past, f.weights, [&](std::span<const std::byte> piece) {
        CHECK(piece.size() <= p4::snapshot_piece);
        pieces.insert(pieces.end(), piece.begin(), piece.end());
        return p4::status();
    }));
    CHECK(pieces == f.save(past));
}

TEST_CASE("model/fingerprint: differs where any tensor, type or name does, and costs no more than a look") {
    struct table {
        std::vector<p4::tensor_view> list;
        [[nodiscard]] const p4::tensor_view* find(std::string_view name) const { return p4::find_tensor(list, name); }
        [[nodiscard]] std::span<const p4::tensor_view> tensors() const { return list; }
    };
    fixture<p4::bf16> f;
    table copy{{f.files.tensors().begin(), f.files.tensors().end()}};
    CHECK(p4::fingerprint_of(copy, f.m) == f.weights);
    fixture<p4::bf16> other({.chunk = 16}, "bf16-12l-sharded");
    CHECK(other.weights != f.weights);
    for (p4::tensor_view& t : copy.list) {
        CAPTURE(std::string(t.name));
        const p4::tensor_view was = t;
        std::vector<std::byte> altered(t.data, t.data + t.bytes);
        for (std::byte& b : altered) b ^= std::byte{1};
        t.data = altered.data();
        CHECK(p4::fingerprint_of(copy, f.m) != f.weights);
        altered.assign(was.data, was.data + was.bytes);
        altered.back() ^= std::byte{0x40};
        CHECK(p4::fingerprint_of(copy, f.m) != f.weights);
        t = was;
        t.type = t.type == p4::dtype::f32 ? p4::dtype::bf16 : p4::dtype::f32;
        CHECK(p4::fingerprint_of(copy, f.m) != f.weights);
        t = was;
    }
    CHECK(p4::fingerprint_of(copy, f.m) == f.weights);
}
