/// Whatever is wrong with a folder, the sentence names the path: of the file at fault, or of the folder.
#include "io/io_testing.hpp"

#include <model/golden.hpp>

#include <phi4flash/io/model_files.hpp>

#if PHI4FLASH_HAS_JSON
using namespace phi4flash;
using namespace io_testing;
namespace fs = std::filesystem;

namespace {

/// A copy of a golden checkpoint, to be damaged.
class damaged_folder {
public:
    explicit damaged_folder(const char* golden_name) {
        for (const auto& entry : fs::directory_iterator(golden::folder_of(golden_name)))
            if (entry.path().filename() != "golden.safetensors") fs::copy(entry.path(), path() / entry.path().filename());
    }
    const fs::path& path() const { return folder_.path(); }
    void write(const std::string& name, std::string_view text) const { folder_.write(name, text); }
    std::string text(const std::string& name) const { return *read_file(path() / name, std::size_t{1} << 26); }

    /// `file` is at fault; "" where only the folder is.
    void check(const std::string& file) const {
        const auto opened = model_files::open(path());
        REQUIRE_FALSE(opened.has_value());
        const std::string message = opened.error().message();
        CAPTURE(message);
        const std::string want = (file.empty() ? path() : path() / file).string();
        CHECK(message.find(want) != std::string::npos);
        CHECK(message.find(want) == message.rfind(want));  // once
        CHECK(message.size() > want.size() + 10);
    }

private:
    temporary_folder folder_;
};

std::string replaced(std::string text, std::string_view from, std::string_view to) {
    const std::size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("io/folder_errors: every text file, damaged in every way") {
    for (const char* name : {"config.json", "model.safetensors.index.json"}) {
        CAPTURE(name);
        const damaged_folder folder("bf16-12l-sharded");
        require_value(model_files::open(folder.path()));
        const std::string good = folder.text(name);
        for (const std::string& bad :
             {std::string(), std::string("[]"), std::string("{}"), good.substr(0, good.size() / 2), std::string("\xff"),
              std::string(100, '['), std::string("{\"a\": 1, \"a\": 2}"), std::string(3, '\0')}) {
            CAPTURE(bad);
            folder.write(name, bad);
            folder.check(name);
        }
        fs::remove(folder.path() / name);
        fs::create_directory(folder.path() / name);
        folder.check(name);
    }
    const damaged_folder folder("f32-8l");
    for (const char* bad : {"[]", "{", "{\"temperature\": \"hot\"}", "{\"eos_token_id\": 4000000}", "{\"stop_strings\": 3}"}) {
        CAPTURE(bad);
        folder.write("generation_config.json", bad);
        folder.check("generation_config.json");
    }
}

TEST_CASE("io/folder_errors: keys of config.json") {
    const damaged_folder folder("f32-8l");
    const std::string good = folder.text("config.json");
    for (const char* more : {"\"hidden_sizes\": 3, ", "\"quantization_config\": {}, ", "\"mlp_bias\": true, ", "\"head_dim\": 3, ",
                             "\"layer_types\": [1], ", "\"eos_token_id\": 4000000, ", "\"top_p\": \"x\", "}) {
        CAPTURE(more);
        const std::string key = std::string(more).substr(0, std::string(more).find(':'));
        const bool taken = good.find(key) != std::string::npos;
        folder.write("config.json", taken ? replaced(good, key, more + std::string("\"_") + key.substr(1))
                                          : replaced(good, "{", std::string("{") + more));
        folder.check("config.json");
    }
    folder.write("config.json", replaced(good, "\"num_hidden_layers\"", "\"num_hidden_layer\""));
    folder.check("config.json");
}

TEST_CASE("io/folder_errors: weights") {
    {
        const damaged_folder folder("f32-8l");
        const std::string good = folder.text("model.safetensors");
        for (const std::size_t left : {std::size_t{0}, std::size_t{7}, std::size_t{1000}, good.size() - 1}) {
            folder.write("model.safetensors", std::string_view(good).substr(0, left));
            folder.check("model.safetensors");
        }
        folder.write("model.safetensors", replaced(good, "\"F32\"", "\"F99\""));
        folder.check("model.safetensors");
        folder.write("model.safetensors", replaced(good, "\"F32\"", "\"I32\""));
        folder.check("model.safetensors");
        fs::remove(folder.path() / "model.safetensors");
        folder.check("");
    }
    const char* const first = "model-00001-of-00002.safetensors";
    const char* const second = "model-00002-of-00002.safetensors";
    const char* const index = "model.safetensors.index.json";
    {
        const damaged_folder folder("bf16-12l-sharded");
        const std::string good = folder.text(second);
        folder.write(second, std::string_view(good).substr(0, good.size() / 2));
        folder.check(second);
        folder.write(second, folder.text(first));  // each tensor twice
        folder.check("");
        fs::remove(folder.path() / second);
        folder.check("");
    }
    const damaged_folder folder("bf16-12l-sharded");
    const std::string good = folder.text(index);
    folder.write(index, replaced(good, "\"model.embed_tokens.weight\"", "\"model.embed_token.weight\""));
    folder.check(index);  // asked for and not there
    folder.write(index, replaced(good, first, std::string("../") + first));
    folder.check(index);
    folder.write(index, replaced(good, first, second));
    folder.check(index);
    folder.write(index, "{\"weight_map\": {\"model.embed_tokens.weight\": \"" + std::string(first) + "\"}}");
    folder.check(index);  // there and not asked for
}

TEST_CASE("io/folder_errors: the tokenizer, and no folder at all") {
    const damaged_folder folder("f32-8l");
    for (const char* bad : {"", "[]", "{}", "{\"model\": {\"type\": \"WordPiece\"}}"}) {
        folder.write("tokenizer.json", bad);
        const auto files = model_files::open(folder.path());
        require_value(files);
        const auto text = files->open_tokenizer();
        REQUIRE_FALSE(text.has_value());
        CHECK(std::string(text.error().message()).find((folder.path() / "tokenizer.json").string()) != std::string::npos);
    }
    for (const auto& path : {folder.path() / "absent", folder.path() / "config.json", folder.path() / "model.safetensors"}) {
        const auto files = model_files::open(path);
        REQUIRE_FALSE(files.has_value());
        CHECK(std::string(files.error().message()).find(path.string()) != std::string::npos);
        const auto direct = checkpoint::open(path);
        REQUIRE_FALSE(direct.has_value());
        CHECK(std::string(direct.error().message()).find(path.string()) != std::string::npos);
    }
}

TEST_CASE("io/folder_errors: in memory there is no path, only the name") {
    const fs::path folder = golden::folder_of("f32-8l");
    const std::string weights = *read_file(folder / "model.safetensors", std::size_t{1} << 26);
    const std::span<const std::byte> files[] = {std::as_bytes(std::span(weights))};
    check_error(checkpoint::from_memory("{}", files), errc::json_missing_key, {"config.json: "});
    const std::string config = *read_file(folder / "config.json", std::size_t{1} << 20);
    check_error(checkpoint::from_memory(config, files, "[]"), errc::json_wrong_type, {"generation_config.json: "});
    const std::string unknown = replaced(config, "{", "{\"hidden_sizes\": 3, ");
    check_error(checkpoint::from_memory(unknown, files), errc::json_unknown_key, {"hidden_sizes"});
    require_value(checkpoint::from_memory(unknown, files, {}, {.ignore_unknown_keys = true}));
}
#endif
