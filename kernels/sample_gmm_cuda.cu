// sample_gmm on a GPU: one block a row (one sample of one image), one launch for all of them.
//
// z and primitive have the bits of the CPU, for sample_gmm_math.h computes both. log_prob is summed
// in float32 with its rounding errors kept, for float64 is 64 times slower on most cards; every sum
// runs in an order that the shapes alone decide, so it has the same bits in every run.
//
// Also compiled by NVRTC and, with kernels/emulated/cuda_runtime.h, by a host compiler.
#ifndef __CUDACC_RTC__
#include <cuda_runtime.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#endif

#include "sample_gmm.h"
#include "sample_gmm_math.h"
#include "sums_cuda.h"

namespace picme {
namespace {

constexpr int kMostThreads = 512;
constexpr double kHalfLog2Pi = 0.91893853320467274178;

__device__ int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

// One image's mixture, and the sample that a block draws from it.
struct Row {
    const float* log_alpha;
    const float* mu;
    const float* log_sigma;
    int64_t primitives, dim;
    uint64_t seed;
    uint32_t index;
    int64_t z;  // number of its first in the z of all rows

    __device__ Row(const SampleGmmParams& params, int64_t row) {
        const int64_t image = row / params.k;
        primitives = params.primitives;
        dim = params.dim;
        log_alpha = params.log_alpha + image * primitives;
        mu = params.mu + image * primitives * dim;
        log_sigma = params.log_sigma + image * primitives * dim;
        seed = params.seeds[image];
        index = static_cast<uint32_t>(params.first + row % params.k);
        z = row * dim;
    }
};

// Adds the weights in the order of the primitives, a warp computing 32 at a time, and counts the
// sums at or below the threshold. Every lane gets both.
__device__ float sum_weights(const Row& row, float threshold, int64_t* at_or_below) {
    const int lane = threadIdx.x % kWarp;
    float total = 0.0f;
    int64_t count = 0;
    for (int64_t begin = 0; begin < row.primitives; begin += kWarp) {
        const int64_t p = begin + lane;
        const float weight = p < row.primitives ? exp_poly(row.log_alpha[p]) : 0.0f;
        const int filled = static_cast<int>(smaller(kWarp, row.primitives - begin));
        for (int i = 0; i < filled; ++i) {
            total = total + __shfl_sync(kEveryLane, weight, i);
            count += total <= threshold ? 1 : 0;
        }
    }
    *at_or_below = count;
    return total;
}

// The primitive of a row; every thread gets it.
__device__ int64_t choose(const SampleGmmParams& params, const Row& row) {
    if (params.mode == Mode::mean) {
        int64_t heaviest = 0;
        for (int64_t p = 1; p < row.primitives; ++p) {
            if (row.log_alpha[p] > row.log_alpha[heaviest]) heaviest = p;
        }
        return heaviest;
    }
    if (params.mode == Mode::per_primitive) return row.index % row.primitives;
    if (params.fixed_primitive >= 0) return params.fixed_primitive;
    const Words4 words = philox4x32_10({{kPlace, 0, row.index, 0}}, row.seed);
    int64_t count;
    const float total = sum_weights(row, 0.0f, &count);
    sum_weights(row, uniform(words.x[0]) * total, &count);
    return smaller(count, row.primitives - 1);
}

// Channels 4 * quad to 4 * quad + 3 of z = mu + (T * sigma) * eps, before any rounding; what lies
// beyond D is 0.
__device__ Floats4 latent(const SampleGmmParams& params, const Row& row, int64_t primitive,
                          int64_t quad) {
    const float* mu = row.mu + primitive * row.dim;
    const float* log_sigma = row.log_sigma + primitive * row.dim;
    const bool mean = params.mode == Mode::mean;
    Floats4 eps{};
    if (!mean) {
        const uint32_t counter = static_cast<uint32_t>(quad) + 1;
        eps = normals(philox4x32_10({{kPlace, counter, row.index, 0}}, row.seed));
    }
    Floats4 z{};
    for (int j = 0; j < 4; ++j) {
        const int64_t d = 4 * quad + j;
        if (d >= row.dim) break;
        z.x[j] = mean ? mu[d] : mu[d] + (params.temperature * exp_poly(log_sigma[d])) * eps.x[j];
    }
    return z;
}

__device__ void store(const SampleGmmParams& params, int64_t at, float value) {
    if (params.rounding == Rounding::float32) {
        static_cast<float*>(params.z)[at] = value;
        return;
    }
    const bool half = params.rounding == Rounding::float16;
    uint32_t bits = half ? float16_bits(value) : bfloat16_bits(value);
    if (value != value) bits = half ? 0x7E00u : 0x7FC0u;  // nobody has looked at the inputs
    static_cast<uint16_t*>(params.z)[at] = static_cast<uint16_t>(bits);
}

// Writes z; the blocks of one row share its quads. Gives the first quad of this thread.
__device__ Floats4 draw(const SampleGmmParams& params, const Row& row, int64_t primitive) {
    const int64_t quads = (row.dim + 3) / 4;
    const int64_t step = static_cast<int64_t>(gridDim.y) * blockDim.x;
    const int64_t begin = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
    Floats4 first{};
    for (int64_t quad = begin; quad < quads; quad += step) {
        const Floats4 z = latent(params, row, primitive, quad);
        if (quad == begin) first = z;
        for (int j = 0; j < 4 && 4 * quad + j < row.dim; ++j) {
            store(params, row.z + 4 * quad + j, z.x[j]);
        }
    }
    return first;
}

// A quad that this thread has written: read again where nothing was lost by rounding, else drawn
// again, for the density is that of the unrounded z.
__device__ Floats4 drawn(const SampleGmmParams& params, const Row& row, int64_t primitive,
                         int64_t quad) {
    if (params.rounding != Rounding::float32) return latent(params, row, primitive, quad);
    Floats4 z{};
    for (int j = 0; j < 4 && 4 * quad + j < row.dim; ++j) {
        z.x[j] = static_cast<const float*>(params.z)[row.z + 4 * quad + j];
    }
    return z;
}

// This thread's part of sum_d(0.5 * ((z - mu) / sigma)^2 + log sigma) for primitive p; `first` is
// its first quad of z, drawn from `primitive`. sigma^(-1/2) is taken twice, for the whole of
// 1 / sigma does not fit into float32.
__device__ Sum distance(const SampleGmmParams& params, const Row& row, int64_t primitive,
                        const Floats4& first, int64_t p) {
    const float* mu = row.mu + p * row.dim;
    const float* log_sigma = row.log_sigma + p * row.dim;
    const int64_t quads = (row.dim + 3) / 4;
    Sum sum{};
    for (int64_t quad = threadIdx.x; quad < quads; quad += blockDim.x) {
        const bool held = quad == threadIdx.x;
        const Floats4 z = held ? first : drawn(params, row, primitive, quad);
        for (int j = 0; j < 4; ++j) {
            const int64_t d = 4 * quad + j;
            if (d >= row.dim) break;
            const float log_std = SampleMath<OneLane>::clamped(log_sigma[d]);
            const float root = exp_poly(-0.5f * log_std);
            const float score = ((z.x[j] - mu[d]) * root) * root;
            sum.add(log_std + (0.5f * score) * score);
        }
    }
    return sum;
}

// Eq. 3 at temperature 1; thread 0 gets it. The block sums over the channels, 32 primitives between
// two barriers, and its first warp over the primitives, each lane every 32nd.
__device__ float log_prob(const SampleGmmParams& params, const Row& row, int64_t primitive,
                          const Floats4& first) {
    __shared__ Sum parts[kWarp][kMostThreads / kWarp];
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    LogSum weights, terms;
    for (int64_t p = lane; p < row.primitives; p += kWarp) weights.add({row.log_alpha[p], 1.0f});
    const double log_total = over_warp(weights).value();
    const double constant = static_cast<double>(row.dim) * kHalfLog2Pi;
    for (int64_t begin = 0; begin < row.primitives; begin += kWarp) {
        const int filled = static_cast<int>(smaller(kWarp, row.primitives - begin));
        for (int i = 0; i < filled; ++i) {
            const Sum part = over_warp(distance(params, row, primitive, first, begin + i));
            if (lane == 0) parts[i][warp] = part;
        }
        __syncthreads();
        if (warp == 0 && lane < filled) {
            Sum whole{};
            const int warps = blockDim.x / kWarp;
            for (int w = 0; w < warps; ++w) whole.add(parts[lane][w]);
            const double weight = row.log_alpha[begin + lane] - log_total;
            terms.add({weight - whole.total() - constant, 1.0f});
        }
        __syncthreads();
    }
    return static_cast<float>(over_warp(terms).value());
}

}  // namespace

__global__ void __launch_bounds__(kMostThreads) sample_gmm_kernel(SampleGmmParams params) {
    const int64_t rows = params.batch * params.k;
    for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
        const Row row(params, r);
        const int64_t primitive = choose(params, row);
        const Floats4 first = draw(params, row, primitive);
        if (blockIdx.y == 0 && threadIdx.x == 0) {
            params.primitive[r] = static_cast<int32_t>(primitive);
        }
        if (params.log_prob == nullptr) continue;
        const float density = log_prob(params, row, primitive, first);
        if (threadIdx.x == 0) params.log_prob[r] = density;
    }
}

