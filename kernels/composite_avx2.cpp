// The loops of the composite, eight values at a time. Compiled with -mavx2, called where they run.
#include <immintrin.h>

#include "composite_wide.h"

namespace picme::composite {
namespace {

struct EightLanes {
    typedef float F __attribute__((vector_size(32)));
    static constexpr int64_t kLanes = 8;

    static F load(const float* from) { return (F)_mm256_loadu_ps(from); }
    static void store(float* to, F value) { _mm256_storeu_ps(to, (__m256)value); }

    // 0 where `known` is 0.
    static F where(const uint8_t* known, F value) {
        const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(known));
        const __m256i unknown =
            _mm256_cmpeq_epi32(_mm256_cvtepu8_epi32(bytes), _mm256_setzero_si256());
        return (F)_mm256_andnot_ps((__m256)unknown, (__m256)value);
    }

    static __m256i places(const int32_t* first, int32_t from) {
        const __m256i there = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(first));
        return _mm256_sub_epi32(there, _mm256_set1_epi32(from));
    }
    static F take(const float* from, __m256i places) {
        return (F)_mm256_permutevar8x32_ps(_mm256_loadu_ps(from), places);
    }

    // As to_byte does it.
    static __m256i bytes(F value) {
        const __m256 level = (__m256)((value + 1.0f) * 127.5f);
        // min gives its second argument where one is NaN, cvt the smallest integer for it
        const __m256i whole = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_set1_ps(255.0f), level));
        return _mm256_max_epi32(whole, _mm256_setzero_si256());
    }

    static void store_pixels(const F* value, uint8_t* out) {
        const __m256i words =
            _mm256_or_si256(_mm256_or_si256(bytes(value[0]), _mm256_slli_epi32(bytes(value[1]), 8)),
                            _mm256_slli_epi32(bytes(value[2]), 16));
        const __m256i three = _mm256_broadcastsi128_si256(
            _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
        const __m256i order = _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7);
        const __m256i packed =
            _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(words, three), order);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(packed));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(out + 16), _mm256_extracti128_si256(packed, 1));
    }
};

}  // namespace

extern const RowLoops k_avx2;
constexpr RowLoops k_avx2 = row_loops<WideLoops<EightLanes>>("avx2");

}  // namespace picme::composite
