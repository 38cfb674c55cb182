// sample_gmm on the host: a task is a few samples of one image, channel by channel in pieces that
// stay in the first cache. A sample's numbers are summed in the same order in every task, so that
// not even log_prob depends on k, on the batch or on threads.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "lanes.h"
#include "sample_gmm.h"
#include "sample_gmm_math.h"
#include "threads.h"

namespace picme {
namespace {

constexpr double kLog2Pi = 1.8378770664093454836;
constexpr int64_t kChunk = 512;            // channels at a time
constexpr int64_t kMostRows = 16;          // samples a task, which share sigma and its inverse
constexpr int64_t kThreadWorth = 1 << 17;  // numbers: 60 us with AVX-512, 200 us without AVX

void check(const SampleGmmParams& params) {
    const bool sizes = params.batch >= 0 && params.primitives >= 1 && params.dim >= 1;
    const bool range =
        params.k >= 1 && params.first >= 0 && params.first <= (int64_t{1} << 32) - params.k;
    const bool fixed = params.fixed_primitive >= -1 && params.fixed_primitive < params.primitives;
    if (!sizes || !range || !fixed) {
        throw std::invalid_argument("sample_gmm: sizes, k, first or primitive out of range");
    }
}

template <typename T>
double log_sum_exp(const T* terms, int64_t count) {
    const double top = *std::max_element(terms, terms + count);
    if (std::isinf(top)) return top;  // a z beyond float32 has no density
    double total = 0.0;
    for (int64_t i = 0; i < count; ++i) total += std::exp(terms[i] - top);
    return std::log(total) + top;
}

// What one thread needs, taken before the threads start: a task must not throw.
struct Room {
    explicit Room(const SampleGmmParams& params)
        : cumulated(params.primitives),
          log_scale(params.log_prob ? params.primitives : 0),
          distance(params.log_prob ? params.primitives * kMostRows : 0),
          z(params.rounding == Rounding::float32 ? 0 : kMostRows * kChunk) {}

    std::vector<float> cumulated;   // (P,) weights summed from primitive 0 on
    std::vector<double> log_scale;  // (P,) sum of log_sigma so far
    std::vector<double> distance;   // (rows, P) sum of ((z - mu) / sigma)**2 so far
    std::vector<float> z;           // (rows, kChunk) before it is rounded
};

// Samples begin .. begin + count - 1 of one image.
class Task {
  public:
    Task(const SampleGmmParams& params, const LaneKernels& lanes, Room& room, int64_t image,
         int64_t begin, int64_t count)
        : params_(params),
          lanes_(lanes),
          room_(room),
          log_alpha_(params.log_alpha + image * params.primitives),
          mu_(params.mu + image * params.primitives * params.dim),
          log_sigma_(params.log_sigma + image * params.primitives * params.dim),
          seed_(params.seeds[image]),
          index_(static_cast<uint32_t>(params.first + begin)),
          count_(count),
          row_(image * params.k + begin) {}

    void run() {
        choose();
        std::fill(room_.log_scale.begin(), room_.log_scale.end(), 0.0);
        std::fill(room_.distance.begin(), room_.distance.end(), 0.0);
        for (int64_t d = 0; d < params_.dim; d += kChunk) {
            const int64_t n = std::min(kChunk, params_.dim - d);
            const float* z[kMostRows];
            draw(d, n, z);
            if (params_.log_prob) measure(d, n, z);
        }
        if (params_.log_prob) finish();
    }

  private:
    // The primitive of every row, and the order of rows in which each primitive comes once.
    void choose() {
        float total = 0.0f;
        for (int64_t p = 0; p < params_.primitives; ++p) {
            total = total + exp_poly(log_alpha_[p]);
            room_.cumulated[p] = total;
        }
        int32_t* chosen = params_.primitive + row_;
        for (int64_t r = 0; r < count_; ++r) {
            chosen[r] = static_cast<int32_t>(primitive_of(index_ + static_cast<uint32_t>(r)));
            order_[r] = r;
        }
        std::sort(order_, order_ + count_,
                  [chosen](int64_t a, int64_t b) { return chosen[a] < chosen[b]; });
    }

    int64_t primitive_of(uint32_t index) const {
        switch (params_.mode) {
            case Mode::mean:
                return std::max_element(log_alpha_, log_alpha_ + params_.primitives) - log_alpha_;
            case Mode::per_primitive:
                return index % params_.primitives;
            case Mode::categorical:
                break;
        }
        if (params_.fixed_primitive >= 0) return params_.fixed_primitive;
        const Words4 words = philox4x32_10({{kPlace, 0, index, 0}}, seed_);
        const auto& cumulated = room_.cumulated;
        const float threshold = uniform(words.x[0]) * cumulated.back();
        const auto after = std::upper_bound(cumulated.begin(), cumulated.end(), threshold);
        return std::min<int64_t>(after - cumulated.begin(), params_.primitives - 1);
    }

