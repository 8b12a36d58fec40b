#pragma once
/// When a text ends: at a token, or at a string that may arrive in pieces.
#include <phi4flash/config/abi.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

PHI4FLASH_BEGIN

/// Watches streamed text for any of several strings. Text is released as soon as it cannot be the beginning of one of them;
/// what comes from the match on is never released. Text may be hidden: it is watched like all other, so that special tokens match
/// that nobody is shown, and never released.
class stop_matcher {
public:
    explicit stop_matcher(std::vector<std::string> strings = {}) : strings_(std::move(strings)) {
        std::erase_if(strings_, [](const std::string& s) { return s.empty(); });
    }

    /// Takes more text and returns what is certain. Valid until the next call.
    std::string_view push(std::string_view text) { return push(text, false); }
    /// The same of text that is not to be released, which may still end what was held back before it.
    std::string_view push_hidden(std::string_view text) { return push(text, true); }

    /// The text ends here: what was held back. Valid until the next call.
    std::string_view flush() {
        released_.clear();
        return release(held_.size());
    }

    [[nodiscard]] bool matched() const { return matched_; }

private:
    std::string_view push(std::string_view text, bool hidden) {
        released_.clear();
        if (matched_ || (hidden && strings_.empty())) return released_;
        held_.append(text);
        hidden_.resize(held_.size(), hidden);
        std::size_t match = std::string::npos;
        for (const std::string& s : strings_) match = (std::min)(match, held_.find(s));
        if (match == std::string::npos) return release(held_.size() - longest_open_prefix());
        matched_ = true;
        release(match);
        held_.clear();
        hidden_.clear();
        return released_;
    }

    /// Moves the first n bytes that are held to the released ones, the hidden ones to nowhere.
    std::string_view release(std::size_t n) {
        for (std::size_t i = 0; i < n; ++i)
            if (!hidden_[i]) released_.push_back(held_[i]);
        held_.erase(0, n);
        hidden_.erase(hidden_.begin(), hidden_.begin() + static_cast<std::ptrdiff_t>(n));
        return released_;
    }

    /// How many bytes at the end may still become a stop string.
    [[nodiscard]] std::size_t longest_open_prefix() const {
        std::size_t longest = 0;
        for (const std::string& s : strings_) {
            for (std::size_t n = (std::min)(s.size() - 1, held_.size()); n > longest; --n) {
                if (std::string_view(held_).substr(held_.size() - n) == std::string_view(s).substr(0, n)) longest = n;
            }
        }
        return longest;
    }

    std::vector<std::string> strings_;
    std::string held_;
    std::vector<bool> hidden_;  // of each byte that is held
    std::string released_;
    bool matched_ = false;
};

PHI4FLASH_END
