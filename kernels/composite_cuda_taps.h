// Taps on a GPU. A thread asks for several values before it uses the first: a load that is waited
// for alone costs as much time as many.
#pragma once

#include "composite_cuda.h"
#include "composite_math.h"

// Before a loop that nvcc shall not unroll, for copies of it would cost registers and with them
// threads; and before one that it shall unroll.
#ifdef __CUDACC__
#define PICME_ROLLED _Pragma("unroll 1")
#define PICME_UNROLLED _Pragma("unroll")
#else
#define PICME_ROLLED
#define PICME_UNROLLED
#endif

namespace picme::composite {

// Value i that comes out is sum_t weights[t * count + i] * value(first[i] + t), in that order.
struct DeviceTaps {
    const int32_t* first;
    const float* weights;
    int count, width;

    __device__ DeviceTaps(const uint8_t* canvases, const PackedTaps& taps)
        : first(reinterpret_cast<const int32_t*>(canvases + taps.first)),
          weights(reinterpret_cast<const float*>(canvases + taps.weights)),
          count(static_cast<int>(taps.count)),
          width(static_cast<int>(taps.width)) {}

    // kAtOnce values are asked for at once. A first product that is added to 0 is what it was but
    // for the sign of a zero.
    template <int kAtOnce = 1, class Value>
    __device__ float sum(int i, const Value& value) const {
        const int from = first[i];
        float total = 0.0f;
        PICME_ROLLED
        for (int t = 0; t < width; t += kAtOnce) {
            float factor[kAtOnce], term[kAtOnce];
            PICME_UNROLLED
            for (int n = 0; n < kAtOnce; ++n) {
                const int each = t + n < width ? t + n : width - 1;
                factor[n] = weights[each * count + i];
                term[n] = value(from + each);
            }
            PICME_UNROLLED
            for (int n = 0; n < kAtOnce; ++n) {
                if (t + n < width) total = next_tap(total, factor[n], term[n]);
            }
        }
        return total;
    }
};

// The taps of one value in registers, where they are four: what is enlarged has so many.
struct FourTaps {
    int from;
    float weights[4];

    __device__ FourTaps(const DeviceTaps& taps, int i) : from(taps.first[i]) {
        PICME_UNROLLED
        for (int t = 0; t < 4; ++t) weights[t] = taps.weights[t * taps.count + i];
    }

    template <class Value>
    __device__ float sum(const Value& value) const {
        float total = first_tap(weights[0], value(from));
        PICME_UNROLLED
        for (int t = 1; t < 4; ++t) total = next_tap(total, weights[t], value(from + t));
        return total;
    }
};

}  // namespace picme::composite
