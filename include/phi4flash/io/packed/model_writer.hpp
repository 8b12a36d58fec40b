#pragma once
/// Writes a model into one file: metadata, tables of the tokenizer, then weights that the caller packs piece by piece.
#include <phi4flash/core/span_of.hpp>
#include <phi4flash/io/packed/tokenizer.hpp>

#include <string>
#include <vector>

PHI4FLASH_BEGIN

/// The released chat template in fewer words, as Jinja.
inline constexpr std::string_view default_chat_template =
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% if m['role'] == 'system' and m['tools'] is defined and m['tools'] is not none %}<|tool|>{{ m['tools'] }}<|/tool|>{% endif "
    "%}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% else %}<|endoftext|>{% endif %}";

/// Everything about a model but its weights.
struct packed_model_info {
    std::string name;  ///< general.name
    sambay_config config;
    generation_config generation;
    std::string chat_template{default_chat_template};  ///< Jinja
    const packed_tokenizer* tokenizer = nullptr;       ///< a file without one holds weights only
};

/// A weight to be written. Packed types take matrices of 8 n rows and 32 m columns.
struct packed_tensor {
    std::string name;
    dtype type = dtype::f32;
    std::vector<std::size_t> shape;  ///< row-major, as [rows, cols]
};

namespace detail {
/// general.file_type: what most of the bytes are, by llama.cpp's numbers.
[[nodiscard]] PHI4FLASH_BODY std::uint32_t file_type_of(std::span<const packed_tensor> tensors);

PHI4FLASH_BODY void add_tokenizer(gguf_metadata& out, const packed_tokenizer& t);

[[nodiscard]] PHI4FLASH_BODY gguf_metadata describe_model(const packed_model_info& info, std::span<const packed_tensor> tensors);

/// The weights first, in their order, then the tables.
[[nodiscard]] PHI4FLASH_BODY result<std::vector<gguf_spec>> plan_tensors(std::span<const packed_tensor> tensors,
                                                                         std::span<const packed_array> arrays);

#if PHI4FLASH_BODIES
PHI4FLASH_COLD_BODY std::uint32_t file_type_of(std::span<const packed_tensor> tensors) {
    constexpr std::uint32_t numbers[dtype_count] = {0, 1, 32, 7, 2, 25};
    double elements[dtype_count] = {};
    for (const packed_tensor& t : tensors) {
        double n = 1;
        for (const std::size_t extent : t.shape) n *= static_cast<double>(extent);
        elements[static_cast<std::size_t>(t.type)] += n;
    }
    return numbers[std::max_element(std::begin(elements), std::end(elements)) - std::begin(elements)];
}

PHI4FLASH_COLD_BODY void add_tokenizer(gguf_metadata& out, const packed_tokenizer& t) {
    out.add("tokenizer.ggml.model", "gpt2");
    out.add("tokenizer.ggml.pre", t.pre);
    out.add_strings("tokenizer.ggml.tokens", t.tokens.size(), [&](std::size_t i) { return std::string_view(t.tokens[i]); });
    out.add_list("tokenizer.ggml.token_type", detail::span_of(t.types));
    out.add_strings("tokenizer.ggml.merges", t.merges.size(), [&](std::size_t i) { return std::string_view(t.merges[i]); });
    out.add("tokenizer.ggml.add_bos_token", false);
    out.add("tokenizer.ggml.add_eos_token", false);
    out.add(packed_tables_key, packed_tables_version);
    out.add(packed_pattern_key, t.pattern);
    out.add(packed_ignore_merges_key, t.ignore_merges);
}

PHI4FLASH_COLD_BODY gguf_metadata describe_model(const packed_model_info& info, std::span<const packed_tensor> tensors) {
    gguf_metadata out;
    out.add("general.architecture", packed_architecture);
    out.add("general.type", "model");
    out.add("general.name", info.name);
    out.add("general.file_type", file_type_of(tensors));
    out.add("general.quantization_version", std::uint32_t{2});
    add_config(out, info.config);
    out.add(packed_layout_key, packed_layout);
    const auto book = packed_codebook();
    out.add_list(packed_codebook_key, detail::span_of(book));
    add_generation(out, info.generation);
    out.add("tokenizer.chat_template", info.chat_template);
    if (info.tokenizer != nullptr) add_tokenizer(out, *info.tokenizer);
    return out;
}

PHI4FLASH_COLD_BODY result<std::vector<gguf_spec>> plan_tensors(std::span<const packed_tensor> tensors, std::span<const packed_array> arrays) {
    std::vector<gguf_spec> specs;
    for (const packed_tensor& t : tensors) {
        if (std::string_view(t.name).starts_with(packed_array_prefix))
            return error::format(errc::invalid_argument, "tensor '%s': want a name without the tokenizer's prefix",
                                 printable(t.name).c_str());
        if (is_packed(t.type) && (t.shape.size() != 2 || !is_packable(t.shape[0], t.shape[1])))
            return error::format(errc::wrong_shape, "tensor '%s': want a matrix of 8 n rows and 32 m columns for %s",
                                 printable(t.name).c_str(), name_of(t.type));
        specs.push_back({t.name, ggml_type_of(t.type), t.shape});
    }
    for (const packed_array& a : arrays)
        specs.push_back({std::string(packed_array_prefix) + a.name, a.type, {a.data.size() / format_of(a.type).block_bytes}});
    return specs;
}
#endif

}  // namespace detail

/// Writes a model to `out`. `produce(i, sink)` returns a status and writes the bytes of `tensors[i]` (matrix_bytes of it) to the
/// gguf_sink, a few rows at a time as it likes; it is called once a tensor, in order. Errors: those of check_shape, plan_gguf and
/// write_gguf; wrong_shape, invalid_argument, out_of_memory.
template <byte_output Out, class Produce>
[[nodiscard]] status write_packed_model(Out& out, const packed_model_info& info, std::span<const packed_tensor> tensors,
                                        Produce&& produce) {
    return detail::or_out_of_memory("write a model", [&]() -> status {
        if (const status ok = check_shape(info.config.shape); !ok) return ok;
        const auto arrays = info.tokenizer == nullptr ? result(std::vector<packed_array>{}) : info.tokenizer->arrays();
        if (!arrays) return arrays.error();
        const auto specs = detail::plan_tensors(tensors, detail::span_of(*arrays));
        if (!specs) return specs.error();
        const auto plan = plan_gguf(detail::describe_model(info, tensors), detail::span_of(*specs));
        if (!plan) return plan.error();
        return write_gguf(out, *plan, *specs, [&](std::size_t i, gguf_sink& sink) -> status {
            return i < tensors.size() ? produce(i, sink) : sink.write((*arrays)[i - tensors.size()].data);
        });
    });
}

#if PHI4FLASH_FILES
/// Writes a file, whole or not at all. Errors: the same, and file_unwritable.
template <class Produce>
[[nodiscard]] status write_packed_model(const std::filesystem::path& path, const packed_model_info& info,
                                        std::span<const packed_tensor> tensors, Produce&& produce) {
    auto file = file_writer::create(path);
    if (!file) return file.error();
    if (const status ok = write_packed_model(*file, info, tensors, produce); !ok) return ok;
    return file->commit();
}
#endif

PHI4FLASH_END
