#pragma once
/// Sessions: one K/V type each, chosen when they are made. Snapshots.
#include "model.hpp"

#include <variant>

PHI4FLASH_BEGIN
namespace c_api {

/// In the order of PHI4FLASH_KV_*.
template <template <class> class Of>
using one_of_each_kv = std::variant<Of<bf16>, Of<float>, Of<kv_int8>>;
inline constexpr std::uint32_t kv_types = 3;

template <class Kv>
using session_type = session<any_sambay, Kv>;
using any_session = one_of_each_kv<session_type>;

/// `work(std::type_identity<Kv>)` with the type that the caller chose.
template <class Work>
auto with_kv(std::uint32_t kv_type, Work&& work) {
    switch (kv_type) {
        case PHI4FLASH_KV_F32: return work(std::type_identity<float>());
        case PHI4FLASH_KV_INT8: return work(std::type_identity<kv_int8>());
        default: return work(std::type_identity<bf16>());
    }
}

[[nodiscard]] constexpr std::uint32_t kv_type_of(kv_format kv) {
    switch (kv) {
        case kv_format::f32: return PHI4FLASH_KV_F32;
        case kv_format::int8: return PHI4FLASH_KV_INT8;
        case kv_format::bf16: break;
    }
    return PHI4FLASH_KV_BF16;
}

[[nodiscard]] inline outcome same_kv(std::uint32_t want, std::uint32_t have, const char* whose) {
    if (want == have) return {};
    constexpr const char* names[] = {"bf16", "f32", "int8"};
    return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "%s: its keys and values are %s, want %s: kv_type must be the same", whose, names[have],
                           names[want]);
}

class session_handle : public handle<session_handle, handle_kind::session> {
public:
    session_handle(const host_memory& memory, const ref<model_handle>& model, const session_options& options, memory_block&& block,
                   any_session&& made)
        : handle(memory), of(model), how(options), place_(std::move(block)), state(std::move(made)) {}

    [[nodiscard]] std::uint32_t kv_type() const { return static_cast<std::uint32_t>(state.index()); }
    [[nodiscard]] std::size_t bytes() const {
        return std::visit([&]<class S>(const S&) { return S::bytes(of->weights, how); }, state);
    }

    const ref<model_handle> of;
    const session_options how;

private:
    memory_block place_;

public:
    any_session state;
};

struct session_choices {
    std::uint32_t kv_type = 0;
    session_options options{};
    host_memory memory;
};

[[nodiscard]] inline outcome read_session_options(const phi4flash_session_options* from, const host_memory& memory, session_choices& to) {
    phi4flash_session_options o;
    if (outcome ok = read_struct(from, o, "options"); !ok) return ok;
    if (outcome ok = check_choice(o.kv_type, kv_types, "options.kv_type"); !ok) return ok;
    to.kv_type = o.kv_type;
    to.options = {.context = clamped(o.context), .undo = clamped(o.undo)};
    if (outcome ok = with_kv(to.kv_type, [&]<class Kv>(std::type_identity<Kv>) -> outcome { return session_type<Kv>::refusal(to.options); }); !ok)
        return ok;
    return read_allocator(o.allocator, memory, to.memory);
}

[[nodiscard]] inline std::size_t session_bytes(const model_handle& m, const session_choices& how) {
    return with_kv(how.kv_type, [&]<class Kv>(std::type_identity<Kv>) { return session_type<Kv>::bytes(m.weights, how.options); });
}

[[nodiscard]] inline outcome make_session(const ref<model_handle>& m, const session_choices& how, ref<session_handle>& out) {
    // Huge pages are the library's own business; a host's allocator has them or not.
    memory_block place;
    if (!how.memory.is_heap()) {
        auto block = how.memory.take_block(session_bytes(*m, how), "session");
        if (!block) return block.error();
        place = *std::move(block);
    }
    return with_kv(how.kv_type, [&]<class Kv>(std::type_identity<Kv>) -> outcome {
        auto made = how.memory.is_heap() ? session_type<Kv>::create(m->weights, how.options)
                                         : session_type<Kv>::create_in(place.bytes(), m->weights, how.options);
        if (!made) return made.error();
        auto h = make_handle<session_handle>(how.memory, m, how.options, std::move(place), any_session(*std::move(made)));
        if (!h) return h.error();
        out = *std::move(h);
        return {};
    });
}

