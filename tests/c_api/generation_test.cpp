/// The C API writes texts: the same as the C++ API, in pieces, cancelled, saved, restored, forked, taken back.
#include "c_api_testing.hpp"

#include <phi4flash/phi4flash.hpp>

#if PHI4FLASH_HAS_JSON
namespace p4 = phi4flash;
using namespace c_api_testing;

namespace {

constexpr std::string_view sum_asked = "What is 347 + 285?";

/// The same text by the C++ API.
template <class Kv>
std::string text_of_cpp(std::string_view asked) {
    const auto files = p4::model_files::open(folder());
    REQUIRE(files);
    const auto model = p4::model<>::bind(*files);
    const auto words = files->open_tokenizer();
    REQUIRE(model);
    REQUIRE(words);
    auto session = p4::session<p4::any_sambay, Kv>::create(*model, 256);
    auto workspace = p4::workspace<p4::any_sambay, Kv>::create(*model, {.chunk = 8});
    REQUIRE(session);
    REQUIRE(workspace);
    std::vector<std::int32_t> prompt;
    p4::encoder encoder(*words);
    const p4::chat_message message{"user", asked};
    REQUIRE(p4::encode_chat(encoder, {&message, 1}, {}, prompt));
    p4::generation_options options;
    options.sampling.temperature = 0.0f;
    options.max_tokens = 100;
    const auto* const end = p4::end_of_message(*words);
    REQUIRE(end != nullptr);
    options.stop_ids = {static_cast<std::int32_t>(end->id)};
    std::string text;
    const auto done = p4::generate(*model, *session, *workspace, &*words, prompt, options, [&](const p4::generation_event& event) {
        text += event.text;
        return true;
    });
    REQUIRE(done);
    return text;
}

}  // namespace

TEST_CASE("right sums, and the same text as the C++ API, with every K/V type") {
    const std::string expected[] = {text_of_cpp<p4::bf16>(sum_asked), text_of_cpp<float>(sum_asked), text_of_cpp<p4::kv_int8>(sum_asked)};
    for (const uint32_t kv : {PHI4FLASH_KV_BF16, PHI4FLASH_KV_F32, PHI4FLASH_KV_INT8}) {
        CAPTURE(kv);
        const auto s = make_session(kv);
        const auto w = make_workspace(kv);
        const auto g = make_generation(w);
        const answer a = ask(g, s, sum_asked);
        CHECK(a.text == expected[kv]);
        CHECK(contains(a.text, "\\boxed{632}"));
        CHECK(a.reason == PHI4FLASH_END_STOP_TOKEN);
        auto info = sized<phi4flash_generation_info>();
        C_API_OK(phi4flash_generation_get_info(g, &info, error));
        CHECK(info.running == 0);
        CHECK(info.reason == PHI4FLASH_END_STOP_TOKEN);
        CHECK(info.new_tokens == a.tokens.size());
        CHECK(info.prompt_tokens == prompt_of(sum_asked).size());
        // Another text with the same generation.
        C_API_OK(phi4flash_session_reset(s, error));
        CHECK(contains(ask(g, s, "What is 12 + 30?").text, "\\boxed{42}"));
    }
}

TEST_CASE("a budget cuts a text into pieces and changes nothing") {
    const auto s = make_session();
    const auto w = make_workspace();
    const auto g = make_generation(w);
    const answer whole = ask(g, s, sum_asked);
    CHECK(whole.nothing_yet == 0);

    C_API_OK(phi4flash_session_reset(s, error));
    const auto at_once = always_at_once();
    const answer smallest = ask(g, s, sum_asked, &at_once);
    CHECK(smallest.text == whole.text);
    CHECK(smallest.tokens == whole.tokens);
    CHECK(smallest.nothing_yet > 10 * whole.calls);  // a layer has three pieces

    // By the host's clock: it moves a millisecond with every question.
    C_API_OK(phi4flash_session_reset(s, error));
    uint64_t time = 5;
    auto by_time = sized<phi4flash_budget>();
    by_time.microseconds = 3000;
    by_time.user = &time;
    by_time.now = [](void* t) { return *static_cast<uint64_t*>(t) += 1000; };
    const answer timed = ask(g, s, sum_asked, &by_time);
    CHECK(timed.text == whole.text);
    CHECK(timed.nothing_yet > whole.calls);
    CHECK(timed.nothing_yet < smallest.nothing_yet);
}

