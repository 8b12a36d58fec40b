/// Memory: the host's allocator counts, and fails, at every call; the C++ heap does too. Files from memory and by readers.
#include "c_api_testing.hpp"
#include "support/failing_memory.hpp"

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <new>

using namespace c_api_testing;

namespace {

/// Counts what it gave and has not got back; fails when `left` is used up.
struct counting_allocator {
    long left = -1;
    size_t calls = 0;
    size_t bytes = 0;
    size_t blocks = 0;
    bool wrong = false;

    static void* allocate(void* self, size_t bytes, size_t alignment) {
        auto& a = *static_cast<counting_allocator*>(self);
        ++a.calls;
        if (a.left == 0) return nullptr;
        if (a.left > 0) --a.left;
        a.wrong = a.wrong || alignment > 64 || (alignment & (alignment - 1)) != 0 || bytes == 0;
        a.bytes += bytes;
        ++a.blocks;
        return ::operator new(bytes, std::align_val_t{alignment});
    }
    static void release(void* self, void* memory, size_t bytes, size_t alignment) {
        auto& a = *static_cast<counting_allocator*>(self);
        a.bytes -= bytes;
        --a.blocks;
        ::operator delete(memory, std::align_val_t{alignment});
    }
    phi4flash_allocator as_struct() {
        auto a = sized<phi4flash_allocator>();
        a.user = this;
        a.allocate = &counting_allocator::allocate;
        a.release = &counting_allocator::release;
        return a;
    }
};

/// Everything that takes memory, once; ends with the first call that does not succeed.
phi4flash_code whole_talk(const phi4flash_allocator* allocator, std::string* text) {
    phi4flash_error error;
    auto opening = sized<phi4flash_model_options>();
    opening.allocator = allocator;
    owned<phi4flash_model> model;
    owned<phi4flash_tokenizer> words;
    owned<phi4flash_session> session;
    owned<phi4flash_session> fork;
    owned<phi4flash_workspace> workspace;
    owned<phi4flash_generation> generation;
    owned<phi4flash_scheduler> scheduler;
    owned<phi4flash_prefix_cache> cache;
    const auto answer = [&](phi4flash_code code) {
        if (code != PHI4FLASH_OK) {
            failing_memory::left = -1;  // the test itself needs some
            CHECK_MESSAGE(code == PHI4FLASH_OUT_OF_MEMORY, error.message);
            CHECK(std::strlen(error.message) > 10);
        }
        return code != PHI4FLASH_OK;
    };
    phi4flash_code code = phi4flash_model_open(folder().data(), folder().size(), &opening, model.out(), &error);
    if (answer(code)) return code;
    code = phi4flash_tokenizer_open(model, words.out(), &error);
    if (answer(code)) return code;
    auto room = sized<phi4flash_session_options>();
    room.context = 128;
    code = phi4flash_session_create(model, &room, session.out(), &error);
    if (answer(code)) return code;
    auto how = sized<phi4flash_workspace_options>();
    how.chunk = 16;
    code = phi4flash_workspace_create(model, &how, workspace.out(), &error);
    if (answer(code)) return code;
    auto options = greedy(6);
    const phi4flash_string stop{"never in this text", 18};
    options.stop_strings = &stop;
    options.n_stop_strings = 1;
    code = phi4flash_generation_create(workspace, words, &options, generation.out(), &error);
    if (answer(code)) return code;
    auto message = sized<phi4flash_chat_message>();
    message.role = "user";
    message.role_length = 4;
    message.content = "What is 1 + 1?";
    message.content_length = 14;
    int32_t prompt[64];
    size_t count = 0;
    code = phi4flash_tokenizer_encode_chat(words, &message, 1, nullptr, prompt, 64, &count, &error);
    if (answer(code)) return code;
    code = phi4flash_generation_start(generation, session, prompt, count, &error);
    if (answer(code)) return code;
    auto event = sized<phi4flash_event>();
    text->clear();
    do {
        code = phi4flash_generation_advance(generation, nullptr, &event, &error);
        if (answer(code)) return code;
        text->append(event.text, event.text_length);
    } while (event.kind != PHI4FLASH_EVENT_END);
    code = phi4flash_session_fork(session, nullptr, fork.out(), &error);
    if (answer(code)) return code;
    auto budget = sized<phi4flash_prefix_cache_options>();
    code = phi4flash_prefix_cache_get_bytes(model, PHI4FLASH_KV_BF16, 2, 64, &budget.bytes, &error);
    if (answer(code)) return code;
    code = phi4flash_prefix_cache_create(model, &budget, cache.out(), &error);
    if (answer(code)) return code;
    code = phi4flash_scheduler_create(workspace, words, nullptr, scheduler.out(), &error);
    if (answer(code)) return code;
    uint64_t request = 0;
    code = phi4flash_scheduler_submit(scheduler, fork, prompt, count, &options, &request, &error);
    if (answer(code)) return code;
    return code;
}

std::string file_text(const std::string& name) {
    std::ifstream file(folder() + "/" + name, std::ios::binary);
    REQUIRE(file);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// The bundled model's files, in memory.
struct in_memory {
    std::string names[4] = {"config.json", "generation_config.json", "tokenizer.json", "model.safetensors"};
    std::string texts[4];
    phi4flash_file files[4];
    in_memory() {
        for (int i = 0; i < 4; ++i) {
            texts[i] = file_text(names[i]);
            files[i] = sized<phi4flash_file>();
            files[i].name = names[i].data();
            files[i].name_length = names[i].size();
            files[i].data = texts[i].data();
            files[i].bytes = texts[i].size();
        }
    }
    /// By readers from here on, and not by their memory.
    void give_to(text_reader (&readers)[4]) {
        for (int i = 0; i < 4; ++i) {
            readers[i].text = &texts[i];
            files[i].data = nullptr;
            files[i].user = &readers[i];
            files[i].read = &text_reader::read;
        }
    }
};

constexpr const char* small_question = "What is 40 + 2?";

}  // namespace

TEST_CASE("a host's allocator gives all large blocks, and gets everything back") {
    counting_allocator memory;
    const auto allocator = memory.as_struct();
    {
        auto opening = sized<phi4flash_model_options>();
        opening.allocator = &allocator;
        owned<phi4flash_model> model;
        owned<phi4flash_session> session;
        owned<phi4flash_workspace> workspace;
        C_API_OK(phi4flash_model_open(folder().data(), folder().size(), &opening, model.out(), error));
        auto info = sized<phi4flash_model_info>();
        C_API_OK(phi4flash_model_get_info(model, &info, error));
        CHECK(info.owned_bytes > 0);
        CHECK(memory.bytes >= info.owned_bytes);
        auto room = sized<phi4flash_session_options>();
        room.context = 1000;
        uint64_t bytes = 0;
        C_API_OK(phi4flash_session_get_bytes(model, &room, &bytes, error));
        size_t before = memory.bytes;
        C_API_OK(phi4flash_session_create(model, &room, session.out(), error));
        CHECK(memory.bytes - before >= bytes);
        CHECK(memory.bytes - before < bytes + 4096);  // and its handle
        C_API_OK(phi4flash_workspace_get_bytes(model, nullptr, &bytes, error));
        before = memory.bytes;
        C_API_OK(phi4flash_workspace_create(model, nullptr, workspace.out(), error));
        CHECK(memory.bytes - before >= bytes);
        CHECK(memory.bytes - before < bytes + 4096);

        // One of its own.
        counting_allocator another;
        const auto own = another.as_struct();
        room.allocator = &own;
        owned<phi4flash_session> apart;
        C_API_OK(phi4flash_session_create(model, &room, apart.out(), error));
        CHECK(another.blocks == 2);
        apart = {};
        CHECK(another.blocks == 0);
        CHECK(another.bytes == 0);
    }
    CHECK(memory.blocks == 0);
    CHECK(memory.bytes == 0);
    CHECK(!memory.wrong);
}

TEST_CASE("handles are destroyed in any order: what others need lives on") {
    counting_allocator memory;
    const auto allocator = memory.as_struct();
    auto opening = sized<phi4flash_model_options>();
    opening.allocator = &allocator;
    owned<phi4flash_model> model;
    owned<phi4flash_tokenizer> words;
    owned<phi4flash_session> session;
    owned<phi4flash_workspace> workspace;
    owned<phi4flash_generation> generation;
    C_API_OK(phi4flash_model_open(folder().data(), folder().size(), &opening, model.out(), error));
    C_API_OK(phi4flash_tokenizer_open(model, words.out(), error));
    auto room = sized<phi4flash_session_options>();
    room.context = 128;
    C_API_OK(phi4flash_session_create(model, &room, session.out(), error));
    C_API_OK(phi4flash_workspace_create(model, nullptr, workspace.out(), error));
    const auto options = greedy();
    C_API_OK(phi4flash_generation_create(workspace, words, &options, generation.out(), error));
    const auto prompt = prompt_of("What is 40 + 2?");
    C_API_OK(phi4flash_generation_start(generation, session, prompt.data(), prompt.size(), error));
    model = {};
    words = {};
    workspace = {};
    session = {};
    CHECK(contains(finish(generation).text, "\\boxed{42}"));
    CHECK(memory.blocks > 0);
    generation = {};
    CHECK(memory.blocks == 0);
}

TEST_CASE("an allocator that fails at the nth call is an error, and everything is given back") {
    counting_allocator memory;
    const auto allocator = memory.as_struct();
    std::string text;
    REQUIRE(whole_talk(&allocator, &text) == PHI4FLASH_OK);
    const auto calls = static_cast<long>(memory.calls);
    CHECK(calls >= 8);
    CHECK(memory.blocks == 0);
    for (long n = 0; n < calls; ++n) {
        CAPTURE(n);
        memory = {};
        memory.left = n;
        CHECK(whole_talk(&allocator, &text) == PHI4FLASH_OUT_OF_MEMORY);
        CHECK(memory.blocks == 0);
        CHECK(memory.bytes == 0);
    }
}

#if defined(__GLIBC__)  // where a program's operator new is a shared library's, too
TEST_CASE("ticks and events take no memory of the C++ heap") {
    const auto w = make_workspace();
    const auto s = make_session();
    owned<phi4flash_scheduler> scheduler;
    C_API_OK(phi4flash_scheduler_create(w, bundled().words, nullptr, scheduler.out(), error));
    const auto prompt = prompt_of("What is 347 + 285?");
    const std::string stop(100000, 'x');
    const phi4flash_string stops[] = {{stop.data(), stop.size()}};
    auto options = greedy();
    options.stop_strings = stops;
    options.n_stop_strings = 1;
    uint64_t request = 0;
    C_API_OK(phi4flash_scheduler_submit(scheduler, s, prompt.data(), prompt.size(), &options, &request, error));
    std::string text;
    text.reserve(1 << 16);
    bool ended = false;
    for (int ticks = 0; !ended; ++ticks) {
        REQUIRE(ticks < 1000);
        uint32_t outcome = 0;
        auto event = sized<phi4flash_event>();
        failing_memory::left = 0;
        const phi4flash_code ticked = phi4flash_scheduler_tick(scheduler, nullptr, &outcome, nullptr);
        phi4flash_code told = PHI4FLASH_OK;
        do {
            told = phi4flash_scheduler_next_event(scheduler, &event, nullptr);
            if (told == PHI4FLASH_OK) text.append(event.text, event.text_length);
            ended = ended || event.kind == PHI4FLASH_EVENT_END;
        } while (told == PHI4FLASH_OK && event.kind != PHI4FLASH_EVENT_NONE);
        failing_memory::left = -1;
        REQUIRE(ticked == PHI4FLASH_OK);
        REQUIRE(told == PHI4FLASH_OK);
    }
    CHECK(contains(text, "\\boxed{632}"));
}

TEST_CASE("a C++ heap that fails at the nth call is an error, and nothing is thrown across") {
    (void)bundled();
    std::string expected;
    REQUIRE(whole_talk(nullptr, &expected) == PHI4FLASH_OK);
    long failures = 0;
    for (long n = 0; n < 1000000; n = n < 200 ? n + 1 : n + 1 + n / 50) {
        std::string text;
        text.reserve(4096);
        failing_memory::left = n;
        phi4flash_code code = PHI4FLASH_OUT_OF_MEMORY;
        try {
            code = whole_talk(nullptr, &text);
        } catch (const std::bad_alloc&) {  // the test's own
        }
        failing_memory::left = -1;
        if (code == PHI4FLASH_OK) {
            CHECK(text == expected);
            break;
        }
        REQUIRE(code == PHI4FLASH_OUT_OF_MEMORY);
        ++failures;
    }
    CHECK(failures > 50);
}
#endif

TEST_CASE("an allocator whose memory is not aligned is an error, and so is one that throws") {
    auto allocator = sized<phi4flash_allocator>();
    alignas(64) static unsigned char place[1 << 16];
    allocator.allocate = [](void*, size_t bytes, size_t) -> void* { return bytes < sizeof place - 1 ? place + 1 : nullptr; };
    allocator.release = [](void*, void*, size_t, size_t) {};
    auto room = sized<phi4flash_session_options>();
    room.context = 64;
    room.allocator = &allocator;
    phi4flash_session* none = nullptr;
    C_API_FAILS(PHI4FLASH_OUT_OF_MEMORY, phi4flash_session_create(bundled().model, &room, &none, error));
    allocator.allocate = [](void*, size_t, size_t) -> void* { throw 1; };
    C_API_FAILS(PHI4FLASH_HOST_EXCEPTION, phi4flash_session_create(bundled().model, &room, &none, error));
    CHECK(none == nullptr);
}

TEST_CASE("a list of files is looked at before anything is read or taken") {
    in_memory all;
    text_reader readers[4];
    all.give_to(readers);
    counting_allocator memory;
    const auto allocator = memory.as_struct();
    auto opening = sized<phi4flash_model_options>();
    opening.allocator = &allocator;
    const auto refused = [&](phi4flash_file* files, size_t count, phi4flash_code code, const char* words) {
        CAPTURE(words);
        phi4flash_model* none = nullptr;
        phi4flash_error error;
        CHECK(phi4flash_model_open_files(files, count, &opening, &none, &error) == code);
        CHECK_MESSAGE(contains(error.message, words), error.message);
        CHECK(none == nullptr);
        for (const text_reader& reader : readers) CHECK(reader.calls == 0);
        CHECK(memory.calls == 0);
    };
    const auto named = [](phi4flash_file file, std::string_view name) {
        file.name = name.data();
        file.name_length = name.size();
        return file;
    };
    phi4flash_file* const f = all.files;
    refused(f, 3, PHI4FLASH_FILE_NOT_FOUND, "files: there is no *.safetensors");
    refused(f + 1, 3, PHI4FLASH_FILE_NOT_FOUND, "files: there is no config.json");
    refused(f + 3, 1, PHI4FLASH_FILE_NOT_FOUND, "files: there is no config.json");
    refused(f, 1, PHI4FLASH_FILE_NOT_FOUND, "files: there is no *.safetensors");
    phi4flash_file list[5] = {f[0], f[1], f[2], f[3], f[0]};
    refused(list, 5, PHI4FLASH_INVALID_ARGUMENT, "files: want one config.json, have config.json and config.json");
    list[4] = named(f[3], "model.gguf");
    refused(list, 5, PHI4FLASH_INVALID_ARGUMENT, "model.gguf: a GGUF file, which has its configuration and tokenizer in it");
    list[4] = named(f[3], "model.safetensors");
    refused(list, 5, PHI4FLASH_INVALID_ARGUMENT, "files: want one model.safetensors, have two");
    list[4] = named(f[0], "assets/npc/config.json");
    refused(list, 5, PHI4FLASH_INVALID_ARGUMENT, "files: want one config.json, have config.json and assets/npc/config.json");
    list[4] = f[1];
    list[4].name = nullptr;
    refused(list, 5, PHI4FLASH_INVALID_ARGUMENT, "name of file 4: want a pointer");
    list[4] = f[1];
    list[4].size = 8;
    refused(list, 5, PHI4FLASH_INVALID_ARGUMENT, "file 4: want the size of the first");
    list[4] = named(f[1], "vocab.json");
    list[4].bytes = 0;
    refused(list, 5, PHI4FLASH_FILE_EMPTY, "vocab.json: it has no bytes");
    list[4].bytes = f[1].bytes;
    list[4].data = all.texts[1].data();
    refused(list, 5, PHI4FLASH_INVALID_ARGUMENT, "vocab.json: want data or a reader, have both");
    list[4] = named(f[1], "");
    refused(list, 5, PHI4FLASH_INVALID_ARGUMENT, "have 'file 4'");
    for (size_t i = 0; i < 4; ++i) {
        const std::string_view name(f[i].name, f[i].name_length);
        if (!name.ends_with(".json")) continue;
        std::copy(f, f + 4, list);
        list[i].bytes = uint64_t{1} << 30;
        refused(list, 4, PHI4FLASH_FILE_TOO_LARGE, "have 1073741824");
    }

    // Room that is not there is told with the name of the file that it was for.
    memory.left = 0;
    phi4flash_model* none = nullptr;
    phi4flash_error refusal;
    CHECK(phi4flash_model_open_files(f, 4, &opening, &none, &refusal) == PHI4FLASH_OUT_OF_MEMORY);
    CHECK_MESSAGE(std::string_view(refusal.message).starts_with("config.json: "), refusal.message);
    memory.left = -1;

    // Folders before the names do not matter; a file that is not needed is not read.
    text_reader unread;
    list[4] = named(f[1], "vocab.json");
    list[4].user = &unread;
    list[0] = named(f[0], "npc/config.json");
    list[2] = named(f[2], "npc\\tokenizer.json");
    list[3] = named(f[3], "npc/model.safetensors");
    owned<phi4flash_model> model;
    C_API_OK(phi4flash_model_open_files(list, 5, &opening, model.out(), error));
    CHECK(unread.calls == 0);
    CHECK(readers[3].calls == 1);
    auto info = sized<phi4flash_model_info>();
    C_API_OK(phi4flash_model_get_info(model, &info, error));
    CHECK(info.has_tokenizer == 1);

    // A file that is something else is told by its name.
    const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n";
    list[3].read = nullptr;
    list[3].data = pointer.data();
    list[3].bytes = pointer.size();
    phi4flash_error error;
    CHECK(phi4flash_model_open_files(list, 5, &opening, model.out(), &error) == PHI4FLASH_WRONG_FILE_KIND);
    CHECK_MESSAGE(std::string_view(error.message).starts_with("npc/model.safetensors: a Git LFS pointer"), error.message);
    const std::string bad_name = "npc/\xff\xc3\xa9.safetensors";
    list[3] = named(list[3], bad_name);
    CHECK(phi4flash_model_open_files(list, 5, &opening, model.out(), &error) == PHI4FLASH_WRONG_FILE_KIND);
    CHECK_MESSAGE(std::string_view(error.message).starts_with("npc/?\xc3\xa9.safetensors: "), error.message);
}

TEST_CASE("a model from memory, and by readers") {
    in_memory all;
    owned<phi4flash_model> model;
    C_API_OK(phi4flash_model_open_files(all.files, 4, nullptr, model.out(), error));
    const std::string expected = ask_model(bundled().model, small_question);
    CHECK(contains(expected, "\\boxed{42}"));
    CHECK(ask_model(model, small_question) == expected);

    text_reader readers[4];
    all.give_to(readers);
    counting_allocator memory;
    const auto allocator = memory.as_struct();
    auto opening = sized<phi4flash_model_options>();
    opening.allocator = &allocator;
    C_API_OK(phi4flash_model_open_files(all.files, 4, &opening, model.out(), error));
    CHECK(memory.bytes >= all.texts[3].size());
    CHECK(ask_model(model, small_question) == expected);
    auto info = sized<phi4flash_model_info>();
    C_API_OK(phi4flash_model_get_info(model, &info, error));
    CHECK(info.owned_bytes >= all.texts[3].size());
    CHECK(info.has_tokenizer == 1);

    for (auto& reader : readers) {
        reader.left = 0;
        C_API_FAILS(PHI4FLASH_HOST_FAILED, phi4flash_model_open_files(all.files, 4, &opening, model.out(), error));
        reader.left = -1;
    }
    all.files[2].read = [](void*, uint64_t, void*, size_t) -> int32_t { throw std::string("no"); };
    C_API_FAILS(PHI4FLASH_HOST_EXCEPTION, phi4flash_model_open_files(all.files, 4, &opening, model.out(), error));
    all.files[2].read = &text_reader::read;
    CHECK(memory.blocks == 0);

    // At an odd place it is copied.
    std::string shifted = "x" + all.texts[3];
    all.files[3].read = nullptr;
    all.files[3].data = shifted.data() + 1;
    C_API_OK(phi4flash_model_open_files(all.files, 4, nullptr, model.out(), error));
    CHECK(ask_model(model, small_question) == expected);
    // What is missing is told.
    C_API_FAILS(PHI4FLASH_FILE_NOT_FOUND, phi4flash_model_open_files(all.files, 3, nullptr, model.out(), error));
    C_API_FAILS(PHI4FLASH_FILE_NOT_FOUND, phi4flash_model_open_files(all.files + 1, 3, nullptr, model.out(), error));
    all.files[3].bytes = 0;
    C_API_FAILS(PHI4FLASH_FILE_EMPTY, phi4flash_model_open_files(all.files, 4, nullptr, model.out(), error));
    all.files[3].bytes = 100;
    phi4flash_error error;
    CHECK(phi4flash_model_open_files(all.files, 4, nullptr, model.out(), &error) == PHI4FLASH_FILE_INCOMPLETE);
    CHECK_MESSAGE(std::string_view(error.message).starts_with(std::string(all.files[3].name, all.files[3].name_length) + ": "), error.message);
    all.files[3] = all.files[0];
    const std::string twice = "files: want one config.json, have config.json and config.json";
    CHECK(phi4flash_model_open_files(all.files, 4, nullptr, model.out(), &error) == PHI4FLASH_INVALID_ARGUMENT);
    CHECK_MESSAGE(error.message == twice, error.message);
}
