/// Every function of the C API, with every argument missing or wrong in every way that can be told: an error with a sentence, never a crash,
/// and nothing that was made.
#include "c_api_testing.hpp"

#include <algorithm>
#include <fstream>
#include <initializer_list>
#include <new>
#include <set>
#include <tuple>
#include <type_traits>

using namespace c_api_testing;

namespace {

template <class T>
concept sized_struct = requires(T t) { t.size; };

template <class T>
inline constexpr bool is_handle =
    std::is_same_v<T, phi4flash_model> || std::is_same_v<T, phi4flash_tokenizer> || std::is_same_v<T, phi4flash_session> ||
    std::is_same_v<T, phi4flash_workspace> || std::is_same_v<T, phi4flash_generation> || std::is_same_v<T, phi4flash_scheduler> ||
    std::is_same_v<T, phi4flash_prefix_cache>;

/// Functions that were swept, by name.
std::set<std::string>& swept() {
    static std::set<std::string> names;
    return names;
}

/// A call whose arguments are right, to be made wrong one by one.
template <class... P>
class sweep {
public:
    using function = phi4flash_code (*)(P..., phi4flash_error*);
    template <class... A>
    sweep(const char* name, function f, A&&... valid) : name_(name), f_(f), valid_(static_cast<P>(valid)...) {
        swept().insert(name);
    }

    /// These may be NULL.
    sweep& optional(std::initializer_list<std::size_t> which) {
        optional_ = which;
        return *this;
    }
    /// Argument i with this value is refused.
    template <std::size_t I, class V>
    sweep& wrong(V value, phi4flash_code code = PHI4FLASH_INVALID_ARGUMENT) {
        auto arguments = valid_;
        std::get<I>(arguments) = static_cast<std::tuple_element_t<I, std::tuple<P...>>>(value);
        refuse(arguments, I, "another value", code);
        return *this;
    }

    ~sweep() {
        each(std::index_sequence_for<P...>());
        // Nobody has to hear of it.
        (void)call(valid_, nullptr);
        clean();
    }

private:
    template <std::size_t... I>
    void each(std::index_sequence<I...>) {
        (each_way<I>(), ...);
    }

    template <std::size_t I>
    void each_way() {
        using T = std::tuple_element_t<I, std::tuple<P...>>;
        if constexpr (std::is_pointer_v<T>) {
            using V = std::remove_cv_t<std::remove_pointer_t<T>>;
            auto arguments = valid_;
            std::get<I>(arguments) = nullptr;
            if (std::ranges::find(optional_, I) == optional_.end()) {
                refuse(arguments, I, "NULL");
            } else {
                phi4flash_error error;
                (void)call(arguments, &error);
                clean();
            }
            if constexpr (is_handle<V>) another_kind<I, V>();
            else if constexpr (sized_struct<V>) wrong_sizes<I, V>();
        }
    }

    /// A handle of another kind, and a pointer to something that is no handle.
    template <std::size_t I, class V>
    void another_kind() {
        auto arguments = valid_;
        using T = std::tuple_element_t<I, std::tuple<P...>>;
        if constexpr (std::is_same_v<V, phi4flash_model>) {
            std::get<I>(arguments) = reinterpret_cast<T>(static_cast<phi4flash_tokenizer*>(bundled().words));
        } else {
            std::get<I>(arguments) = reinterpret_cast<T>(static_cast<phi4flash_model*>(bundled().model));
        }
        refuse(arguments, I, "a handle of another kind");
        alignas(64) static unsigned char nothing[4096] = {};
        std::get<I>(arguments) = reinterpret_cast<T>(nothing);
        refuse(arguments, I, "no handle");
        std::get<I>(arguments) = reinterpret_cast<T>(nothing + 1);
        refuse(arguments, I, "a pointer that is not aligned");
    }

