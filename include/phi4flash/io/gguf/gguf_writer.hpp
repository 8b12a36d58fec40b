#pragma once
/// Writes GGUF files of any size: metadata and the table of tensors first, then the data in pieces as they are made.
#include <phi4flash/core/sort_once.hpp>
#include <phi4flash/core/span_of.hpp>
#include <phi4flash/io/file/file_writer.hpp>
#include <phi4flash/io/gguf/gguf.hpp>

#include <algorithm>
#include <concepts>
#include <string>
#include <type_traits>
#include <vector>

PHI4FLASH_BEGIN

/// Metadata to be written, in the order of the calls. Keys are checked by plan_gguf, which also says where there was no memory for one.
class gguf_metadata {
public:
    template <class T>
        requires std::is_arithmetic_v<T>
    void add(std::string_view key, T number) {
        append([&] {
            begin(key, gguf_type_of<T>());
            put(number);
        });
    }
    void add(std::string_view key, std::string_view text);
    template <class T>
        requires std::is_arithmetic_v<T>
    void add_list(std::string_view key, std::span<const T> numbers) {
        append([&] {
            begin_list(key, gguf_type_of<T>(), numbers.size());
            if (!numbers.empty()) bytes_.append(reinterpret_cast<const char*>(numbers.data()), numbers.size_bytes());
        });
    }
    /// `text_of(i)` gives string i as something that a std::string_view can be made of.
    template <class TextOf>
    void add_strings(std::string_view key, std::size_t count, TextOf&& text_of) {
        append([&] {
            begin_list(key, gguf_type::string, count);
            for (std::size_t i = 0; i < count; ++i) put_text(text_of(i));
        });
    }

    [[nodiscard]] const std::vector<std::string>& keys() const { return keys_; }
    [[nodiscard]] std::string_view bytes() const { return bytes_; }
    /// Whether everything that was added is there. Errors: out_of_memory.
    [[nodiscard]] const status& outcome() const { return outcome_; }

private:
    /// The first failure sticks, and later calls do nothing.
    template <class Work>
    void append(Work&& work) {
        if (outcome_) outcome_ = detail::or_out_of_memory("describe a model", work);
    }
    template <class T>
    void put(T x) {
        bytes_.append(reinterpret_cast<const char*>(&x), sizeof x);
    }
    void put_text(std::string_view text) {
        put(static_cast<std::uint64_t>(text.size()));
        bytes_.append(text);
    }
    void begin(std::string_view key, gguf_type type) {
        keys_.emplace_back(key);
        put_text(key);
        put(static_cast<std::uint32_t>(type));
    }
    void begin_list(std::string_view key, gguf_type type, std::size_t count) {
        begin(key, gguf_type::array);
        put(static_cast<std::uint32_t>(type));
        put(static_cast<std::uint64_t>(count));
    }

    std::vector<std::string> keys_;
    std::string bytes_;
    status outcome_;
};

/// A tensor to be written. The shape is in row-major order, as [rows, cols].
struct gguf_spec {
    std::string name;  ///< printable ASCII, at most 63 bytes
    ggml_type type = ggml_type::f32;
    std::vector<std::size_t> shape;
};

/// Where a file goes: a file_writer, or a host's own.
template <class Out>
concept byte_output = requires(Out& out, std::span<const std::byte> piece) {
    { out.write(piece) } -> std::same_as<status>;
};

/// Takes the next bytes of the tensor being written.
class gguf_sink {
public:
    template <byte_output Out>
    explicit gguf_sink(Out& out)
        : out_(&out), write_([](void* o, std::span<const std::byte> piece) { return static_cast<Out*>(o)->write(piece); }) {}

    /// Errors: those of the file, as file_unwritable.
    status write(std::span<const std::byte> piece) {
        written_ += piece.size();
        return write_(out_, piece);
    }
    template <class T>
    status write(std::span<const T> values) {
        return write(std::as_bytes(values));
    }
    [[nodiscard]] std::uint64_t written() const { return written_; }

private:
    void* out_;
    status (*write_)(void*, std::span<const std::byte>);
    std::uint64_t written_ = 0;
};

/// Where everything in a file goes.
struct gguf_plan {
    std::string header;                ///< all before the data, padded
    std::vector<std::uint64_t> bytes;  ///< of the data of each spec, which follow each other in their order
    std::size_t alignment = 0;         ///< of each
};

