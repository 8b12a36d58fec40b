/// Binding: what a checkpoint may get wrong, each with its own error and a sentence that names the tensor.
#include <phi4flash/model/forward.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace p4 = phi4flash;

namespace {

constexpr p4::sambay_shape tiny{.d_model = 8, .n_layers = 8, .d_ff = 12, .n_heads = 4, .n_kv_heads = 2, .vocab = 11, .window = 3, .d_inner = 16,
                                .d_state = 2, .d_conv = 3, .dt_rank = 2};

/// A host's own table of tensors, all of them f32.
struct table {
    std::map<std::string, std::vector<float>> values;
    std::vector<std::string> names;
    std::vector<p4::tensor_view> views;

    void add(const std::string& name, std::vector<std::size_t> shape, float value = 0.25f) {
        std::size_t count = 1;
        for (const std::size_t n : shape) count *= n;
        values[name].assign(count, value);
        names.push_back(name);
        p4::tensor_view t;
        for (const std::size_t n : shape) t.extent[t.rank++] = n;
        t.bytes = count * sizeof(float);
        views.push_back(t);
        refresh();
    }
    void remove(const std::string& name) {
        const auto at = std::find(names.begin(), names.end(), name) - names.begin();
        names.erase(names.begin() + at);
        views.erase(views.begin() + at);
        refresh();
    }
    void refresh() {
        for (std::size_t i = 0; i < views.size(); ++i) {
            views[i].name = names[i];
            views[i].data = reinterpret_cast<const std::byte*>(values[names[i]].data());
        }
    }
    p4::tensor_view& at(const std::string& name) {
        return views[static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin())];
    }

    [[nodiscard]] const p4::tensor_view* find(std::string_view name) const {
        for (const p4::tensor_view& t : views) {
            if (t.name == name) return &t;
        }
        return nullptr;
    }
    [[nodiscard]] std::span<const p4::tensor_view> tensors() const { return views; }
};

table complete() {
    table t;
    t.add("model.embed_tokens.weight", {11, 8});
    t.add("model.final_layernorm.weight", {8});
    t.add("model.final_layernorm.bias", {8});
    const p4::layer_plan plan(8);
    for (std::size_t layer = 0; layer < 8; ++layer) {
        const std::string p = "model.layers." + std::to_string(layer) + ".";
        for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) {
            t.add(p + norm + ".weight", {8});
            t.add(p + norm + ".bias", {8});
        }
        t.add(p + "mlp.fc1.weight", {24, 8});
        t.add(p + "mlp.fc2.weight", {8, 12});
        const p4::mixer_kind kind = plan.at(layer).kind;
        if (kind == p4::mixer_kind::mamba || kind == p4::mixer_kind::memory_mamba) {
            t.add(p + "attn.in_proj.weight", {32, 8});
            t.add(p + "attn.conv1d.weight", {16, 1, 3});
            t.add(p + "attn.conv1d.bias", {16});
            t.add(p + "attn.x_proj.weight", {6, 16});
            t.add(p + "attn.dt_proj.weight", {16, 2});
            t.add(p + "attn.dt_proj.bias", {16});
            t.add(p + "attn.A_log", {16, 2});
            t.add(p + "attn.D", {16});
            t.add(p + "attn.out_proj.weight", {8, 16});
        } else if (kind == p4::mixer_kind::gated_memory) {
            t.add(p + "attn.in_proj.weight", {16, 8});
            t.add(p + "attn.out_proj.weight", {8, 16});
        } else {
            const std::size_t outputs = kind == p4::mixer_kind::cross_attention ? 8 : 16;
            t.add(p + "attn.Wqkv.weight", {outputs, 8});
            t.add(p + "attn.Wqkv.bias", {outputs});
            t.add(p + "attn.out_proj.weight", {8, 8});
            t.add(p + "attn.out_proj.bias", {8});
            for (const char* lambda : {"q1", "k1", "q2", "k2"}) t.add(p + "attn.inner_cross_attn.lambda_" + lambda, {2});
            t.add(p + "attn.inner_cross_attn.subln.weight", {4});
        }
    }
    return t;
}

p4::sambay_config config() { return {tiny, 1e-5f, 64}; }

p4::error failure_of(const table& t) {
    const auto m = p4::model<>::bind(t, config());
    REQUIRE(!m);
    return m.error();
}

bool says(const p4::error& e, const char* words) {
    const bool found = std::string(e.message()).find(words) != std::string::npos;
    if (!found) MESSAGE(std::string(e.message()) << " does not say: " << std::string(words));
    return found;
}

