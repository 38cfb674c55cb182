#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "composite_math.h"
#include "composite_table.h"
#include "known_mean.h"
#include "threads.h"

namespace picme {
namespace {

using composite::first_tap;
using composite::next_tap;

constexpr int64_t kPlanes = 4;             // red, green, blue, known
constexpr int64_t kThreadWorth = 1 << 19;  // pixels of the region: 0.4 ms or more
constexpr int64_t kBand = 16;              // rows of the square that one step of a thread makes

void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(std::string("known_mean: ") + message);
}

void check(const KnownMeanParams& params) {
    const Taps& taps = params.taps;
    require(params.height >= 1 && params.width >= 1 && params.side >= 1 && taps.count >= 1 &&
                taps.width >= 1 && taps.width <= params.side,
            "sizes out of range");
    for (int64_t i = 0; i < taps.count; ++i) {
        require(taps.first[i] >= (i ? taps.first[i - 1] : 0) &&
                    taps.first[i] + taps.width <= params.side,
                "taps reach outside, or go back");
    }
}

// The rows of the region that a band needs, as floats, each made once: row r stands at r mod T, for
// the rows of the square take T neighbours and never go back. A row is 3 * side colours, pixel
// after pixel, and then side times 1 where known, else 0.
class Rows {
  public:
    explicit Rows(const KnownMeanParams& params)
        : params_(params), values_(params.taps.width * kPlanes * params.side) {}

    // Makes rows up to `last`, not included; those more than T before it are lost.
    void reach(int64_t last) {
        made_ = std::max(made_, last - params_.taps.width);
        for (; made_ < last; ++made_) make(made_);
    }

    const float* row(int64_t y) const {
        return &values_[y % params_.taps.width * kPlanes * params_.side];
    }

  private:
    void make(int64_t row) {
        const int64_t side = params_.side, y = params_.top + row;
        float* colours = &values_[row % params_.taps.width * kPlanes * side];
        float* known = colours + 3 * side;
        // columns begin:end of the region lie in the picture
        int64_t begin = std::clamp<int64_t>(-params_.left, 0, side);
        int64_t end = std::clamp<int64_t>(params_.width - params_.left, begin, side);
        if (y < 0 || y >= params_.height) begin = end = side;
        std::fill(colours, colours + 3 * begin, 0.0f);
        std::fill(colours + 3 * end, colours + 3 * side, 0.0f);
        std::fill(known, known + begin, 0.0f);
        std::fill(known + end, known + side, 0.0f);
        if (begin == end) return;
        const int64_t at = y * params_.width + params_.left + begin;
        write(params_.picture + 3 * at, params_.hole + at, end - begin, colours + 3 * begin,
              known + begin);
    }

    static void write(const uint8_t* pixels, const uint8_t* hole, int64_t n,
                      float* __restrict colours, float* __restrict known) {
        for (int64_t x = 0; x < 3 * n; ++x) colours[x] = static_cast<float>(pixels[x]);
        uint8_t any = 0;
        for (int64_t x = 0; x < n; ++x) {
            known[x] = hole[x] ? 0.0f : 1.0f;
            any |= hole[x];
        }
        for (int64_t x = 0; any && x < n; ++x) {
            if (hole[x]) colours[3 * x] = colours[3 * x + 1] = colours[3 * x + 2] = 0.0f;
        }
    }

    const KnownMeanParams& params_;
    std::vector<float> values_;
    int64_t made_ = 0;
};

// One row of the square from the sums down the columns of the region, which stand as in a row.
void across(const KnownMeanParams& params, const float* sums, int64_t y) {
    const Taps& taps = params.taps;
    const int64_t size = taps.count;
    for (int64_t x = 0; x < size; ++x) {
        const float* colours = sums + 3 * taps.first[x];
        const float* known = sums + 3 * params.side + taps.first[x];
        const float* weight = taps.weights + x;
        float red = first_tap(*weight, colours[0]), green = first_tap(*weight, colours[1]);
        float blue = first_tap(*weight, colours[2]), share = first_tap(*weight, known[0]);
        for (int64_t t = 1; t < taps.width; ++t) {
            const float w = weight[t * size];
            red = next_tap(red, w, colours[3 * t]);
            green = next_tap(green, w, colours[3 * t + 1]);
            blue = next_tap(blue, w, colours[3 * t + 2]);
            share = next_tap(share, w, known[t]);
        }
        const bool unknown = share < 1.0f - 1e-5f;
        params.unknown[y * size + x] = unknown ? 1.0f : 0.0f;
        float* image = params.image + y * size + x;
        for (const float sum : {red, green, blue}) {
            const float level = sum / std::max(share, 1e-6f);
            *image = unknown ? 0.0f : level / 127.5f - 1.0f;
            image += size * size;
        }
    }
}

// Rows first:last of the square: down, then across.
void band(const KnownMeanParams& params, const composite::RowLoops& loops, int64_t first,
          int64_t last) {
    const Taps& taps = params.taps;
    Rows rows(params);
    std::vector<float> sums(kPlanes * params.side);
    std::vector<const float*> lines(taps.width);
    for (int64_t y = first; y < last; ++y) {
        rows.reach(taps.first[y] + taps.width);
        for (int64_t t = 0; t < taps.width; ++t) lines[t] = rows.row(taps.first[y] + t);
        loops.down(lines.data(), taps.weights + y, taps.count, taps.width, kPlanes * params.side,
                   sums.data());
        across(params, sums.data(), y);
    }
}

}  // namespace

void known_mean_cpu(const KnownMeanParams& params, const std::string& lanes, int64_t threads) {
    check(params);
    const composite::RowLoops& loops = composite::row_loops_for(lanes);
    const int64_t size = params.taps.count, bands = (size + kBand - 1) / kBand;
    run_steps(bands, thread_count(threads, bands, params.side * params.side, kThreadWorth),
              [&](int64_t i) { band(params, loops, i * kBand, std::min((i + 1) * kBand, size)); });
}

}  // namespace picme
