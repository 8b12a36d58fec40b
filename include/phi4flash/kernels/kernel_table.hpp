#pragma once
/// The border between code compiled once and code compiled once per instruction set: one const table of function
/// pointers for each target. Layers hold a reference to a table and never know which.
///
/// Conventions: activations are f32; `tokens` rows lie `*_stride` floats apart; no pointer needs more than element
/// alignment; outputs must not overlap inputs unless the comment says so. Each output is computed in an order that
/// does not depend on how a caller cuts the work, so results are the same bits for any number of threads. All functions are
/// pure and may run in any number of threads at once.
#include <phi4flash/core/kv_format.hpp>
#include <phi4flash/core/packed.hpp>
#include <phi4flash/core/token_weight.hpp>

#include <cstddef>

PHI4FLASH_BEGIN

/// Multiplication by weights of one stored type; W is [rows, cols], plain or packed. `w` points at the first row (of a packed
/// matrix, at a block), and packed matrices are cut into multiples of 8 rows.
struct linear_kernels {
    /// y[r] = bias[r] + sum_c W[r,c] x[c].   x: `arranged` by this table's `arrange`. bias may be null.
    /// Plain types: f32 accumulation; error <= 1 ulp * sqrt(cols) of sum |W x| (tests/kernels/dense/linear_test.cpp). Packed types:
    /// x is rounded to 8 bits, with a scale for every 32 columns (q8) or 32 * scale_groups; products are exact integers
    /// (tests/kernels/packed/packed_test.cpp).
    void (*matvec)(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, const float* bias, float* y);

    /// Puts tokens [begin, end) of the `tokens` of x, x_stride floats apart, into the form in which the products read so many. Writes to
    /// `scratch`, which must hold tokens * arranged_bytes(cols), best on a cache line's start, and returns it; or returns x, if a
    /// single token is fine as it is.
    const std::byte* (*arrange)(const float* x, std::size_t x_stride, std::size_t cols, std::size_t begin, std::size_t end, std::size_t tokens,
                                std::byte* scratch);

    /// y[t,r] = bias[r] + sum_c W[r,c] x[t,c] for two tokens or more, x arranged for so many. bias may be null. Errors as of matvec. Cuts
    /// into fewer rows do not change a bit, nor do cuts into fewer tokens while there are few_tokens at most, or more before and after
    /// them; packed weights may be rounded where there are more, see weight_rounding. Takes up to 80 KiB of stack.
    void (*matmul)(const std::byte* w, std::size_t rows, std::size_t cols, const std::byte* x, std::size_t tokens, const float* bias, float* y,
                   std::size_t y_stride);

    /// out[c] = W[r,c] as f32, exactly; r counts from `w`.
    void (*widen)(const std::byte* w, std::size_t r, std::size_t cols, float* out);

    /// As `matmul`, for any number of tokens, with packed weights and f32 rows of x as they are; null for plain types, whose products
    /// are so anyway. f32 accumulation; error <= 1 ulp * sqrt(cols) of sum |W x| (tests/kernels/packed/packed_exact_test.cpp).
    void (*matmul_exact)(const std::byte* w, std::size_t rows, std::size_t cols, const float* x, std::size_t x_stride, std::size_t tokens,
                         const float* bias, float* y, std::size_t y_stride);

    /// By how much of the largest magnitude in its row's scale_groups groups matmul may change a weight for more than few_tokens tokens: 0, 2^-12
    /// (scales as integers, see scale_unit), 1 / 127 (weights as bytes that share one scale there; all targets with this give the same bits) or 2^-14
    /// (q8 as two bytes; activations are then rounded no more than that either).
    float weight_rounding;

    /// Up to so many tokens, `matmul` gives each of them the bits that `matvec` gives it alone.
    std::size_t few_tokens;
};

/// Bytes that `linear_kernels::arrange` may write for `cols` inputs, and the kernels read: up to six for each, as three bf16, and a vector that
/// begins at the last number ends behind it. A multiple of 64.
[[nodiscard]] constexpr std::size_t arranged_bytes(std::size_t cols) { return (cols + 63) / 64 * 64 * 6 + 64; }

