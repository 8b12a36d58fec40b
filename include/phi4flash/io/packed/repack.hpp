#pragma once
/// Quantized tensors of an ordinary row-major GGUF file, as packed rows in memory of their own. A file in the packed layout needs
/// none of this.
///
/// | in the file         | in memory | error against the file's own numbers (tests/io/packed/repack_test.cpp)                        |
/// |---------------------|-----------|----------------------------------------------------------------------------------------|
/// | Q8_0                | q8        | none: the same integers and scales in another order                                    |
/// | Q4_0                | q4        | none: likewise                                                                         |
/// | IQ4_NL              | q8        | none: its levels are whole numbers of 8 bits                                           |
/// | Q4_K, Q6_K          | q8        | at most max |w| / 254 over 32 columns, and 2^-18 where scales are subnormal            |
/// | any, not packable   | f32       | none                                                                                   |
///
/// Widened to f32, row-major, are tensors that packed rows cannot hold (vectors, higher ranks, rows that are no multiple of 8; the
/// columns are whole blocks of 32 in any file) and those that the model reads number by number, such as A_log. They are small, so
/// f32, which holds all of these types' numbers, costs less than the question what bf16 would lose.
///
/// F32, F16 and BF16 stay in the file.
#include <phi4flash/core/packing.hpp>
#include <phi4flash/core/sort_once.hpp>
#include <phi4flash/core/span_of.hpp>
#include <phi4flash/io/packed/model.hpp>
#include <phi4flash/model/tensor_list.hpp>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

PHI4FLASH_BEGIN

/// Who repacks, who is told, and where the memory comes from.
struct repack_options {
    executor_ref executor = {};           ///< shares the work of each tensor; the memory has the same bits for any
    page_size pages = page_size::normal;  ///< of the memory that is taken
    block_source memory{};                ///< that it is taken from
};

namespace detail {

[[nodiscard]] inline bool finite_halves(const std::byte* p, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i)
        if ((number_at<std::uint16_t>(p + 2 * i) & 0x7c00u) == 0x7c00u) return false;
    return true;
}

/// Q8_0 (eight words of four codes a block) and Q4_0 (four words, whose low nibbles are columns 0 to 15 and whose high nibbles are
/// 16 to 31): the packed blocks have the very same words, those of eight rows side by side. False if a scale is not finite.
template <std::size_t Words>
[[nodiscard]] bool reorder_eight_rows(const std::byte* rows, std::size_t row_bytes, std::size_t groups, std::byte* out) {
    constexpr std::size_t bytes = 2 + 4 * Words;
    bool finite = true;
    for (std::size_t g = 0; g < groups; ++g, rows += bytes, out += packed_rows * bytes) {
        for (std::size_t r = 0; r < packed_rows; ++r) {
            const std::byte* const from = rows + r * row_bytes;
            finite = finite && finite_halves(from, 1);
            std::memcpy(out + 2 * r, from, 2);
            for (std::size_t i = 0; i < Words; ++i) std::memcpy(out + 2 * packed_rows + 32 * i + 4 * r, from + 2 + 4 * i, 4);
        }
    }
    return finite;
}

/// IQ4_NL: its levels as codes of 8 bits.
[[nodiscard]] PHI4FLASH_BODY bool level_eight_rows(const std::byte* rows, std::size_t row_bytes, std::size_t groups, std::byte* out);

/// Q4_K and Q6_K: decoded, and rounded to 8 bits again. False also if a packed scale would leave the range of f16.
[[nodiscard]] PHI4FLASH_BODY bool round_eight_rows(const ggml_format& format, const std::byte* rows, std::size_t row_bytes, std::size_t groups,
                                                   std::byte* out);

[[nodiscard]] PHI4FLASH_BODY bool repack_eight_rows(const ggml_format& format, const std::byte* rows, std::size_t row_bytes, std::size_t groups,
                                                    std::byte* out);

[[nodiscard]] PHI4FLASH_BODY bool widen_row(const ggml_format& format, const std::byte* row, std::size_t cols, std::byte* out);

