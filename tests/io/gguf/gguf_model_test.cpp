/// The packed model file: everything that is written comes back, and a file that is not what it says is refused by key or name.
#include "io/gguf/gguf_testing.hpp"

#include <phi4flash/core/packing.hpp>
#include <phi4flash/io/packed/model_writer.hpp>
#include <phi4flash/model/model.hpp>
#include <phi4flash/model/tensor_list.hpp>

#include <cmath>
#include <functional>

using namespace phi4flash;
using namespace io_testing;
using namespace gguf_testing;

static_assert(tensor_source<packed_model>);

namespace {
constexpr sambay_shape shape = small_shape;

packed_model_info info_of(const packed_tokenizer* t) {
    packed_model_info info{
        .name = "small", .config = {.shape = shape, .norm_eps = 1e-6f, .max_positions = 100}, .generation = {}, .tokenizer = t};
    info.generation.stop_ids = {270, 3};
    info.generation.bos_id = 1;
    info.generation.do_sample = true;
    info.generation.temperature = 0.625f;
    info.generation.top_p = 0.95f;
    info.generation.max_new_tokens = 32768;
    info.generation.stop_strings = {"END", "<|end|>"};
    info.generation.unsupported = {"num_beams"};
    return info;
}

/// Every tensor of the model; matrices take turns between the packed types, where they can be packed.
std::vector<packed_tensor> tensor_list() {
    std::vector<packed_tensor> list;
    auto e = extents<any_sambay>::from(shape);
    require_value(e);
    for_each_tensor(*e, [&](std::string_view name, std::span<const std::size_t> extent, tensor_role role) {
        dtype type = list.size() % 2 == 0 ? dtype::bf16 : dtype::f32;
        if (role == tensor_role::matrix && is_packable(extent[0], extent[1])) type = static_cast<dtype>(list.size() % dtype_count);
        list.push_back({std::string(name), type, {extent.begin(), extent.end()}});
    });
    return list;
}

std::size_t count_of(const packed_tensor& t) {
    std::size_t n = 1;
    for (const std::size_t extent : t.shape) n *= extent;
    return n;
}

/// The numbers of tensor i, as f32.
std::vector<float> numbers_of(std::size_t i, std::size_t n) {
    std::vector<float> x(n);
    for (std::size_t k = 0; k < n; ++k) x[k] = static_cast<float>(std::sin(static_cast<double>(k * 7 + i * 3)));
    return x;
}

std::size_t bytes_of(const packed_tensor& t) {
    return is_packed(t.type) ? matrix_bytes(t.type, t.shape[0], t.shape[1]) : count_of(t) * size_of(t.type);
}

bytes content_of(const packed_tensor& t, std::size_t i) {
    const auto x = numbers_of(i, count_of(t));
    bytes out(bytes_of(t));
    if (is_packed(t.type)) {
        const std::size_t cols = t.shape[1];
        const matrix_view m{reinterpret_cast<const std::byte*>(x.data()), t.shape[0], cols, dtype::f32};
        std::vector<float> scratch(packed_rows * cols);
        for (std::size_t r = 0; r < t.shape[0]; r += packed_rows)
            pack_eight_rows(m, r, t.type, scratch.data(), out.data() + matrix_bytes(t.type, r, cols));
        return out;
    }
    for (std::size_t k = 0; k < x.size(); ++k) {
        const bf16 narrow = to_bf16(x[k]);
        const f16 half = to_f16(x[k]);
        if (t.type == dtype::f32)
            std::memcpy(out.data() + 4 * k, &x[k], 4);
        else
            std::memcpy(out.data() + 2 * k, t.type == dtype::bf16 ? static_cast<const void*>(&narrow) : &half, 2);
    }
    return out;
}

bytes write_model(const packed_model_info& info, const std::vector<packed_tensor>& list) {
    memory_file out;
    const auto written = write_packed_model(out, info, list, [&](std::size_t i, gguf_sink& sink) {
        const bytes content = content_of(list[i], i);
        const auto half = std::span(content).first(content.size() / 2);
        if (const status ok = sink.write(half); !ok) return ok;
        return sink.write(std::span(content).subspan(half.size()));
    });
    require_value(written);
    return std::move(out.content);
}

/// A packed file with other metadata, and an embedding of the given type and rows.
result<packed_model> open_with(const std::function<void(gguf_metadata&)>& edit, ggml_type type = ggml_type::q8_0,
                               std::size_t rows = 280, bool with_layout = true, std::string_view without = {}) {
    static memory_file out;
    out = {};
    gguf_metadata metadata;
    const auto info = info_of(nullptr);
    if (without != "general.architecture") metadata.add("general.architecture", packed_architecture);
    for (const auto& [key, extent] : detail::packed_extents)
        if (without != key) metadata.add(key, static_cast<std::uint32_t>(info.config.shape.*extent));
    if (without != detail::packed_eps_key) metadata.add(detail::packed_eps_key, 1e-5f);
    const auto book = detail::packed_codebook();
    if (with_layout) {
        metadata.add("phi4flash.layout", "rows8");
        metadata.add_list("phi4flash.codebook", std::span<const std::int32_t>(book));
    }
    if (edit) edit(metadata);
    const std::vector<gguf_spec> specs = {{"w", type, {rows, 256}}};
    const auto plan = plan_gguf(metadata, specs);
    require_value(plan);
    require_value(write_gguf(out, *plan, specs, [&](std::size_t, gguf_sink& sink) {
        return sink.write(bytes(static_cast<std::size_t>(plan->bytes[0])));
    }));
    return packed_model::from_memory(out.content);
}
}  // namespace

