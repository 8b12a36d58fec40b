/// Weights that are infinite or NaN: binding and converting name the tensor and the element, and no token is made of them.
#include "io/io_testing.hpp"

#include <model/golden.hpp>

#include <phi4flash/generate/generate.hpp>
#include <phi4flash/io/check_weights.hpp>
#include <phi4flash/io/packed/convert.hpp>

#include <cfloat>
#include <deque>

#if PHI4FLASH_HAS_JSON
using namespace phi4flash;
using namespace io_testing;

namespace {

const float nan_f32 = std::bit_cast<float>(0x7fc00000u);
const float infinity_f32 = std::bit_cast<float>(0x7f800000u);

/// A model whose numbers may be changed: the golden f32 one, or a packed file, copied.
class changeable {
public:
    template <class Source>
    explicit changeable(const Source& from) : config_(from.config()), tensors_(from.tensors().begin(), from.tensors().end()) {
        for (tensor_view& t : tensors_) {
            names_.emplace_back(t.name);
            data_.emplace_back(t.bytes);
            std::memcpy(data_.back().data(), t.data, t.bytes);
            t.data = data_.back().data();
        }
        for (std::size_t i = 0; i < tensors_.size(); ++i) tensors_[i].name = names_[i];
    }
    [[nodiscard]] const sambay_config& config() const { return config_; }
    [[nodiscard]] std::span<const tensor_view> tensors() const { return tensors_; }
    [[nodiscard]] const tensor_view* find(std::string_view name) const { return find_tensor(tensors_, name); }

    /// The float at this place; to be put back.
    float exchange(std::string_view name, std::size_t index, float value) {
        std::byte* const at = place_of(name) + 4 * index;
        float before;
        std::memcpy(&before, at, 4);
        std::memcpy(at, &value, 4);
        return before;
    }
    /// The scale of a row of a packed tensor's first block.
    f16 exchange_scale(std::string_view name, std::size_t row, f16 value) {
        std::byte* const at = place_of(name) + 2 * row;
        f16 before;
        std::memcpy(&before, at, 2);
        std::memcpy(at, &value, 2);
        return before;
    }

private:
    std::byte* place_of(std::string_view name) {
        for (std::size_t i = 0; i < names_.size(); ++i)
            if (names_[i] == name) return data_[i].data();
        FAIL("no tensor " << std::string(name));
        return nullptr;
    }

    sambay_config config_;
    std::vector<tensor_view> tensors_;
    std::deque<std::string> names_;
    std::deque<std::vector<std::byte>> data_;
};

changeable golden_model() {
    const auto files = checkpoint::open(golden::folder_of("f32-8l"));
    require_value(files);
    return changeable(*files);
}

status convert(const changeable& from, dtype type, const std::filesystem::path& path) {
    packed_model_info info;
    info.name = "test";
    info.config = from.config();
    return convert_model(from, info, {.matrices = type, .embedding = type, .selection = type}, path, executor_ref(),
                         [](std::uint64_t, std::uint64_t) {});
}

/// Names of all matrices.
std::vector<std::string> matrices_of(const changeable& from) {
    std::vector<std::string> names;
    for_each_tensor(*extents<any_sambay>::from(from.config().shape),
                    [&](std::string_view name, std::span<const std::size_t>, tensor_role role) {
                        if (role == tensor_role::matrix) names.emplace_back(name);
                    });
    return names;
}

/// A few tokens; how many came before the end.
result<generation_summary> generate_some(const changeable& from, std::size_t& came) {
    const auto m = model<>::bind(from);
    if (!m) return m.error();
    auto past = session<>::create(*m, 64);
    auto work = workspace<>::create(*m, {.chunk = 4});
    require_value(past);
    require_value(work);
    generation_options options;
    options.max_tokens = 8;
    const std::int32_t prompt[] = {1, 2, 3, 4, 5, 6};
    came = 0;
    return generate(*m, *past, *work, nullptr, prompt, options, [&](const generation_event&) { return ++came != 0; });
}

}  // namespace

TEST_CASE("io/not_finite: converting names the tensor and the element, for every type, and leaves no file") {
    changeable model = golden_model();
    const temporary_folder folder;
    const auto path = folder.path() / "out.gguf";
    const char* const name = "model.layers.2.mlp.fc1.weight";
    const std::size_t cols = model.find(name)->extent[1];
    for (const dtype type : {dtype::f32, dtype::f16, dtype::bf16, dtype::q8, dtype::q4, dtype::q4_dense}) {
        CAPTURE(std::string(name_of(type)));
        for (const float bad : {nan_f32, infinity_f32, -infinity_f32}) {
            const float last = model.exchange(name, 90 * cols + 3, bad);
            const float before = model.exchange(name, 37 * cols + 21, bad);  // the first in the order of rows is named
            check_error(convert(model, type, path), errc::not_finite, {name, "element [37, 21] is not finite"});
            model.exchange(name, 37 * cols + 21, before);
            model.exchange(name, 90 * cols + 3, last);
        }
        CHECK(std::filesystem::is_empty(folder.path()));
    }
    require_value(convert(model, dtype::q8, path));
}

