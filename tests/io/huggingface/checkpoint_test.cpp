/// A checkpoint from a folder and from memory: single file, shards, and everything that can be wrong between files.
#include "io/io_testing.hpp"

#include <model/golden.hpp>

#include <phi4flash/io/huggingface/checkpoint.hpp>
#include <phi4flash/model/forward.hpp>

#if PHI4FLASH_HAS_JSON
using namespace phi4flash;
using namespace io_testing;

namespace {
const char* const config_json =
    R"({"model_type":"phi4flash","vocab_size":16,"hidden_size":8,"intermediate_size":8,"num_hidden_layers":4,)"
    R"("num_attention_heads":2,)"
    R"("num_key_value_heads":2,"sliding_window":5,"eos_token_id":3})";

/// A file of BF16 tensors [2] with these names.
bytes file_of(const std::vector<std::string>& names, const char* dtype = "BF16") {
    std::string header = "{";
    std::size_t end = 0;
    for (const std::string& name : names) {
        header += std::string(end == 0 ? "" : ",") + "\"" + name + "\":{\"dtype\":\"" + dtype +
                  "\",\"shape\":[2],\"data_offsets\":[" + std::to_string(end) + "," + std::to_string(end + 4) + "]}";
        end += 4;
    }
    return safetensors_file(padded(header + "}"), end);
}

std::string index_of(const std::vector<std::pair<std::string, std::string>>& map) {
    std::string text = R"({"metadata":{"total_size":1},"weight_map":{)";
    for (const auto& [tensor, shard] : map) text += "\"" + tensor + "\":\"" + shard + "\",";
    text.pop_back();
    return text + "}}";
}

using prompt_logits = std::vector<float>;

prompt_logits logits_of(const std::filesystem::path& folder) {
    const auto files = checkpoint::open(folder);
    require_value(files);
    const auto m = model<>::bind(*files);
    require_value(m);
    auto past = session<>::create(*m, 16);
    auto work = workspace<>::create(*m);
    require_value(past);
    require_value(work);
    const std::int32_t tokens[] = {3, 1, 4, 1, 5};
    const auto logits = prefill(*m, *past, *work, tokens);
    require_value(logits);
    return {logits->begin(), logits->end()};
}

struct test_folder : temporary_folder {
    test_folder() { write("config.json", config_json); }
    void write_file(const std::string& name, const bytes& content) const { write(name, text_of(content)); }
    void write_index(const std::vector<std::pair<std::string, std::string>>& map) const {
        write("model.safetensors.index.json", index_of(map));
    }
};
}  // namespace

TEST_CASE("io/checkpoint: one file") {
    const test_folder folder;
    folder.write_file("model.safetensors", file_of({"b", "a"}));
    auto opened = checkpoint::open(folder.path());
    require_value(opened);
    const tensor_view* const before = opened->find("a");
    const std::byte* const data = before->data;
    const checkpoint model = *std::move(opened);
    REQUIRE(model.tensors().size() == 2);
    CHECK(model.tensors()[0].name == "a");
    CHECK(model.find("a")->data == data);
    CHECK(model.find("a")->data[0] == std::byte{4});
    model.release_pages();
    CHECK(model.find("a")->data[0] == std::byte{4});
    CHECK(model.find("c") == nullptr);
    CHECK(model.bytes() == 8);
    CHECK(model.config().shape.vocab == 16);
    CHECK(model.generation().stop_ids == std::vector<std::uint32_t>{3});  // of config.json
    CHECK(model.tokenizer_path().empty());
    CHECK(model.folder() == folder.path());
}