    template <std::size_t I, class V>
    void wrong_sizes() {
        using T = std::tuple_element_t<I, std::tuple<P...>>;
        alignas(64) unsigned char place[8192] = {};
        auto arguments = valid_;
        std::memcpy(place, std::get<I>(valid_), sizeof(V));
        auto* const changed = reinterpret_cast<V*>(place);
        std::get<I>(arguments) = changed;
        for (const uint32_t size : {uint32_t{0}, uint32_t{4}, uint32_t{sizeof(V) - 1}, uint32_t{sizeof(V) + 1}, uint32_t{8000}, UINT32_MAX}) {
            changed->size = size;
            refuse(arguments, I, "a wrong size");
        }
        if constexpr (std::is_const_v<std::remove_pointer_t<T>>) {
            changed->size = sizeof(V) + 16;
            place[sizeof(V) + 9] = 1;
            refuse(arguments, I, "a member that the library does not know");
        }
    }

    phi4flash_code call(const std::tuple<P...>& arguments, phi4flash_error* error) {
        return std::apply([&](auto... a) { return f_(a..., error); }, arguments);
    }

    void refuse(const std::tuple<P...>& arguments, std::size_t i, const char* what, phi4flash_code code = PHI4FLASH_INVALID_ARGUMENT) {
        phi4flash_error error;
        std::memset(&error, 0x55, sizeof error);
        const phi4flash_code answer = call(arguments, &error);
        CHECK_MESSAGE(answer == code, name_ << ", argument " << i << ", " << what << ": " << phi4flash_code_name(answer));
        CHECK(error.code == answer);
        CHECK(std::memchr(error.message, 0, sizeof error.message) != nullptr);
        if (answer != PHI4FLASH_OK) CHECK_MESSAGE(std::strlen(error.message) > 10, name_ << ", argument " << i << ", " << what);
        CHECK(call(arguments, nullptr) == answer);
        const bool made = clean();
        CHECK_MESSAGE(!made, name_ << ", argument " << i << ", " << what << ": made a handle");
    }

    /// Destroys what a call made. Whether there was anything.
    bool clean() {
        bool any = false;
        std::apply([&](auto... a) { ((any = clean_one(a) || any), ...); }, valid_);
        return any;
    }
    template <class T>
    static bool clean_one(T argument) {
        if constexpr (std::is_pointer_v<T> && std::is_pointer_v<std::remove_pointer_t<T>>) {
            using V = std::remove_pointer_t<std::remove_pointer_t<T>>;
            if constexpr (is_handle<V>) {
                const bool made = *argument != nullptr;
                destroy(std::exchange(*argument, nullptr));
                return made;
            }
        }
        return false;
    }

    const char* name_;
    function f_;
    std::tuple<P...> valid_;
    std::vector<std::size_t> optional_;
};

/// The parameters but the last, the error.
template <class F>
struct parameters;
template <class... P>
struct parameters<phi4flash_code (*)(P...)> {
    template <std::size_t... I>
    static auto cut(std::index_sequence<I...>) -> sweep<std::tuple_element_t<I, std::tuple<P...>>...>;
    using type = decltype(cut(std::make_index_sequence<sizeof...(P) - 1>()));
};

#define SWEEP(function, ...) parameters<decltype(&function)>::type(#function, &function __VA_OPT__(, ) __VA_ARGS__)

struct everything {
    phi4flash_model* model = bundled().model;
    phi4flash_tokenizer* words = bundled().words;
    owned<phi4flash_session> session = make_session();
    owned<phi4flash_session> another = make_session();
    owned<phi4flash_workspace> workspace = make_workspace();
    owned<phi4flash_generation> generation = make_generation(workspace);
    std::vector<int32_t> prompt = prompt_of("What is 1 + 1?");
};

}  // namespace

