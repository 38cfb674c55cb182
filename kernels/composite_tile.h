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

// n values of each channel.
class Lines {
  public:
    explicit Lines(int64_t n) : values_(kChannels * n) {
        for (int64_t c = 0; c < kChannels; ++c) line_[c] = values_.data() + c * n;
    }
    Lines(Lines&&) = default;
    float* const* write() { return line_; }
    const float* const* read() const { return line_; }

  private:
    std::vector<float> values_;
    float* line_[kChannels];
};

// Rows of some source, resized across and kept for as long as a later row may take them.
class Window {
  public:
    Window(const RowLoops& loops, const Taps& down, int64_t n)
        : loops_(loops), down_(down), n_(n), out_(n), of_channel_(down.width) {
        for (int64_t t = 0; t < down.width; ++t) kept_.emplace_back(n);
    }
    Window(const Window&) = delete;

    // Row y of the result; make(row, lines) writes a row of the source, resized across. y never
    // falls from one call to the next.
    template <class Make>
    const float* const* row(int64_t y, const Make& make) {
        const int64_t first = down_.first[y];
        for (next_ = std::max(next_, first); next_ < first + down_.width; ++next_) {
            make(next_, kept_[next_ % down_.width].write());
        }
        for (int64_t c = 0; c < kChannels; ++c) {
            for (int64_t t = 0; t < down_.width; ++t) {
                of_channel_[t] = kept_[(first + t) % down_.width].read()[c];
            }
            loops_.down(of_channel_.data(), down_.weights + y, down_.count, down_.width, n_,
                        out_.write()[c]);
        }
        return out_.read();
    }

  private:
    const RowLoops& loops_;
    const Taps& down_;
    int64_t n_;
    int64_t next_ = 0;  // the first row of the source that is not kept yet
    std::vector<Lines> kept_;
    Lines out_;
    std::vector<const float*> of_channel_;
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
        if (!std::memchr(known, 0, size)) continue;
        int64_t left = 0, right = size;
        while (known[left]) ++left;
        while (known[right - 1]) --right;
        hole = {std::min(hole.top, y), std::min(hole.left, left), y + 1,
                std::max(hole.right, right)};
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

// What all steps of one call share.
struct Call {
    Call(const CompositeParams& all, const RowLoops& chosen)
        : params(all), loops(chosen), pictures(chosen, all) {
        for (const CanvasParams& one : all.canvases) {
            cells.push_back(cells_for(one, all.size));
            identity.push_back(copies(one.rows) && copies(one.columns));
            const bool seam = cells.back().bottom > 0;
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
    std::vector<Cells> cells;                // (B,)
    std::vector<char> identity;              // (B,) whether the box needs no resizing
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
          shift_(call.loops, canvas_.grow, n_) {}

    const float* const* row(int64_t y) {
        const int64_t size = call_.params.size;
        for (int64_t c = 0; c < kChannels; ++c) {
            picture_[c] = call_.pictures.row(result_, c, y, first_, n_, room_.write()[c]);
        }
        if (!call_.seam(result_)) return picture_;
        const float* const* shift = shift_.row(y, [&](int64_t i, float* const* out) {
            const float* lines[kChannels];
            for (int64_t c = 0; c < kChannels; ++c) {
                lines[c] = call_.shifts[result_].data() + (c * canvas_.grid + i) * canvas_.grid;
            }
            const Taps& grow = canvas_.grow;
            call_.loops.across(lines, 0, grow.first + first_, grow.weights + first_, grow.count,
                               grow.width, n_, out);
        });
        const uint8_t* known = canvas_.known + y * size + first_;
        const bool any = std::memchr(known, 1, n_) != nullptr;
        for (int64_t c = 0; c < kChannels; ++c) {
            const float* image = canvas_.image + (c * size + y) * size + first_;
            if (any) {
                call_.loops.blend(known, image, picture_[c], shift[c], n_, out_.write()[c]);
            } else {
                call_.loops.add(picture_[c], shift[c], n_, out_.write()[c]);
            }
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
          identity_(call.identity[result / call.params.k]),
          first_(first),
          n_(last - first),
          origin_(canvas_.columns.first[first]),
          blend_(call, result, origin_, canvas_.columns.first[last - 1] + canvas_.columns.width),
          resized_(call.loops, canvas_.rows, n_),
          bytes_(3 * n_) {}

    // Writes the hole's pixels of row y of the box; copies the known ones from `original`, if any.
    void row(int64_t y, const uint8_t* original, uint8_t* out) {
        const uint8_t* inside = canvas_.inside + y * canvas_.width + first_;
        uint8_t* pixels = bytes_.data();
        if (const void* found = std::memchr(inside, 1, n_)) {
            const int64_t from = static_cast<const uint8_t*>(found) - inside;
            int64_t to = n_;
            while (!inside[to - 1]) --to;
            if (!std::memchr(inside + from, 0, to - from)) pixels = out;  // no known ones between
            const float* const* lines = floats(y);
            const float* part[kChannels];
            for (int64_t c = 0; c < kChannels; ++c) part[c] = lines[c] + from;
            call_.loops.to_bytes(part, to - from, pixels + 3 * from);
        }
        for (int64_t x = 0, end; x < n_; x = end) {  // runs of hole, runs of known pixels
            const void* other = std::memchr(inside + x, !inside[x], n_ - x);
            end = other ? static_cast<const uint8_t*>(other) - inside : n_;
            const uint8_t* from = inside[x] ? pixels : original;
            if (from && from != out) std::memcpy(out + 3 * x, from + 3 * x, 3 * (end - x));
        }
    }

  private:
    const float* const* floats(int64_t y) {
        if (identity_) return blend_.row(canvas_.rows.first[y]);
        return resized_.row(y, [&](int64_t i, float* const* out) {
            const Taps& columns = canvas_.columns;
            call_.loops.across(blend_.row(i), origin_, columns.first + first_,
                               columns.weights + first_, columns.count, columns.width, n_, out);
        });
    }

    const Call& call_;
    const CanvasParams& canvas_;
    bool identity_;
    int64_t first_, n_;
    int64_t origin_;  // the first column of the decoder's picture that is needed
    Blend blend_;
    Window resized_;
    std::vector<uint8_t> bytes_;
};

}  // namespace picme::composite
