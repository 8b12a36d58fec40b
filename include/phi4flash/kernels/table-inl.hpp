// This target's table: the only thing that leaves the region.

PHI4FLASH_TARGET_BEGIN

inline std::size_t lanes_of_target() { return lanes(); }

template <class Element>
inline constexpr linear_kernels linear_table{
    &matvec<Element>,
    dtype_of<Element> == dtype::bf16 ? &arrange_even_odd : &arrange_none,
    &matmul<Element>,
    &widen<Element>,
};

inline constexpr kernel_table table{
    .name = PHI4FLASH_TARGET_LABEL,
    .lanes = &lanes_of_target,
    .linear = {linear_table<float>, linear_table<f16>, linear_table<bf16>},
    .layer_norm = &layer_norm,
    .rms_norm = &rms_norm,
    .accumulate = &accumulate,
    .silu_mul = &silu_mul,
    .softplus = &softplus,
    .softmax = &softmax,
    .convolution = &convolution,
    .scan = &scan,
    .narrow = {&narrow<float>, nullptr, &narrow<bf16>},
    .attention = {&attention<float>, nullptr, &attention<bf16>},
    .difference_norm = &difference_norm,
    .rotate = &rotate,
    .read = &read_all,
};

PHI4FLASH_TARGET_END
