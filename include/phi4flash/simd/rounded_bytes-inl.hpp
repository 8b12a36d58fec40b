// Weights and activations as bytes, in vectors of 32 or 64 of them (x86): the words of kernels/packed/rounded-inl.hpp and
// kernels/packed/vectors-inl.hpp. There where PHI4FLASH_ROUNDED_BYTES is.
//
//   signed_bytes store_bytes(v, p)  four bytes for each token or row of a vector
//   lifted(v)                       each + lifted_by, without a sign; load_lifted(p): such bytes
//   tokens_i32 repeat_integer(x) to_floats(v)   a 32-bit integer for each
//   dot_bytes(sums, w, x)           sums + four products each, w lifted
//   store_as_bytes(v, p)            integral floats within [-128, 127], one after the other
//   store_signed_digits(v, high, low)   integral floats up to 127 * 256 as two signed bytes each, which join_digits(high, low) puts together
//                                   again: 256 * high + low. Returns them as integers. load_integers(p)
//   stream(v, p)                    floats to memory, past the caches; streamed(): before another thread is told of them
//   multipliers(m, first, second)   of a vector's rows: integral floats, magnitudes below 2^15
//   multiplied(codes, first, second)   round(code * multiplier / 128) as signed bytes, for signed codes, four for each row;
//   store_multiplied_digits(codes, first, second, upper, lower)   the same as two signed bytes each, 256 * upper + lower, up to 127 * 256

PHI4FLASH_TARGET_BEGIN

/// 16 rows of 64 bytes: weights or activations that are multiplied together.
inline constexpr std::size_t tile_rows = 16;
inline constexpr std::size_t tile_cols = 64;
inline constexpr std::size_t tile_bytes = tile_rows * tile_cols;

/// Rows of a vector that has four bytes of each.
inline constexpr std::size_t vector_rows = hn::MaxLanes(tokens_tag());

using tokens_i32 = hn::Vec<tokens_tag>;
template <std::size_t>
using i32_of = tokens_i32;
template <std::size_t>
using i32_in = tokens_i32&;
PHI4FLASH_VECTOR_INLINE tokens_i32 repeat_integer(std::int32_t x) { return hn::Set(tokens_tag(), x); }
PHI4FLASH_VECTOR_INLINE tokens_f32 to_floats(tokens_i32 v) { return hn::ConvertTo(tokens_f32_tag(), v); }

using signed_bytes = hn::Vec<tokens_i8_tag>;
PHI4FLASH_VECTOR_INLINE void store_bytes(signed_bytes v, std::int8_t* p) { hn::StoreU(v, tokens_i8_tag(), p); }
PHI4FLASH_VECTOR_INLINE void store_bytes(token_codes v, std::int8_t* p) { store_bytes(hn::BitCast(tokens_i8_tag(), v), p); }
inline constexpr std::int32_t lifted_by = 128;
PHI4FLASH_VECTOR_INLINE token_codes lifted(signed_bytes v) {
    return hn::BitCast(tokens_u8_tag(), hn::Xor(v, hn::Set(tokens_i8_tag(), std::int8_t{-128})));
}
PHI4FLASH_VECTOR_INLINE token_codes load_lifted(const std::int8_t* p) { return hn::BitCast(tokens_u8_tag(), hn::LoadU(tokens_i8_tag(), p)); }

PHI4FLASH_VECTOR_INLINE tokens_i32 dot_bytes(tokens_i32 sums, token_codes w, signed_bytes x) {
#if PHI4FLASH_BLOCKS_SIDE_BY_SIDE
    return in_this_order(dot_next(sums, w, x));
#else
    return vnni_dot(sums, w, x);
#endif
}