namespace detail {
[[nodiscard]] PHI4FLASH_BODY result<std::uint64_t> bytes_of(const gguf_spec& spec);

[[nodiscard]] PHI4FLASH_BODY status check_unique(std::vector<std::string_view> names, errc code, const char* what);

template <class T>
void append_number(std::string& to, T x) {
    to.append(reinterpret_cast<const char*>(&x), sizeof x);
}

}  // namespace detail

/// Adds general.alignment by itself. Errors, each naming the key or the tensor: invalid_argument, bad_alignment, duplicate_key,
/// unknown_dtype, rank_too_high, partial_block, size_overflow, duplicate_name; out_of_memory.
[[nodiscard]] PHI4FLASH_BODY result<gguf_plan> plan_gguf(const gguf_metadata& metadata, std::span<const gguf_spec> specs,
                                                         std::size_t alignment = block_alignment);

/// Writes a planned file to `out`. `produce(i, sink)` returns a status and
/// writes the data of `specs[i]` to the gguf_sink in as many pieces as it likes; it is called once a tensor, in order. Errors:
/// size_mismatch (naming the tensor that got too many or too few bytes), out_of_memory (also where `produce` throws std::bad_alloc), and
/// those of `out` and `produce`.
template <byte_output Out, class Produce>
[[nodiscard]] status write_gguf(Out& out, const gguf_plan& plan, std::span<const gguf_spec> specs, Produce&& produce) {
    return detail::or_out_of_memory("write a GGUF file", [&]() -> status {
        if (const status ok = out.write(detail::bytes_of_text(plan.header)); !ok) return ok;
        const std::vector<std::byte> zeros(plan.alignment);
        for (std::size_t i = 0; i < specs.size(); ++i) {
            gguf_sink sink(out);
            if (const status ok = produce(i, sink); !ok) return ok;
            if (sink.written() != plan.bytes[i])
                return error::format(errc::size_mismatch, "tensor '%s': its shape wants %llu bytes, %llu were written",
                                     printable(specs[i].name).c_str(), static_cast<unsigned long long>(plan.bytes[i]),
                                     static_cast<unsigned long long>(sink.written()));
            const std::size_t padding = (plan.alignment - plan.bytes[i] % plan.alignment) % plan.alignment;
            if (const status ok = out.write(detail::span_of(zeros).first(padding)); !ok) return ok;
        }
        return {};
    });
}

#if PHI4FLASH_FILES
/// Writes a file, whole or not at all. Errors: those of plan_gguf, write_gguf and file_writer.
template <class Produce>
[[nodiscard]] status write_gguf(const std::filesystem::path& path, const gguf_metadata& metadata, std::span<const gguf_spec> specs,
                                Produce&& produce, std::size_t alignment = block_alignment) {
    const auto plan = plan_gguf(metadata, specs, alignment);
    if (!plan) return plan.error();
    auto file = file_writer::create(path);
    if (!file) return file.error();
    if (const status ok = write_gguf(*file, *plan, specs, produce); !ok) return ok;
    return file->commit();
}
#endif

#if PHI4FLASH_BODIES
namespace detail {

PHI4FLASH_COLD_BODY result<std::uint64_t> bytes_of(const gguf_spec& spec) {
    constexpr std::size_t most_name = 63;  // readers in C keep 64 with the NUL
    const printable name(spec.name);
    const bool ascii = std::all_of(spec.name.begin(), spec.name.end(), [](char c) { return c >= 0x20 && c <= 0x7e; });
    if (spec.name.empty() || spec.name.size() > most_name || !ascii)
        return error::format(errc::invalid_argument, "tensor '%s': want a name of 1 to %zu bytes of printable ASCII", name.c_str(),
                             most_name);
    const ggml_format* const format = find_ggml_format(static_cast<std::uint32_t>(spec.type));
    if (format == nullptr)
        return error::format(errc::unknown_dtype, "tensor '%s': the type number %u is not known", name.c_str(),
                             static_cast<unsigned>(spec.type));
    if (spec.shape.size() > tensor_view::max_rank)
        return error::format(errc::rank_too_high, "tensor '%s': want at most %zu extents, have %zu", name.c_str(),
                             tensor_view::max_rank, spec.shape.size());
    const std::size_t cols = spec.shape.empty() ? 1 : spec.shape.back();
    if (cols % format->block_length != 0)
        return error::format(errc::partial_block,
                             "tensor '%s': its rows have %zu elements, want a multiple of the %u of a %s block", name.c_str(), cols,
                             static_cast<unsigned>(format->block_length), format->name);
    std::uint64_t bytes = cols / format->block_length;
    bool fits = bytes <= static_cast<std::uint64_t>(PTRDIFF_MAX) / format->block_bytes;
    bytes = fits ? bytes * format->block_bytes : 0;
    for (std::size_t i = 0; i + 1 < spec.shape.size(); ++i) {
        fits = fits && (spec.shape[i] == 0 || bytes <= static_cast<std::uint64_t>(PTRDIFF_MAX) / spec.shape[i]);
        bytes = fits ? bytes * spec.shape[i] : 0;
    }
    if (fits) return bytes;
    return error::format(errc::size_overflow, "tensor '%s': the product of its extents does not fit the address space",
                         name.c_str());
}

PHI4FLASH_COLD_BODY status check_unique(std::vector<std::string_view> names, errc code, const char* what) {
    detail::sort_once(names);
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice == names.end()) return {};
    return error::format(code, "%s '%s' occurs twice", what, printable(*twice).c_str());
}

}  // namespace detail

