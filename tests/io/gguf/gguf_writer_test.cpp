/// What the writer writes the reader reads, in pieces; what it cannot write it refuses first.
#include "io/gguf/gguf_testing.hpp"

#include <phi4flash/io/file/mapped_file.hpp>

using namespace phi4flash;
using namespace io_testing;
using namespace gguf_testing;

namespace {
result<gguf_plan> plan(std::vector<gguf_spec> specs, const gguf_metadata& metadata = {}) { return plan_gguf(metadata, specs); }
status write_nothing(std::size_t, gguf_sink&) { return {}; }
}  // namespace

TEST_CASE("io/gguf_writer: what is refused, by name") {
    check_error(plan({{"a\n", ggml_type::f32, {1}}}), errc::invalid_argument, {"'a?'", "ASCII"});
    check_error(plan({{"", ggml_type::f32, {1}}}), errc::invalid_argument, {"1 to 63"});
    check_error(plan({{std::string(64, 'x'), ggml_type::f32, {1}}}), errc::invalid_argument, {"1 to 63"});
    check_error(plan({{"a", static_cast<ggml_type>(5), {1}}}), errc::unknown_dtype, {"'a'", "5"});
    check_error(plan({{"a", ggml_type::f32, {1, 1, 1, 1, 1}}}), errc::rank_too_high, {"'a'", "at most 4", "have 5"});
    check_error(plan({{"a", ggml_type::q6_k, {256, 32}}}), errc::partial_block, {"'a'", "32 elements", "256", "Q6_K"});
    const std::size_t huge = SIZE_MAX / 4 + 1;
    check_error(plan({{"a", ggml_type::f32, {huge}}}), errc::size_overflow, {"'a'"});
    check_error(plan({{"a", ggml_type::q8_0, {huge, 64}}}), errc::size_overflow, {"'a'"});
    check_error(plan({{"a", ggml_type::i8, {huge}}, {"b", ggml_type::i8, {huge}}}), errc::size_overflow, {"'b'"});
    check_error(plan({{"a", ggml_type::f32, {1}}, {"b", ggml_type::f32, {1}}, {"a", ggml_type::f32, {2}}}), errc::duplicate_name,
                {"'a'"});
    gguf_metadata metadata;
    metadata.add("k", 1);
    metadata.add("k", 2);
    check_error(plan({}, metadata), errc::duplicate_key, {"'k'"});
    metadata = {};
    metadata.add("general.alignment", std::uint32_t{64});
    check_error(plan({}, metadata), errc::duplicate_key, {"general.alignment"});
    metadata = {};
    metadata.add("", true);
    check_error(plan({}, metadata), errc::invalid_argument, {"1 to 65535"});
    for (const std::size_t bad : {0u, 4u, 24u, 131072u}) check_error(plan_gguf({}, {}, bad), errc::bad_alignment, {"power of two"});
}

TEST_CASE("io/gguf_writer: a failed write leaves nothing behind") {
    const temporary_folder folder;
    const auto path = folder.path() / "x.gguf";
    const std::vector<gguf_spec> specs = {{"a", ggml_type::f32, {2}}};
    check_error(write_gguf(path, {}, specs, write_nothing), errc::size_mismatch, {"'a'", "8 bytes", "0 were written"});
    const auto cancelled =
        write_gguf(path, {}, specs, [](std::size_t, gguf_sink&) -> status { return error::format(errc::cancelled, "stopped"); });
    check_error(cancelled, errc::cancelled, {"stopped"});
    CHECK(std::filesystem::is_empty(folder.path()));
    check_error(write_gguf(folder.path() / "no" / "x", {}, specs, write_nothing), errc::file_unwritable, {"x"});
}

TEST_CASE("io/gguf_writer: read back") {
    const temporary_folder folder;
    const auto path = folder.path() / "x.gguf";
    gguf_metadata metadata;
    metadata.add("text", "hello");
    metadata.add("yes", true);
    metadata.add("count", std::uint32_t{7});
    metadata.add("small", std::int8_t{-7});
    metadata.add("half", 0.5f);
    metadata.add("third", 0.25);
    const std::int32_t numbers[] = {1, -2, 3};
    metadata.add_list("numbers", std::span<const std::int32_t>(numbers));
    metadata.add_list("none", std::span<const float>());
    metadata.add_strings("words", 2, [](std::size_t i) { return i == 0 ? "one" : "two words"; });
    const std::vector<gguf_spec> specs = {
        {"odd \"name\\", ggml_type::bf16, {3}}, {"wide", ggml_type::f32, {2, 1}}, {"scalar", ggml_type::i64, {}},
        {"none", ggml_type::f32, {0, 4}},       {"q", ggml_type::q8_0, {2, 32}},
    };
    const auto written = write_gguf(path, metadata, specs, [&](std::size_t i, gguf_sink& sink) -> status {
        if (i == 0) return sink.write(std::span<const std::uint16_t>(std::vector<std::uint16_t>{1, 2, 3}));
        if (i == 2) return sink.write(std::span<const std::int64_t>(std::vector<std::int64_t>{-7}));
        if (i == 4) return sink.write(std::span<const char>(std::vector<char>(68, 'q')));
        if (i == 1)
            for (const float x : {0.5f, -2.0f})
                if (const status ok = sink.write(std::span<const float>(&x, 1)); !ok) return ok;
        return {};
    });
    require_value(written);

    const auto file = mapped_file::open(path);
    require_value(file);
    const auto table = gguf::parse(file->bytes());
    require_value(table);
    CHECK(table->alignment() == 64);
    REQUIRE(table->tensors().size() == specs.size());
    for (const gguf_spec& spec : specs) {
        const gguf_tensor* const t = table->tensor(spec.name);
        REQUIRE(t != nullptr);
        CHECK(t->format->type == spec.type);
        CHECK(std::vector<std::size_t>(t->shape().begin(), t->shape().end()) == spec.shape);
        CHECK(reinterpret_cast<std::uintptr_t>(t->data) % 64 == 0);
    }
    float wide[2] = {};
    std::memcpy(wide, table->tensor("wide")->data, sizeof wide);
    CHECK(wide[1] == -2.0f);
    std::int64_t scalar = 0;
    std::memcpy(&scalar, table->tensor("scalar")->data, 8);
    CHECK(scalar == -7);
    CHECK(table->tensor("q")->data[67] == std::byte{'q'});
    CHECK(table->value("text")->text() == "hello");
    CHECK(table->value("yes")->boolean() == true);
    CHECK(table->value("count")->whole() == 7u);
    CHECK(table->value("small")->at<std::int8_t>() == -7);
    CHECK(table->value("half")->real() == 0.5);
    CHECK(table->value("third")->real() == 0.25);
    CHECK(table->value("numbers")->at<std::int32_t>(1) == -2);
    CHECK(table->value("none")->count == 0);
    gguf_strings words(*table->value("words"));
    std::string_view word;
    REQUIRE(words.next(word));
    REQUIRE(words.next(word));
    CHECK(word == "two words");
}
