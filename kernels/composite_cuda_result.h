// One result of the composite, as a thread on a GPU sees it: taps, places, what is blended.
#pragma once

#include "composite_cuda.h"
#include "composite_math.h"

// Before a loop that nvcc shall not unroll: copies of it would cost registers, and with them
// threads.
#ifdef __CUDACC__
#define PICME_ROLLED _Pragma("unroll 1")
#else
#define PICME_ROLLED
#endif

namespace picme::composite {

// Value i that comes out is sum_t weights[t * count + i] * value(first[i] + t), in that order.
struct DeviceTaps {
    const int32_t* first;
    const float* weights;
    int count, width;

    __device__ DeviceTaps(const uint8_t* canvases, const PackedTaps& taps)
        : first(reinterpret_cast<const int32_t*>(canvases + taps.first)),
          weights(reinterpret_cast<const float*>(canvases + taps.weights)),
          count(static_cast<int>(taps.count)),
          width(static_cast<int>(taps.width)) {}

    template <class Value>
    __device__ float sum(int i, const Value& value) const {
        const int from = first[i];
        const float* weight = weights + i;
        float total = first_tap(*weight, value(from));
        PICME_ROLLED
        for (int t = 1; t < width; ++t) {
            weight += count;
            total = next_tap(total, *weight, value(from + t));
        }
        return total;
    }
};

// One of the B * k results: its picture, its canvas and its part of the scratch memory.
class Result {
  public:
    __device__ Result(const CompositeCudaParams& params, int64_t image, int64_t i)
        : canvas(reinterpret_cast<const PackedCanvas*>(params.canvases)[image]),
          rows(params.canvases, canvas.rows),
          columns(params.canvases, canvas.columns),
          grow(params.canvases, canvas.grow),
          known(params.canvases + canvas.known),
          image_(reinterpret_cast<const float*>(params.canvases + canvas.image)),
          type_(params.type),
          size_(static_cast<int>(params.size)),
          pitch_(static_cast<int>(params.grid) + size_) {
        const int64_t first = (image * params.k + i) * 3;
        const int64_t bytes = type_ == PictureType::float32 ? 4 : 2;
        picture_ = static_cast<const char*>(params.pictures) + first * size_ * size_ * bytes;
        scratch_ = params.scratch + first * params.grid * pitch_;
    }

    // Channel c of the picture at place y * S + x.
    __device__ float picture(int c, int place) const {
        const int at = c * size_ * size_ + place;
        if (type_ == PictureType::float32) return static_cast<const float*>(picture_)[at];
        const uint16_t bits = static_cast<const uint16_t*>(picture_)[at];
        return type_ == PictureType::float16 ? from_half(bits) : from_bfloat(bits);
    }
    __device__ float image(int c, int place) const { return image_[c * size_ * size_ + place]; }

    // Row i of the grid: g values blurred across, then S of the correction, grown across.
    __device__ float* blurred(int c, int i) const {
        return scratch_ + (c * (pitch_ - size_) + i) * pitch_;
    }
    __device__ float* grown(int c, int i) const { return blurred(c, i) + (pitch_ - size_); }

    // What is resized back.
    __device__ float blended_at(int c, int y, int x) const {
        const int place = y * size_ + x;
        if (known[place]) return image(c, place);
        const float value = picture(c, place);
        if (canvas.unknown.bottom == 0) return value;  // nothing is known, nothing was missed
        return value + grow.sum(y, [&](int i) { return grown(c, i)[x]; });
    }

    const PackedCanvas& canvas;
    const DeviceTaps rows, columns, grow;
    const uint8_t* const known;

  private:
    const float* image_;
    const void* picture_;
    float* scratch_;
    PictureType type_;
    int size_, pitch_;
};

}  // namespace picme::composite