/// Both of one model and K/V type. Then `work(to, from)` with the sessions.
[[nodiscard]] inline outcome copy_session(session_handle& to, const session_handle& from) {
    if (to.of.get() != from.of.get()) return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "from: want a session of the same model");
    if (outcome ok = same_kv(to.kv_type(), from.kv_type(), "from"); !ok) return ok;
    return std::visit([&]<class S>(S& s) -> outcome { return s.copy_from(*std::get_if<S>(&from.state)); }, to.state);
}

[[nodiscard]] inline phi4flash_session_info info_of(const session_handle& s) {
    phi4flash_session_info info{};
    info.kv_type = s.kv_type();
    info.bytes = s.bytes();
    std::visit(
        [&](const auto& state) {
            info.position = state.position();
            info.oldest_position = state.oldest_position();
            info.context = state.context();
            info.undo = state.undo();
            info.busy = state.busy() ? 1 : 0;
        },
        s.state);
    return info;
}

// ---- snapshots -------------------------------------------------------------------------------------------------------------------

[[nodiscard]] inline std::size_t bytes_of_snapshot(const session_handle& s, std::uint64_t undo) {
    return std::visit([&](const auto& state) { return snapshot_bytes(state, clamped(undo)); }, s.state);
}

[[nodiscard]] inline outcome save_to_memory(const session_handle& s, std::uint64_t undo, void* memory, std::size_t capacity, std::size_t* written) {
    *written = bytes_of_snapshot(s, undo);
    if (*written > capacity)
        return outcome::failed(PHI4FLASH_BUFFER_TOO_SMALL, "memory: want room for %zu bytes, have %zu", *written, capacity);
    const std::span<std::byte> out(static_cast<std::byte*>(memory), capacity);
    return std::visit([&](const auto& state) -> outcome { return save_snapshot(state, s.of->fingerprint(), out, clamped(undo)); }, s.state);
}

using write_piece = std::int32_t (*)(void* user, const void* data, std::size_t bytes);
using read_piece = std::int32_t (*)(void* user, void* into, std::size_t bytes);

/// What a host's callback answered, if it was no.
struct host_answer {
    std::int32_t answer = 0;
    bool operator()(std::int32_t a) {
        answer = a;
        return a == 0;
    }
    [[nodiscard]] outcome instead_of(const status& done, const char* whose) const {
        if (answer == 0) return done;
        return outcome::failed(PHI4FLASH_HOST_FAILED, "%s answered %ld: %s", whose, static_cast<long>(answer), done.error().message());
    }
};

[[nodiscard]] inline outcome save_to_host(const session_handle& s, std::uint64_t undo, write_piece write, void* user) {
    host_answer answer;
    const auto sink = [&](std::span<const std::byte> piece) { return answer(write(user, piece.data(), piece.size())); };
    return std::visit(
        [&](const auto& state) { return answer.instead_of(save_snapshot(state, s.of->fingerprint(), sink, clamped(undo)), "write"); }, s.state);
}

[[nodiscard]] inline outcome restore_from_memory(session_handle& s, std::span<const std::byte> bytes) {
    return std::visit([&](auto& state) -> outcome { return restore_snapshot(state, s.of->fingerprint(), bytes); }, s.state);
}

[[nodiscard]] inline outcome restore_from_host(session_handle& s, read_piece read, void* user) {
    host_answer answer;
    const auto source = [&](std::span<std::byte> piece) { return answer(read(user, piece.data(), piece.size())); };
    return std::visit([&](auto& state) { return answer.instead_of(restore_snapshot(state, s.of->fingerprint(), source), "read"); }, s.state);
}

[[nodiscard]] inline phi4flash_snapshot_info info_of(const snapshot_info& s) {
    phi4flash_snapshot_info info{};
    info.kv_type = kv_type_of(s.kv);
    info.position = s.position;
    info.oldest_position = s.oldest_position;
    info.bytes = s.bytes;
    info.fingerprint = s.weights.value;
    info.vocabulary = s.shape.vocab;
    info.layers = s.shape.n_layers;
    info.width = s.shape.d_model;
    return info;
}

}  // namespace c_api
PHI4FLASH_END
