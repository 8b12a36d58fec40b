/// What a user names as a model: a folder, a packed file, and what is neither.
#include "io/io_testing.hpp"

#include <model/golden.hpp>

#include <phi4flash/io/model_files.hpp>
#include <phi4flash/io/packed/convert.hpp>
#include <phi4flash/model/tensor_list.hpp>

using namespace phi4flash;
using namespace io_testing;

#if !defined(_WIN32)
#include <fcntl.h>
#include <unistd.h>
#endif

static_assert(tensor_source<model_files>);

TEST_CASE("io/model_files: a folder is what checkpoint::open makes of it") {
    const auto folder = golden::folder_of("f32-8l");
    const auto direct = checkpoint::open(folder);
    auto opened = model_files::open(folder);
    require_value(direct);
    require_value(opened);
    const model_files files = *std::move(opened);  // views survive a move
    CHECK(files.config().shape == direct->config().shape);
    CHECK(files.generation().stop_ids == direct->generation().stop_ids);
    CHECK(files.bytes() == direct->bytes());
    CHECK(files.packed() == nullptr);
    REQUIRE(files.tensors().size() == direct->tensors().size());
    for (const tensor_view& t : direct->tensors()) {
        REQUIRE(files.find(t.name) != nullptr);
        CHECK(files.find(t.name)->bytes == t.bytes);
    }
    CHECK_FALSE(files.has_tokenizer());
    check_error(files.open_tokenizer(), errc::file_not_found, {"no tokenizer"});
}

TEST_CASE("io/model_files: neither a folder nor a packed file") {
    check_error(model_files::open(""), errc::invalid_argument, {"path: want the folder or the file"});
    const temporary_folder folder;
    check_error(model_files::open(folder.path() / "absent"), errc::file_not_found, {"absent", "no such folder or file"});
    check_error(model_files::open(folder.path()), errc::file_not_found, {"config.json"});
    const auto file = folder.write("model.gguf", "\1\2\3\4, and longer than any header.");
    check_error(model_files::open(file), errc::bad_magic, {"model.gguf"});
    check_error(open_tokenizer_json(folder.path()), errc::file_not_found, {"tokenizer.json"});
    check_error(checkpoint::open(""), errc::invalid_argument, {"path: want"});
    check_error(packed_model::open(""), errc::invalid_argument, {"path: want"});
    check_error(open_tokenizer_json(""), errc::invalid_argument, {"path: want"});
    check_error(mapped_file::open(""), errc::invalid_argument, {"path: want"});
}

namespace {
struct memory_output {
    bytes content;
    status write(std::span<const std::byte> piece) {
        content.insert(content.end(), piece.begin(), piece.end());
        return {};
    }
};

/// The same tensors, by name, type and content.
void check_same(const model_files& have, const model_files& want) {
    REQUIRE(have.tensors().size() == want.tensors().size());
    for (const tensor_view& t : want.tensors()) {
        CAPTURE(t.name);
        const tensor_view* const other = have.find(t.name);
        REQUIRE(other != nullptr);
        CHECK(other->type == t.type);
        REQUIRE(other->bytes == t.bytes);
        CHECK(std::memcmp(other->data, t.data, t.bytes) == 0);
    }
    CHECK(have.config().shape == want.config().shape);
}

bytes packed_from(const model_files& files) {
    memory_output out;
    packed_model_info info;
    info.config = files.config();
    info.generation = files.generation();
    require_value(convert_model(files, info, {.matrices = dtype::q8, .embedding = dtype::q8}, out, {}, [](std::uint64_t, std::uint64_t) {}));
    return std::move(out.content);
}
}  // namespace

TEST_CASE("io/model_files: from memory it is what it is in files") {
    const auto folder = golden::folder_of("f32-8l");
    const auto files = model_files::open(folder);
    require_value(files);
    const auto weights = mapped_file::open(folder / "model.safetensors");
    const auto config = read_file(folder / "config.json", 1 << 20);
    require_value(weights);
    require_value(config);
    const std::span<const std::byte> tensors[] = {weights->bytes()};
    const auto memory = model_files::from_memory({tensors, *config});
    require_value(memory);
    check_same(*memory, *files);
    CHECK(memory->path().empty());
    CHECK_FALSE(memory->has_tokenizer());
    check_error(memory->open_tokenizer(), errc::file_not_found, {"no tokenizer"});
    const auto wrong = model_files::from_memory({tensors, *config, {}, "{}"});
    require_value(wrong);
    CHECK(wrong->has_tokenizer());
    check_error(wrong->open_tokenizer(), errc::json_missing_key, {"tokenizer.json"});

    const bytes packed = packed_from(*files);
    const temporary_folder made;
    const auto path = made.write("model.gguf", text_of(packed));
    const auto direct = model_files::open(path);
    const auto gguf = model_files::from_memory(packed);
    require_value(direct);
    require_value(gguf);
    check_same(*gguf, *direct);
    CHECK(gguf->owned_bytes() == 0);
}

