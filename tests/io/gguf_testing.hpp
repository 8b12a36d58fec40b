/// Helpers of the GGUF tests: files put together byte by byte, right or wrong.
#include "io_testing.hpp"

#include <phi4flash/io/gguf_writer.hpp>

namespace gguf_testing {

using namespace phi4flash;

/// Appends what a file consists of. `bytes()` is a heap block of exactly the size of the file.
class file_text {
public:
    template <class T>
    file_text& put(T x) {
        text_.append(reinterpret_cast<const char*>(&x), sizeof x);
        return *this;
    }
    file_text& raw(std::string_view s) {
        text_.append(s);
        return *this;
    }
    file_text& string(std::string_view s) { return put(std::uint64_t{s.size()}).raw(s); }
    file_text& header(std::uint64_t tensors, std::uint64_t values) {
        return raw("GGUF").put(gguf_version).put(tensors).put(values);
    }
    file_text& key(std::string_view name, gguf_type type) { return string(name).put(static_cast<std::uint32_t>(type)); }
    file_text& list(std::string_view name, gguf_type type, std::uint64_t count) {
        return key(name, gguf_type::array).put(static_cast<std::uint32_t>(type)).put(count);
    }
    /// Extents in the file's order.
    file_text& tensor(std::string_view name, std::initializer_list<std::uint64_t> extents, ggml_type type, std::uint64_t offset) {
        string(name).put(static_cast<std::uint32_t>(extents.size()));
        for (const std::uint64_t n : extents) put(n);
        return put(static_cast<std::uint32_t>(type)).put(offset);
    }
    file_text& pad(std::size_t alignment = gguf_default_alignment) {
        while (text_.size() % alignment != 0) text_.push_back('\0');
        return *this;
    }
    /// 0, 1, 2, ...
    file_text& data(std::size_t n) {
        for (std::size_t i = 0; i < n; ++i) text_.push_back(static_cast<char>(i));
        return *this;
    }
    [[nodiscard]] io_testing::bytes bytes() const {
        io_testing::bytes b(text_.size());
        std::memcpy(b.data(), text_.data(), text_.size());
        return b;
    }
    [[nodiscard]] std::size_t size() const { return text_.size(); }

private:
    std::string text_;
};

/// A file that a program writes to memory.
struct memory_file {
    io_testing::bytes content;

    status write(std::span<const std::byte> piece) {
        content.insert(content.end(), piece.begin(), piece.end());
        return {};
    }
};

/// The error of parsing; the file itself is gone afterwards.
inline result<gguf> parse(const file_text& text, const gguf_limits& limits = {}) {
    static io_testing::bytes file;
    file = text.bytes();
    return gguf::parse(file, limits);
}

}  // namespace gguf_testing
