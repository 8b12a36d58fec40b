/// Copies of a session: they go on as the original does, whatever the element type, and a copy that does not fit changes nothing.
#include "golden.hpp"

#include <phi4flash/model/forward.hpp>

namespace p4 = phi4flash;

namespace {

template <class Kv>
void check_copy(const p4::model<>& m) {
    using session = p4::session<p4::any_sambay, Kv>;
    const std::size_t vocab = m.shape().vocab();
    auto first = session::create(m, 64);
    auto second = session::create(m, 40);  // less room, enough for what is copied
    auto work = p4::workspace<p4::any_sambay, Kv>::create(m, {.chunk = 7});
    REQUIRE(first);
    REQUIRE(second);
    REQUIRE(work);
    std::vector<std::int32_t> text(23);
    for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<std::int32_t>((i * 37 + 5) % vocab);
    REQUIRE(p4::prefill(m, *first, *work, text));
    REQUIRE(p4::step(m, *second, *work, 3));  // something else, to be forgotten
    REQUIRE(second->copy_from(*first));
    CHECK(second->position() == text.size());

    for (const std::int32_t token : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}) {
        const auto want = p4::step(m, *first, *work, token);
        REQUIRE(want);
        const std::vector<float> kept(want->begin(), want->end());
        const auto have = p4::step(m, *second, *work, token);
        REQUIRE(have);
        CHECK(std::memcmp(kept.data(), have->data(), vocab * sizeof(float)) == 0);
    }

    auto small = session::create(m, 8);
    REQUIRE(small);
    REQUIRE(p4::step(m, *small, *work, 3));
    const auto refused = small->copy_from(*first);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code() == p4::errc::context_full);
    CHECK(small->position() == 1);
}

}  // namespace

TEST_CASE("model/session: a copy goes on as the original does") {
    const auto files = p4::checkpoint::open(golden::folder_of("f32-8l"));
    REQUIRE(files);
    const auto m = p4::model<>::bind(*files);
    REQUIRE(m);
    check_copy<float>(*m);
    check_copy<p4::bf16>(*m);
    check_copy<p4::kv_int8>(*m);
}

TEST_CASE("model/session: only a session of the same model is copied") {
    const auto files = p4::checkpoint::open(golden::folder_of("f32-8l"));
    const auto others = p4::checkpoint::open(golden::folder_of("bf16-12l-sharded"));
    REQUIRE(files);
    REQUIRE(others);
    const auto m = p4::model<>::bind(*files);
    const auto other = p4::model<>::bind(*others);
    REQUIRE(m);
    REQUIRE(other);
    auto a = p4::session<>::create(*m, 16);
    auto b = p4::session<>::create(*other, 16);
    REQUIRE(a);
    REQUIRE(b);
    const auto refused = a->copy_from(*b);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code() == p4::errc::invalid_argument);
}
