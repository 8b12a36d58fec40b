// Mamba-1: depthwise causal convolution and the selective scan.

PHI4FLASH_TARGET_BEGIN

/// y[t,c] = silu(bias[c] + sum_j weight[j,c] x[t - (d_conv - 1) + j, c]), inputs before the chunk from the state.
/// Error: <= 4 ulp of sum |w x| (tests/kernels/mamba_test.cpp).   Source: arXiv:2312.00752, figure 3.
inline void convolution(const convolution_args& args, std::size_t channel_begin, std::size_t channel_end) {
    const std::size_t lane_count = lanes();
    const std::size_t history = args.d_conv - 1;
    for (std::size_t t = 0; t < args.tokens; ++t) {
        float* y = args.y + t * args.y_stride;
        for (std::size_t c = channel_begin; c < channel_end; c += lane_count) {
            const std::size_t n = channel_end - c < lane_count ? channel_end - c : lane_count;
            const bool whole = n == lane_count;
            f32_vector sum = whole ? load(args.bias + c) : load_first(args.bias + c, n);
            for (std::size_t j = 0; j < args.d_conv; ++j) {
                // Input at time t - history + j: from the state while that is before the chunk.
                const std::size_t time = t + j;
                const float* x = time < history ? args.state + time * args.d_inner : args.x + (time - history) * args.x_stride;
                const float* w = args.weight + j * args.d_inner;
                sum = whole ? mul_add(load(x + c), load(w + c), sum) : mul_add(load_first(x + c, n), load_first(w + c, n), sum);
            }
            if (whole) {
                store(silu_of(sum), y + c);
            } else {
                store_first(silu_of(sum), y + c, n);
            }
        }
    }
    // A state is the last `history` inputs; one in place moves its rows towards the front, so in order is safe.
    for (std::size_t s = 0; s < args.kept.count; ++s) {
        const std::size_t read = args.tokens - args.kept.count + 1 + s;
        for (std::size_t j = 0; j < history; ++j) {
            const std::size_t time = read + j;
            const float* from = time < history ? args.state + time * args.d_inner : args.x + (time - history) * args.x_stride;
            float* to = args.kept.first + s * args.kept.stride + j * args.d_inner;
            for (std::size_t c = channel_begin; c < channel_end; ++c) to[c] = from[c];
        }
    }
}

/// One vector of channels, one token: from h [d_state][channel_block] to the next, which may be in its place; returns sum_n C[n] h[n] of
/// the next.
PHI4FLASH_VECTOR_INLINE f32_vector scan_vector(const float* a, const float* h, float* next, const float* b, const float* c, std::size_t d_state,
                                               f32_vector dt, f32_vector dt_u) {
    f32_vector y0 = zero();
    f32_vector y1 = zero();
    std::size_t n = 0;
    for (; n + 2 <= d_state; n += 2) {
        const std::size_t at0 = n * channel_block;
        const std::size_t at1 = at0 + channel_block;
        const f32_vector next0 = mul_add(exp2_of(mul(dt, load(a + at0))), load(h + at0), mul(dt_u, set(b[n])));
        const f32_vector next1 = mul_add(exp2_of(mul(dt, load(a + at1))), load(h + at1), mul(dt_u, set(b[n + 1])));
        store(next0, next + at0);
        store(next1, next + at1);
        y0 = mul_add(next0, set(c[n]), y0);
        y1 = mul_add(next1, set(c[n + 1]), y1);
    }
    for (; n < d_state; ++n) {
        const std::size_t at0 = n * channel_block;
        const f32_vector next0 = mul_add(exp2_of(mul(dt, load(a + at0))), load(h + at0), mul(dt_u, set(b[n])));
        store(next0, next + at0);
        y0 = mul_add(next0, set(c[n]), y0);
    }
    return add(y0, y1);
}

/// See scan_args. Tokens run inside a block of channels, so its A and h stay in the first-level cache.
/// Error: <= 2e-6 of sum |C h| + |D u|, also after 1,000 tokens (tests/kernels/mamba_test.cpp).
inline void scan(const scan_args& args, std::size_t block_begin, std::size_t block_end) {
    const std::size_t lane_count = lanes();
    for (std::size_t block = block_begin; block < block_end; ++block) {
        const std::size_t first = block * channel_block;
        const std::size_t width = args.d_inner - first < channel_block ? args.d_inner - first : channel_block;
        const float* a = args.a_log2e + first * args.d_state;
        const float* h = args.h + first * args.d_state;
        for (std::size_t t = 0; t < args.tokens; ++t) {
            const std::size_t slot = t + args.kept.count < args.tokens ? 0 : t + args.kept.count - args.tokens;
            float* next = args.kept.first + slot * args.kept.stride + first * args.d_state;
            const float* b = args.b + t * args.bc_stride;
            const float* c = args.c + t * args.bc_stride;
            for (std::size_t i = 0; i < width; i += lane_count) {
                const std::size_t channel = first + i;
                const std::size_t at = t * args.d_inner + channel;
                const std::size_t n = width - i < lane_count ? width - i : lane_count;
                if (n == lane_count) {
                    const f32_vector dt = load(args.dt + at);
                    const f32_vector u = load(args.u + at);
                    const f32_vector sum = scan_vector(a + i, h + i, next + i, b, c, args.d_state, dt, mul(dt, u));
                    store(mul_add(load(args.d + channel), u, sum), args.y + at);
                } else {  // A and h are zero behind the last channel, so whole vectors of them are safe
                    const f32_vector dt = load_first(args.dt + at, n);
                    const f32_vector u = load_first(args.u + at, n);
                    const f32_vector sum = scan_vector(a + i, h + i, next + i, b, c, args.d_state, dt, mul(dt, u));
                    store_first(mul_add(load_first(args.d + channel, n), u, sum), args.y + at, n);
                }
            }
            h = next;
        }
    }
}

PHI4FLASH_TARGET_END
