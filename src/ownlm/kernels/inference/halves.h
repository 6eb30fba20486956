// float16 in whole numbers alone, for processors without instructions for it.
#pragma once

#include <cstdint>
#include <cstring>

namespace ownlm {

inline float float_of_half(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16, exponent = (half >> 10) & 31u, rest = half & 1023u;
    uint32_t bits = sign | (exponent == 31 ? 0x7F800000u : (exponent + 112) << 23) | rest << 13;
    if (exponent == 0) {  // rest · 2^-24: exact as a float
        float value = static_cast<float>(rest) * 5.9604644775390625e-8f;
        std::memcpy(&bits, &value, 4);
        bits |= sign;
    }
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// Rounded to nearest, ties to even.
inline uint16_t half_of_float(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
    bits &= 0x7FFFFFFFu;
    if (bits > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);
    if (bits >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7C00u);
    if (bits >= 0x38800000u) {  // a normal number; rounding may carry into the exponent, up to infinity
        bits += 0xFFFu + (bits >> 13 & 1u);
        return static_cast<uint16_t>(sign | (bits - 0x38000000u) >> 13);
    }
    if (bits < 0x33000000u) return sign;
    const uint32_t shift = 126 - (bits >> 23), whole = (bits & 0x7FFFFFu) | 0x800000u;
    const uint32_t kept = whole >> shift, lost = whole & ((1u << shift) - 1), middle = 1u << (shift - 1);
    return static_cast<uint16_t>(sign | (kept + (lost > middle || (lost == middle && (kept & 1u) != 0) ? 1 : 0)));
}

}  // namespace ownlm
