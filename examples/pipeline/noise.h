// The noise of results 0 to k - 1 of a seed, by the sampler's own arithmetic: the bits of
// picme_rt.noise.noise (docs/sampling.md). Build with -ffp-contract=off.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../../kernels/sample_gmm_math.h"

struct Noise {
    std::vector<float> uniforms;  // k
    std::vector<float> normals;   // k x latent
};

inline Noise noise(uint64_t seed, uint32_t k, uint32_t latent) {
    Noise made{std::vector<float>(k), std::vector<float>(size_t{k} * latent)};
    for (uint32_t i = 0; i < k; ++i) {
        const picme::Words4 draw = picme::philox4x32_10({{picme::kPlace, 0, i, 0}}, seed);
        made.uniforms[i] = picme::uniform(draw.x[0]);
        for (uint32_t d = 0; d < latent; d += 4) {
            const picme::Words4 counter = {{picme::kPlace, d / 4 + 1, i, 0}};
            const picme::Floats4 four = picme::normals(picme::philox4x32_10(counter, seed));
            const uint32_t count = std::min(4u, latent - d);
            std::copy_n(four.x, count, made.normals.begin() + size_t{i} * latent + d);
        }
    }
    return made;
}