TEST_CASE("io/checkpoint: shards, generation_config.json and tokenizer.json") {
    const test_folder folder;
    folder.write_file("m-1.safetensors", file_of({"a", "b"}));
    folder.write_file("m-2.safetensors", file_of({"c"}));
    folder.write_index({{"c", "m-2.safetensors"}, {"a", "m-1.safetensors"}, {"b", "m-1.safetensors"}});
    folder.write("generation_config.json", R"({"eos_token_id":[1,2]})");
    folder.write("tokenizer.json", "{}");
    const auto model = checkpoint::open(folder.path());
    require_value(model);
    CHECK(model->tensors().size() == 3);
    CHECK(model->find("c")->type == dtype::bf16);
    CHECK(model->generation().stop_ids == std::vector<std::uint32_t>{1, 2});
    CHECK(model->tokenizer_path() == folder.path() / "tokenizer.json");
}

TEST_CASE("io/checkpoint: folders that are none") {
    const test_folder folder;
    check_error(checkpoint::open(folder.path() / "missing"), errc::file_not_found, {"missing", "no such folder"});
    check_error(checkpoint::open(folder.path() / "config.json"), errc::wrong_file_kind, {"config.json", "give the folder"});
    check_error(checkpoint::open(folder.path()), errc::file_not_found, {"model.safetensors", "neither"});
    folder.write("model.safetensors", "");
    check_error(checkpoint::open(folder.path()), errc::file_empty, {"model.safetensors"});
    std::filesystem::remove(folder.path() / "config.json");
    check_error(checkpoint::open(folder.path()), errc::file_not_found, {"config.json"});
    std::filesystem::create_directory(folder.path() / "config.json");
    check_error(checkpoint::open(folder.path()), errc::file_unreadable, {"config.json"});
}

TEST_CASE("io/checkpoint: defects of the files name the file") {
    const test_folder folder;
    folder.write_file("model.safetensors", file_of({"a"}, "I16"));
    check_error(checkpoint::open(folder.path()), errc::wrong_dtype, {"model.safetensors: ", "'a'", "I16"});
    folder.write("model.safetensors", "\1\2\3\4");
    check_error(checkpoint::open(folder.path()), errc::file_incomplete, {"model.safetensors: "});
    folder.write("generation_config.json", "{\"eos_token_id\":\"x\"}");
    check_error(checkpoint::open(folder.path()), errc::json_wrong_type, {"generation_config.json: ", "eos_token_id"});
    folder.write("generation_config.json", "{\"eos_token_id\":[1,16]}");
    check_error(checkpoint::open(folder.path()), errc::unknown_token,
                {"generation_config.json: ", "below vocab_size 16", "have 16"});
    folder.write("config.json", "{}");
    check_error(checkpoint::open(folder.path()), errc::json_missing_key, {"config.json: ", "model_type"});
    folder.write("config.json", std::string(2000000, ' '));
    check_error(checkpoint::open(folder.path()), errc::file_too_large, {"config.json"});
}

TEST_CASE("io/checkpoint: the index and its shards disagree") {
    const test_folder folder;
    folder.write_file("m-1", file_of({"a", "b"}));
    folder.write_file("m-2", file_of({"c"}));
    folder.write_index({{"a", "m-1"}, {"b", "m-1"}, {"c", "m-2"}, {"d", "m-2"}});
    check_error(checkpoint::open(folder.path()), errc::index_mismatch, {"index.json", "'d'", "m-2", "does not have it"});
    folder.write_index({{"a", "m-1"}, {"b", "m-2"}, {"c", "m-2"}});
    check_error(checkpoint::open(folder.path()), errc::index_mismatch, {"'b'", "m-2"});
    folder.write_index({{"a", "m-1"}, {"c", "m-2"}});
    check_error(checkpoint::open(folder.path()), errc::index_mismatch, {"'b'", "not in the index"});
    folder.write_index({{"a", "m-1"}, {"b", "m-1"}, {"c", "m-3"}});
    check_error(checkpoint::open(folder.path()), errc::file_incomplete, {"m-3", "the index names"});
    folder.write_file("m-2", file_of({"c", "a"}));
    folder.write_index({{"a", "m-1"}, {"b", "m-1"}, {"c", "m-2"}});
    check_error(checkpoint::open(folder.path()), errc::duplicate_name, {"m-1 and m-2 have both tensor 'a'"});
}

