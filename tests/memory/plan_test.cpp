/// The memory plan is a constant for a shape that is known at compile time, and equals what is really taken: as the values say it, and as
/// operator new counts it.
#include <phi4flash/phi4flash.hpp>

#include <doctest/doctest.h>

#include <support/counting.hpp>

namespace {

namespace p4 = phi4flash;

// The released model, known to the compiler.
constexpr p4::memory_plan released = p4::memory_plan::of(p4::phi4_mini_flash, {.context = 4096});
static_assert(released.session == p4::session<p4::phi4_mini_flash>::bytes(p4::extents<p4::phi4_mini_flash>(), {.context = 4096}));
static_assert(released.workspace == p4::workspace<p4::phi4_mini_flash>::bytes(p4::extents<p4::phi4_mini_flash>(), {.chunk = 256}));
static_assert(released.session < std::size_t{50} << 20);
static_assert(released.total() == released.weights + released.parameters + released.workspace + released.session + released.generation);
// Sessions share weights and workspace; a token that can be taken back costs the Mamba states again.
constexpr p4::memory_plan sixteen = p4::memory_plan::of(p4::phi4_mini_flash, {.context = 4096, .sessions = 16});
static_assert(sixteen.total() - released.total() == 15 * (released.session + released.generation));
constexpr p4::memory_plan undoing = p4::memory_plan::of(p4::phi4_mini_flash, {.context = 4096, .undo = 8});
static_assert(undoing.session - released.session >= std::size_t{8} * 9 * (5120 * 16 + 3 * 5120) * 4);
static_assert(undoing.snapshot > released.snapshot && undoing.workspace == released.workspace);
// Drafters belong to texts, a prefix cache to all of them.
constexpr p4::memory_plan drafting =
    p4::memory_plan::of(p4::phi4_mini_flash, {.context = 4096, .sessions = 2, .remembered = 4096, .cached_texts = 3});
static_assert(drafting.drafter == p4::ngram_drafter::bytes(4096) && drafting.drafter < 4096 * 20);
static_assert(drafting.prefix_cache ==
              p4::round_up(p4::prefix_cache<p4::phi4_mini_flash>::bytes_for(p4::phi4_mini_flash, 3, 4096), p4::block_alignment));
static_assert(drafting.total() - released.total() == drafting.prefix_cache + 2 * drafting.drafter + released.session + released.generation);
// More than there can be.
static_assert(p4::memory_plan::of(p4::phi4_mini_flash, {.context = 32768, .undo = 32768, .sessions = SIZE_MAX}).total() == UINT64_MAX);
// Fewer bits, fewer bytes; K/V of 8 bits, half of them.
static_assert(p4::memory_plan::of(p4::phi4_mini_flash, {.weights = p4::weight_types::all(p4::dtype::bf16)}).weights > 3 * released.weights);
static_assert(p4::memory_plan::of<p4::kv_int8>(p4::phi4_mini_flash, {.context = 4096}).session < released.session);
// No shape, no plan.
static_assert(p4::memory_plan::of(p4::any_sambay, {.context = 64}).total() == 0);
static_assert(p4::memory_plan::of(p4::phi4_mini_flash, {.context = 4, .undo = 5}).total() == 0);
// What cannot be made has no plan either.
static_assert(p4::memory_plan::of(p4::phi4_mini_flash, {.context = 64, .chunk = 0}).total() == 0);
static_assert(p4::memory_plan::of(p4::phi4_mini_flash, {.context = 64, .chunk = 65537}).total() == 0);
static_assert(p4::memory_plan::of(p4::phi4_mini_flash, {.context = 64, .chunk = 8, .states = 9}).total() == 0);
static_assert(p4::memory_plan::of(p4::phi4_mini_flash, {.context = 64, .logits = 0}).total() == 0);
static_assert(p4::memory_plan::of(p4::phi4_mini_flash, {.context = p4::max_extent + 1}).total() == 0);
static_assert(p4::memory_plan::of(p4::phi4_mini_flash, {.context = 64, .remembered = p4::ngram_drafter::most_tokens + 1}).total() == 0);
static_assert(p4::memory_plan::of(p4::phi4_mini_flash, {.context = 64, .drafts = p4::max_drafts + 1}).total() == 0);

}  // namespace

