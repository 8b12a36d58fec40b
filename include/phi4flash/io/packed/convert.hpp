#pragma once
/// Converts a model into one packed file: matrices to the chosen types, everything else as it is.
#include <phi4flash/io/packed/convert_matrix.hpp>
#include <phi4flash/io/packed/model_writer.hpp>
#include <phi4flash/kernels/targets.hpp>
#include <phi4flash/model/model.hpp>
#include <phi4flash/model/tensor_list.hpp>

#include <string>
#include <type_traits>
#include <vector>

PHI4FLASH_BEGIN

/// Which type a matrix gets. One whose extents are no multiples of 8 rows and 32 columns stays bf16 where a packed type is wanted.
struct conversion {
    dtype matrices = dtype::q4_dense;
    /// The embedding, which is the output layer too: 13 % of the released model's weights, and the last matrix of every step.
    dtype embedding = dtype::q4_dense;
    /// x_proj and dt_proj of Mamba: under a hundredth of the weights, and what they give goes through an exponential.
    dtype selection = dtype::q8;
    /// With which instructions; null: the best but for matrix tiles, which nothing here needs. The bytes are the same for any.
    const kernel_table* kernels = nullptr;
};

/// The type of a tensor of the model in the converted file. What is packed already stays as it is.
[[nodiscard]] inline dtype converted_type(const conversion& how, std::string_view name, std::span<const std::size_t> shape,
                                          tensor_role role, dtype stored) {
    if (role != tensor_role::matrix || is_packed(stored)) return stored;
    return weight_types{how.matrices, how.embedding, how.selection}.of_matrix(name, shape[0], shape[1]);
}

/// Writes the model in `from` to `out`, a byte_output, or to the file of a path, whole or not at all. `info.config` and the rest of `info` say
/// what the file says beside its weights. `tell(done, total)` gets bytes of weights after every megabyte or so, as std::uint64_t on the
/// calling thread; false stops (a void function never does). The next piece is computed while one is written, on any of the
/// executor's threads. Takes a few megabytes of memory. Errors: those of model::bind and write_packed_model; cancelled; out_of_memory (also
/// where `tell` throws std::bad_alloc); not_finite, naming the tensor and the first element that is infinite, NaN, or beyond its new type.
template <tensor_source Source, class Out, class Tell>
[[nodiscard]] status convert_model(const Source& from, const packed_model_info& info, const conversion& how, Out&& out, executor_ref threads,
                                   Tell&& tell) {
    return detail::or_out_of_memory("convert a model", [&]() -> status {
        const auto bound = model<any_sambay>::bind(from);  // every tensor is there, with its shape, and no other
        if (!bound) return bound.error();
        std::vector<packed_tensor> tensors;
        std::vector<const tensor_view*> sources;
        std::uint64_t total = 0;
        for_each_tensor(bound->shape(), [&](std::string_view name, std::span<const std::size_t> shape, tensor_role role) {
            const tensor_view* const source = from.find(name);
            tensors.push_back({std::string(name), converted_type(how, name, shape, role, source->type), {shape.begin(), shape.end()}});
            sources.push_back(source);
            std::size_t count = 1;
            for (const std::size_t n : shape) count *= n;
            total += is_packed(tensors.back().type) ? matrix_bytes(tensors.back().type, shape[0], shape[1])
                                                    : count * size_of(tensors.back().type);
        });
        for (const packed_tensor& t : tensors)
            if (is_packed(t.type) && !is_compiled(t.type))
                return error::format(errc::wrong_dtype, "tensor %s as %s: this program was compiled without it (PHI4FLASH_HAS_WEIGHTS_%s=0)",
                                     t.name.c_str(), name_of(t.type), name_of(t.type));
        std::uint64_t done = 0;
        const auto advance = [&](std::size_t bytes) {
            done += bytes;
            if constexpr (std::is_void_v<decltype(tell(done, total))>) {
                tell(done, total);
                return true;
            } else {
                return static_cast<bool>(tell(done, total));
            }
        };
        const kernel_table& kernels = how.kernels != nullptr ? *how.kernels : best_kernels({.matrix_tiles = false});
        return write_packed_model(out, info, tensors, [&](std::size_t i, gguf_sink& sink) -> status {
            const tensor_view& source = *sources[i];
            const char* const name = tensors[i].name.c_str();
            if (source.type == tensors[i].type) return detail::copy_tensor(name, source, threads, sink, advance);
            const matrix_view m{source.data, source.extent[0], source.extent[1], source.type};
            return detail::matrix_converter(kernels, m, tensors[i].type, threads).write(name, sink, advance);
        });
    });
}

PHI4FLASH_END