/// Channels of the Mamba state lie in blocks of this many: A and h are [ceil(d_inner / 16)][d_state][16], zero-filled.
inline constexpr std::size_t channel_block = 16;

/// Where the states after the last `count` tokens go, one `stride` floats behind the other. Where one is kept, it may take the place of the
/// state before the first token. @since 0.2
struct kept_states {
    float* first = nullptr;
    std::size_t stride = 0;
    std::size_t count = 1;  ///< 1 to the number of tokens
};

/// Depthwise causal convolution and SiLU over channels [channel_begin, channel_end) of `tokens` tokens.
struct convolution_args {
    const float* x;          ///< [tokens, d_inner], rows x_stride apart
    std::size_t x_stride;
    const float* weight;     ///< [d_conv, d_inner]: tap d_conv-1 is the current token
    const float* bias;       ///< [d_inner]
    const float* state;      ///< [d_conv-1, d_inner]: the inputs before this chunk, oldest first
    kept_states kept;
    float* y;                ///< [tokens, d_inner], rows y_stride apart
    std::size_t y_stride;
    std::size_t tokens;
    std::size_t d_inner;
    std::size_t d_conv;
};

/// Mamba-1 selective scan over channel blocks [block_begin, block_end).
/// h[c,n] = exp(dt[c] A[c,n]) h[c,n] + dt[c] u[c] B[n];   y[c] = sum_n C[n] h[c,n] + D[c] u[c].   Source: arXiv:2312.00752 eq. 2.
struct scan_args {
    const float* u;          ///< [tokens, d_inner]
    const float* dt;         ///< [tokens, d_inner], after softplus
    const float* b;          ///< [tokens, d_state], rows bc_stride apart
    const float* c;          ///< [tokens, d_state], rows bc_stride apart
    std::size_t bc_stride;
    const float* a_log2e;    ///< A times log2(e), blocked as above
    const float* d;          ///< [d_inner]
    const float* h;          ///< blocked as above: the state before the first token
    kept_states kept;
    float* y;                ///< [tokens, d_inner]; may be u
    std::size_t tokens;
    std::size_t d_inner;     ///< also the stride of u, dt and y
    std::size_t d_state;
};

/// A run of keys and values at consecutive positions, in the cache's element type: [groups, group_rows, w], of which the first
/// `count` rows of each group are read. Of kv_int8 also the scales, [groups, k_per_group, group_rows]: a value's is that of the d_head
/// numbers of its row that its head makes.
struct kv_segment {
    const std::byte* k = nullptr;
    const std::byte* v = nullptr;
    std::size_t group_rows = 0;
    std::size_t first_position = 0;
    std::size_t count = 0;
    const bf16* k_scale = nullptr;
    const bf16* v_scale = nullptr;
};

/// Tiled attention with online softmax for one group of heads.
///
/// A group has one block of values, of width w = k_per_group * d_head, and k_per_group key heads that lie side by side in a
/// row of the same width (2 for differential attention, whose even and odd heads share the pair's values; 1 for the plain kind).
/// Query head `k_per_group * (group * queries_per_key + r) + s` uses key head s of group `group`.
/// out[t, head, :] = softmax_j(scale q[t,head].k[j] - slope[head] (position(t) - position(j))) v[j, :] over the keys j that
/// token t sees: position(t) - window < position(j) <= position(t).   Source: arXiv:2205.14135 alg. 1.
struct attention_args {
    const float* q;                ///< [tokens, n_heads * d_head], rows q_stride apart
    std::size_t q_stride;
    float* out;                    ///< [tokens, n_heads, w], rows out_stride apart
    std::size_t out_stride;
    std::size_t tokens;            ///< of q and out, of which a call takes some: a few are computed in another order than many
    std::size_t first_position;    ///< of query token 0
    std::size_t d_head;
    std::size_t k_per_group;       ///< 1 or 2
    std::size_t queries_per_key;
    std::size_t window;            ///< keys seen, the token itself included; SIZE_MAX for all
    float scale;
    const float* slopes;           ///< [n_heads] for ALiBi, or null
};

