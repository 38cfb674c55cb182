// A tile of a result: some columns of the box, row by row, in memory that stays in the cache.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "composite_call.h"
#include "composite_window.h"

namespace picme::composite {

// Columns first:last of what is resized back: the known picture, and in the hole g's with the
// seam's correction. Rows never fall from one call to the next.
class Blend {
  public:
    Blend(const Call& call, int64_t result, int64_t first, int64_t last)
        : call_(call),
          canvas_(call.canvas(result)),
          seam_(call.seam(result)),
          result_(result),
          first_(first),
          n_(last - first),
          room_(n_),
          out_(n_),
          shift_(canvas_.grow, n_),
          lines_(kChannels * canvas_.grow.width) {}

    const float* const* row(int64_t y) {
        read(y);
        if (!seam_) return picture_;
        const Taps& grow = canvas_.grow;
        const float* const* shift = shifts(y);
        const uint8_t* known = any_known(y, 0, n_) ? known_row(y) : nullptr;
        for (int64_t c = 0; c < kChannels; ++c) {
            const int64_t size = call_.params.size;
            const float* image = canvas_.image + (c * size + y) * size + first_;
            call_.loops.blend(known, image, picture_[c], shift + c * grow.width, grow.weights + y,
                              grow.count, grow.width, n_, out_.write()[c]);
        }
        return out_.read();
    }

    // The bytes of columns from .. from + n of a row that is not resized.
    void bytes(int64_t y, int64_t from, int64_t n, uint8_t* out) {
        const float* part[kChannels];
        const auto begin_at = [from](const float* const* lines, const float** begin, size_t count) {
            for (size_t i = 0; i < count; ++i) begin[i] = lines[i] + from;
        };
        if (!seam_ || any_known(y, from, n)) {
            begin_at(row(y), part, kChannels);
            return call_.loops.to_bytes(part, n, out);
        }
        read(y);
        begin_at(picture_, part, kChannels);
        begin_at(shifts(y), lines_.data(), lines_.size());
        const Taps& grow = canvas_.grow;
        call_.loops.down_to_bytes(part, lines_.data(), grow.weights + y, grow.count, grow.width, n,
                                  out_.write(), out);
    }

  private:
    void read(int64_t y) {
        for (int64_t c = 0; c < kChannels; ++c) {
            picture_[c] = call_.pictures.row(result_, c, y, first_, n_, room_.write()[c]);
        }
    }

    const uint8_t* known_row(int64_t y) const {
        return canvas_.known + y * call_.params.size + first_;
    }
    bool any_known(int64_t y, int64_t from, int64_t n) const {
        return std::memchr(known_row(y) + from, 1, n) != nullptr;
    }

    // The lines of the seam's correction that row y takes up.
    const float* const* shifts(int64_t y) {
        return shift_.rows(y, [&](int64_t i, float* const* out) {
            const float* lines[kChannels];
            for (int64_t c = 0; c < kChannels; ++c) {
                lines[c] = call_.shifts[result_].data() + (c * canvas_.grid + i) * canvas_.grid;
            }
            const Taps& grow = canvas_.grow;
            call_.loops.across(lines, canvas_.grid, 0, grow.first + first_, grow.weights + first_,
                               grow.count, grow.width, n_, out);
        });
    }

    const Call& call_;
    const CanvasParams& canvas_;
    bool seam_;
    int64_t result_, first_, n_;
    Lines room_, out_;
    const float* picture_[kChannels];
    Window shift_;
    std::vector<const float*> lines_;
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
        if (shared_.identity) return blend_.bytes(rows.first[y], from, n, out);
        const float* const* lines = resized_.rows(y, [&](int64_t i, float* const* to) {
            call_.loops.across(blend_.row(i), end_ - origin_, origin_, columns.first + first_,
                               columns.weights + first_, columns.count, columns.width, n_, to);
        });
        for (size_t i = 0; i < lines_.size(); ++i) lines_[i] = lines[i] + from;
        call_.loops.down_to_bytes(nullptr, lines_.data(), rows.weights + y, rows.count, rows.width,
                                  n, room_.write(), out);
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
