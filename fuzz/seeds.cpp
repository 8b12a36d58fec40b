/// A program that writes the seeds of every entry, each a few kilobytes. What was found later is beside them, by names of its own.
///
///     g++ -std=c++20 -Iinclude -isystem build/deps/usr/include -DPHI4FLASH_HAS_JSON=1 -DPHI4FLASH_SIMD_SCALAR=1 fuzz/seeds.cpp -o build/seeds -pthread
///     build/seeds fuzz/seeds
#include "tiny.hpp"

#include <phi4flash/io/huggingface/tokenizer_json.hpp>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

namespace {

using namespace fuzz;
using namespace std::string_literals;

std::string safetensors_file(std::string header, std::size_t data_bytes) {
    while (header.size() % 8 != 0) header += ' ';
    const std::uint64_t length = header.size();
    std::string file(8, '\0');
    std::memcpy(file.data(), &length, 8);
    file += header;
    for (std::size_t i = 0; i < data_bytes; ++i) file += static_cast<char>(i);
    return file;
}

/// An ordinary GGUF file, whose quantized rows must be repacked. It says that it has `layers` layers, and has the first `most` tensors.
std::string row_major_model(const p4::sambay_shape& shape, std::size_t layers, std::size_t most = SIZE_MAX) {
    p4::gguf_metadata about;
    about.add("general.architecture", p4::packed_architecture);
    p4::sambay_shape claimed = shape;
    claimed.n_layers = layers;
    p4::detail::add_config(about, {.shape = claimed, .norm_eps = 1e-5f, .max_positions = 64});
    std::vector<p4::gguf_spec> specs;
    constexpr p4::ggml_type types[] = {p4::ggml_type::q8_0, p4::ggml_type::q4_0, p4::ggml_type::iq4_nl};
    std::size_t n = 0;
    for (const auto& t : tensors_of(shape, p4::dtype::q8)) {
        if (specs.size() == most) break;
        const bool quantized = p4::is_packed(t.type);
        specs.push_back({t.name, quantized ? types[n++ % 3] : p4::ggml_type_of(t.type), t.shape});
    }
    numbers random(5);
    memory_output out;
    const auto plan = p4::plan_gguf(about, specs);
    if (!plan) return {};
    const p4::status ok = p4::write_gguf(out, *plan, specs, [&](std::size_t i, p4::gguf_sink& sink) {
        const p4::ggml_format& format = p4::format_of(specs[i].type);
        std::string bytes(static_cast<std::size_t>(plan->bytes[i]), '\0');
        for (std::size_t at = 0; at < bytes.size(); at += format.block_bytes) {
            // Finite, and no large numbers.
            for (std::size_t k = 0; k < format.block_bytes; ++k) bytes[at + k] = static_cast<char>(random.next() & 0x3f);
            const p4::f16 scale = p4::from_f32<p4::f16>(0.001f);
            if (format.block_length > 1) std::memcpy(bytes.data() + at, &scale, 2);
        }
        return sink.write(std::as_bytes(std::span(bytes)));
    });
    return ok ? out.bytes : std::string();
}

constexpr const char* config_json =
    R"({"model_type":"phi4flash","vocab_size":16,"hidden_size":8,"intermediate_size":8,"num_hidden_layers":4,"num_attention_heads":2,)"
    R"("num_key_value_heads":2,"sliding_window":[null,[null,5,null,null],null,null],"layer_norm_eps":1e-5,"eos_token_id":[1,2],)"
    R"("layer_types":["mamba","attention","mamba","attention"],"stop_strings":["a"],"num_beams":1,"quantization_config":null,)"
    R"("pad_token_id":-1,"head_dim":4,"mamba_dt_rank":"auto","attention_bias":true})";
constexpr const char* generation_json =
    R"({"bos_token_id":1,"eos_token_id":[2,3],"pad_token_id":0,"do_sample":true,"temperature":0.6,"top_p":0.95,"top_k":-1,"min_p":0.0,)"
    R"("repetition_penalty":1.1,"max_new_tokens":512,"stop_strings":["<|end|>","x"],"num_beams":4,"transformers_version":"4.57.6"})";

bool write_seeds(const std::filesystem::path& folder) {
    bool good = true;
    const auto write = [&](const char* entry, const char* name, const std::string& bytes) {
        std::filesystem::create_directories(folder / entry);
        std::ofstream file(folder / entry / name, std::ios::binary);
        good = good && !bytes.empty() && file.write(bytes.data(), static_cast<std::streamsize>(bytes.size())).good();
    };
    write("safetensors", "three",
          safetensors_file(R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
                           R"("b.c":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]},"d":{"dtype":"I8","shape":[],"data_offsets":[22,23]}})", 23));
    write("safetensors", "none", safetensors_file("{}", 0));
    write("config", "config", config_json);
    write("config", "generation", generation_json);
    write("index", "two", R"({"metadata":{"total_size":1},"weight_map":{"a":"x.safetensors","b":"y.safetensors"}})");

    constexpr p4::sambay_shape small{.d_model = 8, .n_layers = 8, .d_ff = 8, .n_heads = 2, .n_kv_heads = 2, .vocab = 16, .window = 3, .d_inner = 8,
                                     .d_state = 2, .d_conv = 2, .dt_rank = 1};
    write("gguf", "plain", tiny_model(small, p4::dtype::bf16, 1));
    constexpr p4::sambay_shape packable{.d_model = 32, .n_layers = 4, .d_ff = 32, .n_heads = 2, .n_kv_heads = 2, .vocab = 32, .window = 3,
                                        .d_inner = 32, .d_state = 2, .d_conv = 2, .dt_rank = 1};
    write("gguf", "row_major", row_major_model(packable, packable.n_layers));
    write("gguf", "sixteen_million_layers", row_major_model(packable, p4::max_extent, 1));
    const std::string packed = tiny_model(packable, p4::dtype::q4, 3);
    write("gguf", "packed", packed);
    std::string infinite = packed;  // numbers of 32 bits stay finite, scales do not
    for (std::size_t i = infinite.size() / 4 * 2; i < infinite.size(); ++i) infinite[i] = i % 2 == 0 ? '\0' : '\x7c';
    write("gguf", "infinite_scales", infinite);
    for (const bool tables : {false, true}) {
        auto words = p4::tokenizer_from_json(tiny_tokenizer());
        if (!words) return false;
        auto described = p4::describe_tokenizer(*words, tiny_shape.vocab);
        if (!described) return false;
        if (!tables) described->tables.clear();
        write("gguf", tables ? "with_tables" : "with_words", tiny_model(tiny_shape, p4::dtype::bf16, 2, &*described));
    }

    write("tokenizer_json", "gpt2", tiny_tokenizer());
    write("tokenizer_json", "nfc", tiny_tokenizer(true, R"({"type":"NFC"})"));

    const std::string merges = "\x0c\x05he\x80t\x80 lla\x80"s;
    for (const char flags : {0, 1, 6, 11, 19}) {
        const std::string name = "pattern_" + std::to_string(flags);
        const std::string text = "\x02\x62<|e\x21  the hell\xC3\xB6 e\xCC\x81 he'LL 12345\r\n  <|e|  \xF0\x9F\x98 \xED\xA0\x80 the\xEA\xB0\x80"s;
        write("text", name.c_str(), flags + merges + text);
    }
    write("chat", "two", "\x03\x08\x05hello\x03[1]\x01\x0b<|user|> the\x02\x04 yes"s);
    write("chat", "parsed", "\x02\x00\x05hello\x01\x0b<|user|> the\x02\x04 yes"s);

    const std::string raw = "\x05\x08\x02\x04\x06\x01\x02"s;
    for (const char flags : {0, 1, 2, 8, 9, 26, 17}) {
        const std::string name = "edits_" + std::to_string(flags);
        write("snapshot", name.c_str(), flags + raw + "\x03\x30\x00\x01\xff\xd0\x01\x10\x00\x10\x00\xd2"s);
    }
    write("snapshot", "untouched", "\x01\x0b\x03\x09\x0b\x02\x04\x00"s);

    // Makes a model, words, a session, a workspace and a generation, and lets it write; then other calls.
    std::string calls;
    const auto call = [&](std::initializer_list<int> bytes) {
        for (const int b : bytes) calls += static_cast<char>(b);
    };
    const std::string zeros(24, '\0');
    call({0}), calls += zeros.substr(0, 12);
    call({1}), calls += zeros.substr(0, 8);
    call({2}), calls += zeros.substr(0, 14);
    call({4}), calls += zeros.substr(0, 16);
    call({5}), calls += zeros.substr(0, 24);
    for (int c = 9; c < 38; ++c) call({c}), calls += zeros.substr(0, 12);
    write("c_api", "one_of_each", calls);
    numbers random(9);
    for (int i = 0; i < 3; ++i) {
        std::string bytes = calls;
        for (int k = 0; k < 1200; ++k) bytes += static_cast<char>(random.next());
        write("c_api", ("random_" + std::to_string(i)).c_str(), bytes);
    }
    for (int i = 0; i < 10; ++i) {
        std::string bytes;
        for (int k = 0; k < 30; ++k) bytes += static_cast<char>(random.next());
        bytes[11] = static_cast<char>(i);
        write("differential", ("random_" + std::to_string(i)).c_str(), bytes);
    }
    return good;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 2 && write_seeds(argv[1])) return 0;
    std::fprintf(stderr, "seeds: want a folder that can be written\n");
    return 1;
}
