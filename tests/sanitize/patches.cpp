// Nearest patches, PatchMatch and votes, for the sanitizers: in arrays that end where the data end.
#include "patches.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

namespace {

void require(bool condition, const std::string& what) {
    if (condition) return;
    std::fprintf(stderr, "failed: %s\n", what.c_str());
    std::exit(1);
}

// Every third place is a query, the others are keys.
void run(int64_t height, int64_t width, int64_t rounds) {
    std::vector<int16_t> pixels(4 * height * width), weights(pixels.size());
    for (size_t i = 0; i < pixels.size(); ++i) {
        pixels[i] = static_cast<int16_t>(i % 4 == 3 ? 0 : i * 37 % 256);
        weights[i] = static_cast<int16_t>(i / 4 % 9);
    }
    std::vector<int32_t> queries, keys, query_at(height * width, -1);
    std::vector<uint8_t> valid(height * width), wanted(height * width, 1);
    for (int64_t y = picme::kPatchReach; y < height - picme::kPatchReach; ++y) {
        for (int64_t x = picme::kPatchReach; x < width - picme::kPatchReach; ++x) {
            const auto place = static_cast<int32_t>(y * width + x);
            valid[place] = (x + y) % 3 != 0;
            if (valid[place]) {
                keys.push_back(place);
            } else {
                query_at[place] = static_cast<int32_t>(queries.size());
                queries.push_back(place);
            }
        }
    }
    const auto count = static_cast<int64_t>(queries.size());
    const picme::PatchPicture picture{pixels.data(), weights.data(), height,
                                      width,         queries.data(), count};
    const std::vector<double> prices(keys.size(), 1.0);
    std::vector<int32_t> found(count), distances(count), searched(count, keys.back());
    picme::nearest_patches(picture, keys.data(), prices.data(), keys.size(), 100.0, found.data(),
                           distances.data());
    picme::nearest_patches(picture, keys.data(), prices.data(), keys.size(),
                           std::numeric_limits<double>::infinity(), found.data(), distances.data());
    const std::vector<int32_t> nearest = distances;
    picme::search_patches(picture, {valid.data(), query_at.data(), rounds, 40, 7, 1, 0xFFFFFFFFu},
                          searched.data(), distances.data());
    for (int64_t q = 0; q < count; ++q) require(nearest[q] <= distances[q], "none is nearer");
    for (const int64_t channels : {1, 3}) {
        const std::vector<float> values(channels * height * width, 2.0f), ones(count, 1.0f);
        std::vector<float> out(values.size(), 2.0f);
        picme::vote_patches(values.data(), channels, wanted.data(), query_at.data(), found.data(),
                            ones.data(), height, width, out.data());
        require(out == values, "the mean of equal values");
    }
}

}  // namespace

int main() {
    int64_t runs = 0;
    for (const int64_t height : {8, 13, 20}) {
        for (const int64_t width : {8, 17}) {
            for (const int64_t rounds : {0, 1, 4}) run(height, width, rounds), ++runs;
        }
    }
    std::printf("%lld runs of the patches are clean\n", static_cast<long long>(runs));
    return 0;
}