TEST_CASE("io/model_files: files in memory are called by their names") {
    const auto files = model_files::open(golden::folder_of("f32-8l"));
    require_value(files);
    const bytes packed = packed_from(*files);
    const std::span<const std::byte> whole[] = {packed}, cut[] = {std::span(packed).first(packed.size() / 2)};
    const std::string_view name[] = {"npc.gguf"}, two[] = {"a", "b"};
    const auto model = model_files::from_memory({.weights = whole, .names = name});
    require_value(model);
    CHECK(model->path().empty());
    check_error(model->open_tokenizer(), errc::file_not_found, {"npc.gguf has no tokenizer"});
    check_error(model_files::from_memory({.weights = cut, .names = name}), errc::file_incomplete, {"npc.gguf: "});
    check_error(model_files::from_memory({.weights = whole, .names = two}), errc::invalid_argument, {"names: want one for each of 1 ", "have 2"});
    const bytes page = bytes_of("<!DOCTYPE html><html>");
    const std::span<const std::byte> wrong[] = {page};
    check_error(model_files::from_memory({.weights = wrong, .names = name}), errc::wrong_file_kind, {"npc.gguf: ", "a web page"});
    check_error(model_files::from_memory({.weights = wrong}), errc::wrong_file_kind, {"the model: ", "a web page"});
    const std::span<const std::byte> mixed[] = {whole[0], wrong[0]}, mixed_again[] = {wrong[0], whole[0]};
    check_error(model_files::from_memory({.weights = mixed, .names = two}), errc::invalid_argument, {"a: a GGUF file", "alone, have 2 files"});
    check_error(model_files::from_memory({.weights = mixed_again, .config = "{}", .names = two}), errc::invalid_argument, {"b: a GGUF file"});
    const std::string deep = std::string(200, 'x') + "/model-00002-of-00004.safetensors";
    const std::string_view deep_name[] = {deep};
    check_error(model_files::from_memory({.weights = wrong, .names = deep_name}), errc::wrong_file_kind, {"...", "/model-00002-of-00004.safe"});
    const std::string_view unnamed[] = {""};
    check_error(model_files::from_memory({.weights = cut, .names = unnamed}), errc::file_incomplete, {"the model: "});

    const auto config = read_file(golden::folder_of("f32-8l") / "config.json", 1 << 20);
    require_value(config);
    const bytes safetensors = bytes_of(*read_file(golden::folder_of("f32-8l") / "model.safetensors", std::size_t{1} << 30));
    for (std::size_t n = 1; n < 2000; ++n) {  // its header, and from there on the tests of safetensors
        CAPTURE(n);
        const std::span<const std::byte> some[] = {std::span(safetensors).first(n)};
        check_error(model_files::from_memory({.weights = some, .config = *config, .names = name}), errc::file_incomplete, {"npc.gguf: "});
    }
    for (const char begin : {'@', '{', 'G', ' ', '8', '\0'}) {  // the lowest byte of a header's length
        CAPTURE(begin);
        const temporary_folder folder;
        folder.write("config.json", *config);
        folder.write("model.safetensors", std::string(1, begin));
        check_error(checkpoint::open(folder.path()), errc::file_incomplete, {"model.safetensors: "});
        const bytes one = bytes_of(std::string(1, begin));
        const std::span<const std::byte> some[] = {one};
        check_error(checkpoint::from_memory(*config, some), errc::file_incomplete, {"file 0: "});
        check_error(model_files::from_memory({.weights = some, .config = *config}), errc::file_incomplete, {"file 0: "});
    }
    const std::span<const std::byte> good[] = {safetensors};
    const auto pointer = model_files::from_memory({good, *config, {}, "version https://git-lfs.github.com/spec/v1"});
    require_value(pointer);
    check_error(pointer->open_tokenizer(), errc::wrong_file_kind, {"tokenizer.json: a Git LFS pointer"});
    const std::span<const std::byte> both[] = {safetensors, packed};
    check_error(model_files::from_memory({both, *config}), errc::invalid_argument, {"file 1: a GGUF file"});
    const bytes nothing(9);
    const std::span<const std::byte> zero[] = {nothing};
    check_error(model_files::from_memory({.weights = zero, .names = name}), errc::file_incomplete, {"npc.gguf: it begins with zeros"});
    check_error(model_files::from_memory({.weights = zero, .config = *config}), errc::file_incomplete, {"file 0: it begins with zeros"});
    const temporary_folder zeros;
    check_error(model_files::open(zeros.write("a.gguf", std::string(100, '\0'))), errc::file_incomplete, {"a.gguf: it begins with zeros"});
    for (const std::size_t n : {1u, 2u, 3u, 4u, 23u}) {
        const temporary_folder folder;
        check_error(model_files::open(folder.write("a.gguf", text_of(packed).substr(0, n))), errc::file_incomplete, {"a.gguf: "});
    }
}

#if !defined(_WIN32)
TEST_CASE("io/model_files: a packed file inside another file") {
    const auto files = model_files::open(golden::folder_of("f32-8l"));
    require_value(files);
    const bytes packed = packed_from(*files);
    const auto want = model_files::from_memory(packed);
    require_value(want);
    for (const std::size_t offset : {std::size_t{0}, std::size_t{64}, std::size_t{100}, std::size_t{4096}, std::size_t{70000}}) {
        CAPTURE(offset);
        const temporary_folder folder;
        const auto path = folder.write("game.pak", std::string(offset, 'x') + std::string(text_of(packed)) + "and more");
        const int fd = ::open(path.c_str(), O_RDONLY);
        REQUIRE(fd >= 0);
        const auto opened = model_files::open(file_part{fd, offset, packed.size(), "game.pak"});
        const auto cut = model_files::open(file_part{fd, offset, packed.size() - 1, "game.pak"});
        const auto other = model_files::open(file_part{fd, offset + 1, packed.size() - 1, "game.pak"});
        ::close(fd);
        require_value(opened);
        check_same(*opened, *want);
        CHECK((opened->owned_bytes() != 0) == (offset % 64 != 0));
        CHECK(opened->path() == "game.pak");
        check_error(cut, errc::file_incomplete, {"game.pak"});
        CHECK_FALSE(other.has_value());
    }
}
#endif
