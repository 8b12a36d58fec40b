/// A GGUF file through the C API: by its path, from memory, and by a host's reader.
#include "c_api_testing.hpp"
#include "io/io_testing.hpp"

#include <phi4flash/phi4flash.hpp>

#if PHI4FLASH_HAS_JSON
#include <fstream>
#include <iterator>
#include <optional>

namespace p4 = phi4flash;
using namespace c_api_testing;

namespace {

/// The bundled model as a packed file of 8 bits, with its tokenizer.
struct packed_file {
    io_testing::temporary_folder folder;
    std::string path = (folder.path() / "tiny.gguf").string();
    std::string bytes;

    packed_file() {
        const auto files = p4::model_files::open(c_api_testing::folder());
        REQUIRE(files);
        const auto words = files->open_tokenizer();
        REQUIRE(words);
        const auto text = p4::describe_tokenizer(*words, files->config().shape.vocab);
        REQUIRE(text);
        const p4::packed_model_info info{.name = "tiny", .config = files->config(), .generation = files->generation(), .tokenizer = &*text};
        const p4::conversion how{.matrices = p4::dtype::q8, .embedding = p4::dtype::q8};
        const auto done = p4::convert_model(*files, info, how, path, p4::executor_ref(), [](std::uint64_t, std::uint64_t) {});
        REQUIRE(done);
        std::ifstream in(path, std::ios::binary);
        bytes.assign(std::istreambuf_iterator<char>(in), {});
        REQUIRE(bytes.size() > 100000);
    }
};

constexpr const char* first_question = "What is 347 + 285?";

}  // namespace

TEST_CASE("a GGUF file by its path, from memory at any place, and by a reader: the same model") {
    const packed_file file;
    owned<phi4flash_model> model;
    C_API_OK(phi4flash_model_open(file.path.data(), file.path.size(), nullptr, model.out(), error));
    const std::string expected = ask_model(model, first_question);
    CHECK(contains(expected, "\\boxed{632}"));
    auto by_path = sized<phi4flash_model_info>();
    C_API_OK(phi4flash_model_get_info(model, &by_path, error));

    const auto check_same = [&](bool owns) {
        auto info = sized<phi4flash_model_info>();
        C_API_OK(phi4flash_model_get_info(model, &info, error));
        CHECK(info.fingerprint == by_path.fingerprint);
        CHECK(info.has_tokenizer == 1);
        CHECK((info.owned_bytes >= file.bytes.size()) == owns);
        CHECK(ask_model(model, first_question) == expected);
    };
    auto given = sized<phi4flash_file>();
    // Without a name: one file is a GGUF file by its first bytes.
    alignas(64) static unsigned char place[1 << 22];
    REQUIRE(file.bytes.size() + 1 <= sizeof place);
    std::memcpy(place, file.bytes.data(), file.bytes.size());
    given.data = place;
    given.bytes = file.bytes.size();
    C_API_OK(phi4flash_model_open_files(&given, 1, nullptr, model.out(), error));
    check_same(false);
    std::memmove(place + 1, place, file.bytes.size());  // an odd place: copied
    given.data = place + 1;
    C_API_OK(phi4flash_model_open_files(&given, 1, nullptr, model.out(), error));
    std::memset(place, 0xaa, sizeof place);
    check_same(true);

    text_reader reader{&file.bytes};
    given.data = nullptr;
    given.user = &reader;
    given.read = &text_reader::read;
    C_API_OK(phi4flash_model_open_files(&given, 1, nullptr, model.out(), error));
    const size_t calls = reader.calls;
    check_same(true);
    CHECK(reader.calls == calls);  // what a reader reads is read once
    CHECK(calls > 0);
}

TEST_CASE("a GGUF file by a reader that fails, or that is cut: a sentence, and no model") {
    const packed_file file;
    text_reader reader{&file.bytes};
    auto given = sized<phi4flash_file>();
    given.bytes = file.bytes.size();
    given.user = &reader;
    given.read = &text_reader::read;
    phi4flash_model* none = nullptr;
    owned<phi4flash_model> whole;
    C_API_OK(phi4flash_model_open_files(&given, 1, nullptr, whole.out(), error));
    for (size_t i = 0; i < reader.calls && i < 20; ++i) {
        text_reader failing{&file.bytes, static_cast<long>(i)};
        given.user = &failing;
        C_API_FAILS(PHI4FLASH_HOST_FAILED, phi4flash_model_open_files(&given, 1, nullptr, &none, error));
        CHECK(none == nullptr);
        CHECK(failing.calls == i + 1);  // not called after it failed
    }
    // The last bytes may be padding, which nobody misses.
    for (const size_t bytes : {size_t{1}, size_t{4}, size_t{24}, size_t{100}, file.bytes.size() / 2, file.bytes.size() - 4096}) {
        CAPTURE(bytes);
        const std::string cut = file.bytes.substr(0, bytes);
        text_reader short_one{&cut};
        given.user = &short_one;
        given.bytes = bytes;
        given.name = "npc.gguf";
        given.name_length = 8;
        phi4flash_error error;
        CHECK(phi4flash_model_open_files(&given, 1, nullptr, &none, &error) == PHI4FLASH_FILE_INCOMPLETE);
        CHECK(none == nullptr);
        CHECK_MESSAGE(std::string_view(error.message).starts_with("npc.gguf: "), error.message);
    }
    given.read = [](void*, uint64_t, void*, size_t) -> int32_t { throw std::string("no"); };
    C_API_FAILS(PHI4FLASH_HOST_EXCEPTION, phi4flash_model_open_files(&given, 1, nullptr, &none, error));
}
#endif
