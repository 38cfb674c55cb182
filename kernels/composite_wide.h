// Loops of composite_rows.h over vectors, for what the compiler makes no good vectors of: values
// taken from uneven places, and bytes. To be included once by the source of an instruction set,
// whose type of lanes L says how these move; sums are as in composite_math.h, operator by operator.
#pragma once

#include "composite_loops.h"

namespace picme::composite {

template <class L>
struct WideLoops {
    using F = typename L::F;
    static constexpr int64_t kLanes = L::kLanes;

    template <int R>
    static void add_missed_of(const uint8_t* live, const uint8_t* known, const float* image,
                              int64_t pitch, const float* const* pictures, int64_t n, float* sum) {
        const float* picture[R];
        for (int r = 0; r < R; ++r) picture[r] = pictures[r];
        int64_t x = 0;
        for (; x + kBlock <= n; x += kBlock) {
            if (!live[x / kBlock]) continue;
            for (int r = 0; r < R; ++r) loops::ask_for(picture[r] + x + R * pitch);
            for (int64_t i = x; i < x + kBlock; i += kLanes) {
                F total = L::load(sum + i);
                for (int r = 0; r < R; ++r) {
                    const int64_t at = r * pitch + i;
                    const F difference = L::load(image + at) - L::load(picture[r] + i);
                    total = total + L::where(known + at, difference);
                }
                L::store(sum + i, total);
            }
        }
        loops::add_missed_part<R>(known, image, pitch, picture, x, n, sum);
    }

    static void add_missed(const uint8_t* live, const uint8_t* known, const float* image,
                           int64_t pitch, const float* const* pictures, int64_t rows, int64_t n,
                           float* sum) {
        if (rows == kRowsAtOnce) {
            return add_missed_of<kRowsAtOnce>(live, known, image, pitch, pictures, n, sum);
        }
        for (int64_t r = 0; r < rows; ++r) {
            add_missed_of<1>(live, known + r * pitch, image + r * pitch, pitch, pictures + r, n,
                             sum);
        }
    }

    // A block of results takes its values from kLanes neighbours a tap, where they reach.
    template <int T>
    static void across_of(const float* const* lines, int64_t values, int64_t origin,
                          const int32_t* first, const float* weights, int64_t stride, int64_t taps,
                          int64_t n, float* const* out) {
        const int64_t count = T > 0 ? T : taps;
        const int64_t last = values - (count - 1) - kLanes;  // where neighbours may begin
        int64_t x = 0;
        for (; x + kLanes <= n; x += kLanes) {
            const int64_t here = first[x] - origin, at = here < last ? here : last;
            const bool reach = at >= 0 && first[x + kLanes - 1] - origin - at < kLanes;
            if (!reach) {
                loops::across_part<T>(lines, origin, first, weights, stride, taps, x, x + kLanes,
                                      out);
                continue;
            }
            const auto places = L::places(first + x, static_cast<int32_t>(origin + at));
            F sum[kChannels], weight = L::load(weights + x);
            for (int64_t c = 0; c < kChannels; ++c) {
                sum[c] = weight * L::take(lines[c] + at, places);
            }
            for (int64_t t = 1; t < count; ++t) {
                weight = L::load(weights + t * stride + x);
                for (int64_t c = 0; c < kChannels; ++c) {
                    sum[c] = sum[c] + weight * L::take(lines[c] + at + t, places);
                }
            }
            for (int64_t c = 0; c < kChannels; ++c) L::store(out[c] + x, sum[c]);
        }
        loops::across_part<T>(lines, origin, first, weights, stride, taps, x, n, out);
    }

    static void across(const float* const* lines, int64_t values, int64_t origin,
                       const int32_t* first, const float* weights, int64_t stride, int64_t taps,
                       int64_t n, float* const* out) {
        const auto run = taps == 2 ? across_of<2> : taps == 4 ? across_of<4> : across_of<0>;
        run(lines, values, origin, first, weights, stride, taps, n, out);
    }

    // Bytes of the sum of T lines a channel, on top of one of `plus` if there is one.
    template <int T, bool kPlus>
    static void bytes_of(const float* const* plus, const float* const* lines, const float* weights,
                         int64_t stride, int64_t n, uint8_t* out) {
        const float *base[kChannels] = {}, *line[kChannels * T + 1];
        float weight[T + 1];
        for (int c = 0; c < kChannels && kPlus; ++c) base[c] = plus[c];
        for (int i = 0; i < kChannels * T; ++i) line[i] = lines[i];
        for (int t = 0; t < T; ++t) weight[t] = weights[t * stride];
        int64_t x = 0;
        for (; x + kLanes <= n; x += kLanes) {
            F value[kChannels];
            for (int c = 0; c < kChannels; ++c) {
                F sum{};
                for (int t = 0; t < T; ++t) {
                    const F part = weight[t] * L::load(line[c * T + t] + x);
                    sum = t == 0 ? part : sum + part;
                }
                value[c] = sum;
                if (!kPlus) continue;
                value[c] = T > 0 ? L::load(base[c] + x) + sum : L::load(base[c] + x);
                if (T > 0) __builtin_prefetch(base[c] + x + loops::kAhead);
            }
            L::store_pixels(value, out + 3 * x);
        }
        for (; x < n; ++x) {
            for (int c = 0; c < kChannels; ++c) {
                float sum = 0.0f;
                for (int t = 0; t < T; ++t) {
                    const float value = line[c * T + t][x];
                    sum = t == 0 ? first_tap(weight[t], value) : next_tap(sum, weight[t], value);
                }
                const float value = !kPlus ? sum : T > 0 ? base[c][x] + sum : base[c][x];
                out[3 * x + c] = to_byte(value);
            }
        }
    }

    static void to_bytes(const float* const* lines, int64_t n, uint8_t* out) {
        bytes_of<0, true>(lines, nullptr, nullptr, 0, n, out);
    }

    static void down_to_bytes(const float* const* plus, const float* const* lines,
                              const float* weights, int64_t stride, int64_t taps, int64_t n,
                              float* const* room, uint8_t* out) {
        if (plus && taps == 2) return bytes_of<2, true>(plus, lines, weights, stride, n, out);
        if (!plus && taps == 4) return bytes_of<4, false>(plus, lines, weights, stride, n, out);
        loops::down_to(plus, lines, weights, stride, taps, n, room);
        to_bytes(room, n, out);
    }
};

}  // namespace picme::composite
