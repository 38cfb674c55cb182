// The hole's pixels of a tile on a GPU, from the decoder's picture to bytes in shared memory.
#pragma once

#include "composite_cuda_result.h"
#include "composite_cuda_tile.h"

namespace picme::composite {

constexpr int kSourceRows = kTileRows + 4;  // of the decoder's picture under a tile
constexpr int kSourceColumns = kTileColumns + 8;

__device__ inline int least(int64_t a, int64_t b) {
    return static_cast<int>(a < b ? a : b);
}

__device__ inline int most(int64_t a, int64_t b) {
    return static_cast<int>(a > b ? a : b);
}

// The hole's pixels where each is one place of the decoder's picture. All values of a row are asked
// for before the first is used; what is not in the hole asks for the row's first place.
__device__ inline void fill_places(const CompositeCudaParams& params, const Result& result,
                                   const Tile& tile, Holes holes, uint32_t (*stage)[kWords]) {
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    PICME_ROLLED
    for (int r = 0; r < kRows; ++r) {
        if (holes.of_row(r) == 0) continue;
        const Segment segment = tile.segment(params, r);
        const int row = segment.y - static_cast<int>(result.canvas.top);
        const int left = segment.x + lane - static_cast<int>(result.canvas.left);
        const int y = result.rows.first[row];
        int places[kPixels];
        PICME_UNROLLED
        for (int j = 0; j < kPixels; ++j) {
            places[j] = holes.at(r, j) ? result.columns.first[left + kWarp * j] : 0;
        }
        uint32_t bits[3][kPixels];
        PICME_UNROLLED
        for (int j = 0; j < kPixels; ++j) {
            for (int c = 0; c < 3; ++c) {
                bits[c][j] = result.picture_bits(c, y * result.size + places[j]);
            }
        }
        float value[3][kPixels] = {};
        if (result.seam) result.shifts(y, places, value);
        // Asked for while the pictures are on their way, not before: registers are few.
        const float down = result.rows.weights[row];
        float across[kPixels];
        uint8_t known[kPixels];
        PICME_UNROLLED
        for (int j = 0; j < kPixels; ++j) {
            across[j] = holes.at(r, j) ? result.columns.weights[left + kWarp * j] : 0.0f;
            known[j] = result.known[y * result.size + places[j]];
        }
        bool any_known = false;
        PICME_UNROLLED
        for (int j = 0; j < kPixels; ++j) {
            any_known = any_known || known[j];
            for (int c = 0; c < 3; ++c) value[c][j] = result.number(bits[c][j]) + value[c][j];
        }
        if (any_known) {
            PICME_UNROLLED
            for (int j = 0; j < kPixels; ++j) {
                if (!known[j]) continue;
                for (int c = 0; c < 3; ++c) {
                    value[c][j] = result.image(c, y * result.size + places[j]);
                }
            }
        }
        uint8_t* bytes = reinterpret_cast<uint8_t*>(stage[r * kTileWarps + warp]) + 3 * lane;
        PICME_UNROLLED
        for (int j = 0; j < kPixels; ++j) {
            if (!holes.at(r, j)) continue;
            PICME_UNROLLED
            for (int c = 0; c < 3; ++c) {
                const float wide = first_tap(across[j], value[c][j]);
                bytes[3 * kWarp * j + c] = to_byte(first_tap(down, wide));
            }
        }
    }
}

// The hole's pixels, each from all that it takes up: best for what shrinks.
__device__ inline void fill_pixels(const CompositeCudaParams& params, const Result& result,
                                   const Tile& tile, Holes holes, uint32_t (*stage)[kWords]) {
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    PICME_ROLLED
    for (int r = 0; r < kRows; ++r) {
        uint8_t* bytes = reinterpret_cast<uint8_t*>(stage[r * kTileWarps + warp]);
        const Segment segment = tile.segment(params, r);
        const int row = segment.y - static_cast<int>(result.canvas.top);
        PICME_ROLLED
        for (int j = 0; j < kPixels; ++j) {
            if (!holes.at(r, j)) continue;
            const int pixel = lane + kWarp * j;
            const int column = segment.x + pixel - static_cast<int>(result.canvas.left);
            float value[3];
            for (int c = 0; c < 3; ++c) {
                value[c] = result.rows.sum(row, [&](int y) {
                    return result.columns.sum(column,
                                              [&](int x) { return result.blended_at(c, y, x); });
                });
            }
            for (int c = 0; c < 3; ++c) bytes[3 * pixel + c] = to_byte(value[c]);
        }
    }
}

// Rows and columns of the box under a tile, and of the decoder's picture under those.
struct Under {
    int top, left, bottom, right;                        // of the box
    int first_row, last_row, first_column, last_column;  // of the picture

