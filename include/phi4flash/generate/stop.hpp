#pragma once
/// When a text ends: at a token, or at a string that may arrive in pieces.
#include <phi4flash/core/out_of_memory.hpp>
#include <phi4flash/text/decoder.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

PHI4FLASH_BEGIN

/// Watches streamed text for any of several strings. Text is released as soon as it cannot be the beginning of one of them;
/// what comes from the match on is never released. Text may be hidden: it is watched like all other, so that special tokens match
/// that nobody is shown, and never released.
class stop_matcher {
public:
    /// Text of at most so many bytes, such as a decoder gives at once, takes no memory.
    static constexpr std::size_t longest_text = stream_decoder::longest_text;

    /// Watches for nothing.
    stop_matcher() = default;
    stop_matcher(stop_matcher&&) = default;
    stop_matcher& operator=(stop_matcher&&) = default;

    /// Takes copies of the strings and all memory that it will need; empty strings are left out. Errors: out_of_memory. @since 0.2
    static result<stop_matcher> create(std::span<const std::string> strings);

    /// Takes more text and returns what is certain: a view of the text itself or of the matcher's memory, valid until the next call.
    /// Errors: out_of_memory, for longer text than `longest_text`; it was not taken then.
    [[nodiscard]] result<std::string_view> push(std::string_view text) { return push(text, false); }
    /// The same of text that is not to be released, which may still end what was held back before it. @since 0.2
    [[nodiscard]] result<std::string_view> push_hidden(std::string_view text) { return push(text, true); }

    /// The text ends here: what was held back. Valid until the next call.
    std::string_view flush() {
        released_.clear();
        return release(held_.size());
    }
    /// The text ends with this: push and flush in one. Errors: those of push. @since 0.2
    [[nodiscard]] result<std::string_view> finish(std::string_view text) {
        const auto certain = push(text);
        return certain && !matched_ && !held_.empty() ? release(held_.size()) : certain;
    }

    [[nodiscard]] bool matched() const { return matched_; }

    /// Begins another text. @since 0.2
    void restart() {
        held_.clear();
        hidden_.clear();
        matched_ = false;
    }

private:
    result<std::string_view> push(std::string_view text, bool hidden);

    /// For so many bytes in all.
    void make_room(std::size_t bytes) {
        hidden_.reserve(bytes);
        released_.reserve(bytes);
        held_.reserve(bytes);  // the last one: its capacity says whether there is room
    }

    /// Moves the first n bytes that are held behind the released ones, the hidden ones to nowhere.
    std::string_view release(std::size_t n);

    /// How many bytes at the end may still become a stop string.
    [[nodiscard]] std::size_t longest_open_prefix() const;

    std::vector<std::string> strings_;
    std::string held_;
    std::vector<bool> hidden_;  // of each byte that is held
    std::string released_;
    bool matched_ = false;
};

#if PHI4FLASH_BODIES
PHI4FLASH_BODY result<stop_matcher> stop_matcher::create(std::span<const std::string> strings) {
    return detail::or_out_of_memory("watch for stop strings", [&]() -> result<stop_matcher> {
        stop_matcher made;
        std::size_t longest = 0;
        for (const std::string& s : strings) {
            if (s.empty()) continue;
            made.strings_.push_back(s);
            longest = (std::max)(longest, s.size());
        }
        if (longest != 0) made.make_room(longest + longest_text);
        return made;
    });
}

PHI4FLASH_BODY result<std::string_view> stop_matcher::push(std::string_view text, bool hidden) {
    released_.clear();
    if (strings_.empty()) return hidden ? std::string_view() : text;
    if (matched_) return std::string_view();
    if (text.size() > held_.capacity() - held_.size()) {
        const status ok = detail::or_out_of_memory("watch a long text for stop strings", [&] { return make_room(held_.size() + text.size()); });
        if (!ok) return ok.error();
    }
    held_.append(text);
    hidden_.resize(held_.size(), hidden);
    std::size_t match = std::string::npos;
    for (const std::string& s : strings_) match = (std::min)(match, held_.find(s));
    if (match == std::string::npos) return release(held_.size() - longest_open_prefix());
    matched_ = true;
    release(match);
    held_.clear();
    hidden_.clear();
    return std::string_view(released_);
}

PHI4FLASH_BODY std::string_view stop_matcher::release(std::size_t n) {
    for (std::size_t i = 0; i < n; ++i)
        if (!hidden_[i]) released_.push_back(held_[i]);
    held_.erase(0, n);
    hidden_.erase(hidden_.begin(), hidden_.begin() + static_cast<std::ptrdiff_t>(n));
    return released_;
}

PHI4FLASH_BODY std::size_t stop_matcher::longest_open_prefix() const {
    std::size_t longest = 0;
    for (const std::string& s : strings_) {
        for (std::size_t n = (std::min)(s.size() - 1, held_.size()); n > longest; --n) {
            if (std::string_view(held_).substr(held_.size() - n) == std::string_view(s).substr(0, n)) longest = n;
        }
    }
    return longest;
}
#endif

PHI4FLASH_END
