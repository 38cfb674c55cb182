// The golden case of docs/sampling.md by the functions of sample_gmm_math.h, one number at a time,
// to stdout: what a compiler makes of the shared header. With `categorical` alone, from first = 5.
#include <cstdio>

#include "sample_gmm_math.h"

namespace {

constexpr int kPrimitives = 3, kDim = 257, kSamples = 8, kFirst = 5;

int choose(const float* log_alpha, float u) {
    float cumulated[kPrimitives], total = 0.0f;
    for (int p = 0; p < kPrimitives; ++p) {
        total = total + picme::exp_poly(log_alpha[p]);
        cumulated[p] = total;
    }
    int chosen = 0;
    while (chosen < kPrimitives - 1 && cumulated[chosen] <= u * total) ++chosen;
    return chosen;
}

}  // namespace

int main() {
    const uint64_t seeds[] = {0, ~uint64_t{0}};
    for (int b = 0; b < 2; ++b) {
        float log_alpha[kPrimitives];
        for (int p = 0; p < kPrimitives; ++p) log_alpha[p] = -(p + 1) / 4.0f;
        for (uint32_t i = kFirst; i < kFirst + kSamples; ++i) {
            const picme::Words4 draw = picme::philox4x32_10({{picme::kPlace, 0, i, 0}}, seeds[b]);
            const int p = choose(log_alpha, picme::uniform(draw.x[0]));
            for (uint32_t d = 0; d < kDim; ++d) {
                const picme::Words4 counter = {{picme::kPlace, d / 4 + 1, i, 0}};
                const picme::Floats4 eps = picme::normals(picme::philox4x32_10(counter, seeds[b]));
                const float mu = ((7 * b + 3 * p + static_cast<int>(d)) % 16) / 8.0f - 1.0f;
                const float log_sigma = -((5 * b + p + 3 * static_cast<int>(d)) % 8) / 4.0f;
                const float z = mu + picme::exp_poly(log_sigma) * eps.x[d % 4];
                if (std::fwrite(&z, sizeof z, 1, stdout) != 1) return 1;
            }
        }
    }
    return 0;
}
