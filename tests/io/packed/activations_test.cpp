/// Packed weights with f32 activations are the same model as one whose plain weights are the decoded ones.
#include "io/io_testing.hpp"

#include <phi4flash/io/packed/convert.hpp>
#include <phi4flash/io/model_files.hpp>
#include <phi4flash/model/forward.hpp>

#include <cmath>

#if PHI4FLASH_HAS_JSON
using namespace phi4flash;
using namespace io_testing;

namespace {

/// A model's tensors with every packed matrix decoded to f32.
class decoded_model {
public:
    explicit decoded_model(const model_files& files) : views_(files.tensors().begin(), files.tensors().end()) {
        for (tensor_view& t : views_) {
            if (!is_packed(t.type)) continue;
            const std::size_t cols = t.extent[1];
            std::vector<float>& numbers = numbers_.emplace_back(t.extent[0] * cols);
            for (std::size_t r = 0; r < t.extent[0]; ++r)
                best_kernels().linear[static_cast<std::size_t>(t.type)].widen(t.data, r, cols, numbers.data() + r * cols);
            t.type = dtype::f32;
            t.data = reinterpret_cast<const std::byte*>(numbers.data());
            t.bytes = numbers.size() * sizeof(float);
        }
    }
    [[nodiscard]] std::span<const tensor_view> tensors() const { return views_; }
    [[nodiscard]] const tensor_view* find(std::string_view name) const {
        const auto at = std::ranges::find(views_, name, &tensor_view::name);
        return at == views_.end() ? nullptr : &*at;
    }
    [[nodiscard]] std::size_t decoded() const { return numbers_.size(); }

private:
    std::vector<tensor_view> views_;
    std::vector<std::vector<float>> numbers_;
};

std::vector<float> logits_of(const model<>& m, std::span<const std::int32_t> tokens, std::size_t chunk, activation_type activations,
                             const kernel_table& kernels) {
    auto past = session<any_sambay, float>::create(m, tokens.size());
    auto work =
        workspace<any_sambay, float>::create(m, {.chunk = chunk, .kernels = &kernels, .threads = {}, .activations = activations});
    require_value(past);
    require_value(work);
    std::vector<float> logits(tokens.size() * m.shape().vocab());
    require_value(logits_all(m, *past, *work, tokens, rows_view<float>{logits.data(), tokens.size(), m.shape().vocab()}));
    return logits;
}

double farthest(const std::vector<float>& a, const std::vector<float>& b) {
    double most = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i)
        most = std::max(most, std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    return most;
}

}  // namespace

TEST_CASE("io/activations: logits with f32 activations are those of the decoded weights") {
    const auto files = model_files::open(std::filesystem::path(PHI4FLASH_TEST_MODELS) / "tiny-arithmetic");
    require_value(files);
    const temporary_folder folder;
    std::vector<std::int32_t> tokens{372};
    for (std::int32_t i = 0; i < 40; ++i) tokens.push_back(10 + i * 37 % 300);
    for (const dtype type : {dtype::q8, dtype::q4, dtype::q4_dense}) {
        CAPTURE(std::string(name_of(type)));
        const auto path = folder.path() / "packed.gguf";
        packed_model_info info{.name = "tiny", .config = files->config(), .generation = {}, .tokenizer = nullptr};
        require_value(convert_model(*files, info, {.matrices = type, .embedding = type, .selection = type}, path, executor_ref(),
                                    [](std::uint64_t, std::uint64_t) {}));
        const auto packed = model_files::open(path);
        require_value(packed);
        const decoded_model decoded(*packed);
        CHECK(decoded.decoded() > 10);
        const auto m = model<>::bind(*packed);
        const auto twin = model<>::bind(decoded, packed->config());
        require_value(m);
        require_value(twin);
        for (const kernel_target& target : kernel_targets()) {
            if (!target.request()) continue;
            const std::string name = target.kernels->name;
            CAPTURE(name);
            const auto want = logits_of(*twin, tokens, 64, activation_type::int8, *target.kernels);
            const auto exact = logits_of(*m, tokens, 64, activation_type::f32, *target.kernels);
            const auto rounded = logits_of(*m, tokens, 64, activation_type::int8, *target.kernels);
            CHECK(farthest(want, exact) < 1e-4);
            CHECK(farthest(want, rounded) > 1e-3);  // the choice reaches the kernels
            CHECK(farthest(exact, logits_of(*m, tokens, 1, activation_type::f32, *target.kernels)) < 1e-4);
            CHECK(farthest(want, logits_of(*twin, tokens, 64, activation_type::f32, *target.kernels)) ==
                  0.0);  // plain weights have no choice
        }
    }
}
#endif
