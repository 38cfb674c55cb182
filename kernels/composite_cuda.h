// The composite on a GPU: what its kernels read. docs/compositing.md is the specification.
#pragma once

#include <cstdint>

#include "picture_type.h"

namespace picme {

// Half-open rows and columns.
struct PackedPart {
    int64_t top, left, bottom, right;
};

// As Taps of composite.h; `first` and `weights` in bytes from the beginning of the canvases.
struct PackedTaps {
    int64_t first;    // (count,) int32
    int64_t weights;  // (width, count) float32
    int64_t count;
    int64_t width;
};

// One image's canvas: B of these begin the packed canvases, their arrays follow. It lies on the
// GPU, so that a CUDA graph can be replayed for another image. picme_rt/packed_canvases.py writes
// it, 64-bit integers in this order, and has checked all that it says.
struct PackedCanvas {
    int64_t image;   // (3, S, S) float32, in bytes from the beginning, as the next three
    int64_t known;   // (S, S) uint8, 0 or 1
    int64_t pull;    // (g, g) float32
    int64_t inside;  // (height, width) of the box, uint8, 0 or 1
    int64_t grid;    // g
    PackedTaps blur, grow, rows, columns;
    int64_t top, left, height, width;  // the box
    // Where the seam's correction is needed: the places of the decoder's picture that are not
    // known, the places of the grid that these take up, and the cells that those take up. Empty
    // where there is no correction.
    PackedPart unknown, shifts, cells;
};
static_assert(sizeof(PackedCanvas) == 37 * sizeof(int64_t), "packed_canvases.py writes 37");

// The largest side of a decoder's picture: a line of it is held in shared memory.
constexpr int64_t kMostSide = 4096;

// Arrays on the current CUDA device.
struct CompositeCudaParams {
    const void* pictures;  // (B, k, 3, S, S) of `type`
    PictureType type;
    const uint8_t* originals;  // (B, H, W, 3), or null: `out` holds the known pixels
    const uint8_t* canvases;   // packed, at a multiple of 16 bytes
    float* scratch;            // (B, k, 3, grid, grid + S), written
    uint8_t* out;              // (B, k, H, W, 3), written; overlaps with nothing above
    int64_t batch, k;          // may be 0
    int64_t size, grid;        // S <= kMostSide; the g of no canvas is larger than `grid`
    int64_t height, width;     // H, W
};

// Queues three or four kernels on the stream (a cudaStream_t) and returns: it neither waits nor
// allocates, so a CUDA graph may capture it. The bytes of `out` are those of composite_cpu. Throws
// std::invalid_argument on sizes that are not as above, std::runtime_error when a launch is
// refused; the values in the canvases are the caller's to check.
void composite_cuda(const CompositeCudaParams& params, void* stream);

}  // namespace picme
