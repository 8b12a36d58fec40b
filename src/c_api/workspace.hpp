#pragma once
/// Workspaces: K/V type, threads and kernels, chosen when they are made. Reading tokens at once.
#include "session.hpp"

#include <optional>

PHI4FLASH_BEGIN
namespace c_api {

template <class Kv>
using workspace_type = workspace<any_sambay, Kv>;
using any_workspace = one_of_each_kv<workspace_type>;

/// The host's threads, as the library asks for them.
struct host_executor {
    phi4flash_executor host{};
    [[nodiscard]] std::size_t concurrency() const { return host.concurrency; }
    void run(std::size_t count, std::size_t grain, void (*body)(void*, std::size_t, std::size_t), void* context) const {
        host.parallel_for(host.user, count, grain, body, context);
    }
};
static_assert(executor<host_executor>);

class workspace_handle : public handle<workspace_handle, handle_kind::workspace> {
public:
    workspace_handle(const host_memory& memory, const ref<model_handle>& model) : handle(memory), of(model) {}

    [[nodiscard]] std::uint32_t kv_type() const { return static_cast<std::uint32_t>(place->index()); }
    [[nodiscard]] std::size_t threads() const { return pool ? pool->concurrency() : host ? host->concurrency() : 1; }

    const ref<model_handle> of;
    std::optional<host_executor> host;  // one of the two, or none; in place before `place`, which points here
    std::optional<thread_pool> pool;
    memory_block block;
    std::size_t bytes = 0;
    workspace_options room{};  // what it was made with, threads aside
    std::optional<any_workspace> place;  // always, once it was made
};

struct workspace_choices {
    std::uint32_t kv_type = 0;
    std::uint32_t threads = 0;
    std::optional<phi4flash_executor> host;
    workspace_options options{};
    host_memory memory;
};

[[nodiscard]] inline outcome read_executor(const phi4flash_executor* from, workspace_choices& to) {
    if (from == nullptr) return {};
    phi4flash_executor e;
    if (outcome ok = read_struct(from, e, "executor"); !ok) return ok;
    if (e.parallel_for == nullptr) return missing("executor.parallel_for");
    if (e.concurrency == 0) return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "executor.concurrency: want at least 1, have 0");
    if (to.threads != 0)
        return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "options.threads: want 0 beside an executor, have %lu",
                               static_cast<unsigned long>(to.threads));
    to.host = e;
    return {};
}

[[nodiscard]] inline outcome read_workspace_options(const phi4flash_workspace_options* from, const host_memory& memory, workspace_choices& to) {
    phi4flash_workspace_options o;
    if (outcome ok = read_optional(from, o, "options"); !ok) return ok;
    if (outcome ok = check_choice(o.kv_type, kv_types, "options.kv_type"); !ok) return ok;
    to.kv_type = o.kv_type;
    to.threads = o.threads;
    if (o.chunk != 0) to.options.chunk = o.chunk;
    if (o.states != 0) to.options.states = o.states;
    if (o.logits != 0) to.options.logits = o.logits;
    if (outcome ok = read_executor(o.executor, to); !ok) return ok;
    std::string_view name;
    if (outcome ok = read_text(o.kernels, o.kernels_length, name, "options.kernels"); !ok) return ok;
    if (!name.empty()) {
        const auto kernels = kernels_named(name);
        if (!kernels) return kernels.error();
        to.options.kernels = *kernels;
    }
    if (outcome ok = workspace_type<bf16>::refusal(to.options); !ok) return ok;
    return read_allocator(o.allocator, memory, to.memory);
}

[[nodiscard]] inline std::size_t workspace_bytes(const model_handle& m, const workspace_choices& how) {
    return with_kv(how.kv_type, [&]<class Kv>(std::type_identity<Kv>) { return workspace_type<Kv>::bytes(m.weights, how.options); });
}

[[nodiscard]] inline outcome take_threads(const workspace_choices& how, workspace_handle& w) {
    if (how.host) w.host.emplace(host_executor{*how.host});
    if (how.threads <= 1) return {};
    auto pool = thread_pool::create(how.threads == PHI4FLASH_ALL_CORES ? 0 : how.threads);
    if (!pool) return pool.error();
    w.pool.emplace(*std::move(pool));
    return {};
}

[[nodiscard]] inline outcome make_workspace(const ref<model_handle>& m, const workspace_choices& how, phi4flash_workspace** out) {
    auto h = make_handle<workspace_handle>(how.memory, m);
    if (!h) return h.error();
    workspace_handle& w = **h;
    if (outcome ok = take_threads(how, w); !ok) return ok;
    workspace_options options = how.options;
    if (w.host) options.threads = *w.host;
    if (w.pool) options.threads = *w.pool;
    w.bytes = workspace_bytes(*m, how);
    w.room = how.options;
    // Huge pages are the library's own business; a host's allocator has them or not.
    if (!how.memory.is_heap()) {
        auto block = how.memory.take_block(w.bytes, "workspace");
        if (!block) return block.error();
        w.block = *std::move(block);
    }
    const outcome made = with_kv(how.kv_type, [&]<class Kv>(std::type_identity<Kv>) -> outcome {
        auto work = how.memory.is_heap() ? workspace_type<Kv>::create(m->weights, options)
                                         : workspace_type<Kv>::create_in(w.block.bytes(), m->weights, options);
        if (!work) return work.error();
        w.place.emplace(*std::move(work));
        return {};
    });
    if (!made) return made;
    give_handle(out, *std::move(h));
    return {};
}

[[nodiscard]] inline phi4flash_workspace_info info_of(const workspace_handle& w) {
    phi4flash_workspace_info info{};
    info.kv_type = w.kv_type();
    info.threads = static_cast<std::uint32_t>(w.threads());
    info.bytes = w.bytes;
    std::visit(
        [&](const auto& work) {
            info.chunk = static_cast<std::uint32_t>(work.chunk());
            info.kernels = work.kernels().name;
        },
        *w.place);
    return info;
}

/// Whether a session can be read with this workspace.
[[nodiscard]] inline outcome belong_together(const workspace_handle& w, const session_handle& s) {
    if (w.of.get() != s.of.get()) return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "session: want one of the model that the workspace is of");
    return same_kv(w.kv_type(), s.kv_type(), "session");
}

[[nodiscard]] inline outcome read_tokens(session_handle& s, workspace_handle& w, std::span<const std::int32_t> tokens, const float** logits) {
    if (outcome ok = belong_together(w, s); !ok) return ok;
    return with_kv(w.kv_type(), [&]<class Kv>(std::type_identity<Kv>) -> outcome {
        const auto done = prefill(w.of->weights, *std::get_if<session_type<Kv>>(&s.state), *std::get_if<workspace_type<Kv>>(&*w.place), tokens);
        if (!done) return done.error();
        if (logits != nullptr) *logits = done->data();
        return {};
    });
}

}  // namespace c_api
PHI4FLASH_END