TEST_CASE("models and tokenizers") {
    everything e;
    phi4flash_model* model = nullptr;
    phi4flash_tokenizer* words = nullptr;
    const auto options = sized<phi4flash_model_options>();
    const std::string json = "{}";
    SWEEP(phi4flash_model_open, folder().data(), folder().size(), &options, &model).optional({2}).wrong<1>(0).wrong<1>(SIZE_MAX);
    auto file = sized<phi4flash_file>();
    file.data = json.data();
    file.bytes = json.size();
    SWEEP(phi4flash_model_open_files, &file, 1, &options, &model).optional({2}).wrong<1>(0).wrong<1>(SIZE_MAX);
    auto info = sized<phi4flash_model_info>();
    SWEEP(phi4flash_model_get_info, e.model, &info);
    SWEEP(phi4flash_tokenizer_open, e.model, &words);
    auto allocator = sized<phi4flash_allocator>();
    allocator.allocate = [](void*, size_t n, size_t alignment) { return ::operator new(n, std::align_val_t{alignment}); };
    allocator.release = [](void*, void* memory, size_t, size_t alignment) { ::operator delete(memory, std::align_val_t{alignment}); };
    SWEEP(phi4flash_tokenizer_open_json, json.data(), json.size(), &allocator, &words).optional({2}).wrong<1>(SIZE_MAX);
    auto about = sized<phi4flash_tokenizer_info>();
    SWEEP(phi4flash_tokenizer_get_info, e.words, &about);
    const char* bytes = nullptr;
    size_t length = 0;
    SWEEP(phi4flash_tokenizer_get_bytes, e.words, 5, &bytes, &length)
        .wrong<1>(-1, PHI4FLASH_UNKNOWN_TOKEN)
        .wrong<1>(INT32_MAX, PHI4FLASH_UNKNOWN_TOKEN);
}

TEST_CASE("texts and chats") {
    everything e;
    int32_t ids[64] = {1, 2, 3};
    char text[256] = "1 + 1";
    size_t count = 0;
    SWEEP(phi4flash_tokenizer_encode, e.words, text, 5, 0, ids, 64, &count).wrong<2>(SIZE_MAX).wrong<3>(2).wrong<5>(0, PHI4FLASH_BUFFER_TOO_SMALL);
    SWEEP(phi4flash_tokenizer_decode, e.words, ids, 3, 0, text, 256, &count).wrong<2>(SIZE_MAX).wrong<3>(2).wrong<5>(0, PHI4FLASH_BUFFER_TOO_SMALL);
    auto message = sized<phi4flash_chat_message>();
    message.role = "user";
    message.role_length = 4;
    message.content = "hi";
    message.content_length = 2;
    const auto options = sized<phi4flash_chat_options>();
    SWEEP(phi4flash_tokenizer_encode_chat, e.words, &message, 1, &options, ids, 64, &count)
        .optional({3}).wrong<2>(0).wrong<2>(SIZE_MAX).wrong<5>(0, PHI4FLASH_BUFFER_TOO_SMALL);
    SWEEP(phi4flash_render_chat, &message, 1, &options, text, 256, &count)
        .optional({2})
        .wrong<1>(0)
        .wrong<1>(SIZE_MAX)
        .wrong<4>(0, PHI4FLASH_BUFFER_TOO_SMALL);

    const auto refused = [&](auto&& change, phi4flash_code code = PHI4FLASH_INVALID_ARGUMENT) {
        auto m = message;
        change(m);
        C_API_FAILS(code, phi4flash_tokenizer_encode_chat(e.words, &m, 1, nullptr, ids, 64, &count, error));
    };
    refused([](auto& m) { m.role = nullptr; });
    refused([](auto& m) { m.content = nullptr; });
    refused([](auto& m) { m.tools_length = 3; });
    refused([](auto& m) { m.tools = "x", m.tools_length = 1; });
    refused([](auto& m) { m.has_tools = 2; });
    refused([](auto& m) { m.role_length = 0; }, PHI4FLASH_BAD_CHAT_MESSAGE);
    refused([](auto& m) { m.role = "king"; }, PHI4FLASH_BAD_CHAT_MESSAGE);
    for (auto member : {&phi4flash_chat_options::chat_template, &phi4flash_chat_options::closed, &phi4flash_chat_options::markers}) {
        auto o = options;
        o.*member = 2;
        C_API_FAILS(PHI4FLASH_INVALID_ARGUMENT, phi4flash_render_chat(&message, 1, &o, text, 256, &count, error));
    }
    phi4flash_chat_message two[] = {message, message};
    two[1].size = 8;
    C_API_FAILS(PHI4FLASH_INVALID_ARGUMENT, phi4flash_render_chat(two, 2, nullptr, text, 256, &count, error));
}

