#pragma once
/// A model in one GGUF file: shapes, tokenizer, chat template and generation defaults as metadata, and weights in the very order
/// in which the kernels stream them, mapped and used in place.
///
/// Packed matrices are stored under ggml's types of the same size: q8 as Q8_0, q4 as Q4_0, q4_dense as IQ4_NL. The key
/// phi4flash.layout says so, and programs that do not know it must not compute with the file. Files without the key are ordinary
/// row-major ones.
#include <phi4flash/core/span_of.hpp>
#include <phi4flash/io/file/file_kind.hpp>
#include <phi4flash/io/gguf/ggml_blocks.hpp>
#include <phi4flash/io/file/mapped_file.hpp>
#include <phi4flash/io/packed/key_rules.hpp>
#include <phi4flash/io/packed/keys.hpp>

PHI4FLASH_BEGIN

/// ggml's type of the same size as a stored type.
[[nodiscard]] constexpr ggml_type ggml_type_of(dtype type) {
    constexpr ggml_type types[dtype_count] = {ggml_type::f32,  ggml_type::f16,  ggml_type::bf16,
                                              ggml_type::q8_0, ggml_type::q4_0, ggml_type::iq4_nl};
    return types[static_cast<std::size_t>(type)];
}

/// The type under which a table of T, whole numbers of one width, is stored.
template <class T>
[[nodiscard]] constexpr ggml_type ggml_table_type() {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= 8);
    constexpr std::size_t bytes = std::is_class_v<T> ? alignof(T) : sizeof(T);  // 64 bits are aligned to 32 in i386's structs
    return bytes == 1 ? ggml_type::i8 : bytes == 2 ? ggml_type::i16 : bytes == 4 ? ggml_type::i32 : ggml_type::i64;
}

/// A tensor of a file as weights; `packed` if the file has the packed layout. Errors: wrong_dtype, naming the type; wrong_shape for
/// packed tensors that are not matrices of whole blocks.
[[nodiscard]] PHI4FLASH_BODY result<tensor_view> to_tensor_view(const gguf_tensor& t, bool packed);

/// A file and what it says. Reading from several threads is safe. Its views stay valid as long as it lives, and after it has been
/// moved; in memory the host's bytes must outlive it too.
class packed_model {
public:
    packed_model() = default;
    packed_model(packed_model&&) = default;
    packed_model& operator=(packed_model&&) = default;

#if PHI4FLASH_FILES
    /// Maps a file; no weight is touched, unless the options want it: then `tell` hears how far that is. A file that needs repacking is
    /// not populated. Errors, naming the file: those of mapped_file::open and from_memory; wrong_file_kind and file_incomplete
    /// (io/file/file_kind.hpp).
    static result<packed_model> open(const std::filesystem::path& path, const mapping_options& mapping = {},
                                     const config_options& options = {}, progress_ref tell = {});
    /// The same of a file that the host has opened, or a part of one: see mapped_file::open. @since 0.2
    static result<packed_model> open(const file_part& part, const mapping_options& mapping = {}, const config_options& options = {},
                                     progress_ref tell = {});
#endif

    /// The same from bytes that start at a multiple of `gguf_host_alignment`. Errors: those of gguf::parse; missing_key,
    /// wrong_value_type, bad_extent, not_finite, bad_value, unsupported_model, unknown_key, unknown_token; unsupported_layout; wrong_dtype and
    /// wrong_shape of tensors; out_of_memory.
    static result<packed_model> from_memory(std::span<const std::byte> bytes, const config_options& options = {});

    [[nodiscard]] const sambay_config& config() const { return config_; }
    [[nodiscard]] const generation_config& generation() const { return generation_; }
    /// general.name; empty where the file has none.
    [[nodiscard]] std::string_view name() const { return text("general.name"); }
    /// tokenizer.chat_template, Jinja; empty where the file has none.
    [[nodiscard]] std::string_view chat_template() const { return text("tokenizer.chat_template"); }

    /// False for a row-major file, whose quantized tensors must be repacked before a model can be bound: they are in file() and not
    /// in tensors().
    [[nodiscard]] bool is_packed_layout() const { return packed_; }
    [[nodiscard]] bool needs_repacking() const { return needs_repacking_; }

