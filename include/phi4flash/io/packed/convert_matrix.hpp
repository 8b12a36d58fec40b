#pragma once
/// One tensor of a model on its way into a packed file: read ahead, converted by all threads, and written meanwhile.
#include <phi4flash/core/executor.hpp>
#include <phi4flash/core/finite.hpp>
#include <phi4flash/core/span_of.hpp>
#include <phi4flash/io/gguf/gguf_writer.hpp>
#include <phi4flash/io/file/read_ahead.hpp>
#include <phi4flash/kernels/kernel_table.hpp>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

PHI4FLASH_BEGIN

namespace detail {

[[nodiscard]] inline error stopped() { return error::format(errc::cancelled, "stopped by the caller while weights were written"); }

/// Rows [first, first + count) of a plain matrix as f32.   Shape: rows [count, cols].
inline void widen_rows(const kernel_table& kernels, const matrix_view& m, std::size_t first, std::size_t count, float* rows) {
    for (std::size_t r = 0; r < count; ++r)
        kernels.linear[static_cast<std::size_t>(m.type)].widen(m.data, first + r, m.cols, rows + r * m.cols);
}

/// Rows [count, cols] as `type`: eight of them where it is packed.
PHI4FLASH_BODY void narrow_rows(const kernel_table& kernels, const float* rows, std::size_t count, std::size_t cols, dtype type, std::byte* out);

/// The place of the first number that is infinite or NaN or beyond what the largest scale of a packed type reaches (fitting a scale to such
/// numbers may overflow and leave zero); the count where there is none. In integers, whose order is that of magnitudes.
[[nodiscard]] PHI4FLASH_BODY std::size_t first_too_large(std::span<const float> rows, dtype type);

/// The place in rows [count, cols] of a number that is not finite any more in `made`, the same as `type`.
[[nodiscard]] PHI4FLASH_BODY std::optional<std::size_t> find_overflow(std::span<const float> rows, std::size_t cols, dtype type,
                                                                      const std::byte* made);

/// Converts a matrix by pieces of about a megabyte of output; two of them are in memory.
class matrix_converter {
public:
    matrix_converter(const kernel_table& kernels, const matrix_view& m, dtype type, executor_ref threads)
        : kernels_(kernels), m_(m), type_(type), threads_(threads), stride_(matrix_bytes(type, packed_rows, m.cols)),
          blocks_((m.rows + packed_rows - 1) / packed_rows), at_once_(std::clamp<std::size_t>(piece_bytes / stride_, 1, blocks_)),
          scratch_(threads.concurrency()), busy_(new std::atomic<bool>[scratch_.size()]{}) {
        for (auto& rows : scratch_) rows.resize(packed_rows * m.cols);
        for (auto& bytes : made_) bytes.resize(at_once_ * stride_);
    }

    /// `tell(bytes)` after each piece; false stops. Errors: not_finite, naming tensor and element; those of the sink; cancelled.
    template <class Tell>
    [[nodiscard]] status write(const char* name, gguf_sink& out, Tell&& tell) {
        std::span<const std::byte> waiting;  // made, and not yet written
        status written;
        read_ahead(0);
        for (std::size_t b = 0, turn = 0; b < blocks_; b += at_once_, turn ^= 1) {
            const std::size_t n = (std::min)(at_once_, blocks_ - b);
            read_ahead(b + n);
            // Writing comes first, so that somebody begins with it while the others convert.
            const std::size_t jobs = waiting.empty() ? 0 : 1;
            threads_.parallel_for(n + jobs, 1, [&](std::size_t begin, std::size_t end) {
                if (begin < jobs) written = out.write(waiting);
                convert_blocks(b, b + (std::max)(begin, jobs) - jobs, b + (std::max)(end, jobs) - jobs, made_[turn].data());
            });
            if (!written) return written;
            if (const std::size_t place = unfit_.load(); place != SIZE_MAX) return unfit_error(name, place);
            if (!waiting.empty() && !tell(waiting.size())) return stopped();
            const std::size_t rows = (std::min)(n * packed_rows, m_.rows - b * packed_rows);
            waiting = detail::span_of(made_[turn]).first(matrix_bytes(type_, rows, m_.cols));
        }
        if (const status ok = out.write(waiting); !ok) return ok;
        return tell(waiting.size()) ? status() : status(stopped());
    }

private:
    static constexpr std::size_t piece_bytes = std::size_t{1} << 20;

    void read_ahead(std::size_t block) const;

    /// Blocks [begin, end) of the piece that begins with block `base`, which goes to `out`.
    void convert_blocks(std::size_t base, std::size_t begin, std::size_t end, std::byte* out);

    [[nodiscard]] error unfit_error(const char* name, std::size_t place) const;

