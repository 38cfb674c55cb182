// The composite on the CPU, for the sanitizers: all lanes, thread counts and types of pictures, in
// arrays that end where the data end. `make sanitize` builds and runs it.
#include "composite.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "lanes.h"

namespace {

using picme::PictureType;

void require(bool condition, const std::string& what) {
    if (condition) return;
    std::fprintf(stderr, "failed: %s\n", what.c_str());
    std::exit(1);
}

// `width` equal weights for each of `count` values that come from `source` ones.
struct TapArrays {
    TapArrays(int64_t source, int64_t count, int64_t width)
        : first(count), weights(width * count, 1.0f / static_cast<float>(width)) {
        for (int64_t i = 0; i < count; ++i) {
            first[i] = static_cast<int32_t>(i * (source - width) / (count > 1 ? count - 1 : 1));
        }
        taps = {first.data(), weights.data(), count, width};
    }
    std::vector<int32_t> first;
    std::vector<float> weights;
    picme::Taps taps;
};

// A box of all but one row and column of an H x W original, two results.
struct Scene {
    Scene(int64_t size, int64_t grid, int64_t height, int64_t width, int64_t taps)
        : image(3 * size * size, 0.25f),
          known(size * size),
          pull(grid * grid, 1.5f),
          inside((height - 1) * (width - 1)),
          originals(3 * height * width, 9),
          wide(2 * 3 * size * size),
          halves(wide.size()),
          blur(grid, grid, grid < 3 ? 1 : 3),
          grow(grid, size, grid < 2 ? 1 : 2),
          rows(size, height - 1, taps),
          columns(size, width - 1, taps) {
        for (size_t i = 0; i < known.size(); ++i) known[i] = i % 3 == 0;
        for (size_t i = 0; i < inside.size(); ++i) inside[i] = i % 11 != 0;
        for (size_t i = 0; i < wide.size(); ++i) {
            wide[i] = static_cast<float>(i % 97) / 48.0f - 1.0f;
            halves[i] = static_cast<uint16_t>(i * 40503u);  // NaN and infinity among them
        }
        picme::CanvasParams canvas{};
        canvas.image = image.data();
        canvas.known = known.data();
        canvas.pull = pull.data();
        canvas.inside = inside.data();
        canvas.grid = grid;
        canvas.blur = blur.taps;
        canvas.grow = grow.taps;
        canvas.rows = rows.taps;
        canvas.columns = columns.taps;
        canvas.top = 1;
        canvas.left = 1;
        canvas.height = height - 1;
        canvas.width = width - 1;
        params.originals = originals.data();
        params.canvases = {canvas};
        params.k = 2;
        params.size = size;
        params.height = height;
        params.width = width;
    }

    std::vector<uint8_t> pasted(PictureType type, const std::string& lanes, int64_t threads) {
        std::vector<uint8_t> out(params.k * originals.size());
        params.type = type;
        params.pictures = type == PictureType::float32 ? static_cast<const void*>(wide.data())
                                                       : static_cast<const void*>(halves.data());
        params.out = out.data();
        picme::composite_cpu(params, lanes, threads);
        return out;
    }

    std::vector<float> image;
    std::vector<uint8_t> known;
    std::vector<float> pull;
    std::vector<uint8_t> inside, originals;
    std::vector<float> wide;
    std::vector<uint16_t> halves;
    TapArrays blur, grow, rows, columns;
    picme::CompositeParams params{};
};

void check(Scene& scene) {
    for (const PictureType type :
         {PictureType::float32, PictureType::float16, PictureType::bfloat16}) {
        const std::vector<uint8_t> want = scene.pasted(type, "scalar", 1);
        for (const picme::LaneKernels* lanes : picme::lane_kernels()) {
            for (const int64_t threads : {0, 1, 4}) {
                require(scene.pasted(type, lanes->name, threads) == want, lanes->name);
            }
        }
    }
}

}  // namespace

int main() {
    for (const int64_t size : {1, 6, 64, 130}) {
        for (const int64_t grid : {size, size % 2 ? size : size / 2}) {
            for (const int64_t taps : {1, 2, 4, 5}) {
                if (taps > size) continue;
                Scene scene(size, grid, 300, 41, taps), wide(size, grid, 7, 1100, taps);
                check(scene);
                check(wide);
            }
        }
    }
    Scene same(64, 32, 65, 65, 1);  // nothing is resized
    std::fill(same.rows.weights.begin(), same.rows.weights.end(), 1.0f);
    check(same);
    same.rows.first.back() = 64;
    bool refused = false;
    try {
        same.pasted(PictureType::float32, "", 1);
    } catch (const std::invalid_argument&) {
        refused = true;
    }
    require(refused, "taps that reach outside");
    std::puts("clean");
    return 0;
}
