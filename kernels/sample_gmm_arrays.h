// What sample_gmm returns to Python: new arrays, and the call that fills them.
#pragma once

#include <pybind11/numpy.h>

#include <optional>

#include "lanes.h"
#include "sample_gmm.h"

namespace picme {

// Lets other threads of Python run while it lives, where the work is worth that.
class Released {
  public:
    explicit Released(int64_t numbers) {
        if (numbers >= kWorth) release_.emplace();
    }

  private:
    static constexpr int64_t kWorth = 1 << 13;  // 8 us; to let others run takes 0.1 us
    std::optional<pybind11::gil_scoped_release> release_;
};

// Of z; bfloat16 as its bits, for NumPy has no such type.
inline pybind11::dtype dtype_of(Rounding rounding) {
    if (rounding == Rounding::float32) return pybind11::dtype::of<float>();
    return pybind11::dtype(rounding == Rounding::float16 ? "float16" : "uint16");
}

// (z, primitive, log_prob or None), or None for a mixture that is not valid; params.z, primitive
// and log_prob are still to be set.
inline pybind11::object drawn(SampleGmmParams params, const LaneKernels& lanes, bool log_prob,
                              int64_t threads) {
    namespace py = pybind11;
    bool valid;
    {
        const Released released(params.batch * params.primitives * params.dim);
        valid = is_valid_mixture(params, lanes);
    }
    if (!valid) return py::none();
    const py::ssize_t batch = params.batch, samples = params.k;
    py::array z(dtype_of(params.rounding), {batch, samples, py::ssize_t{params.dim}});
    py::array_t<int32_t> chosen({batch, samples});
    params.z = z.mutable_data();
    params.primitive = chosen.mutable_data();
    py::object density = py::none();
    if (log_prob) {
        py::array_t<float> made({batch, samples});
        params.log_prob = made.mutable_data();
        density = made;
    }
    {
        const Released released(work_of(params));
        sample_gmm_cpu(params, lanes, threads);
    }
    return py::make_tuple(z, chosen, density);
}

}  // namespace picme
