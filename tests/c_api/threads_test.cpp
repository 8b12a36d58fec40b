/// The C API from several threads: what may be shared is, what may not is PHI4FLASH_IN_USE; executors, pools, cancelling from elsewhere.
#include "c_api_testing.hpp"

#include <atomic>
#include <thread>

using namespace c_api_testing;

namespace {

/// Waits in the middle of a call until it is let go, on a thread of its own.
struct gate {
    std::atomic<bool> inside{false};
    std::atomic<bool> open{false};
    static int32_t stop(void* self) {
        auto& g = *static_cast<gate*>(self);
        g.inside.store(true);
        g.inside.notify_all();
        g.open.wait(false);
        return 0;
    }
    phi4flash_budget budget() {
        auto b = sized<phi4flash_budget>();
        b.user = this;
        b.stop = &gate::stop;
        return b;
    }
};

}  // namespace

TEST_CASE("four threads talk at once over one model and one tokenizer") {
    std::string expected;
    {
        const auto s = make_session();
        const auto w = make_workspace();
        expected = ask(make_generation(w), s, "What is 347 + 285?").text;
    }
    std::atomic<int> right{0};
    std::vector<std::thread> threads;
    const auto talk = [&] {
        auto room = sized<phi4flash_session_options>();
        room.kv_type = PHI4FLASH_KV_F32;
        room.context = 256;
        auto how = sized<phi4flash_workspace_options>();
        how.kv_type = PHI4FLASH_KV_F32;
        how.chunk = 8;
        const auto options = greedy();
        for (int i = 0; i < 3; ++i) {
            owned<phi4flash_session> s;
            owned<phi4flash_workspace> w;
            owned<phi4flash_generation> g;
            if (phi4flash_session_create(bundled().model, &room, s.out(), nullptr) != PHI4FLASH_OK) return;
            if (phi4flash_workspace_create(bundled().model, &how, w.out(), nullptr) != PHI4FLASH_OK) return;
            if (phi4flash_generation_create(w, bundled().words, &options, g.out(), nullptr) != PHI4FLASH_OK) return;
            auto message = sized<phi4flash_chat_message>();
            message.role = "user";
            message.role_length = 4;
            message.content = "What is 347 + 285?";
            message.content_length = 18;
            int32_t prompt[64];
            size_t count = 0;
            if (phi4flash_tokenizer_encode_chat(bundled().words, &message, 1, nullptr, prompt, 64, &count, nullptr) != PHI4FLASH_OK) return;
            if (phi4flash_generation_start(g, s, prompt, count, nullptr) != PHI4FLASH_OK) return;
            std::string text;
            auto event = sized<phi4flash_event>();
            do {
                if (phi4flash_generation_advance(g, nullptr, &event, nullptr) != PHI4FLASH_OK) return;
                text.append(event.text, event.text_length);
            } while (event.kind != PHI4FLASH_EVENT_END);
            right += text == expected;
        }
    };
    for (int i = 0; i < 4; ++i) threads.emplace_back(talk);
    for (auto& t : threads) t.join();
    CHECK(right == 12);
}

