// The composite on a GPU, in four launches: what the decoder missed is averaged and blurred across
// (a block a row of the seam's grid), blurred down and grown across (likewise); then the results
// are written in tiles of 128 x 16 pixels, those beside the box and those that it touches.
//
// The bytes are those of the CPU, for composite_math.h computes both. Also compiled by NVRTC and,
// with kernels/emulated/cuda_runtime.h, by a host compiler.
#ifndef __CUDACC_RTC__
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>
#endif

#include "composite_cuda_fill.h"

namespace picme::composite {

constexpr int kLineThreads = 128;  // of the first two kernels

// Which row of the grid a block of the first two kernels computes. The k results of an image follow
// one another: what they share is still in the cache for the next of them.
struct Line {
    int64_t image, i;
    int channel, row;

    __device__ Line(const CompositeCudaParams& params) {
        int64_t block = blockIdx.x;
        i = block % params.k;
        block /= params.k;
        row = static_cast<int>(block % params.grid);
        block /= params.grid;
        channel = static_cast<int>(block % 3);
        image = block / 3;
    }
};

// cell = what g missed, averaged; blurred across.
__global__ void __launch_bounds__(kLineThreads) composite_pool_kernel(CompositeCudaParams params) {
    __shared__ float line[kMostSide];
    const Line at(params);
    const Result result(params, at.image, at.i);
    const PackedPart cells = result.canvas.cells, shifts = result.canvas.shifts;
    if (at.row < cells.top || at.row >= cells.bottom) return;
    const int size = static_cast<int>(params.size);
    const int side = size / static_cast<int>(result.canvas.grid);
    const int right = static_cast<int>(cells.right) * side;
    for (int x = static_cast<int>(cells.left) * side + threadIdx.x; x < right; x += blockDim.x) {
        float sum = 0.0f;
        for (int y = at.row * side; y < (at.row + 1) * side; ++y) {
            const int place = y * size + x;
            if (!result.known[place]) continue;
            sum =
                sum + missed(1, result.image(at.channel, place), result.picture(at.channel, place));
        }
        line[x] = sum;
    }
    __syncthreads();
    const float share = 1.0f / static_cast<float>(side * side);
    for (int j = static_cast<int>(cells.left) + threadIdx.x; j < cells.right; j += blockDim.x) {
        float cell = line[j * side];
        for (int x = 1; x < side; ++x) cell = cell + line[j * side + x];
        line[j * side] = cell * share;
    }
    __syncthreads();
    const DeviceTaps blur(params.canvases, result.canvas.blur);
    float* out = result.blurred(at.channel, at.row);
    for (int x = static_cast<int>(shifts.left) + threadIdx.x; x < shifts.right; x += blockDim.x) {
        out[x] = blur.sum(x, [&](int j) { return line[j * side]; });
    }
}

// Blurred down, times pull; grown across.
__global__ void __launch_bounds__(kLineThreads)
    composite_spread_kernel(CompositeCudaParams params) {
    __shared__ float line[kMostSide];
    const Line at(params);
    const Result result(params, at.image, at.i);
    const PackedPart shifts = result.canvas.shifts, unknown = result.canvas.unknown;
    if (at.row < shifts.top || at.row >= shifts.bottom) return;
    const DeviceTaps blur(params.canvases, result.canvas.blur);
    const float* pull = reinterpret_cast<const float*>(params.canvases + result.canvas.pull) +
                        at.row * result.canvas.grid;
    for (int j = static_cast<int>(shifts.left) + threadIdx.x; j < shifts.right; j += blockDim.x) {
        const float cell =
            blur.sum(at.row, [&](int i) { return result.blurred(at.channel, i)[j]; });
        line[j] = cell * pull[j];
    }
    __syncthreads();
    float* out = result.grown(at.channel, at.row);
    for (int x = static_cast<int>(unknown.left) + threadIdx.x; x < unknown.right; x += blockDim.x) {
        out[x] = result.grow.sum(x, [&](int j) { return line[j]; });
    }
}

// The known pixels of the tiles that the box does not touch.
__global__ void __launch_bounds__(kTileThreads)
    composite_copy_kernel(CompositeCudaParams params, int across) {
    Tile tile;
    int64_t block = blockIdx.x;
    tile.i = block % params.k;
    block /= params.k;
    const int column = static_cast<int>(block % across);
    block /= across;
    const int64_t down = (params.height + kTileRows - 1) / kTileRows;
    const int row = static_cast<int>(block % down);
    tile.image = block / down;
    const BoxTiles box(reinterpret_cast<const PackedCanvas*>(params.canvases)[tile.image], across);
    if (row >= box.top && row < box.bottom && column >= box.left && column < box.right) return;
    tile.top = row * kTileRows;
    tile.left = column * kTileColumns;
    uint32_t words[kRows][kWords / kWarp];
    for (int r = 0; r < kRows; ++r) tile.segment(params, r).load(words[r]);
    for (int r = 0; r < kRows; ++r) tile.segment(params, r).store(words[r]);
}

// The tiles that the box touches; `blocks` blocks share those of a result. Bytes of the hole are
// put between those of the original in shared memory, so that all go out in whole words.
__global__ void __launch_bounds__(kTileThreads, 3)
    composite_fill_kernel(CompositeCudaParams params, int across, int blocks) {
    __shared__ uint32_t stage[kTileRows][kWords];
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    Tile tile;
    tile.i = blockIdx.x % params.k;
    tile.image = blockIdx.x / params.k / blocks;
    const Result result(params, tile.image, tile.i);
    const BoxTiles box(result.canvas, across);
    const int columns = box.right - box.left, tiles = columns * (box.bottom - box.top);
    for (int t = static_cast<int>(blockIdx.x / params.k % blocks); t < tiles; t += blocks) {
        tile.top = (box.top + t / columns) * kTileRows;
        tile.left = (box.left + t % columns) * kTileColumns;
        const Holes holes(params, result.canvas, tile);
        const bool any = __syncthreads_or(holes.bits != 0);
        for (int r = 0; r < kRows; ++r) {
            if (!__any_sync(kEveryLane, holes.of_row(r) != kWholeRow)) continue;
            uint32_t words[kWords / kWarp];
            tile.segment(params, r).load(words);
            uint32_t* row = stage[r * kTileWarps + warp];
            for (int j = 0; j < kWords / kWarp; ++j) row[lane + kWarp * j] = words[j];
        }
        __syncwarp();
        if (any) fill(params, result, tile, holes, stage);
        __syncwarp();
        for (int r = 0; r < kRows; ++r) {
            if (!params.originals && !__any_sync(kEveryLane, holes.of_row(r) != 0)) continue;
            uint32_t words[kWords / kWarp];
            const uint32_t* row = stage[r * kTileWarps + warp];
            for (int j = 0; j < kWords / kWarp; ++j) words[j] = row[lane + kWarp * j];
            tile.segment(params, r).store(words);
        }
    }
}

}  // namespace picme::composite

