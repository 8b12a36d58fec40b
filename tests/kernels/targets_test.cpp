/// The choice of kernels, and that nothing is asked of the system for targets that nobody chose.
#include <phi4flash/kernels/dispatch.hpp>

#include <doctest/doctest.h>

#include <string>

namespace {

using namespace phi4flash;

int asked = 0;
bool granted = true;
bool ask() {
    ++asked;
    return granted;
}

constexpr kernel_table named(const char* name) {
    kernel_table t{};
    t.name = name;
    return t;
}
constexpr kernel_table amx = named("amx");
constexpr kernel_table zen4 = named("zen4");
constexpr kernel_table sse2 = named("sse2");

/// A machine with matrix tiles, or without.
kernel_target_list targets(bool has_tiles) {
    kernel_target_list list{};
    list.target[list.count++] = {&amx, has_tiles, &ask};
    list.target[list.count++] = {&zen4, true};
    list.target[list.count++] = {&sse2, true};
    asked = 0;
    granted = true;
    return list;
}

}  // namespace

TEST_CASE("targets: the system is asked for matrix tiles when they are chosen, and only then") {
    kernel_target_list all = targets(true);
    CHECK(&detail::best_of(all, {}) == &amx);
    CHECK(asked == 1);

    all = targets(true);
    CHECK(&detail::best_of(all, {.matrix_tiles = false}) == &zen4);
    CHECK(*detail::named_of(all, "zen4") == &zen4);
    CHECK(*detail::named_of(all, "sse2") == &sse2);
    CHECK_FALSE(detail::named_of(all, "abacus"));
    CHECK(asked == 0);

    all = targets(false);
    CHECK(&detail::best_of(all, {}) == &zen4);
    CHECK_FALSE(detail::named_of(all, "amx"));
    CHECK(asked == 0);
}

TEST_CASE("targets: where the system refuses, the next best, or a sentence for who named them") {
    kernel_target_list all = targets(true);
    granted = false;
    CHECK(&detail::best_of(all, {}) == &zen4);
    const auto refused = detail::named_of(all, "amx");
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code() == errc::unknown_target);
    CHECK(std::string(refused.error().message()).find("the system refuses") != std::string::npos);
    CHECK_FALSE(all.target[0].request());
    CHECK(all.target[1].request());
}

TEST_CASE("targets: of this program, only matrix tiles need something, and the last needs nothing") {
    const kernel_target_list all = kernel_targets();
    for (const kernel_target& t : all) {
        CAPTURE(t.kernels->name);
        CHECK((t.ask != nullptr) == (std::string(t.kernels->name) == "amx"));
    }
    CHECK(all.target[all.count - 1].runs_here);
    CHECK(best_kernels({.matrix_tiles = false}).name != std::string("amx"));
}
