// The sampler's arithmetic, for host and device: the same bits wherever it is compiled.
//
// That holds because every operator below is one IEEE float32 rounding, in the order in which it is
// written: no contraction to fused multiply-adds (-ffp-contract=off; nvcc: -fmad=false), no fast
// math, no libm. picme_rt/sampling_ref.py is the same arithmetic in NumPy.
//
// The equations stand once, in SampleMath, over a type of lanes: one float here, for every host and
// for CUDA; 8 and 16 of them in lanes_avx2.cpp and lanes_avx512.cpp. An expression such as
// `x < y ? x : y` means the same for a number and, lane by lane, for a vector of GCC or Clang.
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

// One number: what SampleMath asks of a type of lanes.
struct OneLane {
    using F = float;
    using U = uint32_t;
    using I = int32_t;
    using Wide = uint64_t;  // a word of Philox in the lower half; the upper half is anything

    PICME_HD static F from_bits(U bits) {
        F value;
        std::memcpy(&value, &bits, sizeof value);
        return value;
    }
    PICME_HD static U bits(F value) {
        U bits;
        std::memcpy(&bits, &value, sizeof bits);
        return bits;
    }
    PICME_HD static F floor(F x) { return floorf(x); }
    PICME_HD static F square_root(F x) { return sqrtf(x); }
    PICME_HD static F to_float(I n) { return static_cast<F>(n); }
    PICME_HD static I to_int(F x) { return static_cast<I>(x); }
    PICME_HD static Wide product(Wide word, uint32_t factor) {
        return Wide{static_cast<uint32_t>(word)} * factor;
    }
};

template <class L>
struct SampleMath {
    using F = typename L::F;
    using U = typename L::U;
    using I = typename L::I;
    using Wide = typename L::Wide;

