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
};

template <dtype Format>
inline constexpr linear_kernels packed_kernels{
    .matvec = &packed_matvec<Format>,
    .arrange = Format == dtype::q8   ? &arrange_int8<0, 0, 1, false>
               : Format == dtype::q4 ? &arrange_int8<0, q4_uniform.zero, scale_groups, true>
                                     : &arrange_int8<dense_activation_sum, q4_dense.zero, scale_groups, true>,
    .matmul = &packed_matmul<Format>,
    .widen = &packed_widen_row<Format>,
    .matmul_exact = &packed_matmul_exact<Format>,
};

inline constexpr kernel_table table{
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
    .attention = {&attention<float>, &attention<bf16>, &attention<kv_int8>},
    .difference_norm = &difference_norm,
    .rotate = &rotate,
    .read = &read_all,
};

PHI4FLASH_TARGET_END
