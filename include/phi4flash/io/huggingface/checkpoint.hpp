#pragma once
/// A checkpoint in the Hugging Face layout: a folder whose weights are mapped, or bytes that the host owns. Names, types
/// and places are checked here; what a model needs of them, and in which shape, is the model's business.
#include <phi4flash/core/sort_once.hpp>
#include <phi4flash/core/span_of.hpp>
#include <phi4flash/io/safetensors/align_tensors.hpp>
#include <phi4flash/io/huggingface/checkpoint_index.hpp>
#include <phi4flash/io/file/file_kind.hpp>
#include <phi4flash/io/huggingface/config.hpp>
#include <phi4flash/io/huggingface/generation_config.hpp>
#include <phi4flash/io/file/mapped_file.hpp>
#include <phi4flash/io/huggingface/model_folder.hpp>
#include <phi4flash/io/safetensors/safetensors.hpp>

#if PHI4FLASH_HAS_JSON
PHI4FLASH_BEGIN

/// Configuration and tensors of a model. Reading from several threads is safe. Its tensor views stay valid as long as it
/// lives, and after it has been moved; in memory the host's bytes must outlive it too.
class checkpoint {
public:
    checkpoint() = default;
    checkpoint(checkpoint&&) = default;
    checkpoint& operator=(checkpoint&&) = default;

#if PHI4FLASH_FILES
    /// Reads config.json, generation_config.json (may be absent) and maps model.safetensors or, without that file, the
    /// shards that model.safetensors.index.json names. Tensors that lie at an odd place of their file are copied. Errors, each naming
    /// the path of the file or the folder: those of mapped_file::open, read_hf_config, read_generation_config, read_checkpoint_index
    /// and safetensors::parse; wrong_dtype; duplicate_name (across shards); index_mismatch (index and shards disagree); out_of_memory
    /// (for the copies, or anything else). wrong_file_kind and file_incomplete where a file or the folder is not what it should be
    /// (io/file/file_kind.hpp, io/huggingface/model_folder.hpp). `tell` hears how far it is where `mapping` makes it read all weights;
    /// cancelled where it stops that.
    static result<checkpoint> open(const std::filesystem::path& folder, const config_options& options = {}, const mapping_options& mapping = {},
                                   progress_ref tell = {});
#endif

    /// The same from memory: the texts of the two configurations (the second may be empty) and the bytes of one or more
    /// safetensors files: aligned to `safetensors_alignment`, or their tensors are copied. No index is needed. `names` (since 0.2) are
    /// what errors call the files by: one for each, or none at all. Errors: those of `open` but for paths and the index; invalid_argument for
    /// no files, and for another number of names.
    static result<checkpoint> from_memory(std::string_view config_json, std::span<const std::span<const std::byte>> files,
                                          std::string_view generation_config_json = {}, const config_options& options = {},
                                          std::span<const std::string_view> names = {});

    [[nodiscard]] const sambay_config& config() const { return config_; }
    /// Of generation_config.json, or else what config.json says of it.
    [[nodiscard]] const generation_config& generation() const { return generation_; }
    /// All tensors of all files, sorted by name.
    [[nodiscard]] std::span<const tensor_view> tensors() const { return detail::span_of(tensors_); }
    [[nodiscard]] const tensor_view* find(std::string_view name) const { return find_tensor(detail::span_of(tensors_), name); }
    /// Bytes of all tensors.
    [[nodiscard]] std::uint64_t bytes() const { return bytes_of_tensors(detail::span_of(tensors_)); }
    /// Bytes of tensors that were copied, because they were not aligned, or their file could not be mapped. @since 0.2
    [[nodiscard]] std::size_t copied_bytes() const;
    /// See mapped_file::residency; of all its files, and nothing in memory of the host's. @since 0.2
    [[nodiscard]] page_share residency() const;
    /// See mapped_file::release_pages; in memory it does nothing.
    void release_pages() const {
#if PHI4FLASH_FILES
        for (const mapped_file& file : files_) file.release_pages();
#endif
    }
#if PHI4FLASH_FILES
    /// The folder; empty in memory.
    [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }
    /// tokenizer.json of the folder; empty where it has none.
    [[nodiscard]] const std::filesystem::path& tokenizer_path() const { return tokenizer_path_; }
#endif

private:
    status read_configs(std::string_view config_json, std::string_view generation_json, const config_options& options);
    status add_file(std::span<const std::byte> bytes);
    status collect(std::span<const std::string_view> names);
    status align();
#if PHI4FLASH_FILES
    status read_config_files(const config_options& options);
    status map_shard(const std::string& name, const mapping_options& mapping, progress_ref tell);
    status check_index(const checkpoint_index& index) const;
    status open_weights(const mapping_options& mapping, progress_ref tell);
    [[nodiscard]] printable place_of(const char* name) const { return printable(folder_ / name); }

