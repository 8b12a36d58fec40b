#pragma once
/// What a user names as a model: a checkpoint folder of Hugging Face, or one packed file; or the bytes of either.
#include <phi4flash/io/check_weights.hpp>
#include <phi4flash/io/huggingface/checkpoint.hpp>
#include <phi4flash/io/huggingface/model_folder.hpp>
#include <phi4flash/io/packed/model.hpp>
#include <phi4flash/io/packed/tokenizer.hpp>
#include <phi4flash/io/packed/repack.hpp>
#include <phi4flash/io/huggingface/tokenizer_json.hpp>

#include <optional>
#include <utility>
#include <variant>

PHI4FLASH_BEGIN

#if PHI4FLASH_HAS_JSON && PHI4FLASH_FILES
/// Builds a tokenizer from a tokenizer.json, or from the one in a folder. Errors, naming the file: those of read_file and
/// tokenizer_from_json.
[[nodiscard]] PHI4FLASH_BODY result<tokenizer> open_tokenizer_json(const std::filesystem::path& path);

#endif

/// How to open a model.
struct opening_options {
#if PHI4FLASH_FILES
    mapping_options mapping{};  ///< of its weights
#endif
    repack_options repack{};    ///< of row-major files, whose quantized tensors are packed in memory of their own
    config_options config{};    ///< how strictly keys are read
};

/// A model in the host's memory, which must outlive all that is made of it: one GGUF file, or one or more safetensors files with the
/// texts of the JSON files beside them. @since 0.2
struct model_in_memory {
    std::span<const std::span<const std::byte>> weights;
    std::string_view config{};      ///< config.json
    std::string_view generation{};  ///< generation_config.json; may be empty
    std::string_view tokenizer{};   ///< tokenizer.json; may be empty
    /// Of `weights`, one for each or none at all, for sentences such as "model-00002-of-00004.safetensors: the last 96 of 4096 bytes are
    /// missing". One that is empty is none. Copied where they are kept.
    std::span<const std::string_view> names{};
};

/// Configuration, weights and tokenizer of a model, whichever form they have. A tensor_source: bind a model to it. Reading from
/// several threads is safe. Its views stay valid as long as it lives, and after it has been moved.
class model_files {
public:
    model_files() = default;
    model_files(model_files&&) = default;
    model_files& operator=(model_files&&) = default;

#if PHI4FLASH_FILES
    /// A folder is opened as a checkpoint, anything else as a packed file. `tell` hears how far reading is, where the options or the file
    /// make opening read all weights; it may begin again at 0 for repacking. Errors: those of checkpoint::open, packed_model::open
    /// and repacked_model::create; out_of_memory; file_not_found; file_unreadable for a folder where PHI4FLASH_HAS_JSON is 0.
    static result<model_files> open(const std::filesystem::path& path, const opening_options& options = {}, progress_ref tell = {});

    /// A packed file that the host has opened, or a part of one, as in a pak or an APK (mapped_file::open). The parts of a checkpoint are
    /// mapped one by one, and given to from_memory. Errors: those of packed_model::open and repacked_model::create. @since 0.2
    static result<model_files> open(const file_part& part, const opening_options& options = {}, progress_ref tell = {});
#endif

    /// From bytes. A GGUF file starts at a multiple of `gguf_host_alignment` and is used in place, but for what `options.repack` makes of
    /// a row-major one, in memory of the host's if it gives some (repack_options::memory); safetensors files as in
    /// checkpoint::from_memory. Errors: those of packed_model::from_memory and repacked_model::create; of checkpoint::from_memory;
    /// invalid_argument for no weights, a GGUF file that is not alone, or another number of names; wrong_file_kind; file_not_found for
    /// safetensors without config.json, file_unreadable for any where PHI4FLASH_HAS_JSON is 0. @since 0.2
    static result<model_files> from_memory(const model_in_memory& bytes, const opening_options& options = {}, progress_ref tell = {});
    /// The same of one GGUF file. @since 0.2
    static result<model_files> from_memory(std::span<const std::byte> gguf, const opening_options& options = {}, progress_ref tell = {}) {
        return from_memory({.weights = {&gguf, 1}}, options, tell);
    }

