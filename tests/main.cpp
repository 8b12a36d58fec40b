// The one main function of all test programs.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#if defined(__wasi__)  // its library declares file streams and has none; doctest wants one for its option --out
#include <sstream>
template <>
class std::basic_fstream<char> : public std::stringstream {
public:
    void open(const char*, openmode) { setstate(failbit); }
    bool is_open() const { return false; }
    void close() {}
};
#endif
#include <doctest/doctest.h>
