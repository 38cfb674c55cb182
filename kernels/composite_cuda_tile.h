// A tile of a result on a GPU, 128 x 16 pixels: which bytes a warp reads and writes.
#pragma once

#include "composite_cuda.h"

namespace picme::composite {

constexpr int kWarp = 32;
constexpr unsigned kEveryLane = 0xFFFFFFFFu;
constexpr int kTileThreads = 256;  // each warp has some of the rows
constexpr int kTileWarps = kTileThreads / kWarp;
constexpr int kTileRows = 16;
constexpr int kTileColumns = 128;
constexpr int kRows = kTileRows / kTileWarps;  // a warp
constexpr int kPixels = kTileColumns / kWarp;  // a lane in a row: every 32nd
constexpr unsigned kWholeRow = (1u << kPixels) - 1;
constexpr int kWords = 3 * kTileColumns / 4;  // of four bytes in a row
constexpr int kOverhang = 3;                  // columns; see Segment

// Four bytes of a row from byte `at` on; what lies outside of the row is 0.
__device__ inline uint32_t load_word(const uint8_t* row, int at, int bytes) {
    const int past = static_cast<int>(reinterpret_cast<uint64_t>(row + at) % 4);
    if (at >= past && at - past + (past ? 8 : 4) <= bytes) {
        const uint32_t* words = reinterpret_cast<const uint32_t*>(row + at - past);
        return past ? words[0] >> (8 * past) | words[1] << (32 - 8 * past) : words[0];
    }
    uint32_t word = 0;
    for (int i = 0; i < 4; ++i) {
        if (at + i >= 0 && at + i < bytes) word |= uint32_t{row[at + i]} << (8 * i);
    }
    return word;
}

// Where row + at is a multiple of 4.
__device__ inline void store_word(uint8_t* row, int at, int bytes, uint32_t word) {
    if (at >= 0 && at + 4 <= bytes) {
        *reinterpret_cast<uint32_t*>(row + at) = word;
        return;
    }
    for (int i = 0; i < 4; ++i) {
        if (at + i >= 0 && at + i < bytes) row[at + i] = static_cast<uint8_t>(word >> (8 * i));
    }
}

// A tile's part of one row of a result: 128 pixels, of which the first is up to three columns left
// of the tile's, so that its address is a multiple of 4.
struct Segment {
    uint8_t* out;             // the row
    const uint8_t* original;  // its known pixels
    int y, x;                 // its place and that of the first pixel, which may be negative
    int bytes;                // of the row; 0 below the result

    // Away from the ends of the row nothing is asked about a word, so that none is waited for
    // before the next is on its way; how far `original` lies past a multiple of 4 is one number a
    // row.
    __device__ void load(uint32_t* words) const {
        const int lane = threadIdx.x % kWarp;
        const int past = static_cast<int>(reinterpret_cast<uint64_t>(original + 3 * x) % 4);
        if (3 * x < past || 3 * x + 4 * kWords + (past ? 4 : 0) > bytes) {
            for (int j = 0; j < kWords / kWarp; ++j) {
                words[j] = load_word(original, 3 * x + 4 * (lane + kWarp * j), bytes);
            }
            return;
        }
        const uint32_t* from = reinterpret_cast<const uint32_t*>(original + 3 * x - past) + lane;
        for (int j = 0; j < kWords / kWarp; ++j) words[j] = from[kWarp * j];
        if (past == 0) return;
        uint32_t next[kWords / kWarp];
        for (int j = 0; j < kWords / kWarp; ++j) next[j] = from[kWarp * j + 1];
        for (int j = 0; j < kWords / kWarp; ++j) {
            words[j] = words[j] >> (8 * past) | next[j] << (32 - 8 * past);
        }
    }
    __device__ void store(const uint32_t* words) const {
        const int lane = threadIdx.x % kWarp;
        if (x < 0 || 3 * x + 4 * kWords > bytes) {
            for (int j = 0; j < kWords / kWarp; ++j) {
                store_word(out, 3 * x + 4 * (lane + kWarp * j), bytes, words[j]);
            }
            return;
        }
        uint32_t* to = reinterpret_cast<uint32_t*>(out + 3 * x) + lane;
        for (int j = 0; j < kWords / kWarp; ++j) to[kWarp * j] = words[j];
    }
};

// A block's part of a result; `image` and `i` say which result.
struct Tile {
    int64_t image, i;
    int top, left;

    // The r-th row of this thread's warp.
    __device__ Segment segment(const CompositeCudaParams& params, int r) const {
        const int y = top + r * kTileWarps + static_cast<int>(threadIdx.x) / kWarp;
        const int64_t pitch = 3 * params.width;
        Segment found;
        found.out = params.out + ((image * params.k + i) * params.height + y) * pitch;
        found.original =
            params.originals ? params.originals + (image * params.height + y) * pitch : found.out;
        found.y = y;
        const unsigned past = reinterpret_cast<uint64_t>(found.out) % 4;
        found.x = left - static_cast<int>(3 * past % 4);  // 3 * (3 * past) = past, modulo 4
        found.bytes = y < params.height ? static_cast<int>(pitch) : 0;
        return found;
    }
};

// The tiles that the box touches, counted in tiles.
struct BoxTiles {
    int top, left, bottom, right;

    __device__ BoxTiles(const PackedCanvas& box, int across)
        : top(static_cast<int>(box.top / kTileRows)),
          left(static_cast<int>(box.left / kTileColumns)),
          bottom(static_cast<int>((box.top + box.height - 1) / kTileRows) + 1),
          right(static_cast<int>((box.left + box.width - 1 + kOverhang) / kTileColumns) + 1) {
        if (right > across) right = across;
    }
};

// Which pixels of a warp's rows lie in the hole: bit r * kPixels + j stands for pixel
// lane + 32 * j of row r.
struct Holes {
    unsigned bits = 0;

    __device__ Holes(const CompositeCudaParams& params, const PackedCanvas& canvas,
                     const Tile& tile) {
        const uint8_t* inside = params.canvases + canvas.inside;
        const int lane = threadIdx.x % kWarp;
        for (int r = 0; r < kRows; ++r) {
            const Segment segment = tile.segment(params, r);
            const int64_t y = segment.y - canvas.top;
            if (y < 0 || y >= canvas.height) continue;
            for (int j = 0; j < kPixels; ++j) {
                const int64_t x = segment.x + lane + kWarp * j - canvas.left;
                if (x < 0 || x >= canvas.width) continue;
                bits |= unsigned{inside[y * canvas.width + x]} << (r * kPixels + j);
            }
        }
    }
    __device__ bool at(int r, int j) const { return bits >> (r * kPixels + j) & 1; }
    __device__ unsigned of_row(int r) const { return bits >> (r * kPixels) & kWholeRow; }
};

}  // namespace picme::composite
