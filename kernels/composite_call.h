// What the steps of one call share: found once for each image, read by all threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "composite.h"
#include "composite_rows.h"

namespace picme::composite {

// Each value is one value, unchanged, the next one that of the next.
inline bool copies(const Taps& taps) {
    if (taps.width != 1) return false;
    for (int64_t i = 0; i < taps.count; ++i) {
        if (taps.first[i] != taps.first[0] + i || taps.weights[i] != 1.0f) return false;
    }
    return true;
}

// The pictures, row by row, as float32.
class Pictures {
  public:
    Pictures(const RowLoops& loops, const CompositeParams& params)
        : loops_(loops), params_(params) {}

    // n values of a row from column x on; `room` for them, which stays unused for float32.
    const float* row(int64_t result, int64_t channel, int64_t y, int64_t x, int64_t n,
                     float* room) const {
        const int64_t at = ((result * kChannels + channel) * params_.size + y) * params_.size + x;
        if (params_.type == PictureType::float32) {
            return static_cast<const float*>(params_.pictures) + at;
        }
        const uint16_t* in = static_cast<const uint16_t*>(params_.pictures) + at;
        (params_.type == PictureType::float16 ? loops_.from_half : loops_.from_bfloat)(in, n, room);
        return room;
    }

  private:
    const RowLoops& loops_;
    const CompositeParams& params_;
};

// Half-open rows and columns of the seam's grid.
struct Cells {
    int64_t top, left, bottom, right;
};

// The rows and columns of a picture that hold all of its hole; none where it has no hole.
inline Cells hole_of(const uint8_t* known, int64_t size) {
    Cells hole{size, size, 0, 0};
    for (int64_t y = 0; y < size; ++y) {
        const uint8_t* row = known + y * size;
        const auto find = [row](int64_t first, int64_t last) {
            const void* found = std::memchr(row + first, 0, last - first);
            return found ? static_cast<const uint8_t*>(found) - row : last;
        };
        const int64_t left = find(0, size);
        if (left == size) continue;
        hole = {std::min(hole.top, y), std::min(hole.left, left), y + 1, hole.right};
        for (int64_t x = find(hole.right, size); x < size; x = find(x + 1, size)) {
            hole.right = x + 1;
        }
    }
    return hole;
}

// What `taps` take up for these of their results.
inline Cells reach(const Taps& taps, const Cells& results) {
    return {taps.first[results.top], taps.first[results.left],
            taps.first[results.bottom - 1] + taps.width,
            taps.first[results.right - 1] + taps.width};
}

// The hole's columns in a row of a tile: from .. to, none where these are equal; `solid` without a
// known one between them.
struct Span {
    int32_t from, to;
    bool solid;
};

// inside: n columns.
inline Span span_of(const uint8_t* inside, int64_t n) {
    const void* first = std::memchr(inside, 1, n);
    if (!first) return {0, 0, true};
    const int64_t from = static_cast<const uint8_t*>(first) - inside;
    int64_t to = n;
    while (!inside[to - 1]) --to;
    const bool solid = !std::memchr(inside + from, 0, to - from);
    return {static_cast<int32_t>(from), static_cast<int32_t>(to), solid};
}

// Columns of a tile. Where nothing is resized, memory is read in long pieces; else the lines from
// which its rows are made stay in the first cache.
constexpr int64_t kTile = 1024, kResizedTile = 512;

// What all results of an image share beside its canvas.
struct Shared {
    Shared(const CanvasParams& canvas, int64_t size)
        : seam(std::memchr(canvas.known, 1, size * size) != nullptr),
          identity(copies(canvas.rows) && copies(canvas.columns)),
          tile(identity ? kTile : kResizedTile) {
        if (seam) {
            const Cells places = hole_of(canvas.known, size);
            hole = places.bottom > 0 ? reach(canvas.grow, places) : hole;
            pooled = places.bottom > 0 ? reach(canvas.blur, hole) : hole;
        }
        for (int64_t x = 0; x < canvas.width; x += tile) {
            const int64_t n = std::min(tile, canvas.width - x);
            for (int64_t y = 0; y < canvas.height; ++y) {
                spans.push_back(span_of(canvas.inside + y * canvas.width + x, n));
            }
        }
    }

    bool seam;                  // something is known: there may be a correction
    bool identity;              // the box needs no resizing
    int64_t tile;               // columns
    Cells hole{}, pooled{};     // of the seam's grid: what the hole takes up, and what that is from
    std::vector<Span> spans{};  // (tiles, rows of the box)
};

// What all steps of one call share.
struct Call {
    Call(const CompositeParams& all, const RowLoops& chosen)
        : params(all), loops(chosen), pictures(chosen, all) {
        for (const CanvasParams& one : all.canvases) {
            shared.emplace_back(one, all.size);
            const int64_t cells = shared.back().seam ? one.grid * one.grid : 0;
            for (int64_t i = 0; i < all.k; ++i) shifts.emplace_back(kChannels * cells);
        }
    }

    int64_t results() const { return static_cast<int64_t>(shifts.size()); }
    const CanvasParams& canvas(int64_t result) const { return params.canvases[result / params.k]; }
    bool seam(int64_t result) const { return !shifts[result].empty(); }

    const CompositeParams& params;
    const RowLoops& loops;
    const Pictures pictures;
    std::vector<Shared> shared;              // (B,)
    std::vector<std::vector<float>> shifts;  // (B * k,) of (3, g, g): the seam's correction
};

}  // namespace picme::composite
