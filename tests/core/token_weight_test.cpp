/// Ranks and weights of logits: in order, close to the exponential, whole at the ends.
#include <phi4flash/core/token_weight.hpp>

#include <doctest/doctest.h>

#include <cfloat>
#include <cmath>

namespace p4 = phi4flash;

namespace {
float of_bits(std::uint32_t bits) { return std::bit_cast<float>(bits); }
}  // namespace

TEST_CASE("token weight: ranks are ordered as logits are, and become logits again") {
    const float ascending[] = {-FLT_MAX, -3.5f, -1.0f, -FLT_MIN, of_bits(0x80000001u), 0.0f, of_bits(1u), FLT_MIN, 0.5f, 1.0f, FLT_MAX};
    std::int32_t before = p4::rank_of_none;
    for (const float& x : ascending) {
        const std::int32_t rank = p4::rank_of(x);
        CHECK(rank > before);
        CHECK(std::bit_cast<std::uint32_t>(p4::logit_of(rank)) == std::bit_cast<std::uint32_t>(x));
        before = rank;
    }
    CHECK(before < p4::rank_of_infinity);
    CHECK(p4::rank_of(of_bits(0x7f800000u)) == p4::rank_of_infinity);
    CHECK(p4::rank_of(of_bits(0x80000000u)) == p4::rank_of(0.0f));
    for (const std::uint32_t none : {0xff800000u, 0x7fc00000u, 0xffc00000u, 0x7f800001u, 0xffffffffu})
        CHECK(p4::rank_of(of_bits(none)) == p4::rank_of_none);
}

TEST_CASE("token weight: every distance weighs what the exponential says, and never more than a shorter one") {
    // A scale of 1 makes the distance itself the integer whose power is taken.
    std::int32_t before = p4::highest_weight;
    double worst = 0.0;
    for (std::int32_t x = 0; x <= p4::weight_polynomial::nothing; ++x) {
        const float distance = static_cast<float>(x);
        const std::int32_t weight = p4::weight_of(p4::rank_of(-distance), 0.0f, 1.0f);
        const double want = std::ldexp(std::exp2(-x * 0x1p-14), 30);
        REQUIRE(weight <= before);
        REQUIRE(std::fabs(weight - want) < 1.0 + 5e-5 * want);
        worst = (std::max)(worst, (std::fabs(weight - want) - 1.0) / want);
        before = weight;
    }
    CHECK(before == 0);
    CHECK(p4::weight_of(p4::rank_of(0.0f), 0.0f, 1.0f) == p4::highest_weight);
    MESSAGE("weight of a whole distance: worst relative error beside 1: " << worst);
}

TEST_CASE("token weight: any logits and temperatures") {
    for (const float temperature : {FLT_MIN, 1e-6f, 0.6f, 1.0f, 100.0f}) {
        const float scale = p4::weight_scale(temperature);
        CHECK((scale > 0.0f && scale <= 1e37f));
        for (const float highest : {-FLT_MAX, -2.0f, 0.0f, 31.7f, FLT_MAX}) {
            CHECK(p4::weight_of(p4::rank_of(highest), highest, scale) == p4::highest_weight);
            CHECK(p4::weight_of(p4::rank_of_none, highest, scale) == 0);
            CHECK(p4::weight_of(p4::rank_of(-FLT_MAX), highest, scale) == (highest == -FLT_MAX ? p4::highest_weight : 0));
        }
    }
    double worst = 0.0;
    for (int i = 0; i < 20000; ++i) {
        const float logit = 30.0f - static_cast<float>(i) * 0.0006f;
        const double want = std::ldexp(std::exp((static_cast<double>(logit) - 30.0) / 0.6), 30);
        const std::int32_t weight = p4::weight_of(p4::rank_of(logit), 30.0f, p4::weight_scale(0.6f));
        worst = (std::max)(worst, (std::fabs(weight - want) - 1.0) / want);
    }
    MESSAGE("weight at temperature 0.6: worst relative error beside 1: " << worst);
    CHECK(worst <= 9e-5);
}