    // z = mu + (T * sigma) * eps for n channels from d on; z[r] is where row r's are, unrounded.
    void draw(int64_t d, int64_t n, const float** z) {
        float spread[kChunk];
        int32_t held = -1;  // the primitive of `spread`
        for (int64_t i = 0; i < count_; ++i) {
            const int64_t r = order_[i], at = (row_ + r) * params_.dim + d;
            const int32_t p = params_.primitive[row_ + r];
            const float* mu = mu_ + p * params_.dim + d;
            const bool whole = params_.rounding == Rounding::float32;
            float* target =
                whole ? static_cast<float*>(params_.z) + at : room_.z.data() + r * kChunk;
            if (params_.mode == Mode::mean) {
                std::copy(mu, mu + n, target);
            } else {
                if (p != held) {
                    const float* log_sigma = log_sigma_ + p * params_.dim + d;
                    lanes_.spread(log_sigma, params_.temperature, spread, n);
                    held = p;
                }
                const Stream stream{seed_, kPlace, index_ + static_cast<uint32_t>(r)};
                lanes_.draw(stream, d, mu, spread, target, n);
            }
            if (!whole) {
                lanes_.round(target, params_.rounding, static_cast<uint16_t*>(params_.z) + at, n);
            }
            z[r] = target;
        }
    }

    // Adds n channels from d on to what Eq. 3 sums, for every primitive.
    void measure(int64_t d, int64_t n, const float* const* z) {
        double inverse[kChunk];
        for (int64_t p = 0; p < params_.primitives; ++p) {
            const float* mu = mu_ + p * params_.dim + d;
            room_.log_scale[p] += lanes_.invert(log_sigma_ + p * params_.dim + d, inverse, n);
            for (int64_t r = 0; r < count_; ++r) {
                room_.distance[r * params_.primitives + p] += lanes_.squares(z[r], mu, inverse, n);
            }
        }
    }

    // Eq. 3, at temperature 1.
    void finish() {
        const double log_total = log_sum_exp(log_alpha_, params_.primitives);
        const double log_norm = 0.5 * static_cast<double>(params_.dim) * kLog2Pi;
        for (int64_t r = 0; r < count_; ++r) {
            double* terms = room_.distance.data() + r * params_.primitives;
            for (int64_t p = 0; p < params_.primitives; ++p) {
                const double log_weight = log_alpha_[p] - log_total;
                terms[p] = log_weight - room_.log_scale[p] - log_norm - 0.5 * terms[p];
            }
            params_.log_prob[row_ + r] = static_cast<float>(log_sum_exp(terms, params_.primitives));
        }
    }

    const SampleGmmParams& params_;
    const LaneKernels& lanes_;
    Room& room_;
    const float* log_alpha_;
    const float* mu_;
    const float* log_sigma_;
    uint64_t seed_;
    uint32_t index_;            // of the first row
    int64_t count_;             // rows
    int64_t row_;               // where the first row is in (B, k)
    int64_t order_[kMostRows];  // rows by primitive
};

}  // namespace

void sample_gmm_cpu(const SampleGmmParams& params, const LaneKernels& lanes, int64_t threads) {
    check(params);
    if (params.batch == 0) return;
    threads = thread_count(threads, params.batch * params.k, work_of(params), kThreadWorth);
    const int64_t share = (params.batch * params.k + threads - 1) / threads;
    const int64_t rows = std::min({share, kMostRows, params.k});
    const int64_t groups = (params.k + rows - 1) / rows;  // an image
    std::vector<Room> rooms;
    rooms.reserve(threads);
    while (static_cast<int64_t>(rooms.size()) < threads) rooms.emplace_back(params);
    run_tasks(params.batch * groups, threads, [&](int64_t i, int64_t worker) {
        const int64_t begin = i % groups * rows, count = std::min(rows, params.k - begin);
        Task(params, lanes, rooms[worker], i / groups, begin, count).run();
    });
}

namespace {

// In float32 from the first on, as the primitive's draw has it.
float sum_of_weights(const float* log_alpha, const float* end) {
    const DefaultFloats floats;
    float total = 0.0f;
    while (log_alpha != end) total = total + exp_poly(*log_alpha++);
    return total;
}

}  // namespace

bool is_valid_mixture(const SampleGmmParams& params, const LaneKernels& lanes) {
    const int64_t count = params.batch * params.primitives * params.dim;
    if (!lanes.all_finite(params.mu, count) || !lanes.all_finite(params.log_sigma, count)) {
        return false;
    }
    for (int64_t image = 0; image < params.batch; ++image) {
        const float* row = params.log_alpha + image * params.primitives;
        const float* end = row + params.primitives;
        if (std::any_of(row, end, [](float x) { return std::isnan(x); })) return false;
        if (!(std::fabs(*std::max_element(row, end)) <= kLogAlphaLimit)) return false;
        if (params.primitives > kAlwaysFinite && !std::isfinite(sum_of_weights(row, end))) {
            return false;
        }
    }
    return true;
}

}  // namespace picme
