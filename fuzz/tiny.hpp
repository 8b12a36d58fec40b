#pragma once
/// A model and a tokenizer of a few kilobytes, made in memory.
#include <phi4flash/io/packed/model_writer.hpp>
#include <phi4flash/model/tensor_list.hpp>
#include <phi4flash/text/byte_level.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace fuzz {

namespace p4 = phi4flash;

/// SplitMix64: the same numbers on every machine.
class numbers {
public:
    explicit numbers(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next() {
        std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    float uniform(float low, float high) { return low + (high - low) * static_cast<float>(next() >> 40) * 0x1p-24f; }

private:
    std::uint64_t state_;
};

/// Room for the ids of tiny_tokenizer, and little else.
inline constexpr p4::sambay_shape tiny_shape{.d_model = 8, .n_layers = 4, .d_ff = 8, .n_heads = 2, .n_kv_heads = 2, .vocab = 280, .window = 4,
                                             .d_inner = 8, .d_state = 2, .d_conv = 2, .dt_rank = 1};

/// Grows where the library writes.
struct memory_output {
    std::string bytes;
    p4::status write(std::span<const std::byte> piece) {
        return bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size()), p4::status();
    }
};

/// Numbers of a tensor as a trained model might have them, in its own type.
inline std::string tensor_bytes(std::string_view name, p4::dtype type, std::size_t rows, std::size_t cols, numbers& random) {
    std::string out(p4::matrix_bytes(type, rows, cols), '\0');
    const float width = 1.0f / std::sqrt(static_cast<float>(cols));
    if (p4::is_packed(type)) {
        const std::size_t block = p4::matrix_bytes(type, p4::packed_rows, p4::packed_cols);
        for (std::size_t at = 0; at < out.size(); at += block) {
            for (std::size_t i = 0; i < block; i += 8) {
                const std::uint64_t codes = random.next();
                std::memcpy(out.data() + at + i, &codes, (std::min)(block - i, std::size_t{8}));
            }
            for (std::size_t r = 0; r < p4::packed_rows; ++r) {
                const p4::f16 scale = p4::from_f32<p4::f16>(random.uniform(0.25f, 1.0f) * width / (type == p4::dtype::q8 ? 127.0f : 16.0f));
                std::memcpy(out.data() + at + 2 * r, &scale, 2);
            }
        }
        return out;
    }
    const bool is_matrix = cols > 1 && name.find("conv") == std::string_view::npos && !name.ends_with("A_log");
    const float widest = is_matrix ? 1.7f * width : 0.5f;
    const float middle = name.ends_with("norm.weight") || name.ends_with("subln.weight") ? 1.0f : 0.0f;
    for (std::size_t i = 0; i < rows * cols; ++i) {
        const float x = random.uniform(middle - widest, middle + widest);
        if (type == p4::dtype::f32) {
            std::memcpy(out.data() + 4 * i, &x, 4);
        } else {
            const std::uint16_t bits = type == p4::dtype::bf16 ? p4::from_f32<p4::bf16>(x).bits : p4::from_f32<p4::f16>(x).bits;
            std::memcpy(out.data() + 2 * i, &bits, 2);
        }
    }
    return out;
}

/// The tensors of a shape, with matrices of that type where they can be packed.
inline std::vector<p4::packed_tensor> tensors_of(const p4::sambay_shape& shape, p4::dtype matrices, p4::dtype parameters = p4::dtype::f32) {
    std::vector<p4::packed_tensor> list;
    p4::weight_types types = p4::weight_types::all(matrices);
    types.selection = matrices;
    const auto extents = *p4::extents<p4::any_sambay>::from(shape);
    p4::for_each_tensor(extents, [&](std::string_view name, std::span<const std::size_t> extent, p4::tensor_role role) {
        const p4::dtype type = role == p4::tensor_role::matrix ? types.of_matrix(name, extent[0], extent[1]) : parameters;
        list.push_back({std::string(name), type, {extent.begin(), extent.end()}});
    });
    return list;
}

/// A GGUF file in the packed layout.
inline std::string tiny_model(const p4::sambay_shape& shape, p4::dtype matrices, std::uint64_t seed, const p4::packed_tokenizer* words = nullptr) {
    p4::packed_model_info info;
    info.name = "tiny";
    info.config.shape = shape;
    info.config.max_positions = 64;
    info.tokenizer = words;
    const auto tensors = tensors_of(shape, matrices);
    numbers random(seed);
    memory_output out;
    const p4::status ok = p4::write_packed_model(out, info, tensors, [&](std::size_t i, p4::gguf_sink& sink) {
        const auto& t = tensors[i];
        std::size_t cols = 1;
        for (std::size_t k = 1; k < t.shape.size(); ++k) cols *= t.shape[k];
        const std::string bytes = tensor_bytes(t.name, t.type, t.shape[0], cols, random);
        return sink.write(std::as_bytes(std::span(bytes)));
    });
    return ok ? std::move(out.bytes) : std::string();
}

/// A tokenizer.json with a token for every byte, some merges, and the markers of the chat template.
inline std::string tiny_tokenizer(bool ignore_merges = false, std::string_view normalizer = "null") {
    const auto quoted = [](std::string_view bytes) {
        std::string spelled, out = "\"";
        p4::detail::append_byte_level(bytes, spelled);
        for (const char c : spelled) {
            if (c == '"' || c == '\\') out += '\\';
            out += c;
        }
        return out + '"';
    };
    constexpr const char* merges[][2] = {{"h", "e"}, {"t", "he"}, {" ", "the"}, {"l", "l"}, {"a", "a"}, {"aa", "a"}, {"1", "2"}, {" ", " "}};
    constexpr const char* markers[] = {"<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|tool|>", "<|/tool|>"};
    std::string vocabulary, rules, added;
    int id = 0;
    for (; id < 256; ++id) {
        const char byte = static_cast<char>(id);
        vocabulary += (id == 0 ? "" : ",") + quoted({&byte, 1}) + ":" + std::to_string(id);
    }
    for (const auto& [left, right] : merges) {
        vocabulary += "," + quoted(std::string(left) + right) + ":" + std::to_string(id++);
        rules += (rules.empty() ? "[" : ",[") + quoted(left) + "," + quoted(right) + "]";
    }
    for (const char* const marker : markers) {
        added += std::string(added.empty() ? "" : ",") + R"({"id":)" + std::to_string(id) + R"(,"content":")" + marker +
                 R"(","single_word":false,"lstrip":false,"rstrip":)" + (id % 2 == 0 ? "true" : "false") + R"(,"normalized":false,"special":true})";
        ++id;
    }
    return R"({"version":"1.0","added_tokens":[)" + added + R"(],"normalizer":)" + std::string(normalizer) +
           R"(,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},"post_processor":null,)"
           R"("decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},"model":{"type":"BPE","dropout":null,)"
           R"("unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":)" +
           (ignore_merges ? "true" : "false") + R"(,"vocab":{)" + vocabulary + R"(},"merges":[)" + rules + "]}}";
}

}  // namespace fuzz
