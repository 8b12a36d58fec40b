#pragma once
/// The binder that makes weights: what it finds is checked and measured in a first pass, and filled in a second; nothing is allocated between
/// them that is not needed.
#include <phi4flash/core/error.hpp>
#include <phi4flash/core/finite.hpp>
#include <phi4flash/core/matrix.hpp>
#include <phi4flash/core/memory.hpp>
#include <phi4flash/core/plain_name.hpp>
#include <phi4flash/core/result.hpp>
#include <phi4flash/model/tensor_source.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <span>
#include <string_view>

PHI4FLASH_BEGIN

namespace detail {

/// Whether a source's `find` gave another tensor than the one that was asked for. A view without a name has none to compare.
[[nodiscard]] inline bool has_other_name(const tensor_view& found, std::string_view asked) { return !found.name.empty() && found.name != asked; }

[[nodiscard]] inline error other_name_error(const tensor_view& found, std::string_view asked) {
    return error::format(errc::invalid_argument, "tensor %s: the source finds %s by this name", plain_name(asked).c_str(),
                         plain_name(found.name).c_str());
}

/// Looks tensors up, compares shapes, and widens vectors, whose numbers must be finite: they are few, and read here anyway. The first
/// error sticks, and later calls do nothing.
class tensor_binder {
public:
    tensor_binder(const tensor_source_ref& source, arena memory, bool filling) : source_(source), memory_(memory), filling_(filling) {}

    [[nodiscard]] bool failed() const { return !failure_; }
    [[nodiscard]] const status& failure() const { return failure_; }
    [[nodiscard]] std::size_t bytes() const { return memory_.bytes(); }
    [[nodiscard]] std::size_t found() const { return found_; }

    /// The prefix of all names to come, such as "model.layers.3.".
    void enter_layer(std::size_t layer) { detail::print(prefix_, sizeof prefix_, "model.layers.%zu.", layer); }
    void leave_layers() { std::snprintf(prefix_, sizeof prefix_, "model."); }

    matrix_view matrix(const char* name, std::size_t rows, std::size_t cols) {
        const tensor_view* t = wanted(name, {rows, cols}, is_packable(rows, cols));
        if (t != nullptr && !is_compiled(t->type)) {
            failure_ =
                error::format(errc::wrong_dtype, "tensor %s: weights in %s: this program was compiled without them (PHI4FLASH_HAS_WEIGHTS_%s=0)",
                              full_name(name).text, name_of(t->type), name_of(t->type));
            t = nullptr;
        }
        return t == nullptr ? matrix_view{} : matrix_view{t->data, rows, cols, t->type};
    }

    /// A vector, widened, each number passed through `change`.
    template <class Change>
    const float* vector(const char* name, std::size_t n, Change&& change) {
        const tensor_view* t = wanted(name, {n});
        float* out = memory_.take<float>(n);
        if (filling_ && is_finite(t, name)) {
            for (std::size_t i = 0; i < n; ++i) out[i] = change(element(*t, i));
        }
        return out;
    }
    const float* vector(const char* name, std::size_t n) {
        return vector(name, n, [](float x) { return x; });
    }

    /// A table of n numbers in the kernels' own order: in the second pass, `fill(out, source)` where source(i) reads element i.
    template <class Fill>
    const float* table(const char* name, std::initializer_list<std::size_t> shape, std::size_t n, Fill&& fill) {
        const tensor_view* t = wanted(name, shape);
        float* out = memory_.take<float>(n);
        if (filling_ && is_finite(t, name)) {
            std::memset(out, 0, n * sizeof(float));
            fill(out, [t](std::size_t i) { return element(*t, i); });
        }
        return out;
    }

    /// sum_i a[i] b[i] in double, of two vectors; 0 while only checking.
    double dot(const char* a, const char* b, std::size_t n) {
        const tensor_view* x = wanted(a, {n});
        const tensor_view* y = wanted(b, {n});
        double sum = 0.0;
        if (filling_ && is_finite(x, a) && is_finite(y, b)) {
            for (std::size_t i = 0; i < n; ++i) sum += static_cast<double>(element(*x, i)) * static_cast<double>(element(*y, i));
        }
        return sum;
    }

    template <class T>
    std::span<T> objects(std::size_t n) {
        T* out = memory_.take<T>(n);
        if (!filling_) return {};
        for (std::size_t i = 0; i < n; ++i) std::construct_at(out + i);
        return {out, n};
    }

private:
    static float element(const tensor_view& t, std::size_t i) {
        if (t.type == dtype::f32) {
            float x;
            std::memcpy(&x, t.data + 4 * i, 4);
            return x;
        }
        std::uint16_t bits;
        std::memcpy(&bits, t.data + 2 * i, 2);
        return t.type == dtype::bf16 ? to_f32(bf16{bits}) : to_f32(f16{bits});
    }

