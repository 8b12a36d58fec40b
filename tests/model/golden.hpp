#pragma once
/// Golden checkpoints: small SambaY models with logits, residual streams and greedy continuations computed in float64 by an
/// implementation that is not ours.
#include <phi4flash/io/huggingface/checkpoint.hpp>
#include <phi4flash/io/file/mapped_file.hpp>
#include <phi4flash/io/safetensors/safetensors.hpp>

#include <doctest/doctest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace golden {

namespace p4 = phi4flash;

/// Where a golden checkpoint lies: with the tests, or in the shared folder that PHI4FLASH_SHARED names. Empty: not here.
inline std::filesystem::path folder_of(const std::string& name) {
    std::filesystem::path folder = std::filesystem::path(PHI4FLASH_TEST_DATA) / "golden" / name;
    if (std::filesystem::exists(folder)) return folder;
    if (const char* shared = std::getenv("PHI4FLASH_SHARED")) {
        folder = std::filesystem::path(shared) / "golden" / name;
        if (std::filesystem::exists(folder)) return folder;
    }
    return {};
}

struct prompt {
    std::vector<std::int32_t> tokens;
    std::vector<float> logits;               ///< [T, vocab]
    std::vector<std::vector<float>> layers;  ///< each [T, d_model], the residual stream after the layer
    std::vector<std::int32_t> greedy;
};

/// All prompts of golden.safetensors.
inline std::vector<prompt> read_prompts(const std::filesystem::path& folder) {
    const auto file = p4::mapped_file::open(folder / "golden.safetensors");
    REQUIRE(file);
    const auto tensors = p4::safetensors::parse(file->bytes());
    REQUIRE(tensors);
    const auto floats = [&](const std::string& name) {
        const p4::safetensors_entry* t = tensors->find(name);
        if (t == nullptr) return std::vector<float>{};
        std::vector<float> out(t->bytes / sizeof(float));
        std::memcpy(out.data(), t->data, t->bytes);
        return out;
    };
    const auto ids = [&](const std::string& name) {
        const p4::safetensors_entry* t = tensors->find(name);
        if (t == nullptr) return std::vector<std::int32_t>{};
        std::vector<std::int64_t> wide(t->bytes / sizeof(std::int64_t));
        std::memcpy(wide.data(), t->data, t->bytes);
        return std::vector<std::int32_t>(wide.begin(), wide.end());
    };
    std::vector<prompt> prompts;
    for (int j = 0;; ++j) {
        const std::string prefix = std::to_string(j) + ".";
        prompt p{ids(prefix + "tokens"), floats(prefix + "logits"), {}, ids(prefix + "greedy")};
        if (p.tokens.empty()) break;
        for (int layer = 0;; ++layer) {
            std::vector<float> rows = floats(prefix + "layer." + std::to_string(layer));
            if (rows.empty()) break;
            p.layers.push_back(std::move(rows));
        }
        prompts.push_back(std::move(p));
    }
    REQUIRE(!prompts.empty());
    return prompts;
}

}  // namespace golden
