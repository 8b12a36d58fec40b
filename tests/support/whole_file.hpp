#pragma once
/// A file as a string, by the C library alone: what WebAssembly has in node, where neither the library nor the standard library has files.
#include <cstdio>
#include <string>

namespace phi4flash_test {

/// Empty where there is no such file, or where it is empty.
inline std::string whole_file(const std::string& path) {
    std::string bytes;
    std::FILE* const file = std::fopen(path.c_str(), "rb");
    if (file == nullptr) return bytes;
    char piece[4096];
    while (const std::size_t n = std::fread(piece, 1, sizeof piece, file)) bytes.append(piece, n);
    std::fclose(file);
    return bytes;
}

}  // namespace phi4flash_test
