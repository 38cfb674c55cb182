// picme_rt._kernels. picme_rt/kernels.py checks the values; here are checked dtypes (no
// conversion), contiguity and shapes, so that no wrong call can read outside an array.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "array_checks.h"
#include "composite_bindings.h"
#ifdef PICME_HAS_CUDA
#include "cuda_bindings.h"
#endif
#include "known_mean_bindings.h"
#include "lanes.h"
#include "masked_norm_bindings.h"
#include "mode_name.h"
#include "normal.h"
#include "patches_bindings.h"
#include "sample_gmm.h"
#include "sample_gmm_arrays.h"
#include "sample_gmm_plain.h"

namespace py = pybind11;

namespace {

using picme::Array;
using picme::require;

// The shapes and the arrays of a mixture, checked.
picme::SampleGmmParams mixture(const Array<float>& log_alpha, const Array<float>& mu,
                               const Array<float>& log_sigma) {
    require(log_alpha.ndim() == 2 && log_alpha.shape(1) >= 1, "log_alpha must be (B, P)");
    require(
        mu.ndim() == 3 && mu.shape(0) == log_alpha.shape(0) && mu.shape(1) == log_alpha.shape(1),
        "mu must be (B, P, D)");
    require(log_sigma.ndim() == 3 && log_sigma.shape(0) == mu.shape(0) &&
                log_sigma.shape(1) == mu.shape(1) && log_sigma.shape(2) == mu.shape(2),
            "log_sigma must be (B, P, D)");
    picme::require_aligned({&log_alpha, &mu, &log_sigma});
    picme::SampleGmmParams params{};
    params.log_alpha = log_alpha.data();
    params.mu = mu.data();
    params.log_sigma = log_sigma.data();
    params.batch = mu.shape(0);
    params.primitives = mu.shape(1);
    params.dim = mu.shape(2);
    return params;
}

// (z, primitive, log_prob or None); None for values that the Python face refuses: it knows why.
py::object sample_gmm(const Array<float>& log_alpha, const Array<float>& mu,
                      const Array<float>& log_sigma, const Array<uint64_t>& seeds, int64_t k,
                      int64_t first, const std::string& mode, std::optional<int64_t> primitive,
                      float temperature, const std::string& dtype, bool log_prob, int64_t threads,
                      const std::string& lanes) {
    picme::SampleGmmParams params = mixture(log_alpha, mu, log_sigma);
    require(seeds.ndim() == 1 && seeds.shape(0) == log_alpha.shape(0), "seeds must be (B,)");
    picme::require_aligned({&seeds});
    require(k >= 1, "k must be at least 1");
    require(!primitive || *primitive >= 0, "primitive must be at least 0");
    require(threads >= 0, "threads must be at least 0");
    const picme::LaneKernels& kernels = picme::lane_kernels(lanes);
    params.seeds = seeds.data();
    params.k = k;
    params.first = first;
    params.mode = picme::mode_from_name(mode);
    params.fixed_primitive = primitive.value_or(-1);
    params.temperature = temperature;
    params.rounding = picme::rounding_from_name(dtype);
    return picme::drawn(params, kernels, log_prob, threads);
}

Array<float> normal(const Array<uint64_t>& seeds, int64_t size, int64_t k, int64_t first,
                    int64_t place, int64_t threads, const std::string& lanes) {
    require(seeds.ndim() == 1, "seeds must be (B,)");
    picme::require_aligned({&seeds});
    require(k >= 1 && size >= 0, "k must be at least 1, size at least 0");
    require(threads >= 0, "threads must be at least 0");
    const picme::LaneKernels& kernels = picme::lane_kernels(lanes);
    Array<float> eps({seeds.shape(0), py::ssize_t{k}, py::ssize_t{size}});
    const picme::NormalParams params{
        seeds.data(), eps.mutable_data(), seeds.shape(0), k, size, first, place};
    {
        py::gil_scoped_release release;
        picme::normal_cpu(params, kernels, threads);
    }
    return eps;
}

}  // namespace

PYBIND11_MODULE(_kernels, module) {
    module.doc() = "Compiled kernels of picme_rt; picme_rt.kernels is their public face.";
    module.attr("built_for") = PICME_BUILT_FOR;  // by CMake: which devices, and why
    // Every table of lanes this processor can run, the fastest first; "" takes the fastest. For
    // tests and benchmarks: the bits are the same.
    module.def("lanes", [] {
        std::vector<std::string> names;
        for (const picme::LaneKernels* table : picme::lane_kernels()) names.push_back(table->name);
        return names;
    });
    module.def("sample_gmm", &sample_gmm, py::arg("log_alpha").noconvert(),
               py::arg("mu").noconvert(), py::arg("log_sigma").noconvert(),
               py::arg("seeds").noconvert(), py::arg("k"), py::arg("first"), py::arg("mode"),
               py::arg("primitive").none(true), py::arg("temperature"),
               py::arg("dtype") = "float32", py::arg("log_prob") = true, py::arg("threads") = 0,
               py::arg("lanes") = "");
    bind_sample_gmm_plain(module);
    module.def("normal", &normal, py::arg("seeds").noconvert(), py::arg("size"), py::kw_only(),
               py::arg("k"), py::arg("first"), py::arg("place"), py::arg("threads") = 0,
               py::arg("lanes") = "");
    module.def(
        "memory_free",
        [](int64_t size, const std::string& lanes) {
            return picme::lane_kernels(lanes).memory_free(size);
        },
        "For benchmarks: the arithmetic of `size` draws, with no memory read or written.",
        py::arg("size"), py::kw_only(), py::arg("lanes") = "");
#ifdef PICME_HAS_CUDA
    bind_cuda(module);
#endif
    bind_composite(module);
    bind_known_mean(module);
    bind_masked_norm(module);
    bind_patches(module);
}