TEST_CASE("prompt progress is told, and a prompt can be read alone") {
    const auto s = make_session();
    const auto w = make_workspace();
    auto options = greedy();
    options.prompt_only = 1;
    const auto g = make_generation(w, options);
    const auto prompt = prompt_of(sum_asked);
    REQUIRE(prompt.size() > 8);
    C_API_OK(phi4flash_generation_start(g, s, prompt.data(), prompt.size(), error));
    auto event = sized<phi4flash_event>();
    C_API_OK(phi4flash_generation_advance(g, nullptr, &event, error));
    CHECK(event.kind == PHI4FLASH_EVENT_PROMPT);
    CHECK(event.prompt_read == 8);
    CHECK(event.prompt_total == prompt.size());
    const answer rest = finish(g);
    CHECK(rest.tokens.empty());
    CHECK(rest.reason == PHI4FLASH_END_MAX_TOKENS);
    auto info = sized<phi4flash_session_info>();
    C_API_OK(phi4flash_session_get_info(s, &info, error));
    CHECK(info.position == prompt.size());
    CHECK(info.busy == 0);
}

TEST_CASE("a text is cancelled at every piece: its session is whole, and writes the right text afterwards") {
    const auto s = make_session();
    const auto w = make_workspace();
    const auto g = make_generation(w);
    const answer whole = ask(g, s, sum_asked);
    for (int pieces = 0; pieces < 200; pieces += 7) {
        C_API_OK(phi4flash_session_reset(s, error));
        const auto prompt = prompt_of(sum_asked);
        C_API_OK(phi4flash_generation_start(g, s, prompt.data(), prompt.size(), error));
        auto event = sized<phi4flash_event>();
        const auto budget = always_at_once();
        for (int i = 0; i < pieces; ++i) C_API_OK(phi4flash_generation_advance(g, &budget, &event, error));
        C_API_OK(phi4flash_generation_cancel(g, error));
        C_API_OK(phi4flash_generation_advance(g, nullptr, &event, error));
        CHECK(event.kind == PHI4FLASH_EVENT_END);
        CHECK(event.reason == PHI4FLASH_END_CANCELLED);
        C_API_OK(phi4flash_generation_advance(g, nullptr, &event, error));
        CHECK(event.kind == PHI4FLASH_EVENT_NONE);
    }
    C_API_OK(phi4flash_session_reset(s, error));
    CHECK(ask(g, s, sum_asked).text == whole.text);
}

TEST_CASE("stops: strings, ids, lengths, and those of the model") {
    const auto s = make_session();
    const auto w = make_workspace();
    const answer whole = ask(make_generation(w), s, sum_asked);
    const auto run = [&](const phi4flash_generation_options& o) {
        C_API_OK(phi4flash_session_reset(s, error));
        return ask(make_generation(w, o), s, sum_asked);
    };
    auto options = greedy();
    const phi4flash_string stop{"\\boxed", 6};
    options.stop_strings = &stop;
    options.n_stop_strings = 1;
    const answer cut = run(options);
    CHECK(cut.reason == PHI4FLASH_END_STOP_STRING);
    CHECK(cut.text == whole.text.substr(0, whole.text.find("\\boxed")));

    const phi4flash_string empty{};  // is none
    options.stop_strings = &empty;
    CHECK(run(options).text == whole.text);

    options = greedy();
    options.stop_ids = &whole.tokens[3];
    options.n_stop_ids = 1;
    const answer by_id = run(options);
    CHECK(by_id.reason == PHI4FLASH_END_STOP_TOKEN);
    CHECK(by_id.tokens.size() <= 3);

    CHECK(run(greedy(5)).tokens.size() == 5);
    CHECK(run(greedy(5)).reason == PHI4FLASH_END_MAX_TOKENS);

    options = greedy();
    options.no_own_stops = 1;
    CHECK(run(options).tokens.size() == 100);
}

