// Kernels that touch each number once: norms, activations, softmax, rotation.

PHI4FLASH_TARGET_BEGIN

inline void accumulate(const float* PHI4FLASH_RESTRICT x, std::size_t n, float* PHI4FLASH_RESTRICT y) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(add(load(y + i), load(x + i)), y + i);
    for (; i < n; ++i) y[i] += x[i];
}

inline void silu_mul(const float* gate, const float* x, std::size_t n, float* y) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(mul(silu_of(load(gate + i)), load(x + i)), y + i);
    if (i < n) store_first(mul(silu_of(load_first(gate + i, n - i)), load_first(x + i, n - i)), y + i, n - i);
}

inline void softplus(const float* x, std::size_t n, float* y) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(softplus_of(load(x + i)), y + i);
    if (i < n) store_first(softplus_of(load_first(x + i, n - i)), y + i, n - i);
}

/// sum_i (x[i] - shift)^2, in two sums.
PHI4FLASH_VECTOR_INLINE float sum_of_squares(const float* x, float shift, std::size_t n) {
    const std::size_t lane_count = lanes();
    const f32_vector c = set(shift);
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    std::size_t i = 0;
    for (; i + 2 * lane_count <= n; i += 2 * lane_count) {
        const f32_vector a = sub(load(x + i), c);
        const f32_vector b = sub(load(x + i + lane_count), c);
        s0 = mul_add(a, a, s0);
        s1 = mul_add(b, b, s1);
    }
    float rest = 0.0f;
    for (; i < n; ++i) rest += (x[i] - shift) * (x[i] - shift);
    return reduce_sum(add(s0, s1)) + rest;
}

PHI4FLASH_VECTOR_INLINE float sum_of(const float* x, std::size_t n) {
    const std::size_t lane_count = lanes();
    f32_vector s0 = zero();
    f32_vector s1 = zero();
    std::size_t i = 0;
    for (; i + 2 * lane_count <= n; i += 2 * lane_count) {
        s0 = add(s0, load(x + i));
        s1 = add(s1, load(x + i + lane_count));
    }
    float rest = 0.0f;
    for (; i < n; ++i) rest += x[i];
    return reduce_sum(add(s0, s1)) + rest;
}

inline void layer_norm(const float* x, const float* weight, const float* bias, float eps, std::size_t n, float* y) {
    const auto count = static_cast<float>(n);
    const float mean = sum_of(x, n) / count;
    // Two passes: the variance of numbers with a large mean does not survive E[x^2] - E[x]^2 in f32.
    const float inverse = 1.0f / std::sqrt(sum_of_squares(x, mean, n) / count + eps);
    const std::size_t lane_count = lanes();
    const f32_vector m = set(mean);
    const f32_vector s = set(inverse);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count)
        store(mul_add(mul(sub(load(x + i), m), s), load(weight + i), load(bias + i)), y + i);
    for (; i < n; ++i) y[i] = (x[i] - mean) * inverse * weight[i] + bias[i];
}

inline void rms_norm(const float* x, const float* weight, float eps, std::size_t n, float* y) {
    const float inverse = 1.0f / std::sqrt(sum_of_squares(x, 0.0f, n) / static_cast<float>(n) + eps);
    const std::size_t lane_count = lanes();
    const f32_vector s = set(inverse);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(mul(mul(load(x + i), s), load(weight + i)), y + i);
    for (; i < n; ++i) y[i] = x[i] * inverse * weight[i];
}

inline void difference_norm(const float* first, const float* second, float lambda, const float* weight, float eps, std::size_t n,
                            float* y) {
    const std::size_t lane_count = lanes();
    const f32_vector l = set(lambda);
    std::size_t i = 0;
    for (; i + lane_count <= n; i += lane_count) store(neg_mul_add(l, load(second + i), load(first + i)), y + i);
    for (; i < n; ++i) y[i] = first[i] - lambda * second[i];
    rms_norm(y, weight, eps, n, y);
}

inline void softmax(float* x, std::size_t n, float inverse_temperature) {
    if (n == 0) return;
    const std::size_t lane_count = lanes();
    float highest = x[0];
    std::size_t i = 0;
    if (n >= lane_count) {
        f32_vector m = load(x);
        for (; i + lane_count <= n; i += lane_count) m = max_of(m, load(x + i));
        highest = reduce_max(m);
    }
    for (; i < n; ++i) highest = x[i] > highest ? x[i] : highest;

    const f32_vector shift = set(highest);
    const f32_vector scale = set(inverse_temperature);
    f32_vector sums = zero();
    for (i = 0; i + lane_count <= n;) {
        // Sums of sums: added one by one, the 200,000 terms of a vocabulary would cost 300 ulp.
        f32_vector part = zero();
        for (std::size_t k = 0; k < 256 && i + lane_count <= n; ++k, i += lane_count) {
            const f32_vector e = exp_of(mul(sub(load(x + i), shift), scale));
            store(e, x + i);
            part = add(part, e);
        }
        sums = add(sums, part);
    }
    float sum = reduce_sum(sums);
    if (i < n) {
        store_first(exp_of(mul(sub(load_first(x + i, n - i), shift), scale)), x + i, n - i);
        for (; i < n; ++i) sum += x[i];
    }
    const f32_vector inverse = set(1.0f / sum);
    for (i = 0; i + lane_count <= n; i += lane_count) store(mul(load(x + i), inverse), x + i);
    for (; i < n; ++i) x[i] /= sum;
}

inline void rotate(float* x, const float* cosine, const float* sine, std::size_t half) {
    const std::size_t lane_count = lanes();
    std::size_t i = 0;
    for (; i + lane_count <= half; i += lane_count) {
        const f32_vector a = load(x + i);
        const f32_vector b = load(x + half + i);
        const f32_vector c = load(cosine + i);
        const f32_vector s = load(sine + i);
        store(neg_mul_add(b, s, mul(a, c)), x + i);
        store(mul_add(a, s, mul(b, c)), x + half + i);
    }
    for (; i < half; ++i) {
        const float a = x[i];
        const float b = x[half + i];
        x[i] = a * cosine[i] - b * sine[i];
        x[half + i] = a * sine[i] + b * cosine[i];
    }
}

PHI4FLASH_TARGET_END
