#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

#include "sample_gmm.h"
#include "sample_gmm_math.h"

namespace picme {
namespace {

constexpr double kLog2Pi = 1.8378770664093454836;

void check(const SampleGmmParams& params) {
    const bool sizes = params.batch >= 0 && params.primitives >= 1 && params.dim >= 1;
    const bool range =
        params.k >= 1 && params.first >= 0 && params.first <= (int64_t{1} << 32) - params.k;
    const bool fixed = params.fixed_primitive >= -1 && params.fixed_primitive < params.primitives;
    if (!sizes || !range || !fixed) {
        throw std::invalid_argument("sample_gmm: sizes, k, first or primitive out of range");
    }
}

double log_sum_exp(const std::vector<double>& terms) {
    const double top = *std::max_element(terms.begin(), terms.end());
    if (std::isinf(top)) return top;  // a z beyond float32 has no density
    double total = 0.0;
    for (const double term : terms) total += std::exp(term - top);
    return std::log(total) + top;
}

// One image's mixture, with what all of its samples share.
class Mixture {
  public:
    Mixture(const SampleGmmParams& params, int64_t image)
        : params_(params),
          log_alpha_(params.log_alpha + image * params.primitives),
          mu_(params.mu + image * params.primitives * params.dim),
          log_sigma_(params.log_sigma + image * params.primitives * params.dim),
          seed_(params.seeds[image]),
          cumulated_(params.primitives),
          inverse_sigma_(params.primitives * params.dim),
          constant_(params.primitives),
          terms_(params.primitives) {
        float total = 0.0f;
        for (int64_t p = 0; p < params.primitives; ++p) {
            total = total + exp_poly(log_alpha_[p]);
            cumulated_[p] = total;
        }
        const double log_total =
            log_sum_exp(std::vector<double>(log_alpha_, log_alpha_ + params.primitives));
        for (int64_t p = 0; p < params.primitives; ++p) {
            double sum = 0.0;
            for (int64_t d = p * params.dim; d < (p + 1) * params.dim; ++d) {
                const double log_std = std::min(std::max(log_sigma_[d], -104.0f), 88.0f);
                inverse_sigma_[d] = std::exp(-log_std);
                sum += log_std;
            }
            constant_[p] =
                log_alpha_[p] - log_total - sum - 0.5 * static_cast<double>(params.dim) * kLog2Pi;
        }
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
        const float threshold = uniform(words.x[0]) * cumulated_.back();
        const auto after = std::upper_bound(cumulated_.begin(), cumulated_.end(), threshold);
        return std::min<int64_t>(after - cumulated_.begin(), params_.primitives - 1);
    }

    // z = mu + (T * sigma) * eps
    void draw(uint32_t index, int64_t primitive, float* z) const {
        const float* mu = mu_ + primitive * params_.dim;
        const float* log_sigma = log_sigma_ + primitive * params_.dim;
        if (params_.mode == Mode::mean) {
            std::copy(mu, mu + params_.dim, z);
            return;
        }
        for (int64_t d = 0; d < params_.dim; d += 4) {
            const uint32_t quad = static_cast<uint32_t>(d / 4);
            const Floats4 eps = normals(philox4x32_10({{kPlace, quad + 1, index, 0}}, seed_));
            const int64_t count = std::min<int64_t>(4, params_.dim - d);
            for (int64_t j = 0; j < count; ++j) {
                const float spread = params_.temperature * exp_poly(log_sigma[d + j]);
                z[d + j] = mu[d + j] + spread * eps.x[j];
            }
        }
    }

    // Eq. 3, at temperature 1.
    float log_prob(const float* z) {
        for (int64_t p = 0; p < params_.primitives; ++p) {
            const float* mu = mu_ + p * params_.dim;
            const double* inverse_sigma = inverse_sigma_.data() + p * params_.dim;
            double squares = 0.0;
            for (int64_t d = 0; d < params_.dim; ++d) {
                const double distance = (static_cast<double>(z[d]) - mu[d]) * inverse_sigma[d];
                squares += distance * distance;
            }
            terms_[p] = constant_[p] - 0.5 * squares;
        }
        return static_cast<float>(log_sum_exp(terms_));
    }

  private:
    const SampleGmmParams& params_;
    const float* log_alpha_;
    const float* mu_;
    const float* log_sigma_;
    uint64_t seed_;
    std::vector<float> cumulated_;       // (P,) weights summed from primitive 0 on
    std::vector<double> inverse_sigma_;  // (P, D)
    std::vector<double> constant_;       // (P,) what log N has beside the distance
    std::vector<double> terms_;          // (P,) room for log_prob
};

}  // namespace

void sample_gmm_cpu(const SampleGmmParams& params) {
    check(params);
    for (int64_t image = 0; image < params.batch; ++image) {
        Mixture mixture(params, image);
        for (int64_t j = 0; j < params.k; ++j) {
            const int64_t row = image * params.k + j;
            const uint32_t index = static_cast<uint32_t>(params.first + j);
            const int64_t primitive = mixture.primitive_of(index);
            float* z = params.z + row * params.dim;
            mixture.draw(index, primitive, z);
            params.primitive[row] = static_cast<int32_t>(primitive);
            params.log_prob[row] = mixture.log_prob(z);
        }
    }
}

}  // namespace picme
