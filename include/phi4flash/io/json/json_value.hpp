#pragma once
/// A small JSON document in memory. The parser is nlohmann's (io/json/json.hpp); the tree is not, because the destructor of its values takes
/// memory, and ends the program where there is none, and because its layout depends on switches of its own.
#include <phi4flash/config/abi.hpp>
#include <phi4flash/core/sort_once.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

PHI4FLASH_BEGIN

/// Any JSON value. Members have the names that nlohmann's have. Only what a parser builds (io/json/json.hpp) is ever deep: its limit of depth
/// bounds the recursion of the destructor.
class json_value {
public:
    using number_integer_t = std::int64_t;
    using number_unsigned_t = std::uint64_t;
    using number_float_t = double;

    class iterator;

    enum class kind : std::uint8_t { null, boolean, negative, whole, fraction, string, array, object };

    // Defined below, where a vector of members is no longer one of an incomplete type: clang 14 and 15 look into it.
    json_value();  ///< null
    explicit json_value(bool b);
    explicit json_value(std::int64_t negative);
    explicit json_value(std::uint64_t n);
    explicit json_value(double x);
    explicit json_value(std::string text);
    /// An empty one of that kind.
    explicit json_value(kind k);

    [[nodiscard]] bool is_null() const { return kind_ == kind::null; }
    [[nodiscard]] bool is_boolean() const { return kind_ == kind::boolean; }
    [[nodiscard]] bool is_number_unsigned() const { return kind_ == kind::whole; }
    [[nodiscard]] bool is_number_integer() const { return kind_ == kind::whole || kind_ == kind::negative; }
    [[nodiscard]] bool is_number_float() const { return kind_ == kind::fraction; }
    [[nodiscard]] bool is_number() const { return is_number_integer() || is_number_float(); }
    [[nodiscard]] bool is_string() const { return kind_ == kind::string; }
    [[nodiscard]] bool is_structured() const { return is_array() || is_object(); }
    [[nodiscard]] bool is_array() const { return kind_ == kind::array; }
    [[nodiscard]] bool is_object() const { return kind_ == kind::object; }

    /// `get_ptr<const std::string*>()`: the value, or nullptr where it is of another kind. Whole numbers from 0 are unsigned, and
    /// integer as far as that reaches: who takes both looks for unsigned first.
    template <class Pointer>
    [[nodiscard]] Pointer get_ptr() const {
        using wanted = std::remove_const_t<std::remove_pointer_t<Pointer>>;
        if constexpr (std::is_same_v<wanted, bool>) {
            return is_boolean() ? &boolean_ : nullptr;
        } else if constexpr (std::is_same_v<wanted, std::uint64_t>) {
            return is_number_unsigned() ? &integer_ : nullptr;
        } else if constexpr (std::is_same_v<wanted, std::int64_t>) {
            constexpr auto largest = static_cast<std::uint64_t>((std::numeric_limits<std::int64_t>::max)());
            const bool fits = kind_ == kind::negative || (kind_ == kind::whole && integer_ <= largest);
            return fits ? reinterpret_cast<Pointer>(&integer_) : nullptr;
        } else if constexpr (std::is_same_v<wanted, double>) {
            return is_number_float() ? &fraction_ : nullptr;
        } else {
            static_assert(std::is_same_v<wanted, std::string>);
            return is_string() ? &text_ : nullptr;
        }
    }

    /// Of an array or object; anything else is empty, and an empty one has no front.
    [[nodiscard]] std::size_t size() const;
    [[nodiscard]] bool empty() const { return size() == 0; }
    [[nodiscard]] const json_value& front() const;
    /// The element at a place below size().
    [[nodiscard]] const json_value& operator[](std::size_t place) const;
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

    kind kind_ = kind::null;
    bool boolean_ = false;
    std::uint64_t integer_ = 0;  // of a negative number its two's complement
    double fraction_ = 0.0;
    std::string text_;
    std::vector<entry> entries_;
};

/// A member of an object, or an element of an array, whose key is empty.
struct json_value::entry {
    std::string key;
    json_value value;
};

inline json_value::json_value() = default;
inline json_value::json_value(bool b) : kind_(kind::boolean), boolean_(b) {}
inline json_value::json_value(std::int64_t negative) : kind_(kind::negative), integer_(static_cast<std::uint64_t>(negative)) {}
inline json_value::json_value(std::uint64_t n) : kind_(kind::whole), integer_(n) {}
inline json_value::json_value(double x) : kind_(kind::fraction), fraction_(x) {}
inline json_value::json_value(std::string text) : kind_(kind::string), text_(std::move(text)) {}
inline json_value::json_value(kind k) : kind_(k) {}

/// Over members or elements, in the order of the text.
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

inline std::size_t json_value::size() const { return entries_.size(); }
inline const json_value& json_value::front() const { return entries_.front().value; }
inline const json_value& json_value::operator[](std::size_t place) const { return entries_[place].value; }
inline json_value::iterator json_value::begin() const { return iterator(entries_.data()); }
inline json_value::iterator json_value::end() const { return iterator(entries_.data() + entries_.size()); }
inline json_value::iterator json_value::find(std::string_view key) const {
    if (!is_object()) return end();
    const auto place = std::lower_bound(entries_.begin(), entries_.end(), key,
                                        [](const entry& e, std::string_view wanted) { return e.key < wanted; });
    return place == entries_.end() || place->key != key ? end() : iterator(&*place);
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
    return entries_.emplace_back(entry{std::move(key), std::move(value)}).value;
}
inline void json_value::close() {
    if (is_object()) detail::sort_once(entries_, [](const entry& a, const entry& b) { return a.key < b.key; });
}

PHI4FLASH_END