#ifndef __CUDACC_RTC__
namespace picme::composite {
namespace {

constexpr int64_t kFillBlocks = 2048;  // for all results together, at least one each
constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;

template <typename... Parameters>
void launch(void* stream, int64_t blocks, int threads, void (*kernel)(Parameters...),
            Parameters... parameters) {
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.stream = static_cast<cudaStream_t>(stream);
    const cudaError_t code = cudaLaunchKernelEx(&config, kernel, parameters...);
    if (code != cudaSuccess) {
        cudaGetLastError();  // told here; the next launch is not to blame
        throw std::runtime_error(std::string("composite: ") + cudaGetErrorString(code));
    }
}

void require(bool condition) {
    if (!condition) throw std::invalid_argument("composite: sizes, k or grid out of range");
}

}  // namespace
}  // namespace picme::composite

namespace picme {

void composite_cuda(const CompositeCudaParams& params, void* stream) {
    using namespace composite;
    require(params.batch >= 0 && params.k >= 0 && params.size >= 1 && params.size <= kMostSide);
    require(params.grid >= 1 && params.grid <= params.size);
    require(params.height >= 1 && params.height < (1 << 28) && params.width >= 1 &&
            params.width < (1 << 28));
    const int64_t results = params.batch * params.k;
    if (results == 0) return;
    const bool aligned = params.width % 4 == 0 && reinterpret_cast<uintptr_t>(params.out) % 4 == 0;
    const int64_t overhang = aligned ? 0 : kOverhang;
    const int64_t across = (params.width + overhang + kTileColumns - 1) / kTileColumns;
    const int64_t tiles = across * ((params.height + kTileRows - 1) / kTileRows);
    const int64_t lines = 3 * params.grid;
    require(results <= kMostBlocks / lines && results <= kMostBlocks / tiles);
    launch(stream, results * lines, kLineThreads, composite_pool_kernel, params);
    launch(stream, results * lines, kLineThreads, composite_spread_kernel, params);
    if (params.originals) {
        launch(stream, results * tiles, kTileThreads, composite_copy_kernel, params,
               static_cast<int>(across));
    }
    const int64_t share = (kFillBlocks + results - 1) / results;
    const int64_t blocks = tiles < share ? tiles : share;
    launch(stream, results * blocks, kTileThreads, composite_fill_kernel, params,
           static_cast<int>(across), static_cast<int>(blocks));
}

}  // namespace picme
#endif
