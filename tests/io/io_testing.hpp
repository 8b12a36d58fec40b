#pragma once
/// Helpers of the io tests: safetensors files from a header text, a folder that vanishes, and a check of an error.
#include <doctest/doctest.h>

#include <phi4flash/core/result.hpp>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace io_testing {

using bytes = std::vector<std::byte>;

/// Length, header as it is, and `data_bytes` bytes 0, 1, 2, ... in a heap block of exactly that size.
inline bytes safetensors_file(std::string_view header, std::size_t data_bytes) {
    bytes file(8 + header.size() + data_bytes);
    const std::uint64_t length = header.size();
    std::memcpy(file.data(), &length, 8);
    std::size_t at = 8;
    for (const char c : header) file[at++] = static_cast<std::byte>(c);
    for (std::size_t i = 0; i < data_bytes; ++i) file[at++] = static_cast<std::byte>(i);
    return file;
}

/// Pads to a multiple of 8, so that the data is aligned.
inline std::string padded(std::string header) {
    while (header.size() % 8 != 0) header += ' ';
    return header;
}

inline bytes bytes_of(std::string_view text) {
    const auto* const begin = reinterpret_cast<const std::byte*>(text.data());
    return {begin, begin + text.size()};
}
inline std::string_view text_of(const bytes& file) { return {reinterpret_cast<const char*>(file.data()), file.size()}; }

/// The error has this code, and its sentence every one of `words`.
template <class Result>
void check_error(const Result& have, phi4flash::errc code, std::initializer_list<const char*> words = {}) {
    REQUIRE_FALSE(have.has_value());
    const std::string message = have.error().message();
    CAPTURE(message);
    CHECK(static_cast<int>(have.error().code()) == static_cast<int>(code));
    for (const char* word : words) {
        CAPTURE(word);
        CHECK(message.find(word) != std::string::npos);
    }
}

/// A value, or the error's sentence in the report.
template <class Result>
void require_value(const Result& have) {
    if (!have) FAIL_CHECK(have.error().message());
    REQUIRE(have.has_value());
}

/// A fresh folder, removed at the end.
class temporary_folder {
public:
    temporary_folder() {
        std::random_device seed;
        do {
            path_ = std::filesystem::temp_directory_path() / ("phi4flash-test-" + std::to_string(seed()));
        } while (!std::filesystem::create_directory(path_));
    }
    temporary_folder(const temporary_folder&) = delete;
    temporary_folder& operator=(const temporary_folder&) = delete;
    ~temporary_folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    const std::filesystem::path& path() const { return path_; }
    std::filesystem::path write(const std::string& name, std::string_view text) const {
        std::ofstream(path_ / name, std::ios::binary).write(text.data(), static_cast<std::streamsize>(text.size()));
        return path_ / name;
    }

private:
    std::filesystem::path path_;
};

/// The shared folder with golden data, or empty.
inline std::filesystem::path shared_folder() {
    const char* const path = std::getenv("PHI4FLASH_SHARED");
    if (path == nullptr) MESSAGE("skipped: PHI4FLASH_SHARED is not set");
    return path == nullptr ? "" : path;
}

}  // namespace io_testing
