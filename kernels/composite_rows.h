// The composite's loops over one row: one table of them for each instruction set.
#pragma once

#include <cstdint>

namespace picme::composite {

constexpr int64_t kChannels = 3;

// Lines of n values, three of them where a pointer to pointers stands (red, green, blue).
struct RowLoops {
    const char* name;
    void (*from_half)(const uint16_t* in, int64_t n, float* out);
    void (*from_bfloat)(const uint16_t* in, int64_t n, float* out);
    // sum = sum + what g missed
    void (*add_missed)(const uint8_t* known, const float* image, const float* picture, int64_t n,
                       float* sum);
    void (*blend)(const uint8_t* known, const float* image, const float* picture,
                  const float* shift, int64_t n, float* out);
    void (*add)(const float* picture, const float* shift, int64_t n, float* out);
    // out[x] = sum_t weights[t * stride] * lines[t][x]
    void (*down)(const float* const* lines, const float* weights, int64_t stride, int64_t taps,
                 int64_t n, float* out);
    // out[c][x] = sum_t weights[t * stride + x] * lines[c][first[x] - origin + t]
    void (*across)(const float* const* lines, int64_t origin, const int32_t* first,
                   const float* weights, int64_t stride, int64_t taps, int64_t n,
                   float* const* out);
    // out[3 * x + c] = to_byte(lines[c][x])
    void (*to_bytes)(const float* const* lines, int64_t n, uint8_t* out);
};

}  // namespace picme::composite
