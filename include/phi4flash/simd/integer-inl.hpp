// The integer part of the vocabulary: products of weight codes with 8-bit activations, for the packed formats (core/packed.hpp).
//
//   rows_lanes()                    rows a vector: 8 or 4 of the 8 rows of a block
//   rows_i32 rows_f32               a number for each of these rows
//   code_vector signed_code_vector  four bytes for each of these rows, lying together
//   load_codes(p) load_levels(p)    4 * rows_lanes() bytes; 16 bytes repeated
//   low_codes high_codes            the nibbles of each byte
//   levels_of(levels, codes)        levels[code] for each byte
//   broadcast_four(p)               four activations, repeated for each row
//   dot_first(w, x)                 sums of products, in whatever width the target has
//   dot_next(sums, w, x)            the same added: at most three times for levels of q4_dense, where no eight |x| that share a sum
//                                   exceed dense_activation_sum (0: any will do); at most seven times for levels below 16
//   dot_fold(sums) dot_fold(t, s)   the products of each row, summed; and added to a total
//   dot_signed(total, w, x)         total + four products, w in [-128, 127] and x in [-127, 127]
//   set_rows zero_rows load_rows load_scales(f16*) store_rows(v, p)
//   scale_sums(sums, scale, offset) sums * scale + offset
//   mul_add_rows(a, b, c)           a * b + c
//   add_rows_f32(a, b)              a + b
//   repeat_rows(x)                  the float x for each row
//   bytes_of<i>(codes)              byte i of each row's four, as a float
#if PHI4FLASH_SIMD_HIGHWAY
#include <phi4flash/simd/integer_highway-inl.hpp>
#else
#include <phi4flash/simd/integer_plain-inl.hpp>
#endif
