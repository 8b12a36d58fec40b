// Everything that is compiled once per target, in order. Included by kernels/dispatch.hpp only.
#include <phi4flash/simd/vocabulary-inl.hpp>
#include <phi4flash/simd/lane_integers-inl.hpp>
#include <phi4flash/simd/integer-inl.hpp>
#if PHI4FLASH_ROUNDED_BYTES
#include <phi4flash/simd/rounded_bytes-inl.hpp>
#endif
#include <phi4flash/kernels/math-inl.hpp>
#include <phi4flash/kernels/outer_product-inl.hpp>
#include <phi4flash/kernels/linear-inl.hpp>
#include <phi4flash/kernels/matmul_few-inl.hpp>
#include <phi4flash/kernels/matmul-inl.hpp>
#include <phi4flash/kernels/elementwise-inl.hpp>
#include <phi4flash/kernels/choosing-inl.hpp>
#include <phi4flash/kernels/mamba-inl.hpp>
#include <phi4flash/kernels/attention_tile-inl.hpp>
#include <phi4flash/kernels/attention_vectors-inl.hpp>
#include <phi4flash/kernels/attention_prompt-inl.hpp>
#include <phi4flash/kernels/attention-inl.hpp>
#if PHI4FLASH_BLOCKS_SIDE_BY_SIDE
#include <phi4flash/simd/wide_bytes-inl.hpp>
#include <phi4flash/kernels/attention_bytes-inl.hpp>
#endif
#include <phi4flash/kernels/packed_arrange-inl.hpp>
#include <phi4flash/kernels/packed_few-inl.hpp>
#include <phi4flash/kernels/pack-inl.hpp>
#include <phi4flash/kernels/packed_strip-inl.hpp>
#include <phi4flash/kernels/packed_bundles-inl.hpp>
#include <phi4flash/kernels/packed_exact-inl.hpp>
#if PHI4FLASH_ROUNDED_BYTES
#include <phi4flash/kernels/packed_rounded-inl.hpp>
#include <phi4flash/kernels/packed_vectors-inl.hpp>
#endif
#if PHI4FLASH_AMX_TARGET(HWY_TARGET)
#include <phi4flash/simd/tiles_amx-inl.hpp>
#include <phi4flash/kernels/packed_tiles-inl.hpp>
#include <phi4flash/kernels/matmul_tiles-inl.hpp>
#include <phi4flash/kernels/attention_matrix-inl.hpp>
#endif
#include <phi4flash/kernels/packed_ways-inl.hpp>
#include <phi4flash/kernels/table-inl.hpp>
