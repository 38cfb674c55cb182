#include "patches.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "sample_gmm_math.h"
#include "threads.h"

namespace picme {
namespace {

constexpr int64_t kSide = 2 * kPatchReach + 1;
constexpr int64_t kLanes = 4;  // values a pixel
constexpr int32_t kFar = std::numeric_limits<int32_t>::max();

// Whether the 7 x 7 pixels around (y, x) lie in the picture.
bool inside(const PatchPicture& picture, int64_t y, int64_t x) {
    return y >= kPatchReach && y < picture.height - kPatchReach && x >= kPatchReach &&
           x < picture.width - kPatchReach;
}

// sum over the patch of weight * (query - key)^2; at least `most` if it is not below. Whole
// numbers: no order of summation changes them.
int32_t distance(const PatchPicture& picture, int64_t query, int64_t key, int32_t most) {
    int32_t total = 0;
    for (int64_t y = -kPatchReach; y <= kPatchReach; ++y) {
        const int64_t row = y * picture.width - kPatchReach;
        const int16_t* a = picture.pixels + kLanes * (query + row);
        const int16_t* b = picture.pixels + kLanes * (key + row);
        const int16_t* w = picture.weights + kLanes * (query + row);
        int32_t sum = 0;
        for (int64_t i = 0; i < kLanes * kSide; ++i) {
            const auto difference = static_cast<int16_t>(a[i] - b[i]);
            sum += static_cast<int16_t>(w[i] * difference) * difference;
        }
        total += sum;
        if (total >= most) return total;
    }
    return total;
}

// The best key that a query has seen.
struct Best {
    const PatchPicture& picture;
    const PatchSearch& search;
    int64_t query;
    int32_t key, distance;

