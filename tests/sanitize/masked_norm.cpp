// The masked norms on the CPU, for the sanitizers: all lanes and thread counts, both kinds of maps,
// in arrays that end where the data end.
#include "masked_norm.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "lanes.h"

namespace {

void require(bool condition, const std::string& what) {
    if (condition) return;
    std::fprintf(stderr, "failed: %s\n", what.c_str());
    std::exit(1);
}

constexpr int64_t kBatch = 2;

// T is float for float32, uint16_t for bfloat16, whose bits are the upper half of a float32's.
template <class T>
std::vector<T> map(int64_t size, int64_t step) {
    std::vector<T> found(size);
    for (int64_t i = 0; i < size; ++i) {
        found[i] = static_cast<T>(sizeof(T) == 2 ? 0x3F00 + i * step % 0x100 : i * step % 17 - 8);
    }
    return found;
}

// All three passes; what they wrote.
template <class T>
std::vector<T> run(int64_t places, int64_t channels, const std::string& lanes, int64_t threads) {
    const int64_t size = kBatch * places * channels, lines = kBatch * channels;
    const std::vector<float> share(places, 1.0f / static_cast<float>(places)), ones(channels, 1.0f);
    const std::vector<T> a = map<T>(size, 5);
    std::vector<T> gradient = map<T>(size, 3), u = map<T>(size, 7), y(size), out(size);
    std::vector<std::vector<float>> line(5, std::vector<float>(lines));
    picme::NormParams params{};
    params.batch = kBatch;
    params.places = places;
    params.channels = channels;
    params.half = sizeof(T) == 2;
    params.slope = 0.2f;
    params.share = share.data();
    params.gamma = params.beta = ones.data();
    params.a = a.data();
    params.mean = line[0].data();
    params.inverse = line[1].data();
    params.y = y.data();
    params.gradient = gradient.data();
    params.total = line[2].data();
    params.along = line[3].data();
    params.out = out.data();
    picme::masked_norm_cpu(params, picme::NormPass::kForward, lanes, threads);
    picme::masked_norm_cpu(params, picme::NormPass::kBack, lanes, threads);
    params.u = params.pull = u.data();
    params.out = gradient.data();
    params.of_gamma = line[4].data();
    picme::masked_norm_cpu(params, picme::NormPass::kTangent, lanes, threads);
    for (const std::vector<T>* more : {&out, &gradient, &u})
        y.insert(y.end(), more->begin(), more->end());
    return y;
}

template <class T>
int64_t compare(int64_t places, int64_t channels) {
    const std::vector<T> expected = run<T>(places, channels, "scalar", 1);
    int64_t runs = 0;
    for (const picme::LaneKernels* table : picme::lane_kernels()) {
        for (const int64_t threads : {1, 4}) {
            require(expected == run<T>(places, channels, table->name, threads), table->name);
            ++runs;
        }
    }
    return runs;
}

}  // namespace

int main() {
    int64_t runs = 0;
    for (const int64_t places : {1, 63, 130}) {
        for (const int64_t channels : {1, 32, 67}) {
            runs += compare<float>(places, channels) + compare<uint16_t>(places, channels);
        }
    }
    std::printf("%lld runs of the masked norms agree\n", static_cast<long long>(runs));
    return 0;
}