TEST_CASE("sessions and snapshots") {
    everything e;
    auto options = sized<phi4flash_session_options>();
    options.context = 64;
    uint64_t bytes = 0;
    phi4flash_session* session = nullptr;
    SWEEP(phi4flash_session_get_bytes, e.model, &options, &bytes);
    SWEEP(phi4flash_session_create, e.model, &options, &session);
    SWEEP(phi4flash_session_fork, e.session, &options, &session).optional({1});
    auto info = sized<phi4flash_session_info>();
    SWEEP(phi4flash_session_get_info, e.session, &info);
    SWEEP(phi4flash_session_reset, e.session);
    SWEEP(phi4flash_session_rewind, e.session, 0).wrong<1>(1).wrong<1>(UINT64_MAX);
    SWEEP(phi4flash_session_copy, e.session, e.another);
    const float* logits = nullptr;
    SWEEP(phi4flash_session_read, e.another, e.workspace, e.prompt.data(), 4, &logits).optional({4}).wrong<3>(0).wrong<3>(SIZE_MAX);
    SWEEP(phi4flash_session_get_snapshot_bytes, e.session, 0, &bytes);
    std::vector<unsigned char> memory(1 << 20);
    size_t written = 0;
    SWEEP(phi4flash_session_save, e.session, 0, memory.data(), memory.size(), &written).wrong<3>(10, PHI4FLASH_BUFFER_TOO_SMALL);
    C_API_OK(phi4flash_session_save(e.session, 0, memory.data(), memory.size(), &written, error));
    const auto write = [](void*, const void*, size_t) -> int32_t { return 0; };
    SWEEP(phi4flash_session_save_to, e.session, 0, +write, nullptr).optional({3});
    SWEEP(phi4flash_session_restore, e.session, memory.data(), written).wrong<2>(SIZE_MAX).wrong<2>(10, PHI4FLASH_FILE_INCOMPLETE);
    const auto read = [](void*, void*, size_t) -> int32_t { return 1; };
    SWEEP(phi4flash_session_restore_from, e.session, +read, nullptr).optional({2});
    auto about = sized<phi4flash_snapshot_info>();
    SWEEP(phi4flash_snapshot_get_info, memory.data(), written, &about).wrong<1>(SIZE_MAX);

    const auto refused = [&](auto&& change) {
        auto o = options;
        change(o);
        phi4flash_session* none = nullptr;
        C_API_FAILS(PHI4FLASH_INVALID_ARGUMENT, phi4flash_session_create(e.model, &o, &none, error));
        CHECK(none == nullptr);
        C_API_FAILS(PHI4FLASH_INVALID_ARGUMENT, phi4flash_session_get_bytes(e.model, &o, &bytes, error));
    };
    refused([](auto& o) { o.kv_type = 3; });
    refused([](auto& o) { o.context = 0; });
    refused([](auto& o) { o.context = UINT64_MAX; });
    refused([](auto& o) { o.undo = 65; });
    auto allocator = sized<phi4flash_allocator>();
    refused([&](auto& o) { o.allocator = &allocator; });  // without functions
    allocator.allocate = [](void*, size_t, size_t) -> void* { return nullptr; };
    refused([&](auto& o) { o.allocator = &allocator; });
}

