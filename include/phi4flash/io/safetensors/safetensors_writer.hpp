#pragma once
/// Writes safetensors files of any size: the header from a list of shapes, then the data in pieces as they are made.
#include <phi4flash/core/sort_once.hpp>
#include <phi4flash/io/file/file_writer.hpp>
#include <phi4flash/io/safetensors/safetensors.hpp>

#if PHI4FLASH_FILES
#include <algorithm>
#include <limits>
#include <string>
#include <vector>

PHI4FLASH_BEGIN

/// A tensor to be written.
struct safetensors_spec {
    std::string name;          ///< printable ASCII
    std::string_view dtype;    ///< one of safetensors_dtypes, as in name_of(dtype::bf16)
    std::vector<std::size_t> shape;
};

/// Takes the next bytes of the tensor being written.
class safetensors_sink {
public:
    explicit safetensors_sink(file_writer& file) : file_(&file) {}

    /// Errors: file_unwritable.
    status write(std::span<const std::byte> piece) {
        written_ += piece.size();
        return file_->write(piece);
    }
    template <class T>
    status write(std::span<const T> values) {
        return write(std::as_bytes(values));
    }
    [[nodiscard]] std::uint64_t written() const { return written_; }

private:
    file_writer* file_;
    std::uint64_t written_ = 0;
};

/// Where the tensors of a file go: wide elements first, so that without gaps every tensor is aligned to its elements.
struct safetensors_plan {
    std::string header;               ///< JSON, padded to a multiple of 8 bytes
    std::vector<std::size_t> order;   ///< indices of the specs, in the order of their data
    std::vector<std::uint64_t> bytes; ///< of each spec
};

namespace detail {
[[nodiscard]] PHI4FLASH_BODY status check_spec(const safetensors_spec& spec);

[[nodiscard]] PHI4FLASH_BODY result<std::uint64_t> bytes_of(const safetensors_spec& spec);

[[nodiscard]] PHI4FLASH_BODY std::string header_entry(const safetensors_spec& spec, std::uint64_t begin, std::uint64_t end);

}  // namespace detail

/// Errors, each naming the tensor: invalid_argument, unknown_dtype, rank_too_high, size_overflow, duplicate_name,
/// header_too_large; out_of_memory.
[[nodiscard]] PHI4FLASH_BODY result<safetensors_plan> plan_safetensors(std::span<const safetensors_spec> specs);

/// Writes a file, whole or not at all. `produce(i, sink)` returns a status and writes the data of `specs[i]` to the
/// safetensors_sink in as many pieces as it likes; it is called once a tensor, wide element types first. Errors: those of
/// plan_safetensors, size_mismatch (naming the tensor that got too many or too few bytes), file_unwritable, and those of
/// `produce`.
template <class Produce>
[[nodiscard]] status write_safetensors(const std::filesystem::path& path, std::span<const safetensors_spec> specs,
                                       Produce&& produce) {
    const auto plan = plan_safetensors(specs);
    if (!plan) return plan.error();
    auto file = file_writer::create(path);
    if (!file) return file.error();
    const std::uint64_t length = plan->header.size();
    if (const status ok = file->write(std::as_bytes(std::span(&length, 1))); !ok) return ok;
    if (const status ok = file->write(plan->header); !ok) return ok;
    for (const std::size_t i : plan->order) {
        safetensors_sink sink(*file);
        if (const status ok = produce(i, sink); !ok) return ok;
        if (sink.written() != plan->bytes[i])
            return error::format(errc::size_mismatch, "tensor '%s': its shape wants %llu bytes, %llu were written",
                                 printable(specs[i].name).c_str(), static_cast<unsigned long long>(plan->bytes[i]),
                                 static_cast<unsigned long long>(sink.written()));
    }
    return file->commit();
}