    std::filesystem::path folder_;
    std::filesystem::path tokenizer_path_;
    std::vector<mapped_file> files_;
#else
    [[nodiscard]] printable place_of(const char* name) const { return printable(std::string_view(name)); }
#endif
    sambay_config config_;
    generation_config generation_;
    std::vector<safetensors> tables_;
    std::vector<tensor_view> tensors_;
    memory_block aligned_;
};

#if PHI4FLASH_BODIES
PHI4FLASH_COLD_BODY status checkpoint::read_configs(std::string_view config_json, std::string_view generation_json,
                                                    const config_options& options) {
    const printable config_path = place_of("config.json");
    const auto config = read_hf_config(config_json, options);
    if (!config) return config.error().in(config_path.c_str());
    config_ = *config;
    const bool own = !generation_json.empty();
    const printable generation_path = place_of(own ? "generation_config.json" : "config.json");
    auto generation = own ? read_generation_config(generation_json) : read_generation_of_hf_config(config_json);
    if (!generation) return generation.error().in(generation_path.c_str());
    generation_ = *std::move(generation);
    for (const std::uint32_t id : generation_.stop_ids)
        if (id >= config_.shape.vocab)
            return error::format(errc::unknown_token, "'eos_token_id': want an id below vocab_size %zu, have %lu",
                                 config_.shape.vocab, static_cast<unsigned long>(id))
                .in(generation_path.c_str());
    return {};
}

PHI4FLASH_COLD_BODY status checkpoint::add_file(std::span<const std::byte> bytes) {
    auto table = safetensors::parse(bytes);
    if (!table) return table.error();
    for (const safetensors_entry& entry : table->entries()) {
        const auto view = to_tensor_view(entry);
        if (!view) return view.error();
        tensors_.push_back(*view);
    }
    tables_.push_back(*std::move(table));
    return {};
}

/// Sorts the tensors of all files for `find`. `names`: of the files.
PHI4FLASH_COLD_BODY status checkpoint::collect(std::span<const std::string_view> names) {
    detail::sort_once(tensors_, [](const tensor_view& a, const tensor_view& b) { return a.name < b.name; });
    const auto twice = std::adjacent_find(tensors_.begin(), tensors_.end(),
                                          [](const tensor_view& a, const tensor_view& b) { return a.name == b.name; });
    if (twice == tensors_.end()) return {};
    const auto has_it = [&](const safetensors& table) { return table.find(twice->name) != nullptr; };
    const auto one = std::find_if(tables_.begin(), tables_.end(), has_it);
    const auto other = std::find_if(one + 1, tables_.end(), has_it);
    return error::format(errc::duplicate_name, "%s and %s have both tensor '%s'",
                         detail::name_in_memory(names, static_cast<std::size_t>(one - tables_.begin())).c_str(),
                         detail::name_in_memory(names, static_cast<std::size_t>(other - tables_.begin())).c_str(), printable(twice->name).c_str());
}