TEST_CASE("io/checkpoint_index: shards are files of the folder") {
    for (const char* name : {"../m", "/etc/m", "..", ".", "", "a/b", "a\\\\b", "c:m", "a\\u0000b", "a\\nb", "..\\\\m"}) {
        CAPTURE(name);
        check_error(read_checkpoint_index(index_of({{"a", "m"}, {"w", name}})), errc::path_outside_folder, {"'w'", "same folder"});
    }
    const test_folder folder;
    folder.write_index({{"a", "../m"}});
    check_error(checkpoint::open(folder.path()), errc::path_outside_folder, {"index.json", "'a'", "'../m'"});
}

TEST_CASE("io/checkpoint_index: its JSON") {
    check_error(read_checkpoint_index("[]"), errc::json_wrong_type, {"an object"});
    check_error(read_checkpoint_index("{}"), errc::json_missing_key, {"weight_map"});
    check_error(read_checkpoint_index(R"({"weight_map":[]})"), errc::json_wrong_type, {"weight_map"});
    check_error(read_checkpoint_index(R"({"weight_map":{}})"), errc::index_mismatch, {"no tensor"});
    check_error(read_checkpoint_index(R"({"weight_map":{"a":1}})"), errc::json_wrong_type, {"'a'", "have a number"});
    check_error(read_checkpoint_index(R"({"weight_map":{"a":"m","a":"n"}})"), errc::json_duplicate_key, {"'a'"});
    check_error(read_checkpoint_index(R"({"weight_map":)"), errc::file_incomplete, {"byte "});
    check_error(read_checkpoint_index(R"({"weight_map":})"), errc::json_syntax, {"byte "});
    check_error(read_checkpoint_index(R"(["weight_map"])"), errc::json_wrong_type, {"the index: want an object, have a list"});
    check_error(read_checkpoint_index(R"({"weight_map":{"a":{"b":"m"}}})"), errc::json_wrong_type, {"'a': want the name of a file, have an object"});
    check_error(read_checkpoint_index(R"({"weight_map":{"a":["m"]}})"), errc::json_wrong_type, {"'a': want the name of a file, have a list"});
    check_error(read_checkpoint_index(R"({"metadata":{"weight_map":{"a":"m"}}})"), errc::json_missing_key, {"weight_map"});
    check_error(read_checkpoint_index("{\"weight_map\":{\"a\":\"" + std::string(checkpoint_index_limits.bytes, 'm') + "\"}}"), errc::json_too_large);
    require_value(read_checkpoint_index(R"({"metadata":{"total_size":1,"x":[{"weight_map":[]},null]},"weight_map":{"a":"m"},"more":{"a":1}})"));
    const auto index = read_checkpoint_index(index_of({{"b", "m-2"}, {"a", "m-1"}, {"c", "m-1"}}));
    require_value(index);
    CHECK(index->shards == std::vector<std::string>{"m-1", "m-2"});
    CHECK(index->entries[1].tensor == "b");
    CHECK(index->entries[1].shard == 1);
}

