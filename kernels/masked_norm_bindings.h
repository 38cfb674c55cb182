#pragma once

#include <pybind11/pybind11.h>

// Adds masked_norm to picme_rt._kernels.
void bind_masked_norm(pybind11::module_& module);
