/// What people have instead of a model: each has its own sentence, with the path and what to do, whichever way it is opened.
#include "io/io_testing.hpp"

#include <model/golden.hpp>

#include <phi4flash/io/model_files.hpp>

#if PHI4FLASH_HAS_JSON
using namespace phi4flash;
using namespace io_testing;
using namespace std::string_literals;

namespace {

const std::string lfs_pointer =
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 3850\n";
const std::string web_page = "\n<!DOCTYPE html><html><body>Repository not found</body></html>";
const std::string torch_zip = "PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10\0\x12\0archive/data.pklFB"s;
const std::string torch_old = "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."s;

/// The golden model, whose files may be changed.
struct model_folder : temporary_folder {
    model_folder() {
        for (const char* const name : {"config.json", "model.safetensors"})
            std::filesystem::copy_file(golden::folder_of("f32-8l") / name, path() / name);
    }
    void remove(const char* name) const { std::filesystem::remove(path() / name); }
    void rename(const char* from, const char* to) const { std::filesystem::rename(path() / from, path() / to); }
    std::string name() const { return path().filename().string(); }
};

/// The same from both that open folders.
void check_folder(const std::filesystem::path& folder, errc code, std::initializer_list<const char*> words) {
    const std::string name = folder.filename().string();
    check_error(checkpoint::open(folder), code, words);
    check_error(model_files::open(folder), code, words);
    check_error(model_files::open(folder), code, {name.c_str()});
}
/// The same from all three.
void check_file(const std::filesystem::path& file, errc code, std::initializer_list<const char*> words) {
    const std::string name = file.filename().string();
    check_error(packed_model::open(file), code, words);
    check_error(model_files::open(file), code, words);
    check_error(model_files::open(file), code, {name.c_str()});
    check_error(checkpoint::open(file), code, {name.c_str()});
}

}  // namespace

TEST_CASE("io/wrong_files: instead of weights") {
    const model_folder folder;
    const auto check = [&](const std::string& content, errc code, std::initializer_list<const char*> words) {
        folder.write("model.safetensors", content);
        check_folder(folder.path(), code, words);
        check_folder(folder.path(), code, {"model.safetensors"});
    };
    check(lfs_pointer, errc::wrong_file_kind, {"Git LFS pointer", "git lfs pull", "hf download"});
    check(web_page, errc::wrong_file_kind, {"web page", "download it again"});
    check(torch_zip, errc::wrong_file_kind, {"PyTorch", "save_pretrained"});
    check(torch_old, errc::wrong_file_kind, {"PyTorch", "save_pretrained"});
    check("PK\x03\x04 weights", errc::wrong_file_kind, {"an archive", "unpack"});
    check("\x1f\x8b\x08\0 weights"s, errc::wrong_file_kind, {"an archive", "unpack"});
    check("GGUF\3\0\0\0"s, errc::wrong_file_kind, {"a GGUF file", "give it itself"});
    check("Entry not found", errc::wrong_file_kind, {"a text that begins 'Entry not found'"});
    check("{\"weight_map\":{}}", errc::wrong_file_kind, {"a JSON file, not weights"});
    check("", errc::file_empty, {"empty", "download it again"});
}

TEST_CASE("io/wrong_files: a download that stopped somewhere") {
    const model_folder folder;
    const auto whole = read_file(folder.path() / "model.safetensors", std::size_t{1} << 30);
    require_value(whole);
    for (const std::size_t size : {whole->size() - 1, whole->size() / 2}) {
        folder.write("model.safetensors", whole->substr(0, size));
        const std::string missing = "the last " + std::to_string(whole->size() - size) + " of " + std::to_string(whole->size()) + " bytes";
        check_folder(folder.path(), errc::file_incomplete, {"model.safetensors", missing.c_str(), "download"});
    }
    folder.write("model.safetensors", whole->substr(0, 1000));  // within the header
    check_folder(folder.path(), errc::file_incomplete, {"model.safetensors", "download"});

    folder.remove("model.safetensors");
    folder.write("model.safetensors.index.json", R"({"weight_map":{"a":"model-00002-of-00002.safetensors"}})");
    check_folder(folder.path(), errc::file_incomplete, {"model-00002-of-00002.safetensors", "the index names", "hf download"});
    folder.remove("model.safetensors.index.json");
    std::filesystem::create_directories(folder.path() / ".cache" / "huggingface" / "download");
    folder.write(".cache/huggingface/download/abc.incomplete", "x");
    check_folder(folder.path(), errc::file_incomplete, {"not finished", "hf download"});
    folder.remove("config.json");
    check_folder(folder.path(), errc::file_incomplete, {"not finished", "hf download"});
    check_file(folder.write("0123abc.incomplete", "GGU"), errc::file_incomplete, {"not finished"});
}

TEST_CASE("io/wrong_files: instead of the JSON files") {
    const model_folder folder;
    for (const char* const name : {"generation_config.json", "config.json"}) {
        folder.write(name, lfs_pointer);
        check_folder(folder.path(), errc::wrong_file_kind, {name, "Git LFS pointer"});
        folder.write(name, web_page);
        check_folder(folder.path(), errc::wrong_file_kind, {name, "web page"});
        folder.write(name, "");
        check_folder(folder.path(), errc::file_empty, {name});
        folder.write(name, "Access to model is restricted");
        check_folder(folder.path(), errc::wrong_file_kind, {name, "a text that begins 'Access to model is restricted': not a JSON object"});
    }
    std::filesystem::copy_file(golden::folder_of("f32-8l") / "config.json", folder.path() / "config.json",
                               std::filesystem::copy_options::overwrite_existing);
    folder.remove("generation_config.json");
    folder.write("tokenizer.json", lfs_pointer);
    const auto files = model_files::open(folder.path());
    require_value(files);
    check_error(files->open_tokenizer(), errc::wrong_file_kind, {"tokenizer.json", "Git LFS pointer"});
    check_error(open_tokenizer_json(folder.path()), errc::wrong_file_kind, {"tokenizer.json", "Git LFS pointer"});
    folder.write("tokenizer.json", "");
    check_error(files->open_tokenizer(), errc::file_empty, {"tokenizer.json"});
    folder.rename("model.safetensors", "aside");
    folder.write("model.safetensors.index.json", lfs_pointer);
    check_folder(folder.path(), errc::wrong_file_kind, {"model.safetensors.index.json", "Git LFS pointer"});
}

