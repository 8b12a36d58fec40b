// Products of bytes on aarch64 by its instruction for four of them, summed into 32 bits: SDOT. SVE has it in all its sets; with NEON a CPU has it
// or not (Cortex-A55 and A75, Apple's A13, and what came later, have it), and a target's name does not tell. There where PHI4FLASH_DOT_TARGET
// (a table of its own beside the target's) or PHI4FLASH_DOT_IS_OWN (the target's table has it) is.
//
// The instruction picks four bytes out of each 16 of its last operand: one load of activations serves 16 columns.

PHI4FLASH_TARGET_BEGIN

/// sums + w * four of x, from column 4 * Quad.
template <int Quad>
PHI4FLASH_VECTOR_INLINE wide_i32 dot_by_quad(wide_i32 sums, wide_bytes w, wide_bytes x) {
#if HWY_TARGET_IS_SVE
    return svdot_lane_s32(sums, w, x, Quad);
#elif defined(__ARM_FEATURE_DOTPROD)
    return wide_i32(vdotq_laneq_s32(sums.raw, w.raw, x.raw, Quad));
#else
    // Compilers want a flag for the intrinsic, and assemblers a later architecture, neither of which can be had for one function that is inlined
    // into others. So SDOT (by element) is put together from the numbers of its registers: their names, made symbols once in a file.
    asm(".ifndef .Lphi4flash_v0\n"
        ".irp i,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
        ".set .Lphi4flash_v\\i, \\i\n"
        ".endr\n"
        ".endif\n"
        ".inst %c3 + .Lphi4flash_%0 + (.Lphi4flash_%1 << 5) + (.Lphi4flash_%2 << 16)"
        : "+w"(sums.raw)
        : "w"(w.raw), "w"(x.raw), "i"(0x4f80e000 | (Quad & 1) << 21 | (Quad >> 1) << 11));
    return sums;
#endif
}

struct dot_products {
    static constexpr int activation_sum = 0;
    static constexpr int byte_offset = 0;
    static constexpr bool picks_columns = true;
    static PHI4FLASH_VECTOR_INLINE std::int32_t start(int first, int second) { return first + second; }
    static PHI4FLASH_VECTOR_INLINE wide_i32 begin(std::int32_t start) { return hn::Set(wide_tag(), start); }
    static PHI4FLASH_VECTOR_INLINE wide_i32 begin_bytes(std::int32_t start) { return begin(start); }
    static PHI4FLASH_VECTOR_INLINE wide_i32 fold(wide_i32 sums) { return sums; }
    static PHI4FLASH_VECTOR_INLINE wide_bytes sixteen(const std::int8_t* p) { return hn::LoadDup128(wide_i8_tag(), p); }
    /// Levels are below 128, so they are bytes with a sign, too.
    template <int Quad>
    static PHI4FLASH_VECTOR_INLINE wide_i32 next(wide_i32 sums, wide_codes w, wide_bytes sixteen) {
        return dot_by_quad<Quad>(sums, with_sign(w), sixteen);
    }
    template <int Quad>
    static PHI4FLASH_VECTOR_INLINE wide_i32 next(wide_i32 sums, wide_bytes w, wide_bytes sixteen) {
        return dot_by_quad<Quad>(sums, w, sixteen);
    }
};

PHI4FLASH_TARGET_END
