#pragma once
/// What the tests of passes and of saved sessions share: made-up texts, and what tells two sessions apart.
#include "golden.hpp"

#include <phi4flash/model/forward.hpp>

#include <cstdint>
#include <vector>

namespace session_testing {

namespace p4 = phi4flash;
using ids = std::vector<std::int32_t>;

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

}  // namespace session_testing
