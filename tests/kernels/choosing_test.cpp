// The sampler's kernels against core/token_weight.hpp, bit for bit: every target, every ragged end, any bits.
#include "support/test_support.hpp"

#include <phi4flash/core/memory.hpp>
#include <phi4flash/kernels/dispatch.hpp>

#include <doctest/doctest.h>

using namespace phi4flash_test;
using phi4flash::choosing_kernels;
using phi4flash::kernel_table;

namespace {

/// Logits as models write them, with some of any bits.
buffer<float> some_logits(generator& random, std::size_t n, std::size_t offset) {
    constexpr std::uint32_t special[] = {0x7fc00000u, 0xffc00000u, 0x7f800000u, 0xff800000u, 0x7f7fffffu, 0xff7fffffu, 1u, 0u, 0x80000000u};
    buffer<float> x(n, offset);
    for (float& v : x) {
        switch (random.below(8)) {
            case 0: v = std::bit_cast<float>(special[random.below(9)]); break;
            case 1: v = std::bit_cast<float>(static_cast<std::uint32_t>(random.next())); break;
            default: v = random.uniform(-20.0f, 25.0f);
        }
    }
    return x;
}

void compare(const choosing_kernels& fast, generator& random, std::size_t n) {
    const choosing_kernels& plain = phi4flash::plain_choosing;
    const auto logits = some_logits(random, n, n % 3);
    buffer<std::int32_t> a(n, n % 2);
    buffer<std::int32_t> b(n);
    fast.rank(logits.data(), n, a.data());
    plain.rank(logits.data(), n, b.data());
    const auto same = [&] { return n == 0 || std::memcmp(a.data(), b.data(), n * sizeof(std::int32_t)) == 0; };
    REQUIRE(same());
    REQUIRE(fast.highest(a.data(), n) == plain.highest(b.data(), n));
    std::int32_t least = n == 0 ? 0 : b[random.below(n)];
    for (const std::int32_t limit : {least, phi4flash::rank_of_none, 0}) REQUIRE(fast.count(a.data(), n, limit) == plain.count(b.data(), n, limit));
    const float highest = random.below(2) == 0 ? 25.0f : 3.4e38f;
    // Of finite numbers below the highest, as the sampler has them.
    for (std::size_t i = 0; i < n; ++i)
        if (b[i] > phi4flash::rank_of(highest)) a[i] = b[i] = phi4flash::rank_of(highest);
    if (random.below(2) == 0) least = phi4flash::rank_of_none;
    const float temperature = random.below(4) == 0 ? 1e-38f : random.uniform(0.05f, 2.0f);
    const float scale = phi4flash::weight_scale(temperature);
    REQUIRE(fast.weigh(a.data(), n, least, highest, scale) == plain.weigh(b.data(), n, least, highest, scale));
    REQUIRE(same());
    for (const std::int32_t limit : {1, 2, 1 << 20, phi4flash::highest_weight, n == 0 ? 0 : b[random.below(n)]})
        REQUIRE(fast.sum(a.data(), n, limit) == plain.sum(b.data(), n, limit));
}

}  // namespace

TEST_CASE("choosing kernels are the plain ones, to the bit") {
    for_each_target([](const kernel_table& kernels) {
        generator random(20);
        for (std::size_t n = 0; n <= 80; ++n)
            for (int i = 0; i < 6; ++i) compare(kernels.choosing, random, n);
        for (int i = 0; i < 60; ++i) compare(kernels.choosing, random, phi4flash::choosing_block - random.below(40));
    });
}

TEST_CASE("choosing kernels: sums of whole blocks of the highest weight") {
    for_each_target([](const kernel_table& kernels) {
        std::vector<std::int32_t> x(phi4flash::choosing_block, phi4flash::highest_weight);
        CHECK(kernels.choosing.sum(x.data(), x.size(), 1) == x.size() * std::uint64_t{1} << 30);
        for (std::int32_t& v : x) v = phi4flash::highest_weight - 1;
        CHECK(kernels.choosing.sum(x.data(), x.size(), 1) == x.size() * static_cast<std::uint64_t>(phi4flash::highest_weight - 1));
    });
}
