// Every path of the sampler on the CPU, for the sanitizers: all lanes, thread counts, modes and
// roundings, in arrays that end where the data end. `make sanitize` builds and runs it.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "lanes.h"
#include "normal.h"
#include "sample_gmm.h"
#include "sample_gmm_math.h"

namespace {

using picme::LaneKernels;
using picme::Mode;
using picme::Rounding;

const LaneKernels& scalar() {
    return picme::lane_kernels("scalar");
}

void require(bool condition, const std::string& what) {
    if (condition) return;
    std::fprintf(stderr, "failed: %s\n", what.c_str());
    std::exit(1);
}

struct Mixture {
    Mixture(int64_t batch, int64_t primitives, int64_t dim)
        : log_alpha(batch * primitives), mu(batch * primitives * dim), log_sigma(mu.size()) {
        for (size_t i = 0; i < log_alpha.size(); ++i)
            log_alpha[i] = -0.3f * static_cast<float>(i % 7);
        for (size_t i = 0; i < mu.size(); ++i) {
            mu[i] = static_cast<float>(i % 11) - 5.0f;
            log_sigma[i] = 150.0f * static_cast<float>(i % 13) / 6.0f - 150.0f;
        }
        for (int64_t b = 0; b < batch; ++b) seeds.push_back(~uint64_t{0} - b);
        if (batch > 0 && primitives > 1) log_alpha[1] = -std::numeric_limits<float>::infinity();
        params.log_alpha = log_alpha.data();
        params.mu = mu.data();
        params.log_sigma = log_sigma.data();
        params.seeds = seeds.data();
        params.batch = batch;
        params.primitives = primitives;
        params.dim = dim;
        params.fixed_primitive = -1;
        params.temperature = 1.0f;
    }

    std::vector<float> log_alpha, mu, log_sigma;
    std::vector<uint64_t> seeds;
    picme::SampleGmmParams params{};
};

// What a call writes, one array after the other.
std::vector<uint8_t> drawn(picme::SampleGmmParams params, const LaneKernels& lanes,
                           int64_t threads) {
    const size_t rows = params.batch * params.k, numbers = rows * params.dim;
    std::vector<uint8_t> z(numbers * (params.rounding == Rounding::float32 ? 4 : 2));
    std::vector<int32_t> primitive(rows);
    std::vector<float> log_prob(params.log_prob ? rows : 0);
    params.z = z.data();
    params.primitive = primitive.data();
    if (params.log_prob) params.log_prob = log_prob.data();
    picme::sample_gmm_cpu(params, lanes, threads);
    const auto append = [&z](const auto& array) {
        const auto* bytes = reinterpret_cast<const uint8_t*>(array.data());
        z.insert(z.end(), bytes, bytes + array.size() * sizeof array[0]);
    };
    append(primitive);
    append(log_prob);
    return z;
}

void check_sizes() {
    float asked;  // only says that log_prob is wanted
    for (const int64_t dim : {1, 3, 4, 17, 64, 65, 511, 512, 513, 1100}) {
        for (const int64_t k : {1, 2, 17}) {
            Mixture mixture(2, 3, dim);
            mixture.params.k = k;
            mixture.params.first = (int64_t{1} << 32) - k;
            mixture.params.log_prob = &asked;
            const std::vector<uint8_t> expected = drawn(mixture.params, scalar(), 1);
            for (const LaneKernels* lanes : picme::lane_kernels()) {
                const std::string name = std::string(lanes->name) + ", D = " + std::to_string(dim);
                require(picme::is_valid_mixture(mixture.params, *lanes), "valid, " + name);
                for (const int64_t threads : {0, 1, 2, 3, 8}) {
                    require(drawn(mixture.params, *lanes, threads) == expected, "sizes, " + name);
                }
            }
        }
    }
}

void check_modes() {
    Mixture mixture(3, 5, 100);
    mixture.params.k = 7;
    for (const Mode mode : {Mode::categorical, Mode::per_primitive, Mode::mean}) {
        for (const Rounding rounding : {Rounding::float32, Rounding::float16, Rounding::bfloat16}) {
            for (const float temperature : {0.0f, 1.0f, 3e38f}) {
                mixture.params.mode = mode;
                mixture.params.rounding = rounding;
                mixture.params.temperature = temperature;
                const std::vector<uint8_t> expected = drawn(mixture.params, scalar(), 1);
                for (const LaneKernels* lanes : picme::lane_kernels()) {
                    require(drawn(mixture.params, *lanes, 2) == expected, lanes->name);
                }
            }
        }
    }
    Mixture none(0, 3, 5);
    none.params.k = 2;
    require(drawn(none.params, scalar(), 8).empty(), "no images");
    mixture.params.fixed_primitive = 5;
    try {
        drawn(mixture.params, scalar(), 1);
        require(false, "a primitive that is not there is refused");
    } catch (const std::invalid_argument&) {
    }
}

void check_normal() {
    const std::vector<uint64_t> seeds{1, ~uint64_t{0}};
    for (const int64_t size : {0, 1, 5, 64, 67, (1 << 14) + 3}) {
        const auto made = [&](const LaneKernels& lanes, int64_t threads) {
            std::vector<float> eps(2 * 3 * size);
            picme::normal_cpu({seeds.data(), eps.data(), 2, 3, size, 4, 9}, lanes, threads);
            return eps;
        };
        const std::vector<float> expected = made(scalar(), 1);
        for (const LaneKernels* lanes : picme::lane_kernels()) {
            for (const int64_t threads : {0, 1, 2, 3, 8}) {
                require(made(*lanes, threads) == expected, std::string("normal, ") + lanes->name);
            }
        }
    }
}

void check_callers_at_once() {
    Mixture mixture(2, 3, 700);
    mixture.params.k = 5;
    const std::vector<uint8_t> expected = drawn(mixture.params, scalar(), 1);
    std::vector<std::thread> callers;
    for (int i = 0; i < 4; ++i) {
        callers.emplace_back([&] {
            for (const LaneKernels* lanes : picme::lane_kernels()) {
                require(drawn(mixture.params, *lanes, 3) == expected, "callers at once");
            }
        });
    }
    for (std::thread& caller : callers) caller.join();
}

void check_known_answer() {
    const picme::Words4 words = picme::philox4x32_10(
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0x299f31d0a4093822);
    const uint32_t known[] = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};  // of Random123
    require(std::memcmp(words.x, known, sizeof known) == 0, "the known answer of Random123");
}

}  // namespace

int main() {
    check_known_answer();
    check_sizes();
    check_modes();
    check_normal();
    check_callers_at_once();
    for (const LaneKernels* lanes : picme::lane_kernels()) std::printf("%s ", lanes->name);
    std::printf("clean\n");
}
