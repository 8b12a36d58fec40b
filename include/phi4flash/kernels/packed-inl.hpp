// Products with packed weights and 8-bit activations, 1 or 4 tokens at a time.

PHI4FLASH_TARGET_BEGIN

/// q[i] = round(x[i] / scale), scale = max |x| / 127 over each 32 columns.   Shape: x [cols], out [cols / 32].
/// Error: |x - scale q| <= scale / 2 (tests/kernels/packed_test.cpp).
inline const std::byte* arrange_int8(const float* PHI4FLASH_RESTRICT x, std::size_t cols, std::byte* scratch) {
    auto* groups = reinterpret_cast<activation_group*>(scratch);
    const std::size_t lane_count = lanes();
    for (std::size_t g = 0; g < cols / packed_cols; ++g) {
        const float* group = x + g * packed_cols;
        f32_vector highest = zero();
        for (std::size_t i = 0; i < packed_cols; i += lane_count) highest = max_of(highest, abs_of(load(group + i)));
        const float most = reduce_max(highest);
        const float inverse = most > 0.0f ? 127.0f / most : 0.0f;
        float rounded[packed_cols];
        f32_vector sums = zero();
        for (std::size_t i = 0; i < packed_cols; i += lane_count) {
            const f32_vector q = round_nearest(mul(load(group + i), set(inverse)));
            store(q, rounded + i);
            sums = add(sums, q);
        }
        for (std::size_t i = 0; i < packed_cols; ++i) groups[g].q[i] = static_cast<std::int8_t>(rounded[i]);
        groups[g].scale = most / 127.0f;
        groups[g].sum = static_cast<std::int32_t>(reduce_sum(sums));
    }
    return scratch;
}

/// Writes the outputs of up to 8 rows: y[r] = v[r] + bias[r].
PHI4FLASH_VECTOR_INLINE void put_rows(rows_f32 v, const float* bias, float* y) {
    store_rows(v, y);
    for (std::size_t r = 0; bias != nullptr && r < rows_lanes(); ++r) y[r] += bias[r];
}

/// Eight columns of a 4-bit block, unpacked: those at 4 j and those at 4 (j + 4).
#define PHI4FLASH_UNPACK_Q4(j)                                                                   \
    const code_vector codes##j = load_codes(block.code[j] + 4 * row);                            \
    const code_vector low##j = Dense ? levels_of(levels, low_codes(codes##j)) : low_codes(codes##j); \
    const code_vector high##j = Dense ? levels_of(levels, high_codes(codes##j)) : high_codes(codes##j)

/// total + the products of these columns with one token's activations.
PHI4FLASH_VECTOR_INLINE rows_i32 q4_columns(rows_i32 total, code_vector low, code_vector high, const activation_group& x, std::size_t j) {
    return dot_fold(total, dot_second(dot_first(low, broadcast_four(x.q + 4 * j)), high, broadcast_four(x.q + 4 * (j + 4))));
}

/// total - zero * sum of x: levels are stored with an offset.
template <bool Dense>
PHI4FLASH_VECTOR_INLINE rows_i32 without_offset(rows_i32 total, const activation_group& x) {
    static_assert(q4_dense.zero == 32 && q4_uniform.zero == 8);
    return subtract_shifted<Dense ? 5 : 3>(total, x.sum);
}

/// Rows [row, row + lanes) of one row of blocks against one token.
template <bool Dense>
PHI4FLASH_VECTOR_INLINE void q4_rows_1(const q4_block* blocks, std::size_t groups, std::size_t row, code_vector levels, const activation_group* x,
                                       const float* bias, float* y) {
    rows_f32 sum = zero_rows();
    for (std::size_t g = 0; g < groups; ++g) {
        const q4_block& block = blocks[g];
        PHI4FLASH_UNPACK_Q4(0);
        PHI4FLASH_UNPACK_Q4(1);
        PHI4FLASH_UNPACK_Q4(2);
        PHI4FLASH_UNPACK_Q4(3);
        rows_i32 even = q4_columns(set_rows(0), low0, high0, x[g], 0);
        rows_i32 odd = q4_columns(set_rows(0), low1, high1, x[g], 1);
        even = q4_columns(even, low2, high2, x[g], 2);
        odd = without_offset<Dense>(q4_columns(odd, low3, high3, x[g], 3), x[g]);
        sum = add_scaled(add_rows(even, odd), scale_rows(load_scales(block.scale + row), x[g].scale), sum);
    }
    put_rows(sum, bias, y);
}

