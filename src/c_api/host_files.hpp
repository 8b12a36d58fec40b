#pragma once
/// The files of a model that the host has in memory, or reads when it is asked to: sorted by their names first, then read, those that count.
#include "handle.hpp"

#include <algorithm>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

PHI4FLASH_BEGIN
namespace c_api {

inline constexpr const char* no_json = "this library was built without JSON (PHI4FLASH_WITH_JSON): it reads packed files alone";

/// One GGUF file, or those of a checkpoint.
class host_files {
public:
    static constexpr std::size_t most = 10000;

    /// What there is, and whether it makes a model; nothing is read, and no memory is taken for the files.
    outcome list(const phi4flash_file* files, std::size_t count) {
        if (files == nullptr) return missing("files");
        if (count == 0 || count > most) return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "files: want 1 to %zu, have %zu", most, count);
        for (std::size_t i = 0; i < count; ++i) {
            wanted_file file{.index = i};
            if (outcome ok = read_element(files, i, file.from, "file"); !ok) return ok;
            if (outcome ok = check(file); !ok) return ok;
            if (outcome ok = sort_in(file, count); !ok) return ok;
        }
        if (outcome ok = check_names(); !ok) return ok;
        if (count == 1 && !weights_.empty() && !is_safetensors(names_.front())) return {};  // its bytes tell what it is
#if PHI4FLASH_HAS_JSON
        if (!config_.is_there()) return outcome::failed(PHI4FLASH_FILE_NOT_FOUND, "files: there is no config.json among them");
        if (weights_.empty()) return outcome::failed(PHI4FLASH_FILE_NOT_FOUND, "files: there is no *.safetensors among them");
        return {};
#else
        return outcome::failed(PHI4FLASH_FILE_UNREADABLE, "%s", no_json);
#endif
    }

    /// Their bytes: the host's own where they can be used in place, else copies in `memory`.
    outcome read(const host_memory& memory) {
        for (wanted_file* const file : {&config_, &generation_, &tokenizer_})
            if (file->is_there())
                if (outcome ok = read(*file, memory); !ok) return ok;
        for (wanted_file& file : weights_) {
            if (outcome ok = read(file, memory); !ok) return ok;
            weight_bytes_.push_back(file.bytes);
        }
        return {};
    }

    /// Refers to this, and to the names that the host gave.
    [[nodiscard]] model_in_memory as_model() const {
        return {weight_bytes_, config_.text(), generation_.text(), tokenizer_.text(), names_};
    }

    /// What has to live as long as the model.
    [[nodiscard]] std::vector<memory_block> take_copies() { return std::move(copies_); }

private:
    struct wanted_file {
        std::size_t index = 0;  ///< in the host's list
        phi4flash_file from{};
        std::string_view name{};
        std::span<const std::byte> bytes{};

        [[nodiscard]] bool is_there() const { return from.bytes != 0; }
        /// For sentences.
        [[nodiscard]] printable place() const { return name_in_memory(name, index); }
        [[nodiscard]] std::string_view text() const { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
    };

    static bool is_safetensors(std::string_view name) { return name.ends_with(".safetensors"); }

