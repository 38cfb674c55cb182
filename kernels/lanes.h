// The sampler's inner loops, one table for each instruction set: what differs between processors is
// here, everything else is compiled once. All tables give the same bits.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sample_gmm.h"

namespace picme {

// The normal numbers of one sample: number n is word n mod 4 of the counter
// (place, n / 4 + 1, index, 0).
struct Stream {
    uint64_t seed;
    uint32_t place;
    uint32_t index;
};

// Every function takes any n >= 0 and any alignment; `first` is a multiple of 4.
struct LaneKernels {
    const char* name;
    // spread = temperature * exp_poly(log_sigma)
    void (*spread)(const float* log_sigma, float temperature, float* spread, int64_t n);
    // z[i] = mu[i] + spread[i] * eps[first + i]
    void (*draw)(Stream stream, int64_t first, const float* mu, const float* spread, float* z,
                 int64_t n);
    // eps[first + i]
    void (*normal)(Stream stream, int64_t first, float* eps, int64_t n);
    // inverse = 1 / sigma; returns the sum of log_sigma as exp_poly takes it
    double (*invert)(const float* log_sigma, double* inverse, int64_t n);
    // sum of ((z - mu) * inverse)**2
    double (*squares)(const float* z, const float* mu, const double* inverse, int64_t n);
    // z as 16 bits; rounding is not float32
    void (*round)(const float* z, Rounding rounding, uint16_t* rounded, int64_t n);
    bool (*all_finite)(const float* x, int64_t n);
    // For benchmarks: the arithmetic of n draws, with no memory read or written.
    float (*memory_free)(int64_t n);
};

extern const LaneKernels kScalarKernels;
#ifdef PICME_X86
extern const LaneKernels kAvx2Kernels;
extern const LaneKernels kAvx512Kernels;
#endif

// The tables that this processor can run, the fastest first; the last is "scalar".
const std::vector<const LaneKernels*>& lane_kernels();

// One of them by its name, or the fastest for "". Throws std::invalid_argument.
const LaneKernels& lane_kernels(const std::string& name);

}  // namespace picme