TEST_CASE("two threads that meet: one gets in_use, and nothing happens") {
    const auto s = make_session();
    const auto w = make_workspace();
    const auto g = make_generation(w);
    const auto prompt = prompt_of("What is 347 + 285?");
    C_API_OK(phi4flash_generation_start(g, s, prompt.data(), prompt.size(), error));
    gate stopped;
    phi4flash_code code = PHI4FLASH_INVALID_ARGUMENT;
    auto event = sized<phi4flash_event>();
    std::thread other([&] {
        const auto budget = stopped.budget();
        code = phi4flash_generation_advance(g, &budget, &event, nullptr);
    });
    stopped.inside.wait(false);
    auto mine = sized<phi4flash_event>();
    auto info = sized<phi4flash_session_info>();
    auto about = sized<phi4flash_workspace_info>();
    auto state = sized<phi4flash_generation_info>();
    char memory[8];
    size_t written = 0;
    C_API_FAILS(PHI4FLASH_IN_USE, phi4flash_generation_advance(g, nullptr, &mine, error));
    C_API_FAILS(PHI4FLASH_IN_USE, phi4flash_generation_get_info(g, &state, error));
    C_API_FAILS(PHI4FLASH_IN_USE, phi4flash_generation_start(g, s, prompt.data(), prompt.size(), error));
    C_API_FAILS(PHI4FLASH_IN_USE, phi4flash_session_get_info(s, &info, error));
    C_API_FAILS(PHI4FLASH_IN_USE, phi4flash_session_reset(s, error));
    C_API_FAILS(PHI4FLASH_IN_USE, phi4flash_session_save(s, 0, memory, sizeof memory, &written, error));
    C_API_FAILS(PHI4FLASH_IN_USE, phi4flash_session_read(s, w, prompt.data(), 1, nullptr, error));
    C_API_FAILS(PHI4FLASH_IN_USE, phi4flash_workspace_get_info(w, &about, error));
    stopped.open.store(true);
    stopped.open.notify_all();
    other.join();
    CHECK(code == PHI4FLASH_OK);
    CHECK(contains(finish(g).text, "\\boxed{632}"));
}

TEST_CASE("a callback may use the library, but not what the call that is under way uses") {
    const auto s = make_session();
    const auto w = make_workspace();
    const auto g = make_generation(w);
    struct state {
        phi4flash_generation* g;
        phi4flash_session* s;
        std::vector<phi4flash_code> codes;
    } inside{g, s, {}};
    auto budget = sized<phi4flash_budget>();
    budget.user = &inside;
    budget.stop = [](void* user) -> int32_t {
        auto& in = *static_cast<state*>(user);
        if (in.codes.empty()) {
            auto event = sized<phi4flash_event>();
            in.codes.push_back(phi4flash_generation_advance(in.g, nullptr, &event, nullptr));
            in.codes.push_back(phi4flash_session_reset(in.s, nullptr));
            auto info = sized<phi4flash_model_info>();
            in.codes.push_back(phi4flash_model_get_info(bundled().model, &info, nullptr));
        }
        return 0;
    };
    CHECK(contains(ask(g, s, "What is 40 + 2?", &budget).text, "\\boxed{42}"));
    CHECK(inside.codes == std::vector<phi4flash_code>{PHI4FLASH_IN_USE, PHI4FLASH_IN_USE, PHI4FLASH_OK});
}

TEST_CASE("a handle that is destroyed in a callback of a call that uses it lives until the call returns") {
    const auto s = make_session();
    const auto w = make_workspace();
    phi4flash_generation* g = nullptr;
    const auto options = greedy();
    C_API_OK(phi4flash_generation_create(w, bundled().words, &options, &g, error));
    const auto prompt = prompt_of("What is 40 + 2?");
    C_API_OK(phi4flash_generation_start(g, s, prompt.data(), prompt.size(), error));
    auto budget = sized<phi4flash_budget>();
    budget.user = &g;
    budget.stop = [](void* user) -> int32_t {
        phi4flash_generation_destroy(std::exchange(*static_cast<phi4flash_generation**>(user), nullptr));
        return 1;
    };
    auto event = sized<phi4flash_event>();
    C_API_OK(phi4flash_generation_advance(g, &budget, &event, error));
    CHECK(g == nullptr);
    auto info = sized<phi4flash_session_info>();
    C_API_OK(phi4flash_session_get_info(s, &info, error));
    CHECK(info.busy == 0);
    CHECK(info.position == 0);
}