TEST_CASE("io/checkpoint: from bytes that the host owns") {
    const bytes one = file_of({"a", "b"});
    const bytes two = file_of({"c"});
    const bytes again = file_of({"b"});
    const std::vector<std::span<const std::byte>> files = {one, two};
    const auto model = checkpoint::from_memory(config_json, files, R"({"eos_token_id":5})");
    require_value(model);
    CHECK(model->find("c")->data == two.data() + two.size() - 4);  // used in place
    CHECK(model->generation().stop_ids == std::vector<std::uint32_t>{5});
    CHECK(model->folder().empty());
    const std::vector<std::span<const std::byte>> twice = {one, again};
    check_error(checkpoint::from_memory(config_json, twice), errc::duplicate_name, {"file 0 and file 1 have both tensor 'b'"});
    const std::vector<std::span<const std::byte>> broken = {one, std::span(two).first(9)};
    check_error(checkpoint::from_memory(config_json, broken), errc::file_incomplete, {"file 1: "});
    check_error(checkpoint::from_memory("{", files), errc::file_incomplete, {"config.json: "});
    check_error(checkpoint::from_memory("{]", files), errc::json_syntax, {"config.json: "});
    check_error(checkpoint::from_memory(config_json, {}), errc::invalid_argument, {"have none"});

    const std::string_view names[] = {"m-1.safetensors", "m-2.safetensors"};
    require_value(checkpoint::from_memory(config_json, files, {}, {}, names));
    check_error(checkpoint::from_memory(config_json, broken, {}, {}, names), errc::file_incomplete, {"m-2.safetensors: "});
    check_error(checkpoint::from_memory(config_json, files, {}, {}, std::span(names).first(1)), errc::invalid_argument, {"2 files", "have 1"});
    const bytes pointer = bytes_of("version https://git-lfs.github.com/spec/v1\n"), packed = bytes_of("GGUF and more");
    const bytes json = bytes_of("{\"key\": 1}");
    check_error(checkpoint::from_memory(config_json, twice, {}, {}, names), errc::duplicate_name, {"m-1.safetensors and m-2.safetensors have both"});
    const std::string_view lfs = "version https://git-lfs.github.com/spec/v1";
    check_error(checkpoint::from_memory(lfs, files), errc::wrong_file_kind, {"config.json: a Git LFS pointer"});
    check_error(checkpoint::from_memory(text_of(one), files), errc::wrong_file_kind, {"config.json: a safetensors file"});
    check_error(checkpoint::from_memory(config_json, files, "<html>no</html>"), errc::wrong_file_kind, {"generation_config.json: a web page"});
    const bytes zeros(1000);
    const std::vector<std::span<const std::byte>> begun = {one, zeros};
    check_error(checkpoint::from_memory(config_json, begun, {}, {}, names), errc::file_incomplete, {"m-2.safetensors: it begins with zeros"});
    for (const auto& [other, words] : {std::pair{&pointer, "m-2.safetensors: a Git LFS pointer"}, {&packed, "m-2.safetensors: a GGUF file"},
                                       {&json, "m-2.safetensors: a JSON file, not weights"}}) {
        const std::vector<std::span<const std::byte>> wrong = {one, *other};
        check_error(checkpoint::from_memory(config_json, wrong, {}, {}, names), errc::wrong_file_kind, {words});
    }
}

TEST_CASE("io/checkpoint: tensors at odd places are copied, and only those") {
    // A header of every length: 4 bytes of BF16 and 4 of F32.
    const std::string header = R"({"b":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"f":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})";
    for (std::size_t spaces = 0; spaces < 8; ++spaces) {
        CAPTURE(spaces);
        const bytes file = safetensors_file(header + std::string(spaces, ' '), 8);
        const std::size_t begin = header.size() + spaces;
        const bool odd = begin % 2 != 0;
        const bool uneven = begin % 4 != 0;
        const test_folder folder;
        folder.write_file("model.safetensors", file);
        auto opened = checkpoint::open(folder.path());
        require_value(opened);
        const std::span<const std::byte> bytes_of_file = file;
        const auto in_memory = checkpoint::from_memory(config_json, {&bytes_of_file, 1});
        require_value(in_memory);
        const checkpoint moved = *std::move(opened);
        for (const checkpoint* model : {&moved, &*in_memory}) {
            for (const char* const name : {"b", "f"}) {
                const tensor_view* const t = model->find(name);
                CHECK(t->is_aligned());
                CHECK(t->data[0] == (name[0] == 'b' ? std::byte{0} : std::byte{4}));
                CHECK(t->data[3] == (name[0] == 'b' ? std::byte{3} : std::byte{7}));
                const bool in_place = t->data >= file.data() && t->data < file.data() + file.size();
                if (model == &*in_memory) CHECK(in_place == !(name[0] == 'b' ? odd : uneven));
            }
            CHECK(model->copied_bytes() == (odd ? 2 : uneven ? 1 : 0) * block_alignment);
        }
        moved.release_pages();
        CHECK(moved.find("f")->data[0] == std::byte{4});
    }
}

