#pragma once
/// Which type each tensor of a model has when it is stored in fewer bits: the rule by which files are converted, and memory is planned.
#include <phi4flash/core/packed.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

PHI4FLASH_BEGIN

/// What a tensor is for.
enum class tensor_role : std::uint8_t {
    matrix,     ///< multiplied with activations: any type, packed ones too
    parameter,  ///< widened to f32 when a model is bound: F32, F16 or BF16
};

/// Which type a matrix gets. One whose extents are no multiples of 8 rows and 32 columns stays bf16 where a packed type is wanted. @since 0.2
struct weight_types {
    dtype matrices = dtype::q4_dense;
    dtype embedding = dtype::q4_dense;  ///< the output layer too: 13 % of the released model's weights, and the last matrix of every step
    /// x_proj and dt_proj of Mamba: under a hundredth of the weights, and what they give goes through an exponential.
    dtype selection = dtype::q8;
    dtype parameters = dtype::bf16;     ///< everything else, as the released model has it
    dtype exact_parameters = dtype::f32;  ///< but for A_log and the lambdas of differential attention

    [[nodiscard]] static constexpr weight_types all(dtype type) { return {.matrices = type, .embedding = type, .selection = type}; }

    /// The type of a matrix [rows, cols] with that name, or the end of it.
    [[nodiscard]] constexpr dtype of_matrix(std::string_view name, std::size_t rows, std::size_t cols) const {
        const bool selects = name.ends_with(".x_proj.weight") || name.ends_with(".dt_proj.weight");
        // Where everything else is plain, so are they.
        const dtype want = name.ends_with("embed_tokens.weight") ? embedding : selects && is_packed(matrices) ? selection : matrices;
        return is_packed(want) && !is_packable(rows, cols) ? dtype::bf16 : want;
    }
};

PHI4FLASH_END
