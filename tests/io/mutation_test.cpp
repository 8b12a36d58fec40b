/// Damaged files never read out of bounds (run under AddressSanitizer) and never crash: every byte of a small file changed
/// in several ways, every length, and random damage in pairs. Deterministic.
#include "io/io_testing.hpp"

#include <phi4flash/io/huggingface/checkpoint.hpp>

#if PHI4FLASH_HAS_JSON
using namespace phi4flash;
using namespace io_testing;

namespace {
const char* const valid_header =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
    R"("b.c":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]},"d":{"dtype":"I8","shape":[],"data_offsets":[22,23]}})";

const char* const valid_config =
    R"({"model_type":"phi4flash","vocab_size":16,"hidden_size":8,"intermediate_size":8,"num_hidden_layers":4,)"
    R"("num_attention_heads":2,)"
    R"("num_key_value_heads":2,"sliding_window":[null,[null,5,null,null],null,null],"layer_norm_eps":1e-5,"eos_token_id":[1,2],)"
    R"("layer_types":["mamba","attention","mamba","attention"],"stop_strings":["a"],"num_beams":1,"quantization_config":null,)"
    R"("pad_token_id":-1,"head_dim":4,"mamba_dt_rank":"auto","attention_bias":true})";

/// Reads every byte that the table hands out. What was accepted lies inside the file.
unsigned long long use(std::span<const std::byte> file) {
    const auto table = safetensors::parse(file);
    if (!table) {
        CHECK(table.error().message()[0] != '\0');
        return 0;
    }
    unsigned long long sum = 1;
    for (const safetensors_entry& e : table->entries()) {
        sum += e.name.size();
        for (std::size_t i = 0; i < e.bytes; ++i) sum += static_cast<unsigned>(e.data[i]);
        if (const auto view = to_tensor_view(e)) sum += view->count();
    }
    return sum;
}

/// Calls `check` with every single change of `valid`, every truncation and `pairs` random double changes.
template <class Check>
std::size_t damage(const bytes& valid, std::size_t pairs, Check&& check) {
    std::size_t accepted = 0;
    for (std::size_t i = 0; i < valid.size(); ++i) {
        bytes changed = valid;
        for (const unsigned value : {0x00u, 0x22u, 0x2du, 0x39u, 0x5bu, 0x7du, 0x80u, 0xffu}) {
            changed[i] = static_cast<std::byte>(value);
            accepted += check(changed) ? 1 : 0;
        }
        changed[i] = valid[i] ^ std::byte{1};
        accepted += check(changed) ? 1 : 0;
        const bytes cut(valid.begin(), valid.begin() + static_cast<std::ptrdiff_t>(i));
        accepted += check(cut) ? 1 : 0;
    }
    std::mt19937 random(20250611);
    for (std::size_t i = 0; i < pairs; ++i) {
        bytes changed = valid;
        for (int k = 0; k < 2; ++k) changed[random() % changed.size()] = static_cast<std::byte>(random() & 0x7f);
        accepted += check(changed) ? 1 : 0;
    }
    return accepted;
}
}  // namespace

TEST_CASE("io/mutation: safetensors") {
    const bytes valid = safetensors_file(padded(valid_header), 23);
    REQUIRE(use(valid) > 1);
    const std::size_t accepted = damage(valid, 3000, [](const bytes& file) { return use(file) != 0; });
    CHECK(accepted > 23 * 7);  // damage to the data alone is no defect of the container
    CHECK(accepted < valid.size() * 5);
}

TEST_CASE("io/mutation: config.json") {
    const std::string_view text = valid_config;
    require_value(read_hf_config(text));
    const bytes valid(reinterpret_cast<const std::byte*>(text.data()),
                      reinterpret_cast<const std::byte*>(text.data()) + text.size());
    damage(valid, 1000, [](const bytes& changed) {
        const auto config = read_hf_config(text_of(changed));
        const auto any = read_hf_config(text_of(changed), {.ignore_unknown_keys = true});
        const auto generation = read_generation_config(text_of(changed));
        CHECK(read_generation_of_hf_config(text_of(changed)).has_value() == generation.has_value());
        CHECK((any.has_value() || !config.has_value()));  // what is ignored makes nothing worse
        if (any) CHECK(check_shape(any->shape).has_value());
        return config.has_value() && generation.has_value();
    });
}

TEST_CASE("io/mutation: the index") {
    const std::string_view text = R"({"metadata":{"total_size":1},"weight_map":{"a":"x.safetensors","b":"y.safetensors"}})";
    require_value(read_checkpoint_index(text));
    const bytes valid(reinterpret_cast<const std::byte*>(text.data()),
                      reinterpret_cast<const std::byte*>(text.data()) + text.size());
    damage(valid, 1000, [](const bytes& changed) {
        const auto index = read_checkpoint_index(text_of(changed));
        if (!index) return false;
        for (const std::string& shard : index->shards) CHECK(is_plain_file_name(shard));
        return true;
    });
}
#endif
