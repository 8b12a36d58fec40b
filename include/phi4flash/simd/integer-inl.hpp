// The integer part of the vocabulary: products of weight codes with 8-bit activations, for the packed formats (core/packed.hpp).
//
//   rows_lanes()                    rows a vector: 8 or 4 of the 8 rows of a block
//   rows_i32 rows_f32               a number for each of these rows
//   code_vector signed_code_vector  four bytes for each of these rows, lying together
//   load_codes(p) load_levels(p)    4 * rows_lanes() bytes; 16 bytes repeated
//   low_codes high_codes            the nibbles of each byte
//   levels_of(levels, codes)        levels[code] for each byte
//   store_codes(v, p)
//   dot_start(first, second)        what the sums of a row or token begin with: -zero times the sum of the activations, the first two and the
//                                   last two of every four counted apart. One 32-bit number, in whatever form the target has
//   load_starts(p)                  one for each token
//   dot_next(sums, w, x)            products added: eight times at most, for levels at most q4_dense.zero from the zero in dot_start, and
//                                   where no sixteen |x| that share a sum exceed dense_activation_sum (0: any will do)
//   dot_fold(sums)                  a 32-bit integer for each row or token
//   dot_signed(total, w, x)         total + four products, w in [-128, 127] and x in [-127, 127], where total began at
//                                   -signed_offset times the sum of the activations (a constant: what the target has to add to w)
//   in_this_order(sums)             sums, which the compiler may neither reorder nor copy before (Highway)
//   zero_rows load_rows load_scales(f16*) store_rows(v, p)
//   scaled(integers, scale)         integers * scale
//   multiply_add(a, b, c)           a * b + c
//   add_rows_f32(a, b)              a + b
//   repeat_rows(x)                  the float x for each row
//   bytes_of<i>(codes)              byte i of each row's four, as a float
//
//   tokens_lanes()                  tokens a vector: at most 16
//   tokens_f32 token_codes          a number, or four codes, for each of these tokens
//   load_tokens(p)                  four activations or one float for each token
//   store_tokens(v, p) repeat_tokens(x) add_tokens(a, b) repeat_codes(p)
//   store_across(a, b, c, d, p, stride)   token t's four numbers to p + t * stride
//   block_zero()                    sums over the groups of columns whose activations share a scale
//   repeat_scale(p)                 a row's scale, repeated: where integer_scales, twice an integer of 16 bits below 2^12; else a float
//   block_add(block, sums, scale)   block + scale * sums
//   block_floats(block, unit)       as floats, times the unit of the scales where integer_scales
//
//   wide_rows() wide_blocks         rows a vector, as many as it has, and the blocks that they are of: 16 rows of 2, 8 or 4 rows of 1
//   wide_f32 wide_i32 wide_codes wide_bytes   a number, or four bytes, for each of these rows
//   codes_of_rows(p, q)             the codes of a vector's rows: of a block at p, and of one at q where there are two; scales_of_rows(p, q)
//   with_sign(codes)                the same bytes
//   repeat_activations(p)           four activations, repeated for each row
//   repeat_levels(p)                16 levels, so that low_levels(levels, codes) and high_levels can find those of the nibbles
//   load_wide store_wide repeat_wide add_wide wide_floats(integers)
//   own_products                    how the target multiplies: begin(start) next(sums, w, x) fold(sums) as dot_start, dot_next and dot_fold;
//                                   begin_bytes(start) next_bytes(sums, w, x) as dot_signed; its activation_sum and byte_offset are
//                                   dense_activation_sum and signed_offset. With picks_columns: next<i>(sums, w, x) of codes or bytes, which meet
//                                   columns 4 i to 4 i + 3 of x = sixteen(p), 16 activations
//   vnni_products                   the same where PHI4FLASH_VNNI_TARGET: with an instruction that the target's name does not promise
//   dot_products                    the same on aarch64 where PHI4FLASH_DOT_TARGET or PHI4FLASH_DOT_IS_OWN (simd/dot_arm-inl.hpp)
/// Vectors of 64 bytes, any byte of which one instruction finds.
#define PHI4FLASH_BLOCKS_SIDE_BY_SIDE (PHI4FLASH_SIMD_HIGHWAY && HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_DL)
/// Whether 4-bit weights can become bytes for many tokens (kernels/packed/rounded-inl.hpp): the words for it are in simd/rounded_bytes-inl.hpp.
#define PHI4FLASH_ROUNDED_BYTES (PHI4FLASH_BLOCKS_SIDE_BY_SIDE || PHI4FLASH_VNNI_TARGET(HWY_TARGET))
#if PHI4FLASH_SIMD_HIGHWAY
#include <phi4flash/simd/integer_highway-inl.hpp>
#else
#include <phi4flash/simd/integer_plain-inl.hpp>
#endif