PHI4FLASH_VECTOR_INLINE void store_as_bytes(tokens_f32 v, std::int8_t* p) {
    const hn::Rebind<std::int8_t, tokens_tag> bytes;
    hn::StoreU(hn::DemoteTo(bytes, hn::NearestInt(v)), bytes, p);
}
PHI4FLASH_VECTOR_INLINE tokens_i32 join_digits(tokens_i32 high, tokens_i32 low) { return hn::Add(hn::ShiftLeft<8>(high), low); }
PHI4FLASH_VECTOR_INLINE tokens_i32 store_signed_digits(tokens_f32 v, std::int8_t* high, std::int8_t* low) {
    const tokens_tag d;
    const hn::Rebind<std::int8_t, tokens_tag> bytes;
    const tokens_i32 x = hn::NearestInt(v);
    const tokens_i32 h = hn::ShiftRight<8>(hn::Add(x, hn::Set(d, 128)));
    hn::StoreU(hn::DemoteTo(bytes, h), bytes, high);
    hn::StoreU(hn::DemoteTo(bytes, hn::Sub(x, hn::ShiftLeft<8>(h))), bytes, low);
    return x;
}
PHI4FLASH_VECTOR_INLINE tokens_i32 load_integers(const std::int32_t* p) { return hn::LoadU(tokens_tag(), p); }
PHI4FLASH_VECTOR_INLINE void stream(tokens_f32 v, float* p) { hn::Stream(v, tokens_f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE void streamed() { _mm_sfence(); }

using word_vector = hn::Vec<hn::Repartition<std::int16_t, tokens_tag>>;
PHI4FLASH_VECTOR_INLINE void multipliers(tokens_f32 m, word_vector& first, word_vector& second) {
    const tokens_u8_tag d8;
    const auto bytes = hn::BitCast(d8, hn::NearestInt(m));
    // Within every 16 bytes: rows 0 and 1, then rows 2 and 3, each four times, as the bytes lie once they are widened.
    const auto low = hn::Dup128VecFromValues(d8, 0, 1, 0, 1, 0, 1, 0, 1, 4, 5, 4, 5, 4, 5, 4, 5);
    const auto high = hn::Dup128VecFromValues(d8, 8, 9, 8, 9, 8, 9, 8, 9, 12, 13, 12, 13, 12, 13, 12, 13);
    const hn::DFromV<word_vector> d16;
    first = hn::BitCast(d16, hn::TableLookupBytes(bytes, low));
    second = hn::BitCast(d16, hn::TableLookupBytes(bytes, high));
}
/// round(code * multiplier / 128) for the bytes of a vector, as they lie in its halves once they are widened.
PHI4FLASH_VECTOR_INLINE void multiply_codes(token_codes codes, word_vector first, word_vector second, word_vector& low, word_vector& high) {
    const tokens_u8_tag d8;
    const hn::DFromV<word_vector> d16;
    const auto none = hn::Zero(d8);
    // code * 256 * multiplier / 2^15, rounded
    low = hn::MulFixedPoint15(hn::BitCast(d16, hn::InterleaveLower(d8, none, codes)), first);
    high = hn::MulFixedPoint15(hn::BitCast(d16, hn::InterleaveUpper(d8, none, codes)), second);
}
PHI4FLASH_VECTOR_INLINE signed_bytes multiplied(token_codes codes, word_vector first, word_vector second) {
    word_vector low;
    word_vector high;
    multiply_codes(codes, first, second, low, high);
    return hn::ReorderDemote2To(tokens_i8_tag(), low, high);  // into the order the bytes had: every 16 by themselves
}
PHI4FLASH_VECTOR_INLINE void store_multiplied_digits(token_codes codes, word_vector first, word_vector second, std::int8_t* upper,
                                                     std::int8_t* lower) {
    const hn::DFromV<word_vector> d16;
    word_vector low;
    word_vector high;
    multiply_codes(codes, first, second, low, high);
    const word_vector upper_low = hn::ShiftRight<8>(hn::Add(low, hn::Set(d16, std::int16_t{128})));
    const word_vector upper_high = hn::ShiftRight<8>(hn::Add(high, hn::Set(d16, std::int16_t{128})));
    store_bytes(hn::ReorderDemote2To(tokens_i8_tag(), upper_low, upper_high), upper);
    store_bytes(hn::ReorderDemote2To(tokens_i8_tag(), hn::Sub(low, hn::ShiftLeft<8>(upper_low)), hn::Sub(high, hn::ShiftLeft<8>(upper_high))), lower);
}

PHI4FLASH_TARGET_END
