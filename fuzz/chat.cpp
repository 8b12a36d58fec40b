/// Messages to a prompt: as text and as ids the same, and what a message spells is never a marker unless it may be.
#include "fuzz.hpp"
#include "tiny.hpp"

#include <phi4flash/io/huggingface/tokenizer_json.hpp>
#include <phi4flash/text/chat.hpp>

#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace phi4flash;
    static const tokenizer words = *tokenizer_from_json(fuzz::tiny_tokenizer());
    const fuzz::memory_limit limit(size, std::size_t{4} << 20, 256);
    fuzz::input in(data, size);
    const std::uint8_t flags = in.byte();
    chat_options options{.form = static_cast<chat_template>(flags & 1), .add_generation_prompt = (flags & 2) != 0,
                         .content_markers = static_cast<marker_policy>((flags >> 2) % 3)};
    constexpr std::string_view roles[] = {"system", "user", "assistant", "tool", "end", "/tool", ""};
    std::vector<chat_message> messages;
    while (!in.empty() && messages.size() < 16) {
        const std::uint8_t how = in.byte();
        chat_message m;
        m.role = how % 8 < 7 ? roles[how % 8] : in.text(in.below(80));
        m.content = in.text(in.below(256));
        if ((how & 8) != 0) m.tools = in.text(in.below(32));
        messages.push_back(m);
    }

    std::string prompt = "before";
    std::vector<std::int32_t> ids{7}, parsed;
    const status rendered = render_chat(messages, options, prompt);
    encoder e(words, 16);
    const status encoded = encode_chat(e, messages, options, ids);
    if (!encoded) {
        fuzz::check_refusal(encoded.error());
        PHI4FLASH_FUZZ_CHECK(ids == std::vector<std::int32_t>{7});
    }
    if (!rendered) {
        fuzz::check_refusal(rendered.error());
        PHI4FLASH_FUZZ_CHECK(prompt == "before" && !encoded);
        return 0;
    }
    if (!encoded) return 0;
    ids.erase(ids.begin());
    prompt.erase(0, 6);
    PHI4FLASH_FUZZ_CHECK(e.encode(prompt, {}, parsed));
    if (options.content_markers == marker_policy::parse) {
        PHI4FLASH_FUZZ_CHECK(ids == parsed);
        return 0;
    }
    // As many markers as the template writes: two a message and more for tools and the template's own, whatever contents spell.
    std::size_t markers = 0, most = 3;
    for (const chat_message& m : messages) most += 2 + (m.tools ? 2u : 0u);
    for (const std::int32_t id : ids) markers += words.is_special(id) ? 1u : 0u;
    PHI4FLASH_FUZZ_CHECK(markers <= most);
    return 0;
}
