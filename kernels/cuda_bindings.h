// The part of picme_rt._kernels that is built where nvcc is.
#pragma once

#include <pybind11/pybind11.h>

void bind_cuda(pybind11::module_& module);
