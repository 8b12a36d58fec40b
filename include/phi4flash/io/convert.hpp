#pragma once
/// Converts a model into one packed file: matrices to the chosen types, everything else as it is.
#include <phi4flash/core/executor.hpp>
#include <phi4flash/core/packing.hpp>
#include <phi4flash/io/packed_model_writer.hpp>
#include <phi4flash/model/model.hpp>
#include <phi4flash/model/tensor_list.hpp>

#include <algorithm>
#include <vector>

PHI4FLASH_BEGIN

/// Which type a matrix gets. One whose extents are no multiples of 8 rows and 32 columns stays bf16 where a packed type is wanted.
struct conversion {
    dtype matrices = dtype::q4_dense;
    /// The embedding, which is the output layer too: 13 % of the released model's weights, and the last matrix of every step.
    dtype embedding = dtype::q4_dense;
    /// x_proj and dt_proj of Mamba: under a hundredth of the weights, and what they give goes through an exponential.
    dtype selection = dtype::q8;
};

/// The type of a tensor of the model in the converted file. What is packed already stays as it is.
[[nodiscard]] inline dtype converted_type(const conversion& how, std::string_view name, std::span<const std::size_t> shape,
                                          tensor_role role, dtype stored) {
    if (role != tensor_role::matrix || is_packed(stored)) return stored;
    const bool selects = name.ends_with(".x_proj.weight") || name.ends_with(".dt_proj.weight");
    // Where everything else is plain, so are they.
    const dtype want = name == "model.embed_tokens.weight"        ? how.embedding
                       : selects && is_packed(how.matrices) ? how.selection
                                                            : how.matrices;
    return is_packed(want) && !is_packable(shape[0], shape[1]) ? dtype::bf16 : want;
}

namespace detail {

/// Rows [first, first + count) of a plain matrix as `type`.   Shape: rows is scratch of 8 * cols floats.
inline void convert_rows(const matrix_view& m, std::size_t first, std::size_t count, dtype type, float* rows, std::byte* out) {
    if (is_packed(type)) return pack_eight_rows(m, first, type, rows, out);
    for (std::size_t r = first; r < first + count; ++r, out += matrix_bytes(type, 1, m.cols)) {
        read_row(m, r, rows);
        for (std::size_t c = 0; c < m.cols; ++c) {
            switch (type) {
                case dtype::f32: reinterpret_cast<float*>(out)[c] = rows[c]; break;
                case dtype::f16: reinterpret_cast<f16*>(out)[c] = to_f16(rows[c]); break;
                default: reinterpret_cast<bf16*>(out)[c] = to_bf16(rows[c]); break;
            }
        }
    }
}

/// Writes one matrix, a few megabytes at a time; the rows of each piece are shared between threads.
template <class Tell>
[[nodiscard]] status convert_matrix(const matrix_view& m, dtype type, executor_ref threads, gguf_sink& out, Tell&& tell) {
    const std::size_t stride = matrix_bytes(type, packed_rows, m.cols);
    const std::size_t blocks = (m.rows + packed_rows - 1) / packed_rows;
    const std::size_t at_once = std::clamp<std::size_t>((std::size_t{4} << 20) / stride, 1, blocks);
    std::vector<std::byte> bytes(at_once * stride);
    std::vector<float> scratch(at_once * packed_rows * m.cols);
    for (std::size_t b = 0; b < blocks; b += at_once) {
        const std::size_t n = std::min(at_once, blocks - b);
        threads.parallel_for(n, 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                const std::size_t first = (b + i) * packed_rows;
                convert_rows(m, first, std::min(packed_rows, m.rows - first), type, scratch.data() + i * packed_rows * m.cols,
                             bytes.data() + i * stride);
            }
        });
        const std::size_t rows = std::min(n * packed_rows, m.rows - b * packed_rows);
        const auto piece = std::span<const std::byte>(bytes).first(matrix_bytes(type, rows, m.cols));
        if (const status ok = out.write(piece); !ok) return ok;
        tell(piece.size());
    }
    return {};
}

}  // namespace detail

/// Writes the model in `from` to `path`, whole or not at all. `info.config` and the rest of `info` say
/// what the file says beside its weights. `tell(done, total)` gets bytes of weights after every few megabytes. Takes about 20 MB of
/// memory. Errors: those of model::bind and write_packed_model.
template <tensor_source Source, class Tell>
[[nodiscard]] status convert_model(const Source& from, const packed_model_info& info, const conversion& how,
                                   const std::filesystem::path& path, executor_ref threads, Tell&& tell) {
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
    std::uint64_t done = 0;
    const auto advance = [&](std::size_t bytes) { tell(done += bytes, total); };
    return write_packed_model(path, info, tensors, [&](std::size_t i, gguf_sink& out) -> status {
        const tensor_view& source = *sources[i];
        if (source.type != tensors[i].type) {
            const matrix_view m{source.data, source.extent[0], source.extent[1], source.type};
            return detail::convert_matrix(m, tensors[i].type, threads, out, advance);
        }
        advance(source.bytes);
        return out.write(std::span(source.data, source.bytes));
    });
}

PHI4FLASH_END
