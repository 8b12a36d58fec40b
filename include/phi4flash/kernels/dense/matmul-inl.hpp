// Products of plain weights with the activations of many tokens, which lie side by side in a vector, and what plain products read.

PHI4FLASH_TARGET_BEGIN

/// Tokens whose activations lie side by side: column by column, [cols][tokens]. The last bundle has as many as are left.
PHI4FLASH_VECTOR_INLINE std::size_t bundle_tokens() { return 2 * lanes(); }

/// A few tokens as matmul_few reads them; many as bundles, one after the other.
template <class Element>
inline const std::byte* arrange_plain(const float* PHI4FLASH_RESTRICT x, std::size_t x_stride, std::size_t cols, std::size_t begin,
                                      std::size_t end, std::size_t tokens, std::byte* scratch) {
    auto* PHI4FLASH_RESTRICT out = reinterpret_cast<float*>(scratch);
    if (tokens <= plain_few_tokens) {
        arrange_few<Element>(x, x_stride, cols, begin, end, out);
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

/// Sums [rows][bundle_tokens()] of a bundle grow by those of a block of panel_cols, which loses fewer bits than one long sum.
struct add_to_sums {
    float* sums;
    PHI4FLASH_VECTOR_INLINE void operator()(std::size_t row, std::size_t vector, f32_vector sum) const {
        float* to = sums + row * bundle_tokens() + vector * lanes();
        store(add(load(to), sum), to);
    }
};

/// All rows of a panel, `n` columns, against a bundle of `width` tokens. Lanes without a token add up whatever lies behind the column.
inline void panel_bundle(const float* panel, std::size_t rows, const float* x, std::size_t width, std::size_t n, float* sums) {
    const outer_factor weights{panel, panel_cols, 1};
    if (width > lanes()) {
        outer_rows_times<true>(weights, rows, x, width, n, add_to_sums{sums});
    } else {
        outer_rows_times<false>(weights, rows, x, width, n, add_to_sums{sums});
    }
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
    if (tokens <= plain_few_tokens) return matmul_few<Element>(w, rows, cols, arranged, tokens, bias, y, y_stride);
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
                const std::size_t ahead = c + n < cols ? n : panel_rows * cols - c;
                for (std::size_t i = 0; i < some; ++i)
                    widen(reinterpret_cast<const Element*>(w) + (r + i) * cols + c, n, ahead, panel + i * panel_cols);
                for (std::size_t b = 0; b < count; b += step) {
                    const std::size_t width = count - b < step ? count - b : step;
                    panel_bundle(panel, some, x + b * cols + c * width, width, n, sums + b * some);
                }
            }
            for (std::size_t b = 0; b < count; b += step)
                put_bundle(sums + b * some, some, count - b < step ? count - b : step, bias == nullptr ? nullptr : bias + r, y + b * y_stride + r,
                           y_stride);
        }
    }
}

PHI4FLASH_TARGET_END
