// Integers of 32 bits, as many as there are floats in a vector: results that are the same in every order.
//
//   i32_vector                      lanes() of them
//   load_i32(p) store_i32(v, p) set_i32(x)
//   bits_of(f) float_of_bits(v)     the same 32 bits
//   truncated(f)                    towards 0, |f| < 2^31
//   add_i32 sub_i32 mul_i32         lane by lane; the products must fit
//   and_i32 max_i32                 lane by lane
//   sign_applied(v, s)              v where s >= 0, -v elsewhere
//   where_greater(a, b, x, y)       x where a > b, else y
//   shift_left<n>(v) shift_right<n>(v) shift_right_by(v, n)   by 0 to 31; the last two of numbers that are not negative
//   reduce_max_i32 reduce_sum_i32   over the lanes
#if PHI4FLASH_SIMD_HIGHWAY

PHI4FLASH_TARGET_BEGIN

using i32_vector = hn::Vec<i32_tag>;
PHI4FLASH_VECTOR_INLINE i32_vector load_i32(const std::int32_t* p) { return hn::LoadU(i32_tag(), p); }
PHI4FLASH_VECTOR_INLINE void store_i32(i32_vector v, std::int32_t* p) { hn::StoreU(v, i32_tag(), p); }
PHI4FLASH_VECTOR_INLINE i32_vector set_i32(std::int32_t x) { return hn::Set(i32_tag(), x); }
PHI4FLASH_VECTOR_INLINE i32_vector bits_of(f32_vector f) { return hn::BitCast(i32_tag(), f); }
PHI4FLASH_VECTOR_INLINE f32_vector float_of_bits(i32_vector v) { return hn::BitCast(f32_tag(), v); }
PHI4FLASH_VECTOR_INLINE i32_vector truncated(f32_vector f) { return hn::ConvertTo(i32_tag(), f); }
PHI4FLASH_VECTOR_INLINE i32_vector add_i32(i32_vector a, i32_vector b) { return hn::Add(a, b); }
PHI4FLASH_VECTOR_INLINE i32_vector sub_i32(i32_vector a, i32_vector b) { return hn::Sub(a, b); }
PHI4FLASH_VECTOR_INLINE i32_vector mul_i32(i32_vector a, i32_vector b) { return hn::Mul(a, b); }
PHI4FLASH_VECTOR_INLINE i32_vector and_i32(i32_vector a, i32_vector b) { return hn::And(a, b); }
PHI4FLASH_VECTOR_INLINE i32_vector max_i32(i32_vector a, i32_vector b) { return hn::Max(a, b); }
PHI4FLASH_VECTOR_INLINE i32_vector sign_applied(i32_vector v, i32_vector s) {
    const i32_vector sign = hn::ShiftRight<31>(s);
    return hn::Sub(hn::Xor(v, sign), sign);
}
PHI4FLASH_VECTOR_INLINE i32_vector where_greater(i32_vector a, i32_vector b, i32_vector x, i32_vector y) {
    return hn::IfThenElse(hn::Gt(a, b), x, y);
}
template <int N>
PHI4FLASH_VECTOR_INLINE i32_vector shift_left(i32_vector v) { return hn::ShiftLeft<N>(v); }
template <int N>
PHI4FLASH_VECTOR_INLINE i32_vector shift_right(i32_vector v) { return hn::ShiftRight<N>(v); }
PHI4FLASH_VECTOR_INLINE i32_vector shift_right_by(i32_vector v, i32_vector n) {
    const u32_tag du;
    return hn::BitCast(i32_tag(), hn::Shr(hn::BitCast(du, v), hn::BitCast(du, n)));
}
PHI4FLASH_VECTOR_INLINE std::int32_t reduce_max_i32(i32_vector v) { return hn::ReduceMax(i32_tag(), v); }
PHI4FLASH_VECTOR_INLINE std::int32_t reduce_sum_i32(i32_vector v) { return hn::ReduceSum(i32_tag(), v); }

PHI4FLASH_TARGET_END

#elif PHI4FLASH_SIMD_XSIMD

PHI4FLASH_TARGET_BEGIN

