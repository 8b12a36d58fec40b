/// Calls of the C API in any order, with arguments that are missing, wrong, or of another kind: every call ends with a code and, where it
/// fails, a sentence; handles that could not be made are NULL; nothing else happens. The host's memory runs out now and then.
#include "fuzz.hpp"
#include "tiny.hpp"

#include <phi4flash/phi4flash.h>

#include <cstdlib>
#include <string>
#include <tuple>
#include <vector>

namespace c_api_entry {

/// Memory of a host's that has room for so many blocks more.
struct allocator {
    std::size_t left = 0;
    std::size_t blocks = 0;
    static void* take(void* self, std::size_t bytes, std::size_t alignment) {
        auto* const a = static_cast<allocator*>(self);
        if (a->left == 0 || bytes > (std::size_t{16} << 20)) return nullptr;
        --a->left;
        ++a->blocks;
        return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    }
    static void give_back(void* self, void* memory, std::size_t, std::size_t) {
        --static_cast<allocator*>(self)->blocks;
        std::free(memory);
    }
};

/// A struct of the caller's in memory with room behind it, whose size may be an older or a newer one.
template <class T>
struct roomy {
    T value{};
    unsigned char behind[32] = {};
};

const std::string& tiny_file() {
    static const std::string file = fuzz::tiny_model(
        {.d_model = 16, .n_layers = 4, .d_ff = 8, .n_heads = 2, .n_kv_heads = 2, .vocab = 272, .window = 3, .d_inner = 8, .d_state = 2, .d_conv = 2,
         .dt_rank = 1},
        phi4flash::dtype::f32, 3);
    return file;
}

const std::string& tiny_json() {
    static const std::string json = fuzz::tiny_tokenizer();
    return json;
}

/// A model and a tokenizer that every input finds open: opening takes a hundred times as long as most calls.
struct opened {
    phi4flash_model* model = nullptr;
    phi4flash_tokenizer* words = nullptr;

    static const opened& once() {
        static const opened all;
        return all;
    }

private:
    opened() {
        phi4flash_file file{};
        file.size = sizeof file;
        file.data = tiny_file().data();
        file.bytes = tiny_file().size();
        PHI4FLASH_FUZZ_CHECK(phi4flash_model_open_files(&file, 1, nullptr, &model, nullptr) == PHI4FLASH_OK);
        PHI4FLASH_FUZZ_CHECK(phi4flash_tokenizer_open_json(tiny_json().data(), tiny_json().size(), nullptr, &words, nullptr) == PHI4FLASH_OK);
    }
};

class caller {
public:
    explicit caller(fuzz::input& in) : in_(in) {
        host_.left = 1000;
        allocator_ = {sizeof allocator_, 0, &host_, &allocator::take, &allocator::give_back};
        std::get<pool<phi4flash_model>>(pools_).push_back(opened::once().model);
        std::get<pool<phi4flash_tokenizer>>(pools_).push_back(opened::once().words);
    }
    ~caller() {
        std::apply([this](auto&... all) { (destroy_all(all), ...); }, pools_);
        PHI4FLASH_FUZZ_CHECK(host_.blocks == 0);
    }
    caller(const caller&) = delete;
    caller& operator=(const caller&) = delete;

    void call();

private:
    template <class H>
    using pool = std::vector<H*>;

