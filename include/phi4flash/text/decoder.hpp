#pragma once
/// Streaming decoder: ids in, text out as soon as it is certain. What it gives is always whole, well-formed UTF-8, and all of it
/// joined equals `tokenizer::decode` of all ids.
#include <phi4flash/text/tokenizer.hpp>

#include <cstdint>
#include <string>
#include <string_view>

PHI4FLASH_BEGIN

/// One stream of ids. The tokenizer must outlive it. For one thread at a time.
class stream_decoder {
public:
    explicit stream_decoder(const tokenizer& t, const decode_options& options = {}) : tokenizer_(&t), options_(options) {}

    /// The text that became certain with this id: often empty while a character is incomplete. Valid until the next call.
    std::string_view push(std::int32_t id) {
        text_.clear();
        if (options_.skip_special && tokenizer_->is_special(id)) return text_;
        held_.append(tokenizer_->bytes_of(id));
        const std::size_t tail = incomplete_utf8_tail(held_);
        append_lossy_utf8(std::string_view(held_).substr(0, held_.size() - tail), text_);
        held_.erase(0, held_.size() - tail);
        return text_;
    }

    /// The end of the stream: what was held back, as U+FFFD. The decoder can then be used for another stream.
    std::string_view flush() {
        text_.clear();
        append_lossy_utf8(held_, text_);
        held_.clear();
        return text_;
    }

    /// Bytes that wait for the rest of their character, at most 3.
    [[nodiscard]] std::string_view held() const { return held_; }

private:
    const tokenizer* tokenizer_;
    decode_options options_;
    std::string held_;
    std::string text_;
};

PHI4FLASH_END
