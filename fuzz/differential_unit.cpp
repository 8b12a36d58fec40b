/// One back end of the entry `differential`: all its targets that this machine can run. PHI4FLASH_FUZZ_UNIT is the name of its function.
#include "differential.hpp"

#include <phi4flash/io/packed/model.hpp>
#include <phi4flash/model/forward.hpp>

namespace {

using namespace phi4flash;

template <class Kv>
void run(const model<>& m, const differential_task& task, const kernel_table& kernels, void* self, differential_sink sink) {
    auto s = session<any_sambay, Kv>::create(m, {.context = task.n_tokens, .pages = page_size::normal});
    auto w = workspace<any_sambay, Kv>::create(m, {.chunk = task.chunk, .kernels = &kernels,
                                                   .activations = task.exact_activations != 0 ? activation_type::f32 : activation_type::int8,
                                                   .pages = page_size::normal});
    if (!s) return sink(self, kernels.name, nullptr, 0, s.error().message());
    if (!w) return sink(self, kernels.name, nullptr, 0, w.error().message());
    const auto logits = prefill(m, *s, *w, std::span(task.tokens, task.n_tokens));
    if (!logits) return sink(self, kernels.name, nullptr, 0, logits.error().message());
    sink(self, kernels.name, logits->data(), logits->size(), nullptr);
}

}  // namespace

extern "C" void PHI4FLASH_FUZZ_UNIT(const differential_task& task, void* self, differential_sink sink) {
    const auto file = packed_model::from_memory({reinterpret_cast<const std::byte*>(task.file), task.file_bytes});
    if (!file) return sink(self, "", nullptr, 0, file.error().message());
    const auto m = model<>::bind(*file);
    if (!m) return sink(self, "", nullptr, 0, m.error().message());
    for (const kernel_target& target : kernel_targets()) {
        if (!target.request()) continue;
        if (task.kv == 0) run<bf16>(*m, task, *target.kernels, self, sink);
        else if (task.kv == 1) run<float>(*m, task, *target.kernels, self, sink);
        else run<kv_int8>(*m, task, *target.kernels, self, sink);
    }
}