    // ---- arguments ----
    bool chance(unsigned one_in) { return in_.byte() % one_in == 1; }
    std::uint64_t number() {
        constexpr std::uint64_t odd[] = {0, 1, 2, 3, 4, 8, 16, 64, (1u << 24) + 1, UINT32_MAX, UINT64_MAX};
        return odd[in_.below(std::size(odd))];
    }
    std::uint32_t small() { return static_cast<std::uint32_t>(number()); }
    /// A handle of that kind, or none, or now and then one of another kind.
    template <class H>
    H* handle() {
        const std::uint8_t which = in_.byte();
        if (which == 255) return reinterpret_cast<H*>(any_handle());
        const pool<H>& all = std::get<pool<H>>(pools_);
        return all.empty() ? nullptr : all[which % all.size()];
    }
    void* any_handle() {
        void* found = nullptr;
        std::apply([&](auto&... all) { ((found = all.empty() ? found : all.back()), ...); }, pools_);
        return found;
    }
    /// Its own size mostly; an older one, one that cannot be, or, where there is room behind it, a newer one.
    template <class T>
    void size(T& t, std::uint32_t room = 0) {
        const std::uint8_t how = in_.byte();
        t.size = how < 200 ? sizeof(T) : how < 230 ? std::uint32_t{how % 16u} * 8u % (sizeof(T) + 1) : how < 250 ? sizeof(T) + room : 5000u + how;
    }
    /// NULL now and then.
    template <class T>
    T* maybe(T* p) {
        return chance(16) ? nullptr : p;
    }
    std::vector<std::int32_t> tokens() {
        std::vector<std::int32_t> list(in_.below(24));
        for (auto& t : list) t = chance(32) ? static_cast<std::int32_t>(in_.word()) : in_.byte();
        return list;
    }
    phi4flash_error* error() { return chance(16) ? nullptr : &error_; }

    // ---- outcomes ----
    phi4flash_code check(phi4flash_code code, const phi4flash_error* told) {
        PHI4FLASH_FUZZ_CHECK(std::strcmp(phi4flash_code_name(code), "unknown") != 0);
        if (told == nullptr) return code;
        PHI4FLASH_FUZZ_CHECK(told->code == code);
        const auto* const end = static_cast<const char*>(std::memchr(told->message, 0, sizeof told->message));
        PHI4FLASH_FUZZ_CHECK(end != nullptr && (code == PHI4FLASH_OK) == (end == told->message));
        return code;
    }
    /// Makes a handle by `make(out, error)`.
    template <class H, class Make>
    void made(Make&& make) {
        pool<H>& all = std::get<pool<H>>(pools_);
        H* out = reinterpret_cast<H*>(this);
        const bool asked = !chance(32);
        phi4flash_error* const told = error();
        const phi4flash_code code = check(make(asked ? &out : nullptr, told), told);
        if (!asked) PHI4FLASH_FUZZ_CHECK(code == PHI4FLASH_INVALID_ARGUMENT);
        else PHI4FLASH_FUZZ_CHECK((code == PHI4FLASH_OK) == (out != nullptr));
        if (asked && out != nullptr) {
            all.push_back(out);
            if (all.size() > 4) destroy_one(all, 0);
        }
    }
    template <class Call>
    phi4flash_code plain(Call&& call) {
        phi4flash_error* const told = error();
        return check(call(told), told);
    }
    /// `ask(info)` with a struct of some size; nothing behind that size is written.
    template <class T, class Ask>
    void info(Ask&& ask) {
        roomy<T> r;
        size(r.value, 16);
        const std::uint32_t had = r.value.size;
        (void)plain([&](phi4flash_error* e) { return ask(maybe(&r.value), e); });
        PHI4FLASH_FUZZ_CHECK(r.value.size == had);
    }

    static void destroy(phi4flash_model* h) {
        if (h != opened::once().model) phi4flash_model_destroy(h);
    }
    static void destroy(phi4flash_tokenizer* h) {
        if (h != opened::once().words) phi4flash_tokenizer_destroy(h);
    }
    static void destroy(phi4flash_session* h) { phi4flash_session_destroy(h); }
    static void destroy(phi4flash_workspace* h) { phi4flash_workspace_destroy(h); }
    static void destroy(phi4flash_generation* h) { phi4flash_generation_destroy(h); }
    static void destroy(phi4flash_scheduler* h) { phi4flash_scheduler_destroy(h); }
    static void destroy(phi4flash_prefix_cache* h) { phi4flash_prefix_cache_destroy(h); }
    template <class H>
    void destroy_one(pool<H>& all, std::size_t i) {
        if (all.empty()) return destroy(static_cast<H*>(nullptr));
        i %= all.size();
        destroy(all[i]);
        all.erase(all.begin() + static_cast<std::ptrdiff_t>(i));
    }
    template <class H>
    void destroy_all(pool<H>& all) {
        while (!all.empty()) destroy_one(all, 0);
    }

