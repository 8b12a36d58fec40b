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
    .few_tokens = plain_few_tokens,
};

/// Of weights of a type that the project leaves out only what reads them.
template <class Element>
constexpr linear_kernels plain_products() {
    linear_kernels kernels{};
    if constexpr (is_compiled(dtype_of<Element>)) kernels = plain_kernels<Element>;
    kernels.widen = &widen_row<Element>;
    return kernels;
}
template <dtype Format, class Products, class Many>
constexpr linear_kernels packed_products() {
    linear_kernels kernels{};
    if constexpr (is_compiled(Format)) kernels = packed_kernels<Format, Products, Many>;
    kernels.widen = &packed_widen_row<Format>;
    return kernels;
}
template <dtype Format, auto Pack>
constexpr auto packing() -> decltype(Pack) {
    if constexpr (is_compiled(Format)) return Pack;
    else return nullptr;
}

/// Null for a type that the project leaves out.
using attention_kernel = void (*)(const attention_args&, std::size_t, std::size_t, std::size_t, const kv_segment*, std::size_t);
template <class Kv>
constexpr attention_kernel attention_over() {
    if constexpr (!is_compiled(kv_format_of<Kv>)) return nullptr;
#if PHI4FLASH_BLOCKS_SIDE_BY_SIDE
    else if constexpr (std::is_same_v<Kv, kv_int8>) return &attention_of_one<kv_int8, byte_products, &attention<kv_int8>>;
#endif
    else return &attention<Kv>;
}

#if PHI4FLASH_DOT_IS_OWN(HWY_TARGET)
using table_products = dot_products;
#else
using table_products = own_products;
#endif
#if PHI4FLASH_BLOCKS_SIDE_BY_SIDE
template <dtype Format>
using own_many = rounded_way<Format, packed_vector_products>;
#elif PHI4FLASH_DOT_IS_OWN(HWY_TARGET)
template <dtype>
using own_many = no_other_way;
#else
template <dtype Format>
using own_many = bundle_way<Format>;
#endif

template <dtype Format, class Products, class Many>
constexpr void multiply_by(kernel_table& t) {
    t.linear[static_cast<std::size_t>(Format)] = packed_products<Format, Products, Many>();
}

#ifdef PHI4FLASH_LOWER_TABLE
/// What this target does otherwise than the one below it. All else would be the same instructions again, compiled once more.
constexpr kernel_table above(kernel_table t) {
    t.name = PHI4FLASH_TARGET_LABEL;
#if HWY_TARGET == HWY_AVX3_DL  // any of 64 bytes by one instruction. (Products by VNNI's name are no faster than those of vnni_table.)
    constexpr auto int8 = static_cast<std::size_t>(kv_format::int8);
    if constexpr (is_compiled(kv_format::int8)) t.attention[int8] = &attention_of_one<kv_int8, byte_products, PHI4FLASH_LOWER_TABLE.attention[int8]>;
#elif HWY_TARGET != HWY_AVX3_ZEN4  // which adds matrix tiles
#error "phi4flash: say what this target does otherwise"
#endif
    return t;
}
PHI4FLASH_OWN_DATA inline constexpr kernel_table table = above(PHI4FLASH_LOWER_TABLE);
#else
PHI4FLASH_OWN_DATA inline constexpr kernel_table table{
    .name = PHI4FLASH_TARGET_LABEL,
    .lanes = &lanes_of_target,
    .linear = {plain_products<float>(), plain_products<f16>(), plain_products<bf16>(), packed_products<dtype::q8, table_products, no_other_way>(),
               packed_products<dtype::q4, table_products, own_many<dtype::q4>>(),
               packed_products<dtype::q4_dense, table_products, own_many<dtype::q4_dense>>()},
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
    .pack = {nullptr, nullptr, nullptr, packing<dtype::q8, &pack_q8>(), packing<dtype::q4, &pack_q4<q4_uniform>>(),
             packing<dtype::q4_dense, &pack_q4<q4_dense>>()},
    .attention = {attention_over<float>(), attention_over<bf16>(), attention_over<kv_int8>()},
    .difference_norm = &difference_norm,
    .rotate = &rotate,
    .choosing = {&rank_logits, &highest_rank, &count_at_least, &weigh_ranks, &sum_at_least},
    .read = &read_all,
};
#endif

