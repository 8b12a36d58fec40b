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
/// what comes from the match on is never released.
class stop_matcher {
public:
    explicit stop_matcher(std::vector<std::string> strings = {}) : strings_(std::move(strings)) {
        std::erase_if(strings_, [](const std::string& s) { return s.empty(); });
    }

    /// Takes more text and returns what is certain. Valid until the next call.
    std::string_view push(std::string_view text) {
        released_.clear();
        if (matched_) return released_;
        held_.append(text);
        std::size_t match = std::string::npos;
        for (const std::string& s : strings_) match = std::min(match, held_.find(s));
        if (match != std::string::npos) {
            matched_ = true;
            released_.assign(held_, 0, match);
            held_.clear();
            return released_;
        }
        const std::size_t keep = longest_open_prefix();
        released_.assign(held_, 0, held_.size() - keep);
        held_.erase(0, held_.size() - keep);
        return released_;
    }

    /// The text ends here: what was held back.
    std::string_view flush() {
        released_ = held_;
        held_.clear();
        return released_;
    }

    [[nodiscard]] bool matched() const { return matched_; }

private:
    /// How many bytes at the end may still become a stop string.
    [[nodiscard]] std::size_t longest_open_prefix() const {
        std::size_t longest = 0;
        for (const std::string& s : strings_) {
            for (std::size_t n = std::min(s.size() - 1, held_.size()); n > longest; --n) {
                if (std::string_view(held_).substr(held_.size() - n) == std::string_view(s).substr(0, n)) longest = n;
            }
        }
        return longest;
    }

    std::vector<std::string> strings_;
    std::string held_;
    std::string released_;
    bool matched_ = false;
};

PHI4FLASH_END
