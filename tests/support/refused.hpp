#pragma once
/// A call that is refused: by which code, and with which words in its sentence.
#include <phi4flash/core/error.hpp>

#include <doctest/doctest.h>

#include <string>

namespace phi4flash_test {

template <class Result>
void check_refused(const Result& r, phi4flash::errc code, const char* words) {
    REQUIRE_FALSE(r);
    const std::string sentence = r.error().message();
    CAPTURE(sentence);
    CHECK(static_cast<int>(r.error().code()) == static_cast<int>(code));
    CHECK(sentence.find(words) != std::string::npos);
}

}  // namespace phi4flash_test
