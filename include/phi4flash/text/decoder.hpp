#pragma once
/// Streaming decoder: ids in, text out as soon as it is certain. What it gives is always whole, well-formed UTF-8, and all of it
/// joined equals `tokenizer::decode` of all ids.
#include <phi4flash/text/tokenizer.hpp>
#include <phi4flash/text/utf8.hpp>

#include <cstdint>
#include <string_view>

PHI4FLASH_BEGIN

/// One stream of ids. The tokenizer must outlive it. Takes no memory but its own 16 KiB. For one thread at a time.
class stream_decoder {
public:
    /// Bytes of text that one call gives at most: three for each byte of the longest token, and of a character that was begun.
    static constexpr std::size_t longest_text = 3 * (max_token_bytes + 3);

    explicit stream_decoder(const tokenizer& t, const decode_options& options = {}) : tokenizer_(&t), options_(options) {}

    /// The text that became certain with this id: often empty while a character is incomplete. Valid until the next call.
    std::string_view push(std::int32_t id);

    /// The end of the stream: what was held back, as U+FFFD. The decoder can then be used for another stream.
    std::string_view flush();

    /// Bytes that wait for the rest of their character, at most 3.
    [[nodiscard]] std::string_view held() const { return held_.view(); }

private:
    const tokenizer* tokenizer_;
    decode_options options_;
    detail::fixed_text<max_token_bytes + 3> held_;
    detail::fixed_text<longest_text> text_;
};

#if PHI4FLASH_BODIES
PHI4FLASH_BODY std::string_view stream_decoder::push(std::int32_t id) {
    text_.clear();
    if (options_.skip_special && tokenizer_->is_special(id)) return text_.view();
    held_.append(tokenizer_->bytes_of(id));
    const std::size_t certain = held_.view().size() - incomplete_utf8_tail(held_.view());
    detail::append_lossy_utf8(held_.view().substr(0, certain), text_);
    held_.keep_from(certain);
    return text_.view();
}

PHI4FLASH_BODY std::string_view stream_decoder::flush() {
    text_.clear();
    detail::append_lossy_utf8(held_.view(), text_);
    held_.clear();
    return text_.view();
}
#endif

PHI4FLASH_END
