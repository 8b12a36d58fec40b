// Products of plain weights with the activations of several tokens, and the forms in which plain products read activations.

PHI4FLASH_TARGET_BEGIN

/// Tokens whose activations lie side by side: column by column, [cols][tokens]. The last bundle has as many as are left.
PHI4FLASH_VECTOR_INLINE std::size_t bundle_tokens() { return 2 * lanes(); }

/// One token of bf16 weights: even places before odd ones, in blocks of 2 * lanes().
PHI4FLASH_VECTOR_INLINE void arrange_even_odd(const float* PHI4FLASH_RESTRICT x, std::size_t cols, float* PHI4FLASH_RESTRICT out) {
    const std::size_t half = lanes();
    for (std::size_t i = 0; i < cols; i += 2 * half) {
        for (std::size_t j = 0; j < half; ++j) {
            out[i + j] = i + 2 * j < cols ? x[i + 2 * j] : 0.0f;
            out[i + half + j] = i + 2 * j + 1 < cols ? x[i + 2 * j + 1] : 0.0f;
        }
    }
}

/// One token as matvec reads it; several as bundles, one after the other.
template <class Element>
inline const std::byte* arrange_plain(const float* PHI4FLASH_RESTRICT x, std::size_t x_stride, std::size_t cols, std::size_t begin,
                                      std::size_t end, std::size_t tokens, std::byte* scratch) {
    auto* PHI4FLASH_RESTRICT out = reinterpret_cast<float*>(scratch);
    if (tokens == 1) {
        if constexpr (dtype_of<Element> != dtype::bf16) return reinterpret_cast<const std::byte*>(x);
        arrange_even_odd(x, cols, out);
        return scratch;
    }
    for (std::size_t t = begin; t < end;) {
        const std::size_t within = t % bundle_tokens();
        const std::size_t first = t - within;
        const std::size_t width = tokens - first < bundle_tokens() ? tokens - first : bundle_tokens();
        const float* x0 = x + t * x_stride;
        float* to = out + first * cols + within;
        if (t + 4 <= end && within + 4 <= width) {  // four at a time, which writes fewer lines in part
            const float* x1 = x0 + x_stride;
            const float* x2 = x1 + x_stride;
            const float* x3 = x2 + x_stride;
            for (std::size_t c = 0; c < cols; ++c, to += width) to[0] = x0[c], to[1] = x1[c], to[2] = x2[c], to[3] = x3[c];
            t += 4;
        } else {
            for (std::size_t c = 0; c < cols; ++c, to += width) *to = x0[c];
            t += 1;
        }
    }
    return scratch;
}

/// What is widened at once: 12 KiB, which stays in the first-level cache with the same columns of a bundle.
inline constexpr std::size_t panel_rows = 24;
inline constexpr std::size_t panel_cols = 128;
/// Tokens that use a panel before the next one is widened: whole bundles.
inline constexpr std::size_t panel_tokens = 128;

/// Rows of a panel, `n` columns, against a bundle of up to lanes() tokens of a layout `width` wide: sums [rows][bundle_tokens()] grow.
/// Every sum is that of one column after the other, of blocks of panel_cols by themselves, which loses fewer bits than one long sum.
/// Lanes without a token add up whatever lies behind the column.
template <std::size_t... R>
PHI4FLASH_VECTOR_INLINE void panel_tile_one(std::index_sequence<R...>, const float* PHI4FLASH_RESTRICT panel, const float* PHI4FLASH_RESTRICT x,
                                            std::size_t width, std::size_t n, float* sums, f32_of<R>... a) {
    for (std::size_t c = 0; c < n; ++c, ++panel, x += width) {
        const f32_vector column = load(x);
        ((a = mul_add(set(panel[R * panel_cols]), column, a)), ...);
    }
    (store(add(load(sums + R * bundle_tokens()), a), sums + R * bundle_tokens()), ...);
}

PHI4FLASH_VECTOR_INLINE void add_column(f32_vector w, f32_vector x, f32_vector y, f32_vector& a, f32_vector& b) {
    a = mul_add(w, x, a);
    b = mul_add(w, y, b);
}