TEST_CASE("saved, restored and forked at any point, a text goes on as it would have") {
    const auto s = make_session();
    const auto w = make_workspace();
    const auto g = make_generation(w);
    const answer whole = ask(g, s, sum_asked);
    for (const size_t tokens : {size_t{0}, size_t{1}, size_t{9}}) {
        CAPTURE(tokens);
        C_API_OK(phi4flash_session_reset(s, error));
        const auto prompt = prompt_of(sum_asked);
        C_API_OK(phi4flash_generation_start(g, s, prompt.data(), prompt.size(), error));
        answer begun;
        auto event = sized<phi4flash_event>();
        while (begun.tokens.size() < tokens || event.prompt_read < prompt.size()) {
            C_API_OK(phi4flash_generation_advance(g, nullptr, &event, error));
            begun.text.append(event.text, event.text_length);
            if (event.kind == PHI4FLASH_EVENT_TOKEN) begun.tokens.push_back(event.token);
        }
        uint64_t want = 0;
        size_t written = 0;
        C_API_OK(phi4flash_session_get_snapshot_bytes(s, PHI4FLASH_ALL_UNDO, &want, error));
        std::vector<std::byte> saved(want);
        C_API_FAILS(PHI4FLASH_BUFFER_TOO_SMALL, phi4flash_session_save(s, PHI4FLASH_ALL_UNDO, saved.data(), want - 1, &written, error));
        CHECK(written == want);
        C_API_OK(phi4flash_session_save(s, PHI4FLASH_ALL_UNDO, saved.data(), saved.size(), &written, error));
        CHECK(written == want);
        owned<phi4flash_session> fork;
        C_API_OK(phi4flash_session_fork(s, nullptr, fork.out(), error));
        const answer rest = finish(g, nullptr, begun);
        CHECK(rest.text == whole.text);

        // Piece by piece, into a new session.
        std::vector<std::byte> pieces;
        const auto restored = make_session();
        C_API_OK(phi4flash_session_restore(restored, saved.data(), saved.size(), error));
        C_API_OK(phi4flash_session_save_to(
            restored, PHI4FLASH_ALL_UNDO,
            [](void* user, const void* data, size_t bytes) -> int32_t {
                const auto* const from = static_cast<const std::byte*>(data);
                static_cast<std::vector<std::byte>*>(user)->insert(static_cast<std::vector<std::byte>*>(user)->end(), from, from + bytes);
                return 0;
            },
            &pieces, error));
        CHECK(pieces == saved);
        auto about = sized<phi4flash_snapshot_info>();
        C_API_OK(phi4flash_snapshot_get_info(pieces.data(), pieces.size(), &about, error));
        CHECK(about.bytes == saved.size());
        CHECK(about.kv_type == PHI4FLASH_KV_F32);
        auto model = sized<phi4flash_model_info>();
        C_API_OK(phi4flash_model_get_info(bundled().model, &model, error));
        CHECK(about.fingerprint == model.fingerprint);
        const auto again = make_session();
        std::string_view left(reinterpret_cast<const char*>(pieces.data()), pieces.size());
        C_API_OK(phi4flash_session_restore_from(
            again,
            [](void* user, void* into, size_t bytes) -> int32_t {
                auto& from = *static_cast<std::string_view*>(user);
                if (from.size() < bytes) return 1;
                std::memcpy(into, from.data(), bytes);
                from.remove_prefix(bytes);
                return 0;
            },
            &left, error));

        // What follows the last token told: it has not been read.
        const int32_t next = tokens == 0 ? prompt.back() : begun.tokens.back();
        for (phi4flash_session* const other : {static_cast<phi4flash_session*>(fork), static_cast<phi4flash_session*>(restored),
                                               static_cast<phi4flash_session*>(again)}) {
            if (tokens == 0) continue;  // the prompt's last token has been read: nothing is left to begin with
            C_API_OK(phi4flash_generation_start(g, other, &next, 1, error));
            const answer gone_on = finish(g, nullptr, {begun.text, begun.tokens, 99, 0, 0});
            CHECK(gone_on.text == whole.text);
        }
    }
}

