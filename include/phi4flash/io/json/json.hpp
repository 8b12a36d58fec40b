#pragma once
/// JSON from people whom nobody knows: nlohmann's parser behind limits of size and depth, with duplicate keys refused and
/// every error a value that says at which byte, where the first is byte 1.
#include <phi4flash/core/out_of_memory.hpp>
#include <phi4flash/io/file/printable.hpp>
#include <phi4flash/io/json/json_listener.hpp>
#include <phi4flash/io/json/json_value.hpp>

#if PHI4FLASH_HAS_JSON

#include <algorithm>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

PHI4FLASH_BEGIN

/// What is refused before it is read.
struct json_limits {
    std::size_t bytes = std::size_t{1} << 20;
    std::size_t depth = 16;  ///< objects and arrays inside one another; read_json, whose values hold one another, takes 1000 at most
};

/// The events of one document, checked. Derive from it and hide the events that matter; call the base's where one hides `start_*` and `end_*`, which
/// count, and `key`, which refuses a key that occurs twice. An event that returns `fail(...)` ends the reading with that error, and false alone with
/// `cancelled`.
class json_events {
public:
    explicit json_events(const json_limits& limits) : limits_(limits) {}

    bool null() { return true; }
    bool boolean(bool) { return true; }
    bool number_integer(std::int64_t) { return true; }  ///< negative ones only
    bool number_unsigned(std::uint64_t) { return true; }
    bool number_float(double, const std::string&) { return true; }  ///< also whole numbers that do not fit 64 bits
    bool string(std::string&) { return true; }
    bool start_object(std::size_t) {
        keys_.emplace_back();
        return enter();
    }
    bool end_object() {
        if (!keys_.empty()) keys_.pop_back();
        return leave();
    }
    bool start_array(std::size_t) { return enter(); }
    bool end_array() { return leave(); }
    bool key(std::string& name) {
        if (first_use(name)) return true;
        return fail(error::format(errc::json_duplicate_key, "byte %zu: key '%s' occurs twice in one object", position(),
                                  printable(name).c_str()));
    }
    /// The text is not JSON at byte `at`; `why`: the parser's words; `cut`: it ends there, in the middle of something.
    void not_json(std::size_t at, const char* why, bool cut);

    [[nodiscard]] const status& outcome() const { return outcome_; }
    /// Bytes read so far: just after the text of the current event.
    [[nodiscard]] std::size_t position() const { return position_; }
    [[nodiscard]] std::size_t* position_counter() { return &position_; }

protected:
    bool fail(const error& why) {
        outcome_ = why;
        return false;
    }
    /// False if the current object has this key already.
    [[nodiscard]] bool first_use(const std::string& name) { return keys_.empty() || keys_.back().insert(name).second; }

private:
    bool enter() {
        if (++depth_ <= limits_.depth) return true;
        return fail(error::format(errc::json_too_deep, "byte %zu: want at most %zu objects and arrays inside one another",
                                  position(), limits_.depth));
    }
    bool leave() {
        if (depth_ != 0) --depth_;
        return true;
    }

    json_limits limits_;
    status outcome_;
    std::size_t depth_ = 0;
    std::size_t position_ = 0;
    std::vector<std::set<std::string, std::less<>>> keys_;
};

namespace detail {
/// As read_json_events, of events that `to` tells.
[[nodiscard]] PHI4FLASH_BODY status read_checked_json(std::string_view text, const json_limits& limits, json_events& events, json_listener& to);
}  // namespace detail

/// Sends the events of `text` to `events`, of a class derived from json_events and made with the same limits. Errors: json_too_large, json_syntax,
/// file_incomplete (a text that ends too early), json_bad_number, json_too_deep, json_duplicate_key, out_of_memory, cancelled (an event returned
/// false), and those of the derived class.
template <class Events>
[[nodiscard]] status read_json_events(std::string_view text, const json_limits& limits, Events& events) {
    detail::listener_of<Events> to(events);
    return detail::read_checked_json(text, limits, events, to);
}

namespace detail {
/// Builds the document.
class json_builder : public json_events {
public:
    using json_events::json_events;

    json_value root;

    bool null() { return add(json_value()); }
    bool boolean(bool b) { return add(json_value(b)); }
    bool number_integer(std::int64_t n) { return add(json_value(n)); }
    bool number_unsigned(std::uint64_t n) { return add(json_value(n)); }
    bool number_float(double x, const std::string&) { return add(json_value(x)); }
    bool string(std::string& text) { return add(json_value(std::move(text))); }
    bool start_object(std::size_t n) { return json_events::start_object(n) && open(json_value(json_value::kind::object)); }
    bool end_object() { return close() && json_events::end_object(); }
    bool start_array(std::size_t n) { return json_events::start_array(n) && open(json_value(json_value::kind::array)); }
    bool end_array() { return close() && json_events::end_array(); }
    bool key(std::string& name) {
        key_ = name;
        return json_events::key(name);
    }

private:
    json_value* place(json_value value) {
        if (!open_.empty()) return &open_.back()->append(std::exchange(key_, {}), std::move(value));
        root = std::move(value);
        return &root;
    }
    bool add(json_value value) { return place(std::move(value)) != nullptr; }
    bool open(json_value value) {
        open_.push_back(place(std::move(value)));
        return true;
    }
    bool close() {
        open_.back()->close();
        open_.pop_back();
        return true;
    }