/// After all has been checked.
PHI4FLASH_COLD_BODY status checkpoint::align() {
    auto block = align_tensors(detail::span_of(tensors_), [this](std::size_t) { release_pages(); });
#if PHI4FLASH_FILES
    if (!block && !folder_.empty()) return block.error().in(printable(folder_).c_str());
#endif
    if (!block) return block.error();
    aligned_ = *std::move(block);
    return {};
}

PHI4FLASH_COLD_BODY result<checkpoint> checkpoint::from_memory(std::string_view config_json, std::span<const std::span<const std::byte>> files,
                                                               std::string_view generation_config_json, const config_options& options,
                                                               std::span<const std::string_view> names) {
    return detail::or_out_of_memory("read a checkpoint", [&]() -> result<checkpoint> {
        if (files.empty()) return error::format(errc::invalid_argument, "want the bytes of one or more safetensors files, have none");
        if (!names.empty() && names.size() != files.size())
            return error::format(errc::invalid_argument, "names: want one for each of %zu files, or none, have %zu", files.size(), names.size());
        for (const auto& [text, name] : {std::pair(config_json, "config.json"), {generation_config_json, "generation_config.json"}})
            if (const auto other = detail::explain_bytes(printable(std::string_view(name)), detail::bytes_of_text(text), file_kind::json))
                return *other;
        checkpoint loaded;
        if (const status ok = loaded.read_configs(config_json, generation_config_json, options); !ok) return ok.error();
        for (std::size_t i = 0; i < files.size(); ++i) {
            const printable name = detail::name_in_memory(names, i);
            if (const auto other = detail::explain_bytes(name, files[i], file_kind::safetensors)) return *other;
            if (const status ok = loaded.add_file(files[i]); !ok) return ok.error().in(name.c_str());
        }
        if (const status ok = loaded.collect(names); !ok) return ok.error();
        if (const status ok = loaded.align(); !ok) return ok.error();
        return loaded;
    });
}

#if PHI4FLASH_FILES
PHI4FLASH_COLD_BODY status checkpoint::read_config_files(const config_options& options) {
    const auto config = detail::read_json_text(folder_ / "config.json", hf_config_limits.bytes);
    if (!config) return config.error().code() == errc::file_not_found ? detail::explain_no_config(folder_) : config.error();
    const auto generation = detail::read_json_text(folder_ / "generation_config.json", hf_config_limits.bytes);
    if (!generation && generation.error().code() != errc::file_not_found) return generation.error();
    return read_configs(*config, generation ? std::string_view(*generation) : std::string_view(), options);
}

PHI4FLASH_COLD_BODY status checkpoint::map_shard(const std::string& name, const mapping_options& mapping, progress_ref tell) {
    const auto path = folder_ / detail::from_utf8(name);
    auto file = mapped_file::open(path, mapping, tell);
    if (!file) return file.error();
    if (const auto other = detail::explain_file(path, file->bytes(), file_kind::safetensors)) return *other;
    if (const status ok = add_file(file->bytes()); !ok) return ok.error().in(printable(path).c_str());
    files_.push_back(*std::move(file));
    return {};
}

/// Every tensor is in the shard that the index names, and no shard holds one that the index does not know.
PHI4FLASH_COLD_BODY status checkpoint::check_index(const checkpoint_index& index) const {
    for (const checkpoint_index::entry& entry : index.entries)
        if (tables_[entry.shard].find(entry.tensor) == nullptr)
            return error::format(errc::index_mismatch, "tensor '%s': the index wants it in %s, which does not have it",
                                 printable(entry.tensor).c_str(), printable::name_of_file(index.shards[entry.shard]).c_str());
    if (index.entries.size() == tensors_.size()) return {};
    for (const tensor_view& tensor : tensors_) {
        const auto place = std::lower_bound(index.entries.begin(), index.entries.end(), tensor.name,
                                            [](const checkpoint_index::entry& e, std::string_view n) { return e.tensor < n; });
        if (place == index.entries.end() || place->tensor != tensor.name)
            return error::format(errc::index_mismatch, "tensor '%s' is in a shard but not in the index",
                                 printable(tensor.name).c_str());
    }
    return {};
}