TEST_CASE("io/not_finite: converting refuses numbers that the new type cannot hold") {
    changeable model = golden_model();
    const temporary_folder folder;
    const auto path = folder.path() / "out.gguf";
    const char* const name = "model.embed_tokens.weight";
    const std::size_t cols = model.find(name)->extent[1];
    struct wanted {
        float value;
        std::vector<dtype> fits;
    };
    using enum dtype;
    for (const wanted& want : {wanted{-65519.0f, {f32, bf16, f16, q8, q4, q4_dense}}, wanted{65520.0f, {f32, bf16, q8, q4, q4_dense}},
                               wanted{-4e6f, {f32, bf16, q8}}, wanted{1e7f, {f32, bf16}}, wanted{3e38f, {f32, bf16}}, wanted{FLT_MAX, {f32}}}) {
        CAPTURE(want.value);
        const float before = model.exchange(name, 255 * cols + 63, want.value);
        for (const dtype type : {f32, f16, bf16, q8, q4, q4_dense}) {
            CAPTURE(std::string(name_of(type)));
            const status done = convert(model, type, path);
            if (std::ranges::find(want.fits, type) != want.fits.end()) {
                require_value(done);
            } else {
                check_error(done, errc::not_finite, {name, "element [255, 63] is ", "too large for", name_of(type)});
            }
        }
        model.exchange(name, 255 * cols + 63, before);
    }
    // Large numbers of both signs: what fits a scale to them must not fall back to zeros.
    const float first = model.exchange(name, 0, 3e38f);
    const float second = model.exchange(name, 1, -3e38f);
    for (const dtype type : {q8, q4, q4_dense}) check_error(convert(model, type, path), errc::not_finite, {name, "[0, 0]"});
    model.exchange(name, 0, first);
    model.exchange(name, 1, second);
}

TEST_CASE("io/not_finite: binding reads the vectors and names them") {
    changeable model = golden_model();
    std::size_t vectors = 0;
    for_each_tensor(*extents<any_sambay>::from(model.config().shape),
                    [&](std::string_view name, std::span<const std::size_t> shape, tensor_role role) {
                        if (role == tensor_role::matrix) return;
                        ++vectors;
                        std::size_t count = 1;
                        for (const std::size_t n : shape) count *= n;
                        const float before = model.exchange(name, count - 1, vectors % 2 == 0 ? nan_f32 : infinity_f32);
                        const std::string full(name);
                        check_error(phi4flash::model<>::bind(model), errc::not_finite, {full.c_str(), "is not finite"});
                        model.exchange(name, count - 1, before);
                    });
    CHECK(vectors > 50);
    require_value(phi4flash::model<>::bind(model));
}

TEST_CASE("io/not_finite: no token is made of logits that are none") {
    changeable model = golden_model();
    std::size_t came = 0;
    require_value(generate_some(model, came));
    CHECK(came == 8);
    for (const std::string& name : matrices_of(model)) {
        CAPTURE(name);
        const float before = model.exchange(name, 0, nan_f32);
        // What is added to the stream of a token stays there. Inside a layer an exponential within bounds, or the larger of two, may be a
        // number though it was made of none.
        if (name.ends_with("out_proj.weight") || name.ends_with("fc2.weight") || name.ends_with("embed_tokens.weight")) {
            check_error(generate_some(model, came), errc::not_finite, {"logits after 6 tokens", "damaged"});
            CHECK(came == 0);
        }
        check_error(check_weights(model.tensors()), errc::not_finite, {name.c_str(), "[0, 0]"});
        model.exchange(name, 0, before);
    }
    require_value(check_weights(model.tensors()));
}

TEST_CASE("io/not_finite: the scales of packed matrices are looked at too") {
    const temporary_folder folder;
    const auto path = folder.path() / "packed.gguf";
    for (const dtype type : {dtype::q8, dtype::q4, dtype::q4_dense}) {
        CAPTURE(std::string(name_of(type)));
        require_value(convert(golden_model(), type, path));
        const auto file = packed_model::open(path);
        require_value(file);
        changeable model(*file);
        require_value(check_weights(model.tensors()));
        for (const std::string& name : matrices_of(model)) {
            CAPTURE(name);
            if (!is_packed(model.find(name)->type)) continue;
            const f16 before = model.exchange_scale(name, 1, f16{0x7e00});
            check_error(check_weights(model.tensors()), errc::not_finite, {name.c_str(), "[1, 0]"});
            model.exchange_scale(name, 1, before);
        }
    }
}

TEST_CASE("io/not_finite: what a text ends with when logits stop to be finite on the way") {
    changeable model = golden_model();
    const auto m = phi4flash::model<>::bind(model);
    require_value(m);
    auto past = session<>::create(*m, 64);
    auto work = workspace<>::create(*m);
    require_value(past);
    require_value(work);
    const std::int32_t prompt[] = {1, 2, 3};
    const auto first = prefill(*m, *past, *work, prompt);
    require_value(first);
    model.exchange("model.embed_tokens.weight", 200 * model.find("model.embed_tokens.weight")->extent[1], infinity_f32);
    check_error(step(*m, *past, *work, 4), errc::not_finite, {"after 4 tokens"});
    std::vector<float> all(3 * m->shape().vocab());
    past->reset();
    check_error(logits_all(*m, *past, *work, prompt, rows_view<float>{all.data(), 3, m->shape().vocab()}), errc::not_finite,
                {"after 1 tokens"});
}
#endif
