// Products of plain weights with one token or a few: columns side by side in a vector, four rows of weights in turn. Weights go by once.
//
// Every sum is made in the same order for any number of tokens, so a token has the same bits alone and among others.

PHI4FLASH_TARGET_BEGIN

/// More tokens than this are cheaper side by side (matmul-inl.hpp), and at whole bundles not by much: 20 tokens took 1.7 times as long there with
/// AVX-512, 32 a fourteenth more. With 16 registers weights are widened anew for every two tokens, and with AVX2 a bundle has 16 tokens: two
/// vectors of them share what a weight's repetition costs.
#if PHI4FLASH_SIMD_HIGHWAY && HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
inline constexpr std::size_t plain_few_tokens = many_registers ? 32 : 8;
#else
inline constexpr std::size_t plain_few_tokens = 16;
#endif

/// Rows that are read in turn, and their columns that all tokens meet before further ones: 4 to 8 KiB, which stay in the first-level cache.
inline constexpr std::size_t few_plain_rows = 4;
inline constexpr std::size_t few_plain_cols = 512;

/// Columns of a step.
PHI4FLASH_VECTOR_INLINE std::size_t step_cols() { return 2 * lanes(); }
/// Floats between tokens: whole steps, zeros at the end.
PHI4FLASH_VECTOR_INLINE std::size_t few_stride(std::size_t cols) { return (cols + step_cols() - 1) / step_cols() * step_cols(); }

/// The columns of a step as two vectors: of bf16, those at even places and those at odd ones.
template <class Element>
PHI4FLASH_VECTOR_INLINE void load_step(const Element* p, f32_vector& first, f32_vector& second) {
    if constexpr (dtype_of<Element> == dtype::bf16) {
        load_even_odd(p, first, second);
    } else {
        first = load(p), second = load(p + lanes());
    }
}

/// Tokens [begin, end) in the order of load_step, one after the other.
template <class Element>
inline void arrange_few(const float* PHI4FLASH_RESTRICT x, std::size_t x_stride, std::size_t cols, std::size_t begin, std::size_t end,
                        float* PHI4FLASH_RESTRICT out) {
    const std::size_t half = lanes();
    const std::size_t stride = few_stride(cols);
    for (std::size_t t = begin; t < end; ++t) {
        const float* from = x + t * x_stride;
        float* to = out + t * stride;
        if constexpr (dtype_of<Element> == dtype::bf16) {
            for (std::size_t i = 0; i < cols; i += 2 * half) {
                for (std::size_t j = 0; j < half; ++j) {
                    to[i + j] = i + 2 * j < cols ? from[i + 2 * j] : 0.0f;
                    to[i + half + j] = i + 2 * j + 1 < cols ? from[i + 2 * j + 1] : 0.0f;
                }
            }
        } else {
            std::memcpy(to, from, cols * sizeof(float));
            for (std::size_t i = cols; i < stride; ++i) to[i] = 0.0f;
        }
    }
}

/// Four rows of weights; the last again where there are fewer.
template <class Element>
struct four_weight_rows {
    const Element* w0;
    const Element* w1;
    const Element* w2;
    const Element* w3;
};

template <std::size_t>
using f32_in = f32_vector&;

/// A step of four rows against tokens T, whose columns of it are `first` and `second`.
template <class Element, std::size_t... T>
PHI4FLASH_VECTOR_INLINE void add_step(const four_weight_rows<Element>& w, std::size_t at, f32_in<T>... a, f32_in<T>... b, f32_in<T>... c,
                                      f32_in<T>... d, f32_of<T>... first, f32_of<T>... second) {
    f32_vector one;
    f32_vector two;
    load_step(w.w0 + at, one, two);
    ((a = mul_add(two, second, mul_add(one, first, a))), ...);
    load_step(w.w1 + at, one, two);
    ((b = mul_add(two, second, mul_add(one, first, b))), ...);
    load_step(w.w2 + at, one, two);
    ((c = mul_add(two, second, mul_add(one, first, c))), ...);
    load_step(w.w3 + at, one, two);
    ((d = mul_add(two, second, mul_add(one, first, d))), ...);
}

/// `n` columns, whole steps, of four rows against tokens T, x_stride apart. Adds to sums [T][four][max_lanes].
template <class Element, std::size_t... T>
PHI4FLASH_VECTOR_INLINE void add_columns(const four_weight_rows<Element>& w, const float* x, std::size_t x_stride, std::size_t n, float* sums,
                                         f32_of<T>... a, f32_of<T>... b, f32_of<T>... c, f32_of<T>... d) {
    const std::size_t half = lanes();
    for (std::size_t i = 0; i < n; i += 2 * half, x += 2 * half) {
        prefetch_ahead<plain_asks_far>(w.w0 + i, 2 * half * sizeof(Element));
        prefetch_ahead<plain_asks_far>(w.w1 + i, 2 * half * sizeof(Element));
        prefetch_ahead<plain_asks_far>(w.w2 + i, 2 * half * sizeof(Element));
        prefetch_ahead<plain_asks_far>(w.w3 + i, 2 * half * sizeof(Element));
        add_step<Element, T...>(w, i, a..., b..., c..., d..., load(x + T * x_stride)..., load(x + T * x_stride + half)...);
    }
    (store(a, sums + 4 * T * max_lanes), ...);
    (store(b, sums + (4 * T + 1) * max_lanes), ...);
    (store(c, sums + (4 * T + 2) * max_lanes), ...);
    (store(d, sums + (4 * T + 3) * max_lanes), ...);
}
template <class Element, std::size_t... T>
PHI4FLASH_VECTOR_INLINE void add_columns(std::index_sequence<T...>, const four_weight_rows<Element>& w, const float* x, std::size_t x_stride,
                                         std::size_t n, float* sums) {
    add_columns<Element, T...>(w, x, x_stride, n, sums, load(sums + 4 * T * max_lanes)..., load(sums + (4 * T + 1) * max_lanes)...,
                               load(sums + (4 * T + 2) * max_lanes)..., load(sums + (4 * T + 3) * max_lanes)...);
}

