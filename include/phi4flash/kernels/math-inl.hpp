// Elementary functions over the vocabulary.

PHI4FLASH_TARGET_BEGIN

/// 2^x.   f32, x clamped to [-126, 127]: never 0, never infinite.
/// Error: <= 2 ulp (tests/kernels/elementwise_test.cpp).   Source: Taylor in (x - round(x)) ln 2, |r| <= 0.347, degree 7.
PHI4FLASH_VECTOR_INLINE f32_vector exp2_of(f32_vector x) {
    const f32_vector clamped = max_of(min_of(x, set(127.0f)), set(-126.0f));
    const f32_vector n = round_nearest(clamped);
    const f32_vector r = sub(clamped, n);
    f32_vector p = set(1.525273380e-5f);
    p = mul_add(p, r, set(1.540353039e-4f));
    p = mul_add(p, r, set(1.333355814e-3f));
    p = mul_add(p, r, set(9.618129107e-3f));
    p = mul_add(p, r, set(5.550410866e-2f));
    p = mul_add(p, r, set(2.402265070e-1f));
    p = mul_add(p, r, set(6.931471806e-1f));
    p = mul_add(p, r, set(1.0f));
    return scale_by_power_of_two(p, n);
}

/// e^x.   f32, x clamped to [-87.3, 88.0].
/// Error: <= 2 ulp (tests/kernels/elementwise_test.cpp).   Source: Cody and Waite reduction, then as exp2_of.
PHI4FLASH_VECTOR_INLINE f32_vector exp_of(f32_vector x) {
    const f32_vector clamped = max_of(min_of(x, set(88.0f)), set(-87.3f));
    const f32_vector n = round_nearest(mul(clamped, set(1.442695041f)));
    f32_vector r = neg_mul_add(n, set(0.693359375f), clamped);
    r = neg_mul_add(n, set(-2.12194440e-4f), r);
    f32_vector p = set(1.984126984e-4f);
    p = mul_add(p, r, set(1.388888889e-3f));
    p = mul_add(p, r, set(8.333333333e-3f));
    p = mul_add(p, r, set(4.166666667e-2f));
    p = mul_add(p, r, set(1.666666667e-1f));
    p = mul_add(p, r, set(5.0e-1f));
    p = mul_add(p, r, set(1.0f));
    p = mul_add(p, r, set(1.0f));
    return scale_by_power_of_two(p, n);
}

/// x / (1 + e^-x).   Error: <= 4 ulp for x >= -87, <= 1e-36 below (tests/kernels/elementwise_test.cpp).
PHI4FLASH_VECTOR_INLINE f32_vector silu_of(f32_vector x) { return div(x, add(set(1.0f), exp_of(sub(zero(), x)))); }

/// log(1 + e^x) = max(x, 0) + log1p(e^-|x|).
/// NaN for NaN, so that a broken matrix is noticed: exp_of makes a number of it.
/// Error: <= 4 ulp for x >= -87, <= 2e-38 below (tests/kernels/elementwise_test.cpp).   Source: log1p(t) = 2 atanh(t / (2 + t)), t in (0, 1].
PHI4FLASH_VECTOR_INLINE f32_vector softplus_of(f32_vector x) {
    const f32_vector t = exp_of(sub(zero(), abs_of(x)));
    const f32_vector s = div(t, add(t, set(2.0f)));
    const f32_vector z = mul(s, s);
    f32_vector p = set(6.666666667e-2f);
    p = mul_add(p, z, set(7.692307692e-2f));
    p = mul_add(p, z, set(9.090909091e-2f));
    p = mul_add(p, z, set(1.111111111e-1f));
    p = mul_add(p, z, set(1.428571429e-1f));
    p = mul_add(p, z, set(2.0e-1f));
    p = mul_add(p, z, set(3.333333333e-1f));
    p = mul_add(p, z, set(1.0f));
    return mul_add(add(s, s), p, where_at_least(sub(zero(), x), zero(), zero(), x));
}

/// a * b + c as `mul_add` computes it. In scalar code a compiler fuses some products and not others, and results would depend on
/// which copy of a function they come from.
PHI4FLASH_VECTOR_INLINE float mul_add_one(float a, float b, float c) {
    float out[max_lanes];
    store(mul_add(set(a), set(b), set(c)), out);
    return out[0];
}

/// The first n < lanes() elements at p, the rest zero.
template <class Element>
PHI4FLASH_VECTOR_INLINE f32_vector load_first(const Element* p, std::size_t n) {
    float buffer[max_lanes] = {};
    for (std::size_t i = 0; i < n; ++i) buffer[i] = to_f32(p[i]);
    return load(buffer);
}

/// Stores the first n < lanes() lanes.
template <class Element>
PHI4FLASH_VECTOR_INLINE void store_first(f32_vector v, Element* p, std::size_t n) {
    float buffer[max_lanes];
    store(v, buffer);
    for (std::size_t i = 0; i < n; ++i) p[i] = from_f32<Element>(buffer[i]);
}

PHI4FLASH_TARGET_END
