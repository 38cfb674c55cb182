#pragma once

#include <pybind11/pybind11.h>

// Adds sample_gmm_plain to picme_rt._kernels.
void bind_sample_gmm_plain(pybind11::module_& module);
