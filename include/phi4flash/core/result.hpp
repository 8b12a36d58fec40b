#pragma once
/// `result<T>`: a value or an `error`, the part of C++23's std::expected that the library needs, without exceptions.
#include <phi4flash/core/error.hpp>

#include <memory>
#include <type_traits>
#include <utility>

PHI4FLASH_BEGIN

/// Holds a T or an error. Test it before use: `*r` of a failed result and `error()` of a good one are undefined, as with std::expected. Moving one
/// leaves a moved-from T in the other; where moving a T throws, an assignment leaves an empty error.
/// (Not over std::variant: that is half a second of compile time in all.)
template <class T>
class [[nodiscard]] result {
    static_assert(std::is_object_v<T> && !std::is_array_v<T> && !std::is_same_v<T, phi4flash::error>,
                  "result<T>: want a T that is no reference, array or error");

public:
    using value_type = T;

    result(T value) : value_(std::move(value)), ok_(true) {}          // NOLINT(google-explicit-constructor)
    result(const phi4flash::error& why) : error_(why), ok_(false) {}  // NOLINT(google-explicit-constructor)
    result(const result& other)
        requires std::is_copy_constructible_v<T>
        : none_(), ok_(other.ok_) {
        construct(other);
    }
    result(result&& other) noexcept(std::is_nothrow_move_constructible_v<T>) : none_(), ok_(other.ok_) { construct(std::move(other)); }
    result& operator=(const result& other)
        requires std::is_copy_constructible_v<T>
    {
        return *this = result(other);
    }
    result& operator=(result&& other) noexcept(std::is_nothrow_move_constructible_v<T>) {
        if (this == &other) return *this;
        if (ok_) {
            std::destroy_at(std::addressof(value_));
            std::construct_at(std::addressof(error_));  // what stays where moving a value throws
            ok_ = false;
        }
        construct(std::move(other));
        ok_ = other.ok_;
        return *this;
    }
    ~result() {
        if (ok_) std::destroy_at(std::addressof(value_));
    }

    [[nodiscard]] bool has_value() const { return ok_; }
    explicit operator bool() const { return ok_; }

    [[nodiscard]] T& operator*() & { return value_; }
    [[nodiscard]] const T& operator*() const& { return value_; }
    [[nodiscard]] T&& operator*() && { return std::move(value_); }
    [[nodiscard]] T* operator->() { return std::addressof(value_); }
    [[nodiscard]] const T* operator->() const { return std::addressof(value_); }
    [[nodiscard]] const phi4flash::error& error() const { return error_; }

private:
    /// What `other` has, where nothing is, or an error, which needs no destructor.
    template <class Other>
    void construct(Other&& other) {
        if (other.ok_) {
            std::construct_at(std::addressof(value_), std::forward<Other>(other).value_);
        } else {
            std::construct_at(std::addressof(error_), other.error_);
        }
    }

    union {
        char none_;
        T value_;
        phi4flash::error error_;
    };
    bool ok_;
};

/// A result without a value: success, or an error, which is written only where there is one.
template <>
class [[nodiscard]] result<void> {
public:
    using value_type = void;

    result() : none_(), ok_(true) {}
    result(const phi4flash::error& why) : why_(why), ok_(false) {}  // NOLINT(google-explicit-constructor)
    result(const result& other) : none_(), ok_(other.ok_) {
        if (!ok_) std::construct_at(std::addressof(why_), other.why_);
    }
    result& operator=(const result& other) {
        if (this == &other) return *this;
        if (!other.ok_) std::construct_at(std::addressof(why_), other.why_);
        ok_ = other.ok_;
        return *this;
    }
    ~result() = default;

    [[nodiscard]] bool has_value() const { return ok_; }
    explicit operator bool() const { return ok_; }
    [[nodiscard]] const phi4flash::error& error() const { return why_; }

private:
    union {
        char none_;
        phi4flash::error why_;
    };
    bool ok_;
};

/// Of a call that has no value to give.
using status = result<void>;

PHI4FLASH_END
