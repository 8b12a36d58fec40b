/// config.json and generation_config.json: strict reading accepts no more than lenient reading, and what is accepted is a shape.
#include "fuzz.hpp"

#include <phi4flash/io/huggingface/config.hpp>
#include <phi4flash/io/huggingface/generation_config.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace phi4flash;
    const fuzz::memory_limit limit(size, 1 << 16, 512);
    const std::string_view text = fuzz::text_of(data, size);
    const auto strict = read_hf_config(text);
    const auto lenient = read_hf_config(text, {.ignore_unknown_keys = true});
    const auto generation = read_generation_config(text);
    const auto of_config = read_generation_of_hf_config(text);
    if (!strict) fuzz::check_refusal(strict.error());
    if (!lenient) fuzz::check_refusal(lenient.error());
    if (!generation) fuzz::check_refusal(generation.error());
    PHI4FLASH_FUZZ_CHECK(lenient || !strict);
    PHI4FLASH_FUZZ_CHECK(of_config.has_value() == generation.has_value());
    if (lenient) PHI4FLASH_FUZZ_CHECK(check_shape(lenient->shape) && lenient->norm_eps > 0.0f);
    if (strict) PHI4FLASH_FUZZ_CHECK(strict->shape == lenient->shape);
    return 0;
}
