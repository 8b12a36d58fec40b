#pragma once
/// The tensors of a SambaY checkpoint: names and shapes, for programs that write one and for saying which one is too many. The list
/// is the binder's own, so the two cannot disagree.
#include <phi4flash/core/matrix.hpp>
#include <phi4flash/core/memory.hpp>
#include <phi4flash/model/bind.hpp>
#include <phi4flash/model/weight_types.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <memory>
#include <span>
#include <string_view>
#include <type_traits>

PHI4FLASH_BEGIN

namespace detail {

/// A non-owning reference to something callable with the name, the extents and the role of a tensor.
class tensor_visitor_ref {
public:
    template <class Visit>
        requires(!std::same_as<std::remove_cvref_t<Visit>, tensor_visitor_ref>)
    tensor_visitor_ref(Visit&& visit)  // NOLINT(google-explicit-constructor,bugprone-forwarding-reference-overload)
        : self_(const_cast<void*>(static_cast<const void*>(std::addressof(visit)))),
          call_([](void* self, std::string_view name, std::span<const std::size_t> shape, tensor_role role) {
              (*static_cast<std::remove_reference_t<Visit>*>(self))(name, shape, role);
          }) {}

    void operator()(std::string_view name, std::span<const std::size_t> shape, tensor_role role) const { call_(self_, name, shape, role); }

private:
    void* self_;
    void (*call_)(void*, std::string_view, std::span<const std::size_t>, tensor_role);
};

/// Calls `visit` for every tensor of a model of that shape, which breaks no rule.
PHI4FLASH_BODY void list_tensors(const sambay_shape& shape, tensor_visitor_ref visit);

/// Stands where bind_all expects a binder, and adds up, at compile time too: bytes of the tensors as they are stored, and of what a bound
/// model owns.
class weights_meter {
public:
    constexpr explicit weights_meter(const weight_types& types) : types_(types) {}

    [[nodiscard]] constexpr std::uint64_t weights() const { return weights_; }
    [[nodiscard]] constexpr std::size_t parameters() const { return owned_.bytes(); }

    [[nodiscard]] constexpr bool failed() const { return false; }
    constexpr void enter_layer(std::size_t) {}
    constexpr void leave_layers() {}
    constexpr matrix_view matrix(const char* name, std::size_t rows, std::size_t cols) {
        const dtype type = types_.of_matrix(name, rows, cols);
        const std::size_t block = is_packed(type) ? packed_rows : 1;  // all of it may be more than 32 bits count
        weights_ += std::uint64_t{rows / block} * matrix_bytes(type, block, cols);
        return {};
    }
    template <class... Change>
    constexpr const float* vector(const char*, std::size_t n, Change&&...) {
        add(n, types_.parameters);
        return owned_.take<float>(n);
    }
    template <class Fill>
    constexpr const float* table(const char* name, std::initializer_list<std::size_t> shape, std::size_t n, Fill&&) {
        std::size_t stored = 1;
        for (const std::size_t extent : shape) stored *= extent;
        add(stored, std::string_view(name).ends_with("A_log") ? types_.exact_parameters : types_.parameters);
        return owned_.take<float>(n);
    }
    constexpr double dot(const char*, const char*, std::size_t n) { return add(2 * n, types_.exact_parameters), 0.0; }
    template <class T>
    constexpr std::span<T> objects(std::size_t n) {
        return (void)owned_.take<T>(n), std::span<T>();
    }

private:
    constexpr void add(std::size_t numbers, dtype type) { weights_ += std::uint64_t{numbers} * size_of(type); }

    weight_types types_;
    std::uint64_t weights_ = 0;
    arena owned_;
};

}  // namespace detail

/// Calls `visit(name, shape, role)` for every tensor that `model::bind` asks for, once each: a std::string_view and a span of
/// extents that are valid during the call, and a tensor_role.
template <sambay_shape Shape, class Visit>
void for_each_tensor(const extents<Shape>& e, Visit&& visit) {
    const auto tell = [&visit](std::string_view name, std::span<const std::size_t> shape, tensor_role role) { (void)visit(name, shape, role); };
    detail::list_tensors(e.shape(), tell);
}

/// Parameters of a model of this shape, each once (an lm_head that repeats the embedding counts for nothing), whatever its files
/// store them as. 0 for a shape that check_shape refuses. @since 0.2
[[nodiscard]] PHI4FLASH_BODY std::uint64_t parameter_count(const sambay_shape& shape);

#if PHI4FLASH_BODIES
namespace detail {
/// Stands where bind_all expects a binder, and tells what it is asked for.
class tensor_lister {
public:
    explicit tensor_lister(tensor_visitor_ref visit) : visit_(visit) {}

    [[nodiscard]] bool failed() const { return false; }
    void enter_layer(std::size_t layer) { detail::print(prefix_, sizeof prefix_, "model.layers.%zu.", layer); }
    void leave_layers() { std::snprintf(prefix_, sizeof prefix_, "model."); }

    matrix_view matrix(const char* name, std::size_t rows, std::size_t cols) { return tell(name, {rows, cols}, tensor_role::matrix), matrix_view{}; }
    template <class... Change>
    const float* vector(const char* name, std::size_t n, Change&&...) {
        return tell(name, {n}), nullptr;
    }
    template <class Fill>
    const float* table(const char* name, std::initializer_list<std::size_t> shape, std::size_t, Fill&&) {
        return tell(name, shape), nullptr;
    }
    double dot(const char* a, const char* b, std::size_t n) { return tell(a, {n}), tell(b, {n}), 0.0; }
    template <class T>
    std::span<T> objects(std::size_t) {
        return {};
    }

private:
    void tell(const char* name, std::initializer_list<std::size_t> shape, tensor_role role = tensor_role::parameter) {
        char full[160];
        std::snprintf(full, sizeof full, "%s%s", prefix_, name);
        visit_(std::string_view(full), std::span<const std::size_t>(shape.begin(), shape.size()), role);
    }

    tensor_visitor_ref visit_;
    char prefix_[48] = "model.";
};

PHI4FLASH_COLD_BODY void list_tensors(const sambay_shape& shape, tensor_visitor_ref visit) {
    tensor_lister lister(visit);
    (void)bind_all(lister, extents<any_sambay>::of(shape), 1e-5f);
}
}  // namespace detail

PHI4FLASH_COLD_BODY std::uint64_t parameter_count(const sambay_shape& shape) {
    if (!check_shape(shape)) return 0;
    std::uint64_t sum = 0;
    detail::list_tensors(shape, [&](std::string_view, std::span<const std::size_t> extent, tensor_role) {
        std::uint64_t n = 1;
        for (const std::size_t size : extent) n *= size;
        sum += n;
    });
    return sum;
}
#endif

PHI4FLASH_END