#if PHI4FLASH_HAS_JSON
namespace {

template <class Kv>
void compare(const p4::model_files& files, const p4::model<>& m, const p4::tokenizer& words, const p4::memory_options& o) {
    const p4::memory_plan plan = p4::memory_plan::of<Kv>(files.config().shape, o);
    CHECK(plan.parameters == m.parameter_bytes());
    CHECK(plan.session == p4::session<p4::any_sambay, Kv>::bytes(m, {.context = o.context, .undo = o.undo}));
    const p4::workspace_options how{.chunk = o.chunk, .pages = p4::page_size::normal, .states = o.states, .logits = o.logits};
    CHECK(plan.workspace == p4::workspace<p4::any_sambay, Kv>::bytes(m, how));

    counting::of_thread taken;
    auto past = *p4::session<p4::any_sambay, Kv>::create(m, {.context = o.context, .undo = o.undo, .pages = p4::page_size::normal});
    if (counting::works) CHECK(taken.bytes() == plan.session);
    taken.begin();
    auto work = *p4::workspace<p4::any_sambay, Kv>::create(m, how);
    if (counting::works) CHECK(taken.bytes() == plan.workspace);
    taken.begin();
    auto drafter = p4::ngram_drafter::create(o.remembered);
    REQUIRE(drafter);
    if (counting::works) CHECK(taken.bytes() == plan.drafter);
    if (o.cached_texts != 0) {
        const std::size_t wanted = p4::prefix_cache<p4::any_sambay, Kv>::bytes_for(m, o.cached_texts, (std::max)(o.context, m.shape().window()));
        CHECK(plan.prefix_cache == p4::round_up(wanted, p4::block_alignment));
        taken.begin();
        REQUIRE(p4::prefix_cache<p4::any_sambay, Kv>::create(m, plan.prefix_cache));
        if (counting::works) CHECK(taken.bytes() == plan.prefix_cache);
    }
    p4::draft_options drafts{.most = o.drafts};
    if (o.drafts != 0) drafts.from = *drafter;
    taken.begin();
    const auto text = p4::generation<p4::any_sambay, Kv>::create(m, work, &words, {.sampling = o.sampling, .drafts = drafts},
                                                                 {.prompt = o.context, .drafts = o.drafts});
    REQUIRE(text);
    if (counting::works) CHECK(taken.bytes() == plan.generation);
    // What is refused takes none.
    taken.begin();
    for (const std::int32_t id : {-1, static_cast<std::int32_t>(m.shape().vocab())}) {
        const std::int32_t wrong[] = {3, id};
        const auto none = [](const p4::generation_event&) { return true; };
        CHECK_FALSE(p4::generate(m, past, work, &words, wrong, {.sampling = o.sampling}, none));
    }
    if (counting::works) CHECK(taken.bytes() == 0);

    // A request's set-up is `add`: that is all that a scheduler takes after its own.
    auto scheduled = p4::scheduler<p4::any_sambay, Kv>::create(m, work, &words, {.requests = 1});
    REQUIRE(scheduled);
    const std::vector<std::int32_t> first(5, 3);
    for (int again = 0; again < 2; ++again) {
        taken.begin();
        const auto id = scheduled->add({.past = &past, .prompt = first, .options = {.sampling = o.sampling, .max_tokens = 3, .drafts = drafts}});
        REQUIRE(id);
        if (counting::works)
            CHECK(taken.bytes() == p4::text_writer::bytes(m.shape().vocab(), o.sampling, {.prompt = first.size(), .drafts = o.drafts}));
        taken.begin();
        while (scheduled->size() != 0) {
            REQUIRE(scheduled->tick());
            while (scheduled->next_event()) {}
        }
        if (counting::works) CHECK(taken.bytes() == 0);
        past.reset();
    }
    taken.begin();
    REQUIRE(p4::model<>::bind(files));
    if (counting::works) CHECK(taken.bytes() == plan.parameters);

    // A full session, saved.
    std::vector<std::int32_t> prompt(o.context, 3);
    for (std::size_t at = 0; at < prompt.size(); at += o.chunk)
        REQUIRE(p4::prefill(m, past, work, std::span<const std::int32_t>(prompt).subspan(at, (std::min)(o.chunk, prompt.size() - at))));
    CHECK(p4::snapshot_bytes(past) == plan.snapshot);
}

}  // namespace

TEST_CASE("plan: equals what is taken") {
    const auto files = p4::model_files::open(std::filesystem::path(PHI4FLASH_TEST_MODELS) / "tiny-arithmetic");
    REQUIRE(files);
    const auto m = p4::model<>::bind(*files);
    REQUIRE(m);
    const auto words = files->open_tokenizer();
    REQUIRE(words);
    compare<p4::bf16>(*files, *m, *words, {.context = 64, .remembered = 64, .cached_texts = 2});
    compare<float>(*files, *m, *words,
                   {.context = 200, .undo = 5, .chunk = 32, .states = 6, .logits = 6, .drafts = 5, .remembered = 100, .cached_texts = 1});
    compare<p4::kv_int8>(*files, *m, *words,
                         {.context = 33, .undo = 3, .chunk = 16, .states = 16, .sampling = {.repetition_penalty = 1.1f}, .remembered = 7});

    // Stored as it was released, and converted as the rule says.
    const auto plan = [&](const p4::weight_types& types) {
        return p4::memory_plan::of(files->config().shape, {.context = 64, .weights = types}).weights;
    };
    CHECK(plan(p4::weight_types::all(p4::dtype::bf16)) == files->bytes());
    std::uint64_t converted = 0;
    p4::for_each_tensor(m->shape(), [&](std::string_view name, std::span<const std::size_t> shape, p4::tensor_role role) {
        const p4::tensor_view& t = *files->find(name);
        const p4::dtype type = p4::converted_type({}, name, shape, role, t.type);
        converted += p4::is_packed(type) ? p4::matrix_bytes(type, shape[0], shape[1]) : t.count() * p4::size_of(type);
    });
    CHECK(plan({}) == converted);
}
#endif
