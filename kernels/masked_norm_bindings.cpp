// picme_rt._kernels.norm_forward, norm_back and norm_tangent. They write into arrays that are
// given, since training keeps its maps in torch's memory; here are checked dtypes, contiguity and
// shapes, so that no wrong call can read or write outside an array.
#include "masked_norm_bindings.h"

#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <tuple>

#include "array_checks.h"
#include "masked_norm.h"

namespace py = pybind11;

namespace {

using picme::holds;
using picme::require;

// (share, gamma, beta): what a norm is besides its map.
using Norm = std::tuple<py::array, py::array, py::array>;

// The arrays of one call, all of one batch of maps.
struct Arrays {
    picme::NormParams params{};
    py::ssize_t shape[4];

    Arrays(const py::array& a, const Norm& norm, float slope) {
        const auto& [share, gamma, beta] = norm;
        require(a.ndim() == 4, "a must be (B, C, h, w)");
        params.batch = a.shape(0);
        params.channels = a.shape(1);
        params.places = a.shape(2) * a.shape(3);
        for (int i = 0; i < 4; ++i) shape[i] = a.shape(i);
        params.slope = slope;
        params.half = holds<uint16_t>(a);
        params.a = map(a, "a");
        const bool shared = share.size() == params.places;
        params.share_pitch = shared ? 0 : params.places;
        params.share = floats(share, params.places * (shared ? 1 : params.batch), "share");
        params.gamma = floats(gamma, params.channels, "gamma");
        params.beta = floats(beta, params.channels, "beta");
    }

    // (B, C, h, w) with channels last in memory.
    const void* map(const py::array& array, const char* name) const {
        check(array, params.half ? holds<uint16_t>(array) : holds<float>(array), name);
        require(array.ndim() == 4, std::string(name) + " must be (B, C, h, w)");
        py::ssize_t stride = array.itemsize();
        for (const int axis : {1, 3, 2, 0}) {
            const bool fits = array.strides(axis) == stride || shape[axis] <= 1;
            require(array.shape(axis) == shape[axis] && fits,
                    std::string(name) + " must have the shape of a, channels last in memory");
            stride *= shape[axis];
        }
        return array.data();
    }
    void* written_map(py::array& array, const char* name) const {
        map(array, name);
        return array.mutable_data();
    }
    const float* floats(const py::array& array, int64_t size, const char* name) const {
        check(array, holds<float>(array), name);
        require(array.size() == size && (array.flags() & py::array::c_style) != 0,
                std::string(name) + " must be contiguous and fit the map");
        return static_cast<const float*>(array.data());
    }
    float* written(py::array& array, int64_t size, const char* name) const {
        floats(array, size, name);
        return static_cast<float*>(array.mutable_data());
    }
    // (B, C)
    float* line(py::array& array, const char* name) const {
        return written(array, params.batch * params.channels, name);
    }

    // What forward keeps.
    void keep(py::array& mean, py::array& inverse) {
        params.mean = line(mean, "mean");
        params.inverse = line(inverse, "inverse");
    }
    // What comes back, and where it goes on to.
    void came(const py::array& gradient, py::array& total, py::array& along, py::array& out) {
        params.gradient = map(gradient, "gradient");
        params.total = line(total, "total");
        params.along = line(along, "along");
        params.out = written_map(out, "out");
    }

    void run(picme::NormPass pass, int64_t threads, const std::string& lanes) const {
        require(threads >= 1, "threads must be at least 1");
        const py::gil_scoped_release release;
        picme::masked_norm_cpu(params, pass, lanes, threads);
    }

  private:
    static void check(const py::array& array, bool right, const char* name) {
        require(right, std::string(name) + " has the wrong dtype");
        require(picme::is_aligned(array), std::string(name) + " must be aligned");
    }
};

void forward(const py::array& a, const Norm& norm, py::array mean, py::array inverse, py::array y,
             float slope, int64_t threads, const std::string& lanes) {
    Arrays arrays(a, norm, slope);
    arrays.keep(mean, inverse);
    arrays.params.y = arrays.written_map(y, "y");
    arrays.run(picme::NormPass::kForward, threads, lanes);
}

void back(const py::array& a, const Norm& norm, py::array mean, py::array inverse,
          const py::array& gradient, py::array total, py::array along, py::array out,
          std::optional<py::array> pull, float slope, int64_t threads, const std::string& lanes) {
    Arrays arrays(a, norm, slope);
    arrays.keep(mean, inverse);
    arrays.came(gradient, total, along, out);
    if (pull) arrays.params.pull = arrays.written_map(*pull, "pull");
    arrays.run(picme::NormPass::kBack, threads, lanes);
}

void tangent(const py::array& a, const Norm& norm, py::array mean, py::array inverse,
             const py::array& gradient, py::array total, py::array along, py::array out,
             const py::array& u, py::array pull, py::array of_gamma, float slope, int64_t threads,
             const std::string& lanes) {
    Arrays arrays(a, norm, slope);
    arrays.keep(mean, inverse);
    arrays.came(gradient, total, along, out);
    arrays.params.u = arrays.map(u, "u");
    arrays.params.pull = arrays.written_map(pull, "pull");
    arrays.params.of_gamma = arrays.line(of_gamma, "of_gamma");
    arrays.run(picme::NormPass::kTangent, threads, lanes);
}

}  // namespace

void bind_masked_norm(py::module_& module) {
    module.def("norm_forward", &forward, py::arg("a"), py::arg("norm"), py::arg("mean"),
               py::arg("inverse"), py::arg("y"), py::kw_only(), py::arg("slope"),
               py::arg("threads"), py::arg("lanes") = "");
    module.def("norm_back", &back, py::arg("a"), py::arg("norm"), py::arg("mean"),
               py::arg("inverse"), py::arg("gradient"), py::arg("total"), py::arg("along"),
               py::arg("out"), py::arg("pull") = py::none(), py::kw_only(), py::arg("slope"),
               py::arg("threads"), py::arg("lanes") = "");
    module.def("norm_tangent", &tangent, py::arg("a"), py::arg("norm"), py::arg("mean"),
               py::arg("inverse"), py::arg("gradient"), py::arg("total"), py::arg("along"),
               py::arg("out"), py::arg("u"), py::arg("pull"), py::arg("of_gamma"), py::kw_only(),
               py::arg("slope"), py::arg("threads"), py::arg("lanes") = "");
}
