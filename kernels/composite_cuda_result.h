// One result of the composite, as a thread on a GPU sees it: places, cells, what is blended.
#pragma once

#include "composite_cuda_taps.h"

namespace picme::composite {

// Up to four bytes at once.
__device__ inline uint32_t four_bytes(const uint8_t* from, int count) {
    if (count == 4 && reinterpret_cast<uint64_t>(from) % 4 == 0) {
        return *reinterpret_cast<const uint32_t*>(from);
    }
    uint32_t word = 0;
    PICME_UNROLLED
    for (int n = 0; n < 4; ++n) {
        if (n < count) word |= uint32_t{from[n]} << (8 * n);
    }
    return word;
}

// One of the B * k results: its picture, its canvas and its part of the scratch memory.
class Result {
  public:
    __device__ Result(const CompositeCudaParams& params, int64_t image, int64_t i)
        : canvas(reinterpret_cast<const PackedCanvas*>(params.canvases)[image]),
          rows(params.canvases, canvas.rows),
          columns(params.canvases, canvas.columns),
          grow(params.canvases, canvas.grow),
          known(params.canvases + canvas.known),
          size(static_cast<int>(params.size)),
          seam(canvas.unknown.bottom != 0),
          image_(reinterpret_cast<const float*>(params.canvases + canvas.image)),
          type_(params.type),
          pitch_(static_cast<int>(params.grid) + size) {
        const int64_t first = (image * params.k + i) * 3;
        const int64_t bytes = type_ == PictureType::float32 ? 4 : 2;
        picture_ = static_cast<const char*>(params.pictures) + first * size * size * bytes;
        scratch_ = params.scratch + first * params.grid * pitch_;
    }

    // Channel c of the picture at place y * S + x: its bits, and the number that they stand for.
    __device__ uint32_t picture_bits(int c, int place) const {
        const int at = c * size * size + place;
        if (type_ == PictureType::float32) return static_cast<const uint32_t*>(picture_)[at];
        return static_cast<const uint16_t*>(picture_)[at];
    }
    __device__ float number(uint32_t bits) const {
        if (type_ == PictureType::float32) return from_bits(bits);
        const uint16_t half = static_cast<uint16_t>(bits);
        return type_ == PictureType::float16 ? from_half(half) : from_bfloat(half);
    }
    __device__ float image(int c, int place) const { return image_[c * size * size + place]; }

    // Row i of the grid: g values blurred across, then S of the correction, grown across.
    __device__ float* blurred(int c, int i) const {
        return scratch_ + (c * (pitch_ - size) + i) * pitch_;
    }
    __device__ float* grown(int c, int i) const { return blurred(c, i) + (pitch_ - size); }

    // What g missed in cell j of row i of the grid, averaged: pieces of 4 x 4 places, all of
    // one asked for at once, for a thread waits as long for one number as for many.
    __device__ float cell(int c, int i, int j) const {
        constexpr int kPiece = 4;
        const int side = size / static_cast<int>(canvas.grid);
        const int corner = (i * size + j) * side;
        float total = 0.0f;
        PICME_ROLLED
        for (int left = 0; left < side; left += kPiece) {
            const int across = side - left < kPiece ? side - left : kPiece;
            float column[kPiece] = {};
            PICME_ROLLED
            for (int top = 0; top < side; top += kPiece) {
                const int place = corner + top * size + left;
                uint32_t shown[kPiece];
                PICME_UNROLLED
                for (int y = 0; y < kPiece; ++y) {
                    const bool within = top + y < side;
                    shown[y] = within ? four_bytes(known + place + y * size, across) : 0;
                }
                if ((shown[0] | shown[1] | shown[2] | shown[3]) == 0) continue;
                float there[kPiece][kPiece];
                uint32_t made[kPiece][kPiece];
                PICME_UNROLLED
                for (int n = 0; n < kPiece * kPiece; ++n) {
                    const int y = n / kPiece, x = n % kPiece, at = place + y * size + x;
                    const bool here = shown[y] >> (8 * x) & 1;
                    there[y][x] = here ? image(c, at) : 0.0f;
                    made[y][x] = here ? picture_bits(c, at) : 0;
                }
                PICME_UNROLLED
                for (int n = 0; n < kPiece * kPiece; ++n) {
                    const int y = n / kPiece, x = n % kPiece;
                    const uint8_t here = shown[y] >> (8 * x) & 1;
                    column[x] = column[x] + missed(here, there[y][x], number(made[y][x]));
                }
            }
            PICME_UNROLLED
            for (int x = 0; x < kPiece; ++x) {
                if (x < across) total = left + x == 0 ? column[x] : total + column[x];
            }
        }
        return total * (1.0f / static_cast<float>(side * side));
    }

    // What is resized back. The correction of a known place may be anything: it is not taken.
    __device__ float blended_at(int c, int y, int x) const {
        const int place = y * size + x;
        const uint32_t bits = picture_bits(c, place);
        const bool shown = known[place];
        float shift = 0.0f;
        if (seam) shift = grow.sum<2>(y, [&](int i) { return grown(c, i)[x]; });
        return shown ? image(c, place) : number(bits) + shift;
    }

    // Adds the seam's correction at several places of row y to zeros: a first product that is added
    // to 0 differs by the sign of a zero at most. Where a place is known it may be anything.
    template <int kPlaces>
    __device__ void shifts(int y, const int (&places)[kPlaces], float (&shift)[3][kPlaces]) const {
        const int from = grow.first[y];
        PICME_ROLLED
        for (int t = 0; t < grow.width; ++t) {
            const float weight = grow.weights[t * grow.count + y];
            float line[3][kPlaces];
            PICME_UNROLLED
            for (int c = 0; c < 3; ++c) {
                PICME_UNROLLED
                for (int n = 0; n < kPlaces; ++n) line[c][n] = grown(c, from + t)[places[n]];
            }
            PICME_UNROLLED
            for (int c = 0; c < 3; ++c) {
                PICME_UNROLLED
                for (int n = 0; n < kPlaces; ++n) {
                    shift[c][n] = next_tap(shift[c][n], weight, line[c][n]);
                }
            }
        }
    }

    const PackedCanvas& canvas;
    const DeviceTaps rows, columns, grow;
    const uint8_t* const known;
    const int size;   // S
    const bool seam;  // something is known and something is not: else nothing is corrected

  private:
    const float* image_;
    const void* picture_;
    float* scratch_;
    PictureType type_;
    int pitch_;
};

}  // namespace picme::composite
