// Vectors of 64 bytes, over simd/rounded_bytes-inl.hpp: the words of kernels/attention/bytes-inl.hpp,
// some of tiles_amx-inl.hpp. There where PHI4FLASH_BLOCKS_SIDE_BY_SIDE is.
//
//   load_bytes(p)                   64 of them
//   repeat_fours<I>(v)              the I-th four bytes of each quarter, in all of that quarter
//   store_integers(v, p) add_integers(a, b) sum_of_integers(v)
//   store_digits(a, b, c, d, p)     16 integral floats of four rows below 65,536 as two bytes without a sign: those of slots 4 * s to 4 * s + 3
//                                   of a row at p + 16 * s + high_digits_at(row), high digits and then low
//   fours_across(a, b, c, d)        within each quarter of four vectors, 32-bit numbers transposed
//   bytes_across<Upper>(a, b, c, d, first, second)   of each quarter, the bytes in the same place of four vectors together: those of the first
//                                   and second four, or (Upper) of the third and last
//   quarters_across(a, b, c, d)     the quarters of four vectors transposed

PHI4FLASH_TARGET_BEGIN

PHI4FLASH_VECTOR_INLINE void store_integers(tokens_i32 v, std::int32_t* p) { hn::StoreU(v, tokens_tag(), p); }
PHI4FLASH_VECTOR_INLINE tokens_i32 add_integers(tokens_i32 a, tokens_i32 b) { return hn::Add(a, b); }
PHI4FLASH_VECTOR_INLINE std::int32_t sum_of_integers(tokens_i32 v) { return hn::ReduceSum(tokens_tag(), v); }

PHI4FLASH_VECTOR_INLINE signed_bytes load_bytes(const std::int8_t* p) { return hn::LoadU(tokens_i8_tag(), p); }
PHI4FLASH_VECTOR_INLINE signed_bytes load_bytes(const kv_int8* p) { return load_bytes(&p->code); }
template <int Group>
PHI4FLASH_VECTOR_INLINE signed_bytes repeat_fours(signed_bytes v) {
    return hn::BitCast(tokens_i8_tag(), hn::Broadcast<Group>(hn::BitCast(tokens_tag(), v)));
}

constexpr std::size_t high_digits_at(std::size_t row) { return row / 2 * 64 + row % 2 * 8; }
PHI4FLASH_VECTOR_INLINE void store_two_digits(tokens_f32 x, tokens_f32 y, std::uint8_t* to) {
    const tokens_u8_tag d8;
    const auto pattern = hn::Dup128VecFromValues(d8, 1, 5, 9, 13, 0, 4, 8, 12, 3, 7, 11, 15, 2, 6, 10, 14);
    const auto both = hn::Or(hn::NearestInt(x), hn::ShiftLeft<16>(hn::NearestInt(y)));
    hn::StoreU(hn::TableLookupBytes(hn::BitCast(d8, both), pattern), d8, to);
}
PHI4FLASH_VECTOR_INLINE void store_digits(tokens_f32 a, tokens_f32 b, tokens_f32 c, tokens_f32 d, std::uint8_t* p) {
    store_two_digits(a, b, p);
    store_two_digits(c, d, p + 64);
}

template <class Vector>
PHI4FLASH_VECTOR_INLINE void fours_across(Vector& a, Vector& b, Vector& c, Vector& d) {
    const tokens_tag d32;
    const hn::Repartition<std::int64_t, tokens_tag> d64;
    const auto low_ab = hn::BitCast(d64, hn::InterleaveLower(d32, hn::BitCast(d32, a), hn::BitCast(d32, b)));
    const auto high_ab = hn::BitCast(d64, hn::InterleaveUpper(d32, hn::BitCast(d32, a), hn::BitCast(d32, b)));
    const auto low_cd = hn::BitCast(d64, hn::InterleaveLower(d32, hn::BitCast(d32, c), hn::BitCast(d32, d)));
    const auto high_cd = hn::BitCast(d64, hn::InterleaveUpper(d32, hn::BitCast(d32, c), hn::BitCast(d32, d)));
    const hn::DFromV<Vector> out;
    a = hn::BitCast(out, hn::InterleaveLower(d64, low_ab, low_cd));
    b = hn::BitCast(out, hn::InterleaveUpper(d64, low_ab, low_cd));
    c = hn::BitCast(out, hn::InterleaveLower(d64, high_ab, high_cd));
    d = hn::BitCast(out, hn::InterleaveUpper(d64, high_ab, high_cd));
}
template <bool Upper>
PHI4FLASH_VECTOR_INLINE void bytes_across(signed_bytes a, signed_bytes b, signed_bytes c, signed_bytes d, signed_bytes& first, signed_bytes& second) {
    const tokens_i8_tag d8;
    const hn::Repartition<std::int16_t, tokens_tag> d16;
    const auto ab = hn::BitCast(d16, Upper ? hn::InterleaveUpper(d8, a, b) : hn::InterleaveLower(d8, a, b));
    const auto cd = hn::BitCast(d16, Upper ? hn::InterleaveUpper(d8, c, d) : hn::InterleaveLower(d8, c, d));
    first = hn::BitCast(d8, hn::InterleaveLower(d16, ab, cd));
    second = hn::BitCast(d8, hn::InterleaveUpper(d16, ab, cd));
}
/// Quarters 0 and 2 of x and then of y, or (Odd) 1 and 3.
template <bool Odd, class Vector>
PHI4FLASH_VECTOR_INLINE Vector every_other_quarter(Vector x, Vector y) {
    return hn::BitCast(hn::DFromV<Vector>(),
                       tokens_i32{_mm512_shuffle_i32x4(hn::BitCast(tokens_tag(), x).raw, hn::BitCast(tokens_tag(), y).raw, Odd ? 0xdd : 0x88)});
}
template <class Vector>
PHI4FLASH_VECTOR_INLINE void quarters_across(Vector& a, Vector& b, Vector& c, Vector& d) {
    const hn::DFromV<Vector> tag;
    const Vector ab = hn::ConcatLowerLower(tag, b, a), cd = hn::ConcatLowerLower(tag, d, c);
    const Vector more_ab = hn::ConcatUpperUpper(tag, b, a), more_cd = hn::ConcatUpperUpper(tag, d, c);
    a = every_other_quarter<false>(ab, cd), b = every_other_quarter<true>(ab, cd);
    c = every_other_quarter<false>(more_ab, more_cd), d = every_other_quarter<true>(more_ab, more_cd);
}

PHI4FLASH_TARGET_END