TEST_CASE("a host's callback that fails, or throws, is an error, and nothing is lost") {
    const auto s = make_session();
    const auto prompt = prompt_of(sum_asked);
    const auto w = make_workspace();
    C_API_OK(phi4flash_session_read(s, w, prompt.data(), prompt.size(), nullptr, error));
    const auto fails = [](void*, const void*, size_t) -> int32_t { return 7; };
    const auto throws = [](void*, const void*, size_t) -> int32_t { throw std::string("no"); };
    C_API_FAILS(PHI4FLASH_HOST_FAILED, phi4flash_session_save_to(s, 0, fails, nullptr, error));
    C_API_FAILS(PHI4FLASH_HOST_EXCEPTION, phi4flash_session_save_to(s, 0, throws, nullptr, error));
    const auto g = make_generation(w);
    C_API_OK(phi4flash_session_reset(s, error));
    C_API_OK(phi4flash_generation_start(g, s, prompt.data(), prompt.size(), error));
    auto bad = sized<phi4flash_budget>();
    bad.stop = [](void*) -> int32_t { throw 1; };
    auto event = sized<phi4flash_event>();
    C_API_FAILS(PHI4FLASH_HOST_EXCEPTION, phi4flash_generation_advance(g, &bad, &event, error));
    CHECK(contains(finish(g).text, "\\boxed{632}"));
}

TEST_CASE("rewind, copy, and logits") {
    const auto w = make_workspace(PHI4FLASH_KV_F32, 5);
    const auto s = make_session(PHI4FLASH_KV_F32, 64, 4);
    const auto other = make_session(PHI4FLASH_KV_F32, 64);
    const int32_t tokens[] = {5, 6, 7, 8, 9};
    const float* logits = nullptr;
    C_API_OK(phi4flash_session_read(s, w, tokens, 4, nullptr, error));
    C_API_OK(phi4flash_session_read(s, w, tokens + 4, 1, &logits, error));
    auto model = sized<phi4flash_model_info>();
    C_API_OK(phi4flash_model_get_info(bundled().model, &model, error));
    const std::vector<float> first(logits, logits + model.vocabulary);
    C_API_OK(phi4flash_session_copy(other, s, error));
    C_API_OK(phi4flash_session_rewind(s, 4, error));
    C_API_OK(phi4flash_session_read(s, w, tokens + 4, 1, &logits, error));
    CHECK(std::vector<float>(logits, logits + model.vocabulary) == first);
    C_API_FAILS(PHI4FLASH_INVALID_ARGUMENT, phi4flash_session_rewind(s, 0, error));
    auto info = sized<phi4flash_session_info>();
    C_API_OK(phi4flash_session_get_info(other, &info, error));
    CHECK(info.position == 5);
    C_API_FAILS(PHI4FLASH_CONTEXT_FULL, phi4flash_session_read(other, w, std::vector<int32_t>(60, 1).data(), 60, nullptr, error));
    C_API_FAILS(PHI4FLASH_UNKNOWN_TOKEN, phi4flash_session_read(other, w, std::vector<int32_t>(1, 1 << 30).data(), 1, nullptr, error));
}