#if PHI4FLASH_BODIES
namespace detail {

PHI4FLASH_COLD_BODY status check_spec(const safetensors_spec& spec) {
    for (const char c : spec.name)
        if (c < 0x20 || c > 0x7e)
            return error::format(errc::invalid_argument, "tensor '%s': want a name in printable ASCII",
                                 printable(spec.name).c_str());
    if (find_safetensors_dtype(spec.dtype) == nullptr)
        return error::format(errc::unknown_dtype, "tensor '%s': unknown dtype '%s'", printable(spec.name).c_str(),
                             printable(spec.dtype).c_str());
    if (spec.shape.size() > tensor_view::max_rank)
        return error::format(errc::rank_too_high, "tensor '%s': want at most %zu extents, have %zu", printable(spec.name).c_str(),
                             tensor_view::max_rank, spec.shape.size());
    return {};
}

PHI4FLASH_COLD_BODY result<std::uint64_t> bytes_of(const safetensors_spec& spec) {
    std::uint64_t bytes = find_safetensors_dtype(spec.dtype)->bytes;
    for (const std::size_t extent : spec.shape) {
        if (extent != 0 && bytes > (std::numeric_limits<std::uint64_t>::max)() / extent)
            return error::format(errc::size_overflow, "tensor '%s': the product of its shape does not fit 64 bits",
                                 printable(spec.name).c_str());
        bytes *= extent;
    }
    return bytes;
}

PHI4FLASH_COLD_BODY std::string header_entry(const safetensors_spec& spec, std::uint64_t begin, std::uint64_t end) {
    std::string text = ",\"";
    for (const char c : spec.name) {
        if (c == '"' || c == '\\') text += '\\';
        text += c;
    }
    text += "\":{\"dtype\":\"" + std::string(spec.dtype) + "\",\"shape\":[";
    for (std::size_t i = 0; i < spec.shape.size(); ++i) text += (i == 0 ? "" : ",") + std::to_string(spec.shape[i]);
    return text + "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(end) + "]}";
}

}  // namespace detail

PHI4FLASH_COLD_BODY result<safetensors_plan> plan_safetensors(std::span<const safetensors_spec> specs) {
    return detail::or_out_of_memory("plan a safetensors file", [&]() -> result<safetensors_plan> {
        safetensors_plan plan;
        std::vector<std::string_view> names;
        for (std::size_t i = 0; i < specs.size(); ++i) {
            if (const status ok = detail::check_spec(specs[i]); !ok) return ok.error();
            const auto bytes = detail::bytes_of(specs[i]);
            if (!bytes) return bytes.error();
            plan.bytes.push_back(*bytes);
            plan.order.push_back(i);
            names.push_back(specs[i].name);
        }
        names.push_back("__metadata__");
        detail::sort_once(names);
        if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
            return error::format(errc::duplicate_name, "tensor '%s' occurs twice", printable(*twice).c_str());
        detail::sort_once(plan.order, [specs](std::size_t a, std::size_t b) {
            const std::size_t wide_a = find_safetensors_dtype(specs[a].dtype)->bytes;
            const std::size_t wide_b = find_safetensors_dtype(specs[b].dtype)->bytes;
            return wide_a != wide_b ? wide_a > wide_b : a < b;
        });

        // Other readers want to be told that the layout is PyTorch's.
        plan.header = R"({"__metadata__":{"format":"pt"})";
        std::uint64_t begin = 0;
        for (const std::size_t i : plan.order) {
            if (plan.bytes[i] > static_cast<std::uint64_t>(PTRDIFF_MAX) - begin)
                return error::format(errc::size_overflow, "tensor '%s': the file would be too large", printable(specs[i].name).c_str());
            plan.header += detail::header_entry(specs[i], begin, begin + plan.bytes[i]);
            begin += plan.bytes[i];
        }
        plan.header += '}';
        while (plan.header.size() % 8 != 0) plan.header += ' ';
        if (plan.header.size() > max_safetensors_header)
            return error::format(errc::header_too_large, "want a header of at most %zu bytes, have %zu", max_safetensors_header,
                                 plan.header.size());
        return plan;
    });
}
#endif

PHI4FLASH_END
#endif  // PHI4FLASH_FILES
