/// Structs of programs that were compiled with an older or a newer header.
#include "c_api_testing.hpp"

#include <algorithm>

using namespace c_api_testing;

TEST_CASE("the smallest size there can be is as if the rest were zero") {
    // All that an older struct has is read; what it has not is the default.
    auto options = sized<phi4flash_session_options>();
    options.context = 64;
    options.undo = 1000000;  // refused, if it is read
    options.size = offsetof(phi4flash_session_options, undo);
    owned<phi4flash_session> s;
    C_API_OK(phi4flash_session_create(bundled().model, &options, s.out(), error));
    auto info = sized<phi4flash_session_info>();
    C_API_OK(phi4flash_session_get_info(s, &info, error));
    CHECK(info.context == 64);
    CHECK(info.undo == 0);
    options.size = 8;  // no context either, which must be given
    C_API_FAILS(PHI4FLASH_INVALID_ARGUMENT, phi4flash_session_create(bundled().model, &options, s.out(), error));
    options.size = sizeof options;
    C_API_FAILS(PHI4FLASH_INVALID_ARGUMENT, phi4flash_session_create(bundled().model, &options, s.out(), error));

    auto how = sized<phi4flash_workspace_options>();
    how.states = 100000;  // refused, if it is read
    how.size = offsetof(phi4flash_workspace_options, states);
    owned<phi4flash_workspace> w;
    C_API_OK(phi4flash_workspace_create(bundled().model, &how, w.out(), error));

    auto sampling = sized<phi4flash_generation_options>();
    sampling.prompt_only = 77;
    sampling.size = offsetof(phi4flash_generation_options, no_own_stops);
    owned<phi4flash_generation> g;
    C_API_OK(phi4flash_generation_create(w, bundled().words, &sampling, g.out(), error));
}

TEST_CASE("every older size of every struct that is given") {
    const auto w = make_workspace();
    for (std::size_t size = 16; size <= sizeof(phi4flash_generation_options); size += sizeof(void*)) {
        auto o = sized<phi4flash_generation_options>();
        o.size = static_cast<uint32_t>(size);
        owned<phi4flash_generation> g;
        C_API_OK(phi4flash_generation_create(w, bundled().words, &o, g.out(), error));
    }
    for (std::size_t size = 16; size <= sizeof(phi4flash_workspace_options); size += sizeof(void*)) {
        auto o = sized<phi4flash_workspace_options>();
        o.size = static_cast<uint32_t>(size);
        uint64_t bytes = 0;
        C_API_OK(phi4flash_workspace_get_bytes(bundled().model, &o, &bytes, error));
    }
    for (std::size_t size = 16; size <= sizeof(phi4flash_model_options); size += sizeof(void*)) {
        auto o = sized<phi4flash_model_options>();
        o.size = static_cast<uint32_t>(size);
        owned<phi4flash_model> m;
        C_API_OK(phi4flash_model_open(folder().data(), folder().size(), &o, m.out(), error));
    }
}

namespace {

/// Fills a struct of each older size, and of a newer one, and compares with the whole.
template <class T, class Fill>
void check_filled(Fill&& fill) {
    auto whole = sized<T>();
    REQUIRE(fill(&whole) == PHI4FLASH_OK);
    for (std::size_t size = 16; size <= sizeof(T) + 64; size += sizeof(void*)) {
        CAPTURE(size);
        alignas(64) unsigned char place[sizeof(T) + 128];
        std::memset(place, 0xee, sizeof place);
        T* const cut = reinterpret_cast<T*>(place);
        cut->size = static_cast<uint32_t>(size);
        REQUIRE(fill(cut) == PHI4FLASH_OK);
        CHECK(cut->size == size);
        const std::size_t known = (std::min)(size, sizeof(T));
        CHECK(std::memcmp(place + 4, reinterpret_cast<unsigned char*>(&whole) + 4, known - 4) == 0);
        CHECK(std::all_of(place + known, place + (std::max)(size, known), [](unsigned char c) { return c == 0; }));  // not known: zero
        CHECK(std::all_of(place + size, place + sizeof place, [](unsigned char c) { return c == 0xee; }));           // not the caller's
    }
}

}  // namespace

TEST_CASE("what is filled is cut to what the caller knows, and nothing behind it is touched") {
    const auto s = make_session();
    const auto w = make_workspace();
    const auto g = make_generation(w);
    check_filled<phi4flash_model_info>([](auto* i) { return phi4flash_model_get_info(bundled().model, i, nullptr); });
    check_filled<phi4flash_tokenizer_info>([](auto* i) { return phi4flash_tokenizer_get_info(bundled().words, i, nullptr); });
    check_filled<phi4flash_session_info>([&](auto* i) { return phi4flash_session_get_info(s, i, nullptr); });
    check_filled<phi4flash_workspace_info>([&](auto* i) { return phi4flash_workspace_get_info(w, i, nullptr); });
    check_filled<phi4flash_generation_info>([&](auto* i) { return phi4flash_generation_get_info(g, i, nullptr); });
    check_filled<phi4flash_generation_options>([](auto* i) { return phi4flash_generation_get_defaults(bundled().model, i, nullptr); });
    check_filled<phi4flash_event>([&](auto* i) { return phi4flash_generation_advance(g, nullptr, i, nullptr); });
}