TEST_CASE("io/gguf_model: everything comes back") {
    const auto list = tensor_list();
    const tokenizer text = small_tokenizer();
    const packed_tokenizer described = *describe_tokenizer(text, shape.vocab);
    const packed_model_info info = info_of(&described);
    const bytes file = write_model(info, list);
    auto opened = packed_model::from_memory(file);
    require_value(opened);
    const packed_model model = *std::move(opened);

    CHECK(model.name() == "small");
    CHECK(model.chat_template() == default_chat_template);
    CHECK(model.config().shape == shape);
    CHECK(model.config().norm_eps == 1e-6f);
    CHECK(model.config().max_positions == 100);
    CHECK(model.generation().stop_ids == std::vector<std::uint32_t>{270, 3});
    CHECK(model.generation().bos_id == 1u);
    CHECK_FALSE(model.generation().pad_id.has_value());
    CHECK(model.generation().do_sample == true);
    CHECK(model.generation().temperature == 0.625f);
    CHECK(model.generation().top_p == 0.95f);
    CHECK_FALSE(model.generation().min_p.has_value());
    CHECK(model.generation().max_new_tokens == 32768u);
    CHECK(model.generation().stop_strings == std::vector<std::string>{"END", "<|end|>"});
    CHECK(model.generation().unsupported == std::vector<std::string>{"num_beams"});
    CHECK(model.is_packed_layout());
    CHECK_FALSE(model.needs_repacking());
    CHECK(model.check_scales().has_value());

    REQUIRE(model.tensors().size() == list.size());
    bool seen[dtype_count] = {};
    for (std::size_t i = 0; i < list.size(); ++i) {
        CAPTURE(list[i].name);
        const tensor_view* const t = model.find(list[i].name);
        REQUIRE(t != nullptr);
        CHECK(t->type == list[i].type);
        CHECK(std::vector<std::size_t>(t->shape().begin(), t->shape().end()) == list[i].shape);
        const bytes want = content_of(list[i], i);
        REQUIRE(t->bytes == want.size());
        CHECK(std::memcmp(t->data, want.data(), want.size()) == 0);
        seen[static_cast<std::size_t>(t->type)] = true;
    }
    for (const bool one : seen) CHECK(one);
    std::uint64_t numbers = 0;
    for (const tensor_view& t : model.tensors()) numbers += t.count();  // of packed ones too
    CHECK(numbers == parameter_count(shape));

    // The model finds what it wants, and nothing else is there.
    const auto bound = phi4flash::model<>::bind(model);
    require_value(bound);
    CHECK(bound->weights().embedding.rows == shape.vocab);
}

