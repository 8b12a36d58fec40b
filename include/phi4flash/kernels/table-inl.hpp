// This target's table: the only thing that leaves the region.

PHI4FLASH_TARGET_BEGIN

inline std::size_t lanes_of_target() { return lanes(); }

template <class Element>
inline constexpr linear_kernels plain_kernels{
    .matvec = &matvec<Element>,
    .arrange = &arrange_plain<Element>,
    .matmul = &matmul<Element>,
    .widen = &widen_row<Element>,
    .matmul_exact = nullptr,
    .weight_rounding = 0.0f,
};

template <dtype Format>
inline constexpr linear_kernels packed_kernels{
    .matvec = &packed_matvec<Format>,
    .arrange = &arrange_packed<Format>,
    .matmul = &packed_matmul<Format>,
    .widen = &packed_widen_row<Format>,
    .matmul_exact = &packed_matmul_exact<Format>,
    .weight_rounding = integer_scales && Format != dtype::q8 ? 0x1p-12f : 0.0f,
};

#if PHI4FLASH_BLOCKS_SIDE_BY_SIDE
inline constexpr auto attention_of_bytes = &attention_of_one<kv_int8, byte_products>;

/// Many tokens meet 4-bit weights as bytes.
template <dtype Format, class Products>
constexpr linear_kernels rounded(linear_kernels linear) {
    linear.arrange = &arrange_rounded<Format, Products>;
    linear.matmul = &rounded_matmul<Format, Products>;
    linear.weight_rounding = 1.0f / 127.0f;
    return linear;
}
template <dtype Format>
inline constexpr linear_kernels q4_kernels = rounded<Format, packed_vector_products>(packed_kernels<Format>);
#else
inline constexpr auto attention_of_bytes = &attention<kv_int8>;
template <dtype Format>
inline constexpr linear_kernels q4_kernels = packed_kernels<Format>;
#endif

inline constexpr kernel_table table{
    .name = PHI4FLASH_TARGET_LABEL,
    .lanes = &lanes_of_target,
    .linear = {plain_kernels<float>, plain_kernels<f16>, plain_kernels<bf16>, packed_kernels<dtype::q8>, q4_kernels<dtype::q4>,
               q4_kernels<dtype::q4_dense>},
    .layer_norm = &layer_norm,
    .rms_norm = &rms_norm,
    .accumulate = &accumulate,
    .silu_mul = &silu_mul,
    .softplus = &softplus,
    .softmax = &softmax,
    .convolution = &convolution,
    .scan = &scan,
    .narrow = {&narrow<float>, nullptr, &narrow<bf16>},
    .quantize = &quantize,
    .attention = {&attention<float>, &attention<bf16>, attention_of_bytes},
    .difference_norm = &difference_norm,
    .rotate = &rotate,
    .read = &read_all,
};

#if PHI4FLASH_AMX_TARGET(HWY_TARGET)
template <dtype Format>
constexpr void put_tiles(kernel_table& t) {
    linear_kernels& linear = t.linear[static_cast<std::size_t>(Format)];
    linear = rounded<Format, packed_tile_products>(linear);
}
constexpr kernel_table with_tiles(kernel_table t) {
    t.name = "amx";
    t.attention[static_cast<std::size_t>(kv_format::bf16)] = &attention_of_one<bf16, matrix_products>;
    put_tiles<dtype::q4>(t);
    put_tiles<dtype::q4_dense>(t);
    return t;
}
inline constexpr kernel_table tile_table = with_tiles(table);
#endif

PHI4FLASH_TARGET_END
