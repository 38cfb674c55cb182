// The loops of the composite for every processor.
#include "composite_loops.h"

namespace picme::composite {
namespace {

struct Plain {
    static void add_missed(const uint8_t* live, const uint8_t* known, const float* image,
                           int64_t pitch, const float* const* pictures, int64_t rows, int64_t n,
                           float* sum) {
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t at = r * pitch;
            int64_t x = 0;
            for (; x + kBlock <= n; x += kBlock) {
                if (!live[x / kBlock]) continue;
                loops::ask_for(pictures[r] + x + kRowsAtOnce * pitch);
                loops::add_missed_part<1>(known + at, image + at, pitch, pictures + r, x,
                                          x + kBlock, sum);
            }
            loops::add_missed_part<1>(known + at, image + at, pitch, pictures + r, x, n, sum);
        }
    }

    static void across(const float* const* lines, int64_t, int64_t origin, const int32_t* first,
                       const float* weights, int64_t stride, int64_t taps, int64_t n,
                       float* const* out) {
        const auto run = taps == 2   ? loops::across_part<2>
                         : taps == 4 ? loops::across_part<4>
                                     : loops::across_part<0>;
        run(lines, origin, first, weights, stride, taps, 0, n, out);
    }

    // Pixels as words 0x00bbggrr: of bytes the compiler makes no vectors.
    static void to_bytes(const float* const* lines, int64_t n, uint8_t* __restrict out) {
        constexpr int64_t kPixels = 16;
        const float *red = lines[0], *green = lines[1], *blue = lines[2];
        int64_t x = 0;
        for (; x + kPixels <= n; x += kPixels) {
            uint32_t words[kPixels];
            for (int64_t i = 0; i < kPixels; ++i) {
                words[i] = to_byte(red[x + i]) | uint32_t{to_byte(green[x + i])} << 8 |
                           uint32_t{to_byte(blue[x + i])} << 16;
            }
            for (int64_t i = 0; i < kPixels; ++i) {
                for (int64_t c = 0; c < 3; ++c) out[3 * (x + i) + c] = uint8_t(words[i] >> 8 * c);
            }
        }
        for (; x < n; ++x) {
            for (int64_t c = 0; c < kChannels; ++c) out[3 * x + c] = to_byte(lines[c][x]);
        }
    }

    static void down_to_bytes(const float* const* plus, const float* const* lines,
                              const float* weights, int64_t stride, int64_t taps, int64_t n,
                              float* const* room, uint8_t* out) {
        loops::down_to(plus, lines, weights, stride, taps, n, room);
        to_bytes(room, n, out);
    }
};

}  // namespace

extern const RowLoops k_scalar;
constexpr RowLoops k_scalar = row_loops<Plain>("scalar");

}  // namespace picme::composite