    static outcome check(wanted_file& file) {
        const phi4flash_file& f = file.from;
        char name_of_name[48];
        print(name_of_name, sizeof name_of_name, "name of file %zu", file.index);
        if (outcome ok = read_text(f.name, f.name_length, file.name, name_of_name); !ok) return ok;
        char name_of_reserved[48];
        print(name_of_reserved, sizeof name_of_reserved, "file %zu: reserved", file.index);
        if (outcome ok = check_reserved(f.reserved, name_of_reserved); !ok) return ok;
        if (f.bytes == 0) return outcome::failed(PHI4FLASH_FILE_EMPTY, "%s: it has no bytes", file.place().c_str());
        if (f.bytes > static_cast<std::uint64_t>(PTRDIFF_MAX))
            return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "%s: %llu bytes are more than there can be in memory", file.place().c_str(),
                                   static_cast<unsigned long long>(f.bytes));
        if ((f.data == nullptr) == (f.read == nullptr))
            return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "%s: want data or a reader, have %s", file.place().c_str(),
                                   f.data == nullptr ? "neither" : "both");
        return {};
    }

    outcome sort_in(const wanted_file& file, std::size_t count) {
        const std::string_view name = file.name.substr(file.name.find_last_of("/\\") + 1);  // in which folder they were does not matter
        wanted_file* const place = name == "config.json"              ? &config_
                                   : name == "generation_config.json" ? &generation_
                                   : name == "tokenizer.json"         ? &tokenizer_
                                                                      : nullptr;
        if (place != nullptr) {
            if (outcome ok = check_json_size(file, place == &tokenizer_); !ok) return ok;
            if (place->is_there())
                return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "files: want one %s, have %s and %s", printable(name).c_str(),
                                       place->place().c_str(), file.place().c_str());
            *place = file;
            return {};
        }
        if (is_safetensors(name) || count == 1) {
            weights_.push_back(file);
            names_.push_back(file.name);
            return {};
        }
        if (name.ends_with(".json")) return {};  // of a checkpoint, and not needed
        if (name.ends_with(".gguf"))
            return outcome::failed(PHI4FLASH_INVALID_ARGUMENT,
                                   "%s: a GGUF file, which has its configuration and tokenizer in it: want it alone, have %zu files",
                                   file.place().c_str(), count);
        return outcome::failed(PHI4FLASH_INVALID_ARGUMENT,
                               "files: want config.json, *.safetensors and other files of a checkpoint, or one GGUF file; have '%s'",
                               file.place().c_str());
    }

    /// Before it is read, as in folders.
    static outcome check_json_size([[maybe_unused]] const wanted_file& file, [[maybe_unused]] bool is_tokenizer) {
#if PHI4FLASH_HAS_JSON
        const std::size_t most = is_tokenizer ? max_tokenizer_json_bytes : hf_config_limits.bytes;
        if (file.from.bytes > most)
            return outcome::failed(PHI4FLASH_FILE_TOO_LARGE, "%s: want at most %zu bytes, have %llu", file.place().c_str(), most,
                                   static_cast<unsigned long long>(file.from.bytes));
#endif
        return {};
    }

    /// Files of weights have names of their own, or none.
    outcome check_names() const {
        std::vector<std::string_view> sorted = names_;
        std::sort(sorted.begin(), sorted.end());
        const auto twice = std::adjacent_find(sorted.begin(), sorted.end(),
                                              [](std::string_view a, std::string_view b) { return a == b && !a.empty(); });
        if (twice == sorted.end()) return {};
        return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "files: want one %s, have two", printable::name_of_file(*twice).c_str());
    }

    outcome read(wanted_file& file, const host_memory& memory) {
        const phi4flash_file& f = file.from;
        const auto bytes = static_cast<std::size_t>(f.bytes);
        if (f.data != nullptr && reinterpret_cast<std::uintptr_t>(f.data) % gguf_host_alignment == 0) {
            file.bytes = {static_cast<const std::byte*>(f.data), bytes};
            return {};
        }
        auto block = memory.take_block(bytes, "copy of a file");
        if (!block) return block.error().in(file.place().c_str());
        std::byte* const place = block->bytes().data();
        copies_.push_back(*std::move(block));
        file.bytes = {place, bytes};
        if (f.data != nullptr) {
            std::memcpy(place, f.data, bytes);
            return {};
        }
        constexpr std::size_t piece = std::size_t{64} << 20;  // as phi4flash.h says
        for (std::size_t at = 0; at < bytes; at += piece) {
            const std::size_t n = (std::min)(piece, bytes - at);
            if (const std::int32_t answer = f.read(f.user, at, place + at, n); answer != 0)
                return outcome::failed(PHI4FLASH_HOST_FAILED, "%s: its reader answered %ld for %zu bytes from byte %zu on", file.place().c_str(),
                                       static_cast<long>(answer), n, at);
        }
        return {};
    }

    wanted_file config_, generation_, tokenizer_;
    std::vector<wanted_file> weights_;
    std::vector<std::string_view> names_;                   // of these
    std::vector<std::span<const std::byte>> weight_bytes_;  // of these, once they are read
    std::vector<memory_block> copies_;  // of what readers read, and of what lay at an odd place
};

}  // namespace c_api
PHI4FLASH_END
