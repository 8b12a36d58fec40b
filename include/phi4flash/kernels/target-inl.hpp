// Everything that is compiled once per target, in order. Included by kernels/dispatch.hpp only.
#include <phi4flash/simd/vocabulary-inl.hpp>
#include <phi4flash/simd/lane_integers-inl.hpp>
#include <phi4flash/simd/integer-inl.hpp>
#if PHI4FLASH_DOT_TARGET(HWY_TARGET) || PHI4FLASH_DOT_IS_OWN(HWY_TARGET)
#include <phi4flash/simd/dot_arm-inl.hpp>
#endif
#if PHI4FLASH_ROUNDED_BYTES
#include <phi4flash/simd/rounded_bytes-inl.hpp>
#endif
#include <phi4flash/kernels/math-inl.hpp>
#include <phi4flash/kernels/dense/outer_product-inl.hpp>
#include <phi4flash/kernels/dense/linear-inl.hpp>
#include <phi4flash/kernels/dense/matmul_few-inl.hpp>
#include <phi4flash/kernels/dense/matmul-inl.hpp>
#include <phi4flash/kernels/elementwise-inl.hpp>
#include <phi4flash/kernels/choosing-inl.hpp>
#include <phi4flash/kernels/mamba-inl.hpp>
#include <phi4flash/kernels/attention/tile-inl.hpp>
#include <phi4flash/kernels/attention/vectors-inl.hpp>
#include <phi4flash/kernels/attention/prompt-inl.hpp>
#include <phi4flash/kernels/attention/attention-inl.hpp>
#if PHI4FLASH_BLOCKS_SIDE_BY_SIDE
#include <phi4flash/simd/wide_bytes-inl.hpp>
#include <phi4flash/kernels/attention/bytes-inl.hpp>
#endif
#include <phi4flash/kernels/packed/arrange-inl.hpp>
#include <phi4flash/kernels/packed/meet-inl.hpp>
#include <phi4flash/kernels/packed/few-inl.hpp>
#include <phi4flash/kernels/packed/quantize-inl.hpp>
#include <phi4flash/kernels/packed/strip-inl.hpp>
#include <phi4flash/kernels/packed/bundles-inl.hpp>
#include <phi4flash/kernels/packed/exact-inl.hpp>
#if PHI4FLASH_ROUNDED_BYTES
#include <phi4flash/kernels/packed/rounded-inl.hpp>
#include <phi4flash/kernels/packed/vectors-inl.hpp>
#endif
#if PHI4FLASH_AMX_TARGET(HWY_TARGET)
#include <phi4flash/simd/tiles_amx-inl.hpp>
#include <phi4flash/kernels/packed/tiles-inl.hpp>
#include <phi4flash/kernels/dense/matmul_tiles-inl.hpp>
#include <phi4flash/kernels/attention/matrix-inl.hpp>
#endif
#include <phi4flash/kernels/packed/ways-inl.hpp>
#include <phi4flash/kernels/table-inl.hpp>