/// One tensor into view.bytes bytes at `out`. Errors: not_finite, naming the tensor, and the first block of those in the file.
[[nodiscard]] PHI4FLASH_BODY status repack_tensor(const gguf_tensor& t, const tensor_view& view, std::byte* out, executor_ref executor);

/// What a tensor that cannot be used in place becomes; without `data`. Errors: size_overflow.
[[nodiscard]] PHI4FLASH_BODY result<tensor_view> plan_repacked(const gguf_tensor& t, bool widen);

/// "attn.D" of "model.layers.12.attn.D": a tensor's name is the same in every layer. Other names are as they are.
[[nodiscard]] constexpr std::string_view name_in_layer(std::string_view name) {
    constexpr std::string_view layers = "model.layers.";
    if (!name.starts_with(layers)) return name;
    const std::size_t dot = name.find('.', layers.size());
    return dot == std::string_view::npos ? name : name.substr(dot + 1);
}

/// Every weight of a file, by name, and what it takes to have them all.
struct repack_plan {
    std::vector<tensor_view> tensors;
    std::vector<const gguf_tensor*> sources;  ///< of each, or nullptr where it is used in place
    std::size_t bytes = 0;                    ///< of memory, each tensor at a multiple of block_alignment
    std::uint64_t source_bytes = 0;           ///< of the tensors to be repacked

    /// Errors: size_overflow; those of extents::from.
    static result<repack_plan> of(const packed_model& from) {
        return or_out_of_memory("plan what is repacked", [&] { return make(from); });
    }

private:
    static result<repack_plan> make(const packed_model& from);
};

#if PHI4FLASH_BODIES
PHI4FLASH_BODY bool level_eight_rows(const std::byte* rows, std::size_t row_bytes, std::size_t groups, std::byte* out) {
    constexpr std::size_t bytes = format_of(ggml_type::iq4_nl).block_bytes;
    bool finite = true;
    for (std::size_t g = 0; g < groups; ++g, rows += bytes, out += sizeof(q8_block)) {
        auto& block = *reinterpret_cast<q8_block*>(out);
        for (std::size_t r = 0; r < packed_rows; ++r) {
            const std::byte* const from = rows + r * row_bytes;
            finite = finite && finite_halves(from, 1);
            block.scale[r] = number_at<f16>(from);
            for (std::size_t i = 0; i < 16; ++i) {
                const unsigned q = byte_at(from, 2 + i);
                block.code[i / 4][4 * r + i % 4] = iq4_nl_levels[q & 15];
                block.code[4 + i / 4][4 * r + i % 4] = iq4_nl_levels[q >> 4];
            }
        }
    }
    return finite;
}

PHI4FLASH_BODY bool round_eight_rows(const ggml_format& format, const std::byte* rows, std::size_t row_bytes, std::size_t groups, std::byte* out) {
    constexpr std::size_t length = 256;
    constexpr std::size_t parts = length / packed_cols;
    auto* const blocks = reinterpret_cast<q8_block*>(out);
    bool finite = true;
    for (std::size_t r = 0; r < packed_rows; ++r) {
        const std::byte* from = rows + r * row_bytes;
        for (std::size_t g = 0; g < groups; g += parts, from += format.block_bytes) {
            float x[length];
            finite = finite && finite_halves(from + format.scale_offset, format.n_scales);
            (void)decode_ggml(format.type, from, length, x);
            for (std::size_t i = 0; i < parts; ++i) {
                encode_row(blocks[g + i], r, x + i * packed_cols);
                finite = finite && (blocks[g + i].scale[r].bits & 0x7c00u) != 0x7c00u;
            }
        }
    }
    return finite;
}

PHI4FLASH_BODY bool repack_eight_rows(const ggml_format& format, const std::byte* rows, std::size_t row_bytes, std::size_t groups, std::byte* out) {
    switch (format.type) {
        case ggml_type::q8_0: return reorder_eight_rows<8>(rows, row_bytes, groups, out);
        case ggml_type::q4_0: return reorder_eight_rows<4>(rows, row_bytes, groups, out);
        case ggml_type::iq4_nl: return level_eight_rows(rows, row_bytes, groups, out);
        default: return round_eight_rows(format, rows, row_bytes, groups, out);
    }
}

