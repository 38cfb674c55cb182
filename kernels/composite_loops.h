// The loops of composite_rows.h, to be included once by the source of each instruction set.
//
// Plain loops, which the compiler turns into vector code: every lane does what composite_math.h
// says, so that all instruction sets give the same bits. All is `static`, and no header with
// functions of its own comes in: nothing built for one instruction set may serve another.
#pragma once

#include "composite_math.h"
#include "composite_rows.h"

namespace picme::composite {
namespace loops {

static void half_line(const uint16_t* in, int64_t n, float* __restrict out) {
    for (int64_t x = 0; x < n; ++x) out[x] = from_half(in[x]);
}

static void bfloat_line(const uint16_t* in, int64_t n, float* __restrict out) {
    for (int64_t x = 0; x < n; ++x) out[x] = from_bfloat(in[x]);
}

// The pictures are read once, in pieces of rows, which comes in too slowly by itself: a block asks
// for what stands some rows below it. Beyond the picture's end that does nothing.
constexpr int64_t kAhead = 2048;

static inline void ask_for(const float* block) {
    for (int64_t x = 0; x < kBlock; x += 16) __builtin_prefetch(block + x);
}

// Columns begin:end of R rows.
template <int R>
static inline void add_missed_part(const uint8_t* known, const float* image, int64_t pitch,
                                   const float* const* pictures, int64_t begin, int64_t end,
                                   float* __restrict sum) {
    for (int64_t x = begin; x < end; ++x) {
        float total = sum[x];
        for (int r = 0; r < R; ++r) {
            const int64_t at = r * pitch + x;
            total = total + missed(known[at], image[at], pictures[r][x]);
        }
        sum[x] = total;
    }
}

// T taps at once, the first of all among them or not.
template <int T, bool kFirst>
static void down_of(const float* const* lines, const float* weights, int64_t stride, int64_t n,
                    float* __restrict out) {
    const float* line[T];
    float weight[T];
    for (int t = 0; t < T; ++t) line[t] = lines[t], weight[t] = weights[t * stride];
    for (int64_t x = 0; x < n; ++x) {
        float sum = kFirst ? first_tap(weight[0], line[0][x]) : out[x];
        for (int t = kFirst; t < T; ++t) sum = next_tap(sum, weight[t], line[t][x]);
        out[x] = sum;
    }
}

static void down(const float* const* lines, const float* weights, int64_t stride, int64_t taps,
                 int64_t n, float* out) {
    if (taps == 2) return down_of<2, true>(lines, weights, stride, n, out);
    if (taps < 4) {
        down_of<1, true>(lines, weights, stride, n, out);
    } else {
        down_of<4, true>(lines, weights, stride, n, out);
    }
    int64_t t = taps < 4 ? 1 : 4;
    for (; t + 4 <= taps; t += 4) {
        down_of<4, false>(lines + t, weights + t * stride, stride, n, out);
    }
    for (; t < taps; ++t) down_of<1, false>(lines + t, weights + t * stride, stride, n, out);
}

// out[c] = plus[c] + sum_t of channel c's lines; plus null: nothing more
static void down_to(const float* const* plus, const float* const* lines, const float* weights,
                    int64_t stride, int64_t taps, int64_t n, float* const* out) {
    for (int64_t c = 0; c < kChannels; ++c) {
        down(lines + c * taps, weights, stride, taps, n, out[c]);
        if (!plus) continue;
        const float* __restrict base = plus[c];
        float* __restrict sum = out[c];
        for (int64_t x = 0; x < n; ++x) sum[x] = base[x] + sum[x];
    }
}

// T = 0: any number of taps.
template <int T, bool kKnown>
static void blend_of(const uint8_t* known, const float* image, const float* picture,
                     const float* const* lines, const float* weights, int64_t stride, int64_t taps,
                     int64_t n, float* __restrict out) {
    const int64_t count = T > 0 ? T : taps;
    const auto value = [&](int64_t x) {
        float shift = first_tap(weights[0], lines[0][x]);
        for (int64_t t = 1; t < count; ++t) {
            shift = next_tap(shift, weights[t * stride], lines[t][x]);
        }
        return kKnown ? blended(known[x], image[x], picture[x], shift) : picture[x] + shift;
    };
    int64_t x = 0;
    for (; x + kBlock <= n; x += kBlock) {
        ask_for(picture + x + kAhead);
        for (int64_t i = x; i < x + kBlock; ++i) out[i] = value(i);
    }
    for (; x < n; ++x) out[x] = value(x);
}

template <bool kKnown>
static constexpr auto blend_for(int64_t taps) {
    return taps == 1 ? blend_of<1, kKnown> : taps == 2 ? blend_of<2, kKnown> : blend_of<0, kKnown>;
}

static void blend(const uint8_t* known, const float* image, const float* picture,
                  const float* const* lines, const float* weights, int64_t stride, int64_t taps,
                  int64_t n, float* out) {
    const auto run = known ? blend_for<true>(taps) : blend_for<false>(taps);
    run(known, image, picture, lines, weights, stride, taps, n, out);
}

// Columns begin:end.
template <int T>
static void across_part(const float* const* lines, int64_t origin, const int32_t* first,
                        const float* weights, int64_t stride, int64_t taps, int64_t begin,
                        int64_t end, float* const* out) {
    const int64_t count = T > 0 ? T : taps;
    const float *red = lines[0], *green = lines[1], *blue = lines[2];
    float* __restrict out_red = out[0], * __restrict out_green = out[1], * __restrict out_blue = out[2];
    for (int64_t x = begin; x < end; ++x) {
        const int64_t at = first[x] - origin;
        float r = first_tap(weights[x], red[at]);
        float g = first_tap(weights[x], green[at]);
        float b = first_tap(weights[x], blue[at]);
        for (int64_t t = 1; t < count; ++t) {
            const float weight = weights[t * stride + x];
            r = next_tap(r, weight, red[at + t]);
            g = next_tap(g, weight, green[at + t]);
            b = next_tap(b, weight, blue[at + t]);
        }
        out_red[x] = r, out_green[x] = g, out_blue[x] = b;
    }
}

}  // namespace loops

// The loops that an instruction set has to itself are those of `Own`.
template <class Own>
static constexpr RowLoops row_loops(const char* name) {
    return {name,        loops::half_line, loops::bfloat_line, Own::add_missed,   loops::blend,
            loops::down, Own::across,      Own::to_bytes,      Own::down_to_bytes};
}

}  // namespace picme::composite