#if PHI4FLASH_VNNI_TARGET(HWY_TARGET)
constexpr kernel_table with_vnni(kernel_table t) {
    t.name = PHI4FLASH_TARGET_LABEL "_vnni";
    multiply_by<dtype::q8, vnni_products, no_other_way>(t);
    multiply_by<dtype::q4, vnni_products, rounded_way<dtype::q4, packed_vector_products>>(t);
    multiply_by<dtype::q4_dense, vnni_products, rounded_way<dtype::q4_dense, packed_vector_products>>(t);
    return t;
}
PHI4FLASH_OWN_DATA inline constexpr kernel_table vnni_table = with_vnni(table);
#endif

#if PHI4FLASH_DOT_TARGET(HWY_TARGET)
constexpr kernel_table with_dot_products(kernel_table t) {
    t.name = PHI4FLASH_TARGET_LABEL "_dot";
    multiply_by<dtype::q8, dot_products, no_other_way>(t);
    multiply_by<dtype::q4, dot_products, no_other_way>(t);
    multiply_by<dtype::q4_dense, dot_products, no_other_way>(t);
    return t;
}
PHI4FLASH_OWN_DATA inline constexpr kernel_table dot_table = with_dot_products(table);
#endif

#if PHI4FLASH_AMX_TARGET(HWY_TARGET)
/// `Many`, and for fewer tokens what `table` does.
template <dtype Format, class Many>
struct many_on_tiles {
    static constexpr const linear_kernels& few = table.linear[static_cast<std::size_t>(Format)];
    static_assert(Many::from - 1 <= few.few_tokens);

    static const std::byte* arrange(const float* x, std::size_t x_stride, std::size_t cols, std::size_t begin, std::size_t end, std::size_t tokens,
                                    std::byte* scratch) {
        return (tokens >= Many::from ? Many::arrange : few.arrange)(x, x_stride, cols, begin, end, tokens, scratch);
    }
    static void matmul(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, std::size_t tokens, const float* bias, float* y,
                       std::size_t y_stride) {
        (tokens >= Many::from ? Many::matmul : few.matmul)(w, rows, cols, x, tokens, bias, y, y_stride);
    }
};
template <dtype Format, class Products>
constexpr void multiply_many_by(kernel_table& t) {
    if constexpr (is_compiled(Format)) {
        using many = rounded_way<Format, Products>;
        linear_kernels& linear = t.linear[static_cast<std::size_t>(Format)];
        linear.arrange = &many_on_tiles<Format, many>::arrange;
        linear.matmul = &many_on_tiles<Format, many>::matmul;
        linear.weight_rounding = many::weight_rounding;
        linear.few_tokens = many::from - 1;
    }
}
constexpr kernel_table with_tiles(kernel_table t) {
    t.name = "amx";
    multiply_many_by<dtype::q8, packed_digit_products>(t);
    multiply_many_by<dtype::q4, packed_tile_products>(t);
    multiply_many_by<dtype::q4_dense, packed_tile_products>(t);
    if constexpr (is_compiled(dtype::bf16)) {
        linear_kernels& linear = t.linear[static_cast<std::size_t>(dtype::bf16)];
        linear.arrange = &arrange_parts;
        linear.matmul = &matmul_on_tiles;
        linear.few_tokens = bf16_tile_tokens - 1;
    }
    constexpr auto of_bf16 = static_cast<std::size_t>(kv_format::bf16);
    if constexpr (is_compiled(kv_format::bf16)) t.attention[of_bf16] = &attention_of_one<bf16, matrix_products, table.attention[of_bf16]>;
    return t;
}
PHI4FLASH_OWN_DATA inline constexpr kernel_table tile_table = with_tiles(table);
#endif

PHI4FLASH_TARGET_END