    [[nodiscard]] const sambay_config& config() const {
        return std::visit([](const auto& f) -> const sambay_config& { return f.config(); }, form_);
    }
    [[nodiscard]] const generation_config& generation() const {
        return std::visit([](const auto& f) -> const generation_config& { return f.generation(); }, form_);
    }
    /// Sorted by name.
    [[nodiscard]] std::span<const tensor_view> tensors() const {
        return repacked_ ? repacked_->tensors() : std::visit([](const auto& f) { return f.tensors(); }, form_);
    }
    [[nodiscard]] const tensor_view* find(std::string_view name) const {
        return repacked_ ? repacked_->find(name) : std::visit([&](const auto& f) { return f.find(name); }, form_);
    }
    /// Bytes of all weights.
    [[nodiscard]] std::uint64_t bytes() const { return bytes_of_tensors(tensors()); }
    /// Those that lie in memory of this program's own, and not in maps of files: repacked, copied because they were not aligned, or
    /// because the options wanted it or the file system cannot map. @since 0.2
    [[nodiscard]] std::uint64_t owned_bytes() const {
        return (repacked_ ? repacked_->owned_bytes() : 0) + std::visit([](const auto& f) -> std::uint64_t { return f.copied_bytes(); }, form_);
    }
    /// How much of the files is in memory, and how much of that in huge pages: see mapped_file::residency. Of weights that were repacked,
    /// those. @since 0.2
    [[nodiscard]] page_share residency() const;
    /// See mapped_file::release_pages.
    void release_pages() const;

#if PHI4FLASH_FILES
    /// What was opened; empty in memory.
    [[nodiscard]] const std::filesystem::path& path() const { return path_; }
#endif
    /// The packed file, or nullptr.
    [[nodiscard]] const packed_model* packed() const { return std::get_if<packed_model>(&form_); }

    [[nodiscard]] bool has_tokenizer() const;
    /// Errors: those of read_tokenizer, tokenizer_from_json and open_tokenizer_json; file_not_found where there is none.
    [[nodiscard]] result<tokenizer> open_tokenizer() const;

private:
    /// What was read, with what it needs beside it.
    static result<model_files> from_packed(result<packed_model> file, const printable& name, const opening_options& options, progress_ref tell);

#if PHI4FLASH_HAS_JSON
    std::variant<packed_model, checkpoint> form_;
    std::string_view tokenizer_json_;
#else
    std::variant<packed_model> form_;
#endif
    std::optional<repacked_model> repacked_;
    printable name_{std::string_view("the model")};
#if PHI4FLASH_FILES
    std::filesystem::path path_;
#endif
};

#if PHI4FLASH_BODIES
#if PHI4FLASH_HAS_JSON && PHI4FLASH_FILES
PHI4FLASH_COLD_BODY result<tokenizer> open_tokenizer_json(const std::filesystem::path& path) {
    return detail::or_out_of_memory("open a tokenizer.json", [&]() -> result<tokenizer> {
        std::error_code ignored;
        const std::filesystem::path file = std::filesystem::is_directory(path, ignored) ? path / "tokenizer.json" : path;
        const auto json = detail::read_json_text(file, max_tokenizer_json_bytes);
        if (!json) return json.error();
        auto text = tokenizer_from_json(*json);
        if (!text) return text.error().in(printable(file).c_str());
        return text;
    });
}
#endif

#if PHI4FLASH_FILES
PHI4FLASH_COLD_BODY result<model_files> model_files::open(const std::filesystem::path& path, const opening_options& options, progress_ref tell) {
    return detail::or_out_of_memory("open a model", [&]() -> result<model_files> {
        std::error_code ignored;
        const auto kind = std::filesystem::status(path, ignored).type();
        if (kind == std::filesystem::file_type::not_found) return detail::nothing_there(path);
        if (kind != std::filesystem::file_type::directory) {
            auto file = from_packed(packed_model::open(path, options.mapping, options.config, tell), printable(path), options, tell);
            if (file) file->path_ = path;
            return file;
        }
#if PHI4FLASH_HAS_JSON
        auto folder = checkpoint::open(path, options.config, options.mapping, tell);
        if (!folder) return folder.error();
        model_files made;
        made.name_ = printable(path);
        made.path_ = path;
        made.form_ = *std::move(folder);
        return made;
#else
        return error::format(errc::file_unreadable,
                             "%s: this program reads packed files alone; for folders, compile it with PHI4FLASH_HAS_JSON=1 and nlohmann/json "
                             "3.11 on the include path",
                             printable(path).c_str());
#endif
    });
}

PHI4FLASH_COLD_BODY result<model_files> model_files::open(const file_part& part, const opening_options& options, progress_ref tell) {
    return detail::or_out_of_memory("open a model", [&] {
        const printable name(detail::name_of_part(part));
        auto file = from_packed(packed_model::open(part, options.mapping, options.config, tell), name, options, tell);
        if (file) file->path_ = detail::from_utf8(part.name);
        return file;
    });
}
#endif

