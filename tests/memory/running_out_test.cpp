/// No std::bad_alloc leaves a public function: every allocation of opening, tokenizing, binding, rendering, writing files and generating
/// is made to fail, each alone and each with all that follow. What comes back is a value each time, and everything is usable afterwards.
#include <phi4flash/phi4flash.hpp>

#include <doctest/doctest.h>

#if PHI4FLASH_HAS_JSON && defined(__cpp_exceptions)
#include <io/io_testing.hpp>
#include <model/golden.hpp>
#include <support/failing_memory.hpp>

#include <functional>

namespace {

namespace p4 = phi4flash;
using ids_type = std::vector<std::int32_t>;

/// Whether a call ended well or for want of memory, without taking any.
struct ending {
    bool good = false;
    p4::errc code = p4::errc::out_of_memory;

    ending() = default;
    template <class Result>
    ending(const Result& r) : good(r.has_value()), code(r ? p4::errc::out_of_memory : r.error().code()) {}  // NOLINT
};

/// Makes each allocation of `work()` fail, which returns an `ending` and takes no memory of its own, and looks after each time whether
/// `usable()`.
/// `again()` is called before each time.
template <class Work, class Usable, class Again>
void run_out(const char* what, long least, Work&& work, Usable&& usable, Again&& again) {
    const std::string name = what;
    CAPTURE(name);
    for (const bool once : {false, true}) {
        CAPTURE(once);
        long n = 0;
        for (bool enough = false; !enough; ++n) {
            again();
            failing_memory::once = once;
            failing_memory::failed = 0;
            failing_memory::left = n;
            ending end;
            bool thrown = false;
            try {
                end = work();
            } catch (...) {
                thrown = true;
            }
            failing_memory::left = -1;
            enough = failing_memory::failed == 0;
            if (thrown || (enough && !end.good) || (!end.good && end.code != p4::errc::out_of_memory) || !usable()) {
                CAPTURE(n);
                CAPTURE(end.good);
                CAPTURE(static_cast<int>(end.code));
                CHECK_FALSE(thrown);
                CHECK(usable());
                FAIL_CHECK("want a value or out_of_memory");
                return;
            }
            // The files of the tests need thousands; of those after the first thousand every hundredth.
            if (n > 1000) n += 96;
        }
        CHECK(n > least);
    }
}
template <class Work, class Usable>
void run_out(const char* what, long least, Work&& work, Usable&& usable) {
    run_out(what, least, work, usable, [] {});
}
template <class Work>
void run_out(const char* what, long least, Work&& work) {
    run_out(what, least, work, [] { return true; });
}

const std::filesystem::path& bundled() {
    static const auto path = std::filesystem::path(PHI4FLASH_TEST_MODELS) / "tiny-arithmetic";
    return path;
}

/// What the tests share, made while there is memory.
struct poor_fixture {
    poor_fixture()
        : files(*p4::model_files::open(bundled())), words(*files.open_tokenizer()), m(*p4::model<>::bind(files)),
          past(*p4::session<>::create(m, 256)), work(*p4::workspace<>::create(m, {.chunk = 16})) {}

