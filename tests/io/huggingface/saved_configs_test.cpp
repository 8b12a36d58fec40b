/// Configurations as save_pretrained writes them (tests/data/configs/save.py makes the files), and every key that its classes know.
#include "io/io_testing.hpp"

#include <phi4flash/io/huggingface/config.hpp>
#include <phi4flash/io/huggingface/generation_config.hpp>
#include <phi4flash/io/file/read_file.hpp>

#if PHI4FLASH_HAS_JSON
using namespace phi4flash;
using namespace io_testing;

namespace {
const char* const versions[] = {"4.57.6", "5.24.0"};

std::string saved(const std::string& name, const std::string& version) {
    const auto path = std::filesystem::path(PHI4FLASH_TEST_DATA) / "configs" / (name + "-" + version + ".json");
    const auto text = read_file(path, std::size_t{1} << 20);
    require_value(text);
    return *text;
}
}  // namespace

TEST_CASE("io/saved_configs: the released model, saved by transformers 4 and 5, twice, in full, and after other programs") {
    for (const char* version : versions)
        for (const char* name : {"saved", "saved-twice", "saved-changed", "full"}) {
            CAPTURE(version);
            CAPTURE(name);
            const std::string text = saved(name, version);
            const auto config = read_hf_config(text);
            require_value(config);
            CHECK(config->shape == phi4_mini_flash);
            CHECK(config->norm_eps == 1e-5f);
            CHECK(config->max_positions == 262144);
            const auto generation = read_generation_of_hf_config(text);
            require_value(generation);
            CHECK(generation->stop_ids == std::vector<std::uint32_t>{199999});
            CHECK_FALSE(generation->do_sample.has_value());  // what every class begins with says nothing
            CHECK_FALSE(generation->temperature.has_value());
            CHECK_FALSE(generation->top_k.has_value());
            CHECK(generation->unsupported.empty());
        }
}

TEST_CASE("io/saved_configs: generation_config.json") {
    for (const char* version : versions) {
        CAPTURE(version);
        const auto generation = read_generation_config(saved("generation", version));
        require_value(generation);
        CHECK(generation->stop_ids == std::vector<std::uint32_t>{200020, 199999});
        CHECK(generation->unsupported.empty());
    }
}

TEST_CASE("io/saved_configs: every key of the classes is known") {
    for (const char* version : versions) {
        const auto lists = read_json(saved("keys", version));
        require_value(lists);
        REQUIRE(lists->size() == 2);
        REQUIRE((*lists)[0].size() >= 13);
        REQUIRE((*lists)[1].size() >= 50);
        for (const json_value& list : *lists)
            for (const json_value& name : list) {
                const auto& key = *name.get_ptr<const std::string*>();
                CAPTURE(key);
                const bool known = detail::is_private_key(key) || detail::find_key(detail::config_keys, key) != nullptr ||
                                   detail::find_key(detail::generation_keys, key) != nullptr;
                CHECK(known);
            }
        for (const json_value& name : (*lists)[1]) {
            const auto& key = *name.get_ptr<const std::string*>();
            CAPTURE(key);
            CHECK((detail::is_private_key(key) || detail::find_key(detail::generation_keys, key) != nullptr));
        }
    }
}

TEST_CASE("io/saved_configs: no key is in the lists twice") {
    const auto all = [] {
        std::vector<std::string_view> names;
        for (const auto& key : detail::config_keys) names.push_back(key.name);
        for (const auto& key : detail::generation_keys) names.push_back(key.name);
        std::sort(names.begin(), names.end());
        return names;
    }();
    const auto twice = std::adjacent_find(all.begin(), all.end());
    CHECK_MESSAGE(twice == all.end(), std::string(twice == all.end() ? "" : *twice));
}
#endif