TEST_CASE("a larger struct is taken if what this library does not know is zero") {
    struct newer {
        phi4flash_session_options known;
        uint64_t added[3];
    } options{};
    options.known.size = sizeof options;
    options.known.context = 64;
    owned<phi4flash_session> s;
    C_API_OK(phi4flash_session_create(bundled().model, &options.known, s.out(), error));
    options.added[2] = 1;
    phi4flash_error error;
    CHECK(phi4flash_session_create(bundled().model, &options.known, s.out(), &error) == PHI4FLASH_INVALID_ARGUMENT);
    CHECK(contains(error.message, "does not know"));
}

TEST_CASE("the size of a pointer is no size of a struct") {
    auto event = sized<phi4flash_event>();
    event.size = sizeof(void*);
    const auto w = make_workspace();
    const auto g = make_generation(w);
    C_API_FAILS(PHI4FLASH_INVALID_ARGUMENT, phi4flash_generation_advance(g, nullptr, &event, error));
    auto how = sized<phi4flash_workspace_options>();
    how.size = sizeof(void*);
    uint64_t bytes = 0;
    C_API_FAILS(PHI4FLASH_INVALID_ARGUMENT, phi4flash_workspace_get_bytes(bundled().model, &how, &bytes, error));
}

TEST_CASE("a reserved member must be zero") {
    const auto refused = [](phi4flash_code code, const phi4flash_error& why) {
        CHECK(code == PHI4FLASH_INVALID_ARGUMENT);
        CHECK(contains(why.message, "reserved: want 0, have 7"));
    };
    phi4flash_error why;
    phi4flash_model* model = nullptr;
    auto opening = sized<phi4flash_model_options>();
    opening.reserved = 7;
    refused(phi4flash_model_open(folder().data(), folder().size(), &opening, &model, &why), why);
    auto file = sized<phi4flash_file>();
    file.data = "{}";
    file.bytes = 2;
    file.reserved = 7;
    refused(phi4flash_model_open_files(&file, 1, nullptr, &model, &why), why);
    CHECK(model == nullptr);

    auto allocator = sized<phi4flash_allocator>();
    allocator.allocate = [](void*, size_t, size_t) -> void* { return nullptr; };
    allocator.release = [](void*, void*, size_t, size_t) {};
    allocator.reserved = 7;
    phi4flash_tokenizer* words = nullptr;
    refused(phi4flash_tokenizer_open_json("{}", 2, &allocator, &words, &why), why);

    const auto w = make_workspace();
    auto many = sized<phi4flash_scheduler_options>();
    many.reserved = 7;
    phi4flash_scheduler* none = nullptr;
    refused(phi4flash_scheduler_create(w, bundled().words, &many, &none, &why), why);
    many.reserved = 0;
    owned<phi4flash_scheduler> scheduler;
    C_API_OK(phi4flash_scheduler_create(w, bundled().words, &many, scheduler.out(), error));

    auto budget = always_at_once();
    budget.reserved = 7;
    uint32_t outcome = 0;
    refused(phi4flash_scheduler_tick(scheduler, &budget, &outcome, &why), why);
    const auto g = make_generation(w);
    auto event = sized<phi4flash_event>();
    refused(phi4flash_generation_advance(g, &budget, &event, &why), why);
}

TEST_CASE("the defaults are those of the model's files") {
    auto options = sized<phi4flash_generation_options>();
    C_API_OK(phi4flash_generation_get_defaults(bundled().model, &options, error));
    CHECK(options.size == sizeof options);
    CHECK(options.max_tokens > 0);
    CHECK(options.top_p > 0.0f);
    const auto w = make_workspace();
    owned<phi4flash_generation> g;
    C_API_OK(phi4flash_generation_create(w, bundled().words, &options, g.out(), error));
}

TEST_CASE("a sentence that is too long is cut between two characters") {
    // 127 characters of three bytes each behind "x": no cut at an even number of bytes is one of characters.
    for (std::size_t shift = 0; shift < 4; ++shift) {
        std::string path(shift, 'x');
        for (int i = 0; i < 400; ++i) path += "\xe2\x82\xac";
        phi4flash_model* none = nullptr;
        phi4flash_error error;
        CHECK(phi4flash_model_open(path.data(), path.size(), nullptr, &none, &error) != PHI4FLASH_OK);
        const std::string_view text(error.message);
        REQUIRE(!text.empty());
        std::size_t left = 0;
        bool whole = true;
        for (const char c : text) {
            const auto byte = static_cast<unsigned char>(c);
            if (left != 0) {
                whole = whole && (byte & 0xc0) == 0x80;
                --left;
            } else {
                left = byte >= 0xf0 ? 3 : byte >= 0xe0 ? 2 : byte >= 0xc0 ? 1 : 0;
                whole = whole && (byte & 0xc0) != 0x80;
            }
        }
        CHECK(whole);
        CHECK(left == 0);
    }
}
