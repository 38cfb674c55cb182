// From the decoder's pictures to the bytes of the results. docs/compositing.md is the
// specification.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "picture_type.h"

namespace picme {

// Value i that comes out is sum_t weights[t * count + i] * in[first[i] + t].
struct Taps {
    const int32_t* first;  // (count,), never falls; first[i] + width <= the values that go in
    const float* weights;  // (width, count)
    int64_t count;
    int64_t width;
};

// Where the results of one image go, and what they share. S is the side of the decoder's picture,
// g that of the seam's grid. Arrays are C-contiguous.
struct CanvasParams {
    const float* image;                // (3, S, S), the known picture; read where `known`
    const uint8_t* known;              // (S, S), 0 or 1
    const float* pull;                 // (g, g); g divides S
    const uint8_t* inside;             // (height, width) of the box: 1 in the hole, 0 elsewhere
    int64_t grid;                      // g
    Taps blur;                         // g to g
    Taps grow;                         // g to S
    Taps rows;                         // S to height
    Taps columns;                      // S to width
    int64_t top, left, height, width;  // the box, inside the H x W of the original
};

struct CompositeParams {
    const void* pictures;  // (B, k, 3, S, S) of `type`
    PictureType type;
    const uint8_t* originals;            // (B, H, W, 3), or null: `out` holds the known pixels
    std::vector<CanvasParams> canvases;  // B of them
    uint8_t* out;                        // (B, k, H, W, 3), written; overlaps with nothing above
    int64_t k, size, height, width;      // k may be 0; size is S
};

// Arrays on the host. `lanes` is one of lane_kernels() by its name, or "" for the fastest; no bit
// depends on it or on `threads` (0: as many as the work pays for). Throws std::invalid_argument on
// sizes or taps that are not as above.
void composite_cpu(const CompositeParams& params, const std::string& lanes, int64_t threads);

}  // namespace picme
