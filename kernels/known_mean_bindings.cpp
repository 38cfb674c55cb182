// picme_rt._kernels.known_mean. picme_rt/known_mean.py makes its arguments; here are checked dtypes
// (no conversion), contiguity and shapes, so that no wrong call can read outside an array.
#include "known_mean_bindings.h"

#include <string>

#include "array_checks.h"
#include "known_mean.h"

namespace py = pybind11;

namespace {

using picme::Array;
using picme::require;

py::tuple known_mean(const Array<uint8_t>& picture, const Array<bool>& hole, int64_t top,
                     int64_t left, int64_t side, const Array<int32_t>& first,
                     const Array<float>& weights, int64_t threads, const std::string& lanes) {
    require(picture.ndim() == 3 && picture.shape(2) == 3, "picture must be (H, W, 3)");
    require(
        hole.ndim() == 2 && hole.shape(0) == picture.shape(0) && hole.shape(1) == picture.shape(1),
        "hole must be (H, W)");
    require(first.ndim() == 1 && weights.ndim() == 2 && weights.shape(1) == first.shape(0),
            "taps must be (S,) and (T, S)");
    picme::require_aligned({&first, &weights});
    require(threads >= 0, "threads must be at least 0");
    const py::ssize_t size = first.shape(0);
    Array<float> image({py::ssize_t{3}, size, size}), unknown({py::ssize_t{1}, size, size});
    const picme::KnownMeanParams params{
        picture.data(),
        reinterpret_cast<const uint8_t*>(hole.data()),
        picture.shape(0),
        picture.shape(1),
        top,
        left,
        side,
        {first.data(), weights.data(), size, weights.shape(0)},
        image.mutable_data(),
        unknown.mutable_data(),
    };
    {
        py::gil_scoped_release release;
        picme::known_mean_cpu(params, lanes, threads);
    }
    return py::make_tuple(image, unknown);
}

}  // namespace

void bind_known_mean(py::module_& module) {
    module.def("known_mean", &known_mean, py::arg("picture").noconvert(),
               py::arg("hole").noconvert(), py::arg("top"), py::arg("left"), py::arg("side"),
               py::arg("first").noconvert(), py::arg("weights").noconvert(), py::kw_only(),
               py::arg("threads") = 0, py::arg("lanes") = "");
}