/// The same for any number of tokens, as many at a time as have their sums in registers.
template <class Element>
inline void add_columns_of(const four_weight_rows<Element>& w, const float* x, std::size_t x_stride, std::size_t tokens, std::size_t n, float* sums) {
    constexpr std::size_t most = many_registers ? 4 : 2;
    while (tokens != 0) {
        const std::size_t count = tokens < most ? tokens : most;
        if (count == most) {
            add_columns(std::make_index_sequence<most>(), w, x, x_stride, n, sums);
        } else if (count == 3) {
            add_columns(std::make_index_sequence<3>(), w, x, x_stride, n, sums);
        } else if (count == 2) {
            add_columns(std::make_index_sequence<2>(), w, x, x_stride, n, sums);
        } else {
            add_columns(std::make_index_sequence<1>(), w, x, x_stride, n, sums);
        }
        tokens -= count, x += count * x_stride, sums += count * 4 * max_lanes;
    }
}

/// y[t, rows of w] of up to plain_few_tokens tokens; row i of the four goes to y + i * apart.
template <class Element>
inline void few_rows_times(const four_weight_rows<Element>& w, std::size_t cols, const float* x, std::size_t tokens, const float* bias,
                           std::size_t rows, std::size_t apart, float* y, std::size_t y_stride) {
    alignas(64) float sums[plain_few_tokens * 4 * max_lanes];
    const std::size_t stride = few_stride(cols);
    const std::size_t whole = cols / step_cols() * step_cols();
    for (std::size_t i = 0; i < 4 * tokens; ++i) store(zero(), sums + i * max_lanes);
    for (std::size_t c = 0; c < whole; c += few_plain_cols) {
        const std::size_t n = whole - c < few_plain_cols ? whole - c : few_plain_cols;
        add_columns_of<Element>({w.w0 + c, w.w1 + c, w.w2 + c, w.w3 + c}, x + c, stride, tokens, n, sums);
    }
    if (whole < cols) {  // a ragged end: what lies behind it belongs to somebody else
        Element last[4][2 * max_lanes] = {};
        const Element* const row[4] = {w.w0, w.w1, w.w2, w.w3};
        for (std::size_t r = 0; r < 4; ++r) std::memcpy(last[r], row[r] + whole, (cols - whole) * sizeof(Element));
        add_columns_of<Element>({last[0], last[1], last[2], last[3]}, x + whole, stride, tokens, step_cols(), sums);
    }
    for (std::size_t t = 0; t < tokens; ++t, y += y_stride) {
        const float* const sum = sums + 4 * t * max_lanes;
        float four[4];
        store_sums(load(sum), load(sum + max_lanes), load(sum + 2 * max_lanes), load(sum + 3 * max_lanes), four);
        for (std::size_t r = 0; r < rows; ++r) y[r * apart] = four[r] + (bias == nullptr ? 0.0f : bias[r * apart]);
    }
}

/// The rows in row_streams parts, each of them read from its beginning to its end; or in order.
template <class Element>
inline void matmul_few(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* arranged, std::size_t tokens, const float* bias,
                       float* y, std::size_t y_stride) {
    static_assert(row_streams == 1 || row_streams == few_plain_rows);
    const auto* const x = reinterpret_cast<const float*>(arranged);
    const auto* const first = reinterpret_cast<const Element*>(w);
    const std::size_t part = rows / few_plain_rows;
    const std::size_t apart = row_streams == 1 ? 1 : part;
    const auto put = [&](std::size_t r, std::size_t count, std::size_t gap) {
        const auto row = [&](std::size_t i) { return first + (r + (i < count ? i : count - 1) * gap) * cols; };
        few_rows_times<Element>({row(0), row(1), row(2), row(3)}, cols, x, tokens, bias == nullptr ? nullptr : bias + r, count, gap, y + r, y_stride);
    };
    for (std::size_t i = 0; i < part; ++i) put(row_streams == 1 ? i * few_plain_rows : i, few_plain_rows, apart);
    if (part * few_plain_rows < rows) put(part * few_plain_rows, rows - part * few_plain_rows, 1);
}

template <class Element>
inline void matvec(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, const float* bias, float* y) {
    matmul_few<Element>(w, rows, cols, x, 1, bias, y, 0);
}

PHI4FLASH_TARGET_END