#ifndef __CUDACC_RTC__
namespace {

void check(const SampleGmmParams& params) {
    const bool sizes = params.batch >= 0 && params.dim >= 1 && params.primitives >= 1 &&
                       params.primitives <= (int64_t{1} << 31) - 1;
    const bool range =
        params.k >= 1 && params.first >= 0 && params.first <= (int64_t{1} << 32) - params.k;
    const bool fixed = params.fixed_primitive >= -1 && params.fixed_primitive < params.primitives;
    if (!sizes || !range || !fixed) {
        throw std::invalid_argument("sample_gmm: sizes, k, first or primitive out of range");
    }
}

// A thread draws a quad at a time. Without a density to sum, several blocks share a row.
cudaLaunchConfig_t shape(const SampleGmmParams& params) {
    const int64_t quads = (params.dim + 3) / 4;
    int64_t threads = kWarp;
    while (threads < quads && threads < kMostThreads) threads *= 2;
    const int64_t rows = std::min<int64_t>(params.batch * params.k, (int64_t{1} << 31) - 1);
    const int64_t blocks_a_row =
        params.log_prob ? 1 : std::min<int64_t>((quads + threads - 1) / threads, 65535);
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(rows), static_cast<unsigned>(blocks_a_row));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    return config;
}

}  // namespace

void sample_gmm_cuda(const SampleGmmParams& params, void* stream) {
    check(params);
    if (params.batch == 0) return;
    cudaLaunchConfig_t config = shape(params);
    config.stream = static_cast<cudaStream_t>(stream);
    const cudaError_t code = cudaLaunchKernelEx(&config, sample_gmm_kernel, params);
    if (code != cudaSuccess) {
        cudaGetLastError();  // told here; the next launch is not to blame
        throw std::runtime_error(std::string("sample_gmm: ") + cudaGetErrorString(code));
    }
}
#endif

}  // namespace picme