/// The same against four tokens, x_stride bytes apart: codes are unpacked once for all.
template <bool Dense>
PHI4FLASH_VECTOR_INLINE void q4_rows_4(const q4_block* blocks, std::size_t groups, std::size_t row, code_vector levels, const std::byte* tokens,
                                       std::size_t x_stride, const float* bias, float* y, std::size_t y_stride) {
    rows_f32 s0 = zero_rows(), s1 = zero_rows(), s2 = zero_rows(), s3 = zero_rows();
    const auto* x0 = reinterpret_cast<const activation_group*>(tokens);
    const auto* x1 = reinterpret_cast<const activation_group*>(tokens + x_stride);
    const auto* x2 = reinterpret_cast<const activation_group*>(tokens + 2 * x_stride);
    const auto* x3 = reinterpret_cast<const activation_group*>(tokens + 3 * x_stride);
    for (std::size_t g = 0; g < groups; ++g) {
        const q4_block& block = blocks[g];
        PHI4FLASH_UNPACK_Q4(0);
        rows_i32 t0 = q4_columns(set_rows(0), low0, high0, x0[g], 0);
        rows_i32 t1 = q4_columns(set_rows(0), low0, high0, x1[g], 0);
        rows_i32 t2 = q4_columns(set_rows(0), low0, high0, x2[g], 0);
        rows_i32 t3 = q4_columns(set_rows(0), low0, high0, x3[g], 0);
        PHI4FLASH_UNPACK_Q4(1);
        t0 = q4_columns(t0, low1, high1, x0[g], 1);
        t1 = q4_columns(t1, low1, high1, x1[g], 1);
        t2 = q4_columns(t2, low1, high1, x2[g], 1);
        t3 = q4_columns(t3, low1, high1, x3[g], 1);
        PHI4FLASH_UNPACK_Q4(2);
        t0 = q4_columns(t0, low2, high2, x0[g], 2);
        t1 = q4_columns(t1, low2, high2, x1[g], 2);
        t2 = q4_columns(t2, low2, high2, x2[g], 2);
        t3 = q4_columns(t3, low2, high2, x3[g], 2);
        PHI4FLASH_UNPACK_Q4(3);
        t0 = without_offset<Dense>(q4_columns(t0, low3, high3, x0[g], 3), x0[g]);
        t1 = without_offset<Dense>(q4_columns(t1, low3, high3, x1[g], 3), x1[g]);
        t2 = without_offset<Dense>(q4_columns(t2, low3, high3, x2[g], 3), x2[g]);
        t3 = without_offset<Dense>(q4_columns(t3, low3, high3, x3[g], 3), x3[g]);
        const rows_f32 scales = load_scales(block.scale + row);
        s0 = add_scaled(t0, scale_rows(scales, x0[g].scale), s0);
        s1 = add_scaled(t1, scale_rows(scales, x1[g].scale), s1);
        s2 = add_scaled(t2, scale_rows(scales, x2[g].scale), s2);
        s3 = add_scaled(t3, scale_rows(scales, x3[g].scale), s3);
    }
    put_rows(s0, bias, y);
    put_rows(s1, bias, y + y_stride);
    put_rows(s2, bias, y + 2 * y_stride);
    put_rows(s3, bias, y + 3 * y_stride);
}
#undef PHI4FLASH_UNPACK_Q4

PHI4FLASH_VECTOR_INLINE rows_i32 q8_dot(const q8_block& block, std::size_t row, const activation_group& x) {
    rows_i32 total = set_rows(0);
    for (std::size_t s = 0; s < 8; ++s) total = dot_signed(total, load_codes(block.code[s] + 4 * row), broadcast_four(x.q + 4 * s));
    return total;
}

PHI4FLASH_VECTOR_INLINE void q8_rows_1(const q8_block* blocks, std::size_t groups, std::size_t row, const activation_group* x, const float* bias,
                                       float* y) {
    rows_f32 sum = zero_rows();
    for (std::size_t g = 0; g < groups; ++g)
        sum = add_scaled(q8_dot(blocks[g], row, x[g]), scale_rows(load_scales(blocks[g].scale + row), x[g].scale), sum);
    put_rows(sum, bias, y);
}

/// y[t, r] = bias[r] + sum_c W[r,c] x[t,c] for `rows` (a multiple of 8) rows of packed W and arranged tokens.
/// f32 accumulation over groups of 32 columns, integers inside; each output in the same order for any number of tokens.
template <dtype Format>
inline void packed_matmul(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, std::size_t x_stride,
                          std::size_t tokens, const float* bias, float* y, std::size_t y_stride) {
    const std::size_t groups = cols / packed_cols;
    const auto token = [&](std::size_t t) { return reinterpret_cast<const activation_group*>(x + t * x_stride); };
    [[maybe_unused]] const code_vector levels = load_levels(q4_dense.level);
    for (std::size_t r = 0; r < rows; r += packed_rows) {
        for (std::size_t row = 0; row < packed_rows; row += rows_lanes()) {
            const float* b = bias == nullptr ? nullptr : bias + r + row;
            float* out = y + r + row;
            if constexpr (Format == dtype::q8) {
                const auto* blocks = reinterpret_cast<const q8_block*>(w) + r / packed_rows * groups;
                for (std::size_t t = 0; t < tokens; ++t) q8_rows_1(blocks, groups, row, token(t), b, out + t * y_stride);
            } else {
                constexpr bool dense = Format == dtype::q4_dense;
                const auto* blocks = reinterpret_cast<const q4_block*>(w) + r / packed_rows * groups;
                std::size_t t = 0;
                for (; t + 4 <= tokens; t += 4)
                    q4_rows_4<dense>(blocks, groups, row, levels, x + t * x_stride, x_stride, b, out + t * y_stride, y_stride);
                for (; t < tokens; ++t) q4_rows_1<dense>(blocks, groups, row, levels, token(t), b, out + t * y_stride);
            }
        }
    }
}

/// One token: the same sums as packed_matmul's.
template <dtype Format>
inline void packed_matvec(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* arranged, const float* bias, float* y) {
    packed_matmul<Format>(w, rows, cols, arranged, 0, 1, bias, y, 0);
}

template <dtype Format>
inline void packed_widen_row(const std::byte* w, std::size_t r, std::size_t cols, float* out) {
    const std::size_t groups = cols / packed_cols;
    for (std::size_t g = 0; g < groups; ++g) {
        const std::size_t at = r / packed_rows * groups + g;
        if constexpr (Format == dtype::q8) {
            decode_row(reinterpret_cast<const q8_block*>(w)[at], r % packed_rows, out + g * packed_cols);
        } else {
            constexpr const q4_codebook& book = Format == dtype::q4_dense ? q4_dense : q4_uniform;
            decode_row(reinterpret_cast<const q4_block*>(w)[at], book, r % packed_rows, out + g * packed_cols);
        }
    }
}

PHI4FLASH_TARGET_END
