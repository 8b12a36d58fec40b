#pragma once
/// What a user names as a model: a checkpoint folder of Hugging Face, or one packed file.
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

#if PHI4FLASH_HAS_JSON
/// Builds a tokenizer from a tokenizer.json, or from the one in a folder. Errors, naming the file: those of mapped_file::open and
/// tokenizer_from_json.
[[nodiscard]] inline result<tokenizer> open_tokenizer_json(const std::filesystem::path& path) {
    return detail::or_out_of_memory("open a tokenizer.json", [&]() -> result<tokenizer> {
        std::error_code ignored;
        const std::filesystem::path file = std::filesystem::is_directory(path, ignored) ? path / "tokenizer.json" : path;
        const auto mapped = mapped_file::open(file);
        if (!mapped) return mapped.error();
        if (const auto other = detail::explain_file(file, mapped->bytes(), file_kind::json)) return *other;
        auto text = tokenizer_from_json(mapped->text());
        if (!text) return text.error().in(printable(file).c_str());
        return text;
    });
}
#endif

/// How to open a model.
struct opening_options {
    mapping_options mapping{};  ///< of its weights
    repack_options repack{};    ///< of row-major files, whose quantized tensors are packed in memory of their own
    config_options config{};    ///< how strictly keys are read
};

/// Configuration, weights and tokenizer of a model, whichever form they have. A tensor_source: bind a model to it. Reading from
/// several threads is safe. Its views stay valid as long as it lives, and after it has been moved.
class model_files {
public:
    model_files() = default;
    model_files(model_files&&) = default;
    model_files& operator=(model_files&&) = default;

    /// A folder is opened as a checkpoint, anything else as a packed file. `tell` hears how far reading is, where the options or the file
    /// make opening read all weights; it may begin again at 0 for repacking. Errors: those of checkpoint::open, packed_model::open
    /// and repacked_model::create; out_of_memory; file_not_found; file_unreadable for a folder where PHI4FLASH_HAS_JSON is 0.
    static result<model_files> open(const std::filesystem::path& path, const opening_options& options = {}, progress_ref tell = {}) {
        return detail::or_out_of_memory("open a model", [&]() -> result<model_files> {
            model_files made;
            made.path_ = path;
            std::error_code ignored;
            const auto kind = std::filesystem::status(path, ignored).type();
            if (kind == std::filesystem::file_type::not_found)
                return detail::nothing_there(path);
            if (kind != std::filesystem::file_type::directory) {
                auto file = packed_model::open(path, options.mapping, options.config, tell);
                if (!file) return file.error();
                if (file->needs_repacking()) {
                    auto repacked = repacked_model::create(*file, options.repack, tell);
                    if (!repacked) return repacked.error().in(printable(path).c_str());
                    made.repacked_.emplace(*std::move(repacked));
                }
                made.form_ = *std::move(file);
                return made;
            }
    #if PHI4FLASH_HAS_JSON
            auto folder = checkpoint::open(path, options.config, options.mapping, tell);
            if (!folder) return folder.error();
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
        const auto of = [](const auto& f) -> std::uint64_t {
            if constexpr (requires { f.copied_bytes(); }) {
                return f.copied_bytes();
            } else {
                return f.mapping().is_copy() ? f.mapping().bytes().size() : 0;
            }
        };
        return (repacked_ ? repacked_->owned_bytes() : 0) + std::visit(of, form_);
    }
    /// How much of the files is in memory, and how much of that in huge pages: see mapped_file::residency. Of weights that were repacked,
    /// those. @since 0.2
    [[nodiscard]] page_share residency() const {
        if (repacked_) return {repacked_->owned_bytes(), repacked_->huge_bytes()};
        return std::visit([](const auto& f) { return f.residency(); }, form_);
    }
    /// See mapped_file::release_pages.
    void release_pages() const {
        std::visit([](const auto& f) { f.release_pages(); }, form_);
    }

    /// What was opened.
    [[nodiscard]] const std::filesystem::path& path() const { return path_; }
    /// The packed file, or nullptr.
    [[nodiscard]] const packed_model* packed() const { return std::get_if<packed_model>(&form_); }

    [[nodiscard]] bool has_tokenizer() const {
        if (const packed_model* const file = packed()) return file->file().value("tokenizer.ggml.tokens") != nullptr;
#if PHI4FLASH_HAS_JSON
        if (const checkpoint* const folder = std::get_if<checkpoint>(&form_)) return !folder->tokenizer_path().empty();
#endif
        return false;
    }
    /// Errors: those of read_tokenizer and open_tokenizer_json; file_not_found where there is none.
    [[nodiscard]] result<tokenizer> open_tokenizer() const {
        return detail::or_out_of_memory("open a tokenizer", [&]() -> result<tokenizer> {
            if (!has_tokenizer()) return error::format(errc::file_not_found, "%s has no tokenizer", printable(path_).c_str());
            if (const packed_model* const file = packed()) {
                auto text = read_tokenizer(*file);
                if (!text) return text.error().in(printable(path_).c_str());
                return text;
            }
    #if PHI4FLASH_HAS_JSON
            return open_tokenizer_json(std::get<checkpoint>(form_).tokenizer_path());
    #else
            return error::format(errc::file_not_found, "%s has no tokenizer", printable(path_).c_str());
    #endif
        });
    }

private:
#if PHI4FLASH_HAS_JSON
    std::variant<packed_model, checkpoint> form_;
#else
    std::variant<packed_model> form_;
#endif
    std::optional<repacked_model> repacked_;
    std::filesystem::path path_;
};

PHI4FLASH_END
