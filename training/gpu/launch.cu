// One launch of sample_gmm as a program, for machines without our Python module and for
// compute-sanitizer; on the host with kernels/emulated. training/gpu/launches.py calls it.
//
//     launch INPUT OUTPUT B P D k first mode primitive temperature density dtype
//
// INPUT holds log_alpha, mu, log_sigma and seeds, OUTPUT gets z, primitive and, with density 1,
// log_prob, as docs/sampling.md lays them out. Outputs are poisoned before the launch.
#include <exception>

#include "launch_arrays.h"
#include "sample_gmm.h"

int main(int count, char** arguments) {
    if (count != 13) fail("INPUT OUTPUT B P D k first mode primitive temperature density dtype");
    const auto number = [&](int i) { return std::strtoll(arguments[i], nullptr, 10); };
    picme::SampleGmmParams params{};
    params.batch = number(3);
    params.primitives = number(4);
    params.dim = number(5);
    params.k = number(6);
    params.first = number(7);
    params.mode = static_cast<picme::Mode>(number(8));
    params.fixed_primitive = number(9);
    params.temperature = std::strtof(arguments[10], nullptr);
    params.rounding = static_cast<picme::Rounding>(number(12));
    const int64_t size = params.rounding == picme::Rounding::float32 ? 4 : 2;  // bytes
    const int64_t mixtures = params.batch * params.primitives, rows = params.batch * params.k;

    std::FILE* file = std::fopen(arguments[1], "rb");
    if (!file) fail("cannot read INPUT");
    params.log_alpha = filled<float>(file, mixtures);
    params.mu = filled<float>(file, mixtures * params.dim);
    params.log_sigma = filled<float>(file, mixtures * params.dim);
    params.seeds = filled<uint64_t>(file, params.batch);
    std::fclose(file);
    params.z = poisoned<char>(rows * params.dim * size);
    params.primitive = poisoned<int32_t>(rows);
    params.log_prob = number(11) ? poisoned<float>(rows) : nullptr;
    try {
        picme::sample_gmm_cuda(params, nullptr);
    } catch (const std::exception& error) {
        fail(error.what());
    }
    check(cudaDeviceSynchronize());

    file = std::fopen(arguments[2], "wb");
    if (!file) fail("cannot write OUTPUT");
    written(file, static_cast<char*>(params.z), rows * params.dim * size);
    written(file, params.primitive, rows);
    if (params.log_prob) written(file, params.log_prob, rows);
    if (std::fclose(file) != 0) fail("OUTPUT: no room");
    const void* arrays[] = {params.log_alpha, params.mu,        params.log_sigma, params.seeds,
                            params.z,         params.primitive, params.log_prob};
    for (const void* array : arrays) check(cudaFree(const_cast<void*>(array)));
    return 0;
}
