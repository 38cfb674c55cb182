// A tile of a result: some columns of the box, row by row, in memory that stays in the cache.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "composite.h"
#include "composite_rows.h"

namespace picme::composite {

// Each value is one value, unchanged.
inline bool copies(const Taps& taps) {
    const bool consecutive = taps.first[taps.count - 1] - taps.first[0] == taps.count - 1;
    return taps.width == 1 && consecutive &&
           std::all_of(taps.weights, taps.weights + taps.count, [](float w) { return w == 1.0f; });
}

// n values of each channel, each line from a place on at which the widest registers are loaded at
// once.
class Lines {
  public:
    explicit Lines(int64_t n) {
        const int64_t pitch = (n + kAlign - 1) / kAlign * kAlign;
        values_.resize(kChannels * pitch + kAlign);
        const auto address = reinterpret_cast<uintptr_t>(values_.data()) / sizeof(float);
        float* first = values_.data() + (kAlign - address % kAlign) % kAlign;
        for (int64_t c = 0; c < kChannels; ++c) line_[c] = first + c * pitch;
    }
    Lines(Lines&&) = default;
    float* const* write() { return line_; }
    const float* const* read() const { return line_; }

  private:
    static constexpr int64_t kAlign = 16;
    std::vector<float> values_;
    float* line_[kChannels];
};

// Rows of some source, resized across and kept for as long as a later row may take them.
class Window {
  public:
    Window(const Taps& down, int64_t n) : down_(down), lines_(kChannels * down.width) {
        for (int64_t t = 0; t < down.width; ++t) kept_.emplace_back(n);
    }
    Window(const Window&) = delete;

    // The lines that row y of the result takes up, those of a channel beside each other; make(row,
    // lines) writes a row of the source, resized across. y never falls from one call to the next.
    template <class Make>
    const float* const* rows(int64_t y, const Make& make) {
        const int64_t first = down_.first[y];
        if (first != first_) {
            for (next_ = std::max(next_, first); next_ < first + down_.width; ++next_) {
                make(next_, kept_[next_ % down_.width].write());
            }
            for (int64_t t = 0; t < down_.width; ++t) {
                const float* const* kept = kept_[(first + t) % down_.width].read();
                for (int64_t c = 0; c < kChannels; ++c) lines_[c * down_.width + t] = kept[c];
            }
            first_ = first;
        }
        return lines_.data();
    }

