// Batch norm of each picture over places that have weights, and LeakyReLU after it: forward, back,
// and the tangent's way. Maps are (batch, places, channels), of float32 or bfloat16; sums,
// statistics and what is between are float32.
#pragma once

#include <cstdint>
#include <string>

namespace picme {

constexpr float kNormEpsilon = 1e-5f;

struct NormParams {
    int64_t batch, places, channels;
    bool half;             // maps are bfloat16, else float32
    float slope;           // of LeakyReLU below 0
    const float* share;    // weights w of a picture's places, sum 1
    int64_t share_pitch;   // from one picture's to the next one's; 0: all have the same
    const float* gamma;    // (channels)
    const float* beta;     // (channels)
    const void* a;         // map: the convolution's result
    float* mean;           // (batch, channels), written by forward, read by the others: E[a]
    float* inverse;        // likewise: i = 1 / sqrt(E[c^2] + epsilon) with c = a - E[a]
    void* y;               // map, written by forward: LeakyReLU(gamma i c + beta)
    const void* gradient;  // map: the gradient for y; from here on for back and tangent
    float* total;          // (batch, channels), written by back: sum of g, the one before LeakyReLU
    float* along;          // likewise: sum of g c
    const void* u;         // map: the tangent of a
    void* pull;            // map, written by tangent, which may be `u`: the gradient for a of what
                           // the tangent says; back adds it unless it is null
    void* out;             // map, written, which may be `gradient`: by back the gradient for a, by
                           // tangent the tangent of y
    float* of_gamma;       // (batch, channels), written by tangent: likewise the gradient for gamma
};

enum class NormPass { kForward, kBack, kTangent };

// Arrays on the host; `lanes` as lanes.h has them. A channel's sums go in one order: all lanes and
// threads give the same bits.
void masked_norm_cpu(const NormParams& params, NormPass pass, const std::string& lanes,
                     int64_t threads);

// Some neighbouring channels of one picture.
using NormPart = void (*)(const NormParams& params, int64_t picture, int64_t channel);

struct NormPasses {
    NormPart forward, back, tangent;
};

struct NormLoops {
    NormPasses wide[2], one[2];  // of kNormWide channels, or one; for float32, for bfloat16
};

constexpr int64_t kNormWide = 32;

}  // namespace picme
