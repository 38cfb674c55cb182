// The kernels for GPUs in picme_rt._kernels: addresses on a device and a stream in, a launch out.
// picme_rt/sampling_cuda.py and composite_cuda.py check shapes and layouts; here is checked that an
// address belongs to a GPU, for a kernel that reads another one ruins the process's CUDA context.
#include "cuda_bindings.h"

#include <cuda_runtime_api.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "composite_cuda.h"
#include "mode_name.h"
#include "sample_gmm.h"

namespace py = pybind11;

namespace {

void check(cudaError_t code) {
    if (code == cudaSuccess) return;
    cudaGetLastError();  // told here; the next call is not to blame
    throw std::runtime_error(cudaGetErrorString(code));
}

// The GPU that holds all of the named arrays.
int device_of(const std::vector<std::pair<const char*, uintptr_t>>& arrays) {
    int device = -1;
    for (const auto& [name, address] : arrays) {
        if (address == 0) continue;  // an array of no elements, or an output left out
        cudaPointerAttributes found{};
        check(cudaPointerGetAttributes(&found, reinterpret_cast<const void*>(address)));
        if (found.type != cudaMemoryTypeDevice && found.type != cudaMemoryTypeManaged) {
            throw py::value_error(std::string(name) + " must lie on a GPU, its address does not");
        }
        if (device >= 0 && found.device != device) {
            throw py::value_error("all arrays must lie on one GPU, got " + std::string(name) +
                                  " on " + std::to_string(found.device) + ", others on " +
                                  std::to_string(device));
        }
        device = found.device;
    }
    return device;
}

// Makes a GPU the current one and puts back what was; a current context of it stays in place.
class CurrentDevice {
  public:
    explicit CurrentDevice(int device) {
        check(cudaGetDevice(&before_));
        changed_ = device != before_;
        if (changed_) check(cudaSetDevice(device));
    }
    ~CurrentDevice() {
        if (changed_) cudaSetDevice(before_);
    }
    CurrentDevice(const CurrentDevice&) = delete;
    CurrentDevice& operator=(const CurrentDevice&) = delete;

  private:
    int before_ = 0;
    bool changed_ = false;
};

void sample_gmm(uintptr_t log_alpha, uintptr_t mu, uintptr_t log_sigma, uintptr_t seeds,
                uintptr_t z, uintptr_t chosen, uintptr_t log_prob, int64_t batch,
                int64_t primitives, int64_t dim, int64_t k, int64_t first, const std::string& mode,
                std::optional<int64_t> primitive, float temperature, const std::string& dtype,
                uintptr_t stream) {
    picme::SampleGmmParams params{};
    params.log_alpha = reinterpret_cast<const float*>(log_alpha);
    params.mu = reinterpret_cast<const float*>(mu);
    params.log_sigma = reinterpret_cast<const float*>(log_sigma);
    params.seeds = reinterpret_cast<const uint64_t*>(seeds);
    params.z = reinterpret_cast<void*>(z);
    params.primitive = reinterpret_cast<int32_t*>(chosen);
    params.log_prob = reinterpret_cast<float*>(log_prob);
    params.batch = batch;
    params.primitives = primitives;
    params.dim = dim;
    params.k = k;
    params.first = first;
    params.mode = picme::mode_from_name(mode);
    params.fixed_primitive = primitive.value_or(-1);
    params.temperature = temperature;
    params.rounding = picme::rounding_from_name(dtype);
    if (batch == 0) return picme::sample_gmm_cuda(params, nullptr);  // checked, no GPU needed

    const py::gil_scoped_release release;
    const CurrentDevice current(device_of({{"log_alpha", log_alpha},
                                           {"mu", mu},
                                           {"log_sigma", log_sigma},
                                           {"seeds", seeds},
                                           {"out_z", z},
                                           {"out_primitive", chosen},
                                           {"out_log_prob", log_prob}}));
    picme::sample_gmm_cuda(params, reinterpret_cast<void*>(stream));
}

picme::PictureType type_from_name(const std::string& name) {
    if (name == "float32") return picme::PictureType::float32;
    if (name == "float16") return picme::PictureType::float16;
    if (name == "bfloat16") return picme::PictureType::bfloat16;
    throw py::value_error("pictures must be float32, float16 or bfloat16, got " + name);
}

void composite(uintptr_t pictures, const std::string& dtype, uintptr_t originals, uintptr_t packed,
               uintptr_t out, uintptr_t scratch, int64_t batch, int64_t k, int64_t size,
               int64_t grid, int64_t height, int64_t width, uintptr_t stream) {
    picme::CompositeCudaParams params{};
    params.pictures = reinterpret_cast<const void*>(pictures);
    params.type = type_from_name(dtype);
    params.originals = reinterpret_cast<const uint8_t*>(originals);
    params.canvases = reinterpret_cast<const uint8_t*>(packed);
    params.scratch = reinterpret_cast<float*>(scratch);
    params.out = reinterpret_cast<uint8_t*>(out);
    params.batch = batch;
    params.k = k;
    params.size = size;
    params.grid = grid;
    params.height = height;
    params.width = width;
    if (batch * k == 0) return picme::composite_cuda(params, nullptr);  // checked, no GPU needed

    const py::gil_scoped_release release;
    const CurrentDevice current(device_of({{"pictures", pictures},
                                           {"originals", originals},
                                           {"packed", packed},
                                           {"out", out},
                                           {"scratch", scratch}}));
    picme::composite_cuda(params, reinterpret_cast<void*>(stream));
}

}  // namespace

void bind_cuda(py::module_& module) {
    module.def("sample_gmm_cuda", &sample_gmm, py::kw_only(), py::arg("log_alpha"), py::arg("mu"),
               py::arg("log_sigma"), py::arg("seeds"), py::arg("out_z"), py::arg("out_primitive"),
               py::arg("out_log_prob"), py::arg("batch"), py::arg("primitives"), py::arg("dim"),
               py::arg("k"), py::arg("first"), py::arg("mode"), py::arg("primitive").none(true),
               py::arg("temperature"), py::arg("dtype"), py::arg("stream"));
    module.def("composite_cuda", &composite, py::kw_only(), py::arg("pictures"), py::arg("dtype"),
               py::arg("originals"), py::arg("packed"), py::arg("out"), py::arg("scratch"),
               py::arg("batch"), py::arg("k"), py::arg("size"), py::arg("grid"), py::arg("height"),
               py::arg("width"), py::arg("stream"));
}
