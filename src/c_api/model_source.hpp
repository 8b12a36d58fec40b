#pragma once
/// Where a model's weights come from: a path, or files that the host has. A tensor_source.
#include "handle.hpp"

#include <optional>
#include <string>
#include <vector>

PHI4FLASH_BEGIN
namespace c_api {

/// A file of the host's, in memory.
struct named_bytes {
    std::string name;
    std::span<const std::byte> bytes;
};

/// One GGUF file, or the files of a checkpoint, in memory that must outlive it.
class memory_files {
public:
    static result<memory_files> open(std::span<const named_bytes> files, const config_options& options, const repack_options& repacking) {
        const auto has_magic = [](std::span<const std::byte> b) { return identify(b) == file_kind::gguf; };
        if (files.size() == 1 && files[0].name != "config.json" && (has_magic(files[0].bytes) || !files[0].name.ends_with(".safetensors")))
            return open_packed(files[0], options, repacking);
        return open_checkpoint(files, options);
    }

    [[nodiscard]] const sambay_config& config() const { return packed_ ? packed_->config() : folder_config(); }
    [[nodiscard]] const generation_config& generation() const { return packed_ ? packed_->generation() : folder_generation(); }
    [[nodiscard]] std::span<const tensor_view> tensors() const {
        return repacked_ ? repacked_->tensors() : packed_ ? packed_->tensors() : folder_tensors();
    }
    [[nodiscard]] const tensor_view* find(std::string_view name) const { return find_tensor(tensors(), name); }
    [[nodiscard]] std::uint64_t owned_bytes() const { return (repacked_ ? repacked_->owned_bytes() : 0) + folder_owned(); }

    [[nodiscard]] bool has_tokenizer() const {
        return packed_ ? packed_->file().value("tokenizer.ggml.tokens") != nullptr : !tokenizer_json_.empty();
    }
    [[nodiscard]] result<tokenizer> open_tokenizer() const {
        if (!has_tokenizer()) return error::format(errc::file_not_found, "the model's files have no tokenizer");
        if (packed_) return read_tokenizer(*packed_);
#if PHI4FLASH_HAS_JSON
        auto text = tokenizer_from_json(tokenizer_json_);
        if (!text) return text.error().in("tokenizer.json");
        return text;
#else
        return no_json();
#endif
    }

    [[nodiscard]] static error no_json() {
        return error::format(errc::file_unreadable, "this library was built without JSON (PHI4FLASH_WITH_JSON): it reads packed files alone");
    }

private:
    static error of_file(const named_bytes& file, const error& why) { return file.name.empty() ? why : why.in(printable(file.name).c_str()); }

    static result<memory_files> open_packed(const named_bytes& given, const config_options& options, const repack_options& repacking) {
        auto file = packed_model::from_memory(given.bytes, options);
        if (!file) return of_file(given, file.error());
        memory_files made;
        made.packed_.emplace(*std::move(file));
        if (!made.packed_->needs_repacking()) return made;
        auto repacked = repacked_model::create(*made.packed_, repacking);
        if (!repacked) return of_file(given, repacked.error());
        made.repacked_.emplace(*std::move(repacked));
        return made;
    }

#if PHI4FLASH_HAS_JSON
    static result<memory_files> open_checkpoint(std::span<const named_bytes> files, const config_options& options) {
        memory_files made;
        std::string_view config;
        std::string_view generation;
        std::vector<std::span<const std::byte>> weights;
        for (const named_bytes& file : files) {
            const std::string_view text(reinterpret_cast<const char*>(file.bytes.data()), file.bytes.size());
            std::string_view* const place = file.name == "config.json"              ? &config
                                            : file.name == "generation_config.json" ? &generation
                                            : file.name == "tokenizer.json"         ? &made.tokenizer_json_
                                                                                    : nullptr;
            if (place != nullptr) {
                if (!place->empty()) return error::format(errc::invalid_argument, "files: want one %s, have two", file.name.c_str());
                *place = text;
            } else if (file.name.ends_with(".safetensors")) {
                weights.push_back(file.bytes);
            } else if (!file.name.ends_with(".json")) {
                return error::format(errc::invalid_argument,
                                     "files: want config.json, *.safetensors and other files of a checkpoint, or one GGUF file; have '%s'",
                                     printable(file.name).c_str());
            }
        }
        if (config.empty()) return error::format(errc::file_not_found, "files: there is no config.json among them");
        if (weights.empty()) return error::format(errc::file_not_found, "files: there is no *.safetensors among them");
        auto folder = checkpoint::from_memory(config, weights, generation, options);
        if (!folder) {
            for (const named_bytes& file : files) {  // whose fault it is, by its name: the checkpoint knows them by number
                if (!file.name.ends_with(".safetensors")) continue;
                if (const auto alone = safetensors::parse(file.bytes); !alone) return of_file(file, alone.error());
            }
            return folder.error();
        }
        made.folder_.emplace(*std::move(folder));
        return made;
    }
    [[nodiscard]] const sambay_config& folder_config() const { return folder_->config(); }
    [[nodiscard]] const generation_config& folder_generation() const { return folder_->generation(); }
    [[nodiscard]] std::span<const tensor_view> folder_tensors() const { return folder_->tensors(); }
    [[nodiscard]] std::uint64_t folder_owned() const { return folder_ ? folder_->copied_bytes() : 0; }
    std::optional<checkpoint> folder_;
#else
    static result<memory_files> open_checkpoint(std::span<const named_bytes>, const config_options&) { return no_json(); }
    [[nodiscard]] const sambay_config& folder_config() const { return packed_->config(); }
    [[nodiscard]] const generation_config& folder_generation() const { return packed_->generation(); }
    [[nodiscard]] std::span<const tensor_view> folder_tensors() const { return {}; }
    [[nodiscard]] std::uint64_t folder_owned() const { return 0; }
#endif
    std::optional<packed_model> packed_;
    std::optional<repacked_model> repacked_;
    std::string_view tokenizer_json_;
};

/// The files of a model, whichever way they came.
class model_source {
public:
    explicit model_source(model_files&& files) : form_(std::move(files)) {}
    model_source(memory_files&& files, std::vector<memory_block>&& copies) : form_(std::move(files)), copies_(std::move(copies)) {}

    [[nodiscard]] const sambay_config& config() const {
        return std::visit([](const auto& f) -> const sambay_config& { return f.config(); }, form_);
    }
    [[nodiscard]] const generation_config& generation() const {
        return std::visit([](const auto& f) -> const generation_config& { return f.generation(); }, form_);
    }
    [[nodiscard]] std::span<const tensor_view> tensors() const {
        return std::visit([](const auto& f) { return f.tensors(); }, form_);
    }
    [[nodiscard]] const tensor_view* find(std::string_view name) const {
        return std::visit([&](const auto& f) { return f.find(name); }, form_);
    }
    [[nodiscard]] bool has_tokenizer() const {
        return std::visit([](const auto& f) { return f.has_tokenizer(); }, form_);
    }
    [[nodiscard]] result<tokenizer> open_tokenizer() const {
        return std::visit([](const auto& f) { return f.open_tokenizer(); }, form_);
    }
    [[nodiscard]] std::uint64_t owned_bytes() const {
        std::uint64_t sum = std::visit([](const auto& f) -> std::uint64_t { return f.owned_bytes(); }, form_);
        for (const memory_block& copy : copies_) sum += copy.bytes().size();
        return sum;
    }

private:
    std::variant<model_files, memory_files> form_;
    std::vector<memory_block> copies_;  // of what readers read, and of what lay at an odd place
};

}  // namespace c_api
PHI4FLASH_END
