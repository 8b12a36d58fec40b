#pragma once
/// The GGUF container, version 3: a header, metadata, a table of tensors, then their data, each aligned. Every rule is checked
/// before anything is handed out; names, strings and data are views of the file.
/// Source: github.com/ggml-org/ggml, docs/gguf.md.
#include <phi4flash/core/matrix.hpp>
#include <phi4flash/core/memory.hpp>
#include <phi4flash/core/out_of_memory.hpp>
#include <phi4flash/core/sort_once.hpp>
#include <phi4flash/core/span_of.hpp>
#include <phi4flash/io/gguf/ggml_types.hpp>
#include <phi4flash/io/gguf/gguf_value.hpp>

#include <algorithm>
#include <bit>
#include <vector>

PHI4FLASH_BEGIN

static_assert(std::endian::native == std::endian::little, "phi4flash: GGUF files are little-endian and used in place");

inline constexpr std::uint32_t gguf_version = 3;  ///< the one that is read and written
inline constexpr std::size_t gguf_default_alignment = 32;  ///< bytes; of files that do not say
/// What a file may ask for. Released models have some 50 keys and 500 tensors.
struct gguf_limits {
    std::size_t keys = std::size_t{1} << 16;
    std::size_t tensors = std::size_t{1} << 16;
    std::size_t key_bytes = 65535;  ///< the format's own
    std::size_t name_bytes = 64;    ///< the format's own
    std::size_t alignment = std::size_t{1} << 16;
};
/// Blocks of bytes that a host hands over start at a multiple of this.
inline constexpr std::size_t gguf_host_alignment = 8;

/// One tensor of a file. Extents are in row-major order, the reverse of the file's: a matrix is [rows, cols].
struct gguf_tensor {
    std::string_view name;
    const ggml_format* format = nullptr;
    std::size_t extent[tensor_view::max_rank] = {};
    std::size_t rank = 0;
    const std::byte* data = nullptr;
    std::size_t bytes = 0;

    [[nodiscard]] std::span<const std::size_t> shape() const { return {extent, rank}; }
    [[nodiscard]] std::size_t cols() const { return rank == 0 ? 1 : extent[rank - 1]; }
    [[nodiscard]] std::size_t count() const { return bytes / format->block_bytes * format->block_length; }
    [[nodiscard]] std::size_t rows() const { return cols() == 0 ? 0 : count() / cols(); }
};

namespace detail {
/// Reads a file from front to back; `data` of a tensor is its place in the file until place_tensors().
class gguf_parser {
public:
    gguf_parser(std::span<const std::byte> file, const gguf_limits& limits) : file_(file), limits_(limits) {}

    status read();

    std::vector<gguf_value> values;
    std::vector<gguf_tensor> tensors;
    std::size_t alignment = gguf_default_alignment;
    std::size_t data_begin = 0;

private:
    [[nodiscard]] std::size_t left() const { return file_.size() - at_; }
    template <class T>
    status number(T& x, const char* what) {
        if (left() < sizeof x)
            return error::format(errc::file_incomplete, "byte %zu: want %zu bytes of %s, the file has %zu more: a download that is not finished?",
                                 at_, sizeof x, what, left());
        std::memcpy(&x, file_.data() + at_, sizeof x);
        at_ += sizeof x;
        return {};
    }
    status string(std::string_view& text, const char* what, std::uint64_t most);
    status read_header(std::uint64_t& n_tensors, std::uint64_t& n_values);
    status read_value(gguf_value& v);
    status read_strings(const gguf_value& v);
    status read_alignment();
    status read_tensor(gguf_tensor& t);
    status measure(gguf_tensor& t, std::uint64_t rank);
    status check_names();
    status place_tensors();

    std::span<const std::byte> file_;
    gguf_limits limits_;
    std::size_t at_ = 0;
    std::vector<std::uint64_t> offsets_;
};

}  // namespace detail

/// Metadata and tensors of one file, each sorted by name. Points into the bytes it was read from, which must outlive it; moving it
/// leaves its views valid. Reading from several threads is safe.
class gguf {
public:
    gguf() = default;
    gguf(gguf&&) = default;
    gguf& operator=(gguf&&) = default;

    /// Reads a file mapped or owned by the host; `file` starts at a multiple of `gguf_host_alignment`. The data of the tensors is
    /// not touched. Errors, each naming the key, the tensor or the byte: invalid_argument, file_empty, bad_magic, unsupported_version,
    /// count_too_large, string_too_long, nested_array, unknown_value_type, bad_value, wrong_value_type, bad_alignment, duplicate_key,
    /// rank_too_high, unknown_dtype, partial_block, size_overflow, offset_misaligned, offset_out_of_range, offset_overlap, duplicate_name,
    /// out_of_memory. A file that ends early is file_incomplete, wherever that is.
    static result<gguf> parse(std::span<const std::byte> file, const gguf_limits& limits = {});