    // Ten rounds of Philox4x32 of Random123 (Salmon et al., 2011), in place.
    PICME_HD static void philox4x32_10(Wide* c, uint64_t seed) {
        uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
        for (int round = 0; round < 10; ++round) {
            const Wide p0 = L::product(c[0], 0xD2511F53u), p1 = L::product(c[2], 0xCD9E8D57u);
            c[0] = (p1 >> 32) ^ c[1] ^ uint64_t { k0 };
            c[1] = p1;
            c[2] = (p0 >> 32) ^ c[3] ^ uint64_t { k1 };
            c[3] = p0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
    }

    // ((x >> 9) + 0.5) * 2**-23, a number inside (0, 1): every step here is exact.
    PICME_HD static F uniform(U x) {
        return L::from_bits((x >> 9) | 0x3F800000u) - 0.999999940395355224609375f;  // 1 - 2**-24
    }

    // Natural logarithm of a positive normal number: x = m * 2**e, m in [sqrt(1/2), sqrt(2)), f = m
    // - 1; log x = f - f*f/2 + f**3 * P(f) + e * ln 2.
    PICME_HD static F log_poly(F x) {
        const U bits = L::bits(x) + (0x3F800000u - 0x3F3504F3u);  // sqrt(1/2) moves to 1.0
        const F e = L::to_float((I)(bits >> 23)) - 127.0f;
        const F m = L::from_bits((bits & 0x007FFFFFu) + 0x3F3504F3u);
        const F f = m - 1.0f;
        const F square = f * f;
        F p = -0.07636439055204391f * f + 0.12762217223644257f;
        p = p * f + -0.13159610331058502f;
        p = p * f + 0.14201579988002777f;
        p = p * f + -0.166234090924263f;
        p = p * f + 0.2000124156475067f;
        p = p * f + -0.2500081956386566f;
        p = p * f + 0.3333333134651184f;
        F tail = (f * square) * p;
        tail = tail + e * -2.12194442e-4f;
        tail = tail - 0.5f * square;
        return (f + tail) + e * 0.693359375f;
    }

    // 2**n for n in [-126, 127].
    PICME_HD static F power_of_two(I n) { return L::from_bits((U)(n + 127) << 23); }

    // Exponential; arguments outside [-104, 88] are taken as the nearer end.
    // exp x = 2**n * (1 + r + r*r * P(r)), n = floor(x / ln 2 + 1/2), r = x - n * ln 2.
    PICME_HD static F exp_poly(F x) {
        x = clamped(x);
        const F n = L::floor(x * 1.44269502f + 0.5f);
        const F r = (x - n * 0.693359375f) - n * -2.12194442e-4f;
        F p = 0.0013818697771057487f * r + 0.008368715643882751f;
        p = p * r + 0.04166829213500023f;
        p = p * r + 0.1666652113199234f;
        p = p * r + 0.4999999403953552f;
        F y = (r * r) * p;
        y = (y + r) + 1.0f;
        const I whole = L::to_int(n);
        const I half = whole >> 1;  // in two steps: only the second can round, below 2**-126
        return (y * power_of_two(half)) * power_of_two(whole - half);
    }

    // What exp_poly, and so sigma, takes of x.
    PICME_HD static F clamped(F x) {
        x = x < -104.0f ? -104.0f : x;
        return x > 88.0f ? 88.0f : x;
    }

    // Sine and cosine of 2*pi*u for u in (0, 1): q = floor(4u + 1/2), f = 4u - q in [-1/2, 1/2],
    // exact; sin(pi/2 f) = f * S(f*f), cos(pi/2 f) = 1 + f*f * C(f*f).
    PICME_HD static void sincos_poly(F u, F* sine, F* cosine) {
        const F quarters = 4.0f * u;
        const F q = L::floor(quarters + 0.5f);
        const F f = quarters - q;
        const F square = f * f;
        F s = -0.004554165527224541f * square + 0.07965986430644989f;
        s = s * square + -0.6459610462188721f;
        s = s * square + 1.570796251296997f;
        s = f * s;
        F c = 0.0008935576770454645f * square + -0.02085525169968605f;
        c = c * square + 0.25366851687431335f;
        c = c * square + -1.2337005138397217f;
        c = 1.0f + square * c;
        const I quadrant = L::to_int(q);  // 0 to 4
        const F s_turned = (quadrant & 1) ? c : s;
        const F c_turned = (quadrant & 1) ? s : c;
        // the sine is negative in the quadrants 2 and 3, the cosine in 1 and 2
        *sine = L::from_bits(L::bits(s_turned) ^ ((U)(quadrant & 2) << 30));
        *cosine = L::from_bits(L::bits(c_turned) ^ ((U)((quadrant + 1) & 2) << 30));
    }

    // Four standard normal numbers by Box and Muller: words 0 and 1 give 0 (cosine) and 1 (sine),
    // words 2 and 3 give 2 and 3.
    PICME_HD static void normals(const U* words, F* eps) {
        for (int pair = 0; pair < 4; pair += 2) {
            F s, c;
            const F radius = L::square_root(-2.0f * log_poly(uniform(words[pair])));
            sincos_poly(uniform(words[pair + 1]), &s, &c);
            eps[pair] = radius * c;
            eps[pair + 1] = radius * s;
        }
    }

    // A number that is no NaN as IEEE binary16, rounded to nearest even: bits 0 to 15 of a word.
    PICME_HD static U float16_bits(F x) {
        const U sign = L::bits(x) & 0x80000000u;
        const U bits = L::bits(x) ^ sign;
        const U normal = (bits + 0xC8000FFFu + ((bits >> 13) & 1u)) >> 13;  // exponent - 127 + 15
        // below 2**-14, where binary16's last place stands still, 0.5 has its own at the same place
        const U small = L::bits(L::from_bits(bits) + 0.5f) - 0x3F000000u;
        const U finite = (I)bits < 0x38800000 ? small : normal;
        return ((I)bits >= 0x47800000 ? 0x7C00u : finite) | (sign >> 16);  // 2**16 is infinite
    }

    // A number that is no NaN as bfloat16, rounded to nearest even: bits 0 to 15 of a word.
    PICME_HD static U bfloat16_bits(F x) {
        const U bits = L::bits(x);
        return (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    }
};

// The same for single numbers, under plain names.

PICME_HD inline float float_from_bits(uint32_t bits) {
    return OneLane::from_bits(bits);
}

PICME_HD inline Words4 philox4x32_10(Words4 counter, uint64_t seed) {
    uint64_t c[4] = {counter.x[0], counter.x[1], counter.x[2], counter.x[3]};
    SampleMath<OneLane>::philox4x32_10(c, seed);
    return {{static_cast<uint32_t>(c[0]), static_cast<uint32_t>(c[1]), static_cast<uint32_t>(c[2]),
             static_cast<uint32_t>(c[3])}};
}

PICME_HD inline float uniform(uint32_t x) {
    return SampleMath<OneLane>::uniform(x);
}

PICME_HD inline float log_poly(float x) {
    return SampleMath<OneLane>::log_poly(x);
}

PICME_HD inline float exp_poly(float x) {
    return SampleMath<OneLane>::exp_poly(x);
}

PICME_HD inline void sincos_poly(float u, float* sine, float* cosine) {
    SampleMath<OneLane>::sincos_poly(u, sine, cosine);
}

PICME_HD inline Floats4 normals(Words4 words) {
    Floats4 eps;
    SampleMath<OneLane>::normals(words.x, eps.x);
    return eps;
}

PICME_HD inline uint32_t float16_bits(float x) {
    return SampleMath<OneLane>::float16_bits(x);
}

PICME_HD inline uint32_t bfloat16_bits(float x) {
    return SampleMath<OneLane>::bfloat16_bits(x);
}

}  // namespace picme
