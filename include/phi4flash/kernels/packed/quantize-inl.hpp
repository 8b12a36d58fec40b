// Quantization in vectors: the bytes of core/packing.hpp, for eight rows at once.
//
// A lane is one group of one row, so that sums over its 32 columns are made in the same order as there, and every rounding is the same:
// products that are added are rounded first (x * level is exact for x from bf16 or f16, and a fused product plus zero rounds like
// a product), and codes come from comparing, which needs no sum at all.

PHI4FLASH_TARGET_BEGIN

/// The groups of eight rows that share units of scales.   Shape: x [32, places], place 8 g + r is row r of group g.
inline constexpr std::size_t pack_places = packed_rows * scale_groups;
struct pack_tile {
    float x[packed_cols][pack_places];
    float most[pack_places];  ///< of each, the number of largest magnitude
    std::size_t groups;
    [[nodiscard]] std::size_t places() const { return packed_rows * groups; }
};

inline void fill_tile(const float* rows, std::size_t cols, std::size_t groups, pack_tile& tile) {
    tile.groups = groups;
    if (groups != scale_groups) std::memset(tile.x, 0, sizeof tile.x);  // lanes beyond the last place compute something
    for (std::size_t g = 0; g < groups; ++g) {
        for (std::size_t r = 0; r < packed_rows; ++r) {
            const float* const from = rows + r * cols + g * packed_cols;
            for (std::size_t c = 0; c < packed_cols; ++c) tile.x[c][packed_rows * g + r] = from[c];
        }
    }
    for (std::size_t p = 0; p < pack_places; ++p) tile.most[p] = 0.0f;
    for (std::size_t c = 0; c < packed_cols; ++c)
        for (std::size_t p = 0; p < pack_places; ++p) tile.most[p] = std::fabs(tile.x[c][p]) > std::fabs(tile.most[p]) ? tile.x[c][p] : tile.most[p];
}

/// The entry of `table` that belongs to v: that of the last begin which is at most v.
template <const q4_codebook& Book>
PHI4FLASH_VECTOR_INLINE f32_vector choose(f32_vector v, const std::array<float, 16>& table) {
    constexpr const auto& begins = phi4flash::detail::code_begins<Book>;
    f32_vector chosen = set(table[0]);
    for (std::size_t c = 1; c < 16; ++c) chosen = where_at_least(v, set(begins[c]), set(table[c]), chosen);
    return chosen;
}

/// For each place, what the inverse scale gives: xl = sum x level, ll = sum level^2.
template <const q4_codebook& Book>
inline void try_scales(const pack_tile& tile, const float* inverse, float* xl, float* ll) {
    const std::size_t lane_count = lanes();
    for (std::size_t p = 0; p < tile.places(); p += lane_count) {
        const f32_vector scale = load(inverse + p);
        f32_vector products = zero();
        f32_vector squares = zero();
        for (std::size_t c = 0; c < packed_cols; ++c) {
            const f32_vector x = load(tile.x[c] + p);
            const f32_vector level = choose<Book>(mul(x, scale), phi4flash::detail::levels_of<Book>);
            products = add(products, mul_add(x, level, zero()));
            squares = mul_add(level, level, squares);
        }
        store(products, xl + p);
        store(squares, ll + p);
    }
}

/// detail::fit_scale for every place.
template <const q4_codebook& Book>
inline void fit_scales(const pack_tile& tile, float* best_scale) {
    constexpr const auto& levels = phi4flash::detail::levels_of<Book>;
    float best_gain[pack_places];
    float inverse[pack_places];
    float xl[pack_places] = {};
    float ll[pack_places] = {};
    for (std::size_t p = 0; p < pack_places; ++p) best_gain[p] = -1.0f, best_scale[p] = 0.0f;
    for (const float end : {levels.front(), levels.back()}) {
        for (const float trial : phi4flash::detail::scale_trials) {
            for (std::size_t p = 0; p < pack_places; ++p) inverse[p] = end / (tile.most[p] * trial);
            try_scales<Book>(tile, inverse, xl, ll);
            for (std::size_t p = 0; p < pack_places; ++p) {
                const bool any = ll[p] > 0.0f;
                const float gain = any ? xl[p] * xl[p] / ll[p] : 0.0f;
                const float scale = any ? xl[p] / ll[p] : 0.0f;
                const bool better = gain > best_gain[p];
                best_gain[p] = better ? gain : best_gain[p];
                best_scale[p] = better ? scale : best_scale[p];
            }
        }
    }
    for (std::size_t p = 0; p < pack_places; ++p) best_scale[p] = std::fabs(tile.most[p]) > 0.0f ? best_scale[p] : 0.0f;
}

