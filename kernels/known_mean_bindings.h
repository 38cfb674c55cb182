#pragma once

#include <pybind11/pybind11.h>

// Adds known_mean to picme_rt._kernels.
void bind_known_mean(pybind11::module_& module);