    std::vector<json_value*> open_;  // each is the last entry of the one before it
    std::string key_;
};
}  // namespace detail

/// A small document as a value. Errors: json_too_large, json_syntax, file_incomplete (a text that ends too early), json_bad_number, json_too_deep,
/// json_duplicate_key, out_of_memory.
[[nodiscard]] PHI4FLASH_BODY result<json_value> read_json(std::string_view text, const json_limits& limits = {});

namespace detail {
/// What a value is, for a sentence: "a string", or the number itself.
[[nodiscard]] PHI4FLASH_BODY std::string describe(const json_value& value);

[[nodiscard]] inline error wrong_type(const char* key, const char* want, const json_value& have) {
    return error::format(errc::json_wrong_type, "'%s': want %s, have %s", key, want, describe(have).c_str());
}

/// The value of a key, or nullptr where the object has no such key.
[[nodiscard]] inline const json_value* member(const json_value& object, const char* key) {
    const auto place = object.find(key);
    return place == object.end() ? nullptr : &*place;
}

/// A whole number from low to high. Errors: json_wrong_type, and `out_of_range` for any other number.
[[nodiscard]] PHI4FLASH_BODY result<std::size_t> whole_number(const json_value& value, const char* key, std::size_t low, std::size_t high,
                                                              errc out_of_range);

}  // namespace detail

#if PHI4FLASH_BODIES
namespace detail {

PHI4FLASH_COLD_BODY std::string describe(const json_value& value) {
    char text[32] = {};
    if (const auto* u = value.get_ptr<const json_value::number_unsigned_t*>()) {
        std::snprintf(text, sizeof text, "%llu", static_cast<unsigned long long>(*u));
    } else if (const auto* i = value.get_ptr<const json_value::number_integer_t*>()) {
        std::snprintf(text, sizeof text, "%lld", static_cast<long long>(*i));
    } else if (const auto* d = value.get_ptr<const json_value::number_float_t*>()) {
        std::snprintf(text, sizeof text, "%.9g", *d);
    } else if (const auto* s = value.get_ptr<const std::string*>()) {
        return "'" + std::string(printable(*s).c_str()) + "'";
    } else if (const auto* b = value.get_ptr<const bool*>()) {
        return *b ? "true" : "false";
    } else {
        return value.is_null() ? "null" : value.is_array() ? "a list" : "an object";
    }
    return text;
}

PHI4FLASH_COLD_BODY result<std::size_t> whole_number(const json_value& value, const char* key, std::size_t low, std::size_t high, errc out_of_range) {
    if (!value.is_number()) return wrong_type(key, "a number", value);
    const auto* number = value.get_ptr<const json_value::number_unsigned_t*>();
    if (number != nullptr && *number >= low && *number <= high) return static_cast<std::size_t>(*number);
    std::string have = describe(value);
    const bool has_point = value.get_ptr<const json_value::number_float_t*>() != nullptr;
    if (has_point && have.find_first_not_of("-0123456789") == std::string::npos) have += ".0";  // or it would look like one
    return error::format(out_of_range, "'%s': want a whole number from %zu to %zu, have %s", key, low, high, have.c_str());
}

PHI4FLASH_COLD_BODY status read_checked_json(std::string_view text, const json_limits& limits, json_events& events, json_listener& to) {
    if (text.size() > limits.bytes)
        return error::format(errc::json_too_large, "want at most %zu bytes of JSON, have %zu", limits.bytes, text.size());
    if (const status ok = refuse_nul(text); !ok) return ok;
    bool complete = false;
    const status taken = or_out_of_memory("read JSON", [&] { complete = parse_json(text, to, events.position_counter()); });
    if (!taken) return taken;
    if (complete || !events.outcome()) return events.outcome();
    return error::format(errc::cancelled, "byte %zu: whoever listens has ended the reading", events.position());
}

}  // namespace detail

PHI4FLASH_COLD_BODY void json_events::not_json(std::size_t at, const char* why, bool cut) { (void)fail(detail::not_json(at, why, cut)); }

PHI4FLASH_COLD_BODY result<json_value> read_json(std::string_view text, const json_limits& given) {
    json_limits limits = given;
    limits.depth = (std::min)(limits.depth, std::size_t{1000});
    detail::json_builder events(limits);
    if (const status ok = read_json_events(text, limits, events); !ok) return ok.error();
    return std::move(events.root);
}
#endif

PHI4FLASH_END
#endif  // PHI4FLASH_HAS_JSON