TEST_CASE("a text is cancelled by another thread while it is advanced") {
    const auto s = make_session();
    const auto w = make_workspace();
    const auto g = make_generation(w);
    const auto prompt = prompt_of("What is 347 + 285?");
    C_API_OK(phi4flash_generation_start(g, s, prompt.data(), prompt.size(), error));
    gate stopped;
    auto event = sized<phi4flash_event>();
    phi4flash_code code = PHI4FLASH_INVALID_ARGUMENT;
    std::thread other([&] {
        const auto budget = stopped.budget();
        code = phi4flash_generation_advance(g, &budget, &event, nullptr);
    });
    stopped.inside.wait(false);
    C_API_OK(phi4flash_generation_cancel(g, error));
    stopped.open.store(true);
    stopped.open.notify_all();
    other.join();
    CHECK(code == PHI4FLASH_OK);
    CHECK(event.kind == PHI4FLASH_EVENT_END);
    CHECK(event.reason == PHI4FLASH_END_CANCELLED);
}

TEST_CASE("the host's threads, and a pool: the same bits") {
    const auto s = make_session();
    const auto prompt = prompt_of("What is 347 + 285?");
    auto model = sized<phi4flash_model_info>();
    C_API_OK(phi4flash_model_get_info(bundled().model, &model, error));
    const auto logits_of = [&](phi4flash_workspace* w) {
        const float* logits = nullptr;
        C_API_OK(phi4flash_session_reset(s, error));
        C_API_OK(phi4flash_session_read(s, w, prompt.data(), prompt.size(), &logits, error));
        return std::vector<float>(logits, logits + model.vocabulary);
    };
    const auto expected = logits_of(make_workspace());

    std::atomic<size_t> ranges{0};
    auto executor = sized<phi4flash_executor>();
    executor.concurrency = 3;
    executor.user = &ranges;
    executor.parallel_for = [](void* user, size_t count, size_t grain, phi4flash_task task, void* context) {
        std::vector<std::thread> threads;
        const size_t each = std::max(grain, (count + 2) / 3);
        for (size_t at = 0; at < count; at += each) {
            threads.emplace_back(task, context, at, std::min(at + each, count));
            ++*static_cast<std::atomic<size_t>*>(user);
        }
        for (auto& t : threads) t.join();
    };
    auto how = sized<phi4flash_workspace_options>();
    how.kv_type = PHI4FLASH_KV_F32;
    how.chunk = 8;
    how.executor = &executor;
    owned<phi4flash_workspace> w;
    C_API_OK(phi4flash_workspace_create(bundled().model, &how, w.out(), error));
    executor = {};  // it was copied
    CHECK(logits_of(w) == expected);
    CHECK(ranges > 10);
    auto info = sized<phi4flash_workspace_info>();
    C_API_OK(phi4flash_workspace_get_info(w, &info, error));
    CHECK(info.threads == 3);

    how.executor = nullptr;
    how.threads = 3;
    C_API_OK(phi4flash_workspace_create(bundled().model, &how, w.out(), error));
    CHECK(logits_of(w) == expected);
    C_API_OK(phi4flash_workspace_get_info(w, &info, error));
    CHECK(info.threads == 3);
    CHECK(std::strlen(info.kernels) > 2);
    how.threads = PHI4FLASH_ALL_CORES;
    C_API_OK(phi4flash_workspace_create(bundled().model, &how, w.out(), error));
    CHECK(logits_of(w) == expected);
    C_API_OK(phi4flash_workspace_get_info(w, &info, error));
    CHECK(info.threads == phi4flash_default_concurrency());

    // An executor that throws.
    executor = sized<phi4flash_executor>();
    executor.concurrency = 2;
    executor.parallel_for = [](void*, size_t, size_t, phi4flash_task, void*) { throw std::string("no threads today"); };
    how.threads = 0;
    how.executor = &executor;
    C_API_OK(phi4flash_workspace_create(bundled().model, &how, w.out(), error));
    C_API_OK(phi4flash_session_reset(s, error));
    C_API_FAILS(PHI4FLASH_HOST_EXCEPTION, phi4flash_session_read(s, w, prompt.data(), prompt.size(), nullptr, error));
    auto session = sized<phi4flash_session_info>();
    C_API_OK(phi4flash_session_get_info(s, &session, error));
    CHECK(session.position == 0);
    CHECK(session.busy == 0);
}