template <const q4_codebook& Book>
inline void store_codes(const pack_tile& tile, q4_block* blocks) {
    constexpr const auto& codes = phi4flash::detail::code_numbers;
    float inverse[pack_places] = {};
    for (std::size_t p = 0; p < tile.places(); ++p) {
        const float scale = to_f32(blocks[p / packed_rows].scale[p % packed_rows]);
        inverse[p] = scale != 0.0f ? 1.0f / scale : 0.0f;
    }
    const std::size_t lane_count = lanes();
    for (std::size_t p = 0; p < tile.places(); p += lane_count) {
        const f32_vector scale = load(inverse + p);
        for (std::size_t c = 0; c < packed_cols / 2; ++c) {
            const f32_vector low = choose<Book>(mul(load(tile.x[c] + p), scale), codes);
            const f32_vector high = choose<Book>(mul(load(tile.x[c + packed_cols / 2] + p), scale), codes);
            float both[max_lanes];
            store(mul_add(high, set(16.0f), low), both);
            for (std::size_t i = 0; i < lane_count && p + i < tile.places(); ++i)
                blocks[(p + i) / packed_rows].code[c / 4][4 * ((p + i) % packed_rows) + c % 4] = static_cast<std::uint8_t>(both[i]);
        }
    }
}

/// Eight rows as packed blocks.   Shape: rows [8, cols], cols a multiple of 32.
template <const q4_codebook& Book>
inline void pack_q4(const float* rows, std::size_t cols, std::byte* out) {
    auto* const blocks = reinterpret_cast<q4_block*>(out);
    const std::size_t groups = cols / packed_cols;
    pack_tile tile;
    float scales[pack_places];
    for (std::size_t g = 0; g < groups; g += scale_groups) {
        fill_tile(rows + g * packed_cols, cols, groups - g < scale_groups ? groups - g : scale_groups, tile);
        fit_scales<Book>(tile, scales);
        for (std::size_t r = 0; r < packed_rows; ++r) phi4flash::detail::set_scales(blocks + g, tile.groups, r, scales + r, packed_rows);
        store_codes<Book>(tile, blocks + g);
    }
}

/// The same for 8 bits, whose groups stand alone: along the columns.
inline void pack_q8(const float* rows, std::size_t cols, std::byte* out) {
    auto* block = reinterpret_cast<q8_block*>(out);
    const std::size_t lane_count = lanes();
    const f32_vector largest = set(127.0f);
    for (std::size_t begin = 0; begin < cols; begin += packed_cols, ++block) {
        for (std::size_t r = 0; r < packed_rows; ++r) {
            const float* const x = rows + r * cols + begin;
            f32_vector most = abs_of(load(x));
            for (std::size_t c = lane_count; c < packed_cols; c += lane_count) most = max_of(most, abs_of(load(x + c)));
            block->scale[r] = to_f16(reduce_max(most) / 127.0f);
            const float scale = to_f32(block->scale[r]);
            const f32_vector inverse = set(scale != 0.0f ? 1.0f / scale : 0.0f);
            for (std::size_t c = 0; c < packed_cols; c += lane_count) {
                const f32_vector q = round_nearest(mul(load(x + c), inverse));
                store_integers(max_of(min_of(q, largest), set(-127.0f)), &block->code[c / 4][4 * r + c % 4], 32);
            }
        }
    }
}

PHI4FLASH_TARGET_END