TEST_CASE("text to ids and back") {
    std::vector<int32_t> ids(64);
    size_t count = 0;
    const std::string text = "12 + 30 = 42 <|end|>";
    C_API_OK(
        phi4flash_tokenizer_encode(bundled().words, text.data(), text.size(), PHI4FLASH_MARKERS_ARE_TEXT, ids.data(), ids.size(), &count, error));
    const size_t as_text = count;
    C_API_OK(
        phi4flash_tokenizer_encode(bundled().words, text.data(), text.size(), PHI4FLASH_MARKERS_ARE_TOKENS, ids.data(), ids.size(), &count, error));
    CHECK(count < as_text);
    auto info = sized<phi4flash_tokenizer_info>();
    C_API_OK(phi4flash_tokenizer_get_info(bundled().words, &info, error));
    CHECK(ids[count - 1] == info.end_of_message);
    char out[64];
    size_t length = 0;
    C_API_FAILS(PHI4FLASH_BUFFER_TOO_SMALL, phi4flash_tokenizer_decode(bundled().words, ids.data(), count, 0, out, text.size(), &length, error));
    CHECK(length == text.size());
    C_API_OK(phi4flash_tokenizer_decode(bundled().words, ids.data(), count, 0, out, text.size() + 1, &length, error));
    CHECK(std::string_view(out) == text);
    C_API_FAILS(PHI4FLASH_BUFFER_TOO_SMALL, phi4flash_tokenizer_encode(bundled().words, text.data(), text.size(), 0, nullptr, 0, &count, error));
    CHECK(count == as_text);
    auto message = sized<phi4flash_chat_message>();
    message.role = "user";
    message.role_length = 4;
    message.content = "hi";
    message.content_length = 2;
    C_API_OK(phi4flash_render_chat(&message, 1, nullptr, out, sizeof out, &length, error));
    CHECK(std::string_view(out, length) == "<|user|>hi<|end|><|assistant|>");
}
#endif

TEST_CASE("generation: a start that is refused ends no text, whose session is kept") {
    const auto prompt = prompt_of("What is 347 + 285?");
    const auto w = make_workspace();
    const auto other_w = make_workspace();
    const auto g = make_generation(w);
    const auto other = make_generation(other_w);
    auto mine = make_session();
    const auto others = make_session();
    const auto at_once = always_at_once();
    auto event = sized<phi4flash_event>();
    C_API_OK(phi4flash_generation_start(other, others, prompt.data(), prompt.size(), error));
    C_API_OK(phi4flash_generation_advance(other, &at_once, &event, error));
    REQUIRE(event.kind == PHI4FLASH_EVENT_NONE);  // in the middle of a pass
    C_API_FAILS(PHI4FLASH_IN_USE, phi4flash_session_reset(others, error));
    C_API_OK(phi4flash_generation_start(g, mine, prompt.data(), prompt.size(), error));
    C_API_FAILS(PHI4FLASH_IN_USE, phi4flash_generation_start(g, others, prompt.data(), prompt.size(), error));
    const int32_t wrong = -1;
    C_API_FAILS(PHI4FLASH_UNKNOWN_TOKEN, phi4flash_generation_start(g, mine, &wrong, 1, error));
    std::vector<int32_t> longer = prompt;  // for which there is no place yet
    longer.insert(longer.end(), prompt.begin(), prompt.end());
    C_API_FAILS(PHI4FLASH_IN_USE, phi4flash_generation_start(g, others, longer.data(), longer.size(), error));
    longer.back() = -1;
    C_API_FAILS(PHI4FLASH_UNKNOWN_TOKEN, phi4flash_generation_start(g, mine, longer.data(), longer.size(), error));
    mine = {};  // the text that goes on keeps it
    CHECK(contains(finish(g).text, "\\boxed{632}"));
    CHECK(contains(finish(other).text, "\\boxed{632}"));
}
