#pragma once
/// Prefix caches, of one K/V type each.
#include "session.hpp"

PHI4FLASH_BEGIN
namespace c_api {

template <class Kv>
using cache_type = prefix_cache<any_sambay, Kv>;
using any_cache = one_of_each_kv<cache_type>;

class cache_handle : public handle<cache_handle, handle_kind::prefix_cache> {
public:
    cache_handle(const host_memory& memory, const ref<model_handle>& model, memory_block&& block, any_cache&& made)
        : handle(memory), of(model), block_(std::move(block)), cache(std::move(made)) {}

    [[nodiscard]] std::uint32_t kv_type() const { return static_cast<std::uint32_t>(cache.index()); }

    const ref<model_handle> of;

private:
    memory_block block_;

public:
    any_cache cache;
};

[[nodiscard]] inline outcome cache_bytes(const model_handle& m, std::uint32_t kv_type, std::uint64_t texts, std::uint64_t tokens,
                                         std::uint64_t* bytes) {
    if (outcome ok = check_choice(kv_type, kv_types, "kv_type"); !ok) return ok;
    constexpr std::uint64_t most_texts = 1u << 20;
    if (texts == 0 || texts > most_texts || tokens == 0 || tokens > max_extent)
        return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "want 1 to %llu texts of 1 to %zu tokens, have %llu of %llu",
                               static_cast<unsigned long long>(most_texts), max_extent, static_cast<unsigned long long>(texts),
                               static_cast<unsigned long long>(tokens));
    return with_kv(kv_type, [&]<class Kv>(std::type_identity<Kv>) -> outcome {
        const std::uint64_t one = cache_type<Kv>::bytes_for(m.weights, 1, static_cast<std::size_t>(tokens));
        if (one * texts > static_cast<std::uint64_t>(PTRDIFF_MAX))
            return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "%llu texts of %llu tokens are more than there can be in memory",
                                   static_cast<unsigned long long>(texts), static_cast<unsigned long long>(tokens));
        *bytes = cache_type<Kv>::bytes_for(m.weights, static_cast<std::size_t>(texts), static_cast<std::size_t>(tokens));
        return {};
    });
}

[[nodiscard]] inline outcome make_cache(const ref<model_handle>& m, const phi4flash_prefix_cache_options* from, phi4flash_prefix_cache** out) {
    phi4flash_prefix_cache_options o;
    if (outcome ok = read_struct(from, o, "options"); !ok) return ok;
    if (outcome ok = check_choice(o.kv_type, kv_types, "options.kv_type"); !ok) return ok;
    host_memory memory;
    if (outcome ok = read_allocator(o.allocator, m->memory(), memory); !ok) return ok;
    return with_kv(o.kv_type, [&]<class Kv>(std::type_identity<Kv>) -> outcome {
        const std::size_t least = cache_type<Kv>::bytes_for(m->weights, 1, m->weights.shape().window());
        if (o.bytes < least)
            return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "options.bytes: want at least %zu, have %llu", least,
                                   static_cast<unsigned long long>(o.bytes));
        auto block = memory.take_block(clamped(o.bytes), "prefix cache");
        if (!block) return block.error();
        auto made = cache_type<Kv>::create_in(block->bytes().first(clamped(o.bytes)), m->weights);
        if (!made) return made.error();
        auto h = make_handle<cache_handle>(memory, m, *std::move(block), any_cache(*std::move(made)));
        if (!h) return h.error();
        give_handle(out, *std::move(h));
        return {};
    });
}

/// `work(cache, session)` where both are of one model and K/V type.
template <class Work>
[[nodiscard]] outcome with_cache(cache_handle& c, session_handle& s, Work&& work) {
    if (c.of.get() != s.of.get()) return outcome::failed(PHI4FLASH_INVALID_ARGUMENT, "session: want one of the model that the cache is of");
    if (outcome ok = same_kv(c.kv_type(), s.kv_type(), "session"); !ok) return ok;
    return with_kv(c.kv_type(), [&]<class Kv>(std::type_identity<Kv>) -> outcome {
        return work(*std::get_if<cache_type<Kv>>(&c.cache), *std::get_if<session_type<Kv>>(&s.state));
    });
}

[[nodiscard]] inline phi4flash_prefix_cache_info info_of(const cache_handle& c) {
    phi4flash_prefix_cache_info info{};
    info.kv_type = c.kv_type();
    std::visit(
        [&](const auto& cache) {
            info.entries = cache.size();
            info.bytes = cache.budget();
            info.used_bytes = cache.bytes_used();
        },
        c.cache);
    return info;
}

}  // namespace c_api
PHI4FLASH_END