PHI4FLASH_VECTOR_INLINE i32_vector load_i32(const std::int32_t* p) { return i32_vector::load_unaligned(p); }
PHI4FLASH_VECTOR_INLINE void store_i32(i32_vector v, std::int32_t* p) { v.store_unaligned(p); }
PHI4FLASH_VECTOR_INLINE i32_vector set_i32(std::int32_t x) { return i32_vector(x); }
PHI4FLASH_VECTOR_INLINE i32_vector bits_of(f32_vector f) { return xsimd::bitwise_cast<std::int32_t>(f); }
PHI4FLASH_VECTOR_INLINE f32_vector float_of_bits(i32_vector v) { return xsimd::bitwise_cast<float>(v); }
PHI4FLASH_VECTOR_INLINE i32_vector truncated(f32_vector f) { return xsimd::to_int(f); }
PHI4FLASH_VECTOR_INLINE i32_vector add_i32(i32_vector a, i32_vector b) { return a + b; }
PHI4FLASH_VECTOR_INLINE i32_vector sub_i32(i32_vector a, i32_vector b) { return a - b; }
PHI4FLASH_VECTOR_INLINE i32_vector mul_i32(i32_vector a, i32_vector b) { return a * b; }
PHI4FLASH_VECTOR_INLINE i32_vector and_i32(i32_vector a, i32_vector b) { return a & b; }
PHI4FLASH_VECTOR_INLINE i32_vector max_i32(i32_vector a, i32_vector b) { return (xsimd::max)(a, b); }
PHI4FLASH_VECTOR_INLINE i32_vector sign_applied(i32_vector v, i32_vector s) { return xsimd::select(s < i32_vector(0), i32_vector(0) - v, v); }
PHI4FLASH_VECTOR_INLINE i32_vector where_greater(i32_vector a, i32_vector b, i32_vector x, i32_vector y) { return xsimd::select(a > b, x, y); }
template <int N>
PHI4FLASH_VECTOR_INLINE i32_vector shift_left(i32_vector v) { return v << N; }
template <int N>
PHI4FLASH_VECTOR_INLINE i32_vector shift_right(i32_vector v) { return v >> N; }
PHI4FLASH_VECTOR_INLINE i32_vector shift_right_by(i32_vector v, i32_vector n) { return v >> n; }
PHI4FLASH_VECTOR_INLINE std::int32_t reduce_max_i32(i32_vector v) { return xsimd::reduce_max(v); }
PHI4FLASH_VECTOR_INLINE std::int32_t reduce_sum_i32(i32_vector v) { return xsimd::reduce_add(v); }

PHI4FLASH_TARGET_END

#else

PHI4FLASH_TARGET_BEGIN

struct i32_vector {
    std::int32_t lane[scalar_lanes];
};

namespace detail {
template <class Operation>
PHI4FLASH_VECTOR_INLINE i32_vector each_i32(Operation operation) {
    i32_vector r;
    for (std::size_t i = 0; i < scalar_lanes; ++i) r.lane[i] = operation(i);
    return r;
}
}  // namespace detail

PHI4FLASH_VECTOR_INLINE i32_vector load_i32(const std::int32_t* p) {
    return detail::each_i32([&](std::size_t i) { return p[i]; });
}
PHI4FLASH_VECTOR_INLINE void store_i32(i32_vector v, std::int32_t* p) {
    for (std::size_t i = 0; i < scalar_lanes; ++i) p[i] = v.lane[i];
}
PHI4FLASH_VECTOR_INLINE i32_vector set_i32(std::int32_t x) {
    return detail::each_i32([&](std::size_t) { return x; });
}
PHI4FLASH_VECTOR_INLINE i32_vector bits_of(f32_vector f) {
    return detail::each_i32([&](std::size_t i) { return std::bit_cast<std::int32_t>(f.lane[i]); });
}
PHI4FLASH_VECTOR_INLINE f32_vector float_of_bits(i32_vector v) {
    return detail::each([&](std::size_t i) { return std::bit_cast<float>(v.lane[i]); });
}
PHI4FLASH_VECTOR_INLINE i32_vector truncated(f32_vector f) {
    return detail::each_i32([&](std::size_t i) { return static_cast<std::int32_t>(f.lane[i]); });
}
PHI4FLASH_VECTOR_INLINE i32_vector add_i32(i32_vector a, i32_vector b) {
    return detail::each_i32([&](std::size_t i) { return a.lane[i] + b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE i32_vector sub_i32(i32_vector a, i32_vector b) {
    return detail::each_i32([&](std::size_t i) { return a.lane[i] - b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE i32_vector mul_i32(i32_vector a, i32_vector b) {
    return detail::each_i32([&](std::size_t i) { return a.lane[i] * b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE i32_vector and_i32(i32_vector a, i32_vector b) {
    return detail::each_i32([&](std::size_t i) { return a.lane[i] & b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE i32_vector max_i32(i32_vector a, i32_vector b) {
    return detail::each_i32([&](std::size_t i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE i32_vector sign_applied(i32_vector v, i32_vector s) {
    return detail::each_i32([&](std::size_t i) { return s.lane[i] < 0 ? -v.lane[i] : v.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE i32_vector where_greater(i32_vector a, i32_vector b, i32_vector x, i32_vector y) {
    return detail::each_i32([&](std::size_t i) { return a.lane[i] > b.lane[i] ? x.lane[i] : y.lane[i]; });
}
template <int N>
PHI4FLASH_VECTOR_INLINE i32_vector shift_left(i32_vector v) {
    return detail::each_i32([&](std::size_t i) { return v.lane[i] << N; });
}
template <int N>
PHI4FLASH_VECTOR_INLINE i32_vector shift_right(i32_vector v) {
    return detail::each_i32([&](std::size_t i) { return v.lane[i] >> N; });
}
PHI4FLASH_VECTOR_INLINE i32_vector shift_right_by(i32_vector v, i32_vector n) {
    return detail::each_i32([&](std::size_t i) { return v.lane[i] >> n.lane[i]; });
}
PHI4FLASH_VECTOR_INLINE std::int32_t reduce_max_i32(i32_vector v) {
    std::int32_t m = v.lane[0];
    for (std::size_t i = 1; i < scalar_lanes; ++i) m = v.lane[i] > m ? v.lane[i] : m;
    return m;
}
PHI4FLASH_VECTOR_INLINE std::int32_t reduce_sum_i32(i32_vector v) { return (v.lane[0] + v.lane[2]) + (v.lane[1] + v.lane[3]); }

PHI4FLASH_TARGET_END

#endif
