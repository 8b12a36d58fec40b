#pragma once
/// What a model's files say about generation.
#include <phi4flash/config/abi.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

PHI4FLASH_BEGIN

/// Absent where the files are silent.
struct generation_config {
    std::vector<std::uint32_t> stop_ids;      ///< eos_token_id, one or several
    std::vector<std::string> stop_strings{};  ///< end the text too
    std::optional<std::uint32_t> bos_id{};
    std::optional<std::uint32_t> pad_id{};
    std::optional<bool> do_sample{};
    std::optional<float> temperature{};
    std::optional<float> top_p{};
    std::optional<float> min_p{};
    std::optional<float> repetition_penalty{};
    std::optional<std::uint32_t> top_k{};
    std::optional<std::uint32_t> max_new_tokens{};
    /// Keys that ask for what `generate` does not do, such as num_beams: for a program to tell its user.
    std::vector<std::string> unsupported{};
};

PHI4FLASH_END
