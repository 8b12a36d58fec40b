#pragma once
/// How strictly a model's files are read.
/// @since 0.2
#include <phi4flash/config/abi.hpp>

PHI4FLASH_BEGIN

/// A key that cannot change what this model computes is ignored, one that could is compared with what the model does, and one
/// that nobody knows is refused (io/huggingface/config_keys.hpp and io/packed/key_rules.hpp have the lists).
struct config_options {
    bool ignore_unknown_keys = false;  ///< go on where a file has keys that nobody knows; all other checks stay
};

PHI4FLASH_END
