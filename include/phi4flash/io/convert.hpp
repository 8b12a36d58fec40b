#pragma once
/// Converts a model into one packed file: matrices to the chosen types, everything else as it is.
#include <phi4flash/core/finite.hpp>
#include <phi4flash/core/packing.hpp>
#include <phi4flash/io/packed_model_writer.hpp>
#include <phi4flash/model/model.hpp>
#include <phi4flash/model/tensor_list.hpp>

#include <algorithm>
#include <cmath>
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

/// Rows [first, first + count) of a plain matrix as `type`.   Shape: rows [count, cols] gets them as f32; room for 8 rows.
inline void convert_rows(const matrix_view& m, std::size_t first, std::size_t count, dtype type, float* rows, std::byte* out) {
    if (is_packed(type)) return pack_eight_rows(m, first, type, rows, out);
    for (std::size_t r = first; r < first + count; ++r, out += matrix_bytes(type, 1, m.cols)) {
        float* const row = rows + (r - first) * m.cols;
        read_row(m, r, row);
        for (std::size_t c = 0; c < m.cols; ++c) {
            switch (type) {
                case dtype::f32: reinterpret_cast<float*>(out)[c] = row[c]; break;
                case dtype::f16: reinterpret_cast<f16*>(out)[c] = to_f16(row[c]); break;
                default: reinterpret_cast<bf16*>(out)[c] = to_bf16(row[c]); break;
            }
        }
    }
}

[[nodiscard]] inline error stopped() { return error::format(errc::cancelled, "stopped by the caller while weights were written"); }

/// The place in rows [count, cols] of a number that is not finite, or not finite any more in `out`, the same as `type`.
[[nodiscard]] inline std::optional<std::size_t> find_unfit(std::span<const float> rows, std::size_t cols, dtype type, const std::byte* out) {
    const std::size_t strange = first_not_finite(rows);
    if (strange < rows.size()) return strange;
    const std::size_t shape[] = {rows.size() / cols, cols};
    const tensor_view made = view_of(out, shape, type);
    if (!is_packed(type)) return find_not_finite(made);
    // Beyond what the largest scale reaches; fitting a scale to such numbers may overflow and leave zero.
    constexpr float most = 65504.0f * 127.0f;
    const auto magnitude = [](float x) { return std::fabs(x); };
    const auto large = std::ranges::find_if(rows, [](float x) { return x > most; }, magnitude);
    if (large != rows.end()) return static_cast<std::size_t>(large - rows.begin());
    const auto group = find_not_finite(made);
    if (!group) return std::nullopt;
    const auto begin = rows.begin() + static_cast<std::ptrdiff_t>(*group);
    return static_cast<std::size_t>(std::ranges::max_element(begin, begin + packed_cols, {}, magnitude) - rows.begin());
}

[[nodiscard]] inline error unfit_error(const char* name, const matrix_view& m, std::size_t place, dtype type) {
    const std::size_t shape[] = {m.rows, m.cols};
    std::vector<float> row(m.cols);
    read_row(m, place / m.cols, row.data());
    const float& value = row[place % m.cols];
    if (!is_finite(value)) return not_finite_error(name, shape, place);
    return error::format(errc::not_finite, "tensor %s: element [%zu, %zu] is %g, too large for %s: the weights are damaged, or want a wider type",
                         name, place / m.cols, place % m.cols, static_cast<double>(value), name_of(type));
}

/// Writes one matrix, a few megabytes at a time; the rows of each piece are shared between threads. Errors: not_finite.
template <class Tell>
[[nodiscard]] status convert_matrix(const char* name, const matrix_view& m, dtype type, executor_ref threads, gguf_sink& out, Tell&& tell) {
    const std::size_t stride = matrix_bytes(type, packed_rows, m.cols);
    const std::size_t blocks = (m.rows + packed_rows - 1) / packed_rows;
    const std::size_t at_once = std::clamp<std::size_t>((std::size_t{4} << 20) / stride, 1, blocks);
    std::vector<std::byte> bytes(at_once * stride);
    std::vector<float> scratch(at_once * packed_rows * m.cols);
    for (std::size_t b = 0; b < blocks; b += at_once) {
        const std::size_t n = std::min(at_once, blocks - b);
        std::atomic<std::size_t> unfit{SIZE_MAX};
        threads.parallel_for(n, 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                const std::size_t first = (b + i) * packed_rows;
                const std::size_t count = std::min(packed_rows, m.rows - first);
                const std::span<float> rows(scratch.data() + i * packed_rows * m.cols, count * m.cols);
                convert_rows(m, first, count, type, rows.data(), bytes.data() + i * stride);
                if (const auto found = find_unfit(rows, m.cols, type, bytes.data() + i * stride))
                    keep_least(unfit, first * m.cols + *found);
            }
        });
        if (unfit.load() != SIZE_MAX) return unfit_error(name, m, unfit.load(), type);
        const std::size_t rows = std::min(n * packed_rows, m.rows - b * packed_rows);
        const auto piece = std::span<const std::byte>(bytes).first(matrix_bytes(type, rows, m.cols));
        if (const status ok = out.write(piece); !ok) return ok;
        if (!tell(piece.size())) return stopped();
    }
    return {};
}

}  // namespace detail

/// Writes the model in `from` to `path`, whole or not at all. `info.config` and the rest of `info` say
/// what the file says beside its weights. `tell(done, total)` gets bytes of weights after every few megabytes, as std::uint64_t on the
/// calling thread; false stops (a void function never does). Takes about 20 MB of memory. Errors: those of model::bind and
/// write_packed_model; cancelled; not_finite, naming the tensor and the first element that is infinite, NaN, or beyond its new type.
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
    const auto advance = [&](std::size_t bytes) {
        done += bytes;
        if constexpr (std::is_void_v<decltype(tell(done, total))>) {
            tell(done, total);
            return true;
        } else {
            return static_cast<bool>(tell(done, total));
        }
    };
    return write_packed_model(path, info, tensors, [&](std::size_t i, gguf_sink& out) -> status {
        const tensor_view& source = *sources[i];
        if (source.type != tensors[i].type) {
            const matrix_view m{source.data, source.extent[0], source.extent[1], source.type};
            return detail::convert_matrix(tensors[i].name.c_str(), m, tensors[i].type, threads, out, advance);
        }
        if (const auto damaged = find_not_finite(source, threads))
            return not_finite_error(tensors[i].name.c_str(), source.shape(), *damaged);
        if (!advance(source.bytes)) return detail::stopped();
        return out.write(std::span(source.data, source.bytes));
    });
}

PHI4FLASH_END