/// The same for more than lanes() tokens.
template <std::size_t... R>
PHI4FLASH_VECTOR_INLINE void panel_tile_two(std::index_sequence<R...>, const float* PHI4FLASH_RESTRICT panel, const float* PHI4FLASH_RESTRICT x,
                                            std::size_t width, std::size_t n, float* sums, f32_of<R>... a, f32_of<R>... b) {
    const std::size_t half = lanes();
    for (std::size_t c = 0; c < n; ++c, ++panel, x += width) {
        const f32_vector first = load(x);
        const f32_vector second = load(x + half);
        (add_column(set(panel[R * panel_cols]), first, second, a, b), ...);
    }
    (store(add(load(sums + 2 * R * half), a), sums + 2 * R * half), ...);
    (store(add(load(sums + (2 * R + 1) * half), b), sums + (2 * R + 1) * half), ...);
}

template <bool Two, std::size_t... R>
PHI4FLASH_VECTOR_INLINE void panel_tile(std::index_sequence<R...> rows, const float* panel, const float* x, std::size_t width, std::size_t n,
                                        float* sums) {
    if constexpr (Two) {
        panel_tile_two(rows, panel, x, width, n, sums, f32_of<R>(zero())..., f32_of<R>(zero())...);
    } else {
        panel_tile_one(rows, panel, x, width, n, sums, f32_of<R>(zero())...);
    }
}

/// All rows of a panel against a bundle, in tiles of as many rows as 16 registers allow.
template <bool Two>
inline void panel_bundle(const float* panel, std::size_t rows, const float* x, std::size_t width, std::size_t n, float* sums) {
    constexpr std::size_t most = Two ? 6 : 12;
    const std::size_t step = bundle_tokens();
    std::size_t r = 0;
    for (; r + most <= rows; r += most) panel_tile<Two>(std::make_index_sequence<most>(), panel + r * panel_cols, x, width, n, sums + r * step);
    for (; r + 4 <= rows; r += 4) panel_tile<Two>(std::make_index_sequence<4>(), panel + r * panel_cols, x, width, n, sums + r * step);
    for (; r < rows; ++r) panel_tile<Two>(std::make_index_sequence<1>(), panel + r * panel_cols, x, width, n, sums + r * step);
}

/// y[t, r] = sums + bias for a bundle.
inline void put_bundle(const float* sums, std::size_t rows, std::size_t width, const float* bias, float* y, std::size_t y_stride) {
    for (std::size_t t = 0; t < width; ++t, y += y_stride) {
        for (std::size_t r = 0; r < rows; ++r) y[r] = sums[r * bundle_tokens() + t] + (bias == nullptr ? 0.0f : bias[r]);
    }
}

/// Tokens outside, then rows, then columns, then bundles: weights are streamed and widened once for panel_tokens tokens.
template <class Element>
inline void matmul(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* arranged, std::size_t tokens, const float* bias,
                   float* y, std::size_t y_stride) {
    alignas(64) float panel[panel_rows * panel_cols];
    alignas(64) float sums[panel_rows * panel_tokens];
    const std::size_t step = bundle_tokens();
    for (std::size_t t = 0; t < tokens; t += panel_tokens, y += panel_tokens * y_stride) {
        const std::size_t count = tokens - t < panel_tokens ? tokens - t : panel_tokens;
        const float* x = reinterpret_cast<const float*>(arranged) + t * cols;
        for (std::size_t r = 0; r < rows; r += panel_rows) {
            const std::size_t some = rows - r < panel_rows ? rows - r : panel_rows;
            std::memset(sums, 0, sizeof sums);
            for (std::size_t c = 0; c < cols; c += panel_cols) {
                const std::size_t n = cols - c < panel_cols ? cols - c : panel_cols;
                // The next columns, or those of the next rows, are on their way while these are multiplied.
                const std::size_t ahead = (c + n < cols ? n : panel_rows * cols - c) * sizeof(Element);
                for (std::size_t i = 0; i < some; ++i) {
                    const std::byte* row = w + ((r + i) * cols + c) * sizeof(Element);
                    for (std::size_t line = 0; line < n * sizeof(Element); line += 64) prefetch(row + ahead + line);
                    widen<Element>(row, n, panel + i * panel_cols);
                }
                for (std::size_t b = 0; b < count; b += step) {
                    const std::size_t width = count - b < step ? count - b : step;
                    const float* from = x + b * cols + c * width;
                    if (width > lanes()) {
                        panel_bundle<true>(panel, some, from, width, n, sums + b * some);
                    } else {
                        panel_bundle<false>(panel, some, from, width, n, sums + b * some);
                    }
                }
            }
            for (std::size_t b = 0; b < count; b += step)
                put_bundle(sums + b * some, some, count - b < step ? count - b : step, bias == nullptr ? nullptr : bias + r, y + b * y_stride + r, y_stride);
        }
    }
}

PHI4FLASH_TARGET_END
