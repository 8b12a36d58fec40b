// The integer part of the vocabulary: products of weight codes with 8-bit activations, for the packed formats (core/packed.hpp).
//
//   rows_lanes()                    rows a vector: 8 or 4 of the 8 rows of a block
//   rows_i32 rows_f32               a number for each of these rows
//   code_vector signed_code_vector  four bytes for each of these rows, lying together
//   load_codes(p) load_levels(p)    4 * rows_lanes() bytes; 16 bytes repeated
//   low_codes high_codes            the nibbles of each byte
//   levels_of(levels, codes)        levels[code] for each byte
//   broadcast_four(p)               four activations, repeated for each row
//   dot_first(w, x)                 sums of products, in whatever width the target has; w below 64
//   dot_second(sums, w, x)          the same added; at most one such before a fold
//   dot_fold(total, sums)           total + the four products of each row
//   dot_signed(total, w, x)         total + four products, w and x in [-127, 127]
//   add_rows(a, b)                 a + b
//   subtract_shifted<n>(total, x)   total - x * 2^n
//   set_rows zero_rows load_scales(f16*) scale_rows(v, x) store_rows(v, p)
//   add_scaled(sums, scales, total) total + sums * scales
#if PHI4FLASH_SIMD_HIGHWAY
#include <phi4flash/simd/integer_highway-inl.hpp>
#else
#include <phi4flash/simd/integer_plain-inl.hpp>
#endif
