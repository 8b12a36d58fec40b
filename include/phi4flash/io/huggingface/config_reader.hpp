#pragma once
/// Reads the members of a configuration, an object in JSON, one by one.
#include <phi4flash/io/json/json.hpp>
#include <phi4flash/model/shape.hpp>

#if PHI4FLASH_HAS_JSON
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

PHI4FLASH_BEGIN

/// Limits of config.json and generation_config.json; the released ones have 1 KiB.
PHI4FLASH_OWN_DATA inline constexpr json_limits hf_config_limits{.bytes = std::size_t{1} << 20, .depth = 32};

namespace detail {
/// The members of a configuration object; null counts as absent, as in the classes that write such files. The first defect is
/// kept and everything after it is a no-op, so that a reader is a list of keys.
class config_reader {
public:
    explicit config_reader(const json_value& object) : object_(object) {}

    [[nodiscard]] const status& outcome() const { return outcome_; }
    [[nodiscard]] const json_value* find(const char* key) const {
        const json_value* const value = outcome_ ? member(object_, key) : nullptr;
        return value == nullptr || value->is_null() ? nullptr : value;
    }
    [[nodiscard]] bool is_null(const char* key) const {
        const json_value* const value = member(object_, key);
        return value != nullptr && value->is_null();
    }
    void fail(const error& why) {
        if (outcome_) outcome_ = why;
    }

    std::size_t extent(const char* key);
    std::size_t extent_or(const char* key, std::size_t class_default) {
        const json_value* const value = find(key);
        return value != nullptr ? extent(key, *value) : class_default;
    }
    std::size_t extent(const char* key, const json_value& value);

    /// A finite number.
    std::optional<float> number(const char* key);
    /// A whole number from 0. One below 0 is what many programs write for "none", and counts as `below_zero`.
    std::optional<std::uint32_t> count(const char* key, std::optional<std::uint32_t> below_zero = std::nullopt) {
        const json_value* const value = find(key);
        return value == nullptr ? std::nullopt : count_of(key, *value, below_zero);
    }
    std::optional<std::uint32_t> count_of(const char* key, const json_value& value,
                                          std::optional<std::uint32_t> below_zero = std::nullopt);
    /// An id that nothing depends on: the first one of a list, and nothing where there is none.
    [[nodiscard]] std::optional<std::uint32_t> idle_id(const char* key) const;
    std::optional<bool> boolean(const char* key);
    /// A string or a list of strings, each told to `take`.
    template <class Take>
    void strings(const char* key, Take&& take) {
        const json_value* const value = find(key);
        if (value == nullptr) return;
        const auto one = [&](const json_value& v) {
            if (const auto* s = v.get_ptr<const std::string*>()) return take(*s);
            fail(wrong_type(key, "a string or a list of strings", v));
        };
        if (!value->is_array()) return one(*value);
        for (const json_value& v : *value) one(v);
    }

private:
    const json_value& object_;
    status outcome_;
};

[[nodiscard]] PHI4FLASH_BODY result<json_value> read_config_object(std::string_view text);

#if PHI4FLASH_BODIES
PHI4FLASH_COLD_BODY std::size_t config_reader::extent(const char* key) {
    if (const json_value* const value = find(key)) return extent(key, *value);
    fail(is_null(key) ? wrong_type(key, "a number", *member(object_, key))
                      : error::format(errc::json_missing_key, "no key '%s': want a number", key));
    return 0;
}

PHI4FLASH_COLD_BODY std::size_t config_reader::extent(const char* key, const json_value& value) {
    const auto number = whole_number(value, key, 1, max_extent, errc::bad_extent);
    if (number) return *number;
    fail(number.error());
    return 0;
}

PHI4FLASH_COLD_BODY std::optional<float> config_reader::number(const char* key) {
    const json_value* const value = find(key);
    if (value == nullptr) return std::nullopt;
    double x = 0;
    if (const auto* f = value->get_ptr<const json_value::number_float_t*>()) {
        x = *f;
    } else if (const auto* u = value->get_ptr<const json_value::number_unsigned_t*>()) {
        x = static_cast<double>(*u);
    } else if (const auto* i = value->get_ptr<const json_value::number_integer_t*>()) {
        x = static_cast<double>(*i);
    } else {
        fail(wrong_type(key, "a number", *value));
        return std::nullopt;
    }
    if (std::fabs(x) <= static_cast<double>(FLT_MAX)) return static_cast<float>(x);  // JSON has neither infinity nor NaN
    fail(error::format(errc::not_finite, "'%s': want a finite 32-bit float, have %s", key, describe(*value).c_str()));
    return std::nullopt;
}

PHI4FLASH_COLD_BODY std::optional<std::uint32_t> config_reader::count_of(const char* key, const json_value& value,
                                                                         std::optional<std::uint32_t> below_zero) {
    if (value.is_number_integer() && !value.is_number_unsigned()) return below_zero;
    const auto number = whole_number(value, key, 0, UINT32_MAX, errc::json_bad_number);
    if (number) return static_cast<std::uint32_t>(*number);
    fail(number.error());
    return std::nullopt;
}

PHI4FLASH_COLD_BODY std::optional<std::uint32_t> config_reader::idle_id(const char* key) const {
    const json_value* const value = find(key);
    if (value == nullptr) return std::nullopt;
    const json_value& first = value->is_array() && !value->empty() ? value->front() : *value;
    const auto* const id = first.get_ptr<const json_value::number_unsigned_t*>();
    return id != nullptr && *id <= UINT32_MAX ? std::optional(static_cast<std::uint32_t>(*id)) : std::nullopt;
}

PHI4FLASH_COLD_BODY std::optional<bool> config_reader::boolean(const char* key) {
    const json_value* const value = find(key);
    if (value == nullptr) return std::nullopt;
    if (const auto* b = value->get_ptr<const bool*>()) return *b;
    fail(wrong_type(key, "true or false", *value));
    return std::nullopt;
}

PHI4FLASH_COLD_BODY result<json_value> read_config_object(std::string_view text) {
    auto document = read_json(text, hf_config_limits);
    if (document && !document->is_object())
        return error::format(errc::json_wrong_type, "want an object, have %s", describe(*document).c_str());
    return document;
}
#endif

}  // namespace detail

PHI4FLASH_END
#endif  // PHI4FLASH_HAS_JSON
