/// Row-major files, repacked: every number against decode_ggml of the file, ragged shapes, damage, and a whole model.
#include "io/gguf/gguf_testing.hpp"
#include "support/test_support.hpp"

#include <phi4flash/core/thread_pool.hpp>
#include <phi4flash/io/packed/repack.hpp>
#include <phi4flash/model/model.hpp>

#include <cmath>
#include <functional>

using namespace phi4flash;
using namespace io_testing;
using namespace gguf_testing;

static_assert(tensor_source<repacked_model>);

namespace {
constexpr sambay_shape repacked_shape{.d_model = 256,
                                      .n_layers = 4,
                                      .d_ff = 256,
                                      .n_heads = 4,
                                      .n_kv_heads = 2,
                                      .vocab = 40,
                                      .window = 5,
                                      .d_inner = 512,
                                      .d_state = 32,
                                      .d_conv = 4,
                                      .dt_rank = 32};
constexpr ggml_type quantized[] = {ggml_type::q8_0, ggml_type::q4_0, ggml_type::iq4_nl, ggml_type::q4_k, ggml_type::q6_k};

bool is_k(ggml_type type) { return type == ggml_type::q4_k || type == ggml_type::q6_k; }
dtype packed_as(ggml_type type) { return type == ggml_type::q4_0 ? dtype::q4 : dtype::q8; }

/// Any codes, and scales of the size that trained weights have; among Q8_0's codes is -128.
bytes blocks_of(const gguf_spec& spec, std::size_t n_bytes, std::uint64_t seed) {
    const ggml_format& format = format_of(spec.type);
    phi4flash_test::generator random(seed);
    bytes out(n_bytes);
    for (std::byte& b : out) b = static_cast<std::byte>(random.next());
    for (std::size_t at = 0; at + format.block_bytes <= n_bytes; at += format.block_bytes) {
        for (std::size_t i = 0; i < format.n_scales; ++i) {
            const f16 scale = to_f16(random.uniform(-0.01f, 0.01f));
            std::memcpy(out.data() + at + format.scale_offset + 2 * i, &scale, 2);
        }
        const float number = random.uniform(-1.0f, 1.0f);
        const bf16 half = to_bf16(number);
        if (spec.type == ggml_type::f32) std::memcpy(out.data() + at, &number, 4);
        if (spec.type == ggml_type::bf16) std::memcpy(out.data() + at, &half, 2);
    }
    return out;
}

using edit_function = std::function<void(std::size_t, bytes&)>;

/// A file of these tensors; `edit` may change the data of one.
bytes write_file(const std::vector<gguf_spec>& specs, const edit_function& edit = {}) {
    gguf_metadata metadata;
    metadata.add("general.architecture", packed_architecture);
    detail::add_config(metadata, {.shape = repacked_shape, .norm_eps = 1e-5f, .max_positions = 100});
    memory_file out;
    const auto plan = plan_gguf(metadata, specs);
    require_value(plan);
    require_value(write_gguf(out, *plan, specs, [&](std::size_t i, gguf_sink& sink) {
        bytes data = blocks_of(specs[i], static_cast<std::size_t>(plan->bytes[i]), i + 1);
        if (edit) edit(i, data);
        return sink.write(data);
    }));
    return std::move(out.content);
}

std::vector<float> decoded(const packed_model& file, std::string_view name) {
    const gguf_tensor* const t = file.file().tensor(name);
    REQUIRE(t != nullptr);
    std::vector<float> w(t->count());
    REQUIRE(decode_ggml(t->format->type, t->data, w.size(), w.data()));
    return w;
}

std::vector<float> widened(const kernel_table& kernels, const tensor_view& t) {
    std::vector<float> w(t.extent[0] * t.extent[1]);
    for (std::size_t r = 0; r < t.extent[0]; ++r)
        kernels.linear[static_cast<std::size_t>(t.type)].widen(t.data, r, t.extent[1], w.data() + r * t.extent[1]);
    return w;
}

/// The error of repacking a file with one tensor 'w'.
result<repacked_model> repack(const gguf_spec& spec, const edit_function& edit = {}) {
    const bytes file = write_file({spec}, edit);
    const auto model = packed_model::from_memory(file);
    require_value(model);
    return repacked_model::create(*model);
}

/// Every tensor of a model; matrices take turns between the quantized types.
std::vector<gguf_spec> model_specs() {
    std::vector<gguf_spec> specs;
    const auto e = extents<any_sambay>::from(repacked_shape);
    require_value(e);
    for_each_tensor(*e, [&](std::string_view name, std::span<const std::size_t> extent, tensor_role role) {
        ggml_type type = ggml_type::f32;
        if (role == tensor_role::matrix) type = extent[1] % 256 == 0 ? quantized[specs.size() % 5] : ggml_type::q8_0;
        if (name.ends_with("A_log")) type = ggml_type::q8_0;
        specs.push_back({std::string(name), type, {extent.begin(), extent.end()}});
    });
    return specs;
}
}  // namespace

