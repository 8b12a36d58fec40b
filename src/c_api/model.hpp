#pragma once
/// Models and tokenizers: the handles that never change, and text.
#include "host_files.hpp"

#include <atomic>

PHI4FLASH_BEGIN
namespace c_api {

using model_type = model<any_sambay>;

class model_handle : public handle<model_handle, handle_kind::model> {
public:
    model_handle(const host_memory& memory, std::vector<memory_block>&& of_files, model_files&& from, model_type&& bound)
        : handle(memory), copies(std::move(of_files)), source(std::move(from)), weights(std::move(bound)) {}

    /// Bytes of this program's own, or of the host's allocator.
    [[nodiscard]] std::uint64_t owned_bytes() const {
        std::uint64_t sum = source.owned_bytes() + weights.parameter_bytes();
        for (const memory_block& copy : copies) sum += copy.bytes().size();
        return sum;
    }

    /// Computed once, by whoever asks first; two at once compute the same.
    [[nodiscard]] weights_fingerprint fingerprint() const {
        if (!known_.load(std::memory_order_acquire)) {
            fingerprint_.store(fingerprint_of(source, weights).value, std::memory_order_relaxed);
            known_.store(true, std::memory_order_release);
        }
        return {fingerprint_.load(std::memory_order_relaxed)};
    }

    const std::vector<memory_block> copies;  // files of the host's that `source` refers to
    const model_files source;
    const model_type weights;

private:
    mutable std::atomic<std::uint64_t> fingerprint_{0};
    mutable std::atomic<bool> known_{false};
};

class tokenizer_handle : public handle<tokenizer_handle, handle_kind::tokenizer> {
public:
    tokenizer_handle(const host_memory& memory, tokenizer&& from) : handle(memory), words(std::move(from)) {}
    const tokenizer words;
};

// ---- opening ---------------------------------------------------------------------------------------------------------------------

struct model_choices {
    host_memory memory;
    bool copy_file = false;
    config_options config{};

    [[nodiscard]] opening_options opening() const {
        opening_options options;
        options.config = config;
        options.repack.memory = memory.source();
        return options;
    }
};

[[nodiscard]] inline outcome read_model_options(const phi4flash_model_options* from, model_choices& to) {
    phi4flash_model_options o;
    if (outcome ok = read_optional(from, o, "options"); !ok) return ok;
    if (outcome ok = check_choice(o.copy_file, 2, "options.copy_file"); !ok) return ok;
    if (outcome ok = check_choice(o.ignore_unknown_keys, 2, "options.ignore_unknown_keys"); !ok) return ok;
    if (outcome ok = check_reserved(o.reserved, "options.reserved"); !ok) return ok;
    to.copy_file = o.copy_file != 0;
    to.config.ignore_unknown_keys = o.ignore_unknown_keys != 0;
    return read_allocator(o.allocator, host_memory(), to.memory);
}

/// Binds the model in its place: views point into the files, which must not move afterwards but as a whole.
[[nodiscard]] inline outcome finish_model(const host_memory& memory, result<model_files> files, std::vector<memory_block> copies,
                                          phi4flash_model** out) {
    if (!files) return files.error();
    auto bound = model_type::bind(*files, files->config(), memory.source());
    if (!bound) return bound.error();
    auto made = make_handle<model_handle>(memory, std::move(copies), *std::move(files), *std::move(bound));
    if (!made) return made.error();
    give_handle(out, *std::move(made));
    return {};
}

[[nodiscard]] inline outcome open_model(std::string_view path, const phi4flash_model_options* given, phi4flash_model** out) {
    model_choices choices;
    if (outcome ok = read_model_options(given, choices); !ok) return ok;
    if (path.find('\0') != std::string_view::npos) return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "path: there is a NUL in it");
#if defined(_WIN32)  // elsewhere names of files may be any bytes
    if (const std::size_t good = valid_utf8_prefix(path); good != path.size())
        return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "path: want UTF-8, have the byte 0x%02X at offset %zu",
                               static_cast<unsigned>(static_cast<unsigned char>(path[good])), good);
#endif
    opening_options options = choices.opening();
    options.mapping.copy = choices.copy_file;
    return finish_model(choices.memory, model_files::open(from_utf8(path), options), {}, out);
}

[[nodiscard]] inline outcome open_model_files(const phi4flash_file* files, std::size_t count, const phi4flash_model_options* given,
                                              phi4flash_model** out) {
    model_choices choices;
    host_files of_host;
    if (outcome ok = read_model_options(given, choices); !ok) return ok;
    if (outcome ok = of_host.list(files, count); !ok) return ok;
    if (outcome ok = of_host.read(choices.memory); !ok) return ok;
    auto opened = model_files::from_memory(of_host.as_model(), choices.opening());
    return finish_model(choices.memory, std::move(opened), of_host.take_copies(), out);
}

[[nodiscard]] inline phi4flash_model_info info_of(const model_handle& m) {
    phi4flash_model_info info{};
    info.has_tokenizer = m.source.has_tokenizer() ? 1 : 0;
    const sambay_shape shape = m.weights.shape().shape();
    info.vocabulary = shape.vocab;
    info.layers = shape.n_layers;
    info.width = shape.d_model;
    info.window = shape.window;
    info.weight_bytes = bytes_of_tensors(m.source.tensors());
    info.owned_bytes = m.owned_bytes();
    info.fingerprint = m.fingerprint().value;
    return info;
}

}  // namespace c_api
PHI4FLASH_END
