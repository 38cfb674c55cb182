// Standard normal numbers by the sampler's counter, for noise maps. docs/sampling.md specifies
// them.
#pragma once

#include <cstdint>

#include "lanes.h"

namespace picme {

// B images, k samples an image, n numbers a sample.
struct NormalParams {
    const uint64_t* seeds;  // (B,)
    float* eps;             // (B, k, n), written
    int64_t batch;          // B, may be 0
    int64_t k;              // k >= 1
    int64_t size;           // n, in 0 .. 2**34 - 4
    int64_t first;          // index of the first sample; first + k <= 2**32
    int64_t place;          // counter word 0, in 0 .. 2**32 - 1
};

// Arrays on the host. No bit depends on `lanes` or on `threads` (0: as many as the work pays for).
// Throws std::invalid_argument on sizes that are not as above.
void normal_cpu(const NormalParams& params, const LaneKernels& lanes, int64_t threads);

}  // namespace picme