    __device__ Under(const Result& result, const Tile& tile) {
        const PackedCanvas& box = result.canvas;
        top = most(tile.top - box.top, 0);
        left = most(tile.left - kOverhang - box.left, 0);
        bottom = least(tile.top + kTileRows - box.top, box.height);
        right = least(tile.left + kTileColumns - box.left, box.width);
        first_row = result.rows.first[top];
        last_row = result.rows.first[bottom - 1] + result.rows.width;
        first_column = result.columns.first[left];
        last_column = result.columns.first[right - 1] + result.columns.width;
    }
    __device__ bool fits() const {
        return last_row - first_row <= kSourceRows && last_column - first_column <= kSourceColumns;
    }
};

// The same in two steps, which many pixels share: best for what is enlarged. The picture's rows
// across, a warp each, and then down from those.
__device__ inline void fill_tile(const CompositeCudaParams& params, const Result& result,
                                 const Tile& tile, const Under& under, Holes holes,
                                 uint32_t (*stage)[kWords]) {
    __shared__ float lines[kTileWarps][kSourceColumns];
    __shared__ float wide[kSourceRows][kTileColumns + kOverhang];
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const bool rows_are_four = result.rows.width == 4;
    const bool columns_are_four = result.columns.width == 4;
    float* line = lines[warp];
    PICME_ROLLED
    for (int c = 0; c < 3; ++c) {
        for (int y = under.first_row + warp; y < under.last_row; y += kTileWarps) {
            for (int x = under.first_column + lane; x < under.last_column; x += kWarp) {
                line[x - under.first_column] = result.blended_at(c, y, x);
            }
            __syncwarp();
            const auto taken = [&](int j) { return line[j - under.first_column]; };
            float* out = wide[y - under.first_row] - under.left;
            for (int x = under.left + lane; x < under.right; x += kWarp) {
                out[x] = columns_are_four ? FourTaps(result.columns, x).sum(taken)
                                          : result.columns.sum(x, taken);
            }
            __syncwarp();  // the line is free again
        }
        __syncthreads();
        PICME_ROLLED
        for (int r = 0; r < kRows; ++r) {
            if (holes.of_row(r) == 0) continue;
            uint8_t* bytes = reinterpret_cast<uint8_t*>(stage[r * kTileWarps + warp]) + 3 * lane;
            const Segment segment = tile.segment(params, r);
            const int row = segment.y - static_cast<int>(result.canvas.top);
            const int left = segment.x + lane - static_cast<int>(result.canvas.left) - under.left;
            const auto put = [&](const auto& resized) {
                PICME_UNROLLED
                for (int j = 0; j < kPixels; ++j) {
                    if (!holes.at(r, j)) continue;
                    const int column = left + kWarp * j;
                    bytes[3 * kWarp * j + c] =
                        to_byte(resized([&](int y) { return wide[y - under.first_row][column]; }));
                }
            };
            if (rows_are_four) {
                const FourTaps taps(result.rows, row);
                put([&](const auto& taken) { return taps.sum(taken); });
            } else {
                put([&](const auto& taken) { return result.rows.sum(row, taken); });
            }
        }
        __syncthreads();  // and so is `wide`
    }
}

__device__ inline void fill(const CompositeCudaParams& params, const Result& result,
                            const Tile& tile, Holes holes, uint32_t (*stage)[kWords]) {
    if (result.rows.width == 1 && result.columns.width == 1) {
        fill_places(params, result, tile, holes, stage);
        return;
    }
    const Under under(result, tile);
    if (under.fits()) {
        fill_tile(params, result, tile, under, holes, stage);
    } else {
        fill_pixels(params, result, tile, holes, stage);
    }
}

}  // namespace picme::composite