  private:
    const Taps& down_;
    int64_t first_ = -1;  // what lines_ are for
    int64_t next_ = 0;    // the first row of the source that is not kept yet
    std::vector<Lines> kept_;
    std::vector<const float*> lines_;
};

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

// The cells on which the seam's correction depends anywhere in the hole: none where nothing is
// known, for then there is no correction.
inline Cells cells_for(const CanvasParams& canvas, int64_t size) {
    Cells hole{size, size, 0, 0};
    for (int64_t y = 0; y < size; ++y) {
        const uint8_t* known = canvas.known + y * size;
        const auto find = [known](int64_t first, int64_t last) {
            const void* found = std::memchr(known + first, 0, last - first);
            return found ? static_cast<const uint8_t*>(found) - known : last;
        };
        const int64_t left = find(0, size);
        if (left == size) continue;
        hole = {std::min(hole.top, y), std::min(hole.left, left), y + 1, hole.right};
        for (int64_t x = find(hole.right, size); x < size; x = find(x + 1, size)) {
            hole.right = x + 1;
        }
    }
    if (!std::memchr(canvas.known, 1, size * size)) return {0, 0, 0, 0};
    if (hole.top == size) return {0, 0, canvas.grid, canvas.grid};
    const auto reach = [](const Taps& taps, int64_t& first, int64_t& last) {
        first = taps.first[first];
        last = taps.first[last - 1] + taps.width;
    };
    for (const Taps* taps : {&canvas.grow, &canvas.blur}) {
        reach(*taps, hole.top, hole.bottom);
        reach(*taps, hole.left, hole.right);
    }
    return hole;
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
        : cells(cells_for(canvas, size)),
          identity(copies(canvas.rows) && copies(canvas.columns)),
          tile(identity ? kTile : kResizedTile) {
        for (int64_t x = 0; x < canvas.width; x += tile) {
            const int64_t n = std::min(tile, canvas.width - x);
            for (int64_t y = 0; y < canvas.height; ++y) {
                spans.push_back(span_of(canvas.inside + y * canvas.width + x, n));
            }
        }
    }

    Cells cells;
    bool identity;            // the box needs no resizing
    int64_t tile;             // columns
    std::vector<Span> spans;  // (tiles, rows of the box)
};

// What all steps of one call share.
struct Call {
    Call(const CompositeParams& all, const RowLoops& chosen)
        : params(all), loops(chosen), pictures(chosen, all) {
        for (const CanvasParams& one : all.canvases) {
            shared.emplace_back(one, all.size);
            const bool seam = shared.back().cells.bottom > 0;
            for (int64_t i = 0; i < all.k; ++i) {
                shifts.emplace_back(seam ? kChannels * one.grid * one.grid : 0);
            }
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

// Columns first:last of what is resized back: the known picture, and in the hole g's with the
// seam's correction. Rows never fall from one call to the next.
class Blend {
  public:
    Blend(const Call& call, int64_t result, int64_t first, int64_t last)
        : call_(call),
          canvas_(call.canvas(result)),
          result_(result),
          first_(first),
          n_(last - first),
          room_(n_),
          out_(n_),
          shift_(canvas_.grow, n_) {}

    const float* const* row(int64_t y) {
        const int64_t size = call_.params.size;
        for (int64_t c = 0; c < kChannels; ++c) {
            picture_[c] = call_.pictures.row(result_, c, y, first_, n_, room_.write()[c]);
        }
        if (!call_.seam(result_)) return picture_;
        const Taps& grow = canvas_.grow;
        const float* const* shift = shift_.rows(y, [&](int64_t i, float* const* out) {
            const float* lines[kChannels];
            for (int64_t c = 0; c < kChannels; ++c) {
                lines[c] = call_.shifts[result_].data() + (c * canvas_.grid + i) * canvas_.grid;
            }
            call_.loops.across(lines, canvas_.grid, 0, grow.first + first_, grow.weights + first_,
                               grow.count, grow.width, n_, out);
        });
        const uint8_t* known = canvas_.known + y * size + first_;
        if (!std::memchr(known, 1, n_)) known = nullptr;
        for (int64_t c = 0; c < kChannels; ++c) {
            const float* image = canvas_.image + (c * size + y) * size + first_;
            call_.loops.blend(known, image, picture_[c], shift + c * grow.width, grow.weights + y,
                              grow.count, grow.width, n_, out_.write()[c]);
        }
        return out_.read();
    }

  private:
    const Call& call_;
    const CanvasParams& canvas_;
    int64_t result_, first_, n_;
    Lines room_, out_;
    const float* picture_[kChannels];
    Window shift_;
};

// Columns first:last of the box, row by row.
class Tile {
  public:
    Tile(const Call& call, int64_t result, int64_t first, int64_t last)
        : call_(call),
          canvas_(call.canvas(result)),
          shared_(call.shared[result / call.params.k]),
          spans_(shared_.spans.data() + first / shared_.tile * canvas_.height),
          first_(first),
          n_(last - first),
          origin_(canvas_.columns.first[first]),
          end_(canvas_.columns.first[last - 1] + canvas_.columns.width),
          blend_(call, result, origin_, end_),
          resized_(canvas_.rows, n_),
          room_(n_),
          lines_(kChannels * canvas_.rows.width),
          bytes_(3 * n_) {}

    // Writes the hole's pixels of row y of the box; copies the known ones from `original`, if any.
    void row(int64_t y, const uint8_t* original, uint8_t* out) {
        const Span span = spans_[y];
        uint8_t* pixels = span.solid ? out : bytes_.data();
        if (span.from < span.to) paste(y, span.from, span.to - span.from, pixels);
        if (span.solid) {
            copy(original, out, 0, span.from);
            copy(original, out, span.to, n_);
            return;
        }
        const uint8_t* inside = canvas_.inside + y * canvas_.width + first_;
        for (int64_t x = 0, end; x < n_; x = end) {  // runs of hole, runs of known pixels
            const void* other = std::memchr(inside + x, !inside[x], n_ - x);
            end = other ? static_cast<const uint8_t*>(other) - inside : n_;
            copy(inside[x] ? pixels : original, out, x, end);
        }
    }

  private:
    static void copy(const uint8_t* from, uint8_t* out, int64_t first, int64_t last) {
        if (from && first < last)
            std::memcpy(out + 3 * first, from + 3 * first, 3 * (last - first));
    }

    // Pixels from .. from + n of row y of the box.
    void paste(int64_t y, int64_t from, int64_t n, uint8_t* pixels) {
        const Taps &rows = canvas_.rows, &columns = canvas_.columns;
        uint8_t* out = pixels + 3 * from;
        if (shared_.identity) {
            const float* const* lines = blend_.row(rows.first[y]);
            for (int64_t c = 0; c < kChannels; ++c) lines_[c] = lines[c] + from;
            return call_.loops.to_bytes(lines_.data(), n, out);
        }
        const float* const* lines = resized_.rows(y, [&](int64_t i, float* const* to) {
            call_.loops.across(blend_.row(i), end_ - origin_, origin_, columns.first + first_,
                               columns.weights + first_, columns.count, columns.width, n_, to);
        });
        for (size_t i = 0; i < lines_.size(); ++i) lines_[i] = lines[i] + from;
        call_.loops.down_to_bytes(lines_.data(), rows.weights + y, rows.count, rows.width, n,
                                  room_.write(), out);
    }

    const Call& call_;
    const CanvasParams& canvas_;
    const Shared& shared_;
    const Span* spans_;  // of the box's rows
    int64_t first_, n_;
    int64_t origin_, end_;  // the columns of the decoder's picture that are needed
    Blend blend_;
    Window resized_;
    Lines room_;
    std::vector<const float*> lines_;
    std::vector<uint8_t> bytes_;
};

}  // namespace picme::composite
