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
#else
inline constexpr auto attention_of_bytes = &attention<kv_int8>;
#endif

#if PHI4FLASH_ROUNDED_BYTES
/// Many tokens meet 4-bit weights as bytes.
template <dtype Format, class Products>
constexpr void round_weights(kernel_table& t) {
    linear_kernels& linear = t.linear[static_cast<std::size_t>(Format)];
    linear.arrange = &arrange_rounded<Format, Products>;
    linear.matmul = &rounded_matmul<Format, Products>;
    linear.weight_rounding = Products::digits == 1 ? 1.0f / 127.0f : 0x1p-14f;
}
template <class Products>
constexpr kernel_table with_rounded_weights(kernel_table t, const char* name) {
    t.name = name;
    round_weights<dtype::q4, Products>(t);
    round_weights<dtype::q4_dense, Products>(t);
    return t;
}
#endif

PHI4FLASH_OWN_DATA inline constexpr kernel_table own_table{
    .name = PHI4FLASH_TARGET_LABEL,
    .lanes = &lanes_of_target,
    .linear = {plain_kernels<float>, plain_kernels<f16>, plain_kernels<bf16>, packed_kernels<dtype::q8>, packed_kernels<dtype::q4>,
               packed_kernels<dtype::q4_dense>},
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
    .pack = {nullptr, nullptr, nullptr, &pack_q8, &pack_q4<q4_uniform>, &pack_q4<q4_dense>},
    .attention = {&attention<float>, &attention<bf16>, attention_of_bytes},
    .difference_norm = &difference_norm,
    .rotate = &rotate,
    .choosing = {&rank_logits, &highest_rank, &count_at_least, &weigh_ranks, &sum_at_least},
    .read = &read_all,
};

#if PHI4FLASH_BLOCKS_SIDE_BY_SIDE
PHI4FLASH_OWN_DATA inline constexpr kernel_table table = with_rounded_weights<packed_vector_products>(own_table, own_table.name);
#else
PHI4FLASH_OWN_DATA inline constexpr kernel_table table = own_table;
#endif

#if PHI4FLASH_VNNI_TARGET(HWY_TARGET)
PHI4FLASH_OWN_DATA inline constexpr kernel_table vnni_table = with_rounded_weights<packed_vector_products>(table, PHI4FLASH_TARGET_LABEL "_vnni");
#endif

#if PHI4FLASH_AMX_TARGET(HWY_TARGET)
constexpr kernel_table with_tiles(kernel_table t) {
    round_weights<dtype::q8, packed_digit_products>(t);
    linear_kernels& linear = t.linear[static_cast<std::size_t>(dtype::bf16)];
    linear.arrange = &arrange_parts;
    linear.matmul = &matmul_on_tiles;
    t.attention[static_cast<std::size_t>(kv_format::bf16)] = &attention_of_one<bf16, matrix_products>;
    return t;
}
PHI4FLASH_OWN_DATA inline constexpr kernel_table tile_table = with_tiles(with_rounded_weights<packed_tile_products>(table, "amx"));
#endif

PHI4FLASH_TARGET_END
