#pragma once
/// Where nlohmann's parser is met: it is compiled once, for one kind of listener and one of iterators, and files that only declare what reads
/// JSON do without its header.
#include <phi4flash/core/result.hpp>
#include <phi4flash/io/file/printable.hpp>

#if PHI4FLASH_HAS_JSON

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#if PHI4FLASH_BODIES
#if defined(__has_include)
#if !__has_include(<nlohmann/json.hpp>)
#error "phi4flash: PHI4FLASH_HAS_JSON is 1, but <nlohmann/json.hpp> is not on the include path; add nlohmann/json 3.11 or newer, or set it to 0"
#endif
#endif
#include <nlohmann/json.hpp>

#include <iterator>
#endif

PHI4FLASH_BEGIN

namespace detail {

/// Is told of a document in the order in which it is written. False ends the reading; strings may be moved from. All functions are pure, so that no
/// file has to have what a compiler makes of the class: with run-time types or without is each file's own choice.
class json_listener {
public:
    virtual bool null() = 0;
    virtual bool boolean(bool b) = 0;
    virtual bool number_integer(std::int64_t n) = 0;  ///< negative ones only
    virtual bool number_unsigned(std::uint64_t n) = 0;
    virtual bool number_float(double x, const std::string& text) = 0;  ///< also whole numbers that do not fit 64 bits
    virtual bool string(std::string& text) = 0;
    virtual bool start_object() = 0;
    virtual bool end_object() = 0;
    virtual bool start_array() = 0;
    virtual bool end_array() = 0;
    virtual bool key(std::string& name) = 0;
    /// The text is not JSON at byte `at`. `why`: the parser's words; `cut`: it ends there, in the middle of something (of a word that belongs
    /// nowhere, too).
    virtual void not_json(std::size_t at, const char* why, bool cut) = 0;

protected:
    json_listener() = default;
    json_listener(const json_listener&) = default;
    json_listener& operator=(const json_listener&) = default;
    ~json_listener() = default;
};

/// Tells it to `Events`, whose functions are not virtual: those of json_events (io/json/json.hpp).
template <class Events>
class listener_of final : public json_listener {
public:
    explicit listener_of(Events& events) : to_(&events) {}

    bool null() override { return to_->null(); }
    bool boolean(bool b) override { return to_->boolean(b); }
    bool number_integer(std::int64_t n) override { return to_->number_integer(n); }
    bool number_unsigned(std::uint64_t n) override { return to_->number_unsigned(n); }
    bool number_float(double x, const std::string& text) override { return to_->number_float(x, text); }
    bool string(std::string& text) override { return to_->string(text); }
    bool start_object() override { return to_->start_object(unknown_count); }
    bool end_object() override { return to_->end_object(); }
    bool start_array() override { return to_->start_array(unknown_count); }
    bool end_array() override { return to_->end_array(); }
    bool key(std::string& name) override { return to_->key(name); }
    void not_json(std::size_t at, const char* why, bool cut) override { to_->not_json(at, why, cut); }

private:
    static constexpr auto unknown_count = static_cast<std::size_t>(-1);
    Events* to_;
};

/// The error of a text that is not JSON at byte `at`, or ends there (`cut`), or has a number there that no double can hold; `why`: the parser's
/// words.
[[nodiscard]] PHI4FLASH_BODY error not_json(std::size_t at, std::string_view why, bool cut);

/// The parser takes a NUL for the end of the text, and would accept whatever hides behind it. Errors: json_syntax.
[[nodiscard]] PHI4FLASH_BODY status refuse_nul(std::string_view text);

/// Reads a text without a NUL to its end, or to an error or an event that ends it, and returns whether it came to the end. *position: bytes
/// read so far, to just after the text of the current event.   Throws what containers throw.
[[nodiscard]] PHI4FLASH_BODY bool parse_json(std::string_view text, json_listener& to, std::size_t* position);

#if PHI4FLASH_BODIES

/// Walks over the text and tells how far it has come, which the parser's events do not.
struct json_iterator {
    using iterator_category = std::input_iterator_tag;
    using value_type = char;
    using difference_type = std::ptrdiff_t;
    using pointer = const char*;
    using reference = const char&;

    const char* at = nullptr;
    const char* begin = nullptr;
    std::size_t* position = nullptr;

    reference operator*() const { return *at; }
    json_iterator& operator++() {
        ++at;
        *position = static_cast<std::size_t>(at - begin);
        return *this;
    }
    json_iterator operator++(int) {
        const json_iterator before = *this;
        ++*this;
        return before;
    }
    friend bool operator==(const json_iterator& a, const json_iterator& b) { return a.at == b.at; }
    friend bool operator!=(const json_iterator& a, const json_iterator& b) { return a.at != b.at; }
};

/// What the parser wants to talk to.
struct json_events_of_parser {
    json_listener* to;
    std::size_t bytes;  ///< of the text

    bool null() { return to->null(); }
    bool boolean(bool b) { return to->boolean(b); }
    bool number_integer(nlohmann::json::number_integer_t n) { return to->number_integer(n); }
    bool number_unsigned(nlohmann::json::number_unsigned_t n) { return to->number_unsigned(n); }
    bool number_float(nlohmann::json::number_float_t x, const std::string& text) { return to->number_float(x, text); }
    bool string(std::string& text) { return to->string(text); }
    bool binary(nlohmann::json::binary_t&) { return false; }  // never in JSON
    bool start_object(std::size_t) { return to->start_object(); }
    bool end_object() { return to->end_object(); }
    bool start_array(std::size_t) { return to->start_array(); }
    bool end_array() { return to->end_array(); }
    bool key(std::string& name) { return to->key(name); }
    bool parse_error(std::size_t at, const std::string&, const nlohmann::json::exception& why) {
        to->not_json(at, why.what(), at > bytes);  // it counts the end as one more
        return false;
    }
};

PHI4FLASH_COLD_BODY error not_json(std::size_t at, std::string_view why, bool cut) {
    // "[json.exception.parse_error.101] parse error at ...: syntax error ..."
    if (const auto tag = why.find("] "); tag != std::string_view::npos) why.remove_prefix(tag + 2);
    if (why.starts_with("number overflow"))
        return error::format(errc::json_bad_number, "byte %zu: want a number that a double can hold: %s", at, printable(why).c_str());
    if (const auto place = why.find("syntax error "); place != std::string_view::npos) why.remove_prefix(place);
    if (cut)
        return error::format(errc::file_incomplete, "byte %zu: JSON that ends too early (a download that is not finished?): %s", at,
                             printable(why).c_str());
    return error::format(errc::json_syntax, "byte %zu: not JSON: %s", at, printable(why).c_str());
}

PHI4FLASH_COLD_BODY status refuse_nul(std::string_view text) {
    const auto nul = text.find('\0');
    if (nul == std::string_view::npos) return {};
    return error::format(errc::json_syntax, "byte %zu: not JSON: a NUL byte", nul + 1);
}

PHI4FLASH_BODY bool parse_json(std::string_view text, json_listener& to, std::size_t* position) {
    json_events_of_parser events{&to, text.size()};
    const char* const begin = text.data();
    return nlohmann::json::sax_parse(json_iterator{begin, begin, position}, json_iterator{begin + text.size(), begin, position}, &events);
}

#endif

}  // namespace detail

PHI4FLASH_END
#endif  // PHI4FLASH_HAS_JSON