PHI4FLASH_COLD_BODY result<model_files> model_files::from_memory(const model_in_memory& bytes, const opening_options& options, progress_ref tell) {
    return detail::or_out_of_memory("open a model", [&]() -> result<model_files> {
        if (bytes.weights.empty()) return error::format(errc::invalid_argument, "want the bytes of a GGUF file or of safetensors files, have none");
        if (!bytes.names.empty() && bytes.names.size() != bytes.weights.size())
            return error::format(errc::invalid_argument, "names: want one for each of %zu files of weights, or none, have %zu", bytes.weights.size(),
                                 bytes.names.size());
        const bool has_config = PHI4FLASH_HAS_JSON && !bytes.config.empty();  // so the rest is safetensors, whatever is left of them
        const auto is_gguf = [&](std::span<const std::byte> file) {
            return identify(file) == file_kind::gguf && !(has_config && detail::is_too_short_to_tell(file, file_kind::safetensors));
        };
        const bool named = !bytes.names.empty() && !bytes.names.front().empty();
        const printable name = printable::name_of_file(named ? bytes.names.front() : "the model");
        const std::span<const std::byte> first = bytes.weights.front();
        const std::size_t json = bytes.config.size() + bytes.generation.size() + bytes.tokenizer.size();
        if (bytes.weights.size() == 1 && json == 0 && is_gguf(first)) {
            auto file = packed_model::from_memory(first, options.config);
            if (!file) return file.error().in(name.c_str());
            return from_packed(std::move(file), name, options, tell);
        }
        for (std::size_t i = 0; i < bytes.weights.size(); ++i)
            if (is_gguf(bytes.weights[i]))
                return error::format(errc::invalid_argument,
                                     "%s: a GGUF file, which has its configuration and tokenizer in it: want it alone, have %zu files of weights and "
                                     "%zu bytes of JSON", detail::name_in_memory(bytes.names, i).c_str(), bytes.weights.size(), json);
        const file_kind kind = identify(first);
        if (kind != file_kind::safetensors && !has_config) {
            if (first.empty()) return error::format(errc::file_empty, "%s: no bytes: want a GGUF or safetensors file", name.c_str());
            if (const auto other = detail::explain_bytes(name, first, file_kind::gguf)) return *other;
            return error::format(errc::wrong_file_kind, "%s: want bytes that begin as a GGUF or safetensors file does, have others", name.c_str());
        }
#if PHI4FLASH_HAS_JSON
        if (!has_config) return error::format(errc::file_not_found, "%s: a safetensors file: want the text of config.json with it", name.c_str());
        auto made = checkpoint::from_memory(bytes.config, bytes.weights, bytes.generation, options.config, bytes.names);
        if (!made) return made.error();
        model_files files;
        files.form_ = *std::move(made);
        files.tokenizer_json_ = bytes.tokenizer;
        return files;
#else
        return error::format(errc::file_unreadable, "this program reads packed files alone; for safetensors, compile it with "
                             "PHI4FLASH_HAS_JSON=1 and nlohmann/json 3.11 on the include path");
#endif
    });
}

PHI4FLASH_COLD_BODY bool model_files::has_tokenizer() const {
    if (const packed_model* const file = packed()) return file->file().value("tokenizer.ggml.tokens") != nullptr;
#if PHI4FLASH_HAS_JSON
    if (!tokenizer_json_.empty()) return true;
#if PHI4FLASH_FILES
    if (const checkpoint* const folder = std::get_if<checkpoint>(&form_)) return !folder->tokenizer_path().empty();
#endif
#endif
    return false;
}

PHI4FLASH_COLD_BODY result<tokenizer> model_files::open_tokenizer() const {
    return detail::or_out_of_memory("open a tokenizer", [&]() -> result<tokenizer> {
        if (!has_tokenizer())
            return error::format(errc::file_not_found, "%s has no tokenizer%s", name_.c_str(),
                                 packed() == nullptr ? ": there is no tokenizer.json" : "");
        if (const packed_model* const file = packed()) {
            auto text = read_tokenizer(*file);
            if (!text) return text.error().in(name_.c_str());
            return text;
        }
#if PHI4FLASH_HAS_JSON
        if (!tokenizer_json_.empty()) {
            const printable file(std::string_view("tokenizer.json"));
            if (const auto other = detail::explain_bytes(file, detail::bytes_of_text(tokenizer_json_), file_kind::json)) return *other;
            auto text = tokenizer_from_json(tokenizer_json_);
            if (!text) return text.error().in(file.c_str());
            return text;
        }
#if PHI4FLASH_FILES
        return open_tokenizer_json(std::get<checkpoint>(form_).tokenizer_path());
#endif
#endif
        return error::format(errc::file_not_found, "%s has no tokenizer", name_.c_str());
    });
}

PHI4FLASH_COLD_BODY result<model_files> model_files::from_packed(result<packed_model> file, const printable& name, const opening_options& options,
                                                                 progress_ref tell) {
    if (!file) return file.error();
    model_files made;
    made.name_ = name;
    if (file->needs_repacking()) {
        auto repacked = repacked_model::create(*file, options.repack, tell);
        if (!repacked) return repacked.error().in(name.c_str());
        made.repacked_.emplace(*std::move(repacked));
    }
    made.form_ = *std::move(file);
    return made;
}

PHI4FLASH_COLD_BODY page_share model_files::residency() const {
    if (repacked_) return {repacked_->owned_bytes(), repacked_->huge_bytes()};
    return std::visit([](const auto& f) { return f.residency(); }, form_);
}

PHI4FLASH_COLD_BODY void model_files::release_pages() const {
    std::visit([](const auto& f) { f.release_pages(); }, form_);
}
#endif

PHI4FLASH_END