PHI4FLASH_BODY bool widen_row(const ggml_format& format, const std::byte* row, std::size_t cols, std::byte* out) {
    for (std::size_t i = 0; i < cols; i += format.block_length, row += format.block_bytes) {
        float x[256];
        if (!finite_halves(row + format.scale_offset, format.n_scales)) return false;
        (void)decode_ggml(format.type, row, format.block_length, x);
        std::memcpy(out + 4 * i, x, std::size_t{4} * format.block_length);
    }
    return true;
}

PHI4FLASH_BODY status repack_tensor(const gguf_tensor& t, const tensor_view& view, std::byte* out, executor_ref executor) {
    constexpr std::size_t grain_bytes = std::size_t{1} << 16;
    const ggml_format& format = *t.format;
    const std::size_t rows = is_packed(view.type) ? packed_rows : 1;
    const std::size_t row_bytes = t.cols() / format.block_length * format.block_bytes;
    const std::size_t out_bytes = matrix_bytes(view.type, rows, t.cols());
    std::atomic<bool> damaged{false};
    executor.parallel_for(t.rows() / rows, grain_bytes / (out_bytes + 1) + 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            const std::byte* const from = t.data + i * rows * row_bytes;
            std::byte* const to = out + i * out_bytes;
            const bool finite = rows == 1 ? widen_row(format, from, t.cols(), to)
                                          : repack_eight_rows(format, from, row_bytes, t.cols() / packed_cols, to);
            if (!finite) damaged.store(true, std::memory_order_relaxed);
        }
    });
    if (!damaged.load(std::memory_order_relaxed)) return {};
    if (const status ok = check_scales(t); !ok) return ok;  // says where, and the same for any number of threads
    return error::format(errc::not_finite, "tensor '%s': numbers of this %s are too large for the scales of packed rows",
                         printable(t.name).c_str(), format.name);
}

PHI4FLASH_BODY result<tensor_view> plan_repacked(const gguf_tensor& t, bool widen) {
    tensor_view view{.name = t.name, .rank = t.rank};
    for (std::size_t i = 0; i < t.rank; ++i) view.extent[i] = t.extent[i];
    const bool packs = !widen && t.rank == 2 && is_packable(t.extent[0], t.extent[1]);
    if (packs) view.type = t.format->type == ggml_type::q4_0 ? dtype::q4 : dtype::q8;
    const std::size_t unit = packs ? packed_rows * packed_cols : 1;
    const std::size_t unit_bytes = packs ? matrix_bytes(view.type, packed_rows, packed_cols) : sizeof(float);
    if (t.count() / unit > static_cast<std::size_t>(PTRDIFF_MAX) / unit_bytes)
        return error::format(errc::size_overflow, "tensor '%s': repacked, it would not fit the address space",
                             printable(t.name).c_str());
    view.bytes = t.count() / unit * unit_bytes;
    return view;
}

PHI4FLASH_BODY result<repack_plan> repack_plan::make(const packed_model& from) {
    repack_plan plan;
    std::vector<std::string> tables;
    if (from.needs_repacking()) {
        sambay_shape few = from.config().shape;
        few.n_layers = (std::min)(few.n_layers, std::size_t{8});  // every kind of layer is among them, and a small file may claim millions
        const auto e = extents<any_sambay>::from(few);
        if (!e) return e.error();
        for_each_tensor(*e, [&](std::string_view name, std::span<const std::size_t>, tensor_role role) {
            if (role != tensor_role::matrix) tables.emplace_back(name_in_layer(name));
        });
        detail::sort_once(tables);
    }
    for (const gguf_tensor& t : from.file().tensors()) {
        if (t.name.starts_with(packed_array_prefix)) continue;
        const tensor_view* const in_place = from.find(t.name);
        const auto view = in_place != nullptr ? result<tensor_view>(*in_place)
                                              : plan_repacked(t, std::binary_search(tables.begin(), tables.end(), name_in_layer(t.name)));
        if (!view) return view.error();
        plan.tensors.push_back(*view);
        plan.sources.push_back(in_place != nullptr ? nullptr : &t);
        if (in_place != nullptr) continue;
        constexpr auto most = static_cast<std::size_t>(PTRDIFF_MAX) - 2 * block_alignment;
        if (view->bytes > most || round_up(view->bytes, block_alignment) > most - plan.bytes)
            return error::format(errc::size_overflow, "tensor '%s': the repacked tensors would not fit the address space",
                                 printable(t.name).c_str());
        plan.bytes += round_up(view->bytes, block_alignment);
        plan.source_bytes += t.bytes;
    }
    return plan;
}
#endif

}  // namespace detail

