// A tile of a product of matrices in registers: numbers of one factor, one by one, times vectors of the other.

PHI4FLASH_TARGET_BEGIN

// Vectors cannot stand in arrays, so what several rows need of them are packs of parameters: one for each row R. Whoever calls a function
// with more than one such pack names R: clang before 19 cannot deduce it ("deduced packs of different lengths").
template <std::size_t>
using f32_of = f32_vector;

/// Whether there are 32 registers of 64 bytes: AVX-512.
#if PHI4FLASH_SIMD_HIGHWAY
inline constexpr bool many_registers = HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3;
#else
inline constexpr bool many_registers = false;
#endif

/// Rows of a tile that is two vectors wide: what 16 registers hold with the two vectors and a number, or half of 32.
inline constexpr std::size_t outer_rows = many_registers ? 8 : 6;

/// How many steps ahead columns are asked for: they come from the second-level cache, too late without (5 % of a product on Emerald Rapids).
inline constexpr std::size_t outer_ahead = 8;

/// One factor, by rows: a(r, k) lies at data[r * row + k * step].
struct outer_factor {
    const float* data;
    std::size_t row;
    std::size_t step;
};

/// sum_k a(r, k) x[k * x_step ...] for rows R and one vector of x, each sum in the order of k; goes to put(r, 0, sum).
template <std::size_t... R, class Put>
PHI4FLASH_VECTOR_INLINE void outer_tile_one(outer_factor a, const float* PHI4FLASH_RESTRICT x, std::size_t x_step, std::size_t n, std::size_t first,
                                            const Put& put, f32_of<R>... s) {
    const float* PHI4FLASH_RESTRICT from = a.data + first * a.row;
    for (std::size_t k = 0; k < n; ++k, from += a.step, x += x_step) {
        const f32_vector column = load(x);
        ((s = mul_add(set(from[R * a.row]), column, s)), ...);
    }
    (put(first + R, 0, s), ...);
}

PHI4FLASH_VECTOR_INLINE void add_outer(f32_vector w, f32_vector x, f32_vector y, f32_vector& s, f32_vector& t) {
    s = mul_add(w, x, s);
    t = mul_add(w, y, t);
}

/// The same for two vectors of x: put(r, 0, sum) and put(r, 1, sum).
template <std::size_t... R, class Put>
PHI4FLASH_VECTOR_INLINE void outer_tile_two(outer_factor a, const float* PHI4FLASH_RESTRICT x, std::size_t x_step, std::size_t n, std::size_t first,
                                            const Put& put, f32_of<R>... s, f32_of<R>... t) {
    const std::size_t half = lanes();
    const float* PHI4FLASH_RESTRICT from = a.data + first * a.row;
    for (std::size_t k = 0; k < n; ++k, from += a.step, x += x_step) {
        for (std::size_t i = 0; i < 2 * half; i += 64 / sizeof(float)) prefetch(x + outer_ahead * x_step + i);
        const f32_vector one = load(x);
        const f32_vector two = load(x + half);
        (add_outer(set(from[R * a.row]), one, two, s, t), ...);
    }
    (put(first + R, 0, s), ...);
    (put(first + R, 1, t), ...);
}

template <bool Two, class Put, std::size_t... R>
PHI4FLASH_VECTOR_INLINE void outer_tile(std::index_sequence<R...>, outer_factor a, const float* x, std::size_t x_step, std::size_t n,
                                        std::size_t first, const Put& put) {
    if constexpr (Two) {
        outer_tile_two<R...>(a, x, x_step, n, first, put, f32_of<R>(zero())..., f32_of<R>(zero())...);
    } else {
        outer_tile_one<R...>(a, x, x_step, n, first, put, f32_of<R>(zero())...);
    }
}

/// All `rows` of `a` times one vector of x, or two: put(row, vector, sum) for each. A sum does not depend on the tile it is made in.
template <bool Two, class Put>
PHI4FLASH_VECTOR_INLINE void outer_rows_times(outer_factor a, std::size_t rows, const float* x, std::size_t x_step, std::size_t n, const Put& put) {
    constexpr std::size_t most = Two ? outer_rows : 2 * outer_rows;
    std::size_t r = 0;
    for (; r + most <= rows; r += most) outer_tile<Two>(std::make_index_sequence<most>(), a, x, x_step, n, r, put);
    for (; r + 4 <= rows; r += 4) outer_tile<Two>(std::make_index_sequence<4>(), a, x, x_step, n, r, put);
    for (; r < rows; ++r) outer_tile<Two>(std::make_index_sequence<1>(), a, x, x_step, n, r, put);
}

PHI4FLASH_TARGET_END
