// Sums on a GPU that keep what their roundings lose, over the lanes of a warp too: the same bits in
// every run.
#pragma once

#include "sample_gmm_math.h"

namespace picme {

constexpr int kWarp = 32;
constexpr unsigned kEveryLane = 0xFFFFFFFFu;

__device__ inline float infinity() {
    return float_from_bits(0x7F800000u);
}

// A float32 sum together with what its roundings lost (Knuth's two-sum). Without a constructor, for
// shared memory takes none.
struct Sum {
    float value;
    float lost;

    __device__ void add(float term) {
        const float total = value + term;
        const float from_term = total - value;
        lost = lost + ((value - (total - from_term)) + (term - from_term));
        value = total;
    }
    __device__ void add(Sum other) {
        add(other.value);
        lost = lost + other.lost;
    }
    // Beyond float32 `lost` is NaN, and the value infinite.
    __device__ double total() const {
        const double whole = value;
        return value < infinity() && value > -infinity() ? whole + lost : whole;
    }
};

// The logarithm of a sum of exponentials: log(total) + top.
struct LogSum {
    double top = -infinity();
    float total = 0.0f;

    // Symmetric, so that two lanes which swap theirs agree to the bit. A NaN stays.
    __device__ void add(LogSum other) {
        if (other.top > top) {
            total = total * exp_poly(static_cast<float>(top - other.top)) + other.total;
            top = other.top;
        } else if (other.top != -infinity()) {
            total = total + other.total * exp_poly(static_cast<float>(other.top - top));
        }
    }
    __device__ double value() const {
        if (total != total) return total;
        return top == -infinity() ? top : top + log_poly(total);
    }
};

// Every lane of a warp ends with the sum over the warp.
__device__ inline LogSum over_warp(LogSum mine) {
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
        LogSum other;
        other.top = __shfl_xor_sync(kEveryLane, mine.top, distance);
        other.total = __shfl_xor_sync(kEveryLane, mine.total, distance);
        mine.add(other);
    }
    return mine;
}

// Lane 0 of a warp ends with the sum over the warp.
__device__ inline Sum over_warp(Sum mine) {
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
        Sum other;
        other.value = __shfl_down_sync(kEveryLane, mine.value, distance);
        other.lost = __shfl_down_sync(kEveryLane, mine.lost, distance);
        mine.add(other);
    }
    return mine;
}

}  // namespace picme