TEST_CASE("io/repack: Q8_0, Q4_0 and IQ4_NL keep every bit") {
    for (const ggml_type type : {ggml_type::q8_0, ggml_type::q4_0, ggml_type::iq4_nl}) {
        for (const std::size_t cols : {32u, 96u, 544u}) {
            CAPTURE(format_of(type).name);
            CAPTURE(cols);
            const bytes file = write_file({{"w", type, {24, cols}}});
            const auto model = packed_model::from_memory(file);
            require_value(model);
            const auto repacked = repacked_model::create(*model);
            require_value(repacked);
            REQUIRE(repacked->tensors().size() == 1);
            const tensor_view& t = *repacked->find("w");
            CHECK(t.type == packed_as(type));
            CHECK(t.bytes == matrix_bytes(t.type, 24, cols));
            CHECK(reinterpret_cast<std::uintptr_t>(t.data) % block_alignment == 0);
            const std::vector<float> want = decoded(*model, "w");
            phi4flash_test::for_each_target([&](const kernel_table& kernels) {
                const std::vector<float> have = widened(kernels, t);
                CHECK(phi4flash_test::same_bits(have.data(), want.data(), want.size()));
            });
        }
    }
}

TEST_CASE("io/repack: Q4_K and Q6_K are rounded to 8 bits") {
    for (const ggml_type type : {ggml_type::q4_k, ggml_type::q6_k}) {
        CAPTURE(format_of(type).name);
        const bytes file = write_file({{"w", type, {16, 768}}});
        const auto model = packed_model::from_memory(file);
        require_value(model);
        const auto repacked = repacked_model::create(*model);
        require_value(repacked);
        CHECK(repacked->find("w")->type == dtype::q8);
        const std::vector<float> want = decoded(*model, "w");
        const std::vector<float> have = widened(best_kernels(), *repacked->find("w"));
        double square = 0.0;
        double lost = 0.0;
        for (std::size_t g = 0; g < want.size(); g += 32) {
            float most = 0.0f;
            for (std::size_t i = g; i < g + 32; ++i) most = std::max(most, std::fabs(want[i]));
            REQUIRE(most > 0.0f);
            for (std::size_t i = g; i < g + 32; ++i) {
                const double error = std::fabs(static_cast<double>(have[i]) - static_cast<double>(want[i]));
                CHECK(error <= static_cast<double>(most) / 254.0 * 1.001 + 0x1p-18);
                lost += error * error;
                square += static_cast<double>(want[i]) * static_cast<double>(want[i]);
            }
        }
        CHECK(std::sqrt(lost / square) < 0.006);
        CHECK(lost > 0.0);
    }
}

TEST_CASE("io/repack: what packed rows cannot hold becomes f32, without a loss") {
    const std::string log_name = "model.layers.0.attn.A_log";
    for (const ggml_type type : quantized) {
        CAPTURE(format_of(type).name);
        const std::size_t cols = 512;
        const std::vector<gguf_spec> specs = {
            {"ragged", type, {12, cols}}, {"vector", type, {cols}},       {"cube", type, {8, 2, cols}}, {log_name, type, {8, cols}},
            {"empty", type, {0, cols}},   {"plain", ggml_type::f32, {7}}, {"matrix", type, {8, cols}}};
        const bytes file = write_file(specs);
        const auto model = packed_model::from_memory(file);
        require_value(model);
        const auto repacked = repacked_model::create(*model);
        require_value(repacked);
        REQUIRE(repacked->tensors().size() == specs.size());
        std::size_t bytes_owned = 0;
        for (const gguf_spec& spec : specs) {
            CAPTURE(spec.name);
            const tensor_view* const t = repacked->find(spec.name);
            REQUIRE(t != nullptr);
            CHECK(std::vector<std::size_t>(t->shape().begin(), t->shape().end()) == spec.shape);
            if (spec.name == "plain") {
                CHECK(t->data == model->find("plain")->data);
                continue;
            }
            bytes_owned += round_up(t->bytes, block_alignment);
            if (spec.name == "matrix" || spec.name == "empty") {
                CHECK(t->type == packed_as(type));
                continue;
            }
            CHECK(t->type == dtype::f32);
            const std::vector<float> want = decoded(*model, spec.name);
            REQUIRE(t->bytes == 4 * want.size());
            CHECK(std::memcmp(t->data, want.data(), t->bytes) == 0);
        }
        CHECK(repacked->owned_bytes() == bytes_owned);
        CHECK(*repacked_model::bytes_needed(*model) == bytes_owned);
        CHECK(repacked->find("absent") == nullptr);
    }
}

