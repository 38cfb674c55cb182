// The composite's loops over one row: one table of them for each instruction set.
#pragma once

#include <cstdint>

namespace picme::composite {

constexpr int64_t kChannels = 3;
constexpr int64_t kRowsAtOnce = 4;
constexpr int64_t kBlock = 32;

// Lines of n values. Where a pointer to pointers stands there are three of them (red, green, blue),
// or `taps` of them for each channel, and weight t of these is weights[t * stride].
struct RowLoops {
    const char* name;
    void (*from_half)(const uint16_t* in, int64_t n, float* out);
    void (*from_bfloat)(const uint16_t* in, int64_t n, float* out);
    // sum = sum + what g missed, for one of up to kRowsAtOnce rows after the other; rows of `known`
    // and `image` are `pitch` values apart. live[i]: whether any of values i * kBlock to
    // (i + 1) * kBlock - 1 is known in any of the rows
    void (*add_missed)(const uint8_t* live, const uint8_t* known, const float* image, int64_t pitch,
                       const float* const* pictures, int64_t rows, int64_t n, float* sum);
    // out = blended(known, image, picture, sum_t of one channel's lines); known null: nowhere
    void (*blend)(const uint8_t* known, const float* image, const float* picture,
                  const float* const* lines, const float* weights, int64_t stride, int64_t taps,
                  int64_t n, float* out);
    // out[x] = sum_t weights[t * stride] * lines[t][x]
    void (*down)(const float* const* lines, const float* weights, int64_t stride, int64_t taps,
                 int64_t n, float* out);
    // out[c][x] = sum_t weights[t * stride + x] * lines[c][first[x] - origin + t]; the lines hold
    // `values` values
    void (*across)(const float* const* lines, int64_t values, int64_t origin, const int32_t* first,
                   const float* weights, int64_t stride, int64_t taps, int64_t n,
                   float* const* out);
    // out[3 * x + c] = to_byte(lines[c][x])
    void (*to_bytes)(const float* const* lines, int64_t n, uint8_t* out);
    // out[3 * x + c] = to_byte(plus[c][x] + sum_t weights[t * stride] * lines[c * taps + t][x]);
    // plus null: the sum alone. Three lines of `room` may be written.
    void (*down_to_bytes)(const float* const* plus, const float* const* lines, const float* weights,
                          int64_t stride, int64_t taps, int64_t n, float* const* room,
                          uint8_t* out);
};

}  // namespace picme::composite
