// The loops of the composite, sixteen values at a time. Compiled with -mavx512f, dq, bw and vl,
// called where they run.
#include <immintrin.h>

#include "composite_wide.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // false alarms inside GCC 12's immintrin.h
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

namespace picme::composite {
namespace {

struct SixteenLanes {
    typedef float F __attribute__((vector_size(64)));
    static constexpr int64_t kLanes = 16;

    static F load(const float* from) { return (F)_mm512_loadu_ps(from); }
    static void store(float* to, F value) { _mm512_storeu_ps(to, (__m512)value); }

    // 0 where `known` is 0.
    static F where(const uint8_t* known, F value) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(known));
        return (F)_mm512_maskz_mov_ps(_mm_test_epi8_mask(bytes, bytes), (__m512)value);
    }

    static __m512i places(const int32_t* first, int32_t from) {
        return _mm512_sub_epi32(_mm512_loadu_si512(first), _mm512_set1_epi32(from));
    }
    static F take(const float* from, __m512i places) {
        return (F)_mm512_permutexvar_ps(places, _mm512_loadu_ps(from));
    }

    // As to_byte does it.
    static __m512i bytes(F value) {
        const __m512 level = (__m512)((value + 1.0f) * 127.5f);
        // min gives its second argument where one is NaN, cvt the smallest integer for it
        const __m512i whole = _mm512_cvtps_epi32(_mm512_min_ps(_mm512_set1_ps(255.0f), level));
        return _mm512_max_epi32(whole, _mm512_setzero_si512());
    }

    static void store_pixels(const F* value, uint8_t* out) {
        const __m512i words =
            _mm512_or_si512(_mm512_or_si512(bytes(value[0]), _mm512_slli_epi32(bytes(value[1]), 8)),
                            _mm512_slli_epi32(bytes(value[2]), 16));
        const __m512i three = _mm512_maskz_broadcast_i32x4(
            0xFFFF, _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
        const __m512i order =
            _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15);
        const __m512i packed = _mm512_permutexvar_epi32(order, _mm512_shuffle_epi8(words, three));
        // two stores, for masked ones are slow
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_castsi512_si256(packed));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 32),
                         _mm512_extracti32x4_epi32(packed, 2));
    }
};

}  // namespace

extern const RowLoops k_avx512;
constexpr RowLoops k_avx512 = row_loops<WideLoops<SixteenLanes>>("avx512");

}  // namespace picme::composite
