/// Everything that needs no files and no threads, where PHI4FLASH_FILES or PHI4FLASH_THREADS is 0, and where types are left out
/// (PHI4FLASH_HAS_KV_F32=0 ...): the bundled model from memory answers, is
/// packed and written to memory, answers from there, and as a row-major file in memory that the host gives; snapshots and the scheduler.
///
///     in_memory FOLDER    exit code 0 if all is well
#include <phi4flash/phi4flash.hpp>

#include <cstdio>
#include <string>
#include <vector>

namespace p4 = phi4flash;

namespace {

constexpr const char* question = "What is 347 + 285?";
constexpr const char* right = "632";

int failures = 0;
void expect(bool ok, const char* what, const char* why = "") {
    if (ok) return;
    ++failures;
    std::fprintf(stderr, "in_memory: %s: %s\n", what, why);
}
template <class T>
bool expect_value(const p4::result<T>& have, const char* what) {
    expect(have.has_value(), what, have ? "" : have.error().message());
    return have.has_value();
}
template <class T>
void expect_error(const p4::result<T>& have, p4::errc code, const char* word, const char* what) {
    if (have) return expect(false, what, "no error");
    expect(have.error().code() == code && std::string_view(have.error().message()).find(word) != std::string_view::npos, what,
           have.error().message());
}

/// The host's way to read: the library has none here.
std::vector<std::byte> read(const std::string& path) {
    std::vector<std::byte> bytes;
    std::FILE* const file = std::fopen(path.c_str(), "rb");
    if (file == nullptr) return bytes;
    std::byte piece[65536];
    for (std::size_t n = 0; (n = std::fread(piece, 1, sizeof piece, file)) > 0;) bytes.insert(bytes.end(), piece, piece + n);
    std::fclose(file);
    return bytes;
}
std::string_view text_of(const std::vector<std::byte>& bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

struct memory_output {
    std::vector<std::byte> bytes;
    p4::status write(std::span<const std::byte> piece) {
        bytes.insert(bytes.end(), piece.begin(), piece.end());
        return {};
    }
};

/// Memory that the host gives, once.
struct one_block {
    alignas(64) std::byte bytes[std::size_t{8} << 20];
    std::size_t used = 0;
    p4::block_source source() {
        return {this,
                [](void* self, std::size_t n, std::size_t) -> void* {
                    auto& block = *static_cast<one_block*>(self);
                    if (block.used != 0 || n > sizeof block.bytes) return nullptr;
                    block.used = n;
                    return block.bytes;
                },
                [](void* self, void*, std::size_t, std::size_t) { static_cast<one_block*>(self)->used = 0; }};
    }
};
one_block host_memory;

std::string answer(const p4::model_files& files, bool scheduled) {
    std::string said;
    const auto text = files.open_tokenizer();
    const auto model = p4::model<>::bind(files);
    if (!expect_value(text, "tokenizer") || !expect_value(model, "bind")) return said;
    auto session = p4::session<>::create(*model, 512);
    auto workspace = p4::workspace<>::create(*model, {.chunk = 16});
    if (!expect_value(session, "session") || !expect_value(workspace, "workspace")) return said;
    p4::encoder encoder(*text);
    std::vector<std::int32_t> prompt;
    const p4::chat_message message{"user", question};
    expect(p4::encode_chat(encoder, {&message, 1}, {}, prompt).has_value(), "encode_chat");
    auto options = p4::options_from(files.generation(), &*text);
    if (!expect_value(options, "options")) return said;
    options->sampling.temperature = 0.0f;
    options->max_tokens = 200;
    const auto sink = [&](const p4::generation_event& event) {
        said += event.text;
        return true;
    };
    if (scheduled) {
        auto scheduler = p4::scheduler<>::create(*model, *workspace, &*text, {.requests = 1});
        if (!expect_value(scheduler, "scheduler")) return said;
        expect_value(scheduler->add({.past = &*session, .prompt = prompt, .options = *options, .sink = sink}), "add");
        while (true) {
            const auto outcome = scheduler->tick();
            if (!expect_value(outcome, "tick") || *outcome == p4::tick_outcome::idle) break;
        }
    } else {
        expect_value(p4::generate(*model, *session, *workspace, &*text, prompt, *options, sink), "generate");
    }

    // Saved and read again it is at the same place.
    const auto weights = p4::fingerprint_of(files, *model);
    std::vector<std::byte> saved(p4::snapshot_bytes(*session));
    expect(p4::save_snapshot(*session, weights, saved).has_value(), "save_snapshot");
    auto other = p4::session<>::create(*model, 512);
    if (expect_value(other, "another session")) {
        expect(p4::restore_snapshot(*other, weights, saved).has_value(), "restore_snapshot");
        expect(other->position() == session->position(), "restore_snapshot", "another place");
    }
    return said;
}

void expect_answer(const p4::result<p4::model_files>& files, const char* what, bool scheduled = false) {
    if (!expect_value(files, what)) return;
    const std::string said = answer(*files, scheduled);
    expect(said.find(right) != std::string::npos, what, said.c_str());
}

/// The model packed, in bytes.
std::vector<std::byte> converted(const p4::model_files& files, p4::dtype type = p4::dtype::q8) {
    memory_output out;
    p4::packed_model_info info;
    info.config = files.config();
    info.generation = files.generation();
    const auto text = files.open_tokenizer();
    if (!expect_value(text, "tokenizer")) return {};
    const auto described = p4::describe_tokenizer(*text, files.config().shape.vocab);
    if (!expect_value(described, "describe_tokenizer")) return {};
    info.tokenizer = &*described;
    const auto done = p4::convert_model(files, info, {.matrices = type, .embedding = type}, out, {}, [](std::uint64_t, std::uint64_t) {});
    if (!p4::is_compiled(type)) {
        expect(!done && std::string_view(done.error().message()).find("compiled without it (PHI4FLASH_HAS_WEIGHTS_") != std::string_view::npos,
               "convert to what is left out", done ? "no error" : done.error().message());
        expect(out.bytes.empty(), "convert to what is left out", "something was written");
        return {};
    }
    expect(done.has_value(), "convert_model", done ? "" : done.error().message());
    return std::move(out.bytes);
}

/// A row-major file of the same shape with every matrix in Q8_0 that is zero, which is enough to be repacked and bound.
std::vector<std::byte> row_major(const p4::sambay_config& config) {
    memory_output out;
    p4::gguf_metadata metadata;
    metadata.add("general.architecture", p4::packed_architecture);
    p4::detail::add_config(metadata, config);
    const auto extents = p4::extents<p4::any_sambay>::from(config.shape);
    if (!expect_value(extents, "extents")) return {};
    std::vector<p4::gguf_spec> specs;
    p4::for_each_tensor(*extents, [&](std::string_view name, std::span<const std::size_t> shape, p4::tensor_role role) {
        const bool matrix = role == p4::tensor_role::matrix && shape[1] % 32 == 0;
        specs.push_back({std::string(name), matrix ? p4::ggml_type::q8_0 : p4::ggml_type::f32, {shape.begin(), shape.end()}});
    });
    const auto plan = p4::plan_gguf(metadata, specs);
    if (!expect_value(plan, "plan_gguf")) return {};
    expect(p4::write_gguf(out, *plan, specs, [&](std::size_t i, p4::gguf_sink& sink) {
               const std::vector<std::byte> zeros(static_cast<std::size_t>(plan->bytes[i]));
               return sink.write(std::span<const std::byte>(zeros));
           }).has_value(), "write_gguf");
    return std::move(out.bytes);
}

void refusals(std::span<const std::byte> gguf) {
    const std::span<const std::byte> twice[] = {gguf, gguf};
    expect_error(p4::model_files::from_memory(p4::model_in_memory{}), p4::errc::invalid_argument, "have none", "no weights");
    expect_error(p4::model_files::from_memory({.weights = twice}), p4::errc::invalid_argument, "want it alone, have 2 files", "two files");
    expect_error(p4::model_files::from_memory({.weights = {twice, 1}, .config = "{}"}), p4::errc::invalid_argument, "2 bytes of JSON",
                 "JSON beside");
    expect_error(p4::model_files::from_memory(gguf.first(gguf.size() / 2)), p4::errc::file_incomplete, "", "half a file");
    expect_error(p4::model_files::from_memory(std::as_bytes(std::span("not a model at all"))), p4::errc::wrong_file_kind, "want bytes", "a text");
    expect_error(p4::model_files::from_memory(std::span<const std::byte>()), p4::errc::file_empty, "no bytes", "no bytes");
}

struct as_q4 {
    std::vector<p4::tensor_view> views;
    [[nodiscard]] const p4::tensor_view* find(std::string_view name) const {
        for (const p4::tensor_view& t : views)
            if (t.name == name) return &t;
        return nullptr;
    }
    [[nodiscard]] std::span<const p4::tensor_view> tensors() const { return views; }
};

/// Types that were left out are refused, with the word that leaves them out.
void refused_types(const p4::model_files& bf16_files, std::span<const std::byte> q8) {
    (void)converted(bf16_files, p4::dtype::q4);
    (void)converted(bf16_files, p4::dtype::q4_dense);
    const auto model = p4::model<>::bind(bf16_files);
    if (!expect_value(model, "bind")) return;
    const auto plain = p4::session<p4::any_sambay, float>::create(*model, 16);
    if (p4::is_compiled(p4::kv_format::f32)) expect_value(plain, "K/V in f32");
    else expect_error(plain, p4::errc::invalid_argument, "PHI4FLASH_HAS_KV_F32=0", "K/V in f32");
    const auto bytes = p4::session<p4::any_sambay, p4::kv_int8>::create(*model, 16);
    if (p4::is_compiled(p4::kv_format::int8)) expect_value(bytes, "K/V in 8 bits");
    else expect_error(bytes, p4::errc::invalid_argument, "PHI4FLASH_HAS_KV_INT8=0", "K/V in 8 bits");
    // The same tensors with matrices that say Q4, all zero.
    const auto files = p4::model_files::from_memory(q8);
    if (!expect_value(files, "from_memory")) return;
    const std::vector<std::byte> zeros(std::size_t{4} << 20);
    as_q4 four{{files->tensors().begin(), files->tensors().end()}};
    for (p4::tensor_view& t : four.views) {
        if (t.type != p4::dtype::q8) continue;
        t.type = p4::dtype::q4;
        t.data = zeros.data();
        t.bytes = p4::matrix_bytes(p4::dtype::q4, t.extent[0], t.extent[1]);
    }
    const auto bound = p4::model<>::bind(four, files->config());
    if (p4::is_compiled(p4::dtype::q4)) expect_value(bound, "weights in Q4");
    else expect_error(bound, p4::errc::wrong_dtype, "PHI4FLASH_HAS_WEIGHTS_Q4=0", "weights in Q4");
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    const std::string folder = argv[1];
    const auto weights = read(folder + "/model.safetensors"), config = read(folder + "/config.json"),
               generation = read(folder + "/generation_config.json"), tokenizer = read(folder + "/tokenizer.json");
    const std::span<const std::byte> files[] = {weights};
    const p4::model_in_memory bytes{files, text_of(config), text_of(generation), text_of(tokenizer)};
    const auto checkpoint = p4::model_files::from_memory(bytes);
    expect_answer(checkpoint, "from_memory, safetensors");
    if (!checkpoint) return 1;
    expect_error(p4::model_files::from_memory({.weights = files}), p4::errc::file_not_found, "config.json", "safetensors without config.json");

    const auto packed = converted(*checkpoint);
    refusals(packed);
    refused_types(*checkpoint, packed);
    expect_answer(p4::model_files::from_memory(packed), "from_memory, packed", true);

    const auto rows = row_major(checkpoint->config());
    {
        const auto repacked = p4::model_files::from_memory(rows, {.repack = {.memory = host_memory.source()}});
        if (expect_value(repacked, "from_memory, row-major")) {
            expect(host_memory.used != 0 && repacked->owned_bytes() >= host_memory.used, "memory of the host's");
            expect_value(p4::model<>::bind(*repacked), "bind what was repacked");
            expect(!repacked->has_tokenizer(), "a tokenizer from nowhere");
            expect_error(repacked->open_tokenizer(), p4::errc::file_not_found, "no tokenizer", "open_tokenizer");
        }
        expect_error(p4::model_files::from_memory(rows, {.repack = {.memory = host_memory.source()}}), p4::errc::out_of_memory, "repacked weights",
                     "memory of the host's, taken");
    }
    expect(host_memory.used == 0, "memory given back");
    return failures == 0 ? 0 : 1;
}