TEST_CASE("io/wrong_files: a file where the folder is meant, and other files that are no packed model") {
    const model_folder folder;
    const std::string parent = folder.name();
    check_file(folder.path() / "model.safetensors", errc::wrong_file_kind, {"a safetensors file", "give the folder", parent.c_str()});
    check_file(folder.path() / "config.json", errc::wrong_file_kind, {"a JSON file", "give the folder", parent.c_str()});
    check_file(folder.write("model.gguf", lfs_pointer), errc::wrong_file_kind, {"Git LFS pointer"});
    check_file(folder.write("a.bin", torch_zip), errc::wrong_file_kind, {"PyTorch"});
    check_file(folder.write("a.zip", "PK\x03\x04 weights"), errc::wrong_file_kind, {"an archive"});
    std::string tar(512, '\0');
    tar.replace(257, 5, "ustar");
    check_file(folder.write("a.tar", tar), errc::wrong_file_kind, {"an archive"});
    check_file(folder.write("b.gguf", "Entry not found"), errc::wrong_file_kind, {"'Entry not found'", "not a GGUF file"});
    check_error(checkpoint::open(folder.write("c.gguf", "GGUF\3\0\0\0"s)), errc::wrong_file_kind, {"c.gguf", "a GGUF file"});
    check_error(packed_model::open(folder.path()), errc::file_unreadable, {"a folder"});
    check_error(packed_model::open(folder.write("d.gguf", "")), errc::file_empty, {"d.gguf"});
}

TEST_CASE("io/wrong_files: folders one level too high, or with other things in them") {
    const temporary_folder cache;
    const auto model = cache.path() / "models--microsoft--Phi-4-mini-flash-reasoning";
    const auto snapshot = model / "snapshots" / "0123456789abcdef";
    std::filesystem::create_directories(snapshot);
    std::filesystem::create_directories(model / "blobs");
    std::ofstream(snapshot / "config.json") << "{}";
    for (const auto& place : {model, model / "snapshots", cache.path()})
        check_folder(place, errc::file_not_found, {"no config.json here", "snapshots", "0123456789abcdef"});
    std::ofstream(model / "blobs" / "456.incomplete") << "x";
    std::filesystem::copy_file(golden::folder_of("f32-8l") / "config.json", snapshot / "config.json",
                               std::filesystem::copy_options::overwrite_existing);
    check_folder(snapshot, errc::file_incomplete, {"not finished"});
    std::filesystem::remove(model / "blobs" / "456.incomplete");
    std::error_code failed;
    std::filesystem::create_symlink("../../blobs/789", snapshot / "model.safetensors", failed);
    if (!failed) check_folder(snapshot, errc::file_not_found, {"a link to ../../blobs/789"});

    const model_folder folder;
    const auto only = [&](const char* name, errc code, std::initializer_list<const char*> words) {
        folder.write(name, "x");
        check_folder(folder.path(), code, words);
        folder.remove(name);
    };
    folder.rename("model.safetensors", "weights.safetensors");
    check_folder(folder.path(), errc::file_not_found, {"want model.safetensors, have weights.safetensors"});
    folder.rename("weights.safetensors", "adapter_model.safetensors");
    check_folder(folder.path(), errc::file_not_found, {"adapter_model.safetensors is an adapter", "merge"});
    folder.rename("adapter_model.safetensors", "model-00001-of-00002.safetensors");
    check_folder(folder.path(), errc::file_not_found, {"model-00001-of-00002.safetensors", "model.safetensors.index.json"});
    folder.remove("model-00001-of-00002.safetensors");
    only("pytorch_model.bin", errc::wrong_file_kind, {"PyTorch files (pytorch_model.bin)", "save_pretrained"});
    only("model.gguf", errc::wrong_file_kind, {"to use model.gguf, give that file itself"});
    only("tf_model.h5", errc::wrong_file_kind, {"another format: tf_model.h5"});
    check_folder(folder.path(), errc::file_not_found, {"model.safetensors", "neither"});
    folder.remove("config.json");
    only("model.gguf", errc::file_not_found, {"to use model.gguf, give that file itself"});
    check_folder(folder.path(), errc::file_not_found, {"no config.json here", "want the folder of a model"});
}

TEST_CASE("io/wrong_files: nothing at that path") {
    const temporary_folder folder;
    check_folder(folder.path() / "absent", errc::file_not_found, {"absent", "no such folder or file"});
    check_error(model_files::open("microsoft/Phi-4-mini-flash-reasoning"), errc::file_not_found,
                {"hf download microsoft/Phi-4-mini-flash-reasoning --local-dir"});
    check_error(model_files::open("~/models/phi"), errc::file_not_found, {"'~'"});
    std::error_code failed;
    std::filesystem::create_symlink("gone", folder.path() / "link", failed);
    if (!failed) check_folder(folder.path() / "link", errc::file_not_found, {"a link to gone"});
}
#endif