    /// Weights that can be used in place, sorted by name.
    [[nodiscard]] std::span<const tensor_view> tensors() const { return detail::span_of(tensors_); }
    [[nodiscard]] const tensor_view* find(std::string_view name) const { return find_tensor(detail::span_of(tensors_), name); }
    /// Bytes of those weights.
    [[nodiscard]] std::uint64_t bytes() const { return bytes_of_tensors(detail::span_of(tensors_)); }

    /// All metadata and tensors as the file has them.
    [[nodiscard]] const gguf& file() const { return file_; }

    /// A table of the tokenizer, aligned, in place: `phi4flash.tokenizer.NAME`. T is a whole number or a struct of such. Errors:
    /// missing_tensor; wrong_dtype if its numbers are not as wide as those of T; wrong_shape if they are not whole elements.
    template <class T>
    [[nodiscard]] result<std::span<const T>> array(std::string_view name) const;
    [[nodiscard]] bool has_array(std::string_view name) const { return find_array(name) != nullptr; }

    /// Errors: not_finite, naming the first tensor whose scales are damaged. Reads all weights.
    [[nodiscard]] status check_scales() const;

#if PHI4FLASH_FILES
    /// The file as memory; empty after from_memory.
    [[nodiscard]] const mapped_file& mapping() const { return mapping_; }
    /// Bytes of the file that were read into memory of this program's own. @since 0.2
    [[nodiscard]] std::size_t copied_bytes() const { return mapping_.is_copy() ? mapping_.bytes().size() : 0; }
    /// See mapped_file::residency; nothing after from_memory. @since 0.2
    [[nodiscard]] page_share residency() const { return mapping_.residency(); }
    /// See mapped_file::release_pages; in memory it does nothing.
    void release_pages() const { mapping_.release_pages(); }
#else
    [[nodiscard]] std::size_t copied_bytes() const { return 0; }
    [[nodiscard]] page_share residency() const { return {}; }
    void release_pages() const {}
#endif

private:
    [[nodiscard]] std::string_view text(std::string_view key) const {
        const gguf_value* const value = file_.value(key);
        return value == nullptr ? std::string_view{} : value->text().value_or(std::string_view{});
    }
    [[nodiscard]] const gguf_tensor* find_array(std::string_view name) const;
    status collect();

#if PHI4FLASH_FILES
    /// `what`: a path, or a file_part.
    template <class File>
    static result<packed_model> open_file(const File& what, const std::filesystem::path& name, const mapping_options& mapping,
                                          const config_options& options, progress_ref tell) {
        mapping_options at_first = mapping;
        at_first.populate = false;  // but when it is known to be a model
        auto file = mapped_file::open(what, at_first, tell);
        if (!file) return file.error();
        if (const auto other = detail::explain_file(name, file->bytes(), file_kind::gguf)) return *other;
        auto model = from_memory(file->bytes(), options);
        if (!model) return model.error().in(printable(name).c_str());
        if (mapping.populate && !model->needs_repacking())
            if (const status ok = detail::populate({&*file, 1}, name, tell); !ok) return ok.error();
        model->mapping_ = *std::move(file);
        return model;
    }

    mapped_file mapping_;
#endif
    gguf file_;
    sambay_config config_;
    generation_config generation_;
    std::vector<tensor_view> tensors_;
    bool packed_ = false;
    bool needs_repacking_ = false;
};

static_assert(sizeof(q8_block) == packed_rows * format_of(ggml_type::q8_0).block_bytes);
static_assert(sizeof(q4_block) == packed_rows * format_of(ggml_type::q4_0).block_bytes);
static_assert(sizeof(q4_block) == packed_rows * format_of(ggml_type::iq4_nl).block_bytes);

template <class T>
result<std::span<const T>> packed_model::array(std::string_view name) const {
    constexpr ggml_type want = ggml_table_type<T>();
    const gguf_tensor* const t = find_array(name);
    if (t == nullptr)
        return error::format(errc::missing_tensor, "tensor '%s%s' is missing", packed_array_prefix.data(), printable(name).c_str());
    if (t->format->type != want)
        return error::format(errc::wrong_dtype, "tensor '%s': want %s, have %s", printable(t->name).c_str(), format_of(want).name,
                             t->format->name);
    if (t->bytes % sizeof(T) != 0)
        return error::format(errc::wrong_shape, "tensor '%s': want elements of %zu bytes, have %zu bytes",
                             printable(t->name).c_str(), sizeof(T), t->bytes);
    return std::span<const T>(reinterpret_cast<const T*>(t->data), t->bytes / sizeof(T));
}