/// What `tensors` may return.
template <class Tensors>
struct source_of {
    const p4::tensor_view* find(std::string_view) const;
    Tensors tensors() const;
};
static_assert(p4::tensor_source<source_of<std::span<const p4::tensor_view>>>);
static_assert(p4::tensor_source<source_of<const std::vector<p4::tensor_view>&>>);
static_assert(!p4::tensor_source<source_of<std::vector<p4::tensor_view>>>);
static_assert(!p4::tensor_source<source_of<std::array<p4::tensor_view, 2>>>);
static_assert(!p4::tensor_source<source_of<int>>);

std::size_t told = 0;
void tell(std::string_view, std::span<const std::size_t>, p4::tensor_role) { ++told; }

}  // namespace

TEST_CASE("a complete table binds to static and to run-time extents") {
    const table t = complete();
    const auto any = p4::model<>::bind(t, config());
    REQUIRE_MESSAGE(any, any.error().message());
    const auto fixed = p4::model<tiny>::bind(t, config());
    REQUIRE_MESSAGE(fixed, fixed.error().message());
    CHECK(fixed->shape().shape() == any->shape().shape());
    CHECK(any->weights().mambas.size() == 3);
    CHECK(any->weights().crosses.size() == 1);
}

TEST_CASE("a missing tensor is named with the shape it should have") {
    table t = complete();
    t.remove("model.layers.4.attn.A_log");
    const p4::error e = failure_of(t);
    CHECK(e.code() == p4::errc::missing_tensor);
    CHECK(says(e, "model.layers.4.attn.A_log"));
    CHECK(says(e, "[16, 2]"));
}

TEST_CASE("a matrix or a vector that is not aligned for its type is refused") {
    for (const char* const name : {"model.layers.3.mlp.fc1.weight", "model.layers.3.input_layernorm.bias"}) {
        table t = complete();
        t.at(name).data += 2;
        const p4::error e = failure_of(t);
        CHECK(e.code() == p4::errc::offset_misaligned);
        CHECK(says(e, name));
        CHECK(says(e, "a multiple of 4 bytes for F32"));
    }
}

TEST_CASE("a misshaped tensor is named with want and have") {
    table t = complete();
    t.at("model.layers.7.attn.Wqkv.weight").extent[0] = 16;  // as if a cross layer had keys
    const p4::error e = failure_of(t);
    CHECK(e.code() == p4::errc::wrong_shape);
    CHECK(says(e, "model.layers.7.attn.Wqkv.weight"));
    CHECK(says(e, "want shape [8, 8]"));
    CHECK(says(e, "have [16, 8]"));
}

TEST_CASE("a tensor of another rank is misshaped") {
    table t = complete();
    t.at("model.layers.0.attn.conv1d.weight").rank = 2;
    CHECK(failure_of(t).code() == p4::errc::wrong_shape);
}

TEST_CASE("a vector in a packed type, a matrix that cannot be packed and a wrong number of bytes are refused") {
    table vector = complete();
    vector.at("model.layers.0.attn.D").type = p4::dtype::q8;
    CHECK(failure_of(vector).code() == p4::errc::wrong_dtype);
    CHECK(says(failure_of(vector), "model.layers.0.attn.D"));
    table matrix = complete();
    matrix.at("model.layers.3.mlp.fc1.weight").type = p4::dtype::q4;  // [24, 8]: no multiple of 32 columns
    CHECK(failure_of(matrix).code() == p4::errc::wrong_dtype);
    table bytes = complete();
    bytes.at("model.layers.2.attn.A_log").bytes -= 4;
    CHECK(failure_of(bytes).code() == p4::errc::size_mismatch);
    CHECK(says(failure_of(bytes), "want 128 bytes of F32, have 124"));
    table nothing = complete();
    nothing.at("model.final_layernorm.bias").data = nullptr;
    CHECK(failure_of(nothing).code() == p4::errc::size_mismatch);
    CHECK(says(failure_of(nothing), "want 32 bytes of F32, have a null pointer and 32"));
}

TEST_CASE("a host's table with a type or a rank that there is not is refused") {
    for (const char* const name : {"model.layers.0.mlp.fc1.weight", "model.layers.0.attn.D", "model.layers.0.attn.A_log"}) {
        table type = complete();
        type.at(name).type = static_cast<p4::dtype>(77);
        CHECK(failure_of(type).code() == p4::errc::unknown_dtype);
        CHECK(says(failure_of(type), "have number 77"));
        for (const std::size_t rank : {std::size_t{5}, SIZE_MAX}) {
            table many = complete();
            many.at(name).rank = rank;
            CHECK(failure_of(many).code() == p4::errc::rank_too_high);
            CHECK(says(failure_of(many), "want at most 4 extents"));
        }
    }
}