PHI4FLASH_COLD_BODY void gguf_metadata::add(std::string_view key, std::string_view text) {
    append([&] {
        begin(key, gguf_type::string);
        put_text(text);
    });
}

PHI4FLASH_COLD_BODY result<gguf_plan> plan_gguf(const gguf_metadata& metadata, std::span<const gguf_spec> specs, std::size_t alignment) {
    return detail::or_out_of_memory("plan a GGUF file", [&]() -> result<gguf_plan> {
        if (!std::has_single_bit(alignment) || alignment < 8 || alignment > gguf_limits{}.alignment)
            return error::format(errc::bad_alignment, "want an alignment that is a power of two from 8 to %zu, have %zu",
                                 gguf_limits{}.alignment, alignment);
        gguf_metadata own;
        own.add("general.alignment", static_cast<std::uint32_t>(alignment));
        for (const gguf_metadata* const added : {&metadata, static_cast<const gguf_metadata*>(&own)})
            if (!added->outcome()) return added->outcome().error();
        std::vector<std::string_view> names(metadata.keys().begin(), metadata.keys().end());
        for (const std::string_view key : names)
            if (key.empty() || key.size() > gguf_limits{}.key_bytes)
                return error::format(errc::invalid_argument, "key '%s': want 1 to %zu bytes", printable(key).c_str(),
                                     gguf_limits{}.key_bytes);
        names.push_back(own.keys().front());
        if (const status ok = detail::check_unique(std::move(names), errc::duplicate_key, "key"); !ok) return ok.error();

        gguf_plan plan{.header = "GGUF", .bytes = {}, .alignment = alignment};
        detail::append_number(plan.header, gguf_version);
        detail::append_number(plan.header, static_cast<std::uint64_t>(specs.size()));
        detail::append_number(plan.header, static_cast<std::uint64_t>(metadata.keys().size() + 1));
        plan.header.append(metadata.bytes()).append(own.bytes());
        std::uint64_t offset = 0;
        names = {};
        for (const gguf_spec& spec : specs) {
            const auto bytes = detail::bytes_of(spec);
            if (!bytes) return bytes.error();
            if (*bytes > static_cast<std::uint64_t>(PTRDIFF_MAX) - offset - 2 * alignment)
                return error::format(errc::size_overflow, "tensor '%s': the file would be too large", printable(spec.name).c_str());
            names.push_back(spec.name);
            detail::append_number(plan.header, static_cast<std::uint64_t>(spec.name.size()));
            plan.header += spec.name;
            detail::append_number(plan.header, static_cast<std::uint32_t>(spec.shape.size()));
            for (std::size_t i = spec.shape.size(); i > 0; --i)
                detail::append_number(plan.header, static_cast<std::uint64_t>(spec.shape[i - 1]));
            detail::append_number(plan.header, static_cast<std::uint32_t>(spec.type));
            detail::append_number(plan.header, offset);
            plan.bytes.push_back(*bytes);
            offset += (*bytes + alignment - 1) / alignment * alignment;
        }
        if (const status ok = detail::check_unique(std::move(names), errc::duplicate_name, "tensor"); !ok) return ok.error();
        plan.header.resize(round_up(plan.header.size(), alignment), '\0');
        return plan;
    });
}
#endif

PHI4FLASH_END