    [[nodiscard]] std::span<const gguf_value> values() const { return detail::span_of(values_); }
    [[nodiscard]] std::span<const gguf_tensor> tensors() const { return detail::span_of(tensors_); }
    /// Of the tensors in the file.
    [[nodiscard]] std::size_t alignment() const { return alignment_; }

    [[nodiscard]] const gguf_value* value(std::string_view key) const {
        const auto place = std::lower_bound(values_.begin(), values_.end(), key,
                                            [](const gguf_value& v, std::string_view wanted) { return v.key < wanted; });
        return place != values_.end() && place->key == key ? &*place : nullptr;
    }
    [[nodiscard]] const gguf_tensor* tensor(std::string_view name) const {
        const auto place = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                            [](const gguf_tensor& t, std::string_view wanted) { return t.name < wanted; });
        return place != tensors_.end() && place->name == name ? &*place : nullptr;
    }

private:
    std::vector<gguf_value> values_;
    std::vector<gguf_tensor> tensors_;
    std::size_t alignment_ = gguf_default_alignment;
};

namespace detail {
/// Looks at the f16 numbers `offset` bytes into each of the blocks.
[[nodiscard]] PHI4FLASH_BODY status check_scales(std::string_view name, const std::byte* data, std::size_t bytes, std::size_t block,
                                                 std::size_t offset, std::size_t n);

}  // namespace detail

/// Whether the scales of a quantized tensor, row-major as ggml stores it, are finite. Reads all of it, which is why `parse` leaves
/// it alone. Errors: not_finite, naming the tensor and the block.
[[nodiscard]] inline status check_scales(const gguf_tensor& t) {
    return detail::check_scales(t.name, t.data, t.bytes, t.format->block_bytes, t.format->scale_offset, t.format->n_scales);
}
/// The same of a packed tensor, blocks of eight rows.
[[nodiscard]] inline status check_scales(const tensor_view& t) {
    if (!is_packed(t.type)) return {};
    return detail::check_scales(t.name, t.data, t.bytes, matrix_bytes(t.type, packed_rows, packed_cols), 0, packed_rows);
}
/// The same of every tensor of a file without a layout of its own.
[[nodiscard]] inline status check_scales(const gguf& file) {
    for (const gguf_tensor& t : file.tensors())
        if (const status ok = check_scales(t); !ok) return ok;
    return {};
}