TEST_CASE("a norm_eps that no norm can have is refused") {
    const table t = complete();
    for (const float eps : {0.0f, -1.0f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        const auto m = p4::model<>::bind(t, {tiny, eps, 64});
        REQUIRE(!m);
        CHECK(m.error().code() == p4::errc::invalid_argument);
        CHECK(says(m.error(), "norm_eps: want a positive number"));
    }
}

TEST_CASE("a tensor that the model does not have is named") {
    table t = complete();
    t.add("model.layers.8.mlp.fc1.weight", {24, 8});
    const p4::error e = failure_of(t);
    CHECK(e.code() == p4::errc::unexpected_tensor);
    CHECK(says(e, "model.layers.8.mlp.fc1.weight"));
}

TEST_CASE("a tensor that is listed twice is named, and so is a source that lists fewer than it finds") {
    table t = complete();
    p4::tensor_view again = *t.find("model.layers.3.mlp.fc2.weight");
    t.views.push_back(again);
    const p4::error twice = failure_of(t);
    CHECK(twice.code() == p4::errc::duplicate_name);
    CHECK(says(twice, "'model.layers.3.mlp.fc2.weight' is listed twice"));

    struct finds_more {
        table all;
        [[nodiscard]] const p4::tensor_view* find(std::string_view name) const { return all.find(name); }
        [[nodiscard]] std::span<const p4::tensor_view> tensors() const { return all.tensors().first(3); }
    };
    const auto fewer = p4::model<>::bind(finds_more{complete()}, config());
    REQUIRE(!fewer);
    CHECK(fewer.error().code() == p4::errc::invalid_argument);
    CHECK(says(fewer.error(), "lists 3 tensors, and "));
}

TEST_CASE("a tensor that is found by another's name is refused") {
    struct mixed_up {
        table all;
        const char* asked;
        const char* found;
        [[nodiscard]] const p4::tensor_view* find(std::string_view name) const { return all.find(name == asked ? found : name); }
        [[nodiscard]] std::span<const p4::tensor_view> tensors() const { return all.tensors(); }
    };
    for (const auto& [asked, found] : {std::pair("model.layers.0.attn.D", "model.layers.2.attn.D"),
                                       {"lm_head.weight", "model.embed_tokens.weight"}}) {
        const auto bound = p4::model<>::bind(mixed_up{complete(), asked, found}, config());
        REQUIRE(!bound);
        CHECK(bound.error().code() == p4::errc::invalid_argument);
        CHECK(says(bound.error(), ("tensor " + std::string(asked) + ": the source finds " + found + " by this name").c_str()));
    }

    table nameless = complete();
    for (p4::tensor_view& t : nameless.views) t.name = {};
    struct by_place {
        const table* names;
        const table* nameless;
        [[nodiscard]] const p4::tensor_view* find(std::string_view name) const {
            const p4::tensor_view* const t = names->find(name);
            return t == nullptr ? nullptr : nameless->views.data() + (t - names->views.data());
        }
        [[nodiscard]] std::span<const p4::tensor_view> tensors() const { return nameless->tensors(); }
    };
    const table named = complete();
    CHECK(p4::model<>::bind(by_place{&named, &nameless}, config()));
    nameless.views.emplace_back();
    const auto one_more = p4::model<>::bind(by_place{&named, &nameless}, config());
    REQUIRE(!one_more);
    CHECK(says(one_more.error(), ("the source lists " + std::to_string(named.views.size() + 1) + " tensors").c_str()));
}

TEST_CASE("a name that is not plain is told plainly, and what there is instead is told") {
    table t;
    t.add("embed\x1b[2J\xff.weight", {11, 8});
    const p4::error missing = failure_of(t);
    CHECK(missing.code() == p4::errc::missing_tensor);
    CHECK(says(missing, "model.embed_tokens.weight is missing: want [11, 8]; the first of the 1 tensors that there are is embed?[2J?.weight"));
    CHECK(says(failure_of(table{}), "is missing: want [11, 8]"));
    table more = complete();
    more.add(std::string(300, 'n'), {8});
    CHECK(says(failure_of(more), ("'" + std::string(117, 'n') + "...' is not part").c_str()));
}

TEST_CASE("an lm_head is accepted only where it equals the embedding") {
    table t = complete();
    t.add("lm_head.weight", {11, 8});
    CHECK(p4::model<>::bind(t, config()));
    t.values["lm_head.weight"][87] = 0.5f;
    const p4::error e = failure_of(t);
    CHECK(e.code() == p4::errc::untied_embedding);
    CHECK(says(e, "lm_head.weight"));
}

TEST_CASE("a model type refuses a configuration of another shape") {
    p4::sambay_config other = config();
    other.shape.d_ff = 16;
    const auto m = p4::model<tiny>::bind(complete(), other);
    REQUIRE(!m);
    CHECK(m.error().code() == p4::errc::bad_extent);
    CHECK(says(m.error(), "d_ff"));
    CHECK(says(m.error(), "12"));
    CHECK(says(m.error(), "16"));
}

TEST_CASE("sessions and workspaces take the caller's memory, of the size they name") {
    const table t = complete();
    const auto m = p4::model<>::bind(t, config());
    REQUIRE(m);
    using session = p4::session<p4::any_sambay, float>;
    using workspace = p4::workspace<p4::any_sambay, float>;
    auto memory = p4::memory_block::allocate(session::bytes(*m, 10) + workspace::bytes(*m, 4), "test");
    REQUIRE(memory);
    const std::size_t split = session::bytes(*m, 10);
    CHECK(split % p4::block_alignment == 0);
    auto s = session::create_in(memory->bytes().first(split), *m, 10);
    auto w = workspace::create_in(memory->bytes().subspan(split), *m, {.chunk = 4, .kernels = nullptr, .threads = {}});
    REQUIRE(s);
    REQUIRE(w);
    const auto logits = p4::step(*m, *s, *w, 3);
    REQUIRE(logits);
    CHECK(logits->size() == 11);
    CHECK(!session::create_in(memory->bytes().first(split - 1), *m, 10));
    CHECK(!session::create_in(memory->bytes().subspan(1), *m, 10));
    CHECK(!session::create(*m, 0));
    CHECK(!workspace::create(*m, {.chunk = 0, .kernels = nullptr, .threads = {}}));
}

TEST_CASE("a refused call leaves the session as it was") {
    const table t = complete();
    const auto m = p4::model<>::bind(t, config());
    auto s = p4::session<>::create(*m, 3);
    auto w = p4::workspace<>::create(*m);
    REQUIRE(p4::step(*m, *s, *w, 1));
    const auto bad = p4::step(*m, *s, *w, 11);
    REQUIRE(!bad);
    CHECK(bad.error().code() == p4::errc::unknown_token);
    CHECK(says(bad.error(), "0 to 10"));
    const std::int32_t three[] = {1, 2, 3};
    const auto full = p4::prefill(*m, *s, *w, three);
    REQUIRE(!full);
    CHECK(full.error().code() == p4::errc::context_full);
    CHECK(p4::prefill(*m, *s, *w, std::span<const std::int32_t>{}).error().code() == p4::errc::invalid_argument);
    CHECK(s->position() == 1);
    CHECK(p4::prefill(*m, *s, *w, std::span<const std::int32_t>(three, 2)));
    CHECK(s->position() == 3);
}

TEST_CASE("a prompt can be cancelled between chunks and says how far it came") {
    const table t = complete();
    const auto m = p4::model<>::bind(t, config());
    auto s = p4::session<>::create(*m, 10);
    auto w = p4::workspace<>::create(*m, {.chunk = 2, .kernels = nullptr, .threads = {}});
    const std::int32_t tokens[] = {1, 2, 3, 4, 5, 6};
    const auto stopped = p4::prefill(*m, *s, *w, tokens, [](std::size_t read, std::size_t total) {
        CHECK(total == 6);
        return read < 4;
    });
    REQUIRE(!stopped);
    CHECK(stopped.error().code() == p4::errc::cancelled);
    CHECK(s->position() == 4);
}

TEST_CASE("a reset session answers like a new one") {
    const table t = complete();
    const auto m = p4::model<>::bind(t, config());
    auto s = p4::session<>::create(*m, 10);
    auto w = p4::workspace<>::create(*m);
    const auto first = p4::step(*m, *s, *w, 2);
    const std::vector<float> before(first->begin(), first->end());
    REQUIRE(p4::step(*m, *s, *w, 5));
    s->reset();
    const auto again = p4::step(*m, *s, *w, 2);
    CHECK(std::equal(again->begin(), again->end(), before.begin()));
}

TEST_CASE("parameters are counted by the shape: the released model's, a small one's, none of a shape that is not whole") {
    CHECK(p4::parameter_count(p4::phi4_mini_flash) == 3852562944u);
    const table t = complete();
    std::uint64_t numbers = 0;
    for (const p4::tensor_view& tensor : t.views) numbers += tensor.count();
    CHECK(p4::parameter_count(tiny) == numbers);
    CHECK(p4::parameter_count(p4::any_sambay) == 0);
}

TEST_CASE("tensors are told to plain functions too") {
    told = 0;
    p4::for_each_tensor(*p4::extents<p4::any_sambay>::from(tiny), tell);
    std::size_t listed = 0;
    p4::for_each_tensor(p4::extents<tiny>(), [&](std::string_view, std::span<const std::size_t>, p4::tensor_role) { ++listed; });
    CHECK(told > 50);
    CHECK(told == listed);
}
