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
constexpr int64_t kBlock = 64;

static inline void ask_ahead(const float* picture) {
    const char* below = reinterpret_cast<const char*>(picture) + 8192;
    for (int64_t line = 0; line < 4; ++line) __builtin_prefetch(below + 64 * line);
}

static inline bool any_of_block(const uint8_t* known) {
    uint64_t any = 0, eight;
    for (int64_t i = 0; i < kBlock; i += sizeof eight) {
        std::memcpy(&eight, known + i, sizeof eight);
        any |= eight;
    }
    return any != 0;
}

static void add_missed(const uint8_t* known, const float* image, const float* picture, int64_t n,
                       float* __restrict sum) {
    int64_t x = 0;
    for (; x + kBlock <= n; x += kBlock) {
        if (!any_of_block(known + x)) continue;
        ask_ahead(picture + x);
        for (int64_t i = x; i < x + kBlock; ++i) {
            sum[i] = sum[i] + missed(known[i], image[i], picture[i]);
        }
    }
    for (; x < n; ++x) sum[x] = sum[x] + missed(known[x], image[x], picture[x]);
}

static void blend(const uint8_t* known, const float* image, const float* picture,
                  const float* shift, int64_t n, float* __restrict out) {
    for (int64_t x = 0; x < n; ++x) out[x] = blended(known[x], image[x], picture[x], shift[x]);
}

static void add(const float* picture, const float* shift, int64_t n, float* __restrict out) {
    int64_t x = 0;
    for (; x + kBlock <= n; x += kBlock) {
        ask_ahead(picture + x);
        for (int64_t i = x; i < x + kBlock; ++i) out[i] = picture[i] + shift[i];
    }
    for (; x < n; ++x) out[x] = picture[x] + shift[x];
}

// T = 0: any number of taps, the sum kept in `out`.
template <int T>
static void down_of(const float* const* lines, const float* weights, int64_t stride, int64_t taps,
                    int64_t n, float* __restrict out) {
    if (T > 0) {
        const float* line[T > 0 ? T : 1];
        float weight[T > 0 ? T : 1];
        for (int t = 0; t < T; ++t) line[t] = lines[t], weight[t] = weights[t * stride];
        for (int64_t x = 0; x < n; ++x) {
            float sum = first_tap(weight[0], line[0][x]);
            for (int t = 1; t < T; ++t) sum = next_tap(sum, weight[t], line[t][x]);
            out[x] = sum;
        }
        return;
    }
    for (int64_t t = 0; t < taps; ++t) {
        const float* line = lines[t];
        const float weight = weights[t * stride];
        if (t == 0) {
            for (int64_t x = 0; x < n; ++x) out[x] = first_tap(weight, line[x]);
        } else {
            for (int64_t x = 0; x < n; ++x) out[x] = next_tap(out[x], weight, line[x]);
        }
    }
}

static void down(const float* const* lines, const float* weights, int64_t stride, int64_t taps,
                 int64_t n, float* out) {
    if (taps == 2) return down_of<2>(lines, weights, stride, taps, n, out);
    if (taps == 4) return down_of<4>(lines, weights, stride, taps, n, out);
    down_of<0>(lines, weights, stride, taps, n, out);
}

template <int T>
static void across_of(const float* const* lines, int64_t origin, const int32_t* first,
                      const float* weights, int64_t stride, int64_t taps, int64_t n,
                      float* const* out) {
    const int64_t count = T > 0 ? T : taps;
    const float *red = lines[0], *green = lines[1], *blue = lines[2];
    float* __restrict out_red = out[0], * __restrict out_green = out[1], * __restrict out_blue = out[2];
    for (int64_t x = 0; x < n; ++x) {
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

static void across(const float* const* lines, int64_t origin, const int32_t* first,
                   const float* weights, int64_t stride, int64_t taps, int64_t n,
                   float* const* out) {
    const auto run = taps == 2 ? across_of<2> : taps == 4 ? across_of<4> : across_of<0>;
    run(lines, origin, first, weights, stride, taps, n, out);
}

// Pixels as words 0x00bbggrr; pack(words, out) writes the three lower bytes of kPixels of them.
template <class Pack>
static void to_bytes_by(const float* const* lines, int64_t n, uint8_t* __restrict out) {
    constexpr int64_t kPixels = Pack::kPixels;
    const float *red = lines[0], *green = lines[1], *blue = lines[2];
    int64_t x = 0;
    for (; x + kPixels <= n; x += kPixels) {
        uint32_t words[kPixels];
        for (int64_t i = 0; i < kPixels; ++i) {
            words[i] = to_byte(red[x + i]) | uint32_t{to_byte(green[x + i])} << 8 |
                       uint32_t{to_byte(blue[x + i])} << 16;
        }
        Pack::pack(words, out + 3 * x);
    }
    for (; x < n; ++x) {
        out[3 * x] = to_byte(red[x]);
        out[3 * x + 1] = to_byte(green[x]);
        out[3 * x + 2] = to_byte(blue[x]);
    }
}

struct PlainPack {
    static constexpr int64_t kPixels = 16;
    static void pack(const uint32_t* words, uint8_t* out) {
        for (int64_t i = 0; i < kPixels; ++i) {
            for (int64_t c = 0; c < 3; ++c) out[3 * i + c] = uint8_t(words[i] >> (8 * c));
        }
    }
};

}  // namespace loops

template <class Pack>
static constexpr RowLoops row_loops(const char* name) {
    return {name,       loops::half_line, loops::bfloat_line, loops::add_missed,       loops::blend,
            loops::add, loops::down,      loops::across,      loops::to_bytes_by<Pack>};
}

}  // namespace picme::composite
