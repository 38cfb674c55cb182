#include <immintrin.h>

#include "composite_loops.h"

namespace picme::composite {
namespace {

struct Pack {
    static constexpr int64_t kPixels = 32;  // of 8 or 16 the compiler makes no vectors
    static void pack(const uint32_t* words, uint8_t* out) {
        const __m256i three = _mm256_broadcastsi128_si256(
            _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
        const __m256i order = _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7);
        for (int64_t i = 0; i < kPixels; i += 8, out += 24) {
            const __m256i in = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words + i));
            const __m256i bytes =
                _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(in, three), order);
            _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(bytes));
            _mm_storel_epi64(reinterpret_cast<__m128i*>(out + 16),
                             _mm256_extracti128_si256(bytes, 1));
        }
    }
};

}  // namespace

extern const RowLoops k_avx2;
constexpr RowLoops k_avx2 = row_loops<Pack>("avx2");

}  // namespace picme::composite