    // ---- structs ----
    const phi4flash_allocator* memory() {
        host_.left = chance(4) ? in_.below(8) : 1000;
        return chance(2) ? &allocator_ : nullptr;
    }
    phi4flash_session_options session_options() {
        phi4flash_session_options o{};
        o.context = chance(4) ? number() : 32;
        o.undo = chance(4) ? number() : in_.below(3);
        o.kv_type = in_.below(4);
        o.allocator = memory();
        size(o);
        return o;
    }
    phi4flash_generation_options generation_options() {
        phi4flash_generation_options o{};
        o.temperature = static_cast<float>(in_.below(5)) - 1.0f;
        o.top_p = static_cast<float>(in_.below(5)) * 0.5f;
        o.min_p = static_cast<float>(in_.below(5)) * 0.5f;
        o.repetition_penalty = static_cast<float>(in_.below(4)) - 0.5f;
        o.top_k = small();
        o.seed = in_.byte();
        o.max_tokens = in_.below(20);
        o.max_drafts = in_.below(4);
        o.drafts_always = in_.below(3);
        o.no_own_stops = in_.below(2);
        o.keep_special = in_.below(2);
        o.prompt_only = in_.below(2);
        o.max_prompt = chance(4) ? 16 : 0;
        stop_ids_ = tokens();
        o.stop_ids = maybe(stop_ids_.data());
        o.n_stop_ids = stop_ids_.size();
        stop_string_ = {"the", 3};
        o.stop_strings = maybe(&stop_string_);
        o.n_stop_strings = in_.below(2);
        size(o);
        return o;
    }
    phi4flash_budget budget() {
        phi4flash_budget b{};
        b.stop = [](void* self) -> std::int32_t { return static_cast<caller*>(self)->in_.byte() % 2; };
        b.user = this;
        size(b);
        return b;
    }

