#pragma once
/// Reads tokenizer.json of the Hugging Face tokenizers library: byte-level BPE with one of the known split patterns. Whatever would
/// change ids and is not supported is refused by name. One pass over the bytes, no document in memory.
#include <phi4flash/core/sort_once.hpp>
#include <phi4flash/io/file/printable.hpp>
#include <phi4flash/io/huggingface/tokenizer_settings.hpp>
#include <phi4flash/io/json/json_listener.hpp>
#include <phi4flash/text/byte_level.hpp>

#if PHI4FLASH_HAS_JSON

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

PHI4FLASH_BEGIN

namespace detail {

/// Listens to the parser. The first error stops it.
class tokenizer_json_reader {
public:
    static constexpr std::size_t max_depth = 16;
    /// Tables have a row for every id up to the highest, so that this may not be far above the number of tokens that the file has room for.
    static constexpr std::size_t max_id_gap = 65536;

    tokenizer_json_reader(tokenizer_builder& builder, std::size_t file_bytes, bool merges_only)
        : builder_(builder), id_limit_(max_id_gap + file_bytes), merges_only_(merges_only) {}

    bool null() { return value({.path = {}, .kind = json_kind::null, .text = {}, .number = 0.0}); }
    bool boolean(bool b) { return value({.path = {}, .kind = json_kind::boolean, .text = {}, .number = b ? 1.0 : 0.0}); }
    bool number_integer(std::int64_t n) { return number(static_cast<double>(n)); }
    bool number_unsigned(std::uint64_t n) {
        if (list_ == list::vocabulary) return token(n);
        return number(static_cast<double>(n));
    }
    bool number_float(double n, const std::string&) { return number(n); }
    bool string(std::string& s) {
        if (list_ == list::merges) return merge_string(s);
        return value({.path = {}, .kind = json_kind::string, .text = std::move(s), .number = 0.0});
    }
    bool key(std::string& k);
    bool start_object(std::size_t) { return open(json_kind::object); }
    bool end_object() { return close(); }
    bool start_array(std::size_t) { return open(json_kind::array); }
    bool end_array() { return close(); }
    void not_json(std::size_t at, const char* why, bool cut) { (void)fail(detail::not_json(at, why, cut)); }

    /// Reads the whole text, once for each reader.
    [[nodiscard]] status read(std::string_view json) {
        listener_of<tokenizer_json_reader> to(*this);
        std::size_t position = 0;
        (void)parse_json(json, to, &position);
        return outcome_;
    }
    [[nodiscard]] bool merges_came_first() const { return merges_came_first_ && seen_vocabulary_; }

    /// After the parse: what can only be checked with everything known.
    [[nodiscard]] status finish();

private:
    enum class list : std::uint8_t { none, vocabulary, merges, added };
    struct frame {
        std::size_t path_size;
        std::size_t index;
        bool is_array;
    };

    bool fail(const error& why) {
        if (outcome_) outcome_ = why;
        return false;
    }
    bool keep(status s) { return s ? true : fail(s.error()); }

    void set_path(std::string_view name) {
        path_.resize(frames_.back().path_size);
        if (!path_.empty()) path_ += '.';
        path_ += name;
    }
    void step_into_array() {
        if (!frames_.empty() && frames_.back().is_array) set_path(std::to_string(frames_.back().index++));
    }

    bool number(double n) { return value({.path = {}, .kind = json_kind::number, .text = {}, .number = n}); }

    bool value(json_fact fact);

    bool open(json_kind kind);

    /// One of the three long lists, or an ordinary container.
    bool open_list(bool is_array, json_kind kind);

    /// A merge as a pair, or an added token.
    bool open_item(bool is_array);

    bool close();

    bool close_item();

    bool token(std::uint64_t id);

    bool merge_string(std::string& s);

    bool merge(std::string_view left, std::string_view right);

    bool added_field(json_fact& fact);

