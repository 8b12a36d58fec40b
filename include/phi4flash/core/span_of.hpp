#pragma once
/// Spans over what lies in standard containers, made of pointer and size. std::span's own conversion asks the concepts of ranges about every
/// type: 17 ms of compile time for each of them with g++, three times what this takes, and a second in all.
#include <phi4flash/config/abi.hpp>

#include <array>
#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

PHI4FLASH_BEGIN

namespace detail {

template <class T>
[[nodiscard]] std::span<T> span_of(std::vector<T>& values) {
    return {values.data(), values.size()};
}
template <class T>
[[nodiscard]] std::span<const T> span_of(const std::vector<T>& values) {
    return {values.data(), values.size()};
}
template <class T>
void span_of(std::vector<T>&& values) = delete;  // it would be gone
template <class T, std::size_t N>
[[nodiscard]] std::span<const T> span_of(const std::array<T, N>& values) {
    return {values.data(), values.size()};
}

[[nodiscard]] inline std::span<const std::byte> bytes_of_text(std::string_view text) {
    return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace detail

PHI4FLASH_END
