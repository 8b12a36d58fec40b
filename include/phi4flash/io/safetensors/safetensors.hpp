#pragma once
/// The safetensors container: 8 bytes of header length, a JSON header, then the data of the tensors without gaps.
/// Every rule is checked before a tensor is handed out. Source: github.com/huggingface/safetensors, README "Format".
#include <phi4flash/core/matrix.hpp>
#include <phi4flash/core/result.hpp>
#include <phi4flash/core/sort_once.hpp>
#include <phi4flash/core/span_of.hpp>
#include <phi4flash/io/json/json.hpp>
#include <phi4flash/io/file/printable.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

PHI4FLASH_BEGIN

static_assert(std::endian::native == std::endian::little, "phi4flash: safetensors files are little-endian and used in place");

/// Element types that the format knows, by the name it gives them.
struct safetensors_dtype {
    std::string_view name;
    std::size_t bytes;
};
/// All types of the format; models are F32, F16 and BF16.
PHI4FLASH_OWN_DATA inline constexpr safetensors_dtype safetensors_dtypes[] = {
    {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F64", 8}, {"I64", 8}, {"I32", 4},     {"I16", 2},     {"I8", 1},
    {"U64", 8}, {"U32", 4}, {"U16", 2},  {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1},
};

/// By its name in a header; null for another.
[[nodiscard]] constexpr const safetensors_dtype* find_safetensors_dtype(std::string_view name) {
    for (const auto& known : safetensors_dtypes)
        if (known.name == name) return &known;
    return nullptr;
}

/// The format's own limit on its header.
inline constexpr std::size_t max_safetensors_header = 100'000'000;

/// Where a file begins at a multiple of this in memory, and has a header that the usual library wrote, every element is aligned.
inline constexpr std::size_t safetensors_alignment = 8;

/// One tensor of a file, of any element type. The format lets the header have any length, so that `data` may lie at an odd place.
struct safetensors_entry {
    std::string_view name;
    std::string_view dtype;  ///< one of safetensors_dtypes
    std::size_t extent[tensor_view::max_rank] = {};
    std::size_t rank = 0;
    const std::byte* data = nullptr;
    std::size_t bytes = 0;

    [[nodiscard]] std::span<const std::size_t> shape() const { return {extent, rank}; }
};

/// The entry as weights, where it lies: see tensor_view::is_aligned. Errors: wrong_dtype for element types that the library does not compute with.
[[nodiscard]] PHI4FLASH_BODY result<tensor_view> to_tensor_view(const safetensors_entry& entry);

#if PHI4FLASH_HAS_JSON
namespace detail {
/// Reads the header: checks keys, types and numbers of each tensor, and that its bytes fit the shape and the file.
class safetensors_events : public json_events {
public:
    safetensors_events(const json_limits& limits, std::span<const std::byte> data) : json_events(limits), data_(data) {
        names.reserve(limits.bytes);  // never moves: the entries' names point into it
    }

    std::vector<char> names;
    std::vector<safetensors_entry> entries;
    std::uint64_t missing = 0;  ///< bytes of data that the header speaks of and the file does not have

    bool null() { return number_or_text("null"); }
    bool boolean(bool) { return number_or_text("a boolean"); }
    bool number_integer(std::int64_t) { return bad_number("a negative number"); }
    bool number_float(double, const std::string& text) { return bad_number(printable(text).c_str()); }
    bool number_unsigned(std::uint64_t n);
    bool string(std::string& text);
    bool start_object(std::size_t n);
    bool end_object();
    bool start_array(std::size_t n);
    bool end_array();
    bool key(std::string& name);
    /// All of the header is there: where its text ends too early, it is damaged.
    void not_json(std::size_t at, const char* why, bool) { json_events::not_json(at, why, false); }

private:
    enum class place : std::uint8_t { outside, header, metadata, tensor, shape, offsets };
    enum field : unsigned { none = 0, dtype_field = 1, shape_field = 2, offsets_field = 4 };

    bool is_metadata() const { return key_ == "__metadata__"; }
    const char* wanted() const;
    const char* field_name() const {
        return field_ == dtype_field ? ".dtype" : field_ == shape_field ? ".shape" : field_ == offsets_field ? ".data_offsets" : "";
    }
    bool number_or_text(const char* have) {
        return fail(error::format(errc::json_wrong_type, "header byte %zu, '%s'%s: want %s, have %s", position(),
                                  printable(key_).c_str(), field_name(), wanted(), have));
    }
    bool bad_number(const char* have) {
        if (place_ != place::shape && place_ != place::offsets) return number_or_text("a number");
        return fail(error::format(errc::json_bad_number, "tensor '%s'%s: want whole numbers from 0, have %s",
                                  printable(key_).c_str(), field_name(), have));
    }
    bool finish_tensor();
    bool place_tensor(std::uint64_t bytes);

    std::span<const std::byte> data_;
    place place_ = place::outside;
    std::string key_;  // of the tensor or of __metadata__
    unsigned seen_ = none;
    unsigned field_ = none;
    safetensors_entry entry_;
    std::size_t element_bytes_ = 0;
    std::uint64_t offset_[2] = {};
    std::size_t offsets_ = 0;
};

}  // namespace detail

/// The tensors of one file, sorted by name. Points into the bytes it was read from, which must outlive it; moving it
/// leaves its views valid.
class safetensors {
public:
    safetensors() = default;
    safetensors(safetensors&&) = default;
    safetensors& operator=(safetensors&&) = default;

    /// Reads a file mapped or owned by the host, at any place in memory. Errors, naming the tensor where there is one: file_empty,
    /// header_too_large, json_*, unknown_dtype, rank_too_high, size_overflow, size_mismatch, offset_*,
    /// file_incomplete, trailing_bytes, duplicate_name, out_of_memory.
    static result<safetensors> parse(std::span<const std::byte> file);

    [[nodiscard]] std::span<const safetensors_entry> entries() const { return detail::span_of(entries_); }

    [[nodiscard]] const safetensors_entry* find(std::string_view name) const {
        const auto place = std::lower_bound(entries_.begin(), entries_.end(), name,
                                            [](const safetensors_entry& e, std::string_view wanted) { return e.name < wanted; });
        return place != entries_.end() && place->name == name ? &*place : nullptr;
    }

private:
    static result<std::string_view> header_of(std::span<const std::byte> file);
    status check_cover(std::span<const std::byte> data);

    std::vector<char> names_;
    std::vector<safetensors_entry> entries_;
};

#endif

#if PHI4FLASH_BODIES
#if PHI4FLASH_HAS_JSON
namespace detail {

PHI4FLASH_COLD_BODY const char* safetensors_events::wanted() const {
    if (place_ == place::outside) return "an object of tensors";
    if (place_ == place::header) return "an object";
    if (place_ == place::metadata) return "a string";
    if (place_ != place::tensor) return "a whole number";
    return field_ == dtype_field ? "a string" : "a list of numbers";
}

PHI4FLASH_COLD_BODY bool safetensors_events::number_unsigned(std::uint64_t n) {
    if (place_ == place::shape) {
        if (entry_.rank == tensor_view::max_rank)
            return fail(error::format(errc::rank_too_high, "tensor '%s': want at most %zu extents", printable(key_).c_str(),
                                      tensor_view::max_rank));
        if (n > (std::numeric_limits<std::size_t>::max)())
            return fail(error::format(errc::size_overflow, "tensor '%s': the extent %llu is beyond the address space", printable(key_).c_str(),
                                      static_cast<unsigned long long>(n)));
        entry_.extent[entry_.rank++] = static_cast<std::size_t>(n);
        return true;
    }
    if (place_ != place::offsets) return number_or_text("a number");
    if (offsets_ < 2) offset_[offsets_] = n;
    ++offsets_;
    return true;
}

PHI4FLASH_COLD_BODY bool safetensors_events::string(std::string& text) {
    if (place_ == place::metadata) return true;
    if (place_ != place::tensor || field_ != dtype_field) return number_or_text("a string");
    const safetensors_dtype* const known = find_safetensors_dtype(text);
    if (known == nullptr)
        return fail(error::format(errc::unknown_dtype, "tensor '%s': unknown dtype '%s'", printable(key_).c_str(),
                                  printable(text).c_str()));
    entry_.dtype = known->name;
    element_bytes_ = known->bytes;
    return true;
}

PHI4FLASH_COLD_BODY bool safetensors_events::start_object(std::size_t n) {
    if (place_ != place::outside && place_ != place::header) {
        return json_events::start_object(n) && number_or_text("an object");
    }
    const bool tensor = place_ == place::header && !is_metadata();
    place_ = place_ == place::outside ? place::header : tensor ? place::tensor : place::metadata;
    seen_ = none;
    entry_ = {};
    offsets_ = 0;
    return json_events::start_object(n);
}

PHI4FLASH_COLD_BODY bool safetensors_events::end_object() {
    if (place_ == place::tensor && !finish_tensor()) return false;
    place_ = place_ == place::header ? place::outside : place::header;
    field_ = none;
    return json_events::end_object();
}

PHI4FLASH_COLD_BODY bool safetensors_events::start_array(std::size_t n) {
    if (!json_events::start_array(n)) return false;
    if (place_ != place::tensor || (field_ != shape_field && field_ != offsets_field)) return number_or_text("a list");
    place_ = field_ == shape_field ? place::shape : place::offsets;
    return true;
}

PHI4FLASH_COLD_BODY bool safetensors_events::end_array() {
    if (place_ == place::offsets && offsets_ != 2)
        return fail(error::format(errc::json_wrong_type, "tensor '%s'.data_offsets: want 2 numbers, have %zu",
                                  printable(key_).c_str(), offsets_));
    place_ = place::tensor;
    return json_events::end_array();
}

PHI4FLASH_COLD_BODY bool safetensors_events::key(std::string& name) {
    if (place_ == place::header) {
        key_ = name;
        if (first_use(name)) return true;
        if (is_metadata()) return fail(error::format(errc::json_duplicate_key, "header: '__metadata__' occurs twice"));
        return fail(error::format(errc::duplicate_name, "header: tensor '%s' occurs twice", printable(name).c_str()));
    }
    if (!json_events::key(name) || place_ == place::metadata) return outcome().has_value();
    field_ = name == "dtype" ? dtype_field : name == "shape" ? shape_field : name == "data_offsets" ? offsets_field : none;
    if (field_ == none)
        return fail(error::format(errc::json_unknown_key, "tensor '%s': unknown key '%s'", printable(key_).c_str(),
                                  printable(name).c_str()));
    seen_ |= field_;
    return true;
}

PHI4FLASH_COLD_BODY bool safetensors_events::finish_tensor() {
    for (const unsigned wanted_field : {dtype_field, shape_field, offsets_field}) {
        field_ = wanted_field;
        if ((seen_ & wanted_field) == 0)
            return fail(
                error::format(errc::json_missing_key, "tensor '%s': no key '%s'", printable(key_).c_str(), field_name() + 1));
    }
    std::uint64_t bytes = element_bytes_;
    for (const std::size_t extent : entry_.shape()) {
        if (extent != 0 && bytes > (std::numeric_limits<std::uint64_t>::max)() / extent)
            return fail(error::format(errc::size_overflow, "tensor '%s': the product of its shape does not fit 64 bits",
                                      printable(key_).c_str()));
        bytes *= extent;
    }
    return place_tensor(bytes);
}

PHI4FLASH_COLD_BODY bool safetensors_events::place_tensor(std::uint64_t bytes) {
    const auto begin = static_cast<unsigned long long>(offset_[0]);
    const auto end = static_cast<unsigned long long>(offset_[1]);
    const printable name(key_);
    constexpr unsigned long long most = 1ull << 50;  // no file is so long
    if (begin > end || end > most)
        return fail(error::format(errc::offset_out_of_range,
                                  "tensor '%s': data_offsets [%llu, %llu] leave the %zu bytes of data in the file", name.c_str(),
                                  begin, end, data_.size()));
    if (end - begin != bytes)
        return fail(error::format(errc::size_mismatch, "tensor '%s': its shape wants %llu bytes, data_offsets have %llu",
                                  name.c_str(), static_cast<unsigned long long>(bytes), end - begin));
    if (end > data_.size()) {  // a file that was cut short; read on to learn how much there should be
        missing = (std::max)(missing, static_cast<std::uint64_t>(end - data_.size()));
        return true;
    }
    entry_.data = data_.data() + begin;
    entry_.bytes = static_cast<std::size_t>(bytes);
    entry_.name = {names.data() + names.size(), key_.size()};
    names.insert(names.end(), key_.begin(), key_.end());
    entries.push_back(entry_);
    return true;
}

}  // namespace detail

PHI4FLASH_COLD_BODY result<std::string_view> safetensors::header_of(std::span<const std::byte> file) {
    constexpr std::size_t length_bytes = 8;
    if (file.empty()) return error::format(errc::file_empty, "no bytes: want a safetensors file");
    if (file.size() < length_bytes)
        return error::format(errc::file_incomplete, "want %zu bytes of header length, have a file of %zu: a download that is not finished?",
                             length_bytes, file.size());
    std::uint64_t length = 0;
    std::memcpy(&length, file.data(), length_bytes);
    if (length > max_safetensors_header)
        return error::format(errc::header_too_large, "want a header of at most %zu bytes, have %llu", max_safetensors_header,
                             static_cast<unsigned long long>(length));
    if (length > file.size() - length_bytes)
        return error::format(errc::file_incomplete, "want a header of %llu bytes, have a file of %zu: a download that is not finished?",
                             static_cast<unsigned long long>(length), file.size());
    const std::string_view header(reinterpret_cast<const char*>(file.data()) + length_bytes, static_cast<std::size_t>(length));
    if (header.empty() || header.front() != '{') return error::format(errc::json_syntax, "header byte 1: want '{'");
    return header;
}

/// The tensors must cover the data once and completely. Leaves the entries in order of their place.
PHI4FLASH_COLD_BODY status safetensors::check_cover(std::span<const std::byte> data) {
    detail::sort_once(entries_, [](const safetensors_entry& a, const safetensors_entry& b) {
        return a.data != b.data ? a.data < b.data : a.bytes < b.bytes;
    });
    std::size_t covered = 0;
    for (const safetensors_entry& entry : entries_) {
        const auto begin = static_cast<std::size_t>(entry.data - data.data());
        if (begin != covered) {
            const bool overlap = begin < covered;
            return error::format(overlap ? errc::offset_overlap : errc::offset_hole,
                                 "tensor '%s': data_offsets start at %zu, want %zu where the tensor before it ends: %s",
                                 printable(entry.name).c_str(), begin, covered, overlap ? "they overlap" : "there is a hole");
        }
        covered += entry.bytes;
    }
    if (covered != data.size())
        return error::format(errc::trailing_bytes, "want %zu bytes of data as the header says, have %zu in the file", covered,
                             data.size());
    return {};
}

PHI4FLASH_COLD_BODY result<safetensors> safetensors::parse(std::span<const std::byte> file) {
    return detail::or_out_of_memory("read a safetensors file", [&]() -> result<safetensors> {
        const auto header = header_of(file);
        if (!header) return header.error();
        const auto data = file.subspan(8 + header->size());
        const json_limits limits{.bytes = header->size(), .depth = 3};
        detail::safetensors_events events(limits, data);
        if (const status ok = read_json_events(*header, limits, events); !ok) return ok.error();
        if (events.missing != 0)
            return error::format(errc::file_incomplete, "the last %llu of %llu bytes are missing: a download that is not finished? Go on with it",
                                 static_cast<unsigned long long>(events.missing),
                                 static_cast<unsigned long long>(events.missing + file.size()));

        safetensors table;
        table.names_ = std::move(events.names);
        table.entries_ = std::move(events.entries);
        if (const status ok = table.check_cover(data); !ok) return ok.error();
        detail::sort_once(table.entries_, [](const safetensors_entry& a, const safetensors_entry& b) { return a.name < b.name; });
        return table;
    });
}
#endif

PHI4FLASH_COLD_BODY result<tensor_view> to_tensor_view(const safetensors_entry& entry) {
    tensor_view view{.name = entry.name, .data = entry.data, .bytes = entry.bytes, .rank = entry.rank};
    for (std::size_t i = 0; i < entry.rank; ++i) view.extent[i] = entry.extent[i];
    for (std::size_t i = 0; i < plain_dtype_count; ++i) {
        view.type = static_cast<dtype>(i);
        if (entry.dtype == name_of(view.type)) return view;
    }
    return error::format(errc::wrong_dtype, "tensor '%s': want F32, F16 or BF16, have %s", printable(entry.name).c_str(),
                         entry.dtype.data());
}
#endif

PHI4FLASH_END
