#pragma once
/// What the tests of passes and of saved sessions share: a golden model, made-up texts, and what tells two sessions apart.
#include "golden.hpp"
#include "support/refused.hpp"

#include <phi4flash/model/forward.hpp>
#include <phi4flash/model/snapshot.hpp>

#include <cstdint>
#include <vector>

namespace session_testing {

namespace p4 = phi4flash;
using phi4flash_test::check_refused;
using ids = std::vector<std::int32_t>;
using bytes = std::vector<std::byte>;

inline ids some_tokens(std::size_t n, std::size_t vocab, std::size_t seed) {
    ids text(n);
    for (std::size_t i = 0; i < n; ++i) text[i] = static_cast<std::int32_t>((i * i * 31 + i * 7 + seed * 97 + 5) % vocab);
    return text;
}

/// The bits of the next few logits, by which any difference of two sessions shows. `on` is an empty session, which becomes a copy of `of`
/// and goes on.
template <class Kv>
std::vector<float> future(const p4::model<>& m, p4::workspace<p4::any_sambay, Kv>& work, const p4::session<p4::any_sambay, Kv>& of,
                          p4::session<p4::any_sambay, Kv> on) {
    REQUIRE(on.copy_from(of));
    std::vector<float> all;
    for (const std::int32_t token : {3, 1, 4, 1, 5, 9, 2, 6}) {
        const auto logits = p4::step(m, on, work, token);
        REQUIRE(logits);
        all.insert(all.end(), logits->begin(), logits->end());
    }
    return all;
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// A golden model, and what sessions on it read with.
template <class Kv>
struct fixture {
    using session = p4::session<p4::any_sambay, Kv>;
    using workspace = p4::workspace<p4::any_sambay, Kv>;
    using reading = p4::reading<p4::any_sambay, Kv>;
    using pass = p4::pass<p4::any_sambay, Kv>;

    p4::checkpoint files;
    p4::model<> m = *p4::model<>::bind(files);
    p4::weights_fingerprint weights = p4::fingerprint_of(files, m);
    workspace work;

    explicit fixture(const p4::workspace_options& options = {.chunk = 16, .states = 16}, const char* name = "f32-8l")
        : files(*golden::open(name)), work(*workspace::create(m, options)) {}

    [[nodiscard]] session make(std::size_t undo = 0, std::size_t context = 96) const {
        return *session::create(m, {.context = context, .undo = undo});
    }
    [[nodiscard]] std::size_t vocab() const { return m.shape().vocab(); }
    [[nodiscard]] ids text(std::size_t n, std::size_t seed = 1) const { return some_tokens(n, vocab(), seed); }
    void read(session& s, const ids& tokens) {
        if (!tokens.empty()) REQUIRE(p4::prefill(m, s, work, tokens));
    }
    [[nodiscard]] session after(const ids& tokens, std::size_t undo = 0) {
        session s = make(undo);
        read(s, tokens);
        return s;
    }
    /// Everything that the session holds.
    [[nodiscard]] bytes save(const session& s, std::size_t undo = p4::all_undo) const {
        bytes saved(p4::snapshot_bytes(s, undo), std::byte{0xaa});
        REQUIRE(p4::save_snapshot(s, weights, saved, undo));
        return saved;
    }
    [[nodiscard]] std::vector<float> future(const session& of) { return session_testing::future(m, work, of, make()); }
};

}  // namespace session_testing
