/// Flags that allow AVX2 but not AES, as -march=x86-64-v3 does, have kernels for AVX2 (and with AVX-512, for that); and the host's own Highway is
/// what it is without us.
#include <hwy/detect_targets.h>
constexpr auto static_before = HWY_STATIC_TARGET;
#if HIGHWAY_FIRST
#include <hwy/highway.h>
#endif
#include <phi4flash/kernels/dispatch.hpp>

#include <string_view>

#if defined(__AES__) || !defined(__AVX2__)
#error "this test wants flags for AVX2 without AES"
#endif
#if defined(__AVX512VL__)
static_assert(std::string_view(phi4flash::N_AVX3::table.name) == "avx3");
#else
static_assert(std::string_view(phi4flash::N_AVX2::table.name) == "avx2");
#endif
static_assert(HWY_STATIC_TARGET == static_before && HWY_TARGET == HWY_STATIC_TARGET);
#if defined(HWY_DISABLE_PCLMUL_AES)
#error "a switch of the host's was set"
#endif
#define NAME_OF_(x) #x
#define NAME_OF(x) NAME_OF_(x)
static_assert(std::string_view(NAME_OF(HWY_NAMESPACE)) == "N_SSSE3");  // with or without Highway's operations
#if !HIGHWAY_FIRST
#include <hwy/highway.h>
#endif
static_assert(std::string_view(NAME_OF(HWY_NAMESPACE)) == "N_SSSE3");
HWY_BEFORE_NAMESPACE();
namespace host::HWY_NAMESPACE {
inline float first(const float* p) { return hwy::HWY_NAMESPACE::GetLane(hwy::HWY_NAMESPACE::LoadU(hwy::HWY_NAMESPACE::ScalableTag<float>(), p)); }
}  // namespace host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
