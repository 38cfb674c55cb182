// The composite's arithmetic, for host and device: the same bits wherever it is compiled.
//
// As in sample_gmm_math.h every operator is one IEEE float32 rounding, in the order in which it is
// written, without fused multiply-adds; docs/compositing.md is the specification. The functions are
// `static`: sources built for several instruction sets must not share a copy of them.
#pragma once

#include <cfloat>
#include <cstdint>
#include <cstring>

#ifndef PICME_HD
#ifdef __CUDACC__
#define PICME_HD __host__ __device__
#else
#define PICME_HD
#endif
#endif

#ifdef __FAST_MATH__
#error "the composite is specified to the bit: build it without -ffast-math"
#endif

namespace picme::composite {

static_assert(FLT_EVAL_METHOD == 0, "float arithmetic must round to float");

PICME_HD static inline float from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

PICME_HD static inline uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// IEEE binary16 and bfloat16 to float32: exact, and denormals never pass through a float operator.
PICME_HD static inline float from_half(uint16_t x) {
    const uint32_t magnitude = x & 0x7FFFu, sign = (x & 0x8000u) << 16;
    const uint32_t normal = (magnitude << 13) + 0x38000000u;
    const uint32_t special = (magnitude << 13) | 0x7F800000u;
    const uint32_t small = bits_of(static_cast<float>(static_cast<int32_t>(magnitude)) *
                                   5.9604644775390625e-08f);  // 2**-24
    const uint32_t large = magnitude < 0x7C00u ? normal : special;
    return from_bits((magnitude < 0x0400u ? small : large) | sign);
}

PICME_HD static inline float from_bfloat(uint16_t x) {
    return from_bits(uint32_t{x} << 16);
}

// A sum of taps starts with the product of the first and takes the others up one by one.
PICME_HD static inline float first_tap(float weight, float value) {
    return weight * value;
}

PICME_HD static inline float next_tap(float sum, float weight, float value) {
    return sum + weight * value;
}

// What g missed at a place of its picture; nothing where the picture is not known.
PICME_HD static inline float missed(uint8_t known, float image, float picture) {
    const float difference = image - picture;
    return known ? difference : 0.0f;
}

// What is resized back: the known picture, and in the hole g's with the seam's correction.
PICME_HD static inline float blended(uint8_t known, float image, float picture, float shift) {
    const float corrected = picture + shift;
    return known ? image : corrected;
}

// [-1, 1] to 0..255, to nearest, ties to even; NaN gives 0. Adding 2**23 rounds to an integer,
// which then stands in the low bits; as integers, bits of floats have the order of the floats, so
// that what is below 0 or above 255 is clipped there (compilers make better vector code of that).
PICME_HD static inline uint8_t to_byte(float x) {
    const float level = (x + 1.0f) * 127.5f;
    int32_t bits = static_cast<int32_t>(bits_of(level + 8388608.0f));
    bits = level == level ? bits : 0;
    bits = bits > 0x4B000000 ? bits : 0x4B000000;
    bits = bits < 0x4B0000FF ? bits : 0x4B0000FF;
    return static_cast<uint8_t>(bits & 0xFF);
}

}  // namespace picme::composite
