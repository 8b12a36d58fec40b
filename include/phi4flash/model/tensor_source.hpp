#pragma once
/// Where the tensors of a model are found: by name, whoever has them.
#include <phi4flash/core/matrix.hpp>

#include <concepts>
#include <memory>
#include <span>
#include <string_view>
#include <type_traits>

PHI4FLASH_BEGIN

/// Anything that finds tensors by name: a checkpoint folder, a packed file, or a host's own table. What `tensors` returns is a view, or refers
/// to what lives as long as the source.
template <class S>
concept tensor_source = requires(const S& source, std::string_view name) {
    { source.find(name) } -> std::convertible_to<const tensor_view*>;
    { source.tensors() } -> std::convertible_to<std::span<const tensor_view>>;
    requires std::is_reference_v<decltype(source.tensors())> || std::is_trivially_destructible_v<decltype(source.tensors())>;
};

namespace detail {

/// Any of them by reference, so that what binds a model is compiled once.
class tensor_source_ref {
public:
    template <class S>
        requires(!std::same_as<S, tensor_source_ref> && tensor_source<S>)
    tensor_source_ref(const S& source)  // NOLINT(google-explicit-constructor)
        : self_(std::addressof(source)), tensors_(source.tensors()), find_([](const void* self, std::string_view name) {
              return static_cast<const tensor_view*>(static_cast<const S*>(self)->find(name));
          }) {}

    [[nodiscard]] const tensor_view* find(std::string_view name) const { return find_(self_, name); }
    [[nodiscard]] std::span<const tensor_view> tensors() const { return tensors_; }

private:
    const void* self_;
    std::span<const tensor_view> tensors_;
    const tensor_view* (*find_)(const void*, std::string_view);
};

}  // namespace detail

PHI4FLASH_END
