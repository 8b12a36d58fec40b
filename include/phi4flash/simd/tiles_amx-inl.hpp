// Matrix tiles of AMX, and the 64-byte vectors that fill them: the words of kernels/packed_tiles-inl.hpp and attention_matrix-inl.hpp.
// Instructions are written out, because compilers want flags for their intrinsics that a header cannot set.
//
//   tile_configuration              while it lives, this thread's tiles are 16 rows of 64 bytes
//   tile_zero<T>()
//   tile_load<T>(p, row_bytes)      rows at p that lie row_bytes apart; without it, one after the other
//   tile_store<T>(p)                one after the other
//   tile_dot<C, A, B>()             C[m][n] += sum_k A[m][k] B[k / 4][n][k % 4] over 64 signed bytes each; C: 32-bit
//   tile_dot_bf16<C, A, B>()        C[m][n] += sum_k A[m][k] B[k / 2][n][k % 2] over 32 bf16 each; C: f32
//   tile_load_integers(p)           16 of such a sum as floats
//   tile_store_integers(v, p)       16 integral floats within [-128, 127] as bytes
//   tile_stream(v, p)               16 floats to a line of memory, past the caches; tile_streamed(): before another thread is told of them
//   tile_scales(a, b)               the scales of 16 rows: eight each
//   wide_codes load_wide(a, b)      32 bytes each;  low_wide high_wide: their nibbles
//   load_wide_levels(p)             16 signed bytes, to be looked up
//   multipliers(m, first, second)   of 16 rows: integral floats, magnitudes below 2^15
//   wide_levels(levels, codes, first, second)   round(levels[code] * multiplier / 128) as signed bytes, four for each row
//   store_wide(v, p)

PHI4FLASH_TARGET_BEGIN

inline constexpr std::size_t tile_rows = 16;
inline constexpr std::size_t tile_cols = 64;
inline constexpr std::size_t tile_bytes = tile_rows * tile_cols;

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

using wide_u8_tag = hn::Full512<std::uint8_t>;
using wide_i8_tag = hn::Full512<std::int8_t>;
using wide_i16_tag = hn::Full512<std::int16_t>;
using wide_codes = hn::Vec<wide_u8_tag>;
using wide_words = hn::Vec<wide_i16_tag>;

PHI4FLASH_VECTOR_INLINE f32_vector tile_load_integers(const std::int32_t* p) { return hn::ConvertTo(f32_tag(), hn::Load(i32_tag(), p)); }
PHI4FLASH_VECTOR_INLINE void tile_store_integers(f32_vector v, std::int8_t* p) {
    const hn::Rebind<std::int8_t, f32_tag> bytes;
    hn::StoreU(hn::DemoteTo(bytes, hn::NearestInt(v)), bytes, p);
}
PHI4FLASH_VECTOR_INLINE void tile_stream(f32_vector v, float* p) { hn::Stream(v, f32_tag(), p); }
PHI4FLASH_VECTOR_INLINE void tile_streamed() { asm volatile("sfence" : : : "memory"); }
PHI4FLASH_VECTOR_INLINE f32_vector tile_scales(const f16* a, const f16* b) {
    const hn::Rebind<hwy::float16_t, f32_tag> sixteen;
    const hn::Half<decltype(sixteen)> eight;
    return hn::PromoteTo(f32_tag(), hn::Combine(sixteen, hn::LoadU(eight, reinterpret_cast<const hwy::float16_t*>(b)),
                                                hn::LoadU(eight, reinterpret_cast<const hwy::float16_t*>(a))));
}
PHI4FLASH_VECTOR_INLINE wide_codes load_wide(const std::uint8_t* a, const std::uint8_t* b) {
    const hn::Half<wide_u8_tag> half;
    return hn::Combine(wide_u8_tag(), hn::LoadU(half, b), hn::LoadU(half, a));
}
PHI4FLASH_VECTOR_INLINE wide_codes low_wide(wide_codes v) { return hn::And(v, hn::Set(wide_u8_tag(), std::uint8_t{15})); }
PHI4FLASH_VECTOR_INLINE wide_codes high_wide(wide_codes v) {
    return low_wide(hn::BitCast(wide_u8_tag(), hn::ShiftRight<4>(hn::BitCast(wide_i16_tag(), v))));
}

PHI4FLASH_VECTOR_INLINE void multipliers(f32_vector m, wide_words& first, wide_words& second) {
    // Within every 16 bytes: rows 0 and 1, then rows 2 and 3, each four times, as the bytes lie once they are widened.
    alignas(16) static constexpr std::uint8_t low[16] = {0, 1, 0, 1, 0, 1, 0, 1, 4, 5, 4, 5, 4, 5, 4, 5};
    alignas(16) static constexpr std::uint8_t high[16] = {8, 9, 8, 9, 8, 9, 8, 9, 12, 13, 12, 13, 12, 13, 12, 13};
    const auto bytes = hn::BitCast(wide_u8_tag(), hn::NearestInt(m));
    first = hn::BitCast(wide_i16_tag(), hn::TableLookupBytes(bytes, hn::LoadDup128(wide_u8_tag(), low)));
    second = hn::BitCast(wide_i16_tag(), hn::TableLookupBytes(bytes, hn::LoadDup128(wide_u8_tag(), high)));
}
PHI4FLASH_VECTOR_INLINE wide_codes load_wide_levels(const std::int8_t* sixteen) {
    return hn::LoadDup128(wide_u8_tag(), reinterpret_cast<const std::uint8_t*>(sixteen));
}
PHI4FLASH_VECTOR_INLINE auto wide_levels(wide_codes levels, wide_codes codes, wide_words first, wide_words second) {
    const auto found = hn::TableLookupBytes(levels, codes);
    const auto none = hn::Zero(wide_u8_tag());
    // level * 256 * multiplier / 2^15, rounded
    const auto low = hn::MulFixedPoint15(hn::BitCast(wide_i16_tag(), hn::InterleaveLower(wide_u8_tag(), none, found)), first);
    const auto high = hn::MulFixedPoint15(hn::BitCast(wide_i16_tag(), hn::InterleaveUpper(wide_u8_tag(), none, found)), second);
    return hn::ReorderDemote2To(wide_i8_tag(), low, high);  // into the order the bytes had: every 16 by themselves
}
PHI4FLASH_VECTOR_INLINE void store_wide(hn::Vec<wide_i8_tag> v, std::int8_t* p) { hn::Store(v, wide_i8_tag(), p); }

PHI4FLASH_TARGET_END