#if PHI4FLASH_BODIES
PHI4FLASH_COLD_BODY status packed_model::collect() {
    for (const gguf_tensor& t : file_.tensors()) {
        if (t.name.starts_with(packed_array_prefix)) continue;
        const auto view = to_tensor_view(t, packed_);
        if (view) {
            tensors_.push_back(*view);
        } else if (!packed_ && t.format->is_weight) {
            needs_repacking_ = true;
        } else {
            return view.error();
        }
    }
    return {};
}

PHI4FLASH_COLD_BODY result<packed_model> packed_model::from_memory(std::span<const std::byte> bytes, const config_options& options) {
    return detail::or_out_of_memory("read a packed model", [&]() -> result<packed_model> {
        auto file = gguf::parse(bytes);
        if (!file) return file.error();
        packed_model model;
        model.file_ = *std::move(file);
        const auto config = detail::read_config(model.file_);
        if (!config) return config.error();
        model.config_ = *config;
        auto generation = detail::read_generation(model.file_, config->shape.vocab);
        if (!generation) return generation.error();
        model.generation_ = *std::move(generation);
        if (const status ok = detail::check_packed_keys(model.file_, config->shape, options); !ok) return ok.error();
        const auto layout = detail::read_layout(model.file_);
        if (!layout) return layout.error();
        model.packed_ = *layout;
        if (const status ok = model.collect(); !ok) return ok.error();
        return model;
    });
}

PHI4FLASH_COLD_BODY const gguf_tensor* packed_model::find_array(std::string_view name) const {
    char full[gguf_limits{}.name_bytes + 1];
    if (name.size() > sizeof full - packed_array_prefix.size()) return nullptr;
    std::memcpy(full, packed_array_prefix.data(), packed_array_prefix.size());
    std::memcpy(full + packed_array_prefix.size(), name.data(), name.size());
    return file_.tensor({full, packed_array_prefix.size() + name.size()});
}

PHI4FLASH_COLD_BODY status packed_model::check_scales() const {
    if (!packed_) return phi4flash::check_scales(file_);
    for (const tensor_view& t : tensors_)
        if (const status ok = phi4flash::check_scales(t); !ok) return ok;
    return {};
}

#if PHI4FLASH_FILES
PHI4FLASH_COLD_BODY result<packed_model> packed_model::open(const std::filesystem::path& path, const mapping_options& mapping,
                                                            const config_options& options, progress_ref tell) {
    return detail::or_out_of_memory("open a packed model", [&] { return open_file(path, path, mapping, options, tell); });
}

PHI4FLASH_COLD_BODY result<packed_model> packed_model::open(const file_part& part, const mapping_options& mapping, const config_options& options,
                                                            progress_ref tell) {
    return detail::or_out_of_memory("open a packed model",
                                    [&] { return open_file(part, detail::name_of_part(part), mapping, options, tell); });
}
#endif

PHI4FLASH_COLD_BODY result<tensor_view> to_tensor_view(const gguf_tensor& t, bool packed) {
    tensor_view view{.name = t.name, .data = t.data, .bytes = t.bytes, .rank = t.rank};
    for (std::size_t i = 0; i < t.rank; ++i) view.extent[i] = t.extent[i];
    const printable name(t.name);
    for (std::size_t i = 0; i < (packed ? dtype_count : plain_dtype_count); ++i) {
        view.type = static_cast<dtype>(i);
        if (ggml_type_of(view.type) != t.format->type) continue;
        if (!is_packed(view.type) || (t.rank == 2 && is_packable(t.extent[0], t.extent[1]))) return view;
        return error::format(errc::wrong_shape,
                             "tensor '%s': want a matrix of 8 n rows and 32 m columns in the packed layout, have %zu rows of %zu",
                             name.c_str(), t.rows(), t.cols());
    }
    return error::format(errc::wrong_dtype, "tensor '%s': want F32, F16%s BF16%s, have %s", name.c_str(), packed ? "," : " or",
                         packed ? ", Q8_0, Q4_0 or IQ4_NL" : "", t.format->name);
}
#endif

PHI4FLASH_END
