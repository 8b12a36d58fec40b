#pragma once
/// What the tests of the C API share: the bundled model through the C API, with handles that destroy themselves.
#include <phi4flash/phi4flash.h>

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace c_api_testing {

inline void destroy(phi4flash_model* h) { phi4flash_model_destroy(h); }
inline void destroy(phi4flash_tokenizer* h) { phi4flash_tokenizer_destroy(h); }
inline void destroy(phi4flash_session* h) { phi4flash_session_destroy(h); }
inline void destroy(phi4flash_workspace* h) { phi4flash_workspace_destroy(h); }
inline void destroy(phi4flash_generation* h) { phi4flash_generation_destroy(h); }
inline void destroy(phi4flash_scheduler* h) { phi4flash_scheduler_destroy(h); }
inline void destroy(phi4flash_prefix_cache* h) { phi4flash_prefix_cache_destroy(h); }

/// A handle, owned.
template <class H>
class owned {
public:
    owned() = default;
    owned(owned&& other) noexcept : h_(std::exchange(other.h_, nullptr)) {}
    owned& operator=(owned&& other) noexcept {
        std::swap(h_, other.h_);
        return *this;
    }
    ~owned() { destroy(h_); }
    operator H*() const { return h_; }  // NOLINT(google-explicit-constructor)
    /// For functions that make one.
    H** out() {
        destroy(std::exchange(h_, nullptr));
        return &h_;
    }

private:
    H* h_ = nullptr;
};

/// A struct with its size, the rest zero.
template <class T>
T sized() {
    T t{};
    t.size = sizeof(T);
    return t;
}

#define C_API_OK(call)                                                                           \
    do {                                                                                         \
        phi4flash_error c_api_error;                                                             \
        phi4flash_error* const error = &c_api_error;                                             \
        const phi4flash_code c_api_code = (call);                                                \
        REQUIRE_MESSAGE(c_api_code == PHI4FLASH_OK, #call << ": " << c_api_error.message);       \
        CHECK(c_api_error.code == PHI4FLASH_OK);                                                 \
        CHECK(c_api_error.message[0] == '\0');                                                   \
    } while (false)

/// The call ends with this code, and with a sentence.
#define C_API_FAILS(expected, call)                                                              \
    do {                                                                                         \
        phi4flash_error c_api_error;                                                             \
        phi4flash_error* const error = &c_api_error;                                             \
        CHECK_MESSAGE((call) == (expected), #call << ": " << c_api_error.message);               \
        CHECK(c_api_error.code == (expected));                                                   \
        CHECK_MESSAGE(std::strlen(c_api_error.message) > 10, #call);                             \
    } while (false)

inline const std::string& folder() {
    static const std::string path = std::string(PHI4FLASH_TEST_MODELS) + "/tiny-arithmetic";
    return path;
}

/// The bundled model with its tokenizer, shared by all tests of a program.
struct opened {
    owned<phi4flash_model> model;
    owned<phi4flash_tokenizer> words;
};
inline opened& bundled() {
    static opened all = [] {
        opened o;
        C_API_OK(phi4flash_model_open(folder().data(), folder().size(), nullptr, o.model.out(), error));
        C_API_OK(phi4flash_tokenizer_open(o.model, o.words.out(), error));
        return o;
    }();
    return all;
}

inline owned<phi4flash_session> make_session(uint32_t kv_type = PHI4FLASH_KV_F32, uint64_t context = 256, uint64_t undo = 0) {
    auto options = sized<phi4flash_session_options>();
    options.kv_type = kv_type;
    options.context = context;
    options.undo = undo;
    owned<phi4flash_session> s;
    C_API_OK(phi4flash_session_create(bundled().model, &options, s.out(), error));
    return s;
}

inline owned<phi4flash_workspace> make_workspace(uint32_t kv_type = PHI4FLASH_KV_F32, uint32_t states = 1, uint32_t logits = 1) {
    auto options = sized<phi4flash_workspace_options>();
    options.kv_type = kv_type;
    options.chunk = 8;
    options.states = states;
    options.logits = logits;
    owned<phi4flash_workspace> w;
    C_API_OK(phi4flash_workspace_create(bundled().model, &options, w.out(), error));
    return w;
}

inline phi4flash_generation_options greedy(uint64_t max_tokens = 100) {
    auto options = sized<phi4flash_generation_options>();
    options.max_tokens = max_tokens;
    return options;
}

inline owned<phi4flash_generation> make_generation(phi4flash_workspace* w, const phi4flash_generation_options& options = greedy()) {
    owned<phi4flash_generation> g;
    C_API_OK(phi4flash_generation_create(w, bundled().words, &options, g.out(), error));
    return g;
}

inline std::vector<int32_t> prompt_of(std::string_view question) {
    auto message = sized<phi4flash_chat_message>();
    message.role = "user";
    message.role_length = 4;
    message.content = question.data();
    message.content_length = question.size();
    std::vector<int32_t> ids(200);
    size_t count = 0;
    C_API_OK(phi4flash_tokenizer_encode_chat(bundled().words, &message, 1, nullptr, ids.data(), ids.size(), &count, error));
    ids.resize(count);
    return ids;
}

/// What came of a text.
struct answer {
    std::string text;
    std::vector<int32_t> tokens;
    uint32_t reason = 99;
    size_t calls = 0;  // of advance
    size_t nothing_yet = 0;
};

/// Advances until the end.
inline answer finish(phi4flash_generation* g, const phi4flash_budget* budget = nullptr, answer a = {}) {
    auto event = sized<phi4flash_event>();
    do {
        C_API_OK(phi4flash_generation_advance(g, budget, &event, error));
        REQUIRE(event.text != nullptr);
        CHECK(event.text[event.text_length] == '\0');
        a.text.append(event.text, event.text_length);
        if (event.kind == PHI4FLASH_EVENT_TOKEN) a.tokens.push_back(event.token);
        a.nothing_yet += event.kind == PHI4FLASH_EVENT_NONE;
        ++a.calls;
    } while (event.kind != PHI4FLASH_EVENT_END);
    a.reason = event.reason;
    return a;
}

inline answer ask(phi4flash_generation* g, phi4flash_session* s, std::string_view question, const phi4flash_budget* budget = nullptr) {
    const auto prompt = prompt_of(question);
    C_API_OK(phi4flash_generation_start(g, s, prompt.data(), prompt.size(), error));
    return finish(g, budget);
}

/// Asks a model, with a session and a workspace of its own.
inline std::string ask_model(phi4flash_model* model, std::string_view question) {
    owned<phi4flash_tokenizer> words;
    owned<phi4flash_session> session;
    owned<phi4flash_workspace> workspace;
    owned<phi4flash_generation> generation;
    auto room = sized<phi4flash_session_options>();
    room.context = 128;
    const auto options = greedy();
    C_API_OK(phi4flash_tokenizer_open(model, words.out(), error));
    C_API_OK(phi4flash_session_create(model, &room, session.out(), error));
    C_API_OK(phi4flash_workspace_create(model, nullptr, workspace.out(), error));
    C_API_OK(phi4flash_generation_create(workspace, words, &options, generation.out(), error));
    return ask(generation, session, question).text;
}

/// A host's reader, of a text; after `left` calls it fails.
struct text_reader {
    const std::string* text = nullptr;
    long left = -1;
    size_t calls = 0;
    static int32_t read(void* self, uint64_t offset, void* into, size_t bytes) {
        auto& r = *static_cast<text_reader*>(self);
        ++r.calls;
        if (r.left == 0) return -3;
        if (r.left > 0) --r.left;
        if (offset > r.text->size() || bytes > r.text->size() - offset) return 6;
        std::memcpy(into, r.text->data() + offset, bytes);
        return 0;
    }
};

/// Asked so often, it says that the budget is used up.
struct countdown {
    int left = 0;
    static int32_t stop(void* self) { return --static_cast<countdown*>(self)->left < 0; }
    phi4flash_budget budget() {
        auto b = sized<phi4flash_budget>();
        b.user = this;
        b.stop = &countdown::stop;
        return b;
    }
};

inline phi4flash_budget always_at_once() {
    auto b = sized<phi4flash_budget>();
    b.stop = [](void*) -> int32_t { return 1; };
    return b;
}

inline bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace c_api_testing
