/// What a user names as a model: a folder, a packed file, and what is neither.
#include "io/io_testing.hpp"

#include <model/golden.hpp>

#include <phi4flash/io/model_files.hpp>
#include <phi4flash/model/tensor_list.hpp>

using namespace phi4flash;
using namespace io_testing;

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
    const temporary_folder folder;
    check_error(model_files::open(folder.path() / "absent"), errc::file_not_found, {"absent", "no such folder or file"});
    check_error(model_files::open(folder.path()), errc::file_not_found, {"config.json"});
    const auto file = folder.write("model.gguf", "\1\2\3\4, and longer than any header.");
    check_error(model_files::open(file), errc::bad_magic, {"model.gguf"});
    check_error(open_tokenizer_json(folder.path()), errc::file_not_found, {"tokenizer.json"});
}
