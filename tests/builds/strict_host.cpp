// The library after the macros of hosts, after `using namespace std`, and with more warnings than most hosts ask for. What it stands on may
// not survive the macros, so that comes first: the standard library, the system's headers, the vector library, JSON.
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <bitset>
#include <cfloat>
#include <charconv>
#include <chrono>
#include <climits>
#include <cmath>
#include <concepts>
#include <condition_variable>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>
#if __has_include(<unistd.h>)
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif
#if defined(PHI4FLASH_SIMD_HIGHWAY) && PHI4FLASH_SIMD_HIGHWAY
#include <hwy/detect_targets.h>
#include <hwy/highway.h>
#endif
#if defined(PHI4FLASH_SIMD_XSIMD) && PHI4FLASH_SIMD_XSIMD
#include <xsimd/xsimd.hpp>
#endif
#if PHI4FLASH_HAS_JSON
#include <nlohmann/json.hpp>
#endif

using namespace std;

// An object-like macro of a host makes every use of its name an error here, a function-like one every use before a parenthesis.
#define HOST_OBJECT static_assert(false, "a name that is a macro of a host")
#define HOST_FUNCTION(...) static_assert(false, "a name that is a macro of a host")

// Qt
#define slots HOST_OBJECT
#define signals HOST_OBJECT
#define emit HOST_OBJECT
#define forever HOST_OBJECT
#define foreach HOST_FUNCTION
#define SIGNAL HOST_FUNCTION
#define SLOT HOST_FUNCTION
#define METHOD HOST_FUNCTION
// Unreal
#define PI HOST_OBJECT
#define INDEX_NONE HOST_OBJECT
#define TEXT(...) HOST_FUNCTION()
#define check(...) HOST_FUNCTION()
#define checkf(...) HOST_FUNCTION()
#define verify(...) HOST_FUNCTION()
#define verifyf(...) HOST_FUNCTION()
#define ensure(...) HOST_FUNCTION()
#define unimplemented(...) HOST_FUNCTION()
// Apple
#define require(...) HOST_FUNCTION()
#define nil HOST_OBJECT
#define Nil HOST_OBJECT
#define YES HOST_OBJECT
#define NO HOST_OBJECT
// Windows
#define min(...) HOST_FUNCTION()
#define max(...) HOST_FUNCTION()
#define small HOST_OBJECT
#define near HOST_OBJECT
#define far HOST_OBJECT
#define hyper HOST_OBJECT
#define IN HOST_OBJECT
#define OUT HOST_OBJECT
#define OPTIONAL HOST_OBJECT
#define ERROR HOST_OBJECT
#define NO_ERROR HOST_OBJECT
#define interface HOST_OBJECT
#define CALLBACK HOST_OBJECT
#define DELETE HOST_OBJECT
#define CONST HOST_OBJECT
#define VOID HOST_OBJECT
#define THIS HOST_OBJECT
#define STRICT HOST_OBJECT
#define IGNORE HOST_OBJECT
#define DIFFERENCE HOST_OBJECT
#define ABSOLUTE HOST_OBJECT
#define RELATIVE HOST_OBJECT
#define TRANSPARENT HOST_OBJECT
#define OPAQUE HOST_OBJECT
#define pascal HOST_OBJECT
#define cdecl HOST_OBJECT
#define GetMessage HOST_OBJECT
#define GetObject HOST_OBJECT
#define CreateFile HOST_OBJECT
#define Yield HOST_FUNCTION
// X11
#define None HOST_OBJECT
#define Bool HOST_OBJECT
#define Status HOST_OBJECT
#define Success HOST_OBJECT
#define Always HOST_OBJECT
#define Never HOST_OBJECT
#define True HOST_OBJECT
#define False HOST_OBJECT
#define Above HOST_OBJECT
#define Below HOST_OBJECT
#define Complex HOST_OBJECT
#define Unsorted HOST_OBJECT
// Arduino and avr-libc
#define F(...) HOST_FUNCTION()
#define bit(...) HOST_FUNCTION()
#define abs(...) HOST_FUNCTION()
#define round(...) HOST_FUNCTION()
#define sq(...) HOST_FUNCTION()
#define constrain(...) HOST_FUNCTION()
#define radians(...) HOST_FUNCTION()
#define degrees(...) HOST_FUNCTION()
#define word(...) HOST_FUNCTION()
#define _BV(...) HOST_FUNCTION()
#define HIGH HOST_OBJECT
#define LOW HOST_OBJECT
#define INPUT HOST_OBJECT
#define OUTPUT HOST_OBJECT
#define DEFAULT HOST_OBJECT
#define EXTERNAL HOST_OBJECT
#define CHANGE HOST_OBJECT
#define RISING HOST_OBJECT
#define FALLING HOST_OBJECT
#define B0 HOST_OBJECT
#define B1 HOST_OBJECT
#define B00 HOST_OBJECT
#define B01 HOST_OBJECT
// C libraries and C23
#define unreachable(...) HOST_FUNCTION()
#define likely(...) HOST_FUNCTION()
#define unlikely(...) HOST_FUNCTION()
#define major(...) HOST_FUNCTION()
#define minor(...) HOST_FUNCTION()
#define makedev(...) HOST_FUNCTION()
#define roundup(...) HOST_FUNCTION()
#define howmany(...) HOST_FUNCTION()
#undef unix
#define unix HOST_OBJECT
#undef linux
#define linux HOST_OBJECT
#undef I
#define I HOST_OBJECT
#define _B HOST_OBJECT
#define _C HOST_OBJECT
#define _L HOST_OBJECT
#define _N HOST_OBJECT
#define _P HOST_OBJECT
#define _S HOST_OBJECT
#define _T HOST_OBJECT
#define _U HOST_OBJECT
#define _X HOST_OBJECT
// Everybody
#define ASSERT(...) HOST_FUNCTION()
#define CHECK(...) HOST_FUNCTION()
#define LOG(...) HOST_FUNCTION()
#define MIN(...) HOST_FUNCTION()
#define MAX(...) HOST_FUNCTION()
#define ABS(...) HOST_FUNCTION()
#define CLAMP(...) HOST_FUNCTION()
#define TRUE HOST_OBJECT
#define FALSE HOST_OBJECT
#define DEBUG HOST_OBJECT
#define INFO HOST_OBJECT
#define FAIL HOST_OBJECT
#define OK HOST_OBJECT

#include <phi4flash/phi4flash.hpp>

static auto use(const phi4flash::packed_model& files) { return phi4flash::model<>::bind(files); }
int host(const phi4flash::packed_model& files);
int host(const phi4flash::packed_model& files) { return use(files) ? 0 : 1; }
