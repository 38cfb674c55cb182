// picme_rt._kernels.sample_gmm_plain: the usual call of sample_gmm, without the cost of its checks
// in Python. An argument that is exactly as the kernel takes it needs no conversion, no copy and no
// message. Of any other nothing is said here: None sends the caller back to picme_rt/kernels.py,
// which takes it or knows what is wrong with it.
#include "sample_gmm_plain.h"

#include <algorithm>
#include <cfloat>
#include <initializer_list>

#include "array_checks.h"
#include "lanes.h"
#include "sample_gmm.h"
#include "sample_gmm_arrays.h"

namespace py = pybind11;

namespace {

constexpr int64_t kIndices = int64_t{1} << 32;
constexpr int64_t kMostThreads = 1024;  // as picme_rt/compiled.py has it

// Reads arguments, and knows whether all were plain so far.
class Reader {
  public:
    bool plain() const { return plain_; }

    void require(bool condition) { plain_ = plain_ && condition; }

    // bool is no plain int: it is a type of its own.
    int64_t integer(py::handle value, int64_t low, int64_t high) {
        int overflow = 0;
        int64_t number = 0;
        require(PyLong_CheckExact(value.ptr()));
        if (plain_) number = PyLong_AsLongLongAndOverflow(value.ptr(), &overflow);
        require(overflow == 0 && low <= number && number <= high);
        return number;
    }

    double real(py::handle value, double low, double high) {
        double number = 0.0;
        require(PyFloat_CheckExact(value.ptr()));
        if (plain_) number = PyFloat_AS_DOUBLE(value.ptr());
        require(low <= number && number <= high);  // not NaN
        return number;
    }

    bool boolean(py::handle value) {
        require(PyBool_Check(value.ptr()));
        return value.is(py::handle(Py_True));
    }

    // The place of a str among some words.
    int word(py::handle value, std::initializer_list<const char*> words) {
        require(PyUnicode_CheckExact(value.ptr()));
        if (!plain_) return 0;
        const auto equals = [value](const char* word) {
            return PyUnicode_CompareWithASCIIString(value.ptr(), word) == 0;
        };
        const auto* found = std::find_if(words.begin(), words.end(), equals);
        require(found != words.end());
        return static_cast<int>(found - words.begin());
    }

    // The data of a C-contiguous and aligned array of that shape.
    template <typename T>
    const T* array(const py::array& value, std::initializer_list<py::ssize_t> shape) {
        const py::dtype type = value.dtype();
        require(type.num() == py::dtype::num_of<T>() && type.byteorder() == '=');
        require(value.flags() & py::array::c_style);
        require(value.ndim() == static_cast<py::ssize_t>(shape.size()) &&
                std::equal(shape.begin(), shape.end(), value.shape()));
        require(picme::is_aligned(value));
        return static_cast<const T*>(value.data());
    }

  private:
    bool plain_ = true;
};

// (z, primitive, log_prob or None), or None where an argument is not plain or has a bad value.
py::object sample_gmm_plain(py::handle log_alpha, py::handle mu, py::handle log_sigma,
                            py::handle seeds, py::handle k, py::handle first, py::handle mode,
                            py::handle primitive, py::handle temperature, py::handle dtype,
                            py::handle log_prob, py::handle impl, py::handle threads) {
    for (const py::handle one : {log_alpha, mu, log_sigma, seeds}) {
        if (!py::isinstance<py::array>(one)) return py::none();
    }
    const auto means = py::reinterpret_borrow<py::array>(mu);
    if (means.ndim() != 3) return py::none();
    const py::ssize_t B = means.shape(0), P = means.shape(1), D = means.shape(2);

    Reader read;
    read.require(P >= 1 && D >= 1);
    const auto array = [](py::handle one) { return py::reinterpret_borrow<py::array>(one); };
    picme::SampleGmmParams params{};
    params.log_alpha = read.array<float>(array(log_alpha), {B, P});
    params.mu = read.array<float>(means, {B, P, D});
    params.log_sigma = read.array<float>(array(log_sigma), {B, P, D});
    params.seeds = read.array<uint64_t>(array(seeds), {B});
    params.batch = B;
    params.primitives = P;
    params.dim = D;
    params.k = read.integer(k, 1, kIndices);
    params.first = read.integer(first, 0, kIndices - params.k);
    params.mode =
        static_cast<picme::Mode>(read.word(mode, {"categorical", "per_primitive", "mean"}));
    params.fixed_primitive = primitive.is_none() ? -1 : read.integer(primitive, 0, P - 1);
    read.require(primitive.is_none() || params.mode == picme::Mode::categorical);
    params.temperature = static_cast<float>(read.real(temperature, 0.0, FLT_MAX));
    params.rounding =
        static_cast<picme::Rounding>(read.word(dtype, {"float32", "float16", "bfloat16"}));
    const bool with_density = read.boolean(log_prob);
    read.word(impl, {"auto", "native"});
    const int64_t count = threads.is_none() ? 0 : read.integer(threads, 1, kMostThreads);

    const picme::LaneKernels& lanes = picme::lane_kernels("");
    if (!read.plain()) return py::none();
    return picme::drawn(params, lanes, with_density, count);
}

}  // namespace

void bind_sample_gmm_plain(py::module_& module) {
    module.def("sample_gmm_plain", &sample_gmm_plain);
}
