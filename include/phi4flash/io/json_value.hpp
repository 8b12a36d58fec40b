#pragma once
/// A small JSON document in memory. The parser is nlohmann's (io/json.hpp); the tree is not, because the destructor of its values takes
/// memory, and ends the program where there is none, and because its layout depends on switches of its own.
#include <phi4flash/config/abi.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

PHI4FLASH_BEGIN

/// Any JSON value. Members have the names that nlohmann's have. Only what a parser builds (io/json.hpp) is ever deep: its limit of depth
/// bounds the recursion of the destructor.
class json_value {
public:
    using number_integer_t = std::int64_t;
    using number_unsigned_t = std::uint64_t;
    using number_float_t = double;

    class iterator;

    json_value() = default;                                                              ///< null
    explicit json_value(bool b) : content_(b) {}
    explicit json_value(std::int64_t negative) : content_(negative) {}
    explicit json_value(std::uint64_t n) : content_(n) {}
    explicit json_value(double x) : content_(x) {}
    explicit json_value(std::string text) : content_(std::move(text)) {}
    [[nodiscard]] static json_value array() { return json_value(container{{}, false}); }
    [[nodiscard]] static json_value object() { return json_value(container{{}, true}); }

    [[nodiscard]] bool is_null() const { return std::holds_alternative<std::monostate>(content_); }
    [[nodiscard]] bool is_boolean() const { return std::holds_alternative<bool>(content_); }
    [[nodiscard]] bool is_number_unsigned() const { return std::holds_alternative<std::uint64_t>(content_); }
    [[nodiscard]] bool is_number_integer() const { return is_number_unsigned() || std::holds_alternative<std::int64_t>(content_); }
    [[nodiscard]] bool is_number_float() const { return std::holds_alternative<double>(content_); }
    [[nodiscard]] bool is_number() const { return is_number_integer() || is_number_float(); }
    [[nodiscard]] bool is_string() const { return std::holds_alternative<std::string>(content_); }
    [[nodiscard]] bool is_structured() const { return entries() != nullptr; }
    [[nodiscard]] bool is_array() const { return is_structured() && !std::get_if<container>(&content_)->is_object; }
    [[nodiscard]] bool is_object() const { return is_structured() && std::get_if<container>(&content_)->is_object; }

    /// `get_ptr<const std::string*>()`: the value, or nullptr where it is of another kind. Whole numbers from 0 are both integer and unsigned.
    template <class Pointer>
    [[nodiscard]] Pointer get_ptr() const {
        using wanted = std::remove_const_t<std::remove_pointer_t<Pointer>>;
        if constexpr (std::is_same_v<wanted, std::int64_t>) {
            if (const auto* const n = std::get_if<std::uint64_t>(&content_)) return reinterpret_cast<Pointer>(n);
        }
        return std::get_if<wanted>(&content_);
    }

    /// Of an array or object; anything else is empty, and an empty one has no front.
    [[nodiscard]] std::size_t size() const { return is_structured() ? entries()->size() : 0; }
    [[nodiscard]] bool empty() const { return size() == 0; }
    [[nodiscard]] const json_value& front() const;
    [[nodiscard]] iterator begin() const;
    [[nodiscard]] iterator end() const;
    /// The member of that name, or end().
    [[nodiscard]] iterator find(std::string_view key) const;
    /// The members of an object, in order of their keys: `item.key()`, `item.value()`.
    [[nodiscard]] auto items() const;

    // For the parser's builder.
    json_value& append(std::string key, json_value value);
    /// Puts the members of an object in order.
    void close();

private:
    struct entry;
    struct container {
        std::vector<entry> entries;
        bool is_object;
    };
    explicit json_value(container c) : content_(std::move(c)) {}
    [[nodiscard]] const std::vector<entry>* entries() const {
        const auto* const c = std::get_if<container>(&content_);
        return c == nullptr ? nullptr : &c->entries;
    }

    std::variant<std::monostate, bool, std::int64_t, std::uint64_t, double, std::string, container> content_;
};

/// A member of an object, or an element of an array, whose key is empty.
struct json_value::entry {
    std::string key;
    json_value value;
};

class json_value::iterator {
public:
    iterator() = default;
    explicit iterator(const entry* at) : at_(at) {}

    [[nodiscard]] const std::string& key() const { return at_->key; }
    [[nodiscard]] const json_value& value() const { return at_->value; }
    [[nodiscard]] const json_value& operator*() const { return at_->value; }
    [[nodiscard]] const json_value* operator->() const { return &at_->value; }
    iterator& operator++() {
        ++at_;
        return *this;
    }
    friend bool operator==(const iterator&, const iterator&) = default;

private:
    const entry* at_ = nullptr;
};

inline const json_value& json_value::front() const { return entries()->front().value; }
inline json_value::iterator json_value::begin() const { return iterator(is_structured() ? entries()->data() : nullptr); }
inline json_value::iterator json_value::end() const { return iterator(is_structured() ? entries()->data() + entries()->size() : nullptr); }
inline json_value::iterator json_value::find(std::string_view key) const {
    if (!is_object()) return end();
    const auto place = std::lower_bound(entries()->begin(), entries()->end(), key,
                                        [](const entry& e, std::string_view wanted) { return e.key < wanted; });
    return place == entries()->end() || place->key != key ? end() : iterator(&*place);
}

namespace detail {
/// A range of the members themselves, where json_value::begin() iterates over values.
struct json_items {
    struct iterator : json_value::iterator {
        [[nodiscard]] const json_value::iterator& operator*() const { return *this; }
    };
    iterator first;
    iterator last;
    [[nodiscard]] iterator begin() const { return first; }
    [[nodiscard]] iterator end() const { return last; }
};
}  // namespace detail

inline auto json_value::items() const { return detail::json_items{{begin()}, {end()}}; }

inline json_value& json_value::append(std::string key, json_value value) {
    return std::get_if<container>(&content_)->entries.emplace_back(entry{std::move(key), std::move(value)}).value;
}
inline void json_value::close() {
    auto& list = *std::get_if<container>(&content_);
    if (list.is_object) std::sort(list.entries.begin(), list.entries.end(), [](const entry& a, const entry& b) { return a.key < b.key; });
}

PHI4FLASH_END
