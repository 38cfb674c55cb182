// The loops of the sampler, sixteen numbers at a time. Compiled with -mavx512f, dq, bw and vl,
// called where they run.
#include <immintrin.h>

#include "lanes_loops.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // false alarms inside GCC 12's immintrin.h
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

namespace picme {
namespace {

struct SixteenLanes {
    typedef float F __attribute__((vector_size(64)));
    typedef uint32_t U __attribute__((vector_size(64)));
    typedef int32_t I __attribute__((vector_size(64)));
    typedef uint64_t Wide __attribute__((vector_size(64)));
    typedef double Doubles __attribute__((vector_size(64)));
    static constexpr int kLanes = 16;

    static F from_bits(U bits) { return (F)bits; }
    static U bits(F value) { return (U)value; }
    static F floor(F x) { return (F)_mm512_floor_ps((__m512)x); }
    static F square_root(F x) { return (F)_mm512_sqrt_ps((__m512)x); }
    static F to_float(I n) { return (F)_mm512_cvtepi32_ps((__m512i)n); }
    static I to_int(F x) { return (I)_mm512_cvttps_epi32((__m512)x); }
    static Wide product(Wide word, uint32_t factor) {
        return (Wide)_mm512_mul_epu32((__m512i)word, _mm512_set1_epi64(factor));
    }

    // Lane l takes counter 4 * (l mod 4) + l / 4, so that to_memory_order need not leave 128 bits.
    static void words(Stream stream, uint32_t counter, U* words) {
        Wide even[4] = {{}, Wide{0, 8, 1, 9, 2, 10, 3, 11} + counter, {}, {}};
        Wide odd[4] = {{}, Wide{4, 12, 5, 13, 6, 14, 7, 15} + counter, {}, {}};
        even[0] = odd[0] = even[0] + stream.place;
        even[2] = odd[2] = even[2] + stream.index;
        SampleMath<SixteenLanes>::philox4x32_10(even, stream.seed);
        SampleMath<SixteenLanes>::philox4x32_10(odd, stream.seed);
        for (int j = 0; j < 4; ++j) {
            const __m512 low = (__m512)even[j], high = (__m512)odd[j];
            words[j] = (U)_mm512_mask_moveldup_ps(low, 0xAAAA, high);
        }
    }
    // From number j of all counters in eps[j] to all numbers of four counters in each.
    static void to_memory_order(F* eps) {
        const __m512 e0 = (__m512)eps[0], e1 = (__m512)eps[1], e2 = (__m512)eps[2],
                     e3 = (__m512)eps[3];
        const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(e0, e1));
        const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(e0, e1));
        const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(e2, e3));
        const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(e2, e3));
        eps[0] = (F)_mm512_unpacklo_pd(a, c);
        eps[1] = (F)_mm512_unpackhi_pd(a, c);
        eps[2] = (F)_mm512_unpacklo_pd(b, d);
        eps[3] = (F)_mm512_unpackhi_pd(b, d);
    }

    static F load(const float* from) { return (F)_mm512_loadu_ps(from); }
    static Doubles load(const double* from) { return (Doubles)_mm512_loadu_pd(from); }
    static Doubles to_doubles(const float* from) {
        return (Doubles)_mm512_cvtps_pd(_mm256_loadu_ps(from));
    }
    static void store(float* to, F value) { _mm512_storeu_ps(to, (__m512)value); }
    static void store(double* to, Doubles value) { _mm512_storeu_pd(to, (__m512d)value); }
    static void store_halves(uint16_t* to, U value) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16((__m512i)value));
    }
};

}  // namespace

const LaneKernels kAvx512Kernels = Loops<SixteenLanes>::table("avx512");

}  // namespace picme
