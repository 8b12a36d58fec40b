#pragma once
/// What a model is made of once its tensors are found. No template: one function for all shapes and all sources.
#include <phi4flash/core/memory.hpp>
#include <phi4flash/core/out_of_memory.hpp>
#include <phi4flash/core/result.hpp>
#include <phi4flash/core/sort_once.hpp>
#include <phi4flash/model/bind.hpp>
#include <phi4flash/model/shape.hpp>
#include <phi4flash/model/tensor_list.hpp>
#include <phi4flash/model/tensor_source.hpp>
#include <phi4flash/model/weights.hpp>

#if PHI4FLASH_BODIES
#include <phi4flash/model/tensor_binder.hpp>

#include <algorithm>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>
#include <vector>
#endif

PHI4FLASH_BEGIN

namespace detail {

/// Views into the source, and memory with the vectors that were widened.
struct bound_weights {
    moving_places<sambay_weights> weights;
    memory_block parameters;
};

/// Of a configuration whose shape breaks no rule. See model::bind.
[[nodiscard]] PHI4FLASH_BODY result<bound_weights> bind_weights(const tensor_source_ref& source, const sambay_config& config,
                                                                const block_source& memory);

/// Tensors beside the `found` ones: only an lm_head that equals the embedding, since the model ties them.
[[nodiscard]] PHI4FLASH_BODY status check_rest(const tensor_source_ref& source, const sambay_shape& shape, const matrix_view& embedding,
                                               std::size_t found);

#if PHI4FLASH_BODIES

PHI4FLASH_COLD_BODY status check_rest(const tensor_source_ref& source, const sambay_shape& shape, const matrix_view& embedding,
                                      std::size_t found) {
    constexpr std::string_view head_name = "lm_head.weight";
    if (const tensor_view* head = source.find(head_name); head != nullptr) {
        if (has_other_name(*head, head_name)) return other_name_error(*head, head_name);
        const bool same = head->type == embedding.type && head->bytes == embedding.bytes() && head->data != nullptr &&
                          (head->data == embedding.data || std::memcmp(head->data, embedding.data, head->bytes) == 0);
        if (!same)
            return error::format(errc::untied_embedding,
                                 "tensor lm_head.weight differs from model.embed_tokens.weight: want the same %s numbers, the model ties them",
                                 name_of(embedding.type));
        ++found;
    }
    if (source.tensors().size() == found) return {};
    return or_out_of_memory("compare the tensors of a checkpoint", [&]() -> status {
        std::vector<std::string_view> known{head_name};  // sorted: a file may have tens of thousands too many
        list_tensors(shape, [&](std::string_view name, std::span<const std::size_t>, tensor_role) {
            if (const tensor_view* const t = source.find(name); t != nullptr) known.push_back(t->name);
        });
        sort_once(known);
        for (const tensor_view& t : source.tensors())
            if (!std::binary_search(known.begin(), known.end(), t.name))
                return error::format(errc::unexpected_tensor, "tensor '%s' is not part of the model (%zu layers)", plain_name(t.name).c_str(),
                                     shape.n_layers);
        std::vector<std::string_view> listed;
        for (const tensor_view& t : source.tensors())
            if (!t.name.empty()) listed.push_back(t.name);
        sort_once(listed);
        const auto twice = std::adjacent_find(listed.begin(), listed.end());
        if (twice == listed.end())
            return error::format(errc::invalid_argument, "the source lists %zu tensors, and %zu are found by their names: want the same",
                                 source.tensors().size(), found);
        return error::format(errc::duplicate_name, "tensor '%s' is listed twice", plain_name(*twice).c_str());
    });
}

PHI4FLASH_COLD_BODY result<bound_weights> bind_weights(const tensor_source_ref& source, const sambay_config& config, const block_source& memory) {
    if (!is_finite(config.norm_eps) || config.norm_eps <= 0.0f)
        return error::format(errc::invalid_argument, "norm_eps: want a positive number, have %g", static_cast<double>(config.norm_eps));
    const auto e = extents<any_sambay>::of(config.shape);
    tensor_binder first(source, arena(), false);
    const sambay_weights checked = bind_all(first, e, config.norm_eps);
    if (first.failed()) return first.failure().error();
    if (const status rest = check_rest(source, config.shape, checked.embedding, first.found()); !rest) return rest.error();
    auto block = memory_block::allocate(first.bytes(), "model's parameters", page_size::normal, 0, memory);
    if (!block) return block.error();
    tensor_binder fill(source, arena(block->bytes().data()), true);
    const sambay_weights filled = bind_all(fill, e, config.norm_eps);
    if (fill.failed()) return fill.failure().error();
    return bound_weights{filled, std::move(*block)};
}

#endif

}  // namespace detail

PHI4FLASH_END
