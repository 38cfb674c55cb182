#pragma once

#include <pybind11/pybind11.h>

// Adds nearest_patches, search_patches and vote_patches to picme_rt._kernels.
void bind_patches(pybind11::module_& module);
