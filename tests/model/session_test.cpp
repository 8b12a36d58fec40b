/// Copies of a session: they go on as the original does, whatever the element type, and a copy that does not fit changes nothing. And the pages that
/// a session lies in, and how they are counted.
#include "golden.hpp"

#include <phi4flash/model/forward.hpp>
#include <phi4flash/model/snapshot.hpp>

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
    const auto files = golden::open("f32-8l");
    REQUIRE(files);
    const auto m = p4::model<>::bind(*files);
    REQUIRE(m);
    check_copy<float>(*m);
    check_copy<p4::bf16>(*m);
    check_copy<p4::kv_int8>(*m);
}

TEST_CASE("model/session: only a session of the same model is copied") {
    const auto files = golden::open("f32-8l");
    const auto others = golden::open("bf16-12l-sharded");
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

// On 32 bits a context of a million tokens is more than there are addresses: what is counted must not be that modulo 2^32.
TEST_CASE("model/session: more than there are addresses is never counted as less") {
    constexpr bool few_addresses = sizeof(std::size_t) == 4;
    constexpr auto e = p4::extents<p4::any_sambay>::of(p4::phi4_mini_flash);
    const auto check = [](std::size_t bytes) {
        CHECK(bytes >= (few_addresses ? SIZE_MAX : std::size_t{UINT32_MAX}));
    };
    check(p4::session<>::bytes(e, {.context = std::size_t{1} << 20}));
    check(p4::session<>::bytes(e, {.context = 4096, .undo = 4096}));
    check(p4::workspace<>::bytes(e, {.chunk = 65536}));
    check(p4::longest_snapshot_bytes(p4::phi4_mini_flash, {.context = std::size_t{1} << 20}));
    if (!few_addresses) return;
    const auto files = golden::open("f32-8l");
    REQUIRE(files);
    const auto m = p4::model<>::bind(*files);
    REQUIRE(m);
    const auto refused = p4::session<p4::any_sambay, float>::create(*m, p4::max_extent);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code() == p4::errc::out_of_memory);
    std::vector<std::byte> memory(p4::block_alignment);
    CHECK_FALSE((p4::session<p4::any_sambay, float>::create_in(memory, *m, p4::max_extent)));
}

TEST_CASE("model/session: K/V of long texts lie in huge pages, where there are any") {
    const auto files = golden::open("f32-8l");
    REQUIRE(files);
    const auto m = p4::model<>::bind(*files);
    REQUIRE(m);
    constexpr std::size_t context = std::size_t{1} << 18;
    constexpr std::size_t first = p4::session_options::small_page_tokens;
    auto probe = p4::memory_block::allocate(4 * p4::huge_page_bytes, "test", p4::page_size::huge);
    auto plain = p4::memory_block::allocate(4 * p4::huge_page_bytes, "test");
    REQUIRE(probe);
    REQUIRE(plain);
    for (const auto* block : {&*probe, &*plain}) std::memset(block->bytes().data(), 1, block->bytes().size());
    const bool can = probe->huge_bytes() != 0;
    const bool always = plain->huge_bytes() != 0;  // the system gives them unasked
    for (const p4::page_size pages : {p4::page_size::huge, p4::page_size::normal}) {
        auto s = p4::session<p4::any_sambay, float>::create(*m, {.context = context, .pages = pages});
        REQUIRE(s);
        const p4::kv_block<float>& full = s->full();
        const std::size_t row = s->heads().group_width();
        const std::size_t planes = s->heads().groups();
        const std::span all(reinterpret_cast<const std::byte*>(full.k), 2 * planes * context * row * sizeof(float));
        REQUIRE(context * row * sizeof(float) > 8 * p4::huge_page_bytes);
        const auto touch = [&](std::size_t from, std::size_t to) {
            for (float* const plane : {full.k, full.v})
                for (std::size_t g = 0; g < planes; ++g) std::memset(plane + (g * context + from) * row, 1, (to - from) * row * sizeof(float));
        };
        touch(0, first);
        touch(first, context);
        const std::size_t huge = p4::bytes_in_huge_pages(all);
        if (can && pages == p4::page_size::huge) CHECK(huge >= all.size() / 2);  // but for the beginnings, and what the system could not give
        if (!always && pages == p4::page_size::normal) CHECK(huge <= 2 * p4::huge_page_bytes);
    }
    // Less than a huge page, and none.
    CHECK_FALSE(p4::ask_for_huge_pages_inside(probe->bytes().first(p4::huge_page_bytes - 1)));
    CHECK_FALSE(p4::ask_for_huge_pages_inside({}));
}
