#pragma once
/// Names of tensors in sentences, where they may be anybody's: ASCII, and short. (Names of files are io/file/printable.hpp's.)
#include <phi4flash/config/abi.hpp>

#include <algorithm>
#include <cstddef>
#include <string_view>

PHI4FLASH_BEGIN

namespace detail {

/// A copy for "%s", in which every byte that a terminal need not print is '?'.
class plain_name {
public:
    static constexpr std::size_t max_bytes = 120;

    explicit plain_name(std::string_view name) {
        constexpr std::string_view dots = "...";
        const bool cut = name.size() > max_bytes;
        char* out = std::transform(name.begin(), name.begin() + static_cast<std::ptrdiff_t>(cut ? max_bytes - dots.size() : name.size()), text_,
                                   [](char c) { return c >= ' ' && c <= '~' ? c : '?'; });
        if (cut) std::copy(dots.begin(), dots.end(), out);
    }
    [[nodiscard]] const char* c_str() const { return text_; }

private:
    char text_[max_bytes + 1] = {};
};

}  // namespace detail

PHI4FLASH_END
