// The sampler's arithmetic, for host and device: the same bits wherever it is compiled.
//
// That holds because every operator below is one IEEE float32 rounding, in the order in which it is
// written: no contraction to fused multiply-adds (-ffp-contract=off; nvcc: -fmad=false), no fast
// math, no libm. picme_rt/sampling_ref.py is the same arithmetic in NumPy.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define PICME_HD __host__ __device__
#else
#define PICME_HD
#endif

#ifdef __FAST_MATH__
#error "the sampler is specified to the bit: build it without -ffast-math"
#endif

namespace picme {

static_assert(FLT_EVAL_METHOD == 0, "float arithmetic must round to float");

constexpr uint32_t kPlace = 0;  // counter word 0: which latent vector of the network

struct Words4 {
    uint32_t x[4];
};

struct Floats4 {
    float x[4];
};

PICME_HD inline float float_from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

PICME_HD inline uint32_t bits_of_float(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// Ten rounds of Philox4x32 of Random123 (Salmon et al., 2011).
PICME_HD inline Words4 philox4x32_10(Words4 counter, uint64_t seed) {
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    uint32_t* c = counter.x;
    for (int round = 0; round < 10; ++round) {
        const uint64_t p0 = uint64_t{0xD2511F53} * c[0], p1 = uint64_t{0xCD9E8D57} * c[2];
        c[0] = static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0;
        c[1] = static_cast<uint32_t>(p1);
        c[2] = static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1;
        c[3] = static_cast<uint32_t>(p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return counter;
}

// A number inside (0, 1), exact.
PICME_HD inline float uniform(uint32_t x) {
    return (static_cast<float>(x >> 9) + 0.5f) * 1.1920928955078125e-07f;  // 2**-23
}

// Natural logarithm of a positive normal number: x = m * 2**e, m in [sqrt(1/2), sqrt(2)), f = m -
// 1; log x = f - f*f/2 + f**3 * P(f) + e * ln 2.
PICME_HD inline float log_poly(float x) {
    const uint32_t bits = bits_of_float(x) + (0x3F800000u - 0x3F3504F3u);  // sqrt(1/2) moves to 1.0
    const float e = static_cast<float>(bits >> 23) - 127.0f;
    const float m = float_from_bits((bits & 0x007FFFFFu) + 0x3F3504F3u);
    const float f = m - 1.0f;
    const float square = f * f;
    float p = -0.07636439055204391f;
    p = p * f + 0.12762217223644257f;
    p = p * f + -0.13159610331058502f;
    p = p * f + 0.14201579988002777f;
    p = p * f + -0.166234090924263f;
    p = p * f + 0.2000124156475067f;
    p = p * f + -0.2500081956386566f;
    p = p * f + 0.3333333134651184f;
    float tail = (f * square) * p;
    tail = tail + e * -2.12194442e-4f;
    tail = tail - 0.5f * square;
    return (f + tail) + e * 0.693359375f;
}

// 2**n for n in [-126, 127].
PICME_HD inline float power_of_two(int32_t n) {
    return float_from_bits(static_cast<uint32_t>(n + 127) << 23);
}

// Exponential; arguments outside [-104, 88] are taken as the nearer end.
// exp x = 2**n * (1 + r + r*r * P(r)), n = floor(x / ln 2 + 1/2), r = x - n * ln 2.
PICME_HD inline float exp_poly(float x) {
    x = x < -104.0f ? -104.0f : x;
    x = x > 88.0f ? 88.0f : x;
    const float n = floorf(x * 1.44269502f + 0.5f);
    const float r = (x - n * 0.693359375f) - n * -2.12194442e-4f;
    float p = 0.0013818697771057487f;
    p = p * r + 0.008368715643882751f;
    p = p * r + 0.04166829213500023f;
    p = p * r + 0.1666652113199234f;
    p = p * r + 0.4999999403953552f;
    float y = (r * r) * p;
    y = (y + r) + 1.0f;
    const int32_t whole = static_cast<int32_t>(n);
    const int32_t half = whole / 2;  // in two steps: only the second can round, below 2**-126
    return (y * power_of_two(half)) * power_of_two(whole - half);
}

// Sine and cosine of 2*pi*u for u in (0, 1): q = floor(4u + 1/2), f = 4u - q in [-1/2, 1/2], exact;
// sin(pi/2 f) = f * S(f*f), cos(pi/2 f) = 1 + f*f * C(f*f).
PICME_HD inline void sincos_poly(float u, float* sine, float* cosine) {
    const float quarters = 4.0f * u;
    const float q = floorf(quarters + 0.5f);
    const float f = quarters - q;
    const float square = f * f;
    float s = -0.004554165527224541f;
    s = s * square + 0.07965986430644989f;
    s = s * square + -0.6459610462188721f;
    s = s * square + 1.570796251296997f;
    s = f * s;
    float c = 0.0008935576770454645f;
    c = c * square + -0.02085525169968605f;
    c = c * square + 0.25366851687431335f;
    c = c * square + -1.2337005138397217f;
    c = 1.0f + square * c;
    const int32_t quadrant = static_cast<int32_t>(q) & 3;
    const float s_turned = (quadrant & 1) ? c : s;
    const float c_turned = (quadrant & 1) ? s : c;
    *sine = quadrant >= 2 ? -s_turned : s_turned;
    *cosine = (quadrant == 1 || quadrant == 2) ? -c_turned : c_turned;
}

// Four standard normal numbers by Box and Muller: words 0 and 1 give 0 (cosine) and 1 (sine), words
// 2 and 3 give 2 and 3.
PICME_HD inline Floats4 normals(Words4 words) {
    Floats4 eps;
    for (int pair = 0; pair < 4; pair += 2) {
        float s, c;
        const float radius = sqrtf(-2.0f * log_poly(uniform(words.x[pair])));
        sincos_poly(uniform(words.x[pair + 1]), &s, &c);
        eps.x[pair] = radius * c;
        eps.x[pair + 1] = radius * s;
    }
    return eps;
}

}  // namespace picme