    /// Whether the tensor was found and holds finite numbers only.
    bool is_finite(const tensor_view* t, const char* name) {
        if (t == nullptr || failed()) return false;
        const auto damaged = find_not_finite(*t);
        if (damaged) failure_ = not_finite_error(full_name(name).text, t->shape(), *damaged);
        return !damaged;
    }

    struct tensor_name {
        char text[160];
    };
    tensor_name full_name(const char* name) const {
        tensor_name full;
        std::snprintf(full.text, sizeof full.text, "%s%s", prefix_, name);
        return full;
    }

    /// The tensor of that name, with that shape, of a plain type (or a packed one, where that may be), and as many bytes as it needs: a
    /// source may be a host's own table, of which nothing is known yet.
    const tensor_view* wanted(const char* name, std::initializer_list<std::size_t> shape, bool may_be_packed = false) {
        if (failed()) return nullptr;
        const tensor_name named = full_name(name);
        const char* const full = named.text;
        const tensor_view* t = source_.find(full);
        if (t == nullptr) {
            char want[96];
            failure_ = error::format(errc::missing_tensor, "tensor %s is missing: want %s", full, print_shape(shape, want, sizeof want));
            const std::span<const tensor_view> all = source_.tensors();
            if (!all.empty() && !all.front().name.empty())  // such as "embed_tokens.weight", without the prefix
                failure_ = error::format(errc::missing_tensor, "%s; the first of the %zu tensors that there are is %s",
                                         failure_.error().message(), all.size(), plain_name(all.front().name).c_str());
            return nullptr;
        }
        if (has_other_name(*t, full)) {
            failure_ = other_name_error(*t, full);
            return nullptr;
        }
        if (static_cast<std::size_t>(t->type) >= dtype_count) {
            failure_ = error::format(errc::unknown_dtype, "tensor %s: want a type of this library, have number %u", full,
                                     static_cast<unsigned>(t->type));
            return nullptr;
        }
        if (t->rank > tensor_view::max_rank) {
            failure_ = error::format(errc::rank_too_high, "tensor %s: want at most %zu extents, have %zu", full, std::size_t{tensor_view::max_rank},
                                     t->rank);
            return nullptr;
        }
        const auto have_shape = t->shape();
        if (!std::equal(have_shape.data(), have_shape.data() + have_shape.size(), shape.begin(), shape.end())) {
            char want[96];
            char have[96];
            failure_ = error::format(errc::wrong_shape, "tensor %s: want shape %s, have %s", full, print_shape(shape, want, sizeof want),
                                     print_shape(t->shape(), have, sizeof have));
            return nullptr;
        }
        if (is_packed(t->type) && !may_be_packed) {
            failure_ = error::format(errc::wrong_dtype, "tensor %s: want F32, F16 or BF16, have %s", full, name_of(t->type));
            return nullptr;
        }
        std::size_t count = 1;
        for (const std::size_t n : shape) count *= n;
        const std::size_t bytes = is_packed(t->type) ? matrix_bytes(t->type, t->extent[0], t->extent[1]) : count * size_of(t->type);
        if (t->data == nullptr || t->bytes != bytes) {
            failure_ = error::format(errc::size_mismatch, "tensor %s: want %zu bytes of %s, have %s%zu", full, bytes, name_of(t->type),
                                     t->data == nullptr ? "a null pointer and " : "", t->bytes);
            return nullptr;
        }
        if (!t->is_aligned()) {
            failure_ = error::format(errc::offset_misaligned, "tensor %s: its data must begin at a multiple of %zu bytes for %s", full,
                                     alignment_of(t->type), name_of(t->type));
            return nullptr;
        }
        ++found_;
        return t;
    }

    template <class Extents>
    static const char* print_shape(const Extents& shape, char* out, std::size_t size) {
        std::size_t used = 0;
        const char* separator = "[";
        out[0] = '\0';
        for (const std::size_t n : shape) {
            const int written = detail::print(out + used, size - used, "%s%zu", separator, n);
            if (written < 0 || used + static_cast<std::size_t>(written) + 2 > size) break;
            used += static_cast<std::size_t>(written);
            separator = ", ";
        }
        std::snprintf(out + used, size - used, used == 0 ? "[]" : "]");
        return out;
    }

    tensor_source_ref source_;
    arena memory_;
    status failure_;
    std::size_t found_ = 0;
    bool filling_;
    char prefix_[48] = "model.";
};

}  // namespace detail

PHI4FLASH_END