TEST_CASE("io/gguf_model: keys that are missing or wrong") {
    require_value(open_with({}));
    for (const auto& [key, extent] : detail::packed_extents) {
        CAPTURE(key);
        check_error(open_with({}, ggml_type::q8_0, 280, true, key), errc::missing_key, {key});
        for (const std::uint32_t bad : {0u, 0x7fffffffu})
            check_error(open_with([&, k = key](gguf_metadata& m) { m.add(k, bad); }, ggml_type::q8_0, 280, true, key),
                        errc::bad_extent, {key});
        check_error(open_with([k = key](gguf_metadata& m) { m.add(k, 1.0f); }, ggml_type::q8_0, 280, true, key),
                    errc::wrong_value_type, {key, "have f32"});
    }
    const auto with = [](const char* key, auto value) {
        return open_with([=](gguf_metadata& m) { m.add(key, value); }, ggml_type::q8_0, 280, true, key);
    };
    check_error(open_with({}, ggml_type::q8_0, 280, true, "general.architecture"), errc::missing_key, {"general.architecture"});
    check_error(with("general.architecture", "llama"), errc::unsupported_model, {"want 'phi4flash'", "'llama'"});
    check_error(with("general.architecture", 3), errc::wrong_value_type, {"general.architecture", "want string", "have i32"});
    check_error(open_with({}, ggml_type::q8_0, 280, true, detail::packed_eps_key), errc::missing_key, {detail::packed_eps_key});
    check_error(with(detail::packed_eps_key, 0.0f), errc::bad_value, {detail::packed_eps_key, "positive"});
    check_error(with(detail::packed_eps_key, std::nanf("")), errc::not_finite, {detail::packed_eps_key});
    check_error(with(detail::packed_eps_key, 1e300), errc::not_finite, {detail::packed_eps_key});
    check_error(with("phi4flash.block_count", 6), errc::bad_extent, {"n_layers", "multiple of 4"});
    check_error(with("tokenizer.ggml.eos_token_id", 280), errc::unknown_token, {"key 'tokenizer.ggml.eos_token_id'", "280"});
    check_error(with("phi4flash.generation.do_sample", 1), errc::wrong_value_type, {"do_sample", "want boolean"});
    check_error(with("phi4flash.generation.top_k", std::int64_t{-1}), errc::wrong_value_type, {"top_k"});
    check_error(with("phi4flash.generation.stop_ids", 7), errc::wrong_value_type, {"stop_ids", "list of u32", "have i32"});
    const auto lone_eos = with("tokenizer.ggml.eos_token_id", 7);
    require_value(lone_eos);
    CHECK(lone_eos->generation().stop_ids == std::vector<std::uint32_t>{7});
    CHECK(lone_eos->generation().stop_strings.empty());
    check_error(with("phi4flash.generation.stop_strings", 7), errc::wrong_value_type, {"stop_strings", "list of strings"});
    const auto two_ends = open_with([](gguf_metadata& m) {
        m.add("tokenizer.ggml.eos_token_id", 7);
        m.add("tokenizer.ggml.eot_token_id", std::uint32_t{8});
        m.add("tokenizer.ggml.padding_token_id", -1);  // nothing depends on it
    });
    require_value(two_ends);
    CHECK(two_ends->generation().stop_ids == std::vector<std::uint32_t>{7, 8});
    CHECK_FALSE(two_ends->generation().pad_id.has_value());
}

