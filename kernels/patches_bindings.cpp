// The patches of picme_rt._kernels. picme_rt/patch_search.py makes their arguments; here is checked
// what would let a wrong call read outside an array: dtypes, contiguity, shapes and places.
#include "patches_bindings.h"

#include <algorithm>
#include <string>

#include "array_checks.h"
#include "patches.h"

namespace py = pybind11;

namespace {

using picme::Array;
using picme::require;
using picme::require_aligned;

// height and width: at least 1.
void check_places(const Array<int32_t>& places, int64_t height, int64_t width, const char* name) {
    require(places.ndim() == 1, std::string(name) + " must be one row of places");
    const int32_t* place = places.data();
    for (py::ssize_t i = 0; i < places.size(); ++i) {
        const int64_t y = place[i] / width, x = place[i] % width;
        const bool inside = place[i] >= 0 && y >= picme::kPatchReach &&
                            y < height - picme::kPatchReach && x >= picme::kPatchReach &&
                            x < width - picme::kPatchReach;
        if (!inside) require(false, std::string(name) + " must be patches inside the picture");
    }
}

template <typename T>
void check_map(const Array<T>& map, int64_t height, int64_t width, const char* name) {
    require(map.ndim() == 2 && map.shape(0) == height && map.shape(1) == width,
            std::string(name) + " must be (H, W)");
}

void check_query_at(const Array<int32_t>& query_at, int64_t count) {
    const int32_t* number = query_at.data();
    for (py::ssize_t i = 0; i < query_at.size(); ++i) {
        require(number[i] >= -1 && number[i] < count, "query_at must be numbers of queries or -1");
    }
}

picme::PatchPicture picture_of(const Array<int16_t>& pixels, const Array<int16_t>& weights,
                               const Array<int32_t>& queries) {
    require(pixels.ndim() == 3 && pixels.shape(2) == 4, "pixels must be (H, W, 4)");
    require(pixels.size() >= 1, "pixels must be at least one");
    require(weights.ndim() == 3 && weights.shape(0) == pixels.shape(0) &&
                weights.shape(1) == pixels.shape(1) && weights.shape(2) == 4,
            "weights must be (H, W, 4)");
    require_aligned({&pixels, &weights, &queries});
    require(pixels.size() < int64_t{1} << 31, "pixels must be fewer than 2**29");
    const int16_t *value = pixels.data(), *weight = weights.data();
    for (py::ssize_t i = 0; i < pixels.size(); ++i) {  // so that no distance overflows
        require(value[i] >= 0 && value[i] <= 255, "pixels must be in 0..255");
        require(weight[i] >= 0 && weight[i] <= 8, "weights must be in 0..8");
    }
    check_places(queries, pixels.shape(0), pixels.shape(1), "queries");
    return {pixels.data(),   weights.data(), pixels.shape(0),
            pixels.shape(1), queries.data(), queries.shape(0)};
}

py::tuple nearest(const Array<int16_t>& pixels, const Array<int16_t>& weights,
                  const Array<int32_t>& queries, const Array<int32_t>& keys,
                  const Array<double>& prices, double alpha) {
    const picme::PatchPicture picture = picture_of(pixels, weights, queries);
    require_aligned({&keys, &prices});
    check_places(keys, picture.height, picture.width, "keys");
    require(keys.size() >= 1, "keys must be at least one");
    require(prices.ndim() == 1 && prices.size() == keys.size(), "prices must be one for each key");
    for (py::ssize_t i = 0; i < prices.size(); ++i) {
        require(prices.data()[i] >= 1 && prices.data()[i] < 1e6, "prices must be in 1..1e6");
    }
    require(alpha > 0, "alpha must be positive");
    Array<int32_t> found(picture.count), distances(picture.count);
    int32_t *places = found.mutable_data(), *d = distances.mutable_data();
    {
        py::gil_scoped_release release;
        picme::nearest_patches(picture, keys.data(), prices.data(), keys.size(), alpha, places, d);
    }
    return py::make_tuple(found, distances);
}

py::tuple search(const Array<int16_t>& pixels, const Array<int16_t>& weights,
                 const Array<int32_t>& queries, const Array<bool>& valid,
                 const Array<int32_t>& query_at, const Array<int32_t>& start, int64_t rounds,
                 int64_t radius, uint64_t seed, uint32_t index, uint32_t place) {
    const picme::PatchPicture picture = picture_of(pixels, weights, queries);
    require_aligned({&query_at, &start});
    check_map(valid, picture.height, picture.width, "valid");
    check_map(query_at, picture.height, picture.width, "query_at");
    check_query_at(query_at, picture.count);
    check_places(start, picture.height, picture.width, "start");
    require(start.size() == picture.count, "start must be a key for each query");
    require(rounds >= 0 && radius >= 0 && radius < 1 << 15, "rounds or radius out of range");
    const picme::PatchSearch params{reinterpret_cast<const uint8_t*>(valid.data()),
                                    query_at.data(),
                                    rounds,
                                    radius,
                                    seed,
                                    index,
                                    place};
    Array<int32_t> found(picture.count), distances(picture.count);
    int32_t *places = found.mutable_data(), *d = distances.mutable_data();
    std::copy(start.data(), start.data() + picture.count, places);
    {
        py::gil_scoped_release release;
        picme::search_patches(picture, params, places, d);
    }
    return py::make_tuple(found, distances);
}

void vote(const Array<float>& values, const Array<bool>& wanted, const Array<int32_t>& query_at,
          const Array<int32_t>& found, const Array<float>& query_weights, Array<float> out) {
    require(values.ndim() == 3, "values must be (H, W, C)");
    const int64_t height = values.shape(0), width = values.shape(1);
    require(height >= 1 && width >= 1, "values must be at least one place");
    require_aligned({&values, &query_at, &found, &query_weights, &out});
    check_map(wanted, height, width, "wanted");
    check_map(query_at, height, width, "query_at");
    check_places(found, height, width, "found");
    check_query_at(query_at, found.size());
    for (int64_t i = 0; i < height * width; ++i) {
        const int64_t y = i / width, x = i % width;
        require(
            query_at.data()[i] < 0 || (y >= picme::kPatchReach && y < height - picme::kPatchReach &&
                                       x >= picme::kPatchReach && x < width - picme::kPatchReach),
            "query_at must be -1 near the border");
    }
    require(query_weights.ndim() == 1 && query_weights.size() == found.size(),
            "query_weights must be one for each query");
    require(out.ndim() == 3 && out.shape(0) == height && out.shape(1) == width &&
                out.shape(2) == values.shape(2),
            "out must be as values");
    float* target = out.mutable_data();
    {
        py::gil_scoped_release release;
        picme::vote_patches(values.data(), values.shape(2),
                            reinterpret_cast<const uint8_t*>(wanted.data()), query_at.data(),
                            found.data(), query_weights.data(), height, width, target);
    }
}

}  // namespace

void bind_patches(py::module_& module) {
    module.def("nearest_patches", &nearest, py::arg("pixels").noconvert(),
               py::arg("weights").noconvert(), py::arg("queries").noconvert(),
               py::arg("keys").noconvert(), py::arg("prices").noconvert(), py::arg("alpha"));
    module.def("search_patches", &search, py::arg("pixels").noconvert(),
               py::arg("weights").noconvert(), py::arg("queries").noconvert(),
               py::arg("valid").noconvert(), py::arg("query_at").noconvert(),
               py::arg("start").noconvert(), py::kw_only(), py::arg("rounds"), py::arg("radius"),
               py::arg("seed"), py::arg("index"), py::arg("place"));
    module.def("vote_patches", &vote, py::arg("values").noconvert(), py::arg("wanted").noconvert(),
               py::arg("query_at").noconvert(), py::arg("found").noconvert(),
               py::arg("query_weights").noconvert(), py::arg("out").noconvert());
}
