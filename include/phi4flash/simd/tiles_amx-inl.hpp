// Matrix tiles of AMX: words of kernels/packed/tiles-inl.hpp, matmul_tiles-inl.hpp and kernels/attention/matrix-inl.hpp.
// Instructions are written out, because compilers want flags for their intrinsics that a header cannot set.
//
//   tile_configuration              while it lives, this thread's tiles are 16 rows of 64 bytes; use(rows): tiles 0 to 5 are fewer, and all
//                                   tiles forget what they held
//   tile_zero<T>()
//   tile_load<T>(p, row_bytes)      rows at p that lie row_bytes apart; without it, one after the other
//   tile_store<T>(p, row_bytes)     the same
//   tile_dot<C, A, B>()             C[m][n] += sum_k A[m][k] B[k / 4][n][k % 4] over 64 signed bytes each; C: 32-bit
//   tile_dot_bf16<C, A, B>()        C[m][n] += sum_k A[m][k] B[k / 2][n][k % 2] over 32 bf16 each; C: f32
//   take_bf16(x)                    the bf16 nearest to x, as a float, of which x keeps what is left; finite numbers only
//   store_bf16(a, b, p)             32 of them, in order
//   store_transposed(p, row_bytes, out)   16 rows of 16 32-bit numbers, which lie row_bytes apart: their columns, one after the other

PHI4FLASH_TARGET_BEGIN

class tile_configuration {
public:
    tile_configuration() { configure(tile_rows); }
    ~tile_configuration() { asm volatile("tilerelease"); }
    tile_configuration(const tile_configuration&) = delete;
    tile_configuration& operator=(const tile_configuration&) = delete;

    void use(std::size_t rows) {
        if (rows != rows_) configure(rows);
    }

private:
    void configure(std::size_t rows) {
        struct alignas(64) {
            std::uint8_t palette = 1;
            std::uint8_t start_row = 0;
            std::uint8_t reserved[14] = {};
            std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } shape;
        static_assert(sizeof shape == 64);
        for (std::size_t i = 0; i < 6; ++i) shape.rows[i] = static_cast<std::uint8_t>(rows);
        asm volatile("ldtilecfg %0" : : "m"(shape));
        rows_ = rows;
    }

    std::size_t rows_;
};

template <int Tile>
PHI4FLASH_VECTOR_INLINE void tile_zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(Tile));
}
template <int Tile>
PHI4FLASH_VECTOR_INLINE void tile_load(const void* p, std::size_t row_bytes = tile_cols) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(row_bytes), "i"(Tile) : "memory");
}
template <int Tile>
PHI4FLASH_VECTOR_INLINE void tile_store(void* p, std::size_t row_bytes = tile_cols) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(row_bytes), "i"(Tile) : "memory");
}
template <int C, int A, int B>
PHI4FLASH_VECTOR_INLINE void tile_dot() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}

template <int C, int A, int B>
PHI4FLASH_VECTOR_INLINE void tile_dot_bf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}

PHI4FLASH_VECTOR_INLINE f32_vector take_bf16(f32_vector& x) {
    const u32_tag du;
    const auto bits = hn::Add(hn::BitCast(du, x), hn::Set(du, 0x8000u));
    const f32_vector part = hn::BitCast(f32_tag(), hn::And(bits, hn::Set(du, 0xffff0000u)));
    x = sub(x, part);
    return part;
}
PHI4FLASH_VECTOR_INLINE void store_bf16(f32_vector a, f32_vector b, bf16* p) {
    const hn::Repartition<std::uint16_t, f32_tag> d16;
    hn::StoreU(hn::ConcatOdd(d16, hn::BitCast(d16, b), hn::BitCast(d16, a)), d16, reinterpret_cast<std::uint16_t*>(p));
}

/// Four rows, `step` bytes apart, by the quarters in which their columns lie.
PHI4FLASH_VECTOR_INLINE void load_four_rows(const std::byte* p, std::size_t step, tokens_i32& a, tokens_i32& b, tokens_i32& c, tokens_i32& d) {
    a = load_integers(reinterpret_cast<const std::int32_t*>(p));
    b = load_integers(reinterpret_cast<const std::int32_t*>(p + step));
    c = load_integers(reinterpret_cast<const std::int32_t*>(p + 2 * step));
    d = load_integers(reinterpret_cast<const std::int32_t*>(p + 3 * step));
    quarters_across(a, b, c, d);
}
PHI4FLASH_VECTOR_INLINE void store_four_columns(tokens_i32 a, tokens_i32 b, tokens_i32 c, tokens_i32 d, std::byte* out) {
    fours_across(a, b, c, d);
    store_integers(a, reinterpret_cast<std::int32_t*>(out));
    store_integers(b, reinterpret_cast<std::int32_t*>(out + tile_cols));
    store_integers(c, reinterpret_cast<std::int32_t*>(out + 2 * tile_cols));
    store_integers(d, reinterpret_cast<std::int32_t*>(out + 3 * tile_cols));
}
PHI4FLASH_VECTOR_INLINE void store_transposed(const std::byte* p, std::size_t row_bytes, std::byte* out) {
    tokens_i32 a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3;
    load_four_rows(p, 4 * row_bytes, a0, b0, c0, d0);
    load_four_rows(p + row_bytes, 4 * row_bytes, a1, b1, c1, d1);
    load_four_rows(p + 2 * row_bytes, 4 * row_bytes, a2, b2, c2, d2);
    load_four_rows(p + 3 * row_bytes, 4 * row_bytes, a3, b3, c3, d3);
    store_four_columns(a0, a1, a2, a3, out);
    store_four_columns(b0, b1, b2, b3, out + 4 * tile_cols);
    store_four_columns(c0, c1, c2, c3, out + 8 * tile_cols);
    store_four_columns(d0, d1, d2, d3, out + 12 * tile_cols);
}

PHI4FLASH_TARGET_END
