#pragma once

#include <pybind11/pybind11.h>

// Adds the composite to picme_rt._kernels.
void bind_composite(pybind11::module_& module);