    p4::model_files files;
    p4::tokenizer words;
    p4::model<> m;
    p4::session<> past;
    p4::workspace<> work;
};

/// The bundled model as a packed file.
ending convert(const p4::model_files& from, const p4::tokenizer& words, const std::filesystem::path& path, p4::packed_model_info info = {}) {
    const auto tables = p4::describe_tokenizer(words, from.config().shape.vocab);
    if (!tables) return tables;
    info.config = from.config();
    info.tokenizer = &*tables;
    return p4::convert_model(from, info, {}, path, {}, [](std::uint64_t, std::uint64_t) {});
}

std::string text_of(const std::filesystem::path& path) { return *p4::read_file(path, std::size_t{1} << 30); }
std::size_t files_in(const std::filesystem::path& folder) {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

}  // namespace

TEST_CASE("running out: opening folders, files and their parts") {
    const auto sharded = golden::folder_of("bf16-12l-sharded");
    const auto folder = bundled();
    run_out("a folder", 20, [&] { return ending(p4::model_files::open(folder)); });
    run_out("a folder of shards", 20, [&] { return ending(p4::checkpoint::open(sharded)); });
    const auto nowhere = sharded / "nowhere" / "at all";
    run_out("no folder", 0, [&] {
        const auto none = p4::model_files::open(nowhere);
        return none.error().code() == p4::errc::file_not_found ? ending(p4::status()) : ending(none);
    });
    const auto no_config = sharded.parent_path();
    run_out("a folder above", 0, [&] {
        const auto none = p4::model_files::open(no_config);
        return none.error().code() == p4::errc::file_not_found ? ending(p4::status()) : ending(none);
    });
    const auto config = text_of(bundled() / "config.json");
    const auto weights = p4::mapped_file::open(bundled() / "model.safetensors");
    REQUIRE(weights);
    // At an odd place, so that all tensors are copied.
    std::vector<std::byte> odd(weights->bytes().size() + 1);
    std::ranges::copy(weights->bytes(), odd.begin() + 1);
    const std::span<const std::byte> file = std::span(odd).subspan(1);
    run_out("a checkpoint in memory, copied", 20, [&] { return ending(p4::checkpoint::from_memory(config, {&file, 1})); });
    run_out("safetensors", 5, [&] { return ending(p4::safetensors::parse(weights->bytes())); });
    const auto index = text_of(sharded / "model.safetensors.index.json");
    run_out("an index", 5, [&] { return ending(p4::read_checkpoint_index(index)); });
    run_out("a config.json", 5, [&] { return ending(p4::read_hf_config(config)); });
    const auto generation = text_of(bundled() / "generation_config.json");
    run_out("a generation_config.json", 3, [&] { return ending(p4::read_generation_config(generation)); });
    run_out("the generation of a config.json", 5, [&] { return ending(p4::read_generation_of_hf_config(config)); });
    const std::string nested = R"([1, "two, which is longer than a small string", {"a key that is longer than a small string": [4, {}]}])";
    run_out("JSON", 5, [&] { return ending(p4::read_json(nested)); });
}

TEST_CASE("running out: the tokenizer, from its JSON and from packed files") {
    const poor_fixture f;
    const io_testing::temporary_folder folder;
    const auto packed_path = folder.path() / "model.gguf";
    REQUIRE(convert(f.files, f.words, packed_path).good);
    run_out("a tokenizer.json", 100, [&] { return ending(f.files.open_tokenizer()); });

    run_out("a packed file", 5, [&] { return ending(p4::model_files::open(packed_path)); });
    const auto packed = p4::packed_model::open(packed_path);
    REQUIRE(packed);
    run_out("the tables of a packed tokenizer", 5, [&] { return ending(p4::read_tokenizer(*packed)); });

    // Without the version of the tables, a reader takes the strings.
    std::string text = text_of(packed_path);
    const std::string key = "phi4flash.tokenizer.version";
    const auto at = text.find(key);
    REQUIRE(at != std::string::npos);
    text[at + key.size() + 4] = 77;
    const auto strings_path = folder.write("strings.gguf", text);
    const auto strings = p4::packed_model::open(strings_path);
    REQUIRE(strings);
    run_out("the strings of a packed tokenizer", 40, [&] { return ending(p4::read_tokenizer(*strings)); });
}

TEST_CASE("running out: a row-major file is repacked") {
    const io_testing::temporary_folder folder;
    const auto path = folder.path() / "rows.gguf";
    const p4::sambay_shape shape = poor_fixture().files.config().shape;
    // The packed file of the bundled model says what a model has; its matrices again, as rows of Q8_0.
    const poor_fixture f;
    REQUIRE(convert(f.files, f.words, folder.path() / "packed.gguf").good);
    const auto packed = p4::packed_model::open(folder.path() / "packed.gguf");
    REQUIRE(packed);
    p4::gguf_metadata about;
    p4::detail::add_config(about, packed->config());
    about.add("general.architecture", "phi4flash");
    std::vector<p4::gguf_spec> specs;
    for (const p4::tensor_view& t : packed->tensors()) {
        const bool rows = p4::is_packed(t.type);
        specs.push_back({std::string(t.name), rows ? p4::ggml_type::q8_0 : p4::ggml_type_of(t.type), {t.shape().begin(), t.shape().end()}});
    }
    const auto plan = p4::plan_gguf(about, specs);
    REQUIRE(plan);
    REQUIRE(p4::write_gguf(path, about, specs, [&](std::size_t i, p4::gguf_sink& out) {
        const std::vector<std::byte> zeros(static_cast<std::size_t>(plan->bytes[i]));
        return out.write(std::span<const std::byte>(zeros));
    }));
    CHECK(shape == packed->config().shape);
    const auto opened = p4::packed_model::open(path);
    REQUIRE(opened);
    REQUIRE(opened->needs_repacking());
    run_out("bytes needed", 1, [&] { return ending(p4::repacked_model::bytes_needed(*opened)); });
    run_out("repacking", 2, [&] { return ending(p4::repacked_model::create(*opened)); });
    run_out("opening it", 10, [&] { return ending(p4::model_files::open(path)); });
}

TEST_CASE("running out: model, session, workspace, threads and a tally") {
    const poor_fixture f;
    run_out("bind", 0, [&] { return ending(p4::model<>::bind(f.files)); });
    run_out("session", 0, [&] { return ending(p4::session<>::create(f.m, 64)); });
    run_out("workspace", 0, [&] { return ending(p4::workspace<>::create(f.m)); });
    run_out("threads", 3, [&] { return ending(p4::thread_pool::create(3)); });
    p4::prediction_tally tally;
    std::size_t before = 0;
    run_out(
        "tally", 0, [&] { return before = tally.count(), ending(tally.add({})); }, [&] { return tally.count() <= before + 1; });
    run_out("quantile", 0, [&] { return ending(tally.divergence_quantile(0.5)); });
}

TEST_CASE("running out: text to ids and back, and nothing that was there is lost") {
    const poor_fixture f;
    p4::encoder encoder(f.words);
    const std::string said = "What is 12 + 34? \xE2\x82\xAC \xFF and a word that_is_not_in_any_vocabulary <|end|> caf\xC3\xA9";
    ids_type want{-5};
    REQUIRE(f.words.encode(said, {}, want));
    ids_type ids{-5};
    const auto whole = [&] { return (ids.size() == 1 || ids == want) && ids[0] == -5; };
    const auto shrunk = [&](auto&& encode) {  // shrink_to_fit takes memory: not while it fails
        const long left = std::exchange(failing_memory::left, -1);
        ids.resize(1);
        ids.shrink_to_fit();
        failing_memory::left = left;
        return ending(encode());
    };
    run_out("encode", 3, [&] { return shrunk([&] { return f.words.encode(said, {}, ids); }); }, whole);
    run_out("an encoder", 1, [&] { return shrunk([&] { return encoder.encode(said, {}, ids); }); }, whole);
    run_out("a new encoder", 5, [&] { return shrunk([&] { return p4::encoder(f.words).encode(said, {}, ids); }); }, whole);
    ids.resize(1);
    REQUIRE(encoder.encode(said, {}, ids));
    CHECK(ids == want);

    std::string text = "x";
    const std::span<const std::int32_t> said_ids = std::span<const std::int32_t>(want).subspan(1);
    run_out(
        "decode", 1,
        [&] {
            const long left = std::exchange(failing_memory::left, -1);
            text = std::string("x");
            failing_memory::left = left;
            return ending(f.words.decode(said_ids, {}, text));
        },
        [&] { return text == "x" || text.size() >= said.size(); });

    std::string rendered;
    const p4::chat_message messages[] = {{"system", "You are a calculator with a long description."}, {"user", said}};
    run_out("render", 0, [&] { return ending(p4::render_chat(messages, {}, rendered)); });
    for (const p4::marker_policy policy : {p4::marker_policy::parse, p4::marker_policy::plain_text})
        run_out(
            "encode a chat", 2, [&] { return shrunk([&] { return p4::encode_chat(encoder, messages, {.content_markers = policy}, ids); }); },
            [&] { return ids[0] == -5; });
    std::string normal;
    const std::string marks = "a\xCC\x81 and so on, for longer than a small string";
    run_out("normalize", 1, [&] { return ending(p4::append_normalized(marks, p4::normal_form::nfc, normal)); });
}

TEST_CASE("running out: a conversation goes on") {
    const poor_fixture f;
    p4::conversation with(f.words, "A long description of what the model is, longer than a small string");
    const std::string question = "What is 12 + 34?";
    run_out("ask", 3, [&] { return ending(p4::conversation(f.words).ask(question)); });
    const auto asked = with.ask(question);
    REQUIRE(asked);
    const ids_type want(asked->begin(), asked->end());
    run_out("ask again", 1, [&] { return ending(with.ask(question)); });
    const auto same = with.ask(question);
    REQUIRE(same);
    CHECK(ids_type(same->begin(), same->end()) == want);
    const ids_type answer{7, 8, 5};
    const std::size_t before = with.tokens().size();
    run_out(
        "answered", 1, [&] { return ending(with.answered({.prompt_tokens = want.size(), .new_tokens = 3, .unread = 5}, answer)); },
        [&] { return with.turns().size() <= 1 && (with.turns().size() == 1 || with.tokens().size() == before); }, [&] {
            while (!with.turns().empty()) REQUIRE(with.take_back());
            REQUIRE(with.ask(question));
        });
    CHECK(with.turns().size() == 1);
    CHECK(with.ask(question));
}

TEST_CASE("running out: options, a generation, and the session after it") {
    poor_fixture f;
    p4::generation_config said = f.files.generation();
    said.stop_strings = {"a stop string that is longer than a small one"};
    run_out("options", 2, [&] { return ending(p4::options_from(said, &f.words)); });
    run_out("stop strings", 3, [&] { return ending(p4::stop_matcher::create(said.stop_strings)); });

    auto options = *p4::options_from(said, &f.words);
    options.max_tokens = 12;
    options.sampling.repetition_penalty = 1.1f;
    const ids_type prompt{1, 2, 3};
    const auto write = [&] {
        f.past.reset();
        return p4::generate(f.m, f.past, f.work, &f.words, prompt, options, [](const p4::generation_event&) { return true; });
    };
    run_out("generate", 3, [&] { return ending(write()); });
    run_out("a generation", 3, [&] { return ending(p4::generation<>::create(f.m, f.work, &f.words, options, {.prompt = 9, .drafts = 3})); });
    run_out("a prefix cache", 0, [&] { return ending(p4::prefix_cache<>::create(f.m, std::size_t{8} << 20)); });
    run_out("a scheduler", 3, [&] { return ending(p4::scheduler<>::create(f.m, f.work, &f.words, {.requests = 3})); });
    f.past.reset();
    const p4::request<> wanted{.past = &f.past, .prompt = prompt, .options = options};
    auto many = p4::scheduler<>::create(f.m, f.work, &f.words, {.requests = 1});
    REQUIRE(many);
    run_out(
        "a request", 3, [&] { return ending(many->add(wanted)); }, [&] { return many->size() <= 1; },
        [&] {
            while (many->size() != 0) {
                REQUIRE(many->tick());
                while (many->next_event()) {
                }
            }
            f.past.reset();
        });
    while (many->size() != 0) {
        REQUIRE(many->tick());
        while (many->next_event()) {
        }
    }
    const auto summary = write();
    REQUIRE(summary);
    CHECK(f.past.position() >= prompt.size());
    CHECK(p4::step(f.m, f.past, f.work, 1));
}

TEST_CASE("running out: files are written whole or not at all, and what was there stays") {
    const poor_fixture f;
    const io_testing::temporary_folder folder;
    const auto path = folder.write("there.bin", "what was there");
    const std::string text(100000, 'y');
    std::string now = "what was there";
    const auto whole = [&] { return files_in(folder.path()) == 1 && (text_of(path) == "what was there" || text_of(path) == now); };
    now = text;
    run_out("a small file", 2, [&] { return ending(p4::write_file(path, text)); }, whole);
    folder.write("there.bin", "what was there");
    run_out("in place or not", 0, [&] { return ending(p4::is_written_in_place(path)); }, whole);

    const std::vector<p4::safetensors_spec> specs{{"a tensor with a name that is longer than a small string", "F32", {2, 3}}};
    const float numbers[6] = {};
    run_out("safetensors", 3, [&] {
        return ending(
            p4::write_safetensors(path, specs, [&](std::size_t, p4::safetensors_sink& out) { return out.write(std::span<const float>(numbers)); }));
    });
    CHECK(p4::safetensors::parse(p4::mapped_file::open(path)->bytes()));
    folder.write("there.bin", "what was there");
    p4::packed_model_info info;  // holds a text
    run_out(
        "a whole model", 100, [&] { return convert(f.files, f.words, path, std::move(info)); },
        [&] { return files_in(folder.path()) == 1; }, [&] { info = {}; });
    CHECK(p4::packed_model::open(path));
}
#endif
