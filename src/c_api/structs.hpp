#pragma once
/// Structs of callers that were compiled with another version of the header: read and filled as far as both sides know them.
#include "outcome.hpp"

#include <algorithm>
#include <cstdint>
#include <type_traits>

PHI4FLASH_BEGIN
namespace c_api {

/// No struct of this interface will ever be so large: a size above it is memory that nobody initialized.
inline constexpr std::size_t largest_struct = 4096;
inline constexpr std::size_t smallest_struct = 16;

/// Whether `size` can be the size of a version of T. Whole pointers, so that none is cut in the middle; and larger than one, as `sizeof pointer` is a
/// usual mistake for `sizeof *pointer`.
template <class T>
[[nodiscard]] outcome check_size(std::uint32_t size, const char* name) {
    static_assert(std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T> && offsetof(T, size) == 0);
    static_assert(sizeof(T) <= largest_struct && sizeof(T) % sizeof(void*) == 0);
    if (size >= smallest_struct && size <= largest_struct && size % sizeof(void*) == 0) return {};
    return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "%s: want its size in its first member, %zu, have %lu", name, sizeof(T),
                           static_cast<unsigned long>(size));
}

/// What the caller gives. Members that it does not know are zero; those that this library does not know must be.
template <class T>
[[nodiscard]] outcome read_struct(const T* from, T& to, const char* name) {
    to = T{};
    if (from == nullptr) return missing(name);
    const std::uint32_t size = from->size;
    if (outcome ok = check_size<T>(size, name); !ok) return ok;
    const auto* const bytes = reinterpret_cast<const unsigned char*>(from);
    for (std::size_t i = sizeof(T); i < size; ++i)
        if (bytes[i] != 0)
            return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "%s: sets a member that this library, %s, does not know (byte %zu of %lu)", name,
                                   PHI4FLASH_VERSION_STRING, i, static_cast<unsigned long>(size));
    std::memcpy(static_cast<void*>(&to), bytes, (std::min)(sizeof(T), std::size_t{size}));
    to.size = sizeof(T);
    return {};
}

/// The same; where there is none, all is zero.
template <class T>
[[nodiscard]] outcome read_optional(const T* from, T& to, const char* name) {
    to = T{};
    return from == nullptr ? outcome() : read_struct(from, to, name);
}

/// Whether a struct can be filled; to be asked before anything is done.
template <class T>
[[nodiscard]] outcome check_out(const T* to, const char* name) {
    return to == nullptr ? missing(name) : check_size<T>(to->size, name);
}

/// Fills what the caller knows, and zeroes what this library does not know. Its size stays.
template <class T>
void fill_struct(T* to, T filled) {
    const std::uint32_t size = filled.size = to->size;
    std::memcpy(static_cast<void*>(to), &filled, (std::min)(sizeof(T), std::size_t{size}));
    if (size > sizeof(T)) std::memset(reinterpret_cast<unsigned char*>(to) + sizeof(T), 0, size - sizeof(T));
}

/// Element i of an array of structs of the caller's, all of the size of the first.
template <class T>
[[nodiscard]] outcome read_element(const T* array, std::size_t i, T& to, const char* name) {
    const std::uint32_t stride = array->size;
    char element_name[64];
    detail::print(element_name, sizeof element_name, "%s %zu", name, i);
    if (outcome ok = check_size<T>(stride, element_name); !ok) return ok;
    const auto* const element = reinterpret_cast<const T*>(reinterpret_cast<const unsigned char*>(array) + i * stride);
    if (element->size != stride)
        return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "%s: want the size of the first, %lu, have %lu", element_name,
                               static_cast<unsigned long>(stride), static_cast<unsigned long>(element->size));
    return read_struct(element, to, element_name);
}

// ---- plain arguments -------------------------------------------------------------------------------------------------------------

/// Bytes of the caller's: may be missing only where there are none.
[[nodiscard]] inline outcome read_text(const char* data, std::size_t length, std::string_view& to, const char* name) {
    if (data == nullptr && length != 0) return missing(name);
    if (length > static_cast<std::size_t>(PTRDIFF_MAX))
        return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "%s: %zu bytes are more than there can be", name, length);
    to = data == nullptr ? std::string_view() : std::string_view(data, length);
    return {};
}

template <class T>
[[nodiscard]] outcome read_array(const T* data, std::size_t count, std::span<const T>& to, const char* name) {
    if (data == nullptr && count != 0) return missing(name);
    if (count > static_cast<std::size_t>(PTRDIFF_MAX) / sizeof(T))
        return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "%s: %zu are more than there can be", name, count);
    to = {data, count};
    return {};
}

[[nodiscard]] inline outcome check_choice(std::uint32_t have, std::uint32_t choices, const char* name) {
    if (have < choices) return {};
    return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "%s: want 0 to %lu, have %lu", name, static_cast<unsigned long>(choices - 1),
                           static_cast<unsigned long>(have));
}

/// A member that will mean something one day.
[[nodiscard]] inline outcome check_reserved(std::uint32_t have, const char* name) {
    if (have == 0) return {};
    return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "%s: want 0, have %lu", name, static_cast<unsigned long>(have));
}

/// A number of the caller's as a size of this machine.
[[nodiscard]] inline std::size_t clamped(std::uint64_t n) { return static_cast<std::size_t>((std::min)(n, std::uint64_t{SIZE_MAX})); }

/// Writes what was asked for, if there is room for it (`extra`: and a NUL behind it). How much it is the caller learns in any case.
template <class T, class Container>
[[nodiscard]] outcome give_out(const Container& have, T* to, std::size_t capacity, std::size_t* count, std::size_t extra, const char* name) {
    *count = have.size();
    if (have.size() + extra > capacity)
        return outcome::failed(PHI4FLASH_BUFFER_TOO_SMALL, "%s: want room for %zu, have %zu", name, have.size() + extra, capacity);
    if (!have.empty()) std::memcpy(to, have.data(), have.size() * sizeof(T));
    if (extra != 0) to[have.size()] = T{};
    return {};
}

template <class T>
[[nodiscard]] outcome check_room(const T* to, std::size_t capacity, std::size_t* count, const char* name, const char* count_name) {
    if (count == nullptr) return missing(count_name);
    *count = 0;
    return to == nullptr && capacity != 0 ? missing(name) : outcome();
}

}  // namespace c_api
PHI4FLASH_END