TEST_CASE("workspaces and generation") {
    everything e;
    auto how = sized<phi4flash_workspace_options>();
    uint64_t bytes = 0;
    phi4flash_workspace* workspace = nullptr;
    SWEEP(phi4flash_workspace_get_bytes, e.model, &how, &bytes).optional({1});
    SWEEP(phi4flash_workspace_create, e.model, &how, &workspace).optional({1});
    auto info = sized<phi4flash_workspace_info>();
    SWEEP(phi4flash_workspace_get_info, e.workspace, &info);
    auto options = sized<phi4flash_generation_options>();
    phi4flash_generation* generation = nullptr;
    SWEEP(phi4flash_generation_get_defaults, e.model, &options);
    SWEEP(phi4flash_generation_create, e.workspace, e.words, &options, &generation).optional({1, 2});
    SWEEP(phi4flash_generation_start, e.generation, e.session, e.prompt.data(), e.prompt.size()).wrong<3>(0).wrong<3>(SIZE_MAX);
    const auto budget = always_at_once();
    auto event = sized<phi4flash_event>();
    SWEEP(phi4flash_generation_advance, e.generation, &budget, &event).optional({1});
    SWEEP(phi4flash_generation_cancel, e.generation);
    auto about = sized<phi4flash_generation_info>();
    SWEEP(phi4flash_generation_get_info, e.generation, &about);

    const auto refused = [&](auto&& change, phi4flash_code code = PHI4FLASH_INVALID_ARGUMENT, bool with_words = true) {
        auto o = greedy();
        change(o);
        phi4flash_generation* none = nullptr;
        C_API_FAILS(code, phi4flash_generation_create(e.workspace, with_words ? e.words : nullptr, &o, &none, error));
        CHECK(none == nullptr);
    };
    const auto refused_with = [&](std::string_view words, auto&& change) {
        auto o = greedy();
        change(o);
        phi4flash_generation* none = nullptr;
        phi4flash_error why;
        CHECK(phi4flash_generation_create(e.workspace, e.words, &o, &none, &why) == PHI4FLASH_INVALID_ARGUMENT);
        CHECK_MESSAGE(std::string_view(why.message).starts_with(words), why.message);
        CHECK(none == nullptr);
    };
    refused_with("options.top_p: want more than 0, at most 1, have -1 (0 stands for 1)", [](auto& o) { o.top_p = -1.0f; });
    refused_with("options.temperature: want 0 to 100, have -1", [](auto& o) { o.temperature = -1.0f; });
    refused_with("options.stop_strings[0]: want UTF-8, have the byte 0xC3", [](auto& o) {
        static const phi4flash_string half{"\xC3", 1};
        o.stop_strings = &half;
        o.n_stop_strings = 1;
    });
    refused([](auto& o) { o.temperature = -1; });
    refused([](auto& o) { o.temperature = 1e30f; });
    refused([](auto& o) { o.top_p = 1.5f; });
    refused([](auto& o) { o.min_p = -0.5f; });
    refused([](auto& o) { o.repetition_penalty = -1; });
    refused([](auto& o) { o.no_own_stops = 2; });
    refused([](auto& o) { o.keep_special = 2; });
    refused([](auto& o) { o.prompt_only = 2; });
    refused([](auto& o) { o.n_stop_ids = 1; });
    refused([](auto& o) { o.n_stop_strings = 1; });
    const int32_t id = -5;
    refused([&](auto& o) { o.stop_ids = &id, o.n_stop_ids = 1; }, PHI4FLASH_UNKNOWN_TOKEN);
    refused([&](auto& o) { o.stop_ids = &id, o.n_stop_ids = SIZE_MAX; });
    phi4flash_string text{nullptr, 3};
    refused([&](auto& o) { o.stop_strings = &text, o.n_stop_strings = 1; });
    text = {"x", 1};
    refused([&](auto& o) { o.stop_strings = &text, o.n_stop_strings = 1; }, PHI4FLASH_INVALID_ARGUMENT, false);

    const auto not_made = [&](auto&& change, phi4flash_code code = PHI4FLASH_INVALID_ARGUMENT) {
        auto o = sized<phi4flash_workspace_options>();
        change(o);
        phi4flash_workspace* none = nullptr;
        C_API_FAILS(code, phi4flash_workspace_create(e.model, &o, &none, error));
        CHECK(none == nullptr);
    };
    auto executor = sized<phi4flash_executor>();
    not_made([](auto& o) { o.kv_type = 3; });
    not_made([](auto& o) { o.chunk = 65537; });
    not_made([](auto& o) { o.states = 1000; });
    not_made([](auto& o) { o.logits = 1000; });
    not_made([](auto& o) { o.threads = 5000; });
    not_made([](auto& o) { o.kernels_length = 5; });
    not_made([](auto& o) { o.kernels = "abacus", o.kernels_length = 6; }, PHI4FLASH_UNKNOWN_TARGET);
    not_made([&](auto& o) { o.executor = &executor; });
    executor.concurrency = 1;
    not_made([&](auto& o) { o.executor = &executor; });
    executor.parallel_for = [](void*, size_t count, size_t, phi4flash_task task, void* context) { task(context, 0, count); };
    not_made([&](auto& o) { o.executor = &executor, o.threads = 2; });
    executor.concurrency = 0;
    not_made([&](auto& o) { o.executor = &executor; });

    // What does not belong together.
    const auto other_kv = make_session(PHI4FLASH_KV_BF16);
    C_API_FAILS(PHI4FLASH_INVALID_ARGUMENT, phi4flash_generation_start(e.generation, other_kv, e.prompt.data(), e.prompt.size(), error));
    C_API_FAILS(PHI4FLASH_INVALID_ARGUMENT, phi4flash_session_copy(e.session, other_kv, error));
    C_API_FAILS(PHI4FLASH_INVALID_ARGUMENT, phi4flash_session_read(other_kv, e.workspace, e.prompt.data(), 1, nullptr, error));
    owned<phi4flash_model> second;
    C_API_OK(phi4flash_model_open(folder().data(), folder().size(), nullptr, second.out(), error));
    auto room = sized<phi4flash_session_options>();
    room.context = 64;
    room.kv_type = PHI4FLASH_KV_F32;
    owned<phi4flash_session> of_another_model;
    C_API_OK(phi4flash_session_create(second, &room, of_another_model.out(), error));
    C_API_FAILS(PHI4FLASH_INVALID_ARGUMENT, phi4flash_generation_start(e.generation, of_another_model, e.prompt.data(), e.prompt.size(), error));
    C_API_FAILS(PHI4FLASH_INVALID_ARGUMENT, phi4flash_session_copy(e.session, of_another_model, error));
}

