#pragma once
/// Models and tokenizers: the handles that never change, and text.
#include "model_source.hpp"

#include <atomic>

PHI4FLASH_BEGIN
namespace c_api {

using model_type = model<any_sambay>;

class model_handle : public handle<model_handle, handle_kind::model> {
public:
    model_handle(const host_memory& memory, model_source&& from, model_type&& bound)
        : handle(memory), source(std::move(from)), weights(std::move(bound)) {}

    /// Computed once, by whoever asks first; two at once compute the same.
    [[nodiscard]] weights_fingerprint fingerprint() const {
        if (!known_.load(std::memory_order_acquire)) {
            fingerprint_.store(fingerprint_of(source, weights).value, std::memory_order_relaxed);
            known_.store(true, std::memory_order_release);
        }
        return {fingerprint_.load(std::memory_order_relaxed)};
    }

    const model_source source;
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
};

[[nodiscard]] inline outcome read_model_options(const phi4flash_model_options* from, model_choices& to) {
    phi4flash_model_options o;
    if (outcome ok = read_optional(from, o, "options"); !ok) return ok;
    if (outcome ok = check_choice(o.copy_file, 2, "options.copy_file"); !ok) return ok;
    if (outcome ok = check_choice(o.ignore_unknown_keys, 2, "options.ignore_unknown_keys"); !ok) return ok;
    to.copy_file = o.copy_file != 0;
    to.config.ignore_unknown_keys = o.ignore_unknown_keys != 0;
    return read_allocator(o.allocator, host_memory(), to.memory);
}

/// Binds the model in its place: views point into the source, which must not move afterwards but as a whole.
[[nodiscard]] inline outcome finish_model(const host_memory& memory, model_source&& source, phi4flash_model** out) {
    auto bound = model_type::bind(source, source.config(), memory.source());
    if (!bound) return bound.error();
    auto made = make_handle<model_handle>(memory, std::move(source), *std::move(bound));
    if (!made) return made.error();
    give_handle(out, *std::move(made));
    return {};
}

[[nodiscard]] inline outcome open_model(std::string_view path, const phi4flash_model_options* given, phi4flash_model** out) {
    model_choices choices;
    if (outcome ok = read_model_options(given, choices); !ok) return ok;
    if (path.find('\0') != std::string_view::npos) return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "path: there is a NUL in it");
    opening_options options;
    options.mapping.copy = choices.copy_file;
    options.config = choices.config;
    options.repack.memory = choices.memory.source();
    auto files = model_files::open(from_utf8(path), options);
    if (!files) return files.error();
    return finish_model(choices.memory, model_source(*std::move(files)), out);
}

/// A file in memory: the host's own where it can be used in place, else a copy, which is added to `copies`.
[[nodiscard]] inline outcome read_file_of_host(const phi4flash_file& f, std::size_t i, const host_memory& memory, std::vector<memory_block>& copies,
                                               named_bytes& to) {
    std::string_view name;
    if (outcome ok = read_text(f.name, f.name_length, name, "files[i].name"); !ok) return ok;
    to.name.assign(name);
    if (f.bytes == 0) return outcome::failed(PHI4FLASH_FILE_EMPTY, "file %zu: it has no bytes", i);
    if (f.bytes > static_cast<std::uint64_t>(PTRDIFF_MAX))
        return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "file %zu: %llu bytes are more than there can be in memory", i,
                               static_cast<unsigned long long>(f.bytes));
    if ((f.data == nullptr) == (f.read == nullptr))
        return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "file %zu: want data or a reader, have %s", i, f.data == nullptr ? "neither" : "both");
    const auto bytes = static_cast<std::size_t>(f.bytes);
    const bool in_place = f.data != nullptr && reinterpret_cast<std::uintptr_t>(f.data) % gguf_host_alignment == 0;
    if (in_place) {
        to.bytes = {static_cast<const std::byte*>(f.data), bytes};
        return {};
    }
    auto block = memory.take_block(bytes, "copy of a file");
    if (!block) return block.error();
    std::byte* const place = block->bytes().data();
    copies.push_back(*std::move(block));
    to.bytes = {place, bytes};
    if (f.data != nullptr) {
        std::memcpy(place, f.data, bytes);
        return {};
    }
    constexpr std::size_t piece = std::size_t{64} << 20;
    for (std::size_t at = 0; at < bytes; at += piece) {
        const std::size_t n = (std::min)(piece, bytes - at);
        if (const std::int32_t answer = f.read(f.user, at, place + at, n); answer != 0)
            return outcome::failed(PHI4FLASH_HOST_FAILED, "file %zu: its reader answered %ld for %zu bytes from byte %zu on", i,
                                   static_cast<long>(answer), n, at);
    }
    return {};
}

[[nodiscard]] inline outcome open_model_files(const phi4flash_file* files, std::size_t count, const phi4flash_model_options* given,
                                              phi4flash_model** out) {
    constexpr std::size_t most = 10000;
    model_choices choices;
    if (outcome ok = read_model_options(given, choices); !ok) return ok;
    if (files == nullptr) return missing("files");
    if (count == 0 || count > most) return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "files: want 1 to %zu, have %zu", most, count);
    std::vector<memory_block> copies;
    std::vector<named_bytes> named(count);
    for (std::size_t i = 0; i < count; ++i) {
        phi4flash_file file;
        if (outcome ok = read_element(files, i, file, "file"); !ok) return ok;
        if (outcome ok = read_file_of_host(file, i, choices.memory, copies, named[i]); !ok) return ok;
    }
    auto opened = memory_files::open(named, choices.config, {.memory = choices.memory.source()});
    if (!opened) return opened.error();
    return finish_model(choices.memory, model_source(*std::move(opened), std::move(copies)), out);
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
    info.owned_bytes = m.source.owned_bytes() + m.weights.parameter_bytes();
    info.fingerprint = m.fingerprint().value;
    return info;
}

}  // namespace c_api
PHI4FLASH_END
