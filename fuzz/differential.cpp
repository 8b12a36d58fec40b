/// The same weights and tokens on every target and back end of this program that the machine can run: the same logits, up to rounding.
/// The input says the shape, how weights and K/V are kept, and the tokens.
#include "differential.hpp"
#include "fuzz.hpp"
#include "tiny.hpp"

#include <cmath>
#include <memory>
#include <new>
#include <string>
#include <vector>

// PHI4FLASH_FUZZ_HAS_XXX: differential_unit.cpp was compiled for that back end too.
extern "C" void phi4flash_fuzz_scalar(const differential_task& task, void* self, differential_sink sink);
extern "C" void phi4flash_fuzz_highway(const differential_task& task, void* self, differential_sink sink);
extern "C" void phi4flash_fuzz_xsimd(const differential_task& task, void* self, differential_sink sink);

namespace differential_entry {

using namespace phi4flash;

struct answers {
    double tolerance;
    std::vector<float> first;
    std::string first_name;
    int count = 0;

    static void take(void* self, const char* target, const float* logits, std::size_t n, const char* refused) {
        static_cast<answers*>(self)->compare(target, logits, n, refused);
    }
    void compare(const char* target, const float* logits, std::size_t n, const char* refused) {
        if (refused != nullptr) {
            std::fprintf(stderr, "%s: %s\n", target, refused);
            PHI4FLASH_FUZZ_CHECK(!"these weights are good");
        }
        if (count++ == 0) {
            first.assign(logits, logits + n);
            first_name = target;
            return;
        }
        PHI4FLASH_FUZZ_CHECK(n == first.size());
        double scale = 0.0, worst = 0.0;
        for (const float x : first) scale = (std::max)(scale, std::fabs(static_cast<double>(x)));
        for (std::size_t i = 0; i < n; ++i) worst = (std::max)(worst, std::fabs(static_cast<double>(logits[i]) - static_cast<double>(first[i])));
        if (worst <= tolerance * scale) return;
        std::fprintf(stderr, "%s and %s differ by %g of %g, want at most %g of it\n", first_name.c_str(), target, worst, scale, tolerance);
        PHI4FLASH_FUZZ_CHECK(!"targets agree");
    }
};

/// Extents that no vector divides, and some that it does.
sambay_shape shape_of(fuzz::input& in) {
    constexpr std::size_t heads[][2] = {{2, 2}, {4, 2}, {4, 4}, {8, 4}, {6, 2}, {12, 6}};
    const auto& [n_heads, n_kv_heads] = heads[in.below(6)];
    const auto around = [&](std::size_t most) { const std::uint8_t n = in.byte(); return n < 128 ? 32 * (1 + n % (most / 32)) : 1 + n % most; };
    sambay_shape s{.d_model = 0, .n_layers = 4 + 4 * in.below(2), .d_ff = around(96), .n_heads = n_heads, .n_kv_heads = n_kv_heads,
                   .vocab = around(160), .window = 1 + in.below(9), .d_inner = around(96), .d_state = 1 + in.below(17), .d_conv = 1 + in.below(5),
                   .dt_rank = 1 + in.below(20)};
    const std::size_t d_head = 1 + in.below(24);
    s.d_model = in.below(2) == 0 && n_heads != 6 && n_heads != 12 ? 64 : n_heads * d_head;
    return s;
}

struct aligned_delete {
    void operator()(unsigned char* p) const { ::operator delete(p, std::align_val_t{64}); }
};

}  // namespace differential_entry

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace phi4flash;
    using namespace differential_entry;
    fuzz::input in(data, size);
    const sambay_shape shape = shape_of(in);
    const auto type = static_cast<dtype>(in.below(dtype_count));
    const std::uint8_t how = in.byte();
    const std::string file = fuzz::tiny_model(shape, type, in.word());
    PHI4FLASH_FUZZ_CHECK(!file.empty());
    const std::unique_ptr<unsigned char, aligned_delete> aligned(static_cast<unsigned char*>(::operator new(file.size(), std::align_val_t{64})));
    std::memcpy(aligned.get(), file.data(), file.size());

    std::vector<std::int32_t> tokens;
    do tokens.push_back(static_cast<std::int32_t>(in.byte() % shape.vocab));
    while (!in.empty() && tokens.size() < 40);

    const bool exact = (how & 16) != 0 || !is_packed(type);
    const differential_task task{aligned.get(), file.size(), tokens.data(), tokens.size(), 1 + std::size_t{how} % 16, how / 32 % 3, exact ? 1 : 0};
    // An activation or a key that lies between two steps of 8 bits is rounded up here and down there.
    answers all{exact && task.kv == 1 ? 1e-3 : 0.2, {}, {}};
    phi4flash_fuzz_scalar(task, &all, &answers::take);
#if defined(PHI4FLASH_FUZZ_HAS_HIGHWAY)
    phi4flash_fuzz_highway(task, &all, &answers::take);
#endif
#if defined(PHI4FLASH_FUZZ_HAS_XSIMD)
    phi4flash_fuzz_xsimd(task, &all, &answers::take);
#endif
    return 0;
}
