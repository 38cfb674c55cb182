// picme_rt._kernels. picme_rt/kernels.py checks the values; here are checked dtypes (no
// conversion), contiguity and shapes, so that no wrong call can read outside an array.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "composite_bindings.h"
#include "sample_gmm.h"

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

picme::Mode mode_from_name(const std::string& name) {
    if (name == "categorical") return picme::Mode::categorical;
    if (name == "per_primitive") return picme::Mode::per_primitive;
    if (name == "mean") return picme::Mode::mean;
    throw py::value_error("mode must be categorical, per_primitive or mean, got " + name);
}

void require(bool condition, const char* message) {
    if (!condition) throw py::value_error(message);
}

py::tuple sample_gmm(const Array<float>& log_alpha, const Array<float>& mu,
                     const Array<float>& log_sigma, const Array<uint64_t>& seeds, int64_t k,
                     int64_t first, const std::string& mode, std::optional<int64_t> primitive,
                     float temperature) {
    require(log_alpha.ndim() == 2, "log_alpha must be (B, P)");
    require(
        mu.ndim() == 3 && mu.shape(0) == log_alpha.shape(0) && mu.shape(1) == log_alpha.shape(1),
        "mu must be (B, P, D)");
    require(log_sigma.ndim() == 3 && log_sigma.shape(0) == mu.shape(0) &&
                log_sigma.shape(1) == mu.shape(1) && log_sigma.shape(2) == mu.shape(2),
            "log_sigma must be (B, P, D)");
    require(seeds.ndim() == 1 && seeds.shape(0) == log_alpha.shape(0), "seeds must be (B,)");
    require(k >= 1, "k must be at least 1");
    require(!primitive || *primitive >= 0, "primitive must be at least 0");

    const py::ssize_t batch = mu.shape(0), dim = mu.shape(2);
    Array<float> z({batch, py::ssize_t{k}, dim});
    Array<int32_t> chosen({batch, py::ssize_t{k}});
    Array<float> log_prob({batch, py::ssize_t{k}});

    picme::SampleGmmParams params{};
    params.log_alpha = log_alpha.data();
    params.mu = mu.data();
    params.log_sigma = log_sigma.data();
    params.seeds = seeds.data();
    params.z = z.mutable_data();
    params.primitive = chosen.mutable_data();
    params.log_prob = log_prob.mutable_data();
    params.batch = batch;
    params.primitives = mu.shape(1);
    params.dim = dim;
    params.k = k;
    params.first = first;
    params.mode = mode_from_name(mode);
    params.fixed_primitive = primitive.value_or(-1);
    params.temperature = temperature;
    {
        py::gil_scoped_release release;
        picme::sample_gmm_cpu(params);
    }
    return py::make_tuple(z, chosen, log_prob);
}

}  // namespace

PYBIND11_MODULE(_kernels, module) {
    module.doc() = "Compiled kernels of picme_rt; picme_rt.kernels is their public face.";
    module.attr("built_for") = PICME_BUILT_FOR;  // by CMake: which devices, and why
    module.def("sample_gmm", &sample_gmm, py::arg("log_alpha").noconvert(),
               py::arg("mu").noconvert(), py::arg("log_sigma").noconvert(),
               py::arg("seeds").noconvert(), py::kw_only(), py::arg("k"), py::arg("first"),
               py::arg("mode"), py::arg("primitive").none(true), py::arg("temperature"));
    bind_composite(module);
}
