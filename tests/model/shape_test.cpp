// Rules of a shape, static and dynamic extents, and the layer plan.
#include <phi4flash/model/layer_plan.hpp>
#include <phi4flash/model/shape.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

using phi4flash::any_sambay;
using phi4flash::dynamic;
using phi4flash::errc;
using phi4flash::extents;
using phi4flash::layer_place;
using phi4flash::layer_plan;
using phi4flash::mixer_kind;
using phi4flash::phi4_mini_flash;
using phi4flash::sambay_shape;
using phi4flash::shape_fault;

namespace {

constexpr sambay_shape small{.d_model = 24,
                             .n_layers = 8,
                             .d_ff = 40,
                             .n_heads = 6,
                             .n_kv_heads = 2,
                             .vocab = 50,
                             .window = 5,
                             .d_inner = 44,
                             .d_state = 3,
                             .d_conv = 4,
                             .dt_rank = 2};

sambay_shape with(std::size_t sambay_shape::* extent, std::size_t value) {
    sambay_shape s = small;
    s.*extent = value;
    return s;
}

std::string fault_of(const sambay_shape& s) {
    const auto checked = phi4flash::check_shape(s);
    if (checked) return {};
    CHECK(checked.error().code() == errc::bad_extent);
    return checked.error().message();
}

}  // namespace

TEST_CASE("good shapes have no fault") {
    static_assert(phi4flash::find_fault(phi4_mini_flash) == shape_fault::none);
    static_assert(phi4flash::find_fault(any_sambay) == shape_fault::none);
    CHECK(fault_of(phi4_mini_flash).empty());
    CHECK(fault_of(small).empty());
}

TEST_CASE("each rule is found and named") {
    struct rule {
        std::size_t sambay_shape::* extent;
        std::size_t value;
        shape_fault fault;
        const char* message;
    };
    const rule rules[] = {
        {&sambay_shape::n_layers, 6, shape_fault::layers_not_multiple_of_four, "n_layers: want a multiple of 4, have 6"},
        {&sambay_shape::n_heads, 3, shape_fault::heads_odd, "n_heads: want an even number (heads pair by parity), have 3"},
        {&sambay_shape::n_kv_heads, 3, shape_fault::kv_heads_odd, "n_kv_heads: want an even number (heads pair by parity), have 3"},
        {&sambay_shape::n_kv_heads, 4, shape_fault::heads_not_multiple_of_kv_heads,
         "n_heads: want a multiple of n_kv_heads (4), have 6"},
        {&sambay_shape::d_model, 25, shape_fault::width_not_multiple_of_heads, "d_model: want a multiple of n_heads (6), have 25"},
    };
    for (const rule& r : rules) {
        const sambay_shape s = with(r.extent, r.value);
        CHECK(phi4flash::find_fault(s) == r.fault);
        CHECK(fault_of(s) == r.message);
    }
}

TEST_CASE("every extent must be given, at least 1 and not absurd") {
    const struct {
        std::size_t sambay_shape::* extent;
        const char* name;
    } all[] = {
        {&sambay_shape::d_model, "d_model"}, {&sambay_shape::n_layers, "n_layers"},     {&sambay_shape::d_ff, "d_ff"},
        {&sambay_shape::n_heads, "n_heads"}, {&sambay_shape::n_kv_heads, "n_kv_heads"}, {&sambay_shape::vocab, "vocab"},
        {&sambay_shape::window, "window"},   {&sambay_shape::d_inner, "d_inner"},       {&sambay_shape::d_state, "d_state"},
        {&sambay_shape::d_conv, "d_conv"},   {&sambay_shape::dt_rank, "dt_rank"},
    };
    static_assert(sizeof all / sizeof all[0] == phi4flash::detail::extent_count);
    for (const auto& e : all) {
        const std::string name = e.name;
        CHECK(phi4flash::find_fault(with(e.extent, 0)) == shape_fault::extent_zero);
        CHECK(fault_of(with(e.extent, 0)) == name + ": want 1 to 16777216, have 0");
        CHECK(phi4flash::find_fault(with(e.extent, phi4flash::max_extent + 1)) == shape_fault::extent_too_large);
        CHECK(fault_of(with(e.extent, phi4flash::max_extent + 1)) == name + ": want 1 to 16777216, have 16777217");
        // Not known yet is no fault of a type, but one of a checkpoint.
        CHECK(phi4flash::find_fault(with(e.extent, dynamic)) == shape_fault::none);
        CHECK(fault_of(with(e.extent, dynamic)) == name + " is not given: want a number from 1 to 16777216");
    }
}

