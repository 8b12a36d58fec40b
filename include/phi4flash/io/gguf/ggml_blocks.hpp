#pragma once
/// Weights of ggml's row-major types, decoded to f32. Plain code that runs once, when a model is converted.
/// Source: github.com/ggml-org/ggml, src/ggml-common.h (blocks) and src/ggml-quants.c (dequantize_row_*).
#include <phi4flash/core/number.hpp>
#include <phi4flash/io/gguf/ggml_types.hpp>

#include <cstring>

PHI4FLASH_BEGIN

namespace detail {

[[nodiscard]] inline unsigned byte_at(const std::byte* p, std::size_t i) { return static_cast<unsigned>(p[i]); }
[[nodiscard]] inline int signed_at(const std::byte* p, std::size_t i) { return static_cast<std::int8_t>(p[i]); }
template <class T>
[[nodiscard]] T number_at(const std::byte* p) {
    T x;
    std::memcpy(&x, p, sizeof x);
    return x;
}
[[nodiscard]] inline float half_at(const std::byte* p) { return to_f32(number_at<f16>(p)); }

/// w = d (q - 8): f16 d; 16 bytes, low nibbles first.
PHI4FLASH_BODY void decode_q4_0(const std::byte* p, float* out);

/// w = d q: f16 d; 32 signed bytes.
inline void decode_q8_0(const std::byte* p, float* out) {
    const float d = half_at(p);
    for (std::size_t i = 0; i < 32; ++i) out[i] = d * static_cast<float>(signed_at(p, 2 + i));
}

PHI4FLASH_OWN_DATA inline constexpr std::int8_t iq4_nl_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/// w = d level[q]: as Q4_0, with uneven levels.
PHI4FLASH_BODY void decode_iq4_nl(const std::byte* p, float* out);

/// w = d scale[j] q - dmin min[j] for 8 groups of 32: f16 d, f16 dmin; 12 bytes with 6-bit scales and mins; 128 bytes, each 32 of
/// them with the low nibbles of one group and the high ones of the next.
PHI4FLASH_BODY void decode_q4_k(const std::byte* p, float* out);

/// w = d scale[j] (q - 32) for 16 groups of 16: 128 bytes of low nibbles, 64 bytes of upper two bits, 16 signed scales, f16 d. Each
/// half of 128 numbers has 64 bytes of the first and 32 of the second.
PHI4FLASH_BODY void decode_q6_k(const std::byte* p, float* out);

}  // namespace detail

/// Decodes `n` elements of a weight type, a multiple of its block length, to out [n]. The blocks need no alignment. False for types
/// that are not weights.
[[nodiscard]] PHI4FLASH_BODY bool decode_ggml(ggml_type type, const std::byte* blocks, std::size_t n, float* out);

#if PHI4FLASH_BODIES
namespace detail {

PHI4FLASH_BODY void decode_q4_0(const std::byte* p, float* out) {
    const float d = half_at(p);
    for (std::size_t i = 0; i < 16; ++i) {
        const unsigned q = byte_at(p, 2 + i);
        out[i] = d * static_cast<float>(static_cast<int>(q & 15) - 8);
        out[i + 16] = d * static_cast<float>(static_cast<int>(q >> 4) - 8);
    }
}

PHI4FLASH_BODY void decode_iq4_nl(const std::byte* p, float* out) {
    const float d = half_at(p);
    for (std::size_t i = 0; i < 16; ++i) {
        const unsigned q = byte_at(p, 2 + i);
        out[i] = d * static_cast<float>(iq4_nl_levels[q & 15]);
        out[i + 16] = d * static_cast<float>(iq4_nl_levels[q >> 4]);
    }
}

PHI4FLASH_BODY void decode_q4_k(const std::byte* p, float* out) {
    const float d = half_at(p);
    const float dmin = half_at(p + 2);
    const std::byte* const s = p + 4;
    for (std::size_t j = 0; j < 8; ++j) {
        const bool first = j < 4;
        const unsigned scale = first ? byte_at(s, j) & 63 : (byte_at(s, j + 4) & 15) | (byte_at(s, j - 4) >> 6 << 4);
        const unsigned min = first ? byte_at(s, j + 4) & 63 : byte_at(s, j + 4) >> 4 | (byte_at(s, j) >> 6 << 4);
        const float step = d * static_cast<float>(scale);
        const float floor = dmin * static_cast<float>(min);
        for (std::size_t i = 0; i < 32; ++i) {
            const unsigned q = byte_at(p, 16 + j / 2 * 32 + i);
            out[j * 32 + i] = step * static_cast<float>(j % 2 == 0 ? q & 15 : q >> 4) - floor;
        }
    }
}

PHI4FLASH_BODY void decode_q6_k(const std::byte* p, float* out) {
    const float d = half_at(p + 208);
    for (std::size_t group = 0; group < 16; ++group) {
        const std::size_t half = group / 8;
        const std::size_t part = group / 2 % 4;  // which two bits, and which nibble of which 32 bytes
        const std::size_t first = group % 2 * 16;
        const std::byte* const low = p + half * 64 + part % 2 * 32 + first;
        const std::byte* const high = p + 128 + half * 32 + first;
        const float step = d * static_cast<float>(signed_at(p, 192 + group));
        for (std::size_t i = 0; i < 16; ++i) {
            const unsigned bits = (byte_at(low, i) >> part / 2 * 4 & 15) | (byte_at(high, i) >> 2 * part & 3) << 4;
            out[group * 16 + i] = step * static_cast<float>(static_cast<int>(bits) - 32);
        }
    }
}

}  // namespace detail

PHI4FLASH_BODY bool decode_ggml(ggml_type type, const std::byte* blocks, std::size_t n, float* out) {
    const ggml_format& format = format_of(type);
    if (!format.is_weight) return false;
    for (std::size_t i = 0; i < n; i += format.block_length, blocks += format.block_bytes, out += format.block_length) {
        switch (type) {
            case ggml_type::f32: *out = detail::number_at<float>(blocks); break;
            case ggml_type::f16: *out = detail::half_at(blocks); break;
            case ggml_type::bf16: *out = to_f32(detail::number_at<bf16>(blocks)); break;
            case ggml_type::q4_0: detail::decode_q4_0(blocks, out); break;
            case ggml_type::q8_0: detail::decode_q8_0(blocks, out); break;
            case ggml_type::q4_k: detail::decode_q4_k(blocks, out); break;
            case ggml_type::q6_k: detail::decode_q6_k(blocks, out); break;
            case ggml_type::iq4_nl: detail::decode_iq4_nl(blocks, out); break;
            default: return false;
        }
    }
    return true;
}
#endif

PHI4FLASH_END
