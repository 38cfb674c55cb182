// The loops of the sampler, eight numbers at a time. Compiled with -mavx2, called where it runs.
#include <immintrin.h>

#include "lanes_loops.h"

namespace picme {
namespace {

struct EightLanes {
    typedef float F __attribute__((vector_size(32)));
    typedef uint32_t U __attribute__((vector_size(32)));
    typedef int32_t I __attribute__((vector_size(32)));
    typedef uint64_t Wide __attribute__((vector_size(32)));
    typedef double Doubles __attribute__((vector_size(32)));
    static constexpr int kLanes = 8;

    static F from_bits(U bits) { return (F)bits; }
    static U bits(F value) { return (U)value; }
    static F floor(F x) { return (F)_mm256_floor_ps((__m256)x); }
    static F square_root(F x) { return (F)_mm256_sqrt_ps((__m256)x); }
    static F to_float(I n) { return (F)_mm256_cvtepi32_ps((__m256i)n); }
    static I to_int(F x) { return (I)_mm256_cvttps_epi32((__m256)x); }
    static Wide product(Wide word, uint32_t factor) {
        return (Wide)_mm256_mul_epu32((__m256i)word, _mm256_set1_epi64x(factor));
    }

    // Lane l takes counter 2 * (l mod 4) + l / 4, so that to_memory_order need not leave 128 bits.
    static void words(Stream stream, uint32_t counter, U* words) {
        Wide even[4] = {{}, Wide{0, 4, 1, 5} + counter, {}, {}};
        Wide odd[4] = {{}, Wide{2, 6, 3, 7} + counter, {}, {}};
        even[0] = odd[0] = even[0] + stream.place;
        even[2] = odd[2] = even[2] + stream.index;
        SampleMath<EightLanes>::philox4x32_10(even, stream.seed);
        SampleMath<EightLanes>::philox4x32_10(odd, stream.seed);
        for (int j = 0; j < 4; ++j) {
            words[j] = (U)_mm256_blend_epi32((__m256i)even[j],
                                             _mm256_slli_epi64((__m256i)odd[j], 32), 0xAA);
        }
    }
    // From number j of all counters in eps[j] to all numbers of two counters in each.
    static void to_memory_order(F* eps) {
        const __m256 e0 = (__m256)eps[0], e1 = (__m256)eps[1], e2 = (__m256)eps[2],
                     e3 = (__m256)eps[3];
        const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(e0, e1));
        const __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(e0, e1));
        const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(e2, e3));
        const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(e2, e3));
        eps[0] = (F)_mm256_unpacklo_pd(a, c);
        eps[1] = (F)_mm256_unpackhi_pd(a, c);
        eps[2] = (F)_mm256_unpacklo_pd(b, d);
        eps[3] = (F)_mm256_unpackhi_pd(b, d);
    }

    static F load(const float* from) { return (F)_mm256_loadu_ps(from); }
    static Doubles load(const double* from) { return (Doubles)_mm256_loadu_pd(from); }
    static Doubles to_doubles(const float* from) {
        return (Doubles)_mm256_cvtps_pd(_mm_loadu_ps(from));
    }
    static void store(float* to, F value) { _mm256_storeu_ps(to, (__m256)value); }
    static void store(double* to, Doubles value) { _mm256_storeu_pd(to, (__m256d)value); }
    static void store_halves(uint16_t* to, U value) {
        const __m256i twice = _mm256_packus_epi32((__m256i)value, (__m256i)value);
        const __m256i packed = _mm256_permute4x64_epi64(twice, 0x08);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
    }
};

}  // namespace

const LaneKernels kAvx2Kernels = Loops<EightLanes>::table("avx2");

}  // namespace picme