TEST_CASE("io/repack: files that need nothing take no memory") {
    const bytes file = write_file({{"w", ggml_type::bf16, {8, 32}}, {"v", ggml_type::f32, {3}}});
    const auto model = packed_model::from_memory(file);
    require_value(model);
    bool called = false;
    const auto repacked = repacked_model::create(*model, {}, [&](std::uint64_t, std::uint64_t) { return called = true; });
    require_value(repacked);
    CHECK_FALSE(called);
    CHECK(repacked->owned_bytes() == 0);
    REQUIRE(repacked->tensors().size() == 2);
    CHECK(repacked->find("w")->data == model->find("w")->data);
}

TEST_CASE("io/repack: a whole model, with the same bits for any number of threads") {
    const std::vector<gguf_spec> specs = model_specs();
    const bytes file = write_file(specs);
    const auto opened = packed_model::from_memory(file);
    require_value(opened);
    CHECK(opened->needs_repacking());
    std::uint64_t last = 0;
    std::uint64_t total = 0;
    auto created = repacked_model::create(*opened, {}, [&](std::uint64_t done, std::uint64_t all) {
        CHECK(done > last);
        last = done;
        total = all;
        return true;
    });
    require_value(created);
    CHECK(last == total);
    CHECK(total > 0);
    const repacked_model one = *std::move(created);
    const auto bound = model<>::bind(one);
    require_value(bound);
    CHECK(bound->weights().embedding.type == packed_as(specs[0].type));
    std::uint64_t numbers = 0;
    for (const tensor_view& t : one.tensors()) numbers += t.count();
    CHECK(numbers == parameter_count(repacked_shape));

    for (const std::size_t threads : {2u, 3u}) {
        auto pool = thread_pool::create(threads);
        require_value(pool);
        const auto many = repacked_model::create(*opened, {.executor = *pool});
        require_value(many);
        REQUIRE(many->tensors().size() == one.tensors().size());
        for (std::size_t i = 0; i < one.tensors().size(); ++i) {
            CAPTURE(one.tensors()[i].name);
            CHECK(one.tensors()[i].bytes == many->tensors()[i].bytes);
            CHECK(std::memcmp(one.tensors()[i].data, many->tensors()[i].data, one.tensors()[i].bytes) == 0);
        }
    }
    int calls = 0;
    check_error(repacked_model::create(*opened, {}, [&](std::uint64_t, std::uint64_t) { return ++calls < 3; }), errc::cancelled,
                {"stopped by the caller"});
    CHECK(calls == 3);
}

TEST_CASE("io/repack: -128 among the codes of Q8_0 is a number like any other") {
    const std::size_t cols = 64;
    const bytes file = write_file({{"w", ggml_type::q8_0, {8, cols}}}, [&](std::size_t, bytes& data) {
        for (std::size_t at = 0; at < data.size(); at += 34)
            for (std::size_t i = 2; i < 34; ++i) data[at + i] = i % 5 == 0 ? std::byte{0x7f} : std::byte{0x80};
    });
    const auto opened = packed_model::from_memory(file);
    require_value(opened);
    const auto repacked = repacked_model::create(*opened);
    require_value(repacked);
    const tensor_view& t = *repacked->find("w");
    const std::vector<float> w = decoded(*opened, "w");
    CHECK(*std::min_element(w.begin(), w.end()) < 0.0f);
    phi4flash_test::for_each_target([&](const kernel_table& kernels) {
        const linear_kernels& linear = kernels.linear[static_cast<std::size_t>(dtype::q8)];
        for (const float sign : {1.0f, -1.0f}) {  // all activations at the end of their range
            std::vector<float> x(cols, sign);
            std::vector<std::byte> scratch(arranged_bytes(cols));
            float y[8];
            linear.matvec(t.data, 8, cols, linear.arrange(x.data(), cols, cols, 0, 1, 1, scratch.data()), nullptr, y);
            for (std::size_t r = 0; r < 8; ++r) {
                double want = 0.0;
                for (std::size_t c = 0; c < cols; ++c) want += static_cast<double>(sign) * static_cast<double>(w[r * cols + c]);
                CHECK(std::fabs(static_cast<double>(y[r]) - want) <= 1e-5 * (std::fabs(want) + 1e-3));
            }
        }
    });
}

