/// A GGUF file as a model: opened, repacked where it must be, bound, and one pass over a few tokens; its tokenizer, with a few words.
#include "fuzz.hpp"

#include <phi4flash/io/model_files.hpp>
#include <phi4flash/model/forward.hpp>

#include <string>
#include <vector>

namespace gguf_entry {

using namespace phi4flash;

/// What the passes of a model that fits its file may take: extents such as the window cost nothing in a file.
constexpr std::size_t most_workspace = std::size_t{8} << 20;

void pass_over(const model<>& m) {
    const std::size_t vocab = m.shape().vocab();
    const session_options room{.context = 8, .pages = page_size::normal};
    workspace_options how{.chunk = 4, .pages = page_size::normal};
    // How much it takes is known before it is taken.
    if (session<>::bytes(m, room) + workspace<>::bytes(m.shape(), how) > most_workspace) return;
    auto s = session<>::create(m, room);
    PHI4FLASH_FUZZ_CHECK(s);
    auto w = workspace<>::create(m, how);
    PHI4FLASH_FUZZ_CHECK(w);
    const std::vector<std::int32_t> tokens{0, static_cast<std::int32_t>(vocab - 1), static_cast<std::int32_t>(vocab / 2), 0, 0};
    const auto logits = prefill(m, *s, *w, tokens);
    if (!logits) {
        fuzz::check_refusal(logits.error());
        PHI4FLASH_FUZZ_CHECK(logits.error().code() == errc::not_finite);
        return;
    }
    PHI4FLASH_FUZZ_CHECK(logits->size() == vocab && s->position() == tokens.size());
    for (const float x : *logits) PHI4FLASH_FUZZ_CHECK(is_finite(x));
}

void use_tokenizer(const model_files& files) {
    const auto words = files.open_tokenizer();
    if (!words) return fuzz::check_refusal(words.error());
    std::vector<std::int32_t> ids;
    PHI4FLASH_FUZZ_CHECK(words->encode("the hell\xC3\xB6 aaaa  <|end|>\n12", {}, ids));
    std::string text;
    PHI4FLASH_FUZZ_CHECK(words->decode(ids, {}, text));
}

}  // namespace gguf_entry

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace phi4flash;
    const fuzz::memory_limit limit(size, (std::size_t{2} << 20) + gguf_entry::most_workspace, 256);
    const auto files = model_files::from_memory(fuzz::bytes_of(data, size));
    if (!files) return fuzz::check_refusal(files.error()), 0;
    for (const tensor_view& t : files->tensors()) fuzz::read_all({t.data, t.bytes});
    if (const status ok = check_weights(files->tensors()); !ok) fuzz::check_refusal(ok.error());
    if (files->has_tokenizer()) gguf_entry::use_tokenizer(*files);
    const auto m = model<>::bind(*files);
    if (!m) return fuzz::check_refusal(m.error()), 0;
    gguf_entry::pass_over(*m);
    return 0;
}