TEST_CASE("io/gguf_model: keys that cannot change the model are ignored, those that could are compared, unknown ones refused") {
    const auto with = [](const char* key, auto value) {
        return open_with([=](gguf_metadata& m) { m.add(key, value); });
    };
    for (const char* key : {"general.something", "tokenizer.ggml.something", "phi4flash.rope.freq_base", "phi4flash.generation.of_tomorrow",
                            "phi4flash.tokenizer.of_tomorrow", "quantize.imatrix.file"}) {
        CAPTURE(key);
        require_value(with(key, 3));
        require_value(with(key, "text"));
    }
    const auto d_head = static_cast<std::uint32_t>(shape.d_model / shape.n_heads);
    require_value(with("phi4flash.attention.key_length", d_head));
    check_error(with("phi4flash.attention.key_length", d_head + 1), errc::unsupported_model, {"attention.key_length", "want "});
    check_error(with("phi4flash.attention.value_length", "text"), errc::unsupported_model, {"attention.value_length"});
    require_value(with("phi4flash.attention.causal", true));
    check_error(with("phi4flash.attention.causal", false), errc::unsupported_model, {"attention.causal", "want true"});
    require_value(with("phi4flash.expert_count", std::uint32_t{0}));
    check_error(with("phi4flash.expert_count", std::uint32_t{8}), errc::unsupported_model, {"expert_count", "want 0"});
    check_error(with("phi4flash.logit_scale", 2.0f), errc::unknown_key, {"phi4flash.logit_scale", "--ignore-unknown-keys"});
    const temporary_folder folder;
    const auto path = folder.path() / "x.gguf";
    gguf_metadata metadata = detail::describe_model(info_of(nullptr), {});
    metadata.add("phi4flash.logit_scale", 2.0f);
    const std::vector<gguf_spec> none;
    memory_file out;
    const auto plan = plan_gguf(metadata, none);
    require_value(plan);
    require_value(write_gguf(out, *plan, none, [](std::size_t, gguf_sink&) -> status { return {}; }));
    check_error(packed_model::from_memory(out.content), errc::unknown_key);
    require_value(packed_model::from_memory(out.content, {.ignore_unknown_keys = true}));
    folder.write("x.gguf", text_of(out.content));
    check_error(packed_model::open(path), errc::unknown_key, {"x.gguf"});
    require_value(packed_model::open(path, {}, {.ignore_unknown_keys = true}));
}

TEST_CASE("io/gguf_model: layouts and types") {
    const auto unlaid = [](const std::function<void(gguf_metadata&)>& edit, ggml_type type = ggml_type::q8_0) {
        return open_with(edit, type, 280, false);
    };
    check_error(unlaid([](gguf_metadata& m) { m.add("phi4flash.layout", "rows16"); }), errc::unsupported_layout, {"rows16"});
    check_error(unlaid([](gguf_metadata& m) { m.add("phi4flash.layout", 8); }), errc::wrong_value_type, {"phi4flash.layout"});
    check_error(unlaid([](gguf_metadata& m) { m.add("phi4flash.layout", "rows8"); }), errc::missing_key, {"phi4flash.codebook"});
    auto book = detail::packed_codebook();
    book[3] += 1;
    check_error(unlaid([&](gguf_metadata& m) {
                    m.add("phi4flash.layout", "rows8");
                    m.add_list("phi4flash.codebook", std::span<const std::int32_t>(book));
                }),
                errc::unsupported_layout, {"phi4flash.codebook", "a list of 17 i32"});
    check_error(unlaid([](gguf_metadata& m) {
                    m.add("phi4flash.layout", "rows8");
                    m.add("phi4flash.codebook", 17);
                }),
                errc::unsupported_layout, {"phi4flash.codebook", "have i32"});
    check_error(open_with({}, ggml_type::q8_0, 281), errc::wrong_shape, {"'w'", "281 rows"});
    check_error(open_with({}, ggml_type::q4_k), errc::wrong_dtype, {"'w'", "Q4_K", "IQ4_NL"});
    check_error(open_with({}, static_cast<ggml_type>(22)), errc::wrong_dtype, {"'w'", "IQ2_S"});

    for (const ggml_type type : {ggml_type::q4_0, ggml_type::q8_0, ggml_type::q4_k, ggml_type::q6_k, ggml_type::iq4_nl}) {
        const auto row_major = unlaid({}, type);
        require_value(row_major);
        CHECK_FALSE(row_major->is_packed_layout());
        CHECK(row_major->needs_repacking());
        CHECK(row_major->tensors().empty());
        CHECK(row_major->file().tensors().size() == 1);
        CHECK(row_major->check_scales().has_value());
    }
    const auto plain = unlaid({}, ggml_type::bf16);
    require_value(plain);
    CHECK_FALSE(plain->needs_repacking());
    CHECK(plain->tensors().size() == 1);
    check_error(unlaid({}, static_cast<ggml_type>(22)), errc::wrong_dtype, {"'w'", "IQ2_S"});
    check_error(unlaid({}, ggml_type::i32), errc::wrong_dtype, {"'w'", "I32"});
}