TEST_CASE("io/repack: scales that are no numbers are refused by tensor and block") {
    for (const ggml_type type : quantized) {
        const ggml_format& format = format_of(type);
        CAPTURE(format.name);
        for (const std::size_t rows : {16u, 12u}) {  // packed, and widened
            for (std::size_t k = 0; k < format.n_scales; ++k) {
                for (const std::uint16_t bits : {std::uint16_t{0x7c00}, std::uint16_t{0xfc00}, std::uint16_t{0x7e01}}) {
                    const auto damaged = repack({"w", type, {rows, 512}}, [&](std::size_t, bytes& data) {
                        std::memcpy(data.data() + std::size_t{3} * format.block_bytes + format.scale_offset + 2 * k, &bits, 2);
                    });
                    check_error(damaged, errc::not_finite, {"'w'", "block 3", k == 0 ? "scale 0" : "scale 1"});
                }
            }
        }
        const auto huge = repack({"w", type, {8, 256}}, [&](std::size_t, bytes& data) {
            const f16 most{0x7bff};
            for (std::size_t at = 0; at < data.size(); at += format.block_bytes)
                std::memcpy(data.data() + at + format.scale_offset, &most, 2);
        });
        if (is_k(type)) {  // a group's scale would be 65504 * 63 * 15 / 127, or so
            check_error(huge, errc::not_finite, {"'w'", format.name, "too large"});
        } else {  // the scales are the file's own
            require_value(huge);
        }
    }
}

TEST_CASE("io/repack: sizes beyond the address space") {
    const std::size_t blocks = static_cast<std::size_t>(PTRDIFF_MAX) / 18;
    gguf_tensor t{.name = "w", .format = &format_of(ggml_type::iq4_nl), .extent = {}, .rank = 2, .bytes = blocks * 18};
    t.extent[1] = 32;
    t.extent[0] = blocks / 8 * 8;
    check_error(detail::plan_repacked(t, false), errc::size_overflow, {"'w'", "address space"});
    check_error(detail::plan_repacked(t, true), errc::size_overflow, {"'w'", "address space"});
    t.bytes = t.extent[0] * 18;
    t.format = &format_of(ggml_type::q4_0);  // as large as before
    const auto same = detail::plan_repacked(t, false);
    require_value(same);
    CHECK(same->bytes == t.bytes);
}

TEST_CASE("io/repack: any bytes in the weights give numbers or an error") {
    std::vector<gguf_spec> specs;
    for (const ggml_type type : quantized) {
        specs.push_back({std::string("matrix ") + format_of(type).name, type, {8, 256}});
        specs.push_back({std::string("ragged ") + format_of(type).name, type, {3, 256}});
    }
    std::size_t accepted = 0;
    std::size_t refused = 0;
    for (std::uint64_t seed = 1; seed <= 300; ++seed) {
        phi4flash_test::generator random(seed);
        const bytes file = write_file(specs, [&](std::size_t, bytes& data) {
            if (random.below(12) == 0) data[random.below(data.size())] = static_cast<std::byte>(random.next());
            if (random.below(40) == 0)
                for (std::byte& b : data) b = static_cast<std::byte>(random.next());
        });
        const auto model = packed_model::from_memory(file);
        require_value(model);
        const auto repacked = repacked_model::create(*model);
        ++(repacked ? accepted : refused);
        if (!repacked) continue;
        for (const tensor_view& t : repacked->tensors()) {
            bool finite = true;
            for (const float x : widened(best_kernels(), t)) finite = finite && std::isfinite(x);
            CHECK(finite);
        }
    }
    CHECK(accepted > 0);
    CHECK(refused > 0);
}
