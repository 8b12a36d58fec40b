#pragma once
/// What the tests of generation share: a golden model with a session on it, and a tokenizer for its ids.
#include <model/golden.hpp>

#include <phi4flash/core/thread_pool.hpp>
#include <phi4flash/generate/generate.hpp>
#include <phi4flash/io/huggingface/tokenizer_json.hpp>

#include <doctest/doctest.h>

namespace generate_testing {

namespace p4 = phi4flash;
using p4::stop_reason;
using ids_type = std::vector<std::int32_t>;

inline constexpr p4::sampling_options greedy{.temperature = 0.0f};

/// A golden model and a session on it.
struct fixture {
    explicit fixture(std::size_t context = 256, p4::workspace_options how = {.chunk = 8}, const char* name = "f32-8l")
        : files(*golden::open(name)), m(*p4::model<>::bind(files)),
          past(*p4::session<p4::any_sambay, float>::create(m, context)), w(*p4::workspace<p4::any_sambay, float>::create(m, how)) {}

    p4::checkpoint files;
    p4::model<> m;
    p4::session<p4::any_sambay, float> past;
    p4::workspace<p4::any_sambay, float> w;
    ids_type tokens;
    std::string text;

    p4::result<p4::generation_summary> generate(const ids_type& prompt, const p4::generation_options& options,
                                                const p4::tokenizer* t = nullptr, std::size_t stop_after = SIZE_MAX) {
        tokens.clear();
        text.clear();
        return p4::generate(m, past, w, t, prompt, options, [&](const p4::generation_event& event) {
            if (event.token >= 0) tokens.push_back(event.token);
            text += event.text;
            return tokens.size() < stop_after;
        });
    }
};

/// The golden model with the largest vocabulary, 300 rows, more than the tokenizer below has.
inline fixture wide_fixture() { return fixture(256, {.chunk = 8}, "bf16-12l-sharded"); }

/// All 256 bytes at ids 0 to 199 and 240 to 295: what lies between and after them has no string.
inline p4::tokenizer small_tokenizer() {
    p4::tokenizer_builder builder;
    for (std::size_t byte = 0; byte < 200; ++byte) {
        const char c = static_cast<char>(byte < 128 ? byte : byte + 56);
        REQUIRE(builder.add_token(byte, std::string_view(&c, 1)));
    }
    for (std::size_t byte = 128; byte < 184; ++byte) {
        const char c = static_cast<char>(byte);
        REQUIRE(builder.add_token(byte + 112, std::string_view(&c, 1)));
    }
    auto t = builder.build();
    REQUIRE_MESSAGE(t, t.error().message());
    return *std::move(t);
}

inline const golden::prompt& first_prompt() {
    static const golden::prompt p = golden::read_prompts("f32-8l").front();
    return p;
}

}  // namespace generate_testing