TEST_CASE("schedulers and prefix caches") {
    everything e;
    const auto how = sized<phi4flash_scheduler_options>();
    phi4flash_scheduler* made = nullptr;
    SWEEP(phi4flash_scheduler_create, e.workspace, e.words, &how, &made).optional({1, 2});
    owned<phi4flash_scheduler> scheduler;
    C_API_OK(phi4flash_scheduler_create(e.workspace, e.words, &how, scheduler.out(), error));
    uint64_t request = 0;
    const auto options = greedy();
    SWEEP(phi4flash_scheduler_submit, scheduler, e.session, e.prompt.data(), e.prompt.size(), &options, &request)
        .optional({4})
        .wrong<3>(0)
        .wrong<3>(SIZE_MAX);
    uint32_t outcome = 0;
    const auto budget = always_at_once();
    SWEEP(phi4flash_scheduler_tick, scheduler, &budget, &outcome).optional({1});
    auto event = sized<phi4flash_event>();
    SWEEP(phi4flash_scheduler_next_event, scheduler, &event);
    SWEEP(phi4flash_scheduler_cancel, scheduler, request).wrong<1>(0).wrong<1>(999);
    SWEEP(phi4flash_scheduler_cancel_all, scheduler);
    auto about = sized<phi4flash_scheduler_info>();
    SWEEP(phi4flash_scheduler_get_info, scheduler, &about);

    uint64_t bytes = 0;
    SWEEP(phi4flash_prefix_cache_get_bytes, e.model, 1, 4, 100, &bytes).wrong<1>(3).wrong<2>(0).wrong<2>(UINT64_MAX).wrong<3>(0).wrong<3>(UINT64_MAX);
    auto room = sized<phi4flash_prefix_cache_options>();
    room.kv_type = PHI4FLASH_KV_F32;
    C_API_OK(phi4flash_prefix_cache_get_bytes(e.model, PHI4FLASH_KV_F32, 4, 100, &room.bytes, error));
    phi4flash_prefix_cache* none = nullptr;
    SWEEP(phi4flash_prefix_cache_create, e.model, &room, &none);
    for (const uint64_t wrong : {uint64_t{0}, uint64_t{100}}) {
        auto o = room;
        o.bytes = wrong;
        C_API_FAILS(PHI4FLASH_INVALID_ARGUMENT, phi4flash_prefix_cache_create(e.model, &o, &none, error));
    }
    auto o = room;
    o.bytes = UINT64_MAX;
    C_API_FAILS(PHI4FLASH_OUT_OF_MEMORY, phi4flash_prefix_cache_create(e.model, &o, &none, error));
    owned<phi4flash_prefix_cache> cache;
    C_API_OK(phi4flash_prefix_cache_create(e.model, &room, cache.out(), error));
    const auto s = make_session();
    C_API_OK(phi4flash_session_read(s, make_workspace(), e.prompt.data(), 4, nullptr, error));
    SWEEP(phi4flash_prefix_cache_keep, cache, s, e.prompt.data(), 4).wrong<3>(0).wrong<3>(3).wrong<3>(SIZE_MAX);
    size_t found = 0;
    SWEEP(phi4flash_prefix_cache_find, cache, e.prompt.data(), 4, &found).wrong<2>(SIZE_MAX);
    SWEEP(phi4flash_prefix_cache_restore, cache, s, e.prompt.data(), 4, &found).wrong<3>(SIZE_MAX);
    SWEEP(phi4flash_prefix_cache_clear, cache);
    auto info = sized<phi4flash_prefix_cache_info>();
    SWEEP(phi4flash_prefix_cache_get_info, cache, &info);
}

