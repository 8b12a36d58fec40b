/// What the writer writes the reader reads, in pieces and with wide elements first; what it cannot write it refuses first.
#include "io/io_testing.hpp"

#include <phi4flash/io/file/mapped_file.hpp>
#include <phi4flash/io/safetensors/safetensors_writer.hpp>

using namespace phi4flash;
using namespace io_testing;

namespace {
status write_no_tensor(std::size_t, safetensors_sink&) { return {}; }

result<safetensors_plan> plan(std::vector<safetensors_spec> specs) { return plan_safetensors(specs); }
}  // namespace

TEST_CASE("io/safetensors_writer: what is refused, by name") {
    check_error(plan({{"a\n", "F32", {1}}}), errc::invalid_argument, {"'a?'", "ASCII"});
    check_error(plan({{"a", "F31", {1}}}), errc::unknown_dtype, {"'a'", "'F31'"});
    check_error(plan({{"a", "F32", {1, 1, 1, 1, 1}}}), errc::rank_too_high, {"'a'", "at most 4", "have 5"});
    const std::size_t huge = SIZE_MAX / 4 + 1;
    check_error(plan({{"a", "F32", {huge}}}), errc::size_overflow, {"'a'"});
    check_error(plan({{"a", "U8", {huge}}, {"b", "U8", {huge}}}), errc::size_overflow, {"'b'"});
    check_error(plan({{"a", "F32", {1}}, {"b", "F32", {1}}, {"a", "F32", {2}}}), errc::duplicate_name, {"'a'"});
    check_error(plan({{"__metadata__", "F32", {1}}}), errc::duplicate_name, {"__metadata__"});
}

TEST_CASE("io/safetensors_writer: a failed write leaves nothing behind") {
    const temporary_folder folder;
    const auto path = folder.path() / "x.safetensors";
    const std::vector<safetensors_spec> specs = {{"a", "F32", {2}}};
    check_error(write_safetensors(path, specs, write_no_tensor), errc::size_mismatch, {"'a'", "8 bytes", "0 were written"});
    const auto cancelled = write_safetensors(path, specs, [](std::size_t, safetensors_sink&) -> status {
        return error::format(errc::cancelled, "stopped");
    });
    check_error(cancelled, errc::cancelled, {"stopped"});
    CHECK(std::filesystem::is_empty(folder.path()));
    check_error(write_safetensors(folder.path() / "no" / "x", specs, write_no_tensor), errc::file_unwritable, {"x"});
}

#if PHI4FLASH_HAS_JSON
TEST_CASE("io/safetensors_writer: read back") {
    const temporary_folder folder;
    const auto path = folder.path() / "x.safetensors";
    const std::vector<safetensors_spec> specs = {{"odd \"name\\", "BF16", {3}},
                                                 {"wide", name_of(dtype::f32), {2, 1}},
                                                 {"scalar", "I64", {}},
                                                 {"none", "F32", {0, 4}},
                                                 {"b", "U8", {5}}};
    const auto written = write_safetensors(path, specs, [&](std::size_t i, safetensors_sink& sink) -> status {
        if (i == 0) return sink.write(std::span<const bf16>(std::vector<bf16>{{1}, {2}, {3}}));
        if (i == 2) return sink.write(std::span<const std::int64_t>(std::vector<std::int64_t>{-7}));
        if (i == 4) return sink.write(std::as_bytes(std::span("hell", 5)));
        if (i == 1)
            for (const float x : {0.5f, -2.0f})
                if (const status ok = sink.write(std::span<const float>(&x, 1)); !ok) return ok;
        return {};
    });
    require_value(written);

    const auto file = mapped_file::open(path);
    require_value(file);
    const auto table = safetensors::parse(file->bytes());
    require_value(table);
    REQUIRE(table->entries().size() == specs.size());
    for (const safetensors_spec& spec : specs) {
        const safetensors_entry* const entry = table->find(spec.name);
        REQUIRE(entry != nullptr);
        CHECK(entry->dtype == spec.dtype);
        CHECK(std::vector<std::size_t>(entry->shape().begin(), entry->shape().end()) == spec.shape);
    }
    float wide[2] = {};
    std::memcpy(wide, table->find("wide")->data, sizeof wide);
    CHECK(wide[0] == 0.5f);
    CHECK(wide[1] == -2.0f);
    std::int64_t scalar = 0;
    std::memcpy(&scalar, table->find("scalar")->data, 8);
    CHECK(scalar == -7);
    std::uint16_t narrow[3] = {};
    std::memcpy(narrow, table->find("odd \"name\\")->data, 6);
    CHECK(narrow[2] == 3);
    CHECK(std::memcmp(table->find("b")->data, "hell", 5) == 0);
}
#endif