TEST_CASE("io/gguf_model: what the writer refuses, and files") {
    const temporary_folder folder;
    const auto path = folder.path() / "x.gguf";
    const auto nothing = [](std::size_t, gguf_sink&) -> status { return {}; };
    const auto refuse = [&](const packed_tensor& t) { return write_packed_model(path, info_of(nullptr), std::vector{t}, nothing); };
    check_error(refuse({"w", dtype::q4, {12, 32}}), errc::wrong_shape, {"'w'", "Q4"});
    check_error(refuse({"w", dtype::q8, {64}}), errc::wrong_shape, {"'w'", "Q8"});
    check_error(refuse({"phi4flash.tokenizer.w", dtype::f32, {1}}), errc::invalid_argument, {"prefix"});
    check_error(refuse({"w", dtype::f32, {1}}), errc::size_mismatch, {"'w'"});
    auto info = info_of(nullptr);
    info.config.shape.d_ff = dynamic;
    check_error(write_packed_model(path, info, std::vector<packed_tensor>{}, nothing), errc::bad_extent, {"d_ff"});
    CHECK(std::filesystem::is_empty(folder.path()));

    require_value(write_packed_model(path, info_of(nullptr), std::vector<packed_tensor>{{"w", dtype::f32, {1}}},
                                     [](std::size_t, gguf_sink& sink) {
                                         const float one = 1.0f;
                                         return sink.write(std::span(&one, 1));
                                     }));
    auto model = packed_model::open(path);
    require_value(model);
    const packed_model moved = *std::move(model);
    CHECK(moved.tensors().size() == 1);
    CHECK(*reinterpret_cast<const float*>(moved.find("w")->data) == 1.0f);
    moved.release_pages();
    check_error(packed_model::open(folder.path() / "no.gguf"), errc::file_not_found, {"no.gguf"});
    check_error(packed_model::open(folder.write("bad.gguf", "not a model")), errc::wrong_file_kind, {"bad.gguf"});
}

TEST_CASE("io/gguf_model: a sample for other readers") {
    // tests/io/gguf/gguf_python_test.py names the file and reads it with the gguf package.
    const char* const path = std::getenv("PHI4FLASH_SAMPLE_GGUF");
    if (path == nullptr) {
        MESSAGE("skipped: PHI4FLASH_SAMPLE_GGUF is not set");
        return;
    }
    const tokenizer text = small_tokenizer();
    const packed_tokenizer described = *describe_tokenizer(text, shape.vocab);
    const auto list = tensor_list();
    require_value(write_packed_model(std::filesystem::path(path), info_of(&described), list, [&](std::size_t i, gguf_sink& sink) {
        return sink.write(content_of(list[i], i));
    }));
}

TEST_CASE("io/gguf_model: damaged metadata never reads out of bounds") {
    const tokenizer text = small_tokenizer();
    const packed_tokenizer described = *describe_tokenizer(text, shape.vocab);
    const std::vector<packed_tensor> list = {{"w", dtype::q8, {8, 32}}, {"v", dtype::f32, {3}}};
    const bytes valid = write_model(info_of(&described), list);
    std::mt19937 random(20250611);
    std::size_t accepted = 0;
    for (int i = 0; i < 1500; ++i) {
        bytes changed = valid;
        for (int k = 0; k < 2; ++k) changed[random() % changed.size()] = static_cast<std::byte>(random());
        const auto model = packed_model::from_memory(changed);
        if (!model) continue;
        CHECK(check_shape(model->config().shape).has_value());
        if (read_tokenizer(*model)) ++accepted;
        (void)model->check_scales();
    }
    CHECK(accepted > 0);
}