TEST_CASE("destroying nothing does nothing, and so does destroying what is no handle") {
    phi4flash_model_destroy(nullptr);
    phi4flash_tokenizer_destroy(nullptr);
    phi4flash_session_destroy(nullptr);
    phi4flash_workspace_destroy(nullptr);
    phi4flash_generation_destroy(nullptr);
    phi4flash_scheduler_destroy(nullptr);
    phi4flash_prefix_cache_destroy(nullptr);
    phi4flash_session_destroy(reinterpret_cast<phi4flash_session*>(static_cast<phi4flash_model*>(bundled().model)));
    auto info = sized<phi4flash_model_info>();
    C_API_OK(phi4flash_model_get_info(bundled().model, &info, error));
}

TEST_CASE("codes have names, and versions are told") {
    CHECK(std::string_view(phi4flash_code_name(PHI4FLASH_OUT_OF_MEMORY)) == "out_of_memory");
    CHECK(std::string_view(phi4flash_code_name(-12345)) == "unknown");
    CHECK(std::strlen(phi4flash_version()) >= 5);
    CHECK(phi4flash_api_version() >= 1);
    CHECK(phi4flash_default_concurrency() >= 1);
}

// The last one: test cases of a file run in their order.
TEST_CASE("no function was left out") {
    std::ifstream list(std::string(PHI4FLASH_TEST_DATA) + "/../c_api/symbols.txt");
    REQUIRE(list);
    std::size_t functions = 0;
    for (std::string name; std::getline(list, name);) {
        ++functions;
        const bool cannot_fail = name.ends_with("_destroy") || name == "phi4flash_version" || name == "phi4flash_api_version" ||
                                 name == "phi4flash_code_name" || name == "phi4flash_default_concurrency";
        CHECK_MESSAGE(swept().contains(name) != cannot_fail, name);
    }
    CHECK(functions > 50);
}