    void look_at(int64_t y, int64_t x) {
        if (!inside(picture, y, x)) return;
        const int64_t other = y * picture.width + x;
        if (!search.valid[other] || other == key) return;
        const int32_t d = picme::distance(picture, query, other, distance);
        if (d < distance) key = static_cast<int32_t>(other), distance = d;
    }
};

// Where the keys of the queries around would lie for this one.
void propagate(Best& best, const int32_t* found) {
    constexpr int64_t kSteps[8][2] = {{0, 1}, {0, -1}, {1, 0}, {-1, 0},
                                      {0, 4}, {0, -4}, {4, 0}, {-4, 0}};
    const PatchPicture& picture = best.picture;
    const int64_t y = best.query / picture.width, x = best.query % picture.width;
    for (const auto& step : kSteps) {
        const int64_t ny = y + step[0], nx = x + step[1];
        if (!inside(picture, ny, nx)) continue;
        const int32_t query = best.search.query_at[ny * picture.width + nx];
        if (query < 0) continue;
        best.look_at(found[query] / picture.width - step[0],
                     found[query] % picture.width - step[1]);
    }
}

// Random keys around the best one, nearer and nearer. Half a word of Philox is one coordinate.
void wander(Best& best, int64_t round) {
    const PatchSearch& search = best.search;
    uint32_t words[4] = {};
    int64_t number = 0;
    for (int64_t radius = search.radius; radius >= 1; radius /= 2, ++number) {
        if (number % 4 == 0) {
            uint64_t counter[4] = {uint64_t(search.place) + round, uint64_t(best.query),
                                   search.index, uint64_t(number)};
            counter[0] &= 0xFFFFFFFFu;
            SampleMath<OneLane>::philox4x32_10(counter, search.seed);
            for (int i = 0; i < 4; ++i) words[i] = static_cast<uint32_t>(counter[i]);
        }
        const uint32_t word = words[number % 4];
        const int64_t span = 2 * radius + 1;
        const int64_t dy = ((word >> 16) * span >> 16) - radius;
        const int64_t dx = ((word & 0xFFFFu) * span >> 16) - radius;
        best.look_at(best.key / best.picture.width + dy, best.key % best.picture.width + dx);
    }
}

// nearest_patches without the norm: most keys are given up after a row.
void cheapest_patches(const PatchPicture& picture, const int32_t* keys, const double* prices,
                      int64_t key_count, int32_t* found, int32_t* distances) {
    for (int64_t q = 0; q < picture.count; ++q) {
        double lowest = std::numeric_limits<double>::infinity();
        for (int64_t k = 0; k < key_count; ++k) {
            // a distance of `most` or more costs at least `lowest`
            const double most = std::ceil(lowest / prices[k]);
            const int32_t d = distance(picture, picture.queries[q], keys[k],
                                       most < kFar ? static_cast<int32_t>(most) + 1 : kFar);
            if (prices[k] * d < lowest) {
                lowest = prices[k] * d;
                found[q] = keys[k];
                distances[q] = d;
            }
        }
    }
}

}  // namespace

void nearest_patches(const PatchPicture& picture, const int32_t* keys, const double* prices,
                     int64_t key_count, double alpha, int32_t* found, int32_t* distances) {
    const DefaultFloats floats;
    if (std::isinf(alpha))
        return cheapest_patches(picture, keys, prices, key_count, found, distances);
    std::vector<int32_t> all(picture.count * key_count), least(key_count, kFar);
    for (int64_t q = 0; q < picture.count; ++q) {
        for (int64_t k = 0; k < key_count; ++k) {
            const int32_t d = distance(picture, picture.queries[q], keys[k], kFar);
            all[q * key_count + k] = d;
            least[k] = std::min(least[k], d);
        }
    }
    for (int64_t q = 0; q < picture.count; ++q) {
        double lowest = std::numeric_limits<double>::infinity();
        int64_t at = 0;
        for (int64_t k = 0; k < key_count; ++k) {
            const double score = prices[k] * all[q * key_count + k] / (alpha + least[k]);
            if (score < lowest) lowest = score, at = k;
        }
        found[q] = keys[at];
        distances[q] = all[q * key_count + at];
    }
}

void search_patches(const PatchPicture& picture, const PatchSearch& search, int32_t* found,
                    int32_t* distances) {
    for (int64_t q = 0; q < picture.count; ++q) {
        distances[q] = distance(picture, picture.queries[q], found[q], kFar);
    }
    // All queries of a round look at the keys of the round before: no order of them matters.
    std::vector<int32_t> before(picture.count);
    for (int64_t round = 0; round < search.rounds; ++round) {
        std::copy(found, found + picture.count, before.begin());
        for (int64_t q = 0; q < picture.count; ++q) {
            Best best{picture, search, picture.queries[q], found[q], distances[q]};
            propagate(best, before.data());
            wander(best, round);
            found[q] = best.key;
            distances[q] = best.distance;
        }
    }
}

void vote_patches(const float* values, int64_t channels, const uint8_t* wanted,
                  const int32_t* query_at, const int32_t* found, const float* query_weights,
                  int64_t height, int64_t width, float* out) {
    const DefaultFloats floats;
    std::vector<float> sums(channels);
    for (int64_t y = 0; y < height; ++y) {
        for (int64_t x = 0; x < width; ++x) {
            if (!wanted[y * width + x]) continue;
            std::fill(sums.begin(), sums.end(), 0.0f);
            float total = 0.0f;
            for (int64_t dy = -kPatchReach; dy <= kPatchReach; ++dy) {
                if (y + dy < 0 || y + dy >= height) continue;
                for (int64_t dx = -kPatchReach; dx <= kPatchReach; ++dx) {
                    if (x + dx < 0 || x + dx >= width) continue;
                    const int32_t query = query_at[(y + dy) * width + x + dx];
                    if (query < 0) continue;
                    const float weight = query_weights[query];
                    const float* said = values + channels * (found[query] - dy * width - dx);
                    for (int64_t c = 0; c < channels; ++c) sums[c] = sums[c] + weight * said[c];
                    total = total + weight;
                }
            }
            if (!(total > 0.0f)) continue;
            for (int64_t c = 0; c < channels; ++c) {
                out[channels * (y * width + x) + c] = sums[c] / total;
            }
        }
    }
}

}  // namespace picme
