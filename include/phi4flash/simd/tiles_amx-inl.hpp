// Matrix tiles of AMX: words of kernels/packed_tiles-inl.hpp and attention_matrix-inl.hpp.
// Instructions are written out, because compilers want flags for their intrinsics that a header cannot set.
//
//   tile_configuration              while it lives, this thread's tiles are 16 rows of 64 bytes
//   tile_zero<T>()
//   tile_load<T>(p, row_bytes)      rows at p that lie row_bytes apart; without it, one after the other
//   tile_store<T>(p)                one after the other
//   tile_dot<C, A, B>()             C[m][n] += sum_k A[m][k] B[k / 4][n][k % 4] over 64 signed bytes each; C: 32-bit
//   tile_dot_bf16<C, A, B>()        C[m][n] += sum_k A[m][k] B[k / 2][n][k % 2] over 32 bf16 each; C: f32
//   tile_load_integers(p)           16 of such a sum as floats

PHI4FLASH_TARGET_BEGIN

class tile_configuration {
public:
    tile_configuration() {
        struct alignas(64) {
            std::uint8_t palette = 1;
            std::uint8_t start_row = 0;
            std::uint8_t reserved[14] = {};
            std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } const shape;
        static_assert(sizeof shape == 64);
        asm volatile("ldtilecfg %0" : : "m"(shape));
    }
    ~tile_configuration() { asm volatile("tilerelease"); }
    tile_configuration(const tile_configuration&) = delete;
    tile_configuration& operator=(const tile_configuration&) = delete;
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
PHI4FLASH_VECTOR_INLINE void tile_store(void* p) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(tile_cols), "i"(Tile) : "memory");
}
template <int C, int A, int B>
PHI4FLASH_VECTOR_INLINE void tile_dot() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}

template <int C, int A, int B>
PHI4FLASH_VECTOR_INLINE void tile_dot_bf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}

PHI4FLASH_VECTOR_INLINE f32_vector tile_load_integers(const std::int32_t* p) { return hn::ConvertTo(f32_tag(), hn::Load(i32_tag(), p)); }

PHI4FLASH_TARGET_END
