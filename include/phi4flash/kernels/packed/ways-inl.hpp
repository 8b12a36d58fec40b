// Which way of multiplying packed weights runs when: the one place that chooses.
//
//   way        file                    weights become                          runs for so many tokens
//   registers  few-inl.hpp      levels, in registers                    1 and more, up to where another way begins; q8 without AMX: all
//   bundles    bundles-inl.hpp  levels, in strips                       4 bits without VNNI: from 32 with AVX2, from 8 elsewhere
//   vectors    vectors-inl.hpp  bytes, rounded to 1/127, in strips      4 bits from 64 with VNNI
//   tiles      tiles-inl.hpp    the same; of q8 two digits              all from 32 with AMX
//   exact      exact-inl.hpp    f32                                     all, where activations are to stay f32
//
// Plain weights (dense/): matmul_few-inl.hpp up to 16 tokens (AVX-512: 32, AVX2: 8), matmul-inl.hpp from there; bf16 with AMX
// matmul_tiles-inl.hpp from 8.
//
// Where "vectors" begins was measured on a Zen 5 (docs/simd.md); for AMX it is an estimate: to make bytes of a block costs
// what 20 tokens cost in registers.

PHI4FLASH_TARGET_BEGIN

/// Registers for any number.
struct no_other_way {
    static constexpr float weight_rounding = 0.0f;
    static constexpr std::size_t from = SIZE_MAX;
};

/// `Products` multiply in registers; `Many` is the way of those numbers of tokens that it takes.
template <dtype Format, class Products, class Many>
struct packed_ways {
    static constexpr bool one_way = std::is_same_v<Many, no_other_way>;

    static const std::byte* arrange(const float* x, std::size_t x_stride, std::size_t cols, std::size_t begin, std::size_t end, std::size_t tokens,
                                    std::byte* scratch) {
        if constexpr (!one_way) {
            if (tokens >= Many::from) return Many::arrange(x, x_stride, cols, begin, end, tokens, scratch);
        }
        return arrange_codes<Format, Products>(x, x_stride, cols, begin, end, tokens, false, scratch);
    }
    static void matmul(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, std::size_t tokens, const float* bias, float* y,
                       std::size_t y_stride) {
        if constexpr (!one_way) {
            if (tokens >= Many::from) return Many::matmul(w, rows, cols, x, tokens, bias, y, y_stride);
        }
        packed_few<Format, Products>(w, rows, cols, reinterpret_cast<const activation_group*>(x), tokens, bias, y, y_stride);
    }
    static void matvec(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, const float* bias, float* y) {
        packed_few<Format, Products>(w, rows, cols, reinterpret_cast<const activation_group*>(x), 1, bias, y, 0);
    }
};

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

template <dtype Format, class Products, class Many>
inline constexpr linear_kernels packed_kernels{
    .matvec = &packed_ways<Format, Products, Many>::matvec,
    .arrange = &packed_ways<Format, Products, Many>::arrange,
    .matmul = &packed_ways<Format, Products, Many>::matmul,
    .widen = &packed_widen_row<Format>,
    .matmul_exact = &packed_matmul_exact<Format>,
    .weight_rounding = Many::weight_rounding,
    .few_tokens = Many::from - 1,
};

PHI4FLASH_TARGET_END
