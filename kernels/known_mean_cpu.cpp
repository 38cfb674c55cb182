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

using composite::next_tap;

constexpr int64_t kPlanes = 4;                   // red, green, blue, known
constexpr int64_t kThreadWorth = 1 << 19;        // pixels: 0.4 ms or more
constexpr int64_t kFarthest = int64_t{1} << 40;  // pixels from the picture to the region
constexpr int64_t kBand = 16;  // rows of the square that one step of a thread makes

void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(std::string("known_mean: ") + message);
}

void check(const KnownMeanParams& params) {
    const Taps& taps = params.taps;
    require(params.height >= 1 && params.width >= 1 && params.side >= 1 && taps.count >= 1 &&
                taps.width >= 1 && taps.width <= params.side,
            "sizes out of range");
    for (const int64_t place : {params.top, params.left}) {
        require(place >= -kFarthest && place <= kFarthest, "top or left out of range");
    }
    for (int64_t i = 0; i < taps.count; ++i) {
        require(taps.first[i] >= (i ? taps.first[i - 1] : 0) &&
                    taps.first[i] + taps.width <= params.side,
                "taps reach outside, or go back");
    }
}

// What of a line of the region lies in the picture, begin:end: the rest is unknown and adds
// nothing.
struct Inside {
    int64_t begin, end;

    Inside(int64_t offset, int64_t length, int64_t side)
        : begin(std::clamp<int64_t>(-offset, 0, side)),
          end(std::clamp<int64_t>(length - offset, begin, side)) {}

    int64_t count() const { return end - begin; }
    // The first of the taps on `first` and its neighbours that lies inside, and the last + 1.
    int64_t from(int64_t first, int64_t taps) const {
        return std::clamp<int64_t>(begin - first, 0, taps);
    }
    int64_t to(int64_t first, int64_t taps) const {
        return std::clamp<int64_t>(end - first, from(first, taps), taps);
    }
};

struct Insides {
    Inside rows, columns;

    explicit Insides(const KnownMeanParams& params)
        : rows(params.top, params.height, params.side),
          columns(params.left, params.width, params.side) {}
};

// The rows of the region that a band needs, as floats, each made once: row r stands at r mod R, for
// the rows of the square take T neighbours and never go back, and R of those, all but what is
// beyond the picture, are kept. A row is 3 * n colours, pixel after pixel, and then n times 1 where
// known, else 0; n are the columns in the picture.
class Rows {
  public:
    Rows(const KnownMeanParams& params, const Insides& inside)
        : params_(params),
          columns_(inside.columns),
          kept_(std::min(params.taps.width, inside.rows.count())),
          values_(kept_ * kPlanes * columns_.count()),
          made_(inside.rows.begin) {}

    // Makes rows up to `last`, not included; those more than R before it are lost.
    void reach(int64_t last) {
        made_ = std::max(made_, last - kept_);
        for (; made_ < last; ++made_) make(made_);
    }

    const float* row(int64_t y) const { return &values_[y % kept_ * kPlanes * columns_.count()]; }

  private:
    void make(int64_t row) {
        const int64_t n = columns_.count();
        const int64_t at = (params_.top + row) * params_.width + params_.left + columns_.begin;
        float* colours = &values_[row % kept_ * kPlanes * n];
        write(params_.picture + 3 * at, params_.hole + at, n, colours, colours + 3 * n);
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
    const Inside columns_;
    const int64_t kept_;
    std::vector<float> values_;
    int64_t made_;
};

// One row of the square from the sums down the columns, which stand as in a row.
void across(const KnownMeanParams& params, const Inside& columns, const float* sums, int64_t y) {
    const Taps& taps = params.taps;
    const int64_t size = taps.count;
    for (int64_t x = 0; x < size; ++x) {
        const int64_t at = taps.first[x] - columns.begin,
                      last = columns.to(taps.first[x], taps.width);
        const float* weight = taps.weights + x;
        float red = 0.0f, green = 0.0f, blue = 0.0f, share = 0.0f;
        for (int64_t t = columns.from(taps.first[x], taps.width); t < last; ++t) {
            const float w = weight[t * size];
            const float* colours = sums + 3 * (at + t);
            red = next_tap(red, w, colours[0]);
            green = next_tap(green, w, colours[1]);
            blue = next_tap(blue, w, colours[2]);
            share = next_tap(share, w, sums[3 * columns.count() + at + t]);
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

// Rows first:last of the square: down, then across. A tap beyond the picture would add 0.
void band(const KnownMeanParams& params, const Insides& inside, const composite::RowLoops& loops,
          int64_t first, int64_t last) {
    const Taps& taps = params.taps;
    Rows rows(params, inside);
    std::vector<float> sums(kPlanes * inside.columns.count());
    std::vector<const float*> lines(taps.width);
    for (int64_t y = first; y < last; ++y) {
        const int64_t from = inside.rows.from(taps.first[y], taps.width);
        const int64_t count = inside.rows.to(taps.first[y], taps.width) - from;
        if (count == 0 || sums.empty()) {
            std::fill(sums.begin(), sums.end(), 0.0f);
        } else {
            rows.reach(taps.first[y] + from + count);
            for (int64_t t = 0; t < count; ++t) lines[t] = rows.row(taps.first[y] + from + t);
            loops.down(lines.data(), taps.weights + from * taps.count + y, taps.count, count,
                       kPlanes * inside.columns.count(), sums.data());
        }
        across(params, inside.columns, sums.data(), y);
    }
}

}  // namespace

void known_mean_cpu(const KnownMeanParams& params, const std::string& lanes, int64_t threads) {
    check(params);
    const composite::RowLoops& loops = composite::row_loops_for(lanes);
    const Insides inside(params);
    const int64_t size = params.taps.count, bands = (size + kBand - 1) / kBand;
    const int64_t pixels = inside.rows.count() * inside.columns.count();
    run_steps(bands, thread_count(threads, bands, pixels, kThreadWorth), [&](int64_t i) {
        band(params, inside, loops, i * kBand, std::min((i + 1) * kBand, size));
    });
}

}  // namespace picme