inline constexpr std::size_t max_kv_segments = 3;  ///< runs of rows in which a call's keys may lie
inline constexpr std::size_t max_k_per_group = 2;  ///< 2 for differential attention

/// One target's kernels. `name` is what a user sees and may ask for.
struct kernel_table {
    const char* name;
    std::size_t (*lanes)();              ///< floats a vector
    linear_kernels linear[dtype_count];  ///< indexed by dtype. Of a type that is not is_compiled all but widen is null; so are its pack and attention

    /// y = (x - mean) / sqrt(variance + eps) * weight + bias over n numbers. y may be x.
    void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, std::size_t n, float* y);
    /// y = x / sqrt(mean(x^2) + eps) * weight. y may be x.
    void (*rms_norm)(const float* x, const float* weight, float eps, std::size_t n, float* y);
    /// y += x.
    void (*accumulate)(const float* x, std::size_t n, float* y);
    /// y = silu(gate) * x. y may be either input. Error <= 4 ulp for gate >= -87.
    void (*silu_mul)(const float* gate, const float* x, std::size_t n, float* y);
    /// y = log(1 + exp(x)). y may be x. Error <= 4 ulp for x >= -87.
    void (*softplus)(const float* x, std::size_t n, float* y);
    /// x = exp((x - max) * inverse_temperature), normalized to sum 1.
    void (*softmax)(float* x, std::size_t n, float inverse_temperature);

    void (*convolution)(const convolution_args& args, std::size_t channel_begin, std::size_t channel_end);
    void (*scan)(const scan_args& args, std::size_t block_begin, std::size_t block_end);

    /// out = x in the cache's element type, indexed by dtype (f32 and bf16; f16 is null).
    void (*narrow[plain_dtype_count])(const float* x, std::size_t n, std::byte* out);
    /// x of one head as kv_int8: codes and their scale.   Finite numbers only.
    void (*quantize)(const float* x, std::size_t n, kv_int8* codes, bf16* scale);
    /// Eight rows as packed blocks, the very bytes of core/packing.hpp; indexed by dtype, null for plain types.   Finite numbers only.
    /// Shape: rows [8, cols], cols a multiple of 32; out takes matrix_bytes(type, 8, cols) bytes.
    void (*pack[dtype_count])(const float* rows, std::size_t cols, std::byte* out);
    /// Query tokens [token_begin, token_end) of one group over `segments`, in order; indexed by the cache's kv_format. Finite numbers
    /// only. Error: <= 1e-6 of the largest value; for a single token 2e-6 over bf16 on matrix tiles, 3e-5 over 8 bits where their bytes are
    /// multiplied (VNNI). Takes up to 80 KiB of stack.
    void (*attention[kv_format_count])(const attention_args& args, std::size_t group, std::size_t token_begin, std::size_t token_end,
                                       const kv_segment* segments, std::size_t n_segments);
    /// y = normalize(first - lambda * second) * weight, the difference of differential attention and its RMS norm over n = 2 d_head.
    /// y may be `first`.   Source: arXiv:2410.05258 eq. 3.
    void (*difference_norm)(const float* first, const float* second, float lambda, const float* weight, float eps, std::size_t n, float* y);
    /// Rotates pairs (x[i], x[i + half]) by the angle whose cosine and sine are given, i < half.   Source: arXiv:2104.09864.
    void (*rotate)(float* x, const float* cosine, const float* sine, std::size_t half);

    /// What the sampler does with all logits. Integers: the same on every target, and as plain_choosing has them.
    choosing_kernels choosing;

    /// Reads every byte once (an even number of them) and returns a number that depends on all: the limit against which
    /// kernels are measured.
    float (*read)(const std::byte* data, std::size_t bytes);
};

PHI4FLASH_END