    tokenizer_builder& builder_;
    std::size_t id_limit_;
    tokenizer_settings settings_;
    status outcome_;
    std::vector<frame> frames_;
    std::string path_, key_, left_, right_, left_bytes_, right_bytes_;
    std::vector<std::pair<std::uint64_t, std::string>> not_byte_level_;
    std::vector<added_token> added_;
    added_token token_;
    std::size_t parts_ = 0;
    unsigned seen_fields_ = 0;  // of an added token
    std::size_t list_depth_ = 0;
    list list_ = list::none;
    bool merges_only_ = false, merges_came_first_ = false, has_content_ = false;
    bool seen_vocabulary_ = false, seen_merges_ = false, seen_added_ = false;
};

}  // namespace detail

/// The largest tokenizer.json that is read.
inline constexpr std::size_t max_tokenizer_json_bytes = std::size_t{1} << 28;

/// Builds a tokenizer from the bytes of a tokenizer.json, which need not be kept. Post-processors are not run: texts get no
/// markers that they do not spell. A `truncation` or `padding` left in the file is not looked at: texts are encoded whole. Errors: json_* with the
/// place; file_empty; file_incomplete (JSON that ends too early); unsupported_tokenizer with the name of what is not supported; bad_vocabulary;
/// bad_merge; out_of_memory.
PHI4FLASH_BODY result<tokenizer> tokenizer_from_json(std::string_view json);