    const kernel_table& kernels_;
    matrix_view m_;
    dtype type_;
    executor_ref threads_;
    std::size_t stride_;   // bytes of eight rows
    std::size_t blocks_;   // of eight rows; the last may have fewer where nothing is packed
    std::size_t at_once_;  // blocks of a piece
    std::vector<std::vector<float>> scratch_;  // eight rows for each range in flight
    std::unique_ptr<std::atomic<bool>[]> busy_;
    std::vector<std::byte> made_[2];
    std::atomic<std::size_t> unfit_{SIZE_MAX};  // the least place of what cannot be converted
};

/// A tensor that stays as it is, by pieces. Errors: not_finite, naming tensor and element; those of the sink; cancelled.
template <class Tell>
[[nodiscard]] status copy_tensor(const char* name, const tensor_view& source, executor_ref threads, gguf_sink& out, Tell&& tell) {
    constexpr std::size_t piece_bytes = std::size_t{4} << 20;
    if (const auto damaged = find_not_finite(source, threads)) return not_finite_error(name, source.shape(), *damaged);
    for (std::size_t begin = 0; begin < source.bytes; begin += piece_bytes) {
        const auto piece = std::span(source.data, source.bytes).subspan(begin, (std::min)(piece_bytes, source.bytes - begin));
        if (const status ok = out.write(piece); !ok) return ok;
        if (!tell(piece.size())) return stopped();
    }
    return {};
}

#if PHI4FLASH_BODIES
PHI4FLASH_BODY void narrow_rows(const kernel_table& kernels, const float* rows, std::size_t count, std::size_t cols, dtype type, std::byte* out) {
    const std::size_t n = count * cols;
    switch (type) {
        case dtype::f32: std::memcpy(out, rows, n * sizeof(float)); return;
        case dtype::f16:
            for (std::size_t i = 0; i < n; ++i) reinterpret_cast<f16*>(out)[i] = to_f16(rows[i]);
            return;
        case dtype::bf16:
            for (std::size_t i = 0; i < n; ++i) reinterpret_cast<bf16*>(out)[i] = to_bf16(rows[i]);
            return;
        default: kernels.pack[static_cast<std::size_t>(type)](rows, cols, out);
    }
}

PHI4FLASH_BODY std::size_t first_too_large(std::span<const float> rows, dtype type) {
    const std::uint32_t most = std::bit_cast<std::uint32_t>(is_packed(type) ? 65504.0f * 127.0f : (std::numeric_limits<float>::max)());
    constexpr std::size_t block = 256;  // of a length known to the compiler, without an early end: vectors
    const auto beyond = [most](const float& x) { return (std::bit_cast<std::uint32_t>(x) & 0x7fffffffu) > most; };
    std::size_t i = 0;
    for (; i + block <= rows.size(); i += block) {
        unsigned found = 0;
        for (std::size_t k = 0; k < block; ++k) found |= beyond(rows[i + k]) ? 1u : 0u;
        if (found != 0) break;
    }
    while (i < rows.size() && !beyond(rows[i])) ++i;
    return i;
}

PHI4FLASH_BODY std::optional<std::size_t> find_overflow(std::span<const float> rows, std::size_t cols, dtype type, const std::byte* made) {
    if (type == dtype::f32) return std::nullopt;
    const std::size_t shape[] = {rows.size() / cols, cols};
    const auto found = find_not_finite(view_of(made, shape, type));
    if (!found || !is_packed(type)) return found;
    const auto begin = rows.begin() + static_cast<std::ptrdiff_t>(*found);  // of a group, whose largest number it must be
    const auto largest = std::max_element(begin, begin + packed_cols, [](float a, float b) { return std::fabs(a) < std::fabs(b); });
    return static_cast<std::size_t>(largest - rows.begin());
}

PHI4FLASH_BODY void matrix_converter::read_ahead(std::size_t block) const {
    const std::size_t row_bytes = m_.cols * size_of(m_.type);
    const std::size_t first = (std::min)(block * packed_rows, m_.rows);
    const std::size_t rows = (std::min)(2 * at_once_ * packed_rows, m_.rows - first);
    ask_for_pages({m_.data + first * row_bytes, rows * row_bytes});
}

PHI4FLASH_BODY void matrix_converter::convert_blocks(std::size_t base, std::size_t begin, std::size_t end, std::byte* out) {
    if (begin == end) return;
    std::size_t mine = 0;  // as many ranges are in flight as there are scratch rows
    while (busy_[mine].exchange(true, std::memory_order_acquire)) mine = mine + 1 == scratch_.size() ? 0 : mine + 1;
    for (std::size_t b = begin; b < end; ++b) {
        const std::size_t first = b * packed_rows;
        const std::size_t count = (std::min)(packed_rows, m_.rows - first);
        const std::span<float> rows(scratch_[mine].data(), count * m_.cols);
        widen_rows(kernels_, m_, first, count, rows.data());
        std::byte* const block = out + (b - base) * stride_;
        std::size_t unfit = first_too_large(rows, type_);
        if (unfit == rows.size()) {
            narrow_rows(kernels_, rows.data(), count, m_.cols, type_, block);
            unfit = find_overflow(rows, m_.cols, type_, block).value_or(rows.size());
        }
        if (unfit != rows.size()) keep_least(unfit_, first * m_.cols + unfit);
    }
    busy_[mine].store(false, std::memory_order_release);
}

PHI4FLASH_BODY error matrix_converter::unfit_error(const char* name, std::size_t place) const {
    const std::size_t shape[] = {m_.rows, m_.cols};
    std::vector<float> row(m_.cols);
    widen_rows(kernels_, m_, place / m_.cols, 1, row.data());
    const float& value = row[place % m_.cols];
    if (!is_finite(value)) return not_finite_error(name, shape, place);
    return error::format(errc::not_finite, "tensor %s: element [%zu, %zu] is %g, too large for %s: the weights are damaged, or want a wider type",
                         name, place / m_.cols, place % m_.cols, static_cast<double>(value), name_of(type_));
}
#endif

}  // namespace detail

PHI4FLASH_END
