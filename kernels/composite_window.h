// Lines of floats, and those of them that a resize down still needs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "composite.h"
#include "composite_rows.h"

namespace picme::composite {

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

}  // namespace picme::composite
