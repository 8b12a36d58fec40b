/// A host's file that dispatches at run time with Highway's foreach_target.h, and uses a model: our kernels are compiled in another file. The library
/// comes first (LIBRARY_FIRST=1) or last.
#include <cstddef>
#if LIBRARY_FIRST
#include <phi4flash/phi4flash.hpp>
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "own_dispatch.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace host::HWY_NAMESPACE {
float first(const float* p) { return hwy::HWY_NAMESPACE::GetLane(hwy::HWY_NAMESPACE::LoadU(hwy::HWY_NAMESPACE::ScalableTag<float>(), p)); }
}  // namespace host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#if !LIBRARY_FIRST
#include <phi4flash/phi4flash.hpp>
#endif
namespace host {
HWY_EXPORT(first);
float call(const float* p) { return HWY_DYNAMIC_DISPATCH(first)(p); }
phi4flash::result<phi4flash::model<>> bind(const phi4flash::packed_model& from) { return phi4flash::model<>::bind(from); }
}  // namespace host
#endif
