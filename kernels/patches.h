// Patches of 7 x 7 pixels: which known one is nearest to each that the hole touches, and the mean
// of what they say. docs/patch.md is the specification; picme_rt/patch_ref.py gives the same bits.
#pragma once

#include <cstdint>

namespace picme {

constexpr int64_t kPatchReach = 3;  // a patch is 2 * 3 + 1 pixels a side

// A picture as it is now, and its queries: the patches that the hole touches. Patches are named by
// the flat place of their middle, row * width + column, at least kPatchReach from every border.
struct PatchPicture {
    const int16_t* pixels;   // (height, width, 4): red, green, blue in 0 .. 255, and 0
    const int16_t* weights;  // (height, width, 4): what a pixel of a query counts, 0 .. 8
    int64_t height, width;
    const int32_t* queries;  // (count,), places
    int64_t count;
};

// The nearest key of each query by price * d / (alpha + min over queries of d), which favours keys
// that nobody else is near to; alpha = infinity: by price * d. prices: (key_count,). The first of
// equal ones. found: places (count,); distances: (count,), the d.
void nearest_patches(const PatchPicture& picture, const int32_t* keys, const double* prices,
                     int64_t key_count, double alpha, int32_t* found, int32_t* distances);

struct PatchSearch {
    const uint8_t* valid;     // (height, width), not 0 at the places that are keys
    const int32_t* query_at;  // (height, width), the number of the query there, or -1
    int64_t rounds;           // each looks at 8 neighbours' keys and at random ones
    int64_t radius;           // of the first random one; halved down to 1
    uint64_t seed;
    uint32_t index,
        place;  // Philox's counter: (place + round, query's place, index, radius number)
};

// PatchMatch: improves `found` (count,) in place; distances (count,) is written.
void search_patches(const PatchPicture& picture, const PatchSearch& search, int32_t* found,
                    int32_t* distances);

// out (height, width, channels) at the places where `wanted` is not 0: the weighted mean of what
// the keys of the queries that cover a place say of it; `values` is (height, width, channels). A
// place that nobody covers stays as it is.
void vote_patches(const float* values, int64_t channels, const uint8_t* wanted,
                  const int32_t* query_at, const int32_t* found, const float* query_weights,
                  int64_t height, int64_t width, float* out);

}  // namespace picme
