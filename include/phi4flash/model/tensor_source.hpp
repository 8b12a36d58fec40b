#pragma once
/// Where the tensors of a model are found: by name, whoever has them.
#include <phi4flash/core/matrix.hpp>

#include <concepts>
#include <memory>
#include <span>
#include <string_view>
#include <type_traits>

PHI4FLASH_BEGIN

/// Anything that finds tensors by name: a checkpoint folder, a packed file, or a host's own table. What `find` returns has that name, or none;
/// `tensors` returns a reference to a container that lives as long as the source, or a view (a borrowed range, as std::span is one), not a
/// container of its own.
template <class S>
concept tensor_source = requires(const S& source, std::string_view name) {
    { source.find(name) } -> std::convertible_to<const tensor_view*>;
    { source.tensors() } -> std::convertible_to<std::span<const tensor_view>>;
    requires std::is_lvalue_reference_v<decltype(source.tensors())> ||
                 std::ranges::enable_borrowed_range<std::remove_cvref_t<decltype(source.tensors())>>;
};

namespace detail {

/// Any of them by reference, so that what binds a model needs no copy for each.
class tensor_source_ref {
public:
    template <class S>
        requires(!std::same_as<S, tensor_source_ref> && tensor_source<S>)
    tensor_source_ref(const S& source)  // NOLINT(google-explicit-constructor)
        : self_(std::addressof(source)), find_([](const void* self, std::string_view name) {
              return static_cast<const tensor_view*>(static_cast<const S*>(self)->find(name));
          }),
          tensors_([](const void* self) { return std::span<const tensor_view>(static_cast<const S*>(self)->tensors()); }) {}

    [[nodiscard]] const tensor_view* find(std::string_view name) const { return find_(self_, name); }
    [[nodiscard]] std::span<const tensor_view> tensors() const { return tensors_(self_); }

private:
    const void* self_;
    const tensor_view* (*find_)(const void*, std::string_view);
    std::span<const tensor_view> (*tensors_)(const void*);
};

}  // namespace detail

PHI4FLASH_END
