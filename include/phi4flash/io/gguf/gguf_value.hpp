#pragma once
/// A metadata value of a GGUF file: a view of its bytes, which are not aligned, and the ways to read it.
#include <phi4flash/core/result.hpp>
#include <phi4flash/io/file/printable.hpp>

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>

PHI4FLASH_BEGIN

/// The value types, by their numbers in the format.
enum class gguf_type : std::uint8_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };
inline constexpr std::size_t gguf_type_count = 13;  ///< of gguf_type

/// Bytes of a value; 0 for strings and arrays, which say their own.
[[nodiscard]] constexpr std::size_t size_of(gguf_type t) {
    constexpr std::uint8_t sizes[gguf_type_count] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return sizes[static_cast<std::size_t>(t)];
}
/// As sentences have it: "u32", "string".
[[nodiscard]] constexpr const char* name_of(gguf_type t) {
    constexpr const char* names[gguf_type_count] = {"u8",      "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                    "boolean", "string", "array", "u64", "i64", "f64"};
    return names[static_cast<std::size_t>(t)];
}

/// The value type of a C++ number.
template <class T>
[[nodiscard]] constexpr gguf_type gguf_type_of() {
    static_assert(std::is_arithmetic_v<T> && sizeof(T) <= 8 && !std::is_same_v<T, long double>);
    if constexpr (std::is_same_v<T, bool>) return gguf_type::boolean;
    if constexpr (std::is_floating_point_v<T>) return sizeof(T) == 4 ? gguf_type::f32 : gguf_type::f64;
    constexpr gguf_type unsigned_types[] = {gguf_type::u8, gguf_type::u16, gguf_type::u32, gguf_type::u64};
    constexpr gguf_type signed_types[] = {gguf_type::i8, gguf_type::i16, gguf_type::i32, gguf_type::i64};
    constexpr std::size_t width = sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3;
    return std::is_signed_v<T> ? signed_types[width] : unsigned_types[width];
}

/// A key and its value, or its list of values. Points into the file.
struct gguf_value {
    std::string_view key;
    gguf_type type = gguf_type::u8;  ///< of the value, or of each element of a list
    bool is_array = false;
    std::uint64_t count = 1;
    std::span<const std::byte> data;  ///< as in the file: unaligned; each string after its length, 8 bytes

    /// Element i, which must have this very type.
    template <class T>
    [[nodiscard]] T at(std::size_t i = 0) const {
        T x;
        std::memcpy(&x, data.data() + i * sizeof(T), sizeof(T));
        return x;
    }

    /// Element i of whole numbers of any width; nothing for other types and negative numbers.
    [[nodiscard]] std::optional<std::uint64_t> whole(std::size_t i = 0) const;
    /// A single floating-point number.
    [[nodiscard]] std::optional<double> real() const {
        if (is_array || (type != gguf_type::f32 && type != gguf_type::f64)) return std::nullopt;
        return type == gguf_type::f32 ? static_cast<double>(at<float>()) : at<double>();
    }
    /// A single truth value.
    [[nodiscard]] std::optional<bool> boolean() const {
        return is_array || type != gguf_type::boolean ? std::nullopt : std::optional(data[0] != std::byte{0});
    }
    /// A single string.
    [[nodiscard]] std::optional<std::string_view> text() const {
        if (is_array || type != gguf_type::string) return std::nullopt;
        return std::string_view(reinterpret_cast<const char*>(data.data()) + 8, data.size() - 8);
    }
};

/// The strings of a list, one after the other:   for (std::string_view s; strings.next(s);) ...
class gguf_strings {
public:
    /// No strings at all for a value of another kind.
    explicit gguf_strings(const gguf_value& list)
        : rest_(list.data), left_(list.is_array && list.type == gguf_type::string ? list.count : 0) {}

    [[nodiscard]] bool next(std::string_view& out) {
        if (left_ == 0) return false;
        --left_;
        std::uint64_t length = 0;
        std::memcpy(&length, rest_.data(), sizeof length);
        out = {reinterpret_cast<const char*>(rest_.data()) + sizeof length, static_cast<std::size_t>(length)};
        rest_ = rest_.subspan(sizeof length + out.size());
        return true;
    }

private:
    std::span<const std::byte> rest_;
    std::uint64_t left_;
};

/// "u32" or "list of 7 u32", to pass to "%s".
class gguf_type_text {
public:
    explicit gguf_type_text(const gguf_value& v) {
        if (v.is_array) {
            std::snprintf(text_, sizeof text_, "a list of %llu %s", static_cast<unsigned long long>(v.count), name_of(v.type));
        } else {
            std::snprintf(text_, sizeof text_, "%s", name_of(v.type));
        }
    }
    [[nodiscard]] const char* c_str() const { return text_; }

private:
    char text_[48] = {};
};

#if PHI4FLASH_BODIES
PHI4FLASH_BODY std::optional<std::uint64_t> gguf_value::whole(std::size_t i) const {
    const auto from = [](std::int64_t x) { return x < 0 ? std::nullopt : std::optional(static_cast<std::uint64_t>(x)); };
    switch (type) {
        case gguf_type::u8: return at<std::uint8_t>(i);
        case gguf_type::u16: return at<std::uint16_t>(i);
        case gguf_type::u32: return at<std::uint32_t>(i);
        case gguf_type::u64: return at<std::uint64_t>(i);
        case gguf_type::i8: return from(at<std::int8_t>(i));
        case gguf_type::i16: return from(at<std::int16_t>(i));
        case gguf_type::i32: return from(at<std::int32_t>(i));
        case gguf_type::i64: return from(at<std::int64_t>(i));
        default: return std::nullopt;
    }
}
#endif

PHI4FLASH_END
