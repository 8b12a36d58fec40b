#pragma once
/// Helpers of the GGUF tests: files put together byte by byte, right or wrong.
#include "io/io_testing.hpp"

#include <phi4flash/io/gguf/gguf_writer.hpp>
#include <phi4flash/model/shape.hpp>
#include <phi4flash/text/tokenizer.hpp>

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

/// A model with room for the tokens below.
inline constexpr phi4flash::sambay_shape small_shape{.d_model = 32,
                                          .n_layers = 4,
                                          .d_ff = 32,
                                          .n_heads = 2,
                                          .n_kv_heads = 2,
                                          .vocab = 280,
                                          .window = 5,
                                          .d_inner = 64,
                                          .d_state = 4,
                                          .d_conv = 4,
                                          .dt_rank = 2};

/// All bytes, four merges, two added tokens with gaps before them.
inline tokenizer small_tokenizer() {
    tokenizer_builder builder;
    for (unsigned b = 0; b < 256; ++b) {
        const char byte = static_cast<char>(b);
        io_testing::require_value(builder.add_token(b, {&byte, 1}));
    }
    for (const auto& [id, s] : {std::pair{256, "he"}, {257, "ll"}, {258, "hell"}, {259, " w"}})
        io_testing::require_value(builder.add_token(static_cast<std::size_t>(id), s));
    io_testing::require_value(builder.add_merge("h", "e"));
    io_testing::require_value(builder.add_merge("l", "l"));
    io_testing::require_value(builder.add_merge("he", "ll"));
    io_testing::require_value(builder.add_merge(" ", "w"));
    io_testing::require_value(builder.add_added_token({.id = 270, .content = "<|end|>", .special = true, .rstrip = true}));
    io_testing::require_value(builder.add_added_token({.id = 272, .content = "<|tool|>"}));
    auto built = builder.build();
    io_testing::require_value(built);
    return *std::move(built);
}

}  // namespace gguf_testing