#if PHI4FLASH_BODIES
namespace detail {

PHI4FLASH_BODY bool tokenizer_json_reader::key(std::string& k) {
    if (list_ == list::vocabulary) {
        key_.swap(k);
        return true;
    }
    set_path(k);
    return true;
}

PHI4FLASH_BODY status tokenizer_json_reader::finish() {
    if (!seen_vocabulary_) return error::format(errc::json_missing_key, "there is no 'model.vocab'");
    if (!seen_merges_) return error::format(errc::json_missing_key, "there is no 'model.merges'");
    std::vector<const added_token*> added;
    if (!not_byte_level_.empty())
        for (const added_token& t : added_) added.push_back(&t);
    sort_once(added, [](const added_token* a, const added_token* b) { return a->id < b->id; });
    for (const auto& [id, content] : not_byte_level_) {
        const auto found = std::lower_bound(added.begin(), added.end(), id, [](const added_token* t, std::uint64_t want) { return t->id < want; });
        if (found == added.end() || (*found)->id != id || (*found)->content != content)
            return error::format(errc::bad_vocabulary, "token %llu '%s' is not byte-level text", static_cast<unsigned long long>(id),
                                 printable(content).c_str());
    }
    for (added_token& t : added_) {
        if (status s = builder_.add_added_token(std::move(t)); !s) return s;
    }
    return settings_.apply(builder_);
}

PHI4FLASH_BODY bool tokenizer_json_reader::value(json_fact fact) {
    if (list_ == list::vocabulary)
        return fail(error::format(errc::json_wrong_type, "model.vocab: the id of '%s' is no number", printable(key_).c_str()));
    if (list_ == list::merges)
        return fail(error::format(errc::json_wrong_type, "model.merges: a merge is neither a string nor two strings"));
    if (list_ == list::added) return added_field(fact);
    if (frames_.empty()) return fail(error::format(errc::json_wrong_type, "the file holds no object"));
    step_into_array();
    if (merges_only_) return true;
    fact.path = path_;
    return keep(settings_.add(std::move(fact)));
}

PHI4FLASH_BODY bool tokenizer_json_reader::open(json_kind kind) {
    const bool is_array = kind == json_kind::array;
    if (frames_.size() == max_depth) return fail(error::format(errc::json_too_deep, "deeper than %zu levels", max_depth));
    if (list_ == list::vocabulary) return value({.path = {}, .kind = kind, .text = {}, .number = 0.0});
    if (list_ == list::merges || list_ == list::added) return open_item(is_array);
    if (frames_.empty() && is_array) return fail(error::format(errc::json_wrong_type, "the file holds no object"));
    step_into_array();
    if (!frames_.empty() && !open_list(is_array, kind)) return false;
    frames_.push_back({path_.size(), 0, is_array});
    return true;
}

PHI4FLASH_BODY bool tokenizer_json_reader::open_list(bool is_array, json_kind kind) {
    const auto begin = [&](list which, bool& seen, bool right_type) {
        if (seen) return fail(error::format(errc::json_duplicate_key, "'%s' is given twice", printable(path_).c_str()));
        if (!right_type) return fail(error::format(errc::json_wrong_type, "'%s' is the wrong kind of list", printable(path_).c_str()));
        seen = true;
        list_ = which;
        list_depth_ = frames_.size() + 1;
        return true;
    };
    if (path_ == "model.vocab") return begin(list::vocabulary, seen_vocabulary_, !is_array);
    if (path_ == "model.merges") {
        merges_came_first_ = !seen_vocabulary_;
        return begin(list::merges, seen_merges_, is_array);
    }
    if (path_ == "added_tokens") return begin(list::added, seen_added_, is_array);
    return merges_only_ || keep(settings_.add({.path = path_, .kind = kind, .text = {}, .number = 0.0}));
}

PHI4FLASH_BODY bool tokenizer_json_reader::open_item(bool is_array) {
    if (frames_.size() != list_depth_ || is_array != (list_ == list::merges))
        return fail(error::format(errc::json_wrong_type, "'%s': an entry has the wrong type",
                                  list_ == list::merges ? "model.merges" : "added_tokens"));
    path_.resize(frames_.back().path_size);  // of the list: the entry before has left its own
    frames_.push_back({path_.size(), 0, is_array});
    parts_ = 0;
    if (list_ == list::added) {
        token_ = added_token{};
        has_content_ = false;
        seen_fields_ = 0;
    }
    return true;
}

PHI4FLASH_BODY bool tokenizer_json_reader::close() {
    frames_.pop_back();
    if (list_ != list::none && frames_.size() == list_depth_) return close_item();
    if (list_ != list::none && frames_.size() < list_depth_) list_ = list::none;
    return true;
}

PHI4FLASH_BODY bool tokenizer_json_reader::close_item() {
    if (list_ == list::merges) {
        if (parts_ != 2) return fail(error::format(errc::json_wrong_type, "model.merges: a pair has %zu strings", parts_));
        return merge(left_, right_);
    }
    if (merges_only_) return true;
    if (token_.id == no_token || !has_content_)
        return fail(error::format(errc::json_missing_key, "added_tokens: entry %zu lacks %s", added_.size(),
                                  has_content_ ? "'id'" : "'content'"));
    added_.push_back(std::move(token_));
    return true;
}

PHI4FLASH_BODY bool tokenizer_json_reader::token(std::uint64_t id) {
    if (merges_only_) return true;
    if (id >= id_limit_)
        return fail(error::format(errc::bad_vocabulary, "token '%s': want an id below %zu in a file of this length, have %llu",
                                  printable(key_).c_str(), id_limit_, static_cast<unsigned long long>(id)));
    if (from_byte_level(key_, left_bytes_)) return keep(builder_.add_token(static_cast<std::size_t>(id), left_bytes_));
    if (not_byte_level_.size() == tokenizer_settings::max_facts)
        return fail(error::format(errc::bad_vocabulary, "token %llu '%s' is not byte-level text", static_cast<unsigned long long>(id),
                                  printable(key_).c_str()));
    not_byte_level_.emplace_back(id, key_);
    return true;
}

PHI4FLASH_BODY bool tokenizer_json_reader::merge_string(std::string& s) {
    if (frames_.size() > list_depth_) {  // inside a pair
        if (parts_ < 2) (parts_ == 0 ? left_ : right_).swap(s);
        ++parts_;
        return true;
    }
    const std::size_t space = s.find(' ');
    if (space == std::string::npos || s.find(' ', space + 1) != std::string::npos)
        return fail(error::format(errc::bad_merge, "merge '%s' is not two parts with a space between", printable(s).c_str()));
    return merge(std::string_view(s).substr(0, space), std::string_view(s).substr(space + 1));
}

PHI4FLASH_BODY bool tokenizer_json_reader::merge(std::string_view left, std::string_view right) {
    if (merges_came_first_ && !merges_only_) return true;
    if (!from_byte_level(left, left_bytes_) || !from_byte_level(right, right_bytes_))
        return fail(error::format(errc::bad_merge, "merge '%s' '%s' is not byte-level text", printable(left).c_str(), printable(right).c_str()));
    return keep(builder_.add_merge(left_bytes_, right_bytes_));
}

PHI4FLASH_BODY bool tokenizer_json_reader::added_field(json_fact& fact) {
    if (frames_.size() == list_depth_) return fail(error::format(errc::json_wrong_type, "added_tokens: an entry is no object"));
    if (merges_only_) return true;
    constexpr std::array names{"id", "content", "special", "lstrip", "rstrip", "normalized", "single_word"};
    const std::string_view name = std::string_view(path_).substr(frames_.back().path_size + 1);
    const auto complain = [&](errc code, const char* what) {
        return fail(error::format(code, "added_tokens: entry %zu: the key '%s' %s", added_.size(), printable(name).c_str(), what));
    };
    const auto place = static_cast<unsigned>(std::find(names.begin(), names.end(), name) - names.begin());
    if (place == names.size()) return complain(errc::json_unknown_key, "is not known");
    if ((seen_fields_ >> place & 1) != 0) return complain(errc::json_duplicate_key, "is given twice");
    seen_fields_ |= 1u << place;
    if (name == "id") {
        if (fact.kind != json_kind::number || fact.number < 0 || std::floor(fact.number) != fact.number)
            return complain(errc::json_wrong_type, "wants a whole number from 0 on");
        if (fact.number >= static_cast<double>(max_vocabulary_ids))
            return fail(error::format(errc::bad_vocabulary, "added token id %.0f is not below the limit of %zu", fact.number,
                                      max_vocabulary_ids));
        token_.id = static_cast<std::uint32_t>(fact.number);
        return true;
    }
    if (name == "content") {
        if (fact.kind != json_kind::string) return complain(errc::json_wrong_type, "wants a string");
        token_.content = std::move(fact.text);
        has_content_ = true;
        return true;
    }
    const bool on = fact.number != 0.0;
    if (fact.kind != json_kind::boolean) return complain(errc::json_wrong_type, "wants true or false");
    if (name == "special")
        token_.special = on;
    else if (name == "lstrip")
        token_.lstrip = on;
    else if (name == "rstrip")
        token_.rstrip = on;
    else if (name == "normalized")
        token_.normalized = on;
    else if (on)
        return fail(error::format(errc::unsupported_tokenizer, "added tokens with single_word are not supported"));
    return true;
}

}  // namespace detail

PHI4FLASH_BODY result<tokenizer> tokenizer_from_json(std::string_view json) {
    return detail::or_out_of_memory("read a tokenizer.json", [&]() -> result<tokenizer> {
        if (json.size() > max_tokenizer_json_bytes)
            return error::format(errc::json_too_large, "%zu bytes, at most %zu are read", json.size(), max_tokenizer_json_bytes);
        if (json.empty()) return error::format(errc::file_empty, "the tokenizer.json is empty");
        if (const status ok = detail::refuse_nul(json); !ok) return ok.error();
        tokenizer_builder builder;
        // The released files spend about 78 bytes on a token and its merge.
        if (status s = builder.reserve(json.size() / 72, json.size() / 10, json.size() / 72); !s) return s.error();
        detail::tokenizer_json_reader reader(builder, json.size(), false);
        if (const status s = reader.read(json); !s) return s.error();
        if (reader.merges_came_first()) {
            detail::tokenizer_json_reader again(builder, json.size(), true);
            if (const status s = again.read(json); !s) return s.error();
        }
        if (status s = reader.finish(); !s) return s.error();
        return builder.build();
    });
}
#endif

PHI4FLASH_END

#endif
