#pragma once
/// What the entry `differential` and its units, one for each back end, tell each other. No header of the library: each unit has its own.
#include <cstddef>
#include <cstdint>

/// A model and what it is to read.
struct differential_task {
    const unsigned char* file;  ///< GGUF, aligned to 64
    std::size_t file_bytes;
    const std::int32_t* tokens;
    std::size_t n_tokens;
    std::size_t chunk;
    int kv;                ///< 0: bf16, 1: f32, 2: 8 bits
    int exact_activations; ///< 1: f32 where weights are packed
};

/// Gets the logits of one target after all tokens, or null and a sentence.
using differential_sink = void (*)(void* self, const char* target, const float* logits, std::size_t n, const char* refused);
