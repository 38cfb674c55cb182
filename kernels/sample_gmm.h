// Sampling latents from the Gaussian mixture of PICME. docs/sampling.md is the specification.
#pragma once

#include <cstdint>

namespace picme {

enum class Mode { categorical, per_primitive, mean };
enum class Rounding { float32, float16, bfloat16 };  // of z; float32 is not rounded

// B images, P primitives, D latent channels, k samples an image. Arrays are C-contiguous.
struct SampleGmmParams {
    const float* log_alpha;  // (B, P)
    const float* mu;         // (B, P, D)
    const float* log_sigma;  // (B, P, D)
    const uint64_t* seeds;   // (B,)
    void* z;                 // (B, k, D), written: 4 bytes a number, or 2 where it is rounded
    int32_t* primitive;      // (B, k), written
    float* log_prob;         // (B, k), written; null: not asked for

    int64_t batch;       // B, may be 0
    int64_t primitives;  // P >= 1
    int64_t dim;         // D >= 1
    int64_t k;           // k >= 1

    int64_t first;  // index of the first sample; first + k <= 2**32
    Mode mode;
    int64_t fixed_primitive;  // -1, or the primitive of every sample (categorical only)
    float temperature;        // factor on sigma, finite and >= 0
    Rounding rounding;        // to nearest, ties to even; log_prob is that of the unrounded z
};

// What a call takes, in numbers that are drawn: a number costs log_prob a quarter of that for every
// primitive, and up to 16 samples of an image share one sum of its weights.
inline int64_t work_of(const SampleGmmParams& params) {
    const int64_t numbers = params.batch * params.k * params.dim;
    const int64_t sums = params.batch * ((params.k + 15) / 16) * params.primitives;
    return numbers * (params.log_prob ? 1 + params.primitives / 4 : 1) + sums;
}

struct LaneKernels;

// Arrays on the host. No bit depends on `lanes` or on `threads` (0: as many as the work pays for).
// Throws std::invalid_argument on sizes that are not as above; the values in the arrays are the
// caller's to check.
void sample_gmm_cpu(const SampleGmmParams& params, const LaneKernels& lanes, int64_t threads);

// The largest value of a row of log_alpha lies in [-limit, limit]: exp(80) times 6,141 primitives
// is still a float32.
constexpr float kLogAlphaLimit = 80.0f;
constexpr int64_t kAlwaysFinite = 6141;

// Whether mu and log_sigma are finite and log_alpha is free of NaN, within its limit, and the sum
// of its weights is a float32.
bool is_valid_mixture(const SampleGmmParams& params, const LaneKernels& lanes);

// Arrays on the current CUDA device; log_prob may be null: then none is computed. Queues one kernel
// on the stream (a cudaStream_t) and returns: it neither waits nor allocates, so a CUDA graph may
// capture it. Throws std::runtime_error when the launch is refused, else as sample_gmm_cpu.
void sample_gmm_cuda(const SampleGmmParams& params, void* stream);

}  // namespace picme