TEST_CASE("io/checkpoint: a model whose header has an odd length generates the same") {
    const auto golden_folder = golden::folder_of("f32-8l");
    const auto whole = read_file(golden_folder / "model.safetensors", std::size_t{1} << 30);
    const auto config = read_file(golden_folder / "config.json", std::size_t{1} << 20);
    require_value(whole);
    require_value(config);
    const prompt_logits want = logits_of(golden_folder);
    const temporary_folder folder;
    folder.write("config.json", *config);
    for (const std::size_t spaces : {1u, 2u, 3u}) {
        std::uint64_t length = 0;
        std::memcpy(&length, whole->data(), 8);
        std::string file = *whole;
        file.insert(8 + static_cast<std::size_t>(length), spaces, ' ');
        length += spaces;
        std::memcpy(file.data(), &length, 8);
        folder.write("model.safetensors", file);
        CHECK(logits_of(folder.path()) == want);
    }
}

TEST_CASE("io/checkpoint: golden checkpoints") {
    const auto shared = shared_folder();
    if (shared.empty()) return;
    struct wanted {
        const char* folder;
        dtype type;
        std::size_t layers, vocab, d_model, window, d_state, tensors;
    };
    for (const wanted& want :
         {wanted{"f32-8l", dtype::f32, 8, 256, 64, 8, 4, 116}, wanted{"bf16-12l-sharded", dtype::bf16, 12, 300, 160, 5, 16, 169},
          wanted{"f16-8l-wide", dtype::f16, 8, 512, 256, 16, 16, 116}}) {
        CAPTURE(want.folder);
        const auto model = checkpoint::open(shared / "golden" / want.folder);
        require_value(model);
        const sambay_shape& shape = model->config().shape;
        CHECK(shape.n_layers == want.layers);
        CHECK(shape.window == want.window);
        CHECK(shape.d_state == want.d_state);
        CHECK(model->tensors().size() == want.tensors);
        const tensor_view* const embed = model->find("model.embed_tokens.weight");
        REQUIRE(embed != nullptr);
        CHECK(embed->type == want.type);
        REQUIRE(embed->rank == 2);
        CHECK(embed->extent[0] == want.vocab);
        CHECK(embed->extent[1] == want.d_model);
        const tensor_view* const a_log = model->find("model.layers.0.attn.A_log");
        REQUIRE(a_log != nullptr);
        CHECK(a_log->type == dtype::f32);
        CHECK(a_log->extent[0] == shape.d_inner);
        CHECK(a_log->extent[1] == shape.d_state);
        CHECK(model->find("lm_head.weight") == nullptr);
    }
    check_error(checkpoint::open(shared / "golden" / "phi4mini-3l"), errc::unsupported_model, {"config.json: ", "'phi3'"});
}

TEST_CASE("io/checkpoint_index: the released index") {
    const auto shared = shared_folder();
    if (shared.empty()) return;
    const auto text = read_file(shared / "model" / "released" / "model.safetensors.index.json", checkpoint_index_limits.bytes);
    require_value(text);
    const auto index = read_checkpoint_index(*text);
    require_value(index);
    CHECK(index->shards == std::vector<std::string>{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"});
    CHECK(index->entries.size() == 434);
    // Shards with these names and tiny tensors make a folder that opens.
    const test_folder folder;
    for (std::size_t s = 0; s < index->shards.size(); ++s) {
        std::vector<std::string> names;
        for (const auto& entry : index->entries)
            if (entry.shard == s) names.push_back(entry.tensor);
        folder.write_file(index->shards[s], file_of(names));
    }
    folder.write("model.safetensors.index.json", *text);
    const auto model = checkpoint::open(folder.path());
    require_value(model);
    CHECK(model->tensors().size() == 434);
}
#endif
