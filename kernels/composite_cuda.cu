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

constexpr int kLineThreads = 192;  // of the first two kernels
constexpr int kUsualGrid = 128;    // up to here their lines take little shared memory

// The last digit of a block's index in mixed radix, and the rest of it. 32 bits hold both, and a
// division of 64 bits would be a hundred instructions.
struct Digit {
    int value;
    unsigned rest;

    __device__ Digit(unsigned index, int64_t count)
        : value(static_cast<int>(index % static_cast<unsigned>(count))),
          rest(index / static_cast<unsigned>(count)) {}
};

// Which row of the grid a block of the first two kernels computes, of all three channels. The k
// results of an image follow one another: what they share is still in the cache for the next.
struct Line {
    int64_t image, i;
    int row;

    __device__ Line(const CompositeCudaParams& params) {
        const Digit result(blockIdx.x, params.k), line(result.rest, params.grid);
        i = result.value;
        row = line.value;
        image = line.rest;
    }
};

// Calls make(c, x) for every channel and from <= x < to, shared by the threads of the block.
template <class Make>
__device__ inline void each_of_line(int64_t from, int64_t to, const Make& make) {
    const int count = static_cast<int>(to - from);
    for (int n = threadIdx.x; n < 3 * count; n += blockDim.x) {
        const int c = n / count;
        make(c, static_cast<int>(from) + n - c * count);
    }
}

// cell = what g missed, averaged; blurred across.
template <int kMostGrid>
__global__ void __launch_bounds__(kLineThreads, 5)
    composite_pool_kernel(CompositeCudaParams params) {
    __shared__ float line[3][kMostGrid];
    const Line at(params);
    const Result result(params, at.image, at.i);
    const PackedPart cells = result.canvas.cells, shifts = result.canvas.shifts;
    if (at.row < cells.top || at.row >= cells.bottom) return;
    each_of_line(cells.left, cells.right,
                 [&](int c, int j) { line[c][j] = result.cell(c, at.row, j); });
    __syncthreads();
    const DeviceTaps blur(params.canvases, result.canvas.blur);
    each_of_line(shifts.left, shifts.right, [&](int c, int x) {
        result.blurred(c, at.row)[x] = blur.sum<8>(x, [&](int j) { return line[c][j]; });
    });
}

// Blurred down, times pull; grown across.
template <int kMostGrid>
__global__ void __launch_bounds__(kLineThreads)
    composite_spread_kernel(CompositeCudaParams params) {
    __shared__ float line[3][kMostGrid];
    const Line at(params);
    const Result result(params, at.image, at.i);
    const PackedPart shifts = result.canvas.shifts, unknown = result.canvas.unknown;
    if (at.row < shifts.top || at.row >= shifts.bottom) return;
    const DeviceTaps blur(params.canvases, result.canvas.blur);
    const float* pull = reinterpret_cast<const float*>(params.canvases + result.canvas.pull) +
                        at.row * result.canvas.grid;
    each_of_line(shifts.left, shifts.right, [&](int c, int j) {
        const float cell = blur.sum<8>(at.row, [&](int i) { return result.blurred(c, i)[j]; });
        line[c][j] = cell * pull[j];
    });
    __syncthreads();
    each_of_line(unknown.left, unknown.right, [&](int c, int x) {
        result.grown(c, at.row)[x] = result.grow.sum<2>(x, [&](int j) { return line[c][j]; });
    });
}

// NVRTC compiles no template that nothing asks for.
template __global__ void composite_pool_kernel<kUsualGrid>(CompositeCudaParams);
template __global__ void composite_pool_kernel<kMostSide>(CompositeCudaParams);
template __global__ void composite_spread_kernel<kUsualGrid>(CompositeCudaParams);
template __global__ void composite_spread_kernel<kMostSide>(CompositeCudaParams);

// The known pixels of the tiles that the box does not touch.
__global__ void __launch_bounds__(kTileThreads)
    composite_copy_kernel(CompositeCudaParams params, int across) {
    Tile tile;
    const Digit result(blockIdx.x, params.k), beside(result.rest, across);
    const Digit below(beside.rest, (params.height + kTileRows - 1) / kTileRows);
    const int column = beside.value, row = below.value;
    tile.i = result.value;
    tile.image = below.rest;
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
__global__ void __launch_bounds__(kTileThreads, 4)
    composite_fill_kernel(CompositeCudaParams params, int across, int blocks) {
    __shared__ uint32_t stage[kTileRows][kWords];
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    Tile tile;
    const Digit index(blockIdx.x, params.k), share(index.rest, blocks);
    tile.i = index.value;
    tile.image = share.rest;
    const Result result(params, tile.image, tile.i);
    const BoxTiles box(result.canvas, across);
    const int columns = box.right - box.left, tiles = columns * (box.bottom - box.top);
    for (int t = share.value; t < tiles; t += blocks) {
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

constexpr int64_t kFillBlocks = 8192;  // for all results together, at least one each
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
    require(results <= kMostBlocks / params.grid && results <= kMostBlocks / tiles);
    const bool usual = params.grid <= kUsualGrid;
    launch(stream, results * params.grid, kLineThreads,
           usual ? composite_pool_kernel<kUsualGrid> : composite_pool_kernel<kMostSide>, params);
    launch(stream, results * params.grid, kLineThreads,
           usual ? composite_spread_kernel<kUsualGrid> : composite_spread_kernel<kMostSide>,
           params);
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