    fuzz::input& in_;
    int openings_ = 2;  ///< that this input may still have, so that its time goes into other calls
    phi4flash_error error_{};
    allocator host_;
    phi4flash_allocator allocator_{};
    std::vector<std::int32_t> stop_ids_;
    phi4flash_string stop_string_{};
    std::vector<unsigned char> saved_;
    std::tuple<pool<phi4flash_generation>, pool<phi4flash_scheduler>, pool<phi4flash_prefix_cache>, pool<phi4flash_workspace>,
               pool<phi4flash_session>, pool<phi4flash_tokenizer>, pool<phi4flash_model>>
        pools_;
};

void caller::call() {
    using model = phi4flash_model;
    using session = phi4flash_session;
    using words = phi4flash_tokenizer;
    using workspace = phi4flash_workspace;
    using generation = phi4flash_generation;
    using scheduler = phi4flash_scheduler;
    using cache = phi4flash_prefix_cache;
    switch (in_.below(38)) {
        case 0: {
            if (openings_-- <= 0) return;
            phi4flash_file file{};
            file.data = tiny_file().data();
            file.bytes = chance(16) ? number() % (tiny_file().size() + 1) : tiny_file().size();
            size(file);
            phi4flash_model_options o{};
            o.allocator = memory();
            o.ignore_unknown_keys = in_.below(3);
            size(o);
            return made<model>([&](model** out, phi4flash_error* e) {
                return phi4flash_model_open_files(maybe(&file), in_.below(8) == 1 ? 0 : 1, maybe(&o), out, e);
            });
        }
        case 1:
            if (openings_-- <= 0) return;
            return made<words>([&](words** out, phi4flash_error* e) {
                const std::string& json = tiny_json();
                return phi4flash_tokenizer_open_json(maybe(json.data()), chance(16) ? in_.below(4096) : json.size(), memory(), out, e);
            });
        case 2:
            return made<session>([&, o = session_options()](session** out, phi4flash_error* e) {
                return phi4flash_session_create(handle<model>(), maybe(&o), out, e);
            });
        case 3:
            return made<session>([&, o = session_options()](session** out, phi4flash_error* e) {
                return phi4flash_session_fork(handle<session>(), maybe(&o), out, e);
            });
        case 4: {
            phi4flash_workspace_options o{};
            o.kv_type = in_.below(4);
            o.chunk = chance(8) ? (number() > 64 ? UINT32_MAX : small()) : 8;
            o.threads = in_.below(2);
            o.states = in_.below(6);
            o.logits = in_.below(6);
            o.allocator = memory();
            o.kernels = chance(8) ? "scalar" : nullptr;
            o.kernels_length = o.kernels == nullptr ? 0 : in_.below(7);
            size(o);
            return made<workspace>([&](workspace** out, phi4flash_error* e) { return phi4flash_workspace_create(handle<model>(), &o, out, e); });
        }
        case 5: return made<generation>([&, o = generation_options()](generation** out, phi4flash_error* e) {
            return phi4flash_generation_create(handle<workspace>(), handle<words>(), maybe(&o), out, e);
        });
        case 6: {
            phi4flash_scheduler_options o{};
            o.requests = in_.below(5);
            o.prompt_rows = in_.below(9);
            size(o);
            return made<scheduler>([&](scheduler** out, phi4flash_error* e) {
                return phi4flash_scheduler_create(handle<workspace>(), handle<words>(), maybe(&o), out, e);
            });
        }
        case 7: {
            phi4flash_prefix_cache_options o{};
            o.kv_type = in_.below(4);
            o.bytes = in_.below(65536);
            o.allocator = memory();
            size(o);
            return made<cache>([&](cache** out, phi4flash_error* e) { return phi4flash_prefix_cache_create(handle<model>(), maybe(&o), out, e); });
        }
        case 8: {
            const std::size_t kind = in_.below(7), which = in_.byte();
            std::size_t i = 0;
            return std::apply([&](auto&... all) { ((i++ == kind ? destroy_one(all, which) : void()), ...); }, pools_);
        }
        case 9:
        case 10: {
            const auto prompt = tokens();
            (void)plain([&](phi4flash_error* e) {
                return phi4flash_generation_start(handle<generation>(), handle<session>(), maybe(prompt.data()), prompt.size(), e);
            });
            return;
        }
        case 11:
        case 12:
        case 13: {
            roomy<phi4flash_event> event;
            size(event.value, 16);
            const phi4flash_budget b = budget();
            const auto code =
                plain([&](phi4flash_error* e) { return phi4flash_generation_advance(handle<generation>(), maybe(&b), maybe(&event.value), e); });
            if (code == PHI4FLASH_OK && event.value.size >= sizeof(phi4flash_event))
                PHI4FLASH_FUZZ_CHECK(event.value.text[event.value.text_length] == '\0');
            return;
        }
        case 14: return (void)plain([&](phi4flash_error* e) { return phi4flash_generation_cancel(handle<generation>(), e); });
        case 15:
            return info<phi4flash_generation_info>([&](auto* i, phi4flash_error* e) {
                return phi4flash_generation_get_info(handle<generation>(), i, e);
            });
        case 16:
        case 17: {
            const auto prompt = tokens();
            const auto o = generation_options();
            std::uint64_t request = 77;
            return (void)plain([&](phi4flash_error* e) {
                return phi4flash_scheduler_submit(handle<scheduler>(), handle<session>(), maybe(prompt.data()), prompt.size(), maybe(&o),
                                                  maybe(&request), e);
            });
        }
        case 18:
        case 19: {
            const phi4flash_budget b = budget();
            std::uint32_t outcome = 0;
            return (void)plain([&](phi4flash_error* e) { return phi4flash_scheduler_tick(handle<scheduler>(), maybe(&b), maybe(&outcome), e); });
        }
        case 20: return info<phi4flash_event>([&](auto* i, phi4flash_error* e) { return phi4flash_scheduler_next_event(handle<scheduler>(), i, e); });
        case 21: return (void)plain([&](phi4flash_error* e) { return phi4flash_scheduler_cancel(handle<scheduler>(), number(), e); });
        case 22: return (void)plain([&](phi4flash_error* e) { return phi4flash_scheduler_cancel_all(handle<scheduler>(), e); });
        case 23:
            return info<phi4flash_scheduler_info>([&](auto* i, phi4flash_error* e) {
                return phi4flash_scheduler_get_info(handle<scheduler>(), i, e);
            });
        case 24: {
            const auto text = tokens();
            const float* logits = nullptr;
            return (void)plain([&](phi4flash_error* e) {
                return phi4flash_session_read(handle<session>(), handle<workspace>(), maybe(text.data()), text.size(), maybe(&logits), e);
            });
        }
        case 25: return (void)plain([&](phi4flash_error* e) { return phi4flash_session_rewind(handle<session>(), number(), e); });
        case 26: return (void)plain([&](phi4flash_error* e) { return phi4flash_session_reset(handle<session>(), e); });
        case 27: return (void)plain([&](phi4flash_error* e) { return phi4flash_session_copy(handle<session>(), handle<session>(), e); });
        case 28: {
            saved_.resize(chance(4) ? in_.below(4096) : 16384);
            std::size_t written = 0;
            const auto code = plain([&](phi4flash_error* e) {
                return phi4flash_session_save(handle<session>(), number(), saved_.data(), saved_.size(), maybe(&written), e);
            });
            saved_.resize(code == PHI4FLASH_OK ? written : 0);
            return;
        }
        case 29: {
            if (!saved_.empty() && chance(2)) saved_[in_.below(65536) % saved_.size()] ^= 1;
            return (void)plain([&](phi4flash_error* e) { return phi4flash_session_restore(handle<session>(), saved_.data(), saved_.size(), e); });
        }
        case 30: {
            std::span<const unsigned char> rest = saved_;
            const auto read = [](void* user, void* into, std::size_t bytes) -> std::int32_t {
                auto& from = *static_cast<std::span<const unsigned char>*>(user);
                if (bytes > from.size()) return 1;
                std::memcpy(into, from.data(), bytes);
                from = from.subspan(bytes);
                return 0;
            };
            return (void)plain([&](phi4flash_error* e) {
                return phi4flash_session_restore_from(handle<session>(), chance(16) ? nullptr : +read, &rest, e);
            });
        }
        case 31:
            return info<phi4flash_session_info>([&](auto* i, phi4flash_error* e) {
                return phi4flash_session_get_info(handle<session>(), i, e);
            });
        case 32: {
            const std::string_view text = in_.text(in_.below(64));
            std::int32_t ids[16];
            std::size_t count = 0;
            return (void)plain([&](phi4flash_error* e) {
                return phi4flash_tokenizer_encode(handle<words>(), maybe(text.data()), text.size(), in_.below(3), maybe(ids), in_.below(17),
                                                  maybe(&count), e);
            });
        }
        case 33: {
            const auto ids = tokens();
            char text[32];
            std::size_t length = 0;
            return (void)plain([&](phi4flash_error* e) {
                return phi4flash_tokenizer_decode(handle<words>(), maybe(ids.data()), ids.size(), in_.below(3), maybe(text), in_.below(33),
                                                  maybe(&length), e);
            });
        }
        case 34: {
            phi4flash_chat_message messages[2] = {};
            for (auto& m : messages) {
                size(m);
                m.role = "user";
                m.role_length = in_.below(6) == 1 ? 0 : 4;
                const std::string_view text = in_.text(in_.below(32));
                m.content = text.data();
                m.content_length = text.size();
                m.has_tools = in_.below(3);
            }
            messages[1].size = chance(8) ? messages[1].size : messages[0].size;
            // Elements are as far apart as the first says: two only of the size that they have here.
            const std::size_t n = messages[0].size == sizeof messages[0] ? 2 : 1;
            phi4flash_chat_options o{};
            o.chat_template = in_.below(3);
            o.markers = in_.below(3);
            o.closed = in_.below(3);
            size(o);
            std::int32_t ids[64];
            std::size_t count = 0;
            return (void)plain([&](phi4flash_error* e) {
                return phi4flash_tokenizer_encode_chat(handle<words>(), maybe(messages), n, maybe(&o), ids, in_.below(65), maybe(&count), e);
            });
        }
        case 35: {
            const auto text = tokens();
            std::size_t n = 0;
            switch (in_.below(4)) {
                case 0:
                    return (void)plain([&](phi4flash_error* e) {
                        return phi4flash_prefix_cache_keep(handle<cache>(), handle<session>(), maybe(text.data()), text.size(), e);
                    });
                case 1:
                    return (void)plain([&](phi4flash_error* e) {
                        return phi4flash_prefix_cache_find(handle<cache>(), maybe(text.data()), text.size(), maybe(&n), e);
                    });
                case 2:
                    return (void)plain([&](phi4flash_error* e) {
                        return phi4flash_prefix_cache_restore(handle<cache>(), handle<session>(), maybe(text.data()), text.size(), maybe(&n), e);
                    });
                default: return (void)plain([&](phi4flash_error* e) { return phi4flash_prefix_cache_clear(handle<cache>(), e); });
            }
        }
        case 36: {
            std::uint64_t bytes = 0;
            const auto o = session_options();
            switch (in_.below(4)) {
                case 0:
                    return (void)plain([&](phi4flash_error* e) {
                        return phi4flash_session_get_bytes(handle<model>(), maybe(&o), maybe(&bytes), e);
                    });
                case 1:
                    return (void)plain([&](phi4flash_error* e) {
                        return phi4flash_session_get_snapshot_bytes(handle<session>(), number(), maybe(&bytes), e);
                    });
                case 2:
                    return (void)plain([&](phi4flash_error* e) {
                        return phi4flash_prefix_cache_get_bytes(handle<model>(), in_.below(4), number(), number(), maybe(&bytes), e);
                    });
                default:
                    return info<phi4flash_snapshot_info>([&](auto* i, phi4flash_error* e) {
                        return phi4flash_snapshot_get_info(saved_.data(), saved_.size(), i, e);
                    });
            }
        }
        default: {
            switch (in_.below(5)) {
                case 0:
                    return info<phi4flash_model_info>([&](auto* i, phi4flash_error* e) {
                        return phi4flash_model_get_info(handle<model>(), i, e);
                    });
                case 1:
                    return info<phi4flash_tokenizer_info>([&](auto* i, phi4flash_error* e) {
                        return phi4flash_tokenizer_get_info(handle<words>(), i, e);
                    });
                case 2:
                    return info<phi4flash_workspace_info>([&](auto* i, phi4flash_error* e) {
                        return phi4flash_workspace_get_info(handle<workspace>(), i, e);
                    });
                case 3:
                    return info<phi4flash_prefix_cache_info>([&](auto* i, phi4flash_error* e) {
                        return phi4flash_prefix_cache_get_info(handle<cache>(), i, e);
                    });
                default:
                    return info<phi4flash_generation_options>([&](auto* i, phi4flash_error* e) {
                        return phi4flash_generation_get_defaults(handle<model>(), i, e);
                    });
            }
        }
    }
}

}  // namespace c_api_entry

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    (void)c_api_entry::opened::once();
    const fuzz::memory_limit limit(size, std::size_t{64} << 20, 1024);
    fuzz::input in(data, size);
    c_api_entry::caller host(in);
    for (int calls = 0; !in.empty() && calls < 300; ++calls) host.call();
    return 0;
}
