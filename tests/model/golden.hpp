#pragma once
/// Golden checkpoints: small SambaY models with logits, residual streams and greedy continuations computed in float64 by an
/// implementation that is not ours.
#include <phi4flash/io/huggingface/checkpoint.hpp>
#include <phi4flash/io/safetensors/safetensors.hpp>

#include <support/whole_file.hpp>

#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace golden {

namespace p4 = phi4flash;

/// Where a golden checkpoint lies: with the tests, or in the shared folder that PHI4FLASH_SHARED names. Empty: not here.
inline std::string place_of(const std::string& name) {
    const char* const shared = std::getenv("PHI4FLASH_SHARED");
    for (const char* const root : {PHI4FLASH_TEST_DATA, shared}) {
        if (root == nullptr) continue;
        const std::string folder = std::string(root) + "/golden/" + name;
        if (std::FILE* const file = std::fopen((folder + "/config.json").c_str(), "rb")) {
            std::fclose(file);
            return folder;
        }
    }
    return {};
}

#if PHI4FLASH_FILES
inline std::filesystem::path folder_of(const std::string& name) { return place_of(name); }

inline p4::result<p4::checkpoint> open(const std::string& name) { return p4::checkpoint::open(folder_of(name)); }
#else
/// From memory, which is kept to the end of the program.
inline p4::result<p4::checkpoint> open(const std::string& name) {
    static std::map<std::string, std::vector<std::string>> all;
    std::vector<std::string>& files = all[name];
    const std::string folder = place_of(name) + "/";
    if (files.empty()) {
        for (const char* const file : {"model.safetensors", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}) {
            std::string bytes = phi4flash_test::whole_file(folder + file);
            if (!bytes.empty()) files.push_back(std::move(bytes));
        }
    }
    std::vector<std::span<const std::byte>> weights;
    for (const std::string& file : files) weights.push_back(std::as_bytes(std::span(file)));
    return p4::checkpoint::from_memory(phi4flash_test::whole_file(folder + "config.json"), weights);
}
#endif

struct prompt {
    std::vector<std::int32_t> tokens;
    std::vector<float> logits;               ///< [T, vocab]
    std::vector<std::vector<float>> layers;  ///< each [T, d_model], the residual stream after the layer
    std::vector<std::int32_t> greedy;
};

/// All prompts of golden.safetensors.
inline std::vector<prompt> read_prompts(const std::string& name) {
    const std::string file = phi4flash_test::whole_file(place_of(name) + "/golden.safetensors");
    const auto tensors = p4::safetensors::parse(std::as_bytes(std::span(file)));
    REQUIRE(tensors);
    const auto floats = [&](const std::string& tensor) {
        const p4::safetensors_entry* t = tensors->find(tensor);
        if (t == nullptr) return std::vector<float>{};
        std::vector<float> out(t->bytes / sizeof(float));
        std::memcpy(out.data(), t->data, t->bytes);
        return out;
    };
    const auto ids = [&](const std::string& tensor) {
        const p4::safetensors_entry* t = tensors->find(tensor);
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