TEST_CASE("extents: static ones cost nothing, dynamic ones come from a checkpoint") {
    static_assert(extents<phi4_mini_flash>().d_head() == 64);
    static_assert(extents<phi4_mini_flash>().d_kv() == 1280);
    static_assert(extents<phi4_mini_flash>().shape() == phi4_mini_flash);
    static_assert(sizeof(extents<any_sambay>) == 11 * sizeof(std::size_t));
    static_assert(sizeof(extents<phi4_mini_flash>) < sizeof(std::size_t) * 2);

    const auto any = extents<any_sambay>::from(small);
    REQUIRE(any);
    CHECK(any->shape() == small);
    CHECK(any->d_head() == 4);
    CHECK(any->d_kv() == 8);

    // Some extents fixed, the rest from the checkpoint.
    constexpr sambay_shape family{.d_state = 3, .d_conv = 4};
    const auto mixed = extents<family>::from(small);
    REQUIRE(mixed);
    static_assert(extents<family>().d_state() == 3);
    CHECK(mixed->shape() == small);
    CHECK(!extents<family>::from(with(&sambay_shape::d_state, 4)));
}

TEST_CASE("a checkpoint of another shape is refused with want and have") {
    CHECK(extents<phi4_mini_flash>::from(phi4_mini_flash));
    sambay_shape other = phi4_mini_flash;
    other.vocab = 1000;
    const auto refused = extents<phi4_mini_flash>::from(other);
    REQUIRE(!refused);
    CHECK(refused.error().code() == errc::bad_extent);
    CHECK(std::string(refused.error().message()) == "vocab: the model type wants 200064, the checkpoint has 1000");
    const auto broken = extents<any_sambay>::from(with(&sambay_shape::n_layers, 6));
    REQUIRE(!broken);
    CHECK(std::string(broken.error().message()) == "n_layers: want a multiple of 4, have 6");
}

TEST_CASE("the layer plan gives every layer a place of its own") {
    for (const std::size_t n_layers : {4u, 8u, 12u, 32u, 64u}) {
        CAPTURE(n_layers);
        const layer_plan plan(n_layers);
        CHECK(plan.n_layers() == n_layers);
        std::vector<std::size_t> next(6, 0);
        for (std::size_t layer = 0; layer < n_layers; ++layer) {
            CAPTURE(layer);
            const layer_place place = plan.at(layer);
            // Both Mamba kinds share one array; all slots of a kind are used once and in order.
            const mixer_kind kind = place.kind == mixer_kind::memory_mamba ? mixer_kind::mamba : place.kind;
            CHECK(place.slot == next[static_cast<std::size_t>(kind)]++);
            CHECK((layer < n_layers / 2) == (kind == mixer_kind::window_attention || place.kind == mixer_kind::mamba));
            CHECK((place.kind == mixer_kind::memory_mamba) == (layer == plan.memory_layer()));
            CHECK((place.kind == mixer_kind::full_attention) == (layer == plan.full_layer()));
            const bool attends =
                kind == mixer_kind::window_attention || kind == mixer_kind::full_attention || kind == mixer_kind::cross_attention;
            CHECK(attends == (layer % 2 == 1));
        }
        CHECK(next[static_cast<std::size_t>(mixer_kind::mamba)] == plan.n_mamba());
        CHECK(next[static_cast<std::size_t>(mixer_kind::window_attention)] == plan.n_window());
        CHECK(next[static_cast<std::size_t>(mixer_kind::gated_memory)] == plan.n_gated_memory());
        CHECK(next[static_cast<std::size_t>(mixer_kind::cross_attention)] == plan.n_cross());
        CHECK(next[static_cast<std::size_t>(mixer_kind::full_attention)] == 1);
    }
    CHECK(std::string(phi4flash::name_of(mixer_kind::gated_memory)) == "gated_memory");
    CHECK(std::string(phi4flash::name_of(mixer_kind::cross_attention)) == "cross_attention");
}
