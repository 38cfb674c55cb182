#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "composite.h"
#include "composite_call.h"
#include "composite_rows.h"
#include "composite_table.h"
#include "composite_tile.h"
#include "lanes.h"
#include "threads.h"

namespace picme {
namespace composite {

extern const RowLoops k_scalar;
#ifdef PICME_X86
extern const RowLoops k_avx2, k_avx512;
#endif

namespace {

constexpr int64_t kThreadWorth = 1 << 19;  // pixels of boxes: 0.2 ms or more
constexpr int64_t kTogether = 8;           // results: their sums stay in the first cache
constexpr int64_t kStrip = 256;            // rows of the original that one step of a thread writes

void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(std::string("composite: ") + message);
}

void check(const Taps& taps, int64_t source, int64_t target) {
    require(taps.count == target && taps.width >= 1 && taps.width <= source,
            "taps have other sizes than what they resize");
    for (int64_t i = 0; i < taps.count; ++i) {
        require(
            taps.first[i] >= (i ? taps.first[i - 1] : 0) && taps.first[i] + taps.width <= source,
            "taps reach outside, or go back");
    }
}

void check(const CompositeParams& params) {
    require(params.size >= 1 && params.k >= 0 && params.height >= 1 && params.width >= 1,
            "sizes or k out of range");
    for (const CanvasParams& one : params.canvases) {
        require(one.grid >= 1 && params.size % one.grid == 0, "the seam's grid must divide S");
        require(one.height >= 1 && one.width >= 1 && one.top >= 0 && one.left >= 0 &&
                    one.height <= params.height - one.top && one.width <= params.width - one.left,
                "the box must lie inside the original");
        check(one.blur, one.grid, one.grid);
        check(one.grow, one.grid, params.size);
        check(one.rows, params.size, one.height);
        check(one.columns, params.size, one.width);
    }
}

// For each block of kBlock out of n values, whether any is known in any of `rows` rows.
void find_live(const uint8_t* known, int64_t pitch, int64_t rows, int64_t n, uint8_t* live) {
    for (int64_t x = 0; x + kBlock <= n; x += kBlock) {
        uint8_t any = 0;
        for (int64_t r = 0; r < rows; ++r) {
            for (int64_t i = x; i < x + kBlock; ++i) any |= known[r * pitch + i];
        }
        live[x / kBlock] = any;
    }
}

// What g missed, averaged over the cells of row i of the seam's grid, as far as they are needed.
// Written as columns, (3, x, y), for the blur, which goes across first. Some results together: the
// rows of the known picture are still in the first cache for the next of them.
void pool(Call& call, int64_t image, int64_t i) {
    const CanvasParams& canvas = call.params.canvases[image];
    const Cells& cells = call.shared[image].pooled;
    if (i < cells.top || i >= cells.bottom) return;
    const int64_t size = call.params.size, grid = canvas.grid, side = size / grid;
    const int64_t left = cells.left * side, n = cells.right * side - left;
    const float share = 1.0f / static_cast<float>(side * side);
    const int64_t k = call.params.k, most = std::min(k, kTogether);
    const int64_t blocks = n / kBlock, groups = (side + kRowsAtOnce - 1) / kRowsAtOnce;
    const uint8_t* known = canvas.known + i * side * size + left;
    std::vector<uint8_t> live(groups * blocks);
    for (int64_t y = 0; y < side; y += kRowsAtOnce) {
        find_live(known + y * size, size, std::min(kRowsAtOnce, side - y), n,
                  live.data() + y / kRowsAtOnce * blocks);
    }
    std::vector<float> sums(most * n), room(kRowsAtOnce * n);
    for (int64_t step = 0; step < kChannels * ((k + most - 1) / most); ++step) {
        const int64_t c = step % kChannels, begin = step / kChannels * most;
        const int64_t end = std::min(begin + most, k);
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (int64_t y = 0; y < side; y += kRowsAtOnce) {
            const int64_t rows = std::min(kRowsAtOnce, side - y), from = i * side + y;
            for (int64_t j = begin; j < end; ++j) {
                const float* pictures[kRowsAtOnce];
                for (int64_t r = 0; r < rows; ++r) {
                    pictures[r] =
                        call.pictures.row(image * k + j, c, from + r, left, n, &room[r * n]);
                }
                call.loops.add_missed(live.data() + y / kRowsAtOnce * blocks, known + y * size,
                                      canvas.image + (c * size + from) * size + left, size,
                                      pictures, rows, n, &sums[(j - begin) * n]);
            }
        }
        for (int64_t j = begin; j < end; ++j) {
            const float* sum = &sums[(j - begin) * n];
            float* column = &call.shifts[image * k + j][(c * grid + cells.left) * grid + i];
            for (int64_t x = 0; x < n; x += side, column += grid) {
                float cell = sum[x];
                for (int64_t f = x + 1; f < x + side; ++f) cell = cell + sum[f];
                *column = cell * share;
            }
        }
    }
}

// (n, n) in: rows first:last of it down by taps into `out`.
void down_rows(const RowLoops& loops, const Taps& taps, int64_t first, int64_t last,
               const float* in, float* out) {
    const int64_t n = taps.count;
    std::vector<const float*> lines(taps.width);
    for (int64_t y = first; y < last; ++y) {
        for (int64_t t = 0; t < taps.width; ++t) lines[t] = in + (taps.first[y] + t) * n;
        loops.down(lines.data(), taps.weights + y, n, taps.width, n, out + y * n);
    }
}

// Blurs a result's cells, across and then down, and multiplies by `pull`. Across is down on
// columns: lines of values that lie beside each other are what the loops are fast at. Cells from
// which nothing grows into the hole are left as they are.
void spread(Call& call, int64_t result) {
    const CanvasParams& canvas = call.canvas(result);
    const Cells& hole = call.shared[result / call.params.k].hole;
    const int64_t grid = canvas.grid;
    std::vector<float> columns(grid * grid), rows(grid * grid);
    for (int64_t c = 0; c < kChannels; ++c) {
        float* cells = call.shifts[result].data() + c * grid * grid;
        down_rows(call.loops, canvas.blur, hole.left, hole.right, cells, columns.data());
        for (int64_t y = 0; y < grid; ++y) {
            for (int64_t x = 0; x < grid; ++x) rows[y * grid + x] = columns[x * grid + y];
        }
        down_rows(call.loops, canvas.blur, hole.top, hole.bottom, rows.data(), cells);
        for (int64_t j = 0; j < grid * grid; ++j) cells[j] = cells[j] * canvas.pull[j];
    }
}

// Copies the known pixels of rows first:last outside the box, of which these hold rows top:bottom:
// from one row of it to the next they are one piece of memory.
void copy_around(const Call& call, int64_t result, int64_t first, int64_t last, int64_t top,
                 int64_t bottom) {
    const CompositeParams& params = call.params;
    const CanvasParams& canvas = call.canvas(result);
    const int64_t width = params.width, pixels = params.height * width;
    const uint8_t* original = params.originals + 3 * pixels * (result / params.k);
    uint8_t* out = params.out + 3 * pixels * result;
    const auto copy = [&](int64_t begin, int64_t end) {
        std::memcpy(out + 3 * begin, original + 3 * begin, 3 * (end - begin));
    };
    int64_t begin = first * width;
    for (int64_t y = top; y < bottom; ++y) {
        copy(begin, y * width + canvas.left);
        begin = y * width + canvas.left + canvas.width;
    }
    copy(begin, last * width);
}

// Rows first:last of a result.
void write_rows(const Call& call, int64_t result, int64_t first, int64_t last) {
    const CompositeParams& params = call.params;
    const CanvasParams& canvas = call.canvas(result);
    const int64_t top = std::clamp(canvas.top, first, last);
    const int64_t bottom = std::clamp(canvas.top + canvas.height, top, last);
    if (params.originals) copy_around(call, result, first, last, top, bottom);
    const int64_t image = result / params.k, pixels = params.height * params.width;
    const int64_t columns = call.shared[image].tile;
    for (int64_t x = 0; x < canvas.width && top < bottom; x += columns) {
        Tile tile(call, result, x, std::min(x + columns, canvas.width));
        for (int64_t y = top; y < bottom; ++y) {
            const int64_t at = y * params.width + canvas.left + x;
            tile.row(y - canvas.top,
                     params.originals ? params.originals + 3 * (image * pixels + at) : nullptr,
                     params.out + 3 * (result * pixels + at));
        }
    }
}

}  // namespace

const RowLoops& row_loops_for(const std::string& lanes) {
    const std::string name = lane_kernels(lanes).name;
#ifdef PICME_X86
    for (const RowLoops* one : {&k_avx512, &k_avx2}) {
        if (name == one->name) return *one;
    }
#endif
    return k_scalar;
}

}  // namespace composite

void composite_cpu(const CompositeParams& params, const std::string& lanes, int64_t threads) {
    using namespace composite;
    check(params);
    Call call(params, row_loops_for(lanes));
    int64_t pixels = 0;
    for (const CanvasParams& one : params.canvases) pixels += params.k * one.height * one.width;
    const int64_t count = thread_count(threads, pixels, pixels, kThreadWorth);
    const int64_t images = static_cast<int64_t>(params.canvases.size());
    int64_t rows = 0;  // of the seam's grid
    for (const CanvasParams& one : params.canvases) rows = std::max(rows, one.grid);
    const int64_t results = call.results();
    if (params.k > 0) {
        run_steps(rows * images, count,
                  [&](int64_t step) { pool(call, step / rows, step % rows); });
    }
    run_steps(results, count, [&](int64_t result) {
        if (call.seam(result)) spread(call, result);
    });
    // Results in the inner loop: what they share is still in the cache for the next of them.
    const int64_t strips = (params.height + kStrip - 1) / kStrip;
    run_steps(strips * results, count, [&](int64_t step) {
        const int64_t first = step / results * kStrip;
        write_rows(call, step % results, first, std::min(first + kStrip, params.height));
    });
}

}  // namespace picme
