#include <immintrin.h>

#include "composite_loops.h"

namespace picme::composite {
namespace {

struct Pack {
    static constexpr int64_t kPixels = 16;
    static void pack(const uint32_t* words, uint8_t* out) {
        const __m512i in = _mm512_loadu_si512(words);
        const __m512i lanes = _mm512_shuffle_epi8(
            in, _mm512_maskz_broadcast_i32x4(
                    0xFFFF, _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1)));
        const __m512i order =
            _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15);
        _mm512_mask_storeu_epi32(out, 0x0FFF, _mm512_maskz_permutexvar_epi32(0x0FFF, order, lanes));
    }
};

}  // namespace

extern const RowLoops k_avx512;
constexpr RowLoops k_avx512 = row_loops<Pack>("avx512");

}  // namespace picme::composite
