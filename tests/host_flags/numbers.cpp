/// What must not depend on the flags of a host program, printed as text: compiled once plainly and once for each set of flags; compare.py
/// compares. Asked of the bits wherever a comparison of floats could be compiled away.
///
///     numbers MODEL_FOLDER
#include <phi4flash/phi4flash.hpp>

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace p4 = phi4flash;

namespace {

void fail(const char* what) {
    std::fprintf(stderr, "%s\n", what);
    std::exit(1);
}

/// x with `exponent`: integers only, where f16 values come from.
std::uint32_t f32_bits_of(std::uint16_t half) {
    const std::uint32_t sign = (half & 0x8000u) << 16;
    std::uint32_t fraction = half & 0x3ffu;
    std::uint32_t exponent = (half >> 10) & 31u;
    if (exponent == 31) return sign | 0x7f800000u | fraction << 13;
    if (exponent == 0) {
        if (fraction == 0) return sign;
        for (exponent = 1; (fraction & 0x400u) == 0; --exponent) fraction <<= 1;
        fraction &= 0x3ffu;
    }
    return sign | (exponent + 112) << 23 | fraction << 13;
}

/// Every f16 as f32, where the host may have switched the processor to treat subnormals as zero: one by one, and by the kernels.
void check_halves(const p4::kernel_table& kernels) {
    std::vector<p4::f16> half(1u << 16);
    for (std::size_t i = 0; i < half.size(); ++i) half[i].bits = static_cast<std::uint16_t>(i);
    std::vector<float> wide(half.size());
    kernels.linear[static_cast<std::size_t>(p4::dtype::f16)].widen(reinterpret_cast<const std::byte*>(half.data()), 0, half.size(), wide.data());
    for (std::size_t i = 0; i < half.size(); ++i) {
        const std::uint32_t want = f32_bits_of(half[i].bits);
        if ((want & 0x7fffffffu) > 0x7f800000u) continue;  // which NaN may differ
        if (std::bit_cast<std::uint32_t>(p4::to_f32(half[i])) != want) fail("to_f32(f16)");
        if (std::bit_cast<std::uint32_t>(wide[i]) != want) fail("f16 weights");
    }
}

/// Numbers as the library tells them apart, and a sampler among such.
void check_not_finite() {
    std::vector<float> x(1000, 1.0f);
    if (p4::first_not_finite(std::span<const float>(x)) != x.size()) fail("first_not_finite of finite numbers");
    for (const std::uint32_t bits : {0x7fc00000u, 0xffc00000u, 0xff800000u}) {
        x[700] = std::bit_cast<float>(bits);
        if (p4::first_not_finite(std::span<const float>(x)) != 700) fail("first_not_finite");
        for (const float temperature : {0.0f, 0.6f}) {
            for (float& logit : x) logit = std::bit_cast<float>(bits);
            x[5] = 1.0f;
            p4::sampling_options options;
            options.temperature = temperature;
            auto sampler = p4::sampler::create(options, std::vector<bool>(x.size(), true));
            if (!sampler || sampler->choose(x) != 5) fail("a sampler among numbers that are not finite");
            for (float& logit : x) logit = 1.0f;
        }
    }
}

void print_kernels(const p4::kernel_table& kernels) {
    std::vector<float> x;
    for (int i = -400; i <= 400; ++i) x.push_back(static_cast<float>(i) * 0.21f);
    std::vector<float> y(x.size());
    kernels.softplus(x.data(), x.size(), y.data());
    for (const float v : y) std::printf("softplus %.7g\n", static_cast<double>(v));
    std::vector<float> gate = x;
    std::vector<float> up(x.size(), 1.0f);
    kernels.silu_mul(gate.data(), up.data(), x.size(), y.data());
    for (const float v : y) std::printf("silu %.7g\n", static_cast<double>(v));
    y = x;
    kernels.softmax(y.data(), y.size(), 0.3f);
    for (const float v : y) std::printf("softmax %.7g\n", static_cast<double>(v));
    std::vector<p4::kv_int8> codes(x.size());
    p4::bf16 scale;
    kernels.quantize(x.data(), x.size(), codes.data(), &scale);
    for (const p4::kv_int8 c : codes) std::printf("code %d\n", static_cast<int>(c.code));
}

template <class Files>
void print_logits(const Files& files, const p4::kernel_table& kernels) {
    const auto model = p4::model<>::bind(files);
    if (!model) fail(model.error().message());
    auto session = p4::session<>::create(*model, 128);
    auto workspace = p4::workspace<>::create(*model, {.chunk = 16, .kernels = &kernels, .threads = {}});
    if (!session || !workspace) fail("out of memory");
    std::vector<std::int32_t> prompt;
    for (std::int32_t i = 0; i < 40; ++i) prompt.push_back(20 + i * 7 % 60);
    auto logits = p4::prefill(*model, *session, *workspace, prompt);
    for (int step = 0; step < 8; ++step) {
        if (!logits) fail(logits.error().message());
        std::size_t best = 0;
        for (std::size_t i = 0; i < logits->size(); ++i) {
            std::printf("logit %.7g\n", static_cast<double>((*logits)[i]));
            if ((*logits)[i] > (*logits)[best]) best = i;
        }
        logits = p4::step(*model, *session, *workspace, static_cast<std::int32_t>(best));
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) fail("usage: numbers MODEL_FOLDER");
    const p4::kernel_table& kernels = p4::best_kernels();
    check_halves(kernels);
    check_not_finite();
    print_kernels(kernels);
    const auto files = p4::model_files::open(argv[1]);
    if (!files) fail(files.error().message());
    print_logits(*files, kernels);
    return 0;
}