#if PHI4FLASH_BODIES
namespace detail {

PHI4FLASH_BODY status gguf_parser::string(std::string_view& text, const char* what, std::uint64_t most) {
    std::uint64_t length = 0;
    if (const status ok = number(length, what); !ok) return ok;
    if (length > most)
        return error::format(errc::string_too_long, "byte %zu: %s has %llu bytes, want at most %llu", at_ - 8, what,
                             static_cast<unsigned long long>(length), static_cast<unsigned long long>(most));
    if (length > left())
        return error::format(errc::file_incomplete, "byte %zu: %s has %llu bytes, the file has %zu more: a download that is not finished?", at_ - 8,
                             what, static_cast<unsigned long long>(length), left());
    text = {reinterpret_cast<const char*>(file_.data()) + at_, static_cast<std::size_t>(length)};
    at_ += text.size();
    return {};
}

PHI4FLASH_COLD_BODY status gguf_parser::read_header(std::uint64_t& n_tensors, std::uint64_t& n_values) {
    // The least that an entry takes: a key of one byte with a value of one, a name of one byte without extents.
    constexpr std::size_t value_bytes = 8 + 1 + 4 + 1;
    constexpr std::size_t tensor_bytes = 8 + 1 + 4 + 4 + 8;
    if (file_.empty()) return error::format(errc::file_empty, "no bytes: want a GGUF file");
    if (reinterpret_cast<std::uintptr_t>(file_.data()) % gguf_host_alignment != 0)
        return error::format(errc::invalid_argument, "the bytes of a GGUF file must start at a multiple of %zu in memory",
                             gguf_host_alignment);
    if (file_.size() < 4 && std::memcmp(file_.data(), "GGUF", file_.size()) == 0)
        return error::format(errc::file_incomplete, "the file ends after %zu bytes: a download that is not finished?", file_.size());
    if (file_.size() < 4 || std::memcmp(file_.data(), "GGUF", 4) != 0)
        return error::format(
            errc::bad_magic, "byte 0: want the letters GGUF, have '%s'",
            printable(std::string_view(reinterpret_cast<const char*>(file_.data()), std::min<std::size_t>(4, file_.size())))
                .c_str());
    at_ = 4;
    std::uint32_t version = 0;
    if (const status ok = number(version, "version"); !ok) return ok;
    if (version != gguf_version)
        return error::format(errc::unsupported_version, "byte 4: want GGUF version %u, have %u%s", detail::for_print(gguf_version),
                             detail::for_print(version), version == gguf_version << 24 ? ": a big-endian file" : "");
    if (const status ok = number(n_tensors, "tensor count"); !ok) return ok;
    if (const status ok = number(n_values, "key count"); !ok) return ok;
    const auto fits = [&](std::uint64_t have, std::size_t most, std::size_t least_bytes, const char* what) -> status {
        if (have > most)
            return error::format(errc::count_too_large, "want at most %zu %s, have %llu", most, what, static_cast<unsigned long long>(have));
        if (have <= left() / least_bytes) return {};
        return error::format(errc::file_incomplete, "%llu %s do not fit a file of %zu bytes: a download that is not finished?",
                             static_cast<unsigned long long>(have), what, file_.size());
    };
    if (const status ok = fits(n_tensors, limits_.tensors, tensor_bytes, "tensors"); !ok) return ok;
    return fits(n_values, limits_.keys, value_bytes, "keys");
}

PHI4FLASH_COLD_BODY status gguf_parser::read_value(gguf_value& v) {
    const std::size_t key_at = at_;
    if (const status ok = string(v.key, "the key", limits_.key_bytes); !ok) return ok;
    if (v.key.empty()) return error::format(errc::bad_value, "byte %zu: the key is empty", key_at);
    const auto type = [&](const char* what) -> status {
        std::uint32_t have = 0;
        if (const status ok = number(have, what); !ok) return ok;
        if (have >= gguf_type_count)
            return error::format(errc::unknown_value_type, "key '%s': want a value type from 0 to %zu, have %u",
                                 printable(v.key).c_str(), gguf_type_count - 1, detail::for_print(have));
        v.type = static_cast<gguf_type>(have);
        return {};
    };
    if (const status ok = type("value type"); !ok) return ok;
    v.is_array = v.type == gguf_type::array;
    if (v.is_array) {
        if (const status ok = type("element type"); !ok) return ok;
        if (v.type == gguf_type::array)
            return error::format(errc::nested_array, "key '%s': want a list of values, have a list of lists",
                                 printable(v.key).c_str());
        if (const status ok = number(v.count, "list length"); !ok) return ok;
    }
    if (v.type == gguf_type::string) {
        const std::size_t begin = at_;
        if (const status ok = read_strings(v); !ok) return ok;
        v.data = file_.subspan(begin, at_ - begin);
        return {};
    }
    const std::size_t each = size_of(v.type);
    if (v.count > left() / each) {
        if (!v.is_array)
            return error::format(errc::file_incomplete, "key '%s': want %zu bytes, the file has %zu more: a download that is not finished?",
                                 printable(v.key).c_str(), each, left());
        return error::format(errc::file_incomplete, "key '%s': a list of %llu %s, the file has %zu more bytes: a download that is not finished?",
                             printable(v.key).c_str(), static_cast<unsigned long long>(v.count), name_of(v.type), left());
    }
    v.data = file_.subspan(at_, static_cast<std::size_t>(v.count) * each);
    at_ += v.data.size();
    if (v.type != gguf_type::boolean) return {};
    for (const std::byte b : v.data)
        if (b > std::byte{1})
            return error::format(errc::bad_value, "key '%s': want a boolean of 0 or 1, have %u", printable(v.key).c_str(),
                                 static_cast<unsigned>(b));
    return {};
}

PHI4FLASH_BODY status gguf_parser::read_strings(const gguf_value& v) {
    if (v.count > left() / 8) {
        if (!v.is_array)
            return error::format(errc::file_incomplete, "key '%s': want a string, the file has %zu more bytes: a download that is not finished?",
                                 printable(v.key).c_str(), left());
        return error::format(errc::file_incomplete, "key '%s': a list of %llu strings, the file has %zu more bytes: a download that is not finished?",
                             printable(v.key).c_str(), static_cast<unsigned long long>(v.count), left());
    }
    // A vocabulary has hundreds of thousands, so the good ones pass without a status each.
    std::uint64_t length = 0;
    for (std::uint64_t i = 0; i < v.count; ++i) {
        if (left() >= 8) std::memcpy(&length, file_.data() + at_, 8);
        if (left() >= 8 && length <= left() - 8) {
            at_ += 8 + static_cast<std::size_t>(length);
            continue;
        }
        std::string_view text;
        constexpr std::uint64_t unlimited = UINT64_MAX;  // but by the file
        if (const status ok = string(text, "a string", unlimited); !ok) return ok.error().in(printable(v.key).c_str());
    }
    return {};
}

PHI4FLASH_COLD_BODY status gguf_parser::read_alignment() {
    const auto by_key = [](const gguf_value& v) { return v.key == "general.alignment"; };
    const auto found = std::find_if(values.begin(), values.end(), by_key);
    if (found == values.end()) return {};
    if (found->is_array || found->type != gguf_type::u32)
        return error::format(errc::wrong_value_type, "key 'general.alignment': want u32, have %s", gguf_type_text(*found).c_str());
    alignment = found->at<std::uint32_t>();
    if (!std::has_single_bit(alignment) || alignment < 8 || alignment > limits_.alignment)
        return error::format(errc::bad_alignment, "key 'general.alignment': want a power of two from 8 to %zu, have %zu",
                             limits_.alignment, alignment);
    return {};
}

PHI4FLASH_COLD_BODY status gguf_parser::read_tensor(gguf_tensor& t) {
    const std::size_t name_at = at_;
    if (const status ok = string(t.name, "the name of a tensor", limits_.name_bytes); !ok) return ok;
    if (t.name.empty()) return error::format(errc::bad_value, "byte %zu: the name of a tensor is empty", name_at);
    const printable name(t.name);
    std::uint32_t rank = 0;
    if (const status ok = number(rank, "rank"); !ok) return ok;
    if (rank > tensor_view::max_rank)
        return error::format(errc::rank_too_high, "tensor '%s': want at most %zu extents, have %u", name.c_str(),
                             tensor_view::max_rank, detail::for_print(rank));
    t.rank = rank;
    for (std::size_t i = rank; i > 0; --i) {
        std::uint64_t extent = 0;
        if (const status ok = number(extent, "an extent"); !ok) return ok.error().in(name.c_str());
        if (extent > static_cast<std::uint64_t>(PTRDIFF_MAX))
            return error::format(errc::size_overflow, "tensor '%s': the extent %llu is beyond the address space", name.c_str(),
                                 static_cast<unsigned long long>(extent));
        t.extent[i - 1] = static_cast<std::size_t>(extent);
    }
    std::uint32_t type = 0;
    if (const status ok = number(type, "a tensor's type"); !ok) return ok.error().in(name.c_str());
    t.format = find_ggml_format(type);
    if (t.format == nullptr)
        return error::format(errc::unknown_dtype, "tensor '%s': the type number %u is not known", name.c_str(), detail::for_print(type));
    offsets_.push_back(0);
    if (const status ok = number(offsets_.back(), "an offset"); !ok) return ok.error().in(name.c_str());
    return measure(t, rank);
}

/// Bytes of a tensor.
PHI4FLASH_COLD_BODY status gguf_parser::measure(gguf_tensor& t, std::uint64_t rank) {
    const ggml_format& format = *t.format;
    if (t.cols() % format.block_length != 0)
        return error::format(errc::partial_block,
                             "tensor '%s': its rows have %zu elements, want a multiple of the %u of a %s block",
                             printable(t.name).c_str(), t.cols(), static_cast<unsigned>(format.block_length), format.name);
    std::uint64_t elements = 1;
    bool fits = true;
    for (std::size_t i = 0; i < rank; ++i) {
        const std::size_t extent = t.extent[i];
        fits = fits && (extent == 0 || elements <= static_cast<std::uint64_t>(PTRDIFF_MAX) / extent);
        elements = fits ? elements * extent : 0;
    }
    const std::uint64_t blocks = elements / format.block_length;
    if (!fits || blocks > static_cast<std::uint64_t>(PTRDIFF_MAX) / format.block_bytes)
        return error::format(errc::size_overflow, "tensor '%s': the product of its extents does not fit the address space",
                             printable(t.name).c_str());
    t.bytes = static_cast<std::size_t>(blocks * format.block_bytes);
    return {};
}

/// Checks the places of the tensors; leaves `data` set.
PHI4FLASH_COLD_BODY status gguf_parser::place_tensors() {
    data_begin = (std::min)(round_up(at_, alignment), file_.size());
    const std::size_t size = file_.size() - data_begin;
    constexpr unsigned long long most = 1ull << 50;  // no file is so long
    unsigned long long missing = 0;  // bytes that the header speaks of and a file that was cut short does not have
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        gguf_tensor& t = tensors[i];
        const auto offset = static_cast<unsigned long long>(offsets_[i]);
        if (offset % alignment != 0)
            return error::format(errc::offset_misaligned, "tensor '%s': its offset is %llu, want a multiple of %zu",
                                 printable(t.name).c_str(), offset, alignment);
        if (offset > most || static_cast<unsigned long long>(t.bytes) > most)
            return error::format(errc::offset_out_of_range,
                                 "tensor '%s': %zu bytes at offset %llu leave the %zu bytes of data in the file",
                                 printable(t.name).c_str(), t.bytes, offset, size);
        if (offset + t.bytes > size) {
            missing = (std::max)(missing, offset + t.bytes - size);
        } else {
            t.data = file_.data() + data_begin + static_cast<std::size_t>(offset);
        }
    }
    if (missing != 0)
        return error::format(errc::file_incomplete, "the last %llu of %llu bytes are missing: a download that is not finished? Go on with it",
                             missing, missing + file_.size());
    detail::sort_once(tensors,
                      [](const gguf_tensor& a, const gguf_tensor& b) { return a.data != b.data ? a.data < b.data : a.bytes < b.bytes; });
    for (std::size_t i = 1; i < tensors.size(); ++i) {
        const gguf_tensor& before = tensors[i - 1];
        if (before.data + before.bytes > tensors[i].data)
            return error::format(errc::offset_overlap, "tensor '%s': it overlaps tensor '%s'", printable(tensors[i].name).c_str(),
                                 printable(before.name).c_str());
    }
    return {};
}

