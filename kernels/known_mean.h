// From a picture's bytes to the engine's square, from the known pixels alone. docs/compositing.md
// is the specification.
#pragma once

#include <cstdint>
#include <string>

#include "composite.h"

namespace picme {

struct KnownMeanParams {
    const uint8_t* picture;  // (height, width, 3)
    const uint8_t* hole;     // (height, width): not 0 in the hole
    int64_t height, width;
    int64_t top, left, side;  // the region, which may reach beyond the picture
    Taps taps;                // side to S, for rows and columns
    float* image;             // (3, S, S), written: [-1, 1], 0 where unknown
    float* unknown;           // (S, S), written: 1 where any pixel under a place is unknown, else 0
};

// Arrays on the host; `lanes` and `threads` as for composite_cpu. Throws std::invalid_argument on
// sizes or taps that are not as above.
void known_mean_cpu(const KnownMeanParams& params, const std::string& lanes, int64_t threads);

}  // namespace picme
