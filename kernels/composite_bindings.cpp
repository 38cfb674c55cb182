// picme_rt._kernels.composite. picme_rt/composite_kernel.py checks the values; here are checked
// dtypes (no conversion), contiguity and shapes, so that no wrong call can read outside an array.
#include "composite_bindings.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "array_checks.h"
#include "composite.h"

namespace py = pybind11;

namespace {

using picme::Array;
using picme::holds;
using picme::require;

// Pointers into a canvas's arrays; `kept` holds the arrays themselves for as long as it lives.
class Reader {
  public:
    template <typename T>
    const T* read(const py::handle& owner, const char* name, std::vector<py::ssize_t> shape) {
        const py::object value = owner.attr(name);
        require(py::isinstance<Array<T>>(value), std::string(name) + " has another dtype or order");
        const Array<T> array = py::reinterpret_borrow<Array<T>>(value);
        const bool same = array.ndim() == static_cast<py::ssize_t>(shape.size()) &&
                          std::equal(shape.begin(), shape.end(), array.shape());
        require(same, std::string(name) + " has another shape");
        require(picme::is_aligned(array), std::string(name) + " is not aligned");
        kept_.push_back(array);
        return array.data();
    }

    picme::Taps taps(const py::handle& canvas, const char* name) {
        const py::object value = canvas.attr(name);
        const py::ssize_t count = py::len(value.attr("first")),
                          width = py::len(value.attr("weights"));
        return {read<int32_t>(value, "first", {count}),
                read<float>(value, "weights", {width, count}), count, width};
    }

    picme::CanvasParams canvas(const py::handle& one, py::ssize_t size) {
        picme::CanvasParams params{};
        params.image = read<float>(one, "image", {3, size, size});
        params.known = reinterpret_cast<const uint8_t*>(read<bool>(one, "known", {size, size}));
        params.grid = py::len(one.attr("pull"));
        params.pull = read<float>(one, "pull", {params.grid, params.grid});
        params.blur = taps(one, "blur");
        params.grow = taps(one, "grow");
        params.rows = taps(one, "rows");
        params.columns = taps(one, "columns");
        params.height = params.rows.count;
        params.width = params.columns.count;
        params.inside = reinterpret_cast<const uint8_t*>(
            read<bool>(one, "inside", {params.height, params.width}));
        params.top = one.attr("box").attr("top").cast<int64_t>();
        params.left = one.attr("box").attr("left").cast<int64_t>();
        return params;
    }

  private:
    std::vector<py::object> kept_;
};

picme::PictureType type_of(const py::array& pictures) {
    if (holds<float>(pictures)) return picme::PictureType::float32;
    if (holds<uint16_t>(pictures)) return picme::PictureType::bfloat16;
    const py::dtype type = pictures.dtype();
    require(type.kind() == 'f' && type.itemsize() == 2 && type.byteorder() == '=',
            "pictures must be float32, float16 or uint16 (the bits of bfloat16)");
    return picme::PictureType::float16;
}

void composite(const py::array& pictures, const std::optional<Array<uint8_t>>& originals,
               const py::list& canvases, Array<uint8_t> out, int64_t threads,
               const std::string& lanes) {
    const picme::PictureType type = type_of(pictures);
    const bool c_order = pictures.flags() & py::array::c_style;
    require(c_order && picme::is_aligned(pictures), "pictures must be C-contiguous and aligned");
    require(pictures.ndim() == 5 && pictures.shape(2) == 3 && pictures.shape(3) >= 1 &&
                pictures.shape(3) == pictures.shape(4),
            "pictures must be (B, k, 3, S, S)");
    const py::ssize_t batch = pictures.shape(0), k = pictures.shape(1);
    require(out.ndim() == 5 && out.shape(0) == batch && out.shape(1) == k && out.shape(4) == 3,
            "out must be (B, k, H, W, 3)");
    if (originals) {
        require(originals->ndim() == 4 && originals->shape(0) == batch &&
                    originals->shape(1) == out.shape(2) && originals->shape(2) == out.shape(3) &&
                    originals->shape(3) == 3,
                "originals must be (B, H, W, 3)");
    }
    require(py::ssize_t(canvases.size()) == batch, "canvases must be B");
    require(threads >= 0, "threads must be at least 0");

    Reader reader;
    picme::CompositeParams params{};
    params.pictures = pictures.data();
    params.type = type;
    params.originals = originals ? originals->data() : nullptr;
    params.out = out.mutable_data();
    params.k = k;
    params.size = pictures.shape(3);
    params.height = out.shape(2);
    params.width = out.shape(3);
    for (const py::handle one : canvases)
        params.canvases.push_back(reader.canvas(one, params.size));
    {
        py::gil_scoped_release release;
        picme::composite_cpu(params, lanes, threads);
    }
}

}  // namespace

void bind_composite(py::module_& module) {
    module.def("composite", &composite, py::arg("pictures").noconvert(),
               py::arg("originals").noconvert().none(true), py::arg("canvases"),
               py::arg("out").noconvert(), py::kw_only(), py::arg("threads") = 0,
               py::arg("lanes") = "");
}
