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
    static void add_missed_of(const uint8_t* known, const float* image, int64_t pitch,
                              const float* const* pictures, int64_t n, float* sum) {
        const float* picture[R];
        for (int r = 0; r < R; ++r) picture[r] = pictures[r];
        int64_t x = 0;
        for (; x + loops::kBlock <= n; x += loops::kBlock) {
            if (!loops::any_known<R>(known + x, pitch)) continue;
            for (int r = 0; r < R; ++r) loops::ask_ahead(picture[r] + x, R * pitch * 4);
            for (int64_t i = x; i < x + loops::kBlock; i += kLanes) {
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

    static void add_missed(const uint8_t* known, const float* image, int64_t pitch,
                           const float* const* pictures, int64_t rows, int64_t n, float* sum) {
        if (rows == kRowsAtOnce) {
            return add_missed_of<kRowsAtOnce>(known, image, pitch, pictures, n, sum);
        }
        for (int64_t r = 0; r < rows; ++r) {
            add_missed_of<1>(known + r * pitch, image + r * pitch, pitch, pictures + r, n, sum);
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
            F sum[kChannels];
            for (int64_t t = 0; t < count; ++t) {
                const F weight = L::load(weights + t * stride + x);
                for (int64_t c = 0; c < kChannels; ++c) {
                    const F part = weight * L::take(lines[c] + at + t, places);
                    sum[c] = t == 0 ? part : sum[c] + part;
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

    // T lines a channel, or, with T = 0, one that is taken as it is.
    template <int T>
    static void bytes_of(const float* const* lines, const float* weights, int64_t stride, int64_t n,
                         uint8_t* out) {
        constexpr int kLines = T > 0 ? T : 1;
        const float* line[kChannels * kLines];
        float weight[kLines] = {};
        for (int i = 0; i < kChannels * kLines; ++i) line[i] = lines[i];
        for (int t = 0; t < T; ++t) weight[t] = weights[t * stride];
        int64_t x = 0;
        for (; x + kLanes <= n; x += kLanes) {
            F value[kChannels];
            for (int c = 0; c < kChannels; ++c) {
                value[c] = L::load(line[c * kLines] + x);
                if (T > 0) value[c] = weight[0] * value[c];
                for (int t = 1; t < T; ++t) {
                    value[c] = value[c] + weight[t] * L::load(line[c * kLines + t] + x);
                }
            }
            L::store_pixels(value, out + 3 * x);
        }
        for (; x < n; ++x) {
            for (int c = 0; c < kChannels; ++c) {
                float value = line[c * kLines][x];
                if (T > 0) value = first_tap(weight[0], value);
                for (int t = 1; t < T; ++t) {
                    value = next_tap(value, weight[t], line[c * kLines + t][x]);
                }
                out[3 * x + c] = to_byte(value);
            }
        }
    }

    static void to_bytes(const float* const* lines, int64_t n, uint8_t* out) {
        bytes_of<0>(lines, nullptr, 0, n, out);
    }

    static void down_to_bytes(const float* const* lines, const float* weights, int64_t stride,
                              int64_t taps, int64_t n, float* const* room, uint8_t* out) {
        if (taps == 4) return bytes_of<4>(lines, weights, stride, n, out);
        for (int64_t c = 0; c < kChannels; ++c) {
            loops::down(lines + c * taps, weights, stride, taps, n, room[c]);
        }
        to_bytes(room, n, out);
    }
};

}  // namespace picme::composite