PHI4FLASH_COLD_BODY status checkpoint::open_weights(const mapping_options& mapping, progress_ref tell) {
    constexpr const char* single = "model.safetensors";
    constexpr const char* index_name = "model.safetensors.index.json";
    std::error_code ignored;
    const auto is_there = [&](const std::filesystem::path& path) {
        return std::filesystem::exists(path, ignored) || std::filesystem::is_symlink(path, ignored);
    };
    if (is_there(folder_ / single)) {
        if (const status ok = map_shard(single, mapping, tell); !ok) return ok;
        return collect({});  // one file has each name once
    }
    if (!is_there(folder_ / index_name)) return detail::explain_no_weights(folder_);
    const auto text = detail::read_json_text(folder_ / index_name, checkpoint_index_limits.bytes);
    if (!text) return text.error();
    const auto index = read_checkpoint_index(*text);
    const printable index_path(folder_ / index_name);
    if (!index) return index.error().in(index_path.c_str());
    const std::vector<std::string_view> names(index->shards.begin(), index->shards.end());
    for (const std::string& shard : index->shards)
        if (const status ok = map_shard(shard, mapping, tell); !ok)
            return ok.error().code() == errc::file_not_found ? detail::explain_no_shard(folder_, shard) : ok.error();
    if (const status ok = collect(names); !ok) return ok.error().in(printable(folder_).c_str());
    const status ok = check_index(*index);
    return ok ? ok : ok.error().in(index_path.c_str());
}

PHI4FLASH_COLD_BODY result<checkpoint> checkpoint::open(const std::filesystem::path& folder, const config_options& options,
                                                        const mapping_options& mapping, progress_ref tell) {
    return detail::or_out_of_memory("open a checkpoint", [&]() -> result<checkpoint> {
        std::error_code why;
        const auto kind = std::filesystem::status(folder, why).type();
        if (kind == std::filesystem::file_type::not_found)
            return detail::nothing_there(folder);
        if (kind != std::filesystem::file_type::directory) return detail::explain_no_folder(folder, why);
        checkpoint loaded;
        loaded.folder_ = folder;
        if (const status ok = loaded.read_config_files(options); !ok) return ok.error();
        mapping_options at_first = mapping;
        at_first.populate = false;  // but when all files are known
        if (const status ok = loaded.open_weights(at_first, tell); !ok) return ok.error();
        if (const status ok = loaded.align(); !ok) return ok.error();
        if (mapping.populate)
            if (const status ok = detail::populate(detail::span_of(loaded.files_), folder, tell); !ok) return ok.error();
        // A link whose target is gone, too: whoever opens it learns that.
        if (auto path = folder / "tokenizer.json"; std::filesystem::is_regular_file(path, why) || std::filesystem::is_symlink(path, why))
            loaded.tokenizer_path_ = std::move(path);
        return loaded;
    });
}
#endif

PHI4FLASH_COLD_BODY std::size_t checkpoint::copied_bytes() const {
    std::size_t sum = aligned_.bytes().size();
#if PHI4FLASH_FILES
    for (const mapped_file& file : files_) sum += file.is_copy() ? file.bytes().size() : 0;
#endif
    return sum;
}

PHI4FLASH_COLD_BODY page_share checkpoint::residency() const {
    page_share sum;
#if PHI4FLASH_FILES
    for (const mapped_file& file : files_) {
        const page_share one = file.residency();
        sum.resident += one.resident;
        sum.huge += one.huge;
    }
#endif
    return sum;
}
#endif

PHI4FLASH_END
#endif  // PHI4FLASH_HAS_JSON
