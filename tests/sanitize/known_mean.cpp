// The way in on the CPU, for the sanitizers: all lanes and thread counts, regions inside and beyond
// the picture, in arrays that end where the data end.
#include "known_mean.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "lanes.h"

namespace {

void require(bool condition, const std::string& what) {
    if (condition) return;
    std::fprintf(stderr, "failed: %s\n", what.c_str());
    std::exit(1);
}

// Equal weights of `width` neighbours for each of `size` places of a square.
std::vector<float> run(int64_t side, int64_t size, int64_t width, int64_t top, int64_t left,
                       const std::string& lanes, int64_t threads) {
    const int64_t rows = 41, columns = 37;
    std::vector<uint8_t> picture(3 * rows * columns), hole(rows * columns);
    for (size_t i = 0; i < picture.size(); ++i) picture[i] = static_cast<uint8_t>(i * 31);
    for (size_t i = 0; i < hole.size(); ++i) hole[i] = i % 7 == 0 ? 255 : 0;
    std::vector<int32_t> first(size);
    for (int64_t i = 0; i < size; ++i) {
        first[i] = static_cast<int32_t>(i * (side - width) / (size > 1 ? size - 1 : 1));
    }
    std::vector<float> weights(width * size, 1.0f / static_cast<float>(width));
    std::vector<float> found(4 * size * size);
    picme::known_mean_cpu({picture.data(),
                           hole.data(),
                           rows,
                           columns,
                           top,
                           left,
                           side,
                           {first.data(), weights.data(), size, width},
                           found.data(),
                           found.data() + 3 * size * size},
                          lanes, threads);
    return found;
}

}  // namespace

int main() {
    int64_t runs = 0;
    for (const int64_t side : {1, 5, 40, 90}) {
        for (const int64_t size : {1, 8, 33}) {
            for (const int64_t corner : {-100, -13, 0, 12, 60}) {
                const int64_t width = side < 4 ? side : 4, left = 3 - corner / 2;
                const std::vector<float> expected =
                    run(side, size, width, corner, left, "scalar", 1);
                for (const picme::LaneKernels* table : picme::lane_kernels()) {
                    for (const int64_t threads : {1, 4}) {
                        require(
                            expected == run(side, size, width, corner, left, table->name, threads),
                            "equal values");
                        ++runs;
                    }
                }
            }
        }
    }
    try {
        run(3, 8, 4, 0, 0, "", 1);
        require(false, "taps wider than the region are refused");
    } catch (const std::invalid_argument&) {
    }
    std::printf("%lld runs are clean\n", static_cast<long long>(runs));
    return 0;
}