/// All weights of a file, ready to be bound: a tensor_source. The file must outlive it: names and plain tensors point there.
/// Movable; its views stay valid. Reading from several threads is safe.
class repacked_model {
public:
    repacked_model() = default;
    repacked_model(repacked_model&&) = default;
    repacked_model& operator=(repacked_model&&) = default;

    /// Bytes that `create` will take. Looks at no weight. Errors: size_overflow, naming the tensor; out_of_memory.
    static result<std::size_t> bytes_needed(const packed_model& from) {
        const auto plan = detail::repack_plan::of(from);
        if (!plan) return plan.error();
        return plan->bytes;
    }

    /// Repacks tensor by tensor, after everything has been measured and all memory taken at once. After each tensor
    /// `progress(done, total)`, bytes of the file as std::uint64_t, on the calling thread; false stops. Errors, naming the tensor:
    /// size_overflow, before memory is taken; out_of_memory; not_finite (scales); cancelled.
    template <class Progress>
    static result<repacked_model> create(const packed_model& from, const repack_options& options, Progress&& progress);
    static result<repacked_model> create(const packed_model& from, const repack_options& options = {}) {
        return create(from, options, [](std::uint64_t, std::uint64_t) { return true; });
    }

    /// All weights, sorted by name.
    [[nodiscard]] std::span<const tensor_view> tensors() const { return detail::span_of(tensors_); }
    [[nodiscard]] const tensor_view* find(std::string_view name) const { return find_tensor(detail::span_of(tensors_), name); }
    [[nodiscard]] const sambay_config& config() const { return config_; }
    /// Memory that it owns; 0 if everything could be used in place.
    [[nodiscard]] std::size_t owned_bytes() const { return memory_.bytes().size(); }
    /// How much of that lies in huge pages now; see bytes_in_huge_pages.
    [[nodiscard]] std::size_t huge_bytes() const { return memory_.huge_bytes(); }

private:
    memory_block memory_;
    std::vector<tensor_view> tensors_;
    sambay_config config_;
};

template <class Progress>
result<repacked_model> repacked_model::create(const packed_model& from, const repack_options& options, Progress&& progress) {
    constexpr std::uint64_t release_every = std::uint64_t{256} << 20;
    auto plan = detail::repack_plan::of(from);
    if (!plan) return plan.error();
    repacked_model model;
    model.config_ = from.config();
    model.tensors_ = std::move(plan->tensors);
    if (plan->source_bytes == 0) return model;
    auto block = memory_block::allocate(plan->bytes, "repacked weights", options.pages, SIZE_MAX, options.memory);
    if (!block) return block.error();
    model.memory_ = *std::move(block);
    arena memory(model.memory_.bytes().data());
    std::uint64_t done = 0;
    std::uint64_t held = 0;
    for (std::size_t i = 0; i < model.tensors_.size(); ++i) {
        const gguf_tensor* const source = plan->sources[i];
        if (source == nullptr) continue;
        tensor_view& view = model.tensors_[i];
        auto* const place = memory.take<std::byte>(view.bytes);
        view.data = place;
        if (const status ok = detail::repack_tensor(*source, view, place, options.executor); !ok) return ok.error();
        done += source->bytes;
        held += source->bytes;
        if (held >= release_every || done == plan->source_bytes) {  // read once: the file need not count as memory any longer
            from.release_pages();
            held = 0;
        }
        if (!progress(done, plan->source_bytes))
            return error::format(errc::cancelled, "stopped by the caller after %llu of %llu bytes of weights",
                                 static_cast<unsigned long long>(done), static_cast<unsigned long long>(plan->source_bytes));
    }
    return model;
}

PHI4FLASH_END