/// Sorts both lists by name.
PHI4FLASH_COLD_BODY status gguf_parser::check_names() {
    detail::sort_once(tensors, [](const gguf_tensor& a, const gguf_tensor& b) { return a.name < b.name; });
    const auto twice = std::adjacent_find(tensors.begin(), tensors.end(),
                                          [](const gguf_tensor& a, const gguf_tensor& b) { return a.name == b.name; });
    if (twice != tensors.end())
        return error::format(errc::duplicate_name, "tensor '%s' occurs twice", printable(twice->name).c_str());
    detail::sort_once(values, [](const gguf_value& a, const gguf_value& b) { return a.key < b.key; });
    const auto key =
        std::adjacent_find(values.begin(), values.end(), [](const gguf_value& a, const gguf_value& b) { return a.key == b.key; });
    if (key != values.end()) return error::format(errc::duplicate_key, "key '%s' occurs twice", printable(key->key).c_str());
    return {};
}

PHI4FLASH_COLD_BODY status gguf_parser::read() {
    std::uint64_t n_tensors = 0;
    std::uint64_t n_values = 0;
    if (const status ok = read_header(n_tensors, n_values); !ok) return ok;
    // The counts fit the size of the file, so this much memory is a small multiple of it.
    values.resize(static_cast<std::size_t>(n_values));
    for (gguf_value& v : values)
        if (const status ok = read_value(v); !ok) return ok;
    if (const status ok = read_alignment(); !ok) return ok;
    tensors.resize(static_cast<std::size_t>(n_tensors));
    offsets_.reserve(tensors.size());
    for (gguf_tensor& t : tensors)
        if (const status ok = read_tensor(t); !ok) return ok;
    if (const status ok = place_tensors(); !ok) return ok;
    return check_names();
}

PHI4FLASH_BODY status check_scales(std::string_view name, const std::byte* data, std::size_t bytes, std::size_t block, std::size_t offset,
                                   std::size_t n) {
    for (std::size_t at = 0; at + block <= bytes; at += block) {
        for (std::size_t i = 0; i < n; ++i) {
            std::uint16_t bits = 0;
            std::memcpy(&bits, data + at + offset + 2 * i, 2);
            if ((bits & 0x7c00u) == 0x7c00u)
                return error::format(errc::not_finite, "tensor '%s': scale %zu of block %zu is not a finite number",
                                     printable(name).c_str(), i, at / block);
        }
    }
    return {};
}

}  // namespace detail

PHI4FLASH_COLD_BODY result<gguf> gguf::parse(std::span<const std::byte> file, const gguf_limits& limits) {
    return detail::or_out_of_memory("read a GGUF file", [&]() -> result<gguf> {
        detail::gguf_parser parser(file, limits);
        if (const status ok = parser.read(); !ok) return ok.error();
        gguf table;
        table.values_ = std::move(parser.values);
        table.tensors_ = std::move(parser.tensors);
        table.alignment_ = parser.alignment;
        return table;
    });
}
#endif

PHI4FLASH_END
