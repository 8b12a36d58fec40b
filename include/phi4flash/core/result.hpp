#pragma once
/// `result<T>`: a value or an `error`, the part of C++23's std::expected that the library needs, without exceptions.
#include <phi4flash/core/error.hpp>

#include <type_traits>
#include <utility>
#include <variant>

PHI4FLASH_BEGIN

/// Holds a T or an error. Test it before use: `*r` of a failed result is undefined, as with std::expected.
template <class T>
class [[nodiscard]] result {
public:
    using value_type = T;

    result(T value) : content_(std::in_place_index<0>, std::move(value)) {}          // NOLINT(google-explicit-constructor)
    result(const phi4flash::error& why) : content_(std::in_place_index<1>, why) {}  // NOLINT(google-explicit-constructor)

    [[nodiscard]] bool has_value() const { return content_.index() == 0; }
    explicit operator bool() const { return has_value(); }

    [[nodiscard]] T& operator*() & { return *std::get_if<0>(&content_); }
    [[nodiscard]] const T& operator*() const& { return *std::get_if<0>(&content_); }
    [[nodiscard]] T&& operator*() && { return std::move(*std::get_if<0>(&content_)); }
    [[nodiscard]] T* operator->() { return std::get_if<0>(&content_); }
    [[nodiscard]] const T* operator->() const { return std::get_if<0>(&content_); }
    [[nodiscard]] const phi4flash::error& error() const {
#if defined(__GNUC__) || defined(__clang__)
        if (content_.index() > 1) __builtin_unreachable();  // or -Wnull-dereference tells hosts of a third case
#endif
        return *std::get_if<1>(&content_);
    }

private:
    std::variant<T, phi4flash::error> content_;
};

/// A result without a value: success, or an error.
template <>
class [[nodiscard]] result<void> {
public:
    using value_type = void;

    result() = default;
    result(const phi4flash::error& why) : why_(why), ok_(false) {}  // NOLINT(google-explicit-constructor)

    [[nodiscard]] bool has_value() const { return ok_; }
    explicit operator bool() const { return ok_; }
    [[nodiscard]] const phi4flash::error& error() const { return why_; }

private:
    phi4flash::error why_;
    bool ok_ = true;
};

/// Of a call that has no value to give.
using status = result<void>;

PHI4FLASH_END
