/// ggml's blocks: decoded like the format's own reference code.
#include "io/gguf/gguf_testing.hpp"

#include <phi4flash/io/gguf/ggml_blocks.hpp>

using namespace phi4flash;
using namespace io_testing;

namespace {
/// Bytes that look random, with the given scales (f16) at the given places.
bytes block_of(ggml_type type, std::initializer_list<std::pair<std::size_t, float>> scales) {
    bytes b(format_of(type).block_bytes);
    for (std::size_t i = 0; i < b.size(); ++i) b[i] = static_cast<std::byte>((i * 37 + 11) * (i + 3) >> 1 & 255);
    for (const auto& [at, scale] : scales) {
        const f16 half = to_f16(scale);
        std::memcpy(b.data() + at, &half, 2);
    }
    return b;
}

struct golden_block {
    ggml_type type;
    std::initializer_list<std::pair<std::size_t, float>> scales;
    std::initializer_list<std::pair<std::size_t, float>> some;  // elements
    double weighted_sum;                                        // of (i + 1) w[i], exact
};
}  // namespace

TEST_CASE("io/gguf_blocks: golden values of gguf-py 0.19") {
    using enum ggml_type;
    const golden_block all[] = {
        {q4_0, {{0, 0.5f}}, {{0, -2.0f}, {1, 3.0f}, {15, -4.0f}, {16, 2.5f}, {31, -4.0f}}, -672.5},
        {q8_0, {{0, 0.5f}}, {{0, -22.0f}, {1, 55.0f}, {15, 0.0f}, {16, -30.0f}, {31, -48.0f}}, 176.0},
        {iq4_nl, {{0, 0.5f}}, {{0, -24.5f}, {1, 44.5f}, {15, -63.5f}, {16, 34.5f}, {31, -63.5f}}, -9747.0},
        {q4_k,
         {{0, 0.5f}, {2, 0.25f}},
         {{0, -6.0f},
          {31, 126.0f},
          {32, 44.0f},
          {63, 108.0f},
          {64, -11.0f},
          {127, 30.5f},
          {128, -9.25f},
          {159, 2.75f},
          {160, -1.5f},
          {192, -10.25f},
          {255, 146.5f}},
         784960.0},
        {q6_k,
         {{208, 0.5f}},
         {{0, 768.0f},
          {31, -96.0f},
          {32, -320.0f},
          {63, -550.0f},
          {64, 150.0f},
          {127, 1050.0f},
          {128, -1408.0f},
          {159, -336.0f},
          {160, 320.0f},
          {192, 210.0f},
          {255, -390.0f}},
         239392.0},
    };
    for (const golden_block& g : all) {
        CAPTURE(format_of(g.type).name);
        const bytes block = block_of(g.type, g.scales);
        std::vector<float> w(format_of(g.type).block_length);
        REQUIRE(decode_ggml(g.type, block.data(), w.size(), w.data()));
        for (const auto& [i, want] : g.some) {
            CAPTURE(i);
            CHECK(w[i] == want);
        }
        double sum = 0;
        for (std::size_t i = 0; i < w.size(); ++i) sum += static_cast<double>(i + 1) * static_cast<double>(w[i]);
        CHECK(sum == g.weighted_sum);
    }
}

TEST_CASE("io/gguf_blocks: several blocks, and types that are no weights") {
    const bytes one = block_of(ggml_type::q8_0, {{0, 1.0f}});
    bytes three;
    for (int i = 0; i < 3; ++i) three.insert(three.end(), one.begin(), one.end());
    std::vector<float> w(96);
    REQUIRE(decode_ggml(ggml_type::q8_0, three.data(), 96, w.data()));
    for (std::size_t i = 0; i < 32; ++i) {
        CHECK(w[i] == static_cast<float>(static_cast<std::int8_t>(one[2 + i])));
        CHECK(w[64 + i] == w[i]);
    }
    const std::uint16_t halves[] = {0x3c00, 0xc000, 0x0001};
    REQUIRE(decode_ggml(ggml_type::f16, reinterpret_cast<const std::byte*>(halves), 3, w.data()));
    CHECK(w[0] == 1.0f);
    CHECK(w[1] == -2.0f);
    CHECK(w[2] == 0x1p-24f);
    REQUIRE(decode_ggml(ggml_type::bf16, reinterpret_cast<const std::byte*>(halves), 2, w.data()));
    CHECK(w[1] == -2.0f);
    CHECK_FALSE(decode_ggml(ggml_type::i32, one.data(), 1, w.data()));
}

TEST_CASE("io/gguf_blocks: the table of types") {
    for (const ggml_format& a : ggml_formats) {
        CHECK(find_ggml_format(static_cast<std::uint32_t>(a.type)) == &a);
        CHECK(a.block_bytes >= a.scale_offset + 2u * a.n_scales);
    }
    CHECK(find_ggml_format(4) == nullptr);
    CHECK(std::string(find_ggml_format(16)->name) == "IQ2_XXS");
}
